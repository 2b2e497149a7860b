#include "engine/synthetic.h"

#include <stdlib.h>
#include <string.h>

#include "base/system.h"
#include "engine/device.h"
#include "engine/plan.h"

/* The published configurations, cut to what sizes and mathematics need (spec zimage.md 1, text-encoder.md 1, vae.md 1). */
typedef struct published {
    const char *name, *transformer, *text_encoder, *vae;
} published;

static const published models[] = {
    {
        "z-image-turbo",
        "{\"_class_name\": \"ZImageTransformer2DModel\", \"all_patch_size\": [2], \"all_f_patch_size\": [1],"
        " \"in_channels\": 16, \"dim\": 3840, \"n_layers\": 30, \"n_refiner_layers\": 2, \"n_heads\": 30,"
        " \"n_kv_heads\": 30, \"norm_eps\": 1e-5, \"qk_norm\": true, \"cap_feat_dim\": 2560, \"rope_theta\": 256.0,"
        " \"t_scale\": 1000.0, \"axes_dims\": [32, 48, 48], \"axes_lens\": [1536, 512, 512]}",
        "{\"model_type\": \"qwen3\", \"hidden_size\": 2560, \"intermediate_size\": 9728, \"num_hidden_layers\": 36,"
        " \"num_attention_heads\": 32, \"num_key_value_heads\": 8, \"head_dim\": 128, \"rms_norm_eps\": 1e-6,"
        " \"rope_theta\": 1000000, \"vocab_size\": 151936}",
        "{\"_class_name\": \"AutoencoderKL\", \"latent_channels\": 16, \"out_channels\": 3,"
        " \"block_out_channels\": [128, 256, 512, 512], \"layers_per_block\": 2, \"norm_num_groups\": 32,"
        " \"scaling_factor\": 0.3611, \"shift_factor\": 0.1159, \"use_post_quant_conv\": false}",
    },
    {
        "small",
        "{\"_class_name\": \"ZImageTransformer2DModel\", \"all_patch_size\": [2], \"all_f_patch_size\": [1],"
        " \"in_channels\": 16, \"dim\": 512, \"n_layers\": 4, \"n_refiner_layers\": 1, \"n_heads\": 8,"
        " \"norm_eps\": 1e-5, \"qk_norm\": true, \"cap_feat_dim\": 320, \"rope_theta\": 256.0,"
        " \"t_scale\": 1000.0, \"axes_dims\": [16, 24, 24], \"axes_lens\": [1536, 512, 512]}",
        "{\"model_type\": \"qwen3\", \"hidden_size\": 320, \"intermediate_size\": 1216, \"num_hidden_layers\": 5,"
        " \"num_attention_heads\": 8, \"num_key_value_heads\": 2, \"head_dim\": 64, \"rms_norm_eps\": 1e-6,"
        " \"rope_theta\": 1000000, \"vocab_size\": 8192}",
        "{\"_class_name\": \"AutoencoderKL\", \"latent_channels\": 16, \"out_channels\": 3,"
        " \"block_out_channels\": [32, 64, 128, 128], \"layers_per_block\": 2, \"norm_num_groups\": 32,"
        " \"scaling_factor\": 0.3611, \"shift_factor\": 0.1159, \"use_post_quant_conv\": false}",
    },
};

/* q4, q8: MLX's groups of 32 with BF16 scales in text encoder and transformer, the rest BF16 (spec formats.md 2). */
static const struct {
    const char *name;
    zi_memory_format networks;
    zi_dtype vae;
} formats[] = {
    {"bf16", {ZI_BF16, 0, 0}, ZI_BF16}, {"f16", {ZI_F16, 0, 0}, ZI_F16},   {"f32", {ZI_F32, 0, 0}, ZI_F32},
    {"q4", {ZI_BF16, 4, 32}, ZI_BF16},  {"q8", {ZI_BF16, 8, 32}, ZI_BF16},
};

static const published *find_model(const char *name)
{
    for (size_t i = 0; i < sizeof models / sizeof *models; i++)
        if (!strcmp(models[i].name, name))
            return &models[i];
    return NULL;
}

static int find_format(const char *name)
{
    for (size_t i = 0; i < sizeof formats / sizeof *formats; i++)
        if (!strcmp(formats[i].name, name))
            return (int)i;
    return -1;
}

zimage_status zi_synthetic_check(const zi_synthetic *synthetic, zimage_error *error)
{
    if (!find_model(synthetic->model))
        return zi_fail(error, ZIMAGE_ERROR_ARGUMENT, "synthetic: \"%s\", expected z-image-turbo or small",
                       synthetic->model);
    if (find_format(synthetic->format) < 0)
        return zi_fail(error, ZIMAGE_ERROR_ARGUMENT, "format: \"%s\", expected bf16, f16, f32, q4 or q8",
                       synthetic->format);
    return ZIMAGE_OK;
}

static int64_t at_most(int64_t count, int limit)
{
    return limit > 0 && limit < count ? limit : count;
}

static zimage_status make_text(zimage_context *c, const published *model, const zi_synthetic *s, zimage_error *error)
{
    zi_qwen3_config config;
    ZI_TRY(zi_qwen3_config_parse("synthetic text_encoder", model->text_encoder, &config, error));
    config.num_hidden_layers = at_most(config.num_hidden_layers - 1, s->layers) + 1; /* the last is never run */
    ZI_TRY(zi_store_new_memory("synthetic text_encoder", &c->text_store, error));
    ZI_TRY(zi_qwen3_bind(&c->text_encoder, &config, c->text_store, NULL, error));
    zi_qwen3_free(&c->text_encoder);
    ZI_TRY(zi_store_fill(c->text_store, &formats[find_format(s->format)].networks, c->pool, error));
    return zi_qwen3_bind(&c->text_encoder, &config, c->text_store, NULL, error);
}

static zimage_status make_transformer(zimage_context *c, const published *model, const zi_synthetic *s,
                                      zimage_error *error)
{
    zi_dit_config config;
    ZI_TRY(zi_dit_config_parse("synthetic transformer", model->transformer, &config, error));
    config.n_layers = at_most(config.n_layers, s->layers);
    ZI_TRY(zi_store_new_memory("synthetic transformer", &c->transformer_store, error));
    ZI_TRY(zi_dit_bind(&c->transformer, &config, c->transformer_store, NULL, error));
    zi_dit_free(&c->transformer);
    ZI_TRY(zi_store_fill(c->transformer_store, &formats[find_format(s->format)].networks, c->pool, error));
    return zi_dit_bind(&c->transformer, &config, c->transformer_store, NULL, error);
}

static zimage_status make_vae(zimage_context *c, const published *model, const zi_synthetic *s, zimage_error *error)
{
    zi_vae_config config;
    ZI_TRY(zi_vae_config_parse("synthetic vae", model->vae, &config, error));
    ZI_TRY(zi_store_new_memory("synthetic vae", &c->vae_store, error));
    ZI_TRY(zi_vae_bind(&c->vae, &config, c->vae_store, NULL, error));
    zi_vae_free(&c->vae);
    const zi_memory_format format = {formats[find_format(s->format)].vae, 0, 0};
    ZI_TRY(zi_store_fill(c->vae_store, &format, c->pool, error));
    return zi_vae_bind(&c->vae, &config, c->vae_store, NULL, error);
}

static zimage_status make_parts(zimage_context *c, const zi_synthetic *s, int parts, zimage_error *error)
{
    const published *model = find_model(s->model);
    ZI_TRY(zi_pool_new(s->threads, &c->pool, error));
    ZI_TRY(zi_device_ops(&(zi_device_choice){s->device, s->compute, s->cpu_mask, s->device_memory}, c->pool, &c->ops,
                         error));
    c->device_memory = s->device_memory;
    c->base_bytes = zi_resident_bytes();
    if (parts & ZI_PART_TEXT)
        ZI_TRY(make_text(c, model, s, error));
    if (parts & ZI_PART_TRANSFORMER)
        ZI_TRY(make_transformer(c, model, s, error));
    if (parts & ZI_PART_VAE)
        ZI_TRY(make_vae(c, model, s, error));
    return ZIMAGE_OK;
}

zimage_status zi_context_new_synthetic(const zi_synthetic *synthetic, int parts, zimage_context **context,
                                       zimage_error *error)
{
    *context = NULL;
    ZI_TRY(zi_synthetic_check(synthetic, error));
    zimage_context *c = calloc(1, sizeof *c);
    if (!c)
        return zi_fail_memory(error, "a context", sizeof *c);
    c->scheduler = (zi_scheduler_config){.shift = 3.0};
    c->sample_size = 1024;
    zimage_status status = make_parts(c, synthetic, parts, error);
    if (status == ZIMAGE_OK)
        *context = c;
    else
        zimage_close(c);
    return status;
}
