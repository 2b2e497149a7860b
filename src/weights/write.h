/* Writing of safetensors files. */
#ifndef ZI_WEIGHTS_WRITE_H
#define ZI_WEIGHTS_WRITE_H

#include "base/error.h"

/* Writes a file of one float32 tensor (dims 0 to 4), under a temporary name first: see zi_output in base/file.h. */
zimage_status zi_safetensors_write(const char *path, const char *name, const float *data, const int64_t *shape,
                                   int dims, zimage_error *error);

#endif
