#include "request.h"

#include <float.h>
#include <stdio.h>

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

void cli_inputs_free(cli_inputs *inputs)
{
    zimage_free(inputs->embeds);
    zimage_free(inputs->latents);
    *inputs = (cli_inputs){0};
}

static zimage_status read_inputs(const cli_options *o, const zimage_model *model, cli_inputs *inputs,
                                 zimage_error *error)
{
    if (inputs->options == o)
        return ZIMAGE_OK;
    cli_inputs_free(inputs);
    zimage_status status = o->prompt_embeds ? read_embeds(o->prompt_embeds, model, inputs, error) : ZIMAGE_OK;
    if (status == ZIMAGE_OK && o->latents)
        status = read_latents(o->latents, inputs, error);
    inputs->options = status == ZIMAGE_OK ? o : NULL;
    return status;
}

/* Width and height: those of the options, else those of --latents, else the model's own. */
static void choose_size(const cli_options *o, const cli_inputs *inputs, const zimage_model_info *info,
                        zimage_request *request)
{
    request->height = info->default_height;
    request->width = info->default_width;
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
        .guidance_scale = (float)o->guidance,
        .cfg_normalization = (float)o->cfg_normalization,
        .cfg_truncation = o->cfg_truncation > 0 ? o->cfg_truncation : DBL_MIN, /* 0 would be the default */
        .prompt_embeds = inputs->embeds,
        .prompt_tokens = (int32_t)inputs->embeds_shape[0],
        .prompt_embeds_dim = (int32_t)inputs->embeds_shape[1],
        .latents = inputs->latents,
        .latents_count = inputs->latents_count,
        .memory_limit = o->mem,
    };
    choose_size(o, inputs, &info, request);
    return check_latents(o, inputs, &info, request, error);
}
