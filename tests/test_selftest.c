/* zimage selftest: everything is right here; and whichever kernel is broken, its cases find it. */
#define ZIMAGE_EXPERIMENTAL
#include "cpu/kernels.h"
#include "cpu/selftest.h"
#include "program.h"

#define ARGUMENTS(...) ((const char *const[]){__VA_ARGS__, NULL})

static zi_pool *pool;
static zimage_error error = ZIMAGE_ERROR_INIT;

static int set_up(void **state)
{
    return zi_pool_new(2, &pool, &error) != ZIMAGE_OK || folder_make(state);
}

static int tear_down(void **state)
{
    zi_pool_free(pool);
    return folder_remove(state);
}

/* What the cases of a set found. */
typedef struct result {
    int cases;
    char kernels[4000], faults[40000]; /* "|linear||linear|...": the group of each fault; their texts */
} result;

static void on_finding(void *user, const zi_case_finding *finding)
{
    result *r = user;
    r->cases++;
    if (!finding->fault)
        return;
    snprintf(r->kernels + strlen(r->kernels), sizeof r->kernels - strlen(r->kernels), "|%s|", finding->group);
    snprintf(r->faults + strlen(r->faults), sizeof r->faults - strlen(r->faults), "%s %s\n", finding->group,
             finding->fault);
}

static void check(result *r, const zi_cpu_kernels *kernels, const zi_packed_gemm *gemm)
{
    zi_cpu_set set = {"a set", 1, kernels, gemm};
    if (zi_cpu_selftest(pool, &set, on_finding, r, &error) != ZIMAGE_OK)
        fail_msg("%s", error.message);
}

static void every_set_is_right(void **state)
{
    zi_cpu_set set;
    for (int i = 0; zi_cpu_set_at(i, zi_cpu_features(), &set); i++) {
        result r = {0};
        if (!set.usable)
            continue;
        check(&r, set.kernels, set.gemm);
        assert_true(r.cases > (set.gemm ? 8 : 30));
        if (r.faults[0])
            fail_msg("%s: %s", set.name, r.faults);
    }
}

/* ---- broken kernels ---------------------------------------------------------------------------------------------- */

static const zi_cpu_kernels *const good = &zi_cpu_kernels_generic;

#define BREAK(function, parameters, arguments, damage)                                                                 \
    static void broken_##function parameters                                                                           \
    {                                                                                                                  \
        good->function arguments;                                                                                      \
        damage;                                                                                                        \
    }

BREAK(gemm,
      (int64_t segments, int64_t k, const float *const *a, int64_t step, int64_t offset, const float *b, float *c,
       int64_t ldc, int accumulate),
      (segments, k, a, step, offset, b, c, ldc, accumulate), c[ldc] += 0.01f)
BREAK(dot, (int tokens, int64_t k, const float *x, int64_t ldx, const float *w, float *out),
      (tokens, k - 1, x, ldx, w, out), ) /* reads one element too few */
BREAK(unpack, (zi_dtype dtype, const uint8_t *src, int64_t count, float *dst), (dtype, src, count, dst),
      dst[count - 1] *= 1.01f)
BREAK(unpack_groups,
      (int bits, int64_t group, const uint8_t *src, const float *scales, const float *biases, int64_t groups,
       float *dst),
      (bits, group, src, scales, biases, groups, dst), dst[group * groups - 1] += 0.01f)
BREAK(transpose, (const void *rows, int64_t ld, int64_t count, int64_t k, void *panel, int64_t width),
      (rows, ld, count, k, panel, width), memset(panel, 0, 4))
BREAK(store_glu,
      (float *y, int64_t ldy, const float *gate, const float *up, int64_t ldc, int64_t rows, int64_t columns,
       zi_cpu_store mode),
      (y, ldy, gate, up, ldc, rows - 1, columns, mode), ) /* the last row is missing */
BREAK(store_glu_bf16,
      (uint8_t * y, int64_t stride, const float *gate, const float *up, int64_t ldc, int64_t rows, int64_t columns),
      (y, stride, gate, up, ldc, rows, columns - 1), ) /* the last column is missing */
BREAK(multiply, (float *y, const float *x, float factor, int64_t n), (y, x, factor, n), y[0] *= 1.01f)
BREAK(add, (float *y, const float *x, int64_t n), (y, x, n - 1), )
BREAK(silu, (float *y, const float *x, int64_t n), (y, x, n - 1), )
BREAK(affine,
      (float *y, const float *x, const float *scale, const float *shift, int64_t pixels, int64_t channels, int silu),
      (y, x, scale, shift, pixels, channels, silu), y[channels - 1] += 0.01f)
BREAK(rms_norm, (float *y, const float *x, const float *gain, int64_t n, float eps), (y, x, gain, n - 1, eps), )
BREAK(layer_norm, (float *y, const float *x, const float *gain, int64_t n, float eps), (y, x, gain, n - 1, eps), )
BREAK(qk_norm_rope,
      (float *x, float *t, const float *w, const float *cos, const float *sin, int64_t dim, zi_rope_layout layout,
       float eps),
      (x, t, w, sin, cos, dim, layout, eps), )
BREAK(channel_sums, (double *sums, const float *x, int64_t pixels, int64_t channels), (sums, x, pixels, channels),
      sums[channels] = sums[0])
BREAK(pack_pairs, (const float *a, const float *b, int64_t n, uint32_t *out), (b, a, n, out), )
BREAK(pack,
      (zi_cpu_number number, zi_dtype dtype, const void *src, int64_t n, float factor, uint8_t *out, int64_t stride),
      (number, dtype, src, n - 1, factor, out, stride), )
BREAK(pack_nibbles,
      (zi_cpu_number number, int64_t group, const uint8_t *src, const float *scales, const float *biases,
       int64_t groups, float factor, uint8_t *out, int64_t stride),
      (number, group, src, scales, biases, groups, factor * 0.9f, out, stride), )
BREAK(scale_sums,
      (void *c, int64_t rows, int64_t columns, const float *row_scales, const float *scales, const int32_t *offsets),
      (c, rows, columns, row_scales, scales, offsets), ((float *)c)[columns - 1] *= 1.01f)

static void broken_store(float *y, int64_t ldy, const float *c, int64_t ldc, int64_t rows, int64_t columns,
                         const float *bias, zi_cpu_store mode) /* the wrong sign of the bias */
{
    float negated[ZI_PACKED_MR_MAX]; /* the widest: rows of few tokens */
    for (int64_t i = 0; bias && i < columns; i++)
        negated[i] = -bias[i];
    good->store(y, ldy, c, ldc, rows, columns, bias ? negated : NULL, mode);
}

static void store_beyond(float *y, int64_t ldy, const float *c, int64_t ldc, int64_t rows, int64_t columns,
                         const float *bias, zi_cpu_store mode)
{
    good->store(y, ldy, c, ldc, rows, columns, bias, mode);
    y[(rows - 1) * ldy + columns] = 1;
}

static int broken_residual(float *x, const float *y, const float *gain, float *h, const float *gain_next, int64_t n,
                           float eps)
{
    return good->residual(x, y, gain, h, gain_next, n, eps + 1e-3f);
}

static int broken_add_scaled(float *x, const float *y, const float *gain, int64_t n)
{
    return good->add_scaled(x, y, gain, n - 1);
}

static float broken_softmax(float *s, int64_t n, int64_t padded, float scale, float *max, float *sum)
{
    float factor = good->softmax(s, n, padded, scale, max, sum);
    *sum *= 1.01f;
    return factor;
}

static void broken_softmax_bf16(const zi_cpu_softmax *block)
{
    good->softmax_bf16(block);
    block->sum[0] *= 1.1f;
}

/* The generic tier has no such kernel: a broken one is called and found. */
static void broken_pack_nibble_panel(const zi_nibble_rows *rows, uint8_t *panel, int64_t width)
{
    memset(panel, 0, (size_t)(rows->group * rows->groups / 2 * width * 4 - width * 4 + 64));
}

static int broken_finite(const float *x, int64_t n)
{
    return good->finite(x, n - 1);
}

static double broken_peak(int64_t rounds, float *sink)
{
    return 0;
}

static float broken_largest(zi_dtype dtype, const void *src, int64_t n) /* misses the first */
{
    return good->largest(dtype, (const uint8_t *)src + zi_dtype_size(dtype), n - 1);
}

#define BROKEN(function, kernel)                                                                                       \
    {                                                                                                                  \
#function, offsetof(zi_cpu_kernels, function), (void (*)(void))broken_##function, "|" kernel "|"               \
    }

static const struct {
    const char *function;
    size_t place;
    void (*broken)(void);
    const char *kernel; /* the one that is named */
} breaks[] = {
    BROKEN(gemm, "linear"),
    BROKEN(dot, "linear"),
    BROKEN(unpack, "linear"),
    BROKEN(unpack_groups, "linear"),
    BROKEN(transpose, "attention"),
    BROKEN(store, "linear"),
    BROKEN(store_glu, "gated"),
    BROKEN(store_glu_bf16, "operands"),
    BROKEN(softmax, "attention"),
    BROKEN(multiply, "attention"),
    BROKEN(add, "norms"),
    BROKEN(add_scaled, "norms"),
    BROKEN(silu, "silu"),
    BROKEN(affine, "groups"),
    BROKEN(rms_norm, "norms"),
    BROKEN(layer_norm, "norms"),
    BROKEN(residual, "norms"),
    BROKEN(qk_norm_rope, "rope"),
    BROKEN(channel_sums, "groups"),
    BROKEN(finite, "finite"),
    BROKEN(peak, "peak"),
    BROKEN(pack_pairs, "attention"),
    BROKEN(pack, "linear"),
    BROKEN(pack_nibbles, "linear"),
    BROKEN(largest, "linear"),
    BROKEN(scale_sums, "gated"),
    BROKEN(softmax_bf16, "attention"),
    BROKEN(pack_nibble_panel, "linear"),
};

#define POINTERS ((sizeof(zi_cpu_kernels) - offsetof(zi_cpu_kernels, gemm)) / sizeof(void (*)(void)))

_Static_assert(sizeof breaks / sizeof *breaks == POINTERS, "every function of zi_cpu_kernels is broken once");

static void every_function_is_tried(void **state)
{
    for (size_t i = 0; i < POINTERS; i++) {
        zi_cpu_kernels broken = *good;
        result r = {0};
        memcpy((char *)&broken + breaks[i].place, &breaks[i].broken, sizeof breaks[i].broken);
        check(&r, &broken, NULL);
        check(&r, &broken, zi_packed_gemms_bf16[0]);
        check(&r, &broken, zi_packed_gemms_int8[0]);
        if (!strstr(r.kernels, breaks[i].kernel))
            fail_msg("a broken %s: expected a fault of %s, found: %s", breaks[i].function, breaks[i].kernel, r.faults);
    }
}

static void a_fault_has_its_case_and_numbers(void **state)
{
    zi_cpu_kernels broken = *good;
    result r = {0};
    broken.store = broken_store;
    check(&r, &broken, NULL);
    assert_non_null(strstr(r.faults, "linear 33 x 130 -> 70, BF16, unaligned, bias, added: error 0."));
    assert_non_null(strstr(r.faults, ", allowed 3e-06\n"));
    assert_non_null(strstr(r.faults, "conv 3 x 5, 40 -> 17 channels, side 3, BF16, bias, added: error 0."));
    assert_null(strstr(r.faults, "-> 40")); /* no bias, or few tokens */
    assert_null(strstr(r.faults, "attention"));
}

static void writing_outside_is_reported(void **state)
{
    zi_cpu_kernels broken = *good;
    result r = {0};
    broken.store = store_beyond;
    check(&r, &broken, NULL);
    assert_non_null(strstr(r.faults, "linear 5 x 64 -> 16, F32: wrote outside its output\n"));
    assert_non_null(strstr(r.faults, "conv 1 x 1, 1 -> 1 channels, side 3, F32: wrote outside its output\n"));
}

static void broken_bf16_product(const zi_cpu_tiles *tiles)
{
    zi_packed_gemms_bf16[0]->product(tiles);
    *(float *)(void *)tiles->c += 0.01f;
}

static void broken_int8_product(const zi_cpu_tiles *tiles)
{
    zi_packed_gemms_int8[0]->product(tiles);
    *(int32_t *)(void *)tiles->c += 1;
}

#if defined(__x86_64__)
extern const zi_packed_gemm emulated_bf16_amx; /* amx_emulated.c */

static void broken_nibbles(const zi_nibble_rows *rows, const zi_cpu_tiles *tiles)
{
    emulated_bf16_amx.nibbles(rows, tiles);
    *(float *)(void *)tiles->c += 0.01f;
}

static void nibbles_are_tried(void **state)
{
    zi_packed_gemm amx = emulated_bf16_amx;
    result right = {0}, r = {0};
    check(&right, good, &amx);
    assert_string_equal(right.faults, "");
    amx.nibbles = broken_nibbles;
    check(&r, good, &amx);
    assert_non_null(strstr(r.faults, "linear 51 x 256 -> 48, Q4: error"));
    assert_non_null(strstr(r.faults, "linear 90 x 128 -> 32, Q4 of 64, unaligned, bias, added: error"));
    assert_non_null(strstr(r.faults, "gated 20 x 384 -> 64, Q4, unaligned: error"));
}
#endif

static void packed_products_are_tried(void **state)
{
    zi_packed_gemm bf16 = *zi_packed_gemms_bf16[0], int8 = *zi_packed_gemms_int8[0];
    result r = {0}, r8 = {0};
    bf16.product = broken_bf16_product;
    check(&r, good, &bf16);
    assert_non_null(strstr(r.kernels, "|linear|"));
    assert_non_null(strstr(r.kernels, "|gated|"));
    assert_non_null(strstr(r.kernels, "|attention|"));
    assert_non_null(strstr(r.kernels, "|conv|"));
    int8.product = broken_int8_product;
    check(&r8, good, &int8);
    assert_non_null(strstr(r8.faults, "linear 5 x 64 -> 16, F32: error"));
    assert_non_null(strstr(r8.kernels, "|gated|"));
}

/* ---- the program ------------------------------------------------------------------------------------------------- */

static const json_t *find(const json_t *list, const char *name)
{
    for (size_t i = 0; i < json_array_size(list); i++)
        if (!strcmp(json_string_value(json_object_get(json_array_get(list, i), "name")), name))
            return json_array_get(list, i);
    fail_msg("no \"%s\"", name);
    return NULL;
}

static void the_program_reports(void **state)
{
    outcome o;
    run_program(ARGUMENTS("selftest"), &o);
    if (o.code)
        fail_msg("%s%s", o.out, o.err);
    assert_string_equal(o.err, "");
    assert_non_null(strstr(o.out, "reference: image ok\n"));
    assert_non_null(
        strstr(o.out, "generic: linear ok, gated ok, operands ok, repeat ok, attention ok, memory ok, moving ok, "));
    assert_non_null(strstr(o.out, "int8 generic: linear ok, gated ok, peak ok, image ok (max error "));
    assert_non_null(strstr(o.out, "everything is correct in "));
}

static void a_mask_and_json(void **state)
{
    outcome o;
    run_program(ARGUMENTS("selftest", "--json", "--verbose", "--cpu-mask", "generic"), &o);
    if (o.code)
        fail_msg("%s%s", o.out, o.err);
    assert_string_equal(o.err, "zimage: checking reference\nzimage: checking generic\nzimage: checking bf16 generic\n"
                               "zimage: checking int8 generic\n");
    json_t *all = json_loads(o.out, 0, NULL);
    const json_t *kernels = json_object_get(all, "kernels"), *generic = find(kernels, "generic");
    assert_true(json_is_true(json_object_get(all, "passed")));
    assert_true(json_real_value(json_object_get(all, "seconds")) > 0);
    assert_true(json_is_true(json_object_get(generic, "usable")) && json_is_true(json_object_get(generic, "passed")));
    assert_int_equal(json_array_size(json_object_get(generic, "faults")), 0);
    assert_int_equal(json_array_size(json_object_get(generic, "checks")), 16);
    assert_true(json_real_value(json_object_get(generic, "max_error")) < 6e-6);
    assert_true(json_is_true(json_object_get(json_object_get(generic, "image"), "passed")));
    const json_t *attention = find(json_object_get(find(kernels, "bf16 generic"), "checks"), "attention");
    assert_true(json_real_value(json_object_get(attention, "max_error")) < 0x1p-9);
#if defined(__x86_64__)
    const json_t *avx2 = find(kernels, "avx2");
    assert_true(json_is_false(json_object_get(avx2, "usable")) && json_is_null(json_object_get(avx2, "passed")));
#endif
    json_decref(all);
}

static void wrong_command_lines(void **state)
{
    outcome o;
    run_program(ARGUMENTS("selftest", "--help"), &o);
    assert_int_equal(o.code, 0);
    assert_non_null(strstr(o.out, "--cpu-mask"));
    run_program(ARGUMENTS("selftest", "all"), &o);
    assert_int_equal(o.code, 2);
    assert_non_null(strstr(o.err, "\"all\": unexpected"));
    run_program(ARGUMENTS("selftest", "--cpu-mask", "abacus"), &o);
    assert_int_equal(o.code, 1);
    assert_non_null(strstr(o.err, "abacus"));
    assert_int_equal(zimage_selftest(NULL, NULL, &error), ZIMAGE_ERROR_ARGUMENT);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(every_set_is_right),
        cmocka_unit_test(every_function_is_tried),
        cmocka_unit_test(a_fault_has_its_case_and_numbers),
        cmocka_unit_test(writing_outside_is_reported),
        cmocka_unit_test(packed_products_are_tried),
#if defined(__x86_64__)
        cmocka_unit_test(nibbles_are_tried),
#endif
        cmocka_unit_test(the_program_reports),
        cmocka_unit_test(a_mask_and_json),
        cmocka_unit_test(wrong_command_lines),
    };
    return cmocka_run_group_tests(tests, set_up, tear_down);
}
