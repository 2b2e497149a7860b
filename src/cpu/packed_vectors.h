/* Products of bf16 and of 16-bit integers in a compiler's vectors, for tiers without an instruction of their own. */
#ifndef ZI_CPU_PACKED_VECTORS_H
#define ZI_CPU_PACKED_VECTORS_H

#include <string.h>

#include "cpu/kernels.h"

/* Two bf16 in a lane: the upper one is a float32 but for its low bits, the lower one moves up. */
#define ZI_BF16_PAIRS(sums, x, y, floats)                                                                              \
    ((sums) + (floats)((x) << 16) * (floats)((y) << 16) + (floats)((x) & -0x10000) * (floats)((y) & -0x10000))
/* Two 16-bit integers in a lane. */
#define ZI_I16_PAIRS(sums, x, y) ((sums) + ((x) << 16 >> 16) * ((y) << 16 >> 16) + ((x) >> 16) * ((y) >> 16))

#endif
