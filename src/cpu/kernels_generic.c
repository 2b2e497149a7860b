/* The generic tier, vectors of four floats: SSE2 on x86-64, NEON on arm64; elsewhere the compiler chooses. */
#define LANES 4
#define MR    6
#if defined(__aarch64__)
#define NV 4 /* 32 registers */
#else
#define NV 2 /* 16 registers */
#endif
#define NIBBLES "cpu/nibbles_generic.h"
#define KERNELS zi_cpu_kernels_generic
#define NAME    "generic"
#define FEATURE ZI_CPU_ALWAYS
#include "cpu/kernels_tier.h"
