#include "metadata.h"

#include <limits.h>
#include <stdio.h>
#include <string.h>

#include "cli.h"
#include "names.h"
#include "naming.h"
#include "shared/recipe.h"

/* The own name of a folder or a file; NULL is left out. */
static void add_path(recipe *r, const char *key, const char *path)
{
    char name[PATH_MAX], printable[PATH_MAX];
    if (!path)
        return;
    cli_name_folder(path, name);
    zimage_printable(name, printable, sizeof printable);
    recipe_add(r, key, printable);
}

static void add_prompts(recipe *r, const cli_options *o, const zimage_request *request)
{
    recipe_add(r, "prompt", o->prompt);
    add_path(r, "prompt_embeds", o->prompt_embeds);
    if (request->guidance_scale > 0)
        recipe_add(r, "negative_prompt", o->negative);
}

/* "image", "image_2", ...; strength: 0 where denoising starts from noise alone. */
static void add_images(recipe *r, const cli_options *o, double strength)
{
    static const char *const keys[] = {"image",   "image_2", "image_3", "image_4",
                                       "image_5", "image_6", "image_7", "image_8"};
    int most = sizeof keys / sizeof *keys; /* that a model takes */
    for (int i = 0; i < o->images.count && i < most; i++)
        add_path(r, keys[i], o->images.paths[i]);
    add_path(r, "mask", o->mask);
    if (strength > 0)
        recipe_add_number(r, "strength", strength);
    if (CLI_IS_GIVEN(o, background))
        recipe_add_value(r, "background", "#%02x%02x%02x", o->background[0], o->background[1], o->background[2]);
}

static void add_noise(recipe *r, const cli_job *job)
{
    const cli_options *o = job->options;
    add_path(r, "latents", o->latents);
    if (!o->latents)
        recipe_noise(r, job->seed, (zimage_rng)o->rng);
}

static void add_model(recipe *r, const cli_options *o)
{
    add_path(r, "model", cli_model(o));
    add_path(r, "transformer", o->transformer);
    add_path(r, "text_encoder", o->text_encoder);
    add_path(r, "vae", o->vae);
    add_path(r, "tokenizer", o->tokenizer);
    add_path(r, "scheduler", o->scheduler);
    if (o->dequantize)
        recipe_add(r, "dequantize", cli_dequantize_name(o->dequantize));
}

/* Of a format that has none (the lines of a batch may write several): 0. */
static int lossy_quality(const cli_job *job)
{
    zimage_format format;
    return zimage_format_of_path(job->path, &format) && format != ZIMAGE_FORMAT_PNG ? (int)job->options->quality : 0;
}

static void add_all(recipe *r, const cli_job *job, const zimage_request *request, const zimage_image_info *info)
{
    const cli_options *o = job->options;
    add_prompts(r, o, request);
    add_images(r, o, info->strength);
    add_noise(r, job);
    recipe_size(r, request->width, request->height, request->steps);
    recipe_guidance(r, CLI_IS_GIVEN(o, guidance) ? o->guidance : request->guidance_scale, o->cfg_truncation,
                    o->cfg_normalization);
    add_model(r, o);
    recipe_result(r, info, lossy_quality(job));
}

/* Without texts for --no-metadata. NULL: no memory, and an error. Released with recipe_free. */
static recipe *make_recipe(const cli_job *job, const zimage_request *request, const zimage_image_info *info,
                           const zimage_text **texts, size_t *count, zimage_error *error)
{
    recipe *r = recipe_new();
    if (r && !job->options->no_metadata)
        add_all(r, job, request, info);
    *texts = r ? recipe_texts(r, count) : NULL;
    if (*texts)
        return r;
    recipe_free(r);
    snprintf(error->message, sizeof error->message, "%s: no memory for its texts", job->path);
    error->status = ZIMAGE_ERROR_MEMORY;
    return NULL;
}

zimage_status cli_check_image(const cli_job *job, const zimage_request *request, zimage_error *error)
{
    zimage_format format;
    zimage_error reason = ZIMAGE_ERROR_INIT;
    zimage_image_info info = {.struct_size = sizeof info};
    memset(info.kernels, 'x', sizeof info.kernels - 1); /* not known yet: the longest */
    if (!zimage_format_of_path(job->path, &format))
        return ZIMAGE_OK;
    const zimage_text *texts;
    size_t count;
    recipe *r = make_recipe(job, request, &info, &texts, &count, error);
    if (!r)
        return ZIMAGE_ERROR_MEMORY;
    zimage_status status = zimage_format_check(format, request->width, request->height, texts, count, &reason);
    if (status != ZIMAGE_OK)
        snprintf(error->message, sizeof error->message, "%s: %.1400s", job->path, reason.message);
    recipe_free(r);
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
    const zimage_text *texts;
    size_t count;
    recipe *r = make_recipe(job, &made, &info, &texts, &count, error);
    if (!r)
        return ZIMAGE_ERROR_MEMORY;
    const zimage_save_params params = {
        .struct_size = sizeof params,
        .quality = lossy_quality(job),
        .texts = texts,
        .text_count = count,
        .folder = job->folder,
        .is_new = !job->named,
    };
    const char *name = job->folder ? cli_name_in_folder(job, job->path) : job->path;
    zimage_status status = zimage_image_save(image, name, &params, error);
    recipe_free(r);
    return status;
}
