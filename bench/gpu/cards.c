/*
 * A transformer of published sizes with random weights, on one GPU and on several at a time: how far its results are
 * from float32, and how long an evaluation takes, in turn (A B A B).
 *
 *   bench_cards MODEL f32|bf16|fp8 "SIZES" PASSES ROUNDS errors|times DEVICE...
 *   bench_cards z-image-turbo bf16 "1024 2048" 1 2 errors cuda:0 cuda:0,1
 *
 * Prints one line of JSON for each result. With "errors" the first device also computes in float32: errors are relative
 * to that (norm of the difference / norm of the result). PASSES 2: as with guidance, both in a batch.
 */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/clock.h"
#include "engine/backends.h"
#include "measure/synthetic.h"
#include "pipeline/job.h"

#define DEVICES_MAX 8
#define EVALUATIONS 8
#define WARM        3 /* the last of them is recorded */
#define TOKENS      64
#define SIGMA       0.6f

static zimage_error error = ZIMAGE_ERROR_INIT;

static void check(zimage_status status)
{
    if (status == ZIMAGE_OK)
        return;
    fprintf(stderr, "cards: %s\n", error.message);
    exit(1);
}

/* Normal numbers of a seed. */
static float *noise(int64_t count, uint64_t seed)
{
    float *values = malloc((size_t)count * sizeof *values);
    if (!values)
        check(zi_fail_memory(&error, "inputs", (size_t)count * sizeof *values));
    for (int64_t i = 0; i < count; i++) {
        float sum = 0;
        for (int k = 0; k < 6; k++) {
            seed = seed * 6364136223846793005u + 1442695040888963407u;
            sum += (float)(seed >> 40) / (1 << 24) - 0.5f;
        }
        values[i] = sum * 1.414f;
    }
    return values;
}

/* The inputs of evaluations at one size. */
typedef struct inputs {
    const zi_model *model;
    int64_t side, count, tokens[ZI_PROMPTS_MAX];
    int passes;
    float *latents, *features[ZI_PROMPTS_MAX];
} inputs;

static inputs inputs_of(const zi_model *model, int size, int passes)
{
    const zi_facts *facts = &model->facts;
    inputs in = {.model = model, .side = size / facts->scale_factor, .passes = passes};
    in.count = facts->latent_channels * in.side * in.side;
    in.latents = noise(in.count, 1);
    for (int i = 0; i < passes; i++) {
        in.tokens[i] = model->family->feature_rows(model->networks, i > 0 ? TOKENS / 2 : TOKENS);
        in.features[i] = noise(in.tokens[i] * facts->features, 2 + (uint64_t)i);
    }
    return in;
}

static void free_inputs(inputs *in)
{
    free(in->latents);
    for (int i = 0; i < in->passes; i++)
        free(in->features[i]);
}

/* Evaluations on one device, one after the other. */
typedef struct bench {
    zi_run run;
    zi_job job;
} bench;

/* velocity [passes][count]: what each evaluation writes */
static void begin(bench *b, const inputs *in, float *velocity)
{
    zi_job_run runs[ZI_JOB_RUNS_MAX];
    b->job = (zi_job){.model = in->model,
                      .rows = in->side,
                      .columns = in->side,
                      .in_bf16 = 1,
                      .prompts = in->passes,
                      .batched = 1,
                      .steps = 1,
                      .single = 1,
                      .single_stage = ZIMAGE_STAGE_DENOISE,
                      .latents = in->latents,
                      .sigma = SIGMA};
    for (int i = 0; i < in->passes; i++) {
        b->job.prompt[i] = (zi_prompt){.tokens = in->tokens[i], .features = in->features[i]};
        b->job.velocity[i] = velocity + i * in->count;
    }
    check(zi_job_open(&b->run, &b->job));
    for (int i = 0, count = zi_job_list(&b->job, runs); i < count; i++)
        if (runs[i].stage != ZIMAGE_STAGE_DENOISE)
            check(zi_job_stage(&b->run, &b->job, runs[i].stage, runs[i].index));
}

/* Seconds of so many evaluations, with the copies of latents and velocities. */
static double evaluate(bench *b, int times)
{
    double start = zi_now();
    for (int i = 0; i < times; i++)
        check(zi_job_stage(&b->run, &b->job, ZIMAGE_STAGE_DENOISE, 0));
    return zi_now() - start;
}

static void open_device(bench *b, const char *device, zimage_compute compute, zi_pool *pool)
{
    const zi_backend_choice choice = {.device = device, .compute = compute};
    b->run = (zi_run){.error = &error};
    check(zi_backend_open(&choice, pool, &b->run.ops, &error));
}

static double distance(const float *a, const float *b, int64_t count)
{
    double difference = 0, norm = 0;
    for (int64_t i = 0; i < count; i++) {
        difference += ((double)a[i] - b[i]) * ((double)a[i] - b[i]);
        norm += (double)b[i] * b[i];
    }
    return sqrt(difference / norm);
}

typedef struct request {
    const char *model, *compute;
    const char *const *devices;
    int count, rounds, errors;
    zi_pool *pool;
} request;

static void time_all(const request *r, bench *all, int size)
{
    for (int round = 0; round < r->rounds; round++)
        for (int i = 0; i < r->count; i++) {
            (void)evaluate(&all[i], 1);
            printf("{\"what\": \"time\", \"model\": \"%s\", \"compute\": \"%s\", \"size\": %d, \"passes\": %d, "
                   "\"device\": "
                   "\"%s\", \"round\": %d, \"ms\": %.3f}\n",
                   r->model, r->compute, size, all[i].job.prompts, r->devices[i], round,
                   evaluate(&all[i], EVALUATIONS) * 1e3 / EVALUATIONS);
            fflush(stdout);
        }
}

/* exact: what the first device computes in float32 */
static void measure_errors(const request *r, bench *all, const inputs *in, int size, float *const *results,
                           const float *exact)
{
    int64_t count = in->count * in->passes;
    for (int i = 0; i < r->count; i++)
        printf(
            "{\"what\": \"error\", \"model\": \"%s\", \"compute\": \"%s\", \"size\": %d, \"passes\": %d, \"device\": "
            "\"%s\", \"from_float32\": %.6f, \"from_first\": %.6f, \"GiB\": %.2f}\n",
            r->model, r->compute, size, in->passes, r->devices[i], r->errors ? distance(results[i], exact, count) : -1,
            distance(results[i], results[0], count),
            (double)zi_table(&all[i].run)->device_bytes(all[i].run.ops) / (1 << 30));
    fflush(stdout);
}

static void run_size(const request *r, const zi_model *model, bench *all, bench *exact, int size, int passes)
{
    inputs in = inputs_of(model, size, passes);
    float *results[DEVICES_MAX + 1];
    for (int i = 0; i <= r->count; i++)
        results[i] = noise(in.count * passes, 9);
    if (r->errors) {
        begin(exact, &in, results[r->count]);
        (void)evaluate(exact, 1);
        zi_job_close(&exact->run, &exact->job);
    }
    for (int i = 0; i < r->count; i++) {
        begin(&all[i], &in, results[i]);
        (void)evaluate(&all[i], WARM);
    }
    measure_errors(r, all, &in, size, results, results[r->count]);
    time_all(r, all, size);
    for (int i = 0; i <= r->count; i++) {
        if (i < r->count)
            zi_job_close(&all[i].run, &all[i].job);
        free(results[i]);
    }
    free_inputs(&in);
}

int main(int argc, char **argv)
{
    bench all[DEVICES_MAX], exact;
    zimage_compute compute;
    if (argc < 8 || argc > 7 + DEVICES_MAX || !zimage_compute_parse(argv[2], &compute) || atoi(argv[4]) < 1 ||
        atoi(argv[4]) > ZI_PROMPTS_MAX) {
        fprintf(stderr, "usage: bench_cards MODEL f32|bf16|fp8 \"SIZES\" 1|2 ROUNDS errors|times DEVICE...\n");
        return 2;
    }
    request r = {argv[1], argv[2], (const char *const *)argv + 7, argc - 7, atoi(argv[5]), !strcmp(argv[6], "errors"),
                 NULL};
    zi_model *model;
    check(zi_pool_new(0, &r.pool, &error));
    check(zi_synthetic_new(&(zi_synthetic){.model = argv[1], .format = "bf16"}, 1u << ZI_TRANSFORMER, r.pool, &model,
                           &error));
    if (r.errors)
        open_device(&exact, r.devices[0], ZIMAGE_COMPUTE_F32, r.pool);
    for (int i = 0; i < r.count; i++)
        open_device(&all[i], r.devices[i], compute, r.pool);
    for (char *size = strtok(argv[3], " "); size; size = strtok(NULL, " "))
        run_size(&r, model, all, &exact, atoi(size), atoi(argv[4]));
    for (int i = 0; i < r.count; i++)
        zi_table(&all[i].run)->free(all[i].run.ops);
    if (r.errors)
        zi_table(&exact.run)->free(exact.run.ops);
    zi_model_close(model);
    zi_pool_free(r.pool);
    return 0;
}
