/* 8-bit pixels in host memory: what decoded images are given to a network with. */
#ifndef ZI_IMAGE_PIXELS_H
#define ZI_IMAGE_PIXELS_H

#include "base/error.h"

typedef struct zi_pixels {
    int32_t width, height;
    int channels;  /* 3: RGB; 1: grey */
    uint8_t *data; /* [height][width][channels]; who has the struct releases it with zi_pixels_free */
} zi_pixels;

/* Allocates pixels, which are not set. On failure data is NULL. */
zimage_status zi_pixels_new(int32_t width, int32_t height, int channels, zi_pixels *pixels, zimage_error *error);
void zi_pixels_free(zi_pixels *pixels);

/*
 * Equal to Image.resize((width, height), Image.Resampling.LANCZOS) of Pillow on 8-bit images of the modes RGB and L, to
 * the last bit (Pillow 13.0, src/libImaging/Resample.c). The same size gives a copy. The caller frees *out.
 */
zimage_status zi_resize_lanczos(const zi_pixels *in, int32_t width, int32_t height, zi_pixels *out,
                                zimage_error *error);
/* Equal to Image.convert("L") of Pillow on images of the modes RGB and L. The caller frees *out. */
zimage_status zi_to_luma(const zi_pixels *in, zi_pixels *out, zimage_error *error);

#endif
