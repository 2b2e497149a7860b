/* Writes one float32 tensor as a safetensors file (atomically). */
#ifndef ZI_WEIGHTS_WRITE_H
#define ZI_WEIGHTS_WRITE_H

#include "base/error.h"

zimage_status zi_safetensors_write(const char *path, const char *name, const float *data, const int64_t *shape,
                                   int dims, zimage_error *error);

#endif
