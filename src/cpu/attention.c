/*
 * Attention with streaming softmax, in float32 or by a bf16 packed gemm (kernels.h); the softmax is float32 in both. No
 * buffer has queries x keys elements.
 *
 *   for groups of key heads whose packed K and V take at most PACKED bytes
 *     pack K into panels [key / nr][dim][nr], V into panels [key block][dim / nr][key of the block][nr]
 *          (bf16: K [key / nr][chunk of dim][lane][nr], V [key block][dim / nr][chunk of keys][lane][nr])
 *     for (query head, some blocks of queries)     one task
 *       for blocks of KEYS keys                    K and V of a block in L2 (256 x 128 x 4 bytes each)
 *         for blocks of queries
 *           S = Q K^T                              panel by panel, [dim][nr] in L1
 *           running maximum, exp, running sum      row by row
 *           O = O * factor + P V                   panel by panel, [KEYS][nr] in L1
 *
 * A result depends on the block sizes, but not on the number of threads.
 */
#include <assert.h>
#include <math.h>
#include <string.h>

#include "cpu/table.h"

#define QUERIES 64  /* of a block, at most */
#define BLOCKS  4   /* of queries in a task, at most: they share each block of K and V while it is in L2 */
#define TASKS   4   /* for each thread, at least, if there are enough blocks */
#define KEYS    256 /* of a block: a multiple of every nr and of a chunk */
#define PACKED  ((int64_t)8 << 20)
/* Floats between rows of S. A power of two would put a column of S into few cache sets. */
#define S_STRIDE (KEYS + 16)
#define CHUNKS   16 /* of a call of the packed gemm */

/* Prefetches the n floats of row `row`, if there is such a row. The rows of a head are far apart, so the hardware
 * prefetcher does not know where the next row begins. */
#define ROWS_AHEAD 8
#define FETCH_ROW(x, row, rows, stride, n)                                                                             \
    for (int64_t fetched = 0; fetched < (n) && (row) < (rows); fetched += ZI_CHUNK / 4)                                \
    __builtin_prefetch((x) + (row) * (stride) + fetched)

_Static_assert(KEYS % ZI_NR_MAX == 0 && KEYS % ZI_PACKED_NR_MAX == 0 && KEYS % 32 == 0, "panels fill their blocks");

typedef struct attention {
    const zi_cpu_kernels *kernels;
    const zi_packed_gemm *bf16; /* NULL: the float32 kernels */
    int64_t mr, nr;             /* of these */
    const float *q, *k, *v;
    int64_t ldq, ldk, ldv; /* floats between rows */
    const zi_cpu *cpu;
    zi_tensor o;
    int64_t first; /* row of o for the first query */
    int64_t queries, keys, heads, kv_heads, dim;
    int causal;
    int64_t padded_dim, padded_keys;                      /* multiples of nr and of KEYS */
    int64_t chunks;                                       /* of dim, in bf16 */
    int64_t key_blocks, query_block, task_queries, tasks; /* tasks: for each query head */
    int64_t kv_first, group;                              /* key heads [kv_first, kv_first + group) are packed now */
    uint8_t *packed_k, *packed_v;
    float scale;
    zi_worker_buffers buffers;
} attention;

/* Bytes of a packed key, and of a packed value. */
static int64_t key_bytes(const attention *at)
{
    return at->bf16 != NULL ? at->chunks * ZI_CHUNK : at->dim * 4;
}

static int64_t value_bytes(const attention *at)
{
    return at->padded_dim * (at->bf16 != NULL ? 2 : 4);
}

static uint8_t *packed_k_of(const attention *at, int64_t slot, int64_t key)
{
    return at->packed_k + (slot * at->padded_keys + key) * key_bytes(at);
}

static uint8_t *packed_v_of(const attention *at, int64_t slot, int64_t key)
{
    return at->packed_v + (slot * at->padded_keys + key) * value_bytes(at);
}

/* Packs `width` columns of V for `count` keys: [key][nr]. */
static void pack_values(const attention *at, const float *v, int64_t stride, int64_t count, int64_t width,
                        float *target)
{
    for (int64_t key = 0; key < count; key++, target += at->nr) {
        memcpy(target, v + key * stride, (size_t)width * sizeof(float));
        memset(target + width, 0, (size_t)(at->nr - width) * sizeof(float));
    }
}

/* Packs all columns of V in bf16: [dim / nr][chunk of 32 keys][lane: two keys][nr], with zeros behind the last key.
 * The keys of a chunk have the order of softmax_bf16 (zi_softmax_key). */
static void pack_value_pairs(const attention *at, const float *v, int64_t stride, int64_t count, const float *zeros,
                             uint8_t *target)
{
    int64_t nr = at->nr;
    for (int64_t lane = 0; lane < KEYS / 2; lane++, target += nr * 4) {
        int64_t key = lane / 16 * 32 + zi_softmax_key(lane % 16 * 2);
        const float *a = key < count ? v + key * stride : zeros, *b = key + 1 < count ? v + (key + 1) * stride : zeros;
        FETCH_ROW(v, key + ROWS_AHEAD, count, stride, at->dim);
        FETCH_ROW(v, key + 1 + ROWS_AHEAD, count, stride, at->dim);
        for (int64_t column = 0; column < at->dim; column += nr) {
            int64_t width = zi_min_int64(nr, at->dim - column);
            uint8_t *panel = target + column * KEYS * 2;
            at->kernels->pack_pairs(a + column, b + column, width, (uint32_t *)(void *)panel);
            memset(panel + width * 4, 0, (size_t)(nr - width) * 4);
        }
    }
}

/* Packs a block of keys of one key head. */
static void pack_task(void *arg, int64_t task, int worker)
{
    const attention *at = arg;
    int64_t nr = at->nr, slot = task / at->key_blocks, first = task % at->key_blocks * KEYS;
    int64_t count = zi_min_int64(KEYS, at->keys - first), column = (at->kv_first + slot) * at->dim;
    const float *k = at->k + first * at->ldk + column, *v = at->v + first * at->ldv + column;
    float *buffer = zi_worker_buffer(&at->buffers, worker);
    for (int64_t key = 0; key < count; key += nr) {
        int64_t rows = zi_min_int64(nr, count - key);
        const float *source = k + key * at->ldk;
        uint8_t *panel = packed_k_of(at, slot, first + key);
        if (at->bf16 == NULL) {
            at->kernels->transpose(source, at->ldk, rows, at->dim, panel, nr);
            continue;
        }
        for (int64_t r = 0; r < rows; r++) {
            FETCH_ROW(source, r + ROWS_AHEAD, count - key, at->ldk, at->dim);
            at->kernels->pack(ZI_NUMBER_BF16, ZI_F32, source + r * at->ldk, at->dim, 1,
                              (uint8_t *)buffer + r * key_bytes(at), ZI_CHUNK);
        }
        at->kernels->transpose(buffer, key_bytes(at) / 4, rows, key_bytes(at) / 4, panel, nr);
    }
    if (at->bf16 != NULL) {
        memset(buffer, 0, (size_t)at->dim * sizeof(float));
        pack_value_pairs(at, v, at->ldv, count, buffer, packed_v_of(at, slot, first));
        return;
    }
    for (int64_t i = 0; i < at->dim; i += nr) {
        uint8_t *target = packed_v_of(at, slot, first) + i * KEYS * 4;
        pack_values(at, v + i, at->ldv, count, zi_min_int64(nr, at->dim - i), (float *)(void *)target);
    }
}

/* A worker's buffer, of buffer_floats. */
typedef struct workspace {
    float *s;             /* [QUERIES][S_STRIDE] */
    float *o;             /* [task_queries][padded_dim] */
    float *maxima, *sums; /* [task_queries] */
    float *factors;       /* [QUERIES] */
    uint8_t *q;           /* bf16: packed queries of the task, [block of mr][chunk of dim][mr][ZI_CHUNK] */
    uint8_t *p;           /* bf16: packed weights of a block, [block of mr][chunk of KEYS][mr][ZI_CHUNK] */
} workspace;

static int64_t buffer_floats(const attention *at)
{
    int64_t packed = at->bf16 != NULL ? (at->task_queries * key_bytes(at) + QUERIES * KEYS * 2) / 4 : 0;
    return QUERIES * (S_STRIDE + 1) + zi_round_up(at->task_queries, 16) * (at->padded_dim + 2) + packed;
}

static workspace workspace_of(const attention *at, int worker)
{
    int64_t queries = zi_round_up(at->task_queries, 16);
    workspace space = {.s = zi_worker_buffer(&at->buffers, worker)};
    space.o = space.s + QUERIES * S_STRIDE;
    space.maxima = space.o + queries * at->padded_dim;
    space.sums = space.maxima + queries;
    space.factors = space.sums + queries;
    space.p = (uint8_t *)(space.factors + QUERIES);
    space.q = space.p + QUERIES * KEYS * 2;
    return space;
}

/* The parts of the buffer for the queries from number `row` of the task on. */
static workspace from_row(const attention *at, workspace space, int64_t row)
{
    space.o += row * at->padded_dim;
    space.maxima += row;
    space.sums += row;
    space.q += row * key_bytes(at);
    return space;
}

/* s [queries][keys] = q k^T, unscaled */
static void scores(const attention *at, const float *q, int64_t queries, int64_t keys, const float *packed,
                   workspace *space)
{
    int64_t mr = at->mr, nr = at->nr;
    int64_t block = zi_even_block(at->dim, ZI_KC);
    for (int64_t key = 0; key < keys; key += nr, packed += at->dim * nr)
        for (int64_t first = 0; first < at->dim; first += block)
            for (int64_t i = 0; i < queries; i += mr) {
                const float *a[ZI_MR_MAX];
                for (int64_t r = 0; r < mr; r++)
                    a[r] = q + zi_min_int64(i + r, queries - 1) * at->ldq + first;
                at->kernels->gemm(1, zi_min_int64(block, at->dim - first), a, 0, 0, packed + first * nr,
                                  space->s + i * S_STRIDE + key, S_STRIDE, first > 0);
            }
}

/* o [queries][padded_dim] += s [queries][keys] v */
static void add_values(const attention *at, int64_t queries, int64_t keys, const float *packed, workspace *space)
{
    int64_t mr = at->mr, nr = at->nr;
    for (int64_t column = 0; column < at->padded_dim; column += nr, packed += KEYS * nr)
        for (int64_t i = 0; i < queries; i += mr) {
            const float *a[ZI_MR_MAX];
            for (int64_t r = 0; r < mr; r++)
                a[r] = space->s + zi_min_int64(i + r, queries - 1) * S_STRIDE;
            at->kernels->gemm(1, keys, a, 0, 0, packed, space->o + i * at->padded_dim + column, at->padded_dim, 1);
        }
}

/* Packs rows of n floats: [block of mr][chunk][mr][ZI_CHUNK]. ld: floats between rows. */
static void pack_rows(const attention *at, const float *x, int64_t ld, int64_t rows, int64_t n, int64_t chunks,
                      uint8_t *target)
{
    for (int64_t r = 0; r < rows; r++) {
        FETCH_ROW(x, r + ROWS_AHEAD, rows, ld, n);
        at->kernels->pack(ZI_NUMBER_BF16, ZI_F32, x + r * ld, n, 1, target + zi_packed_row(r, at->mr, chunks),
                          at->mr * ZI_CHUNK);
    }
}

/* Multiplies packed rows by panels, over `chunks` chunks. tiles: all but a_chunks, chunks and fetch. */
static void multiply(const attention *at, zi_cpu_tiles tiles, int64_t chunks)
{
    int64_t places[CHUNKS];
    for (int64_t first = 0; first < chunks; first += CHUNKS) {
        tiles.chunks = zi_min_int64(CHUNKS, chunks - first);
        for (int64_t i = 0; i < tiles.chunks; i++)
            places[i] = (first + i) * at->mr * ZI_CHUNK;
        tiles.a_chunks = places;
        at->bf16->product(&tiles);
        tiles.b += CHUNKS * at->nr * ZI_CHUNK;
        tiles.accumulate = 1;
    }
}

/* A block of queries of one head, and a block of keys that one of them sees. */
typedef struct block {
    int64_t slot, head; /* slot: of the packed key heads */
    int64_t query, queries, key, keys;
} block;

/* s [queries][keys] = q k^T, not scaled yet */
static void find_scores(const attention *at, const block *b, workspace *space)
{
    const uint8_t *k = packed_k_of(at, b->slot, b->key);
    if (at->bf16 == NULL) {
        const float *q = at->q + b->query * at->ldq + b->head * at->dim;
        scores(at, q, b->queries, b->keys, (const float *)(const void *)k, space);
        return;
    }
    zi_cpu_tiles tiles = {
        .a = space->q,
        .a_block = at->chunks * at->mr * ZI_CHUNK,
        .a_row = ZI_CHUNK,
        .b = k,
        .b_panel = at->chunks * at->nr * ZI_CHUNK,
        .c = (uint8_t *)space->s,
        .c_panel = at->nr * 4,
        .c_row = S_STRIDE * 4,
        .rows = b->queries,
        .panels = zi_ceil_div(b->keys, at->nr),
    };
    multiply(at, tiles, at->chunks);
}

/* Turns the scores into the weights of softmax: in place, or packed. space->factors: what the outputs so far must be
 * multiplied by. */
static void softmax_block(const attention *at, const block *b, const workspace *space)
{
    zi_cpu_softmax softmax = {
        .s = space->s,
        .ld = S_STRIDE,
        .rows = b->queries,
        .keys = b->keys,
        .seen = at->causal ? b->query + 1 - b->key : b->keys,
        .step = at->causal,
        .padded = zi_round_up(b->keys, 32),
        .scale = at->scale,
        .max = space->maxima,
        .sum = space->sums,
        .factors = space->factors,
        .out = space->p,
        .mr = at->mr,
        .chunks = KEYS / 32,
    };
    if (at->bf16 != NULL) {
        at->kernels->softmax_bf16(&softmax);
        return;
    }
    for (int64_t i = 0; i < b->queries; i++)
        space->factors[i] = at->kernels->softmax(space->s + i * S_STRIDE, zi_softmax_seen(&softmax, i), b->keys,
                                                 at->scale, &space->maxima[i], &space->sums[i]);
}

/* o [queries][padded_dim] += p [queries][keys] v */
static void add_outputs(const attention *at, const block *b, workspace *space)
{
    const uint8_t *v = packed_v_of(at, b->slot, b->key);
    if (at->bf16 == NULL) {
        add_values(at, b->queries, b->keys, (const float *)(const void *)v, space);
        return;
    }
    zi_cpu_tiles tiles = {
        .a = space->p,
        .a_block = KEYS / 32 * at->mr * ZI_CHUNK,
        .a_row = ZI_CHUNK,
        .b = v,
        .b_panel = KEYS / 32 * at->nr * ZI_CHUNK,
        .c = (uint8_t *)space->o,
        .c_panel = at->nr * 4,
        .c_row = at->padded_dim * 4,
        .rows = b->queries,
        .panels = at->padded_dim / at->nr,
        .accumulate = 1,
    };
    multiply(at, tiles, zi_ceil_div(b->keys, 32));
}

/* Adds a block of keys to the outputs of a block of queries. */
static void attend_block(const attention *at, const block *b, workspace *space)
{
    find_scores(at, b, space);
    softmax_block(at, b, space);
    for (int64_t i = 0; i < b->queries; i++) {
        float *o = space->o + i * at->padded_dim;
        if (space->factors[i] != 1)
            at->kernels->multiply(o, o, space->factors[i], at->padded_dim);
    }
    add_outputs(at, b, space);
}

/* Writes o * factor, the output of one query and head. In a ZI_OPERAND a head is whole chunks. */
static void write_output(const attention *at, int64_t head, int64_t query, float *o, float factor)
{
    query += at->first;
    if (at->o.dtype != ZI_OPERAND) {
        at->kernels->multiply(zi_f32(&at->o) + query * at->o.ld + head * at->dim, o, factor, at->dim);
        return;
    }
    at->kernels->multiply(o, o, factor, at->dim);
    zi_cpu_pack_numbers(at->cpu, &at->o, query, head * at->dim, o, at->dim);
}

/* Some blocks of queries of one query head. */
static void attend_task(void *arg, int64_t task, int worker)
{
    const attention *at = arg;
    int64_t shared = at->heads / at->kv_heads;
    int64_t slot = task / at->tasks / shared, head = at->kv_first * shared + task / at->tasks;
    int64_t query = task % at->tasks * at->task_queries, queries = zi_min_int64(at->task_queries, at->queries - query);
    workspace space = workspace_of(at, worker);
    if (at->bf16 != NULL)
        pack_rows(at, at->q + query * at->ldq + head * at->dim, at->ldq, queries, at->dim, at->chunks, space.q);
    for (int64_t i = 0; i < at->task_queries * at->padded_dim; i++)
        space.o[i] = 0;
    for (int64_t i = 0; i < at->task_queries; i++) {
        space.maxima[i] = -INFINITY;
        space.sums[i] = 0;
    }
    for (int64_t key = 0; key < at->keys; key += KEYS)
        for (int64_t row = 0; row < queries; row += at->query_block) {
            int64_t rows = zi_min_int64(at->query_block, queries - row);
            int64_t seen = at->causal ? zi_min_int64(query + row + rows, at->keys) : at->keys, keys = seen - key;
            workspace part = from_row(at, space, row);
            const block b = {slot, head, query + row, rows, key, zi_min_int64(KEYS, keys)};
            if (keys > 0)
                attend_block(at, &b, &part);
        }
    for (int64_t i = 0; i < queries; i++)
        write_output(at, head, query + i, space.o + i * at->padded_dim, 1 / space.sums[i]);
}

/* The output of a query does not depend on this choice. */
static void choose_tasks(attention *at, int threads)
{
    at->query_block = QUERIES / at->mr * at->mr;
    int64_t blocks = zi_ceil_div(at->queries, at->query_block);
    int64_t count = zi_max_int64(1, zi_min_int64(BLOCKS, blocks * at->heads / (TASKS * threads)));
    at->task_queries = count * at->query_block;
    at->tasks = zi_ceil_div(at->queries, at->task_queries);
}

static zimage_status compute_sequence(zi_run *run, attention *at)
{
    zi_pool *pool = zi_cpu_of(run)->pool;
    int64_t one_head = at->padded_keys * (key_bytes(at) + value_bytes(at)), shared = at->heads / at->kv_heads;
    int64_t group = zi_max_int64(1, zi_min_int64(at->kv_heads, PACKED / one_head));
    float *packed;
    choose_tasks(at, zi_pool_threads(pool));
    ZI_TRY(zi_host_floats(run, group * one_head / 4, "attention", &packed));
    at->packed_k = (uint8_t *)packed;
    at->packed_v = at->packed_k + group * at->padded_keys * key_bytes(at);
    ZI_TRY(zi_cpu_worker_buffers(run, zi_max_int64(buffer_floats(at), at->nr * key_bytes(at) / 4), "attention",
                                 &at->buffers));
    for (at->kv_first = 0; at->kv_first < at->kv_heads; at->kv_first += group) {
        at->group = zi_min_int64(group, at->kv_heads - at->kv_first);
        zi_cpu_run_tasks(run, pack_task, at, at->group * at->key_blocks);
        zi_cpu_run_tasks(run, attend_task, at, at->group * shared * at->tasks);
    }
    return ZIMAGE_OK;
}

/* The arguments of a call, but o. */
typedef struct arguments {
    const zi_tensor *q, *k, *v;
    const zi_attention *shape;
} arguments;

static zimage_status compute(zi_run *run, const arguments *args, const zi_tensor *o)
{
    const zi_cpu *cpu = zi_cpu_of(run);
    const zi_attention *shape = args->shape;
    const zi_tensor *q = args->q, *k = args->k, *v = args->v;
    for (int i = 0; i < zi_sequence_count(shape); i++) {
        const zi_sequence rows = zi_sequence_of(shape, q, k, i);
        attention at = {
            .cpu = cpu,
            .kernels = cpu->kernels,
            .bf16 = cpu->bf16,
            .mr = cpu->bf16 != NULL ? cpu->bf16->mr : cpu->kernels->mr,
            .nr = cpu->bf16 != NULL ? cpu->bf16->nr : cpu->kernels->nr,
            .q = zi_f32(q) + rows.query * q->ld,
            .k = zi_f32(k) + rows.key * k->ld,
            .v = zi_f32(v) + rows.key * v->ld,
            .o = *o,
            .first = rows.query,
            .ldq = q->ld,
            .ldk = k->ld,
            .ldv = v->ld,
            .queries = rows.queries,
            .keys = rows.keys,
            .heads = shape->heads,
            .kv_heads = shape->kv_heads,
            .dim = shape->head_dim,
            .causal = shape->causal,
            .padded_keys = zi_round_up(rows.keys, KEYS),
            .key_blocks = zi_ceil_div(rows.keys, KEYS),
            .chunks = zi_ceil_div(shape->head_dim, 32),
            .scale = (float)(1 / sqrt((double)shape->head_dim)),
        };
        at.padded_dim = zi_round_up(at.dim, at.nr);
        zi_arena_mark mark = zi_host_mark(run);
        zimage_status status = compute_sequence(run, &at);
        zi_host_release(run, mark);
        ZI_TRY(status);
    }
    return ZIMAGE_OK;
}

/* To a ZI_OPERAND that does not take one head at a time. */
static zimage_status compute_whole(zi_run *run, const arguments *args, const zi_tensor *o)
{
    zi_tensor plain;
    ZI_TRY(zi_host_alloc(run, &plain, 2, o->shape));
    ZI_TRY(compute(run, args, &plain));
    zi_cpu_pack_all(run, o, zi_f32(&plain));
    return ZIMAGE_OK;
}

zimage_status zi_cpu_attention(zi_run *run, zi_tensor *o, const zi_tensor *q, const zi_tensor *k, const zi_tensor *v,
                               const zi_attention *shape)
{
    const arguments args = {q, k, v, shape};
    assert(shape->heads % shape->kv_heads == 0 && (!shape->causal || zi_row_count(q) == zi_row_count(k)));
    assert(zi_features(q) == shape->heads * shape->head_dim && zi_features(k) == shape->kv_heads * shape->head_dim);
    assert(zi_tensor_count(v) == zi_tensor_count(k) && zi_tensor_count(o) == zi_tensor_count(q));
    assert(shape->key_length <= zi_row_count(k));
    zi_arena_mark mark = zi_host_mark(run);
    int by_heads = o->dtype != ZI_OPERAND || (zi_cpu_takes_parts(o) && shape->head_dim % 32 == 0);
    zimage_status status = by_heads ? compute(run, &args, o) : compute_whole(run, &args, o);
    zi_host_release(run, mark);
    return status;
}
