#include "ops/shapes.h"

#include <assert.h>

int64_t zi_features(const zi_tensor *x)
{
    return x->shape[x->dims - 1];
}

int64_t zi_row_count(const zi_tensor *x)
{
    return zi_tensor_count(x) / zi_features(x);
}

zimage_status zi_check_tensor(zi_run *run, zi_tensor *tensor, zi_dtype dtype, int dims, const int64_t *shape)
{
    assert(dims >= 1 && dims <= 4);
    int64_t count = 1;
    for (int i = 0; i < dims; i++) {
        assert(shape[i] > 0);
        if (count > INT64_MAX / (int64_t)sizeof(float) / shape[i])
            return zi_fail_memory(run->error, "a tensor", SIZE_MAX);
        count *= shape[i];
    }
    *tensor = zi_tensor_describe(dtype, dims, shape);
    return ZIMAGE_OK;
}

/* ---- attention --------------------------------------------------------------------------------------------------- */

int zi_sequence_count(const zi_attention *attention)
{
    return attention->sequences > 1 ? attention->sequences : 1;
}

zi_sequence zi_sequence_of(const zi_attention *attention, const zi_tensor *q, const zi_tensor *k, int index)
{
    if (attention->sequences <= 1)
        return (zi_sequence){0, zi_row_count(q), 0,
                             attention->key_length > 0 ? attention->key_length : zi_row_count(k)};
    zi_sequence found = {0}, end = {0};
    assert(attention->sequences <= ZI_SEQUENCES_MAX && !attention->causal && attention->key_length == 0);
    for (int i = 0; i < attention->sequences; i++) {
        assert(attention->queries[i] > 0 && attention->keys[i] > 0);
        if (i == index)
            found = (zi_sequence){end.query, attention->queries[i], end.key, attention->keys[i]};
        end.query += attention->queries[i];
        end.key += attention->keys[i];
    }
    assert(end.query == zi_row_count(q) && end.key == zi_row_count(k));
    return found;
}

/* ---- patches ----------------------------------------------------------------------------------------------------- */

void zi_check_patches(const zi_tensor *tokens, const zi_tensor *latents, int64_t patch)
{
    assert(latents->dims == 3 && patch > 0 && latents->shape[1] % patch == 0 && latents->shape[2] % patch == 0);
    assert(zi_tensor_count(tokens) == zi_tensor_count(latents) &&
           zi_features(tokens) == patch * patch * latents->shape[0]);
}

/* ---- convolutions ------------------------------------------------------------------------------------------------ */

zi_conv zi_conv_same(const zi_weight *weight, const zi_weight *bias)
{
    int pad = (int)(weight->shape[2] / 2);
    return (zi_conv){.weight = weight,
                     .bias = bias,
                     .stride = 1,
                     .pad_top = pad,
                     .pad_left = pad,
                     .pad_bottom = pad,
                     .pad_right = pad};
}

static int64_t places(int64_t size, int64_t pads, int64_t filter, int stride)
{
    return (size + pads - filter) / stride + 1;
}

int64_t zi_conv_rows(const zi_conv *conv, int64_t size)
{
    return places(size, conv->pad_top + conv->pad_bottom, conv->weight->shape[2], conv->stride);
}

int64_t zi_conv_columns(const zi_conv *conv, int64_t size)
{
    return places(size, conv->pad_left + conv->pad_right, conv->weight->shape[2], conv->stride);
}

void zi_check_conv(const zi_tensor *y, const zi_tensor *x, const zi_conv *conv)
{
    const zi_weight *w = conv->weight;
    int64_t image_rows = conv->image_rows << conv->upsample, size = w->shape[2];
    int64_t first = conv->y_row * conv->stride - conv->pad_top;
    int64_t last = (conv->y_row + y->shape[0] - 1) * conv->stride - conv->pad_top + size - 1;
    assert(x->dims == 3 && y->dims == 3 && w->dims == 4 && (conv->upsample == 0 || conv->upsample == 1));
    assert(w->shape[2] == w->shape[3] && (size == 1 || size == 3));
    assert(conv->stride == 1 || (conv->stride == 2 && !conv->upsample));
    assert(conv->pad_top >= 0 && conv->pad_top <= size / 2 && conv->pad_left >= 0 && conv->pad_left <= size / 2);
    assert(conv->pad_bottom >= 0 && conv->pad_bottom <= 1 && conv->pad_right >= 0 && conv->pad_right <= 1);
    assert(x->shape[2] == w->shape[1] && y->shape[2] == w->shape[0]);
    assert(y->shape[1] == zi_conv_columns(conv, x->shape[1] << conv->upsample));
    assert(conv->bias == NULL || zi_weight_count(conv->bias) == w->shape[0]);
    assert(conv->x_row >= 0 && conv->x_row + x->shape[0] <= conv->image_rows);
    assert(conv->y_row >= 0 && conv->y_row + y->shape[0] <= zi_conv_rows(conv, image_rows));
    assert((first < 0 ? 0 : first) >> conv->upsample >= conv->x_row);
    assert((last < image_rows ? last : image_rows - 1) >> conv->upsample < conv->x_row + x->shape[0]);
    (void)size, (void)image_rows, (void)first, (void)last; /* only the asserts use them */
}
