#include "pipeline/job.h"

#include <stdlib.h>

/* ---- the list of stages ------------------------------------------------------------------------------------------ */

static zimage_status run_encode(zi_run *run, zi_job *job, int index);
static zimage_status run_text(zi_run *run, zi_job *job, int index);
static zimage_status run_context(zi_run *run, zi_job *job, int index);
static zimage_status run_prepare(zi_run *run, zi_job *job, int index);
static zimage_status run_denoise(zi_run *run, zi_job *job, int index);
static zimage_status run_decode(zi_run *run, zi_job *job, int index);
static zimage_status run_preview(zi_run *run, zi_job *job, int index);

typedef enum each { EACH_JOB, EACH_PROMPT, EACH_IMAGE } each;

static const struct {
    zi_component_kind component;
    each each; /* what the stage has a run for */
    zimage_status (*run)(zi_run *run, zi_job *job, int index);
} stages[ZI_STAGE_COUNT] = {
    [ZIMAGE_STAGE_ENCODE] = {ZI_VAE, EACH_IMAGE, run_encode},
    [ZIMAGE_STAGE_TEXT] = {ZI_TEXT_ENCODER, EACH_PROMPT, run_text},
    [ZIMAGE_STAGE_CONTEXT] = {ZI_TRANSFORMER, EACH_PROMPT, run_context},
    [ZI_STAGE_PREPARE] = {ZI_TRANSFORMER, EACH_JOB, run_prepare},
    [ZIMAGE_STAGE_DENOISE] = {ZI_TRANSFORMER, EACH_JOB, run_denoise},
    [ZI_STAGE_PREVIEW] = {ZI_VAE, EACH_JOB, run_preview},
    [ZIMAGE_STAGE_DECODE] = {ZI_VAE, EACH_JOB, run_decode},
};

const int zi_stage_order[ZI_STAGE_COUNT] = {
    ZIMAGE_STAGE_ENCODE,  ZIMAGE_STAGE_TEXT, ZIMAGE_STAGE_CONTEXT, ZI_STAGE_PREPARE,
    ZIMAGE_STAGE_DENOISE, ZI_STAGE_PREVIEW,  ZIMAGE_STAGE_DECODE,
};

zi_component_kind zi_stage_component(int stage)
{
    return stages[stage].component;
}

int zi_stages_read_the_same(int one, int other)
{
    static const int same[][2] = {{ZI_STAGE_PREVIEW, ZIMAGE_STAGE_DECODE}, {ZI_STAGE_PREPARE, ZIMAGE_STAGE_DENOISE}};
    for (size_t i = 0; i < sizeof same / sizeof *same; i++)
        if ((one == same[i][0] && other == same[i][1]) || (one == same[i][1] && other == same[i][0]))
            return 1;
    return one == other;
}

/* Whether `single` can't run without `stage`: a step reads the context. */
static int is_needed(int single, int stage)
{
    int before_step = stage == ZIMAGE_STAGE_TEXT || stage == ZIMAGE_STAGE_CONTEXT || stage == ZI_STAGE_PREPARE;
    return stage == single || (single == ZIMAGE_STAGE_DENOISE && before_step) ||
           (single == ZIMAGE_STAGE_CONTEXT && stage == ZIMAGE_STAGE_TEXT);
}

/* How often a stage runs (for each prompt or image). Text features that the caller brings need no text encoder. */
static int times_of(const zi_job *job, int stage)
{
    if (job->single && !is_needed(job->single_stage, stage))
        return 0;
    int features_only = stage == ZIMAGE_STAGE_TEXT && zi_model_has(job->model, ZI_TRANSFORMER);
    if (!features_only && !zi_model_has(job->model, stages[stage].component))
        return 0;
    if (stage == ZI_STAGE_PREVIEW)
        return job->preview_rows > 0 ? job->steps : 0;
    if (stage == ZI_STAGE_PREPARE)
        return job->references > 0;
    return stage == ZIMAGE_STAGE_DENOISE || (job->single && stage == job->single_stage) ? job->steps : 1;
}

int zi_job_list(const zi_job *job, zi_job_run runs[ZI_JOB_RUNS_MAX])
{
    int count = 0;
    const int indices[] = {[EACH_JOB] = 1, [EACH_PROMPT] = job->prompts, [EACH_IMAGE] = job->images};
    for (int i = 0; i < ZI_STAGE_COUNT; i++) {
        int stage = zi_stage_order[i], times = times_of(job, stage);
        for (int index = 0; times > 0 && index < indices[stages[stage].each]; index++)
            runs[count++] = (zi_job_run){stage, index, times};
    }
    return count;
}

int64_t zi_stage_blocks(const zi_job *job, int stage, int passes)
{
    const zi_family *family = job->model->family;
    const zi_networks *networks = job->model->networks;
    switch (stage) {
    case ZIMAGE_STAGE_ENCODE:
        return family->encode_image_blocks(networks);
    case ZIMAGE_STAGE_TEXT:
        return family->encode_blocks(networks);
    case ZIMAGE_STAGE_CONTEXT:
        return family->context_blocks(networks);
    case ZI_STAGE_PREPARE:
        return family->prepare_blocks(networks, job->references);
    case ZIMAGE_STAGE_DENOISE:
        return (job->batched ? 1 : passes) * family->forward_blocks(networks);
    default:
        return family->decode_blocks(networks);
    }
}

/* ---- opening and closing ----------------------------------------------------------------------------------------- */

int64_t zi_feature_rows(const zi_job *job, int index)
{
    const zi_prompt *prompt = &job->prompt[index];
    return prompt->encoded ? job->model->family->feature_rows(job->model->networks, prompt->tokens) : prompt->tokens;
}

zimage_status zi_job_open(zi_run *run, zi_job *job)
{
    const zi_family *family = job->model->family;
    job->bottom = zi_table(run)->mark(run);
    job->prepared = 0;
    for (int i = 0; i < job->prompts; i++) {
        int64_t shape[2];
        job->inputs[i] = calloc(1, family->inputs_size);
        if (!job->inputs[i])
            return zi_fail_memory(run->error, "a job", family->inputs_size);
        family->context_shape(job->model->networks, zi_feature_rows(job, i), shape);
        ZI_TRY(zi_table(run)->alloc(run, &job->context[i], 2, shape));
    }
    job->above_contexts = zi_table(run)->mark(run);
    for (int i = 0; i < job->prompts; i++) {
        ZI_TRY(zi_table(run)->alloc(run, &job->features[i],
                                    ZI_SHAPE(zi_feature_rows(job, i), job->model->facts.features)));
    }
    return ZIMAGE_OK;
}

void zi_job_close(zi_run *run, zi_job *job)
{
    zi_table(run)->release(run, job->bottom);
    for (int i = 0; i < job->prompts; i++) {
        free(job->inputs[i]);
        job->inputs[i] = NULL;
    }
}

/* ---- the stages -------------------------------------------------------------------------------------------------- */

static zimage_status run_encode(zi_run *run, zi_job *job, int index)
{
    const zi_job_image *image = &job->image[index];
    return job->model->family->encode_image(run, job->model->networks, image->rgb8, image->pixel_rows,
                                            image->pixel_columns, job->band_rows, image->moments);
}

static zimage_status run_text(zi_run *run, zi_job *job, int index)
{
    const zi_prompt *prompt = &job->prompt[index];
    if (!prompt->encoded)
        return zi_table(run)->upload(run, &job->features[index], prompt->features);
    return job->model->family->encode(run, job->model->networks, prompt->ids, prompt->tokens, &job->features[index]);
}

static zimage_status run_context(zi_run *run, zi_job *job, int index)
{
    return job->model->family->make_context(run, job->model->networks, &job->features[index], &job->context[index]);
}

/* latents and out[count] on the stack; latents <- the job's */
static zimage_status copy_latents(zi_run *run, const zi_job *job, zi_tensor *latents, int count, zi_tensor *out)
{
    const int64_t shape[3] = {job->model->facts.latent_channels, job->rows, job->columns};
    ZI_TRY(zi_table(run)->alloc_f32(run, latents, 3, shape));
    for (int i = 0; i < count; i++)
        ZI_TRY(zi_table(run)->alloc_f32(run, &out[i], 3, shape));
    return zi_table(run)->upload(run, latents, job->latents);
}

/* Once before the first step: the features make room for what all steps share. */
static zimage_status prepare(zi_run *run, zi_job *job)
{
    zi_table(run)->release(run, job->above_contexts);
    for (int i = 0; i < job->prompts; i++)
        ZI_TRY(job->model->family->prepare(run, job->model->networks, &job->context[i], job->rows, job->columns,
                                           job->reference, job->references, job->inputs[i]));
    job->prepared = 1;
    return job->forward_only ? copy_latents(run, job, &job->kept_latents, job->prompts, job->kept_out) : ZIMAGE_OK;
}

/* velocity <- the network's output for a prompt; nothing in a rehearsal */
static zimage_status take_velocity(zi_run *run, const zi_job *job, const zi_tensor *out, float *velocity)
{
    if (!velocity)
        return ZIMAGE_OK;
    ZI_TRY(zi_table(run)->download(run, velocity, out));
    for (int64_t i = 0, count = zi_tensor_count(out); i < count; i++)
        velocity[i] *= job->model->family->velocity_sign;
    return ZIMAGE_OK;
}

/* The forward passes of prompts [first, first + count) as a batch. */
static zimage_status forward_passes(zi_run *run, zi_job *job, int first, int count)
{
    const zi_family *family = job->model->family;
    const void *const *inputs = (const void *const *)job->inputs + first;
    zi_tensor latents, out[ZI_PROMPTS_MAX];
    float time = family->time_at(job->sigma, job->in_bf16);
    if (job->forward_only)
        return family->forward(run, inputs, count, &job->kept_latents, time, job->kept_out + first);
    ZI_TRY(copy_latents(run, job, &latents, count, out));
    ZI_TRY(family->forward(run, inputs, count, &latents, time, out));
    for (int i = 0; i < count; i++)
        ZI_TRY(take_velocity(run, job, &out[i], job->velocity[first + i]));
    return ZIMAGE_OK;
}

static zimage_status run_prepare(zi_run *run, zi_job *job, int index)
{
    return job->prepared ? ZIMAGE_OK : prepare(run, job);
}

static zimage_status run_denoise(zi_run *run, zi_job *job, int index)
{
    int passes = job->passes ? job->passes : job->prompts, together = job->batched ? passes : 1;
    ZI_TRY(run_prepare(run, job, 0));
    for (int i = 0; i < passes; i += together) {
        zi_arena_mark mark = zi_table(run)->mark(run);
        zimage_status status = forward_passes(run, job, i, together);
        zi_table(run)->release(run, mark);
        ZI_TRY(status);
    }
    return ZIMAGE_OK;
}

static zimage_status run_preview(zi_run *run, zi_job *job, int index)
{
    return job->model->family->decode(run, job->model->networks, job->preview_latents, job->preview_rows,
                                      job->preview_columns, job->band_rows, job->preview_rgb8);
}

static zimage_status run_decode(zi_run *run, zi_job *job, int index)
{
    zi_table(run)->release(run, job->bottom); /* the contexts, and what the steps shared */
    return job->model->family->decode(run, job->model->networks, job->latents, job->rows, job->columns, job->band_rows,
                                      job->rgb8);
}

zimage_status zi_job_stage(zi_run *run, zi_job *job, int stage, int index)
{
    return stages[stage].run(run, job, index);
}

zimage_status zi_job_each(zi_run *run, zi_job *job, zi_job_after *after, void *user)
{
    zi_job_run runs[ZI_JOB_RUNS_MAX];
    int count = zi_job_list(job, runs);
    zimage_status status = zi_job_open(run, job);
    for (int i = 0; i < count && status == ZIMAGE_OK; i++) {
        status = zi_job_stage(run, job, runs[i].stage, runs[i].index);
        if (status == ZIMAGE_OK)
            status = after(user, run, &runs[i]);
    }
    zi_job_close(run, job);
    return status;
}
