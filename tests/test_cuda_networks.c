/*
 * Networks of tests/golden by the CUDA backend, stage by stage against the published libraries, on a GPU or on the
 * emulated one. Skipped without a usable GPU.
 */
#include "flux2_cases.h"
#include "gpu.h"
#include "vae_files.h"

/* The same float32 arithmetic as on the CPU, summed in another order. */
#define F32_BOUND 2e-5
/* Activations are stored with 8 bits of precision, some 20 times. The largest error is 0.016. */
#define BF16_BOUND 0.03

typedef struct vae_case {
    const char *folder, *fixture;
    int rows[3], columns[3]; /* of latents */
} vae_case;

static const vae_case vae_cases[] = {
    {"tiny/vae", "vae_encode.safetensors", {3, 2, 8}, {5, 2, 6}},
    {"vae-flux2", "vae_flux2.safetensors", {3, 1, 4}, {5, 2, 3}},
    {"vae-flux2-small", "vae_flux2_small.safetensors", {3, 1, 4}, {5, 2, 3}},
};

static void check(const zi_store *golden, const char *stage, zimage_compute compute, const char *name,
                  const float *ours)
{
    char line[128];
    size_t count;
    int f32 = compute == ZIMAGE_COMPUTE_F32;
    float *want = fixture_floats(golden, name, &count);
    snprintf(line, sizeof line, "%s: %s, %s: %s", operations ? "emulated GPU" : "cuda", stage, f32 ? "f32" : "bf16",
             name);
    parity(line, ours, want, count, f32 ? F32_BOUND : BF16_BOUND);
    free(want);
}

/* The golden image's moments, the same for bands of 3 rows. */
static void check_encoder(const zi_vae *model, const zi_store *golden, const char *size, zimage_compute compute)
{
    char name[64];
    snprintf(name, sizeof name, "%s.rgb", size);
    const zi_weight *image = fixture_find(golden, name);
    snprintf(name, sizeof name, "%s.moments", size);
    size_t count = (size_t)zi_weight_count(fixture_find(golden, name));
    float *moments = malloc(count * sizeof *moments), *banded = malloc(count * sizeof *banded);
    assert_true(moments && banded);
    ok(zi_vae_encode(model, gpu, image->data, image->shape[0], image->shape[1], 0, moments));
    check(golden, "VAE encoder", compute, name, moments);
    ok(zi_vae_encode(model, gpu, image->data, image->shape[0], image->shape[1], 3, banded));
    if (operations)
        assert_memory_equal(moments, banded, count * sizeof *moments);
    free(moments);
    free(banded);
}

static void check_flux2_decoder(const zi_vae *model, const zi_store *golden, const char *size, int rows, int columns,
                                zimage_compute compute)
{
    char name[64];
    snprintf(name, sizeof name, "%s.z", size);
    float *latents = fixture_floats(golden, name, NULL);
    snprintf(name, sizeof name, "%s.image", size);
    size_t count = (size_t)zi_weight_count(fixture_find(golden, name));
    float *rgb = malloc(count * sizeof *rgb);
    assert_non_null(rgb);
    ok(zi_vae_decode(model, gpu, latents, rows, columns, 0, &(zi_vae_output){.rgb = rgb}));
    fixture_channels_first(rgb, count);
    check(golden, "FLUX.2 VAE decoder", compute, name, rgb);
    free(latents);
    free(rgb);
}

static void check_vaes(zimage_compute compute)
{
    (void)open_gpu(&(zi_cuda_options){.compute = compute});
    for (size_t i = 0; i < sizeof vae_cases / sizeof *vae_cases; i++) {
        const vae_case *c = &vae_cases[i];
        zi_store *store, *golden = fixture_open(c->fixture);
        zi_vae model;
        open_golden_vae(c->folder, c->folder, &store, &model);
        for (int k = 0; k < 3; k++) {
            char size[16];
            snprintf(size, sizeof size, "%dx%d", c->rows[k], c->columns[k]);
            check_encoder(&model, golden, size, compute);
            if (model.config.patch > 1)
                check_flux2_decoder(&model, golden, size, c->rows[k], c->columns[k], compute);
        }
        ok(zi_table(gpu)->forget_weights(gpu));
        zi_vae_free(&model);
        zi_store_free(store);
        zi_store_free(golden);
    }
    close_gpu();
}

static void float32_vaes(void **state)
{
    check_vaes(ZIMAGE_COMPUTE_F32);
}

static void bf16_vaes(void **state)
{
    check_vaes(ZIMAGE_COMPUTE_BF16);
}

/* ---- the FLUX.2 transformer -------------------------------------------------------------------------------------- */

/* Of the largest number of the output. e4m3 has four bits of precision less than bf16; the embedders, the last layer
 * and all sums keep theirs. The largest error is 0.08. */
#define FLUX2_FP8_BOUND 0.12
#define FLUX2_TIMES     3 /* a forward pass: the last one is a recording */

/* Without references, with one, with one that passes once, then larger ones. An emulated GPU is too slow for all of
 * them in each compute type. */
static const char *const emulated_flux2[] = {"none", "one", "kv_one", "two", "long", "kv_two"};

typedef struct flux2_check {
    zimage_compute compute;
    const char *name;
    double bound; /* of parity with diffusers in float32; 0: errors are compared with those of diffusers in bf16 */
    int emulated; /* so many of emulated_flux2 */
} flux2_check;

static void check_flux2(const flux2_check *check)
{
    zi_store *store, *golden = fixture_open("flux2.safetensors");
    zi_flux2_dit model;
    char backend[32];
    flux2_comparison all = {.backend = backend};
    snprintf(backend, sizeof backend, "%s %s", operations ? "emulated GPU" : "cuda", check->name);
    open_flux2(&store, &model);
    (void)open_gpu(&(zi_cuda_options){.compute = check->compute});
    for (int i = 0; i < (operations ? check->emulated : FLUX2_CASES); i++) {
        const flux2_case *c = operations ? flux2_case_of(emulated_flux2[i]) : &flux2_cases[i];
        if (check->bound > 0)
            flux2_compare(&model, gpu, golden, backend, c, FLUX2_TIMES, check->bound);
        else
            flux2_compare_errors(&model, gpu, golden, c, FLUX2_TIMES, &all);
    }
    if (check->bound == 0)
        flux2_end_errors(&all);
    close_gpu();
    zi_flux2_dit_free(&model);
    zi_store_free(store);
    zi_store_free(golden);
}

static void float32_flux2(void **state)
{
    check_flux2(&(flux2_check){ZIMAGE_COMPUTE_F32, "f32", F32_BOUND, 3});
}

static void bf16_flux2_errs_no_more_than_the_reference(void **state)
{
    check_flux2(&(flux2_check){ZIMAGE_COMPUTE_BF16, "bf16", 0, is_brief() ? 4 : FLUX2_CASES});
}

static void fp8_flux2(void **state)
{
    if (first_gpu.major != 9 || first_gpu.minor != 0)
        skip();
    check_flux2(&(flux2_check){ZIMAGE_COMPUTE_FP8, "fp8", FLUX2_FP8_BOUND, 3});
}

/* test_cuda_networks [PATTERN]: only the tests that it matches. */
int main(int argc, char **argv)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(float32_vaes),  cmocka_unit_test(bf16_vaes),
        cmocka_unit_test(float32_flux2), cmocka_unit_test(bf16_flux2_errs_no_more_than_the_reference),
        cmocka_unit_test(fp8_flux2),
    };
    const char *why = why_not();
    if (why) {
        printf("skipped: no device: %s\n", why);
        return SKIPPED;
    }
    if (argc > 1)
        cmocka_set_test_filter(argv[1]);
    return cmocka_run_group_tests(tests, make_temporary_folder, remove_temporary_folder);
}
