/*
 * What the cases of the contract (src/ops/cases.h) can't see of the CPU backend: an operation on a column view, or with
 * padded keys, gives the bits of the same operation on a dense copy; the same for norms that write packed activations,
 * for attention of several sequences, and for products of some rows alone.
 * Convolutions with stride and padding also in emulated AMX tiles. A rehearsal of a whole job finds the job's peak.
 *
 * Every test runs on every tier of float32 kernels and on every packed gemm that this machine can run.
 */
#include "base/numbers.h"
#include "cpu/cpu.h"
#include "cpu/packed.h"
#include "ops/cases.h"
#include "support.h"

#if defined(__x86_64__)
extern const zi_packed_gemm emulated_bf16_amx, emulated_int8_amx; /* amx_emulated.c */
#endif

#define SETS_MAX 32
#define EPS      1e-6f

static zi_pool *pool;
static zi_run reference;
static zimage_error last_error = ZIMAGE_ERROR_INIT;
static zi_cpu_set sets[SETS_MAX];
static int set_count;

static void expect_ok(zimage_status status)
{
    if (status != ZIMAGE_OK)
        fail_msg("%s", last_error.message);
}

static zi_run open_set(const zi_cpu_set *set)
{
    zi_run run = {.error = &last_error};
    expect_ok(zi_cpu_new_with_set(pool, set, &run.ops, &last_error));
    return run;
}

static void close_run(zi_run *run)
{
    zi_table(run)->free(run->ops);
}

static int set_up(void **state)
{
    zi_cpu_set set;
    for (int i = 0; zi_cpu_set_at(i, zi_cpu_features(), &set); i++)
        if (set.usable)
            sets[set_count++] = set;
#if defined(__x86_64__)
    const zi_cpu_kernels *best = sets[set_count - 1].kernels;
    sets[set_count++] = (zi_cpu_set){"bf16 amx, emulated", 1, best, &emulated_bf16_amx};
    sets[set_count++] = (zi_cpu_set){"int8 amx, emulated", 1, best, &emulated_int8_amx};
#endif
    assert_true(set_count <= SETS_MAX);
    expect_ok(zi_pool_new(2, &pool, &last_error));
    expect_ok(zi_ops_reference_new(&reference.ops, &last_error));
    reference.error = &last_error;
    return 0;
}

static int tear_down(void **state)
{
    close_run(&reference);
    zi_pool_free(pool);
    return 0;
}

/* ---- data -------------------------------------------------------------------------------------------------------- */

static uint64_t random_state = ZI_RANDOM_SEED;

static float *random_floats(int64_t count, float magnitude)
{
    float *x = malloc((size_t)count * sizeof(float));
    assert_non_null(x);
    for (int64_t i = 0; i < count; i++)
        x[i] = magnitude * zi_random_float(&random_state);
    return x;
}

/* A matrix, and a copy of it in the middle of a wider one of NaN. free() both data. */
typedef struct matrix {
    zi_tensor dense, view;
    float *wide;
} matrix;

#define MARGIN 5

static matrix matrix_new(int64_t rows, int64_t columns, float magnitude)
{
    int64_t ld = columns + 2 * MARGIN, shape[] = {rows, columns}, wide_shape[] = {rows, ld};
    matrix m = {.dense = zi_tensor_describe(ZI_F32, 2, shape)};
    m.dense.data = random_floats(rows * columns, magnitude);
    m.wide = random_floats(rows * ld, 1);
    zi_tensor wide = zi_tensor_describe(ZI_F32, 2, wide_shape);
    wide.data = m.wide;
    for (int64_t i = 0; i < rows * ld; i++)
        m.wide[i] = NAN;
    m.view = zi_tensor_columns(&wide, MARGIN, columns);
    for (int64_t row = 0; row < rows; row++)
        memcpy(zi_f32(&m.view) + row * ld, zi_f32(&m.dense) + row * columns, (size_t)columns * sizeof(float));
    return m;
}

/* The view has the bits of the dense matrix, and nothing beside it was written. */
static void check_matrix(const matrix *m, const char *what)
{
    int64_t rows = m->dense.shape[0], columns = m->dense.shape[1], ld = m->view.ld;
    for (int64_t row = 0; row < rows; row++) {
        if (memcmp(zi_f32(&m->view) + row * ld, zi_f32(&m->dense) + row * columns, (size_t)columns * sizeof(float)))
            fail_msg("%s: row %d of a view differs", what, (int)row);
        for (int64_t i = 0; i < ld; i++)
            if ((i < MARGIN || i >= MARGIN + columns) && !isnan(m->wide[row * ld + i]))
                fail_msg("%s: wrote beside row %d of a view", what, (int)row);
    }
}

static void matrix_free(matrix *m)
{
    free(m->dense.data);
    free(m->wide);
}

static zi_weight weight_new(int64_t rows, int64_t columns)
{
    return (zi_weight){.name = "w",
                       .dtype = ZI_F32,
                       .dims = rows > 1 ? 2 : 1,
                       .shape = {rows > 1 ? rows : columns, columns},
                       .data = (const uint8_t *)random_floats(rows * columns, 1)};
}

static void weight_free(zi_weight *w)
{
    free((void *)w->data);
}

static zi_tensor vector_new(int64_t n)
{
    zi_tensor x = zi_tensor_describe(ZI_F32, 1, &n);
    x.data = random_floats(n, 1);
    return x;
}

/* ---- column views ------------------------------------------------------------------------------------------------ */

static void check_linear_views(zi_run *run, const char *name, int64_t tokens, int gated)
{
    enum { IN = 96, OUT = 70 };
    matrix x = matrix_new(tokens, IN, 1), y[2] = {matrix_new(tokens, OUT, 1), matrix_new(tokens, OUT, 1)};
    zi_weight w[2] = {weight_new(OUT, IN), weight_new(OUT, IN)}, bias = weight_new(1, OUT);
    const zi_weight *both[] = {&w[0], &w[1]};
    const zi_ops_table *table = zi_table(run);
    if (gated) {
        expect_ok(table->linear_glu(run, &y[0].dense, &x.dense, &w[0], &w[1]));
        expect_ok(table->linear_glu(run, &y[0].view, &x.view, &w[0], &w[1]));
    } else {
        expect_ok(table->linear(run, &y[0].dense, &x.dense, &w[0], &bias, 1));
        expect_ok(table->linear(run, &y[0].view, &x.view, &w[0], &bias, 1));
    }
    check_matrix(&y[0], name);
    expect_ok(table->linears(run, 2, (zi_tensor[]){y[0].dense, y[1].dense}, &x.dense, both));
    expect_ok(table->linears(run, 2, (zi_tensor[]){y[0].view, y[1].view}, &x.view, both));
    for (int i = 0; i < 2; i++) {
        check_matrix(&y[i], name);
        matrix_free(&y[i]);
        weight_free(&w[i]);
    }
    weight_free(&bias);
    matrix_free(&x);
}

static void linears_take_views(void **state)
{
    static const int64_t tokens[] = {1, 3, 20, 96, 101, 300}; /* dot products, skinny products, blocks of tokens */
    for (int i = 0; i < set_count; i++) {
        zi_run run = open_set(&sets[i]);
        for (size_t j = 0; j < sizeof(tokens) / sizeof(tokens[0]); j++)
            for (int gated = 0; gated < 2; gated++)
                check_linear_views(&run, sets[i].name, tokens[j], gated);
        close_run(&run);
    }
}

static void check_attention_views(zi_run *run, const char *name, int64_t queries, int64_t keys, zi_attention args)
{
    int64_t width = args.heads * args.head_dim, kv_width = args.kv_heads * args.head_dim;
    matrix q = matrix_new(queries, width, 2), k = matrix_new(keys, kv_width, 2), v = matrix_new(keys, kv_width, 1);
    matrix o = matrix_new(queries, width, 1);
    expect_ok(zi_table(run)->attention(run, &o.dense, &q.dense, &k.dense, &v.dense, &args));
    expect_ok(zi_table(run)->attention(run, &o.view, &q.view, &k.view, &v.view, &args));
    check_matrix(&o, name);
    expect_ok(zi_table(run)->attention(run, &q.dense, &q.dense, &k.dense, &v.dense, &args)); /* in place */
    expect_ok(zi_table(run)->attention(run, &q.view, &q.view, &k.view, &v.view, &args));
    check_matrix(&q, name);
    matrix_free(&q);
    matrix_free(&k);
    matrix_free(&v);
    matrix_free(&o);
}

static void attention_takes_views(void **state)
{
    for (int i = 0; i < set_count; i++) {
        zi_run run = open_set(&sets[i]);
        check_attention_views(&run, sets[i].name, 70, 333, (zi_attention){.heads = 4, .kv_heads = 2, .head_dim = 40});
        check_attention_views(&run, sets[i].name, 150, 150,
                              (zi_attention){.heads = 2, .kv_heads = 2, .head_dim = 64, .causal = 1});
        check_attention_views(&run, sets[i].name, 65, 300,
                              (zi_attention){.heads = 1, .kv_heads = 1, .head_dim = 128, .key_length = 270});
        close_run(&run);
    }
}

static void rotation_takes_views(void **state)
{
    enum { TOKENS = 37, HEADS = 3, DIM = 40 };
    zi_weight w = weight_new(1, DIM);
    int64_t shape[] = {TOKENS, DIM / 2};
    zi_tensor cosines = zi_tensor_describe(ZI_F32, 2, shape), sines = cosines;
    cosines.data = random_floats(TOKENS * DIM / 2, 1);
    sines.data = random_floats(TOKENS * DIM / 2, 1);
    for (int i = 0; i < set_count; i++)
        for (zi_rope_layout layout = ZI_ROPE_ADJACENT; layout <= ZI_ROPE_HALF_SPLIT; layout++) {
            zi_run run = open_set(&sets[i]);
            matrix x = matrix_new(TOKENS, HEADS * DIM, 1);
            const zi_qk_norm_rope args = {&w, &cosines, &sines, HEADS, layout, EPS, NULL, NULL};
            expect_ok(zi_table(&run)->qk_norm_rope(&run, &x.dense, &args));
            expect_ok(zi_table(&run)->qk_norm_rope(&run, &x.view, &args));
            check_matrix(&x, sets[i].name);
            matrix_free(&x);
            close_run(&run);
        }
    weight_free(&w);
    free(cosines.data);
    free(sines.data);
}

/* ---- keys that are padding --------------------------------------------------------------------------------------- */

/* Whatever lies behind the key length, the result has the bits of attention over the keys before it. */
static void check_key_length(zi_run *run, const char *name, int64_t queries, int64_t keys, int64_t length)
{
    zi_attention args = {.heads = 4, .kv_heads = 2, .head_dim = 40};
    matrix q = matrix_new(queries, 160, 2), k = matrix_new(keys, 80, 2), v = matrix_new(keys, 80, 1);
    matrix o = matrix_new(queries, 160, 1);
    zi_tensor some_k = zi_tensor_rows(&k.dense, 0, length), some_v = zi_tensor_rows(&v.dense, 0, length);
    expect_ok(zi_table(run)->attention(run, &o.dense, &q.dense, &some_k, &some_v, &args));
    for (int64_t i = length * 80; i < keys * 80; i++)
        zi_f32(&k.dense)[i] = zi_f32(&v.dense)[i] = NAN;
    args.key_length = length;
    expect_ok(zi_table(run)->attention(run, &o.view, &q.dense, &k.dense, &v.dense, &args));
    check_matrix(&o, name);
    matrix_free(&q);
    matrix_free(&k);
    matrix_free(&v);
    matrix_free(&o);
}

static void padded_keys_are_not_seen(void **state)
{
    for (int i = 0; i < set_count; i++) {
        zi_run run = open_set(&sets[i]);
        check_key_length(&run, sets[i].name, 70, 512, 1);
        check_key_length(&run, sets[i].name, 70, 512, 77);
        check_key_length(&run, sets[i].name, 33, 512, 256);
        check_key_length(&run, sets[i].name, 1, 300, 299);
        close_run(&run);
    }
}

/* ---- several sequences ------------------------------------------------------------------------------------------- */

/* Emulated tiles, in C: slow, and the same code above them. test_packed.c tests the tiles. */
static int is_emulated(const zi_cpu_set *set)
{
    return set->gemm != NULL && strstr(set->name, "emulated") != NULL;
}

/* A row of a product has the same bits among any number of rows, where a batch is said to suit. */
static void check_rows(zi_run *run, const char *name, const zi_weight *w)
{
    enum { ROWS = 131 };
    static const int64_t parts[] = {5, 64, 97, 101};
    const zi_ops_table *table = zi_table(run);
    matrix x = matrix_new(ROWS, w->shape[1], 1), all = matrix_new(ROWS, w->shape[0], 1);
    matrix part = matrix_new(ROWS, w->shape[0], 1);
    for (int gated = 0; gated < 2; gated++) {
        expect_ok(gated ? table->linear_glu(run, &all.dense, &x.dense, w, w)
                        : table->linear(run, &all.dense, &x.dense, w, NULL, 0));
        for (size_t i = 0; i < sizeof(parts) / sizeof(parts[0]); i++) {
            int64_t rows = parts[i], first = ROWS - rows;
            zi_tensor y = zi_tensor_rows(&part.dense, 0, rows), few = zi_tensor_rows(&x.dense, first, rows);
            if (table->suits_batch(run->ops, rows, ROWS) == ZI_BATCH_NEVER)
                continue;
            expect_ok(gated ? table->linear_glu(run, &y, &few, w, w) : table->linear(run, &y, &few, w, NULL, 0));
            if (memcmp(zi_f32(&y), zi_f32(&all.dense) + first * w->shape[0],
                       (size_t)(rows * w->shape[0]) * sizeof(float)))
                fail_msg("%s, weights of type %s: %d rows have other bits among %d", name, zi_dtype_name(w->dtype),
                         (int)rows, ROWS);
        }
    }
    matrix_free(&x);
    matrix_free(&all);
    matrix_free(&part);
}

static void rows_do_not_depend_on_their_number(void **state)
{
    enum { IN = 2624, OUT = 48, GROUP = 32 }; /* several passes over the inputs */
    zi_weight f32 = weight_new(OUT, IN), bf16 = f32, q4 = f32;
    uint8_t *numbers = (uint8_t *)random_floats(OUT * IN, 1);
    uint16_t *halves = (uint16_t *)(void *)random_floats(OUT * IN / 2, 1);
    for (int i = 0; i < OUT * IN; i++)
        halves[i] = zi_f32_to_bf16(((const float *)(const void *)f32.data)[i]);
    bf16.dtype = ZI_BF16;
    q4.dtype = ZI_GROUPED;
    bf16.data = q4.scales = q4.biases = (const uint8_t *)halves;
    q4.data = numbers;
    q4.bits = 4;
    q4.group = GROUP;
    q4.scale_dtype = ZI_BF16;
    for (int i = 0; i < set_count; i++) {
        if (is_brief() && is_emulated(&sets[i]))
            continue;
        zi_run run = open_set(&sets[i]);
        check_rows(&run, sets[i].name, &f32);
        check_rows(&run, sets[i].name, &bf16);
        check_rows(&run, sets[i].name, &q4);
        close_run(&run);
    }
    weight_free(&f32);
    free(numbers);
    free(halves);
}

/* Attention of two sequences, one below the other, has the bits of attention of each; also in an operand, which a
 * product reads. */
static void check_sequences(zi_run *run, const char *name, const int64_t queries[2], const int64_t keys[2])
{
    enum { HEADS = 2, DIM = 64, WIDE = HEADS * DIM, OUT = 40 };
    const zi_ops_table *table = zi_table(run);
    const zi_attention one = {.heads = HEADS, .kv_heads = HEADS, .head_dim = DIM};
    zi_attention both = one;
    both.sequences = 2;
    int64_t all = queries[0] + queries[1], all_keys = keys[0] + keys[1];
    matrix q = matrix_new(all, WIDE, 2), k = matrix_new(all_keys, WIDE, 2), v = matrix_new(all_keys, WIDE, 1);
    matrix o = matrix_new(all, WIDE, 1), y[2] = {matrix_new(all, OUT, 1), matrix_new(all, OUT, 1)};
    zi_weight w = weight_new(OUT, WIDE);
    zi_tensor operand;
    for (int i = 0; i < 2; i++) {
        int64_t query = i * queries[0], key = i * keys[0];
        zi_tensor rows = zi_tensor_rows(&o.dense, query, queries[i]);
        const zi_tensor of_q = zi_tensor_rows(&q.dense, query, queries[i]);
        const zi_tensor of_k = zi_tensor_rows(&k.dense, key, keys[i]), of_v = zi_tensor_rows(&v.dense, key, keys[i]);
        expect_ok(table->attention(run, &rows, &of_q, &of_k, &of_v, &one));
        both.queries[i] = queries[i];
        both.keys[i] = keys[i];
    }
    expect_ok(table->attention(run, &o.view, &q.view, &k.view, &v.view, &both));
    check_matrix(&o, name);
    zi_arena_mark mark = table->mark(run);
    expect_ok(table->alloc_operand(run, &operand, all, WIDE, &w));
    expect_ok(table->attention(run, &operand, &q.dense, &k.dense, &v.dense, &both));
    expect_ok(table->linear(run, &y[0].dense, &operand, &w, NULL, 0));
    expect_ok(table->linear(run, &y[1].dense, &o.dense, &w, NULL, 0));
    assert_memory_equal(y[0].dense.data, y[1].dense.data, (size_t)(all * OUT) * sizeof(float));
    table->release(run, mark);
    matrix *matrices[] = {&q, &k, &v, &o, &y[0], &y[1]};
    for (size_t i = 0; i < sizeof(matrices) / sizeof(matrices[0]); i++)
        matrix_free(matrices[i]);
    weight_free(&w);
}

static void sequences_see_only_themselves(void **state)
{
    for (int i = 0; i < set_count; i++) {
        zi_run run = open_set(&sets[i]);
        check_sequences(&run, sets[i].name, (const int64_t[]){70, 33}, (const int64_t[]){70, 33});
        check_sequences(&run, sets[i].name, (const int64_t[]){1, 130}, (const int64_t[]){300, 259});
        close_run(&run);
    }
}

/* ---- convolutions ------------------------------------------------------------------------------------------------ */

typedef struct conv_case {
    int64_t rows, columns, in, out, size;
    int stride, pads[4]; /* top, left, bottom, right */
    int affine;
} conv_case;

static zi_tensor image_of(float *data, int64_t rows, int64_t columns, int64_t channels)
{
    const int64_t shape[] = {rows, columns, channels};
    zi_tensor image = zi_tensor_describe(ZI_F32, 3, shape);
    image.data = data;
    return image;
}

/* Output rows in bands of `step`; each gets the input rows that it reads, and no more. */
static void run_conv(zi_run *run, const conv_case *c, zi_conv conv, float *y, float *x, int64_t step)
{
    int64_t out_rows = zi_conv_rows(&conv, c->rows), columns = zi_conv_columns(&conv, c->columns);
    for (int64_t row = 0; row < out_rows; row += step) {
        int64_t rows = zi_min_int64(step, out_rows - row), top = row * c->stride - c->pads[0];
        int64_t low = zi_max_int64(0, top),
                high = zi_min_int64(c->rows - 1, top + (rows - 1) * c->stride + c->size - 1);
        zi_tensor ty = image_of(y + row * columns * c->out, rows, columns, c->out);
        zi_tensor tx = image_of(x + low * c->columns * c->in, high - low + 1, c->columns, c->in);
        conv.x_row = low;
        conv.y_row = row;
        conv.image_rows = c->rows;
        expect_ok(zi_table(run)->conv2d(run, &ty, &tx, &conv));
    }
}

static void check_conv(zi_run *run, const zi_cpu_set *set, const conv_case *c)
{
    zi_weight w = weight_new(c->out, c->in * c->size * c->size), bias = weight_new(1, c->out);
    w.dims = 4;
    memcpy(w.shape, (int64_t[]){c->out, c->in, c->size, c->size}, sizeof(w.shape));
    zi_conv conv = {.weight = &w,
                    .bias = &bias,
                    .stride = c->stride,
                    .pad_top = c->pads[0],
                    .pad_left = c->pads[1],
                    .pad_bottom = c->pads[2],
                    .pad_right = c->pads[3]};
    zi_channel_affine affine = {vector_new(c->in), vector_new(c->in)};
    int64_t inputs = c->rows * c->columns * c->in;
    int64_t out_rows = zi_conv_rows(&conv, c->rows), outputs = out_rows * zi_conv_columns(&conv, c->columns) * c->out;
    float *x = random_floats(inputs, 1), *plain = random_floats(inputs, 1);
    float *y = random_floats(outputs, 1), *bands = random_floats(outputs, 1), *expected = random_floats(outputs, 1);
    int bf16 = set->gemm != NULL && set->gemm->b == ZI_NUMBER_BF16;
    zi_cases_round_rows(ZIMAGE_COMPUTE_BF16, x, 1, inputs);
    zi_cases_round_rows(ZIMAGE_COMPUTE_BF16, (float *)(uintptr_t)w.data, 1, zi_weight_count(&w));
    memcpy(plain, x, (size_t)inputs * sizeof(float));
    if (c->affine) { /* of the backend's own kernel: else another last bit could round to another bf16 */
        set->kernels->affine(plain, x, zi_f32(&affine.scale), zi_f32(&affine.shift), c->rows * c->columns, c->in, 1);
        if (bf16)
            zi_cases_round_rows(ZIMAGE_COMPUTE_BF16, plain, 1, inputs);
    }
    run_conv(&reference, c, conv, expected, plain, out_rows);
    conv.affine = c->affine ? &affine : NULL;
    run_conv(run, c, conv, y, x, out_rows);
    for (int64_t step = 1; step <= 3; step++) {
        run_conv(run, c, conv, bands, x, step);
        assert_memory_equal(bands, y, (size_t)outputs * sizeof(float));
    }
    double error = relative_error(y, expected, (size_t)outputs);
    if (!(error <= 3e-6))
        fail_msg("%s: %d x %d, %d -> %d, stride %d: error %g", set->name, (int)c->rows, (int)c->columns, (int)c->in,
                 (int)c->out, c->stride, error);
    float *all[] = {x, plain, y, bands, expected, affine.scale.data, affine.shift.data};
    for (size_t i = 0; i < sizeof(all) / sizeof(all[0]); i++)
        free(all[i]);
    weight_free(&w);
    weight_free(&bias);
}

static void convolutions_step_and_pad(void **state)
{
    static const conv_case cases[] = {
        {8, 8, 5, 7, 3, 2, {0, 0, 1, 1}, 0},    /* the VAE encoder's downsampling */
        {9, 35, 40, 33, 3, 2, {0, 0, 1, 1}, 0}, /* odd sides: the last column and row are not read */
        {34, 70, 8, 17, 3, 2, {1, 1, 1, 1}, 1}, {7, 9, 16, 16, 3, 1, {0, 1, 1, 0}, 0},
        {5, 6, 33, 20, 3, 1, {0, 0, 0, 0}, 1},  {6, 20, 64, 8, 1, 2, {0, 0, 0, 0}, 0},
        {7, 7, 16, 9, 1, 2, {0, 0, 1, 1}, 0},   {3, 3, 4, 4, 1, 1, {0, 0, 1, 1}, 0}, /* outputs of padding alone */
    };
    for (int i = 0; i < set_count; i++) {
        zi_run run = open_set(&sets[i]);
        for (size_t j = 0; j < sizeof(cases) / sizeof(cases[0]); j++)
            check_conv(&run, &sets[i], &cases[j]);
        close_run(&run);
    }
}

/* ---- norms ------------------------------------------------------------------------------------------------------- */

/* Packed activations of a norm with a shift, and of a residual's: the bits that products pack of float32. */
static void shifted_norms_write_operands(void **state)
{
    enum { TOKENS = 101, N = 96, OUT = 40 };
    zi_weight w = weight_new(OUT, N);
    zi_tensor shift = vector_new(N);
    const zi_norm norm = {.kind = ZI_NORM_LAYER, .eps = EPS, .shift = &shift};
    const zi_residual residual = {.next = &norm};
    for (int i = 0; i < set_count; i++) {
        zi_run run = open_set(&sets[i]);
        const zi_ops_table *table = zi_table(&run);
        matrix x = matrix_new(TOKENS, N, 2), y = matrix_new(TOKENS, N, 2), plain = matrix_new(TOKENS, N, 1);
        matrix out[2] = {matrix_new(TOKENS, OUT, 1), matrix_new(TOKENS, OUT, 1)};
        for (int added = 0; added < 2; added++) {
            zi_tensor operand;
            zi_arena_mark mark = table->mark(&run);
            expect_ok(table->alloc_operand(&run, &operand, TOKENS, N, &w));
            if (added) {
                expect_ok(table->residual(&run, &x.dense, &y.dense, &operand, &residual));
                expect_ok(table->norm(&run, &plain.dense, &x.dense, &norm));
            } else {
                expect_ok(table->norm(&run, &operand, &x.dense, &norm));
                expect_ok(table->norm(&run, &plain.dense, &x.dense, &norm));
            }
            expect_ok(table->linear(&run, &out[0].dense, &operand, &w, NULL, 0));
            expect_ok(table->linear(&run, &out[1].dense, &plain.dense, &w, NULL, 0));
            assert_memory_equal(out[0].dense.data, out[1].dense.data, TOKENS * OUT * sizeof(float));
            table->release(&run, mark);
        }
        matrix *all[] = {&x, &y, &plain, &out[0], &out[1]};
        for (size_t j = 0; j < sizeof(all) / sizeof(all[0]); j++)
            matrix_free(all[j]);
        close_run(&run);
    }
    weight_free(&w);
    free(shift.data);
}

/* ---- rehearsals -------------------------------------------------------------------------------------------------- */

/* Everything that the backend itself computes, on tensors of the stack; rehearsed, no weight and no tensor is read. */
static void run_job(zi_run *run, int64_t tokens, const zi_weight *w)
{
    enum { WIDE = 1024, HEADS = 8, DIM = 128 };
    const zi_ops_table *t = zi_table(run);
    const zi_norm norm = {.kind = ZI_NORM_RMS, .eps = EPS, .weight = &w[3]};
    int64_t wide[] = {tokens, WIDE}, half[] = {tokens, DIM / 2}, image[] = {40, 40, 64}, sums_shape[] = {32, 4};
    int64_t channels = 64;
    zi_tensor x, y, h, q, k, v, o, u, cosines, sines, pixels, made, sums;
    zi_channel_affine affine;
    zi_arena_mark mark = t->mark(run);
    expect_ok(t->alloc(run, &x, 2, wide));
    expect_ok(t->alloc(run, &y, 2, wide));
    expect_ok(t->alloc(run, &q, 2, wide));
    expect_ok(t->alloc(run, &k, 2, wide));
    expect_ok(t->alloc(run, &v, 2, wide));
    expect_ok(t->alloc(run, &cosines, 2, half));
    expect_ok(t->alloc(run, &sines, 2, half));
    expect_ok(t->alloc_operand(run, &h, tokens, WIDE, &w[0]));
    expect_ok(t->alloc_operand(run, &o, tokens, WIDE, &w[0]));
    expect_ok(t->alloc_operand(run, &u, tokens, WIDE, &w[2]));
    zi_arena_mark inner = t->mark(run);
    expect_ok(t->norm(run, &h, &x, &norm));
    expect_ok(t->linears(run, 3, (zi_tensor[]){q, k, v}, &h, (const zi_weight *[]){&w[0], &w[1], &w[0]}));
    const zi_qk_norm_rope rope = {&w[4], &cosines, &sines, HEADS, ZI_ROPE_ADJACENT, EPS, &k, &w[4]};
    expect_ok(t->qk_norm_rope(run, &q, &rope));
    expect_ok(t->attention(run, &o, &q, &k, &v, &(zi_attention){.heads = HEADS, .kv_heads = HEADS, .head_dim = DIM}));
    expect_ok(t->linear(run, &y, &o, &w[0], &w[3], 0));
    int finite = 0;
    expect_ok(t->residual(run, &x, &y, &h, &(zi_residual){.post = &norm, .next = &norm, .finite = &finite}));
    expect_ok(t->linear_glu(run, &u, &h, &w[0], &w[1]));
    expect_ok(t->linear(run, &y, &u, &w[2], NULL, 1));
    expect_ok(t->silu(run, &y, &y));
    expect_ok(t->check_finite(run, &y, &finite));
    t->release(run, inner);
    expect_ok(t->alloc(run, &pixels, 3, image));
    expect_ok(t->alloc(run, &made, 3, image));
    expect_ok(t->alloc_f32(run, &sums, 2, sums_shape));
    expect_ok(t->alloc_f32(run, &affine.scale, 1, &channels));
    expect_ok(t->alloc_f32(run, &affine.shift, 1, &channels));
    zi_conv conv = zi_conv_same(&w[5], NULL);
    conv.affine = &affine;
    conv.image_rows = 40;
    expect_ok(t->group_norm_sums(run, &sums, &pixels, 0));
    expect_ok(t->conv2d(run, &made, &pixels, &conv));
    expect_ok(t->channel_affine(run, &made, &made, &affine));
    t->release(run, mark);
}

/* A rehearsal finds the peak that the job then reaches, on the stack as it stood. */
static void rehearsals_find_the_peak(void **state)
{
    zi_weight w[] = {weight_new(1024, 1024), weight_new(1024, 1024), weight_new(1024, 1024),
                     weight_new(1, 1024),    weight_new(1, 128),     weight_new(64, 64 * 9)},
              unreadable[6];
    static const int64_t tokens[] = {1, 40, 130};
    w[2].precise = ZI_PRECISE_INT8;
    w[5].dims = 4;
    memcpy(w[5].shape, (int64_t[]){64, 64, 3, 3}, sizeof(w[5].shape));
    for (int i = 0; i < 6; i++) {
        unreadable[i] = w[i];
        unreadable[i].data = (const uint8_t *)64; /* no process may read there */
    }
    for (int i = 0; i < set_count; i++) {
        if (is_emulated(&sets[i]))
            continue;
        for (size_t j = 0; j < sizeof(tokens) / sizeof(tokens[0]) - (size_t)is_brief(); j++) {
            zi_run run = open_set(&sets[i]);
            size_t rehearsed = 0, empty = 1;
            expect_ok(zi_table(&run)->rehearse_begin(&run));
            run_job(&run, tokens[j], unreadable);
            expect_ok(zi_table(&run)->rehearse_stage(&run, 0, &rehearsed));
            expect_ok(zi_table(&run)->rehearse_stage(&run, 1, &empty));
            zi_table(&run)->rehearse_end(&run);
            assert_int_equal(empty, 0);
            assert_int_equal(zi_table(&run)->peak_bytes(run.ops), 0);
            run_job(&run, tokens[j], w);
            if (zi_table(&run)->peak_bytes(run.ops) != rehearsed)
                fail_msg("%s, %d tokens: %zu bytes rehearsed, %zu used", sets[i].name, (int)tokens[j], rehearsed,
                         zi_table(&run)->peak_bytes(run.ops));
            close_run(&run);
        }
    }
    for (int i = 0; i < 6; i++)
        weight_free(&w[i]);
}

/* Argument: the tests to run, as a pattern of names. */
int main(int argc, char **argv)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(linears_take_views),
        cmocka_unit_test(attention_takes_views),
        cmocka_unit_test(rotation_takes_views),
        cmocka_unit_test(padded_keys_are_not_seen),
        cmocka_unit_test(convolutions_step_and_pad),
        cmocka_unit_test(shifted_norms_write_operands),
        cmocka_unit_test(rehearsals_find_the_peak),
        cmocka_unit_test(rows_do_not_depend_on_their_number),
        cmocka_unit_test(sequences_see_only_themselves),
    };
    if (argc > 1)
        cmocka_set_test_filter(argv[1]);
    return cmocka_run_group_tests(tests, set_up, tear_down);
}
