/*
 * The decoder of AutoencoderKL. Formulas: spec vae.md 2, 3, 5, 6; reference: diffusers, models/autoencoders/vae.py
 * (Decoder), models/unets/unet_2d_blocks.py (UNetMidBlock2D, UpDecoderBlock2D), models/resnet.py (ResnetBlock2D).
 * Images are channels-last [rows, columns, channels]. GroupNorm + SiLU is never a pass of its own: its statistics
 * become a scale and a shift a channel, applied when the next convolution reads.
 *
 * Memory. All full images live in one region with two ends. The current image x lies at one end; a block that replaces
 * it writes its result y at the other end, and the inner image h beside y, so that afterwards everything but y is free
 * again. A block therefore needs x + h + y, or x + h where it works in place (h is written whole before conv2 adds to
 * x). The last level is different: its input, the upsampled image with the channels of the level before, would be the
 * widest of all. It is never stored: each band of its rows is computed when needed, once for norm1's sums and once for
 * conv1 and conv_shortcut. With P output pixels and the published widths (128, 256, 512, 512), in float32 values:
 *   up_blocks.2.resnets.0   P/4 (512 + 256 + 256)      = 256 P
 *   up_blocks.3.resnets.0   P/4 256 + P (128 + 128)    = 320 P   + the band: at most BAND_BYTES
 *   up_blocks.3.resnets.1   P (128 + 128)              = 256 P
 * so 1280 P bytes and the band: 80 MiB at 256 x 256, 1.25 GiB at 1024 x 1024, 5 GiB at 2048 x 2048. An upsampled image
 * of at most WHOLE_BYTES is one band, computed once.
 */
#include "model/vae.h"

#include <assert.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "base/json.h"
#include "model/common.h"

#define NORM_EPS        1e-6f
#define MAX_LATENT_SIDE (1 << 14) /* keeps every product of sizes far below 2^63 */
#define MAX_CHANNELS    (1 << 13)
#define WHOLE_BYTES     ((int64_t)256 << 20)
#define BAND_BYTES      ((int64_t)64 << 20)

/* ---- configuration ----------------------------------------------------------------------------------------------- */

static zimage_status require_null(const zi_json_reader *json, const char *field)
{
    const json_t *value = json_object_get(json->object, field);
    if (value && !json_is_null(value))
        return zi_fail(json->error, ZIMAGE_ERROR_UNSUPPORTED, "%s: %s is set, only null is supported", json->path,
                       field);
    return ZIMAGE_OK;
}

/* An absent list is fine: the class default is of the supported type. */
static zimage_status check_block_types(const zi_json_reader *json, const char *field, const char *type, int64_t levels)
{
    const json_t *types = json_object_get(json->object, field);
    if (!types || json_is_null(types))
        return ZIMAGE_OK;
    if (!json_is_array(types) || (int64_t)json_array_size(types) != levels)
        return zi_fail(json->error, ZIMAGE_ERROR_MODEL,
                       "%s: %s must be a list of %lld, one for each of block_out_channels", json->path, field,
                       (long long)levels);
    for (size_t i = 0; i < json_array_size(types); i++) {
        const char *name = json_string_value(json_array_get(types, i));
        if (!name || strcmp(name, type) != 0)
            return zi_fail(json->error, ZIMAGE_ERROR_UNSUPPORTED, "%s: %s[%zu] is not \"%s\", the only supported kind",
                           json->path, field, i, type);
    }
    return ZIMAGE_OK;
}

static zimage_status refuse_variants(const zi_json_reader *json)
{
    const char *class_name, *activation;
    ZI_TRY(zi_json_string(json, "_class_name", "AutoencoderKL", &class_name));
    if (strcmp(class_name, "AutoencoderKL") != 0)
        return zi_fail(json->error, ZIMAGE_ERROR_UNSUPPORTED,
                       "%s: _class_name is \"%s\", only \"AutoencoderKL\" is supported", json->path, class_name);
    ZI_TRY(zi_json_string(json, "act_fn", "silu", &activation));
    if (strcmp(activation, "silu") != 0)
        return zi_fail(json->error, ZIMAGE_ERROR_UNSUPPORTED, "%s: act_fn is \"%s\", only \"silu\" is supported",
                       json->path, activation);
    ZI_TRY(require_null(json, "decoder_block_out_channels"));
    ZI_TRY(require_null(json, "latents_mean"));
    return require_null(json, "latents_std");
}

static zimage_status load_levels(const zi_json_reader *json, zi_vae_config *config)
{
    size_t levels;
    ZI_TRY(zi_json_int_array(json, "block_out_channels", 1, MAX_CHANNELS, config->block_out_channels, ZI_VAE_MAX_LEVELS,
                             &levels));
    config->levels = (int64_t)levels;
    config->scale_factor = (int64_t)1 << (levels - 1);
    ZI_TRY(zi_json_int(json, "norm_num_groups", 1, MAX_CHANNELS, NULL, &config->norm_num_groups));
    for (size_t i = 0; i < levels; i++)
        if (config->block_out_channels[i] % config->norm_num_groups != 0)
            return zi_fail(json->error, ZIMAGE_ERROR_MODEL,
                           "%s: norm_num_groups %lld does not divide block_out_channels[%zu], %lld", json->path,
                           (long long)config->norm_num_groups, i, (long long)config->block_out_channels[i]);
    ZI_TRY(check_block_types(json, "down_block_types", "DownEncoderBlock2D", config->levels));
    return check_block_types(json, "up_block_types", "UpDecoderBlock2D", config->levels);
}

static zimage_status read_config(const zi_json_reader *json, void *out)
{
    zi_vae_config *config = out;
    const int yes = 1; /* AutoencoderKL's defaults */
    ZI_TRY(refuse_variants(json));
    ZI_TRY(load_levels(json, config));
    ZI_TRY(zi_json_int(json, "latent_channels", 1, 4096, NULL, &config->latent_channels));
    ZI_TRY(zi_json_int(json, "out_channels", 1, 4096, NULL, &config->out_channels));
    if (config->out_channels != 3)
        return zi_fail(json->error, ZIMAGE_ERROR_UNSUPPORTED, "%s: out_channels is %lld, only 3 (RGB) is supported",
                       json->path, (long long)config->out_channels);
    ZI_TRY(zi_json_int(json, "layers_per_block", 1, 64, NULL, &config->layers_per_block));
    ZI_TRY(zi_json_number(json, "scaling_factor", 1e-6, 1e6, NULL, &config->scaling_factor));
    ZI_TRY(zi_json_number(json, "shift_factor", -1e6, 1e6, NULL, &config->shift_factor));
    ZI_TRY(zi_json_bool(json, "mid_block_add_attention", &yes, &config->mid_block_add_attention));
    return zi_json_bool(json, "use_post_quant_conv", &yes, &config->use_post_quant_conv);
}

zimage_status zi_vae_config_read(const char *path, const char *text, zi_vae_config *config, zimage_error *error)
{
    return zi_config_read(path, text, read_config, config, sizeof *config, error);
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

static void bind_linear(zi_binder *binder, zi_vae_affine *linear, int64_t channels, const char *prefix,
                        const char *name)
{
    char full[2 * ZI_NAME_MAX];
    snprintf(full, sizeof full, "%s%s.", prefix, name);
    zi_bind_matrix(binder, &linear->weight, channels, channels, full, "weight");
    zi_bind_vector(binder, &linear->bias, channels, full, "bias");
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

/* Channels of up_blocks.i: block_out_channels backwards. */
static int64_t level_channels(const zi_vae_config *config, int64_t level)
{
    return config->block_out_channels[config->levels - 1 - level];
}

static zi_vae_resnet *level_resnets(const zi_vae *model, int64_t level)
{
    return model->up_resnets + level * (model->config.layers_per_block + 1);
}

static void bind_mid(zi_binder *binder, zi_vae *model)
{
    int64_t channels = level_channels(&model->config, 0);
    bind_resnet(binder, &model->mid[0], channels, channels, "decoder.mid_block.resnets.0.");
    bind_resnet(binder, &model->mid[1], channels, channels, "decoder.mid_block.resnets.1.");
    if (!model->config.mid_block_add_attention)
        return;
    const char *prefix = "decoder.mid_block.attentions.0.";
    bind_norm(binder, &model->attention_norm, channels, prefix, "group_norm");
    bind_linear(binder, &model->to_q, channels, prefix, "to_q");
    bind_linear(binder, &model->to_k, channels, prefix, "to_k");
    bind_linear(binder, &model->to_v, channels, prefix, "to_v");
    bind_linear(binder, &model->to_out, channels, prefix, "to_out.0");
}

static void bind_level(zi_binder *binder, zi_vae *model, int64_t level)
{
    const zi_vae_config *config = &model->config;
    int64_t channels = level_channels(config, level), in = level_channels(config, level > 0 ? level - 1 : 0);
    char prefix[ZI_NAME_MAX];
    for (int64_t i = 0; i <= config->layers_per_block; i++, in = channels) {
        snprintf(prefix, sizeof prefix, "decoder.up_blocks.%lld.resnets.%lld.", (long long)level, (long long)i);
        bind_resnet(binder, &level_resnets(model, level)[i], in, channels, prefix);
    }
    snprintf(prefix, sizeof prefix, "decoder.up_blocks.%lld.upsamplers.0.", (long long)level);
    if (level + 1 < config->levels)
        bind_conv(binder, &model->upsamplers[level], channels, channels, 3, prefix, "conv");
}

static void bind_all(zi_binder *binder, zi_vae *model)
{
    const zi_vae_config *config = &model->config;
    int64_t first = level_channels(config, 0), last = level_channels(config, config->levels - 1);
    if (config->use_post_quant_conv)
        bind_conv(binder, &model->post_quant_conv, config->latent_channels, config->latent_channels, 1, "",
                  "post_quant_conv");
    bind_conv(binder, &model->conv_in, first, config->latent_channels, 3, "decoder.", "conv_in");
    bind_mid(binder, model);
    for (int64_t level = 0; level < config->levels; level++)
        bind_level(binder, model, level);
    bind_norm(binder, &model->conv_norm_out, last, "decoder.", "conv_norm_out");
    bind_conv(binder, &model->conv_out, config->out_channels, last, 3, "decoder.", "conv_out");
    zi_bind_ignore(binder, "encoder.");
    zi_bind_ignore(binder, "quant_conv.");
}

zimage_status zi_vae_bind(zi_vae *model, const zi_vae_config *config, zi_store *store, const zi_log *log,
                          zimage_error *error)
{
    zi_binder *binder;
    memset(model, 0, sizeof *model);
    ZI_TRY(zi_binder_new(store, &binder, error));
    model->config = *config;
    size_t count = (size_t)(config->levels * (config->layers_per_block + 1));
    model->up_resnets = calloc(count, sizeof *model->up_resnets);
    if (!model->up_resnets) {
        zi_binder_finish(binder, NULL, NULL);
        return zi_fail_memory(error, "the VAE's block table", count * sizeof *model->up_resnets);
    }
    bind_all(binder, model);
    zimage_status status = zi_binder_finish(binder, log, error);
    if (status != ZIMAGE_OK)
        zi_vae_free(model);
    return status;
}

void zi_vae_free(zi_vae *model)
{
    free(model->up_resnets);
    memset(model, 0, sizeof *model);
}

/* ---- the region of images ---------------------------------------------------------------------------------------- */

enum { LOW_END = 0, HIGH_END = 1 };

typedef struct decoder {
    const zi_vae *model;
    zi_run *run;
    int64_t band_rows; /* of the last level; 0 = choose */
    zi_tensor sums;    /* of groups */
    zi_tensor region;  /* all images */
    zi_tensor x;       /* the current image [rows, columns, channels] ... */
    int end;           /* ... lies at this end of the region */
} decoder;

/* Values rounded up to a cache line, so that every image of the region starts on one. */
static int64_t image_size(int64_t rows, int64_t columns, int64_t channels)
{
    return (rows * columns * channels + 15) / 16 * 16;
}

/* An image `skip` values away from an end of the region. */
static zi_tensor image_at(const decoder *d, int end, int64_t skip, int64_t rows, int64_t columns, int64_t channels)
{
    int64_t size = image_size(rows, columns, channels), whole = d->region.shape[0];
    assert(skip + size <= whole);
    zi_tensor flat = zi_tensor_rows(&d->region, end == LOW_END ? skip : whole - skip - size, rows * columns * channels);
    const int64_t shape[] = {rows, columns, channels};
    return zi_tensor_shaped(&flat, 3, shape);
}

/* An image with x's sides at the other end. */
static zi_tensor image_opposite(const decoder *d, int64_t skip, int64_t channels)
{
    return image_at(d, !d->end, skip, d->x.shape[0], d->x.shape[1], channels);
}

static void replace_x(decoder *d, zi_tensor y)
{
    d->x = y;
    d->end = !d->end;
}

static int64_t max64(int64_t a, int64_t b)
{
    return a > b ? a : b;
}

/* Whether the last level reads its input in bands; in place (no change of channels) it must be stored anyway. */
static int last_level_streams(const zi_vae *model)
{
    int64_t last = model->config.levels - 1;
    return last > 0 && level_channels(&model->config, last) != level_channels(&model->config, last - 1);
}

/* The largest sum of images alive at once (see the head of this file) for latents of rows x columns. */
static int64_t region_size(const zi_vae *model, int64_t rows, int64_t columns)
{
    const zi_vae_config *config = &model->config;
    int64_t first = image_size(rows, columns, level_channels(config, 0));
    int64_t latents = image_size(rows, columns, config->latent_channels);
    int64_t size = max64(latents + max64(latents, first), 5 * first); /* conv_in; attention: x, g, q, k, v */
    for (int64_t level = 0; level < config->levels; level++) {
        int64_t channels = level_channels(config, level), before = level_channels(config, level > 0 ? level - 1 : 0);
        int64_t scale = (int64_t)1 << level;
        int64_t in = image_size(rows * scale, columns * scale, before);
        int64_t out = image_size(rows * scale, columns * scale, channels);
        int streams = level == config->levels - 1 && last_level_streams(model);
        if (level > 0) {
            int64_t small = image_size(rows * scale / 2, columns * scale / 2, before);
            size = max64(size, streams ? small + 2 * out : small + in);
        }
        if (!streams && before != channels)
            size = max64(size, in + 2 * out);
        size = max64(size, 2 * out);
    }
    return size;
}

/* ---- blocks ------------------------------------------------------------------------------------------------------ */

/* A convolution from a whole image to a whole image. */
static zimage_status convolve(decoder *d, zi_tensor *y, const zi_tensor *x, const zi_vae_affine *weights,
                              const zi_channel_affine *affine, int upsample, int accumulate)
{
    zi_conv conv = zi_conv_same(weights->weight, weights->bias);
    conv.affine = affine;
    conv.upsample = upsample;
    conv.accumulate = accumulate;
    conv.image_rows = x->shape[0];
    return zi_table(d->run)->conv2d(d->run, y, x, &conv);
}

static zimage_status alloc_affine(decoder *d, zi_channel_affine *affine, int64_t channels)
{
    ZI_TRY(zi_alloc1_f32(d->run, &affine->scale, channels));
    return zi_alloc1_f32(d->run, &affine->shift, channels);
}

static zimage_status fold_norm(decoder *d, zi_channel_affine *affine, int64_t elements, const zi_vae_affine *norm)
{
    int64_t groups = d->model->config.norm_num_groups;
    return zi_table(d->run)->group_norm_fold(d->run, affine, &d->sums, elements / groups, norm->weight, norm->bias,
                                             NORM_EPS);
}

/* GroupNorm of a stored image as a scale and a shift a channel. */
static zimage_status normalize(decoder *d, zi_channel_affine *affine, const zi_tensor *x, const zi_vae_affine *norm)
{
    ZI_TRY(alloc_affine(d, affine, x->shape[2]));
    ZI_TRY(zi_table(d->run)->group_norm_sums(d->run, &d->sums, x, 0));
    return fold_norm(d, affine, zi_tensor_count(x), norm);
}

/* y += conv2(SiLU(norm2(h))) */
static zimage_status add_second_half(decoder *d, const zi_vae_resnet *resnet, zi_tensor *y, const zi_tensor *h)
{
    zi_channel_affine affine;
    ZI_TRY(normalize(d, &affine, h, &resnet->norm2));
    return convolve(d, y, h, &resnet->conv2, &affine, 0, 1);
}

/* x <- shortcut(x) + conv2(SiLU(norm2(conv1(SiLU(norm1(x)))))), spec 2 */
static zimage_status run_resnet(decoder *d, const zi_vae_resnet *resnet)
{
    zi_arena_mark mark = zi_table(d->run)->mark(d->run);
    int64_t channels = resnet->out_channels;
    zi_channel_affine affine;
    ZI_TRY(normalize(d, &affine, &d->x, &resnet->norm1));
    if (resnet->in_channels == channels) {
        zi_tensor h = image_opposite(d, 0, channels);
        ZI_TRY(convolve(d, &h, &d->x, &resnet->conv1, &affine, 0, 0));
        ZI_TRY(add_second_half(d, resnet, &d->x, &h));
    } else {
        zi_tensor y = image_opposite(d, 0, channels);
        zi_tensor h = image_opposite(d, image_size(y.shape[0], y.shape[1], channels), channels);
        ZI_TRY(convolve(d, &h, &d->x, &resnet->conv1, &affine, 0, 0));
        ZI_TRY(convolve(d, &y, &d->x, &resnet->conv_shortcut, NULL, 0, 0));
        ZI_TRY(add_second_half(d, resnet, &y, &h));
        replace_x(d, y);
    }
    zi_table(d->run)->release(d->run, mark);
    return ZIMAGE_OK;
}

/* x += to_out(softmax(q k^T / sqrt(C)) v) of group_norm(x), one head, pixels as tokens; spec 2 */
static zimage_status run_attention(decoder *d)
{
    const zi_vae *model = d->model;
    const zi_ops_table *table = zi_table(d->run);
    int64_t channels = d->x.shape[2], pixels = d->x.shape[0] * d->x.shape[1];
    int64_t size = image_size(d->x.shape[0], d->x.shape[1], channels);
    const zi_attention shape = {.heads = 1, .kv_heads = 1, .head_dim = channels};
    const int64_t tokens[] = {pixels, channels};
    zi_arena_mark mark = table->mark(d->run);
    zi_channel_affine affine;
    zi_tensor images[4], x = zi_tensor_shaped(&d->x, 2, tokens);
    for (int i = 0; i < 4; i++)
        images[i] = image_opposite(d, i * size, channels);
    zi_tensor g = zi_tensor_shaped(&images[0], 2, tokens), q = zi_tensor_shaped(&images[1], 2, tokens);
    zi_tensor k = zi_tensor_shaped(&images[2], 2, tokens), v = zi_tensor_shaped(&images[3], 2, tokens); /* [h w, C] */

    ZI_TRY(normalize(d, &affine, &d->x, &model->attention_norm));
    ZI_TRY(table->channel_affine(d->run, &images[0], &d->x, &affine));
    ZI_TRY(zi_linear(d->run, &q, &g, model->to_q.weight, model->to_q.bias));
    ZI_TRY(zi_linear(d->run, &k, &g, model->to_k.weight, model->to_k.bias));
    ZI_TRY(zi_linear(d->run, &v, &g, model->to_v.weight, model->to_v.bias));
    ZI_TRY(table->attention(d->run, &q, &q, &k, &v, &shape));
    ZI_TRY(zi_linear_add(d->run, &x, &q, model->to_out.weight, model->to_out.bias));
    table->release(d->run, mark);
    return ZIMAGE_OK;
}

/* x <- conv(nearest-neighbour doubling of x) */
static zimage_status run_upsampler(decoder *d, int64_t level)
{
    zi_tensor y = image_at(d, !d->end, 0, 2 * d->x.shape[0], 2 * d->x.shape[1], d->x.shape[2]);
    ZI_TRY(convolve(d, &y, &d->x, &d->model->upsamplers[level], NULL, 1, 0));
    replace_x(d, y);
    return zi_end_block(d->run, &d->x, "vae decoder.up_blocks.%d.upsamplers.0", (int)level);
}

static zimage_status run_resnets(decoder *d, int64_t level, int64_t first)
{
    for (int64_t i = first; i <= d->model->config.layers_per_block; i++) {
        ZI_TRY(run_resnet(d, &level_resnets(d->model, level)[i]));
        ZI_TRY(zi_end_block(d->run, &d->x, "vae decoder.up_blocks.%d.resnets.%d", (int)level, (int)i));
    }
    return ZIMAGE_OK;
}

/* ---- the last level, in bands of rows ---------------------------------------------------------------------------- */

typedef struct bands {
    const zi_vae_affine *upsampler;
    int64_t rows, columns, channels; /* of the upsampled image, never whole in memory unless it is one band */
    int64_t band_rows;
    zi_tensor buffer; /* [band_rows + 2 (a halo row above and below), columns, channels] */
} bands;

/* Rows of a band: as told, or the whole where it is small, else what BAND_BYTES hold. */
static int64_t choose_band_rows(const decoder *d, int64_t rows, int64_t columns, int64_t channels)
{
    int64_t row_bytes = columns * channels * (int64_t)sizeof(float), told = d->band_rows;
    int64_t whole = max64(WHOLE_BYTES, (int64_t)zi_table(d->run)->whole_image_bytes(d->run->ops));
    int64_t chosen = told > 0 ? told : rows * row_bytes <= whole ? rows : BAND_BYTES / row_bytes - 2;
    chosen = max64(chosen, 1);
    return chosen < rows ? chosen : rows;
}

static zimage_status open_bands(decoder *d, bands *b, int64_t level)
{
    b->upsampler = &d->model->upsamplers[level - 1];
    b->rows = 2 * d->x.shape[0];
    b->columns = 2 * d->x.shape[1];
    b->channels = d->x.shape[2];
    b->band_rows = choose_band_rows(d, b->rows, b->columns, b->channels);
    int64_t buffer_rows = b->band_rows < b->rows ? b->band_rows + 2 : b->rows;
    return zi_alloc3(d->run, &b->buffer, buffer_rows < b->rows ? buffer_rows : b->rows, b->columns, b->channels);
}

/* Rows [first, first + count) of the upsampled image, into the buffer. */
static zimage_status upsample_band(decoder *d, const bands *b, int64_t first, int64_t count, zi_tensor *band)
{
    zi_conv conv = zi_conv_same(b->upsampler->weight, b->upsampler->bias);
    conv.upsample = 1;
    conv.y_row = first;
    conv.image_rows = d->x.shape[0];
    *band = zi_tensor_rows(&b->buffer, 0, count);
    return zi_table(d->run)->conv2d(d->run, band, &d->x, &conv);
}

static zimage_status check_band(decoder *d, const zi_tensor *band, int64_t level)
{
    return zi_check_block(d->run, band, "vae decoder.up_blocks.%d.upsamplers.0", (int)(level - 1));
}

/* First pass: norm1 of the upsampled image. Where it is one band the buffer then holds it. */
static zimage_status normalize_bands(decoder *d, const bands *b, int64_t level, zi_channel_affine *affine,
                                     const zi_vae_affine *norm)
{
    ZI_TRY(alloc_affine(d, affine, b->channels));
    for (int64_t row = 0; row < b->rows; row += b->band_rows) {
        zi_tensor band;
        int64_t count = b->rows - row < b->band_rows ? b->rows - row : b->band_rows;
        ZI_TRY(upsample_band(d, b, row, count, &band));
        ZI_TRY(check_band(d, &band, level));
        ZI_TRY(zi_table(d->run)->group_norm_sums(d->run, &d->sums, &band, row > 0));
    }
    return fold_norm(d, affine, b->rows * b->columns * b->channels, norm);
}

/* Rows [row, row + count) of y <- conv(x), where `band` holds x's rows from `band_row` on. */
static zimage_status convolve_band(decoder *d, zi_tensor *y, int64_t row, int64_t count, const zi_tensor *band,
                                   int64_t band_row, const zi_vae_affine *weights, const zi_channel_affine *affine)
{
    zi_conv conv = zi_conv_same(weights->weight, weights->bias);
    conv.affine = affine;
    conv.x_row = band_row;
    conv.y_row = row;
    conv.image_rows = y->shape[0];
    zi_tensor rows = zi_tensor_rows(y, row, count);
    return zi_table(d->run)->conv2d(d->run, &rows, band, &conv);
}

/* Second pass: h = conv1(SiLU(norm1(up))), y = conv_shortcut(up), band by band. */
static zimage_status consume_bands(decoder *d, const bands *b, const zi_vae_resnet *resnet,
                                   const zi_channel_affine *affine, zi_tensor *h, zi_tensor *y)
{
    for (int64_t row = 0; row < b->rows; row += b->band_rows) {
        int64_t count = b->rows - row < b->band_rows ? b->rows - row : b->band_rows;
        int64_t first = row > 0 ? row - 1 : 0, end = row + count < b->rows ? row + count + 1 : b->rows;
        zi_tensor band = b->buffer;
        if (b->band_rows < b->rows)
            ZI_TRY(upsample_band(d, b, first, end - first, &band));
        ZI_TRY(convolve_band(d, h, row, count, &band, first, &resnet->conv1, affine));
        ZI_TRY(convolve_band(d, y, row, count, &band, first, &resnet->conv_shortcut, NULL));
    }
    return ZIMAGE_OK;
}

/* Upsampler of the level before and the first resnet of this one, without storing what lies between. */
static zimage_status run_streamed_resnet(decoder *d, int64_t level)
{
    const zi_vae_resnet *resnet = &level_resnets(d->model, level)[0];
    zi_arena_mark mark = zi_table(d->run)->mark(d->run);
    int64_t channels = resnet->out_channels;
    zi_channel_affine affine;
    bands b;
    ZI_TRY(open_bands(d, &b, level));
    zi_tensor y = image_at(d, !d->end, 0, b.rows, b.columns, channels);
    zi_tensor h = image_at(d, !d->end, image_size(b.rows, b.columns, channels), b.rows, b.columns, channels);

    ZI_TRY(normalize_bands(d, &b, level, &affine, &resnet->norm1));
    ZI_TRY(consume_bands(d, &b, resnet, &affine, &h, &y));
    zi_table(d->run)->release(d->run, mark);
    ZI_TRY(add_second_half(d, resnet, &y, &h));
    zi_table(d->run)->release(d->run, mark);
    replace_x(d, y);
    return zi_end_block(d->run, &d->x, "vae decoder.up_blocks.%d.resnets.0", (int)level);
}

/* ---- decoding ---------------------------------------------------------------------------------------------------- */

/* x <- latents / scaling_factor + shift_factor in float32, channels last; docs/spec/vae.md 5. NULL: a rehearsal. */
static zimage_status load_latents(decoder *d, const float *latents, int64_t rows, int64_t columns)
{
    const zi_vae_config *config = &d->model->config;
    int64_t pixels = rows * columns, channels = config->latent_channels;
    size_t bytes = (size_t)(pixels * channels) * sizeof(float);
    float scaling = (float)config->scaling_factor, shift = (float)config->shift_factor;
    d->end = LOW_END;
    d->x = image_at(d, LOW_END, 0, rows, columns, channels);
    if (!latents)
        return zi_table(d->run)->upload(d->run, &d->x, NULL);
    float *z = malloc(bytes);
    if (!z)
        return zi_fail_memory(d->run->error, "latents", bytes);
    for (int64_t c = 0; c < channels; c++)
        for (int64_t i = 0; i < pixels; i++)
            z[i * channels + c] = latents[c * pixels + i] / scaling + shift;
    zimage_status status = zi_table(d->run)->upload(d->run, &d->x, z);
    free(z);
    return status;
}

static zimage_status run_conv_in(decoder *d)
{
    const zi_vae *model = d->model;
    if (model->config.use_post_quant_conv) {
        zi_tensor y = image_opposite(d, 0, model->config.latent_channels);
        ZI_TRY(convolve(d, &y, &d->x, &model->post_quant_conv, NULL, 0, 0));
        replace_x(d, y);
    }
    zi_tensor y = image_opposite(d, 0, level_channels(&model->config, 0));
    ZI_TRY(convolve(d, &y, &d->x, &model->conv_in, NULL, 0, 0));
    replace_x(d, y);
    return zi_end_block(d->run, &d->x, "vae decoder.conv_in");
}

static zimage_status run_mid_block(decoder *d)
{
    ZI_TRY(run_resnet(d, &d->model->mid[0]));
    ZI_TRY(zi_end_block(d->run, &d->x, "vae decoder.mid_block.resnets.0"));
    if (d->model->config.mid_block_add_attention) {
        ZI_TRY(run_attention(d));
        ZI_TRY(zi_end_block(d->run, &d->x, "vae decoder.mid_block.attentions.0"));
    }
    ZI_TRY(run_resnet(d, &d->model->mid[1]));
    return zi_end_block(d->run, &d->x, "vae decoder.mid_block.resnets.1");
}

static zimage_status run_levels(decoder *d)
{
    int64_t levels = d->model->config.levels;
    for (int64_t level = 0; level < levels; level++) {
        int streams = level == levels - 1 && last_level_streams(d->model);
        if (streams)
            ZI_TRY(run_streamed_resnet(d, level));
        else if (level > 0)
            ZI_TRY(run_upsampler(d, level - 1));
        ZI_TRY(run_resnets(d, level, streams ? 1 : 0));
    }
    return ZIMAGE_OK;
}

/* rgb, rgb8 = conv_out(SiLU(conv_norm_out(x))), in bands */
static zimage_status run_conv_out(decoder *d, float *rgb, uint8_t *rgb8)
{
    int64_t rows = d->x.shape[0], columns = d->x.shape[1], band_rows = choose_band_rows(d, rows, columns, 3);
    zi_channel_affine affine;
    zi_tensor buffer, y; /* [band_rows, columns, 3] */
    ZI_TRY(normalize(d, &affine, &d->x, &d->model->conv_norm_out));
    ZI_TRY(zi_alloc3_f32(d->run, &buffer, band_rows, columns, 3));
    for (int64_t row = 0; row < rows; row += band_rows) {
        int64_t count = rows - row < band_rows ? rows - row : band_rows;
        zi_conv conv = zi_conv_same(d->model->conv_out.weight, d->model->conv_out.bias);
        conv.affine = &affine;
        conv.y_row = row;
        conv.image_rows = rows;
        y = zi_tensor_rows(&buffer, 0, count);
        ZI_TRY(zi_table(d->run)->conv2d(d->run, &y, &d->x, &conv));
        ZI_TRY(zi_check_block(d->run, &y, "vae decoder.conv_out"));
        if (rgb)
            ZI_TRY(zi_table(d->run)->download(d->run, rgb + row * columns * 3, &y));
        if (rgb8)
            ZI_TRY(zi_table(d->run)->download_rgb8(d->run, rgb8 + row * columns * 3, &y));
    }
    return zi_end_block(d->run, &y, "vae decoder.conv_out");
}

static zimage_status decode(decoder *d, const float *latents, int64_t rows, int64_t columns, float *rgb, uint8_t *rgb8)
{
    ZI_TRY(zi_alloc2_f32(d->run, &d->sums, d->model->config.norm_num_groups, 4));
    ZI_TRY(zi_alloc1(d->run, &d->region, region_size(d->model, rows, columns)));
    ZI_TRY(load_latents(d, latents, rows, columns));
    ZI_TRY(run_conv_in(d));
    ZI_TRY(run_mid_block(d));
    ZI_TRY(run_levels(d));
    return run_conv_out(d, rgb, rgb8);
}

zimage_status zi_vae_decode(const zi_vae *model, zi_run *run, const float *latents, int64_t rows, int64_t columns,
                            int64_t band_rows, float *rgb, uint8_t *rgb8)
{
    if (rows < 1 || columns < 1 || rows > MAX_LATENT_SIDE || columns > MAX_LATENT_SIDE)
        return zi_fail(run->error, ZIMAGE_ERROR_ARGUMENT,
                       "latents of %lld x %lld (columns x rows) can't be decoded, each side must be 1 to %d",
                       (long long)columns, (long long)rows, MAX_LATENT_SIDE);
    decoder d = {.model = model, .run = run, .band_rows = band_rows};
    zi_arena_mark mark = zi_table(run)->mark(run);
    zimage_status status = decode(&d, latents, rows, columns, rgb, rgb8);
    zi_table(run)->release(run, mark);
    return status;
}

int64_t zi_vae_decode_blocks(const zi_vae *model)
{
    const zi_vae_config *config = &model->config;
    int64_t mid = 2 + (config->mid_block_add_attention ? 1 : 0);
    int64_t upsamplers = config->levels - 1 - (last_level_streams(model) ? 1 : 0);
    return 1 + mid + config->levels * (config->layers_per_block + 1) + upsamplers + 1; /* conv_in ... conv_out */
}
