/* The fast CPU table: which kernels it uses. */
#ifndef ZI_CPU_CPU_H
#define ZI_CPU_CPU_H

#include "ops/ops.h"

typedef struct zi_cpu_options {
    const char *mask;   /* features that may be used, as zi_cpu_mask_parse reads them; NULL: all there are */
    zi_compute compute; /* what products are computed in, by the best kernels for it */
} zi_cpu_options;

/* As zi_ops_cpu_new, with choices. */
zimage_status zi_ops_cpu_new_with(zi_pool *pool, const zi_cpu_options *options, zi_ops **ops, zimage_error *error);

/* The float32 kernels that a CPU table uses: "generic", "avx2", "avx512". */
const char *zi_ops_cpu_tier(const zi_ops *ops);
/* All its kernels: "avx512, int8 amx, bf16 amx" */
void zi_ops_cpu_describe(const zi_ops *ops, char *text, size_t size);

/* Kernels that work together: a tier of float32 kernels, or a family of packed products with a tier's other kernels. */
typedef struct zi_cpu_set {
    const char *name; /* "avx2", "bf16 amx", ... */
    int usable;       /* with the features asked about */
    const struct zi_cpu_kernels *kernels;
    const struct zi_packed_gemm *gemm; /* NULL: float32 */
} zi_cpu_set;

/* Set `index` from 0 of all that this build knows, tiers first, families with the best tier; 0 behind the last. */
int zi_cpu_set_at(int index, uint32_t features, zi_cpu_set *set);
/* Operations a second of one thread with operands in L1, measured now: takes a millisecond. */
double zi_cpu_set_rate(const zi_cpu_set *set);
/* A table that computes with this set: linear layers in the family's numbers; a bf16 family's attention and convolutions
 * too. */
zimage_status zi_cpu_new_with_set(zi_pool *pool, const zi_cpu_set *set, zi_ops **ops, zimage_error *error);

/* Tier `index` of float32 kernels that this build knows, best last; NULL behind the last. Its name as a mask chooses it. */
const char *zi_cpu_tier_name(int index);
/* 1 if this processor and its system can run it. */
int zi_cpu_tier_available(int index);

/* Operations a second of multiply-adds in registers, of the instruction that linear layers use, summed over the threads
 * of the table's pool: what "percent of peak" is a percentage of; 0 without memory. Takes about 20 ms; other work on the
 * machine lowers it, so measure it beside what is compared with it, several times. */
double zi_ops_cpu_peak(zi_ops *ops);

#endif
