/* The jobs of a batch that belong to one shard, by their keys. */
#ifndef ZI_CLI_SELECTION_H
#define ZI_CLI_SELECTION_H

#include "failures.h"
#include "jobs.h"
#include "request.h"
#include "shard.h"

typedef struct cli_selection {
    cli_shard shard;
    const zimage_model *model;
    cli_failures *failures;
    size_t seen;  /* images of all lines */
    int64_t line; /* that the next four are of; 0: none yet */
    cli_inputs inputs;
    zimage_request request;
    zimage_error error;
    zimage_status status; /* of reading them */
} cli_selection;

/* Whether a job, whose path is known, belongs to the shard; then its key is set. 0 and a failure that is noted: its key
 * can't be known, because a file that its line names can't be read; then each shard notes it, since each may be its
 * own. text: of the line. */
int cli_selection_takes(cli_selection *selection, cli_job *job, const char *text);
void cli_selection_end(cli_selection *selection);

#endif
