/*
 * Seconds of a step with guidance, its two forward passes one after the other and as a batch: user CPU seconds of one
 * thread, or on a GPU the time from the start of a step until the GPU has finished it.
 *   cmake --build build/release --target bench_guidance && build/release/bench_guidance MODEL FORMAT COMPUTE SIDE \
 *       [LAYERS [REPEATS [FORM [DEVICE]]]]
 * MODEL, FORMAT, LAYERS: as zimage bench --synthetic; COMPUTE: f32, bf16, int8 or fp8; SIDE: of the image in pixels;
 * FORM: serial, batch or both; DEVICE: cpu or cuda.
 * It runs both in turn, and also says how much their results differ. With one of them alone it times nothing: for
 * counting instructions with valgrind --tool=callgrind.
 */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>

#include "base/clock.h"
#include "engine/backends.h"
#include "engine/plan.h"
#include "engine/session.h"
#include "measure/synthetic.h"

#define POSITIVE    61 /* tokens of the prompts */
#define NEGATIVE    7
#define REPEATS_MAX 100

static zimage_error error = ZIMAGE_ERROR_INIT;

static void check(zimage_status status)
{
    if (status != ZIMAGE_OK) {
        fprintf(stderr, "%s\n", error.message);
        exit(1);
    }
}

static float *random_floats(size_t count)
{
    float *values = malloc(count * sizeof *values);
    if (!values)
        exit(1);
    for (size_t i = 0; i < count; i++)
        values[i] = (float)(rand() % 2001 - 1000) / 1000;
    return values;
}

static zimage_compute compute_named(const char *name)
{
    return strcmp(name, "int8") == 0   ? ZIMAGE_COMPUTE_INT8
           : strcmp(name, "bf16") == 0 ? ZIMAGE_COMPUTE_BF16
           : strcmp(name, "fp8") == 0  ? ZIMAGE_COMPUTE_FP8
                                       : ZIMAGE_COMPUTE_F32;
}

/* On a CPU in the program, not in the system. */
static double seconds_now(const zi_run *run)
{
    struct rusage usage;
    if (zi_has_own_memory(run->ops))
        return zi_now();
    getrusage(RUSAGE_SELF, &usage);
    return (double)usage.ru_utime.tv_sec + 1e-6 * (double)usage.ru_utime.tv_usec;
}

/* Seconds of one step; the results are in job->velocity. */
static double step(zi_run *run, zi_job *job, int batched)
{
    job->batched = batched;
    double start = seconds_now(run);
    check(zi_job_stage(run, job, ZIMAGE_STAGE_DENOISE, 0));
    check(zi_table(run)->finish(run));
    return seconds_now(run) - start;
}

static int compare(const void *a, const void *b)
{
    double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

static double median(double *values, int count)
{
    qsort(values, (size_t)count, sizeof *values, compare);
    return values[count / 2];
}

/* The largest difference of two results. */
static double difference(const float *a, const float *b, size_t count)
{
    double largest = 0;
    for (size_t i = 0; i < count; i++)
        largest = fmax(largest, fabs((double)a[i] - (double)b[i]));
    return largest;
}

static void time_both(zi_run *run, zi_job *job, int repeats, size_t count)
{
    double seconds[2][REPEATS_MAX], largest = 0;
    int same = 1;
    size_t bytes = count * sizeof(float);
    float *kept = random_floats(2 * count);
    for (int i = 0; i < repeats; i++)
        for (int form = 0; form < 2; form++) {
            int batched = (i + form) % 2;
            seconds[batched][i] = step(run, job, batched);
            for (size_t k = 0; k < 2; k++) {
                same &= form == 0 || memcmp(kept + k * count, job->velocity[k], bytes) == 0;
                if (form == 1)
                    largest = fmax(largest, difference(kept + k * count, job->velocity[k], count));
                memcpy(kept + k * count, job->velocity[k], bytes);
            }
        }
    double serial = median(seconds[0], repeats), batch = median(seconds[1], repeats);
    printf("one after the other %.4f s, batch %.4f s: %.3f; %s bytes, largest difference %.3g\n", serial, batch,
           batch / serial, same ? "the same" : "other", largest);
    free(kept);
}

/* On a model that has a transformer only. */
static zimage_session *open_session(const zi_synthetic *synthetic, zimage_compute compute, const char *device)
{
    const zimage_session_params params = {
        .struct_size = sizeof params, .device = device, .compute = compute, .threads = strcmp(device, "cpu") == 0};
    zimage_session *session;
    zimage_model *model;
    zi_model *inner;
    zi_pool *pool;
    check(zi_pool_new(params.threads, &pool, &error));
    check(zi_synthetic_new(synthetic, 1u << ZI_TRANSFORMER, pool, &inner, &error));
    zi_pool_free(pool);
    check(zi_model_handle(inner, &model, &error));
    check(zi_session_new(model, &params, &session, &error));
    zimage_model_close(model);
    return session;
}

/* Two prompts and random numbers; rows and columns are set. Returns the numbers of a result. */
static size_t fill_job(zi_job *job)
{
    const zi_model *model = job->model;
    size_t count = (size_t)(model->facts.latent_channels * job->rows * job->columns);
    job->latents = random_floats(count);
    for (int i = 0; i < 2; i++) {
        int64_t rows = model->family->feature_rows(model->networks, i ? NEGATIVE : POSITIVE);
        job->prompt[i] = (zi_prompt){.tokens = rows, .features = random_floats((size_t)(rows * model->facts.features))};
        job->velocity[i] = random_floats(count);
    }
    return count;
}

/* Plans the larger form, and runs what comes before the first step. */
static void begin(zimage_session *session, zi_run *run, zi_job *job)
{
    zi_job_run runs[ZI_JOB_RUNS_MAX];
    zi_memory_plan memory;
    size_t stack;
    job->batched = 1;
    check(zi_plan_stage(session, job, &stack, &memory, &error));
    check(zi_job_open(run, job));
    int count = zi_job_list(job, runs);
    for (int i = 0; i < count && runs[i].stage != ZIMAGE_STAGE_DENOISE; i++)
        check(zi_job_stage(run, job, runs[i].stage, runs[i].index));
}

int main(int argc, char **argv)
{
    if (argc < 5) {
        fprintf(stderr, "usage: bench_guidance MODEL FORMAT COMPUTE SIDE [LAYERS [REPEATS [FORM [DEVICE]]]]\n");
        return 2;
    }
    const zi_synthetic synthetic = {argv[1], argv[2], argc > 5 ? atoi(argv[5]) : 0};
    const char *form = argc > 7 ? argv[7] : "both";
    int repeats = argc > 6 && atoi(argv[6]) < REPEATS_MAX ? atoi(argv[6]) : 3;
    zimage_compute compute = compute_named(argv[3]);
    zimage_session *session = open_session(&synthetic, compute, argc > 8 ? argv[8] : "cpu");
    zi_run run = {.ops = session->ops, .error = &error};
    zi_job job = {.model = session->inner,
                  .prompts = 2,
                  .steps = 1,
                  .single = 1,
                  .single_stage = ZIMAGE_STAGE_DENOISE,
                  .sigma = 0.5f,
                  .in_bf16 = compute == ZIMAGE_COMPUTE_BF16 || compute == ZIMAGE_COMPUTE_FP8};
    job.rows = job.columns = atoi(argv[4]) / session->inner->facts.scale_factor;
    size_t count = fill_job(&job);
    begin(session, &run, &job);
    if (zi_has_own_memory(run.ops)) /* the first steps copy weights and choose algorithms */
        for (int batched = 0; batched < 2; batched++)
            step(&run, &job, batched);
    if (strcmp(form, "both") == 0)
        time_both(&run, &job, repeats, count);
    else
        step(&run, &job, strcmp(form, "batch") == 0);
    zi_job_close(&run, &job);
    zimage_session_close(session);
    return 0;
}
