/*
 * A stack of memory: allocations are released together, back to a mark. Chunks that a release empties go back to the
 * system, so the resident size follows the work; only the largest is kept for the next allocation (and that too is
 * given up before the arena would grow, or when nothing is in use), so that a loop does not fault its pages in again.
 * Not thread-safe. Every block is 64-byte aligned and NOT cleared.
 */
#ifndef ZI_BASE_ARENA_H
#define ZI_BASE_ARENA_H

#include "base/error.h"

typedef struct zi_arena zi_arena;

typedef struct zi_arena_mark {
    void *chunk;
    size_t used;   /* of that chunk */
    size_t in_use; /* of the arena */
} zi_arena_mark;

zi_arena *zi_arena_new(void); /* NULL: out of memory */
/* An arena that only counts, to find out how much memory a job takes: blocks of more than ZI_ARENA_REAL_BYTES have an
 * address that must never be read or written. */
#define ZI_ARENA_REAL_BYTES ((size_t)64 << 10)
zi_arena *zi_arena_new_imaginary(void);
void zi_arena_free(zi_arena *arena);
void *zi_arena_alloc(zi_arena *arena, size_t bytes); /* NULL: out of memory */
zi_arena_mark zi_arena_get_mark(const zi_arena *arena);
void zi_arena_release(zi_arena *arena, zi_arena_mark mark);
size_t zi_arena_peak(const zi_arena *arena); /* most bytes in use at once since the start, or since the last reset */
void zi_arena_reset_peak(zi_arena *arena);

#endif
