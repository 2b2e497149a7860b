/*
 * The reference backend against values that were computed by hand. All other backends are compared with it. Then what
 * the cases of src/ops/cases.h can't test of the CPU backend: kernels alone, errors, the ends of blocks.
 */
#include "support.h"

#include "cpu/cpu.h"
#include "cpu/table.h"

static zi_run reference_run, *reference = &reference_run;
static zi_pool *pool;
static zimage_error last_error = ZIMAGE_ERROR_INIT;

static void expect_ok(zimage_status status)
{
    if (status != ZIMAGE_OK)
        fail_msg("%s", last_error.message);
}

static int set_up(void **state)
{
    expect_ok(zi_ops_reference_new(&reference->ops, &last_error));
    reference->error = &last_error;
    expect_ok(zi_pool_new(2, &pool, &last_error));
    return 0;
}

static int tear_down(void **state)
{
    zi_pool_free(pool);
    zi_table(reference)->free(reference->ops);
    return 0;
}

#define SHAPE(...) (int64_t[]){__VA_ARGS__}, (int)(sizeof((int64_t[]){__VA_ARGS__}) / sizeof(int64_t))

static zi_tensor view(float *data, const int64_t *shape, int dims)
{
    zi_tensor tensor = zi_tensor_describe(ZI_F32, dims, shape);
    tensor.data = data;
    return tensor;
}

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

/* ---- the reference by hand --------------------------------------------------------------------------------------- */

static void test_reference_products(void **state)
{
    const zi_ops_table *t = zi_table(reference);
    float x[] = {1, 2, 3, -1}, y[4] = {10, 20, 30, 40}, z[4];
    zi_tensor tx = view(x, SHAPE(2, 2)), ty = view(y, SHAPE(2, 2)), tz = view(z, SHAPE(2, 2));
    zi_weight w = floats_weight((const float[]){1, 10, -1, 0.5f}, SHAPE(2, 2));
    zi_weight bias = floats_weight((const float[]){100, 200}, SHAPE(2));
    expect_ok(t->linear(reference, &ty, &tx, &w, &bias, 1));
    EXPECT(y, 10 + 21 + 100, 20 + 0 + 200, 30 - 7 + 100, 40 - 3.5f + 200);
    expect_ok(t->linear(reference, &ty, &tx, &w, NULL, 0));
    EXPECT(y, 21, 0, -7, -3.5f);
    zi_weight w1 = floats_weight((const float[]){0, 0, 0, 1}, SHAPE(2, 2));
    expect_ok(t->linears(reference, 2, (zi_tensor[]){ty, tz}, &tx, (const zi_weight *[]){&w1, &w}));
    EXPECT(y, 0, 2, 0, -1);
    EXPECT(z, 21, 0, -7, -3.5f);
    expect_ok(t->linear_glu(reference, &ty, &tx, &w1, &w)); /* SiLU(2) = 1.76159416, SiLU(-1) = -0.26894142 */
    EXPECT(y, 0, 0, 0, -0.26894142f * -3.5f);
    int32_t ids[] = {1, 0};
    expect_ok(t->embed_rows(reference, &ty, &w, ids));
    EXPECT(y, -1, 0.5f, 1, 10);
    expect_ok(t->silu(reference, &tx, &tx));
    EXPECT(x, 0.73105858f, 1.76159416f, 2.85772238f, -0.26894142f);
}

/* Columns of wider matrices: the other columns stay as they are. */
static void test_reference_views(void **state)
{
    const zi_ops_table *t = zi_table(reference);
    float x[] = {9, 1, 2, 9, 9, 3, -1, 9}, y[] = {7, 0, 0, 7, 0, 0}, z[] = {5, 0, 0, 0, 0, 5};
    zi_tensor wide = view(x, SHAPE(2, 4)), wide_y = view(y, SHAPE(2, 3)), wide_z = view(z, SHAPE(2, 3));
    zi_tensor tx = zi_tensor_columns(&wide, 1, 2), ty = zi_tensor_columns(&wide_y, 1, 2);
    zi_tensor tz = zi_tensor_columns(&wide_z, 0, 2);
    zi_weight w = floats_weight((const float[]){1, 10, -1, 0.5f}, SHAPE(2, 2));
    expect_ok(t->linear(reference, &ty, &tx, &w, NULL, 0));
    EXPECT(y, 7, 21, 0, 7, -7, -3.5f);
    expect_ok(t->copy(reference, &tz, &ty));
    EXPECT(z, 21, 0, 0, -7, -3.5f, 5);
    zi_tensor row = zi_tensor_rows(&tx, 1, 1), last = zi_tensor_rows(&ty, 1, 1);
    expect_ok(t->copy(reference, &last, &row));
    EXPECT(y, 7, 21, 0, 7, 3, -1);
    zi_weight w1 = floats_weight((const float[]){0, 0, 0, 1}, SHAPE(2, 2));
    expect_ok(t->linear_glu(reference, &ty, &tx, &w1, &w));
    EXPECT(y, 7, 0, 0, 7, 0, -0.26894142f * -3.5f);

    /* q, k and v side by side: the attention of test_reference_attention */
    float all[] = {1, 0, 0, 4, 1, 0, 1.0986123f, 8}, o[] = {3, 0, 0, 3, 0, 0};
    zi_tensor fused = view(all, SHAPE(2, 4)), wide_o = view(o, SHAPE(2, 3)), to = zi_tensor_columns(&wide_o, 1, 2);
    zi_tensor tq = zi_tensor_columns(&fused, 0, 2), tk = zi_tensor_columns(&fused, 2, 1);
    zi_tensor tv = zi_tensor_columns(&fused, 3, 1);
    expect_ok(t->attention(reference, &to, &tq, &tk, &tv, &(zi_attention){.heads = 2, .kv_heads = 1, .head_dim = 1}));
    EXPECT(o, 3, 7, 6, 3, 7, 6);

    float head[] = {8, 1, 1, 1, 1, 8}, c[] = {0, 1}, s[] = {1, 0};
    zi_tensor wide_head = view(head, SHAPE(1, 6)), heads = zi_tensor_columns(&wide_head, 1, 4);
    zi_tensor tc = view(c, SHAPE(1, 2)), ts = view(s, SHAPE(1, 2));
    zi_weight w4 = floats_weight((const float[]){1, 2, 3, 4}, SHAPE(4));
    const zi_qk_norm_rope rope = {.weight = &w4, .cos = &tc, .sin = &ts, .heads = 1, .layout = ZI_ROPE_ADJACENT};
    expect_ok(t->qk_norm_rope(reference, &heads, &rope));
    EXPECT(head, 8, -2, 1, 3, 4, 8);
}

static void test_reference_norms(void **state)
{
    const zi_ops_table *t = zi_table(reference);
    float x[] = {3, 4}, y[2], scale[] = {2, 10}, shift[] = {0.5f, -1};
    zi_tensor tx = view(x, SHAPE(1, 2)), ty = view(y, SHAPE(1, 2)), ts = view(scale, SHAPE(2)),
              tt = view(shift, SHAPE(2));
    zi_weight w = floats_weight((const float[]){1, 2}, SHAPE(2));
    expect_ok(
        t->norm(reference, &ty, &tx, &(zi_norm){.kind = ZI_NORM_RMS, .weight = &w})); /* sqrt(12.5) = 3.53553391 */
    EXPECT(y, 0.84852814f, 2.2627417f);
    zi_norm norm = {.kind = ZI_NORM_RMS, .weight = &w, .scale = &ts, .shift = &tt};
    expect_ok(t->norm(reference, &ty, &tx, &norm));
    EXPECT(y, 2.19705627f, 21.627417f);
    norm = (zi_norm){.kind = ZI_NORM_LAYER, .scale = &ts};
    expect_ok(t->norm(reference, &ty, &tx, &norm));
    EXPECT(y, -2, 10);
    norm.shift = &tt;
    expect_ok(t->norm(reference, &ty, &tx, &norm));
    EXPECT(y, -1.5f, 9);
    norm = (zi_norm){.kind = ZI_NORM_RMS, .eps = 3.5f}; /* sqrt(12.5 + 3.5) = 4 */
    expect_ok(t->norm(reference, &ty, &tx, &norm));
    EXPECT(y, 0.75f, 1);
}

static void test_reference_residuals(void **state)
{
    const zi_ops_table *t = zi_table(reference);
    float x[] = {3, 4}, y[] = {1, 1}, h[2], gate[] = {2, 10}, shift[] = {0.5f, -1};
    zi_tensor tx = view(x, SHAPE(1, 2)), ty = view(y, SHAPE(1, 2)), th = view(h, SHAPE(1, 2));
    zi_tensor tg = view(gate, SHAPE(2)), tt = view(shift, SHAPE(2));
    zi_weight w = floats_weight((const float[]){1, 2}, SHAPE(2));
    const zi_norm post = {.kind = ZI_NORM_RMS, .weight = &w}, rms = {.kind = ZI_NORM_RMS};
    const zi_norm layer = {.kind = ZI_NORM_LAYER, .scale = &tg, .shift = &tt};
    zi_residual residual = {.post = &post, .gate = &tg, .next = &rms};
    expect_ok(t->residual(reference, &tx, &ty, &th, &residual)); /* x += {2 * 1, 10 * 2} */
    EXPECT(x, 5, 24);
    EXPECT(h, 0.28843553f, 1.3844874f); /* / sqrt(300.5) */

    /* no post norm, then a layer norm with a shift */
    x[0] = 1, x[1] = 2, y[0] = 1, y[1] = 0.3f, gate[1] = 10;
    int finite = 0;
    residual = (zi_residual){.gate = &tg, .next = &layer, .finite = &finite};
    expect_ok(t->residual(reference, &tx, &ty, &th, &residual));
    EXPECT(x, 3, 5);
    EXPECT(h, -2 + 0.5f, 10 - 1);
    assert_int_equal(finite, 1);

    /* nothing but the sum; h may be y */
    residual = (zi_residual){0};
    expect_ok(t->residual(reference, &tx, &ty, NULL, &residual));
    EXPECT(x, 4, 5.3f);
    residual = (zi_residual){.post = &rms, .next = &layer};
    x[0] = 1, x[1] = 1, y[0] = 3, y[1] = 4;
    expect_ok(t->residual(reference, &tx, &ty, &ty, &residual));
    EXPECT(x, 1.84852814f, 2.13137085f);
    EXPECT(y, -2 + 0.5f, 10 - 1);
}

static void test_reference_positions(void **state)
{
    const zi_ops_table *t = zi_table(reference);
    float head[] = {1, 1, 1, 1}, c[2], s[2], angles[] = {1.57079633f, 0};
    zi_tensor heads = view(head, SHAPE(1, 4)), tc = view(c, SHAPE(1, 2)), ts = view(s, SHAPE(1, 2));
    zi_weight w = floats_weight((const float[]){1, 2, 3, 4}, SHAPE(4));
    expect_ok(t->rope_table(reference, &tc, &ts, angles));
    EXPECT(c, 0, 1);
    EXPECT(s, 1, 0);
    zi_qk_norm_rope args = {.weight = &w, .cos = &tc, .sin = &ts, .heads = 1, .layout = ZI_ROPE_ADJACENT};
    expect_ok(t->qk_norm_rope(reference, &heads, &args));
    EXPECT(head, -2, 1, 3, 4);
    head[0] = head[1] = head[2] = head[3] = 1;
    args.layout = ZI_ROPE_HALF_SPLIT;
    expect_ok(t->qk_norm_rope(reference, &heads, &args));
    EXPECT(head, -3, 2, 1, 4);
}

static void test_reference_modulation(void **state)
{
    static const zi_modulation kinds[] = {ZI_MODULATION_ONE_PLUS, ZI_MODULATION_TANH, ZI_MODULATION_COPY,
                                          ZI_MODULATION_TANH};
    const zi_ops_table *t = zi_table(reference);
    float m[] = {0.5f, 0, -1, 1};
    zi_tensor tm = view(m, SHAPE(4));
    expect_ok(t->modulation(reference, &tm, 4, kinds));
    EXPECT(m, 1.5f, 0, -1, 0.76159416f);
    expect_ok(t->modulation(reference, &tm, 1, kinds));
    EXPECT(m, 2.5f, 1, 0, 1.76159416f);
    expect_ok(t->modulation(reference, &tm, 2, (const zi_modulation[]){ZI_MODULATION_COPY, ZI_MODULATION_ONE_PLUS}));
    EXPECT(m, 2.5f, 1, 1, 2.76159416f);
}

static void test_reference_attention(void **state)
{
    /* Two query heads, one key head of dim 1. Scores q k are {0, ln 3} and {0, 0}: weights {1/4, 3/4}, {1/2, 1/2}. */
    const zi_ops_table *t = zi_table(reference);
    float q[] = {1, 0, 1, 0}, k[] = {0, 1.0986123f, 50}, v[] = {4, 8, 1000}, o[4];
    zi_tensor tq = view(q, SHAPE(2, 2)), tk = view(k, SHAPE(2, 1)), tv = view(v, SHAPE(2, 1)),
              to = view(o, SHAPE(2, 2));
    zi_tensor padded_k = view(k, SHAPE(3, 1)), padded_v = view(v, SHAPE(3, 1));
    zi_attention args = {.heads = 2, .kv_heads = 1, .head_dim = 1};
    expect_ok(t->attention(reference, &to, &tq, &tk, &tv, &args));
    EXPECT(o, 7, 6, 7, 6);
    args.causal = 1;
    expect_ok(t->attention(reference, &to, &tq, &tk, &tv, &args));
    EXPECT(o, 4, 4, 7, 6);
    args.key_length = 1;
    expect_ok(t->attention(reference, &to, &tq, &tk, &tv, &args));
    EXPECT(o, 4, 4, 4, 4);
    args = (zi_attention){.heads = 2, .kv_heads = 1, .head_dim = 1, .key_length = 2};
    expect_ok(t->attention(reference, &to, &tq, &padded_k, &padded_v, &args));
    EXPECT(o, 7, 6, 7, 6);
    expect_ok(t->attention(reference, &tq, &tq, &tk, &tv, &args)); /* in place */
    EXPECT(q, 7, 6, 7, 6);
}

static void test_reference_patches(void **state)
{
    const zi_ops_table *t = zi_table(reference);
    float image[] = {0, 1, 2, 3, 4, 5, 6, 7, 10, 11, 12, 13, 14, 15, 16, 17}; /* [C = 2, H = 2, W = 4] */
    float tokens[16], back[16];
    zi_tensor tl = view(image, SHAPE(2, 2, 4)), tt = view(tokens, SHAPE(2, 8)), tb = view(back, SHAPE(2, 2, 4));
    expect_ok(t->patchify(reference, &tt, &tl, 2, ZI_PATCH_CHANNELS_LAST));
    EXPECT(tokens, 0, 10, 1, 11, 4, 14, 5, 15, 2, 12, 3, 13, 6, 16, 7, 17);
    expect_ok(t->unpatchify(reference, &tb, &tt, 2, ZI_PATCH_CHANNELS_LAST));
    expect(back, image, 16);
    expect_ok(t->patchify(reference, &tt, &tl, 2, ZI_PATCH_CHANNELS_FIRST));
    EXPECT(tokens, 0, 1, 4, 5, 10, 11, 14, 15, 2, 3, 6, 7, 12, 13, 16, 17);
    memset(back, 0, sizeof(back));
    expect_ok(t->unpatchify(reference, &tb, &tt, 2, ZI_PATCH_CHANNELS_FIRST));
    expect(back, image, 16);
}

/* Pixels of [-1, 1] as bytes: 0 becomes 127.5, which is rounded to 128. */
static void test_reference_pixels(void **state)
{
    float x[] = {-1, 0, 1, 2, -3, NAN, 0.25f, -0.5f};
    uint8_t bytes[8];
    zi_tensor tx = view(x, SHAPE(8));
    expect_ok(zi_table(reference)->download_rgb8(reference, bytes, &tx));
    assert_memory_equal(bytes, ((const uint8_t[]){0, 128, 255, 255, 0, 0, 159, 64}), 8);
}

static void test_reference_convolution(void **state)
{
    const zi_ops_table *t = zi_table(reference);
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
}

/* Sums of 3 x 3 pixels, two pixels apart: padded on every side, and below and to the right only. */
static void test_reference_strides(void **state)
{
    const zi_ops_table *t = zi_table(reference);
    float x[16], y[4], ones[9];
    for (int i = 0; i < 16; i++)
        x[i] = (float)(i + 1);
    for (int i = 0; i < 9; i++)
        ones[i] = 1;
    zi_tensor tx = view(x, SHAPE(4, 4, 1)), ty = view(y, SHAPE(2, 2, 1));
    zi_weight w = floats_weight(ones, SHAPE(1, 1, 3, 3));
    zi_conv conv = zi_conv_same(&w, NULL);
    conv.image_rows = 4;
    conv.stride = 2;
    assert_int_equal(zi_conv_rows(&conv, 4), 2);
    expect_ok(t->conv2d(reference, &ty, &tx, &conv));
    EXPECT(y, 1 + 2 + 5 + 6, 2 + 3 + 4 + 6 + 7 + 8, 5 + 6 + 9 + 10 + 13 + 14, 6 + 7 + 8 + 10 + 11 + 12 + 14 + 15 + 16);
    conv.pad_top = conv.pad_left = 0;
    assert_int_equal(zi_conv_rows(&conv, 4), 2);
    assert_int_equal(zi_conv_columns(&conv, 5), 2);
    expect_ok(t->conv2d(reference, &ty, &tx, &conv));
    EXPECT(y, 1 + 2 + 3 + 5 + 6 + 7 + 9 + 10 + 11, 3 + 4 + 7 + 8 + 11 + 12, 9 + 10 + 11 + 13 + 14 + 15,
           11 + 12 + 15 + 16);
    zi_tensor band = zi_tensor_rows(&tx, 2, 2), last = zi_tensor_rows(&ty, 0, 1);
    conv.x_row = 2;
    conv.y_row = 1;
    expect_ok(t->conv2d(reference, &last, &band, &conv));
    EXPECT(y, 9 + 10 + 11 + 13 + 14 + 15, 11 + 12 + 15 + 16);
    conv = zi_conv_same(&w, NULL);
    conv.pad_bottom = conv.pad_right = 0; /* stride 1 */
    conv.image_rows = 4;
    assert_int_equal(zi_conv_rows(&conv, 4), 3);
}

static void test_reference_group_norm(void **state)
{
    const zi_ops_table *t = zi_table(reference);
    float x[] = {1, 2, 3, 4}, y[4], scale, shift;
    double sum[2];
    zi_tensor tx = view(x, SHAPE(2, 2, 1)), ty = view(y, SHAPE(2, 2, 1)), sums = view((float *)sum, SHAPE(1, 4));
    zi_tensor half = zi_tensor_rows(&tx, 0, 1), rest = zi_tensor_rows(&tx, 1, 1);
    zi_channel_affine affine = {view(&scale, SHAPE(1)), view(&shift, SHAPE(1))};
    zi_weight two = floats_weight((const float[]){2}, SHAPE(1)), bias = floats_weight((const float[]){100}, SHAPE(1));
    expect_ok(t->group_norm_sums(reference, &sums, &half, 0));
    expect_ok(t->group_norm_sums(reference, &sums, &rest, 1)); /* mean 2.5, variance 1.25 */
    assert_true(sum[0] == 10 && sum[1] == 30);
    expect_ok(t->group_norm_fold(reference, &affine, &sums, 4, &two, &bias, 0));
    EXPECT(&scale, 1.7888544f);
    EXPECT(&shift, 100 - 2.5f * 1.7888544f);
    expect_ok(t->channel_affine(reference, &ty, &tx, &affine));
    for (int i = 0; i < 4; i++)
        assert_true(fabsf(y[i] - (100 + (x[i] - 2.5f) * 1.7888544f)) <= 1e-5f);
}

/* ---- ends of blocks ---------------------------------------------------------------------------------------------- */

static int stop(void *user)
{
    return *(int *)user;
}

static void test_blocks(void **state)
{
    float x[] = {1, 2, 3, 4};
    zi_tensor tx = view(x, SHAPE(2, 2));
    int answer = 0, finite = 1;
    reference->block_done = stop;
    reference->user = &answer;
    reference->blocks = 0;
    assert_int_equal(zi_end_block(reference, &tx, "a block"), ZIMAGE_OK);
    assert_int_equal(reference->blocks, 1);
    answer = 1;
    assert_int_equal(zi_end_block(reference, &tx, "a block"), ZIMAGE_ERROR_CANCELLED);
    assert_int_equal(zi_end_block_known(reference, 1, "a block"), ZIMAGE_ERROR_CANCELLED);
    assert_int_equal(zi_check_block(reference, &tx, "a block"), ZIMAGE_OK);
    reference->block_done = NULL;
    x[2] = NAN;
    expect_ok(zi_table(reference)->check_finite(reference, &tx, &finite));
    assert_int_equal(finite, 0);
    assert_int_equal(zi_end_block(reference, &tx, "layer %d", 7), ZIMAGE_ERROR_NOT_FINITE);
    assert_non_null(strstr(last_error.message, "layer 7"));
    assert_int_equal(zi_check_block(reference, &tx, "layer %d", 9), ZIMAGE_ERROR_NOT_FINITE);
    assert_non_null(strstr(last_error.message, "layer 9"));
    assert_int_equal(zi_end_block_known(reference, 0, "layer %d", 8), ZIMAGE_ERROR_NOT_FINITE);
    assert_non_null(strstr(last_error.message, "layer 8"));
}

/* ---- kernels of the CPU backend ---------------------------------------------------------------------------------- */

/* Calls check for each tier of float32 kernels that this machine can run. */
static void each_tier(void (*check)(const zi_cpu_kernels *kernels))
{
    for (int i = 0; zi_cpu_tier_name(i) != NULL; i++) {
        zi_run run = {.error = &last_error};
        const zi_cpu_options options = {.mask = zi_cpu_tier_name(i), .compute = ZIMAGE_COMPUTE_F32};
        printf("%s%s\n", zi_cpu_tier_name(i), zi_cpu_tier_available(i) ? "" : ": not on this machine");
        if (!zi_cpu_tier_available(i))
            continue;
        expect_ok(zi_ops_cpu_new(pool, &options, &run.ops, &last_error));
        assert_string_equal(zi_ops_cpu_tier(run.ops), zi_cpu_tier_name(i));
        check(zi_cpu_of(&run)->kernels);
        zi_table(&run)->free(run.ops);
    }
}

static uint32_t float_bits(float x)
{
    uint32_t bits;
    memcpy(&bits, &x, sizeof(bits));
    return bits;
}

static void check_unpack(const zi_cpu_kernels *kernels)
{
    uint8_t *stored = malloc(65536 * 2 + 1);
    float *values = malloc(65536 * sizeof(float));
    assert_true(stored && values);
    for (uint32_t i = 0; i < 65536; i++)
        memcpy(stored + 1 + 2 * i, &(uint16_t){(uint16_t)i}, 2);
    for (zi_dtype dtype = ZI_F16; dtype <= ZI_BF16; dtype++) {
        kernels->unpack(dtype, stored + 1, 65536, values);
        for (uint32_t i = 0; i < 65536; i++) {
            float expected = dtype == ZI_F16 ? zi_f16_to_f32((uint16_t)i) : zi_bf16_to_f32((uint16_t)i);
            if (isnan(expected) ? !isnan(values[i]) : float_bits(values[i]) != float_bits(expected))
                fail_msg("%s %04x is %a, not %a", zi_dtype_name(dtype), i, values[i], expected);
        }
    }
    free(stored);
    free(values);
}

/* Every 16-bit number. */
static void test_unpack(void **state)
{
    each_tier(check_unpack);
}

static void check_exponential(const zi_cpu_kernels *kernels)
{
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

/*
 * e^x through softmax with a maximum of 0. Its error is at most 2 units in the last place and what the rounding of
 * x log2(e) leaves, 2^-24 (1 + 0.22, the constant's) for each of |x|. Then SiLU of large numbers.
 */
static void test_exponential(void **state)
{
    each_tier(check_exponential);
}

/* ---- opening and memory ------------------------------------------------------------------------------------------ */

static void test_unknown_tier(void **state)
{
    zi_ops *ops = NULL;
    zimage_error error = ZIMAGE_ERROR_INIT;
    assert_int_equal(zi_ops_cpu_new(pool, &(zi_cpu_options){.mask = "avx2,abacus"}, &ops, &error),
                     ZIMAGE_ERROR_ARGUMENT);
    assert_null(ops);
    assert_non_null(strstr(error.message, "abacus"));
}

/* Kernels rely on the alignment of tensors. */
static void test_alignment(void **state)
{
    zi_run cpu = {.error = &last_error}, *runs[] = {reference, &cpu};
    expect_ok(zi_ops_cpu_new(pool, &(zi_cpu_options){.compute = ZIMAGE_COMPUTE_F32}, &cpu.ops, &last_error));
    for (int i = 0; i < 2; i++) {
        zi_tensor tensor;
        zi_arena_mark mark = zi_table(runs[i])->mark(runs[i]);
        for (int64_t n = 1; n < 40; n += 7) {
            expect_ok(zi_table(runs[i])->alloc(runs[i], &tensor, 3, (int64_t[]){3, n, 7}));
            assert_int_equal((uintptr_t)tensor.data % 64, 0);
            assert_int_equal(tensor.offset, 0);
        }
        zi_table(runs[i])->release(runs[i], mark);
    }
    zi_table(&cpu)->free(cpu.ops);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_reference_products),
        cmocka_unit_test(test_reference_views),
        cmocka_unit_test(test_reference_norms),
        cmocka_unit_test(test_reference_residuals),
        cmocka_unit_test(test_reference_positions),
        cmocka_unit_test(test_reference_modulation),
        cmocka_unit_test(test_reference_attention),
        cmocka_unit_test(test_reference_patches),
        cmocka_unit_test(test_reference_pixels),
        cmocka_unit_test(test_reference_convolution),
        cmocka_unit_test(test_reference_strides),
        cmocka_unit_test(test_reference_group_norm),
        cmocka_unit_test(test_blocks),
        cmocka_unit_test(test_unpack),
        cmocka_unit_test(test_exponential),
        cmocka_unit_test(test_unknown_tier),
        cmocka_unit_test(test_alignment),
    };
    return cmocka_run_group_tests(tests, set_up, tear_down);
}
