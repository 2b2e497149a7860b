/* The CPU backend: float32 kernels and packed gemms, chosen at run time by what the CPU has. */
#ifndef ZI_CPU_CPU_H
#define ZI_CPU_CPU_H

#include "base/pool.h"
#include "ops/ops.h"

typedef struct zi_cpu_options {
    const char *mask;       /* features that may be used, as zi_cpu_mask_parse reads them; NULL: all there are */
    zimage_compute compute; /* the compute type */
} zi_cpu_options;

/* *ops is the new backend; free it with its table's free. The pool stays the caller's and must outlive the backend. */
zimage_status zi_ops_cpu_new(zi_pool *pool, const zi_cpu_options *options, zi_ops **ops, zimage_error *error);

/* The tier of a backend's float32 kernels: "generic", "avx2" or "avx512". */
const char *zi_ops_cpu_tier(const zi_ops *ops);
/* The type of a backend's linear layers. */
zimage_compute zi_ops_cpu_compute(const zi_ops *ops);
/* The tier and the packed gemms: "avx512, int8 amx, bf16 amx". */
void zi_ops_cpu_describe(const zi_ops *ops, char *text, size_t size);

/* Kernels that work together: a tier of float32 kernels alone, or with a packed gemm for the products. */
typedef struct zi_cpu_set {
    const char *name; /* "avx2", "bf16 amx", ... */
    int usable;       /* with the features that zi_cpu_set_at was given */
    const struct zi_cpu_kernels *kernels;
    const struct zi_packed_gemm *gemm; /* NULL: float32 */
} zi_cpu_set;

/* Writes set `index` of this build, counted from 0: first the tiers, then each packed gemm with the best usable tier.
 * Returns 0 behind the last one. */
int zi_cpu_set_at(int index, uint32_t features, zi_cpu_set *set);
/* Floating-point (or integer) operations a second of one thread, with operands in L1. Measures for a millisecond. */
double zi_cpu_set_rate(const zi_cpu_set *set);
/* A backend that computes with this set: linear layers with its gemm, and attention and convolutions too if that is
 * bf16. */
zimage_status zi_cpu_new_with_set(zi_pool *pool, const zi_cpu_set *set, zi_ops **ops, zimage_error *error);

/* The name of tier `index` of this build, as zi_cpu_mask_parse reads it. The best one is the last; behind it NULL. */
const char *zi_cpu_tier_name(int index);
/* Whether this CPU and its operating system can run the tier. */
int zi_cpu_tier_available(int index);

/* The peak rate of the instruction that linear layers use: operations a second in registers, summed over the threads of
 * the pool; 0 if memory is short. Measures for about 20 ms. Other work on the machine lowers the result, so measure it
 * several times, next to what is compared with it. */
double zi_ops_cpu_peak(zi_run *run);

#endif
