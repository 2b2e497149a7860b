/* Where a job computes: the processor, or a card through libzimage-cuda, which is looked for when it is asked for. */
#ifndef ZI_ENGINE_DEVICE_H
#define ZI_ENGINE_DEVICE_H

#include "base/pool.h"
#include "cuda/cuda.h"

typedef struct zi_device_choice {
    const char *device; /* "cpu" (or NULL), "cuda", "cuda:K", or "auto": a card if one can be used */
    zimage_compute compute;
    const char *cpu_mask; /* processor only */
    uint64_t memory;      /* of a card: zimage_open_params' device_memory */
} zi_device_choice;

/* The table for a choice; the pool stays the caller's. */
zimage_status zi_device_ops(const zi_device_choice *choice, zi_pool *pool, zi_ops **ops, zimage_error *error);

/* Whether the table computes on a card. */
int zi_device_is_card(const zi_ops *ops);

/* The cards; ZIMAGE_ERROR_UNSUPPORTED says in one sentence why there is none. */
zimage_status zi_device_cards(zi_cuda_device *devices, int capacity, int *count, zimage_error *error);

#endif
