/*
 * The decoder of AutoencoderKL. Formulas: docs/spec/vae.md 2, 3, 5, 6; reference: diffusers, models/autoencoders/vae.py
 * (Decoder), models/unets/unet_2d_blocks.py (UNetMidBlock2D, UpDecoderBlock2D), models/resnet.py (ResnetBlock2D).
 *
 * Memory. All full images live in one region with two ends. The current image x lies at one end; a block that replaces
 * it writes its result y at the other end, and the inner image h beside y, so that afterwards everything but y is free
 * again. A block therefore needs x + h + y, or x + h where it works in place (h is written whole before conv2 adds to
 * x). The last level is different: its input, the upsampled image with the channels of the level before, would be the
 * widest of all. It is never stored: each band of its rows is computed when needed, once for norm1's sums and once for
 * conv1 and conv_shortcut. With P output pixels and the published widths (128, 256, 512, 512), in float32 numbers:
 *   up_blocks.2.resnets.0   P/4 (512 + 256 + 256)      = 256 P
 *   up_blocks.3.resnets.0   P/4 256 + P (128 + 128)    = 320 P   + the band: at most BAND_BYTES
 *   up_blocks.3.resnets.1   P (128 + 128)              = 256 P
 * so 1280 P bytes and the band: 80 MiB at 256 x 256, 1.25 GiB at 1024 x 1024, 5 GiB at 2048 x 2048. An upsampled image
 * of at most WHOLE_BYTES is one band, computed once.
 */
#include "model/vae.h"

#include <stdlib.h>
#include <string.h>

#include "base/numbers.h"

#define MAX_LATENT_SIDE (1 << 14) /* keeps every product of sizes far below 2^63 */
#define MAX_CHANNELS    (1 << 13)
#define WHOLE_BYTES     ((int64_t)256 << 20)
#define BAND_BYTES      ((int64_t)64 << 20)

/* ---- configuration ----------------------------------------------------------------------------------------------- */

const char *const zi_vae_fields[] = {"out_channels", "up_block_types", "block_out_channels", "layers_per_block",
                                     "act_fn", "latent_channels", "norm_num_groups", "scaling_factor", "shift_factor",
                                     "latents_mean", "latents_std", "use_post_quant_conv", "mid_block_add_attention",
                                     "sample_size", "decoder_block_out_channels",
                                     /* of the encoder, and of memory */
                                     "in_channels", "down_block_types", "use_quant_conv", "force_upcast", NULL};

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

static zimage_status refuse_variants(const zi_json_reader *json)
{
    ZI_TRY(zi_require_string(json, "_class_name", "AutoencoderKL"));
    ZI_TRY(zi_require_silu(json, "act_fn"));
    ZI_TRY(zi_require_null(json, "decoder_block_out_channels"));
    ZI_TRY(zi_require_null(json, "latents_mean"));
    ZI_TRY(zi_require_null(json, "latents_std"));
    return zi_refuse_quantization(json);
}

static zimage_status load_levels(const zi_json_reader *json, zi_vae_config *config)
{
    size_t levels = 1;
    config->block_out_channels[0] = 64;
    if (!zi_field_is_default(json, "block_out_channels"))
        ZI_TRY(zi_json_int_array(json, "block_out_channels", 1, MAX_CHANNELS, config->block_out_channels,
                                 ZI_VAE_MAX_LEVELS, &levels));
    config->levels = (int64_t)levels;
    config->scale_factor = (int64_t)1 << (levels - 1);
    ZI_TRY(zi_field_int(json, "norm_num_groups", 1, MAX_CHANNELS, 32, &config->norm_num_groups));
    for (size_t i = 0; i < levels; i++)
        if (config->block_out_channels[i] % config->norm_num_groups != 0)
            return zi_fail(json->error, ZIMAGE_ERROR_MODEL,
                           "%s: norm_num_groups %lld does not divide block_out_channels[%zu], %lld", json->path,
                           (long long)config->norm_num_groups, i, (long long)config->block_out_channels[i]);
    ZI_TRY(check_block_types(json, "down_block_types", "DownEncoderBlock2D", config->levels));
    return check_block_types(json, "up_block_types", "UpDecoderBlock2D", config->levels);
}

/* The defaults are those of AutoencoderKL. shift_factor has none that the pipeline can use: it adds the number. */
static zimage_status read_config(const zi_json_reader *json, void *out)
{
    zi_vae_config *config = out;
    ZI_TRY(refuse_variants(json));
    ZI_TRY(load_levels(json, config));
    ZI_TRY(zi_field_int(json, "latent_channels", 1, 4096, 4, &config->latent_channels));
    ZI_TRY(zi_field_int(json, "out_channels", 1, 4096, 3, &config->out_channels));
    if (config->out_channels != 3)
        return zi_fail(json->error, ZIMAGE_ERROR_UNSUPPORTED, "%s: out_channels is %lld, only 3 (RGB) is supported",
                       json->path, (long long)config->out_channels);
    ZI_TRY(zi_field_int(json, "layers_per_block", 1, 64, 1, &config->layers_per_block));
    ZI_TRY(zi_field_number(json, "scaling_factor", 1e-6, 1e6, 0.18215, &config->scaling_factor));
    ZI_TRY(zi_json_number(json, "shift_factor", -1e6, 1e6, NULL, &config->shift_factor));
    ZI_TRY(zi_field_bool(json, "mid_block_add_attention", 1, &config->mid_block_add_attention));
    return zi_field_bool(json, "use_post_quant_conv", 1, &config->use_post_quant_conv);
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
    bind_norm(binder, &model->attention.norm, channels, prefix, "group_norm");
    bind_linear(binder, &model->attention.to_q, channels, prefix, "to_q", "query");
    bind_linear(binder, &model->attention.to_k, channels, prefix, "to_k", "key");
    bind_linear(binder, &model->attention.to_v, channels, prefix, "to_v", "value");
    bind_linear(binder, &model->attention.to_out, channels, prefix, "to_out.0", "proj_attn");
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

/* ---- memory ------------------------------------------------------------------------------------------------------ */

typedef struct decoder {
    const zi_vae *model;
    zi_vae_canvas c;
    int64_t band_rows; /* of the last level; 0 = choose */
} decoder;

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
    int64_t first = zi_vae_image_size(rows, columns, level_channels(config, 0));
    int64_t latents = zi_vae_image_size(rows, columns, config->latent_channels);
    /* conv_in; attention: x, g, q, k, v */
    int64_t size = zi_max_int64(latents + zi_max_int64(latents, first), 5 * first);
    for (int64_t level = 0; level < config->levels; level++) {
        int64_t channels = level_channels(config, level), before = level_channels(config, level > 0 ? level - 1 : 0);
        int64_t scale = (int64_t)1 << level;
        int64_t in = zi_vae_image_size(rows * scale, columns * scale, before);
        int64_t out = zi_vae_image_size(rows * scale, columns * scale, channels);
        int streams = level == config->levels - 1 && last_level_streams(model);
        if (level > 0) {
            int64_t small = zi_vae_image_size(rows * scale / 2, columns * scale / 2, before);
            size = zi_max_int64(size, streams ? small + 2 * out : small + in);
        }
        if (!streams && before != channels)
            size = zi_max_int64(size, in + 2 * out);
        size = zi_max_int64(size, 2 * out);
    }
    return size;
}

/* ---- blocks ------------------------------------------------------------------------------------------------------ */

/* x <- conv(nearest-neighbour doubling of x) */
static zimage_status run_upsampler(decoder *d, int64_t level)
{
    zi_tensor y = zi_vae_image_at(&d->c, !d->c.end, 0, 2 * d->c.x.shape[0], 2 * d->c.x.shape[1], d->c.x.shape[2]);
    ZI_TRY(zi_vae_convolve(&d->c, &y, &d->c.x, &d->model->upsamplers[level], NULL, 1, 0));
    zi_vae_replace_x(&d->c, y);
    return zi_end_block(d->c.run, &d->c.x, "vae decoder.up_blocks.%d.upsamplers.0", (int)level);
}

static zimage_status run_resnets(decoder *d, int64_t level, int64_t first)
{
    for (int64_t i = first; i <= d->model->config.layers_per_block; i++) {
        ZI_TRY(zi_vae_run_resnet(&d->c, &level_resnets(d->model, level)[i]));
        ZI_TRY(zi_end_block(d->c.run, &d->c.x, "vae decoder.up_blocks.%d.resnets.%d", (int)level, (int)i));
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

/* Rows of a band: as the caller chose, or all rows of a small image, else as many as BAND_BYTES hold. */
static int64_t choose_band_rows(const decoder *d, int64_t rows, int64_t columns, int64_t channels)
{
    int64_t row_bytes = columns * channels * (int64_t)sizeof(float), asked = d->band_rows;
    int64_t whole = zi_max_int64(WHOLE_BYTES, (int64_t)zi_table(d->c.run)->whole_image_bytes(d->c.run->ops));
    int64_t chosen = asked > 0 ? asked : rows * row_bytes <= whole ? rows : BAND_BYTES / row_bytes - 2;
    return zi_min_int64(zi_max_int64(chosen, 1), rows);
}

static zimage_status open_bands(decoder *d, bands *b, int64_t level)
{
    b->upsampler = &d->model->upsamplers[level - 1];
    b->rows = 2 * d->c.x.shape[0];
    b->columns = 2 * d->c.x.shape[1];
    b->channels = d->c.x.shape[2];
    b->band_rows = choose_band_rows(d, b->rows, b->columns, b->channels);
    return zi_alloc3(d->c.run, &b->buffer, zi_min_int64(b->band_rows + 2, b->rows), b->columns, b->channels);
}

/* Rows [first, first + count) of the upsampled image, into the buffer. */
static zimage_status upsample_band(decoder *d, const bands *b, int64_t first, int64_t count, zi_tensor *band)
{
    zi_conv conv = zi_conv_same(b->upsampler->weight, b->upsampler->bias);
    conv.upsample = 1;
    conv.y_row = first;
    conv.image_rows = d->c.x.shape[0];
    *band = zi_tensor_rows(&b->buffer, 0, count);
    return zi_table(d->c.run)->conv2d(d->c.run, band, &d->c.x, &conv);
}

static zimage_status check_band(decoder *d, const zi_tensor *band, int64_t level)
{
    return zi_check_block(d->c.run, band, "vae decoder.up_blocks.%d.upsamplers.0", (int)(level - 1));
}

/* First pass: norm1 of the upsampled image. Where it is one band the buffer then holds it. */
static zimage_status normalize_bands(decoder *d, const bands *b, int64_t level, zi_channel_affine *affine,
                                     const zi_vae_affine *norm)
{
    ZI_TRY(zi_vae_alloc_affine(&d->c, affine, b->channels));
    for (int64_t row = 0; row < b->rows; row += b->band_rows) {
        zi_tensor band;
        int64_t count = zi_min_int64(b->band_rows, b->rows - row);
        ZI_TRY(upsample_band(d, b, row, count, &band));
        ZI_TRY(check_band(d, &band, level));
        ZI_TRY(zi_table(d->c.run)->group_norm_sums(d->c.run, &d->c.sums, &band, row > 0));
    }
    return zi_vae_fold_norm(&d->c, affine, b->rows * b->columns * b->channels, norm);
}

/* Rows [first, first + its rows) of an image. */
typedef struct band {
    zi_tensor rows;
    int64_t first;
} band;

/* Rows [row, row + count) of y <- conv(x), of which `from` holds the rows that they read. */
static zimage_status convolve_band(decoder *d, zi_tensor *y, int64_t row, int64_t count, const band *from,
                                   const zi_vae_affine *weights, const zi_channel_affine *affine)
{
    zi_conv conv = zi_conv_same(weights->weight, weights->bias);
    conv.affine = affine;
    conv.x_row = from->first;
    conv.y_row = row;
    conv.image_rows = y->shape[0];
    zi_tensor rows = zi_tensor_rows(y, row, count);
    return zi_table(d->c.run)->conv2d(d->c.run, &rows, &from->rows, &conv);
}

/* Second pass: h = conv1(SiLU(norm1(up))), y = conv_shortcut(up), band by band. */
static zimage_status consume_bands(decoder *d, const bands *b, const zi_vae_resnet *resnet,
                                   const zi_channel_affine *affine, zi_tensor *h, zi_tensor *y)
{
    for (int64_t row = 0; row < b->rows; row += b->band_rows) {
        int64_t count = zi_min_int64(b->band_rows, b->rows - row);
        int64_t first = zi_max_int64(row - 1, 0), end = zi_min_int64(row + count + 1, b->rows);
        band from = {b->buffer, first};
        if (b->band_rows < b->rows)
            ZI_TRY(upsample_band(d, b, first, end - first, &from.rows));
        ZI_TRY(convolve_band(d, h, row, count, &from, &resnet->conv1, affine));
        ZI_TRY(convolve_band(d, y, row, count, &from, &resnet->conv_shortcut, NULL));
    }
    return ZIMAGE_OK;
}

/* Upsampler of the level before and the first resnet of this one, without storing what lies between. */
static zimage_status run_streamed_resnet(decoder *d, int64_t level)
{
    const zi_vae_resnet *resnet = &level_resnets(d->model, level)[0];
    zi_arena_mark mark = zi_table(d->c.run)->mark(d->c.run);
    int64_t channels = resnet->out_channels;
    zi_channel_affine affine;
    bands b;
    ZI_TRY(open_bands(d, &b, level));
    zi_tensor y = zi_vae_image_at(&d->c, !d->c.end, 0, b.rows, b.columns, channels);
    zi_tensor h =
        zi_vae_image_at(&d->c, !d->c.end, zi_vae_image_size(b.rows, b.columns, channels), b.rows, b.columns, channels);

    ZI_TRY(normalize_bands(d, &b, level, &affine, &resnet->norm1));
    ZI_TRY(consume_bands(d, &b, resnet, &affine, &h, &y));
    zi_table(d->c.run)->release(d->c.run, mark);
    ZI_TRY(zi_vae_add_second_half(&d->c, resnet, &y, &h));
    zi_table(d->c.run)->release(d->c.run, mark);
    zi_vae_replace_x(&d->c, y);
    return zi_end_block(d->c.run, &d->c.x, "vae decoder.up_blocks.%d.resnets.0", (int)level);
}

/* ---- decoding ---------------------------------------------------------------------------------------------------- */

/* x <- latents / scaling_factor + shift_factor in float32, channels last; docs/spec/vae.md 5. NULL: a rehearsal. */
static zimage_status load_latents(decoder *d, const float *latents, int64_t rows, int64_t columns)
{
    const zi_vae_config *config = &d->model->config;
    int64_t pixels = rows * columns, channels = config->latent_channels;
    size_t bytes = (size_t)(pixels * channels) * sizeof(float);
    float scaling = (float)config->scaling_factor, shift = (float)config->shift_factor;
    d->c.end = ZI_VAE_LOW_END;
    d->c.x = zi_vae_image_at(&d->c, ZI_VAE_LOW_END, 0, rows, columns, channels);
    if (!latents)
        return zi_table(d->c.run)->upload(d->c.run, &d->c.x, NULL);
    float *z = malloc(bytes);
    if (!z)
        return zi_fail_memory(d->c.run->error, "latents", bytes);
    for (int64_t c = 0; c < channels; c++)
        for (int64_t i = 0; i < pixels; i++)
            z[i * channels + c] = latents[c * pixels + i] / scaling + shift;
    zimage_status status = zi_table(d->c.run)->upload(d->c.run, &d->c.x, z);
    free(z);
    return status;
}

static zimage_status run_conv_in(decoder *d)
{
    const zi_vae *model = d->model;
    if (model->config.use_post_quant_conv) {
        zi_tensor y = zi_vae_image_opposite(&d->c, 0, model->config.latent_channels);
        ZI_TRY(zi_vae_convolve(&d->c, &y, &d->c.x, &model->post_quant_conv, NULL, 0, 0));
        zi_vae_replace_x(&d->c, y);
    }
    zi_tensor y = zi_vae_image_opposite(&d->c, 0, level_channels(&model->config, 0));
    ZI_TRY(zi_vae_convolve(&d->c, &y, &d->c.x, &model->conv_in, NULL, 0, 0));
    zi_vae_replace_x(&d->c, y);
    return zi_end_block(d->c.run, &d->c.x, "vae decoder.conv_in");
}

static zimage_status run_mid_block(decoder *d)
{
    ZI_TRY(zi_vae_run_resnet(&d->c, &d->model->mid[0]));
    ZI_TRY(zi_end_block(d->c.run, &d->c.x, "vae decoder.mid_block.resnets.0"));
    if (d->model->config.mid_block_add_attention) {
        ZI_TRY(zi_vae_run_attention(&d->c, &d->model->attention));
        ZI_TRY(zi_end_block(d->c.run, &d->c.x, "vae decoder.mid_block.attentions.0"));
    }
    ZI_TRY(zi_vae_run_resnet(&d->c, &d->model->mid[1]));
    return zi_end_block(d->c.run, &d->c.x, "vae decoder.mid_block.resnets.1");
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
static zimage_status run_conv_out(decoder *d, const zi_vae_output *out)
{
    int64_t rows = d->c.x.shape[0], columns = d->c.x.shape[1], band_rows = choose_band_rows(d, rows, columns, 3);
    zi_channel_affine affine;
    zi_tensor buffer, y; /* [band_rows, columns, 3] */
    ZI_TRY(zi_vae_normalize(&d->c, &affine, &d->c.x, &d->model->conv_norm_out));
    ZI_TRY(zi_alloc3_f32(d->c.run, &buffer, band_rows, columns, 3));
    for (int64_t row = 0; row < rows; row += band_rows) {
        int64_t count = zi_min_int64(band_rows, rows - row);
        zi_conv conv = zi_conv_same(d->model->conv_out.weight, d->model->conv_out.bias);
        conv.affine = &affine;
        conv.y_row = row;
        conv.image_rows = rows;
        y = zi_tensor_rows(&buffer, 0, count);
        ZI_TRY(zi_table(d->c.run)->conv2d(d->c.run, &y, &d->c.x, &conv));
        ZI_TRY(zi_check_block(d->c.run, &y, "vae decoder.conv_out"));
        if (out->rgb)
            ZI_TRY(zi_table(d->c.run)->download(d->c.run, out->rgb + row * columns * 3, &y));
        if (out->rgb8)
            ZI_TRY(zi_table(d->c.run)->download_rgb8(d->c.run, out->rgb8 + row * columns * 3, &y));
    }
    return zi_end_block(d->c.run, &y, "vae decoder.conv_out");
}

static zimage_status decode(decoder *d, const float *latents, int64_t rows, int64_t columns, const zi_vae_output *out)
{
    ZI_TRY(zi_alloc2_f32(d->c.run, &d->c.sums, d->model->config.norm_num_groups, 4));
    ZI_TRY(zi_alloc1(d->c.run, &d->c.region, region_size(d->model, rows, columns)));
    ZI_TRY(load_latents(d, latents, rows, columns));
    ZI_TRY(run_conv_in(d));
    ZI_TRY(run_mid_block(d));
    ZI_TRY(run_levels(d));
    return run_conv_out(d, out);
}

zimage_status zi_vae_decode(const zi_vae *model, zi_run *run, const float *latents, int64_t rows, int64_t columns,
                            int64_t band_rows, const zi_vae_output *out)
{
    if (rows < 1 || columns < 1 || rows > MAX_LATENT_SIDE || columns > MAX_LATENT_SIDE)
        return zi_fail(run->error, ZIMAGE_ERROR_ARGUMENT,
                       "the latents are %lld x %lld (columns x rows), expected 1 to %d each way", (long long)columns,
                       (long long)rows, MAX_LATENT_SIDE);
    decoder d = {.model = model, .c = {.run = run, .groups = model->config.norm_num_groups}, .band_rows = band_rows};
    zi_arena_mark mark = zi_table(run)->mark(run);
    zimage_status status = decode(&d, latents, rows, columns, out);
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
