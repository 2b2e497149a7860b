#include "measure/synthetic.h"

#include <string.h>

/* The published configurations, cut to what sizes and mathematics need (docs/spec: zimage.md 1, flux2-klein.md 1,
 * text-encoder.md 1, vae.md 1). */
typedef struct published {
    const char *name;
    const zi_family *family;
    const char *index; /* model_index.json beside the parts; NULL: nothing that the family reads */
    const char *transformer, *text_encoder, *vae;
} published;

#define QWEN3(layers, hidden, intermediate)                                                                            \
    "{\"model_type\": \"qwen3\", \"hidden_size\": " hidden ", \"intermediate_size\": " intermediate                    \
    ", \"num_hidden_layers\": " layers ", \"num_attention_heads\": 32, \"num_key_value_heads\": 8, \"head_dim\": 128," \
    " \"rms_norm_eps\": 1e-6, \"rope_theta\": 1000000, \"vocab_size\": 151936}"

#define SMALL_QWEN3(layers)                                                                                            \
    "{\"model_type\": \"qwen3\", \"hidden_size\": 320, \"intermediate_size\": 1216, \"num_hidden_layers\": " layers    \
    ", \"num_attention_heads\": 8, \"num_key_value_heads\": 2, \"head_dim\": 64, \"rms_norm_eps\": 1e-6,"              \
    " \"rope_theta\": 1000000, \"vocab_size\": 8192}"

#define FLUX1_VAE(channels)                                                                                            \
    "{\"_class_name\": \"AutoencoderKL\", \"latent_channels\": 16, \"out_channels\": 3, "                              \
    "\"block_out_channels\": " channels                                                                                \
    ", \"layers_per_block\": 2, \"norm_num_groups\": 32, \"scaling_factor\": 0.3611,"                                  \
    " \"shift_factor\": 0.1159, \"use_post_quant_conv\": false}"

#define FLUX2_VAE(channels)                                                                                            \
    "{\"_class_name\": \"AutoencoderKLFlux2\", \"latent_channels\": 32, \"out_channels\": 3,"                          \
    " \"block_out_channels\": " channels ", \"layers_per_block\": 2, \"norm_num_groups\": 32,"                         \
    " \"batch_norm_eps\": 1e-4, \"patch_size\": [2, 2]}"

#define KLEIN(doubles, singles, heads, head_dim, joint, axis)                                                          \
    "{\"_class_name\": \"Flux2Transformer2DModel\", \"in_channels\": 128, \"num_layers\": " doubles                    \
    ", \"num_single_layers\": " singles ", \"num_attention_heads\": " heads ", \"attention_head_dim\": " head_dim      \
    ", \"joint_attention_dim\": " joint ", \"timestep_guidance_channels\": 256, \"mlp_ratio\": 3.0,"                   \
    " \"axes_dims_rope\": [" axis ", " axis ", " axis ", " axis "], \"rope_theta\": 2000, \"eps\": 1e-6,"              \
    " \"guidance_embeds\": false}"

#define DISTILLED_KLEIN "{\"_class_name\": \"Flux2KleinPipeline\", \"is_distilled\": true}"

static const published models[] = {
    {
        "z-image-turbo",
        &zi_family_zimage,
        NULL,
        "{\"_class_name\": \"ZImageTransformer2DModel\", \"all_patch_size\": [2], \"all_f_patch_size\": [1],"
        " \"in_channels\": 16, \"dim\": 3840, \"n_layers\": 30, \"n_refiner_layers\": 2, \"n_heads\": 30,"
        " \"n_kv_heads\": 30, \"norm_eps\": 1e-5, \"qk_norm\": true, \"cap_feat_dim\": 2560, \"rope_theta\": 256.0,"
        " \"t_scale\": 1000.0, \"axes_dims\": [32, 48, 48], \"axes_lens\": [1536, 512, 512]}",
        QWEN3("36", "2560", "9728"),
        FLUX1_VAE("[128, 256, 512, 512]"),
    },
    {
        "klein-4b",
        &zi_family_klein,
        DISTILLED_KLEIN,
        KLEIN("5", "20", "24", "128", "7680", "32"),
        QWEN3("36", "2560", "9728"),
        FLUX2_VAE("[128, 256, 512, 512]"),
    },
    {
        "klein-9b",
        &zi_family_klein,
        DISTILLED_KLEIN,
        KLEIN("8", "24", "32", "128", "12288", "32"),
        QWEN3("36", "4096", "12288"),
        FLUX2_VAE("[128, 256, 512, 512]"),
    },
    {
        "small",
        &zi_family_zimage,
        NULL,
        "{\"_class_name\": \"ZImageTransformer2DModel\", \"all_patch_size\": [2], \"all_f_patch_size\": [1],"
        " \"in_channels\": 16, \"dim\": 512, \"n_layers\": 4, \"n_refiner_layers\": 1, \"n_heads\": 8,"
        " \"norm_eps\": 1e-5, \"qk_norm\": true, \"cap_feat_dim\": 320, \"rope_theta\": 256.0,"
        " \"t_scale\": 1000.0, \"axes_dims\": [16, 24, 24], \"axes_lens\": [1536, 512, 512]}",
        SMALL_QWEN3("5"),
        FLUX1_VAE("[32, 64, 128, 128]"),
    },
    {
        "klein-small",
        &zi_family_klein,
        DISTILLED_KLEIN,
        KLEIN("2", "3", "8", "64", "960", "16"),
        SMALL_QWEN3("28"), /* the 27th layer's output is read, and may not be the last */
        FLUX2_VAE("[32, 64, 128, 128]"),
    },
};

/*
 * q4, q8: MLX's groups of 32 with BF16 scales in text encoder and transformer, the rest BF16 (docs/spec/formats.md 2).
 */
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
        return zi_fail(error, ZIMAGE_ERROR_ARGUMENT,
                       "synthetic: \"%s\", expected z-image-turbo, klein-4b, klein-9b, small or klein-small",
                       synthetic->model);
    if (find_format(synthetic->format) < 0)
        return zi_fail(error, ZIMAGE_ERROR_ARGUMENT, "format: \"%s\", expected bf16, f16, f32, q4 or q8",
                       synthetic->format);
    return ZIMAGE_OK;
}

static const char *config_of(const published *model, zi_component_kind kind)
{
    return kind == ZI_TRANSFORMER ? model->transformer : kind == ZI_VAE ? model->vae : model->text_encoder;
}

/* Binding to an empty store collects the tensors that a network needs; they are made, and bound for good. */
static zimage_status make_component(zi_model *model, const zi_synthetic *s, zi_component_kind kind, zi_pool *pool,
                                    zimage_error *error)
{
    const zi_component *component = &model->family->components[kind];
    zi_memory_format format = formats[find_format(s->format)].networks;
    zi_store *store = NULL;
    if (kind == ZI_VAE)
        format = (zi_memory_format){formats[find_format(s->format)].vae, 0, 0};
    ZI_TRY(zi_store_new_memory(component->folder, &store, error));
    zimage_status status = component->bind(model->networks, store, NULL, error);
    component->unbind(model->networks);
    if (status == ZIMAGE_OK)
        status = zi_store_fill(store, &format, pool, error);
    if (status != ZIMAGE_OK) {
        zi_store_free(store);
        return status;
    }
    return zi_model_add(model, kind, store, NULL, error);
}

static zimage_status read_index(zi_model *model, const published *from, zimage_error *error)
{
    if (!from->index)
        return ZIMAGE_OK;
    json_t *index = json_loads(from->index, 0, NULL);
    if (!index)
        return zi_fail_memory(error, "a synthetic model", strlen(from->index));
    zimage_status status =
        model->family->read_index(model->networks, &(zi_json_reader){index, "synthetic model", error}, NULL);
    json_decref(index);
    return status;
}

static zimage_status make(zi_model *model, const published *from, const zi_synthetic *s, unsigned components,
                          zi_pool *pool, zimage_error *error)
{
    ZI_TRY(read_index(model, from, error));
    for (int i = 0; i < ZI_COMPONENTS; i++) {
        const zi_component *component = &model->family->components[i];
        ZI_TRY(component->configure(model->networks, "synthetic model", config_of(from, (zi_component_kind)i), error));
        if (s->layers > 0)
            component->limit_layers(model->networks, s->layers);
    }
    for (int i = 0; i < ZI_COMPONENTS; i++)
        if (components >> i & 1)
            ZI_TRY(make_component(model, s, (zi_component_kind)i, pool, error));
    model->scheduler = model->family->default_scheduler();
    zi_model_finish(model);
    return ZIMAGE_OK;
}

zimage_status zi_synthetic_new(const zi_synthetic *synthetic, unsigned components, zi_pool *pool, zi_model **model,
                               zimage_error *error)
{
    *model = NULL;
    ZI_TRY(zi_synthetic_check(synthetic, error));
    const published *from = find_model(synthetic->model);
    zi_model *made = NULL;
    ZI_TRY(zi_model_new(from->family, &made, error));
    zimage_status status = make(made, from, synthetic, components, pool, error);
    if (status == ZIMAGE_OK)
        *model = made;
    else
        zi_model_close(made);
    return status;
}
