/*
 * Every operation of every tier of the CPU table that this machine can run, against the reference table on random
 * inputs of odd sizes: values, guard bands, the same bits with 1, 2 and 3 threads. And the reference table against
 * numbers worked out by hand.
 */
#include "support.h"

#include "cpu/cpu.h"
#include "cpu/table.h"

/* Largest error relative to the reference's largest value: float32 sums of up to 4000 products of random signs. */
#define TOLERANCE 3e-6

/* ---- tables, random numbers, guarded buffers --------------------------------------------------------------------- */

#define TIERS_MAX 8
#define THREADS   3 /* tables with 1, 2, 3 threads */

static zi_run reference_run, *reference = &reference_run;
static zi_pool *pools[THREADS];
static zi_run table_runs[TIERS_MAX][THREADS], *tables[TIERS_MAX][THREADS];
static int tier_count;
static zimage_error last_error = ZIMAGE_ERROR_INIT;

static void expect_ok(zimage_status status)
{
    if (status != ZIMAGE_OK)
        fail_msg("%s", last_error.message);
}

/* As in a job the arena is never empty, so that its memory is not mapped anew for each operation. */
static void keep_arena(zi_run *run)
{
    zi_tensor tensor;
    expect_ok(zi_table(run)->alloc(run, &tensor, 1, (int64_t[]){16}));
}

static int set_up(void **state)
{
    expect_ok(zi_ops_reference_new(&reference->ops, &last_error));
    reference->error = &last_error;
    keep_arena(reference);
    for (int i = 0; i < THREADS; i++)
        expect_ok(zi_pool_new(i + 1, &pools[i], &last_error));
    char ran[200] = "", missing[200] = "";
    for (int i = 0; zi_cpu_tier_name(i) != NULL; i++) {
        char *list = zi_cpu_tier_available(i) ? ran : missing;
        snprintf(list + strlen(list), 200 - strlen(list), " %s", zi_cpu_tier_name(i));
        if (!zi_cpu_tier_available(i))
            continue;
        for (int threads = 0; threads < THREADS; threads++) {
            const zi_cpu_options options = {.mask = zi_cpu_tier_name(i), .compute = ZIMAGE_COMPUTE_F32};
            zi_run *run = tables[tier_count][threads] = &table_runs[tier_count][threads];
            run->error = &last_error;
            expect_ok(zi_ops_cpu_new(pools[threads], &options, &run->ops, &last_error));
            assert_string_equal(zi_ops_cpu_tier(run->ops), zi_cpu_tier_name(i));
            keep_arena(run);
        }
        tier_count++;
    }
    printf("tiers:%s; not on this machine:%s\n", ran, missing[0] ? missing : " none");
    return 0;
}

static int tear_down(void **state)
{
    for (int i = 0; i < tier_count; i++)
        for (int threads = 0; threads < THREADS; threads++)
            zi_table(tables[i][threads])->free(tables[i][threads]->ops);
    for (int i = 0; i < THREADS; i++)
        zi_pool_free(pools[i]);
    zi_table(reference)->free(reference->ops);
    return 0;
}

static uint64_t random_state = 88172645463325252u;

static uint32_t random_bits(void)
{
    random_state ^= random_state << 13;
    random_state ^= random_state >> 7;
    random_state ^= random_state << 17;
    return (uint32_t)(random_state >> 32);
}

static float random_float(void) /* [-1, 1) */
{
    return (float)((double)random_bits() / 0x1p31 - 1);
}

static void *allocate(size_t bytes)
{
    void *data = malloc(bytes);
    assert_non_null(data);
    return data;
}

#define SHAPE(...) (int64_t[]){__VA_ARGS__}, (int)(sizeof((int64_t[]){__VA_ARGS__}) / sizeof(int64_t))

static zi_tensor view(float *data, const int64_t *shape, int dims)
{
    zi_tensor tensor = zi_tensor_describe(ZI_F32, dims, shape);
    tensor.data = data;
    return tensor;
}

static zi_tensor random_tensor(float magnitude, const int64_t *shape, int dims)
{
    zi_tensor tensor = view(NULL, shape, dims);
    float *data = tensor.data = allocate((size_t)zi_tensor_count(&tensor) * sizeof(float));
    for (int64_t i = 0; i < zi_tensor_count(&tensor); i++)
        data[i] = magnitude * random_float();
    return tensor;
}

#define OFFSET 3 /* weights start at an odd address */

static zi_weight random_weight(zi_dtype dtype, const int64_t *shape, int dims)
{
    zi_weight weight = {.name = "test.weight", .dtype = dtype, .dims = dims};
    memcpy(weight.shape, shape, (size_t)dims * sizeof(*shape));
    size_t size = zi_dtype_size(dtype);
    weight.bytes = (size_t)zi_weight_count(&weight) * size;
    uint8_t *data = allocate(weight.bytes + OFFSET);
    weight.data = data + OFFSET;
    for (int64_t i = 0; i < zi_weight_count(&weight); i++) {
        float value = random_float();
        uint32_t bits;
        memcpy(&bits, &value, sizeof(bits));
        if (dtype == ZI_BF16)
            bits >>= 16;
        else if (dtype == ZI_F16) /* any sign and fraction, exponents up to 2^-1 */
            bits = (bits >> 16 & 0x8000) | (bits % 1024) | (random_bits() % 4 ? 13 + random_bits() % 2 : 0) << 10;
        memcpy(data + OFFSET + (size_t)i * size, &bits, size);
    }
    return weight;
}

static void free_weight(zi_weight *weight)
{
    free((uint8_t *)weight->data - OFFSET);
}

#define GUARD  64
#define POISON 12345.75f

/* Memory with poison before, in and behind. */
static float *guarded(int64_t count)
{
    float *base = allocate((size_t)(count + 2 * GUARD) * sizeof(float));
    for (int64_t i = 0; i < count + 2 * GUARD; i++)
        base[i] = POISON;
    return base + GUARD;
}

static void free_guarded(float *data, int64_t count, const char *what)
{
    for (int i = 0; i < GUARD; i++)
        if (data[-1 - i] != POISON || data[count + i] != POISON)
            fail_msg("%s wrote outside its output", what);
    free(data - GUARD);
}

typedef zimage_status op_fn(zi_run *run, zi_tensor *y, void *arg);

static void run_op(zi_run *run, op_fn *op, void *arg, float *data, const float *initial, const int64_t *shape, int dims)
{
    zi_tensor y = view(data, shape, dims);
    if (initial != NULL)
        memcpy(data, initial, (size_t)zi_tensor_count(&y) * sizeof(float));
    expect_ok(op(run, &y, arg));
}

/* Runs op on every table; y starts as `initial` (poison if NULL). */
static void check_op(const char *what, double tolerance, op_fn *op, void *arg, const float *initial,
                     const int64_t *shape, int dims)
{
    zi_tensor like = view(NULL, shape, dims);
    int64_t count = zi_tensor_count(&like);
    float *expected = guarded(count);
    run_op(reference, op, arg, expected, initial, shape, dims);
    for (int tier = 0; tier < tier_count; tier++) {
        float *first = guarded(count);
        run_op(tables[tier][0], op, arg, first, initial, shape, dims);
        double error = relative_error(first, expected, (size_t)count);
        if (!(error <= tolerance))
            fail_msg("%s, %s: relative error %g exceeds %g", what, zi_ops_cpu_tier(tables[tier][0]->ops), error,
                     tolerance);
        for (int threads = 1; threads < THREADS; threads++) {
            float *again = guarded(count);
            run_op(tables[tier][threads], op, arg, again, initial, shape, dims);
            if (memcmp(first, again, (size_t)count * sizeof(float)) != 0)
                fail_msg("%s, %s: other bits with %d threads", what, zi_ops_cpu_tier(tables[tier][0]->ops),
                         threads + 1);
            free_guarded(again, count, what);
        }
        free_guarded(first, count, what);
    }
    free_guarded(expected, count, what);
}

/* ---- products ---------------------------------------------------------------------------------------------------- */

typedef struct linear_case {
    zi_tensor x;
    zi_weight *w1, *w3, *bias;
    int accumulate;
} linear_case;

static zimage_status op_linear(zi_run *run, zi_tensor *y, void *arg)
{
    const linear_case *c = arg;
    return zi_table(run)->linear(run, y, &c->x, c->w1, c->bias, c->accumulate);
}

static zimage_status op_glu(zi_run *run, zi_tensor *y, void *arg)
{
    const linear_case *c = arg;
    return zi_table(run)->linear_glu(run, y, &c->x, c->w1, c->w3);
}

static void check_linear(int64_t tokens, int64_t in, int64_t out, zi_dtype dtype)
{
    char what[100];
    snprintf(what, sizeof(what), "linear %s [%d, %d] x [%d, %d]", zi_dtype_name(dtype), (int)tokens, (int)in, (int)out,
             (int)in);
    zi_weight w1 = random_weight(dtype, SHAPE(out, in)), w3 = random_weight(dtype, SHAPE(out, in));
    zi_weight bias = random_weight(dtype, SHAPE(out));
    linear_case c = {random_tensor(1, SHAPE(tokens, in)), &w1, &w3, NULL, 0};
    zi_tensor before = random_tensor(1, SHAPE(tokens, out));
    check_op(what, TOLERANCE, op_linear, &c, NULL, SHAPE(tokens, out));
    check_op(what, 2 * TOLERANCE, op_glu, &c, NULL, SHAPE(tokens, out));
    c.bias = &bias;
    c.accumulate = 1;
    check_op(what, TOLERANCE, op_linear, &c, before.data, SHAPE(tokens, out));
    free(c.x.data);
    free(before.data);
    free_weight(&w1);
    free_weight(&w3);
    free_weight(&bias);
}

/* Three products of the same activations side by side: [tokens, 33 + 17 + 40]. */
#define OUTS (33 + 17 + 40)

static zimage_status op_linears(zi_run *run, zi_tensor *y, void *arg)
{
    const linear_case *c = arg;
    const zi_weight *const weights[] = {c->w1, c->w3, c->bias};
    int64_t tokens = y->shape[0], begin = 0;
    zi_tensor parts[3];
    float *data = allocate((size_t)(tokens * OUTS) * sizeof(float));
    for (int i = 0; i < 3; begin += weights[i++]->shape[0])
        parts[i] = view(data + tokens * begin, SHAPE(tokens, weights[i]->shape[0]));
    zimage_status status = zi_table(run)->linears(run, 3, parts, &c->x, weights);
    memcpy(y->data, data, (size_t)(tokens * OUTS) * sizeof(float));
    free(data);
    return status;
}

static void test_linears(void **state)
{
    zi_weight a = random_weight(ZI_BF16, SHAPE(33, 100)), b = random_weight(ZI_F32, SHAPE(17, 100));
    zi_weight c = random_weight(ZI_F16, SHAPE(40, 100));
    for (int64_t tokens = 1; tokens < 60; tokens += 19) {
        linear_case all = {random_tensor(1, SHAPE(tokens, 100)), &a, &b, &c, 0};
        check_op("linears", TOLERANCE, op_linears, &all, NULL, SHAPE(tokens, OUTS));
        free(all.x.data);
    }
    free_weight(&a);
    free_weight(&b);
    free_weight(&c);
}

static void test_linear(void **state)
{
    static const int64_t shapes[][3] = {
        {1, 1, 1},   {1, 256, 100}, {2, 3, 17},    {3, 1000, 33}, {4, 31, 5},     {5, 7, 3},
        {6, 256, 8}, {7, 257, 31},  {12, 100, 32}, {17, 300, 33}, {100, 513, 70}, {211, 64, 9},
    };
    for (size_t i = 0; i < sizeof(shapes) / sizeof(shapes[0]); i++)
        for (zi_dtype dtype = ZI_F32; dtype <= ZI_BF16; dtype++)
            check_linear(shapes[i][0], shapes[i][1], shapes[i][2], dtype);
    check_linear(40, 4000, 20, ZI_F32);
}

/* Float32 weights at an aligned address are read without a copy. */
static void test_linear_aligned(void **state)
{
    zi_tensor data = random_tensor(1, SHAPE(37, 129));
    zi_weight w = {.name = "aligned", .dims = 2, .shape = {37, 129}, .data = data.data, .bytes = 37 * 129 * 4};
    linear_case c = {random_tensor(1, SHAPE(19, 129)), &w, &w, NULL, 0};
    check_op("linear, aligned", TOLERANCE, op_linear, &c, NULL, SHAPE(19, 37));
    c.x.shape[0] = 3;
    check_op("linear, aligned, few", TOLERANCE, op_linear, &c, NULL, SHAPE(3, 37));
    free(data.data);
    free(c.x.data);
}

static uint32_t float_bits(float x)
{
    uint32_t bits;
    memcpy(&bits, &x, sizeof(bits));
    return bits;
}

/* Every 16-bit number. */
static void test_unpack(void **state)
{
    uint8_t *stored = allocate(65536 * 2 + 1);
    float *values = allocate(65536 * sizeof(float));
    for (uint32_t i = 0; i < 65536; i++)
        memcpy(stored + 1 + 2 * i, &(uint16_t){(uint16_t)i}, 2);
    for (int tier = 0; tier < tier_count; tier++)
        for (zi_dtype dtype = ZI_F16; dtype <= ZI_BF16; dtype++) {
            zi_cpu_of(tables[tier][0])->kernels->unpack(dtype, stored + 1, 65536, values);
            for (uint32_t i = 0; i < 65536; i++) {
                float expected = dtype == ZI_F16 ? zi_f16_to_f32((uint16_t)i) : zi_bf16_to_f32((uint16_t)i);
                if (isnan(expected) ? !isnan(values[i]) : float_bits(values[i]) != float_bits(expected))
                    fail_msg("%s %04x is %a, not %a", zi_dtype_name(dtype), i, values[i], expected);
            }
        }
    free(stored);
    free(values);
}

/* ---- norms and elements ------------------------------------------------------------------------------------------ */

typedef struct norm_case {
    zi_tensor x, *scale, *gate;
    zi_weight *w, *w_next;
    int with_h, h_is_y;
    zi_tensor cos, sin;
    int64_t heads;
    zi_rope_layout layout;
} norm_case;

static zimage_status op_rms(zi_run *run, zi_tensor *y, void *arg)
{
    const norm_case *c = arg;
    return zi_table(run)->norm(run, y, y,
                               &(zi_norm){.kind = ZI_NORM_RMS, .eps = 1e-5f, .weight = c->w, .scale = c->scale});
}

static zimage_status op_layer(zi_run *run, zi_tensor *y, void *arg)
{
    const norm_case *c = arg;
    return zi_table(run)->norm(run, y, &c->x, &(zi_norm){.kind = ZI_NORM_LAYER, .eps = 1e-6f, .scale = c->scale});
}

/* out [2, tokens, features]: the residual stream, and y or h. */
static zimage_status op_residual(zi_run *run, zi_tensor *out, void *arg)
{
    const norm_case *c = arg;
    zi_tensor x = zi_tensor_rows(out, 0, 1), h = zi_tensor_rows(out, 1, 1);
    const zi_norm post = {.kind = ZI_NORM_RMS, .eps = 1e-5f, .weight = c->w};
    const zi_norm next = {.kind = ZI_NORM_RMS, .eps = 1e-5f, .weight = c->w_next, .scale = c->scale};
    const zi_residual args = {.post = &post, .gate = c->gate, .next = c->with_h ? &next : NULL};
    return zi_table(run)->residual(run, &x, c->h_is_y ? &h : &c->x, c->with_h ? &h : NULL, &args);
}

static zimage_status op_silu(zi_run *run, zi_tensor *y, void *arg)
{
    return zi_table(run)->silu(run, y, y);
}

static void test_norms(void **state)
{
    static const int64_t sizes[][2] = {{1, 1}, {3, 2}, {17, 17}, {5, 31}, {33, 100}, {2, 3840}, {300, 384}};
    for (size_t i = 0; i < sizeof(sizes) / sizeof(sizes[0]); i++) {
        int64_t rows = sizes[i][0], n = sizes[i][1];
        zi_weight w = random_weight(ZI_BF16, SHAPE(n)), w_next = random_weight(ZI_F32, SHAPE(n));
        zi_tensor scale = random_tensor(1, SHAPE(n)), gate = random_tensor(1, SHAPE(n));
        zi_tensor both = random_tensor(3, SHAPE(2, rows, n));
        norm_case c = {.x = random_tensor(3, SHAPE(rows, n))};
        check_op("rms_norm", TOLERANCE, op_rms, &c, both.data, SHAPE(rows, n));
        check_op("layer_norm", TOLERANCE, op_layer, &c, NULL, SHAPE(rows, n));
        check_op("residual", TOLERANCE, op_residual, &c, both.data, SHAPE(2, rows, n));
        c = (norm_case){.x = c.x, .scale = &scale, .gate = &gate, .w = &w, .w_next = &w_next, .with_h = 1};
        check_op("rms_norm, scaled", TOLERANCE, op_rms, &c, both.data, SHAPE(rows, n));
        check_op("layer_norm, scaled", TOLERANCE, op_layer, &c, NULL, SHAPE(rows, n));
        check_op("residual, scaled", TOLERANCE, op_residual, &c, both.data, SHAPE(2, rows, n));
        c.h_is_y = 1;
        check_op("residual, in place", TOLERANCE, op_residual, &c, both.data, SHAPE(2, rows, n));
        check_op("silu", TOLERANCE, op_silu, NULL, both.data, SHAPE(2, rows, n));
        free(scale.data);
        free(gate.data);
        free(both.data);
        free(c.x.data);
        free_weight(&w);
        free_weight(&w_next);
    }
}

/* A mean far above the deviation must not be lost in the squares. */
static void test_layer_norm_offset(void **state)
{
    norm_case c = {.x = random_tensor(1, SHAPE(4, 100))};
    for (int i = 0; i < 400; i++)
        zi_f32(&c.x)[i] = 4096 + floorf(8 * zi_f32(&c.x)[i]); /* exact, so that only the norm rounds */
    check_op("layer_norm, offset", 2e-4, op_layer, &c, NULL, SHAPE(4, 100));
    free(c.x.data);
}

static zimage_status op_rope(zi_run *run, zi_tensor *y, void *arg)
{
    const norm_case *c = arg;
    return zi_table(run)->qk_norm_rope(
        run, y,
        &(zi_qk_norm_rope){
            .weight = c->w, .cos = &c->cos, .sin = &c->sin, .heads = c->heads, .layout = c->layout, .eps = 1e-6f});
}

static void test_rope(void **state)
{
    static const int64_t sizes[][3] = {{1, 1, 2}, {3, 2, 6}, {17, 3, 34}, {33, 5, 64}, {100, 6, 128}};
    for (size_t i = 0; i < sizeof(sizes) / sizeof(sizes[0]); i++) {
        int64_t tokens = sizes[i][0], heads = sizes[i][1], dim = sizes[i][2];
        zi_weight w = random_weight(ZI_F16, SHAPE(dim));
        zi_tensor x = random_tensor(2, SHAPE(tokens, heads * dim));
        norm_case c = {.w = &w, .heads = heads};
        c.cos = random_tensor(1, SHAPE(tokens, dim / 2));
        c.sin = random_tensor(1, SHAPE(tokens, dim / 2));
        for (c.layout = ZI_ROPE_ADJACENT; c.layout <= ZI_ROPE_HALF_SPLIT; c.layout++)
            check_op("qk_norm_rope", TOLERANCE, op_rope, &c, x.data, SHAPE(tokens, heads * dim));
        free(x.data);
        free(c.cos.data);
        free(c.sin.data);
        free_weight(&w);
    }
}

/* e^x through softmax with a maximum of 0: at most 2 units in the last place and what the rounding of x log2(e) leaves,
 * 2^-24 (1 + 0.22, the constant's) for each of |x|; and SiLU far out. */
static void test_exponential(void **state)
{
    for (int tier = 0; tier < tier_count; tier++) {
        const zi_cpu_kernels *kernels = zi_cpu_of(tables[tier][0])->kernels;
        double worst = 0;
        for (int i = 0; i < 400000; i++) {
            float x = -87.0f * (float)i / 400000, value = x, max = 0, sum = 0;
            kernels->softmax(&value, 1, 1, 1, &max, &sum);
            double expected = exp((double)x);
            double ulps = fabs(value - expected) / (nextafterf((float)expected, INFINITY) - (float)expected);
            worst = fmax(worst, ulps / (2 + 1.25 * fabs((double)x)));
        }
        printf("exp, %s: %.2f of what is allowed\n", kernels->name, worst);
        assert_true(worst <= 1);
        float far[5] = {-1e30f, -200, 200, 0, NAN};
        kernels->silu(far, far, 5);
        assert_true(fabsf(far[0]) < 1e-7f && fabsf(far[1]) < 1e-30f && far[2] == 200 && far[3] == 0 && isnan(far[4]));
    }
}

/* ---- attention --------------------------------------------------------------------------------------------------- */

typedef struct attention_case {
    zi_tensor k, v;
    zi_attention shape;
} attention_case;

static zimage_status op_attention(zi_run *run, zi_tensor *y, void *arg)
{
    const attention_case *c = arg;
    return zi_table(run)->attention(run, y, y, &c->k, &c->v, &c->shape);
}

static void check_attention(int64_t queries, int64_t keys, int64_t heads, int64_t kv_heads, int64_t dim, int causal,
                            float magnitude, double tolerance)
{
    char what[100];
    snprintf(what, sizeof(what), "attention %d x %d, heads %d / %d x %d%s, +-%g", (int)queries, (int)keys, (int)heads,
             (int)kv_heads, (int)dim, causal ? ", causal" : "", magnitude);
    zi_tensor q = random_tensor(magnitude, SHAPE(queries, heads * dim));
    attention_case c = {random_tensor(magnitude, SHAPE(keys, kv_heads * dim)),
                        random_tensor(1, SHAPE(keys, kv_heads * dim)),
                        {.heads = heads, .kv_heads = kv_heads, .head_dim = dim, .causal = causal}};
    check_op(what, tolerance, op_attention, &c, q.data, SHAPE(queries, heads * dim));
    free(q.data);
    free(c.k.data);
    free(c.v.data);
}

static void test_attention(void **state)
{
    check_attention(1, 1, 1, 1, 1, 0, 1, TOLERANCE);
    check_attention(3, 17, 2, 2, 5, 0, 2, TOLERANCE);
    check_attention(100, 31, 1, 1, 33, 0, 2, TOLERANCE);
    check_attention(49, 129, 3, 1, 64, 0, 2, TOLERANCE);
    check_attention(288, 288, 2, 2, 128, 0, 2, TOLERANCE);
    check_attention(70, 300, 1, 1, 512, 0, 1, TOLERANCE);
    check_attention(1, 1, 4, 2, 32, 1, 1, TOLERANCE);
    check_attention(33, 33, 8, 2, 31, 1, 2, TOLERANCE);
    check_attention(261, 261, 4, 2, 64, 1, 2, TOLERANCE);
}

/* Scores in the thousands: their own rounding, about 1e-4, is the error of the weights. */
static void test_attention_large(void **state)
{
    check_attention(50, 200, 2, 1, 64, 0, 60, 2e-3);
    check_attention(150, 150, 2, 1, 64, 1, 60, 2e-3);
}

/* Key heads in more than one group, and a NaN that must come through. */
static void test_attention_groups(void **state)
{
    check_attention(50, 4200, 6, 6, 48, 0, 1, TOLERANCE);
    zi_tensor q = random_tensor(1, SHAPE(5, 8)), k = random_tensor(1, SHAPE(200, 8)), o = random_tensor(1, SHAPE(5, 8));
    zi_f32(&k)[199 * 8] = NAN;
    for (int tier = 0; tier < tier_count; tier++) {
        zi_run *run = tables[tier][0];
        int finite = 1;
        expect_ok(
            zi_table(run)->attention(run, &o, &q, &k, &k, &(zi_attention){.heads = 1, .kv_heads = 1, .head_dim = 8}));
        expect_ok(zi_table(run)->check_finite(run, &o, &finite));
        assert_int_equal(finite, 0);
    }
    free(q.data);
    free(k.data);
    free(o.data);
}

/* ---- convolution and group norm ---------------------------------------------------------------------------------- */

typedef struct conv_case {
    zi_tensor x;
    zi_conv conv;
    int64_t band; /* output rows at a time; 0: all */
} conv_case;

static zimage_status op_conv(zi_run *run, zi_tensor *y, void *arg)
{
    const conv_case *c = arg;
    zi_conv conv = c->conv;
    int64_t pad = conv.weight->shape[2] / 2, step = c->band > 0 ? c->band : y->shape[0];
    for (int64_t row = 0; row < y->shape[0]; row += step) {
        int64_t rows = zi_min(step, y->shape[0] - row), low = zi_max(0, row - pad) >> conv.upsample;
        int64_t high = zi_min(c->x.shape[0], ((row + rows - 1 + pad) >> conv.upsample) + 1);
        zi_tensor out = zi_tensor_rows(y, row, rows), in = zi_tensor_rows(&c->x, low, high - low);
        conv.x_row = low;
        conv.y_row = row;
        ZI_TRY(zi_table(run)->conv2d(run, &out, &in, &conv));
    }
    return ZIMAGE_OK;
}

/* The bits of the whole image must come out of every band height. */
static void check_bands(conv_case *c, const float *before, const int64_t *shape, int dims)
{
    zi_tensor like = view(NULL, shape, dims);
    int64_t count = zi_tensor_count(&like);
    for (int tier = 0; tier < tier_count; tier++) {
        float *whole = guarded(count);
        c->band = 0;
        run_op(tables[tier][1], op_conv, c, whole, before, shape, dims);
        for (c->band = 1; c->band < shape[0]; c->band += 2) {
            float *bands = guarded(count);
            run_op(tables[tier][1], op_conv, c, bands, before, shape, dims);
            if (memcmp(whole, bands, (size_t)count * sizeof(float)) != 0)
                fail_msg("convolution: other bits in bands of %d rows", (int)c->band);
            free_guarded(bands, count, "convolution in bands");
        }
        free_guarded(whole, count, "convolution");
    }
    c->band = 0;
}

static void check_conv(int64_t rows, int64_t columns, int64_t in, int64_t out, int64_t size, int upsample,
                       zi_dtype dtype)
{
    char what[100];
    snprintf(what, sizeof(what), "conv %dx%d %s, %d -> %d channels, %d x %d%s", (int)size, (int)size,
             zi_dtype_name(dtype), (int)in, (int)out, (int)rows, (int)columns, upsample ? ", doubled" : "");
    zi_weight weight = random_weight(dtype, SHAPE(out, in, size, size)), bias = random_weight(dtype, SHAPE(out));
    zi_channel_affine affine = {random_tensor(1, SHAPE(in)), random_tensor(1, SHAPE(in))};
    int64_t shape[] = {rows << upsample, columns << upsample, out};
    zi_tensor before = random_tensor(1, shape, 3);
    conv_case c = {.x = random_tensor(1, SHAPE(rows, columns, in))};
    c.conv = zi_conv_same(&weight, NULL);
    c.conv.upsample = upsample;
    c.conv.image_rows = rows;
    check_op(what, TOLERANCE, op_conv, &c, NULL, shape, 3);
    c.conv.bias = &bias;
    c.conv.affine = &affine;
    c.conv.accumulate = 1;
    check_op(what, TOLERANCE, op_conv, &c, before.data, shape, 3);
    check_bands(&c, before.data, shape, 3);
    c.conv.affine = NULL;
    check_bands(&c, before.data, shape, 3);
    free(c.x.data);
    free(before.data);
    free(affine.scale.data);
    free(affine.shift.data);
    free_weight(&weight);
    free_weight(&bias);
}

static void test_conv(void **state)
{
    check_conv(1, 1, 1, 1, 3, 0, ZI_F32);
    check_conv(1, 1, 3, 2, 1, 0, ZI_F16);
    check_conv(3, 1, 4, 17, 3, 1, ZI_BF16);
    check_conv(1, 9, 5, 3, 3, 1, ZI_F32);
    check_conv(7, 5, 33, 3, 3, 0, ZI_F16);
    check_conv(17, 13, 16, 31, 3, 0, ZI_F32);
    check_conv(9, 33, 8, 65, 1, 0, ZI_BF16);
    check_conv(6, 11, 100, 33, 3, 1, ZI_F16);
    check_conv(5, 3, 300, 140, 3, 0, ZI_F32);
    check_conv(2, 100, 257, 5, 1, 1, ZI_F32);
}

typedef struct group_case {
    zi_tensor x;
    int64_t groups;
    zi_weight *w, *b;
    int bands;
} group_case;

/* y = the folded norm of x, its sums taken in two bands. */
static zimage_status op_group_norm(zi_run *run, zi_tensor *y, void *arg)
{
    const group_case *c = arg;
    int64_t channels = zi_features(&c->x), first = c->bands ? c->x.shape[0] / 2 : 0;
    zi_tensor sums = random_tensor(0, SHAPE(c->groups, 4));
    zi_channel_affine affine = {random_tensor(0, SHAPE(channels)), random_tensor(0, SHAPE(channels))};
    zi_tensor low = zi_tensor_rows(&c->x, 0, first), high = zi_tensor_rows(&c->x, first, c->x.shape[0] - first);
    if (first > 0)
        expect_ok(zi_table(run)->group_norm_sums(run, &sums, &low, 0));
    expect_ok(zi_table(run)->group_norm_sums(run, &sums, &high, first > 0));
    expect_ok(
        zi_table(run)->group_norm_fold(run, &affine, &sums, zi_tensor_count(&c->x) / c->groups, c->w, c->b, 1e-6f));
    expect_ok(zi_table(run)->channel_affine(run, y, &c->x, &affine));
    free(sums.data);
    free(affine.scale.data);
    free(affine.shift.data);
    return ZIMAGE_OK;
}

static void test_group_norm(void **state)
{
    static const int64_t sizes[][4] = {{1, 2, 1, 1},    {3, 5, 2, 2},    {17, 13, 33, 3},
                                       {9, 31, 64, 32}, {64, 1, 100, 4}, {8, 100, 512, 32}};
    for (size_t i = 0; i < sizeof(sizes) / sizeof(sizes[0]); i++) {
        int64_t channels = sizes[i][2], shape[] = {sizes[i][0], sizes[i][1], channels};
        zi_weight w = random_weight(ZI_F32, SHAPE(channels)), b = random_weight(ZI_F16, SHAPE(channels));
        group_case c = {.x = random_tensor(3, shape, 3), .groups = sizes[i][3], .w = &w, .b = &b};
        check_op("group norm", TOLERANCE, op_group_norm, &c, NULL, shape, 3);
        c.bands = 1;
        check_op("group norm in bands", TOLERANCE, op_group_norm, &c, NULL, shape, 3);
        free(c.x.data);
        free_weight(&w);
        free_weight(&b);
    }
}

static void test_check_finite(void **state)
{
    static const float bad[] = {NAN, INFINITY, -INFINITY};
    zi_tensor x = random_tensor(3e38f, SHAPE(70, 1001));
    for (int table = -1; table < tier_count; table++) {
        zi_run *run = table < 0 ? reference : tables[table][2];
        int finite = 0;
        expect_ok(zi_table(run)->check_finite(run, &x, &finite));
        assert_int_equal(finite, 1);
        for (int i = 0; i < 60; i++) {
            float *place = zi_f32(&x) + (i < 30 ? i : 70 * 1001 - 60 + i), kept = *place;
            *place = bad[i % 3];
            expect_ok(zi_table(run)->check_finite(run, &x, &finite));
            assert_int_equal(finite, 0);
            zimage_status status = zi_end_block(run, &x, "layer %d", 7);
            assert_int_equal(status, ZIMAGE_ERROR_NOT_FINITE);
            assert_non_null(strstr(last_error.message, "layer 7"));
            *place = kept;
        }
        expect_ok(zi_end_block(run, &x, "layer %d", 7));
    }
    free(x.data);
}

/* The residual's own check: numbers whose squares overflow are finite. */
static void test_residual_finite(void **state)
{
    zi_tensor y = random_tensor(1, SHAPE(9, 301)), x = random_tensor(1, SHAPE(9, 301));
    for (int table = -1; table < tier_count; table++) {
        zi_run *run = table < 0 ? reference : tables[table][2];
        for (int64_t place = 7; place < 9 * 301; place += 631) {
            float kept = zi_f32(&x)[place];
            int finite = 0;
            const zi_norm post = {.kind = ZI_NORM_RMS, .eps = 1e-5f};
            const zi_residual args = {.post = &post, .finite = &finite};
            zi_f32(&x)[place] = 1e30f;
            expect_ok(zi_table(run)->residual(run, &x, &y, NULL, &args));
            assert_int_equal(finite, 1);
            zi_f32(&x)[place] = place % 2 ? NAN : -INFINITY;
            expect_ok(zi_table(run)->residual(run, &x, &y, NULL, &args));
            assert_int_equal(finite, 0);
            assert_int_equal(zi_end_block_known(run, finite, "layer %d", 8), ZIMAGE_ERROR_NOT_FINITE);
            assert_non_null(strstr(last_error.message, "layer 8"));
            zi_f32(&x)[place] = kept;
        }
    }
    free(x.data);
    free(y.data);
}

static int stop(void *user)
{
    return *(int *)user;
}

static void test_cancel(void **state)
{
    zi_tensor x = random_tensor(1, SHAPE(2, 2));
    int answer = 0;
    reference->block_done = stop;
    reference->user = &answer;
    assert_int_equal(zi_end_block(reference, &x, "a block"), ZIMAGE_OK);
    answer = 1;
    assert_int_equal(zi_end_block(reference, &x, "a block"), ZIMAGE_ERROR_CANCELLED);
    reference->block_done = NULL;
    free(x.data);
}

/* ---- the reference by hand --------------------------------------------------------------------------------------- */

static zi_weight floats_weight(const float *data, const int64_t *shape, int dims)
{
    zi_weight weight = {.name = "hand", .dtype = ZI_F32, .dims = dims, .data = (const uint8_t *)data};
    memcpy(weight.shape, shape, (size_t)dims * sizeof(*shape));
    weight.bytes = (size_t)zi_weight_count(&weight) * sizeof(float);
    return weight;
}

static void expect(const float *values, const float *expected, int count)
{
    for (int i = 0; i < count; i++)
        if (!(fabsf(values[i] - expected[i]) <= 1e-6f))
            fail_msg("value %d is %.8g, not %.8g", i, values[i], expected[i]);
}

#define EXPECT(values, ...)                                                                                            \
    expect(values, (const float[]){__VA_ARGS__}, (int)(sizeof((const float[]){__VA_ARGS__}) / sizeof(float)))

static void test_reference_products(void **state)
{
    const zi_ops_table *t = zi_table(reference);
    float x[] = {1, 2, 3, -1}, y[4] = {10, 20, 30, 40};
    zi_tensor tx = view(x, SHAPE(2, 2)), ty = view(y, SHAPE(2, 2));
    zi_weight w = floats_weight((const float[]){1, 10, -1, 0.5f}, SHAPE(2, 2));
    zi_weight bias = floats_weight((const float[]){100, 200}, SHAPE(2));
    expect_ok(t->linear(reference, &ty, &tx, &w, &bias, 1));
    EXPECT(y, 10 + 21 + 100, 20 + 0 + 200, 30 - 7 + 100, 40 - 3.5f + 200);
    expect_ok(t->linear(reference, &ty, &tx, &w, NULL, 0));
    EXPECT(y, 21, 0, -7, -3.5f);
    zi_weight w1 = floats_weight((const float[]){0, 0, 0, 1}, SHAPE(2, 2));
    expect_ok(t->linear_glu(reference, &ty, &tx, &w1, &w)); /* SiLU(2) = 1.76159416, SiLU(-1) = -0.26894142 */
    EXPECT(y, 0, 0, 0, -0.26894142f * -3.5f);
    int32_t ids[] = {1, 0};
    expect_ok(t->embed_rows(reference, &ty, &w, ids));
    EXPECT(y, -1, 0.5f, 1, 10);
}

static void test_reference_norms(void **state)
{
    const zi_ops_table *t = zi_table(reference);
    float x[] = {3, 4}, y[2], h[2], gate[] = {2, 10};
    zi_tensor tx = view(x, SHAPE(1, 2)), ty = view(y, SHAPE(1, 2)), th = view(h, SHAPE(1, 2)),
              tg = view(gate, SHAPE(2));
    zi_weight w = floats_weight((const float[]){1, 2}, SHAPE(2));
    expect_ok(
        t->norm(reference, &ty, &tx, &(zi_norm){.kind = ZI_NORM_RMS, .weight = &w})); /* sqrt(12.5) = 3.53553391 */
    EXPECT(y, 0.84852814f, 2.2627417f);
    expect_ok(t->norm(reference, &ty, &tx, &(zi_norm){.kind = ZI_NORM_LAYER, .scale = &tg}));
    EXPECT(y, -2, 10);
    y[0] = 1, y[1] = 1;
    const zi_norm post = {.kind = ZI_NORM_RMS, .weight = &w}, next = {.kind = ZI_NORM_RMS};
    const zi_residual residual = {.post = &post, .gate = &tg, .next = &next};
    expect_ok(t->residual(reference, &tx, &ty, &th, &residual)); /* x += {2, 20}: {5, 24} */
    EXPECT(x, 5, 24);
    EXPECT(h, 0.28843553f, 1.3844874f); /* / sqrt(300.5) */

    float head[] = {1, 1, 1, 1}, c[] = {0, 1}, s[] = {1, 0};
    zi_tensor heads = view(head, SHAPE(1, 4)), tc = view(c, SHAPE(1, 2)), ts = view(s, SHAPE(1, 2));
    zi_weight w4 = floats_weight((const float[]){1, 2, 3, 4}, SHAPE(4));
    expect_ok(t->qk_norm_rope(
        reference, &heads,
        &(zi_qk_norm_rope){.weight = &w4, .cos = &tc, .sin = &ts, .heads = 1, .layout = ZI_ROPE_ADJACENT}));
    EXPECT(head, -2, 1, 3, 4);
    head[0] = head[1] = head[2] = head[3] = 1;
    expect_ok(t->qk_norm_rope(
        reference, &heads,
        &(zi_qk_norm_rope){.weight = &w4, .cos = &tc, .sin = &ts, .heads = 1, .layout = ZI_ROPE_HALF_SPLIT}));
    EXPECT(head, -3, 2, 1, 4);

    float m[] = {0.5f, 0, -1, 1};
    zi_tensor tm = view(m, SHAPE(4));
    static const zi_modulation kinds[] = {ZI_MODULATION_ONE_PLUS, ZI_MODULATION_TANH, ZI_MODULATION_COPY,
                                          ZI_MODULATION_TANH};
    expect_ok(t->modulation(reference, &tm, 4, kinds));
    EXPECT(m, 1.5f, 0, -1, 0.76159416f);
    expect_ok(t->modulation(reference, &tm, 1, kinds));
    EXPECT(m, 2.5f, 1, 0, 1.76159416f);
}

static void test_reference_attention(void **state)
{
    /* Two query heads, one key head of dim 1. Scores q k are {0, ln 3} and {0, 0}: weights {1/4, 3/4}, {1/2, 1/2}. */
    float q[] = {1, 0, 1, 0}, k[] = {0, 1.0986123f}, v[] = {4, 8}, o[4];
    zi_tensor tq = view(q, SHAPE(2, 2)), tk = view(k, SHAPE(2, 1)), tv = view(v, SHAPE(2, 1)),
              to = view(o, SHAPE(2, 2));
    zi_attention shape = {.heads = 2, .kv_heads = 1, .head_dim = 1};
    expect_ok(zi_table(reference)->attention(reference, &to, &tq, &tk, &tv, &shape));
    EXPECT(o, 7, 6, 7, 6);
    shape.causal = 1;
    expect_ok(zi_table(reference)->attention(reference, &to, &tq, &tk, &tv, &shape));
    EXPECT(o, 4, 4, 7, 6);
}

static void test_reference_images(void **state)
{
    const zi_ops_table *t = zi_table(reference);
    float image[8] = {0, 1, 2, 3, 10, 11, 12, 13}, tokens[8], back[8]; /* [C = 2, H = 2, W = 2] */
    zi_tensor tl = view(image, SHAPE(2, 2, 2)), tt = view(tokens, SHAPE(1, 8)), tb = view(back, SHAPE(2, 2, 2));
    expect_ok(t->patchify(reference, &tt, &tl, 2, ZI_PATCH_CHANNELS_LAST));
    EXPECT(tokens, 0, 10, 1, 11, 2, 12, 3, 13);
    expect_ok(t->unpatchify(reference, &tb, &tt, 2, ZI_PATCH_CHANNELS_LAST));
    EXPECT(back, 0, 1, 2, 3, 10, 11, 12, 13);

    float x[] = {1, 2, 3, 4}, y[16];
    zi_tensor tx = view(x, SHAPE(2, 2, 1)), ty = view(y, SHAPE(2, 2, 1)), big = view(y, SHAPE(4, 4, 1));
    zi_weight w = floats_weight((const float[]){1, 2, 3, 4, 5, 6, 7, 8, 9}, SHAPE(1, 1, 3, 3));
    zi_weight bias = floats_weight((const float[]){100}, SHAPE(1));
    zi_conv conv = zi_conv_same(&w, &bias);
    conv.image_rows = 2;
    expect_ok(t->conv2d(reference, &ty, &tx, &conv));
    EXPECT(y, 100 + 5 + 12 + 24 + 36, 100 + 4 + 10 + 21 + 32, 100 + 2 + 6 + 15 + 24, 100 + 1 + 4 + 12 + 20);
    zi_weight left = floats_weight((const float[]){0, 0, 0, 1, 0, 0, 0, 0, 0}, SHAPE(1, 1, 3, 3)); /* y[j] = x[j - 1] */
    conv = zi_conv_same(&left, NULL);
    conv.upsample = 1;
    conv.image_rows = 2;
    expect_ok(t->conv2d(reference, &big, &tx, &conv));
    EXPECT(y, 0, 1, 1, 2, 0, 1, 1, 2, 0, 3, 3, 4, 0, 3, 3, 4);
    zi_channel_affine affine = {view((float[]){0}, SHAPE(1)), view((float[]){1}, SHAPE(1))}; /* SiLU(1) inside only */
    conv.upsample = 0;
    conv.affine = &affine;
    expect_ok(t->conv2d(reference, &ty, &tx, &conv));
    EXPECT(y, 0, 0.73105858f, 0, 0.73105858f);

    double sum[2];
    zi_tensor sums = view((float *)sum, SHAPE(1, 4));
    zi_weight one = floats_weight((const float[]){2}, SHAPE(1));
    expect_ok(t->group_norm_sums(reference, &sums, &tx, 0)); /* mean 2.5, variance 1.25 */
    assert_true(sum[0] == 10 && sum[1] == 30);
    expect_ok(t->group_norm_fold(reference, &affine, &sums, 4, &one, &bias, 0));
    EXPECT(affine.scale.data, 1.7888544f);
    EXPECT(affine.shift.data, 100 - 2.5f * 1.7888544f);
}

static void test_unknown_tier(void **state)
{
    zi_ops *ops = NULL;
    zimage_error error = ZIMAGE_ERROR_INIT;
    assert_int_equal(zi_ops_cpu_new(pools[0], &(zi_cpu_options){.mask = "avx2,abacus"}, &ops, &error),
                     ZIMAGE_ERROR_ARGUMENT);
    assert_null(ops);
    assert_non_null(strstr(error.message, "abacus"));
}

/* Sizes that can't be had are an error, not a crash. */
static void test_memory(void **state)
{
    for (int table = -1; table < tier_count; table++) {
        zi_run *run = table < 0 ? reference : tables[table][0];
        zi_tensor tensor;
        zi_arena_mark mark = zi_table(run)->mark(run);
        assert_int_equal(zi_table(run)->alloc(run, &tensor, 2, (int64_t[]){INT64_MAX / 8, 100}), ZIMAGE_ERROR_MEMORY);
        expect_ok(zi_table(run)->alloc(run, &tensor, 3, (int64_t[]){3, 5, 7}));
        assert_int_equal((uintptr_t)tensor.data % 64, 0);
        zi_table(run)->release(run, mark);
        assert_true(zi_table(run)->peak_bytes(run->ops) >= 3 * 5 * 7 * 4);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_reference_products),
        cmocka_unit_test(test_reference_norms),
        cmocka_unit_test(test_reference_attention),
        cmocka_unit_test(test_reference_images),
        cmocka_unit_test(test_unknown_tier),
        cmocka_unit_test(test_memory),
        cmocka_unit_test(test_linear),
        cmocka_unit_test(test_linears),
        cmocka_unit_test(test_linear_aligned),
        cmocka_unit_test(test_unpack),
        cmocka_unit_test(test_norms),
        cmocka_unit_test(test_layer_norm_offset),
        cmocka_unit_test(test_rope),
        cmocka_unit_test(test_exponential),
        cmocka_unit_test(test_attention),
        cmocka_unit_test(test_attention_large),
        cmocka_unit_test(test_attention_groups),
        cmocka_unit_test(test_conv),
        cmocka_unit_test(test_group_norm),
        cmocka_unit_test(test_check_finite),
        cmocka_unit_test(test_residual_finite),
        cmocka_unit_test(test_cancel),
    };
    return cmocka_run_group_tests(tests, set_up, tear_down);
}
