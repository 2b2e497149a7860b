/* The tier AVX-512 F, BW, DQ, VL: 32 registers. kernels.cmake sets the compiler's flags; only a CPU that has all
 * runs this code. */
#if defined(__x86_64__)
#define LANES   16
#define MR      12
#define NV      2
#define NIBBLES "cpu/nibbles_avx512.h"
#define KERNELS zi_cpu_kernels_avx512
#define NAME    "avx512"
#define FEATURE ZI_CPU_AVX512
#include "cpu/kernels_tier.h"
#else
typedef int zi_no_avx512; /* ISO C wants a declaration in every file */
#endif
