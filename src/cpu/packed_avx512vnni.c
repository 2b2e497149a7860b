/* A packed gemm with AVX-512 VNNI: one instruction multiplies four unsigned by four signed bytes. */
#if defined(__x86_64__)
#include <immintrin.h>

#include "cpu/packed_vectors.h"

typedef int32_t i16 __attribute__((vector_size(64)));

#define FN(name)             name##_int8_avx512vnni
#define TITLE                "int8 avx512-vnni"
#define NEEDS                ZI_CPU_AVX512_VNNI
#define NUMBER_A             ZI_NUMBER_U8
#define NUMBER_B             ZI_NUMBER_I8
#define LANES                16
#define MR                   12
#define NV                   2
#define SUMS                 i16
#define MULTIPLY(sums, x, y) ((i16)_mm512_dpbusd_epi32((__m512i)(sums), (__m512i)(x), (__m512i)(y)))
#include "cpu/packed_body.h"
#else
typedef int zi_no_avx512vnni; /* ISO C wants a declaration in every file */
#endif
