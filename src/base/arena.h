/*
 * A stack of memory: a release gives back all blocks since a mark. Blocks are aligned to 64 bytes and NOT cleared. An
 * arena belongs to one thread at a time.
 *
 * Blocks lie in chunks of 64 MiB or more. A chunk that a release empties goes back to the system, so that the resident
 * memory follows the work. The largest empty chunk stays as a spare, so that a loop does not fault its pages in each
 * time; it goes back, too, when no block is in use, or before the arena gets a larger chunk.
 */
#ifndef ZI_BASE_ARENA_H
#define ZI_BASE_ARENA_H

#include "base/error.h"

typedef struct zi_arena zi_arena;

typedef struct zi_arena_mark {
    void *chunk;
    size_t used;   /* bytes of that chunk */
    size_t in_use; /* bytes of the arena */
} zi_arena_mark;

zi_arena *zi_arena_new(void); /* NULL: out of memory */
/*
 * An arena that only counts, to find out how much memory a job takes; its chunks fill and empty as real ones do. The
 * address of a block of more than ZI_ARENA_REAL_BYTES must never be read or written; smaller blocks are real. NULL: out
 * of memory.
 */
#define ZI_ARENA_REAL_BYTES ((size_t)64 << 10)
zi_arena *zi_arena_new_imaginary(void);
void zi_arena_free(zi_arena *arena);
void *zi_arena_alloc(zi_arena *arena, size_t bytes); /* NULL: out of memory */
zi_arena_mark zi_arena_get_mark(const zi_arena *arena);
/*
 * Gives back the blocks that were allocated after the mark. Marks are released in the opposite order of their making.
 */
void zi_arena_release(zi_arena *arena, zi_arena_mark mark);
size_t zi_arena_peak(const zi_arena *arena); /* the most bytes in use at once since the start or the last reset */
/* The same of the bytes that the arena keeps from the system: blocks, and what they left behind in chunks that stay. */
size_t zi_arena_held_peak(const zi_arena *arena);
void zi_arena_reset_peak(zi_arena *arena);

#endif
