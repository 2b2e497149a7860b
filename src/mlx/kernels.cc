#include "mlx/kernels.h"

#include <bit>
#include <cstring>
#include <stdexcept>
#include <string>

namespace
{

constexpr int WARP = 32, THREADS = 256;

/* What differs between the two languages: where a thread is, sums of a warp, bits of a number. */
const char *const METAL_HEADER = R"(
#define ZI_FLOAT(bits) as_type<float>(bits)
#define ZI_BITS(value) as_type<uint>(value)
#define ZI_RSQRT(value) metal::precise::rsqrt(value)
#define ZI_BARRIER threadgroup_barrier(metal::mem_flags::mem_threadgroup)
inline float zi_warp_sum(float value) { return metal::simd_sum(value); }
)";
const char *const METAL_PLACE = R"(
    const uint block = threadgroup_position_in_grid.x, thread = thread_position_in_threadgroup.x;
    const uint lane = thread_index_in_simdgroup, warp = simdgroup_index_in_threadgroup;
    threadgroup float shared[32];
)";
const char *const CUDA_HEADER = R"(
typedef unsigned int uint;
#define ZI_FLOAT(bits) __int_as_float(bits)
#define ZI_BITS(value) __float_as_uint(value)
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
            for (uint i = thread; i < N; i += THREADS) {
                const float value = VALUE(i) - mean;
                apart += value * value;
            }
            SUM(apart, factor);
        }
        factor = ZI_RSQRT(factor / N + ZI_FLOAT(NEXT_EPS));
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
    for (uint i = thread; i < N; i += THREADS) {
        const float value = VALUE(i);
        squares += value * value;
        total += value;
    }
)";

const char *const RESIDUAL_BODY = R"(
    const size_t row = size_t(block) * N;
    float factor_of_y = 1, squares = 0, total = 0, bad = 0;
    if (HAS_POST) {
        float of_y = 0;
        for (uint i = thread; i < N; i += THREADS) {
            const float value = float(y[row + i]);
            of_y += value * value;
        }
        SUM(of_y, of_y);
        factor_of_y = ZI_RSQRT(of_y / N + ZI_FLOAT(POST_EPS));
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
    const uint head = block * (THREADS / 32) + warp;
    shared[lane] = 0; /* only the other kernels need it */
    if (head < uint(x_shape[0])) {
        const size_t first = size_t(head) * N;
        const size_t angle = size_t(head / HEADS) * (N / 2);
        float squares = 0;
        for (uint i = lane; i < N; i += 32) {
            const float value = float(x[first + i]);
            squares += value * value;
        }
        const float factor = ZI_RSQRT(zi_warp_sum(squares) / N + ZI_FLOAT(NEXT_EPS));
        for (uint j = lane; j < N / 2; j += 32) {
            const uint a = ADJACENT ? 2 * j : j, b = ADJACENT ? 2 * j + 1 : j + N / 2;
            const float u = float(x[first + a]) * factor * gain[a], v = float(x[first + b]) * factor * gain[b];
            const float c = cosines[angle + j], s = sines[angle + j];
            rotated[first + a] = T(u * c - v * s);
            rotated[first + b] = T(v * c + u * s);
        }
    }
)";

using kernel = mx::fast::CustomKernelFunction;
using names = std::vector<std::string>;

kernel make(const char *name, const names &inputs, const names &outputs, const std::string &body)
{
    if (mx::is_available(mx::Device(mx::Device::gpu)) &&
        mx::device_info(mx::Device(mx::Device::gpu)).count("compute_capability_major"))
        return mx::fast::cuda_kernel(name, inputs, outputs, std::string(SUM) + CUDA_PLACE + body, CUDA_HEADER);
    return mx::fast::metal_kernel(name, inputs, outputs, std::string(SUM) + METAL_PLACE + body, METAL_HEADER);
}

using arguments = std::vector<std::pair<std::string, mx::fast::TemplateArg>>;

void add_norm(arguments &args, const std::optional<zi_row_norm> &norm)
{
    args.emplace_back("NEXT", !norm ? 0 : norm->layer ? 2 : 1);
    args.emplace_back("NEXT_EPS", std::bit_cast<int>(norm ? norm->eps : 0.0F));
    args.emplace_back("HAS_GAIN", norm && norm->gain.has_value());
    args.emplace_back("HAS_SHIFT", norm && norm->shift.has_value());
}

arguments common(const mx::array &x)
{
    return {{"T", x.dtype()}, {"N", x.shape(-1)}, {"THREADS", THREADS}};
}

/* A vector that a kernel does not read stands for one that is missing. */
mx::array or_any(const std::optional<mx::array> &vector)
{
    return vector ? *vector : mx::zeros({8}, mx::float32);
}

std::optional<mx::array> gain_of(const std::optional<zi_row_norm> &norm)
{
    return norm ? norm->gain : std::nullopt;
}

std::optional<mx::array> shift_of(const std::optional<zi_row_norm> &norm)
{
    return norm ? norm->shift : std::nullopt;
}

/* `blocks` blocks of threads. */
std::vector<mx::array> start(const kernel &k, const std::vector<mx::array> &inputs,
                             const std::vector<mx::Shape> &shapes, const std::vector<mx::Dtype> &types, int blocks,
                             const arguments &args)
{
    return k(inputs, shapes, types, {blocks * THREADS, 1, 1}, {THREADS, 1, 1}, args, std::nullopt, false, {});
}

} // namespace

mx::array zi_kernel_norm(const mx::array &x, const zi_row_norm &norm)
{
    static const kernel k = make("zimage_norm", {"x", "gain", "shift"}, {"h"}, std::string(NORM_BODY) + NORM);
    arguments args = common(x);
    add_norm(args, norm);
    return start(k, {x, or_any(norm.gain), or_any(norm.shift)}, {x.shape()}, {x.dtype()},
                 static_cast<int>(x.size()) / x.shape(-1), args)[0];
}

zi_row_sum zi_kernel_residual(const mx::array &x, const mx::array &y, const std::optional<zi_row_norm> &post,
                              const std::optional<mx::array> &gain, const std::optional<zi_row_norm> &next)
{
    static const kernel k = make("zimage_residual", {"x", "y", "post_gain", "gain", "shift"}, {"sum", "h", "finite"},
                                 std::string(RESIDUAL_BODY) + NORM);
    arguments args = common(x);
    int rows = static_cast<int>(x.size()) / x.shape(-1);
    add_norm(args, next);
    args.emplace_back("HAS_POST", post.has_value());
    args.emplace_back("POST_EPS", std::bit_cast<int>(post ? post->eps : 0.0F));
    args.emplace_back("HAS_POST_GAIN", gain.has_value());
    const mx::Shape of_h = next ? x.shape() : mx::Shape{1};
    std::vector<mx::array> found = start(k, {x, y, or_any(gain), or_any(gain_of(next)), or_any(shift_of(next))},
                                         {x.shape(), of_h, {rows}}, {x.dtype(), x.dtype(), mx::float32}, rows, args);
    return {found[0], next ? std::optional<mx::array>(found[1]) : std::nullopt, found[2]};
}

mx::array zi_kernel_rotate(const mx::array &x, const mx::array &weight, const mx::array &cosines,
                           const mx::array &sines, float eps, bool adjacent)
{
    static const kernel k = make("zimage_rotate", {"x", "gain", "cosines", "sines"}, {"rotated"}, ROTATE_BODY);
    int dim = static_cast<int>(weight.size()), heads = static_cast<int>(x.size()) / dim, per_block = THREADS / WARP;
    mx::array rows = mx::reshape(x, {heads, dim});
    arguments args = common(rows);
    args.emplace_back("HEADS", x.shape(-1) / dim);
    args.emplace_back("NEXT_EPS", std::bit_cast<int>(eps));
    args.emplace_back("ADJACENT", adjacent);
    mx::array found = start(k, {rows, weight, cosines, sines}, {rows.shape()}, {x.dtype()},
                            (heads + per_block - 1) / per_block, args)[0];
    return mx::reshape(found, x.shape());
}
