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

static inline void record_tensor(zi_run *run, const char *name, const zi_tensor *tensor)
{
    assert_true(recorder.count < RECORD_MAX);
    record *r = &recorder.records[recorder.count++];
    r->name = name;
    r->count = zi_tensor_count(tensor);
    r->data = malloc((size_t)r->count * sizeof(float));
    assert_non_null(r->data);
    assert_int_equal(recorder.inner->download(run, r->data, tensor), ZIMAGE_OK);
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

static inline zimage_status record_upload(zi_run *run, zi_tensor *dst, const float *src)
{
    zimage_status status = recorder.inner->upload(run, dst, src);
    record_tensor(run, "upload", dst);
    return status;
}

static inline zimage_status record_linear(zi_run *run, zi_tensor *y, const zi_tensor *x, const zi_weight *weight,
                                          const zi_weight *bias, int accumulate)
{
    zimage_status status = recorder.inner->linear(run, y, x, weight, bias, accumulate);
    record_tensor(run, "linear", y);
    return status;
}

static inline zimage_status record_linears(zi_run *run, int count, zi_tensor *y, const zi_tensor *x,
                                           const zi_weight *const *weights)
{
    zimage_status status = recorder.inner->linears(run, count, y, x, weights);
    for (int i = 0; i < count; i++)
        record_tensor(run, "linear", &y[i]);
    return status;
}

static inline zimage_status record_rms_norm(zi_run *run, zi_tensor *y, const zi_tensor *x, const zi_weight *w,
                                            const zi_tensor *scale, float eps)
{
    zimage_status status = recorder.inner->rms_norm(run, y, x, w, scale, eps);
    record_tensor(run, "rms_norm", y);
    return status;
}

static inline zimage_status record_residual(zi_run *run, zi_tensor *x, const zi_tensor *y, const zi_weight *w,
                                            const zi_tensor *gate, zi_tensor *h, const zi_weight *w_next,
                                            const zi_tensor *scale_next, float eps, int *finite)
{
    record_tensor(run, "branch", y);
    zimage_status status = recorder.inner->residual_gate_norm(run, x, y, w, gate, h, w_next, scale_next, eps, finite);
    if (h)
        record_tensor(run, "next", h);
    if (finite)
        record_tensor(run, "block", x);
    return status;
}

static inline zimage_status record_qk(zi_run *run, zi_tensor *x, const zi_weight *w, const zi_tensor *cos,
                                      const zi_tensor *sin, int64_t heads, zi_rope_layout layout, float eps)
{
    record_tensor(run, "cos", cos);
    record_tensor(run, "sin", sin);
    return recorder.inner->qk_norm_rope(run, x, w, cos, sin, heads, layout, eps);
}

static inline zimage_status record_attention(zi_run *run, zi_tensor *o, const zi_tensor *q, const zi_tensor *k,
                                             const zi_tensor *v, const zi_attention *shape)
{
    record_tensor(run, "q", q);
    record_tensor(run, "k", k);
    record_tensor(run, "v", v);
    zimage_status status = recorder.inner->attention(run, o, q, k, v, shape);
    record_tensor(run, "heads", o);
    return status;
}

static inline zimage_status record_modulation(zi_run *run, zi_tensor *m)
{
    record_tensor(run, "adaln", m);
    return recorder.inner->modulation(run, m);
}

static inline zimage_status record_patchify(zi_run *run, zi_tensor *tokens, const zi_tensor *latents, int64_t patch)
{
    zimage_status status = recorder.inner->patchify(run, tokens, latents, patch);
    record_tensor(run, "patches", tokens);
    return status;
}

static inline zimage_status record_check(zi_run *run, const zi_tensor *x, int *finite)
{
    record_tensor(run, "block", x);
    return recorder.inner->check_finite(run, x, finite);
}

static inline void record_start(zi_run *run)
{
    recorder.inner = run->ops->table;
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
