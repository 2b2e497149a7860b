/*
 * Z-Image and Z-Image-Turbo, as diffusers' pipelines/z_image/pipeline_z_image.py runs them: Qwen3 text features, a
 * context refiner once a prompt, flow matching with the network's output clean - noise at time 1 - sigma, the FLUX.1
 * VAE.
 */
#include <math.h>

#include "base/json.h"
#include "base/numbers.h"
#include "image/pixels.h"
#include "model/qwen3.h"
#include "model/vae.h"
#include "model/zimage_dit.h"
#include "pipeline/family.h"
#include "pipeline/masks.h"
#include "sampler/guidance.h"

#define MAX_PROMPT_TOKENS 512 /* the pipeline's max_sequence_length, template included */
#define TURBO_STEPS       8
#define BASE_STEPS        50  /* the pipeline's default num_inference_steps */
#define BASE_GUIDANCE     5   /* and guidance_scale */
#define STRENGTH          0.6 /* pipeline_z_image_img2img.py's default */
#define MASK_STRENGTH     1   /* pipeline_z_image_inpaint.py's default */
#define DEFAULT_SIDE      1024
#define MAX_SAMPLE_SIZE   (1 << 20)

struct zi_networks {
    zi_qwen3_config text_config;
    zi_zimage_dit_config transformer_config;
    zi_vae_config vae_config;
    zi_sizes sizes;
    int64_t sample_size; /* pixels of the default image, each way */
    zi_qwen3 text_encoder;
    zi_zimage_dit transformer;
    zi_vae vae;
};

/* ---- components -------------------------------------------------------------------------------------------------- */

static zimage_status configure_text(zi_networks *n, const char *path, const char *text, zimage_error *error)
{
    return zi_qwen3_config_read(path, text, &n->text_config, error);
}

static void limit_text_layers(zi_networks *n, int64_t layers)
{
    zi_qwen3_limit_layers(&n->text_config, layers);
    zi_qwen3_limit_layers(&n->text_encoder.config, layers);
}

static int64_t text_layers(const zi_networks *n)
{
    return zi_qwen3_layers(&n->text_encoder.config);
}

static zimage_status bind_text(zi_networks *n, zi_store *store, const zi_log *log, zimage_error *error)
{
    return zi_qwen3_bind(&n->text_encoder, &n->text_config, store, log, error);
}

static void unbind_text(zi_networks *n)
{
    zi_qwen3_free(&n->text_encoder);
}

static zimage_status configure_transformer(zi_networks *n, const char *path, const char *text, zimage_error *error)
{
    ZI_TRY(zi_zimage_dit_config_read(path, text, &n->transformer_config, error));
    return zi_sizes_read(path, text, &n->sizes, error);
}

static void limit_transformer_layers(zi_networks *n, int64_t layers)
{
    n->transformer_config.n_layers = zi_min_int64(n->transformer_config.n_layers, layers);
    n->transformer.config.n_layers = zi_min_int64(n->transformer.config.n_layers, layers);
}

static int64_t transformer_layers(const zi_networks *n)
{
    return n->transformer.config.n_layers;
}

static zimage_status bind_transformer(zi_networks *n, zi_store *store, const zi_log *log, zimage_error *error)
{
    return zi_zimage_dit_bind(&n->transformer, &n->transformer_config, store, log, error);
}

static void unbind_transformer(zi_networks *n)
{
    zi_zimage_dit_free(&n->transformer);
}

/* A number, or the pair of height and width. */
static zimage_status read_sample_size(const zi_json_reader *json, void *size)
{
    const int64_t fallback = DEFAULT_SIDE;
    int64_t pair[2];
    size_t count;
    if (!json_is_array(json_object_get(json->object, "sample_size")))
        return zi_json_int(json, "sample_size", 1, MAX_SAMPLE_SIZE, &fallback, size);
    ZI_TRY(zi_json_int_array(json, "sample_size", 1, MAX_SAMPLE_SIZE, pair, 2, &count));
    *(int64_t *)size = pair[0];
    return ZIMAGE_OK;
}

static zimage_status configure_vae(zi_networks *n, const char *path, const char *text, zimage_error *error)
{
    ZI_TRY(zi_vae_config_read(path, text, &n->vae_config, error));
    return zi_config_read(path, text, read_sample_size, &n->sample_size, sizeof n->sample_size, error);
}

static void limit_vae_layers(zi_networks *n, int64_t layers)
{
}

static int64_t vae_layers(const zi_networks *n)
{
    return n->vae.config.levels * (n->vae.config.layers_per_block + 1);
}

static zimage_status bind_vae(zi_networks *n, zi_store *store, const zi_log *log, zimage_error *error)
{
    return zi_vae_bind(&n->vae, &n->vae_config, store, log, error);
}

static void unbind_vae(zi_networks *n)
{
    zi_vae_free(&n->vae);
}

/* ---- the model --------------------------------------------------------------------------------------------------- */

static zimage_status check(const zi_networks *n, const int present[ZI_COMPONENTS], int64_t vocabulary, const char *path,
                           zimage_error *error)
{
    int64_t channels = n->transformer_config.in_channels, features = n->transformer_config.cap_feat_dim;
    if (present[ZI_VAE] && present[ZI_TRANSFORMER] && n->vae_config.latent_channels != channels)
        return zi_fail(error, ZIMAGE_ERROR_MODEL,
                       "%s/vae/config.json: latent_channels is %lld, expected the transformer's in_channels, %lld",
                       path, (long long)n->vae_config.latent_channels, (long long)channels);
    if (present[ZI_TEXT_ENCODER] && present[ZI_TRANSFORMER] && n->text_config.hidden_size != features)
        return zi_fail(
            error, ZIMAGE_ERROR_MODEL,
            "%s/text_encoder/config.json: hidden_size is %lld, expected the transformer's cap_feat_dim, %lld", path,
            (long long)n->text_config.hidden_size, (long long)features);
    if (present[ZI_TEXT_ENCODER] && vocabulary > n->text_config.vocab_size)
        return zi_fail(error, ZIMAGE_ERROR_MODEL,
                       "%s/tokenizer: the largest token id is %lld, expected less than the text encoder's vocab_size, "
                       "%lld",
                       path, (long long)vocabulary - 1, (long long)n->text_config.vocab_size);
    return ZIMAGE_OK;
}

static int64_t size_multiple(const zi_networks *n)
{
    return n->vae_config.scale_factor * n->transformer_config.patch;
}

static void describe(const zi_networks *n, const zi_scheduler_config *scheduler, zi_facts *facts)
{
    const zi_zimage_dit_config *dit = &n->transformer_config;
    int64_t multiple = size_multiple(n);
    /* Only the schedule distinguishes Z-Image-Turbo from the base model. */
    int turbo = !scheduler->use_dynamic_shifting && scheduler->shift == zi_scheduler_turbo().shift;
    *facts = (zi_facts){
        .latent_channels = dit->in_channels,
        .scale_factor = n->vae_config.scale_factor,
        .size_multiple = multiple,
        .max_height = zi_min_int64(dit->axes_lens[1] * multiple, INT32_MAX),
        .max_width = zi_min_int64(dit->axes_lens[2] * multiple, INT32_MAX),
        .default_side = n->sample_size / multiple * multiple,
        .features = dit->cap_feat_dim,
        .vocabulary = n->text_config.vocab_size,
        .max_prompt_tokens = MAX_PROMPT_TOKENS,
        .sizes = n->sizes,
        .default_steps = turbo ? TURBO_STEPS : BASE_STEPS,
        .distilled = turbo,
        .default_guidance = turbo ? 0 : BASE_GUIDANCE,
        .has_image_encoder = n->vae.has_encoder,
        .can_start_from_image = 1,
        .default_strength = STRENGTH,
        .default_mask_strength = MASK_STRENGTH,
    };
    if (facts->default_side < multiple)
        facts->default_side = multiple;
}

/* ---- in host memory ---------------------------------------------------------------------------------------------- */

static int64_t feature_rows(const zi_networks *n, int64_t tokens)
{
    return tokens;
}

static zimage_status check_positions(const zi_networks *n, int64_t tokens, int64_t rows, int64_t columns,
                                     zimage_error *error)
{
    int64_t patch = n->transformer_config.patch;
    return zi_zimage_dit_check_positions(&n->transformer, tokens, rows / patch, columns / patch, error);
}

static zimage_status sigmas(const zi_networks *n, const zi_scheduler_config *scheduler, int steps, int64_t rows,
                            int64_t columns, float *out, zimage_error *error)
{
    int64_t patch = n->transformer_config.patch, tokens = (rows / patch) * (columns / patch);
    zi_scheduler_sigmas(scheduler, steps, tokens, out);
    for (int i = 0; i < steps; i++)
        if (!isfinite(out[i]))
            return zi_fail(
                error, ZIMAGE_ERROR_MODEL,
                "scheduler_config.json: base_shift, max_shift, base_image_seq_len and max_image_seq_len lead to "
                "a shift of %g for %lld image tokens, and sigma %d is not a finite number",
                zi_scheduler_mu(scheduler, tokens), (long long)tokens, i + 1);
    return ZIMAGE_OK;
}

/* The network's time: (1000 - timestep) / 1000, about 1 - sigma, with the pipeline's float32 rounding. */
static float model_time(float sigma)
{
    return ((float)ZI_TRAIN_TIMESTEPS - zi_scheduler_timestep(sigma)) / (float)ZI_TRAIN_TIMESTEPS;
}

static float time_at(float sigma, int in_bf16)
{
    return model_time(sigma);
}

static int guides(const zi_networks *n, float scale)
{
    return scale > 0;
}

static float guidance_at(float scale, double truncation, float sigma)
{
    return truncation <= 1 && model_time(sigma) > truncation ? 0 : scale;
}

/* positive + scale (positive - negative); a scale of 0 is no guidance. Then no longer than normalization |positive|. */
static void guide(float *positive, const float *negative, int64_t count, float scale, float normalization)
{
    float limit = normalization > 0 ? zi_l2_norm(positive, count) * normalization : 0;
    for (int64_t i = 0; i < count; i++)
        positive[i] += scale * (positive[i] - negative[i]);
    if (normalization > 0)
        zi_limit_norm(positive, count, limit);
}

/* ---- input images ------------------------------------------------------------------------------------------------ */

/* VaeImageProcessor.get_default_height_width */
static zimage_status fit_size(const zi_networks *n, zi_image_role role, int64_t *width, int64_t *height,
                              zimage_error *error)
{
    int64_t multiple = size_multiple(n);
    if (*width < multiple || *height < multiple)
        return zi_fail(error, ZIMAGE_ERROR_ARGUMENT, "%lld x %lld pixels, expected at least %lld x %lld",
                       (long long)*width, (long long)*height, (long long)multiple, (long long)multiple);
    *width -= *width % multiple;
    *height -= *height % multiple;
    return ZIMAGE_OK;
}

static zimage_status fit_image(const zi_networks *n, zi_image_role role, const zi_pixels *image, int64_t width,
                               int64_t height, zi_pixels *out, zimage_error *error)
{
    return zi_resize_lanczos(image, (int32_t)width, (int32_t)height, out, error);
}

/* Of the pipeline's mask_processor, then the nearest pixel for a latent. */
static zimage_status fit_mask(const zi_networks *n, const zi_pixels *mask, int64_t width, int64_t height,
                              float *weights, zimage_error *error)
{
    int64_t scale = n->vae_config.scale_factor, columns = width / scale;
    zi_pixels repaint;
    ZI_TRY(zi_mask_binarize(mask, width, height, &repaint, error));
    for (int64_t row = 0; row < height / scale; row++)
        for (int64_t column = 0; column < columns; column++)
            weights[row * columns + column] = repaint.data[(row * width + column) * scale];
    zi_pixels_free(&repaint);
    return ZIMAGE_OK;
}

static int64_t moments_count(const zi_networks *n, int64_t pixel_rows, int64_t pixel_columns)
{
    int64_t scale = n->vae_config.scale_factor;
    return 2 * n->vae_config.latent_channels * (pixel_rows / scale) * (pixel_columns / scale);
}

static void image_latents(const zi_networks *n, const float *moments, const float *noise, int64_t rows, int64_t columns,
                          float *latents)
{
    zi_vae_latents(&n->vae, moments, noise, rows, columns, latents);
}

/* ---- on a backend ------------------------------------------------------------------------------------------------ */

static zimage_status encode(zi_run *run, const zi_networks *n, const int32_t *ids, int64_t tokens, zi_tensor *features)
{
    return zi_qwen3_encode(&n->text_encoder, run, ids, tokens, tokens, features);
}

static void context_shape(const zi_networks *n, int64_t tokens, int64_t shape[2])
{
    shape[0] = zi_zimage_dit_padded(tokens);
    shape[1] = n->transformer_config.dim;
}

static zimage_status make_context(zi_run *run, const zi_networks *n, const zi_tensor *features, zi_tensor *context)
{
    return zi_zimage_dit_caption(&n->transformer, run, features, context);
}

static zimage_status prepare(zi_run *run, const zi_networks *n, const zi_tensor *context, int64_t rows, int64_t columns,
                             const zi_reference *references, int reference_count, void *inputs)
{
    return zi_zimage_dit_prepare(&n->transformer, run, context, rows, columns, inputs);
}

static zimage_status forward(zi_run *run, const void *const *inputs, int count, const zi_tensor *latents, float time,
                             zi_tensor *out)
{
    const zi_zimage_dit_inputs *list[ZI_PASSES_MAX];
    for (int i = 0; i < count; i++)
        list[i] = inputs[i];
    return zi_zimage_dit_forward_passes(list, count, run, latents, time, out);
}

static zimage_status encode_image(zi_run *run, const zi_networks *n, const uint8_t *rgb8, int64_t pixel_rows,
                                  int64_t pixel_columns, int64_t band_rows, float *moments)
{
    return zi_vae_encode(&n->vae, run, rgb8, pixel_rows, pixel_columns, band_rows, moments);
}

static zimage_status decode(zi_run *run, const zi_networks *n, const float *latents, int64_t rows, int64_t columns,
                            int64_t band_rows, uint8_t *rgb8)
{
    return zi_vae_decode(&n->vae, run, latents, rows, columns, band_rows, &(zi_vae_output){.rgb8 = rgb8});
}

static int64_t encode_blocks(const zi_networks *n)
{
    return zi_qwen3_encode_blocks(&n->text_encoder);
}

static int64_t context_blocks(const zi_networks *n)
{
    return zi_zimage_dit_caption_blocks(&n->transformer);
}

static int64_t prepare_blocks(const zi_networks *n, int reference_count)
{
    return 0;
}

static int64_t forward_blocks(const zi_networks *n)
{
    return zi_zimage_dit_forward_blocks(&n->transformer);
}

static int64_t decode_blocks(const zi_networks *n)
{
    return zi_vae_decode_blocks(&n->vae);
}

static int64_t encode_image_blocks(const zi_networks *n)
{
    return zi_vae_encode_blocks(&n->vae);
}

/* The class of the text-to-image pipeline; folders of image-to-image and inpainting pipelines hold the same model. */
static const char *const pipeline_classes[] = {"ZImagePipeline", "ZImageImg2ImgPipeline", "ZImageInpaintPipeline",
                                               NULL};
static const char *const transformer_classes[] = {"ZImageTransformer2DModel", NULL};

const zi_family zi_family_zimage = {
    .name = "z-image",
    .pipeline_classes = pipeline_classes,
    .transformer_classes = transformer_classes,
    .components =
        {
            [ZI_TEXT_ENCODER] = {"text_encoder",
                                 "model",
                                 {"transformers", ZI_CLASSES("Qwen3Model", "Qwen3ForCausalLM")},
                                 NULL,
                                 1,
                                 configure_text,
                                 limit_text_layers,
                                 text_layers,
                                 bind_text,
                                 unbind_text},
            [ZI_TRANSFORMER] = {"transformer",
                                "diffusion_pytorch_model",
                                {"diffusers", transformer_classes},
                                zi_zimage_dit_fields,
                                0,
                                configure_transformer,
                                limit_transformer_layers,
                                transformer_layers,
                                bind_transformer,
                                unbind_transformer},
            [ZI_VAE] = {"vae",
                        "diffusion_pytorch_model",
                        {"diffusers", ZI_CLASSES("AutoencoderKL")},
                        zi_vae_fields,
                        0,
                        configure_vae,
                        limit_vae_layers,
                        vae_layers,
                        bind_vae,
                        unbind_vae},
        },
    .scheduler = {"diffusers", ZI_CLASSES("FlowMatchEulerDiscreteScheduler")},
    .scheduler_fields = zi_scheduler_fields,
    .tokenizer = {"transformers",
                  ZI_CLASSES("Qwen2Tokenizer", "Qwen2TokenizerFast", "PreTrainedTokenizerFast", "TokenizersBackend")},
    .networks_size = sizeof(zi_networks),
    .inputs_size = sizeof(zi_zimage_dit_inputs),
    .chat_template = ZIMAGE_TEMPLATE_Z_IMAGE,
    .check = check,
    .describe = describe,
    .default_scheduler = zi_scheduler_turbo,
    .feature_rows = feature_rows,
    .check_positions = check_positions,
    .sigmas = sigmas,
    .guides = guides,
    .guidance_at = guidance_at,
    .guide = guide,
    .velocity_sign = -1,
    .bf16_start_noise = 1,
    .time_at = time_at,
    .samples_start = 1,
    .fit_size = fit_size,
    .fit_image = fit_image,
    .fit_mask = fit_mask,
    .moments_count = moments_count,
    .image_latents = image_latents,
    .encode = encode,
    .context_shape = context_shape,
    .make_context = make_context,
    .prepare = prepare,
    .forward = forward,
    .encode_image = encode_image,
    .decode = decode,
    .encode_blocks = encode_blocks,
    .context_blocks = context_blocks,
    .prepare_blocks = prepare_blocks,
    .forward_blocks = forward_blocks,
    .decode_blocks = decode_blocks,
    .encode_image_blocks = encode_image_blocks,
};
