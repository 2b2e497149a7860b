/* Opening a model folder: diffusers' layout, or one converted for MLX. */
#include "engine/context.h"

#include <stdlib.h>
#include <string.h>

#include "base/file.h"
#include "base/json.h"
#include "base/system.h"
#include "engine/device.h"
#include "engine/plan.h"

void zimage_open_params_init(zimage_open_params *params)
{
    memset(params, 0, sizeof *params);
    params->struct_size = sizeof *params;
}

/* FOLDER/SUB/FILE */
static char *path_in(const char *folder, const char *sub, const char *file)
{
    char *inner = zi_path_join(folder, sub);
    char *path = inner ? zi_path_join(inner, file) : NULL;
    free(inner);
    return path;
}

static zimage_status check_pipeline_class(const char *path, const json_t *index, zimage_error *error)
{
    const char *class_name;
    ZI_TRY(zi_json_string(index, path, "_class_name", NULL, &class_name, error));
    if (!strncmp(class_name, "ZImage", 6))
        return ZIMAGE_OK;
    return zi_fail(error, ZIMAGE_ERROR_UNSUPPORTED,
                   "%s: _class_name is \"%s\", which this version can't run (it runs ZImagePipeline)", path,
                   class_name);
}

int zi_is_conversion(const char *folder)
{
    char *index = zi_path_join(folder, "model_index.json"), *transformer = zi_path_join(folder, "transformer");
    int converted = index && transformer && !zi_file_exists(index) && zi_folder_exists(transformer);
    free(index);
    free(transformer);
    return converted;
}

/* A conversion has no index: its transformer/config.json says what it is. */
static zimage_status check_model_index(const char *folder, zimage_error *error)
{
    if (!zi_folder_exists(folder))
        return zi_fail(error, ZIMAGE_ERROR_FILE, "%s: there is no such model folder", folder);
    if (zi_is_conversion(folder))
        return ZIMAGE_OK;
    char *path = zi_path_join(folder, "model_index.json");
    if (!path)
        return zi_fail_memory(error, "a path", 0);
    json_t *index = NULL;
    zimage_status status = zi_json_load(path, &index, error);
    if (status == ZIMAGE_OK)
        status = check_pipeline_class(path, index, error);
    json_decref(index);
    free(path);
    return status;
}

typedef zimage_status load_config(const char *path, void *config, zimage_error *error);

static zimage_status load_component_config(const char *folder, const char *path, load_config *load, void *config,
                                           zimage_error *error)
{
    if (zi_is_conversion(folder) && !zi_file_exists(path))
        return zi_fail(error, ZIMAGE_ERROR_FILE,
                       "%s: there is no such file; expected the configuration of the model that was converted (mflux "
                       "saves none: copy the original model's)",
                       path);
    return load(path, config, error);
}

/* Opens SUB's weights and hands its config.json to `load`; both paths live only inside. */
static zimage_status open_component(const zimage_context *context, const char *folder, const char *sub,
                                    const char *base, zi_store **store, load_config *load, void *config,
                                    zimage_error *error)
{
    char *component = zi_path_join(folder, sub);
    char *path = path_in(folder, sub, "config.json");
    zimage_status status = component && path ? ZIMAGE_OK : zi_fail_memory(error, "a path", 0);
    if (status == ZIMAGE_OK)
        status = load_component_config(folder, path, load, config, error);
    if (status == ZIMAGE_OK)
        status = zi_store_open(component, base, store, &context->log, error);
    if (status == ZIMAGE_OK)
        zi_store_dequantize(*store, context->dequantize);
    free(path);
    free(component);
    return status;
}

static zimage_status load_dit_config(const char *path, void *config, zimage_error *error)
{
    return zi_dit_config_load(path, config, error);
}

static zimage_status load_qwen3_config(const char *path, void *config, zimage_error *error)
{
    return zi_qwen3_config_load(path, config, error);
}

typedef struct vae_settings {
    zi_vae_config config;
    int64_t sample_size;
} vae_settings;

static zimage_status load_vae_config(const char *path, void *settings, zimage_error *error)
{
    vae_settings *s = settings;
    ZI_TRY(zi_vae_config_load(path, &s->config, error));
    json_t *object = NULL;
    ZI_TRY(zi_json_load(path, &object, error));
    const int64_t fallback = 1024;
    zimage_status status = zi_json_int(object, path, "sample_size", 1, 1 << 20, &fallback, &s->sample_size, error);
    json_decref(object);
    return status;
}

static zimage_status open_transformer(zimage_context *context, const char *folder, zimage_error *error)
{
    zi_dit_config config;
    ZI_TRY(open_component(context, folder, "transformer", "diffusion_pytorch_model", &context->transformer_store,
                          load_dit_config, &config, error));
    return zi_dit_bind(&context->transformer, &config, context->transformer_store, &context->log, error);
}

static zimage_status open_vae(zimage_context *context, const char *folder, zimage_error *error)
{
    vae_settings settings = {0};
    ZI_TRY(open_component(context, folder, "vae", "diffusion_pytorch_model", &context->vae_store, load_vae_config,
                          &settings, error));
    context->sample_size = settings.sample_size;
    ZI_TRY(zi_vae_bind(&context->vae, &settings.config, context->vae_store, &context->log, error));
    if (settings.config.latent_channels == context->transformer.config.in_channels)
        return ZIMAGE_OK;
    return zi_fail(error, ZIMAGE_ERROR_MODEL,
                   "%s/vae/config.json: latent_channels is %lld, expected the transformer's in_channels, %lld", folder,
                   (long long)settings.config.latent_channels, (long long)context->transformer.config.in_channels);
}

static zimage_status check_text_sizes(const zimage_context *context, const char *folder, zimage_error *error)
{
    int64_t hidden = context->text_encoder.config.hidden_size, vocab = context->text_encoder.config.vocab_size;
    if (hidden != context->transformer.config.cap_feat_dim)
        return zi_fail(
            error, ZIMAGE_ERROR_MODEL,
            "%s/text_encoder/config.json: hidden_size is %lld, expected the transformer's cap_feat_dim, %lld", folder,
            (long long)hidden, (long long)context->transformer.config.cap_feat_dim);
    if (zi_tokenizer_vocab_size(context->tokenizer) > vocab)
        return zi_fail(error, ZIMAGE_ERROR_MODEL,
                       "%s/tokenizer/tokenizer.json: the largest token id is %lld, expected less than the text "
                       "encoder's vocab_size, %lld",
                       folder, (long long)zi_tokenizer_vocab_size(context->tokenizer) - 1, (long long)vocab);
    return ZIMAGE_OK;
}

/* A folder without text_encoder/ is fine: its user brings prompt embeddings. */
static zimage_status open_text(zimage_context *context, const char *folder, zimage_error *error)
{
    char *component = zi_path_join(folder, "text_encoder");
    if (!component)
        return zi_fail_memory(error, "a path", 0);
    int present = zi_folder_exists(component);
    free(component);
    if (!present)
        return ZIMAGE_OK;
    zi_qwen3_config config;
    ZI_TRY(open_component(context, folder, "text_encoder", "model", &context->text_store, load_qwen3_config, &config,
                          error));
    ZI_TRY(zi_qwen3_bind(&context->text_encoder, &config, context->text_store, &context->log, error));
    char *path = path_in(folder, "tokenizer", "tokenizer.json");
    if (!path)
        return zi_fail_memory(error, "a path", 0);
    zimage_status status = zi_tokenizer_load(path, &context->tokenizer, error);
    free(path);
    return status == ZIMAGE_OK ? check_text_sizes(context, folder, error) : status;
}

static zimage_status open_scheduler(zimage_context *context, const char *folder, zimage_error *error)
{
    char *path = path_in(folder, "scheduler", "scheduler_config.json");
    if (!path)
        return zi_fail_memory(error, "a path", 0);
    zimage_status status = ZIMAGE_OK;
    context->scheduler = zi_scheduler_turbo();
    if (zi_is_conversion(folder) && !zi_file_exists(path))
        zi_warn(&context->log, "%s: there is no such file: Z-Image-Turbo's schedule is used, a static shift of %g",
                path, context->scheduler.shift);
    else
        status = zi_scheduler_load(path, &context->scheduler, error);
    free(path);
    return status;
}

static zimage_status open_ops(zimage_context *context, const zimage_open_params *params, zimage_error *error)
{
    if (params->reference && (params->compute > ZIMAGE_COMPUTE_F32 || params->cpu_mask))
        return zi_fail(error, ZIMAGE_ERROR_ARGUMENT,
                       "compute or cpu_mask: expected f32 and no mask with reference, which is plain float32");
    if (params->reference && params->device && strcmp(params->device, "auto") != 0 &&
        strcmp(params->device, "cpu") != 0)
        return zi_fail(error, ZIMAGE_ERROR_ARGUMENT, "device: \"%s\", expected cpu with reference", params->device);
    if (params->reference && params->device_memory)
        return zi_fail(error, ZIMAGE_ERROR_ARGUMENT, "device_memory: %llu bytes, expected 0 with reference",
                       (unsigned long long)params->device_memory);
    const zi_device_choice choice = {params->device, params->compute, params->cpu_mask, params->device_memory};
    context->device_memory = params->device_memory;
    ZI_TRY(zi_pool_new(params->reference ? 1 : params->threads, &context->pool, error));
    return params->reference ? zi_ops_reference_new(&context->ops, error)
                             : zi_device_ops(&choice, context->pool, &context->ops, error);
}

static zimage_status open_parts(zimage_context *context, const char *folder, const zimage_open_params *params,
                                zimage_error *error)
{
    ZI_TRY(check_model_index(folder, error));
    ZI_TRY(open_ops(context, params, error)); /* early: a wrong choice is told before gigabytes are looked at */
    ZI_TRY(open_scheduler(context, folder, error));
    ZI_TRY(open_transformer(context, folder, error));
    ZI_TRY(open_vae(context, folder, error));
    return open_text(context, folder, error);
}

zimage_status zimage_open(const char *model_path, const zimage_open_params *params, zimage_context **context,
                          zimage_error *error)
{
    zimage_open_params defaults;
    zimage_open_params_init(&defaults);
    if (!context)
        return zi_fail(error, ZIMAGE_ERROR_ARGUMENT, "context: NULL, expected where to put the opened model");
    *context = NULL;
    if (!model_path)
        return zi_fail(error, ZIMAGE_ERROR_ARGUMENT, "model_path: NULL, expected a model folder");
    if (params && params->struct_size != sizeof *params)
        return zi_fail(error, ZIMAGE_ERROR_ARGUMENT,
                       "params: struct_size is %u, expected zimage_open_params_init's %zu", params->struct_size,
                       sizeof *params);
    if (!params)
        params = &defaults;
    if (params->threads < 0 || params->threads > 1024)
        return zi_fail(error, ZIMAGE_ERROR_ARGUMENT, "threads: %d, expected 0 (all) to 1024", params->threads);
    if ((unsigned)params->dequantize > ZIMAGE_DEQUANTIZE_F32)
        return zi_fail(error, ZIMAGE_ERROR_ARGUMENT, "dequantize: %d, expected 0 (none), 1 (bf16) or 2 (f32)",
                       (int)params->dequantize);
    zimage_context *c = calloc(1, sizeof *c);
    if (!c)
        return zi_fail_memory(error, "a context", sizeof *c);
    c->log = (zi_log){params->log, params->log_user};
    c->dequantize = params->dequantize == ZIMAGE_DEQUANTIZE_F32    ? ZI_F32
                    : params->dequantize == ZIMAGE_DEQUANTIZE_BF16 ? ZI_BF16
                                                                   : ZI_GROUPED;
    zimage_status status = open_parts(c, model_path, params, error);
    if (status != ZIMAGE_OK) {
        zimage_close(c);
        return status;
    }
    c->base_bytes = zi_resident_bytes();
    *context = c;
    return ZIMAGE_OK;
}

void zimage_close(zimage_context *context)
{
    if (!context)
        return;
    if (context->ops)
        context->ops->table->free(context->ops);
    zi_pool_free(context->pool);
    zi_dit_free(&context->transformer);
    zi_qwen3_free(&context->text_encoder);
    zi_vae_free(&context->vae);
    zi_tokenizer_free(context->tokenizer);
    zi_store_free(context->transformer_store);
    zi_store_free(context->text_store);
    zi_store_free(context->vae_store);
    free(context);
}

int64_t zi_context_size_multiple(const zimage_context *context)
{
    return context->vae.config.scale_factor * context->transformer.config.patch;
}

static int32_t at_most(int64_t value, int64_t limit)
{
    return (int32_t)(value < limit ? value : limit);
}

void zimage_get_model_info(const zimage_context *context, zimage_model_info *info)
{
    const zi_dit_config *dit = &context->transformer.config;
    int64_t multiple = zi_context_size_multiple(context);
    int32_t max_height = at_most(dit->axes_lens[1] * multiple, INT32_MAX);
    int32_t max_width = at_most(dit->axes_lens[2] * multiple, INT32_MAX);
    int64_t side = context->sample_size / multiple * multiple;
    if (side < multiple)
        side = multiple;
    *info = (zimage_model_info){
        .struct_size = sizeof *info,
        .has_text_encoder = context->text_store != NULL,
        .latent_channels = (int32_t)dit->in_channels,
        .vae_scale_factor = (int32_t)context->vae.config.scale_factor,
        .size_multiple = (int32_t)multiple,
        .max_width = max_width,
        .max_height = max_height,
        .prompt_embeds_dim = (int32_t)dit->cap_feat_dim,
        .max_prompt_tokens = ZI_MAX_PROMPT_TOKENS,
        .default_width = at_most(side, max_width),
        .default_height = at_most(side, max_height),
        .default_steps = 8,
    };
}
