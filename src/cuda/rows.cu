/* Kernels that need a whole row or head: norms, rotary embeddings, softmax, quantising to fp8. */
#include "cuda/device_code.cuh"

#include <cuda_fp8.h>

/* ---- norms: one block for each row, which is held in registers where it fits ------------------------------------- */

#define ROW_THREADS 256
#define ROW_VECTORS 4 /* of a thread at most: registers hold rows of 4096 float32 or 8192 bf16 elements */

/* Runs the code with K as the number of vectors of a thread that hold a row of n elements of T: 2 or 4. */
#define WITH_VECTORS(T, K, n, ...)                                                                                     \
    do {                                                                                                               \
        if ((n) <= 2 * ROW_THREADS * wide<T>) {                                                                        \
            constexpr int K = 2;                                                                                       \
            __VA_ARGS__;                                                                                               \
        } else {                                                                                                       \
            constexpr int K = ROW_VECTORS;                                                                             \
            __VA_ARGS__;                                                                                               \
        }                                                                                                              \
    } while (0)

/* 16 bytes that are read ahead: as numbers of T the compiler would keep each in a register of its own. */
typedef vec<uint32_t, 4> ahead;

template <typename T> static __device__ __forceinline__ ahead read_ahead(const T *p)
{
    return load<uint32_t, 4>((const uint32_t *)p);
}
template <typename T> static __device__ __forceinline__ vec<T, wide<T>> numbers_of(const ahead &a)
{
    return *reinterpret_cast<const vec<T, wide<T>> *>(&a);
}

/* Accurate for float32 results, fast for bf16 ones. */
template <typename T> static __device__ __forceinline__ float inverse_root_of(float x)
{
    return sizeof(T) == sizeof(float) ? 1.0f / sqrtf(x) : ptx_inverse_root(x);
}

#define PERSISTENT_FEW  384 /* threads of a block that goes from row to row, each with one vector of a row (or two) */
#define PERSISTENT_MOST 512

/* Such blocks of a multiprocessor: so many have registers. */
static constexpr int blocks_of(int most_threads, int vectors = 1)
{
    return vectors > 1 ? 1 : most_threads <= PERSISTENT_FEW ? 3 : 2;
}

/* Blocks that go from row to row. */
static cudaError_t count_blocks(int64_t rows, int each, unsigned *blocks)
{
    int processors;
    cudaError_t code = count_processors(&processors);
    if (code == cudaSuccess)
        *blocks = (unsigned)(rows < (int64_t)each * processors ? rows : (int64_t)each * processors);
    return code;
}

#define FP8_MOST 448.0f

static __device__ __forceinline__ float fp8_scale(float largest)
{
    return fmaxf(largest, 1e-12f) / FP8_MOST;
}

/* y = v * factor, W numbers */
template <int W> static __device__ __forceinline__ void store_fp8(__nv_fp8_e4m3 *y, const float (&v)[W], float factor)
{
    vec<__nv_fp8x2_storage_t, W / 2> r;
#pragma unroll
    for (int j = 0; j < W / 2; j++)
        r.v[j] =
            __nv_cvt_float2_to_fp8x2(make_float2(v[2 * j] * factor, v[2 * j + 1] * factor), __NV_SATFINITE, __NV_E4M3);
    store<__nv_fp8x2_storage_t, W / 2>((__nv_fp8x2_storage_t *)y, r);
}

/*
 * A row in the registers of a block: K vectors of each thread, zeros beyond the row. T: the type of activations. A
 * thread reads and writes the same places, so that input and output may be one buffer.
 */
template <typename T, int K> struct row_registers {
    static constexpr int W = wide<T>;
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

    /* SiLU(gate) * up, from a row of n gates followed by n ups. */
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
                v[k][j] = place(k) < n ? silu_of<T>(to_float(gate.v[j])) * to_float(up.v[j]) : 0.0f;
        }
    }

    /* Writes e4m3 numbers q and *scale: v = q * scale. */
    __device__ __forceinline__ void write_fp8(__nv_fp8_e4m3 *y, float *scale, int64_t n)
    {
        float largest = 0;
#pragma unroll
        for (int k = 0; k < K; k++)
#pragma unroll
            for (int j = 0; j < W; j++)
                largest = fmaxf(largest, fabsf(v[k][j]));
        float factor = fp8_scale(over_block<warp_max>(largest, 0)), inverse = 1 / factor;
        if (threadIdx.x == 0)
            *scale = factor;
#pragma unroll
        for (int k = 0; k < K; k++)
            if (place(k) < n)
                store_fp8<W>(y + place(k), v[k], inverse);
    }

    /* Writes the block's row to y, or to rows8 if y is NULL. */
    __device__ __forceinline__ void write_either(T *y, const zi_cuda_rows8 &rows8, int64_t n)
    {
        if (y != nullptr)
            write(y + blockIdx.x * n, n);
        else
            write_fp8((__nv_fp8_e4m3 *)rows8.data + blockIdx.x * n, rows8.scales + blockIdx.x, n);
    }

    /* v[i] *= factor * a[i] * b[i]; NULL: 1. */
    __device__ __forceinline__ void scale(int64_t n, float factor, const float *a, const float *b)
    {
#pragma unroll
        for (int k = 0; k < K; k++)
            if (place(k) < n) {
                vec<float, W> first = factors_at<W>(a, place(k)), second = factors_at<W>(b, place(k));
#pragma unroll
                for (int j = 0; j < W; j++)
                    v[k][j] *= factor * first.v[j] * second.v[j];
            }
    }

    __device__ __forceinline__ void add(int64_t n, const float *shift)
    {
#pragma unroll
        for (int k = 0; k < K; k++)
            if (place(k) < n) {
                vec<float, W> part = factors_at<W>(shift, place(k));
#pragma unroll
                for (int j = 0; j < W; j++)
                    v[k][j] += part.v[j];
            }
    }

    /* Subtracts the mean; beyond the row zeros stay. */
    __device__ __forceinline__ void centre(int64_t n)
    {
        float sum = 0;
#pragma unroll
        for (int k = 0; k < K; k++)
#pragma unroll
            for (int j = 0; j < W; j++)
                sum += v[k][j];
        float mean = over_block<warp_sum>(sum, 0) / (float)n;
#pragma unroll
        for (int k = 0; k < K; k++)
#pragma unroll
            for (int j = 0; j < W; j++)
                v[k][j] = place(k) < n ? v[k][j] - mean : 0.0f;
    }

    /* normalised(v) * w * gain + shift */
    __device__ __forceinline__ void norm(int64_t n, const zi_cuda_norm_args &a)
    {
        if (a.layer)
            centre(n);
        scale(n, rms_factor(n, a.eps), a.w, a.gain);
        if (a.shift != nullptr)
            add(n, a.shift);
    }

    __device__ __forceinline__ float sum_of_squares() const
    {
        float sum = 0;
#pragma unroll
        for (int k = 0; k < K; k++)
#pragma unroll
            for (int j = 0; j < W; j++)
                sum += v[k][j] * v[k][j];
        return sum;
    }

    __device__ __forceinline__ float rms_factor(int64_t n, float eps) const
    {
        return 1.0f / sqrtf(over_block<warp_sum>(sum_of_squares(), 0) / (float)n + eps);
    }
};

/* Whether vectors can be loaded from these factors. */
static int factors_fit(const float *a, const float *b)
{
    return ((uintptr_t)a | (uintptr_t)b) % 16 == 0;
}

static int norm_fits(const zi_cuda_norm_args &a)
{
    return factors_fit(a.w, a.gain) && factors_fit(a.shift, NULL);
}

/* Whether row_registers can hold rows of n elements at that address. */
static int row_fits(zi_dtype type, int64_t n, const void *x)
{
    int64_t width = type == ZI_BF16 ? 8 : 4;
    return n % width == 0 && n <= ROW_VECTORS * ROW_THREADS * width && (uintptr_t)x % 16 == 0;
}

template <typename T, int K>
static __global__ void __launch_bounds__(ROW_THREADS)
    norm_fast(T *y, const zi_cuda_rows8 y8, const T *x, const zi_cuda_norm_args a, int64_t n)
{
    row_registers<T, K> row;
    row.read(x + blockIdx.x * n, n);
    row.norm(n, a);
    row.write_either(y, y8, n);
}

/* 1 / sqrt(mean((x - mean)^2) + eps) of a row of any length. */
template <typename T> static __device__ float rms_factor_any(const T *x, float mean, int64_t n, float eps)
{
    float sum = 0;
    for (int64_t i = threadIdx.x; i < n; i += ROW_THREADS)
        sum += (to_float(x[i]) - mean) * (to_float(x[i]) - mean);
    return 1.0f / sqrtf(over_block<warp_sum>(sum, 0) / (float)n + eps);
}

template <typename T> static __device__ float mean_any(const T *x, int64_t n)
{
    float sum = 0;
    for (int64_t i = threadIdx.x; i < n; i += ROW_THREADS)
        sum += to_float(x[i]);
    return over_block<warp_sum>(sum, 0) / (float)n;
}

/* The norm of a row of any length; y may be x. */
template <typename T> static __device__ void norm_row_any(T *y, const T *x, const zi_cuda_norm_args &a, int64_t n)
{
    float mean = a.layer ? mean_any(x, n) : 0.0f, factor = rms_factor_any(x, mean, n, a.eps);
    for (int64_t i = threadIdx.x; i < n; i += ROW_THREADS) {
        float value = (to_float(x[i]) - mean) * factor * factor_at(a.w, i) * factor_at(a.gain, i);
        y[i] = from_float<T>(a.shift != nullptr ? value + a.shift[i] : value);
    }
}

template <typename T>
static __global__ void __launch_bounds__(ROW_THREADS) norm_any(T *y, const T *x, const zi_cuda_norm_args a, int64_t n)
{
    norm_row_any(y + blockIdx.x * n, x + blockIdx.x * n, a, n);
}

extern "C" int zi_cuda_row_fits(zi_dtype type, int64_t n)
{
    return row_fits(type, n, NULL);
}

extern "C" cudaError_t zi_cuda_norm(zi_dtype type, void *y, zi_cuda_rows8 y8, const void *x, const zi_cuda_norm_args *a,
                                    int64_t rows, int64_t n, cudaStream_t stream)
{
    unsigned blocks = (unsigned)rows;
    if (row_fits(type, n, x) && row_fits(type, n, y) && norm_fits(*a))
        WITH_TYPE(T, type,
                  WITH_VECTORS(
                      T, K, n,
                      ZI_LAUNCH((norm_fast<T, K>), blocks, ROW_THREADS, 0, stream, (T *)y, y8, (const T *)x, *a, n)));
    else if (y == NULL)
        return cudaErrorInvalidValue;
    else
        WITH_TYPE(T, type, ZI_LAUNCH(norm_any<T>, blocks, ROW_THREADS, 0, stream, (T *)y, (const T *)x, *a, n));
    return cudaGetLastError();
}

typedef vec<float, 4> warp_results[PERSISTENT_MOST / 128]; /* a number of each warp */

/* Reduces over the block, with one barrier: reductions in a row use different places. 0 must change no result, as with
 * sums, and with the largest of numbers >= 0. parts: zeros at the beginning. */
template <float (*Warp)(float), float (*Of)(float, float)>
static __device__ __forceinline__ float over_persistent(float x, warp_results (&parts)[2], int &turn)
{
    x = Warp(x);
    if (threadIdx.x % 32 == 0)
        parts[turn][threadIdx.x / 128].v[threadIdx.x / 32 % 4] = x;
    __syncthreads();
    float all = 0;
#pragma unroll
    for (int i = 0; i < PERSISTENT_MOST / 128; i++) {
        const vec<float, 4> v = parts[turn][i];
        all = Of(all, Of(Of(v.v[0], v.v[1]), Of(v.v[2], v.v[3])));
    }
    turn ^= 1;
    return all;
}

/* A block goes from row to row. Its threads hold K vectors of a row: they keep the factors of these places in
 * registers, and read the next row while they compute one. */
template <typename T, int K, int Most>
static __global__ void __launch_bounds__(Most, blocks_of(Most, K))
    residual_persistent(const zi_cuda_residual_args a, int rows, int n)
{
    constexpr int W = wide<T>;
    __shared__ warp_results parts[2];
    const int normed = a.h != nullptr || a.h8.data != nullptr;
    const float inverse_n = 1.0f / (float)n;
    int turn = 0, finite = 1, there[K], column[K];
    float scale[K][W], gain[K][W], shift[K][W];
#pragma unroll
    for (int k = 0; k < K; k++) {
        const int place = (int)(k * blockDim.x + threadIdx.x) * W;
        there[k] = place < n;
        column[k] = there[k] ? place : 0;
        const vec<float, W> w = factors_at<W>(a.w, column[k]), gate = factors_at<W>(a.gate, column[k]);
        const vec<float, W> all = factors_at<W>(a.gain, column[k]), next = factors_at<W>(a.next.w, column[k]);
        const vec<float, W> next_gain = factors_at<W>(a.next.gain, column[k]);
#pragma unroll
        for (int j = 0; j < W; j++) {
            scale[k][j] = w.v[j] * gate.v[j] * all.v[j];
            gain[k][j] = next.v[j] * next_gain.v[j];
            shift[k][j] = a.next.shift != nullptr ? a.next.shift[column[k] + j] : 0.0f;
        }
    }
    if (threadIdx.x < 2 * PERSISTENT_MOST / 128)
        parts[threadIdx.x / (PERSISTENT_MOST / 128)][threadIdx.x % (PERSISTENT_MOST / 128)] = {};
    __syncthreads();
    const int64_t step = (int64_t)gridDim.x * n;
    int64_t at = (int64_t)blockIdx.x * n;
    ahead next_x[K] = {}, next_y[K] = {};
#pragma unroll
    for (int k = 0; k < K; k++)
        if (there[k]) {
            next_y[k] = read_ahead((const T *)a.y + at + column[k]);
            next_x[k] = read_ahead((const T *)a.x + at + column[k]);
        }
    for (int row = blockIdx.x; row < rows; row += gridDim.x, at += step) {
        float v[K][W], added[K][W], sum = 0, factor = 1;
#pragma unroll
        for (int k = 0; k < K; k++) {
            const vec<T, W> x = numbers_of<T>(next_x[k]), y = numbers_of<T>(next_y[k]);
#pragma unroll
            for (int j = 0; j < W; j++) {
                v[k][j] = to_float(x.v[j]);
                added[k][j] = to_float(y.v[j]);
                sum += added[k][j] * added[k][j];
            }
            if (there[k] && row + (int)gridDim.x < rows) {
                next_y[k] = read_ahead((const T *)a.y + at + step + column[k]);
                next_x[k] = read_ahead((const T *)a.x + at + step + column[k]);
            }
        }
        if (a.post) {
            sum = over_persistent<warp_sum, sum_of>(sum, parts, turn);
            factor = inverse_root_of<T>(sum * inverse_n + a.eps);
        }
        sum = 0;
#pragma unroll
        for (int k = 0; k < K; k++) {
            vec<T, W> r;
#pragma unroll
            for (int j = 0; j < W; j++) { /* the norm reads what is stored: rounded */
                r.v[j] = from_float<T>(v[k][j] + added[k][j] * (factor * scale[k][j]));
                v[k][j] = to_float(r.v[j]);
                finite &= isfinite(v[k][j]);
                sum += v[k][j];
            }
            if (there[k])
                store<T, W>((T *)a.x + at + column[k], r);
        }
        if (!normed)
            continue;
        if (a.next.layer) {
            const float mean = over_persistent<warp_sum, sum_of>(sum, parts, turn) * inverse_n;
#pragma unroll
            for (int k = 0; k < K; k++)
#pragma unroll
                for (int j = 0; j < W; j++)
                    v[k][j] = there[k] ? v[k][j] - mean : 0.0f;
        }
        sum = 0;
#pragma unroll
        for (int k = 0; k < K; k++)
#pragma unroll
            for (int j = 0; j < W; j++)
                sum += v[k][j] * v[k][j];
        sum = over_persistent<warp_sum, sum_of>(sum, parts, turn);
        factor = inverse_root_of<T>(sum * inverse_n + a.next.eps);
        float largest = 0;
#pragma unroll
        for (int k = 0; k < K; k++) {
            vec<T, W> r;
#pragma unroll
            for (int j = 0; j < W; j++) {
                v[k][j] = v[k][j] * (factor * gain[k][j]) + shift[k][j];
                r.v[j] = from_float<T>(v[k][j]);
                largest = there[k] ? fmaxf(largest, fabsf(v[k][j])) : largest;
            }
            if (there[k] && a.h != nullptr)
                store<T, W>((T *)a.h + at + column[k], r);
        }
        if (a.h != nullptr)
            continue;
        factor = fp8_scale(over_persistent<warp_max, max_of>(largest, parts, turn));
        if (threadIdx.x == 0)
            a.h8.scales[row] = factor;
#pragma unroll
        for (int k = 0; k < K; k++)
            if (there[k])
                store_fp8<W>((__nv_fp8_e4m3 *)a.h8.data + at + column[k], v[k], 1 / factor);
    }
    if (a.not_finite != nullptr && !finite)
        *a.not_finite = 1;
}

template <typename T>
static __global__ void __launch_bounds__(ROW_THREADS) residual_any(const zi_cuda_residual_args a, int64_t n)
{
    T *x = (T *)a.x + blockIdx.x * n;
    const T *y = (const T *)a.y + blockIdx.x * n;
    float factor = a.post ? rms_factor_any(y, 0.0f, n, a.eps) : 1.0f;
    for (int64_t i = threadIdx.x; i < n; i += ROW_THREADS) {
        x[i] = from_float<T>(to_float(x[i]) +
                             to_float(y[i]) * factor * factor_at(a.w, i) * factor_at(a.gate, i) * factor_at(a.gain, i));
        if (a.not_finite != nullptr && !isfinite(to_float(x[i])))
            *a.not_finite = 1;
    }
    if (a.h != nullptr) /* a thread reads only what it wrote itself */
        norm_row_any((T *)a.h + blockIdx.x * n, (const T *)x, a.next, n);
}

template <typename T, int K, int Most>
static cudaError_t launch_residual(const zi_cuda_residual_args *a, int64_t rows, int64_t n, cudaStream_t stream)
{
    const unsigned threads = (unsigned)((n / wide<T> + 32 * K - 1) / (32 * K) * 32);
    unsigned blocks;
    cudaError_t code = count_blocks(rows, blocks_of(Most, K), &blocks);
    if (code != cudaSuccess)
        return code;
    ZI_LAUNCH((residual_persistent<T, K, Most>), blocks, threads, 0, stream, *a, (int)rows, (int)n);
    return cudaGetLastError();
}

/* Rows that the threads of a block can hold. */
template <typename T>
static cudaError_t residual_held(const zi_cuda_residual_args *a, int64_t rows, int64_t n, cudaStream_t stream)
{
    static_assert(ROW_VECTORS * ROW_THREADS <= 2 * PERSISTENT_MOST, "row_fits");
    if (n <= PERSISTENT_FEW * wide<T>)
        return launch_residual<T, 1, PERSISTENT_FEW>(a, rows, n, stream);
    if (n <= PERSISTENT_MOST * wide<T>)
        return launch_residual<T, 1, PERSISTENT_MOST>(a, rows, n, stream);
    return launch_residual<T, 2, PERSISTENT_MOST>(a, rows, n, stream);
}

extern "C" cudaError_t zi_cuda_residual(zi_dtype type, const zi_cuda_residual_args *a, int64_t rows, int64_t n,
                                        cudaStream_t stream)
{
    if (row_fits(type, n, a->x) && row_fits(type, n, a->y) && row_fits(type, n, a->h) && factors_fit(a->w, a->gate) &&
        factors_fit(a->gain, NULL) && norm_fits(a->next) && rows <= INT32_MAX)
        WITH_TYPE(T, type, return residual_held<T>(a, rows, n, stream));
    else if (a->h8.data != NULL)
        return cudaErrorInvalidValue;
    else
        WITH_TYPE(T, type, ZI_LAUNCH(residual_any<T>, (unsigned)rows, ROW_THREADS, 0, stream, *a, n));
    return cudaGetLastError();
}

/* ---- heads: one warp for each head ------------------------------------------------------------------------------- */

#define HEAD_PAIRS 4 /* that a lane holds in registers: heads of at most 256 */

typedef struct rope_args {
    zi_cuda_rope_args a;
    int apart; /* the elements of a pair can't be loaded as one vector */
} rope_args;

/* Pair j of a head. */
template <typename T>
static __device__ __forceinline__ vec<T, 2> load_pair(const T *p, int64_t j, const zi_cuda_rope_args &a, int apart)
{
    if (a.half_split)
        return vec<T, 2>{{p[j], p[a.dim / 2 + j]}};
    if (apart)
        return vec<T, 2>{{p[2 * j], p[2 * j + 1]}};
    return load<T, 2>(p + 2 * j);
}

template <typename T>
static __device__ __forceinline__ void store_pair(T *p, int64_t j, const zi_cuda_rope_args &a, int apart, float x,
                                                  float y)
{
    if (a.half_split)
        p[j] = from_float<T>(x), p[a.dim / 2 + j] = from_float<T>(y);
    else if (apart)
        p[2 * j] = from_float<T>(x), p[2 * j + 1] = from_float<T>(y);
    else
        store<T, 2>(p + 2 * j, vec<T, 2>{{from_float<T>(x), from_float<T>(y)}});
}

/* Where a head lies, and the factors of its pairs. */
template <typename T> struct head_place {
    T *p;
    const float *w, *cos, *sin;
};

/* Head `head` of a row: the queries' heads, then the keys'. */
template <typename T>
static __device__ __forceinline__ head_place<T> head_at(const zi_cuda_rope_args &a, int64_t row, int64_t head)
{
    const zi_cuda_heads &part = head < a.q.heads ? a.q : a.k;
    int64_t place = head < a.q.heads ? head : head - a.q.heads, angles = row * (a.dim / 2);
    return {(T *)part.x + row * part.ld + place * a.dim, part.w, a.cos + angles, a.sin + angles};
}

/* Scales and rotates pair j (x, y). */
template <typename T>
static __device__ __forceinline__ void rotate(const head_place<T> &at, int64_t j, const rope_args &args, float factor,
                                              float x, float y)
{
    const zi_cuda_rope_args &a = args.a;
    int64_t half = a.dim / 2;
    float u = x * factor * at.w[a.half_split ? j : 2 * j], v = y * factor * at.w[a.half_split ? half + j : 2 * j + 1];
    store_pair(at.p, j, a, args.apart, u * at.cos[j] - v * at.sin[j], u * at.sin[j] + v * at.cos[j]);
}

/* A lane takes pairs lane, lane + 32, ... of a head. It holds the first HEAD_PAIRS in registers and reads the others
 * twice. */
template <typename T> static __global__ void qk_norm_rope(const rope_args args)
{
    const zi_cuda_rope_args &a = args.a;
    int64_t head = (int64_t)blockIdx.x * (blockDim.x / 32) + threadIdx.x / 32, heads = a.q.heads + a.k.heads;
    if (head >= a.rows * heads)
        return;
    int64_t lane = threadIdx.x % 32, half = a.dim / 2;
    const head_place<T> at = head_at<T>(a, head / heads, head % heads);
    float first[HEAD_PAIRS] = {}, second[HEAD_PAIRS] = {}, sum = 0;
#pragma unroll
    for (int k = 0; k < HEAD_PAIRS; k++)
        if (lane + 32 * k < half) {
            vec<T, 2> pair = load_pair(at.p, lane + 32 * k, a, args.apart);
            first[k] = to_float(pair.v[0]);
            second[k] = to_float(pair.v[1]);
            sum += first[k] * first[k] + second[k] * second[k];
        }
    for (int64_t j = lane + 32 * HEAD_PAIRS; j < half; j += 32) {
        vec<T, 2> pair = load_pair(at.p, j, a, args.apart);
        sum += to_float(pair.v[0]) * to_float(pair.v[0]) + to_float(pair.v[1]) * to_float(pair.v[1]);
    }
    float factor = 1.0f / sqrtf(warp_sum(sum) / (float)a.dim + a.eps);
#pragma unroll
    for (int k = 0; k < HEAD_PAIRS; k++)
        if (lane + 32 * k < half)
            rotate(at, lane + 32 * k, args, factor, first[k], second[k]);
    for (int64_t j = lane + 32 * HEAD_PAIRS; j < half; j += 32) {
        vec<T, 2> pair = load_pair(at.p, j, a, args.apart);
        rotate(at, j, args, factor, to_float(pair.v[0]), to_float(pair.v[1]));
    }
}

/* Heads of q or of k that a block takes, of each of its rows. Its threads have a vector of every row. */
typedef struct head_span {
    int of_k, first;
} head_span;

/* Spans of `each` heads: those of q, then those of k. */
static __host__ __device__ __forceinline__ int spans_of(const zi_cuda_heads &part, int each)
{
    return (int)((part.heads + each - 1) / each);
}

static __device__ __forceinline__ head_span span_at(const zi_cuda_rope_args &a, int each, int index)
{
    const int of_q = spans_of(a.q, each);
    return {index >= of_q, (index >= of_q ? index - of_q : index) * each};
}

/* A block goes from row to row, and reads the next vectors while it computes these. `Lanes` adjacent lanes take a head,
 * a vector each: for adjacent pairs and heads of 2, 4, ... 32 vectors. */
template <typename T, int Lanes, int Most>
static __global__ void __launch_bounds__(Most, blocks_of(Most)) rope_fast(const zi_cuda_rope_args a)
{
    constexpr int W = wide<T>;
    const int lane = threadIdx.x % Lanes, each = (int)blockDim.x / Lanes;
    const int spans = (int)(spans_of(a.q, each) + spans_of(a.k, each)), step = (int)gridDim.x / spans;
    const head_span span = span_at(a, each, blockIdx.x % spans);
    const int head = span.first + threadIdx.x / Lanes;
    const int there = head < (span.of_k ? a.k.heads : a.q.heads); /* all threads go on, since a warp sums together */
    const int64_t ld = span.of_k ? a.k.ld : a.q.ld;
    const float inverse_n = 1.0f / (float)a.dim;
    const vec<float, W> w = factors_at<W>(span.of_k ? a.k.w : a.q.w, lane * W);
    int64_t row = blockIdx.x / spans;
    T *x = (T *)(span.of_k ? a.k.x : a.q.x) + row * ld + (there ? head : 0) * a.dim + lane * W;
    ahead next = {};
    if (there && row < a.rows)
        next = read_ahead(x);
    for (; row < a.rows; row += step, x += step * ld) {
        const int64_t angles = row * (a.dim / 2) + lane * (W / 2);
        const vec<float, W / 2> cos = load<float, W / 2>(a.cos + angles), sin = load<float, W / 2>(a.sin + angles);
        vec<T, W> v = numbers_of<T>(next);
        if (there && row + step < a.rows)
            next = read_ahead(x + step * ld);
        float f[W], sum = 0;
#pragma unroll
        for (int j = 0; j < W; j++) {
            f[j] = to_float(v.v[j]);
            sum += f[j] * f[j];
        }
#pragma unroll
        for (int other = Lanes / 2; other > 0; other /= 2)
            sum += __shfl_xor_sync(~0u, sum, other);
        const float factor = inverse_root_of<T>(sum * inverse_n + a.eps);
#pragma unroll
        for (int j = 0; j < W; j += 2) {
            const float u = f[j] * factor * w.v[j], t = f[j + 1] * factor * w.v[j + 1];
            v.v[j] = from_float<T>(u * cos.v[j / 2] - t * sin.v[j / 2]);
            v.v[j + 1] = from_float<T>(u * sin.v[j / 2] + t * cos.v[j / 2]);
        }
        if (there)
            store<T, W>(x, v);
    }
}

template <typename T, int Lanes> static cudaError_t launch_rope(const zi_cuda_rope_args *a, cudaStream_t stream)
{
    const int64_t most = a->q.heads > a->k.heads ? a->q.heads : a->k.heads, all = (most * Lanes + 31) / 32 * 32;
    const int threads = (int)(all < PERSISTENT_MOST ? all : PERSISTENT_MOST);
    const unsigned spans = (unsigned)(spans_of(a->q, threads / Lanes) + spans_of(a->k, threads / Lanes));
    unsigned blocks;
    cudaError_t code = count_blocks(a->rows * spans, blocks_of(threads), &blocks);
    if (code != cudaSuccess)
        return code;
    blocks = blocks < spans ? spans : blocks / spans * spans;
    if (threads <= PERSISTENT_FEW)
        ZI_LAUNCH((rope_fast<T, Lanes, PERSISTENT_FEW>), blocks, (unsigned)threads, 0, stream, *a);
    else
        ZI_LAUNCH((rope_fast<T, Lanes, PERSISTENT_MOST>), blocks, (unsigned)threads, 0, stream, *a);
    return cudaGetLastError();
}

/* Whether rope_fast can load vectors of these heads. */
template <typename T> static int heads_fit(const zi_cuda_heads &h)
{
    return h.heads == 0 || (factors_fit(h.w, NULL) && ((uintptr_t)h.x | (uintptr_t)h.ld * sizeof(T)) % 16 == 0);
}

/* Launches rope_fast if it can do these sizes; *done 0: it can't. */
template <typename T> static cudaError_t try_rope_fast(const zi_cuda_rope_args *a, int *done, cudaStream_t stream)
{
    *done = !a->half_split && a->dim % wide<T> == 0 && factors_fit(a->cos, a->sin) && heads_fit<T>(a->q) &&
            heads_fit<T>(a->k);
    switch (*done ? a->dim / wide<T> : 0) {
#define CASE(lanes)                                                                                                    \
    case lanes:                                                                                                        \
        return launch_rope<T, lanes>(a, stream);
        CASE(2)
        CASE(4)
        CASE(8)
        CASE(16)
        CASE(32)
#undef CASE
    default:
        *done = 0;
        return cudaSuccess;
    }
}

/* Whether the elements of an adjacent pair can't be loaded as one vector. */
template <typename T> static int pairs_are_apart(const zi_cuda_heads &h)
{
    return h.heads > 0 && ((uintptr_t)h.x | (uintptr_t)h.ld * sizeof(T)) % (2 * sizeof(T)) != 0;
}

extern "C" cudaError_t zi_cuda_qk_norm_rope(zi_dtype type, const zi_cuda_rope_args *a, cudaStream_t stream)
{
    unsigned blocks = (unsigned)((a->rows * (a->q.heads + a->k.heads) + 7) / 8);
    int done = 0;
    WITH_TYPE(T, type, {
        const rope_args args = {*a, pairs_are_apart<T>(a->q) || pairs_are_apart<T>(a->k)};
        cudaError_t code = try_rope_fast<T>(a, &done, stream);
        if (done)
            return code;
        ZI_LAUNCH(qk_norm_rope<T>, blocks, 256, 0, stream, args);
    });
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

/* ---- softmax: one block for each row ----------------------------------------------------------------------------- */

template <typename T>
static __global__ void __launch_bounds__(ROW_THREADS)
    softmax(T *p, const float *s, int64_t rows, int64_t keys, float scale, int causal, int64_t first)
{
    int64_t row = blockIdx.x, at = row * keys,
            seen = causal && first + row % rows < keys ? first + row % rows + 1 : keys;
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

/* With the row in registers; keys: a multiple of 4. */
template <typename T, int K>
static __global__ void __launch_bounds__(ROW_THREADS) softmax_fast(T *p, const float *s, int64_t keys, float scale)
{
    row_registers<float, K> row;
    float top = -INFINITY, sum = 0;
    row.read(s + blockIdx.x * keys, keys);
#pragma unroll
    for (int k = 0; k < K; k++)
#pragma unroll
        for (int j = 0; j < row.W; j++) {
            row.v[k][j] = row.place(k) < keys ? row.v[k][j] * scale : -INFINITY;
            top = fmaxf(top, row.v[k][j]);
        }
    top = over_block<warp_max>(top, -INFINITY);
#pragma unroll
    for (int k = 0; k < K; k++)
#pragma unroll
        for (int j = 0; j < row.W; j++) {
            row.v[k][j] = exp_of<T>(row.v[k][j] - top);
            sum += row.v[k][j];
        }
    float factor = 1.0f / over_block<warp_sum>(sum, 0);
#pragma unroll
    for (int k = 0; k < K; k++) {
        vec<T, row.W> r;
#pragma unroll
        for (int j = 0; j < row.W; j++)
            r.v[j] = from_float<T>(row.v[k][j] * factor);
        if (row.place(k) < keys)
            store<T, row.W>(p + blockIdx.x * keys + row.place(k), r);
    }
}

extern "C" cudaError_t zi_cuda_softmax(zi_dtype type, void *p, const float *s, int64_t heads, int64_t rows,
                                       int64_t keys, float scale, int causal, int64_t first, cudaStream_t stream)
{
    unsigned blocks = (unsigned)(heads * rows);
    int fits = !causal && keys % 4 == 0 && ((uintptr_t)p | (uintptr_t)s) % 16 == 0;
    WITH_TYPE(T, type, {
        if (fits && keys <= 4 * 4 * ROW_THREADS)
            ZI_LAUNCH((softmax_fast<T, 4>), blocks, ROW_THREADS, 0, stream, (T *)p, s, keys, scale);
        else if (fits && keys <= 16 * 4 * ROW_THREADS)
            ZI_LAUNCH((softmax_fast<T, 16>), blocks, ROW_THREADS, 0, stream, (T *)p, s, keys, scale);
        else
            ZI_LAUNCH(softmax<T>, blocks, ROW_THREADS, 0, stream, (T *)p, s, rows, keys, scale, causal, first);
    });
    return cudaGetLastError();
}

/* ---- fp8: one block for each row --------------------------------------------------------------------------------- */

template <typename T, int K, int Gated>
static __global__ void __launch_bounds__(ROW_THREADS) to_fp8(const zi_cuda_rows8 y, const T *x, int64_t ldx, int64_t n)
{
    row_registers<T, K> row;
    if (Gated)
        row.read_gated(x + blockIdx.x * ldx, n);
    else
        row.read(x + blockIdx.x * ldx, n);
    row.write_either(nullptr, y, n);
}

template <typename T, int Gated>
static cudaError_t rows_to_fp8(zi_cuda_rows8 y, const T *x, int64_t ldx, int64_t rows, int64_t n, cudaStream_t stream)
{
    constexpr int64_t each = ROW_THREADS * wide<T>; /* elements, with one vector of each thread */
    constexpr int most = (int)(ZI_CUDA_FP8_ROW_MAX / each);
    if (n % wide<T> != 0 || n > ZI_CUDA_FP8_ROW_MAX || ((uintptr_t)x | (uintptr_t)ldx * sizeof(T)) % 16 != 0)
        return cudaErrorInvalidValue;
    if (n <= most / 4 * each)
        ZI_LAUNCH((to_fp8<T, most / 4, Gated>), (unsigned)rows, ROW_THREADS, 0, stream, y, x, ldx, n);
    else if (n <= most * 5 / 8 * each)
        ZI_LAUNCH((to_fp8<T, most * 5 / 8, Gated>), (unsigned)rows, ROW_THREADS, 0, stream, y, x, ldx, n);
    else
        ZI_LAUNCH((to_fp8<T, most, Gated>), (unsigned)rows, ROW_THREADS, 0, stream, y, x, ldx, n);
    return cudaGetLastError();
}

extern "C" cudaError_t zi_cuda_quantise_rows(zi_cuda_rows8 y, zi_dtype type, const void *x, int64_t ldx, int64_t rows,
                                             int64_t n, cudaStream_t stream)
{
    WITH_TYPE(T, type, return (rows_to_fp8<T, 0>(y, (const T *)x, ldx, rows, n, stream)));
    return cudaErrorInvalidValue;
}

extern "C" cudaError_t zi_cuda_glu_fp8(zi_cuda_rows8 y, zi_dtype type, const void *x, int64_t rows, int64_t n,
                                       cudaStream_t stream)
{
    WITH_TYPE(T, type, return (rows_to_fp8<T, 1>(y, (const T *)x, 2 * n, rows, n, stream)));
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
