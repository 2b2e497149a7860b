/*
 * A table of operations that passes every call on to another table and keeps copies of what flows through, so that a
 * test can look at any stage of a network from outside. One recorder at a time.
 */
#ifndef ZI_TESTS_RECORD_OPS_H
#define ZI_TESTS_RECORD_OPS_H

#include "ops/ops.h"
#include "support.h"

#define RECORD_MAX 4096

typedef struct record {
    const char *name; /* "q", "heads", "block", ... */
    float *data;
    int64_t count;
} record;

static struct {
    zi_ops_table table;
    const zi_ops_table *inner;
    record records[RECORD_MAX];
    int count;
} recorder;

static inline void record_tensor(zi_run *run, const char *name, const zi_tensor *tensor)
{
    assert_true(recorder.count < RECORD_MAX);
    record *r = &recorder.records[recorder.count++];
    r->name = name;
    r->count = zi_tensor_count(tensor);
    r->data = malloc((size_t)r->count * sizeof(float));
    assert_non_null(r->data);
    zi_arena_mark mark = recorder.inner->mark(run);
    zi_tensor dense = *tensor;
    if (!zi_tensor_is_dense(tensor)) {
        assert_int_equal(recorder.inner->alloc(run, &dense, tensor->dims, tensor->shape), ZIMAGE_OK);
        assert_int_equal(recorder.inner->copy(run, &dense, tensor), ZIMAGE_OK);
    }
    assert_int_equal(recorder.inner->download(run, r->data, &dense), ZIMAGE_OK);
    recorder.inner->release(run, mark);
}

/* The index-th record of that name; a negative index counts from the end. */
static inline const record *recorded(const char *name, int index)
{
    int seen = 0, all = 0;
    for (int i = 0; i < recorder.count; i++)
        all += strcmp(recorder.records[i].name, name) == 0;
    if (index < 0)
        index += all;
    for (int i = 0; i < recorder.count; i++)
        if (strcmp(recorder.records[i].name, name) == 0 && seen++ == index)
            return &recorder.records[i];
    fail_msg("only %d records of %s, not %d", all, name, index);
    return NULL;
}

/* ---- recorded operations ----------------------------------------------------------------------------------------- */

static inline zimage_status record_upload(zi_run *run, zi_tensor *dst, const float *src)
{
    ZI_TRY(recorder.inner->upload(run, dst, src));
    record_tensor(run, "upload", dst);
    return ZIMAGE_OK;
}

static inline zimage_status record_linear(zi_run *run, zi_tensor *y, const zi_tensor *x, const zi_weight *weight,
                                          const zi_weight *bias, int accumulate)
{
    ZI_TRY(recorder.inner->linear(run, y, x, weight, bias, accumulate));
    record_tensor(run, "linear", y);
    return ZIMAGE_OK;
}

static inline zimage_status record_linears(zi_run *run, int count, zi_tensor *y, const zi_tensor *x,
                                           const zi_weight *const *weights)
{
    ZI_TRY(recorder.inner->linears(run, count, y, x, weights));
    for (int i = 0; i < count; i++)
        record_tensor(run, "linear", &y[i]);
    return ZIMAGE_OK;
}

static inline zimage_status record_norm(zi_run *run, zi_tensor *y, const zi_tensor *x, const zi_norm *norm)
{
    ZI_TRY(recorder.inner->norm(run, y, x, norm));
    record_tensor(run, norm->kind == ZI_NORM_RMS ? "rms_norm" : "layer_norm", y);
    return ZIMAGE_OK;
}

static inline zimage_status record_residual(zi_run *run, zi_tensor *x, const zi_tensor *y, zi_tensor *h,
                                            const zi_residual *residual)
{
    record_tensor(run, "branch", y);
    ZI_TRY(recorder.inner->residual(run, x, y, h, residual));
    if (h)
        record_tensor(run, "next", h);
    if (residual->finite)
        record_tensor(run, "block", x);
    return ZIMAGE_OK;
}

static inline zimage_status record_qk_norm_rope(zi_run *run, zi_tensor *x, const zi_qk_norm_rope *args)
{
    record_tensor(run, "cos", args->cos);
    record_tensor(run, "sin", args->sin);
    return recorder.inner->qk_norm_rope(run, x, args);
}

static inline zimage_status record_attention(zi_run *run, zi_tensor *o, const zi_tensor *q, const zi_tensor *k,
                                             const zi_tensor *v, const zi_attention *attention)
{
    record_tensor(run, "q", q);
    record_tensor(run, "k", k);
    record_tensor(run, "v", v);
    ZI_TRY(recorder.inner->attention(run, o, q, k, v, attention));
    record_tensor(run, "heads", o);
    return ZIMAGE_OK;
}

static inline zimage_status record_modulation(zi_run *run, zi_tensor *m, int parts, const zi_modulation *kinds)
{
    if (parts > 1) /* a single part is a vector that is made into a scale, not a block's modulation */
        record_tensor(run, "adaln", m);
    return recorder.inner->modulation(run, m, parts, kinds);
}

static inline zimage_status record_patchify(zi_run *run, zi_tensor *tokens, const zi_tensor *latents, int64_t patch,
                                            zi_patch_order order)
{
    ZI_TRY(recorder.inner->patchify(run, tokens, latents, patch, order));
    record_tensor(run, "patches", tokens);
    return ZIMAGE_OK;
}

static inline zimage_status record_check_finite(zi_run *run, const zi_tensor *x, int *finite)
{
    record_tensor(run, "block", x);
    return recorder.inner->check_finite(run, x, finite);
}

/* ---- starting and stopping --------------------------------------------------------------------------------------- */

static inline void record_start(zi_run *run)
{
    recorder.inner = zi_table(run);
    recorder.table = *recorder.inner;
    recorder.table.upload = record_upload;
    recorder.table.linear = record_linear;
    recorder.table.linears = record_linears;
    recorder.table.norm = record_norm;
    recorder.table.residual = record_residual;
    recorder.table.qk_norm_rope = record_qk_norm_rope;
    recorder.table.attention = record_attention;
    recorder.table.modulation = record_modulation;
    recorder.table.patchify = record_patchify;
    recorder.table.check_finite = record_check_finite;
    recorder.count = 0;
    run->ops->table = &recorder.table;
}

static inline void record_clear(void)
{
    for (int i = 0; i < recorder.count; i++)
        free(recorder.records[i].data);
    recorder.count = 0;
}

static inline void record_stop(zi_run *run)
{
    record_clear();
    run->ops->table = recorder.inner;
    recorder.inner = NULL;
}

#endif
