/*
 * Products with stored weights by packed gemms, of many tokens:
 *
 *   pack the activations: [block of mr tokens][chunk][mr][64 bytes]        not a ZI_OPERAND, which is packed already
 *   for (group of panels, split of the tokens)                             one task
 *     for passes of some chunks of inputs
 *       unpack and pack the weight rows: [panel][chunk][lane][nr]
 *       for parts of the tokens
 *         the gemm                                                         sums [panel][token][nr]
 *         after the last pass: scale, add the bias, gate, store
 *
 * int8: a token and a weight row each have one scale, their largest magnitude / 127. Each split of the tokens unpacks
 * all weights once.
 */
#include "cpu/packed.h"

#include <assert.h>

#include "cpu/panels.h"

/* Sums that wait for the next pass, tokens x outputs of a group: they should stay in L2. */
#define TASK_SUMS    ((int64_t)320 << 10)
#define ENOUGH_TASKS 12
/* The last tasks, so many for each thread, are half as large: all threads end at about the same time. */
#define TAIL_TASKS 2

typedef struct packed {
    const zi_packed_product *p;
    const zi_cpu *cpu;
    zi_panels weights;
    const zi_cpu_kernels *kernels;
    const zi_packed_gemm *gemm;
    int64_t chunks, depth; /* chunks of the inputs, and of a pass */
    int64_t panels;        /* of all outputs */
    int64_t groups, whole; /* groups of panels; those of them with `group` panels */
    int64_t group, split;  /* panels and tokens of a task, at most; split: a multiple of the gemm's rows */
    uint8_t *a;            /* packed activations */
    int64_t a_block;       /* bytes of mr packed tokens */
    int64_t *a_chunks;     /* bytes from a block to its chunks */
    float *row_scales;     /* of the tokens; NULL: bf16 */
    zi_worker_buffers buffers;
} packed;

/* ---- activations ------------------------------------------------------------------------------------------------- */

static void pack_tokens(void *arg, int64_t block, int worker)
{
    const packed *w = arg;
    int64_t mr = w->gemm->mr, first = block * mr;
    uint8_t *target = w->a + block * w->a_block;
    for (int64_t r = 0; r < mr; r++) {
        int64_t token = zi_min_int64(first + r, w->p->tokens - 1); /* behind the last token: the last one again */
        const float *x = zi_f32(w->p->x) + token * w->p->x->ld;
        float *scale = w->row_scales != NULL ? w->row_scales + first + r : NULL;
        float factor = zi_row_factor(w->kernels, x, w->p->in, scale);
        w->kernels->pack(w->gemm->a, ZI_F32, x, w->p->in, factor, target + r * ZI_CHUNK, mr * ZI_CHUNK);
    }
}

/* ---- tasks ------------------------------------------------------------------------------------------------------- */

/* A worker's buffer; sized by buffer_floats. */
typedef struct workspace {
    float *scratch;   /* of zi_pack_panel */
    float *largest;   /* [panel][weight][nr]: largest magnitudes, in the last pass divided by 127 */
    int32_t *offsets; /* [panel][weight][nr]: see zi_pack_panel */
    uint8_t *b;       /* [panel][weight][chunk of a pass][lane][nr] */
    uint8_t *c;       /* sums [part of the tokens][panel][weight][token][nr]; one pass: of two packed panels only */
} workspace;

/* Weights, and so packed panels, of one output panel. */
static int64_t weight_count(const packed *w)
{
    return w->p->gated ? 2 : 1;
}

/* Where an output panel comes from, and where it goes. */
typedef struct panel_place {
    const zi_weight *weight;
    float *y;
    int64_t row, count; /* rows of the weight */
    int64_t ld;         /* floats between tokens of y */
} panel_place;

/* panel: of all outputs. k: which of the weights of a gated product. */
static panel_place place_of(const packed *w, int64_t panel, int64_t k)
{
    int64_t nr = w->gemm->nr, i = 0;
    if (!w->p->gated)
        for (int64_t panels; panel >= (panels = zi_ceil_div(w->p->weights[i]->shape[0], nr)); i++)
            panel -= panels;
    const zi_weight *weight = w->p->weights[i + k];
    int64_t out = weight->shape[0];
    return (panel_place){weight, zi_f32(w->p->y[i]), panel * nr, zi_min_int64(nr, out - panel * nr), w->p->y[i]->ld};
}

static int64_t panel_bytes(const packed *w)
{
    return w->depth * ZI_CHUNK * w->gemm->nr;
}

/* Sums of a packed panel and a part of the tokens. */
static int64_t sums_bytes(const packed *w)
{
    return w->gemm->rows * w->gemm->nr * 4;
}

static int64_t part_bytes(const packed *w)
{
    return weight_count(w) * w->group * sums_bytes(w);
}

static int64_t outputs_of(const packed *w)
{
    return weight_count(w) * w->group * w->gemm->nr;
}

static int64_t buffer_floats(const packed *w)
{
    int64_t sums = w->depth < w->chunks ? w->split / w->gemm->rows * part_bytes(w) : 2 * sums_bytes(w);
    return zi_panel_scratch(&w->weights, w->depth) + 2 * outputs_of(w) +
           (weight_count(w) * w->group * panel_bytes(w) + sums) / 4;
}

static workspace workspace_of(const packed *w, int worker)
{
    float *scratch = zi_worker_buffer(&w->buffers, worker);
    float *largest = scratch + zi_panel_scratch(&w->weights, w->depth), *offsets = largest + outputs_of(w);
    uint8_t *b = (uint8_t *)(offsets + outputs_of(w));
    return (workspace){scratch, largest, (int32_t *)(void *)offsets, b,
                       b + weight_count(w) * w->group * panel_bytes(w)};
}

/* A task: tokens [token, token + tokens) by output panels [panel, panel + panels). */
typedef struct task_range {
    int64_t token, tokens, panel, panels;
} task_range;

/* The first `whole` groups have `group` panels each, the groups behind them half as many. */
static task_range range_of(const packed *w, int64_t task)
{
    int64_t i = task % w->groups, token = task / w->groups * w->split, half = zi_ceil_div(w->group, 2);
    int64_t panel = zi_min_int64(i, w->whole) * w->group + zi_max_int64(0, i - w->whole) * half;
    int64_t panels = zi_min_int64(i < w->whole ? w->group : half, w->panels - panel);
    return (task_range){token, zi_min_int64(w->split, w->p->tokens - token), panel, panels};
}

/* The pass that begins with `chunk`, over the part of the task's tokens that begins with token t. */
typedef struct pass {
    const task_range *range;
    int64_t chunk, t;
} pass;

/* Asks the gemm to prefetch the next part of the tokens: packed panels [first, first + count) take their share of
 * it. */
static void fetch_next(const packed *w, const pass *at, int64_t first, int64_t count, zi_cpu_tiles *tiles)
{
    const task_range *range = at->range;
    if (at->t + w->gemm->rows >= range->tokens || w->gemm->rows != w->gemm->mr) /* no next part; not contiguous */
        return;
    int64_t share = tiles->chunks * w->gemm->mr * ZI_CHUNK / (weight_count(w) * range->panels);
    tiles->fetch = tiles->a + tiles->a_block + tiles->a_chunks[0] + first * share;
    tiles->fetch_bytes = count * share;
}

/* Multiplies with packed panels [first, first + count). c: the sums of the first of them. */
static void multiply(const packed *w, const pass *at, int64_t first, int64_t count, const workspace *space, uint8_t *c)
{
    int64_t mr = w->gemm->mr, nr = w->gemm->nr;
    zi_cpu_tiles tiles = {
        .a = w->a + (at->range->token + at->t) / mr * w->a_block,
        .a_block = w->a_block,
        .a_row = ZI_CHUNK,
        .a_chunks = w->a_chunks + at->chunk,
        .b = space->b + first * panel_bytes(w),
        .b_panel = panel_bytes(w),
        .c = c,
        .c_panel = sums_bytes(w),
        .c_row = nr * 4,
        .rows = zi_min_int64(w->gemm->rows, at->range->tokens - at->t),
        .panels = count,
        .chunks = zi_min_int64(w->depth, w->chunks - at->chunk),
        .accumulate = at->chunk > 0,
    };
    fetch_next(w, at, first, count, &tiles);
    w->gemm->product(&tiles);
}

/* Writes the finished sums c of output panel i of the task to y. */
static void store_panel(const packed *w, const pass *at, int64_t i, const workspace *space, uint8_t *c)
{
    const zi_packed_product *p = w->p;
    int64_t weights = weight_count(w), nr = w->gemm->nr, rows = zi_min_int64(w->gemm->rows, at->range->tokens - at->t);
    int64_t token = at->range->token + at->t;
    panel_place place = place_of(w, at->range->panel + i, 0);
    float *y = place.y + token * place.ld + place.row, *sums = (float *)(void *)c;
    for (int64_t k = 0; k < weights && w->row_scales != NULL; k++)
        w->kernels->scale_sums(c + k * sums_bytes(w), rows, nr, w->row_scales + token,
                               space->largest + (i * weights + k) * nr, space->offsets + (i * weights + k) * nr);
    zi_cpu_store mode = zi_cpu_store_mode(p->accumulate, p->tokens * place.ld);
    zi_glu_sums both = {sums, sums + sums_bytes(w) / 4, nr};
    if (weights == 2 && p->y[0]->dtype == ZI_OPERAND)
        zi_cpu_pack_glu(w->cpu, p->y[0], token, rows, place.row, place.count, both);
    else if (weights == 2)
        w->kernels->store_glu(y, place.ld, both.gate, both.up, nr, rows, place.count, mode);
    else
        w->kernels->store(y, place.ld, sums, nr, rows, place.count, p->bias != NULL ? p->bias + place.row : NULL, mode);
}

/* The last pass multiplies two packed panels at a time and stores them while L1 still has the sums. If it is the only
 * pass, all panels use the same memory for their sums. */
static void run_pass(const packed *w, const pass *at, const workspace *space)
{
    int64_t weights = weight_count(w), step = 2 / weights;
    int several = w->depth < w->chunks;
    uint8_t *c = space->c + (several ? at->t / w->gemm->rows * part_bytes(w) : 0);
    if (at->chunk + w->depth < w->chunks) {
        multiply(w, at, 0, weights * at->range->panels, space, c);
        return;
    }
    for (int64_t i = 0; i < at->range->panels; i += step) {
        int64_t panels = zi_min_int64(step, at->range->panels - i);
        uint8_t *sums = c + (several ? i * weights * sums_bytes(w) : 0);
        multiply(w, at, i * weights, panels * weights, space, sums);
        for (int64_t k = 0; k < panels; k++)
            store_panel(w, at, i + k, space, sums + k * weights * sums_bytes(w));
    }
}

/* The rows of the weight that become a packed panel. */
static zi_weight_rows rows_of(const packed *w, const panel_place *place, const workspace *space)
{
    return (zi_weight_rows){&w->weights, place->weight, place->row, place->count, space->scratch};
}

/* int8, in the first pass: the largest magnitudes of the rows of packed panel i. The packing then reads the rows from
 * L2. */
static void find_scales(const packed *w, const zi_weight_rows *rows, int64_t i, const workspace *space)
{
    int64_t nr = w->gemm->nr;
    for (int64_t k = 0; k < nr; k++) {
        space->largest[i * nr + k] = 0;
        space->offsets[i * nr + k] = 0;
    }
    zi_panel_largest(rows, space->largest + i * nr);
}

static void pack_pass(const packed *w, const task_range *range, int64_t chunk, const workspace *space)
{
    int64_t nr = w->gemm->nr, weights = weight_count(w), chunks = zi_min_int64(w->depth, w->chunks - chunk);
    for (int64_t i = 0; i < weights * range->panels; i++) {
        panel_place place = place_of(w, range->panel + i / weights, i % weights);
        zi_weight_rows rows = rows_of(w, &place, space);
        if (w->row_scales != NULL && chunk == 0)
            find_scales(w, &rows, i, space);
        zi_pack_panel(&rows, chunk, chunks, space->largest + i * nr, space->b + i * panel_bytes(w),
                      w->gemm->a == ZI_NUMBER_U8 ? space->offsets + i * nr : NULL);
    }
}

static void product_task(void *arg, int64_t task, int worker)
{
    const packed *w = arg;
    workspace space = workspace_of(w, worker);
    task_range range = range_of(w, task);
    for (int64_t chunk = 0; chunk < w->chunks; chunk += w->depth) {
        pack_pass(w, &range, chunk, &space);
        if (w->row_scales != NULL && chunk + w->depth >= w->chunks)
            for (int64_t i = 0; i < weight_count(w) * range.panels * w->gemm->nr; i++)
                space.largest[i] /= 127;
        for (int64_t t = 0; t < range.tokens; t += w->gemm->rows)
            run_pass(w, &(pass){&range, chunk, t}, &space);
    }
    w->kernels->stores_done();
}

static void choose_blocks(packed *w, int threads)
{
    const zi_packed_product *p = w->p;
    w->chunks = zi_ceil_div(p->in, zi_numbers_per_chunk(w->gemm->b));
    w->depth = zi_even_block(w->chunks, w->gemm->block);
    w->a_block = w->chunks * w->gemm->mr * ZI_CHUNK;
    w->panels = 0;
    for (int i = 0; i < (p->gated ? 1 : p->count); i++)
        w->panels += zi_ceil_div(p->weights[i]->shape[0], w->gemm->nr);
    int64_t most = w->depth < w->chunks ? TASK_SUMS / (w->gemm->nr * w->gemm->group) : p->tokens;
    w->split = zi_round_up(zi_ceil_div(p->tokens, zi_ceil_div(p->tokens, most)), w->gemm->rows);
    w->group = zi_max_int64(1, zi_min_int64(w->gemm->group / weight_count(w), w->panels / ENOUGH_TASKS));
    int64_t half = zi_ceil_div(w->group, 2);
    w->whole = zi_max_int64(0, (w->panels - TAIL_TASKS * threads * half) / w->group);
    w->groups = w->whole + zi_ceil_div(w->panels - w->whole * w->group, half);
}

/* Takes the activations of a ZI_OPERAND, or memory to pack them into. */
static zimage_status find_activations(zi_run *run, packed *w, int64_t blocks)
{
    float *a;
    if (w->p->x->dtype == ZI_OPERAND) {
        const zi_cpu_operand *operand = zi_cpu_operand_of(w->p->x);
        w->a = operand->rows;
        w->row_scales = operand->scales;
        return ZIMAGE_OK;
    }
    ZI_TRY(zi_host_floats(run, blocks * w->a_block / 4, "packed activations", &a));
    w->a = (uint8_t *)a;
    if (w->gemm->b != ZI_NUMBER_BF16)
        ZI_TRY(zi_host_floats(run, blocks * w->gemm->mr, "packed activations", &w->row_scales));
    return ZIMAGE_OK;
}

static zimage_status compute(zi_run *run, packed *w)
{
    const zi_packed_product *p = w->p;
    zi_pool *pool = zi_cpu_of(run)->pool;
    choose_blocks(w, zi_pool_threads(pool));
    int64_t blocks = zi_ceil_div(p->tokens, w->gemm->mr);
    float *chunks;
    ZI_TRY(find_activations(run, w, blocks));
    ZI_TRY(zi_host_floats(run, 2 * w->chunks, "packed activations", &chunks));
    w->a_chunks = (int64_t *)(void *)chunks;
    for (int64_t i = 0; i < w->chunks && !zi_host_rehearses(run); i++)
        w->a_chunks[i] = i * w->gemm->mr * ZI_CHUNK;
    ZI_TRY(zi_cpu_worker_buffers(run, buffer_floats(w), "a product", &w->buffers));
    if (p->x->dtype != ZI_OPERAND)
        zi_cpu_run_tasks(run, pack_tokens, w, blocks);
    zi_cpu_run_tasks(run, product_task, w, w->groups * zi_ceil_div(p->tokens, w->split));
    return ZIMAGE_OK;
}

zimage_status zi_cpu_packed_product(zi_run *run, const zi_packed_gemm *gemm, const zi_packed_product *product)
{
    if (product->tokens <= ZI_SKINNY_TOKENS)
        return zi_cpu_packed_skinny(run, gemm, product);
    const zi_cpu *cpu = zi_cpu_of(run);
    assert(product->x->dtype == ZI_F32 || gemm == zi_cpu_operand_of(product->x)->gemm);
    packed w = {
        .cpu = cpu, .kernels = cpu->kernels, .gemm = gemm, .p = product, .weights = {cpu->kernels, gemm, product->in}};
    zi_arena_mark mark = zi_host_mark(run);
    zimage_status status = compute(run, &w);
    zi_host_release(run, mark);
    return status;
}
