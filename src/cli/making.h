/* Making a list of images with one device or with several: for zimage generate. */
#ifndef ZI_CLI_MAKING_H
#define ZI_CLI_MAKING_H

#include <pthread.h>
#include <stdatomic.h>

#include "device_list.h"
#include "failures.h"
#include "jobs.h"
#include "report.h"
#include "request.h"
#include "show.h"
#include "words.h"

#define MAKING_TEXT_MAX (PATH_MAX + CLI_SENTENCE_MAX) /* bytes of a sentence with its line of a batch */

/* What all devices of a command share. */
typedef struct making {
    const cli_options *options; /* of the command line */
    zimage_model *model;
    cli_jobs jobs;
    cli_report report;
    show show;
    vocabulary *vocabulary; /* what the model knows; NULL: it does not say */
    cli_failures *failures; /* of a shard: a job's own failure is noted here, and the work goes on; else NULL */
    pthread_mutex_t lock;   /* of what the devices change: jobs.places, report, show, failures and the next three */
    const char *looked_at;  /* the last prompt that was compared with the vocabulary */
    json_t *begun;          /* the keys of a shard\'s jobs that were taken */
    size_t next;            /* the job to look at next */
    int code;               /* not 0: no other image is begun */
    int is_shared;          /* several devices make the images */
} making;

/* An image whose files are written while the next one is made. */
typedef struct writing {
    making *all;
    cli_job *job; /* NULL: there is none */
    zimage_request request;
    zimage_image *image;
    zimage_status status;
    zimage_error error;
    int is_written; /* the image's own file */
    atomic_int is_done;
    int has_thread;
    pthread_t thread;
} writing;

/* One device with its session. */
typedef struct maker {
    making *all;
    const char *device; /* NULL: as the options say */
    zimage_session *session;
    cli_inputs inputs;
    const cli_job *job;   /* that is checked or made now; NULL: none yet */
    int warned;           /* the job's warnings are printed already */
    zimage_status status; /* of the last job that failed */
    writing last;
    char error[MAKING_TEXT_MAX]; /* its sentence */
    pthread_t thread;
} maker;

void maker_begin(maker *m, making *all, const char *device);
/* Opens the model, unless it is open, and the session. */
zimage_status maker_open(maker *m, zimage_error *error);
void maker_end(maker *m);

/* zimage_log_fn of a maker: warnings in the user's words. */
void maker_log(zimage_log_level level, const char *message, void *user);
/* Prints an error of the job under way, and keeps it. Returns CLI_FAILURE. */
int maker_failure(maker *m, const zimage_error *error);

/* Makes the images that are not there yet, each by the first device that is free. Each is looked for again where
 * another process may make it, too. The first maker works on the calling thread. Returns the exit code. */
int making_run(making *all, maker *makers, int count);

#endif
