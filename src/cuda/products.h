/* Matrix products by cuBLASLt. */
#ifndef ZI_CUDA_PRODUCTS_H
#define ZI_CUDA_PRODUCTS_H

#include <cublasLt.h>

#include "ops/ops.h"

typedef struct zi_cuda zi_cuda; /* internal.h */

/* y = x w^T, or x w, `batch` times. Row-major; rows are ld* elements apart, the operands of a batch step_* elements. */
typedef struct zi_cuda_product {
    int64_t rows, out, in;
    zi_dtype type, y_type; /* of x and w; of y */
    int64_t ldx, ldw, ldy; /* 0: dense */
    int inputs_first;      /* w is [in, out], else [out, in] */
    int accumulate;        /* y += */
    int batch;             /* 0: one */
    int64_t step_x, step_w, step_y;
    const float *x_scales, *w_scales; /* both given: x and w are e4m3 with a scale for each row, whatever type says */
    const void *bias;                 /* [out] of y's type, added before y is rounded; or NULL */
} zi_cuda_product;

/* Queues the product. For a shape that is new it asks cuBLASLt and, if the product is large, times its algorithms. */
zimage_status zi_cuda_multiply(zi_cuda *cuda, const zi_cuda_product *p, void *y, const void *x, const void *w);
/* Whether a product is so large that its algorithms are timed; smaller ones take the first. */
int zi_cuda_is_timed(const zi_cuda_product *p);
/* ZIMAGE_OK, or an error that says what failed. */
zimage_status zi_cuda_check_blas(zi_cuda *cuda, cublasStatus_t code, const char *what);
void zi_cuda_plans_free(zi_cuda *cuda);
/* Operations per second of a large product, measured now; 0 if that failed. */
double zi_cuda_peak_rate(zi_run *run);

#endif
