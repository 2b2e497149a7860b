/* Operations on sequences on several GPUs (cards.c). */
#include "cuda/spread.h"
#include "ops/shapes.h"

#define FEWEST_ROWS 8 /* for each card, or a matrix is not divided */

/* ---- moving ------------------------------------------------------------------------------------------------------ */

zimage_status zi_cards_upload(zi_run *run, zi_tensor *dst, const float *src)
{
    ON_ALL(run, s.table->upload(&s.own, s.t[0], src), WRITES(dst));
}

zimage_status zi_cards_copy(zi_run *run, zi_tensor *dst, const zi_tensor *src)
{
    const zi_cards *c = zi_cards_state(run->ops);
    zi_range place;
    if (zi_cards_place(c, dst, &place) && zi_cards_place(c, src, &place) && dst->shape[0] == src->shape[0])
        ON_ROWS(run, s.table->copy(&s.own, s.t[1], s.t[0]), READS(src), WRITES(dst));
    ON_ALL(run, s.table->copy(&s.own, s.t[1], s.t[0]), READS(src), WRITES(dst));
}

zimage_status zi_cards_embed_rows(zi_run *run, zi_tensor *y, const zi_weight *table, const int32_t *ids)
{
    ON_ALL(run, s.table->embed_rows(&s.own, s.t[0], table, ids), WRITES(y));
}

zimage_status zi_cards_rope_table(zi_run *run, zi_tensor *cos, zi_tensor *sin, const float *angles)
{
    ON_ALL(run, s.table->rope_table(&s.own, s.t[0], s.t[1], angles), WRITES(cos), WRITES(sin));
}

zimage_status zi_cards_modulation(zi_run *run, zi_tensor *m, int parts, const zi_modulation *kinds)
{
    ON_ALL(run, s.table->modulation(&s.own, s.t[0], parts, kinds), CHANGES(m));
}

zimage_status zi_cards_patchify(zi_run *run, zi_tensor *tokens, const zi_tensor *latents, int64_t patch,
                                zi_patch_order order)
{
    ON_ALL(run, s.table->patchify(&s.own, s.t[1], s.t[0], patch, order), READS(latents), WRITES(tokens));
}

zimage_status zi_cards_unpatchify(zi_run *run, zi_tensor *latents, const zi_tensor *tokens, int64_t patch,
                                  zi_patch_order order)
{
    ON_ALL(run, s.table->unpatchify(&s.own, s.t[1], s.t[0], patch, order), READS(tokens), WRITES(latents));
}

/* ---- rows -------------------------------------------------------------------------------------------------------- */

zimage_status zi_cards_linear(zi_run *run, zi_tensor *y, const zi_tensor *x, const zi_weight *weight,
                              const zi_weight *bias, int accumulate)
{
    ON_ROWS(run, s.table->linear(&s.own, s.t[1], s.t[0], weight, bias, accumulate), READS(x), ADDS(y, accumulate));
}

zimage_status zi_cards_linears(zi_run *run, int count, zi_tensor *y, const zi_tensor *x,
                               const zi_weight *const *weights)
{
    zi_operand operands[1 + ZI_LINEARS_MAX] = {READS(x)};
    zi_spread s;
    for (int i = 0; i < count; i++)
        operands[1 + i] = (zi_operand)WRITES(&y[i]);
    ZI_TRY(zi_spread_rows(&s, run, operands, 1 + count));
    while (zi_spread_next(&s))
        ZI_TRY(s.table->linears(&s.own, count, s.t[1], s.t[0], weights)); /* the parts of y lie side by side */
    return zi_spread_end(&s);
}

zimage_status zi_cards_linear_glu(zi_run *run, zi_tensor *y, const zi_tensor *x, const zi_weight *w1,
                                  const zi_weight *w3)
{
    ON_ROWS(run, s.table->linear_glu(&s.own, s.t[1], s.t[0], w1, w3), READS(x), WRITES(y));
}

zimage_status zi_cards_silu(zi_run *run, zi_tensor *y, const zi_tensor *x)
{
    ON_ROWS(run, s.table->silu(&s.own, s.t[1], s.t[0]), READS(x), WRITES(y));
}

/* Makes x one cut of all its rows, where it is a matrix of enough rows: it was written in parts, or whole. */
static zimage_status divide(zi_cards *c, const zi_run *run, const zi_tensor *x, const zi_tensor *y)
{
    zi_division before, other;
    int64_t rows = x->shape[0];
    if (!c->divides || x->dims != 2 || !zi_cards_division(c, y, &other) || !zi_cards_division(c, x, &before) ||
        zi_cards_is_narrow(c, x) || rows < FEWEST_ROWS * c->set.count ||
        zi_division_is_whole(&before, rows, c->set.count))
        return ZIMAGE_OK;
    ZI_TRY(zi_cards_gather(c, run, x));
    const zi_division even = zi_division_even(rows, c->set.count, &before);
    return zi_cards_written(c, run, x, &even);
}

/* The norm with its vectors on the present card. */
static zi_norm norm_on(const zi_norm *norm, const zi_tensor *scale, const zi_tensor *shift)
{
    zi_norm own = *norm;
    own.scale = scale;
    own.shift = shift;
    return own;
}

static zimage_status norm_rows(zi_spread *s, const zi_norm *norm)
{
    const zi_norm own = norm_on(norm, s->t[2], s->t[3]);
    return s->table->norm(&s->own, s->t[1], s->t[0], &own);
}

zimage_status zi_cards_norm(zi_run *run, zi_tensor *y, const zi_tensor *x, const zi_norm *norm)
{
    ZI_TRY(divide(zi_cards_state(run->ops), run, x, y));
    ON_ROWS(run, norm_rows(&s, norm), READS(x), WRITES(y), ALIKE(norm->scale), ALIKE(norm->shift));
}

static zimage_status residual_rows(zi_spread *s, const zi_residual *residual)
{
    int finite = 1;
    zi_norm post, next;
    zi_residual own = {.gate = s->t[3], .finite = residual->finite != NULL ? &finite : NULL};
    if (residual->post != NULL) {
        post = norm_on(residual->post, s->t[4], s->t[5]);
        own.post = &post;
    }
    if (residual->next != NULL) {
        next = norm_on(residual->next, s->t[6], s->t[7]);
        own.next = &next;
    }
    return s->table->residual(&s->own, s->t[1], s->t[0], s->t[2], &own);
}

/* Whether x is finite is known later, by name (zi_op_check_finite). */
zimage_status zi_cards_residual(zi_run *run, zi_tensor *x, const zi_tensor *y, zi_tensor *h,
                                const zi_residual *residual)
{
    static const zi_norm none;
    const zi_norm *post = residual->post != NULL ? residual->post : &none;
    const zi_norm *next = residual->next != NULL ? residual->next : &none;
    if (residual->finite != NULL)
        *residual->finite = 1;
    ON_ROWS(run, residual_rows(&s, residual), READS(y), CHANGES(x), WRITES(h), ALIKE(residual->gate),
            ALIKE(post->scale), ALIKE(post->shift), ALIKE(next->scale), ALIKE(next->shift));
}

static zimage_status rotate_rows(zi_spread *s, const zi_qk_norm_rope *args)
{
    zi_qk_norm_rope own = *args;
    own.k = s->t[1];
    own.cos = s->t[2];
    own.sin = s->t[3];
    return s->table->qk_norm_rope(&s->own, s->t[0], &own);
}

zimage_status zi_cards_qk_norm_rope(zi_run *run, zi_tensor *x, const zi_qk_norm_rope *args)
{
    ON_ROWS(run, rotate_rows(&s, args), CHANGES(x), CHANGES(args->k), READS(args->cos), READS(args->sin));
}

zimage_status zi_cards_check_finite(zi_run *run, const zi_tensor *x, int *finite)
{
    *finite = 1;
    ON_ROWS(run, s.table->check_finite(&s.own, s.t[0], finite), READS(x));
}

/* ---- attention --------------------------------------------------------------------------------------------------- */

/* The tensors of an attention. */
typedef struct attended {
    const zi_tensor *o, *q, *k, *v;
    const zi_attention *args;
} attended;

/* Keys and values go to the cards that have queries of their sequence. */
static zimage_status send_keys(const zi_spread *s, const attended *a)
{
    zi_cards_exchange_begin(s->c);
    for (int i = 0; i < zi_sequence_count(a->args); i++) {
        const zi_sequence rows = zi_sequence_of(a->args, a->q, a->k, i);
        unsigned needing = 0;
        for (int k = 0; k < s->share_count; k++)
            if (zi_range_common(s->shares[k].rows, (zi_range){rows.query, rows.queries}).count > 0)
                needing |= 1u << s->shares[k].card;
        zi_cards_exchange(s->c, a->k, (zi_range){rows.key, rows.keys}, needing);
        zi_cards_exchange(s->c, a->v, (zi_range){rows.key, rows.keys}, needing);
    }
    return zi_cards_exchange_end(s->c, s->run);
}

/* The queries of one sequence in the present share. */
static zimage_status attend(zi_spread *s, const attended *a, int sequence)
{
    const zi_sequence rows = zi_sequence_of(a->args, a->q, a->k, sequence);
    const zi_range queries = zi_range_common(s->at->rows, (zi_range){rows.query, rows.queries});
    const zi_range keys = {rows.key, rows.keys};
    int card = s->at->card;
    zi_attention alone = *a->args;
    alone.sequences = 0;
    if (queries.count == 0)
        return ZIMAGE_OK;
    zi_tensor o = zi_cards_rows(s->c, card, a->o, queries), q = zi_cards_rows(s->c, card, a->q, queries);
    zi_tensor k = zi_cards_rows(s->c, card, a->k, keys), v = zi_cards_rows(s->c, card, a->v, keys);
    return s->table->attention(&s->own, &o, &q, &k, &v, &alone);
}

static zimage_status attend_whole(zi_run *run, const attended *a)
{
    ON_ALL(run, s.table->attention(&s.own, s.t[3], s.t[0], s.t[1], s.t[2], a->args), READS(a->q), READS(a->k),
           READS(a->v), WRITES(a->o));
}

zimage_status zi_cards_attention(zi_run *run, zi_tensor *o, const zi_tensor *q, const zi_tensor *k, const zi_tensor *v,
                                 const zi_attention *attention)
{
    const zi_operand operands[] = {READS(q), WRITES(o)};
    const zi_cards *c = zi_cards_state(run->ops);
    const attended a = {.o = o, .q = q, .k = k, .v = v, .args = attention};
    zi_range place;
    zi_spread s;
    if (attention->causal || !zi_cards_place(c, k, &place) || !zi_cards_place(c, v, &place))
        return attend_whole(run, &a);
    ZI_TRY(zi_spread_rows(&s, run, operands, 2));
    if (s.division.count == 0)
        return attend_whole(run, &a);
    ZI_TRY(send_keys(&s, &a));
    while (zi_spread_next(&s))
        for (int sequence = 0; sequence < zi_sequence_count(attention); sequence++)
            ZI_TRY(attend(&s, &a, sequence));
    return zi_spread_end(&s);
}
