#include "engine/plan.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/free_memory.h"
#include "base/numbers.h"
#include "engine/backends.h"
#include "pipeline/inputs.h"
#include "pipeline/texts.h"

/* Pages of the program and its libraries that are first used after a session was opened, and the stacks of threads. */
#define PROGRAM_BYTES (3 * ZI_MIB / 2)
/* What a job may take above its plan. A limit must leave room for it. */
#define PLAN_ERROR ZI_MIB
/* Added to the need that is reported: another process may also begin a little larger than this one. */
#define MARGIN (PLAN_ERROR + ZI_MIB)

/* A preview is a part of denoising; what is made of references once is a part of the context. */
static zimage_stage public_stage(int stage)
{
    if (stage == ZI_STAGE_PREPARE)
        return ZIMAGE_STAGE_CONTEXT;
    return stage == ZI_STAGE_PREVIEW ? ZIMAGE_STAGE_DENOISE : (zimage_stage)stage;
}

/* ---- counting ---------------------------------------------------------------------------------------------------- */

static zimage_status take_counts(void *user, zi_run *run, const zi_job_run *of)
{
    zi_counts *all = &((zi_counts *)user)[of->stage], one = zi_ops_count_take(run->ops);
    size_t weight_bytes = zi_max_size(all->weight_bytes, one.weight_bytes);
    double linear = all->linear_flops, attention = all->attention_flops, conv = all->conv_flops;
    double unpacked = all->unpacked;
    *all = one; /* its products */
    all->weight_bytes = weight_bytes;
    all->linear_flops += linear;
    all->attention_flops += attention;
    all->conv_flops += conv;
    all->unpacked += unpacked;
    return ZIMAGE_OK;
}

zimage_status zi_count_job(const zi_job *job, zi_counts counts[ZI_STAGE_COUNT], zimage_error *error)
{
    zi_job copy = *job;
    zi_run run = {.error = error};
    for (int i = 0; i < ZI_STAGE_COUNT; i++)
        counts[i] = (zi_counts){0};
    ZI_TRY(zi_ops_count_new(&run.ops, error));
    zimage_status status = zi_job_each(&run, &copy, take_counts, counts);
    zi_table(&run)->free(run.ops);
    return status;
}

/* ---- rehearsing -------------------------------------------------------------------------------------------------- */

/* What a rehearsal with bands of some width found out. */
typedef struct rehearsal {
    int64_t band_rows;
    size_t stack[ZI_STAGE_COUNT]; /* most bytes in use during each stage */
    zi_memory_plan memory;
    zimage_status fits; /* of a device's memory */
} rehearsal;

static zimage_status record_stack(void *user, zi_run *run, const zi_job_run *of)
{
    size_t *stack = (size_t *)user + of->stage, peak = 0;
    ZI_TRY(zi_table(run)->rehearse_stage(run, of->stage, &peak));
    *stack = zi_max_size(*stack, peak);
    return ZIMAGE_OK;
}

/* The runs of a job as a device expects them: with previews, each step is followed by one. NULL: out of memory. */
static zi_stage_runs *expected_runs(const zi_job *job, int *count)
{
    zi_job_run list[ZI_JOB_RUNS_MAX];
    int entries = zi_job_list(job, list), n = 0;
    zi_stage_runs *runs = malloc(((size_t)entries + 2 * (size_t)job->steps) * sizeof *runs);
    for (int i = 0; runs && i < entries; i++) {
        int previews =
            list[i].stage == ZIMAGE_STAGE_DENOISE && i + 1 < entries && list[i + 1].stage == ZI_STAGE_PREVIEW;
        for (int step = 0; previews && step < list[i].times; step++) {
            runs[n++] = (zi_stage_runs){list[i].stage, 1};
            runs[n++] = (zi_stage_runs){ZI_STAGE_PREVIEW, 1};
        }
        if (!previews && list[i].stage != ZI_STAGE_PREVIEW)
            runs[n++] = (zi_stage_runs){list[i].stage, list[i].times};
    }
    *count = n;
    return runs;
}

static zimage_status arrange(zi_run *run, const zi_job *job, const size_t stack[ZI_STAGE_COUNT], uint64_t host,
                             int commit, zi_memory_plan *memory)
{
    size_t most = 0;
    int count;
    for (int i = 0; i < ZI_STAGE_COUNT; i++)
        most = zi_max_size(most, stack[i]);
    zi_stage_runs *runs = expected_runs(job, &count);
    if (!runs)
        return zi_fail_memory(run->error, "a plan", (size_t)job->steps * sizeof *runs);
    zimage_status status = zi_table(run)->arrange(run, runs, count, most, host, commit, memory);
    free(runs);
    return status;
}

/* Rehearses the job with bands of that many rows, for a backend that has so much room (zi_ops.room); a device's refusal
 * is recorded; it is no error yet. */
static zimage_status rehearse(zi_run *run, const zi_job *job, int64_t band_rows, uint64_t room, rehearsal *r)
{
    zi_job copy = *job;
    copy.band_rows = band_rows;
    *r = (rehearsal){.band_rows = band_rows};
    run->ops->room = room;
    zimage_status status = zi_table(run)->rehearse_begin(run);
    if (status == ZIMAGE_OK)
        status = zi_job_each(run, &copy, record_stack, r->stack);
    zi_table(run)->rehearse_end(run);
    ZI_TRY(status);
    zi_run silent = {.ops = run->ops};
    r->fits = arrange(&silent, job, r->stack, 0, 0, &r->memory);
    return ZIMAGE_OK;
}

/* ---- host memory ------------------------------------------------------------------------------------------------- */

/* Buffers of zimage_generate: latents and velocities, input images, texts, then the decoded image. */
static size_t buffer_bytes(const zi_job *job, int stage)
{
    const zi_facts *facts = &job->model->facts;
    size_t places = (size_t)(job->rows * job->columns), scale = (size_t)facts->scale_factor;
    size_t kept = (size_t)(1 + ZI_PROMPTS_MAX) * places * (size_t)facts->latent_channels * sizeof(float);
    kept += zi_inputs_bytes(job, stage) + zi_texts_bytes(job);
    return kept + (stage == ZIMAGE_STAGE_DECODE ? places * scale * scale * 3 : 0);
}

/* A job's place in its list: previews stand beside the steps. */
static int place_of(const zi_job_run *runs, int i)
{
    return runs[i].stage == ZI_STAGE_PREVIEW ? i - 1 : i;
}

/* Whether the weights that the stage of entry `entry` reads were read by an earlier entry, too. */
static int read_before(const zi_job_run *runs, int entry)
{
    for (int k = 0; k < entry; k++)
        if (zi_stages_read_the_same(runs[k].stage, runs[entry].stage))
            return 1;
    return 0;
}

/* Whether weights that the stage of entry k has read are needed at place i of the list, or later, as long as the job
 * keeps them: a component's until its last stage, but those of encoding images only while it goes on. */
static int is_kept(const zi_job_run *runs, int entries, int k, int i)
{
    for (int later = 0; later < entries; later++) {
        int same = zi_stage_component(runs[later].stage) == zi_stage_component(runs[k].stage) &&
                   (runs[k].stage == ZIMAGE_STAGE_ENCODE) == (runs[later].stage == ZIMAGE_STAGE_ENCODE);
        if (same && (later >= i || place_of(runs, later) >= place_of(runs, i)))
            return 1;
    }
    return 0;
}

/* Bytes of weights that a stage reads. References count as a step, so that the first of the two is never too little:
 * zi_stages_read_the_same. */
static size_t bytes_read(const zi_counts counts[ZI_STAGE_COUNT], int stage)
{
    if (stage == ZI_STAGE_PREPARE || stage == ZIMAGE_STAGE_DENOISE)
        return zi_max_size(counts[ZI_STAGE_PREPARE].weight_bytes, counts[ZIMAGE_STAGE_DENOISE].weight_bytes);
    return counts[stage].weight_bytes;
}

/* Bytes of weights that are in memory at place i of the list. */
static size_t weights_held(const zimage_session *session, const zi_job_run *runs, int entries, int i, int releases,
                           const zi_counts counts[ZI_STAGE_COUNT])
{
    size_t held = 0;
    for (int c = 0; c < ZI_COMPONENTS; c++) {
        zi_store *store = session->inner->stores[c];
        size_t copied = store ? zi_store_owned_bytes(store) : 0, read = 0;
        int kept = !releases || !store || !zi_store_has_one_session(store);
        for (int k = 0; k < entries; k++)
            if ((int)zi_stage_component(runs[k].stage) == c && place_of(runs, k) <= place_of(runs, i) &&
                !read_before(runs, k) && (kept || is_kept(runs, entries, k, i)))
                read += bytes_read(counts, runs[k].stage);
        held += read > copied ? read - copied : 0;
    }
    return held;
}

/*
 * Fills peak: what the process holds during each stage. Weights are pages of mapped files, which the system could
 * evict; but a stage reads all of its own, most of them at every step, so that evicted ones would be read from disk
 * all the time. Those of earlier stages count until they are released. Copies that opening the model made are in
 * base_bytes already; those that were made since then are added.
 */
static void add_up(const zimage_session *session, const zi_job *job, const zi_counts counts[ZI_STAGE_COUNT],
                   const rehearsal *r, int releases, zi_job_plan *plan)
{
    zi_job_run runs[ZI_JOB_RUNS_MAX];
    int entries = zi_job_list(job, runs);
    size_t base = session->base_bytes + zi_model_owned_bytes(session->inner) - session->owned_bytes;
    int copies = session->ops->table->memory == ZI_MEMORY_UNIFIED; /* of weights, which the system can't drop */
    plan->most = session->opening_bytes;
    plan->taken = 0;
    for (int i = 0; i < ZIMAGE_STAGE_COUNT; i++)
        plan->activations[i] = plan->peak[i] = 0;
    for (int i = 0; i < entries; i++) {
        zimage_stage stage = public_stage(runs[i].stage);
        size_t activations = buffer_bytes(job, runs[i].stage) + r->stack[runs[i].stage];
        size_t held = weights_held(session, runs, entries, i, releases, counts);
        plan->activations[stage] = zi_max_size(plan->activations[stage], activations);
        plan->peak[stage] = zi_max_size(plan->peak[stage], base + PROGRAM_BYTES + held + activations);
        plan->most = zi_max_size(plan->most, plan->peak[stage]);
        plan->taken = zi_max_size(plan->taken, activations + PROGRAM_BYTES + (copies ? held : 0));
    }
}

static zimage_status refuse(const zi_job_plan *plan, uint64_t limit, zimage_error *error)
{
    char stages[256] = "";
    for (int i = 0; i < ZI_STAGE_COUNT; i++) {
        int stage = zi_stage_order[i];
        size_t length = strlen(stages);
        if (stage < ZIMAGE_STAGE_COUNT && plan->peak[stage] > 0)
            snprintf(stages + length, sizeof stages - length, "%s %llu, ", zimage_stage_name((zimage_stage)stage),
                     zi_mib(plan->peak[stage]));
    }
    return zi_fail(error, ZIMAGE_ERROR_MEMORY,
                   "memory_limit: %llu MiB, but this request needs %llu MiB: %seach with the weights that it reads",
                   (unsigned long long)(limit / ZI_MIB), zi_mib(plan->most + MARGIN), stages);
}

static zimage_status refuse_for_machine(const zi_job_plan *plan, uint64_t free, zimage_error *error)
{
    return zi_fail(error, ZIMAGE_ERROR_MEMORY,
                   "memory_limit: none is set, and this request needs %llu MiB beside the weights, but %llu MiB are "
                   "free; a limit decides instead of what is free",
                   zi_mib(plan->taken), (unsigned long long)(free / ZI_MIB));
}

/* ---- bands ------------------------------------------------------------------------------------------------------- */

/* The next narrower band; 0 is what the decoder would choose itself. */
static int64_t narrower(int64_t band_rows, int64_t image_rows)
{
    if (band_rows > 0)
        return band_rows / 2;
    int64_t rows = ZI_NARROWEST_BAND;
    while (rows * 2 < image_rows && rows < 256)
        rows *= 2;
    return rows;
}

static int streams(const zi_memory_plan *plan)
{
    for (int i = 0; i < ZI_STAGES_MAX; i++)
        if (plan->streamed[i] > 0)
            return 1;
    return 0;
}

/* Whether the VAE takes more of a device than everything else, while weights do not fit. */
static int device_needs_narrower(const rehearsal *r)
{
    size_t vae = 0, others = 0;
    for (int i = 0; i < ZI_STAGE_COUNT; i++) {
        size_t *most = zi_stage_component(i) == ZI_VAE ? &vae : &others;
        *most = zi_max_size(*most, r->stack[i]);
    }
    return vae > others && (r->fits != ZIMAGE_OK || streams(&r->memory));
}

/* Whether the job does not fit into host memory. A device's own memory is arranged for. */
static int is_too_large(const zimage_session *session, const zi_job_plan *plan, const zi_plan_limits *limits)
{
    if (limits->memory > 0)
        return plan->most + PLAN_ERROR > limits->memory;
    return !zi_has_own_memory(session->ops) && plan->taken > limits->free;
}

static int host_needs_narrower(const zimage_session *session, const zi_job_plan *plan, const zi_plan_limits *limits)
{
    size_t most = zi_max_size(plan->peak[ZIMAGE_STAGE_DENOISE], /* previews */
                              zi_max_size(plan->peak[ZIMAGE_STAGE_ENCODE], plan->peak[ZIMAGE_STAGE_DECODE]));
    return is_too_large(session, plan, limits) && (limits->memory == 0 || most + PLAN_ERROR > limits->memory);
}

/* Rows of the largest image that the VAE encodes or decodes. */
static int64_t image_rows_of(const zi_job *job)
{
    int64_t most = job->rows * job->model->facts.scale_factor;
    for (int i = 0; i < job->images; i++)
        most = zi_max_int64(most, job->image[i].pixel_rows);
    return most;
}

/* ---- the plan ---------------------------------------------------------------------------------------------------- */

static void sum_counts(const zi_job *job, const zi_counts counts[ZI_STAGE_COUNT], zi_job_plan *plan)
{
    for (int i = 0; i < ZIMAGE_STAGE_COUNT; i++) {
        double times = i == ZIMAGE_STAGE_DENOISE ? job->steps : 1;
        zi_counts *c = &plan->counts[i];
        *c = counts[i];
        c->linear_flops *= times;
        c->attention_flops *= times;
        c->conv_flops *= times;
        c->unpacked *= times;
    }
    const zi_counts *prepare = &counts[ZI_STAGE_PREPARE];
    zi_counts *context = &plan->counts[ZIMAGE_STAGE_CONTEXT];
    context->linear_flops += prepare->linear_flops;
    context->attention_flops += prepare->attention_flops;
    context->unpacked += prepare->unpacked;
    context->weight_bytes += prepare->weight_bytes; /* other weights: those of the blocks */
    plan->prepare_flops = zi_count_flops(prepare);
    for (int i = 0; i < ZIMAGE_STAGE_COUNT; i++)
        plan->flops[i] = zi_count_flops(&plan->counts[i]);
}

/* Of a limit, what the program itself does not take; 0: no limit. */
static uint64_t left_for_backend(const zimage_session *session, const zi_plan_limits *limits)
{
    uint64_t taken = session->base_bytes + PROGRAM_BYTES;
    return limits->memory > taken ? limits->memory - taken : limits->memory;
}

/* A plan with the passes of a step in that form, and with bands as narrow as they need be. */
static zimage_status plan_form(const zimage_session *session, const zi_job *job, int batched,
                               const zi_plan_limits *limits, rehearsal *r, zi_job_plan *plan, zimage_error *error)
{
    zi_run run = {.ops = session->ops, .error = error};
    zi_counts counts[ZI_STAGE_COUNT];
    zi_job form = *job;
    form.batched = batched;
    *plan = (zi_job_plan){.batched = batched};
    ZI_TRY(zi_count_job(&form, counts, error));
    sum_counts(&form, counts, plan);
    ZI_TRY(rehearse(&run, &form, job->band_rows, left_for_backend(session, limits), r));
    add_up(session, &form, counts, r, limits->releases, plan);
    while (r->band_rows != ZI_NARROWEST_BAND &&
           (host_needs_narrower(session, plan, limits) || device_needs_narrower(r))) {
        ZI_TRY(rehearse(&run, &form, narrower(r->band_rows, image_rows_of(job)), 1, r));
        add_up(session, &form, counts, r, limits->releases, plan);
    }
    plan->band_rows = r->band_rows;
    return ZIMAGE_OK;
}

/* What the job would take at least: passes one after the other, the narrowest bands, released weights. */
static zimage_status plan_least(const zimage_session *session, const zi_job *job, rehearsal *r, zi_job_plan *plan,
                                zimage_error *error)
{
    zi_run run = {.ops = session->ops, .error = error};
    zi_counts counts[ZI_STAGE_COUNT];
    ZI_TRY(zi_count_job(job, counts, error));
    ZI_TRY(rehearse(&run, job, ZI_NARROWEST_BAND, 1, r));
    add_up(session, job, counts, r, 1, plan);
    return ZIMAGE_OK;
}

/* Bytes of weights that the whole job copies to a device. */
static double copied(const zi_job *job, const rehearsal *r)
{
    zi_job_run runs[ZI_JOB_RUNS_MAX];
    double bytes = 0;
    for (int i = 0, count = zi_job_list(job, runs); i < count; i++)
        bytes += (double)runs[i].times * (double)r->memory.streamed[runs[i].stage];
    return bytes;
}

/* Whether the backend prefers a batch of the job's passes. */
static zimage_status suits_batch(const zimage_session *session, const zi_job *job, zi_batch *suits, zimage_error *error)
{
    zi_counts counts[2][ZI_STAGE_COUNT];
    zi_job form = *job;
    for (form.batched = 0; form.batched < 2; form.batched++)
        ZI_TRY(zi_count_job(&form, counts[form.batched], error));
    const zi_counts *serial = &counts[0][ZIMAGE_STAGE_DENOISE], *batch = &counts[1][ZIMAGE_STAGE_DENOISE];
    /* A product of one row is not counted in the serial form, but as two rows in the batch. */
    int64_t fewest = zi_min_int64(serial->fewest_rows, batch->fewest_rows);
    *suits =
        job->prompts > 1 ? session->ops->table->suits_batch(session->ops, fewest, batch->most_rows) : ZI_BATCH_NEVER;
    return ZIMAGE_OK;
}

/* Fills the plan with the better form. *r: its rehearsal, which is the last one, as a device's arrangement needs it. */
static zimage_status choose_form(const zimage_session *session, const zi_job *job, const zi_plan_limits *limits,
                                 rehearsal *r, zi_job_plan *plan, zimage_error *error)
{
    double batch = INFINITY;
    zi_batch suits;
    ZI_TRY(suits_batch(session, job, &suits, error));
    if (suits == ZI_BATCH_STREAMED) {
        ZI_TRY(plan_form(session, job, 0, limits, r, plan, error));
        if (r->fits == ZIMAGE_OK && !streams(&r->memory))
            return ZIMAGE_OK;
    }
    if (suits != ZI_BATCH_NEVER) {
        ZI_TRY(plan_form(session, job, 1, limits, r, plan, error));
        int fits = !is_too_large(session, plan, limits) && r->fits == ZIMAGE_OK;
        if (fits && !streams(&r->memory))
            return ZIMAGE_OK;
        batch = fits ? copied(job, r) : INFINITY;
    }
    ZI_TRY(plan_form(session, job, 0, limits, r, plan, error));
    if (r->fits != ZIMAGE_OK || batch > copied(job, r))
        return ZIMAGE_OK;
    return plan_form(session, job, 1, limits, r, plan, error);
}

/* Without that of previews, whose operations are not counted either. */
static void sum_traffic(const zi_job *job, zi_job_plan *plan)
{
    zi_job_run runs[ZI_JOB_RUNS_MAX];
    for (int i = 0, count = zi_job_list(job, runs); i < count; i++) {
        const zi_traffic *one = &plan->memory.traffic[runs[i].stage];
        zi_traffic *all = &plan->traffic[public_stage(runs[i].stage)];
        if (runs[i].stage == ZI_STAGE_PREVIEW)
            continue;
        all->exchanges += (uint64_t)runs[i].times * one->exchanges;
        all->bytes += (uint64_t)runs[i].times * one->bytes;
    }
}

zimage_status zi_plan_job(const zimage_session *session, const zi_job *job, const zi_plan_limits *limits,
                          zi_job_plan *plan, zimage_error *error)
{
    zi_run run = {.ops = session->ops, .error = error};
    zi_job_plan least;
    rehearsal r;
    ZI_TRY(plan_least(session, job, &r, &least, error));
    uint64_t least_memory = r.memory.least;
    ZI_TRY(choose_form(session, job, limits, &r, plan, error));
    plan->least = (least.most < plan->most ? least.most : plan->most) + MARGIN;
    if (is_too_large(session, plan, limits))
        return limits->memory > 0 ? refuse(plan, limits->memory, error) : refuse_for_machine(plan, limits->free, error);
    zimage_status status =
        arrange(&run, job, r.stack, left_for_backend(session, limits), limits->commit, &plan->memory);
    plan->memory.least = least_memory;
    sum_traffic(job, plan);
    return status;
}

/* ---- one stage by itself ----------------------------------------------------------------------------------------- */

zimage_status zi_plan_stage(const zimage_session *session, zi_job *job, size_t *stack, zi_memory_plan *memory,
                            zimage_error *error)
{
    int64_t image_rows = image_rows_of(job);
    zi_run run = {.ops = session->ops, .error = error};
    rehearsal r;
    ZI_TRY(rehearse(&run, job, job->band_rows, 0, &r));
    while (r.band_rows != ZI_NARROWEST_BAND && device_needs_narrower(&r))
        ZI_TRY(rehearse(&run, job, narrower(r.band_rows, image_rows), 1, &r));
    job->band_rows = r.band_rows;
    *stack = 0;
    for (int i = 0; i < ZI_STAGE_COUNT; i++)
        *stack = zi_max_size(*stack, r.stack[i]);
    uint64_t needed = *stack + buffer_bytes(job, ZIMAGE_STAGE_DECODE), free = zi_free_memory();
    if (!zi_has_own_memory(session->ops) && needed > free)
        return zi_fail(error, ZIMAGE_ERROR_MEMORY, "memory: this stage needs %llu MiB, but %llu MiB are free",
                       zi_mib(needed), (unsigned long long)(free / ZI_MIB));
    return arrange(&run, job, r.stack, 0, 1, memory);
}

void zi_memory_info(const zi_memory_plan *plan, int step, zimage_memory_info *info)
{
    *info = (zimage_memory_info){.limit_bytes = plan->limit,
                                 .total_bytes = plan->total,
                                 .activation_bytes = plan->limit ? plan->activations : 0,
                                 .workspace_bytes = plan->workspace,
                                 .resident_bytes = plan->resident,
                                 .ring_bytes = plan->ring,
                                 .step_bytes = plan->streamed[step],
                                 .least_bytes = plan->least,
                                 .shared_bytes = plan->shared,
                                 .exchange_bytes = plan->traffic[step].bytes};
}
