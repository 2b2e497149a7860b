/* What the processor and its system offer, found at run time. */
#ifndef ZI_CPU_FEATURES_H
#define ZI_CPU_FEATURES_H

#include <stddef.h>
#include <stdint.h>

#include "base/error.h"

/* Each one includes whatever else its kernels need: AVX-512 is F, BW, DQ and VL; AVX2 has FMA; AMX has AVX-512 BF16. NEON
 * itself is in every arm64 processor. */
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
/* A set of features, one bit each: those of this processor that the system saves and, for AMX, has given this process. */
uint32_t zi_cpu_features(void);
/*
 * The set named by a list such as "avx2,avx512": what --cpu-mask allows. "generic" stands for none, NULL for all.
 * A name nobody knows: ZIMAGE_ERROR_ARGUMENT with the names there are.
 */
zimage_status zi_cpu_mask_parse(const char *list, uint32_t *mask, zimage_error *error);

#endif
