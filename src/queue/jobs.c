#include "queue/jobs.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/error.h"
#include "queue/news.h"

#define NUMBER_TEXT 32

/* A statement with this in what it returns does not wait until the database's disk has it. If the database's machine
 * fails in that moment, the job is queued as before, and the claim's lease fits nothing. */
#define NO_WAIT "(select set_config('synchronous_commit', 'off', true))"

#define RETURNED                                                                                                       \
    "j.id, j.lease, encode(j.key, 'hex'), j.request::text, j.caller, j.service,"                                       \
    " coalesce(array_to_string(j.inputs, ','), ''), " NO_WAIT
#define IS_READY "state = 'queued' and model = $1 and (not_before is null or not_before <= now())"

/* ---- claiming ----
 *
 * The index job_ready is ordered by (model, priority, caller, id). So each of these steps reads few entries: the
 * highest priority; the callers of that priority, at most 32 behind the cursor; for each the number of running jobs, if
 * there are several callers; the first free jobs of the best one. `relation`: "caller > $4", or ">=" at the beginning,
 * since a caller may be "". */
#define CLAIM(relation)                                                                                                \
    "with recursive top as materialized ("                                                                             \
    "  select priority from zimage.job where " IS_READY " order by priority desc limit 1),"                            \
    "callers as ("                                                                                                     \
    "  (select caller, 1 as n from zimage.job where " IS_READY                                                         \
    "    and priority = (select priority from top) and " relation " order by caller limit 1)"                          \
    "  union all"                                                                                                      \
    "  select (select j.caller from zimage.job j where " IS_READY                                                      \
    "    and priority = (select priority from top) and j.caller > c.caller order by j.caller limit 1), n + 1"          \
    "    from callers c where c.caller is not null and n < 32),"                                                       \
    "chosen as materialized ("                                                                                         \
    "  select caller from callers where caller is not null order by"                                                   \
    "    case when (select count(*) from callers where caller is not null) > 1 then"                                   \
    "      (select count(*) from zimage.job r where r.state = 'running' and r.model = $1"                              \
    "        and r.caller = callers.caller) end, n),"                                                                  \
    "c as materialized ("                                                                                              \
    "  select f.id from chosen cross join lateral ("                                                                   \
    "    select id from zimage.job j where " IS_READY                                                                  \
    "      and priority = (select priority from top) and j.caller = chosen.caller"                                     \
    "      order by id limit $2 for update skip locked) f limit $2)"                                                   \
    "update zimage.job j set state = 'running', lease = gen_random_uuid(), worker = $3,"                               \
    "  lease_until = now() + make_interval(secs => $5) from c where j.id = c.id returning " RETURNED

static const char claim_first[] = CLAIM("caller >= $4");
static const char claim_next[] = CLAIM("caller > $4");

static const char claim_expired[] =
    "with c as materialized (select id from zimage.job where state = 'running' and model = $1 and lease_until < now()"
    "  and attempts < max_attempts order by id limit $2 for update skip locked)"
    "update zimage.job j set lease = gen_random_uuid(), worker = $3, lease_until = now() + make_interval(secs => $4)"
    "  from c where j.id = c.id returning " RETURNED;

/* Whoever made it ended, or hung, each time: it may be the job that ends its workers. */
static const char bury[] =
    "with c as materialized (select id from zimage.job where state = 'running' and model = $1 and lease_until < now()"
    "  and attempts >= max_attempts limit 1000 for update skip locked)"
    "update zimage.job j set state = 'failed', lease = null, lease_until = null, finished_at = now(), error ="
    "  format('its worker ended or hung in attempt %s of %s; the last one was %s', attempts, max_attempts, worker)"
    "  || coalesce('; before that: ' || error, '') from c where j.id = c.id";

/* "HASH,HASH"; 0: no memory. */
static int take_inputs(const char *text, ledger_job *job)
{
    size_t count = *text != 0;
    for (const char *c = text; *c; c++)
        count += *c == ',';
    job->inputs = calloc(count + 1, sizeof *job->inputs);
    if (!job->inputs)
        return 0;
    for (const char *c = text; job->input_count < count; c += strcspn(c, ",") + 1)
        snprintf(job->inputs[job->input_count++], sizeof *job->inputs, "%.*s", (int)strcspn(c, ","), c);
    return 1;
}

/* The texts of a row; 0: no memory. */
static int take_row(const PGresult *result, int row, ledger_job *job)
{
    *job = (ledger_job){.id = strtoll(PQgetvalue(result, row, 0), NULL, 10)};
    snprintf(job->lease, sizeof job->lease, "%s", PQgetvalue(result, row, 1));
    snprintf(job->key, sizeof job->key, "%s", PQgetvalue(result, row, 2));
    job->request = strdup(PQgetvalue(result, row, 3));
    job->caller = strdup(PQgetvalue(result, row, 4));
    int has_service = !PQgetisnull(result, row, 5);
    job->service = has_service ? strdup(PQgetvalue(result, row, 5)) : NULL;
    return job->request && job->caller && (job->service || !has_service) &&
           take_inputs(PQgetvalue(result, row, 6), job);
}

void ledger_job_free(ledger_job *job)
{
    free(job->request);
    free(job->caller);
    free(job->service);
    free(job->inputs);
    *job = (ledger_job){.id = 0};
}

static int by_id(const void *a, const void *b)
{
    const ledger_job *x = a, *y = b;
    return (x->id > y->id) - (x->id < y->id);
}

static ledger_result take_rows(PGresult *result, int most, ledger_job *jobs, int *found, zimage_error *error)
{
    int has_memory = 1, count = PQntuples(result);
    *found = count < most ? count : most;
    for (int i = 0; i < *found; i++)
        has_memory &= take_row(result, i, &jobs[i]);
    if (!has_memory) {
        for (int i = 0; i < *found; i++)
            ledger_job_free(&jobs[i]);
        *found = 0;
        zi_fail_memory(error, "jobs of the ledger", 0);
        return LEDGER_FAILED;
    }
    qsort(jobs, (size_t)*found, sizeof *jobs, by_id);
    return LEDGER_OK;
}

ledger_result ledger_claim(ledger *l, ledger_claiming *claiming, ledger_job *jobs, int *found, zimage_error *error)
{
    char count[NUMBER_TEXT], seconds[NUMBER_TEXT];
    ledger_result answer = LEDGER_OK;
    *found = 0;
    snprintf(count, sizeof count, "%d", claiming->count);
    snprintf(seconds, sizeof seconds, "%.3f", claiming->lease_seconds);
    do { /* nobody behind the cursor: once more from the beginning */
        const char *values[] = {claiming->model, count, claiming->worker, claiming->cursor, seconds};
        PGresult *result;
        int has_cursor = *claiming->cursor != 0;
        answer = ledger_ask(l, has_cursor ? claim_next : claim_first, 5, values, &result, error);
        if (answer == LEDGER_OK)
            answer = take_rows(result, claiming->count, jobs, found, error);
        PQclear(result);
        snprintf(claiming->cursor, sizeof claiming->cursor, "%s", *found ? jobs[*found - 1].caller : "");
        if (*found || !has_cursor)
            break;
    } while (answer == LEDGER_OK);
    return answer;
}

ledger_result ledger_claim_expired(ledger *l, const ledger_claiming *claiming, ledger_job *jobs, int *found,
                                   zimage_error *error)
{
    char count[NUMBER_TEXT], seconds[NUMBER_TEXT];
    PGresult *result;
    *found = 0;
    snprintf(count, sizeof count, "%d", claiming->count);
    snprintf(seconds, sizeof seconds, "%.3f", claiming->lease_seconds);
    const char *values[] = {claiming->model, count, claiming->worker, seconds};
    ledger_result answer = ledger_do(l, bury, 1, values, NULL, error);
    if (answer == LEDGER_OK)
        answer = ledger_ask(l, claim_expired, 4, values, &result, error);
    if (answer != LEDGER_OK)
        return answer;
    answer = take_rows(result, claiming->count, jobs, found, error);
    PQclear(result);
    return answer;
}

/* ---- arrays ---- */

char *ledger_ids(const ledger_hold *held, size_t count)
{
    char *text = malloc(count * NUMBER_TEXT + 3), *end = text;
    if (!text)
        return NULL;
    *end++ = '{';
    for (size_t i = 0; i < count; i++)
        end += sprintf(end, "%s%lld", i ? "," : "", (long long)held[i].id);
    memcpy(end, "}", 2);
    return text;
}

char *ledger_leases(const ledger_hold *held, size_t count)
{
    char *text = malloc(count * (LEDGER_LEASE_TEXT + 1) + 3), *end = text;
    if (!text)
        return NULL;
    *end++ = '{';
    for (size_t i = 0; i < count; i++)
        end += sprintf(end, "%s%s", i ? "," : "", held[i].lease);
    memcpy(end, "}", 2);
    return text;
}

char *ledger_texts(const char *const *texts, size_t count)
{
    size_t bytes = 3;
    for (size_t i = 0; i < count; i++)
        bytes += 2 * strlen(texts[i]) + 3;
    char *text = malloc(bytes), *end = text;
    if (!text)
        return NULL;
    *end++ = '{';
    for (size_t i = 0; i < count; i++) {
        end += sprintf(end, "%s\"", i ? "," : "");
        for (const char *c = texts[i]; *c; c++) {
            if (*c == '"' || *c == '\\')
                *end++ = '\\';
            *end++ = *c;
        }
        *end++ = '"';
    }
    memcpy(end, "}", 2);
    return text;
}

/* Marks which of the held jobs the rows name. */
static void mark(const PGresult *result, const ledger_hold *held, size_t count, int *is_mine)
{
    for (size_t i = 0; i < count; i++) {
        is_mine[i] = 0;
        for (int row = 0; row < PQntuples(result) && !is_mine[i]; row++)
            is_mine[i] = strtoll(PQgetvalue(result, row, 0), NULL, 10) == held[i].id;
    }
}

/* A statement on held jobs: $1 their ids, $2 their leases, $3 `third`, of which the caller is the owner. */
static ledger_result on_held(ledger *l, const char *sql, const ledger_hold *held, size_t count, const char *third,
                             int *is_mine, zimage_error *error)
{
    char *ids = ledger_ids(held, count), *leases = ledger_leases(held, count);
    const char *values[] = {ids, leases, third};
    PGresult *result = NULL;
    ledger_result answer = LEDGER_FAILED;
    if (ids && leases && third)
        answer = ledger_ask(l, sql, 3, values, &result, error);
    else
        zi_fail_memory(error, "jobs of the ledger", 0);
    if (answer == LEDGER_OK)
        mark(result, held, count, is_mine);
    PQclear(result);
    free(ids);
    free(leases);
    return answer;
}

ledger_result ledger_renew(ledger *l, const ledger_hold *held, size_t count, double lease_seconds, int *is_mine,
                           zimage_error *error)
{
    char seconds[NUMBER_TEXT];
    snprintf(seconds, sizeof seconds, "%.3f", lease_seconds);
    return on_held(l,
                   "update zimage.job j set lease_until = now() + make_interval(secs => $3)"
                   " from unnest($1::bigint[], $2::uuid[]) as m(id, lease)"
                   " where j.id = m.id and j.lease = m.lease and j.state = 'running' returning j.id, " NO_WAIT,
                   held, count, seconds, is_mine, error);
}

ledger_result ledger_finish(ledger *l, const ledger_hold *held, const char *const *results, size_t count, int *is_mine,
                            zimage_error *error)
{
    char *texts = ledger_texts(results, count);
    ledger_result answer =
        on_held(l,
                "update zimage.job j set state = 'done', result = m.result::jsonb, error = null, finished_at = now(),"
                " lease = null, lease_until = null from unnest($1::bigint[], $2::uuid[], $3::text[]) as m(id, lease, "
                "result) where j.id = m.id and j.lease = m.lease and j.state = 'running' returning j.id",
                held, count, texts, is_mine, error);
    free(texts);
    return answer;
}

/* ---- one job ---- */

/* A statement on one job: $1 its id, $2 its lease, and up to two more. */
static ledger_result on_job(ledger *l, const char *sql, const ledger_job *job, const char *third, const char *fourth,
                            PGresult **result, zimage_error *error)
{
    char id[NUMBER_TEXT];
    snprintf(id, sizeof id, "%lld", (long long)job->id);
    const char *values[] = {id, job->lease, third, fourth};
    return ledger_ask(l, sql, 2 + (third != NULL) + (fourth != NULL), values, result, error);
}

#define IS_MINE " where id = $1 and lease = $2 and state = 'running'"

ledger_result ledger_begin(ledger *l, ledger_job *job, double lease_seconds, const ledger_hold *made, int *is_mine,
                           int *is_uncounted, zimage_error *error)
{
    char id[NUMBER_TEXT], seconds[NUMBER_TEXT], before[NUMBER_TEXT];
    PGresult *result;
    *is_mine = *is_uncounted = 0;
    snprintf(id, sizeof id, "%lld", (long long)job->id);
    snprintf(seconds, sizeof seconds, "%.3f", lease_seconds);
    snprintf(before, sizeof before, "%lld", made ? (long long)made->id : 0);
    const char *values[] = {id, job->lease, seconds, before, made ? made->lease : NULL, job->service};
    ledger_result answer =
        ledger_ask(l,
                   "with made as (update zimage.job set attempts = attempts - 1"
                   "  where id = $4 and lease = $5 and state = 'running' and attempts > 0 returning id),"
                   " begun as (update zimage.job set attempts = attempts + 1, started_at = now(),"
                   "  lease_until = now() + make_interval(secs => $3)" IS_MINE " returning attempts)"
                   "select (select attempts from begun), (select count(*) from made), " LEDGER_WATCH_COLUMNS
                   ", " NO_WAIT " from (select $6::text as service) s"
                   " left join zimage.watch w on w.service = s.service and w.until > now()",
                   6, values, &result, error);
    if (answer != LEDGER_OK)
        return answer;
    *is_mine = !PQgetisnull(result, 0, 0);
    job->attempt = *is_mine ? atoi(PQgetvalue(result, 0, 0)) : 0;
    *is_uncounted = atoi(PQgetvalue(result, 0, 1));
    job->watch = ledger_read_watch(result, 0, 2);
    PQclear(result);
    return LEDGER_OK;
}

ledger_result ledger_count_attempt(ledger *l, int64_t id, zimage_error *error)
{
    char text[NUMBER_TEXT];
    snprintf(text, sizeof text, "%lld", (long long)id);
    const char *values[] = {text};
    return ledger_do(l, "update zimage.job set attempts = attempts + 1 where id = $1 returning " NO_WAIT, 1, values,
                     NULL, error);
}

static ledger_result change(ledger *l, const char *sql, const ledger_job *job, const char *third, const char *fourth,
                            zimage_error *error)
{
    PGresult *result;
    ledger_result answer = on_job(l, sql, job, third, fourth, &result, error);
    PQclear(result);
    return answer;
}

/* Which kind of error it was: a server tells its client. */
#define STATUS "result = jsonb_build_object('status', $4::text)"

ledger_result ledger_fail(ledger *l, const ledger_job *job, const zimage_error *reason, zimage_error *error)
{
    return change(l,
                  "update zimage.job set state = 'failed', error = $3, finished_at = now(), lease = null,"
                  " lease_until = null, " STATUS IS_MINE,
                  job, reason->message, zimage_status_name(reason->status), error);
}

ledger_result ledger_give_back(ledger *l, const ledger_job *job, const zimage_error *reason, zimage_error *error)
{
    return change(l,
                  "update zimage.job set error = $3, lease = null, lease_until = null, " STATUS ","
                  " state = case when attempts >= max_attempts then 'failed' else 'queued' end::zimage.job_state,"
                  " finished_at = case when attempts >= max_attempts then now() end,"
                  " not_before = now() + make_interval(secs => least(600, 5 * power(2, attempts)))" IS_MINE,
                  job, reason->message, zimage_status_name(reason->status), error);
}

ledger_result ledger_release(ledger *l, const ledger_job *job, zimage_error *error)
{
    return change(l, "update zimage.job set state = 'queued', lease = null, lease_until = null, worker = null" IS_MINE,
                  job, NULL, NULL, error);
}

/* ---- who is there ---- */

ledger_result ledger_announce(ledger *l, const char *worker, const char *model, double seconds, zimage_error *error)
{
    char text[NUMBER_TEXT];
    snprintf(text, sizeof text, "%.3f", seconds);
    const char *values[] = {worker, model, text};
    return ledger_do(l,
                     "insert into zimage.worker (name, model, expected_until)"
                     " values ($1, $2, now() + make_interval(secs => $3))"
                     " on conflict (name) do update set expected_until = excluded.expected_until",
                     3, values, NULL, error);
}

ledger_result ledger_is_empty(ledger *l, const char *model, int *is_empty, zimage_error *error)
{
    PGresult *result;
    const char *values[] = {model};
    ledger_result answer = ledger_ask(l,
                                      "select not exists (select from zimage.job where state = 'queued' and model = $1)"
                                      " and not exists (select from zimage.job where state = 'running' and model = $1)",
                                      1, values, &result, error);
    *is_empty = answer == LEDGER_OK && *PQgetvalue(result, 0, 0) == 't';
    PQclear(result);
    return answer;
}
