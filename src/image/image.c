/* Images: what they hold, and how they are made of pixels. */
#include "image/image.h"

#include <stdlib.h>
#include <string.h>

#include "base/sized.h"

struct zimage_image {
    int32_t width, height;
    uint8_t *pixels; /* [height][width][3] */
    uint8_t *alpha;  /* [height][width]; NULL: all is opaque */
    float *latents;  /* [channels, rows, columns]; NULL: it was not generated */
    int64_t latents_shape[3];
    double stage_seconds[ZIMAGE_STAGE_COUNT];
    zimage_image_info info;
    zimage_memory_info memory;
};

zimage_status zi_image_new(int32_t width, int32_t height, zimage_image **image, zimage_error *error)
{
    size_t bytes = (size_t)width * (size_t)height * 3;
    *image = calloc(1, sizeof **image);
    uint8_t *pixels = malloc(bytes);
    if (!*image || !pixels) {
        free(pixels);
        free(*image);
        *image = NULL;
        return zi_fail_memory(error, "an image", bytes);
    }
    (*image)->width = width;
    (*image)->height = height;
    (*image)->pixels = pixels;
    return ZIMAGE_OK;
}

uint8_t *zi_image_pixels(zimage_image *image)
{
    return image->pixels;
}

zimage_status zi_image_add_latents(zimage_image *image, int64_t channels, int64_t rows, int64_t columns,
                                   zimage_error *error)
{
    const int64_t shape[3] = {channels, rows, columns};
    size_t bytes = (size_t)(channels * rows * columns) * sizeof(float);
    image->latents = malloc(bytes);
    if (!image->latents)
        return zi_fail_memory(error, "latents", bytes);
    memcpy(image->latents_shape, shape, sizeof shape);
    return ZIMAGE_OK;
}

float *zi_image_latents(zimage_image *image)
{
    return image->latents;
}

void zi_image_add_seconds(zimage_image *image, zimage_stage stage, double seconds)
{
    image->stage_seconds[stage] += seconds;
}

zimage_image_info *zi_image_info(zimage_image *image)
{
    return &image->info;
}

zimage_memory_info *zi_image_memory(zimage_image *image)
{
    return &image->memory;
}

/* ---- accessors --------------------------------------------------------------------------------------------------- */

int32_t zimage_image_width(const zimage_image *image)
{
    return image ? image->width : 0;
}

int32_t zimage_image_height(const zimage_image *image)
{
    return image ? image->height : 0;
}

const uint8_t *zimage_image_pixels(const zimage_image *image)
{
    return image ? image->pixels : NULL;
}

const uint8_t *zimage_image_alpha(const zimage_image *image)
{
    return image ? image->alpha : NULL;
}

void zimage_image_free(zimage_image *image)
{
    if (!image)
        return;
    free(image->pixels);
    free(image->alpha);
    free(image->latents);
    free(image);
}

zimage_status zimage_image_get_info(const zimage_image *image, zimage_image_info *info, zimage_error *error)
{
    if (!image)
        return zi_fail(error, ZIMAGE_ERROR_ARGUMENT, "image: NULL, expected an image");
    return ZI_GIVE(info, &image->info, zimage_image_info, seconds, error);
}

double zimage_image_seconds(const zimage_image *image, zimage_stage stage)
{
    return image && (unsigned)stage < ZIMAGE_STAGE_COUNT ? image->stage_seconds[stage] : 0;
}

zimage_status zimage_image_get_memory(const zimage_image *image, zimage_memory_info *info, zimage_error *error)
{
    if (!image)
        return zi_fail(error, ZIMAGE_ERROR_ARGUMENT, "image: NULL, expected an image");
    return ZI_GIVE(info, &image->memory, zimage_memory_info, shared_bytes, error);
}

const float *zimage_image_latents(const zimage_image *image, int64_t shape[3])
{
    if (shape)
        memset(shape, 0, sizeof image->latents_shape);
    if (image && shape)
        memcpy(shape, image->latents_shape, sizeof image->latents_shape);
    return image ? image->latents : NULL;
}

/* ---- from pixels ------------------------------------------------------------------------------------------------- */

const uint8_t zi_white[3] = {255, 255, 255};

static void copy_row(uint8_t *rgb, const uint8_t *pixels, int32_t width, int channels, const uint8_t background[3])
{
    for (int32_t x = 0; x < width; x++, rgb += 3, pixels += channels) {
        unsigned alpha = channels == 4 ? pixels[3] : 255;
        for (int c = 0; c < 3; c++) /* blended, rounded to nearest */
            rgb[c] = (uint8_t)((pixels[c] * alpha + background[c] * (255 - alpha) + 127) / 255);
    }
}

/* Keeps the alpha plane of pixels with 4 channels, unless all are opaque. */
static zimage_status keep_alpha(zimage_image *image, const uint8_t *pixels, size_t stride, zimage_error *error)
{
    size_t width = (size_t)image->width, height = (size_t)image->height;
    int opaque = 1;
    for (size_t y = 0; y < height && opaque; y++)
        for (size_t x = 0; x < width && opaque; x++)
            opaque = pixels[y * stride + 4 * x + 3] == 255;
    if (opaque)
        return ZIMAGE_OK;
    image->alpha = malloc(width * height);
    if (!image->alpha)
        return zi_fail_memory(error, "the alpha of an image", width * height);
    for (size_t y = 0; y < height; y++)
        for (size_t x = 0; x < width; x++)
            image->alpha[y * width + x] = pixels[y * stride + 4 * x + 3];
    return ZIMAGE_OK;
}

zimage_status zi_image_copy(const zi_pixels *pixels, size_t stride, const uint8_t background[3], zimage_image **image,
                            zimage_error *error)
{
    size_t width = (size_t)pixels->width;
    ZI_TRY(zi_image_new(pixels->width, pixels->height, image, error));
    for (size_t y = 0; y < (size_t)pixels->height; y++)
        copy_row((*image)->pixels + y * width * 3, pixels->data + y * stride, pixels->width, pixels->channels,
                 background);
    zimage_status status = pixels->channels == 4 ? keep_alpha(*image, pixels->data, stride, error) : ZIMAGE_OK;
    if (status != ZIMAGE_OK) {
        zimage_image_free(*image);
        *image = NULL;
    }
    return status;
}

/* The least colour that copy_row blends to `blended`, or to more. A step of the colour adds at most 1 to the result,
 * so it is `blended` itself wherever that came from a colour. */
static uint8_t unblend(unsigned blended, unsigned alpha, unsigned background)
{
    unsigned rest = background * (255 - alpha) + 127;
    if (alpha == 0 || 255 * blended <= rest)
        return 0;
    unsigned colour = (255 * blended - rest + alpha - 1) / alpha;
    return (uint8_t)(colour < 255 ? colour : 255);
}

zimage_status zi_image_unblend(const zimage_image *image, const uint8_t background[3], uint8_t **rgba,
                               zimage_error *error)
{
    size_t count = (size_t)image->width * (size_t)image->height;
    uint8_t *out = *rgba = malloc(4 * count);
    if (!out)
        return zi_fail_memory(error, "an image with alpha", 4 * count);
    for (size_t i = 0; i < count; i++) {
        for (size_t c = 0; c < 3; c++)
            out[4 * i + c] = unblend(image->pixels[3 * i + c], image->alpha[i], background[c]);
        out[4 * i + 3] = image->alpha[i];
    }
    return ZIMAGE_OK;
}

zimage_status zi_image_take(zi_pixels *pixels, zimage_image **image, zimage_error *error)
{
    *image = calloc(1, sizeof **image);
    if (!*image)
        return zi_fail_memory(error, "an image", sizeof **image);
    **image = (zimage_image){.width = pixels->width, .height = pixels->height, .pixels = pixels->data};
    *pixels = (zi_pixels){0};
    return ZIMAGE_OK;
}

zimage_status zimage_image_from_pixels(const uint8_t *pixels, int32_t width, int32_t height, size_t stride,
                                       int32_t channels, zimage_image **image, zimage_error *error)
{
    if (!image)
        return zi_fail(error, ZIMAGE_ERROR_ARGUMENT, "image: NULL, expected where to put the image");
    *image = NULL;
    if (!pixels)
        return zi_fail(error, ZIMAGE_ERROR_ARGUMENT, "pixels: NULL, expected the pixels of an image");
    if (width < 1 || height < 1 || (uint64_t)width * (uint64_t)height > ZI_IMAGE_PIXELS)
        return zi_fail(error, ZIMAGE_ERROR_ARGUMENT,
                       "width and height: %dx%d, expected at least 1 and at most %llu pixels", width, height,
                       (unsigned long long)ZI_IMAGE_PIXELS);
    if (channels != 3 && channels != 4)
        return zi_fail(error, ZIMAGE_ERROR_ARGUMENT, "channels: %d, expected 3 (RGB) or 4 (RGBA)", channels);
    if (stride < (size_t)width * (size_t)channels)
        return zi_fail(error, ZIMAGE_ERROR_ARGUMENT, "stride: %zu bytes, expected at least a row's, %zu", stride,
                       (size_t)width * (size_t)channels);
    const zi_pixels view = {width, height, channels, (uint8_t *)pixels}; /* read only */
    return zi_image_copy(&view, stride, zi_white, image, error);
}
