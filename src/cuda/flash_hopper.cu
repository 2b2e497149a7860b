/*
 * FlashAttention-3 (Shah et al. 2024, arXiv 2407.08608) for sm_90a: heads of 128, no causal mask. A block computes 128
 * queries of one head at a time, each of its two warp groups 64 of them. Two threads of a third warp group let the copy
 * engine fetch tiles of 128 keys and values. Logits, weights and sums stay in registers.
 *
 * The warp groups take turns: while one multiplies, the other one computes its softmax. A warp group multiplies the
 * next tile's keys and this tile's values together.
 *
 * A weight is 2^(logit - top), and top is the row's largest logit so far. Where a larger one comes, all sums of the row
 * must be rescaled. As in FlashAttention-4 that is put off until a weight would be more than 2^8. The sum of the
 * weights grows as they do, and the result is divided by it, so nothing changes but the range of the numbers.
 *
 * Blocks are persistent: they go from tile to tile.
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
#define TURN        (1 + MULTIPLIERS) /* the first warp group's turn; barrier 1 + group is of that group alone */
#define BARRIERS    (2 * MULTIPLIERS + 4 * STAGES)
#define SHARED      (MULTIPLIERS * QUERY_BYTES + 2 * STAGES * KEY_BYTES + 1024 + 8 * BARRIERS)

typedef struct hopper_args {
    CUtensorMap q, k, v, o;
    int heads, share;                      /* share: query heads of a key head */
    int query_tiles, key_tiles, last_keys; /* last_keys: of the last tile */
    float scale;                           /* of the logits, times log2(e) */
} hopper_args;

#ifdef ZI_SM90A_PASS
typedef struct hopper_room {
    uint8_t *q, *k, *v;
    uint64_t *q_full, *q_empty; /* of each warp group */
    uint64_t *k_full, *k_empty, *v_full, *v_empty;
} hopper_room;

static __device__ __forceinline__ void advance(ring &at)
{
    if (++at.stage == STAGES) {
        at.stage = 0;
        at.parity ^= 1;
    }
}

/* Fetches rows from `row` on of a head, which begins at `column`, in two boxes. */
static __device__ __forceinline__ void load_rows(uint8_t *to, int box_bytes, const CUtensorMap *map, int column,
                                                 int row, uint64_t *full)
{
    barrier_expect(full, 2 * box_bytes);
    tile_load(to, map, column, row, full);
    tile_load(to + box_bytes, map, column + HALF_DIM, row, full);
}

static __device__ void read_keys(const hopper_args &args, const hopper_room &at)
{
    ring ring = {0, 1};
    for (int tile = blockIdx.x; tile < args.heads * args.query_tiles; tile += gridDim.x) {
        const int column = tile / args.query_tiles / args.share * DIM;
        for (int i = 0; i < args.key_tiles; i++, advance(ring)) {
            const int stage = ring.stage;
            barrier_wait(&at.k_empty[stage], ring.parity);
            load_rows(at.k + stage * KEY_BYTES, KEY_BOX, &args.k, column, i * KEYS, &at.k_full[stage]);
            barrier_wait(&at.v_empty[stage], ring.parity);
            load_rows(at.v + stage * KEY_BYTES, KEY_BOX, &args.v, column, i * KEYS, &at.v_full[stage]);
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
    for (int tile = blockIdx.x; tile < args.heads * args.query_tiles; tile += gridDim.x, parity ^= 1)
        for (int group = 0; group < MULTIPLIERS; group++) {
            barrier_wait(&at.q_empty[group], parity);
            load_rows(at.q + group * QUERY_BYTES, QUERY_BOX, &args.q, tile / args.query_tiles * DIM,
                      first_query(args, tile, group), &at.q_full[group]);
        }
}

/* s = q k^T */
static __device__ __forceinline__ void multiply_keys(float (&s)[LOGITS], const uint8_t *queries, const uint8_t *keys)
{
    const uint64_t q = tile_descriptor(queries), k = tile_descriptor(keys);
#pragma unroll
    for (int i = 0; i < DIM / 16; i++)
        product_64x128(s, q + i / 4 * (QUERY_BOX / 16) + i % 4 * 2, k + i / 4 * (KEY_BOX / 16) + i % 4 * 2, i > 0);
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

static __device__ __forceinline__ void leave_stage(uint64_t *empty)
{
    if (threadIdx.x % GROUP == 0)
        barrier_arrive(empty);
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

/* 64 queries of each tile of the block. */
static __device__ void attend(const hopper_args &args, const hopper_room &at)
{
    const int group = __shfl_sync(~0u, threadIdx.x / GROUP, 0) - 1, tiles = args.heads * args.query_tiles;
    uint8_t *queries = at.q + group * QUERY_BYTES;
    ring k = {0, 0}, v = {0, 0};
    uint32_t parity = 0;
    if (group == 1)
        end_turn(group); /* the other one begins */
    for (int tile = blockIdx.x; tile < tiles; tile += gridDim.x, parity ^= 1) {
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
        if (args.key_tiles == 1)
            hide(s, args.last_keys);
        softmax(s, r, args.scale);
        pack_weights(p, s);
        for (int i = 1; i < args.key_tiles; i++) {
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
            if (i + 1 == args.key_tiles)
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
        multiply_values(o, p, at.v + v.stage * KEY_BYTES, args.key_tiles > 1);
        products_commit();
        if (group == 0 || tile + (int)gridDim.x < tiles)
            end_turn(group);
        float factor[2];
#pragma unroll
        for (int h = 0; h < 2; h++) {
            float sum = r.sum[h];
            sum += __shfl_xor_sync(~0u, sum, 1);
            sum += __shfl_xor_sync(~0u, sum, 2);
            factor[h] = 1.0f / sum;
        }
        products_wait<0>();
        products_end(o);
        leave_stage(&at.v_empty[v.stage]);
        advance(v);
        write_rows(queries, o, factor);
        tile_store_fence();
        barrier_of_threads(1 + group, GROUP);
        if (threadIdx.x % GROUP == 0) {
            const int column = tile / args.query_tiles * DIM, row = first_query(args, tile, group);
            tile_store(&args.o, column, row, queries);
            tile_store(&args.o, column + HALF_DIM, row, queries + QUERY_BOX);
            tile_store_commit();
            tile_store_wait_read();
            barrier_arrive(&at.q_empty[group]);
        }
    }
}

/* o may be q: a warp group's queries have been read when it writes there, and nothing else reads them. */
static __global__ void __launch_bounds__((1 + MULTIPLIERS) * GROUP, 1)
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
            barrier_init(&at.k_empty[i], MULTIPLIERS);
            barrier_init(&at.v_full[i], 1);
            barrier_init(&at.v_empty[i], MULTIPLIERS);
        }
        barrier_init_done();
    }
    __syncthreads();
    if (threadIdx.x < GROUP) {
        fewer_registers<24>();
        if (threadIdx.x == 0)
            read_keys(args, at);
        else if (threadIdx.x == 32)
            read_queries(args, at);
    } else {
        more_registers<240>();
        attend(args, at);
    }
}
#else
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

extern "C" cudaError_t zi_cuda_flash_hopper(const zi_cuda_attention *a, cudaStream_t stream)
{
    hopper_args args;
    int processors;
    cudaError_t code = count_processors(&processors);
    if (code == cudaSuccess)
        code = cudaFuncSetAttribute(flash_hopper, cudaFuncAttributeMaxDynamicSharedMemorySize, SHARED);
    if (code != cudaSuccess)
        return code;
    args.heads = (int)a->heads;
    args.share = (int)(a->heads / a->kv_heads);
    args.query_tiles = (int)((a->queries + MULTIPLIERS * QUERIES - 1) / (MULTIPLIERS * QUERIES));
    args.key_tiles = (int)((a->keys + KEYS - 1) / KEYS);
    args.last_keys = (int)(a->keys - (int64_t)(args.key_tiles - 1) * KEYS);
    args.scale = LOG2_E / sqrtf((float)DIM);
    if (!describe_heads(&args.q, a->q, a->queries, a->heads, a->ldq, QUERIES) ||
        !describe_heads(&args.k, a->k, a->keys, a->kv_heads, a->ldk, KEYS) ||
        !describe_heads(&args.v, a->v, a->keys, a->kv_heads, a->ldv, KEYS) ||
        !describe_heads(&args.o, a->o, a->queries, a->heads, a->ldo, QUERIES))
        return cudaErrorInvalidValue;
    const int tiles = args.heads * args.query_tiles, blocks = tiles < processors ? tiles : processors;
    flash_hopper<<<blocks, (1 + MULTIPLIERS) * GROUP, SHARED, stream>>>(args);
    return cudaGetLastError();
}
#endif
