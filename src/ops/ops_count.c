#include "ops/ops_count.h"

#include <stdio.h>
#include <stdlib.h>

#include "ops/host.h"

typedef struct counter {
    zi_ops ops;
    zi_counts counts;
    const zi_weight **weights; /* the distinct ones read so far, owned */
    size_t weight_count, weight_capacity;
} counter;

static counter *counter_of(const zi_run *run)
{
    return (counter *)run->ops;
}

/* ---- counting ---------------------------------------------------------------------------------------------------- */

static size_t stored_bytes(const zi_weight *weight)
{
    size_t scales = 0;
    if (weight->dtype == ZI_GROUPED)
        scales = 2 * (size_t)(zi_weight_count(weight) / weight->group) * zi_dtype_size(weight->scale_dtype);
    return weight->bytes + scales;
}

/* weight may be NULL */
static zimage_status read_weight(zi_run *run, const zi_weight *weight)
{
    counter *p = counter_of(run);
    for (size_t i = p->weight_count; i-- > 0;)
        if (p->weights[i] == weight)
            return ZIMAGE_OK;
    if (!weight)
        return ZIMAGE_OK;
    if (p->weight_count == p->weight_capacity) {
        size_t capacity = p->weight_capacity ? 2 * p->weight_capacity : 256;
        const zi_weight **weights = realloc(p->weights, capacity * sizeof(void *));
        if (!weights)
            return zi_fail_memory(run->error, "the plan", capacity * sizeof(void *));
        p->weights = weights;
        p->weight_capacity = capacity;
    }
    p->weights[p->weight_count++] = weight;
    p->counts.weight_bytes += stored_bytes(weight);
    return ZIMAGE_OK;
}

static zimage_status read_norm(zi_run *run, const zi_norm *norm)
{
    return norm ? read_weight(run, norm->weight) : ZIMAGE_OK;
}

/* Returns the product's floating-point operations. */
static double count_product(counter *p, int64_t rows, int64_t out, int64_t in)
{
    zi_product *products = p->counts.products;
    double flops = 2 * (double)rows * (double)out * (double)in;
    int i = 0;
    while (i < p->counts.product_count && !(products[i].rows == rows && products[i].out == out && products[i].in == in))
        i++;
    if (i == ZI_COUNT_PRODUCTS)
        return flops;
    if (i == p->counts.product_count)
        products[p->counts.product_count++] = (zi_product){.rows = rows, .out = out, .in = in};
    products[i].flops += flops;
    return flops;
}

/* A linear product, read once from its storage for all tokens. */
static zimage_status count_linear(zi_run *run, const zi_tensor *x, const zi_weight *weight)
{
    counter *p = counter_of(run);
    int64_t out = weight->shape[0], in = weight->shape[1], rows = zi_tensor_count(x) / in;
    int64_t fewest = p->counts.fewest_rows;
    p->counts.linear_flops += count_product(p, rows, out, in);
    p->counts.fewest_rows = rows > 1 && (fewest == 0 || rows < fewest) ? rows : fewest;
    p->counts.most_rows = rows > 1 && rows > p->counts.most_rows ? rows : p->counts.most_rows;
    p->counts.unpacked += (double)out * (double)in;
    return read_weight(run, weight);
}

/* ---- memory: no tensor has any ----------------------------------------------------------------------------------- */

static zimage_status count_alloc(zi_run *run, zi_tensor *tensor, int dims, const int64_t *shape)
{
    return zi_check_tensor(run, tensor, ZI_F32, dims, shape);
}

static zi_arena_mark count_mark(zi_run *run)
{
    return (zi_arena_mark){0};
}

static void count_release(zi_run *run, zi_arena_mark mark)
{
}

static zimage_status count_upload(zi_run *run, zi_tensor *dst, const float *src)
{
    return ZIMAGE_OK;
}

static zimage_status count_download(zi_run *run, float *dst, const zi_tensor *src)
{
    return ZIMAGE_OK;
}

static zimage_status count_download_rgb8(zi_run *run, uint8_t *dst, const zi_tensor *src)
{
    return ZIMAGE_OK;
}

static zimage_status count_pair(zi_run *run, zi_tensor *y, const zi_tensor *x)
{
    return ZIMAGE_OK;
}

/* ---- operations -------------------------------------------------------------------------------------------------- */

/* Only the rows of an embedding table that the ids name are read. */
static zimage_status count_embed_rows(zi_run *run, zi_tensor *y, const zi_weight *table, const int32_t *ids)
{
    size_t rows = (size_t)y->shape[0], all = (size_t)table->shape[0];
    counter_of(run)->counts.weight_bytes += stored_bytes(table) / all * (rows < all ? rows : all);
    return ZIMAGE_OK;
}

static zimage_status count_one_linear(zi_run *run, zi_tensor *y, const zi_tensor *x, const zi_weight *weight,
                                      const zi_weight *bias, int accumulate)
{
    ZI_TRY(count_linear(run, x, weight));
    return read_weight(run, bias);
}

static zimage_status count_linears(zi_run *run, int count, zi_tensor *y, const zi_tensor *x,
                                   const zi_weight *const *weights)
{
    for (int i = 0; i < count; i++)
        ZI_TRY(count_linear(run, x, weights[i]));
    return ZIMAGE_OK;
}

static zimage_status count_linear_glu(zi_run *run, zi_tensor *y, const zi_tensor *x, const zi_weight *w1,
                                      const zi_weight *w3)
{
    ZI_TRY(count_linear(run, x, w1));
    return count_linear(run, x, w3);
}

static zimage_status count_norm(zi_run *run, zi_tensor *y, const zi_tensor *x, const zi_norm *norm)
{
    return read_norm(run, norm);
}

static zimage_status count_residual(zi_run *run, zi_tensor *x, const zi_tensor *y, zi_tensor *h,
                                    const zi_residual *residual)
{
    if (residual->finite != NULL)
        *residual->finite = 1;
    ZI_TRY(read_norm(run, residual->post));
    return read_norm(run, residual->next);
}

static zimage_status count_rope_table(zi_run *run, zi_tensor *cos, zi_tensor *sin, const float *angles)
{
    return ZIMAGE_OK;
}

static zimage_status count_qk_norm_rope(zi_run *run, zi_tensor *x, const zi_qk_norm_rope *args)
{
    ZI_TRY(read_weight(run, args->weight));
    return read_weight(run, args->k_weight);
}

static zimage_status count_attention(zi_run *run, zi_tensor *o, const zi_tensor *q, const zi_tensor *k,
                                     const zi_tensor *v, const zi_attention *attention)
{
    double seen = attention->causal ? 0.5 : 1.0;
    for (int i = 0; i < zi_sequence_count(attention); i++) {
        const zi_sequence rows = zi_sequence_of(attention, q, k, i);
        counter_of(run)->counts.attention_flops +=
            4 * seen * (double)rows.queries * (double)rows.keys * (double)(attention->heads * attention->head_dim);
    }
    return ZIMAGE_OK;
}

static zimage_status count_modulation(zi_run *run, zi_tensor *m, int parts, const zi_modulation *kinds)
{
    return ZIMAGE_OK;
}

static zimage_status count_patches(zi_run *run, zi_tensor *y, const zi_tensor *x, int64_t patch, zi_patch_order order)
{
    return ZIMAGE_OK;
}

static zimage_status count_conv2d(zi_run *run, zi_tensor *y, const zi_tensor *x, const zi_conv *conv)
{
    counter *p = counter_of(run);
    int64_t out = conv->weight->shape[0], weights = zi_weight_count(conv->weight), pixels = zi_tensor_count(y) / out;
    p->counts.conv_flops += count_product(p, pixels, out, weights / out);
    ZI_TRY(read_weight(run, conv->weight));
    return read_weight(run, conv->bias);
}

static zimage_status count_group_norm_sums(zi_run *run, zi_tensor *sums, const zi_tensor *x, int accumulate)
{
    return ZIMAGE_OK;
}

static zimage_status count_group_norm_fold(zi_run *run, zi_channel_affine *affine, const zi_tensor *sums, int64_t count,
                                           const zi_weight *w, const zi_weight *b, float eps)
{
    ZI_TRY(read_weight(run, w));
    return read_weight(run, b);
}

static zimage_status count_channel_affine(zi_run *run, zi_tensor *y, const zi_tensor *x,
                                          const zi_channel_affine *affine)
{
    return ZIMAGE_OK;
}

static zimage_status count_check_finite(zi_run *run, const zi_tensor *x, int *finite)
{
    *finite = 1;
    return ZIMAGE_OK;
}

/* ---- the backend ------------------------------------------------------------------------------------------------- */

static zimage_status count_rehearse_begin(zi_run *run)
{
    return ZIMAGE_OK;
}

static zimage_status count_rehearse_stage(zi_run *run, int stage, size_t *peak)
{
    *peak = 0;
    return ZIMAGE_OK;
}

static void count_rehearse_end(zi_run *run)
{
}

static void count_describe(const zi_ops *ops, char *text, size_t size)
{
    snprintf(text, size, "count");
}

static size_t count_peak_bytes(const zi_ops *ops)
{
    return 0;
}

static void count_free(zi_ops *ops)
{
    if (ops)
        free(((counter *)ops)->weights);
    free(ops);
}

static const zi_ops_table count_table = {
    .name = "count",
    .memory = ZI_MEMORY_HOST,
    .alloc = count_alloc,
    .alloc_f32 = count_alloc,
    .alloc_operand = zi_host_alloc_operand,
    .alloc_operand_parts = zi_host_alloc_operand,
    .mark = count_mark,
    .release = count_release,
    .upload = count_upload,
    .download = count_download,
    .download_rgb8 = count_download_rgb8,
    .copy = count_pair,
    .embed_rows = count_embed_rows,
    .linear = count_one_linear,
    .linears = count_linears,
    .linear_glu = count_linear_glu,
    .silu = count_pair,
    .norm = count_norm,
    .residual = count_residual,
    .rope_table = count_rope_table,
    .qk_norm_rope = count_qk_norm_rope,
    .attention = count_attention,
    .modulation = count_modulation,
    .patchify = count_patches,
    .unpatchify = count_patches,
    .conv2d = count_conv2d,
    .group_norm_sums = count_group_norm_sums,
    .group_norm_fold = count_group_norm_fold,
    .channel_affine = count_channel_affine,
    .check_finite = count_check_finite,
    .name_check = zi_host_name_check,
    .finish = zi_host_finish,
    .repeat = zi_host_repeat,
    .rehearse_begin = count_rehearse_begin,
    .rehearse_stage = count_rehearse_stage,
    .rehearse_end = count_rehearse_end,
    .arrange = zi_host_arrange,
    .forget_weights = zi_host_forget_weights,
    .describe = count_describe,
    .peak_rate = zi_host_peak_rate,
    .exchange_seconds = zi_one_device,
    .peak_bytes = count_peak_bytes,
    .device_bytes = zi_host_device_bytes,
    .whole_image_bytes = zi_host_whole_image_bytes,
    .suits_batch = zi_host_suits_batch,
    .graph_info = zi_host_graph_info,
    .free = count_free,
};

zimage_status zi_ops_count_new(zi_ops **ops, zimage_error *error)
{
    counter *p = calloc(1, sizeof *p);
    *ops = (zi_ops *)p;
    if (!p)
        return zi_fail_memory(error, "the plan", sizeof *p);
    p->ops = (zi_ops){.table = &count_table, .rehearsing = 1};
    return ZIMAGE_OK;
}

zi_counts zi_ops_count_take(zi_ops *ops)
{
    counter *p = (counter *)ops;
    zi_counts counts = p->counts;
    p->counts = (zi_counts){0};
    p->weight_count = 0;
    return counts;
}

double zi_count_flops(const zi_counts *counts)
{
    return counts->linear_flops + counts->attention_flops + counts->conv_flops;
}
