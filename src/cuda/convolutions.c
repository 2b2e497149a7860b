/*
 * Convolutions of bands. First the input is made whole: norm, SiLU, doubling, zero rows. Then a convolution with few
 * outputs is one matrix product and a sum; every other one is cuDNN's or our own kernel's.
 */
#include <assert.h>

#include "cuda/entries.h"
#include "cuda/graphs.h"
#include "cuda/products.h"
#include "cuda/residency.h"
#include "ops/shapes.h"

#define FEW_OUTPUTS 8 /* at most: cuDNN has no fast convolution for them */
#ifndef TAPS_BYTES
#define TAPS_BYTES (16 << 20) /* of products at a time: the GPU's L2 cache holds them; on the emulated GPU fewer */
#endif

/* The rows that the convolution reads: x's own where nothing is to be done to them, else made on the stack. */
static zimage_status make_input(zi_cuda *cuda, const zi_tensor *y, const zi_tensor *x, const zi_conv *conv,
                                void **input)
{
    int64_t side = conv->weight->shape[2];
    const zi_cuda_band band = {.x = zi_cuda_data(x),
                               .x_row = conv->x_row,
                               .image_rows = conv->image_rows,
                               .columns = x->shape[1],
                               .channels = x->shape[2],
                               .doubled = conv->upsample,
                               .scale = conv->affine != NULL ? zi_cuda_data(&conv->affine->scale) : NULL,
                               .shift = conv->affine != NULL ? zi_cuda_data(&conv->affine->shift) : NULL,
                               .first = conv->y_row * conv->stride - conv->pad_top,
                               .rows = (y->shape[0] - 1) * conv->stride + side};
    int inside = band.first >= conv->x_row && band.first + band.rows <= conv->x_row + x->shape[0];
    if (conv->affine == NULL && !conv->upsample && inside) {
        *input = zi_cuda_at(zi_cuda_data(x), x->dtype, (band.first - conv->x_row) * x->shape[1] * x->shape[2]);
        return ZIMAGE_OK;
    }
    size_t bytes = (size_t)(band.rows * (x->shape[1] << conv->upsample) * x->shape[2]) * zi_dtype_size(x->dtype);
    ZI_TRY(zi_cuda_stack_alloc(cuda, bytes, "a convolution's input", input));
    return ZI_CUDA_RUN(cuda, zi_cuda_band_input(x->dtype, *input, &band, cuda->stream), "a convolution's input");
}

/* Rows of the filter as a matrix [outputs x taps, in]: its outputs are padded to a multiple of 8. */
static int64_t filter_rows(const zi_cuda_conv *c)
{
    return (c->out * c->side * c->side + 7) / 8 * 8;
}

/* Some rows of y: products of each row of the filter with each pixel of x, [filter rows][pixels], then sums over the
 * taps. Eight parameters: the rows' own type and address beside those of the whole image. */
static zimage_status few_rows(zi_cuda *cuda, zi_dtype y_type, void *y, const void *x, const void *filter,
                              const zi_cuda_conv *c, float *products, int64_t step)
{
    const zi_cuda_product p = {.rows = filter_rows(c),
                               .out = (c->rows + c->side - 1) * c->columns,
                               .in = c->in,
                               .type = cuda->type,
                               .y_type = ZI_F32,
                               .ldy = step};
    ZI_TRY(zi_cuda_multiply(cuda, &p, products, filter, x));
    return ZI_CUDA_RUN(cuda, zi_cuda_sum_taps(y_type, y, products, step, c, cuda->stream), "a convolution");
}

/* Whether few_outputs can do it: stride 1, and an output of the input's columns. */
static int is_few_outputs(const zi_cuda_conv *c)
{
    return c->out <= FEW_OUTPUTS && c->stride == 1 && c->left == c->side / 2 && c->x_columns == c->columns;
}

/* Equal parts of y's rows, each with at most TAPS_BYTES of products. */
static zimage_status few_outputs(zi_cuda *cuda, zi_tensor *y, const void *x, const void *filter, const zi_cuda_conv *c)
{
    int64_t bytes = c->columns * filter_rows(c) * (int64_t)sizeof(float);
    int64_t most = TAPS_BYTES / bytes > 0 ? TAPS_BYTES / bytes : 1, times = (c->rows + most - 1) / most;
    int64_t each = (c->rows + times - 1) / times, step = ((each + c->side - 1) * c->columns + 7) / 8 * 8;
    void *products;
    ZI_TRY(zi_cuda_stack_alloc(cuda, (size_t)(filter_rows(c) * step) * sizeof(float), "a convolution", &products));
    for (int64_t row = 0; row < c->rows; row += each) {
        zi_cuda_conv part = *c;
        part.rows = c->rows - row < each ? c->rows - row : each;
        ZI_TRY(few_rows(cuda, y->dtype, zi_cuda_at(zi_cuda_data(y), y->dtype, row * c->columns * c->out),
                        zi_cuda_at((void *)x, cuda->type, row * c->columns * c->in), filter, &part, products, step));
    }
    return ZIMAGE_OK;
}

static zimage_status convolve(zi_cuda *cuda, zi_tensor *y, const zi_tensor *x, const zi_conv *conv)
{
    void *input, *filter;
    const float *bias;
    int done = 0;
    ZI_TRY(zi_cuda_filter(cuda, conv->weight, &filter));
    ZI_TRY(zi_cuda_vector(cuda, conv->bias, &bias));
    ZI_TRY(make_input(cuda, y, x, conv, &input));
    const zi_cuda_conv sizes = {.rows = y->shape[0],
                                .columns = y->shape[1],
                                .in = x->shape[2],
                                .out = y->shape[2],
                                .side = conv->weight->shape[2],
                                .x_columns = x->shape[1] << conv->upsample,
                                .stride = conv->stride,
                                .left = conv->pad_left,
                                .bias = bias,
                                .accumulate = conv->accumulate};
    if (is_few_outputs(&sizes))
        return few_outputs(cuda, y, input, filter, &sizes);
    ZI_TRY(zi_cuda_graph_conv(cuda, y, input, filter, &sizes, &done));
    if (done)
        return ZIMAGE_OK;
    return ZI_CUDA_RUN(cuda, zi_cuda_conv_any(y->dtype, zi_cuda_data(y), x->dtype, input, filter, &sizes, cuda->stream),
                       "a convolution");
}

zimage_status zi_cuda_op_conv2d(zi_run *run, zi_tensor *y, const zi_tensor *x, const zi_conv *conv)
{
    zi_cuda *cuda = zi_cuda_begin(run);
    zi_check_conv(y, x, conv);
    assert(x->dtype == cuda->type && zi_tensor_is_dense(x) && zi_tensor_is_dense(y));
    zi_arena_mark mark = zi_cuda_mark(cuda);
    zimage_status status = convolve(cuda, y, x, conv);
    zi_cuda_release(cuda, mark);
    return status;
}
