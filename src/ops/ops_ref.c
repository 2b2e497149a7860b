/* The reference backend: float32 activations, float64 sums, one thread, the shortest code that is obviously right. */
#include <assert.h>
#include <math.h>
#include <stdio.h>
#include <string.h>

#include "ops/host.h"

/* Rows of the last dimension that an operation works on: none in a rehearsal. */
static int64_t rows_of(const zi_run *run, const zi_tensor *x)
{
    return zi_host_rehearses(run) ? 0 : zi_row_count(x);
}

static int64_t elements_of(const zi_run *run, const zi_tensor *x)
{
    return zi_host_rehearses(run) ? 0 : zi_tensor_count(x);
}

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

static zimage_status linear_rows(zi_run *run, zi_tensor *y, const zi_tensor *x, const zi_weight *weight,
                                 const zi_weight *bias, int accumulate)
{
    int64_t in = zi_features(x), out = zi_features(y), tokens = zi_row_count(x);
    assert(weight->shape[0] == out && weight->shape[1] == in && zi_row_count(y) == tokens);
    float *row;
    ZI_TRY(zi_host_floats(run, in, "a weight row", &row));
    for (int64_t o = 0; o < (zi_host_rehearses(run) ? 0 : out); o++) {
        zi_weight_unpack(weight, o * in, in, row);
        float b = 0;
        if (bias != NULL)
            zi_weight_unpack(bias, o, 1, &b);
        for (int64_t t = 0; t < tokens; t++) {
            float *target = zi_f32(y) + t * y->ld + o;
            *target = (float)(dot(zi_f32(x) + t * x->ld, row, in) + b + (accumulate ? *target : 0));
        }
    }
    return ZIMAGE_OK;
}

static zimage_status ref_linear(zi_run *run, zi_tensor *y, const zi_tensor *x, const zi_weight *weight,
                                const zi_weight *bias, int accumulate)
{
    zi_arena_mark mark = zi_host_mark(run);
    zimage_status status = linear_rows(run, y, x, weight, bias, accumulate);
    zi_host_release(run, mark);
    return status;
}

static zimage_status ref_linears(zi_run *run, int count, zi_tensor *y, const zi_tensor *x,
                                 const zi_weight *const *weights)
{
    for (int i = 0; i < count; i++)
        ZI_TRY(ref_linear(run, &y[i], x, weights[i], NULL, 0));
    return ZIMAGE_OK;
}

static zimage_status glu(zi_run *run, zi_tensor *y, const zi_tensor *x, const zi_weight *w1, const zi_weight *w3)
{
    zi_tensor up;
    ZI_TRY(zi_host_alloc(run, &up, y->dims, y->shape));
    ZI_TRY(linear_rows(run, y, x, w1, NULL, 0));
    ZI_TRY(linear_rows(run, &up, x, w3, NULL, 0));
    for (int64_t row = 0; row < rows_of(run, y); row++)
        for (int64_t i = 0; i < zi_features(y); i++) {
            float *gate = zi_f32(y) + row * y->ld + i;
            *gate = (float)(*gate * sigmoid(*gate) * zi_f32(&up)[row * up.ld + i]);
        }
    return ZIMAGE_OK;
}

static zimage_status ref_linear_glu(zi_run *run, zi_tensor *y, const zi_tensor *x, const zi_weight *w1,
                                    const zi_weight *w3)
{
    zi_arena_mark mark = zi_host_mark(run);
    zimage_status status = glu(run, y, x, w1, w3);
    zi_host_release(run, mark);
    return status;
}

static zimage_status ref_silu(zi_run *run, zi_tensor *y, const zi_tensor *x)
{
    assert(zi_tensor_count(y) == zi_tensor_count(x));
    for (int64_t i = 0; i < elements_of(run, x); i++)
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

static void norm_row(float *y, const float *x, int64_t n, const zi_norm *norm)
{
    double mean = 0, variance = 0, factor = 1;
    if (norm->kind == ZI_NORM_RMS)
        factor = rms_factor(x, n, norm->eps);
    for (int64_t i = 0; i < n && norm->kind == ZI_NORM_LAYER; i++)
        mean += x[i] / (double)n;
    for (int64_t i = 0; i < n && norm->kind == ZI_NORM_LAYER; i++)
        variance += (x[i] - mean) * (x[i] - mean) / (double)n;
    for (int64_t i = 0; i < n; i++) {
        double normed = norm->kind == ZI_NORM_RMS ? x[i] * factor : (x[i] - mean) / sqrt(variance + norm->eps);
        normed = normed * weight_at(norm->weight, i) * tensor_at(norm->scale, i);
        y[i] = (float)(norm->shift != NULL ? normed + zi_f32(norm->shift)[i] : normed);
    }
}

static zimage_status ref_norm(zi_run *run, zi_tensor *y, const zi_tensor *x, const zi_norm *norm)
{
    int64_t n = zi_features(x);
    assert(zi_tensor_count(y) == zi_tensor_count(x) && (norm->weight == NULL || zi_weight_count(norm->weight) == n));
    assert(norm->scale == NULL || zi_tensor_count(norm->scale) == n);
    assert(norm->shift == NULL || zi_tensor_count(norm->shift) == n);
    for (int64_t row = 0; row < rows_of(run, x); row++)
        norm_row(zi_f32(y) + row * n, zi_f32(x) + row * n, n, norm);
    return ZIMAGE_OK;
}

static zimage_status ref_check_finite(zi_run *run, const zi_tensor *x, int *finite)
{
    *finite = 1;
    for (int64_t i = 0; i < elements_of(run, x); i++)
        if (!isfinite(zi_f32(x)[i]))
            *finite = 0;
    return ZIMAGE_OK;
}

static zimage_status ref_residual(zi_run *run, zi_tensor *x, const zi_tensor *y, zi_tensor *h,
                                  const zi_residual *residual)
{
    int64_t n = zi_features(x);
    const zi_norm *post = residual->post;
    assert(zi_tensor_count(y) == zi_tensor_count(x) && (residual->next != NULL) == (h != NULL));
    assert(post == NULL || (post->kind == ZI_NORM_RMS && post->shift == NULL));
    for (int64_t row = 0; row < rows_of(run, x); row++) {
        float *target = zi_f32(x) + row * n;
        const float *in = zi_f32(y) + row * n;
        double factor = post != NULL ? rms_factor(in, n, post->eps) : 1;
        for (int64_t i = 0; i < n; i++) {
            double weight = post != NULL ? weight_at(post->weight, i) * tensor_at(post->scale, i) : 1;
            target[i] = (float)(target[i] + tensor_at(residual->gate, i) * in[i] * factor * weight);
        }
    }
    if (residual->finite != NULL)
        ZI_TRY(ref_check_finite(run, x, residual->finite));
    return h != NULL ? ref_norm(run, h, x, residual->next) : ZIMAGE_OK;
}

static void rotate(float *a, float *b, float cos, float sin)
{
    double x = *a, y = *b;
    *a = (float)(x * cos - y * sin);
    *b = (float)(x * sin + y * cos);
}

static void norm_and_rotate_head(float *head, const zi_weight *weight, const zi_qk_norm_rope *args, const float *cos,
                                 const float *sin)
{
    int64_t dim = zi_weight_count(weight), half = dim / 2;
    double factor = rms_factor(head, dim, args->eps);
    for (int64_t i = 0; i < dim; i++)
        head[i] = (float)(head[i] * factor * weight_at(weight, i));
    for (int64_t j = 0; j < half; j++)
        if (args->layout == ZI_ROPE_ADJACENT)
            rotate(&head[2 * j], &head[2 * j + 1], cos[j], sin[j]);
        else
            rotate(&head[j], &head[half + j], cos[j], sin[j]);
}

static void norm_and_rotate(zi_run *run, zi_tensor *x, const zi_weight *weight, const zi_qk_norm_rope *args)
{
    int64_t dim = zi_weight_count(weight), half = dim / 2;
    assert(half * 2 == dim && zi_features(x) % dim == 0 && zi_tensor_count(args->cos) == zi_row_count(x) * half);
    for (int64_t row = 0; row < rows_of(run, x); row++)
        for (int64_t first = 0; first < zi_features(x); first += dim)
            norm_and_rotate_head(zi_f32(x) + row * x->ld + first, weight, args, zi_f32(args->cos) + row * half,
                                 zi_f32(args->sin) + row * half);
}

static zimage_status ref_qk_norm_rope(zi_run *run, zi_tensor *x, const zi_qk_norm_rope *args)
{
    assert(zi_weight_count(args->weight) * args->heads == zi_features(x));
    norm_and_rotate(run, x, args->weight, args);
    if (args->k != NULL)
        norm_and_rotate(run, args->k, args->k_weight, args);
    return ZIMAGE_OK;
}

/* ---- attention --------------------------------------------------------------------------------------------------- */

/* The keys and values of one head that a query sees: rows of `dim` elements, `stride` apart. */
typedef struct seen_keys {
    const float *k, *v;
    int64_t count, stride, dim;
} seen_keys;

/* One query of one head. p [count] and q [dim] are scratch: o may be the query. */
static void attend(float *o, const float *query, const seen_keys *seen, float *p, float *q)
{
    double top = -INFINITY, sum = 0;
    memcpy(q, query, (size_t)seen->dim * sizeof(*q));
    for (int64_t j = 0; j < seen->count; j++) {
        p[j] = (float)(dot(q, seen->k + j * seen->stride, seen->dim) / sqrt((double)seen->dim));
        top = fmax(top, p[j]);
    }
    for (int64_t j = 0; j < seen->count; j++) {
        p[j] = (float)exp(p[j] - top);
        sum += p[j];
    }
    for (int64_t i = 0; i < seen->dim; i++) {
        double value = 0;
        for (int64_t j = 0; j < seen->count; j++)
            value += (double)p[j] * seen->v[j * seen->stride + i];
        o[i] = (float)(value / sum);
    }
}

static zimage_status ref_attention(zi_run *run, zi_tensor *o, const zi_tensor *q, const zi_tensor *k,
                                   const zi_tensor *v, const zi_attention *attention)
{
    int64_t keys = zi_row_count(k), dim = attention->head_dim, heads = attention->heads;
    assert(heads % attention->kv_heads == 0 && (!attention->causal || zi_row_count(q) == keys));
    assert(zi_features(q) == heads * dim && zi_features(k) == attention->kv_heads * dim && v->ld == k->ld);
    assert(zi_tensor_count(v) == zi_tensor_count(k) && zi_tensor_count(o) == zi_tensor_count(q));
    zi_arena_mark mark = zi_host_mark(run);
    float *scratch;
    ZI_TRY(zi_host_floats(run, keys + dim, "attention", &scratch));
    for (int s = 0; s < zi_sequence_count(attention) && !zi_host_rehearses(run); s++) {
        const zi_sequence rows = zi_sequence_of(attention, q, k, s);
        assert(rows.keys <= keys);
        for (int64_t i = 0; i < rows.queries * heads; i++) {
            int64_t query = i / heads, head = i % heads;
            int64_t kv = rows.key * k->ld + head / (heads / attention->kv_heads) * dim;
            int64_t seen = attention->causal && query + 1 < rows.keys ? query + 1 : rows.keys;
            const seen_keys of_head = {zi_f32(k) + kv, zi_f32(v) + kv, seen, k->ld, dim};
            query += rows.query;
            attend(zi_f32(o) + query * o->ld + head * dim, zi_f32(q) + query * q->ld + head * dim, &of_head, scratch,
                   scratch + keys);
        }
    }
    zi_host_release(run, mark);
    return ZIMAGE_OK;
}

/* ---- convolution and group norm ---------------------------------------------------------------------------------- */

static zimage_status ref_channel_affine(zi_run *run, zi_tensor *y, const zi_tensor *x, const zi_channel_affine *affine)
{
    int64_t channels = zi_features(x);
    assert(zi_tensor_count(y) == zi_tensor_count(x) && zi_tensor_count(&affine->scale) == channels);
    for (int64_t i = 0; i < elements_of(run, x); i++)
        zi_f32(y)[i] =
            (float)((double)zi_f32(x)[i] * zi_f32(&affine->scale)[i % channels] + zi_f32(&affine->shift)[i % channels]);
    return ZIMAGE_OK;
}

/* The sum of one output channel, whose filter is [in, size, size], for one pixel (row, column) of the output image. */
static double convolve(const zi_tensor *x, const zi_conv *conv, const float *filter, int64_t row, int64_t column)
{
    int64_t size = conv->weight->shape[2], channels = x->shape[2];
    int64_t rows = conv->image_rows << conv->upsample, columns = x->shape[1] << conv->upsample;
    double sum = 0;
    for (int64_t ky = 0; ky < size; ky++)
        for (int64_t kx = 0; kx < size; kx++) {
            int64_t i = row * conv->stride + ky - conv->pad_top, j = column * conv->stride + kx - conv->pad_left;
            if (i < 0 || i >= rows || j < 0 || j >= columns)
                continue;
            i = (i >> conv->upsample) - conv->x_row;
            j >>= conv->upsample;
            for (int64_t c = 0; c < channels; c++)
                sum += (double)zi_f32(x)[(i * x->shape[1] + j) * channels + c] * filter[(c * size + ky) * size + kx];
        }
    return sum;
}

static zimage_status conv2d(zi_run *run, zi_tensor *y, const zi_tensor *x, const zi_conv *conv)
{
    int64_t out = y->shape[2], taps = x->shape[2] * conv->weight->shape[2] * conv->weight->shape[3];
    zi_tensor input = *x;
    if (conv->affine != NULL) {
        ZI_TRY(zi_host_alloc(run, &input, x->dims, x->shape));
        ZI_TRY(ref_channel_affine(run, &input, x, conv->affine));
        ZI_TRY(ref_silu(run, &input, &input));
    }
    float *filters, *bias = NULL;
    ZI_TRY(zi_host_vector(run, conv->weight, &filters));
    if (conv->bias != NULL)
        ZI_TRY(zi_host_vector(run, conv->bias, &bias));
    for (int64_t i = 0; i < (zi_host_rehearses(run) ? 0 : y->shape[0]); i++)
        for (int64_t j = 0; j < y->shape[1]; j++)
            for (int64_t o = 0; o < out; o++) {
                float *target = zi_f32(y) + (i * y->shape[1] + j) * out + o;
                double sum = convolve(&input, conv, filters + o * taps, conv->y_row + i, j);
                *target = (float)(sum + (bias != NULL ? bias[o] : 0) + (conv->accumulate ? *target : 0));
            }
    return ZIMAGE_OK;
}

static zimage_status ref_conv2d(zi_run *run, zi_tensor *y, const zi_tensor *x, const zi_conv *conv)
{
    zi_check_conv(y, x, conv);
    zi_arena_mark mark = zi_host_mark(run);
    zimage_status status = conv2d(run, y, x, conv);
    zi_host_release(run, mark);
    return status;
}

static zimage_status ref_group_norm_sums(zi_run *run, zi_tensor *tensor, const zi_tensor *x, int accumulate)
{
    int64_t channels = zi_features(x), size = channels / tensor->shape[0];
    double *sums = zi_host_sums(run, tensor, accumulate);
    assert(size * tensor->shape[0] == channels);
    for (int64_t i = 0; i < elements_of(run, x); i++) {
        double value = zi_f32(x)[i];
        sums[i % channels / size * 2] += value;
        sums[i % channels / size * 2 + 1] += value * value;
    }
    return ZIMAGE_OK;
}

static void ref_describe(const zi_ops *ops, char *text, size_t size)
{
    snprintf(text, size, "reference");
}

static const zi_ops_table reference_table = {
    ZI_HOST_OPERATIONS,
    .name = "reference",
    .alloc_operand = zi_host_alloc_operand,
    .alloc_operand_parts = zi_host_alloc_operand,
    .linear = ref_linear,
    .linears = ref_linears,
    .linear_glu = ref_linear_glu,
    .silu = ref_silu,
    .norm = ref_norm,
    .residual = ref_residual,
    .qk_norm_rope = ref_qk_norm_rope,
    .attention = ref_attention,
    .conv2d = ref_conv2d,
    .group_norm_sums = ref_group_norm_sums,
    .channel_affine = ref_channel_affine,
    .check_finite = ref_check_finite,
    .describe = ref_describe,
    .suits_batch = zi_host_suits_batch,
    .peak_rate = zi_host_peak_rate,
    .free = zi_host_ops_free,
};

zimage_status zi_ops_reference_new(zi_ops **ops, zimage_error *error)
{
    return zi_host_ops_new(&reference_table, sizeof(zi_host_ops), ops, error);
}
