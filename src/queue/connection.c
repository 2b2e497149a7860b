#include "queue/connection.h"

#include <errno.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/error.h"
#include "queue/pause.h"

#define LONGEST_PAUSE 10.0
#define SENTENCE_MAX  2048 /* a zimage_error and more */

/* ---- opening ---- */

/* A server that is gone is noticed within about 20 seconds: the system's own limits are a quarter of an hour. What
 * stands in the target replaces these values, because it comes last. */
static PGconn *connect_to(const char *target, const char *program)
{
    const char *const keys[] = {"fallback_application_name", "connect_timeout",  "keepalives_idle",
                                "keepalives_interval",       "keepalives_count", "tcp_user_timeout",
                                "client_encoding",           "dbname",           NULL};
    const char *const values[] = {program, "10", "10", "5", "2", "20000", "UTF8", target, NULL};
    return PQconnectdbParams(keys, values, 1);
}

/* Whether libpq understands the target. Its own message may repeat a part of it, and with it a password. */
static int is_target(const char *target)
{
    PQconninfoOption *options = PQconninfoParse(target, NULL);
    PQconninfoFree(options);
    return options != NULL && strpbrk(target, ":=") != NULL;
}

static void describe(ledger *l)
{
    const char *host = PQhost(l->connection), *port = PQport(l->connection), *database = PQdb(l->connection);
    snprintf(l->place, sizeof l->place, "%s:%s/%s", host ? host : "", port ? port : "", database ? database : "");
}

/* The first line of what libpq says; it may have several, and ends each with a newline. */
static int first_line(const char *text)
{
    return (int)strcspn(text, "\n");
}

ledger_result ledger_lost(const ledger *l, zimage_error *error)
{
    const char *reason = PQerrorMessage(l->connection);
    reason = *reason ? reason : "the server does not answer";
    zi_fail(error, ZIMAGE_ERROR_FILE, "the ledger %s: %.*s", l->place, first_line(reason), reason);
    return LEDGER_LOST;
}

/* Nobody reads what the server wants to tell (that a table exists already). */
static void drop_notice(void *user, const PGresult *result)
{
    (void)user;
    (void)result;
}

ledger_result ledger_reopen(ledger *l, zimage_error *error)
{
    PQfinish(l->connection);
    l->connection = connect_to(l->target, l->program);
    if (!l->connection) {
        zi_fail_memory(error, "a connection to the ledger", 0);
        return LEDGER_FAILED;
    }
    describe(l);
    PQsetNoticeReceiver(l->connection, drop_notice, NULL);
    if (PQstatus(l->connection) != CONNECTION_OK)
        return ledger_lost(l, error);
    return l->needs_schema ? ledger_check_schema(l, error) : LEDGER_OK;
}

ledger_result ledger_open(const char *target, const char *program, int needs_schema, ledger **l, zimage_error *error)
{
    *l = NULL;
    if (!is_target(target)) {
        zi_fail(
            error, ZIMAGE_ERROR_ARGUMENT,
            "queue: this is no database, expected postgresql://USER@HOST/DATABASE (its text is not repeated, it may "
            "hold a password)");
        return LEDGER_FAILED;
    }
    ledger *made = calloc(1, sizeof *made);
    if (made) {
        made->target = strdup(target);
        made->program = strdup(program);
        made->needs_schema = needs_schema;
    }
    if (!made || !made->target || !made->program) {
        ledger_close(made);
        zi_fail_memory(error, "a connection to the ledger", 0);
        return LEDGER_FAILED;
    }
    ledger_result result = ledger_reopen(made, error);
    if (result == LEDGER_OK)
        *l = made;
    else
        ledger_close(made);
    return result;
}

void ledger_close(ledger *l)
{
    if (!l)
        return;
    PQfinish(l->connection);
    free(l->target);
    free(l->program);
    free(l);
}

const char *ledger_place(const ledger *l)
{
    return l->place;
}

ledger_result ledger_persist(ledger *l, const ledger_patience *patience, zimage_error *error)
{
    double begin = zi_now(), pause = 0.1;
    char sentence[SENTENCE_MAX];
    int said = 0;
    for (;;) {
        zimage_error reason = ZIMAGE_ERROR_INIT;
        ledger_result result = ledger_reopen(l, &reason);
        if (result == LEDGER_OK && said && patience->say)
            patience->say("the ledger is there again", patience->user);
        if (result != LEDGER_LOST || (patience->seconds > 0 && zi_now() - begin > patience->seconds)) {
            if (result != LEDGER_OK && error)
                *error = reason;
            return result;
        }
        if (!said++ && patience->say) {
            snprintf(sentence, sizeof sentence, "%s; tries again until it answers", reason.message);
            patience->say(sentence, patience->user);
        }
        if (patience->stopping && patience->stopping(patience->user))
            return LEDGER_STOPPED;
        ledger_sleep(pause * (0.5 + ledger_random()));
        pause = 2 * pause < LONGEST_PAUSE ? 2 * pause : LONGEST_PAUSE;
    }
}

/* ---- statements ---- */

/* Waits for the socket; 0: the time is over. A signal only makes it wait again: an answer is never abandoned. */
static int wait_readable(PGconn *connection, double deadline)
{
    for (;;) {
        double left = deadline - zi_now();
        struct pollfd socket = {.fd = PQsocket(connection), .events = POLLIN};
        int ready = left > 0 ? poll(&socket, 1, (int)(1000 * left) + 1) : 0;
        if (ready >= 0 || errno != EINTR)
            return ready > 0;
    }
}

PGresult *ledger_next_result(ledger *l, double seconds, int *is_lost)
{
    double deadline = zi_now() + seconds;
    *is_lost = 0;
    while (PQisBusy(l->connection)) {
        if (!wait_readable(l->connection, deadline) || !PQconsumeInput(l->connection)) {
            *is_lost = 1;
            return NULL;
        }
    }
    PGresult *result = PQgetResult(l->connection);
    *is_lost = PQstatus(l->connection) != CONNECTION_OK;
    if (*is_lost) {
        PQclear(result);
        result = NULL;
    }
    return result;
}

/* Errors that pass: the connection broke, the server ends or begins, resources are short, a deadlock was resolved, the
 * server only reads (the former first server of a pair). PostgreSQL's manual, appendix A. */
static int passes(const char *state)
{
    static const char *const begins[] = {"08", "53", "57P", "40", "25006"};
    for (size_t i = 0; i < sizeof begins / sizeof *begins; i++)
        if (!strncmp(state, begins[i], strlen(begins[i])))
            return 1;
    return 0;
}

ledger_result ledger_judge(ledger *l, const PGresult *result, zimage_error *error)
{
    ExecStatusType status = PQresultStatus(result);
    if (status == PGRES_COMMAND_OK || status == PGRES_TUPLES_OK || status == PGRES_COPY_IN ||
        status == PGRES_SINGLE_TUPLE)
        return LEDGER_OK;
    const char *message = PQresultErrorField(result, PG_DIAG_MESSAGE_PRIMARY);
    const char *detail = PQresultErrorField(result, PG_DIAG_MESSAGE_DETAIL);
    const char *state = PQresultErrorField(result, PG_DIAG_SQLSTATE);
    if (!message)
        return ledger_lost(l, error);
    zi_fail(error, ZIMAGE_ERROR_FILE, "the ledger %s: %s%s%.300s (SQLSTATE %s)", l->place, message, detail ? ": " : "",
            detail ? detail : "", state ? state : "?");
    return state && passes(state) ? LEDGER_LOST : LEDGER_FAILED;
}

ledger_result ledger_ask(ledger *l, const char *sql, int count, const char *const *values, PGresult **result,
                         zimage_error *error)
{
    int is_lost = !PQsendQueryParams(l->connection, sql, count, NULL, values, NULL, NULL, 0);
    PGresult *kept = NULL, *next;
    while (!is_lost && (next = ledger_next_result(l, ANSWER_SECONDS, &is_lost))) {
        PQclear(kept);
        kept = next;
    }
    ledger_result answer = is_lost || !kept ? ledger_lost(l, error) : ledger_judge(l, kept, error);
    if (answer != LEDGER_OK) {
        PQclear(kept);
        kept = NULL;
    }
    *result = kept;
    return answer;
}

ledger_result ledger_do(ledger *l, const char *sql, int count, const char *const *values, uint64_t *rows,
                        zimage_error *error)
{
    PGresult *result;
    ledger_result answer = ledger_ask(l, sql, count, values, &result, error);
    if (rows)
        *rows = answer == LEDGER_OK ? strtoull(PQcmdTuples(result), NULL, 10) : 0;
    PQclear(result);
    return answer;
}

ledger_result ledger_end(ledger *l, ledger_result answer, zimage_error *error)
{
    if (answer == LEDGER_OK)
        return ledger_do(l, "commit", 0, NULL, NULL, error);
    if (answer == LEDGER_FAILED && PQstatus(l->connection) == CONNECTION_OK)
        ledger_do(l, "rollback", 0, NULL, NULL, NULL);
    return answer;
}

int ledger_wait(ledger *l, double seconds)
{
    struct pollfd socket = {.fd = PQsocket(l->connection), .events = POLLIN};
    int heard = 0;
    if (poll(&socket, 1, (int)(1000 * seconds) + 1) > 0)
        PQconsumeInput(l->connection);
    for (PGnotify *notify; (notify = PQnotifies(l->connection)); heard = 1)
        PQfreemem(notify);
    return heard;
}
