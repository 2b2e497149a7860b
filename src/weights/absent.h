/* Why a folder has no weights that can be read. Only for src/weights. */
#ifndef ZI_WEIGHTS_ABSENT_H
#define ZI_WEIGHTS_ABSENT_H

#include "base/error.h"

/*
 * Always fails, with a sentence that names the two files of which one was expected, FOLDER/BASE.safetensors and its
 * index, then what the folder has instead and the way out: another variant, shards without an index, pickled weights,
 * a download that is not complete, ...
 */
zimage_status zi_fail_without_weights(const char *folder, const char *base, zimage_error *error);

#endif
