/* The backends in host memory, so that a test runs on the reference and on the fast one. */
#ifndef ZI_TESTS_TABLES_H
#define ZI_TESTS_TABLES_H

#include "base/pool.h"
#include "cpu/cpu.h"
#include "ops/ops.h"
#include "support.h"

#define TABLES 2 /* 0 = reference, 1 = cpu in float32 with two threads */

static zimage_error table_error = ZIMAGE_ERROR_INIT;
static zi_pool *table_pool;

/* One at a time; its errors go to table_error. */
static inline zi_run *table_open(int which)
{
    static zi_run run;
    const zi_cpu_options options = {.compute = ZIMAGE_COMPUTE_F32};
    zimage_status status = ZIMAGE_OK;
    run = (zi_run){.error = &table_error};
    if (which == 1)
        status = zi_pool_new(2, &table_pool, &table_error);
    if (status == ZIMAGE_OK)
        status = which == 0 ? zi_ops_reference_new(&run.ops, &table_error)
                            : zi_ops_cpu_new(table_pool, &options, &run.ops, &table_error);
    if (status != ZIMAGE_OK)
        fail_msg("%s", table_error.message);
    return &run;
}

static inline void table_close(zi_run *run)
{
    zi_table(run)->free(run->ops);
    zi_pool_free(table_pool); /* NULL is fine */
    table_pool = NULL;
}

/* Fails the test with the backend's message. */
static inline void table_ok(zimage_status status)
{
    if (status != ZIMAGE_OK)
        fail_msg("%s", table_error.message);
}

static inline zi_tensor table_tensor(zi_run *run, int dims, const int64_t *shape, const float *values)
{
    zi_tensor tensor;
    table_ok(zi_table(run)->alloc(run, &tensor, dims, shape));
    if (values)
        table_ok(zi_table(run)->upload(run, &tensor, values));
    return tensor;
}

#endif
