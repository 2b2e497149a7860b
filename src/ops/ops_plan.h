/*
 * The table that touches no data: the same model code runs on it and it counts floating-point operations (a multiply
 * and an add are two), the stack's peak and the weights that are read. Progress, plans and "percent of peak" come from
 * it, so they can't drift from the networks.
 */
#ifndef ZI_OPS_OPS_PLAN_H
#define ZI_OPS_OPS_PLAN_H

#include "ops/ops.h"

zimage_status zi_ops_plan_new(zi_ops **ops, zimage_error *error);
#define ZI_PLAN_PRODUCTS 24

/* A product [rows, in] x [in, out], or a convolution as one: rows are output pixels, in is channels x filter. */
typedef struct zi_plan_product {
    int64_t rows, out, in;
    double flops; /* of all products of these sizes */
} zi_plan_product;

typedef struct zi_plan_counts {
    double linear_flops, attention_flops, conv_flops; /* the rest is below one percent */
    double unpacked; /* stored numbers that linear products read, as often as they are read */
    /* The stack's peak, with the larger workspaces of the fast table: what attention packs (at most 8 MiB) and a
     * convolution's weights as float32. */
    size_t peak_bytes;
    size_t weight_bytes; /* of the distinct weights that were read; of an embedding table only the rows */
    zi_plan_product products[ZI_PLAN_PRODUCTS]; /* the first distinct sizes, in order of their first use */
    int product_count;
} zi_plan_counts;

/* What was counted since the table was made. */
const zi_plan_counts *zi_ops_plan_counts(const zi_ops *ops);
/* linear, attention and convolutions together */
double zi_plan_flops(const zi_plan_counts *counts);

#endif
