/*
 * The configuration and the weights of the FLUX.2 transformer. Reference: diffusers,
 * models/transformers/transformer_flux2.py.
 */
#include "model/flux2_dit.h"

#include <stdlib.h>
#include <string.h>

/* ---- configuration ----------------------------------------------------------------------------------------------- */

const char *const zi_flux2_dit_fields[] = {"patch_size",
                                           "in_channels",
                                           "out_channels",
                                           "num_layers",
                                           "num_single_layers",
                                           "attention_head_dim",
                                           "num_attention_heads",
                                           "joint_attention_dim",
                                           "timestep_guidance_channels",
                                           "mlp_ratio",
                                           "axes_dims_rope",
                                           "rope_theta",
                                           "eps",
                                           "guidance_embeds",
                                           NULL};

static zimage_status refuse_variants(const zi_json_reader *json)
{
    int guidance;
    ZI_TRY(zi_require_string(json, "_class_name", "Flux2Transformer2DModel"));
    ZI_TRY(zi_field_bool(json, "guidance_embeds", 1, &guidance));
    if (guidance)
        return zi_fail(json->error, ZIMAGE_ERROR_UNSUPPORTED,
                       "%s: guidance_embeds is %s (FLUX.2-dev), only false (FLUX.2-klein) is supported", json->path,
                       zi_field_is_default(json, "guidance_embeds") ? "missing, which is true" : "true");
    return zi_refuse_quantization(json);
}

/* A field of which one number only is supported. */
static zimage_status require_int(const zi_json_reader *json, const char *field, int64_t default_value, int64_t only)
{
    int64_t value;
    ZI_TRY(zi_field_int(json, field, 0, 65536, default_value, &value));
    if (value != only)
        return zi_fail(json->error, ZIMAGE_ERROR_UNSUPPORTED, "%s: %s is %lld, only %lld is supported", json->path,
                       field, (long long)value, (long long)only);
    return ZIMAGE_OK;
}

/* Null and 0 are in_channels. */
static zimage_status check_out_channels(const zi_json_reader *json, int64_t in_channels)
{
    const json_t *value = json_object_get(json->object, "out_channels");
    if (zi_field_is_default(json, "out_channels") || json_is_null(value) ||
        (json_is_integer(value) && json_integer_value(value) == 0))
        return ZIMAGE_OK;
    return require_int(json, "out_channels", in_channels, in_channels);
}

static zimage_status load_axes(const zi_json_reader *json, zi_flux2_dit_config *config)
{
    static const int64_t defaults[ZI_FLUX2_AXES] = {32, 32, 32, 32};
    int64_t sum = 0;
    ZI_TRY(zi_field_int_array(json, "axes_dims_rope", 2, 4096, defaults, config->axes_dims, ZI_FLUX2_AXES));
    for (int axis = 0; axis < ZI_FLUX2_AXES; axis++) {
        if (config->axes_dims[axis] % 2 != 0)
            return zi_fail(json->error, ZIMAGE_ERROR_MODEL, "%s: axes_dims_rope[%d] is %lld, expected an even number",
                           json->path, axis, (long long)config->axes_dims[axis]);
        sum += config->axes_dims[axis];
    }
    if (sum != config->head_dim)
        return zi_fail(json->error, ZIMAGE_ERROR_MODEL,
                       "%s: axes_dims_rope add up to %lld, expected attention_head_dim %lld", json->path,
                       (long long)sum, (long long)config->head_dim);
    return ZIMAGE_OK;
}

static zimage_status check_sizes(const zi_json_reader *json, const zi_flux2_dit_config *config)
{
    if (config->dim % ZI_OPERAND_STEP != 0)
        return zi_fail(json->error, ZIMAGE_ERROR_UNSUPPORTED,
                       "%s: num_attention_heads x attention_head_dim is %lld, only multiples of %d are supported",
                       json->path, (long long)config->dim, ZI_OPERAND_STEP);
    if (config->mlp_dim < 1 || config->mlp_dim > 1 << 20)
        return zi_fail(json->error, ZIMAGE_ERROR_MODEL,
                       "%s: mlp_ratio is %g, which makes %lld features of %lld, expected 1 to %d", json->path,
                       config->mlp_ratio, (long long)config->mlp_dim, (long long)config->dim, 1 << 20);
    if (config->time_channels % 2 != 0)
        return zi_fail(json->error, ZIMAGE_ERROR_UNSUPPORTED,
                       "%s: timestep_guidance_channels is %lld, only even numbers are supported", json->path,
                       (long long)config->time_channels);
    return ZIMAGE_OK;
}

/* The defaults are those of Flux2Transformer2DModel. */
static zimage_status read_config(const zi_json_reader *json, void *out)
{
    zi_flux2_dit_config *config = out;
    ZI_TRY(refuse_variants(json));
    ZI_TRY(require_int(json, "patch_size", 1, 1));
    ZI_TRY(zi_field_int(json, "in_channels", 1, 4096, 128, &config->in_channels));
    ZI_TRY(check_out_channels(json, config->in_channels));
    ZI_TRY(zi_field_int(json, "num_layers", 0, 1024, 8, &config->num_layers));
    ZI_TRY(zi_field_int(json, "num_single_layers", 0, 1024, 48, &config->num_single_layers));
    ZI_TRY(zi_field_int(json, "attention_head_dim", 2, 4096, 128, &config->head_dim));
    ZI_TRY(zi_field_int(json, "num_attention_heads", 1, 1024, 48, &config->heads));
    ZI_TRY(zi_field_int(json, "joint_attention_dim", 1, 65536, 15360, &config->joint_dim));
    ZI_TRY(zi_field_int(json, "timestep_guidance_channels", 2, 65536, 256, &config->time_channels));
    ZI_TRY(zi_field_number(json, "mlp_ratio", 1e-3, 64, 3, &config->mlp_ratio));
    ZI_TRY(zi_field_number(json, "rope_theta", 1, 1e12, 2000, &config->rope_theta));
    ZI_TRY(zi_field_number(json, "eps", 0, 1, 1e-6, &config->eps));
    zi_flux2_dit_config_derive(config);
    ZI_TRY(load_axes(json, config));
    return check_sizes(json, config);
}

void zi_flux2_dit_config_derive(zi_flux2_dit_config *config)
{
    config->dim = config->heads * config->head_dim;
    config->mlp_dim = (int64_t)((double)config->dim * config->mlp_ratio); /* int(dim * mlp_ratio) in Python */
}

zimage_status zi_flux2_dit_config_read(const char *path, const char *text, zi_flux2_dit_config *config,
                                       zimage_error *error)
{
    return zi_config_read(path, text, read_config, config, sizeof *config, error);
}

/* ---- weights ----------------------------------------------------------------------------------------------------- */

/* The names of a half's tensors. */
typedef struct half_names {
    const char *to_q, *to_k, *to_v, *to_out, *norm_q, *norm_k, *linear_in, *linear_out;
} half_names;

static const half_names image_names = {"attn.to_q.weight",     "attn.to_k.weight",    "attn.to_v.weight",
                                       "attn.to_out.0.weight", "attn.norm_q.weight",  "attn.norm_k.weight",
                                       "ff.linear_in.weight",  "ff.linear_out.weight"};
static const half_names text_names = {"attn.add_q_proj.weight",      "attn.add_k_proj.weight",
                                      "attn.add_v_proj.weight",      "attn.to_add_out.weight",
                                      "attn.norm_added_q.weight",    "attn.norm_added_k.weight",
                                      "ff_context.linear_in.weight", "ff_context.linear_out.weight"};

/* ff*.linear_out reads gated products with rare large values, which int8 would spoil (docs/errors.md). */
static void bind_half(zi_binder *binder, zi_flux2_half *half, const zi_flux2_dit_config *config, const char *prefix,
                      const half_names *names)
{
    int64_t dim = config->dim, mlp = config->mlp_dim;
    zi_bind_matrix(binder, &half->to_q, dim, dim, prefix, names->to_q);
    zi_bind_matrix(binder, &half->to_k, dim, dim, prefix, names->to_k);
    zi_bind_matrix(binder, &half->to_v, dim, dim, prefix, names->to_v);
    zi_bind_matrix(binder, &half->to_out, dim, dim, prefix, names->to_out);
    zi_bind_vector(binder, &half->norm_q, config->head_dim, prefix, names->norm_q);
    zi_bind_vector(binder, &half->norm_k, config->head_dim, prefix, names->norm_k);
    zi_bind_matrix(binder, &half->linear_in, 2 * mlp, dim, prefix, names->linear_in);
    zi_bind_matrix(binder, &half->linear_out, dim, mlp, prefix, names->linear_out);
    zi_bind_precise(binder, half->linear_out, ZI_PRECISE_INT8);
}

/* As in a half, to_out reads gated products. */
static void bind_single(zi_binder *binder, zi_flux2_single_block *block, const zi_flux2_dit_config *config,
                        const char *prefix)
{
    int64_t dim = config->dim, mlp = config->mlp_dim;
    zi_bind_matrix(binder, &block->to_qkv_mlp_proj, 3 * dim + 2 * mlp, dim, prefix, "attn.to_qkv_mlp_proj.weight");
    zi_bind_matrix(binder, &block->to_out, dim, dim + mlp, prefix, "attn.to_out.weight");
    zi_bind_vector(binder, &block->norm_q, config->head_dim, prefix, "attn.norm_q.weight");
    zi_bind_vector(binder, &block->norm_k, config->head_dim, prefix, "attn.norm_k.weight");
    zi_bind_precise(binder, block->to_out, ZI_PRECISE_INT8);
}

/* The first and the last layers, which 8 bits would spoil most (docs/errors.md), cost next to nothing. */
static void bind_ends(zi_binder *binder, zi_flux2_dit *model)
{
    const zi_flux2_dit_config *config = &model->config;
    int64_t dim = config->dim, channels = config->in_channels;
    const char *time = "time_guidance_embed.timestep_embedder.";
    zi_bind_matrix(binder, &model->x_embedder, dim, channels, "", "x_embedder.weight");
    zi_bind_matrix(binder, &model->context_embedder, dim, config->joint_dim, "", "context_embedder.weight");
    zi_bind_matrix(binder, &model->time_linear1, dim, config->time_channels, time, "linear_1.weight");
    zi_bind_matrix(binder, &model->time_linear2, dim, dim, time, "linear_2.weight");
    zi_bind_matrix(binder, &model->image_modulation, 6 * dim, dim, "", "double_stream_modulation_img.linear.weight");
    zi_bind_matrix(binder, &model->text_modulation, 6 * dim, dim, "", "double_stream_modulation_txt.linear.weight");
    zi_bind_matrix(binder, &model->single_modulation, 3 * dim, dim, "", "single_stream_modulation.linear.weight");
    zi_bind_matrix(binder, &model->norm_out, 2 * dim, dim, "", "norm_out.linear.weight");
    zi_bind_matrix(binder, &model->proj_out, channels, dim, "", "proj_out.weight");
    zi_bind_precise(binder, model->x_embedder, ZI_PRECISE);
    zi_bind_precise(binder, model->context_embedder, ZI_PRECISE);
    zi_bind_precise(binder, model->proj_out, ZI_PRECISE);
}

static void bind_all(zi_binder *binder, zi_flux2_dit *model)
{
    char prefix[ZI_NAME_MAX];
    bind_ends(binder, model);
    for (int64_t i = 0; i < model->config.num_layers; i++) {
        zi_flux2_double_block *block = &model->double_blocks[i];
        snprintf(prefix, sizeof prefix, "transformer_blocks.%lld.", (long long)i);
        bind_half(binder, &block->image, &model->config, prefix, &image_names);
        bind_half(binder, &block->text, &model->config, prefix, &text_names);
    }
    for (int64_t i = 0; i < model->config.num_single_layers; i++) {
        snprintf(prefix, sizeof prefix, "single_transformer_blocks.%lld.", (long long)i);
        bind_single(binder, &model->single_blocks[i], &model->config, prefix);
    }
}

/* Rows of a bound weight; no weight while a store only collects names (store.h). */
static zi_weight rows_of(const zi_weight *weight, int64_t first, int64_t count)
{
    return weight != NULL ? zi_weight_slice(weight, first, count) : (zi_weight){.name = NULL};
}

static void cut_half(zi_flux2_half *half, int64_t mlp)
{
    half->gate = rows_of(half->linear_in, 0, mlp);
    half->up = rows_of(half->linear_in, mlp, mlp);
}

/* After binding ended: that may move what weights point to. */
static void cut_all(zi_flux2_dit *model)
{
    int64_t dim = model->config.dim, mlp = model->config.mlp_dim;
    for (int64_t i = 0; i < model->config.num_layers; i++) {
        cut_half(&model->double_blocks[i].image, mlp);
        cut_half(&model->double_blocks[i].text, mlp);
    }
    for (int64_t i = 0; i < model->config.num_single_layers; i++) {
        zi_flux2_single_block *block = &model->single_blocks[i];
        block->to_q = rows_of(block->to_qkv_mlp_proj, 0, dim);
        block->to_k = rows_of(block->to_qkv_mlp_proj, dim, dim);
        block->to_v = rows_of(block->to_qkv_mlp_proj, 2 * dim, dim);
        block->gate = rows_of(block->to_qkv_mlp_proj, 3 * dim, mlp);
        block->up = rows_of(block->to_qkv_mlp_proj, 3 * dim + mlp, mlp);
    }
}

zimage_status zi_flux2_dit_bind(zi_flux2_dit *model, const zi_flux2_dit_config *config, zi_store *store,
                                const zi_log *log, zimage_error *error)
{
    zi_binder *binder;
    size_t doubles = (size_t)config->num_layers, singles = (size_t)config->num_single_layers;
    memset(model, 0, sizeof *model);
    ZI_TRY(zi_binder_new(store, &binder, error));
    model->config = *config;
    model->double_blocks = calloc(doubles + 1, sizeof *model->double_blocks); /* + 1: none at all is no failure */
    model->single_blocks = calloc(singles + 1, sizeof *model->single_blocks);
    if (!model->double_blocks || !model->single_blocks) {
        zi_binder_finish(binder, NULL, NULL);
        zi_flux2_dit_free(model);
        return zi_fail_memory(error, "the transformer's block table",
                              doubles * sizeof *model->double_blocks + singles * sizeof *model->single_blocks);
    }
    bind_all(binder, model);
    zimage_status status = zi_binder_finish(binder, log, error);
    if (status == ZIMAGE_OK)
        cut_all(model);
    else
        zi_flux2_dit_free(model);
    return status;
}

void zi_flux2_dit_free(zi_flux2_dit *model)
{
    free(model->double_blocks);
    free(model->single_blocks);
    memset(model, 0, sizeof *model);
}

/* ---- progress ---------------------------------------------------------------------------------------------------- */

int64_t zi_flux2_dit_context_blocks(const zi_flux2_dit *model)
{
    return 1;
}

int64_t zi_flux2_dit_prepare_blocks(const zi_flux2_dit *model, const zi_flux2_references *references)
{
    int pass = references != NULL && references->count > 0 && references->once;
    return pass ? model->config.num_layers + model->config.num_single_layers : 0;
}

int64_t zi_flux2_dit_forward_blocks(const zi_flux2_dit *model)
{
    return 3 + model->config.num_layers + model->config.num_single_layers; /* modulation, x_embedder, ..., proj_out */
}
