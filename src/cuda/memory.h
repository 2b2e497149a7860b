/* Device memory: a stack for tensors, memory of its own for what stays, and the way from the host into it. */
#ifndef ZI_CUDA_MEMORY_H
#define ZI_CUDA_MEMORY_H

#include <cuda_runtime_api.h>

#include "ops/ops.h"

typedef struct zi_cuda zi_cuda; /* internal.h */

typedef struct zi_cuda_chunk {
    uint8_t *data;
    size_t size, used;
} zi_cuda_chunk;

/* Device memory as a stack of chunks. Released memory may be reused at once: the stream keeps the order. */
typedef struct zi_cuda_stack {
    zi_cuda_chunk *chunks;
    int count, capacity, top; /* chunks[top] is allocated from; the chunks behind it are empty */
    size_t in_use, peak;
    uint64_t changes; /* how often a chunk was added or freed */
} zi_cuda_stack;

#define ZI_CUDA_STAGING_BYTES ((size_t)4 << 20) /* of each half */

/* Pinned host memory for small copies to the GPU: one half is filled while the other is copied. */
typedef struct zi_cuda_staging {
    uint8_t *data;
    cudaEvent_t free[2]; /* recorded behind the last copy out of each half */
    int half;
} zi_cuda_staging;

static inline size_t zi_cuda_round_up(size_t bytes)
{
    return (bytes + 255) / 256 * 256;
}

/* Makes the table's GPU the calling thread's current device. A failure shows in the next CUDA call. */
void zi_cuda_make_current(const zi_cuda *cuda);
/* The same for an entry of the table that begins; what fails from now on is reported to run->error. */
zi_cuda *zi_cuda_enter(const zi_run *run);

/* Memory on the stack, 256-byte aligned; `what` names it in the error. */
zimage_status zi_cuda_stack_alloc(zi_cuda *cuda, size_t bytes, const char *what, void **data);
/* A dense tensor on the stack. */
zimage_status zi_cuda_tensor_alloc(zi_cuda *cuda, zi_tensor *tensor, zi_dtype type, int dims, const int64_t *shape);
/* Whether both addresses lie in one allocation of the stack. */
int zi_cuda_stack_joins(const zi_cuda *cuda, const void *a, const void *b);
zi_arena_mark zi_cuda_mark(zi_cuda *cuda);
void zi_cuda_release(zi_cuda *cuda, zi_arena_mark mark);
void zi_cuda_stack_free(zi_cuda *cuda);
/* Replaces all chunks by one of that size; the stack must be empty. */
zimage_status zi_cuda_stack_reserve(zi_cuda *cuda, size_t bytes);
size_t zi_cuda_stack_bytes(const zi_cuda *cuda);
/* A stack of addresses that nobody may read or write, for rehearsals. */
zimage_status zi_cuda_stack_imaginary(zi_cuda *cuda, zi_cuda_stack *stack);

/* cudaMalloc and cudaFree within the table's limit. */
zimage_status zi_cuda_memory(zi_cuda *cuda, size_t bytes, const char *what, void **data);
void zi_cuda_memory_free(zi_cuda *cuda, void *data, size_t bytes);
/* Bytes that the table may hold now, those that it holds already included, except `lost` of them: it may let these go,
 * but nobody gets them. */
size_t zi_cuda_limit(const zi_cuda *cuda, size_t lost);

/* Queues a copy from the host to the GPU. src may be changed or freed when it returns. */
zimage_status zi_cuda_send(zi_cuda *cuda, void *dst, const void *src, size_t bytes);
/* The same in two steps, for data that is made in place: half <- ZI_CUDA_STAGING_BYTES of pinned memory to write to;
 * then queues a copy of their first bytes. */
zimage_status zi_cuda_staging_half(zi_cuda *cuda, void **half);
zimage_status zi_cuda_send_half(zi_cuda *cuda, void *dst, size_t bytes);
zimage_status zi_cuda_staging_open(zi_cuda *cuda);
void zi_cuda_staging_close(zi_cuda_staging *staging);

#endif
