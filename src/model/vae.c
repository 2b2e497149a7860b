/*
 * The configurations and weights of AutoencoderKL and AutoencoderKLFlux2, and their latents in host memory. Formulas:
 * docs/spec/vae.md; reference: diffusers, models/autoencoders/autoencoder_kl.py, autoencoder_kl_flux2.py, vae.py,
 * pipelines/flux2/pipeline_flux2_klein.py (_encode_vae_image).
 */
#include "model/vae.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#define MAX_CHANNELS        (1 << 13)
#define MAX_LATENT_CHANNELS 4096
#define FLUX2_PATCH         2 /* the pipelines of FLUX.2 know no other patch */

/* ---- configuration ----------------------------------------------------------------------------------------------- */

#define FIELDS_OF_BOTH                                                                                                 \
    "in_channels", "out_channels", "down_block_types", "up_block_types", "block_out_channels", "layers_per_block",     \
        "act_fn", "latent_channels", "norm_num_groups", "sample_size", "force_upcast", "use_quant_conv",               \
        "use_post_quant_conv", "mid_block_add_attention", "decoder_block_out_channels"

const char *const zi_vae_fields[] = {FIELDS_OF_BOTH, "scaling_factor", "shift_factor",
                                     "latents_mean", "latents_std",    NULL};
const char *const zi_vae_flux2_fields[] = {FIELDS_OF_BOTH, "batch_norm_eps", "batch_norm_momentum", "patch_size", NULL};

/* A missing list is fine: the blocks are of the supported kind, or the reference fails. */
static zimage_status check_block_types(const zi_json_reader *json, const char *field, const char *type, int64_t levels)
{
    const json_t *types = json_object_get(json->object, field);
    char text[64];
    if (zi_field_is_default(json, field))
        return ZIMAGE_OK;
    if (!json_is_array(types))
        return zi_fail(json->error, ZIMAGE_ERROR_MODEL, "%s: %s is %s, expected an array", json->path, field,
                       zi_json_describe(types, text, sizeof text));
    if ((int64_t)json_array_size(types) != levels)
        return zi_fail(json->error, ZIMAGE_ERROR_MODEL,
                       "%s: %s has %zu entries, expected %lld, one for each of block_out_channels", json->path, field,
                       json_array_size(types), (long long)levels);
    for (size_t i = 0; i < json_array_size(types); i++) {
        const char *name = json_string_value(json_array_get(types, i));
        if (!name || strcmp(name, type) != 0)
            return zi_fail(json->error, ZIMAGE_ERROR_UNSUPPORTED, "%s: %s[%zu] is not \"%s\", the only supported kind",
                           json->path, field, i, type);
    }
    return ZIMAGE_OK;
}

/* What is alike in both classes, with its defaults. */
typedef struct defaults {
    int64_t block_out_channels[ZI_VAE_MAX_LEVELS];
    int64_t levels, layers_per_block, latent_channels;
} defaults;

static zimage_status check_groups(const zi_json_reader *json, const char *field, const int64_t *channels,
                                  const zi_vae_config *config)
{
    for (int64_t i = 0; i < config->levels; i++)
        if (channels[i] % config->norm_num_groups != 0)
            return zi_fail(json->error, ZIMAGE_ERROR_MODEL, "%s: norm_num_groups %lld does not divide %s[%d], %lld",
                           json->path, (long long)config->norm_num_groups, field, (int)i, (long long)channels[i]);
    return ZIMAGE_OK;
}

/* The decoder has the encoder's channels, unless the field says otherwise: the small decoder of FLUX.2. */
static zimage_status load_decoder_levels(const zi_json_reader *json, zi_vae_config *config)
{
    const char *field = "decoder_block_out_channels";
    size_t levels;
    if (zi_field_is_default(json, field) || json_is_null(json_object_get(json->object, field)))
        return ZIMAGE_OK;
    ZI_TRY(zi_json_int_array(json, field, 1, MAX_CHANNELS, config->decoder_block_out_channels, ZI_VAE_MAX_LEVELS,
                             &levels));
    if ((int64_t)levels != config->levels)
        return zi_fail(json->error, ZIMAGE_ERROR_MODEL,
                       "%s: %s has %zu entries, expected %lld, one for each of block_out_channels", json->path, field,
                       levels, (long long)config->levels);
    return check_groups(json, field, config->decoder_block_out_channels, config);
}

static zimage_status load_levels(const zi_json_reader *json, const defaults *d, zi_vae_config *config)
{
    size_t levels = (size_t)d->levels;
    memcpy(config->block_out_channels, d->block_out_channels, sizeof d->block_out_channels);
    if (!zi_field_is_default(json, "block_out_channels"))
        ZI_TRY(zi_json_int_array(json, "block_out_channels", 1, MAX_CHANNELS, config->block_out_channels,
                                 ZI_VAE_MAX_LEVELS, &levels));
    config->levels = (int64_t)levels;
    config->scale_factor = (int64_t)1 << (levels - 1);
    ZI_TRY(zi_field_int(json, "norm_num_groups", 1, MAX_CHANNELS, 32, &config->norm_num_groups));
    ZI_TRY(check_groups(json, "block_out_channels", config->block_out_channels, config));
    memcpy(config->decoder_block_out_channels, config->block_out_channels, sizeof config->block_out_channels);
    ZI_TRY(check_block_types(json, "down_block_types", "DownEncoderBlock2D", config->levels));
    return check_block_types(json, "up_block_types", "UpDecoderBlock2D", config->levels);
}

static zimage_status require_rgb(const zi_json_reader *json, const char *field)
{
    int64_t channels;
    ZI_TRY(zi_field_int(json, field, 1, 4096, 3, &channels));
    if (channels != 3)
        return zi_fail(json->error, ZIMAGE_ERROR_UNSUPPORTED, "%s: %s is %lld, only 3 (RGB) is supported", json->path,
                       field, (long long)channels);
    return ZIMAGE_OK;
}

static zimage_status read_both(const zi_json_reader *json, const char *class_name, const defaults *d,
                               zi_vae_config *config)
{
    ZI_TRY(zi_require_string(json, "_class_name", class_name));
    ZI_TRY(zi_require_silu(json, "act_fn"));
    ZI_TRY(zi_refuse_quantization(json));
    ZI_TRY(load_levels(json, d, config));
    ZI_TRY(zi_field_int(json, "latent_channels", 1, MAX_LATENT_CHANNELS, d->latent_channels, &config->latent_channels));
    ZI_TRY(require_rgb(json, "in_channels"));
    ZI_TRY(require_rgb(json, "out_channels"));
    ZI_TRY(zi_field_int(json, "layers_per_block", 1, 64, d->layers_per_block, &config->layers_per_block));
    ZI_TRY(zi_field_bool(json, "mid_block_add_attention", 1, &config->mid_block_add_attention));
    ZI_TRY(zi_field_bool(json, "use_quant_conv", 1, &config->use_quant_conv));
    return zi_field_bool(json, "use_post_quant_conv", 1, &config->use_post_quant_conv);
}

/* shift_factor has no default that the pipeline can use: it adds the number. */
static zimage_status read_config(const zi_json_reader *json, void *out)
{
    static const defaults d = {.block_out_channels = {64}, .levels = 1, .layers_per_block = 1, .latent_channels = 4};
    zi_vae_config *config = out;
    config->patch = 1;
    ZI_TRY(read_both(json, "AutoencoderKL", &d, config));
    ZI_TRY(zi_require_null(json, "decoder_block_out_channels"));
    ZI_TRY(zi_require_null(json, "latents_mean"));
    ZI_TRY(zi_require_null(json, "latents_std"));
    ZI_TRY(zi_field_number(json, "scaling_factor", 1e-6, 1e6, 0.18215, &config->scaling_factor));
    return zi_json_number(json, "shift_factor", -1e6, 1e6, NULL, &config->shift_factor);
}

static zimage_status read_flux2_config(const zi_json_reader *json, void *out)
{
    static const defaults d = {
        .block_out_channels = {128, 256, 512, 512}, .levels = 4, .layers_per_block = 2, .latent_channels = 32};
    static const int64_t square[] = {FLUX2_PATCH, FLUX2_PATCH};
    zi_vae_config *config = out;
    int64_t patch[2];
    config->patch = FLUX2_PATCH;
    ZI_TRY(read_both(json, "AutoencoderKLFlux2", &d, config));
    ZI_TRY(load_decoder_levels(json, config));
    ZI_TRY(zi_field_int_array(json, "patch_size", 1, 64, square, patch, 2));
    if (patch[0] != FLUX2_PATCH || patch[1] != FLUX2_PATCH)
        return zi_fail(json->error, ZIMAGE_ERROR_UNSUPPORTED,
                       "%s: patch_size is [%lld, %lld], only [2, 2] is supported", json->path, (long long)patch[0],
                       (long long)patch[1]);
    return zi_field_number(json, "batch_norm_eps", 0, 1, 1e-4, &config->batch_norm_eps);
}

zimage_status zi_vae_config_read(const char *path, const char *text, zi_vae_config *config, zimage_error *error)
{
    return zi_config_read(path, text, read_config, config, sizeof *config, error);
}

zimage_status zi_vae_flux2_config_read(const char *path, const char *text, zi_vae_config *config, zimage_error *error)
{
    return zi_config_read(path, text, read_flux2_config, config, sizeof *config, error);
}

int64_t zi_vae_latent_channels(const zi_vae_config *config)
{
    return config->latent_channels * config->patch * config->patch;
}

int64_t zi_vae_latent_size(const zi_vae_config *config)
{
    return config->scale_factor * config->patch;
}

/* ---- weights ----------------------------------------------------------------------------------------------------- */

static void bind_norm(zi_binder *binder, zi_vae_affine *norm, int64_t channels, const char *prefix, const char *name)
{
    char full[2 * ZI_NAME_MAX];
    snprintf(full, sizeof full, "%s%s.", prefix, name);
    zi_bind_vector(binder, &norm->weight, channels, full, "weight");
    zi_bind_vector(binder, &norm->bias, channels, full, "bias");
}

static void bind_conv(zi_binder *binder, zi_vae_affine *conv, int64_t out, int64_t in, int64_t kernel,
                      const char *prefix, const char *name)
{
    char full[2 * ZI_NAME_MAX];
    snprintf(full, sizeof full, "%s%s.", prefix, name);
    zi_bind_conv(binder, &conv->weight, out, in, kernel, full, "weight");
    zi_bind_vector(binder, &conv->bias, out, full, "bias");
}

/* A linear layer of the attention. Where a file has its outdated name `old`, that tensor counts, as in diffusers. */
static void bind_linear(zi_binder *binder, zi_vae_affine *linear, int64_t channels, const char *prefix,
                        const char *name, const char *old)
{
    static const char *const parts[] = {"weight", "bias"};
    char full[2][2 * ZI_NAME_MAX];
    for (int i = 0; i < 2; i++) {
        snprintf(full[i], sizeof full[i], "%s%s.%s", prefix, old, parts[i]);
        if (!zi_binder_has_outdated(binder, full[i]))
            snprintf(full[i], sizeof full[i], "%s%s.%s", prefix, name, parts[i]);
    }
    zi_bind_matrix(binder, &linear->weight, channels, channels, full[0], "");
    zi_bind_vector(binder, &linear->bias, channels, full[1], "");
}

static void bind_resnet(zi_binder *binder, zi_vae_resnet *resnet, int64_t in, int64_t out, const char *prefix)
{
    resnet->in_channels = in;
    resnet->out_channels = out;
    bind_norm(binder, &resnet->norm1, in, prefix, "norm1");
    bind_conv(binder, &resnet->conv1, out, in, 3, prefix, "conv1");
    bind_norm(binder, &resnet->norm2, out, prefix, "norm2");
    bind_conv(binder, &resnet->conv2, out, out, 3, prefix, "conv2");
    if (in != out)
        bind_conv(binder, &resnet->conv_shortcut, out, in, 1, prefix, "conv_shortcut");
}

static void bind_mid(zi_binder *binder, zi_vae_mid_block *mid, int64_t channels, const char *half)
{
    char prefix[ZI_NAME_MAX];
    for (int i = 0; i < 2; i++) {
        snprintf(prefix, sizeof prefix, "%s.mid_block.resnets.%d.", half, i);
        bind_resnet(binder, &mid->resnets[i], channels, channels, prefix);
    }
    if (!mid->has_attention)
        return;
    snprintf(prefix, sizeof prefix, "%s.mid_block.attentions.0.", half);
    bind_norm(binder, &mid->attention.norm, channels, prefix, "group_norm");
    bind_linear(binder, &mid->attention.to_q, channels, prefix, "to_q", "query");
    bind_linear(binder, &mid->attention.to_k, channels, prefix, "to_k", "key");
    bind_linear(binder, &mid->attention.to_v, channels, prefix, "to_v", "value");
    bind_linear(binder, &mid->attention.to_out, channels, prefix, "to_out.0", "proj_attn");
}

static void bind_level(zi_binder *binder, zi_vae_half *half, int64_t level, const char *kind)
{
    int64_t channels = half->channels[level], in = half->channels[level > 0 ? level - 1 : 0];
    char prefix[ZI_NAME_MAX];
    for (int64_t i = 0; i < half->level_resnets; i++, in = channels) {
        snprintf(prefix, sizeof prefix, "%s.%s_blocks.%d.resnets.%d.", half->name, kind, (int)level, (int)i);
        bind_resnet(binder, &half->resnets[level * half->level_resnets + i], in, channels, prefix);
    }
    snprintf(prefix, sizeof prefix, "%s.%s_blocks.%d.%ssamplers.0.", half->name, kind, (int)level, kind);
    if (level + 1 < half->levels)
        bind_conv(binder, &half->samplers[level], channels, channels, 3, prefix, "conv");
}

/* kind: "down", "up" */
static void bind_half(zi_binder *binder, zi_vae_half *half, const char *kind)
{
    int64_t first = half->channels[0], last = half->channels[half->levels - 1];
    char prefix[ZI_NAME_MAX];
    snprintf(prefix, sizeof prefix, "%s.", half->name);
    bind_conv(binder, &half->conv_in, first, half->in_channels, 3, prefix, "conv_in");
    bind_mid(binder, &half->mid, strcmp(kind, "up") == 0 ? first : last, half->name);
    for (int64_t level = 0; level < half->levels; level++)
        bind_level(binder, half, level, kind);
    bind_norm(binder, &half->conv_norm_out, last, prefix, "conv_norm_out");
    bind_conv(binder, &half->conv_out, half->out_channels, last, 3, prefix, "conv_out");
}

static void bind_all(zi_binder *binder, zi_vae *model)
{
    const zi_vae_config *config = &model->config;
    int64_t channels = config->latent_channels, latent = zi_vae_latent_channels(config);
    bind_half(binder, &model->decoder, "up");
    if (config->use_post_quant_conv)
        bind_conv(binder, &model->post_quant_conv, channels, channels, 1, "", "post_quant_conv");
    model->has_encoder = zi_binder_has(binder, "encoder.conv_out.weight");
    zi_bind_late(binder, "encoder."); /* most images are made from text alone */
    if (model->has_encoder)
        bind_half(binder, &model->encoder, "down");
    else
        zi_bind_ignore(binder, "encoder.");
    if (model->has_encoder && config->use_quant_conv)
        bind_conv(binder, &model->quant_conv, 2 * channels, 2 * channels, 1, "", "quant_conv");
    else
        zi_bind_ignore(binder, "quant_conv.");
    if (config->patch == 1)
        return;
    zi_bind_vector(binder, &model->running_mean, latent, "bn.", "running_mean");
    zi_bind_vector(binder, &model->running_var, latent, "bn.", "running_var");
    zi_bind_positive(binder);
    zi_bind_ignore(binder, "bn.num_batches_tracked");
}

/* What is known before the weights are. */
static zimage_status describe_half(zi_vae_half *half, const zi_vae_config *config, int encodes, zimage_error *error)
{
    half->name = encodes ? "encoder" : "decoder";
    half->in_channels = encodes ? 3 : config->latent_channels;
    half->out_channels = encodes ? 2 * config->latent_channels : 3;
    half->levels = config->levels;
    half->level_resnets = config->layers_per_block + (encodes ? 0 : 1);
    half->mid.has_attention = config->mid_block_add_attention;
    for (int64_t i = 0; i < config->levels; i++)
        half->channels[i] =
            encodes ? config->block_out_channels[i] : config->decoder_block_out_channels[config->levels - 1 - i];
    size_t count = (size_t)(half->levels * half->level_resnets);
    half->resnets = calloc(count, sizeof *half->resnets);
    return half->resnets ? ZIMAGE_OK : zi_fail_memory(error, "the VAE's block table", count * sizeof *half->resnets);
}

/* The batch norm that AutoencoderKLFlux2 keeps for its pipelines: mean and deviation of each channel of the latents. */
static zimage_status read_statistics(zi_vae *model, zimage_error *error)
{
    int64_t count = zi_vae_latent_channels(&model->config);
    if (!model->running_mean || !model->running_var) /* AutoencoderKL, or a store that only collects names */
        return ZIMAGE_OK;
    model->mean = malloc((size_t)count * 2 * sizeof *model->mean);
    if (!model->mean)
        return zi_fail_memory(error, "the VAE's batch norm", (size_t)count * 2 * sizeof *model->mean);
    model->deviation = model->mean + count;
    zi_weight_unpack(model->running_mean, 0, count, model->mean);
    zi_weight_unpack(model->running_var, 0, count, model->deviation);
    for (int64_t i = 0; i < count; i++) {
        float variance = model->deviation[i] + (float)model->config.batch_norm_eps;
        if (!isfinite(model->mean[i]) || !(variance > 0 && isfinite(variance)))
            return zi_fail(
                error, ZIMAGE_ERROR_MODEL,
                "%s: channel %d has %g in bn.running_mean and %g in bn.running_var, expected finite numbers, "
                "and a variance above 0",
                model->path, (int)i, model->mean[i], model->deviation[i]);
        model->deviation[i] = sqrtf(variance);
    }
    return ZIMAGE_OK;
}

static zimage_status describe(zi_vae *model, const zi_vae_config *config, zi_store *store, zimage_error *error)
{
    memset(model, 0, sizeof *model);
    model->config = *config;
    model->store = store;
    model->path = zi_store_path(store);
    ZI_TRY(describe_half(&model->decoder, config, 0, error));
    return describe_half(&model->encoder, config, 1, error);
}

zimage_status zi_vae_bind(zi_vae *model, const zi_vae_config *config, zi_store *store, const zi_log *log,
                          zimage_error *error)
{
    zi_binder *binder;
    zimage_status status = describe(model, config, store, error);
    if (status == ZIMAGE_OK)
        status = zi_binder_new(store, &binder, error);
    if (status == ZIMAGE_OK) {
        bind_all(binder, model);
        status = zi_binder_finish(binder, log, error);
    }
    if (status == ZIMAGE_OK)
        status = read_statistics(model, error);
    if (status != ZIMAGE_OK)
        zi_vae_free(model);
    return status;
}

void zi_vae_free(zi_vae *model)
{
    free(model->encoder.resnets);
    free(model->decoder.resnets);
    free(model->mean);
    memset(model, 0, sizeof *model);
}

zimage_status zi_vae_check_encoder(const zi_vae *model, zimage_error *error)
{
    if (model->has_encoder)
        return ZIMAGE_OK;
    return zi_fail(
        error, ZIMAGE_ERROR_MODEL,
        "%s: there is no tensor encoder.conv_out.weight, expected the VAE's encoder, which reads input images",
        model->path);
}

/* ---- latents ----------------------------------------------------------------------------------------------------- */

int64_t zi_vae_latent_index(const zi_vae_config *config, const int64_t place[3], int64_t rows, int64_t columns,
                            int64_t *channel)
{
    int64_t patch = config->patch, y = place[1], x = place[2];
    *channel = (place[0] * patch + y % patch) * patch + x % patch;
    return (*channel * (rows / patch) + y / patch) * (columns / patch) + x / patch;
}

/* The values of the encoder's range as the transformer reads them. */
static float normalized(const zi_vae *model, float z, int64_t channel)
{
    if (model->mean)
        return (z - model->mean[channel]) / model->deviation[channel];
    return (z - (float)model->config.shift_factor) * (float)model->config.scaling_factor;
}

void zi_vae_latents(const zi_vae *model, const float *moments, const float *noise, int64_t rows, int64_t columns,
                    float *latents)
{
    int64_t patch = model->config.patch, lines = model->config.latent_channels * rows, count = lines * columns, channel;
    for (int64_t i = 0; i < lines * patch; i++) {
        const int64_t place[] = {i / patch / rows, i / patch % rows, i % patch};
        int64_t first = zi_vae_latent_index(&model->config, place, rows, columns, &channel);
        for (int64_t x = 0; x < columns / patch; x++) {
            int64_t from = i / patch * columns + i % patch + x * patch;
            float z = moments[from] + (noise ? expf(0.5f * moments[count + from]) * noise[from] : 0);
            latents[first + x] = normalized(model, z, channel);
        }
    }
}
