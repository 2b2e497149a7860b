/*
 * EXIF (CIPA DC-008): a TIFF file of tags, "big" or little endian. Read are the orientation and the user's comment; a
 * comment is written where programs such as AUTOMATIC1111's look for the settings of an image.
 */
#ifndef ZI_IMAGE_EXIF_H
#define ZI_IMAGE_EXIF_H

#include "image/format.h"

/* 1 .. 8; 1 (upright) also where the data has none or is malformed. */
int zi_exif_orientation(const uint8_t *data, size_t size);

/* The user's comment as UTF-8, released with free(). *comment NULL: the data has none, or it is in a character set
 * other than ASCII and Unicode. */
zimage_status zi_exif_comment(const uint8_t *data, size_t size, char **comment, zimage_error *error);

/* A TIFF file with that comment, which is UTF-8, in UTF-16. exif->data is released with free(). */
zimage_status zi_exif_of_comment(const char *comment, zi_bytes *exif, zimage_error *error);

#endif
