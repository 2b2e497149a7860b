/*
 * Whole images of the tiny models by the CUDA backend on the emulated GPU, whose library lies beside this program,
 * against the CPU backend's in float32. Then the messages where the GPU's memory is short or activations are not
 * finite.
 */
#include "device_images.h"

static const device cuda = {"cuda", "emulated GPU"};

/* Operands have 4 bits of precision; their errors of up to 2^-4 average out in sums. The largest errors of images are
 * 0.063 and 15. */
static const bounds near_fp8 = {0.1, 25};

static void float32_is_the_same_image(void **state)
{
    compare_images(&cuda, TINY, "f32", ZIMAGE_COMPUTE_F32, IMAGE_CASES, &same);
}

/* Images from images and with masks: against the reference itself. */
static void float32_from_images_equals_the_reference(void **state)
{
    zi_store *store = fixture_open("img2img.safetensors");
    zimage_session *gpu = img2img_session("cuda", ZIMAGE_COMPUTE_F32, 0, NULL);
    img2img_size(gpu, "emulated GPU", store, "low");
    zimage_session_close(gpu);
    zi_store_free(store);
}

static void bf16_is_near(void **state)
{
    compare_images(&cuda, TINY, "bf16", ZIMAGE_COMPUTE_BF16, IMAGE_CASES, &near_bf16);
}

static void fp8_is_near(void **state)
{
    compare_images(&cuda, TINY, "fp8", ZIMAGE_COMPUTE_FP8, 1, &near_fp8);
}

/* 4 bits, and 8. */
static void packed_models_are_the_same_image(void **state)
{
    compare_images(&cuda, packed_model("uqer1244"), "q4, f32", ZIMAGE_COMPUTE_F32, 1, &same);
    compare_images(&cuda, packed_model("mflux"), "q8, f32", ZIMAGE_COMPUTE_F32, 1, &same);
    compare_images(&cuda, packed_model("uqer1244"), "q4, bf16", ZIMAGE_COMPUTE_BF16, 1, &near_bf16);
    compare_images(&cuda, packed_model("mflux"), "q8, fp8", ZIMAGE_COMPUTE_FP8, 1, &near_fp8);
}

static void cancelling_leaves_the_gpu_usable(void **state)
{
    cancel_images(&cuda);
}

/* ---- the program ------------------------------------------------------------------------------------------------- */

static void the_program_finds_the_gpu(void **state)
{
    run_program(ARGUMENTS("devices"), &o);
    assert_int_equal(o.code, 0);
    assert_contains(o.out, "emulated");
    run_program(ARGUMENTS("generate", "a", "-m", TINY, "-o", "b.png", "-W", "32", "-H", "32", "--steps", "1",
                          "--device", "auto"),
                &o);
    if (o.code)
        fail_msg("%s", o.err);
    expect_refused(ARGUMENTS("generate", "a", "-m", TINY, "-o", "a.png", "--device", "cuda:1"), "cuda:1", "1 GPU");
}

/* On GPUs of several sizes: a sentence with numbers, or an image. */
static void out_of_memory_is_reported(void **state)
{
    static const struct {
        const char *mib, *needed;
    } cases[] = {
        {"1", "a workspace needs 64 MiB, 1 of 1 MiB are free"},
        {"64", "flags needs 1 MiB, 0 of 64 MiB are free"},
        {"65", "MiB may be taken"},
        {"74", NULL},
        {"400", NULL},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        const char *const arguments[] = {"generate", "a",  "-m",      TINY, "-o",       "a.png", "-W", "32",
                                         "-H",       "32", "--steps", "1",  "--device", "cuda",  "-q", NULL};
        setenv("ZIMAGE_EMULATED_MIB", cases[i].mib, 1);
        if (cases[i].needed) {
            expect_refused(arguments, "cuda:0: out of device memory: ", cases[i].needed);
            continue;
        }
        run_program(arguments, &o);
        if (o.code)
            fail_msg("%s MiB: %s", cases[i].mib, o.err);
        unlink(in_folder("a.png"));
    }
    unsetenv("ZIMAGE_EMULATED_MIB");
}

static void not_finite_names_the_block(void **state)
{
    spoil_blocks(&cuda);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(float32_is_the_same_image),
        cmocka_unit_test(float32_from_images_equals_the_reference),
        cmocka_unit_test(bf16_is_near),
        cmocka_unit_test(fp8_is_near),
        cmocka_unit_test(packed_models_are_the_same_image),
        cmocka_unit_test(cancelling_leaves_the_gpu_usable),
        cmocka_unit_test(the_program_finds_the_gpu),
        cmocka_unit_test(out_of_memory_is_reported),
        cmocka_unit_test(not_finite_names_the_block),
    };
    return cmocka_run_group_tests(tests, folder_make, folder_remove);
}
