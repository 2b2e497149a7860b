/*
 * The ledger: a table of jobs in PostgreSQL, from which any number of workers on any number of machines take. For the
 * program only. docs/design.md ("The ledger") says why nothing is lost and nothing is done twice.
 *
 * Only the database's clock counts. Whatever a caller or a file says reaches the database as a parameter, never as SQL.
 */
#ifndef ZI_QUEUE_LEDGER_H
#define ZI_QUEUE_LEDGER_H

#include <jansson.h>
#include <stddef.h>
#include <stdint.h>

#include "shared/job_key.h"
#include "zimage.h"

#define LEDGER_LEASE_TEXT 37  /* a UUID as text */
#define LEDGER_NAME_MAX   200 /* bytes of the name of a batch or a caller */

typedef enum ledger_result {
    LEDGER_OK,
    LEDGER_LOST,    /* the database can't be reached, or asks to come again: the same call may work later */
    LEDGER_FAILED,  /* it answered, and the answer is an error */
    LEDGER_STOPPED, /* the caller asked to stop */
} ledger_result;

/* ---- connection (connection.c) ---- */

typedef struct ledger ledger;

/* target: what libpq takes, "postgresql://user@host/database"; it may hold a password, so no message repeats it.
 * needs_schema: 1: a database without this version's tables is refused. *l is released with ledger_close. */
ledger_result ledger_open(const char *target, const char *program, int needs_schema, ledger **l, zimage_error *error);
void ledger_close(ledger *l);
/* "host:port/database", without a password. */
const char *ledger_place(const ledger *l);

/* Creates the tables, or brings older ones up to date. Two programs may do so at the same time. Versions: 0 is none. */
ledger_result ledger_init(ledger *l, int *before, int *after, zimage_error *error);

/* ---- input images (inputs.c) ----
 *
 * An input image of a job is an object beside the results, inputs/ab/cd/HASH.png, which is called by the SHA-256 of its
 * bytes. The job's row names the hash. An object is in the ledger (zimage.input) before it is stored, and is removed
 * when no job needs it any more: one that is queued or running, or, if it is no server's, one that may be queued again.
 */

#define LEDGER_INPUT_SECONDS 300 /* in which a server's job is added behind its inputs */

/* The place of results, for input images. One thread uses it at a time. */
typedef struct ledger_inputs ledger_inputs;

/* place: as in queue/store.h; it is opened when it is needed first. NULL: no memory. */
ledger_inputs *ledger_inputs_new(const char *place);
void ledger_inputs_free(ledger_inputs *inputs);

/* Keeps an object for at least so many seconds, and for as long as jobs need it. Keeping it again changes nothing. A
 * connection that is lost is made again, `patience` seconds long. */
typedef struct ledger_input {
    const uint8_t *data;
    size_t size;
    double seconds, patience;
} ledger_input;
ledger_result ledger_inputs_keep(ledger_inputs *inputs, ledger *l, const ledger_input *input, char hash[HASH_TEXT],
                                 zimage_error *error);
/* Removes what nobody needs, for about so many seconds at most. */
ledger_result ledger_inputs_tidy(ledger_inputs *inputs, ledger *l, double seconds, zimage_error *error);

/* ---- adding jobs (add.c) ---- */

typedef struct ledger_adding {
    const char *batch, *caller; /* caller may be "": then the order is that of the jobs */
    const char *model;          /* the fingerprint of the model that the keys were made with */
    int priority, max_attempts;
} ledger_adding;

/* Jobs that wait to be stored, in a temporary file without a name: nothing is stored before all of them are known. */
typedef struct ledger_spool ledger_spool;

/* NULL: errno says why. */
ledger_spool *ledger_spool_new(void);
void ledger_spool_free(ledger_spool *spool);
typedef struct ledger_line {
    const char *key, *request; /* JSON in UTF-8 */
    const char *output;        /* the file that the request names, or NULL */
    const char (*inputs)[HASH_TEXT];
    size_t input_count;
} ledger_line;
/* 0, or an errno value. */
int ledger_spool_take(ledger_spool *spool, const ledger_line *line);

typedef struct ledger_added {
    uint64_t lines, added; /* the others were there already */
} ledger_added;

/* Stores the jobs, 10,000 in a transaction, and wakes the workers. A job whose batch and key are there already changes
 * nothing, so whatever was interrupted is simply added again. A connection that is lost is made again, `patience`
 * seconds long. on_stored: called after each transaction; anything but 0 stops. */
ledger_result ledger_add(ledger *l, const ledger_adding *adding, ledger_spool *spool, double patience,
                         int (*on_stored)(const ledger_added *added, void *user), void *user, ledger_added *added,
                         zimage_error *error);

/* ---- looking and changing (report.c) ---- */

/* Which jobs: all of a batch (NULL: of all batches), or the one with this id (0: none). */
typedef struct ledger_choice {
    const char *batch;
    int64_t id;
} ledger_choice;

/* LEDGER_FAILED with a sentence: no job is chosen, although a batch or an id is named. */
ledger_result ledger_has_chosen(ledger *l, const ledger_choice *choice, zimage_error *error);

/* {"jobs": {"queued", "running", "done", "failed", "cancelled"}, "rate", "seconds_left", "workers", "batches": [...],
 * "failures": [{"error", "jobs", "id"}]}; rate: images a second, null: not known yet. Released with json_decref. */
ledger_result ledger_status(ledger *l, const ledger_choice *choice, json_t **status, zimage_error *error);

/* Each job as one line of JSON (ASCII), in the order of ids, while they are read. Anything but 0 from `take` stops. */
ledger_result ledger_export(ledger *l, const ledger_choice *choice, int (*take)(const char *line, void *user),
                            void *user, zimage_error *error);

/* Failed and cancelled jobs are queued again, with all their attempts. */
ledger_result ledger_retry(ledger *l, const ledger_choice *choice, uint64_t *jobs, zimage_error *error);
/* Queued and running jobs; a worker notices at its next heartbeat. */
ledger_result ledger_cancel(ledger *l, const ledger_choice *choice, uint64_t *jobs, zimage_error *error);

/* ---- working (work.c) ---- */

/* Whether a server's client watches a job, as it was when the ledger was asked: 0 seconds: nobody does. */
typedef struct ledger_watch {
    double seconds, shown_seconds; /* for which its progress is wanted; and previews */
    int partials;                  /* partial images of the client's stream; 0: it wants what costs little */
} ledger_watch;

typedef struct ledger_news ledger_news;

typedef struct ledger_job {
    int64_t id;
    char lease[LEDGER_LEASE_TEXT];
    char key[JOB_KEY];
    int attempt; /* from 1, once it has begun */
    char *request, *caller;
    char *service; /* the server's job of which it is a part; NULL: it belongs to a batch */
    ledger_watch watch;
    ledger_news *news;         /* who may watch it, while it is made; NULL: nobody can */
    char (*inputs)[HASH_TEXT]; /* images, and behind them the mask */
    size_t input_count;
} ledger_job;

/* For an engine, while it makes an image: how far it is, with a preview, as the library says it. Returns at once. */
void ledger_tell(ledger_news *news, const zimage_progress *progress);
/* Whether a step's preview is to be made, as zimage_preview_fn says it. */
int ledger_wants_preview(ledger_news *news, int step, int steps);

typedef enum ledger_verdict {
    LEDGER_MADE,
    LEDGER_BAD_JOB,     /* it would fail on every machine: no other attempt */
    LEDGER_BAD_MACHINE, /* it may work on another machine: the job goes back, and the worker ends */
    LEDGER_INTERRUPTED, /* `stop` said so */
} ledger_verdict;

/* Reads an input image, whose hash is compared. LEDGER_MADE: *data is released with free. LEDGER_BAD_JOB: it is not
 * there, or it is another file. */
ledger_verdict ledger_inputs_read(ledger_inputs *inputs, const char hash[HASH_TEXT], uint8_t **data, size_t *size,
                                  zimage_error *error);

/* One finished image. */
typedef struct ledger_picture {
    uint8_t *data; /* the file's bytes; released with `release` */
    size_t size;
    void (*release)(void *data);
    const char *suffix; /* ".png" */
    const char *output; /* the name that the request gives its file, or NULL: a name is made of the key */
    json_t *facts;      /* what the ledger keeps of it: seed, seconds, kernels, ...; the worker adds the file's */
    /* Whether a file that has the name `output` already shows this very job, made on another machine. */
    int (*is_same)(const void *file, size_t size, const struct ledger_picture *picture);
} ledger_picture;

typedef struct ledger_engine {
    const char *model; /* the fingerprint: only its jobs are claimed */
    /* Makes one job's image. It calls stop(stop_user) now and then, and ends early if that is not 0. */
    ledger_verdict (*make)(void *user, const ledger_job *job, int (*stop)(const void *stop_user), const void *stop_user,
                           ledger_picture *picture, zimage_error *error);
    void *user;
} ledger_engine;

typedef struct ledger_work_params {
    const char *target, *place; /* place: a folder, or as in queue/store.h */
    int is_packed; /* 1: the place is a folder and gets tar files with many images each, instead of one file an image */
    int claim;     /* jobs that are taken at once */
    int until_empty;       /* 1: end when no job of the model is queued or running */
    ledger_inputs *inputs; /* of the place, to remove what nobody needs; NULL: others do */
    double lease_seconds;
    int (*stopping)(void);                         /* not 0: the image under way is finished, no other is begun */
    void (*say)(const char *sentence, void *user); /* notices; and a line for each image */
    void *user;
} ledger_work_params;

typedef struct ledger_totals {
    uint64_t made, failed, lost; /* lost: another worker had the job by then, or it was cancelled */
    double busy_seconds;         /* in engine->make */
} ledger_totals;

/* Claims and makes jobs until it is asked to stop. LEDGER_FAILED with a sentence: a fault of this machine, or of the
 * ledger. */
ledger_result ledger_work(const ledger_work_params *params, const ledger_engine *engine, ledger_totals *totals,
                          zimage_error *error);

#endif
