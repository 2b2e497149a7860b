/* Shapes of tensors and of operations' arguments, for every backend. */
#ifndef ZI_OPS_SHAPES_H
#define ZI_OPS_SHAPES_H

#include "ops/ops.h"

/* The size of the last dimension, and how many rows of that size there are. */
int64_t zi_features(const zi_tensor *x);
int64_t zi_row_count(const zi_tensor *x);
/* A dense tensor without memory; ZIMAGE_ERROR_MEMORY if its size in bytes does not fit into an int64_t. */
zimage_status zi_check_tensor(zi_run *run, zi_tensor *tensor, zi_dtype dtype, int dims, const int64_t *shape);
/* A sequence of an attention: its rows in q and o, and those in k and v that its queries see. */
typedef struct zi_sequence {
    int64_t query, queries, key, keys;
} zi_sequence;
int zi_sequence_count(const zi_attention *attention);
/* Asserts that all sequences together have the rows of q and k. */
zi_sequence zi_sequence_of(const zi_attention *attention, const zi_tensor *q, const zi_tensor *k, int index);
/* Assert the shapes of patchify and unpatchify, and of a convolution (ops.h). */
void zi_check_patches(const zi_tensor *tokens, const zi_tensor *latents, int64_t patch);
void zi_check_conv(const zi_tensor *y, const zi_tensor *x, const zi_conv *conv);

#endif
