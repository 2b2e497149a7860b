/* The tier AVX2 with FMA: 16 registers. kernels.cmake sets the compiler's flags; only a CPU that has both runs this
 * code. */
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
typedef int zi_no_avx2; /* ISO C wants a declaration in every file */
#endif
