/* A packed gemm with SMMLA of Arm's FEAT_I8MM: 2 x 8 by 8 x 2 bytes, exact in int32. */
#if defined(__aarch64__)
#define TITLE                "int8 neon-i8mm"
#define NEEDS                ZI_CPU_NEON_I8MM
#define NUMBER               ZI_NUMBER_I8
#define GEMM                 zi_packed_gemm_int8_neoni8mm
#define SUMS                 int32x4_t
#define MULTIPLY(sums, x, y) vmmlaq_s32(sums, vreinterpretq_s8_u64(x), vreinterpretq_s8_u64(y))
#define PRODUCTS             32
#include "cpu/packed_mmla.h"
#else
typedef int zi_no_neoni8mm; /* ISO C wants a declaration in every file */
#endif
