/* Activations (zi_tensor) and stored weights (zi_weight). */
#ifndef ZI_OPS_TENSOR_H
#define ZI_OPS_TENSOR_H

#include "base/error.h"

typedef enum zi_dtype {
    ZI_F32,
    ZI_F16,
    ZI_BF16,
    ZI_GROUPED,     /* whole numbers of a few bits with a scale and an offset a group (zi_weight only) */
    ZI_DTYPE_OTHER, /* known to the file format but not computable: BOOL, I64, ... (data is never read) */
} zi_dtype;

size_t zi_dtype_size(zi_dtype dtype);      /* bytes an element; 0 for ZI_GROUPED and ZI_DTYPE_OTHER */
const char *zi_dtype_name(zi_dtype dtype); /* "F32", ... */

/* A dense row-major array in the memory of a backend. A struct is a view: it owns nothing. */
typedef struct zi_tensor {
    zi_dtype dtype; /* ZI_F32 for every activation of the CPU tables */
    int dims;
    int64_t shape[4];
    void *data;
} zi_tensor;

int64_t zi_tensor_count(const zi_tensor *tensor);
/* The view of rows [first, first + count) of the outermost dimension. */
zi_tensor zi_tensor_rows(const zi_tensor *tensor, int64_t first, int64_t count);
/* The same elements under another shape of equal count (checked by assert). */
zi_tensor zi_tensor_shaped(const zi_tensor *tensor, int dims, const int64_t *shape);
static inline float *zi_f32(const zi_tensor *tensor)
{
    return (float *)tensor->data;
}

/*
 * A stored weight: mapped bytes in the file's own format, read in place by the operations. The data may be unaligned.
 * Linear weights are [out, in]; convolutions [out, in, kernel_h, kernel_w].
 */
typedef struct zi_weight {
    const char *name; /* owned by the store */
    zi_dtype dtype;
    int dims;
    int64_t shape[4];
    const uint8_t *data;
    size_t bytes;
    /* ZI_GROUPED, [out, in]: data are little-endian u32 words of `bits`-bit numbers q, element 0 in the lowest bits;
     * w = scale * q + bias with scales, biases [out, in / group] of scale_dtype. */
    int bits, group;
    zi_dtype scale_dtype;
    const uint8_t *scales, *biases;
} zi_weight;

int64_t zi_weight_count(const zi_weight *weight);
/* Converts elements [first, first + count) to float32. */
void zi_weight_unpack(const zi_weight *weight, int64_t first, int64_t count, float *out);

float zi_f16_to_f32(uint16_t bits);
float zi_bf16_to_f32(uint16_t bits);

#endif
