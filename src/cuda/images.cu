/* Channels-last images: statistics, what convolutions read, and a convolution for every size. */
#include "cuda/device_code.cuh"

/* ---- group norm ---------------------------------------------------------------------------------------------------- */

/* A block takes some pixels; threads go along the channels, then add up their groups in shared memory. */
template <typename T>
static __global__ void group_sums(double *sums, const T *x, int64_t pixels, int64_t channels, int64_t groups)
{
    ZI_DYNAMIC_SHARED(double, shared); /* [groups][2] */
    for (int64_t i = threadIdx.x; i < 2 * groups; i += blockDim.x)
        shared[i] = 0;
    __syncthreads();
    int64_t size = channels / groups;
    for (int64_t c = threadIdx.x; c < channels; c += blockDim.x) {
        double sum = 0, squares = 0;
        for (int64_t p = blockIdx.x; p < pixels; p += gridDim.x) {
            double v = to_float(x[p * channels + c]);
            sum += v;
            squares += v * v;
        }
        atomicAdd(&shared[c / size * 2], sum);
        atomicAdd(&shared[c / size * 2 + 1], squares);
    }
    __syncthreads();
    for (int64_t i = threadIdx.x; i < 2 * groups; i += blockDim.x)
        atomicAdd(&sums[i], shared[i]);
}

extern "C" cudaError_t zi_cuda_group_sums(zi_dtype type, double *sums, const void *x, int64_t pixels, int64_t channels,
                                          int64_t groups, cudaStream_t stream)
{
    int threads = channels < 512 ? (int)((channels + 31) / 32 * 32) : 512;
    unsigned blocks = (unsigned)(pixels < 1024 ? pixels : 1024);
    WITH_TYPE(T, type,
              ZI_LAUNCH(group_sums<T>, blocks, threads, (size_t)groups * 2 * sizeof(double), stream, sums, (const T *)x,
                        pixels, channels, groups));
    return cudaGetLastError();
}

/* In float64: the variance is a small difference of large sums. */
static __global__ void group_fold(float *scale, float *shift, const double *sums, const float *w, const float *b,
                                  int64_t channels, int64_t size, double count, double eps)
{
    EACH(c, channels)
    {
        const double *sum = sums + c / size * 2;
        double mean = sum[0] / count, variance = sum[1] / count - mean * mean;
        double factor = w[c] / sqrt((variance < 0 ? 0 : variance) + eps);
        scale[c] = (float)factor;
        shift[c] = (float)(b[c] - mean * factor);
    }
}

extern "C" cudaError_t zi_cuda_group_fold(float *scale, float *shift, const double *sums, const float *w,
                                          const float *b, int64_t channels, int64_t groups, int64_t count, float eps,
                                          cudaStream_t stream)
{
    ZI_LAUNCH(group_fold, blocks_for(channels, 128), 128, 0, stream, scale, shift, sums, w, b, channels,
              channels / groups, (double)count, (double)eps);
    return cudaGetLastError();
}

template <typename T, int W>
static __global__ void channel_affine(T *y, const T *x, const float *scale, const float *shift, int64_t vectors,
                                      int64_t channels)
{
    EACH(i, vectors)
    {
        int64_t c = i * W % channels;
        vec<T, W> v = load<T, W>(x + i * W);
#pragma unroll
        for (int j = 0; j < W; j++)
            v.v[j] = from_float<T>(to_float(v.v[j]) * scale[c + j] + shift[c + j]);
        store<T, W>(y + i * W, v);
    }
}

extern "C" cudaError_t zi_cuda_channel_affine(zi_dtype type, void *y, const void *x, const float *scale,
                                              const float *shift, int64_t pixels, int64_t channels, cudaStream_t stream)
{
    WITH_TYPE(T, type,
              WITH_WIDTH(T, W, channels, (uintptr_t)x | (uintptr_t)y,
                         ZI_LAUNCH((channel_affine<T, W>), blocks_for(pixels * channels / W, 256), 256, 0, stream,
                                   (T *)y, (const T *)x, scale, shift, pixels * channels / W, channels)));
    return cudaGetLastError();
}

/* ---- what a convolution reads -------------------------------------------------------------------------------------- */

template <typename T, int W> static __global__ void band_input(T *y, const zi_cuda_band b)
{
    int64_t vectors = b.channels / W, columns = b.columns << b.doubled, image_rows = b.image_rows << b.doubled;
    EACH(i, b.rows * columns * vectors)
    {
        int64_t c = i % vectors * W, column = i / vectors % columns, row = b.first + i / vectors / columns;
        vec<T, W> v;
#pragma unroll
        for (int j = 0; j < W; j++)
            v.v[j] = from_float<T>(0.0f);
        if (row >= 0 && row < image_rows)
            v = load<T, W>((const T *)b.x +
                           (((row >> b.doubled) - b.x_row) * b.columns + (column >> b.doubled)) * b.channels + c);
        if (b.scale != nullptr && row >= 0 && row < image_rows)
#pragma unroll
            for (int j = 0; j < W; j++)
                v.v[j] = from_float<T>(silu_of<T>(to_float(v.v[j]) * b.scale[c + j] + b.shift[c + j]));
        store<T, W>(y + i * W, v);
    }
}

extern "C" cudaError_t zi_cuda_band_input(zi_dtype type, void *y, const zi_cuda_band *b, cudaStream_t stream)
{
    int64_t count = b->rows * (b->columns << b->doubled) * b->channels;
    WITH_TYPE(T, type,
              WITH_WIDTH(T, W, b->channels, (uintptr_t)b->x | (uintptr_t)y,
                         ZI_LAUNCH((band_input<T, W>), blocks_for(count / W, 256), 256, 0, stream, (T *)y, *b)));
    return cudaGetLastError();
}

/* ---- a convolution for every size ---------------------------------------------------------------------------------- */

#define TILE 64 /* pixels, and outputs, of a block: a thread has 4 x 4 of them */
#define DEEP 16 /* inputs at a time */

/* The input that product `k` of a pixel (row, column) multiplies; k counts taps, then channels. */
template <typename T>
static __device__ float conv_input(const T *x, const zi_cuda_conv &c, int64_t row, int64_t column, int64_t k)
{
    int64_t tap = k / c.in, i = column + tap % c.side - c.side / 2;
    if (i < 0 || i >= c.columns)
        return 0;
    return to_float(x[((row + tap / c.side) * c.columns + i) * c.in + k % c.in]);
}

template <typename Y, typename T>
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
                k < depth && pixel < pixels ? conv_input(x, c, pixel / c.columns, pixel % c.columns, k) : 0.0f;
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
    WITH_TYPE(
        Y, y_type,
        WITH_TYPE(T, type,
                  ZI_LAUNCH((conv_any<Y, T>), blocks, 256, 0, stream, (Y *)y, (const T *)x, (const T *)filter, *c)));
    return cudaGetLastError();
}

template <typename Y, typename T>
static __global__ void take_channels(Y *y, const T *x, const float *bias, int accumulate, int64_t count, int64_t out,
                                     int64_t padded)
{
    EACH(i, count)
    y[i] = from_float<Y>(to_float(x[i / out * padded + i % out]) + (bias != nullptr ? bias[i % out] : 0.0f) +
                         (accumulate ? to_float(y[i]) : 0.0f));
}

extern "C" cudaError_t zi_cuda_take_channels(zi_dtype y_type, void *y, zi_dtype type, const void *x, const float *bias,
                                             int accumulate, int64_t pixels, int64_t out, int64_t padded,
                                             cudaStream_t stream)
{
    int64_t count = pixels * out;
    WITH_TYPE(Y, y_type,
              WITH_TYPE(T, type,
                        ZI_LAUNCH((take_channels<Y, T>), blocks_for(count, 256), 256, 0, stream, (Y *)y, (const T *)x,
                                  bias, accumulate, count, out, padded)));
    return cudaGetLastError();
}
