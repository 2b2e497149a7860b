/* zimage_image inside the library: the image of the public header, made and filled by a generation. */
#ifndef ZI_IMAGE_IMAGE_H
#define ZI_IMAGE_IMAGE_H

#include "image/pixels.h"

#define ZI_IMAGE_PIXELS                                                                                                \
    ((uint64_t)1 << 26) /* of an image that comes from pixels or a file, unless a caller says more */

/* An image whose pixels are not set yet. The caller releases it with zimage_image_free. */
zimage_status zi_image_new(int32_t width, int32_t height, zimage_image **image, zimage_error *error);
uint8_t *zi_image_pixels(zimage_image *image); /* [height][width][3] */
/* Makes room for the latents [channels, rows, columns] that the image is decoded from. */
zimage_status zi_image_add_latents(zimage_image *image, int64_t channels, int64_t rows, int64_t columns,
                                   zimage_error *error);
float *zi_image_latents(zimage_image *image);
void zi_image_add_seconds(zimage_image *image, zimage_stage stage, double seconds);
/* A copy of RGB or RGBA pixels, with `stride` bytes between rows, blended over the background. */
zimage_status zi_image_copy(const zi_pixels *pixels, size_t stride, const uint8_t background[3], zimage_image **image,
                            zimage_error *error);
/* The inverse of it, of an image with alpha: [height][width][4], released with free. Pixels that no colour over this
 * background gives become the nearest ones. */
zimage_status zi_image_unblend(const zimage_image *image, const uint8_t background[3], uint8_t **rgba,
                               zimage_error *error);
/* An image that owns these RGB pixels from now on; after a failure they stay the caller's. */
zimage_status zi_image_take(zi_pixels *pixels, zimage_image **image, zimage_error *error);
extern const uint8_t zi_white[3];
/* The facts that zimage_image_get_info returns. */
zimage_image_info *zi_image_info(zimage_image *image);
zimage_memory_info *zi_image_memory(zimage_image *image);

#endif
