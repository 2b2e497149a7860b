/* Qwen3 as a text encoder (docs/spec/text-encoder.md 1-4): some of its hidden states, side by side. None of them is the
 * last one, so the final norm is never needed. */
#ifndef ZI_MODEL_QWEN3_H
#define ZI_MODEL_QWEN3_H

#include "ops/ops.h"
#include "weights/store.h"

#define ZI_QWEN3_STATES_MAX 3

typedef struct zi_qwen3_config {
    int64_t hidden_size, intermediate_size, num_hidden_layers, num_attention_heads, num_key_value_heads, head_dim;
    int64_t vocab_size;
    double rms_norm_eps, rope_theta;
    /* Which of hidden_states are wanted: index k is the output of k layers; ascending, below num_hidden_layers. */
    int64_t states[ZI_QWEN3_STATES_MAX];
    int state_count;
} zi_qwen3_config;

typedef struct zi_qwen3_layer {
    const zi_weight *input_layernorm, *q_proj, *k_proj, *v_proj, *o_proj, *q_norm, *k_norm;
    const zi_weight *post_attention_layernorm, *gate_proj, *up_proj, *down_proj;
} zi_qwen3_layer;

typedef struct zi_qwen3 {
    zi_qwen3_config config;
    const zi_weight *embed_tokens;
    zi_qwen3_layer *layers; /* [zi_qwen3_layers(config)], owned */
} zi_qwen3;

/* From the file `path`, or where text is not NULL from that JSON text, with `path` for messages. The wanted state is
 * hidden_states[-2]; the caller may change that. */
zimage_status zi_qwen3_config_read(const char *path, const char *text, zi_qwen3_config *config, zimage_error *error);
/* Layers that lead to the wanted states: no others are bound, or run. */
static inline int64_t zi_qwen3_layers(const zi_qwen3_config *config)
{
    return config->state_count > 0 ? config->states[config->state_count - 1] : 0;
}
/* For measurements: states beyond become the output of that many layers. */
void zi_qwen3_limit_layers(zi_qwen3_config *config, int64_t layers);
/* Binds names with or without the prefix "model.". The store must outlive the model. Free with zi_qwen3_free. */
zimage_status zi_qwen3_bind(zi_qwen3 *model, const zi_qwen3_config *config, zi_store *store, const zi_log *log,
                            zimage_error *error);
void zi_qwen3_free(zi_qwen3 *model);
/*
 * out [count, state_count * hidden_size], allocated by the caller; ids are checked against vocab_size. Tokens from
 * `real` on are padding: no token sees them, but their own rows are computed.
 */
zimage_status zi_qwen3_encode(const zi_qwen3 *model, zi_run *run, const int32_t *ids, int64_t count, int64_t real,
                              zi_tensor *out);
/* Blocks that encode reports through zi_end_block, for progress. */
int64_t zi_qwen3_encode_blocks(const zi_qwen3 *model);

#endif
