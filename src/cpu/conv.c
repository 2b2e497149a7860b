/*
 * Convolutions on channels-last images as products without an im2col buffer: the rows of gemm's left operand are
 * pointers to pixels, so borders (a row of zeros) and doubling (each pixel twice) cost nothing.
 *
 *   pack all weights: [panel of nr outputs][tap][input channel][nr]
 *   for (band of output rows, group of panels)           one task
 *     affine + SiLU of the band's input rows, once, into the worker's buffer (if the convolution has them)
 *     for blocks of PIXELS
 *       for panels                                       sums [PIXELS][nr] in L1 or L2
 *         for blocks of whole taps or parts of one       packed [up to ZI_KC][nr] in L1
 *           for tiles of mr pixels
 *             gemm
 *
 * Each output is the same sum in the same order whatever the bands are.
 */
#include <assert.h>

#include "cpu/table.h"

#define PIXELS       384
#define BAND_ROWS    4 /* at least: a band's transformed input has up to two rows more */
#define ENOUGH_TASKS 32
#define GROUP_PANELS 4 /* at least: each group transforms its input again */

typedef struct convolution {
    const zi_cpu_kernels *kernels;
    const zi_conv *conv;
    const float *x, *bias, *zeros;
    float *y;
    int64_t size, in, out; /* filter side, channels */
    int64_t x_rows, x_columns, y_rows, y_columns;
    int64_t band, bands, panels, groups;
    int64_t block, segments; /* channels of a block, taps of a block (more than one: all channels) */
    float *packed;
    zi_worker_buffers buffers;
} convolution;

/* Input rows of the image that output rows [first, first + count) read: [*low, *low + result). */
static int64_t input_rows(const convolution *p, int64_t first, int64_t count, int64_t *low)
{
    int64_t pad = p->size / 2, last = first + count - 1 + pad, rows = p->conv->image_rows << p->conv->upsample;
    *low = zi_max(0, first - pad) >> p->conv->upsample;
    return (zi_min(rows - 1, last) >> p->conv->upsample) - *low + 1;
}

/* ---- weights ----------------------------------------------------------------------------------------------------- */

static void pack_task(void *arg, int64_t panel, int worker)
{
    const convolution *p = arg;
    const zi_weight *weight = p->conv->weight;
    int64_t nr = p->kernels->nr, taps = p->size * p->size, count = p->in * taps;
    float *row = zi_worker_buffer(&p->buffers, worker), *target = p->packed + panel * count * nr;
    for (int64_t n = 0; n < nr; n++) {
        int64_t o = panel * nr + n;
        if (o < p->out)
            p->kernels->unpack(weight->dtype, weight->data + (size_t)(o * count) * zi_dtype_size(weight->dtype), count,
                               row);
        for (int64_t tap = 0; tap < taps; tap++)
            for (int64_t c = 0; c < p->in; c++)
                target[(tap * p->in + c) * nr + n] = o < p->out ? row[c * taps + tap] : 0;
    }
}

/* ---- products ---------------------------------------------------------------------------------------------------- */

/* The input of one task: rows of the image from `low` on, transformed or not. */
typedef struct input {
    const float *data;
    int64_t low;
} input;

/* Where tap (ky, kx) of the output pixel (row, column) of the image lies, or zeros. */
static const float *pixel(const convolution *p, const input *in, int64_t row, int64_t column, int64_t ky, int64_t kx)
{
    int up = p->conv->upsample;
    int64_t i = row + ky - p->size / 2, j = column + kx - p->size / 2;
    if (i < 0 || i >= p->conv->image_rows << up || j < 0 || j >= p->y_columns)
        return p->zeros;
    return in->data + (((i >> up) - in->low) * p->x_columns + (j >> up)) * p->in;
}

/* Pointers [segments][mr] to channel `first` of taps from `tap` on, for the tile at output pixel `start` of the band. */
static void tile_pointers(const convolution *p, const input *in, int64_t start, int64_t end, int64_t tap, int64_t taps,
                          int64_t first, const float **a)
{
    int64_t mr = p->kernels->mr;
    for (int64_t r = 0; r < mr; r++) {
        int64_t place = zi_min(start + r, end - 1); /* behind the last pixel: the last one again, never stored */
        int64_t row = p->conv->y_row + place / p->y_columns, column = place % p->y_columns;
        for (int64_t s = 0; s < taps; s++) {
            const float *at = pixel(p, in, row, column, (tap + s) / p->size, (tap + s) % p->size);
            a[s * mr + r] = at == p->zeros ? at : at + first;
        }
    }
}

/* c [pixels][nr] of one panel for output pixels [start, end) */
static void panel_product(const convolution *p, const input *in, const float *packed, int64_t start, int64_t end,
                          float *c)
{
    int64_t mr = p->kernels->mr, nr = p->kernels->nr, taps = p->size * p->size;
    for (int64_t tap = 0; tap < taps; tap += p->segments)
        for (int64_t first = 0; first < p->in; first += p->block) {
            int64_t segments = zi_min(p->segments, taps - tap), count = zi_min(p->block, p->in - first);
            for (int64_t tile = start; tile < end; tile += mr) {
                const float *a[ZI_TAPS_MAX * ZI_MR_MAX];
                tile_pointers(p, in, tile, end, tap, segments, first, a);
                p->kernels->gemm(segments, count, a, packed + (tap * p->in + first) * nr, c + (tile - start) * nr, nr,
                                 tap > 0 || first > 0);
            }
        }
}

static void band_task(void *arg, int64_t task, int worker)
{
    const convolution *p = arg;
    int64_t row = task % p->bands * p->band, rows = zi_min(p->band, p->y_rows - row), group = task / p->bands;
    int64_t first_panel = group * p->panels / p->groups, last_panel = (group + 1) * p->panels / p->groups;
    int64_t nr = p->kernels->nr, width = p->x_columns * p->in;
    float *c = zi_worker_buffer(&p->buffers, worker), *transformed = c + zi_round_up(PIXELS, p->kernels->mr) * nr;
    input in = {p->x, p->conv->x_row};
    if (p->conv->affine != NULL) {
        int64_t count = input_rows(p, p->conv->y_row + row, rows, &in.low);
        p->kernels->affine(transformed, p->x + (in.low - p->conv->x_row) * width, zi_f32(&p->conv->affine->scale),
                           zi_f32(&p->conv->affine->shift), count * p->x_columns, p->in, 1);
        in.data = transformed;
    }
    int64_t end = (row + rows) * p->y_columns;
    for (int64_t start = row * p->y_columns; start < end; start += PIXELS) {
        int64_t stop = zi_min(start + PIXELS, end);
        for (int64_t panel = first_panel; panel < last_panel; panel++) {
            int64_t o = panel * nr;
            panel_product(p, &in, p->packed + o * p->in * p->size * p->size, start, stop, c);
            p->kernels->store(p->y + start * p->out + o, p->out, c, stop - start, zi_min(nr, p->out - o),
                              p->bias != NULL ? p->bias + o : NULL, p->conv->accumulate);
        }
    }
}

/* ---- entry ------------------------------------------------------------------------------------------------------- */

static void choose_blocks(convolution *p)
{
    p->segments = p->in < ZI_KC ? zi_min(p->size * p->size, ZI_KC / p->in) : 1;
    p->block = zi_even_block(p->in, ZI_KC);
    p->panels = zi_ceil_div(p->out, p->kernels->nr);
    p->band = zi_min(p->y_rows, zi_max(BAND_ROWS, zi_ceil_div(PIXELS, p->y_columns)));
    p->bands = zi_ceil_div(p->y_rows, p->band);
    p->groups = zi_max(1, zi_min(p->panels / GROUP_PANELS, zi_ceil_div(ENOUGH_TASKS, p->bands)));
}

/* Floats a worker needs: a row of weights while packing; then sums and transformed rows. */
static int64_t buffer_floats(const convolution *p)
{
    int64_t rows = ((p->band - 1 + 2 * (p->size / 2)) >> p->conv->upsample) + 2;
    int64_t transformed = p->conv->affine != NULL ? rows * p->x_columns * p->in : 0;
    int64_t sums = zi_round_up(PIXELS, p->kernels->mr) * p->kernels->nr;
    return zi_max(p->in * p->size * p->size, sums + transformed);
}

static zimage_status run(zi_ops *ops, convolution *p)
{
    zi_pool *pool = zi_cpu_of(ops)->pool;
    float *zeros, *bias;
    choose_blocks(p);
    ZI_TRY(zi_host_floats(ops, p->block, "a convolution", &zeros));
    for (int64_t i = 0; i < p->block; i++)
        zeros[i] = 0;
    p->zeros = zeros;
    if (p->conv->bias != NULL) {
        ZI_TRY(zi_host_vector(ops, p->conv->bias, &bias));
        p->bias = bias;
    }
    ZI_TRY(zi_host_floats(ops, p->panels * p->kernels->nr * p->in * p->size * p->size, "a convolution's weights",
                          &p->packed));
    ZI_TRY(zi_cpu_worker_buffers(ops, buffer_floats(p), "a convolution", &p->buffers));
    zi_pool_run(pool, pack_task, p, p->panels);
    zi_pool_run(pool, band_task, p, p->bands * p->groups);
    return ZIMAGE_OK;
}

zimage_status zi_cpu_conv2d(zi_ops *ops, zi_tensor *y, const zi_tensor *x, const zi_conv *conv)
{
    zi_check_conv(y, x, conv);
    convolution p = {
        .kernels = zi_cpu_of(ops)->kernels,
        .conv = conv,
        .x = zi_f32(x),
        .y = zi_f32(y),
        .size = conv->weight->shape[2],
        .in = x->shape[2],
        .out = y->shape[2],
        .x_rows = x->shape[0],
        .x_columns = x->shape[1],
        .y_rows = y->shape[0],
        .y_columns = y->shape[1],
    };
    zi_arena_mark mark = zi_host_mark(ops);
    zimage_status status = run(ops, &p);
    zi_host_release(ops, mark);
    return status;
}
