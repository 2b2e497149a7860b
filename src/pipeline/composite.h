/* What lies outside of a mask, from the input image itself. */
#ifndef ZI_PIPELINE_COMPOSITE_H
#define ZI_PIPELINE_COMPOSITE_H

#include "pipeline/model.h"

/*
 * rgb8 [height, width, 3] <- w rgb8 + (1 - w) input, rounded, with the input image as it was fitted to the request's
 * size. w = max(0, 1 - d / D): d is the distance in pixels to the nearest pixel that the mask, scaled to that size,
 * repaints (0 for such a pixel itself), and D is the side of a patch of latents: the model's size_multiple. So what is
 * repainted stays as it is, and from D pixels on all is the input's.
 */
zimage_status zi_composite(const zi_model *model, const zimage_request *request, uint8_t *rgb8, zimage_error *error);
/* Most bytes in host memory that it takes. */
size_t zi_composite_bytes(int64_t width, int64_t height);

#endif
