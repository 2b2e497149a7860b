/* The thread that writes an image's file and says in the ledger that its job is done, by a connection of its own, while
 * the next image is made: a worker does not wait for the disk. */
#ifndef ZI_QUEUE_PLACING_H
#define ZI_QUEUE_PLACING_H

#include <pthread.h>

#include "queue/jobs.h"
#include "queue/place.h"

typedef struct ledger_placing {
    const ledger_work_params *params;
    ledger *l;
    ledger_store *store;
    pthread_t thread;
    int has_thread;
    int is_open;      /* a job is under way; the rest is its own */
    int is_uncounted; /* its attempt does not count: see ledger_begin */
    ledger_job job;
    ledger_picture picture;
    char *suffix, *output;  /* copies of the picture's */
    ledger_verdict verdict; /* LEDGER_MADE: the file is there, */
    ledger_result answer;   /* and this is what the ledger answered */
    int is_mine;            /* 0: another worker had the job by then, or it was cancelled */
    zimage_error error;
} ledger_placing;

/* params: lives as long as placing. */
ledger_result ledger_placing_begin(ledger_placing *placing, const ledger_work_params *params, zimage_error *error);
/* Takes the job and the picture; there must be none under way. What the picture points to, other than its data and
 * facts, may change afterwards. 0: no memory; both stay the caller's. */
int ledger_placing_take(ledger_placing *placing, const ledger_job *job, const ledger_picture *picture);
/* Waits for the job under way and releases its picture. Verdict, answer and job may be looked at afterwards.
 * 0: there is none. */
int ledger_placing_wait(ledger_placing *placing);
void ledger_placing_end(ledger_placing *placing);

/* Releases what a picture holds. */
void ledger_picture_release(ledger_picture *picture);

#endif
