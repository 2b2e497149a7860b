/* Adding jobs: all lines are known before the first is stored, and each 10,000 are stored at once or not at all. */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/error.h"
#include "queue/connection.h"

#define CHUNK_LINES  10000
#define NUMBER_TEXT  32
#define NOTIFY_PAUSE 0.05 /* NOTIFY takes a lock of the whole database server when its transaction ends */

/* ---- the spool: rows as COPY reads them ---- */

struct ledger_spool {
    FILE *file;
    char *line; /* of getline */
    size_t size;
    uint64_t lines;
    int has_inputs;
};

ledger_spool *ledger_spool_new(void)
{
    ledger_spool *spool = calloc(1, sizeof *spool);
    if (spool && !(spool->file = tmpfile())) {
        int code = errno;
        free(spool);
        errno = code;
        return NULL;
    }
    return spool;
}

void ledger_spool_free(ledger_spool *spool)
{
    if (!spool)
        return;
    fclose(spool->file);
    free(spool->line);
    free(spool);
}

/* PostgreSQL's manual, COPY, text format: a backslash stands before what would end a value. */
static void put_value(FILE *file, const char *text)
{
    for (const char *c = text; *c;) {
        size_t plain = strcspn(c, "\\\t\n\r");
        fwrite(c, 1, plain, file);
        c += plain;
        if (*c)
            fprintf(file, "\\%c", *c == '\t' ? 't' : *c == '\n' ? 'n' : *c == '\r' ? 'r' : '\\');
        c += *c != 0;
    }
}

/* An array, or null. */
static void put_inputs(FILE *file, const ledger_line *line)
{
    fputs(line->input_count ? "{" : "\\N", file);
    for (size_t i = 0; i < line->input_count; i++)
        fprintf(file, "%s%s", line->inputs[i], i + 1 < line->input_count ? "," : "}");
}

int ledger_spool_take(ledger_spool *spool, const ledger_line *line)
{
    FILE *file = spool->file;
    fprintf(file, "\\\\x%s\t", line->key);
    put_value(file, line->request);
    putc('\t', file);
    if (line->output)
        put_value(file, line->output);
    else
        fputs("\\N", file);
    putc('\t', file);
    put_inputs(file, line);
    spool->has_inputs |= line->input_count > 0;
    errno = 0;
    spool->lines++;
    return putc('\n', file) == EOF || ferror(file) ? (errno ? errno : EIO) : 0;
}

/* ---- storing ---- */

/* Sends the next lines, at most CHUNK_LINES; *sent of them. */
static ledger_result copy_lines(ledger *l, ledger_spool *spool, uint64_t *sent, zimage_error *error)
{
    ssize_t length;
    int is_lost = 0;
    PGresult *result = PQexec(l->connection, "copy zimage_line (key, request, output, inputs) from stdin");
    ledger_result answer = ledger_judge(l, result, error);
    PQclear(result);
    if (answer != LEDGER_OK)
        return answer;
    for (*sent = 0; *sent < CHUNK_LINES && (length = getline(&spool->line, &spool->size, spool->file)) > 0; ++*sent)
        if (PQputCopyData(l->connection, spool->line, (int)length) != 1)
            return ledger_lost(l, error);
    if (ferror(spool->file)) {
        zi_fail_errno(error, ZIMAGE_ERROR_FILE, errno, "a temporary file of jobs can't be read");
        return LEDGER_FAILED;
    }
    if (PQputCopyEnd(l->connection, NULL) != 1)
        return ledger_lost(l, error);
    while ((result = ledger_next_result(l, LONG_SECONDS, &is_lost))) {
        if (answer == LEDGER_OK)
            answer = ledger_judge(l, result, error);
        PQclear(result);
    }
    return is_lost ? ledger_lost(l, error) : answer;
}

/* Two that add to one batch go one after the other: rows in another order could make each wait for the other's. */
static ledger_result begin(ledger *l, const ledger_adding *adding, zimage_error *error)
{
    const char *values[] = {adding->batch};
    ledger_result answer = ledger_do(l, "begin", 0, NULL, NULL, error);
    if (answer == LEDGER_OK)
        answer =
            ledger_do(l, "select pg_advisory_xact_lock(hashtextextended('zimage ' || $1, 0))", 1, values, NULL, error);
    if (answer == LEDGER_OK)
        answer = ledger_do(l,
                           "create temporary table zimage_line (n bigint generated always as identity, key bytea,"
                           " request jsonb, output text, inputs text[]) on commit drop",
                           0, NULL, NULL, error);
    return answer;
}

static ledger_result insert(ledger *l, const ledger_adding *adding, uint64_t *added, zimage_error *error)
{
    char priority[NUMBER_TEXT], attempts[NUMBER_TEXT];
    snprintf(priority, sizeof priority, "%d", adding->priority);
    snprintf(attempts, sizeof attempts, "%d", adding->max_attempts);
    const char *values[] = {adding->batch, adding->caller, priority, adding->model, attempts};
    return ledger_do(l,
                     "insert into zimage.job (batch, caller, priority, model, max_attempts, key, request, output,"
                     " inputs) select $1, $2, $3::smallint, $4, $5::smallint, key, request, output, inputs"
                     " from zimage_line order by n"
                     " on conflict (batch, key) do nothing",
                     5, values, added, error);
}

/* Locks the input images of the lines, so that nobody removes them before their jobs are there. The locks are shared,
 * and who removes them waits for none: so nobody waits in a circle. */
static ledger_result hold_inputs(ledger *l, zimage_error *error)
{
    uint64_t held;
    PGresult *result;
    ledger_result answer =
        ledger_do(l, "select from zimage.input where hash in (select unnest(inputs) from zimage_line) for key share", 0,
                  NULL, &held, error);
    if (answer == LEDGER_OK)
        answer = ledger_ask(l, "select count(distinct hash) from (select unnest(inputs) as hash from zimage_line) i", 0,
                            NULL, &result, error);
    if (answer != LEDGER_OK)
        return answer;
    int is_whole = strtoull(PQgetvalue(result, 0, 0), NULL, 10) == held;
    PQclear(result);
    if (is_whole)
        return LEDGER_OK;
    zi_fail(error, ZIMAGE_ERROR_FILE,
            "the ledger %s: an input image was removed while the lines were read; the same command adds the rest",
            l->place);
    return LEDGER_FAILED;
}

/* One transaction. */
static ledger_result store_chunk(ledger *l, const ledger_adding *adding, ledger_spool *spool, int is_notified,
                                 ledger_added *chunk, zimage_error *error)
{
    ledger_result answer = begin(l, adding, error);
    if (answer == LEDGER_OK)
        answer = copy_lines(l, spool, &chunk->lines, error);
    if (answer == LEDGER_OK && spool->has_inputs)
        answer = hold_inputs(l, error);
    if (answer == LEDGER_OK)
        answer = insert(l, adding, &chunk->added, error);
    if (answer == LEDGER_OK && is_notified)
        answer = ledger_do(l, "notify " LEDGER_CHANNEL, 0, NULL, NULL, error);
    return ledger_end(l, answer, error);
}

ledger_result ledger_add(ledger *l, const ledger_adding *adding, ledger_spool *spool, double patience,
                         int (*on_stored)(const ledger_added *added, void *user), void *user, ledger_added *added,
                         zimage_error *error)
{
    const ledger_patience waiting = {.seconds = patience};
    double notified = 0;
    ledger_result answer = LEDGER_OK;
    *added = (ledger_added){0};
    if (fflush(spool->file) != 0 || fseeko(spool->file, 0, SEEK_SET) != 0) {
        zi_fail_errno(error, ZIMAGE_ERROR_FILE, errno, "a temporary file of jobs can't be written");
        return LEDGER_FAILED;
    }
    while (answer == LEDGER_OK && added->lines < spool->lines) {
        off_t place = ftello(spool->file);
        int is_last = spool->lines - added->lines <= CHUNK_LINES;
        int is_notified = is_last || zi_now() - notified > NOTIFY_PAUSE;
        ledger_added chunk = {0};
        answer = store_chunk(l, adding, spool, is_notified, &chunk, error);
        if (answer == LEDGER_LOST) { /* stored or not: adding it again is right in both cases */
            answer = ledger_persist(l, &waiting, error);
            if (fseeko(spool->file, place, SEEK_SET) != 0)
                answer = LEDGER_FAILED;
            continue;
        }
        notified = is_notified ? zi_now() : notified;
        added->lines += chunk.lines;
        added->added += chunk.added;
        if (answer == LEDGER_OK && on_stored && on_stored(added, user))
            answer = LEDGER_STOPPED;
    }
    return answer;
}
