/* The server's state, and what its parts share. */
#ifndef ZI_SERVE_SERVER_H
#define ZI_SERVE_SERVER_H

#include <pthread.h>

#include "job.h"
#include "metrics.h"
#include "models.h"
#include "queue.h"
#include "serve.h"

typedef enum server_state { SERVER_LOADING, SERVER_READY, SERVER_DRAINING, SERVER_FAILED } server_state;

typedef struct server {
    const serve_params *params;
    image_limits images;
    gallery *gallery;        /* NULL: none */
    pthread_mutex_t lock;    /* guards everything below, and all jobs */
    pthread_cond_t work;     /* the queue or the state has changed: for workers */
    pthread_cond_t encoding; /* the list of images to encode has changed */
    server_state state;
    zimage_error failure; /* of SERVER_FAILED */
    queue queue;
    job_table jobs;
    model_table models;
    struct worker *workers; /* [worker_count] */
    int worker_count;
    struct lanes *lanes; /* one for each device */
    struct encoder *encoder;
    struct front *front; /* of a ledger; NULL: the workers are this process's */
    metrics metrics;
} server;

/* Seconds of a clock that only runs forward. */
double serve_now(void);
/* A line of the log: "SENTENCE"; printable. Or {"time", "message"}. */
void serve_log(const server *s, const char *format, ...) __attribute__((format(printf, 2, 3)));

/* The same with members of its own, which are taken; for a log of JSON. NULL: no memory. */
void serve_log_json(const server *s, json_t *line);

/* Who asks, and how long the client waits for an answer; 0: as long as it takes. */
typedef struct job_origin {
    uint64_t owner; /* the API key */
    const char *owner_name;
    uint64_t caller; /* the key and its user: callers take turns */
    double patience;
    int is_detached;
    uint64_t idempotency, body_hash;                 /* 0: the request may be repeated */
    const char *owner_hash, *ledger_caller, *repeat; /* as a job has them, for a front */
} job_origin;

/*
 * Admits a request: checks it, predicts its time, and puts a job into the queue. Takes the content of the request. *out
 * is held for the caller. 0: a fault. Called without the lock, by one thread.
 */
int admit(server *s, serve_request *request, const job_origin *origin, job **out, fault *f);
/* What a job of a request would take, and seconds until it would begin. 0: the fault with which it would be refused.
 * The request stays the caller's. Without the lock. */
int forecast(server *s, serve_request *request, const job_origin *origin, prediction *p, double *wait, fault *f);
/* How many images are made before a job that waits, and the predicted seconds until then. With the lock. */
queue_wait wait_of(const server *s, const job *j);

/* Cancels a job, unless it is over. With the lock. */
void cancel_job(server *s, job *j, cancel_reason reason);
/* Ends a job that failed. With the lock. */
void fail_job(server *s, job *j, const fault *f);

#endif
