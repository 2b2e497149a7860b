/* Linear layers: gets weights and activations in the type of the product, and multiplies. */
#include <assert.h>

#include "base/choices.h"
#include "cuda/entries.h"
#include "cuda/internal.h"
#include "cuda/operand.h"
#include "cuda/products.h"
#include "cuda/residency.h"
#include "cuda/timing.h"
#include "ops/shapes.h"

/* The activations of one or more products, as they are (plain or an fp8 operand) and, once a product needs it, in the
 * other form too. */
typedef struct input {
    const zi_tensor *x;
    zi_tensor plain;     /* data NULL: not made */
    zi_cuda_rows8 rows8; /* data NULL: not made */
} input;

static input input_of(const zi_tensor *x)
{
    if (x->dtype == ZI_OPERAND)
        return (input){.x = x, .rows8 = zi_cuda_rows8_of(x)};
    return (input){.x = x, .plain = *x};
}

static zimage_status copy(zi_cuda *cuda, const zi_tensor *y, const zi_tensor *x)
{
    return ZI_CUDA_RUN(cuda,
                       zi_cuda_copy_rows(y->dtype, zi_cuda_data(y), y->ld, x->dtype, zi_cuda_data(x), x->ld,
                                         zi_row_count(x), zi_features(x), cuda->stream),
                       "copying a view");
}

#define VECTOR_BYTES 16 /* of the memory accesses of kernels for fp8 */

/* Whether every row begins at a multiple of VECTOR_BYTES; a view of columns may not. */
static int is_aligned(const zi_tensor *x)
{
    size_t size = zi_dtype_size(x->dtype);
    return zi_tensor_is_dense(x) || ((uintptr_t)zi_cuda_data(x) | (uintptr_t)x->ld * size) % VECTOR_BYTES == 0;
}

static zimage_status need_fp8(zi_cuda *cuda, input *x)
{
    if (x->rows8.data != NULL)
        return ZIMAGE_OK;
    size_t rows = (size_t)zi_row_count(x->x);
    if (!is_aligned(&x->plain)) {
        zi_tensor dense;
        ZI_TRY(zi_cuda_tensor_alloc(cuda, &dense, x->plain.dtype, x->plain.dims, x->plain.shape));
        ZI_TRY(copy(cuda, &dense, &x->plain));
        x->plain = dense;
    }
    ZI_TRY(zi_cuda_stack_alloc(cuda, rows * sizeof(float), "scales", (void **)&x->rows8.scales));
    ZI_TRY(zi_cuda_stack_alloc(cuda, (size_t)zi_tensor_count(x->x), "activations in fp8", &x->rows8.data));
    return zi_cuda_quantise(cuda, &x->plain, x->rows8);
}

static zimage_status need_plain(zi_cuda *cuda, input *x)
{
    return x->plain.data != NULL ? ZIMAGE_OK : zi_cuda_plain(cuda, x->x, &x->plain);
}

/* Gets the operands of a product: x, and as w the matrix a, or a's rows followed by b's. Fills p's scales and ldx. */
static zimage_status operands(zi_cuda *cuda, zi_cuda_product *p, input *x, const zi_weight *a, const zi_weight *b,
                              const void **x_data, const void **w_data)
{
    if (zi_cuda_is_fp8(cuda, a) && (b == NULL || zi_cuda_is_fp8(cuda, b))) {
        zi_cuda_rows8 w;
        ZI_TRY(need_fp8(cuda, x));
        ZI_TRY(zi_cuda_fp8(cuda, a, b, &w));
        p->x_scales = x->rows8.scales;
        p->w_scales = w.scales;
        *x_data = x->rows8.data;
        *w_data = w.data;
        return ZIMAGE_OK;
    }
    void *w;
    ZI_TRY(need_plain(cuda, x));
    ZI_TRY(b != NULL ? zi_cuda_pair(cuda, a, b, &w) : zi_cuda_matrix(cuda, a, &w));
    p->ldx = x->plain.ld;
    *x_data = zi_cuda_data(&x->plain);
    *w_data = w;
    return ZIMAGE_OK;
}

/* ---- packed weights ---------------------------------------------------------------------------------------------- */

/* y[i] = x w[i]^T, or if gated y[0] = silu(x w[0]^T) * (x w[1]^T), each by one kernel that unpacks 4-bit weights. */
typedef struct packed {
    zi_cuda *cuda;
    const zi_tensor *y, *x;
    const zi_weight *const *w;
    int count, gated; /* of w */
} packed;

static int outputs_of(const packed *p)
{
    return p->gated ? 1 : p->count;
}

/* All but the weights' addresses. */
static zi_cuda_packed_args packed_args_of(const packed *p, int i)
{
    return (zi_cuda_packed_args){.y = zi_cuda_data(&p->y[i]),
                                 .x = zi_cuda_data(p->x),
                                 .gated = p->gated,
                                 .group = (int)p->w[i]->group,
                                 .rows = zi_row_count(p->x),
                                 .out = p->w[i]->shape[0],
                                 .in = p->w[i]->shape[1],
                                 .ldy = p->y[i].ld,
                                 .ldx = p->x->ld};
}

/* Whether the kernel can compute all of it, and is faster. */
static int packed_fits(const packed *p)
{
    int fits = p->cuda->type == ZI_BF16 && p->x->dtype == ZI_BF16;
    for (int i = 0; i < p->count; i++) {
        const zi_weight *w = p->w[i];
        fits &= w->dtype == ZI_GROUPED && w->bits == 4 && w->scale_dtype == ZI_BF16 && w->group == p->w[0]->group &&
                !zi_cuda_is_fp8(p->cuda, w);
    }
    for (int i = 0; i < outputs_of(p) && fits; i++) {
        const zi_cuda_packed_args args = packed_args_of(p, i);
        fits = p->y[i].dtype == ZI_BF16 && zi_cuda_packed_fits(&args);
    }
    return fits;
}

static zimage_status multiply_packed(const packed *p)
{
    for (int i = 0; i < outputs_of(p); i++) {
        zi_cuda_packed_args args = packed_args_of(p, i);
        for (int j = 0; j <= p->gated; j++)
            ZI_TRY(zi_cuda_groups_in(p->cuda, p->w[i + j], &args.w[j]));
        ZI_CUDA_TRY(p->cuda, zi_cuda_packed(&args, p->cuda->stream), "a product with packed weights");
    }
    return ZIMAGE_OK;
}

/* Computes it by the kernel if that is there for it and faster; *done: whether it did. */
static zimage_status try_packed(const packed *p, int *done)
{
    *done = !p->cuda->ops.rehearsing && packed_fits(p);
    return *done ? multiply_packed(p) : ZIMAGE_OK;
}

/* ---- one product ------------------------------------------------------------------------------------------------- */

/* y (+)= x w^T (+ bias, of y's type), from unpacked weights. */
static zimage_status multiply_dense(zi_cuda *cuda, const zi_tensor *y, input *x, const zi_weight *w, const void *bias,
                                    int accumulate)
{
    zi_cuda_product p = {.rows = zi_row_count(x->x),
                         .out = w->shape[0],
                         .in = w->shape[1],
                         .type = cuda->type,
                         .y_type = y->dtype,
                         .ldy = y->ld,
                         .accumulate = accumulate,
                         .bias = bias};
    const void *x_data, *w_data;
    ZI_TRY(operands(cuda, &p, x, w, NULL, &x_data, &w_data));
    return zi_cuda_multiply(cuda, &p, zi_cuda_data(y), x_data, w_data);
}

/* The same from any weights. */
static zimage_status multiply(zi_cuda *cuda, const zi_tensor *y, input *x, const zi_weight *w, const void *bias,
                              int accumulate)
{
    const packed p = {.cuda = cuda, .y = y, .x = x->x, .w = &w, .count = 1};
    int done = 0;
    if (bias == NULL && !accumulate)
        ZI_TRY(try_packed(&p, &done));
    return done ? ZIMAGE_OK : multiply_dense(cuda, y, x, w, bias, accumulate);
}

/* Float32 activations, whatever the compute type is: one vector or a few. */
static zimage_status multiply_exact(zi_cuda *cuda, zi_tensor *y, const zi_tensor *x, const zi_weight *w,
                                    const float *bias, int accumulate)
{
    void *weights;
    ZI_TRY(zi_cuda_matrix(cuda, w, &weights));
    return ZI_CUDA_RUN(cuda,
                       zi_cuda_few(y->dtype, zi_cuda_data(y), y->ld, zi_cuda_data(x), x->ld, cuda->type, weights, bias,
                                   accumulate, zi_row_count(x), zi_features(y), zi_features(x), cuda->stream),
                       "a product of few rows");
}

/* Converts a float32 bias, which may be NULL, to y's type. */
static zimage_status bias_of(zi_cuda *cuda, const zi_tensor *y, const void **bias)
{
    const void *stored = *bias;
    void *converted;
    if (stored == NULL || y->dtype == ZI_F32)
        return ZIMAGE_OK;
    ZI_TRY(zi_cuda_stack_alloc(cuda, (size_t)zi_features(y) * zi_dtype_size(y->dtype), "a bias", &converted));
    *bias = converted;
    return ZI_CUDA_RUN(cuda, zi_cuda_convert(y->dtype, converted, ZI_F32, stored, zi_features(y), cuda->stream),
                       "a bias");
}

/* y (+)= bias, then y += x w^T. In bf16 the result is rounded twice. y: dense. */
static zimage_status multiply_after_bias(zi_cuda *cuda, const zi_tensor *y, input *x, const zi_weight *w,
                                         const float *bias, int accumulate)
{
    ZI_CUDA_TRY(cuda,
                zi_cuda_add_bias(y->dtype, zi_cuda_data(y), NULL, bias, accumulate, zi_row_count(y), zi_features(y),
                                 cuda->stream),
                "adding a bias");
    return multiply(cuda, y, x, w, NULL, 1);
}

/* y (+)= x w^T (+ bias), computed in a dense copy of y, which is a view of columns. */
static zimage_status linear_into_view(zi_cuda *cuda, const zi_tensor *y, input *x, const zi_weight *w,
                                      const float *bias, int accumulate)
{
    zi_tensor dense;
    ZI_TRY(zi_cuda_tensor_alloc(cuda, &dense, y->dtype, y->dims, y->shape));
    if (accumulate)
        ZI_TRY(copy(cuda, &dense, y));
    if (bias != NULL)
        ZI_TRY(multiply_after_bias(cuda, &dense, x, w, bias, accumulate));
    else
        ZI_TRY(multiply(cuda, &dense, x, w, NULL, accumulate));
    return copy(cuda, y, &dense);
}

static zimage_status linear(zi_cuda *cuda, zi_tensor *y, input *x, const zi_weight *w, const zi_weight *bias,
                            int accumulate)
{
    const float *b;
    assert(w->shape[0] == zi_features(y) && w->shape[1] == zi_features(x->x));
    assert(zi_row_count(x->x) == zi_row_count(y));
    ZI_TRY(zi_cuda_vector(cuda, bias, &b));
    if (x->x->dtype == ZI_F32 && cuda->type != ZI_F32)
        return multiply_exact(cuda, y, x->x, w, b, accumulate);
    if (zi_cuda_is_fp8(cuda, w) && !is_aligned(y))
        return linear_into_view(cuda, y, x, w, b, accumulate);
    if (b == NULL || (!accumulate && !zi_cuda_is_fp8(cuda, w))) {
        const void *of_type = b;
        ZI_TRY(bias_of(cuda, y, &of_type));
        return multiply(cuda, y, x, w, of_type, accumulate);
    }
    if (!zi_tensor_is_dense(y))
        return linear_into_view(cuda, y, x, w, b, accumulate);
    return multiply_after_bias(cuda, y, x, w, b, accumulate);
}

zimage_status zi_cuda_op_linear(zi_run *run, zi_tensor *y, const zi_tensor *x, const zi_weight *weight,
                                const zi_weight *bias, int accumulate)
{
    zi_cuda *cuda = zi_cuda_begin(run);
    zi_arena_mark mark = zi_cuda_mark(cuda);
    input in = input_of(x);
    zimage_status status = linear(cuda, y, &in, weight, bias, accumulate);
    zi_cuda_release(cuda, mark);
    return status;
}

/* The bytes from each buffer to the next if all are as far apart, else 0. They are where they were allocated in
 * succession, and so are views of the same rows of such buffers. */
static size_t even_step(void *const *data, int count)
{
    uintptr_t step = count > 1 ? (uintptr_t)data[1] - (uintptr_t)data[0] : 0;
    for (int i = 1; i < count; i++)
        if ((uintptr_t)data[i] - (uintptr_t)data[i - 1] != step)
            return 0;
    return step <= PTRDIFF_MAX ? step : 0;
}

/* Products with matrices of one size: one batch where weights and results are consecutive, which keeps more of the GPU
 * busy. */
static zimage_status multiply_all(zi_cuda *cuda, int count, const zi_tensor *y, const zi_tensor *x,
                                  const zi_weight *const *weights)
{
    void *w[ZI_LINEARS_MAX] = {NULL}, *results[ZI_LINEARS_MAX] = {NULL};
    zi_cuda_product p = {.rows = zi_row_count(x),
                         .out = weights[0]->shape[0],
                         .in = weights[0]->shape[1],
                         .type = cuda->type,
                         .y_type = y->dtype,
                         .ldx = x->ld};
    size_t w_bytes = (size_t)zi_weight_count(weights[0]) * zi_dtype_size(cuda->type);
    size_t y_bytes = (size_t)zi_tensor_count(y) * zi_dtype_size(y->dtype);
    int dense = 1;
    for (int i = 0; i < count; i++) {
        ZI_TRY(zi_cuda_matrix(cuda, weights[i], &w[i]));
        results[i] = zi_cuda_data(&y[i]);
        dense &= zi_tensor_is_dense(&y[i]);
    }
    size_t step_w = even_step(w, count), step_y = even_step(results, count);
    int in_a_row = step_w == zi_cuda_round_up(w_bytes) && step_y >= y_bytes && step_y % VECTOR_BYTES == 0 &&
                   zi_cuda_stack_joins(cuda, results[0], results[count - 1]);
    if (dense && (cuda->ops.rehearsing || in_a_row)) {
        p.batch = count;
        p.step_w = (int64_t)(zi_cuda_round_up(w_bytes) / zi_dtype_size(cuda->type));
        p.step_y = (int64_t)(step_y / zi_dtype_size(y->dtype));
        return zi_cuda_multiply(cuda, &p, results[0], zi_cuda_data(x), w[0]);
    }
    for (int i = 0; i < count; i++) {
        p.ldy = y[i].ld;
        ZI_TRY(zi_cuda_multiply(cuda, &p, results[i], zi_cuda_data(x), w[i]));
    }
    return ZIMAGE_OK;
}

/* Whether multiply_all can compute these. */
static int are_alike(const zi_cuda *cuda, int count, const zi_tensor *y, const zi_tensor *x,
                     const zi_weight *const *weights)
{
    int alike = x->dtype == cuda->type;
    assert(count >= 1 && count <= ZI_LINEARS_MAX);
    for (int i = 0; i < count; i++)
        alike &= !zi_cuda_is_fp8(cuda, weights[i]) && weights[i]->shape[0] == weights[0]->shape[0] &&
                 weights[i]->shape[1] == zi_features(x) && zi_features(&y[i]) == weights[0]->shape[0] &&
                 zi_row_count(&y[i]) == zi_row_count(x) && y[i].dtype == y[0].dtype;
    return alike;
}

static zimage_status linears(zi_cuda *cuda, int count, zi_tensor *y, const zi_tensor *x,
                             const zi_weight *const *weights)
{
    input in = input_of(x);
    if (are_alike(cuda, count, y, x, weights)) {
        const packed p = {.cuda = cuda, .y = y, .x = x, .w = weights, .count = count};
        int done;
        ZI_TRY(try_packed(&p, &done));
        return done ? ZIMAGE_OK : multiply_all(cuda, count, y, x, weights);
    }
    for (int i = 0; i < count; i++) /* first, so that it stays on the stack until the last product */
        ZI_TRY(zi_cuda_is_fp8(cuda, weights[i]) ? need_fp8(cuda, &in) : need_plain(cuda, &in));
    for (int i = 0; i < count; i++) {
        zi_arena_mark mark = zi_cuda_mark(cuda);
        ZI_TRY(linear(cuda, &y[i], &in, weights[i], NULL, 0));
        zi_cuda_release(cuda, mark);
    }
    return ZIMAGE_OK;
}

zimage_status zi_cuda_op_linears(zi_run *run, int count, zi_tensor *y, const zi_tensor *x,
                                 const zi_weight *const *weights)
{
    zi_cuda *cuda = zi_cuda_begin(run);
    zi_arena_mark mark = zi_cuda_mark(cuda);
    zimage_status status = linears(cuda, count, y, x, weights);
    zi_cuda_release(cuda, mark);
    return status;
}

/* ---- gated products ---------------------------------------------------------------------------------------------- */

/* y = silu(x w1^T) * (x w3^T) */
typedef struct gated {
    zi_cuda *cuda;
    const zi_tensor *y;
    zi_cuda_product product; /* w: w1's rows followed by w3's */
    const void *x, *w;
    void *both; /* scratch for the product */
} gated;

static zimage_status multiply_then_gate(const void *user)
{
    const gated *g = user;
    const zi_cuda_product *p = &g->product;
    zi_cuda *cuda = g->cuda;
    ZI_TRY(zi_cuda_multiply(cuda, p, g->both, g->x, g->w));
    if (g->y->dtype == ZI_OPERAND)
        return ZI_CUDA_RUN(
            cuda, zi_cuda_glu_fp8(zi_cuda_rows8_of(g->y), cuda->type, g->both, p->rows, p->out / 2, cuda->stream),
            "a gate");
    return ZI_CUDA_RUN(
        cuda, zi_cuda_glu(g->y->dtype, zi_cuda_data(g->y), g->y->ld, g->both, p->rows, p->out / 2, cuda->stream),
        "a gate");
}

/* The results for an fp8 operand are bf16 in `both` first. */
static zi_cuda_gated_args gated_args_of(const gated *g)
{
    const zi_cuda_product *p = &g->product;
    int operand = g->y->dtype == ZI_OPERAND;
    return (zi_cuda_gated_args){.y = operand ? g->both : zi_cuda_data(g->y),
                                .x = g->x,
                                .w = g->w,
                                .x_scales = p->x_scales,
                                .w_scales = p->w_scales,
                                .rows = p->rows,
                                .out = p->out / 2,
                                .in = p->in,
                                .ldy = operand ? p->out / 2 : g->y->ld,
                                .ldx = p->ldx ? p->ldx : p->in};
}

static zimage_status multiply_gated(const void *user)
{
    const gated *g = user;
    zi_cuda *cuda = g->cuda;
    const zi_cuda_gated_args args = gated_args_of(g);
    ZI_CUDA_TRY(cuda, zi_cuda_gated(&args, cuda->stream), "a gated product");
    if (g->y->dtype != ZI_OPERAND)
        return ZIMAGE_OK;
    return ZI_CUDA_RUN(
        cuda,
        zi_cuda_quantise_rows(zi_cuda_rows8_of(g->y), cuda->type, args.y, args.out, args.rows, args.out, cuda->stream),
        "quantising a gated product");
}

static int one_kernel_fits(const gated *g)
{
    zi_dtype type = g->y->dtype == ZI_OPERAND ? g->cuda->type : g->y->dtype;
    const zi_cuda_gated_args args = gated_args_of(g);
    return type == ZI_BF16 && g->product.type == ZI_BF16 && zi_cuda_gated_fits(&args);
}

/* Whether one kernel computes both products and the gate: it must exist for the sizes, and be faster. A large shape is
 * timed once. With the lock of the choices. */
static zimage_status choose_gated(const gated *g, int *one_kernel)
{
    const zi_cuda_product *p = &g->product;
    const int64_t key[5] = {p->rows, p->out, p->in, p->x_scales != NULL, g->y->dtype == ZI_OPERAND};
    float taken[2];
    int32_t chosen;
    *one_kernel = !g->cuda->ops.rehearsing && one_kernel_fits(g);
    if (!*one_kernel || !zi_cuda_is_timed(p))
        return ZIMAGE_OK;
    if (!zi_choices_recall(&g->cuda->choices, "gated", key, sizeof(key), &chosen, sizeof(chosen)) ||
        (chosen != 0 && chosen != 1)) {
        ZI_TRY(zi_cuda_time(g->cuda, multiply_then_gate, g, &taken[0]));
        ZI_TRY(zi_cuda_time(g->cuda, multiply_gated, g, &taken[1]));
        chosen = taken[1] < taken[0];
        zi_choices_remember(&g->cuda->choices, "gated", key, sizeof(key), &chosen, sizeof(chosen));
    }
    *one_kernel = chosen != 0;
    return ZIMAGE_OK;
}

static zimage_status glu_dense(zi_cuda *cuda, const zi_tensor *y, const zi_tensor *x, const zi_weight *w1,
                               const zi_weight *w3)
{
    gated g = {.cuda = cuda, .y = y};
    int64_t rows = zi_row_count(x), out = 2 * w1->shape[0];
    size_t bytes = (size_t)(rows * out) * zi_dtype_size(cuda->type);
    input in = input_of(x);
    int one_kernel;
    g.product =
        (zi_cuda_product){.rows = rows, .out = out, .in = w1->shape[1], .type = cuda->type, .y_type = cuda->type};
    ZI_TRY(zi_cuda_stack_alloc(cuda, bytes, "a gated product", &g.both));
    ZI_TRY(operands(cuda, &g.product, &in, w1, w3, &g.x, &g.w));
    zi_choices_lock(&cuda->choices);
    zimage_status status = choose_gated(&g, &one_kernel);
    zi_choices_unlock(&cuda->choices);
    if (status != ZIMAGE_OK)
        return status;
    return one_kernel ? multiply_gated(&g) : multiply_then_gate(&g);
}

static zimage_status glu(zi_cuda *cuda, zi_tensor *y, const zi_tensor *x, const zi_weight *w1, const zi_weight *w3)
{
    const zi_weight *const w[2] = {w1, w3};
    const packed p = {.cuda = cuda, .y = y, .x = x, .w = w, .count = 2, .gated = 1};
    int done;
    ZI_TRY(try_packed(&p, &done));
    return done ? ZIMAGE_OK : glu_dense(cuda, y, x, w1, w3);
}

zimage_status zi_cuda_op_linear_glu(zi_run *run, zi_tensor *y, const zi_tensor *x, const zi_weight *w1,
                                    const zi_weight *w3)
{
    zi_cuda *cuda = zi_cuda_begin(run);
    assert(w1->shape[0] == zi_features(y) && w1->shape[1] == zi_features(x));
    assert(w3->shape[0] == w1->shape[0] && w3->shape[1] == w1->shape[1]);
    zi_arena_mark mark = zi_cuda_mark(cuda);
    zimage_status status = glu(cuda, y, x, w1, w3);
    zi_cuda_release(cuda, mark);
    return status;
}
