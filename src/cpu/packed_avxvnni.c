/* A packed gemm with AVX-VNNI: one instruction multiplies four unsigned by four signed bytes, in vectors of 256
 * bits. */
#if defined(__x86_64__)
#include <immintrin.h>

#include "cpu/packed_vectors.h"

typedef int32_t i8 __attribute__((vector_size(32)));

#define FN(name)             name##_int8_avxvnni
#define TITLE                "int8 avx-vnni"
#define NEEDS                ZI_CPU_AVX_VNNI
#define NUMBER_A             ZI_NUMBER_U8
#define NUMBER_B             ZI_NUMBER_I8
#define LANES                8
#define MR                   6
#define NV                   2
#define SUMS                 i8
#define MULTIPLY(sums, x, y) ((i8)_mm256_dpbusd_avx_epi32((__m256i)(sums), (__m256i)(x), (__m256i)(y)))
#include "cpu/packed_body.h"
#else
typedef int zi_no_avxvnni; /* ISO C wants a declaration in every file */
#endif
