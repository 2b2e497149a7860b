/* FLUX.2-klein against diffusers' pipelines on a tiny model (tests/golden/klein.safetensors). */
#include "engine/session.h"
#include "image/pixels.h"
#include "klein.h"
#include "model/flux2_dit.h"
#include "pipeline/model.h"
#include "sampler/noise.h"
#include "tables.h"

static zi_store *golden;

static int begin(void **state)
{
    golden = fixture_open("klein.safetensors");
    return klein_begin(state);
}

static int end(void **state)
{
    zi_store_free(golden);
    return klein_end(state);
}

static zi_model *open_model(const char *folder)
{
    const zi_model_choice choice = {.dequantize = ZI_GROUPED};
    zimage_error error = ZIMAGE_ERROR_INIT;
    zi_model *model = NULL;
    if (zi_model_open(folder, &choice, NULL, &model, &error) != ZIMAGE_OK)
        fail_msg("%s", error.message);
    return model;
}

/* ---- stages ------------------------------------------------------------------------------------------------------ */

/* Some rows of the text features: real tokens, and padding. */
static void compare_features(zi_run *run, const zi_model *model, const char *name)
{
    char key[64], line[128];
    snprintf(key, sizeof key, "text.%s", name);
    const zi_weight *ids = klein_find(golden, key, "ids"), *rows = klein_find(golden, key, "rows");
    int64_t tokens = ids->shape[0], width = model->facts.features;
    const int64_t shape[] = {model->family->feature_rows(model->networks, tokens), width};
    float *all = malloc((size_t)(shape[0] * width) * sizeof *all);
    zi_tensor features = table_tensor(run, 2, shape, NULL);
    table_ok(model->family->encode(run, model->networks, (const int32_t *)ids->data, tokens, &features));
    table_ok(zi_table(run)->download(run, all, &features));
    float *some = malloc((size_t)(rows->shape[0] * width) * sizeof *some);
    for (int64_t i = 0; i < rows->shape[0]; i++)
        memcpy(some + i * width, all + ((const int32_t *)rows->data)[i] * width, (size_t)width * sizeof *some);
    snprintf(key, sizeof key, "text.%s.features", name);
    snprintf(line, sizeof line, "%s: klein, text features: %s", zi_table(run)->name, name);
    size_t count;
    float *want = fixture_floats(golden, key, &count);
    assert_int_equal(count, rows->shape[0] * width);
    parity(line, some, want, count, 2e-5);
    free(want);
    free(some);
    free(all);
}

static void text_features_equal_the_reference(void **state)
{
    static const char *const texts[] = {"en", "zh", "empty", "long"};
    zi_model *model = open_model(KLEIN);
    for (int t = 0; t < TABLES; t++) {
        zi_run *run = table_open(t);
        for (size_t i = 0; i < sizeof texts / sizeof *texts; i++)
            compare_features(run, model, texts[i]);
        table_close(run);
    }
    zi_model_close(model);
}

/* The prompt with its template; the padding's id is in no golden, but every row of padding depends on it. */
static void prompts_have_the_ids_of_the_reference(void **state)
{
    static const char *const texts[] = {"en", "zh", "empty", "long"};
    zi_model *model = open_model(KLEIN);
    for (size_t i = 0; i < sizeof texts / sizeof *texts; i++) {
        char key[64];
        zimage_error error = ZIMAGE_ERROR_INIT;
        zi_prompt_ids found;
        snprintf(key, sizeof key, "text.%s", texts[i]);
        char *prompt = klein_text(golden, key);
        const zi_weight *want = klein_find(golden, key, "ids");
        assert_int_equal(zi_tokenizer_encode_cut(model->tokenizer, model->family->chat_template, prompt,
                                                 (size_t)model->facts.max_prompt_tokens, &found, &error),
                         ZIMAGE_OK);
        assert_int_equal(found.count, want->shape[0]);
        assert_memory_equal(found.ids, want->data, want->bytes);
        free(found.ids);
        free(prompt);
    }
    zi_model_close(model);
}

/* A timestep of a run in bf16 passes through bf16 three times; in float32 two divisions may round. */
static void timesteps_equal_the_reference(void **state)
{
    size_t count;
    float *sigmas = fixture_floats(golden, "bf16.square.sigmas", NULL);
    float *timesteps = fixture_floats(golden, "bf16.square.timesteps", &count);
    for (size_t i = 0; i < count; i++)
        assert_true(zi_flux2_timestep(sigmas[i], 1) == timesteps[i]);
    assert_true(zi_flux2_timestep(0.96738404f, 1) == 968);
    assert_true(fabsf(zi_flux2_timestep(0.96738404f, 0) - 967.38404f) < 1e-3f);
    free(sigmas);
    free(timesteps);
}

/* ---- input images ------------------------------------------------------------------------------------------------ */

static void check_fitted(const zi_model *model, const char *role_name, zi_image_role role, int32_t width,
                         int32_t height)
{
    char name[64];
    zimage_error error = ZIMAGE_ERROR_INIT;
    zi_pixels image, fitted;
    int64_t w = width, h = height;
    klein_pixels(width, height, &image);
    snprintf(name, sizeof name, "fitted.%s.%dx%d", role_name, width, height);
    const zi_weight *size = klein_find(golden, name, "size"), *bytes = klein_find(golden, name, "bytes");
    assert_int_equal(model->family->fit_size(model->networks, role, &w, &h, &error), ZIMAGE_OK);
    assert_int_equal(w, ((const int32_t *)size->data)[0]);
    assert_int_equal(h, ((const int32_t *)size->data)[1]);
    assert_int_equal(model->family->fit_image(model->networks, role, &image, w, h, &fitted, &error), ZIMAGE_OK);
    assert_true(fitted.width == w && fitted.height == h && fitted.channels == 3);
    for (int64_t i = 0; i < bytes->shape[0]; i++) /* every 997th byte */
        assert_int_equal(fitted.data[i * 997], ((const uint8_t *)bytes->data)[i]);
    zi_pixels_free(&fitted);
    zi_pixels_free(&image);
}

static void images_are_fitted_as_the_reference_does(void **state)
{
    static const int32_t sizes[][2] = {{1500, 1100}, {2100, 300}, {64, 512}, {1030, 1024}, {77, 65}};
    zi_model *model = open_model(KLEIN);
    for (size_t i = 0; i < sizeof sizes / sizeof *sizes; i++) {
        check_fitted(model, "reference", ZI_IMAGE_REFERENCE, sizes[i][0], sizes[i][1]);
        check_fitted(model, "start", ZI_IMAGE_START, sizes[i][0], sizes[i][1]);
    }
    zi_model_close(model);
}

/* A start image also becomes another size, which the request gives. */
static void start_images_become_the_size_of_the_request(void **state)
{
    zi_model *model = open_model(KLEIN);
    zimage_error error = ZIMAGE_ERROR_INIT;
    zi_pixels image, fitted, want;
    klein_pixels(75, 58, &image);
    assert_int_equal(model->family->fit_image(model->networks, ZI_IMAGE_START, &image, 32, 80, &fitted, &error),
                     ZIMAGE_OK);
    assert_int_equal(zi_resize_lanczos(&image, 32, 80, &want, &error), ZIMAGE_OK);
    assert_memory_equal(fitted.data, want.data, 32 * 80 * 3);
    zi_pixels_free(&want);
    zi_pixels_free(&fitted);
    zi_pixels_free(&image);
    zi_model_close(model);
}

static void sizes_that_are_refused(void **state)
{
    static const struct {
        zi_image_role role;
        int64_t width, height;
        const char *message;
    } cases[] = {
        {ZI_IMAGE_REFERENCE, 63, 64, "63 x 64 pixels, expected sides of at least 64"},
        {ZI_IMAGE_REFERENCE, 100, 1, "at least 64"},
        {ZI_IMAGE_REFERENCE, 64, 513, "64 x 513 pixels, expected"},
        {ZI_IMAGE_REFERENCE, 20000, 2000, "none more than 8 times the other"},
        {ZI_IMAGE_START, 15, 64, "15 x 64 pixels, expected sides of at least 16"},
        {ZI_IMAGE_START, 64, 1, "64 x 1 pixels"},
        {ZI_IMAGE_START, 200000, 20, "200000 x 20 pixels"},
    };
    zi_model *model = open_model(KLEIN);
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        zimage_error error = ZIMAGE_ERROR_INIT;
        int64_t width = cases[i].width, height = cases[i].height;
        zimage_status status = model->family->fit_size(model->networks, cases[i].role, &width, &height, &error);
        assert_error(&error, status, ZIMAGE_ERROR_ARGUMENT, cases[i].message, NULL, NULL);
        assert_true(width == cases[i].width && height == cases[i].height);
    }
    zi_model_close(model);
}

static void masks_equal_the_reference(void **state)
{
    static const struct {
        int32_t width, height, to_width, to_height;
    } cases[] = {{75, 58, 64, 48}, {64, 80, 64, 80}, {33, 70, 96, 64}};
    zi_model *model = open_model(KLEIN);
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        char name[64];
        float weights[64];
        size_t count;
        zimage_error error = ZIMAGE_ERROR_INIT;
        zi_pixels mask;
        klein_mask(cases[i].width, cases[i].height, &mask);
        snprintf(name, sizeof name, "mask.%dx%d.%dx%d", cases[i].width, cases[i].height, cases[i].to_width,
                 cases[i].to_height);
        float *want = fixture_floats(golden, name, &count);
        assert_true(count <= sizeof weights / sizeof *weights);
        assert_int_equal(
            model->family->fit_mask(model->networks, &mask, cases[i].to_width, cases[i].to_height, weights, &error),
            ZIMAGE_OK);
        assert_memory_equal(weights, want, count * sizeof *weights);
        free(want);
        zi_pixels_free(&mask);
    }
    zi_model_close(model);
}

/* ---- whole images ------------------------------------------------------------------------------------------------ */

static void images_equal_the_reference(void **state)
{
    for (int reference = 0; reference < (is_brief() ? 1 : 2); reference++)
        klein_all(golden, reference ? "reference" : "cpu", NULL, reference);
}

/* Noise and latents of a run in bf16. With other noise, or that of float32, the image would be another one: 1.2. */
static void bf16_draws_the_noise_of_the_reference(void **state)
{
    zi_noise noise;
    size_t count, latent_count;
    float *want = fixture_floats(golden, "bf16.square.noise", &count), *ours = malloc(count * sizeof *ours);
    zi_noise_seed(&noise, ZIMAGE_RNG_TORCH_CPU, 42);
    zi_noise_next(&noise, ZI_NOISE_LATENTS, 1, ours, (int64_t)count);
    parity_line("cpu: noise in bf16, of klein", relative_error(ours, want, count), 0, "");
    free(want);
    free(ours);
    zimage_session *session = klein_session(KLEIN, NULL, ZIMAGE_COMPUTE_BF16, 0);
    zimage_image *made = klein_generate(session, golden, "bf16.square");
    want = fixture_floats(golden, "bf16.square.latents", &latent_count);
    const float *latents = zimage_image_latents(made, NULL);
    parity("cpu: klein, bf16, latents", latents, want, latent_count, 0.1);
    for (size_t i = 0; i < latent_count; i++) /* rounded after each step */
        assert_true(zi_bf16_to_f32(zi_f32_to_bf16(latents[i])) == latents[i]);
    free(want);
    zimage_image_free(made);
    zimage_session_close(session);
}

/* ---- plan and progress ------------------------------------------------------------------------------------------- */

/* A request of 4 tokens beside a reference of 20. */
static void request_with_reference(zimage_request *request, const zimage_image *const *images, int32_t steps)
{
    *request = (zimage_request){.struct_size = sizeof *request,
                                .prompt = "a",
                                .width = 32,
                                .height = 32,
                                .steps = steps,
                                .images = images,
                                .image_count = 1};
}

static zimage_stage_info stage_of(zimage_session *session, const zimage_image *const *images, int32_t steps,
                                  zimage_stage stage)
{
    zimage_error error = ZIMAGE_ERROR_INIT;
    zimage_stage_info info = {.struct_size = sizeof info};
    zimage_request request;
    zimage_plan *plan = NULL;
    request_with_reference(&request, images, steps);
    if (zimage_plan_make(session, &request, &plan, &error) != ZIMAGE_OK)
        fail_msg("%s", error.message);
    assert_int_equal(zimage_plan_get_stage(plan, stage, &info, &error), ZIMAGE_OK);
    zimage_plan_free(plan);
    return info;
}

static double flops_of(zimage_session *session, const zimage_image *const *images, int32_t steps, zimage_stage stage)
{
    return stage_of(session, images, steps, stage).flops;
}

/* References that pass once are counted once, others at each step. */
static void the_plan_counts_references(void **state)
{
    zimage_image *image = klein_image(klein_pixels, 80, 64);
    const zimage_image *const images[] = {image};
    zimage_session *each = klein_session(KLEIN, NULL, ZIMAGE_COMPUTE_F32, 0);
    zimage_session *once = klein_session(klein_kv(), NULL, ZIMAGE_COMPUTE_F32, 0);
    const zimage_stage denoise = ZIMAGE_STAGE_DENOISE, context = ZIMAGE_STAGE_CONTEXT;
    assert_true(flops_of(once, images, 4, denoise) < flops_of(each, images, 4, denoise));
    assert_true(flops_of(once, images, 4, context) > flops_of(each, images, 4, context));
    assert_true(flops_of(once, images, 8, denoise) == 2 * flops_of(once, images, 4, denoise));
    assert_true(flops_of(once, images, 8, context) == flops_of(once, images, 4, context));
    assert_true(flops_of(each, images, 8, denoise) == 2 * flops_of(each, images, 4, denoise));
    /* The pass of the references reads the blocks' weights, all but those of the latents' way in and out. */
    size_t blocks = (size_t)stage_of(once, images, 4, denoise).weight_bytes;
    size_t with = (size_t)stage_of(once, images, 4, context).weight_bytes;
    size_t without = (size_t)stage_of(each, images, 4, context).weight_bytes;
    assert_true(with > without + blocks / 2 && with <= without + blocks);
    zimage_session_close(each);
    zimage_session_close(once);
    zimage_image_free(image);
}

typedef struct watch {
    double fraction;
    int most[ZIMAGE_STAGE_COUNT]; /* blocks of a step */
} watch;

static int watch_progress(const zimage_progress *p, void *user)
{
    watch *w = user;
    assert_true(p->fraction >= w->fraction && p->fraction <= 1);
    assert_true(p->block <= p->blocks);
    w->fraction = p->fraction;
    if (p->blocks > w->most[p->stage])
        w->most[p->stage] = p->blocks;
    return 0;
}

static void progress_reaches_the_end(void **state)
{
    zimage_image *image = klein_image(klein_pixels, 80, 64);
    const zimage_image *const images[] = {image};
    for (int kv = 0; kv < 2; kv++) {
        zimage_session *session = klein_session(kv ? klein_kv() : KLEIN, NULL, ZIMAGE_COMPUTE_F32, 0);
        zimage_error error = ZIMAGE_ERROR_INIT;
        zimage_request request;
        zimage_image *made = NULL;
        watch w = {0};
        request_with_reference(&request, images, 2);
        request.progress = watch_progress;
        request.progress_user = &w;
        request.preview = 1;
        assert_int_equal(zimage_generate(session, &request, &made, &error), ZIMAGE_OK);
        assert_true(w.fraction > 1 - 1e-9);
        assert_int_equal(w.most[ZIMAGE_STAGE_TEXT], 1 + 27);
        assert_int_equal(w.most[ZIMAGE_STAGE_CONTEXT], kv ? 4 : 1); /* the blocks that references pass through once */
        assert_int_equal(w.most[ZIMAGE_STAGE_DENOISE], 3 + 4);
        zimage_image_free(made);
        zimage_session_close(session);
    }
    zimage_image_free(image);
}

/* ---- the folder -------------------------------------------------------------------------------------------------- */

static int warnings;

static void count_warnings(zimage_log_level level, const char *message, void *user)
{
    const char *word = user;
    warnings += level == ZIMAGE_LOG_WARNING && strstr(message, word) != NULL;
}

/* What model_index.json says: the defaults, and whether there is guidance. */
static void the_index_decides(void **state)
{
    zi_model *model = open_model(KLEIN);
    assert_int_equal(model->facts.default_steps, 4);
    assert_true(model->facts.default_guidance == 0 && model->facts.distilled);
    assert_int_equal(model->family->guides(model->networks, 4), 0);
    zi_model_close(model);
    model = open_model(klein_base());
    assert_int_equal(model->facts.default_steps, 50);
    assert_true(model->facts.default_guidance == 4 && !model->facts.distilled);
    assert_int_equal(model->family->guides(model->networks, 1), 0);
    assert_int_equal(model->family->guides(model->networks, 1.5f), 1);
    zi_model_close(model);
    model = open_model(klein_kv());
    assert_true(model->facts.distilled);
    zi_model_close(model);
}

/* A scale that changes nothing is no error, but the caller is told. */
static void guidance_that_is_ignored_is_warned_of(void **state)
{
    static const struct {
        float scale;
        int base, warnings;
    } cases[] = {{0, 0, 0}, {1, 0, 0}, {4, 0, 1}, {1, 1, 0}, {0.5f, 1, 1}, {4, 1, 0}};
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        zimage_error error = ZIMAGE_ERROR_INIT;
        zimage_session_params params = {.struct_size = sizeof params, .compute = ZIMAGE_COMPUTE_F32};
        zimage_request request = {.struct_size = sizeof request, .prompt = "a", .width = 16, .height = 16, .steps = 1};
        zimage_session *session = NULL;
        zimage_plan *plan = NULL;
        params.log = count_warnings;
        params.log_user = "guidance_scale: ";
        request.guidance_scale = cases[i].scale;
        warnings = 0;
        assert_int_equal(session_on(cases[i].base ? klein_base() : KLEIN, NULL, &params, &session, &error), ZIMAGE_OK);
        assert_int_equal(zimage_plan_make(session, &request, &plan, &error), ZIMAGE_OK);
        assert_int_equal(warnings, cases[i].warnings);
        zimage_plan_free(plan);
        zimage_session_close(session);
    }
}

/* A conversion has no model_index.json, and may have no scheduler: it is taken for the distilled model, with a word. */
static void a_conversion_is_the_distilled_model(void **state)
{
    const char *folder = klein_conversion();
    zimage_error error = ZIMAGE_ERROR_INIT;
    zimage_model_params params = {.struct_size = sizeof params, .log = count_warnings, .log_user = "distilled"};
    zimage_model *model = NULL;
    warnings = 0;
    if (zimage_model_open(folder, &params, &model, &error) != ZIMAGE_OK)
        fail_msg("%s", error.message);
    assert_int_equal(warnings, 1);
    zimage_model_close(model);
    zimage_session *session = klein_session(folder, NULL, ZIMAGE_COMPUTE_F32, 0);
    klein_compare(session, "cpu", golden, "square");
    zimage_session_close(session);
}

/* A conversion stores convolutions in another layout. The encoder's are copied when the first image is encoded. */
static void the_encoder_is_copied_when_an_image_comes(void **state)
{
    zimage_image *image = klein_image(klein_pixels, 80, 64);
    const zimage_image *const images[] = {image};
    zimage_session *session = klein_session(klein_mflux(), NULL, ZIMAGE_COMPUTE_F32, 0);
    zimage_error error = ZIMAGE_ERROR_INIT;
    size_t bytes[3];
    bytes[0] = zi_model_owned_bytes(session->inner);
    for (int with = 0; with < 2; with++) {
        zimage_request request;
        zimage_image *made = NULL;
        request_with_reference(&request, images, 1);
        request.image_count = (size_t)with;
        assert_int_equal(zimage_generate(session, &request, &made, &error), ZIMAGE_OK);
        zimage_image_free(made);
        bytes[1 + with] = zi_model_owned_bytes(session->inner);
    }
    assert_int_equal(bytes[0], bytes[1]);
    assert_true(bytes[0] > 0 && bytes[2] > bytes[1] + bytes[1] / 4);
    zimage_session_close(session);
    zimage_image_free(image);
}

/* 4 bits, and the names of mflux. */
static void a_packed_conversion_equals_the_reference(void **state)
{
    zi_store *pictures = fixture_open("mlx/pictures.safetensors");
    zimage_session *session = klein_session(klein_mflux(), NULL, ZIMAGE_COMPUTE_F32, 0);
    klein_compare(session, "cpu", pictures, "klein");
    zimage_session_close(session);
    zi_store_free(pictures);
}

static void folders_that_are_refused(void **state)
{
    static const struct {
        const char *part, *field, *value, *message;
    } cases[] = {
        {"model_index.json", "is_distilled", "7", "is_distilled"},
        {"text_encoder/config.json", "num_hidden_layers", "27", "num_hidden_layers is 27, expected more than 27"},
        {"transformer/config.json", "guidance_embeds", "true", "guidance_embeds"},
        {"tokenizer/tokenizer_config.json", "padding_side", "\"left\"", "padding_side: \"left\""},
        {"tokenizer/tokenizer_config.json", "pad_token", "null", "pad_token: none"},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        const char *folder = klein_variant("changed", "text_encoder/config.json", "layer_types", "null");
        klein_change(folder, cases[i].part, cases[i].field, cases[i].value);
        const zi_model_choice choice = {.dequantize = ZI_GROUPED};
        zimage_error error = ZIMAGE_ERROR_INIT;
        zi_model *model = NULL;
        zimage_status status = zi_model_open(folder, &choice, NULL, &model, &error);
        if (status == ZIMAGE_OK)
            fail_msg("%s: %s was accepted", cases[i].part, cases[i].field);
        assert_contains(error.message, cases[i].message);
        assert_contains(error.message, folder);
        assert_null(model);
    }
}

/* Weights that fit their own configurations, but not each other. */
static void components_must_fit_each_other(void **state)
{
    static const char *const fitting[ZI_COMPONENTS] = {
        [ZI_TEXT_ENCODER] = "{\"hidden_size\": 12, \"vocab_size\": 768}",
        [ZI_TRANSFORMER] = "{\"in_channels\": 16, \"joint_attention_dim\": 36, \"guidance_embeds\": false}",
        [ZI_VAE] = "{\"latent_channels\": 4}",
    };
    static const struct {
        zi_component_kind kind;
        const char *text, *message;
    } cases[] = {
        {ZI_TRANSFORMER, fitting[ZI_TRANSFORMER], NULL},
        {ZI_TEXT_ENCODER, "{\"hidden_size\": 16, \"vocab_size\": 768}", "3 times hidden_size is 48"},
        {ZI_TEXT_ENCODER, "{\"hidden_size\": 12, \"vocab_size\": 767}", "the largest token id is 767"},
        {ZI_VAE, "{\"latent_channels\": 8}", "make 32 channels, expected the transformer's in_channels, 16"},
    };
    static const int present[ZI_COMPONENTS] = {1, 1, 1};
    const zi_family *family = &zi_family_klein;
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        zimage_error error = ZIMAGE_ERROR_INIT;
        zi_networks *networks = calloc(1, family->networks_size);
        assert_non_null(networks);
        for (int k = 0; k < ZI_COMPONENTS; k++)
            if (family->components[k].configure(networks, "x", k == (int)cases[i].kind ? cases[i].text : fitting[k],
                                                &error) != ZIMAGE_OK)
                fail_msg("%s", error.message);
        zimage_status status = family->check(networks, present, 768, "folder", &error);
        if (cases[i].message)
            assert_error(&error, status, ZIMAGE_ERROR_MODEL, cases[i].message, "folder/", NULL);
        else
            assert_int_equal(status, ZIMAGE_OK);
        free(networks);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(prompts_have_the_ids_of_the_reference),
        cmocka_unit_test(text_features_equal_the_reference),
        cmocka_unit_test(timesteps_equal_the_reference),
        cmocka_unit_test(images_are_fitted_as_the_reference_does),
        cmocka_unit_test(start_images_become_the_size_of_the_request),
        cmocka_unit_test(sizes_that_are_refused),
        cmocka_unit_test(masks_equal_the_reference),
        cmocka_unit_test(images_equal_the_reference),
        cmocka_unit_test(bf16_draws_the_noise_of_the_reference),
        cmocka_unit_test(the_plan_counts_references),
        cmocka_unit_test(progress_reaches_the_end),
        cmocka_unit_test(the_index_decides),
        cmocka_unit_test(guidance_that_is_ignored_is_warned_of),
        cmocka_unit_test(a_conversion_is_the_distilled_model),
        cmocka_unit_test(a_packed_conversion_equals_the_reference),
        cmocka_unit_test(the_encoder_is_copied_when_an_image_comes),
        cmocka_unit_test(folders_that_are_refused),
        cmocka_unit_test(components_must_fit_each_other),
    };
    return cmocka_run_group_tests(tests, begin, end);
}
