/* What a job will compute and hold: counted and rehearsed by running the job itself (pipeline/job.h). */
#ifndef ZI_ENGINE_PLAN_H
#define ZI_ENGINE_PLAN_H

#include "engine/session.h"
#include "ops/ops_count.h"
#include "pipeline/job.h"

#define ZI_NARROWEST_BAND 8 /* rows of the VAE; below it the halo rows, computed twice, cost more than a quarter */

typedef struct zi_job_plan {
    zi_counts counts[ZIMAGE_STAGE_COUNT]; /* all prompts and steps; weight_bytes: distinct ones, once */
    double flops[ZIMAGE_STAGE_COUNT];
    double prepare_flops;                   /* those of ZIMAGE_STAGE_CONTEXT that ZI_STAGE_PREPARE does */
    size_t activations[ZIMAGE_STAGE_COUNT]; /* bytes: of the stack, and of buffers in host memory */
    size_t peak[ZIMAGE_STAGE_COUNT];        /* of the process in host memory */
    size_t most;                            /* the largest of peak */
    size_t least;                           /* what most would be with the narrowest bands and released weights */
    size_t taken;      /* bytes that the job takes from the system and that it can't drop, as it can pages of weights */
    int64_t band_rows; /* for family.decode */
    int batched;       /* for the job: its steps' forward passes are one batch */
    zi_memory_plan memory;                  /* of a device with its own memory; else only activations */
    zi_traffic traffic[ZIMAGE_STAGE_COUNT]; /* of several GPUs, all runs of a stage */
} zi_job_plan;

/* What limits a plan. */
typedef struct zi_plan_limits {
    uint64_t memory; /* most bytes of the process in host memory; 0: no limit */
    uint64_t free;   /* without that limit: most bytes that the job may take; ZI_NO_LIMIT: as many as it needs */
    int releases;    /* the job gives weights back after their last stage; it must with a limit */
    int commit;      /* 1: divides a device's memory for the job, which must come next, and begins to copy weights */
} zi_plan_limits;

/*
 * Plans a job (its size; no data). The VAE's bands become narrower where host memory would not suffice, or where that
 * lets weights stay on a device. With guidance the two forward passes of a step are one batch where that suits the
 * backend, where memory suffices, and where it copies no more weights to a device. ZIMAGE_ERROR_MEMORY with the numbers
 * where the job does not fit. The stack must be empty.
 */
zimage_status zi_plan_job(const zimage_session *session, const zi_job *job, const zi_plan_limits *limits,
                          zi_job_plan *plan, zimage_error *error);

/* Counts of a job's stages alone, for one step. */
zimage_status zi_count_job(const zi_job *job, zi_counts counts[ZI_STAGE_COUNT], zimage_error *error);

/*
 * For a job of a single stage (zi_job.single) that runs job->steps times: rehearses it, divides a device's own memory
 * for those runs, which must come next, and sets job->band_rows so that weights can stay. *stack: most bytes of
 * activations. ZIMAGE_ERROR_MEMORY where the machine has less than that and the image's buffers free.
 */
zimage_status zi_plan_stage(const zimage_session *session, zi_job *job, size_t *stack, zi_memory_plan *memory,
                            zimage_error *error);

/* The public form of a device's plan; step: the stage whose copied weights are step_bytes. */
void zi_memory_info(const zi_memory_plan *plan, int step, zimage_memory_info *info);

#endif
