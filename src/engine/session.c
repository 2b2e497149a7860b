/* Models and sessions: the public handles. */
#include "engine/session.h"

#include <stdlib.h>
#include <string.h>

#include "base/sized.h"
#include "base/stack.h"
#include "base/system.h"
#include "engine/backends.h"

/* ---- models ------------------------------------------------------------------------------------------------------ */

zimage_status zi_model_handle(zi_model *inner, zimage_model **model, zimage_error *error)
{
    *model = calloc(1, sizeof **model);
    if (!*model) {
        zi_model_close(inner);
        return zi_fail_memory(error, "a model", sizeof **model);
    }
    (*model)->inner = inner;
    (*model)->peak_before = zi_peak_resident_bytes();
    atomic_init(&(*model)->references, 1);
    return ZIMAGE_OK;
}

void zi_model_reference(zimage_model *model)
{
    atomic_fetch_add(&model->references, 1);
}

static zimage_status make_choice(const zimage_model_params *params, zi_model_choice *choice, zimage_error *error)
{
    static const zi_dtype dtypes[] = {ZI_GROUPED, ZI_BF16, ZI_F32};
    if ((unsigned)params->dequantize > ZIMAGE_DEQUANTIZE_F32)
        return zi_fail(error, ZIMAGE_ERROR_ARGUMENT, "dequantize: %d, expected 0 (none), 1 (bf16) or 2 (f32)",
                       (int)params->dequantize);
    *choice = (zi_model_choice){
        .dequantize = dtypes[params->dequantize],
        .components =
            {[ZI_TEXT_ENCODER] = params->text_encoder, [ZI_TRANSFORMER] = params->transformer, [ZI_VAE] = params->vae},
        .tokenizer = params->tokenizer,
        .scheduler = params->scheduler,
    };
    return ZIMAGE_OK;
}

zimage_status zimage_model_open(const char *path, const zimage_model_params *params, zimage_model **model,
                                zimage_error *error)
{
    zimage_model_params own;
    zi_model_choice choice;
    zi_model *inner;
    if (!model)
        return zi_fail(error, ZIMAGE_ERROR_ARGUMENT, "model: NULL, expected where to put the opened model");
    *model = NULL;
    if (!path)
        return zi_fail(error, ZIMAGE_ERROR_ARGUMENT, "path: NULL, expected a model folder");
    ZI_TRY(zi_stack_check(error));
    ZI_TRY(ZI_TAKE(&own, params, zimage_model_params, scheduler, error));
    ZI_TRY(make_choice(&own, &choice, error));
    size_t peak = zi_peak_resident_bytes();
    ZI_TRY(zi_model_open(path, &choice, &(zi_log){own.log, own.log_user}, &inner, error));
    ZI_TRY(zi_model_handle(inner, model, error));
    (*model)->peak_before = peak;
    return ZIMAGE_OK;
}

void zimage_model_close(zimage_model *model)
{
    if (!model || atomic_fetch_sub(&model->references, 1) != 1)
        return;
    zi_model_close(model->inner);
    free(model);
}

zimage_status zimage_model_get_info(const zimage_model *model, zimage_model_info *info, zimage_error *error)
{
    if (!model)
        return zi_fail(error, ZIMAGE_ERROR_ARGUMENT, "model: NULL, expected an open model");
    const zi_facts *facts = &model->inner->facts;
    zimage_model_info own = {
        .has_text_encoder = zi_model_has(model->inner, ZI_TEXT_ENCODER),
        .latent_channels = (int32_t)facts->latent_channels,
        .vae_scale_factor = (int32_t)facts->scale_factor,
        .size_multiple = (int32_t)facts->size_multiple,
        .max_width = (int32_t)facts->max_width,
        .max_height = (int32_t)facts->max_height,
        .prompt_embeds_dim = (int32_t)facts->features,
        .max_prompt_tokens = (int32_t)facts->max_prompt_tokens,
        .default_width = zi_default_width(facts),
        .default_height = zi_default_height(facts),
        .default_steps = facts->default_steps,
        .distilled = facts->distilled,
        .default_guidance = facts->default_guidance,
        .has_image_encoder = facts->has_image_encoder,
        .max_references = facts->max_references,
    };
    if (model->inner->fingerprint.state)
        zi_fingerprint_print(&model->inner->fingerprint, own.fingerprint);
    strncpy(own.family, model->inner->family->name, sizeof own.family - 1);
    return ZI_GIVE(info, &own, zimage_model_info, family, error);
}

/* ---- sessions ---------------------------------------------------------------------------------------------------- */

static zimage_status check_params(const zimage_session_params *params, zimage_error *error)
{
    if (params->threads < 0 || params->threads > 1024)
        return zi_fail(error, ZIMAGE_ERROR_ARGUMENT, "threads: %d, expected 0 (all) to 1024", params->threads);
    if ((unsigned)params->compute > ZIMAGE_COMPUTE_FP8)
        return zi_fail(error, ZIMAGE_ERROR_ARGUMENT, "compute: %d, expected one of zimage_compute",
                       (int)params->compute);
    if (!params->reference)
        return ZIMAGE_OK;
    if (params->compute > ZIMAGE_COMPUTE_F32 || params->cpu_mask)
        return zi_fail(error, ZIMAGE_ERROR_ARGUMENT,
                       "compute or cpu_mask: expected f32 and no mask with reference, which is plain float32");
    if (params->device && strcmp(params->device, "auto") != 0 && strcmp(params->device, "cpu") != 0)
        return zi_fail(error, ZIMAGE_ERROR_ARGUMENT, "device: \"%s\", expected cpu with reference", params->device);
    if (params->device_memory)
        return zi_fail(error, ZIMAGE_ERROR_ARGUMENT, "device_memory: %llu bytes, expected 0 with reference",
                       (unsigned long long)params->device_memory);
    return ZIMAGE_OK;
}

static zimage_status open_backend(zimage_session *session, const zimage_session_params *params, zimage_error *error)
{
    const zi_backend_choice choice = {.device = params->device,
                                      .compute = params->compute,
                                      .cpu_mask = params->cpu_mask,
                                      .memory = params->device_memory,
                                      .cache_folder = session->cache_folder};
    ZI_TRY(zi_pool_new(params->reference ? 1 : params->threads, &session->pool, error));
    return params->reference ? zi_ops_reference_new(&session->ops, error)
                             : zi_backend_open(&choice, session->pool, &session->ops, error);
}

zimage_status zi_session_new(zimage_model *model, const zimage_session_params *params, zimage_session **session,
                             zimage_error *error)
{
    *session = NULL;
    ZI_TRY(check_params(params, error));
    zimage_session *s = calloc(1, sizeof *s);
    if (!s)
        return zi_fail_memory(error, "a session", sizeof *s);
    zi_model_reference(model);
    zi_model_count_session(model->inner, 1);
    s->model = model;
    s->inner = model->inner;
    s->log = (zi_log){params->log, params->log_user};
    s->device_memory = params->device_memory;
    s->cache_folder = params->cache_folder ? strdup(params->cache_folder) : NULL;
    zimage_status status = params->cache_folder && !s->cache_folder
                               ? zi_fail_memory(error, "a path", strlen(params->cache_folder))
                               : open_backend(s, params, error);
    if (status != ZIMAGE_OK) {
        zimage_session_close(s);
        return status;
    }
    s->compute = zi_backend_compute(s->ops, params->compute);
    s->owned_bytes = zi_model_owned_bytes(s->inner);
    s->base_bytes = zi_resident_bytes();
    s->opening_bytes = zi_peak_resident_bytes();
    if (s->opening_bytes <= model->peak_before)
        s->opening_bytes = 0;
    *session = s;
    return ZIMAGE_OK;
}

zimage_status zimage_session_open(zimage_model *model, const zimage_session_params *params, zimage_session **session,
                                  zimage_error *error)
{
    zimage_session_params own;
    if (!session)
        return zi_fail(error, ZIMAGE_ERROR_ARGUMENT, "session: NULL, expected where to put the opened session");
    *session = NULL;
    if (!model)
        return zi_fail(error, ZIMAGE_ERROR_ARGUMENT, "model: NULL, expected an open model");
    ZI_TRY(zi_stack_check(error));
    ZI_TRY(ZI_TAKE(&own, params, zimage_session_params, cache_folder, error));
    return zi_session_new(model, &own, session, error);
}

void zimage_session_close(zimage_session *session)
{
    if (!session)
        return;
    if (session->ops)
        session->ops->table->free(session->ops);
    zi_pool_free(session->pool);
    zi_texts_forget(&session->texts);
    free(session->cache_folder);
    zi_model_count_session(session->inner, -1);
    zimage_model_close(session->model);
    free(session);
}
