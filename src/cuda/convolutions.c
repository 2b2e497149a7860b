/* Convolutions of bands: their input is made whole (norm, SiLU, doubling, zero rows), then cuDNN or the own kernel. */
#include <assert.h>

#include "cuda/graphs.h"

/* The input that is read: x itself where nothing is to be done to it, else made on the stack. */
static zimage_status make_input(zi_cuda *cuda, const zi_tensor *y, const zi_tensor *x, const zi_conv *conv,
                                void **input)
{
    int64_t side = conv->weight->shape[2];
    const zi_cuda_band band = {.x = x->data,
                               .x_row = conv->x_row,
                               .image_rows = conv->image_rows,
                               .columns = x->shape[1],
                               .channels = x->shape[2],
                               .doubled = conv->upsample,
                               .scale = conv->affine != NULL ? conv->affine->scale.data : NULL,
                               .shift = conv->affine != NULL ? conv->affine->shift.data : NULL,
                               .first = conv->y_row - side / 2,
                               .rows = y->shape[0] + side - 1};
    int inside = band.first >= conv->x_row && band.first + band.rows <= conv->x_row + x->shape[0];
    if (conv->affine == NULL && !conv->upsample && inside) {
        *input = zi_cuda_at(x->data, x->dtype, (band.first - conv->x_row) * x->shape[1] * x->shape[2]);
        return ZIMAGE_OK;
    }
    size_t bytes = (size_t)(band.rows * y->shape[1] * x->shape[2]) * zi_dtype_size(x->dtype);
    ZI_TRY(zi_cuda_stack_alloc(cuda, bytes, "a convolution's input", input));
    return ZI_CUDA_RUN(cuda, zi_cuda_band_input(x->dtype, *input, &band, cuda->stream), "a convolution's input");
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
                                .bias = bias,
                                .accumulate = conv->accumulate};
    ZI_TRY(zi_cuda_graph_conv(cuda, y, input, filter, &sizes, &done));
    if (done)
        return ZIMAGE_OK;
    return ZI_CUDA_RUN(cuda, zi_cuda_conv_any(y->dtype, y->data, x->dtype, input, filter, &sizes, cuda->stream),
                       "a convolution");
}

zimage_status zi_cuda_conv2d(zi_ops *ops, zi_tensor *y, const zi_tensor *x, const zi_conv *conv)
{
    zi_cuda *cuda = zi_cuda_of(ops);
    zi_check_conv(y, x, conv);
    assert(x->dtype == cuda->type);
    zi_arena_mark mark = zi_cuda_mark(ops);
    zimage_status status = convolve(cuda, y, x, conv);
    zi_cuda_release(ops, mark);
    return status;
}
