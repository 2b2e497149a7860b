/* Products of packed numbers: bf16 and int8 computation (kernels.h says how they are packed). */
#ifndef ZI_CPU_PACKED_H
#define ZI_CPU_PACKED_H

#include "cpu/table.h"

/* A product of activations with one stored weight, or the gated product of two. */
typedef struct zi_packed_product {
    const zi_weight *weights[2]; /* [out, in]; the second one NULL, or the gated product's W3 */
    const float *x, *bias;       /* [tokens, in]; [out] or NULL */
    float *y;                    /* [tokens, out] */
    int64_t tokens, in, out;
    int accumulate;
} zi_packed_product;

zimage_status zi_cpu_packed_product(zi_ops *ops, const zi_cpu_packed *family, const zi_packed_product *product);
/* The operation conv2d of ops.h with the table's bf16 family. */
zimage_status zi_cpu_packed_conv2d(zi_ops *ops, zi_tensor *y, const zi_tensor *x, const zi_conv *conv);

#endif
