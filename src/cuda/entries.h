/* Entries of the table (ops.h says what they do) that have files of their own. */
#ifndef ZI_CUDA_ENTRIES_H
#define ZI_CUDA_ENTRIES_H

#include "ops/ops.h"

zi_op_alloc_operand zi_cuda_op_alloc_operand; /* operand.c */
zi_op_alloc_operand_parts zi_cuda_op_alloc_operand_parts;
zi_op_linear zi_cuda_op_linear;                 /* linear.c */
zi_op_linears zi_cuda_op_linears;               /* linear.c */
zi_op_linear_glu zi_cuda_op_linear_glu;         /* linear.c */
zi_op_norm zi_cuda_op_norm;                     /* norms.c */
zi_op_residual zi_cuda_op_residual;             /* norms.c */
zi_op_attention zi_cuda_op_attention;           /* attention.c */
zi_op_conv2d zi_cuda_op_conv2d;                 /* convolutions.c */
zi_op_check_finite zi_cuda_op_check_finite;     /* checks.c */
zi_op_name_check zi_cuda_op_name_check;         /* checks.c */
zi_op_finish zi_cuda_op_finish;                 /* checks.c */
zi_op_repeat zi_cuda_op_repeat;                 /* record.c */
zi_op_rehearse_begin zi_cuda_op_rehearse_begin; /* rehearsal.c */
zi_op_rehearse_stage zi_cuda_op_rehearse_stage; /* rehearsal.c */
zi_op_rehearse_end zi_cuda_op_rehearse_end;     /* rehearsal.c */
zi_op_arrange zi_cuda_op_arrange;               /* arrange.c */
/* table.c: group_norm_fold of the sum of `parts` sums [groups, 2], in float64, which lie one behind the other. */
zimage_status zi_cuda_fold_parts(zi_run *run, zi_channel_affine *affine, const double *sums, int parts, int64_t groups,
                                 int64_t count, const zi_weight *w, const zi_weight *b, float eps);

#endif
