/*
 * Products with stored weights by packed gemms, of few tokens. Packing the weights takes most of the time, and a panel
 * must be transposed. So the roles change: weights are the rows, and activations the panels.
 *
 *   pack the activations: [panel of nr tokens][chunk][lane][nr]
 *   for (BLOCK_ROWS outputs)                                         one task
 *     for passes of some chunks of inputs
 *       unpack and pack the weight rows, which stay in L1            rows stored in bf16 are read in place
 *       the gemm                                                     sums [panel][output][nr]
 *     or zi_packed_gemm.nibbles does both                            rows in groups of 4 bits
 *     scale, transpose, add the bias, gate, store
 *
 * int8: a token and a weight row each have one scale, their largest magnitude / 127.
 */
#include <assert.h>
#include <string.h>

#include "cpu/packed.h"
#include "cpu/panels.h"

#define BLOCK_ROWS  48 /* a multiple of every gemm's mr and of 16 */
#define PASS_CHUNKS 40 /* a multiple of the chunks of a group */

typedef struct skinny {
    const zi_packed_product *p;
    zi_panels weights;
    const zi_cpu_kernels *kernels;
    const zi_packed_gemm *gemm;
    int64_t chunks, panels; /* of the inputs; of the tokens */
    int nibbles;            /* the gemm unpacks the weights, and reads activations in the order of spread() */
    uint8_t *b;             /* packed activations */
    float *token_scales;    /* [panels][nr]; NULL: bf16 */
    int32_t *offsets;       /* [panels][nr], from zi_packed_offset */
    int64_t *direct;        /* bytes to the chunks of a row that is read in place */
    int64_t *packed;        /* bytes to the chunks of a row that was packed */
    zi_worker_buffers buffers;
} skinny;

static int64_t panel_bytes(const skinny *w)
{
    return w->chunks * ZI_CHUNK * w->gemm->nr;
}

/* Whether the gemm can unpack all of the weights itself. */
static int all_nibbles(const skinny *w)
{
    for (int i = 0; i < w->p->count; i++) {
        const zi_weight *weight = w->p->weights[i];
        if (!zi_has_nibbles(weight) || (weight->group != 32 && weight->group != 64) || weight->scale_dtype != ZI_BF16 ||
            weight->shape[0] % ZI_NIBBLE_ROWS != 0)
            return 0;
    }
    return w->gemm->nibbles != NULL && w->p->in % ZI_NIBBLE_UNIT == 0 && w->panels <= ZI_NIBBLE_PANELS;
}

/* ---- activations ------------------------------------------------------------------------------------------------- */

/* Puts the bf16 numbers of a row into the order that zi_packed_gemm.nibbles reads. */
static void spread(uint8_t *row, int64_t bytes)
{
    uint16_t from[2][16][2][2], to[2][2][2][16];
    static_assert(sizeof(from) == ZI_NIBBLE_UNIT * 2, "one unit");
    for (uint8_t *end = row + bytes; row < end; row += sizeof(from)) {
        memcpy(from, row, sizeof(from));
        for (int h = 0; h < 2; h++)
            for (int v = 0; v < 2; v++)
                for (int w = 0; w < 2; w++)
                    for (int i = 0; i < 16; i++)
                        to[h][v][w][i] = from[h][i][v][w];
        memcpy(row, to, sizeof(to));
    }
}

static void pack_tokens(void *arg, int64_t panel, int worker)
{
    const skinny *w = arg;
    int64_t nr = w->gemm->nr, bytes = w->chunks * ZI_CHUNK, in = w->p->in, first = panel * nr;
    int64_t count = zi_min_int64(nr, w->p->tokens - first);
    uint8_t *rows = (uint8_t *)zi_worker_buffer(&w->buffers, worker);
    for (int64_t r = 0; r < count; r++) {
        const float *x = zi_f32(w->p->x) + (first + r) * w->p->x->ld;
        float *scale = w->token_scales != NULL ? w->token_scales + first + r : NULL;
        float factor = zi_row_factor(w->kernels, x, in, scale);
        w->kernels->pack(w->gemm->b, ZI_F32, x, in, factor, rows + r * bytes, ZI_CHUNK);
        if (w->nibbles)
            spread(rows + r * bytes, bytes);
        if (w->token_scales != NULL)
            w->offsets[first + r] = w->gemm->a == ZI_NUMBER_U8 ? zi_packed_offset(rows + r * bytes, bytes) : 0;
    }
    for (int64_t r = count; r < nr && w->token_scales != NULL; r++) {
        w->token_scales[first + r] = 0;
        w->offsets[first + r] = 0;
    }
    w->kernels->transpose(rows, bytes / 4, count, bytes / 4, w->b + panel * panel_bytes(w), nr);
}

/* ---- tasks ------------------------------------------------------------------------------------------------------- */

/* A worker's buffer, of buffer_floats. pack_tokens uses it for packed rows instead. */
typedef struct workspace {
    float *scratch;   /* for zi_weight_rows */
    float *largest;   /* [BLOCK_ROWS] largest magnitudes; int8 only */
    float *scales;    /* [BLOCK_ROWS] largest / 127 */
    uint8_t *rows;    /* [block of mr][chunk of a pass][mr][64] */
    float *sums;      /* [panel][BLOCK_ROWS][nr] */
    float *turned[2]; /* [panel][nr][BLOCK_ROWS] sums of each weight */
} workspace;

static int64_t sums_floats(const skinny *w)
{
    return w->panels * BLOCK_ROWS * w->gemm->nr;
}

static int64_t buffer_floats(const skinny *w)
{
    int64_t task = zi_weight_rows_scratch(w->p->in, BLOCK_ROWS) + 2 * BLOCK_ROWS +
                   BLOCK_ROWS * PASS_CHUNKS * ZI_CHUNK / 4 + 3 * sums_floats(w);
    return zi_max_int64(task, panel_bytes(w) / 4);
}

static workspace workspace_of(const skinny *w, int worker)
{
    workspace space = {.scratch = zi_worker_buffer(&w->buffers, worker)};
    space.largest = space.scratch + zi_weight_rows_scratch(w->p->in, BLOCK_ROWS);
    space.scales = space.largest + BLOCK_ROWS;
    space.rows = (uint8_t *)(space.scales + BLOCK_ROWS);
    space.sums = (float *)(void *)(space.rows + BLOCK_ROWS * PASS_CHUNKS * ZI_CHUNK);
    space.turned[0] = space.sums + sums_floats(w);
    space.turned[1] = space.turned[0] + sums_floats(w);
    return space;
}

/* Multiplies chunks [chunk, chunk + chunks). rows: a zi_cpu_tiles with the weight rows only. */
static void multiply(const skinny *w, zi_cpu_tiles rows, int64_t chunk, int64_t chunks, const workspace *space)
{
    int64_t nr = w->gemm->nr;
    rows.b = w->b + chunk * nr * ZI_CHUNK;
    rows.b_panel = panel_bytes(w);
    rows.c = (uint8_t *)space->sums;
    rows.c_panel = BLOCK_ROWS * nr * 4;
    rows.c_row = nr * 4;
    rows.panels = w->panels;
    rows.chunks = chunks;
    rows.accumulate = chunk > 0;
    w->gemm->product(&rows);
}

/* BLOCK_ROWS rows of bf16: the gemm reads them where they are stored. */
static void multiply_stored(const skinny *w, const zi_weight_rows *rows, const workspace *space)
{
    int64_t row = w->p->in * 2;
    for (int64_t chunk = 0; chunk < w->chunks; chunk += w->gemm->block) {
        zi_cpu_tiles tiles = {
            .a = rows->weight->data + rows->row * row,
            .a_block = w->gemm->mr * row,
            .a_row = row,
            .a_chunks = w->direct + chunk,
            .rows = rows->count,
        };
        multiply(w, tiles, chunk, zi_min_int64(w->gemm->block, w->chunks - chunk), space);
    }
}

static void multiply_nibbles(const skinny *w, const zi_weight *weight, int64_t row, int64_t count,
                             const workspace *space)
{
    int64_t nr = w->gemm->nr;
    zi_nibble_rows rows = zi_nibble_rows_of(weight, w->p->in, row, 0, w->p->in);
    zi_cpu_tiles tiles = {
        .b = w->b,
        .b_panel = panel_bytes(w),
        .c = (uint8_t *)space->sums,
        .c_panel = BLOCK_ROWS * nr * 4,
        .c_row = nr * 4,
        .rows = count,
        .panels = w->panels,
        .chunks = w->chunks,
    };
    w->gemm->nibbles(&rows, &tiles);
}

static void multiply_packed(const skinny *w, const zi_weight_rows *rows, const workspace *space)
{
    float *largest = w->token_scales != NULL ? space->largest : NULL;
    zi_weight_rows_begin(rows, largest);
    if (rows->count < BLOCK_ROWS) /* the gemm also reads the rows behind the last; their sums are not stored */
        memset(space->rows, 0, BLOCK_ROWS * PASS_CHUNKS * ZI_CHUNK);
    for (int64_t chunk = 0; chunk < w->chunks; chunk += PASS_CHUNKS) {
        int64_t chunks = zi_min_int64(PASS_CHUNKS, w->chunks - chunk);
        zi_weight_rows_pack(rows, chunk, chunks, largest, space->rows);
        zi_cpu_tiles tiles = {
            .a = space->rows,
            .a_block = chunks * w->gemm->mr * ZI_CHUNK,
            .a_row = ZI_CHUNK,
            .a_chunks = w->packed,
            .rows = rows->count,
        };
        multiply(w, tiles, chunk, chunks, space);
    }
    for (int64_t r = 0; r < rows->count && largest != NULL; r++)
        space->scales[r] = largest[r] / 127;
}

/* turned [panel][nr tokens][BLOCK_ROWS] = x times rows [row, row + count) of a weight */
static void block_product(const skinny *w, const zi_weight *weight, int64_t row, int64_t count, const workspace *space,
                          float *turned)
{
    int64_t nr = w->gemm->nr;
    zi_weight_rows rows = {&w->weights, weight, row, count, space->scratch};
    if (w->nibbles)
        multiply_nibbles(w, weight, row, count, space);
    else if (weight->dtype == ZI_BF16 && w->gemm->a == ZI_NUMBER_BF16 && w->p->in % 32 == 0 && count == BLOCK_ROWS)
        multiply_stored(w, &rows, space);
    else
        multiply_packed(w, &rows, space);
    for (int64_t panel = 0; panel < w->panels; panel++) {
        float *sums = space->sums + panel * BLOCK_ROWS * nr;
        if (w->token_scales != NULL)
            w->kernels->scale_sums(sums, count, nr, space->scales, w->token_scales + panel * nr,
                                   w->offsets + panel * nr);
        w->kernels->transpose(sums, nr, BLOCK_ROWS, nr, turned + panel * nr * BLOCK_ROWS, BLOCK_ROWS);
    }
}

static void product_task(void *arg, int64_t task, int worker)
{
    const skinny *w = arg;
    const zi_packed_product *p = w->p;
    workspace space = workspace_of(w, worker);
    int i = 0;
    for (int64_t blocks; task >= (blocks = zi_ceil_div(p->weights[i]->shape[0], BLOCK_ROWS)); i++)
        task -= blocks;
    int64_t ld = p->y[i]->ld, row = task * BLOCK_ROWS, count = zi_min_int64(BLOCK_ROWS, p->weights[i]->shape[0] - row);
    float *y = zi_f32(p->y[i]) + row;
    block_product(w, p->weights[i], row, count, &space, space.turned[0]);
    if (p->gated) {
        block_product(w, p->weights[1], row, count, &space, space.turned[1]);
        w->kernels->store_glu(y, ld, space.turned[0], space.turned[1], BLOCK_ROWS, p->tokens, count, ZI_STORE_SET);
    } else {
        w->kernels->store(y, ld, space.turned[0], BLOCK_ROWS, p->tokens, count, p->bias != NULL ? p->bias + row : NULL,
                          zi_cpu_store_mode(p->accumulate, 0));
    }
}

static zimage_status integers(zi_run *run, skinny *w)
{
    float *offsets;
    ZI_TRY(zi_host_floats(run, w->panels * w->gemm->nr, "packed activations", &w->token_scales));
    ZI_TRY(zi_host_floats(run, w->panels * w->gemm->nr, "packed activations", &offsets));
    w->offsets = (int32_t *)(void *)offsets;
    return ZIMAGE_OK;
}

static zimage_status compute(zi_run *run, skinny *w)
{
    const zi_packed_product *p = w->p;
    int64_t tasks = 0;
    float *b, *places;
    assert(BLOCK_ROWS % w->gemm->mr == 0);
    w->chunks = zi_ceil_div(p->in, zi_numbers_per_chunk(w->gemm->b));
    w->panels = zi_ceil_div(p->tokens, w->gemm->nr);
    w->nibbles = all_nibbles(w);
    ZI_TRY(zi_host_floats(run, w->panels * panel_bytes(w) / 4, "packed activations", &b));
    ZI_TRY(zi_host_floats(run, 2 * (w->chunks + PASS_CHUNKS), "packed activations", &places));
    w->b = (uint8_t *)b;
    w->direct = (int64_t *)(void *)places;
    w->packed = w->direct + w->chunks;
    for (int64_t i = 0; i < w->chunks && !zi_host_rehearses(run); i++)
        w->direct[i] = i * ZI_CHUNK;
    for (int64_t i = 0; i < PASS_CHUNKS && !zi_host_rehearses(run); i++)
        w->packed[i] = i * w->gemm->mr * ZI_CHUNK;
    if (w->gemm->b != ZI_NUMBER_BF16)
        ZI_TRY(integers(run, w));
    ZI_TRY(zi_cpu_worker_buffers(run, buffer_floats(w), "a product", &w->buffers));
    for (int i = 0; i < (p->gated ? 1 : p->count); i++)
        tasks += zi_ceil_div(p->weights[i]->shape[0], BLOCK_ROWS);
    zi_cpu_run_tasks(run, pack_tokens, w, w->panels);
    zi_cpu_run_tasks(run, product_task, w, tasks);
    return ZIMAGE_OK;
}

zimage_status zi_cpu_packed_skinny(zi_run *run, const zi_packed_gemm *gemm, const zi_packed_product *product)
{
    const zi_cpu_kernels *kernels = zi_cpu_of(run)->kernels;
    skinny w = {.p = product, .kernels = kernels, .gemm = gemm, .weights = {kernels, gemm, product->in}};
    zi_arena_mark mark = zi_host_mark(run);
    zimage_status status = compute(run, &w);
    zi_host_release(run, mark);
    return status;
}
