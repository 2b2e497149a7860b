/*
 * The sampler FlowMatchEulerDiscreteScheduler of diffusers: sigmas and the Euler step (docs/spec/scheduler.md).
 * It computes on the host in float32, because latents are small.
 */
#ifndef ZI_SAMPLER_FLOW_MATCH_H
#define ZI_SAMPLER_FLOW_MATCH_H

#include "base/error.h"

#define ZI_TRAIN_TIMESTEPS 1000 /* a constant of the pipelines */

typedef struct zi_scheduler_config {
    int use_dynamic_shifting;
    double shift;
    /* the following only with use_dynamic_shifting */
    double base_shift, max_shift;
    int linear_time_shift; /* time_shift_type: 1 "linear", 0 "exponential" */
    int64_t base_image_seq_len, max_image_seq_len;
} zi_scheduler_config;

/* Every field of the configuration, NULL-ended. */
extern const char *const zi_scheduler_fields[];
/* The published settings of Z-Image-Turbo: a static shift of 3. */
zi_scheduler_config zi_scheduler_turbo(void);
/* FLUX.2: a dynamic shift (scripts/convert_flux2_to_diffusers.py takes the file of FLUX.1-dev). */
zi_scheduler_config zi_scheduler_flux2(void);
/* Reads scheduler_config.json. A setting that is not implemented (karras, beta, stochastic, ...) is an error. */
zimage_status zi_scheduler_load(const char *path, zi_scheduler_config *config, zimage_error *error);

/* mu of the dynamic shift for an image of image_tokens tokens (calculate_shift in pipeline_z_image.py of diffusers). */
double zi_scheduler_mu(const zi_scheduler_config *config, int64_t image_tokens);

/*
 * Fills sigmas[steps + 1], the last of which is 0; steps >= 1. image_tokens: the tokens of one image, which only the
 * dynamic shift needs. Rounds to float32 where diffusers does.
 */
void zi_scheduler_sigmas(const zi_scheduler_config *config, int steps, int64_t image_tokens, float *sigmas);

/* The same for FLUX.2, whose mu also depends on the steps (compute_empirical_mu in pipeline_flux2_klein.py). The tokens
 * are those of the image that is made, without references. */
double zi_flux2_mu(int64_t image_tokens, int steps);
void zi_flux2_sigmas(const zi_scheduler_config *config, int steps, int64_t image_tokens, float *sigmas);

/* timestep = 1000 sigma, rounded to float32 */
float zi_scheduler_timestep(float sigma);

/* The first of `steps` steps that is run with a strength in (0, 1], for which an image is changed; `steps`: none is. */
int zi_first_step(int steps, double strength);

/*
 * The following compute on elements i < count of latents. in_bf16: each operation is rounded to bfloat16, as torch does
 * with tensors of that type; the arguments are bfloat16 numbers.
 */

/* latents += (sigma_next - sigma) * velocity, where velocity = noise - clean */
void zi_euler_step(float *latents, const float *velocity, int64_t count, float sigma, float sigma_next, int in_bf16);
/* out = sigma * noise + (1 - sigma) * clean */
void zi_scale_noise(float *out, const float *clean, const float *noise, int64_t count, float sigma, int in_bf16);
/* latents = (1 - weight) * known + weight * latents, in all channels; latents, known [channels, places], weights
 * [places] */
void zi_blend(float *latents, const float *known, const float *weights, int64_t channels, int64_t places, int in_bf16);

#endif
