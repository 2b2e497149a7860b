/* The forms that weights have on the GPU, and how they are made there. */
#include "cuda/forms.h"

#include <string.h>

#include "cuda/internal.h"

/* No `default`: for a dtype that is added to zi_dtype the compiler asks for a case, and until then it is refused. */
zimage_status zi_cuda_check_form(zi_cuda *cuda, const zi_weight *w, zi_cuda_form form)
{
    switch (w->dtype) {
    case ZI_F32:
    case ZI_F16:
    case ZI_BF16:
        if (form != ZI_FORM_PACKED)
            return ZIMAGE_OK;
        break;
    case ZI_GROUPED:
        if (form == ZI_FORM_PACKED &&
            (w->scale_dtype == ZI_F32 || w->scale_dtype == ZI_F16 || w->scale_dtype == ZI_BF16))
            return ZIMAGE_OK;
        break;
    case ZI_OPERAND:
    case ZI_DTYPE_OTHER:
        break;
    }
    return zi_fail(cuda->error, ZIMAGE_ERROR_UNSUPPORTED,
                   "cuda:%d: %s: stored as %s, expected F32, F16, BF16 or, for a matrix, grouped", cuda->device,
                   w->name, zi_dtype_name(w->dtype));
}

/* ---- sizes ------------------------------------------------------------------------------------------------------- */

static int64_t padded_out(const zi_weight *w)
{
    return (w->shape[0] + ZI_FILTER_MULTIPLE - 1) / ZI_FILTER_MULTIPLE * ZI_FILTER_MULTIPLE;
}

zi_cuda_groups zi_cuda_groups_of(const zi_weight *w)
{
    zi_cuda_groups g = {.numbers = (size_t)zi_weight_count(w) / 8 * (size_t)w->bits,
                        .scales = (size_t)(zi_weight_count(w) / w->group) * zi_dtype_size(w->scale_dtype)};
    g.second = zi_cuda_round_up(g.numbers);
    g.third = g.second + zi_cuda_round_up(g.scales);
    return g;
}

static size_t stored_bytes(const zi_weight *w)
{
    return (size_t)zi_weight_count(w) * zi_dtype_size(w->dtype);
}

/* The type of the elements in that form. */
static zi_dtype type_of(const zi_cuda *cuda, const zi_cuda_weight *weight)
{
    return weight->key.form == ZI_FORM_VECTOR ? ZI_F32 : cuda->type;
}

/* Whether both parts are stored in that type. */
static int all_of(const zi_cuda_weight *weight, zi_dtype type)
{
    return weight->a->dtype == type && (weight->b == NULL || weight->b->dtype == type);
}

/* Offset of b in the bytes that are sent: directly after a where both have one type and are read as one matrix. */
static size_t second_place(const zi_cuda_weight *weight)
{
    size_t a = stored_bytes(weight->a);
    return weight->a->dtype == weight->b->dtype ? a : zi_cuda_round_up(a);
}

static int64_t rows_of(const zi_cuda_weight *weight)
{
    return weight->a->shape[0] + (weight->b != NULL ? weight->b->shape[0] : 0);
}

static int64_t count_of(const zi_cuda_weight *weight)
{
    return zi_weight_count(weight->a) + (weight->b != NULL ? zi_weight_count(weight->b) : 0);
}

size_t zi_cuda_fp8_scales(const zi_cuda_weight *weight)
{
    return zi_cuda_round_up((size_t)count_of(weight));
}

void zi_cuda_weight_measure(const zi_cuda *cuda, zi_cuda_weight *w)
{
    int64_t count = count_of(w);
    if (w->key.form == ZI_FORM_PACKED) {
        zi_cuda_groups g = zi_cuda_groups_of(w->a);
        w->bytes = w->stored = g.third + g.scales;
        w->direct = 1;
        return;
    }
    w->stored = w->b != NULL ? second_place(w) + stored_bytes(w->b) : stored_bytes(w->a);
    if (w->key.form == ZI_FORM_FP8)
        w->bytes = zi_cuda_fp8_scales(w) + (size_t)rows_of(w) * sizeof(float);
    else if (w->key.form == ZI_FORM_FILTER)
        w->bytes = (size_t)(count / w->a->shape[0] * padded_out(w->a)) * zi_dtype_size(cuda->type);
    else
        w->bytes = (size_t)count * zi_dtype_size(type_of(cuda, w));
    w->direct = (w->key.form == ZI_FORM_MATRIX || w->key.form == ZI_FORM_VECTOR) && all_of(w, type_of(cuda, w));
}

void zi_cuda_weight_parts(const zi_cuda_weight *weight, uint8_t *to, zi_upload_part parts[ZI_UPLOAD_PARTS])
{
    const zi_weight *a = weight->a, *b = weight->b;
    memset(parts, 0, ZI_UPLOAD_PARTS * sizeof(*parts));
    if (weight->key.form == ZI_FORM_PACKED) {
        zi_cuda_groups g = zi_cuda_groups_of(a);
        parts[0] = (zi_upload_part){a->data, to, g.numbers};
        parts[1] = (zi_upload_part){a->scales, to + g.second, g.scales};
        parts[2] = (zi_upload_part){a->biases, to + g.third, g.scales};
        return;
    }
    parts[0] = (zi_upload_part){a->data, to, stored_bytes(a)};
    if (b != NULL)
        parts[1] = (zi_upload_part){b->data, to + second_place(weight), stored_bytes(b)};
}

/* ---- forms ------------------------------------------------------------------------------------------------------- */

/* a's elements, then b's, in one type. */
static zimage_status convert(zi_cuda *cuda, const zi_cuda_weight *w, const uint8_t *stored, zi_dtype type, void *data)
{
    const zi_weight *a = w->a, *b = w->b;
    ZI_CUDA_TRY(cuda, zi_cuda_convert(type, data, a->dtype, stored, zi_weight_count(a), cuda->stream),
                "converting a weight");
    if (b == NULL)
        return ZIMAGE_OK;
    return ZI_CUDA_RUN(cuda,
                       zi_cuda_convert(type, zi_cuda_at(data, type, zi_weight_count(a)), b->dtype,
                                       stored + second_place(w), zi_weight_count(b), cuda->stream),
                       "converting a weight");
}

static zimage_status quantise(zi_cuda *cuda, const void *dense, int64_t rows, int64_t columns, const zi_cuda_rows8 *out)
{
    return ZI_CUDA_RUN(cuda, zi_cuda_quantise_rows(*out, cuda->type, dense, columns, rows, columns, cuda->stream),
                       "quantising a weight");
}

static zimage_status form_fp8(zi_cuda *cuda, const zi_cuda_weight *w, const uint8_t *stored, void *data)
{
    const zi_cuda_rows8 rows = {data, (float *)(void *)((uint8_t *)data + zi_cuda_fp8_scales(w))};
    void *dense = (void *)stored;
    zi_arena_mark mark = zi_cuda_mark(cuda);
    if (!all_of(w, cuda->type)) {
        ZI_TRY(zi_cuda_stack_alloc(cuda, (size_t)count_of(w) * zi_dtype_size(cuda->type), w->a->name, &dense));
        ZI_TRY(convert(cuda, w, stored, cuda->type, dense));
    }
    ZI_TRY(quantise(cuda, dense, rows_of(w), w->a->shape[1], &rows));
    zi_cuda_release(cuda, mark);
    return ZIMAGE_OK;
}

zimage_status zi_cuda_weight_form(zi_cuda *cuda, const zi_cuda_weight *w, const uint8_t *stored, void *data)
{
    if (w->key.form == ZI_FORM_FP8)
        return form_fp8(cuda, w, stored, data);
    if (w->key.form != ZI_FORM_FILTER)
        return convert(cuda, w, stored, type_of(cuda, w), data);
    return ZI_CUDA_RUN(cuda,
                       zi_cuda_arrange_filter(cuda->type, data, w->a->dtype, stored, w->a->shape[0], padded_out(w->a),
                                              w->a->shape[1], w->a->shape[2] * w->a->shape[3], cuda->stream),
                       "arranging a filter");
}
