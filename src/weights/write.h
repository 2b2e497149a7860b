/* Writing of safetensors files. */
#ifndef ZI_WEIGHTS_WRITE_H
#define ZI_WEIGHTS_WRITE_H

#include "base/output.h"

/* Writes a file of one float32 tensor (dims 0 to 4), which appears when it is complete. */
zimage_status zi_safetensors_write(const char *path, const char *name, const float *data, const int64_t *shape,
                                   int dims, zimage_error *error);
/* The same into an output, which it commits, or abandons if it fails. */
zimage_status zi_safetensors_write_to(zi_output *output, const char *name, const float *data, const int64_t *shape,
                                      int dims, zimage_error *error);

#endif
