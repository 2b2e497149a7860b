#include "ops/tensor.h"

#include <assert.h>
#include <math.h>
#include <string.h>

size_t zi_dtype_size(zi_dtype dtype)
{
    switch (dtype) {
    case ZI_F32:
        return 4;
    case ZI_F16:
    case ZI_BF16:
        return 2;
    case ZI_GROUPED:
    case ZI_OPERAND:
    case ZI_DTYPE_OTHER:
        break;
    }
    return 0;
}

const char *zi_dtype_name(zi_dtype dtype)
{
    switch (dtype) {
    case ZI_F32:
        return "F32";
    case ZI_F16:
        return "F16";
    case ZI_BF16:
        return "BF16";
    case ZI_GROUPED:
        return "grouped";
    case ZI_OPERAND:
    case ZI_DTYPE_OTHER:
        break;
    }
    return "other";
}

int64_t zi_shape_count(int dims, const int64_t *shape)
{
    int64_t count = 1;
    for (int i = 0; i < dims; i++)
        count *= shape[i];
    return count;
}

int64_t zi_tensor_count(const zi_tensor *tensor)
{
    return zi_shape_count(tensor->dims, tensor->shape);
}

int zi_tensor_is_dense(const zi_tensor *tensor)
{
    return tensor->dims == 0 || tensor->ld == tensor->shape[tensor->dims - 1];
}

zi_tensor zi_tensor_describe(zi_dtype dtype, int dims, const int64_t *shape)
{
    assert(dims >= 1 && dims <= 4);
    zi_tensor tensor = {.dtype = dtype, .dims = dims, .ld = shape[dims - 1]};
    memcpy(tensor.shape, shape, (size_t)dims * sizeof *shape);
    return tensor;
}

zi_tensor zi_tensor_rows(const zi_tensor *tensor, int64_t first, int64_t count)
{
    assert(tensor->dims > 0 && first >= 0 && count >= 0 && first + count <= tensor->shape[0]);
    assert(tensor->dtype != ZI_OPERAND);
    zi_tensor rows = *tensor;
    rows.shape[0] = count;
    if (tensor->dims == 1)
        rows.ld = count, rows.offset += first;
    else
        rows.offset += first * zi_shape_count(tensor->dims - 2, tensor->shape + 1) * tensor->ld;
    return rows;
}

zi_tensor zi_tensor_columns(const zi_tensor *tensor, int64_t first, int64_t count)
{
    assert(tensor->dims == 2 && first >= 0 && count >= 0 && first + count <= tensor->shape[1]);
    zi_tensor columns = *tensor;
    columns.shape[1] = count;
    columns.offset += first;
    return columns;
}

zi_tensor zi_tensor_shaped(const zi_tensor *tensor, int dims, const int64_t *shape)
{
    assert(zi_tensor_is_dense(tensor) && zi_shape_count(dims, shape) == zi_tensor_count(tensor));
    zi_tensor shaped = zi_tensor_describe(tensor->dtype, dims, shape);
    shaped.data = tensor->data;
    shaped.offset = tensor->offset;
    return shaped;
}

int64_t zi_weight_count(const zi_weight *weight)
{
    return zi_shape_count(weight->dims, weight->shape);
}

zi_weight zi_weight_slice(const zi_weight *weight, int64_t first, int64_t count)
{
    assert(weight->dims == 2 && first >= 0 && count >= 0 && first + count <= weight->shape[0]);
    int grouped = weight->dtype == ZI_GROUPED;
    size_t columns = (size_t)weight->shape[1], row = columns * zi_dtype_size(weight->dtype), scales = 0;
    if (grouped) { /* a row is a whole number of bytes and of groups */
        row = columns / 8 * (size_t)weight->bits;
        scales = columns / (size_t)weight->group * zi_dtype_size(weight->scale_dtype);
    }
    zi_weight slice = *weight;
    slice.shape[0] = count;
    slice.bytes = (size_t)count * row;
    slice.data = weight->data != NULL ? weight->data + (size_t)first * row : NULL;
    slice.scales = weight->scales != NULL ? weight->scales + (size_t)first * scales : NULL;
    slice.biases = weight->biases != NULL ? weight->biases + (size_t)first * scales : NULL;
    return slice;
}

static inline float float_of(uint32_t bits)
{
    float value;
    memcpy(&value, &bits, sizeof value);
    return value;
}

static inline uint32_t bits_of(float value)
{
    uint32_t bits;
    memcpy(&bits, &value, sizeof bits);
    return bits;
}

/*
 * Three cases computed side by side, so that a loop of it vectorises: a normal number has its exponent moved from bias
 * 15 to 127; Inf and NaN by twice that; a subnormal is put behind a leading one, 2^-14 (1 + m), which is taken off
 * again. No step has a subnormal float32 operand: correct also where the embedder flushes those to zero. The blend is
 * by masks because gcc would put the subtraction under a branch, and then not vectorise.
 */
static inline float f16_to_f32(uint16_t half)
{
    const uint32_t rebias = (127u - 15u) << 23, one = 113u << 23; /* one: 2^-14 */
    uint32_t magnitude = (uint32_t)(half & 0x7FFF) << 13;
    uint32_t exponent = magnitude & (31u << 23);
    uint32_t normal = magnitude + rebias + (exponent == 31u << 23 ? rebias : 0);
    uint32_t subnormal = bits_of(float_of(magnitude + one) - float_of(one));
    uint32_t is_subnormal = 0 - ((exponent - 1) >> 31); /* all ones if exponent is 0 */
    uint32_t bits = (subnormal & is_subnormal) | (normal & ~is_subnormal);
    return float_of(bits | (uint32_t)(half & 0x8000) << 16);
}

float zi_f16_to_f32(uint16_t bits)
{
    return f16_to_f32(bits);
}

float zi_bf16_to_f32(uint16_t bits)
{
    return float_of((uint32_t)bits << 16);
}

uint16_t zi_f32_to_bf16(float value)
{
    uint32_t bits = bits_of(value);
    if (value != value)
        return (uint16_t)(bits >> 16 | 0x40);
    return (uint16_t)((bits + 0x7FFF + (bits >> 16 & 1)) >> 16);
}

float zi_round_bf16(float value)
{
    return zi_bf16_to_f32(zi_f32_to_bf16(value));
}

/* The data may be unaligned: every load is a memcpy, which compilers turn into plain unaligned loads. */
static void unpack_f16(const uint8_t *restrict data, int64_t count, float *restrict out)
{
    for (int64_t i = 0; i < count; i++) {
        uint16_t bits;
        memcpy(&bits, data + 2 * i, sizeof bits);
        out[i] = f16_to_f32(bits);
    }
}

static void unpack_bf16(const uint8_t *restrict data, int64_t count, float *restrict out)
{
    for (int64_t i = 0; i < count; i++) {
        uint16_t bits;
        memcpy(&bits, data + 2 * i, sizeof bits);
        out[i] = float_of((uint32_t)bits << 16);
    }
}

/* Number `index` of an array of scales. */
static float scale_at(zi_dtype dtype, const uint8_t *scales, int64_t index)
{
    float value = NAN;
    uint16_t half;
    switch (dtype) {
    case ZI_F32:
        memcpy(&value, scales + 4 * index, sizeof value);
        return value;
    case ZI_F16:
        memcpy(&half, scales + 2 * index, sizeof half);
        return f16_to_f32(half);
    case ZI_BF16:
        memcpy(&half, scales + 2 * index, sizeof half);
        return zi_bf16_to_f32(half);
    case ZI_GROUPED:
    case ZI_OPERAND:
    case ZI_DTYPE_OTHER:
        break;
    }
    return value;
}

/* The 8 numbers in `bits` bytes. */
static inline void unpack_eight(const uint8_t *data, int bits, float scale, float bias, float *restrict out)
{
    uint64_t word = 0, mask = (1u << bits) - 1;
    memcpy(&word, data, (size_t)bits);
    for (int i = 0; i < 8; i++)
        out[i] = scale * (float)(int32_t)(word >> i * bits & mask) + bias;
}

/* Numbers [first, last) of a stream, all of one group; with constant bits it is a few shifts a number. */
static inline void unpack_run(const uint8_t *data, int bits, int64_t first, int64_t last, float scale, float bias,
                              float *restrict out)
{
    while (first < last) {
        int64_t skip = first % 8, count = last - first < 8 - skip ? last - first : 8 - skip;
        if (count < 8) {
            float eight[8];
            unpack_eight(data + first / 8 * bits, bits, scale, bias, eight);
            memcpy(out, eight + skip, (size_t)count * sizeof *out);
        } else {
            unpack_eight(data + first / 8 * bits, bits, scale, bias, out);
        }
        out += count;
        first += count;
    }
}

static void unpack_group(const zi_weight *weight, int64_t first, int64_t last, float scale, float bias, float *out)
{
    const uint8_t *data = weight->data;
    switch (weight->bits) {
    case 1:
        unpack_run(data, 1, first, last, scale, bias, out);
        return;
    case 2:
        unpack_run(data, 2, first, last, scale, bias, out);
        return;
    case 3:
        unpack_run(data, 3, first, last, scale, bias, out);
        return;
    case 4:
        unpack_run(data, 4, first, last, scale, bias, out);
        return;
    case 5:
        unpack_run(data, 5, first, last, scale, bias, out);
        return;
    case 6:
        unpack_run(data, 6, first, last, scale, bias, out);
        return;
    case 8:
        unpack_run(data, 8, first, last, scale, bias, out);
        return;
    default:
        for (int64_t i = first; i < last; i++)
            *out++ = NAN;
    }
}

/* Rows are whole groups and whole bytes: the matrix is one stream of numbers, and one of groups. */
static void unpack_grouped(const zi_weight *weight, int64_t first, int64_t count, float *out)
{
    for (int64_t i = first, end = first + count; i < end;) {
        int64_t group = i / weight->group, last = (group + 1) * weight->group;
        last = last < end ? last : end;
        unpack_group(weight, i, last, scale_at(weight->scale_dtype, weight->scales, group),
                     scale_at(weight->scale_dtype, weight->biases, group), out);
        out += last - i;
        i = last;
    }
}

void zi_weight_unpack(const zi_weight *weight, int64_t first, int64_t count, float *out)
{
    assert(first >= 0 && count >= 0 && first + count <= zi_weight_count(weight));
    const uint8_t *data = weight->data + (size_t)first * zi_dtype_size(weight->dtype);
    switch (weight->dtype) {
    case ZI_F32:
        if (count > 0)
            memcpy(out, data, (size_t)count * sizeof(float));
        return;
    case ZI_F16:
        unpack_f16(data, count, out);
        return;
    case ZI_BF16:
        unpack_bf16(data, count, out);
        return;
    case ZI_GROUPED:
        unpack_grouped(weight, first, count, out);
        return;
    case ZI_OPERAND:
    case ZI_DTYPE_OTHER:
        break;
    }
    for (int64_t i = 0; i < count; i++)
        out[i] = NAN;
}
