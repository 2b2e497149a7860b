/* AVX2 + FMA: 16 registers. Compiled with the tier's flags (kernels.cmake), called only where the processor has them. */
#if defined(__x86_64__)
#define LANES   8
#define MR      6
#define NV      2
#define NIBBLES "cpu/nibbles_avx2.h"
#define KERNELS zi_cpu_kernels_avx2
#define NAME    "avx2"
#define FEATURE ZI_CPU_AVX2
#include "cpu/kernels_tier.h"
#else
typedef int zi_no_avx2; /* ISO C wants something in every file */
#endif
