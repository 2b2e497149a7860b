/* Images that the tiny model makes from images, against diffusers' (tests/golden/img2img.safetensors). */
#ifndef ZI_TESTS_IMG2IMG_H
#define ZI_TESTS_IMG2IMG_H

#include "fixture.h"
#include "session.h"

#define IMG2IMG_TOLERANCE 5e-5 /* of latents, relative; measured: 2e-6 */

static const char *const img2img_sizes[] = {"wide", "tall", "low"};

/* A run of the reference. Its tensors begin with the name of the size and that of the case. */
typedef struct img2img_case {
    const char *name;
    double strength;
    int masked;
} img2img_case;

static const img2img_case img2img_cases[] = {
    {"change0.3", 0.3, 0}, {"change0.6", 0.6, 0}, {"change1.0", 1, 0}, {"repaint0.6", 0.6, 1}, {"repaint1.0", 1, 1},
};
#define IMG2IMG_CASES (sizeof img2img_cases / sizeof *img2img_cases)

static inline zimage_session *img2img_session(const char *device, zimage_compute compute, int reference,
                                              const char *scheduler)
{
    zimage_error error = ZIMAGE_ERROR_INIT;
    const zimage_model_params model = {.struct_size = sizeof model, .scheduler = scheduler};
    const zimage_session_params params = {
        .struct_size = sizeof params, .device = device, .compute = compute, .reference = reference};
    zimage_session *session = NULL;
    if (session_on(ZIMAGE_TEST_DATA "/tiny", &model, &params, &session, &error) != ZIMAGE_OK)
        fail_msg("%s", error.message);
    return session;
}

static inline const zi_weight *img2img_find(const zi_store *store, const char *one, const char *two)
{
    char key[96];
    snprintf(key, sizeof key, "%s.%s", one, two);
    return fixture_find(store, key);
}

/* An image of the file; the caller frees it. */
static inline zimage_image *img2img_image(const zi_store *store, const char *size, const char *what)
{
    const zi_weight *pixels = img2img_find(store, size, what);
    zimage_error error = ZIMAGE_ERROR_INIT;
    zimage_image *image = NULL;
    int32_t height = (int32_t)pixels->shape[0], width = (int32_t)pixels->shape[1];
    if (zimage_image_from_pixels(pixels->data, width, height, (size_t)width * 3, 3, &image, &error) != ZIMAGE_OK)
        fail_msg("%s", error.message);
    return image;
}

/* A text of the file; free() it. */
static inline char *img2img_text(const zi_store *store, const char *name)
{
    const zi_weight *bytes = fixture_find(store, name);
    char *text = calloc(bytes->bytes + 1, 1);
    assert_non_null(text);
    memcpy(text, bytes->data, bytes->bytes);
    return text;
}

static inline int img2img_count_steps(const zimage_progress *p, void *user)
{
    int *steps = user;
    if (p->stage == ZIMAGE_STAGE_DENOISE && p->step > *steps) {
        *steps = p->step;
        assert_true(p->step <= p->steps);
    }
    return 0;
}

/* Runs a request and compares it with the reference's case, "wide.change0.6". */
static inline void img2img_compare(zimage_session *session, const char *backend, const zi_store *store,
                                   zimage_request *request, const char *name)
{
    zimage_error error = ZIMAGE_ERROR_INIT;
    zimage_image *made = NULL;
    int steps = 0;
    int32_t expected;
    request->progress = img2img_count_steps;
    request->progress_user = &steps;
    if (zimage_generate(session, request, &made, &error) != ZIMAGE_OK)
        fail_msg("%s: %s", name, error.message);
    memcpy(&expected, img2img_find(store, name, "steps")->data, sizeof expected);
    assert_int_equal(steps, expected);
    const zi_weight *rgb = img2img_find(store, name, "rgb");
    assert_int_equal(zimage_image_height(made), rgb->shape[0]);
    assert_int_equal(zimage_image_width(made), rgb->shape[1]);
    char key[96], stage[128];
    size_t count;
    snprintf(key, sizeof key, "%s.latents", name);
    snprintf(stage, sizeof stage, "%s: image from an image, latents: %s", backend, name);
    float *latents = fixture_floats(store, key, &count);
    parity(stage, zimage_image_latents(made, NULL), latents, count, IMG2IMG_TOLERANCE);
    snprintf(stage, sizeof stage, "from an image, %s", name);
    parity_bytes(backend, stage, zimage_image_pixels(made), rgb->data, rgb->bytes);
    free(latents);
    zimage_image_free(made);
}

/* All cases of a size. */
static inline void img2img_size(zimage_session *session, const char *backend, const zi_store *store, const char *size)
{
    zimage_image *image = img2img_image(store, size, "image"), *mask = img2img_image(store, size, "mask");
    char *prompt = img2img_text(store, "prompt");
    const zimage_image *images[] = {image};
    for (size_t i = 0; i < IMG2IMG_CASES; i++) {
        zimage_request request = {.struct_size = sizeof request, .prompt = prompt, .seed = 42, .steps = 8};
        char name[64];
        request.images = images;
        request.image_count = 1;
        request.mask = img2img_cases[i].masked ? mask : NULL;
        request.strength = img2img_cases[i].strength;
        snprintf(name, sizeof name, "%s.%s", size, img2img_cases[i].name);
        img2img_compare(session, backend, store, &request, name);
    }
    free(prompt);
    zimage_image_free(image);
    zimage_image_free(mask);
}

#endif
