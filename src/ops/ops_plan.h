/*
 * The table that touches no data: the same model code runs on it and it counts floating-point operations (a multiply
 * and an add are two) and the stack's peak. Progress, time estimates and "percent of peak" come from it, so they can't
 * drift from the networks.
 */
#ifndef ZI_OPS_OPS_PLAN_H
#define ZI_OPS_OPS_PLAN_H

#include "ops/ops.h"

zimage_status zi_ops_plan_new(zi_ops **ops, zimage_error *error);
/* Operations counted so far, of products, attention and convolutions (the rest is below one percent). */
double zi_ops_plan_flops(const zi_ops *ops);

#endif
