/* Work that comes again and again with the same tensors: recorded once as a CUDA graph, then launched as one. */
#ifndef ZI_CUDA_RECORD_H
#define ZI_CUDA_RECORD_H

#include "ops/ops.h"

typedef struct zi_cuda zi_cuda; /* internal.h */

/* Recordings hold addresses of device memory: whoever frees memory that an operation used calls this (or counts a
 * change of the stack, which is part of their key). */
void zi_cuda_recordings_free(zi_cuda *cuda);

#endif
