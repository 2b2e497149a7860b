/* The part of CUDA C++ that kernels use, for the emulated GPU. */
#ifndef ZI_EMULATED_CUDA_RUNTIME_H
#define ZI_EMULATED_CUDA_RUNTIME_H

#include <math.h>
#include <string.h>

#include <functional>
#include <tuple>
#include <type_traits>

#include "cuda_runtime_api.h"

#define __device__
#define __global__
#define __host__
#define __forceinline__ inline
#define __launch_bounds__(...)
#define __align__(n) alignas(n)
#define __restrict__ __restrict
/* One block runs at a time, so shared memory may be static; its section is filled with NaN before each block. */
#define __shared__ static __attribute__((section("emulated_shared")))

struct uint3 {
    unsigned x, y, z;
};

struct dim3 {
    unsigned x, y, z;
    constexpr dim3(unsigned x_ = 1, unsigned y_ = 1, unsigned z_ = 1) : x(x_), y(y_), z(z_)
    {
    }
};

/* Of the running thread. */
extern uint3 emulated_thread, emulated_block;
extern dim3 emulated_block_size, emulated_grid_size;
#define threadIdx emulated_thread
#define blockIdx  emulated_block
#define blockDim  emulated_block_size
#define gridDim   emulated_grid_size

/* ---- launching --------------------------------------------------------------------------------------------------- */

void emulated_enqueue(const void *kernel, dim3 grid, dim3 block, size_t shared_bytes, cudaStream_t stream,
                      std::function<void()> thread);
/* The dynamic shared memory of the running block. */
void *emulated_dynamic_shared(void);
/* Checks that a kernel's argument points to device or pinned memory. */
void emulated_check_pointer(const void *pointer);

template <typename A> static inline void emulated_check_argument(const A &argument)
{
    if constexpr (std::is_pointer_v<A>)
        emulated_check_pointer((const void *)argument);
}

/* Arguments are copied when the kernel is queued. */
template <typename... P, typename... A>
static inline void emulated_launch(void (*kernel)(P...), dim3 grid, dim3 block, size_t shared_bytes,
                                   cudaStream_t stream, A... arguments)
{
    std::tuple<std::remove_const_t<P>...> copies(arguments...);
    std::apply([](const auto &...each) { (emulated_check_argument(each), ...); }, copies);
    emulated_enqueue((const void *)kernel, grid, block, shared_bytes, stream,
                     [kernel, copies] { std::apply(kernel, copies); });
}

cudaError_t emulated_set_attribute(const void *kernel, cudaFuncAttribute attribute, int value);

template <typename F> static inline cudaError_t cudaFuncSetAttribute(F *kernel, cudaFuncAttribute attribute, int value)
{
    return emulated_set_attribute((const void *)kernel, attribute, value);
}

/* ---- barriers and shuffles --------------------------------------------------------------------------------------- */

/* Waits for all threads of the block. */
void __syncthreads(void);

/* Waits for the lanes in the mask. The last one calls `compute` with the operands of all lanes, NULL for others. */
void emulated_warp(unsigned mask, void *operand, void (*compute)(void *const operands[32]));

static inline void emulated_nothing(void *const operands[32])
{
    (void)operands;
}

static inline void __syncwarp(unsigned mask = ~0u)
{
    emulated_warp(mask, (void *)"", emulated_nothing);
}

template <typename T> struct emulated_exchange {
    T value, result;
    int step;
};

template <typename T> static inline void emulated_exchange_xor(void *const operands[32])
{
    for (int lane = 0; lane < 32; lane++) {
        emulated_exchange<T> *mine = (emulated_exchange<T> *)operands[lane];
        if (mine == nullptr)
            continue;
        const emulated_exchange<T> *other = (const emulated_exchange<T> *)operands[(lane ^ mine->step) & 31];
        mine->result = other != nullptr ? other->value : mine->value;
    }
}

template <typename T> static inline T __shfl_xor_sync(unsigned mask, T value, int step)
{
    emulated_exchange<T> exchange = {value, value, step};
    emulated_warp(mask, &exchange, emulated_exchange_xor<T>);
    return exchange.result;
}

/* Shuffles of 16, 8, 4, 2 and 1 lanes, each followed by x = Of(x, the other lane's x). */
template <float (*Of)(float, float)> static inline void emulated_reduce(void *const operands[32])
{
    float x[32], before[32];
    for (int lane = 0; lane < 32; lane++)
        x[lane] = operands[lane] != nullptr ? *(const float *)operands[lane] : 0;
    for (int step = 16; step > 0; step /= 2) {
        memcpy(before, x, sizeof(x));
        for (int lane = 0; lane < 32; lane++) /* a lane without another one gets its own x */
            x[lane] = Of(before[lane], before[operands[lane ^ step] != nullptr ? lane ^ step : lane]);
    }
    for (int lane = 0; lane < 32; lane++)
        if (operands[lane] != nullptr)
            *(float *)operands[lane] = x[lane];
}

template <float (*Of)(float, float)> static inline float emulated_over_warp(float x)
{
    emulated_warp(~0u, &x, emulated_reduce<Of>);
    return x;
}

/* One thread runs at a time, so plain arithmetic is atomic. */
template <typename T> static inline T atomicAdd(T *place, T value)
{
    T before = *place;
    *place = before + value;
    return before;
}

/* ---- arithmetic -------------------------------------------------------------------------------------------------- */

static inline float __fadd_rn(float a, float b)
{
    return a + b;
}

static inline float __fmul_rn(float a, float b)
{
    return a * b;
}

/* Close to a GPU's. A macro, as the C library declares a function of that name. */
#define __expf expf

struct float2 {
    float x, y;
};

static inline float2 make_float2(float x, float y)
{
    return float2{x, y};
}

#endif
