/*
 * A server that makes no images: a front of a ledger (shared/service.h). It checks requests and answers clients as any
 * server does. In place of the workers one thread keeps admitted jobs in the ledger, looks at those that are open, and
 * reads the files of finished images. A job that this server has never seen is made of the ledger's row, so each front
 * answers for every job: of fronts that are gone as well.
 */
#ifndef ZI_SERVE_FRONT_H
#define ZI_SERVE_FRONT_H

#include "server.h"
#include "shared/service.h"

struct policy;

/* Opens the models, for checks and plans, and begins. 0: an error. */
int front_start(server *s, zimage_error *error);
/* Tells the ledger what it still has to know, for a few seconds, and ends the thread. */
void front_stop(server *s);

/* ---- with the server's lock ---- */

/* Whether somebody here waits for a job, or the ledger has to be told something. */
int front_busy(const server *s);
int front_is_lost(const server *s);
/* Keeps a new job in the ledger; its listeners are woken when that is done (job.is_stored). 0: no memory. */
int front_add(server *s, job *j);
/* A job is over here; nobody shall make the rest of it. */
void front_cancel(server *s, const job *j);
/* The thread looks at once. */
void front_wake(server *s);

/* ---- front_keep.c, with the server's lock ---- */

/* Who owns a job that was found by its id alone, for exchanges: keys by their hashes. */
void front_use_policy(server *s, const struct policy *keys);
/* The caller's name in the ledger: a hash of its key, and one of its user, which may be NULL. */
void front_name_caller(const char *owner_hash, const char *user, char caller[FRONT_CALLER_TEXT]);

/* ---- front_room.c, with the server's lock ---- */

/* Whether a job of the model can be taken now. 0: a fault. */
int front_has_room(const server *s, const model_entry *model, fault *f);
queue_wait front_wait_of(const server *s, const job *j);
queue_wait front_wait_of_new(const server *s, const model_entry *model, const char *caller, queue_class class);
/* Images that wait, of all fronts. */
size_t front_waiting(const server *s, queue_class class);
/* Workers that have the model. */
int front_workers(const server *s, const model_entry *model);

/* ---- viewers.c: who watches jobs, and what there is to see of them ---- */

/* With the lock. Somebody looks at a job now, and perhaps again in a moment; shows: at previews, too. */
void front_viewed(server *s, job *j, int shows);
/* A stream of the job's events begins (1) or ends (-1). */
void front_streams(server *s, job *j, int change);
/* What the ledger says of an image of a job: a worker has begun it, or it waits, perhaps again. */
void front_part_runs(job *j, int index);
void front_part_waits(job *j, int index);
/* It is over. */
void front_part_ends(job *j, int index);
/* Whether the client's own stream, which begins when the job is kept, will show how far it is. */
int front_will_be_watched(const job *j);

/* Without the lock, by the front's thread. Tells the ledger which jobs are watched. */
service_answer front_tell_watched(server *s, const service_ledger *ledger, zimage_error *error);
/* Reads what is new of them. */
service_answer front_read_news(server *s, const service_ledger *ledger, zimage_error *error);
/* The ledger has forgotten who watches. */
void front_forget_watched(server *s);

/* ---- about.c ---- */

/* JSON: what another front needs to know of a job; released with free. NULL: no memory. */
char *job_about(const job *j);
/* The job of such a text. NULL: it can't be read, or nobody here knows its model. With the lock, for the models. */
job *job_of_about(server *s, const char *text);

#endif
