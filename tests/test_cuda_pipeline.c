/*
 * Whole images of the tiny models by the CUDA backend on the emulated GPU, whose library lies beside this program,
 * against the CPU backend's in float32. Then the messages where the GPU's memory is short or activations are not
 * finite.
 */
#include "files.h"
#include "img2img.h"
#include "program.h"

#define ARGUMENTS(...) ((const char *const[]){__VA_ARGS__, NULL})
#define TINY           ZIMAGE_TEST_DATA "/tiny"

static outcome o;

typedef struct image_case {
    const char *prompt, *negative;
    int32_t width, height, steps;
    float guidance;
} image_case;

static const image_case image_cases[] = {
    {"a red apple", NULL, 32, 32, 2, 0},
    {"\xe7\xba\xa2\xe8\x8b\xb9\xe6\x9e\x9c", NULL, 80, 16, 1, 0},
    {"a green pear on a table", "an apple", 32, 16, 2, 4},
};

/* device NULL is the CPU. */
static zimage_session *open_model(const char *model, const char *device, zimage_compute compute)
{
    zimage_error error = ZIMAGE_ERROR_INIT;
    zimage_session_params params = {.struct_size = sizeof params, .device = device, .compute = compute};
    zimage_session *session = NULL;
    if (session_on(model, NULL, &params, &session, &error) != ZIMAGE_OK)
        fail_msg("%s", error.message);
    return session;
}

static zimage_request request_of(const image_case *p)
{
    zimage_request request = {.struct_size = sizeof request};
    request.prompt = p->prompt;
    request.negative_prompt = p->negative;
    request.width = p->width;
    request.height = p->height;
    request.steps = p->steps;
    request.guidance_scale = p->guidance;
    request.seed = 7;
    return request;
}

static zimage_image *generate(zimage_session *session, const image_case *p)
{
    zimage_error error = ZIMAGE_ERROR_INIT;
    zimage_request request = request_of(p);
    zimage_image *image = NULL;
    if (zimage_generate(session, &request, &image, &error) != ZIMAGE_OK)
        fail_msg("%s", error.message);
    return image;
}

#define IMAGE_CASES ((int)(sizeof image_cases / sizeof *image_cases))

typedef struct bounds {
    double latents; /* the largest error as a share of the largest value */
    int bytes;      /* of the pixels, the largest difference */
} bounds;

/* The same float32 arithmetic, summed in another order: the bound of test_pipeline.c. */
static const bounds same = {2e-5, 2};
/* Activations are stored with 8 bits of precision, some 50 times a step. The largest errors, 0.023 and 6, are those
 * with guidance 4. */
static const bounds near_bf16 = {0.03, 10};
/* Operands have 4 bits of precision; their errors of up to 2^-4 average out in sums. The largest errors of images are
 * 0.063 and 15. */
static const bounds near_fp8 = {0.1, 25};

static void compare(const char *name, const zimage_image *ours, const zimage_image *reference, const bounds *most)
{
    int64_t shape[3];
    const float *a = zimage_image_latents(ours, shape), *b = zimage_image_latents(reference, shape);
    const uint8_t *p = zimage_image_pixels(ours), *q = zimage_image_pixels(reference);
    size_t bytes = (size_t)zimage_image_width(ours) * (size_t)zimage_image_height(ours) * 3;
    int worst = 0;
    char line[96];
    snprintf(line, sizeof line, "emulated GPU: image latents, %s", name);
    parity(line, a, b, (size_t)(shape[0] * shape[1] * shape[2]), most->latents);
    for (size_t i = 0; i < bytes; i++)
        worst = abs((int)p[i] - q[i]) > worst ? abs((int)p[i] - q[i]) : worst;
    snprintf(line, sizeof line, "emulated GPU: image pixels, %s", name);
    parity_line(line, worst, most->bytes, "");
}

/* The first images; after several the first one again: what they left in device memory must not matter. */
static void compare_images(const char *model, const char *name, zimage_compute compute, int count, const bounds *most)
{
    zimage_session *cpu = open_model(model, NULL, ZIMAGE_COMPUTE_F32), *gpu = open_model(model, "cuda", compute);
    for (int i = 0; i < count + (count > 1); i++) {
        const image_case *p = &image_cases[i % count];
        char stage[64];
        snprintf(stage, sizeof stage, "%s: %d, %d x %d", name, i, (int)p->width, (int)p->height);
        zimage_image *ours = generate(gpu, p), *reference = generate(cpu, p);
        compare(stage, ours, reference, most);
        zimage_image_free(ours);
        zimage_image_free(reference);
    }
    zimage_session_close(gpu);
    zimage_session_close(cpu);
}

static void float32_is_the_same_image(void **state)
{
    compare_images(TINY, "f32", ZIMAGE_COMPUTE_F32, IMAGE_CASES, &same);
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
    compare_images(TINY, "bf16", ZIMAGE_COMPUTE_BF16, IMAGE_CASES, &near_bf16);
}

static void fp8_is_near(void **state)
{
    compare_images(TINY, "fp8", ZIMAGE_COMPUTE_FP8, 1, &near_fp8);
}

/* 4 bits, and 8. */
static void packed_models_are_the_same_image(void **state)
{
    compare_images(packed_model("uqer1244"), "q4, f32", ZIMAGE_COMPUTE_F32, 1, &same);
    compare_images(packed_model("mflux"), "q8, f32", ZIMAGE_COMPUTE_F32, 1, &same);
    compare_images(packed_model("uqer1244"), "q4, bf16", ZIMAGE_COMPUTE_BF16, 1, &near_bf16);
    compare_images(packed_model("mflux"), "q8, fp8", ZIMAGE_COMPUTE_FP8, 1, &near_fp8);
}

typedef struct watch {
    int calls, cancel_at;
} watch;

static int count_calls(const zimage_progress *progress, void *user)
{
    watch *w = user;
    (void)progress;
    return ++w->calls == w->cancel_at;
}

/* A job that was cancelled half way leaves the backend as it was. */
static void cancelling_leaves_the_gpu_usable(void **state)
{
    zimage_session *cpu = open_model(TINY, NULL, ZIMAGE_COMPUTE_F32),
                   *gpu = open_model(TINY, "cuda", ZIMAGE_COMPUTE_F32);
    zimage_image *reference = generate(cpu, &image_cases[0]);
    for (int at = 2; at < 18; at += 5) {
        zimage_error error = ZIMAGE_ERROR_INIT;
        zimage_request request = request_of(&image_cases[0]);
        zimage_image *image = NULL;
        watch w = {.cancel_at = at};
        request.progress = count_calls;
        request.progress_user = &w;
        assert_int_equal(zimage_generate(gpu, &request, &image, &error), ZIMAGE_ERROR_CANCELLED);
    }
    zimage_image *ours = generate(gpu, &image_cases[0]);
    compare("f32: after cancelled runs", ours, reference, &same);
    zimage_image_free(ours);
    zimage_image_free(reference);
    zimage_session_close(gpu);
    zimage_session_close(cpu);
}

/* ---- the program ------------------------------------------------------------------------------------------------- */

static void expect_refused(const char *const *arguments, const char *word1, const char *word2)
{
    run_program(arguments, &o);
    if (o.code == 0 || o.code >= 126)
        fail_msg("exit code %d, expected a refusal; stderr: %s", o.code, o.err);
    assert_contains(o.err, word1);
    assert_contains(o.err, word2);
    assert_int_equal(access(in_folder("a.png"), F_OK), -1);
}

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
    static const char *const computes[] = {"f32", "bf16"};
    for (size_t i = 0; i < SPOILED; i++) {
        const char *model = copy_model("spoiled");
        spoil_weight(model, spoiled[i].file, spoiled[i].tensor, spoiled[i].value);
        expect_refused(ARGUMENTS("generate", "a", "-m", model, "-o", "a.png", "-W", "16", "-H", "16", "--steps", "1",
                                 "--device", "cuda", "--compute", computes[i % 2]),
                       spoiled[i].block, "NaN");
    }
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
