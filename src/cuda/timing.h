/* The clock that chooses the fastest of several algorithms. */
#ifndef ZI_CUDA_TIMING_H
#define ZI_CUDA_TIMING_H

#include "ops/ops.h"

typedef struct zi_cuda zi_cuda; /* internal.h */

/* Queues kernels. */
typedef zimage_status zi_cuda_work(const void *user);
/* Milliseconds that the GPU takes for what `work` queues: the mean of a few runs after one that warms up. */
zimage_status zi_cuda_time(zi_cuda *cuda, zi_cuda_work *work, const void *user, float *milliseconds);

/* One of several ways to compute the same. */
typedef struct zi_cuda_way {
    zi_cuda_work *work;
    const void *user;
} zi_cuda_way;
#define ZI_CUDA_WAYS_MAX 16

/* best <- the fastest of `count` ways (at most ZI_CUDA_WAYS_MAX), by their times in several rounds. A GPU at its limit
 * of power lowers its clock while they are timed, so all take turns. A way that fails is none; if all fail, best is
 * 0. */
void zi_cuda_fastest(zi_cuda *cuda, const zi_cuda_way *ways, int count, int *best);

#endif
