/* How fast a backend is on this machine, to turn counted operations into seconds. */
#ifndef ZI_OPS_SPEED_H
#define ZI_OPS_SPEED_H

#include "ops/ops_count.h"

typedef struct zi_speed {
    double linear, attention, conv; /* floating-point operations a second */
    double unpack;                  /* seconds that a stored element of a linear product takes besides */
    double latency, link;           /* of an exchange between several GPUs: seconds, and bytes a second; 0: one */
} zi_speed;

/*
 * From FOLDER/machine.json, where an entry belongs to a CPU model, the backend's kernels, a number of threads and a
 * version of the library; else measured, in a fraction of a second, and kept there. folder NULL: always measured. A
 * file that can't be read or written is no error. Figures that no machine measures are measured again. ops: idle, its
 * stack empty.
 */
zimage_status zi_speed_get(zi_ops *ops, int threads, const char *folder, zi_speed *speed, zimage_error *error);

double zi_speed_seconds(const zi_speed *speed, const zi_counts *counts);
/* The same where several GPUs divide the work and send each other that: seconds / devices + exchanges latency + bytes /
 * link. Without traffic they do not divide it. */
double zi_speed_divided(const zi_speed *speed, const zi_counts *counts, int devices, const zi_traffic *traffic);

#endif
