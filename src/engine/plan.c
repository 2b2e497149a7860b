#include "engine/plan.h"

#include <stdlib.h>

#define MIB       ((size_t)1 << 20)
#define HUGE_PAGE (2 * MIB) /* the arena asks for pages of this size */
/* Code and libraries that are first used after opening (kernels, PNG), thread stacks, small tables. */
#define PROGRAM_BYTES (3 * MIB / 2)
/* On top of a need that is told: the next process that opens the model may begin a little larger. */
#define MARGIN (2 * MIB)

/* ---- one stage --------------------------------------------------------------------------------------------------- */

/* The captions of all prompts, which stay on the stack. */
static zimage_status alloc_captions(const zimage_context *context, const zi_job_size *size, zi_ops *plan,
                                    zi_tensor captions[ZI_MAX_PROMPTS])
{
    for (int i = 0; i < size->prompts; i++) {
        const int64_t shape[2] = {zi_dit_padded(size->tokens[i]), context->transformer.config.dim};
        ZI_TRY(plan->table->alloc(plan, &captions[i], 2, shape));
    }
    return ZIMAGE_OK;
}

static zimage_status run_text(const zimage_context *context, const zi_job_size *size, zi_ops *plan, int caption)
{
    int last = size->prompts - 1;
    int64_t tokens = size->tokens[last];
    const int64_t width = caption ? context->transformer.config.cap_feat_dim : context->text_encoder.config.hidden_size;
    const int64_t shape[2] = {tokens, width};
    zi_tensor features, captions[ZI_MAX_PROMPTS];
    ZI_TRY(alloc_captions(context, size, plan, captions));
    ZI_TRY(plan->table->alloc(plan, &features, 2, shape));
    if (caption && !size->encoded[last])
        ZI_TRY(plan->table->upload(plan, &features, NULL)); /* nobody reads data here */
    if (caption)
        return zi_dit_caption(&context->transformer, plan, &features, &captions[last]);
    int32_t ids[ZI_MAX_PROMPT_TOKENS] = {0};
    return zi_qwen3_encode(&context->text_encoder, plan, ids, tokens, &features);
}

/* What the steps share, on the stack as long as they last. */
static zimage_status prepare_scenes(const zimage_context *context, const zi_job_size *size, zi_ops *plan,
                                    const zi_tensor captions[ZI_MAX_PROMPTS], zi_dit_scene scenes[ZI_MAX_PROMPTS])
{
    for (int i = 0; i < size->prompts; i++)
        ZI_TRY(zi_dit_prepare(&context->transformer, plan, &captions[i], size->rows, size->columns, &scenes[i]));
    return ZIMAGE_OK;
}

static zimage_status run_denoise(const zimage_context *context, const zi_job_size *size, zi_ops *plan)
{
    const int64_t shape[3] = {context->transformer.config.in_channels, size->rows, size->columns};
    zi_tensor latents, out, captions[ZI_MAX_PROMPTS];
    zi_dit_scene scenes[ZI_MAX_PROMPTS];
    ZI_TRY(alloc_captions(context, size, plan, captions));
    ZI_TRY(prepare_scenes(context, size, plan, captions, scenes));
    ZI_TRY(plan->table->alloc_f32(plan, &latents, 3, shape));
    ZI_TRY(plan->table->alloc_f32(plan, &out, 3, shape));
    for (int i = 0; i < size->prompts; i++)
        ZI_TRY(zi_dit_evaluate(&scenes[i], plan, &latents, 0.5f, &out));
    return ZIMAGE_OK;
}

static zimage_status run_decode(const zimage_context *context, const zi_job_size *size, zi_ops *plan)
{
    size_t count = (size_t)(context->vae.config.latent_channels * size->rows * size->columns);
    float *latents = calloc(count, sizeof *latents);
    if (!latents)
        return zi_fail_memory(plan->error, "the plan", count * sizeof *latents);
    zimage_status status =
        zi_vae_decode(&context->vae, plan, latents, size->rows, size->columns, size->band_rows, NULL, NULL);
    free(latents);
    return status;
}

static zimage_status run_preview(const zimage_context *context, const zi_job_size *size, zi_ops *plan)
{
    zi_tensor captions[ZI_MAX_PROMPTS];
    zi_dit_scene scenes[ZI_MAX_PROMPTS];
    zi_job_size small = *size;
    small.rows = size->preview_rows;
    small.columns = size->preview_columns;
    ZI_TRY(alloc_captions(context, size, plan, captions));
    ZI_TRY(prepare_scenes(context, size, plan, captions, scenes));
    return run_decode(context, &small, plan);
}

zimage_status zi_plan_run(const zimage_context *context, const zi_job_size *size, int stage, zi_ops *plan)
{
    switch (stage) {
    case ZI_PLAN_PREVIEW:
        return context->vae_store ? run_preview(context, size, plan) : ZIMAGE_OK;
    case ZIMAGE_STAGE_TEXT:
        return size->encoded[size->prompts - 1] && context->text_store ? run_text(context, size, plan, 0) : ZIMAGE_OK;
    case ZIMAGE_STAGE_CAPTION:
        return context->transformer_store ? run_text(context, size, plan, 1) : ZIMAGE_OK;
    case ZIMAGE_STAGE_DENOISE:
        return context->transformer_store ? run_denoise(context, size, plan) : ZIMAGE_OK;
    default:
        return context->vae_store ? run_decode(context, size, plan) : ZIMAGE_OK;
    }
}

zimage_status zi_plan_stage(const zimage_context *context, const zi_job_size *size, zimage_stage stage,
                            zi_plan_counts *counts, zimage_error *error)
{
    zi_ops *plan = NULL;
    ZI_TRY(zi_ops_plan_new(&plan, error));
    plan->error = error;
    zimage_status status = zi_plan_run(context, size, (int)stage, plan);
    *counts = *zi_ops_plan_counts(plan);
    plan->table->free(plan);
    return status;
}

/* ---- memory ------------------------------------------------------------------------------------------------------ */

static size_t max_size(size_t a, size_t b)
{
    return a > b ? a : b;
}

/* Buffers on the host: latents, predictions; the decoded picture. */
static size_t host_bytes(const zimage_context *context, const zi_job_size *size, zimage_stage stage)
{
    size_t latents = (size_t)(size->rows * size->columns), scale = (size_t)context->vae.config.scale_factor;
    size_t kept = 3 * latents * (size_t)context->transformer.config.in_channels * sizeof(float);
    return kept + (stage == ZIMAGE_STAGE_DECODE ? latents * scale * scale * 3 : 0);
}

/* Counts of a stage for all prompts: operations added, memory of the one that takes most. */
static zimage_status count_prompts(const zimage_context *context, const zi_job_size *size, zimage_stage stage,
                                   zi_job_plan *plan, zimage_error *error)
{
    for (int prompts = 1; prompts <= size->prompts; prompts++) {
        zi_job_size part = *size;
        zi_plan_counts counts, *all = &plan->counts[stage];
        part.prompts = prompts;
        ZI_TRY(zi_plan_stage(context, &part, stage, &counts, error));
        plan->flops[stage] += zi_plan_flops(&counts);
        all->linear_flops += counts.linear_flops;
        all->attention_flops += counts.attention_flops;
        all->unpacked += counts.unpacked;
        all->peak_bytes = max_size(all->peak_bytes, counts.peak_bytes);
        all->weight_bytes = max_size(all->weight_bytes, counts.weight_bytes);
    }
    return ZIMAGE_OK;
}

static zimage_status count_denoise(const zimage_context *context, const zi_job_size *size, zi_job_plan *plan,
                                   zimage_error *error)
{
    zi_plan_counts *counts = &plan->counts[ZIMAGE_STAGE_DENOISE];
    ZI_TRY(zi_plan_stage(context, size, ZIMAGE_STAGE_DENOISE, counts, error));
    counts->linear_flops *= size->steps;
    counts->attention_flops *= size->steps;
    counts->unpacked *= size->steps;
    plan->flops[ZIMAGE_STAGE_DENOISE] = zi_plan_flops(counts);
    if (!size->preview_rows)
        return ZIMAGE_OK;
    zi_job_size small = *size;
    zi_plan_counts preview;
    small.rows = size->preview_rows;
    small.columns = size->preview_columns;
    ZI_TRY(zi_plan_stage(context, &small, ZIMAGE_STAGE_DECODE, &preview, error));
    counts->peak_bytes = max_size(counts->peak_bytes, preview.peak_bytes);
    return ZIMAGE_OK;
}

static zimage_status count_decode(const zimage_context *context, const zi_job_size *size, zi_job_plan *plan,
                                  zimage_error *error)
{
    zi_plan_counts *counts = &plan->counts[ZIMAGE_STAGE_DECODE];
    ZI_TRY(zi_plan_stage(context, size, ZIMAGE_STAGE_DECODE, counts, error));
    plan->flops[ZIMAGE_STAGE_DECODE] = zi_plan_flops(counts);
    plan->band_rows = size->band_rows;
    return ZIMAGE_OK;
}

/* Weights of a stage that its work brings into memory: all but the copies that were made on opening. */
static size_t read_bytes(const zi_job_plan *plan, zimage_stage stage, const zi_store *store)
{
    size_t bytes = plan->counts[stage].weight_bytes, owned = store ? zi_store_owned_bytes(store) : 0;
    return bytes > owned ? bytes - owned : 0;
}

/*
 * Weights that are in memory during a stage, besides what was there when the model was open. Mapped pages could be evicted, but a stage reads all of its weights, most of
 * them at every step: without them in memory it would read from disk all the time. So they count in full, and where
 * nothing is released those of the stages before count, too.
 */
static size_t weights_held(const zimage_context *context, const zi_job_plan *plan, const zi_job_size *size,
                           zimage_stage stage, int released)
{
    size_t text = read_bytes(plan, ZIMAGE_STAGE_TEXT, context->text_store);
    size_t caption = plan->counts[ZIMAGE_STAGE_CAPTION].weight_bytes;
    size_t steps = read_bytes(plan, ZIMAGE_STAGE_DENOISE, context->transformer_store);
    size_t vae = read_bytes(plan, ZIMAGE_STAGE_DECODE, context->vae_store);
    size_t preview = size->preview_rows ? vae : 0;
    switch (stage) {
    case ZIMAGE_STAGE_TEXT:
        return text + (size->prompts > 1 ? caption : 0);
    case ZIMAGE_STAGE_CAPTION:
        return caption + (released ? 0 : text);
    case ZIMAGE_STAGE_DENOISE:
        return caption + steps + preview + (released ? 0 : text);
    default:
        return vae + (released ? 0 : text + caption + steps);
    }
}

static void add_up(const zimage_context *context, const zi_job_size *size, int released, zi_job_plan *plan)
{
    plan->most = 0;
    for (int i = 0; i < ZIMAGE_STAGES; i++) {
        zimage_stage stage = (zimage_stage)i;
        size_t stack = plan->counts[i].peak_bytes;
        plan->activations[i] = host_bytes(context, size, stage) + (stack + HUGE_PAGE - 1) / HUGE_PAGE * HUGE_PAGE;
        plan->peak[i] = context->base_bytes + PROGRAM_BYTES + plan->activations[i] +
                        weights_held(context, plan, size, stage, released);
        plan->most = max_size(plan->most, plan->peak[i]);
    }
}

int64_t zi_plan_narrower(int64_t band_rows, int64_t image_rows)
{
    if (band_rows > 0)
        return band_rows / 2;
    int64_t rows = ZI_NARROWEST_BAND;
    while (rows * 2 < image_rows && rows < 256)
        rows *= 2;
    return rows;
}

static unsigned long long mib(size_t bytes)
{
    return (bytes + MIB - 1) / MIB;
}

static zimage_status refuse(const zi_job_plan *plan, uint64_t limit, zimage_error *error)
{
    return zi_fail(error, ZIMAGE_ERROR_MEMORY,
                   "memory_limit: %llu MiB, but this request needs %llu MiB: text_encoder %llu, caption %llu, denoise "
                   "%llu, vae_decode %llu, each with the weights that it reads",
                   (unsigned long long)(limit / MIB), mib(plan->most + MARGIN), mib(plan->peak[0]), mib(plan->peak[1]),
                   mib(plan->peak[2]), mib(plan->peak[3]));
}

zimage_status zi_plan_job(const zimage_context *context, const zi_job_size *size, uint64_t limit, int releases,
                          zi_job_plan *plan, zimage_error *error)
{
    zi_job_size tried = *size;
    int64_t image_rows = size->rows * context->vae.config.scale_factor;
    *plan = (zi_job_plan){.band_rows = size->band_rows};
    ZI_TRY(count_prompts(context, size, ZIMAGE_STAGE_TEXT, plan, error));
    ZI_TRY(count_prompts(context, size, ZIMAGE_STAGE_CAPTION, plan, error));
    ZI_TRY(count_denoise(context, size, plan, error));
    ZI_TRY(count_decode(context, size, plan, error));

    zi_job_plan narrow = *plan;
    tried.band_rows = ZI_NARROWEST_BAND;
    ZI_TRY(count_decode(context, &tried, &narrow, error));
    add_up(context, &tried, 1, &narrow);

    add_up(context, size, releases, plan);
    tried.band_rows = size->band_rows;
    while (limit > 0 && plan->most > limit && plan->peak[ZIMAGE_STAGE_DECODE] > limit &&
           tried.band_rows != ZI_NARROWEST_BAND) {
        tried.band_rows = zi_plan_narrower(tried.band_rows, image_rows);
        ZI_TRY(count_decode(context, &tried, plan, error));
        add_up(context, &tried, 1, plan);
    }
    plan->least = (narrow.most < plan->most ? narrow.most : plan->most) + MARGIN;
    return limit > 0 && plan->most > limit ? refuse(plan, limit, error) : ZIMAGE_OK;
}
