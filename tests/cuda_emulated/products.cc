/*
 * cuBLASLt on the emulated GPU: plain sums in float32. It refuses what cuBLAS's documentation rules out, and is strict
 * where that is vague. An algorithm is the number of parts that the inner dimension is summed in.
 */
#include <stdint.h>
#include <stdlib.h>

#include <algorithm>
#include <utility>
#include <vector>

#include "cublasLt.h"
#include "cuda_bf16.h"
#include "cuda_fp8.h"
#include "emulated.h"

#define ALGORITHMS     3
#define COLUMNS        4 /* of the result that are computed together */
#define FP8_MULTIPLE   16
#define FP8_ALIGNMENT  16
#define WORKSPACE_PART 1024 /* bytes that an algorithm needs for each part but the first */

/* For what takes most of the time; bounds were checked. */
#define UNCHECKED __attribute__((no_sanitize("address", "undefined")))

struct cublasLtContext {
    int unused;
};

struct emulated_operation {
    int32_t transposed[2]; /* of a, b */
    int32_t scale_modes[2];
    const float *scales[2];
    int8_t fast;
    int32_t epilogue;
    const void *bias; /* of d's type */
};

struct emulated_layout {
    cudaDataType_t type;
    int64_t rows, columns, ld;
    int32_t batch;
    int64_t step;
};

struct emulated_preference {
    uint64_t workspace;
    uint32_t aligned[4]; /* a, b, c, d */
    uint32_t reductions; /* allowed types of partial sums */
};

namespace
{

/* A product: a copy of everything that describes it. */
struct product {
    emulated_operation operation;
    emulated_layout a, b, c, d;
    const void *a_data, *b_data, *c_data;
    void *d_data;
    float alpha, beta;
    int parts, rounds; /* rounds: partial sums are rounded to the output's type */
};

size_t size_of(cudaDataType_t type)
{
    return type == CUDA_R_32F ? 4 : type == CUDA_R_8F_E4M3 ? 1 : 2;
}

/* Copies an attribute of exactly that size. */
cublasStatus_t take(void *to, size_t wanted, const void *value, size_t size)
{
    if (value == NULL || size != wanted)
        return CUBLAS_STATUS_INVALID_VALUE;
    memcpy(to, value, size);
    return CUBLAS_STATUS_SUCCESS;
}

/* ---- what is refused --------------------------------------------------------------------------------------------- */

bool is_whole(const emulated_layout &l)
{
    return l.rows > 0 && l.columns > 0 && l.ld >= l.rows && l.batch > 0;
}

int64_t sum_length(const emulated_operation &o, const emulated_layout &a)
{
    return o.transposed[0] ? a.rows : a.columns;
}

bool sizes_meet(const emulated_operation &o, const emulated_layout &a, const emulated_layout &b,
                const emulated_layout &c, const emulated_layout &d)
{
    int64_t m = o.transposed[0] ? a.columns : a.rows, n = o.transposed[1] ? b.rows : b.columns;
    int64_t k = o.transposed[1] ? b.columns : b.rows;
    return k == sum_length(o, a) && d.rows == m && d.columns == n && c.rows == m && c.columns == n &&
           a.batch == d.batch && b.batch == d.batch && c.batch == d.batch;
}

bool types_meet(cudaDataType_t a, cudaDataType_t b, cudaDataType_t c, cudaDataType_t d)
{
    bool wide = c == CUDA_R_32F && d == CUDA_R_32F, half = c == CUDA_R_16BF && d == CUDA_R_16BF;
    if (a != b || (a != CUDA_R_32F && a != CUDA_R_16BF && a != CUDA_R_8F_E4M3))
        return false;
    return wide || (half && a != CUDA_R_32F);
}

bool multiples(const emulated_layout &l, int64_t bytes)
{
    int64_t size = (int64_t)size_of(l.type);
    return l.rows * size % bytes == 0 && l.ld * size % bytes == 0 && (l.batch == 1 || l.step * size % bytes == 0);
}

/* Needs a transposed and b not, sizes and addresses that are multiples of 16, and scales of rows for both or for
 * none. */
bool fp8_is_possible(const emulated_operation &o, const emulated_layout &a, const emulated_layout &b,
                     const emulated_layout &d, const uint32_t aligned[4])
{
    bool of_rows = o.scale_modes[0] == CUBLASLT_MATMUL_MATRIX_SCALE_OUTER_VEC_32F;
    if (!o.transposed[0] || o.transposed[1] || o.scale_modes[0] != o.scale_modes[1])
        return false;
    if (of_rows && (o.scales[0] == NULL || o.scales[1] == NULL))
        return false;
    for (int i = 0; i < 4; i++)
        if (aligned[i] < FP8_ALIGNMENT)
            return false;
    return a.rows % FP8_MULTIPLE == 0 && a.columns % FP8_MULTIPLE == 0 && multiples(a, FP8_ALIGNMENT) &&
           multiples(b, FP8_ALIGNMENT) && multiples(d, FP8_ALIGNMENT);
}

cublasStatus_t check(const emulated_operation &o, const emulated_layout &a, const emulated_layout &b,
                     const emulated_layout &c, const emulated_layout &d, const uint32_t aligned[4])
{
    if (!is_whole(a) || !is_whole(b) || !is_whole(c) || !is_whole(d) || !sizes_meet(o, a, b, c, d))
        return CUBLAS_STATUS_INVALID_VALUE;
    if (!types_meet(a.type, b.type, c.type, d.type))
        return CUBLAS_STATUS_NOT_SUPPORTED;
    const emulated_layout *layouts[4] = {&a, &b, &c, &d};
    for (int i = 0; i < 4; i++)
        if (aligned[i] < size_of(layouts[i]->type))
            return CUBLAS_STATUS_NOT_SUPPORTED;
    if (a.type == CUDA_R_8F_E4M3)
        return fp8_is_possible(o, a, b, d, aligned) ? CUBLAS_STATUS_SUCCESS : CUBLAS_STATUS_NOT_SUPPORTED;
    return o.scale_modes[0] || o.scale_modes[1] || o.fast ? CUBLAS_STATUS_NOT_SUPPORTED : CUBLAS_STATUS_SUCCESS;
}

/* Bytes from the first element of a matrix to the end of its last. */
size_t extent(const emulated_layout &l)
{
    return (size_t)((l.batch - 1) * l.step + (l.columns - 1) * l.ld + l.rows) * size_of(l.type);
}

typedef std::pair<uintptr_t, uintptr_t> range; /* addresses [first, second) */

/* The bytes of each column. */
std::vector<range> ranges_of(const void *data, const emulated_layout &l)
{
    std::vector<range> ranges;
    for (int batch = 0; batch < l.batch; batch++)
        for (int64_t column = 0; column < l.columns; column++) {
            uintptr_t first = (uintptr_t)data + (size_t)(batch * l.step + column * l.ld) * size_of(l.type);
            ranges.push_back(range(first, first + (size_t)l.rows * size_of(l.type)));
        }
    std::sort(ranges.begin(), ranges.end());
    return ranges;
}

/* Whether they have a byte in common. Columns of one may lie between those of the other. */
bool overlap(const void *a, const emulated_layout &a_layout, const void *b, const emulated_layout &b_layout)
{
    if ((uintptr_t)a >= (uintptr_t)b + extent(b_layout) || (uintptr_t)b >= (uintptr_t)a + extent(a_layout))
        return false;
    const std::vector<range> first = ranges_of(a, a_layout), second = ranges_of(b, b_layout);
    for (size_t i = 0, j = 0; i < first.size() && j < second.size();) {
        if (first[i].first < second[j].second && second[j].first < first[i].second)
            return true;
        if (first[i].second <= second[j].first)
            i++;
        else
            j++;
    }
    return false;
}

/* Whether the operands lie in device memory, and the result overlaps none of them but c. */
bool places_are_right(const product &p)
{
    const emulated_layout *layouts[4] = {&p.a, &p.b, &p.c, &p.d};
    const void *data[4] = {p.a_data, p.b_data, p.beta != 0 ? p.c_data : p.d_data, p.d_data};
    for (int i = 0; i < 4; i++)
        if (!emulated::is_device(data[i], extent(*layouts[i])))
            return false;
    for (int i = 0; i < 2; i++)
        if (overlap(p.d_data, p.d, data[i], *layouts[i]))
            return false;
    if (p.operation.epilogue == CUBLASLT_EPILOGUE_BIAS &&
        !emulated::is_device(p.operation.bias, (size_t)p.d.rows * size_of(p.d.type)))
        return false;
    if (p.a.type != CUDA_R_8F_E4M3)
        return true;
    return emulated::is_device(p.operation.scales[0], (size_t)p.d.rows * 4) &&
           emulated::is_device(p.operation.scales[1], (size_t)p.d.columns * 4);
}

/* ---- computing --------------------------------------------------------------------------------------------------- */

inline float read(const void *data, cudaDataType_t type, int64_t place)
{
    if (type == CUDA_R_32F)
        return ((const float *)data)[place];
    if (type == CUDA_R_16BF)
        return __bfloat162float(((const __nv_bfloat16 *)data)[place]);
    return emulated_from_e4m3(((const uint8_t *)data)[place]);
}

void write(void *data, cudaDataType_t type, int64_t place, float value)
{
    if (type == CUDA_R_32F)
        ((float *)data)[place] = value;
    else
        ((__nv_bfloat16 *)data)[place] = __float2bfloat16_rn(value);
}

/* Element (row, column) goes to numbers[column column_step + row row_step]. */
template <cudaDataType_t Type>
UNCHECKED void unpack_as(float *numbers, const void *data, const emulated_layout &l, int batch, int64_t column_step,
                         int64_t row_step)
{
    for (int64_t column = 0; column < l.columns; column++)
        for (int64_t row = 0; row < l.rows; row++)
            numbers[column * column_step + row * row_step] = read(data, Type, batch * l.step + column * l.ld + row);
}

/* Elements [outer][inner] of a matrix, or of its transpose. */
std::vector<float> unpack(const void *data, const emulated_layout &l, int batch, bool transposed)
{
    std::vector<float> numbers((size_t)(l.rows * l.columns));
    int64_t column_step = transposed ? 1 : l.rows, row_step = transposed ? l.columns : 1;
    if (l.type == CUDA_R_32F)
        unpack_as<CUDA_R_32F>(numbers.data(), data, l, batch, column_step, row_step);
    else if (l.type == CUDA_R_16BF)
        unpack_as<CUDA_R_16BF>(numbers.data(), data, l, batch, column_step, row_step);
    else
        unpack_as<CUDA_R_8F_E4M3>(numbers.data(), data, l, batch, column_step, row_step);
    return numbers;
}

/* sums [COLUMNS][m] += b [COLUMNS][k] a [k][m], for k in [first, end). */
UNCHECKED void add_products(float *sums, const float *a, const float *b, int64_t m, int64_t first, int64_t end,
                            int64_t k)
{
    for (int64_t i = first; i < end; i++) {
        const float *column = a + i * m;
        float b0 = b[i], b1 = b[k + i], b2 = b[2 * k + i], b3 = b[3 * k + i];
        for (int64_t j = 0; j < m; j++) {
            sums[j] += column[j] * b0;
            sums[m + j] += column[j] * b1;
            sums[2 * m + j] += column[j] * b2;
            sums[3 * m + j] += column[j] * b3;
        }
    }
}

void store_column(const product &p, int batch, int64_t column, const float *sums)
{
    for (int64_t row = 0; row < p.d.rows; row++) {
        float value = p.alpha * sums[row];
        if (p.a.type == CUDA_R_8F_E4M3)
            value *= p.operation.scales[0][row] * p.operation.scales[1][column];
        bool aligned = p.d.rows * (int64_t)size_of(p.d.type) % 16 == 0;
        bool rounds = p.beta != 0 || (p.operation.epilogue == CUBLASLT_EPILOGUE_BIAS && !aligned);
        if (rounds && p.d.type == CUDA_R_16BF) /* before c and the bias are added, as on an H100 and an H200 */
            value = __bfloat162float(__float2bfloat16_rn(value));
        if (p.beta != 0)
            value += p.beta * read(p.c_data, p.c.type, batch * p.c.step + column * p.c.ld + row);
        if (p.operation.epilogue == CUBLASLT_EPILOGUE_BIAS)
            value += read(p.operation.bias, p.d.type, row);
        write(p.d_data, p.d.type, batch * p.d.step + column * p.d.ld + row, value);
    }
}

void multiply_one(const product &p, int batch)
{
    int64_t m = p.d.rows, n = p.d.columns, k = sum_length(p.operation, p.a);
    std::vector<float> a = unpack(p.a_data, p.a, batch, p.operation.transposed[0]);
    std::vector<float> b = unpack(p.b_data, p.b, batch, p.operation.transposed[1]);
    b.resize((size_t)((n + COLUMNS - 1) / COLUMNS * COLUMNS * k));
    std::vector<float> sums((size_t)(COLUMNS * m)), part(sums.size());
    for (int64_t column = 0; column < n; column += COLUMNS) {
        std::fill(sums.begin(), sums.end(), 0.0f);
        for (int64_t i = 0; i < p.parts; i++) {
            std::fill(part.begin(), part.end(), 0.0f);
            add_products(part.data(), a.data(), b.data() + column * k, m, k * i / p.parts, k * (i + 1) / p.parts, k);
            for (size_t j = 0; j < sums.size(); j++)
                sums[j] = p.rounds ? __bfloat162float(__float2bfloat16_rn(sums[j] + part[j])) : sums[j] + part[j];
        }
        for (int64_t j = 0; j < COLUMNS && column + j < n; j++)
            store_column(p, batch, column + j, sums.data() + j * m);
    }
}

} // namespace

/* ---- cuBLASLt's functions ---------------------------------------------------------------------------------------- */

cublasStatus_t cublasLtCreate(cublasLtHandle_t *handle)
{
    *handle = new cublasLtContext();
    return CUBLAS_STATUS_SUCCESS;
}

cublasStatus_t cublasLtDestroy(cublasLtHandle_t handle)
{
    delete handle;
    return CUBLAS_STATUS_SUCCESS;
}

cublasStatus_t cublasLtMatmulDescCreate(cublasLtMatmulDesc_t *operation, cublasComputeType_t compute,
                                        cudaDataType_t scale)
{
    *operation = NULL;
    if (compute != CUBLAS_COMPUTE_32F || scale != CUDA_R_32F)
        return CUBLAS_STATUS_NOT_SUPPORTED;
    *operation = new emulated_operation();
    return CUBLAS_STATUS_SUCCESS;
}

cublasStatus_t cublasLtMatmulDescDestroy(cublasLtMatmulDesc_t operation)
{
    delete operation;
    return CUBLAS_STATUS_SUCCESS;
}

cublasStatus_t cublasLtMatmulDescSetAttribute(cublasLtMatmulDesc_t o, cublasLtMatmulDescAttributes_t name,
                                              const void *value, size_t size)
{
    switch (name) {
    case CUBLASLT_MATMUL_DESC_TRANSA:
    case CUBLASLT_MATMUL_DESC_TRANSB:
        return take(&o->transposed[name - CUBLASLT_MATMUL_DESC_TRANSA], sizeof(int32_t), value, size);
    case CUBLASLT_MATMUL_DESC_EPILOGUE:
        return take(&o->epilogue, sizeof(o->epilogue), value, size);
    case CUBLASLT_MATMUL_DESC_BIAS_POINTER:
        return take(&o->bias, sizeof(o->bias), value, size);
    case CUBLASLT_MATMUL_DESC_A_SCALE_POINTER:
    case CUBLASLT_MATMUL_DESC_B_SCALE_POINTER:
        return take(&o->scales[name - CUBLASLT_MATMUL_DESC_A_SCALE_POINTER], sizeof(void *), value, size);
    case CUBLASLT_MATMUL_DESC_A_SCALE_MODE:
    case CUBLASLT_MATMUL_DESC_B_SCALE_MODE:
        return take(&o->scale_modes[name - CUBLASLT_MATMUL_DESC_A_SCALE_MODE], sizeof(int32_t), value, size);
    case CUBLASLT_MATMUL_DESC_FAST_ACCUM:
        return take(&o->fast, sizeof(o->fast), value, size);
    }
    return CUBLAS_STATUS_INVALID_VALUE;
}

cublasStatus_t cublasLtMatrixLayoutCreate(cublasLtMatrixLayout_t *layout, cudaDataType_t type, uint64_t rows,
                                          uint64_t columns, int64_t ld)
{
    *layout = new emulated_layout{type, (int64_t)rows, (int64_t)columns, ld, 1, 0};
    return CUBLAS_STATUS_SUCCESS;
}

cublasStatus_t cublasLtMatrixLayoutDestroy(cublasLtMatrixLayout_t layout)
{
    delete layout;
    return CUBLAS_STATUS_SUCCESS;
}

cublasStatus_t cublasLtMatrixLayoutSetAttribute(cublasLtMatrixLayout_t layout, cublasLtMatrixLayoutAttribute_t name,
                                                const void *value, size_t size)
{
    switch (name) {
    case CUBLASLT_MATRIX_LAYOUT_BATCH_COUNT:
        return take(&layout->batch, sizeof(layout->batch), value, size);
    case CUBLASLT_MATRIX_LAYOUT_STRIDED_BATCH_OFFSET:
        return take(&layout->step, sizeof(layout->step), value, size);
    }
    return CUBLAS_STATUS_INVALID_VALUE;
}

cublasStatus_t cublasLtMatmulPreferenceCreate(cublasLtMatmulPreference_t *preference)
{
    *preference = new emulated_preference{0, {256, 256, 256, 256}, CUBLASLT_REDUCTION_SCHEME_MASK};
    return CUBLAS_STATUS_SUCCESS;
}

cublasStatus_t cublasLtMatmulPreferenceDestroy(cublasLtMatmulPreference_t preference)
{
    delete preference;
    return CUBLAS_STATUS_SUCCESS;
}

cublasStatus_t cublasLtMatmulPreferenceSetAttribute(cublasLtMatmulPreference_t preference,
                                                    cublasLtMatmulPreferenceAttributes_t name, const void *value,
                                                    size_t size)
{
    if (name == CUBLASLT_MATMUL_PREF_MAX_WORKSPACE_BYTES)
        return take(&preference->workspace, sizeof(preference->workspace), value, size);
    if (name == CUBLASLT_MATMUL_PREF_REDUCTION_SCHEME_MASK)
        return take(&preference->reductions, sizeof(preference->reductions), value, size);
    int operand = name - CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_A_BYTES;
    if (operand < 0 || operand > 3)
        return CUBLAS_STATUS_INVALID_VALUE;
    return take(&preference->aligned[operand], sizeof(uint32_t), value, size);
}

/* The data of an algorithm: its parts, the alignments that it was promised, whether it rounds partial sums. */
cublasStatus_t cublasLtMatmulAlgoGetHeuristic(cublasLtHandle_t handle, cublasLtMatmulDesc_t operation,
                                              cublasLtMatrixLayout_t a, cublasLtMatrixLayout_t b,
                                              cublasLtMatrixLayout_t c, cublasLtMatrixLayout_t d,
                                              cublasLtMatmulPreference_t preference, int wanted,
                                              cublasLtMatmulHeuristicResult_t *results, int *count)
{
    *count = 0;
    if (handle == NULL || wanted < 1)
        return CUBLAS_STATUS_INVALID_VALUE;
    cublasStatus_t status = check(*operation, *a, *b, *c, *d, preference->aligned);
    for (int i = 0; status == CUBLAS_STATUS_SUCCESS && i < ALGORITHMS && i < wanted; i++) {
        size_t workspace = (size_t)i * WORKSPACE_PART;
        if (workspace > preference->workspace)
            break;
        cublasLtMatmulHeuristicResult_t *result = &results[(*count)++];
        *result = {};
        result->workspaceSize = workspace;
        result->algo.data[0] = (uint64_t)(i + 1);
        for (int j = 0; j < 4; j++)
            result->algo.data[1 + j] = preference->aligned[j];
        result->algo.data[5] = preference->reductions & CUBLASLT_REDUCTION_SCHEME_OUTPUT_TYPE;
    }
    return status;
}

cublasStatus_t cublasLtMatmulAlgoCheck(cublasLtHandle_t handle, cublasLtMatmulDesc_t operation,
                                       cublasLtMatrixLayout_t a, cublasLtMatrixLayout_t b, cublasLtMatrixLayout_t c,
                                       cublasLtMatrixLayout_t d, const cublasLtMatmulAlgo_t *algorithm,
                                       cublasLtMatmulHeuristicResult_t *result)
{
    if (handle == NULL || algorithm->data[0] < 1 || algorithm->data[0] > ALGORITHMS)
        return CUBLAS_STATUS_INVALID_VALUE;
    uint32_t aligned[4];
    for (int i = 0; i < 4; i++) {
        aligned[i] = (uint32_t)algorithm->data[1 + i];
        if (aligned[i] == 0)
            return CUBLAS_STATUS_INVALID_VALUE;
    }
    *result = {};
    result->algo = *algorithm;
    result->workspaceSize = (size_t)(algorithm->data[0] - 1) * WORKSPACE_PART;
    return check(*operation, *a, *b, *c, *d, aligned);
}

size_t cublasLtGetVersion(void)
{
    return 1;
}

cublasStatus_t cublasLtMatmul(cublasLtHandle_t handle, cublasLtMatmulDesc_t operation, const void *alpha, const void *a,
                              cublasLtMatrixLayout_t a_layout, const void *b, cublasLtMatrixLayout_t b_layout,
                              const void *beta, const void *c, cublasLtMatrixLayout_t c_layout, void *d,
                              cublasLtMatrixLayout_t d_layout, const cublasLtMatmulAlgo_t *algorithm, void *workspace,
                              size_t workspace_bytes, cudaStream_t stream)
{
    std::lock_guard<std::recursive_mutex> held(emulated::lock());
    uint32_t aligned[4];
    const void *data[4] = {a, b, c, d};
    if (handle == NULL || algorithm == NULL || algorithm->data[0] < 1 || algorithm->data[0] > ALGORITHMS)
        return CUBLAS_STATUS_INVALID_VALUE;
    size_t wanted = (size_t)(algorithm->data[0] - 1) * WORKSPACE_PART;
    if (wanted > workspace_bytes || (wanted > 0 && !emulated::is_device(workspace, workspace_bytes)))
        return CUBLAS_STATUS_INVALID_VALUE;
    for (int i = 0; i < 4; i++) {
        aligned[i] = (uint32_t)algorithm->data[1 + i];
        if ((uintptr_t)data[i] % aligned[i] != 0)
            return CUBLAS_STATUS_INVALID_VALUE;
    }
    cublasStatus_t status = check(*operation, *a_layout, *b_layout, *c_layout, *d_layout, aligned);
    if (status != CUBLAS_STATUS_SUCCESS)
        return status;
    product p = {*operation,
                 *a_layout,
                 *b_layout,
                 *c_layout,
                 *d_layout,
                 a,
                 b,
                 c,
                 d,
                 *(const float *)alpha,
                 *(const float *)beta,
                 (int)algorithm->data[0],
                 algorithm->data[5] != 0 && d_layout->type == CUDA_R_16BF};
    if (!places_are_right(p))
        return CUBLAS_STATUS_INVALID_VALUE;
    cudaError_t code = emulated::enqueue(stream, [p] {
        for (int batch = 0; batch < p.d.batch; batch++)
            multiply_one(p, batch);
    });
    return code == cudaSuccess ? CUBLAS_STATUS_SUCCESS : CUBLAS_STATUS_EXECUTION_FAILED;
}
