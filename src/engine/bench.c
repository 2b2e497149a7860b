/* Timing the stages of a model beside the registers' peak and oneDNN's product. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/clock.h"
#include "base/system.h"
#include "cpu/cpu.h"
#include "engine/card.h"
#include "engine/device.h"
#include "engine/onednn.h"
#include "engine/plan.h"
#include "engine/synthetic.h"

#define MOST_REPEATS   1000
#define WARM_SECONDS   0.5 /* a first run shorter than this only warms caches and memory */
#define MAIN_PRODUCTS  3   /* of a stage, compared with oneDNN */
#define DEFAULT_TOKENS 64

/* The registers' peak during a run. */
typedef struct yardstick {
    double inverse_sum; /* of 1 / rate */
    int count;
    double last;   /* when it was taken */
    double paused; /* seconds that it took */
} yardstick;

typedef struct bench {
    const char *model_path;
    zimage_bench_params params;
    zimage_bench_result *result;
    zimage_error *error;
    zimage_context *context; /* of the stage under way; a synthetic model has one part at a time */
    zi_log log;
    zi_job_size size;
    zi_plan_counts counts[ZIMAGE_BENCH_STAGES];
    double *seconds, *peaks, *shares; /* [repeats] of the stage under way; a share: of the run's own peak */
    double peak_sum;                  /* of the stages' median peaks */
    int peak_count;
    yardstick yardstick;
    int on_card; /* not the processor: oneDNN is no peer */
    /* Inputs of the stage under way. */
    int32_t ids[ZI_MAX_PROMPT_TOKENS];
    float *latents;
    uint8_t *rgb8;
    zi_tensor x, caption, y;
    zi_dit_scene scene;
} bench;

static int compare(const void *a, const void *b)
{
    double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

/* Sorts the values. */
static double median(double *values, int count)
{
    qsort(values, (size_t)count, sizeof *values, compare);
    return count % 2 ? values[count / 2] : (values[count / 2 - 1] + values[count / 2]) / 2;
}

static float *random_floats(size_t count)
{
    float *values = malloc(count * sizeof *values);
    uint64_t state = 88172645463325252u;
    for (size_t i = 0; values && i < count; i++) {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        values[i] = (float)(state >> 40) * 0x1p-23f - 1; /* [-1, 1) */
    }
    return values;
}

/* ---- the stages -------------------------------------------------------------------------------------------------- */

static zimage_status prepare_text(bench *b)
{
    zi_ops *ops = b->context->ops;
    const int64_t shape[2] = {b->size.tokens[0], b->context->text_encoder.config.hidden_size};
    for (int64_t i = 0; i < shape[0]; i++)
        b->ids[i] = (int32_t)(i * 7919 % b->context->text_encoder.config.vocab_size);
    return ops->table->alloc(ops, &b->y, 2, shape);
}

static zimage_status run_text(bench *b)
{
    return zi_qwen3_encode(&b->context->text_encoder, b->context->ops, b->ids, b->size.tokens[0], &b->y);
}

typedef zimage_status alloc_fn(zi_ops *ops, zi_tensor *tensor, int dims, const int64_t *shape);

static zimage_status make_random(bench *b, alloc_fn *alloc, zi_tensor *tensor, int dims, const int64_t *shape)
{
    zi_ops *ops = b->context->ops;
    ZI_TRY(alloc(ops, tensor, dims, shape));
    size_t count = (size_t)zi_tensor_count(tensor);
    float *values = random_floats(count);
    if (!values)
        return zi_fail_memory(b->error, "an input", count * sizeof *values);
    zimage_status status = ops->table->upload(ops, tensor, values);
    free(values);
    return status;
}

static zimage_status prepare_step(bench *b)
{
    const zi_dit_config *config = &b->context->transformer.config;
    const int64_t latents[3] = {config->in_channels, b->size.rows, b->size.columns};
    const int64_t caption[2] = {zi_dit_padded(b->size.tokens[0]), config->dim};
    ZI_TRY(make_random(b, b->context->ops->table->alloc_f32, &b->x, 3, latents));
    ZI_TRY(make_random(b, b->context->ops->table->alloc, &b->caption, 2, caption));
    ZI_TRY(zi_dit_prepare(&b->context->transformer, b->context->ops, &b->caption, b->size.rows, b->size.columns,
                          &b->scene));
    return b->context->ops->table->alloc_f32(b->context->ops, &b->y, 3, latents);
}

static zimage_status run_step(bench *b)
{
    return zi_dit_evaluate(&b->scene, b->context->ops, &b->x, 0.5f, &b->y);
}

static zimage_status prepare_decode(bench *b)
{
    const zi_vae_config *config = &b->context->vae.config;
    size_t count = (size_t)(b->size.rows * b->size.columns), scale = (size_t)config->scale_factor;
    b->latents = random_floats(count * (size_t)config->latent_channels);
    b->rgb8 = malloc(count * scale * scale * 3);
    return b->latents && b->rgb8 ? ZIMAGE_OK : zi_fail_memory(b->error, "the picture", count * scale * scale * 3);
}

static zimage_status run_decode(bench *b)
{
    return zi_vae_decode(&b->context->vae, b->context->ops, b->latents, b->size.rows, b->size.columns,
                         b->size.band_rows, NULL, b->rgb8);
}

static const struct {
    zimage_stage stage; /* as the plan calls it */
    int part;
    zimage_status (*prepare)(bench *b);
    zimage_status (*run)(bench *b);
} stages[] = {
    [ZIMAGE_BENCH_TEXT_ENCODER] = {ZIMAGE_STAGE_TEXT, ZI_PART_TEXT, prepare_text, run_text},
    [ZIMAGE_BENCH_TRANSFORMER_STEP] = {ZIMAGE_STAGE_DENOISE, ZI_PART_TRANSFORMER, prepare_step, run_step},
    [ZIMAGE_BENCH_VAE_DECODE] = {ZIMAGE_STAGE_DECODE, ZI_PART_VAE, prepare_decode, run_decode},
};

#define TIMED_STAGES 3

const char *zimage_bench_stage_name(zimage_bench_stage stage)
{
    static const char *const names[] = {"text_encoder", "transformer_step", "vae_decode", "load"};
    return (unsigned)stage < ZIMAGE_BENCH_STAGES ? names[stage] : "unknown stage";
}

/* ---- timing ------------------------------------------------------------------------------------------------------ */

#define PEAK_SECONDS 0.1 /* so far apart, at least */

static void take_peak(bench *b)
{
    yardstick *y = &b->yardstick;
    double start = zi_now(), rate = zi_ops_peak_rate(b->context->ops);
    if (rate > 0) { /* a card may have no room to measure it */
        y->inverse_sum += 1 / rate;
        y->count++;
    }
    y->last = zi_now();
    y->paused += y->last - start;
}

static int between_blocks(void *user)
{
    bench *b = user;
    if (zi_now() - b->yardstick.last >= PEAK_SECONDS)
        take_peak(b);
    return 0;
}

static zimage_status time_run(bench *b, int stage, double *seconds)
{
    double start = zi_now(), paused = b->yardstick.paused;
    ZI_TRY(stages[stage].run(b));
    ZI_TRY(zi_ops_finish(b->context->ops));
    *seconds = zi_now() - start - (b->yardstick.paused - paused);
    zi_inform(&b->log, "%s: %.3f s", zimage_bench_stage_name((zimage_bench_stage)stage), *seconds);
    return ZIMAGE_OK;
}

/* A card's first run sends the weights and tries kernels out; what it leaves in use is before the peak's operands. */
static zimage_status warm_card(bench *b, int stage)
{
    double seconds;
    ZI_TRY(time_run(b, stage, &seconds));
    uint64_t bytes = zi_ops_device_bytes(b->context->ops);
    if (bytes > b->result->peak_device_bytes)
        b->result->peak_device_bytes = bytes;
    return ZIMAGE_OK;
}

/*
 * Other work on the machine slows a run and the registers' peak alike, and may come and go: the peak is taken before and
 * after every run, on processors between its blocks, too. Equal parts of a run at a share s of rates r_i have taken time
 * in proportion to the sum of 1 / (s r_i): the run's peak is their harmonic mean.
 */
static zimage_status time_repeats(bench *b, int stage)
{
    zimage_bench_figures *figures = &b->result->stages[stage];
    int repeats = b->params.repeats;
    if (b->on_card)
        ZI_TRY(warm_card(b, stage));
    for (int i = 0, warmed = b->on_card; i < repeats; i++) {
        b->yardstick = (yardstick){0};
        take_peak(b);
        ZI_TRY(time_run(b, stage, &b->seconds[i]));
        take_peak(b);
        b->peaks[i] = b->yardstick.count > 0 ? b->yardstick.count / b->yardstick.inverse_sum : 0;
        b->shares[i] = b->peaks[i] > 0 ? zi_plan_flops(&b->counts[stage]) / b->seconds[i] / b->peaks[i] : -0.01;
        if (!warmed++ && b->seconds[i] < WARM_SECONDS)
            i--;
    }
    double peak = median(b->peaks, repeats);
    figures->seconds = median(b->seconds, repeats);
    figures->tflops = zi_plan_flops(&b->counts[stage]) / figures->seconds * 1e-12;
    figures->percent_of_peak = 100 * median(b->shares, repeats);
    b->peak_sum += peak;
    b->peak_count += peak > 0;
    return ZIMAGE_OK;
}

static zimage_status time_watched(bench *b, int stage)
{
    zi_ops *ops = b->context->ops;
    if (!b->on_card) {
        ops->block_done = between_blocks;
        ops->block_user = b;
    }
    zimage_status status = time_repeats(b, stage);
    ops->block_done = NULL;
    return status;
}

/* What `run` makes of the prepared stage. */
static zimage_status with_inputs(bench *b, int stage, zimage_status (*run)(bench *b, int stage))
{
    zi_ops *ops = b->context->ops;
    zi_arena_mark mark = ops->table->mark(ops);
    zimage_error *kept = ops->error;
    ops->error = b->error;
    zimage_status status = stages[stage].prepare(b);
    if (status == ZIMAGE_OK)
        status = run(b, stage);
    ops->table->release(ops, mark);
    ops->error = kept;
    free(b->latents);
    free(b->rgb8);
    b->latents = NULL;
    b->rgb8 = NULL;
    return status;
}

static zimage_status run_once(bench *b, int stage)
{
    return stages[stage].run(b);
}

typedef struct trial {
    bench *b;
    int stage;
} trial;

static zimage_status rehearse(void *user, int64_t band_rows)
{
    const trial *t = user;
    t->b->size.band_rows = band_rows;
    return with_inputs(t->b, t->stage, run_once);
}

/* The memory of a card; each run is the same. */
static zimage_status arrange(bench *b, int stage)
{
    zi_ops *ops = b->context->ops;
    trial t = {b, stage};
    int64_t image_rows = 0, band_rows = 0;
    if (stages[stage].part == ZI_PART_VAE)
        image_rows = b->size.rows * b->context->vae.config.scale_factor;
    ops->error = b->error;
    zimage_status status = zi_card_arrange_stage(ops, rehearse, &t, image_rows, b->params.repeats + 1, &band_rows,
                                                 &b->result->device[stage]);
    ops->error = NULL;
    b->size.band_rows = band_rows;
    return status;
}

static zimage_status check_size(const bench *b, int stage)
{
    if (stages[stage].part != ZI_PART_TRANSFORMER)
        return ZIMAGE_OK;
    const zi_dit *dit = &b->context->transformer;
    int64_t patch = dit->config.patch;
    if (b->size.rows % patch || b->size.columns % patch)
        return zi_fail(b->error, ZIMAGE_ERROR_ARGUMENT, "width and height: %dx%d, expected multiples of %lld",
                       b->params.width, b->params.height, (long long)zi_context_size_multiple(b->context));
    return zi_dit_check_positions(dit, b->size.tokens[0], b->size.rows / patch, b->size.columns / patch, b->error);
}

static zimage_status time_stage(bench *b, int stage)
{
    ZI_TRY(check_size(b, stage));
    ZI_TRY(zi_plan_stage(b->context, &b->size, stages[stage].stage, &b->counts[stage], b->error));
    b->result->stages[stage].planned_bytes = b->counts[stage].peak_bytes + b->counts[stage].weight_bytes;
    ZI_TRY(arrange(b, stage));
    if (b->on_card)
        b->result->stages[stage].planned_bytes = b->result->device[stage].total_bytes;
    return with_inputs(b, stage, time_watched);
}

/* ---- models ------------------------------------------------------------------------------------------------------ */

static int64_t at_most(int64_t count, int32_t limit)
{
    return limit > 0 && limit < count ? limit : count;
}

static void set_size(bench *b)
{
    const int64_t scale = b->context->vae_store ? b->context->vae.config.scale_factor : 8;
    b->size.rows = b->params.height / scale;
    b->size.columns = b->params.width / scale;
}

static void note_context(bench *b)
{
    zimage_bench_result *r = b->result;
    r->threads = zi_pool_threads(b->context->pool);
    b->on_card = zi_device_is_card(b->context->ops);
    b->context->ops->describe(b->context->ops, r->tiers, sizeof r->tiers);
    if (b->context->transformer_store)
        r->transformer_layers = (int32_t)b->context->transformer.config.n_layers;
    if (b->context->text_store)
        r->text_layers = (int32_t)b->context->text_encoder.layers_needed;
}

static zimage_status bench_synthetic(bench *b)
{
    const zimage_bench_params *p = &b->params;
    const zi_synthetic synthetic = {p->synthetic, p->format,   p->layers, p->threads,
                                    p->compute,   p->cpu_mask, p->device, p->device_memory};
    ZI_TRY(zi_synthetic_check(&synthetic, b->error));
    b->result->stages[ZIMAGE_BENCH_LOAD].seconds = 0;
    for (int stage = 0; stage < TIMED_STAGES; stage++) {
        double start = zi_now();
        ZI_TRY(zi_context_new_synthetic(&synthetic, stages[stage].part, &b->context, b->error));
        b->result->stages[ZIMAGE_BENCH_LOAD].seconds += zi_now() - start;
        set_size(b);
        note_context(b);
        zimage_status status = time_stage(b, stage);
        zimage_close(b->context);
        b->context = NULL;
        ZI_TRY(status);
    }
    return ZIMAGE_OK;
}

/* The model's own size where none is given, fewer layers where asked for. */
static void adapt(bench *b)
{
    zimage_model_info info;
    zimage_get_model_info(b->context, &info);
    if (!b->params.width)
        b->params.width = info.default_width;
    if (!b->params.height)
        b->params.height = info.default_height;
    zi_dit_config *dit = &b->context->transformer.config;
    dit->n_layers = at_most(dit->n_layers, b->params.layers);
    b->context->text_encoder.layers_needed = at_most(b->context->text_encoder.layers_needed, b->params.layers);
}

static zimage_status bench_model(bench *b)
{
    zimage_open_params open;
    zimage_open_params_init(&open);
    open.threads = b->params.threads;
    open.compute = b->params.compute;
    open.cpu_mask = b->params.cpu_mask;
    open.device = b->params.device;
    open.device_memory = b->params.device_memory;
    open.log = b->params.log;
    open.log_user = b->params.log_user;
    double start = zi_now();
    ZI_TRY(zimage_open(b->model_path, &open, &b->context, b->error));
    b->result->stages[ZIMAGE_BENCH_LOAD].seconds = zi_now() - start;
    adapt(b);
    set_size(b);
    note_context(b);
    zimage_status status = ZIMAGE_OK;
    for (int stage = 0; stage < TIMED_STAGES && status == ZIMAGE_OK; stage++)
        if (stages[stage].part != ZI_PART_TEXT || b->context->text_store)
            status = time_stage(b, stage);
    zimage_close(b->context);
    b->context = NULL;
    return status;
}

/* ---- oneDNN ------------------------------------------------------------------------------------------------------ */

/* The largest product of those not in used[0 .. count). */
static int largest_product(const zi_plan_counts *counts, const int *used, int count)
{
    int largest = -1;
    for (int i = 0; i < counts->product_count; i++) {
        int taken = 0;
        for (int k = 0; k < count; k++)
            taken |= used[k] == i;
        if (!taken && (largest < 0 || counts->products[i].flops > counts->products[largest].flops))
            largest = i;
    }
    return largest;
}

/*
 * The share of the registers' peak that oneDNN reaches on the stage's largest products, each weighted by its operations;
 * 0: it failed. The peak is taken beside each, so that other work on the machine slows both alike.
 */
static double onednn_share(zi_onednn *dnn, zi_ops *ops, const zi_plan_counts *counts)
{
    double flops = 0, ideal = 0;
    int used[MAIN_PRODUCTS];
    for (int n = 0; n < MAIN_PRODUCTS && n < counts->product_count; n++) {
        used[n] = largest_product(counts, used, n);
        const zi_plan_product *p = &counts->products[used[n]];
        double before = zi_ops_peak_rate(ops), rate = zi_onednn_rate(dnn, p->rows, p->out, p->in);
        double after = zi_ops_peak_rate(ops), peak = before > after ? before : after;
        if (!(rate > 0))
            return 0;
        flops += p->flops;
        ideal += p->flops * peak / rate;
    }
    return ideal > 0 ? flops / ideal : 0;
}

static void compare_stages(bench *b, zi_onednn *dnn, zi_ops *ops)
{
    snprintf(b->result->onednn, sizeof b->result->onednn, "%s", zi_onednn_version(dnn));
    for (int stage = 0; stage < TIMED_STAGES; stage++) {
        zimage_bench_figures *figures = &b->result->stages[stage];
        double share = figures->seconds > 0 ? onednn_share(dnn, ops, &b->counts[stage]) : 0;
        if (share > 0)
            figures->percent_of_onednn = figures->percent_of_peak / share;
    }
}

static zimage_status compare_with_onednn(bench *b)
{
    zi_pool *pool = NULL;
    zi_ops *ops = NULL;
    zi_onednn *dnn = zi_onednn_open(b->result->threads);
    if (!dnn)
        return ZIMAGE_OK;
    zimage_status status = zi_pool_new(b->result->threads, &pool, b->error);
    if (status == ZIMAGE_OK)
        status =
            zi_device_ops(&(zi_device_choice){"cpu", b->params.compute, b->params.cpu_mask, 0}, pool, &ops, b->error);
    if (status == ZIMAGE_OK) {
        compare_stages(b, dnn, ops);
        ops->table->free(ops);
    }
    zi_pool_free(pool);
    zi_onednn_close(dnn);
    return status;
}

/* ---- the whole --------------------------------------------------------------------------------------------------- */

void zimage_bench_params_init(zimage_bench_params *params)
{
    *params = (zimage_bench_params){
        .struct_size = sizeof *params,
        .format = "bf16",
        .tokens = DEFAULT_TOKENS,
        .repeats = 3,
    };
}

static zimage_status check_params(const char *model_path, const zimage_bench_params *p, zimage_error *error)
{
    if (p->struct_size != sizeof *p)
        return zi_fail(error, ZIMAGE_ERROR_ARGUMENT,
                       "params: struct_size is %u, expected zimage_bench_params_init's %zu", p->struct_size, sizeof *p);
    if (!model_path == !p->synthetic)
        return zi_fail(error, ZIMAGE_ERROR_ARGUMENT, "model_path and synthetic: expected one of them");
    if (p->repeats < 1 || p->repeats > MOST_REPEATS)
        return zi_fail(error, ZIMAGE_ERROR_ARGUMENT, "repeats: %d, expected 1 to %d", p->repeats, MOST_REPEATS);
    if (p->tokens < 1 || p->tokens > ZI_MAX_PROMPT_TOKENS)
        return zi_fail(error, ZIMAGE_ERROR_ARGUMENT, "tokens: %d, expected 1 to %d", p->tokens, ZI_MAX_PROMPT_TOKENS);
    if (p->layers < 0 || p->threads < 0 || p->threads > 1024)
        return zi_fail(error, ZIMAGE_ERROR_ARGUMENT, "layers or threads: %d and %d, expected 0 (all) or more",
                       p->layers, p->threads);
    int least = p->synthetic ? 16 : 0; /* 0: the model's own */
    if (p->width < least || p->height < least || p->width > 1 << 14 || p->height > 1 << 14 || p->width % 16 ||
        p->height % 16)
        return zi_fail(error, ZIMAGE_ERROR_ARGUMENT, "width and height: %dx%d, expected multiples of 16 up to %d",
                       p->width, p->height, 1 << 14);
    return ZIMAGE_OK;
}

static zimage_status run(bench *b)
{
    size_t count = (size_t)b->params.repeats;
    b->seconds = malloc(count * sizeof *b->seconds);
    b->peaks = malloc(count * sizeof *b->peaks);
    b->shares = malloc(count * sizeof *b->shares);
    if (!b->seconds || !b->peaks || !b->shares)
        return zi_fail_memory(b->error, "the measurements", 3 * count * sizeof *b->seconds);
    ZI_TRY(b->model_path ? bench_model(b) : bench_synthetic(b));
    b->result->peak_rss_bytes = zi_peak_resident_bytes();
    b->result->peak_tflops = b->peak_count > 0 ? b->peak_sum / b->peak_count * 1e-12 : 0;
    return b->on_card ? ZIMAGE_OK : compare_with_onednn(b); /* last: its own memory is not the model's */
}

zimage_status zimage_bench(const char *model_path, const zimage_bench_params *params, zimage_bench_result *result,
                           zimage_error *error)
{
    if (!params || !result)
        return zi_fail(error, ZIMAGE_ERROR_ARGUMENT, "params and result: NULL, expected both");
    ZI_TRY(check_params(model_path, params, error));
    *result = (zimage_bench_result){.struct_size = sizeof *result};
    for (int i = 0; i < ZIMAGE_BENCH_STAGES; i++)
        result->stages[i] = (zimage_bench_figures){-1, -1, -1, -1, 0};
    bench b = {.model_path = model_path, .params = *params, .result = result, .error = error};
    b.log = (zi_log){params->log, params->log_user};
    b.size = (zi_job_size){.prompts = 1, .tokens = {params->tokens}, .encoded = {1}, .steps = 1};
    zimage_status status = run(&b);
    result->width = b.params.width;
    result->height = b.params.height;
    result->tokens = b.params.tokens;
    free(b.seconds);
    free(b.peaks);
    free(b.shares);
    return status;
}
