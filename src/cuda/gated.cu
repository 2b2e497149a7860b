/*
 * The gated product of the feed-forward layers as one kernel of sm_90a: y = silu(x w1^T) * (x w3^T). Neither product is
 * stored in device memory. Tiles have 128 rows and 88 columns of y, that is 128 rows of x, 88 rows of w1 and 88 of w3.
 * Two warp groups of a block take turns: one multiplies a tile while the other gates and stores the one before. One
 * thread of a third warp group lets the copy engine fetch the next stage. Two blocks are a cluster. They share the
 * weights, or for an odd last row tile the rows, and each fetches half of them. Blocks are persistent: they go from
 * tile to tile.
 */
#include "cuda/device_code.cuh"

#ifdef __CUDACC__
#include "cuda/hopper.cuh"
#include "cuda/tile_maps.cuh"

#define ROWS        128 /* of x and y, of a tile */
#define BLOCK_ROWS  64  /* of one product of a warp group */
#define BLOCKS      (ROWS / BLOCK_ROWS)
#define COLUMNS     88  /* of y, of a tile */
#define SUMS        88  /* of a thread, of a block of rows: half are of w1 */
#define STEP_BYTES  128 /* of each row of x and w, of a stage */
#define STAGES      5
#define GROUP       128 /* threads of a warp group */
#define MULTIPLIERS 2   /* warp groups that multiply */
#define TOGETHER    8   /* pairs of row tiles that go through the weights together: their rows stay in the L2 cache */
#define X_BYTES     (ROWS * STEP_BYTES)
#define W_BYTES     (COLUMNS * STEP_BYTES) /* of w1; of w3 as many */
#define STAGE_BYTES (X_BYTES + 2 * W_BYTES)
#define OUT_ROW     (COLUMNS * 2) /* bytes; 8 rows that are so far apart use different banks */
#define OUT_BYTES   (BLOCK_ROWS * OUT_ROW)
#define SHARED      (STAGES * STAGE_BYTES + MULTIPLIERS * OUT_BYTES + 1024 + 16 * STAGES)

typedef struct gated_args {
    CUtensorMap x, w, y;
    const float *x_scales, *w_scales; /* NULL: bf16 */
    int rows, out, row_tiles, column_tiles, steps;
} gated_args;

/* A tile's place in the grid of tiles. */
typedef struct place {
    int row, column;
    int shares_rows; /* the blocks of the cluster share rows, not weights */
} place;

static __host__ __device__ __forceinline__ int pairs_of(const gated_args &args)
{
    int odd = args.row_tiles % 2 != 0 ? (args.column_tiles + 1) / 2 : 0;
    return args.row_tiles / 2 * args.column_tiles + odd;
}

#ifdef ZI_SM90A_PASS
static __device__ __forceinline__ place place_of(const gated_args &args, int pair, int rank)
{
    int row_pairs = args.row_tiles / 2, whole = row_pairs * args.column_tiles;
    if (pair >= whole)
        return {args.row_tiles - 1, 2 * (pair - whole) + rank, 1};
    int group = pair / (TOGETHER * args.column_tiles), first = group * TOGETHER;
    int size = row_pairs - first < TOGETHER ? row_pairs - first : TOGETHER;
    int i = pair - first * args.column_tiles;
    return {2 * (first + i % size) + rank, i / size, 0};
}

static __device__ __forceinline__ void advance(ring &at, int stages)
{
    at.stage += stages;
    at.parity ^= at.stage / STAGES & 1;
    at.stage %= STAGES;
}

typedef struct room {
    uint8_t *stages, *out;
    uint64_t *full, *empty;
} room;

template <typename E> static __device__ void read_tiles(const gated_args &args, const room &at, int rank)
{
    constexpr int numbers = STEP_BYTES / (int)sizeof(E);
    const int up = args.out; /* w3's first row */
    ring ring = {0, 1};
    for (int pair = blockIdx.x / 2; pair < pairs_of(args); pair += gridDim.x / 2) {
        const place tile = place_of(args, pair, rank);
        const int row = tile.row * ROWS, column = tile.column * COLUMNS;
        for (int k = 0; k < args.steps; k++, advance(ring, 1)) {
            uint8_t *x = at.stages + ring.stage * STAGE_BYTES, *w = x + X_BYTES;
            uint64_t *full = &at.full[ring.stage];
            const int from = k * numbers;
            barrier_wait(&at.empty[ring.stage], ring.parity);
            barrier_expect(full, STAGE_BYTES);
            if (tile.shares_rows) {
                const int half = rank * (ROWS / 2);
                tile_load_all(x + half * STEP_BYTES, &args.x, from, row + half, full, 3);
                tile_load(w, &args.w, from, column, full);
                tile_load(w + W_BYTES, &args.w, from, up + column, full);
            } else {
                tile_load(x, &args.x, from, row, full);
                tile_load(x + X_BYTES / 2, &args.x, from, row + ROWS / 2, full);
                tile_load_all(w + rank * W_BYTES, &args.w, from, rank * up + column, full, 3);
            }
        }
    }
}

/* Gates sums [64 rows][w1's columns, then w3's] into bf16 in shared memory [64][COLUMNS]. */
template <typename E>
static __device__ __forceinline__ void gate(const gated_args &args, uint8_t *out, const float (&sums)[SUMS], int row,
                                            int column)
{
    const int warp = threadIdx.x / 32 % 4, lane = threadIdx.x % 32;
    float of_row[2] = {1, 1};
    if (sizeof(E) == 1)
        for (int h = 0; h < 2; h++)
            of_row[h] = args.x_scales[min(row + warp * 16 + lane / 4 + 8 * h, args.rows - 1)];
    uint8_t *line = out + (warp * 16 + lane % 16) * OUT_ROW;
#pragma unroll
    for (int j = 0; j < COLUMNS / 8; j++) {
        float2 a = {1, 1}, b = {1, 1};
        if (sizeof(E) == 1) { /* the last tile may have columns that y lacks */
            const int first = min(column + 8 * j + 2 * (lane % 4), args.out - 2);
            a = *(const float2 *)(args.w_scales + first);
            b = *(const float2 *)(args.w_scales + args.out + first);
        }
        uint32_t packed[2]; /* of rows lane / 4 and lane / 4 + 8 */
#pragma unroll
        for (int h = 0; h < 2; h++) {
            const int at = 4 * j + 2 * h;
            float g[2] = {sums[at], sums[at + 1]}, u[2] = {sums[SUMS / 2 + at], sums[SUMS / 2 + at + 1]};
            if (sizeof(E) == 1) {
                g[0] *= of_row[h] * a.x;
                g[1] *= of_row[h] * a.y;
                u[0] *= of_row[h] * b.x;
                u[1] *= of_row[h] * b.y;
            }
            packed[h] = pack_bf16(silu_of<bf16>(g[0]) * u[0], silu_of<bf16>(g[1]) * u[1]);
        }
        store_matrices(line + j * 16, packed[0], packed[1]);
    }
}

/* The products of a stage with a block of rows. */
template <typename E>
static __device__ __forceinline__ void multiply_stage(const uint8_t *stage, int block, int add, float (&sums)[SUMS])
{
    const uint64_t a = tile_descriptor(stage + block * (BLOCK_ROWS * STEP_BYTES));
    const uint64_t b = tile_descriptor(stage + X_BYTES);
#pragma unroll
    for (int part = 0; part < STEP_BYTES / 32; part++)
        product_64x176(sums, a + 2 * part, b + 2 * part, add || part > 0, E());
}

/* Lets both blocks of the cluster fill the stage again. */
static __device__ __forceinline__ void leave_stage(const room &at, int stage)
{
    const int thread = threadIdx.x % GROUP;
    if (thread < 2)
        barrier_arrive_at(&at.empty[stage], thread);
}

/* The products of the next stage, of block `lead` of the rows first; leaves the stage before. */
template <typename E>
static __device__ __forceinline__ void next_stage(const room &at, ring &ring, int &before, int lead, int add,
                                                  float (&of_lead)[SUMS], float (&of_other)[SUMS])
{
    const uint8_t *stage = at.stages + ring.stage * STAGE_BYTES;
    barrier_wait(&at.full[ring.stage], ring.parity);
    products_begin();
    multiply_stage<E>(stage, lead, add, of_lead);
    multiply_stage<E>(stage, 1 - lead, add, of_other);
    products_commit();
    products_wait<1>();
    if (before >= 0)
        leave_stage(at, before);
    before = ring.stage;
    advance(ring, 1);
}

/* The products of a tile. Another warp group (`next`: its barrier, or -1) may begin with its own when the last ones are
 * under way. Each stage begins with the block of rows that the stage before ended with: products in a row with the same
 * sums take less power. */
template <typename E>
static __device__ __forceinline__ void multiply_tile(const gated_args &args, const room &at, ring &ring, int next,
                                                     float (&first)[SUMS], float (&second)[SUMS])
{
    int before = -1;
    for (int k = 0; k + 1 < args.steps; k += 2) {
        next_stage<E>(at, ring, before, 0, k > 0, first, second);
        next_stage<E>(at, ring, before, 1, 1, second, first);
    }
    if (args.steps % 2 != 0)
        next_stage<E>(at, ring, before, 0, args.steps > 1, first, second);
    if (next >= 0)
        barrier_of_threads_arrive(next, MULTIPLIERS * GROUP);
    products_wait<0>();
    products_end(first);
    products_end(second);
    leave_stage(at, before);
}

/* The tiles of one of the two warp groups: every other one of the block. */
template <typename E> static __device__ void multiply_tiles(const gated_args &args, const room &at, int rank)
{
    const int group = __shfl_sync(~0u, threadIdx.x / GROUP, 0) - 1, thread = threadIdx.x % GROUP;
    const int turn = 1 + MULTIPLIERS, step = (int)gridDim.x / 2, pairs = pairs_of(args);
    uint8_t *out = at.out + group * OUT_BYTES;
    ring ring = {0, 0};
    advance(ring, group * args.steps);
    for (int pair = blockIdx.x / 2 + group * step; pair < pairs; pair += 2 * step, advance(ring, args.steps)) {
        const place tile = place_of(args, pair, rank);
        const int column = tile.column * COLUMNS;
        float sums[BLOCKS][SUMS];
        if (pair >= step) /* not the block's first */
            barrier_of_threads(turn + group, MULTIPLIERS * GROUP);
        multiply_tile<E>(args, at, ring, pair + step < pairs ? turn + 1 - group : -1, sums[0], sums[1]);
#pragma unroll
        for (int block = 0; block < BLOCKS; block++) {
            const int row = tile.row * ROWS + block * BLOCK_ROWS;
            if (thread == 0)
                tile_store_wait_read();
            barrier_of_threads(1 + group, GROUP);
            gate<E>(args, out, sums[block], row, column);
            tile_store_fence();
            barrier_of_threads(1 + group, GROUP);
            if (thread == 0) {
                tile_store(&args.y, column, row, out);
                tile_store_commit();
            }
        }
    }
    if (thread == 0)
        tile_store_wait_read();
}

template <typename E>
static __global__ void __cluster_dims__(2, 1, 1) __launch_bounds__((1 + MULTIPLIERS) * GROUP, 1)
    gated(const __grid_constant__ gated_args args)
{
    extern __shared__ uint8_t shared[];
    room at;
    at.stages = (uint8_t *)(((uintptr_t)shared + 1023) / 1024 * 1024);
    at.out = at.stages + STAGES * STAGE_BYTES;
    at.full = (uint64_t *)(at.out + MULTIPLIERS * OUT_BYTES);
    at.empty = at.full + STAGES;
    const int rank = (int)cluster_rank();
    if (threadIdx.x == 0) {
        for (int i = 0; i < STAGES; i++) {
            barrier_init(&at.full[i], 1);
            barrier_init(&at.empty[i], 2); /* the group whose stage it is, of both blocks */
        }
        barrier_init_done();
    }
    cluster_sync();
    if (threadIdx.x < GROUP) {
        fewer_registers<24>();
        if (threadIdx.x == 0)
            read_tiles<E>(args, at, rank);
    } else {
        more_registers<240>();
        multiply_tiles<E>(args, at, rank);
    }
    __syncwarp();
    cluster_sync(); /* the other block may still write to this one's shared memory */
}
#else
template <typename E> static __global__ void gated(const __grid_constant__ gated_args args)
{
}
#endif

/* ---- launching --------------------------------------------------------------------------------------------------- */

template <typename E> static cudaError_t launch(const gated_args &args, int processors, cudaStream_t stream)
{
    const int pairs = pairs_of(args);
    const int blocks = 2 * (pairs < processors / 2 ? pairs : processors / 2);
    cudaError_t code = cudaFuncSetAttribute(gated<E>, cudaFuncAttributeMaxDynamicSharedMemorySize, SHARED);
    if (code != cudaSuccess)
        return code;
    gated<E><<<blocks, (1 + MULTIPLIERS) * GROUP, SHARED, stream>>>(args);
    return cudaGetLastError();
}

extern "C" int zi_cuda_gated_fits(const zi_cuda_gated_args *a)
{
#ifdef ZI_HAS_SM90A
    const int64_t size_max = 1 << 20; /* tiles fit an int */
    const int64_t size = a->x_scales != nullptr ? 1 : 2;
    return a->rows <= size_max && a->out <= size_max && a->in <= size_max && a->out % 8 == 0 &&
           a->in * size % STEP_BYTES == 0 && a->ldx * size % 16 == 0 && a->ldy * 2 % 16 == 0 &&
           ((uintptr_t)a->y | (uintptr_t)a->x | (uintptr_t)a->w) % 16 == 0 && has_tiles();
#else
    return 0;
#endif
}

extern "C" cudaError_t zi_cuda_gated(const zi_cuda_gated_args *a, cudaStream_t stream)
{
    const int fp8 = a->x_scales != nullptr, size = fp8 ? 1 : 2;
    int processors;
    gated_args args;
    cudaError_t code = count_processors(&processors);
    if (code != cudaSuccess)
        return code;
    args.x_scales = a->x_scales;
    args.w_scales = a->w_scales;
    args.rows = (int)a->rows;
    args.row_tiles = (int)((a->rows + ROWS - 1) / ROWS);
    args.out = (int)a->out;
    args.column_tiles = (int)((a->out + COLUMNS - 1) / COLUMNS);
    args.steps = (int)(a->in * (fp8 ? 1 : 2) / STEP_BYTES);
    if (!describe_tiles(&args.x, {a->x, a->rows, a->in, a->ldx, size, BLOCK_ROWS, STEP_BYTES / size, 1}) ||
        !describe_tiles(&args.w, {a->w, 2 * a->out, a->in, a->in, size, COLUMNS, STEP_BYTES / size, 1}) ||
        !describe_tiles(&args.y, {a->y, a->rows, a->out, a->ldy, 2, BLOCK_ROWS, COLUMNS, 0}))
        return cudaErrorInvalidValue;
    return fp8 ? launch<__nv_fp8_e4m3>(args, processors, stream) : launch<bf16>(args, processors, stream);
}
#endif
