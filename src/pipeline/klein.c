/*
 * FLUX.2-klein, distilled and base, as diffusers' pipelines/flux2/pipeline_flux2_klein.py runs it, with the inpainting
 * of pipeline_flux2_klein_inpaint.py, and klein-9B-KV as in pipeline_flux2_klein_kv.py: Qwen3 text features of three
 * layers with their padding, flow matching with the network's output noise - clean at time sigma, reference images as
 * further tokens, the VAE of FLUX.2.
 */
#include <math.h>
#include <string.h>

#include "base/json.h"
#include "base/numbers.h"
#include "image/pixels.h"
#include "model/flux2_dit.h"
#include "model/qwen3.h"
#include "model/vae.h"
#include "pipeline/family.h"
#include "pipeline/masks.h"
#include "sampler/guidance.h"
#include "text/tokenizer.h"

#define PROMPT_TOKENS   512 /* the pipeline's max_sequence_length, template and padding included */
#define DISTILLED_STEPS 4
#define BASE_STEPS      50 /* the pipeline's default num_inference_steps */
#define BASE_GUIDANCE   4  /* and guidance_scale */
#define MASK_STRENGTH   0.8
#define DEFAULT_SIDE    1024
#define MAX_SIDE        16384
#define MAX_REFERENCES  8
/* Of an input image (Flux2ImageProcessor, check_image_input and _resize_to_target_area). */
#define LEAST_SIDE  64
#define MOST_ASPECT 8
#define MOST_AREA   (1024 * 1024)

struct zi_networks {
    zi_qwen3_config text_config;
    zi_flux2_dit_config transformer_config;
    zi_vae_config vae_config;
    zi_sizes sizes;
    int distilled, keeps_references; /* of model_index.json; the latter: klein-9B-KV */
    int32_t pad_token;
    zi_qwen3 text_encoder;
    zi_flux2_dit transformer;
    zi_vae vae;
};

/* Which hidden states of the text encoder are the text features, side by side. */
static const int64_t feature_states[] = {9, 18, 27};

#define FEATURE_STATES (int)(sizeof feature_states / sizeof *feature_states)

/* ---- components -------------------------------------------------------------------------------------------------- */

static zimage_status configure_text(zi_networks *n, const char *path, const char *text, zimage_error *error)
{
    zi_qwen3_config *config = &n->text_config;
    int64_t last = feature_states[FEATURE_STATES - 1];
    ZI_TRY(zi_qwen3_config_read(path, text, config, error));
    if (config->num_hidden_layers <= last)
        return zi_fail(error, ZIMAGE_ERROR_MODEL,
                       "%s: num_hidden_layers is %lld, expected more than %lld: FLUX.2-klein reads the output of layer "
                       "%lld",
                       path, (long long)config->num_hidden_layers, (long long)last, (long long)last);
    memcpy(config->states, feature_states, sizeof feature_states);
    config->state_count = FEATURE_STATES;
    return ZIMAGE_OK;
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
    ZI_TRY(zi_flux2_dit_config_read(path, text, &n->transformer_config, error));
    return zi_sizes_read(path, text, &n->sizes, error);
}

static void limit_blocks(zi_flux2_dit_config *config, int64_t layers)
{
    config->num_layers = zi_min_int64(config->num_layers, layers);
    config->num_single_layers = zi_min_int64(config->num_single_layers, layers);
}

static void limit_transformer_layers(zi_networks *n, int64_t layers)
{
    limit_blocks(&n->transformer_config, layers);
    limit_blocks(&n->transformer.config, layers);
}

static int64_t transformer_layers(const zi_networks *n)
{
    return n->transformer.config.num_layers + n->transformer.config.num_single_layers;
}

static zimage_status bind_transformer(zi_networks *n, zi_store *store, const zi_log *log, zimage_error *error)
{
    return zi_flux2_dit_bind(&n->transformer, &n->transformer_config, store, log, error);
}

static void unbind_transformer(zi_networks *n)
{
    zi_flux2_dit_free(&n->transformer);
}

static zimage_status configure_vae(zi_networks *n, const char *path, const char *text, zimage_error *error)
{
    return zi_vae_flux2_config_read(path, text, &n->vae_config, error);
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

static zimage_status read_index(zi_networks *n, const zi_json_reader *index, const zi_log *log)
{
    const int fallback = 0;
    const char *class_name;
    n->distilled = 1;
    if (!index->object) {
        zi_warn(log,
                "%s: there is no such file: the model is taken for the distilled one of %d steps without guidance; a "
                "file {\"_class_name\": \"Flux2KleinPipeline\", \"is_distilled\": false} would say otherwise",
                index->path, DISTILLED_STEPS);
        return ZIMAGE_OK;
    }
    ZI_TRY(zi_json_string(index, "_class_name", NULL, &class_name));
    n->keeps_references = strcmp(class_name, "Flux2KleinKVPipeline") == 0;
    return n->keeps_references ? ZIMAGE_OK : zi_json_bool(index, "is_distilled", &fallback, &n->distilled);
}

static zimage_status read_tokenizer(zi_networks *n, const zi_tokenizer *tokenizer, zimage_error *error)
{
    return zi_tokenizer_pad(tokenizer, &n->pad_token, error);
}

static zimage_status check(const zi_networks *n, const int present[ZI_COMPONENTS], int64_t vocabulary, const char *path,
                           zimage_error *error)
{
    int64_t channels = zi_vae_latent_channels(&n->vae_config), features = n->text_config.hidden_size * FEATURE_STATES;
    const zi_flux2_dit_config *dit = &n->transformer_config;
    if (present[ZI_VAE] && present[ZI_TRANSFORMER] && channels != dit->in_channels)
        return zi_fail(error, ZIMAGE_ERROR_MODEL,
                       "%s/vae/config.json: latent_channels and patch_size make %lld channels, expected the "
                       "transformer's in_channels, %lld",
                       path, (long long)channels, (long long)dit->in_channels);
    if (present[ZI_TEXT_ENCODER] && present[ZI_TRANSFORMER] && features != dit->joint_dim)
        return zi_fail(error, ZIMAGE_ERROR_MODEL,
                       "%s/text_encoder/config.json: %d times hidden_size is %lld, expected the transformer's "
                       "joint_attention_dim, %lld",
                       path, FEATURE_STATES, (long long)features, (long long)dit->joint_dim);
    if (present[ZI_TEXT_ENCODER] && vocabulary > n->text_config.vocab_size)
        return zi_fail(error, ZIMAGE_ERROR_MODEL,
                       "%s/tokenizer: the largest token id is %lld, expected less than the text encoder's vocab_size, "
                       "%lld",
                       path, (long long)vocabulary - 1, (long long)n->text_config.vocab_size);
    return ZIMAGE_OK;
}

static void describe(const zi_networks *n, const zi_scheduler_config *scheduler, zi_facts *facts)
{
    int64_t multiple = zi_vae_latent_size(&n->vae_config);
    *facts = (zi_facts){
        .latent_channels = n->transformer_config.in_channels,
        .scale_factor = multiple,
        .size_multiple = multiple,
        .max_height = MAX_SIDE / multiple * multiple,
        .max_width = MAX_SIDE / multiple * multiple,
        .default_side = DEFAULT_SIDE / multiple * multiple,
        .features = n->transformer_config.joint_dim,
        .vocabulary = n->text_config.vocab_size,
        .max_prompt_tokens = PROMPT_TOKENS,
        .sizes = n->sizes,
        .default_steps = n->distilled ? DISTILLED_STEPS : BASE_STEPS,
        .distilled = n->distilled,
        .default_guidance = n->distilled ? 0 : BASE_GUIDANCE,
        .has_image_encoder = n->vae.has_encoder,
        .max_references = MAX_REFERENCES,
        .inpaint_reads_image = 1,
        .default_mask_strength = MASK_STRENGTH,
    };
}

/* ---- in host memory ---------------------------------------------------------------------------------------------- */

static int64_t feature_rows(const zi_networks *n, int64_t tokens)
{
    return PROMPT_TOKENS;
}

/* Positions are numbers of any size. */
static zimage_status check_positions(const zi_networks *n, int64_t tokens, int64_t rows, int64_t columns,
                                     zimage_error *error)
{
    return ZIMAGE_OK;
}

static zimage_status sigmas(const zi_networks *n, const zi_scheduler_config *scheduler, int steps, int64_t rows,
                            int64_t columns, float *out, zimage_error *error)
{
    zi_flux2_sigmas(scheduler, steps, rows * columns, out);
    for (int i = 0; i < steps; i++)
        if (!isfinite(out[i]))
            return zi_fail(
                error, ZIMAGE_ERROR_ARGUMENT,
                "width, height: %lld image tokens lead to a shift of %g, and sigma %d is not a finite number",
                (long long)(rows * columns), zi_flux2_mu(rows * columns, steps), i + 1);
    return ZIMAGE_OK;
}

static int guides(const zi_networks *n, float scale)
{
    return scale > 1 && !n->distilled;
}

static float guidance_at(float scale, double truncation, float sigma)
{
    return truncation <= 1 && 1 - sigma > truncation ? 0 : scale;
}

/* negative + scale (positive - negative) */
static void guide(float *positive, const float *negative, int64_t count, float scale, float normalization)
{
    float limit = normalization > 0 ? zi_l2_norm(positive, count) * normalization : 0;
    for (int64_t i = 0; i < count; i++)
        positive[i] = negative[i] + scale * (positive[i] - negative[i]);
    if (normalization > 0)
        zi_limit_norm(positive, count, limit);
}

/* ---- input images ------------------------------------------------------------------------------------------------ */

/* To at most MOST_AREA pixels (Flux2ImageProcessor._resize_to_target_area). */
static void limit_area(int64_t *width, int64_t *height)
{
    double area = (double)*width * (double)*height;
    if (area <= MOST_AREA)
        return;
    double scale = sqrt(MOST_AREA / area);
    *width = (int64_t)((double)*width * scale);
    *height = (int64_t)((double)*height * scale);
}

static zimage_status fit_size(const zi_networks *n, zi_image_role role, int64_t *width, int64_t *height,
                              zimage_error *error)
{
    int64_t multiple = zi_vae_latent_size(&n->vae_config), w = *width, h = *height;
    int too_narrow = w > MOST_ASPECT * h || h > MOST_ASPECT * w;
    if (role == ZI_IMAGE_REFERENCE && (w < LEAST_SIDE || h < LEAST_SIDE || too_narrow))
        return zi_fail(error, ZIMAGE_ERROR_ARGUMENT,
                       "%lld x %lld pixels, expected sides of at least %d, none more than %d times the other",
                       (long long)w, (long long)h, LEAST_SIDE, MOST_ASPECT);
    limit_area(&w, &h);
    if (w < multiple || h < multiple)
        return zi_fail(error, ZIMAGE_ERROR_ARGUMENT,
                       "%lld x %lld pixels, expected sides of at least %lld, also when scaled to %d pixels in all",
                       (long long)*width, (long long)*height, (long long)multiple, MOST_AREA);
    *width = w / multiple * multiple;
    *height = h / multiple * multiple;
    return ZIMAGE_OK;
}

static zimage_status crop_centre(const zi_pixels *in, int64_t width, int64_t height, zi_pixels *out,
                                 zimage_error *error)
{
    size_t left = (size_t)((in->width - width) / 2), top = (size_t)((in->height - height) / 2);
    size_t pixel = (size_t)in->channels, row = (size_t)width * pixel, in_row = (size_t)in->width * pixel;
    ZI_TRY(zi_pixels_new((int32_t)width, (int32_t)height, in->channels, out, error));
    for (size_t y = 0; y < (size_t)height; y++)
        memcpy(out->data + y * row, in->data + (top + y) * in_row + left * pixel, row);
    return ZIMAGE_OK;
}

/*
 * An image of the size that fit_size gave is scaled down to the largest area first. Then a reference is cropped, and a
 * start image is scaled again. A start image of another size, which the request gives, is scaled once.
 */
static zimage_status fit_image(const zi_networks *n, zi_image_role role, const zi_pixels *image, int64_t width,
                               int64_t height, zi_pixels *out, zimage_error *error)
{
    int64_t w = image->width, h = image->height, fitted_width = w, fitted_height = h;
    zi_pixels scaled;
    if (role == ZI_IMAGE_START && (fit_size(n, role, &fitted_width, &fitted_height, NULL) != ZIMAGE_OK ||
                                   fitted_width != width || fitted_height != height))
        return zi_resize_lanczos(image, (int32_t)width, (int32_t)height, out, error);
    limit_area(&w, &h);
    ZI_TRY(zi_resize_lanczos(image, (int32_t)w, (int32_t)h, &scaled, error));
    zimage_status status = role == ZI_IMAGE_REFERENCE
                               ? crop_centre(&scaled, width, height, out, error)
                               : zi_resize_lanczos(&scaled, (int32_t)width, (int32_t)height, out, error);
    zi_pixels_free(&scaled);
    return status;
}

/* torch's interpolate(mode="bilinear") without antialiasing: of each square of `multiple` pixels, an even number, the
 * mean of the four in its middle. */
static zimage_status fit_mask(const zi_networks *n, const zi_pixels *mask, int64_t width, int64_t height,
                              float *weights, zimage_error *error)
{
    int64_t multiple = zi_vae_latent_size(&n->vae_config), rows = height / multiple, columns = width / multiple;
    zi_pixels repaint;
    ZI_TRY(zi_mask_binarize(mask, width, height, &repaint, error));
    for (int64_t y = 0; y < rows; y++)
        for (int64_t x = 0; x < columns; x++) {
            const uint8_t *above = repaint.data + (y * multiple + multiple / 2 - 1) * width + x * multiple +
                                   multiple / 2 - 1,
                          *below = above + width;
            weights[y * columns + x] = (float)(above[0] + above[1] + below[0] + below[1]) / 4;
        }
    zi_pixels_free(&repaint);
    return ZIMAGE_OK;
}

/* Two numbers for each latent of the encoder, of which a patch holds several. */
static int64_t moments_count(const zi_networks *n, int64_t pixel_rows, int64_t pixel_columns)
{
    int64_t size = zi_vae_latent_size(&n->vae_config);
    return 2 * zi_vae_latent_channels(&n->vae_config) * (pixel_rows / size) * (pixel_columns / size);
}

static void image_latents(const zi_networks *n, const float *moments, const float *noise, int64_t rows, int64_t columns,
                          float *latents)
{
    int64_t patch = n->vae_config.patch;
    zi_vae_latents(&n->vae, moments, noise, rows * patch, columns * patch, latents);
}

/* ---- on a backend ------------------------------------------------------------------------------------------------ */

static zimage_status encode(zi_run *run, const zi_networks *n, const int32_t *ids, int64_t tokens, zi_tensor *features)
{
    int32_t padded[PROMPT_TOKENS];
    for (int64_t i = 0; i < PROMPT_TOKENS; i++)
        padded[i] = i < tokens ? ids[i] : n->pad_token;
    return zi_qwen3_encode(&n->text_encoder, run, padded, PROMPT_TOKENS, tokens, features);
}

static void context_shape(const zi_networks *n, int64_t tokens, int64_t shape[2])
{
    shape[0] = tokens;
    shape[1] = n->transformer_config.dim;
}

static zimage_status make_context(zi_run *run, const zi_networks *n, const zi_tensor *features, zi_tensor *context)
{
    return zi_flux2_dit_context(&n->transformer, run, features, context);
}

static zimage_status prepare(zi_run *run, const zi_networks *n, const zi_tensor *context, int64_t rows, int64_t columns,
                             const zi_reference *references, int reference_count, void *inputs)
{
    const zi_flux2_references list = {references, reference_count, n->keeps_references};
    return zi_flux2_dit_prepare(&n->transformer, run, context, rows, columns, &list, inputs);
}

static zimage_status forward(zi_run *run, const void *const *inputs, int count, const zi_tensor *latents, float time,
                             zi_tensor *out)
{
    const zi_flux2_dit_inputs *list[ZI_PASSES_MAX];
    for (int i = 0; i < count; i++)
        list[i] = inputs[i];
    return zi_flux2_dit_forward_passes(list, count, run, latents, time, out);
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
    return zi_flux2_dit_context_blocks(&n->transformer);
}

static int64_t prepare_blocks(const zi_networks *n, int reference_count)
{
    const zi_flux2_references list = {NULL, reference_count, n->keeps_references};
    return zi_flux2_dit_prepare_blocks(&n->transformer, &list);
}

static int64_t forward_blocks(const zi_networks *n)
{
    return zi_flux2_dit_forward_blocks(&n->transformer);
}

static int64_t decode_blocks(const zi_networks *n)
{
    return zi_vae_decode_blocks(&n->vae);
}

static int64_t encode_image_blocks(const zi_networks *n)
{
    return zi_vae_encode_blocks(&n->vae);
}

static const char *const pipeline_classes[] = {"Flux2KleinPipeline", "Flux2KleinInpaintPipeline",
                                               "Flux2KleinKVPipeline", NULL};
static const char *const transformer_classes[] = {"Flux2Transformer2DModel", NULL};
static const char *const index_fields[] = {"is_distilled", NULL};

const zi_family zi_family_klein = {
    .name = "flux2-klein",
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
                                zi_flux2_dit_fields,
                                0,
                                configure_transformer,
                                limit_transformer_layers,
                                transformer_layers,
                                bind_transformer,
                                unbind_transformer},
            [ZI_VAE] = {"vae",
                        "diffusion_pytorch_model",
                        {"diffusers", ZI_CLASSES("AutoencoderKLFlux2")},
                        zi_vae_flux2_fields,
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
    .index_fields = index_fields,
    .networks_size = sizeof(zi_networks),
    .inputs_size = sizeof(zi_flux2_dit_inputs),
    .chat_template = ZIMAGE_TEMPLATE_KLEIN,
    .read_index = read_index,
    .read_tokenizer = read_tokenizer,
    .check = check,
    .describe = describe,
    .default_scheduler = zi_scheduler_flux2,
    .feature_rows = feature_rows,
    .check_positions = check_positions,
    .sigmas = sigmas,
    .guides = guides,
    .guidance_at = guidance_at,
    .guide = guide,
    .velocity_sign = 1,
    .bf16_latents = 1,
    .bf16_start_noise = 1,
    .time_at = zi_flux2_timestep,
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
