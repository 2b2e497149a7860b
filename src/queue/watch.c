/* Who watches jobs of servers, and what their workers say of them. */
#include <stdlib.h>

#include "base/error.h"
#include "queue/news.h"
#include "queue/service.h"
#include "shared/base64.h"

#define JPEG_TEXT_MOST (SERVICE_JPEG_BYTES * 3 / 2) /* with the line breaks of base64 */

/* A statement whose parameter is a list. Takes the list; NULL: no memory. */
static ledger_result ask_with(ledger *l, const char *sql, json_t *list, PGresult **result, zimage_error *error)
{
    char *text = list ? json_dumps(list, JSON_COMPACT) : NULL;
    const char *values[] = {text};
    ledger_result answer = LEDGER_FAILED;
    *result = NULL;
    if (text)
        answer = ledger_ask(l, sql, 1, values, result, error);
    else
        zi_fail_memory(error, "a list for the ledger", 0);
    free(text);
    json_decref(list);
    return answer;
}

/* A worker that has begun before somebody watched hears of it. */
static const char watch_sql[] =
    "with i as (select * from jsonb_to_recordset($1::jsonb) as t(id text, shows boolean, partials smallint)),"
    " n as (insert into zimage.watch as w (service, until, shown_until, partials)"
    "  select id, now() + " LEDGER_WATCHED ", case when shows then now() + " LEDGER_WATCHED " end, partials from i"
    "  on conflict (service) do update set until = excluded.until, partials = excluded.partials,"
    "   shown_until = coalesce(excluded.shown_until, w.shown_until))"
    "select pg_notify(" LEDGER_WORKER_CHANNEL(
        "j.worker") ", j.id::text)"
                    " from zimage.job j, i where j.service = i.id and j.state = 'running' and j.worker is not null";

ledger_result ledger_service_watch(ledger *l, const service_watch *watches, size_t count, zimage_error *error)
{
    PGresult *result;
    json_t *list = json_array();
    for (size_t i = 0; i < count; i++)
        json_array_append_new(list, json_pack("{s:s, s:b, s:i}", "id", watches[i].id, "shows", watches[i].shows,
                                              "partials", watches[i].partials));
    ledger_result answer = ask_with(l, watch_sql, list, &result, error);
    PQclear(result);
    return answer;
}

static const char news_sql[] =
    "select a.id, a.part, n.serial, n.number, n.stage, n.step, n.steps, n.fraction, encode(n.jpeg, 'base64')"
    " from jsonb_to_recordset($1::jsonb) as a(id text, part smallint, known bigint)"
    " join zimage.job j on j.service = a.id and j.part = a.part"
    " join zimage.news n on n.job = j.id and n.serial > a.known"
    " where n.number >= 0 or (j.state = 'running' and j.lease = n.lease and j.lease_until > now())"
    " order by n.serial";

static void take_row(const PGresult *result, int row, service_take_news *take, void *taker)
{
    size_t length = (size_t)PQgetlength(result, row, 8);
    uint8_t *jpeg = NULL;
    service_news news = {.id = PQgetvalue(result, row, 0),
                         .index = atoi(PQgetvalue(result, row, 1)),
                         .serial = strtoll(PQgetvalue(result, row, 2), NULL, 10),
                         .number = atoi(PQgetvalue(result, row, 3)),
                         .stage = PQgetvalue(result, row, 4),
                         .step = atoi(PQgetvalue(result, row, 5)),
                         .steps = atoi(PQgetvalue(result, row, 6)),
                         .fraction = strtod(PQgetvalue(result, row, 7), NULL)};
    if (length > 0 && length <= JPEG_TEXT_MOST && base64_read(PQgetvalue(result, row, 8), length, &jpeg, &news.size))
        news.jpeg = jpeg;
    take(taker, &news);
    free(jpeg);
}

ledger_result ledger_service_news(ledger *l, const service_watched *watched, size_t count, service_take_news *take,
                                  void *taker, zimage_error *error)
{
    PGresult *result;
    json_t *list = json_array();
    for (size_t i = 0; i < count; i++)
        json_array_append_new(list, json_pack("{s:s, s:i, s:I}", "id", watched[i].id, "part", watched[i].index, "known",
                                              (json_int_t)watched[i].known));
    ledger_result answer = ask_with(l, news_sql, list, &result, error);
    for (int row = 0; answer == LEDGER_OK && row < PQntuples(result); row++)
        take_row(result, row, take, taker);
    PQclear(result);
    return answer;
}

ledger_result ledger_service_tidy_news(ledger *l, zimage_error *error)
{
    ledger_result answer =
        ledger_do(l, "delete from zimage.watch where until < now() - interval '1 minute'", 0, NULL, NULL, error);
    if (answer == LEDGER_OK) /* a worker says each again every few seconds */
        answer =
            ledger_do(l, "delete from zimage.news where told_at < now() - interval '2 minutes'", 0, NULL, NULL, error);
    return answer;
}
