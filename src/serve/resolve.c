#include "resolve.h"

#include <ctype.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#ifdef __APPLE__
#include <sys/random.h>
#endif

#define STEPS_FACTOR    4 /* --max-steps, if it is not given: so many times the model's steps */
#define COMPRESSION_MAX 100
#define SEED_SHIFT      11 /* random seeds are whole numbers of 53 bits, which JavaScript keeps exactly */

enum { QUALITY_AUTO, QUALITY_LOW, QUALITY_MEDIUM, QUALITY_HIGH, QUALITY_STANDARD, QUALITY_HD };

int resolve_early(serve_request *r, const serve_params *params, fault *f)
{
    int64_t n = r->n * r->batch_size * r->n_iter;
    const char *name = is_sdapi_dialect(r->dialect) ? "batch_size" : "n";
    if (n > params->max_images)
        return fault_set(f, FAULT_INVALID_VALUE, name, "%s: %lld images, expected at most %d", name, (long long)n,
                         params->max_images);
    if (REQUEST_HAS(r, partial_images) && !r->stream)
        return fault_set(f, FAULT_INVALID_VALUE, "partial_images", "partial_images: expected only with stream");
    if (r->progress && !r->stream)
        return fault_set(f, FAULT_INVALID_VALUE, "progress", "progress: expected only with stream");
    if (REQUEST_HAS(r, compression) && r->format == ZIMAGE_FORMAT_PNG)
        return fault_set(f, FAULT_INVALID_VALUE, "output_compression",
                         "output_compression: expected only for jpeg or webp; png loses nothing");
    if (r->mask && r->image_count == 0)
        return fault_set(f, FAULT_MISSING_PARAMETER, "image", "image: missing, a mask is a part of an image");
    if (r->composite && !r->mask)
        return fault_set(f, FAULT_INVALID_VALUE, "composite", "composite: expected only with a mask");
    if (REQUEST_HAS(r, strength) && !(r->strength > 0) && r->image_count > 0)
        return fault_set(f, FAULT_INVALID_VALUE, "strength", "strength: expected a number above 0, at most 1");
    if ((r->dialect == DIALECT_EDIT || r->dialect == DIALECT_IMG2IMG) && r->image_count == 0) {
        const char *image = r->dialect == DIALECT_EDIT ? "image" : "init_images";
        return fault_set(f, FAULT_MISSING_PARAMETER, image, "%s: missing, expected an input image", image);
    }
    return 1;
}

/* ---- sizes ---- */

static int parse_size(const char *text, int64_t *width, int64_t *height)
{
    char *end;
    if (!isdigit((unsigned char)*text))
        return 0;
    *width = strtoll(text, &end, 10);
    if ((*end != 'x' && *end != 'X') || !isdigit((unsigned char)end[1]))
        return 0;
    *height = strtoll(end + 1, &end, 10);
    return !*end && *width > 0 && *height > 0;
}

static int64_t nearest(int64_t side, int64_t multiple, int64_t most)
{
    int64_t legal = (side > most ? most : side) + multiple / 2;
    legal -= legal % multiple;
    return legal < multiple ? multiple : legal > most ? most - most % multiple : legal;
}

/* As in an edit without a size: the first image's, on the model's grid. */
static void size_of_image(const serve_request *r, const zimage_model_info *info, resolved_request *out)
{
    const zimage_image *image = r->images[0];
    out->width = (int32_t)nearest(zimage_image_width(image), info->size_multiple, info->max_width);
    out->height = (int32_t)nearest(zimage_image_height(image), info->size_multiple, info->max_height);
}

static int check_size(int64_t width, int64_t height, const char *name, const zimage_model_info *info,
                      resolved_request *out, fault *f)
{
    int64_t good_width = nearest(width, info->size_multiple, info->max_width);
    int64_t good_height = nearest(height, info->size_multiple, info->max_height);
    if (width != good_width || height != good_height)
        return fault_set(f, FAULT_INVALID_VALUE, name,
                         "%s: %lldx%lld, expected multiples of %d up to %dx%d; the nearest is %lldx%lld", name,
                         (long long)width, (long long)height, info->size_multiple, info->max_width, info->max_height,
                         (long long)good_width, (long long)good_height);
    out->width = (int32_t)width;
    out->height = (int32_t)height;
    return 1;
}

static int resolve_size(const serve_request *r, const zimage_model_info *info, resolved_request *out, fault *f)
{
    int64_t width, height;
    out->width = info->default_width;
    out->height = info->default_height;
    if (r->image_count > 0)
        size_of_image(r, info, out);
    if (REQUEST_HAS(r, width) || REQUEST_HAS(r, height))
        return check_size(r->width ? r->width : out->width, r->height ? r->height : out->height, "width", info, out, f);
    if (!r->size || !strcmp(r->size, "auto"))
        return 1;
    if (!parse_size(r->size, &width, &height))
        return fault_set(f, FAULT_INVALID_VALUE, "size",
                         "size: expected auto, or a width and a height such as 1024x768");
    return check_size(width, height, "size", info, out, f);
}

static int check_pixels(const serve_request *r, const serve_params *params, const resolved_request *out, fault *f)
{
    const char *name = is_sdapi_dialect(r->dialect) ? "width" : "size";
    if (params->max_pixels == 0 || (int64_t)out->width * out->height <= params->max_pixels)
        return 1;
    return fault_set(f, FAULT_INVALID_VALUE, name, "%s: %dx%d, expected at most %lld pixels", name, out->width,
                     out->height, (long long)params->max_pixels);
}

/* ---- steps and guidance ---- */

static int resolve_steps(serve_request *r, const zimage_model_info *info, const serve_params *params,
                         resolved_request *out, fault *f)
{
    int32_t own = info->default_steps, most = params->max_steps ? params->max_steps : STEPS_FACTOR * own;
    int is_double = (r->quality == QUALITY_HIGH || r->quality == QUALITY_HD) && !info->distilled;
    out->steps = r->quality == QUALITY_LOW ? (own + 1) / 2 : is_double ? 2 * own : own;
    if (!REQUEST_HAS(r, steps))
        return 1;
    out->steps = (int32_t)r->steps;
    int32_t enough = params->sdapi_max_steps ? params->sdapi_max_steps : own;
    if (is_sdapi_dialect(r->dialect) && info->distilled && r->steps > enough) {
        serve_request_warn(r, "steps: %lld, %d were made: the model is distilled", (long long)r->steps, enough);
        out->steps = enough;
    }
    if (out->steps > most)
        return fault_set(f, FAULT_INVALID_VALUE, "steps", "steps: %d, expected at most %d", out->steps, most);
    return 1;
}

/* A field that clients of AUTOMATIC1111 always send is ignored where it means nothing; others ask for it. */
static int drop_or_refuse(serve_request *r, const char *name, fault *f, const char *why)
{
    if (!is_sdapi_dialect(r->dialect))
        return fault_set(f, FAULT_INVALID_VALUE, name, "%s: %s", name, why);
    serve_request_ignore(r, name);
    return 1;
}

static int resolve_guidance(serve_request *r, const zimage_model_info *info, resolved_request *out, fault *f)
{
    out->guidance = info->default_guidance;
    if (REQUEST_HAS(r, guidance))
        out->guidance = r->guidance;
    if (REQUEST_HAS(r, cfg_scale) && !info->distilled)
        out->guidance = r->cfg_scale > 1 ? r->cfg_scale - 1 : 0;
    if (info->distilled && REQUEST_HAS(r, cfg_scale))
        serve_request_ignore(r, "cfg_scale");
    if (info->distilled && out->guidance > 0)
        return fault_set(f, FAULT_UNSUPPORTED_VALUE, "guidance", "guidance: %g, expected 0: the model is distilled",
                         out->guidance);
    if (r->negative_prompt && r->negative_prompt[0] && !(out->guidance > 0))
        return drop_or_refuse(r, "negative_prompt", f, "expected only with a guidance above 0");
    return 1;
}

/* ---- images ---- */

static int resolve_images(serve_request *r, const zimage_model_info *info, resolved_request *out, fault *f)
{
    const char *name = is_sdapi_dialect(r->dialect) ? "denoising_strength" : "strength";
    if (r->image_count > 0 && !info->has_image_encoder)
        return fault_set(f, FAULT_UNSUPPORTED_MODEL, "model", "image: the model has no encoder of images");
    if (!REQUEST_HAS(r, strength))
        return 1;
    if (r->image_count == 0)
        return drop_or_refuse(r, name, f, "expected only with an image");
    if (info->max_references > 0 && !r->mask)
        return drop_or_refuse(r, name, f, "expected only with a model that starts from an image");
    out->strength = r->strength;
    return 1;
}

int request_previews(const serve_request *r)
{
    return r->dialect == DIALECT_JOB || is_sdapi_dialect(r->dialect) ? 2 : r->partial_images > 0;
}

int resolve_request(serve_request *r, const zimage_model_info *info, const serve_params *params,
                    resolved_request *resolved, fault *f)
{
    *resolved =
        (resolved_request){.format = (zimage_format)r->format, .seed = r->seed, .previews = request_previews(r)};
    if (!REQUEST_HAS(r, seed)) {
        if (getentropy(&resolved->seed, sizeof resolved->seed) != 0)
            return fault_set(f, FAULT_INTERNAL, NULL, "the system has no random number for a seed");
        resolved->seed >>= SEED_SHIFT;
    }
    memcpy(resolved->fingerprint, info->fingerprint, sizeof resolved->fingerprint);
    if (r->format != ZIMAGE_FORMAT_PNG)
        resolved->quality = REQUEST_HAS(r, compression) ? (int)(r->compression ? r->compression : 1) : COMPRESSION_MAX;
    return resolve_size(r, info, resolved, f) && check_pixels(r, params, resolved, f) &&
           resolve_steps(r, info, params, resolved, f) && resolve_guidance(r, info, resolved, f) &&
           resolve_images(r, info, resolved, f);
}

void resolve_fill(const serve_request *r, const resolved_request *resolved, int index, zimage_request *library)
{
    *library = (zimage_request){
        .struct_size = sizeof *library,
        .preview = resolved->previews,
        .prompt = r->prompt,
        .negative_prompt = resolved->guidance > 0 ? r->negative_prompt : NULL,
        .width = resolved->width,
        .height = resolved->height,
        .steps = resolved->steps,
        .rng = (zimage_rng)r->rng,
        .seed = resolved->seed + (uint64_t)index,
        .guidance_scale = (float)resolved->guidance,
        .images = (const zimage_image *const *)r->images,
        .image_count = r->image_count,
        .mask = r->mask,
        .strength = resolved->strength,
        .composite = r->composite,
    };
}
