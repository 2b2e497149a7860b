/* The public plan of a request. */
#include <stdlib.h>

#include "base/free_memory.h"
#include "base/sized.h"
#include "engine/plan.h"
#include "engine/request.h"

struct zimage_plan {
    zimage_plan_info info;
    zimage_stage_info stages[ZIMAGE_STAGE_COUNT];
    zimage_memory_info memory;
};

static zimage_status predict(zimage_session *session, const zi_job_plan *counted, zimage_plan *plan,
                             zimage_error *error)
{
    zi_speed speed = session->speed;
    if (!(speed.linear > 0))
        ZI_TRY(zi_speed_get(session->ops, zi_pool_threads(session->pool), session->cache_folder, &speed, error));
    session->speed = speed;
    plan->info = (zimage_plan_info){
        .band_rows = (int32_t)counted->band_rows, .peak_bytes = counted->most, .least_bytes = counted->least};
    for (int i = 0; i < ZIMAGE_STAGE_COUNT; i++) {
        plan->stages[i] = (zimage_stage_info){
            .stage = (zimage_stage)i,
            .flops = counted->flops[i],
            .seconds = zi_speed_divided(&speed, &counted->counts[i], counted->memory.devices, &counted->traffic[i]),
            .activation_bytes = counted->activations[i],
            .weight_bytes = counted->counts[i].weight_bytes,
            .peak_bytes = counted->peak[i],
        };
        plan->info.seconds += plan->stages[i].seconds;
    }
    zi_memory_info(&counted->memory, ZIMAGE_STAGE_DENOISE, &plan->memory);
    return ZIMAGE_OK;
}

/* free: as zi_plan_limits.free */
static zimage_status count(zimage_session *session, const zimage_request *request, zi_tokens *tokens, uint64_t free,
                           zi_job_plan *counted, zimage_error *error)
{
    const zi_plan_limits limits = {request->memory_limit, free, zi_request_releases(session, request), 0};
    zi_job job;
    ZI_TRY(zi_request_tokens(session, request, tokens, error));
    zi_request_job(session, request, tokens, &job);
    return zi_plan_job(session, &job, &limits, counted, error);
}

/* A plan answers what a request needs, even if this machine can't run it. */
static void warn_of_memory(const zimage_session *session, const zimage_request *request, const zi_job_plan *counted)
{
    uint64_t free = zi_free_memory();
    if (request->memory_limit == 0 && !zi_has_own_memory(session->ops) && counted->taken > free)
        zi_warn(&session->log, "this request needs %llu MiB beside the weights, but %llu MiB are free",
                zi_mib(counted->taken), (unsigned long long)(free / ZI_MIB));
}

zimage_status zimage_plan_make(zimage_session *session, const zimage_request *request, zimage_plan **plan,
                               zimage_error *error)
{
    zimage_request own;
    zi_tokens tokens = {{NULL}, {0}};
    if (plan)
        *plan = NULL;
    if (!session || !request || !plan)
        return zi_fail(error, ZIMAGE_ERROR_ARGUMENT, "session, request and plan: NULL, expected all three");
    ZI_TRY(zi_request_take(session, request, &own, error));
    zimage_plan *made = calloc(1, sizeof *made);
    if (!made)
        return zi_fail_memory(error, "a plan", sizeof *made);
    zi_job_plan counted;
    zimage_status status = count(session, &own, &tokens, ZI_NO_LIMIT, &counted, error);
    if (status == ZIMAGE_OK) {
        warn_of_memory(session, &own, &counted);
        status = predict(session, &counted, made, error);
    }
    zi_tokens_free(&tokens);
    if (status == ZIMAGE_OK)
        *plan = made;
    else
        free(made);
    return status;
}

/* Plans as zimage_generate does, and measures nothing. */
static zimage_status check(zimage_session *session, const zimage_request *request, zi_job_plan *counted,
                           zimage_error *error)
{
    zimage_request own;
    zi_tokens tokens = {{NULL}, {0}};
    if (!session || !request)
        return zi_fail(error, ZIMAGE_ERROR_ARGUMENT, "session and request: NULL, expected both");
    ZI_TRY(zi_request_take(session, request, &own, error));
    zimage_status status = count(session, &own, &tokens, zi_free_memory(), counted, error);
    zi_tokens_free(&tokens);
    return status;
}

zimage_status zimage_request_check(zimage_session *session, const zimage_request *request, zimage_error *error)
{
    zi_job_plan counted;
    return check(session, request, &counted, error);
}

zimage_status zimage_request_memory(zimage_session *session, const zimage_request *request, zimage_memory_info *info,
                                    zimage_error *error)
{
    zi_job_plan counted;
    zimage_memory_info memory;
    ZI_TRY(check(session, request, &counted, error));
    zi_memory_info(&counted.memory, ZIMAGE_STAGE_DENOISE, &memory);
    return ZI_GIVE(info, &memory, zimage_memory_info, shared_bytes, error);
}

static zimage_status no_plan(zimage_error *error)
{
    return zi_fail(error, ZIMAGE_ERROR_ARGUMENT, "plan: NULL, expected a plan");
}

zimage_status zimage_plan_get_info(const zimage_plan *plan, zimage_plan_info *info, zimage_error *error)
{
    return plan ? ZI_GIVE(info, &plan->info, zimage_plan_info, least_bytes, error) : no_plan(error);
}

zimage_status zimage_plan_get_stage(const zimage_plan *plan, zimage_stage stage, zimage_stage_info *info,
                                    zimage_error *error)
{
    if (!plan)
        return no_plan(error);
    if ((unsigned)stage >= ZIMAGE_STAGE_COUNT)
        return zi_fail(error, ZIMAGE_ERROR_ARGUMENT, "stage: %d, expected less than %d", (int)stage,
                       ZIMAGE_STAGE_COUNT);
    return ZI_GIVE(info, &plan->stages[stage], zimage_stage_info, peak_bytes, error);
}

zimage_status zimage_plan_get_memory(const zimage_plan *plan, zimage_memory_info *info, zimage_error *error)
{
    return plan ? ZI_GIVE(info, &plan->memory, zimage_memory_info, shared_bytes, error) : no_plan(error);
}

void zimage_plan_free(zimage_plan *plan)
{
    free(plan);
}
