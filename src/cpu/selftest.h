/* Compares every kernel of a set with the reference backend. */
#ifndef ZI_CPU_SELFTEST_H
#define ZI_CPU_SELFTEST_H

#include "base/pool.h"
#include "cpu/cpu.h"
#include "cpu/kernels.h"

/* The result of one case. */
typedef struct zi_cpu_finding {
    const char *kernel; /* what was tested: "linear", "conv", ... All cases of a kernel follow one another. */
    double error;       /* the largest, as a share of the largest element */
    const char *fault;  /* "33 x 130 -> 70: error 0.02, allowed 2e-06"; NULL: none. Valid during the call only. */
} zi_cpu_finding;

/*
 * Runs all cases that concern the set, and calls `found` for each. The set computes with random operands, the reference
 * backend with the same operands rounded as the set rounds them. So only the order of the sums differs.
 */
zimage_status zi_cpu_selftest(zi_pool *pool, const zi_cpu_set *set, void (*found)(void *user, const zi_cpu_finding *),
                              void *user, zimage_error *error);

/* Rounds rows [rows][n] as packing does: to bf16, or to integers with one scale a row. */
void zi_cpu_round_rows(zi_cpu_number number, float *x, int64_t rows, int64_t n);

#endif
