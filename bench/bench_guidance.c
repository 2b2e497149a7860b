/*
 * User CPU seconds of one thread for a step with guidance: its two forward passes one after the other, and as a batch.
 *   cmake --build build/release --target bench_guidance && build/release/bench_guidance MODEL FORMAT COMPUTE SIDE \
 *       [LAYERS [REPEATS [serial or batch]]]
 * MODEL, FORMAT, LAYERS: as zimage bench --synthetic; COMPUTE: f32, bf16 or int8; SIDE: of the image in pixels.
 * It runs both in turn, and also says whether their results have the same bytes. With one of them alone it times
 * nothing: for counting instructions with valgrind --tool=callgrind.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>

#include "cpu/cpu.h"
#include "measure/synthetic.h"
#include "pipeline/job.h"

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
                                       : ZIMAGE_COMPUTE_F32;
}

/* In the program, not in the system. */
static double cpu_seconds(void)
{
    struct rusage usage;
    getrusage(RUSAGE_SELF, &usage);
    return (double)usage.ru_utime.tv_sec + 1e-6 * (double)usage.ru_utime.tv_usec;
}

/* User seconds of one step; the results are in job->velocity. */
static double step(zi_run *run, zi_job *job, int batched)
{
    job->batched = batched;
    double start = cpu_seconds();
    check(zi_job_stage(run, job, ZIMAGE_STAGE_DENOISE, 0));
    return cpu_seconds() - start;
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

static void time_both(zi_run *run, zi_job *job, int repeats, size_t count)
{
    double seconds[2][REPEATS_MAX];
    int same = 1;
    size_t bytes = count * sizeof(float);
    float *kept = random_floats(2 * count);
    for (int i = 0; i < repeats; i++)
        for (int form = 0; form < 2; form++) {
            int batched = (i + form) % 2;
            seconds[batched][i] = step(run, job, batched);
            for (int k = 0; k < 2; k++) {
                same &= form == 0 || memcmp(kept + (size_t)k * count, job->velocity[k], bytes) == 0;
                memcpy(kept + (size_t)k * count, job->velocity[k], bytes);
            }
        }
    double serial = median(seconds[0], repeats), batch = median(seconds[1], repeats);
    printf("one after the other %.4f s, batch %.4f s: %.3f; %s bytes\n", serial, batch, batch / serial,
           same ? "the same" : "other");
    free(kept);
}

int main(int argc, char **argv)
{
    if (argc < 5) {
        fprintf(stderr, "usage: bench_guidance MODEL FORMAT COMPUTE SIDE [LAYERS [REPEATS [serial or batch]]]\n");
        return 2;
    }
    const zi_synthetic synthetic = {argv[1], argv[2], argc > 5 ? atoi(argv[5]) : 0};
    const zi_cpu_options options = {.compute = compute_named(argv[3])};
    zi_job job = {.prompts = 2, .steps = 1, .sigma = 0.5f, .in_bf16 = options.compute == ZIMAGE_COMPUTE_BF16};
    zi_pool *pool;
    zi_model *model;
    zi_run run = {.error = &error};
    check(zi_pool_new(1, &pool, &error));
    check(zi_synthetic_new(&synthetic, 1u << ZI_TRANSFORMER, pool, &model, &error));
    check(zi_ops_cpu_new(pool, &options, &run.ops, &error));
    job.model = model;
    job.rows = job.columns = atoi(argv[4]) / model->facts.scale_factor;
    size_t count = (size_t)(model->facts.latent_channels * job.rows * job.columns);
    job.latents = random_floats(count);
    for (int i = 0; i < 2; i++) {
        int64_t rows = model->family->feature_rows(model->networks, i ? NEGATIVE : POSITIVE);
        job.prompt[i] = (zi_prompt){.tokens = rows, .features = random_floats((size_t)(rows * model->facts.features))};
        job.velocity[i] = random_floats(count);
    }
    check(zi_job_open(&run, &job));
    for (int i = 0; i < 2; i++)
        check(zi_job_stage(&run, &job, ZIMAGE_STAGE_TEXT, i));
    for (int i = 0; i < 2; i++)
        check(zi_job_stage(&run, &job, ZIMAGE_STAGE_CONTEXT, i));
    if (argc > 7)
        step(&run, &job, strcmp(argv[7], "batch") == 0);
    else
        time_both(&run, &job, argc > 6 && atoi(argv[6]) < REPEATS_MAX ? atoi(argv[6]) : 3, count);
    zi_job_close(&run, &job);
    zi_model_close(model);
    zi_table(&run)->free(run.ops);
    zi_pool_free(pool);
    return 0;
}
