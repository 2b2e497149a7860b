/*
 * A job is what one image takes, described once: a list of runs of stages, executed on any backend. zimage_generate
 * executes it; planning counts it on the counting backend and rehearses it on the session's; bench and self-test time
 * and compare its stages.
 *
 * The stack of a job, from the bottom: the contexts of all prompts | the text features of all prompts, until the last
 * context is made | then what prepare keeps for each prompt, until decoding. All prompts are encoded before the first
 * context is made, so that each network's weights are read in one go. Input images come first of all: what they become
 * is small, and lies in host memory.
 */
#ifndef ZI_PIPELINE_JOB_H
#define ZI_PIPELINE_JOB_H

#include "pipeline/model.h"

#define ZI_PROMPTS_MAX ZI_PASSES_MAX
#define ZI_IMAGES_MAX  8 /* no family reads more references */

/* The stages of a job: zimage_stage, and previews. */
#define ZI_STAGE_PREVIEW ZIMAGE_STAGE_COUNT
/* What all steps share of references, a part of the public context stage. Without references the first step does it. */
#define ZI_STAGE_PREPARE (ZIMAGE_STAGE_COUNT + 1)
#define ZI_STAGE_COUNT   (ZIMAGE_STAGE_COUNT + 2)

typedef struct zi_prompt {
    int64_t tokens;
    int encoded;           /* 1: by the text encoder, from ids; 0: from features */
    const int32_t *ids;    /* [tokens] */
    const float *features; /* [tokens, facts.features]; may be NULL in a rehearsal */
} zi_prompt;

/* An input image, of the size that the VAE encodes. */
typedef struct zi_job_image {
    zi_image_role role;
    int64_t pixel_rows, pixel_columns;
    const uint8_t *rgb8; /* [pixel_rows, pixel_columns, 3] in host memory, and */
    float *moments;      /* [family.moments_count]: what encoding writes; both may be NULL in a rehearsal */
} zi_job_image;

typedef struct zi_job {
    const zi_model *model;
    int64_t rows, columns;                 /* of the latents */
    int64_t preview_rows, preview_columns; /* of the latents of a preview; 0: no previews */
    int64_t band_rows;                     /* of the VAE, as family.decode takes it */
    int in_bf16;                           /* the session computes in bf16 (family.h) */
    int prompts;                           /* 2 with guidance, else 1 */
    zi_prompt prompt[ZI_PROMPTS_MAX];
    int images; /* input images, to be encoded */
    zi_job_image image[ZI_IMAGES_MAX];
    int references; /* that the transformer reads; their latents are known when all images are encoded */
    zi_reference reference[ZI_IMAGES_MAX];
    int composite;      /* outside of the mask the image becomes the input at the end */
    int masked;         /* a part of the start image stays */
    size_t given_bytes; /* of the request's images and mask, as they are */
    int steps;
    int single, single_stage; /* single: the list holds only this stage, and before it what a step needs */

    /* Inputs and outputs in host memory; all NULL in a rehearsal. */
    const float *latents;            /* [C, rows, columns], read by each denoise and by decode */
    float *velocity[ZI_PROMPTS_MAX]; /* [C, rows, columns]: what denoise writes, noise - clean */
    const float *preview_latents;    /* [C, preview_rows, preview_columns] */
    uint8_t *rgb8, *preview_rgb8;    /* what decode and preview write */
    float sigma;                     /* of the denoise under way */
    int passes;                      /* forward passes of the denoise under way; 0: one for each prompt */
    int batched;                     /* the passes of a denoise are one batch; else one runs after the other */
    /* For measuring: a denoise is the forward pass alone. Latents are copied to the device once, velocities never. */
    int forward_only;

    /* The job's own. */
    zi_tensor context[ZI_PROMPTS_MAX], features[ZI_PROMPTS_MAX];
    void *inputs[ZI_PROMPTS_MAX];                     /* family.inputs_size bytes each */
    zi_tensor kept_latents, kept_out[ZI_PROMPTS_MAX]; /* with forward_only */
    zi_arena_mark bottom, above_contexts;
    int prepared;
} zi_job;

/* `times` runs of stage number `stage`, for prompt or input image `index` where the stage has one for each. */
typedef struct zi_job_run {
    int stage, index, times;
} zi_job_run;

#define ZI_JOB_RUNS_MAX (ZI_IMAGES_MAX + 2 * ZI_PROMPTS_MAX + 4)

/* The runs of the job in order, of the components that the model has. Between denoise and decode: where there are
 * previews, each of the steps is followed by one. Returns how many. */
int zi_job_list(const zi_job *job, zi_job_run runs[ZI_JOB_RUNS_MAX]);
/* All stages, in the order of the list. */
extern const int zi_stage_order[ZI_STAGE_COUNT];
/* The component whose weights a stage reads. */
zi_component_kind zi_stage_component(int stage);
/* Whether both stages read the same weights of a component, all of them. */
int zi_stages_read_the_same(int one, int other);
/* Whether a job starts from an image. */
static inline int zi_job_starts(const zi_job *job)
{
    return job->images > 0 && job->image[0].role == ZI_IMAGE_START;
}

/* Blocks of one run of a stage, for progress; passes: forward passes of a denoise. A batch counts each block once. */
int64_t zi_stage_blocks(const zi_job *job, int stage, int passes);

/* Rows of a prompt's text features. */
int64_t zi_feature_rows(const zi_job *job, int index);

/* Takes the places of the contexts and features on the stack. What it allocates goes with zi_job_close, also after a
 * failure. */
zimage_status zi_job_open(zi_run *run, zi_job *job);
/* One run of a stage. Stages run in the order of the list; one may run several times in succession. */
zimage_status zi_job_stage(zi_run *run, zi_job *job, int stage, int index);
void zi_job_close(zi_run *run, zi_job *job);

/* Opens the job, executes each different run of its list once, calling `after` behind each, and closes it. */
typedef zimage_status zi_job_after(void *user, zi_run *run, const zi_job_run *of);
zimage_status zi_job_each(zi_run *run, zi_job *job, zi_job_after *after, void *user);

#endif
