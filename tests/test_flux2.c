/* The FLUX.2 transformer against diffusers, on the reference backend and every set of CPU kernels; what it refuses. */
#include "cpu/features.h"
#include "cpu/selftest.h"
#include "flux2_cases.h"
#include "ops/host.h"

/* float32: as the reference. The others: what diffusers itself is off in bf16 (test_bf16 of these sizes), and for int8
 * five times that. */
#define F32_TOLERANCE  2e-5
#define BF16_TOLERANCE 1.1e-2
#define INT8_TOLERANCE 5.5e-2

static zi_store *store, *golden;
static zi_flux2_dit model;

static int set_up(void **state)
{
    if (make_temporary_folder(state) != 0)
        return -1;
    golden = fixture_open("flux2.safetensors");
    open_flux2(&store, &model);
    return 0;
}

static int tear_down(void **state)
{
    zi_flux2_dit_free(&model);
    zi_store_free(store);
    zi_store_free(golden);
    return remove_temporary_folder(state);
}

/* ---- outputs ----------------------------------------------------------------------------------------------------- */

static void test_reference(void **state)
{
    zi_run *run = table_open(0);
    for (int i = 0; i < FLUX2_CASES; i++)
        flux2_compare(&model, run, golden, "reference", &flux2_cases[i], 1, F32_TOLERANCE);
    table_close(run);
}

static double tolerance_of(const zi_cpu_set *set)
{
    zi_cases_options options = zi_cpu_cases_options(set);
    return options.compute == ZIMAGE_COMPUTE_F32    ? F32_TOLERANCE
           : options.compute == ZIMAGE_COMPUTE_BF16 ? BF16_TOLERANCE
                                                    : INT8_TOLERANCE;
}

static void test_cpu(void **state)
{
    zi_cpu_set set;
    zimage_error error = ZIMAGE_ERROR_INIT;
    zi_run run = {.error = &error};
    zi_pool *pool;
    assert_int_equal(zi_pool_new(2, &pool, &error), ZIMAGE_OK);
    for (int i = 0; zi_cpu_set_at(i, zi_cpu_features(), &set); i++) {
        char name[64];
        if (!set.usable)
            continue;
        assert_int_equal(zi_cpu_new_with_set(pool, &set, &run.ops, &error), ZIMAGE_OK);
        snprintf(name, sizeof name, "cpu %s", set.name);
        for (int j = 0; j < FLUX2_CASES; j++)
            flux2_compare(&model, &run, golden, name, &flux2_cases[j], 1, tolerance_of(&set));
        zi_table(&run)->free(run.ops);
    }
    zi_pool_free(pool);
}

/* What bf16 costs diffusers, as BF16_TOLERANCE says. */
static void test_bf16_of_the_reference(void **state)
{
    size_t count;
    float *want = fixture_floats(golden, "two.output", &count),
          *rounded = fixture_floats(golden, "two.bf16_output", NULL);
    double error = relative_error(rounded, want, count);
    assert_true(error < BF16_TOLERANCE && error > 0.9 * BF16_TOLERANCE);
    free(want);
    free(rounded);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_reference),
        cmocka_unit_test(test_cpu),
        cmocka_unit_test(test_bf16_of_the_reference),
    };
    return cmocka_run_group_tests(tests, set_up, tear_down);
}
