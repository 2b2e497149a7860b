#include "metadata.h"

#include <float.h>
#include <limits.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "cli.h"
#include "names.h"
#include "naming.h"

#define TEXTS_MAX   36
#define VALUE_BYTES 128 /* of a number or a word */

typedef struct metadata {
    zimage_text texts[TEXTS_MAX];
    size_t count;
    char values[TEXTS_MAX][VALUE_BYTES];
    char folders[TEXTS_MAX][PATH_MAX];
} metadata;

/* A text that outlives the metadata; NULL is left out. */
static void add(metadata *m, const char *key, const char *value)
{
    if (value && m->count < TEXTS_MAX)
        m->texts[m->count++] = (zimage_text){key, value};
}

static void add_value(metadata *m, const char *key, const char *format, ...) __attribute__((format(printf, 3, 4)));
static void add_value(metadata *m, const char *key, const char *format, ...)
{
    va_list arguments;
    if (m->count == TEXTS_MAX)
        return;
    va_start(arguments, format);
    vsnprintf(m->values[m->count], VALUE_BYTES, format, arguments);
    va_end(arguments);
    add(m, key, m->values[m->count]);
}

/* The shortest decimal number that gives the value back. */
static void add_number(metadata *m, const char *key, double value)
{
    char text[VALUE_BYTES];
    for (int digits = FLT_DIG; digits <= DBL_DECIMAL_DIG; digits++) {
        snprintf(text, sizeof text, "%.*g", digits, value);
        if (strtod(text, NULL) == value)
            break;
    }
    add_value(m, key, "%s", text);
}

/* The own name of a folder or a file; NULL is left out. */
static void add_path(metadata *m, const char *key, const char *path)
{
    if (!path || m->count == TEXTS_MAX)
        return;
    char name[PATH_MAX];
    cli_name_folder(path, name);
    zimage_printable(name, m->folders[m->count], sizeof m->folders[0]);
    add(m, key, m->folders[m->count]);
}

static void add_prompts(metadata *m, const cli_options *o, const zimage_request *request)
{
    add(m, "prompt", o->prompt);
    add_path(m, "prompt_embeds", o->prompt_embeds);
    if (request->guidance_scale > 0)
        add(m, "negative_prompt", o->negative);
}

/* "image", "image_2", ...; strength: 0 where denoising starts from noise alone. */
static void add_images(metadata *m, const cli_options *o, double strength)
{
    static const char *const keys[] = {"image",   "image_2", "image_3", "image_4",
                                       "image_5", "image_6", "image_7", "image_8"};
    int most = sizeof keys / sizeof *keys; /* that a model takes */
    for (int i = 0; i < o->images.count && i < most; i++)
        add_path(m, keys[i], o->images.paths[i]);
    add_path(m, "mask", o->mask);
    if (strength > 0)
        add_number(m, "strength", strength);
    if (CLI_IS_GIVEN(o, background))
        add_value(m, "background", "#%02x%02x%02x", o->background[0], o->background[1], o->background[2]);
}

static void add_noise(metadata *m, const cli_job *job)
{
    const cli_options *o = job->options;
    add_path(m, "latents", o->latents);
    if (o->latents)
        return;
    add_value(m, "seed", "%llu", (unsigned long long)job->seed);
    add(m, "rng", cli_rng_name(o->rng));
}

static void add_guidance(metadata *m, const cli_options *o, const zimage_request *request)
{
    add_number(m, "guidance", CLI_IS_GIVEN(o, guidance) ? o->guidance : request->guidance_scale);
    if (request->guidance_scale > 0) {
        add_number(m, "cfg_truncation", o->cfg_truncation);
        add_number(m, "cfg_normalization", o->cfg_normalization);
    }
}

static void add_model(metadata *m, const cli_options *o)
{
    add_path(m, "model", cli_model(o));
    add_path(m, "transformer", o->transformer);
    add_path(m, "text_encoder", o->text_encoder);
    add_path(m, "vae", o->vae);
    add_path(m, "tokenizer", o->tokenizer);
    add_path(m, "scheduler", o->scheduler);
    if (o->dequantize)
        add(m, "dequantize", cli_dequantize_name(o->dequantize));
}

/* Of a format that has none (the lines of a batch may write several): 0. */
static int lossy_quality(const cli_job *job)
{
    zimage_format format;
    return zimage_format_of_path(job->path, &format) && format != ZIMAGE_FORMAT_PNG ? (int)job->options->quality : 0;
}

static void add_all(metadata *m, const cli_job *job, const zimage_request *request, const zimage_image_info *info)
{
    add_prompts(m, job->options, request);
    add_images(m, job->options, info->strength);
    add_noise(m, job);
    add_value(m, "size", "%dx%d", request->width, request->height);
    add_value(m, "steps", "%d", request->steps);
    add_guidance(m, job->options, request);
    add_model(m, job->options);
    add(m, "compute", zimage_compute_name(info->compute));
    add_value(m, "kernels", "%s", info->kernels);
    if (lossy_quality(job))
        add_value(m, "quality", "%d", lossy_quality(job));
    add_value(m, "Software", "zimage %s", zimage_version());
}

/* NULL: no memory, and an error. The caller frees it. */
static metadata *make_metadata(const cli_job *job, const zimage_request *request, const zimage_image_info *info,
                               zimage_error *error)
{
    metadata *m = calloc(1, sizeof *m);
    if (!m) {
        snprintf(error->message, sizeof error->message, "%s: no memory for its texts", job->path);
        error->status = ZIMAGE_ERROR_MEMORY;
    } else if (!job->options->no_metadata) {
        add_all(m, job, request, info);
    }
    return m;
}

zimage_status cli_check_image(const cli_job *job, const zimage_request *request, zimage_error *error)
{
    zimage_format format;
    zimage_error reason = ZIMAGE_ERROR_INIT;
    zimage_image_info info = {.struct_size = sizeof info};
    memset(info.kernels, 'x', sizeof info.kernels - 1); /* not known yet: the longest */
    if (!zimage_format_of_path(job->path, &format))
        return ZIMAGE_OK;
    metadata *m = make_metadata(job, request, &info, error);
    if (!m)
        return ZIMAGE_ERROR_MEMORY;
    zimage_status status = zimage_format_check(format, request->width, request->height, m->texts, m->count, &reason);
    if (status != ZIMAGE_OK)
        snprintf(error->message, sizeof error->message, "%s: %.1400s", job->path, reason.message);
    free(m);
    return error->status = status;
}

zimage_status cli_write_image(const cli_job *job, const zimage_request *request, const zimage_image *image,
                              zimage_error *error)
{
    zimage_image_info info = {.struct_size = sizeof info};
    zimage_request made = *request;            /* whose size may be that of an input image */
    zimage_image_get_info(image, &info, NULL); /* this can't fail */
    made.width = zimage_image_width(image);
    made.height = zimage_image_height(image);
    metadata *m = make_metadata(job, &made, &info, error);
    if (!m)
        return ZIMAGE_ERROR_MEMORY;
    const zimage_save_params params = {
        .struct_size = sizeof params,
        .quality = lossy_quality(job),
        .texts = m->texts,
        .text_count = m->count,
        .folder = job->folder,
        .is_new = !job->named,
    };
    const char *name = job->folder ? cli_name_in_folder(job, job->path) : job->path;
    zimage_status status = zimage_image_save(image, name, &params, error);
    free(m);
    return status;
}
