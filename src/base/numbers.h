/* Minimum, maximum, MiB, and random numbers for tests and measurements. */
#ifndef ZI_BASE_NUMBERS_H
#define ZI_BASE_NUMBERS_H

#include <stddef.h>
#include <stdint.h>

static inline size_t zi_min_size(size_t a, size_t b)
{
    return a < b ? a : b;
}

static inline size_t zi_max_size(size_t a, size_t b)
{
    return a > b ? a : b;
}

static inline uint64_t zi_min_uint64(uint64_t a, uint64_t b)
{
    return a < b ? a : b;
}

static inline int64_t zi_min_int64(int64_t a, int64_t b)
{
    return a < b ? a : b;
}

static inline int64_t zi_max_int64(int64_t a, int64_t b)
{
    return a > b ? a : b;
}

#define ZI_MIB ((size_t)1 << 20)

/* Whole MiB that hold so many bytes, for messages. */
static inline unsigned long long zi_mib(uint64_t bytes)
{
    return (bytes + ZI_MIB - 1) / ZI_MIB;
}

/*
 * Advances *state, which must not be 0, and returns it: Marsaglia, "Xorshift RNGs", Journal of Statistical Software
 * 8/14 (2003), with shifts 13, 7, 17. The high bits are the better ones. For tests and measurements only: the noise of
 * images comes from sampler/noise.h.
 */
static inline uint64_t zi_random_next(uint64_t *state)
{
    *state ^= *state << 13;
    *state ^= *state >> 7;
    *state ^= *state << 17;
    return *state;
}

#define ZI_RANDOM_SEED UINT64_C(88172645463325252) /* the paper's start */

static inline uint32_t zi_random_bits(uint64_t *state)
{
    return (uint32_t)(zi_random_next(state) >> 32);
}

/* A multiple of 2^-23 in [-1, 1). */
static inline float zi_random_float(uint64_t *state)
{
    return (float)(zi_random_next(state) >> 40) * 0x1p-23f - 1;
}

#endif
