#include "model/common.h"

#include <string.h>
#include <strings.h>

zimage_status zi_require_string(const zi_json_reader *json, const char *field, const char *only)
{
    const char *value;
    ZI_TRY(zi_json_string(json, field, only, &value));
    if (strcmp(value, only) != 0)
        return zi_fail(json->error, ZIMAGE_ERROR_UNSUPPORTED, "%s: %s is \"%s\", only \"%s\" is supported", json->path,
                       field, value, only);
    return ZIMAGE_OK;
}

zimage_status zi_require_bool(const zi_json_reader *json, const char *field, int only)
{
    int value;
    ZI_TRY(zi_field_bool(json, field, only, &value));
    if (value != only)
        return zi_fail(json->error, ZIMAGE_ERROR_UNSUPPORTED, "%s: %s is %s, only %s is supported", json->path, field,
                       value ? "true" : "false", only ? "true" : "false");
    return ZIMAGE_OK;
}

zimage_status zi_require_silu(const zi_json_reader *json, const char *field)
{
    const char *value;
    ZI_TRY(zi_json_string(json, field, "silu", &value));
    if (strcasecmp(value, "silu") != 0 && strcasecmp(value, "swish") != 0)
        return zi_fail(json->error, ZIMAGE_ERROR_UNSUPPORTED, "%s: %s is \"%s\", only \"silu\" is supported",
                       json->path, field, value);
    return ZIMAGE_OK;
}

zimage_status zi_require_null(const zi_json_reader *json, const char *field)
{
    const json_t *value = json_object_get(json->object, field);
    if (value && !json_is_null(value))
        return zi_fail(json->error, ZIMAGE_ERROR_UNSUPPORTED, "%s: %s is set, only null is supported", json->path,
                       field);
    return ZIMAGE_OK;
}

zimage_status zi_alloc1(zi_run *run, zi_tensor *tensor, int64_t count)
{
    return zi_table(run)->alloc(run, tensor, ZI_SHAPE(count));
}

zimage_status zi_alloc2(zi_run *run, zi_tensor *tensor, int64_t rows, int64_t columns)
{
    return zi_table(run)->alloc(run, tensor, ZI_SHAPE(rows, columns));
}

zimage_status zi_alloc3(zi_run *run, zi_tensor *tensor, int64_t rows, int64_t columns, int64_t channels)
{
    return zi_table(run)->alloc(run, tensor, ZI_SHAPE(rows, columns, channels));
}

zimage_status zi_alloc1_f32(zi_run *run, zi_tensor *tensor, int64_t count)
{
    return zi_table(run)->alloc_f32(run, tensor, ZI_SHAPE(count));
}

zimage_status zi_alloc2_f32(zi_run *run, zi_tensor *tensor, int64_t rows, int64_t columns)
{
    return zi_table(run)->alloc_f32(run, tensor, ZI_SHAPE(rows, columns));
}

zimage_status zi_alloc3_f32(zi_run *run, zi_tensor *tensor, int64_t rows, int64_t columns, int64_t channels)
{
    return zi_table(run)->alloc_f32(run, tensor, ZI_SHAPE(rows, columns, channels));
}

zimage_status zi_linear(zi_run *run, zi_tensor *y, const zi_tensor *x, const zi_weight *weight, const zi_weight *bias)
{
    return zi_table(run)->linear(run, y, x, weight, bias, 0);
}

zimage_status zi_linear_add(zi_run *run, zi_tensor *y, const zi_tensor *x, const zi_weight *weight,
                            const zi_weight *bias)
{
    return zi_table(run)->linear(run, y, x, weight, bias, 1);
}

zimage_status zi_linears(zi_run *run, int count, zi_tensor *y, const zi_tensor *x, const zi_weight *const *weights)
{
    return zi_table(run)->linears(run, count, y, x, weights);
}

zimage_status zi_linear_glu(zi_run *run, zi_tensor *y, const zi_tensor *x, const zi_weight *w1, const zi_weight *w3)
{
    return zi_table(run)->linear_glu(run, y, x, w1, w3);
}

zimage_status zi_rms_norm(zi_run *run, zi_tensor *y, const zi_tensor *x, const zi_weight *weight,
                          const zi_tensor *scale, float eps)
{
    const zi_norm norm = {.kind = ZI_NORM_RMS, .eps = eps, .weight = weight, .scale = scale};
    return zi_table(run)->norm(run, y, x, &norm);
}

zi_tensor zi_row_vector(const zi_tensor *matrix, int64_t index)
{
    zi_tensor row = zi_tensor_rows(matrix, index, 1);
    return zi_tensor_shaped(&row, ZI_SHAPE(matrix->shape[1]));
}

void zi_bind_vector(zi_binder *binder, const zi_weight **weight, int64_t count, const char *prefix, const char *name)
{
    zi_bind(binder, weight, ZI_SHAPE(count), "%s%s", prefix, name);
}

void zi_bind_matrix(zi_binder *binder, const zi_weight **weight, int64_t out, int64_t in, const char *prefix,
                    const char *name)
{
    zi_bind(binder, weight, ZI_SHAPE(out, in), "%s%s", prefix, name);
}

void zi_bind_conv(zi_binder *binder, const zi_weight **weight, int64_t out, int64_t in, int64_t kernel,
                  const char *prefix, const char *name)
{
    zi_bind(binder, weight, ZI_SHAPE(out, in, kernel, kernel), "%s%s", prefix, name);
}

zimage_status zi_join_rows(zi_run *run, const zi_tensor *x, int count, const int64_t *first, int64_t rows,
                           zi_tensor *joined)
{
    *joined = zi_tensor_rows(x, first[0], rows);
    if (count == 1)
        return ZIMAGE_OK;
    ZI_TRY(zi_alloc2(run, joined, count * rows, x->shape[1]));
    for (int i = 0; i < count; i++) {
        zi_tensor to = zi_tensor_rows(joined, i * rows, rows), from = zi_tensor_rows(x, first[i], rows);
        ZI_TRY(zi_table(run)->copy(run, &to, &from));
    }
    return ZIMAGE_OK;
}

zimage_status zi_rope_from_angles(zi_run *run, zi_rope *rope, const float *angles, int64_t tokens, int64_t half)
{
    ZI_TRY(zi_alloc2_f32(run, &rope->cos, tokens, half));
    ZI_TRY(zi_alloc2_f32(run, &rope->sin, tokens, half));
    return zi_table(run)->rope_table(run, &rope->cos, &rope->sin, angles);
}

zimage_status zi_norm_and_rotate(zi_run *run, zi_tensor qk[2], const zi_weight *const weights[2], const zi_rope *rope,
                                 int64_t heads, zi_rope_layout layout, float eps)
{
    const zi_qk_norm_rope args = {.weight = weights[0],
                                  .cos = &rope->cos,
                                  .sin = &rope->sin,
                                  .heads = heads,
                                  .layout = layout,
                                  .eps = eps,
                                  .k = &qk[1],
                                  .k_weight = weights[1]};
    return zi_table(run)->qk_norm_rope(run, &qk[0], &args);
}
