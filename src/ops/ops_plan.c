#include "ops/ops_plan.h"

#include <stdlib.h>

typedef struct plan {
    zi_ops ops;
    double flops;
    size_t used; /* of the stack the other tables would hold */
    size_t peak;
} plan;

static plan *plan_of(zi_ops *ops)
{
    return (plan *)ops;
}

static zimage_status plan_alloc(zi_ops *ops, zi_tensor *tensor, int dims, const int64_t *shape)
{
    plan *p = plan_of(ops);
    /* Never read; not NULL, so that views of it are ordinary pointer arithmetic. */
    *tensor = (zi_tensor){.dtype = ZI_F32, .dims = dims, .data = (void *)(uintptr_t)4096};
    size_t count = 1;
    for (int i = 0; i < dims; i++) {
        tensor->shape[i] = shape[i];
        count *= (size_t)shape[i];
    }
    p->used += count * sizeof(float);
    if (p->used > p->peak)
        p->peak = p->used;
    return ZIMAGE_OK;
}

static zi_arena_mark plan_mark(zi_ops *ops)
{
    return (zi_arena_mark){.used = plan_of(ops)->used};
}

static void plan_release(zi_ops *ops, zi_arena_mark mark)
{
    plan_of(ops)->used = mark.used;
}

static zimage_status count(zi_ops *ops, double flops)
{
    plan_of(ops)->flops += flops;
    return ZIMAGE_OK;
}

static zimage_status plan_upload(zi_ops *ops, zi_tensor *dst, const float *src)
{
    return ZIMAGE_OK;
}

static zimage_status plan_download(zi_ops *ops, float *dst, const zi_tensor *src)
{
    return ZIMAGE_OK;
}

static zimage_status plan_pair(zi_ops *ops, zi_tensor *y, const zi_tensor *x)
{
    return ZIMAGE_OK;
}

static zimage_status plan_embed_rows(zi_ops *ops, zi_tensor *y, const zi_weight *table, const int32_t *ids)
{
    return ZIMAGE_OK;
}

/* Tokens are all but the last dimension. */
static double tokens_of(const zi_tensor *x)
{
    return (double)zi_tensor_count(x) / (double)x->shape[x->dims - 1];
}

static zimage_status plan_linear(zi_ops *ops, zi_tensor *y, const zi_tensor *x, const zi_weight *weight,
                                 const zi_weight *bias, int accumulate)
{
    return count(ops, 2 * tokens_of(x) * (double)weight->shape[0] * (double)weight->shape[1]);
}

static zimage_status plan_linear_glu(zi_ops *ops, zi_tensor *y, const zi_tensor *x, const zi_weight *w1,
                                     const zi_weight *w3)
{
    return count(ops, 4 * tokens_of(x) * (double)w1->shape[0] * (double)w1->shape[1]);
}

static zimage_status plan_rms_norm(zi_ops *ops, zi_tensor *y, const zi_tensor *x, const zi_weight *w,
                                   const zi_tensor *scale, float eps)
{
    return ZIMAGE_OK;
}

static zimage_status plan_layer_norm(zi_ops *ops, zi_tensor *y, const zi_tensor *x, const zi_tensor *scale, float eps)
{
    return ZIMAGE_OK;
}

static zimage_status plan_residual_gate_norm(zi_ops *ops, zi_tensor *x, const zi_tensor *y, const zi_weight *w,
                                             const zi_tensor *gate, zi_tensor *h, const zi_weight *w_next,
                                             const zi_tensor *scale_next, float eps)
{
    return ZIMAGE_OK;
}

static zimage_status plan_qk_norm_rope(zi_ops *ops, zi_tensor *x, const zi_weight *w, const zi_tensor *cos,
                                       const zi_tensor *sin, int64_t heads, zi_rope_layout layout, float eps)
{
    return ZIMAGE_OK;
}

static zimage_status plan_attention(zi_ops *ops, zi_tensor *o, const zi_tensor *q, const zi_tensor *k,
                                    const zi_tensor *v, const zi_attention_shape *shape)
{
    double seen = shape->causal ? 0.5 : 1.0;
    return count(ops, 4 * seen * (double)q->shape[0] * (double)k->shape[0] * (double)(shape->heads * shape->head_dim));
}

static zimage_status plan_in_place(zi_ops *ops, zi_tensor *m)
{
    return ZIMAGE_OK;
}

static zimage_status plan_patch(zi_ops *ops, zi_tensor *y, const zi_tensor *x, int64_t patch)
{
    return ZIMAGE_OK;
}

static zimage_status plan_conv2d(zi_ops *ops, zi_tensor *y, const zi_tensor *x, const zi_conv *conv)
{
    return count(ops, 2 * tokens_of(y) * (double)zi_weight_count(conv->weight));
}

static zimage_status plan_group_norm_sums(zi_ops *ops, double *sums, const zi_tensor *x, int64_t groups)
{
    return ZIMAGE_OK;
}

static zimage_status plan_group_norm_fold(zi_ops *ops, zi_channel_affine *affine, const double *sums, int64_t groups,
                                          int64_t elements, const zi_weight *w, const zi_weight *b, float eps)
{
    return ZIMAGE_OK;
}

static zimage_status plan_channel_affine(zi_ops *ops, zi_tensor *y, const zi_tensor *x, const zi_channel_affine *affine)
{
    return ZIMAGE_OK;
}

static zimage_status plan_check_finite(zi_ops *ops, const zi_tensor *x, int *finite)
{
    *finite = 1;
    return ZIMAGE_OK;
}

static void plan_free(zi_ops *ops)
{
    free(ops);
}

static size_t plan_peak(const zi_ops *ops)
{
    return ((const plan *)ops)->peak;
}

static const zi_ops_table plan_table = {
    .name = "plan",
    .alloc = plan_alloc,
    .mark = plan_mark,
    .release = plan_release,
    .upload = plan_upload,
    .download = plan_download,
    .copy = plan_pair,
    .embed_rows = plan_embed_rows,
    .linear = plan_linear,
    .linear_glu = plan_linear_glu,
    .silu = plan_pair,
    .rms_norm = plan_rms_norm,
    .layer_norm = plan_layer_norm,
    .residual_gate_norm = plan_residual_gate_norm,
    .qk_norm_rope = plan_qk_norm_rope,
    .attention = plan_attention,
    .modulation = plan_in_place,
    .add_one = plan_pair,
    .patchify = plan_patch,
    .unpatchify = plan_patch,
    .conv2d = plan_conv2d,
    .group_norm_sums = plan_group_norm_sums,
    .group_norm_fold = plan_group_norm_fold,
    .channel_affine = plan_channel_affine,
    .check_finite = plan_check_finite,
    .free = plan_free,
};

zimage_status zi_ops_plan_new(zi_ops **ops, zimage_error *error)
{
    plan *p = calloc(1, sizeof *p);
    *ops = (zi_ops *)p;
    if (!p)
        return zi_fail_memory(error, "the plan", sizeof *p);
    p->ops.table = &plan_table;
    p->ops.peak_bytes = plan_peak;
    return ZIMAGE_OK;
}

double zi_ops_plan_flops(const zi_ops *ops)
{
    return ((const plan *)ops)->flops;
}
