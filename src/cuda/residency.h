/*
 * Which weights stay on the card, and how the others pass through it: what residency.c (sending, in the order of use) and
 * arrange.c (dividing the memory) share.
 */
#ifndef ZI_CUDA_RESIDENCY_H
#define ZI_CUDA_RESIDENCY_H

#include "cuda/internal.h"

#define ZI_LOADS 1024 /* on their way at a time */

/* A weight on its way: straight to where it stays, or to a slot of the ring, where it is read or formed. */
struct zi_cuda_load {
    zi_upload upload;
    zi_cuda_weight *weight;
    uint8_t *stored; /* where it arrives */
    size_t slot;     /* bytes of the ring; 0: none */
    enum { ZI_LOAD_WAITS, ZI_LOAD_IN_USE, ZI_LOAD_DONE } state;
    cudaEvent_t released; /* the card has read it; valid once it is done */
};

/* Weights in the order in which a stage reads them, each with the number of its operation. */
typedef struct zi_cuda_use {
    zi_cuda_weight *weight;
    int64_t operation;
} zi_cuda_use;

typedef struct zi_cuda_stage {
    zi_cuda_use *uses;
    int count, capacity;
} zi_cuda_stage;

/* A place in a job: a use in one of the times of a turn. */
typedef struct zi_cuda_cursor {
    int turn, time, use;
} zi_cuda_cursor;

struct zi_cuda_residency {
    /* Rehearsals. */
    zi_cuda_stage stages[ZI_MEMORY_STAGES], noted;
    int64_t operation;
    zi_cuda_stack set_aside; /* the real stack, during a rehearsal */
    /* The arrangement. */
    int arranged;
    zi_memory_turn *turns;
    int turn_count;
    uint8_t *slab, *ring; /* weights that stay; the others */
    size_t slab_bytes, ring_bytes;
    /* The job: what is read next, what is sent next. */
    zi_cuda_cursor now, ahead;
    zi_cuda_load *loads;  /* [ZI_LOADS], number i at i % ZI_LOADS */
    int64_t first, last;  /* those that are on their way, or whose slots are not free yet */
    int64_t first_unused; /* of them: those from here on wait */
    size_t head;          /* of the ring, behind the newest slot */
    int in_use;
    int64_t sent;           /* ever */
    cudaEvent_t stack_free; /* what lies on the stack may be written by a load */
};

/* The weight there, or NULL: the job has ended. Steps over turns without uses. */
zi_cuda_weight *zi_cuda_use_at(const zi_cuda_residency *r, zi_cuda_cursor *cursor);
/* No weight is on the card any more. */
void zi_cuda_arrangement_drop(zi_cuda *cuda);
/* Forgets what waits to be read. */
void zi_cuda_loads_cancel(zi_cuda *cuda);
/* Sends what the job reads next as far as there is room. */
zimage_status zi_cuda_read_ahead(zi_cuda *cuda);
/* Notes a use in a rehearsal. */
zimage_status zi_cuda_note_use(zi_cuda *cuda, zi_cuda_weight *weight, void **data);

#endif
