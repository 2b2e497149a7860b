/* The statements of a worker. Each is one round trip; those that nobody has to remember after a crash of the database
 * do not wait for its disk. */
#ifndef ZI_QUEUE_JOBS_H
#define ZI_QUEUE_JOBS_H

#include "queue/connection.h"

/* The jobs that a worker holds, and what the ledger calls their leases. */
typedef struct ledger_hold {
    int64_t id;
    char lease[LEDGER_LEASE_TEXT];
} ledger_hold;

typedef struct ledger_claiming {
    const char *model, *worker;
    int count; /* at most so many jobs */
    double lease_seconds;
    char cursor[LEDGER_NAME_MAX + 1]; /* the caller that was served last: those behind it come first */
} ledger_claiming;

/* Claims queued jobs of the highest priority, of the caller with the fewest running ones. jobs: [count]; *found of
 * them, whose texts are released with ledger_job_free. */
ledger_result ledger_claim(ledger *l, ledger_claiming *claiming, ledger_job *jobs, int *found, zimage_error *error);
/* The same for jobs whose worker was not heard of until its lease was over. Those without an attempt left fail. */
ledger_result ledger_claim_expired(ledger *l, const ledger_claiming *claiming, ledger_job *jobs, int *found,
                                   zimage_error *error);
void ledger_job_free(ledger_job *job);

/* An attempt begins. *is_mine 0: the job was lost or cancelled meanwhile. made: the job before it, whose image is made
 * and waits to be stored, or NULL. Its attempt does not count any more (*is_uncounted 1, unless it is done by now): if
 * its worker ends now, it is not to blame. */
ledger_result ledger_begin(ledger *l, ledger_job *job, double lease_seconds, const ledger_hold *made, int *is_mine,
                           int *is_uncounted, zimage_error *error);
/* The attempt of a job that is done counts again. */
ledger_result ledger_count_attempt(ledger *l, int64_t id, zimage_error *error);
/* Prolongs leases. is_mine: [count]. */
ledger_result ledger_renew(ledger *l, const ledger_hold *held, size_t count, double lease_seconds, int *is_mine,
                           zimage_error *error);
/* Finished jobs, with their results as JSON texts [count]. is_mine: [count], 0: another worker has the job. */
ledger_result ledger_finish(ledger *l, const ledger_hold *held, const char *const *results, size_t count, int *is_mine,
                            zimage_error *error);
/* The job fails for good. */
ledger_result ledger_fail(ledger *l, const ledger_job *job, const zimage_error *reason, zimage_error *error);
/* The job goes back after a fault of this machine: it waits a little, and fails if no attempt is left. */
ledger_result ledger_give_back(ledger *l, const ledger_job *job, const zimage_error *reason, zimage_error *error);
/* A job whose attempt has not begun goes back as if nobody had claimed it. */
ledger_result ledger_release(ledger *l, const ledger_job *job, zimage_error *error);
/* The worker is there, and expected to say so again within so many seconds. */
ledger_result ledger_announce(ledger *l, const char *worker, const char *model, double seconds, zimage_error *error);
/* Whether jobs of the model are queued or running. */
ledger_result ledger_is_empty(ledger *l, const char *model, int *is_empty, zimage_error *error);

/* "{1,2}" and "{uuid,uuid}": arrays as parameters. NULL: no memory. Released with free. */
char *ledger_ids(const ledger_hold *held, size_t count);
char *ledger_leases(const ledger_hold *held, size_t count);
char *ledger_texts(const char *const *texts, size_t count);

#endif
