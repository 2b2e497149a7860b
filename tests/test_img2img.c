/* Images from images, with and without a mask, against diffusers' ZImageImg2ImgPipeline and ZImageInpaintPipeline. */
#include "img2img.h"
#include "sampler/flow_match.h"
#include "sampler/noise.h"

static zi_store *golden;

static int open_golden(void **state)
{
    golden = fixture_open("img2img.safetensors");
    return 0;
}

static int close_golden(void **state)
{
    zi_store_free(golden);
    return 0;
}

static void images_equal_the_reference(void **state)
{
    for (int reference = 0; reference < 2; reference++) {
        zimage_session *session = img2img_session(NULL, ZIMAGE_COMPUTE_F32, reference, NULL);
        for (int i = 0; i < 3; i++)
            img2img_size(session, reference ? "reference" : "cpu", golden, img2img_sizes[i]);
        zimage_session_close(session);
    }
}

/* A model that is not distilled, with everything that guidance has. */
static void guided_images_equal_the_reference(void **state)
{
    zimage_session *session = img2img_session(NULL, ZIMAGE_COMPUTE_F32, 0, ZIMAGE_TEST_DATA "/tiny-base/scheduler");
    char *prompt = img2img_text(golden, "prompt"), *negative = img2img_text(golden, "negative");
    for (int i = 0; i < 3; i++) {
        zimage_image *image = img2img_image(golden, img2img_sizes[i], "image");
        const zimage_image *images[] = {image};
        zimage_request request = {.struct_size = sizeof request, .prompt = prompt, .seed = 42, .steps = 10};
        char name[64];
        request.negative_prompt = negative;
        request.guidance_scale = 5;
        request.cfg_truncation = 0.7;
        request.cfg_normalization = 1;
        request.images = images;
        request.image_count = 1;
        request.strength = 0.6;
        snprintf(name, sizeof name, "%s.base", img2img_sizes[i]);
        img2img_compare(session, "cpu", golden, &request, name);
        zimage_image_free(image);
    }
    free(prompt);
    free(negative);
    zimage_session_close(session);
}

/* A request's own size: the image is resized to it. Its strength of 0 is the default, 0.6. */
static void an_image_is_resized_to_the_size_of_the_request(void **state)
{
    zimage_session *session = img2img_session(NULL, ZIMAGE_COMPUTE_F32, 0, NULL);
    zimage_image *image = img2img_image(golden, "wide", "image");
    const zimage_image *images[] = {image};
    char *prompt = img2img_text(golden, "prompt");
    zimage_request request = {.struct_size = sizeof request, .prompt = prompt, .seed = 42, .steps = 8};
    request.images = images;
    request.image_count = 1;
    request.width = 48;
    request.height = 32;
    img2img_compare(session, "cpu", golden, &request, "sized");
    free(prompt);
    zimage_image_free(image);
    zimage_session_close(session);
}

/* What is transparent in the mask is repainted, whatever its colour; if nothing is transparent, what is white. */
static void transparent_parts_of_a_mask_are_repainted(void **state)
{
    zimage_session *session = img2img_session(NULL, ZIMAGE_COMPUTE_F32, 0, NULL);
    zimage_image *image = img2img_image(golden, "tall", "image"), *mask = img2img_image(golden, "tall", "mask");
    int32_t width = zimage_image_width(mask), height = zimage_image_height(mask);
    const zimage_image *images[] = {image};
    char *prompt = img2img_text(golden, "prompt");
    uint8_t *rgba = malloc((size_t)width * (size_t)height * 4);
    zimage_error error = ZIMAGE_ERROR_INIT;
    zimage_image *made[2], *masks[2];
    for (int k = 0; k < 2; k++) { /* black and white by luminance; then by transparency, in any colour */
        for (int32_t i = 0; i < width * height; i++) {
            const uint8_t *rgb = zimage_image_pixels(mask) + 3 * i;
            uint8_t white = rgb[0] > 127 ? 255 : 0;
            memset(rgba + 4 * i, k == 0 ? white : i % 256, 3);
            rgba[4 * i + 3] = k == 0 ? 255 : 255 - white;
        }
        assert_int_equal(zimage_image_from_pixels(rgba, width, height, (size_t)width * 4, 4, &masks[k], &error),
                         ZIMAGE_OK);
        zimage_request request = {.struct_size = sizeof request, .prompt = prompt, .seed = 42, .steps = 8};
        request.images = images;
        request.image_count = 1;
        request.mask = masks[k];
        request.strength = 0.6;
        assert_int_equal(zimage_generate(session, &request, &made[k], &error), ZIMAGE_OK);
    }
    size_t bytes = (size_t)zimage_image_width(made[0]) * (size_t)zimage_image_height(made[0]) * 3;
    assert_memory_equal(zimage_image_pixels(made[0]), zimage_image_pixels(made[1]), bytes);
    for (int k = 0; k < 2; k++) {
        zimage_image_free(made[k]);
        zimage_image_free(masks[k]);
    }
    free(rgba);
    free(prompt);
    zimage_image_free(image);
    zimage_image_free(mask);
    zimage_session_close(session);
}

/* The initial noise as latents and as a seed: the posterior's noise comes before it. */
static void latents_are_the_initial_noise(void **state)
{
    zimage_session *session = img2img_session(NULL, ZIMAGE_COMPUTE_F32, 0, NULL);
    zimage_image *image = img2img_image(golden, "low", "image");
    const zimage_image *images[] = {image};
    char *prompt = img2img_text(golden, "prompt");
    enum { COUNT = 4 * 2 * 6 };
    float posterior[COUNT], initial[COUNT];
    zi_noise noise;
    zi_noise_seed(&noise, ZIMAGE_RNG_TORCH_CPU, 42);
    zi_noise_next(&noise, ZI_NOISE_POSTERIOR, 0, posterior, COUNT);
    zi_noise_next(&noise, ZI_NOISE_LATENTS, 0, initial, COUNT);
    zimage_request request = {.struct_size = sizeof request, .prompt = prompt, .seed = 42, .steps = 8};
    request.images = images;
    request.image_count = 1;
    request.strength = 0.3;
    request.latents = initial;
    request.latents_count = COUNT;
    img2img_compare(session, "cpu", golden, &request, "low.change0.3");
    free(prompt);
    zimage_image_free(image);
    zimage_session_close(session);
}

typedef struct watch {
    int calls, cancel_at, previews;
    zimage_stage first;
    double fraction;
} watch;

static int watch_progress(const zimage_progress *p, void *user)
{
    watch *w = user;
    if (!w->calls++)
        w->first = p->stage;
    assert_true(p->fraction >= w->fraction - 1e-9 && p->fraction <= 1);
    w->fraction = p->fraction;
    w->previews += p->preview != NULL;
    return w->calls == w->cancel_at;
}

/* The image is encoded first. Cancelling at each call leaves a session that works. */
static void progress_and_cancelling(void **state)
{
    zimage_session *session = img2img_session(NULL, ZIMAGE_COMPUTE_F32, 0, NULL);
    zimage_image *image = img2img_image(golden, "low", "image"), *made = NULL;
    const zimage_image *images[] = {image};
    zimage_error error = ZIMAGE_ERROR_INIT;
    watch w = {0};
    zimage_request request = {.struct_size = sizeof request, .prompt = "a", .steps = 4, .preview = 1};
    request.images = images;
    request.image_count = 1;
    request.mask = image;
    request.strength = 0.5;
    request.progress = watch_progress;
    request.progress_user = &w;
    assert_int_equal(zimage_generate(session, &request, &made, &error), ZIMAGE_OK);
    assert_int_equal(w.first, ZIMAGE_STAGE_ENCODE);
    assert_int_equal(w.previews, 2);
    assert_true(fabs(w.fraction - 1) < 1e-6);
    assert_true(zimage_image_seconds(made, ZIMAGE_STAGE_ENCODE) > 0);
    zimage_image_info info = {.struct_size = sizeof info};
    assert_int_equal(zimage_image_get_info(made, &info, &error), ZIMAGE_OK);
    assert_true(info.strength == 0.5);
    for (int at = 1, calls = w.calls; at <= calls; at++) {
        zimage_image *none = NULL;
        w = (watch){.cancel_at = at};
        request.prompt = at % 2 ? "b" : "a"; /* another one each time: the encoder is needed */
        assert_int_equal(zimage_generate(session, &request, &none, &error), ZIMAGE_ERROR_CANCELLED);
        assert_null(none);
        assert_int_equal(w.calls, at);
    }
    zimage_image *again = NULL;
    w = (watch){0};
    request.prompt = "a";
    assert_int_equal(zimage_generate(session, &request, &again, &error), ZIMAGE_OK);
    assert_memory_equal(zimage_image_pixels(made), zimage_image_pixels(again), 48 * 16 * 3);
    zimage_image_free(made);
    zimage_image_free(again);
    zimage_image_free(image);
    zimage_session_close(session);
}

static double noise_of_bf16(const char *name, zi_noise *noise, zi_noise_use use)
{
    size_t count;
    float *want = fixture_floats(golden, name, &count), *ours = malloc(count * sizeof *ours);
    zi_noise_next(noise, use, 1, ours, (int64_t)count);
    double error = relative_error(ours, want, count);
    free(want);
    free(ours);
    return error;
}

/* A pipeline in bf16 draws both noises in bf16. Other noise would make another image: the latents of the run in
 * float32 are 1.1 away. */
static void bf16_draws_the_noise_of_the_reference(void **state)
{
    zi_noise noise;
    zi_noise_seed(&noise, ZIMAGE_RNG_TORCH_CPU, 42);
    parity_line("cpu: noise in bf16, of the posterior", noise_of_bf16("drawn.posterior", &noise, ZI_NOISE_POSTERIOR), 0,
                "");
    parity_line("cpu: noise in bf16, then the initial", noise_of_bf16("drawn.noise", &noise, ZI_NOISE_LATENTS), 0, "");

    zimage_session *session = img2img_session(NULL, ZIMAGE_COMPUTE_BF16, 0, NULL);
    zimage_image *image = img2img_image(golden, "wide", "image"), *made;
    const zimage_image *images[] = {image};
    char *prompt = img2img_text(golden, "prompt");
    zimage_error error = ZIMAGE_ERROR_INIT;
    zimage_request request = {.struct_size = sizeof request, .prompt = prompt, .seed = 42, .steps = 8};
    size_t count;
    float *want = fixture_floats(golden, "drawn.latents", &count);
    request.images = images;
    request.image_count = 1;
    request.strength = 0.6;
    assert_int_equal(zimage_generate(session, &request, &made, &error), ZIMAGE_OK);
    parity("cpu: image from an image, bf16, latents", zimage_image_latents(made, NULL), want, count, 0.1);
    free(want);
    free(prompt);
    zimage_image_free(made);
    zimage_image_free(image);
    zimage_session_close(session);
}

static void the_first_step_follows_from_the_strength(void **state)
{
    const zi_weight *rows = fixture_find(golden, "first_steps");
    for (int64_t i = 0; i < rows->shape[0]; i++) {
        double row[3]; /* steps, strength, first step */
        memcpy(row, (const char *)rows->data + (size_t)i * sizeof row, sizeof row);
        if (zi_first_step((int)row[0], row[1]) != (int)row[2])
            fail_msg("%g steps, strength %g: step %d, expected %g", row[0], row[1], zi_first_step((int)row[0], row[1]),
                     row[2]);
    }
}

/* In bf16 every operation is rounded as torch rounds it. */
static void steps_and_masks_equal_the_reference(void **state)
{
    static const char *const types[] = {"f32", "bf16"};
    for (int in_bf16 = 0; in_bf16 < 2; in_bf16++) {
        static const char *const names[] = {"clean",  "noise", "velocity", "weights",
                                            "sigmas", "noisy", "after",    "blended"};
        float *values[8], ours[48];
        for (int i = 0; i < 8; i++) {
            char key[32];
            snprintf(key, sizeof key, "%s.%s", types[in_bf16], names[i]);
            values[i] = fixture_floats(golden, key, NULL);
        }
        const float *clean = values[0], *noise = values[1], *velocity = values[2], *weights = values[3],
                    *sigmas = values[4];
        zi_scale_noise(ours, clean, noise, 48, sigmas[0], in_bf16);
        assert_memory_equal(ours, values[5], sizeof ours);
        zi_euler_step(ours, velocity, 48, sigmas[0], sigmas[1], in_bf16);
        assert_memory_equal(ours, values[6], sizeof ours);
        zi_blend(ours, clean, weights, 2, 24, in_bf16);
        assert_memory_equal(ours, values[7], sizeof ours);
        for (int i = 0; i < 8; i++)
            free(values[i]);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(images_equal_the_reference),
        cmocka_unit_test(guided_images_equal_the_reference),
        cmocka_unit_test(an_image_is_resized_to_the_size_of_the_request),
        cmocka_unit_test(transparent_parts_of_a_mask_are_repainted),
        cmocka_unit_test(latents_are_the_initial_noise),
        cmocka_unit_test(progress_and_cancelling),
        cmocka_unit_test(bf16_draws_the_noise_of_the_reference),
        cmocka_unit_test(the_first_step_follows_from_the_strength),
        cmocka_unit_test(steps_and_masks_equal_the_reference),
    };
    return cmocka_run_group_tests(tests, open_golden, close_golden);
}
