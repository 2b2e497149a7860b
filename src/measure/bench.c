/* Timing the stages of a model beside the peak rate of the CPU's registers and oneDNN's matrix product. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define ZIMAGE_EXPERIMENTAL
#include "base/clock.h"
#include "base/numbers.h"
#include "base/sized.h"
#include "base/stack.h"
#include "base/system.h"
#include "engine/backends.h"
#include "engine/plan.h"
#include "measure/onednn.h"
#include "measure/synthetic.h"

#define MOST_REPEATS    1000
#define WARM_SECONDS    0.5 /* a first run shorter than this only warms caches and memory */
#define MAIN_PRODUCTS   3   /* of a stage, compared with oneDNN */
#define DEFAULT_TOKENS  64
#define DEFAULT_REPEATS 3
#define DEFAULT_SIDE    512 /* of a synthetic model */
#define TIMED_SIGMA     0.5f
#define MOST_TOKENS     512

struct zimage_bench {
    zimage_bench_info info;
    zimage_bench_figures figures[ZIMAGE_BENCH_STAGE_COUNT];
    zimage_memory_info memory[ZIMAGE_BENCH_STAGE_COUNT];
};

/* The peak rate during a run. */
typedef struct baseline {
    double inverse_sum; /* of 1 / rate */
    int count;
    double last;   /* when it was measured */
    double paused; /* seconds that measuring took */
} baseline;

typedef struct bench_run {
    const char *model_path;
    zimage_bench_params params;
    zimage_session_params session_params;
    zimage_bench *result;
    zimage_session *session; /* of the stage under way; a synthetic model has one network at a time */
    zi_run run;
    zi_log log;
    zi_job job; /* of the stage under way */
    zi_counts counts[ZIMAGE_BENCH_STAGE_COUNT];
    double *seconds, *peaks, *shares; /* [repeats] of the stage under way; a share: of the run's own peak */
    double peak_sum;                  /* of the stages' median peaks */
    int peak_count;
    baseline baseline;
    /* Inputs and outputs of the stage under way. */
    int32_t *ids;
    float *features, *latents, *velocity, *moments;
    uint8_t *rgb8;
} bench_run;

/* What is timed, in order. */
static const struct {
    zimage_stage stage;
    zi_component_kind component;
} timed[] = {
    [ZIMAGE_BENCH_TEXT_ENCODER] = {ZIMAGE_STAGE_TEXT, ZI_TEXT_ENCODER},
    [ZIMAGE_BENCH_TRANSFORMER_STEP] = {ZIMAGE_STAGE_DENOISE, ZI_TRANSFORMER},
    [ZIMAGE_BENCH_VAE_DECODE] = {ZIMAGE_STAGE_DECODE, ZI_VAE},
    [ZIMAGE_BENCH_VAE_ENCODE] = {ZIMAGE_STAGE_ENCODE, ZI_VAE},
};

#define TIMED_STAGES 4

const char *zimage_bench_stage_name(zimage_bench_stage stage)
{
    static const char *const names[] = {"text_encoder", "transformer_step", "vae_decode", "vae_encode", "load"};
    return (unsigned)stage < ZIMAGE_BENCH_STAGE_COUNT ? names[stage] : "unknown";
}

/* ---- inputs ------------------------------------------------------------------------------------------------------ */

/* In [-1, 1); NULL: out of memory. */
static float *random_floats(size_t count)
{
    float *values = malloc(count * sizeof *values);
    uint64_t state = ZI_RANDOM_SEED;
    for (size_t i = 0; values && i < count; i++)
        values[i] = zi_random_float(&state);
    return values;
}

static void free_inputs(bench_run *b)
{
    free(b->ids);
    free(b->features);
    free(b->latents);
    free(b->velocity);
    free(b->moments);
    free(b->rgb8);
    b->ids = NULL;
    b->features = b->latents = b->velocity = b->moments = NULL;
    b->rgb8 = NULL;
}

/* A job of one stage: its sizes and token ids. */
static zimage_status make_job(bench_run *b, int stage)
{
    const zi_model *model = b->session->inner;
    const zi_facts *facts = &model->facts;
    int64_t tokens = b->params.tokens, scale = facts->scale_factor;
    int encoded = timed[stage].stage == ZIMAGE_STAGE_TEXT;
    b->job = (zi_job){.model = model,
                      .rows = b->params.height / scale,
                      .columns = b->params.width / scale,
                      .prompts = 1,
                      .steps = b->params.repeats + 1,
                      .single = 1,
                      .forward_only = 1,
                      .single_stage = (int)timed[stage].stage,
                      .sigma = TIMED_SIGMA};
    b->ids = malloc((size_t)tokens * sizeof *b->ids);
    if (!b->ids)
        return zi_fail_memory(b->run.error, "a stage's inputs", (size_t)tokens * sizeof *b->ids);
    for (int64_t i = 0; i < tokens; i++)
        b->ids[i] = (int32_t)(i * 7919 % (facts->vocabulary > 0 ? facts->vocabulary : 1));
    if (timed[stage].stage == ZIMAGE_STAGE_ENCODE) {
        b->job.images = 1;
        b->job.image[0] = (zi_job_image){.pixel_rows = b->params.height, .pixel_columns = b->params.width};
    }
    if (!encoded) /* text features, with their padding */
        tokens = model->family->feature_rows(model->networks, tokens);
    b->job.prompt[0] = (zi_prompt){.tokens = tokens, .encoded = encoded, .ids = b->ids};
    return ZIMAGE_OK;
}

/* Random inputs, and room for outputs. After the plan, which refuses a job that does not fit. */
static zimage_status make_inputs(bench_run *b)
{
    const zi_facts *facts = &b->session->inner->facts;
    int64_t scale = facts->scale_factor;
    zi_job_image *image = &b->job.image[0];
    size_t moments = b->job.images ? (size_t)b->session->inner->family->moments_count(
                                         b->session->inner->networks, image->pixel_rows, image->pixel_columns)
                                   : 1;
    size_t places = (size_t)(b->job.rows * b->job.columns), count = places * (size_t)facts->latent_channels;
    b->features = random_floats((size_t)(b->job.prompt[0].tokens * facts->features));
    b->latents = random_floats(count);
    b->velocity = malloc(count * sizeof *b->velocity);
    b->moments = malloc(moments * sizeof *b->moments);
    b->rgb8 = malloc(places * (size_t)(scale * scale) * 3);
    if (!b->features || !b->latents || !b->velocity || !b->moments || !b->rgb8)
        return zi_fail_memory(b->run.error, "a stage's inputs", places * (size_t)(scale * scale) * 3);
    b->job.prompt[0].features = b->features;
    b->job.latents = b->latents;
    b->job.velocity[0] = b->velocity;
    b->job.rgb8 = b->rgb8;
    for (size_t i = 0; i < places * (size_t)(scale * scale) * 3; i++)
        b->rgb8[i] = (uint8_t)(i * 7919 >> 4);
    image->rgb8 = b->rgb8;
    image->moments = b->moments;
    return ZIMAGE_OK;
}

/* ---- timing ------------------------------------------------------------------------------------------------------ */

#define PEAK_SECONDS 0.1 /* between measurements of the peak, at least */

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

/* 0: it could not be measured, which is no error. */
static double peak_rate(zi_ops *ops)
{
    zi_run silent = {.ops = ops};
    return zi_table(&silent)->peak_rate(&silent);
}

static int on_gpu(const bench_run *b)
{
    return b->session->ops->table->memory != ZI_MEMORY_HOST;
}

static void measure_peak(bench_run *b)
{
    baseline *y = &b->baseline;
    double start = zi_now(), rate = peak_rate(b->run.ops);
    if (rate > 0) { /* a GPU may have no room to measure it */
        y->inverse_sum += 1 / rate;
        y->count++;
    }
    y->last = zi_now();
    y->paused += y->last - start;
}

static int between_blocks(void *user)
{
    bench_run *b = user;
    if (zi_now() - b->baseline.last >= PEAK_SECONDS)
        measure_peak(b);
    return 0;
}

static zimage_status time_run(bench_run *b, int stage, double *seconds)
{
    double start = zi_now(), paused = b->baseline.paused;
    ZI_TRY(zi_job_stage(&b->run, &b->job, (int)timed[stage].stage, 0));
    ZI_TRY(zi_table(&b->run)->finish(&b->run));
    *seconds = zi_now() - start - (b->baseline.paused - paused);
    zi_inform(&b->log, "%s: %.3f s", zimage_bench_stage_name((zimage_bench_stage)stage), *seconds);
    return ZIMAGE_OK;
}

/* A GPU's first run copies the weights and tries algorithms out; the memory in use then excludes the operands of the
 * peak. */
static zimage_status warm_gpu(bench_run *b, int stage)
{
    double seconds;
    ZI_TRY(time_run(b, stage, &seconds));
    uint64_t bytes = zi_table(&b->run)->device_bytes(b->session->ops);
    if (bytes > b->result->info.peak_device_bytes)
        b->result->info.peak_device_bytes = bytes;
    return ZIMAGE_OK;
}

/* One run more, to see the graph that the backend builds; counting its operations takes time. */
static zimage_status count_graph(bench_run *b, int stage)
{
    zimage_bench_figures *figures = &b->result->figures[stage];
    double seconds;
    zi_graph_info info = zi_table(&b->run)->graph_info(b->run.ops);
    if (info.evaluations == 0)
        return ZIMAGE_OK;
    ZI_TRY(time_run(b, stage, &seconds));
    info = zi_table(&b->run)->graph_info(b->run.ops);
    figures->graph_nodes = info.nodes;
    figures->graph_evaluations = info.evaluations;
    figures->graph_seconds = info.building;
    figures->graph_peak_bytes = info.peak_bytes;
    return ZIMAGE_OK;
}

/*
 * Other work on the machine slows a run and the peak alike, and may come and go. So the peak is measured before and
 * after every run, and on CPUs between its blocks, too. Equal parts of a run at a share s of rates r_i take time in
 * proportion to the sum of 1 / (s r_i): the run's peak is their harmonic mean.
 */
static zimage_status time_repeats(bench_run *b, int stage)
{
    zimage_bench_figures *figures = &b->result->figures[stage];
    double flops = zi_count_flops(&b->counts[stage]);
    int repeats = b->params.repeats;
    if (on_gpu(b))
        ZI_TRY(warm_gpu(b, stage));
    ZI_TRY(count_graph(b, stage));
    for (int i = 0, warmed = on_gpu(b); i < repeats; i++) {
        b->baseline = (baseline){0};
        measure_peak(b);
        ZI_TRY(time_run(b, stage, &b->seconds[i]));
        measure_peak(b);
        b->peaks[i] = b->baseline.count > 0 ? b->baseline.count / b->baseline.inverse_sum : 0;
        b->shares[i] = b->peaks[i] > 0 ? flops / b->seconds[i] / b->peaks[i] : -0.01;
        if (!warmed++ && b->seconds[i] < WARM_SECONDS)
            i--;
    }
    double peak = median(b->peaks, repeats);
    figures->seconds = median(b->seconds, repeats);
    figures->tflops = flops / figures->seconds * 1e-12;
    figures->percent_of_peak = 100 * median(b->shares, repeats);
    b->peak_sum += peak;
    b->peak_count += peak > 0;
    return ZIMAGE_OK;
}

/* The stages before the one that is timed run once. */
static zimage_status run_stage(bench_run *b, int stage)
{
    zi_job_run runs[ZI_JOB_RUNS_MAX];
    int entries = zi_job_list(&b->job, runs);
    for (int i = 0; i < entries && runs[i].stage != (int)timed[stage].stage; i++)
        ZI_TRY(zi_job_stage(&b->run, &b->job, runs[i].stage, runs[i].index));
    b->run.block_done = on_gpu(b) ? NULL : between_blocks;
    zimage_status status = time_repeats(b, stage);
    b->run.block_done = NULL;
    return status;
}

static zimage_status check_size(const bench_run *b, int stage)
{
    const zi_model *model = b->session->inner;
    int64_t multiple = model->facts.size_multiple;
    if (timed[stage].component != ZI_TRANSFORMER)
        return ZIMAGE_OK;
    if (b->params.width % multiple || b->params.height % multiple)
        return zi_fail(b->run.error, ZIMAGE_ERROR_ARGUMENT, "width and height: %dx%d, expected multiples of %lld",
                       b->params.width, b->params.height, (long long)multiple);
    return model->family->check_positions(model->networks, b->job.prompt[0].tokens, b->job.rows, b->job.columns,
                                          b->run.error);
}

static zimage_status time_job(bench_run *b, int stage)
{
    zi_counts counts[ZI_STAGE_COUNT];
    zi_memory_plan memory;
    size_t stack;
    ZI_TRY(check_size(b, stage));
    ZI_TRY(zi_count_job(&b->job, counts, b->run.error));
    b->counts[stage] = counts[timed[stage].stage];
    ZI_TRY(zi_plan_stage(b->session, &b->job, &stack, &memory, b->run.error));
    zi_memory_info(&memory, (int)timed[stage].stage, &b->result->memory[stage]);
    b->result->figures[stage].planned_bytes =
        zi_has_own_memory(b->session->ops) ? memory.total : stack + b->counts[stage].weight_bytes;
    ZI_TRY(make_inputs(b));
    zimage_status status = zi_job_open(&b->run, &b->job);
    if (status == ZIMAGE_OK)
        status = run_stage(b, stage);
    zi_job_close(&b->run, &b->job);
    return status;
}

static zimage_status time_stage(bench_run *b, int stage)
{
    zimage_status status = make_job(b, stage);
    if (status == ZIMAGE_OK)
        status = time_job(b, stage);
    free_inputs(b);
    return status;
}

static int is_wanted(const bench_run *b, int stage)
{
    return b->params.stages == 0 || b->params.stages >> stage & 1;
}

/* ---- models ------------------------------------------------------------------------------------------------------ */

/* A session on a model, which goes with it. */
static zimage_status open_session(bench_run *b, zi_model *inner)
{
    zimage_model *model;
    ZI_TRY(zi_model_handle(inner, &model, b->run.error));
    zimage_status status = zi_session_new(model, &b->session_params, &b->session, b->run.error);
    zimage_model_close(model);
    if (status == ZIMAGE_OK)
        b->run.ops = b->session->ops;
    return status;
}

static void record_session(bench_run *b)
{
    const zi_model *model = b->session->inner;
    zimage_bench_info *info = &b->result->info;
    info->threads = zi_pool_threads(b->session->pool);
    info->on_gpu = on_gpu(b);
    b->session->ops->table->describe(b->session->ops, info->kernels, sizeof info->kernels);
    if (zi_model_has(model, ZI_TRANSFORMER))
        info->transformer_layers = (int32_t)model->family->components[ZI_TRANSFORMER].layers(model->networks);
    if (zi_model_has(model, ZI_TEXT_ENCODER))
        info->text_layers = (int32_t)model->family->components[ZI_TEXT_ENCODER].layers(model->networks);
}

static zimage_status make_synthetic(bench_run *b, int stage)
{
    const zi_synthetic synthetic = {b->params.synthetic, b->params.format, b->params.layers};
    zi_pool *pool = NULL;
    zi_model *model = NULL;
    ZI_TRY(zi_pool_new(b->session_params.threads, &pool, b->run.error));
    zimage_status status = zi_synthetic_new(&synthetic, 1u << timed[stage].component, pool, &model, b->run.error);
    zi_pool_free(pool);
    return status == ZIMAGE_OK ? open_session(b, model) : status;
}

static zimage_status bench_synthetic(bench_run *b)
{
    const zi_synthetic synthetic = {b->params.synthetic, b->params.format, b->params.layers};
    ZI_TRY(zi_synthetic_check(&synthetic, b->run.error));
    b->result->figures[ZIMAGE_BENCH_LOAD].seconds = 0;
    for (int stage = 0; stage < TIMED_STAGES; stage++) {
        double start = zi_now();
        if (!is_wanted(b, stage))
            continue;
        ZI_TRY(make_synthetic(b, stage));
        b->result->figures[ZIMAGE_BENCH_LOAD].seconds += zi_now() - start;
        record_session(b);
        zimage_status status = time_stage(b, stage);
        zimage_session_close(b->session);
        b->session = NULL;
        ZI_TRY(status);
    }
    return ZIMAGE_OK;
}

/* The model's own size where none is given, fewer layers where asked for. Nobody else has the model yet. */
static void adapt(bench_run *b, zi_model *model)
{
    if (!b->params.width)
        b->params.width = zi_default_width(&model->facts);
    if (!b->params.height)
        b->params.height = zi_default_height(&model->facts);
    for (int i = 0; i < ZI_COMPONENTS && b->params.layers > 0; i++)
        model->family->components[i].limit_layers(model->networks, b->params.layers);
}

static zimage_status bench_model(bench_run *b)
{
    const zi_model_choice choice = {.dequantize = ZI_GROUPED};
    zi_model *model = NULL;
    double start = zi_now();
    ZI_TRY(zi_model_open(b->model_path, &choice, &b->log, &model, b->run.error));
    b->result->figures[ZIMAGE_BENCH_LOAD].seconds = zi_now() - start;
    adapt(b, model);
    ZI_TRY(open_session(b, model));
    record_session(b);
    zimage_status status = ZIMAGE_OK;
    for (int stage = 0; stage < TIMED_STAGES && status == ZIMAGE_OK; stage++)
        if (is_wanted(b, stage) && zi_model_has(model, timed[stage].component) &&
            (timed[stage].stage != ZIMAGE_STAGE_ENCODE || model->facts.has_image_encoder))
            status = time_stage(b, stage);
    if (status == ZIMAGE_OK)
        status = zi_model_check(model, &b->log, b->run.error);
    zimage_session_close(b->session);
    b->session = NULL;
    return status;
}

/* ---- oneDNN ------------------------------------------------------------------------------------------------------ */

/* The largest product of those not in used[0 .. count). */
static int largest_product(const zi_counts *counts, const int *used, int count)
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
 * The share of the registers' peak that oneDNN reaches on the stage's largest products, each weighted by its
 * operations; 0: it failed. The peak is taken beside each, so that other work on the machine slows both alike.
 */
static double onednn_share(zi_onednn *dnn, zi_ops *ops, const zi_counts *counts)
{
    double flops = 0, ideal = 0;
    int used[MAIN_PRODUCTS];
    for (int n = 0; n < MAIN_PRODUCTS && n < counts->product_count; n++) {
        used[n] = largest_product(counts, used, n);
        const zi_product *p = &counts->products[used[n]];
        double before = peak_rate(ops), rate = zi_onednn_rate(dnn, p->rows, p->out, p->in);
        double after = peak_rate(ops), peak = before > after ? before : after;
        if (!(rate > 0))
            return 0;
        flops += p->flops;
        ideal += p->flops * peak / rate;
    }
    return ideal > 0 ? flops / ideal : 0;
}

static void compare_stages(bench_run *b, zi_onednn *dnn, zi_ops *ops)
{
    snprintf(b->result->info.onednn, sizeof b->result->info.onednn, "%s", zi_onednn_version(dnn));
    for (int stage = 0; stage < TIMED_STAGES; stage++) {
        zimage_bench_figures *figures = &b->result->figures[stage];
        double share = figures->seconds > 0 ? onednn_share(dnn, ops, &b->counts[stage]) : 0;
        if (share > 0)
            figures->percent_of_onednn = figures->percent_of_peak / share;
    }
}

static zimage_status compare_with_onednn(bench_run *b)
{
    const zi_backend_choice choice = {
        .device = "cpu", .compute = b->session_params.compute, .cpu_mask = b->session_params.cpu_mask};
    zi_pool *pool = NULL;
    zi_ops *ops = NULL;
    zi_onednn *dnn = zi_onednn_open(b->result->info.threads);
    if (!dnn)
        return ZIMAGE_OK;
    zimage_status status = zi_pool_new(b->result->info.threads, &pool, b->run.error);
    if (status == ZIMAGE_OK)
        status = zi_backend_open(&choice, pool, &ops, b->run.error);
    if (status == ZIMAGE_OK) {
        compare_stages(b, dnn, ops);
        ops->table->free(ops);
    }
    zi_pool_free(pool);
    zi_onednn_close(dnn);
    return status;
}

/* ---- the whole --------------------------------------------------------------------------------------------------- */

static zimage_status check_params(const char *model_path, const zimage_bench_params *p, zimage_error *error)
{
    if (!model_path == !p->synthetic)
        return zi_fail(error, ZIMAGE_ERROR_ARGUMENT, "model_path and synthetic: expected one of them");
    if (p->repeats < 1 || p->repeats > MOST_REPEATS)
        return zi_fail(error, ZIMAGE_ERROR_ARGUMENT, "repeats: %d, expected 1 to %d", p->repeats, MOST_REPEATS);
    if (p->tokens < 1 || p->tokens > MOST_TOKENS)
        return zi_fail(error, ZIMAGE_ERROR_ARGUMENT, "tokens: %d, expected 1 to %d", p->tokens, MOST_TOKENS);
    if (p->stages >> TIMED_STAGES)
        return zi_fail(error, ZIMAGE_ERROR_ARGUMENT, "stages: 0x%llx, expected a set of %d bits",
                       (unsigned long long)p->stages, TIMED_STAGES);
    if (p->layers < 0)
        return zi_fail(error, ZIMAGE_ERROR_ARGUMENT, "layers: %d, expected 0 (all) or more", p->layers);
    int least = p->synthetic ? 16 : 0; /* 0: the model's own */
    if (p->width < least || p->height < least || p->width > 1 << 14 || p->height > 1 << 14 || p->width % 16 ||
        p->height % 16)
        return zi_fail(error, ZIMAGE_ERROR_ARGUMENT, "width and height: %dx%d, expected multiples of 16 up to %d",
                       p->width, p->height, 1 << 14);
    return ZIMAGE_OK;
}

static void fill_defaults(zimage_bench_params *p)
{
    int32_t side = p->synthetic ? DEFAULT_SIDE : 0;
    p->format = p->format ? p->format : "bf16";
    p->tokens = p->tokens ? p->tokens : DEFAULT_TOKENS;
    p->repeats = p->repeats ? p->repeats : DEFAULT_REPEATS;
    p->width = p->width ? p->width : side;
    p->height = p->height ? p->height : side;
}

static zimage_status run_all(bench_run *b)
{
    size_t count = (size_t)b->params.repeats;
    zimage_bench_info *info = &b->result->info;
    b->seconds = malloc(count * sizeof *b->seconds);
    b->peaks = malloc(count * sizeof *b->peaks);
    b->shares = malloc(count * sizeof *b->shares);
    if (!b->seconds || !b->peaks || !b->shares)
        return zi_fail_memory(b->run.error, "the measurements", 3 * count * sizeof *b->seconds);
    ZI_TRY(b->model_path ? bench_model(b) : bench_synthetic(b));
    info->peak_rss_bytes = zi_peak_resident_bytes();
    info->peak_tflops = b->peak_count > 0 ? b->peak_sum / b->peak_count * 1e-12 : 0;
    info->width = b->params.width;
    info->height = b->params.height;
    info->tokens = b->params.tokens;
    return info->on_gpu ? ZIMAGE_OK : compare_with_onednn(b); /* last: its own memory is not the model's */
}

zimage_status zimage_bench_run(const char *model_path, const zimage_bench_params *params, zimage_bench **result,
                               zimage_error *error)
{
    bench_run b = {.model_path = model_path, .run = {.error = error}};
    b.run.user = &b;
    if (result)
        *result = NULL;
    if (!params || !result)
        return zi_fail(error, ZIMAGE_ERROR_ARGUMENT, "params and bench: NULL, expected both");
    ZI_TRY(zi_stack_check(error));
    ZI_TRY(ZI_TAKE(&b.params, params, zimage_bench_params, stages, error));
    ZI_TRY(ZI_TAKE(&b.session_params, b.params.session, zimage_session_params, cache_folder, error));
    fill_defaults(&b.params);
    ZI_TRY(check_params(model_path, &b.params, error));
    b.log = (zi_log){b.session_params.log, b.session_params.log_user};
    b.result = calloc(1, sizeof *b.result);
    if (!b.result)
        return zi_fail_memory(error, "the measurements", sizeof *b.result);
    for (int i = 0; i < ZIMAGE_BENCH_STAGE_COUNT; i++)
        b.result->figures[i] =
            (zimage_bench_figures){.seconds = -1, .tflops = -1, .percent_of_peak = -1, .percent_of_onednn = -1};
    zimage_status status = run_all(&b);
    zimage_session_close(b.session);
    free(b.seconds);
    free(b.peaks);
    free(b.shares);
    if (status == ZIMAGE_OK)
        *result = b.result;
    else
        zimage_bench_free(b.result);
    return status;
}

static zimage_status check_stage(const zimage_bench *bench, zimage_bench_stage stage, zimage_error *error)
{
    if (!bench)
        return zi_fail(error, ZIMAGE_ERROR_ARGUMENT, "bench: NULL, expected measurements");
    if ((unsigned)stage >= ZIMAGE_BENCH_STAGE_COUNT)
        return zi_fail(error, ZIMAGE_ERROR_ARGUMENT, "stage: %d, expected less than %d", (int)stage,
                       ZIMAGE_BENCH_STAGE_COUNT);
    return ZIMAGE_OK;
}

zimage_status zimage_bench_get_info(const zimage_bench *bench, zimage_bench_info *info, zimage_error *error)
{
    ZI_TRY(check_stage(bench, ZIMAGE_BENCH_LOAD, error));
    return ZI_GIVE(info, &bench->info, zimage_bench_info, onednn, error);
}

zimage_status zimage_bench_get_figures(const zimage_bench *bench, zimage_bench_stage stage,
                                       zimage_bench_figures *figures, zimage_error *error)
{
    ZI_TRY(check_stage(bench, stage, error));
    return ZI_GIVE(figures, &bench->figures[stage], zimage_bench_figures, graph_peak_bytes, error);
}

zimage_status zimage_bench_get_memory(const zimage_bench *bench, zimage_bench_stage stage, zimage_memory_info *info,
                                      zimage_error *error)
{
    ZI_TRY(check_stage(bench, stage, error));
    return ZI_GIVE(info, &bench->memory[stage], zimage_memory_info, shared_bytes, error);
}

void zimage_bench_free(zimage_bench *bench)
{
    free(bench);
}
