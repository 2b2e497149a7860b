/* One connection to the ledger's database, for the other files of this folder. */
#ifndef ZI_QUEUE_CONNECTION_H
#define ZI_QUEUE_CONNECTION_H

#include <libpq-fe.h>

#include "base/clock.h"
#include "queue/ledger.h"

#define ANSWER_SECONDS 60   /* in which a statement is answered; a server that is stopped holds nobody up for ever */
#define LONG_SECONDS   3600 /* of one that reads or writes many rows */

struct ledger {
    PGconn *connection;
    char *target, *program;
    char place[300];
    int needs_schema;
};

/* A statement with `count` parameters as texts. *result is released with PQclear; NULL after a failure. */
ledger_result ledger_ask(ledger *l, const char *sql, int count, const char *const *values, PGresult **result,
                         zimage_error *error);
/* The same, and only the number of rows that it returned or changed is wanted. `rows` may be NULL. */
ledger_result ledger_do(ledger *l, const char *sql, int count, const char *const *values, uint64_t *rows,
                        zimage_error *error);
/* Ends a transaction whose last statement had this answer: commits it, or rolls it back. Returns the answer, or the
 * commit's. */
ledger_result ledger_end(ledger *l, ledger_result answer, zimage_error *error);
/* The next result of what was sent, within `seconds`; NULL: there is none, or the connection is lost (*is_lost). */
PGresult *ledger_next_result(ledger *l, double seconds, int *is_lost);
/* What a result says: LEDGER_OK for rows and for a command that was done. */
ledger_result ledger_judge(ledger *l, const PGresult *result, zimage_error *error);
/* A sentence about the connection. */
ledger_result ledger_lost(const ledger *l, zimage_error *error);

/* Makes a lost connection again, once. */
ledger_result ledger_reopen(ledger *l, zimage_error *error);
/* Makes it again until it works, with pauses that grow to ten seconds. LEDGER_STOPPED: stopping() said so, or
 * `patience` seconds are over (0: never). say: gets one sentence when it begins and one when it ends; may be NULL. */
typedef struct ledger_patience {
    double seconds;
    int (*stopping)(void *user);
    void (*say)(const char *sentence, void *user);
    void *user;
} ledger_patience;
ledger_result ledger_persist(ledger *l, const ledger_patience *patience, zimage_error *error);

/* Waits until the server sends something (a notification), a signal comes, or the seconds are over. 1: a notification
 * was there. */
int ledger_wait(ledger *l, double seconds);

#define LEDGER_CHANNEL "zimage_work"

/* schema.c: the version that this program knows, and whether the database has it. */
ledger_result ledger_check_schema(ledger *l, zimage_error *error);

#endif
