#include "queue/service.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/error.h"
#include "queue/jobs.h"

#define NUMBER_TEXT 32

/* Above those that zimage queue adds without a priority: a person waits for an image of the service. */
#define PRIORITY       20
#define PRIORITY_BATCH 10
#define MAX_ATTEMPTS   "5"
#define REPEATS        "interval '10 minutes'" /* for which a client's name of a request holds */
#define ANNOUNCED      "interval '10 minutes'" /* for which a worker that ended is expected back */
#define PLACES         "1000"
#define LINES          "10000"
#define TIDY_JOBS      "200"

/* ---- adding ---- */

/* A name of a request that is old, or whose job came to nothing, may be used again. */
static ledger_result forget_name(ledger *l, const service_job *job, zimage_error *error)
{
    const char *values[] = {job->owner, job->repeat, job->id};
    return ledger_do(l,
                     "update zimage.service s set repeat = null where owner = $1 and repeat = $2 and id <> $3"
                     " and (created_at < now() - " REPEATS " or exists (select from zimage.job j"
                     "   where j.service = s.id and j.state in ('failed', 'cancelled')))",
                     3, values, NULL, error);
}

/* The job and its images in one statement: all of it or nothing; also nothing if an input image was removed meanwhile.
 */
static ledger_result insert(ledger *l, const service_job *job, const ledger_service_rows *rows, uint64_t *images,
                            zimage_error *error)
{
    char priority[NUMBER_TEXT], partials[NUMBER_TEXT];
    char *keys = ledger_texts((const char *const *)rows->keys, (size_t)job->count);
    char *requests = ledger_texts((const char *const *)rows->requests, (size_t)job->count);
    char *inputs = ledger_texts(rows->inputs, job->input_count);
    snprintf(priority, sizeof priority, "%d", job->is_batch ? PRIORITY_BATCH : PRIORITY);
    snprintf(partials, sizeof partials, "%d", job->partials);
    const char *values[] = {job->id,
                            job->owner,
                            job->repeat,
                            job->about,
                            job->caller,
                            priority,
                            rows->model,
                            keys,
                            requests,
                            partials,
                            job->is_watched ? "true" : "false",
                            inputs};
    ledger_result answer = LEDGER_FAILED;
    if (keys && requests && inputs)
        answer = ledger_do(l,
                           "with held as (select hash from zimage.input where hash = any($12::text[]) for key share),"
                           " s as (insert into zimage.service (id, owner, repeat, about) select $1, $2, $3, $4::jsonb"
                           "  where (select count(*) from held) ="
                           "    (select count(distinct h) from unnest($12::text[]) as h)"
                           "  on conflict do nothing returning id),"
                           " w as (insert into zimage.watch (service, until, shown_until, partials)"
                           "  select id, now() + " LEDGER_WATCHED
                           ", case when $10::smallint > 0 then now() + " LEDGER_WATCHED
                           " end, $10::smallint from s where $11::boolean)"
                           " insert into zimage.job (batch, key, caller, priority, model, request, max_attempts,"
                           "  service, part, inputs) select 'service', decode(i.key, 'hex'), $5, $6::smallint, $7,"
                           "  i.request::jsonb, " MAX_ATTEMPTS ", s.id, i.n - 1, nullif($12::text[], '{}')"
                           " from s, unnest($8::text[], $9::text[]) with ordinality as i(key, request, n)",
                           12, values, images, error);
    else
        zi_fail_memory(error, "a job of the ledger", 0);
    free(keys);
    free(requests);
    free(inputs);
    return answer;
}

/* Nothing was inserted: the job is there already, or another one has its name. */
static ledger_result find_known(ledger *l, const service_job *job, char known[SERVICE_ID_TEXT], zimage_error *error)
{
    const char *values[] = {job->owner, job->repeat, job->id};
    PGresult *result;
    ledger_result answer = ledger_ask(l,
                                      "select id from zimage.service where id = $3 or (owner = $1 and repeat = $2)"
                                      " order by id = $3 desc",
                                      3, values, &result, error);
    if (answer != LEDGER_OK)
        return answer;
    int is_there = PQntuples(result) > 0;
    if (is_there && strcmp(PQgetvalue(result, 0, 0), job->id) != 0)
        snprintf(known, SERVICE_ID_TEXT, "%s", PQgetvalue(result, 0, 0));
    PQclear(result);
    if (is_there)
        return LEDGER_OK;
    zi_fail(error, ZIMAGE_ERROR_FILE, "the ledger %s: a job or an input image was removed in that moment", l->place);
    return LEDGER_LOST; /* once more */
}

ledger_result ledger_service_add(ledger *l, const service_job *job, const ledger_service_rows *rows,
                                 char known[SERVICE_ID_TEXT], zimage_error *error)
{
    uint64_t images = 0;
    *known = 0;
    ledger_result answer = job->repeat ? forget_name(l, job, error) : LEDGER_OK;
    if (answer == LEDGER_OK)
        answer = insert(l, job, rows, &images, error);
    return answer == LEDGER_OK && images == 0 ? find_known(l, job, known, error) : answer;
}

ledger_result ledger_service_notify(ledger *l, zimage_error *error)
{
    return ledger_do(l, "notify " LEDGER_CHANNEL, 0, NULL, NULL, error);
}

ledger_result ledger_service_cancel(ledger *l, const char *id, zimage_error *error)
{
    const char *values[] = {id};
    return ledger_do(l,
                     "update zimage.job set state = 'cancelled', finished_at = now(), lease = null, lease_until = null"
                     " where service = $1 and state in ('queued', 'running')",
                     1, values, NULL, error);
}

/* ---- looking ---- */

static service_state state_of(const char *name)
{
    static const char *const names[] = {"queued", "running", "done", "failed", "cancelled"};
    int state = SERVICE_QUEUED;
    while (state < SERVICE_CANCELLED && strcmp(names[state], name) != 0)
        state++;
    return (service_state)state;
}

static const char look_sql[] =
    /* claimed, but not begun: it still waits; or its worker is gone: it waits again */
    "select j.service, j.part, case when j.state = 'running' and (j.started_at is null or j.lease_until < now())"
    " then 'queued' else j.state end,"
    " j.result::text, coalesce(j.error, ''), case when $2::boolean and j.state = 'queued' then"
    "   (select count(*) from (select from zimage.job o where o.state = 'queued' and o.model = j.model"
    "     and o.priority = j.priority and o.caller = j.caller and o.id < j.id limit " PLACES ") p) else 0 end"
    " from zimage.job j where j.service = any($1::text[]) order by j.service, j.part";

ledger_result ledger_service_look(ledger *l, const char *const *ids, size_t count, int places, service_take_part *take,
                                  void *taker, zimage_error *error)
{
    char *list = ledger_texts(ids, count);
    const char *values[] = {list, places ? "true" : "false"};
    PGresult *result;
    if (!list) {
        zi_fail_memory(error, "the jobs of the ledger", 0);
        return LEDGER_FAILED;
    }
    ledger_result answer = ledger_ask(l, look_sql, 2, values, &result, error);
    free(list);
    for (int row = 0; answer == LEDGER_OK && row < PQntuples(result); row++) {
        const service_part part = {.id = PQgetvalue(result, row, 0),
                                   .index = atoi(PQgetvalue(result, row, 1)),
                                   .state = state_of(PQgetvalue(result, row, 2)),
                                   .result = PQgetvalue(result, row, 3),
                                   .error = PQgetvalue(result, row, 4),
                                   .before = strtoull(PQgetvalue(result, row, 5), NULL, 10)};
        take(taker, &part);
    }
    PQclear(result);
    return answer;
}

ledger_result ledger_service_find(ledger *l, const service_question *question, service_take_found *take, void *taker,
                                  zimage_error *error)
{
    char limit[NUMBER_TEXT], seconds[NUMBER_TEXT];
    const char *values[] = {question->id, question->owner, question->is_open ? "true" : "false", seconds, limit};
    PGresult *result;
    snprintf(limit, sizeof limit, "%d", question->limit);
    snprintf(seconds, sizeof seconds, "%.3f", question->seconds);
    ledger_result answer =
        ledger_ask(l,
                   "select id, owner, about::text, extract(epoch from now() - created_at) from zimage.service s"
                   " where ($1::text is null or id = $1) and ($2::text is null or owner = $2)"
                   " and created_at >= now() - make_interval(secs => $4) and (not $3::boolean or exists"
                   "   (select from zimage.job j where j.service = s.id and j.state in ('queued', 'running')))"
                   " order by created_at desc limit $5",
                   5, values, &result, error);
    for (int row = 0; answer == LEDGER_OK && row < PQntuples(result); row++) {
        const service_found found = {.id = PQgetvalue(result, row, 0),
                                     .owner = PQgetvalue(result, row, 1),
                                     .about = PQgetvalue(result, row, 2),
                                     .age = strtod(PQgetvalue(result, row, 3), NULL)};
        take(taker, &found);
    }
    PQclear(result);
    return answer;
}

/* ---- load ---- */

ledger_result ledger_service_load(ledger *l, service_take_crew *take_crew, service_take_line *take_line, void *taker,
                                  zimage_error *error)
{
    PGresult *result;
    ledger_result answer =
        ledger_ask(l,
                   "select w.model, count(*) filter (where w.expected_until > now()), count(*),"
                   " (select count(*) from zimage.job j where j.state = 'running'"
                   "   and j.model = w.model and j.started_at is not null)"
                   " from zimage.worker w where w.expected_until > now() - " ANNOUNCED " group by w.model",
                   0, NULL, &result, error);
    for (int row = 0; answer == LEDGER_OK && row < PQntuples(result); row++) {
        const service_crew crew = {PQgetvalue(result, row, 0), atoi(PQgetvalue(result, row, 1)),
                                   atoi(PQgetvalue(result, row, 2)), atoi(PQgetvalue(result, row, 3))};
        take_crew(taker, &crew);
    }
    PQclear(result);
    if (answer != LEDGER_OK)
        return answer;
    answer = ledger_ask(l,
                        "select model, caller, priority, count(*) from (select model, caller, priority from zimage.job"
                        "  where state = 'queued' and service is not null limit " LINES ") q group by 1, 2, 3",
                        0, NULL, &result, error);
    for (int row = 0; answer == LEDGER_OK && row < PQntuples(result); row++) {
        const service_line line = {PQgetvalue(result, row, 0), PQgetvalue(result, row, 1),
                                   atoi(PQgetvalue(result, row, 2)) < PRIORITY,
                                   strtoull(PQgetvalue(result, row, 3), NULL, 10)};
        take_line(taker, &line);
    }
    PQclear(result);
    return answer;
}

/* ---- housekeeping ---- */

/* Inside of a transaction: jobs that are old, locked so that no other server tidies them, and not under way. */
static ledger_result remove_some(ledger *l, double seconds,
                                 void (*remove)(void *user, const char *file, const char *key), void *user,
                                 zimage_error *error)
{
    char text[NUMBER_TEXT];
    const char *values[] = {text};
    PGresult *result;
    snprintf(text, sizeof text, "%.3f", seconds);
    ledger_result answer = ledger_ask(l,
                                      "create temporary table zimage_old on commit drop as select id from"
                                      " zimage.service s where created_at < now() - make_interval(secs => $1)"
                                      " and not exists (select from zimage.job j where j.service = s.id and (j.state in"
                                      "   ('queued', 'running') or j.finished_at > now() - make_interval(secs => $1)))"
                                      " order by created_at limit " TIDY_JOBS " for update skip locked",
                                      1, values, &result, error);
    PQclear(result);
    if (answer == LEDGER_OK)
        answer = ledger_ask(
            l,
            "select case when not result ? 'entry' then result->>'file' end, encode(key, 'hex') from zimage.job"
            " where service in (select id from zimage_old)",
            0, NULL, &result, error);
    if (answer != LEDGER_OK)
        return answer;
    for (int row = 0; row < PQntuples(result); row++)
        remove(user, PQgetisnull(result, row, 0) ? NULL : PQgetvalue(result, row, 0), PQgetvalue(result, row, 1));
    PQclear(result);
    answer = ledger_do(l, "delete from zimage.job where service in (select id from zimage_old)", 0, NULL, NULL, error);
    if (answer == LEDGER_OK)
        answer =
            ledger_do(l, "delete from zimage.service where id in (select id from zimage_old)", 0, NULL, NULL, error);
    if (answer == LEDGER_OK)
        answer = ledger_do(l, "delete from zimage.worker where expected_until < now() - interval '1 day'", 0, NULL,
                           NULL, error);
    return answer == LEDGER_OK ? ledger_service_tidy_news(l, error) : answer;
}

/* Files go before rows: what is interrupted is done again. */
ledger_result ledger_service_tidy(ledger *l, double seconds,
                                  void (*remove)(void *user, const char *file, const char *key), void *user,
                                  zimage_error *error)
{
    ledger_result answer = ledger_do(l, "begin", 0, NULL, NULL, error);
    if (answer == LEDGER_OK)
        answer = remove_some(l, seconds, remove, user, error);
    return ledger_end(l, answer, error);
}

/* ---- waiting ---- */

ledger_result ledger_service_listen(ledger *l, zimage_error *error)
{
    return ledger_do(l, "listen " LEDGER_SERVICE_CHANNEL, 0, NULL, NULL, error);
}

ledger_result ledger_service_reopen(ledger *l, zimage_error *error)
{
    ledger_result answer = ledger_reopen(l, error);
    return answer == LEDGER_OK ? ledger_service_listen(l, error) : answer;
}

int ledger_socket(const ledger *l)
{
    return PQsocket(l->connection);
}

void ledger_drain(ledger *l)
{
    PQconsumeInput(l->connection);
    for (PGnotify *notify; (notify = PQnotifies(l->connection));)
        PQfreemem(notify);
}
