/* What the networks share: reading configurations, allocating and binding in one line, linear layers, rotary position
 * embeddings. */
#ifndef ZI_MODEL_COMMON_H
#define ZI_MODEL_COMMON_H

#include "base/fields.h"
#include "ops/ops.h"
#include "weights/store.h"

#define ZI_NAME_MAX 128 /* tensor name prefixes are short: "noise_refiner.1023.attention." */

/* Fail with ZIMAGE_ERROR_UNSUPPORTED unless the field has the only supported value. A missing field has it. */
zimage_status zi_require_string(const zi_json_reader *json, const char *field, const char *only);
zimage_status zi_require_bool(const zi_json_reader *json, const char *field, int only);
zimage_status zi_require_null(const zi_json_reader *json, const char *field);
/* The name of an activation: "silu", or "swish", which is the same function; capital letters are small ones. */
zimage_status zi_require_silu(const zi_json_reader *json, const char *field);

zimage_status zi_alloc1(zi_run *run, zi_tensor *tensor, int64_t count);
zimage_status zi_alloc2(zi_run *run, zi_tensor *tensor, int64_t rows, int64_t columns);
zimage_status zi_alloc3(zi_run *run, zi_tensor *tensor, int64_t rows, int64_t columns, int64_t channels);
/* Float32 in every backend (ops.h). */
zimage_status zi_alloc1_f32(zi_run *run, zi_tensor *tensor, int64_t count);
zimage_status zi_alloc2_f32(zi_run *run, zi_tensor *tensor, int64_t rows, int64_t columns);
zimage_status zi_alloc3_f32(zi_run *run, zi_tensor *tensor, int64_t rows, int64_t columns, int64_t channels);

/*
 * The linear layers of every network: y = x W^T + bias (NULL: none), y += x W^T, several products of one x, and the
 * gated product y = SiLU(x W1^T) * (x W3^T). Model code calls these instead of the table, so that whatever changes a
 * layer (an adapter) has one place. Arguments as in ops.h.
 */
zimage_status zi_linear(zi_run *run, zi_tensor *y, const zi_tensor *x, const zi_weight *weight, const zi_weight *bias);
zimage_status zi_linear_add(zi_run *run, zi_tensor *y, const zi_tensor *x, const zi_weight *weight,
                            const zi_weight *bias);
zimage_status zi_linears(zi_run *run, int count, zi_tensor *y, const zi_tensor *x, const zi_weight *const *weights);
zimage_status zi_linear_glu(zi_run *run, zi_tensor *y, const zi_tensor *x, const zi_weight *w1, const zi_weight *w3);

/* y = RMS norm of x times weight (NULL: 1) and scale (NULL: 1). */
zimage_status zi_rms_norm(zi_run *run, zi_tensor *y, const zi_tensor *x, const zi_weight *weight,
                          const zi_tensor *scale, float eps);

/* Row `index` of a matrix as a vector. */
zi_tensor zi_row_vector(const zi_tensor *matrix, int64_t index);

/* Bind PREFIX NAME as [count], [out, in] or a convolution [out, in, kernel, kernel]. */
void zi_bind_vector(zi_binder *binder, const zi_weight **weight, int64_t count, const char *prefix, const char *name);
void zi_bind_matrix(zi_binder *binder, const zi_weight **weight, int64_t out, int64_t in, const char *prefix,
                    const char *name);
void zi_bind_conv(zi_binder *binder, const zi_weight **weight, int64_t out, int64_t in, int64_t kernel,
                  const char *prefix, const char *name);

/* Latents of an image that the transformer reads beside those it changes. */
typedef struct zi_reference {
    int64_t rows, columns;
    const float *latents; /* [channels, rows, columns] in host memory; NULL in a rehearsal */
} zi_reference;

/* cos and sin of each token's angles, both [tokens, head_dim / 2]. */
typedef struct zi_rope {
    zi_tensor cos, sin;
} zi_rope;

/* In place on queries [tokens, heads * head_dim] and keys, which may have fewer heads: an RMS norm of each head with a
 * weight [head_dim], then the rotation. qk, weights: first the queries', then the keys'. */
zimage_status zi_norm_and_rotate(zi_run *run, zi_tensor qk[2], const zi_weight *const weights[2], const zi_rope *rope,
                                 int64_t heads, zi_rope_layout layout, float eps);

/*
 * Forward passes of one timestep that are computed as one: a batch. The rows of the second pass lie below those of the
 * first, and linear layers, norms and gates read them all at once; only attention and positions know of the passes.
 */
#define ZI_PASSES_MAX ZI_SEQUENCES_MAX

/* joined <- rows [first[i], first[i] + rows) of x for each of `count` passes, one below the other. For one pass a view,
 * else a new tensor. */
zimage_status zi_join_rows(zi_run *run, const zi_tensor *x, int count, const int64_t *first, int64_t rows,
                           zi_tensor *joined);

/* angles [tokens, half] in host memory */
zimage_status zi_rope_from_angles(zi_run *run, zi_rope *rope, const float *angles, int64_t tokens, int64_t half);

#endif
