#include "engine/request.h"

#include <stdlib.h>
#include <string.h>

#include "base/sized.h"
#include "base/stack.h"
#include "pipeline/inputs.h"

/* With guidance there is a second one. */
static int prompts_of(const zimage_session *session, const zimage_request *r)
{
    return session->inner->family->guides(session->inner->networks, r->guidance_scale) ? 2 : 1;
}

/* ---- checking ---------------------------------------------------------------------------------------------------- */

static zimage_status check_side(const char *field, int32_t value, int64_t multiple, int64_t limit, zimage_error *error)
{
    if (value >= multiple && value <= limit && value % multiple == 0)
        return ZIMAGE_OK;
    return zi_fail(error, ZIMAGE_ERROR_ARGUMENT, "%s: %d, expected a multiple of %lld from %lld to %lld", field, value,
                   (long long)multiple, (long long)multiple, (long long)limit);
}

static zimage_status check_embeds(const zi_facts *facts, const char *field, const float *embeds, int32_t tokens,
                                  int32_t width, zimage_error *error)
{
    if (embeds && (tokens < 1 || tokens > facts->max_prompt_tokens))
        return zi_fail(error, ZIMAGE_ERROR_ARGUMENT, "%s: %d tokens, expected 1 to %lld", field, tokens,
                       (long long)facts->max_prompt_tokens);
    if (embeds && width != facts->features)
        return zi_fail(error, ZIMAGE_ERROR_ARGUMENT, "prompt_embeds_dim: %d, expected the model's, %lld", width,
                       (long long)facts->features);
    return ZIMAGE_OK;
}

static zimage_status check_text_source(const zimage_session *session, const zimage_request *r, zimage_error *error)
{
    const zi_facts *facts = &session->inner->facts;
    ZI_TRY(check_embeds(facts, "prompt_embeds", r->prompt_embeds, r->prompt_tokens, r->prompt_embeds_dim, error));
    ZI_TRY(check_embeds(facts, "negative_prompt_embeds", r->negative_prompt_embeds, r->negative_prompt_tokens,
                        r->prompt_embeds_dim, error));
    if (!r->prompt_embeds && !r->prompt)
        return zi_fail(error, ZIMAGE_ERROR_ARGUMENT, "prompt: NULL, expected a prompt or prompt_embeds");
    int needs_encoder = !r->prompt_embeds || (prompts_of(session, r) > 1 && !r->negative_prompt_embeds);
    if (needs_encoder && !zi_model_has(session->inner, ZI_TEXT_ENCODER))
        return zi_fail(error, ZIMAGE_ERROR_MODEL,
                       "%s: the model folder has no text_encoder, expected %sprompt_embeds with this model",
                       r->prompt_embeds ? "negative_prompt" : "prompt", r->prompt_embeds ? "negative_" : "");
    return ZIMAGE_OK;
}

static zimage_status check_guidance(const zimage_request *r, zimage_error *error)
{
    if (!(r->guidance_scale >= 0 && r->guidance_scale <= 1000))
        return zi_fail(error, ZIMAGE_ERROR_ARGUMENT, "guidance_scale: %g, expected 0 to 1000",
                       (double)r->guidance_scale);
    if (!(r->cfg_truncation >= 0 && r->cfg_truncation <= 1000))
        return zi_fail(error, ZIMAGE_ERROR_ARGUMENT, "cfg_truncation: %g, expected 0 to 1000", r->cfg_truncation);
    if (!(r->cfg_normalization >= 0 && r->cfg_normalization <= 1000))
        return zi_fail(error, ZIMAGE_ERROR_ARGUMENT, "cfg_normalization: %g, expected 0 to 1000",
                       (double)r->cfg_normalization);
    return ZIMAGE_OK;
}

static zimage_status check_latents(const zi_facts *facts, const zimage_request *r, zimage_error *error)
{
    int64_t rows = r->height / facts->scale_factor, columns = r->width / facts->scale_factor;
    uint64_t expected = (uint64_t)(facts->latent_channels * rows * columns);
    if (!r->latents || r->latents_count == expected)
        return ZIMAGE_OK;
    return zi_fail(error, ZIMAGE_ERROR_ARGUMENT,
                   "latents_count: %llu, expected %llu, the elements of [1, %lld, %lld, %lld]",
                   (unsigned long long)r->latents_count, (unsigned long long)expected,
                   (long long)facts->latent_channels, (long long)rows, (long long)columns);
}

static zimage_status check(const zimage_session *session, const zimage_request *r, zimage_error *error)
{
    const zi_facts *facts = &session->inner->facts;
    ZI_TRY(check_side("width", r->width, facts->size_multiple, facts->max_width, error));
    ZI_TRY(check_side("height", r->height, facts->size_multiple, facts->max_height, error));
    if (r->memory_limit > 0 && zi_has_own_memory(session->ops))
        return zi_fail(error, ZIMAGE_ERROR_UNSUPPORTED,
                       "memory_limit: %llu bytes, expected 0 with a GPU: it limits host memory, for device \"cpu\"; "
                       "device_memory limits that of a GPU",
                       (unsigned long long)r->memory_limit);
    if (r->steps < 1 || r->steps > 1000)
        return zi_fail(error, ZIMAGE_ERROR_ARGUMENT, "steps: %d, expected 1 to 1000", r->steps);
    if ((unsigned)r->rng > ZIMAGE_RNG_NUMPY)
        return zi_fail(error, ZIMAGE_ERROR_ARGUMENT, "rng: %d, expected one of zimage_rng", (int)r->rng);
    ZI_TRY(check_guidance(r, error));
    ZI_TRY(check_latents(facts, r, error));
    return check_text_source(session, r, error);
}

zimage_status zi_request_take(const zimage_session *session, const zimage_request *request, zimage_request *own,
                              zimage_error *error)
{
    ZI_TRY(zi_stack_check(error));
    ZI_TRY(ZI_TAKE(own, request, zimage_request, memory_limit, error));
    ZI_TRY(zi_inputs_complete(session->inner, own, error));
    return check(session, own, error);
}

zimage_status zimage_request_complete(const zimage_model *model, const zimage_request *request,
                                      zimage_request *completed, zimage_error *error)
{
    zimage_request own;
    if (!model || !request)
        return zi_fail(error, ZIMAGE_ERROR_ARGUMENT, "model and request: NULL, expected both");
    ZI_TRY(ZI_TAKE(&own, request, zimage_request, memory_limit, error));
    ZI_TRY(zi_inputs_complete(model->inner, &own, error));
    return ZI_GIVE(completed, &own, zimage_request, memory_limit, error);
}

/* ---- prompts ----------------------------------------------------------------------------------------------------- */

static zimage_status tokenize(const zimage_session *session, const char *field, const char *prompt, int32_t **ids,
                              int64_t *count, zimage_error *error)
{
    const zi_model *model = session->inner;
    int64_t limit = model->facts.max_prompt_tokens;
    zimage_error inner = ZIMAGE_ERROR_INIT;
    zi_prompt_ids found;
    zimage_status status =
        zi_tokenizer_encode_cut(model->tokenizer, model->family->chat_template, prompt, (size_t)limit, &found, &inner);
    if (status != ZIMAGE_OK)
        return zi_fail(error, status, "%s: %s", field, inner.message);
    *ids = found.ids;
    *count = (int64_t)found.count;
    if (found.cut)
        zi_warn(&session->log, "%s: more than %lld tokens with its template, cut to %lld as the reference does", field,
                (long long)limit, (long long)limit);
    return ZIMAGE_OK;
}

/* A scale of 1 means no guidance to everybody. */
static void warn_of_guidance(const zimage_session *session, const zimage_request *r)
{
    if (r->guidance_scale > 0 && r->guidance_scale != 1 && prompts_of(session, r) == 1)
        zi_warn(&session->log, "guidance_scale: %g is ignored: %s", (double)r->guidance_scale,
                session->inner->facts.distilled ? "the model is distilled and takes none"
                                                : "this model is guided by more than 1 only");
}

zimage_status zi_request_tokens(const zimage_session *session, const zimage_request *r, zi_tokens *tokens,
                                zimage_error *error)
{
    const zi_model *model = session->inner;
    int64_t rows = r->height / model->facts.scale_factor, columns = r->width / model->facts.scale_factor;
    int prompts = prompts_of(session, r);
    *tokens = (zi_tokens){.counts = {r->prompt_tokens, r->negative_prompt_tokens}};
    zi_sizes_warn(&model->facts.sizes, r->width, r->height, &session->log);
    warn_of_guidance(session, r);
    if (!r->prompt_embeds)
        ZI_TRY(tokenize(session, "prompt", r->prompt, &tokens->ids[0], &tokens->counts[0], error));
    if (prompts > 1 && !r->negative_prompt_embeds)
        ZI_TRY(tokenize(session, "negative_prompt", r->negative_prompt ? r->negative_prompt : "", &tokens->ids[1],
                        &tokens->counts[1], error));
    for (int i = 0; i < prompts; i++) {
        int64_t features =
            tokens->ids[i] ? model->family->feature_rows(model->networks, tokens->counts[i]) : tokens->counts[i];
        ZI_TRY(model->family->check_positions(model->networks, features, rows, columns, error));
    }
    return ZIMAGE_OK;
}

void zi_tokens_free(zi_tokens *tokens)
{
    for (int i = 0; i < ZI_PROMPTS_MAX; i++)
        free(tokens->ids[i]);
}

/* ---- the job ----------------------------------------------------------------------------------------------------- */

#define PREVIEW_SIDE 256 /* pixels; larger images are previewed from averaged latents */

int64_t zi_preview_factor(const zi_job *job)
{
    int64_t longest = (job->rows > job->columns ? job->rows : job->columns) * job->model->facts.scale_factor;
    int64_t factor = (longest + PREVIEW_SIDE - 1) / PREVIEW_SIDE;
    while (job->rows / factor == 0 || job->columns / factor == 0)
        factor--;
    return factor;
}

void zi_request_job(const zimage_session *session, const zimage_request *r, const zi_tokens *tokens, zi_job *job)
{
    const float *features[ZI_PROMPTS_MAX] = {r->prompt_embeds, r->negative_prompt_embeds};
    *job = (zi_job){
        .model = session->inner,
        .rows = r->height / session->inner->facts.scale_factor,
        .columns = r->width / session->inner->facts.scale_factor,
        .in_bf16 = session->compute == ZIMAGE_COMPUTE_BF16 || session->compute == ZIMAGE_COMPUTE_FP8,
        .prompts = prompts_of(session, r),
        .steps = r->steps - (r->strength > 0 ? zi_first_step(r->steps, r->strength) : 0),
    };
    zi_inputs_describe(r, job);
    for (int i = 0; i < job->prompts; i++)
        job->prompt[i] = (zi_prompt){
            .tokens = tokens->counts[i], .encoded = !features[i], .ids = tokens->ids[i], .features = features[i]};
    if (r->preview && r->progress) {
        int64_t factor = zi_preview_factor(job);
        job->preview_rows = job->rows / factor;
        job->preview_columns = job->columns / factor;
    }
}
