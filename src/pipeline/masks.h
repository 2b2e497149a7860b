/* Masks of inpainting, as the pipelines of diffusers prepare them. */
#ifndef ZI_PIPELINE_MASKS_H
#define ZI_PIPELINE_MASKS_H

#include "image/pixels.h"

/*
 * repaint, of one channel and that size, which the caller frees: 1 where the mask is at least half white, else 0. The
 * mask is scaled, then made grey (VaeImageProcessor of diffusers with do_convert_grayscale and do_binarize).
 */
zimage_status zi_mask_binarize(const zi_pixels *mask, int64_t width, int64_t height, zi_pixels *repaint,
                               zimage_error *error);

#endif
