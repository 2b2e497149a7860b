#include "preview.h"

#define QUALITY 80

int preview_partial_after(int count, int step, int steps)
{
    for (int i = 0; i < count; i++) {
        int64_t at = (int64_t)(i + 1) * steps / (count + 1);
        if (at == step || (at == 0 && step == 1))
            return i;
    }
    return -1;
}

void preview_encode(const zimage_progress *p, uint8_t **data, size_t *size)
{
    zimage_image *image = NULL;
    const zimage_save_params params = {.struct_size = sizeof params, .quality = QUALITY};
    *data = NULL;
    *size = 0;
    if (zimage_image_from_pixels(p->preview, p->preview_width, p->preview_height, (size_t)p->preview_width * 3, 3,
                                 &image, NULL) == ZIMAGE_OK &&
        zimage_image_encode_with(image, ZIMAGE_FORMAT_JPEG, &params, data, size, NULL) != ZIMAGE_OK)
        *data = NULL;
    zimage_image_free(image);
}
