/* Sigmas, timesteps, guidance and configuration against diffusers (tests/golden/scheduler.safetensors). */
#include "files.h"
#include "fixture.h"
#include "model/zimage_dit.h"
#include "sampler/flow_match.h"
#include "tables.h"

static zi_store *golden;

static int open_golden(void **state)
{
    golden = fixture_open("scheduler.safetensors");
    return make_temporary_folder(state);
}

static int close_golden(void **state)
{
    zi_store_free(golden);
    return remove_temporary_folder(state);
}

static size_t schedules, equal_schedules;
static double worst_sigma, worst_timestep, worst_time;

static double largest_difference(const float *ours, const char *prefix, const char *name, size_t expected)
{
    char full[128];
    size_t count;
    double worst = 0;
    snprintf(full, sizeof full, "%s.%s", prefix, name);
    float *want = fixture_floats(golden, full, &count);
    assert_int_equal(count, expected);
    for (size_t i = 0; i < count; i++)
        worst = fmax(worst, fabs((double)ours[i] - want[i]));
    free(want);
    return worst;
}

static void check_schedule(const zi_scheduler_config *config, const char *prefix, int steps, int64_t tokens)
{
    float sigmas[64], timesteps[64], times[64];
    assert_true(steps < 64);
    zi_scheduler_sigmas(config, steps, tokens, sigmas);
    for (int i = 0; i < steps; i++) {
        timesteps[i] = zi_scheduler_timestep(sigmas[i]);
        times[i] = zi_scheduler_model_time(sigmas[i]);
    }
    double sigma = largest_difference(sigmas, prefix, "sigmas", (size_t)steps + 1);
    double timestep = largest_difference(timesteps, prefix, "timesteps", (size_t)steps);
    double time = largest_difference(times, prefix, "t", (size_t)steps);
    schedules++;
    equal_schedules += sigma == 0 && timestep == 0 && time == 0;
    worst_sigma = fmax(worst_sigma, sigma);
    worst_timestep = fmax(worst_timestep, timestep);
    worst_time = fmax(worst_time, time);
}

static void report(const char *what)
{
    printf("parity | scheduler %-34s | %9.2e | %9.2e | %s (%zu of %zu schedules equal)\n", what, worst_sigma, 1e-7,
           worst_sigma <= 1e-7 ? "ok" : "FAIL", equal_schedules, schedules);
    assert_true(worst_sigma <= 1e-7);
    assert_true(worst_timestep <= 1e-4);
    assert_true(worst_time <= 1e-7);
    schedules = equal_schedules = 0;
    worst_sigma = worst_timestep = worst_time = 0;
}

static void load(const char *folder, zi_scheduler_config *config)
{
    char path[4096];
    zimage_error error = ZIMAGE_ERROR_INIT;
    snprintf(path, sizeof path, "%s/%s/scheduler/scheduler_config.json", ZIMAGE_TEST_DATA, folder);
    if (zi_scheduler_load(path, config, &error) != ZIMAGE_OK)
        fail_msg("%s", error.message);
}

static void test_static_shift(void **state)
{
    static const int counts[] = {1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 12, 16, 20, 25, 28, 30, 40, 50}, shifts[] = {1, 3, 6};
    zi_scheduler_config config;
    load("tiny", &config);
    assert_int_equal(config.use_dynamic_shifting, 0);
    for (size_t s = 0; s < 3; s++)
        for (size_t n = 0; n < sizeof counts / sizeof *counts; n++) {
            char prefix[128];
            config.shift = shifts[s];
            snprintf(prefix, sizeof prefix, "static.shift%d.steps%d", shifts[s], counts[n]);
            check_schedule(&config, prefix, counts[n], 256);
        }
    report("static shift");
}

static void test_dynamic_shift(void **state)
{
    static const int tokens[] = {1, 16, 256, 1024, 2304, 4096, 16384}, counts[] = {1, 4, 8, 28, 50};
    zi_scheduler_config config;
    char prefix[128];
    load("tiny-base", &config);
    assert_int_equal(config.use_dynamic_shifting, 1);
    for (size_t k = 0; k < 7; k++) {
        double want;
        snprintf(prefix, sizeof prefix, "dynamic.tokens%d.mu", tokens[k]);
        memcpy(&want, fixture_find(golden, prefix)->data, sizeof want);
        assert_true(zi_scheduler_mu(&config, tokens[k]) == want);
        for (size_t n = 0; n < 5; n++) {
            snprintf(prefix, sizeof prefix, "dynamic.tokens%d.steps%d", tokens[k], counts[n]);
            check_schedule(&config, prefix, counts[n], tokens[k]);
        }
    }
    config.linear_time_shift = 1;
    check_schedule(&config, "dynamic_linear.tokens1024.steps8", 8, 1024);
    report("dynamic shift");
}

static void test_euler_and_guidance(void **state)
{
    float latents[2] = {1, -2};
    const float prediction[2] = {0.5f, 4};
    zi_euler_step(latents, prediction, 2, 1.0f, 0.75f);
    assert_true(latents[0] == 0.875f && latents[1] == -3);

    float positive[2] = {3, 4};
    const float negative[2] = {1, 4};
    zi_guide(positive, negative, 2, 2.0f, 0);
    assert_true(positive[0] == 7 && positive[1] == 4);

    float limited[2] = {3, 4}; /* (9, 12) has the norm 15, and the limit is 5 */
    const float zero[2] = {0, 0};
    zi_guide(limited, zero, 2, 2.0f, 1.0f);
    assert_true(fabsf(limited[0] - 3) < 1e-6f && fabsf(limited[1] - 4) < 1e-6f);

    assert_true(zi_guidance_at(4, 1, 0.99f) == 4);
    assert_true(zi_guidance_at(4, 0.6f, 0.5f) == 4);
    assert_true(zi_guidance_at(4, 0.6f, 0.75f) == 0);
    assert_true(zi_guidance_at(4, 2, 0.75f) == 4);
}

/* ---- eight steps of the tiny transformer, as in ZImagePipeline ---- */

static zi_store *open_transformer(zi_zimage_dit *model)
{
    char path[4096];
    zimage_error error = ZIMAGE_ERROR_INIT;
    zi_zimage_dit_config config;
    zi_store *store = NULL;
    snprintf(path, sizeof path, "%s/tiny/transformer/config.json", ZIMAGE_TEST_DATA);
    zimage_status status = zi_zimage_dit_config_read(path, NULL, &config, &error);
    snprintf(path, sizeof path, "%s/tiny/transformer", ZIMAGE_TEST_DATA);
    if (status == ZIMAGE_OK)
        status = zi_store_open(path, "diffusion_pytorch_model", &store, NULL, &error);
    if (status == ZIMAGE_OK)
        status = zi_zimage_dit_bind(model, &config, store, NULL, &error);
    if (status != ZIMAGE_OK)
        fail_msg("%s", error.message);
    return store;
}

#define LOOP_STEPS 8
#define LOOP_COUNT (4 * 6 * 8) /* latents of an image of 64 x 48 */

typedef struct loop_case {
    const char *name, *scheduler, *negative; /* negative NULL: no guidance */
    float guidance_scale, truncation, normalization;
} loop_case;

static zi_tensor refine_caption(const zi_zimage_dit *model, zi_run *run, const char *embeds)
{
    const zi_weight *weight = fixture_find(golden, embeds);
    float *values = fixture_floats(golden, embeds, NULL);
    const int64_t shape[] = {zi_zimage_dit_padded(weight->shape[0]), model->config.dim};
    zi_tensor features = table_tensor(run, 2, weight->shape, values), caption = table_tensor(run, 2, shape, NULL);
    table_ok(zi_zimage_dit_caption(model, run, &features, &caption));
    free(values);
    return caption;
}

static void evaluate(const zi_zimage_dit *model, zi_run *run, const float *latents, float t, const zi_tensor *caption,
                     float *prediction)
{
    const int64_t shape[] = {4, 6, 8};
    zi_arena_mark mark = zi_table(run)->mark(run);
    zi_tensor x = table_tensor(run, 3, shape, latents), out = table_tensor(run, 3, shape, NULL);
    table_ok(zi_zimage_dit_forward(model, run, &x, t, caption, &out));
    table_ok(zi_table(run)->download(run, prediction, &out));
    zi_table(run)->release(run, mark);
}

static void run_loop(const zi_zimage_dit *model, zi_run *run, const loop_case *c)
{
    float sigmas[LOOP_STEPS + 1], after[LOOP_STEPS][LOOP_COUNT], prediction[LOOP_COUNT], negative[LOOP_COUNT];
    char line[128], name[64];
    zi_scheduler_config config;
    zi_arena_mark mark = zi_table(run)->mark(run);
    zi_tensor caption = refine_caption(model, run, "loop.prompt_embeds"), negative_caption = caption;
    float *latents = fixture_floats(golden, "loop.noise", NULL);
    if (c->negative)
        negative_caption = refine_caption(model, run, c->negative);
    load(c->scheduler, &config);
    zi_scheduler_sigmas(&config, LOOP_STEPS, 3 * 4, sigmas);
    for (int i = 0; i < LOOP_STEPS; i++) {
        float t = zi_scheduler_model_time(sigmas[i]), scale = zi_guidance_at(c->guidance_scale, c->truncation, t);
        evaluate(model, run, latents, t, &caption, prediction);
        if (scale > 0) {
            evaluate(model, run, latents, t, &negative_caption, negative);
            zi_guide(prediction, negative, LOOP_COUNT, scale, c->normalization);
        }
        for (int k = 0; k < LOOP_COUNT; k++)
            prediction[k] = -prediction[k];
        zi_euler_step(latents, prediction, LOOP_COUNT, sigmas[i], sigmas[i + 1]);
        memcpy(after[i], latents, sizeof after[i]);
    }
    snprintf(name, sizeof name, "loop.%s.after", c->name);
    snprintf(line, sizeof line, "%s: %s", zi_table(run)->name, name);
    float *want = fixture_floats(golden, name, NULL);
    parity(line, after[0], want, sizeof after / sizeof(float), 2e-5);
    free(want);
    free(latents);
    zi_table(run)->release(run, mark);
}

static void test_loops(void **state)
{
    static const loop_case cases[] = {
        {"plain", "tiny", NULL, 0, 1, 0},
        {"dynamic", "tiny-base", NULL, 0, 1, 0},
        {"cfg", "tiny", "loop.negative_embeds", 4, 1, 0},
        {"cfg_default_negative", "tiny", "loop.empty_embeds", 1.5f, 1, 0},
        {"cfg_truncation_0.6", "tiny", "loop.negative_embeds", 4, 0.6f, 0},
        {"cfg_truncation_0.3", "tiny", "loop.negative_embeds", 4, 0.3f, 0},
        {"cfg_normalization", "tiny", "loop.negative_embeds", 4, 1, 1},
        {"cfg_normalization_0.8", "tiny", "loop.negative_embeds", 4, 1, 0.8f},
        {"cfg_both", "tiny", "loop.negative_embeds", 4, 0.6f, 1.2f},
    };
    zi_zimage_dit model;
    zi_store *store = open_transformer(&model);
    for (int t = 0; t < TABLES; t++) {
        zi_run *run = table_open(t);
        for (size_t i = 0; i < sizeof cases / sizeof *cases; i++)
            run_loop(&model, run, &cases[i]);
        table_close(run);
    }
    zi_zimage_dit_free(&model);
    zi_store_free(store);
}

/* Each change is refused, with a sentence that names the file and the field. */
static void test_refused_settings(void **state)
{
    static const struct {
        const char *json, *field;
        zimage_status status;
    } cases[] = {
        {"{\"use_karras_sigmas\": true}", "use_karras_sigmas", ZIMAGE_ERROR_UNSUPPORTED},
        {"{\"use_beta_sigmas\": true}", "use_beta_sigmas", ZIMAGE_ERROR_UNSUPPORTED},
        {"{\"use_exponential_sigmas\": true}", "use_exponential_sigmas", ZIMAGE_ERROR_UNSUPPORTED},
        {"{\"stochastic_sampling\": true}", "stochastic_sampling", ZIMAGE_ERROR_UNSUPPORTED},
        {"{\"invert_sigmas\": true}", "invert_sigmas", ZIMAGE_ERROR_UNSUPPORTED},
        {"{\"shift_terminal\": 0.02}", "shift_terminal", ZIMAGE_ERROR_UNSUPPORTED},
        {"{\"num_train_timesteps\": 500}", "num_train_timesteps", ZIMAGE_ERROR_UNSUPPORTED},
        {"{\"_class_name\": \"DDIMScheduler\"}", "_class_name", ZIMAGE_ERROR_UNSUPPORTED},
        {"{\"shift\": -1}", "shift", ZIMAGE_ERROR_MODEL},
        {"{\"shift\": \"3\"}", "shift", ZIMAGE_ERROR_MODEL},
        {"{\"use_dynamic_shifting\": 1}", "use_dynamic_shifting", ZIMAGE_ERROR_MODEL},
        {"{\"time_shift_type\": \"cubic\"}", "time_shift_type", ZIMAGE_ERROR_MODEL},
        {"{\"base_image_seq_len\": 64, \"max_image_seq_len\": 64}", "base_image_seq_len", ZIMAGE_ERROR_MODEL},
    };
    const char *path = temporary("scheduler_config.json");
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        zi_scheduler_config config;
        zimage_error error = ZIMAGE_ERROR_INIT;
        write_text(path, cases[i].json);
        zimage_status status = zi_scheduler_load(path, &config, &error);
        assert_error(&error, status, cases[i].status, path, cases[i].field, NULL);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_static_shift),       cmocka_unit_test(test_dynamic_shift),
        cmocka_unit_test(test_euler_and_guidance), cmocka_unit_test(test_loops),
        cmocka_unit_test(test_refused_settings),
    };
    return cmocka_run_group_tests(tests, open_golden, close_golden);
}
