#include "measure/estimate.h"

#include "base/cgroup.h"
#include "engine/plan.h"
#include "measure/synthetic.h"
#include "ops/speed.h"

#define PROMPT_TOKENS 64 /* as zimage bench has */
#define ALL           ((1u << ZI_COMPONENTS) - 1)

static void count_parameters(const zi_model *model, zi_estimate *e)
{
    for (int i = 0; i < ZI_COMPONENTS; i++)
        for (size_t k = 0; k < zi_store_count(model->stores[i]); k++)
            e->parameters[i] += (uint64_t)zi_weight_count(zi_store_at(model->stores[i], k));
}

static zimage_status plan(const zimage_session *session, int64_t side, zi_estimate *e, zimage_error *error)
{
    static const int32_t ids[PROMPT_TOKENS];
    const zi_facts *facts = &session->inner->facts;
    const zi_plan_limits limits = {.free = ZI_NO_LIMIT, .releases = 1};
    zi_job job = {
        .model = session->inner,
        .rows = side / facts->scale_factor,
        .columns = side / facts->scale_factor,
        .in_bf16 = session->compute == ZIMAGE_COMPUTE_BF16,
        .prompts = 1,
        .prompt = {{.tokens = PROMPT_TOKENS, .encoded = 1, .ids = ids}},
        .steps = facts->default_steps,
    };
    zi_job_plan counted;
    zi_speed speed;
    ZI_TRY(zi_plan_job(session, &job, &limits, &counted, error));
    ZI_TRY(zi_speed_get(session->ops, zi_pool_threads(session->pool), session->cache_folder, &speed, error));
    for (int i = 0; i < ZIMAGE_STAGE_COUNT; i++) {
        uint64_t bytes = counted.activations[i] + zi_store_bytes(session->inner->stores[zi_stage_component(i)]);
        e->seconds += zi_speed_seconds(&speed, &counted.counts[i]);
        e->peak_bytes = bytes > e->peak_bytes ? bytes : e->peak_bytes;
    }
    e->steps = facts->default_steps;
    return ZIMAGE_OK;
}

zimage_status zi_estimate_model(const char *model, int64_t side, const zimage_session_params *params,
                                zi_estimate *estimate, zimage_error *error)
{
    const zi_synthetic synthetic = {model, "bf16", 0};
    zi_model *inner = NULL;
    zimage_model *handle = NULL;
    zimage_session *session = NULL;
    *estimate = (zi_estimate){0};
    ZI_TRY(zi_synthetic_new(&synthetic, ALL, NULL, &inner, error));
    count_parameters(inner, estimate);
    ZI_TRY(zi_model_handle(inner, &handle, error));
    zimage_status status = zi_session_new(handle, params, &session, error);
    zimage_model_close(handle);
    if (status == ZIMAGE_OK)
        status = plan(session, side, estimate, error);
    zimage_session_close(session);
    return status;
}
