/* Images that the tiny FLUX.2-klein makes, against diffusers' (tests/golden/klein.safetensors). */
#ifndef ZI_TESTS_KLEIN_H
#define ZI_TESTS_KLEIN_H

#include "change_json.h"
#include "files.h"
#include "fixture.h"
#include "image/pixels.h"
#include "program.h"
#include "session.h"

#define KLEIN           ZIMAGE_TEST_DATA "/tiny-klein"
#define KLEIN_TOLERANCE 5e-5 /* of latents, relative; measured: 3e-6 */

/* ---- folders ----------------------------------------------------------------------------------------------------- */

static inline int klein_begin(void **state)
{
    return make_temporary_folder(state);
}

static inline int klein_end(void **state)
{
    return remove_temporary_folder(state);
}

/* Changes a field of a folder's file; value NULL: removes it. */
static inline void klein_change(const char *folder, const char *part, const char *field, const char *value)
{
    char path[3 * PATH_MAX];
    snprintf(path, sizeof path, "%s/%s", folder, part);
    change_json(path, path, field, value);
}

/* A copy of the model with a change. */
static inline const char *klein_variant(const char *name, const char *part, const char *field, const char *value)
{
    const char *folder = temporary(name);
    run_shell("rm -rf '%s' && cp -r '%s' '%s'", folder, KLEIN, folder);
    klein_change(folder, part, field, value);
    return folder;
}

static inline const char *klein_base(void)
{
    return klein_variant("base", "model_index.json", "is_distilled", "false");
}

static inline const char *klein_kv(void)
{
    return klein_variant("kv", "model_index.json", "_class_name", "\"Flux2KleinKVPipeline\"");
}

/* As the converters for MLX leave it. */
static inline const char *klein_conversion(void)
{
    const char *folder = klein_variant("conversion", "model_index.json", "is_distilled", NULL);
    run_shell("rm -r '%s/model_index.json' '%s/scheduler'", folder, folder);
    return folder;
}

/* Packed by mflux; the text encoder is that of the tiny model. */
static inline const char *klein_mflux(void)
{
    const char *folder = temporary("mflux");
    run_shell("rm -rf '%s' && cp -r '%s/mlx/klein' '%s' && cp -r '%s/text_encoder' '%s/tokenizer' '%s'", folder,
              ZIMAGE_TEST_DATA, folder, KLEIN, KLEIN, folder);
    return folder;
}

/* ---- goldens ----------------------------------------------------------------------------------------------------- */

static inline const zi_weight *klein_find(const zi_store *store, const char *name, const char *what)
{
    char key[96];
    snprintf(key, sizeof key, "%s.%s", name, what);
    return fixture_find(store, key);
}

/* NULL: the case has none. */
static inline const void *klein_optional(const zi_store *store, const char *name, const char *what, size_t *bytes)
{
    char key[96];
    snprintf(key, sizeof key, "%s.%s", name, what);
    const zi_weight *weight = zi_store_find(store, key);
    if (bytes)
        *bytes = weight ? weight->bytes : 0;
    return weight ? weight->data : NULL;
}

/* The prompt of a case; free() it. */
static inline char *klein_text(const zi_store *store, const char *name)
{
    const zi_weight *bytes = klein_find(store, name, "prompt");
    char *text = calloc(bytes->bytes + 1, 1);
    assert_non_null(text);
    memcpy(text, bytes->data, bytes->bytes);
    return text;
}

/* The images of tools/golden/make_klein.py: picture, mask_of. */
static inline void klein_pixels(int32_t width, int32_t height, zi_pixels *pixels)
{
    assert_int_equal(zi_pixels_new(width, height, 3, pixels, NULL), ZIMAGE_OK);
    for (int32_t y = 0; y < height; y++)
        for (int32_t x = 0; x < width; x++) {
            const int32_t waves[] = {(x * 3 + y * 5) / 2, x * y / 7 + 40, (x - y) * (x - y) / 11};
            for (int c = 0; c < 3; c++)
                pixels->data[(y * width + x) * 3 + c] = (uint8_t)abs(waves[c] % 510 - 255);
        }
}

static inline void klein_mask(int32_t width, int32_t height, zi_pixels *pixels)
{
    assert_int_equal(zi_pixels_new(width, height, 1, pixels, NULL), ZIMAGE_OK);
    for (int32_t y = 0; y < height; y++)
        for (int32_t x = 0; x < width; x++) {
            int32_t value = (x * 2 + y - width) * 9 + ((x * 5 + y * 3) % 16 - 8) * 40;
            pixels->data[y * width + x] = (uint8_t)(value < 0 ? 0 : value > 255 ? 255 : value);
        }
}

static inline zimage_image *klein_image(void (*fill)(int32_t width, int32_t height, zi_pixels *pixels), int32_t width,
                                        int32_t height)
{
    zimage_error error = ZIMAGE_ERROR_INIT;
    zimage_image *image = NULL;
    zi_pixels pixels;
    uint8_t *rgb = malloc((size_t)width * (size_t)height * 3);
    assert_non_null(rgb);
    fill(width, height, &pixels);
    for (int64_t i = 0; i < (int64_t)width * height * 3; i++)
        rgb[i] = pixels.data[pixels.channels == 3 ? i : i / 3];
    if (zimage_image_from_pixels(rgb, width, height, (size_t)width * 3, 3, &image, &error) != ZIMAGE_OK)
        fail_msg("%s", error.message);
    zi_pixels_free(&pixels);
    free(rgb);
    return image;
}

/* ---- runs -------------------------------------------------------------------------------------------------------- */

static inline zimage_session *klein_session(const char *folder, const char *device, zimage_compute compute,
                                            int reference)
{
    zimage_error error = ZIMAGE_ERROR_INIT;
    const zimage_session_params params = {
        .struct_size = sizeof params, .device = device, .compute = compute, .reference = reference};
    zimage_session *session = NULL;
    if (session_on(folder, NULL, &params, &session, &error) != ZIMAGE_OK)
        fail_msg("%s", error.message);
    return session;
}

#define KLEIN_IMAGES 2 /* of a case, at most */

/* Runs a case of the file. A case with images takes its size from the first, if it was so in the reference. */
static inline zimage_image *klein_generate(zimage_session *session, const zi_store *store, const char *name)
{
    zimage_error error = ZIMAGE_ERROR_INIT;
    zimage_request request = {.struct_size = sizeof request};
    zimage_image *images[KLEIN_IMAGES] = {NULL}, *mask = NULL, *made = NULL;
    size_t bytes;
    int32_t settings[3];
    char *prompt = klein_text(store, name);
    const int32_t *sizes = klein_optional(store, name, "images", &bytes);
    const double *strength = klein_optional(store, name, "strength", NULL);
    const float *guidance = klein_optional(store, name, "guidance", NULL);
    memcpy(settings, klein_find(store, name, "settings")->data, sizeof settings);
    memcpy(&request.seed, klein_find(store, name, "seed")->data, sizeof request.seed);
    request.prompt = prompt;
    request.steps = settings[2];
    request.guidance_scale = guidance ? *guidance : 0;
    request.image_count = bytes / (2 * sizeof *sizes);
    assert_true(request.image_count <= KLEIN_IMAGES);
    for (size_t i = 0; i < request.image_count; i++)
        images[i] = klein_image(klein_pixels, sizes[2 * i], sizes[2 * i + 1]);
    request.images = (const zimage_image *const *)images;
    if (strength) {
        request.mask = mask = klein_image(klein_mask, sizes[0], sizes[1]);
        request.strength = *strength == 0.8 ? 0 : *strength; /* the default */
    } else if (!strstr(name, "references.size")) {
        request.width = settings[0];
        request.height = settings[1];
    }
    if (zimage_generate(session, &request, &made, &error) != ZIMAGE_OK)
        fail_msg("%s: %s", name, error.message);
    assert_int_equal(zimage_image_width(made), settings[0]);
    assert_int_equal(zimage_image_height(made), settings[1]);
    for (size_t i = 0; i < request.image_count; i++)
        zimage_image_free(images[i]);
    zimage_image_free(mask);
    free(prompt);
    return made;
}

static inline void klein_compare(zimage_session *session, const char *backend, const zi_store *store, const char *name)
{
    zimage_image *made = klein_generate(session, store, name);
    const zi_weight *rgb = klein_find(store, name, "rgb");
    char key[96], stage[128];
    size_t count;
    snprintf(key, sizeof key, "%s.latents", name);
    snprintf(stage, sizeof stage, "%s: klein, latents: %s", backend, name);
    float *latents = fixture_floats(store, key, &count);
    parity(stage, zimage_image_latents(made, NULL), latents, count, KLEIN_TOLERANCE);
    snprintf(stage, sizeof stage, "klein, %s", name);
    parity_bytes(backend, stage, zimage_image_pixels(made), rgb->data, rgb->bytes);
    free(latents);
    zimage_image_free(made);
}

static inline void klein_cases(const zi_store *store, const char *backend, const char *device, int reference,
                               const char *folder, const char *const *names)
{
    zimage_session *session = klein_session(folder, device, ZIMAGE_COMPUTE_F32, reference);
    for (; *names; names++)
        klein_compare(session, backend, store, *names);
    zimage_session_close(session);
}

/* Every case in float32, on one backend. */
static inline void klein_all(const zi_store *store, const char *backend, const char *device, int reference)
{
    static const char *const distilled[] = {"square",
                                            "wide",
                                            "tall",
                                            "one",
                                            "references.size",
                                            "references.one",
                                            "references.two",
                                            "references.order",
                                            "inpaint.default",
                                            "inpaint.half",
                                            "inpaint.full",
                                            "inpaint.reference",
                                            NULL};
    static const char *const base[] = {"base.square",    "base.wide",    "base.tall", "base.unguided",
                                       "base.reference", "inpaint.base", NULL};
    static const char *const kv[] = {"kv.references.size", "kv.references.one", "kv.references.two",
                                     "kv.references.order", NULL};
    klein_cases(store, backend, device, reference, KLEIN, distilled);
    klein_cases(store, backend, device, reference, klein_base(), base);
    klein_cases(store, backend, device, reference, klein_kv(), kv);
}

#endif
