#include "cuda/spread.h"

#include <assert.h>

static int is_used(const zi_operand *o)
{
    return o->tensor != NULL && (o->reads || o->writes);
}

static void fill_shares(zi_spread *s)
{
    const zi_cards *c = s->c;
    zi_range ranges[ZI_RANGES_MAX];
    for (int k = 0; k < c->set.count; k++) {
        int count = zi_division_ranges(&s->division, s->rows, k, c->set.count, ranges);
        for (int i = 0; i < count; i++)
            s->shares[s->share_count++] = (zi_share){k, ranges[i]};
    }
}

/* The division that the operands lead to. */
static zi_division find_division(const zi_spread *s)
{
    zi_division d = {0}, own;
    for (int i = 0; i < s->operand_count && d.count == 0; i++)
        if (s->operands[i].tensor != NULL && s->operands[i].reads)
            (void)zi_cards_division(s->c, s->operands[i].tensor, &d);
    for (int i = 0; i < s->operand_count; i++) {
        const zi_operand *o = &s->operands[i];
        if (!is_used(o))
            continue;
        if (!zi_cards_division(s->c, o->tensor, &own))
            return (zi_division){0};
        if (o->writes && zi_cards_is_narrow(s->c, o->tensor) && own.count > 0)
            d = own; /* the other columns keep theirs */
    }
    for (int i = 0; i < d.count; i++)
        d.cut[i].edge = 0;
    return d;
}

/* Makes what is read fit the division. */
static zimage_status fit(const zi_spread *s)
{
    const zi_division *d = &s->division;
    for (int i = 0; i < s->operand_count; i++) {
        const zi_tensor *t = s->operands[i].tensor;
        zi_division own;
        if (t == NULL || !s->operands[i].reads)
            continue;
        int known = zi_cards_division(s->c, t, &own);
        if (d->count == 0 || !known || (own.count > 0 && !zi_division_same(&own, d, s->c->set.count)))
            ZI_TRY(zi_cards_gather(s->c, s->run, t));
    }
    return ZIMAGE_OK;
}

static void begin(zi_spread *s, zi_run *run, const zi_operand *operands, int count)
{
    assert(count <= ZI_OPERANDS_MAX);
    s->c = zi_cards_state(run->ops);
    s->run = run;
    s->operands = operands;
    s->operand_count = count;
    s->whole = s->share_count = s->next = 0;
    s->division.count = 0;
}

zimage_status zi_spread_as(zi_spread *s, zi_run *run, const zi_operand *operands, int count, int64_t rows,
                           const zi_division *division)
{
    begin(s, run, operands, count);
    s->rows = rows;
    s->division = *division;
    ZI_TRY(fit(s));
    fill_shares(s);
    return ZIMAGE_OK;
}

zimage_status zi_spread_rows(zi_spread *s, zi_run *run, const zi_operand *operands, int count)
{
    begin(s, run, operands, count);
    const zi_division d = find_division(s);
    return zi_spread_as(s, run, operands, count, operands[0].tensor->shape[0], &d);
}

zimage_status zi_spread_whole(zi_spread *s, zi_run *run, const zi_operand *operands, int count)
{
    begin(s, run, operands, count);
    s->whole = 1;
    ZI_TRY(fit(s));
    for (int k = 0; k < s->c->set.count; k++)
        s->shares[s->share_count++] = (zi_share){.card = k};
    return ZIMAGE_OK;
}

int zi_spread_next(zi_spread *s)
{
    if (s->next == s->share_count)
        return 0;
    s->at = &s->shares[s->next++];
    s->own = zi_cards_run(s->c, s->at->card, s->run);
    s->table = zi_table(&s->own);
    for (int i = 0; i < s->operand_count; i++) {
        const zi_operand *o = &s->operands[i];
        s->t[i] = o->tensor != NULL ? &s->tensors[i] : NULL;
        if (o->tensor == NULL)
            continue;
        s->tensors[i] = s->whole || !is_used(o) ? zi_cards_on(s->c, s->at->card, o->tensor)
                                                : zi_cards_rows(s->c, s->at->card, o->tensor, s->at->rows);
    }
    return 1;
}

zimage_status zi_spread_end(zi_spread *s)
{
    for (int i = 0; i < s->operand_count; i++)
        if (s->operands[i].tensor != NULL && s->operands[i].writes)
            ZI_TRY(zi_cards_written(s->c, s->run, s->operands[i].tensor, &s->division));
    return ZIMAGE_OK;
}
