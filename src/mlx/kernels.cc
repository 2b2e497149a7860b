#include "mlx/kernels.h"
#include "mlx/kernel_sources.h"

#include <map>
#include <mutex>
#include <string>

namespace
{

constexpr int WARP = 32, THREADS = ZI_KERNEL_THREADS;

using kernel = mx::fast::CustomKernelFunction;
using names = std::vector<std::string>;

kernel make(const char *name)
{
    const zi_kernel_source &source = zi_kernel_find(name);
    bool metal = mx::device_info(mx::Device(mx::Device::gpu)).count("compute_capability_major") == 0;
    auto make_kernel = [&](auto function) {
        return function(source.name, source.inputs, source.outputs, zi_kernel_body(source, metal),
                        zi_kernel_header(metal));
    };
    using namespace mx::fast;
    return metal ? make_kernel([](const auto &...a) { return metal_kernel(a...); })
                 : make_kernel([](const auto &...a) { return cuda_kernel(a...); });
}

using arguments = std::vector<std::pair<std::string, mx::fast::TemplateArg>>;

void add_norm(arguments &args, const std::optional<zi_row_norm> &norm)
{
    args.emplace_back("NEXT", !norm ? 0 : norm->layer ? 2 : 1);
    args.emplace_back("HAS_GAIN", norm && norm->gain.has_value());
    args.emplace_back("HAS_SHIFT", norm && norm->shift.has_value());
}

arguments common(const mx::array &x)
{
    return {{"T", x.dtype()}, {"THREADS", THREADS}};
}

/*
 * What the kernels read as eps. Models have few such pairs, so each is an array that lives as long as the kernels. It
 * is larger than needed: MLX keeps arrays of up to 8 bytes in pages that the host writes all the time, which makes
 * reading them slow on NVIDIA's GPUs.
 */
mx::array eps_array(float next, float post)
{
    static std::mutex lock;
    static auto &arrays = *new std::map<std::pair<float, float>, mx::array>;
    const std::lock_guard<std::mutex> guard(lock);
    auto found = arrays.find({next, post});
    if (found == arrays.end())
        found = arrays.emplace(std::pair{next, post}, mx::array({next, post, 0.0F, 0.0F})).first;
    return found->second;
}

float eps_of(const std::optional<zi_row_norm> &norm)
{
    return norm ? norm->eps : 0.0F;
}

/* What a kernel does not read. */
const mx::array &nothing()
{
    static const mx::array &values = *new mx::array({0.0F}); /* it lives as long as the kernels */
    return values;
}

mx::array or_any(const std::optional<mx::array> &vector)
{
    return vector ? *vector : nothing();
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
    static const kernel k = make("zimage_norm");
    arguments args = common(x);
    add_norm(args, norm);
    return start(k, {x, or_any(norm.gain), or_any(norm.shift), eps_array(norm.eps, 0)}, {x.shape()}, {x.dtype()},
                 static_cast<int>(x.size()) / x.shape(-1), args)[0];
}

zi_row_sum zi_kernel_residual(const mx::array &x, const mx::array &y, const std::optional<zi_row_norm> &post,
                              const std::optional<mx::array> &gain, const std::optional<zi_row_norm> &next)
{
    static const kernel k = make("zimage_residual");
    arguments args = common(x);
    int rows = static_cast<int>(x.size()) / x.shape(-1);
    add_norm(args, next);
    args.emplace_back("HAS_POST", post.has_value());
    args.emplace_back("HAS_POST_GAIN", gain.has_value());
    const mx::Shape of_h = next ? x.shape() : mx::Shape{1};
    const std::vector<mx::array> inputs = {
        x, y, or_any(gain), or_any(gain_of(next)), or_any(shift_of(next)), eps_array(eps_of(next), eps_of(post))};
    std::vector<mx::array> found =
        start(k, inputs, {x.shape(), of_h, {rows}}, {x.dtype(), x.dtype(), mx::float32}, rows, args);
    return {found[0], next ? std::optional<mx::array>(found[1]) : std::nullopt, found[2]};
}

mx::array zi_kernel_rotate(const mx::array &x, const mx::array &weight, const mx::array &cosines,
                           const mx::array &sines, float eps, bool adjacent)
{
    static const kernel k = make("zimage_rotate");
    int dim = static_cast<int>(weight.size()), heads = static_cast<int>(x.size()) / dim, per_block = THREADS / WARP;
    arguments args = common(x);
    args.emplace_back("ADJACENT", adjacent);
    return start(k, {x, weight, cosines, sines, eps_array(eps, 0)}, {x.shape()}, {x.dtype()},
                 (heads + per_block - 1) / per_block, args)[0];
}

bool zi_kernel_can_unpack(int bits, int group)
{
    return (bits == 2 || bits == 4 || bits == 8) && group * bits % 32 == 0;
}

mx::array zi_kernel_unpack(const mx::array &numbers, const mx::array &scales, const mx::array &biases, int bits,
                           int group)
{
    static const kernel k = make("zimage_unpack");
    int words = static_cast<int>(numbers.size()), out = numbers.shape(0), in = numbers.shape(1) * 32 / bits;
    /* MLX keeps what it has compiled by the kernel's name and these arguments: the type of each input must be there. */
    const arguments args = {
        {"T", mx::bfloat16}, {"SCALE", scales.dtype()}, {"THREADS", THREADS}, {"BITS", bits}, {"GROUP", group}};
    return start(k, {numbers, scales, biases}, {{out, in}}, {mx::bfloat16}, (words + THREADS - 1) / THREADS, args)[0];
}
