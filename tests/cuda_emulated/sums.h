/* Plain sums that stand for kernels whose instructions are not emulated. */
#ifndef ZI_EMULATED_SUMS_H
#define ZI_EMULATED_SUMS_H

#include <vector>

/* The product of x and w; as many numbers as w has, a multiple of 8. */
static inline float product(const float *x, const std::vector<float> &w)
{
    float sums[8] = {0};
    for (size_t i = 0; i < w.size(); i += 8)
        for (size_t j = 0; j < 8; j++)
            sums[j] += x[i + j] * w[i + j];
    return (sums[0] + sums[1] + sums[2] + sums[3]) + (sums[4] + sums[5] + sums[6] + sums[7]);
}

#endif
