/* Matrix products by cuBLASLt: for each shape its candidates are timed once, on the operands of the first call. */
#include <assert.h>
#include <stdlib.h>
#include <string.h>

#include "cuda/internal.h"

#define CANDIDATES  8
#define TIMED_FLOPS 2e8 /* smaller products take the first candidate */
#define RUNS        3   /* of each candidate, behind one that warms */
#ifndef PEAK_SIDE
#define PEAK_SIDE 8192 /* the emulated card's is smaller */
#endif

/* What decides how a product is computed. Compared as bytes. */
typedef struct plan_key {
    zi_cuda_product product;
    int64_t fp8, biased;
    int64_t aligned[3]; /* of y, x, w: bytes that their addresses are multiples of, at most 256 */
} plan_key;

struct zi_cuda_plan {
    plan_key key;
    cublasLtMatmulDesc_t operation;
    cublasLtMatrixLayout_t w, x, y; /* columns first: y^T [out, rows] = w x^T */
    cublasLtMatmulAlgo_t algorithm;
};

zimage_status zi_cuda_check_blas(zi_cuda *cuda, cublasStatus_t code, const char *what)
{
    if (code == CUBLAS_STATUS_SUCCESS)
        return ZIMAGE_OK;
    return zi_fail(cuda->ops.error, ZIMAGE_ERROR_INTERNAL, "cuda:%d: %s failed: cuBLASLt status %d", cuda->device, what,
                   (int)code);
}

static void free_plan(zi_cuda_plan *plan)
{
    if (plan->operation != NULL)
        (void)cublasLtMatmulDescDestroy(plan->operation);
    const cublasLtMatrixLayout_t layouts[] = {plan->w, plan->x, plan->y};
    for (int i = 0; i < 3; i++)
        if (layouts[i] != NULL)
            (void)cublasLtMatrixLayoutDestroy(layouts[i]);
}

void zi_cuda_plans_free(zi_cuda *cuda)
{
    for (int i = 0; i < cuda->plan_count; i++)
        free_plan(&cuda->plans[i]);
    free(cuda->plans);
}

static cudaDataType_t type_of(zi_dtype type)
{
    return type == ZI_BF16 ? CUDA_R_16BF : CUDA_R_32F;
}

static cublasStatus_t set(cublasLtMatmulDesc_t operation, cublasLtMatmulDescAttributes_t name, const void *value,
                          size_t size)
{
    return cublasLtMatmulDescSetAttribute(operation, name, value, size);
}

/* A scale for each row of both operands. */
static cublasStatus_t describe_scales(cublasLtMatmulDesc_t operation)
{
    const int32_t mode = CUBLASLT_MATMUL_MATRIX_SCALE_OUTER_VEC_32F;
    const int8_t fast = 1;
    cublasStatus_t code = set(operation, CUBLASLT_MATMUL_DESC_A_SCALE_MODE, &mode, sizeof(mode));
    if (code == CUBLAS_STATUS_SUCCESS)
        code = set(operation, CUBLASLT_MATMUL_DESC_B_SCALE_MODE, &mode, sizeof(mode));
    if (code == CUBLAS_STATUS_SUCCESS)
        code = set(operation, CUBLASLT_MATMUL_DESC_FAST_ACCUM, &fast, sizeof(fast));
    return code;
}

/* The scales and the bias of the product that comes next. */
static cublasStatus_t aim(const zi_cuda_plan *plan, const zi_cuda_product *p)
{
    cublasStatus_t code = CUBLAS_STATUS_SUCCESS;
    if (plan->key.biased)
        code = set(plan->operation, CUBLASLT_MATMUL_DESC_BIAS_POINTER, &p->bias, sizeof(p->bias));
    if (plan->key.fp8 && code == CUBLAS_STATUS_SUCCESS)
        code = set(plan->operation, CUBLASLT_MATMUL_DESC_A_SCALE_POINTER, &p->w_scales, sizeof(p->w_scales));
    if (plan->key.fp8 && code == CUBLAS_STATUS_SUCCESS)
        code = set(plan->operation, CUBLASLT_MATMUL_DESC_B_SCALE_POINTER, &p->x_scales, sizeof(p->x_scales));
    return code;
}

/* A matrix of `rows` rows of `columns`, as cuBLASLt sees it: its columns are our rows. */
static cublasStatus_t make_layout(cublasLtMatrixLayout_t *layout, cudaDataType_t type, int64_t rows, int64_t columns,
                                  int64_t ld, int32_t batch, int64_t step)
{
    cublasStatus_t code = cublasLtMatrixLayoutCreate(layout, type, (uint64_t)columns, (uint64_t)rows, ld);
    if (code == CUBLAS_STATUS_SUCCESS)
        code = cublasLtMatrixLayoutSetAttribute(*layout, CUBLASLT_MATRIX_LAYOUT_BATCH_COUNT, &batch, sizeof(batch));
    if (code == CUBLAS_STATUS_SUCCESS)
        code =
            cublasLtMatrixLayoutSetAttribute(*layout, CUBLASLT_MATRIX_LAYOUT_STRIDED_BATCH_OFFSET, &step, sizeof(step));
    return code;
}

static cublasStatus_t describe(zi_cuda_plan *plan)
{
    const zi_cuda_product *p = &plan->key.product;
    cublasOperation_t turn = p->inputs_first ? CUBLAS_OP_N : CUBLAS_OP_T;
    int64_t w_rows = p->inputs_first ? p->in : p->out, w_columns = p->inputs_first ? p->out : p->in;
    cudaDataType_t type = plan->key.fp8 ? CUDA_R_8F_E4M3 : type_of(p->type);
    const cublasLtEpilogue_t with_bias = CUBLASLT_EPILOGUE_BIAS;
    cublasStatus_t code = cublasLtMatmulDescCreate(&plan->operation, CUBLAS_COMPUTE_32F, CUDA_R_32F);
    if (code == CUBLAS_STATUS_SUCCESS)
        code = set(plan->operation, CUBLASLT_MATMUL_DESC_TRANSA, &turn, sizeof(turn));
    if (code == CUBLAS_STATUS_SUCCESS && plan->key.fp8)
        code = describe_scales(plan->operation);
    if (code == CUBLAS_STATUS_SUCCESS && plan->key.biased)
        code = set(plan->operation, CUBLASLT_MATMUL_DESC_EPILOGUE, &with_bias, sizeof(with_bias));
    if (code == CUBLAS_STATUS_SUCCESS)
        code = make_layout(&plan->w, type, w_rows, w_columns, p->ldw, p->batch, p->step_w);
    if (code == CUBLAS_STATUS_SUCCESS)
        code = make_layout(&plan->x, type, p->rows, p->in, p->ldx, p->batch, p->step_x);
    if (code == CUBLAS_STATUS_SUCCESS)
        code = make_layout(&plan->y, type_of(p->y_type), p->rows, p->out, p->ldy, p->batch, p->step_y);
    return code;
}

static cublasStatus_t ask(zi_cuda *cuda, zi_cuda_plan *plan, cublasLtMatmulHeuristicResult_t *found, int *count)
{
    cublasLtMatmulPreference_t wish;
    size_t workspace = ZI_WORKSPACE_BYTES;
    const uint32_t reductions = CUBLASLT_REDUCTION_SCHEME_COMPUTE_TYPE; /* others round sums to the output's type */
    uint32_t aligned[3];
    static const cublasLtMatmulPreferenceAttributes_t names[4] = {
        CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_D_BYTES, CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_B_BYTES,
        CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_A_BYTES, CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_C_BYTES};
    cublasStatus_t code = cublasLtMatmulPreferenceCreate(&wish);
    if (code != CUBLAS_STATUS_SUCCESS)
        return code;
    code = cublasLtMatmulPreferenceSetAttribute(wish, CUBLASLT_MATMUL_PREF_MAX_WORKSPACE_BYTES, &workspace,
                                                sizeof(workspace));
    if (code == CUBLAS_STATUS_SUCCESS)
        code = cublasLtMatmulPreferenceSetAttribute(wish, CUBLASLT_MATMUL_PREF_REDUCTION_SCHEME_MASK, &reductions,
                                                    sizeof(reductions));
    for (int i = 0; i < 4 && code == CUBLAS_STATUS_SUCCESS; i++) {
        aligned[i % 3] = (uint32_t)plan->key.aligned[i % 3];
        code = cublasLtMatmulPreferenceSetAttribute(wish, names[i], &aligned[i % 3], sizeof(aligned[0]));
    }
    if (code == CUBLAS_STATUS_SUCCESS)
        code = cublasLtMatmulAlgoGetHeuristic(cuda->blas, plan->operation, plan->w, plan->x, plan->y, plan->y, wish,
                                              CANDIDATES, found, count);
    (void)cublasLtMatmulPreferenceDestroy(wish);
    return code;
}

static cublasStatus_t run(zi_cuda *cuda, const zi_cuda_plan *plan, const cublasLtMatmulAlgo_t *algorithm, void *y,
                          const void *x, const void *w)
{
    const float one = 1, add = plan->key.product.accumulate ? 1.0f : 0.0f;
    return cublasLtMatmul(cuda->blas, plan->operation, &one, w, plan->w, x, plan->x, &add, y, plan->y, y, plan->y,
                          algorithm, cuda->workspace, ZI_WORKSPACE_BYTES, cuda->stream);
}

/* Milliseconds of a candidate; negative: it does not run. */
static float time_candidate(zi_cuda *cuda, const zi_cuda_plan *plan, const cublasLtMatmulAlgo_t *algorithm, void *y,
                            const void *x, const void *w, cudaEvent_t events[2])
{
    float milliseconds = -1;
    for (int i = 0; i <= RUNS; i++) {
        if (i == 1 && cudaEventRecord(events[0], cuda->stream) != cudaSuccess)
            return -1;
        if (run(cuda, plan, algorithm, y, x, w) != CUBLAS_STATUS_SUCCESS)
            return -1;
    }
    if (cudaEventRecord(events[1], cuda->stream) != cudaSuccess || cudaEventSynchronize(events[1]) != cudaSuccess ||
        cudaEventElapsedTime(&milliseconds, events[0], events[1]) != cudaSuccess)
        return -1;
    return milliseconds;
}

/* The fastest of the candidates, computing into a scratch buffer. */
static int fastest(zi_cuda *cuda, const zi_cuda_plan *plan, const cublasLtMatmulHeuristicResult_t *found, int count,
                   void *scratch, const void *x, const void *w)
{
    cudaEvent_t events[2] = {NULL, NULL};
    int best = 0;
    float least = -1;
    if (cudaEventCreate(&events[0]) == cudaSuccess && cudaEventCreate(&events[1]) == cudaSuccess)
        for (int i = 0; i < count; i++) {
            float taken = time_candidate(cuda, plan, &found[i].algo, scratch, x, w, events);
            if (taken >= 0 && (least < 0 || taken < least)) {
                least = taken;
                best = i;
            }
        }
    for (int i = 0; i < 2; i++)
        if (events[i] != NULL)
            (void)cudaEventDestroy(events[i]);
    return best;
}

/* What another process found fastest, if this library can still run it. */
static int recall(zi_cuda *cuda, zi_cuda_plan *plan)
{
    cublasLtMatmulHeuristicResult_t result;
    return zi_cuda_recall(&cuda->choices, "product", &plan->key, sizeof(plan->key), &plan->algorithm,
                          sizeof(plan->algorithm)) &&
           cublasLtMatmulAlgoCheck(cuda->blas, plan->operation, plan->w, plan->x, plan->y, plan->y, &plan->algorithm,
                                   &result) == CUBLAS_STATUS_SUCCESS &&
           result.workspaceSize <= ZI_WORKSPACE_BYTES;
}

static int is_timed(const zi_cuda_product *p)
{
    return 2.0 * (double)p->batch * (double)p->rows * (double)p->in * (double)p->out >= TIMED_FLOPS;
}

/* Room for a product's results, if it is timed. */
static zimage_status alloc_scratch(zi_cuda *cuda, const zi_cuda_product *p, void **scratch)
{
    int64_t elements = (p->batch - 1) * p->step_y + p->rows * p->ldy;
    *scratch = NULL;
    if (!is_timed(p))
        return ZIMAGE_OK;
    return zi_cuda_stack_alloc(cuda, (size_t)elements * zi_dtype_size(p->y_type), "timing a product", scratch);
}

static zimage_status choose(zi_cuda *cuda, zi_cuda_plan *plan, const void *x, const void *w)
{
    const zi_cuda_product *p = &plan->key.product;
    cublasLtMatmulHeuristicResult_t found[CANDIDATES];
    int count = 0, best = 0;
    if (recall(cuda, plan))
        return ZIMAGE_OK;
    ZI_TRY(zi_cuda_check_blas(cuda, ask(cuda, plan, found, &count), "looking for a matrix product"));
    if (count == 0)
        return zi_fail(cuda->ops.error, ZIMAGE_ERROR_UNSUPPORTED,
                       "cuda:%d: cuBLASLt has no product of %lld x %lld by %lld", cuda->device, (long long)p->rows,
                       (long long)p->in, (long long)p->out);
    if (is_timed(p) && count > 1) {
        void *scratch;
        zi_arena_mark mark = zi_cuda_mark(&cuda->ops);
        ZI_TRY(alloc_scratch(cuda, p, &scratch));
        best = fastest(cuda, plan, found, count, scratch, x, w);
        zi_cuda_release(&cuda->ops, mark);
        zi_cuda_remember(&cuda->choices, "product", &plan->key, sizeof(plan->key), &found[best].algo,
                         sizeof(found[best].algo));
    }
    plan->algorithm = found[best].algo;
    return ZIMAGE_OK;
}

static int64_t alignment_of(const void *data)
{
    uintptr_t address = (uintptr_t)data | 256;
    return (int64_t)(address & (0 - address));
}

static zimage_status add_plan(zi_cuda *cuda, const plan_key *key, const zi_cuda_product *p, const void *x,
                              const void *w)
{
    if (cuda->plan_count == cuda->plan_capacity) {
        int capacity = cuda->plan_capacity ? 2 * cuda->plan_capacity : 64;
        zi_cuda_plan *plans = realloc(cuda->plans, (size_t)capacity * sizeof(*plans));
        if (plans == NULL)
            return zi_fail_memory(cuda->ops.error, "the list of products", (size_t)capacity * sizeof(*plans));
        cuda->plans = plans;
        cuda->plan_capacity = capacity;
    }
    zi_cuda_plan plan = {.operation = NULL};
    plan.key = *key;
    zimage_status status = zi_cuda_check_blas(cuda, describe(&plan), "describing a matrix product");
    if (status == ZIMAGE_OK)
        status = zi_cuda_check_blas(cuda, aim(&plan, p), "describing a matrix product");
    if (status == ZIMAGE_OK)
        status = choose(cuda, &plan, x, w);
    if (status != ZIMAGE_OK) {
        free_plan(&plan);
        return status;
    }
    cuda->plans[cuda->plan_count++] = plan;
    return ZIMAGE_OK;
}

/* The most memory that a product takes: that of its first time. */
static zimage_status rehearse(zi_cuda *cuda, const plan_key *key)
{
    void *scratch;
    zi_arena_mark mark = zi_cuda_mark(&cuda->ops);
    ZI_TRY(alloc_scratch(cuda, &key->product, &scratch));
    zi_cuda_release(&cuda->ops, mark);
    return ZIMAGE_OK;
}

zimage_status zi_cuda_multiply(zi_cuda *cuda, const zi_cuda_product *p, void *y, const void *x, const void *w)
{
    plan_key key;
    memset(&key, 0, sizeof(key)); /* compared as bytes, gaps included */
    key.product.rows = p->rows;
    key.product.out = p->out;
    key.product.in = p->in;
    key.product.type = p->type;
    key.product.y_type = p->y_type;
    key.product.ldx = p->ldx ? p->ldx : p->in;
    key.product.ldw = p->ldw ? p->ldw : p->inputs_first ? p->out : p->in;
    key.product.ldy = p->ldy ? p->ldy : p->out;
    key.product.inputs_first = p->inputs_first;
    key.product.accumulate = p->accumulate != 0;
    key.product.batch = p->batch ? p->batch : 1;
    key.product.step_x = p->step_x;
    key.product.step_w = p->step_w;
    key.product.step_y = p->step_y;
    key.fp8 = p->x_scales != NULL;
    key.biased = p->bias != NULL;
    if (cuda->rehearsing)
        return rehearse(cuda, &key);
    key.aligned[0] = alignment_of(y);
    key.aligned[1] = alignment_of(x);
    key.aligned[2] = alignment_of(w);
    int i = 0;
    /* NOLINTNEXTLINE(bugprone-suspicious-memory-comparison): the gaps are 0 */
    while (i < cuda->plan_count && memcmp(&cuda->plans[i].key, &key, sizeof(key)) != 0)
        i++;
    if (i == cuda->plan_count)
        ZI_TRY(add_plan(cuda, &key, p, x, w));
    ZI_TRY(zi_cuda_check_blas(cuda, aim(&cuda->plans[i], p), "a matrix product"));
    return zi_cuda_check_blas(cuda, run(cuda, &cuda->plans[i], &cuda->plans[i].algorithm, y, x, w), "a matrix product");
}

/* ---- the card's ceiling -------------------------------------------------------------------------------------------- */

/* Random numbers, in what linear layers multiply: constant ones would let the card run faster. room: for as many. */
static zimage_status random_operand(zi_cuda *cuda, uint32_t seed, void *room, zi_cuda_rows8 *operand)
{
    const int64_t count = (int64_t)PEAK_SIDE * PEAK_SIDE;
    size_t size = cuda->fp8 ? 1 : zi_dtype_size(cuda->type);
    operand->scales = NULL;
    ZI_TRY(zi_cuda_stack_alloc(cuda, (size_t)count * size, "measuring the card", &operand->data));
    void *numbers = cuda->fp8 ? room : operand->data;
    ZI_CUDA_TRY(cuda, zi_cuda_random(cuda->type, numbers, count, seed, cuda->stream), "measuring the card");
    if (!cuda->fp8)
        return ZIMAGE_OK;
    ZI_TRY(zi_cuda_stack_alloc(cuda, PEAK_SIDE * sizeof(float), "measuring the card", (void **)&operand->scales));
    return ZI_CUDA_RUN(cuda, zi_cuda_quantise_rows(*operand, cuda->type, numbers, PEAK_SIDE, PEAK_SIDE, cuda->stream),
                       "measuring the card");
}

static zimage_status time_large(zi_cuda *cuda, float *milliseconds)
{
    zi_cuda_product p = {PEAK_SIDE, PEAK_SIDE, PEAK_SIDE, .type = cuda->type, .y_type = cuda->type};
    size_t bytes = (size_t)PEAK_SIDE * PEAK_SIDE * zi_dtype_size(cuda->type);
    void *y;
    zi_cuda_rows8 x, w;
    cudaEvent_t events[2] = {NULL, NULL};
    ZI_TRY(zi_cuda_stack_alloc(cuda, bytes, "measuring the card", &y));
    ZI_TRY(random_operand(cuda, 1, y, &x));
    ZI_TRY(random_operand(cuda, 2, y, &w));
    p.x_scales = x.scales;
    p.w_scales = w.scales;
    ZI_TRY(zi_cuda_multiply(cuda, &p, y, x.data, w.data));
    zimage_status status = ZI_CUDA_RUN(cuda, cudaEventCreate(&events[0]), "making an event");
    if (status == ZIMAGE_OK)
        status = ZI_CUDA_RUN(cuda, cudaEventCreate(&events[1]), "making an event");
    if (status == ZIMAGE_OK)
        (void)cudaEventRecord(events[0], cuda->stream);
    for (int i = 0; i < RUNS && status == ZIMAGE_OK; i++)
        status = zi_cuda_multiply(cuda, &p, y, x.data, w.data);
    if (status == ZIMAGE_OK) {
        (void)cudaEventRecord(events[1], cuda->stream);
        status = ZI_CUDA_RUN(cuda, cudaEventSynchronize(events[1]), "measuring the card");
    }
    if (status == ZIMAGE_OK)
        status = ZI_CUDA_RUN(cuda, cudaEventElapsedTime(milliseconds, events[0], events[1]), "measuring the card");
    for (int i = 0; i < 2; i++)
        if (events[i] != NULL)
            (void)cudaEventDestroy(events[i]);
    return status;
}

double zi_cuda_peak(zi_ops *ops)
{
    zi_cuda *cuda = zi_cuda_of(ops);
    float milliseconds = 0;
    zi_arena_mark mark = zi_cuda_mark(ops);
    zimage_status status = time_large(cuda, &milliseconds);
    zi_cuda_release(ops, mark);
    double side = PEAK_SIDE, flops = 2.0 * RUNS * side * side * side;
    return status == ZIMAGE_OK && milliseconds > 0 ? flops / (milliseconds * 1e-3) : 0;
}

/* ---- linear layers ------------------------------------------------------------------------------------------------- */

/* The activations of one or more products: plain or in fp8, and the other form once one of them wants that. */
typedef struct input {
    const zi_tensor *x;
    zi_tensor plain;     /* data NULL: not made yet */
    zi_cuda_rows8 rows8; /* the same */
} input;

static input input_of(const zi_tensor *x)
{
    if (x->dtype == ZI_OPERAND)
        return (input){.x = x, .rows8 = zi_cuda_rows8_of(x)};
    return (input){.x = x, .plain = *x};
}

static zimage_status want_fp8(zi_cuda *cuda, input *x)
{
    if (x->rows8.data != NULL)
        return ZIMAGE_OK;
    size_t rows = (size_t)zi_row_count(x->x);
    ZI_TRY(zi_cuda_stack_alloc(cuda, rows * sizeof(float), "scales", (void **)&x->rows8.scales));
    ZI_TRY(zi_cuda_stack_alloc(cuda, (size_t)zi_tensor_count(x->x), "activations in fp8", &x->rows8.data));
    return zi_cuda_quantise(cuda, &x->plain, x->rows8);
}

static zimage_status want_plain(zi_cuda *cuda, input *x)
{
    return x->plain.data != NULL ? ZIMAGE_OK : zi_cuda_plain(cuda, x->x, &x->plain);
}

/* y (+)= x w^T (+ bias, of y's type) with w one matrix, or b's rows behind a's; y [rows, out] of that type. */
static zimage_status multiply(zi_cuda *cuda, void *y, zi_dtype y_type, input *x, const zi_weight *a, const zi_weight *b,
                              const void *bias, int accumulate)
{
    zi_cuda_product p = {.rows = zi_row_count(x->x),
                         .out = a->shape[0] + (b != NULL ? b->shape[0] : 0),
                         .in = a->shape[1],
                         .type = cuda->type,
                         .y_type = y_type,
                         .accumulate = accumulate,
                         .bias = bias};
    if (zi_cuda_wants_fp8(cuda, a) && (b == NULL || zi_cuda_wants_fp8(cuda, b))) {
        zi_cuda_rows8 w;
        ZI_TRY(want_fp8(cuda, x));
        ZI_TRY(zi_cuda_fp8(cuda, a, b, &w));
        p.x_scales = x->rows8.scales;
        p.w_scales = w.scales;
        return zi_cuda_multiply(cuda, &p, y, x->rows8.data, w.data);
    }
    void *w;
    ZI_TRY(want_plain(cuda, x));
    ZI_TRY(b != NULL ? zi_cuda_pair(cuda, a, b, &w) : zi_cuda_matrix(cuda, a, &w));
    return zi_cuda_multiply(cuda, &p, y, x->plain.data, w);
}

/* One vector that is float32 in every computation. */
static zimage_status multiply_exact(zi_cuda *cuda, zi_tensor *y, const zi_tensor *x, const zi_weight *w,
                                    const float *bias, int accumulate)
{
    void *weights;
    ZI_TRY(zi_cuda_matrix(cuda, w, &weights));
    return ZI_CUDA_RUN(cuda,
                       zi_cuda_few(y->dtype, y->data, x->data, cuda->type, weights, bias, accumulate, zi_row_count(x),
                                   zi_features(y), zi_features(x), cuda->stream),
                       "a product of few rows");
}

/* float32 numbers, or NULL, to y's type. */
static zimage_status bias_of(zi_cuda *cuda, const zi_tensor *y, const void **bias)
{
    const void *numbers = *bias;
    void *converted;
    if (numbers == NULL || y->dtype == ZI_F32)
        return ZIMAGE_OK;
    ZI_TRY(zi_cuda_stack_alloc(cuda, (size_t)zi_features(y) * zi_dtype_size(y->dtype), "a bias", &converted));
    *bias = converted;
    return ZI_CUDA_RUN(cuda, zi_cuda_convert(y->dtype, converted, ZI_F32, numbers, zi_features(y), cuda->stream),
                       "a bias");
}

/* What is added first is rounded twice in bf16: the sum of bias and y, and the result. */
static zimage_status linear(zi_cuda *cuda, zi_tensor *y, input *x, const zi_weight *w, const zi_weight *bias,
                            int accumulate)
{
    const float *b;
    assert(w->shape[0] == zi_features(y) && w->shape[1] == zi_features(x->x));
    assert(zi_row_count(x->x) == zi_row_count(y));
    ZI_TRY(zi_cuda_vector(cuda, bias, &b));
    if (x->x->dtype == ZI_F32 && cuda->type != ZI_F32)
        return multiply_exact(cuda, y, x->x, w, b, accumulate);
    if (b == NULL || (!accumulate && !zi_cuda_wants_fp8(cuda, w))) {
        const void *of_type = b;
        ZI_TRY(bias_of(cuda, y, &of_type));
        return multiply(cuda, y->data, y->dtype, x, w, NULL, of_type, accumulate);
    }
    ZI_CUDA_TRY(cuda,
                zi_cuda_add_bias(y->dtype, y->data, NULL, b, accumulate, zi_row_count(y), zi_features(y), cuda->stream),
                "adding a bias");
    return multiply(cuda, y->data, y->dtype, x, w, NULL, NULL, 1);
}

zimage_status zi_cuda_linear(zi_ops *ops, zi_tensor *y, const zi_tensor *x, const zi_weight *weight,
                             const zi_weight *bias, int accumulate)
{
    zi_arena_mark mark = zi_cuda_mark(ops);
    input in = input_of(x);
    zimage_status status = linear(zi_cuda_of(ops), y, &in, weight, bias, accumulate);
    zi_cuda_release(ops, mark);
    return status;
}

/* Whether the tensors, of one size, lie one behind the other, as things that are allocated in turn do. */
static int in_a_row(void *const *data, int count, size_t bytes)
{
    for (int i = 1; i < count; i++)
        if ((uint8_t *)data[i] != (uint8_t *)data[i - 1] + zi_cuda_round_up(bytes))
            return 0;
    return 1;
}

static int64_t elements(size_t bytes, zi_dtype type)
{
    return (int64_t)(zi_cuda_round_up(bytes) / zi_dtype_size(type));
}

/* Products of matrices of one size: as one batch where weights and results lie in a row, which fills the card better. */
static zimage_status multiply_all(zi_cuda *cuda, int count, zi_tensor *y, const zi_tensor *x,
                                  const zi_weight *const *weights)
{
    void *w[ZI_LINEARS_MAX] = {NULL}, *results[ZI_LINEARS_MAX] = {NULL};
    zi_cuda_product p = {.rows = zi_row_count(x),
                         .out = weights[0]->shape[0],
                         .in = weights[0]->shape[1],
                         .type = cuda->type,
                         .y_type = y->dtype};
    size_t w_bytes = (size_t)zi_weight_count(weights[0]) * zi_dtype_size(cuda->type);
    size_t y_bytes = (size_t)zi_tensor_count(y) * zi_dtype_size(y->dtype);
    for (int i = 0; i < count; i++) {
        ZI_TRY(zi_cuda_matrix(cuda, weights[i], &w[i]));
        results[i] = y[i].data;
    }
    if (cuda->rehearsing || (in_a_row(w, count, w_bytes) && in_a_row(results, count, y_bytes))) {
        p.batch = count;
        p.step_w = elements(w_bytes, cuda->type);
        p.step_y = elements(y_bytes, y->dtype);
        return zi_cuda_multiply(cuda, &p, results[0], x->data, w[0]);
    }
    for (int i = 0; i < count; i++)
        ZI_TRY(zi_cuda_multiply(cuda, &p, results[i], x->data, w[i]));
    return ZIMAGE_OK;
}

/* Whether multiply_all can do these. */
static int are_alike(const zi_cuda *cuda, int count, const zi_tensor *y, const zi_tensor *x,
                     const zi_weight *const *weights)
{
    int alike = x->dtype == cuda->type;
    assert(count >= 1 && count <= ZI_LINEARS_MAX);
    for (int i = 0; i < count; i++)
        alike &= !zi_cuda_wants_fp8(cuda, weights[i]) && weights[i]->shape[0] == weights[0]->shape[0] &&
                 weights[i]->shape[1] == zi_features(x) && zi_features(&y[i]) == weights[0]->shape[0] &&
                 zi_row_count(&y[i]) == zi_row_count(x) && y[i].dtype == y[0].dtype;
    return alike;
}

static zimage_status linears(zi_cuda *cuda, int count, zi_tensor *y, const zi_tensor *x,
                             const zi_weight *const *weights)
{
    input in = input_of(x);
    if (are_alike(cuda, count, y, x, weights))
        return multiply_all(cuda, count, y, x, weights);
    for (int i = 0; i < count; i++) /* below what each product takes for itself */
        ZI_TRY(zi_cuda_wants_fp8(cuda, weights[i]) ? want_fp8(cuda, &in) : want_plain(cuda, &in));
    for (int i = 0; i < count; i++) {
        zi_arena_mark mark = zi_cuda_mark(&cuda->ops);
        ZI_TRY(linear(cuda, &y[i], &in, weights[i], NULL, 0));
        zi_cuda_release(&cuda->ops, mark);
    }
    return ZIMAGE_OK;
}

zimage_status zi_cuda_linears(zi_ops *ops, int count, zi_tensor *y, const zi_tensor *x, const zi_weight *const *weights)
{
    zi_arena_mark mark = zi_cuda_mark(ops);
    zimage_status status = linears(zi_cuda_of(ops), count, y, x, weights);
    zi_cuda_release(ops, mark);
    return status;
}

static zimage_status glu(zi_cuda *cuda, zi_tensor *y, const zi_tensor *x, const zi_weight *w1, const zi_weight *w3)
{
    int64_t rows = zi_row_count(x), out = zi_features(y);
    input in = input_of(x);
    void *both;
    ZI_TRY(zi_cuda_stack_alloc(cuda, (size_t)(rows * 2 * out) * zi_dtype_size(cuda->type), "a gated product", &both));
    ZI_TRY(multiply(cuda, both, cuda->type, &in, w1, w3, NULL, 0));
    if (y->dtype == ZI_OPERAND)
        return ZI_CUDA_RUN(cuda, zi_cuda_glu_fp8(zi_cuda_rows8_of(y), cuda->type, both, rows, out, cuda->stream),
                           "a gate");
    return ZI_CUDA_RUN(cuda, zi_cuda_glu(y->dtype, y->data, both, rows, out, cuda->stream), "a gate");
}

zimage_status zi_cuda_linear_glu(zi_ops *ops, zi_tensor *y, const zi_tensor *x, const zi_weight *w1,
                                 const zi_weight *w3)
{
    zi_cuda *cuda = zi_cuda_of(ops);
    assert(w1->shape[0] == zi_features(y) && w1->shape[1] == zi_features(x));
    assert(w3->shape[0] == w1->shape[0] && w3->shape[1] == w1->shape[1]);
    zi_arena_mark mark = zi_cuda_mark(ops);
    zimage_status status = glu(cuda, y, x, w1, w3);
    zi_cuda_release(ops, mark);
    return status;
}
