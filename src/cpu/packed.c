/*
 * Products with stored weights, in packed numbers:
 *
 *   pack the activations once: [block of mr tokens][chunk][mr][64 bytes]     int8: one scale a token, its largest / 127
 *   for (group of panels, chunk of tokens)                                   one task
 *     unpack and pack the group's weight rows: [panel][chunk][lane][nr]      int8: one scale a row, its largest / 127
 *     for blocks of chunks of inputs                                         the family's product: sums in [panel][token][nr]
 *     scale, add the bias, gate, store
 *
 * A stored format costs one pass over its weights for each chunk of tokens, and nothing else.
 */
#include "cpu/packed.h"

#include <math.h>

/* Sums of one task should stay in L2: tokens x outputs of a group. */
#define TASK_SUMS    ((int64_t)160 << 10)
#define ENOUGH_TASKS 16
#define STORE_ROWS   16 /* of y are finished together: their parts of all panels lie side by side */

typedef struct packed {
    const zi_cpu_kernels *kernels;
    const zi_cpu_packed *family;
    const zi_packed_product *p;
    int64_t chunks;               /* of the inputs */
    int64_t panels, group, split; /* of the outputs; of a task; tokens of a task, whole blocks */
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
    float *row;       /* [in] unpacked, or scales and biases of groups */
    uint8_t *rows;    /* [nr][chunks][64], packed */
    float *scales;    /* [weights][panel][nr] */
    int32_t *offsets; /* the same */
    uint8_t *b;       /* [weights][panel][chunk][lane][nr] */
    uint8_t *c;       /* [weights][panel][split][nr] float32 or int32 */
} workspace;

static int64_t weight_count(const packed *w)
{
    return w->p->weights[1] != NULL ? 2 : 1;
}

static int64_t panel_bytes(const packed *w)
{
    return w->chunks * ZI_CHUNK * w->family->nr;
}

static int64_t sums_bytes(const packed *w) /* of a panel */
{
    return w->split * w->family->nr * 4;
}

static int64_t buffer_floats(const packed *w)
{
    int64_t outputs = weight_count(w) * w->group * w->family->nr;
    return zi_round_up(w->p->in, 16) + w->chunks * ZI_CHUNK / 4 * w->family->nr + 2 * outputs +
           weight_count(w) * w->group * (panel_bytes(w) + sums_bytes(w)) / 4;
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
    space.c = (uint8_t *)buffer;
    buffer += weight_count(w) * w->group * sums_bytes(w) / 4;
    space.scales = buffer;
    space.offsets = (int32_t *)(void *)(buffer + outputs);
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

/* Rows [row, row + count) as a panel; scales and offsets [nr] for integers. */
static void pack_panel(const packed *w, const zi_weight *weight, int64_t row, int64_t count, const workspace *space,
                       uint8_t *panel, float *scales, int32_t *offsets)
{
    int64_t nr = w->family->nr, bytes = w->chunks * ZI_CHUNK;
    const uint8_t *source = space->rows;
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

static void multiply(const packed *w, int64_t token, int64_t tokens, int64_t panels, const workspace *space)
{
    int64_t mr = w->family->mr, nr = w->family->nr;
    for (int64_t chunk = 0; chunk < w->chunks; chunk += w->family->block) {
        zi_cpu_tiles tiles = {
            .a = w->a + token / mr * w->a_block,
            .a_block = w->a_block,
            .a_row = ZI_CHUNK,
            .a_chunks = w->a_chunks + chunk,
            .b = space->b + chunk * nr * ZI_CHUNK,
            .b_panel = panel_bytes(w),
            .c = space->c,
            .c_panel = sums_bytes(w),
            .c_row = nr * 4,
            .rows = tokens,
            .panels = panels,
            .chunks = zi_min(w->family->block, w->chunks - chunk),
            .accumulate = chunk > 0,
        };
        w->family->product(&tiles);
    }
}

/* Panel i of `panels` from panel `first` on, rows [t, t + rows) of the task's tokens, to y. */
static void store_sums(const packed *w, const workspace *space, int64_t first, int64_t i, int64_t panels, int64_t token,
                       int64_t t, int64_t rows)
{
    const zi_packed_product *p = w->p;
    int64_t nr = w->family->nr, output = (first + i) * nr, columns = zi_min(nr, p->out - output);
    float *y = p->y + (token + t) * p->out + output;
    const float *c = (const float *)(const void *)(space->c + i * sums_bytes(w)) + t * nr;
    const float *up = (const float *)(const void *)(space->c + (panels + i) * sums_bytes(w)) + t * nr;
    if (p->weights[1] != NULL)
        w->kernels->store_glu(y, p->out, c, up, nr, rows, columns);
    else
        w->kernels->store(y, p->out, c, nr, rows, columns, p->bias != NULL ? p->bias + output : NULL, p->accumulate);
}

static void product_task(void *arg, int64_t task, int worker)
{
    const packed *w = arg;
    const zi_packed_product *p = w->p;
    workspace space = workspace_of(w, worker);
    int64_t nr = w->family->nr, groups = zi_ceil_div(w->panels, w->group), weights = weight_count(w);
    int64_t first = task % groups * w->group, panels = zi_min(w->group, w->panels - first);
    int64_t token = task / groups * w->split, tokens = zi_min(w->split, p->tokens - token);
    for (int64_t i = 0; i < weights * panels; i++) {
        int64_t row = (first + i % panels) * nr;
        pack_panel(w, p->weights[i / panels], row, zi_min(nr, p->out - row), &space, space.b + i * panel_bytes(w),
                   space.scales + i * nr, space.offsets + i * nr);
    }
    multiply(w, token, tokens, weights * panels, &space);
    for (int64_t i = 0; i < weights * panels && w->row_scales != NULL; i++)
        w->kernels->scale_sums(space.c + i * sums_bytes(w), tokens, nr, w->row_scales + token, space.scales + i * nr,
                               space.offsets + i * nr);
    for (int64_t t = 0; t < tokens; t += STORE_ROWS)
        for (int64_t i = 0; i < panels; i++)
            store_sums(w, &space, first, i, panels, token, t, zi_min(STORE_ROWS, tokens - t));
}

static void choose_blocks(packed *w)
{
    const zi_packed_product *p = w->p;
    w->chunks = zi_ceil_div(p->in, zi_cpu_numbers_a_chunk(w->family->b));
    w->a_block = w->chunks * w->family->mr * ZI_CHUNK;
    w->panels = zi_ceil_div(p->out, w->family->nr);
    w->group = zi_max(1, zi_min(w->family->group / weight_count(w), w->panels / ENOUGH_TASKS));
    int64_t most = zi_max(w->family->mr, TASK_SUMS / (w->family->nr * w->family->group));
    int64_t splits = zi_ceil_div(p->tokens, most);
    w->split = zi_round_up(zi_ceil_div(p->tokens, splits), w->family->mr);
}

static zimage_status run(zi_ops *ops, packed *w)
{
    const zi_packed_product *p = w->p;
    zi_pool *pool = zi_cpu_of(ops)->pool;
    choose_blocks(w);
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
    zi_pool_run(pool, product_task, w, zi_ceil_div(w->panels, w->group) * zi_ceil_div(p->tokens, w->split));
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
