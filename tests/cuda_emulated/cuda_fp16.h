#ifndef ZI_EMULATED_CUDA_FP16_H
#define ZI_EMULATED_CUDA_FP16_H

#include "cuda_runtime.h"

struct __half {
    uint16_t bits;
};

static inline float __half2float(__half x)
{
    int exponent = x.bits >> 10 & 31, fraction = x.bits & 1023;
    float magnitude = exponent == 31 ? (fraction ? NAN : INFINITY)
                      : exponent     ? ldexpf((float)(1024 + fraction), exponent - 25)
                                     : ldexpf((float)fraction, -24);
    return x.bits >> 15 ? -magnitude : magnitude;
}

#endif
