/* A job of the ledger as a request of the library: what zimage queue adds and zimage work makes. */
#ifndef ZI_CLI_QUEUED_H
#define ZI_CLI_QUEUED_H

#include "jobs.h"
#include "lines.h"
#include "metadata.h"
#include "request.h"

typedef struct cli_queued {
    cli_options options; /* of the request */
    cli_job job;         /* its key is that of the ledger */
    zimage_request request;
    json_t *json; /* of the request; the options' texts belong to it */
    cli_inputs inputs;
    int is_lent; /* the images are another's */
} cli_queued;

/* options: of the command line, with generate's defaults. lines: for messages, see there; the request is its next line.
 * A request of a ledger has a seed and makes one image; it names no file that is read but images, and its output has no
 * folder. 0, or an exit code after a message. Released with cli_queued_free, also after a failure. */
int cli_queued_read(cli_lines *lines, const char *text, size_t length, cli_queued *queued);
void cli_queued_free(cli_queued *queued);

#define CLI_QUEUED_INPUTS (CLI_FILES_MAX + 1)

/* Input images in place of the files that the request names: images, and behind them the mask. Whoever does not trust
 * the names calls it also with none. They belong to queued afterwards, unless they are lent; after a failure they stay
 * the caller's. */
zimage_status cli_queued_take_images(cli_queued *queued, zimage_image *const *images, size_t count, int is_lent,
                                     zimage_error *error);
/* Fills the request and the key. Images that were not taken are read from their files. */
zimage_status cli_queued_complete(cli_queued *queued, const zimage_model *model, zimage_error *error);

/* The command line's options with the defaults of generate's: what a line does not say. */
void cli_queued_defaults(cli_command_id command, const cli_options *given, cli_options *options);

/*
 * A job of the service is one caller's: it shares no row and no file with an equal request of another. So its key is
 * made of the request's key and the output, which is named after the job; the file is named after that key.
 */
int cli_queued_service_key(const cli_queued *queued, char key[JOB_KEY]); /* 0: no memory */

#endif
