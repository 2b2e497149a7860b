/*
 * Qwen3 as a text encoder. Formulas: docs/spec/text-encoder.md 3; reference: transformers,
 * models/qwen3/modeling_qwen3.py. n = tokens, D = hidden_size, H = query heads, G = key/value heads, d = head_dim, F =
 * intermediate_size.
 */
#include "model/qwen3.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "base/numbers.h"
#include "model/common.h"

#define DEFAULT_ROPE_THETA 10000.0 /* of Qwen3Config */

/* ---- configuration ----------------------------------------------------------------------------------------------- */

static zimage_status check_layer_types(const zi_json_reader *json, int64_t layers)
{
    const json_t *types = json_object_get(json->object, "layer_types");
    char text[64];
    if (!types || json_is_null(types))
        return ZIMAGE_OK;
    if (!json_is_array(types))
        return zi_fail(json->error, ZIMAGE_ERROR_MODEL, "%s: layer_types is %s, expected an array", json->path,
                       zi_json_describe(types, text, sizeof text));
    for (size_t i = 0; i < json_array_size(types); i++) {
        const char *type = json_string_value(json_array_get(types, i));
        if (!type || strcmp(type, "full_attention") != 0)
            return zi_fail(json->error, ZIMAGE_ERROR_UNSUPPORTED,
                           "%s: layer_types[%zu] is not \"full_attention\", the only supported kind", json->path, i);
    }
    if ((int64_t)json_array_size(types) != layers)
        return zi_fail(json->error, ZIMAGE_ERROR_MODEL,
                       "%s: layer_types has %zu entries, expected %lld as num_hidden_layers", json->path,
                       json_array_size(types), (long long)layers);
    return ZIMAGE_OK;
}

/*
 * What would change the mathematics and is not implemented. is_causal is no field of Qwen3Config, but the mask of
 * transformers 5 obeys it (masking_utils.py). transformers_weights names another file of weights.
 */
static zimage_status refuse_variants(const zi_json_reader *json)
{
    ZI_TRY(zi_require_string(json, "model_type", "qwen3"));
    ZI_TRY(zi_require_silu(json, "hidden_act"));
    ZI_TRY(zi_require_bool(json, "attention_bias", 0));
    ZI_TRY(zi_require_bool(json, "use_sliding_window", 0));
    ZI_TRY(zi_require_bool(json, "is_causal", 1));
    ZI_TRY(zi_require_null(json, "transformers_weights"));
    ZI_TRY(zi_require_null(json, "_use_default_values")); /* of diffusers: fields.h obeys it, transformers does not */
    return zi_refuse_quantization(json);
}

/* The type is in "rope_type", or in "type" in older files. Only "default" is supported, so both must say so. */
static zimage_status check_rope_type(const zi_json_reader *json, const char *object, const char *field)
{
    char text[64];
    const json_t *type = json_object_get(json->object, field);
    if (!type || (json_is_string(type) && strcmp(json_string_value(type), "default") == 0))
        return ZIMAGE_OK;
    return zi_fail(json->error, ZIMAGE_ERROR_UNSUPPORTED, "%s: %s: \"%s\": %s, only \"default\" is supported",
                   json->path, object, field, zi_json_describe(type, text, sizeof text));
}

/*
 * Rotary positions as RotaryEmbeddingConfigMixin of transformers 5 reads them: the object rope_scaling, which older
 * versions write, where it is not empty, otherwise the object rope_parameters. rope_theta stands in the object, or
 * beside it.
 */
static zimage_status load_rope(const zi_json_reader *json, double *theta)
{
    static const char *const per_layer[] = {"full_attention", "sliding_attention"};
    char text[64];
    const char *object = "rope_scaling";
    const json_t *rope = json_object_get(json->object, object);
    if (!rope || json_is_null(rope) || (json_is_object(rope) && json_object_size(rope) == 0))
        rope = json_object_get(json->object, object = "rope_parameters");
    if (!rope || json_is_null(rope))
        return zi_field_number(json, "rope_theta", 1.0, 1e12, DEFAULT_ROPE_THETA, theta);
    if (!json_is_object(rope))
        return zi_fail(json->error, ZIMAGE_ERROR_MODEL, "%s: %s is %s, expected an object", json->path, object,
                       zi_json_describe(rope, text, sizeof text));
    const zi_json_reader nested = {rope, json->path, json->error};
    for (size_t i = 0; i < sizeof per_layer / sizeof *per_layer; i++)
        if (json_object_get(rope, per_layer[i]))
            return zi_fail(json->error, ZIMAGE_ERROR_UNSUPPORTED,
                           "%s: %s: \"%s\" is set, only one kind of rotary positions for all layers is supported",
                           json->path, object, per_layer[i]);
    ZI_TRY(check_rope_type(&nested, object, "rope_type"));
    ZI_TRY(check_rope_type(&nested, object, "type"));
    return zi_field_number(json_object_get(rope, "rope_theta") ? &nested : json, "rope_theta", 1.0, 1e12,
                           DEFAULT_ROPE_THETA, theta);
}

static zimage_status load_heads(const zi_json_reader *json, zi_qwen3_config *config)
{
    ZI_TRY(zi_field_int(json, "num_attention_heads", 1, 4096, 32, &config->num_attention_heads));
    /* Qwen3Config: null is num_attention_heads. */
    const json_t *kv_heads = json_object_get(json->object, "num_key_value_heads");
    if (kv_heads && json_is_null(kv_heads))
        config->num_key_value_heads = config->num_attention_heads;
    else
        ZI_TRY(zi_field_int(json, "num_key_value_heads", 1, 4096, 32, &config->num_key_value_heads));
    if (config->num_attention_heads % config->num_key_value_heads != 0)
        return zi_fail(json->error, ZIMAGE_ERROR_MODEL,
                       "%s: num_key_value_heads %lld does not divide num_attention_heads %lld", json->path,
                       (long long)config->num_key_value_heads, (long long)config->num_attention_heads);
    /* Qwen3Config: a missing head_dim is 128; null is hidden_size / num_attention_heads. */
    int64_t fallback = 128;
    const json_t *head_dim = json_object_get(json->object, "head_dim");
    if (head_dim && json_is_null(head_dim)) {
        if (config->hidden_size % config->num_attention_heads != 0)
            return zi_fail(json->error, ZIMAGE_ERROR_MODEL,
                           "%s: num_attention_heads %lld does not divide hidden_size %lld and head_dim is null",
                           json->path, (long long)config->num_attention_heads, (long long)config->hidden_size);
        fallback = config->hidden_size / config->num_attention_heads;
    }
    ZI_TRY(zi_json_int(json, "head_dim", 2, 4096, &fallback, &config->head_dim));
    if (config->head_dim % 2 != 0)
        return zi_fail(json->error, ZIMAGE_ERROR_MODEL, "%s: head_dim is %lld, expected an even number", json->path,
                       (long long)config->head_dim);
    return ZIMAGE_OK;
}

/* The defaults are those of Qwen3Config. */
static zimage_status read_config(const zi_json_reader *json, void *out)
{
    zi_qwen3_config *config = out;
    ZI_TRY(refuse_variants(json));
    ZI_TRY(zi_field_int(json, "hidden_size", 1, 65536, 4096, &config->hidden_size));
    ZI_TRY(zi_field_int(json, "intermediate_size", 1, 262144, 22016, &config->intermediate_size));
    ZI_TRY(zi_field_int(json, "num_hidden_layers", 1, 1024, 32, &config->num_hidden_layers));
    ZI_TRY(check_layer_types(json, config->num_hidden_layers));
    ZI_TRY(zi_field_int(json, "vocab_size", 1, 1 << 24, 151936, &config->vocab_size));
    ZI_TRY(load_heads(json, config));
    ZI_TRY(zi_field_number(json, "rms_norm_eps", 0.0, 1.0, 1e-6, &config->rms_norm_eps));
    config->states[0] = config->num_hidden_layers - 1; /* hidden_states[-2], section 4 */
    config->state_count = 1;
    return load_rope(json, &config->rope_theta);
}

zimage_status zi_qwen3_config_read(const char *path, const char *text, zi_qwen3_config *config, zimage_error *error)
{
    return zi_config_read(path, text, read_config, config, sizeof *config, error);
}

void zi_qwen3_limit_layers(zi_qwen3_config *config, int64_t layers)
{
    for (int i = 0; i < config->state_count; i++)
        config->states[i] = zi_min_int64(config->states[i], layers);
}

/* ---- weights ----------------------------------------------------------------------------------------------------- */

static void bind_layer(zi_binder *binder, zi_qwen3_layer *layer, const zi_qwen3_config *config, const char *prefix)
{
    int64_t hidden = config->hidden_size, intermediate = config->intermediate_size;
    int64_t q_dim = config->num_attention_heads * config->head_dim;
    int64_t kv_dim = config->num_key_value_heads * config->head_dim;
    zi_bind_vector(binder, &layer->input_layernorm, hidden, prefix, "input_layernorm.weight");
    zi_bind_matrix(binder, &layer->q_proj, q_dim, hidden, prefix, "self_attn.q_proj.weight");
    zi_bind_matrix(binder, &layer->k_proj, kv_dim, hidden, prefix, "self_attn.k_proj.weight");
    zi_bind_matrix(binder, &layer->v_proj, kv_dim, hidden, prefix, "self_attn.v_proj.weight");
    zi_bind_matrix(binder, &layer->o_proj, hidden, q_dim, prefix, "self_attn.o_proj.weight");
    zi_bind_vector(binder, &layer->q_norm, config->head_dim, prefix, "self_attn.q_norm.weight");
    zi_bind_vector(binder, &layer->k_norm, config->head_dim, prefix, "self_attn.k_norm.weight");
    zi_bind_vector(binder, &layer->post_attention_layernorm, hidden, prefix, "post_attention_layernorm.weight");
    zi_bind_matrix(binder, &layer->gate_proj, intermediate, hidden, prefix, "mlp.gate_proj.weight");
    zi_bind_matrix(binder, &layer->up_proj, intermediate, hidden, prefix, "mlp.up_proj.weight");
    zi_bind_matrix(binder, &layer->down_proj, hidden, intermediate, prefix, "mlp.down_proj.weight");
}

static void bind_all(zi_binder *binder, zi_qwen3 *model, const char *prefix)
{
    char name[ZI_NAME_MAX];
    int64_t needed = zi_qwen3_layers(&model->config);
    zi_bind_matrix(binder, &model->embed_tokens, model->config.vocab_size, model->config.hidden_size, prefix,
                   "embed_tokens.weight");
    for (int64_t i = 0; i < model->config.num_hidden_layers; i++) {
        snprintf(name, sizeof name, "%slayers.%lld.", prefix, (long long)i);
        if (i < needed)
            bind_layer(binder, &model->layers[i], &model->config, name);
        else
            zi_bind_ignore(binder, name);
    }
    snprintf(name, sizeof name, "%snorm.", prefix);
    zi_bind_ignore(binder, name);
    zi_bind_ignore(binder, "lm_head.");
}

zimage_status zi_qwen3_bind(zi_qwen3 *model, const zi_qwen3_config *config, zi_store *store, const zi_log *log,
                            zimage_error *error)
{
    zi_binder *binder;
    memset(model, 0, sizeof *model);
    ZI_TRY(zi_binder_new(store, &binder, error));
    model->config = *config;
    size_t count = (size_t)zi_max_int64(zi_qwen3_layers(config), 1);
    model->layers = calloc(count, sizeof *model->layers);
    if (!model->layers) {
        zi_binder_finish(binder, NULL, NULL);
        return zi_fail_memory(error, "the text encoder's layer table", count * sizeof *model->layers);
    }
    bind_all(binder, model, zi_store_find(store, "model.embed_tokens.weight") ? "model." : "");
    zimage_status status = zi_binder_finish(binder, log, error);
    if (status != ZIMAGE_OK)
        zi_qwen3_free(model);
    return status;
}

void zi_qwen3_free(zi_qwen3 *model)
{
    free(model->layers);
    memset(model, 0, sizeof *model);
}

/* ---- forward ----------------------------------------------------------------------------------------------------- */

/*
 * Angle of pair j at position p: float32(p * w_j), w_j = float32(1 / theta^(2j/d)), everything in float32 as
 * Qwen3RotaryEmbedding computes it.
 */
static zimage_status rope_tables(const zi_qwen3 *model, zi_run *run, int64_t tokens, zi_rope *rope)
{
    int64_t half = model->config.head_dim / 2;
    if (run->ops->rehearsing)
        return zi_rope_from_angles(run, rope, NULL, tokens, half);
    size_t bytes = (size_t)(tokens * half) * sizeof(float);
    float *angles = malloc(bytes); /* [n, d/2] */
    if (!angles)
        return zi_fail_memory(run->error, "the rotary position table", bytes);
    for (int64_t j = 0; j < half; j++) {
        float exponent = (float)(2 * j) / (float)model->config.head_dim;
        float frequency = 1.0f / powf((float)model->config.rope_theta, exponent);
        for (int64_t p = 0; p < tokens; p++)
            angles[p * half + j] = (float)p * frequency;
    }
    zimage_status status = zi_rope_from_angles(run, rope, angles, tokens, half);
    free(angles);
    return status;
}

/* What all layers read. */
typedef struct token_sequence {
    zi_rope rope;
    int64_t real; /* tokens that are seen */
} token_sequence;

/* x += o_proj(softmax(q k^T / sqrt(d), causal, padding unseen) v) */
static zimage_status self_attention(const zi_qwen3 *model, const zi_qwen3_layer *layer, zi_run *run,
                                    const token_sequence *sequence, zi_tensor *x, const zi_tensor *h)
{
    const zi_ops_table *table = zi_table(run);
    const zi_qwen3_config *config = &model->config;
    const zi_attention shape = {.heads = config->num_attention_heads,
                                .kv_heads = config->num_key_value_heads,
                                .head_dim = config->head_dim,
                                .causal = 1,
                                .key_length = sequence->real};
    const zi_rope *rope = &sequence->rope;
    float eps = (float)config->rms_norm_eps;
    int64_t tokens = x->shape[0];
    const zi_weight *const weights[] = {layer->q_proj, layer->k_proj, layer->v_proj};
    const zi_weight *const norms[] = {layer->q_norm, layer->k_norm};
    zi_tensor qkv[3], *q = &qkv[0], *k = &qkv[1], *v = &qkv[2]; /* [n, H d], [n, G d], [n, G d] */
    zi_tensor o;                                                /* [n, H d] */

    ZI_TRY(zi_alloc2(run, q, tokens, shape.heads * shape.head_dim));
    ZI_TRY(zi_alloc2(run, k, tokens, shape.kv_heads * shape.head_dim));
    ZI_TRY(zi_alloc2(run, v, tokens, shape.kv_heads * shape.head_dim));
    ZI_TRY(zi_linears(run, 3, qkv, h, weights));
    ZI_TRY(zi_norm_and_rotate(run, qkv, norms, rope, shape.heads, ZI_ROPE_HALF_SPLIT, eps));
    ZI_TRY(table->alloc_operand(run, &o, tokens, shape.heads * shape.head_dim, layer->o_proj));
    ZI_TRY(table->attention(run, &o, q, k, v, &shape));
    return zi_linear_add(run, x, &o, layer->o_proj, NULL);
}

/* x += down_proj(SiLU(gate_proj h) * up_proj h) */
static zimage_status feed_forward(const zi_qwen3 *model, const zi_qwen3_layer *layer, zi_run *run, zi_tensor *x,
                                  const zi_tensor *h)
{
    zi_tensor u; /* [n, F] */
    ZI_TRY(zi_table(run)->alloc_operand(run, &u, x->shape[0], model->config.intermediate_size, layer->down_proj));
    ZI_TRY(zi_linear_glu(run, &u, h, layer->gate_proj, layer->up_proj));
    return zi_linear_add(run, x, &u, layer->down_proj, NULL);
}

static zimage_status run_layer(const zi_qwen3 *model, const zi_qwen3_layer *layer, zi_run *run,
                               const token_sequence *sequence, zi_tensor *x)
{
    const zi_ops_table *table = zi_table(run);
    float eps = (float)model->config.rms_norm_eps;
    zi_tensor h; /* [n, D] */
    zi_arena_mark mark = table->mark(run);

    ZI_TRY(table->alloc_operand(run, &h, x->shape[0], model->config.hidden_size, layer->q_proj));
    ZI_TRY(zi_rms_norm(run, &h, x, layer->input_layernorm, NULL, eps));
    ZI_TRY(self_attention(model, layer, run, sequence, x, &h));
    table->release(run, mark);

    ZI_TRY(table->alloc_operand(run, &h, x->shape[0], model->config.hidden_size, layer->gate_proj));
    ZI_TRY(zi_rms_norm(run, &h, x, layer->post_attention_layernorm, NULL, eps));
    return feed_forward(model, layer, run, x, &h);
}

/* out [n, states D] <- x [n, D] at the places of the states that are the output of so many layers; x may be out. */
static zimage_status keep_states(const zi_qwen3 *model, zi_run *run, int64_t layers, const zi_tensor *x, zi_tensor *out)
{
    int64_t hidden = model->config.hidden_size;
    for (int i = 0; x != out && i < model->config.state_count; i++) {
        zi_tensor part = zi_tensor_columns(out, i * hidden, hidden);
        if (model->config.states[i] == layers)
            ZI_TRY(zi_table(run)->copy(run, &part, x));
    }
    return ZIMAGE_OK;
}

static zimage_status encode(const zi_qwen3 *model, zi_run *run, const int32_t *ids, int64_t real, zi_tensor *out)
{
    token_sequence sequence = {.real = real};
    zi_tensor own = {0}, *x = model->config.state_count > 1 ? &own : out;
    int64_t count = out->shape[0];
    if (x != out)
        ZI_TRY(zi_alloc2(run, x, count, model->config.hidden_size));
    ZI_TRY(zi_table(run)->embed_rows(run, x, model->embed_tokens, ids));
    ZI_TRY(zi_end_block(run, x, "text_encoder embed_tokens"));
    ZI_TRY(keep_states(model, run, 0, x, out));
    ZI_TRY(rope_tables(model, run, count, &sequence.rope));
    for (int64_t i = 0; i < zi_qwen3_layers(&model->config); i++) {
        zi_arena_mark mark = zi_table(run)->mark(run);
        ZI_TRY(run_layer(model, &model->layers[i], run, &sequence, x));
        zi_table(run)->release(run, mark);
        ZI_TRY(zi_end_block(run, x, "text_encoder layers.%d", (int)i));
        ZI_TRY(keep_states(model, run, i + 1, x, out));
    }
    return ZIMAGE_OK;
}

zimage_status zi_qwen3_encode(const zi_qwen3 *model, zi_run *run, const int32_t *ids, int64_t count, int64_t real,
                              zi_tensor *out)
{
    if (count < 1 || count > 1 << 20 || real < 1 || real > count)
        return zi_fail(run->error, ZIMAGE_ERROR_ARGUMENT, "a prompt of %lld tokens can't be encoded", (long long)real);
    for (int64_t i = 0; i < count; i++)
        if (ids[i] < 0 || ids[i] >= model->config.vocab_size)
            return zi_fail(run->error, ZIMAGE_ERROR_MODEL,
                           "token %lld has id %d but the text encoder's vocab_size is %lld", (long long)i, (int)ids[i],
                           (long long)model->config.vocab_size);
    zi_arena_mark mark = zi_table(run)->mark(run);
    zimage_status status = encode(model, run, ids, real, out);
    zi_table(run)->release(run, mark);
    return status;
}

int64_t zi_qwen3_encode_blocks(const zi_qwen3 *model)
{
    return 1 + zi_qwen3_layers(&model->config);
}
