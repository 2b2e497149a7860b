/* PNG files, with libpng. */
#ifndef ZI_IMAGE_PNG_H
#define ZI_IMAGE_PNG_H

#include "base/output.h"

typedef struct zi_png_image {
    int32_t width, height;
    const uint8_t *rgb; /* [height][width][3] */
    const zimage_text *texts;
    size_t text_count;
} zi_png_image;

/* Writes a file that appears when it is complete. */
zimage_status zi_png_write(const zi_place *place, const zi_png_image *image, zimage_error *error);
/* The caller releases *data [*size] with free(). */
zimage_status zi_png_encode(const zi_png_image *image, uint8_t **data, size_t *size, zimage_error *error);
/*
 * Reads any PNG as 8-bit RGB: palettes and grey become RGB, 16 bits become 8, alpha is blended over white. The caller
 * releases *rgb [*height][*width][3] with free(). ZIMAGE_ERROR_FORMAT: the data is no PNG or a broken one, or the image
 * has more than max_pixels pixels; the size is checked before memory is allocated for them.
 */
zimage_status zi_png_decode(const uint8_t *data, size_t size, uint64_t max_pixels, uint8_t **rgb, int32_t *width,
                            int32_t *height, zimage_error *error);

#endif
