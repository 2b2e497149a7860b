/*
 * What every backend in host memory shares: tensors on a zi_arena, rehearsal on an imaginary one, moving data, and the
 * operations that only rearrange or touch a few elements, which need no version for each instruction set.
 */
#ifndef ZI_OPS_HOST_H
#define ZI_OPS_HOST_H

#include "ops/shapes.h"

/* A backend in host memory: its own state follows this head. */
typedef struct zi_host_ops {
    zi_ops ops;
    zi_arena *arena;
    zi_arena *real; /* the arena during a rehearsal, when `arena` is an imaginary one; else NULL */
} zi_host_ops;

/* Cleared memory of `bytes` (the backend's own struct, at least a zi_host_ops) with an arena. */
zimage_status zi_host_ops_new(const zi_ops_table *table, size_t bytes, zi_ops **ops, zimage_error *error);
void zi_host_ops_free(zi_ops *ops);

/* Whether operations must not touch tensors' data: see rehearse_begin in ops.h. */
static inline int zi_host_rehearses(const zi_run *run)
{
    return ((const zi_host_ops *)run->ops)->real != NULL;
}

/* 64-byte aligned floats above the arena's mark; `what` names the buffer in the error. Pair with mark and release. In a
 * rehearsal a buffer of more than ZI_ARENA_REAL_BYTES (arena.h) must not be touched. */
zimage_status zi_host_floats(zi_run *run, int64_t count, const char *what, float **data);
/* A weight vector as float32 in the arena. */
zimage_status zi_host_vector(zi_run *run, const zi_weight *weight, float **data);

/* Entries of the table. The counting backend uses those that need neither an arena nor data. */
zi_op_alloc zi_host_alloc;
zi_op_alloc_operand zi_host_alloc_operand; /* a plain tensor */
zi_op_mark zi_host_mark;
zi_op_release zi_host_release;
zi_op_upload zi_host_upload;
zi_op_download zi_host_download;
zi_op_download_rgb8 zi_host_download_rgb8;
zi_op_copy zi_host_copy;
zi_op_embed_rows zi_host_embed_rows;
zi_op_rope_table zi_host_rope_table;
zi_op_modulation zi_host_modulation;
zi_op_patchify zi_host_patchify;
zi_op_unpatchify zi_host_unpatchify;
zi_op_group_norm_fold zi_host_group_norm_fold;
zi_op_name_check zi_host_name_check;
zi_op_finish zi_host_finish;
zi_op_repeat zi_host_repeat;
zi_op_rehearse_begin zi_host_rehearse_begin;
zi_op_rehearse_stage zi_host_rehearse_stage;
zi_op_rehearse_end zi_host_rehearse_end;
zi_op_arrange zi_host_arrange;
zi_op_forget_weights zi_host_forget_weights;
size_t zi_host_peak_bytes(const zi_ops *ops);
double zi_host_peak_rate(zi_run *run);
zimage_status zi_one_device(zi_run *run, size_t bytes, double *seconds); /* exchange_seconds */
size_t zi_host_device_bytes(zi_ops *ops);
size_t zi_host_whole_image_bytes(const zi_ops *ops);
zi_graph_info zi_host_graph_info(zi_ops *ops);
zi_batch zi_host_suits_batch(const zi_ops *ops, int64_t fewest, int64_t most); /* always */

/* These entries in the initialiser of a table; the backend adds its own. */
#define ZI_HOST_OPERATIONS                                                                                             \
    .memory = ZI_MEMORY_HOST, .alloc = zi_host_alloc, .alloc_f32 = zi_host_alloc, .mark = zi_host_mark,                \
    .release = zi_host_release, .upload = zi_host_upload, .download = zi_host_download,                                \
    .download_rgb8 = zi_host_download_rgb8, .copy = zi_host_copy, .embed_rows = zi_host_embed_rows,                    \
    .rope_table = zi_host_rope_table, .modulation = zi_host_modulation, .patchify = zi_host_patchify,                  \
    .unpatchify = zi_host_unpatchify, .group_norm_fold = zi_host_group_norm_fold, .name_check = zi_host_name_check,    \
    .finish = zi_host_finish, .repeat = zi_host_repeat, .rehearse_begin = zi_host_rehearse_begin,                      \
    .rehearse_stage = zi_host_rehearse_stage, .rehearse_end = zi_host_rehearse_end, .arrange = zi_host_arrange,        \
    .forget_weights = zi_host_forget_weights, .exchange_seconds = zi_one_device, .peak_bytes = zi_host_peak_bytes,     \
    .device_bytes = zi_host_device_bytes, .whole_image_bytes = zi_host_whole_image_bytes,                              \
    .graph_info = zi_host_graph_info

/* Float32 pixels as bytes: see download_rgb8. */
void zi_to_rgb8(const float *x, size_t count, uint8_t *rgb8);
/* The sums that group_norm_sums keeps in its tensor: [groups][2] in float64, cleared unless accumulate. */
double *zi_host_sums(zi_run *run, zi_tensor *sums, int accumulate);

#endif
