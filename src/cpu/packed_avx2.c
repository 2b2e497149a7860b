/* Packed gemms with AVX2 and FMA: 16 registers. One instruction multiplies and adds pairs of 16-bit integers. */
#if defined(__x86_64__)
#include <immintrin.h>

#include "cpu/packed_vectors.h"

typedef float f8 __attribute__((vector_size(32)));
typedef int32_t i8 __attribute__((vector_size(32)));

#define FN(name)             name##_int8_avx2
#define TITLE                "int8 avx2"
#define NEEDS                ZI_CPU_AVX2
#define NUMBER_A             ZI_NUMBER_I16
#define NUMBER_B             ZI_NUMBER_I16
#define LANES                8
#define MR                   6
#define NV                   2
#define SUMS                 i8
#define MULTIPLY(sums, x, y) ((sums) + (i8)_mm256_madd_epi16((__m256i)(x), (__m256i)(y)))
#include "cpu/packed_body.h"

#define FN(name)             name##_bf16_avx2
#define TITLE                "bf16 avx2"
#define NEEDS                ZI_CPU_AVX2
#define NUMBER_A             ZI_NUMBER_BF16
#define NUMBER_B             ZI_NUMBER_BF16
#define LANES                8
#define MR                   4
#define NV                   2
#define SUMS                 f8
#define MULTIPLY(sums, x, y) ZI_BF16_PAIRS(sums, x, y, f8)
#include "cpu/packed_body.h"
#else
typedef int zi_no_avx2; /* ISO C wants a declaration in every file */
#endif
