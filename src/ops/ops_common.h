/*
 * What every table in host memory shares: tensors on a zi_arena, moving data in and out, and the operations that only
 * rearrange or touch a few numbers, where no processor needs its own version.
 */
#ifndef ZI_OPS_OPS_COMMON_H
#define ZI_OPS_OPS_COMMON_H

#include "ops/ops.h"

/* A host table's context starts with this. */
typedef struct zi_host_ops {
    zi_ops ops;
    zi_arena *arena;
} zi_host_ops;

/* Cleared memory of `bytes` (the table's own struct, at least a zi_host_ops) with an arena. */
zimage_status zi_host_ops_new(const zi_ops_table *table, size_t bytes, zi_ops **ops, zimage_error *error);
void zi_host_ops_free(zi_ops *ops);

/* 64-byte aligned floats above the arena's mark; `what` names the buffer in the error. Pair with mark and release. */
zimage_status zi_host_floats(zi_ops *ops, int64_t count, const char *what, float **data);
/* A weight vector as float32 in the arena. */
zimage_status zi_host_vector(zi_ops *ops, const zi_weight *weight, float **data);

/* Entries of the table. */
zimage_status zi_host_alloc(zi_ops *ops, zi_tensor *tensor, int dims, const int64_t *shape);
zi_arena_mark zi_host_mark(zi_ops *ops);
void zi_host_release(zi_ops *ops, zi_arena_mark mark);
/* A tensor without data; its size is checked. */
zimage_status zi_describe_tensor(zi_ops *ops, zi_tensor *tensor, zi_dtype dtype, int dims, const int64_t *shape);
zimage_status zi_host_alloc_operand(zi_ops *ops, zi_tensor *x, int64_t rows, int64_t columns, const zi_weight *w);
zimage_status zi_host_upload(zi_ops *ops, zi_tensor *dst, const float *src);
zimage_status zi_host_download(zi_ops *ops, float *dst, const zi_tensor *src);
/* table.download_rgb8 of numbers on the host (spec 6). */
void zi_to_rgb8(const float *x, size_t count, uint8_t *rgb8);
zimage_status zi_host_download_rgb8(zi_ops *ops, uint8_t *dst, const zi_tensor *src);
zimage_status zi_host_copy(zi_ops *ops, zi_tensor *dst, const zi_tensor *src);
zimage_status zi_host_embed_rows(zi_ops *ops, zi_tensor *y, const zi_weight *table, const int32_t *ids);
zimage_status zi_host_rope_table(zi_ops *ops, zi_tensor *cos, zi_tensor *sin, const float *angles);
zimage_status zi_host_modulation(zi_ops *ops, zi_tensor *m);
zimage_status zi_host_add_one(zi_ops *ops, zi_tensor *y, const zi_tensor *x);
zimage_status zi_host_patchify(zi_ops *ops, zi_tensor *tokens, const zi_tensor *latents, int64_t patch);
zimage_status zi_host_unpatchify(zi_ops *ops, zi_tensor *latents, const zi_tensor *tokens, int64_t patch);
zimage_status zi_host_group_norm_fold(zi_ops *ops, zi_channel_affine *affine, const zi_tensor *sums, int64_t count,
                                      const zi_weight *w, const zi_weight *b, float eps);
/* What group_norm_sums keeps in its tensor, on the host: [groups][2]; 0 unless accumulate. */
double *zi_host_sums(zi_tensor *sums, int accumulate);

/* The size of the last dimension, and how many rows of that size there are. */
int64_t zi_features(const zi_tensor *x);
int64_t zi_row_count(const zi_tensor *x);
/* Asserts the shapes of a convolution (ops.h: zi_conv). */
void zi_check_conv(const zi_tensor *y, const zi_tensor *x, const zi_conv *conv);

#endif
