/* What cuDNN computes, if it has a plan for the sizes: else *done is 0, and nothing was computed. bf16 only. */
#ifndef ZI_CUDA_GRAPHS_H
#define ZI_CUDA_GRAPHS_H

#include "cuda/internal.h"

/* Not causal ones. */
zimage_status zi_cuda_graph_attention(zi_cuda *cuda, const zi_cuda_attention *args, int *done);
/* x as zi_cuda_conv says; filter as ZI_FORM_FILTER. */
zimage_status zi_cuda_graph_conv(zi_cuda *cuda, zi_tensor *y, const void *x, const void *filter,
                                 const zi_cuda_conv *sizes, int *done);
void zi_cuda_graphs_free(zi_cuda *cuda);

#endif
