/* The images to make: all are known and checked before the first is made. */
#ifndef ZI_CLI_JOBS_H
#define ZI_CLI_JOBS_H

#include <jansson.h>

#include "options.h"
#include "shared/job_key.h"

struct cli_selection;

typedef struct cli_job {
    const cli_options *options; /* of the command line, or of a cli_batch_line */
    uint64_t seed;
    int64_t line; /* of the batch, from 1; 0: no batch */
    char *path;   /* of the image file */
    /* The folder of the batch, with which the paths begin: a line's files stay in it. NULL: no batch */
    const char *folder;
    char *latents;     /* of the file for the final latents; NULL: none */
    int done;          /* with --resume: its files exist */
    int named;         /* path is the user's word for word; 0: made by the program, which then replaces no file */
    const char *text;  /* of the line, for a shard; else NULL */
    char key[JOB_KEY]; /* of a shard's job; else empty */
    int is_nameless;   /* its input images have names that say nothing */
    int kept; /* a file that exists stays, also one that appears meanwhile: another process has made the image */
} cli_job;

/* A line of a batch. */
typedef struct cli_batch_line {
    struct cli_batch_line *next;
    cli_options options; /* of the line, completed by the command line; its texts belong to `json` */
    json_t *json;
    char *text; /* of a shard's line; else NULL */
} cli_batch_line;

typedef struct cli_jobs {
    const cli_options *options; /* of the command line */
    cli_job *items;
    size_t count;
    cli_batch_line *lines;
    struct cli_selection *selection; /* which images of the batch to take; NULL: all */
    json_t *places;                  /* path of a file that the user named -> the line that writes it */
    size_t existing_folder;          /* bytes of the path of --out-dir that existed before */
} cli_jobs;

/* The jobs of the command line or of its batch; their files can be written. selection: of a shard's images, or NULL. 0,
 * or an exit code after a message. */
int cli_jobs_make(const cli_options *options, struct cli_selection *selection, cli_jobs *jobs);
/* Adds the images of the command line (line 0), or of a line's options: as many as their count says. */
int cli_jobs_add(cli_jobs *jobs, const cli_options *options, int64_t line);
/* Whether the files of a job exist and are complete, under the names that it has. */
int cli_job_is_done(const cli_job *job);
/* How many of them are done already. */
size_t cli_jobs_done(const cli_jobs *jobs);
/* The part of a job's path behind job->folder. */
const char *cli_name_in_folder(const cli_job *job, const char *path);
/* Removes the folders that were made for images, where they are empty. */
void cli_jobs_free(cli_jobs *jobs);

void cli_batch_line_free(cli_batch_line *line);

/* batch.c: all lines of options->batch. 0, or an exit code and a printed sentence. */
int cli_batch_read(cli_jobs *jobs);

#endif
