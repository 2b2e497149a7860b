/*
 * Convolutions of channels-last images by a bf16 packed gemm (kernels.h), without an im2col buffer. A band of the input
 * is packed once, pixel by pixel, with its padding. Each tap reads the same band at another offset.
 *
 *   pack all weights: [panel of nr outputs][tap][chunk of channels][lane][nr]
 *   for (band of output rows, group of panels)           one task
 *     affine and SiLU of the band's input rows (if the convolution has them), doubling (if it doubles), packed to
 *     [row][padding, columns, padding][chunk of channels][64 bytes]
 *     for panels that share a pass, for some output rows whose sums stay in L2
 *       for passes of some chunks
 *         the gemm, row by row
 *
 * The sum of each output element has the same order for any bands.
 */
#include <string.h>

#include "cpu/packed.h"

#define BAND_PIXELS   1024            /* output pixels of a band, at least, unless the image has fewer */
#define BAND_ROWS     8               /* output rows of a band, at least: its input has up to two more */
#define BLOCK_SUMS    ((int64_t)1536) /* output pixels of a pass */
#define ENOUGH_TASKS  16
#define GROUP_OUTPUTS 128

typedef struct convolution {
    const zi_cpu_kernels *kernels;
    const zi_packed_gemm *gemm;
    const zi_conv *conv;
    const float *x, *bias;
    float *y;
    int64_t size, in, out; /* side of the filter; channels */
    int64_t x_columns, y_rows, y_columns;
    int64_t channel_chunks, chunks; /* chunks of a pixel, and of all taps */
    int64_t pitch;                  /* bytes of a packed input row */
    int64_t band, bands, panels, groups;
    int64_t group, depth; /* panels that share a pass; chunks of a pass */
    uint8_t *packed;
    zi_worker_buffers buffers;
} convolution;

static int64_t panel_bytes(const convolution *p)
{
    return p->chunks * p->gemm->nr * ZI_CHUNK;
}

/* Input rows of a band, at most. One more row behind them is zeros, for taps outside of the image. */
static int64_t input_rows_most(const convolution *p)
{
    return zi_cpu_conv_input_most(p->conv, p->band);
}

/* ---- weights ----------------------------------------------------------------------------------------------------- */

/* Packs one panel: stored [out][in][tap], packed rows [out][tap][in], transposed [tap][chunk][lane][nr]. */
static void pack_task(void *arg, int64_t panel, int worker)
{
    const convolution *p = arg;
    int64_t nr = p->gemm->nr, taps = p->size * p->size, bytes = p->chunks * ZI_CHUNK, ld;
    int64_t count = zi_min_int64(nr, p->out - panel * nr);
    float *row = zi_worker_buffer(&p->buffers, worker), *tap_row = row + zi_round_up(p->in * taps, 16);
    uint8_t *rows = (uint8_t *)(tap_row + zi_round_up(p->in, 16));
    for (int64_t r = 0; r < count; r++) {
        const zi_weight_part part = {p->conv->weight, p->in * taps, panel * nr + r, 1, 0, p->in * taps};
        const float *source = zi_cpu_weight_rows(p->kernels, &part, row, &ld);
        for (int64_t tap = 0; tap < taps; tap++) {
            for (int64_t c = 0; c < p->in; c++)
                tap_row[c] = source[c * taps + tap];
            p->kernels->pack(ZI_NUMBER_BF16, ZI_F32, tap_row, p->in, 1,
                             rows + r * bytes + tap * p->channel_chunks * ZI_CHUNK, ZI_CHUNK);
        }
    }
    p->kernels->transpose(rows, bytes / 4, count, bytes / 4, p->packed + panel * panel_bytes(p), nr);
}

/* ---- input ------------------------------------------------------------------------------------------------------- */

/* A worker's buffer, of buffer_floats. */
typedef struct workspace {
    int64_t *places; /* [chunks]: where an output row finds the chunks of all taps */
    float *row;      /* [x_columns][in] after affine and SiLU */
    uint8_t *pixels; /* [input_rows_most + 1][pitch] */
    uint8_t *c;      /* sums [panel of a pass][row of a pass][y_columns rounded up to mr][nr] */
} workspace;

static int64_t padded_columns(const convolution *p)
{
    return zi_round_up(p->y_columns, p->gemm->mr);
}

static int64_t pass_rows(const convolution *p)
{
    return zi_max_int64(1, zi_min_int64(p->band, BLOCK_SUMS / p->y_columns));
}

static int64_t sums_floats(const convolution *p)
{
    return p->group * pass_rows(p) * padded_columns(p) * p->gemm->nr;
}

static int64_t buffer_floats(const convolution *p)
{
    int64_t taps = p->size * p->size;
    int64_t packing = zi_round_up(p->in * taps, 16) + zi_round_up(p->in, 16) + p->gemm->nr * p->chunks * ZI_CHUNK / 4;
    int64_t product = zi_round_up(2 * p->chunks, 16) + zi_round_up(p->x_columns * p->in, 16) +
                      (input_rows_most(p) + 1) * p->pitch / 4 + sums_floats(p);
    return zi_max_int64(packing, product);
}

static workspace workspace_of(const convolution *p, int worker)
{
    float *buffer = zi_worker_buffer(&p->buffers, worker);
    workspace space = {.places = (int64_t *)(void *)buffer};
    space.row = buffer + zi_round_up(2 * p->chunks, 16);
    space.pixels = (uint8_t *)(space.row + zi_round_up(p->x_columns * p->in, 16));
    space.c = space.pixels + (input_rows_most(p) + 1) * p->pitch;
    return space;
}

/* Packs one row of the input. */
static void pack_row(const convolution *p, const float *x, const workspace *space, uint8_t *target)
{
    int64_t pixel = p->channel_chunks * ZI_CHUNK;
    int up = p->conv->upsample;
    memset(target, 0, (size_t)(p->conv->pad_left * pixel));
    target += p->conv->pad_left * pixel;
    if (p->conv->affine != NULL) {
        p->kernels->affine(space->row, x, zi_f32(&p->conv->affine->scale), zi_f32(&p->conv->affine->shift),
                           p->x_columns, p->in, 1);
        x = space->row;
    }
    for (int64_t j = 0; j < p->x_columns; j++, target += pixel) {
        p->kernels->pack(ZI_NUMBER_BF16, ZI_F32, x + j * p->in, p->in, 1, target, ZI_CHUNK);
        if (up) {
            memcpy(target + pixel, target, (size_t)pixel);
            target += pixel;
        }
    }
    memset(target, 0, (size_t)(p->conv->pad_right * pixel));
}

/* Packs the input rows that output rows [first, first + count) of the image read, and the row of zeros. Returns the
 * first of these input rows. */
static int64_t pack_band(const convolution *p, int64_t first, int64_t count, const workspace *space)
{
    int64_t low, rows = zi_cpu_conv_input(p->conv, first, count, &low);
    for (int64_t i = 0; i < rows; i++)
        pack_row(p, p->x + (low + i - p->conv->x_row) * p->x_columns * p->in, space, space->pixels + i * p->pitch);
    memset(space->pixels + input_rows_most(p) * p->pitch, 0, (size_t)p->pitch);
    return low;
}

/* ---- products ---------------------------------------------------------------------------------------------------- */

/* Where output row `row` of the image finds the chunks of all taps: bytes from the start of the packed band. low:
 * the first input row of the band. */
static void row_places(const convolution *p, int64_t row, int64_t low, int64_t *places)
{
    int up = p->conv->upsample;
    int64_t rows = p->conv->image_rows << up;
    for (int64_t ky = 0; ky < p->size; ky++) {
        int64_t i = row * p->conv->stride + ky - p->conv->pad_top,
                at = i < 0 || i >= rows ? input_rows_most(p) : (i >> up) - low;
        for (int64_t kx = 0; kx < p->size; kx++)
            for (int64_t c = 0; c < p->channel_chunks; c++)
                *places++ = at * p->pitch + (kx * p->channel_chunks + c) * ZI_CHUNK;
    }
}

/* The sums of output rows [row, row + rows) of the image and of panels [panel, panel + panels). */
static void multiply(const convolution *p, int64_t row, int64_t rows, int64_t low, int64_t panel, int64_t panels,
                     const workspace *space)
{
    int64_t nr = p->gemm->nr, row_bytes = padded_columns(p) * nr * 4;
    int64_t step = p->conv->stride * p->channel_chunks * ZI_CHUNK; /* bytes between the inputs of two output pixels */
    for (int64_t chunk = 0; chunk < p->chunks; chunk += p->depth)
        for (int64_t i = 0; i < rows; i++) {
            row_places(p, row + i, low, space->places);
            zi_cpu_tiles tiles = {
                .a = space->pixels,
                .a_block = p->gemm->mr * step,
                .a_row = step,
                .a_chunks = space->places + chunk,
                .b = p->packed + panel * panel_bytes(p) + chunk * nr * ZI_CHUNK,
                .b_panel = panel_bytes(p),
                .c = space->c + i * row_bytes,
                .c_panel = rows * row_bytes,
                .c_row = nr * 4,
                .rows = p->y_columns,
                .panels = panels,
                .chunks = zi_min_int64(p->depth, p->chunks - chunk),
                .accumulate = chunk > 0,
            };
            p->gemm->product(&tiles);
        }
}

static void store(const convolution *p, int64_t row, int64_t rows, int64_t panel, int64_t panels,
                  const workspace *space)
{
    int64_t nr = p->gemm->nr, row_floats = padded_columns(p) * nr;
    const float *c = (const float *)(const void *)space->c;
    for (int64_t n = 0; n < panels; n++)
        for (int64_t i = 0; i < rows; i++, c += row_floats) {
            int64_t o = (panel + n) * nr, place = (row - p->conv->y_row + i) * p->y_columns;
            p->kernels->store(p->y + place * p->out + o, p->out, c, nr, p->y_columns, zi_min_int64(nr, p->out - o),
                              p->bias != NULL ? p->bias + o : NULL,
                              zi_cpu_store_mode(p->conv->accumulate, p->y_rows * p->y_columns * p->out));
        }
}

static void band_task(void *arg, int64_t task, int worker)
{
    const convolution *p = arg;
    workspace space = workspace_of(p, worker);
    int64_t first = task % p->bands * p->band, count = zi_min_int64(p->band, p->y_rows - first),
            group = task / p->bands;
    int64_t first_panel = group * p->panels / p->groups, last_panel = (group + 1) * p->panels / p->groups;
    int64_t row = p->conv->y_row + first, low = pack_band(p, row, count, &space), step = pass_rows(p);
    for (int64_t panel = first_panel; panel < last_panel; panel += p->group)
        for (int64_t i = 0; i < count; i += step) {
            int64_t panels = zi_min_int64(p->group, last_panel - panel), rows = zi_min_int64(step, count - i);
            multiply(p, row + i, rows, low, panel, panels, &space);
            store(p, row + i, rows, panel, panels, &space);
        }
    p->kernels->stores_done();
}

/* ---- entry ------------------------------------------------------------------------------------------------------- */

static zimage_status compute(zi_run *run, convolution *p)
{
    float *data;
    int64_t taps = p->size * p->size;
    p->channel_chunks = zi_ceil_div(p->in, zi_numbers_per_chunk(p->gemm->b));
    p->chunks = taps * p->channel_chunks;
    /* The last tile of a row reads mr pixels, too: sums behind the last pixel are never stored. */
    int64_t read = (padded_columns(p) - 1) * p->conv->stride + p->size;
    int64_t written = p->conv->pad_left + (p->x_columns << p->conv->upsample) + p->conv->pad_right;
    p->pitch = zi_max_int64(read, written) * p->channel_chunks * ZI_CHUNK;
    p->panels = zi_ceil_div(p->out, p->gemm->nr);
    p->band = zi_min_int64(p->y_rows, zi_max_int64(BAND_ROWS, zi_ceil_div(BAND_PIXELS, p->y_columns)));
    p->bands = zi_ceil_div(p->y_rows, p->band);
    p->group = GROUP_OUTPUTS / p->gemm->nr;
    p->depth = zi_even_block(p->chunks, p->gemm->block);
    p->groups = zi_max_int64(1, zi_min_int64(p->panels / p->group, zi_ceil_div(ENOUGH_TASKS, p->bands)));
    if (p->conv->bias != NULL) {
        ZI_TRY(zi_host_vector(run, p->conv->bias, &data));
        p->bias = data;
    }
    ZI_TRY(zi_host_floats(run, p->panels * panel_bytes(p) / 4, "a convolution's weights", &data));
    p->packed = (uint8_t *)data;
    ZI_TRY(zi_cpu_worker_buffers(run, buffer_floats(p), "a convolution", &p->buffers));
    zi_cpu_run_tasks(run, pack_task, p, p->panels);
    zi_cpu_run_tasks(run, band_task, p, p->bands * p->groups);
    return ZIMAGE_OK;
}

zimage_status zi_cpu_packed_conv2d(zi_run *run, zi_tensor *y, const zi_tensor *x, const zi_conv *conv)
{
    convolution p = {
        .kernels = zi_cpu_of(run)->kernels,
        .gemm = zi_cpu_of(run)->bf16,
        .conv = conv,
        .x = zi_f32(x),
        .y = zi_f32(y),
        .size = conv->weight->shape[2],
        .in = x->shape[2],
        .out = y->shape[2],
        .x_columns = x->shape[1],
        .y_rows = y->shape[0],
        .y_columns = y->shape[1],
    };
    zi_arena_mark mark = zi_host_mark(run);
    zimage_status status = compute(run, &p);
    zi_host_release(run, mark);
    return status;
}
