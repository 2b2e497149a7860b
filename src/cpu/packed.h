/* Products of packed numbers: bf16 and int8 computation (kernels.h says how they are packed). */
#ifndef ZI_CPU_PACKED_H
#define ZI_CPU_PACKED_H

#include "cpu/table.h"

/* Products of the same activations with stored weights, or the gated product of two. */
typedef struct zi_packed_product {
    int count, gated;                         /* weights; gated: the two are W1 and W3, and y[1] is not used */
    const zi_weight *weights[ZI_LINEARS_MAX]; /* [out, in] */
    zi_tensor *y[ZI_LINEARS_MAX];             /* [tokens, out]; gated: may be an operand */
    const zi_tensor *x;                       /* [tokens, in]; may be an operand */
    const float *bias;                        /* [out] or NULL */
    int64_t tokens, in;
    int accumulate;
} zi_packed_product;

/* Up to so many tokens preparing the weights takes most of the time. */
#define ZI_SKINNY_TOKENS 96

zimage_status zi_cpu_packed_product(zi_ops *ops, const zi_packed_gemm *gemm, const zi_packed_product *product);
/* The same for at most ZI_SKINNY_TOKENS. */
zimage_status zi_cpu_packed_skinny(zi_ops *ops, const zi_packed_gemm *gemm, const zi_packed_product *product);
/* The operation conv2d of ops.h with the table's bf16 family. */
zimage_status zi_cpu_packed_conv2d(zi_ops *ops, zi_tensor *y, const zi_tensor *x, const zi_conv *conv);

#endif
