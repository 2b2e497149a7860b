/* Previews of an image under way, as a server sends them. */
#ifndef ZI_SHARED_PREVIEW_H
#define ZI_SHARED_PREVIEW_H

#include <stddef.h>
#include <stdint.h>

#include "zimage.h"

#define PREVIEW_PARTIALS_MAX 3 /* OpenAI's limit of partial_images */

/* The number, from 0, of the partial image that a stream with `count` of them gets after a step; -1: none. They are
 * spread over the steps. */
int preview_partial_after(int count, int step, int steps);
/* The preview of a progress as a JPEG. *data [*size] is released with zimage_free. NULL: there is no memory. */
void preview_encode(const zimage_progress *progress, uint8_t **data, size_t *size);

#endif
