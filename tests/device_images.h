/*
 * Whole images of the tiny models by a device, against the CPU backend's in float32: what the tests of the backends in
 * libraries of their own share.
 */
#ifndef ZI_TESTS_DEVICE_IMAGES_H
#define ZI_TESTS_DEVICE_IMAGES_H

#include "files.h"
#include "img2img.h"
#include "program.h"

#define TINY ZIMAGE_TEST_DATA "/tiny"

#define ARGUMENTS(...) ((const char *const[]){__VA_ARGS__, NULL})

static outcome o; /* of the last program */

/* The device under test. */
typedef struct device {
    const char *name;  /* as zimage_session_params.device */
    const char *label; /* in the table of parity */
} device;

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

/* name NULL is the CPU. */
static inline zimage_session *open_model(const char *model, const char *name, zimage_compute compute)
{
    zimage_error error = ZIMAGE_ERROR_INIT;
    zimage_session_params params = {.struct_size = sizeof params, .device = name, .compute = compute};
    zimage_session *session = NULL;
    if (session_on(model, NULL, &params, &session, &error) != ZIMAGE_OK)
        fail_msg("%s", error.message);
    return session;
}

static inline zimage_request request_of(const image_case *p)
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

static inline zimage_image *generate(zimage_session *session, const image_case *p)
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
static inline void compare(const device *d, const char *name, const zimage_image *ours, const zimage_image *reference,
                           const bounds *most)
{
    int64_t shape[3];
    const float *a = zimage_image_latents(ours, shape), *b = zimage_image_latents(reference, shape);
    const uint8_t *p = zimage_image_pixels(ours), *q = zimage_image_pixels(reference);
    size_t bytes = (size_t)zimage_image_width(ours) * (size_t)zimage_image_height(ours) * 3;
    int worst = 0;
    char line[96];
    snprintf(line, sizeof line, "%s: image latents, %s", d->label, name);
    parity(line, a, b, (size_t)(shape[0] * shape[1] * shape[2]), most->latents);
    for (size_t i = 0; i < bytes; i++)
        worst = abs((int)p[i] - q[i]) > worst ? abs((int)p[i] - q[i]) : worst;
    snprintf(line, sizeof line, "%s: image pixels, %s", d->label, name);
    parity_line(line, worst, most->bytes, "");
}

/* The first images; after several the first one again: what they left in memory must not matter. */
static inline void compare_images(const device *d, const char *model, const char *name, zimage_compute compute,
                                  int count, const bounds *most)
{
    zimage_session *cpu = open_model(model, NULL, ZIMAGE_COMPUTE_F32), *gpu = open_model(model, d->name, compute);
    for (int i = 0; i < count + (count > 1); i++) {
        const image_case *p = &image_cases[i % count];
        char stage[64];
        snprintf(stage, sizeof stage, "%s: %d, %d x %d", name, i, (int)p->width, (int)p->height);
        zimage_image *ours = generate(gpu, p), *reference = generate(cpu, p);
        compare(d, stage, ours, reference, most);
        zimage_image_free(ours);
        zimage_image_free(reference);
    }
    zimage_session_close(gpu);
    zimage_session_close(cpu);
}

typedef struct watch {
    int calls, cancel_at;
} watch;

static inline int count_calls(const zimage_progress *progress, void *user)
{
    watch *w = user;
    (void)progress;
    return ++w->calls == w->cancel_at;
}

/* A job that was cancelled half way leaves the backend as it was. */
static inline void cancel_images(const device *d)
{
    zimage_session *cpu = open_model(TINY, NULL, ZIMAGE_COMPUTE_F32),
                   *gpu = open_model(TINY, d->name, ZIMAGE_COMPUTE_F32);
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
    compare(d, "f32: after cancelled runs", ours, reference, &same);
    zimage_image_free(ours);
    zimage_image_free(reference);
    zimage_session_close(gpu);
    zimage_session_close(cpu);
}

/* ---- the program ------------------------------------------------------------------------------------------------- */

/* The program refuses the arguments with both words, and leaves no image. */
static inline void expect_refused(const char *const *arguments, const char *word1, const char *word2)
{
    run_program(arguments, &o);
    if (o.code == 0 || o.code >= 126)
        fail_msg("exit code %d, expected a refusal; stderr: %s", o.code, o.err);
    assert_contains(o.err, word1);
    assert_contains(o.err, word2);
    assert_int_equal(access(in_folder("a.png"), F_OK), -1);
}

/* A weight of each block that is not finite, in float32 and in bf16: the message names the block. */
static inline void spoil_blocks(const device *d)
{
    static const char *const computes[] = {"f32", "bf16"};
    for (size_t i = 0; i < SPOILED; i++) {
        const char *model = copy_model("spoiled");
        spoil_weight(model, spoiled[i].file, spoiled[i].tensor, spoiled[i].value);
        expect_refused(ARGUMENTS("generate", "a", "-m", model, "-o", "a.png", "-W", "16", "-H", "16", "--steps", "1",
                                 "--device", d->name, "--compute", computes[i % 2]),
                       spoiled[i].block, "NaN");
    }
}

#endif
