/* PNG output by libpng. */
#ifndef ZI_IMAGE_PNG_H
#define ZI_IMAGE_PNG_H

#include "base/error.h"

/* 8-bit RGB [height][width][3]; texts become iTXt chunks (tEXt when Latin-1). Atomic: temporary name, then rename. */
zimage_status zi_png_write(const char *path, int32_t width, int32_t height, const uint8_t *rgb,
                           const zimage_text *texts, size_t text_count, zimage_error *error);

#endif
