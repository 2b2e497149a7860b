/*
 * Streamed softmax attention. No buffer grows with queries x keys.
 *
 *   for groups of key heads whose packed K and V take at most PACKED floats
 *     pack: K to panels [key / nr][dim][nr], V to panels [key block][dim / nr][keys of the block][nr]
 *     for (query head, block of QUERIES)           one task
 *       for blocks of KEYS                         K and V of a block in L2 (128 x 128 x 4 bytes each)
 *         S = Q K^T                                panel by panel, [dim][nr] in L1
 *         row by row: running maximum, exp, running sum
 *         O = O * factor + P V                     panel by panel, [KEYS][nr] in L1
 *
 * A result depends on the block sizes but not on who computes it.
 */
#include <assert.h>
#include <math.h>
#include <string.h>

#include "cpu/table.h"

#define QUERIES 48  /* a multiple of every mr */
#define KEYS    128 /* a multiple of every nr */
#define PACKED  ((int64_t)2 << 20)
/* Rows of S are KEYS + 16 floats apart: a power of two would put a column into few cache sets. */
#define S_STRIDE (KEYS + 16)

_Static_assert(QUERIES % ZI_MR_MAX == 0 && QUERIES % 6 == 0 && KEYS % ZI_NR_MAX == 0, "tiles fill their blocks");

typedef struct attention {
    const zi_cpu_kernels *kernels;
    const float *q, *k, *v;
    float *o;
    int64_t queries, keys, heads, kv_heads, dim;
    int causal;
    int64_t padded_dim, padded_keys; /* multiples of nr and of KEYS */
    int64_t key_blocks, query_blocks;
    int64_t kv_first, group; /* key heads [kv_first, kv_first + group) are packed */
    float *packed_k, *packed_v;
    float scale;
    zi_worker_buffers buffers;
} attention;

static float *packed_k_of(const attention *at, int64_t slot, int64_t key)
{
    return at->packed_k + (slot * at->padded_keys + key) * at->dim;
}

static float *packed_v_of(const attention *at, int64_t slot, int64_t key)
{
    return at->packed_v + (slot * at->padded_keys + key) * at->padded_dim;
}

/* One block of keys of one key head. */
static void pack_task(void *arg, int64_t task, int worker)
{
    const attention *at = arg;
    int64_t nr = at->kernels->nr, slot = task / at->key_blocks, first = task % at->key_blocks * KEYS;
    int64_t count = zi_min(KEYS, at->keys - first), stride = at->kv_heads * at->dim;
    int64_t place = first * stride + (at->kv_first + slot) * at->dim;
    for (int64_t key = 0; key < count; key += nr)
        at->kernels->transpose(at->k + place + key * stride, stride, zi_min(nr, count - key), at->dim,
                               packed_k_of(at, slot, first + key), nr);
    for (int64_t column = 0; column < at->dim; column += nr) {
        float *target = packed_v_of(at, slot, first) + column * KEYS;
        int64_t width = zi_min(nr, at->dim - column);
        for (int64_t key = 0; key < count; key++, target += nr) {
            memcpy(target, at->v + place + key * stride + column, (size_t)width * sizeof(float));
            memset(target + width, 0, (size_t)(nr - width) * sizeof(float));
        }
    }
}

typedef struct workspace {
    float *s;             /* [QUERIES][S_STRIDE] */
    float *o;             /* [QUERIES][padded_dim] */
    float *maxima, *sums; /* [QUERIES] */
} workspace;

/* s [queries][keys] = q k^T, unscaled */
static void scores(const attention *at, const float *q, int64_t queries, int64_t keys, const float *packed,
                   workspace *space)
{
    int64_t mr = at->kernels->mr, nr = at->kernels->nr, stride = at->heads * at->dim;
    int64_t block = zi_even_block(at->dim, ZI_KC);
    for (int64_t key = 0; key < keys; key += nr, packed += at->dim * nr)
        for (int64_t first = 0; first < at->dim; first += block)
            for (int64_t i = 0; i < queries; i += mr) {
                const float *a[ZI_MR_MAX];
                for (int64_t r = 0; r < mr; r++)
                    a[r] = q + zi_min(i + r, queries - 1) * stride + first;
                at->kernels->gemm(1, zi_min(block, at->dim - first), a, 0, 0, packed + first * nr,
                                  space->s + i * S_STRIDE + key, S_STRIDE, first > 0);
            }
}

/* o [queries][padded_dim] += s [queries][keys] v */
static void add_values(const attention *at, int64_t queries, int64_t keys, const float *packed, workspace *space)
{
    int64_t mr = at->kernels->mr, nr = at->kernels->nr;
    for (int64_t column = 0; column < at->padded_dim; column += nr, packed += KEYS * nr)
        for (int64_t i = 0; i < queries; i += mr) {
            const float *a[ZI_MR_MAX];
            for (int64_t r = 0; r < mr; r++)
                a[r] = space->s + zi_min(i + r, queries - 1) * S_STRIDE;
            at->kernels->gemm(1, keys, a, 0, 0, packed, space->o + i * at->padded_dim + column, at->padded_dim, 1);
        }
}

/* Keys [key, key + keys) for a block of queries. */
static void attend_block(const attention *at, int64_t slot, int64_t head, int64_t query, int64_t key, int64_t keys,
                         workspace *space)
{
    int64_t queries = zi_min(QUERIES, at->queries - query);
    const float *q = at->q + (query * at->heads + head) * at->dim;
    scores(at, q, queries, keys, packed_k_of(at, slot, key), space);
    for (int64_t i = 0; i < queries; i++) {
        int64_t seen = at->causal ? zi_max(0, zi_min(keys, query + i + 1 - key)) : keys;
        float *o = space->o + i * at->padded_dim;
        float factor =
            at->kernels->softmax(space->s + i * S_STRIDE, seen, keys, at->scale, &space->maxima[i], &space->sums[i]);
        if (factor != 1)
            at->kernels->multiply(o, o, factor, at->padded_dim);
    }
    add_values(at, queries, keys, packed_v_of(at, slot, key), space);
}

/* One block of queries of one head. */
static void attend_task(void *arg, int64_t task, int worker)
{
    const attention *at = arg;
    int64_t shared = at->heads / at->kv_heads;
    int64_t slot = task / at->query_blocks / shared, head = at->kv_first * shared + task / at->query_blocks;
    int64_t query = task % at->query_blocks * QUERIES, queries = zi_min(QUERIES, at->queries - query);
    float *buffer = zi_worker_buffer(&at->buffers, worker);
    workspace space = {buffer, buffer + QUERIES * S_STRIDE, NULL, NULL};
    space.maxima = space.o + QUERIES * at->padded_dim;
    space.sums = space.maxima + QUERIES;
    for (int64_t i = 0; i < QUERIES * at->padded_dim; i++)
        space.o[i] = 0;
    for (int64_t i = 0; i < QUERIES; i++) {
        space.maxima[i] = -INFINITY;
        space.sums[i] = 0;
    }
    int64_t keys = at->causal ? query + queries : at->keys;
    for (int64_t key = 0; key < keys; key += KEYS)
        attend_block(at, slot, head, query, key, zi_min(KEYS, keys - key), &space);
    for (int64_t i = 0; i < queries; i++)
        at->kernels->multiply(at->o + ((query + i) * at->heads + head) * at->dim, space.o + i * at->padded_dim,
                              1 / space.sums[i], at->dim);
}

static zimage_status run(zi_ops *ops, attention *at)
{
    zi_pool *pool = zi_cpu_of(ops)->pool;
    int64_t one_head = at->padded_keys * (at->dim + at->padded_dim), shared = at->heads / at->kv_heads;
    int64_t group = zi_max(1, zi_min(at->kv_heads, PACKED / one_head));
    ZI_TRY(zi_host_floats(ops, group * at->padded_keys * at->dim, "attention", &at->packed_k));
    ZI_TRY(zi_host_floats(ops, group * at->padded_keys * at->padded_dim, "attention", &at->packed_v));
    ZI_TRY(zi_cpu_worker_buffers(ops, QUERIES * (S_STRIDE + at->padded_dim + 2), "attention", &at->buffers));
    for (at->kv_first = 0; at->kv_first < at->kv_heads; at->kv_first += group) {
        at->group = zi_min(group, at->kv_heads - at->kv_first);
        zi_pool_run(pool, pack_task, at, at->group * at->key_blocks);
        zi_pool_run(pool, attend_task, at, at->group * shared * at->query_blocks);
    }
    return ZIMAGE_OK;
}

zimage_status zi_cpu_attention(zi_ops *ops, zi_tensor *o, const zi_tensor *q, const zi_tensor *k, const zi_tensor *v,
                               const zi_attention_shape *shape)
{
    const zi_cpu_kernels *kernels = zi_cpu_of(ops)->kernels;
    attention at = {
        .kernels = kernels,
        .q = zi_f32(q),
        .k = zi_f32(k),
        .v = zi_f32(v),
        .o = zi_f32(o),
        .queries = zi_row_count(q),
        .keys = zi_row_count(k),
        .heads = shape->heads,
        .kv_heads = shape->kv_heads,
        .dim = shape->head_dim,
        .causal = shape->causal,
        .padded_dim = zi_round_up(shape->head_dim, kernels->nr),
        .padded_keys = zi_round_up(zi_row_count(k), KEYS),
        .key_blocks = zi_ceil_div(zi_row_count(k), KEYS),
        .query_blocks = zi_ceil_div(zi_row_count(q), QUERIES),
        .scale = (float)(1 / sqrt((double)shape->head_dim)),
    };
    assert(at.heads % at.kv_heads == 0 && (!at.causal || at.queries == at.keys));
    assert(zi_features(q) == at.heads * at.dim && zi_features(k) == at.kv_heads * at.dim);
    assert(zi_tensor_count(v) == zi_tensor_count(k) && zi_tensor_count(o) == zi_tensor_count(q));
    zi_arena_mark mark = zi_host_mark(ops);
    zimage_status status = run(ops, &at);
    zi_host_release(ops, mark);
    return status;
}
