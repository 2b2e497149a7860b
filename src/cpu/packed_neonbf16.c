/*
 * A packed gemm with BFMMLA of Arm's FEAT_BF16: 2 x 4 by 4 x 2 numbers. It does twice the work of BFDOT, and every CPU
 * with BFDOT has it. Both add two products to each other and then to the sum, rounding to odd both times (Arm
 * Architecture Reference Manual, BFDotAdd). Each rounding errs by less than one unit in the last place; rounding to
 * nearest would err by half a unit. Numbers below 2^-126 become zero.
 */
#if defined(__aarch64__)
#define TITLE                "bf16 neon-bf16"
#define NEEDS                ZI_CPU_NEON_BF16
#define NUMBER               ZI_NUMBER_BF16
#define GEMM                 zi_packed_gemm_bf16_neonbf16
#define SUMS                 float32x4_t
#define MULTIPLY(sums, x, y) vbfmmlaq_f32(sums, vreinterpretq_bf16_u64(x), vreinterpretq_bf16_u64(y))
#define PRODUCTS             16
#include "cpu/packed_mmla.h"
#else
typedef int zi_no_neonbf16; /* ISO C wants a declaration in every file */
#endif
