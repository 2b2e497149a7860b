/* Turns stored tensors into weights that the operations read. Only for src/weights. */
#ifndef ZI_WEIGHTS_CONVERT_H
#define ZI_WEIGHTS_CONVERT_H

#include "base/names.h"
#include "weights/safetensors.h"

/* Whether numbers of this type can be widened to float32 one by one. No other type may be read as numbers. */
int zi_is_float(zi_dtype dtype);

/*
 * Reads entry, a two-dimensional U32 tensor "X.weight", together with X.scales and X.biases (NULL: absent) as a matrix
 * of shape [out, in] that MLX quantised. Derives the bits and the group size from the shapes and checks them.
 * 1: the weight of entry is that matrix now (ZI_GROUPED). 0: entry is unchanged, and `problems` has one more sentence.
 */
int zi_entry_group(zi_entry *entry, const zi_entry *scales, const zi_entry *biases, const int64_t *shape,
                   zi_names *problems);
/* Dequantises a ZI_GROUPED entry to ZI_F32 or ZI_BF16, into memory that the entry owns. */
zimage_status zi_entry_expand(zi_entry *entry, zi_dtype dtype, zimage_error *error);
/* Copies a float entry [out, kernel_h, kernel_w, in] to [out, in, kernel_h, kernel_w], which the entry owns. */
zimage_status zi_entry_channels_first(zi_entry *entry, zimage_error *error);

/* Writes "[3, 4]" and returns text. */
const char *zi_shape_text(char *text, size_t size, int dims, const int64_t *shape);

#endif
