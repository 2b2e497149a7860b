/* Norms, rotations, gates and everything else that goes along rows. */
#include "cuda/device_code.cuh"

#include <cuda_fp8.h>

/* ---- norms: a block a row, the row in registers where it fits ------------------------------------------------------ */

#define ROW_THREADS 256
#define ROW_VECTORS 4 /* of a thread: rows of at most 4096 float32 or 8192 bf16 elements stay in registers */

#define FP8_MOST 448.0f

static __device__ __forceinline__ float fp8_scale(float largest)
{
    return fmaxf(largest, 1e-12f) / FP8_MOST;
}

/*
 * A row as K vectors of each of the block's threads; what lies behind the row is 0. T: an activation, W: numbers of an
 * access. Every thread reads and writes the same places, so that input and output may be one buffer.
 */
template <typename T, int W, int K = ROW_VECTORS> struct row_values {
    float v[K][W];

    static __device__ __forceinline__ int64_t place(int k)
    {
        return ((int64_t)k * ROW_THREADS + threadIdx.x) * W;
    }

    __device__ __forceinline__ void read(const T *x, int64_t n)
    {
#pragma unroll
        for (int k = 0; k < K; k++) {
            vec<T, W> r;
            if (place(k) < n)
                r = load<T, W>(x + place(k));
#pragma unroll
            for (int j = 0; j < W; j++)
                v[k][j] = place(k) < n ? to_float(r.v[j]) : 0.0f;
        }
    }

    __device__ __forceinline__ void write(T *y, int64_t n) const
    {
#pragma unroll
        for (int k = 0; k < K; k++) {
            vec<T, W> r;
#pragma unroll
            for (int j = 0; j < W; j++)
                r.v[j] = from_float<T>(v[k][j]);
            if (place(k) < n)
                store<T, W>(y + place(k), r);
        }
    }

    /* SiLU(gate) * up of a row of n gates, then n ups. */
    __device__ __forceinline__ void read_gated(const T *x, int64_t n)
    {
#pragma unroll
        for (int k = 0; k < K; k++) {
            vec<T, W> gate, up;
            if (place(k) < n) {
                gate = load<T, W>(x + place(k));
                up = load<T, W>(x + n + place(k));
            }
#pragma unroll
            for (int j = 0; j < W; j++)
                v[k][j] = place(k) < n ? silu_of(to_float(gate.v[j])) * to_float(up.v[j]) : 0.0f;
        }
    }

    /* As e4m3 numbers, each to be multiplied by *scale. */
    __device__ __forceinline__ void write_fp8(__nv_fp8_e4m3 *y, float *scale, int64_t n)
    {
        float largest = 0;
        each(n, [&](float &x, int64_t) { largest = fmaxf(largest, fabsf(x)); });
        float factor = fp8_scale(over_block<warp_max>(largest, 0));
        if (threadIdx.x == 0)
            *scale = factor;
#pragma unroll
        for (int k = 0; k < K; k++) {
            vec<__nv_fp8_e4m3, W> r;
#pragma unroll
            for (int j = 0; j < W; j++)
                r.v[j] = __nv_fp8_e4m3(v[k][j] / factor);
            if (place(k) < n)
                store<__nv_fp8_e4m3, W>(y + place(k), r);
        }
    }

    /* The block's row to y, or to rows8 if y is NULL. */
    __device__ __forceinline__ void write_either(T *y, const zi_cuda_rows8 &rows8, int64_t n)
    {
        if (y != nullptr)
            write(y + blockIdx.x * n, n);
        else
            write_fp8((__nv_fp8_e4m3 *)rows8.data + blockIdx.x * n, rows8.scales + blockIdx.x, n);
    }

    /* f(value, place in the row) of each number of the row. */
    template <typename F> __device__ __forceinline__ void each(int64_t n, F f)
    {
#pragma unroll
        for (int k = 0; k < K; k++)
            if (place(k) < n) {
#pragma unroll
                for (int j = 0; j < W; j++)
                    f(v[k][j], place(k) + j);
            }
    }

    __device__ __forceinline__ float rms_factor(int64_t n, float eps)
    {
        float sum = 0;
        each(n, [&](float &x, int64_t) { sum += x * x; });
        return 1.0f / sqrtf(over_block<warp_sum>(sum, 0) / (float)n + eps);
    }
};

/* Whether rows of n, at that address, fit row_values. */
static int row_fits(zi_dtype type, int64_t n, const void *x)
{
    int64_t width = type == ZI_BF16 ? 8 : 4;
    return n % width == 0 && n <= ROW_VECTORS * ROW_THREADS * width && (uintptr_t)x % 16 == 0;
}

template <typename T>
static __global__ void __launch_bounds__(ROW_THREADS)
    rms_norm_fast(T *y, const zi_cuda_rows8 y8, const T *x, const float *w, const float *gain, int64_t n, float eps)
{
    row_values<T, wide<T>> row;
    row.read(x + blockIdx.x * n, n);
    float factor = row.rms_factor(n, eps);
    row.each(n, [=](float &v, int64_t i) { v = v * factor * factor_at(w, i) * factor_at(gain, i); });
    row.write_either(y, y8, n);
}

/* What multiplies a row of any length. */
template <typename T> static __device__ float rms_factor_any(const T *x, int64_t n, float eps)
{
    float sum = 0;
    for (int64_t i = threadIdx.x; i < n; i += ROW_THREADS)
        sum += to_float(x[i]) * to_float(x[i]);
    return 1.0f / sqrtf(over_block<warp_sum>(sum, 0) / (float)n + eps);
}

template <typename T>
static __global__ void __launch_bounds__(ROW_THREADS)
    rms_norm_any(T *y, const T *x, const float *w, const float *gain, int64_t n, float eps)
{
    int64_t at = blockIdx.x * n;
    float factor = rms_factor_any(x + at, n, eps);
    for (int64_t i = threadIdx.x; i < n; i += ROW_THREADS)
        y[at + i] = from_float<T>(to_float(x[at + i]) * factor * factor_at(w, i) * factor_at(gain, i));
}

extern "C" int zi_cuda_row_fits(zi_dtype type, int64_t n)
{
    return row_fits(type, n, NULL);
}

extern "C" cudaError_t zi_cuda_rms_norm(zi_dtype type, void *y, zi_cuda_rows8 y8, const void *x, const float *w,
                                        const float *gain, int64_t rows, int64_t n, float eps, cudaStream_t stream)
{
    unsigned blocks = (unsigned)rows;
    if (row_fits(type, n, x) && row_fits(type, n, y))
        WITH_TYPE(
            T, type,
            ZI_LAUNCH(rms_norm_fast<T>, blocks, ROW_THREADS, 0, stream, (T *)y, y8, (const T *)x, w, gain, n, eps));
    else if (y == NULL)
        return cudaErrorInvalidValue;
    else
        WITH_TYPE(T, type,
                  ZI_LAUNCH(rms_norm_any<T>, blocks, ROW_THREADS, 0, stream, (T *)y, (const T *)x, w, gain, n, eps));
    return cudaGetLastError();
}

template <typename T>
static __global__ void __launch_bounds__(ROW_THREADS)
    layer_norm_fast(T *y, const T *x, const float *gain, int64_t n, float eps)
{
    row_values<T, wide<T>> row;
    row.read(x + blockIdx.x * n, n);
    float sum = 0, squares = 0;
    row.each(n, [&](float &v, int64_t) { sum += v; });
    float mean = over_block<warp_sum>(sum, 0) / (float)n;
    row.each(n, [&](float &v, int64_t) { v -= mean, squares += v * v; });
    float factor = 1.0f / sqrtf(over_block<warp_sum>(squares, 0) / (float)n + eps);
    row.each(n, [=](float &v, int64_t i) { v *= factor * factor_at(gain, i); });
    row.write(y + blockIdx.x * n, n);
}

template <typename T>
static __global__ void __launch_bounds__(ROW_THREADS)
    layer_norm_any(T *y, const T *x, const float *gain, int64_t n, float eps)
{
    const T *row = x + blockIdx.x * n;
    float sum = 0, squares = 0;
    for (int64_t i = threadIdx.x; i < n; i += ROW_THREADS)
        sum += to_float(row[i]);
    float mean = over_block<warp_sum>(sum, 0) / (float)n;
    for (int64_t i = threadIdx.x; i < n; i += ROW_THREADS)
        squares += (to_float(row[i]) - mean) * (to_float(row[i]) - mean);
    float factor = 1.0f / sqrtf(over_block<warp_sum>(squares, 0) / (float)n + eps);
    for (int64_t i = threadIdx.x; i < n; i += ROW_THREADS)
        y[blockIdx.x * n + i] = from_float<T>((to_float(row[i]) - mean) * factor * factor_at(gain, i));
}

extern "C" cudaError_t zi_cuda_layer_norm(zi_dtype type, void *y, const void *x, const float *gain, int64_t rows,
                                          int64_t n, float eps, cudaStream_t stream)
{
    unsigned blocks = (unsigned)rows;
    if (row_fits(type, n, x) && row_fits(type, n, y))
        WITH_TYPE(T, type,
                  ZI_LAUNCH(layer_norm_fast<T>, blocks, ROW_THREADS, 0, stream, (T *)y, (const T *)x, gain, n, eps));
    else
        WITH_TYPE(T, type,
                  ZI_LAUNCH(layer_norm_any<T>, blocks, ROW_THREADS, 0, stream, (T *)y, (const T *)x, gain, n, eps));
    return cudaGetLastError();
}

template <typename T>
static __global__ void __launch_bounds__(ROW_THREADS) residual_fast(const zi_cuda_residual_args a, int64_t n)
{
    row_values<T, wide<T>> sum, row;
    int64_t at = blockIdx.x * n;
    row.read((const T *)a.y + at, n);
    sum.read((const T *)a.x + at, n);
    float factor = row.rms_factor(n, a.eps);
    row.each(n, [=](float &v, int64_t i) { v = v * factor * factor_at(a.w, i) * factor_at(a.gate, i); });
    int finite = 1;
#pragma unroll
    for (int k = 0; k < ROW_VECTORS; k++)
#pragma unroll
        for (int j = 0; j < wide<T>; j++) { /* what is stored is what is normed */
            sum.v[k][j] = to_float(from_float<T>(sum.v[k][j] + row.v[k][j]));
            finite &= isfinite(sum.v[k][j]);
        }
    sum.write((T *)a.x + at, n);
    if (a.not_finite != nullptr && !finite)
        *a.not_finite = 1;
    if (a.h == nullptr && a.h8.data == nullptr)
        return;
    factor = sum.rms_factor(n, a.eps);
    sum.each(n, [=](float &v, int64_t i) { v = v * factor * factor_at(a.w_next, i) * factor_at(a.gain_next, i); });
    sum.write_either((T *)a.h, a.h8, n);
}

template <typename T>
static __global__ void __launch_bounds__(ROW_THREADS) residual_any(const zi_cuda_residual_args a, int64_t n)
{
    T *x = (T *)a.x + blockIdx.x * n;
    const T *y = (const T *)a.y + blockIdx.x * n;
    float factor = rms_factor_any(y, n, a.eps);
    for (int64_t i = threadIdx.x; i < n; i += ROW_THREADS) {
        x[i] = from_float<T>(to_float(x[i]) + to_float(y[i]) * factor * factor_at(a.w, i) * factor_at(a.gate, i));
        if (a.not_finite != nullptr && !isfinite(to_float(x[i])))
            *a.not_finite = 1;
    }
    if (a.h == nullptr)
        return;
    T *h = (T *)a.h + blockIdx.x * n;
    factor = rms_factor_any((const T *)x, n, a.eps); /* a thread sees its own places only */
    for (int64_t i = threadIdx.x; i < n; i += ROW_THREADS)
        h[i] = from_float<T>(to_float(x[i]) * factor * factor_at(a.w_next, i) * factor_at(a.gain_next, i));
}

extern "C" cudaError_t zi_cuda_residual(zi_dtype type, const zi_cuda_residual_args *a, int64_t rows, int64_t n,
                                        cudaStream_t stream)
{
    unsigned blocks = (unsigned)rows;
    if (row_fits(type, n, a->x) && row_fits(type, n, a->y) && row_fits(type, n, a->h))
        WITH_TYPE(T, type, ZI_LAUNCH(residual_fast<T>, blocks, ROW_THREADS, 0, stream, *a, n));
    else if (a->h8.data != NULL)
        return cudaErrorInvalidValue;
    else
        WITH_TYPE(T, type, ZI_LAUNCH(residual_any<T>, blocks, ROW_THREADS, 0, stream, *a, n));
    return cudaGetLastError();
}

/* ---- heads: a warp a head ------------------------------------------------------------------------------------------ */

#define HEAD_PAIRS 4 /* of a lane in registers: heads of at most 256 */

/* Pair j of a head. */
template <typename T>
static __device__ __forceinline__ vec<T, 2> load_pair(const T *p, int64_t j, int64_t half, int half_split)
{
    if (!half_split)
        return load<T, 2>(p + 2 * j);
    return vec<T, 2>{{p[j], p[half + j]}};
}

template <typename T>
static __device__ __forceinline__ void store_pair(T *p, int64_t j, int64_t half, int half_split, float a, float b)
{
    if (!half_split)
        store<T, 2>(p + 2 * j, vec<T, 2>{{from_float<T>(a), from_float<T>(b)}});
    else
        p[j] = from_float<T>(a), p[half + j] = from_float<T>(b);
}

typedef struct rope_args {
    const float *w, *cos, *sin;
    int64_t rows, heads, dim;
    int half_split;
    float eps;
} rope_args;

/* Pair j, scaled and turned; cos and sin are the row's. */
template <typename T>
static __device__ __forceinline__ void turn(T *p, int64_t j, const rope_args &a, float factor, float x, float y,
                                            const float *cos, const float *sin)
{
    int64_t half = a.dim / 2;
    float u = x * factor * a.w[a.half_split ? j : 2 * j], v = y * factor * a.w[a.half_split ? half + j : 2 * j + 1];
    store_pair(p, j, half, a.half_split, u * cos[j] - v * sin[j], u * sin[j] + v * cos[j]);
}

/* A lane has pairs lane, lane + 32, ... of a head: the first of them in registers, the others it reads twice. */
template <typename T> static __global__ void qk_norm_rope(T *x, const rope_args a)
{
    int64_t head = (int64_t)blockIdx.x * (blockDim.x / 32) + threadIdx.x / 32;
    if (head >= a.rows * a.heads)
        return;
    int64_t lane = threadIdx.x % 32, half = a.dim / 2, row = head / a.heads;
    T *p = x + head * a.dim;
    float first[HEAD_PAIRS] = {}, second[HEAD_PAIRS] = {}, sum = 0;
#pragma unroll
    for (int k = 0; k < HEAD_PAIRS; k++)
        if (lane + 32 * k < half) {
            vec<T, 2> pair = load_pair(p, lane + 32 * k, half, a.half_split);
            first[k] = to_float(pair.v[0]);
            second[k] = to_float(pair.v[1]);
            sum += first[k] * first[k] + second[k] * second[k];
        }
    for (int64_t j = lane + 32 * HEAD_PAIRS; j < half; j += 32) {
        vec<T, 2> pair = load_pair(p, j, half, a.half_split);
        sum += to_float(pair.v[0]) * to_float(pair.v[0]) + to_float(pair.v[1]) * to_float(pair.v[1]);
    }
    float factor = 1.0f / sqrtf(warp_sum(sum) / (float)a.dim + a.eps);
    const float *cos = a.cos + row * half, *sin = a.sin + row * half;
#pragma unroll
    for (int k = 0; k < HEAD_PAIRS; k++)
        if (lane + 32 * k < half)
            turn(p, lane + 32 * k, a, factor, first[k], second[k], cos, sin);
    for (int64_t j = lane + 32 * HEAD_PAIRS; j < half; j += 32) {
        vec<T, 2> pair = load_pair(p, j, half, a.half_split);
        turn(p, j, a, factor, to_float(pair.v[0]), to_float(pair.v[1]), cos, sin);
    }
}

extern "C" cudaError_t zi_cuda_qk_norm_rope(zi_dtype type, void *x, const float *w, const float *cos, const float *sin,
                                            int64_t rows, int64_t heads, int64_t dim, int half_split, float eps,
                                            cudaStream_t stream)
{
    const rope_args args = {w, cos, sin, rows, heads, dim, half_split, eps};
    unsigned blocks = (unsigned)((rows * heads + 7) / 8);
    WITH_TYPE(T, type, ZI_LAUNCH(qk_norm_rope<T>, blocks, 256, 0, stream, (T *)x, args));
    return cudaGetLastError();
}

static __global__ void cos_sin(float *cos, float *sin, const float *angles, int64_t n)
{
    EACH(i, n)
    {
        float angle = angles[i];
        cos[i] = cosf(angle);
        sin[i] = sinf(angle);
    }
}

extern "C" cudaError_t zi_cuda_cos_sin(float *cos, float *sin, const float *angles, int64_t n, cudaStream_t stream)
{
    ZI_LAUNCH(cos_sin, blocks_for(n, 256), 256, 0, stream, cos, sin, angles, n);
    return cudaGetLastError();
}

/* ---- softmax: a block a row ---------------------------------------------------------------------------------------- */

template <typename T>
static __global__ void __launch_bounds__(ROW_THREADS)
    softmax(T *p, const float *s, int64_t rows, int64_t keys, float scale, int causal, int64_t first)
{
    int64_t row = blockIdx.x, at = row * keys, seen = causal ? first + row % rows + 1 : keys;
    float top = -INFINITY, sum = 0;
    for (int64_t i = threadIdx.x; i < seen; i += ROW_THREADS)
        top = fmaxf(top, s[at + i] * scale);
    top = over_block<warp_max>(top, -INFINITY);
    for (int64_t i = threadIdx.x; i < seen; i += ROW_THREADS)
        sum += expf(s[at + i] * scale - top);
    float factor = 1.0f / over_block<warp_sum>(sum, 0);
    for (int64_t i = threadIdx.x; i < keys; i += ROW_THREADS)
        p[at + i] = from_float<T>(i < seen ? expf(s[at + i] * scale - top) * factor : 0.0f);
}

extern "C" cudaError_t zi_cuda_softmax(zi_dtype type, void *p, const float *s, int64_t heads, int64_t rows,
                                       int64_t keys, float scale, int causal, int64_t first, cudaStream_t stream)
{
    WITH_TYPE(T, type,
              ZI_LAUNCH(softmax<T>, (unsigned)(heads * rows), ROW_THREADS, 0, stream, (T *)p, s, rows, keys, scale,
                        causal, first));
    return cudaGetLastError();
}

/* ---- element by element -------------------------------------------------------------------------------------------- */

template <typename T, int W> static __global__ void glu(T *y, const T *x, int64_t rows, int64_t n)
{
    int64_t vectors = n / W;
    EACH(i, rows * vectors)
    {
        int64_t row = i / vectors, column = i % vectors * W;
        vec<T, W> gate = load<T, W>(x + row * 2 * n + column), up = load<T, W>(x + row * 2 * n + n + column), out;
#pragma unroll
        for (int j = 0; j < W; j++)
            out.v[j] = from_float<T>(silu_of(to_float(gate.v[j])) * to_float(up.v[j]));
        store<T, W>(y + row * n + column, out);
    }
}

extern "C" cudaError_t zi_cuda_glu(zi_dtype type, void *y, const void *x, int64_t rows, int64_t n, cudaStream_t stream)
{
    WITH_TYPE(T, type,
              WITH_WIDTH(T, W, n, (uintptr_t)x | (uintptr_t)y,
                         ZI_LAUNCH((glu<T, W>), blocks_for(rows * n / W, 256), 256, 0, stream, (T *)y, (const T *)x,
                                   rows, n)));
    return cudaGetLastError();
}

template <typename T> static __global__ void silu(T *y, const T *x, int64_t n)
{
    EACH(i, n) y[i] = from_float<T>(silu_of(to_float(x[i])));
}

extern "C" cudaError_t zi_cuda_silu(zi_dtype type, void *y, const void *x, int64_t n, cudaStream_t stream)
{
    WITH_TYPE(T, type, ZI_LAUNCH(silu<T>, blocks_for(n, 256), 256, 0, stream, (T *)y, (const T *)x, n));
    return cudaGetLastError();
}

template <typename T> static __global__ void modulation(T *m, int64_t n)
{
    EACH(i, 4 * n) m[i] = from_float<T>(i / n % 2 ? tanhf(to_float(m[i])) : 1 + to_float(m[i]));
}

extern "C" cudaError_t zi_cuda_modulation(zi_dtype type, void *m, int64_t n, cudaStream_t stream)
{
    WITH_TYPE(T, type, ZI_LAUNCH(modulation<T>, blocks_for(4 * n, 256), 256, 0, stream, (T *)m, n));
    return cudaGetLastError();
}

template <typename T> static __global__ void add_one(T *y, const T *x, int64_t n)
{
    EACH(i, n) y[i] = from_float<T>(1 + to_float(x[i]));
}

extern "C" cudaError_t zi_cuda_add_one(zi_dtype type, void *y, const void *x, int64_t n, cudaStream_t stream)
{
    WITH_TYPE(T, type, ZI_LAUNCH(add_one<T>, blocks_for(n, 256), 256, 0, stream, (T *)y, (const T *)x, n));
    return cudaGetLastError();
}

template <typename T>
static __global__ void start_rows(T *y, const float *bias, int accumulate, int64_t count, int64_t n)
{
    EACH(i, count) y[i] = from_float<T>(bias[i % n] + (accumulate ? to_float(y[i]) : 0.0f));
}

extern "C" cudaError_t zi_cuda_start_rows(zi_dtype type, void *y, const float *bias, int accumulate, int64_t rows,
                                          int64_t n, cudaStream_t stream)
{
    WITH_TYPE(
        T, type,
        ZI_LAUNCH(start_rows<T>, blocks_for(rows * n, 256), 256, 0, stream, (T *)y, bias, accumulate, rows * n, n));
    return cudaGetLastError();
}

/* A warp an output. */
template <typename T, typename S>
static __global__ void few(T *y, const float *x, const S *w, const float *bias, int accumulate, int64_t rows, int64_t n,
                           int64_t in)
{
    int64_t place = (int64_t)blockIdx.x * (blockDim.x / 32) + threadIdx.x / 32;
    if (place >= rows * n)
        return;
    const float *input = x + place / n * in;
    const S *weights = w + place % n * in;
    float sum = 0;
    for (int64_t i = threadIdx.x % 32; i < in; i += 32)
        sum += input[i] * to_float(weights[i]);
    sum = warp_sum(sum);
    if (threadIdx.x % 32 == 0)
        y[place] = from_float<T>(sum + (bias ? bias[place % n] : 0.0f) + (accumulate ? to_float(y[place]) : 0.0f));
}

extern "C" cudaError_t zi_cuda_few(zi_dtype type, void *y, const float *x, zi_dtype w_type, const void *w,
                                   const float *bias, int accumulate, int64_t rows, int64_t n, int64_t in,
                                   cudaStream_t stream)
{
    unsigned blocks = (unsigned)((rows * n + 7) / 8);
    WITH_TYPE(T, type,
              WITH_TYPE(S, w_type,
                        ZI_LAUNCH((few<T, S>), blocks, 256, 0, stream, (T *)y, x, (const S *)w, bias, accumulate, rows,
                                  n, in)));
    return cudaGetLastError();
}

/* ---- moving -------------------------------------------------------------------------------------------------------- */

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

/* Uniform between -sqrt(3) and sqrt(3): the place's number, mixed. */
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

/* A thread unpacks the 8 numbers in Bits bytes, all of one group. Product and sum are rounded as MLX rounds them. */
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

/* The latent element of token element i. */
static __device__ int64_t latent_place(int64_t i, int64_t channels, int64_t height, int64_t width, int64_t p)
{
    int64_t c = i % channels, place = i / channels % (p * p), token = i / channels / (p * p);
    int64_t y = token / (width / p) * p + place / p, x = token % (width / p) * p + place % p;
    return (c * height + y) * width + x;
}

template <typename T, typename S>
static __global__ void patchify(T *tokens, const S *latents, int64_t channels, int64_t height, int64_t width, int64_t p)
{
    EACH(i, channels * height * width)
    tokens[i] = from_float<T>(to_float(latents[latent_place(i, channels, height, width, p)]));
}

template <typename T, typename S>
static __global__ void unpatchify(T *latents, const S *tokens, int64_t channels, int64_t height, int64_t width,
                                  int64_t p)
{
    EACH(i, channels * height * width)
    latents[latent_place(i, channels, height, width, p)] = from_float<T>(to_float(tokens[i]));
}

extern "C" cudaError_t zi_cuda_patchify(zi_dtype to, void *tokens, zi_dtype from, const void *latents,
                                        const int64_t n[3], int64_t p, cudaStream_t stream)
{
    unsigned blocks = blocks_for(n[0] * n[1] * n[2], 256);
    WITH_TYPE(T, to,
              WITH_TYPE(S, from,
                        ZI_LAUNCH((patchify<T, S>), blocks, 256, 0, stream, (T *)tokens, (const S *)latents, n[0], n[1],
                                  n[2], p)));
    return cudaGetLastError();
}

extern "C" cudaError_t zi_cuda_unpatchify(zi_dtype to, void *latents, zi_dtype from, const void *tokens,
                                          const int64_t n[3], int64_t p, cudaStream_t stream)
{
    unsigned blocks = blocks_for(n[0] * n[1] * n[2], 256);
    WITH_TYPE(T, to,
              WITH_TYPE(S, from,
                        ZI_LAUNCH((unpatchify<T, S>), blocks, 256, 0, stream, (T *)latents, (const S *)tokens, n[0],
                                  n[1], n[2], p)));
    return cudaGetLastError();
}

template <typename T> static __global__ void not_finite(const T *x, int64_t n, int *flag)
{
    int bad = 0;
    EACH(i, n) bad |= !isfinite(to_float(x[i]));
    if (bad)
        *flag = 1;
}

extern "C" cudaError_t zi_cuda_not_finite(zi_dtype type, const void *x, int64_t n, int *flag, cudaStream_t stream)
{
    WITH_TYPE(T, type, ZI_LAUNCH(not_finite<T>, blocks_for((n + 7) / 8, 256), 256, 0, stream, (const T *)x, n, flag));
    return cudaGetLastError();
}

/* ---- fp8: a block a row -------------------------------------------------------------------------------------------- */

#define FP8_VECTORS (ZI_CUDA_MOST_FP8 / ROW_THREADS / 8) /* of a thread, bf16 */

template <typename T, int K, int Gated>
static __global__ void __launch_bounds__(ROW_THREADS) to_fp8(const zi_cuda_rows8 y, const T *x, int64_t n)
{
    row_values<T, wide<T>, K> row;
    if (Gated)
        row.read_gated(x + blockIdx.x * 2 * n, n);
    else
        row.read(x + blockIdx.x * n, n);
    row.write_either(nullptr, y, n);
}

template <typename T, int Gated>
static cudaError_t rows_to_fp8(zi_cuda_rows8 y, const T *x, int64_t rows, int64_t n, cudaStream_t stream)
{
    constexpr int most = FP8_VECTORS * 8 / wide<T>;
    if (n % wide<T> != 0 || n > ZI_CUDA_MOST_FP8 || (uintptr_t)x % 16 != 0)
        return cudaErrorInvalidValue;
    if (n <= ZI_CUDA_MOST_FP8 / 4)
        ZI_LAUNCH((to_fp8<T, most / 4, Gated>), (unsigned)rows, ROW_THREADS, 0, stream, y, x, n);
    else
        ZI_LAUNCH((to_fp8<T, most, Gated>), (unsigned)rows, ROW_THREADS, 0, stream, y, x, n);
    return cudaGetLastError();
}

extern "C" cudaError_t zi_cuda_quantise_rows(zi_cuda_rows8 y, zi_dtype type, const void *x, int64_t rows, int64_t n,
                                             cudaStream_t stream)
{
    WITH_TYPE(T, type, return (rows_to_fp8<T, 0>(y, (const T *)x, rows, n, stream)));
    return cudaErrorInvalidValue;
}

extern "C" cudaError_t zi_cuda_glu_fp8(zi_cuda_rows8 y, zi_dtype type, const void *x, int64_t rows, int64_t n,
                                       cudaStream_t stream)
{
    WITH_TYPE(T, type, return (rows_to_fp8<T, 1>(y, (const T *)x, rows, n, stream)));
    return cudaErrorInvalidValue;
}

template <typename T> static __global__ void from_fp8(T *y, const zi_cuda_rows8 x, int64_t count, int64_t n)
{
    EACH(i, count) y[i] = from_float<T>(float(((const __nv_fp8_e4m3 *)x.data)[i]) * x.scales[i / n]);
}

extern "C" cudaError_t zi_cuda_from_fp8(zi_dtype type, void *y, zi_cuda_rows8 x, int64_t rows, int64_t n,
                                        cudaStream_t stream)
{
    WITH_TYPE(T, type, ZI_LAUNCH(from_fp8<T>, blocks_for(rows * n, 256), 256, 0, stream, (T *)y, x, rows * n, n));
    return cudaGetLastError();
}
