/* Cases of products and attention, and of whole blocks that hand operands on. */
#include <math.h>
#include <string.h>

#include "ops/trial.h"

/* ---- linear ------------------------------------------------------------------------------------------------------ */

/* float32 sums of up to some thousand products of random signs. Stored in bf16, a result may be rounded twice: stored
 * groups are rounded before the product, and a sum may be rounded between its bias and y. */
static const zi_bound linear_bound = {{3e-6, 2e-6, 2e-6, 0x1p-8, 0.1}};
static const zi_bound twice_bound = {{3e-6, 2e-6, 2e-6, 0x1p-7, 0.1}};

/* cuBLASLt rounds a product to bf16 before it adds the bias where rows of the result are not aligned to 16 bytes. */
static const zi_bound *bound_of(int stored, int flags, int out)
{
    int twice = (flags & SUM) == SUM || ((flags & BIAS) && out % 8 != 0);
    return stored > DENSE || twice ? &twice_bound : &linear_bound;
}

typedef struct product {
    zi_tensor x, y;
    zi_weight w, bias;
} product;

/* Sizes: tokens, inputs, outputs. EXACT, WIDE: x and y, or only y, from alloc_f32. VIEWS: x and y are column views. */
static zimage_status make_product(zi_trial *t, const zi_case *c, product *p)
{
    int64_t tokens = c->size[0], in = c->size[1], out = c->size[2];
    int rounded = tokens > t->options->exact_tokens, exact = c->flags & EXACT;
    zi_input x = {.magnitude = 3, .operand = rounded, .exact = exact};
    zi_input y = {.magnitude = 1, .written = 1, .exact = exact | (c->flags & WIDE)};
    zi_trial_view(&x, c->flags);
    zi_trial_view(&y, c->flags);
    ZI_TRY(zi_trial_input(t, &p->x, &x, SHAPE(tokens, in)));
    ZI_TRY(zi_trial_input(t, &p->y, &y, SHAPE(tokens, out)));
    ZI_TRY(zi_trial_weight(t, &p->w, c->stored, c->flags, SHAPE(out, in)));
    ZI_TRY(zi_trial_weight(t, &p->bias, c->stored, c->flags, SHAPE(out)));
    return rounded ? zi_trial_round_weight(t, &p->w) : ZIMAGE_OK;
}

static zimage_status run_linear(zi_trial *t, const zi_case *c, product *p)
{
    const zi_weight *bias = c->flags & BIAS ? &p->bias : NULL;
    return zi_table(&t->run)->linear(&t->run, &p->y, &p->x, &p->w, bias, (c->flags & ADD) != 0);
}

static zimage_status linear(zi_trial *t, const zi_case *c)
{
    product p;
    ZI_TRY(make_product(t, c, &p));
    ZI_TRY(run_linear(t, c, &p));
    return zi_trial_result_of(t, &p.y, bound_of(c->stored, c->flags, c->size[2]), 0);
}

static const zi_bound exact_bound = {{3e-6, 2e-6, 2e-6, 3e-6, 0}};

/* What comes from float32 inputs, or is asked for in float32, is float32 in every computation. */
static zimage_status exact_linear(zi_trial *t, const zi_case *c)
{
    product p;
    ZI_TRY(make_product(t, c, &p));
    ZI_TRY(run_linear(t, c, &p));
    return zi_trial_result_of(t, &p.y, &exact_bound, 0);
}

/* A bias is added before rounding: to round once costs 1.66e-3 on average, twice 2.3e-3, which 30 layers multiply. */
static const zi_bound once_bound = {{1e-6, 1e-6, 1e-6, 1.75e-3, 0}};

static zimage_status rounded_once(zi_trial *t, const zi_case *c)
{
    product p;
    ZI_TRY(make_product(t, c, &p));
    ZI_TRY(run_linear(t, c, &p));
    ZI_TRY(zi_trial_result_of(t, &p.y, &once_bound, 0));
    t->results[t->result_count - 1].average = 1;
    return ZIMAGE_OK;
}

static const zi_bound address_bound = {{3e-6, 2e-6, 0, 0x1p-8, 0.1}}; /* read as another type they round near ties */

/* Weights that begin at one address and differ in size, in shape, in what is stored. */
static zimage_status one_address(zi_trial *t, const zi_case *c)
{
    zi_weight all;
    ZI_TRY(zi_trial_weight(t, &all, BF16, 0, SHAPE(96, 64)));
    const zi_weight weights[] = {
        {.name = "small", .dtype = ZI_BF16, .dims = 2, .shape = {16, 64}, .data = all.data, .bytes = 2 * 16 * 64},
        {.name = "large", .dtype = ZI_BF16, .dims = 2, .shape = {96, 64}, .data = all.data, .bytes = 2 * 96 * 64},
        {.name = "high", .dtype = ZI_BF16, .dims = 2, .shape = {64, 16}, .data = all.data, .bytes = 2 * 16 * 64},
        {.name = "wide", .dtype = ZI_F16, .dims = 2, .shape = {16, 64}, .data = all.data, .bytes = 2 * 16 * 64},
    };
    for (size_t i = 0; i < sizeof(weights) / sizeof(weights[0]); i++) {
        zi_weight w = weights[i];
        zi_tensor x, y;
        const zi_input in = {.magnitude = 1, .operand = 1}, out = {.magnitude = 1, .written = 1};
        ZI_TRY(zi_trial_input(t, &x, &in, SHAPE(c->size[0], w.shape[1])));
        ZI_TRY(zi_trial_input(t, &y, &out, SHAPE(c->size[0], w.shape[0])));
        const zi_weight *read = &weights[i];
        if (t->reference) {
            ZI_TRY(zi_trial_round_weight(t, &w));
            read = &w;
        }
        ZI_TRY(zi_table(&t->run)->linear(&t->run, &y, &x, read, NULL, 0));
        ZI_TRY(zi_trial_result_of(t, &y, &address_bound, 0));
    }
    return ZIMAGE_OK;
}

/* ---- linears ----------------------------------------------------------------------------------------------------- */

/*
 * Sizes: tokens, inputs, outputs of three products. OTHER: stored in BF16, F32 and F16; WIDE: the second one in Q8.
 * BANDS: results lie in rows of one tensor, as they do where stored groups are unpacked one behind the other.
 */
static int stored_of(const zi_case *c, int which)
{
    static const int dense[] = {BF16, F32, F16};
    if (c->flags & OTHER)
        return dense[which];
    return c->flags & WIDE && which == 1 ? Q8 : c->stored;
}

static zimage_status linears(zi_trial *t, const zi_case *c)
{
    enum { COUNT = 3 };
    int64_t tokens = c->size[0], in = c->size[1];
    int rounded = tokens > t->options->exact_tokens;
    zi_input x_input = {.magnitude = 1, .operand = rounded}, y_input = {.magnitude = 1, .written = 1};
    zi_weight w[COUNT];
    const zi_weight *weights[COUNT];
    zi_tensor x, all, y[COUNT];
    zi_trial_view(&x_input, c->flags);
    zi_trial_view(&y_input, c->flags);
    ZI_TRY(zi_trial_input(t, &x, &x_input, SHAPE(tokens, in)));
    if (c->flags & BANDS)
        ZI_TRY(zi_trial_input(t, &all, &y_input, SHAPE(COUNT * tokens, c->size[2])));
    for (int i = 0; i < COUNT; i++) {
        if (c->flags & BANDS)
            y[i] = zi_tensor_rows(&all, i * tokens, tokens);
        else
            ZI_TRY(zi_trial_input(t, &y[i], &y_input, SHAPE(tokens, c->size[2 + i])));
        ZI_TRY(zi_trial_weight(t, &w[i], stored_of(c, i), c->flags, SHAPE(c->size[2 + i], in)));
        if (rounded)
            ZI_TRY(zi_trial_round_weight(t, &w[i]));
        weights[i] = &w[i];
    }
    ZI_TRY(zi_table(&t->run)->linears(&t->run, COUNT, y, &x, weights));
    for (int i = 0; i < COUNT; i++)
        ZI_TRY(zi_trial_result_of(t, &y[i], bound_of(stored_of(c, i), 0, 0), 0));
    return ZIMAGE_OK;
}

/* ---- linear_glu -------------------------------------------------------------------------------------------------- */

/* Of two sums; in bf16 both are rounded before they meet. */
static const zi_bound gated_bound = {{6e-6, 2e-6, 2e-6, 0x1p-6, 0.1}};
static const zi_bound tiled_bound = {{6e-6, 2e-6, 2e-6, 0x1p-6, 0}};

/* OTHER: the second weight is stored in groups. These would be rounded to int8 near ties. */
static int second_stored(const zi_trial *t, const zi_case *c)
{
    if (!(c->flags & OTHER) || t->precision == ZI_PRECISION_INT8)
        return c->stored;
    return c->stored == F16 ? Q8 : Q4;
}

/* Sizes: tokens, inputs, outputs. */
static zimage_status gated(zi_trial *t, const zi_case *c)
{
    int64_t tokens = c->size[0], in = c->size[1], out = c->size[2];
    zi_input x_input = {.magnitude = 1, .operand = 1}, y_input = {.magnitude = 1, .written = 1};
    zi_tensor x, y;
    zi_weight w1, w3;
    zi_trial_view(&x_input, c->flags);
    zi_trial_view(&y_input, c->flags);
    ZI_TRY(zi_trial_input(t, &x, &x_input, SHAPE(tokens, in)));
    ZI_TRY(zi_trial_input(t, &y, &y_input, SHAPE(tokens, out)));
    ZI_TRY(zi_trial_weight(t, &w1, c->stored, c->flags, SHAPE(out, in)));
    ZI_TRY(zi_trial_weight(t, &w3, second_stored(t, c), c->flags, SHAPE(out, in)));
    ZI_TRY(zi_trial_round_weight(t, &w1));
    ZI_TRY(zi_trial_round_weight(t, &w3));
    ZI_TRY(zi_table(&t->run)->linear_glu(&t->run, &y, &x, &w1, &w3));
    return zi_trial_result_of(t, &y, &gated_bound, 0);
}

/* ---- attention --------------------------------------------------------------------------------------------------- */

/* What bf16 leaves is the rounding of the softmax's weights: 2^-9 of values up to 1, or twice that where the results
 * are stored in bf16, too. */
static const zi_bound attention_bound = {{3e-6, 0x1p-9, 0, 0x1p-6, 0}};
/* Scores in the thousands: their own rounding, about 1e-4, is the error of the weights. */
static const zi_bound sharp_bound = {{2e-3, 0, 0, 0x1p-6, 0}};

typedef struct attention_input {
    zi_tensor o, q, k, v;
    zi_attention shape;
} attention_input;

/* q, k and v as columns of one tensor, o as columns of another. */
static zimage_status attention_views(zi_trial *t, const zi_case *c, attention_input *a, int64_t queries, zi_input *q,
                                     zi_input *o)
{
    int64_t width = a->shape.heads * a->shape.head_dim, kv_width = a->shape.kv_heads * a->shape.head_dim;
    zi_tensor all;
    zi_trial_view(q, c->flags);
    zi_trial_view(o, c->flags);
    ZI_TRY(zi_trial_input(t, &all, q, SHAPE(queries, width + 2 * kv_width)));
    a->q = zi_tensor_columns(&all, 0, width);
    a->k = zi_tensor_columns(&all, width, kv_width);
    a->v = zi_tensor_columns(&all, width + kv_width, kv_width);
    return c->flags & IN_PLACE ? ZIMAGE_OK : zi_trial_input(t, &a->o, o, SHAPE(queries, width));
}

/* Keys or values [keys, width]; what lies behind the key length is so large that it would be noticed. */
static zimage_status make_keys(zi_trial *t, zi_tensor *x, const zi_input *input, const attention_input *a, int64_t keys)
{
    int64_t width = a->shape.kv_heads * a->shape.head_dim;
    int64_t real = a->shape.key_length > 0 ? a->shape.key_length : keys;
    float *values;
    ZI_TRY(zi_trial_floats(t, input, keys * width, width, &values));
    for (int64_t i = real * width; i < keys * width; i++)
        values[i] *= 1000;
    return zi_trial_input_of(t, x, input, values, SHAPE(keys, width));
}

/* Sizes: queries, keys, heads, key heads, head dimension, key length. VIEWS: see attention_views. */
static zimage_status make_attention(zi_trial *t, const zi_case *c, attention_input *a)
{
    int64_t queries = c->size[0], keys = c->size[1], width = (int64_t)c->size[2] * c->size[4];
    float magnitude = c->flags & LARGE ? 60 : 2;
    zi_input q = {.magnitude = magnitude, .operand = 1, .written = c->flags & IN_PLACE};
    zi_input o = {.magnitude = 1, .written = 1};
    const zi_input k = {.magnitude = magnitude, .operand = 1}, v = {.magnitude = 1, .operand = 1};
    a->shape = (zi_attention){.heads = c->size[2],
                              .kv_heads = c->size[3],
                              .head_dim = c->size[4],
                              .key_length = c->size[5],
                              .causal = (c->flags & CAUSAL) != 0};
    if (c->flags & (VIEWS | ODD_VIEWS)) {
        ZI_TRY(attention_views(t, c, a, queries, &q, &o));
    } else {
        ZI_TRY(zi_trial_input(t, &a->q, &q, SHAPE(queries, width)));
        ZI_TRY(make_keys(t, &a->k, &k, a, keys));
        ZI_TRY(make_keys(t, &a->v, &v, a, keys));
        ZI_TRY(zi_trial_input(t, &a->o, &o, SHAPE(queries, width)));
    }
    if (c->flags & IN_PLACE)
        a->o = a->q;
    return ZIMAGE_OK;
}

/* Into two sequences, of which the second has a third of all rows. */
static void divide(zi_attention *shape, int64_t queries, int64_t keys)
{
    shape->sequences = 2;
    shape->queries[1] = queries / 3;
    shape->queries[0] = queries - shape->queries[1];
    shape->keys[1] = keys / 3;
    shape->keys[0] = keys - shape->keys[1];
}

static zimage_status attention(zi_trial *t, const zi_case *c)
{
    attention_input a;
    ZI_TRY(make_attention(t, c, &a));
    if (c->flags & SEQUENCES)
        divide(&a.shape, c->size[0], c->size[1]);
    ZI_TRY(zi_table(&t->run)->attention(&t->run, &a.o, &a.q, &a.k, &a.v, &a.shape));
    int largest = c->flags & (VIEWS | ODD_VIEWS) ? 2 : 1; /* of the values */
    return zi_trial_result_of(t, &a.o, c->flags & LARGE ? &sharp_bound : &attention_bound,
                              t->precision == ZI_PRECISION_BF16 ? largest : 0);
}

/* An element of a key that is not finite must come through: the check behind the block finds it. */
static zimage_status attention_not_finite(zi_trial *t, const zi_case *c)
{
    attention_input a;
    float *values;
    zi_tensor k;
    int finite;
    const zi_input input = {.magnitude = 1, .operand = 1};
    ZI_TRY(make_attention(t, c, &a));
    ZI_TRY(zi_trial_floats(t, &input, zi_tensor_count(&a.k), a.k.shape[1], &values));
    values[zi_tensor_count(&a.k) - 1] = NAN;
    ZI_TRY(zi_trial_input_of(t, &k, &input, values, a.k.dims, a.k.shape));
    ZI_TRY(zi_table(&t->run)->attention(&t->run, &a.o, &a.q, &k, &a.v, &a.shape));
    ZI_TRY(zi_trial_finite(t, &a.o, &finite));
    zi_trial_answer(t, finite);
    return ZIMAGE_OK;
}

/* ---- blocks ------------------------------------------------------------------------------------------------------ */

static const zi_bound operands_bound = {{6e-6, 0x1p-9, 0, 0, 0}};

/* Sizes: tokens, inputs, hidden, outputs. A norm and a gated product that write operands. Where their last bits differ
 * bf16 may round to the other side. */
static zimage_status operands(zi_trial *t, const zi_case *c)
{
    const zi_ops_table *table = zi_table(&t->run);
    const zi_input in = {.magnitude = 3}, out = {.magnitude = 1, .written = 1};
    int64_t tokens = c->size[0];
    zi_tensor x, y, h, u;
    zi_weight w1, w2, w3;
    ZI_TRY(zi_trial_input(t, &x, &in, SHAPE(tokens, c->size[1])));
    ZI_TRY(zi_trial_input(t, &y, &out, SHAPE(tokens, c->size[3])));
    ZI_TRY(zi_trial_weight(t, &w1, c->stored, 0, SHAPE(c->size[2], c->size[1])));
    ZI_TRY(zi_trial_weight(t, &w3, c->stored, 0, SHAPE(c->size[2], c->size[1])));
    ZI_TRY(zi_trial_weight(t, &w2, c->stored, 0, SHAPE(c->size[3], c->size[2])));
    ZI_TRY(zi_trial_round_weight(t, &w1));
    ZI_TRY(zi_trial_round_weight(t, &w2));
    ZI_TRY(zi_trial_round_weight(t, &w3));
    ZI_TRY(table->alloc_operand(&t->run, &h, tokens, c->size[1], &w1));
    ZI_TRY(table->alloc_operand(&t->run, &u, tokens, c->size[2], &w2));
    ZI_TRY(table->norm(&t->run, &h, &x, &(zi_norm){.kind = ZI_NORM_RMS, .eps = EPS}));
    ZI_TRY(zi_trial_round(t, &h));
    ZI_TRY(table->linear_glu(&t->run, &u, &h, &w1, &w3));
    ZI_TRY(zi_trial_round(t, &u));
    ZI_TRY(table->linear(&t->run, &y, &u, &w2, NULL, 0));
    return zi_trial_result_of(t, &y, &operands_bound, 0);
}

/* Behind the first products, behind attention, behind the gated product: with the roundings of all before. */
static const zi_bound chain_v_bound = {{3e-6, 0x1p-8, 0, 0x1p-7, 0.1}};
/* Random groups are so large that attention takes one key: with fp8's rounding not always the same one. */
static const zi_bound chain_v_groups_bound = {{3e-6, 0x1p-8, 0, 0x1p-6, 0}};
static const zi_bound chain_x_bound = {{5e-6, 0x1p-8, 0, 0x1p-5, 0.1415}};
static const zi_bound chain_z_bound = {{2e-5, 0x1p-7, 0, 0x1p-4, 0.2}};

typedef struct chain {
    zi_trial *trial;
    zi_tensor x, q, v, y, z; /* [tokens, in], [tokens, heads x dim] twice, [tokens, in] twice */
    zi_weight wq, wv, wo, w1, w3, w2;
    zi_attention shape;
} chain;

static zimage_status chain_weight(zi_trial *t, const zi_case *c, zi_weight *w, int64_t out, int64_t in)
{
    ZI_TRY(zi_trial_weight(t, w, c->stored, 0, SHAPE(out, in)));
    return zi_trial_round_weight(t, w);
}

/* Sizes: tokens, inputs, heads, head dimension, hidden. */
static zimage_status make_chain(zi_trial *t, const zi_case *c, chain *all)
{
    int64_t tokens = c->size[0], in = c->size[1], width = c->size[2] * c->size[3], hidden = c->size[4];
    const zi_input input = {.magnitude = 1, .written = 1};
    memset(all, 0, sizeof(*all)); /* its bytes are the key of repeat */
    all->trial = t;
    all->shape = (zi_attention){.heads = c->size[2], .kv_heads = c->size[2], .head_dim = c->size[3]};
    if (c->flags & SEQUENCES)
        divide(&all->shape, c->size[0], c->size[0]);
    ZI_TRY(zi_trial_input(t, &all->x, &input, SHAPE(tokens, in)));
    ZI_TRY(zi_trial_input(t, &all->q, &input, SHAPE(tokens, width)));
    ZI_TRY(zi_trial_input(t, &all->v, &input, SHAPE(tokens, width)));
    ZI_TRY(zi_trial_input(t, &all->y, &input, SHAPE(tokens, in)));
    ZI_TRY(zi_trial_input(t, &all->z, &input, SHAPE(tokens, in)));
    ZI_TRY(chain_weight(t, c, &all->wq, width, in));
    ZI_TRY(chain_weight(t, c, &all->wv, width, in));
    ZI_TRY(chain_weight(t, c, &all->wo, in, width));
    ZI_TRY(chain_weight(t, c, &all->w1, hidden, in));
    ZI_TRY(chain_weight(t, c, &all->w3, hidden, in));
    return chain_weight(t, c, &all->w2, in, hidden);
}

/* A norm, two products, attention, a residual with the next norm, a gated product: everything that writes operands. */
static zimage_status chain_operations(zi_run *run, const chain *c)
{
    const zi_ops_table *table = zi_table(run);
    const zi_norm norm = {.kind = ZI_NORM_RMS, .eps = EPS};
    zi_tensor x = c->x, q = c->q, v = c->v, y = c->y, z = c->z, h, o, u;
    ZI_TRY(table->alloc_operand(run, &h, x.shape[0], x.shape[1], &c->wq));
    ZI_TRY(table->alloc_operand(run, &o, x.shape[0], q.shape[1], &c->wo));
    ZI_TRY(table->alloc_operand(run, &u, x.shape[0], c->w2.shape[1], &c->w2));
    ZI_TRY(table->norm(run, &h, &x, &norm));
    ZI_TRY(zi_trial_round(c->trial, &h));
    ZI_TRY(table->linears(run, 2, (zi_tensor[]){q, v}, &h, (const zi_weight *[]){&c->wq, &c->wv}));
    ZI_TRY(zi_trial_round(c->trial, &q));
    ZI_TRY(zi_trial_round(c->trial, &v));
    ZI_TRY(table->attention(run, &o, &q, &q, &v, &c->shape));
    ZI_TRY(zi_trial_round(c->trial, &o));
    ZI_TRY(table->linear(run, &y, &o, &c->wo, NULL, 0));
    ZI_TRY(table->residual(run, &x, &y, &h, &(zi_residual){.post = &norm, .next = &norm}));
    ZI_TRY(zi_trial_round(c->trial, &h));
    ZI_TRY(table->linear_glu(run, &u, &h, &c->w1, &c->w3));
    ZI_TRY(zi_trial_round(c->trial, &u));
    return table->linear(run, &z, &u, &c->w2, NULL, 0);
}

/* Tokens whose products have rows of their own in q, k and v, as in a transformer with two kinds of tokens. */
typedef struct part {
    zi_tensor x, y, h, both, qkv[3];
} part;

/* h = norm(x), and its rows of q, k and v */
static zimage_status project_part(zi_trial *t, part *p, const zi_weight weights[3])
{
    const zi_norm norm = {.kind = ZI_NORM_LAYER, .eps = EPS};
    const zi_weight *const all[] = {&weights[0], &weights[1], &weights[2]};
    const zi_ops_table *table = zi_table(&t->run);
    ZI_TRY(table->alloc_operand(&t->run, &p->h, p->x.shape[0], p->x.shape[1], all[0]));
    ZI_TRY(table->norm(&t->run, &p->h, &p->x, &norm));
    ZI_TRY(zi_trial_round(t, &p->h));
    ZI_TRY(table->linears(&t->run, 3, p->qkv, &p->h, all));
    for (int i = 0; i < 3; i++)
        ZI_TRY(zi_trial_round(t, &p->qkv[i]));
    return ZIMAGE_OK;
}

/* y = wo(attention, gated product of h): both are columns of one operand */
static zimage_status combine_part(zi_trial *t, part *p, const zi_tensor *k, const zi_tensor *v,
                                  const zi_attention *shape, const zi_weight weights[3])
{
    const zi_ops_table *table = zi_table(&t->run);
    int64_t width = k->shape[1], hidden = weights[0].shape[0];
    ZI_TRY(table->alloc_operand_parts(&t->run, &p->both, p->x.shape[0], width + hidden, &weights[2]));
    zi_tensor o = zi_tensor_columns(&p->both, 0, width), u = zi_tensor_columns(&p->both, width, hidden);
    ZI_TRY(table->linear_glu(&t->run, &u, &p->h, &weights[0], &weights[1]));
    ZI_TRY(table->attention(&t->run, &o, &p->qkv[0], k, v, shape));
    ZI_TRY(zi_trial_round(t, &p->both));
    return table->linear(&t->run, &p->y, &p->both, &weights[2], NULL, 0);
}

/* Sizes: tokens, inputs, heads, head dimension, hidden, tokens of the first part. */
static zimage_status parts(zi_trial *t, const zi_case *c)
{
    int64_t tokens = c->size[0], in = c->size[1], width = c->size[2] * c->size[3], hidden = c->size[4];
    const int64_t first[3] = {0, c->size[5], tokens}, rows[5] = {width, width, width, hidden, hidden};
    const zi_attention shape = {.heads = c->size[2], .kv_heads = c->size[2], .head_dim = c->size[3]};
    const zi_input input = {.magnitude = 1, .written = 1};
    zi_tensor x, y, qkv[3];
    zi_weight weights[6];
    part both[2];
    ZI_TRY(zi_trial_input(t, &x, &input, SHAPE(tokens, in)));
    ZI_TRY(zi_trial_input(t, &y, &input, SHAPE(tokens, in)));
    for (int i = 0; i < 3; i++)
        ZI_TRY(zi_trial_input(t, &qkv[i], &input, SHAPE(tokens, width)));
    for (int i = 0; i < 5; i++)
        ZI_TRY(chain_weight(t, c, &weights[i], rows[i], in));
    ZI_TRY(chain_weight(t, c, &weights[5], in, width + hidden));
    for (int i = 0; i < 2; i++) {
        both[i].x = zi_tensor_rows(&x, first[i], first[i + 1] - first[i]);
        both[i].y = zi_tensor_rows(&y, first[i], first[i + 1] - first[i]);
        for (int j = 0; j < 3; j++)
            both[i].qkv[j] = zi_tensor_rows(&qkv[j], first[i], first[i + 1] - first[i]);
        ZI_TRY(project_part(t, &both[i], weights));
    }
    for (int i = 0; i < 2; i++)
        ZI_TRY(combine_part(t, &both[i], &qkv[1], &qkv[2], &shape, weights + 3));
    return zi_trial_result_of(t, &y, c->kind->bound, 0);
}

static zimage_status run_chain(zi_run *run, const void *user)
{
    const chain *c = user;
    zi_arena_mark mark = zi_table(run)->mark(run);
    zimage_status status = chain_operations(run, c);
    zi_table(run)->release(run, mark);
    return status == ZIMAGE_OK ? zi_end_block(run, &c->z, "the chain") : status;
}

static zimage_status chain_results(zi_trial *t, const chain *c)
{
    ZI_TRY(zi_trial_result_of(t, &c->x, &chain_x_bound, 0));
    return zi_trial_result_of(t, &c->z, &chain_z_bound, 0);
}

static zimage_status block(zi_trial *t, const zi_case *c)
{
    chain all;
    ZI_TRY(make_chain(t, c, &all));
    ZI_TRY(run_chain(&t->run, &all));
    ZI_TRY(zi_trial_result_of(t, &all.v, c->kind->bound, 0));
    return chain_results(t, &all);
}

/* New elements of the chain's x; the one at `place` is `value`. */
static zimage_status new_start(zi_trial *t, chain *all, float magnitude, int64_t place, float value)
{
    const zi_input input = {.magnitude = magnitude};
    zi_tensor next;
    float *values;
    int64_t count = zi_tensor_count(&all->x);
    ZI_TRY(zi_trial_floats(t, &input, count, all->x.shape[1], &values));
    if (place >= 0)
        values[place] = value;
    zi_arena_mark mark = zi_table(&t->run)->mark(&t->run);
    int tensors = t->tensor_count;
    ZI_TRY(zi_trial_input_of(t, &next, &input, values, all->x.dims, all->x.shape));
    ZI_TRY(zi_table(&t->run)->copy(&t->run, &all->x, &next));
    t->tensor_count = tensors;
    zi_table(&t->run)->release(&t->run, mark);
    return ZIMAGE_OK;
}

/* With new numbers each time, and with weights that are forgotten in between: what was recorded reads them. */
static zimage_status repeated_results(zi_trial *t, chain *all)
{
    enum { TIMES = 8, FORGET = 5 };
    const zi_ops_table *table = zi_table(&t->run);
    int64_t blocks = t->run.blocks;
    for (int i = 0; i < TIMES; i++) {
        ZI_TRY(new_start(t, all, 1 + (float)i, -1, 0));
        if (i == FORGET && !zi_trial_rehearses(t))
            ZI_TRY(table->forget_weights(&t->run));
        ZI_TRY(table->repeat(&t->run, all, sizeof(*all), run_chain, all));
        ZI_TRY(chain_results(t, all));
        zi_trial_answer(t, t->run.blocks == blocks + i + 1);
    }
    return ZIMAGE_OK;
}

/* A result that is not finite has the name of its block, recorded or not. */
static zimage_status repeated_faults(zi_trial *t, chain *all)
{
    for (int i = 0; i < 4; i++) {
        ZI_TRY(new_start(t, all, 1, 7, i % 2 ? NAN : 0));
        zimage_status status = zi_table(&t->run)->repeat(&t->run, all, sizeof(*all), run_chain, all);
        if (status == ZIMAGE_OK)
            status = zi_table(&t->run)->finish(&t->run);
        if (status != ZIMAGE_OK && status != ZIMAGE_ERROR_NOT_FINITE)
            return status;
        zi_trial_answer(t, status == ZIMAGE_OK);
        zi_trial_answer(t, status == ZIMAGE_OK || strstr(t->error.message, "the chain") != NULL);
    }
    return ZIMAGE_OK;
}

static zimage_status repeated(zi_trial *t, const zi_case *c)
{
    chain all;
    ZI_TRY(make_chain(t, c, &all));
    ZI_TRY(repeated_results(t, &all));
    return zi_trial_rehearses(t) ? ZIMAGE_OK : repeated_faults(t, &all);
}

/* ---- the cases --------------------------------------------------------------------------------------------------- */

static const zi_case_kind linear_kind = {"linear", "linear", "%d x %d -> %d", linear, &linear_bound};
static const zi_case_kind exact_kind = {"linear", "linear", "%d x %d -> %d in float32", exact_linear, &exact_bound};
static const zi_case_kind once_kind = {"linear", "linear", "%d x %d -> %d, rounded once", rounded_once, &once_bound};
static const zi_case_kind address_kind = {"linear", "linear", "%d tokens, weights at one address", one_address,
                                          &address_bound};
static const zi_case_kind linears_kind = {"linear", "linears", "%d x %d -> %d, %d, %d", linears, &linear_bound};
static const zi_case_kind gated_kind = {"gated", "linear_glu", "%d x %d -> %d", gated, &gated_bound};
/* As gated_kind, but not in fp8, which an emulated device computes slowly. */
static const zi_case_kind tiled_kind = {"gated", "linear_glu", "%d x %d -> %d", gated, &tiled_bound};
static const zi_case_kind attention_kind = {"attention", "attention", "%d queries, %d keys, heads %d / %d x %d",
                                            attention, &attention_bound};
static const zi_case_kind padded_kind = {
    "attention", "attention", "%d queries, %d keys, heads %d / %d x %d, key length %d", attention, &attention_bound};
static const zi_case_kind sharp_kind = {"attention", "attention", "%d queries, %d keys, heads %d / %d x %d, sharp",
                                        attention, &sharp_bound};
static const zi_case_kind not_finite_kind = {"attention", "attention check_finite",
                                             "%d queries, %d keys, heads %d / %d x %d, a NaN", attention_not_finite,
                                             &attention_bound};
static const zi_case_kind operands_kind = {"operands", "alloc_operand norm linear_glu linear", "%d x %d -> %d -> %d",
                                           operands, &operands_bound};
static const zi_case_kind block_kind = {"operands", "alloc_operand norm linears attention linear residual linear_glu",
                                        "block %d x %d, %d heads x %d, hidden %d", block, &chain_v_bound};
static const zi_case_kind groups_kind = {"operands", "alloc_operand norm linears attention linear residual linear_glu",
                                         "block %d x %d, %d heads x %d, hidden %d", block, &chain_v_groups_bound};
static const zi_case_kind parts_kind = {"operands",
                                        "alloc_operand alloc_operand_parts norm linears attention linear_glu linear",
                                        "parts %d x %d, %d heads x %d, hidden %d, first %d", parts, &chain_z_bound};
static const zi_case_kind repeat_kind = {"repeat", "repeat forget_weights name_check finish",
                                         "block %d x %d, %d heads x %d, hidden %d", repeated, &chain_v_bound};

const zi_case zi_cases_products[] = {
    {&linear_kind, {1, 257, 33}, F32 | BF16, 0},
    {&linear_kind, {2, 100, 17}, F16, SUM},
    {&linear_kind, {3, 31, 5}, BF16, UNALIGNED},
    {&linear_kind, {4, 96, 40}, Q4, 0},
    {&linear_kind, {5, 64, 16}, F32, 0},
    {&linear_kind, {33, 130, 70}, BF16, SUM | UNALIGNED},
    {&linear_kind, {40, 96, 64}, BF16, 0},
    {&linear_kind, {17, 301, 33}, F16, 0},
    {&linear_kind, {7, 160, 95}, Q4, 0},
    {&linear_kind, {51, 256, 48}, Q4, 0},
    {&linear_kind, {90, 128, 32}, Q4_64, SUM | UNALIGNED},
    {&linear_kind, {13, 96, 31}, Q8, SUM | UNALIGNED},
    {&linear_kind, {100, 1100, 50}, F32, SUM | UNALIGNED},
    {&linear_kind, {130, 96, 64}, BF16, 0},
    {&linear_kind, {97, 301, 33}, F16, SUM},
    {&linear_kind, {101, 160, 95}, Q4, 0},
    {&linear_kind, {113, 96, 31}, Q8, SUM | UNALIGNED},
    {&linear_kind, {3, 96, 40}, BF16, VIEWS},
    {&linear_kind, {37, 96, 64}, BF16 | Q4, VIEWS},
    {&linear_kind, {130, 70, 33}, F32, VIEWS | SUM},
    {&linear_kind, {43, 65, 31}, BF16, ODD_VIEWS | SUM},
    {&linear_kind, {2, 130, 31}, F16, ODD_VIEWS},
    {&linear_kind, {33, 96, 64}, DENSE | Q4 | Q8, SLOW},
    {&linear_kind, {7, 160, 95}, F32 | BF16 | Q8, SLOW | BIAS},
    {&linear_kind, {7, 160, 95}, F16 | Q4, SLOW | SUM},
    {&linear_kind, {19, 256, 40}, Q6_128_F16 | Q3_64_F32, SLOW},
    {&linear_kind, {3, 256, 40}, Q6_128_F16 | Q3_64_F32, SLOW},
    {&linear_kind, {130, 31, 5}, BF16, SLOW | BIAS},
    {&linear_kind, {200, 1024, 512}, BF16, SLOW | BIAS}, /* large enough for a backend to time algorithms */
    {&linear_kind, {200, 1024, 512}, BF16, SLOW | SUM},
    {&linear_kind, {260, 512, 1024}, Q4, SLOW},
    /* the sizes of a kernel that unpacks 4-bit weights: halves of a period of steps, tiles that are not full */
    {&linear_kind, {1, 256, 128}, Q4, SLOW},
    {&linear_kind, {37, 512, 128}, Q4 | Q4_64, SLOW},
    {&linear_kind, {273, 768, 256}, Q4 | Q4_64, SLOW},
    {&linear_kind, {300, 768, 384}, Q4, VIEWS | SLOW},
    {&linear_kind, {1, 1, 1}, DENSE, SLOW | UNALIGNED},
    {&linear_kind, {1, 1, 1}, DENSE, SLOW | UNALIGNED | SUM},
    {&linear_kind, {1, 256, 100}, DENSE, SLOW | UNALIGNED},
    {&linear_kind, {1, 256, 100}, DENSE, SLOW | UNALIGNED | SUM},
    {&linear_kind, {2, 3, 17}, DENSE, SLOW | UNALIGNED},
    {&linear_kind, {2, 3, 17}, DENSE, SLOW | UNALIGNED | SUM},
    {&linear_kind, {3, 1000, 33}, DENSE, SLOW | UNALIGNED},
    {&linear_kind, {3, 1000, 33}, DENSE, SLOW | UNALIGNED | SUM},
    {&linear_kind, {4, 31, 5}, DENSE, SLOW | UNALIGNED},
    {&linear_kind, {4, 31, 5}, DENSE, SLOW | UNALIGNED | SUM},
    {&linear_kind, {5, 7, 3}, DENSE, SLOW | UNALIGNED},
    {&linear_kind, {5, 7, 3}, DENSE, SLOW | UNALIGNED | SUM},
    {&linear_kind, {6, 256, 8}, DENSE, SLOW | UNALIGNED},
    {&linear_kind, {6, 256, 8}, DENSE, SLOW | UNALIGNED | SUM},
    {&linear_kind, {7, 257, 31}, DENSE, SLOW | UNALIGNED},
    {&linear_kind, {7, 257, 31}, DENSE, SLOW | UNALIGNED | SUM},
    {&linear_kind, {12, 100, 32}, DENSE, SLOW | UNALIGNED},
    {&linear_kind, {12, 100, 32}, DENSE, SLOW | UNALIGNED | SUM},
    {&linear_kind, {17, 300, 33}, DENSE, SLOW | UNALIGNED},
    {&linear_kind, {17, 300, 33}, DENSE, SLOW | UNALIGNED | SUM},
    {&linear_kind, {100, 513, 70}, DENSE, SLOW | UNALIGNED},
    {&linear_kind, {100, 513, 70}, DENSE, SLOW | UNALIGNED | SUM},
    {&linear_kind, {211, 64, 9}, DENSE, SLOW | UNALIGNED},
    {&linear_kind, {211, 64, 9}, DENSE, SLOW | UNALIGNED | SUM},
    {&linear_kind, {40, 4000, 20}, F32, SLOW | UNALIGNED},
    {&linear_kind, {40, 4000, 20}, F32, SLOW | UNALIGNED | SUM},
    {&linear_kind, {19, 129, 37}, F32, SLOW}, /* float32 at an aligned address may be read in place */
    {&linear_kind, {3, 129, 37}, F32, SLOW},
    {&exact_kind, {1, 96, 40}, DENSE, SHORT | BIAS | EXACT},
    {&exact_kind, {3, 31, 5}, BF16, SLOW | BIAS | EXACT},
    {&exact_kind, {2, 520, 70}, BF16, SLOW | BIAS | EXACT},
    {&exact_kind, {33, 64, 48}, BF16, BIAS | WIDE},
    {&once_kind, {300, 512, 256}, BF16, SLOW | BIAS},
    {&address_kind, {33}, 0, 0},
    {&linears_kind, {1, 100, 33, 17, 40}, BF16, SLOW | OTHER},
    {&linears_kind, {20, 100, 33, 17, 40}, BF16, OTHER},
    {&linears_kind, {39, 100, 33, 17, 40}, BF16, SLOW | OTHER},
    {&linears_kind, {58, 100, 33, 17, 40}, BF16, SLOW | OTHER},
    {&linears_kind, {70, 96, 32, 64, 96}, BF16, WIDE},
    {&linears_kind, {70, 96, 64, 64, 64}, BF16 | Q8, BANDS},
    {&linears_kind, {131, 96, 32, 64, 48}, BF16, VIEWS},
    {&linears_kind, {130, 256, 128, 128, 128}, Q4, SLOW},
    {&linears_kind, {3, 96, 32, 64, 48}, BF16, VIEWS},
    {&linears_kind, {41, 95, 31, 17, 40}, BF16, ODD_VIEWS},
    {&gated_kind, {1, 300, 40}, BF16, 0},
    {&gated_kind, {40, 64, 100}, F32, UNALIGNED},
    {&gated_kind, {9, 128, 33}, Q4, 0},
    {&gated_kind, {20, 384, 64}, Q4, UNALIGNED},
    {&gated_kind, {99, 128, 70}, Q4, 0},
    {&gated_kind, {107, 96, 40}, BF16, 0},
    {&gated_kind, {37, 96, 64}, BF16 | Q4, VIEWS},
    {&gated_kind, {130, 70, 33}, F32, VIEWS},
    {&gated_kind, {43, 65, 31}, BF16, ODD_VIEWS},
    {&gated_kind, {40, 64, 100}, BF16, SLOW},
    {&gated_kind, {40, 64, 96}, BF16, SLOW},
    {&gated_kind, {65, 96, 72}, F16, SLOW | OTHER},
    {&gated_kind, {65, 96, 64}, F16, SLOW | OTHER},
    /* the sizes of a kernel that computes both products: no, one and two pairs of row tiles, and odd ones */
    {&gated_kind, {70, 64, 256}, BF16, SLOW | OTHER},
    {&tiled_kind, {260, 128, 256}, BF16, SLOW | OTHER},
    {&tiled_kind, {450, 192, 256}, BF16, SLOW | OTHER},
    {&tiled_kind, {1, 128, 512}, BF16, SLOW},
    {&tiled_kind, {381, 128, 512}, BF16, SLOW},
    {&tiled_kind, {761, 128, 512}, BF16, SLOW},
    {&gated_kind, {130, 128, 256}, BF16, SLOW},
    {&tiled_kind, {130, 1024, 512}, BF16, SLOW}, /* large enough for a backend to time algorithms */
    {&gated_kind, {130, 1024, 512}, Q4, SLOW},
    {&gated_kind, {20, 256, 64}, Q4 | Q4_64, SLOW},
    {&gated_kind, {273, 768, 192}, Q4 | Q4_64, SLOW},
    {&gated_kind, {1, 1, 1}, DENSE, SLOW | UNALIGNED},
    {&gated_kind, {1, 256, 100}, DENSE, SLOW | UNALIGNED},
    {&gated_kind, {2, 3, 17}, DENSE, SLOW | UNALIGNED},
    {&gated_kind, {3, 1000, 33}, DENSE, SLOW | UNALIGNED},
    {&gated_kind, {4, 31, 5}, DENSE, SLOW | UNALIGNED},
    {&gated_kind, {5, 7, 3}, DENSE, SLOW | UNALIGNED},
    {&gated_kind, {6, 256, 8}, DENSE, SLOW | UNALIGNED},
    {&gated_kind, {7, 257, 31}, DENSE, SLOW | UNALIGNED},
    {&gated_kind, {12, 100, 32}, DENSE, SLOW | UNALIGNED},
    {&gated_kind, {17, 300, 33}, DENSE, SLOW | UNALIGNED},
    {&gated_kind, {100, 513, 70}, DENSE, SLOW | UNALIGNED},
    {&gated_kind, {211, 64, 9}, DENSE, SLOW | UNALIGNED},
    {&gated_kind, {40, 4000, 20}, F32, SLOW | UNALIGNED},
    {&gated_kind, {19, 129, 37}, F32, SLOW},
    {&operands_kind, {101, 70, 45, 30}, BF16, 0},
    {&operands_kind, {120, 64, 96, 17}, F32, 0},
    {&block_kind, {40, 96, 2, 64, 100}, BF16, 0},
    {&block_kind, {33, 64, 3, 40, 72}, BF16, 0},
    {&block_kind, {150, 64, 2, 32, 96}, BF16, SEQUENCES},
    {&groups_kind, {33, 64, 4, 40, 96}, Q8, SLOW},
    {&block_kind, {101, 70, 3, 40, 90}, BF16, SLOW},
    {&block_kind, {150, 128, 2, 64, 512}, BF16, SLOW},
    {&block_kind, {40, 96, 2, 64, 112}, BF16, SLOW},
    {&block_kind, {5, 8208, 1, 32, 48}, BF16, SLOW}, /* rows that no block of threads holds */
    {&block_kind, {3, 64, 2, 32, 4608}, BF16, SLOW},
    {&block_kind, {2, 64, 2, 32, 10256}, BF16, SLOW},
    {&parts_kind, {45, 64, 2, 32, 48, 12}, BF16, 0},
    {&parts_kind, {210, 64, 2, 64, 80, 101}, BF16, 0},
    {&parts_kind, {200, 64, 4, 40, 48, 99}, F32, 0},
    {&parts_kind, {140, 64, 3, 64, 96, 13}, F16 | Q8, SLOW},
    {&repeat_kind, {33, 64, 2, 32, 96}, BF16, 0},
    {&attention_kind, {1, 1, 1, 1, 8}, 0, 0},
    {&attention_kind, {3, 17, 2, 2, 6}, 0, 0},
    {&attention_kind, {70, 333, 2, 1, 40}, 0, 0},
    {&attention_kind, {65, 65, 4, 2, 64}, 0, CAUSAL},
    {&attention_kind, {65, 65, 4, 2, 64}, 0, CAUSAL | IN_PLACE},
    {&padded_kind, {70, 333, 2, 1, 40, 200}, 0, 0},
    {&padded_kind, {65, 65, 4, 2, 64, 40}, 0, CAUSAL},
    {&padded_kind, {3, 17, 2, 2, 6, 1}, 0, IN_PLACE},
    {&attention_kind, {65, 65, 4, 2, 64}, 0, VIEWS | CAUSAL},
    {&attention_kind, {75, 75, 2, 2, 40}, 0, VIEWS | IN_PLACE},
    {&attention_kind, {37, 37, 3, 1, 30}, 0, ODD_VIEWS},
    {&attention_kind, {70, 333, 2, 1, 40}, 0, SEQUENCES},
    {&attention_kind, {75, 75, 2, 2, 64}, 0, SEQUENCES | VIEWS | IN_PLACE},
    {&attention_kind, {1, 1, 1, 1, 8}, 0, SLOW | IN_PLACE},
    {&attention_kind, {3, 17, 2, 2, 6}, 0, SLOW | IN_PLACE},
    {&attention_kind, {70, 333, 2, 1, 40}, 0, SLOW | IN_PLACE},
    {&attention_kind, {300, 300, 4, 1, 128}, 0, SLOW | CAUSAL},
    {&attention_kind, {129, 191, 3, 3, 128}, 0, SLOW | IN_PLACE},
    {&attention_kind, {300, 64, 2, 2, 64}, 0, SLOW},
    {&attention_kind, {96, 96, 1, 1, 512}, 0, SLOW},
    {&attention_kind, {5, 4100, 1, 1, 264}, 0, SLOW | IN_PLACE},
    {&attention_kind, {1, 1, 1, 1, 1}, 0, SLOW | IN_PLACE},
    {&attention_kind, {3, 17, 2, 2, 5}, 0, SLOW | IN_PLACE},
    {&attention_kind, {100, 31, 1, 1, 33}, 0, SLOW | IN_PLACE},
    {&attention_kind, {49, 129, 3, 1, 64}, 0, SLOW | IN_PLACE},
    {&attention_kind, {288, 288, 2, 2, 128}, 0, SLOW | IN_PLACE},
    {&attention_kind, {70, 333, 4, 2, 128}, 0, SLOW},
    {&attention_kind, {70, 300, 1, 1, 512}, 0, SLOW | IN_PLACE},
    {&attention_kind, {1, 1, 4, 2, 32}, 0, SLOW | CAUSAL | IN_PLACE},
    {&attention_kind, {33, 33, 8, 2, 31}, 0, SLOW | CAUSAL | IN_PLACE},
    {&attention_kind, {261, 261, 4, 2, 64}, 0, SLOW | CAUSAL | IN_PLACE},
    {&attention_kind, {9, 4200, 6, 6, 48}, 0, SLOW | IN_PLACE}, /* key heads in more than one group */
    {&padded_kind, {512, 512, 2, 1, 64, 77}, 0, SLOW | CAUSAL},
    {&padded_kind, {129, 512, 2, 2, 64, 385}, 0, SLOW},
    {&padded_kind, {200, 300, 2, 1, 128, 257}, 0, SLOW},
    {&padded_kind, {150, 150, 2, 1, 64, 150}, 0, SLOW},
    {&attention_kind, {150, 150, 2, 2, 128}, 0, SLOW | VIEWS},
    {&sharp_kind, {50, 200, 2, 1, 64}, 0, SLOW | LARGE | IN_PLACE},
    {&sharp_kind, {150, 400, 2, 1, 128}, 0, SLOW | LARGE | IN_PLACE},
    {&sharp_kind, {150, 150, 2, 1, 64}, 0, SLOW | LARGE | CAUSAL | IN_PLACE},
    {&not_finite_kind, {5, 200, 1, 1, 8}, 0, 0},
    {&not_finite_kind, {5, 200, 1, 1, 128}, 0, SLOW},
    {NULL, {0}, 0, 0},
};
