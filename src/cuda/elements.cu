/* Kernels that compute element by element or move elements: gates, biases, products of few rows, conversions,
 * patches. */
#include "cuda/device_code.cuh"

/* ---- element by element ------------------------------------------------------------------------------------------ */

template <typename T, int W> static __global__ void glu(T *y, int64_t ldy, const T *x, int64_t rows, int64_t n)
{
    int64_t vectors = n / W;
    EACH(i, rows * vectors)
    {
        int64_t row = i / vectors, column = i % vectors * W;
        vec<T, W> gate = load<T, W>(x + row * 2 * n + column), up = load<T, W>(x + row * 2 * n + n + column), out;
#pragma unroll
        for (int j = 0; j < W; j++)
            out.v[j] = from_float<T>(silu_of<T>(to_float(gate.v[j])) * to_float(up.v[j]));
        store<T, W>(y + row * ldy + column, out);
    }
}

extern "C" cudaError_t zi_cuda_glu(zi_dtype type, void *y, int64_t ldy, const void *x, int64_t rows, int64_t n,
                                   cudaStream_t stream)
{
    WITH_TYPE(T, type,
              WITH_WIDTH(T, W, n, (uintptr_t)x | (uintptr_t)y | (uintptr_t)ldy * sizeof(T),
                         ZI_LAUNCH((glu<T, W>), blocks_for(rows * n / W, 256), 256, 0, stream, (T *)y, ldy,
                                   (const T *)x, rows, n)));
    return cudaGetLastError();
}

template <typename T> static __global__ void silu(T *y, const T *x, int64_t n)
{
    EACH(i, n) y[i] = from_float<T>(silu_of<T>(to_float(x[i])));
}

extern "C" cudaError_t zi_cuda_silu(zi_dtype type, void *y, const void *x, int64_t n, cudaStream_t stream)
{
    WITH_TYPE(T, type, ZI_LAUNCH(silu<T>, blocks_for(n, 256), 256, 0, stream, (T *)y, (const T *)x, n));
    return cudaGetLastError();
}

/* kinds: for each part a zi_modulation in two bits. */
template <typename T> static __global__ void modulation(T *m, int parts, uint32_t kinds, int64_t n)
{
    EACH(i, parts * n)
    {
        uint32_t kind = kinds >> (2 * (i / n)) & 3;
        float x = to_float(m[i]);
        m[i] = from_float<T>(kind == ZI_MODULATION_TANH ? tanhf(x) : kind == ZI_MODULATION_ONE_PLUS ? 1 + x : x);
    }
}

extern "C" cudaError_t zi_cuda_modulation(zi_dtype type, void *m, int parts, const zi_modulation *kinds, int64_t n,
                                          cudaStream_t stream)
{
    uint32_t packed = 0;
    for (int i = 0; i < parts; i++)
        packed |= (uint32_t)kinds[i] << (2 * i);
    WITH_TYPE(T, type, ZI_LAUNCH(modulation<T>, blocks_for(parts * n, 256), 256, 0, stream, (T *)m, parts, packed, n));
    return cudaGetLastError();
}

template <typename T, int W>
static __global__ void add_bias(T *y, const T *x, const float *bias, int accumulate, int64_t count, uint32_t n)
{
    EACH(i, count)
    {
        vec<float, W> sum = factors_at<W>(bias, (uint32_t)i % n * W);
        vec<T, W> added, before;
        if (x != nullptr)
            added = load<T, W>(x + i * W);
        if (accumulate)
            before = load<T, W>(y + i * W);
#pragma unroll
        for (int j = 0; j < W; j++)
            before.v[j] =
                from_float<T>((bias != nullptr ? sum.v[j] : 0.0f) + (x != nullptr ? to_float(added.v[j]) : 0.0f) +
                              (accumulate ? to_float(before.v[j]) : 0.0f));
        store<T, W>(y + i * W, before);
    }
}

extern "C" cudaError_t zi_cuda_add_bias(zi_dtype type, void *y, const void *x, const float *bias, int accumulate,
                                        int64_t rows, int64_t n, cudaStream_t stream)
{
    WITH_TYPE(T, type,
              WITH_WIDTH(T, W, n, (uintptr_t)x | (uintptr_t)y | (uintptr_t)bias,
                         if (rows * (n / W) > UINT32_MAX) return cudaErrorInvalidValue;
                         ZI_LAUNCH((add_bias<T, W>), blocks_for(rows * (n / W), 256), 256, 0, stream, (T *)y,
                                   (const T *)x, bias, accumulate, rows * (n / W), (uint32_t)(n / W))));
    return cudaGetLastError();
}

/* A warp computes one output; a lane reads W inputs at a time. */
template <typename T, typename S, int W>
static __global__ void few(T *y, int64_t ldy, const float *x, int64_t ldx, const S *w, const float *bias,
                           int accumulate, int64_t rows, int64_t n, int64_t in)
{
    int64_t place = (int64_t)blockIdx.x * (blockDim.x / 32) + threadIdx.x / 32;
    if (place >= rows * n)
        return;
    const float *input = x + place / n * ldx;
    T *output = y + place / n * ldy + place % n;
    const S *weights = w + place % n * in;
    float sum = 0;
    for (int64_t i = threadIdx.x % 32 * W; i < in; i += 32 * W) {
        vec<S, W> v = load<S, W>(weights + i);
        vec<float, W> u = factors_at<W>(input, i);
#pragma unroll
        for (int j = 0; j < W; j++)
            sum += u.v[j] * to_float(v.v[j]);
    }
    sum = warp_sum(sum);
    if (threadIdx.x % 32 == 0)
        *output = from_float<T>(sum + (bias ? bias[place % n] : 0.0f) + (accumulate ? to_float(*output) : 0.0f));
}

extern "C" cudaError_t zi_cuda_few(zi_dtype type, void *y, int64_t ldy, const float *x, int64_t ldx, zi_dtype w_type,
                                   const void *w, const float *bias, int accumulate, int64_t rows, int64_t n,
                                   int64_t in, cudaStream_t stream)
{
    unsigned blocks = (unsigned)((rows * n + 7) / 8);
    WITH_TYPE(T, type,
              WITH_TYPE(S, w_type,
                        WITH_WIDTH(S, W, in, (uintptr_t)x | (uintptr_t)w | (uintptr_t)ldx * sizeof(float),
                                   ZI_LAUNCH((few<T, S, W>), blocks, 256, 0, stream, (T *)y, ldy, x, ldx, (const S *)w,
                                             bias, accumulate, rows, n, in))));
    return cudaGetLastError();
}

/* ---- moving elements --------------------------------------------------------------------------------------------- */

template <typename T, typename S> static __global__ void convert(T *dst, const S *src, int64_t n)
{
    EACH(i, n) dst[i] = from_float<T>(to_float(src[i]));
}

extern "C" cudaError_t zi_cuda_convert(zi_dtype to, void *dst, zi_dtype from, const void *src, int64_t n,
                                       cudaStream_t stream)
{
    WITH_TYPE(T, to,
              WITH_STORED(S, from,
                          ZI_LAUNCH((convert<T, S>), blocks_for(n, 256), 256, 0, stream, (T *)dst, (const S *)src, n)));
    return cudaGetLastError();
}

template <typename T, typename S, int W>
static __global__ void copy_rows(T *dst, int64_t ld_dst, const S *src, int64_t ld_src, int64_t rows, int64_t vectors)
{
    EACH(i, rows * vectors)
    {
        vec<S, W> from = load<S, W>(src + i / vectors * ld_src + i % vectors * W);
        vec<T, W> to;
#pragma unroll
        for (int j = 0; j < W; j++)
            to.v[j] = from_float<T>(to_float(from.v[j]));
        store<T, W>(dst + i / vectors * ld_dst + i % vectors * W, to);
    }
}

/* Moves vectors of 16 bytes where both sides have one type and are aligned. */
template <typename T, typename S>
static void launch_copy_rows(T *dst, int64_t ld_dst, const S *src, int64_t ld_src, int64_t rows, int64_t n,
                             cudaStream_t stream)
{
    constexpr int W = wide<T>;
    uintptr_t places = (uintptr_t)dst | (uintptr_t)src | (uintptr_t)(ld_dst | ld_src) * sizeof(T);
    if (sizeof(T) == sizeof(S) && n % W == 0 && places % 16 == 0)
        ZI_LAUNCH((copy_rows<T, S, W>), blocks_for(rows * (n / W), 256), 256, 0, stream, dst, ld_dst, src, ld_src, rows,
                  n / W);
    else
        ZI_LAUNCH((copy_rows<T, S, 1>), blocks_for(rows * n, 256), 256, 0, stream, dst, ld_dst, src, ld_src, rows, n);
}

extern "C" cudaError_t zi_cuda_copy_rows(zi_dtype to, void *dst, int64_t ld_dst, zi_dtype from, const void *src,
                                         int64_t ld_src, int64_t rows, int64_t n, cudaStream_t stream)
{
    WITH_TYPE(T, to, WITH_TYPE(S, from, launch_copy_rows((T *)dst, ld_dst, (const S *)src, ld_src, rows, n, stream)));
    return cudaGetLastError();
}

template <int W> static __global__ void rgb8(uint8_t *y, const float *x, int64_t vectors)
{
    EACH(i, vectors)
    {
        vec<float, W> v = load<float, W>(x + i * W);
        vec<uint8_t, W> r;
#pragma unroll
        for (int j = 0; j < W; j++) {
            float u = v.v[j] * 0.5f + 0.5f;
            r.v[j] = (uint8_t)(int)rintf((u > 0 ? (u < 1 ? u : 1) : 0) * 255.0f);
        }
        store<uint8_t, W>(y + i * W, r);
    }
}

extern "C" cudaError_t zi_cuda_rgb8(uint8_t *y, const float *x, int64_t n, cudaStream_t stream)
{
    WITH_WIDTH(float, W, n, (uintptr_t)x | (uintptr_t)y,
               ZI_LAUNCH(rgb8<W>, blocks_for(n / W, 256), 256, 0, stream, y, x, n / W));
    return cudaGetLastError();
}

/* Uniform in [-sqrt(3), sqrt(3)): a hash of the index and the seed. */
template <typename T> static __global__ void fill_random(T *dst, int64_t n, uint32_t seed)
{
    EACH(i, n)
    {
        uint64_t bits = ((uint64_t)i + ((uint64_t)seed << 40) + 1) * 0x9E3779B97F4A7C15u;
        bits = (bits ^ bits >> 31) * 0xD6E8FEB86659FD93u;
        dst[i] = from_float<T>(((float)(bits >> 40) * 0x1p-23f - 1) * 1.7320508f);
    }
}

extern "C" cudaError_t zi_cuda_random(zi_dtype type, void *dst, int64_t n, uint32_t seed, cudaStream_t stream)
{
    WITH_TYPE(T, type, ZI_LAUNCH(fill_random<T>, blocks_for(n, 256), 256, 0, stream, (T *)dst, n, seed));
    return cudaGetLastError();
}

template <typename T, typename S>
static __global__ void arrange_filter(T *dst, const S *src, int64_t out, int64_t padded, int64_t in, int64_t taps)
{
    EACH(i, padded * taps * in)
    {
        int64_t c = i % in, tap = i / in % taps, o = i / in / taps;
        dst[i] = from_float<T>(o < out ? to_float(src[(o * in + c) * taps + tap]) : 0.0f);
    }
}

extern "C" cudaError_t zi_cuda_arrange_filter(zi_dtype to, void *dst, zi_dtype from, const void *src, int64_t out,
                                              int64_t padded, int64_t in, int64_t taps, cudaStream_t stream)
{
    unsigned blocks = blocks_for(padded * taps * in, 256);
    WITH_TYPE(T, to,
              WITH_STORED(S, from,
                          ZI_LAUNCH((arrange_filter<T, S>), blocks, 256, 0, stream, (T *)dst, (const S *)src, out,
                                    padded, in, taps)));
    return cudaGetLastError();
}

/* A thread dequantises the 8 numbers in Bits bytes, all of one group. Product and sum are rounded separately, as in
 * MLX. */
template <typename T, typename S, int Bits>
static __global__ void unpack_groups(T *w, const uint8_t *q, int64_t group, const S *scales, const S *biases,
                                     int64_t count)
{
    EACH(i, count / 8)
    {
        uint64_t bits = 0;
#pragma unroll
        for (int k = 0; k < Bits; k++)
            bits |= (uint64_t)q[i * Bits + k] << (8 * k);
        float scale = to_float(scales[i * 8 / group]), bias = to_float(biases[i * 8 / group]);
        vec<T, 8> out;
#pragma unroll
        for (int j = 0; j < 8; j++)
            out.v[j] = from_float<T>(
                __fadd_rn(__fmul_rn(scale, (float)(unsigned)(bits >> (Bits * j) & ((1u << Bits) - 1))), bias));
        store<T, 8>(w + i * 8, out);
    }
}

template <typename T, typename S>
static cudaError_t unpack_bits(T *w, const uint8_t *q, int bits, int64_t group, const S *scales, const S *biases,
                               int64_t count, cudaStream_t stream)
{
    unsigned blocks = blocks_for(count / 8, 256);
    switch (bits) {
#define CASE(n)                                                                                                        \
    case n:                                                                                                            \
        ZI_LAUNCH((unpack_groups<T, S, n>), blocks, 256, 0, stream, w, q, group, scales, biases, count);               \
        return cudaGetLastError();
        CASE(1)
        CASE(2)
        CASE(3)
        CASE(4)
        CASE(5)
        CASE(6)
        CASE(8)
#undef CASE
    default:
        return cudaErrorInvalidValue;
    }
}

extern "C" cudaError_t zi_cuda_unpack_groups(zi_dtype to, void *dst, const uint8_t *q, int bits, int64_t group,
                                             zi_dtype stored, const void *scales, const void *biases, int64_t count,
                                             cudaStream_t stream)
{
    WITH_TYPE(T, to,
              WITH_STORED(S, stored,
                          return (unpack_bits<T, S>((T *)dst, q, bits, group, (const S *)scales, (const S *)biases,
                                                    count, stream))));
    return cudaErrorInvalidValue;
}

/* Latents [channels][height][width] and their patches of p x p. */
typedef struct patches {
    int64_t channels, height, width, p;
    zi_patch_order order;
} patches;

/* The index of the latent that token element i holds. */
static __device__ int64_t latent_place(int64_t i, const patches &a)
{
    int64_t channels = a.channels, height = a.height, width = a.width, p = a.p;
    int64_t token = i / channels / (p * p), c, place;
    if (a.order == ZI_PATCH_CHANNELS_LAST) {
        c = i % channels;
        place = i / channels % (p * p);
    } else {
        place = i % (p * p);
        c = i / (p * p) % channels;
    }
    int64_t y = token / (width / p) * p + place / p, x = token % (width / p) * p + place % p;
    return (c * height + y) * width + x;
}

template <typename T, typename S> static __global__ void patchify(T *tokens, const S *latents, const patches a)
{
    EACH(i, a.channels * a.height * a.width)
    tokens[i] = from_float<T>(to_float(latents[latent_place(i, a)]));
}

template <typename T, typename S> static __global__ void unpatchify(T *latents, const S *tokens, const patches a)
{
    EACH(i, a.channels * a.height * a.width)
    latents[latent_place(i, a)] = from_float<T>(to_float(tokens[i]));
}

extern "C" cudaError_t zi_cuda_patchify(zi_dtype to, void *tokens, zi_dtype from, const void *latents,
                                        const int64_t n[3], int64_t p, zi_patch_order order, cudaStream_t stream)
{
    const patches a = {n[0], n[1], n[2], p, order};
    unsigned blocks = blocks_for(n[0] * n[1] * n[2], 256);
    WITH_TYPE(
        T, to,
        WITH_TYPE(S, from, ZI_LAUNCH((patchify<T, S>), blocks, 256, 0, stream, (T *)tokens, (const S *)latents, a)));
    return cudaGetLastError();
}

extern "C" cudaError_t zi_cuda_unpatchify(zi_dtype to, void *latents, zi_dtype from, const void *tokens,
                                          const int64_t n[3], int64_t p, zi_patch_order order, cudaStream_t stream)
{
    const patches a = {n[0], n[1], n[2], p, order};
    unsigned blocks = blocks_for(n[0] * n[1] * n[2], 256);
    WITH_TYPE(
        T, to,
        WITH_TYPE(S, from, ZI_LAUNCH((unpatchify<T, S>), blocks, 256, 0, stream, (T *)latents, (const S *)tokens, a)));
    return cudaGetLastError();
}

template <typename T, int W> static __global__ void not_finite(const T *x, int64_t vectors, int *flag)
{
    int bad = 0;
    EACH(i, vectors)
    {
        vec<T, W> v = load<T, W>(x + i * W);
#pragma unroll
        for (int j = 0; j < W; j++)
            bad |= !isfinite(to_float(v.v[j]));
    }
    if (bad)
        *flag = 1;
}

extern "C" cudaError_t zi_cuda_not_finite(zi_dtype type, const void *x, int64_t n, int *flag, cudaStream_t stream)
{
    WITH_TYPE(T, type,
              WITH_WIDTH(T, W, n, x,
                         ZI_LAUNCH((not_finite<T, W>), blocks_for((n / W + 3) / 4, 256), 256, 0, stream, (const T *)x,
                                   n / W, flag)));
    return cudaGetLastError();
}
