/* Whether this machine computes correctly: every operation against plain C, and a tiny image by each set of kernels. */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define ZIMAGE_EXPERIMENTAL
#include "base/sized.h"
#include "base/stack.h"
#include "cpu/features.h"
#include "cpu/kernels.h"
#include "cpu/selftest.h"
#include "engine/backends.h"
#include "measure/synthetic.h"
#include "pipeline/job.h"
#include "sampler/noise.h"

/* The toy "small" with one layer of each stack; its image is the network's output for noise. */
#define TOKENS   6
#define CHANNELS 16
#define ROWS     4 /* of the latents */
#define COLUMNS  6
#define SCALE    8
#define SIGMA    0.7f /* the network's time is 0.3 */
#define LATENTS  (CHANNELS * ROWS * COLUMNS)
#define BYTES    (ROWS * SCALE * COLUMNS * SCALE * 3)

/* The reference backend's image: red, green and blue averaged over the pixels of each latent. */
static const uint8_t golden[ROWS * COLUMNS * 3] = {
    85, 235, 38, 84, 232, 35, 86, 232, 34, 85, 232, 34, 86, 232, 33, 81, 238, 44, /* a row */
    78, 238, 33, 77, 235, 28, 79, 233, 27, 78, 234, 27, 78, 234, 27, 78, 243, 38, /* */
    80, 238, 36, 81, 233, 32, 83, 233, 31, 81, 233, 31, 82, 234, 30, 79, 241, 40, /* */
    75, 243, 52, 77, 245, 53, 78, 245, 53, 77, 245, 52, 77, 245, 52, 85, 248, 57, /* */
};

/*
 * Differences of 8-bit numbers. Measured: float32 none, bf16 operands 0.21 on average and at most 2, int8 0.015 and 1.
 */
typedef struct bound {
    double mean;
    int largest;
} bound;

static const bound libm_bound = {0.1, 1}; /* of the reference from what is stored here */
static const bound float32_bound = {0.01, 1}, bf16_bound = {0.5, 4}, int8_bound = {0.05, 2}; /* from the reference */

/* The self-test under way. */
typedef struct selftest {
    zimage_selftest_params params;
    zi_model *model; /* the toy */
    zi_pool *pool;
    uint8_t reference[BYTES]; /* the reference backend's image */
    int passed;
    zimage_error *error;
} selftest;

/* The checks of one set of kernels. */
typedef struct kernel_checks {
    selftest *test;
    const char *name, *with; /* with: the tier beside a packed product, or NULL */
} kernel_checks;

static void report(selftest *t, zimage_check check)
{
    check.struct_size = sizeof check;
    check.passed = !check.fault;
    t->passed &= check.passed;
    if (t->params.check)
        t->params.check(&check, t->params.check_user);
}

/* ---- the image --------------------------------------------------------------------------------------------------- */

/* Latents of the toy's image: twice the network's output for noise, of the sign that it has. */
static void end_step(zi_job *job, float *latents, const float *velocity)
{
    for (int i = 0; i < LATENTS; i++)
        latents[i] = 2 * job->model->family->velocity_sign * velocity[i];
}

static zimage_status paint(const zi_model *model, zi_run *run, uint8_t *pixels)
{
    static const int32_t ids[TOKENS] = {1, 7919, 404, 7, 7, 8191};
    float latents[LATENTS], velocity[LATENTS];
    zi_job_run runs[ZI_JOB_RUNS_MAX];
    zi_job job = {.model = model,
                  .rows = ROWS,
                  .columns = COLUMNS,
                  .prompts = 1,
                  .prompt = {{.tokens = TOKENS, .encoded = 1, .ids = ids}},
                  .steps = 1,
                  .latents = latents,
                  .velocity = {velocity},
                  .rgb8 = pixels,
                  .sigma = SIGMA};
    int entries = zi_job_list(&job, runs);
    zi_noise noise;
    zi_noise_seed(&noise, ZIMAGE_RNG_TORCH_CPU, 42);
    zi_noise_next(&noise, ZI_NOISE_LATENTS, 0, latents, LATENTS);
    zimage_status status = zi_job_open(run, &job);
    for (int i = 0; i < entries && status == ZIMAGE_OK; i++) {
        status = zi_job_stage(run, &job, runs[i].stage, runs[i].index);
        if (runs[i].stage == ZIMAGE_STAGE_DENOISE)
            end_step(&job, latents, velocity);
    }
    zi_job_close(run, &job);
    return status;
}

static void average(const uint8_t *pixels, uint8_t *means)
{
    for (int i = 0; i < ROWS * COLUMNS * 3; i++) {
        int row = i / 3 / COLUMNS * SCALE, column = i / 3 % COLUMNS * SCALE, sum = 0;
        for (int k = 0; k < SCALE * SCALE; k++)
            sum += pixels[((row + k / SCALE) * COLUMNS * SCALE + column + k % SCALE) * 3 + i % 3];
        means[i] = (uint8_t)((sum + SCALE * SCALE / 2) / (SCALE * SCALE));
    }
}

static void compare(const kernel_checks *k, const uint8_t *found, const uint8_t *expected, int count,
                    const bound *allowed)
{
    int sum = 0, largest = 0;
    char fault[120];
    for (int i = 0; i < count; i++) {
        int difference = abs(found[i] - expected[i]);
        sum += difference;
        largest = difference > largest ? difference : largest;
    }
    double mean = (double)sum / count;
    int passed = mean <= allowed->mean && largest <= allowed->largest;
    snprintf(fault, sizeof fault, "image: mean difference %.3g, largest %d of 255; allowed %g and %d", mean, largest,
             allowed->mean, allowed->largest);
    report(k->test, (zimage_check){.usable = 1,
                                   .kernels = k->name,
                                   .name = "image",
                                   .error = mean,
                                   .largest = largest,
                                   .fault = passed ? NULL : fault});
}

/* A NaN is a finding; anything else that fails is an error. */
static zimage_status try_to_paint(const kernel_checks *k, zi_ops *ops, uint8_t *pixels, int *painted)
{
    zimage_error error = ZIMAGE_ERROR_INIT;
    zi_run run = {.ops = ops, .error = &error};
    char fault[sizeof error.message + 16];
    zimage_status status = paint(k->test->model, &run, pixels);
    *painted = status == ZIMAGE_OK;
    if (status == ZIMAGE_OK)
        return ZIMAGE_OK;
    if (status != ZIMAGE_ERROR_NOT_FINITE)
        return zi_fail(k->test->error, status, "%s", error.message);
    snprintf(fault, sizeof fault, "image: %s", error.message);
    report(k->test,
           (zimage_check){.usable = 1, .kernels = k->name, .name = "image", .error = INFINITY, .fault = fault});
    return ZIMAGE_OK;
}

/* ---- kernels ----------------------------------------------------------------------------------------------------- */

static void on_finding(void *user, const zi_case_finding *finding)
{
    const kernel_checks *k = user;
    char fault[300];
    snprintf(fault, sizeof fault, "%s %s%s%s%s", finding->group, finding->fault ? finding->fault : "",
             k->with ? " (with " : "", k->with ? k->with : "", k->with ? "'s packing)" : "");
    report(k->test, (zimage_check){.usable = 1,
                                   .kernels = k->name,
                                   .name = finding->group,
                                   .error = finding->error,
                                   .fault = finding->fault ? fault : NULL});
}

/* A packed product is checked with the other kernels of every usable tier. */
static zimage_status check_kernels(kernel_checks *k, const zi_cpu_set *set, uint32_t features)
{
    selftest *t = k->test;
    zi_cpu_set tier;
    if (!set->gemm)
        return zi_cpu_selftest(t->pool, set, on_finding, k, t->error);
    for (int i = 0; zi_cpu_set_at(i, features, &tier) && !tier.gemm; i++)
        if (tier.usable) {
            k->with = tier.name;
            tier.gemm = set->gemm;
            ZI_TRY(zi_cpu_selftest(t->pool, &tier, on_finding, k, t->error));
        }
    return ZIMAGE_OK;
}

static zimage_status check_image(const kernel_checks *k, const zi_cpu_set *set)
{
    selftest *t = k->test;
    zi_ops *ops;
    uint8_t pixels[BYTES];
    int painted;
    ZI_TRY(zi_cpu_new_with_set(t->pool, set, &ops, t->error));
    zimage_status status = try_to_paint(k, ops, pixels, &painted);
    ops->table->free(ops);
    const bound *allowed = !set->gemm ? &float32_bound : set->gemm->b == ZI_NUMBER_BF16 ? &bf16_bound : &int8_bound;
    if (painted)
        compare(k, pixels, t->reference, BYTES, allowed);
    return status;
}

static zimage_status check_reference(selftest *t)
{
    const kernel_checks k = {t, "reference", NULL};
    zi_ops *ops;
    uint8_t means[sizeof golden];
    int painted;
    report(t, (zimage_check){.usable = 1, .kernels = k.name, .name = "begin", .error = -1});
    ZI_TRY(zi_ops_reference_new(&ops, t->error));
    zimage_status status = try_to_paint(&k, ops, t->reference, &painted);
    ops->table->free(ops);
    average(t->reference, means);
    if (painted)
        compare(&k, means, golden, sizeof golden, &libm_bound);
    return status;
}

static zimage_status check_set(selftest *t, const zi_cpu_set *set, uint32_t features)
{
    kernel_checks k = {t, set->name, NULL};
    report(t, (zimage_check){.usable = set->usable, .kernels = k.name, .name = "begin", .error = -1});
    if (!set->usable)
        return ZIMAGE_OK;
    ZI_TRY(check_kernels(&k, set, features));
    return check_image(&k, set);
}

/* ---- GPUs -------------------------------------------------------------------------------------------------------- */

/* What a GPU is checked in, and how far its image may be from the reference's. Measured on the emulated GPU: see
 * bounds. */
static const struct {
    zimage_compute compute;
    bound allowed;
} gpu_computes[] = {
    {ZIMAGE_COMPUTE_F32, {0.05, 1}},
    {ZIMAGE_COMPUTE_BF16, {1.5, 12}},
    {ZIMAGE_COMPUTE_FP8, {4, 32}},
};

/* One compute type; kernels that the GPU lacks are reported as not usable. */
static zimage_status check_gpu_compute(selftest *t, int index)
{
    char name[64];
    const zi_backend_choice choice = {.device = t->params.device, .compute = gpu_computes[index].compute};
    const zi_cases_options options = {.compute = choice.compute, .quick = 1};
    zimage_error why = ZIMAGE_ERROR_INIT;
    zi_ops *ops = NULL;
    uint8_t pixels[BYTES];
    int painted = 0;
    snprintf(name, sizeof name, "%s %s", t->params.device, zimage_compute_name(choice.compute));
    kernel_checks k = {t, name, NULL};
    zimage_status status = zi_backend_open(&choice, t->pool, &ops, &why);
    if (status != ZIMAGE_OK && (status != ZIMAGE_ERROR_UNSUPPORTED || choice.compute != ZIMAGE_COMPUTE_FP8))
        return zi_fail(t->error, status, "%s", why.message);
    report(t, (zimage_check){.usable = status == ZIMAGE_OK, .kernels = name, .name = "begin", .error = -1});
    if (status != ZIMAGE_OK)
        return ZIMAGE_OK;
    status = zi_cases_run(ops, &options, on_finding, &k, t->error);
    if (status == ZIMAGE_OK)
        status = try_to_paint(&k, ops, pixels, &painted);
    if (painted)
        compare(&k, pixels, t->reference, BYTES, &gpu_computes[index].allowed);
    ops->table->free(ops);
    return status;
}

static zimage_status check_gpu(selftest *t)
{
    ZI_TRY(check_reference(t));
    for (size_t i = 0; i < sizeof gpu_computes / sizeof *gpu_computes; i++)
        ZI_TRY(check_gpu_compute(t, (int)i));
    return ZIMAGE_OK;
}

/* ---- the whole --------------------------------------------------------------------------------------------------- */

static zimage_status check_cpu(selftest *t)
{
    uint32_t features;
    zi_cpu_set set;
    ZI_TRY(zi_cpu_mask_parse(t->params.cpu_mask, &features, t->error));
    features &= zi_cpu_features();
    ZI_TRY(check_reference(t));
    for (int i = 0; zi_cpu_set_at(i, features, &set); i++)
        ZI_TRY(check_set(t, &set, features));
    return ZIMAGE_OK;
}

static int is_on_cpu(const zimage_selftest_params *params)
{
    return !params->device || zi_backend_cpu.index_of(params->device) >= 0;
}

static zimage_status check_all(selftest *t)
{
    const zi_synthetic toy = {.model = "small", .format = "bf16", .layers = 1};
    ZI_TRY(zi_pool_new(0, &t->pool, t->error));
    ZI_TRY(zi_synthetic_new(&toy, (1u << ZI_COMPONENTS) - 1, t->pool, &t->model, t->error));
    return is_on_cpu(&t->params) ? check_cpu(t) : check_gpu(t);
}

zimage_status zimage_selftest(const zimage_selftest_params *params, int32_t *passed, zimage_error *error)
{
    selftest t = {.passed = 1, .error = error};
    if (!passed)
        return zi_fail(error, ZIMAGE_ERROR_ARGUMENT, "passed: NULL, expected where to put the result");
    ZI_TRY(zi_stack_check(error));
    ZI_TRY(ZI_TAKE(&t.params, params, zimage_selftest_params, check_user, error));
    if (t.params.cpu_mask && !is_on_cpu(&t.params))
        return zi_fail(error, ZIMAGE_ERROR_ARGUMENT, "cpu_mask: \"%s\", expected none with device \"%s\"",
                       t.params.cpu_mask, t.params.device);
    if (t.params.device && !strcmp(t.params.device, "auto"))
        return zi_fail(error, ZIMAGE_ERROR_ARGUMENT, "device: \"auto\", expected the name of a device");
    zimage_status status = check_all(&t);
    zi_model_close(t.model);
    zi_pool_free(t.pool);
    *passed = status == ZIMAGE_OK && t.passed;
    return status;
}
