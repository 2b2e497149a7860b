/*
 * Several GPUs as one backend. Its operations run the ordinary CUDA table of each card (a GPU of the set):
 *
 *   Outside of `repeat` every card does the same work, so that all cards hold the same numbers. Text features and
 *   contexts cost less than sending them would.
 *   Within `repeat`, in the forward passes of a transformer, a norm divides its rows between the cards, and what
 *   follows works on the rows that a card has. Only attention needs rows of others: keys and values of the sequences
 *   that its queries see. They are sent before it (exchange.c).
 *
 * A tensor has memory for all its rows on every card. Which card has written which rows is known of each block of
 * memory (its zi_division). An operation takes the division of what it reads, and gives it to what it writes. Where
 * operands are divided in different ways, or an operation knows no rows, the rows are gathered first. So the result
 * does not depend on the order in which a network calls operations, only the time does. The code of networks does not
 * know how many cards there are.
 *
 * Operations are queued by one thread, to one card after the other. That takes longer than for one GPU, but only until
 * the forward pass is a graph for each card.
 */
#include "cuda/cards.h"

#include <assert.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/numbers.h"
#include "cuda/checks.h"
#include "cuda/internal.h"
#include "ops/shapes.h"

#define FEWEST_ROWS 8 /* for each card, or a matrix is not divided */

/* ---- operations on rows ------------------------------------------------------------------------------------------ */

typedef struct operand {
    const zi_tensor *tensor; /* NULL: none */
    int reads, writes;
} operand;

/* The rows of an operation, of which each card computes its own. */
typedef struct share {
    int card;
    zi_range rows;
} share;

typedef struct shares {
    zi_division division;
    int64_t rows;
    int count;
    share of[ZI_CARDS_MAX * ZI_RANGES_MAX];
} shares;

static void fill_shares(const zi_cards *c, shares *s)
{
    zi_range ranges[ZI_RANGES_MAX];
    s->count = 0;
    for (int k = 0; k < c->set.count; k++) {
        int count = zi_division_ranges(&s->division, s->rows, k, c->set.count, ranges);
        for (int i = 0; i < count; i++)
            s->of[s->count++] = (share){k, ranges[i]};
    }
}

/* Whether a part of the columns is written, so that the others keep their division. */
static int is_narrow(const zi_cards *c, const zi_tensor *t)
{
    return t->shape[t->dims - 1] < zi_cards_block(c, t)->columns;
}

/* The division that the operands lead to. */
static zi_division find_division(const zi_cards *c, const operand *operands, int count)
{
    zi_division d = {0};
    int64_t first;
    for (int i = 0; i < count && d.count == 0; i++)
        if (operands[i].tensor != NULL && operands[i].reads)
            d = zi_cards_division(c, operands[i].tensor);
    for (int i = 0; i < count; i++) {
        const zi_tensor *t = operands[i].tensor;
        if (t == NULL)
            continue;
        if (!zi_cards_has_rows(c, t, &first))
            return (zi_division){0};
        zi_division own = zi_cards_division(c, t);
        if (operands[i].writes && is_narrow(c, t) && own.count > 0)
            d = own;
    }
    return d;
}

/* Makes what is read fit the division. */
static zimage_status fit(zi_cards *c, const zi_run *run, const operand *operands, int count, const zi_division *d)
{
    for (int i = 0; i < count; i++) {
        const zi_tensor *t = operands[i].tensor;
        if (t == NULL || !operands[i].reads)
            continue;
        const zi_division own = zi_cards_division(c, t);
        if (d->count == 0 || (own.count > 0 && !zi_division_same(&own, d, c->set.count)))
            ZI_TRY(zi_cards_gather(c, run, t));
    }
    return ZIMAGE_OK;
}

/* What each card computes of an operation whose first operand has all its rows. */
static zimage_status begin(zi_cards *c, const zi_run *run, const operand *operands, int count, shares *s)
{
    s->rows = operands[0].tensor->shape[0];
    s->division = find_division(c, operands, count);
    ZI_TRY(fit(c, run, operands, count, &s->division));
    fill_shares(c, s);
    return ZIMAGE_OK;
}

/* What was written is divided as it was computed. */
static zimage_status finish(zi_cards *c, const zi_run *run, const operand *operands, int count, const shares *s)
{
    for (int i = 0; i < count; i++) {
        const zi_tensor *t = operands[i].tensor;
        int64_t first = 0;
        if (t == NULL || !operands[i].writes)
            continue;
        zi_block *b = zi_cards_block(c, t);
        int64_t rows = zi_cards_has_rows(c, t, &first) ? t->shape[0] : b->rows;
        if (zi_division_set(&b->division, first, rows, &s->division, c->set.count))
            continue;
        /* Too many cuts: what lies before is gathered. */
        ZI_TRY(zi_cards_gather_all(c, run, c->block_count));
        (void)zi_division_set(&b->division, first, rows, &s->division, c->set.count);
    }
    return ZIMAGE_OK;
}

/* An operation that every card computes whole. */
static zimage_status begin_whole(zi_cards *c, const zi_run *run, const operand *operands, int count)
{
    const zi_division none = {0};
    return fit(c, run, operands, count, &none);
}

static zimage_status finish_whole(zi_cards *c, const zi_run *run, const operand *operands, int count)
{
    const shares none = {.count = 0};
    return finish(c, run, operands, count, &none);
}

/* The tensor's part of a share. NULL stays NULL. */
static zi_tensor *part(const zi_cards *c, const share *s, const zi_tensor *tensor, zi_tensor *own)
{
    if (tensor == NULL)
        return NULL;
    *own = zi_cards_rows(c, s->card, tensor, s->rows);
    return own;
}

static zi_tensor *whole(const zi_cards *c, int card, const zi_tensor *tensor, zi_tensor *own)
{
    if (tensor == NULL)
        return NULL;
    *own = zi_cards_on(c, card, tensor);
    return own;
}

#define COUNT(array) ((int)(sizeof(array) / sizeof(*(array))))

/* `call`, on each card with `own` as its run and `at` as the rows that it computes. */
#define ON_SHARES(c, run, operands, call)                                                                              \
    do {                                                                                                               \
        shares shares_;                                                                                                \
        ZI_TRY(begin(c, run, operands, COUNT(operands), &shares_));                                                    \
        for (int i_ = 0; i_ < shares_.count; i_++) {                                                                   \
            const share *at = &shares_.of[i_];                                                                         \
            zi_run own = zi_cards_run(c, at->card, run);                                                               \
            ZI_TRY(call);                                                                                              \
        }                                                                                                              \
        return finish(c, run, operands, COUNT(operands), &shares_);                                                    \
    } while (0)

/* The same whole on each card, `k`. */
#define ON_CARDS(c, run, operands, call)                                                                               \
    do {                                                                                                               \
        ZI_TRY(begin_whole(c, run, operands, COUNT(operands)));                                                        \
        for (int k = 0; k < (c)->set.count; k++) {                                                                     \
            zi_run own = zi_cards_run(c, k, run);                                                                      \
            ZI_TRY(call);                                                                                              \
        }                                                                                                              \
        return finish_whole(c, run, operands, COUNT(operands));                                                        \
    } while (0)

/* ---- moving ------------------------------------------------------------------------------------------------------ */

static zimage_status cards_upload(zi_run *run, zi_tensor *dst, const float *src)
{
    zi_cards *c = zi_cards_state(run->ops);
    const operand operands[] = {{dst, 0, 1}};
    zi_tensor t;
    ON_CARDS(c, run, operands, zi_table(&own)->upload(&own, whole(c, k, dst, &t), src));
}

/* Waits for all cards, so that each has read the flags of its checks. */
static zimage_status cards_finish(zi_run *run)
{
    zi_cards *c = zi_cards_state(run->ops);
    for (int k = 0; k < c->set.count; k++) {
        zi_run own = zi_cards_run(c, k, run);
        ZI_TRY(zi_table(&own)->finish(&own));
    }
    return ZIMAGE_OK;
}

static zimage_status cards_download(zi_run *run, float *dst, const zi_tensor *src)
{
    zi_cards *c = zi_cards_state(run->ops);
    zi_run own = zi_cards_run(c, 0, run);
    ZI_TRY(zi_cards_gather(c, run, src));
    ZI_TRY(zi_table(&own)->download(&own, dst, src));
    return cards_finish(run);
}

static zimage_status cards_download_rgb8(zi_run *run, uint8_t *dst, const zi_tensor *src)
{
    zi_cards *c = zi_cards_state(run->ops);
    zi_run own = zi_cards_run(c, 0, run);
    ZI_TRY(zi_cards_gather(c, run, src));
    ZI_TRY(zi_table(&own)->download_rgb8(&own, dst, src));
    return cards_finish(run);
}

static zimage_status cards_copy(zi_run *run, zi_tensor *dst, const zi_tensor *src)
{
    zi_cards *c = zi_cards_state(run->ops);
    const operand operands[] = {{src, 1, 0}, {dst, 0, 1}};
    zi_tensor to, from;
    int64_t row;
    int by_rows = zi_cards_has_rows(c, dst, &row) && zi_cards_has_rows(c, src, &row) && dst->shape[0] == src->shape[0];
    if (by_rows)
        ON_SHARES(c, run, operands, zi_table(&own)->copy(&own, part(c, at, dst, &to), part(c, at, src, &from)));
    ON_CARDS(c, run, operands, zi_table(&own)->copy(&own, whole(c, k, dst, &to), whole(c, k, src, &from)));
}

static zimage_status cards_embed_rows(zi_run *run, zi_tensor *y, const zi_weight *table, const int32_t *ids)
{
    zi_cards *c = zi_cards_state(run->ops);
    const operand operands[] = {{y, 0, 1}};
    zi_tensor t;
    ON_CARDS(c, run, operands, zi_table(&own)->embed_rows(&own, whole(c, k, y, &t), table, ids));
}

/* ---- sequences --------------------------------------------------------------------------------------------------- */

static zimage_status cards_linear(zi_run *run, zi_tensor *y, const zi_tensor *x, const zi_weight *weight,
                                  const zi_weight *bias, int accumulate)
{
    zi_cards *c = zi_cards_state(run->ops);
    const operand operands[] = {{x, 1, 0}, {y, accumulate, 1}};
    zi_tensor out, in;
    ON_SHARES(c, run, operands,
              zi_table(&own)->linear(&own, part(c, at, y, &out), part(c, at, x, &in), weight, bias, accumulate));
}

static zimage_status cards_linears(zi_run *run, int count, zi_tensor *y, const zi_tensor *x,
                                   const zi_weight *const *weights)
{
    zi_cards *c = zi_cards_state(run->ops);
    operand operands[1 + ZI_LINEARS_MAX] = {{x, 1, 0}};
    zi_tensor in;
    for (int i = 0; i < count; i++)
        operands[1 + i] = (operand){&y[i], 0, 1};
    shares s;
    ZI_TRY(begin(c, run, operands, 1 + count, &s));
    for (int i = 0; i < s.count; i++) {
        zi_run own = zi_cards_run(c, s.of[i].card, run);
        zi_tensor out[ZI_LINEARS_MAX];
        for (int k = 0; k < count; k++)
            (void)part(c, &s.of[i], &y[k], &out[k]);
        ZI_TRY(zi_table(&own)->linears(&own, count, out, part(c, &s.of[i], x, &in), weights));
    }
    return finish(c, run, operands, 1 + count, &s);
}

static zimage_status cards_linear_glu(zi_run *run, zi_tensor *y, const zi_tensor *x, const zi_weight *w1,
                                      const zi_weight *w3)
{
    zi_cards *c = zi_cards_state(run->ops);
    const operand operands[] = {{x, 1, 0}, {y, 0, 1}};
    zi_tensor out, in;
    ON_SHARES(c, run, operands, zi_table(&own)->linear_glu(&own, part(c, at, y, &out), part(c, at, x, &in), w1, w3));
}

static zimage_status cards_silu(zi_run *run, zi_tensor *y, const zi_tensor *x)
{
    zi_cards *c = zi_cards_state(run->ops);
    const operand operands[] = {{x, 1, 0}, {y, 0, 1}};
    zi_tensor out, in;
    ON_SHARES(c, run, operands, zi_table(&own)->silu(&own, part(c, at, y, &out), part(c, at, x, &in)));
}

/* A norm on a card: its vectors are the same on all cards, and have an address on each. */
typedef struct norm_on {
    zi_norm norm;
    zi_tensor scale, shift;
} norm_on;

static const zi_norm *norm_of(const zi_cards *c, int card, const zi_norm *norm, norm_on *own)
{
    if (norm == NULL)
        return NULL;
    own->norm = *norm;
    own->norm.scale = whole(c, card, norm->scale, &own->scale);
    own->norm.shift = whole(c, card, norm->shift, &own->shift);
    return &own->norm;
}

/* Makes x one cut of all its rows, where it is a matrix of enough rows: it was written in parts, or whole. */
static zimage_status divide(zi_cards *c, const zi_run *run, const zi_tensor *x, const zi_tensor *y)
{
    zi_block *b = zi_cards_block(c, x);
    const zi_division before = zi_cards_division(c, x);
    int64_t first, rows = x->shape[0];
    if (!c->divides || !zi_cards_has_rows(c, y, &first) || !zi_cards_has_rows(c, x, &first) || is_narrow(c, x) ||
        rows < FEWEST_ROWS * c->set.count || zi_division_is_whole(&before, rows, c->set.count))
        return ZIMAGE_OK;
    ZI_TRY(zi_cards_gather(c, run, x));
    const zi_division even = zi_division_even(rows, c->set.count, &before);
    (void)zi_division_set(&b->division, first, rows, &even, c->set.count); /* without room it stays whole */
    return ZIMAGE_OK;
}

static zimage_status cards_norm(zi_run *run, zi_tensor *y, const zi_tensor *x, const zi_norm *norm)
{
    zi_cards *c = zi_cards_state(run->ops);
    const operand operands[] = {{x, 1, 0}, {y, 0, 1}};
    zi_tensor out, in;
    norm_on on;
    ZI_TRY(divide(c, run, x, y));
    ON_SHARES(c, run, operands,
              zi_table(&own)->norm(&own, part(c, at, y, &out), part(c, at, x, &in), norm_of(c, at->card, norm, &on)));
}

/* On one card, the rows of a share. */
static zimage_status residual_on(const zi_cards *c, zi_run *own, const share *at, const zi_tensor *x,
                                 const zi_tensor *y, const zi_tensor *h, const zi_residual *residual)
{
    zi_tensor x_part, y_part, h_part, gate;
    norm_on post, next;
    int finite = 1;
    const zi_residual mine = {.post = norm_of(c, at->card, residual->post, &post),
                              .gate = whole(c, at->card, residual->gate, &gate),
                              .next = norm_of(c, at->card, residual->next, &next),
                              .finite = residual->finite != NULL ? &finite : NULL};
    return zi_table(own)->residual(own, part(c, at, x, &x_part), part(c, at, y, &y_part), part(c, at, h, &h_part),
                                   &mine);
}

/* Whether x is finite is known later, by name (zi_op_check_finite). */
static zimage_status cards_residual(zi_run *run, zi_tensor *x, const zi_tensor *y, zi_tensor *h,
                                    const zi_residual *residual)
{
    zi_cards *c = zi_cards_state(run->ops);
    const operand operands[] = {{y, 1, 0}, {x, 1, 1}, {h, 0, 1}};
    if (residual->finite != NULL)
        *residual->finite = 1;
    ON_SHARES(c, run, operands, residual_on(c, &own, at, x, y, h, residual));
}

static zimage_status cards_rope_table(zi_run *run, zi_tensor *cos, zi_tensor *sin, const float *angles)
{
    zi_cards *c = zi_cards_state(run->ops);
    const operand operands[] = {{cos, 0, 1}, {sin, 0, 1}};
    zi_tensor a, b;
    ON_CARDS(c, run, operands, zi_table(&own)->rope_table(&own, whole(c, k, cos, &a), whole(c, k, sin, &b), angles));
}

static zimage_status rotate_on(const zi_cards *c, zi_run *own, const share *at, const zi_tensor *x,
                               const zi_qk_norm_rope *args)
{
    zi_tensor q, k, cos, sin;
    zi_qk_norm_rope mine = *args;
    mine.cos = part(c, at, args->cos, &cos);
    mine.sin = part(c, at, args->sin, &sin);
    mine.k = part(c, at, args->k, &k);
    return zi_table(own)->qk_norm_rope(own, part(c, at, x, &q), &mine);
}

static zimage_status cards_qk_norm_rope(zi_run *run, zi_tensor *x, const zi_qk_norm_rope *args)
{
    zi_cards *c = zi_cards_state(run->ops);
    const operand operands[] = {{x, 1, 1}, {args->k, 1, 1}, {args->cos, 1, 0}, {args->sin, 1, 0}};
    ON_SHARES(c, run, operands, rotate_on(c, &own, at, x, args));
}

static zimage_status cards_modulation(zi_run *run, zi_tensor *m, int parts, const zi_modulation *kinds)
{
    zi_cards *c = zi_cards_state(run->ops);
    const operand operands[] = {{m, 1, 1}};
    zi_tensor t;
    ON_CARDS(c, run, operands, zi_table(&own)->modulation(&own, whole(c, k, m, &t), parts, kinds));
}

static zimage_status cards_patchify(zi_run *run, zi_tensor *tokens, const zi_tensor *latents, int64_t patch,
                                    zi_patch_order order)
{
    zi_cards *c = zi_cards_state(run->ops);
    const operand operands[] = {{latents, 1, 0}, {tokens, 0, 1}};
    zi_tensor a, b;
    ON_CARDS(c, run, operands,
             zi_table(&own)->patchify(&own, whole(c, k, tokens, &a), whole(c, k, latents, &b), patch, order));
}

static zimage_status cards_unpatchify(zi_run *run, zi_tensor *latents, const zi_tensor *tokens, int64_t patch,
                                      zi_patch_order order)
{
    zi_cards *c = zi_cards_state(run->ops);
    const operand operands[] = {{tokens, 1, 0}, {latents, 0, 1}};
    zi_tensor a, b;
    ON_CARDS(c, run, operands,
             zi_table(&own)->unpatchify(&own, whole(c, k, latents, &a), whole(c, k, tokens, &b), patch, order));
}

/* ---- attention --------------------------------------------------------------------------------------------------- */

/* The tensors of an attention; s: how its queries are divided. */
typedef struct attended {
    const zi_tensor *o, *q, *k, *v;
    const zi_attention *args;
    shares s;
} attended;

static zi_range common(zi_range a, int64_t first, int64_t count)
{
    int64_t begin = a.first > first ? a.first : first;
    int64_t end = zi_min_int64(a.first + a.count, first + count);
    return (zi_range){begin, end > begin ? end - begin : 0};
}

/* Keys and values go to the cards that have queries of their sequence. */
static zimage_status send_keys(zi_cards *c, const zi_run *run, const attended *a)
{
    zi_cards_exchange_begin(c);
    for (int i = 0; i < zi_sequence_count(a->args); i++) {
        const zi_sequence rows = zi_sequence_of(a->args, a->q, a->k, i);
        unsigned needing = 0;
        for (int k = 0; k < a->s.count; k++)
            if (common(a->s.of[k].rows, rows.query, rows.queries).count > 0)
                needing |= 1u << a->s.of[k].card;
        zi_cards_exchange(c, a->k, (zi_range){rows.key, rows.keys}, needing);
        zi_cards_exchange(c, a->v, (zi_range){rows.key, rows.keys}, needing);
    }
    return zi_cards_exchange_end(c, run);
}

/* The queries of one sequence in a share. */
static zimage_status attend(const zi_cards *c, const zi_run *run, const attended *a, const share *at, int sequence)
{
    const zi_sequence rows = zi_sequence_of(a->args, a->q, a->k, sequence);
    zi_run own = zi_cards_run(c, at->card, run);
    const share queries = {at->card, common(at->rows, rows.query, rows.queries)};
    const share keys = {at->card, {rows.key, rows.keys}};
    zi_tensor o, q, k, v;
    zi_attention alone = *a->args;
    alone.sequences = 0;
    if (queries.rows.count == 0)
        return ZIMAGE_OK;
    return zi_table(&own)->attention(&own, part(c, &queries, a->o, &o), part(c, &queries, a->q, &q),
                                     part(c, &keys, a->k, &k), part(c, &keys, a->v, &v), &alone);
}

static zimage_status attend_whole(zi_cards *c, const zi_run *run, const attended *a)
{
    const operand operands[] = {{a->q, 1, 0}, {a->k, 1, 0}, {a->v, 1, 0}, {a->o, 0, 1}};
    zi_tensor o, q, keys, values;
    ON_CARDS(c, run, operands,
             zi_table(&own)->attention(&own, whole(c, k, a->o, &o), whole(c, k, a->q, &q), whole(c, k, a->k, &keys),
                                       whole(c, k, a->v, &values), a->args));
}

static zimage_status cards_attention(zi_run *run, zi_tensor *o, const zi_tensor *q, const zi_tensor *k,
                                     const zi_tensor *v, const zi_attention *attention)
{
    zi_cards *c = zi_cards_state(run->ops);
    const operand operands[] = {{q, 1, 0}, {o, 0, 1}};
    attended a = {.o = o, .q = q, .k = k, .v = v, .args = attention};
    int64_t first;
    if (attention->causal || !zi_cards_has_rows(c, k, &first) || !zi_cards_has_rows(c, v, &first))
        return attend_whole(c, run, &a);
    ZI_TRY(begin(c, run, operands, COUNT(operands), &a.s));
    if (a.s.division.count == 0)
        return attend_whole(c, run, &a);
    ZI_TRY(send_keys(c, run, &a));
    for (int i = 0; i < a.s.count; i++)
        for (int sequence = 0; sequence < zi_sequence_count(attention); sequence++)
            ZI_TRY(attend(c, run, &a, &a.s.of[i], sequence));
    return finish(c, run, operands, COUNT(operands), &a.s);
}

/* ---- images ------------------------------------------------------------------------------------------------------ */

static const zi_channel_affine *affine_of(const zi_cards *c, int card, const zi_channel_affine *affine,
                                          zi_channel_affine *own)
{
    if (affine == NULL)
        return NULL;
    own->scale = zi_cards_on(c, card, &affine->scale);
    own->shift = zi_cards_on(c, card, &affine->shift);
    return own;
}

static zimage_status convolve_on(const zi_cards *c, zi_run *own, int card, const zi_tensor *y, const zi_tensor *x,
                                 const zi_conv *conv)
{
    zi_tensor out, in;
    zi_channel_affine affine;
    zi_conv mine = *conv;
    mine.affine = affine_of(c, card, conv->affine, &affine);
    return zi_table(own)->conv2d(own, whole(c, card, y, &out), whole(c, card, x, &in), &mine);
}

static zimage_status cards_conv2d(zi_run *run, zi_tensor *y, const zi_tensor *x, const zi_conv *conv)
{
    zi_cards *c = zi_cards_state(run->ops);
    const operand operands[] = {{x, 1, 0}, {y, conv->accumulate, 1}};
    ON_CARDS(c, run, operands, convolve_on(c, &own, k, y, x, conv));
}

static zimage_status cards_group_norm_sums(zi_run *run, zi_tensor *sums, const zi_tensor *x, int accumulate)
{
    zi_cards *c = zi_cards_state(run->ops);
    const operand operands[] = {{x, 1, 0}, {sums, accumulate, 1}};
    zi_tensor a, b;
    ON_CARDS(c, run, operands,
             zi_table(&own)->group_norm_sums(&own, whole(c, k, sums, &a), whole(c, k, x, &b), accumulate));
}

static zimage_status fold_on(const zi_cards *c, zi_run *own, int card, const zi_channel_affine *affine,
                             const zi_tensor *sums, int64_t count, const zi_weight *w, const zi_weight *b, float eps)
{
    zi_channel_affine mine;
    zi_tensor t;
    (void)affine_of(c, card, affine, &mine);
    return zi_table(own)->group_norm_fold(own, &mine, whole(c, card, sums, &t), count, w, b, eps);
}

static zimage_status cards_group_norm_fold(zi_run *run, zi_channel_affine *affine, const zi_tensor *sums, int64_t count,
                                           const zi_weight *w, const zi_weight *b, float eps)
{
    zi_cards *c = zi_cards_state(run->ops);
    const operand operands[] = {{sums, 1, 0}, {&affine->scale, 0, 1}, {&affine->shift, 0, 1}};
    ON_CARDS(c, run, operands, fold_on(c, &own, k, affine, sums, count, w, b, eps));
}

static zimage_status cards_channel_affine(zi_run *run, zi_tensor *y, const zi_tensor *x,
                                          const zi_channel_affine *affine)
{
    zi_cards *c = zi_cards_state(run->ops);
    const operand operands[] = {{x, 1, 0}, {y, 0, 1}};
    zi_channel_affine mine;
    zi_tensor a, b;
    ON_CARDS(
        c, run, operands,
        zi_table(&own)->channel_affine(&own, whole(c, k, y, &a), whole(c, k, x, &b), affine_of(c, k, affine, &mine)));
}

/* ---- checks and recording ---------------------------------------------------------------------------------------- */

static zimage_status cards_check_finite(zi_run *run, const zi_tensor *x, int *finite)
{
    zi_cards *c = zi_cards_state(run->ops);
    const operand operands[] = {{x, 1, 0}};
    zi_tensor t;
    *finite = 1;
    ON_SHARES(c, run, operands, zi_table(&own)->check_finite(&own, part(c, at, x, &t), finite));
}

static zimage_status cards_name_check(zi_run *run, const char *name)
{
    zi_cards *c = zi_cards_state(run->ops);
    for (int k = 0; k < c->set.count; k++) {
        zi_run own = zi_cards_run(c, k, run);
        ZI_TRY(zi_table(&own)->name_check(&own, name));
    }
    return ZIMAGE_OK;
}

typedef struct divided_work {
    zi_work_fn *work;
    const void *user;
} divided_work;

/* Norms divide rows. Afterwards every card has what outlives the work. */
static zimage_status run_divided(zi_run *run, const void *user)
{
    zi_cards *c = zi_cards_state(run->ops);
    const divided_work *w = user;
    int before = c->block_count;
    c->divides = 1;
    zimage_status status = w->work(run, w->user);
    c->divides = 0;
    if (status == ZIMAGE_OK)
        status = zi_cards_gather_all(c, run, before);
    for (int i = 0; i < c->block_count; i++)
        c->blocks[i].division.count = 0;
    return status;
}

/* Exchanges of two sessions on the same cards could wait for each other, each on one card. So one session at a time has
 * work queued that exchanges rows. */
static pthread_mutex_t exchanging = PTHREAD_MUTEX_INITIALIZER;

static zimage_status repeat_alone(zi_cards *c, const zi_cuda_work_item *item)
{
    zimage_status status = zi_cuda_repeat(&c->set, item);
    for (int k = 0; k < c->set.count && !c->ops.rehearsing; k++) {
        zi_cuda *cuda = c->set.cards[k];
        zi_cuda_make_current(cuda);
        cudaError_t code = cudaStreamSynchronize(cuda->stream); /* also after a failure */
        if (status == ZIMAGE_OK)
            status = zi_cuda_result(cuda, code, "the work on the GPU");
    }
    return status;
}

static zimage_status cards_repeat(zi_run *run, const void *key, size_t size, zi_work_fn *work, const void *user)
{
    const divided_work divided = {work, user};
    const zi_cuda_work_item item = {run, key, size, run_divided, &divided};
    pthread_mutex_lock(&exchanging);
    zimage_status status = repeat_alone(zi_cards_state(run->ops), &item);
    pthread_mutex_unlock(&exchanging);
    return status;
}

/* ---- planning memory --------------------------------------------------------------------------------------------- */

static zimage_status cards_rehearse_begin(zi_run *run)
{
    zi_cards *c = zi_cards_state(run->ops);
    assert(c->block_count == 0);
    for (int k = 0; k < c->set.count; k++) {
        zi_run own = zi_cards_run(c, k, run);
        ZI_TRY(zi_table(&own)->rehearse_begin(&own));
    }
    c->ops.rehearsing = 1;
    return ZIMAGE_OK;
}

/* All cards have stacks of one size. */
static zimage_status cards_rehearse_stage(zi_run *run, int stage, size_t *peak)
{
    zi_cards *c = zi_cards_state(run->ops);
    *peak = 0;
    for (int k = 0; k < c->set.count; k++) {
        zi_run own = zi_cards_run(c, k, run);
        size_t on_card;
        ZI_TRY(zi_table(&own)->rehearse_stage(&own, stage, &on_card));
        *peak = zi_max_size(*peak, on_card);
    }
    return ZIMAGE_OK;
}

static void cards_rehearse_end(zi_run *run)
{
    zi_cards *c = zi_cards_state(run->ops);
    for (int k = 0; k < c->set.count; k++) {
        zi_run own = zi_cards_run(c, k, run);
        zi_table(&own)->rehearse_end(&own);
    }
    c->ops.rehearsing = c->divides = c->block_count = 0;
}

/* *plan: of the card with the least room. */
static zimage_status cards_arrange(zi_run *run, const zi_stage_runs *runs, int count, size_t activations, uint64_t host,
                                   int commit, zi_memory_plan *plan)
{
    zi_cards *c = zi_cards_state(run->ops);
    for (int k = 0; k < c->set.count; k++) {
        zi_run own = zi_cards_run(c, k, run);
        zi_memory_plan on_card;
        zimage_status status = zi_table(&own)->arrange(&own, runs, count, activations, host, commit, &on_card);
        if (k == 0 || status != ZIMAGE_OK || on_card.limit - on_card.total < plan->limit - plan->total)
            *plan = on_card;
        ZI_TRY(status);
    }
    return ZIMAGE_OK;
}

static zimage_status cards_forget_weights(zi_run *run)
{
    zi_cards *c = zi_cards_state(run->ops);
    for (int k = 0; k < c->set.count; k++) {
        zi_run own = zi_cards_run(c, k, run);
        ZI_TRY(zi_table(&own)->forget_weights(&own));
    }
    return ZIMAGE_OK;
}

/* ---- the table --------------------------------------------------------------------------------------------------- */

/* "cuda x2 bf16 NVIDIA H200" */
static void cards_describe(const zi_ops *ops, char *text, size_t size)
{
    const zi_cards *c = zi_cards_state(ops);
    const zi_ops *first = &c->set.cards[0]->ops;
    char one[128];
    first->table->describe(first, one, sizeof(one));
    const char *rest = strchr(one, ' ');
    snprintf(text, size, "cuda x%d%s", c->set.count, rest != NULL ? rest : "");
}

static double cards_peak_rate(zi_run *run)
{
    const zi_cards *c = zi_cards_state(run->ops);
    zi_run own = zi_cards_run(c, 0, run);
    return c->set.count * zi_table(&own)->peak_rate(&own);
}

static size_t cards_peak_bytes(const zi_ops *ops)
{
    const zi_cards *c = zi_cards_state(ops);
    size_t most = 0;
    for (int k = 0; k < c->set.count; k++)
        most = zi_max_size(most, c->set.cards[k]->stack.peak);
    return most;
}

/* Of the card that uses most. */
static size_t cards_device_bytes(zi_ops *ops)
{
    const zi_cards *c = zi_cards_state(ops);
    size_t most = 0;
    for (int k = 0; k < c->set.count; k++) {
        zi_ops *card = &c->set.cards[k]->ops;
        most = zi_max_size(most, card->table->device_bytes(card));
    }
    return most;
}

static size_t cards_whole_image_bytes(const zi_ops *ops)
{
    const zi_cards *c = zi_cards_state(ops);
    size_t least = SIZE_MAX;
    for (int k = 0; k < c->set.count; k++)
        least = zi_min_size(least, c->set.cards[k]->whole_image);
    return least;
}

/* Two cards then compute a pass each, and need nothing of each other. */
static zi_batch cards_suits_batch(const zi_ops *ops, int64_t fewest, int64_t most)
{
    return ZI_BATCH_ALWAYS;
}

static zi_graph_info cards_graph_info(zi_ops *ops)
{
    return (zi_graph_info){0};
}

static void cards_free(zi_ops *ops)
{
    if (ops == NULL)
        return;
    zi_cards *c = zi_cards_state(ops);
    for (int k = c->set.count; k-- > 0;) {
        zi_run own = {.ops = &c->set.cards[k]->ops};
        (void)zi_table(&own)->finish(&own);
    }
    for (int k = c->set.count; k-- > 0;)
        zi_cuda_recordings_free(c->set.cards[k]);
    zi_nccl_close(&c->nccl);
    for (int k = c->set.count; k-- > 0;)
        c->set.cards[k]->ops.table->free(&c->set.cards[k]->ops);
    free(c->blocks);
    free(c);
}

static const zi_ops_table cards_table = {
    .name = "cuda",
    .memory = ZI_MEMORY_DEVICE,
    .alloc = zi_cards_alloc,
    .alloc_f32 = zi_cards_alloc_f32,
    .alloc_operand = zi_cards_alloc_operand,
    .alloc_operand_parts = zi_cards_alloc_operand_parts,
    .mark = zi_cards_mark,
    .release = zi_cards_release,
    .upload = cards_upload,
    .download = cards_download,
    .download_rgb8 = cards_download_rgb8,
    .copy = cards_copy,
    .embed_rows = cards_embed_rows,
    .linear = cards_linear,
    .linears = cards_linears,
    .linear_glu = cards_linear_glu,
    .silu = cards_silu,
    .norm = cards_norm,
    .residual = cards_residual,
    .rope_table = cards_rope_table,
    .qk_norm_rope = cards_qk_norm_rope,
    .attention = cards_attention,
    .modulation = cards_modulation,
    .patchify = cards_patchify,
    .unpatchify = cards_unpatchify,
    .conv2d = cards_conv2d,
    .group_norm_sums = cards_group_norm_sums,
    .group_norm_fold = cards_group_norm_fold,
    .channel_affine = cards_channel_affine,
    .check_finite = cards_check_finite,
    .name_check = cards_name_check,
    .finish = cards_finish,
    .repeat = cards_repeat,
    .rehearse_begin = cards_rehearse_begin,
    .rehearse_stage = cards_rehearse_stage,
    .rehearse_end = cards_rehearse_end,
    .arrange = cards_arrange,
    .forget_weights = cards_forget_weights,
    .describe = cards_describe,
    .peak_rate = cards_peak_rate,
    .peak_bytes = cards_peak_bytes,
    .device_bytes = cards_device_bytes,
    .whole_image_bytes = cards_whole_image_bytes,
    .suits_batch = cards_suits_batch,
    .graph_info = cards_graph_info,
    .free = cards_free,
};

/* ---- opening ----------------------------------------------------------------------------------------------------- */

/* "0,2,3": numbers in a row, none of them twice. */
static zimage_status read_devices(const char *text, int devices[ZI_CARDS_MAX], int *count, zimage_error *error)
{
    const char *rest = text;
    for (*count = 0; *count < ZI_CARDS_MAX; rest++) {
        char *end;
        long device = strtol(rest, &end, 10);
        if (*rest < '0' || *rest > '9' || device > INT16_MAX)
            break;
        for (int i = 0; i < *count; i++)
            if (devices[i] == device)
                return zi_fail(error, ZIMAGE_ERROR_ARGUMENT, "device: \"cuda:%s\", expected each GPU once", text);
        devices[(*count)++] = (int)device;
        rest = end;
        if (!*rest)
            return ZIMAGE_OK;
        if (*rest != ',')
            break;
    }
    return zi_fail(error, ZIMAGE_ERROR_ARGUMENT,
                   "device: \"cuda:%s\", expected 1 to %d numbers of GPUs, as in cuda:0,1", text, ZI_CARDS_MAX);
}

static zimage_status open_card(zi_cards *c, const zi_cuda_options *options, int device, zimage_error *error)
{
    zi_cuda_options own = *options;
    zi_ops *ops;
    own.devices = NULL;
    own.device = device;
    ZI_TRY(zi_ops_cuda_new(&own, &ops, error));
    zi_cuda *cuda = zi_cuda_state(ops), *first = c->set.cards[0];
    c->set.cards[c->set.count++] = cuda;
    if (c->set.count > 1 && strcmp(cuda->name, first->name) != 0)
        return zi_fail(error, ZIMAGE_ERROR_UNSUPPORTED,
                       "device: cuda:%d is an %s, cuda:%d an %s, expected GPUs of one model: the slowest would hold up "
                       "the others",
                       first->device, first->name, device, cuda->name);
    return ZIMAGE_OK;
}

/* Sends a few bytes from each card to each other: NCCL takes the memory for its connections now, before plans are
 * made of what is free. */
static zimage_status connect_cards(zi_cards *c, zimage_error *error)
{
    const size_t bytes = 256;
    zi_nccl_begin(&c->nccl);
    for (int from = 0; from < c->set.count; from++)
        for (int to = 0; to < c->set.count; to++) {
            const zi_cuda *a = c->set.cards[from], *b = c->set.cards[to];
            if (from == to)
                continue;
            zi_nccl_send(&c->nccl, from, to, (uint8_t *)a->workspace + bytes * (size_t)from, bytes, a->stream);
            zi_nccl_receive(&c->nccl, to, from, (uint8_t *)b->workspace + bytes * (size_t)from, bytes, b->stream);
        }
    ZI_TRY(zi_nccl_end(&c->nccl, error));
    return cards_finish(&(zi_run){.ops = &c->ops, .error = error});
}

static zimage_status open_cards(zi_cards *c, const zi_cuda_options *options, zimage_error *error)
{
    int devices[ZI_CARDS_MAX] = {0}, count;
    ZI_TRY(read_devices(options->devices, devices, &count, error));
    snprintf(c->name, sizeof(c->name), "cuda:%s", options->devices);
    for (int i = 0; i < count; i++)
        ZI_TRY(open_card(c, options, devices[i], error));
    pthread_mutex_lock(&exchanging);
    zimage_status status = zi_nccl_open(&c->nccl, devices, count, error);
    if (status == ZIMAGE_OK)
        status = connect_cards(c, error);
    pthread_mutex_unlock(&exchanging);
    return status;
}

zimage_status zi_cards_new(const zi_cuda_options *options, zi_ops **ops, zimage_error *error)
{
    *ops = NULL;
    zi_cards *c = calloc(1, sizeof(*c));
    if (c == NULL)
        return zi_fail_memory(error, "the operations table", sizeof(*c));
    c->ops.table = &cards_table;
    zimage_status status = open_cards(c, options, error);
    if (status != ZIMAGE_OK) {
        cards_free(&c->ops);
        return status;
    }
    *ops = &c->ops;
    return ZIMAGE_OK;
}
