/*
 * Products with stored weights, in packed numbers:
 *
 *   pack the activations once: [block of mr tokens][chunk][mr][64 bytes]     int8: one scale a token, its largest / 127
 *   for (group of panels, chunk of tokens)                                   one task
 *     unpack and pack the group's weight rows: [panel][chunk][lane][nr]      int8: one scale a row, its largest / 127
 *     for passes of chunks of inputs, for parts of the tokens                the family's product: sums in [panel][token][nr]
 *       after the last pass: scale, add the bias, gate, store
 *
 * A stored format costs one pass over its weights for each chunk of tokens, and nothing else.
 */
#include "cpu/packed.h"

#include <math.h>

/* Sums that wait for the next pass should stay near L2: tokens x outputs of a group. */
#define TASK_SUMS    ((int64_t)320 << 10)
#define ENOUGH_TASKS 16

typedef struct packed {
    const zi_cpu_kernels *kernels;
    const zi_cpu_packed *family;
    const zi_packed_product *p;
    int64_t chunks, depth;  /* of the inputs; of a pass */
    int64_t panels, groups; /* of the outputs; what they are cut into */
    int64_t group, split;   /* of a task, at most: panels; tokens, whole parts */
    uint8_t *a;
    int64_t a_block; /* bytes of mr packed tokens */
    int64_t *a_chunks;
    float *row_scales; /* of tokens; NULL: float32 sums */
    zi_worker_buffers buffers;
} packed;

/* ---- activations ------------------------------------------------------------------------------------------------- */

/* Brings what is at most `largest` to +-127; where that is next to 0 or not finite, the scale makes the sums so. */
static float factor_of(float largest)
{
    return largest > 1e-30f && largest <= 3.4e38f ? 127 / largest : 0;
}

static void pack_tokens(void *arg, int64_t block, int worker)
{
    const packed *w = arg;
    int64_t mr = w->family->mr, first = block * mr;
    uint8_t *target = w->a + block * w->a_block;
    for (int64_t r = 0; r < mr; r++) {
        int64_t token =
            zi_min(first + r, w->p->tokens - 1); /* behind the last token: the last one again, never stored */
        const float *x = w->p->x + token * w->p->in;
        float factor = 1;
        if (w->row_scales != NULL) {
            float largest = w->kernels->largest(ZI_F32, x, w->p->in);
            w->row_scales[first + r] = largest / 127;
            factor = factor_of(largest);
        }
        w->kernels->pack(w->family->a, ZI_F32, x, w->p->in, factor, target + r * ZI_CHUNK, mr * ZI_CHUNK);
    }
}

/* ---- weights ----------------------------------------------------------------------------------------------------- */

/* A worker's buffer, in bytes from its start; sized by buffer_floats. */
typedef struct workspace {
    float *row;       /* [in] unpacked, or scales and biases of groups (of 16 rows: 2 x 16 x in / 32 at most) */
    uint8_t *rows;    /* [nr][chunks][64], packed */
    float *scales;    /* [weights][panel][nr] */
    int32_t *offsets; /* the same */
    uint8_t *b;       /* [weights][panel][chunk][lane][nr] */
    uint8_t *c; /* [part of the tokens][weights][panel][rows of a part][nr] float32 or int32; one pass: one part */
} workspace;

static int64_t weight_count(const packed *w)
{
    return w->p->weights[1] != NULL ? 2 : 1;
}

static int64_t panel_bytes(const packed *w)
{
    return w->chunks * ZI_CHUNK * w->family->nr;
}

static int64_t sums_bytes(const packed *w) /* of a panel and a part of the tokens */
{
    return w->family->rows * w->family->nr * 4;
}

static int64_t part_bytes(const packed *w)
{
    return weight_count(w) * w->group * sums_bytes(w);
}

static int64_t buffer_floats(const packed *w)
{
    int64_t outputs = weight_count(w) * w->group * w->family->nr;
    int64_t parts = w->depth < w->chunks ? w->split / w->family->rows : 1;
    return zi_round_up(w->p->in, 16) + w->chunks * ZI_CHUNK / 4 * w->family->nr + 2 * outputs +
           (weight_count(w) * w->group * panel_bytes(w) + parts * part_bytes(w)) / 4;
}

static workspace workspace_of(const packed *w, int worker)
{
    float *buffer = zi_worker_buffer(&w->buffers, worker);
    int64_t outputs = weight_count(w) * w->group * w->family->nr;
    workspace space = {.row = buffer};
    buffer += zi_round_up(w->p->in, 16);
    space.rows = (uint8_t *)buffer;
    buffer += w->chunks * ZI_CHUNK / 4 * w->family->nr;
    space.b = (uint8_t *)buffer;
    buffer += weight_count(w) * w->group * panel_bytes(w) / 4;
    space.scales = buffer;
    buffer += outputs;
    space.offsets = (int32_t *)(void *)buffer;
    buffer += outputs;
    space.c = (uint8_t *)buffer;
    return space;
}

/* 128 times the sum of packed bytes: what activations that are 128 too large add to the sums. */
static int32_t offset_of(const uint8_t *row, int64_t bytes)
{
    int32_t sum = 0;
    for (int64_t i = 0; i < bytes; i++)
        sum += (int8_t)row[i];
    return 128 * sum;
}

/*
 * A row of 4-bit groups, without unpacking it: each group has 16 different numbers. The scale is that of the largest
 * number that its groups can hold.
 */
static float pack_nibbles(const packed *w, const zi_weight *weight, int64_t row, const workspace *space,
                          uint8_t *target)
{
    int64_t groups = w->p->in / weight->group;
    size_t place = (size_t)(row * groups) * zi_dtype_size(weight->scale_dtype);
    float *scales = space->row, *biases = scales + groups, largest = 0;
    w->kernels->unpack(weight->scale_dtype, weight->scales + place, groups, scales);
    w->kernels->unpack(weight->scale_dtype, weight->biases + place, groups, biases);
    for (int64_t g = 0; g < groups && w->row_scales != NULL; g++) {
        float first = fabsf(biases[g]), last = fabsf(biases[g] + 15 * scales[g]);
        largest = first > largest || !(first == first) ? first : largest;
        largest = last > largest || !(last == last) ? last : largest;
    }
    w->kernels->pack_nibbles(w->family->b, weight->group, weight->data + row * w->p->in / 2, scales, biases, groups,
                             w->row_scales != NULL ? factor_of(largest) : 1, target, ZI_CHUNK);
    return largest / 127;
}

/* One row, packed; returns its scale (integers only). */
static float pack_row(const packed *w, const zi_weight *weight, int64_t row, const workspace *space, uint8_t *target)
{
    int64_t in = w->p->in, ld;
    if (weight->dtype == ZI_GROUPED && weight->bits == 4 && weight->scale_dtype != ZI_F32)
        return pack_nibbles(w, weight, row, space, target);
    const void *x = weight->data + row * in * (int64_t)zi_dtype_size(weight->dtype);
    zi_dtype dtype = weight->dtype;
    if (dtype == ZI_GROUPED) {
        x = zi_cpu_weight_rows(w->kernels, weight, in, row, 1, 0, in, space->row, &ld);
        dtype = ZI_F32;
    }
    float largest = w->row_scales != NULL ? w->kernels->largest(dtype, x, in) : 0;
    w->kernels->pack(w->family->b, dtype, x, in, w->row_scales != NULL ? factor_of(largest) : 1, target, ZI_CHUNK);
    return largest / 127;
}

/* 16 rows of 4-bit groups at a time, from nibbles to a panel of bf16 in registers. */
static void pack_nibble_panel(const packed *w, const zi_weight *weight, int64_t row, const workspace *space,
                              uint8_t *panel)
{
    int64_t groups = w->p->in / weight->group, size = (int64_t)zi_dtype_size(weight->scale_dtype);
    float *scales = space->row, *biases = scales + 16 * groups;
    for (int64_t r = 0; r < w->family->nr; r += 16) {
        int64_t place = (row + r) * groups * size;
        w->kernels->unpack(weight->scale_dtype, weight->scales + place, 16 * groups, scales);
        w->kernels->unpack(weight->scale_dtype, weight->biases + place, 16 * groups, biases);
        w->kernels->pack_nibble_panel(weight->group, weight->data + (row + r) * w->p->in / 2, w->p->in / 2, scales,
                                      biases, groups, panel + r * 4, w->family->nr);
    }
}

static int has_nibble_panels(const packed *w, const zi_weight *weight)
{
    return w->kernels->pack_nibble_panel != NULL && w->family->b == ZI_NUMBER_BF16 && w->family->nr % 16 == 0 &&
           weight->dtype == ZI_GROUPED && weight->bits == 4 && weight->scale_dtype != ZI_F32;
}

/* Rows [row, row + count) as a panel; scales and offsets [nr] for integers. */
static void pack_panel(const packed *w, const zi_weight *weight, int64_t row, int64_t count, const workspace *space,
                       uint8_t *panel, float *scales, int32_t *offsets)
{
    int64_t nr = w->family->nr, bytes = w->chunks * ZI_CHUNK;
    const uint8_t *source = space->rows;
    if (count == nr && has_nibble_panels(w, weight)) {
        pack_nibble_panel(w, weight, row, space, panel);
        return;
    }
    if (weight->dtype == ZI_BF16 && w->family->b == ZI_NUMBER_BF16 && w->p->in * 2 == bytes &&
        (uintptr_t)weight->data % 4 == 0)
        source = weight->data + row * bytes; /* as they are */
    else
        for (int64_t r = 0; r < count; r++)
            scales[r] = pack_row(w, weight, row + r, space, space->rows + r * bytes);
    w->kernels->transpose(source, bytes / 4, count, bytes / 4, panel, nr);
    for (int64_t r = 0; r < nr && w->row_scales != NULL; r++) {
        if (r >= count)
            scales[r] = 0;
        offsets[r] = r < count && w->family->a == ZI_NUMBER_U8 ? offset_of(source + r * bytes, bytes) : 0;
    }
}

/* ---- tasks ------------------------------------------------------------------------------------------------------- */

/* A task's tokens [token, token + tokens) and panels of outputs [panel, panel + panels). */
typedef struct task_range {
    int64_t token, tokens, panel, panels;
} task_range;

/* One pass, from `chunk` on, over the part of the task's tokens that begins with t, and packed panels [first, first +
 * count). Meanwhile their share of the next part's activations may come nearer. */
static void multiply(const packed *w, const task_range *range, int64_t chunk, int64_t t, int64_t first, int64_t count,
                     const workspace *space, uint8_t *c)
{
    int64_t mr = w->family->mr, nr = w->family->nr, rows = w->family->rows;
    int64_t chunks = zi_min(w->depth, w->chunks - chunk), share = chunks * mr * ZI_CHUNK;
    const uint8_t *a = w->a + (range->token + t) / mr * w->a_block;
    zi_cpu_tiles tiles = {
        .a = a,
        .a_block = w->a_block,
        .a_row = ZI_CHUNK,
        .a_chunks = w->a_chunks + chunk,
        .b = space->b + first * panel_bytes(w) + chunk * nr * ZI_CHUNK,
        .b_panel = panel_bytes(w),
        .c = c + first * sums_bytes(w),
        .c_panel = sums_bytes(w),
        .c_row = nr * 4,
        .rows = zi_min(rows, range->tokens - t),
        .panels = count,
        .chunks = chunks,
        .accumulate = chunk > 0,
    };
    if (t + rows < range->tokens) {
        int64_t panels = weight_count(w) * range->panels;
        tiles.next = a + rows / mr * w->a_block + chunk * mr * ZI_CHUNK + first * share / panels;
        tiles.next_bytes = count * share / panels;
    }
    w->family->product(&tiles);
}

/* Finished sums c of panel i of the task, for the part of its tokens that begins with t, to y. */
static void store_panel(const packed *w, const task_range *range, int64_t i, int64_t t, const workspace *space,
                        uint8_t *c)
{
    const zi_packed_product *p = w->p;
    int64_t weights = weight_count(w), nr = w->family->nr, rows = zi_min(w->family->rows, range->tokens - t);
    int64_t output = (range->panel + i) * nr, columns = zi_min(nr, p->out - output);
    float *y = p->y + (range->token + t) * p->out + output, *sums = (float *)(void *)c;
    for (int64_t k = 0; k < weights && w->row_scales != NULL; k++)
        w->kernels->scale_sums(c + k * sums_bytes(w), rows, nr, w->row_scales + range->token + t,
                               space->scales + (i * weights + k) * nr, space->offsets + (i * weights + k) * nr);
    zi_cpu_store mode = zi_cpu_store_mode(p->accumulate, p->tokens * p->out);
    if (weights == 2)
        w->kernels->store_glu(y, p->out, sums, sums + sums_bytes(w) / 4, nr, rows, columns, mode);
    else
        w->kernels->store(y, p->out, sums, nr, rows, columns, p->bias != NULL ? p->bias + output : NULL, mode);
}

/* One pass over the part of the tokens that begins with t. In the last one sums are stored while L1 still has them. */
static void run_pass(const packed *w, const task_range *range, int64_t chunk, int64_t t, const workspace *space)
{
    int64_t weights = weight_count(w);
    uint8_t *c = space->c + (w->depth < w->chunks ? t / w->family->rows * part_bytes(w) : 0);
    if (chunk + w->depth < w->chunks) {
        multiply(w, range, chunk, t, 0, weights * range->panels, space, c);
        return;
    }
    for (int64_t i = 0; i < range->panels; i++) {
        multiply(w, range, chunk, t, i * weights, weights, space, c);
        store_panel(w, range, i, t, space, c + i * weights * sums_bytes(w));
    }
}

static void product_task(void *arg, int64_t task, int worker)
{
    const packed *w = arg;
    const zi_packed_product *p = w->p;
    workspace space = workspace_of(w, worker);
    int64_t nr = w->family->nr, weights = weight_count(w), group = task % w->groups;
    int64_t token = task / w->groups * w->split, panel = group * w->panels / w->groups;
    task_range range = {token, zi_min(w->split, p->tokens - token), panel, (group + 1) * w->panels / w->groups - panel};
    for (int64_t i = 0; i < weights * range.panels; i++) {
        int64_t row = (panel + i / weights) * nr;
        pack_panel(w, p->weights[i % weights], row, zi_min(nr, p->out - row), &space, space.b + i * panel_bytes(w),
                   space.scales + i * nr, space.offsets + i * nr);
    }
    for (int64_t chunk = 0; chunk < w->chunks; chunk += w->depth)
        for (int64_t t = 0; t < range.tokens; t += w->family->rows)
            run_pass(w, &range, chunk, t, &space);
    w->kernels->stores_done();
}

static void choose_blocks(packed *w, int threads)
{
    const zi_packed_product *p = w->p;
    w->chunks = zi_ceil_div(p->in, zi_cpu_numbers_a_chunk(w->family->b));
    w->depth = zi_ceil_div(w->chunks, zi_ceil_div(w->chunks, w->family->block));
    w->a_block = w->chunks * w->family->mr * ZI_CHUNK;
    w->panels = zi_ceil_div(p->out, w->family->nr);
    int64_t most = w->depth < w->chunks ? TASK_SUMS / (w->family->nr * w->family->group) : p->tokens;
    w->split = zi_round_up(zi_ceil_div(p->tokens, zi_ceil_div(p->tokens, most)), w->family->rows);
    int64_t groups = zi_max(ENOUGH_TASKS, zi_ceil_div(w->panels * weight_count(w), w->family->group));
    w->groups = zi_min(w->panels, zi_round_up(groups, threads));
    w->group = zi_ceil_div(w->panels, w->groups);
}

static zimage_status run(zi_ops *ops, packed *w)
{
    const zi_packed_product *p = w->p;
    zi_pool *pool = zi_cpu_of(ops)->pool;
    choose_blocks(w, zi_pool_threads(pool));
    int64_t blocks = zi_ceil_div(p->tokens, w->family->mr);
    float *a, *chunks;
    ZI_TRY(zi_host_floats(ops, blocks * w->a_block / 4, "packed activations", &a));
    ZI_TRY(zi_host_floats(ops, 2 * w->chunks, "packed activations", &chunks));
    w->a = (uint8_t *)a;
    w->a_chunks = (int64_t *)(void *)chunks;
    for (int64_t i = 0; i < w->chunks; i++)
        w->a_chunks[i] = i * w->family->mr * ZI_CHUNK;
    if (w->family->b != ZI_NUMBER_BF16)
        ZI_TRY(zi_host_floats(ops, blocks * w->family->mr, "packed activations", &w->row_scales));
    ZI_TRY(zi_cpu_worker_buffers(ops, buffer_floats(w), "a product", &w->buffers));
    zi_pool_run(pool, pack_tokens, w, blocks);
    zi_pool_run(pool, product_task, w, w->groups * zi_ceil_div(p->tokens, w->split));
    return ZIMAGE_OK;
}

zimage_status zi_cpu_packed_product(zi_ops *ops, const zi_cpu_packed *family, const zi_packed_product *product)
{
    packed w = {.kernels = zi_cpu_of(ops)->kernels, .family = family, .p = product};
    zi_arena_mark mark = zi_host_mark(ops);
    zimage_status status = run(ops, &w);
    zi_host_release(ops, mark);
    return status;
}
