#include "queued.h"

#include <string.h>

#include "cli.h"

#define NO_NAME "image.png" /* for the format of a job without an output */

void cli_queued_defaults(cli_command_id command, const cli_options *given, cli_options *options)
{
    *options = *given;
    cli_set_defaults(CLI_GENERATE, command, options);
}

/* A worker may be on another machine, and requests may be a stranger's: it reads no file that they name. Who adds a job
 * reads its images. */
static int check(const cli_lines *lines, const cli_options *o)
{
    static const char *const files[] = {"latents", "prompt-embeds", "save-latents"};
    for (size_t i = 0; i < sizeof files / sizeof *files; i++) {
        const cli_option *option = cli_find(CLI_GENERATE, files[i]);
        if (cli_has(&o->own, option))
            return cli_line_error(lines,
                                  "%s: a job of a ledger names no files but its input images and its output, "
                                  "because its worker may be on another machine",
                                  option->key);
    }
    if (o->count != 1)
        return cli_line_error(lines, "count: %lld, expected 1: each job of a ledger makes one image",
                              (long long)o->count);
    if (!cli_has(&o->own, cli_find(CLI_GENERATE, "seed")))
        return cli_line_error(lines, "seed: missing, expected a whole number: without it each attempt would make "
                                     "another image, and adding the line again another job");
    return 0;
}

int cli_queued_read(cli_lines *lines, const char *text, size_t length, cli_queued *queued)
{
    *queued = (cli_queued){.json = NULL};
    int code = cli_line_read(lines, text, length, &queued->options, &queued->json);
    if (!code)
        code = check(lines, &queued->options);
    const char *output = queued->options.output;
    queued->job = (cli_job){.options = &queued->options, .seed = queued->options.seed, .named = output != NULL};
    queued->job.path = (char *)(output ? output : NO_NAME); /* never freed: a job of its own */
    return code;
}

void cli_queued_free(cli_queued *queued)
{
    if (queued->is_lent)
        queued->inputs = (cli_inputs){.options = NULL};
    cli_inputs_free(&queued->inputs);
    json_decref(queued->json);
    queued->json = NULL;
}

zimage_status cli_queued_take_images(cli_queued *queued, zimage_image *const *images, size_t count, int is_lent,
                                     zimage_error *error)
{
    const cli_options *o = &queued->options;
    size_t named = (size_t)o->images.count, whole = named + (o->mask != NULL);
    queued->inputs.options = o;
    if (count != whole) {
        snprintf(error->message, sizeof error->message,
                 "image: the request names %zu input images and masks, but the ledger has %zu of it", whole, count);
        return error->status = ZIMAGE_ERROR_ARGUMENT;
    }
    for (size_t i = 0; i < named; i++)
        queued->inputs.images[i] = images[i];
    queued->inputs.mask = o->mask ? images[named] : NULL;
    queued->is_lent = is_lent;
    return ZIMAGE_OK;
}

zimage_status cli_queued_complete(cli_queued *queued, const zimage_model *model, zimage_error *error)
{
    zimage_status status = cli_request_fill(&queued->options, model, &queued->inputs, &queued->request, error);
    if (status != ZIMAGE_OK)
        return status;
    queued->request.seed = queued->job.seed;
    cli_options any = queued->options; /* how a worker computes is its own affair, and no part of the key */
    cli_job job = queued->job;
    any.compute = ZIMAGE_COMPUTE_AUTO;
    any.dequantize = ZIMAGE_DEQUANTIZE_NONE;
    job.options = &any;
    return cli_job_key(&job, &queued->request, model, queued->job.key, error);
}

int cli_queued_service_key(const cli_queued *queued, char key[JOB_KEY])
{
    static const char mark[] = "service ";
    const char *output = queued->options.output;
    const hash_piece pieces[] = {
        {mark, strlen(mark)}, {queued->job.key, strlen(queued->job.key)}, {output, strlen(output)}};
    return hash_sha256(pieces, sizeof pieces / sizeof *pieces, key);
}
