/* The clock that chooses the fastest of several algorithms. */
#ifndef ZI_CUDA_TIMING_H
#define ZI_CUDA_TIMING_H

#include "ops/ops.h"

typedef struct zi_cuda zi_cuda; /* internal.h */

/* Queues kernels. */
typedef zimage_status zi_cuda_work(const void *user);
/* Milliseconds that the GPU takes for what `work` queues: the mean of a few runs after one that warms up. */
zimage_status zi_cuda_time(zi_cuda *cuda, zi_cuda_work *work, const void *user, float *milliseconds);

#endif
