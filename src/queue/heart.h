/* The thread that prolongs the leases of a worker's jobs, says that the worker is there, and tells news of the image
 * under way (news.h). It has a connection of its own: work that takes long, or a connection that hangs, does not cost
 * the leases. */
#ifndef ZI_QUEUE_HEART_H
#define ZI_QUEUE_HEART_H

#include <pthread.h>

#include "queue/jobs.h"
#include "queue/news.h"

#define HEART_HOLDS 160 /* jobs at the same time: claimed ones, and images that wait to be packed */

typedef struct ledger_heart {
    pthread_t thread;
    pthread_mutex_t lock;
    int wake[2]; /* a pipe: a byte in it wakes the thread */
    ledger *l;
    const ledger_claiming *claiming; /* whose worker's heart it is, its model and leases */
    /* behind the lock */
    ledger_hold held[HEART_HOLDS];
    int is_lost[HEART_HOLDS]; /* another worker has the job, or it was cancelled */
    size_t count;
    int ends;
    ledger_news news; /* has a lock of its own */
} ledger_heart;

ledger_result ledger_heart_begin(ledger_heart *heart, const char *target, const ledger_claiming *claiming,
                                 zimage_error *error);
void ledger_heart_end(ledger_heart *heart);

void ledger_heart_take(ledger_heart *heart, const ledger_job *job);
void ledger_heart_drop(ledger_heart *heart, int64_t id);
/* 1: the work on the job is for nothing. */
int ledger_heart_has_lost(ledger_heart *heart, int64_t id);

#endif
