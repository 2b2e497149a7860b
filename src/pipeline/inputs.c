#include "pipeline/inputs.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "base/numbers.h"
#include "image/image.h"
#include "pipeline/composite.h"

#define OPAQUE 255

/* ---- checking ---------------------------------------------------------------------------------------------------- */

/* Whether the first image is where denoising starts. */
static int starts(const zi_facts *facts, const zimage_request *r)
{
    return r->image_count > 0 && (r->mask || facts->can_start_from_image);
}

static zi_image_role role_of(const zi_facts *facts, const zimage_request *r, size_t index)
{
    return index == 0 && starts(facts, r) ? ZI_IMAGE_START : ZI_IMAGE_REFERENCE;
}

static zimage_status check_count(const zi_facts *facts, const zimage_request *r, zimage_error *error)
{
    size_t most = (size_t)facts->max_references;
    if (starts(facts, r) && (!r->mask || !facts->inpaint_reads_image))
        most++;
    if (most > ZI_IMAGES_MAX)
        most = ZI_IMAGES_MAX;
    if (r->image_count > 0 && !r->images)
        return zi_fail(error, ZIMAGE_ERROR_ARGUMENT, "images: NULL, expected image_count of them, %zu", r->image_count);
    if (r->mask && r->image_count == 0)
        return zi_fail(error, ZIMAGE_ERROR_ARGUMENT, "mask: expected only with images, of whose first it is a part");
    if (r->composite && !r->mask)
        return zi_fail(error, ZIMAGE_ERROR_ARGUMENT,
                       "composite: %lld, expected 0 without a mask, outside of which the first image stays",
                       (long long)r->composite);
    if (r->image_count > 0 && !facts->has_image_encoder)
        return zi_fail(
            error, ZIMAGE_ERROR_MODEL,
            "images: %zu, expected none: the VAE of this model has no encoder, which a diffusers folder with "
            "encoder tensors in vae/ has",
            r->image_count);
    if (r->image_count > most)
        return zi_fail(error, ZIMAGE_ERROR_ARGUMENT, "images: %zu, expected at most %zu%s", r->image_count, most,
                       facts->max_references ? "" : ": this model starts from one image and reads no references");
    return ZIMAGE_OK;
}

/* Fills in sizes that are not given. */
static zimage_status check_image(const zi_model *model, zimage_request *r, size_t index, zimage_error *error)
{
    const zimage_image *image = r->images[index];
    zimage_error inner = ZIMAGE_ERROR_INIT;
    if (!image)
        return zi_fail(error, ZIMAGE_ERROR_ARGUMENT, "images[%zu]: NULL, expected an image", index);
    int64_t width = zimage_image_width(image), height = zimage_image_height(image);
    zimage_status status =
        model->family->fit_size(model->networks, role_of(&model->facts, r, index), &width, &height, &inner);
    if (status != ZIMAGE_OK)
        return zi_fail(error, status, "images[%zu]: %s", index, inner.message);
    if (index > 0)
        return ZIMAGE_OK;
    if ((!r->width && width > model->facts.max_width) || (!r->height && height > model->facts.max_height))
        return zi_fail(error, ZIMAGE_ERROR_ARGUMENT,
                       "images[0]: %d x %d pixels, expected at most %lld x %lld where the request gives no size",
                       zimage_image_width(image), zimage_image_height(image), (long long)model->facts.max_width,
                       (long long)model->facts.max_height);
    if (!r->width)
        r->width = (int32_t)width;
    if (!r->height)
        r->height = (int32_t)height;
    if (r->mask && (zimage_image_width(r->mask) != zimage_image_width(image) ||
                    zimage_image_height(r->mask) != zimage_image_height(image)))
        return zi_fail(error, ZIMAGE_ERROR_ARGUMENT, "mask: %d x %d pixels, expected %d x %d, those of the first image",
                       zimage_image_width(r->mask), zimage_image_height(r->mask), zimage_image_width(image),
                       zimage_image_height(image));
    return ZIMAGE_OK;
}

static zimage_status check_strength(const zi_facts *facts, zimage_request *r, zimage_error *error)
{
    if (!(r->strength >= 0 && r->strength <= 1))
        return zi_fail(error, ZIMAGE_ERROR_ARGUMENT, "strength: %g, expected more than 0 and at most 1", r->strength);
    if (!starts(facts, r)) {
        if (r->strength == 0)
            return ZIMAGE_OK;
        return zi_fail(error, ZIMAGE_ERROR_ARGUMENT, "strength: %g, expected only with %s", r->strength,
                       facts->can_start_from_image ? "an image to start from"
                                                   : "a mask: without one this model reads images as references");
    }
    if (r->strength == 0)
        r->strength = r->mask ? facts->default_mask_strength : facts->default_strength;
    if (r->steps > 0 && zi_first_step(r->steps, r->strength) >= r->steps)
        return zi_fail(error, ZIMAGE_ERROR_ARGUMENT, "strength: %g, expected more: none of the %d steps would be run",
                       r->strength, r->steps);
    return ZIMAGE_OK;
}

static zimage_status check_inputs(const zi_model *model, zimage_request *request, zimage_error *error)
{
    ZI_TRY(check_count(&model->facts, request, error));
    for (size_t i = 0; i < request->image_count; i++)
        ZI_TRY(check_image(model, request, i, error));
    return check_strength(&model->facts, request, error);
}

zimage_status zi_inputs_complete(const zi_model *model, zimage_request *request, zimage_error *error)
{
    const zi_facts *facts = &model->facts;
    if (!request->steps)
        request->steps = facts->default_steps;
    ZI_TRY(check_inputs(model, request, error));
    if (!request->width)
        request->width = zi_default_width(facts);
    if (!request->height)
        request->height = zi_default_height(facts);
    if (request->cfg_truncation == 0)
        request->cfg_truncation = 1;
    return ZIMAGE_OK;
}

/* ---- the job's images -------------------------------------------------------------------------------------------- */

static size_t pixel_bytes(const zimage_image *image)
{
    size_t places = (size_t)zimage_image_width(image) * (size_t)zimage_image_height(image);
    return places * (zimage_image_alpha(image) ? 4 : 3);
}

void zi_inputs_describe(const zimage_request *r, zi_job *job)
{
    const zi_model *model = job->model;
    const zi_facts *facts = &model->facts;
    job->images = (int)r->image_count;
    job->masked = r->mask != NULL;
    job->composite = r->composite != 0;
    job->given_bytes = r->mask ? pixel_bytes(r->mask) : 0;
    for (int i = 0; i < job->images; i++) {
        zi_image_role role = role_of(facts, r, (size_t)i);
        int64_t width = zimage_image_width(r->images[i]), height = zimage_image_height(r->images[i]);
        job->given_bytes += pixel_bytes(r->images[i]);
        if (role == ZI_IMAGE_START) {
            width = r->width;
            height = r->height;
        } else {
            model->family->fit_size(model->networks, role, &width, &height, NULL); /* zi_inputs_complete has tried it */
        }
        job->image[i] = (zi_job_image){.role = role, .pixel_rows = height, .pixel_columns = width};
        if (role == ZI_IMAGE_REFERENCE || (job->masked && facts->inpaint_reads_image))
            job->reference[job->references++] =
                (zi_reference){.rows = height / facts->scale_factor, .columns = width / facts->scale_factor};
    }
}

/* Numbers of the latents of pixels. */
static size_t latents_count(const zi_job *job, int index)
{
    const zi_facts *facts = &job->model->facts;
    int64_t rows = job->image[index].pixel_rows / facts->scale_factor;
    int64_t columns = job->image[index].pixel_columns / facts->scale_factor;
    return (size_t)(facts->latent_channels * rows * columns);
}

static int takes_noise(const zi_job *job, int index)
{
    const zi_family *family = job->model->family;
    return job->image[index].role == ZI_IMAGE_START ? family->samples_start : family->samples_reference;
}

static size_t moments_count(const zi_job *job, int index)
{
    const zi_job_image *image = &job->image[index];
    return (size_t)job->model->family->moments_count(job->model->networks, image->pixel_rows, image->pixel_columns);
}

size_t zi_inputs_bytes(const zi_job *job, int stage)
{
    size_t kept = job->given_bytes, most = 0, places = (size_t)(job->rows * job->columns);
    for (int i = 0; i < job->images; i++) {
        size_t latents = latents_count(job, i) * sizeof(float);
        size_t pixels = (size_t)(job->image[i].pixel_rows * job->image[i].pixel_columns) * 3;
        kept += latents;
        most = zi_max_size(most, pixels + moments_count(job, i) * sizeof(float) + takes_noise(job, i) * latents);
    }
    if (job->masked)
        kept += places * sizeof(float) * (size_t)(1 + job->model->facts.latent_channels);
    if (job->composite && stage == ZIMAGE_STAGE_DECODE)
        kept += zi_composite_bytes(job->image[0].pixel_columns, job->image[0].pixel_rows);
    return kept + (stage == ZIMAGE_STAGE_ENCODE ? most : 0);
}

/* ---- from pixels to latents -------------------------------------------------------------------------------------- */

zimage_status zi_inputs_mask(const zimage_image *mask, zi_pixels *pixels, zimage_error *error)
{
    const uint8_t *alpha = zimage_image_alpha(mask);
    size_t places = (size_t)zimage_image_width(mask) * (size_t)zimage_image_height(mask), opaque = 0;
    while (alpha && opaque < places && alpha[opaque] == OPAQUE)
        opaque++;
    int transparent = alpha && opaque < places;
    ZI_TRY(zi_pixels_new(zimage_image_width(mask), zimage_image_height(mask), transparent ? 1 : 3, pixels, error));
    if (!transparent)
        memcpy(pixels->data, zimage_image_pixels(mask), places * 3);
    for (size_t i = 0; transparent && i < places; i++)
        pixels->data[i] = (uint8_t)(OPAQUE - alpha[i]);
    return ZIMAGE_OK;
}

static zimage_status fit_mask(zi_inputs *inputs, const zimage_request *r, const zi_job *job, zimage_error *error)
{
    size_t places = (size_t)(job->rows * job->columns);
    size_t bytes = places * sizeof(float), kept = bytes * (size_t)job->model->facts.latent_channels;
    zi_pixels mask = {0};
    inputs->weights = malloc(bytes);
    inputs->start_noise = malloc(kept);
    if (!inputs->weights || !inputs->start_noise)
        return zi_fail_memory(error, "a mask", bytes + kept);
    ZI_TRY(zi_inputs_mask(r->mask, &mask, error));
    zimage_status status =
        job->model->family->fit_mask(job->model->networks, &mask, r->width, r->height, inputs->weights, error);
    zi_pixels_free(&mask);
    return status;
}

zimage_status zi_inputs_begin(zi_inputs *inputs, const zimage_request *r, const zi_job *job, zimage_error *error)
{
    const zi_family *family = job->model->family;
    *inputs = (zi_inputs){0};
    zi_noise_seed(&inputs->noise, r->rng, r->seed);
    inputs->in_bf16 = job->in_bf16 && family->bf16_latents;
    inputs->draws_bf16 = inputs->in_bf16 || (job->in_bf16 && family->bf16_start_noise && zi_job_starts(job));
    for (int i = 0; i < job->images; i++) {
        inputs->latents[i] = malloc(latents_count(job, i) * sizeof(float));
        if (!inputs->latents[i])
            return zi_fail_memory(error, "the latents of an input image", latents_count(job, i) * sizeof(float));
    }
    return job->masked ? fit_mask(inputs, r, job, error) : ZIMAGE_OK;
}

zimage_status zi_inputs_fit(zi_inputs *inputs, const zimage_request *r, zi_job *job, int index, zimage_error *error)
{
    const zi_model *model = job->model;
    zi_job_image *image = &job->image[index];
    size_t bytes = moments_count(job, index) * sizeof(float);
    /* fit_image only reads the pixels. */
    const zi_pixels whole = {.width = zimage_image_width(r->images[index]),
                             .height = zimage_image_height(r->images[index]),
                             .channels = 3,
                             .data = (uint8_t *)zimage_image_pixels(r->images[index])};
    ZI_TRY(model->family->fit_image(model->networks, image->role, &whole, image->pixel_columns, image->pixel_rows,
                                    &inputs->pixels, error));
    inputs->moments = malloc(bytes);
    if (!inputs->moments)
        return zi_fail_memory(error, "an input image", bytes);
    image->rgb8 = inputs->pixels.data;
    image->moments = inputs->moments;
    return ZIMAGE_OK;
}

static void round_all(const zi_inputs *inputs, float *values, size_t count)
{
    for (size_t i = 0; inputs->in_bf16 && i < count; i++)
        values[i] = zi_round_bf16(values[i]);
}

zimage_status zi_inputs_take(zi_inputs *inputs, zi_job *job, int index, zimage_error *error)
{
    const zi_model *model = job->model;
    zi_job_image *image = &job->image[index];
    int64_t scale = model->facts.scale_factor, rows = image->pixel_rows / scale, columns = image->pixel_columns / scale;
    size_t count = latents_count(job, index);
    float *noise = NULL;
    zi_pixels_free(&inputs->pixels);
    if (takes_noise(job, index)) {
        noise = malloc(count * sizeof *noise);
        if (!noise)
            return zi_fail_memory(error, "the noise of an input image", count * sizeof *noise);
        zi_noise_next(&inputs->noise, ZI_NOISE_POSTERIOR, inputs->draws_bf16, noise, (int64_t)count);
    }
    model->family->image_latents(model->networks, inputs->moments, noise, rows, columns, inputs->latents[index]);
    round_all(inputs, inputs->latents[index], count);
    free(noise);
    free(inputs->moments);
    inputs->moments = NULL;
    image->rgb8 = NULL;
    image->moments = NULL;
    int reference = index - (job->images - job->references);
    if (reference >= 0)
        job->reference[reference].latents = inputs->latents[index];
    return ZIMAGE_OK;
}

/* ---- denoising --------------------------------------------------------------------------------------------------- */

void zi_inputs_start(zi_inputs *inputs, const zimage_request *r, const zi_job *job, float sigma, float *latents)
{
    int64_t count = job->model->facts.latent_channels * job->rows * job->columns;
    if (r->latents)
        memcpy(latents, r->latents, (size_t)count * sizeof(float));
    else
        zi_noise_next(&inputs->noise, ZI_NOISE_LATENTS, inputs->draws_bf16, latents, count);
    round_all(inputs, latents, (size_t)count);
    if (job->masked)
        memcpy(inputs->start_noise, latents, (size_t)count * sizeof(float));
    if (zi_job_starts(job))
        zi_scale_noise(latents, inputs->latents[0], latents, count, sigma, inputs->in_bf16);
}

void zi_inputs_keep(const zi_inputs *inputs, const zi_job *job, float sigma_next, float *scratch, float *latents)
{
    int64_t channels = job->model->facts.latent_channels, places = job->rows * job->columns;
    const float *known = inputs->latents[0];
    if (!job->masked)
        return;
    if (sigma_next > 0) {
        zi_scale_noise(scratch, known, inputs->start_noise, channels * places, sigma_next, inputs->in_bf16);
        known = scratch;
    }
    zi_blend(latents, known, inputs->weights, channels, places, inputs->in_bf16);
}

void zi_inputs_free(zi_inputs *inputs)
{
    zi_pixels_free(&inputs->pixels);
    free(inputs->moments);
    for (int i = 0; i < ZI_IMAGES_MAX; i++)
        free(inputs->latents[i]);
    free(inputs->start_noise);
    free(inputs->weights);
    *inputs = (zi_inputs){0};
}
