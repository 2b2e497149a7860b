#include "mlx/kernel_sources.h"

#include <stdexcept>

namespace
{

/* What differs between the two languages: where a thread is, sums of a warp, bits of a number. */
const char *const METAL_HEADER = R"(
#define ZI_BITS(value) as_type<uint>(value)
#define ZI_BITS16(value) uint(as_type<ushort>(value))
#define ZI_WORDS(pointer) ((device uint *)(pointer))
#define ZI_WORDS4(pointer) ((device uint4 *)(pointer))
#define ZI_MAKE4(a, b, c, d) uint4(a, b, c, d)
#define ZI_RSQRT(value) metal::precise::rsqrt(value)
#define ZI_BARRIER threadgroup_barrier(metal::mem_flags::mem_threadgroup)
inline float zi_warp_sum(float value) { return metal::simd_sum(value); }
)";
const char *const METAL_PLACE = R"(
    const uint block = threadgroup_position_in_grid.x, thread = thread_position_in_threadgroup.x;
    const uint lane = thread_index_in_simdgroup, warp = simdgroup_index_in_threadgroup;
)";
const char *const METAL_SHARED = R"(
    threadgroup float shared[32];
)";
const char *const CUDA_HEADER = R"(
typedef unsigned int uint;
#define ZI_BITS(value) __float_as_uint(value)
#define ZI_BITS16(value) uint(__bfloat16_as_ushort(value))
#define ZI_WORDS(pointer) ((uint *)(pointer))
#define ZI_WORDS4(pointer) ((uint4 *)(pointer))
#define ZI_MAKE4(a, b, c, d) make_uint4(a, b, c, d)
#define ZI_RSQRT(value) (1.0f / sqrtf(value))
#define ZI_BARRIER __syncthreads()
__device__ inline float zi_warp_sum(float value)
{
    for (int i = 16; i > 0; i /= 2)
        value += __shfl_xor_sync(0xffffffffu, value, i);
    return value;
}
)";
const char *const CUDA_PLACE = R"(
    const uint block = blockIdx.x, thread = threadIdx.x, lane = thread % 32, warp = thread / 32;
)";
const char *const CUDA_SHARED = R"(
    __shared__ float shared[32];
)";

/* SUM(value, result): the sum of all threads' values, in each thread. */
const char *const SUM = R"(
#define SUM(value, result) \
    { \
        const float of_warp = zi_warp_sum(value); \
        ZI_BARRIER; \
        if (lane == 0) \
            shared[warp] = of_warp; \
        ZI_BARRIER; \
        float of_all = 0; \
        for (uint k = 0; k < THREADS / 32; k++) \
            of_all += shared[k]; \
        result = of_all; \
    }
)";

/*
 * Features, heads and eps are known at run time only: MLX compiles a kernel for each value of a constant, which takes a
 * second. What decides which code is needed at all (NEXT, HAS_GAIN, ...) is a constant. eps[0] belongs to the norm
 * whose result is h or rotated, eps[1] to the norm of y.
 *
 * FEATURES(read, work): work with `value`, what is read at i, for all of this thread's features i; 0 is read above the
 * last one. Eight reads are under way at a time, as the compiler can't do by itself for a number that it does not know.
 */
const char *const ROW = R"(
    const uint N = uint(x_shape[x_ndim - 1]);
#define FEATURES(read, work) \
    for (uint first = thread; first < N; first += 8 * THREADS) \
        for (uint k = 0; k < 8; k++) { \
            const uint i = first + k * THREADS; \
            const float value = i < N ? (read) : 0.0f; \
            work; \
        }
)";

/* h = norm(VALUE(i)) of the block's row; needs `squares` and `total`, this thread's sums of squares and of values. */
const char *const NORM = R"(
    if (NEXT != 0) {
        float factor = 0, mean = 0;
        if (NEXT == 1) {
            SUM(squares, factor);
        } else {
            SUM(total, mean);
            mean /= N;
            float apart = 0;
            FEATURES(VALUE(i) - mean, apart += value * value);
            SUM(apart, factor);
        }
        factor = ZI_RSQRT(factor / N + eps[0]);
        for (uint i = thread; i < N; i += THREADS) {
            float value = (VALUE(i) - mean) * factor;
            if (HAS_GAIN)
                value *= gain[i];
            if (HAS_SHIFT)
                value += shift[i];
            h[row + i] = T(value);
        }
    }
)";

const char *const NORM_BODY = R"(
    const size_t row = size_t(block) * N;
    float squares = 0, total = 0;
#define VALUE(i) float(x[row + (i)])
    FEATURES(VALUE(i), squares += value * value; total += value);
)";

const char *const RESIDUAL_BODY = R"(
    const size_t row = size_t(block) * N;
    float factor_of_y = 1, squares = 0, total = 0, bad = 0;
    if (HAS_POST) {
        float of_y = 0;
        FEATURES(float(y[row + i]), of_y += value * value);
        SUM(of_y, of_y);
        factor_of_y = ZI_RSQRT(of_y / N + eps[1]);
    }
    for (uint i = thread; i < N; i += THREADS) {
        float value = float(y[row + i]) * factor_of_y;
        if (HAS_POST_GAIN)
            value *= post_gain[i];
        const T stored = T(float(x[row + i]) + value);
        sum[row + i] = stored;
        value = float(stored);
        squares += value * value;
        total += value;
        bad += (ZI_BITS(value) & 0x7f800000u) == 0x7f800000u ? 1.0f : 0.0f;
    }
    SUM(bad, bad);
    if (thread == 0)
        finite[block] = bad == 0 ? 1.0f : 0.0f;
#define VALUE(i) float(sum[row + (i)])
)";

/* A warp computes a head. */
const char *const ROTATE_BODY = R"(
    const uint N = uint(gain_shape[0]), heads = uint(x_shape[1]) / N, head = block * (THREADS / 32) + warp;
    if (head < uint(x_shape[0]) * heads) {
        const size_t first = size_t(head) * N;
        const size_t angle = size_t(head / heads) * (N / 2);
        float squares = 0;
        for (uint i = lane; i < N; i += 32) {
            const float value = float(x[first + i]);
            squares += value * value;
        }
        const float factor = ZI_RSQRT(zi_warp_sum(squares) / N + eps[0]);
        for (uint j = lane; j < N / 2; j += 32) {
            const uint a = ADJACENT ? 2 * j : j, b = ADJACENT ? 2 * j + 1 : j + N / 2;
            const float u = float(x[first + a]) * factor * gain[a], v = float(x[first + b]) * factor * gain[b];
            const float c = cosines[angle + j], s = sines[angle + j];
            rotated[first + a] = T(u * c - v * s);
            rotated[first + b] = T(v * c + u * s);
        }
    }
)";

/* A thread unpacks the numbers of a word, 32 / BITS of a group. */
const char *const UNPACK_BODY = R"(
    const uint index = block * THREADS + thread;
    if (index < uint(w_shape[0]) * uint(w_shape[1])) {
        const uint group = index / (GROUP * BITS / 32), word = w[index], mask = (1u << BITS) - 1;
        const float scale = float(scales[group]), bias = float(biases[group]);
        uint pairs[8];
        for (uint i = 0; i < 16 / BITS; i++) {
            const uint low = word >> (2 * i * BITS) & mask, high = word >> ((2 * i + 1) * BITS) & mask;
            pairs[i] = ZI_BITS16(T(scale * float(low) + bias)) | ZI_BITS16(T(scale * float(high) + bias)) << 16;
        }
        if (BITS == 4)
            ZI_WORDS4(unpacked)[index] = ZI_MAKE4(pairs[0], pairs[1], pairs[2], pairs[3]);
        else
            for (uint i = 0; i < 16 / BITS; i++)
                ZI_WORDS(unpacked)[size_t(index) * (16 / BITS) + i] = pairs[i];
    }
)";

/* ---- the list ---------------------------------------------------------------------------------------------------- */

const zi_kernel_source sources[] = {
    {"zimage_norm", {"x", "gain", "shift", "eps"}, {"h"}, NORM_BODY, NORM, true},
    {"zimage_residual",
     {"x", "y", "post_gain", "gain", "shift", "eps"},
     {"sum", "h", "finite"},
     RESIDUAL_BODY,
     NORM,
     true},
    {"zimage_rotate", {"x", "gain", "cosines", "sines", "eps"}, {"rotated"}, ROTATE_BODY, "", false},
    {"zimage_unpack", {"w", "scales", "biases"}, {"unpacked"}, UNPACK_BODY, "", false},
};

} // namespace

const zi_kernel_source &zi_kernel_find(const std::string &name)
{
    for (const zi_kernel_source &source : sources)
        if (source.name == name)
            return source;
    throw std::logic_error("there is no kernel " + name);
}

std::string zi_kernel_header(bool metal)
{
    return metal ? METAL_HEADER : CUDA_HEADER;
}

std::string zi_kernel_body(const zi_kernel_source &source, bool metal)
{
    std::string body = metal ? METAL_PLACE : CUDA_PLACE;
    if (source.sums)
        body = SUM + body + (metal ? METAL_SHARED : CUDA_SHARED) + ROW;
    return body + source.body + source.more;
}
