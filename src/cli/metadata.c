#include "metadata.h"

#include <limits.h>
#include <stdio.h>
#include <string.h>

#include "cli.h"
#include "names.h"
#include "naming.h"
#include "shared/recipe.h"

/* The own name of a folder or a file. */
static const char *name_of(const char *path, char name[PATH_MAX])
{
    char folderless[PATH_MAX];
    cli_name_folder(path, folderless);
    zimage_printable(folderless, name, PATH_MAX);
    return name;
}

/* The same as a value; NULL is left out. */
static void add_path(recipe *r, const char *key, const char *path)
{
    char name[PATH_MAX];
    if (path)
        recipe_add(r, key, name_of(path, name));
}

static void add_prompts(recipe *r, const cli_options *o, const zimage_request *request)
{
    char name[PATH_MAX];
    size_t count = (size_t)request->prompt_tokens * (size_t)request->prompt_embeds_dim;
    recipe_add(r, "prompt", o->prompt);
    if (o->prompt_embeds)
        recipe_numbers(r, "prompt_embeds", name_of(o->prompt_embeds, name), request->prompt_embeds, count);
    if (request->guidance_scale > 0)
        recipe_add(r, "negative_prompt", o->negative);
}

/* strength: 0 where denoising starts from noise alone. */
static void add_images(recipe *r, const cli_options *o, const zimage_request *request, double strength)
{
    char name[PATH_MAX];
    for (size_t i = 0; i < request->image_count; i++)
        recipe_image(r, "images", name_of(o->images.paths[i], name), request->images[i]);
    if (request->mask)
        recipe_image(r, "mask", name_of(o->mask, name), request->mask);
    if (strength > 0)
        recipe_add_number(r, "strength", strength);
    if (CLI_IS_GIVEN(o, background)) {
        snprintf(name, sizeof name, "#%02x%02x%02x", o->background[0], o->background[1], o->background[2]);
        recipe_add(r, "background", name);
    }
}

static void add_noise(recipe *r, const cli_job *job, const zimage_request *request)
{
    char name[PATH_MAX];
    const cli_options *o = job->options;
    if (o->latents)
        recipe_numbers(r, "latents", name_of(o->latents, name), request->latents, request->latents_count);
    else
        recipe_noise(r, job->seed, (zimage_rng)o->rng);
}

static void add_model(recipe *r, const cli_options *o, const zimage_model *model)
{
    char name[PATH_MAX];
    recipe_model(r, name_of(cli_model(o), name), model);
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

static void add_all(recipe *r, const cli_job *job, const zimage_request *request, const zimage_image_info *info,
                    const zimage_model *model)
{
    const cli_options *o = job->options;
    add_prompts(r, o, request);
    add_images(r, o, request, info->strength);
    add_noise(r, job, request);
    recipe_size(r, request->width, request->height, request->steps);
    recipe_guidance(r, CLI_IS_GIVEN(o, guidance) ? o->guidance : request->guidance_scale, o->cfg_truncation,
                    o->cfg_normalization);
    add_model(r, o, model);
    recipe_result(r, info, lossy_quality(job));
}

/* Without texts for --no-metadata. NULL: no memory, and an error. Released with recipe_free. */
static recipe *make_recipe(const cli_job *job, const zimage_request *request, const zimage_image_info *info,
                           const zimage_model *model, const zimage_text **texts, size_t *count, zimage_error *error)
{
    recipe *r = recipe_new();
    if (r && !job->options->no_metadata)
        add_all(r, job, request, info, model);
    *texts = r ? recipe_texts(r, count) : NULL;
    if (*texts)
        return r;
    recipe_free(r);
    snprintf(error->message, sizeof error->message, "%s: no memory for its texts", job->path);
    error->status = ZIMAGE_ERROR_MEMORY;
    return NULL;
}

zimage_status cli_check_image(const cli_job *job, const zimage_request *request, const zimage_model *model,
                              zimage_error *error)
{
    zimage_format format;
    zimage_error reason = ZIMAGE_ERROR_INIT;
    zimage_image_info info = {.struct_size = sizeof info};
    memset(info.kernels, 'x', sizeof info.kernels - 1); /* not known yet: the longest */
    if (!zimage_format_of_path(job->path, &format))
        return ZIMAGE_OK;
    const zimage_text *texts;
    size_t count;
    recipe *r = make_recipe(job, request, &info, model, &texts, &count, error);
    if (!r)
        return ZIMAGE_ERROR_MEMORY;
    zimage_status status = zimage_format_check(format, request->width, request->height, texts, count, &reason);
    if (status != ZIMAGE_OK)
        snprintf(error->message, sizeof error->message, "%s: %.1400s", job->path, reason.message);
    recipe_free(r);
    return error->status = status;
}

zimage_status cli_write_image(const cli_job *job, const zimage_request *request, const zimage_image *image,
                              const zimage_model *model, zimage_error *error)
{
    zimage_image_info info = {.struct_size = sizeof info};
    zimage_request made = *request;            /* whose size may be that of an input image */
    zimage_image_get_info(image, &info, NULL); /* this can't fail */
    made.width = zimage_image_width(image);
    made.height = zimage_image_height(image);
    const zimage_text *texts;
    size_t count;
    recipe *r = make_recipe(job, &made, &info, model, &texts, &count, error);
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
