/* Tensors: number formats, unpacking of weights, views. */
#include "ops/tensor.h"
#include "support.h"

/* The value of a small float, by definition: a sign, exponent_bits, mantissa_bits. */
static float value_of(uint32_t bits, int exponent_bits, int mantissa_bits)
{
    int exponent = (int)(bits >> mantissa_bits) & ((1 << exponent_bits) - 1);
    int mantissa = (int)bits & ((1 << mantissa_bits) - 1);
    int bias = (1 << (exponent_bits - 1)) - 1, lowest = 1 - bias - mantissa_bits;
    double value;
    if (exponent == (1 << exponent_bits) - 1)
        value = mantissa ? NAN : INFINITY;
    else if (exponent == 0)
        value = ldexp(mantissa, lowest);
    else
        value = ldexp((1 << mantissa_bits) + mantissa, lowest + exponent - 1);
    return (float)(bits >> (exponent_bits + mantissa_bits) ? -value : value);
}

static int same_float(float a, float b)
{
    return (isnan(a) && isnan(b)) || (a == b && signbit(a) == signbit(b));
}

static void every_half_converts(void **state)
{
    const struct {
        zi_dtype dtype;
        int exponent_bits, mantissa_bits;
        float (*convert)(uint16_t);
    } formats[] = {{ZI_F16, 5, 10, zi_f16_to_f32}, {ZI_BF16, 8, 7, zi_bf16_to_f32}};
    uint8_t *bytes = malloc(2 * 65536 + 1);
    float *unpacked = malloc(65536 * sizeof *unpacked);
    for (uint32_t i = 0; i < 65536; i++) {
        bytes[1 + 2 * i] = (uint8_t)i;
        bytes[2 + 2 * i] = (uint8_t)(i >> 8);
    }
    for (int f = 0; f < 2; f++) {
        zi_weight weight = {.name = "w",
                            .dtype = formats[f].dtype,
                            .dims = 2,
                            .shape = {256, 256},
                            .data = bytes + 1,
                            .bytes = 2 * 65536};
        zi_weight_unpack(&weight, 0, 65536, unpacked);
        for (uint32_t i = 0; i < 65536; i++) {
            float expected = value_of(i, formats[f].exponent_bits, formats[f].mantissa_bits);
            if (!same_float(formats[f].convert((uint16_t)i), expected) || !same_float(unpacked[i], expected))
                fail_msg("%s %04x: %a and %a, expected %a", zi_dtype_name(formats[f].dtype), i,
                         formats[f].convert((uint16_t)i), unpacked[i], expected);
        }
        zi_weight_unpack(&weight, 1001, 3, unpacked);
        assert_true(same_float(unpacked[2], value_of(1003, formats[f].exponent_bits, formats[f].mantissa_bits)));
    }
    free(bytes);
    free(unpacked);
}

static void float32_is_copied(void **state)
{
    const float values[4] = {1, -2.5f, 3e-42f, 4};
    uint8_t bytes[17];
    float out[2] = {0};
    memcpy(bytes + 1, values, sizeof values);
    zi_weight weight = {.name = "w", .dims = 1, .shape = {4}, .data = bytes + 1, .bytes = sizeof values};
    zi_weight_unpack(&weight, 1, 2, out);
    assert_memory_equal(out, values + 1, sizeof out);
    zi_weight_unpack(&weight, 4, 0, out);
    assert_int_equal(zi_weight_count(&weight), 4);
}

static void slices_are_rows(void **state)
{
    const uint16_t stored[6] = {0x3F80, 0x4000, 0x4040, 0x4080, 0x40A0, 0x40C0}; /* 1 to 6 */
    const zi_weight weight = {.name = "w",
                              .id = 7,
                              .dtype = ZI_BF16,
                              .dims = 2,
                              .shape = {3, 2},
                              .data = (const uint8_t *)stored,
                              .bytes = 12};
    const zi_weight slice = zi_weight_slice(&weight, 1, 2), none = zi_weight_slice(&weight, 3, 0);
    float out[4];
    zi_weight_unpack(&slice, 0, 4, out);
    for (int i = 0; i < 4; i++)
        assert_true(out[i] == (float)(3 + i));
    assert_int_equal(slice.bytes, 8);
    assert_int_equal(slice.id, 7);
    assert_int_equal(zi_weight_count(&none), 0);
    const zi_weight absent = {.name = "w", .dtype = ZI_BF16, .dims = 2, .shape = {3, 2}}; /* only described */
    assert_null(zi_weight_slice(&absent, 1, 1).data);
}

static void tensors_are_views(void **state)
{
    float data[24];
    zi_tensor tensor = zi_tensor_describe(ZI_F32, 3, (const int64_t[]){2, 3, 4});
    tensor.data = data;
    assert_int_equal(zi_tensor_count(&tensor), 24);
    zi_tensor rows = zi_tensor_rows(&tensor, 1, 1);
    assert_ptr_equal(zi_f32(&rows), data + 12);
    assert_int_equal(zi_tensor_count(&rows), 12);
    zi_tensor shaped = zi_tensor_shaped(&tensor, 2, (const int64_t[]){6, 4});
    assert_int_equal(shaped.dims, 2);
    assert_int_equal(shaped.shape[0], 6);
    assert_ptr_equal(zi_f32(&shaped), data);
    zi_tensor columns = zi_tensor_columns(&shaped, 1, 2);
    assert_int_equal(columns.ld, 4);
    assert_ptr_equal(zi_f32(&columns), data + 1);
    assert_false(zi_tensor_is_dense(&columns));
    columns = zi_tensor_rows(&columns, 3, 2);
    assert_ptr_equal(zi_f32(&columns), data + 13);
    assert_int_equal(zi_tensor_count(&columns), 4);
    zi_tensor scalar = {.dtype = ZI_F32};
    assert_int_equal(zi_tensor_count(&scalar), 1);
    assert_int_equal(zi_dtype_size(ZI_F32), 4);
    assert_int_equal(zi_dtype_size(ZI_BF16), 2);
    assert_int_equal(zi_dtype_size(ZI_DTYPE_OTHER), 0);
    assert_string_equal(zi_dtype_name(ZI_BF16), "BF16");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(every_half_converts),
        cmocka_unit_test(float32_is_copied),
        cmocka_unit_test(slices_are_rows),
        cmocka_unit_test(tensors_are_views),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
