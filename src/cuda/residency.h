/*
 * Which weights stay in device memory, and how the others pass through it.
 *
 *   resident  A resident weight stays in device memory, in a slab: an allocation for the resident weights of one stage,
 *             which sessions of the same weights share (slabs.h).
 *   ring      Every other weight passes through the ring, one allocation that is used in a circle. A weight gets a slot
 *             there, one operation reads it (or makes its form from it), and then the slot is free again.
 *   load      The copy of one weight from the host. The uploader (upload.h) makes it, with threads (lanes) and pinned
 *             buffers. A load goes straight to its slab if the weight is resident and needs no other form.
 *   staging   Pinned memory for small copies that are no weights (memory.h).
 *   rehearsal The networks' code runs once without computing (rehearsal.c). That gives the peak of the stack and the
 *             order in which a stage reads its weights.
 *   arrangement  The division of the memory for a job (arrange.c), made from rehearsals.
 *
 * residency.c sends weights in the order of the job, as far ahead as slots are free. Where the job reads another weight
 * than the expected one, the loads that wait are dropped: that costs time and nothing else.
 */
#ifndef ZI_CUDA_RESIDENCY_H
#define ZI_CUDA_RESIDENCY_H

#include "cuda/internal.h"
#include "cuda/slabs.h"

#define ZI_LOADS 1024 /* under way at a time */

struct zi_cuda_load {
    zi_upload upload;
    zi_cuda_weight *weight;
    uint8_t *stored; /* where it arrives */
    size_t slot;     /* bytes of the ring; 0: none */
    enum { ZI_LOAD_WAITS, ZI_LOAD_IN_USE, ZI_LOAD_DONE } state;
    cudaEvent_t released; /* the GPU has read it; valid in ZI_LOAD_DONE */
};

/* A weight that a stage reads, with the number of the operation. */
typedef struct zi_cuda_use {
    zi_cuda_weight *weight;
    int64_t operation;
} zi_cuda_use;

typedef struct zi_cuda_stage {
    zi_cuda_use *uses; /* in the order of use */
    int count, capacity;
} zi_cuda_stage;

/* A place in a job: use number `use` in time number `time` of runs[run]. */
typedef struct zi_cuda_cursor {
    int run, time, use;
} zi_cuda_cursor;

struct zi_cuda_residency {
    /* Rehearsals. */
    zi_cuda_stage stages[ZI_STAGES_MAX], rehearsed; /* of each stage; of the stage that is being rehearsed */
    int64_t operation;                              /* how many have begun */
    zi_cuda_stack set_aside;                        /* the real stack, during a rehearsal */
    /* The arrangement. */
    int arranged;
    zi_stage_runs *runs;
    int run_count;
    zi_cuda_slabs slabs;
    int has_unoffered; /* slabs hold weights that are offered to no session yet */
    uint8_t *ring;
    size_t ring_bytes;
    /* The job. */
    zi_cuda_cursor now, ahead; /* what is read next; what is sent next */
    zi_cuda_load *loads;       /* [ZI_LOADS], number i at i % ZI_LOADS */
    int64_t first, last;       /* loads [first, last) are under way, in use, or hold slots that are not free yet */
    int64_t first_unused;      /* loads [first_unused, last) wait to be read */
    size_t head;               /* end of the newest slot of the ring */
    int in_use;                /* loads in ZI_LOAD_IN_USE */
    int64_t sent;              /* loads that were ever read */
    cudaEvent_t stack_free;    /* behind this a load may write to the stack */
};

/*
 * An operation begins: its GPU becomes the thread's current device, and weights that the operation before read may give
 * way. Every entry of the table that queues work calls this once, before it reads a weight. Entries that only allocate
 * or wait call zi_cuda_enter, those that only answer zi_cuda_state.
 */
zi_cuda *zi_cuda_begin(const zi_run *run);

zimage_status zi_cuda_residency_open(zi_cuda *cuda);
void zi_cuda_residency_close(zi_cuda *cuda);
/* The second half of zi_cuda_begin. */
void zi_cuda_residency_next(zi_cuda *cuda);
/* Brings the weight into device memory. The kernels that are queued next may read *data until the next operation begins
 * or, if the weight does not stay and needed a form, until the stack is released. */
zimage_status zi_cuda_residency_get(zi_cuda *cuda, zi_cuda_weight *weight, void **data);
/* How many weights had to be sent when they were read. */
int64_t zi_cuda_residency_sent(const zi_cuda *cuda);
/* Ends the arrangement, takes every weight out of device memory and forgets the rehearsals. Waits for the GPU. */
void zi_cuda_residency_clear(zi_cuda *cuda);

/* Ends the arrangement and takes every weight out of device memory. Waits for the GPU. */
void zi_cuda_arrangement_drop(zi_cuda *cuda);
/* Drops the loads that wait to be read. */
void zi_cuda_loads_cancel(zi_cuda *cuda);
/* Sends the weights that the job reads next as far as there is room. */
zimage_status zi_cuda_read_ahead(zi_cuda *cuda);

/* ---- rehearsal.c ------------------------------------------------------------------------------------------------- */

/* Records the use of a weight in a rehearsal; *data may not be read. */
zimage_status zi_cuda_rehearse_use(zi_cuda *cuda, zi_cuda_weight *weight, void **data);

#endif
