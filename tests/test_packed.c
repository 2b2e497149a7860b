/*
 * Packed gemms: every one that this machine can run, and those of AMX in emulated tiles, against sums of the same
 * numbers in integers or float64. Sizes are odd; guards lie on both sides of each output.
 */
#include "base/numbers.h"
#include "cpu/cpu.h"
#include "cpu/packed.h"
#include "ops/cases.h"
#include "support.h"

#if defined(__x86_64__)
/* src/cpu/packed_amx.c once more, in C (amx_emulated.c) */
extern const zi_packed_gemm emulated_bf16_amx, emulated_int8_amx;
#endif

static zi_pool *pools[2];
static zi_run runs[2], reference;
static const zi_packed_gemm *gemms[20];
static int gemm_count;
static zimage_error last_error = ZIMAGE_ERROR_INIT;

static void expect_ok(zimage_status status)
{
    if (status != ZIMAGE_OK)
        fail_msg("%s", last_error.message);
}

static void add(const zi_packed_gemm *const *list)
{
    for (; *list != NULL; list++) {
        int usable = (*list)->feature == ZI_CPU_ALWAYS || zi_cpu_features() >> (*list)->feature & 1;
        printf("%s%s\n", (*list)->name, usable ? "" : ": not on this machine");
        if (usable)
            gemms[gemm_count++] = *list;
    }
}

static int set_up(void **state)
{
    add(zi_packed_gemms_bf16);
    add(zi_packed_gemms_int8);
#if defined(__x86_64__)
    gemms[gemm_count++] = &emulated_bf16_amx;
    gemms[gemm_count++] = &emulated_int8_amx;
#endif
    expect_ok(zi_ops_reference_new(&reference.ops, &last_error));
    for (int i = 0; i < 2; i++) {
        expect_ok(zi_pool_new(i + 1, &pools[i], &last_error));
        expect_ok(
            zi_ops_cpu_new(pools[i], &(zi_cpu_options){.compute = ZIMAGE_COMPUTE_F32}, &runs[i].ops, &last_error));
        runs[i].error = &last_error;
    }
    return 0;
}

static int tear_down(void **state)
{
    for (int i = 0; i < 2; i++) {
        zi_table(&runs[i])->free(runs[i].ops);
        zi_pool_free(pools[i]);
    }
    zi_table(&reference)->free(reference.ops);
    return 0;
}

static uint64_t random_state = ZI_RANDOM_SEED;

static uint32_t random_bits(void)
{
    return zi_random_bits(&random_state);
}

static float random_float(void) /* [-1, 1) */
{
    return zi_random_float(&random_state);
}

/* The larger of both errors; a NaN is infinite. */
static double larger_error(double worst, double error)
{
    return error <= worst ? worst : isnan(error) ? INFINITY : error;
}

/* What packing to numbers of that kind makes of rows: bf16, or integers with one scale a row. */
static void round_rows(zi_cpu_number number, float *x, int64_t rows, int64_t n)
{
    zi_cases_round_rows(number == ZI_NUMBER_BF16 ? ZIMAGE_COMPUTE_BF16 : ZIMAGE_COMPUTE_INT8, x, rows, n);
}

static void *allocate(int64_t bytes)
{
    void *data = malloc((size_t)bytes);
    assert_non_null(data);
    return data;
}

/* ---- kernels ----------------------------------------------------------------------------------------------------- */

/* A number of that kind: its stored bytes, and its value. */
static double random_number(zi_cpu_number number, uint8_t *bytes)
{
    if (number == ZI_NUMBER_BF16) {
        float x = random_float();
        uint32_t bits;
        memcpy(&bits, &x, sizeof(bits));
        bits &= 0xffff0000;
        memcpy(&x, &bits, sizeof(x));
        memcpy(bytes, (uint8_t *)&bits + 2, 2);
        return (double)x;
    }
    int value = (int)(random_bits() % 255) - 127;
    int16_t wide = (int16_t)value;
    if (number == ZI_NUMBER_I16)
        memcpy(bytes, &wide, 2);
    else
        *bytes = (uint8_t)(number == ZI_NUMBER_U8 ? value + 128 : value);
    return number == ZI_NUMBER_U8 ? value + 128 : value;
}

#define GUARD  256
#define POISON 0xa5

/* `bytes` with guards on both sides. */
static uint8_t *guarded(int64_t bytes)
{
    uint8_t *base = allocate(bytes + 2 * GUARD);
    memset(base, POISON, (size_t)bytes + 2 * GUARD);
    return base + GUARD;
}

static void free_guarded(uint8_t *data, int64_t bytes, const char *what)
{
    for (int i = 1; i <= GUARD; i++)
        if (data[-i] != POISON || data[bytes + i - 1] != POISON)
            fail_msg("%s wrote outside its output", what);
    free(data - GUARD);
}

/* One call of a gemm on `rows` tokens, `panels` panels and `chunks` chunks; activations lie `gap` bytes apart. */
static void check_tiles(const zi_packed_gemm *f, int64_t rows, int64_t panels, int64_t chunks, int64_t gap)
{
    int per = zi_numbers_per_chunk(f->b), size = ZI_CHUNK / per, lane = 4 / size;
    int64_t blocks = zi_ceil_div(rows, f->mr), padded = blocks * f->mr, k = chunks * per;
    int64_t a_row = ZI_CHUNK + gap, a_bytes = padded * a_row * chunks;
    int64_t b_bytes = panels * chunks * f->nr * ZI_CHUNK, c_bytes = panels * padded * f->nr * 4;
    uint8_t *a = allocate(a_bytes), *b = allocate(b_bytes), *c = guarded(c_bytes);
    double *wide_a = allocate(padded * k * 8), *wide_b = allocate(panels * f->nr * k * 8);
    int64_t *places = allocate(chunks * 8);
    for (int64_t i = 0; i < chunks; i++) /* the chunks lie in reverse order */
        places[i] = (chunks - 1 - i) * padded * a_row;
    for (int64_t r = 0; r < padded; r++)
        for (int64_t i = 0; i < k; i++)
            wide_a[r * k + i] = random_number(f->a, a + places[i / per] + r * a_row + i % per * size);
    for (int64_t n = 0; n < panels * f->nr; n++)
        for (int64_t i = 0; i < k; i++)
            wide_b[n * k + i] = random_number(f->b, b + n / f->nr * chunks * f->nr * ZI_CHUNK +
                                                        (i / lane * f->nr + n % f->nr) * 4 + i % lane * size);
    zi_cpu_tiles tiles = {
        .a = a,
        .a_block = f->mr * a_row,
        .a_row = a_row,
        .a_chunks = places,
        .b = b,
        .b_panel = chunks * f->nr * ZI_CHUNK,
        .c = c,
        .c_panel = padded * f->nr * 4,
        .c_row = f->nr * 4,
        .rows = rows,
        .panels = panels,
        .chunks = chunks,
    };
    double worst = 0;
    for (int pass = 1; pass <= 2; pass++) { /* the second one adds to the first */
        f->product(&tiles);
        for (int64_t n = 0; n < panels * f->nr; n++)
            for (int64_t r = 0; r < rows; r++) {
                double sum = 0, scale = 1e-30, found;
                for (int64_t i = 0; i < k; i++) {
                    sum += pass * wide_a[r * k + i] * wide_b[n * k + i];
                    scale += fabs(pass * wide_a[r * k + i] * wide_b[n * k + i]);
                }
                const uint8_t *p = c + (n / f->nr * padded + r) * f->nr * 4 + n % f->nr * 4;
                float real;
                int32_t whole;
                memcpy(&real, p, sizeof(real));
                memcpy(&whole, p, sizeof(whole));
                found = f->b == ZI_NUMBER_BF16 ? (double)real : whole;
                worst = larger_error(worst, fabs(found - sum) / scale);
            }
        tiles.accumulate = 1;
    }
    if (!(worst <= (f->b == ZI_NUMBER_BF16 ? 1e-6 : 0)))
        fail_msg("%s, %d x %d panels x %d chunks: error %g", f->name, (int)rows, (int)panels, (int)chunks, worst);
    free_guarded(c, c_bytes, f->name);
    free(a);
    free(b);
    free(wide_a);
    free(wide_b);
    free(places);
}

static void test_tiles(void **state)
{
    for (int i = 0; i < gemm_count; i++) {
        const zi_packed_gemm *f = gemms[i];
        check_tiles(f, 1, 1, 1, 0);
        check_tiles(f, f->mr, 2, 3, 0);
        check_tiles(f, f->mr + 1, 1, 2, 64);
        check_tiles(f, 2 * f->mr + f->mr / 2, 3, 5, 192);
        check_tiles(f, 3 * f->mr - 1, 1, 7, 0);
        check_tiles(f, f->mr, 2, f->block + 1, 0);
        check_tiles(f, 2 * f->mr, 1, 2, 0);
        for (int rows = 1; rows <= f->mr; rows += 15) /* AMX: each number of tiles */
            check_tiles(f, rows, 2, 3, 64);
    }
}

/* Every gemm of this build has all its fields, also those that this machine can't run. */
static void test_fields(void **state)
{
    const zi_packed_gemm *const *lists[] = {zi_packed_gemms_bf16, zi_packed_gemms_int8};
    for (int i = 0; i < 2; i++)
        for (const zi_packed_gemm *const *list = lists[i]; *list != NULL; list++) {
            const zi_packed_gemm *f = *list;
            assert_true(f->name != NULL && f->product != NULL && f->peak != NULL);
            assert_true(f->mr <= ZI_PACKED_MR_MAX && f->nr <= ZI_PACKED_NR_MAX && f->block > 0 && f->group > 0);
            assert_true(f->rows >= f->mr && f->rows % f->mr == 0);
        }
}

/* The rate in registers: operations grow with the rounds. */
static void test_peak(void **state)
{
    enum { ROUNDS = 8 };
    for (int i = 0; i < gemm_count; i++) {
        float sink = 0;
        double operations = gemms[i]->peak(ROUNDS, &sink);
        assert_true(operations > 0 && gemms[i]->peak(2 * ROUNDS, &sink) == 2 * operations);
    }
}

/* Rounding to bf16: ties to even, infinities, NaN; the same in every tier. */
static void test_pack(void **state)
{
    const float x[] = {1, 1.00390625f, 1.01171875f, 1.0039064f, -0.0f, 3.4e38f, INFINITY, -INFINITY, NAN, 1e-40f};
    const uint16_t expected[] = {0x3f80, 0x3f80, 0x3f82, 0x3f81, 0x8000, 0x7f80, 0x7f80, 0xff80, 0x7fc0, 0x0001};
    for (int i = 0; zi_cpu_tier_name(i) != NULL; i++) {
        if (!zi_cpu_tier_available(i))
            continue;
        const zi_cpu_options options = {.mask = zi_cpu_tier_name(i), .compute = ZIMAGE_COMPUTE_F32};
        zi_run table = {0};
        expect_ok(zi_ops_cpu_new(pools[0], &options, &table.ops, &last_error));
        const zi_cpu_kernels *kernels = zi_cpu_of(&table)->kernels;
        uint8_t *out = guarded(2 * ZI_CHUNK);
        kernels->pack(ZI_NUMBER_BF16, ZI_F32, x, 10, 1, out, ZI_CHUNK);
        for (int j = 0; j < 10; j++) {
            uint16_t bits;
            memcpy(&bits, out + 2 * j, 2);
            assert_int_equal(bits, expected[j]);
        }
        for (int j = 20; j < ZI_CHUNK; j++)
            assert_int_equal(out[j], 0);
        float many[100];
        for (int j = 0; j < 100; j++)
            many[j] = (float)(j - 50) / 2 + 0.25f * (float)(j % 2); /* ..., -24.25, -24, ... and halves */
        kernels->pack(ZI_NUMBER_I8, ZI_F32, many, 100, 1, out, ZI_CHUNK);
        for (int j = 0; j < 100; j++)
            assert_int_equal((int8_t)out[j], (int)rintf(many[j]));
        kernels->pack(ZI_NUMBER_U8, ZI_F32, many, 100, 1, out, ZI_CHUNK);
        for (int j = 0; j < 100; j++)
            assert_int_equal(out[j], (int)rintf(many[j]) + 128);
        kernels->pack(ZI_NUMBER_I16, ZI_F32, many, 40, 2, out, ZI_CHUNK);
        for (int j = 0; j < 40; j++) {
            int16_t whole;
            memcpy(&whole, out + 2 * j, 2);
            assert_int_equal(whole, (int)rintf(2 * many[j]));
        }
        free_guarded(out, 2 * ZI_CHUNK, "pack");
        many[17] = -77;
        assert_true(kernels->largest(ZI_F32, many, 100) == 77 && kernels->largest(ZI_F32, many, 17) == 25);
        many[99] = NAN;
        assert_false(isfinite(kernels->largest(ZI_F32, many, 100)));
        zi_table(&table)->free(table.ops);
    }
}

/* ---- whole products ---------------------------------------------------------------------------------------------- */

typedef struct product_case {
    int64_t tokens, in, out;
    zi_dtype dtype;
    int bias, accumulate, gated;
} product_case;

/* int8: whole 128ths, and the first of a row is the largest, so that no rounding is near a tie. */
static float random_element(zi_cpu_number number, int64_t column)
{
    if (number == ZI_NUMBER_BF16)
        return random_float();
    return (float)(column == 0 ? 127 : (int)(random_bits() % 255) - 127) / 128;
}

static zi_weight random_weight(zi_cpu_number number, zi_dtype dtype, int64_t rows, int64_t columns)
{
    int64_t count = rows * columns, size = dtype == ZI_F32 ? 4 : 2;
    zi_weight w = {.name = "test.weight", .dtype = dtype, .dims = 2, .shape = {rows, columns}};
    uint8_t *data = allocate(count * size);
    for (int64_t i = 0; i < count; i++) {
        float x = random_element(number, i % columns);
        uint32_t bits;
        memcpy(&bits, &x, sizeof(bits));
        memcpy(data + i * size, (uint8_t *)&bits + 4 - size, (size_t)size);
    }
    w.data = data;
    w.bytes = (size_t)(count * size);
    return w;
}

static zi_tensor tensor_of(float *data, int64_t rows, int64_t columns)
{
    zi_tensor tensor = zi_tensor_describe(ZI_F32, 2, (const int64_t[]){rows, columns});
    tensor.data = data;
    return tensor;
}

static void run_product(zi_run *table, const product_case *c, float *y, float *x, const zi_weight *w,
                        const zi_weight *w3, const zi_weight *bias)
{
    zi_tensor ty = tensor_of(y, c->tokens, c->out), tx = tensor_of(x, c->tokens, c->in);
    if (c->gated)
        expect_ok(zi_table(table)->linear_glu(table, &ty, &tx, w, w3));
    else
        expect_ok(zi_table(table)->linear(table, &ty, &tx, w, c->bias ? bias : NULL, c->accumulate));
}

/* A product by a packed gemm is the reference backend's product of rounded operands. It has the same bytes with any
 * number of threads. */
static void check_product(const zi_packed_gemm *gemm, const product_case *c)
{
    int64_t outputs = c->tokens * c->out, weights = c->out * c->in;
    zi_weight w[2] = {random_weight(gemm->b, c->dtype, c->out, c->in), random_weight(gemm->b, c->dtype, c->out, c->in)},
              rounded[2];
    zi_weight bias = random_weight(ZI_NUMBER_BF16, ZI_F32, 1, c->out);
    bias.dims = 1;
    bias.shape[0] = c->out;
    float *x = allocate(c->tokens * c->in * 4), *start = allocate(outputs * 4), *expected = allocate(outputs * 4);
    for (int64_t i = 0; i < c->tokens * c->in; i++)
        x[i] = 3 * random_element(gemm->b, i % c->in);
    for (int64_t i = 0; i < outputs; i++)
        expected[i] = start[i] = random_float();
    uint8_t *y[2];
    for (int threads = 0; threads < 2; threads++) {
        y[threads] = guarded(outputs * 4);
        memcpy(y[threads], start, (size_t)outputs * 4);
        zi_cpu_of(&runs[threads])->linear = gemm;
        run_product(&runs[threads], c, (float *)(void *)y[threads], x, &w[0], &w[1], &bias);
        zi_cpu_of(&runs[threads])->linear = NULL;
    }
    assert_memory_equal(y[0], y[1], (size_t)outputs * 4);
    float *plain[2];
    for (int i = 0; i < 2; i++) {
        plain[i] = allocate(weights * 4);
        zi_weight_unpack(&w[i], 0, weights, plain[i]);
        round_rows(gemm->b, plain[i], c->out, c->in);
        rounded[i] = w[i];
        rounded[i].dtype = ZI_F32;
        rounded[i].data = (const uint8_t *)plain[i];
    }
    round_rows(gemm->b, x, c->tokens, c->in);
    run_product(&reference, c, expected, x, &rounded[0], &rounded[1], &bias);
    double error = relative_error((float *)(void *)y[0], expected, (size_t)outputs);
    double allowed = c->gated ? 4e-6 : 2e-6; /* for one sum; a gated product has two */
    if (!(error <= allowed))
        fail_msg("%s, %d x %d -> %d, %s%s: error %g", gemm->name, (int)c->tokens, (int)c->in, (int)c->out,
                 zi_dtype_name(c->dtype), c->gated ? ", gated" : "", error);
    for (int i = 0; i < 2; i++) {
        free_guarded(y[i], outputs * 4, gemm->name);
        free((void *)w[i].data);
        free(plain[i]);
    }
    free((void *)bias.data);
    free(x);
    free(start);
    free(expected);
}

/* Products of the same activations in one call have the same bytes as in one call each. */
static void check_shared(const zi_packed_gemm *gemm, int64_t tokens)
{
    enum { IN = 200, COUNT = 3 };
    static const int64_t outs[COUNT] = {70, 33, 129};
    zi_weight w[COUNT];
    const zi_weight *weights[COUNT];
    zi_tensor alone[COUNT], together[COUNT];
    float *x = allocate(tokens * IN * 4);
    for (int64_t i = 0; i < tokens * IN; i++)
        x[i] = random_float();
    zi_tensor tx = tensor_of(x, tokens, IN);
    zi_cpu_of(&runs[1])->linear = gemm;
    for (int i = 0; i < COUNT; i++) {
        w[i] = random_weight(gemm->b, i == 1 ? ZI_F32 : ZI_BF16, outs[i], IN);
        weights[i] = &w[i];
        alone[i] = tensor_of(allocate(tokens * outs[i] * 4), tokens, outs[i]);
        together[i] = tensor_of(allocate(tokens * outs[i] * 4), tokens, outs[i]);
        expect_ok(zi_table(&runs[1])->linear(&runs[1], &alone[i], &tx, &w[i], NULL, 0));
    }
    expect_ok(zi_table(&runs[1])->linears(&runs[1], COUNT, together, &tx, weights));
    zi_cpu_of(&runs[1])->linear = NULL;
    for (int i = 0; i < COUNT; i++) {
        assert_memory_equal(alone[i].data, together[i].data, (size_t)(tokens * outs[i] * 4));
        free(alone[i].data);
        free(together[i].data);
        free((void *)w[i].data);
    }
    free(x);
}

static void test_shared(void **state)
{
    for (int i = 0; i < gemm_count; i++)
        for (int64_t tokens = 3; tokens < 200; tokens += 61)
            check_shared(gemms[i], tokens);
}

static void test_products(void **state)
{
    const product_case cases[] = {
        {5, 64, 16, ZI_F32, 0, 0, 0},       {33, 96, 70, ZI_BF16, 1, 0, 0},    {65, 200, 33, ZI_BF16, 0, 1, 0},
        {49, 130, 95, ZI_F32, 1, 1, 0},     {40, 64, 300, ZI_BF16, 0, 0, 1},   {17, 1000, 48, ZI_BF16, 0, 0, 1},
        {100, 2048, 130, ZI_BF16, 1, 0, 0}, {700, 64, 64, ZI_F32, 0, 0, 0},    {133, 96, 70, ZI_BF16, 1, 1, 0},
        {97, 200, 33, ZI_BF16, 0, 1, 0},    {145, 130, 95, ZI_F32, 1, 1, 0},   {140, 64, 300, ZI_BF16, 0, 0, 1},
        {117, 4500, 48, ZI_BF16, 0, 0, 1},  {96, 4500, 100, ZI_BF16, 1, 1, 0},
    };
    for (int i = 0; i < gemm_count; i++)
        for (size_t j = is_brief() ? (size_t)i % 3 : 0; j < sizeof(cases) / sizeof(cases[0]); j += is_brief() ? 3 : 1)
            check_product(gemms[i], &cases[j]);
}

/* y of a product on a backend with these gemms; free() it. */
static float *product_in(const zi_packed_gemm *linear, const zi_packed_gemm *bf16, const product_case *c, float *x,
                         const zi_weight w[2])
{
    float *y = allocate(c->tokens * c->out * 4);
    zi_cpu_of(&runs[0])->linear = linear;
    zi_cpu_of(&runs[0])->bf16 = bf16;
    run_product(&runs[0], c, y, x, &w[0], &w[1], NULL);
    zi_cpu_of(&runs[0])->linear = zi_cpu_of(&runs[0])->bf16 = NULL;
    return y;
}

/* With int8 computation, precise weights take the bf16 gemm, or float32 without one; so if only one of a gated pair
 * is. */
static void test_precise(void **state)
{
    const zi_packed_gemm *int8 = zi_packed_gemms_int8[0], *others[] = {NULL, zi_packed_gemms_bf16[0]};
    for (int i = 0; i < 12; i++) {
        product_case c = {21, 96, 40, ZI_F32, 0, 0, i % 2};
        const zi_packed_gemm *other = others[i / 2 % 2];
        zi_weight w[2] = {random_weight(ZI_NUMBER_BF16, ZI_F32, c.out, c.in),
                          random_weight(ZI_NUMBER_BF16, ZI_F32, c.out, c.in)};
        float *x = allocate(c.tokens * c.in * 4);
        for (int64_t j = 0; j < c.tokens * c.in; j++)
            x[j] = random_float();
        float *exact = product_in(other, other, &c, x, w), *rounded = product_in(int8, int8, &c, x, w);
        size_t bytes = (size_t)(c.tokens * c.out) * 4;
        assert_memory_not_equal(exact, rounded, bytes);
        w[0].precise = i / 4 == 1;
        w[1].precise = i / 4 == 2;
        float *found = product_in(int8, other, &c, x, w);
        assert_memory_equal(found, w[0].precise || (c.gated && w[1].precise) ? exact : rounded, bytes);
        float *all[] = {x, exact, rounded, found, (float *)(void *)w[0].data, (float *)(void *)w[1].data};
        for (size_t j = 0; j < sizeof(all) / sizeof(all[0]); j++)
            free(all[j]);
    }
}

typedef struct operand_case {
    int64_t tokens, in, heads, dim, hidden;
} operand_case;

typedef struct operand_weights {
    zi_weight q, v, out, w1, w3, w2;
} operand_weights;

/* A block of a network: a norm, products, attention, a residual with the next norm, a gated product. `alloc`
 * allocates the matrix operands. y: the outputs of both halves. */
static void run_step(zi_run *table, const operand_case *c, const operand_weights *w, const zi_tensor *start,
                     float *const y[2], zi_op_alloc_operand *alloc)
{
    const zi_ops_table *t = zi_table(table);
    const zi_attention shape = {.heads = c->heads, .kv_heads = c->heads, .head_dim = c->dim};
    const zi_norm norm = {.kind = ZI_NORM_RMS, .eps = 1e-5f};
    int64_t inner = c->heads * c->dim;
    zi_tensor x, h, q, v, o, u, halves[2] = {tensor_of(y[0], c->tokens, c->in), tensor_of(y[1], c->tokens, c->in)};
    zi_arena_mark mark = t->mark(table);
    expect_ok(t->alloc(table, &x, 2, start->shape));
    expect_ok(t->copy(table, &x, start));
    expect_ok(alloc(table, &h, c->tokens, c->in, &w->q));
    expect_ok(t->alloc(table, &q, 2, (int64_t[]){c->tokens, inner}));
    expect_ok(t->alloc(table, &v, 2, (int64_t[]){c->tokens, inner}));
    expect_ok(t->norm(table, &h, &x, &norm));
    expect_ok(t->linears(table, 2, (zi_tensor[]){q, v}, &h, (const zi_weight *[]){&w->q, &w->v}));
    expect_ok(alloc(table, &o, c->tokens, inner, &w->out));
    expect_ok(t->attention(table, &o, &q, &q, &v, &shape));
    expect_ok(t->linear(table, &halves[0], &o, &w->out, NULL, 0));
    expect_ok(t->residual(table, &x, &halves[0], &h, &(zi_residual){.post = &norm, .next = &norm}));
    expect_ok(alloc(table, &u, c->tokens, c->hidden, &w->w2));
    expect_ok(t->linear_glu(table, &u, &h, &w->w1, &w->w3));
    expect_ok(t->linear(table, &halves[1], &u, &w->w2, NULL, 0));
    t->release(table, mark);
}

/* A matrix operand that is kept packed gives the same bytes as one that is packed from float32 later. */
static void check_operands(const zi_packed_gemm *linear, const zi_packed_gemm *bf16, const operand_case *c)
{
    int64_t inner = c->heads * c->dim, count = c->tokens * c->in;
    operand_weights w = {
        random_weight(bf16->b, ZI_BF16, inner, c->in),     random_weight(bf16->b, ZI_BF16, inner, c->in),
        random_weight(bf16->b, ZI_BF16, c->in, inner),     random_weight(bf16->b, ZI_BF16, c->hidden, c->in),
        random_weight(bf16->b, ZI_BF16, c->hidden, c->in), random_weight(bf16->b, ZI_F32, c->in, c->hidden)};
    const zi_weight *all[] = {&w.q, &w.v, &w.out, &w.w1, &w.w3, &w.w2};
    float *x = allocate(count * 4), *plain[2], *packed[2];
    w.w2.precise = 1;
    for (int64_t i = 0; i < count; i++)
        x[i] = 3 * random_float();
    zi_tensor start = tensor_of(x, c->tokens, c->in), probe;
    for (int i = 0; i < 2; i++) {
        plain[i] = allocate(count * 4);
        packed[i] = allocate(count * 4);
        zi_cpu_of(&runs[i])->linear = linear;
        zi_cpu_of(&runs[i])->bf16 = bf16;
    }
    zi_arena_mark mark = zi_host_mark(&runs[1]);
    expect_ok(zi_cpu_alloc_operand(&runs[1], &probe, c->tokens, c->hidden, &w.w2));
    assert_int_equal(probe.dtype, c->tokens > ZI_SKINNY_TOKENS ? ZI_OPERAND : ZI_F32);
    zi_host_release(&runs[1], mark);
    run_step(&runs[0], c, &w, &start, plain, zi_host_alloc_operand);
    run_step(&runs[1], c, &w, &start, packed, zi_cpu_alloc_operand);
    for (int i = 0; i < 2; i++) {
        assert_memory_equal(plain[i], packed[i], (size_t)count * 4);
        zi_cpu_of(&runs[i])->linear = zi_cpu_of(&runs[i])->bf16 = NULL;
        free(plain[i]);
        free(packed[i]);
    }
    for (size_t i = 0; i < sizeof(all) / sizeof(all[0]); i++)
        free((void *)all[i]->data);
    free(x);
}

static void test_operands(void **state)
{
    static const operand_case cases[] = {
        {101, 70, 3, 40, 90}, {145, 64, 2, 64, 100}, {97, 33, 1, 32, 17}, {192, 96, 2, 96, 160}, {96, 64, 2, 32, 64}};
    const zi_packed_gemm *int8 = zi_packed_gemms_int8[0];
    for (int i = 0; i < gemm_count; i++)
        for (size_t j = 0; j < sizeof(cases) / sizeof(cases[0]) && gemms[i]->b == ZI_NUMBER_BF16; j++) {
            check_operands(gemms[i], gemms[i], &cases[j]);
            check_operands(int8, gemms[i], &cases[j]);
        }
}

static float *random_rows(int64_t count, float magnitude)
{
    float *x = allocate(count * 4);
    for (int64_t i = 0; i < count; i++)
        x[i] = magnitude * random_float();
    round_rows(ZI_NUMBER_BF16, x, 1, count);
    return x;
}

/* Packing 4-bit groups gives the bytes of unpacking and then packing, for every kind of number and every tier. So
 * does packing stored bf16 and float16. */
static void test_pack_stored(void **state)
{
    const zi_cpu_number numbers[] = {ZI_NUMBER_BF16, ZI_NUMBER_I16, ZI_NUMBER_I8, ZI_NUMBER_U8};
    uint8_t *source = allocate(4096);
    for (int i = 0; i < 4096; i++)
        source[i] = (uint8_t)random_bits();
    for (int i = 0; zi_cpu_tier_name(i) != NULL; i++) {
        if (!zi_cpu_tier_available(i))
            continue;
        const zi_cpu_options options = {.mask = zi_cpu_tier_name(i), .compute = ZIMAGE_COMPUTE_F32};
        zi_run table = {0};
        expect_ok(zi_ops_cpu_new(pools[0], &options, &table.ops, &last_error));
        const zi_cpu_kernels *kernels = zi_cpu_of(&table)->kernels;
        for (int kind = 0; kind < 4; kind++)
            for (int64_t group = 32; group <= 128; group *= 2)
                for (int64_t groups = 1; groups <= 5; groups++) {
                    float scales[5], biases[5], numbers_out[640], largest;
                    for (int g = 0; g < 5; g++) {
                        scales[g] = (float)(random_bits() % 255) / 64 - 2; /* few bits, as bf16 has */
                        biases[g] = (float)(random_bits() % 255) / 16 - 8;
                    }
                    int64_t count = group * groups,
                            bytes = zi_ceil_div(count, zi_numbers_per_chunk(numbers[kind])) * 96;
                    uint8_t *found = guarded(bytes), *expected = guarded(bytes);
                    kernels->unpack_groups(4, group, source + 1, scales, biases, groups, numbers_out);
                    largest = kernels->largest(ZI_F32, numbers_out, count);
                    float factor = numbers[kind] == ZI_NUMBER_BF16 ? 1 : 127 / largest;
                    kernels->pack(numbers[kind], ZI_F32, numbers_out, count, factor, expected, 96);
                    kernels->pack_nibbles(numbers[kind], group, source + 1, scales, biases, groups, factor, found, 96);
                    assert_memory_equal(found, expected, (size_t)bytes);
                    free_guarded(found, bytes, "pack_nibbles");
                    free_guarded(expected, bytes, "pack");
                }
        for (zi_dtype dtype = ZI_F16; dtype <= ZI_BF16; dtype++)
            for (int kind = 0; kind < 4; kind++)
                for (int64_t n = 1; n < 140; n += 23) {
                    uint16_t stored[140];
                    float wide[140];
                    uint8_t found[5 * ZI_CHUNK] = {0}, expected[5 * ZI_CHUNK] = {0};
                    for (int j = 0; j < 140; j++) /* up to 2 in magnitude */
                        stored[j] = (uint16_t)(random_bits() % 2 << 15 | random_bits() % 0x4000);
                    kernels->unpack(dtype, (const uint8_t *)stored, n, wide);
                    kernels->pack(numbers[kind], ZI_F32, wide, n, 60, expected, ZI_CHUNK);
                    kernels->pack(numbers[kind], dtype, stored, n, 60, found, ZI_CHUNK);
                    assert_memory_equal(found, expected, sizeof(found));
                    assert_true(kernels->largest(dtype, stored, n) == kernels->largest(ZI_F32, wide, n));
                }
        zi_table(&table)->free(table.ops);
    }
    free(source);
}

/*
 * A product with MLX's groups has the same bytes as with the same numbers stored in float32. Two exceptions: a gemm
 * that unpacks nibbles adds in another order, and in int8 a row of 4-bit groups may have another scale.
 */
static void check_grouped(int64_t tokens, int64_t in, int64_t out, int group, zi_dtype scale_dtype, int gated)
{
    const int64_t groups = out * in / group;
    for (int i = 0; i < gemm_count; i++)
        for (int bits = 4; bits <= 8; bits += 4) {
            uint8_t *words = allocate(out * in), *halves = allocate(2 * groups * 2);
            for (int64_t j = 0; j < out * in; j++)
                words[j] = (uint8_t)random_bits();
            for (int64_t j = 0; j < 2 * groups; j++) { /* scales around 1 / 16, biases around -1 / 2 */
                int first = scale_dtype == ZI_BF16 ? (j < groups ? 0x3d80 : 0xbf00) : (j < groups ? 0x2c00 : 0xb800);
                uint16_t value = (uint16_t)(first + (int)(random_bits() % 64));
                memcpy(halves + 2 * j, &value, 2);
            }
            zi_weight grouped = {.name = "g",
                                 .dtype = ZI_GROUPED,
                                 .dims = 2,
                                 .shape = {out, in},
                                 .data = words,
                                 .bits = bits,
                                 .group = group,
                                 .scale_dtype = scale_dtype,
                                 .scales = halves,
                                 .biases = halves + groups * 2};
            zi_weight plain = {.name = "p", .dims = 2, .shape = {out, in}};
            float *numbers = allocate(out * in * 4), *x = random_rows(tokens * in, 1),
                  *y = allocate(2 * tokens * out * 4);
            zi_weight_unpack(&grouped, 0, out * in, numbers);
            plain.data = (const uint8_t *)numbers;
            product_case c = {tokens, in, out, ZI_F32, 0, 0, gated};
            zi_cpu_of(&runs[0])->linear = gemms[i];
            run_product(&runs[0], &c, y, x, &grouped, &grouped, NULL);
            run_product(&runs[0], &c, y + tokens * out, x, &plain, &plain, NULL);
            zi_cpu_of(&runs[0])->linear = NULL;
            double error = relative_error(y + tokens * out, y, (size_t)(tokens * out));
            /* another scale of a row: up to half a 127th of each weight, of either sign, over all inputs; SiLU(a) b has
             * the errors of both sums, and the slope of SiLU is at most 1.1 */
            int other_order = gemms[i]->nibbles != NULL && bits == 4 && tokens <= ZI_SKINNY_TOKENS;
            double other_scale = gated ? 0.021 : 0.01;
            double allowed = other_order ? 2e-6 : gemms[i]->b == ZI_NUMBER_BF16 || bits == 8 ? 0 : other_scale;
            if (!(error <= allowed))
                fail_msg("%s, %d bits, %d x %d -> %d, groups of %d%s: error %g", gemms[i]->name, bits, (int)tokens,
                         (int)in, (int)out, group, gated ? ", gated" : "", error);
            free(words);
            free(halves);
            free(numbers);
            free(x);
            free(y);
        }
}

/* Weights as rows, and as panels. */
static void test_grouped_products(void **state)
{
    for (int group = 32; group <= (is_brief() ? 32 : 128); group *= 2) {
        check_grouped(37, 384, 77, group, ZI_BF16, 0);
        check_grouped(137, 384, 77, group, ZI_BF16, 0);
        check_grouped(20, 384, 80, group, ZI_F16, 1);
    }
    for (int64_t tokens = 5; tokens <= 96; tokens += 13) /* AMX: each number of panels */
        for (int group = 32; group <= (is_brief() ? 32 : 64); group += 32)
            check_grouped(tokens, 128 * (tokens % 9 + 1), 16 * (tokens % 5 + 1), group, ZI_BF16, tokens % 2);
    check_grouped(51, 192, 64, 64, ZI_BF16, 0);
}

/* ---- attention and convolutions ---------------------------------------------------------------------------------- */

/* The operands are bf16 already, so the error comes from rounding the weights of softmax, half a unit of 2^-8 each. */
static void check_attention(const zi_packed_gemm *gemm, int64_t queries, int64_t keys, const zi_attention *shape)
{
    int64_t width = shape->heads * shape->head_dim, kv_width = shape->kv_heads * shape->head_dim;
    float *q = random_rows(queries * width, 2), *k = random_rows(keys * kv_width, 2),
          *v = random_rows(keys * kv_width, 1);
    float *expected = allocate(queries * width * 4);
    zi_tensor tq = tensor_of(q, queries, width), tk = tensor_of(k, keys, kv_width), tv = tensor_of(v, keys, kv_width);
    zi_tensor out = tensor_of(expected, queries, width);
    expect_ok(zi_table(&reference)->attention(&reference, &out, &tq, &tk, &tv, shape));
    uint8_t *found[2];
    for (int threads = 0; threads < 2; threads++) {
        found[threads] = guarded(queries * width * 4);
        out.data = found[threads];
        zi_cpu_of(&runs[threads])->bf16 = gemm;
        expect_ok(zi_table(&runs[threads])->attention(&runs[threads], &out, &tq, &tk, &tv, shape));
        zi_cpu_of(&runs[threads])->bf16 = NULL;
    }
    assert_memory_equal(found[0], found[1], (size_t)(queries * width * 4));
    double worst = 0;
    for (int64_t i = 0; i < queries * width; i++)
        worst = larger_error(worst, fabs((double)((float *)(void *)found[0])[i] - (double)expected[i]));
    if (!(worst <= 0x1p-9))
        fail_msg("%s: attention of %d queries, %d keys: error %g", gemm->name, (int)queries, (int)keys, worst);
    for (int threads = 0; threads < 2; threads++)
        free_guarded(found[threads], queries * width * 4, gemm->name);
    free(q);
    free(k);
    free(v);
    free(expected);
}

/* A query that is not finite spoils its own output and no other query's; such a key spoils every output. */
static void check_not_finite(const zi_packed_gemm *gemm, float bad)
{
    const zi_attention shape = {.heads = 2, .kv_heads = 1, .head_dim = 40};
    float *q = random_rows(70 * 80, 2), *k = random_rows(333 * 40, 2), *v = random_rows(333 * 40, 1);
    float *y[3] = {allocate(70 * 80 * 4), allocate(70 * 80 * 4), allocate(70 * 80 * 4)};
    float *place[2] = {&q[69 * 80 + 45], &k[200 * 40 + 5]}; /* of the last query's second head */
    zi_tensor tq = tensor_of(q, 70, 80), tk = tensor_of(k, 333, 40), tv = tensor_of(v, 333, 40);
    zi_cpu_of(&runs[0])->bf16 = gemm;
    for (int i = 0; i < 3; i++) {
        zi_tensor out = tensor_of(y[i], 70, 80);
        float kept = i > 0 ? *place[i - 1] : 0;
        if (i > 0)
            *place[i - 1] = bad;
        expect_ok(zi_table(&runs[0])->attention(&runs[0], &out, &tq, &tk, &tv, &shape));
        if (i > 0)
            *place[i - 1] = kept;
    }
    zi_cpu_of(&runs[0])->bf16 = NULL;
    for (int64_t i = 0; i < 70 * 80; i++)
        if ((i >= 69 * 80 + 40 ? !isnan(y[1][i]) : y[0][i] != y[1][i]) || !isnan(y[2][i]))
            fail_msg("%s: number %d is %g and %g", gemm->name, (int)i, (double)y[1][i], (double)y[2][i]);
    free(q);
    free(k);
    free(v);
    for (int i = 0; i < 3; i++)
        free(y[i]);
}

static void test_attention(void **state)
{
    static const struct {
        int64_t queries, keys;
        zi_attention shape;
    } cases[] = {
        {1, 1, {.heads = 1, .kv_heads = 1, .head_dim = 8}},
        {70, 333, {.heads = 2, .kv_heads = 1, .head_dim = 40}},
        {65, 65, {.heads = 4, .kv_heads = 2, .head_dim = 64, .causal = 1}},
        {200, 200, {.heads = 2, .kv_heads = 2, .head_dim = 128, .causal = 1}},
        {33, 129, {.heads = 1, .kv_heads = 1, .head_dim = 600}},
        {450, 270, {.heads = 4, .kv_heads = 2, .head_dim = 32}}, /* several blocks of queries a task */
        {450, 450, {.heads = 4, .kv_heads = 2, .head_dim = 32, .causal = 1}},
    };
    for (int i = 0; i < gemm_count; i++) {
        if (gemms[i]->b != ZI_NUMBER_BF16)
            continue;
        check_not_finite(gemms[i], NAN);
        check_not_finite(gemms[i], -NAN);
        check_not_finite(gemms[i], INFINITY);
        for (size_t j = 0; j < sizeof(cases) / sizeof(cases[0]); j++)
            check_attention(gemms[i], cases[j].queries, cases[j].keys, &cases[j].shape);
    }
}

typedef struct conv_case {
    int64_t rows, columns, in, out, size;
    int upsample, affine;
} conv_case;

static zi_tensor image_of(float *data, int64_t rows, int64_t columns, int64_t channels)
{
    zi_tensor tensor = zi_tensor_describe(ZI_F32, 3, (const int64_t[]){rows, columns, channels});
    tensor.data = data;
    return tensor;
}

static zi_tensor vector_of(float *data, int64_t count)
{
    zi_tensor tensor = zi_tensor_describe(ZI_F32, 1, &count);
    tensor.data = data;
    return tensor;
}

/* Output rows in bands of `step`. */
static void run_conv(zi_run *table, const conv_case *c, zi_conv conv, float *y, float *x, int64_t step)
{
    int64_t out_rows = c->rows << c->upsample, columns = c->columns << c->upsample, pad = c->size / 2;
    for (int64_t row = 0; row < out_rows; row += step) {
        int64_t rows = zi_min_int64(step, out_rows - row), low = zi_max_int64(0, row - pad) >> c->upsample;
        int64_t high = zi_min_int64(c->rows - 1, (row + rows - 1 + pad) >> c->upsample);
        zi_tensor ty = image_of(y + row * columns * c->out, rows, columns, c->out);
        zi_tensor tx = image_of(x + low * c->columns * c->in, high - low + 1, c->columns, c->in);
        conv.x_row = low;
        conv.y_row = row;
        expect_ok(zi_table(table)->conv2d(table, &ty, &tx, &conv));
    }
}

/* As the reference backend on rounded operands; with the same bits for any number of threads and any bands. */
static void check_conv(const zi_packed_gemm *gemm, const conv_case *c)
{
    int64_t taps = c->size * c->size, out_rows = c->rows << c->upsample;
    int64_t outputs = out_rows * (c->columns << c->upsample) * c->out, inputs = c->rows * c->columns * c->in;
    float *w = random_rows(c->out * c->in * taps, 1), *bias = random_rows(c->out, 1), *x = random_rows(inputs, 1);
    float *scale = random_rows(c->in, 1), *shift = random_rows(c->in, 1), *rounded = allocate(inputs * 4);
    float *expected = random_rows(outputs, 1), *start = allocate(outputs * 4);
    memcpy(start, expected, (size_t)outputs * 4);
    zi_weight weight = {.name = "w", .dims = 4, .shape = {c->out, c->in, c->size, c->size}, .data = (uint8_t *)w};
    zi_weight added = {.name = "b", .dims = 1, .shape = {c->out}, .data = (uint8_t *)bias};
    zi_channel_affine affine = {vector_of(scale, c->in), vector_of(shift, c->in)};
    zi_conv conv = zi_conv_same(&weight, &added);
    conv.upsample = c->upsample;
    conv.accumulate = 1;
    conv.image_rows = c->rows;
    memcpy(rounded, x, (size_t)inputs * 4);
    if (c->affine) {
        zi_cpu_of(&runs[0])->kernels->affine(rounded, x, scale, shift, c->rows * c->columns, c->in, 1);
        round_rows(ZI_NUMBER_BF16, rounded, 1, inputs);
    }
    run_conv(&reference, c, conv, expected, rounded, out_rows);
    conv.affine = c->affine ? &affine : NULL;
    uint8_t *first = NULL;
    for (int run = 0; run < 4; run++) {
        uint8_t *y = guarded(outputs * 4);
        memcpy(y, start, (size_t)outputs * 4);
        zi_cpu_of(&runs[run % 2])->bf16 = gemm;
        run_conv(&runs[run % 2], c, conv, (float *)(void *)y, x, run < 2 ? out_rows : 2 * run - 3);
        zi_cpu_of(&runs[run % 2])->bf16 = NULL;
        if (first == NULL) {
            first = y;
            continue;
        }
        assert_memory_equal(y, first, (size_t)outputs * 4);
        free_guarded(y, outputs * 4, gemm->name);
    }
    double error = relative_error((float *)(void *)first, expected, (size_t)outputs);
    if (!(error <= 2e-6))
        fail_msg("%s: convolution of %d x %d, %d -> %d: error %g", gemm->name, (int)c->rows, (int)c->columns,
                 (int)c->in, (int)c->out, error);
    free_guarded(first, outputs * 4, gemm->name);
    float *all[] = {w, bias, x, scale, shift, rounded, expected, start};
    for (size_t i = 0; i < sizeof(all) / sizeof(all[0]); i++)
        free(all[i]);
}

static void test_conv(void **state)
{
    const conv_case cases[] = {
        {1, 1, 1, 1, 3, 0, 0},     {3, 5, 40, 17, 3, 1, 0},   {7, 33, 16, 70, 3, 0, 1},  {9, 34, 64, 3, 1, 0, 0},
        {6, 11, 100, 33, 3, 1, 1}, {5, 3, 300, 140, 3, 0, 0}, {12, 130, 8, 40, 3, 0, 1},
    };
    for (int i = 0; i < gemm_count; i++)
        for (size_t j = 0; j < sizeof(cases) / sizeof(cases[0]) && gemms[i]->b == ZI_NUMBER_BF16; j++)
            check_conv(gemms[i], &cases[j]);
}

/* A token that is not finite makes its whole row not finite, as in float32, so that the check of the block fails. */
static void test_not_finite(void **state)
{
    product_case c = {6, 64, 16, ZI_F32, 0, 0, 0};
    zi_weight w = random_weight(ZI_NUMBER_BF16, ZI_F32, c.out, c.in);
    for (int i = 0; i < gemm_count; i++)
        for (int which = 0; which < 2; which++) {
            float x[6 * 64], y[6 * 16];
            for (int j = 0; j < 6 * 64; j++)
                x[j] = random_float();
            x[3 * 64 + 7] = which ? NAN : INFINITY;
            zi_cpu_of(&runs[0])->linear = gemms[i];
            run_product(&runs[0], &c, y, x, &w, NULL, NULL);
            zi_cpu_of(&runs[0])->linear = NULL;
            for (int j = 0; j < 6 * 16; j++)
                assert_int_equal(isfinite(y[j]) != 0, j / 16 != 3);
        }
    free((void *)w.data);
}

/* A stored format that no kernel knows gives NaN, in kernels and in products. (Once it was read as float16.) */
static void test_unknown_dtype(void **state)
{
    enum { IN = 128, OUT = 48 };
    static const zi_dtype unknown[] = {ZI_GROUPED, ZI_OPERAND, ZI_DTYPE_OTHER, (zi_dtype)99};
    static const int64_t tokens[] = {1, 20, 130}; /* dot products, skinny products, blocks of tokens */
    static const zi_cpu_number numbers[] = {ZI_NUMBER_BF16, ZI_NUMBER_I16, ZI_NUMBER_I8, ZI_NUMBER_U8};
    static uint16_t ones[OUT * IN]; /* float16 */
    static float x[130 * IN], y[130 * OUT];
    for (int i = 0; i < OUT * IN; i++)
        ones[i] = 0x3c00;
    for (int i = 0; i < 130 * IN; i++)
        x[i] = random_float();
    for (size_t u = 0; u < sizeof(unknown) / sizeof(unknown[0]); u++) {
        for (int i = 0; zi_cpu_tier_name(i) != NULL; i++) {
            if (!zi_cpu_tier_available(i))
                continue;
            const zi_cpu_options options = {.mask = zi_cpu_tier_name(i), .compute = ZIMAGE_COMPUTE_F32};
            zi_run table = {0};
            float wide[100];
            uint16_t packed[128];
            expect_ok(zi_ops_cpu_new(pools[0], &options, &table.ops, &last_error));
            const zi_cpu_kernels *kernels = zi_cpu_of(&table)->kernels;
            kernels->unpack(unknown[u], (const uint8_t *)ones, 100, wide);
            for (int j = 0; j < 100; j++)
                assert_true(isnan(wide[j]));
            assert_true(isnan(kernels->largest(unknown[u], ones, 100)));
            for (int j = 0; j < 4; j++)
                kernels->pack(numbers[j], unknown[u], ones, 100, 1, (uint8_t *)packed, ZI_CHUNK);
            kernels->pack(ZI_NUMBER_BF16, unknown[u], ones, 100, 1, (uint8_t *)packed, ZI_CHUNK);
            for (int j = 0; j < 100; j++)
                assert_true(isnan(zi_bf16_to_f32(packed[j])));
            zi_table(&table)->free(table.ops);
        }
        zi_weight w = {.name = "w", .dtype = unknown[u], .dims = 2, .shape = {OUT, IN}, .data = (uint8_t *)ones};
        w.bits = 4; /* groups whose scales are stored in no known format */
        w.group = 32;
        w.scale_dtype = unknown[u];
        w.scales = w.biases = w.data;
        for (int i = -1; i < gemm_count; i++) /* -1: float32 */
            for (int t = 0; t < 6; t++) {
                product_case c = {.tokens = tokens[t % 3], .in = IN, .out = OUT, .gated = t > 2};
                zi_cpu_of(&runs[0])->linear = i < 0 ? NULL : gemms[i];
                run_product(&runs[0], &c, y, x, &w, &w, NULL);
                for (int64_t j = 0; j < c.tokens * OUT; j++)
                    assert_true(isnan(y[j]));
            }
        zi_cpu_of(&runs[0])->linear = NULL;
    }
}

/* The weight of a norm may have any format: in groups of 8 bits it gives what the reference backend computes. */
static void test_norm_in_groups(void **state)
{
    enum { N = 96, ROWS = 3 };
    uint8_t numbers[N];
    uint16_t halves[2 * N / 32];
    float found[ROWS * N], expected[ROWS * N], *x = random_rows(ROWS * N, 1);
    for (int i = 0; i < N; i++)
        numbers[i] = (uint8_t)random_bits();
    for (int i = 0; i < 2 * N / 32; i++)
        halves[i] = (uint16_t)(0x3c00 + random_bits() % 64); /* bf16 */
    zi_weight w = {.name = "w",
                   .dtype = ZI_GROUPED,
                   .dims = 1,
                   .shape = {N},
                   .data = numbers,
                   .bits = 8,
                   .group = 32,
                   .scale_dtype = ZI_BF16,
                   .scales = (uint8_t *)halves,
                   .biases = (uint8_t *)(halves + N / 32)};
    zi_tensor tx = tensor_of(x, ROWS, N), ty = tensor_of(found, ROWS, N);
    const zi_norm norm = {.kind = ZI_NORM_RMS, .eps = 1e-6f, .weight = &w};
    expect_ok(zi_table(&runs[0])->norm(&runs[0], &ty, &tx, &norm));
    ty.data = expected;
    expect_ok(zi_table(&reference)->norm(&reference, &ty, &tx, &norm));
    for (int i = 0; i < ROWS * N; i++)
        assert_true(fabs((double)found[i] - (double)expected[i]) <= 2e-6 * fabs((double)expected[i]));
    free(x);
}

/* Argument: the tests to run, as a pattern of names. */
int main(int argc, char **argv)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_fields),
        cmocka_unit_test(test_peak),
        cmocka_unit_test(test_tiles),
        cmocka_unit_test(test_pack_stored),
        cmocka_unit_test(test_grouped_products),
        cmocka_unit_test(test_pack),
        cmocka_unit_test(test_products),
        cmocka_unit_test(test_shared),
        cmocka_unit_test(test_attention),
        cmocka_unit_test(test_conv),
        cmocka_unit_test(test_not_finite),
        cmocka_unit_test(test_precise),
        cmocka_unit_test(test_operands),
        cmocka_unit_test(test_unknown_dtype),
        cmocka_unit_test(test_norm_in_groups),
    };
    if (argc > 1)
        cmocka_set_test_filter(argv[1]);
    return cmocka_run_group_tests(tests, set_up, tear_down);
}
