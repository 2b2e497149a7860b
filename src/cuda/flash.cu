/*
 * FlashAttention-2 (Dao 2023, arXiv 2307.08691): attention that never stores its weights. Products are bf16 by
 * mma.m16n8k16 with float32 sums. A block computes 128 queries of one head, a warp 16 of them. Keys and values come in
 * tiles; the copy of the next tile overlaps with the products of this one.
 *
 * Fragments (PTX ISA, mma.m16n8k16), with g = lane / 4 and t = lane % 4. A lane holds of A rows g and g + 8 at k = 2t,
 * 2t + 1, 2t + 8 and 2t + 9; of B column g at the same k; of C rows g and g + 8 at columns 2t and 2t + 1.
 */
#include "cuda/device_code.cuh"

#define WARPS   8
#define QUERIES (16 * WARPS)
#define KEYS    64
#define STAGES  2

/* The address of chunk c (8 elements) of a row of a tile. Chunks are swizzled: 8 rows of a column use different
 * banks. */
template <int Dim> static __device__ __forceinline__ bf16 *chunk_at(bf16 *tile, int row, int c)
{
    return tile + row * Dim + ((c ^ (row & 7)) * 8);
}

template <int Dim>
static __device__ __forceinline__ void copy_tile(bf16 *tile, const bf16 *rows, int64_t stride, int64_t first,
                                                 int64_t count)
{
    constexpr int chunks = Dim / 8;
    for (int i = threadIdx.x; i < KEYS * chunks; i += WARPS * 32) {
        int row = i / chunks, c = i % chunks;
        int valid = first + row < count;
        ptx_copy_16(chunk_at<Dim>(tile, row, c), rows + (valid ? first + row : 0) * stride + c * 8, valid);
    }
}

typedef struct flash_args {
    bf16 *o;
    const bf16 *q, *k, *v;
    int64_t ldo, ldq, ldk, ldv; /* elements from a token to the next */
    int64_t queries, keys, heads, kv_heads;
    float scale; /* of the logits, times log2(e) */
    int causal;
} flash_args;

/* s [16 queries][KEYS] = q k^T with a tile of keys. */
template <int Dim>
static __device__ __forceinline__ void logits(float s[KEYS / 8][4], const uint32_t q[Dim / 16][4], bf16 *tile)
{
    int lane = threadIdx.x % 32, row = lane % 8 + lane / 16 * 8, c = lane / 8 % 2;
#pragma unroll
    for (int n = 0; n < KEYS / 8; n++)
#pragma unroll
        for (int j = 0; j < 4; j++)
            s[n][j] = 0;
#pragma unroll
    for (int k = 0; k < Dim / 16; k++)
#pragma unroll
        for (int n = 0; n < KEYS / 16; n++) {
            uint32_t b[4];
            ptx_load_matrices(b, chunk_at<Dim>(tile, 16 * n + row, 2 * k + c));
            ptx_multiply(s[2 * n], q[k], b[0], b[1]);
            ptx_multiply(s[2 * n + 1], q[k], b[2], b[3]);
        }
}

/* o += p v */
template <int Dim>
static __device__ __forceinline__ void add_products(float o[Dim / 8][4], const float p[KEYS / 8][4], bf16 *tile)
{
    int lane = threadIdx.x % 32, row = lane % 8 + lane / 8 % 2 * 8, c = lane / 16;
#pragma unroll
    for (int k = 0; k < KEYS / 16; k++) {
        const uint32_t a[4] = {pack_bf16(p[2 * k][0], p[2 * k][1]), pack_bf16(p[2 * k][2], p[2 * k][3]),
                               pack_bf16(p[2 * k + 1][0], p[2 * k + 1][1]),
                               pack_bf16(p[2 * k + 1][2], p[2 * k + 1][3])};
#pragma unroll
        for (int n = 0; n < Dim / 16; n++) {
            uint32_t b[4];
            ptx_load_transposed(b, chunk_at<Dim>(tile, 16 * k + row, 2 * n + c));
            ptx_multiply(o[2 * n], a, b[0], b[1]);
            ptx_multiply(o[2 * n + 1], a, b[2], b[3]);
        }
    }
}

/* Sets the logits of keys that a query does not see to -infinity. */
static __device__ __forceinline__ void hide(float s[KEYS / 8][4], const flash_args &a, int64_t first_key, int64_t query)
{
    int t = threadIdx.x % 4;
#pragma unroll
    for (int n = 0; n < KEYS / 8; n++)
#pragma unroll
        for (int j = 0; j < 4; j++) {
            int64_t key = first_key + 8 * n + 2 * t + j % 2;
            if (key >= a.keys || (a.causal && key > query + j / 2 * 8))
                s[n][j] = -INFINITY;
        }
}

/* The softmax of a tile: s becomes 2^((s - top) scale), where top is the row's largest logit so far. The sums of the
 * tiles before, in o and sum, are rescaled to the new top. Four lanes share each of a lane's two rows. */
template <int Dim>
static __device__ __forceinline__ void softmax_block(float s[KEYS / 8][4], float o[Dim / 8][4], float top[2],
                                                     float sum[2], float scale)
{
#pragma unroll
    for (int half = 0; half < 2; half++) {
        float largest = top[half];
#pragma unroll
        for (int n = 0; n < KEYS / 8; n++)
            largest = fmaxf(largest, fmaxf(s[n][2 * half], s[n][2 * half + 1]));
        largest = fmaxf(largest, __shfl_xor_sync(~0u, largest, 1));
        largest = fmaxf(largest, __shfl_xor_sync(~0u, largest, 2));
        float rescale = exp2f((top[half] - largest) * scale);
        top[half] = largest;
        sum[half] *= rescale;
#pragma unroll
        for (int n = 0; n < KEYS / 8; n++)
#pragma unroll
            for (int j = 2 * half; j < 2 * half + 2; j++) {
                s[n][j] = exp2f((s[n][j] - largest) * scale);
                sum[half] += s[n][j];
            }
#pragma unroll
        for (int n = 0; n < Dim / 8; n++) {
            o[n][2 * half] *= rescale;
            o[n][2 * half + 1] *= rescale;
        }
    }
}

template <int Dim>
static __device__ __forceinline__ void load_queries(uint32_t q[Dim / 16][4], const bf16 *rows, int64_t stride,
                                                    int64_t query, int64_t queries)
{
    int t = threadIdx.x % 4;
#pragma unroll
    for (int k = 0; k < Dim / 16; k++)
#pragma unroll
        for (int j = 0; j < 4; j++) {
            int64_t row = query + j % 2 * 8;
            q[k][j] = row < queries
                          ? *reinterpret_cast<const uint32_t *>(rows + row * stride + 16 * k + j / 2 * 8 + 2 * t)
                          : 0;
        }
}

template <int Dim>
static __device__ __forceinline__ void store_rows(bf16 *rows, int64_t stride, int64_t query, int64_t queries,
                                                  const float o[Dim / 8][4], float sum[2])
{
    int t = threadIdx.x % 4;
#pragma unroll
    for (int half = 0; half < 2; half++) {
        sum[half] += __shfl_xor_sync(~0u, sum[half], 1);
        sum[half] += __shfl_xor_sync(~0u, sum[half], 2);
        int64_t row = query + half * 8;
        if (row >= queries)
            continue;
        float factor = 1.0f / sum[half];
#pragma unroll
        for (int n = 0; n < Dim / 8; n++)
            *reinterpret_cast<uint32_t *>(rows + row * stride + 8 * n + 2 * t) =
                pack_bf16(o[n][2 * half] * factor, o[n][2 * half + 1] * factor);
    }
}

/* o may be q: a block reads its queries before it writes there, and no other block reads them. */
template <int Dim> static __global__ void __launch_bounds__(WARPS * 32) flash(const flash_args a)
{
    ZI_DYNAMIC_SHARED(bf16, k_tiles);
    bf16 *v_tiles = k_tiles + STAGES * KEYS * Dim;
    int64_t head = blockIdx.y, kv = head / (a.heads / a.kv_heads), block_first = (int64_t)blockIdx.x * QUERIES;
    int64_t query = block_first + threadIdx.x / 32 * 16 + threadIdx.x % 32 / 4;
    const bf16 *k = a.k + kv * Dim, *v = a.v + kv * Dim;
    int64_t end = a.causal && block_first + QUERIES < a.keys ? block_first + QUERIES : a.keys;
    uint32_t q[Dim / 16][4];
    float o[Dim / 8][4] = {}, top[2] = {-INFINITY, -INFINITY}, sum[2] = {0, 0};

    load_queries<Dim>(q, a.q + head * Dim, a.ldq, query, a.queries);
    copy_tile<Dim>(k_tiles, k, a.ldk, 0, a.keys);
    copy_tile<Dim>(v_tiles, v, a.ldv, 0, a.keys);
    ptx_commit_copies();
    for (int64_t first = 0, stage = 0; first < end; first += KEYS, stage ^= 1) {
        ptx_wait_copies<0>();
        __syncthreads(); /* this tile has arrived, and every warp has read the tile before */
        if (first + KEYS < end) {
            copy_tile<Dim>(k_tiles + (stage ^ 1) * KEYS * Dim, k, a.ldk, first + KEYS, a.keys);
            copy_tile<Dim>(v_tiles + (stage ^ 1) * KEYS * Dim, v, a.ldv, first + KEYS, a.keys);
            ptx_commit_copies();
        }
        float s[KEYS / 8][4];
        logits<Dim>(s, q, k_tiles + stage * KEYS * Dim);
        if (first + KEYS > a.keys || (a.causal && first + KEYS > block_first))
            hide(s, a, first, query);
        softmax_block<Dim>(s, o, top, sum, a.scale);
        add_products<Dim>(o, s, v_tiles + stage * KEYS * Dim);
    }
    store_rows<Dim>(a.o + head * Dim, a.ldo, query, a.queries, o, sum);
}

template <int Dim> static cudaError_t run(const flash_args *a, cudaStream_t stream)
{
    int bytes = 2 * STAGES * KEYS * Dim * (int)sizeof(bf16);
    cudaError_t status = cudaFuncSetAttribute(flash<Dim>, cudaFuncAttributeMaxDynamicSharedMemorySize, bytes);
    if (status != cudaSuccess)
        return status;
    dim3 blocks((unsigned)((a->queries + QUERIES - 1) / QUERIES), (unsigned)a->heads);
    ZI_LAUNCH(flash<Dim>, blocks, WARPS * 32, bytes, stream, *a);
    return cudaGetLastError();
}

int zi_cuda_flash_fits(const zi_cuda_attention *a)
{
    uintptr_t pointers = (uintptr_t)a->o | (uintptr_t)a->q | (uintptr_t)a->k | (uintptr_t)a->v;
    return (a->head_dim == 64 || a->head_dim == 128) && pointers % 16 == 0 &&
           (a->ldo | a->ldq | a->ldk | a->ldv) % wide<bf16> == 0;
}

cudaError_t zi_cuda_flash(const zi_cuda_attention *a, cudaStream_t stream)
{
    flash_args f;
    f.o = (bf16 *)a->o;
    f.q = (const bf16 *)a->q;
    f.k = (const bf16 *)a->k;
    f.v = (const bf16 *)a->v;
    f.ldo = a->ldo;
    f.ldq = a->ldq;
    f.ldk = a->ldk;
    f.ldv = a->ldv;
    f.queries = a->queries;
    f.keys = a->keys;
    f.heads = a->heads;
    f.kv_heads = a->kv_heads;
    f.scale = LOG2_E / sqrtf((float)a->head_dim);
    f.causal = a->causal;
    return a->head_dim == 64 ? run<64>(&f, stream) : a->head_dim == 128 ? run<128>(&f, stream) : cudaErrorInvalidValue;
}
