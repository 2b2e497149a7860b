/* What only linear layers read, in fp8 computation: e4m3 rows, written by the norms and gated products themselves. */
#include "cuda/operand.h"

#include <assert.h>

#include "cuda/entries.h"
#include "cuda/internal.h"
#include "ops/shapes.h"

#define FP8_MULTIPLE 16 /* of a product's sizes */

int zi_cuda_is_fp8(const zi_cuda *cuda, const zi_weight *w)
{
    return cuda->fp8 && !(w->precise & ZI_PRECISE_FP8) && w->shape[0] % FP8_MULTIPLE == 0 &&
           w->shape[1] % FP8_MULTIPLE == 0 && w->shape[1] <= ZI_CUDA_FP8_ROW_MAX;
}

/* In shape[2] an operand keeps the rows that were allocated: so rows of it know where its scales are. */
static size_t scales_place(const zi_tensor *operand)
{
    return zi_cuda_round_up((size_t)(operand->shape[2] * operand->shape[1]));
}

/* An ordinary activation unless products with w are computed in fp8. */
zimage_status zi_cuda_op_alloc_operand(zi_run *run, zi_tensor *x, int64_t rows, int64_t columns, const zi_weight *w)
{
    zi_cuda *cuda = zi_cuda_enter(run);
    const int64_t shape[2] = {rows, columns};
    assert(columns == w->shape[1]);
    if (!zi_cuda_is_fp8(cuda, w))
        return zi_cuda_tensor_alloc(cuda, x, cuda->type, 2, shape);
    *x = zi_tensor_describe(ZI_OPERAND, 2, shape);
    x->shape[2] = rows;
    return zi_cuda_stack_alloc(cuda, scales_place(x) + (size_t)rows * sizeof(float), "activations", &x->data);
}

/* An ordinary activation: the scale of a row in fp8 needs all of it, so that its reader quantises it. */
zimage_status zi_cuda_op_alloc_operand_parts(zi_run *run, zi_tensor *x, int64_t rows, int64_t columns,
                                             const zi_weight *w)
{
    zi_cuda *cuda = zi_cuda_enter(run);
    assert(columns == w->shape[1]);
    return zi_cuda_tensor_alloc(cuda, x, cuda->type, 2, (const int64_t[]){rows, columns});
}

zi_cuda_rows8 zi_cuda_rows8_of(const zi_tensor *operand)
{
    assert(operand->dtype == ZI_OPERAND);
    uint8_t *data = operand->data;
    float *scales = (float *)(void *)(data + scales_place(operand));
    return (zi_cuda_rows8){data + operand->offset, scales + operand->offset / operand->shape[1]};
}

zimage_status zi_cuda_stand_in(zi_cuda *cuda, const zi_tensor *operand, zi_tensor *plain)
{
    return zi_cuda_tensor_alloc(cuda, plain, cuda->type, operand->dims, operand->shape);
}

zimage_status zi_cuda_quantise(zi_cuda *cuda, const zi_tensor *plain, zi_cuda_rows8 rows)
{
    return ZI_CUDA_RUN(cuda,
                       zi_cuda_quantise_rows(rows, plain->dtype, zi_cuda_data(plain), plain->ld, zi_row_count(plain),
                                             zi_features(plain), cuda->stream),
                       "quantising activations");
}

zimage_status zi_cuda_plain(zi_cuda *cuda, const zi_tensor *operand, zi_tensor *plain)
{
    ZI_TRY(zi_cuda_stand_in(cuda, operand, plain));
    return ZI_CUDA_RUN(cuda,
                       zi_cuda_from_fp8(plain->dtype, zi_cuda_data(plain), zi_cuda_rows8_of(operand),
                                        zi_row_count(plain), zi_features(plain), cuda->stream),
                       "reading fp8");
}
