#include "ops/trial.h"

#include <assert.h>
#include <math.h>
#include <string.h>

#include "base/numbers.h"
#include "ops/shapes.h"

#define GUARD 64 /* elements before and behind a tensor; they are NaN, so that a result shows if one was read */

void zi_trial_begin(zi_trial *t)
{
    t->random = ZI_RANDOM_SEED;
    t->tensor_count = t->result_count = t->answer_count = 0;
}

int zi_trial_rehearses(const zi_trial *t)
{
    return t->options->rehearse;
}

void zi_trial_view(zi_input *input, int flags)
{
    if (flags & VIEWS)
        input->left = 16, input->right = 24;
    if (flags & ODD_VIEWS)
        input->left = 3, input->right = 5;
}

/* ---- numbers ----------------------------------------------------------------------------------------------------- */

static double random_unit(zi_trial *t)
{
    return (double)zi_random_bits(&t->random) / 0x1p31 - 1;
}

float zi_trial_random(zi_trial *t)
{
    return (float)random_unit(t);
}

/* An element of a row. For int8 the row's first element is its largest, and the others lie near whole shares of it, so
 * that no rounding is near a tie. */
static float random_element(zi_trial *t, int64_t column)
{
    double x = random_unit(t);
    if (t->precision != ZI_PRECISION_INT8)
        return (float)x;
    return column == 0 ? 127.0f / 128 : (float)(copysign(floor(fabs(x) * 126.99) + 0.2 * fabs(x), x) / 128);
}

zimage_status zi_trial_memory(zi_trial *t, int64_t bytes, void **data)
{
    *data = zi_arena_alloc(t->host, (size_t)bytes);
    if (!*data)
        return zi_fail_memory(t->run.error, "a case", (size_t)bytes);
    memset(*data, 0, (size_t)bytes);
    return ZIMAGE_OK;
}

zimage_status zi_trial_floats(zi_trial *t, const zi_input *input, int64_t count, int64_t n, float **values)
{
    void *data;
    ZI_TRY(zi_trial_memory(t, count * (int64_t)sizeof(float), &data));
    *values = data;
    for (int64_t i = 0; i < count; i++)
        (*values)[i] = input->magnitude * random_element(t, i % n) + input->mean;
    return ZIMAGE_OK;
}

/* ---- rounding ---------------------------------------------------------------------------------------------------- */

void zi_cases_round_rows(zimage_compute compute, float *x, int64_t rows, int64_t n)
{
    for (; rows > 0; rows--, x += n) {
        float largest = 0;
        for (int64_t i = 0; i < n; i++)
            largest = fmaxf(largest, fabsf(x[i]));
        for (int64_t i = 0; i < n; i++)
            x[i] = compute == ZIMAGE_COMPUTE_INT8 ? rintf(x[i] * (127 / largest)) * (largest / 127)
                                                  : zi_bf16_to_f32(zi_f32_to_bf16(x[i]));
    }
}

static int stores_bf16(const zi_trial *t)
{
    return t->precision == ZI_PRECISION_STORED || t->precision == ZI_PRECISION_FP8;
}

int zi_trial_rounds(const zi_trial *t)
{
    return t->precision == ZI_PRECISION_BF16 || t->precision == ZI_PRECISION_INT8;
}

/* What the backend under test would keep of an activation's elements. */
static void round_for_reference(const zi_trial *t, const zi_input *input, float *values, int64_t rows, int64_t n)
{
    if (!t->reference)
        return;
    if (stores_bf16(t) && !input->exact)
        zi_cases_round_rows(ZIMAGE_COMPUTE_BF16, values, rows, n);
    if (zi_trial_rounds(t) && input->operand)
        zi_cases_round_rows(t->options->compute, values, rows, n);
}

zimage_status zi_trial_round(zi_trial *t, zi_tensor *x)
{
    if (!t->reference || !zi_trial_rounds(t))
        return ZIMAGE_OK;
    void *data;
    int64_t count = zi_tensor_count(x);
    ZI_TRY(zi_trial_memory(t, count * (int64_t)sizeof(float), &data));
    ZI_TRY(zi_table(&t->run)->download(&t->run, data, x));
    zi_cases_round_rows(t->options->compute, data, zi_row_count(x), zi_features(x));
    return zi_table(&t->run)->upload(&t->run, x, data);
}

/* ---- tensors between guards -------------------------------------------------------------------------------------- */

static int64_t whole_count(const zi_trial_tensor *k)
{
    return k->rows * (k->left + k->columns + k->right) + 2 * GUARD;
}

/* Where an element of [rows][columns] lies in the whole. */
static int64_t place_of(const zi_trial_tensor *k, int64_t element)
{
    int64_t row = element / k->columns, column = element % k->columns;
    return GUARD + row * (k->left + k->columns + k->right) + k->left + column;
}

static zimage_status upload_whole(zi_trial *t, const zi_trial_tensor *k)
{
    void *data;
    zi_tensor whole = k->whole;
    ZI_TRY(zi_trial_memory(t, whole_count(k) * (int64_t)sizeof(float), &data));
    memset(data, 0xff, (size_t)whole_count(k) * sizeof(float));
    for (int64_t i = 0; i < k->rows * k->columns; i++)
        ((float *)data)[place_of(k, i)] = k->uploaded[i];
    return zi_table(&t->run)->upload(&t->run, &whole, data);
}

zimage_status zi_trial_input_of(zi_trial *t, zi_tensor *x, const zi_input *input, float *values, int dims,
                                const int64_t *shape)
{
    assert(t->tensor_count < ZI_TRIAL_TENSORS && (dims == 2 || (input->left == 0 && input->right == 0)));
    const zi_ops_table *table = zi_table(&t->run);
    zi_trial_tensor *k = &t->tensors[t->tensor_count++];
    *k = (zi_trial_tensor){.columns = shape[dims - 1], .left = input->left, .right = input->right};
    k->rows = zi_shape_count(dims, shape) / k->columns;
    k->uploaded = values;
    k->written = input->written;
    round_for_reference(t, input, values, k->rows, k->columns);
    const int64_t count = whole_count(k);
    ZI_TRY((input->exact ? table->alloc_f32 : table->alloc)(&t->run, &k->whole, 1, &count));
    ZI_TRY(upload_whole(t, k));
    *x = zi_tensor_rows(&k->whole, GUARD, count - 2 * GUARD);
    if (input->left == 0 && input->right == 0) {
        *x = zi_tensor_shaped(x, dims, shape);
    } else {
        *x = zi_tensor_shaped(x, 2, (const int64_t[]){k->rows, k->left + k->columns + k->right});
        *x = zi_tensor_columns(x, k->left, k->columns);
    }
    k->data = x->data;
    k->offset = x->offset;
    return ZIMAGE_OK;
}

zimage_status zi_trial_input(zi_trial *t, zi_tensor *x, const zi_input *input, int dims, const int64_t *shape)
{
    float *values;
    ZI_TRY(zi_trial_floats(t, input, zi_shape_count(dims, shape), shape[dims - 1], &values));
    return zi_trial_input_of(t, x, input, values, dims, shape);
}

zimage_status zi_trial_restore(zi_trial *t, const zi_tensor *x)
{
    for (int i = 0; i < t->tensor_count; i++)
        if (t->tensors[i].data == x->data && t->tensors[i].offset == x->offset)
            return upload_whole(t, &t->tensors[i]);
    assert(!"zi_trial_restore: not an input of this case");
    return ZIMAGE_OK;
}

/* ---- weights ----------------------------------------------------------------------------------------------------- */

/* The element is cut to the type, not rounded. */
static void store_element(zi_dtype dtype, float x, uint8_t *out)
{
    uint32_t bits;
    memcpy(&bits, &x, sizeof(bits));
    uint32_t exponent = bits >> 23 & 255, half = bits >> 16;
    if (dtype == ZI_F16)
        half = (half & 0x8000) | (exponent > 112 ? (exponent - 112) << 10 | (bits >> 13 & 1023) : 0);
    if (dtype == ZI_F32)
        memcpy(out, &bits, 4);
    else
        memcpy(out, &(uint16_t){(uint16_t)half}, 2);
}

/* Bytes between guards; odd: at an odd address. */
static zimage_status guarded_bytes(zi_trial *t, int64_t bytes, int odd, uint8_t **out)
{
    void *data;
    ZI_TRY(zi_trial_memory(t, bytes + 2 * GUARD + 1, &data));
    memset(data, 0xff, (size_t)bytes + 2 * GUARD + 1);
    *out = (uint8_t *)data + GUARD + (odd ? 1 : 0);
    return ZIMAGE_OK;
}

static zimage_status random_elements(zi_trial *t, zi_dtype dtype, int64_t count, int64_t columns, float magnitude,
                                     int flags, const uint8_t **out)
{
    uint8_t *bytes;
    int64_t size = (int64_t)zi_dtype_size(dtype);
    ZI_TRY(guarded_bytes(t, count * size, flags & UNALIGNED, &bytes));
    for (int64_t i = 0; i < count; i++) {
        float x = magnitude * random_element(t, i % columns);
        uint8_t half[2];
        if (flags & SHORT) {
            uint16_t bits;
            store_element(ZI_BF16, x, half);
            memcpy(&bits, half, sizeof(bits));
            x = zi_bf16_to_f32(bits);
        }
        store_element(dtype, x, bytes + i * size);
    }
    *out = bytes;
    return ZIMAGE_OK;
}

static zimage_status random_groups(zi_trial *t, zi_weight *w, int flags)
{
    uint8_t *packed;
    int64_t count = zi_weight_count(w), bytes = count * w->bits / 8;
    ZI_TRY(guarded_bytes(t, bytes, flags & UNALIGNED, &packed));
    for (int64_t i = 0; i < bytes; i++)
        packed[i] = (uint8_t)zi_random_bits(&t->random);
    w->data = packed;
    w->bytes = (size_t)bytes;
    int64_t groups = count / w->group;
    ZI_TRY(random_elements(t, w->scale_dtype, groups, groups, 0.1f, flags & UNALIGNED, &w->scales));
    return random_elements(t, w->scale_dtype, groups, groups, 1, flags & UNALIGNED, &w->biases);
}

/* What a bit of zi_stored means; bits 0: not groups. */
typedef struct format {
    int stored;
    zi_dtype dtype; /* of elements; of scales and biases */
    int bits, group;
} format;

static const format formats[] = {
    {F32, ZI_F32, 0, 0},     {F16, ZI_F16, 0, 0},  {BF16, ZI_BF16, 0, 0},        {Q4, ZI_BF16, 4, 32},
    {Q4_64, ZI_BF16, 4, 64}, {Q8, ZI_BF16, 8, 32}, {Q6_128_F16, ZI_F16, 6, 128}, {Q3_64_F32, ZI_F32, 3, 64},
};

zimage_status zi_trial_weight(zi_trial *t, zi_weight *w, int stored, int flags, int dims, const int64_t *shape)
{
    const format *f = formats;
    while (f->stored != stored)
        f++;
    *w = (zi_weight){.name = "test", .dtype = f->dtype, .dims = dims};
    memcpy(w->shape, shape, (size_t)dims * sizeof(*shape));
    int64_t count = zi_weight_count(w), columns = dims > 1 ? count / shape[0] : count;
    if (f->bits > 0 && dims > 1) {
        w->dtype = ZI_GROUPED;
        w->scale_dtype = f->dtype;
        w->bits = f->bits;
        w->group = f->group;
        if (columns % f->group != 0)
            return zi_fail(t->run.error, ZIMAGE_ERROR_ARGUMENT, "a case has rows of %lld weights in groups of %d",
                           (long long)columns, f->group);
        return random_groups(t, w, flags);
    }
    if (f->bits > 0)
        w->dtype = ZI_BF16;
    w->bytes = (size_t)count * zi_dtype_size(w->dtype);
    return random_elements(t, w->dtype, count, columns, 1, flags, &w->data);
}

zimage_status zi_trial_round_weight(zi_trial *t, zi_weight *w)
{
    if (!t->reference || t->precision == ZI_PRECISION_F32)
        return ZIMAGE_OK;
    void *data;
    int64_t count = zi_weight_count(w);
    ZI_TRY(zi_trial_memory(t, count * (int64_t)sizeof(float), &data));
    zi_weight_unpack(w, 0, count, data);
    zi_cases_round_rows(t->options->compute, data, w->shape[0], count / w->shape[0]);
    w->dtype = ZI_F32;
    w->data = data;
    w->bytes = (size_t)count * sizeof(float);
    return ZIMAGE_OK;
}

/* ---- results ----------------------------------------------------------------------------------------------------- */

void zi_trial_values(zi_trial *t, const float *values, int64_t count, const zi_bound *bound, double scale)
{
    assert(t->result_count < ZI_TRIAL_RESULTS - 1);
    t->results[t->result_count++] = (zi_trial_result){.values = values, .count = count, .bound = bound, .scale = scale};
}

/* The tensor that a view is of; NULL: none of this case. */
static const zi_trial_tensor *owner_of(const zi_trial *t, const zi_tensor *x)
{
    for (int i = 0; i < t->tensor_count; i++) {
        const zi_trial_tensor *k = &t->tensors[i];
        int64_t first = k->whole.offset;
        if (k->whole.data == x->data && x->offset >= first && x->offset < first + whole_count(k))
            return k;
    }
    return NULL;
}

static zimage_status download_view(zi_trial *t, float *values, const zi_tensor *x)
{
    const zi_trial_tensor *k = owner_of(t, x);
    int64_t n = zi_features(x), rows = zi_row_count(x);
    void *whole;
    assert(k != NULL);
    ZI_TRY(zi_trial_memory(t, whole_count(k) * (int64_t)sizeof(float), &whole));
    ZI_TRY(zi_table(&t->run)->download(&t->run, whole, &k->whole));
    for (int64_t row = 0; row < rows; row++)
        memcpy(values + row * n, (float *)whole + x->offset - k->whole.offset + row * x->ld, (size_t)n * sizeof(float));
    return ZIMAGE_OK;
}

zimage_status zi_trial_result_of(zi_trial *t, const zi_tensor *x, const zi_bound *bound, double scale)
{
    void *values;
    int64_t count = zi_tensor_count(x);
    ZI_TRY(zi_trial_memory(t, count * (int64_t)sizeof(float), &values));
    if (zi_tensor_is_dense(x))
        ZI_TRY(zi_table(&t->run)->download(&t->run, values, x));
    else
        ZI_TRY(download_view(t, values, x));
    zi_trial_values(t, values, count, bound, scale);
    return ZIMAGE_OK;
}

void zi_trial_answer(zi_trial *t, int yes)
{
    assert(t->answer_count < ZI_TRIAL_ANSWERS);
    t->answers[t->answer_count++] = yes ? 1.0f : 0.0f;
}

/* 1: finite as far as was seen until now. The queue may still find that it is not. */
static zimage_status finish_check(zi_trial *t, int *finite)
{
    ZI_TRY(zi_table(&t->run)->name_check(&t->run, "a case"));
    zimage_status status = zi_table(&t->run)->finish(&t->run);
    if (status == ZIMAGE_ERROR_NOT_FINITE)
        *finite = 0;
    return *finite ? status : ZIMAGE_OK;
}

zimage_status zi_trial_finite(zi_trial *t, const zi_tensor *x, int *finite)
{
    *finite = 0;
    ZI_TRY(zi_table(&t->run)->check_finite(&t->run, x, finite));
    return *finite ? finish_check(t, finite) : ZIMAGE_OK;
}

static int is_guard(float x, int exact)
{
    uint32_t bits;
    memcpy(&bits, &x, sizeof(bits));
    return exact ? bits == UINT32_MAX : isnan(x); /* another type has another NaN */
}

static int same_number(float x, float uploaded, int exact)
{
    if (!exact)
        uploaded = zi_bf16_to_f32(zi_f32_to_bf16(uploaded));
    return x == uploaded || (isnan(x) && isnan(uploaded));
}

/* Guards [first, last) of the whole. */
static int guards_whole(const float *whole, int64_t first, int64_t last, int exact)
{
    for (int64_t i = first; i < last; i++)
        if (!is_guard(whole[i], exact))
            return 0;
    return 1;
}

static const char *inspect(const zi_trial_tensor *k, const float *whole)
{
    int exact = k->whole.dtype == ZI_F32;
    int64_t end = GUARD;
    for (int64_t row = 0; row < k->rows; row++) {
        int64_t begin = place_of(k, row * k->columns);
        if (!guards_whole(whole, end, begin, exact))
            return "wrote outside its output";
        end = begin + k->columns;
        for (int64_t i = 0; i < k->columns && !k->written; i++)
            if (!same_number(whole[begin + i], k->uploaded[row * k->columns + i], exact))
                return "changed an input";
    }
    int inside = guards_whole(whole, 0, GUARD, exact) && guards_whole(whole, end, whole_count(k), exact);
    return inside ? NULL : "wrote outside its output";
}

zimage_status zi_trial_end(zi_trial *t, const char **fault)
{
    static const zi_bound equal = {{1e-9, 1e-9, 1e-9, 1e-9, 1e-9}};
    *fault = NULL;
    if (t->answer_count > 0)
        t->results[t->result_count++] =
            (zi_trial_result){.values = t->answers, .count = t->answer_count, .bound = &equal, .scale = 1};
    for (int i = 0; i < t->tensor_count && !zi_trial_rehearses(t) && *fault == NULL; i++) {
        const zi_trial_tensor *k = &t->tensors[i];
        void *whole;
        ZI_TRY(zi_trial_memory(t, whole_count(k) * (int64_t)sizeof(float), &whole));
        ZI_TRY(zi_table(&t->run)->download(&t->run, whole, &k->whole));
        *fault = inspect(k, whole);
    }
    return zi_table(&t->run)->finish(&t->run);
}
