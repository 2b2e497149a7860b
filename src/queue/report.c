/* What a ledger holds, and changing it by hand. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/error.h"
#include "queue/connection.h"

#define NUMBER_TEXT 32

/* $1: the batch or null, $2: the id or null. */
#define IS_CHOSEN "($1::text is null or batch = $1) and ($2::bigint is null or id = $2::bigint)"

typedef struct choice_values {
    char id[NUMBER_TEXT];
    const char *values[2];
} choice_values;

static void write_choice(const ledger_choice *choice, choice_values *v)
{
    snprintf(v->id, sizeof v->id, "%lld", (long long)choice->id);
    v->values[0] = choice->batch;
    v->values[1] = choice->id ? v->id : NULL;
}

static ledger_result ask_chosen(ledger *l, const char *sql, const ledger_choice *choice, PGresult **result,
                                zimage_error *error)
{
    choice_values v = {.values = {NULL}};
    write_choice(choice, &v);
    return ledger_ask(l, sql, 2, v.values, result, error);
}

ledger_result ledger_has_chosen(ledger *l, const ledger_choice *choice, zimage_error *error)
{
    PGresult *result;
    if (!choice->batch && !choice->id)
        return LEDGER_OK;
    ledger_result answer = ask_chosen(l, "select from zimage.job where " IS_CHOSEN " limit 1", choice, &result, error);
    if (answer != LEDGER_OK)
        return answer;
    int is_there = PQntuples(result) > 0;
    PQclear(result);
    if (is_there)
        return LEDGER_OK;
    if (choice->id)
        zi_fail(error, ZIMAGE_ERROR_ARGUMENT, "id: %lld: there is no such job, expected an id that export prints",
                (long long)choice->id);
    else
        zi_fail(error, ZIMAGE_ERROR_ARGUMENT, "batch: \"%s\": there is no such batch, expected one that status lists",
                choice->batch);
    return LEDGER_FAILED;
}

/* ---- status ---- */

/* The rate is that of the last minute, of the last ten or of the last hour: the first with 20 images, or the longest
 * with any. A batch that began within that time is divided by its own age. */
static const char status_sql[] =
    "with counts as (select batch, count(*) filter (where state = 'queued') as queued,"
    "  count(*) filter (where state = 'running') as running, count(*) filter (where state = 'done') as done,"
    "  count(*) filter (where state = 'failed') as failed, count(*) filter (where state = 'cancelled') as cancelled,"
    "  count(*) filter (where state = 'done' and finished_at > now() - interval '1 minute') as m1,"
    "  count(*) filter (where state = 'done' and finished_at > now() - interval '10 minutes') as m10,"
    "  count(*) filter (where state = 'done' and finished_at > now() - interval '1 hour') as m60,"
    "  extract(epoch from now() - min(started_at)) as age from zimage.job where " IS_CHOSEN " group by batch),"
    "total as (select coalesce(sum(queued), 0) as queued, coalesce(sum(running), 0) as running,"
    "  coalesce(sum(done), 0) as done, coalesce(sum(failed), 0) as failed, coalesce(sum(cancelled), 0) as cancelled,"
    "  coalesce(sum(m1), 0) as m1, coalesce(sum(m10), 0) as m10, coalesce(sum(m60), 0) as m60, max(age) as age"
    "  from counts),"
    "rate as (select *, case when m1 >= 20 or (m1 > 0 and m60 = m1) then m1 / greatest(1, least(60, age))"
    "  when m10 >= 20 or (m10 > 0 and m60 = m10) then m10 / greatest(1, least(600, age))"
    "  when m60 > 0 then m60 / greatest(1, least(3600, age)) end as per_second from total)"
    "select json_build_object('jobs', json_build_object('queued', queued, 'running', running, 'done', done,"
    "  'failed', failed, 'cancelled', cancelled), 'rate', per_second,"
    "  'seconds_left', case when queued + running = 0 then 0 else (queued + running) / per_second end,"
    "  'workers', (select count(distinct worker) from zimage.job where state = 'running' and " IS_CHOSEN "),"
    "  'batches', (select coalesce(json_agg(json_build_object('batch', batch, 'queued', queued, 'running', running,"
    "    'done', done, 'failed', failed, 'cancelled', cancelled) order by batch), '[]')"
    "    from (select * from counts order by batch limit 1000) b),"
    "  'failures', (select coalesce(json_agg(f), '[]') from (select error, count(*) as jobs, min(id) as id"
    "    from zimage.job where state = 'failed' and " IS_CHOSEN " group by error order by 2 desc, 3 limit 10) f))"
    " from rate";

ledger_result ledger_status(ledger *l, const ledger_choice *choice, json_t **status, zimage_error *error)
{
    PGresult *result;
    *status = NULL;
    ledger_result answer = ask_chosen(l, status_sql, choice, &result, error);
    if (answer != LEDGER_OK)
        return answer;
    *status = json_loads(PQgetvalue(result, 0, 0), 0, NULL);
    PQclear(result);
    if (*status)
        return LEDGER_OK;
    zi_fail_memory(error, "the state of the ledger", 0);
    return LEDGER_FAILED;
}

/* ---- changing ---- */

ledger_result ledger_retry(ledger *l, const ledger_choice *choice, uint64_t *jobs, zimage_error *error)
{
    choice_values v = {.values = {NULL}};
    write_choice(choice, &v);
    ledger_result answer =
        ledger_do(l,
                  "update zimage.job set state = 'queued', attempts = 0, not_before = null,"
                  " finished_at = null, worker = null where state in ('failed', 'cancelled') and " IS_CHOSEN,
                  2, v.values, jobs, error);
    return answer == LEDGER_OK && *jobs ? ledger_do(l, "notify " LEDGER_CHANNEL, 0, NULL, NULL, error) : answer;
}

ledger_result ledger_cancel(ledger *l, const ledger_choice *choice, uint64_t *jobs, zimage_error *error)
{
    choice_values v = {.values = {NULL}};
    write_choice(choice, &v);
    return ledger_do(l,
                     "update zimage.job set state = 'cancelled', finished_at = now(), lease = null, lease_until = null"
                     " where state in ('queued', 'running') and " IS_CHOSEN,
                     2, v.values, jobs, error);
}

/* ---- export ---- */

static const char export_sql[] =
    "select json_build_object('id', id, 'batch', batch, 'caller', caller, 'key', encode(key, 'hex'), 'state', state,"
    " 'priority', priority, 'attempts', attempts, 'request', request, 'inputs', inputs, 'model', model,"
    " 'worker', worker, 'result', result, 'error', error, 'created_at', created_at, 'started_at', started_at,"
    " 'finished_at', finished_at)::text from zimage.job where " IS_CHOSEN " order by id";

/* One character of UTF-8, which is well formed because the database checks it; returns its bytes. */
static size_t read_character(const unsigned char *c, uint32_t *character)
{
    size_t length = c[0] < 0x80 ? 1 : c[0] < 0xE0 ? 2 : c[0] < 0xF0 ? 3 : 4;
    *character = length == 1 ? c[0] : c[0] & (0x7Fu >> length);
    for (size_t i = 1; i < length; i++)
        *character = *character << 6 | (c[i] & 0x3F);
    return length;
}

/* The database's JSON in ASCII: it stands in texts only, so \u escapes mean the same. NULL: no memory. */
static char *to_ascii(const char *json)
{
    size_t length = strlen(json);
    char *text = malloc(6 * length + 1), *end = text; /* a byte becomes six at most */
    if (!text)
        return NULL;
    for (const unsigned char *c = (const unsigned char *)json; *c;) {
        uint32_t character;
        c += read_character(c, &character);
        if (character < 0x7F)
            *end++ = (char)character;
        else if (character < 0x10000)
            end += sprintf(end, "\\u%04x", character);
        else
            end += sprintf(end, "\\u%04x\\u%04x", 0xD800 + ((character - 0x10000) >> 10),
                           0xDC00 + ((character - 0x10000) & 0x3FF));
    }
    *end = 0;
    return text;
}

/* 0, or what `take` returned. -1: no memory. */
static int take_line(const PGresult *result, int (*take)(const char *line, void *user), void *user)
{
    char *line = to_ascii(PQgetvalue(result, 0, 0));
    int code = line ? take(line, user) : -1;
    free(line);
    return code;
}

ledger_result ledger_export(ledger *l, const ledger_choice *choice, int (*take)(const char *line, void *user),
                            void *user, zimage_error *error)
{
    choice_values v = {.values = {NULL}};
    PGresult *result;
    int is_lost = 0, code = 0;
    ledger_result answer = LEDGER_OK;
    write_choice(choice, &v);
    if (!PQsendQueryParams(l->connection, export_sql, 2, NULL, v.values, NULL, NULL, 0) ||
        !PQsetSingleRowMode(l->connection))
        return ledger_lost(l, error);
    while (!code && answer == LEDGER_OK && (result = ledger_next_result(l, LONG_SECONDS, &is_lost))) {
        answer = ledger_judge(l, result, error);
        if (answer == LEDGER_OK && PQresultStatus(result) == PGRES_SINGLE_TUPLE)
            code = take_line(result, take, user);
        PQclear(result);
    }
    if (code < 0)
        zi_fail_memory(error, "a line of the ledger", 0);
    if (is_lost)
        return ledger_lost(l, error);
    return code < 0 ? LEDGER_FAILED : code ? LEDGER_STOPPED : answer;
}
