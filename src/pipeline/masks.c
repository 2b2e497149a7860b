#include "pipeline/masks.h"

#define HALF_WHITE 128 /* the first byte whose 255th part is at least 0.5 */

zimage_status zi_mask_binarize(const zi_pixels *mask, int64_t width, int64_t height, zi_pixels *repaint,
                               zimage_error *error)
{
    zi_pixels scaled;
    ZI_TRY(zi_resize_lanczos(mask, (int32_t)width, (int32_t)height, &scaled, error));
    zimage_status status = zi_to_luma(&scaled, repaint, error);
    zi_pixels_free(&scaled);
    for (int64_t i = 0; status == ZIMAGE_OK && i < width * height; i++)
        repaint->data[i] = repaint->data[i] >= HALF_WHITE;
    return status;
}
