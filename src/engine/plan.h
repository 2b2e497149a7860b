/* What a job will compute and hold, counted by running its own model code on the plan table. */
#ifndef ZI_ENGINE_PLAN_H
#define ZI_ENGINE_PLAN_H

#include "engine/context.h"
#include "ops/ops_plan.h"

#define ZI_MAX_PROMPTS 2

typedef struct zi_job_size {
    int64_t rows, columns; /* of the latents */
    int prompts;
    int64_t tokens[ZI_MAX_PROMPTS]; /* of each prompt */
    int encoded[ZI_MAX_PROMPTS];    /* 0: its features are the caller's */
    int steps;
    int64_t preview_rows, preview_columns; /* latents of the preview after each step; 0: none */
    int64_t band_rows;                     /* of the VAE, as zi_vae_decode takes it */
} zi_job_size;

#define ZI_NARROWEST_BAND 8 /* rows of the VAE; below it the halo rows, computed twice, cost more than a quarter */
#define ZI_PLAN_PREVIEW   ZIMAGE_STAGES /* a stage like the others: decoding what is shown between steps */

/* Runs a stage's networks on a table that touches no data: see zi_plan_stage. */
zimage_status zi_plan_run(const zimage_context *context, const zi_job_size *size, int stage, zi_ops *plan);
/* The next narrower band; 0 is what the decoder would choose itself. */
int64_t zi_plan_narrower(int64_t band_rows, int64_t image_rows);

/* One stage once: a prompt's encoding or caption (the last prompt's, with the captions before it on the stack), one step
 * (an evaluation for each prompt), the decoding. A component that the context lacks counts as nothing. */
zimage_status zi_plan_stage(const zimage_context *context, const zi_job_size *size, zimage_stage stage,
                            zi_plan_counts *counts, zimage_error *error);

/* A job's memory. */
typedef struct zi_job_plan {
    double flops[ZIMAGE_STAGES]; /* all prompts, all steps */
    zi_plan_counts counts[ZIMAGE_STAGES];
    size_t activations[ZIMAGE_STAGES], peak[ZIMAGE_STAGES];
    int64_t band_rows; /* for zi_vae_decode */
    size_t most;       /* the largest of peak */
    size_t least;      /* what most would be with release and the narrowest bands */
} zi_job_plan;

/*
 * limit: bytes, 0 = none. releases: the job releases weights behind their stage (it must with a limit), and they are counted
 * only while it runs. With a limit the VAE's bands become as narrow as needed; a job that still does not fit is
 * ZIMAGE_ERROR_MEMORY with the numbers of each stage.
 */
zimage_status zi_plan_job(const zimage_context *context, const zi_job_size *size, uint64_t limit, int releases,
                          zi_job_plan *plan, zimage_error *error);

#endif
