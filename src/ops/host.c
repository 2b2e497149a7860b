#include "ops/host.h"

#include <assert.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

/* ---- memory ------------------------------------------------------------------------------------------------------ */

static zi_host_ops *host_of(const zi_run *run)
{
    return (zi_host_ops *)run->ops;
}

static zi_arena *arena_of(const zi_run *run)
{
    return host_of(run)->arena;
}

size_t zi_host_peak_bytes(const zi_ops *ops)
{
    return zi_arena_peak(((const zi_host_ops *)ops)->arena);
}

zimage_status zi_host_ops_new(const zi_ops_table *table, size_t bytes, zi_ops **ops, zimage_error *error)
{
    assert(bytes >= sizeof(zi_host_ops));
    *ops = NULL;
    zi_host_ops *host = calloc(1, bytes);
    if (host == NULL)
        return zi_fail_memory(error, "the table of operations", bytes);
    host->arena = zi_arena_new();
    if (host->arena == NULL) {
        free(host);
        return zi_fail_memory(error, "the arena of the operations", bytes);
    }
    host->ops.table = table;
    *ops = &host->ops;
    return ZIMAGE_OK;
}

void zi_host_ops_free(zi_ops *ops)
{
    if (ops == NULL)
        return;
    zi_arena_free(((zi_host_ops *)ops)->arena);
    zi_arena_free(((zi_host_ops *)ops)->real);
    free(ops);
}

zimage_status zi_host_floats(zi_run *run, int64_t count, const char *what, float **data)
{
    assert(count >= 0);
    *data = NULL;
    if ((uint64_t)count <= SIZE_MAX / sizeof(float))
        *data = zi_arena_alloc(arena_of(run), (size_t)(count > 0 ? count : 1) * sizeof(float));
    if (*data == NULL)
        return zi_fail_memory(run->error, what, (size_t)count * sizeof(float));
    return ZIMAGE_OK;
}

zimage_status zi_host_vector(zi_run *run, const zi_weight *weight, float **data)
{
    int64_t count = zi_weight_count(weight);
    ZI_TRY(zi_host_floats(run, count, weight->name, data));
    if (!zi_host_rehearses(run))
        zi_weight_unpack(weight, 0, count, *data);
    return ZIMAGE_OK;
}

zimage_status zi_host_alloc(zi_run *run, zi_tensor *tensor, int dims, const int64_t *shape)
{
    float *data;
    ZI_TRY(zi_check_tensor(run, tensor, ZI_F32, dims, shape));
    ZI_TRY(zi_host_floats(run, zi_tensor_count(tensor), "a tensor", &data));
    tensor->data = data;
    return ZIMAGE_OK;
}

zimage_status zi_host_alloc_operand(zi_run *run, zi_tensor *x, int64_t rows, int64_t columns, const zi_weight *w)
{
    return zi_table(run)->alloc(run, x, ZI_SHAPE(rows, columns));
}

zi_arena_mark zi_host_mark(zi_run *run)
{
    return zi_arena_get_mark(arena_of(run));
}

void zi_host_release(zi_run *run, zi_arena_mark mark)
{
    zi_arena_release(arena_of(run), mark);
}

/* ---- moving data ------------------------------------------------------------------------------------------------- */

zimage_status zi_host_upload(zi_run *run, zi_tensor *dst, const float *src)
{
    assert(zi_tensor_is_dense(dst));
    if (!zi_host_rehearses(run))
        memcpy(zi_f32(dst), src, (size_t)zi_tensor_count(dst) * sizeof(float));
    return ZIMAGE_OK;
}

zimage_status zi_host_download(zi_run *run, float *dst, const zi_tensor *src)
{
    assert(zi_tensor_is_dense(src));
    if (!zi_host_rehearses(run))
        memcpy(dst, zi_f32(src), (size_t)zi_tensor_count(src) * sizeof(float));
    return ZIMAGE_OK;
}

/*
 * docs/spec/vae.md 6: VaeImageProcessor.denormalize, then numpy's round() of 255 v, half to even. Adding 1.5 * 2^23
 * rounds so, because neighbouring float32 numbers differ by 1 there. NaN becomes 0.
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

zimage_status zi_host_download_rgb8(zi_run *run, uint8_t *dst, const zi_tensor *src)
{
    assert(zi_tensor_is_dense(src));
    if (!zi_host_rehearses(run))
        zi_to_rgb8(zi_f32(src), (size_t)zi_tensor_count(src), dst);
    return ZIMAGE_OK;
}

zimage_status zi_host_copy(zi_run *run, zi_tensor *dst, const zi_tensor *src)
{
    int64_t rows = zi_row_count(src), features = zi_features(src);
    assert(zi_tensor_count(dst) == zi_tensor_count(src));
    if (zi_host_rehearses(run))
        return ZIMAGE_OK;
    if (zi_tensor_is_dense(dst) && zi_tensor_is_dense(src)) {
        memmove(zi_f32(dst), zi_f32(src), (size_t)(rows * features) * sizeof(float));
        return ZIMAGE_OK;
    }
    assert(zi_features(dst) == features);
    for (int64_t row = 0; row < rows; row++)
        memmove(zi_f32(dst) + row * dst->ld, zi_f32(src) + row * src->ld, (size_t)features * sizeof(float));
    return ZIMAGE_OK;
}

zimage_status zi_host_embed_rows(zi_run *run, zi_tensor *y, const zi_weight *table, const int32_t *ids)
{
    int64_t features = table->shape[1];
    assert(table->dims == 2 && zi_features(y) == features && zi_tensor_is_dense(y));
    if (zi_host_rehearses(run))
        return ZIMAGE_OK;
    for (int64_t i = 0; i < zi_row_count(y); i++) {
        assert(ids[i] >= 0 && ids[i] < table->shape[0]);
        zi_weight_unpack(table, ids[i] * features, features, zi_f32(y) + i * features);
    }
    return ZIMAGE_OK;
}

/* Calls move(latent element, token element) for each pair: latents [C, H, W], tokens [(H/p)(W/p), p * p * C]. */
static void each_patch_element(const zi_tensor *latents, const zi_tensor *tokens, int64_t p, zi_patch_order order,
                               void (*move)(float *latent, float *token))
{
    int64_t channels = latents->shape[0], rows = latents->shape[1], columns = latents->shape[2];
    int64_t place_step = order == ZI_PATCH_CHANNELS_LAST ? channels : 1;
    int64_t channel_step = order == ZI_PATCH_CHANNELS_LAST ? 1 : p * p;
    for (int64_t y = 0; y < rows; y++)
        for (int64_t x = 0; x < columns; x++) {
            int64_t token = y / p * (columns / p) + x / p, place = y % p * p + x % p;
            for (int64_t c = 0; c < channels; c++)
                move(zi_f32(latents) + (c * rows + y) * columns + x,
                     zi_f32(tokens) + token * p * p * channels + place * place_step + c * channel_step);
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

zimage_status zi_host_patchify(zi_run *run, zi_tensor *tokens, const zi_tensor *latents, int64_t patch,
                               zi_patch_order order)
{
    zi_check_patches(tokens, latents, patch);
    if (!zi_host_rehearses(run))
        each_patch_element(latents, tokens, patch, order, move_to_token);
    return ZIMAGE_OK;
}

zimage_status zi_host_unpatchify(zi_run *run, zi_tensor *latents, const zi_tensor *tokens, int64_t patch,
                                 zi_patch_order order)
{
    zi_check_patches(tokens, latents, patch);
    if (!zi_host_rehearses(run))
        each_patch_element(latents, tokens, patch, order, move_to_latent);
    return ZIMAGE_OK;
}

/* ---- small operations -------------------------------------------------------------------------------------------- */

zimage_status zi_host_rope_table(zi_run *run, zi_tensor *cos, zi_tensor *sin, const float *angles)
{
    assert(zi_tensor_count(cos) == zi_tensor_count(sin));
    if (zi_host_rehearses(run))
        return ZIMAGE_OK;
    for (int64_t i = 0; i < zi_tensor_count(cos); i++) {
        zi_f32(cos)[i] = cosf(angles[i]);
        zi_f32(sin)[i] = sinf(angles[i]);
    }
    return ZIMAGE_OK;
}

static float modulated(float x, zi_modulation kind)
{
    switch (kind) {
    case ZI_MODULATION_ONE_PLUS:
        return 1 + x;
    case ZI_MODULATION_TANH:
        return tanhf(x);
    case ZI_MODULATION_COPY:
        break;
    }
    return x;
}

zimage_status zi_host_modulation(zi_run *run, zi_tensor *m, int parts, const zi_modulation *kinds)
{
    assert(parts >= 1 && parts <= ZI_MODULATION_PARTS_MAX);
    int64_t features = zi_tensor_count(m) / parts;
    assert(features * parts == zi_tensor_count(m));
    if (zi_host_rehearses(run))
        return ZIMAGE_OK;
    for (int part = 0; part < parts; part++)
        for (int64_t i = part * features; i < (part + 1) * features; i++)
            zi_f32(m)[i] = modulated(zi_f32(m)[i], kinds[part]);
    return ZIMAGE_OK;
}

double *zi_host_sums(zi_run *run, zi_tensor *sums, int accumulate)
{
    float *data = zi_f32(sums);
    assert(sums->dims == 2 && sums->shape[1] == 4 && (uintptr_t)data % sizeof(double) == 0);
    if (!accumulate && !zi_host_rehearses(run))
        memset(data, 0, (size_t)zi_tensor_count(sums) * sizeof(float));
    return (double *)(void *)data;
}

zimage_status zi_host_group_norm_fold(zi_run *run, zi_channel_affine *affine, const zi_tensor *sums, int64_t count,
                                      const zi_weight *w, const zi_weight *b, float eps)
{
    int64_t channels = zi_tensor_count(&affine->scale), groups = sums->shape[0];
    assert(channels % groups == 0 && zi_tensor_count(&affine->shift) == channels);
    assert(zi_weight_count(w) == channels && zi_weight_count(b) == channels);
    if (zi_host_rehearses(run))
        return ZIMAGE_OK;
    zi_weight_unpack(w, 0, channels, zi_f32(&affine->scale));
    zi_weight_unpack(b, 0, channels, zi_f32(&affine->shift));
    for (int64_t c = 0; c < channels; c++) {
        const double *sum = (const double *)(const void *)zi_f32(sums) + c / (channels / groups) * 2;
        double mean = sum[0] / (double)count, variance = sum[1] / (double)count - mean * mean;
        double scale = zi_f32(&affine->scale)[c] / sqrt((variance < 0 ? 0 : variance) + eps);
        zi_f32(&affine->shift)[c] = (float)(zi_f32(&affine->shift)[c] - mean * scale);
        zi_f32(&affine->scale)[c] = (float)scale;
    }
    return ZIMAGE_OK;
}

/* ---- rehearsal --------------------------------------------------------------------------------------------------- */

zimage_status zi_host_rehearse_begin(zi_run *run)
{
    zi_host_ops *host = host_of(run);
    assert(!host->real);
    zi_arena *imaginary = zi_arena_new_imaginary();
    if (!imaginary)
        return zi_fail_memory(run->error, "a rehearsal", 0);
    host->real = host->arena;
    host->arena = imaginary;
    host->ops.rehearsing = 1;
    return ZIMAGE_OK;
}

zimage_status zi_host_rehearse_stage(zi_run *run, int stage, size_t *peak)
{
    *peak = zi_arena_held_peak(arena_of(run));
    zi_arena_reset_peak(arena_of(run));
    return ZIMAGE_OK;
}

void zi_host_rehearse_end(zi_run *run)
{
    zi_host_ops *host = host_of(run);
    if (!host->real)
        return;
    zi_arena_free(host->arena);
    host->arena = host->real;
    host->real = NULL;
    host->ops.rehearsing = 0;
}

/* ---- what needs no work in host memory --------------------------------------------------------------------------- */

zimage_status zi_host_name_check(zi_run *run, const char *name)
{
    return ZIMAGE_OK; /* check_finite has answered at once */
}

zimage_status zi_host_finish(zi_run *run)
{
    return ZIMAGE_OK;
}

zimage_status zi_host_repeat(zi_run *run, const void *key, size_t size, zi_work_fn *work, const void *user)
{
    return work(run, user);
}

zimage_status zi_host_arrange(zi_run *run, const zi_stage_runs *runs, int count, size_t activations, uint64_t host,
                              int commit, zi_memory_plan *plan)
{
    *plan = (zi_memory_plan){.activations = activations};
    return ZIMAGE_OK;
}

zimage_status zi_host_forget_weights(zi_run *run)
{
    return ZIMAGE_OK;
}

zimage_status zi_one_device(zi_run *run, size_t bytes, double *seconds)
{
    *seconds = 0;
    return ZIMAGE_OK;
}

double zi_host_peak_rate(zi_run *run)
{
    return 0;
}

size_t zi_host_device_bytes(zi_ops *ops)
{
    return 0;
}

size_t zi_host_whole_image_bytes(const zi_ops *ops)
{
    return 0;
}

zi_graph_info zi_host_graph_info(zi_ops *ops)
{
    return (zi_graph_info){0};
}

zi_batch zi_host_suits_batch(const zi_ops *ops, int64_t fewest, int64_t most)
{
    return ZI_BATCH_ALWAYS;
}
