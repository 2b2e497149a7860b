/* One image: checks a request, makes noise, plans the job, runs its stages, reports progress. */
#include <stdlib.h>
#include <string.h>

#include "base/clock.h"
#include "base/free_memory.h"
#include "base/mapping.h"
#include "base/numbers.h"
#include "engine/backends.h"
#include "engine/plan.h"
#include "engine/request.h"
#include "image/image.h"
#include "pipeline/composite.h"
#include "pipeline/inputs.h"

#define PREVIEWS_SHARE 0.05 /* of the time, with request.preview = 2 */

/* What one zimage_generate call holds. */
typedef struct generation {
    zimage_session *session;
    const zimage_request *request;
    zimage_image *image;
    zi_run run;
    zi_job job;
    zi_tokens tokens;
    zi_inputs inputs;
    zi_job_plan plan;
    int64_t latent_count;
    float *sigmas; /* [request->steps + 1], of which the job runs the last */
    float *positive, *negative, *preview_latents;
    uint8_t *preview_rgb8;
    double flops_before;      /* of the stages and steps finished */
    double step_flops;        /* of the step under way */
    double start, step_start; /* seconds */
    double previews_start;    /* when the first preview was there, */
    double previews, preview; /* and the seconds of those that followed, and of the last */
    unsigned repairs;         /* zi_mapping_repairs when the files were last found complete */
    zimage_progress progress;
} generation;

/* ---- progress ---------------------------------------------------------------------------------------------------- */

static zimage_status report(generation *g, const uint8_t *preview, int32_t width, int32_t height)
{
    if (!g->request->progress)
        return ZIMAGE_OK;
    double total = 0;
    for (int i = 0; i < ZIMAGE_STAGE_COUNT; i++)
        total += g->plan.flops[i];
    zimage_progress *p = &g->progress;
    double part = p->blocks > 0 ? (double)p->block / p->blocks : 0;
    p->fraction = total > 0 ? (g->flops_before + part * g->step_flops) / total : 0;
    if (p->fraction > 1)
        p->fraction = 1;
    p->elapsed = zi_now() - g->start;
    p->preview = preview;
    p->preview_width = width;
    p->preview_height = height;
    if (g->request->progress(p, g->request->progress_user))
        return zi_fail(g->run.error, ZIMAGE_ERROR_CANCELLED, "cancelled during %s", zimage_stage_name(p->stage));
    return ZIMAGE_OK;
}

/* Stops the job soon after a weight file lost pages; zimage_generate then says which. */
static int has_lost_pages(generation *g)
{
    unsigned repairs = zi_mapping_repairs();
    if (repairs == g->repairs)
        return 0;
    if (zi_model_check(g->session->inner, NULL, NULL) != ZIMAGE_OK)
        return 1;
    g->repairs = repairs; /* the pages of another model */
    return 0;
}

/* zi_run.block_done. finish_step reports the last block of a step, with the preview. */
static int on_block_done(void *user)
{
    generation *g = user;
    if (has_lost_pages(g))
        return 1;
    if (g->progress.block + 1 >= g->progress.blocks)
        return 0;
    g->progress.block++;
    return report(g, NULL, 0, 0) != ZIMAGE_OK;
}

/* The same for a preview, whose blocks are not the request's. It can be cancelled, too: it may take longer than a block
 * of the step. */
static int on_preview_block(void *user)
{
    generation *g = user;
    return has_lost_pages(g) || report(g, NULL, 0, 0) != ZIMAGE_OK;
}

static zimage_status begin_step(generation *g, zimage_stage stage, int step, int steps, int64_t blocks, double flops)
{
    g->step_start = zi_now();
    g->progress.stage = stage;
    g->progress.step = step;
    g->progress.steps = steps;
    g->progress.block = 0;
    g->progress.blocks = (int32_t)blocks;
    g->step_flops = flops;
    return report(g, NULL, 0, 0);
}

static zimage_status finish_step(generation *g, const uint8_t *preview, int32_t width, int32_t height)
{
    g->progress.block = g->progress.blocks;
    zimage_status status = report(g, preview, width, height);
    g->flops_before += g->step_flops;
    g->step_flops = 0;
    zi_image_add_seconds(g->image, g->progress.stage, zi_now() - g->step_start);
    return status;
}

/* ---- stages ------------------------------------------------------------------------------------------------------ */

/* A network's weights go back to the system once it has done its work; they would be read from the file again. Copies
 * of a backend, too: at the end of a network it has those of this network, and perhaps the VAE's. */
static zimage_status release(generation *g, zi_component_kind component)
{
    const zi_store *store = g->session->inner->stores[component];
    if (!zi_request_releases(g->session, g->request))
        return ZIMAGE_OK;
    if (store)
        zi_store_release_pages(store);
    return zi_table(&g->run)->forget_weights(&g->run);
}

/* A stage that is one step, for a prompt or for the job. */
static zimage_status run_stage(generation *g, zimage_stage stage, int index, int parts)
{
    int given = stage == ZIMAGE_STAGE_TEXT && !g->job.prompt[index].encoded;
    double flops = g->plan.flops[stage] - (stage == ZIMAGE_STAGE_CONTEXT ? g->plan.prepare_flops : 0);
    ZI_TRY(begin_step(g, stage, 1, 1, given ? 1 : zi_stage_blocks(&g->job, stage, 1), flops / parts));
    ZI_TRY(zi_job_stage(&g->run, &g->job, stage, index));
    return finish_step(g, NULL, 0, 0);
}

/* To the caller this is a part of the context. */
static zimage_status run_prepare(generation *g)
{
    int64_t blocks = zi_max_int64(1, zi_stage_blocks(&g->job, ZI_STAGE_PREPARE, 1));
    ZI_TRY(begin_step(g, ZIMAGE_STAGE_CONTEXT, 1, 1, blocks, g->plan.prepare_flops));
    ZI_TRY(zi_job_stage(&g->run, &g->job, ZI_STAGE_PREPARE, 0));
    return finish_step(g, NULL, 0, 0);
}

/*
 * The image expected at the end, small: with x = (1 - sigma) clean + sigma noise and velocity v = noise - clean, clean
 * = x - sigma v; squares of latents are averaged.
 */
static void expect_latents(const generation *g, float sigma)
{
    const zi_job *job = &g->job;
    int64_t factor = zi_preview_factor(job), rows = job->preview_rows, columns = job->preview_columns;
    const float *latents = zi_image_latents(g->image);
    for (int64_t c = 0; c < job->model->facts.latent_channels; c++)
        for (int64_t y = 0; y < rows; y++)
            for (int64_t x = 0; x < columns; x++) {
                double sum = 0;
                for (int64_t i = 0; i < factor * factor; i++) {
                    int64_t at = (c * job->rows + y * factor + i / factor) * job->columns + x * factor + i % factor;
                    sum += latents[at] - sigma * g->positive[at];
                }
                g->preview_latents[(c * rows + y) * columns + x] = (float)(sum / (double)(factor * factor));
            }
}

/* Whether a step has a preview; request.preview says the rule. Weights that are copied to a device come in a planned
 * order, which a preview that is left out breaks: copies that wait are dropped. So only the caller leaves one out. */
static int has_preview(const generation *g, int step)
{
    const zimage_request *r = g->request;
    if (g->job.preview_rows == 0)
        return 0;
    int mode = r->wants_preview ? r->wants_preview(step + 1, g->job.steps, r->progress_user) : r->preview;
    if (mode < 2 || g->previews_start == 0 || zi_has_own_memory(g->session->ops))
        return mode > 0;
    return g->previews + g->preview <= PREVIEWS_SHARE * (zi_now() - g->previews_start);
}

static void count_preview(generation *g, double seconds)
{
    g->preview = seconds;
    if (g->previews_start == 0)
        g->previews_start = zi_now();
    else
        g->previews += seconds;
}

static zimage_status show_preview(generation *g, float sigma)
{
    int64_t scale = g->job.model->facts.scale_factor;
    double start = zi_now();
    expect_latents(g, sigma);
    g->run.block_done = on_preview_block;
    zimage_status status = zi_job_stage(&g->run, &g->job, ZI_STAGE_PREVIEW, 0);
    g->run.block_done = on_block_done;
    if (status != ZIMAGE_OK)
        return status;
    count_preview(g, zi_now() - start);
    return finish_step(g, g->preview_rgb8, (int32_t)(g->job.preview_columns * scale),
                       (int32_t)(g->job.preview_rows * scale));
}

/* The sigma at which a step of the job begins. */
static float sigma_of(const generation *g, int step)
{
    return g->sigmas[g->request->steps - g->job.steps + step];
}

static zimage_status run_step(generation *g, int step)
{
    const zimage_request *r = g->request;
    const zi_family *family = g->job.model->family;
    float *latents = zi_image_latents(g->image), sigma = sigma_of(g, step), next = sigma_of(g, step + 1), guidance = 0;
    if (g->job.prompts > 1)
        guidance = family->guidance_at(r->guidance_scale, r->cfg_truncation, sigma);
    g->job.sigma = sigma;
    g->job.passes = guidance > 0 ? 2 : 1;
    ZI_TRY(begin_step(g, ZIMAGE_STAGE_DENOISE, step + 1, g->job.steps,
                      zi_stage_blocks(&g->job, ZIMAGE_STAGE_DENOISE, g->job.passes),
                      g->plan.flops[ZIMAGE_STAGE_DENOISE] / g->job.steps));
    ZI_TRY(zi_job_stage(&g->run, &g->job, ZIMAGE_STAGE_DENOISE, 0));
    if (guidance > 0)
        family->guide(g->positive, g->negative, g->latent_count, guidance, r->cfg_normalization);
    ZI_TRY(has_preview(g, step) ? show_preview(g, sigma) : finish_step(g, NULL, 0, 0));
    zi_euler_step(latents, g->positive, g->latent_count, sigma, next, g->inputs.in_bf16);
    zi_inputs_keep(&g->inputs, &g->job, next, g->positive, latents);
    return ZIMAGE_OK;
}

static zimage_status encode_image(generation *g, int index)
{
    zi_job *job = &g->job;
    ZI_TRY(zi_inputs_fit(&g->inputs, g->request, job, index, g->run.error));
    ZI_TRY(run_stage(g, ZIMAGE_STAGE_ENCODE, index, job->images));
    return zi_inputs_take(&g->inputs, job, index, g->run.error);
}

static zimage_status run_stages(generation *g)
{
    zi_job *job = &g->job;
    for (int i = 0; i < job->images; i++)
        ZI_TRY(encode_image(g, i));
    if (job->images > 0)
        ZI_TRY(release(g, ZI_VAE)); /* decoding reads other weights */
    zi_inputs_start(&g->inputs, g->request, job, sigma_of(g, 0), zi_image_latents(g->image));
    for (int i = 0; i < job->prompts; i++) {
        ZI_TRY(run_stage(g, ZIMAGE_STAGE_TEXT, i, job->prompts));
        ZI_TRY(zi_texts_remember(&g->session->texts, &g->run, job, i));
    }
    ZI_TRY(release(g, ZI_TEXT_ENCODER));
    for (int i = 0; i < job->prompts; i++)
        ZI_TRY(run_stage(g, ZIMAGE_STAGE_CONTEXT, i, job->prompts));
    if (job->references > 0)
        ZI_TRY(run_prepare(g));
    for (int step = 0; step < job->steps; step++)
        ZI_TRY(run_step(g, step));
    ZI_TRY(release(g, ZI_TRANSFORMER));
    ZI_TRY(run_stage(g, ZIMAGE_STAGE_DECODE, 0, 1));
    if (job->composite)
        ZI_TRY(zi_composite(job->model, g->request, job->rgb8, g->run.error));
    return release(g, ZI_VAE);
}

/* ---- the whole --------------------------------------------------------------------------------------------------- */

/* Logged before the work begins, where a device's memory was limited or is short. */
static void log_memory(const generation *g)
{
    const zi_memory_plan *m = &g->plan.memory;
    if (!zi_has_own_memory(g->session->ops) || (!g->session->device_memory && !m->streamed[ZIMAGE_STAGE_DENOISE]))
        return;
    zi_inform(
        &g->session->log,
        "device memory: %llu of %llu MiB: activations %llu, workspace %llu, resident weights %llu, buffer for the "
        "others %llu; %llu MiB of weights are copied at each step",
        zi_mib(m->total), (unsigned long long)(m->limit / ZI_MIB), zi_mib(m->activations), zi_mib(m->workspace),
        zi_mib(m->resident), zi_mib(m->ring), zi_mib(m->streamed[ZIMAGE_STAGE_DENOISE]));
}

static zimage_status allocate(generation *g)
{
    const zi_job *job = &g->job;
    size_t bytes = (size_t)g->latent_count * sizeof(float), scale = (size_t)job->model->facts.scale_factor;
    size_t preview = (size_t)(job->preview_rows * job->preview_columns);
    g->positive = malloc(bytes);
    g->negative = job->prompts > 1 ? malloc(bytes) : NULL;
    g->sigmas = malloc((size_t)(g->request->steps + 1) * sizeof(float));
    g->preview_latents = preview ? malloc(preview * (size_t)job->model->facts.latent_channels * sizeof(float)) : NULL;
    g->preview_rgb8 = preview ? malloc(preview * scale * scale * 3) : NULL;
    int failed = !g->positive || !g->sigmas || (job->prompts > 1 && !g->negative) ||
                 (preview && (!g->preview_latents || !g->preview_rgb8));
    return failed ? zi_fail_memory(g->run.error, "latents", bytes) : ZIMAGE_OK;
}

static zimage_status prepare(generation *g)
{
    const zimage_request *r = g->request;
    zi_job *job = &g->job;
    const zi_plan_limits limits = {r->memory_limit, zi_free_memory(), zi_request_releases(g->session, r), 1};
    g->latent_count = job->model->facts.latent_channels * job->rows * job->columns;
    ZI_TRY(zi_plan_job(g->session, job, &limits, &g->plan, g->run.error));
    log_memory(g);
    ZI_TRY(allocate(g));
    ZI_TRY(zi_image_new(r->width, r->height, &g->image, g->run.error));
    ZI_TRY(zi_image_add_latents(g->image, job->model->facts.latent_channels, job->rows, job->columns, g->run.error));
    ZI_TRY(job->model->family->sigmas(job->model->networks, &job->model->scheduler, r->steps, job->rows, job->columns,
                                      g->sigmas, g->run.error));
    ZI_TRY(zi_inputs_begin(&g->inputs, r, job, g->run.error));
    job->band_rows = g->plan.band_rows;
    job->batched = g->plan.batched;
    job->latents = zi_image_latents(g->image);
    job->velocity[0] = g->positive;
    job->velocity[1] = g->negative;
    job->preview_latents = g->preview_latents;
    job->preview_rgb8 = g->preview_rgb8;
    return ZIMAGE_OK;
}

static zimage_status run_job(generation *g)
{
    ZI_TRY(prepare(g));
    g->job.rgb8 = zi_image_pixels(g->image);
    zimage_status status = zi_job_open(&g->run, &g->job);
    if (status == ZIMAGE_OK)
        status = run_stages(g);
    zi_job_close(&g->run, &g->job);
    zi_memory_info(&g->plan.memory, ZIMAGE_STAGE_DENOISE, zi_image_memory(g->image));
    return status;
}

static void set_info(const generation *g)
{
    zimage_image_info *info = zi_image_info(g->image);
    const zi_ops *ops = g->session->ops;
    info->prompt_tokens = (int32_t)g->tokens.counts[0];
    info->seconds = zi_now() - g->start;
    info->compute = g->session->compute;
    info->strength = g->request->strength;
    ops->table->describe(ops, info->kernels, sizeof info->kernels);
}

static zimage_status generate(generation *g)
{
    ZI_TRY(zi_model_check(g->session->inner, NULL, g->run.error));
    ZI_TRY(zi_request_tokens(g->session, g->request, &g->tokens, g->run.error));
    zi_request_job(g->session, g->request, &g->tokens, &g->job);
    zi_texts_recall(&g->session->texts, &g->job);
    zimage_status status = run_job(g);
    if (status == ZIMAGE_OK || has_lost_pages(g))
        status = zi_model_check(g->session->inner, &g->session->log, g->run.error);
    if (status == ZIMAGE_OK)
        set_info(g);
    return status;
}

zimage_status zimage_generate(zimage_session *session, const zimage_request *request, zimage_image **image,
                              zimage_error *error)
{
    zimage_request own;
    if (image)
        *image = NULL;
    if (!session || !request || !image)
        return zi_fail(error, ZIMAGE_ERROR_ARGUMENT, "session, request and image: NULL, expected all three");
    ZI_TRY(zi_request_take(session, request, &own, error));
    generation g = {.session = session, .request = &own, .start = zi_now(), .repairs = zi_mapping_repairs()};
    g.run = (zi_run){.ops = session->ops, .error = error, .block_done = on_block_done, .user = &g};
    g.progress.struct_size = sizeof g.progress;
    zimage_status status = generate(&g);
    zi_tokens_free(&g.tokens);
    zi_inputs_free(&g.inputs);
    free(g.sigmas);
    free(g.positive);
    free(g.negative);
    free(g.preview_latents);
    free(g.preview_rgb8);
    if (status == ZIMAGE_OK)
        *image = g.image;
    else
        zimage_image_free(g.image);
    return status;
}
