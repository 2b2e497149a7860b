/*
 * The FLUX.2 transformer on a backend. Formulas: docs/spec/flux2-klein.md 3, 4 and 6; reference: diffusers,
 * models/transformers/transformer_flux2.py.
 * n image tokens, m text tokens, R reference tokens, T of them all in a forward pass; D = dim, M = mlp_dim,
 * d = head_dim, C = in_channels.
 *
 * The rows of a forward pass are text, image, references: x [T, D]. In a double block text rows and the others have
 * weights of their own, in a single block all rows have the same. So a batch of passes has in double blocks the text of
 * all passes first, and then the other rows of all; in single blocks, and in keys and values, one pass after the other.
 *
 * After the last single block only the image's rows are read. So it computes keys and values of all rows, and the rest
 * for the image alone.
 *
 * Memory of one forward pass, in numbers: x and, at its peak in a single block, h, q, k, v, and the input of to_out, so
 * 6 T D + T (D + M). klein-4B, 1024 x 1024 (T = 4608, D = 3072, M = 3 D): 10 T D are 540 MiB in float32. The last block
 * holds the image's h, too, but fewer rows of that input: n D - (T - n) (D + M) more, 24 MiB.
 */
#include <assert.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "model/flux2_dit.h"
#include "sampler/flow_match.h"

#define T_MAX_PERIOD   10000.0
#define REFERENCE_STEP 10 /* on axis T, from the image to the first reference, and from each to the next */

/* ---- time and modulation ----------------------------------------------------------------------------------------- */

static float rounded(float value, int in_bf16)
{
    return in_bf16 ? zi_bf16_to_f32(zi_f32_to_bf16(value)) : value;
}

/* The pipeline divides the scheduler's timestep by 1000, and the transformer multiplies it by 1000. */
float zi_flux2_timestep(float sigma, int in_bf16)
{
    float timestep = rounded(zi_scheduler_timestep(sigma), in_bf16);
    timestep = rounded(timestep / (float)ZI_TRAIN_TIMESTEPS, in_bf16);
    return rounded(timestep * (float)ZI_TRAIN_TIMESTEPS, in_bf16);
}

/* sinusoid [1, channels] <- cos, then sin, of the timestep; in float32 as get_timestep_embedding */
static zimage_status make_sinusoid(const zi_flux2_dit *model, zi_run *run, float timestep, zi_tensor *sinusoid)
{
    int64_t channels = model->config.time_channels, half = channels / 2;
    ZI_TRY(zi_alloc2_f32(run, sinusoid, 1, channels));
    float *values = malloc((size_t)channels * sizeof *values);
    if (!values)
        return zi_fail_memory(run->error, "the timestep's embedding", (size_t)channels * sizeof *values);
    for (int64_t k = 0; k < half; k++) {
        float angle = timestep * expf((float)-log(T_MAX_PERIOD) * (float)k / (float)half);
        values[k] = cosf(angle);
        values[half + k] = sinf(angle);
    }
    zimage_status status = zi_table(run)->upload(run, sinusoid, values);
    free(values);
    return status;
}

/* Parts of a modulation: one set for attention, a second one for the feed forward of a double block. */
enum { SHIFT, SCALE, GATE, PARTS, MLP_PARTS = PARTS, ALL_PARTS = 2 * PARTS + 2 * PARTS + PARTS + 2 };

/* The vectors [D] of one timestep: shifts, 1 + scales, and gates. */
typedef struct modulation {
    zi_tensor all; /* [ALL_PARTS, D] */
    zi_tensor image[2 * PARTS], text[2 * PARTS], single[PARTS], out[2];
} modulation;

/* Some vectors of a modulation: the chunks of linear(SiLU(temb)), which `kinds` says how to change. */
typedef struct vectors {
    const zi_weight *linear;
    int count;
    const zi_modulation *kinds;
    zi_tensor *to;
} vectors;

/* The vectors are rows of `all`, from `row` on. */
static zimage_status make_vectors(zi_run *run, const vectors *v, const zi_tensor *activated, const zi_tensor *all,
                                  int64_t row)
{
    zi_tensor rows = zi_tensor_rows(all, row, v->count);
    zi_tensor y = zi_tensor_shaped(&rows, ZI_SHAPE(1, v->count * all->shape[1]));
    ZI_TRY(zi_linear(run, &y, activated, v->linear, NULL));
    y = zi_tensor_shaped(&y, ZI_SHAPE(v->count * all->shape[1]));
    for (int i = 0; i < v->count; i++)
        v->to[i] = zi_row_vector(&rows, i);
    return zi_table(run)->modulation(run, &y, v->count, v->kinds);
}

static const zi_modulation block_parts[2 * PARTS] = {ZI_MODULATION_COPY, ZI_MODULATION_ONE_PLUS, ZI_MODULATION_COPY,
                                                     ZI_MODULATION_COPY, ZI_MODULATION_ONE_PLUS, ZI_MODULATION_COPY};
static const zi_modulation out_parts[2] = {ZI_MODULATION_ONE_PLUS, ZI_MODULATION_COPY}; /* here the scale is first */

/* Once for each timestep: all blocks of a kind share it. */
static zimage_status modulate(const zi_flux2_dit *model, zi_run *run, const zi_tensor *sinusoid, modulation *mod)
{
    const zi_ops_table *table = zi_table(run);
    const vectors kinds[] = {{model->image_modulation, 2 * PARTS, block_parts, mod->image},
                             {model->text_modulation, 2 * PARTS, block_parts, mod->text},
                             {model->single_modulation, PARTS, block_parts, mod->single},
                             {model->norm_out, 2, out_parts, mod->out}};
    int64_t dim = model->config.dim, row = 0;
    zi_tensor hidden, temb; /* [1, D] */
    ZI_TRY(zi_alloc2_f32(run, &mod->all, ALL_PARTS, dim));
    zi_arena_mark mark = table->mark(run);
    ZI_TRY(zi_alloc2_f32(run, &hidden, 1, dim));
    ZI_TRY(zi_alloc2_f32(run, &temb, 1, dim));
    ZI_TRY(zi_linear(run, &hidden, sinusoid, model->time_linear1, NULL));
    ZI_TRY(table->silu(run, &hidden, &hidden));
    ZI_TRY(zi_linear(run, &temb, &hidden, model->time_linear2, NULL));
    ZI_TRY(table->silu(run, &temb, &temb));
    for (size_t i = 0; i < sizeof kinds / sizeof *kinds; row += kinds[i].count, i++)
        ZI_TRY(make_vectors(run, &kinds[i], &temb, &mod->all, row));
    table->release(run, mark);
    return ZIMAGE_OK;
}

/* ---- positions --------------------------------------------------------------------------------------------------- */

/* Angles of tokens, in turn; section 3 and 4. */
typedef struct angles {
    const zi_flux2_dit_config *config;
    double *frequencies; /* [d / 2], of all axes side by side */
    float *all, *next;   /* [tokens, d / 2] */
} angles;

static void axis_frequencies(const zi_flux2_dit_config *config, double *frequencies)
{
    for (int axis = 0; axis < ZI_FLUX2_AXES; axis++)
        for (int64_t j = 0; j < config->axes_dims[axis] / 2; j++)
            *frequencies++ = 1.0 / pow(config->rope_theta, (double)(2 * j) / (double)config->axes_dims[axis]);
}

/* Within +-pi: a large angle rounded to float32 would miss cos and sin of the float64 angle by more than 1e-5. */
static void add_token(angles *a, int64_t frame, int64_t row, int64_t column, int64_t place)
{
    const double whole = 2 * acos(-1.0);
    const int64_t position[ZI_FLUX2_AXES] = {frame, row, column, place};
    const double *frequency = a->frequencies;
    for (int axis = 0; axis < ZI_FLUX2_AXES; axis++)
        for (int64_t j = 0; j < a->config->axes_dims[axis] / 2; j++)
            *a->next++ = (float)remainder((double)position[axis] * *frequency++, whole);
}

static void add_grid(angles *a, int64_t frame, int64_t rows, int64_t columns)
{
    for (int64_t row = 0; row < rows; row++)
        for (int64_t column = 0; column < columns; column++)
            add_token(a, frame, row, column, 0);
}

/* What a sequence of tokens holds: text, then an image, then references. */
typedef struct sequence {
    int64_t text, rows, columns;
    const zi_reference *references;
    int reference_count;
} sequence;

static int64_t reference_tokens(const sequence *s)
{
    int64_t tokens = 0;
    for (int i = 0; i < s->reference_count; i++)
        tokens += s->references[i].rows * s->references[i].columns;
    return tokens;
}

static zimage_status rope_tables(const zi_flux2_dit *model, zi_run *run, const sequence *s, zi_rope *rope)
{
    int64_t half = model->config.head_dim / 2, tokens = s->text + s->rows * s->columns + reference_tokens(s);
    if (run->ops->rehearsing)
        return zi_rope_from_angles(run, rope, NULL, tokens, half);
    size_t bytes = (size_t)(tokens * half) * sizeof(float);
    angles a = {.config = &model->config, .frequencies = malloc((size_t)half * sizeof(double)), .all = malloc(bytes)};
    if (!a.frequencies || !a.all) {
        free(a.frequencies);
        free(a.all);
        return zi_fail_memory(run->error, "the rotary position table", bytes);
    }
    a.next = a.all;
    axis_frequencies(&model->config, a.frequencies);
    for (int64_t i = 0; i < s->text; i++)
        add_token(&a, 0, 0, 0, i);
    add_grid(&a, 0, s->rows, s->columns);
    for (int i = 0; i < s->reference_count; i++)
        add_grid(&a, REFERENCE_STEP * (i + 1), s->references[i].rows, s->references[i].columns);
    zimage_status status = zi_rope_from_angles(run, rope, a.all, tokens, half);
    free(a.frequencies);
    free(a.all);
    return status;
}

/* ---- blocks ------------------------------------------------------------------------------------------------------ */

/* Rows of x that a block computes with one set of weights: one part of each pass, one below the other. */
typedef struct stream {
    int is_text;
    int64_t first, count;          /* of all passes */
    int64_t begin[ZI_PASSES_MAX];  /* of the part in its pass */
    int64_t tokens[ZI_PASSES_MAX]; /* of the part */
    zi_tensor x, h;                /* [count, D]; h, an operand: the normalised x */
    const zi_tensor *parts;        /* of the modulation */
} stream;

/* Tokens of `passes` passes on their way through the blocks. */
typedef struct passage {
    const zi_flux2_dit *model;
    zi_run *run;
    int passes;
    zi_rope rope[ZI_PASSES_MAX];
    const modulation *mod;
    zi_tensor x;                 /* [T, D] */
    int64_t text[ZI_PASSES_MAX]; /* the first rows of a pass, which are text */
    int64_t others;              /* the other rows of each pass */
    /* Keys and values of references that pass alone, `kept` rows a block; `collects`: these are the references. */
    zi_tensor keys, values;
    int64_t kept;
    int collects;
} passage;

static int64_t tokens_of(const passage *p, int pass)
{
    return p->text[pass] + p->others;
}

/* The text of all passes. */
static int64_t text_of(const passage *p)
{
    int64_t rows = 0;
    for (int i = 0; i < p->passes; i++)
        rows += p->text[i];
    return rows;
}

static void add_part(stream *s, int pass, int64_t begin, int64_t tokens)
{
    s->begin[pass] = begin;
    s->tokens[pass] = tokens;
    s->count += tokens;
}

static zi_norm adaln(const passage *p, const zi_tensor *parts)
{
    return (zi_norm){
        .kind = ZI_NORM_LAYER, .eps = (float)p->model->config.eps, .scale = &parts[SCALE], .shift = &parts[SHIFT]};
}

/* h of the stream's rows, which a block whose to_q is given reads first */
static zimage_status start_stream(const passage *p, stream *s, const zi_weight *to_q)
{
    const zi_norm norm = adaln(p, s->parts);
    s->x = zi_tensor_rows(&p->x, s->first, s->count);
    ZI_TRY(zi_table(p->run)->alloc_operand(p->run, &s->h, s->count, p->x.shape[1], to_q));
    return zi_table(p->run)->norm(p->run, &s->h, &s->x, &norm);
}

static zimage_status end_block(const passage *p, int finite, const char *kind, int64_t index)
{
    return zi_end_block_known(p->run, finite, "transformer %s.%d%s", kind, (int)index,
                              p->collects ? " of the references" : "");
}

/* Of a block: q of the passage's own tokens [T, D], in the order of x, and k and v of all that they see, one pass after
 * the other: kept rows, then the pass's own. */
typedef struct heads {
    zi_tensor q, k, v;
} heads;

/* Before k and v, so that it can outlive them on the stack. */
static zimage_status alloc_q(const passage *p, heads *h)
{
    return zi_alloc2(p->run, &h->q, p->x.shape[0], p->x.shape[1]);
}

/* block: of all blocks */
static zimage_status alloc_k_and_v(const passage *p, int64_t block, heads *h)
{
    int64_t tokens = p->x.shape[0], kept = p->kept;
    if (p->collects) {
        h->k = zi_tensor_rows(&p->keys, block * kept, kept);
        h->v = zi_tensor_rows(&p->values, block * kept, kept);
        return ZIMAGE_OK;
    }
    assert(kept == 0 || p->passes == 1);
    ZI_TRY(zi_alloc2(p->run, &h->k, kept + tokens, p->x.shape[1]));
    ZI_TRY(zi_alloc2(p->run, &h->v, kept + tokens, p->x.shape[1]));
    if (kept == 0)
        return ZIMAGE_OK;
    zi_tensor k = zi_tensor_rows(&h->k, 0, kept), v = zi_tensor_rows(&h->v, 0, kept);
    const zi_tensor kept_k = zi_tensor_rows(&p->keys, block * kept, kept);
    const zi_tensor kept_v = zi_tensor_rows(&p->values, block * kept, kept);
    ZI_TRY(zi_table(p->run)->copy(p->run, &k, &kept_k));
    return zi_table(p->run)->copy(p->run, &v, &kept_v);
}

/* Where part `pass` of a stream begins in keys and values. */
static int64_t key_row(const passage *p, const stream *s, int pass)
{
    int64_t row = s->begin[pass] + (p->collects ? 0 : p->kept);
    for (int i = 0; i < pass; i++)
        row += tokens_of(p, i);
    return row;
}

/* Whether the stream's parts lie one below the other in keys, too. */
static int is_joined(const passage *p, const stream *s)
{
    return p->passes == 1 || s->tokens[0] == tokens_of(p, 0);
}

/* k, v <- where products write the stream's keys and values */
static zimage_status find_k_and_v(const passage *p, const stream *s, const heads *h, zi_tensor *k, zi_tensor *v)
{
    if (!is_joined(p, s)) {
        ZI_TRY(zi_alloc2(p->run, k, s->count, p->x.shape[1]));
        return zi_alloc2(p->run, v, s->count, p->x.shape[1]);
    }
    *k = zi_tensor_rows(&h->k, key_row(p, s, 0), s->count);
    *v = zi_tensor_rows(&h->v, key_row(p, s, 0), s->count);
    return ZIMAGE_OK;
}

/* Rows of q, k and v <- the products of h, normed and rotated. weights: to_q, to_k, to_v; norms: of q and of k. */
static zimage_status project(const passage *p, const stream *s, const zi_weight *const weights[3],
                             const zi_weight *const norms[2], const heads *h)
{
    const zi_flux2_dit_config *config = &p->model->config;
    const zi_ops_table *table = zi_table(p->run);
    zi_tensor qkv[3] = {zi_tensor_rows(&h->q, s->first, s->count)};
    int64_t first = 0;
    zi_arena_mark mark = table->mark(p->run);
    ZI_TRY(find_k_and_v(p, s, h, &qkv[1], &qkv[2]));
    ZI_TRY(zi_linears(p->run, 3, qkv, &s->h, weights));
    for (int pass = 0; pass < p->passes; first += s->tokens[pass++]) {
        const zi_rope rope = {zi_tensor_rows(&p->rope[pass].cos, s->begin[pass], s->tokens[pass]),
                              zi_tensor_rows(&p->rope[pass].sin, s->begin[pass], s->tokens[pass])};
        zi_tensor rows[3];
        for (int i = 0; i < 3; i++)
            rows[i] = zi_tensor_rows(&qkv[i], first, s->tokens[pass]);
        ZI_TRY(zi_norm_and_rotate(p->run, rows, norms, &rope, config->heads, ZI_ROPE_ADJACENT, (float)config->eps));
        zi_tensor k = zi_tensor_rows(&h->k, key_row(p, s, pass), s->tokens[pass]);
        zi_tensor v = zi_tensor_rows(&h->v, key_row(p, s, pass), s->tokens[pass]);
        if (!is_joined(p, s)) {
            ZI_TRY(table->copy(p->run, &k, &rows[1]));
            ZI_TRY(table->copy(p->run, &v, &rows[2]));
        }
    }
    table->release(p->run, mark);
    return ZIMAGE_OK;
}

/* o [count, D] <- the heads of the stream's queries q */
static zimage_status attend(const passage *p, const stream *s, const zi_tensor *q, const heads *h, zi_tensor *o)
{
    const zi_flux2_dit_config *config = &p->model->config;
    zi_attention shape = {
        .heads = config->heads, .kv_heads = config->heads, .head_dim = config->head_dim, .sequences = p->passes};
    for (int i = 0; i < p->passes; i++) {
        shape.queries[i] = s->tokens[i];
        shape.keys[i] = tokens_of(p, i);
    }
    return zi_table(p->run)->attention(p->run, o, q, &h->k, &h->v, &shape);
}

/* ---- double blocks ----------------------------------------------------------------------------------------------- */

static const zi_flux2_half *half_of(const zi_flux2_double_block *block, const stream *s)
{
    return s->is_text ? &block->text : &block->image;
}

/* All rows of each pass, one pass after the other. */
static stream whole_passes(const passage *p, const zi_tensor *parts)
{
    stream s = {.parts = parts};
    for (int i = 0; i < p->passes; i++)
        add_part(&s, i, 0, tokens_of(p, i));
    return s;
}

/* o [T, D] <- the heads of all queries. One attention reads the queries of both streams, unless the passes of a batch
 * lie apart in each. */
static zimage_status attend_streams(const passage *p, const stream *streams, int count, const heads *h, zi_tensor *o)
{
    const stream all = whole_passes(p, NULL);
    if (p->passes == 1)
        return attend(p, &all, &h->q, h, o);
    for (int i = 0; i < count; i++) {
        zi_tensor q = zi_tensor_rows(&h->q, streams[i].first, streams[i].count);
        zi_tensor rows = zi_tensor_rows(o, streams[i].first, streams[i].count);
        ZI_TRY(attend(p, &streams[i], &q, h, &rows));
    }
    return ZIMAGE_OK;
}

/* y <- to_out(attention), for each stream in its rows of q; the others give their place back. The result of attention
 * is no operand of one stream. */
static zimage_status joint_attention(const passage *p, stream *streams, int count, int64_t index, heads *h)
{
    const zi_flux2_double_block *block = &p->model->double_blocks[index];
    zi_run *run = p->run;
    zi_tensor o; /* [T, D] */
    zi_arena_mark mark = zi_table(run)->mark(run);
    ZI_TRY(alloc_k_and_v(p, index, h));
    ZI_TRY(zi_alloc2(run, &o, p->x.shape[0], p->x.shape[1]));
    for (int i = 0; i < count; i++) {
        const zi_flux2_half *half = half_of(block, &streams[i]);
        const zi_weight *const weights[] = {half->to_q, half->to_k, half->to_v}, *const norms[] = {half->norm_q,
                                                                                                   half->norm_k};
        ZI_TRY(project(p, &streams[i], weights, norms, h));
    }
    ZI_TRY(attend_streams(p, streams, count, h, &o));
    for (int i = 0; i < count; i++) {
        const stream *s = &streams[i];
        zi_tensor y = zi_tensor_rows(&h->q, s->first, s->count), x = zi_tensor_rows(&o, s->first, s->count);
        ZI_TRY(zi_linear(run, &y, &x, half_of(block, s)->to_out, NULL));
    }
    zi_table(run)->release(run, mark);
    return ZIMAGE_OK;
}

/* The rest of a double block, with y [count, D] = to_out(attention):
 *   x += gate * y
 *   x += mlp_gate * linear_out(SwiGLU(linear_in(adaLN(x))))
 * and the h of the next block (`last`: there is none), while x is at hand. */
static zimage_status feed_forward(const passage *p, stream *s, const zi_flux2_half *half, zi_tensor *y, int last,
                                  int *finite)
{
    const zi_ops_table *table = zi_table(p->run);
    const zi_tensor *mlp_parts = s->parts + MLP_PARTS;
    const zi_norm middle = adaln(p, mlp_parts), next = adaln(p, s->parts);
    int own_finite = 1;
    zi_tensor u; /* [count, M] */
    ZI_TRY(table->residual(p->run, &s->x, y, &s->h, &(zi_residual){.gate = &s->parts[GATE], .next = &middle}));
    zi_arena_mark mark = table->mark(p->run);
    ZI_TRY(table->alloc_operand(p->run, &u, s->count, p->model->config.mlp_dim, half->linear_out));
    ZI_TRY(zi_linear_glu(p->run, &u, &s->h, &half->gate, &half->up));
    ZI_TRY(zi_linear(p->run, y, &u, half->linear_out, NULL));
    table->release(p->run, mark);
    ZI_TRY(
        table->residual(p->run, &s->x, y, last ? NULL : &s->h,
                        &(zi_residual){.gate = &mlp_parts[GATE], .next = last ? NULL : &next, .finite = &own_finite}));
    *finite &= own_finite;
    return ZIMAGE_OK;
}

static zimage_status double_block(const passage *p, stream *streams, int count, int64_t index)
{
    const zi_flux2_double_block *block = &p->model->double_blocks[index];
    zi_arena_mark mark = zi_table(p->run)->mark(p->run);
    heads h;
    int finite = 1;
    ZI_TRY(alloc_q(p, &h));
    ZI_TRY(joint_attention(p, streams, count, index, &h));
    for (int i = 0; i < count; i++) {
        zi_tensor y = zi_tensor_rows(&h.q, streams[i].first, streams[i].count);
        ZI_TRY(feed_forward(p, &streams[i], half_of(block, &streams[i]), &y, index + 1 == p->model->config.num_layers,
                            &finite));
    }
    zi_table(p->run)->release(p->run, mark);
    return end_block(p, finite, "transformer_blocks", index);
}

static zimage_status double_blocks(const passage *p)
{
    const zi_flux2_double_block *blocks = p->model->double_blocks;
    int64_t count = p->model->config.num_layers;
    stream streams[2] = {{.is_text = 1, .parts = p->mod->text}, {.first = text_of(p), .parts = p->mod->image}};
    int skipped = text_of(p) == 0; /* references pass without text */
    for (int i = 0; i < p->passes; i++) {
        add_part(&streams[0], i, 0, p->text[i]);
        add_part(&streams[1], i, p->text[i], p->others);
    }
    zi_arena_mark mark = zi_table(p->run)->mark(p->run);
    for (int i = skipped; i < 2 && count > 0; i++)
        ZI_TRY(start_stream(p, &streams[i], half_of(&blocks[0], &streams[i])->to_q));
    for (int64_t i = 0; i < count; i++)
        ZI_TRY(double_block(p, streams + skipped, 2 - skipped, i));
    zi_table(p->run)->release(p->run, mark);
    return ZIMAGE_OK;
}

/* ---- single blocks ----------------------------------------------------------------------------------------------- */

/* The image's tokens of each pass: all that is read after the last single block. The references' own passage has
 * none. */
static stream images_of(const passage *p, int64_t tokens)
{
    stream s = {.parts = p->mod->single};
    for (int i = 0; i < p->passes; i++)
        add_part(&s, i, p->text[i], tokens);
    return s;
}

/* rows [count, D] <- those of the stream in x, where each pass follows the one before it; no copy if they lie together.
 * The parts are equally long, or all of x. */
static zimage_status take_rows(const passage *p, const stream *s, const zi_tensor *x, zi_tensor *rows)
{
    int64_t first[ZI_PASSES_MAX] = {0}, pass_first = 0;
    *rows = *x;
    if (s->count == x->shape[0])
        return ZIMAGE_OK;
    for (int i = 0; i < p->passes; pass_first += tokens_of(p, i++))
        first[i] = pass_first + s->begin[i];
    return zi_join_rows(p->run, x, p->passes, first, s->tokens[0], rows);
}

/* y [count, D] = to_out(heads, SwiGLU) of the rows `to`: the two are columns of one operand [count, D + M], so that one
 * product reads both. Keys and values are of all rows `s`. */
static zimage_status parallel_attention(const passage *p, const stream *s, const stream *to, int64_t index, heads *h,
                                        zi_tensor *y)
{
    const zi_flux2_single_block *block = &p->model->single_blocks[index];
    const zi_weight *const weights[] = {&block->to_q, &block->to_k, &block->to_v};
    const zi_weight *const norms[] = {block->norm_q, block->norm_k};
    int64_t dim = p->x.shape[1], mlp = p->model->config.mlp_dim;
    zi_tensor both;
    ZI_TRY(alloc_k_and_v(p, p->model->config.num_layers + index, h));
    if (to->count > 0)
        ZI_TRY(zi_table(p->run)->alloc_operand_parts(p->run, &both, to->count, dim + mlp, block->to_out));
    ZI_TRY(project(p, s, weights, norms, h));
    if (to->count == 0)
        return ZIMAGE_OK;
    zi_tensor o = zi_tensor_columns(&both, 0, dim), u = zi_tensor_columns(&both, dim, mlp);
    ZI_TRY(zi_linear_glu(p->run, &u, &to->h, &block->gate, &block->up));
    ZI_TRY(take_rows(p, to, &h->q, y));
    ZI_TRY(attend(p, to, y, h, &o));
    return zi_linear(p->run, y, &both, block->to_out, NULL);
}

/* x += gate * to_out(attention(h), SwiGLU(h)) of the rows `to`, and, where these are all rows, the next block's h while
 * x is at hand. */
static zimage_status single_block(const passage *p, const stream *s, stream *to, int64_t index)
{
    const zi_norm next = adaln(p, s->parts);
    int last = to != s, finite = 1;
    zi_arena_mark mark = zi_table(p->run)->mark(p->run);
    zi_tensor y;
    heads h;
    ZI_TRY(alloc_q(p, &h));
    ZI_TRY(parallel_attention(p, s, to, index, &h, &y));
    if (to->count > 0)
        ZI_TRY(zi_table(p->run)->residual(
            p->run, &to->x, &y, last ? NULL : &to->h,
            &(zi_residual){.gate = &to->parts[GATE], .next = last ? NULL : &next, .finite = &finite}));
    zi_table(p->run)->release(p->run, mark);
    return end_block(p, finite, "single_transformer_blocks", index);
}

/* images: their x [passes n, D] is the result. After the last block nothing reads the other rows, so it computes only
 * their keys and values. */
static zimage_status single_blocks(const passage *p, stream *images)
{
    const zi_ops_table *table = zi_table(p->run);
    int64_t count = p->model->config.num_single_layers;
    stream s = whole_passes(p, p->mod->single);
    const zi_norm norm = adaln(p, images->parts);
    if (count > 0)
        ZI_TRY(start_stream(p, &s, &p->model->single_blocks[0].to_q));
    for (int64_t i = 0; i + 1 < count; i++)
        ZI_TRY(single_block(p, &s, &s, i));
    if (images->count > 0)
        ZI_TRY(take_rows(p, images, &p->x, &images->x));
    if (count == 0)
        return ZIMAGE_OK;
    if (images->count > 0) {
        ZI_TRY(table->alloc_operand(p->run, &images->h, images->count, p->x.shape[1],
                                    &p->model->single_blocks[count - 1].gate));
        ZI_TRY(table->norm(p->run, &images->h, &images->x, &norm));
    }
    return single_block(p, &s, images, count - 1);
}

/* ---- a forward pass ---------------------------------------------------------------------------------------------- */

/* tokens [n, D] = x_embedder(latents [C, rows, columns]) */
static zimage_status embed_image(const zi_flux2_dit *model, zi_run *run, const zi_tensor *latents, zi_tensor *tokens)
{
    zi_tensor patches; /* [n, C] */
    zi_arena_mark mark = zi_table(run)->mark(run);
    ZI_TRY(zi_alloc2(run, &patches, tokens->shape[0], model->config.in_channels));
    ZI_TRY(zi_table(run)->patchify(run, &patches, latents, 1, ZI_PATCH_CHANNELS_FIRST));
    ZI_TRY(zi_linear(run, tokens, &patches, model->x_embedder, NULL));
    zi_table(run)->release(run, mark);
    return ZIMAGE_OK;
}

/* out[i] [C, rows, columns] = proj_out(adaLN(x)) of `count` images; x [count n, D] */
static zimage_status final_layer(const passage *p, const zi_tensor *x, zi_tensor *out)
{
    zi_run *run = p->run;
    const zi_ops_table *table = zi_table(run);
    const zi_flux2_dit *model = p->model;
    const modulation *mod = p->mod;
    const zi_norm norm = {
        .kind = ZI_NORM_LAYER, .eps = (float)model->config.eps, .scale = &mod->out[0], .shift = &mod->out[1]};
    int64_t tokens = x->shape[0] / p->passes;
    zi_tensor h, patches; /* [count n, D], [count n, C] */
    zi_arena_mark mark = table->mark(run);
    ZI_TRY(table->alloc_operand(run, &h, x->shape[0], x->shape[1], model->proj_out));
    ZI_TRY(zi_alloc2_f32(run, &patches, x->shape[0], model->config.in_channels));
    ZI_TRY(table->norm(run, &h, x, &norm));
    ZI_TRY(zi_linear(run, &patches, &h, model->proj_out, NULL));
    for (int i = 0; i < p->passes; i++) {
        const zi_tensor of_image = zi_tensor_rows(&patches, i * tokens, tokens);
        ZI_TRY(table->unpatchify(run, &out[i], &of_image, 1, ZI_PATCH_CHANNELS_FIRST));
        ZI_TRY(zi_check_block(run, &out[i], "transformer proj_out"));
    }
    table->release(run, mark);
    return zi_block_done(run);
}

/* A batch of forward passes after the sinusoid of the timestep. The host reads and writes none of its tensors, so a
 * backend may record it. The bytes of this struct are the recording's key. */
typedef struct batch {
    zi_flux2_dit_inputs inputs[ZI_PASSES_MAX];
    zi_tensor latents, sinusoid, out[ZI_PASSES_MAX];
    int64_t count;
} batch;

/* x [T, D] <- the text of all passes, then for each pass image and references, which are the same for all */
static zimage_status fill_tokens(const batch *b, const passage *p)
{
    const zi_flux2_dit_inputs *inputs = b->inputs;
    const zi_ops_table *table = zi_table(p->run);
    int64_t tokens = inputs->rows * inputs->columns, first = 0;
    for (int i = 0; i < p->passes; first += p->text[i++]) {
        zi_tensor text = zi_tensor_rows(&p->x, first, p->text[i]);
        ZI_TRY(table->copy(p->run, &text, &inputs[i].context));
    }
    zi_tensor others = zi_tensor_rows(&p->x, first, p->others), image = zi_tensor_rows(&others, 0, tokens);
    ZI_TRY(embed_image(p->model, p->run, &b->latents, &image));
    if (inputs->references.data != NULL) {
        zi_tensor references = zi_tensor_rows(&others, tokens, inputs->references.shape[0]);
        ZI_TRY(table->copy(p->run, &references, &inputs->references));
    }
    for (int i = 1; i < p->passes; i++) {
        zi_tensor copy = zi_tensor_rows(&p->x, first + i * p->others, p->others);
        ZI_TRY(table->copy(p->run, &copy, &others));
    }
    return zi_end_block(p->run, &p->x, "transformer x_embedder");
}

/* From the order of double blocks to that of single blocks; place: where each pass begins. Through a copy: the places
 * overlap. */
static zimage_status order_by_pass(const passage *p, const int64_t *place)
{
    const zi_ops_table *table = zi_table(p->run);
    int64_t text = 0, others = text_of(p);
    zi_tensor copy;
    if (p->passes == 1)
        return ZIMAGE_OK;
    zi_arena_mark mark = table->mark(p->run);
    ZI_TRY(zi_alloc2(p->run, &copy, p->x.shape[0], p->x.shape[1]));
    ZI_TRY(table->copy(p->run, &copy, &p->x));
    for (int i = 0; i < p->passes; i++) {
        const zi_tensor from[] = {zi_tensor_rows(&copy, text, p->text[i]), zi_tensor_rows(&copy, others, p->others)};
        zi_tensor to[] = {zi_tensor_rows(&p->x, place[i], p->text[i]),
                          zi_tensor_rows(&p->x, place[i] + p->text[i], p->others)};
        for (int k = 0; k < 2; k++)
            ZI_TRY(table->copy(p->run, &to[k], &from[k]));
        text += p->text[i];
        others += p->others;
    }
    table->release(p->run, mark);
    return ZIMAGE_OK;
}

static zimage_status run_batch(zi_run *run, const void *user)
{
    const batch *b = user;
    const zi_flux2_dit_inputs *inputs = b->inputs;
    int64_t all = 0, place[ZI_PASSES_MAX] = {0};
    modulation mod;
    passage p = {.model = inputs->model,
                 .run = run,
                 .passes = (int)b->count,
                 .mod = &mod,
                 .others = inputs->rope.cos.shape[0] - inputs->context.shape[0],
                 .keys = inputs->keys,
                 .values = inputs->values,
                 .kept = inputs->kept};
    zi_tensor out[ZI_PASSES_MAX];
    for (int i = 0; i < p.passes; i++) {
        p.rope[i] = inputs[i].rope;
        p.text[i] = inputs[i].context.shape[0];
        place[i] = all;
        out[i] = b->out[i];
        all += tokens_of(&p, i);
    }
    ZI_TRY(modulate(p.model, run, &b->sinusoid, &mod));
    ZI_TRY(zi_end_block(run, &mod.all, "transformer modulation"));
    ZI_TRY(zi_alloc2(run, &p.x, all, p.model->config.dim));
    ZI_TRY(fill_tokens(b, &p));
    ZI_TRY(double_blocks(&p));
    ZI_TRY(order_by_pass(&p, place));
    stream images = images_of(&p, inputs->rows * inputs->columns);
    ZI_TRY(single_blocks(&p, &images));
    return final_layer(&p, &images.x, out);
}

static zimage_status start_batch(zi_run *run, batch *b, float timestep)
{
    ZI_TRY(make_sinusoid(b->inputs[0].model, run, timestep, &b->sinusoid));
    return zi_table(run)->repeat(run, b, sizeof *b, run_batch, b);
}

zimage_status zi_flux2_dit_forward_passes(const zi_flux2_dit_inputs *const *inputs, int count, zi_run *run,
                                          const zi_tensor *latents, float timestep, zi_tensor *out)
{
    batch b;
    memset(&b, 0, sizeof b); /* also what lies between the fields: it is a part of the key */
    b.count = count;
    b.latents = *latents;
    for (int i = 0; i < count; i++) {
        b.inputs[i] = *inputs[i];
        b.out[i] = out[i];
    }
    zi_arena_mark mark = zi_table(run)->mark(run);
    zimage_status status = start_batch(run, &b, timestep);
    zi_table(run)->release(run, mark);
    return status;
}

/* ---- once for a prompt, a size and references -------------------------------------------------------------------- */

zimage_status zi_flux2_dit_context(const zi_flux2_dit *model, zi_run *run, const zi_tensor *features,
                                   zi_tensor *context)
{
    ZI_TRY(zi_linear(run, context, features, model->context_embedder, NULL));
    return zi_end_block(run, context, "transformer context_embedder");
}

/* tokens [R, D] of the references, one after the other */
static zimage_status embed_references(const zi_flux2_dit *model, zi_run *run, const sequence *s, zi_tensor *tokens)
{
    const zi_ops_table *table = zi_table(run);
    int64_t first = 0;
    for (int i = 0; i < s->reference_count; i++) {
        const zi_reference *reference = &s->references[i];
        int64_t count = reference->rows * reference->columns;
        zi_tensor latents, rows = zi_tensor_rows(tokens, first, count);
        zi_arena_mark mark = table->mark(run);
        ZI_TRY(zi_alloc3_f32(run, &latents, model->config.in_channels, reference->rows, reference->columns));
        ZI_TRY(table->upload(run, &latents, reference->latents));
        ZI_TRY(embed_image(model, run, &latents, &rows));
        table->release(run, mark);
        first += count;
    }
    return zi_check_block(run, tokens, "transformer x_embedder of the references");
}

/* The references pass through the blocks, at timestep 0 and with nothing else; their keys and values stay. */
static zimage_status pass_references(const sequence *s, zi_run *run, zi_flux2_dit_inputs *inputs)
{
    const zi_flux2_dit *model = inputs->model;
    zi_tensor sinusoid;
    modulation mod;
    passage p = {.model = model,
                 .run = run,
                 .passes = 1,
                 .mod = &mod,
                 .others = inputs->kept,
                 .keys = inputs->keys,
                 .values = inputs->values,
                 .kept = inputs->kept,
                 .collects = 1};
    ZI_TRY(rope_tables(model, run, s, &p.rope[0]));
    ZI_TRY(make_sinusoid(model, run, 0, &sinusoid));
    ZI_TRY(modulate(model, run, &sinusoid, &mod));
    ZI_TRY(zi_check_block(run, &mod.all, "transformer modulation of the references"));
    ZI_TRY(zi_alloc2(run, &p.x, inputs->kept, model->config.dim));
    ZI_TRY(embed_references(model, run, s, &p.x));
    ZI_TRY(double_blocks(&p));
    stream none = images_of(&p, 0);
    return single_blocks(&p, &none);
}

static zimage_status keep_references(const sequence *s, zi_run *run, zi_flux2_dit_inputs *inputs)
{
    const zi_flux2_dit_config *config = &inputs->model->config;
    int64_t rows = (config->num_layers + config->num_single_layers) * reference_tokens(s);
    inputs->kept = reference_tokens(s);
    ZI_TRY(zi_alloc2(run, &inputs->keys, rows, config->dim));
    ZI_TRY(zi_alloc2(run, &inputs->values, rows, config->dim));
    zi_arena_mark mark = zi_table(run)->mark(run);
    zimage_status status = pass_references(s, run, inputs);
    zi_table(run)->release(run, mark);
    return status;
}

zimage_status zi_flux2_dit_prepare(const zi_flux2_dit *model, zi_run *run, const zi_tensor *context, int64_t rows,
                                   int64_t columns, const zi_flux2_references *references, zi_flux2_dit_inputs *inputs)
{
    const zi_flux2_references none = {.images = NULL}, *r = references != NULL ? references : &none;
    const sequence all = {context->shape[0], rows, columns, r->images, r->once ? 0 : r->count};
    const sequence alone = {.references = r->images, .reference_count = r->count};
    *inputs = (zi_flux2_dit_inputs){.model = model, .rows = rows, .columns = columns, .context = *context};
    ZI_TRY(rope_tables(model, run, &all, &inputs->rope));
    if (r->count <= 0)
        return ZIMAGE_OK;
    if (r->once)
        return keep_references(&alone, run, inputs);
    ZI_TRY(zi_alloc2(run, &inputs->references, reference_tokens(&all), model->config.dim));
    return embed_references(model, run, &all, &inputs->references);
}
