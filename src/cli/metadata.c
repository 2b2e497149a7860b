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

/* The files that the options name. */
typedef struct input_names {
    const cli_options *options;
    char name[PATH_MAX]; /* the last that was asked for */
} input_names;

/* recipe_name_fn of input_names. */
static const char *name_of_input(void *user, const char *key, size_t index)
{
    input_names *names = user;
    const cli_options *o = names->options;
    const char *path = !strcmp(key, "images")    ? o->images.paths[index]
                       : !strcmp(key, "mask")    ? o->mask
                       : !strcmp(key, "latents") ? o->latents
                                                 : o->prompt_embeds;
    return name_of(path, names->name);
}

static void add_background(recipe *r, const cli_options *o)
{
    char colour[8];
    if (!CLI_IS_GIVEN(o, background))
        return;
    snprintf(colour, sizeof colour, "#%02x%02x%02x", o->background[0], o->background[1], o->background[2]);
    recipe_add(r, "background", colour);
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

zimage_status cli_job_key(const cli_job *job, const zimage_request *request, const zimage_model *model,
                          char key[JOB_KEY], zimage_error *error)
{
    const cli_options *o = job->options;
    zimage_request own = *request;
    job_output output = {
        .quality = lossy_quality(job),
        .has_recipe = !o->no_metadata,
        .compute = (zimage_compute)o->compute,
        .dequantize = (zimage_dequantize)o->dequantize,
    };
    own.seed = job->seed;
    if (!zimage_format_of_path(job->path, &output.format))
        output.format = ZIMAGE_FORMAT_PNG;
    return job_key(model, &own, &output, key, error);
}

/* request: with what the library has filled in. */
static void add_all(recipe *r, const cli_job *job, const zimage_request *request, const zimage_image_info *info,
                    const zimage_model *model)
{
    const cli_options *o = job->options;
    input_names names = {.options = o};
    recipe_name_fn *naming = job->is_nameless ? NULL : name_of_input;
    recipe_prompts(r, request, naming, &names);
    recipe_images(r, request, naming, &names);
    add_background(r, o);
    recipe_noise(r, request, naming, &names);
    recipe_size(r, request);
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
    zimage_request checked = *request;
    checked.seed = job->seed;
    const zimage_text *texts;
    size_t count;
    recipe *r = make_recipe(job, &checked, &info, model, &texts, &count, error);
    if (!r)
        return ZIMAGE_ERROR_MEMORY;
    zimage_status status = zimage_format_check(format, request->width, request->height, texts, count, &reason);
    if (status != ZIMAGE_OK)
        snprintf(error->message, sizeof error->message, "%s: %.1400s", job->path, reason.message);
    recipe_free(r);
    return error->status = status;
}

/* The recipe of an image that was made, as a part of what its file is saved with. NULL: no memory, and an error. */
static recipe *recipe_of_made(const cli_job *job, const zimage_request *request, const zimage_image *image,
                              const zimage_model *model, zimage_save_params *params, zimage_error *error)
{
    zimage_image_info info = {.struct_size = sizeof info};
    zimage_request made = *request;            /* whose size may be that of an input image */
    zimage_image_get_info(image, &info, NULL); /* this can't fail */
    made.width = zimage_image_width(image);
    made.height = zimage_image_height(image);
    made.strength = info.strength;
    made.seed = job->seed;
    *params = (zimage_save_params){.struct_size = sizeof *params, .quality = lossy_quality(job)};
    return make_recipe(job, &made, &info, model, &params->texts, &params->text_count, error);
}

zimage_status cli_write_image(const cli_job *job, const zimage_request *request, const zimage_image *image,
                              const zimage_model *model, zimage_error *error)
{
    zimage_save_params params;
    recipe *r = recipe_of_made(job, request, image, model, &params, error);
    if (!r)
        return ZIMAGE_ERROR_MEMORY;
    params.folder = job->folder;
    params.is_new = !job->named || job->kept;
    const char *name = job->folder ? cli_name_in_folder(job, job->path) : job->path;
    zimage_status status = zimage_image_save(image, name, &params, error);
    recipe_free(r);
    return status;
}

zimage_status cli_encode_image(const cli_job *job, const zimage_request *request, const zimage_image *image,
                               const zimage_model *model, uint8_t **data, size_t *size, zimage_error *error)
{
    zimage_save_params params;
    zimage_format format = ZIMAGE_FORMAT_PNG;
    recipe *r = recipe_of_made(job, request, image, model, &params, error);
    if (!r)
        return ZIMAGE_ERROR_MEMORY;
    zimage_format_of_path(job->path, &format);
    zimage_status status = zimage_image_encode_with(image, format, &params, data, size, error);
    recipe_free(r);
    return status;
}
