#include "request.h"

#include <float.h>
#include <stdio.h>

/* Puts the option's name before a sentence that begins with the name of the file. */
static zimage_status name_field(const char *field, const zimage_error *inner, zimage_error *error)
{
    if (inner->status != ZIMAGE_OK) {
        snprintf(error->message, sizeof error->message, "%s: %.*s", field, (int)(sizeof error->message - 16),
                 inner->message);
        error->status = inner->status;
    }
    return inner->status;
}

static zimage_status read_embeds(const char *path, const zimage_model *model, cli_inputs *inputs, zimage_error *error)
{
    const int64_t *shape = inputs->embeds_shape;
    zimage_model_info info = {.struct_size = sizeof info};
    zimage_status status = zimage_model_get_info(model, &info, error);
    if (status == ZIMAGE_OK)
        status = zimage_tensor_read(path, "prompt_embeds", &inputs->embeds, inputs->embeds_shape, &inputs->embeds_dims,
                                    error);
    if (status != ZIMAGE_OK || (inputs->embeds_dims == 2 && shape[0] >= 1 && shape[0] <= info.max_prompt_tokens &&
                                shape[1] == info.prompt_embeds_dim))
        return status;
    snprintf(error->message, sizeof error->message,
             "%s: tensor \"prompt_embeds\" has %d dimensions [%lld, %lld], expected [1 to %d tokens, %d]", path,
             inputs->embeds_dims, (long long)shape[0], (long long)shape[1], info.max_prompt_tokens,
             info.prompt_embeds_dim);
    return error->status = ZIMAGE_ERROR_ARGUMENT;
}

static zimage_status read_latents(const char *path, cli_inputs *inputs, zimage_error *error)
{
    zimage_status status =
        zimage_tensor_read(path, "latents", &inputs->latents, inputs->latents_shape, &inputs->latents_dims, error);
    inputs->latents_count = status == ZIMAGE_OK;
    for (int i = 0; i < inputs->latents_dims && status == ZIMAGE_OK; i++)
        inputs->latents_count *= (uint64_t)inputs->latents_shape[i];
    return status;
}

static zimage_status read_image(const char *field, const char *path, const zimage_decode_params *params,
                                zimage_image **image, zimage_error *error)
{
    zimage_error inner = ZIMAGE_ERROR_INIT;
    zimage_image_read(path, params, image, &inner);
    return name_field(field, &inner, error);
}

static zimage_status read_images(const cli_options *o, cli_inputs *inputs, zimage_error *error)
{
    const zimage_decode_params params = {
        .struct_size = sizeof params, .background = o->background, .log = inputs->log, .log_user = inputs->log_user};
    zimage_status status = ZIMAGE_OK;
    for (int i = 0; i < o->images.count && status == ZIMAGE_OK; i++)
        status = read_image("images", o->images.paths[i], &params, &inputs->images[i], error);
    if (o->mask && status == ZIMAGE_OK)
        status = read_image("mask", o->mask, &params, &inputs->mask, error);
    return status;
}

void cli_inputs_free(cli_inputs *inputs)
{
    zimage_free(inputs->embeds);
    zimage_free(inputs->latents);
    for (int i = 0; i < CLI_FILES_MAX; i++)
        zimage_image_free(inputs->images[i]);
    zimage_image_free(inputs->mask);
    *inputs = (cli_inputs){.log = inputs->log, .log_user = inputs->log_user};
}

static zimage_status read_inputs(const cli_options *o, const zimage_model *model, cli_inputs *inputs,
                                 zimage_error *error)
{
    if (inputs->options == o)
        return ZIMAGE_OK;
    cli_inputs_free(inputs);
    zimage_error inner = ZIMAGE_ERROR_INIT;
    zimage_status status = ZIMAGE_OK;
    if (o->prompt_embeds) {
        read_embeds(o->prompt_embeds, model, inputs, &inner);
        status = name_field("prompt_embeds", &inner, error);
    }
    if (status == ZIMAGE_OK && o->latents) {
        read_latents(o->latents, inputs, &inner);
        status = name_field("latents", &inner, error);
    }
    if (status == ZIMAGE_OK)
        status = read_images(o, inputs, error);
    inputs->options = status == ZIMAGE_OK ? o : NULL;
    return status;
}

/* Width and height: those of the options, else those of --latents, of the first input image, or the model's own. */
static void choose_size(const cli_options *o, const cli_inputs *inputs, const zimage_model_info *info,
                        zimage_request *request)
{
    request->height = o->images.count ? 0 : info->default_height; /* 0: the library takes the image's */
    request->width = o->images.count ? 0 : info->default_width;
    if (inputs->latents) {
        request->height = (int32_t)(inputs->latents_shape[2] * info->vae_scale_factor);
        request->width = (int32_t)(inputs->latents_shape[3] * info->vae_scale_factor);
    }
    if (o->width)
        request->width = (int32_t)o->width;
    if (o->height)
        request->height = (int32_t)o->height;
}

static zimage_status check_latents(const cli_options *o, const cli_inputs *inputs, const zimage_model_info *info,
                                   const zimage_request *request, zimage_error *error)
{
    int64_t rows = request->height / info->vae_scale_factor, columns = request->width / info->vae_scale_factor;
    const int64_t *shape = inputs->latents_shape;
    if (!inputs->latents || (inputs->latents_dims == 4 && shape[0] == 1 && shape[1] == info->latent_channels &&
                             shape[2] == rows && shape[3] == columns))
        return ZIMAGE_OK;
    snprintf(error->message, sizeof error->message,
             "%s: tensor \"latents\" has %d dimensions [%lld, %lld, %lld, %lld], expected [1, %d, %lld, %lld] for an "
             "image of %dx%d",
             o->latents, inputs->latents_dims, (long long)shape[0], (long long)shape[1], (long long)shape[2],
             (long long)shape[3], info->latent_channels, (long long)rows, (long long)columns, request->width,
             request->height);
    return error->status = ZIMAGE_ERROR_ARGUMENT;
}

const char *cli_needs_guidance(const row_set *given)
{
    static const char *const names[] = {"negative", "cfg-truncation", "cfg-normalization"};
    for (size_t i = 0; i < sizeof names / sizeof *names; i++)
        if (cli_has(given, cli_find(CLI_GENERATE, names[i])))
            return names[i];
    return NULL;
}

/* The table's rule, where the model decides whether there is guidance. A line of a batch answers for its own values. */
static zimage_status check_guidance(const cli_options *o, const zimage_request *request, zimage_error *error)
{
    int is_line = !row_set_is_empty(o->own);
    const char *name = cli_needs_guidance(is_line ? &o->own : &o->given);
    const cli_option *option = name ? cli_find(CLI_GENERATE, name) : NULL;
    char sentence[CLI_TEXT_MAX];
    if (request->guidance_scale > 0 || !option)
        return ZIMAGE_OK;
    cli_rule_sentence(&option->rules[0], is_line, sentence);
    snprintf(error->message, sizeof error->message, "%s%s: %s", is_line ? "" : "--", is_line ? option->key : name,
             sentence);
    return error->status = ZIMAGE_ERROR_ARGUMENT;
}

zimage_status cli_request_fill(const cli_options *o, const zimage_model *model, cli_inputs *inputs,
                               zimage_request *request, zimage_error *error)
{
    zimage_model_info info = {.struct_size = sizeof info};
    zimage_status status = zimage_model_get_info(model, &info, error);
    if (status == ZIMAGE_OK)
        status = read_inputs(o, model, inputs, error);
    if (status != ZIMAGE_OK)
        return status;
    *request = (zimage_request){
        .struct_size = sizeof *request,
        .prompt = o->prompt,
        .negative_prompt = o->negative,
        .steps = o->steps ? (int32_t)o->steps : info.default_steps,
        .rng = (zimage_rng)o->rng,
        .guidance_scale = CLI_IS_GIVEN(o, guidance) ? (float)o->guidance : info.default_guidance,
        .cfg_normalization = (float)o->cfg_normalization,
        .cfg_truncation = o->cfg_truncation > 0 ? o->cfg_truncation : DBL_MIN, /* 0 would be the default */
        .prompt_embeds = inputs->embeds,
        .prompt_tokens = (int32_t)inputs->embeds_shape[0],
        .prompt_embeds_dim = (int32_t)inputs->embeds_shape[1],
        .latents = inputs->latents,
        .latents_count = inputs->latents_count,
        .memory_limit = o->mem,
        .images = (const zimage_image *const *)inputs->images,
        .image_count = (size_t)o->images.count,
        .mask = inputs->mask,
        .strength = o->strength,
        .composite = o->composite,
    };
    choose_size(o, inputs, &info, request);
    status = check_guidance(o, request, error);
    return status != ZIMAGE_OK ? status : check_latents(o, inputs, &info, request, error);
}
