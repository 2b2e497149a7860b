#include "ops/ops_common.h"

#include <assert.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* ---- memory ------------------------------------------------------------------------------------------------------ */

static zi_arena *arena_of(const zi_ops *ops)
{
    return ((const zi_host_ops *)ops)->arena;
}

static size_t host_peak_bytes(const zi_ops *ops)
{
    return zi_arena_peak(arena_of(ops));
}

zimage_status zi_host_ops_new(const zi_ops_table *table, size_t bytes, zi_ops **ops, zimage_error *error)
{
    assert(bytes >= sizeof(zi_host_ops));
    *ops = NULL;
    zi_host_ops *host = calloc(1, bytes);
    if (host == NULL)
        return zi_fail_memory(error, "the operations table", bytes);
    host->arena = zi_arena_new();
    if (host->arena == NULL) {
        free(host);
        return zi_fail_memory(error, "the operations table's arena", bytes);
    }
    host->ops.table = table;
    host->ops.peak_bytes = host_peak_bytes;
    *ops = &host->ops;
    return ZIMAGE_OK;
}

void zi_host_ops_free(zi_ops *ops)
{
    if (ops == NULL)
        return;
    zi_arena_free(arena_of(ops));
    free(ops);
}

zimage_status zi_host_floats(zi_ops *ops, int64_t count, const char *what, float **data)
{
    assert(count >= 0);
    *data = NULL;
    if ((uint64_t)count <= SIZE_MAX / sizeof(float))
        *data = zi_arena_alloc(arena_of(ops), (size_t)(count > 0 ? count : 1) * sizeof(float));
    if (*data == NULL)
        return zi_fail_memory(ops->error, what, (size_t)count * sizeof(float));
    return ZIMAGE_OK;
}

zimage_status zi_host_vector(zi_ops *ops, const zi_weight *weight, float **data)
{
    int64_t count = zi_weight_count(weight);
    ZI_TRY(zi_host_floats(ops, count, weight->name, data));
    zi_weight_unpack(weight, 0, count, *data);
    return ZIMAGE_OK;
}

zimage_status zi_describe_tensor(zi_ops *ops, zi_tensor *tensor, zi_dtype dtype, int dims, const int64_t *shape)
{
    assert(dims >= 1 && dims <= 4);
    int64_t count = 1;
    for (int i = 0; i < dims; i++) {
        assert(shape[i] > 0);
        if (count > INT64_MAX / (int64_t)sizeof(float) / shape[i])
            return zi_fail_memory(ops->error, "a tensor", SIZE_MAX);
        count *= shape[i];
    }
    *tensor = (zi_tensor){.dtype = dtype, .dims = dims};
    memcpy(tensor->shape, shape, (size_t)dims * sizeof(*shape));
    return ZIMAGE_OK;
}

zimage_status zi_host_alloc(zi_ops *ops, zi_tensor *tensor, int dims, const int64_t *shape)
{
    float *data;
    ZI_TRY(zi_describe_tensor(ops, tensor, ZI_F32, dims, shape));
    ZI_TRY(zi_host_floats(ops, zi_tensor_count(tensor), "a tensor", &data));
    tensor->data = data;
    return ZIMAGE_OK;
}

zimage_status zi_host_alloc_operand(zi_ops *ops, zi_tensor *x, int64_t rows, int64_t columns, const zi_weight *w)
{
    return ops->table->alloc(ops, x, 2, (const int64_t[]){rows, columns});
}

zi_arena_mark zi_host_mark(zi_ops *ops)
{
    return zi_arena_get_mark(arena_of(ops));
}

void zi_host_release(zi_ops *ops, zi_arena_mark mark)
{
    zi_arena_release(arena_of(ops), mark);
}

/* ---- moving data ------------------------------------------------------------------------------------------------- */

zimage_status zi_host_upload(zi_ops *ops, zi_tensor *dst, const float *src)
{
    memcpy(dst->data, src, (size_t)zi_tensor_count(dst) * sizeof(float));
    return ZIMAGE_OK;
}

zimage_status zi_host_download(zi_ops *ops, float *dst, const zi_tensor *src)
{
    memcpy(dst, src->data, (size_t)zi_tensor_count(src) * sizeof(float));
    return ZIMAGE_OK;
}

/*
 * Spec 6: VaeImageProcessor.denormalize, then (255 v).round() of numpy, half to even: what float32 addition does where its
 * steps are 1. NaN becomes 0.
 */
void zi_to_rgb8(const float *x, size_t count, uint8_t *rgb8)
{
    const float steps = 0x1.8p23f;
    for (size_t i = 0; i < count; i++) {
        float v = x[i] * 0.5f + 0.5f;
        v = (v > 0 ? (v < 1 ? v : 1) : 0) * 255.0f;
        rgb8[i] = (uint8_t)(int32_t)(v + steps - steps);
    }
}

zimage_status zi_host_download_rgb8(zi_ops *ops, uint8_t *dst, const zi_tensor *src)
{
    zi_to_rgb8(src->data, (size_t)zi_tensor_count(src), dst);
    return ZIMAGE_OK;
}

zimage_status zi_host_copy(zi_ops *ops, zi_tensor *dst, const zi_tensor *src)
{
    assert(zi_tensor_count(dst) == zi_tensor_count(src));
    memmove(dst->data, src->data, (size_t)zi_tensor_count(src) * sizeof(float));
    return ZIMAGE_OK;
}

int64_t zi_features(const zi_tensor *x)
{
    return x->shape[x->dims - 1];
}

int64_t zi_row_count(const zi_tensor *x)
{
    return zi_tensor_count(x) / zi_features(x);
}

zimage_status zi_host_embed_rows(zi_ops *ops, zi_tensor *y, const zi_weight *table, const int32_t *ids)
{
    int64_t features = table->shape[1];
    assert(table->dims == 2 && zi_features(y) == features);
    for (int64_t i = 0; i < zi_row_count(y); i++) {
        assert(ids[i] >= 0 && ids[i] < table->shape[0]);
        zi_weight_unpack(table, ids[i] * features, features, zi_f32(y) + i * features);
    }
    return ZIMAGE_OK;
}

/* Calls move(latent element, token element) for each pair: latents [C, H, W], tokens [(H/p)(W/p), p * p * C]. */
static void each_patch_element(const zi_tensor *latents, const zi_tensor *tokens, int64_t p,
                               void (*move)(float *latent, float *token))
{
    int64_t channels = latents->shape[0], rows = latents->shape[1], columns = latents->shape[2];
    assert(latents->dims == 3 && p > 0 && rows % p == 0 && columns % p == 0);
    assert(zi_tensor_count(tokens) == zi_tensor_count(latents) && zi_features(tokens) == p * p * channels);
    for (int64_t y = 0; y < rows; y++)
        for (int64_t x = 0; x < columns; x++) {
            int64_t token = y / p * (columns / p) + x / p, place = y % p * p + x % p;
            for (int64_t c = 0; c < channels; c++)
                move(zi_f32(latents) + (c * rows + y) * columns + x,
                     zi_f32(tokens) + (token * p * p + place) * channels + c);
        }
}

static void move_to_token(float *latent, float *token)
{
    *token = *latent;
}

static void move_to_latent(float *latent, float *token)
{
    *latent = *token;
}

zimage_status zi_host_patchify(zi_ops *ops, zi_tensor *tokens, const zi_tensor *latents, int64_t patch)
{
    each_patch_element(latents, tokens, patch, move_to_token);
    return ZIMAGE_OK;
}

zimage_status zi_host_unpatchify(zi_ops *ops, zi_tensor *latents, const zi_tensor *tokens, int64_t patch)
{
    each_patch_element(latents, tokens, patch, move_to_latent);
    return ZIMAGE_OK;
}

/* ---- few numbers ------------------------------------------------------------------------------------------------- */

zimage_status zi_host_rope_table(zi_ops *ops, zi_tensor *cos, zi_tensor *sin, const float *angles)
{
    assert(zi_tensor_count(cos) == zi_tensor_count(sin));
    for (int64_t i = 0; i < zi_tensor_count(cos); i++) {
        zi_f32(cos)[i] = cosf(angles[i]);
        zi_f32(sin)[i] = sinf(angles[i]);
    }
    return ZIMAGE_OK;
}

zimage_status zi_host_modulation(zi_ops *ops, zi_tensor *m)
{
    int64_t features = zi_tensor_count(m) / 4;
    assert(features * 4 == zi_tensor_count(m));
    float *data = zi_f32(m);
    for (int64_t i = 0; i < features; i++) {
        data[i] = 1 + data[i];
        data[features + i] = tanhf(data[features + i]);
        data[2 * features + i] = 1 + data[2 * features + i];
        data[3 * features + i] = tanhf(data[3 * features + i]);
    }
    return ZIMAGE_OK;
}

zimage_status zi_host_add_one(zi_ops *ops, zi_tensor *y, const zi_tensor *x)
{
    assert(zi_tensor_count(y) == zi_tensor_count(x));
    for (int64_t i = 0; i < zi_tensor_count(x); i++)
        zi_f32(y)[i] = 1 + zi_f32(x)[i];
    return ZIMAGE_OK;
}

double *zi_host_sums(zi_tensor *sums, int accumulate)
{
    assert(sums->dims == 2 && sums->shape[1] == 4 && (uintptr_t)sums->data % sizeof(double) == 0);
    if (!accumulate)
        memset(sums->data, 0, (size_t)zi_tensor_count(sums) * sizeof(float));
    return sums->data;
}

zimage_status zi_host_group_norm_fold(zi_ops *ops, zi_channel_affine *affine, const zi_tensor *sums, int64_t count,
                                      const zi_weight *w, const zi_weight *b, float eps)
{
    int64_t channels = zi_tensor_count(&affine->scale), groups = sums->shape[0];
    assert(channels % groups == 0 && zi_tensor_count(&affine->shift) == channels);
    assert(zi_weight_count(w) == channels && zi_weight_count(b) == channels);
    zi_weight_unpack(w, 0, channels, zi_f32(&affine->scale));
    zi_weight_unpack(b, 0, channels, zi_f32(&affine->shift));
    for (int64_t c = 0; c < channels; c++) {
        const double *sum = (const double *)sums->data + c / (channels / groups) * 2;
        double mean = sum[0] / (double)count, variance = sum[1] / (double)count - mean * mean;
        double scale = zi_f32(&affine->scale)[c] / sqrt((variance < 0 ? 0 : variance) + eps);
        zi_f32(&affine->shift)[c] = (float)(zi_f32(&affine->shift)[c] - mean * scale);
        zi_f32(&affine->scale)[c] = (float)scale;
    }
    return ZIMAGE_OK;
}

void zi_check_conv(const zi_tensor *y, const zi_tensor *x, const zi_conv *conv)
{
    const zi_weight *w = conv->weight;
    int64_t pad = w->shape[2] / 2, image_rows = conv->image_rows << conv->upsample;
    int64_t first = conv->y_row - pad, last = conv->y_row + y->shape[0] - 1 + pad;
    assert(x->dims == 3 && y->dims == 3 && w->dims == 4 && (conv->upsample == 0 || conv->upsample == 1));
    assert(w->shape[2] == w->shape[3] && (w->shape[2] == 1 || w->shape[2] == 3));
    assert(x->shape[2] == w->shape[1] && y->shape[2] == w->shape[0] && y->shape[1] == x->shape[1] << conv->upsample);
    assert(conv->bias == NULL || zi_weight_count(conv->bias) == w->shape[0]);
    assert(conv->x_row >= 0 && conv->x_row + x->shape[0] <= conv->image_rows);
    assert(conv->y_row >= 0 && conv->y_row + y->shape[0] <= image_rows);
    assert((first < 0 ? 0 : first) >> conv->upsample >= conv->x_row);
    assert((last < image_rows ? last : image_rows - 1) >> conv->upsample < conv->x_row + x->shape[0]);
    (void)pad, (void)image_rows, (void)first, (void)last; /* used by the asserts only */
}

/* ---- between blocks ---------------------------------------------------------------------------------------------- */

zimage_status zi_fail_not_finite(zimage_error *error, const char *block)
{
    return zi_fail(error, ZIMAGE_ERROR_NOT_FINITE, "the output of %s holds a NaN or an infinity", block);
}

static zimage_status name_block(zi_ops *ops, int finite, const char *format, va_list arguments)
{
    char name[160];
    if (finite && ops->block_named == NULL)
        return ZIMAGE_OK;
    vsnprintf(name, sizeof(name), format, arguments);
    return finite ? ops->block_named(ops, name) : zi_fail_not_finite(ops->error, name);
}

zimage_status zi_ops_block_done(zi_ops *ops)
{
    ops->blocks++;
    if (ops->block_done != NULL && ops->block_done(ops->block_user) != 0)
        return zi_fail(ops->error, ZIMAGE_ERROR_CANCELLED, "cancelled");
    return ZIMAGE_OK;
}

static zimage_status check_block(zi_ops *ops, const zi_tensor *x, const char *format, va_list arguments)
{
    int finite = 1;
    ZI_TRY(ops->table->check_finite(ops, x, &finite));
    return name_block(ops, finite, format, arguments);
}

zimage_status zi_ops_check_block(zi_ops *ops, const zi_tensor *x, const char *format, ...)
{
    va_list arguments;
    va_start(arguments, format);
    zimage_status status = check_block(ops, x, format, arguments);
    va_end(arguments);
    return status;
}

zimage_status zi_ops_end_block(zi_ops *ops, const zi_tensor *x, const char *format, ...)
{
    va_list arguments;
    va_start(arguments, format);
    zimage_status status = check_block(ops, x, format, arguments);
    va_end(arguments);
    return status == ZIMAGE_OK ? zi_ops_block_done(ops) : status;
}

zimage_status zi_ops_end_block_known(zi_ops *ops, int finite, const char *format, ...)
{
    va_list arguments;
    va_start(arguments, format);
    zimage_status status = name_block(ops, finite, format, arguments);
    va_end(arguments);
    return status == ZIMAGE_OK ? zi_ops_block_done(ops) : status;
}

zimage_status zi_ops_repeat(zi_ops *ops, const void *key, size_t size, zi_work_fn *work, const void *user)
{
    return ops->repeat != NULL ? ops->repeat(ops, key, size, work, user) : work(user);
}

zimage_status zi_ops_finish(zi_ops *ops)
{
    return ops->finish != NULL ? ops->finish(ops) : ZIMAGE_OK;
}

double zi_ops_peak_rate(zi_ops *ops)
{
    return ops->peak_rate != NULL ? ops->peak_rate(ops) : 0;
}

size_t zi_ops_device_bytes(zi_ops *ops)
{
    return ops->device_bytes != NULL ? ops->device_bytes(ops) : 0;
}
