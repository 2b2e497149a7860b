#include "base/arena.h"

#include <assert.h>
#include <stdint.h>
#include <stdlib.h>

#if defined(__linux__)
#include <sys/mman.h>
#endif

#if defined(__has_feature)
#if __has_feature(address_sanitizer)
#define ZI_ASAN 1
#endif
#elif defined(__SANITIZE_ADDRESS__)
#define ZI_ASAN 1
#endif

/* Under AddressSanitizer all memory outside of blocks is poisoned, and a gap follows each block. */
#ifdef ZI_ASAN
#include <sanitizer/asan_interface.h>
#define GAP 64
#else
#define GAP                               0
#define ASAN_POISON_MEMORY_REGION(p, n)   ((void)(p), (void)(n))
#define ASAN_UNPOISON_MEMORY_REGION(p, n) ((void)(p), (void)(n))
#endif

#define ALIGNMENT 64
/*
 * Larger than any block that glibc's malloc takes from its heap. So chunks are mapped: they cost nothing before their
 * first use, and free gives them back to the system.
 */
#define CHUNK_BYTES ((size_t)64 << 20)
#define HUGE_PAGE   ((uintptr_t)2 << 20)

typedef struct chunk {
    struct chunk *below;
    size_t capacity; /* bytes of data */
    size_t used;
} chunk;

struct zi_arena {
    chunk *top;
    chunk *spare; /* the largest emptied chunk */
    size_t in_use;
    size_t peak;
    int imaginary;
};

static_assert(sizeof(chunk) <= ALIGNMENT, "the data of a chunk starts one alignment after its head");

static uint8_t *chunk_data(chunk *c)
{
    return (uint8_t *)c + ALIGNMENT;
}

/* A hint to the system: the first use of 2 MiB then takes one page fault instead of 512. */
static void use_huge_pages(chunk *c)
{
#if defined(__linux__) && defined(MADV_HUGEPAGE)
    uintptr_t begin = ((uintptr_t)c + HUGE_PAGE - 1) / HUGE_PAGE * HUGE_PAGE;
    uintptr_t end = ((uintptr_t)chunk_data(c) + c->capacity) / HUGE_PAGE * HUGE_PAGE;
    if (begin < end)
        (void)madvise((void *)begin, end - begin, MADV_HUGEPAGE);
#else
    (void)c;
#endif
}

static chunk *chunk_new(size_t capacity)
{
    chunk *c = aligned_alloc(ALIGNMENT, ALIGNMENT + capacity);
    if (!c)
        return NULL;
    c->below = NULL;
    c->capacity = capacity;
    c->used = 0;
    use_huge_pages(c);
    ASAN_POISON_MEMORY_REGION(chunk_data(c), capacity);
    return c;
}

static void chunk_free(chunk *c)
{
    if (c)
        ASAN_UNPOISON_MEMORY_REGION(chunk_data(c), c->capacity);
    free(c);
}

static void push_chunk(zi_arena *arena, chunk *c)
{
    c->below = arena->top;
    c->used = 0;
    arena->top = c;
}

static void pop_chunk(zi_arena *arena)
{
    chunk *c = arena->top;
    arena->top = c->below;
    ASAN_POISON_MEMORY_REGION(chunk_data(c), c->capacity);
    if (arena->spare && arena->spare->capacity >= c->capacity) {
        chunk_free(c);
    } else {
        chunk_free(arena->spare);
        arena->spare = c;
    }
}

/* Puts a chunk with room for `bytes` on top; 0: out of memory. */
static int grow(zi_arena *arena, size_t bytes)
{
    chunk *c = arena->spare;
    arena->spare = NULL;
    if (c && c->capacity < bytes) {
        chunk_free(c);
        c = NULL;
    }
    if (!c)
        c = chunk_new(bytes > CHUNK_BYTES ? bytes : CHUNK_BYTES);
    if (c)
        push_chunk(arena, c);
    return c != NULL;
}

zi_arena *zi_arena_new(void)
{
    return calloc(1, sizeof(zi_arena));
}

zi_arena *zi_arena_new_imaginary(void)
{
    zi_arena *arena = zi_arena_new();
    if (arena)
        arena->imaginary = 1;
    return arena;
}

void zi_arena_free(zi_arena *arena)
{
    if (!arena)
        return;
    while (arena->top)
        pop_chunk(arena);
    chunk_free(arena->spare);
    free(arena);
}

static void count_block(zi_arena *arena, size_t bytes)
{
    arena->in_use += bytes;
    if (arena->in_use > arena->peak)
        arena->peak = arena->in_use;
}

void *zi_arena_alloc(zi_arena *arena, size_t bytes)
{
    if (bytes > SIZE_MAX / 2)
        return NULL;
    size_t rounded = bytes ? (bytes + ALIGNMENT - 1) / ALIGNMENT * ALIGNMENT : ALIGNMENT;
    if (arena->imaginary && bytes > ZI_ARENA_REAL_BYTES) {
        count_block(arena, rounded);
        return (void *)(uintptr_t)ALIGNMENT; /* in the first page, which no process may touch */
    }
    chunk *top = arena->top;
    if (!top || top->capacity - top->used < rounded + GAP) {
        if (!grow(arena, rounded + GAP))
            return NULL;
        top = arena->top;
    }
    void *block = chunk_data(top) + top->used;
    top->used += rounded + GAP;
    count_block(arena, rounded);
    ASAN_UNPOISON_MEMORY_REGION(block, bytes);
    return block;
}

zi_arena_mark zi_arena_get_mark(const zi_arena *arena)
{
    return (zi_arena_mark){arena->top, arena->top ? arena->top->used : 0, arena->in_use};
}

void zi_arena_release(zi_arena *arena, zi_arena_mark mark)
{
    while (arena->top && arena->top != mark.chunk)
        pop_chunk(arena);
    if (arena->top) {
        arena->top->used = mark.used;
        ASAN_POISON_MEMORY_REGION(chunk_data(arena->top) + mark.used, arena->top->capacity - mark.used);
    } else {
        chunk_free(arena->spare);
        arena->spare = NULL;
    }
    arena->in_use = mark.in_use;
}

size_t zi_arena_peak(const zi_arena *arena)
{
    return arena->peak;
}

void zi_arena_reset_peak(zi_arena *arena)
{
    arena->peak = arena->in_use;
}
