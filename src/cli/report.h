/* What is reported of images: lines, and the object of --json. */
#ifndef ZI_CLI_REPORT_H
#define ZI_CLI_REPORT_H

#include <limits.h>
#include <stdio.h>

#include "jobs.h"
#include "shard.h"
#include "zimage.h"

typedef struct cli_report {
    FILE *images; /* with --json: writes the array's entries to `text` */
    char *text;
    size_t size;
    size_t count;
    double seconds[ZIMAGE_STAGE_COUNT];
    int resumed;                             /* --resume is given, */
    size_t skipped;                          /* and found so many images */
    const cli_shard *shard;                  /* with --shard; else NULL */
    size_t failed;                           /* images of the shard that could not be made */
    double load_seconds;                     /* how long the model took to open; set by the caller */
    zimage_memory_info memory;               /* of the GPU, for the last image */
    char error[PATH_MAX + CLI_SENTENCE_MAX]; /* why the work ended early; set by the caller */
} cli_report;

/* 0: no memory. */
int cli_report_begin(cli_report *report, int json);
/* device: that made it; NULL: there is one only. */
void cli_report_image(cli_report *report, const cli_job *job, const zimage_image *image, const char *device);
/* With --json prints the object. Releases everything; returns the exit code. */
int cli_report_end(cli_report *report);

/* Prints the plan that these options ask for: a table, or with --json an object. Returns the exit code. */
int cli_print_plan(const zimage_plan *plan, const cli_options *o);

#endif
