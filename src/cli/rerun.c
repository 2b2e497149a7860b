/* zimage rerun: an image again from the recipe in its file, and how it compares. */
#include <stdlib.h>
#include <string.h>

#include "cli.h"
#include "metadata.h"
#include "places.h"
#include "progress.h"
#include "reread.h"
#include "shared/json_text.h"
#include "signals.h"

#define COMMAND "rerun"

#define REASONS_MAX 4

typedef struct rerun {
    const cli_options *given;
    cli_options made; /* what generate would be given */
    json_t *recipe;
    zimage_format format; /* of the file */
    zimage_model *model;
    zimage_session *session;
    cli_inputs inputs;
    zimage_request request;
    zimage_image *before, *image; /* of the file, and made again */
    show show;
} rerun;

/* How two images of one size differ. */
typedef struct comparison {
    size_t pixels, different;
    int largest; /* of 0 .. 255 */
    double mean; /* of all numbers */
} comparison;

static const char *recorded(const rerun *r, const char *key)
{
    return json_string_value(json_object_get(r->recipe, key));
}

static int fail(const rerun *r, const zimage_error *error)
{
    char sentence[CLI_SENTENCE_MAX];
    cli_translate(CLI_RERUN, r->given, error->message, sentence);
    (void)cli_usage_error(COMMAND, "%s", sentence);
    return CLI_FAILURE;
}

/* ---- the model --------------------------------------------------------------------------------------------------- */

/* Whether the model is that of the recipe. Another one that the user names is taken: the comparison tells. */
static int check_model(const rerun *r)
{
    char fingerprint[RECIPE_FINGERPRINT];
    const char *expected = recorded(r, "model_fingerprint"), *name = recorded(r, "model");
    recipe_fingerprint(r->model, fingerprint);
    if (!expected || !strcmp(expected, fingerprint))
        return 0;
    if (!r->given->model) {
        (void)cli_usage_error(COMMAND,
                              "%s: it was made with the model \"%s\" (%.12s), and %s is another (%.12s); name it with "
                              "-m DIR",
                              r->given->file, name ? name : "?", expected, cli_model_origin(r->given), fingerprint);
        return CLI_FAILURE;
    }
    if (!r->given->quiet)
        cli_line(stderr, "zimage: warning: -m: %s is another model (%.12s) than the one of the image, \"%s\" (%.12s)",
                 r->given->model, fingerprint, name ? name : "?", expected);
    return 0;
}

/* ---- making it again --------------------------------------------------------------------------------------------- */

static int open_all(rerun *r)
{
    zimage_error error = ZIMAGE_ERROR_INIT;
    if (cli_open(&r->made, r->given->quiet ? cli_log_warnings : cli_log, NULL, &r->model, &r->session, &error) !=
        ZIMAGE_OK)
        return fail(r, &error);
    int code = check_model(r);
    if (code)
        return code;
    if (cli_request_fill(&r->made, r->model, &r->inputs, &r->request, &error) != ZIMAGE_OK)
        return fail(r, &error);
    return cli_are_inputs_of_recipe(r->recipe, &r->made, &r->request) ? 0 : CLI_FAILURE;
}

static int make(rerun *r)
{
    zimage_error error = ZIMAGE_ERROR_INIT;
    progress_bar bar;
    show_begin(&r->show, COMMAND, r->given);
    progress_init(&bar, r->given->quiet, 1, 1, &r->show);
    r->request.preview = r->show.has_previews && !r->given->quiet;
    r->request.seed = r->made.seed;
    r->request.release_weights = 1;
    r->request.progress = cli_on_progress;
    r->request.progress_user = &bar;
    zimage_status status = zimage_generate(r->session, &r->request, &r->image, &error);
    progress_end(&bar);
    if (status == ZIMAGE_OK)
        show_image(&r->show, r->image);
    return status == ZIMAGE_OK ? 0 : fail(r, &error);
}

/* Last: the name may be that of the file itself. */
static int write_image(rerun *r)
{
    zimage_error error = ZIMAGE_ERROR_INIT;
    zimage_status status = ZIMAGE_OK;
    if (r->given->output) {
        const cli_job job = {.options = &r->made, .seed = r->made.seed, .path = (char *)r->given->output, .named = 1};
        status = cli_write_image(&job, &r->request, r->image, r->model, &error);
    }
    return status == ZIMAGE_OK ? 0 : fail(r, &error);
}

/* ---- comparing --------------------------------------------------------------------------------------------------- */

/* The new image as its file would show it: a format with losses changes pixels. */
static zimage_status through_format(const rerun *r, zimage_image **image, zimage_error *error)
{
    const zimage_save_params params = {.struct_size = sizeof params,
                                       .quality = r->format == ZIMAGE_FORMAT_PNG ? 0 : (int32_t)r->made.quality};
    uint8_t *data;
    size_t size;
    zimage_status status = zimage_image_encode_with(r->image, r->format, &params, &data, &size, error);
    if (status == ZIMAGE_OK)
        status = zimage_image_decode(data, size, 0, image, error);
    zimage_free(data);
    return status;
}

static void compare_pixels(const zimage_image *before, const zimage_image *now, comparison *c)
{
    const uint8_t *a = zimage_image_pixels(before), *b = zimage_image_pixels(now);
    double sum = 0;
    *c = (comparison){.pixels = (size_t)zimage_image_width(now) * (size_t)zimage_image_height(now)};
    for (size_t i = 0; i < c->pixels; i++) {
        int is_different = 0;
        for (size_t k = 3 * i; k < 3 * i + 3; k++) {
            int difference = abs(a[k] - b[k]);
            is_different |= difference > 0;
            c->largest = difference > c->largest ? difference : c->largest;
            sum += difference;
        }
        c->different += (size_t)is_different;
    }
    c->mean = sum / (3 * (double)c->pixels);
}

static int compare(const rerun *r, comparison *c)
{
    zimage_error error = ZIMAGE_ERROR_INIT;
    zimage_image *now = NULL;
    int32_t width = zimage_image_width(r->before), height = zimage_image_height(r->before);
    if (through_format(r, &now, &error) != ZIMAGE_OK)
        return fail(r, &error);
    int is_same_size = width == zimage_image_width(now) && height == zimage_image_height(now);
    if (is_same_size)
        compare_pixels(r->before, now, c);
    else
        (void)cli_usage_error(COMMAND, "%s: it has %dx%d pixels, and its recipe says %dx%d: the image was changed",
                              r->given->file, width, height, zimage_image_width(now), zimage_image_height(now));
    zimage_image_free(now);
    return is_same_size ? 0 : CLI_FAILURE;
}

/* ---- what it says ------------------------------------------------------------------------------------------------ */

static void add_reason(json_t *reasons, const char *what, const char *before, const char *now)
{
    if (before && strcmp(before, now) != 0)
        json_array_append_new(reasons, json_sprintf("%s %s, now %s", what, before, now));
}

/* What was different when the file was made. */
static json_t *reasons_of(const rerun *r, const zimage_image_info *info)
{
    char fingerprint[RECIPE_FINGERPRINT];
    json_t *reasons = json_array();
    recipe_fingerprint(r->model, fingerprint);
    add_reason(reasons, "model", recorded(r, "model_fingerprint"), fingerprint);
    add_reason(reasons, "kernels", recorded(r, "kernels"), info->kernels);
    add_reason(reasons, "compute type", recorded(r, "compute"), zimage_compute_name(info->compute));
    add_reason(reasons, "version", recorded(r, "version"), zimage_version());
    return reasons;
}

static void print_readable(const rerun *r, const comparison *c, const json_t *reasons)
{
    char why[2 * CLI_TEXT_MAX] = "";
    size_t i;
    const json_t *reason;
    json_array_foreach(reasons, i, reason)
    {
        cli_append(why, sizeof why, "%s%s", *why ? "; " : "", json_string_value(reason));
    }
    if (c->different == 0)
        cli_line(stdout, "%s  equal: all %zu pixels%s%s", r->given->file, c->pixels,
                 *why ? ", although it was made with " : "", why);
    else
        cli_line(stdout, "%s  different: %zu of %zu pixels, by at most %d of 255, on average by %.3g; %s%s",
                 r->given->file, c->different, c->pixels, c->largest, c->mean,
                 *why ? "it was made with "
                      : "model, kernels and version look the same, so the file or the weights were changed, or this "
                        "device does not repeat its results",
                 why);
}

static int report(const rerun *r, const comparison *c)
{
    zimage_image_info info = {.struct_size = sizeof info};
    zimage_image_get_info(r->image, &info, NULL); /* this can't fail */
    json_t *reasons = reasons_of(r, &info);
    int code = c->different ? CLI_DIFFERS : 0;
    if (!r->given->json) {
        print_readable(r, c, reasons);
        json_decref(reasons);
        return code;
    }
    int printed = cli_print_json(COMMAND,
                                 json_pack("{s:o, s:b, s:I, s:I, s:i, s:f, s:o, s:f}", "path",
                                           json_of_text(r->given->file), "equal", c->different == 0, "pixels",
                                           (json_int_t)c->pixels, "different", (json_int_t)c->different, "largest",
                                           c->largest, "mean", c->mean, "reasons", reasons, "seconds", info.seconds),
                                 CLI_MEASURED);
    return printed ? printed : code;
}

/* ---- the command ------------------------------------------------------------------------------------------------- */

static int read_and_make(rerun *r)
{
    const cli_options *o = r->given;
    zimage_error error = ZIMAGE_ERROR_INIT;
    recipe_source source;
    comparison c;
    if (o->output && cli_is_stdout(o->output))
        return cli_usage_error(COMMAND, "--output: standard output holds the comparison, expected the name of a file");
    if (o->output && !cli_can_write_image(COMMAND, "--output", o->output))
        return CLI_USAGE;
    r->recipe = cli_read_recipe(COMMAND, o->file, &source, &r->format);
    if (!r->recipe)
        return CLI_FAILURE;
    if (source != RECIPE_ZIMAGE) {
        (void)cli_usage_error(COMMAND,
                              "%s: it was made by %s, expected an image of zimage; zimage explain prints what "
                              "its file says",
                              o->file, recipe_source_name(source));
        return CLI_FAILURE;
    }
    if (!cli_has_model(COMMAND, o))
        return CLI_USAGE;
    if (zimage_image_read(o->file, NULL, &r->before, &error) != ZIMAGE_OK)
        return fail(r, &error);
    int code = cli_options_of_recipe(r->recipe, o, &r->made);
    if (!code)
        code = open_all(r);
    if (!code)
        code = make(r);
    if (!code)
        code = compare(r, &c);
    if (!code)
        code = write_image(r);
    return code ? code : report(r, &c);
}

int cmd_rerun(const cli_options *o)
{
    rerun r = {.given = o, .inputs = {.log = cli_log_warnings}};
    if (o->cache_dir && !cli_can_make_folder(COMMAND, "--cache-dir", o->cache_dir))
        return CLI_USAGE;
    cli_signals_catch();
    int code = read_and_make(&r);
    zimage_image_free(r.before);
    zimage_image_free(r.image);
    cli_inputs_free(&r.inputs);
    zimage_session_close(r.session);
    zimage_model_close(r.model);
    json_decref(r.recipe);
    return cli_signal_code(code);
}
