/* How fast this machine is, to turn counted operations into seconds. */
#ifndef ZI_ENGINE_MACHINE_H
#define ZI_ENGINE_MACHINE_H

#include "ops/ops_plan.h"

typedef struct zi_machine {
    double linear, attention, conv; /* floating-point operations a second */
    double unpack;                  /* seconds a stored number of a linear product takes besides */
} zi_machine;

/*
 * From $XDG_CACHE_HOME/zimage/machine.json (or ~/.cache/zimage/), where an entry belongs to a processor model, a tier, a
 * number of threads and a version of the library; else measured, in a fraction of a second, and kept there. A cache that
 * can't be read or written is no error. ops: idle, with its pool.
 */
zimage_status zi_machine_get(zi_ops *ops, zi_pool *pool, zi_machine *machine, zimage_error *error);

double zi_machine_seconds(const zi_machine *machine, const zi_plan_counts *counts);

#endif
