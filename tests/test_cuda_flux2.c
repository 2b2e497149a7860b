/* The FLUX.2 transformer on the emulated GPU, in each compute type; the third time on what was recorded. */
#include <dlfcn.h>

#include "cuda/cuda.h"
#include "flux2_cases.h"

#define TIMES 3

/* bf16: what diffusers is off (test_flux2.c). fp8: a rounding of e4m3 is 16 times as large as one of bf16, and the
 * embedders, the last layer and all sums stay as they are. */
static const struct {
    zimage_compute compute;
    const char *name;
    double tolerance;
} kinds[] = {
    {ZIMAGE_COMPUTE_F32, "emulated cuda f32", 2e-5},
    {ZIMAGE_COMPUTE_BF16, "emulated cuda bf16", 1.1e-2},
    {ZIMAGE_COMPUTE_FP8, "emulated cuda fp8", 0.12},
};

/* Without references, with one, and with one that passes once; the others are too slow here. */
static const char *const cases[] = {"none", "one", "kv_one"};

static void test_outputs(void **state)
{
    zi_store *store, *golden = fixture_open("flux2.safetensors");
    zimage_error error = ZIMAGE_ERROR_INIT;
    zi_run run = {.error = &error};
    zi_flux2_dit model;
    void *library = dlopen(ZIMAGE_CUDA_LIBRARY, RTLD_NOW | RTLD_LOCAL);
    if (!library)
        fail_msg("%s", dlerror());
    zi_ops_cuda_new_fn *cuda_new = (zi_ops_cuda_new_fn *)dlsym(library, "zi_ops_cuda_new");
    assert_non_null(cuda_new);
    open_flux2(&store, &model);
    for (size_t i = 0; i < sizeof kinds / sizeof *kinds; i++) {
        const zi_cuda_options options = {.compute = kinds[i].compute};
        if (cuda_new(&options, &run.ops, &error) != ZIMAGE_OK)
            fail_msg("%s", error.message);
        for (size_t j = 0; j < sizeof cases / sizeof *cases; j++)
            flux2_compare(&model, &run, golden, kinds[i].name, flux2_case_of(cases[j]), TIMES, kinds[i].tolerance);
        zi_table(&run)->free(run.ops);
    }
    zi_flux2_dit_free(&model);
    zi_store_free(store);
    zi_store_free(golden);
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_outputs)};
    return cmocka_run_group_tests(tests, make_temporary_folder, remove_temporary_folder);
}
