#include "ask.h"

#include <stdlib.h>
#include <string.h>

#include "front.h"

#define LIST_MAX 100

uint64_t ask_owner_of(const policy *p, const char *hash)
{
    if (!p || p->key_count == 0)
        return *hash ? FRONT_OWNER_UNKNOWN : 0;
    for (int i = 0; i < p->key_count; i++)
        if (!strcmp(p->keys[i].hash, hash))
            return (uint64_t)i + 1;
    return FRONT_OWNER_UNKNOWN;
}

void ask_forget(exchange *x)
{
    if (x->asking)
        x->asking->exchange = NULL;
    x->asking = NULL;
}

void front_answered(front_asking *asking)
{
    exchange *x = asking->exchange;
    if (x) {
        x->asking = NULL;
        x->is_answered = asking->is_answered;
        exchange_wake(x);
    }
    free(asking);
}

static enum MHD_Result go_on(exchange *x)
{
    pthread_mutex_lock(&x->server->lock);
    int is_waiting = x->asking != NULL;
    x->resume = NULL;
    pthread_mutex_unlock(&x->server->lock);
    if (is_waiting) /* the server stops */
        return MHD_NO;
    if (x->is_answered)
        return x->match.endpoint->handle(x);
    fault_set(&x->fault, FAULT_LEDGER_LOST, NULL, "the ledger of jobs can't be reached at present");
    x->fault.retry_after = 5;
    return answer_fault(x);
}

/* What the endpoint looks for. 0: nothing. With the lock. */
static int fill(exchange *x, front_asking *a)
{
    const int flags = x->match.endpoint->flags;
    const policy_key *key = policy_key_of(&x->http->policy, x->owner);
    *a = (front_asking){.exchange = x, .owner = x->owner, .has_owner = 1, .limit = 1};
    snprintf(a->owner_hash, sizeof a->owner_hash, "%s", key ? key->hash : "");
    if (flags & (ROUTE_ASKS_ALL | ROUTE_ASKS_OPEN)) {
        a->is_open = (flags & ROUTE_ASKS_OPEN) != 0;
        a->limit = LIST_MAX;
        return 1;
    }
    if (!(flags & ROUTE_ASKS_JOB))
        return 0;
    snprintf(a->id, sizeof a->id, "%.26s", x->match.parameters[0]); /* of a file's name its beginning */
    if (flags & ROUTE_PUBLIC) {
        a->has_owner = 0;
        a->owner = FRONT_OWNER_UNKNOWN;
    }
    return strspn(a->id, "abcdefghijklmnopqrstuvwxyz234567") == JOB_ID_LENGTH && !job_find_any(&x->server->jobs, a->id);
}

static front_asking *ask(exchange *x)
{
    front_asking what, *a = NULL;
    if (!fill(x, &what) || !(a = malloc(sizeof *a)))
        return NULL;
    *a = what;
    x->asking = a;
    x->is_answered = 0;
    x->resume = go_on;
    x->is_suspended = 1;
    MHD_suspend_connection(x->connection);
    if (front_ask(x->server, a))
        return a;
    front_answered(a);
    return NULL;
}

enum MHD_Result ask_and_handle(exchange *x)
{
    int is_asked = 0, can_wait = 1;
    if (x->server->front) {
        pthread_mutex_lock(&x->server->lock);
        can_wait = !x->http->is_closing && !x->is_gone;
        is_asked = can_wait && ask(x) != NULL;
        is_asked |= x->is_suspended;
        pthread_mutex_unlock(&x->server->lock);
    }
    return is_asked ? MHD_YES : x->match.endpoint->handle(x);
}
