/*
 * Whole pictures of the tiny models by the CUDA table on the emulated card, whose library lies beside this program, against
 * the CPU table's in float32; then what a user is told when the card's memory ends or a network's numbers do.
 */
#include "files.h"
#include "fixture.h"
#include "program.h"

#define ARGUMENTS(...) ((const char *const[]){__VA_ARGS__, NULL})
#define TINY           ZIMAGE_TEST_DATA "/tiny"

static outcome o;

typedef struct scene {
    const char *prompt, *negative;
    int32_t width, height, steps;
    float guidance;
} scene;

static const scene scenes[] = {
    {"a red apple", NULL, 32, 32, 2, 0},
    {"\xe7\xba\xa2\xe8\x8b\xb9\xe6\x9e\x9c", NULL, 80, 16, 1, 0},
    {"a green pear on a table", "an apple", 32, 16, 2, 4},
};

/* Whole pictures: device NULL is the CPU. */
static zimage_context *open_model(const char *model, const char *device, zimage_compute compute)
{
    zimage_error error = ZIMAGE_ERROR_INIT;
    zimage_open_params params;
    zimage_context *context = NULL;
    zimage_open_params_init(&params);
    params.compute = compute;
    params.device = device;
    if (zimage_open(model, &params, &context, &error) != ZIMAGE_OK)
        fail_msg("%s", error.message);
    return context;
}

static void request_scene(const zimage_context *context, zimage_request *request, const scene *s)
{
    zimage_request_init(context, request);
    request->prompt = s->prompt;
    request->negative_prompt = s->negative;
    request->width = s->width;
    request->height = s->height;
    request->steps = s->steps;
    request->guidance_scale = s->guidance;
    request->seed = 7;
}

static zimage_image *paint(zimage_context *context, const scene *s)
{
    zimage_error error = ZIMAGE_ERROR_INIT;
    zimage_request request;
    zimage_image *image = NULL;
    request_scene(context, &request, s);
    if (zimage_generate(context, &request, &image, &error) != ZIMAGE_OK)
        fail_msg("%s", error.message);
    return image;
}

#define SCENES ((int)(sizeof scenes / sizeof *scenes))

typedef struct bounds {
    double latents; /* the largest error as a share of the largest value */
    int bytes;      /* of the picture, the largest difference */
} bounds;

/* The same float32 arithmetic, summed in another order: the bound of test_pipeline.c. */
static const bounds same = {2e-5, 2};
/* Activations are stored with 8 bits of precision, some 50 times a step; guidance of 4 makes of it up to 0.023 and 6. */
static const bounds near_bf16 = {0.03, 10};
/* Operands have 4 bits, and errors of up to 2^-4 that average out in sums: up to 0.063 and 15. */
static const bounds near_fp8 = {0.1, 25};

static void compare(const char *stage, const zimage_image *ours, const zimage_image *reference, const bounds *most)
{
    int64_t shape[3];
    const float *a = zimage_image_latents(ours, shape), *b = zimage_image_latents(reference, shape);
    const uint8_t *p = zimage_image_pixels(ours), *q = zimage_image_pixels(reference);
    size_t bytes = (size_t)zimage_image_width(ours) * (size_t)zimage_image_height(ours) * 3;
    int worst = 0;
    parity(stage, a, b, (size_t)(shape[0] * shape[1] * shape[2]), most->latents);
    for (size_t i = 0; i < bytes; i++)
        worst = abs((int)p[i] - q[i]) > worst ? abs((int)p[i] - q[i]) : worst;
    printf("parity | %-44s | bytes off by at most %d, allowed %d\n", stage, worst, most->bytes);
    assert_true(worst <= most->bytes);
}

/* The first scenes; behind several the first one again: what they left on the card must not matter. */
static void compare_scenes(const char *model, const char *name, zimage_compute compute, int count, const bounds *most)
{
    zimage_context *cpu = open_model(model, NULL, ZIMAGE_COMPUTE_F32), *card = open_model(model, "cuda", compute);
    for (int i = 0; i < count + (count > 1); i++) {
        const scene *s = &scenes[i % count];
        char stage[64];
        snprintf(stage, sizeof stage, "card, %s, %d x %d", name, (int)s->width, (int)s->height);
        zimage_image *ours = paint(card, s), *reference = paint(cpu, s);
        compare(stage, ours, reference, most);
        zimage_image_free(ours);
        zimage_image_free(reference);
    }
    zimage_close(card);
    zimage_close(cpu);
}

static void float32_is_the_same_picture(void **state)
{
    compare_scenes(TINY, "f32", ZIMAGE_COMPUTE_F32, SCENES, &same);
}

static void bf16_is_near(void **state)
{
    compare_scenes(TINY, "bf16", ZIMAGE_COMPUTE_BF16, SCENES, &near_bf16);
}

static void fp8_is_near(void **state)
{
    compare_scenes(TINY, "fp8", ZIMAGE_COMPUTE_FP8, 1, &near_fp8);
}

/* 4 bits, and 8. */
static void packed_models_are_the_same_picture(void **state)
{
    compare_scenes(packed_model("uqer1244"), "q4, f32", ZIMAGE_COMPUTE_F32, 1, &same);
    compare_scenes(packed_model("mflux"), "q8, f32", ZIMAGE_COMPUTE_F32, 1, &same);
    compare_scenes(packed_model("uqer1244"), "q4, bf16", ZIMAGE_COMPUTE_BF16, 1, &near_bf16);
    compare_scenes(packed_model("mflux"), "q8, fp8", ZIMAGE_COMPUTE_FP8, 1, &near_fp8);
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

/* A picture that was given up half way leaves the card as it was. */
static void cancelling_leaves_the_card_usable(void **state)
{
    zimage_context *cpu = open_model(TINY, NULL, ZIMAGE_COMPUTE_F32),
                   *card = open_model(TINY, "cuda", ZIMAGE_COMPUTE_F32);
    zimage_image *reference = paint(cpu, &scenes[0]);
    for (int at = 2; at < 18; at += 5) {
        zimage_error error = ZIMAGE_ERROR_INIT;
        zimage_request request;
        zimage_image *image = NULL;
        watch w = {.cancel_at = at};
        request_scene(card, &request, &scenes[0]);
        request.progress = count_calls;
        request.progress_user = &w;
        assert_int_equal(zimage_generate(card, &request, &image, &error), ZIMAGE_ERROR_CANCELLED);
    }
    zimage_image *ours = paint(card, &scenes[0]);
    compare("card, after cancelled runs", ours, reference, &same);
    zimage_image_free(ours);
    zimage_image_free(reference);
    zimage_close(card);
    zimage_close(cpu);
}

/* ---- the program --------------------------------------------------------------------------------------------------- */

static void expect_refused(const char *const *arguments, const char *word1, const char *word2)
{
    run_program(arguments, &o);
    if (o.code == 0 || o.code >= 126)
        fail_msg("exit code %d, expected a refusal; stderr: %s", o.code, o.err);
    assert_contains(o.err, word1);
    assert_contains(o.err, word2);
    assert_int_equal(access(in_folder("a.png"), F_OK), -1);
}

static void the_program_finds_the_card(void **state)
{
    run_program(ARGUMENTS("devices"), &o);
    assert_int_equal(o.code, 0);
    assert_contains(o.out, "emulated");
    run_program(ARGUMENTS("generate", "a", "-m", TINY, "-o", "b.png", "-W", "32", "-H", "32", "--steps", "1",
                          "--device", "auto"),
                &o);
    if (o.code)
        fail_msg("%s", o.err);
    expect_refused(ARGUMENTS("generate", "a", "-m", TINY, "-o", "a.png", "--device", "cuda:1"), "cuda:1", "1 card");
}

/* On cards of several sizes: a sentence with numbers, or a picture. */
static void out_of_memory_is_told(void **state)
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
        cmocka_unit_test(float32_is_the_same_picture),
        cmocka_unit_test(bf16_is_near),
        cmocka_unit_test(fp8_is_near),
        cmocka_unit_test(packed_models_are_the_same_picture),
        cmocka_unit_test(cancelling_leaves_the_card_usable),
        cmocka_unit_test(the_program_finds_the_card),
        cmocka_unit_test(out_of_memory_is_told),
        cmocka_unit_test(not_finite_names_the_block),
    };
    return cmocka_run_group_tests(tests, folder_make, folder_remove);
}
