/* What the networks share: allocating and binding in one line, and tables for rotary position embeddings. */
#ifndef ZI_MODEL_COMMON_H
#define ZI_MODEL_COMMON_H

#include "ops/ops.h"
#include "weights/store.h"

#define ZI_NAME_MAX 128 /* tensor name prefixes are short: "noise_refiner.1023.attention." */

zimage_status zi_alloc1(zi_ops *ops, zi_tensor *tensor, int64_t count);
zimage_status zi_alloc2(zi_ops *ops, zi_tensor *tensor, int64_t rows, int64_t columns);
zimage_status zi_alloc3(zi_ops *ops, zi_tensor *tensor, int64_t rows, int64_t columns, int64_t channels);
/* Float32 in every backend (ops.h). */
zimage_status zi_alloc1_f32(zi_ops *ops, zi_tensor *tensor, int64_t count);
zimage_status zi_alloc2_f32(zi_ops *ops, zi_tensor *tensor, int64_t rows, int64_t columns);
zimage_status zi_alloc3_f32(zi_ops *ops, zi_tensor *tensor, int64_t rows, int64_t columns, int64_t channels);

/* Row `index` of a matrix as a vector. */
zi_tensor zi_row_vector(const zi_tensor *matrix, int64_t index);

/* Bind PREFIX NAME as [count], [out, in] or a convolution [out, in, kernel, kernel]. */
void zi_bind_vector(zi_binder *binder, const zi_weight **weight, int64_t count, const char *prefix, const char *name);
void zi_bind_matrix(zi_binder *binder, const zi_weight **weight, int64_t out, int64_t in, const char *prefix,
                    const char *name);
void zi_bind_conv(zi_binder *binder, const zi_weight **weight, int64_t out, int64_t in, int64_t kernel,
                  const char *prefix, const char *name);

/* cos and sin of each token's angles, both [tokens, head_dim / 2]. */
typedef struct zi_rope {
    zi_tensor cos, sin;
} zi_rope;

/* angles [tokens, half] on the host */
zimage_status zi_rope_from_angles(zi_ops *ops, zi_rope *rope, const float *angles, int64_t tokens, int64_t half);

#endif
