/* What the packed gemms for arm64 share. */
#ifndef ZI_CPU_PACKED_NEON_H
#define ZI_CPU_PACKED_NEON_H

#include <arm_neon.h>

#include "cpu/kernels.h"

/* Keeps the compiler from moving loads up so far that it has no registers left for the sums. */
#define IN_ORDER() __asm__ volatile("" ::: "memory")
/* Hides a vector's value from the compiler, which else would compute equal products once. */
#define OPAQUE(v) __asm__ volatile("" : "+w"(v))

#endif
