/* Is a path a model folder, and if it is not, what is it? */
#ifndef ZI_PIPELINE_FOLDER_H
#define ZI_PIPELINE_FOLDER_H

#include "base/error.h"

/*
 * Refuses a path that is no model folder, with a sentence that says what it is and which folder to name instead: a
 * file, a part of a model, a download cache, the folder around a model, ...
 */
zimage_status zi_folder_check(const char *path, zimage_error *error);

/* Whether the folder was converted for MLX: without model_index.json, but with transformer/. */
int zi_is_conversion(const char *folder);

#endif
