/*
 * Encoding, of both kinds of VAE. Formulas: docs/spec/vae.md 2, 4; reference: diffusers, models/autoencoders/vae.py
 * (Encoder, DiagonalGaussianDistribution), models/unets/unet_2d_blocks.py (DownEncoderBlock2D), models/downsampling.py,
 * image_processor.py.
 *
 * Memory. All full images live in one region with two ends, as in vae_decode.c. The image itself is uploaded in bands,
 * so that its widest form in memory is the first level's. With P image pixels and the published widths (128, 256, 512,
 * 512), in float32 numbers:
 *   down_blocks.0.resnets.0        P (128 + 128)            = 256 P
 *   down_blocks.0.downsamplers.0   P 128 + P/4 128          = 160 P
 *   down_blocks.1.resnets.0        P/4 (128 + 256 + 256)    = 160 P
 *   mid_block.attentions.0         P/64 (5 512)             =  40 P
 * so 1024 P bytes. Above the region lies what operations need. On the CPU the attention takes most: packed keys and
 * values, and a part of the result, P/64 (3 512) = 24 P. In all 1120 P bytes: 70 MiB at 256 x 256, 1.1 GiB at 1024 x
 * 1024, 4.4 GiB at 2048 x 2048, less than decoding takes.
 */
#include "model/vae.h"

#include <stdlib.h>
#include <string.h>

#include "base/numbers.h"

#define MAX_SIDE      (1 << 17)
#define RGB           3
#define LOW_VARIANCE  -30.0f /* limits of the variances' logarithms */
#define HIGH_VARIANCE 20.0f

typedef struct encoder {
    const zi_vae *model;
    zi_vae_canvas c;
} encoder;

/* The largest sum of images alive at once (see the head of this file). */
static int64_t region_size(const zi_vae *model, int64_t rows, int64_t columns)
{
    const zi_vae_half *half = &model->encoder;
    int64_t size = 0, out = 0;
    for (int64_t level = 0; level < half->levels; level++, rows /= 2, columns /= 2) {
        int64_t channels = half->channels[level], before = half->channels[level > 0 ? level - 1 : 0];
        int64_t in = zi_vae_image_size(rows, columns, before);
        if (level > 0)
            size = zi_max_int64(size, out + in); /* the downsampler */
        out = zi_vae_image_size(rows, columns, channels);
        size = zi_max_int64(size, before != channels ? in + 2 * out : 2 * out);
    }
    rows *= 2; /* of the last level */
    columns *= 2;
    /* attention: x, g, q, k, v; conv_out */
    return zi_max_int64(size, zi_max_int64(5 * out, out + zi_vae_image_size(rows, columns, half->out_channels)));
}

/* ---- the image --------------------------------------------------------------------------------------------------- */

/* Rows of pixels as numbers from -1 to 1, rounded as VaeImageProcessor of diffusers does. `values` has room for
 * zi_vae_host_rows of them. */
static zimage_status upload_rows(zi_run *run, const zi_tensor *rows, const uint8_t *rgb8, float *values)
{
    int64_t width = rows->shape[1] * RGB, part = zi_vae_host_rows(rows->shape[0], width);
    for (int64_t row = 0; row < rows->shape[0]; row += part) {
        int64_t count = zi_min_int64(part, rows->shape[0] - row);
        zi_tensor some = zi_tensor_rows(rows, row, count);
        for (int64_t i = 0; rgb8 && i < count * width; i++)
            values[i] = (float)rgb8[row * width + i] / 255.0f * 2.0f - 1.0f;
        ZI_TRY(zi_table(run)->upload(run, &some, values));
    }
    return ZIMAGE_OK;
}

/* x <- conv_in(rgb8), of which `buffer` holds some rows at a time */
static zimage_status convolve_image(encoder *e, const uint8_t *rgb8, int64_t band_rows, const zi_tensor *buffer,
                                    float *values)
{
    int64_t rows = e->c.x.shape[0], width = e->c.x.shape[1] * RGB;
    for (int64_t row = 0; row < rows; row += band_rows) {
        int64_t count = zi_min_int64(band_rows, rows - row);
        int64_t first = zi_max_int64(row - 1, 0), end = zi_min_int64(row + count + 1, rows);
        zi_vae_band from = {zi_tensor_rows(buffer, 0, end - first), first};
        ZI_TRY(upload_rows(e->c.run, &from.rows, rgb8 ? rgb8 + first * width : NULL, values));
        ZI_TRY(zi_vae_convolve_band(&e->c, &e->c.x, row, count, &from, &e->model->encoder.conv_in, NULL));
    }
    return zi_end_block(e->c.run, &e->c.x, "vae encoder.conv_in");
}

static zimage_status run_conv_in(encoder *e, const uint8_t *rgb8, int64_t rows, int64_t columns, int64_t band_rows)
{
    zi_arena_mark mark = zi_table(e->c.run)->mark(e->c.run);
    zi_tensor buffer; /* [band_rows + 2 (a halo row above and below), columns, 3] */
    float *values = NULL;
    band_rows = zi_vae_band_rows(&e->c, band_rows, rows, columns, RGB);
    ZI_TRY(zi_alloc3(e->c.run, &buffer, zi_min_int64(band_rows + 2, rows), columns, RGB));
    size_t bytes = (size_t)(zi_vae_host_rows(rows, columns * RGB) * columns * RGB) * sizeof *values;
    if (rgb8 && !(values = malloc(bytes)))
        return zi_fail_memory(e->c.run->error, "rows of an image", bytes);
    e->c.end = ZI_VAE_LOW_END;
    e->c.x = zi_vae_image_at(&e->c, ZI_VAE_LOW_END, 0, rows, columns, e->model->encoder.channels[0]);
    zimage_status status = convolve_image(e, rgb8, band_rows, &buffer, values);
    free(values);
    zi_table(e->c.run)->release(e->c.run, mark);
    return status;
}

/* ---- levels ------------------------------------------------------------------------------------------------------ */

/* x <- x in half its size: a convolution of stride 2, with zeros below and to the right only */
static zimage_status run_downsampler(encoder *e, int64_t level)
{
    const zi_vae_affine *sampler = &e->model->encoder.samplers[level];
    const zi_tensor *x = &e->c.x;
    zi_tensor y = zi_vae_image_at(&e->c, !e->c.end, 0, x->shape[0] / 2, x->shape[1] / 2, x->shape[2]);
    zi_conv conv = {.weight = sampler->weight,
                    .bias = sampler->bias,
                    .stride = 2,
                    .pad_bottom = 1,
                    .pad_right = 1,
                    .image_rows = x->shape[0]};
    ZI_TRY(zi_table(e->c.run)->conv2d(e->c.run, &y, x, &conv));
    zi_vae_replace_x(&e->c, y);
    return zi_end_block(e->c.run, &e->c.x, "vae encoder.down_blocks.%d.downsamplers.0", (int)level);
}

static zimage_status run_levels(encoder *e)
{
    const zi_vae_half *half = &e->model->encoder;
    for (int64_t level = 0; level < half->levels; level++) {
        for (int64_t i = 0; i < half->level_resnets; i++) {
            ZI_TRY(zi_vae_run_resnet(&e->c, &half->resnets[level * half->level_resnets + i]));
            ZI_TRY(zi_end_block(e->c.run, &e->c.x, "vae encoder.down_blocks.%d.resnets.%d", (int)level, (int)i));
        }
        if (level + 1 < half->levels)
            ZI_TRY(run_downsampler(e, level));
    }
    return ZIMAGE_OK;
}

/* ---- moments ----------------------------------------------------------------------------------------------------- */

#define PIXELS_AT_ONCE 16 /* their moments of one channel fill a cache line */

/* moments [2 C, pixels] from pixel `first` on <- values [count, 2 C], with limits for the logarithms */
static void transpose_moments(const float *values, int64_t count, int64_t channels, float *moments, int64_t pixels,
                              int64_t first)
{
    for (int64_t begin = 0; begin < count; begin += PIXELS_AT_ONCE) {
        int64_t end = zi_min_int64(begin + PIXELS_AT_ONCE, count);
        for (int64_t channel = 0; channel < channels; channel++)
            for (int64_t i = begin; i < end; i++) {
                float value = values[i * channels + channel];
                if (channel >= channels / 2)
                    value = value < LOW_VARIANCE ? LOW_VARIANCE : value > HIGH_VARIANCE ? HIGH_VARIANCE : value;
                moments[channel * pixels + first + i] = value;
            }
    }
}

/* moments [2 C, pixels] from y [pixels, 2 C], some rows at a time */
static zimage_status download_moments(zi_run *run, const zi_tensor *y, float *moments)
{
    int64_t rows = y->shape[0], columns = y->shape[1], channels = y->shape[2];
    int64_t part = zi_vae_host_rows(rows, columns * channels);
    size_t bytes = (size_t)(part * columns * channels) * sizeof(float);
    zimage_status status = ZIMAGE_OK;
    float *values = malloc(bytes);
    if (!values)
        return zi_fail_memory(run->error, "moments", bytes);
    for (int64_t row = 0; row < rows && status == ZIMAGE_OK; row += part) {
        int64_t count = zi_min_int64(part, rows - row);
        zi_tensor some = zi_tensor_rows(y, row, count);
        status = zi_table(run)->download(run, values, &some);
        if (status == ZIMAGE_OK)
            transpose_moments(values, count * columns, channels, moments, rows * columns, row * columns);
    }
    free(values);
    return status;
}

/* moments = quant_conv(conv_out(SiLU(conv_norm_out(x)))) */
static zimage_status run_conv_out(encoder *e, float *moments)
{
    const zi_vae *model = e->model;
    const zi_vae_half *half = &model->encoder;
    zi_channel_affine affine;
    zi_tensor y;
    ZI_TRY(zi_vae_normalize(&e->c, &affine, &e->c.x, &half->conv_norm_out));
    ZI_TRY(zi_alloc3_f32(e->c.run, &y, e->c.x.shape[0], e->c.x.shape[1], half->out_channels));
    if (model->config.use_quant_conv) {
        zi_tensor h = zi_vae_image_opposite(&e->c, 0, half->out_channels);
        ZI_TRY(zi_vae_convolve(&e->c, &h, &e->c.x, &half->conv_out, &affine, 0, 0));
        ZI_TRY(zi_vae_convolve(&e->c, &y, &h, &model->quant_conv, NULL, 0, 0));
    } else {
        ZI_TRY(zi_vae_convolve(&e->c, &y, &e->c.x, &half->conv_out, &affine, 0, 0));
    }
    ZI_TRY(zi_end_block(e->c.run, &y, "vae encoder.conv_out"));
    return moments ? download_moments(e->c.run, &y, moments) : ZIMAGE_OK;
}

/* ---- encoding ---------------------------------------------------------------------------------------------------- */

/* The arguments of encode. */
typedef struct encoding {
    encoder *e;
    const uint8_t *rgb8;
    int64_t rows, columns, band_rows;
    float *moments;
} encoding;

static zimage_status encode(zi_run *run, const void *user)
{
    const encoding *of = user;
    encoder *e = of->e;
    ZI_TRY(zi_alloc2_f32(e->c.run, &e->c.sums, e->model->config.norm_num_groups, 4));
    ZI_TRY(zi_alloc1(e->c.run, &e->c.region, region_size(e->model, of->rows, of->columns)));
    ZI_TRY(run_conv_in(e, of->rgb8, of->rows, of->columns, of->band_rows));
    ZI_TRY(run_levels(e));
    ZI_TRY(zi_vae_run_mid_block(&e->c, &e->model->encoder.mid, "encoder"));
    return run_conv_out(e, of->moments);
}

zimage_status zi_vae_encode(const zi_vae *model, zi_run *run, const uint8_t *rgb8, int64_t pixel_rows,
                            int64_t pixel_columns, int64_t band_rows, float *moments)
{
    int64_t multiple = zi_vae_latent_size(&model->config);
    ZI_TRY(zi_vae_check_encoder(model, run->error));
    ZI_TRY(zi_store_copy_late(model->store, run->error));
    if (pixel_rows < 1 || pixel_columns < 1 || pixel_rows > MAX_SIDE || pixel_columns > MAX_SIDE ||
        pixel_rows % multiple != 0 || pixel_columns % multiple != 0)
        return zi_fail(run->error, ZIMAGE_ERROR_ARGUMENT,
                       "the image is %lld x %lld (columns x rows), expected multiples of %lld from %lld to %d",
                       (long long)pixel_columns, (long long)pixel_rows, (long long)multiple, (long long)multiple,
                       MAX_SIDE);
    encoder e = {.model = model, .c = {.run = run, .groups = model->config.norm_num_groups}};
    zi_arena_mark mark = zi_table(run)->mark(run);
    const encoding of = {&e, rgb8, pixel_rows, pixel_columns, band_rows, moments};
    zimage_status status = zi_table(run)->repeat(run, NULL, 0, encode, &of);
    zi_table(run)->release(run, mark);
    return status;
}

int64_t zi_vae_encode_blocks(const zi_vae *model)
{
    const zi_vae_half *half = &model->encoder;
    int64_t mid = 2 + (half->mid.has_attention ? 1 : 0);
    return 1 + half->levels * half->level_resnets + half->levels - 1 + mid + 1; /* conv_in ... conv_out */
}
