/*
 * Convolutions of channels-last images in float32, as products without an im2col buffer. gemm takes a pointer for each
 * row of its left operand: here a pointer to a pixel. So padding (a pixel of zeros), stride and doubling cost nothing.
 *
 *   pack all weights: [panel of nr outputs][tap][input channel][nr]
 *   for (band of output rows, group of panels)           one task
 *     affine and SiLU of the band's input rows, into the worker's buffer (if the convolution has them)
 *     for blocks of PIXELS output pixels                 pointers [tap][pixel]
 *       for panels                                       sums [PIXELS][nr] in L1 or L2
 *         for blocks of some taps, or of a part of one   packed weights [up to ZI_KC][nr] in L1
 *           for tiles of mr pixels
 *             gemm
 *
 * The sum of each output element has the same order for any bands.
 */
#include <assert.h>
#include <string.h>

#include "cpu/packed.h"

#define PIXELS       384
#define POINTERS     (PIXELS + 16) /* the last tile may be incomplete; whole cache lines */
#define BAND_ROWS    4             /* of a band, at least: its input has up to two more rows, which cost time */
#define ENOUGH_TASKS 32
#define GROUP_PANELS 4 /* of a group, at least: each group applies affine and SiLU to its input again */

_Static_assert(POINTERS >= PIXELS + ZI_MR_MAX, "a last tile may begin at the last pixel");

typedef struct convolution {
    const zi_cpu_kernels *kernels;
    const zi_conv *conv;
    const float *x, *bias, *zeros;
    float *y;
    int64_t size, in, out; /* side of the filter; channels */
    int64_t x_rows, x_columns, y_rows, y_columns;
    int64_t band, bands, panels, groups;
    int64_t block, segments; /* channels and taps of a block; with several taps it has all channels */
    float *packed;
    zi_worker_buffers buffers;
} convolution;

int64_t zi_cpu_conv_input(const zi_conv *conv, int64_t first, int64_t count, int64_t *low)
{
    int64_t top = first * conv->stride - conv->pad_top, rows = conv->image_rows << conv->upsample;
    int64_t bottom = top + (count - 1) * conv->stride + conv->weight->shape[2] - 1;
    *low = zi_max_int64(0, top) >> conv->upsample;
    return (zi_min_int64(rows - 1, bottom) >> conv->upsample) - *low + 1;
}

/* ---- weights ----------------------------------------------------------------------------------------------------- */

/* Input channels that pack_task transposes at a time. */
static int64_t pack_channels(const convolution *p)
{
    return zi_min_int64(p->in, zi_max_int64(1, ZI_KC / (p->size * p->size)));
}

/* Packs one panel: stored [out][in][tap], transposed [in][tap][nr], packed [tap][in][nr]. */
static void pack_task(void *arg, int64_t panel, int worker)
{
    const convolution *p = arg;
    int64_t nr = p->kernels->nr, taps = p->size * p->size, step = pack_channels(p), ld;
    float *rows = zi_worker_buffer(&p->buffers, worker), *turned = rows + step * taps * nr;
    for (int64_t first = 0; first < p->in; first += step) {
        int64_t channels = zi_min_int64(step, p->in - first), count = zi_min_int64(nr, p->out - panel * nr);
        const zi_weight_part part = {p->conv->weight, p->in * taps, panel * nr, count, first * taps, channels * taps};
        const float *source = zi_cpu_weight_rows(p->kernels, &part, rows, &ld);
        p->kernels->transpose(source, ld, count, channels * taps, turned, nr);
        float *target = p->packed + (panel * taps * p->in + first) * nr;
        for (int64_t tap = 0; tap < taps; tap++)
            for (int64_t c = 0; c < channels; c++)
                memcpy(target + (tap * p->in + c) * nr, turned + (c * taps + tap) * nr, (size_t)nr * sizeof(float));
    }
}

/* ---- products ---------------------------------------------------------------------------------------------------- */

/* The input of one task: rows of the image from row `low` on, after affine and SiLU. */
typedef struct input {
    const float *data;
    int64_t low;
} input;

/* Pointers [tap][POINTERS] to the inputs of output pixels [start, end) of y; to zeros outside of the image. */
static void pixel_pointers(const convolution *p, const input *in, int64_t start, int64_t end, const float **a)
{
    const zi_conv *conv = p->conv;
    int up = conv->upsample;
    int64_t rows = conv->image_rows << up, columns = p->x_columns << up;
    int64_t row = conv->y_row + start / p->y_columns, column = start % p->y_columns;
    int64_t padded = zi_round_up(end - start, p->kernels->mr);
    for (int64_t place = 0; place < padded; place++) {
        for (int64_t ky = 0; ky < p->size; ky++)
            for (int64_t kx = 0; kx < p->size; kx++) {
                int64_t i = row * conv->stride + ky - conv->pad_top, j = column * conv->stride + kx - conv->pad_left;
                int inside = i >= 0 && i < rows && j >= 0 && j < columns;
                a[(ky * p->size + kx) * POINTERS + place] =
                    inside ? in->data + (((i >> up) - in->low) * p->x_columns + (j >> up)) * p->in : p->zeros;
            }
        if (start + place + 1 < end && ++column == p->y_columns) { /* behind the last pixel: the same again */
            column = 0;
            row++;
        }
    }
}

/* c [pixels][nr]: the sums of one panel */
static void panel_product(const convolution *p, const float *const *a, const float *packed, int64_t pixels, float *c)
{
    int64_t mr = p->kernels->mr, nr = p->kernels->nr, taps = p->size * p->size;
    for (int64_t tap = 0; tap < taps; tap += p->segments)
        for (int64_t first = 0; first < p->in; first += p->block) {
            int64_t segments = zi_min_int64(p->segments, taps - tap), count = zi_min_int64(p->block, p->in - first);
            for (int64_t tile = 0; tile < pixels; tile += mr)
                p->kernels->gemm(segments, count, a + tap * POINTERS + tile, POINTERS, first,
                                 packed + (tap * p->in + first) * nr, c + tile * nr, nr, tap > 0 || first > 0);
        }
}

/* A worker's buffer, of buffer_floats. */
typedef struct workspace {
    const float **pointers; /* [taps][POINTERS] */
    float *c;               /* [POINTERS][nr] */
    float *transformed;     /* [rows][columns][in] */
} workspace;

#define POINTER_FLOATS ((int64_t)(ZI_TAPS_MAX * POINTERS * sizeof(float *) / sizeof(float)))

static workspace workspace_of(const convolution *p, int worker)
{
    float *buffer = zi_worker_buffer(&p->buffers, worker), *c = buffer + POINTER_FLOATS;
    return (workspace){(const float **)(void *)buffer, c, c + POINTERS * p->kernels->nr};
}

static void band_task(void *arg, int64_t task, int worker)
{
    const convolution *p = arg;
    int64_t row = task % p->bands * p->band, rows = zi_min_int64(p->band, p->y_rows - row), group = task / p->bands;
    int64_t first_panel = group * p->panels / p->groups, last_panel = (group + 1) * p->panels / p->groups;
    int64_t nr = p->kernels->nr, width = p->x_columns * p->in;
    workspace space = workspace_of(p, worker);
    input in = {p->x, p->conv->x_row};
    if (p->conv->affine != NULL) {
        int64_t count = zi_cpu_conv_input(p->conv, p->conv->y_row + row, rows, &in.low);
        p->kernels->affine(space.transformed, p->x + (in.low - p->conv->x_row) * width, zi_f32(&p->conv->affine->scale),
                           zi_f32(&p->conv->affine->shift), count * p->x_columns, p->in, 1);
        in.data = space.transformed;
    }
    int64_t end = (row + rows) * p->y_columns;
    for (int64_t start = row * p->y_columns; start < end; start += PIXELS) {
        int64_t pixels = zi_min_int64(PIXELS, end - start);
        pixel_pointers(p, &in, start, start + pixels, space.pointers);
        for (int64_t panel = first_panel; panel < last_panel; panel++) {
            int64_t o = panel * nr;
            panel_product(p, space.pointers, p->packed + o * p->in * p->size * p->size, pixels, space.c);
            p->kernels->store(p->y + start * p->out + o, p->out, space.c, nr, pixels, zi_min_int64(nr, p->out - o),
                              p->bias != NULL ? p->bias + o : NULL,
                              zi_cpu_store_mode(p->conv->accumulate, p->y_rows * p->y_columns * p->out));
        }
    }
    p->kernels->stores_done();
}

/* ---- entry ------------------------------------------------------------------------------------------------------- */

static void choose_blocks(convolution *p)
{
    p->segments = p->in < ZI_KC ? zi_min_int64(p->size * p->size, ZI_KC / p->in) : 1;
    p->block = zi_even_block(p->in, ZI_KC);
    p->panels = zi_ceil_div(p->out, p->kernels->nr);
    p->band = zi_min_int64(p->y_rows, zi_max_int64(BAND_ROWS, zi_ceil_div(PIXELS, p->y_columns)));
    p->bands = zi_ceil_div(p->y_rows, p->band);
    p->groups = zi_max_int64(1, zi_min_int64(p->panels / GROUP_PANELS, zi_ceil_div(ENOUGH_TASKS, p->bands)));
}

/* For pack_task two blocks of weights; then pointers, sums and transformed rows. */
static int64_t buffer_floats(const convolution *p)
{
    int64_t transformed = p->conv->affine != NULL ? zi_cpu_conv_input_most(p->conv, p->band) * p->x_columns * p->in : 0;
    int64_t product = POINTER_FLOATS + POINTERS * p->kernels->nr + transformed;
    return zi_max_int64(2 * pack_channels(p) * p->size * p->size * p->kernels->nr, product);
}

static zimage_status compute(zi_run *run, convolution *p)
{
    float *zeros, *bias;
    choose_blocks(p);
    ZI_TRY(zi_host_floats(run, p->in, "a convolution", &zeros));
    if (!zi_host_rehearses(run))
        memset(zeros, 0, (size_t)p->in * sizeof(float));
    p->zeros = zeros;
    if (p->conv->bias != NULL) {
        ZI_TRY(zi_host_vector(run, p->conv->bias, &bias));
        p->bias = bias;
    }
    ZI_TRY(zi_host_floats(run, p->panels * p->kernels->nr * p->in * p->size * p->size, "a convolution's weights",
                          &p->packed));
    ZI_TRY(zi_cpu_worker_buffers(run, buffer_floats(p), "a convolution", &p->buffers));
    zi_cpu_run_tasks(run, pack_task, p, p->panels);
    zi_cpu_run_tasks(run, band_task, p, p->bands * p->groups);
    return ZIMAGE_OK;
}

zimage_status zi_cpu_conv2d(zi_run *run, zi_tensor *y, const zi_tensor *x, const zi_conv *conv)
{
    zi_check_conv(y, x, conv);
    if (zi_cpu_of(run)->bf16 != NULL)
        return zi_cpu_packed_conv2d(run, y, x, conv);
    convolution p = {
        .kernels = zi_cpu_of(run)->kernels,
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
    zi_arena_mark mark = zi_host_mark(run);
    zimage_status status = compute(run, &p);
    zi_host_release(run, mark);
    return status;
}
