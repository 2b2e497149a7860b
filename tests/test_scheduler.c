/* Sigmas, timesteps, guidance and configuration against diffusers (tests/golden/scheduler.safetensors). */
#include "files.h"
#include "fixture.h"
#include "pipeline/job.h"
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

static const zi_family *const family = &zi_family_zimage;

/* The network's time at a sigma: the smallest truncation that still lets guidance through (pipeline/family.h). */
static float model_time(float sigma)
{
    double below = 0, time = 1; /* guidance_at is 0 at below */
    assert_true(family->guidance_at(1, time, sigma) == 1);
    if (family->guidance_at(1, below, sigma) == 1)
        return 0;
    for (double middle = 0.5; middle > below && middle < time; middle = below + (time - below) / 2)
        if (family->guidance_at(1, middle, sigma) == 1)
            time = middle;
        else
            below = middle;
    return (float)time;
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
        times[i] = model_time(sigmas[i]);
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
    char name[64], note[64];
    snprintf(name, sizeof name, "host: sigmas: %s", what);
    snprintf(note, sizeof note, " (%zu of %zu schedules equal)", equal_schedules, schedules);
    parity_line(name, worst_sigma, 1e-7, note);
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

/* FLUX.2: numpy's base sigmas, and a mu that depends on tokens and steps. */
static void check_flux2(zi_store *store, const zi_scheduler_config *config, const char *kind, int tokens, int steps)
{
    char name[96];
    float sigmas[201];
    double mu;
    snprintf(name, sizeof name, "schedule.%s.tokens%d.steps%d.mu", kind, tokens, steps);
    memcpy(&mu, fixture_find(store, name)->data, sizeof mu);
    assert_true(zi_flux2_mu(tokens, steps) == mu);
    snprintf(name, sizeof name, "schedule.%s.tokens%d.steps%d.sigmas", kind, tokens, steps);
    if (!zi_store_find(store, name))
        return;
    float *want = fixture_floats(store, name, NULL);
    zi_flux2_sigmas(config, steps, tokens, sigmas);
    double worst = 0;
    for (int i = 0; i <= steps; i++)
        worst = fmax(worst, fabs((double)sigmas[i] - want[i]));
    schedules++;
    equal_schedules += worst == 0;
    worst_sigma = fmax(worst_sigma, worst);
    free(want);
}

static void test_flux2(void **state)
{
    static const int tokens[] = {1, 16, 255, 1024, 2304, 4096, 4300, 4301, 8192, 16384};
    static const int counts[] = {1, 2, 3, 4, 5, 8, 20, 28, 50, 200};
    static const struct {
        const char *kind;
        zi_scheduler_config config;
    } others[] = {{"linear", {.shift = 3, .use_dynamic_shifting = 1, .linear_time_shift = 1}},
                  {"static", {.shift = 3}}};
    zi_store *store = fixture_open("klein.safetensors");
    zi_scheduler_config config;
    load("tiny-klein", &config);
    const zi_scheduler_config published = zi_scheduler_flux2();
    assert_true(config.use_dynamic_shifting && !config.linear_time_shift);
    assert_true(published.use_dynamic_shifting && !published.linear_time_shift);
    for (size_t k = 0; k < sizeof tokens / sizeof *tokens; k++)
        for (size_t n = 0; n < sizeof counts / sizeof *counts; n++)
            check_flux2(store, &config, "exponential", tokens[k], counts[n]);
    for (size_t i = 0; i < sizeof others / sizeof *others; i++)
        for (int steps = 4; steps <= 50; steps += 46)
            check_flux2(store, &others[i].config, others[i].kind, 1024, steps);
    report("FLUX.2");
    zi_store_free(store);
}

static void test_euler_and_guidance(void **state)
{
    float latents[2] = {1, -2};
    const float prediction[2] = {0.5f, 4};
    zi_euler_step(latents, prediction, 2, 1.0f, 0.75f, 0);
    assert_true(latents[0] == 0.875f && latents[1] == -3);

    float positive[2] = {3, 4};
    const float negative[2] = {1, 4};
    family->guide(positive, negative, 2, 2.0f, 0);
    assert_true(positive[0] == 7 && positive[1] == 4);

    float limited[2] = {3, 4}; /* |(9, 12)| = 15 > 5 */
    const float zero[2] = {0, 0};
    family->guide(limited, zero, 2, 2.0f, 1.0f);
    assert_true(fabsf(limited[0] - 3) < 1e-6f && fabsf(limited[1] - 4) < 1e-6f);

    assert_true(family->guidance_at(4, 1, 0.01f) == 4); /* time 0.99 */
    assert_true(family->guidance_at(4, 0.6, 0.5f) == 4);
    assert_true(family->guidance_at(4, 0.6, 0.25f) == 0); /* time 0.75 */
    assert_true(family->guidance_at(4, 2, 0.25f) == 4);
}

/* ---- eight steps of the tiny transformer, as ZImagePipeline takes them ---- */

#define LOOP_STEPS 8
#define ROWS       6 /* of the latents of 64 x 48 */
#define COLUMNS    8
#define LOOP_COUNT (4 * ROWS * COLUMNS)

typedef struct loop_case {
    const char *name, *scheduler, *negative; /* negative NULL: no guidance */
    float guidance_scale, truncation, normalization;
} loop_case;

/* The tiny model with the scheduler of another folder. */
static zi_model *open_model(const char *scheduler)
{
    char folder[4096];
    zimage_error error = ZIMAGE_ERROR_INIT;
    const zi_model_choice choice = {.dequantize = ZI_GROUPED, .scheduler = folder};
    zi_model *model;
    snprintf(folder, sizeof folder, "%s/%s/scheduler", ZIMAGE_TEST_DATA, scheduler);
    if (zi_model_open(ZIMAGE_TEST_DATA "/tiny", &choice, NULL, &model, &error) != ZIMAGE_OK)
        fail_msg("%s", error.message);
    return model;
}

/* Text features that the golden file holds; free() them. */
static void give_features(zi_job *job, const char *name)
{
    float *values = fixture_floats(golden, name, NULL);
    job->prompt[job->prompts++] = (zi_prompt){.tokens = fixture_find(golden, name)->shape[0], .features = values};
}

/* after [LOOP_STEPS][LOOP_COUNT] <- the latents behind each step */
static void take_steps(zi_run *run, zi_job *job, const loop_case *c, float *latents, float *after)
{
    float sigmas[LOOP_STEPS + 1];
    table_ok(family->sigmas(job->model->networks, &job->model->scheduler, LOOP_STEPS, ROWS, COLUMNS, sigmas, NULL));
    for (int i = 0; i < LOOP_STEPS; i++) {
        float scale = family->guidance_at(c->guidance_scale, c->truncation, sigmas[i]);
        job->sigma = sigmas[i];
        job->passes = scale > 0 ? 2 : 1;
        table_ok(zi_job_stage(run, job, ZIMAGE_STAGE_DENOISE, 0));
        if (scale > 0)
            family->guide(job->velocity[0], job->velocity[1], LOOP_COUNT, scale, c->normalization);
        zi_euler_step(latents, job->velocity[0], LOOP_COUNT, sigmas[i], sigmas[i + 1], 0);
        memcpy(after + i * LOOP_COUNT, latents, LOOP_COUNT * sizeof *after);
    }
}

static void run_loop(zi_run *run, const loop_case *c)
{
    float after[LOOP_STEPS * LOOP_COUNT], velocity[2][LOOP_COUNT];
    char line[128], name[64];
    zi_model *model = open_model(c->scheduler);
    float *latents = fixture_floats(golden, "loop.noise", NULL);
    zi_job job = {.model = model,
                  .rows = ROWS,
                  .columns = COLUMNS,
                  .steps = LOOP_STEPS,
                  .latents = latents,
                  .velocity = {velocity[0], velocity[1]}};
    give_features(&job, "loop.prompt_embeds");
    if (c->negative)
        give_features(&job, c->negative);
    table_ok(zi_job_open(run, &job));
    for (int stage = ZIMAGE_STAGE_TEXT; stage <= ZIMAGE_STAGE_CONTEXT; stage++)
        for (int i = 0; i < job.prompts; i++)
            table_ok(zi_job_stage(run, &job, stage, i));
    take_steps(run, &job, c, latents, after);
    zi_job_close(run, &job);
    snprintf(name, sizeof name, "loop.%s.after", c->name);
    snprintf(line, sizeof line, "%s: steps and guidance: %s", zi_table(run)->name, name);
    float *want = fixture_floats(golden, name, NULL);
    parity(line, after, want, sizeof after / sizeof(float), 2e-5);
    free(want);
    free(latents);
    for (int i = 0; i < job.prompts; i++)
        free((float *)job.prompt[i].features);
    zi_model_close(model);
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
    for (int t = 0; t < TABLES; t++) {
        zi_run *run = table_open(t);
        for (size_t i = 0; i < sizeof cases / sizeof *cases; i++)
            run_loop(run, &cases[i]);
        table_close(run);
    }
}

/* Each of these is refused with a sentence that names the file and the field. */
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
        {"{\"shift\": null}", "shift", ZIMAGE_ERROR_MODEL},
        {"{\"shift\": 1e300}", "shift", ZIMAGE_ERROR_MODEL},
        {"{\"shift\": NaN}", "line 1, column 13", ZIMAGE_ERROR_FORMAT},
        {"{\"shift\": Infinity}", "not valid JSON", ZIMAGE_ERROR_FORMAT},
        {"{\"shift\": 1e999}", "within", ZIMAGE_ERROR_FORMAT},
        {"{\"base_shift\": null}", "base_shift", ZIMAGE_ERROR_MODEL},
        {"{\"max_shift\": null}", "max_shift", ZIMAGE_ERROR_MODEL},
        {"{\"max_shift\": 51}", "max_shift", ZIMAGE_ERROR_MODEL},
        {"{\"base_image_seq_len\": null}", "base_image_seq_len", ZIMAGE_ERROR_MODEL},
        {"{\"max_image_seq_len\": null}", "max_image_seq_len", ZIMAGE_ERROR_MODEL},
        {"{\"num_train_timesteps\": null}", "num_train_timesteps", ZIMAGE_ERROR_MODEL},
        {"{\"time_shift_type\": null}", "time_shift_type", ZIMAGE_ERROR_MODEL},
        {"{\"use_dynamic_shifting\": true, \"shift\": 0}", "shift", ZIMAGE_ERROR_MODEL},
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

/* What the class's defaults are, and where a null can't change the result. */
static void test_defaults(void **state)
{
    static const char *const cases[] = {
        "{}",
        "{\"shift\": 1, \"shift_terminal\": null, \"made_up\": 7}",
        "{\"shift\": 3.0, \"_use_default_values\": [\"shift\"], \"shift_terminal\": 0}",
        "{\"use_dynamic_shifting\": null, \"invert_sigmas\": null, \"stochastic_sampling\": null}",
    };
    const char *path = temporary("scheduler_config.json");
    zimage_error error = ZIMAGE_ERROR_INIT;
    zi_scheduler_config config;
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        write_text(path, cases[i]);
        if (zi_scheduler_load(path, &config, &error) != ZIMAGE_OK)
            fail_msg("%s: %s", cases[i], error.message);
        assert_true(config.shift == 1 && config.base_shift == 0.5 && config.max_shift == 1.15);
        assert_true(!config.use_dynamic_shifting && !config.linear_time_shift);
        assert_int_equal(config.base_image_seq_len, 256);
        assert_int_equal(config.max_image_seq_len, 4096);
    }
    write_text(path, "{\"shift\": null, \"use_dynamic_shifting\": true}");
    assert_int_equal(zi_scheduler_load(path, &config, &error), ZIMAGE_OK);
    assert_true(config.use_dynamic_shifting);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_static_shift), cmocka_unit_test(test_dynamic_shift),
        cmocka_unit_test(test_flux2),        cmocka_unit_test(test_euler_and_guidance),
        cmocka_unit_test(test_loops),        cmocka_unit_test(test_refused_settings),
        cmocka_unit_test(test_defaults),
    };
    return cmocka_run_group_tests(tests, open_golden, close_golden);
}
