/* The CUDA table: what is one kernel, what moves data, and what a card's table is made of. */
#include <assert.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "cuda/entries.h"
#include "cuda/graphs.h"
#include "cuda/operand.h"
#include "cuda/products.h"
#include "cuda/record.h"
#include "cuda/residency.h"
#include "ops/ops_common.h"

#define MOST_UPLOADS 8  /* threads: more don't make a link faster */
#define WHOLE_SHARE  16 /* of the memory that may be taken: the largest image that is not cut into bands */

/* ---- memory and moving --------------------------------------------------------------------------------------------- */

static zimage_status cuda_alloc(zi_ops *ops, zi_tensor *tensor, int dims, const int64_t *shape)
{
    zi_cuda *cuda = zi_cuda_state(ops);
    zi_cuda_make_current(cuda);
    return zi_cuda_tensor_alloc(cuda, tensor, cuda->type, dims, shape);
}

static zimage_status cuda_alloc_f32(zi_ops *ops, zi_tensor *tensor, int dims, const int64_t *shape)
{
    zi_cuda *cuda = zi_cuda_state(ops);
    zi_cuda_make_current(cuda);
    return zi_cuda_tensor_alloc(cuda, tensor, ZI_F32, dims, shape);
}

static zimage_status upload(zi_cuda *cuda, zi_tensor *dst, const float *src)
{
    size_t bytes = (size_t)zi_tensor_count(dst) * sizeof(float);
    void *wide = dst->data;
    if (dst->dtype != ZI_F32)
        ZI_TRY(zi_cuda_stack_alloc(cuda, bytes, "an upload", &wide));
    ZI_TRY(zi_cuda_send(cuda, wide, src, bytes));
    if (dst->dtype == ZI_F32)
        return ZIMAGE_OK;
    return ZI_CUDA_RUN(cuda, zi_cuda_convert(dst->dtype, dst->data, ZI_F32, wide, zi_tensor_count(dst), cuda->stream),
                       "converting an upload");
}

/* Takes stack memory for the moment. */
static zimage_status upload_now(zi_cuda *cuda, zi_tensor *dst, const float *src)
{
    zi_arena_mark mark = zi_cuda_mark(&cuda->ops);
    zimage_status status = upload(cuda, dst, src);
    zi_cuda_release(&cuda->ops, mark);
    return status;
}

static zimage_status cuda_upload(zi_ops *ops, zi_tensor *dst, const float *src)
{
    return upload_now(zi_cuda_begin(ops), dst, src);
}

/* Waits for everything so far, and fails if one of the blocks that were checked is not finite. */
static zimage_status finish(zi_cuda *cuda)
{
    int checks = cuda->checks;
    if (cuda->rehearsing) {
        cuda->checks = 0;
        return ZIMAGE_OK;
    }
    if (checks > 0)
        ZI_CUDA_TRY(cuda,
                    cudaMemcpyAsync(cuda->host_flags, cuda->flags, (size_t)checks * sizeof(int), cudaMemcpyDeviceToHost,
                                    cuda->stream),
                    "reading what was checked");
    ZI_CUDA_TRY(cuda, cudaStreamSynchronize(cuda->stream), "the work on the card");
    cuda->checks = 0;
    for (int i = 0; i < checks; i++)
        if (cuda->host_flags[i])
            return zi_fail_not_finite(cuda->ops.error, i < cuda->named ? cuda->names[i] : "an unnamed operation");
    return ZIMAGE_OK;
}

static zimage_status cuda_finish(zi_ops *ops)
{
    zi_cuda *cuda = zi_cuda_state(ops);
    zi_cuda_make_current(cuda);
    return finish(cuda);
}

static zimage_status download(zi_cuda *cuda, float *dst, const zi_tensor *src)
{
    void *wide = src->data;
    size_t bytes = (size_t)zi_tensor_count(src) * sizeof(float);
    if (src->dtype != ZI_F32) {
        ZI_TRY(zi_cuda_stack_alloc(cuda, bytes, "a download", &wide));
        ZI_CUDA_TRY(cuda, zi_cuda_convert(ZI_F32, wide, src->dtype, src->data, zi_tensor_count(src), cuda->stream),
                    "converting a download");
    }
    ZI_CUDA_TRY(cuda, cudaMemcpyAsync(dst, wide, bytes, cudaMemcpyDeviceToHost, cuda->stream), "copying from the card");
    return finish(cuda);
}

static zimage_status cuda_download(zi_ops *ops, float *dst, const zi_tensor *src)
{
    zi_arena_mark mark = zi_cuda_mark(ops);
    zimage_status status = download(zi_cuda_begin(ops), dst, src);
    zi_cuda_release(ops, mark);
    return status;
}

static zimage_status download_rgb8(zi_cuda *cuda, uint8_t *dst, const zi_tensor *src)
{
    size_t count = (size_t)zi_tensor_count(src);
    void *bytes;
    assert(src->dtype == ZI_F32);
    ZI_TRY(zi_cuda_stack_alloc(cuda, count, "a picture", &bytes));
    ZI_CUDA_TRY(cuda, zi_cuda_rgb8(bytes, src->data, (int64_t)count, cuda->stream), "making a picture");
    ZI_CUDA_TRY(cuda, cudaMemcpyAsync(dst, bytes, count, cudaMemcpyDeviceToHost, cuda->stream),
                "copying from the card");
    return finish(cuda);
}

static zimage_status cuda_download_rgb8(zi_ops *ops, uint8_t *dst, const zi_tensor *src)
{
    zi_arena_mark mark = zi_cuda_mark(ops);
    zimage_status status = download_rgb8(zi_cuda_begin(ops), dst, src);
    zi_cuda_release(ops, mark);
    return status;
}

static zimage_status cuda_copy(zi_ops *ops, zi_tensor *dst, const zi_tensor *src)
{
    zi_cuda *cuda = zi_cuda_begin(ops);
    int64_t count = zi_tensor_count(src);
    assert(zi_tensor_count(dst) == count);
    if (dst->dtype != src->dtype)
        return ZI_CUDA_RUN(cuda, zi_cuda_convert(dst->dtype, dst->data, src->dtype, src->data, count, cuda->stream),
                           "a copy");
    return ZI_CUDA_RUN(cuda,
                       cudaMemcpyAsync(dst->data, src->data, (size_t)count * zi_dtype_size(src->dtype),
                                       cudaMemcpyDeviceToDevice, cuda->stream),
                       "a copy");
}

/* Few rows of a large table: the host unpacks them, and the table never needs room on the card. */
static zimage_status cuda_embed_rows(zi_ops *ops, zi_tensor *y, const zi_weight *table, const int32_t *ids)
{
    int64_t features = table->shape[1], rows = zi_row_count(y);
    assert(table->dims == 2 && zi_features(y) == features);
    ZI_TRY(zi_cuda_check_form(zi_cuda_state(ops), table, table->dtype == ZI_GROUPED ? ZI_FORM_PACKED : ZI_FORM_MATRIX));
    float *values = malloc((size_t)(rows * features) * sizeof(*values));
    if (values == NULL)
        return zi_fail_memory(ops->error, "embedded rows", (size_t)(rows * features) * sizeof(*values));
    for (int64_t i = 0; i < rows && !zi_cuda_state(ops)->rehearsing; i++) {
        assert(ids[i] >= 0 && ids[i] < table->shape[0]);
        zi_weight_unpack(table, ids[i] * features, features, values + i * features);
    }
    zimage_status status = cuda_upload(ops, y, values);
    free(values);
    return status;
}

/* ---- one kernel each ----------------------------------------------------------------------------------------------- */

static zimage_status cuda_silu(zi_ops *ops, zi_tensor *y, const zi_tensor *x)
{
    zi_cuda *cuda = zi_cuda_begin(ops);
    assert(zi_tensor_count(y) == zi_tensor_count(x) && y->dtype == x->dtype);
    return ZI_CUDA_RUN(cuda, zi_cuda_silu(x->dtype, y->data, x->data, zi_tensor_count(x), cuda->stream), "a SiLU");
}

/* The numbers of an optional factor, float32. */
static const float *factor(const zi_tensor *scale, int64_t n)
{
    assert(scale == NULL || (scale->dtype == ZI_F32 && zi_tensor_count(scale) == n));
    (void)n;
    return scale != NULL ? scale->data : NULL;
}

/* Where a norm writes: one of both has data. */
typedef struct norm_target {
    zi_tensor plain;
    zi_cuda_rows8 rows8;
} norm_target;

/* y may be NULL: nowhere. Rows that are too long to be held are quantised afterwards. */
static zimage_status aim(zi_cuda *cuda, const zi_tensor *y, norm_target *target)
{
    *target = (norm_target){.plain = {.data = NULL}};
    if (y == NULL)
        return ZIMAGE_OK;
    if (y->dtype != ZI_OPERAND)
        target->plain = *y;
    else if (zi_cuda_row_fits(cuda->type, zi_features(y)))
        target->rows8 = zi_cuda_rows8_of(y);
    else
        return zi_cuda_stand_in(cuda, y, &target->plain);
    return ZIMAGE_OK;
}

static zimage_status hit(zi_cuda *cuda, const zi_tensor *y, const norm_target *target)
{
    if (y == NULL || y->dtype != ZI_OPERAND || target->plain.data == NULL)
        return ZIMAGE_OK;
    return zi_cuda_quantise(cuda, &target->plain, zi_cuda_rows8_of(y));
}

static zimage_status cuda_rms_norm(zi_ops *ops, zi_tensor *y, const zi_tensor *x, const zi_weight *w,
                                   const zi_tensor *scale, float eps)
{
    zi_cuda *cuda = zi_cuda_begin(ops);
    int64_t n = zi_features(x);
    const float *weights;
    norm_target target;
    assert(zi_tensor_count(y) == zi_tensor_count(x) && (w == NULL || zi_weight_count(w) == n));
    ZI_TRY(zi_cuda_vector(cuda, w, &weights));
    zi_arena_mark mark = zi_cuda_mark(ops);
    ZI_TRY(aim(cuda, y, &target));
    ZI_CUDA_TRY(cuda,
                zi_cuda_rms_norm(x->dtype, target.plain.data, target.rows8, x->data, weights, factor(scale, n),
                                 zi_row_count(x), n, eps, cuda->stream),
                "an RMS norm");
    ZI_TRY(hit(cuda, y, &target));
    zi_cuda_release(ops, mark);
    return ZIMAGE_OK;
}

static zimage_status cuda_layer_norm(zi_ops *ops, zi_tensor *y, const zi_tensor *x, const zi_tensor *scale, float eps)
{
    zi_cuda *cuda = zi_cuda_begin(ops);
    int64_t n = zi_features(x);
    assert(zi_tensor_count(y) == zi_tensor_count(x) && y->dtype == x->dtype);
    return ZI_CUDA_RUN(
        cuda, zi_cuda_layer_norm(x->dtype, y->data, x->data, factor(scale, n), zi_row_count(x), n, eps, cuda->stream),
        "a layer norm");
}

/* The flag of the next check, clear. When there is no room those before are read, which waits for them. */
static zimage_status next_check(zi_cuda *cuda, int **flag)
{
    if (cuda->checks == ZI_CHECKS)
        ZI_TRY(finish(cuda));
    if (cuda->checks == 0) {
        cuda->named = 0;
        ZI_CUDA_TRY(cuda, cudaMemsetAsync(cuda->flags, 0, ZI_CHECKS * sizeof(int), cuda->stream), "clearing flags");
    }
    *flag = cuda->flags + cuda->checks++;
    return ZIMAGE_OK;
}

static zimage_status cuda_block_named(zi_ops *ops, const char *name)
{
    zi_cuda *cuda = zi_cuda_state(ops);
    for (; cuda->named < cuda->checks; cuda->named++)
        snprintf(cuda->names[cuda->named], ZI_BLOCK_NAME, "%s", name);
    return ZIMAGE_OK;
}

static zimage_status cuda_check_finite(zi_ops *ops, const zi_tensor *x, int *finite)
{
    zi_cuda *cuda = zi_cuda_begin(ops);
    int *flag;
    *finite = 1;
    ZI_TRY(next_check(cuda, &flag));
    return ZI_CUDA_RUN(cuda, zi_cuda_not_finite(x->dtype, x->data, zi_tensor_count(x), flag, cuda->stream), "a check");
}

static zimage_status residual(zi_cuda *cuda, zi_cuda_residual_args *args, const zi_tensor *x, const zi_tensor *h)
{
    norm_target target;
    ZI_TRY(aim(cuda, h, &target));
    args->h = target.plain.data;
    args->h8 = target.rows8;
    ZI_CUDA_TRY(cuda, zi_cuda_residual(x->dtype, args, zi_row_count(x), zi_features(x), cuda->stream), "a residual");
    return hit(cuda, h, &target);
}

static zimage_status cuda_residual_gate_norm(zi_ops *ops, zi_tensor *x, const zi_tensor *y, const zi_weight *w,
                                             const zi_tensor *gate, zi_tensor *h, const zi_weight *w_next,
                                             const zi_tensor *scale_next, float eps, int *finite)
{
    zi_cuda *cuda = zi_cuda_begin(ops);
    int64_t n = zi_features(x);
    zi_cuda_residual_args args = {.x = x->data, .y = y->data, .eps = eps};
    assert(zi_tensor_count(y) == zi_tensor_count(x) && y->dtype == x->dtype);
    args.gate = factor(gate, n);
    args.gain_next = factor(scale_next, n);
    ZI_TRY(zi_cuda_vector(cuda, w, &args.w));
    ZI_TRY(zi_cuda_vector(cuda, w_next, &args.w_next));
    if (finite != NULL) {
        *finite = 1;
        ZI_TRY(next_check(cuda, &args.not_finite));
    }
    zi_arena_mark mark = zi_cuda_mark(ops);
    zimage_status status = residual(cuda, &args, x, h);
    zi_cuda_release(ops, mark);
    return status;
}

static zimage_status cuda_qk_norm_rope(zi_ops *ops, zi_tensor *x, const zi_weight *w, const zi_tensor *cos,
                                       const zi_tensor *sin, int64_t heads, zi_rope_layout layout, float eps)
{
    zi_cuda *cuda = zi_cuda_begin(ops);
    int64_t dim = zi_features(x) / heads, tokens = zi_row_count(x);
    const float *weights;
    assert(dim * heads == zi_features(x) && dim % 2 == 0 && zi_weight_count(w) == dim);
    ZI_TRY(zi_cuda_vector(cuda, w, &weights));
    return ZI_CUDA_RUN(cuda,
                       zi_cuda_qk_norm_rope(x->dtype, x->data, weights, factor(cos, tokens * dim / 2),
                                            factor(sin, tokens * dim / 2), tokens, heads, dim,
                                            layout == ZI_ROPE_HALF_SPLIT, eps, cuda->stream),
                       "a rotation");
}

static zimage_status cuda_rope_table(zi_ops *ops, zi_tensor *cos, zi_tensor *sin, const float *angles)
{
    zi_cuda *cuda = zi_cuda_begin(ops);
    int64_t count = zi_tensor_count(cos);
    assert(zi_tensor_count(sin) == count && cos->dtype == ZI_F32 && sin->dtype == ZI_F32);
    ZI_TRY(upload_now(cuda, cos, angles));
    return ZI_CUDA_RUN(cuda, zi_cuda_cos_sin(cos->data, sin->data, cos->data, count, cuda->stream), "angles");
}

static zimage_status cuda_modulation(zi_ops *ops, zi_tensor *m)
{
    zi_cuda *cuda = zi_cuda_begin(ops);
    assert(zi_tensor_count(m) % 4 == 0);
    return ZI_CUDA_RUN(cuda, zi_cuda_modulation(m->dtype, m->data, zi_tensor_count(m) / 4, cuda->stream),
                       "a modulation");
}

static zimage_status cuda_add_one(zi_ops *ops, zi_tensor *y, const zi_tensor *x)
{
    zi_cuda *cuda = zi_cuda_begin(ops);
    assert(zi_tensor_count(y) == zi_tensor_count(x) && y->dtype == x->dtype);
    return ZI_CUDA_RUN(cuda, zi_cuda_add_one(x->dtype, y->data, x->data, zi_tensor_count(x), cuda->stream), "a sum");
}

static zimage_status cuda_patchify(zi_ops *ops, zi_tensor *tokens, const zi_tensor *latents, int64_t patch)
{
    zi_cuda *cuda = zi_cuda_begin(ops);
    assert(latents->dims == 3 && zi_tensor_count(tokens) == zi_tensor_count(latents));
    return ZI_CUDA_RUN(cuda,
                       zi_cuda_patchify(tokens->dtype, tokens->data, latents->dtype, latents->data, latents->shape,
                                        patch, cuda->stream),
                       "making patches");
}

static zimage_status cuda_unpatchify(zi_ops *ops, zi_tensor *latents, const zi_tensor *tokens, int64_t patch)
{
    zi_cuda *cuda = zi_cuda_begin(ops);
    assert(latents->dims == 3 && zi_tensor_count(tokens) == zi_tensor_count(latents));
    return ZI_CUDA_RUN(cuda,
                       zi_cuda_unpatchify(latents->dtype, latents->data, tokens->dtype, tokens->data, latents->shape,
                                          patch, cuda->stream),
                       "undoing patches");
}

/* ---- group norm ---------------------------------------------------------------------------------------------------- */

static zimage_status cuda_group_norm_sums(zi_ops *ops, zi_tensor *sums, const zi_tensor *x, int accumulate)
{
    zi_cuda *cuda = zi_cuda_begin(ops);
    int64_t channels = zi_features(x), groups = sums->shape[0];
    assert(channels % groups == 0 && sums->shape[1] == 4);
    if (!accumulate)
        ZI_CUDA_TRY(cuda, cudaMemsetAsync(sums->data, 0, (size_t)groups * 2 * sizeof(double), cuda->stream),
                    "clearing sums");
    return ZI_CUDA_RUN(
        cuda, zi_cuda_group_sums(x->dtype, sums->data, x->data, zi_row_count(x), channels, groups, cuda->stream),
        "group sums");
}

static zimage_status cuda_group_norm_fold(zi_ops *ops, zi_channel_affine *affine, const zi_tensor *sums, int64_t count,
                                          const zi_weight *w, const zi_weight *b, float eps)
{
    zi_cuda *cuda = zi_cuda_begin(ops);
    int64_t channels = zi_tensor_count(&affine->scale);
    const float *weight, *bias;
    ZI_TRY(zi_cuda_vector(cuda, w, &weight));
    ZI_TRY(zi_cuda_vector(cuda, b, &bias));
    return ZI_CUDA_RUN(cuda,
                       zi_cuda_group_fold(affine->scale.data, affine->shift.data, sums->data, weight, bias, channels,
                                          sums->shape[0], count, eps, cuda->stream),
                       "a group norm");
}

static zimage_status cuda_channel_affine(zi_ops *ops, zi_tensor *y, const zi_tensor *x, const zi_channel_affine *affine)
{
    zi_cuda *cuda = zi_cuda_begin(ops);
    int64_t channels = zi_features(x);
    assert(zi_tensor_count(y) == zi_tensor_count(x) && y->dtype == x->dtype);
    return ZI_CUDA_RUN(cuda,
                       zi_cuda_channel_affine(x->dtype, y->data, x->data, factor(&affine->scale, channels),
                                              factor(&affine->shift, channels), zi_row_count(x), channels,
                                              cuda->stream),
                       "a scale and a shift");
}

/* ---- the table ----------------------------------------------------------------------------------------------------- */

static size_t cuda_peak_bytes(const zi_ops *ops)
{
    return zi_cuda_state(ops)->stack.peak;
}

static size_t cuda_device_bytes(zi_ops *ops)
{
    size_t left = 0, all = 0;
    zi_cuda_make_current(zi_cuda_state(ops));
    return cudaMemGetInfo(&left, &all) == cudaSuccess ? all - left : 0;
}

static void cuda_describe(const zi_ops *ops, char *text, size_t size)
{
    const zi_cuda *cuda = zi_cuda_state(ops);
    snprintf(text, size, "cuda:%d %s %s", cuda->device,
             cuda->fp8               ? "fp8"
             : cuda->type == ZI_BF16 ? "bf16"
                                     : "f32",
             cuda->name);
}

static zimage_status cuda_forget_weights(zi_ops *ops)
{
    zi_cuda *cuda = zi_cuda_state(ops);
    zi_cuda_make_current(cuda);
    ZI_CUDA_TRY(cuda, cudaStreamSynchronize(cuda->stream), "the work on the card");
    zi_cuda_recordings_free(cuda);
    zi_cuda_residency_clear(cuda);
    zi_cuda_weights_free(cuda);
    return ZIMAGE_OK;
}

static void cuda_free(zi_ops *ops)
{
    if (ops == NULL)
        return;
    zi_cuda *cuda = zi_cuda_state(ops);
    zi_cuda_make_current(cuda);
    if (cuda->stream != NULL)
        (void)cudaStreamSynchronize(cuda->stream);
    zi_cuda_recordings_free(cuda);
    zi_cuda_graphs_free(cuda);
    zi_cuda_plans_free(cuda);
    zi_cuda_residency_close(cuda);
    zi_uploader_close(&cuda->uploader);
    zi_cuda_weights_free(cuda);
    zi_cuda_stack_free(cuda);
    zi_cuda_staging_close(&cuda->staging);
    (void)cudaFree(cuda->workspace);
    (void)cudaFree(cuda->flags);
    (void)cudaFreeHost(cuda->host_flags);
    if (cuda->dnn != NULL)
        (void)cudnnDestroy(cuda->dnn);
    if (cuda->blas != NULL)
        (void)cublasLtDestroy(cuda->blas);
    if (cuda->stream != NULL)
        (void)cudaStreamDestroy(cuda->stream);
    zi_cuda_choices_close(&cuda->choices);
    free(cuda->names);
    free(cuda);
}

static const zi_ops_table cuda_table = {
    .name = "cuda",
    .alloc = cuda_alloc,
    .alloc_f32 = cuda_alloc_f32,
    .alloc_operand = zi_cuda_alloc_operand,
    .mark = zi_cuda_mark,
    .release = zi_cuda_release,
    .upload = cuda_upload,
    .download = cuda_download,
    .download_rgb8 = cuda_download_rgb8,
    .copy = cuda_copy,
    .embed_rows = cuda_embed_rows,
    .linear = zi_cuda_linear,
    .linears = zi_cuda_linears,
    .linear_glu = zi_cuda_linear_glu,
    .silu = cuda_silu,
    .rms_norm = cuda_rms_norm,
    .layer_norm = cuda_layer_norm,
    .residual_gate_norm = cuda_residual_gate_norm,
    .rope_table = cuda_rope_table,
    .qk_norm_rope = cuda_qk_norm_rope,
    .attention = zi_cuda_attention,
    .modulation = cuda_modulation,
    .add_one = cuda_add_one,
    .patchify = cuda_patchify,
    .unpatchify = cuda_unpatchify,
    .conv2d = zi_cuda_conv2d,
    .group_norm_sums = cuda_group_norm_sums,
    .group_norm_fold = cuda_group_norm_fold,
    .channel_affine = cuda_channel_affine,
    .check_finite = cuda_check_finite,
    .free = cuda_free,
};

/* ---- making it ----------------------------------------------------------------------------------------------------- */

static zimage_status open_buffers(zi_cuda *cuda)
{
    cuda->names = calloc(ZI_CHECKS, sizeof(*cuda->names));
    if (cuda->names == NULL)
        return zi_fail_memory(cuda->ops.error, "names of blocks", ZI_CHECKS * sizeof(*cuda->names));
    ZI_TRY(zi_cuda_memory(cuda, ZI_WORKSPACE_BYTES, "a workspace", &cuda->workspace));
    ZI_TRY(zi_cuda_memory(cuda, ZI_CHECKS * sizeof(int), "flags", (void **)&cuda->flags));
    ZI_CUDA_TRY(cuda, cudaMallocHost((void **)&cuda->host_flags, ZI_CHECKS * sizeof(int)), "allocating pinned memory");
    ZI_TRY(zi_cuda_staging_open(cuda));
    return zi_cuda_residency_open(cuda);
}

static zimage_status open_uploader(zi_cuda *cuda, const zi_cuda_options *options)
{
    cudaError_t code;
    int threads = options->upload_threads < 1              ? 1
                  : options->upload_threads < MOST_UPLOADS ? options->upload_threads
                                                           : MOST_UPLOADS;
    if (zi_uploader_open(&cuda->uploader, options->device, threads, options->upload_piece, &code))
        return ZIMAGE_OK;
    ZI_TRY(zi_cuda_result(cuda, code, "preparing to send weights"));
    return zi_fail(cuda->ops.error, ZIMAGE_ERROR_INTERNAL, "cuda:%d: threads that send weights can't be started",
                   cuda->device);
}

static zimage_status open_cudnn(zi_cuda *cuda)
{
    cudnnStatus_t status = cudnnCreate(&cuda->dnn);
    if (status == CUDNN_STATUS_SUCCESS)
        status = cudnnSetStream(cuda->dnn, cuda->stream);
    if (status == CUDNN_STATUS_SUCCESS)
        return ZIMAGE_OK;
    return zi_fail(cuda->ops.error, ZIMAGE_ERROR_UNSUPPORTED, "cuda:%d: cuDNN can't be used: %s", cuda->device,
                   cudnnGetErrorString(status));
}

static void open_choices(zi_cuda *cuda, const zi_cuda_options *options, const struct cudaDeviceProp *card)
{
    char header[256];
    int driver = 0;
    (void)cudaDriverGetVersion(&driver);
    snprintf(header, sizeof(header),
             "zimage-cuda %d, %.80s, %d.%d, %d multiprocessors, driver %d, cuBLASLt %zu, cuDNN %zu", ZI_CUDA_ABI,
             card->name, card->major, card->minor, card->multiProcessorCount, driver, cublasLtGetVersion(),
             cuda->dnn != NULL ? cudnnGetVersion() : 0);
    zi_cuda_choices_open(&cuda->choices, options->cache, header);
}

static zimage_status open_card(zi_cuda *cuda, const zi_cuda_options *options)
{
    struct cudaDeviceProp properties = {.major = 0};
    ZI_CUDA_TRY(cuda, cudaSetDevice(options->device), "choosing the card");
    ZI_CUDA_TRY(cuda, cudaGetDeviceProperties(&properties, options->device), "asking the card");
    if (cuda->fp8 && (properties.major != 9 || properties.minor != 0))
        return zi_fail(cuda->ops.error, ZIMAGE_ERROR_UNSUPPORTED,
                       "compute: fp8 on cuda:%d of compute capability %d.%d, expected 9.0: scales of rows need it",
                       options->device, properties.major, properties.minor);
    snprintf(cuda->name, sizeof(cuda->name), "%.*s", (int)sizeof(cuda->name) - 1, properties.name);
    ZI_CUDA_TRY(cuda, cudaStreamCreateWithFlags(&cuda->stream, cudaStreamNonBlocking), "making a stream");
    ZI_TRY(zi_cuda_check_blas(cuda, cublasLtCreate(&cuda->blas), "opening cuBLASLt"));
    if (!options->own_kernels)
        ZI_TRY(open_cudnn(cuda));
    ZI_TRY(open_buffers(cuda));
    ZI_TRY(open_uploader(cuda, options));
    open_choices(cuda, options, &properties);
    cuda->fixed = cuda->used;
    cuda->limit = zi_cuda_limit(cuda);
    cuda->ops.whole_bytes = cuda->limit / WHOLE_SHARE;
    return ZIMAGE_OK;
}

#define MOST_CARDS 64

/* ZIMAGE_ERROR_UNSUPPORTED with the reason, unless that card can be used. */
static zimage_status check_card(int index, zimage_error *error)
{
    zi_cuda_device devices[MOST_CARDS];
    int count;
    ZI_TRY(zi_cuda_devices(devices, MOST_CARDS, &count, error));
    if (index < 0 || index >= count || index >= MOST_CARDS)
        return zi_fail(error, ZIMAGE_ERROR_ARGUMENT,
                       "device: \"cuda:%d\", expected a number below %d: there %s %d card%s", index, count,
                       count == 1 ? "is" : "are", count, count == 1 ? "" : "s");
    if (*devices[index].fault)
        return zi_fail(error, ZIMAGE_ERROR_UNSUPPORTED, "cuda:%d (%s) can't be used: %s", index, devices[index].name,
                       devices[index].fault);
    return ZIMAGE_OK;
}

zimage_status zi_ops_cuda_new(const zi_cuda_options *options, zi_ops **ops, zimage_error *error)
{
    *ops = NULL;
    if (options->compute == ZI_COMPUTE_INT8)
        return zi_fail(error, ZIMAGE_ERROR_ARGUMENT, "compute: int8, expected f32, bf16 or fp8 on a card");
    ZI_TRY(check_card(options->device, error));
    zi_cuda *cuda = calloc(1, sizeof(*cuda));
    if (cuda == NULL)
        return zi_fail_memory(error, "the operations table", sizeof(*cuda));
    cuda->ops = (zi_ops){.table = &cuda_table,
                         .error = error,
                         .peak_bytes = cuda_peak_bytes,
                         .describe = cuda_describe,
                         .peak_rate = zi_cuda_peak,
                         .finish = cuda_finish,
                         .block_named = cuda_block_named,
                         .repeat = zi_cuda_repeat,
                         .device_bytes = cuda_device_bytes,
                         .forget_weights = cuda_forget_weights,
                         .memory = &zi_cuda_ops_memory};
    cuda->device = options->device;
    cuda->asked = options->memory;
    cuda->type = options->compute == ZI_COMPUTE_F32 ? ZI_F32 : ZI_BF16;
    cuda->fp8 = options->compute == ZI_COMPUTE_FP8;
    zimage_status status = open_card(cuda, options);
    cuda->ops.error = NULL;
    if (status != ZIMAGE_OK) {
        cuda_free(&cuda->ops);
        return status;
    }
    *ops = &cuda->ops;
    return ZIMAGE_OK;
}
