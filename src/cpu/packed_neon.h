/* What the families of packed products for arm64 share. */
#ifndef ZI_CPU_PACKED_NEON_H
#define ZI_CPU_PACKED_NEON_H

#include <arm_neon.h>

#include "cpu/kernels.h"

/* Keeps the compiler from loading so far ahead that sums leave their registers. */
#define IN_ORDER() __asm__ volatile("" ::: "memory")

#endif
