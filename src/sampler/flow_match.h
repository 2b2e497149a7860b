/* FlowMatchEulerDiscrete: sigmas, Euler step, guidance (spec scheduler.md). Host float32: latents are small. */
#ifndef ZI_SAMPLER_FLOW_MATCH_H
#define ZI_SAMPLER_FLOW_MATCH_H

#include "base/error.h"

typedef struct zi_scheduler_config {
    int use_dynamic_shifting;
    double shift;
    double base_shift, max_shift; /* dynamic only */
    int linear_time_shift;        /* dynamic only: time_shift_type "linear" instead of "exponential" */
    int64_t base_image_seq_len, max_image_seq_len;
} zi_scheduler_config;

/* Z-Image-Turbo's published settings: a static shift of 3. */
zi_scheduler_config zi_scheduler_turbo(void);
/* Reads scheduler_config.json; settings this library can't honour (karras, beta, stochastic, ...) are errors. */
zimage_status zi_scheduler_load(const char *path, zi_scheduler_config *config, zimage_error *error);

/* The dynamic shift's mu for a picture of so many tokens (the pipeline's calculate_shift). */
double zi_scheduler_mu(const zi_scheduler_config *config, int64_t image_tokens);

/* sigmas[steps + 1], the last 0; steps >= 1. image_tokens: of one picture, for the dynamic shift. Same float32/float64
 * rounding as the reference. */
void zi_scheduler_sigmas(const zi_scheduler_config *config, int steps, int64_t image_tokens, float *sigmas);

/* timestep = 1000 sigma; and what the network gets as t: (1000 - timestep) / 1000, about 1 - sigma, with the pipeline's
 * float32 rounding. */
float zi_scheduler_timestep(float sigma);
float zi_scheduler_model_time(float sigma);

/* The guidance scale of a step: 0 (one evaluation) once t exceeds truncation <= 1. */
float zi_guidance_at(float guidance_scale, double truncation, float t);

/* latents += (sigma_next - sigma) * prediction */
void zi_euler_step(float *latents, const float *prediction, int64_t count, float sigma, float sigma_next);

/* positive <- positive + scale (positive - negative), limited to normalization * |positive| (L2) if that is > 0.
 * (diffusers' Z-Image convention, on model outputs before the sign change) */
void zi_guide(float *positive, const float *negative, int64_t count, float scale, float normalization);

#endif
