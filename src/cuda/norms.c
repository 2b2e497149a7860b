/* Norms of rows, alone and behind a residual sum, into activations or into fp8 operands. */
#include <assert.h>

#include "cuda/checks.h"
#include "cuda/entries.h"
#include "cuda/internal.h"
#include "cuda/operand.h"
#include "cuda/residency.h"
#include "ops/shapes.h"

/* Where a kernel writes a norm: one of both has data. */
typedef struct norm_output {
    zi_tensor plain;
    zi_cuda_rows8 rows8;
} norm_output;

/* y may be NULL: nowhere. Rows of an fp8 operand that are too long for a block's threads go to a plain tensor first. */
static zimage_status norm_output_begin(zi_cuda *cuda, const zi_tensor *y, norm_output *output)
{
    *output = (norm_output){.plain = {.data = NULL}};
    if (y == NULL)
        return ZIMAGE_OK;
    if (y->dtype != ZI_OPERAND)
        output->plain = *y;
    else if (zi_cuda_row_fits(cuda->type, zi_features(y)))
        output->rows8 = zi_cuda_rows8_of(y);
    else
        return zi_cuda_stand_in(cuda, y, &output->plain);
    return ZIMAGE_OK;
}

static zimage_status norm_output_end(zi_cuda *cuda, const zi_tensor *y, const norm_output *output)
{
    if (y == NULL || y->dtype != ZI_OPERAND || output->plain.data == NULL)
        return ZIMAGE_OK;
    return zi_cuda_quantise(cuda, &output->plain, zi_cuda_rows8_of(y));
}

static zimage_status norm_arguments(zi_cuda *cuda, const zi_norm *norm, int64_t n, zi_cuda_norm_args *args)
{
    assert(norm->weight == NULL || zi_weight_count(norm->weight) == n);
    *args = (zi_cuda_norm_args){.layer = norm->kind == ZI_NORM_LAYER,
                                .eps = norm->eps,
                                .gain = zi_cuda_factor(norm->scale, n),
                                .shift = zi_cuda_factor(norm->shift, n)};
    return zi_cuda_vector(cuda, norm->weight, &args->w);
}

static zimage_status norm_rows(zi_cuda *cuda, const zi_tensor *y, const zi_tensor *x, const zi_cuda_norm_args *args)
{
    norm_output output;
    ZI_TRY(norm_output_begin(cuda, y, &output));
    ZI_CUDA_TRY(cuda,
                zi_cuda_norm(x->dtype, zi_cuda_data(&output.plain), output.rows8, zi_cuda_data(x), args,
                             zi_row_count(x), zi_features(x), cuda->stream),
                args->layer ? "a layer norm" : "an RMS norm");
    return norm_output_end(cuda, y, &output);
}

zimage_status zi_cuda_op_norm(zi_run *run, zi_tensor *y, const zi_tensor *x, const zi_norm *norm)
{
    zi_cuda *cuda = zi_cuda_begin(run);
    zi_cuda_norm_args args;
    assert(zi_tensor_count(y) == zi_tensor_count(x) && zi_tensor_is_dense(x) && zi_tensor_is_dense(y));
    ZI_TRY(norm_arguments(cuda, norm, zi_features(x), &args));
    zi_arena_mark mark = zi_cuda_mark(cuda);
    zimage_status status = norm_rows(cuda, y, x, &args);
    zi_cuda_release(cuda, mark);
    return status;
}

static zimage_status residual_rows(zi_cuda *cuda, zi_cuda_residual_args *args, const zi_tensor *x, const zi_tensor *h)
{
    norm_output output;
    ZI_TRY(norm_output_begin(cuda, h, &output));
    args->h = zi_cuda_data(&output.plain);
    args->h8 = output.rows8;
    ZI_CUDA_TRY(cuda, zi_cuda_residual(x->dtype, args, zi_row_count(x), zi_features(x), cuda->stream), "a residual");
    return norm_output_end(cuda, h, &output);
}

/* Vectors in the order of their use: the weight of post, then that of next. */
static zimage_status residual_arguments(zi_cuda *cuda, const zi_residual *residual, int64_t n,
                                        zi_cuda_residual_args *args)
{
    const zi_norm *post = residual->post;
    assert(post == NULL || (post->kind == ZI_NORM_RMS && post->shift == NULL));
    args->gate = zi_cuda_factor(residual->gate, n);
    args->post = post != NULL;
    args->gain = post != NULL ? zi_cuda_factor(post->scale, n) : NULL;
    args->eps = post != NULL ? post->eps : 0;
    ZI_TRY(zi_cuda_vector(cuda, post != NULL ? post->weight : NULL, &args->w));
    if (residual->next != NULL)
        ZI_TRY(norm_arguments(cuda, residual->next, n, &args->next));
    if (residual->finite == NULL)
        return ZIMAGE_OK;
    *residual->finite = 1;
    return zi_cuda_next_check(cuda, &args->not_finite);
}

zimage_status zi_cuda_op_residual(zi_run *run, zi_tensor *x, const zi_tensor *y, zi_tensor *h,
                                  const zi_residual *residual)
{
    zi_cuda *cuda = zi_cuda_begin(run);
    zi_cuda_residual_args args = {.x = zi_cuda_data(x), .y = zi_cuda_data(y)};
    assert(zi_tensor_count(y) == zi_tensor_count(x) && y->dtype == x->dtype);
    assert(zi_tensor_is_dense(x) && zi_tensor_is_dense(y) && (h == NULL || zi_tensor_is_dense(h)));
    assert((h == NULL) == (residual->next == NULL));
    ZI_TRY(residual_arguments(cuda, residual, zi_features(x), &args));
    zi_arena_mark mark = zi_cuda_mark(cuda);
    zimage_status status = residual_rows(cuda, &args, x, h);
    zi_cuda_release(cuda, mark);
    return status;
}
