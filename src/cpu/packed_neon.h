/*
 * What the packed gemms for arm64 share. Define first:
 *   SUMS                   the type of a vector of sums
 *   MULTIPLY(sums, x, y)   the instruction on two uint64x2_t
 *   PRODUCTS               products of two numbers in one instruction
 */
#include <arm_neon.h>

#include "cpu/kernels.h"

/* Keeps the compiler from moving loads up so far that it has no registers left for the sums. */
#define IN_ORDER() __asm__ volatile("" ::: "memory")

#define PEAK_SUMS 24 /* as in a tile: enough independent sums to hide the latency of an instruction */

/* Sums begin at different numbers. Otherwise they are equal, and a compiler would compute one of them. */
static double peak(int64_t rounds, float *sink)
{
    SUMS sums[PEAK_SUMS];
    const uint64x2_t x = vreinterpretq_u64_u8(vdupq_n_u8((uint8_t)(*sink * 0 + 63)));
    FOR_UNROLLED(i, PEAK_SUMS)
        sums[i] = (SUMS)vdupq_n_s32(i);
    for (int64_t round = 0; round < rounds; round++)
        FOR_UNROLLED(i, PEAK_SUMS)
            sums[i] = MULTIPLY(sums[i], x, x);
    FOR_UNROLLED(i, PEAK_SUMS)
        *sink += (float)sums[i][0];
    return 2.0 * PRODUCTS * PEAK_SUMS * (double)rounds;
}
