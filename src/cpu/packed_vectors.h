/* Products of bf16 and of 16-bit integers in the compiler's vectors, where no instruction has them. */
#ifndef ZI_CPU_PACKED_VECTORS_H
#define ZI_CPU_PACKED_VECTORS_H

#include <string.h>

#include "cpu/kernels.h"

/* A lane holds two bf16. The upper one becomes a float32 by clearing the lower half, the lower one by shifting it
 * up. */
#define ZI_BF16_PAIRS(sums, x, y, floats)                                                                              \
    ((sums) + (floats)((x) << 16) * (floats)((y) << 16) + (floats)((x) & -0x10000) * (floats)((y) & -0x10000))
/* A lane holds two 16-bit integers. */
#define ZI_I16_PAIRS(sums, x, y) ((sums) + ((x) << 16 >> 16) * ((y) << 16 >> 16) + ((x) >> 16) * ((y) >> 16))

#endif
