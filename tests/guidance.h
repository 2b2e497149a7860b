/* One step with guidance of a tiny model, its two forward passes one after the other or as a batch. */
#ifndef ZI_TESTS_GUIDANCE_H
#define ZI_TESTS_GUIDANCE_H

#include "engine/backends.h"
#include "engine/plan.h"
#include "engine/session.h"
#include "support.h"

typedef struct guided_step {
    const char *name;
    int64_t rows, columns; /* of the latents */
    int64_t tokens[2];     /* text features of the prompts */
    int references;
} guided_step;

/* Sizes with and without padding, prompts of equal and of other length; klein with references. */
static const guided_step guided_zimage[] = {
    {"prompts of other length", 8, 12, {40, 7}, 0},
    {"a longer negative prompt", 20, 22, {31, 100}, 0},
    {"prompts of equal length", 6, 10, {32, 32}, 0},
};
static const guided_step guided_klein[] = {
    {"prompts of other length", 3, 5, {20, 17}, 0},
    {"a reference", 4, 3, {9, 33}, 1},
    {"two references", 11, 10, {24, 24}, 2},
};

#define GUIDED_REFERENCES 2
#define GUIDED_SIGMA      0.625f

/* Numbers of bf16, which a run in bf16 takes as they are. free() them. */
static inline float *guided_floats(size_t count, uint32_t state)
{
    float *values = malloc(count * sizeof *values);
    assert_non_null(values);
    for (size_t i = 0; i < count; i++) {
        state = state * 1664525u + 1013904223u;
        values[i] = (float)((int)(state >> 24) - 128) / 64;
    }
    return values;
}

static inline zi_job guided_job(const zimage_session *session, const guided_step *step, int batched)
{
    const zi_facts *facts = &session->inner->facts;
    zi_job job = {.model = session->inner,
                  .rows = step->rows,
                  .columns = step->columns,
                  .prompts = 2,
                  .steps = 1,
                  .single = 1,
                  .single_stage = ZIMAGE_STAGE_DENOISE,
                  .sigma = GUIDED_SIGMA,
                  .references = step->references,
                  .batched = batched};
    size_t count = (size_t)(facts->latent_channels * step->rows * step->columns);
    job.latents = guided_floats(count, 1);
    for (int i = 0; i < 2; i++) {
        job.prompt[i].tokens = step->tokens[i];
        job.prompt[i].features = guided_floats((size_t)(step->tokens[i] * facts->features), 2 + (uint32_t)i);
        job.velocity[i] = guided_floats(count, 4);
    }
    for (int i = 0; i < step->references; i++)
        job.reference[i] =
            (zi_reference){2, 3 + i, guided_floats((size_t)(facts->latent_channels * 2 * (3 + i)), 5 + (uint32_t)i)};
    return job;
}

static inline void guided_free(zi_job *job)
{
    free((float *)job->latents);
    for (int i = 0; i < 2; i++) {
        free((float *)job->prompt[i].features);
        free(job->velocity[i]);
    }
    for (int i = 0; i < job->references; i++)
        free((float *)job->reference[i].latents);
}

/* What the step takes of the stack is what was planned. */
static inline void guided_run(zimage_session *session, zi_job *job, zi_memory_plan *memory)
{
    zimage_error error = ZIMAGE_ERROR_INIT;
    zi_run run = {.ops = session->ops, .error = &error};
    zi_job_run runs[ZI_JOB_RUNS_MAX];
    size_t stack, before = zi_table(&run)->peak_bytes(session->ops);
    zimage_status status = zi_plan_stage(session, job, &stack, memory, &error);
    int count = zi_job_list(job, runs);
    if (status == ZIMAGE_OK)
        status = zi_job_open(&run, job);
    for (int i = 0; i < count && status == ZIMAGE_OK; i++)
        status = zi_job_stage(&run, job, runs[i].stage, runs[i].index);
    if (status == ZIMAGE_OK)
        zi_job_close(&run, job);
    else
        fail_msg("%s", error.message);
    size_t peak = zi_table(&run)->peak_bytes(session->ops);
    /* A device's rehearsal also has stack memory for weights that the run finds resident. */
    int exact = !zi_has_own_memory(session->ops);
    if (stack > before && (peak > stack || (exact && (double)peak < 0.97 * (double)stack)))
        fail_msg("%zu bytes of the stack were planned, %zu taken", stack, peak);
}

/* Numbers of a velocity. */
static inline size_t guided_count(const zi_job *job)
{
    return (size_t)(job->model->facts.latent_channels * job->rows * job->columns);
}

/* The same bytes, of two passes that differ. */
static inline void guided_compare(const char *backend, const zi_job *job, const zi_job *batch, size_t count,
                                  const char *name)
{
    for (int i = 0; i < 2; i++)
        if (memcmp(batch->velocity[i], job->velocity[i], count * sizeof(float)))
            fail_msg("%s: a batch of two passes, %s: pass %d has other bytes", backend, name, i + 1);
    assert_true(memcmp(batch->velocity[0], batch->velocity[1], count * sizeof(float)) != 0);
}

#endif
