#ifndef ZI_EMULATED_CUDA_FP8_H
#define ZI_EMULATED_CUDA_FP8_H

#include "cuda_runtime.h"

/* 2 to that power, if it is a normal number. */
static inline float emulated_power(int power)
{
    uint32_t bits = (uint32_t)(power + 127) << 23;
    float value;
    memcpy(&value, &bits, sizeof(value));
    return value;
}

/* 1 sign, 4 exponent bits of bias 7, 3 fraction bits; no infinity, 0x7f is NaN, 448 the largest. */
static inline float emulated_from_e4m3(uint8_t bits)
{
    int exponent = bits >> 3 & 15, fraction = bits & 7;
    float magnitude = (bits & 0x7f) == 0x7f ? NAN
                      : exponent            ? (float)(8 + fraction) * emulated_power(exponent - 10)
                                            : (float)fraction * emulated_power(-9);
    return bits >> 7 ? -magnitude : magnitude;
}

/* To nearest, ties to even; too large numbers become the largest. */
static inline uint8_t emulated_to_e4m3(float x)
{
    uint8_t sign = signbit(x) ? 0x80 : 0;
    float magnitude = fabsf(x);
    if (isnan(x))
        return 0x7f;
    if (magnitude >= 448)
        return sign | 0x7e;
    uint32_t bits;
    memcpy(&bits, &magnitude, sizeof(bits));
    int exponent = (int)(bits >> 23) - 126; /* magnitude = [0.5, 1) * 2^exponent */
    exponent = exponent < -5 ? -5 : exponent;
    const float integers = 0x1p23f; /* from here on all numbers are integers, so the sum is rounded to one */
    float steps = magnitude * emulated_power(4 - exponent) + integers - integers; /* 8 .. 16, fewer if subnormal */
    return sign | (uint8_t)(((exponent + 5) << 3) + (int)steps);
}

struct __nv_fp8_e4m3 {
    uint8_t bits;
    __nv_fp8_e4m3() = default;
    explicit __nv_fp8_e4m3(float x) : bits(emulated_to_e4m3(x))
    {
    }
    explicit operator float() const
    {
        return emulated_from_e4m3(bits);
    }
};

typedef uint16_t __nv_fp8x2_storage_t;
typedef enum { __NV_SATFINITE = 1 } __nv_saturation_t;
typedef enum { __NV_E4M3 = 0 } __nv_fp8_interpretation_t;

static inline __nv_fp8x2_storage_t __nv_cvt_float2_to_fp8x2(float2 x, __nv_saturation_t, __nv_fp8_interpretation_t)
{
    return (__nv_fp8x2_storage_t)(emulated_to_e4m3(x.x) | emulated_to_e4m3(x.y) << 8);
}

#endif
