/*
 * Texts in image files. PNG has a chunk for each. JPEG and WebP hold one packet of XMP with a property of our own:
 *
 *   <zimage:texts>[["prompt","a red apple"],["seed","7"]]</zimage:texts>      in the namespace "urn:zimage:1.0#"
 *
 * It is JSON, because XML can't hold every character, and pairs, because a key may stand there twice.
 *
 * A text "parameters" is also written as the user's comment of EXIF, and read from there: where AUTOMATIC1111's program
 * and those that read its images have the settings in files that are no PNG.
 */
#ifndef ZI_IMAGE_TEXTS_H
#define ZI_IMAGE_TEXTS_H

#include "image/format.h"

#define ZI_TEXT_PARAMETERS "parameters"

/* The packet of the texts. Bytes that are no UTF-8 become U+FFFD. packet->data is released with free(). */
zimage_status zi_texts_to_xmp(const zimage_text *texts, size_t count, zi_bytes *packet, zimage_error *error);
/* EXIF with the text "parameters". Of size 0 without such a text, and where EXIF would have more than `most` bytes:
 * the packet has the text nevertheless. exif->data is released with free(). */
zimage_status zi_texts_to_exif(const zimage_text *texts, size_t count, size_t most, zi_bytes *exif,
                               zimage_error *error);

#endif
