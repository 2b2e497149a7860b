/* Models of published sizes with random weights, made in memory: for measuring without a download. */
#ifndef ZI_MEASURE_SYNTHETIC_H
#define ZI_MEASURE_SYNTHETIC_H

#include "base/pool.h"
#include "pipeline/model.h"

typedef struct zi_synthetic {
    const char *model;  /* "z-image-turbo", "klein-4b", "klein-9b"; or the toys "small" and "klein-small" */
    const char *format; /* "bf16", "f16", "f32", "q4", "q8" */
    int layers;         /* at most so many of each stack of layers; 0 = all */
} zi_synthetic;

/* A model with those components (bit 1 << zi_component_kind; no tokenizer: prompts come as embeddings); released with
 * zi_model_close. The pool's threads make the weights; pool NULL: for planning only, the weights take no memory. */
zimage_status zi_synthetic_new(const zi_synthetic *synthetic, unsigned components, zi_pool *pool, zi_model **model,
                               zimage_error *error);

/* ZIMAGE_ERROR_ARGUMENT: there is no such model or format. */
zimage_status zi_synthetic_check(const zi_synthetic *synthetic, zimage_error *error);

#endif
