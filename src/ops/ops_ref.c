/* The oracle: float32 values, float64 sums, one thread, the shortest code that is obviously right. */
#include <assert.h>
#include <math.h>
#include <string.h>

#include "ops/ops_common.h"

static double sigmoid(double x)
{
    return 1 / (1 + exp(-x));
}

static double dot(const float *a, const float *b, int64_t count)
{
    double sum = 0;
    for (int64_t i = 0; i < count; i++)
        sum += (double)a[i] * b[i];
    return sum;
}

/* ---- products ---------------------------------------------------------------------------------------------------- */

static zimage_status linear_rows(zi_ops *ops, zi_tensor *y, const zi_tensor *x, const zi_weight *weight,
                                 const zi_weight *bias, int accumulate)
{
    int64_t in = zi_features(x), out = zi_features(y), tokens = zi_row_count(x);
    assert(weight->shape[0] == out && weight->shape[1] == in && zi_row_count(y) == tokens);
    float *row;
    ZI_TRY(zi_host_floats(ops, in, "a weight row", &row));
    for (int64_t o = 0; o < out; o++) {
        zi_weight_unpack(weight, o * in, in, row);
        float b = 0;
        if (bias != NULL)
            zi_weight_unpack(bias, o, 1, &b);
        for (int64_t t = 0; t < tokens; t++) {
            float *target = zi_f32(y) + t * out + o;
            *target = (float)(dot(zi_f32(x) + t * in, row, in) + b + (accumulate ? *target : 0));
        }
    }
    return ZIMAGE_OK;
}

static zimage_status ref_linear(zi_ops *ops, zi_tensor *y, const zi_tensor *x, const zi_weight *weight,
                                const zi_weight *bias, int accumulate)
{
    zi_arena_mark mark = zi_host_mark(ops);
    zimage_status status = linear_rows(ops, y, x, weight, bias, accumulate);
    zi_host_release(ops, mark);
    return status;
}

static zimage_status ref_linears(zi_ops *ops, int count, zi_tensor *y, const zi_tensor *x,
                                 const zi_weight *const *weights)
{
    for (int i = 0; i < count; i++)
        ZI_TRY(ref_linear(ops, &y[i], x, weights[i], NULL, 0));
    return ZIMAGE_OK;
}

static zimage_status glu(zi_ops *ops, zi_tensor *y, const zi_tensor *x, const zi_weight *w1, const zi_weight *w3)
{
    zi_tensor up;
    ZI_TRY(zi_host_alloc(ops, &up, y->dims, y->shape));
    ZI_TRY(linear_rows(ops, y, x, w1, NULL, 0));
    ZI_TRY(linear_rows(ops, &up, x, w3, NULL, 0));
    for (int64_t i = 0; i < zi_tensor_count(y); i++)
        zi_f32(y)[i] = (float)(zi_f32(y)[i] * sigmoid(zi_f32(y)[i]) * zi_f32(&up)[i]);
    return ZIMAGE_OK;
}

static zimage_status ref_linear_glu(zi_ops *ops, zi_tensor *y, const zi_tensor *x, const zi_weight *w1,
                                    const zi_weight *w3)
{
    zi_arena_mark mark = zi_host_mark(ops);
    zimage_status status = glu(ops, y, x, w1, w3);
    zi_host_release(ops, mark);
    return status;
}

static zimage_status ref_silu(zi_ops *ops, zi_tensor *y, const zi_tensor *x)
{
    assert(zi_tensor_count(y) == zi_tensor_count(x));
    for (int64_t i = 0; i < zi_tensor_count(x); i++)
        zi_f32(y)[i] = (float)(zi_f32(x)[i] * sigmoid(zi_f32(x)[i]));
    return ZIMAGE_OK;
}

/* ---- norms ------------------------------------------------------------------------------------------------------- */

/* What multiplies a row in its RMS norm. */
static double rms_factor(const float *x, int64_t count, float eps)
{
    return 1 / sqrt(dot(x, x, count) / (double)count + eps);
}

/* Element i of an optional factor. */
static double weight_at(const zi_weight *w, int64_t i)
{
    float value = 1;
    if (w != NULL)
        zi_weight_unpack(w, i, 1, &value);
    return value;
}

static double tensor_at(const zi_tensor *x, int64_t i)
{
    return x != NULL ? zi_f32(x)[i] : 1;
}

static zimage_status ref_rms_norm(zi_ops *ops, zi_tensor *y, const zi_tensor *x, const zi_weight *w,
                                  const zi_tensor *scale, float eps)
{
    int64_t n = zi_features(x);
    assert(zi_tensor_count(y) == zi_tensor_count(x) && (w == NULL || zi_weight_count(w) == n));
    assert(scale == NULL || zi_tensor_count(scale) == n);
    for (int64_t row = 0; row < zi_row_count(x); row++) {
        const float *in = zi_f32(x) + row * n;
        double factor = rms_factor(in, n, eps);
        for (int64_t i = 0; i < n; i++)
            zi_f32(y)[row * n + i] = (float)(in[i] * factor * weight_at(w, i) * tensor_at(scale, i));
    }
    return ZIMAGE_OK;
}

static zimage_status ref_layer_norm(zi_ops *ops, zi_tensor *y, const zi_tensor *x, const zi_tensor *scale, float eps)
{
    int64_t n = zi_features(x);
    assert(zi_tensor_count(y) == zi_tensor_count(x) && (scale == NULL || zi_tensor_count(scale) == n));
    for (int64_t row = 0; row < zi_row_count(x); row++) {
        const float *in = zi_f32(x) + row * n;
        double mean = 0, variance = 0;
        for (int64_t i = 0; i < n; i++)
            mean += in[i] / (double)n;
        for (int64_t i = 0; i < n; i++)
            variance += (in[i] - mean) * (in[i] - mean) / (double)n;
        for (int64_t i = 0; i < n; i++)
            zi_f32(y)[row * n + i] = (float)((in[i] - mean) / sqrt(variance + eps) * tensor_at(scale, i));
    }
    return ZIMAGE_OK;
}

static zimage_status ref_check_finite(zi_ops *ops, const zi_tensor *x, int *finite)
{
    *finite = 1;
    for (int64_t i = 0; i < zi_tensor_count(x); i++)
        if (!isfinite(zi_f32(x)[i]))
            *finite = 0;
    return ZIMAGE_OK;
}

static zimage_status ref_residual_gate_norm(zi_ops *ops, zi_tensor *x, const zi_tensor *y, const zi_weight *w,
                                            const zi_tensor *gate, zi_tensor *h, const zi_weight *w_next,
                                            const zi_tensor *scale_next, float eps, int *finite)
{
    int64_t n = zi_features(x);
    assert(zi_tensor_count(y) == zi_tensor_count(x));
    for (int64_t row = 0; row < zi_row_count(x); row++) {
        float *target = zi_f32(x) + row * n;
        const float *in = zi_f32(y) + row * n;
        double factor = rms_factor(in, n, eps);
        for (int64_t i = 0; i < n; i++)
            target[i] = (float)(target[i] + tensor_at(gate, i) * in[i] * factor * weight_at(w, i));
    }
    if (finite != NULL)
        ZI_TRY(ref_check_finite(ops, x, finite));
    return h != NULL ? ref_rms_norm(ops, h, x, w_next, scale_next, eps) : ZIMAGE_OK;
}

static void rotate(float *a, float *b, float cos, float sin)
{
    double x = *a, y = *b;
    *a = (float)(x * cos - y * sin);
    *b = (float)(x * sin + y * cos);
}

static zimage_status ref_qk_norm_rope(zi_ops *ops, zi_tensor *x, const zi_weight *w, const zi_tensor *cos,
                                      const zi_tensor *sin, int64_t heads, zi_rope_layout layout, float eps)
{
    int64_t dim = zi_features(x) / heads, half = dim / 2, tokens = zi_row_count(x);
    assert(dim * heads == zi_features(x) && half * 2 == dim && zi_weight_count(w) == dim);
    assert(zi_tensor_count(cos) == tokens * half && zi_tensor_count(sin) == tokens * half);
    for (int64_t row = 0; row < tokens * heads; row++) {
        float *head = zi_f32(x) + row * dim;
        double factor = rms_factor(head, dim, eps);
        for (int64_t i = 0; i < dim; i++)
            head[i] = (float)(head[i] * factor * weight_at(w, i));
        const float *c = zi_f32(cos) + row / heads * half, *s = zi_f32(sin) + row / heads * half;
        for (int64_t j = 0; j < half; j++)
            if (layout == ZI_ROPE_ADJACENT)
                rotate(&head[2 * j], &head[2 * j + 1], c[j], s[j]);
            else
                rotate(&head[j], &head[half + j], c[j], s[j]);
    }
    return ZIMAGE_OK;
}

/* ---- attention --------------------------------------------------------------------------------------------------- */

/* One query of one head against keys 0 .. keys-1. p [keys] and q [head_dim] are scratch: o may be the query. */
static void attend(float *o, const float *query, const float *k, const float *v, int64_t keys, int64_t stride,
                   int64_t dim, float *p, float *q)
{
    double top = -INFINITY, sum = 0;
    memcpy(q, query, (size_t)dim * sizeof(*q));
    for (int64_t j = 0; j < keys; j++) {
        p[j] = (float)(dot(q, k + j * stride, dim) / sqrt((double)dim));
        top = fmax(top, p[j]);
    }
    for (int64_t j = 0; j < keys; j++) {
        p[j] = (float)exp(p[j] - top);
        sum += p[j];
    }
    for (int64_t i = 0; i < dim; i++) {
        double value = 0;
        for (int64_t j = 0; j < keys; j++)
            value += (double)p[j] * v[j * stride + i];
        o[i] = (float)(value / sum);
    }
}

static zimage_status ref_attention(zi_ops *ops, zi_tensor *o, const zi_tensor *q, const zi_tensor *k,
                                   const zi_tensor *v, const zi_attention_shape *shape)
{
    int64_t queries = zi_row_count(q), keys = zi_row_count(k), dim = shape->head_dim, heads = shape->heads;
    assert(heads % shape->kv_heads == 0 && (!shape->causal || queries == keys));
    assert(zi_features(q) == heads * dim && zi_features(k) == shape->kv_heads * dim);
    assert(zi_tensor_count(v) == zi_tensor_count(k) && zi_tensor_count(o) == zi_tensor_count(q));
    zi_arena_mark mark = zi_host_mark(ops);
    float *scratch;
    ZI_TRY(zi_host_floats(ops, keys + dim, "attention", &scratch));
    for (int64_t i = 0; i < queries; i++)
        for (int64_t head = 0; head < heads; head++) {
            int64_t place = i * heads * dim + head * dim, kv = head / (heads / shape->kv_heads) * dim;
            attend(zi_f32(o) + place, zi_f32(q) + place, zi_f32(k) + kv, zi_f32(v) + kv, shape->causal ? i + 1 : keys,
                   shape->kv_heads * dim, dim, scratch, scratch + keys);
        }
    zi_host_release(ops, mark);
    return ZIMAGE_OK;
}

/* ---- convolution and group norm ---------------------------------------------------------------------------------- */

static zimage_status ref_channel_affine(zi_ops *ops, zi_tensor *y, const zi_tensor *x, const zi_channel_affine *affine)
{
    int64_t channels = zi_features(x);
    assert(zi_tensor_count(y) == zi_tensor_count(x) && zi_tensor_count(&affine->scale) == channels);
    for (int64_t i = 0; i < zi_tensor_count(x); i++)
        zi_f32(y)[i] =
            (float)((double)zi_f32(x)[i] * zi_f32(&affine->scale)[i % channels] + zi_f32(&affine->shift)[i % channels]);
    return ZIMAGE_OK;
}

/* The products of one output pixel (row, column of the output image) with the filter [in, size, size] of one channel. */
static double convolve(const zi_tensor *x, const zi_conv *conv, const float *filter, int64_t row, int64_t column)
{
    int64_t size = conv->weight->shape[2], channels = x->shape[2];
    int64_t rows = conv->image_rows << conv->upsample, columns = x->shape[1] << conv->upsample;
    double sum = 0;
    for (int64_t ky = 0; ky < size; ky++)
        for (int64_t kx = 0; kx < size; kx++) {
            int64_t i = row + ky - size / 2, j = column + kx - size / 2;
            if (i < 0 || i >= rows || j < 0 || j >= columns)
                continue;
            i = (i >> conv->upsample) - conv->x_row;
            j >>= conv->upsample;
            for (int64_t c = 0; c < channels; c++)
                sum += (double)zi_f32(x)[(i * x->shape[1] + j) * channels + c] * filter[(c * size + ky) * size + kx];
        }
    return sum;
}

static zimage_status conv2d(zi_ops *ops, zi_tensor *y, const zi_tensor *x, const zi_conv *conv)
{
    int64_t out = y->shape[2], taps = x->shape[2] * conv->weight->shape[2] * conv->weight->shape[3];
    zi_tensor input = *x;
    if (conv->affine != NULL) {
        ZI_TRY(zi_host_alloc(ops, &input, x->dims, x->shape));
        ZI_TRY(ref_channel_affine(ops, &input, x, conv->affine));
        ZI_TRY(ref_silu(ops, &input, &input));
    }
    float *filters, *bias = NULL;
    ZI_TRY(zi_host_vector(ops, conv->weight, &filters));
    if (conv->bias != NULL)
        ZI_TRY(zi_host_vector(ops, conv->bias, &bias));
    for (int64_t i = 0; i < y->shape[0]; i++)
        for (int64_t j = 0; j < y->shape[1]; j++)
            for (int64_t o = 0; o < out; o++) {
                float *target = zi_f32(y) + (i * y->shape[1] + j) * out + o;
                double sum = convolve(&input, conv, filters + o * taps, conv->y_row + i, j);
                *target = (float)(sum + (bias != NULL ? bias[o] : 0) + (conv->accumulate ? *target : 0));
            }
    return ZIMAGE_OK;
}

static zimage_status ref_conv2d(zi_ops *ops, zi_tensor *y, const zi_tensor *x, const zi_conv *conv)
{
    zi_check_conv(y, x, conv);
    zi_arena_mark mark = zi_host_mark(ops);
    zimage_status status = conv2d(ops, y, x, conv);
    zi_host_release(ops, mark);
    return status;
}

static zimage_status ref_group_norm_sums(zi_ops *ops, zi_tensor *tensor, const zi_tensor *x, int accumulate)
{
    int64_t channels = zi_features(x), size = channels / tensor->shape[0];
    double *sums = zi_host_sums(tensor, accumulate);
    assert(size * tensor->shape[0] == channels);
    for (int64_t i = 0; i < zi_tensor_count(x); i++) {
        double value = zi_f32(x)[i];
        sums[i % channels / size * 2] += value;
        sums[i % channels / size * 2 + 1] += value * value;
    }
    return ZIMAGE_OK;
}

static const zi_ops_table reference_table = {
    .name = "reference",
    .alloc = zi_host_alloc,
    .alloc_f32 = zi_host_alloc,
    .alloc_operand = zi_host_alloc_operand,
    .mark = zi_host_mark,
    .release = zi_host_release,
    .upload = zi_host_upload,
    .download = zi_host_download,
    .download_rgb8 = zi_host_download_rgb8,
    .copy = zi_host_copy,
    .embed_rows = zi_host_embed_rows,
    .linear = ref_linear,
    .linears = ref_linears,
    .linear_glu = ref_linear_glu,
    .silu = ref_silu,
    .rms_norm = ref_rms_norm,
    .layer_norm = ref_layer_norm,
    .residual_gate_norm = ref_residual_gate_norm,
    .rope_table = zi_host_rope_table,
    .qk_norm_rope = ref_qk_norm_rope,
    .attention = ref_attention,
    .modulation = zi_host_modulation,
    .add_one = zi_host_add_one,
    .patchify = zi_host_patchify,
    .unpatchify = zi_host_unpatchify,
    .conv2d = ref_conv2d,
    .group_norm_sums = ref_group_norm_sums,
    .group_norm_fold = zi_host_group_norm_fold,
    .channel_affine = ref_channel_affine,
    .check_finite = ref_check_finite,
    .free = zi_host_ops_free,
};

zimage_status zi_ops_reference_new(zi_ops **ops, zimage_error *error)
{
    return zi_host_ops_new(&reference_table, sizeof(zi_host_ops), ops, error);
}
