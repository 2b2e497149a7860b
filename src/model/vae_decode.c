/*
 * Decoding, of both kinds of VAE. Formulas: docs/spec/vae.md 2, 3, 5, 6; reference: diffusers,
 * models/autoencoders/vae.py (Decoder), models/unets/unet_2d_blocks.py (UNetMidBlock2D, UpDecoderBlock2D),
 * models/resnet.py (ResnetBlock2D).
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

static zi_vae_resnet *level_resnets(const zi_vae *model, int64_t level)
{
    return model->decoder.resnets + level * model->decoder.level_resnets;
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
    const int64_t *channels = model->decoder.channels;
    int64_t last = model->config.levels - 1;
    return last > 0 && channels[last] != channels[last - 1];
}

/* The largest sum of images alive at once (see the head of this file) for latents of rows x columns. */
static int64_t region_size(const zi_vae *model, int64_t rows, int64_t columns)
{
    const zi_vae_config *config = &model->config;
    int64_t first = zi_vae_image_size(rows, columns, model->decoder.channels[0]);
    int64_t latents = zi_vae_image_size(rows, columns, config->latent_channels);
    /* conv_in; attention: x, g, q, k, v */
    int64_t size = zi_max_int64(latents + zi_max_int64(latents, first), 5 * first);
    for (int64_t level = 0; level < config->levels; level++) {
        int64_t channels = model->decoder.channels[level], before = model->decoder.channels[level > 0 ? level - 1 : 0];
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
    ZI_TRY(zi_vae_convolve(&d->c, &y, &d->c.x, &d->model->decoder.samplers[level], NULL, 1, 0));
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

static zimage_status open_bands(decoder *d, bands *b, int64_t level)
{
    b->upsampler = &d->model->decoder.samplers[level - 1];
    b->rows = 2 * d->c.x.shape[0];
    b->columns = 2 * d->c.x.shape[1];
    b->channels = d->c.x.shape[2];
    b->band_rows = zi_vae_band_rows(&d->c, d->band_rows, b->rows, b->columns, b->channels);
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

/* Second pass: h = conv1(SiLU(norm1(up))), y = conv_shortcut(up), band by band. */
static zimage_status consume_bands(decoder *d, const bands *b, const zi_vae_resnet *resnet,
                                   const zi_channel_affine *affine, zi_tensor *h, zi_tensor *y)
{
    for (int64_t row = 0; row < b->rows; row += b->band_rows) {
        int64_t count = zi_min_int64(b->band_rows, b->rows - row);
        int64_t first = zi_max_int64(row - 1, 0), end = zi_min_int64(row + count + 1, b->rows);
        zi_vae_band from = {b->buffer, first};
        if (b->band_rows < b->rows)
            ZI_TRY(upsample_band(d, b, first, end - first, &from.rows));
        ZI_TRY(zi_vae_convolve_band(&d->c, h, row, count, &from, &resnet->conv1, affine));
        ZI_TRY(zi_vae_convolve_band(&d->c, y, row, count, &from, &resnet->conv_shortcut, NULL));
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

/* A value of latents in the decoder's range; docs/spec/vae.md 5. */
static float denormalized(const zi_vae *model, float value, int64_t channel)
{
    if (model->mean)
        return value * model->deviation[channel] + model->mean[channel];
    return value / (float)model->config.scaling_factor + (float)model->config.shift_factor;
}

/* z [count, columns, channels] <- rows [first, first + count) of the latents, in the decoder's range and grid */
static void take_rows(const decoder *d, const float *latents, int64_t first, int64_t count, float *z)
{
    int64_t rows = d->c.x.shape[0], columns = d->c.x.shape[1], channels = d->c.x.shape[2], channel;
    int64_t patch = d->model->config.patch;
    for (int64_t row = 0; row < count; row++)
        for (int64_t i = 0; i < channels * patch; i++) {
            const int64_t place[] = {i / patch, first + row, i % patch};
            const float *in = latents + zi_vae_latent_index(&d->model->config, place, rows, columns, &channel);
            float *out = z + (row * columns + i % patch) * channels + i / patch;
            for (int64_t x = 0; x < columns / patch; x++)
                out[x * patch * channels] = denormalized(d->model, in[x], channel);
        }
}

/* x <- latents in the decoder's range and grid [rows, columns], in float32, channels last. NULL: a rehearsal. */
static zimage_status load_latents(decoder *d, const float *latents, int64_t rows, int64_t columns)
{
    int64_t row_count = columns * d->model->config.latent_channels, part = zi_vae_host_rows(rows, row_count);
    size_t bytes = (size_t)(part * row_count) * sizeof(float);
    zimage_status status = ZIMAGE_OK;
    float *z = NULL;
    d->c.end = ZI_VAE_LOW_END;
    d->c.x = zi_vae_image_at(&d->c, ZI_VAE_LOW_END, 0, rows, columns, d->model->config.latent_channels);
    if (latents && !(z = malloc(bytes)))
        return zi_fail_memory(d->c.run->error, "latents", bytes);
    for (int64_t row = 0; row < rows && status == ZIMAGE_OK; row += part) {
        int64_t count = zi_min_int64(part, rows - row);
        zi_tensor some = zi_tensor_rows(&d->c.x, row, count);
        if (latents)
            take_rows(d, latents, row, count, z);
        status = zi_table(d->c.run)->upload(d->c.run, &some, z);
    }
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
    zi_tensor y = zi_vae_image_opposite(&d->c, 0, model->decoder.channels[0]);
    ZI_TRY(zi_vae_convolve(&d->c, &y, &d->c.x, &model->decoder.conv_in, NULL, 0, 0));
    zi_vae_replace_x(&d->c, y);
    return zi_end_block(d->c.run, &d->c.x, "vae decoder.conv_in");
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
    const zi_vae_affine *conv_out = &d->model->decoder.conv_out;
    int64_t rows = d->c.x.shape[0], columns = d->c.x.shape[1];
    int64_t band_rows = zi_vae_band_rows(&d->c, d->band_rows, rows, columns, 3);
    zi_channel_affine affine;
    zi_tensor buffer, y; /* [band_rows, columns, 3] */
    ZI_TRY(zi_vae_normalize(&d->c, &affine, &d->c.x, &d->model->decoder.conv_norm_out));
    ZI_TRY(zi_alloc3_f32(d->c.run, &buffer, band_rows, columns, 3));
    for (int64_t row = 0; row < rows; row += band_rows) {
        int64_t count = zi_min_int64(band_rows, rows - row);
        zi_conv conv = zi_conv_same(conv_out->weight, conv_out->bias);
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

/* The arguments of decode. */
typedef struct decoding {
    decoder *d;
    const float *latents;
    int64_t rows, columns; /* of the decoder's grid */
    const zi_vae_output *out;
} decoding;

static zimage_status decode(zi_run *run, const void *user)
{
    const decoding *of = user;
    decoder *d = of->d;
    ZI_TRY(zi_alloc2_f32(d->c.run, &d->c.sums, d->model->config.norm_num_groups, 4));
    ZI_TRY(zi_alloc1(d->c.run, &d->c.region, region_size(d->model, of->rows, of->columns)));
    ZI_TRY(load_latents(d, of->latents, of->rows, of->columns));
    ZI_TRY(run_conv_in(d));
    ZI_TRY(zi_vae_run_mid_block(&d->c, &d->model->decoder.mid, "decoder"));
    ZI_TRY(run_levels(d));
    return run_conv_out(d, of->out);
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
    const decoding of = {&d, latents, rows * model->config.patch, columns * model->config.patch, out};
    zimage_status status = zi_table(run)->repeat(run, NULL, 0, decode, &of);
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
