/* A limit on the norm of guided velocities (cfg_normalization), in host memory. */
#ifndef ZI_SAMPLER_GUIDANCE_H
#define ZI_SAMPLER_GUIDANCE_H

#include <stdint.h>

float zi_l2_norm(const float *x, int64_t count);
/* Scales x so that its norm is at most limit. */
void zi_limit_norm(float *x, int64_t count, float limit);

#endif
