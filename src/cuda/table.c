/* The CUDA backend's table: operations that move data or are one kernel; then opening and closing a GPU. */
#include <assert.h>
#include <stdio.h>
#include <stdlib.h>

#include "base/numbers.h"
#include "cuda/cards.h"
#include "cuda/checks.h"
#include "cuda/entries.h"
#include "cuda/graphs.h"
#include "cuda/products.h"
#include "cuda/record.h"
#include "cuda/residency.h"
#include "ops/shapes.h"

#define UPLOAD_THREADS_MAX 8  /* more threads don't copy faster */
#define WHOLE_SHARE        16 /* an image of up to this part of the memory limit is not cut into bands */

#ifndef MOST_BATCHED
#define MOST_BATCHED 6144 /* rows of a batch that is not slower than its passes; on the emulated GPU fewer */
#endif

static int is_dense(const zi_tensor *a, const zi_tensor *b)
{
    return zi_tensor_is_dense(a) && zi_tensor_is_dense(b);
}

/* ---- memory and moving ------------------------------------------------------------------------------------------- */

static zimage_status cuda_alloc(zi_run *run, zi_tensor *tensor, int dims, const int64_t *shape)
{
    zi_cuda *cuda = zi_cuda_enter(run);
    return zi_cuda_tensor_alloc(cuda, tensor, cuda->type, dims, shape);
}

static zimage_status cuda_alloc_f32(zi_run *run, zi_tensor *tensor, int dims, const int64_t *shape)
{
    return zi_cuda_tensor_alloc(zi_cuda_enter(run), tensor, ZI_F32, dims, shape);
}

static zi_arena_mark cuda_mark(zi_run *run)
{
    return zi_cuda_mark(zi_cuda_state(run->ops));
}

static void cuda_release(zi_run *run, zi_arena_mark mark)
{
    zi_cuda_release(zi_cuda_state(run->ops), mark);
}

/* What an upload copies: float32 numbers in host memory, or where table is not NULL these rows of it. */
typedef struct upload_source {
    const float *values;
    const zi_weight *table;
    const int32_t *ids;
} upload_source;

/* wide [rows, features] <- rows of the table, of at most ZI_CUDA_STAGING_BYTES each in float32. */
static zimage_status send_rows(zi_cuda *cuda, float *wide, int64_t rows, const zi_weight *table, const int32_t *ids)
{
    int64_t features = table->shape[1], part = (int64_t)(ZI_CUDA_STAGING_BYTES / sizeof(float)) / features;
    assert(part > 0);
    for (int64_t row = 0; row < rows && !cuda->ops.rehearsing; row += part) {
        int64_t count = zi_min_int64(part, rows - row);
        void *half;
        ZI_TRY(zi_cuda_staging_half(cuda, &half));
        for (int64_t i = 0; i < count; i++) {
            assert(ids[row + i] >= 0 && ids[row + i] < table->shape[0]);
            zi_weight_unpack(table, ids[row + i] * features, features, (float *)half + i * features);
        }
        ZI_TRY(zi_cuda_send_half(cuda, wide + row * features, (size_t)(count * features) * sizeof(float)));
    }
    return ZIMAGE_OK;
}

static zimage_status upload(zi_cuda *cuda, zi_tensor *dst, const upload_source *src)
{
    size_t bytes = (size_t)zi_tensor_count(dst) * sizeof(float);
    void *wide = zi_cuda_data(dst);
    if (dst->dtype != ZI_F32)
        ZI_TRY(zi_cuda_stack_alloc(cuda, bytes, "an upload", &wide));
    ZI_TRY(src->table != NULL ? send_rows(cuda, wide, zi_row_count(dst), src->table, src->ids)
                              : zi_cuda_send(cuda, wide, src->values, bytes));
    if (dst->dtype == ZI_F32)
        return ZIMAGE_OK;
    return ZI_CUDA_RUN(cuda,
                       zi_cuda_convert(dst->dtype, zi_cuda_data(dst), ZI_F32, wide, zi_tensor_count(dst), cuda->stream),
                       "converting an upload");
}

/* Takes stack memory, and releases it. */
static zimage_status upload_now(zi_cuda *cuda, zi_tensor *dst, const upload_source *src)
{
    zi_arena_mark mark = zi_cuda_mark(cuda);
    zimage_status status = upload(cuda, dst, src);
    zi_cuda_release(cuda, mark);
    return status;
}

static zimage_status cuda_upload(zi_run *run, zi_tensor *dst, const float *src)
{
    assert(zi_tensor_is_dense(dst));
    return upload_now(zi_cuda_begin(run), dst, &(upload_source){.values = src});
}

static zimage_status download(zi_cuda *cuda, float *dst, const zi_tensor *src)
{
    void *wide = zi_cuda_data(src);
    size_t bytes = (size_t)zi_tensor_count(src) * sizeof(float);
    if (src->dtype != ZI_F32) {
        ZI_TRY(zi_cuda_stack_alloc(cuda, bytes, "a download", &wide));
        ZI_CUDA_TRY(cuda,
                    zi_cuda_convert(ZI_F32, wide, src->dtype, zi_cuda_data(src), zi_tensor_count(src), cuda->stream),
                    "converting a download");
    }
    ZI_CUDA_TRY(cuda, cudaMemcpyAsync(dst, wide, bytes, cudaMemcpyDeviceToHost, cuda->stream), "copying from the GPU");
    return zi_cuda_wait(cuda);
}

static zimage_status cuda_download(zi_run *run, float *dst, const zi_tensor *src)
{
    zi_cuda *cuda = zi_cuda_begin(run);
    zi_arena_mark mark = zi_cuda_mark(cuda);
    assert(zi_tensor_is_dense(src));
    zimage_status status = download(cuda, dst, src);
    zi_cuda_release(cuda, mark);
    return status;
}

static zimage_status download_rgb8(zi_cuda *cuda, uint8_t *dst, const zi_tensor *src)
{
    size_t count = (size_t)zi_tensor_count(src);
    void *bytes;
    assert(src->dtype == ZI_F32 && zi_tensor_is_dense(src));
    ZI_TRY(zi_cuda_stack_alloc(cuda, count, "an image", &bytes));
    ZI_CUDA_TRY(cuda, zi_cuda_rgb8(bytes, zi_cuda_data(src), (int64_t)count, cuda->stream), "making an image");
    ZI_CUDA_TRY(cuda, cudaMemcpyAsync(dst, bytes, count, cudaMemcpyDeviceToHost, cuda->stream), "copying from the GPU");
    return zi_cuda_wait(cuda);
}

static zimage_status cuda_download_rgb8(zi_run *run, uint8_t *dst, const zi_tensor *src)
{
    zi_cuda *cuda = zi_cuda_begin(run);
    zi_arena_mark mark = zi_cuda_mark(cuda);
    zimage_status status = download_rgb8(cuda, dst, src);
    zi_cuda_release(cuda, mark);
    return status;
}

static zimage_status cuda_copy(zi_run *run, zi_tensor *dst, const zi_tensor *src)
{
    zi_cuda *cuda = zi_cuda_begin(run);
    int64_t count = zi_tensor_count(src);
    void *to = zi_cuda_data(dst), *from = zi_cuda_data(src);
    assert(zi_tensor_count(dst) == count);
    if (!is_dense(dst, src)) {
        assert(zi_features(dst) == zi_features(src));
        return ZI_CUDA_RUN(cuda,
                           zi_cuda_copy_rows(dst->dtype, to, dst->ld, src->dtype, from, src->ld, zi_row_count(src),
                                             zi_features(src), cuda->stream),
                           "a copy");
    }
    if (dst->dtype != src->dtype)
        return ZI_CUDA_RUN(cuda, zi_cuda_convert(dst->dtype, to, src->dtype, from, count, cuda->stream), "a copy");
    return ZI_CUDA_RUN(
        cuda,
        cudaMemcpyAsync(to, from, (size_t)count * zi_dtype_size(src->dtype), cudaMemcpyDeviceToDevice, cuda->stream),
        "a copy");
}

/* Few rows of a large table are read, so the host converts them, and the table needs no device memory. */
static zimage_status cuda_embed_rows(zi_run *run, zi_tensor *y, const zi_weight *table, const int32_t *ids)
{
    zi_cuda *cuda = zi_cuda_begin(run);
    assert(table->dims == 2 && zi_features(y) == table->shape[1] && zi_tensor_is_dense(y));
    ZI_TRY(zi_cuda_check_form(cuda, table, table->dtype == ZI_GROUPED ? ZI_FORM_PACKED : ZI_FORM_MATRIX));
    return upload_now(cuda, y, &(upload_source){.table = table, .ids = ids});
}

/* ---- one kernel each --------------------------------------------------------------------------------------------- */

static zimage_status cuda_silu(zi_run *run, zi_tensor *y, const zi_tensor *x)
{
    zi_cuda *cuda = zi_cuda_begin(run);
    assert(zi_tensor_count(y) == zi_tensor_count(x) && y->dtype == x->dtype && is_dense(y, x));
    return ZI_CUDA_RUN(cuda, zi_cuda_silu(x->dtype, zi_cuda_data(y), zi_cuda_data(x), zi_tensor_count(x), cuda->stream),
                       "a SiLU");
}

/* Heads as large as their norm's weight. */
static zimage_status heads_of(zi_cuda *cuda, const zi_tensor *x, const zi_weight *weight, zi_cuda_heads *heads)
{
    *heads = (zi_cuda_heads){.x = zi_cuda_data(x), .ld = x->ld, .heads = zi_features(x) / zi_weight_count(weight)};
    return zi_cuda_vector(cuda, weight, &heads->w);
}

static zimage_status cuda_qk_norm_rope(zi_run *run, zi_tensor *x, const zi_qk_norm_rope *rope)
{
    zi_cuda *cuda = zi_cuda_begin(run);
    int64_t dim = zi_features(x) / rope->heads, tokens = zi_row_count(x);
    const zi_tensor *k = rope->k;
    zi_cuda_rope_args args = {.cos = zi_cuda_factor(rope->cos, tokens * dim / 2),
                              .sin = zi_cuda_factor(rope->sin, tokens * dim / 2),
                              .rows = tokens,
                              .dim = dim,
                              .half_split = rope->layout == ZI_ROPE_HALF_SPLIT,
                              .eps = rope->eps};
    assert(dim * rope->heads == zi_features(x) && dim % 2 == 0 && zi_weight_count(rope->weight) == dim);
    assert(k == NULL || (k->dtype == x->dtype && zi_row_count(k) == tokens && zi_weight_count(rope->k_weight) == dim));
    ZI_TRY(heads_of(cuda, x, rope->weight, &args.q));
    if (k != NULL)
        ZI_TRY(heads_of(cuda, k, rope->k_weight, &args.k));
    return ZI_CUDA_RUN(cuda, zi_cuda_qk_norm_rope(x->dtype, &args, cuda->stream), "a rotation");
}

static zimage_status cuda_rope_table(zi_run *run, zi_tensor *cos, zi_tensor *sin, const float *angles)
{
    zi_cuda *cuda = zi_cuda_begin(run);
    int64_t count = zi_tensor_count(cos);
    assert(zi_tensor_count(sin) == count && cos->dtype == ZI_F32 && sin->dtype == ZI_F32 && is_dense(cos, sin));
    ZI_TRY(upload_now(cuda, cos, &(upload_source){.values = angles}));
    return ZI_CUDA_RUN(
        cuda, zi_cuda_cos_sin(zi_cuda_data(cos), zi_cuda_data(sin), zi_cuda_data(cos), count, cuda->stream), "angles");
}

static zimage_status cuda_modulation(zi_run *run, zi_tensor *m, int parts, const zi_modulation *kinds)
{
    zi_cuda *cuda = zi_cuda_begin(run);
    assert(parts >= 1 && parts <= ZI_MODULATION_PARTS_MAX);
    int64_t features = zi_tensor_count(m) / parts;
    assert(features * parts == zi_tensor_count(m));
    assert(zi_tensor_is_dense(m));
    return ZI_CUDA_RUN(cuda, zi_cuda_modulation(m->dtype, zi_cuda_data(m), parts, kinds, features, cuda->stream),
                       "a modulation");
}

static zimage_status cuda_patchify(zi_run *run, zi_tensor *tokens, const zi_tensor *latents, int64_t patch,
                                   zi_patch_order order)
{
    zi_cuda *cuda = zi_cuda_begin(run);
    zi_check_patches(tokens, latents, patch);
    assert(is_dense(tokens, latents));
    return ZI_CUDA_RUN(cuda,
                       zi_cuda_patchify(tokens->dtype, zi_cuda_data(tokens), latents->dtype, zi_cuda_data(latents),
                                        latents->shape, patch, order, cuda->stream),
                       "making patches");
}

static zimage_status cuda_unpatchify(zi_run *run, zi_tensor *latents, const zi_tensor *tokens, int64_t patch,
                                     zi_patch_order order)
{
    zi_cuda *cuda = zi_cuda_begin(run);
    zi_check_patches(tokens, latents, patch);
    assert(is_dense(tokens, latents));
    return ZI_CUDA_RUN(cuda,
                       zi_cuda_unpatchify(latents->dtype, zi_cuda_data(latents), tokens->dtype, zi_cuda_data(tokens),
                                          latents->shape, patch, order, cuda->stream),
                       "undoing patches");
}

/* ---- group norm -------------------------------------------------------------------------------------------------- */

/* x may have no rows. */
static zimage_status cuda_group_norm_sums(zi_run *run, zi_tensor *sums, const zi_tensor *x, int accumulate)
{
    zi_cuda *cuda = zi_cuda_begin(run);
    int64_t channels = zi_features(x), groups = sums->shape[0], rows = zi_row_count(x);
    double *data = zi_cuda_data(sums);
    assert(channels % groups == 0 && sums->shape[1] == 4 && is_dense(sums, x));
    if (!accumulate)
        ZI_CUDA_TRY(cuda, cudaMemsetAsync(data, 0, (size_t)groups * 2 * sizeof(double), cuda->stream), "clearing sums");
    if (rows == 0)
        return ZIMAGE_OK;
    return ZI_CUDA_RUN(cuda, zi_cuda_group_sums(x->dtype, data, zi_cuda_data(x), rows, channels, groups, cuda->stream),
                       "group sums");
}

zimage_status zi_cuda_fold_parts(zi_run *run, zi_channel_affine *affine, const double *sums, int parts, int64_t groups,
                                 int64_t count, const zi_weight *w, const zi_weight *b, float eps)
{
    zi_cuda *cuda = zi_cuda_begin(run);
    zi_cuda_fold_args args = {.sums = sums,
                              .parts = parts,
                              .channels = zi_tensor_count(&affine->scale),
                              .groups = groups,
                              .count = count,
                              .eps = eps};
    ZI_TRY(zi_cuda_vector(cuda, w, &args.w));
    ZI_TRY(zi_cuda_vector(cuda, b, &args.b));
    return ZI_CUDA_RUN(
        cuda, zi_cuda_group_fold(zi_cuda_data(&affine->scale), zi_cuda_data(&affine->shift), &args, cuda->stream),
        "a group norm");
}

static zimage_status cuda_group_norm_fold(zi_run *run, zi_channel_affine *affine, const zi_tensor *sums, int64_t count,
                                          const zi_weight *w, const zi_weight *b, float eps)
{
    return zi_cuda_fold_parts(run, affine, zi_cuda_data(sums), 1, sums->shape[0], count, w, b, eps);
}

static zimage_status cuda_channel_affine(zi_run *run, zi_tensor *y, const zi_tensor *x, const zi_channel_affine *affine)
{
    zi_cuda *cuda = zi_cuda_begin(run);
    int64_t channels = zi_features(x);
    assert(zi_tensor_count(y) == zi_tensor_count(x) && y->dtype == x->dtype && is_dense(y, x));
    return ZI_CUDA_RUN(
        cuda,
        zi_cuda_channel_affine(x->dtype, zi_cuda_data(y), zi_cuda_data(x), zi_cuda_factor(&affine->scale, channels),
                               zi_cuda_factor(&affine->shift, channels), zi_row_count(x), channels, cuda->stream),
        "a scale and a shift");
}

/* ---- the table --------------------------------------------------------------------------------------------------- */

static size_t cuda_peak_bytes(const zi_ops *ops)
{
    return zi_cuda_state(ops)->stack.peak;
}

static zimage_status cuda_exchange_seconds(zi_run *run, size_t bytes, double *seconds)
{
    *seconds = 0;
    return ZIMAGE_OK;
}

static size_t cuda_whole_image_bytes(const zi_ops *ops)
{
    return zi_cuda_state(ops)->whole_image;
}

/* A batch copies streamed weights once. Beside that, it is faster only where the products of one pass are small. */
static zi_batch cuda_suits_batch(const zi_ops *ops, int64_t fewest, int64_t most)
{
    return most <= MOST_BATCHED ? ZI_BATCH_ALWAYS : ZI_BATCH_STREAMED;
}

/* Each operation is a few kernels, which are queued at once. */
static zi_graph_info cuda_graph_info(zi_ops *ops)
{
    return (zi_graph_info){0};
}

static size_t cuda_device_bytes(zi_ops *ops)
{
    size_t left = 0, all = 0;
    zi_cuda_make_current(zi_cuda_state(ops));
    return cudaMemGetInfo(&left, &all) == cudaSuccess ? all - left : 0;
}

/* Without the GPU's number: another GPU of the model computes the same. */
static void cuda_describe(const zi_ops *ops, char *text, size_t size)
{
    const zi_cuda *cuda = zi_cuda_state(ops);
    snprintf(text, size, "cuda %s %s", cuda->fp8 ? "fp8" : cuda->type == ZI_BF16 ? "bf16" : "f32", cuda->name);
}

static zimage_status cuda_forget_weights(zi_run *run)
{
    zi_cuda *cuda = zi_cuda_enter(run);
    ZI_CUDA_TRY(cuda, cudaStreamSynchronize(cuda->stream), "the work on the GPU");
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
    zi_choices_close(&cuda->choices);
    free(cuda->names);
    free(cuda);
}

static const zi_ops_table cuda_table = {
    .name = "cuda",
    .memory = ZI_MEMORY_DEVICE,
    .alloc = cuda_alloc,
    .alloc_f32 = cuda_alloc_f32,
    .alloc_operand = zi_cuda_op_alloc_operand,
    .alloc_operand_parts = zi_cuda_op_alloc_operand_parts,
    .mark = cuda_mark,
    .release = cuda_release,
    .upload = cuda_upload,
    .download = cuda_download,
    .download_rgb8 = cuda_download_rgb8,
    .copy = cuda_copy,
    .embed_rows = cuda_embed_rows,
    .linear = zi_cuda_op_linear,
    .linears = zi_cuda_op_linears,
    .linear_glu = zi_cuda_op_linear_glu,
    .silu = cuda_silu,
    .norm = zi_cuda_op_norm,
    .residual = zi_cuda_op_residual,
    .rope_table = cuda_rope_table,
    .qk_norm_rope = cuda_qk_norm_rope,
    .attention = zi_cuda_op_attention,
    .modulation = cuda_modulation,
    .patchify = cuda_patchify,
    .unpatchify = cuda_unpatchify,
    .conv2d = zi_cuda_op_conv2d,
    .group_norm_sums = cuda_group_norm_sums,
    .group_norm_fold = cuda_group_norm_fold,
    .channel_affine = cuda_channel_affine,
    .check_finite = zi_cuda_op_check_finite,
    .name_check = zi_cuda_op_name_check,
    .finish = zi_cuda_op_finish,
    .repeat = zi_cuda_op_repeat,
    .rehearse_begin = zi_cuda_op_rehearse_begin,
    .rehearse_stage = zi_cuda_op_rehearse_stage,
    .rehearse_end = zi_cuda_op_rehearse_end,
    .arrange = zi_cuda_op_arrange,
    .forget_weights = cuda_forget_weights,
    .describe = cuda_describe,
    .peak_rate = zi_cuda_peak_rate,
    .exchange_seconds = cuda_exchange_seconds,
    .peak_bytes = cuda_peak_bytes,
    .device_bytes = cuda_device_bytes,
    .whole_image_bytes = cuda_whole_image_bytes,
    .suits_batch = cuda_suits_batch,
    .graph_info = cuda_graph_info,
    .free = cuda_free,
};

/* ---- opening ----------------------------------------------------------------------------------------------------- */

static zimage_status open_buffers(zi_cuda *cuda)
{
    cuda->names = calloc(ZI_CHECKS, sizeof(*cuda->names));
    if (cuda->names == NULL)
        return zi_fail_memory(cuda->error, "names of blocks", ZI_CHECKS * sizeof(*cuda->names));
    ZI_TRY(zi_cuda_memory(cuda, ZI_WORKSPACE_BYTES, "a workspace", &cuda->workspace));
    ZI_TRY(zi_cuda_memory(cuda, ZI_CHECKS * sizeof(int), "flags", (void **)&cuda->flags));
    ZI_CUDA_TRY(cuda, cudaMallocHost((void **)&cuda->host_flags, ZI_CHECKS * sizeof(int)), "allocating pinned memory");
    ZI_TRY(zi_cuda_staging_open(cuda));
    return zi_cuda_residency_open(cuda);
}

static zimage_status open_uploader(zi_cuda *cuda, const zi_cuda_options *options)
{
    cudaError_t code;
    int threads = options->upload_threads < 1                    ? 1
                  : options->upload_threads < UPLOAD_THREADS_MAX ? options->upload_threads
                                                                 : UPLOAD_THREADS_MAX;
    if (zi_uploader_open(&cuda->uploader, options->device, threads, options->upload_piece, &code))
        return ZIMAGE_OK;
    ZI_TRY(zi_cuda_result(cuda, code, "preparing to copy weights"));
    return zi_fail(cuda->error, ZIMAGE_ERROR_INTERNAL, "cuda:%d: threads that copy weights can't be started",
                   cuda->device);
}

static zimage_status open_cudnn(zi_cuda *cuda)
{
    cudnnStatus_t status = cudnnCreate(&cuda->dnn);
    if (status == CUDNN_STATUS_SUCCESS)
        status = cudnnSetStream(cuda->dnn, cuda->stream);
    if (status == CUDNN_STATUS_SUCCESS)
        return ZIMAGE_OK;
    return zi_fail(cuda->error, ZIMAGE_ERROR_UNSUPPORTED, "cuda:%d: cuDNN can't be used: %s", cuda->device,
                   cudnnGetErrorString(status));
}

static void open_choices(zi_cuda *cuda, const zi_cuda_options *options, const struct cudaDeviceProp *gpu)
{
    char header[256];
    int driver = 0;
    (void)cudaDriverGetVersion(&driver);
    snprintf(header, sizeof(header),
             "zimage-cuda %d, %.80s, %d.%d, %d multiprocessors, driver %d, cuBLASLt %zu, cuDNN %zu", ZI_CUDA_ABI,
             gpu->name, gpu->major, gpu->minor, gpu->multiProcessorCount, driver, cublasLtGetVersion(),
             cuda->dnn != NULL ? cudnnGetVersion() : 0);
    zi_choices_open(&cuda->choices, options->cache, "cuda", header);
}

static zimage_status open_gpu(zi_cuda *cuda, const zi_cuda_options *options)
{
    struct cudaDeviceProp properties = {.major = 0};
    ZI_CUDA_TRY(cuda, cudaSetDevice(options->device), "choosing the GPU");
    ZI_CUDA_TRY(cuda, cudaGetDeviceProperties(&properties, options->device), "asking for the GPU's properties");
    if (cuda->fp8 && (properties.major != 9 || properties.minor != 0))
        return zi_fail(
            cuda->error, ZIMAGE_ERROR_UNSUPPORTED,
            "compute: fp8 on cuda:%d of compute capability %d.%d, expected 9.0: cuBLASLt scales rows only there",
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
    cuda->limit = zi_cuda_limit(cuda, 0);
    cuda->whole_image = cuda->limit / WHOLE_SHARE;
    return ZIMAGE_OK;
}

#define GPUS_MAX 64

/* ZIMAGE_ERROR_UNSUPPORTED with the reason if that GPU can't be used. */
static zimage_status check_gpu(int index, zimage_error *error)
{
    zi_cuda_device devices[GPUS_MAX];
    int count;
    ZI_TRY(zi_cuda_devices(devices, GPUS_MAX, &count, error));
    if (index < 0 || index >= count || index >= GPUS_MAX)
        return zi_fail(error, ZIMAGE_ERROR_ARGUMENT,
                       "device: \"cuda:%d\", expected a number below %d: there %s %d GPU%s", index, count,
                       count == 1 ? "is" : "are", count, count == 1 ? "" : "s");
    if (*devices[index].fault)
        return zi_fail(error, ZIMAGE_ERROR_UNSUPPORTED, "cuda:%d (%s) can't be used: %s", index, devices[index].name,
                       devices[index].fault);
    return ZIMAGE_OK;
}

zimage_status zi_ops_cuda_new(const zi_cuda_options *options, zi_ops **ops, zimage_error *error)
{
    *ops = NULL;
    if (options->compute == ZIMAGE_COMPUTE_INT8)
        return zi_fail(error, ZIMAGE_ERROR_ARGUMENT, "compute: int8, expected f32, bf16 or fp8 on a GPU");
    if (options->devices != NULL)
        return zi_cards_new(options, ops, error);
    ZI_TRY(check_gpu(options->device, error));
    zi_cuda *cuda = calloc(1, sizeof(*cuda));
    if (cuda == NULL)
        return zi_fail_memory(error, "the operations table", sizeof(*cuda));
    cuda->ops.table = &cuda_table;
    cuda->error = error;
    cuda->device = options->device;
    cuda->asked = options->memory;
    cuda->type = options->compute == ZIMAGE_COMPUTE_F32 ? ZI_F32 : ZI_BF16;
    cuda->fp8 = options->compute == ZIMAGE_COMPUTE_FP8;
    zimage_status status = open_gpu(cuda, options);
    cuda->error = NULL;
    if (status != ZIMAGE_OK) {
        cuda_free(&cuda->ops);
        return status;
    }
    *ops = &cuda->ops;
    return ZIMAGE_OK;
}
