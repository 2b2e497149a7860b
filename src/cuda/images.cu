/* Channels-last images: group norms, the input of convolutions, and convolutions without cuDNN. */
#include "cuda/device_code.cuh"

#define THREADS 256
#define AHEAD   4 /* vectors that a thread loads at a time */
#ifndef SUM_BLOCKS
#define SUM_BLOCKS 528 /* 4 on each of 132 multiprocessors; fewer on the emulated GPU */
#endif
#define SUM_RUN 256 /* pixels that a thread sums in float32: a multiple of AHEAD */

/* ---- how the threads of a block divide pixels -------------------------------------------------------------------- */

/* Adjacent threads that take the vectors of channels of one pixel. */
static inline int span_of(int64_t vectors)
{
    return (int)(vectors < THREADS ? vectors : THREADS);
}

/* A thread's place: its lane along the channels, and its pixels. It takes AHEAD pixels from `first` on, at_once apart,
 * and goes on `step` pixels further. */
typedef struct place {
    int lane, pixel, at_once;
    int64_t first, step;
} place;

static __device__ __forceinline__ place place_of(int span)
{
    place p;
    p.lane = (int)threadIdx.x % span;
    p.pixel = (int)threadIdx.x / span;
    p.at_once = (int)blockDim.x / span;
    p.first = (int64_t)blockIdx.x * p.at_once * AHEAD + p.pixel;
    p.step = (int64_t)gridDim.x * p.at_once * AHEAD;
    return p;
}

/* The vector at p, or zeros. */
template <typename T, int W> static __device__ __forceinline__ vec<T, W> load_if(bool there, const T *p)
{
    if (there)
        return load<T, W>(p);
    vec<T, W> zeros;
#pragma unroll
    for (int j = 0; j < W; j++)
        zeros.v[j] = from_float<T>(0.0f);
    return zeros;
}

/* ---- group norm -------------------------------------------------------------------------------------------------- */

/* The type of a thread's sums. bf16: a square has 16 significant bits, so that float32's 24 bits hold the sum of
 * SUM_RUN squares of one magnitude exactly. Where magnitudes differ the variance is large, and small errors do not
 * matter. */
template <typename T> struct partial;
template <> struct partial<bf16> {
    typedef float type;
};
template <> struct partial<float> {
    typedef double type;
};

/* Sums over the thread's pixels, with AHEAD loads at a time; x: its channels of pixel 0. */
template <typename T, int W, typename S>
static __device__ __forceinline__ void add_pixels(S *sums, S *squares, const T *x, int64_t pixels, int64_t channels,
                                                  const place &p)
{
    for (int64_t first = p.first; first < pixels; first += p.step) {
        vec<T, W> v[AHEAD];
#pragma unroll
        for (int i = 0; i < AHEAD; i++)
            v[i] = load_if<T, W>(first + i * p.at_once < pixels, x + (first + i * p.at_once) * channels);
#pragma unroll
        for (int i = 0; i < AHEAD; i++)
#pragma unroll
            for (int j = 0; j < W; j++) {
                S value = to_float(v[i].v[j]);
                sums[j] += value;
                squares[j] += value * value;
            }
    }
}

/* Adds the threads' sums of a channel in float64, then the channels of a group, to sums. */
template <typename T, int W>
static __global__ void __launch_bounds__(THREADS, 4)
    group_sums(double *sums, const T *x, int64_t pixels, int64_t channels, int64_t groups, int span)
{
    typedef typename partial<T>::type S;
    ZI_DYNAMIC_SHARED(double, totals); /* totals [2][width], then parts [at_once][2][width] */
    const place p = place_of(span);
    int width = span * W;
    S *parts = (S *)(totals + 2 * width), *mine = parts + p.pixel * 2 * width + p.lane * W;
    int64_t size = channels / groups;
    for (int64_t base = 0; base < channels; base += width) {
        S sum[W] = {}, squares[W] = {};
        if (base + p.lane * W < channels)
            add_pixels<T, W, S>(sum, squares, x + base + p.lane * W, pixels, channels, p);
        for (int j = 0; j < W; j++) {
            mine[j] = sum[j];
            mine[width + j] = squares[j];
        }
        __syncthreads();
        for (int i = threadIdx.x; i < 2 * width; i += blockDim.x) {
            double total = 0;
            for (int pixel = 0; pixel < p.at_once; pixel++)
                total += parts[pixel * 2 * width + i];
            totals[i] = total;
        }
        __syncthreads();
        for (int64_t i = threadIdx.x; i < 2 * groups; i += blockDim.x) {
            int64_t first = i / 2 * size - base, end = first + size < width ? first + size : width;
            double total = 0;
            for (int64_t c = first > 0 ? first : 0; c < end; c++)
                total += totals[i % 2 * width + c];
            if (end > 0 && first < width)
                atomicAdd(&sums[i], total);
        }
    }
}

/* Blocks in whole waves, enough that a thread sums at most SUM_RUN pixels, few enough that each has some. steps: pixels
 * / at_once. */
static unsigned sum_blocks(int64_t steps)
{
    int64_t most = (steps + AHEAD - 1) / AHEAD, wave = (int64_t)SUM_BLOCKS * SUM_RUN;
    int64_t blocks = SUM_BLOCKS * ((steps + wave - 1) / wave);
    return (unsigned)(blocks < most ? blocks : most);
}

extern "C" cudaError_t zi_cuda_group_sums(zi_dtype type, double *sums, const void *x, int64_t pixels, int64_t channels,
                                          int64_t groups, cudaStream_t stream)
{
    WITH_TYPE(T, type,
              WITH_WIDTH(T, W, channels, x, int span = span_of(channels / W); int at_once = THREADS / span;
                         size_t bytes = (size_t)(2 * span * W) *
                                        (sizeof(double) + (size_t)at_once * sizeof(typename partial<T>::type));
                         ZI_LAUNCH((group_sums<T, W>), sum_blocks((pixels + at_once - 1) / at_once), at_once * span,
                                   bytes, stream, sums, (const T *)x, pixels, channels, groups, span)));
    return cudaGetLastError();
}

/* In float64: the variance may be a small difference of large numbers. */
static __global__ void group_fold(float *scale, float *shift, const zi_cuda_fold_args f)
{
    EACH(c, f.channels)
    {
        const double *part = f.sums + c / (f.channels / f.groups) * 2;
        double sum = part[0], squares = part[1];
        for (int i = 1; i < f.parts; i++) {
            sum += part[i * 2 * f.groups];
            squares += part[i * 2 * f.groups + 1];
        }
        double mean = sum / (double)f.count, variance = squares / (double)f.count - mean * mean;
        double factor = f.w[c] / sqrt((variance < 0 ? 0 : variance) + f.eps);
        scale[c] = (float)factor;
        shift[c] = (float)(f.b[c] - mean * factor);
    }
}

extern "C" cudaError_t zi_cuda_group_fold(float *scale, float *shift, const zi_cuda_fold_args *args,
                                          cudaStream_t stream)
{
    ZI_LAUNCH(group_fold, blocks_for(args->channels, 128), 128, 0, stream, scale, shift, *args);
    return cudaGetLastError();
}

/* ---- the input of a convolution ---------------------------------------------------------------------------------- */

template <typename T, int W, bool Silu>
static __device__ __forceinline__ void apply(vec<T, W> &v, const vec<float, W> &scale, const vec<float, W> &shift)
{
#pragma unroll
    for (int j = 0; j < W; j++) {
        float value = to_float(v.v[j]) * scale.v[j] + shift.v[j];
        v.v[j] = from_float<T>(Silu ? silu_of<T>(value) : value);
    }
}

/* The thread's part of a row of y; x, y: its channels of column 0. Rows outside of the image are zeros. */
template <typename T, int W, bool Silu>
static __device__ __forceinline__ void band_row(T *y, const T *x, bool inside, const zi_cuda_band &b, int64_t c,
                                                const place &p)
{
    int64_t columns = b.columns << b.doubled;
    bool scaled = b.scale != nullptr && inside;
    vec<float, W> scale = factors_at<W>(scaled ? b.scale : nullptr, c);
    vec<float, W> shift = factors_at<W>(scaled ? b.shift : nullptr, c);
    for (int64_t first = p.first; first < columns; first += p.step) {
        vec<T, W> v[AHEAD];
#pragma unroll
        for (int i = 0; i < AHEAD; i++) {
            int64_t column = first + i * p.at_once;
            v[i] = load_if<T, W>(inside && column < columns, x + (column >> b.doubled) * b.channels);
        }
#pragma unroll
        for (int i = 0; i < AHEAD; i++) {
            int64_t column = first + i * p.at_once;
            if (scaled)
                apply<T, W, Silu>(v[i], scale, shift);
            if (column < columns)
                store<T, W>(y + column * b.channels, v[i]);
        }
    }
}

template <typename T, int W, bool Silu>
static __global__ void __launch_bounds__(THREADS, 3) band_input(T *y, const zi_cuda_band b, int span)
{
    const place p = place_of(span);
    int64_t image_rows = b.image_rows << b.doubled, size = (b.columns << b.doubled) * b.channels;
    for (int64_t i = blockIdx.y; i < b.rows; i += gridDim.y) {
        int64_t row = b.first + i;
        bool inside = row >= 0 && row < image_rows;
        const T *x = (const T *)b.x + (inside ? (row >> b.doubled) - b.x_row : 0) * b.columns * b.channels;
        for (int64_t c = p.lane * W; c < b.channels; c += span * W)
            band_row<T, W, Silu>(y + i * size + c, x + c, inside, b, c, p);
    }
}

#define COLUMNS 8 /* columns of a row that a thread takes: a multiple of AHEAD */

static dim3 band_blocks(const zi_cuda_band *b, int at_once)
{
    int64_t columns = b->columns << b->doubled, each = at_once * COLUMNS;
    return dim3((unsigned)((columns + each - 1) / each), (unsigned)(b->rows < 65535 ? b->rows : 65535));
}

template <bool Silu> static cudaError_t make_band(zi_dtype type, void *y, const zi_cuda_band *b, cudaStream_t stream)
{
    uintptr_t pointers = (uintptr_t)b->x | (uintptr_t)y | (uintptr_t)b->scale | (uintptr_t)b->shift;
    WITH_TYPE(T, type,
              WITH_WIDTH(T, W, b->channels, pointers, int span = span_of(b->channels / W);
                         ZI_LAUNCH((band_input<T, W, Silu>), band_blocks(b, THREADS / span), THREADS / span * span, 0,
                                   stream, (T *)y, *b, span)));
    return cudaGetLastError();
}

extern "C" cudaError_t zi_cuda_band_input(zi_dtype type, void *y, const zi_cuda_band *b, cudaStream_t stream)
{
    return make_band<true>(type, y, b, stream);
}

/* Takes all pixels as one row. */
extern "C" cudaError_t zi_cuda_channel_affine(zi_dtype type, void *y, const void *x, const float *scale,
                                              const float *shift, int64_t pixels, int64_t channels, cudaStream_t stream)
{
    const zi_cuda_band all = {x, 0, 1, pixels, channels, 0, scale, shift, 0, 1};
    return make_band<false>(type, y, &all, stream);
}

/* ---- sums over the taps of a convolution ------------------------------------------------------------------------- */

template <typename Y, int Side>
static __global__ void __launch_bounds__(THREADS, 4)
    sum_taps(Y *__restrict__ y, const float *__restrict__ products, int64_t step, const zi_cuda_conv c)
{
    int64_t column = (int64_t)blockIdx.x * blockDim.x + threadIdx.x;
    if (column >= c.columns)
        return;
    for (int64_t row = blockIdx.y; row < c.rows; row += gridDim.y)
#pragma unroll 3
        for (int64_t out = 0; out < c.out; out++) {
            const float *tap = products + out * Side * Side * step + row * c.columns + column - Side / 2;
            Y *target = y + (row * c.columns + column) * c.out + out;
            float sum = c.bias != nullptr ? c.bias[out] : 0.0f;
#pragma unroll
            for (int i = 0; i < Side * Side; i++) {
                int64_t at = column + i % Side - Side / 2;
                if (at >= 0 && at < c.columns)
                    sum += tap[i * step + i / Side * c.columns + i % Side];
            }
            *target = from_float<Y>(sum + (c.accumulate ? to_float(*target) : 0.0f));
        }
}

extern "C" cudaError_t zi_cuda_sum_taps(zi_dtype y_type, void *y, const float *products, int64_t step,
                                        const zi_cuda_conv *c, cudaStream_t stream)
{
    dim3 blocks((unsigned)((c->columns + THREADS - 1) / THREADS), (unsigned)(c->rows < 65535 ? c->rows : 65535));
    if (c->side != 1 && c->side != 3)
        return cudaErrorInvalidValue;
    WITH_TYPE(Y, y_type,
              if (c->side == 1) ZI_LAUNCH((sum_taps<Y, 1>), blocks, THREADS, 0, stream, (Y *)y, products, step, *c);
              else ZI_LAUNCH((sum_taps<Y, 3>), blocks, THREADS, 0, stream, (Y *)y, products, step, *c));
    return cudaGetLastError();
}

/* ---- convolutions of every size ---------------------------------------------------------------------------------- */

#define TILE 64 /* pixels and outputs of a block; a thread computes 4 x 4 of them */
#define DEEP 16 /* products summed between barriers */

/* The input that product `k` of an output pixel (row, column) multiplies; k counts taps, then channels. Same: the
 * output has the input's columns, and stride is 1. */
template <bool Same, typename T>
static __device__ float conv_input(const T *x, const zi_cuda_conv &c, int64_t row, int64_t column, int64_t k)
{
    int64_t tap = k / c.in, columns = Same ? c.columns : c.x_columns;
    int64_t i = (Same ? column : column * c.stride) + tap % c.side - (Same ? c.side / 2 : c.left);
    if (i < 0 || i >= columns)
        return 0;
    return to_float(x[(((Same ? row : row * c.stride) + tap / c.side) * columns + i) * c.in + k % c.in]);
}

template <bool Same, typename Y, typename T>
static __global__ void __launch_bounds__(256) conv_any(Y *y, const T *x, const T *filter, const zi_cuda_conv c)
{
    __shared__ float inputs[DEEP][TILE + 1], weights[DEEP][TILE + 1];
    int64_t depth = c.side * c.side * c.in, pixels = c.rows * c.columns;
    int64_t first_pixel = (int64_t)blockIdx.x * TILE, first_out = (int64_t)blockIdx.y * TILE;
    int lane = threadIdx.x % 16, group = threadIdx.x / 16;
    float sums[4][4] = {};
    for (int64_t k0 = 0; k0 < depth; k0 += DEEP) {
        int64_t k = k0 + lane;
        for (int i = group; i < TILE; i += 16) {
            int64_t pixel = first_pixel + i, out = first_out + i;
            inputs[lane][i] =
                k < depth && pixel < pixels ? conv_input<Same>(x, c, pixel / c.columns, pixel % c.columns, k) : 0.0f;
            weights[lane][i] = k < depth && out < c.out ? to_float(filter[out * depth + k]) : 0.0f;
        }
        __syncthreads();
#pragma unroll
        for (int d = 0; d < DEEP; d++)
#pragma unroll
            for (int i = 0; i < 4; i++)
#pragma unroll
                for (int j = 0; j < 4; j++)
                    sums[i][j] += inputs[d][group + 16 * i] * weights[d][lane + 16 * j];
        __syncthreads();
    }
    for (int i = 0; i < 4; i++)
        for (int j = 0; j < 4; j++) {
            int64_t pixel = first_pixel + group + 16 * i, out = first_out + lane + 16 * j;
            if (pixel >= pixels || out >= c.out)
                continue;
            Y *target = y + pixel * c.out + out;
            *target = from_float<Y>(sums[i][j] + (c.bias != nullptr ? c.bias[out] : 0.0f) +
                                    (c.accumulate ? to_float(*target) : 0.0f));
        }
}

extern "C" cudaError_t zi_cuda_conv_any(zi_dtype y_type, void *y, zi_dtype type, const void *x, const void *filter,
                                        const zi_cuda_conv *c, cudaStream_t stream)
{
    dim3 blocks((unsigned)((c->rows * c->columns + TILE - 1) / TILE), (unsigned)((c->out + TILE - 1) / TILE));
    bool same = c->stride == 1 && c->left == c->side / 2 && c->x_columns == c->columns;
    WITH_TYPE(Y, y_type,
              WITH_TYPE(T, type,
                        if (same) ZI_LAUNCH((conv_any<true, Y, T>), blocks, 256, 0, stream, (Y *)y, (const T *)x,
                                            (const T *)filter, *c);
                        else ZI_LAUNCH((conv_any<false, Y, T>), blocks, 256, 0, stream, (Y *)y, (const T *)x,
                                       (const T *)filter, *c)));
    return cudaGetLastError();
}
