/* The cases of src/ops/cases.h for one set of kernels. */
#ifndef ZI_CPU_SELFTEST_H
#define ZI_CPU_SELFTEST_H

#include "base/pool.h"
#include "cpu/cpu.h"
#include "ops/cases.h"

/* What computes products of a set, and what the reference must know of it. The caller adds what it wants. */
zi_cases_options zi_cpu_cases_options(const zi_cpu_set *set);

/* Runs the quick cases that concern the set, then tries how its peak is measured; reports each. */
zimage_status zi_cpu_selftest(zi_pool *pool, const zi_cpu_set *set, zi_case_report *report, void *user,
                              zimage_error *error);

#endif
