/* Cases of convolutions and group norms of channels-last images. */
#include <math.h>
#include <string.h>

#include "ops/trial.h"

/* ---- convolutions ------------------------------------------------------------------------------------------------ */

/* In bf16 what affine and SiLU make of x is rounded, too. */
static const zi_bound conv_bound = {{3e-6, 2e-6, 0, 0x1p-7, 0}};

typedef struct convolution {
    zi_tensor x, y;
    zi_weight w, bias;
    zi_channel_affine affine;
    zi_conv conv;
} convolution;

static void set_steps(zi_conv *conv, int flags)
{
    if (flags & STRIDE)
        conv->stride = 2;
    if (flags & LOPSIDED) {
        conv->pad_top = conv->pad_left = 0;
        conv->pad_bottom = conv->pad_right = 1;
    }
}

static double activated(float x, float scale, float shift)
{
    double y = (double)x * scale + shift;
    return y / (1 + exp(-y));
}

/* Whether bf16 would round y to another side if y were a little different. */
static int near_tie(double y)
{
    float value = (float)y;
    uint32_t bits;
    memcpy(&bits, &value, sizeof(bits));
    uint32_t cut = bits & 0xffff;
    return cut > 0x8000 - 0x40 && cut < 0x8000 + 0x40;
}

/*
 * Elements of x, such that the affine and SiLU of each are far from where bf16 rounds up and down: the backend's last
 * bits then don't decide. The reference gets what the backend's product reads, already rounded, and no affine.
 */
static zimage_status make_activated(zi_trial *t, convolution *v, const float *scale, const float *shift, int dims,
                                    const int64_t *shape)
{
    const zi_input input = {.magnitude = 1}, none = {.magnitude = 0};
    const int64_t channels = shape[dims - 1], count = shape[0] * shape[1] * channels;
    float *values;
    ZI_TRY(zi_trial_floats(t, &none, count, channels, &values));
    for (int64_t i = 0; i < count; i++) {
        int64_t c = i % channels;
        do
            values[i] = input.magnitude * zi_trial_random(t);
        while (near_tie(activated(values[i], scale[c], shift[c])));
    }
    if (t->reference && zi_trial_rounds(t)) {
        for (int64_t i = 0; i < count; i++)
            values[i] = (float)activated(values[i], scale[i % channels], shift[i % channels]);
        zi_cases_round_rows(t->options->compute, values, count / channels, channels);
        v->conv.affine = NULL;
    }
    return zi_trial_input_of(t, &v->x, &input, values, dims, shape);
}

/* x of a convolution with AFFINE. LARGE: scales of up to 200. */
static zimage_status make_affine(zi_trial *t, const zi_case *c, convolution *v, int dims, const int64_t *shape)
{
    const int64_t channels = shape[dims - 1];
    const zi_input steep = {.magnitude = c->flags & LARGE ? 200 : 1, .exact = 1}, exact = {.magnitude = 1, .exact = 1};
    float *scale, *shift;
    ZI_TRY(zi_trial_floats(t, &steep, channels, channels, &scale));
    ZI_TRY(zi_trial_floats(t, &exact, channels, channels, &shift));
    ZI_TRY(zi_trial_input_of(t, &v->affine.scale, &steep, scale, 1, &channels));
    ZI_TRY(zi_trial_input_of(t, &v->affine.shift, &exact, shift, 1, &channels));
    v->conv.affine = &v->affine;
    return make_activated(t, v, scale, shift, dims, shape);
}

/* Sizes: rows, columns, channels in and out, filter. WIDE: y from alloc_f32. */
static zimage_status make_conv(zi_trial *t, const zi_case *c, convolution *v)
{
    const int64_t rows = c->size[0], columns = c->size[1], in = c->size[2], out = c->size[3], side = c->size[4];
    const zi_input input = {.magnitude = 1, .operand = 1},
                   output = {.magnitude = 1, .written = 1, .exact = c->flags & WIDE};
    const int doubled = (c->flags & DOUBLED) != 0;
    ZI_TRY(zi_trial_weight(t, &v->w, c->stored, c->flags, SHAPE(out, in, side, side)));
    ZI_TRY(zi_trial_weight(t, &v->bias, c->stored, c->flags, SHAPE(out)));
    ZI_TRY(zi_trial_round_weight(t, &v->w));
    v->conv = zi_conv_same(&v->w, c->flags & BIAS ? &v->bias : NULL);
    v->conv.upsample = doubled;
    v->conv.accumulate = (c->flags & ADD) != 0;
    v->conv.image_rows = rows;
    set_steps(&v->conv, c->flags);
    if (c->flags & AFFINE)
        ZI_TRY(make_affine(t, c, v, SHAPE(rows, columns, in)));
    else
        ZI_TRY(zi_trial_input(t, &v->x, &input, SHAPE(rows, columns, in)));
    return zi_trial_input(
        t, &v->y, &output,
        SHAPE(zi_conv_rows(&v->conv, rows << doubled), zi_conv_columns(&v->conv, columns << doubled), out));
}

/* Rows of y [first, first + count) from the rows of x that they need. */
static zimage_status conv_band(zi_trial *t, const convolution *v, int64_t first, int64_t count)
{
    zi_conv conv = v->conv;
    int64_t side = conv.weight->shape[2], low = first * conv.stride - conv.pad_top;
    int64_t high = (first + count - 1) * conv.stride - conv.pad_top + side - 1;
    low = (low < 0 ? 0 : low) >> conv.upsample;
    high = high >> conv.upsample < conv.image_rows ? high >> conv.upsample : conv.image_rows - 1;
    zi_tensor x = zi_tensor_rows(&v->x, low, high - low + 1), y = zi_tensor_rows(&v->y, first, count);
    conv.x_row = low;
    conv.y_row = first;
    return zi_table(&t->run)->conv2d(&t->run, &y, &x, &conv);
}

/* The bits of the whole image must come out of bands of any height. */
static zimage_status conv_bands(zi_trial *t, convolution *v)
{
    int64_t rows = v->y.shape[0], whole = t->result_count - 1;
    for (int64_t step = 1; step < rows; step += 2) {
        ZI_TRY(zi_trial_restore(t, &v->y));
        for (int64_t row = 0; row < rows; row += step)
            ZI_TRY(conv_band(t, v, row, rows - row < step ? rows - row : step));
        ZI_TRY(zi_trial_result_of(t, &v->y, &conv_bound, 0));
        const zi_trial_result *bands = &t->results[--t->result_count];
        zi_trial_answer(t, memcmp(bands->values, t->results[whole].values, (size_t)bands->count * sizeof(float)) == 0);
    }
    return ZIMAGE_OK;
}

/* BANDS: in bands, too, where the backend promises the same bits for them; else in two bands. */
static zimage_status convolve(zi_trial *t, const zi_case *c)
{
    convolution v;
    ZI_TRY(make_conv(t, c, &v));
    ZI_TRY(zi_table(&t->run)->conv2d(&t->run, &v.y, &v.x, &v.conv));
    ZI_TRY(zi_trial_result_of(t, &v.y, &conv_bound, 0));
    return c->flags & BANDS && t->options->same_bits ? conv_bands(t, &v) : ZIMAGE_OK;
}

/* Sizes: first and count of output rows, first and count of input rows, outputs; of an image of 9 x 6 pixels. */
static zimage_status band(zi_trial *t, const zi_case *c)
{
    enum { ROWS = 9, COLUMNS = 6, IN = 16 };
    const zi_input input = {.magnitude = 1, .operand = 1}, output = {.magnitude = 1, .written = 1};
    const int doubled = (c->flags & DOUBLED) != 0;
    zi_tensor image, y;
    zi_weight w;
    ZI_TRY(zi_trial_weight(t, &w, c->stored, 0, SHAPE(c->size[4], IN, 3, 3)));
    ZI_TRY(zi_trial_round_weight(t, &w));
    zi_conv conv = zi_conv_same(&w, NULL);
    conv.upsample = doubled;
    conv.accumulate = (c->flags & ADD) != 0;
    conv.image_rows = ROWS;
    conv.y_row = c->size[0];
    conv.x_row = c->size[2];
    set_steps(&conv, c->flags);
    ZI_TRY(zi_trial_input(t, &image, &input, SHAPE(ROWS, COLUMNS, IN)));
    ZI_TRY(zi_trial_input(t, &y, &output, SHAPE(c->size[1], zi_conv_columns(&conv, COLUMNS << doubled), c->size[4])));
    zi_tensor x = zi_tensor_rows(&image, c->size[2], c->size[3]);
    ZI_TRY(zi_table(&t->run)->conv2d(&t->run, &y, &x, &conv));
    return zi_trial_result_of(t, &y, &conv_bound, 0);
}

/* ---- group norm -------------------------------------------------------------------------------------------------- */

/* The factors are float32 everywhere. A mean of 300 is subtracted in float32. */
static const zi_bound factors_bound = {{3e-6, 0, 0, 3e-6, 0}}, groups_bound = {{3e-6, 0, 0, 0x1p-8, 0}};
static const zi_bound large_mean_bound = {{3e-4, 0, 0, 0x1p-8, 0}};

/* Sums over two bands of x; ADD: then over x again. *count: elements of a group. */
static zimage_status sum_groups(zi_trial *t, const zi_case *c, zi_tensor *sums, const zi_tensor *x, int64_t *count)
{
    const zi_ops_table *table = zi_table(&t->run);
    int64_t rows = x->shape[0], half = c->flags & BANDS ? rows / 2 : 0;
    zi_tensor low = zi_tensor_rows(x, 0, half), high = zi_tensor_rows(x, half, rows - half);
    *count = zi_tensor_count(x) / sums->shape[0];
    if (half > 0)
        ZI_TRY(table->group_norm_sums(&t->run, sums, &low, 0));
    ZI_TRY(table->group_norm_sums(&t->run, sums, &high, half > 0));
    if (!(c->flags & ADD))
        return ZIMAGE_OK;
    *count *= 2;
    return table->group_norm_sums(&t->run, sums, x, 1);
}

/* Sizes: rows, columns, channels, groups. LARGE: around 300; OTHER: around -300. IN_PLACE: y is x. */
static zimage_status groups(zi_trial *t, const zi_case *c)
{
    const zi_ops_table *table = zi_table(&t->run);
    const int64_t channels = c->size[2], shape[] = {c->size[0], c->size[1], channels};
    const zi_input input = {.magnitude = 3,
                            .mean = c->flags & LARGE   ? 300
                                    : c->flags & OTHER ? -300
                                                       : 0,
                            .written = c->flags & IN_PLACE};
    const zi_input output = {.magnitude = 1, .written = 1}, exact = {.magnitude = 1, .exact = 1, .written = 1};
    zi_tensor x, y, sums;
    zi_weight w, b;
    zi_channel_affine affine;
    int64_t count;
    ZI_TRY(zi_trial_input(t, &x, &input, 3, shape));
    ZI_TRY(zi_trial_input(t, &y, &output, 3, shape));
    ZI_TRY(zi_trial_input(t, &sums, &exact, SHAPE(c->size[3], 4)));
    ZI_TRY(zi_trial_input(t, &affine.scale, &exact, SHAPE(channels)));
    ZI_TRY(zi_trial_input(t, &affine.shift, &exact, SHAPE(channels)));
    ZI_TRY(zi_trial_weight(t, &w, c->stored, 0, SHAPE(channels)));
    ZI_TRY(zi_trial_weight(t, &b, c->stored == F32 ? F16 : F32, 0, SHAPE(channels)));
    ZI_TRY(sum_groups(t, c, &sums, &x, &count));
    ZI_TRY(table->group_norm_fold(&t->run, &affine, &sums, count, &w, &b, EPS));
    ZI_TRY(zi_trial_result_of(t, &affine.scale, &factors_bound, 0));
    ZI_TRY(zi_trial_result_of(t, &affine.shift, &factors_bound, 0));
    ZI_TRY(table->channel_affine(&t->run, c->flags & IN_PLACE ? &x : &y, &x, &affine));
    return zi_trial_result_of(t, c->flags & IN_PLACE ? &x : &y,
                              c->flags & (LARGE | OTHER) ? &large_mean_bound : &groups_bound, 0);
}

/* ---- the cases --------------------------------------------------------------------------------------------------- */

static const zi_case_kind conv_kind = {"conv", "conv2d", "%d x %d, %d -> %d channels, side %d", convolve, &conv_bound};
static const zi_case_kind band_kind = {"conv", "conv2d", "rows %d + %d from rows %d + %d, %d outputs", band,
                                       &conv_bound};
static const zi_case_kind groups_kind = {"groups", "group_norm_sums group_norm_fold channel_affine",
                                         "%d x %d x %d channels, %d groups", groups, &groups_bound};

const zi_case zi_cases_images[] = {
    {&conv_kind, {1, 1, 1, 1, 3}, F32, 0},
    {&conv_kind, {3, 5, 40, 17, 3}, BF16, SUM},
    {&conv_kind, {7, 33, 16, 70, 3}, F16, AFFINE},
    {&conv_kind, {6, 11, 100, 33, 3}, F32, SUM | AFFINE | DOUBLED | UNALIGNED},
    {&conv_kind, {9, 33, 8, 65, 1}, BF16, 0},
    {&conv_kind, {2, 40, 257, 5, 1}, F16, SUM | DOUBLED},
    {&conv_kind, {8, 10, 16, 33, 3}, F32, STRIDE | LOPSIDED | BIAS}, /* the encoder's halving of an image */
    {&conv_kind, {7, 9, 16, 33, 3}, BF16, STRIDE | LOPSIDED | SUM | AFFINE},
    {&conv_kind, {9, 12, 17, 5, 3}, F16, STRIDE | BIAS},
    {&conv_kind, {7, 8, 24, 16, 1}, F32, STRIDE},
    {&conv_kind, {5, 9, 16, 3, 3}, F32, LOPSIDED | BIAS},
    {&conv_kind, {1, 1, 1, 1, 3}, F32, SLOW | UNALIGNED | SUM | AFFINE | BANDS},
    {&conv_kind, {1, 1, 3, 2, 1}, F16, SLOW | UNALIGNED},
    {&conv_kind, {1, 1, 3, 2, 1}, F16, SLOW | UNALIGNED | SUM | AFFINE | BANDS},
    {&conv_kind, {3, 1, 4, 17, 3}, BF16, SLOW | UNALIGNED | DOUBLED},
    {&conv_kind, {3, 1, 4, 17, 3}, BF16, SLOW | UNALIGNED | DOUBLED | SUM | AFFINE | BANDS},
    {&conv_kind, {3, 1, 4, 17, 3}, BF16, SLOW | UNALIGNED | DOUBLED | SUM | BANDS},
    {&conv_kind, {1, 9, 5, 3, 3}, F32, SLOW | UNALIGNED | DOUBLED},
    {&conv_kind, {1, 9, 5, 3, 3}, F32, SLOW | UNALIGNED | DOUBLED | SUM | AFFINE | BANDS},
    {&conv_kind, {1, 9, 5, 3, 3}, F32, SLOW | UNALIGNED | DOUBLED | SUM | BANDS},
    {&conv_kind, {7, 5, 33, 3, 3}, F16, SLOW | UNALIGNED},
    {&conv_kind, {7, 5, 33, 3, 3}, F16, SLOW | UNALIGNED | SUM | AFFINE | BANDS},
    {&conv_kind, {7, 5, 33, 3, 3}, F16, SLOW | UNALIGNED | SUM | BANDS},
    {&conv_kind, {17, 13, 16, 31, 3}, F32, SLOW | UNALIGNED},
    {&conv_kind, {17, 13, 16, 31, 3}, F32, SLOW | UNALIGNED | SUM | AFFINE | BANDS},
    {&conv_kind, {17, 13, 16, 31, 3}, F32, SLOW | UNALIGNED | SUM | BANDS},
    {&conv_kind, {9, 33, 8, 65, 1}, BF16, SLOW | UNALIGNED | SUM | AFFINE | BANDS},
    {&conv_kind, {9, 33, 8, 65, 1}, BF16, SLOW | UNALIGNED | SUM | BANDS},
    {&conv_kind, {6, 11, 100, 33, 3}, F16, SLOW | UNALIGNED | DOUBLED},
    {&conv_kind, {6, 11, 100, 33, 3}, F16, SLOW | UNALIGNED | DOUBLED | SUM | AFFINE | BANDS},
    {&conv_kind, {6, 11, 100, 33, 3}, F16, SLOW | UNALIGNED | DOUBLED | SUM | BANDS},
    {&conv_kind, {5, 3, 300, 140, 3}, F32, SLOW | UNALIGNED},
    {&conv_kind, {5, 3, 300, 140, 3}, F32, SLOW | UNALIGNED | SUM | AFFINE | BANDS},
    {&conv_kind, {5, 3, 300, 140, 3}, F32, SLOW | UNALIGNED | SUM | BANDS},
    {&conv_kind, {2, 100, 257, 5, 1}, F32, SLOW | UNALIGNED | DOUBLED},
    {&conv_kind, {2, 100, 257, 5, 1}, F32, SLOW | UNALIGNED | DOUBLED | SUM | AFFINE | BANDS},
    {&conv_kind, {2, 100, 257, 5, 1}, F32, SLOW | UNALIGNED | DOUBLED | SUM | BANDS},
    {&conv_kind, {13, 9, 17, 33, 3}, F32, SLOW | STRIDE | LOPSIDED | SUM | AFFINE | BANDS},
    {&conv_kind, {14, 8, 16, 5, 3}, BF16, SLOW | STRIDE | SUM | BANDS},
    {&conv_kind, {16, 24, 64, 128, 3}, F32, SLOW | SUM | AFFINE},
    {&conv_kind, {16, 24, 32, 64, 3}, F32, SLOW | DOUBLED},
    {&conv_kind, {16, 24, 64, 3, 3}, F32, SLOW | AFFINE | WIDE},
    {&conv_kind, {16, 24, 64, 64, 3}, F32, SLOW | STRIDE | LOPSIDED | BIAS},
    {&conv_kind, {8, 8, 64, 32, 1}, F32, SLOW | SUM},
    {&conv_kind, {6, 9, 24, 16, 3}, F32, SLOW | AFFINE | LARGE}, /* SiLU of large numbers */
    {&conv_kind, {3, 2, 2072, 9, 1}, F32, SLOW | AFFINE},        /* more channels than threads have vectors */
    {&conv_kind, {2, 130, 301, 9, 1}, F32, SLOW | DOUBLED | AFFINE},
    {&conv_kind, {17, 24, 64, 3, 3}, F32, SLOW | SUM | AFFINE | WIDE}, /* few outputs: sums of the filter's products */
    {&conv_kind, {9, 13, 5, 3, 3}, F32, SLOW | SUM | DOUBLED},
    {&conv_kind, {11, 37, 12, 7, 3}, F32, SLOW | SUM | AFFINE | WIDE},
    {&conv_kind, {40, 21, 9, 2, 1}, F32, SLOW | SUM},
    {&conv_kind, {1, 3, 8, 8, 3}, F32, SLOW | SUM},
    {&conv_kind, {300, 200, 4, 8, 3}, F32, SLOW | SUM}, /* computed in parts on every GPU */
    {&band_kind, {0, 9, 0, 9, 3}, F32, SLOW},
    {&band_kind, {0, 3, 0, 4, 3}, F32, 0},
    {&band_kind, {3, 3, 2, 5, 3}, F32, 0},
    {&band_kind, {6, 3, 5, 4, 3}, F32, 0},
    {&band_kind, {5, 4, 2, 4, 3}, F32, SLOW | DOUBLED | ADD},
    {&band_kind, {12, 6, 5, 4, 3}, F32, SLOW | DOUBLED | ADD},
    {&band_kind, {0, 9, 0, 9, 24}, F32, SLOW},
    {&band_kind, {0, 3, 0, 4, 24}, F32, SLOW},
    {&band_kind, {3, 3, 2, 5, 24}, F32, SLOW},
    {&band_kind, {6, 3, 5, 4, 24}, F32, SLOW},
    {&band_kind, {5, 4, 2, 4, 24}, F32, SLOW | DOUBLED | ADD},
    {&band_kind, {12, 6, 5, 4, 24}, F32, SLOW | DOUBLED | ADD},
    {&band_kind, {0, 2, 0, 5, 24}, F32, STRIDE | LOPSIDED},
    {&band_kind, {2, 2, 4, 5, 24}, F32, STRIDE | LOPSIDED},
    {&band_kind, {1, 3, 1, 7, 3}, F32, SLOW | STRIDE},
    {&groups_kind, {17, 13, 33, 3}, F32, 0},
    {&groups_kind, {9, 31, 64, 32}, F16, 0},
    {&groups_kind, {9, 31, 64, 32}, BF16, ADD | BANDS | IN_PLACE},
    {&groups_kind, {1, 2, 1, 1}, F32, SLOW},
    {&groups_kind, {3, 5, 2, 2}, F32, SLOW},
    {&groups_kind, {3, 5, 2, 2}, F32, SLOW | BANDS},
    {&groups_kind, {17, 13, 33, 3}, F32, SLOW | BANDS},
    {&groups_kind, {17, 13, 33, 3}, BF16, SLOW | ADD},
    {&groups_kind, {9, 31, 64, 32}, F32, SLOW | BANDS},
    {&groups_kind, {64, 1, 100, 4}, F32, SLOW},
    {&groups_kind, {64, 1, 100, 4}, F32, SLOW | BANDS},
    {&groups_kind, {8, 100, 512, 32}, F32, SLOW},
    {&groups_kind, {8, 100, 512, 32}, F32, SLOW | BANDS},
    {&groups_kind, {5, 7, 24, 8}, BF16, SLOW | ADD},    /* groups that begin within a vector */
    {&groups_kind, {3, 5, 2072, 8}, BF16, SLOW | ADD},  /* more channels than threads have vectors */
    {&groups_kind, {2, 31, 520, 40}, BF16, SLOW | ADD}, /* a lane less in the last warp */
    {&groups_kind, {2, 3, 515, 5}, BF16, SLOW | ADD},
    {&groups_kind, {41, 43, 128, 32}, BF16, SLOW | ADD | LARGE}, /* a variance of 3 beside squares of 90000 */
    {&groups_kind, {23, 29, 33, 11}, BF16, SLOW | ADD | OTHER},
    {NULL, {0}, 0, 0},
};
