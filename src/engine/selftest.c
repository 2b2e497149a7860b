/* Whether this machine computes rightly: every kernel against the C table, and a tiny picture by each set of kernels. */
#include <jansson.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/clock.h"
#include "cpu/features.h"
#include "cpu/selftest.h"
#include "engine/synthetic.h"
#include "sampler/noise.h"

/* The toy "small" with one layer of each stack; its picture is the network's answer to noise. */
#define TOKENS   6
#define CHANNELS 16
#define ROWS     4 /* of the latents */
#define COLUMNS  6
#define SCALE    8
#define LATENTS  (CHANNELS * ROWS * COLUMNS)
#define BYTES    (ROWS * SCALE * COLUMNS * SCALE * 3)

/* The reference table's picture: red, green and blue averaged over the pixels of each latent. */
static const uint8_t golden[ROWS * COLUMNS * 3] = {
    85, 235, 38, 84, 232, 35, 86, 232, 34, 85, 232, 34, 86, 232, 33, 81, 238, 44, /* a row */
    78, 238, 33, 77, 235, 28, 79, 233, 27, 78, 234, 27, 78, 234, 27, 78, 243, 38, /* */
    80, 238, 36, 81, 233, 32, 83, 233, 31, 81, 233, 31, 82, 234, 30, 79, 241, 40, /* */
    75, 243, 52, 77, 245, 53, 78, 245, 53, 77, 245, 52, 77, 245, 52, 85, 248, 57, /* */
};

/* Differences of 8-bit numbers. Measured: float32 none, bf16 operands 0.21 on average and at most 2, int8 0.015 and 1. */
typedef struct bound {
    double mean;
    int largest;
} bound;

static const bound libm_bound = {0.1, 1}; /* of the reference from what is stored here */
static const bound float32_bound = {0.01, 1}, bf16_bound = {0.5, 4}, int8_bound = {0.05, 2}; /* from the reference */

typedef struct job {
    zimage_context *context; /* the toy; its pool serves every table */
    uint32_t features;
    uint8_t reference[BYTES];
    json_t *kernels;
    int passed;
    zi_log log;
    zimage_error *error;
} job;

/* What is told of one set of kernels. */
typedef struct report {
    const char *name, *with; /* with: the tier under a family's products, or NULL */
    json_t *checks, *faults, *picture;
    double max_error;
} report;

static json_t *real_or_null(double value)
{
    return isfinite(value) ? json_real(value) : json_null();
}

/* ---- the picture ------------------------------------------------------------------------------------------------- */

static zimage_status evaluate(const zimage_context *c, zi_ops *ops, const zi_tensor *caption, float *latents)
{
    static const int64_t shape[] = {CHANNELS, ROWS, COLUMNS};
    zi_tensor x, y;
    ZI_TRY(ops->table->alloc_f32(ops, &x, 3, shape));
    ZI_TRY(ops->table->alloc_f32(ops, &y, 3, shape));
    ZI_TRY(ops->table->upload(ops, &x, latents));
    ZI_TRY(zi_dit_forward(&c->transformer, ops, &x, 0.3f, caption, &y));
    ZI_TRY(ops->table->download(ops, latents, &y));
    for (int i = 0; i < LATENTS; i++)
        latents[i] *= 2;
    return ZIMAGE_OK;
}

static zimage_status paint(const zimage_context *c, zi_ops *ops, uint8_t *pixels)
{
    const int64_t text[] = {TOKENS, c->text_encoder.config.hidden_size};
    const int64_t refined[] = {zi_dit_padded(TOKENS), c->transformer.config.dim};
    static const int32_t ids[TOKENS] = {1, 7919, 404, 7, 7, 8191};
    float latents[LATENTS];
    zi_tensor features, caption;
    zi_noise(ZIMAGE_RNG_TORCH_CPU, 42, latents, LATENTS);
    ZI_TRY(ops->table->alloc(ops, &features, 2, text));
    ZI_TRY(ops->table->alloc(ops, &caption, 2, refined));
    ZI_TRY(zi_qwen3_encode(&c->text_encoder, ops, ids, TOKENS, &features));
    ZI_TRY(zi_dit_caption(&c->transformer, ops, &features, &caption));
    ZI_TRY(evaluate(c, ops, &caption, latents));
    ZI_TRY(zi_vae_decode(&c->vae, ops, latents, ROWS, COLUMNS, 0, NULL, pixels));
    return ZIMAGE_OK;
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

static void compare(report *r, const uint8_t *found, const uint8_t *expected, int count, const bound *allowed)
{
    int sum = 0, largest = 0;
    for (int i = 0; i < count; i++) {
        int difference = abs(found[i] - expected[i]);
        sum += difference;
        largest = difference > largest ? difference : largest;
    }
    double mean = (double)sum / count;
    int passed = mean <= allowed->mean && largest <= allowed->largest;
    r->picture = json_pack("{s:b, s:f, s:i}", "passed", passed, "mean_difference", mean, "largest_difference", largest);
    if (!passed)
        json_array_append_new(r->faults,
                              json_sprintf("picture: mean difference %.3g, largest %d of 255; allowed %g and %d", mean,
                                           largest, allowed->mean, allowed->largest));
}

/* A NaN is a finding; anything else that fails is an error. */
static zimage_status try_to_paint(job *j, report *r, zi_ops *ops, uint8_t *pixels, int *painted)
{
    zimage_error error = ZIMAGE_ERROR_INIT;
    zi_arena_mark mark = ops->table->mark(ops);
    ops->error = &error;
    zimage_status status = paint(j->context, ops, pixels);
    ops->table->release(ops, mark);
    ops->error = NULL;
    *painted = status == ZIMAGE_OK;
    if (status == ZIMAGE_OK)
        return ZIMAGE_OK;
    if (status != ZIMAGE_ERROR_NOT_FINITE)
        return zi_fail(j->error, status, "%s", error.message);
    r->picture = json_pack("{s:b, s:n, s:n}", "passed", 0, "mean_difference", "largest_difference");
    json_array_append_new(r->faults, json_sprintf("picture: %s", error.message));
    return ZIMAGE_OK;
}

/* ---- kernels ----------------------------------------------------------------------------------------------------- */

/* The entry of that name, made when there is none. */
static json_t *check_of(const report *r, const char *kernel)
{
    for (size_t i = 0; i < json_array_size(r->checks); i++) {
        json_t *check = json_array_get(r->checks, i);
        if (!strcmp(json_string_value(json_object_get(check, "name")), kernel))
            return check;
    }
    json_array_append_new(r->checks, json_pack("{s:s, s:b, s:f}", "name", kernel, "passed", 1, "max_error", 0.0));
    return json_array_get(r->checks, json_array_size(r->checks) - 1);
}

static void on_finding(void *user, const zi_cpu_finding *finding)
{
    report *r = user;
    json_t *check = check_of(r, finding->kernel), *max_error = json_object_get(check, "max_error");
    if (!json_is_null(max_error) && !(finding->error <= json_real_value(max_error)))
        json_object_set_new(check, "max_error", real_or_null(finding->error));
    r->max_error = fmax(r->max_error, finding->error);
    if (!finding->fault)
        return;
    json_object_set_new(check, "passed", json_false());
    json_array_append_new(r->faults,
                          json_sprintf("%s %s%s%s%s", finding->kernel, finding->fault, r->with ? " (with " : "",
                                       r->with ? r->with : "", r->with ? "'s packing)" : ""));
}

/* A family's products are tried with the other kernels of every usable tier. */
static zimage_status check_kernels(job *j, const zi_cpu_set *set, report *r)
{
    zi_cpu_set tier;
    if (!set->gemm)
        return zi_cpu_selftest(j->context->pool, set, on_finding, r, j->error);
    for (int i = 0; zi_cpu_set_at(i, j->features, &tier) && !tier.gemm; i++)
        if (tier.usable) {
            r->with = tier.name;
            tier.gemm = set->gemm;
            ZI_TRY(zi_cpu_selftest(j->context->pool, &tier, on_finding, r, j->error));
        }
    return ZIMAGE_OK;
}

static zimage_status check_picture(job *j, const zi_cpu_set *set, report *r)
{
    zi_ops *ops;
    uint8_t pixels[BYTES];
    int painted;
    ZI_TRY(zi_cpu_new_with_set(j->context->pool, set, &ops, j->error));
    zimage_status status = try_to_paint(j, r, ops, pixels, &painted);
    ops->table->free(ops);
    const bound *allowed = !set->gemm ? &float32_bound : set->gemm->b == ZI_NUMBER_BF16 ? &bf16_bound : &int8_bound;
    if (painted)
        compare(r, pixels, j->reference, BYTES, allowed);
    return status;
}

static zimage_status check_reference(job *j, report *r)
{
    zi_ops *ops;
    uint8_t means[sizeof golden];
    int painted;
    ZI_TRY(zi_ops_reference_new(&ops, j->error));
    zimage_status status = try_to_paint(j, r, ops, j->reference, &painted);
    ops->table->free(ops);
    average(j->reference, means);
    if (painted)
        compare(r, means, golden, sizeof golden, &libm_bound);
    return status;
}

/* ---- the whole --------------------------------------------------------------------------------------------------- */

/* set NULL: the reference table. */
static zimage_status check_set(job *j, const zi_cpu_set *set)
{
    report r = {.name = set ? set->name : "reference", .checks = json_array(), .faults = json_array()};
    zimage_status status = ZIMAGE_OK;
    int usable = !set || set->usable, passed;
    if (usable)
        zi_inform(&j->log, "checking %s", r.name);
    if (!set)
        status = check_reference(j, &r);
    else if (usable)
        status = check_kernels(j, set, &r);
    if (set && usable && status == ZIMAGE_OK)
        status = check_picture(j, set, &r);
    passed = json_array_size(r.faults) == 0;
    j->passed &= passed;
    json_array_append_new(j->kernels, json_pack("{s:s, s:b, s:o, s:o, s:o, s:o?, s:o}", "name", r.name, "usable",
                                                usable, "passed", usable ? json_boolean(passed) : json_null(),
                                                "max_error", usable && set ? real_or_null(r.max_error) : json_null(),
                                                "checks", r.checks, "picture", r.picture, "faults", r.faults));
    return status;
}

static zimage_status check_all(job *j)
{
    zi_cpu_set set;
    ZI_TRY(check_set(j, NULL));
    for (int i = 0; zi_cpu_set_at(i, j->features, &set); i++)
        ZI_TRY(check_set(j, &set));
    return ZIMAGE_OK;
}

zimage_status zimage_selftest(const char *cpu_mask,
                              void (*log)(zimage_log_level level, const char *message, void *user), void *log_user,
                              char **json, zimage_error *error)
{
    if (!json)
        return zi_fail(error, ZIMAGE_ERROR_ARGUMENT, "json: NULL, expected where to put the text");
    *json = NULL;
    double start = zi_now();
    job j = {.passed = 1, .log = {log, log_user}, .error = error};
    const zi_synthetic toy = {.model = "small", .format = "bf16", .layers = 1, .cpu_mask = cpu_mask};
    ZI_TRY(zi_cpu_mask_parse(cpu_mask, &j.features, error));
    j.features &= zi_cpu_features();
    ZI_TRY(zi_context_new_synthetic(&toy, ZI_PARTS, &j.context, error));
    j.kernels = json_array();
    zimage_status status = check_all(&j);
    zimage_close(j.context);
    json_t *all = json_pack("{s:b, s:o, s:f}", "passed", j.passed, "kernels", j.kernels, "seconds", zi_now() - start);
    if (status == ZIMAGE_OK)
        *json = all ? json_dumps(all, JSON_COMPACT | JSON_REAL_PRECISION(6)) : NULL;
    json_decref(all);
    if (status == ZIMAGE_OK && !*json)
        return zi_fail_memory(error, "the report", 0);
    return status;
}
