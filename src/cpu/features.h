/* What the CPU and its operating system offer, found at run time. */
#ifndef ZI_CPU_FEATURES_H
#define ZI_CPU_FEATURES_H

#include <stddef.h>
#include <stdint.h>

#include "base/error.h"

/* Each feature includes whatever else its kernels need: AVX-512 stands for F, BW, DQ and VL, AVX2 includes FMA, AMX
 * includes AVX-512 BF16. Every arm64 CPU has NEON. */
typedef enum zi_cpu_feature {
    ZI_CPU_AVX2,
    ZI_CPU_AVX_VNNI,
    ZI_CPU_AVX512,
    ZI_CPU_AVX512_VNNI,
    ZI_CPU_AVX512_BF16,
    ZI_CPU_AMX_BF16,
    ZI_CPU_AMX_INT8,
    ZI_CPU_NEON_DOTPROD,
    ZI_CPU_NEON_I8MM,
    ZI_CPU_NEON_BF16,
    ZI_CPU_FEATURES,
} zi_cpu_feature;

#define ZI_CPU_ALWAYS (-1) /* in tables: no feature needed */

const char *zi_cpu_feature_name(zi_cpu_feature feature); /* "avx2", "amx-bf16", ... */
/* The features of this CPU, bit 1 << feature each. The operating system must save their registers and, for AMX, have
 * given the tiles to this process. */
uint32_t zi_cpu_features(void);
/*
 * Reads a list such as "avx2,avx512" (the value of --cpu-mask) as a set of features. "generic" stands for no feature,
 * NULL for all. ZIMAGE_ERROR_ARGUMENT with the known names for any other name.
 */
zimage_status zi_cpu_mask_parse(const char *list, uint32_t *mask, zimage_error *error);

#endif
