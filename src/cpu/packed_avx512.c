/* Packed gemms with AVX-512 F, BW, DQ, VL: 32 registers. */
#if defined(__x86_64__)
#include <immintrin.h>

#include "cpu/packed_vectors.h"

typedef float f16 __attribute__((vector_size(64)));
typedef int32_t i16 __attribute__((vector_size(64)));

#define FN(name)             name##_int8_avx512
#define TITLE                "int8 avx512"
#define NEEDS                ZI_CPU_AVX512
#define NUMBER_A             ZI_NUMBER_I16
#define NUMBER_B             ZI_NUMBER_I16
#define LANES                16
#define MR                   12
#define NV                   2
#define SUMS                 i16
#define MULTIPLY(sums, x, y) ((sums) + (i16)_mm512_madd_epi16((__m512i)(x), (__m512i)(y)))
#include "cpu/packed_body.h"

#define FN(name)             name##_bf16_avx512
#define TITLE                "bf16 avx512"
#define NEEDS                ZI_CPU_AVX512
#define NUMBER_A             ZI_NUMBER_BF16
#define NUMBER_B             ZI_NUMBER_BF16
#define LANES                16
#define MR                   8
#define NV                   2
#define SUMS                 f16
#define MULTIPLY(sums, x, y) ZI_BF16_PAIRS(sums, x, y, f16)
#include "cpu/packed_body.h"
#else
typedef int zi_no_avx512; /* ISO C wants a declaration in every file */
#endif
