/*
 * The backend that touches no data: model code runs on it, and it counts floating-point operations (a multiply and an
 * add are two) and the weights that are read. Progress, predicted seconds and "percent of peak" come from these counts.
 * Memory is not counted here: each backend rehearses a job itself (ops.h).
 */
#ifndef ZI_OPS_OPS_COUNT_H
#define ZI_OPS_OPS_COUNT_H

#include "ops/ops.h"

#define ZI_COUNT_PRODUCTS 24

/* A product [rows, in] x [in, out], or a convolution as one: rows are output pixels, in is channels x filter. */
typedef struct zi_product {
    int64_t rows, out, in;
    double flops; /* of all products of these sizes */
} zi_product;

typedef struct zi_counts {
    double linear_flops, attention_flops, conv_flops; /* the rest is below one percent */
    int64_t fewest_rows, most_rows;                   /* of linear products of several rows; 0: there was none */
    double unpacked;     /* stored elements that linear products read, as often as they are read */
    size_t weight_bytes; /* of the distinct weights that were read; of an embedding table only the rows */
    zi_product products[ZI_COUNT_PRODUCTS]; /* the first distinct sizes, in order of their first use */
    int product_count;
} zi_counts;

zimage_status zi_ops_count_new(zi_ops **ops, zimage_error *error);
/* What was counted since the backend was made, or since the last call. */
zi_counts zi_ops_count_take(zi_ops *ops);
/* linear, attention and convolutions together */
double zi_count_flops(const zi_counts *counts);

#endif
