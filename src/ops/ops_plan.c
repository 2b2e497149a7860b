#include "ops/ops_plan.h"

#include <stdlib.h>

#define ATTENTION_PACKED ((size_t)8 << 20)

typedef struct plan {
    zi_ops ops;
    zi_plan_counts counts;
    size_t used;               /* of the stack the other tables would hold */
    const zi_weight **weights; /* the distinct ones read so far, owned */
    size_t weight_count, weight_capacity;
} plan;

static plan *plan_of(zi_ops *ops)
{
    return (plan *)ops;
}

/* workspace: bytes that a fast table takes on top for the time of one operation */
static void note_peak(plan *p, size_t workspace)
{
    if (p->used + workspace > p->counts.peak_bytes)
        p->counts.peak_bytes = p->used + workspace;
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
    note_peak(p, 0);
    return ZIMAGE_OK;
}

static zimage_status plan_alloc_operand(zi_ops *ops, zi_tensor *x, int64_t rows, int64_t columns, const zi_weight *w)
{
    return plan_alloc(ops, x, 2, (const int64_t[]){rows, columns});
}

static zi_arena_mark plan_mark(zi_ops *ops)
{
    return (zi_arena_mark){.used = plan_of(ops)->used};
}

static void plan_release(zi_ops *ops, zi_arena_mark mark)
{
    plan_of(ops)->used = mark.used;
}

static size_t stored_bytes(const zi_weight *weight)
{
    size_t scales = 0;
    if (weight->dtype == ZI_GROUPED)
        scales = 2 * (size_t)(zi_weight_count(weight) / weight->group) * zi_dtype_size(weight->scale_dtype);
    return weight->bytes + scales;
}

/* weight may be NULL */
static zimage_status read_weight(plan *p, const zi_weight *weight)
{
    for (size_t i = p->weight_count; i-- > 0;)
        if (p->weights[i] == weight)
            return ZIMAGE_OK;
    if (!weight)
        return ZIMAGE_OK;
    if (p->weight_count == p->weight_capacity) {
        size_t capacity = p->weight_capacity ? 2 * p->weight_capacity : 256;
        const zi_weight **weights = realloc(p->weights, capacity * sizeof(void *));
        if (!weights)
            return zi_fail_memory(p->ops.error, "the plan", capacity * sizeof(void *));
        p->weights = weights;
        p->weight_capacity = capacity;
    }
    p->weights[p->weight_count++] = weight;
    p->counts.weight_bytes += stored_bytes(weight);
    return ZIMAGE_OK;
}

static void count_product(plan *p, int64_t rows, int64_t out, int64_t in)
{
    zi_plan_product *products = p->counts.products;
    double flops = 2 * (double)rows * (double)out * (double)in;
    int i = 0;
    while (i < p->counts.product_count && !(products[i].rows == rows && products[i].out == out && products[i].in == in))
        i++;
    if (i == ZI_PLAN_PRODUCTS)
        return;
    if (i == p->counts.product_count)
        products[p->counts.product_count++] = (zi_plan_product){.rows = rows, .out = out, .in = in};
    products[i].flops += flops;
}

/* A linear product, read once from its storage for all tokens. */
static zimage_status count_linear(zi_ops *ops, const zi_tensor *x, const zi_weight *weight)
{
    plan *p = plan_of(ops);
    int64_t out = weight->shape[0], in = weight->shape[1], rows = zi_tensor_count(x) / in;
    count_product(p, rows, out, in);
    p->counts.linear_flops += 2 * (double)rows * (double)out * (double)in;
    p->counts.unpacked += (double)out * (double)in;
    note_peak(p, (size_t)(rows * in) * 2); /* activations packed to bf16, if they are */
    return read_weight(p, weight);
}

static zimage_status plan_upload(zi_ops *ops, zi_tensor *dst, const float *src)
{
    return ZIMAGE_OK;
}

static zimage_status plan_download(zi_ops *ops, float *dst, const zi_tensor *src)
{
    return ZIMAGE_OK;
}

static zimage_status plan_download_rgb8(zi_ops *ops, uint8_t *dst, const zi_tensor *src)
{
    return ZIMAGE_OK;
}

static zimage_status plan_rope_table(zi_ops *ops, zi_tensor *cos, zi_tensor *sin, const float *angles)
{
    return ZIMAGE_OK;
}

static zimage_status plan_pair(zi_ops *ops, zi_tensor *y, const zi_tensor *x)
{
    return ZIMAGE_OK;
}

static size_t smaller(size_t a, size_t b)
{
    return a < b ? a : b;
}

/* An embedding table is read where the ids say. */
static zimage_status plan_embed_rows(zi_ops *ops, zi_tensor *y, const zi_weight *table, const int32_t *ids)
{
    size_t rows = (size_t)y->shape[0], all = (size_t)table->shape[0];
    plan_of(ops)->counts.weight_bytes += stored_bytes(table) / all * smaller(rows, all);
    return ZIMAGE_OK;
}

static zimage_status plan_linear(zi_ops *ops, zi_tensor *y, const zi_tensor *x, const zi_weight *weight,
                                 const zi_weight *bias, int accumulate)
{
    ZI_TRY(count_linear(ops, x, weight));
    return read_weight(plan_of(ops), bias);
}

static zimage_status plan_linears(zi_ops *ops, int count, zi_tensor *y, const zi_tensor *x,
                                  const zi_weight *const *weights)
{
    for (int i = 0; i < count; i++)
        ZI_TRY(count_linear(ops, x, weights[i]));
    return ZIMAGE_OK;
}

static zimage_status plan_linear_glu(zi_ops *ops, zi_tensor *y, const zi_tensor *x, const zi_weight *w1,
                                     const zi_weight *w3)
{
    ZI_TRY(count_linear(ops, x, w1));
    return count_linear(ops, x, w3);
}

static zimage_status plan_rms_norm(zi_ops *ops, zi_tensor *y, const zi_tensor *x, const zi_weight *w,
                                   const zi_tensor *scale, float eps)
{
    return read_weight(plan_of(ops), w);
}

static zimage_status plan_layer_norm(zi_ops *ops, zi_tensor *y, const zi_tensor *x, const zi_tensor *scale, float eps)
{
    return ZIMAGE_OK;
}

static zimage_status plan_residual_gate_norm(zi_ops *ops, zi_tensor *x, const zi_tensor *y, const zi_weight *w,
                                             const zi_tensor *gate, zi_tensor *h, const zi_weight *w_next,
                                             const zi_tensor *scale_next, float eps, int *finite)
{
    if (finite != NULL)
        *finite = 1;
    ZI_TRY(read_weight(plan_of(ops), w));
    return read_weight(plan_of(ops), w_next);
}

static zimage_status plan_qk_norm_rope(zi_ops *ops, zi_tensor *x, const zi_weight *w, const zi_tensor *cos,
                                       const zi_tensor *sin, int64_t heads, zi_rope_layout layout, float eps)
{
    return read_weight(plan_of(ops), w);
}

static zimage_status plan_attention(zi_ops *ops, zi_tensor *o, const zi_tensor *q, const zi_tensor *k,
                                    const zi_tensor *v, const zi_attention_shape *shape)
{
    plan *p = plan_of(ops);
    double seen = shape->causal ? 0.5 : 1.0;
    size_t packed = 2 * (size_t)zi_tensor_count(k) * sizeof(float);
    p->counts.attention_flops +=
        4 * seen * (double)q->shape[0] * (double)k->shape[0] * (double)(shape->heads * shape->head_dim);
    note_peak(p, smaller(packed, ATTENTION_PACKED));
    return ZIMAGE_OK;
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
    plan *p = plan_of(ops);
    int64_t out = conv->weight->shape[0], weights = zi_weight_count(conv->weight), pixels = zi_tensor_count(y) / out;
    count_product(p, pixels, out, weights / out);
    p->counts.conv_flops += 2 * (double)pixels * (double)weights;
    note_peak(p, (size_t)weights * sizeof(float));
    ZI_TRY(read_weight(p, conv->weight));
    return read_weight(p, conv->bias);
}

static zimage_status plan_group_norm_sums(zi_ops *ops, zi_tensor *sums, const zi_tensor *x, int accumulate)
{
    return ZIMAGE_OK;
}

static zimage_status plan_group_norm_fold(zi_ops *ops, zi_channel_affine *affine, const zi_tensor *sums, int64_t count,
                                          const zi_weight *w, const zi_weight *b, float eps)
{
    ZI_TRY(read_weight(plan_of(ops), w));
    return read_weight(plan_of(ops), b);
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
    free(plan_of(ops)->weights);
    free(ops);
}

static size_t plan_peak(const zi_ops *ops)
{
    return ((const plan *)ops)->counts.peak_bytes;
}

static const zi_ops_table plan_table = {
    .name = "plan",
    .alloc = plan_alloc,
    .alloc_f32 = plan_alloc,
    .alloc_operand = plan_alloc_operand,
    .mark = plan_mark,
    .release = plan_release,
    .upload = plan_upload,
    .download = plan_download,
    .download_rgb8 = plan_download_rgb8,
    .copy = plan_pair,
    .embed_rows = plan_embed_rows,
    .linear = plan_linear,
    .linears = plan_linears,
    .linear_glu = plan_linear_glu,
    .silu = plan_pair,
    .rms_norm = plan_rms_norm,
    .layer_norm = plan_layer_norm,
    .residual_gate_norm = plan_residual_gate_norm,
    .rope_table = plan_rope_table,
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

const zi_plan_counts *zi_ops_plan_counts(const zi_ops *ops)
{
    return &((const plan *)ops)->counts;
}

double zi_plan_flops(const zi_plan_counts *counts)
{
    return counts->linear_flops + counts->attention_flops + counts->conv_flops;
}
