/* Packed gemms for any CPU, and the lists of all packed gemms of this build. */
#include "cpu/packed_vectors.h"

typedef float f4 __attribute__((vector_size(16)));
typedef int32_t i4 __attribute__((vector_size(16)));

#if defined(__aarch64__)
#define TOKENS 4 /* 32 registers */
#else
#define TOKENS 2 /* 16 registers */
#endif

#define FN(name)             name##_int8_generic
#define TITLE                "int8 generic"
#define NEEDS                ZI_CPU_ALWAYS
#define NUMBER_A             ZI_NUMBER_I16
#define NUMBER_B             ZI_NUMBER_I16
#define LANES                4
#define MR                   TOKENS
#define NV                   4
#define SUMS                 i4
#define MULTIPLY(sums, x, y) ZI_I16_PAIRS(sums, x, y)
#include "cpu/packed_body.h"

#define FN(name)             name##_bf16_generic
#define TITLE                "bf16 generic"
#define NEEDS                ZI_CPU_ALWAYS
#define NUMBER_A             ZI_NUMBER_BF16
#define NUMBER_B             ZI_NUMBER_BF16
#define LANES                4
#define MR                   TOKENS
#define NV                   4
#define SUMS                 f4
#define MULTIPLY(sums, x, y) ZI_BF16_PAIRS(sums, x, y, f4)
#include "cpu/packed_body.h"

#if defined(__x86_64__)
extern const zi_packed_gemm zi_packed_gemm_bf16_avx2, zi_packed_gemm_bf16_avx512, zi_packed_gemm_bf16_avx512bf16,
    zi_packed_gemm_bf16_amx;
extern const zi_packed_gemm zi_packed_gemm_int8_avx2, zi_packed_gemm_int8_avxvnni, zi_packed_gemm_int8_avx512,
    zi_packed_gemm_int8_avx512vnni, zi_packed_gemm_int8_amx;
#elif defined(__aarch64__)
extern const zi_packed_gemm zi_packed_gemm_bf16_neonbf16;
extern const zi_packed_gemm zi_packed_gemm_int8_neondotprod, zi_packed_gemm_int8_neoni8mm;
#endif

const zi_packed_gemm *const zi_packed_gemms_bf16[] = {
    &zi_packed_gemm_bf16_generic,
#if defined(__x86_64__)
    &zi_packed_gemm_bf16_avx2,
    &zi_packed_gemm_bf16_avx512,
    &zi_packed_gemm_bf16_avx512bf16,
    &zi_packed_gemm_bf16_amx,
#elif defined(__aarch64__)
    &zi_packed_gemm_bf16_neonbf16,
#endif
    NULL,
};

const zi_packed_gemm *const zi_packed_gemms_int8[] = {
    &zi_packed_gemm_int8_generic,
#if defined(__x86_64__)
    &zi_packed_gemm_int8_avx2,
    &zi_packed_gemm_int8_avxvnni,
    &zi_packed_gemm_int8_avx512,
    &zi_packed_gemm_int8_avx512vnni,
    &zi_packed_gemm_int8_amx,
#elif defined(__aarch64__)
    &zi_packed_gemm_int8_neondotprod,
    &zi_packed_gemm_int8_neoni8mm,
#endif
    NULL,
};
