/* Small copies of finished images. */
#ifndef ZI_SERVE_THUMB_H
#define ZI_SERVE_THUMB_H

#include <stddef.h>
#include <stdint.h>

#include "zimage.h"

#define THUMB_SIDE 256 /* pixels of the longest side */
#define THUMB_NAME "256"

/* A JPEG, each of whose pixels is the mean of the image's below it. *data is released with zimage_free. 0: no memory.
 */
int thumb_make(const zimage_image *image, uint8_t **data, size_t *size);

#endif
