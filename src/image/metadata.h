/* What image files say about their pixels: how they are turned, and in which colours they are. */
#ifndef ZI_IMAGE_METADATA_H
#define ZI_IMAGE_METADATA_H

#include "image/format.h"

typedef struct zi_image_metadata {
    int orientation;       /* of EXIF, 1 .. 8: 1 is upright */
    int has_other_profile; /* 1: an ICC profile that is not sRGB's */
    char profile_name[64]; /* its description in ASCII; may be empty */
} zi_image_metadata;

/* Never fails: what can't be read is as if it were not there. */
void zi_image_metadata_read(const zi_image_format *format, const uint8_t *data, size_t size,
                            zi_image_metadata *metadata);

/*
 * Turns pixels as an orientation of EXIF says (CIPA DC-008, tag 0x0112), which changes width and height for 5 to 8.
 * The pixels are replaced.
 */
zimage_status zi_pixels_turn(zi_pixels *pixels, int orientation, zimage_error *error);

#endif
