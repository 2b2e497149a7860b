#include "request.h"

#include "cli.h"

zimage_status cli_inputs_read(const cli_options *o, const zimage_context *context, cli_inputs *inputs,
                              zimage_error *error)
{
    if (o->prompt_embeds) {
        int64_t shape[4];
        int32_t dims;
        zimage_model_info info;
        zimage_get_model_info(context, &info);
        zimage_status status =
            zimage_tensor_read(o->prompt_embeds, "prompt_embeds", &inputs->embeds, shape, &dims, error);
        if (status != ZIMAGE_OK)
            return status;
        if (dims != 2 || shape[0] < 1 || shape[0] > info.max_prompt_tokens || shape[1] != info.prompt_embeds_dim) {
            snprintf(error->message, sizeof error->message,
                     "%s: tensor \"prompt_embeds\" has %d dimensions [%lld, %lld], expected [1 to %d tokens, %d]",
                     o->prompt_embeds, dims, (long long)shape[0], (long long)shape[1], info.max_prompt_tokens,
                     info.prompt_embeds_dim);
            return error->status = ZIMAGE_ERROR_ARGUMENT;
        }
        inputs->embeds_tokens = shape[0];
    }
    if (o->latents)
        return zimage_tensor_read(o->latents, "latents", &inputs->latents, inputs->latents_shape, &inputs->latents_dims,
                                  error);
    return ZIMAGE_OK;
}

void cli_inputs_free(cli_inputs *inputs)
{
    zimage_free(inputs->embeds);
    zimage_free(inputs->latents);
}

/* Width and height: those of the options, else those of --latents, else the model's own. */
static void choose_size(const cli_options *o, const cli_inputs *inputs, const zimage_model_info *info,
                        zimage_request *request)
{
    if (inputs->latents) {
        request->height = (int32_t)(inputs->latents_shape[2] * info->vae_scale_factor);
        request->width = (int32_t)(inputs->latents_shape[3] * info->vae_scale_factor);
    }
    if (o->width)
        request->width = (int32_t)o->width;
    if (o->height)
        request->height = (int32_t)o->height;
}

static int check_latents(const cli_options *o, const cli_inputs *inputs, const zimage_model_info *info,
                         const zimage_request *request)
{
    int64_t rows = request->height / info->vae_scale_factor, columns = request->width / info->vae_scale_factor;
    const int64_t *shape = inputs->latents_shape;
    if (!inputs->latents || (inputs->latents_dims == 4 && shape[0] == 1 && shape[1] == info->latent_channels &&
                             shape[2] == rows && shape[3] == columns))
        return 0;
    return cli_usage_error("generate",
                           "%s: tensor \"latents\" has %d dimensions [%lld, %lld, %lld, %lld], expected [1, %d, %lld, "
                           "%lld] for an image of %dx%d",
                           o->latents, inputs->latents_dims, (long long)shape[0], (long long)shape[1],
                           (long long)shape[2], (long long)shape[3], info->latent_channels, (long long)rows,
                           (long long)columns, request->width, request->height);
}

int cli_request_fill(const cli_options *o, const zimage_context *context, const cli_inputs *inputs,
                     zimage_request *request)
{
    zimage_model_info info;
    zimage_get_model_info(context, &info);
    zimage_request_init(context, request);
    choose_size(o, inputs, &info, request);
    int code = check_latents(o, inputs, &info, request);
    if (code)
        return code;
    if (o->steps)
        request->steps = (int32_t)o->steps;
    request->prompt = o->prompt;
    request->negative_prompt = o->negative;
    request->rng = (zimage_rng)o->rng;
    request->guidance_scale = (float)o->guidance;
    request->cfg_truncation = o->cfg_truncation;
    request->cfg_normalization = (float)o->cfg_normalization;
    request->prompt_embeds = inputs->embeds;
    request->prompt_tokens = (int32_t)inputs->embeds_tokens;
    request->latents = inputs->latents;
    request->memory_limit = o->mem;
    return 0;
}
