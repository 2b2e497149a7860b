/* From options to requests of the library. */
#ifndef ZI_CLI_REQUEST_H
#define ZI_CLI_REQUEST_H

#include "options.h"
#include "zimage.h"

/* Tensors of --prompt-embeds and --latents, input images. */
typedef struct cli_inputs {
    zimage_log_fn log; /* for warnings about images */
    void *log_user;
    const cli_options *options; /* that name the files; NULL: nothing was read */
    float *embeds, *latents;
    int64_t embeds_shape[4], latents_shape[4];
    int32_t embeds_dims, latents_dims;
    uint64_t latents_count;
    zimage_image *images[CLI_FILES_MAX], *mask;
} cli_inputs;

/* Frees what was read. */
void cli_inputs_free(cli_inputs *inputs);

/* An option of those given that has no effect without guidance; NULL: none. */
const char *cli_needs_guidance(const row_set *given);

/* The request of options. Their files are read into inputs, unless these are theirs already; the request points there
 * and into options. */
zimage_status cli_request_fill(const cli_options *options, const zimage_model *model, cli_inputs *inputs,
                               zimage_request *request, zimage_error *error);

#endif
