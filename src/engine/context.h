/* An open model: its networks bound to mapped weights, a thread pool and a table of operations. */
#ifndef ZI_ENGINE_CONTEXT_H
#define ZI_ENGINE_CONTEXT_H

#include "base/pool.h"
#include "model/qwen3.h"
#include "model/vae.h"
#include "model/zimage_dit.h"
#include "ops/ops.h"
#include "sampler/flow_match.h"
#include "text/tokenizer.h"

#define ZI_MAX_PROMPT_TOKENS 512 /* the reference's max_sequence_length, template included */

struct zimage_context {
    zi_log log;
    zi_dtype dequantize; /* what packed weights become; ZI_GROUPED: they stay */
    zi_pool *pool;
    zi_ops *ops;
    zi_store *transformer_store, *text_store, *vae_store; /* text_store NULL: no text encoder */
    zi_tokenizer *tokenizer;                              /* NULL with text_store */
    zi_dit transformer;
    zi_qwen3 text_encoder;
    zi_vae vae;
    zi_scheduler_config scheduler;
    int64_t sample_size;    /* pixels of the default picture, each way */
    uint64_t device_memory; /* most bytes of a card's to take; 0: what is free */
    size_t base_bytes;      /* of the process in memory once the model was open, before any weight was read */
};

/* Whether the folder was converted for MLX: without model_index.json, but with transformer/. */
int zi_is_conversion(const char *folder);
/* Pixels that width and height must be multiples of. */
int64_t zi_context_size_multiple(const zimage_context *context);

#endif
