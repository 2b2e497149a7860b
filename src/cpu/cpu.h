/* The fast CPU table's tiers: which instruction sets its innermost kernels use. */
#ifndef ZI_CPU_CPU_H
#define ZI_CPU_CPU_H

#include "ops/ops.h"

/* Tier `index` of all that this build knows, best last ("generic", "avx2", "avx512"); NULL behind the last. */
const char *zi_cpu_tier_name(int index);
/* 1 if this processor and its system can run it. */
int zi_cpu_tier_available(int index);

/* As zi_ops_cpu_new, with a tier by name; NULL chooses the best one. ZIMAGE_ERROR_UNSUPPORTED: not on this machine. */
zimage_status zi_ops_cpu_new_tier(zi_pool *pool, const char *tier, zi_ops **ops, zimage_error *error);
/* The tier that a CPU table uses. */
const char *zi_ops_cpu_tier(const zi_ops *ops);
/* Floating-point operations a second of multiply-adds in registers, all threads of the table's pool together: what
 * "percent of peak" is a percentage of. Takes about 20 ms; other work on the machine lowers it, so measure it beside
 * what is compared with it, several times. */
double zi_ops_cpu_peak(zi_ops *ops);

#endif
