/*
 * Rows on their way between cards. A card sends the rows that it has, from their place to the same place on the other
 * card: each card has memory for all rows, so nothing is packed or moved. All messages of one exchange are one NCCL
 * group, queued on the cards' own streams; recorded, it is a part of each card's graph.
 */
#include "cuda/cards.h"
#include "cuda/internal.h"

#define EVERY_CARD (~0u)

void zi_cards_exchange_begin(zi_cards *c)
{
    if (!c->ops.rehearsing)
        zi_nccl_begin(&c->nccl);
}

/* Rows [first, end) of the block, from one card to another. */
static void send_rows(zi_cards *c, const zi_block *b, int from, int to, int64_t first, int64_t end)
{
    size_t row = (size_t)b->columns * zi_dtype_size(b->type), at = (size_t)first * row;
    size_t bytes = (size_t)(end - first) * row;
    zi_nccl_send(&c->nccl, from, to, (const uint8_t *)b->data[from] + at, bytes, c->set.cards[from]->stream);
    zi_nccl_receive(&c->nccl, to, from, (uint8_t *)b->data[to] + at, bytes, c->set.cards[to]->stream);
}

void zi_cards_exchange(zi_cards *c, const zi_tensor *tensor, zi_range rows, unsigned needing)
{
    const zi_block *b = zi_cards_block(c, tensor);
    int64_t first;
    if (c->ops.rehearsing || !zi_cards_has_rows(c, tensor, &first))
        return;
    const zi_division d = zi_division_of(&b->division, first + rows.first, rows.count, c->set.count);
    first += rows.first;
    for (int i = 0; i < d.count; i++)
        for (int from = 0; from < c->set.count; from++) {
            const int64_t *bound = &d.cut[i].bound[from];
            for (int to = 0; to < c->set.count && bound[0] < bound[1]; to++)
                if (to != from && (needing >> to & 1))
                    send_rows(c, b, from, to, first + bound[0], first + bound[1]);
        }
}

zimage_status zi_cards_exchange_end(zi_cards *c, const zi_run *run)
{
    return c->ops.rehearsing ? ZIMAGE_OK : zi_nccl_end(&c->nccl, run->error);
}

static zi_tensor all_rows(const zi_block *b)
{
    return (zi_tensor){b->type, 2, {b->rows, b->columns}, b->columns, 0, b->data[0]};
}

zimage_status zi_cards_gather(zi_cards *c, const zi_run *run, const zi_tensor *tensor)
{
    zi_block *b = zi_cards_block(c, tensor);
    zi_tensor rows = *tensor;
    int64_t first;
    if (b->division.count == 0)
        return ZIMAGE_OK;
    if (b->type == ZI_OPERAND) /* its scales lie elsewhere; networks read it as they wrote it */
        return zi_fail(run->error, ZIMAGE_ERROR_INTERNAL,
                       "an operand is read with other rows than it was written with");
    if (!zi_cards_has_rows(c, tensor, &first)) { /* another view: all of the block */
        rows = all_rows(b);
        first = 0;
    }
    if (zi_division_of(&b->division, first, rows.shape[0], c->set.count).count == 0)
        return ZIMAGE_OK;
    zi_cards_exchange_begin(c);
    zi_cards_exchange(c, &rows, (zi_range){0, rows.shape[0]}, EVERY_CARD);
    ZI_TRY(zi_cards_exchange_end(c, run));
    if (!zi_division_clear(&b->division, first, rows.shape[0], c->set.count)) {
        rows = all_rows(b);
        return zi_cards_gather(c, run, &rows);
    }
    return ZIMAGE_OK;
}

zimage_status zi_cards_gather_all(zi_cards *c, const zi_run *run, int count)
{
    for (int i = 0; i < count; i++) {
        const zi_block *b = &c->blocks[i];
        const zi_tensor all = all_rows(b);
        ZI_TRY(b->division.count > 0 ? zi_cards_gather(c, run, &all) : ZIMAGE_OK);
    }
    return ZIMAGE_OK;
}
