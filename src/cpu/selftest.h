/* Every kernel of a set against the C table. */
#ifndef ZI_CPU_SELFTEST_H
#define ZI_CPU_SELFTEST_H

#include "base/pool.h"
#include "cpu/cpu.h"
#include "cpu/kernels.h"

/* One case that was run. */
typedef struct zi_cpu_finding {
    const char
        *kernel;       /* what was tested, in a word: "linear", "conv", ... Cases of a kernel come one after another. */
    double error;      /* the largest, as a share of the largest value */
    const char *fault; /* "33 x 130 -> 70: error 0.02, allowed 2e-06"; NULL: right. Valid during the call */
} zi_cpu_finding;

/*
 * Runs all cases that concern the set and calls `found` for each. The set's own run sees random operands; the reference
 * table's sees them rounded as the set's numbers are, so that only the order of sums is left to differ.
 */
zimage_status zi_cpu_selftest(zi_pool *pool, const zi_cpu_set *set, void (*found)(void *user, const zi_cpu_finding *),
                              void *user, zimage_error *error);

/* What packing to numbers of that kind makes of rows [rows][n]: bf16, or integers with one scale a row. */
void zi_cpu_round_rows(zi_cpu_number number, float *x, int64_t rows, int64_t n);

#endif
