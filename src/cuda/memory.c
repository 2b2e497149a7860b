/* Device memory. */
#include "cuda/memory.h"

#include <assert.h>
#include <stdlib.h>
#include <string.h>

#include "base/numbers.h"
#include "cuda/internal.h"
#include "ops/shapes.h"

#define CHUNK_BYTES (256 * ZI_MIB)
/* Left to the driver and to libraries, which load their code when it is first used: so much, but at most 1 /
 * MARGIN_SHARE of the GPU's memory. */
#define MARGIN_BYTES (768 * ZI_MIB)
#define MARGIN_SHARE 16

void zi_cuda_make_current(const zi_cuda *cuda)
{
    (void)cudaSetDevice(cuda->device);
}

zi_cuda *zi_cuda_enter(const zi_run *run)
{
    zi_cuda *cuda = zi_cuda_state(run->ops);
    cuda->error = run->error;
    zi_cuda_make_current(cuda);
    return cuda;
}

zimage_status zi_cuda_result(zi_cuda *cuda, cudaError_t code, const char *what)
{
    if (code == cudaSuccess)
        return ZIMAGE_OK;
    (void)cudaGetLastError(); /* resets the error, unless it is sticky: the next call is judged by itself */
    return zi_fail(cuda->error, code == cudaErrorMemoryAllocation ? ZIMAGE_ERROR_MEMORY : ZIMAGE_ERROR_INTERNAL,
                   "cuda:%d: %s failed: %s", cuda->device, what, cudaGetErrorString(code));
}

size_t zi_cuda_limit(const zi_cuda *cuda, size_t lost)
{
    size_t left = 0, all = 0;
    if (cudaMemGetInfo(&left, &all) != cudaSuccess)
        (void)cudaGetLastError();
    size_t margin = zi_min_size(all / MARGIN_SHARE, MARGIN_BYTES);
    size_t possible = cuda->used - lost + (left > margin ? left - margin : 0);
    return cuda->asked > 0 && cuda->asked < possible ? (size_t)cuda->asked : possible;
}

static zimage_status refuse(zi_cuda *cuda, size_t bytes, const char *what)
{
    size_t left = 0, all = 0;
    if (cudaMemGetInfo(&left, &all) != cudaSuccess)
        (void)cudaGetLastError();
    if (cuda->limit == 0)
        return zi_fail(cuda->error, ZIMAGE_ERROR_MEMORY,
                       "cuda:%d: out of device memory: %s needs %llu MiB, %zu of %zu MiB are free", cuda->device, what,
                       zi_mib(bytes), left / ZI_MIB, all / ZI_MIB);
    return zi_fail(cuda->error, ZIMAGE_ERROR_MEMORY,
                   "cuda:%d: out of device memory: %s needs %llu MiB, %llu of the %zu MiB that may be taken are in use "
                   "(%zu of %zu MiB are free)",
                   cuda->device, what, zi_mib(bytes), zi_mib(cuda->used), cuda->limit / ZI_MIB, left / ZI_MIB,
                   all / ZI_MIB);
}

/* cudaErrorMemoryAllocation also where the limit would be exceeded. */
static cudaError_t try_memory(zi_cuda *cuda, size_t bytes, void **data)
{
    *data = NULL;
    if (cuda->limit > 0 && (cuda->used > cuda->limit || bytes > cuda->limit - cuda->used))
        return cudaErrorMemoryAllocation;
    cudaError_t code = cudaMalloc(data, bytes);
    if (code == cudaSuccess)
        cuda->used += bytes;
    else
        (void)cudaGetLastError();
    return code;
}

zimage_status zi_cuda_memory(zi_cuda *cuda, size_t bytes, const char *what, void **data)
{
    bytes = bytes > 0 ? bytes : 1;
    cudaError_t code = try_memory(cuda, bytes, data);
    return code == cudaErrorMemoryAllocation ? refuse(cuda, bytes, what) : zi_cuda_result(cuda, code, what);
}

void zi_cuda_memory_free(zi_cuda *cuda, void *data, size_t bytes)
{
    if (data == NULL)
        return;
    (void)cudaFree(data);
    cuda->used -= bytes > 0 ? bytes : 1;
}

/* ---- the stack --------------------------------------------------------------------------------------------------- */

static zimage_status make_room(zi_cuda *cuda, zi_cuda_stack *s)
{
    if (s->count < s->capacity)
        return ZIMAGE_OK;
    int capacity = s->capacity ? 2 * s->capacity : 16;
    zi_cuda_chunk *chunks = realloc(s->chunks, (size_t)capacity * sizeof(*chunks));
    if (chunks == NULL)
        return zi_fail_memory(cuda->error, "the device's stack", (size_t)capacity * sizeof(*chunks));
    s->chunks = chunks;
    s->capacity = capacity;
    return ZIMAGE_OK;
}

static zimage_status add_chunk(zi_cuda *cuda, size_t bytes, const char *what)
{
    void *data;
    ZI_TRY(make_room(cuda, &cuda->stack));
    ZI_TRY(zi_cuda_memory(cuda, bytes, what, &data));
    cuda->stack.chunks[cuda->stack.count++] = (zi_cuda_chunk){data, bytes, 0};
    cuda->stack.changes++;
    return ZIMAGE_OK;
}

/* A chunk of at least so many bytes: a large one unless the GPU is nearly full. */
static zimage_status add_any_chunk(zi_cuda *cuda, size_t bytes, const char *what)
{
    void *data;
    ZI_TRY(make_room(cuda, &cuda->stack));
    for (size_t size = CHUNK_BYTES; size > bytes; size /= 2) {
        cudaError_t code = try_memory(cuda, size, &data);
        if (code == cudaErrorMemoryAllocation)
            continue;
        ZI_TRY(zi_cuda_result(cuda, code, what));
        cuda->stack.chunks[cuda->stack.count++] = (zi_cuda_chunk){data, size, 0};
        cuda->stack.changes++;
        return ZIMAGE_OK;
    }
    return add_chunk(cuda, bytes, what);
}

/* Makes the next empty chunk that is large enough the top, and frees the smaller empty ones before it. */
static void drop_small_chunks(zi_cuda *cuda, size_t bytes)
{
    zi_cuda_stack *s = &cuda->stack;
    int first = s->count > 0 && s->chunks[s->top].used > 0 ? s->top + 1 : s->top, kept = first;
    for (; kept < s->count && s->chunks[kept].size < bytes; kept++)
        zi_cuda_memory_free(cuda, s->chunks[kept].data, s->chunks[kept].size);
    memmove(s->chunks + first, s->chunks + kept, (size_t)(s->count - kept) * sizeof(*s->chunks));
    s->count -= kept - first;
    s->changes += kept != first;
    s->top = first;
}

zimage_status zi_cuda_stack_alloc(zi_cuda *cuda, size_t bytes, const char *what, void **data)
{
    zi_cuda_stack *s = &cuda->stack;
    bytes = zi_cuda_round_up(bytes > 0 ? bytes : 1);
    *data = NULL;
    if (s->count == 0 || s->chunks[s->top].size - s->chunks[s->top].used < bytes) {
        int before = s->top;
        if (s->count > 0)
            drop_small_chunks(cuda, bytes);
        zimage_status status = s->top == s->count ? add_any_chunk(cuda, bytes, what) : ZIMAGE_OK;
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

zimage_status zi_cuda_tensor_alloc(zi_cuda *cuda, zi_tensor *tensor, zi_dtype type, int dims, const int64_t *shape)
{
    ZI_TRY(zi_check_tensor(&(zi_run){.ops = &cuda->ops, .error = cuda->error}, tensor, type, dims, shape));
    size_t bytes = (size_t)zi_tensor_count(tensor) * zi_dtype_size(type);
    return zi_cuda_stack_alloc(cuda, bytes, "a tensor", &tensor->data);
}

int zi_cuda_stack_joins(const zi_cuda *cuda, const void *a, const void *b)
{
    const zi_cuda_stack *s = &cuda->stack;
    for (int i = 0; i < s->count; i++) {
        uintptr_t first = (uintptr_t)s->chunks[i].data, last = first + s->chunks[i].size;
        if ((uintptr_t)a >= first && (uintptr_t)a < last)
            return (uintptr_t)b >= first && (uintptr_t)b < last;
    }
    return 0;
}

zi_arena_mark zi_cuda_mark(zi_cuda *cuda)
{
    zi_cuda_stack *s = &cuda->stack;
    if (s->in_use == 0) /* a new job: forget the checks of one that was abandoned */
        cuda->checks = cuda->named = 0;
    if (s->count == 0 || s->in_use == 0)
        return (zi_arena_mark){0};
    return (zi_arena_mark){s->chunks[s->top].data, s->chunks[s->top].used, s->in_use};
}

/* mark.chunk NULL: releases everything. */
void zi_cuda_release(zi_cuda *cuda, zi_arena_mark mark)
{
    zi_cuda_stack *s = &cuda->stack;
    if (s->count == 0)
        return;
    while (s->top > 0 && s->chunks[s->top].data != mark.chunk)
        s->chunks[s->top--].used = 0;
    s->chunks[s->top].used = mark.chunk == s->chunks[s->top].data ? mark.used : 0;
    s->in_use = mark.in_use;
}

static void free_chunks(zi_cuda *cuda)
{
    zi_cuda_stack *s = &cuda->stack;
    for (int i = 0; i < s->count; i++)
        zi_cuda_memory_free(cuda, s->chunks[i].data, s->chunks[i].size);
    s->changes += s->count > 0;
    s->count = s->top = 0;
}

void zi_cuda_stack_free(zi_cuda *cuda)
{
    free_chunks(cuda);
    free(cuda->stack.chunks);
    cuda->stack = (zi_cuda_stack){.changes = cuda->stack.changes};
}

zimage_status zi_cuda_stack_reserve(zi_cuda *cuda, size_t bytes)
{
    assert(cuda->stack.in_use == 0);
    free_chunks(cuda);
    return add_chunk(cuda, bytes, "activations");
}

size_t zi_cuda_stack_bytes(const zi_cuda *cuda)
{
    size_t bytes = 0;
    for (int i = 0; i < cuda->stack.count; i++)
        bytes += cuda->stack.chunks[i].size;
    return bytes;
}

zimage_status zi_cuda_stack_imaginary(zi_cuda *cuda, zi_cuda_stack *stack)
{
    *stack = (zi_cuda_stack){0};
    ZI_TRY(make_room(cuda, stack));
    stack->chunks[stack->count++] = (zi_cuda_chunk){(uint8_t *)(uintptr_t)4096, SIZE_MAX / 2, 0};
    return ZIMAGE_OK;
}

/* ---- copies from the host ---------------------------------------------------------------------------------------- */

zimage_status zi_cuda_staging_open(zi_cuda *cuda)
{
    zi_cuda_staging *s = &cuda->staging;
    ZI_CUDA_TRY(cuda, cudaMallocHost((void **)&s->data, 2 * ZI_CUDA_STAGING_BYTES), "allocating pinned memory");
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

zimage_status zi_cuda_staging_half(zi_cuda *cuda, void **half)
{
    zi_cuda_staging *s = &cuda->staging;
    ZI_CUDA_TRY(cuda, cudaEventSynchronize(s->free[s->half]), "waiting for a copy");
    *half = s->data + (size_t)s->half * ZI_CUDA_STAGING_BYTES;
    return ZIMAGE_OK;
}

zimage_status zi_cuda_send_half(zi_cuda *cuda, void *dst, size_t bytes)
{
    zi_cuda_staging *s = &cuda->staging;
    const uint8_t *half = s->data + (size_t)s->half * ZI_CUDA_STAGING_BYTES;
    ZI_CUDA_TRY(cuda, cudaMemcpyAsync(dst, half, bytes, cudaMemcpyHostToDevice, cuda->stream), "copying to the GPU");
    ZI_CUDA_TRY(cuda, cudaEventRecord(s->free[s->half], cuda->stream), "recording an event");
    s->half ^= 1;
    return ZIMAGE_OK;
}

zimage_status zi_cuda_send(zi_cuda *cuda, void *dst, const void *src, size_t bytes)
{
    void *half;
    for (size_t at = 0; at < bytes && !cuda->ops.rehearsing; at += ZI_CUDA_STAGING_BYTES) {
        size_t part = zi_min_size(bytes - at, ZI_CUDA_STAGING_BYTES);
        ZI_TRY(zi_cuda_staging_half(cuda, &half));
        memcpy(half, (const uint8_t *)src + at, part);
        ZI_TRY(zi_cuda_send_half(cuda, (uint8_t *)dst + at, part));
    }
    return ZIMAGE_OK;
}
