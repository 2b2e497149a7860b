/*
 * Packed products with Arm's bf16 instructions (FEAT_BF16): BFMMLA, 2 x 4 by 4 x 2 numbers. Every processor that has BFDOT
 * has it, and it does twice the work. Both add two products and then their sum, rounding each time to odd (Arm
 * Architecture Reference Manual, BFDotAdd): an error of less than a unit in the last place, where rounding to nearest has
 * half a unit. Numbers below 2^-126 become zero.
 */
#if defined(__aarch64__)
#define TITLE                "bf16 neon-bf16"
#define NEEDS                ZI_CPU_NEON_BF16
#define NUMBER               ZI_NUMBER_BF16
#define GEMM                 zi_packed_gemm_bf16_neonbf16
#define SUMS                 float32x4_t
#define MULTIPLY(sums, x, y) vbfmmlaq_f32(sums, vreinterpretq_bf16_u64(x), vreinterpretq_bf16_u64(y))
#include "cpu/packed_mmla.h"
#else
typedef int zi_no_neonbf16; /* ISO C wants something in every file */
#endif
