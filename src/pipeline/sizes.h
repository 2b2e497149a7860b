/*
 * The sizes of the images that a model was trained with. A field of transformer/config.json may list them, in pixels:
 *   "_training_sizes": [[width, height], ...]
 * It is a field of this project. diffusers ignores fields whose name begins with "_", and keeps them when it saves a
 * model again (configuration_utils.py, extract_init_dict).
 */
#ifndef ZI_PIPELINE_SIZES_H
#define ZI_PIPELINE_SIZES_H

#include "base/json.h"

#define ZI_SIZES_MAX 32

typedef struct zi_sizes {
    size_t count; /* 0: the model does not say */
    int64_t width[ZI_SIZES_MAX], height[ZI_SIZES_MAX];
} zi_sizes;

/* Reads the field from the file `path`, or from text if that is not NULL. Without the field, count is 0. */
zimage_status zi_sizes_read(const char *path, const char *text, zi_sizes *sizes, zimage_error *error);
/* Warns if the model says its sizes and this is not one of them; names the nearest of them. */
void zi_sizes_warn(const zi_sizes *sizes, int64_t width, int64_t height, const zi_log *log);

#endif
