/* Both tables of operations, so that a test runs on the oracle and on the fast one. */
#ifndef ZI_TESTS_TABLES_H
#define ZI_TESTS_TABLES_H

#include "base/pool.h"
#include "ops/ops.h"
#include "support.h"

#define TABLES 2 /* 0 = reference, 1 = cpu with two threads */

static zimage_error table_error = ZIMAGE_ERROR_INIT;
static zi_pool *table_pool;

static inline zi_ops *table_open(int which)
{
    zi_run *run = NULL;
    zimage_status status = ZIMAGE_OK;
    if (which == 1)
        status = zi_pool_new(2, &table_pool, &table_error);
    if (status == ZIMAGE_OK)
        status = which == 0 ? zi_ops_reference_new(&run, &table_error) : zi_ops_cpu_new(table_pool, &run, &table_error);
    if (status != ZIMAGE_OK)
        fail_msg("%s", table_error.message);
    run->error = &table_error;
    return run;
}

static inline void table_close(zi_run *run)
{
    run->ops->table->free(run);
    zi_pool_free(table_pool); /* NULL is fine */
    table_pool = NULL;
}

/* Fails the test with the table's message. */
static inline void table_ok(zimage_status status)
{
    if (status != ZIMAGE_OK)
        fail_msg("%s", table_error.message);
}

static inline zi_tensor table_tensor(zi_run *run, int dims, const int64_t *shape, const float *values)
{
    zi_tensor tensor;
    table_ok(run->ops->table->alloc(run, &tensor, dims, shape));
    if (values)
        table_ok(run->ops->table->upload(run, &tensor, values));
    return tensor;
}

#endif
