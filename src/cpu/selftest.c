#include "cpu/selftest.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

#include "cpu/table.h"

#define GUARD 64 /* floats of NaN before and behind each tensor: a kernel that reads or writes them is found out */
#define EPS   1e-6f
#define SHAPE(...)                                                                                                     \
    (int)(sizeof((int64_t[]){__VA_ARGS__}) / sizeof(int64_t)), (const int64_t[])                                       \
    {                                                                                                                  \
        __VA_ARGS__                                                                                                    \
    }

enum {                /* flags of a case */
       ADD = 1,       /* with a bias, added to what is there */
       UNALIGNED = 2, /* weights at an odd address */
       SCALED = 4,    /* with every optional factor; a convolution's input with affine + SiLU */
       CAUSAL = 8,
       DOUBLED = 8, /* a convolution that doubles its input */
       HALVES = 8,  /* rotary pairs (j, j + dim / 2) */
       IN_PLACE = 16,
};

enum { FLOAT32, BFLOAT16, INT8, NUMBERS }; /* compute types */
enum { F32, F16, BF16, Q4, Q4_64, Q8 };    /* formats of stored weights; Q: groups of 32, or of 64 */

typedef struct trial trial;
typedef struct test_case test_case;

typedef struct kind {
    const char *kernel, *format; /* format: prints the sizes */
    zimage_status (*run)(trial *t, const test_case *c);
    double allowed[NUMBERS]; /* error as a share of the largest element; 0: that compute type has no such kernel */
} kind;

struct test_case {
    const kind *kind;
    int size[5];
    int stored, flags;
};

/* One run of a case, on the set's backend or on the reference backend. Its tensors lie in the backend's arena. */
struct trial {
    zi_run run;
    const zi_cpu_set *set;
    int is_reference; /* on the reference backend: operands are rounded as the set rounds them */
    uint64_t random;
    zi_tensor y;
    double scale; /* that the error is a share of; 0: the largest element */
};

static int numbers_of(const zi_cpu_set *set)
{
    return set->gemm == NULL ? FLOAT32 : set->gemm->b == ZI_NUMBER_BF16 ? BFLOAT16 : INT8;
}

/* ---- operands ---------------------------------------------------------------------------------------------------- */

static uint32_t random_bits(trial *t)
{
    t->random ^= t->random << 13;
    t->random ^= t->random >> 7;
    t->random ^= t->random << 17;
    return (uint32_t)(t->random >> 32);
}

/* In [-1, 1). int8: the first of a row is the largest, and the others are near whole multiples of a 127th of it, so
 * that no rounding is near a tie. */
static float random_element(trial *t, int64_t column)
{
    double x = (double)random_bits(t) / 0x1p31 - 1;
    if (numbers_of(t->set) != INT8)
        return (float)x;
    return column == 0 ? 127.0f / 128 : (float)(copysign(floor(fabs(x) * 126.99) + 0.2 * fabs(x), x) / 128);
}

static zimage_status guarded(trial *t, int64_t count, float **data)
{
    ZI_TRY(zi_host_floats(&t->run, count + 2 * GUARD, "a self-test", data));
    memset(*data, 0xff, (size_t)(count + 2 * GUARD) * sizeof(float));
    *data += GUARD;
    return ZIMAGE_OK;
}

static zimage_status random_tensor(trial *t, zi_tensor *x, float magnitude, int dims, const int64_t *shape)
{
    *x = zi_tensor_describe(ZI_F32, dims, shape);
    float *data;
    ZI_TRY(guarded(t, zi_tensor_count(x), &data));
    for (int64_t i = 0; i < zi_tensor_count(x); i++)
        data[i] = magnitude * random_element(t, i % shape[dims - 1]);
    x->data = data;
    return ZIMAGE_OK;
}

/* Truncates. */
static void store_number(zi_dtype dtype, float x, uint8_t *out)
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

static zimage_status random_numbers(trial *t, zi_dtype dtype, int64_t columns, int64_t count, int odd,
                                    const uint8_t **out)
{
    float *data;
    ZI_TRY(guarded(t, count + 1, &data));
    uint8_t *bytes = (uint8_t *)data + (odd ? 3 : 0);
    for (int64_t i = 0; i < count; i++)
        store_number(dtype, random_element(t, i % columns), bytes + (size_t)i * zi_dtype_size(dtype));
    *out = bytes;
    return ZIMAGE_OK;
}

/* A weight in the format of the case. Vectors are never in groups. */
static zimage_status random_weight(trial *t, const test_case *c, zi_weight *w, int dims, const int64_t *shape)
{
    static const zi_dtype dtypes[] = {ZI_F32, ZI_F16, ZI_BF16, ZI_BF16, ZI_BF16, ZI_BF16};
    int packed = c->stored >= Q4 && dims > 1, odd = c->flags & UNALIGNED;
    *w = (zi_weight){.name = "test", .dtype = packed ? ZI_GROUPED : dtypes[c->stored], .dims = dims};
    memcpy(w->shape, shape, (size_t)dims * sizeof(*shape));
    int64_t count = zi_weight_count(w), columns = count / shape[0];
    if (!packed)
        return random_numbers(t, w->dtype, dims > 1 ? columns : count, count, odd, &w->data);
    w->bits = c->stored == Q8 ? 8 : 4;
    w->group = c->stored == Q4_64 ? 64 : 32;
    w->scale_dtype = ZI_BF16;
    ZI_TRY(random_numbers(t, ZI_F32, columns, count * w->bits / 32, odd, &w->data));
    ZI_TRY(random_numbers(t, ZI_BF16, columns, count / w->group, odd, &w->scales));
    return random_numbers(t, ZI_BF16, columns, count / w->group, odd, &w->biases);
}

void zi_cpu_round_rows(zi_cpu_number number, float *x, int64_t rows, int64_t n)
{
    for (; rows > 0; rows--, x += n) {
        float largest = 0;
        for (int64_t i = 0; i < n; i++)
            largest = fmaxf(largest, fabsf(x[i]));
        for (int64_t i = 0; i < n; i++)
            x[i] = number == ZI_NUMBER_BF16 ? zi_bf16_to_f32(zi_f32_to_bf16(x[i]))
                                            : rintf(x[i] * (127 / largest)) * (largest / 127);
    }
}

/* For the reference backend: rounds what the set would round. */
static void round_tensor(const trial *t, const zi_tensor *x)
{
    if (t->is_reference && t->set->gemm != NULL)
        zi_cpu_round_rows(t->set->gemm->b, zi_f32(x), zi_row_count(x), zi_features(x));
}

static zimage_status round_weight(trial *t, zi_weight *w)
{
    if (!t->is_reference || t->set->gemm == NULL)
        return ZIMAGE_OK;
    float *data;
    ZI_TRY(zi_host_vector(&t->run, w, &data));
    zi_cpu_round_rows(t->set->gemm->b, data, w->shape[0], zi_weight_count(w) / w->shape[0]);
    w->dtype = ZI_F32;
    w->data = (const uint8_t *)data;
    return ZIMAGE_OK;
}

/* ---- the operations ---------------------------------------------------------------------------------------------- */

static zimage_status linear(trial *t, const test_case *c)
{
    zi_tensor x;
    zi_weight w, bias;
    ZI_TRY(random_tensor(t, &x, 3, SHAPE(c->size[0], c->size[1])));
    ZI_TRY(random_weight(t, c, &w, SHAPE(c->size[2], c->size[1])));
    ZI_TRY(random_weight(t, c, &bias, SHAPE(c->size[2])));
    ZI_TRY(random_tensor(t, &t->y, 1, SHAPE(c->size[0], c->size[2])));
    if (c->size[0] > ZI_DOT_TOKENS) { /* dot products are float32 in every set */
        round_tensor(t, &x);
        ZI_TRY(round_weight(t, &w));
    }
    return zi_table(&t->run)->linear(&t->run, &t->y, &x, &w, c->flags & ADD ? &bias : NULL, c->flags & ADD);
}

static zimage_status gated(trial *t, const test_case *c)
{
    zi_tensor x;
    zi_weight w1, w3;
    ZI_TRY(random_tensor(t, &x, 1, SHAPE(c->size[0], c->size[1])));
    ZI_TRY(random_weight(t, c, &w1, SHAPE(c->size[2], c->size[1])));
    ZI_TRY(random_weight(t, c, &w3, SHAPE(c->size[2], c->size[1])));
    ZI_TRY(random_tensor(t, &t->y, 1, SHAPE(c->size[0], c->size[2])));
    round_tensor(t, &x);
    ZI_TRY(round_weight(t, &w1));
    ZI_TRY(round_weight(t, &w3));
    return zi_table(&t->run)->linear_glu(&t->run, &t->y, &x, &w1, &w3);
}

/* A norm and a gated product that write matrix operands. If a last bit differs, bf16 may round the other way. */
static zimage_status operands(trial *t, const test_case *c)
{
    zi_tensor x, h, u;
    zi_weight w1, w2, w3;
    ZI_TRY(random_tensor(t, &x, 3, SHAPE(c->size[0], c->size[1])));
    ZI_TRY(random_weight(t, c, &w1, SHAPE(c->size[2], c->size[1])));
    ZI_TRY(random_weight(t, c, &w3, SHAPE(c->size[2], c->size[1])));
    ZI_TRY(random_weight(t, c, &w2, SHAPE(c->size[3], c->size[2])));
    ZI_TRY(random_tensor(t, &t->y, 1, SHAPE(c->size[0], c->size[3])));
    ZI_TRY(round_weight(t, &w1));
    ZI_TRY(round_weight(t, &w2));
    ZI_TRY(round_weight(t, &w3));
    ZI_TRY(zi_table(&t->run)->alloc_operand(&t->run, &h, c->size[0], c->size[1], &w1));
    ZI_TRY(zi_table(&t->run)->alloc_operand(&t->run, &u, c->size[0], c->size[2], &w2));
    ZI_TRY(zi_table(&t->run)->norm(&t->run, &h, &x, &(zi_norm){.kind = ZI_NORM_RMS, .eps = EPS}));
    round_tensor(t, &h);
    ZI_TRY(zi_table(&t->run)->linear_glu(&t->run, &u, &h, &w1, &w3));
    round_tensor(t, &u);
    return zi_table(&t->run)->linear(&t->run, &t->y, &u, &w2, NULL, 0);
}

/* In bf16 the error comes from rounding the weights of softmax: 2^-9 of outputs up to 1. */
static zimage_status attention(trial *t, const test_case *c)
{
    zi_attention shape = {
        .heads = c->size[2], .kv_heads = c->size[3], .head_dim = c->size[4], .causal = (c->flags & CAUSAL) != 0};
    zi_tensor q, k, v;
    ZI_TRY(random_tensor(t, &q, 2, SHAPE(c->size[0], shape.heads * shape.head_dim)));
    ZI_TRY(random_tensor(t, &k, 2, SHAPE(c->size[1], shape.kv_heads * shape.head_dim)));
    ZI_TRY(random_tensor(t, &v, 1, SHAPE(c->size[1], shape.kv_heads * shape.head_dim)));
    ZI_TRY(random_tensor(t, &t->y, 1, SHAPE(c->size[0], shape.heads * shape.head_dim)));
    round_tensor(t, &q);
    round_tensor(t, &k);
    round_tensor(t, &v);
    t->scale = numbers_of(t->set) == BFLOAT16;
    return zi_table(&t->run)->attention(&t->run, &t->y, &q, &k, &v, &shape);
}

static zimage_status conv(trial *t, const test_case *c)
{
    int64_t rows = c->size[0], columns = c->size[1], in = c->size[2], out = c->size[3], side = c->size[4];
    int doubled = (c->flags & DOUBLED) != 0;
    zi_tensor x;
    zi_weight w, bias;
    zi_channel_affine affine;
    zi_conv conv;
    ZI_TRY(random_tensor(t, &x, 1, SHAPE(rows, columns, in)));
    ZI_TRY(random_weight(t, c, &w, SHAPE(out, in, side, side)));
    ZI_TRY(random_weight(t, c, &bias, SHAPE(out)));
    ZI_TRY(random_tensor(t, &affine.scale, 1, SHAPE(in)));
    ZI_TRY(random_tensor(t, &affine.shift, 1, SHAPE(in)));
    ZI_TRY(random_tensor(t, &t->y, 1, SHAPE(rows << doubled, columns << doubled, out)));
    conv = zi_conv_same(&w, c->flags & ADD ? &bias : NULL);
    conv.upsample = doubled;
    conv.accumulate = c->flags & ADD;
    conv.image_rows = rows;
    conv.affine = c->flags & SCALED ? &affine : NULL;
    if (t->is_reference && t->set->gemm != NULL &&
        conv.affine != NULL) { /* so that no last bit differs before rounding */
        t->set->kernels->affine(zi_f32(&x), zi_f32(&x), zi_f32(&affine.scale), zi_f32(&affine.shift), rows * columns,
                                in, 1);
        conv.affine = NULL;
    }
    round_tensor(t, &x);
    ZI_TRY(round_weight(t, &w));
    return zi_table(&t->run)->conv2d(&t->run, &t->y, &x, &conv);
}

/* The optional factors of a norm; w and scale are NULL in a case without them. */
typedef struct factors {
    zi_weight weight;
    zi_tensor tensor;
    const zi_weight *w;
    const zi_tensor *scale;
} factors;

static zimage_status random_factors(trial *t, const test_case *c, int64_t n, factors *f)
{
    ZI_TRY(random_weight(t, c, &f->weight, SHAPE(n)));
    ZI_TRY(random_tensor(t, &f->tensor, 1, SHAPE(n)));
    f->w = c->flags & SCALED ? &f->weight : NULL;
    f->scale = c->flags & SCALED ? &f->tensor : NULL;
    return ZIMAGE_OK;
}

static zimage_status rms(trial *t, const test_case *c)
{
    factors f;
    ZI_TRY(random_factors(t, c, c->size[1], &f));
    ZI_TRY(random_tensor(t, &t->y, 3, SHAPE(c->size[0], c->size[1])));
    return zi_table(&t->run)->norm(&t->run, &t->y, &t->y,
                                   &(zi_norm){.kind = ZI_NORM_RMS, .eps = EPS, .weight = f.w, .scale = f.scale});
}

static zimage_status layer(trial *t, const test_case *c)
{
    factors f;
    zi_tensor x;
    ZI_TRY(random_factors(t, c, c->size[1], &f));
    ZI_TRY(random_tensor(t, &x, 3, SHAPE(c->size[0], c->size[1])));
    ZI_TRY(random_tensor(t, &t->y, 1, SHAPE(c->size[0], c->size[1])));
    return zi_table(&t->run)->norm(&t->run, &t->y, &x, &(zi_norm){.kind = ZI_NORM_LAYER, .eps = EPS, .scale = f.scale});
}

/* t->y: the residual stream, then h. */
static zimage_status residual(trial *t, const test_case *c)
{
    factors f, next;
    zi_tensor other;
    ZI_TRY(random_factors(t, c, c->size[1], &f));
    ZI_TRY(random_factors(t, c, c->size[1], &next));
    ZI_TRY(random_tensor(t, &other, 3, SHAPE(1, c->size[0], c->size[1])));
    ZI_TRY(random_tensor(t, &t->y, 3, SHAPE(2, c->size[0], c->size[1])));
    zi_tensor x = zi_tensor_rows(&t->y, 0, 1), h = zi_tensor_rows(&t->y, 1, 1);
    int finite = 0;
    const zi_norm post = {.kind = ZI_NORM_RMS, .eps = EPS, .weight = f.w};
    const zi_norm after = {.kind = ZI_NORM_RMS, .eps = EPS, .weight = next.w, .scale = next.scale};
    const zi_residual args = {.post = &post, .gate = f.scale, .next = &after, .finite = &finite};
    ZI_TRY(zi_table(&t->run)->residual(&t->run, &x, c->flags & IN_PLACE ? &h : &other, &h, &args));
    if (!finite)
        zi_f32(&x)[0] = NAN; /* all elements are finite */
    return ZIMAGE_OK;
}

/* The same without a norm before, and with a layer norm and a shift after. */
static zimage_status residual_layer(trial *t, const test_case *c)
{
    factors f, next;
    zi_tensor other;
    ZI_TRY(random_factors(t, c, c->size[1], &f));
    ZI_TRY(random_factors(t, c, c->size[1], &next));
    ZI_TRY(random_tensor(t, &other, 3, SHAPE(1, c->size[0], c->size[1])));
    ZI_TRY(random_tensor(t, &t->y, 3, SHAPE(2, c->size[0], c->size[1])));
    zi_tensor x = zi_tensor_rows(&t->y, 0, 1), h = zi_tensor_rows(&t->y, 1, 1);
    int finite = 0;
    const zi_norm after = {.kind = ZI_NORM_LAYER, .eps = EPS, .scale = next.scale, .shift = &f.tensor};
    const zi_residual args = {.gate = f.scale, .next = &after, .finite = &finite};
    ZI_TRY(zi_table(&t->run)->residual(&t->run, &x, &other, &h, &args));
    if (!finite)
        zi_f32(&x)[0] = NAN; /* all elements are finite */
    return ZIMAGE_OK;
}

static zimage_status rope(trial *t, const test_case *c)
{
    int64_t tokens = c->size[0], heads = c->size[1], dim = c->size[2];
    zi_weight w;
    zi_tensor cosines, sines;
    ZI_TRY(random_weight(t, c, &w, SHAPE(dim)));
    ZI_TRY(random_tensor(t, &cosines, 1, SHAPE(tokens, dim / 2)));
    ZI_TRY(random_tensor(t, &sines, 1, SHAPE(tokens, dim / 2)));
    ZI_TRY(random_tensor(t, &t->y, 2, SHAPE(tokens, heads * dim)));
    return zi_table(&t->run)->qk_norm_rope(
        &t->run, &t->y,
        &(zi_qk_norm_rope){.weight = &w,
                           .cos = &cosines,
                           .sin = &sines,
                           .heads = heads,
                           .layout = c->flags & HALVES ? ZI_ROPE_HALF_SPLIT : ZI_ROPE_ADJACENT,
                           .eps = EPS});
}

static zimage_status silu(trial *t, const test_case *c)
{
    ZI_TRY(random_tensor(t, &t->y, 20, SHAPE(c->size[0], c->size[1])));
    return zi_table(&t->run)->silu(&t->run, &t->y, &t->y);
}

/* Group norm: sums, scale and shift from them, applied to the image. */
static zimage_status groups(trial *t, const test_case *c)
{
    int64_t channels = c->size[2], count = c->size[3];
    zi_tensor x, sums;
    zi_weight w, b;
    zi_channel_affine affine;
    ZI_TRY(random_tensor(t, &x, 3, SHAPE(c->size[0], c->size[1], channels)));
    ZI_TRY(random_weight(t, c, &w, SHAPE(channels)));
    ZI_TRY(random_weight(t, c, &b, SHAPE(channels)));
    ZI_TRY(random_tensor(t, &affine.scale, 1, SHAPE(channels)));
    ZI_TRY(random_tensor(t, &affine.shift, 1, SHAPE(channels)));
    ZI_TRY(random_tensor(t, &t->y, 1, x.dims, x.shape));
    ZI_TRY(zi_host_alloc(&t->run, &sums, 2, (const int64_t[]){count, 4}));
    ZI_TRY(zi_table(&t->run)->group_norm_sums(&t->run, &sums, &x, 0));
    ZI_TRY(zi_table(&t->run)->group_norm_fold(&t->run, &affine, &sums, zi_tensor_count(&x) / count, &w, &b, EPS));
    return zi_table(&t->run)->channel_affine(&t->run, &t->y, &x, &affine);
}

/* t->y: the answers for finite elements, then for the same with one element that is not finite, at each index. */
static zimage_status all_finite(trial *t, const test_case *c)
{
    static const float bad[] = {INFINITY, NAN, -INFINITY};
    zi_tensor x;
    ZI_TRY(random_tensor(t, &x, 3e38f, SHAPE(c->size[0])));
    ZI_TRY(random_tensor(t, &t->y, 1, SHAPE(1 + c->size[0])));
    for (int i = 0; i <= c->size[0]; i++) {
        float kept = i > 0 ? zi_f32(&x)[i - 1] : 0;
        int says = 0;
        if (i > 0)
            zi_f32(&x)[i - 1] = bad[i % 3];
        ZI_TRY(zi_table(&t->run)->check_finite(&t->run, &x, &says));
        zi_f32(&t->y)[i] = says ? 1.0f : 0.0f;
        if (i > 0)
            zi_f32(&x)[i - 1] = kept;
    }
    return ZIMAGE_OK;
}

/* No operation: the loop that measures the peak rate must run and end. */
static zimage_status peak(trial *t, const test_case *c)
{
    float sink = 0;
    ZI_TRY(random_tensor(t, &t->y, 1, SHAPE(1)));
    double (*measured)(int64_t, float *) = t->set->gemm != NULL ? t->set->gemm->peak : t->set->kernels->peak;
    zi_f32(&t->y)[0] = t->is_reference || measured(c->size[0], &sink) > 0 ? 1.0f : 0.0f;
    return ZIMAGE_OK;
}

/* ---- cases ------------------------------------------------------------------------------------------------------- */

/* float32 sums of up to a thousand products of random signs. A gated product is the product of two such sums. */
static const kind linears = {"linear", "%d x %d -> %d", linear, {3e-6, 2e-6, 2e-6}};
static const kind gateds = {"gated", "%d x %d -> %d", gated, {6e-6, 2e-6, 2e-6}};
static const kind operand_chains = {"operands", "%d x %d -> %d -> %d", operands, {6e-6, 0x1p-9}};
static const kind attentions = {"attention", "%d queries, %d keys, heads %d / %d x %d", attention, {3e-6, 0x1p-9}};
static const kind convs = {"conv", "%d x %d, %d -> %d channels, side %d", conv, {3e-6, 2e-6}};
static const kind rms_norms = {"norms", "rms %d x %d", rms, {3e-6}};
static const kind layer_norms = {"norms", "layer %d x %d", layer, {3e-6}};
static const kind residuals = {"norms", "residual %d x %d", residual, {3e-6}};
static const kind residual_layers = {"norms", "residual, layer norm %d x %d", residual_layer, {3e-6}};
static const kind ropes = {"rope", "%d tokens, %d heads x %d", rope, {3e-6}};
static const kind silus = {"silu", "%d x %d", silu, {3e-6}};
static const kind group_norms = {"groups", "%d x %d x %d channels, %d groups", groups, {3e-6}};
static const kind finites = {"finite", "%d numbers", all_finite, {1e-9}};
static const kind peaks = {"peak", "%d rounds", peak, {1e-9, 1e-9, 1e-9}};

static const test_case cases[] = {
    {&linears, {1, 257, 33}, F32, 0},
    {&linears, {2, 100, 17}, F16, ADD},
    {&linears, {3, 31, 5}, BF16, UNALIGNED},
    {&linears, {4, 96, 40}, Q4, 0},
    {&linears, {5, 64, 16}, F32, 0},
    {&linears, {33, 130, 70}, BF16, ADD | UNALIGNED},
    {&linears, {40, 96, 64}, BF16, 0},
    {&linears, {17, 301, 33}, F16, 0},
    {&linears, {7, 160, 95}, Q4, 0},
    {&linears, {51, 256, 48}, Q4, 0},
    {&linears, {90, 128, 32}, Q4_64, ADD | UNALIGNED},
    {&linears, {13, 96, 31}, Q8, ADD | UNALIGNED},
    {&linears, {100, 1100, 50}, F32, ADD | UNALIGNED},
    {&linears, {130, 96, 64}, BF16, 0},
    {&linears, {97, 301, 33}, F16, ADD},
    {&linears, {101, 160, 95}, Q4, 0},
    {&linears, {113, 96, 31}, Q8, ADD | UNALIGNED},
    {&gateds, {1, 300, 40}, BF16, 0},
    {&gateds, {40, 64, 100}, F32, UNALIGNED},
    {&gateds, {9, 128, 33}, Q4, 0},
    {&gateds, {20, 384, 64}, Q4, UNALIGNED},
    {&gateds, {99, 128, 70}, Q4, 0},
    {&gateds, {107, 96, 40}, BF16, 0},
    {&operand_chains, {101, 70, 45, 30}, BF16, 0},
    {&operand_chains, {120, 64, 96, 17}, F32, 0},
    {&attentions, {1, 1, 1, 1, 8}, F32, 0},
    {&attentions, {3, 17, 2, 2, 6}, F32, 0},
    {&attentions, {70, 333, 2, 1, 40}, F32, 0},
    {&attentions, {65, 65, 4, 2, 64}, F32, CAUSAL},
    {&convs, {1, 1, 1, 1, 3}, F32, 0},
    {&convs, {3, 5, 40, 17, 3}, BF16, ADD},
    {&convs, {7, 33, 16, 70, 3}, F16, SCALED},
    {&convs, {6, 11, 100, 33, 3}, F32, ADD | SCALED | DOUBLED | UNALIGNED},
    {&convs, {9, 33, 8, 65, 1}, BF16, 0},
    {&convs, {2, 40, 257, 5, 1}, F16, ADD | DOUBLED},
    {&rms_norms, {5, 31}, F32, 0},
    {&rms_norms, {33, 100}, BF16, SCALED},
    {&layer_norms, {5, 31}, F32, 0},
    {&layer_norms, {33, 100}, BF16, SCALED},
    {&residuals, {5, 31}, F32, 0},
    {&residuals, {33, 100}, BF16, SCALED},
    {&residuals, {3, 384}, F16, SCALED | IN_PLACE},
    {&residual_layers, {5, 31}, F32, 0},
    {&residual_layers, {33, 100}, F32, SCALED},
    {&ropes, {17, 3, 34}, F16, 0},
    {&ropes, {17, 3, 34}, F16, HALVES},
    {&ropes, {5, 2, 128}, BF16, 0},
    {&ropes, {5, 2, 64}, F32, HALVES},
    {&silus, {17, 33}, F32, 0},
    {&group_norms, {17, 13, 33, 3}, F32, 0},
    {&group_norms, {9, 31, 64, 32}, F16, 0},
    {&finites, {75}, F32, 0},
    {&peaks, {8}, F32, 0},
};

/* ---- comparing --------------------------------------------------------------------------------------------------- */

static int guards_whole(const zi_tensor *y)
{
    const uint8_t *before = (const uint8_t *)(zi_f32(y) - GUARD);
    const uint8_t *behind = (const uint8_t *)(zi_f32(y) + zi_tensor_count(y));
    for (size_t i = 0; i < GUARD * sizeof(float); i++)
        if (before[i] != 0xff || behind[i] != 0xff)
            return 0;
    return 1;
}

static double error_of(const zi_tensor *y, const trial *reference)
{
    double worst = 0, largest = reference->scale;
    for (int64_t i = 0; i < zi_tensor_count(y); i++) {
        double expected = (double)zi_f32(&reference->y)[i], difference = fabs((double)zi_f32(y)[i] - expected);
        if (!(difference <= worst))
            worst = isnan(difference) ? INFINITY : difference;
        if (reference->scale == 0)
            largest = fmax(largest, fabs(expected));
    }
    return worst > 0 ? worst / largest : 0;
}

static void compare(const test_case *c, const trial *t, const trial *reference,
                    void (*found)(void *user, const zi_cpu_finding *), void *user)
{
    double allowed = c->kind->allowed[numbers_of(t->set)];
    zi_cpu_finding finding = {c->kind->kernel, error_of(&t->y, reference), NULL};
    char text[200];
    int whole = guards_whole(&t->y);
    if (!whole || !(finding.error <= allowed)) {
        int at =
            snprintf(text, sizeof(text), c->kind->format, c->size[0], c->size[1], c->size[2], c->size[3], c->size[4]);
        if (!whole)
            snprintf(text + at, sizeof(text) - (size_t)at, ": wrote outside its output");
        else
            snprintf(text + at, sizeof(text) - (size_t)at, ": error %.2g, allowed %.2g", finding.error, allowed);
        finding.fault = text;
    }
    found(user, &finding);
}

static zimage_status run_case(trial *t, const test_case *c)
{
    t->random = 88172645463325252u;
    t->scale = 0;
    return c->kind->run(t, c);
}

static zimage_status run_cases(trial *t, trial *reference, void (*found)(void *user, const zi_cpu_finding *),
                               void *user)
{
    int numbers = numbers_of(t->set);
    float *kept; /* as long as an arena is not empty it keeps its memory */
    ZI_TRY(zi_host_floats(&t->run, 1, "a self-test", &kept));
    ZI_TRY(zi_host_floats(&reference->run, 1, "a self-test", &kept));
    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        const test_case *c = &cases[i];
        if (c->kind->allowed[numbers] == 0 ||
            (numbers == INT8 && c->stored >= Q4)) /* their int8 rounding is near ties */
            continue;
        zi_arena_mark mark = zi_host_mark(&t->run), reference_mark = zi_host_mark(&reference->run);
        zimage_status status = run_case(t, c);
        if (status == ZIMAGE_OK)
            status = run_case(reference, c);
        if (status == ZIMAGE_OK)
            compare(c, t, reference, found, user);
        zi_host_release(&t->run, mark);
        zi_host_release(&reference->run, reference_mark);
        ZI_TRY(status);
    }
    return ZIMAGE_OK;
}

zimage_status zi_cpu_selftest(zi_pool *pool, const zi_cpu_set *set, void (*found)(void *user, const zi_cpu_finding *),
                              void *user, zimage_error *error)
{
    trial t = {.set = set}, reference = {.set = set, .is_reference = 1};
    zimage_status status = zi_ops_reference_new(&reference.run.ops, error);
    if (status == ZIMAGE_OK)
        status = zi_cpu_new_with_set(pool, set, &t.run.ops, error);
    if (status == ZIMAGE_OK) {
        t.run.error = reference.run.error = error;
        status = run_cases(&t, &reference, found, user);
    }
    zi_host_ops_free(t.run.ops);
    zi_host_ops_free(reference.run.ops);
    return status;
}
