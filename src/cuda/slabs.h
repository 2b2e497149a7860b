/*
 * Slabs: allocations of resident weights, which the sessions of a process on one GPU share.
 *
 * A slab holds the resident weights of one stage, so that sessions of models that have only a text encoder in common
 * share that and nothing else. A session makes slabs when it arranges its memory, and fills them while it works. Once
 * its stream has been waited for, the weights that have arrived are offered to the other sessions. A session that
 * arranges its memory uses offered weights where they lie, and holds their slab; the last holder frees it. So a weight
 * is written before it is offered, and only read afterwards: no stream waits for another one.
 *
 * A slab counts as memory of its owner alone, at first the session that made it. If the owner lets it go while others
 * hold it, the first of them that arranges memory becomes the owner. Until then it counts as nobody's.
 */
#ifndef ZI_CUDA_SLABS_H
#define ZI_CUDA_SLABS_H

#include "cuda/forms.h"

/* Slabs, each with a hold. */
typedef struct zi_cuda_slabs {
    zi_cuda_slab **list;
    int count, capacity;
} zi_cuda_slabs;

/* Allocates a slab for the weights, which the session owns, adds it to `held`, and sets the weights' data and slab. */
zimage_status zi_cuda_slab_new(zi_cuda *cuda, zi_cuda_weight *const *weights, int count, zi_cuda_slabs *held);
/*
 * Sets `offered` and `offered_here` of each weight: where another session offers it, or this one in a slab that others
 * hold, too; else NULL. own 0: not in this session's own slabs. Their slabs are added to `found`.
 */
zimage_status zi_cuda_slabs_find(zi_cuda *cuda, zi_cuda_weight *const *weights, int count, int own,
                                 zi_cuda_slabs *found);
/* Adds a hold of each slab of `more` to `held`. */
zimage_status zi_cuda_slabs_hold(zi_cuda *cuda, const zi_cuda_slabs *more, zi_cuda_slabs *held);
/* Becomes the owner of those that have none. */
void zi_cuda_slabs_adopt(zi_cuda *cuda, const zi_cuda_slabs *held);
/* Ends the holds. owner 1: the session ceases to be the owner of what it owns. No kernel of it may be reading them. */
void zi_cuda_slabs_drop(zi_cuda *cuda, zi_cuda_slabs *held, int owner);
/* Bytes of those that the session owns. */
size_t zi_cuda_slabs_owned(const zi_cuda *cuda, const zi_cuda_slabs *held);
/* The stream has been waited for: offers the weights that have arrived. Where another slab offers one, it is not. */
void zi_cuda_slabs_offer(zi_cuda *cuda);

#endif
