/* Matrix products by cuBLASLt. The algorithms that it proposes for a shape are timed once, on the operands of the first
 * call. */
#include <stdlib.h>
#include <string.h>

#include "base/choices.h"
#include "cuda/internal.h"
#include "cuda/products.h"
#include "cuda/residency.h"
#include "cuda/timing.h"

#define CANDIDATES  8
#define TIMED_FLOPS 2e8
#define CLEARLY     0.94f
#ifndef PEAK_SIDE
#define PEAK_SIDE 8192 /* smaller on the emulated GPU */
#endif

/* All that an algorithm depends on. Compared as bytes. */
typedef struct plan_key {
    zi_cuda_product product;
    int64_t fp8, biased;
    int64_t aligned[3]; /* of y, x, w: the power of two, at most 256, that the address is a multiple of */
} plan_key;

struct zi_cuda_plan {
    plan_key key;
    cublasLtMatmulDesc_t operation;
    cublasLtMatrixLayout_t w, x, y; /* column-major: y^T [out, rows] = w x^T */
    cublasLtMatmulAlgo_t algorithm;
};

zimage_status zi_cuda_check_blas(zi_cuda *cuda, cublasStatus_t code, const char *what)
{
    if (code == CUBLAS_STATUS_SUCCESS)
        return ZIMAGE_OK;
    return zi_fail(cuda->error, ZIMAGE_ERROR_INTERNAL, "cuda:%d: %s failed: cuBLASLt status %d", cuda->device, what,
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

static int is_product_type(zi_dtype type)
{
    return type == ZI_F32 || type == ZI_BF16;
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

/* Sets the scales and the bias of the product that comes next. */
static cublasStatus_t set_pointers(const zi_cuda_plan *plan, const zi_cuda_product *p)
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

/* A row-major matrix [rows, columns]. cuBLASLt is column-major: its columns are our rows. */
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
    cublasOperation_t transpose = p->inputs_first ? CUBLAS_OP_N : CUBLAS_OP_T;
    int64_t w_rows = p->inputs_first ? p->in : p->out, w_columns = p->inputs_first ? p->out : p->in;
    cudaDataType_t type = plan->key.fp8 ? CUDA_R_8F_E4M3 : type_of(p->type);
    const cublasLtEpilogue_t with_bias = CUBLASLT_EPILOGUE_BIAS;
    cublasStatus_t code = cublasLtMatmulDescCreate(&plan->operation, CUBLAS_COMPUTE_32F, CUDA_R_32F);
    if (code == CUBLAS_STATUS_SUCCESS)
        code = set(plan->operation, CUBLASLT_MATMUL_DESC_TRANSA, &transpose, sizeof(transpose));
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

static cublasStatus_t propose(zi_cuda *cuda, zi_cuda_plan *plan, cublasLtMatmulHeuristicResult_t *found, int *count)
{
    cublasLtMatmulPreference_t preference;
    size_t workspace = ZI_WORKSPACE_BYTES;
    const uint32_t reductions =
        CUBLASLT_REDUCTION_SCHEME_COMPUTE_TYPE; /* others round partial sums to the output's type */
    uint32_t aligned[3];
    static const cublasLtMatmulPreferenceAttributes_t names[4] = {
        CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_D_BYTES, CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_B_BYTES,
        CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_A_BYTES, CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_C_BYTES};
    cublasStatus_t code = cublasLtMatmulPreferenceCreate(&preference);
    if (code != CUBLAS_STATUS_SUCCESS)
        return code;
    code = cublasLtMatmulPreferenceSetAttribute(preference, CUBLASLT_MATMUL_PREF_MAX_WORKSPACE_BYTES, &workspace,
                                                sizeof(workspace));
    if (code == CUBLAS_STATUS_SUCCESS)
        code = cublasLtMatmulPreferenceSetAttribute(preference, CUBLASLT_MATMUL_PREF_REDUCTION_SCHEME_MASK, &reductions,
                                                    sizeof(reductions));
    for (int i = 0; i < 4 && code == CUBLAS_STATUS_SUCCESS; i++) {
        aligned[i % 3] = (uint32_t)plan->key.aligned[i % 3];
        code = cublasLtMatmulPreferenceSetAttribute(preference, names[i], &aligned[i % 3], sizeof(aligned[0]));
    }
    if (code == CUBLAS_STATUS_SUCCESS)
        code = cublasLtMatmulAlgoGetHeuristic(cuda->blas, plan->operation, plan->w, plan->x, plan->y, plan->y,
                                              preference, CANDIDATES, found, count);
    (void)cublasLtMatmulPreferenceDestroy(preference);
    return code;
}

static cublasStatus_t run(zi_cuda *cuda, const zi_cuda_plan *plan, const cublasLtMatmulAlgo_t *algorithm, void *y,
                          const void *x, const void *w)
{
    const float one = 1, add = plan->key.product.accumulate ? 1.0f : 0.0f;
    return cublasLtMatmul(cuda->blas, plan->operation, &one, w, plan->w, x, plan->x, &add, y, plan->y, y, plan->y,
                          algorithm, cuda->workspace, ZI_WORKSPACE_BYTES, cuda->stream);
}

/* One algorithm on the operands of the first call. */
typedef struct trial {
    zi_cuda *cuda;
    const zi_cuda_plan *plan;
    const cublasLtMatmulAlgo_t *algorithm;
    void *y;
    const void *x, *w;
} trial;

static zimage_status try_candidate(const void *user)
{
    const trial *t = user;
    return run(t->cuda, t->plan, t->algorithm, t->y, t->x, t->w) == CUBLAS_STATUS_SUCCESS ? ZIMAGE_OK
                                                                                          : ZIMAGE_ERROR_INTERNAL;
}

/* Index of the algorithm to take: cuBLASLt's first proposal, unless another one takes less than CLEARLY of its time. At
 * its limit of power a GPU is fastest with the algorithm that needs the least energy. A few runs do not show which that
 * is, and choosing the fastest of them costs up to 4 % of a forward pass. Results go to a scratch buffer. */
static int fastest(zi_cuda *cuda, const zi_cuda_plan *plan, const cublasLtMatmulHeuristicResult_t *found, int count,
                   void *scratch, const void *x, const void *w)
{
    int best = 0;
    float least = -1;
    for (int i = 0; i < count; i++) {
        const trial t = {cuda, plan, &found[i].algo, scratch, x, w};
        float taken;
        if (zi_cuda_time(cuda, try_candidate, &t, &taken) != ZIMAGE_OK)
            continue;
        taken = i == 0 ? CLEARLY * taken : taken;
        if (least < 0 || taken < least) {
            least = taken;
            best = i;
        }
    }
    return best;
}

/* Takes the algorithm that an earlier process found fastest, if this library can run it; 0: it does not. */
static int recall(zi_cuda *cuda, zi_cuda_plan *plan)
{
    cublasLtMatmulHeuristicResult_t result;
    return zi_choices_recall(&cuda->choices, "product", &plan->key, sizeof(plan->key), &plan->algorithm,
                             sizeof(plan->algorithm)) &&
           cublasLtMatmulAlgoCheck(cuda->blas, plan->operation, plan->w, plan->x, plan->y, plan->y, &plan->algorithm,
                                   &result) == CUBLAS_STATUS_SUCCESS &&
           result.workspaceSize <= ZI_WORKSPACE_BYTES;
}

int zi_cuda_is_timed(const zi_cuda_product *p)
{
    return 2.0 * (double)(p->batch ? p->batch : 1) * (double)p->rows * (double)p->in * (double)p->out >= TIMED_FLOPS;
}

/* Stack memory for a product's results while it is timed. */
static zimage_status alloc_scratch(zi_cuda *cuda, const zi_cuda_product *p, void **scratch)
{
    int64_t elements = (p->batch - 1) * p->step_y + p->rows * p->ldy;
    *scratch = NULL;
    if (!zi_cuda_is_timed(p))
        return ZIMAGE_OK;
    return zi_cuda_stack_alloc(cuda, (size_t)elements * zi_dtype_size(p->y_type), "timing a product", scratch);
}

/* With the lock of the choices. */
static zimage_status choose(zi_cuda *cuda, zi_cuda_plan *plan, const void *x, const void *w)
{
    const zi_cuda_product *p = &plan->key.product;
    cublasLtMatmulHeuristicResult_t found[CANDIDATES];
    int count = 0, best = 0;
    if (recall(cuda, plan))
        return ZIMAGE_OK;
    ZI_TRY(zi_cuda_check_blas(cuda, propose(cuda, plan, found, &count), "looking for a matrix product"));
    if (count == 0)
        return zi_fail(cuda->error, ZIMAGE_ERROR_UNSUPPORTED, "cuda:%d: cuBLASLt has no product of %lld x %lld by %lld",
                       cuda->device, (long long)p->rows, (long long)p->in, (long long)p->out);
    if (zi_cuda_is_timed(p) && count > 1) {
        void *scratch;
        zi_arena_mark mark = zi_cuda_mark(cuda);
        ZI_TRY(alloc_scratch(cuda, p, &scratch));
        best = fastest(cuda, plan, found, count, scratch, x, w);
        zi_cuda_release(cuda, mark);
        zi_choices_remember(&cuda->choices, "product", &plan->key, sizeof(plan->key), &found[best].algo,
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
            return zi_fail_memory(cuda->error, "the list of products", (size_t)capacity * sizeof(*plans));
        cuda->plans = plans;
        cuda->plan_capacity = capacity;
    }
    zi_cuda_plan plan = {.operation = NULL};
    plan.key = *key;
    zimage_status status = zi_cuda_check_blas(cuda, describe(&plan), "describing a matrix product");
    if (status == ZIMAGE_OK)
        status = zi_cuda_check_blas(cuda, set_pointers(&plan, p), "describing a matrix product");
    zi_choices_lock(&cuda->choices);
    if (status == ZIMAGE_OK)
        status = choose(cuda, &plan, x, w);
    zi_choices_unlock(&cuda->choices);
    if (status != ZIMAGE_OK) {
        free_plan(&plan);
        return status;
    }
    cuda->plans[cuda->plan_count++] = plan;
    return ZIMAGE_OK;
}

/* Takes the most memory that a product needs: that of its first call. */
static zimage_status rehearse(zi_cuda *cuda, const plan_key *key)
{
    void *scratch;
    zi_arena_mark mark = zi_cuda_mark(cuda);
    ZI_TRY(alloc_scratch(cuda, &key->product, &scratch));
    zi_cuda_release(cuda, mark);
    return ZIMAGE_OK;
}

zimage_status zi_cuda_multiply(zi_cuda *cuda, const zi_cuda_product *p, void *y, const void *x, const void *w)
{
    plan_key key;
    if (!is_product_type(p->type) || !is_product_type(p->y_type))
        return zi_fail(cuda->error, ZIMAGE_ERROR_INTERNAL, "cuda:%d: a matrix product of %s into %s", cuda->device,
                       zi_dtype_name(p->type), zi_dtype_name(p->y_type));
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
    if (cuda->ops.rehearsing)
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
    ZI_TRY(zi_cuda_check_blas(cuda, set_pointers(&cuda->plans[i], p), "a matrix product"));
    return zi_cuda_check_blas(cuda, run(cuda, &cuda->plans[i], &cuda->plans[i].algorithm, y, x, w), "a matrix product");
}

/* ---- the GPU's peak rate ----------------------------------------------------------------------------------------- */

/* A random matrix in the type that linear layers multiply; a GPU is faster with constant ones. room: for the elements
 * in the compute type, before they are quantised to fp8. */
static zimage_status random_operand(zi_cuda *cuda, uint32_t seed, void *room, zi_cuda_rows8 *operand)
{
    const int64_t count = (int64_t)PEAK_SIDE * PEAK_SIDE;
    size_t size = cuda->fp8 ? 1 : zi_dtype_size(cuda->type);
    operand->scales = NULL;
    ZI_TRY(zi_cuda_stack_alloc(cuda, (size_t)count * size, "measuring the peak rate", &operand->data));
    void *numbers = cuda->fp8 ? room : operand->data;
    ZI_CUDA_TRY(cuda, zi_cuda_random(cuda->type, numbers, count, seed, cuda->stream), "measuring the peak rate");
    if (!cuda->fp8)
        return ZIMAGE_OK;
    ZI_TRY(zi_cuda_stack_alloc(cuda, PEAK_SIDE * sizeof(float), "measuring the peak rate", (void **)&operand->scales));
    return ZI_CUDA_RUN(
        cuda, zi_cuda_quantise_rows(*operand, cuda->type, numbers, PEAK_SIDE, PEAK_SIDE, PEAK_SIDE, cuda->stream),
        "measuring the peak rate");
}

typedef struct large_product {
    zi_cuda *cuda;
    zi_cuda_product product;
    void *y;
    const void *x, *w;
} large_product;

static zimage_status multiply_large(const void *user)
{
    const large_product *l = user;
    return zi_cuda_multiply(l->cuda, &l->product, l->y, l->x, l->w);
}

static zimage_status time_large(zi_cuda *cuda, float *milliseconds)
{
    large_product l = {.cuda = cuda,
                       .product = {PEAK_SIDE, PEAK_SIDE, PEAK_SIDE, .type = cuda->type, .y_type = cuda->type}};
    size_t bytes = (size_t)PEAK_SIDE * PEAK_SIDE * zi_dtype_size(cuda->type);
    zi_cuda_rows8 x, w;
    ZI_TRY(zi_cuda_stack_alloc(cuda, bytes, "measuring the peak rate", &l.y));
    ZI_TRY(random_operand(cuda, 1, l.y, &x));
    ZI_TRY(random_operand(cuda, 2, l.y, &w));
    l.x = x.data;
    l.w = w.data;
    l.product.x_scales = x.scales;
    l.product.w_scales = w.scales;
    return zi_cuda_time(cuda, multiply_large, &l, milliseconds);
}

double zi_cuda_peak_rate(zi_run *run)
{
    zi_cuda *cuda = zi_cuda_begin(run);
    float milliseconds = 0;
    zi_arena_mark mark = zi_cuda_mark(cuda);
    zimage_status status = time_large(cuda, &milliseconds);
    zi_cuda_release(cuda, mark);
    double side = PEAK_SIDE, flops = 2.0 * side * side * side;
    return status == ZIMAGE_OK && milliseconds > 0 ? flops / (milliseconds * 1e-3) : 0;
}
