/*
 * Every operation of the CUDA table against the reference table: odd sizes, guards around every operand, in float32 and
 * in bf16, with cuDNN and with the kernels that stand in for it. Without a usable card it is skipped.
 *
 * In bf16 the reference sees operands that were rounded to bf16, so that what is left is the rounding of results (2^-9 of
 * a value) and, where an operation stores something between, of that too.
 */
#include <dirent.h>
#include <dlfcn.h>
#include <limits.h>
#include <unistd.h>

#include "cuda/cuda.h"
#include "ops/ops_common.h"
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
static zi_cuda_device first_card;
static zimage_error error = ZIMAGE_ERROR_INIT;
static void *kept[WEIGHTS]; /* weights: the card remembers them by address, so that none may be freed before the end */
static int kept_count;

/* A tensor between guards, in both tables. */
typedef struct pair {
    zi_tensor card, host, guarded;
} pair;

/* The run under way. */
static struct {
    zi_ops *card, *host;
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

/* What the card stores of a number. */
static float stored(const zi_tensor *tensor, float x)
{
    return tensor->dtype == ZI_BF16 ? zi_bf16_to_f32(zi_f32_to_bf16(x)) : x;
}

static pair make(zimage_status (*alloc)(zi_ops *, zi_tensor *, int, const int64_t *), float magnitude, int dims,
                 const int64_t *shape)
{
    pair p;
    int64_t count = count_of(dims, shape);
    ok(alloc(run.card, &p.guarded, 1, (const int64_t[]){count + 2 * GUARD}));
    float *values = malloc((size_t)(count + 2 * GUARD) * sizeof *values);
    assert_non_null(values);
    for (int64_t i = 0; i < count + 2 * GUARD; i++)
        values[i] = i < GUARD || i >= count + GUARD ? NAN : stored(&p.guarded, random_number(magnitude));
    ok(run.card->table->upload(run.card, &p.guarded, values));
    p.card = zi_tensor_rows(&p.guarded, GUARD, count);
    p.card = zi_tensor_shaped(&p.card, dims, shape);
    ok(run.host->table->alloc(run.host, &p.host, dims, shape));
    ok(run.host->table->upload(run.host, &p.host, values + GUARD));
    free(values);
    return p;
}

/* An activation; float32 numbers. */
static pair activation(float magnitude, int dims, const int64_t *shape)
{
    return make(run.card->table->alloc, magnitude, dims, shape);
}

static pair exact(float magnitude, int dims, const int64_t *shape)
{
    return make(run.card->table->alloc_f32, magnitude, dims, shape);
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
    ok(run.card->table->download(run.card, values, &p->guarded));
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

/* |card - host| / |host|, for what is large enough to have an average. */
static double mean_error(const pair *p)
{
    int64_t count = zi_tensor_count(&p->card);
    float *values = malloc((size_t)count * sizeof *values);
    double errors = 0, squares = 0;
    assert_non_null(values);
    ok(run.card->table->download(run.card, values, &p->card));
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
    ok(run.card->table->linear(run.card, &y.card, &x.card, &w, bias, with_bias == SUMMED));
    ok(run.host->table->linear(run.host, &y.host, &x.host, &w, bias, with_bias == SUMMED));
    compare(&y, 3e-6, stored_as >= Q4 || with_bias == SUMMED ? 0x1p-7 : 0x1p-8); /* bias + y was rounded, too */
}

/* To round to bf16 once costs 1.66e-3 on average, twice 2.3e-3, which 30 layers multiply. */
static void rounded_once(void)
{
    begin("a bias that is added before rounding");
    pair x = activation(1, SHAPE(300, 512)), y = activation(1, SHAPE(300, 256));
    zi_weight w = weight(ZI_BF16, SHAPE(256, 512)), b = weight(ZI_BF16, SHAPE(256));
    ok(run.card->table->linear(run.card, &y.card, &x.card, &w, &b, 0));
    ok(run.host->table->linear(run.host, &y.host, &x.host, &w, &b, 0));
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
    ok(run.card->table->linear(run.card, &y.card, &x.card, &w, &b, 0));
    ok(run.host->table->linear(run.host, &y.host, &x.host, &w, &b, 0));
    compare(&y, 3e-6, 3e-6);
}

static void wide_output(void)
{
    begin("a float32 result of activations");
    pair x = activation(1, SHAPE(33, 64)), y = exact(1, SHAPE(33, 48));
    zi_weight w = weight(ZI_BF16, SHAPE(48, 64)), b = weight(ZI_BF16, SHAPE(48));
    ok(run.card->table->linear(run.card, &y.card, &x.card, &w, &b, 0));
    ok(run.host->table->linear(run.host, &y.host, &x.host, &w, &b, 0));
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
        ok(run.card->table->linear(run.card, &y.card, &x.card, w, NULL, 0));
        ok(run.host->table->linear(run.host, &y.host, &x.host, w, NULL, 0));
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
    const zi_ops_table *t = run.card->table;
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
    const zi_conv conv = {.weight = &filter, .image_rows = 3};
    refuses(t->linear(run.card, &y.card, &x.card, &other, NULL, 0), &other);
    refuses(t->linear(run.card, &y.card, &x.card, &scales, NULL, 0), &scales);
    refuses(t->linear(run.card, &y.card, &x.card, &good, &vector, 0), &vector);
    refuses(t->linears(run.card, 2, (zi_tensor[]){y.card, y.card}, &x.card, (const zi_weight *[]){&good, &other}),
            &other);
    refuses(t->linear_glu(run.card, &y.card, &x.card, &good, &other), &other);
    refuses(t->rms_norm(run.card, &y.card, &x.card, &vector, NULL, EPS), &vector);
    refuses(t->rms_norm(run.card, &y.card, &x.card, &grouped, NULL, EPS), &grouped);
    refuses(t->embed_rows(run.card, &y.card, &other, ids), &other);
    refuses(t->conv2d(run.card, &image.card, &image.card, &conv), &filter);
}

/* Results that lie in a row, as stored groups do once they are unpacked. */
static void alike_linears(int stored_as)
{
    enum { ROWS = 70, OUT = 64, COUNT = 3 };
    begin("linears of one size, stored %d", stored_as);
    pair x = activation(1, SHAPE(ROWS, 96)), y = activation(1, SHAPE(COUNT * ROWS, OUT));
    zi_weight w[COUNT];
    const zi_weight *weights[COUNT];
    zi_tensor card[COUNT], host[COUNT];
    for (int i = 0; i < COUNT; i++) {
        w[i] = weight(stored_as, SHAPE(OUT, 96));
        weights[i] = &w[i];
        card[i] = zi_tensor_rows(&y.card, i * ROWS, ROWS);
        host[i] = zi_tensor_rows(&y.host, i * ROWS, ROWS);
    }
    ok(run.card->table->linears(run.card, COUNT, card, &x.card, weights));
    ok(run.host->table->linears(run.host, COUNT, host, &x.host, weights));
    compare(&y, 3e-6, stored_as >= Q4 ? 0x1p-7 : 0x1p-8);
}

static void three_linears(void)
{
    begin("linears");
    pair x = activation(1, SHAPE(70, 96)), y[3];
    zi_weight w[3];
    const zi_weight *weights[3] = {&w[0], &w[1], &w[2]};
    zi_tensor card[3], host[3];
    for (int i = 0; i < 3; i++) {
        y[i] = activation(1, SHAPE(70, 32 * (i + 1)));
        w[i] = weight(i == 1 ? Q8 : ZI_BF16, SHAPE(32 * (i + 1), 96));
        card[i] = y[i].card;
        host[i] = y[i].host;
    }
    ok(run.card->table->linears(run.card, 3, card, &x.card, weights));
    ok(run.host->table->linears(run.host, 3, host, &x.host, weights));
    for (int i = 0; i < 3; i++)
        compare(&y[i], 3e-6, i == 1 ? 0x1p-7 : 0x1p-8);
}

static void gated(int64_t rows, int64_t in, int64_t out, int first, int second)
{
    begin("gated %d x %d -> %d, stored %d and %d", (int)rows, (int)in, (int)out, first, second);
    pair x = activation(0.3f, SHAPE(rows, in)), y = activation(1, SHAPE(rows, out));
    zi_weight w1 = weight(first, SHAPE(out, in)), w3 = weight(second, SHAPE(out, in));
    ok(run.card->table->linear_glu(run.card, &y.card, &x.card, &w1, &w3));
    ok(run.host->table->linear_glu(run.host, &y.host, &x.host, &w1, &w3));
    compare(&y, 1e-5, 0x1p-6); /* both products are rounded before they meet */
}

static void attention(int64_t queries, int64_t keys, const zi_attention_shape *s, int in_place)
{
    begin("attention %d queries, %d keys, heads %d / %d x %d%s%s", (int)queries, (int)keys, (int)s->heads,
          (int)s->kv_heads, (int)s->head_dim, s->causal ? ", causal" : "", in_place ? ", in place" : "");
    pair q = activation(2, SHAPE(queries, s->heads * s->head_dim));
    pair k = activation(2, SHAPE(keys, s->kv_heads * s->head_dim));
    pair v = activation(1, SHAPE(keys, s->kv_heads * s->head_dim));
    pair o = in_place ? q : activation(1, SHAPE(queries, s->heads * s->head_dim));
    ok(run.card->table->attention(run.card, &o.card, &q.card, &k.card, &v.card, s));
    ok(run.host->table->attention(run.host, &o.host, &q.host, &k.host, &v.host, s));
    compare(&o, 5e-6, 0x1p-6); /* weights are rounded before they multiply the values */
}

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
    zi_channel_affine card = {scale.card, shift.card}, host = {scale.host, shift.host};
    zi_conv conv = {.weight = &w, .bias = add ? &b : NULL, .upsample = upsample, .accumulate = add, .image_rows = rows};
    conv.affine = normed ? &card : NULL;
    ok(run.card->table->conv2d(run.card, &y.card, &x.card, &conv));
    conv.affine = normed ? &host : NULL;
    ok(run.host->table->conv2d(run.host, &y.host, &x.host, &conv));
    compare(&y, 1e-5, 0x1p-7);
}

/* Rows [first, first + count) of the result from a band of the image. */
static void band(int64_t first, int64_t count, int64_t x_first, int64_t x_count, int upsample, int64_t out)
{
    begin("conv of a band: rows %d + %d from rows %d + %d%s, %d outputs", (int)first, (int)count, (int)x_first,
          (int)x_count, upsample ? ", doubled" : "", (int)out);
    pair x = activation(1, SHAPE(9, 6, 16)), y = activation(1, SHAPE(count, 6 << upsample, out));
    zi_weight w = weight(ZI_F32, SHAPE(out, 16, 3, 3));
    zi_tensor card = zi_tensor_rows(&x.card, x_first, x_count), host = zi_tensor_rows(&x.host, x_first, x_count);
    const zi_conv conv = {
        .weight = &w, .upsample = upsample, .accumulate = upsample, .image_rows = 9, .x_row = x_first, .y_row = first};
    ok(run.card->table->conv2d(run.card, &y.card, &card, &conv));
    ok(run.host->table->conv2d(run.host, &y.host, &host, &conv));
    compare(&y, 1e-5, 0x1p-7);
}

static void norms(int64_t rows, int64_t n, int scaled)
{
    zi_weight w = weight(ZI_F16, SHAPE(n)), next = weight(ZI_F32, SHAPE(n));
    const zi_weight *wp = scaled ? &w : NULL, *np = scaled ? &next : NULL;
    begin("rms norm %d x %d", (int)rows, (int)n);
    pair x = activation(3, SHAPE(rows, n)), y = activation(1, SHAPE(rows, n)), f = exact(1, SHAPE(n)),
         g = exact(1, SHAPE(n));
    ok(run.card->table->rms_norm(run.card, &y.card, &x.card, wp, scaled ? &f.card : NULL, EPS));
    ok(run.host->table->rms_norm(run.host, &y.host, &x.host, wp, scaled ? &f.host : NULL, EPS));
    compare(&y, 3e-6, 0x1p-8);
    begin("layer norm %d x %d", (int)rows, (int)n);
    ok(run.card->table->layer_norm(run.card, &y.card, &x.card, scaled ? &f.card : NULL, EPS));
    ok(run.host->table->layer_norm(run.host, &y.host, &x.host, scaled ? &f.host : NULL, EPS));
    compare(&y, 3e-6, 0x1p-8);
    for (int in_place = 0; in_place < 2; in_place++) {
        begin("residual %d x %d%s", (int)rows, (int)n, in_place ? ", in place" : "");
        int finite = 0;
        pair s = activation(3, SHAPE(rows, n)), u = activation(3, SHAPE(rows, n)),
             other = activation(1, SHAPE(rows, n));
        pair *h = in_place ? &u : &other;
        ok(run.card->table->residual_gate_norm(run.card, &s.card, &u.card, wp, scaled ? &g.card : NULL, &h->card, np,
                                               scaled ? &f.card : NULL, EPS, &finite));
        ok(run.host->table->residual_gate_norm(run.host, &s.host, &u.host, wp, scaled ? &g.host : NULL, &h->host, np,
                                               scaled ? &f.host : NULL, EPS, &finite));
        compare(&s, 3e-6, 0x1p-8);
        compare(h, 3e-6, 0x1p-7);
    }
}

static void rope(int64_t tokens, int64_t heads, int64_t dim, zi_rope_layout layout)
{
    begin("rope %d tokens, %d heads x %d, layout %d", (int)tokens, (int)heads, (int)dim, (int)layout);
    pair x = activation(2, SHAPE(tokens, heads * dim));
    pair cosines = exact(1, SHAPE(tokens, dim / 2)), sines = exact(1, SHAPE(tokens, dim / 2));
    zi_weight w = weight(ZI_BF16, SHAPE(dim));
    ok(run.card->table->qk_norm_rope(run.card, &x.card, &w, &cosines.card, &sines.card, heads, layout, EPS));
    ok(run.host->table->qk_norm_rope(run.host, &x.host, &w, &cosines.host, &sines.host, heads, layout, EPS));
    compare(&x, 3e-6, 0x1p-8);
}

static void small_ones(void)
{
    begin("angles");
    float angles[5 * 33];
    pair cosines = exact(1, SHAPE(5, 33)), sines = exact(1, SHAPE(5, 33));
    for (int i = 0; i < 5 * 33; i++)
        angles[i] = random_number(1000);
    ok(run.card->table->rope_table(run.card, &cosines.card, &sines.card, angles));
    ok(run.host->table->rope_table(run.host, &cosines.host, &sines.host, angles));
    compare(&cosines, 3e-7, 3e-7);
    compare(&sines, 3e-7, 3e-7);
    begin("silu");
    pair x = activation(20, SHAPE(17, 33)), y = activation(1, SHAPE(17, 33));
    ok(run.card->table->silu(run.card, &y.card, &x.card));
    ok(run.host->table->silu(run.host, &y.host, &x.host));
    compare(&y, 3e-6, 0x1p-8);
    begin("modulation");
    pair m = exact(2, SHAPE(4 * 37));
    ok(run.card->table->modulation(run.card, &m.card));
    ok(run.host->table->modulation(run.host, &m.host));
    compare(&m, 3e-6, 3e-6);
    begin("add one");
    ok(run.card->table->add_one(run.card, &m.card, &m.card));
    ok(run.host->table->add_one(run.host, &m.host, &m.host));
    compare(&m, 3e-6, 3e-6);
    begin("patchify");
    pair latents = exact(1, SHAPE(5, 6, 10)), tokens = activation(1, SHAPE(15, 20)), back = exact(1, SHAPE(5, 6, 10));
    ok(run.card->table->patchify(run.card, &tokens.card, &latents.card, 2));
    ok(run.host->table->patchify(run.host, &tokens.host, &latents.host, 2));
    compare(&tokens, 0, 0x1p-8);
    begin("unpatchify");
    ok(run.card->table->unpatchify(run.card, &back.card, &tokens.card, 2));
    ok(run.host->table->unpatchify(run.host, &back.host, &tokens.host, 2));
    compare(&back, 0, 0x1p-8);
    begin("copy");
    ok(run.card->table->copy(run.card, &y.card, &x.card));
    ok(run.host->table->copy(run.host, &y.host, &x.host));
    compare(&y, 0, 0);
    begin("embed rows");
    static const int32_t ids[] = {3, 0, 10, 3, 7};
    pair rows = activation(1, SHAPE(5, 64));
    zi_weight table = weight(Q4, SHAPE(11, 64));
    ok(run.card->table->embed_rows(run.card, &rows.card, &table, ids));
    ok(run.host->table->embed_rows(run.host, &rows.host, &table, ids));
    compare(&rows, 0, 0x1p-8);
}

/* An activation's numbers moved by `mean`. */
static void move(pair *p, float mean)
{
    float *values = p->host.data;
    for (int64_t i = 0; i < zi_tensor_count(&p->host); i++)
        values[i] = stored(&p->card, values[i] + mean);
    ok(run.card->table->upload(run.card, &p->card, values));
}

/* What is half way between two bytes, what is outside, and NaN, too. */
static void pixels(int64_t count)
{
    begin("%d pixels' bytes", (int)count);
    pair x = exact(1.5f, SHAPE(count));
    float *values = malloc((size_t)count * sizeof *values);
    uint8_t *card = malloc(2 * (size_t)count), *host = card + count;
    assert_true(values && card);
    for (int64_t i = 0; i < count; i++)
        values[i] = i % 4 == 0 ? ((float)(i % 256) + 0.5f) / 127.5f - 1 : i % 101 == 1 ? NAN : random_number(1.5f);
    ok(run.card->table->upload(run.card, &x.card, values));
    ok(run.host->table->upload(run.host, &x.host, values));
    ok(run.card->table->download_rgb8(run.card, card, &x.card));
    ok(run.host->table->download_rgb8(run.host, host, &x.host));
    assert_memory_equal(card, host, (size_t)count);
    free(values);
    free(card);
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
    zi_channel_affine card = {scale.card, shift.card}, host = {scale.host, shift.host};
    int64_t count = rows * columns * channels / groups;
    for (int add = 0; add < 2; add++) { /* twice the same numbers */
        ok(run.card->table->group_norm_sums(run.card, &sums.card, &x.card, add));
        ok(run.host->table->group_norm_sums(run.host, &sums.host, &x.host, add));
    }
    ok(run.card->table->group_norm_fold(run.card, &card, &sums.card, 2 * count, &w, &b, EPS));
    ok(run.host->table->group_norm_fold(run.host, &host, &sums.host, 2 * count, &w, &b, EPS));
    compare(&scale, 3e-6, 3e-6);
    compare(&shift, 3e-6, 3e-6);
    ok(run.card->table->channel_affine(run.card, &y.card, &x.card, &card));
    ok(run.host->table->channel_affine(run.host, &y.host, &x.host, &host));
    compare(&y, 3e-6 + 1e-6 * fabsf(mean), 0x1p-8); /* the mean is taken away in float32 */
}

/* A number that is not finite, at that place, is told at the next download by the name of its block. */
static void not_finite(int64_t count, int64_t place, float bad)
{
    zi_tensor x;
    float *values = calloc((size_t)count, sizeof *values);
    assert_non_null(values);
    begin("a number that is not finite");
    ok(run.card->table->alloc(run.card, &x, 1, &count));
    ok(run.card->table->upload(run.card, &x, values));
    ok(zi_ops_end_block(run.card, &x, "the first block"));
    values[place] = bad;
    ok(run.card->table->upload(run.card, &x, values));
    ok(zi_ops_end_block(run.card, &x, "block %d", (int)place));
    values[place] = 0;
    ok(run.card->table->upload(run.card, &x, values));
    ok(zi_ops_end_block(run.card, &x, "the last block"));
    char expected[32];
    snprintf(expected, sizeof expected, "block %d holds", (int)place);
    assert_int_equal(zi_ops_finish(run.card), ZIMAGE_ERROR_NOT_FINITE);
    assert_non_null(strstr(error.message, expected));
    ok(zi_ops_finish(run.card)); /* told once */
    free(values);
}

/* The residual's own check. */
static void residual_not_finite(void)
{
    int finite = 0;
    begin("a residual that is not finite");
    pair x = activation(1, SHAPE(3, 40)), y = activation(1, SHAPE(3, 40));
    float values[120] = {[77] = INFINITY};
    ok(run.card->table->upload(run.card, &y.card, values));
    ok(run.card->table->residual_gate_norm(run.card, &x.card, &y.card, NULL, NULL, NULL, NULL, NULL, EPS, &finite));
    ok(zi_ops_end_block_known(run.card, finite, "the residual"));
    assert_int_equal(zi_ops_finish(run.card), ZIMAGE_ERROR_NOT_FINITE);
    assert_non_null(strstr(error.message, "the residual"));
}

/* ---- operands, and work that comes again --------------------------------------------------------------------------- */

typedef struct chain {
    pair x, q, v, y, z; /* [rows, in], [rows, heads x dim] twice, [rows, in] twice */
    zi_weight wq, wv, wo, w1, w3, w2;
    zi_attention_shape shape;
} chain;

/* A norm, two products, attention, a residual with the next norm, a gated product: all that operands are for. */
static zimage_status chain_on(const chain *c, zi_ops *ops, int card)
{
    const zi_ops_table *t = ops->table;
    zi_tensor x = card ? c->x.card : c->x.host, q = card ? c->q.card : c->q.host, v = card ? c->v.card : c->v.host;
    zi_tensor y = card ? c->y.card : c->y.host, z = card ? c->z.card : c->z.host, h, o, u;
    zi_arena_mark mark = t->mark(ops);
    ZI_TRY(t->alloc_operand(ops, &h, x.shape[0], x.shape[1], &c->wq));
    ZI_TRY(t->alloc_operand(ops, &o, x.shape[0], q.shape[1], &c->wo));
    ZI_TRY(t->alloc_operand(ops, &u, x.shape[0], c->w2.shape[1], &c->w2));
    ZI_TRY(t->rms_norm(ops, &h, &x, NULL, NULL, EPS));
    ZI_TRY(t->linears(ops, 2, (zi_tensor[]){q, v}, &h, (const zi_weight *[]){&c->wq, &c->wv}));
    ZI_TRY(t->attention(ops, &o, &q, &q, &v, &c->shape));
    ZI_TRY(t->linear(ops, &y, &o, &c->wo, NULL, 0));
    ZI_TRY(t->residual_gate_norm(ops, &x, &y, NULL, NULL, &h, NULL, NULL, EPS, NULL));
    ZI_TRY(t->linear_glu(ops, &u, &h, &c->w1, &c->w3));
    ZI_TRY(t->linear(ops, &z, &u, &c->w2, NULL, 0));
    t->release(ops, mark);
    return zi_ops_end_block(ops, &z, "the chain");
}

static zimage_status chain_on_card(const void *user)
{
    return chain_on(user, run.card, 1);
}

static chain make_chain(int64_t rows, int64_t in, int64_t heads, int64_t dim, int64_t hidden, int stored_as)
{
    chain c = {.shape = {heads, heads, dim, 0}};
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

static void operands(int64_t rows, int64_t in, int64_t heads, int64_t dim, int64_t hidden, int stored_as)
{
    begin("operands %d x %d, %d heads x %d, hidden %d", (int)rows, (int)in, (int)heads, (int)dim, (int)hidden);
    chain c = make_chain(rows, in, heads, dim, hidden, stored_as);
    ok(chain_on(&c, run.host, 0));
    ok(chain_on(&c, run.card, 1));
    compare(&c.v, 3e-6, stored_as >= Q4 ? 0x1p-6 : 0x1p-7);
    compare_chain(&c);
}

/* With new numbers each time, and with weights that change in between. */
static void repeated(void)
{
    int64_t blocks = run.card->blocks;
    chain c = make_chain(33, 64, 2, 32, 96, ZI_BF16);
    float *x = c.x.host.data, *start = malloc(33 * 64 * sizeof *start);
    assert_non_null(start);
    for (int i = 0; i < 8; i++) {
        begin("work that comes again, time %d", i);
        for (int64_t j = 0; j < 33 * 64; j++)
            start[j] = stored(&c.x.card, random_number(1 + (float)i));
        memcpy(x, start, 33 * 64 * sizeof *start);
        ok(run.card->table->upload(run.card, &c.x.card, start));
        if (i == 5) /* what was recorded reads memory that is gone */
            ok(run.card->forget_weights(run.card));
        ok(zi_ops_repeat(run.card, &c, sizeof c, chain_on_card, &c));
        ok(chain_on(&c, run.host, 0));
        compare_chain(&c);
        assert_int_equal(run.card->blocks, blocks + i + 1);
    }
    for (int i = 0; i < 4; i++) { /* one that is not finite has the name of its block, recorded or not */
        start[7] = i % 2 ? NAN : 0;
        ok(run.card->table->upload(run.card, &c.x.card, start));
        ok(zi_ops_repeat(run.card, &c, sizeof c, chain_on_card, &c));
        assert_int_equal(zi_ops_finish(run.card), i % 2 ? ZIMAGE_ERROR_NOT_FINITE : ZIMAGE_OK);
        assert_true(i % 2 == 0 || strstr(error.message, "the chain") != NULL);
    }
    free(start);
}

/* ---- the beginning of an operation --------------------------------------------------------------------------------- */

/* The call makes so many operations begin: weights may give way only between two of them (cuda/residency.h). */
#define BEGINS(count, call)                                                                                            \
    do {                                                                                                               \
        int64_t before = operations(run.card);                                                                         \
        ok(call);                                                                                                      \
        if (operations(run.card) != before + (count))                                                                  \
            fail_msg("%s: %d operations begin, expected %d", #call, (int)(operations(run.card) - before), count);      \
    } while (0)

static void moving_begins(const zi_ops_table *t, zi_tensor *x)
{
    zi_tensor y, operand;
    zi_weight w = weight(ZI_BF16, SHAPE(64, 32)), table = weight(Q4, SHAPE(11, 32));
    float values[5 * 32] = {0};
    static const int32_t ids[5] = {3, 0, 10, 3, 7};
    pair cosines = exact(1, SHAPE(5, 16)), sines = exact(1, SHAPE(5, 16));
    BEGINS(0, t->alloc(run.card, &y, SHAPE(5, 32)));
    BEGINS(0, t->alloc_operand(run.card, &operand, 5, 32, &w));
    BEGINS(1, t->upload(run.card, x, values));
    BEGINS(1, t->download(run.card, values, x));
    BEGINS(1, t->copy(run.card, &y, x));
    BEGINS(1, t->embed_rows(run.card, &y, &table, ids));
    BEGINS(1, t->rope_table(run.card, &cosines.card, &sines.card, values));
    BEGINS(0, run.card->finish(run.card));
}

/* Whether it reads weights or not. What only asks, waits or allocates is none. */
static void an_operation_begins_once(void)
{
    begin("the beginning of an operation");
    if (!operations)
        return;
    const zi_ops_table *t = run.card->table;
    char text[200];
    int finite;
    pair x = activation(1, SHAPE(5, 32)), y = activation(1, SHAPE(5, 64)), z[2];
    zi_weight w[2] = {weight(ZI_F16, SHAPE(64, 32)), weight(Q4, SHAPE(64, 32))}, b = weight(ZI_BF16, SHAPE(64)),
              v = weight(ZI_F16, SHAPE(32));
    zi_tensor operand, both[2];
    for (int i = 0; i < 2; i++) {
        z[i] = activation(1, SHAPE(5, 64));
        both[i] = z[i].card;
    }
    ok(t->alloc_operand(run.card, &operand, 5, 32, &w[0]));
    moving_begins(t, &x.card);
    BEGINS(1, t->rms_norm(run.card, &operand, &x.card, &v, NULL, EPS));
    BEGINS(1, t->linear(run.card, &y.card, &operand, &w[1], &b, 0));
    BEGINS(1, t->linears(run.card, 2, both, &operand, (const zi_weight *[]){&w[0], &w[1]}));
    BEGINS(1, t->linear_glu(run.card, &y.card, &operand, &w[0], &w[1]));
    for (int i = 0; i < 300; i++) /* more checks than are kept: it waits for some of them */
        BEGINS(1, t->residual_gate_norm(run.card, &x.card, &x.card, &v, NULL, &operand, &v, NULL, EPS, &finite));
    BEGINS(1, t->check_finite(run.card, &x.card, &finite));
    ok(run.card->finish(run.card));
    int64_t before = operations(run.card);
    run.card->describe(run.card, text, sizeof text);
    (void)run.card->peak_bytes(run.card);
    (void)run.card->device_bytes(run.card);
    t->release(run.card, t->mark(run.card));
    assert_int_equal(operations(run.card), before);
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
        attention(1, 1, &(zi_attention_shape){1, 1, 8, 0}, in_place);
        attention(3, 17, &(zi_attention_shape){2, 2, 6, 0}, in_place);
        attention(70, 333, &(zi_attention_shape){2, 1, 40, 0}, in_place);
        attention(65, 65, &(zi_attention_shape){4, 2, 64, 1}, in_place);
        attention(300, 300, &(zi_attention_shape){4, 1, 128, 1}, in_place);
        attention(129, 191, &(zi_attention_shape){3, 3, 128, 0}, in_place);
        attention(300, 64, &(zi_attention_shape){2, 2, 64, 0}, in_place);
        attention(96, 96, &(zi_attention_shape){1, 1, 512, 0}, in_place);
        attention(5, 4100, &(zi_attention_shape){1, 1, 264, 0}, in_place);
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
    convolution(300, 200, 4, 8, 3, 0, 0, 1, 0); /* in parts on every card */
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

static void run_all(zi_compute compute, int own_kernels)
{
    run.bf16 = compute != ZI_COMPUTE_F32;
    run.fp8 = compute == ZI_COMPUTE_FP8;
    run.failed = 0;
    begin("opening the card");
    ok(zi_ops_reference_new(&run.host, &error));
    ok(cuda_new(&(zi_cuda_options){.compute = compute, .own_kernels = own_kernels}, &run.card, &error));
    run.card->error = run.host->error = &error;
    void (*const groups[])(void) = {all_rows, all_linears, all_attentions, all_convolutions};
    void (*const fp8_groups[])(void) = {all_fp8};
    for (int i = 0; i < (run.fp8 ? 1 : 4); i++) {
        zi_arena_mark card = run.card->table->mark(run.card), host = run.host->table->mark(run.host);
        (run.fp8 ? fp8_groups : groups)[i]();
        run.card->table->release(run.card, card);
        run.host->table->release(run.host, host);
    }
    run.card->table->free(run.card);
    run.host->table->free(run.host);
    while (kept_count > 0)
        free(kept[--kept_count]);
    assert_false(run.failed);
}

static void float32_checks(void **state)
{
    run_all(ZI_COMPUTE_F32, 0);
}

static void bf16_checks(void **state)
{
    run_all(ZI_COMPUTE_BF16, 0);
}

static void bf16_checks_without_cudnn(void **state)
{
    run_all(ZI_COMPUTE_BF16, 1);
}

static void fp8_checks(void **state)
{
    if (first_card.major != 9 || first_card.minor != 0)
        skip();
    run_all(ZI_COMPUTE_FP8, 0);
}

/* Its products are so large that tools which look into kernels leave it out. */
static void peak_rates(void **state)
{
    static const zi_compute computes[] = {ZI_COMPUTE_F32, ZI_COMPUTE_BF16, ZI_COMPUTE_FP8};
    for (int i = 0; i < (first_card.major == 9 && first_card.minor == 0 ? 3 : 2); i++) {
        ok(cuda_new(&(zi_cuda_options){.compute = computes[i]}, &run.card, &error));
        run.card->error = &error;
        assert_true(run.card->peak_rate(run.card) > 0);
        run.card->table->free(run.card);
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
    ok(zi_ops_reference_new(&run.host, &error));
    ok(cuda_new(&(zi_cuda_options){.compute = ZI_COMPUTE_BF16, .cache = folder}, &run.card, &error));
    run.card->error = run.host->error = &error;
    read_plans(folder, before);
    linear(300, 1024, 768, ZI_BF16, SUMMED);
    linear(300, 1024, 768, Q8, 0);
    read_plans(folder, after);
    run.card->table->free(run.card);
    run.host->table->free(run.host);
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
    write_plans(folder, "another card\nproduct 00 00\n");
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
    if (devices(&first_card, 1, &count, &error) != ZIMAGE_OK)
        return error.message;
    return *first_card.fault ? first_card.fault : NULL;
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
