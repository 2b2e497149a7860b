/* A packed gemm with AVX-512 BF16: one instruction multiplies two pairs of bf16. Some chips run it at half the rate of
 * FMA. */
#if defined(__x86_64__)
#include <immintrin.h>

#include "cpu/packed_vectors.h"

typedef float f16 __attribute__((vector_size(64)));

#define FN(name)             name##_bf16_avx512bf16
#define TITLE                "bf16 avx512-bf16"
#define NEEDS                ZI_CPU_AVX512_BF16
#define NUMBER_A             ZI_NUMBER_BF16
#define NUMBER_B             ZI_NUMBER_BF16
#define LANES                16
#define MR                   12
#define NV                   2
#define SUMS                 f16
#define MULTIPLY(sums, x, y) ((f16)_mm512_dpbf16_ps((__m512)(sums), (__m512bh)(x), (__m512bh)(y)))
#include "cpu/packed_body.h"
#else
typedef int zi_no_avx512bf16; /* ISO C wants a declaration in every file */
#endif
