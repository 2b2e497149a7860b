/*
 * Every operation of the CUDA table against the reference table: odd sizes, guards around every operand, in float32 and
 * in bf16, with cuDNN and with the kernels that stand in for it. Skipped without a usable GPU.
 *
 * In bf16 the reference sees operands that were rounded to bf16, so that what is left is the rounding of results (2^-9 of
 * a value) and, where an operation stores something between, of that too.
 */
#include <dirent.h>
#include <dlfcn.h>
#include <limits.h>
#include <unistd.h>

#include "cuda/cuda.h"
#include "ops/shapes.h"
#include "support.h"

#define SKIPPED 77
#define EPS     1e-6f
#define GUARD   64 /* numbers before and behind a tensor, NaN */
#define WEIGHTS 4096
#define LIBRARY ZIMAGE_CUDA_LIBRARY
#define SHAPE(...)                                                                                                     \
    (int)(sizeof((int64_t[]){__VA_ARGS__}) / sizeof(int64_t)), (const int64_t[])                                       \
    {                                                                                                                  \
        __VA_ARGS__                                                                                                    \
    }

static zi_ops_cuda_new_fn *cuda_new;
static int64_t (*operations)(const zi_ops *ops); /* NULL: a real GPU */
static zi_cuda_device first_gpu;
static zimage_error error = ZIMAGE_ERROR_INIT;
static void *kept[WEIGHTS]; /* weights without an id: the GPU knows them by address, so none is freed before the end */
static int kept_count;

/* A tensor, between guards on the GPU, of both tables. */
typedef struct pair {
    zi_tensor gpu, host, guarded;
} pair;

static zi_run gpu_run, host_run, *const on_gpu = &gpu_run, *const on_host = &host_run;

/* The checks under way. */
static struct {
    int bf16;
    int fp8, depth; /* products that follow each other */
    uint64_t random;
    int failed;
    char name[120];
} run;

/* ---- operands ------------------------------------------------------------------------------------------------------ */

static void ok(zimage_status status)
{
    if (status != ZIMAGE_OK)
        fail_msg("%s: %s", run.name, error.message);
}

static float random_number(float magnitude)
{
    run.random ^= run.random << 13;
    run.random ^= run.random >> 7;
    run.random ^= run.random << 17;
    return magnitude * ((float)(run.random >> 40) * 0x1p-23f - 1);
}

static int64_t count_of(int dims, const int64_t *shape)
{
    int64_t count = 1;
    for (int i = 0; i < dims; i++)
        count *= shape[i];
    return count;
}

/* What the GPU stores of a number. */
static float stored(const zi_tensor *tensor, float x)
{
    return tensor->dtype == ZI_BF16 ? zi_bf16_to_f32(zi_f32_to_bf16(x)) : x;
}

static pair make(zi_op_alloc *alloc, float magnitude, int dims, const int64_t *shape)
{
    pair p;
    int64_t count = count_of(dims, shape);
    ok(alloc(on_gpu, &p.guarded, 1, (const int64_t[]){count + 2 * GUARD}));
    float *values = malloc((size_t)(count + 2 * GUARD) * sizeof *values);
    assert_non_null(values);
    for (int64_t i = 0; i < count + 2 * GUARD; i++)
        values[i] = i < GUARD || i >= count + GUARD ? NAN : stored(&p.guarded, random_number(magnitude));
    ok(zi_table(on_gpu)->upload(on_gpu, &p.guarded, values));
    p.gpu = zi_tensor_rows(&p.guarded, GUARD, count);
    p.gpu = zi_tensor_shaped(&p.gpu, dims, shape);
    ok(zi_table(on_host)->alloc(on_host, &p.host, dims, shape));
    ok(zi_table(on_host)->upload(on_host, &p.host, values + GUARD));
    free(values);
    return p;
}

/* An activation; float32 numbers. */
static pair activation(float magnitude, int dims, const int64_t *shape)
{
    return make(zi_table(on_gpu)->alloc, magnitude, dims, shape);
}

static pair exact(float magnitude, int dims, const int64_t *shape)
{
    return make(zi_table(on_gpu)->alloc_f32, magnitude, dims, shape);
}

static uint8_t *keep(size_t bytes)
{
    assert_true(kept_count < WEIGHTS);
    uint8_t *data = malloc(bytes + 8);
    assert_non_null(data);
    kept[kept_count++] = data;
    return data;
}

static uint8_t *random_numbers(zi_dtype dtype, int64_t count, float magnitude, int round)
{
    uint8_t *data = keep((size_t)count * 4) + 1; /* at an odd address */
    for (int64_t i = 0; i < count; i++) {
        float x = random_number(magnitude);
        uint16_t half = zi_f32_to_bf16(x);
        if (round || dtype == ZI_BF16)
            x = zi_bf16_to_f32(half);
        if (dtype == ZI_F16)
            half = (uint16_t)(0x2C00 | (random_number(1) > 0) << 15 | ((uint32_t)i * 7919 & 0x380)); /* exact in bf16 */
        if (dtype == ZI_F32)
            memcpy(data + 4 * i, &x, 4);
        else
            memcpy(data + 2 * i, &half, 2);
    }
    return data;
}

enum { Q4 = 100, Q8 };

/* stored_as: a zi_dtype, or Q4, Q8. Dense numbers are such that bf16 holds them; groups leave a rounding. */
static zi_weight weight(int stored_as, int dims, const int64_t *shape)
{
    int packed = stored_as >= Q4;
    int64_t count = count_of(dims, shape);
    zi_weight w = {.name = "test", .dtype = packed ? ZI_GROUPED : (zi_dtype)stored_as, .dims = dims};
    memcpy(w.shape, shape, (size_t)dims * sizeof *shape);
    if (!packed) {
        w.data = random_numbers(w.dtype, count, 1, run.bf16 && dims > 1);
        return w;
    }
    w.bits = stored_as == Q4 ? 4 : 8;
    w.group = 32;
    w.scale_dtype = ZI_BF16;
    w.scales = random_numbers(ZI_BF16, count / 32, 0.1f, 0);
    w.biases = random_numbers(ZI_BF16, count / 32, 1, 0);
    uint8_t *numbers = keep((size_t)count * (size_t)w.bits / 8);
    for (int64_t i = 0; i < count * w.bits / 8; i++)
        numbers[i] = (uint8_t)(random_number(128) + 128);
    w.data = numbers;
    return w;
}

/* ---- comparing ----------------------------------------------------------------------------------------------------- */

static void begin(const char *format, ...)
{
    va_list arguments;
    va_start(arguments, format);
    vsnprintf(run.name, sizeof run.name, format, arguments);
    va_end(arguments);
    run.random = 88172645463325252u;
    run.depth = 1;
}

/* Errors as shares of the largest value. */
static void compare(const pair *p, double allowed_f32, double allowed_bf16)
{
    int64_t count = zi_tensor_count(&p->host);
    float *values = malloc((size_t)(count + 2 * GUARD) * sizeof *values);
    assert_non_null(values);
    ok(zi_table(on_gpu)->download(on_gpu, values, &p->guarded));
    int whole = 1;
    for (int64_t i = 0; i < GUARD; i++)
        whole &= isnan(values[i]) && isnan(values[GUARD + count + i]);
    double found = relative_error(values + GUARD, p->host.data, (size_t)count),
           allowed = run.bf16 ? allowed_bf16 : allowed_f32;
    if (run.fp8)                         /* 2^-4 of each operand */
        allowed = 0.1 * sqrt(run.depth); /* their errors are independent */
    if (!whole || !(found <= allowed)) {
        printf("%s, %s: error %.2g, allowed %.2g%s\n", run.name, run.bf16 ? "bf16" : "f32", found, allowed,
               whole ? "" : "; wrote outside its output");
        run.failed = 1;
    }
    free(values);
}

/* |gpu - host| / |host|, for what is large enough to have an average. */
static double mean_error(const pair *p)
{
    int64_t count = zi_tensor_count(&p->gpu);
    float *values = malloc((size_t)count * sizeof *values);
    double errors = 0, squares = 0;
    assert_non_null(values);
    ok(zi_table(on_gpu)->download(on_gpu, values, &p->gpu));
    for (int64_t i = 0; i < count; i++) {
        double want = ((const float *)p->host.data)[i], off = values[i] - want;
        errors += off * off;
        squares += want * want;
    }
    free(values);
    return sqrt(errors / squares);
}

/* ---- the operations ------------------------------------------------------------------------------------------------ */

enum { BIASED = 1, SUMMED = 2 }; /* y = ... + bias; y += ... + bias */

static void linear(int64_t rows, int64_t in, int64_t out, int stored_as, int with_bias)
{
    begin("linear %d x %d -> %d, stored %d", (int)rows, (int)in, (int)out, stored_as);
    pair x = activation(1, SHAPE(rows, in)), y = activation(1, SHAPE(rows, out));
    zi_weight w = weight(stored_as, SHAPE(out, in)), b = weight(ZI_BF16, SHAPE(out));
    const zi_weight *bias = with_bias ? &b : NULL;
    ok(zi_table(on_gpu)->linear(on_gpu, &y.gpu, &x.gpu, &w, bias, with_bias == SUMMED));
    ok(zi_table(on_host)->linear(on_host, &y.host, &x.host, &w, bias, with_bias == SUMMED));
    compare(&y, 3e-6, stored_as >= Q4 || with_bias == SUMMED ? 0x1p-7 : 0x1p-8); /* bias + y was rounded, too */
}

/* To round to bf16 once costs 1.66e-3 on average, twice 2.3e-3, which 30 layers multiply. */
static void rounded_once(void)
{
    begin("a bias that is added before rounding");
    pair x = activation(1, SHAPE(300, 512)), y = activation(1, SHAPE(300, 256));
    zi_weight w = weight(ZI_BF16, SHAPE(256, 512)), b = weight(ZI_BF16, SHAPE(256));
    ok(zi_table(on_gpu)->linear(on_gpu, &y.gpu, &x.gpu, &w, &b, 0));
    ok(zi_table(on_host)->linear(on_host, &y.host, &x.host, &w, &b, 0));
    double found = mean_error(&y), allowed = run.bf16 ? 1.75e-3 : 1e-6;
    if (found > allowed) {
        printf("%s: error %.3g on average, allowed %.3g\n", run.name, found, allowed);
        run.failed = 1;
    }
}

/* One vector that is float32 in every computation. */
static void linear_exact(int64_t rows, int64_t in, int64_t out, int stored_as)
{
    begin("float32 vector %d x %d -> %d", (int)rows, (int)in, (int)out);
    pair x = exact(1, SHAPE(rows, in)), y = exact(1, SHAPE(rows, out));
    zi_weight w = weight(stored_as, SHAPE(out, in)), b = weight(ZI_BF16, SHAPE(out));
    ok(zi_table(on_gpu)->linear(on_gpu, &y.gpu, &x.gpu, &w, &b, 0));
    ok(zi_table(on_host)->linear(on_host, &y.host, &x.host, &w, &b, 0));
    compare(&y, 3e-6, 3e-6);
}

static void wide_output(void)
{
    begin("a float32 result of activations");
    pair x = activation(1, SHAPE(33, 64)), y = exact(1, SHAPE(33, 48));
    zi_weight w = weight(ZI_BF16, SHAPE(48, 64)), b = weight(ZI_BF16, SHAPE(48));
    ok(zi_table(on_gpu)->linear(on_gpu, &y.gpu, &x.gpu, &w, &b, 0));
    ok(zi_table(on_host)->linear(on_host, &y.host, &x.host, &w, &b, 0));
    compare(&y, 3e-6, 3e-6);
}

/* Weights that begin at one address and differ in size, in shape, in what is stored. */
static void one_address(void)
{
    begin("weights at one address");
    uint8_t *data = random_numbers(ZI_BF16, 96 * 64, 1, 1);
    const zi_weight weights[] = {
        {.name = "small", .dtype = ZI_BF16, .dims = 2, .shape = {16, 64}, .data = data},
        {.name = "large", .dtype = ZI_BF16, .dims = 2, .shape = {96, 64}, .data = data},
        {.name = "high", .dtype = ZI_BF16, .dims = 2, .shape = {64, 16}, .data = data},
        {.name = "wide", .dtype = ZI_F16, .dims = 2, .shape = {16, 64}, .data = data},
    };
    for (int i = 0; i < 4; i++) {
        const zi_weight *w = &weights[i];
        pair x = activation(1, SHAPE(33, w->shape[1])), y = activation(1, SHAPE(33, w->shape[0]));
        ok(zi_table(on_gpu)->linear(on_gpu, &y.gpu, &x.gpu, w, NULL, 0));
        ok(zi_table(on_host)->linear(on_host, &y.host, &x.host, w, NULL, 0));
        compare(&y, 3e-6, 0x1p-8);
    }
}

/* Numbers that no kernel reads are refused by the weight's name and never taken for others. */
static void refuses(zimage_status status, const zi_weight *w)
{
    assert_int_equal(status, ZIMAGE_ERROR_UNSUPPORTED);
    assert_non_null(strstr(error.message, w->name));
    assert_non_null(strstr(error.message, zi_dtype_name(w->dtype)));
}

static void unknown_storage(void)
{
    begin("a dtype that no kernel reads");
    const zi_ops_table *t = zi_table(on_gpu);
    static const int32_t ids[5] = {0, 1, 2, 3, 4};
    pair x = activation(1, SHAPE(5, 64)), y = activation(1, SHAPE(5, 64)), image = activation(1, SHAPE(3, 3, 8));
    zi_weight good = weight(ZI_BF16, SHAPE(64, 64)), other = good, scales = weight(Q4, SHAPE(64, 64)), vector = other,
              filter = weight(ZI_F32, SHAPE(8, 8, 3, 3));
    other.name = "odd";
    other.dtype = vector.dtype = filter.dtype = ZI_DTYPE_OTHER;
    scales.scale_dtype = ZI_DTYPE_OTHER;
    vector.dims = 1;
    zi_weight grouped = scales; /* a vector of groups */
    grouped.scale_dtype = ZI_BF16;
    grouped.shape[0] = 1;
    zi_conv conv = zi_conv_same(&filter, NULL);
    conv.image_rows = 3;
    refuses(t->linear(on_gpu, &y.gpu, &x.gpu, &other, NULL, 0), &other);
    refuses(t->linear(on_gpu, &y.gpu, &x.gpu, &scales, NULL, 0), &scales);
    refuses(t->linear(on_gpu, &y.gpu, &x.gpu, &good, &vector, 0), &vector);
    refuses(t->linears(on_gpu, 2, (zi_tensor[]){y.gpu, y.gpu}, &x.gpu, (const zi_weight *[]){&good, &other}), &other);
    refuses(t->linear_glu(on_gpu, &y.gpu, &x.gpu, &good, &other), &other);
    refuses(t->norm(on_gpu, &y.gpu, &x.gpu, &(zi_norm){.eps = EPS, .weight = &vector}), &vector);
    refuses(t->norm(on_gpu, &y.gpu, &x.gpu, &(zi_norm){.eps = EPS, .weight = &grouped}), &grouped);
    refuses(t->embed_rows(on_gpu, &y.gpu, &other, ids), &other);
    refuses(t->conv2d(on_gpu, &image.gpu, &image.gpu, &conv), &filter);
}

/* Results that lie in a row, as stored groups do once they are unpacked. */
static void alike_linears(int stored_as)
{
    enum { ROWS = 70, OUT = 64, COUNT = 3 };
    begin("linears of one size, stored %d", stored_as);
    pair x = activation(1, SHAPE(ROWS, 96)), y = activation(1, SHAPE(COUNT * ROWS, OUT));
    zi_weight w[COUNT];
    const zi_weight *weights[COUNT];
    zi_tensor gpu[COUNT], host[COUNT];
    for (int i = 0; i < COUNT; i++) {
        w[i] = weight(stored_as, SHAPE(OUT, 96));
        weights[i] = &w[i];
        gpu[i] = zi_tensor_rows(&y.gpu, i * ROWS, ROWS);
        host[i] = zi_tensor_rows(&y.host, i * ROWS, ROWS);
    }
    ok(zi_table(on_gpu)->linears(on_gpu, COUNT, gpu, &x.gpu, weights));
    ok(zi_table(on_host)->linears(on_host, COUNT, host, &x.host, weights));
    compare(&y, 3e-6, stored_as >= Q4 ? 0x1p-7 : 0x1p-8);
}

static void three_linears(void)
{
    begin("linears");
    pair x = activation(1, SHAPE(70, 96)), y[3];
    zi_weight w[3];
    const zi_weight *weights[3] = {&w[0], &w[1], &w[2]};
    zi_tensor gpu[3], host[3];
    for (int i = 0; i < 3; i++) {
        y[i] = activation(1, SHAPE(70, 32 * (i + 1)));
        w[i] = weight(i == 1 ? Q8 : ZI_BF16, SHAPE(32 * (i + 1), 96));
        gpu[i] = y[i].gpu;
        host[i] = y[i].host;
    }
    ok(zi_table(on_gpu)->linears(on_gpu, 3, gpu, &x.gpu, weights));
    ok(zi_table(on_host)->linears(on_host, 3, host, &x.host, weights));
    for (int i = 0; i < 3; i++)
        compare(&y[i], 3e-6, i == 1 ? 0x1p-7 : 0x1p-8);
}

static void gated(int64_t rows, int64_t in, int64_t out, int first, int second)
{
    begin("gated %d x %d -> %d, stored %d and %d", (int)rows, (int)in, (int)out, first, second);
    pair x = activation(0.3f, SHAPE(rows, in)), y = activation(1, SHAPE(rows, out));
    zi_weight w1 = weight(first, SHAPE(out, in)), w3 = weight(second, SHAPE(out, in));
    ok(zi_table(on_gpu)->linear_glu(on_gpu, &y.gpu, &x.gpu, &w1, &w3));
    ok(zi_table(on_host)->linear_glu(on_host, &y.host, &x.host, &w1, &w3));
    compare(&y, 1e-5, 0x1p-6); /* both products are rounded before they meet */
}

static void attention(int64_t queries, int64_t keys, const zi_attention *s, int in_place)
{
    begin("attention %d queries, %d of %d keys, heads %d / %d x %d%s%s", (int)queries, (int)s->key_length, (int)keys,
          (int)s->heads, (int)s->kv_heads, (int)s->head_dim, s->causal ? ", causal" : "", in_place ? ", in place" : "");
    pair q = activation(2, SHAPE(queries, s->heads * s->head_dim));
    pair k = activation(2, SHAPE(keys, s->kv_heads * s->head_dim));
    pair v = activation(1, SHAPE(keys, s->kv_heads * s->head_dim));
    pair o = in_place ? q : activation(1, SHAPE(queries, s->heads * s->head_dim));
    ok(zi_table(on_gpu)->attention(on_gpu, &o.gpu, &q.gpu, &k.gpu, &v.gpu, s));
    ok(zi_table(on_host)->attention(on_host, &o.host, &q.host, &k.host, &v.host, s));
    compare(&o, 5e-6, 0x1p-6); /* weights are rounded before they multiply the values */
}

/* ---- views of columns ---------------------------------------------------------------------------------------------- */

/* Columns [first, first + count) of both tables' matrices. What lies beside them is compared, too, as it must stay. */
typedef struct view {
    zi_tensor gpu, host;
} view;

static view columns(const pair *p, int64_t first, int64_t count)
{
    return (view){zi_tensor_columns(&p->gpu, first, count), zi_tensor_columns(&p->host, first, count)};
}

/* q, k and v beside each other in one matrix, and the result in its last columns. */
static void attention_of_views(int64_t tokens, const zi_attention *s, int64_t gap)
{
    int64_t many = s->heads * s->head_dim, few = s->kv_heads * s->head_dim;
    begin("attention of views, %d tokens, heads %d / %d x %d, gap %d", (int)tokens, (int)s->heads, (int)s->kv_heads,
          (int)s->head_dim, (int)gap);
    pair all = activation(1, SHAPE(tokens, gap + 2 * many + 2 * few));
    view q = columns(&all, gap, many), k = columns(&all, gap + many, few), v = columns(&all, gap + many + few, few);
    view o = columns(&all, gap + many + 2 * few, many);
    for (int in_place = 0; in_place < 2; in_place++) {
        view *to = in_place ? &q : &o;
        ok(zi_table(on_gpu)->attention(on_gpu, &to->gpu, &q.gpu, &k.gpu, &v.gpu, s));
        ok(zi_table(on_host)->attention(on_host, &to->host, &q.host, &k.host, &v.host, s));
        compare(&all, 5e-6, 0x1p-6);
    }
}

/* From columns [first, first + in) to columns [to, to + out). */
static void linear_of_views(int64_t rows, int64_t first, int64_t in, int64_t to, int64_t out, int stored_as, int bias)
{
    begin("linear of views, %d rows, %d + %d -> %d + %d, stored %d, bias %d", (int)rows, (int)first, (int)in, (int)to,
          (int)out, stored_as, bias);
    pair x = activation(1, SHAPE(rows, first + in + 24)), y = activation(1, SHAPE(rows, to + out + 8));
    zi_weight w = weight(stored_as, SHAPE(out, in)), b = weight(ZI_BF16, SHAPE(out));
    view from = columns(&x, first, in), into = columns(&y, to, out);
    for (int accumulate = 0; accumulate < 2; accumulate++) {
        ok(zi_table(on_gpu)->linear(on_gpu, &into.gpu, &from.gpu, &w, bias ? &b : NULL, accumulate));
        ok(zi_table(on_host)->linear(on_host, &into.host, &from.host, &w, bias ? &b : NULL, accumulate));
        compare(&y, 3e-6, 0x1p-6);
    }
}

/* Three results side by side in one matrix. */
static void linears_of_views(int64_t rows, int64_t first, int64_t in, int64_t out, int stored_as)
{
    begin("linears of views, %d rows, %d + %d -> 3 x %d", (int)rows, (int)first, (int)in, (int)out);
    pair x = activation(1, SHAPE(rows, first + in)), y = activation(1, SHAPE(rows, 3 * out));
    view from = columns(&x, first, in);
    zi_weight w[3];
    zi_tensor gpu[3], host[3];
    for (int i = 0; i < 3; i++) {
        w[i] = weight(stored_as, SHAPE(out, in));
        gpu[i] = columns(&y, i * out, out).gpu;
        host[i] = columns(&y, i * out, out).host;
    }
    const zi_weight *weights[3] = {&w[0], &w[1], &w[2]};
    ok(zi_table(on_gpu)->linears(on_gpu, 3, gpu, &from.gpu, weights));
    ok(zi_table(on_host)->linears(on_host, 3, host, &from.host, weights));
    compare(&y, 3e-6, 0x1p-7);
}

static void gated_of_views(int64_t rows, int64_t first, int64_t in, int64_t to, int64_t out, int stored_as)
{
    begin("gated views, %d rows, %d + %d -> %d + %d", (int)rows, (int)first, (int)in, (int)to, (int)out);
    pair x = activation(0.3f, SHAPE(rows, first + in)), y = activation(1, SHAPE(rows, to + out));
    zi_weight w1 = weight(stored_as, SHAPE(out, in)), w3 = weight(stored_as, SHAPE(out, in));
    view from = columns(&x, first, in), into = columns(&y, to, out);
    ok(zi_table(on_gpu)->linear_glu(on_gpu, &into.gpu, &from.gpu, &w1, &w3));
    ok(zi_table(on_host)->linear_glu(on_host, &into.host, &from.host, &w1, &w3));
    compare(&y, 1e-5, 0x1p-6);
}

static void all_views_of_products(void)
{
    for (int i = 0; i < 3; i++) { /* of 8 elements, 16 bytes; then ones that are not aligned */
        static const int64_t first[] = {16, 8, 3}, to[] = {48, 24, 5};
        for (int bias = 0; bias < 2; bias++) {
            linear_of_views(33, first[i], 64, to[i], 96, ZI_BF16, bias);
            linear_of_views(5, first[i], 96, to[i], 32, Q4, bias);
        }
        linears_of_views(40, first[i], 64, 32, ZI_BF16);
        linears_of_views(9, first[i], 32, 48, Q8);
        gated_of_views(40, first[i], 64, to[i], 96, ZI_BF16);
        gated_of_views(130, first[i], 128, to[i], 256, ZI_BF16); /* the one kernel's, where it is aligned */
        gated_of_views(7, first[i], 64, to[i], 32, Q4);
    }
}

static void rope_of_views(int64_t tokens, int64_t heads, int64_t dim, int64_t first, int64_t more,
                          zi_rope_layout layout)
{
    begin("rope of a view, %d tokens, %d heads x %d at %d, layout %d", (int)tokens, (int)heads, (int)dim, (int)first,
          layout);
    pair all = activation(2, SHAPE(tokens, first + heads * dim + more));
    pair cosines = exact(1, SHAPE(tokens, dim / 2)), sines = exact(1, SHAPE(tokens, dim / 2));
    zi_weight w = weight(ZI_BF16, SHAPE(dim));
    view x = columns(&all, first, heads * dim);
    zi_qk_norm_rope gpu = {&w, &cosines.gpu, &sines.gpu, heads, layout, EPS};
    zi_qk_norm_rope host = {&w, &cosines.host, &sines.host, heads, layout, EPS};
    ok(zi_table(on_gpu)->qk_norm_rope(on_gpu, &x.gpu, &gpu));
    ok(zi_table(on_host)->qk_norm_rope(on_host, &x.host, &host));
    compare(&all, 3e-6, 0x1p-8);
}

/* Columns to columns of another matrix, of the activations' type or float32. */
static void copy_of_views(int64_t rows, int64_t first, int64_t to, int64_t count, int wide)
{
    begin("copy of a view, %d x %d, %d to %d%s", (int)rows, (int)count, (int)first, (int)to, wide ? ", float32" : "");
    pair x = activation(1, SHAPE(rows, first + count + 16));
    pair y = wide ? exact(1, SHAPE(rows, to + count + 8)) : activation(1, SHAPE(rows, to + count + 8));
    view from = columns(&x, first, count), into = columns(&y, to, count);
    ok(zi_table(on_gpu)->copy(on_gpu, &into.gpu, &from.gpu));
    ok(zi_table(on_host)->copy(on_host, &into.host, &from.host));
    compare(&y, 0, 0);
}

static void all_views_of_rows(void)
{
    for (zi_rope_layout layout = ZI_ROPE_ADJACENT; layout <= ZI_ROPE_HALF_SPLIT; layout++) {
        rope_of_views(9, 3, 64, 64, 128, layout);
        rope_of_views(9, 3, 64, 4, 8, layout);
        rope_of_views(5, 2, 34, 6, 2, layout);
        rope_of_views(5, 2, 34, 5, 2, layout); /* pairs that are not aligned */
        rope_of_views(5, 2, 64, 5, 3, layout);
    }
    for (int wide = 0; wide < 2; wide++) {
        copy_of_views(17, 24, 8, 64, wide);
        copy_of_views(5, 3, 9, 31, wide);
        copy_of_views(1, 0, 0, 8, wide);
    }
}

/* ---- operations, continued ----------------------------------------------------------------------------------------- */

/* normed: 0, or the largest scale. */
static void convolution(int64_t rows, int64_t columns, int64_t in, int64_t out, int64_t side, int upsample, int normed,
                        int add, int wide)
{
    begin("conv %d x %d, %d -> %d channels, side %d%s%s%s%s", (int)rows, (int)columns, (int)in, (int)out, (int)side,
          upsample ? ", doubled" : "", normed ? ", normed" : "", add ? ", added" : "", wide ? ", float32" : "");
    const int64_t shape[] = {rows << upsample, columns << upsample, out};
    pair x = activation(1, SHAPE(rows, columns, in)), y = wide ? exact(1, 3, shape) : activation(1, 3, shape);
    pair scale = exact((float)normed, SHAPE(in)), shift = exact(1, SHAPE(in));
    zi_weight w = weight(ZI_F32, SHAPE(out, in, side, side)), b = weight(ZI_BF16, SHAPE(out));
    zi_channel_affine gpu = {scale.gpu, shift.gpu}, host = {scale.host, shift.host};
    zi_conv conv = zi_conv_same(&w, add ? &b : NULL);
    conv.upsample = upsample;
    conv.accumulate = add;
    conv.image_rows = rows;
    conv.affine = normed ? &gpu : NULL;
    ok(zi_table(on_gpu)->conv2d(on_gpu, &y.gpu, &x.gpu, &conv));
    conv.affine = normed ? &host : NULL;
    ok(zi_table(on_host)->conv2d(on_host, &y.host, &x.host, &conv));
    compare(&y, 1e-5, 0x1p-7);
}

/* Rows [first, first + count) of the result from a band of the image. */
static void band(int64_t first, int64_t count, int64_t x_first, int64_t x_count, int upsample, int64_t out)
{
    begin("conv of a band: rows %d + %d from rows %d + %d%s, %d outputs", (int)first, (int)count, (int)x_first,
          (int)x_count, upsample ? ", doubled" : "", (int)out);
    pair x = activation(1, SHAPE(9, 6, 16)), y = activation(1, SHAPE(count, 6 << upsample, out));
    zi_weight w = weight(ZI_F32, SHAPE(out, 16, 3, 3));
    zi_tensor gpu = zi_tensor_rows(&x.gpu, x_first, x_count), host = zi_tensor_rows(&x.host, x_first, x_count);
    zi_conv conv = zi_conv_same(&w, NULL);
    conv.upsample = conv.accumulate = upsample;
    conv.image_rows = 9;
    conv.x_row = x_first;
    conv.y_row = first;
    ok(zi_table(on_gpu)->conv2d(on_gpu, &y.gpu, &gpu, &conv));
    ok(zi_table(on_host)->conv2d(on_host, &y.host, &host, &conv));
    compare(&y, 1e-5, 0x1p-7);
}

/* pads: top, left, bottom, right. All rows of the result, then those behind the first from the rows that they need. */
static void strided(int64_t rows, int64_t columns, int64_t in, int64_t out, int64_t side, int stride, const int pads[4],
                    int affine)
{
    zi_weight w = weight(ZI_F32, SHAPE(out, in, side, side)), b = weight(ZI_BF16, SHAPE(out));
    zi_conv conv = {.weight = &w, .bias = &b, .stride = stride, .pad_top = pads[0], .pad_left = pads[1]};
    conv.pad_bottom = pads[2];
    conv.pad_right = pads[3];
    conv.image_rows = rows;
    begin("conv %d x %d, %d -> %d channels, side %d, stride %d, pads %d %d %d %d%s", (int)rows, (int)columns, (int)in,
          (int)out, (int)side, stride, pads[0], pads[1], pads[2], pads[3], affine ? ", normed" : "");
    int64_t y_rows = zi_conv_rows(&conv, rows), y_columns = zi_conv_columns(&conv, columns);
    pair x = activation(1, SHAPE(rows, columns, in)), scale = exact(1, SHAPE(in)), shift = exact(1, SHAPE(in));
    zi_channel_affine gpu = {scale.gpu, shift.gpu}, host = {scale.host, shift.host};
    for (int64_t first = 0; first < 2 && first < y_rows; first++) {
        int64_t top = first * stride - pads[0], x_first = top > 0 ? top : 0;
        pair y = activation(1, SHAPE(y_rows - first, y_columns, out));
        zi_tensor gpu_x = zi_tensor_rows(&x.gpu, x_first, rows - x_first);
        zi_tensor host_x = zi_tensor_rows(&x.host, x_first, rows - x_first);
        conv.x_row = x_first;
        conv.y_row = first;
        conv.accumulate = (int)first;
        conv.affine = affine ? &gpu : NULL;
        ok(zi_table(on_gpu)->conv2d(on_gpu, &y.gpu, &gpu_x, &conv));
        conv.affine = affine ? &host : NULL;
        ok(zi_table(on_host)->conv2d(on_host, &y.host, &host_x, &conv));
        compare(&y, 1e-5, 0x1p-7);
    }
}

/* On both tables: one with the factors of the GPU, one with those of the host. */
typedef struct norm_pair {
    zi_norm gpu, host;
} norm_pair;

static norm_pair norm_of(zi_norm_kind kind, const zi_weight *w, const pair *scale, const pair *shift)
{
    norm_pair p = {.gpu = {.kind = kind, .eps = EPS, .weight = w}, .host = {.kind = kind, .eps = EPS, .weight = w}};
    if (scale) {
        p.gpu.scale = &scale->gpu;
        p.host.scale = &scale->host;
    }
    if (shift) {
        p.gpu.shift = &shift->gpu;
        p.host.shift = &shift->host;
    }
    return p;
}

static void norm(zi_norm_kind kind, int64_t rows, int64_t n, const zi_weight *w, const pair *scale, const pair *shift)
{
    for (int in_place = 0; in_place < 2; in_place++) {
        begin("norm %d, %d x %d%s%s%s%s", kind, (int)rows, (int)n, w ? ", weight" : "", scale ? ", scale" : "",
              shift ? ", shift" : "", in_place ? ", in place" : "");
        pair x = activation(3, SHAPE(rows, n)), other = activation(1, SHAPE(rows, n)), *y = in_place ? &x : &other;
        norm_pair p = norm_of(kind, w, scale, shift);
        ok(zi_table(on_gpu)->norm(on_gpu, &y->gpu, &x.gpu, &p.gpu));
        ok(zi_table(on_host)->norm(on_host, &y->host, &x.host, &p.host));
        compare(y, 3e-6, 0x1p-8);
    }
}

/* post, next: NULL, or with factors. */
static void residual(int64_t rows, int64_t n, const norm_pair *post, const pair *gate, const norm_pair *next,
                     int in_place)
{
    begin("residual %d x %d%s%s, next %d%s", (int)rows, (int)n, post ? ", post" : "", gate ? ", gate" : "",
          next ? (int)next->gpu.kind : -1, in_place ? ", in place" : "");
    int finite = 0;
    pair x = activation(3, SHAPE(rows, n)), y = activation(3, SHAPE(rows, n)), other = activation(1, SHAPE(rows, n));
    pair *h = in_place ? &y : &other;
    zi_residual gpu = {.gate = gate ? &gate->gpu : NULL, .finite = &finite};
    zi_residual host = {.gate = gate ? &gate->host : NULL, .finite = &finite};
    gpu.post = post ? &post->gpu : NULL;
    host.post = post ? &post->host : NULL;
    gpu.next = next ? &next->gpu : NULL;
    host.next = next ? &next->host : NULL;
    ok(zi_table(on_gpu)->residual(on_gpu, &x.gpu, &y.gpu, next ? &h->gpu : NULL, &gpu));
    ok(zi_table(on_host)->residual(on_host, &x.host, &y.host, next ? &h->host : NULL, &host));
    compare(&x, 3e-6, 0x1p-8);
    if (next)
        compare(h, 3e-6, 0x1p-7);
}

static void norms(int64_t rows, int64_t n, int scaled)
{
    begin("factors of norms");
    zi_weight w = weight(ZI_F16, SHAPE(n)), next = weight(ZI_F32, SHAPE(n));
    const zi_weight *wp = scaled ? &w : NULL, *np = scaled ? &next : NULL;
    pair f = exact(1, SHAPE(n)), g = exact(1, SHAPE(n)), s = exact(1, SHAPE(n)), *fp = scaled ? &f : NULL,
         *gp = scaled ? &g : NULL;
    for (zi_norm_kind kind = ZI_NORM_RMS; kind <= ZI_NORM_LAYER; kind++) {
        norm(kind, rows, n, wp, fp, NULL);
        norm(kind, rows, n, NULL, fp, &s);
    }
    for (int in_place = 0; in_place < 2; in_place++) {
        norm_pair post = norm_of(ZI_NORM_RMS, wp, NULL, NULL), rms = norm_of(ZI_NORM_RMS, np, fp, NULL);
        norm_pair scaled_post = norm_of(ZI_NORM_RMS, wp, fp, NULL), layer = norm_of(ZI_NORM_LAYER, np, fp, &s);
        residual(rows, n, &post, gp, &rms, in_place);
        residual(rows, n, NULL, gp, &layer, in_place);
        residual(rows, n, &scaled_post, gp, NULL, in_place);
        residual(rows, n, NULL, gp, NULL, in_place);
    }
}

static void rope(int64_t tokens, int64_t heads, int64_t dim, zi_rope_layout layout)
{
    begin("rope %d tokens, %d heads x %d, layout %d", (int)tokens, (int)heads, (int)dim, (int)layout);
    pair x = activation(2, SHAPE(tokens, heads * dim));
    pair cosines = exact(1, SHAPE(tokens, dim / 2)), sines = exact(1, SHAPE(tokens, dim / 2));
    zi_weight w = weight(ZI_BF16, SHAPE(dim));
    zi_qk_norm_rope gpu = {&w, &cosines.gpu, &sines.gpu, heads, layout, EPS};
    zi_qk_norm_rope host = {&w, &cosines.host, &sines.host, heads, layout, EPS};
    ok(zi_table(on_gpu)->qk_norm_rope(on_gpu, &x.gpu, &gpu));
    ok(zi_table(on_host)->qk_norm_rope(on_host, &x.host, &host));
    compare(&x, 3e-6, 0x1p-8);
}

static void small_ones(void)
{
    begin("angles");
    float angles[5 * 33];
    pair cosines = exact(1, SHAPE(5, 33)), sines = exact(1, SHAPE(5, 33));
    for (int i = 0; i < 5 * 33; i++)
        angles[i] = random_number(1000);
    ok(zi_table(on_gpu)->rope_table(on_gpu, &cosines.gpu, &sines.gpu, angles));
    ok(zi_table(on_host)->rope_table(on_host, &cosines.host, &sines.host, angles));
    compare(&cosines, 3e-7, 3e-7);
    compare(&sines, 3e-7, 3e-7);
    begin("silu");
    pair x = activation(20, SHAPE(17, 33)), y = activation(1, SHAPE(17, 33));
    ok(zi_table(on_gpu)->silu(on_gpu, &y.gpu, &x.gpu));
    ok(zi_table(on_host)->silu(on_host, &y.host, &x.host));
    compare(&y, 3e-6, 0x1p-8);
    begin("modulation");
    static const zi_modulation kinds[] = {ZI_MODULATION_ONE_PLUS, ZI_MODULATION_TANH,     ZI_MODULATION_COPY,
                                          ZI_MODULATION_COPY,     ZI_MODULATION_ONE_PLUS, ZI_MODULATION_TANH};
    for (int parts = 1; parts <= ZI_MODULATION_PARTS_MAX; parts++) {
        pair m = exact(2, SHAPE(parts * 37));
        ok(zi_table(on_gpu)->modulation(on_gpu, &m.gpu, parts, kinds));
        ok(zi_table(on_host)->modulation(on_host, &m.host, parts, kinds));
        compare(&m, 3e-6, 3e-6);
    }
    for (zi_patch_order order = ZI_PATCH_CHANNELS_LAST; order <= ZI_PATCH_CHANNELS_FIRST; order++) {
        begin("patchify, order %d", order);
        pair latents = exact(1, SHAPE(5, 6, 10)), tokens = activation(1, SHAPE(15, 20)),
             back = exact(1, SHAPE(5, 6, 10));
        ok(zi_table(on_gpu)->patchify(on_gpu, &tokens.gpu, &latents.gpu, 2, order));
        ok(zi_table(on_host)->patchify(on_host, &tokens.host, &latents.host, 2, order));
        compare(&tokens, 0, 0x1p-8);
        begin("unpatchify, order %d", order);
        ok(zi_table(on_gpu)->unpatchify(on_gpu, &back.gpu, &tokens.gpu, 2, order));
        ok(zi_table(on_host)->unpatchify(on_host, &back.host, &tokens.host, 2, order));
        compare(&back, 0, 0x1p-8);
    }
    begin("copy");
    ok(zi_table(on_gpu)->copy(on_gpu, &y.gpu, &x.gpu));
    ok(zi_table(on_host)->copy(on_host, &y.host, &x.host));
    compare(&y, 0, 0);
    begin("embed rows");
    static const int32_t ids[] = {3, 0, 10, 3, 7};
    pair rows = activation(1, SHAPE(5, 64));
    zi_weight table = weight(Q4, SHAPE(11, 64));
    ok(zi_table(on_gpu)->embed_rows(on_gpu, &rows.gpu, &table, ids));
    ok(zi_table(on_host)->embed_rows(on_host, &rows.host, &table, ids));
    compare(&rows, 0, 0x1p-8);
}

/* An activation's numbers moved by `mean`. */
static void move(pair *p, float mean)
{
    float *values = p->host.data;
    for (int64_t i = 0; i < zi_tensor_count(&p->host); i++)
        values[i] = stored(&p->gpu, values[i] + mean);
    ok(zi_table(on_gpu)->upload(on_gpu, &p->gpu, values));
}

/* What is half way between two bytes, what is outside, and NaN, too. */
static void pixels(int64_t count)
{
    begin("%d pixels' bytes", (int)count);
    pair x = exact(1.5f, SHAPE(count));
    float *values = malloc((size_t)count * sizeof *values);
    uint8_t *gpu = malloc(2 * (size_t)count), *host = gpu + count;
    assert_true(values && gpu);
    for (int64_t i = 0; i < count; i++)
        values[i] = i % 4 == 0 ? ((float)(i % 256) + 0.5f) / 127.5f - 1 : i % 101 == 1 ? NAN : random_number(1.5f);
    ok(zi_table(on_gpu)->upload(on_gpu, &x.gpu, values));
    ok(zi_table(on_host)->upload(on_host, &x.host, values));
    ok(zi_table(on_gpu)->download_rgb8(on_gpu, gpu, &x.gpu));
    ok(zi_table(on_host)->download_rgb8(on_host, host, &x.host));
    assert_memory_equal(gpu, host, (size_t)count);
    free(values);
    free(gpu);
}

static void group_norm(int64_t rows, int64_t columns, int64_t channels, int64_t groups, float mean)
{
    begin("group norm %d x %d x %d channels, %d groups, mean %g", (int)rows, (int)columns, (int)channels, (int)groups,
          mean);
    pair sums = exact(1, SHAPE(groups, 4)); /* not numbers: both tables use it as they like */
    pair x = activation(3, SHAPE(rows, columns, channels)), y = activation(1, SHAPE(rows, columns, channels));
    pair scale = exact(1, SHAPE(channels)), shift = exact(1, SHAPE(channels));
    move(&x, mean);
    zi_weight w = weight(ZI_BF16, SHAPE(channels)), b = weight(ZI_F32, SHAPE(channels));
    zi_channel_affine gpu = {scale.gpu, shift.gpu}, host = {scale.host, shift.host};
    int64_t count = rows * columns * channels / groups;
    for (int add = 0; add < 2; add++) { /* twice the same numbers */
        ok(zi_table(on_gpu)->group_norm_sums(on_gpu, &sums.gpu, &x.gpu, add));
        ok(zi_table(on_host)->group_norm_sums(on_host, &sums.host, &x.host, add));
    }
    ok(zi_table(on_gpu)->group_norm_fold(on_gpu, &gpu, &sums.gpu, 2 * count, &w, &b, EPS));
    ok(zi_table(on_host)->group_norm_fold(on_host, &host, &sums.host, 2 * count, &w, &b, EPS));
    compare(&scale, 3e-6, 3e-6);
    compare(&shift, 3e-6, 3e-6);
    ok(zi_table(on_gpu)->channel_affine(on_gpu, &y.gpu, &x.gpu, &gpu));
    ok(zi_table(on_host)->channel_affine(on_host, &y.host, &x.host, &host));
    compare(&y, 3e-6 + 1e-6 * fabsf(mean), 0x1p-8); /* the mean is taken away in float32 */
}

/* A number that is not finite, at that place, is told at the next download by the name of its block. */
static void not_finite(int64_t count, int64_t place, float bad)
{
    zi_tensor x;
    float *values = calloc((size_t)count, sizeof *values);
    assert_non_null(values);
    begin("a number that is not finite");
    ok(zi_table(on_gpu)->alloc(on_gpu, &x, 1, &count));
    ok(zi_table(on_gpu)->upload(on_gpu, &x, values));
    ok(zi_end_block(on_gpu, &x, "the first block"));
    values[place] = bad;
    ok(zi_table(on_gpu)->upload(on_gpu, &x, values));
    ok(zi_end_block(on_gpu, &x, "block %d", (int)place));
    values[place] = 0;
    ok(zi_table(on_gpu)->upload(on_gpu, &x, values));
    ok(zi_end_block(on_gpu, &x, "the last block"));
    char expected[32];
    snprintf(expected, sizeof expected, "block %d holds", (int)place);
    assert_int_equal(zi_table(on_gpu)->finish(on_gpu), ZIMAGE_ERROR_NOT_FINITE);
    assert_non_null(strstr(error.message, expected));
    ok(zi_table(on_gpu)->finish(on_gpu)); /* told once */
    free(values);
}

/* The residual's own check. */
static void residual_not_finite(void)
{
    int finite = 0;
    begin("a residual that is not finite");
    pair x = activation(1, SHAPE(3, 40)), y = activation(1, SHAPE(3, 40));
    float values[120] = {[77] = INFINITY};
    ok(zi_table(on_gpu)->upload(on_gpu, &y.gpu, values));
    const zi_norm post = {.kind = ZI_NORM_RMS, .eps = EPS};
    ok(zi_table(on_gpu)->residual(on_gpu, &x.gpu, &y.gpu, NULL, &(zi_residual){.post = &post, .finite = &finite}));
    ok(zi_end_block_known(on_gpu, finite, "the residual"));
    assert_int_equal(zi_table(on_gpu)->finish(on_gpu), ZIMAGE_ERROR_NOT_FINITE);
    assert_non_null(strstr(error.message, "the residual"));
}

/* ---- operands, and work that comes again --------------------------------------------------------------------------- */

typedef struct chain {
    pair x, q, v, y, z; /* [rows, in], [rows, heads x dim] twice, [rows, in] twice */
    zi_weight wq, wv, wo, w1, w3, w2;
    zi_attention shape;
    zi_norm_kind kind;
} chain;

/* A norm, two products, attention, a residual with the next norm, a gated product: all that operands are for. */
static zimage_status chain_on(const chain *c, zi_run *run_of, int gpu)
{
    const zi_ops_table *t = zi_table(run_of);
    zi_tensor x = gpu ? c->x.gpu : c->x.host, q = gpu ? c->q.gpu : c->q.host, v = gpu ? c->v.gpu : c->v.host;
    zi_tensor y = gpu ? c->y.gpu : c->y.host, z = gpu ? c->z.gpu : c->z.host, h, o, u;
    const zi_norm norm = {.kind = c->kind, .eps = EPS};
    const zi_residual residual = {.post = &norm, .next = &norm}, plain = {.next = &norm};
    zi_arena_mark mark = t->mark(run_of);
    ZI_TRY(t->alloc_operand(run_of, &h, x.shape[0], x.shape[1], &c->wq));
    ZI_TRY(t->alloc_operand(run_of, &o, x.shape[0], q.shape[1], &c->wo));
    ZI_TRY(t->alloc_operand(run_of, &u, x.shape[0], c->w2.shape[1], &c->w2));
    ZI_TRY(t->norm(run_of, &h, &x, &norm));
    ZI_TRY(t->linears(run_of, 2, (zi_tensor[]){q, v}, &h, (const zi_weight *[]){&c->wq, &c->wv}));
    ZI_TRY(t->attention(run_of, &o, &q, &q, &v, &c->shape));
    ZI_TRY(t->linear(run_of, &y, &o, &c->wo, NULL, 0));
    ZI_TRY(t->residual(run_of, &x, &y, &h, c->kind == ZI_NORM_RMS ? &residual : &plain));
    ZI_TRY(t->linear_glu(run_of, &u, &h, &c->w1, &c->w3));
    ZI_TRY(t->linear(run_of, &z, &u, &c->w2, NULL, 0));
    t->release(run_of, mark);
    return zi_end_block(run_of, &z, "the chain");
}

static zimage_status chain_on_gpu(zi_run *run_of, const void *user)
{
    return chain_on(user, run_of, 1);
}

static chain make_chain(zi_norm_kind kind, int64_t rows, int64_t in, int64_t heads, int64_t dim, int64_t hidden,
                        int stored_as)
{
    chain c = {.shape = {heads, heads, dim, 0, 0}, .kind = kind};
    c.x = activation(1, SHAPE(rows, in));
    c.q = activation(1, SHAPE(rows, heads * dim));
    c.v = activation(1, SHAPE(rows, heads * dim));
    c.y = activation(1, SHAPE(rows, in));
    c.z = activation(1, SHAPE(rows, in));
    c.wq = weight(stored_as, SHAPE(heads * dim, in));
    c.wv = weight(stored_as, SHAPE(heads * dim, in));
    c.wo = weight(stored_as, SHAPE(in, heads * dim));
    c.w1 = weight(stored_as, SHAPE(hidden, in));
    c.w3 = weight(stored_as, SHAPE(hidden, in));
    c.w2 = weight(stored_as, SHAPE(in, hidden));
    return c;
}

/* Behind attention, behind the gated product: with the roundings of what went before. */
static void compare_chain(const chain *c)
{
    run.depth = 2;
    compare(&c->x, 5e-6, 0x1p-5);
    run.depth = 4;
    compare(&c->z, 2e-5, 0x1p-4);
}

static void operands_of(zi_norm_kind kind, int64_t rows, int64_t in, int64_t heads, int64_t dim, int64_t hidden,
                        int stored_as)
{
    begin("operands %d x %d, %d heads x %d, hidden %d, norm %d", (int)rows, (int)in, (int)heads, (int)dim, (int)hidden,
          kind);
    chain c = make_chain(kind, rows, in, heads, dim, hidden, stored_as);
    ok(chain_on(&c, on_host, 0));
    ok(chain_on(&c, on_gpu, 1));
    compare(&c.v, 3e-6, stored_as >= Q4 ? 0x1p-6 : 0x1p-7);
    compare_chain(&c);
}

static void operands(int64_t rows, int64_t in, int64_t heads, int64_t dim, int64_t hidden, int stored_as)
{
    operands_of(ZI_NORM_RMS, rows, in, heads, dim, hidden, stored_as);
    operands_of(ZI_NORM_LAYER, rows, in, heads, dim, hidden, stored_as);
}

/* With new numbers each time, and with weights that change in between. */
static void repeated(void)
{
    int64_t blocks = on_gpu->blocks;
    chain c = make_chain(ZI_NORM_RMS, 33, 64, 2, 32, 96, ZI_BF16);
    float *x = c.x.host.data, *start = malloc(33 * 64 * sizeof *start);
    assert_non_null(start);
    for (int i = 0; i < 8; i++) {
        begin("work that comes again, time %d", i);
        for (int64_t j = 0; j < 33 * 64; j++)
            start[j] = stored(&c.x.gpu, random_number(1 + (float)i));
        memcpy(x, start, 33 * 64 * sizeof *start);
        ok(zi_table(on_gpu)->upload(on_gpu, &c.x.gpu, start));
        if (i == 5) /* what was recorded reads memory that is gone */
            ok(zi_table(on_gpu)->forget_weights(on_gpu));
        ok(zi_table(on_gpu)->repeat(on_gpu, &c, sizeof c, chain_on_gpu, &c));
        ok(chain_on(&c, on_host, 0));
        compare_chain(&c);
        assert_int_equal(on_gpu->blocks, blocks + i + 1);
    }
    for (int i = 0; i < 4; i++) { /* one that is not finite has the name of its block, recorded or not */
        start[7] = i % 2 ? NAN : 0;
        ok(zi_table(on_gpu)->upload(on_gpu, &c.x.gpu, start));
        ok(zi_table(on_gpu)->repeat(on_gpu, &c, sizeof c, chain_on_gpu, &c));
        assert_int_equal(zi_table(on_gpu)->finish(on_gpu), i % 2 ? ZIMAGE_ERROR_NOT_FINITE : ZIMAGE_OK);
        assert_true(i % 2 == 0 || strstr(error.message, "the chain") != NULL);
    }
    free(start);
}

/* ---- the beginning of an operation --------------------------------------------------------------------------------- */

/* The call makes so many operations begin: weights may give way only between two of them (cuda/residency.h). */
#define BEGINS(count, call)                                                                                            \
    do {                                                                                                               \
        int64_t before = operations(on_gpu->ops);                                                                      \
        ok(call);                                                                                                      \
        if (operations(on_gpu->ops) != before + (count))                                                               \
            fail_msg("%s: %d operations begin, expected %d", #call, (int)(operations(on_gpu->ops) - before), count);   \
    } while (0)

static void moving_begins(const zi_ops_table *t, zi_tensor *x)
{
    zi_tensor y, operand;
    zi_weight w = weight(ZI_BF16, SHAPE(64, 32)), table = weight(Q4, SHAPE(11, 32));
    float values[5 * 32] = {0};
    static const int32_t ids[5] = {3, 0, 10, 3, 7};
    pair cosines = exact(1, SHAPE(5, 16)), sines = exact(1, SHAPE(5, 16));
    BEGINS(0, t->alloc(on_gpu, &y, SHAPE(5, 32)));
    BEGINS(0, t->alloc_operand(on_gpu, &operand, 5, 32, &w));
    BEGINS(1, t->upload(on_gpu, x, values));
    BEGINS(1, t->download(on_gpu, values, x));
    BEGINS(1, t->copy(on_gpu, &y, x));
    BEGINS(1, t->embed_rows(on_gpu, &y, &table, ids));
    BEGINS(1, t->rope_table(on_gpu, &cosines.gpu, &sines.gpu, values));
    BEGINS(0, t->finish(on_gpu));
}

/* Whether it reads weights or not. What only asks, waits or allocates is none. */
static void an_operation_begins_once(void)
{
    begin("the beginning of an operation");
    if (!operations)
        return;
    const zi_ops_table *t = zi_table(on_gpu);
    char text[200];
    int finite;
    pair x = activation(1, SHAPE(5, 32)), y = activation(1, SHAPE(5, 64)), z[2];
    zi_weight w[2] = {weight(ZI_F16, SHAPE(64, 32)), weight(Q4, SHAPE(64, 32))}, b = weight(ZI_BF16, SHAPE(64)),
              v = weight(ZI_F16, SHAPE(32));
    const zi_norm norm_v = {.kind = ZI_NORM_RMS, .eps = EPS, .weight = &v};
    const zi_residual both_norms = {.post = &norm_v, .next = &norm_v, .finite = &finite};
    zi_tensor operand, both[2];
    for (int i = 0; i < 2; i++) {
        z[i] = activation(1, SHAPE(5, 64));
        both[i] = z[i].gpu;
    }
    ok(t->alloc_operand(on_gpu, &operand, 5, 32, &w[0]));
    moving_begins(t, &x.gpu);
    BEGINS(1, t->norm(on_gpu, &operand, &x.gpu, &norm_v));
    BEGINS(1, t->linear(on_gpu, &y.gpu, &operand, &w[1], &b, 0));
    BEGINS(1, t->linears(on_gpu, 2, both, &operand, (const zi_weight *[]){&w[0], &w[1]}));
    BEGINS(1, t->linear_glu(on_gpu, &y.gpu, &operand, &w[0], &w[1]));
    for (int i = 0; i < 300; i++) /* more checks than are kept: it waits for some of them */
        BEGINS(1, t->residual(on_gpu, &x.gpu, &x.gpu, &operand, &both_norms));
    BEGINS(1, t->check_finite(on_gpu, &x.gpu, &finite));
    ok(t->finish(on_gpu));
    int64_t before = operations(on_gpu->ops);
    t->describe(on_gpu->ops, text, sizeof text);
    (void)t->peak_bytes(on_gpu->ops);
    (void)t->device_bytes(on_gpu->ops);
    (void)t->whole_image_bytes(on_gpu->ops);
    ok(t->name_check(on_gpu, "a block"));
    t->release(on_gpu, t->mark(on_gpu));
    assert_int_equal(operations(on_gpu->ops), before);
}

/* ---- runs ---------------------------------------------------------------------------------------------------------- */

static void all_linears(void)
{
    static const int stored_as[] = {ZI_F32, ZI_F16, ZI_BF16, Q4, Q8};
    for (int i = 0; i < 5; i++) {
        linear(33, 96, 64, stored_as[i], 0);
        linear(7, 160, 95, stored_as[i], i % 2 ? SUMMED : BIASED);
        linear_exact(1, 96, 40, i < 3 && !run.bf16 ? stored_as[i] : ZI_BF16);
    }
    linear(1, 257, 33, ZI_BF16, 0);
    linear(130, 31, 5, ZI_BF16, BIASED);
    linear(300, 1024, 768, ZI_BF16, BIASED);
    linear(300, 1024, 768, ZI_BF16, SUMMED); /* large enough to be timed */
    linear(512, 1024, 1024, Q4, 0);
    linear_exact(3, 31, 5, ZI_BF16);
    linear_exact(2, 520, 70, ZI_BF16);
    rounded_once();
    wide_output();
    one_address();
    unknown_storage();
    three_linears();
    alike_linears(Q8);
    alike_linears(ZI_BF16);
    gated(40, 64, 100, ZI_BF16, ZI_BF16);
    gated(9, 128, 33, Q4, Q4);
    gated(65, 96, 72, ZI_F16, Q8);
    for (int i = 0; i < 3; i++) { /* the sizes of the one kernel: no, one and two pairs of row tiles, and odd ones */
        gated(70 + 190 * i, 64 * (i + 1), 256, ZI_BF16, Q4);
        gated(1 + 380 * i, 128, 512, ZI_BF16, ZI_BF16);
    }
    gated(130, 1024, 512, ZI_BF16, ZI_BF16); /* timed */
    all_views_of_products();
    operands(40, 96, 2, 64, 100, ZI_BF16);
    operands(33, 64, 3, 40, 72, Q8);
    repeated();
}

static void all_fp8(void)
{
    static const int stored_as[] = {ZI_F32, ZI_F16, ZI_BF16, Q4, Q8};
    for (int i = 0; i < 5; i++)
        linear(33, 96, 64, stored_as[i], i % 2);
    linear(300, 1024, 768, ZI_BF16, SUMMED);
    linear(7, 160, 95, ZI_BF16, BIASED); /* sizes that fp8 products do not have */
    one_address();
    unknown_storage();
    three_linears();
    alike_linears(Q8);
    alike_linears(ZI_BF16);
    gated(40, 64, 96, ZI_BF16, ZI_BF16);
    gated(65, 96, 64, ZI_F16, Q8);
    gated(130, 128, 256, ZI_BF16, ZI_BF16); /* the one kernel's */
    gated(130, 1024, 512, Q4, Q4);
    an_operation_begins_once();
    all_views_of_products();
    operands(150, 128, 2, 64, 512, ZI_BF16);
    operands(40, 96, 2, 64, 112, ZI_BF16);
    operands(33, 64, 3, 40, 72, ZI_BF16);  /* sizes of which some are no fp8 product's */
    operands(5, 8208, 1, 32, 48, ZI_BF16); /* rows that no block holds */
    operands(3, 64, 2, 32, 4608, ZI_BF16);
    operands(2, 64, 2, 32, 10256, ZI_BF16);
    repeated();
}

static void all_attentions(void)
{
    for (int in_place = 0; in_place < 2; in_place++) {
        attention(1, 1, &(zi_attention){1, 1, 8, 0, 0}, in_place);
        attention(3, 17, &(zi_attention){2, 2, 6, 0, 0}, in_place);
        attention(70, 333, &(zi_attention){2, 1, 40, 0, 0}, in_place);
        attention(65, 65, &(zi_attention){4, 2, 64, 1, 0}, in_place);
        attention(300, 300, &(zi_attention){4, 1, 128, 1, 0}, in_place);
        attention(129, 191, &(zi_attention){3, 3, 128, 0, 0}, in_place);
        attention(300, 64, &(zi_attention){2, 2, 64, 0, 0}, in_place);
        attention(96, 96, &(zi_attention){1, 1, 512, 0, 0}, in_place);
        attention(5, 4100, &(zi_attention){1, 1, 264, 0, 0}, in_place);
        attention(70, 333, &(zi_attention){2, 1, 40, 0, 100}, in_place); /* keys that are padding */
        attention(65, 65, &(zi_attention){4, 2, 64, 1, 33}, in_place);
        attention(129, 191, &(zi_attention){3, 3, 128, 0, 64}, in_place);
        attention(130, 130, &(zi_attention){2, 1, 128, 1, 1}, in_place);
        attention(9, 9, &(zi_attention){1, 1, 8, 1, 4}, in_place);
        attention(3, 17, &(zi_attention){2, 2, 6, 0, 17}, in_place);
    }
    for (int64_t gap = 0; gap <= 8; gap += 4) {
        attention_of_views(40, &(zi_attention){2, 2, 64, 0, 0}, gap);
        attention_of_views(140, &(zi_attention){2, 1, 128, 1, 100}, gap);
        attention_of_views(17, &(zi_attention){4, 2, 12, 0, 5}, gap);
        attention_of_views(9, &(zi_attention){1, 1, 264, 0, 0}, gap);
    }
}

static void all_convolutions(void)
{
    convolution(1, 1, 1, 1, 3, 0, 0, 0, 0);
    convolution(3, 5, 40, 17, 3, 0, 0, 1, 0);
    convolution(7, 33, 16, 70, 3, 0, 1, 0, 0);
    convolution(6, 11, 100, 33, 3, 1, 1, 1, 0);
    convolution(9, 33, 8, 65, 1, 0, 0, 0, 0);
    convolution(2, 40, 257, 5, 1, 1, 0, 1, 0);
    convolution(16, 24, 64, 128, 3, 0, 1, 1, 0);
    convolution(16, 24, 32, 64, 3, 1, 0, 0, 0);
    convolution(16, 24, 64, 3, 3, 0, 1, 0, 1);
    convolution(8, 8, 64, 32, 1, 0, 0, 1, 0);
    convolution(6, 9, 24, 16, 3, 0, 200, 0, 0); /* SiLU of large numbers */
    convolution(3, 2, 2072, 9, 1, 0, 1, 0, 0);  /* more channels than threads have vectors */
    convolution(2, 130, 301, 9, 1, 1, 1, 0, 0);
    convolution(17, 24, 64, 3, 3, 0, 1, 1, 1); /* few outputs: of sums of products */
    convolution(9, 13, 5, 3, 3, 1, 0, 1, 0);
    convolution(11, 37, 12, 7, 3, 0, 1, 1, 1);
    convolution(40, 21, 9, 2, 1, 0, 0, 1, 0);
    convolution(1, 3, 8, 8, 3, 0, 0, 1, 0);
    convolution(300, 200, 4, 8, 3, 0, 0, 1, 0); /* in parts on every GPU */
    for (int i = 0; i < 2; i++) {
        static const int none[4], all[4] = {1, 1, 1, 1}, one_sided[4] = {0, 0, 1, 1}, odd[4] = {1, 0, 0, 1};
        strided(12, 16, 16, 32, 3, 2, one_sided, i); /* the encoder of a VAE */
        strided(13, 17, 8, 24, 3, 2, one_sided, i);
        strided(9, 11, 5, 9, 3, 2, all, i);
        strided(10, 7, 16, 3, 3, 2, odd, i);
        strided(9, 12, 16, 8, 3, 1, odd, i);
        strided(7, 9, 12, 3, 3, 1, none, i);
        strided(8, 9, 16, 8, 1, 2, none, i);
    }
    for (int64_t out = 3; out <= 24; out += 21) {
        band(0, 9, 0, 9, 0, out);
        band(0, 3, 0, 4, 0, out);
        band(3, 3, 2, 5, 0, out);
        band(6, 3, 5, 4, 0, out);
        band(5, 4, 2, 4, 1, out);
        band(12, 6, 5, 4, 1, out);
    }
}

static void all_rows(void)
{
    norms(5, 31, 0);
    norms(33, 100, 1);
    norms(3, 384, 1);
    norms(2, 3840, 1);
    norms(2, 4608, 1);
    norms(3, 2056, 0);
    norms(2, 9000, 1);
    rope(17, 3, 34, ZI_ROPE_ADJACENT);
    rope(17, 3, 34, ZI_ROPE_HALF_SPLIT);
    rope(5, 2, 128, ZI_ROPE_ADJACENT);
    rope(5, 2, 300, ZI_ROPE_HALF_SPLIT);
    rope(7, 5, 64, ZI_ROPE_ADJACENT);
    rope(3, 37, 128, ZI_ROPE_ADJACENT); /* more than a block's threads have at a time */
    rope(9, 3, 16, ZI_ROPE_ADJACENT);
    all_views_of_rows();
    small_ones();
    pixels(1023);
    pixels(4096);
    group_norm(17, 13, 33, 3, 0);
    group_norm(9, 31, 64, 32, 0);
    group_norm(5, 7, 24, 8, 0);    /* groups that begin within a vector */
    group_norm(3, 5, 2072, 8, 0);  /* more channels than threads have vectors */
    group_norm(2, 31, 520, 40, 0); /* a lane less in the last warp */
    group_norm(2, 3, 515, 5, 0);
    group_norm(41, 43, 128, 32, 300); /* a variance of 3 beside squares of 90000 */
    group_norm(23, 29, 33, 11, -300);
    for (int i = 0; i < 3; i++)
        not_finite(75, 37 * i, ((const float[]){INFINITY, NAN, -INFINITY})[i]);
    residual_not_finite();
    an_operation_begins_once();
}

static void run_all(zimage_compute compute, int own_kernels)
{
    run.bf16 = compute != ZIMAGE_COMPUTE_F32;
    run.fp8 = compute == ZIMAGE_COMPUTE_FP8;
    run.failed = 0;
    begin("opening the GPU");
    ok(zi_ops_reference_new(&on_host->ops, &error));
    ok(cuda_new(&(zi_cuda_options){.compute = compute, .own_kernels = own_kernels}, &on_gpu->ops, &error));
    on_gpu->error = on_host->error = &error;
    void (*const groups[])(void) = {all_rows, all_linears, all_attentions, all_convolutions};
    void (*const fp8_groups[])(void) = {all_fp8};
    for (int i = 0; i < (run.fp8 ? 1 : 4); i++) {
        zi_arena_mark gpu = zi_table(on_gpu)->mark(on_gpu), host = zi_table(on_host)->mark(on_host);
        (run.fp8 ? fp8_groups : groups)[i]();
        zi_table(on_gpu)->release(on_gpu, gpu);
        zi_table(on_host)->release(on_host, host);
    }
    zi_table(on_gpu)->free(on_gpu->ops);
    zi_table(on_host)->free(on_host->ops);
    while (kept_count > 0)
        free(kept[--kept_count]);
    assert_false(run.failed);
}

static void float32_checks(void **state)
{
    run_all(ZIMAGE_COMPUTE_F32, 0);
}

static void bf16_checks(void **state)
{
    run_all(ZIMAGE_COMPUTE_BF16, 0);
}

static void bf16_checks_without_cudnn(void **state)
{
    run_all(ZIMAGE_COMPUTE_BF16, 1);
}

static void fp8_checks(void **state)
{
    if (first_gpu.major != 9 || first_gpu.minor != 0)
        skip();
    run_all(ZIMAGE_COMPUTE_FP8, 0);
}

/* Its products are so large that tools which look into kernels leave it out. */
static void peak_rates(void **state)
{
    static const zimage_compute computes[] = {ZIMAGE_COMPUTE_F32, ZIMAGE_COMPUTE_BF16, ZIMAGE_COMPUTE_FP8};
    for (int i = 0; i < (first_gpu.major == 9 && first_gpu.minor == 0 ? 3 : 2); i++) {
        ok(cuda_new(&(zi_cuda_options){.compute = computes[i]}, &on_gpu->ops, &error));
        on_gpu->error = &error;
        assert_true(zi_table(on_gpu)->peak_rate(on_gpu) > 0);
        zi_table(on_gpu)->free(on_gpu->ops);
    }
}

/* ---- what is remembered -------------------------------------------------------------------------------------------- */

/* The path of the folder's only file; 0: there is none. */
static int plans_path(const char *folder, char path[PATH_MAX])
{
    struct dirent *entry;
    DIR *open = opendir(folder);
    int found = 0;
    assert_non_null(open);
    while ((entry = readdir(open)) != NULL)
        if (entry->d_name[0] != '.') {
            assert_false(found++);
            snprintf(path, PATH_MAX, "%s/%s", folder, entry->d_name);
        }
    closedir(open);
    return found;
}

static void read_plans(const char *folder, char text[1 << 16])
{
    char path[PATH_MAX];
    text[0] = 0;
    if (!plans_path(folder, path))
        return;
    FILE *file = fopen(path, "r");
    assert_non_null(file);
    text[fread(text, 1, (1 << 16) - 1, file)] = 0;
    fclose(file);
}

static void write_plans(const char *folder, const char *text)
{
    char path[PATH_MAX];
    assert_true(plans_path(folder, path));
    FILE *file = fopen(path, "w");
    assert_non_null(file);
    assert_true(fputs(text, file) >= 0);
    assert_int_equal(fclose(file), 0);
}

static void remove_plans(const char *folder)
{
    char path[PATH_MAX];
    assert_true(plans_path(folder, path));
    assert_int_equal(unlink(path), 0);
}

static void remembering_run(const char *folder, int mends)
{
    char before[1 << 16] = "", after[1 << 16] = "";
    run.bf16 = 1;
    run.fp8 = run.failed = 0;
    ok(zi_ops_reference_new(&on_host->ops, &error));
    ok(cuda_new(&(zi_cuda_options){.compute = ZIMAGE_COMPUTE_BF16, .cache = folder}, &on_gpu->ops, &error));
    on_gpu->error = on_host->error = &error;
    read_plans(folder, before);
    linear(300, 1024, 768, ZI_BF16, SUMMED);
    linear(300, 1024, 768, Q8, 0);
    read_plans(folder, after);
    zi_table(on_gpu)->free(on_gpu->ops);
    zi_table(on_host)->free(on_host->ops);
    while (kept_count > 0)
        free(kept[--kept_count]);
    assert_false(run.failed);
    assert_int_equal(strcmp(before, after) != 0, mends);
    assert_non_null(strstr(after, "\nproduct "));
}

/* Algorithms are measured once; a file that was damaged is mended, not believed. */
static void remembers(void **state)
{
    char folder[] = "/tmp/zimage-plans-XXXXXX", text[1 << 16];
    assert_non_null(mkdtemp(folder));
    remembering_run(folder, 1);
    remembering_run(folder, 0);
    read_plans(folder, text);
    for (char *c = strchr(text, '\n'); *c; c++) /* every algorithm */
        if (*c == ' ' && strspn(c + 1, "0123456789abcdef") == 2 * sizeof(uint64_t[8]))
            memset(c + 1, 'f', 2 * sizeof(uint64_t[8]));
    write_plans(folder, text);
    remembering_run(folder, 1);
    remembering_run(folder, 0);
    read_plans(folder, text);
    text[strlen(text) - 9] = 0; /* cut off */
    write_plans(folder, text);
    remembering_run(folder, 1);
    write_plans(folder, "another GPU\nproduct 00 00\n");
    remembering_run(folder, 1);
    remembering_run(folder, 0);
    remove_plans(folder);
    assert_int_equal(rmdir(folder), 0);
}

/* Why nothing can be checked here, or NULL. */
static const char *why_not(void)
{
    int count = 0;
    size_t layout = 0;
    void *library = dlopen(LIBRARY, RTLD_NOW | RTLD_LOCAL);
    if (!library)
        return dlerror();
    zi_cuda_abi_fn *abi = (zi_cuda_abi_fn *)dlsym(library, "zi_cuda_abi");
    zi_cuda_devices_fn *devices = (zi_cuda_devices_fn *)dlsym(library, "zi_cuda_devices");
    cuda_new = (zi_ops_cuda_new_fn *)dlsym(library, "zi_ops_cuda_new");
    operations = (int64_t(*)(const zi_ops *))dlsym(library, "zi_emulated_operations");
    if (!abi || !devices || !cuda_new || abi(&layout) != ZI_CUDA_ABI || layout != ZI_CUDA_LAYOUT)
        return "the library is not this build's";
    if (devices(&first_gpu, 1, &count, &error) != ZIMAGE_OK)
        return error.message;
    return *first_gpu.fault ? first_gpu.fault : NULL;
}

/* test_cuda [PATTERN]: only the tests that it matches. */
int main(int argc, char **argv)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(float32_checks), cmocka_unit_test(bf16_checks), cmocka_unit_test(bf16_checks_without_cudnn),
        cmocka_unit_test(fp8_checks),     cmocka_unit_test(remembers),   cmocka_unit_test(peak_rates),
    };
    const char *why = why_not();
    if (why) {
        printf("skipped: no device: %s\n", why);
        return SKIPPED;
    }
    if (argc > 1)
        cmocka_set_test_filter(argv[1]);
    return cmocka_run_group_tests(tests, NULL, NULL);
}
