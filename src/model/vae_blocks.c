/*
 * What the VAE's decoder and encoder share. Formulas: docs/spec/vae.md 2; reference: diffusers, models/resnet.py
 * (ResnetBlock2D), models/unets/unet_2d_blocks.py (UNetMidBlock2D).
 */
#include "model/vae_blocks.h"

#include <assert.h>

#include "base/numbers.h"

#define NORM_EPS    1e-6f
#define WHOLE_BYTES ((int64_t)256 << 20)
#define BAND_BYTES  ((int64_t)64 << 20)
#define HOST_BYTES  ((int64_t)1 << 20) /* new pages of a buffer take time: a quarter of a microsecond or more each */

/* ---- the region of images ---------------------------------------------------------------------------------------- */

int64_t zi_vae_image_size(int64_t rows, int64_t columns, int64_t channels)
{
    return (rows * columns * channels + 15) / 16 * 16;
}

zi_tensor zi_vae_image_at(const zi_vae_canvas *c, int end, int64_t skip, int64_t rows, int64_t columns,
                          int64_t channels)
{
    int64_t size = zi_vae_image_size(rows, columns, channels), whole = c->region.shape[0];
    assert(skip + size <= whole);
    zi_tensor flat =
        zi_tensor_rows(&c->region, end == ZI_VAE_LOW_END ? skip : whole - skip - size, rows * columns * channels);
    return zi_tensor_shaped(&flat, ZI_SHAPE(rows, columns, channels));
}

zi_tensor zi_vae_image_opposite(const zi_vae_canvas *c, int64_t skip, int64_t channels)
{
    return zi_vae_image_at(c, !c->end, skip, c->x.shape[0], c->x.shape[1], channels);
}

void zi_vae_replace_x(zi_vae_canvas *c, zi_tensor y)
{
    c->x = y;
    c->end = !c->end;
}

/* ---- blocks ------------------------------------------------------------------------------------------------------ */

zimage_status zi_vae_convolve(zi_vae_canvas *c, zi_tensor *y, const zi_tensor *x, const zi_vae_affine *weights,
                              const zi_channel_affine *affine, int upsample, int accumulate)
{
    zi_conv conv = zi_conv_same(weights->weight, weights->bias);
    conv.affine = affine;
    conv.upsample = upsample;
    conv.accumulate = accumulate;
    conv.image_rows = x->shape[0];
    return zi_table(c->run)->conv2d(c->run, y, x, &conv);
}

int64_t zi_vae_band_rows(const zi_vae_canvas *c, int64_t asked, int64_t rows, int64_t columns, int64_t channels)
{
    int64_t row_bytes = columns * channels * (int64_t)sizeof(float);
    int64_t whole = zi_max_int64(WHOLE_BYTES, (int64_t)zi_table(c->run)->whole_image_bytes(c->run->ops));
    int64_t chosen = asked > 0 ? asked : rows * row_bytes <= whole ? rows : BAND_BYTES / row_bytes - 2;
    return zi_min_int64(zi_max_int64(chosen, 1), rows);
}

int64_t zi_vae_host_rows(int64_t rows, int64_t row_count)
{
    int64_t held = HOST_BYTES / (row_count * (int64_t)sizeof(float));
    return zi_min_int64(zi_max_int64(held, 1), rows);
}

zimage_status zi_vae_convolve_band(zi_vae_canvas *c, zi_tensor *y, int64_t row, int64_t count, const zi_vae_band *from,
                                   const zi_vae_affine *weights, const zi_channel_affine *affine)
{
    zi_conv conv = zi_conv_same(weights->weight, weights->bias);
    conv.affine = affine;
    conv.x_row = from->first;
    conv.y_row = row;
    conv.image_rows = y->shape[0];
    zi_tensor rows = zi_tensor_rows(y, row, count);
    return zi_table(c->run)->conv2d(c->run, &rows, &from->rows, &conv);
}

zimage_status zi_vae_alloc_affine(zi_vae_canvas *c, zi_channel_affine *affine, int64_t channels)
{
    ZI_TRY(zi_alloc1_f32(c->run, &affine->scale, channels));
    return zi_alloc1_f32(c->run, &affine->shift, channels);
}

zimage_status zi_vae_fold_norm(zi_vae_canvas *c, zi_channel_affine *affine, int64_t elements, const zi_vae_affine *norm)
{
    int64_t groups = c->groups;
    return zi_table(c->run)->group_norm_fold(c->run, affine, &c->sums, elements / groups, norm->weight, norm->bias,
                                             NORM_EPS);
}

zimage_status zi_vae_normalize(zi_vae_canvas *c, zi_channel_affine *affine, const zi_tensor *x,
                               const zi_vae_affine *norm)
{
    ZI_TRY(zi_vae_alloc_affine(c, affine, x->shape[2]));
    ZI_TRY(zi_table(c->run)->group_norm_sums(c->run, &c->sums, x, 0));
    return zi_vae_fold_norm(c, affine, zi_tensor_count(x), norm);
}

zimage_status zi_vae_add_second_half(zi_vae_canvas *c, const zi_vae_resnet *resnet, zi_tensor *y, const zi_tensor *h)
{
    zi_channel_affine affine;
    ZI_TRY(zi_vae_normalize(c, &affine, h, &resnet->norm2));
    return zi_vae_convolve(c, y, h, &resnet->conv2, &affine, 0, 1);
}

/* x <- shortcut(x) + conv2(SiLU(norm2(conv1(SiLU(norm1(x)))))), section 2 */
zimage_status zi_vae_run_resnet(zi_vae_canvas *c, const zi_vae_resnet *resnet)
{
    zi_arena_mark mark = zi_table(c->run)->mark(c->run);
    int64_t channels = resnet->out_channels;
    zi_channel_affine affine;
    ZI_TRY(zi_vae_normalize(c, &affine, &c->x, &resnet->norm1));
    if (resnet->in_channels == channels) {
        zi_tensor h = zi_vae_image_opposite(c, 0, channels);
        ZI_TRY(zi_vae_convolve(c, &h, &c->x, &resnet->conv1, &affine, 0, 0));
        ZI_TRY(zi_vae_add_second_half(c, resnet, &c->x, &h));
    } else {
        zi_tensor y = zi_vae_image_opposite(c, 0, channels);
        zi_tensor h = zi_vae_image_opposite(c, zi_vae_image_size(y.shape[0], y.shape[1], channels), channels);
        ZI_TRY(zi_vae_convolve(c, &h, &c->x, &resnet->conv1, &affine, 0, 0));
        ZI_TRY(zi_vae_convolve(c, &y, &c->x, &resnet->conv_shortcut, NULL, 0, 0));
        ZI_TRY(zi_vae_add_second_half(c, resnet, &y, &h));
        zi_vae_replace_x(c, y);
    }
    zi_table(c->run)->release(c->run, mark);
    return ZIMAGE_OK;
}

/* x += to_out(softmax(q k^T / sqrt(C)) v) of group_norm(x), one head, pixels as tokens; section 2 */
zimage_status zi_vae_run_attention(zi_vae_canvas *c, const zi_vae_attention *attention)
{
    const zi_ops_table *table = zi_table(c->run);
    int64_t channels = c->x.shape[2], pixels = c->x.shape[0] * c->x.shape[1];
    int64_t size = zi_vae_image_size(c->x.shape[0], c->x.shape[1], channels);
    const zi_attention shape = {.heads = 1, .kv_heads = 1, .head_dim = channels};
    const int64_t tokens[] = {pixels, channels};
    zi_arena_mark mark = table->mark(c->run);
    zi_channel_affine affine;
    zi_tensor images[4], x = zi_tensor_shaped(&c->x, 2, tokens);
    for (int i = 0; i < 4; i++)
        images[i] = zi_vae_image_opposite(c, i * size, channels);
    zi_tensor g = zi_tensor_shaped(&images[0], 2, tokens), q = zi_tensor_shaped(&images[1], 2, tokens);
    zi_tensor k = zi_tensor_shaped(&images[2], 2, tokens), v = zi_tensor_shaped(&images[3], 2, tokens); /* [h w, C] */

    ZI_TRY(zi_vae_normalize(c, &affine, &c->x, &attention->norm));
    ZI_TRY(table->channel_affine(c->run, &images[0], &c->x, &affine));
    ZI_TRY(zi_linear(c->run, &q, &g, attention->to_q.weight, attention->to_q.bias));
    ZI_TRY(zi_linear(c->run, &k, &g, attention->to_k.weight, attention->to_k.bias));
    ZI_TRY(zi_linear(c->run, &v, &g, attention->to_v.weight, attention->to_v.bias));
    ZI_TRY(table->attention(c->run, &q, &q, &k, &v, &shape));
    ZI_TRY(zi_linear_add(c->run, &x, &q, attention->to_out.weight, attention->to_out.bias));
    table->release(c->run, mark);
    return ZIMAGE_OK;
}

zimage_status zi_vae_run_mid_block(zi_vae_canvas *c, const zi_vae_mid_block *mid, const char *half)
{
    ZI_TRY(zi_vae_run_resnet(c, &mid->resnets[0]));
    ZI_TRY(zi_end_block(c->run, &c->x, "vae %s.mid_block.resnets.0", half));
    if (mid->has_attention) {
        ZI_TRY(zi_vae_run_attention(c, &mid->attention));
        ZI_TRY(zi_end_block(c->run, &c->x, "vae %s.mid_block.attentions.0", half));
    }
    ZI_TRY(zi_vae_run_resnet(c, &mid->resnets[1]));
    return zi_end_block(c->run, &c->x, "vae %s.mid_block.resnets.1", half);
}
