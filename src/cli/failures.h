/* What a shard could not make: OUT/failed-I.jsonl, a JSON object a line. */
#ifndef ZI_CLI_FAILURES_H
#define ZI_CLI_FAILURES_H

#include <stdio.h>

#include "jobs.h"

typedef struct cli_failures {
    FILE *file; /* writes to text */
    char *text;
    size_t size, count;
} cli_failures;

/* 0: no memory. */
int cli_failures_begin(cli_failures *failures);
/* line: the text of the job's line. {"line":3,"seed":7,"key":"...","error":"...","request":{...}}, without what is not
 * known: a line whose input can't be read has no key. */
void cli_failures_add(cli_failures *failures, const cli_job *job, const char *line, const char *error);
/* Releases everything and leaves the file as it was. */
void cli_failures_drop(cli_failures *failures);
/* Replaces the file in the folder; without failures removes it. Releases everything. 0, or an exit code after a
 * message. */
int cli_failures_end(cli_failures *failures, const char *folder, unsigned long long shard);

#endif
