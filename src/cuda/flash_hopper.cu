/*
 * FlashAttention-3 (Shah et al. 2024, arXiv 2407.08608) for sm_90a: heads of 128, no causal mask. A block computes 128
 * queries of one head at a time, each of its two warp groups 64 of them. Two threads of a third warp group let the copy
 * engine fetch tiles of 128 keys and values. Logits, weights and sums stay in registers.
 *
 * Two blocks are a cluster: they compute two tiles of queries of one head, and each fetches half of the keys and values
 * for both.
 *
 * The warp groups take turns: while one multiplies, the other one computes its softmax. A warp group multiplies the
 * next tile's keys and this tile's values together.
 *
 * A weight is 2^(logit - top), and top is the row's largest logit so far. Where a larger one comes, all sums of the row
 * must be rescaled. As in FlashAttention-4 that is put off until a weight would be more than 2^8. The sum of the
 * weights grows as they do, and the result is divided by it, so nothing changes but the range of the numbers.
 *
 * Clusters are persistent: they go from pair to pair of tiles. When each has computed equally many, the pairs that are
 * left are divided by keys, so that all clusters end together. The parts of such a tile stay in device memory, and a
 * second kernel adds them up (Flash-Decoding, Dao et al. 2023).
 */
#include "cuda/device_code.cuh"

#ifdef __CUDACC__
#include "cuda/hopper.cuh"
#include "cuda/tile_maps.cuh"

#define DIM         128        /* of a head */
#define HALF_DIM    64         /* columns of a box: 128 bytes */
#define QUERIES     64         /* of a warp group */
#define KEYS        128        /* of a tile */
#define GROUP       128        /* threads of a warp group */
#define MULTIPLIERS 2          /* warp groups that multiply */
#define STAGES      3          /* of keys, and of values */
#define LOGITS      (KEYS / 2) /* of a thread, of a tile: QUERIES * KEYS / GROUP */
#define SUMS        (DIM / 2)
#define QUERY_BOX   (QUERIES * HALF_DIM * 2)
#define QUERY_BYTES (2 * QUERY_BOX) /* of a warp group */
#define KEY_BOX     (KEYS * HALF_DIM * 2)
#define KEY_BYTES   (2 * KEY_BOX)
#define GROWTH      8.0f              /* log2: how much larger a weight may become before sums are rescaled */
#define PARTS_MAX   8                 /* of a tile: more would take longer to add up than they save */
#define SLICE       16                /* of a thread's sums, which one block adds up */
#define TURN        (1 + MULTIPLIERS) /* the first warp group's turn; barrier 1 + group is of that group alone */
/* Numbers of a part: of each thread its sums, then top and sum of its rows. */
#define PART_VECTORS (SUMS / 4 + 1)
#define PART_NUMBERS (MULTIPLIERS * GROUP * PART_VECTORS * 4)
#define BARRIERS     (2 * MULTIPLIERS + 4 * STAGES)
#define SHARED       (MULTIPLIERS * QUERY_BYTES + 2 * STAGES * KEY_BYTES + 1024 + 8 * BARRIERS)

typedef struct hopper_args {
    CUtensorMap q, k, v, o;
    int share;                             /* query heads of a key head */
    int query_tiles, key_tiles, last_keys; /* query_tiles: even; last_keys: of the last tile */
    int clusters, rounds;                  /* rounds: in which each cluster computes a pair of tiles */
    int rest, each;                        /* pairs after these rounds, and key tiles of the rest for each cluster */
    float *parts;
    float scale; /* of the logits, times log2(e) */
} hopper_args;

#ifdef ZI_SM90A_PASS
typedef struct hopper_room {
    uint8_t *q, *k, *v;
    uint64_t *q_full, *q_empty; /* of each warp group */
    uint64_t *k_full, *k_empty, *v_full, *v_empty;
} hopper_room;

/* A tile of queries, or some of its keys. */
typedef struct part {
    int tile;
    int first, count; /* key tiles */
} part;

/* Sets p to the n-th part of this block; returns 0 behind the last one. The rest's key tiles are one row, of which each
 * cluster has `each` in a row: of one pair, or the end of a pair and the beginning of the next. */
static __device__ __forceinline__ int find_part(const hopper_args &args, int n, part &p)
{
    const int cluster = blockIdx.x / 2, rank = blockIdx.x % 2, keys = args.key_tiles;
    if (n < args.rounds) {
        p = {2 * (cluster + n * args.clusters) + rank, 0, keys};
        return 1;
    }
    const int from = cluster * args.each, to = min(from + args.each, args.rest * keys);
    const int pair = from / keys + n - args.rounds, first = max(from, pair * keys), end = min(to, (pair + 1) * keys);
    p = {2 * (args.rounds * args.clusters + pair) + rank, first - pair * keys, end - first};
    return first < end;
}

static __device__ __forceinline__ void advance(ring &at)
{
    if (++at.stage == STAGES) {
        at.stage = 0;
        at.parity ^= 1;
    }
}

/* Fetches this block's half of a tile of keys or values for both blocks of the cluster. */
static __device__ __forceinline__ void load_half(uint8_t *to, const CUtensorMap *map, int column, int row, int rank,
                                                 uint64_t *full)
{
    uint8_t *half = to + rank * (KEY_BOX / 2);
    row += rank * (KEYS / 2);
    barrier_expect(full, KEY_BYTES);
    tile_load_all(half, map, column, row, full, 3);
    tile_load_all(half + KEY_BOX, map, column + HALF_DIM, row, full, 3);
}

static __device__ void read_keys(const hopper_args &args, const hopper_room &at)
{
    const int rank = (int)cluster_rank();
    ring ring = {0, 1};
    part part;
    for (int n = 0; find_part(args, n, part); n++) {
        const int column = part.tile / args.query_tiles / args.share * DIM;
        for (int i = part.first; i < part.first + part.count; i++, advance(ring)) {
            const int stage = ring.stage;
            barrier_wait(&at.k_empty[stage], ring.parity);
            load_half(at.k + stage * KEY_BYTES, &args.k, column, i * KEYS, rank, &at.k_full[stage]);
            barrier_wait(&at.v_empty[stage], ring.parity);
            load_half(at.v + stage * KEY_BYTES, &args.v, column, i * KEYS, rank, &at.v_full[stage]);
        }
    }
}

static __device__ __forceinline__ int first_query(const hopper_args &args, int tile, int group)
{
    return tile % args.query_tiles * (MULTIPLIERS * QUERIES) + group * QUERIES;
}

static __device__ void read_queries(const hopper_args &args, const hopper_room &at)
{
    uint32_t parity = 1;
    part part;
    for (int n = 0; find_part(args, n, part); n++, parity ^= 1)
        for (int group = 0; group < MULTIPLIERS; group++) {
            uint8_t *to = at.q + group * QUERY_BYTES;
            uint64_t *full = &at.q_full[group];
            const int column = part.tile / args.query_tiles * DIM, row = first_query(args, part.tile, group);
            barrier_wait(&at.q_empty[group], parity);
            barrier_expect(full, QUERY_BYTES);
            tile_load(to, &args.q, column, row, full);
            tile_load(to + QUERY_BOX, &args.q, column + HALF_DIM, row, full);
        }
}

/* s = q k^T */
static __device__ __forceinline__ void multiply_keys(float (&s)[LOGITS], const uint8_t *queries, const uint8_t *keys)
{
    const uint64_t q = tile_descriptor(queries), k = tile_descriptor(keys);
#pragma unroll
    for (int i = 0; i < DIM / 16; i++)
        product_64(s, q + i / 4 * (QUERY_BOX / 16) + i % 4 * 2, k + i / 4 * (KEY_BOX / 16) + i % 4 * 2, i > 0);
}

/* o (+)= p v */
static __device__ __forceinline__ void multiply_values(float (&o)[SUMS], const uint32_t (&p)[LOGITS / 2],
                                                       const uint8_t *values, int add)
{
    const uint64_t v = tile_descriptor(values, KEY_BOX);
#pragma unroll
    for (int i = 0; i < KEYS / 16; i++)
        product_64x128(o, p + 4 * i, v + i * (16 * HALF_DIM * 2 / 16), add || i > 0);
}

/* Sets the logits of keys from `keys` on to -infinity. */
static __device__ __forceinline__ void hide(float (&s)[LOGITS], int keys)
{
    const int first = threadIdx.x % 4 * 2;
#pragma unroll
    for (int i = 0; i < LOGITS; i++)
        if (i / 4 * 8 + first + i % 2 >= keys)
            s[i] = -INFINITY;
}

/* Of a thread's two rows, which it shares with three lanes. */
typedef struct rows {
    float top[2];    /* the logit whose weight is 1 */
    float sum[2];    /* of the thread's own weights */
    float factor[2]; /* by which what was added up before must be multiplied */
} rows;

/* s becomes 2^((s - top) scale). Returns whether top has changed in any row of the warp. */
static __device__ __forceinline__ int softmax(float (&s)[LOGITS], rows &r, float scale)
{
    float most[2];
#pragma unroll
    for (int h = 0; h < 2; h++) {
        float a = s[2 * h], b = s[2 * h + 1];
#pragma unroll
        for (int i = 4 + 2 * h; i < LOGITS; i += 4) {
            a = fmaxf(a, s[i]);
            b = fmaxf(b, s[i + 1]);
        }
        a = fmaxf(a, b);
        a = fmaxf(a, __shfl_xor_sync(~0u, a, 1));
        most[h] = fmaxf(a, __shfl_xor_sync(~0u, a, 2));
    }
    const int grown = __any_sync(~0u, (most[0] - r.top[0]) * scale > GROWTH || (most[1] - r.top[1]) * scale > GROWTH);
    if (grown) {
#pragma unroll
        for (int h = 0; h < 2; h++) {
            const float top = fmaxf(r.top[h], most[h]);
            r.factor[h] = ptx_exp2((r.top[h] - top) * scale);
            r.sum[h] *= r.factor[h];
            r.top[h] = top;
        }
    }
#pragma unroll
    for (int h = 0; h < 2; h++) {
        const float shift = r.top[h] * scale;
        float a = 0, b = 0;
#pragma unroll
        for (int i = 2 * h; i < LOGITS; i += 4) {
            s[i] = ptx_exp2(fmaf(s[i], scale, -shift));
            s[i + 1] = ptx_exp2(fmaf(s[i + 1], scale, -shift));
            a += s[i];
            b += s[i + 1];
        }
        r.sum[h] += a + b;
    }
    return grown;
}

static __device__ __forceinline__ void pack_weights(uint32_t (&p)[LOGITS / 2], const float (&s)[LOGITS])
{
#pragma unroll
    for (int i = 0; i < LOGITS / 2; i++)
        p[i] = pack_bf16(s[2 * i], s[2 * i + 1]);
}

/* Lets both blocks of the cluster fill the stage again. */
static __device__ __forceinline__ void leave_stage(uint64_t *empty)
{
    const int thread = threadIdx.x % GROUP;
    if (thread < 2)
        barrier_arrive_at(empty, thread);
}

/* Waits until the warp group may begin products, and lets the other one begin with its own. */
static __device__ __forceinline__ void begin_turn(int group)
{
    barrier_of_threads(TURN + group, MULTIPLIERS * GROUP);
    products_begin();
}

static __device__ __forceinline__ void end_turn(int group)
{
    barrier_of_threads_arrive(TURN + 1 - group, MULTIPLIERS * GROUP);
}

/* Writes o / sum over the warp group's queries in shared memory. */
static __device__ __forceinline__ void write_rows(uint8_t *queries, const float (&o)[SUMS], const float (&factor)[2])
{
    const int warp = threadIdx.x / 32 % 4, lane = threadIdx.x % 32, row = warp * 16 + lane % 16;
#pragma unroll
    for (int i = 0; i < SUMS; i += 8) {
        const int part = i / 4 + lane / 16; /* 8 columns */
        store_matrices(queries + part / 8 * QUERY_BOX + row * 128 + ((part % 8) ^ (row & 7)) * 16,
                       pack_bf16(o[i] * factor[0], o[i + 1] * factor[0]),
                       pack_bf16(o[i + 2] * factor[1], o[i + 3] * factor[1]),
                       pack_bf16(o[i + 4] * factor[0], o[i + 5] * factor[0]),
                       pack_bf16(o[i + 6] * factor[1], o[i + 7] * factor[1]));
    }
}

/* Where a thread's first four numbers of a part lie; the next ones are GROUP vectors further. pair: of the rest. A
 * cluster has parts of two pairs at most. */
static __device__ __forceinline__ float4 *part_of(const hopper_args &args, int cluster, int pair, int rank, int group)
{
    const int second = cluster * args.each < pair * args.key_tiles;
    const int64_t part = (2 * cluster + second) * 2 + rank;
    return (float4 *)(args.parts + part * PART_NUMBERS) + group * (GROUP * PART_VECTORS) + threadIdx.x % GROUP;
}

static __device__ __forceinline__ void store_part(float4 *to, const float (&o)[SUMS], const rows &r)
{
#pragma unroll
    for (int i = 0; i < SUMS / 4; i++)
        to[i * GROUP] = make_float4(o[4 * i], o[4 * i + 1], o[4 * i + 2], o[4 * i + 3]);
    to[SUMS / 4 * GROUP] = make_float4(r.top[0], r.top[1], r.sum[0], r.sum[1]);
}

/* 64 queries of each tile of the block. */
static __device__ void attend(const hopper_args &args, const hopper_room &at)
{
    const int group = __shfl_sync(~0u, threadIdx.x / GROUP, 0) - 1;
    uint8_t *queries = at.q + group * QUERY_BYTES;
    ring k = {0, 0}, v = {0, 0};
    uint32_t parity = 0;
    if (group == 1)
        end_turn(group); /* the other one begins */
    part part, after;
    int more = find_part(args, 0, part);
    for (int n = 1; more; n++, part = after, parity ^= 1) {
        const int whole = part.count == args.key_tiles, has_last = part.first + part.count == args.key_tiles;
        more = find_part(args, n, after);
        float o[SUMS], s[LOGITS];
        uint32_t p[LOGITS / 2];
        rows r = {{-INFINITY, -INFINITY}, {0, 0}, {0, 0}};
        barrier_wait(&at.q_full[group], parity);
        barrier_wait(&at.k_full[k.stage], k.parity);
        begin_turn(group);
        multiply_keys(s, queries, at.k + k.stage * KEY_BYTES);
        products_commit();
        end_turn(group);
        products_wait<0>();
        products_end(s);
        leave_stage(&at.k_empty[k.stage]);
        advance(k);
        if (part.count == 1 && has_last)
            hide(s, args.last_keys);
        softmax(s, r, args.scale);
        pack_weights(p, s);
        for (int i = 1; i < part.count; i++) {
            barrier_wait(&at.k_full[k.stage], k.parity);
            begin_turn(group);
            multiply_keys(s, queries, at.k + k.stage * KEY_BYTES);
            products_commit();
            barrier_wait(&at.v_full[v.stage], v.parity);
            multiply_values(o, p, at.v + v.stage * KEY_BYTES, i > 1);
            products_commit();
            end_turn(group);
            products_wait<1>();
            products_end(s);
            leave_stage(&at.k_empty[k.stage]);
            advance(k);
            if (i + 1 == part.count && has_last)
                hide(s, args.last_keys);
            const int grown = softmax(s, r, args.scale);
            products_wait<0>();
            products_end(o);
            leave_stage(&at.v_empty[v.stage]);
            advance(v);
            if (grown) {
#pragma unroll
                for (int j = 0; j < SUMS; j++)
                    o[j] *= r.factor[j / 2 % 2];
            }
            pack_weights(p, s);
        }
        barrier_wait(&at.v_full[v.stage], v.parity);
        begin_turn(group);
        multiply_values(o, p, at.v + v.stage * KEY_BYTES, part.count > 1);
        products_commit();
        if (group == 0 || more)
            end_turn(group);
#pragma unroll
        for (int h = 0; h < 2; h++) {
            r.sum[h] += __shfl_xor_sync(~0u, r.sum[h], 1);
            r.sum[h] += __shfl_xor_sync(~0u, r.sum[h], 2);
        }
        products_wait<0>();
        products_end(o);
        leave_stage(&at.v_empty[v.stage]);
        advance(v);
        if (!whole) {
            const int pair = part.tile / 2 - args.rounds * args.clusters;
            store_part(part_of(args, blockIdx.x / 2, pair, blockIdx.x % 2, group), o, r);
            barrier_of_threads(1 + group, GROUP);
            if (threadIdx.x % GROUP == 0)
                barrier_arrive(&at.q_empty[group]);
            continue;
        }
        const float factor[2] = {1.0f / r.sum[0], 1.0f / r.sum[1]};
        write_rows(queries, o, factor);
        tile_store_fence();
        barrier_of_threads(1 + group, GROUP);
        if (threadIdx.x % GROUP == 0) {
            const int column = part.tile / args.query_tiles * DIM, row = first_query(args, part.tile, group);
            tile_store(&args.o, column, row, queries);
            tile_store(&args.o, column + HALF_DIM, row, queries + QUERY_BOX);
            tile_store_commit();
            tile_store_wait_read();
            barrier_arrive(&at.q_empty[group]);
        }
    }
}

/* o may be q: a warp group's queries have been read when it writes there, and nothing else reads them. What is divided
 * by keys is written by the second kernel. */
static __global__ void __cluster_dims__(2, 1, 1) __launch_bounds__((1 + MULTIPLIERS) * GROUP, 1)
    flash_hopper(const __grid_constant__ hopper_args args)
{
    extern __shared__ uint8_t shared[];
    hopper_room at;
    at.q = (uint8_t *)(((uintptr_t)shared + 1023) / 1024 * 1024);
    at.k = at.q + MULTIPLIERS * QUERY_BYTES;
    at.v = at.k + STAGES * KEY_BYTES;
    at.q_full = (uint64_t *)(at.v + STAGES * KEY_BYTES);
    at.q_empty = at.q_full + MULTIPLIERS;
    at.k_full = at.q_empty + MULTIPLIERS;
    at.k_empty = at.k_full + STAGES;
    at.v_full = at.k_empty + STAGES;
    at.v_empty = at.v_full + STAGES;
    if (threadIdx.x == 0) {
        for (int i = 0; i < MULTIPLIERS; i++) {
            barrier_init(&at.q_full[i], 1);
            barrier_init(&at.q_empty[i], 1);
        }
        for (int i = 0; i < STAGES; i++) {
            barrier_init(&at.k_full[i], 1);
            barrier_init(&at.k_empty[i], 2 * MULTIPLIERS);
            barrier_init(&at.v_full[i], 1);
            barrier_init(&at.v_empty[i], 2 * MULTIPLIERS);
        }
        barrier_init_done();
    }
    cluster_sync();
    if (threadIdx.x < GROUP) {
        fewer_registers<40>();
        if (threadIdx.x == 0)
            read_keys(args, at);
        else if (threadIdx.x == 32)
            read_queries(args, at);
    } else {
        more_registers<232>();
        attend(args, at);
    }
    __syncwarp();
    cluster_sync(); /* the other block may still write to this one's shared memory */
}

/* Adds up the parts of the rest's tiles. blockIdx.x: a warp group's queries of a tile; blockIdx.y: a slice. */
static __global__ void __launch_bounds__(GROUP)
    add_parts(bf16 *out, int64_t ld, int queries, const __grid_constant__ hopper_args args)
{
    const int tile = blockIdx.x / MULTIPLIERS, group = blockIdx.x % MULTIPLIERS, pair = tile / 2, rank = tile % 2;
    const int begin = pair * args.key_tiles, first = begin / args.each, last = (begin + args.key_tiles - 1) / args.each;
    if (first == last)
        return;
    float o[SLICE] = {}, top[2] = {-INFINITY, -INFINITY}, sum[2] = {0, 0};
    for (int cluster = first; cluster <= last; cluster++) {
        const float4 *from = part_of(args, cluster, pair, rank, group), of_rows = from[SUMS / 4 * GROUP];
        const float its_top[2] = {of_rows.x, of_rows.y}, its_sum[2] = {of_rows.z, of_rows.w};
        float before[2], its[2]; /* by which the sums are multiplied */
#pragma unroll
        for (int h = 0; h < 2; h++) {
            const float larger = fmaxf(top[h], its_top[h]);
            before[h] = ptx_exp2((top[h] - larger) * args.scale);
            its[h] = ptx_exp2((its_top[h] - larger) * args.scale);
            sum[h] = sum[h] * before[h] + its_sum[h] * its[h];
            top[h] = larger;
        }
#pragma unroll
        for (int j = 0; j < SLICE; j += 4) {
            const float4 v = from[(blockIdx.y * SLICE + j) / 4 * GROUP];
            o[j] = o[j] * before[0] + v.x * its[0];
            o[j + 1] = o[j + 1] * before[0] + v.y * its[0];
            o[j + 2] = o[j + 2] * before[1] + v.z * its[1];
            o[j + 3] = o[j + 3] * before[1] + v.w * its[1];
        }
    }
    const int all = 2 * args.rounds * args.clusters + tile, lane = threadIdx.x % 32;
    const int column = all / args.query_tiles * DIM + blockIdx.y * (2 * SLICE) + lane % 4 * 2;
#pragma unroll
    for (int h = 0; h < 2; h++) {
        const int row = first_query(args, all, group) + threadIdx.x / 32 * 16 + lane / 4 + 8 * h;
        if (row < queries)
#pragma unroll
            for (int j = 0; j < SLICE; j += 4)
                *(uint32_t *)(out + row * ld + column + 2 * j) =
                    pack_bf16(o[j + 2 * h] / sum[h], o[j + 2 * h + 1] / sum[h]);
    }
}
#else
static __global__ void add_parts(bf16 *out, int64_t ld, int queries, const __grid_constant__ hopper_args args)
{
}
static __global__ void flash_hopper(const __grid_constant__ hopper_args args)
{
}
#endif

/* ---- launching --------------------------------------------------------------------------------------------------- */

extern "C" int zi_cuda_flash_hopper_fits(const zi_cuda_attention *a)
{
#ifdef ZI_HAS_SM90A
    const int64_t size_max = 1 << 20; /* rows and tiles fit an int */
    const uintptr_t pointers = (uintptr_t)a->o | (uintptr_t)a->q | (uintptr_t)a->k | (uintptr_t)a->v;
    return a->head_dim == DIM && !a->causal && a->queries > 0 && a->queries <= size_max && a->keys > 0 &&
           a->keys <= size_max && a->heads <= 1024 && pointers % 16 == 0 &&
           (a->ldo | a->ldq | a->ldk | a->ldv) % 8 == 0 && has_tiles();
#else
    return 0;
#endif
}

/* The boxes of a tensor of heads have 64 columns. */
static int describe_heads(CUtensorMap *map, const void *data, int64_t tokens, int64_t heads, int64_t ld, int box_rows)
{
    return describe_tiles(map, {data, tokens, heads * DIM, ld, 2, box_rows, HALF_DIM, 1});
}

static_assert(ZI_CUDA_FLASH_SCRATCH == 2 * PART_NUMBERS * sizeof(float), "kernels.h counts two parts of a block");

/* Divides the tiles among clusters; the rest by keys if `bytes` of scratch hold the parts. */
static void divide(hopper_args *args, int64_t heads, int64_t bytes)
{
    const int pairs = (int)heads * args->query_tiles / 2, clusters = args->clusters;
    const int64_t needed = (int64_t)2 * clusters * ZI_CUDA_FLASH_SCRATCH;
    args->rounds = pairs / clusters;
    args->rest = pairs % clusters;
    const int evenly = (args->rest * args->key_tiles + clusters - 1) / clusters;
    const int least = (args->key_tiles + PARTS_MAX - 1) / PARTS_MAX;
    args->each = bytes < needed ? args->key_tiles : evenly > least ? evenly : least;
}

extern "C" cudaError_t zi_cuda_flash_hopper(const zi_cuda_attention *a, void *scratch, size_t bytes,
                                            cudaStream_t stream)
{
    hopper_args args;
    int processors;
    cudaError_t code = count_processors(&processors);
    if (code == cudaSuccess)
        code = cudaFuncSetAttribute(flash_hopper, cudaFuncAttributeMaxDynamicSharedMemorySize, SHARED);
    if (code != cudaSuccess)
        return code;
    args.share = (int)(a->heads / a->kv_heads);
    args.query_tiles = (int)((a->queries + 2 * MULTIPLIERS * QUERIES - 1) / (2 * MULTIPLIERS * QUERIES)) * 2;
    args.key_tiles = (int)((a->keys + KEYS - 1) / KEYS);
    args.last_keys = (int)(a->keys - (int64_t)(args.key_tiles - 1) * KEYS);
    args.clusters = processors / 2;
    args.parts = (float *)scratch;
    args.scale = LOG2_E / sqrtf((float)DIM);
    divide(&args, a->heads, (int64_t)bytes);
    if (!describe_heads(&args.q, a->q, a->queries, a->heads, a->ldq, QUERIES) ||
        !describe_heads(&args.k, a->k, a->keys, a->kv_heads, a->ldk, KEYS / 2) ||
        !describe_heads(&args.v, a->v, a->keys, a->kv_heads, a->ldv, KEYS / 2) ||
        !describe_heads(&args.o, a->o, a->queries, a->heads, a->ldo, QUERIES))
        return cudaErrorInvalidValue;
    flash_hopper<<<2 * args.clusters, (1 + MULTIPLIERS) * GROUP, SHARED, stream>>>(args);
    if (args.rest > 0 && args.each < args.key_tiles) {
        const dim3 blocks(2 * args.rest * MULTIPLIERS, SUMS / SLICE);
        add_parts<<<blocks, GROUP, 0, stream>>>((bf16 *)a->o, a->ldo, (int)a->queries, args);
    }
    return cudaGetLastError();
}
#endif
