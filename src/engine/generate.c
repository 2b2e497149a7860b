/* One picture: prompt -> text features -> denoising -> decoding. Nothing flows back up but progress. */
#include <stdlib.h>
#include <string.h>

#include "base/clock.h"
#include "engine/card.h"
#include "engine/device.h"
#include "engine/machine.h"
#include "engine/plan.h"
#include "image/png.h"
#include "sampler/noise.h"

#define PREVIEW_SIDE 256 /* pixels; larger pictures are previewed from averaged latents */

struct zimage_image {
    int32_t width, height;
    uint8_t *pixels; /* [height][width][3] */
    float *latents;  /* [channels, rows, columns] */
    int64_t latents_shape[3];
    double seconds[ZIMAGE_STAGES];
    int32_t prompt_tokens;
    zimage_device_plan device;
};

typedef struct conditioning {
    int64_t tokens;    /* of the caption, unpadded */
    zi_tensor caption; /* [padded tokens, dim], refined */
    zi_dit_scene scene;
} conditioning;

/* What one zimage_generate call holds. Device tensors live on the stack of context->ops and go with its mark. */
typedef struct job {
    zimage_context *context;
    zi_ops *ops;
    const zimage_request *request;
    zimage_image *image;
    zimage_error *error;
    int64_t rows, columns, latent_count; /* of the latents */
    float *sigmas;                       /* [steps + 1] */
    float *prediction, *negative;        /* [latent_count] */
    conditioning positive_cap, negative_cap;
    zi_arena_mark mark; /* of the stack before the job */
    int prompts;        /* 2 with guidance, else 1 */
    zi_job_plan plan;
    zimage_device_plan device;
    double flops_before;      /* of the stages and steps finished */
    double step_flops;        /* of the step under way */
    double start, step_start; /* seconds */
    zimage_progress progress;
} job;

void zimage_request_init(const zimage_context *context, zimage_request *request)
{
    zimage_model_info info;
    zimage_get_model_info(context, &info);
    *request = (zimage_request){
        .struct_size = sizeof *request,
        .width = info.default_width,
        .height = info.default_height,
        .steps = info.default_steps,
        .cfg_truncation = 1.0,
    };
}

/* ---- checking the request ---- */

static zimage_status check_side(const char *field, int32_t value, int32_t multiple, int32_t limit, zimage_error *error)
{
    if (value >= multiple && value <= limit && value % multiple == 0)
        return ZIMAGE_OK;
    return zi_fail(error, ZIMAGE_ERROR_ARGUMENT, "%s: %d, expected a multiple of %d from %d to %d", field, value,
                   multiple, multiple, limit);
}

static zimage_status check_text_source(const job *j, zimage_error *error)
{
    const zimage_request *r = j->request;
    if (r->prompt_embeds && (r->prompt_tokens < 1 || r->prompt_tokens > ZI_MAX_PROMPT_TOKENS))
        return zi_fail(error, ZIMAGE_ERROR_ARGUMENT, "prompt_embeds: %d tokens, expected 1 to %d", r->prompt_tokens,
                       ZI_MAX_PROMPT_TOKENS);
    if (r->negative_prompt_embeds &&
        (r->negative_prompt_tokens < 1 || r->negative_prompt_tokens > ZI_MAX_PROMPT_TOKENS))
        return zi_fail(error, ZIMAGE_ERROR_ARGUMENT, "negative_prompt_embeds: %d tokens, expected 1 to %d",
                       r->negative_prompt_tokens, ZI_MAX_PROMPT_TOKENS);
    if (!r->prompt_embeds && !r->prompt)
        return zi_fail(error, ZIMAGE_ERROR_ARGUMENT, "prompt: NULL, expected a prompt or prompt_embeds");
    int needs_encoder = !r->prompt_embeds || (r->guidance_scale > 0 && !r->negative_prompt_embeds);
    if (needs_encoder && !j->context->text_store)
        return zi_fail(error, ZIMAGE_ERROR_ARGUMENT,
                       "%s: the model folder has no text_encoder, expected %sprompt_embeds with this model",
                       r->prompt_embeds ? "negative_prompt" : "prompt", r->prompt_embeds ? "negative_" : "");
    return ZIMAGE_OK;
}

static zimage_status check_request(const job *j, zimage_error *error)
{
    const zimage_request *r = j->request;
    if (r->struct_size != sizeof *r)
        return zi_fail(error, ZIMAGE_ERROR_ARGUMENT, "request: struct_size is %u, expected zimage_request_init's %zu",
                       r->struct_size, sizeof *r);
    zimage_model_info info;
    zimage_get_model_info(j->context, &info);
    ZI_TRY(check_side("width", r->width, info.size_multiple, info.max_width, error));
    ZI_TRY(check_side("height", r->height, info.size_multiple, info.max_height, error));
    if (r->memory_limit > 0 && zi_device_is_card(j->ops))
        return zi_fail(
            error, ZIMAGE_ERROR_UNSUPPORTED,
            "memory_limit: %llu bytes, expected 0 with a card: the limit is one of the processor's memory, for "
            "device \"cpu\"",
            (unsigned long long)r->memory_limit);
    if (r->steps < 1 || r->steps > 1000)
        return zi_fail(error, ZIMAGE_ERROR_ARGUMENT, "steps: %d, expected 1 to 1000", r->steps);
    if (!(r->guidance_scale >= 0 && r->guidance_scale <= 1000))
        return zi_fail(error, ZIMAGE_ERROR_ARGUMENT, "guidance_scale: %g, expected 0 to 1000",
                       (double)r->guidance_scale);
    if (!(r->cfg_truncation >= 0 && r->cfg_truncation <= 1000))
        return zi_fail(error, ZIMAGE_ERROR_ARGUMENT, "cfg_truncation: %g, expected 0 or more", r->cfg_truncation);
    if (!(r->cfg_normalization >= 0 && r->cfg_normalization <= 1000))
        return zi_fail(error, ZIMAGE_ERROR_ARGUMENT, "cfg_normalization: %g, expected 0 (none) or more",
                       (double)r->cfg_normalization);
    if ((unsigned)r->rng > ZIMAGE_RNG_NUMPY)
        return zi_fail(error, ZIMAGE_ERROR_ARGUMENT, "rng: %d, expected one of zimage_rng", (int)r->rng);
    return check_text_source(j, error);
}

/* ---- progress ---- */

static zimage_status report(job *j, const uint8_t *preview, int32_t preview_width, int32_t preview_height)
{
    if (!j->request->progress)
        return ZIMAGE_OK;
    double total = 0;
    for (int i = 0; i < ZIMAGE_STAGES; i++)
        total += j->plan.flops[i];
    zimage_progress *p = &j->progress;
    double part = p->blocks > 0 ? (double)p->block / p->blocks : 0;
    p->fraction = total > 0 ? (j->flops_before + part * j->step_flops) / total : 0;
    if (p->fraction > 1)
        p->fraction = 1;
    p->elapsed = zi_now() - j->start;
    p->preview = preview;
    p->preview_width = preview_width;
    p->preview_height = preview_height;
    if (j->request->progress(p, j->request->progress_user))
        return zi_fail(j->error, ZIMAGE_ERROR_CANCELLED, "cancelled during %s", zimage_stage_name(p->stage));
    return ZIMAGE_OK;
}

/* zi_ops.block_done; the last block of a step is reported by finish_step, with the preview. */
static int on_block_done(void *user)
{
    job *j = user;
    if (j->progress.block + 1 >= j->progress.blocks)
        return 0;
    j->progress.block++;
    return report(j, NULL, 0, 0) != ZIMAGE_OK;
}

static zimage_status begin_step(job *j, zimage_stage stage, int step, int steps, int64_t blocks, double flops)
{
    j->step_start = zi_now();
    j->progress.stage = stage;
    j->progress.step = step;
    j->progress.steps = steps;
    j->progress.block = 0;
    j->progress.blocks = (int32_t)blocks;
    j->step_flops = flops;
    return report(j, NULL, 0, 0);
}

static zimage_status finish_step(job *j, const uint8_t *preview, int32_t preview_width, int32_t preview_height)
{
    j->progress.block = j->progress.blocks;
    zimage_status status = report(j, preview, preview_width, preview_height);
    j->flops_before += j->step_flops;
    j->step_flops = 0;
    j->image->seconds[j->progress.stage] += zi_now() - j->step_start;
    return status;
}

/* ---- planning, so that progress can be honest and memory kept ---- */

/* Sides of the preview, in latents: squares of `factor` latents are averaged. */
static int64_t preview_factor(const job *j)
{
    int64_t scale = j->context->vae.config.scale_factor;
    int64_t longest = (j->rows > j->columns ? j->rows : j->columns) * scale;
    int64_t factor = (longest + PREVIEW_SIDE - 1) / PREVIEW_SIDE;
    while (j->rows / factor == 0 || j->columns / factor == 0)
        factor--;
    return factor;
}

/* A network's weights go once it has done its work; they would be read from the file again. */
static int releases(const job *j)
{
    return j->request->memory_limit > 0 || j->request->release_weights;
}

static unsigned long long mib(uint64_t bytes)
{
    return (unsigned long long)((bytes + ((uint64_t)1 << 20) - 1) >> 20);
}

/* Told before the work begins, where memory was limited or is short. */
static void tell_device(const job *j)
{
    const zimage_device_plan *d = &j->device;
    if (!j->context->device_memory && !d->step_bytes)
        return;
    zi_inform(
        &j->context->log,
        "device memory: %llu of %llu MiB: values %llu, workspace %llu, weights that stay %llu, others in turn %llu; "
        "%llu MiB of weights are sent at each step",
        mib(d->total_bytes), (unsigned long long)(d->limit_bytes >> 20), mib(d->value_bytes), mib(d->workspace_bytes),
        mib(d->resident_bytes), mib(d->ring_bytes), mib(d->step_bytes));
}

static zimage_status plan_job(job *j, int64_t tokens, int64_t negative_tokens)
{
    const zimage_request *r = j->request;
    zi_job_size size = {
        .rows = j->rows,
        .columns = j->columns,
        .prompts = j->prompts,
        .tokens = {tokens, negative_tokens},
        .encoded = {!r->prompt_embeds, !r->negative_prompt_embeds},
        .steps = r->steps,
    };
    if (r->preview && r->progress) {
        size.preview_rows = j->rows / preview_factor(j);
        size.preview_columns = j->columns / preview_factor(j);
    }
    ZI_TRY(zi_plan_job(j->context, &size, r->memory_limit, releases(j), &j->plan, j->error));
    int making = j->image != NULL;
    ZI_TRY(zi_card_arrange(j->context, &size, making, &j->plan.band_rows, &j->device, j->error));
    if (making && zi_device_is_card(j->ops))
        tell_device(j);
    return ZIMAGE_OK;
}

/* With a card they stay mapped: it is the card's memory that is short, and its plan provides for that. */
static void release(job *j, const zi_store *store)
{
    if (releases(j) && store && !zi_device_is_card(j->ops))
        zi_store_release_pages(store);
}

/* ---- text ---- */

static zimage_status tokenize(job *j, const char *field, const char *prompt, int32_t **ids, size_t *count)
{
    zimage_error inner = ZIMAGE_ERROR_INIT;
    zimage_status status = zi_tokenizer_encode_prompt(j->context->tokenizer, ZIMAGE_TEMPLATE_Z_IMAGE, prompt,
                                                      strlen(prompt), ids, count, &inner);
    if (status != ZIMAGE_OK)
        return zi_fail(j->error, status, "%s: %s", field, inner.message);
    if (*count > ZI_MAX_PROMPT_TOKENS) {
        zi_warn(&j->context->log, "%s: %zu tokens with its template, cut to the first %d as the reference does", field,
                *count, ZI_MAX_PROMPT_TOKENS);
        *count = ZI_MAX_PROMPT_TOKENS;
    }
    return ZIMAGE_OK;
}

/* Text features on the stack: from the caller's embeddings, or by the text encoder. */
static zimage_status make_features(job *j, const float *embeds, const int32_t *ids, int64_t tokens, zi_tensor *features)
{
    const int64_t shape[2] = {tokens, j->context->transformer.config.cap_feat_dim};
    ZI_TRY(j->ops->table->alloc(j->ops, features, 2, shape));
    if (embeds)
        return j->ops->table->upload(j->ops, features, embeds);
    return zi_qwen3_encode(&j->context->text_encoder, j->ops, ids, tokens, features);
}

/* Text encoder, caption embedder and refiner for one prompt; only the refined caption stays on the stack. */
static zimage_status condition(job *j, const float *embeds, const int32_t *ids, int64_t tokens, conditioning *out)
{
    const zi_dit *dit = &j->context->transformer;
    out->tokens = tokens;
    const int64_t shape[2] = {zi_dit_padded(tokens), dit->config.dim};
    ZI_TRY(j->ops->table->alloc(j->ops, &out->caption, 2, shape));
    zi_arena_mark mark = j->ops->table->mark(j->ops);
    zi_tensor features;
    int64_t text_blocks = embeds ? 1 : zi_qwen3_encode_blocks(&j->context->text_encoder);
    zimage_status status =
        begin_step(j, ZIMAGE_STAGE_TEXT, 1, 1, text_blocks, j->plan.flops[ZIMAGE_STAGE_TEXT] / j->prompts);
    if (status == ZIMAGE_OK)
        status = make_features(j, embeds, ids, tokens, &features);
    if (status == ZIMAGE_OK)
        status = finish_step(j, NULL, 0, 0);
    release(j, j->context->text_store);
    if (status == ZIMAGE_OK)
        status = begin_step(j, ZIMAGE_STAGE_CAPTION, 1, 1, zi_dit_caption_blocks(dit),
                            j->plan.flops[ZIMAGE_STAGE_CAPTION] / j->prompts);
    if (status == ZIMAGE_OK)
        status = zi_dit_caption(dit, j->ops, &features, &out->caption);
    if (status == ZIMAGE_OK)
        status = finish_step(j, NULL, 0, 0);
    j->ops->table->release(j->ops, mark);
    return status;
}

/* ---- denoising ---- */

static zimage_status prepare_scene(job *j, conditioning *caption)
{
    return zi_dit_prepare(&j->context->transformer, j->ops, &caption->caption, j->rows, j->columns, &caption->scene);
}

/* prediction <- the network's output for one caption, (clean - noise), on the host. */
static zimage_status evaluate(job *j, float t, const conditioning *caption, float *prediction)
{
    const int64_t shape[3] = {j->context->transformer.config.in_channels, j->rows, j->columns};
    zi_arena_mark mark = j->ops->table->mark(j->ops);
    zi_tensor latents, out;
    zimage_status status = j->ops->table->alloc_f32(j->ops, &latents, 3, shape);
    if (status == ZIMAGE_OK)
        status = j->ops->table->alloc_f32(j->ops, &out, 3, shape);
    if (status == ZIMAGE_OK)
        status = j->ops->table->upload(j->ops, &latents, j->image->latents);
    if (status == ZIMAGE_OK)
        status = zi_dit_evaluate(&caption->scene, j->ops, &latents, t, &out);
    if (status == ZIMAGE_OK)
        status = j->ops->table->download(j->ops, prediction, &out);
    j->ops->table->release(j->ops, mark);
    return status;
}

/*
 * The picture expected at the end, small: with x = (1 - sigma) clean + sigma noise and velocity v = noise - clean (here
 * -prediction), clean = x - sigma v; squares of `factor` latents are averaged. out [C, rows / factor, columns / factor].
 */
static void expected_latents(const job *j, float sigma, int64_t factor, float *out)
{
    int64_t rows = j->rows / factor, columns = j->columns / factor;
    for (int64_t c = 0; c < j->context->transformer.config.in_channels; c++)
        for (int64_t y = 0; y < rows; y++)
            for (int64_t x = 0; x < columns; x++) {
                double sum = 0;
                for (int64_t dy = 0; dy < factor; dy++)
                    for (int64_t dx = 0; dx < factor; dx++) {
                        int64_t at = (c * j->rows + y * factor + dy) * j->columns + x * factor + dx;
                        sum += j->image->latents[at] + sigma * j->prediction[at];
                    }
                out[(c * rows + y) * columns + x] = (float)(sum / (double)(factor * factor));
            }
}

/* Decodes `latents` [C, rows, columns] to interleaved RGB; *pixels is released with free(). */
static zimage_status decode(job *j, const float *latents, int64_t rows, int64_t columns, uint8_t **pixels)
{
    int64_t scale = j->context->vae.config.scale_factor;
    size_t count = (size_t)(rows * scale) * (size_t)(columns * scale) * 3;
    *pixels = malloc(count);
    if (!*pixels)
        return zi_fail_memory(j->error, "the picture", count);
    zimage_status status =
        zi_vae_decode(&j->context->vae, j->ops, latents, rows, columns, j->plan.band_rows, NULL, *pixels);
    if (status != ZIMAGE_OK) {
        free(*pixels);
        *pixels = NULL;
    }
    return status;
}

/* small: scratch of latent_count values. */
static zimage_status show_preview(job *j, float sigma, float *small)
{
    int64_t scale = j->context->vae.config.scale_factor, factor = preview_factor(j);
    int64_t rows = j->rows / factor, columns = j->columns / factor;
    uint8_t *pixels = NULL;
    expected_latents(j, sigma, factor, small);
    j->ops->block_done = NULL; /* the preview's own blocks are not the request's */
    zimage_status status = decode(j, small, rows, columns, &pixels);
    j->ops->block_done = on_block_done;
    if (status == ZIMAGE_OK)
        status = finish_step(j, pixels, (int32_t)(columns * scale), (int32_t)(rows * scale));
    free(pixels);
    return status;
}

static zimage_status report_preview(job *j, float sigma)
{
    size_t bytes = (size_t)j->latent_count * sizeof(float);
    float *small = malloc(bytes);
    zimage_status status = small ? show_preview(j, sigma, small) : zi_fail_memory(j->error, "a preview", bytes);
    free(small);
    return status;
}

static zimage_status denoise_step(job *j, int step)
{
    const zimage_request *r = j->request;
    float sigma = j->sigmas[step], t = zi_scheduler_model_time(sigma);
    float guidance = zi_guidance_at(r->guidance_scale, r->cfg_truncation, t);
    int64_t blocks = zi_dit_forward_blocks(&j->context->transformer) * (guidance > 0 ? 2 : 1);
    ZI_TRY(begin_step(j, ZIMAGE_STAGE_DENOISE, step + 1, r->steps, blocks,
                      j->plan.flops[ZIMAGE_STAGE_DENOISE] / r->steps));
    ZI_TRY(evaluate(j, t, &j->positive_cap, j->prediction));
    if (guidance > 0) {
        ZI_TRY(evaluate(j, t, &j->negative_cap, j->negative));
        zi_guide(j->prediction, j->negative, j->latent_count, guidance, r->cfg_normalization);
    }
    ZI_TRY(r->preview && r->progress ? report_preview(j, sigma) : finish_step(j, NULL, 0, 0));
    for (int64_t i = 0; i < j->latent_count; i++)
        j->prediction[i] = -j->prediction[i];
    zi_euler_step(j->image->latents, j->prediction, j->latent_count, sigma, j->sigmas[step + 1]);
    return ZIMAGE_OK;
}

/* ---- the whole ---- */

static zimage_status prepare(job *j)
{
    const zimage_request *r = j->request;
    const zi_dit_config *dit = &j->context->transformer.config;
    j->image->width = r->width;
    j->image->height = r->height;
    j->image->latents_shape[0] = dit->in_channels;
    j->image->latents_shape[1] = j->rows;
    j->image->latents_shape[2] = j->columns;
    size_t bytes = (size_t)j->latent_count * sizeof(float);
    j->image->latents = malloc(bytes);
    j->prediction = malloc(bytes);
    j->negative = malloc(bytes);
    j->sigmas = malloc((size_t)(r->steps + 1) * sizeof(float));
    if (!j->image->latents || !j->prediction || !j->negative || !j->sigmas)
        return zi_fail_memory(j->error, "latents", bytes);
    int64_t tokens = (j->rows / dit->patch) * (j->columns / dit->patch);
    zi_scheduler_sigmas(&j->context->scheduler, r->steps, tokens, j->sigmas);
    if (r->latents)
        memcpy(j->image->latents, r->latents, bytes);
    else
        zi_noise(r->rng, r->seed, j->image->latents, j->latent_count);
    return ZIMAGE_OK;
}

/* What the prompts became. */
typedef struct token_ids {
    int32_t *positive, *negative; /* NULL: none */
    size_t positive_count, negative_count;
} token_ids;

static zimage_status run_with_ids(job *j, const token_ids *ids)
{
    const zimage_request *r = j->request;
    j->image->prompt_tokens = (int32_t)ids->positive_count;
    ZI_TRY(condition(j, r->prompt_embeds, ids->positive, (int64_t)ids->positive_count, &j->positive_cap));
    if (r->guidance_scale > 0)
        ZI_TRY(condition(j, r->negative_prompt_embeds, ids->negative, (int64_t)ids->negative_count, &j->negative_cap));
    ZI_TRY(prepare_scene(j, &j->positive_cap));
    if (r->guidance_scale > 0)
        ZI_TRY(prepare_scene(j, &j->negative_cap));
    for (int step = 0; step < r->steps; step++)
        ZI_TRY(denoise_step(j, step));
    release(j, j->context->transformer_store);
    j->ops->table->release(j->ops, j->mark); /* the captions, the scenes */
    ZI_TRY(begin_step(j, ZIMAGE_STAGE_DECODE, 1, 1, zi_vae_decode_blocks(&j->context->vae),
                      j->plan.flops[ZIMAGE_STAGE_DECODE]));
    ZI_TRY(decode(j, j->image->latents, j->rows, j->columns, &j->image->pixels));
    release(j, j->context->vae_store);
    return finish_step(j, NULL, 0, 0);
}

/* The checked request's prompts to tokens, and the plan of its size. ids is the caller's to free in every case. */
static zimage_status plan_request(job *j, token_ids *ids)
{
    const zimage_request *r = j->request;
    ids->positive_count = (size_t)r->prompt_tokens;
    ids->negative_count = (size_t)r->negative_prompt_tokens;
    if (!r->prompt_embeds)
        ZI_TRY(tokenize(j, "prompt", r->prompt, &ids->positive, &ids->positive_count));
    if (r->guidance_scale > 0 && !r->negative_prompt_embeds)
        ZI_TRY(tokenize(j, "negative_prompt", r->negative_prompt ? r->negative_prompt : "", &ids->negative,
                        &ids->negative_count));
    const zi_dit *dit = &j->context->transformer;
    int64_t rows = j->rows / dit->config.patch, columns = j->columns / dit->config.patch;
    ZI_TRY(zi_dit_check_positions(dit, (int64_t)ids->positive_count, rows, columns, j->error));
    if (j->prompts > 1)
        ZI_TRY(zi_dit_check_positions(dit, (int64_t)ids->negative_count, rows, columns, j->error));
    return plan_job(j, (int64_t)ids->positive_count, (int64_t)ids->negative_count);
}

static void free_ids(token_ids *ids)
{
    free(ids->negative);
    free(ids->positive);
}

static zimage_status run(job *j)
{
    token_ids ids = {0};
    zimage_status status = plan_request(j, &ids);
    if (status == ZIMAGE_OK)
        status = run_with_ids(j, &ids);
    free_ids(&ids);
    return status;
}

static void measure_request(job *j)
{
    int64_t scale = j->context->vae.config.scale_factor;
    j->prompts = j->request->guidance_scale > 0 ? 2 : 1;
    j->rows = j->request->height / scale;
    j->columns = j->request->width / scale;
    j->latent_count = j->context->transformer.config.in_channels * j->rows * j->columns;
}

static zimage_status run_job(job *j)
{
    ZI_TRY(check_request(j, j->error));
    measure_request(j);
    ZI_TRY(prepare(j));
    j->mark = j->ops->table->mark(j->ops);
    j->ops->error = j->error;
    j->ops->block_done = on_block_done;
    j->ops->block_user = j;
    zimage_status status = run(j);
    j->ops->table->release(j->ops, j->mark);
    j->ops->error = NULL;
    j->ops->block_done = NULL;
    j->ops->block_user = NULL;
    return status;
}

zimage_status zimage_generate(zimage_context *context, const zimage_request *request, zimage_image **image,
                              zimage_error *error)
{
    if (!context || !request || !image)
        return zi_fail(error, ZIMAGE_ERROR_ARGUMENT, "context, request and image: NULL, expected all three");
    *image = calloc(1, sizeof **image);
    if (!*image)
        return zi_fail_memory(error, "a picture", sizeof **image);
    job j = {.context = context, .ops = context->ops, .request = request, .image = *image, .error = error};
    j.start = zi_now();
    j.progress.struct_size = sizeof j.progress;
    zimage_status status = run_job(&j);
    free(j.sigmas);
    free(j.prediction);
    free(j.negative);
    (*image)->device = j.device;
    if (status != ZIMAGE_OK) {
        zimage_image_free(*image);
        *image = NULL;
    }
    return status;
}

static zimage_status plan_seconds(const job *j, zimage_plan_result *result)
{
    const zi_job_plan *plan = &j->plan;
    zi_machine machine;
    ZI_TRY(zi_machine_get(j->ops, j->context->pool, &machine, j->error));
    *result = (zimage_plan_result){
        .struct_size = sizeof *result,
        .band_rows = (int32_t)plan->band_rows,
        .peak_bytes = plan->most,
        .least_bytes = plan->least,
        .device = j->device,
    };
    for (int i = 0; i < ZIMAGE_STAGES; i++) {
        result->stages[i] = (zimage_stage_plan){
            .flops = plan->flops[i],
            .seconds = zi_machine_seconds(&machine, &plan->counts[i]),
            .activation_bytes = plan->activations[i],
            .weight_bytes = plan->counts[i].weight_bytes,
            .peak_bytes = plan->peak[i],
        };
        result->seconds += result->stages[i].seconds;
    }
    return ZIMAGE_OK;
}

zimage_status zimage_plan(zimage_context *context, const zimage_request *request, zimage_plan_result *result,
                          zimage_error *error)
{
    if (!context || !request || !result)
        return zi_fail(error, ZIMAGE_ERROR_ARGUMENT, "context, request and result: NULL, expected all three");
    job j = {.context = context, .ops = context->ops, .request = request, .error = error};
    token_ids ids = {0};
    ZI_TRY(check_request(&j, error));
    measure_request(&j);
    zimage_status status = plan_request(&j, &ids);
    free_ids(&ids);
    return status == ZIMAGE_OK ? plan_seconds(&j, result) : status;
}

int32_t zimage_image_width(const zimage_image *image)
{
    return image->width;
}

int32_t zimage_image_height(const zimage_image *image)
{
    return image->height;
}

const uint8_t *zimage_image_pixels(const zimage_image *image)
{
    return image->pixels;
}

const float *zimage_image_latents(const zimage_image *image, int64_t shape[3])
{
    memcpy(shape, image->latents_shape, sizeof image->latents_shape);
    return image->latents;
}

double zimage_image_seconds(const zimage_image *image, zimage_stage stage)
{
    return (unsigned)stage < ZIMAGE_STAGES ? image->seconds[stage] : 0;
}

int32_t zimage_image_prompt_tokens(const zimage_image *image)
{
    return image->prompt_tokens;
}

const zimage_device_plan *zimage_image_device_plan(const zimage_image *image)
{
    return &image->device;
}

void zimage_image_free(zimage_image *image)
{
    if (!image)
        return;
    free(image->pixels);
    free(image->latents);
    free(image);
}

zimage_status zimage_image_write_png(const zimage_image *image, const char *path, const zimage_text *texts,
                                     size_t text_count, zimage_error *error)
{
    if (!image || !path)
        return zi_fail(error, ZIMAGE_ERROR_ARGUMENT, "image and path: NULL, expected both");
    return zi_png_write(path, image->width, image->height, image->pixels, texts, text_count, error);
}
