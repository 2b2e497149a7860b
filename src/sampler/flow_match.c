/*
 * Formulas: docs/spec/scheduler.md. Reference: diffusers, schedulers/scheduling_flow_match_euler_discrete.py as
 * pipelines/z_image/pipeline_z_image.py and pipelines/flux2/pipeline_flux2_klein.py call it.
 */
#include "sampler/flow_match.h"

#include <math.h>
#include <string.h>

#include "base/fields.h"
#include "ops/tensor.h"

/* Defaults of calculate_shift in pipeline_z_image.py. */
#define BASE_SHIFT  0.5
#define MAX_SHIFT   1.15
#define BASE_LENGTH 256
#define MAX_LENGTH  4096

/* ---- configuration ----------------------------------------------------------------------------------------------- */

const char *const zi_scheduler_fields[] = {"num_train_timesteps",
                                           "shift",
                                           "use_dynamic_shifting",
                                           "base_shift",
                                           "max_shift",
                                           "base_image_seq_len",
                                           "max_image_seq_len",
                                           "invert_sigmas",
                                           "shift_terminal",
                                           "use_karras_sigmas",
                                           "use_exponential_sigmas",
                                           "use_beta_sigmas",
                                           "time_shift_type",
                                           "stochastic_sampling",
                                           NULL};

static zimage_status refuse_flag(const zi_json_reader *json, const char *field)
{
    int value;
    ZI_TRY(zi_field_bool(json, field, 0, &value));
    if (value)
        return zi_fail(json->error, ZIMAGE_ERROR_UNSUPPORTED, "%s: \"%s\": true, only false is supported", json->path,
                       field);
    return ZIMAGE_OK;
}

static zimage_status refuse_variants(const zi_json_reader *json)
{
    static const char *const flags[] = {"invert_sigmas", "stochastic_sampling", "use_beta_sigmas",
                                        "use_exponential_sigmas", "use_karras_sigmas"};
    const char *class_name;
    const double none = 0;
    double terminal = none;
    ZI_TRY(zi_json_string(json, "_class_name", "FlowMatchEulerDiscreteScheduler", &class_name));
    if (strcmp(class_name, "FlowMatchEulerDiscreteScheduler") != 0)
        return zi_fail(json->error, ZIMAGE_ERROR_UNSUPPORTED,
                       "%s: \"_class_name\": \"%s\", only \"FlowMatchEulerDiscreteScheduler\" is supported", json->path,
                       class_name);
    for (size_t i = 0; i < sizeof flags / sizeof *flags; i++)
        ZI_TRY(refuse_flag(json, flags[i]));
    if (!zi_field_is_default(json, "shift_terminal"))
        ZI_TRY(zi_json_number(json, "shift_terminal", 0, 1, &none, &terminal));
    if (terminal != 0)
        return zi_fail(json->error, ZIMAGE_ERROR_UNSUPPORTED, "%s: \"shift_terminal\": %g, only null is supported",
                       json->path, terminal);
    return ZIMAGE_OK;
}

/* The pipeline computes mu from these four fields even where the shift is static. */
static zimage_status load_lengths(const zi_json_reader *json, zi_scheduler_config *config)
{
    ZI_TRY(zi_field_number(json, "base_shift", -50, 50, BASE_SHIFT, &config->base_shift));
    ZI_TRY(zi_field_number(json, "max_shift", -50, 50, MAX_SHIFT, &config->max_shift));
    ZI_TRY(zi_field_int(json, "base_image_seq_len", 1, 1 << 30, BASE_LENGTH, &config->base_image_seq_len));
    ZI_TRY(zi_field_int(json, "max_image_seq_len", 1, 1 << 30, MAX_LENGTH, &config->max_image_seq_len));
    if (config->base_image_seq_len == config->max_image_seq_len)
        return zi_fail(json->error, ZIMAGE_ERROR_MODEL,
                       "%s: \"max_image_seq_len\": %lld, expected another number than base_image_seq_len", json->path,
                       (long long)config->max_image_seq_len);
    return ZIMAGE_OK;
}

static zimage_status load_type(const zi_json_reader *json, zi_scheduler_config *config)
{
    const char *type = "exponential";
    if (!zi_field_is_default(json, "time_shift_type"))
        ZI_TRY(zi_json_string(json, "time_shift_type", NULL, &type));
    config->linear_time_shift = strcmp(type, "linear") == 0;
    if (!config->linear_time_shift && strcmp(type, "exponential") != 0)
        return zi_fail(json->error, ZIMAGE_ERROR_MODEL,
                       "%s: \"time_shift_type\": \"%s\", expected \"exponential\" or \"linear\"", json->path, type);
    return ZIMAGE_OK;
}

/* The defaults are those of FlowMatchEulerDiscreteScheduler. */
static zimage_status read_config(const zi_json_reader *json, void *out)
{
    zi_scheduler_config *config = out;
    int64_t timesteps;
    ZI_TRY(refuse_variants(json));
    ZI_TRY(zi_field_bool(json, "use_dynamic_shifting", 0, &config->use_dynamic_shifting));
    /* A dynamic shift does not read the static one, not even a null. */
    const json_t *shift = json_object_get(json->object, "shift");
    config->shift = 1;
    if (!config->use_dynamic_shifting || (shift && !json_is_null(shift)))
        ZI_TRY(zi_field_number(json, "shift", 1e-3, 1e3, 1.0, &config->shift));
    ZI_TRY(zi_field_int(json, "num_train_timesteps", 1, 1000000, ZI_TRAIN_TIMESTEPS, &timesteps));
    if (timesteps != ZI_TRAIN_TIMESTEPS)
        return zi_fail(json->error, ZIMAGE_ERROR_UNSUPPORTED, "%s: \"num_train_timesteps\": %lld, only %d is supported",
                       json->path, (long long)timesteps, ZI_TRAIN_TIMESTEPS);
    ZI_TRY(load_type(json, config));
    return load_lengths(json, config);
}

zimage_status zi_scheduler_load(const char *path, zi_scheduler_config *config, zimage_error *error)
{
    return zi_config_read(path, NULL, read_config, config, sizeof *config, error);
}

zi_scheduler_config zi_scheduler_turbo(void)
{
    return (zi_scheduler_config){.shift = 3.0,
                                 .base_shift = BASE_SHIFT,
                                 .max_shift = MAX_SHIFT,
                                 .base_image_seq_len = BASE_LENGTH,
                                 .max_image_seq_len = MAX_LENGTH};
}

zi_scheduler_config zi_scheduler_flux2(void)
{
    zi_scheduler_config config = zi_scheduler_turbo();
    config.use_dynamic_shifting = 1;
    return config;
}

/* ---- sigmas ------------------------------------------------------------------------------------------------------ */

double zi_scheduler_mu(const zi_scheduler_config *config, int64_t image_tokens)
{
    double slope =
        (config->max_shift - config->base_shift) / (double)(config->max_image_seq_len - config->base_image_seq_len);
    double offset = config->base_shift - slope * (double)config->base_image_seq_len;
    return (double)image_tokens * slope + offset;
}

double zi_flux2_mu(int64_t image_tokens, int steps)
{
    double n = (double)image_tokens, at_200 = 0.00016927 * n + 0.45666666;
    if (image_tokens > 4300)
        return at_200;
    double slope = (at_200 - (8.73809524e-05 * n + 1.89833333)) / 190.0;
    return slope * steps + (at_200 - 200.0 * slope);
}

/* torch.linspace(1, 1 / steps, steps)[i]: torch counts from the nearer end, with one fused multiply-add. */
static float torch_sigma(int i, int steps)
{
    const float start = 1.0f, end = (float)(1.0 / steps);
    if (steps == 1)
        return start;
    float step = (end - start) / (float)(steps - 1);
    return i < steps / 2 ? fmaf(step, (float)i, start) : fmaf(-step, (float)(steps - i - 1), end);
}

/* shift s / (1 + (shift - 1) s), all of it in float32, as numpy computes it */
static float static_shift(double shift, float sigma)
{
    return (float)shift * sigma / (1.0f + (float)(shift - 1.0) * sigma);
}

/* a / (a + (1 / s - 1)) in float32; a = e^mu computed in double, or a = mu if linear */
static float dynamic_shift(double mu, int linear, float sigma)
{
    float a = (float)(linear ? mu : exp(mu));
    return a / (a + (1.0f / sigma - 1.0f));
}

/* numpy.linspace(1, 1 / steps, steps)[i] in float64, then as float32 */
static float numpy_sigma(int i, int steps)
{
    if (steps == 1)
        return 1.0f;
    double end = 1.0 / steps, step = (end - 1.0) / (steps - 1), product = i * step;
    return (float)(i == steps - 1 ? end : product + 1.0);
}

/* base sigmas [steps] -> sigmas [steps + 1] */
static void shift_sigmas(const zi_scheduler_config *config, double mu, int steps, float *sigmas)
{
    for (int i = 0; i < steps; i++)
        sigmas[i] = config->use_dynamic_shifting ? dynamic_shift(mu, config->linear_time_shift, sigmas[i])
                                                 : static_shift(config->shift, sigmas[i]);
    sigmas[steps] = 0;
}

void zi_scheduler_sigmas(const zi_scheduler_config *config, int steps, int64_t image_tokens, float *sigmas)
{
    for (int i = 0; i < steps; i++)
        sigmas[i] = torch_sigma(i, steps);
    shift_sigmas(config, zi_scheduler_mu(config, image_tokens), steps, sigmas);
}

void zi_flux2_sigmas(const zi_scheduler_config *config, int steps, int64_t image_tokens, float *sigmas)
{
    for (int i = 0; i < steps; i++)
        sigmas[i] = numpy_sigma(i, steps);
    shift_sigmas(config, zi_flux2_mu(image_tokens, steps), steps, sigmas);
}

float zi_scheduler_timestep(float sigma)
{
    return sigma * (float)ZI_TRAIN_TIMESTEPS;
}

/* ---- steps ------------------------------------------------------------------------------------------------------- */

int zi_first_step(int steps, double strength)
{
    double noisy = fmin(steps * strength, steps);
    return (int)fmax(steps - noisy, 0);
}

static float rounded(float value, int in_bf16)
{
    return in_bf16 ? zi_round_bf16(value) : value;
}

/* sum = a * x + b * y, every operation rounded */
static float mix(float a, float x, float b, float y, int in_bf16)
{
    return rounded(rounded(a * x, in_bf16) + rounded(b * y, in_bf16), in_bf16);
}

void zi_euler_step(float *latents, const float *velocity, int64_t count, float sigma, float sigma_next, int in_bf16)
{
    float dt = rounded(sigma_next - sigma, in_bf16); /* so torch does on a CPU */
    for (int64_t i = 0; i < count; i++)
        latents[i] = rounded(latents[i] + rounded(dt * rounded(velocity[i], in_bf16), in_bf16), in_bf16);
}

void zi_scale_noise(float *out, const float *clean, const float *noise, int64_t count, float sigma, int in_bf16)
{
    float noisy = rounded(sigma, in_bf16), rest = rounded(1.0f - noisy, in_bf16);
    for (int64_t i = 0; i < count; i++)
        out[i] = mix(noisy, noise[i], rest, clean[i], in_bf16);
}

void zi_blend(float *latents, const float *known, const float *weights, int64_t channels, int64_t places, int in_bf16)
{
    for (int64_t i = 0; i < channels * places; i++) {
        float weight = rounded(weights[i % places], in_bf16);
        latents[i] = mix(rounded(1.0f - weight, in_bf16), known[i], weight, latents[i], in_bf16);
    }
}
