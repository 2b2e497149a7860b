/* Turning stored tensors into weights that the operations read. Inside this room. */
#ifndef ZI_WEIGHTS_CONVERT_H
#define ZI_WEIGHTS_CONVERT_H

#include "weights/names.h"
#include "weights/safetensors.h"

/* Whether numbers of this type can be widened to float32 one by one. No other type may be read as numbers. */
int zi_is_float(zi_dtype dtype);

/*
 * entry, a two-dimensional U32 tensor "X.weight", with X.scales and X.biases (NULL: not there) as MLX quantises a matrix
 * shape = [out, in]: bits and group are derived from the shapes and checked. 1: entry's weight is that matrix now
 * (ZI_GROUPED); 0: entry is as it was, and what is wrong was added to `problems`.
 */
int zi_entry_group(zi_entry *entry, const zi_entry *scales, const zi_entry *biases, const int64_t *shape,
                   zi_names *problems);
/* A ZI_GROUPED entry expanded to ZI_F32 or ZI_BF16, in memory that the entry owns. */
zimage_status zi_entry_expand(zi_entry *entry, zi_dtype dtype, zimage_error *error);
/* A float entry [out, kernel_h, kernel_w, in] as [out, in, kernel_h, kernel_w], in memory that the entry owns. */
zimage_status zi_entry_channels_first(zi_entry *entry, zimage_error *error);

/* "[3, 4]"; returns text. */
const char *zi_shape_text(char *text, size_t size, int dims, const int64_t *shape);

#endif
