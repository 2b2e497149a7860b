/* Entries of the table (ops.h says what they compute) that have files of their own: linear.c, attention.c, ... */
#ifndef ZI_CUDA_ENTRIES_H
#define ZI_CUDA_ENTRIES_H

#include "ops/ops.h"

zimage_status zi_cuda_linear(zi_ops *ops, zi_tensor *y, const zi_tensor *x, const zi_weight *weight,
                             const zi_weight *bias, int accumulate);
zimage_status zi_cuda_linears(zi_ops *ops, int count, zi_tensor *y, const zi_tensor *x,
                              const zi_weight *const *weights);
zimage_status zi_cuda_linear_glu(zi_ops *ops, zi_tensor *y, const zi_tensor *x, const zi_weight *w1,
                                 const zi_weight *w3);
zimage_status zi_cuda_attention(zi_ops *ops, zi_tensor *o, const zi_tensor *q, const zi_tensor *k, const zi_tensor *v,
                                const zi_attention_shape *shape);
zimage_status zi_cuda_conv2d(zi_ops *ops, zi_tensor *y, const zi_tensor *x, const zi_conv *conv);

extern const zi_ops_memory zi_cuda_ops_memory; /* arrange.c */

#endif
