#include "engine/card.h"

#include <stdlib.h>

#define STAGES (ZI_PLAN_PREVIEW + 1)

/* What is found out about a job. */
typedef struct search {
    zi_ops *ops;
    zi_memory_turn *turns;
    int count;
    size_t values[STAGES]; /* of each stage */
    zi_memory_plan plan;
} search;

static size_t most(size_t a, size_t b)
{
    return a > b ? a : b;
}

/* values: the larger of what it was and what the rehearsal took. */
static zimage_status end_rehearsal(zi_ops *ops, zimage_status status, int stage, size_t *values)
{
    size_t taken = 0;
    zimage_status ended = ops->memory->rehearsed(ops, stage, &taken);
    *values = most(*values, taken);
    return status == ZIMAGE_OK ? ended : status;
}

static zimage_status rehearse(search *s, const zimage_context *context, const zi_job_size *size, int stage)
{
    ZI_TRY(s->ops->memory->rehearse(s->ops));
    return end_rehearsal(s->ops, zi_plan_run(context, size, stage, s->ops), stage, &s->values[stage]);
}

static void add_turn(search *s, int stage, int times)
{
    s->turns[s->count++] = (zi_memory_turn){stage, times};
}

/* Prompts one by one: each finds the captions of those before it on the stack. */
static zimage_status rehearse_prompts(search *s, const zimage_context *context, const zi_job_size *size)
{
    for (int i = 0; i < size->prompts; i++) {
        zi_job_size part = *size;
        part.prompts = i + 1;
        if (size->encoded[i] && context->text_store) {
            ZI_TRY(rehearse(s, context, &part, ZIMAGE_STAGE_TEXT));
            add_turn(s, ZIMAGE_STAGE_TEXT, 1);
        }
        ZI_TRY(rehearse(s, context, &part, ZIMAGE_STAGE_CAPTION));
        add_turn(s, ZIMAGE_STAGE_CAPTION, 1);
    }
    return ZIMAGE_OK;
}

static zimage_status rehearse_decoding(search *s, const zimage_context *context, const zi_job_size *size)
{
    s->values[ZIMAGE_STAGE_DECODE] = s->values[ZI_PLAN_PREVIEW] = 0;
    if (size->preview_rows)
        ZI_TRY(rehearse(s, context, size, ZI_PLAN_PREVIEW));
    return rehearse(s, context, size, ZIMAGE_STAGE_DECODE);
}

static void add_steps(search *s, const zi_job_size *size)
{
    if (!size->preview_rows) {
        add_turn(s, ZIMAGE_STAGE_DENOISE, size->steps);
        return;
    }
    for (int i = 0; i < size->steps; i++) {
        add_turn(s, ZIMAGE_STAGE_DENOISE, 1);
        add_turn(s, ZI_PLAN_PREVIEW, 1);
    }
}

static zimage_status arrange(search *s, int commit)
{
    size_t values = 0;
    for (int i = 0; i < STAGES; i++)
        values = most(values, s->values[i]);
    return s->ops->memory->arrange(s->ops, s->turns, s->count, values, commit, &s->plan);
}

/* How it would be; a refusal is no error yet. */
static zimage_status try_arrange(search *s)
{
    zimage_error *kept = s->ops->error;
    s->ops->error = NULL;
    zimage_status status = arrange(s, 0);
    s->ops->error = kept;
    return status;
}

static int streams(const zi_memory_plan *plan)
{
    for (int i = 0; i < ZI_MEMORY_STAGES; i++)
        if (plan->streamed[i] > 0)
            return 1;
    return 0;
}

/* Whether narrower bands would leave room that is wanted: decoding takes more than all else, and weights do not fit. */
static int wants_narrower(const search *s, zimage_status status, int64_t band_rows)
{
    size_t others = 0;
    for (int i = 0; i < ZIMAGE_STAGE_DECODE; i++)
        others = most(others, s->values[i]);
    return band_rows != ZI_NARROWEST_BAND &&
           most(s->values[ZIMAGE_STAGE_DECODE], s->values[ZI_PLAN_PREVIEW]) > others &&
           (status != ZIMAGE_OK || streams(&s->plan));
}

static zimage_status plan_job(search *s, const zimage_context *context, const zi_job_size *size, int commit,
                              int64_t *band_rows)
{
    zi_job_size tried = *size;
    int64_t image_rows = size->rows * context->vae.config.scale_factor;
    ZI_TRY(rehearse_prompts(s, context, size));
    ZI_TRY(rehearse(s, context, size, ZIMAGE_STAGE_DENOISE));
    add_steps(s, size);
    add_turn(s, ZIMAGE_STAGE_DECODE, 1);
    tried.band_rows = ZI_NARROWEST_BAND;
    ZI_TRY(rehearse_decoding(s, context, &tried));
    (void)try_arrange(s);
    uint64_t least = s->plan.least;
    tried.band_rows = size->band_rows;
    ZI_TRY(rehearse_decoding(s, context, &tried));
    while (wants_narrower(s, try_arrange(s), tried.band_rows)) {
        tried.band_rows = zi_plan_narrower(tried.band_rows, image_rows);
        ZI_TRY(rehearse_decoding(s, context, &tried));
    }
    *band_rows = tried.band_rows;
    zimage_status status = arrange(s, commit);
    s->plan.least = least;
    return status;
}

static void tell(const zi_memory_plan *p, int step, zimage_device_plan *plan)
{
    *plan = (zimage_device_plan){.limit_bytes = p->limit,
                                 .total_bytes = p->total,
                                 .value_bytes = p->values,
                                 .workspace_bytes = p->workspace,
                                 .resident_bytes = p->resident,
                                 .ring_bytes = p->ring,
                                 .step_bytes = p->streamed[step],
                                 .least_bytes = p->least};
}

zimage_status zi_card_arrange(zimage_context *context, const zi_job_size *size, int commit, int64_t *band_rows,
                              zimage_device_plan *plan, zimage_error *error)
{
    zi_ops *ops = context->ops;
    search s = {.ops = ops};
    *plan = (zimage_device_plan){0};
    if (!ops->memory)
        return ZIMAGE_OK;
    size_t bytes = (size_t)(2 * size->prompts + 2 * size->steps + 1) * sizeof *s.turns;
    s.turns = malloc(bytes);
    if (!s.turns)
        return zi_fail_memory(error, "a plan", bytes);
    zimage_error *kept = ops->error;
    int (*block_done)(void *user) = ops->block_done;
    ops->error = error;
    ops->block_done = NULL; /* a rehearsal's blocks are nobody's */
    zimage_status status = plan_job(&s, context, size, commit, band_rows);
    ops->error = kept;
    ops->block_done = block_done;
    if (status == ZIMAGE_OK)
        tell(&s.plan, ZIMAGE_STAGE_DENOISE, plan);
    free(s.turns);
    return status;
}

zimage_status zi_card_arrange_stage(zi_ops *ops, zi_card_run *run, void *user, int64_t image_rows, int times,
                                    int64_t *band_rows, zimage_device_plan *plan)
{
    zi_memory_turn turn = {ZIMAGE_STAGE_DECODE, times};
    search s = {.ops = ops, .turns = &turn, .count = 1};
    *plan = (zimage_device_plan){0};
    if (!ops->memory)
        return ZIMAGE_OK;
    for (int64_t rows = *band_rows;; rows = zi_plan_narrower(rows, image_rows)) {
        s.values[turn.stage] = 0;
        ZI_TRY(ops->memory->rehearse(ops));
        ZI_TRY(end_rehearsal(ops, run(user, rows), turn.stage, &s.values[turn.stage]));
        *band_rows = rows;
        if (!image_rows || !wants_narrower(&s, try_arrange(&s), rows))
            break;
    }
    ZI_TRY(arrange(&s, 1));
    tell(&s.plan, turn.stage, plan);
    return ZIMAGE_OK;
}
