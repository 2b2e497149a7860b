#include "sampler/guidance.h"

#include <math.h>

float zi_l2_norm(const float *x, int64_t count)
{
    double sum = 0;
    for (int64_t i = 0; i < count; i++)
        sum += (double)x[i] * x[i];
    return (float)sqrt(sum);
}

void zi_limit_norm(float *x, int64_t count, float limit)
{
    float norm = zi_l2_norm(x, count);
    if (norm <= limit)
        return;
    float shrink = limit / norm;
    for (int64_t i = 0; i < count; i++)
        x[i] *= shrink;
}
