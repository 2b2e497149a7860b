#include "model/common.h"

zimage_status zi_alloc1(zi_ops *ops, zi_tensor *tensor, int64_t count)
{
    const int64_t shape[] = {count};
    return ops->table->alloc(ops, tensor, 1, shape);
}

zimage_status zi_alloc2(zi_ops *ops, zi_tensor *tensor, int64_t rows, int64_t columns)
{
    const int64_t shape[] = {rows, columns};
    return ops->table->alloc(ops, tensor, 2, shape);
}

zimage_status zi_alloc3(zi_ops *ops, zi_tensor *tensor, int64_t rows, int64_t columns, int64_t channels)
{
    const int64_t shape[] = {rows, columns, channels};
    return ops->table->alloc(ops, tensor, 3, shape);
}

zimage_status zi_alloc1_f32(zi_ops *ops, zi_tensor *tensor, int64_t count)
{
    const int64_t shape[] = {count};
    return ops->table->alloc_f32(ops, tensor, 1, shape);
}

zimage_status zi_alloc2_f32(zi_ops *ops, zi_tensor *tensor, int64_t rows, int64_t columns)
{
    const int64_t shape[] = {rows, columns};
    return ops->table->alloc_f32(ops, tensor, 2, shape);
}

zimage_status zi_alloc3_f32(zi_ops *ops, zi_tensor *tensor, int64_t rows, int64_t columns, int64_t channels)
{
    const int64_t shape[] = {rows, columns, channels};
    return ops->table->alloc_f32(ops, tensor, 3, shape);
}

zi_tensor zi_row_vector(const zi_tensor *matrix, int64_t index)
{
    zi_tensor row = zi_tensor_rows(matrix, index, 1);
    const int64_t shape[] = {matrix->shape[1]};
    return zi_tensor_shaped(&row, 1, shape);
}

void zi_bind_vector(zi_binder *binder, const zi_weight **weight, int64_t count, const char *prefix, const char *name)
{
    const int64_t shape[] = {count};
    zi_bind(binder, weight, 1, shape, "%s%s", prefix, name);
}

void zi_bind_matrix(zi_binder *binder, const zi_weight **weight, int64_t out, int64_t in, const char *prefix,
                    const char *name)
{
    const int64_t shape[] = {out, in};
    zi_bind(binder, weight, 2, shape, "%s%s", prefix, name);
}

void zi_bind_conv(zi_binder *binder, const zi_weight **weight, int64_t out, int64_t in, int64_t kernel,
                  const char *prefix, const char *name)
{
    const int64_t shape[] = {out, in, kernel, kernel};
    zi_bind(binder, weight, 4, shape, "%s%s", prefix, name);
}

zimage_status zi_rope_from_angles(zi_ops *ops, zi_rope *rope, const float *angles, int64_t tokens, int64_t half)
{
    ZI_TRY(zi_alloc2_f32(ops, &rope->cos, tokens, half));
    ZI_TRY(zi_alloc2_f32(ops, &rope->sin, tokens, half));
    return ops->table->rope_table(ops, &rope->cos, &rope->sin, angles);
}
