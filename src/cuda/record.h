/* Work that comes again and again with the same tensors: recorded once as a CUDA graph, then launched as one. */
#ifndef ZI_CUDA_RECORD_H
#define ZI_CUDA_RECORD_H

#include "ops/ops.h"

typedef struct zi_cuda zi_cuda; /* internal.h */

/* zi_ops.repeat. */
zimage_status zi_cuda_repeat(zi_ops *ops, const void *key, size_t size, zi_work_fn *work, const void *user);
/* Recordings hold addresses of device memory: whoever frees memory that an operation used calls this (or counts a change
 * of the stack, which is part of their key). */
void zi_cuda_recordings_free(zi_cuda *cuda);

#endif
