/* Norms, residuals and rotations: by kernels of our own where they can be used, else by MLX's operations in float32. */
#include "mlx/internal.h"
#include "mlx/kernels.h"

#include <cassert>
#include <cmath>

namespace
{

mx::array wide(const mx::array &x)
{
    return mx::astype(x, mx::float32);
}

/* New arrays of an operation on rows: `outputs` of them like x, and without kernels `copies` in float32, too. */
double row_bytes(const zi_mlx &mlx, const zi_tensor *x, int outputs, int copies)
{
    double wide = mlx.own_kernels ? 0 : 4.0 * copies * static_cast<double>(zi_tensor_count(x));
    return outputs * zi_mlx_bytes(x) + wide;
}

bool takes_kernels(const zi_mlx &mlx, const zi_tensor *x)
{
    return mlx.own_kernels && x->dtype == ZI_BF16;
}

/* ---- norms ------------------------------------------------------------------------------------------------------- */

/* The product of all factors; nothing if there are none. */
std::optional<mx::array> gain_of(zi_mlx &mlx, const zi_norm *norm, const zi_tensor *gate)
{
    std::optional<mx::array> gain = zi_mlx_vector(mlx, norm != nullptr ? norm->weight : nullptr);
    for (const zi_tensor *t : {norm != nullptr ? norm->scale : nullptr, gate})
        if (t != nullptr)
            gain = gain ? mx::multiply(*gain, zi_cell_read_vector(t)) : zi_cell_read_vector(t);
    return gain;
}

zi_row_norm row_norm(zi_mlx &mlx, const zi_norm *norm)
{
    zi_row_norm row = {norm->kind == ZI_NORM_LAYER, norm->eps, gain_of(mlx, norm, nullptr), std::nullopt};
    if (norm->shift != nullptr)
        row.shift = zi_cell_read_vector(norm->shift);
    return row;
}

/* MLX's norm in float32, with all factors of features folded into its weight. */
mx::array plain_norm(const mx::array &x, const zi_row_norm &norm)
{
    if (norm.layer)
        return mx::fast::layer_norm(wide(x), norm.gain, norm.shift, norm.eps);
    mx::array result = mx::fast::rms_norm(wide(x), norm.gain, norm.eps);
    return norm.shift ? mx::add(result, *norm.shift) : result;
}

/* The sum in float32. */
mx::array plain_sum(const mx::array &x, const mx::array &y, const std::optional<zi_row_norm> &post,
                    const std::optional<mx::array> &gain)
{
    if (post)
        return mx::add(wide(x), mx::fast::rms_norm(wide(y), gain, post->eps));
    return mx::add(wide(x), gain ? mx::multiply(wide(y), *gain) : wide(y));
}

zimage_status check_norm(zi_run *run, const zi_tensor *x, const zi_norm *norm)
{
    assert(norm->weight == nullptr || zi_weight_count(norm->weight) == zi_features(x));
    assert(norm->scale == nullptr || zi_tensor_count(norm->scale) == zi_features(x));
    assert(norm->shift == nullptr || zi_tensor_count(norm->shift) == zi_features(x));
    return zi_mlx_check_weight(run, norm->weight, 1);
}

void residual_by_kernel(zi_mlx &mlx, zi_tensor *x, const mx::array &y, zi_tensor *h, const zi_residual *residual,
                        const std::optional<zi_row_norm> &post, const std::optional<zi_row_norm> &next)
{
    zi_row_sum found = zi_kernel_residual(zi_cell_read(x), y, post, gain_of(mlx, residual->post, residual->gate), next);
    zi_cell_write(x, found.sum);
    if (h != nullptr)
        zi_cell_write(h, *found.h);
    if (residual->finite != nullptr) {
        *residual->finite = 1; /* as far as is known now */
        mlx.checks.push_back({found.finite, ""});
    }
}

/* ---- rotations --------------------------------------------------------------------------------------------------- */

/* Pairs (a, b) become (a cos - b sin, b cos + a sin). */
mx::array plain_rotate(const mx::array &x, const mx::array &weight, const mx::array &cosines, const mx::array &sines,
                       float eps, bool adjacent)
{
    int tokens = x.shape(0), dim = static_cast<int>(weight.size()), heads = x.shape(1) / dim, axis = adjacent ? 3 : 2;
    mx::array normed = mx::fast::rms_norm(mx::reshape(wide(x), {tokens, heads, dim}), weight, eps);
    normed =
        mx::reshape(normed, adjacent ? mx::Shape{tokens, heads, dim / 2, 2} : mx::Shape{tokens, heads, 2, dim / 2});
    auto halves = mx::split(normed, 2, axis);
    mx::array a = mx::squeeze(halves[0], axis), b = mx::squeeze(halves[1], axis);
    mx::array c = mx::reshape(cosines, {tokens, 1, dim / 2}), s = mx::reshape(sines, {tokens, 1, dim / 2});
    return mx::reshape(mx::stack({mx::subtract(mx::multiply(a, c), mx::multiply(b, s)),
                                  mx::add(mx::multiply(b, c), mx::multiply(a, s))},
                                 axis),
                       x.shape());
}

void rotate(zi_mlx &mlx, zi_tensor *x, const zi_weight *weight, const zi_qk_norm_rope *args)
{
    int half = static_cast<int>(zi_weight_count(weight) / 2);
    mx::array values = zi_cell_read(x), gain = *zi_mlx_vector(mlx, weight);
    const mx::Shape angles = {static_cast<int>(zi_tensor_count(args->cos)) / half, half};
    mx::array cosines = zi_cell_read_as(args->cos, angles), sines = zi_cell_read_as(args->sin, angles);
    bool adjacent = args->layout == ZI_ROPE_ADJACENT;
    zi_cell_write(x, takes_kernels(mlx, x) ? zi_kernel_rotate(values, gain, cosines, sines, args->eps, adjacent)
                                           : plain_rotate(values, gain, cosines, sines, args->eps, adjacent));
}

/* ---- whether the kernels can be used ----------------------------------------------------------------------------- */

/* Random rows, with an odd number of them, and features that are no multiple of the threads. */
bool norms_agree()
{
    const mx::Shape shape = {5, 328}, features = {328};
    auto random = [](const mx::Shape &s) { return mx::random::normal(s); };
    mx::array x = mx::astype(random(shape), mx::bfloat16), y = mx::astype(random(shape), mx::bfloat16);
    for (bool layer : {false, true}) {
        const zi_row_norm post = {false, 1e-5F, std::nullopt, std::nullopt};
        const zi_row_norm next = {layer, 1e-6F, random(features), random(features)};
        mx::array gain = random(features), sum = mx::astype(plain_sum(x, y, post, gain), mx::bfloat16);
        zi_row_sum found = zi_kernel_residual(x, y, post, gain, next);
        if (!zi_mlx_near(zi_kernel_norm(x, next), plain_norm(x, next)) || !zi_mlx_near(found.sum, sum) ||
            !zi_mlx_near(*found.h, plain_norm(found.sum, next)) || !mx::all(found.finite).item<bool>())
            return false;
    }
    mx::array spoiled = mx::where(mx::greater(random({5, 1}), mx::array(-100.0F)), x, x);
    spoiled = mx::slice_update(spoiled, mx::full({1, 1}, INFINITY, mx::bfloat16), mx::Shape{3, 7}, mx::Shape{4, 8});
    mx::array finite = zi_kernel_residual(spoiled, y, std::nullopt, std::nullopt, std::nullopt).finite;
    return mx::array_equal(finite, mx::array({1.0F, 1.0F, 1.0F, 0.0F, 1.0F})).item<bool>();
}

bool rotations_agree()
{
    mx::array x = mx::astype(mx::random::normal({7, 3 * 64}), mx::bfloat16), weight = mx::random::normal({64});
    mx::array cosines = mx::random::normal({7, 32}), sines = mx::random::normal({7, 32});
    for (bool adjacent : {false, true})
        if (!zi_mlx_near(zi_kernel_rotate(x, weight, cosines, sines, 1e-6F, adjacent),
                         plain_rotate(x, weight, cosines, sines, 1e-6F, adjacent)))
            return false;
    return true;
}

} // namespace

bool zi_mlx_kernels_agree()
{
    try {
        return norms_agree() && rotations_agree();
    } catch (const std::exception &) { /* the kernels can't be compiled here */
        return false;
    }
}

zimage_status zi_mlx_norm(zi_run *run, zi_tensor *y, const zi_tensor *x, const zi_norm *norm)
{
    assert(zi_tensor_count(y) == zi_tensor_count(x));
    ZI_TRY(check_norm(run, x, norm));
    zi_mlx_scratch(zi_mlx_state(run->ops), row_bytes(zi_mlx_state(run->ops), x, 1, 2));
    return zi_mlx_queue(run, [&](zi_mlx &mlx) {
        const zi_row_norm row = row_norm(mlx, norm);
        mx::array values = zi_cell_read(x);
        zi_cell_write(y, takes_kernels(mlx, x) ? zi_kernel_norm(values, row) : plain_norm(values, row));
    });
}

zimage_status zi_mlx_residual(zi_run *run, zi_tensor *x, const zi_tensor *y, zi_tensor *h, const zi_residual *residual)
{
    assert(zi_tensor_count(y) == zi_tensor_count(x) && (residual->next != nullptr) == (h != nullptr));
    if (residual->post != nullptr)
        ZI_TRY(check_norm(run, y, residual->post));
    if (residual->next != nullptr)
        ZI_TRY(check_norm(run, x, residual->next));
    zi_mlx_scratch(zi_mlx_state(run->ops), row_bytes(zi_mlx_state(run->ops), x, 2, 4));
    return zi_mlx_queue(run, [&](zi_mlx &mlx) {
        std::optional<zi_row_norm> post, next;
        mx::array branch = mx::reshape(zi_cell_read(y), zi_mlx_shape(x->dims, x->shape));
        if (residual->post != nullptr)
            post = row_norm(mlx, residual->post);
        if (residual->next != nullptr)
            next = row_norm(mlx, residual->next);
        if (takes_kernels(mlx, x)) {
            residual_by_kernel(mlx, x, branch, h, residual, post, next);
            return;
        }
        mx::array sum = plain_sum(zi_cell_read(x), branch, post, gain_of(mlx, residual->post, residual->gate));
        zi_cell_write(x, sum);
        if (h != nullptr)
            zi_cell_write(h, plain_norm(sum, *next));
        if (residual->finite != nullptr)
            zi_mlx_note_check(mlx, zi_cell_read(x), residual->finite);
    });
}

zimage_status zi_mlx_rope_table(zi_run *run, zi_tensor *cos, zi_tensor *sin, const float *angles)
{
    assert(zi_tensor_count(cos) == zi_tensor_count(sin));
    return zi_mlx_queue(run, [&](zi_mlx &) {
        std::vector<float> cosines(static_cast<size_t>(zi_tensor_count(cos))), sines(cosines.size());
        for (size_t i = 0; i < cosines.size(); i++) {
            cosines[i] = cosf(angles[i]);
            sines[i] = sinf(angles[i]);
        }
        zi_cell_write(cos, mx::array(cosines.data(), zi_mlx_shape(cos->dims, cos->shape), mx::float32));
        zi_cell_write(sin, mx::array(sines.data(), zi_mlx_shape(sin->dims, sin->shape), mx::float32));
    });
}

zimage_status zi_mlx_qk_norm_rope(zi_run *run, zi_tensor *x, const zi_qk_norm_rope *args)
{
    assert(zi_weight_count(args->weight) * args->heads == zi_features(x) && zi_weight_count(args->weight) % 2 == 0);
    ZI_TRY(zi_mlx_check_weight(run, args->weight, 1));
    ZI_TRY(zi_mlx_check_weight(run, args->k_weight, 1));
    zi_mlx_scratch(zi_mlx_state(run->ops), row_bytes(zi_mlx_state(run->ops), x, 2, 6));
    return zi_mlx_queue(run, [&](zi_mlx &mlx) {
        rotate(mlx, x, args->weight, args);
        if (args->k != nullptr)
            rotate(mlx, args->k, args->k_weight, args);
    });
}
