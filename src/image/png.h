/* PNG files, by libpng. */
#ifndef ZI_IMAGE_PNG_H
#define ZI_IMAGE_PNG_H

#include "base/error.h"

typedef struct zi_png_image {
    int32_t width, height;
    const uint8_t *rgb; /* [height][width][3] */
    const zimage_text *texts;
    size_t text_count;
} zi_png_image;

/* Writes the file under a temporary name, then renames it. */
zimage_status zi_png_write(const char *path, const zi_png_image *image, zimage_error *error);
/* *data [*size] is released with free(). */
zimage_status zi_png_encode(const zi_png_image *image, uint8_t **data, size_t *size, zimage_error *error);
/*
 * Any PNG as 8-bit RGB: palettes and grey are expanded, 16 bits cut to 8, alpha is blended over white. ZIMAGE_ERROR_FORMAT, before
 * anything large is allocated: it is no PNG, or has more than max_pixels. *rgb [*height][*width][3] is released with free().
 */
zimage_status zi_png_decode(const uint8_t *data, size_t size, uint64_t max_pixels, uint8_t **rgb, int32_t *width,
                            int32_t *height, zimage_error *error);

#endif
