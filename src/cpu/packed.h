/* Products, and convolutions, by packed gemms (kernels.h): bf16 and int8 computation. */
#ifndef ZI_CPU_PACKED_H
#define ZI_CPU_PACKED_H

#include "cpu/table.h"

/* Products of the same activations with several weights, or the gated product SiLU(x W1^T) * (x W3^T). */
typedef struct zi_packed_product {
    int count;                                /* of weights */
    int gated;                                /* the two weights are W1 and W3, and y[1] is not used */
    const zi_weight *weights[ZI_LINEARS_MAX]; /* [out, in] each */
    zi_tensor *y[ZI_LINEARS_MAX];             /* [tokens, out] each; gated: may be a ZI_OPERAND */
    const zi_tensor *x;                       /* [tokens, in]; may be a ZI_OPERAND */
    const float *bias;                        /* [out] or NULL */
    int64_t tokens, in;
    int accumulate;
} zi_packed_product;

/* A product of at most so many tokens is skinny: unpacking and packing its weights takes most of the time. */
#define ZI_SKINNY_TOKENS 96

zimage_status zi_cpu_packed_product(zi_run *run, const zi_packed_gemm *gemm, const zi_packed_product *product);
/* The same for at most ZI_SKINNY_TOKENS tokens. */
zimage_status zi_cpu_packed_skinny(zi_run *run, const zi_packed_gemm *gemm, const zi_packed_product *product);
/* The operation conv2d of ops.h with the backend's bf16 gemm. */
zimage_status zi_cpu_packed_conv2d(zi_run *run, zi_tensor *y, const zi_tensor *x, const zi_conv *conv);

#endif
