/* Activations (zi_tensor) and stored weights (zi_weight). */
#ifndef ZI_OPS_TENSOR_H
#define ZI_OPS_TENSOR_H

#include "base/error.h"

typedef enum zi_dtype {
    ZI_F32,
    ZI_F16,
    ZI_BF16,
    ZI_GROUPED,     /* "grouped": MLX's affine groups, see zi_weight */
    ZI_OPERAND,     /* of activations: in a form of the backend's own (ops.h, alloc_operand) */
    ZI_DTYPE_OTHER, /* known to the file format but not computable: BOOL, I64, ... (data is never read) */
} zi_dtype;

size_t zi_dtype_size(zi_dtype dtype);      /* bytes an element; 0 for ZI_GROUPED, ZI_OPERAND and ZI_DTYPE_OTHER */
const char *zi_dtype_name(zi_dtype dtype); /* "F32", ... */

/*
 * A row-major array in a backend's memory. The struct is a view: it owns nothing. `data` is a handle that only the
 * backend reads (host memory, device memory, an array object); a view never does arithmetic on it: `offset` says where
 * it begins.
 *
 * Element [i0, i1, .., c] of `dims` dimensions lies at offset + row * ld + c, where row = (i0 * shape[1] + i1) ...
 * counts the rows of the last dimension. A dense tensor has ld == shape[dims - 1]; a view of some columns has a larger
 * ld.
 */
typedef struct zi_tensor {
    zi_dtype dtype; /* ZI_F32 for every activation of the backends in host memory, except packed ones */
    int dims;
    int64_t shape[4];
    int64_t ld;     /* elements between rows of the last dimension */
    int64_t offset; /* elements from the start of data to the view's first element */
    void *data;
} zi_tensor;

/* Dimensions and shape as two arguments: f(x, ZI_SHAPE(rows, columns)). */
#define ZI_SHAPE(...)                                                                                                  \
    (int)(sizeof((int64_t[]){__VA_ARGS__}) / sizeof(int64_t)), (const int64_t[])                                       \
    {                                                                                                                  \
        __VA_ARGS__                                                                                                    \
    }

int64_t zi_shape_count(int dims, const int64_t *shape);
/* A dense tensor of that shape without memory (data NULL). */
zi_tensor zi_tensor_describe(zi_dtype dtype, int dims, const int64_t *shape);
int64_t zi_tensor_count(const zi_tensor *tensor);
int zi_tensor_is_dense(const zi_tensor *tensor);
/* The view of rows [first, first + count) of the outermost dimension. */
zi_tensor zi_tensor_rows(const zi_tensor *tensor, int64_t first, int64_t count);
/* The view of columns [first, first + count) of a matrix [rows, columns]; ops.h says which operations take it. */
zi_tensor zi_tensor_columns(const zi_tensor *tensor, int64_t first, int64_t count);
/* The same elements in another shape of equal count; the tensor must be dense (both checked by assert). */
zi_tensor zi_tensor_shaped(const zi_tensor *tensor, int dims, const int64_t *shape);
/* The first element of a float32 tensor in host memory. */
static inline float *zi_f32(const zi_tensor *tensor)
{
    return (float *)tensor->data + tensor->offset;
}

typedef enum zi_precise { ZI_PRECISE_INT8 = 1, ZI_PRECISE_FP8 = 2, ZI_PRECISE = 3 } zi_precise;

/*
 * A stored weight: mapped bytes in the file's own format, read in place by the operations. The data may be unaligned.
 * Linear weights are [out, in]; convolutions [out, in, kernel_h, kernel_w].
 *
 * ZI_GROUPED: whole numbers q of `bits` bits, and for each group of `group` inputs a scale and a bias: w = scale * q +
 * bias, the product and the sum each rounded to float32. The numbers of a row are a little-endian stream of bits
 * without gaps, so that 8 of them lie in `bits` bytes. A row is a whole number of groups.
 */
typedef struct zi_weight {
    const char *name; /* owned by the store */
    /* Given by its file and never used again in the process; 0: none. A backend that keeps copies of weights
     * identifies a weight by its id, not by its address: another file may be mapped to that address later. Weights that
     * models share have one id. */
    uint64_t id;
    zi_dtype dtype;
    int dims;
    int64_t shape[4];
    const uint8_t *data;
    size_t bytes;
    int precise; /* set of zi_precise: compute types that compute its products in bf16 or float32 instead */
    int mapped;  /* the bytes are pages of a file: who has copied them may give the pages back (zi_release_pages) */
    /* ZI_GROUPED only: shape is the logical [out, in], data and bytes the packed numbers */
    int bits;                       /* of a number: 1 to 6, or 8 */
    int group;                      /* inputs that share a scale and a bias: 32, 64 or 128 */
    zi_dtype scale_dtype;           /* of scales and biases: ZI_F32, ZI_F16 or ZI_BF16 */
    const uint8_t *scales, *biases; /* [out, in / group]; may be unaligned */
} zi_weight;

int64_t zi_weight_count(const zi_weight *weight);
/* Rows [first, first + count) of a matrix, as a weight of its own that reads the same data. */
zi_weight zi_weight_slice(const zi_weight *weight, int64_t first, int64_t count);
/* Converts elements [first, first + count) to float32. A dtype that cannot be computed with gives NaN, so that the next
 * check for finite activations fails. */
void zi_weight_unpack(const zi_weight *weight, int64_t first, int64_t count, float *out);

float zi_f16_to_f32(uint16_t bits);
float zi_bf16_to_f32(uint16_t bits);
uint16_t zi_f32_to_bf16(float value); /* rounded half to even; a NaN stays one */
float zi_round_bf16(float value);     /* the same as a float */

#endif
