/* Matrix products. */
#include "mlx/internal.h"
#include "mlx/kernels.h"
#include "mlx/packed.h"

#include <cassert>
#include <limits>

namespace
{

/* From so many operations on, which way is faster is measured; below, the number of rows decides. */
constexpr double MEASURED_FLOPS = 1e9;
constexpr int64_t FEW_ROWS = 32;
constexpr int TIMED_RUNS = 3;

bool is_grouped(const zi_weight *w)
{
    return w->dtype == ZI_GROUPED && w->bits > 1; /* MLX's own products have no numbers of one bit */
}

/* ---- packed weights ---------------------------------------------------------------------------------------------- */

/*
 * x W^T of packed weights is computed in one of three ways: by MLX's kernel that reads packed numbers; by unpacking the
 * matrix for the moment, which the dense kernel then multiplies; or by a kernel of our own for NVIDIA GPUs of compute
 * capability 9.0, which does both at once (packed.h). The first reads less memory, the second has larger tiles. Few
 * rows are faster in the first way, many in the second on most chips.
 *
 * With MLX's CUDA build only single rows take the first way. Its other kernels for packed numbers are compiled for a
 * minute at the first use of each number of rows, and multiply float32 as TF32, whatever MLX_ENABLE_TF32 says.
 */
enum class way : uint8_t { PACKED, UNPACKED, KERNEL };

/*
 * The type in which scales and biases are read. The CPU's kernels compute in that type, so it is float32 there. On a
 * GPU sums are float32 anyway. But a scale in float16 would lose bits in bf16, and beside x in bf16 it makes MLX
 * compute all in float32.
 */
mx::Dtype scale_type(const zi_mlx &mlx, const zi_weight *w, mx::Dtype type)
{
    return mlx.on_gpu() && zi_mlx_type(w->scale_dtype) == type ? type : mx::float32;
}

mx::array packed_product(zi_mlx &mlx, const mx::array &x, const zi_weight *w, mx::Dtype type)
{
    const zi_kept &kept = zi_mlx_weight(mlx, w, zi_form::GROUPS);
    mx::Dtype inner = scale_type(mlx, w, type);
    return mx::quantized_matmul(mx::astype(x, inner), kept.values, mx::astype(*kept.scales, inner),
                                mx::astype(*kept.biases, inner), true, w->group, w->bits, "affine");
}

/* Whether a kernel of our own unpacks such numbers. The first use of a kind compares it with MLX's operation. */
bool has_kernel(zi_mlx &mlx, const zi_weight *w, mx::Dtype type)
{
    if (!mlx.own_kernels || type != mx::bfloat16 || !zi_kernel_can_unpack(w->bits, w->group))
        return false;
    const zi_packed_kind kind = {w->bits, w->group, w->scale_dtype};
    auto found = mlx.unpacks.find(kind);
    if (found == mlx.unpacks.end())
        found = mlx.unpacks.emplace(kind, zi_mlx_unpacking_agrees(kind)).first;
    return found->second;
}

/* The matrix [in, out] in that type. */
mx::array unpacked(zi_mlx &mlx, const zi_weight *w, mx::Dtype type)
{
    const zi_kept &kept = zi_mlx_weight(mlx, w, zi_form::GROUPS);
    if (has_kernel(mlx, w, type))
        return mx::transpose(zi_kernel_unpack(kept.values, *kept.scales, *kept.biases, w->bits, w->group));
    mx::Dtype inner = scale_type(mlx, w, type);
    mx::array values = mx::dequantize(kept.values, mx::astype(*kept.scales, inner), mx::astype(*kept.biases, inner),
                                      w->group, w->bits, "affine");
    return mx::transpose(mx::astype(values, type));
}

/* matrix: [in, out] */
mx::array dense_product(const mx::array &x, const mx::array &matrix)
{
    return mx::matmul(mx::astype(x, matrix.dtype()), matrix);
}

zi_packed_matrix packed_matrix(zi_mlx &mlx, const zi_weight *w)
{
    const zi_kept &kept = zi_mlx_weight(mlx, w, zi_form::GROUPS);
    return {kept.values, *kept.scales, *kept.biases};
}

/* x W^T by our own kernel, or with w3 the gated product. */
mx::array kernel_product(zi_mlx &mlx, const mx::array &x, const zi_weight *w, const zi_weight *w3)
{
    const zi_packed_matrix first = packed_matrix(mlx, w);
    if (w3 == nullptr)
        return zi_packed_product(x, first, nullptr, w->group);
    const zi_packed_matrix second = packed_matrix(mlx, w3);
    return zi_packed_product(x, first, &second, w->group);
}

/* Whether our own kernel can do this and is faster. The first use of a kind compares it with MLX's operations. */
bool takes_kernel(zi_mlx &mlx, int64_t rows, const zi_weight *w, mx::Dtype type, bool gated)
{
    const zi_packed_kind kind = {w->bits, w->group, w->scale_dtype};
    if (rows == 1 || !mlx.own_kernels || type != mx::bfloat16 ||
        !zi_packed_is_best(rows, w->shape[0], w->shape[1], kind, gated))
        return false;
    auto found = mlx.products.find(kind);
    if (found == mlx.products.end())
        found = mlx.products.emplace(kind, zi_mlx_products_agree(kind)).first;
    return found->second;
}

mx::array product_by(zi_mlx &mlx, const mx::array &x, const zi_weight *w, mx::Dtype type, way which)
{
    if (which == way::KERNEL)
        return kernel_product(mlx, x, w, nullptr);
    return which == way::PACKED ? packed_product(mlx, x, w, type) : dense_product(x, unpacked(mlx, w, type));
}

/* Seconds of the fastest of a few runs after one that warms up. */
double seconds_of(zi_mlx &mlx, const mx::array &x, const zi_weight *w, mx::Dtype type, way which)
{
    double best = std::numeric_limits<double>::infinity();
    for (int i = 0; i <= TIMED_RUNS; i++) {
        mx::array result = product_by(mlx, x, w, type, which);
        double start = zi_mlx_now();
        mx::eval(result);
        if (i > 0)
            best = std::min(best, zi_mlx_now() - start);
    }
    return best;
}

/* What a measured choice is valid for; rows are rounded up to a power of two. */
struct shape_key {
    int64_t rows, out, in;
    int32_t bits, group, scale_type, type;
};

way measure(zi_mlx &mlx, const zi_weight *w, mx::Dtype type, const shape_key &key)
{
    mx::array x = mx::astype(mx::random::normal(mx::Shape{static_cast<int>(key.rows), static_cast<int>(key.in)}), type);
    mx::eval(x);
    mx::synchronize(mlx.stream); /* what was queued before must not count */
    double packed = seconds_of(mlx, x, w, type, way::PACKED), dense = seconds_of(mlx, x, w, type, way::UNPACKED);
    return packed <= dense ? way::PACKED : way::UNPACKED;
}

/* measure may throw */
struct choices_lock {
    const zi_choices &choices;
    explicit choices_lock(const zi_choices &c) : choices(c)
    {
        zi_choices_lock(&choices);
    }
    ~choices_lock()
    {
        zi_choices_unlock(&choices);
    }
};

way faster_way(zi_mlx &mlx, int64_t rows, const zi_weight *w, mx::Dtype type)
{
    if (rows == 1)
        return way::PACKED;
    if (mlx.cuda)
        return takes_kernel(mlx, rows, w, type, false) ? way::KERNEL : way::UNPACKED;
    if (2.0 * static_cast<double>(rows) * static_cast<double>(zi_weight_count(w)) < MEASURED_FLOPS)
        return rows < FEW_ROWS ? way::PACKED : way::UNPACKED;
    shape_key key = {1, w->shape[0], w->shape[1], w->bits, w->group, w->scale_dtype, type == mx::float32};
    while (key.rows < rows)
        key.rows *= 2;
    way which;
    const choices_lock held(mlx.choices);
    if (zi_choices_recall(&mlx.choices, "product", &key, sizeof key, &which, sizeof which) &&
        (which == way::PACKED || which == way::UNPACKED))
        return which;
    which = measure(mlx, w, type, key);
    zi_choices_remember(&mlx.choices, "product", &key, sizeof key, &which, sizeof which);
    return which;
}

/* ---- any weights ------------------------------------------------------------------------------------------------- */

/* What a product is computed in: float32 where either side is stored so. */
mx::Dtype product_type(const zi_mlx &mlx, const zi_tensor *y, const zi_tensor *x)
{
    return y->dtype == ZI_F32 || x->dtype == ZI_F32 ? mx::float32 : mlx.dtype();
}

/* x W^T */
mx::array product(zi_mlx &mlx, const mx::array &x, const zi_weight *w, mx::Dtype type)
{
    if (is_grouped(w))
        return product_by(mlx, x, w, type, faster_way(mlx, x.shape(0), w, type));
    return dense_product(x, mx::astype(zi_mlx_weight(mlx, w, zi_form::MATRIX).values, type));
}

/* y * sigmoid(y) * up */
std::vector<mx::array> gate_piece(const std::vector<mx::array> &in)
{
    mx::array y = mx::astype(in[0], mx::float32), up = mx::astype(in[1], mx::float32);
    return {mx::astype(mx::multiply(mx::multiply(y, mx::sigmoid(y)), up), in[0].dtype())};
}

/* silu(x W1^T) * (x W3^T) */
mx::array gated_product(zi_mlx &mlx, const mx::array &x, const zi_weight *w1, const zi_weight *w3, mx::Dtype type)
{
    bool alike = is_grouped(w1) && w3->dtype == ZI_GROUPED && w3->bits == w1->bits && w3->group == w1->group &&
                 w3->scale_dtype == w1->scale_dtype;
    if (alike && takes_kernel(mlx, x.shape(0), w1, type, true))
        return kernel_product(mlx, x, w1, w3);
    return zi_mlx_piece(mlx, gate_piece, {product(mlx, x, w1, type), product(mlx, x, w3, type)});
}

/* The matrix [in, out] in that type. */
mx::array matrix_of(zi_mlx &mlx, const zi_weight *w, mx::Dtype type)
{
    return is_grouped(w) ? unpacked(mlx, w, type) : mx::astype(zi_mlx_weight(mlx, w, zi_form::MATRIX).values, type);
}

/* x W^T + added, with one rounding. `added` is broadcast to all rows. */
mx::array sum_product(zi_mlx &mlx, const mx::array &x, const zi_weight *w, mx::Dtype type, const mx::array &added)
{
    if (is_grouped(w) && faster_way(mlx, x.shape(0), w, type) == way::PACKED)
        return mx::add(mx::astype(packed_product(mlx, x, w, type), mx::float32), mx::astype(added, mx::float32));
    mx::Dtype inner = added.dtype() == type ? type : mx::float32;
    return mx::addmm(added, mx::astype(x, inner), matrix_of(mlx, w, inner));
}

/* A bias in the product's type, if it loses nothing there. */
std::optional<mx::array> bias_of(zi_mlx &mlx, const zi_weight *bias, mx::Dtype type)
{
    std::optional<mx::array> values = zi_mlx_vector(mlx, bias);
    return values && bias->dtype == ZI_BF16 && type == mx::bfloat16 ? mx::astype(*values, type) : values;
}

/* Bytes that a product takes for the moment: an unpacked or converted matrix. */
double moment_bytes(const zi_mlx &mlx, const zi_weight *w, mx::Dtype type)
{
    auto bytes = static_cast<double>(zi_weight_count(w) * static_cast<int64_t>(mx::size_of(type)));
    return is_grouped(w) || zi_mlx_type(w->dtype) != type ? bytes : 0;
}

void check_product(const zi_tensor *y, const zi_tensor *x, const zi_weight *w)
{
    assert(w->dims == 2 && w->shape[0] == zi_features(y) && w->shape[1] == zi_features(x));
    assert(zi_row_count(y) == zi_row_count(x));
}

std::vector<mx::array> silu_piece(const std::vector<mx::array> &in)
{
    mx::array x = mx::astype(in[0], mx::float32);
    return {mx::astype(mx::multiply(x, mx::sigmoid(x)), in[0].dtype())};
}

} // namespace

zimage_status zi_mlx_linear(zi_run *run, zi_tensor *y, const zi_tensor *x, const zi_weight *weight,
                            const zi_weight *bias, int accumulate)
{
    check_product(y, x, weight);
    ZI_TRY(zi_mlx_check_weight(run, weight, 0));
    ZI_TRY(zi_mlx_check_weight(run, bias, 1));
    mx::Dtype type = product_type(zi_mlx_state(run->ops), y, x);
    zi_mlx_scratch(zi_mlx_state(run->ops), zi_mlx_bytes(y) + moment_bytes(zi_mlx_state(run->ops), weight, type));
    return zi_mlx_queue(run, [&](zi_mlx &mlx) {
        mx::array rows = zi_cell_read_rows(x);
        std::optional<mx::array> added = bias_of(mlx, bias, type);
        if (accumulate && added)
            added = mx::add(mx::astype(zi_cell_read_rows(y), mx::float32), mx::astype(*added, mx::float32));
        else if (accumulate)
            added = zi_cell_read_rows(y);
        zi_cell_write(y, added ? sum_product(mlx, rows, weight, type, *added) : product(mlx, rows, weight, type));
    });
}

zimage_status zi_mlx_linears(zi_run *run, int count, zi_tensor *y, const zi_tensor *x, const zi_weight *const *weights)
{
    for (int i = 0; i < count; i++)
        ZI_TRY(zi_mlx_linear(run, &y[i], x, weights[i], NULL, 0));
    return ZIMAGE_OK;
}

zimage_status zi_mlx_linear_glu(zi_run *run, zi_tensor *y, const zi_tensor *x, const zi_weight *w1, const zi_weight *w3)
{
    check_product(y, x, w1);
    check_product(y, x, w3);
    ZI_TRY(zi_mlx_check_weight(run, w1, 0));
    ZI_TRY(zi_mlx_check_weight(run, w3, 0));
    zi_mlx &state = zi_mlx_state(run->ops);
    mx::Dtype type = product_type(state, y, x);
    auto sums = 2.0 * static_cast<double>(zi_tensor_count(y)) * static_cast<double>(mx::size_of(type));
    zi_mlx_scratch(state, zi_mlx_bytes(y) + sums + moment_bytes(state, w1, type) + moment_bytes(state, w3, type));
    return zi_mlx_queue(run,
                        [&](zi_mlx &mlx) { zi_cell_write(y, gated_product(mlx, zi_cell_read_rows(x), w1, w3, type)); });
}

zimage_status zi_mlx_silu(zi_run *run, zi_tensor *y, const zi_tensor *x)
{
    assert(zi_tensor_count(y) == zi_tensor_count(x));
    zi_mlx_scratch(zi_mlx_state(run->ops), zi_mlx_bytes(y));
    return zi_mlx_queue(run, [&](zi_mlx &mlx) { zi_cell_write(y, zi_mlx_piece(mlx, silu_piece, {zi_cell_read(x)})); });
}
