/* Device memory, and the way into it. */
#include <assert.h>
#include <stdlib.h>
#include <string.h>

#include "cuda/internal.h"

#define MIB           ((size_t)1 << 20)
#define ALIGNMENT     ((size_t)256)
#define CHUNK_BYTES   ((size_t)256 << 20)
#define STAGING_BYTES ((size_t)16 << 20) /* of a half */

zimage_status zi_cuda_check(zi_cuda *cuda, cudaError_t code, const char *what)
{
    if (code == cudaSuccess)
        return ZIMAGE_OK;
    (void)cudaGetLastError(); /* what can be forgotten is: the next call is judged by itself */
    return zi_fail(cuda->ops.error, code == cudaErrorMemoryAllocation ? ZIMAGE_ERROR_MEMORY : ZIMAGE_ERROR_INTERNAL,
                   "cuda:%d: %s failed: %s", cuda->device, what, cudaGetErrorString(code));
}

static size_t round_up(size_t bytes)
{
    return (bytes + ALIGNMENT - 1) / ALIGNMENT * ALIGNMENT;
}

/* After a cudaMalloc that found no room. */
static zimage_status fail_full(zi_cuda *cuda, size_t bytes, const char *what)
{
    size_t left = 0, all = 0;
    (void)cudaGetLastError();
    (void)cudaMemGetInfo(&left, &all);
    return zi_fail(cuda->ops.error, ZIMAGE_ERROR_MEMORY,
                   "cuda:%d: out of device memory: %s needs %zu MiB, %zu of %zu MiB are free", cuda->device, what,
                   (bytes + MIB - 1) / MIB, left / MIB, all / MIB);
}

zimage_status zi_cuda_memory(zi_cuda *cuda, size_t bytes, const char *what, void **data)
{
    *data = NULL;
    cudaError_t code = cudaMalloc(data, bytes > 0 ? bytes : 1);
    return code == cudaErrorMemoryAllocation ? fail_full(cuda, bytes, what) : zi_cuda_check(cuda, code, what);
}

/* ---- the stack ----------------------------------------------------------------------------------------------------- */

static zimage_status add_chunk(zi_cuda *cuda, size_t bytes, const char *what)
{
    zi_cuda_stack *s = &cuda->stack;
    if (s->count == s->capacity) {
        int capacity = s->capacity ? 2 * s->capacity : 16;
        zi_cuda_chunk *chunks = realloc(s->chunks, (size_t)capacity * sizeof(*chunks));
        if (chunks == NULL)
            return zi_fail_memory(cuda->ops.error, "the device's stack", (size_t)capacity * sizeof(*chunks));
        s->chunks = chunks;
        s->capacity = capacity;
    }
    void *data;
    size_t size = bytes > CHUNK_BYTES ? bytes : CHUNK_BYTES;
    cudaError_t code = cudaMalloc(&data, size);
    while (code == cudaErrorMemoryAllocation && size > bytes) { /* a card that is nearly full */
        (void)cudaGetLastError();
        size = size / 2 > bytes ? size / 2 : bytes;
        code = cudaMalloc(&data, size);
    }
    if (code == cudaErrorMemoryAllocation)
        return fail_full(cuda, size, what);
    ZI_CUDA_TRY(cuda, code, what);
    s->chunks[s->count++] = (zi_cuda_chunk){data, size, 0};
    s->changes++;
    return ZIMAGE_OK;
}

/* The empty chunks behind the top: those in front of one that is large enough are given back. */
static void drop_small_chunks(zi_cuda_stack *s, size_t bytes)
{
    int first = s->count > 0 && s->chunks[s->top].used > 0 ? s->top + 1 : s->top, kept = first;
    while (kept < s->count && s->chunks[kept].size < bytes)
        (void)cudaFree(s->chunks[kept++].data);
    memmove(s->chunks + first, s->chunks + kept, (size_t)(s->count - kept) * sizeof(*s->chunks));
    s->count -= kept - first;
    s->changes += kept != first;
    s->top = first;
}

zimage_status zi_cuda_stack_alloc(zi_cuda *cuda, size_t bytes, const char *what, void **data)
{
    zi_cuda_stack *s = &cuda->stack;
    bytes = round_up(bytes > 0 ? bytes : 1);
    *data = NULL;
    if (s->count == 0 || s->chunks[s->top].size - s->chunks[s->top].used < bytes) {
        int before = s->top;
        if (s->count > 0)
            drop_small_chunks(s, bytes);
        zimage_status status = s->top == s->count ? add_chunk(cuda, bytes, what) : ZIMAGE_OK;
        if (status != ZIMAGE_OK) {
            s->top = before < s->count ? before : s->count > 0 ? s->count - 1 : 0;
            return status;
        }
    }
    zi_cuda_chunk *chunk = &s->chunks[s->top];
    *data = chunk->data + chunk->used;
    chunk->used += bytes;
    s->in_use += bytes;
    if (s->in_use > s->peak)
        s->peak = s->in_use;
    return ZIMAGE_OK;
}

zi_arena_mark zi_cuda_mark(zi_ops *ops)
{
    zi_cuda *cuda = (zi_cuda *)ops;
    zi_cuda_stack *s = &cuda->stack;
    if (s->in_use == 0) /* a new job: what an abandoned one checked is nobody's */
        cuda->checks = cuda->named = 0;
    if (s->count == 0 || s->in_use == 0)
        return (zi_arena_mark){0};
    return (zi_arena_mark){s->chunks[s->top].data, s->chunks[s->top].used, s->in_use};
}

/* mark.chunk NULL: everything. */
void zi_cuda_release(zi_ops *ops, zi_arena_mark mark)
{
    zi_cuda_stack *s = &((zi_cuda *)ops)->stack;
    if (s->count == 0)
        return;
    while (s->top > 0 && s->chunks[s->top].data != mark.chunk)
        s->chunks[s->top--].used = 0;
    s->chunks[s->top].used = mark.chunk == s->chunks[s->top].data ? mark.used : 0;
    s->in_use = mark.in_use;
}

void zi_cuda_stack_free(zi_cuda_stack *stack)
{
    for (int i = 0; i < stack->count; i++)
        (void)cudaFree(stack->chunks[i].data);
    free(stack->chunks);
    *stack = (zi_cuda_stack){0};
}

/* ---- the way in ---------------------------------------------------------------------------------------------------- */

zimage_status zi_cuda_staging_open(zi_cuda *cuda)
{
    zi_cuda_staging *s = &cuda->staging;
    ZI_CUDA_TRY(cuda, cudaMallocHost((void **)&s->data, 2 * STAGING_BYTES), "allocating pinned memory");
    for (int i = 0; i < 2; i++)
        ZI_CUDA_TRY(cuda, cudaEventCreateWithFlags(&s->free[i], cudaEventDisableTiming), "making an event");
    return ZIMAGE_OK;
}

void zi_cuda_staging_close(zi_cuda_staging *s)
{
    for (int i = 0; i < 2; i++)
        if (s->free[i] != NULL)
            (void)cudaEventDestroy(s->free[i]);
    if (s->data != NULL)
        (void)cudaFreeHost(s->data);
    *s = (zi_cuda_staging){0};
}

zimage_status zi_cuda_send(zi_cuda *cuda, void *dst, const void *src, size_t bytes)
{
    zi_cuda_staging *s = &cuda->staging;
    for (size_t at = 0; at < bytes; at += STAGING_BYTES) {
        size_t part = bytes - at < STAGING_BYTES ? bytes - at : STAGING_BYTES;
        uint8_t *half = s->data + (size_t)s->half * STAGING_BYTES;
        ZI_CUDA_TRY(cuda, cudaEventSynchronize(s->free[s->half]), "waiting for a copy");
        memcpy(half, (const uint8_t *)src + at, part);
        ZI_CUDA_TRY(cuda, cudaMemcpyAsync((uint8_t *)dst + at, half, part, cudaMemcpyHostToDevice, cuda->stream),
                    "copying to the card");
        ZI_CUDA_TRY(cuda, cudaEventRecord(s->free[s->half], cuda->stream), "noting a copy");
        s->half ^= 1;
    }
    return ZIMAGE_OK;
}
