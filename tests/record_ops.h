/*
 * A table of operations that passes every call to another and keeps copies of what flows through, so that a test can
 * look at any stage of a network from outside. One recorder at a time.
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

static inline void record_tensor(zi_ops *ops, const char *name, const zi_tensor *tensor)
{
    assert_true(recorder.count < RECORD_MAX);
    record *r = &recorder.records[recorder.count++];
    r->name = name;
    r->count = zi_tensor_count(tensor);
    r->data = malloc((size_t)r->count * sizeof(float));
    assert_non_null(r->data);
    assert_int_equal(recorder.inner->download(ops, r->data, tensor), ZIMAGE_OK);
}

/* The index-th record of that name; negative counts from the end. */
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

static inline zimage_status record_upload(zi_ops *ops, zi_tensor *dst, const float *src)
{
    zimage_status status = recorder.inner->upload(ops, dst, src);
    record_tensor(ops, "upload", dst);
    return status;
}

static inline zimage_status record_linear(zi_ops *ops, zi_tensor *y, const zi_tensor *x, const zi_weight *weight,
                                          const zi_weight *bias, int accumulate)
{
    zimage_status status = recorder.inner->linear(ops, y, x, weight, bias, accumulate);
    record_tensor(ops, "linear", y);
    return status;
}

static inline zimage_status record_linears(zi_ops *ops, int count, zi_tensor *y, const zi_tensor *x,
                                           const zi_weight *const *weights)
{
    zimage_status status = recorder.inner->linears(ops, count, y, x, weights);
    for (int i = 0; i < count; i++)
        record_tensor(ops, "linear", &y[i]);
    return status;
}

static inline zimage_status record_rms_norm(zi_ops *ops, zi_tensor *y, const zi_tensor *x, const zi_weight *w,
                                            const zi_tensor *scale, float eps)
{
    zimage_status status = recorder.inner->rms_norm(ops, y, x, w, scale, eps);
    record_tensor(ops, "rms_norm", y);
    return status;
}

static inline zimage_status record_residual(zi_ops *ops, zi_tensor *x, const zi_tensor *y, const zi_weight *w,
                                            const zi_tensor *gate, zi_tensor *h, const zi_weight *w_next,
                                            const zi_tensor *scale_next, float eps, int *finite)
{
    record_tensor(ops, "branch", y);
    zimage_status status = recorder.inner->residual_gate_norm(ops, x, y, w, gate, h, w_next, scale_next, eps, finite);
    if (h)
        record_tensor(ops, "next", h);
    if (finite)
        record_tensor(ops, "block", x);
    return status;
}

static inline zimage_status record_qk(zi_ops *ops, zi_tensor *x, const zi_weight *w, const zi_tensor *cos,
                                      const zi_tensor *sin, int64_t heads, zi_rope_layout layout, float eps)
{
    record_tensor(ops, "cos", cos);
    record_tensor(ops, "sin", sin);
    return recorder.inner->qk_norm_rope(ops, x, w, cos, sin, heads, layout, eps);
}

static inline zimage_status record_attention(zi_ops *ops, zi_tensor *o, const zi_tensor *q, const zi_tensor *k,
                                             const zi_tensor *v, const zi_attention_shape *shape)
{
    record_tensor(ops, "q", q);
    record_tensor(ops, "k", k);
    record_tensor(ops, "v", v);
    zimage_status status = recorder.inner->attention(ops, o, q, k, v, shape);
    record_tensor(ops, "heads", o);
    return status;
}

static inline zimage_status record_modulation(zi_ops *ops, zi_tensor *m)
{
    record_tensor(ops, "adaln", m);
    return recorder.inner->modulation(ops, m);
}

static inline zimage_status record_patchify(zi_ops *ops, zi_tensor *tokens, const zi_tensor *latents, int64_t patch)
{
    zimage_status status = recorder.inner->patchify(ops, tokens, latents, patch);
    record_tensor(ops, "patches", tokens);
    return status;
}

static inline zimage_status record_check(zi_ops *ops, const zi_tensor *x, int *finite)
{
    record_tensor(ops, "block", x);
    return recorder.inner->check_finite(ops, x, finite);
}

static inline void record_start(zi_ops *ops)
{
    recorder.inner = ops->table;
    recorder.table = *ops->table;
    recorder.table.upload = record_upload;
    recorder.table.linear = record_linear;
    recorder.table.linears = record_linears;
    recorder.table.rms_norm = record_rms_norm;
    recorder.table.residual_gate_norm = record_residual;
    recorder.table.qk_norm_rope = record_qk;
    recorder.table.attention = record_attention;
    recorder.table.modulation = record_modulation;
    recorder.table.patchify = record_patchify;
    recorder.table.check_finite = record_check;
    recorder.count = 0;
    ops->table = &recorder.table;
}

static inline void record_clear(void)
{
    for (int i = 0; i < recorder.count; i++)
        free(recorder.records[i].data);
    recorder.count = 0;
}

static inline void record_stop(zi_ops *ops)
{
    record_clear();
    ops->table = recorder.inner;
    recorder.inner = NULL;
}

#endif
