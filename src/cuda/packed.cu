/* Launches products with 4-bit weights: packed.cuh. */
#include "cuda/packed.h"

#ifdef __CUDACC__
#include "cuda/packed.cuh"
#include "cuda/tile_maps.cuh"

template <int Tokens, bool Gated>
static __global__ void __launch_bounds__(PACKED_THREADS, 1)
    packed(const __grid_constant__ packed_args args, const __grid_constant__ CUtensorMap x)
{
#ifdef ZI_SM90A_PASS
    packed_product<Tokens, Gated>(args, &x);
#endif
}

template <int Tokens, bool Gated>
static cudaError_t launch(const packed_args &args, const CUtensorMap &x, int processors, cudaStream_t stream)
{
    const int tiles = zi_packed_tiles(args.rows, args.out, Tokens, Gated), bytes = zi_packed_shared_bytes(Tokens);
    const int blocks = tiles < processors ? tiles : processors;
    cudaError_t code = cudaFuncSetAttribute(packed<Tokens, Gated>, cudaFuncAttributeMaxDynamicSharedMemorySize, bytes);
    if (code != cudaSuccess)
        return code;
    packed<Tokens, Gated><<<blocks, PACKED_THREADS, bytes, stream>>>(args, x);
    return cudaGetLastError();
}

extern "C" int zi_cuda_packed_fits(const zi_cuda_packed_args *a)
{
#ifdef ZI_HAS_SM90A
    int processors;
    return ((uintptr_t)a->y | (uintptr_t)a->x) % 16 == 0 && a->ldx % 8 == 0 && a->ldy % 8 == 0 &&
           zi_packed_fits(a->rows, a->out, a->in, 4, a->group, a->gated) &&
           count_processors(&processors) == cudaSuccess &&
           zi_packed_pays((int)a->rows, (int)a->out, (int)a->in, a->gated, processors) && has_tiles();
#else
    return 0;
#endif
}

extern "C" cudaError_t zi_cuda_packed(const zi_cuda_packed_args *a, cudaStream_t stream)
{
    packed_args args;
    CUtensorMap x;
    int processors;
    cudaError_t code = count_processors(&processors);
    if (code != cudaSuccess)
        return code;
    args.y = (bf16 *)a->y;
    for (int i = 0; i < 2; i++)
        args.w[i] = {(const uint8_t *)a->w[i].numbers, (const bf16 *)a->w[i].scales, (const bf16 *)a->w[i].biases};
    args.rows = (int)a->rows;
    args.out = (int)a->out;
    args.in = (int)a->in;
    args.group = a->group;
    args.ldy = a->ldy;
    const int tokens = zi_packed_tokens(args.rows, args.out, a->gated, processors);
    if (!describe_tiles(&x, {a->x, a->rows, a->in, a->ldx, 2, tokens, PACKED_STEP, 1}))
        return cudaErrorInvalidValue;
#define LAUNCH(n)                                                                                                      \
    if (tokens == (n))                                                                                                 \
        return a->gated ? launch<n, true>(args, x, processors, stream) : launch<n, false>(args, x, processors, stream);
    PACKED_EACH_TOKENS(LAUNCH)
#undef LAUNCH
    return cudaErrorInvalidValue;
}
#endif
