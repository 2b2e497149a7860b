/*
 * Texts in image files. PNG has a chunk for each. JPEG and WebP hold one packet of XMP with a property of our own:
 *
 *   <zimage:texts>[["prompt","a red apple"],["seed","7"]]</zimage:texts>      in the namespace "urn:zimage:1.0#"
 *
 * It is JSON, because XML can't hold every character, and pairs, because a key may stand there twice.
 */
#ifndef ZI_IMAGE_TEXTS_H
#define ZI_IMAGE_TEXTS_H

#include "image/format.h"

/* The packet of the texts. Bytes that are no UTF-8 become U+FFFD. packet->data is released with free(). */
zimage_status zi_texts_to_xmp(const zimage_text *texts, size_t count, zi_bytes *packet, zimage_error *error);

#endif
