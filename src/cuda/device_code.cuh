/* What the kernel files share. */
#ifndef ZI_CUDA_DEVICE_CODE_CUH
#define ZI_CUDA_DEVICE_CODE_CUH

#include <cuda_bf16.h>
#include <cuda_fp16.h>

#include "cuda/kernels.h"

typedef __nv_bfloat16 bf16;

/* Starts a kernel (in parentheses, if it has commas); the shared memory that its launch asks for, by name. */
#ifdef __CUDACC__
#define ZI_LAUNCH(kernel, grid, block, bytes, stream, ...) kernel<<<grid, block, bytes, stream>>>(__VA_ARGS__)
#define ZI_DYNAMIC_SHARED(type, name)                      extern __shared__ __align__(128) type name[]
#else /* the emulated card: tests/cuda_emulated */
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

/* W numbers that are moved in one access. */
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

/* Numbers of T in 16 bytes. */
template <typename T> constexpr int wide = 16 / (int)sizeof(T);

/* For float32 results as exact as these, for bf16 ones fast. */
template <typename T> static __device__ __forceinline__ float exp_of(float x)
{
    return sizeof(T) == sizeof(float) ? expf(x) : __expf(x);
}

/* x / (1 + e^-x) */
template <typename T> static __device__ __forceinline__ float silu_of(float x)
{
    return sizeof(T) == sizeof(float) ? x / (1.0f + exp_of<T>(-x)) : __fdividef(x, 1.0f + exp_of<T>(-x));
}

static __device__ __forceinline__ float factor_at(const float *w, int64_t i)
{
    return w != nullptr ? w[i] : 1.0f;
}

/* w[i], w[i + 1], ... for i and w that are multiples of 16 bytes or of what W takes; NULL is ones. */
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

static __device__ __forceinline__ float warp_sum(float x)
{
    for (int step = 16; step > 0; step /= 2)
        x += __shfl_xor_sync(~0u, x, step);
    return x;
}

static __device__ __forceinline__ float warp_max(float x)
{
    for (int step = 16; step > 0; step /= 2)
        x = fmaxf(x, __shfl_xor_sync(~0u, x, step));
    return x;
}

/* Over the block; every thread gets it. May be called again at once. neutral: what warps that are not there count as. */
template <float (*Warp)(float)> static __device__ __forceinline__ float over_block(float x, float neutral)
{
    __shared__ float parts[32];
    int warp = threadIdx.x / 32, lane = threadIdx.x % 32, warps = (blockDim.x + 31) / 32;
    x = Warp(x);
    __syncthreads(); /* the last call's readers are done */
    if (lane == 0)
        parts[warp] = x;
    __syncthreads();
    return Warp(lane < warps ? parts[lane] : neutral);
}

/* The grid for n elements or vectors, a thread each, that go on in strides. */
static inline unsigned blocks_for(int64_t n, int threads)
{
    int64_t blocks = (n + threads - 1) / threads;
    return (unsigned)(blocks < 1 ? 1 : blocks < 65535 ? blocks : 65535);
}

#define EACH(i, n)                                                                                                     \
    for (int64_t i = (int64_t)blockIdx.x * blockDim.x + threadIdx.x; i < (n); i += (int64_t)gridDim.x * blockDim.x)

/* Calls `call` with the name T as the type of an activation. */
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

/* The same for a stored number. */
#define WITH_STORED(S, type, ...)                                                                                      \
    do {                                                                                                               \
        if ((type) == ZI_F16) {                                                                                        \
            typedef __half S;                                                                                          \
            __VA_ARGS__;                                                                                               \
        } else {                                                                                                       \
            WITH_TYPE(S, type, __VA_ARGS__);                                                                           \
        }                                                                                                              \
    } while (0)

/* Calls `call` with W as the widest access that divides n and fits the pointer's alignment: 16 bytes, or one number. */
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
