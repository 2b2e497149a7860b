/* Weights in MLX's memory. */
#include "mlx/internal.h"

#include <cstring>

extern "C" {
#include "base/file.h"
}

namespace
{

/* An array of a stored weight's bytes. Where the memory is shared with a GPU that can read it at that address, MLX uses
 * it in place (only memory that begins at a page, as expanded weights do); else it copies. */
mx::array in_memory(const void *data, const mx::Shape &shape, mx::Dtype type)
{
    void *stored = const_cast<void *>(data);
    return mx::array(stored, shape, type, [](void *) {});
}

mx::Shape shape_of(const zi_weight *w)
{
    return zi_mlx_shape(w->dims, w->shape);
}

/* Before the stored pages are given back, MLX must have read them. */
mx::array settled(mx::array values, const zi_weight *w, const void *data, size_t bytes)
{
    mx::eval(values);
    if (w->mapped)
        zi_release_pages(data, bytes);
    return values;
}

mx::array dense(const zi_mlx &mlx, const zi_weight *w, bool is_vector)
{
    if (w->dtype == ZI_GROUPED) { /* a convolution or a vector: none of the models has any */
        std::vector<float> values(static_cast<size_t>(zi_weight_count(w)));
        zi_weight_unpack(w, 0, zi_weight_count(w), values.data());
        return mx::array(values.data(), shape_of(w), mx::float32);
    }
    mx::array values = in_memory(w->data, shape_of(w), zi_mlx_type(w->dtype));
    if (is_vector)
        return mx::astype(values, mx::float32);
    return w->dtype == ZI_F32 && mlx.type == ZI_BF16 ? mx::astype(values, mx::bfloat16) : values;
}

zi_kept groups(const zi_weight *w)
{
    const int64_t numbers[] = {w->shape[0], w->shape[1] * w->bits / 32};
    const int64_t per_group[] = {w->shape[0], w->shape[1] / w->group};
    size_t scale_bytes = static_cast<size_t>(per_group[0] * per_group[1]) * zi_dtype_size(w->scale_dtype);
    mx::Dtype type = zi_mlx_type(w->scale_dtype);
    mx::Shape shape = zi_mlx_shape(2, per_group);
    return {settled(in_memory(w->data, zi_mlx_shape(2, numbers), mx::uint32), w, w->data, w->bytes),
            settled(in_memory(w->scales, shape, type), w, w->scales, scale_bytes),
            settled(in_memory(w->biases, shape, type), w, w->biases, scale_bytes)};
}

zi_kept made(const zi_mlx &mlx, const zi_weight *w, zi_form form)
{
    if (form == zi_form::GROUPS)
        return groups(w);
    mx::array values = dense(mlx, w, form == zi_form::VECTOR);
    if (form == zi_form::FILTER)
        values = mx::contiguous(mx::transpose(values, {0, 2, 3, 1}));
    else if (form == zi_form::MATRIX)
        values = mx::transpose(values); /* a view */
    return {settled(values, w, w->data, w->bytes), std::nullopt, std::nullopt};
}

} // namespace

const zi_kept &zi_mlx_weight(zi_mlx &mlx, const zi_weight *weight, zi_form form)
{
    const zi_kept_key key = {weight->id, weight->data, weight->shape[0], zi_weight_count(weight), weight->dtype, form};
    auto found = mlx.weights.find(key);
    if (found == mlx.weights.end())
        found = mlx.weights.emplace(key, made(mlx, weight, form)).first;
    return found->second;
}

std::optional<mx::array> zi_mlx_vector(zi_mlx &mlx, const zi_weight *weight)
{
    if (weight == nullptr)
        return std::nullopt;
    return zi_mlx_weight(mlx, weight, zi_form::VECTOR).values;
}

zimage_status zi_mlx_check_weight(zi_run *run, const zi_weight *weight, int is_vector)
{
    if (weight == nullptr)
        return ZIMAGE_OK;
    bool is_grouped = weight->dtype == ZI_GROUPED;
    bool known = is_grouped ? !is_vector && zi_dtype_size(weight->scale_dtype) > 0 : zi_dtype_size(weight->dtype) > 0;
    if (known)
        return ZIMAGE_OK;
    return zi_fail(run->error, ZIMAGE_ERROR_UNSUPPORTED, "%s: stored as %s, which the MLX backend can't read as %s",
                   weight->name, zi_dtype_name(weight->dtype), is_vector ? "a vector" : "a matrix");
}
