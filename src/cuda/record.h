/* Work that comes again and again with the same tensors: recorded once as a CUDA graph for each GPU that takes part,
 * then launched as one. */
#ifndef ZI_CUDA_RECORD_H
#define ZI_CUDA_RECORD_H

#include "cuda/division.h"
#include "ops/ops.h"

typedef struct zi_cuda zi_cuda; /* internal.h */

/* GPUs that work on one job together. */
typedef struct zi_cuda_set {
    zi_cuda *cards[ZI_CARDS_MAX];
    int count;
} zi_cuda_set;

/* The arguments of zi_op_repeat. */
typedef struct zi_cuda_work_item {
    zi_run *run;
    const void *key;
    size_t size;
    zi_work_fn *work;
    const void *user;
} zi_cuda_work_item;

/* zi_op_repeat of work that queues to all GPUs of the set. */
zimage_status zi_cuda_repeat(const zi_cuda_set *set, const zi_cuda_work_item *item);
/* Recordings hold addresses of device memory: whoever frees memory that an operation used calls this (or counts a
 * change of the stack, which is part of their key). */
void zi_cuda_recordings_free(zi_cuda *cuda);

#endif
