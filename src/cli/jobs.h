/* The images to make: all are known and checked before the first is made. */
#ifndef ZI_CLI_JOBS_H
#define ZI_CLI_JOBS_H

#include <jansson.h>

#include "options.h"

typedef struct cli_job {
    const cli_options *options; /* of the command line, or `own` */
    uint64_t seed;
    char *path;       /* of the PNG file */
    int64_t line;     /* of the batch, from 1; 0: no batch */
    cli_options *own; /* of the batch's line, completed by the command line; its texts belong to `json` */
    json_t *json;
} cli_job;

typedef struct cli_jobs {
    cli_job *items;
    size_t count;
} cli_jobs;

/* Adds a copy of job, which then belongs to jobs; 0: no memory, and job is the caller's still. */
int cli_jobs_add(cli_jobs *jobs, const cli_job *job);
void cli_jobs_free(cli_jobs *jobs);

/* The jobs of the command line or of its batch; their files can be written. 0, or an exit code after a message. */
int cli_jobs_make(const cli_options *options, cli_jobs *jobs);

/* batch.c: all lines of options->batch. 0, or an exit code and a printed sentence. */
int cli_batch_read(const cli_options *options, cli_jobs *jobs);

#endif
