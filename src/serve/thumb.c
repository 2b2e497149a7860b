#include "thumb.h"

#include <stdlib.h>

#define QUALITY 85

/* The first of `length` pixels that belongs to pixel `index` of `small`. */
static int32_t first_of(int32_t index, int32_t length, int32_t small)
{
    return (int32_t)((int64_t)index * length / small);
}

static void mean_of(const uint8_t *pixels, int32_t width, const int32_t box[4], uint8_t out[3])
{
    uint64_t sums[3] = {0}, count = (uint64_t)(box[2] - box[0]) * (uint64_t)(box[3] - box[1]);
    for (int32_t y = box[1]; y < box[3]; y++)
        for (const uint8_t *p = pixels + 3 * ((size_t)y * (size_t)width + (size_t)box[0]),
                           *end = p + 3 * (size_t)(box[2] - box[0]);
             p < end; p += 3)
            for (int i = 0; i < 3; i++)
                sums[i] += p[i];
    for (int i = 0; i < 3; i++)
        out[i] = (uint8_t)((sums[i] + count / 2) / count);
}

int thumb_make(const zimage_image *image, uint8_t **data, size_t *size)
{
    int32_t width = zimage_image_width(image), height = zimage_image_height(image);
    int32_t longest = width > height ? width : height, side = longest < THUMB_SIDE ? longest : THUMB_SIDE;
    int32_t w = width * (int64_t)side / longest ? (int32_t)(width * (int64_t)side / longest) : 1;
    int32_t h = height * (int64_t)side / longest ? (int32_t)(height * (int64_t)side / longest) : 1;
    const zimage_save_params params = {.struct_size = sizeof params, .quality = QUALITY};
    zimage_image *small = NULL;
    uint8_t *pixels = malloc(3 * (size_t)w * (size_t)h);
    for (int32_t y = 0; pixels && y < h; y++)
        for (int32_t x = 0; x < w; x++) {
            const int32_t box[4] = {first_of(x, width, w), first_of(y, height, h), first_of(x + 1, width, w),
                                    first_of(y + 1, height, h)};
            mean_of(zimage_image_pixels(image), width, box, pixels + 3 * ((size_t)y * (size_t)w + (size_t)x));
        }
    int ok = pixels && zimage_image_from_pixels(pixels, w, h, 3 * (size_t)w, 3, &small, NULL) == ZIMAGE_OK &&
             zimage_image_encode_with(small, ZIMAGE_FORMAT_JPEG, &params, data, size, NULL) == ZIMAGE_OK;
    zimage_image_free(small);
    free(pixels);
    return ok;
}
