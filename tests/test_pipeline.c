/* The whole pipeline through the public API against diffusers' ZImagePipeline on the tiny model. */
#include "fixture.h"
#include "session.h"

static const char *const cases[] = {"en", "zh", "empty", "wide", "one", "tall", "long"};

static int warnings;

static void count_warning(zimage_log_level level, const char *message, void *user)
{
    (void)user;
    if (level == ZIMAGE_LOG_WARNING && strstr(message, "512"))
        warnings++;
}

static zimage_session *open_tiny(int reference)
{
    zimage_error error = ZIMAGE_ERROR_INIT;
    zimage_session_params params = {.struct_size = sizeof params};
    zimage_session *session = NULL;
    params.compute = ZIMAGE_COMPUTE_F32;
    params.log = count_warning;
    params.reference = reference;
    if (session_on(ZIMAGE_TEST_DATA "/tiny", NULL, &params, &session, &error) != ZIMAGE_OK)
        fail_msg("%s", error.message);
    return session;
}

static const zi_weight *of_case(const zi_store *store, const char *name, const char *what)
{
    char key[64];
    snprintf(key, sizeof key, "%s.%s", name, what);
    return fixture_find(store, key);
}

static void run_case(zimage_session *session, const char *backend, const zi_store *store, const char *name)
{
    zimage_error error = ZIMAGE_ERROR_INIT;
    zimage_request request = {.struct_size = sizeof request};
    const zi_weight *prompt = of_case(store, name, "prompt"), *seed = of_case(store, name, "seed");
    int32_t settings[3];
    memcpy(settings, of_case(store, name, "settings")->data, sizeof settings);
    char *text = calloc(prompt->bytes + 1, 1);
    assert_non_null(text);
    memcpy(text, prompt->data, prompt->bytes);
    request.prompt = text;
    request.width = settings[0];
    request.height = settings[1];
    request.steps = settings[2];
    memcpy(&request.seed, seed->data, sizeof request.seed);

    zimage_image *image = NULL;
    if (zimage_generate(session, &request, &image, &error) != ZIMAGE_OK)
        fail_msg("%s: %s", name, error.message);
    zimage_image_info info = {.struct_size = sizeof info};
    assert_int_equal(zimage_image_get_info(image, &info, &error), ZIMAGE_OK);
    assert_int_equal(info.prompt_tokens, of_case(store, name, "ids")->shape[0]);
    assert_int_equal(info.compute, ZIMAGE_COMPUTE_F32);
    assert_true(*info.kernels != 0);
    char key[64], stage[64];
    int64_t shape[3];
    size_t count;
    snprintf(key, sizeof key, "%s.latents", name);
    snprintf(stage, sizeof stage, "%s: image, latents: %s", backend, name);
    float *latents = fixture_floats(store, key, &count);
    const float *ours = zimage_image_latents(image, shape);
    assert_int_equal(shape[0] * shape[1] * shape[2], count);
    parity(stage, ours, latents, count, 2e-5);
    parity_bytes(backend, name, zimage_image_pixels(image), of_case(store, name, "rgb")->data,
                 (size_t)settings[0] * (size_t)settings[1] * 3);
    free(latents);
    free(text);
    zimage_image_free(image);
}

static void images_equal_the_reference(void **state)
{
    zi_store *store = fixture_open("pipeline.safetensors");
    for (int reference = 0; reference < 2; reference++) {
        zimage_session *session = open_tiny(reference);
        const char *backend = reference ? "reference" : "cpu";
        warnings = 0;
        for (size_t i = 0; i < sizeof cases / sizeof *cases; i++)
            run_case(session, backend, store, cases[i]);
        assert_int_equal(warnings, 1); /* the cut of "long" to 512 tokens is logged */
        zimage_session_close(session);
    }
    zi_store_free(store);
}

/* Embeddings and latents given by the caller make the same image as prompt and seed. */
static void tensors_instead_of_prompt_and_seed(void **state)
{
    zi_store *store = fixture_open("pipeline.safetensors");
    zimage_session *session = open_tiny(0);
    zimage_error error = ZIMAGE_ERROR_INIT;
    zimage_request request = {.struct_size = sizeof request};
    int32_t settings[3];
    memcpy(settings, of_case(store, "en", "settings")->data, sizeof settings);
    float *embeds = fixture_floats(store, "en.prompt_embeds", NULL);
    float *noise = fixture_floats(store, "en.noise", NULL);
    request.prompt_embeds = embeds;
    request.prompt_tokens = (int32_t)of_case(store, "en", "prompt_embeds")->shape[0];
    request.prompt_embeds_dim = (int32_t)of_case(store, "en", "prompt_embeds")->shape[1];
    request.latents = noise;
    request.latents_count = (uint64_t)zi_weight_count(of_case(store, "en", "noise"));
    request.width = settings[0];
    request.height = settings[1];
    request.steps = settings[2];
    zimage_image *image = NULL;
    if (zimage_generate(session, &request, &image, &error) != ZIMAGE_OK)
        fail_msg("%s", error.message);
    parity_bytes("cpu", "en, from tensors", zimage_image_pixels(image), of_case(store, "en", "rgb")->data,
                 (size_t)settings[0] * (size_t)settings[1] * 3);
    zimage_image_free(image);
    free(embeds);
    free(noise);
    zimage_session_close(session);
    zi_store_free(store);
}

typedef struct guided {
    const char *name;
    float guidance;
    double truncation;
    float normalization;
    int negative;
} guided;

static void guidance_equals_the_reference(void **state)
{
    static const guided runs[] = {
        {"cfg", 4, 1, 0, 1},
        {"cfg_default_negative", 1.5f, 1, 0, 0},
        {"cfg_truncation_0.6", 4, 0.6, 0, 1},
        {"cfg_truncation_0.3", 4, 0.3, 0, 1},
        {"cfg_normalization", 4, 1, 1, 1},
        {"cfg_normalization_0.8", 4, 1, 0.8f, 1},
        {"cfg_both", 4, 0.6, 1.2f, 1},
    };
    zi_store *store = fixture_open("scheduler.safetensors");
    zimage_session *session = open_tiny(0);
    const zi_weight *prompt = fixture_find(store, "loop.prompt"), *negative = fixture_find(store, "loop.negative");
    char *texts[2] = {calloc(prompt->bytes + 1, 1), calloc(negative->bytes + 1, 1)};
    memcpy(texts[0], prompt->data, prompt->bytes);
    memcpy(texts[1], negative->data, negative->bytes);
    for (size_t i = 0; i < sizeof runs / sizeof *runs; i++) {
        zimage_error error = ZIMAGE_ERROR_INIT;
        zimage_request request = {.struct_size = sizeof request};
        zimage_image *image = NULL;
        request.prompt = texts[0];
        request.negative_prompt = runs[i].negative ? texts[1] : NULL;
        request.seed = 42;
        request.width = 64;
        request.height = 48;
        request.steps = 8;
        request.guidance_scale = runs[i].guidance;
        request.cfg_truncation = runs[i].truncation;
        request.cfg_normalization = runs[i].normalization;
        if (zimage_generate(session, &request, &image, &error) != ZIMAGE_OK)
            fail_msg("%s: %s", runs[i].name, error.message);
        char key[64], stage[64];
        int64_t shape[3];
        size_t count;
        snprintf(key, sizeof key, "loop.%s.after", runs[i].name);
        snprintf(stage, sizeof stage, "cpu: image with guidance, latents: %s", runs[i].name);
        float *after = fixture_floats(store, key, &count);
        const float *ours = zimage_image_latents(image, shape);
        parity(stage, ours, after + count - count / 8, count / 8, 2e-5);
        free(after);
        zimage_image_free(image);
    }
    free(texts[0]);
    free(texts[1]);
    zimage_session_close(session);
    zi_store_free(store);
}

typedef struct watch {
    int calls, previews, cancel_at, last_step;
    int wanted; /* bit i: a preview of step i */
    double last_fraction;
    int monotonic;
} watch;

static int watch_progress(const zimage_progress *p, void *user)
{
    watch *w = user;
    w->calls++;
    if (p->fraction + 1e-9 < w->last_fraction)
        w->monotonic = 0;
    w->last_fraction = p->fraction;
    if (p->preview) {
        assert_int_equal(p->block, p->blocks);
        assert_true(p->preview_width > 0 && p->preview_height > 0 && p->preview_width <= 256);
        w->previews++;
    }
    return w->calls == w->cancel_at;
}

static int watch_wants(int32_t step, int32_t steps, void *user)
{
    const watch *w = user;
    assert_true(step >= 1 && step <= steps);
    return w->wanted >> step & 1;
}

static void progress_preview_and_cancel(void **state)
{
    zimage_session *session = open_tiny(0);
    zimage_error error = ZIMAGE_ERROR_INIT;
    zimage_request request = {.struct_size = sizeof request};
    zimage_image *image = NULL;
    watch w = {.monotonic = 1};
    request.prompt = "a red apple";
    request.width = request.height = 64;
    request.steps = 3;
    request.preview = 1;
    request.progress = watch_progress;
    request.progress_user = &w;
    assert_int_equal(zimage_generate(session, &request, &image, &error), ZIMAGE_OK);
    zimage_image_free(image);
    assert_true(w.monotonic);
    assert_true(fabs(w.last_fraction - 1) < 1e-6);
    assert_int_equal(w.previews, 3);
    /* Cancelling at every single call ends with the right status, and the session stays usable. */
    int calls = w.calls;
    for (int at = 1; at <= calls; at++) {
        w = (watch){.cancel_at = at, .monotonic = 1};
        request.prompt = at % 2 ? "a red apples" : "a red apple"; /* another one each time: the encoder is needed */
        assert_int_equal(zimage_generate(session, &request, &image, &error), ZIMAGE_ERROR_CANCELLED);
        assert_null(image);
        assert_int_equal(w.calls, at); /* nothing more is reported after the answer "stop" */
    }
    /* With 5 % of the time for previews: the first, but not all, because one takes about as long as a step here. */
    w = (watch){.monotonic = 1};
    request.preview = 2;
    request.steps = 12;
    assert_int_equal(zimage_generate(session, &request, &image, &error), ZIMAGE_OK);
    zimage_image_free(image);
    assert_true(w.monotonic && w.previews >= 1 && w.previews < 12);
    /* Only of the steps that somebody wants to see, which may be none. */
    request.wants_preview = watch_wants;
    for (int wanted = 0; wanted < 1 << 13; wanted += 1 << 4 | 1 << 12) {
        w = (watch){.monotonic = 1, .wanted = wanted};
        assert_int_equal(zimage_generate(session, &request, &image, &error), ZIMAGE_OK);
        zimage_image_free(image);
        assert_true(w.monotonic && w.previews == (wanted ? 2 : 0));
    }
    request.preview = 0;
    w = (watch){.monotonic = 1, .wanted = 1 << 4};
    assert_int_equal(zimage_generate(session, &request, &image, &error), ZIMAGE_OK);
    zimage_image_free(image);
    assert_int_equal(w.previews, 0);
    zimage_session_close(session);
}

static void requests_out_of_range(void **state)
{
    static const struct {
        const char *field;
        int32_t width, height, steps;
        float guidance;
    } bad[] = {
        {"width", 1, 64, 4, 0},     {"width", -16, 64, 4, 0},     {"width", 65, 64, 4, 0},  {"width", 100000, 64, 4, 0},
        {"height", 64, 1, 4, 0},    {"height", 64, 40, 4, 0},     {"steps", 64, 64, -2, 0}, {"steps", 64, 64, -1, 0},
        {"steps", 64, 64, 1001, 0}, {"guidance", 64, 64, 4, NAN},
    };
    zimage_session *session = open_tiny(0);
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
        zimage_error error = ZIMAGE_ERROR_INIT;
        zimage_request request = {.struct_size = sizeof request};
        zimage_image *image = NULL;
        request.prompt = "x";
        request.width = bad[i].width;
        request.height = bad[i].height;
        request.steps = bad[i].steps;
        request.guidance_scale = bad[i].guidance;
        assert_int_equal(zimage_generate(session, &request, &image, &error), ZIMAGE_ERROR_ARGUMENT);
        assert_null(image);
        assert_non_null(strstr(error.message, bad[i].field));
    }
    zimage_session_close(session);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(images_equal_the_reference),    cmocka_unit_test(tensors_instead_of_prompt_and_seed),
        cmocka_unit_test(guidance_equals_the_reference), cmocka_unit_test(progress_preview_and_cancel),
        cmocka_unit_test(requests_out_of_range),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
