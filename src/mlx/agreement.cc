/* Whether kernels of our own for packed weights agree with MLX's operations. norms.cc compares those for norms. */
#include "mlx/internal.h"
#include "mlx/kernels.h"
#include "mlx/packed.h"

namespace
{

mx::array wide(const mx::array &x)
{
    return mx::astype(x, mx::float32);
}

} // namespace

bool zi_mlx_near(const mx::array &a, const mx::array &b)
{
    mx::array apart = mx::max(mx::abs(mx::subtract(wide(a), wide(b))));
    mx::array bound = mx::multiply(mx::max(mx::abs(wide(b))), mx::array(0x1p-8F));
    return mx::less_equal(apart, bound).item<bool>(); /* NaN is not */
}

/* Rows of two groups. */
bool zi_mlx_unpacking_agrees(const zi_packed_kind &kind)
{
    try {
        auto factors = [&] { return mx::astype(mx::random::normal({3, 2}), zi_mlx_type(kind.scales)); };
        mx::array numbers = mx::random::randint(0, INT32_MAX, {3, 2 * kind.group * kind.bits / 32}, mx::uint32);
        mx::array scales = factors(), biases = factors();
        mx::array plain = mx::dequantize(numbers, wide(scales), wide(biases), kind.group, kind.bits, "affine");
        return zi_mlx_near(zi_kernel_unpack(numbers, scales, biases, kind.bits, kind.group), plain);
    } catch (const std::exception &) { /* it can't be compiled here */
        return false;
    }
}

/* Rows for each kernel (packed_kernels.cmake), if the GPU has 132 multiprocessors, and for tiles that are not full. The
 * gated product gives a block several tiles; the last period of a row is a half one. */
bool zi_mlx_products_agree(const zi_packed_kind &kind)
{
    const int out = 4224, in = 768;
    auto factors = [&] { return mx::astype(mx::random::normal({out, in / kind.group}), zi_mlx_type(kind.scales)); };
    try {
        auto random_matrix = [&] {
            mx::array numbers = mx::random::randint(0, INT32_MAX, {out, in * kind.bits / 32}, mx::uint32);
            return zi_packed_matrix{numbers, factors(), factors()};
        };
        const zi_packed_matrix w = random_matrix(), w3 = random_matrix();
        auto unpacked = [&](const zi_packed_matrix &m) {
            mx::array all = mx::dequantize(m.numbers, wide(m.scales), wide(m.biases), kind.group, kind.bits, "affine");
            return mx::transpose(wide(mx::astype(all, mx::bfloat16)));
        };
        const mx::array plain = unpacked(w), plain3 = unpacked(w3);
        for (int rows : {301, 895, 1023, 1087}) {
            mx::array x = mx::astype(mx::random::normal({rows, in}), mx::bfloat16), y = mx::matmul(wide(x), plain);
            mx::array gated = mx::multiply(mx::multiply(y, mx::sigmoid(y)), mx::matmul(wide(x), plain3));
            if (!zi_mlx_near(zi_packed_product(x, w, nullptr, kind.group), y) ||
                !zi_mlx_near(zi_packed_product(x, w, &w3, kind.group), gated))
                return false;
        }
        return true;
    } catch (const std::exception &) { /* the driver refuses it */
        return false;
    }
}
