/* Jobs that this front may not know: the ledger is asked before a handler looks for them. */
#ifndef ZI_SERVE_ASK_H
#define ZI_SERVE_ASK_H

#include "http.h"

/* A question to the ledger; the exchange is suspended meanwhile. With the server's lock. */
typedef struct front_asking {
    exchange *exchange;         /* NULL: it is over */
    char id[JOB_ID_LENGTH + 1]; /* "": the newest jobs of the owner */
    char owner_hash[OWNER_HASH_TEXT];
    uint64_t owner;
    int has_owner; /* 0: whoever knows the id may ask */
    int is_open;   /* 1: only jobs that are not over */
    int limit;
    int is_answered;
} front_asking;

#define FRONT_OWNER_UNKNOWN UINT64_MAX /* nobody's number */
#define FRONT_FOREVER       1e9        /* seconds */

/* Calls the handler of the exchange's endpoint, once the jobs that it looks for are known here, if anybody knows them.
 */
enum MHD_Result ask_and_handle(exchange *x);
/* The exchange ends. With the lock. */
void ask_forget(exchange *x);
/* The number of the key with this hash; FRONT_OWNER_UNKNOWN: there is none. */
uint64_t ask_owner_of(const policy *p, const char *hash);

/* front.c; with the lock. 0: no memory. */
int front_ask(server *s, front_asking *asking);
/* The ledger has answered, or can't. Frees it. */
void front_answered(front_asking *asking);

#endif
