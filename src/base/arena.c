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
#define GAP       64
#define CHUNK_MIB 16 /* the sanitizer writes to the shadow of a whole chunk at once */
#else
#define GAP                               0
#define CHUNK_MIB                         64
#define ASAN_POISON_MEMORY_REGION(p, n)   ((void)(p), (void)(n))
#define ASAN_UNPOISON_MEMORY_REGION(p, n) ((void)(p), (void)(n))
#endif

#define ALIGNMENT 64
/*
 * Larger than any block that glibc's malloc takes from its heap. So chunks are mapped: they cost nothing before their
 * first use, and free gives them back to the system.
 */
#define CHUNK_BYTES ((size_t)CHUNK_MIB << 20)
#define HUGE_PAGE   ((uintptr_t)2 << 20)

typedef struct chunk {
    struct chunk *below;
    size_t capacity; /* bytes of data; an imaginary chunk has none */
    size_t used;
    size_t touched; /* the most that were used: the system keeps their pages until the chunk is freed */
} chunk;

/* A block of an imaginary arena that is real. */
typedef struct real_block {
    struct real_block *below;
    size_t end; /* the arena's in_use behind it */
} real_block;

struct zi_arena {
    chunk *top;
    chunk *spare;        /* the largest emptied chunk */
    size_t in_use, held; /* bytes of blocks; bytes touched of all chunks */
    size_t peak, held_peak;
    int imaginary;
    real_block *real; /* the last one */
};

static_assert(sizeof(chunk) <= ALIGNMENT, "the data of a chunk starts one alignment after its head");
static_assert(sizeof(real_block) <= ALIGNMENT, "the data of a block starts one alignment after its head");

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

/* The chunks of an imaginary arena are heads without data: they fill and empty as real ones do. */
static chunk *chunk_new(const zi_arena *arena, size_t capacity)
{
    chunk *c = aligned_alloc(ALIGNMENT, ALIGNMENT + (arena->imaginary ? 0 : capacity));
    if (!c)
        return NULL;
    *c = (chunk){.capacity = capacity};
    if (!arena->imaginary) {
        use_huge_pages(c);
        ASAN_POISON_MEMORY_REGION(chunk_data(c), capacity);
    }
    return c;
}

static void chunk_free(zi_arena *arena, chunk *c)
{
    if (!c)
        return;
    arena->held -= c->touched;
    if (!arena->imaginary)
        ASAN_UNPOISON_MEMORY_REGION(chunk_data(c), c->capacity);
    free(c);
}

static void push_chunk(zi_arena *arena, chunk *c)
{
    c->below = arena->top;
    c->used = 0;
    arena->top = c;
}

/* Behind the first `used` bytes of the chunk there are no blocks any more. */
static void set_used(const zi_arena *arena, chunk *c, size_t used)
{
    if (!arena->imaginary)
        ASAN_POISON_MEMORY_REGION(chunk_data(c) + used, c->used - used);
    c->used = used;
}

static void pop_chunk(zi_arena *arena)
{
    chunk *c = arena->top;
    arena->top = c->below;
    set_used(arena, c, 0);
    if (arena->spare && arena->spare->capacity >= c->capacity) {
        chunk_free(arena, c);
    } else {
        chunk_free(arena, arena->spare);
        arena->spare = c;
    }
}

/* Puts a chunk with room for `bytes` on top; 0: out of memory. */
static int grow(zi_arena *arena, size_t bytes)
{
    chunk *c = arena->spare;
    arena->spare = NULL;
    if (c && c->capacity < bytes) {
        chunk_free(arena, c);
        c = NULL;
    }
    if (!c)
        c = chunk_new(arena, bytes > CHUNK_BYTES ? bytes : CHUNK_BYTES);
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

/* Frees the blocks above the first `in_use` bytes. */
static void free_real_blocks(zi_arena *arena, size_t in_use)
{
    while (arena->real && arena->real->end > in_use) {
        real_block *block = arena->real;
        arena->real = block->below;
        free(block);
    }
}

void zi_arena_free(zi_arena *arena)
{
    if (!arena)
        return;
    while (arena->top)
        pop_chunk(arena);
    chunk_free(arena, arena->spare);
    free_real_blocks(arena, 0);
    free(arena);
}

/* Gaps belong to the sanitizer: they are no part of what a job takes. */
static size_t gap_of(const zi_arena *arena)
{
    return arena->imaginary ? 0 : GAP;
}

/* The place of a block in the top chunk. */
static size_t take(zi_arena *arena, size_t bytes)
{
    chunk *top = arena->top;
    size_t place = top->used;
    top->used += bytes + gap_of(arena);
    arena->in_use += bytes;
    if (top->used > top->touched) {
        arena->held += top->used - top->touched;
        top->touched = top->used;
    }
    if (arena->in_use > arena->peak)
        arena->peak = arena->in_use;
    if (arena->held > arena->held_peak)
        arena->held_peak = arena->held;
    return place;
}

/* The address of the block that was taken last from an imaginary arena. */
static void *imaginary_block(zi_arena *arena, size_t bytes)
{
    if (bytes > ZI_ARENA_REAL_BYTES)
        return (void *)(uintptr_t)ALIGNMENT; /* in the first page, which no process may touch */
    size_t rounded = (bytes + ALIGNMENT - 1) / ALIGNMENT * ALIGNMENT;
    real_block *block = aligned_alloc(ALIGNMENT, ALIGNMENT + rounded);
    if (!block)
        return NULL;
    *block = (real_block){arena->real, arena->in_use};
    arena->real = block;
    return (uint8_t *)block + ALIGNMENT;
}

void *zi_arena_alloc(zi_arena *arena, size_t bytes)
{
    if (bytes > SIZE_MAX / 2)
        return NULL;
    size_t rounded = bytes ? (bytes + ALIGNMENT - 1) / ALIGNMENT * ALIGNMENT : ALIGNMENT;
    size_t needed = rounded + gap_of(arena);
    if ((!arena->top || arena->top->capacity - arena->top->used < needed) && !grow(arena, needed))
        return NULL;
    size_t place = take(arena, rounded);
    if (arena->imaginary)
        return imaginary_block(arena, bytes);
    void *block = chunk_data(arena->top) + place;
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
        set_used(arena, arena->top, mark.used);
    } else {
        chunk_free(arena, arena->spare);
        arena->spare = NULL;
    }
    arena->in_use = mark.in_use;
    free_real_blocks(arena, mark.in_use);
}

size_t zi_arena_peak(const zi_arena *arena)
{
    return arena->peak;
}

size_t zi_arena_held_peak(const zi_arena *arena)
{
    return arena->held_peak;
}

void zi_arena_reset_peak(zi_arena *arena)
{
    arena->peak = arena->in_use;
    arena->held_peak = arena->held;
}
