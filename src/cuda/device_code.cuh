/* What kernels share: types, vectors, reductions, and choosing template arguments. */
#ifndef ZI_CUDA_DEVICE_CODE_CUH
#define ZI_CUDA_DEVICE_CODE_CUH

#include <cuda_bf16.h>
#include <cuda_fp16.h>

#include "cuda/kernels.h"
#include "cuda/ptx.cuh"

typedef __nv_bfloat16 bf16;

/* ZI_LAUNCH launches a kernel (in parentheses if it has commas). ZI_DYNAMIC_SHARED names its dynamic shared memory. */
#ifdef __CUDACC__
#define ZI_LAUNCH(kernel, grid, block, bytes, stream, ...) kernel<<<grid, block, bytes, stream>>>(__VA_ARGS__)
#define ZI_DYNAMIC_SHARED(type, name)                      extern __shared__ __align__(128) type name[]
#else /* the emulated GPU: tests/cuda_emulated */
#define ZI_LAUNCH(kernel, grid, block, bytes, stream, ...)                                                             \
    emulated_launch(kernel, grid, block, bytes, stream, __VA_ARGS__)
#define ZI_DYNAMIC_SHARED(type, name) type *name = (type *)emulated_dynamic_shared()
#endif

static __device__ __forceinline__ float to_float(float x)
{
    return x;
}
static __device__ __forceinline__ float to_float(bf16 x)
{
    return __bfloat162float(x);
}
static __device__ __forceinline__ float to_float(__half x)
{
    return __half2float(x);
}

template <typename T> static __device__ __forceinline__ T from_float(float x);
template <> __device__ __forceinline__ float from_float<float>(float x)
{
    return x;
}
template <> __device__ __forceinline__ bf16 from_float<bf16>(float x)
{
    return __float2bfloat16_rn(x);
}

/* Two numbers as bf16; `low` is the first in memory. */
static __device__ __forceinline__ uint32_t pack_bf16(float low, float high)
{
    __nv_bfloat162 pair = __floats2bfloat162_rn(low, high);
    return *reinterpret_cast<uint32_t *>(&pair);
}

/* W elements that one access moves. */
template <typename T, int W> struct alignas(sizeof(T) * W) vec {
    T v[W];
};

template <typename T, int W> static __device__ __forceinline__ vec<T, W> load(const T *p)
{
    return *reinterpret_cast<const vec<T, W> *>(p);
}

template <typename T, int W> static __device__ __forceinline__ void store(T *p, const vec<T, W> &r)
{
    *reinterpret_cast<vec<T, W> *>(p) = r;
}

/* Elements of T in 16 bytes. */
template <typename T> constexpr int wide = 16 / (int)sizeof(T);

/* Accurate for float32 results, fast for bf16 ones. */
template <typename T> static __device__ __forceinline__ float exp_of(float x)
{
    return sizeof(T) == sizeof(float) ? expf(x) : __expf(x);
}

#define LOG2_E 1.44269504f

/* x / (1 + e^-x). The gated product computes it for each sum, and what it takes there the products lose: so the fast
 * one has instructions for nothing but this, none for denormal numbers. */
template <typename T> static __device__ __forceinline__ float silu_of(float x)
{
    return sizeof(T) == sizeof(float) ? x / (1.0f + expf(-x)) : x * ptx_reciprocal(1.0f + ptx_exp2(-LOG2_E * x));
}

static __device__ __forceinline__ float factor_at(const float *w, int64_t i)
{
    return w != nullptr ? w[i] : 1.0f;
}

/* w[i], w[i + 1], ... W of them; NULL: ones. w + i must be a multiple of 16 bytes, or of W elements if these are
 * fewer. */
template <int W> static __device__ __forceinline__ vec<float, W> factors_at(const float *w, int64_t i)
{
    constexpr int Part = W < 4 ? W : 4;
    vec<float, W> all;
#pragma unroll
    for (int k = 0; k < W; k += Part) {
        vec<float, Part> part;
        if (w != nullptr)
            part = load<float, Part>(w + i + k);
#pragma unroll
        for (int j = 0; j < Part; j++)
            all.v[k + j] = w != nullptr ? part.v[j] : 1.0f;
    }
    return all;
}

static __device__ __forceinline__ float sum_of(float a, float b)
{
    return a + b;
}
static __device__ __forceinline__ float max_of(float a, float b)
{
    return fmaxf(a, b);
}

/* Reduces over the warp; every lane gets the result. */
template <float (*Of)(float, float)> static __device__ __forceinline__ float over_warp(float x)
{
#ifdef __CUDACC__
    for (int step = 16; step > 0; step /= 2)
        x = Of(x, __shfl_xor_sync(~0u, x, step));
    return x;
#else /* the same in one meeting of the lanes */
    return emulated_over_warp<Of>(x);
#endif
}

static __device__ __forceinline__ float warp_sum(float x)
{
    return over_warp<sum_of>(x);
}

static __device__ __forceinline__ float warp_max(float x)
{
    return over_warp<max_of>(x);
}

/* Reduces over the block; every thread gets the result. Calls may follow each other directly. neutral: the value that
 * changes no result. */
template <float (*Warp)(float)> static __device__ __forceinline__ float over_block(float x, float neutral)
{
    __shared__ float parts[32];
    int warp = threadIdx.x / 32, lane = threadIdx.x % 32, warps = (blockDim.x + 31) / 32;
    x = Warp(x);
    __syncthreads(); /* every thread has read the last call's result */
    if (lane == 0)
        parts[warp] = x;
    __syncthreads();
    return Warp(lane < warps ? parts[lane] : neutral);
}

/* Multiprocessors of the current GPU. */
static inline cudaError_t count_processors(int *processors)
{
    int device;
    cudaError_t code = cudaGetDevice(&device);
    return code == cudaSuccess ? cudaDeviceGetAttribute(processors, cudaDevAttrMultiProcessorCount, device) : code;
}

/* Blocks for a grid-stride loop over n elements or vectors (EACH). */
static inline unsigned blocks_for(int64_t n, int threads)
{
    int64_t blocks = (n + threads - 1) / threads;
    return (unsigned)(blocks < 1 ? 1 : blocks < 65535 ? blocks : 65535);
}

#define EACH(i, n)                                                                                                     \
    for (int64_t i = (int64_t)blockIdx.x * blockDim.x + threadIdx.x; i < (n); i += (int64_t)gridDim.x * blockDim.x)

/* Runs the code with T as the C++ type of an activation; returns cudaErrorInvalidValue for other types. */
#define WITH_TYPE(T, type, ...)                                                                                        \
    do {                                                                                                               \
        if ((type) == ZI_BF16) {                                                                                       \
            typedef bf16 T;                                                                                            \
            __VA_ARGS__;                                                                                               \
        } else if ((type) == ZI_F32) {                                                                                 \
            typedef float T;                                                                                           \
            __VA_ARGS__;                                                                                               \
        } else {                                                                                                       \
            return cudaErrorInvalidValue;                                                                              \
        }                                                                                                              \
    } while (0)

/* The same for the type of a stored weight. */
#define WITH_STORED(S, type, ...)                                                                                      \
    do {                                                                                                               \
        if ((type) == ZI_F16) {                                                                                        \
            typedef __half S;                                                                                          \
            __VA_ARGS__;                                                                                               \
        } else {                                                                                                       \
            WITH_TYPE(S, type, __VA_ARGS__);                                                                           \
        }                                                                                                              \
    } while (0)

/* Runs the code with W as the elements of one access: 16 bytes if that divides n and the pointers are aligned, else one
 * element. */
#define WITH_WIDTH(T, W, n, pointers, ...)                                                                             \
    do {                                                                                                               \
        if ((n) % wide<T> == 0 && ((uintptr_t)(pointers)) % 16 == 0) {                                                 \
            constexpr int W = wide<T>;                                                                                 \
            __VA_ARGS__;                                                                                               \
        } else {                                                                                                       \
            constexpr int W = 1;                                                                                       \
            __VA_ARGS__;                                                                                               \
        }                                                                                                              \
    } while (0)

#endif
