/*
 * Rows on their way between cards. A card sends the rows that it has, from their place to the same place on the other
 * card: each card has memory for all rows, so nothing is packed or moved. All messages of one exchange are one NCCL
 * group, queued on the cards' own streams; recorded, it is a part of each card's graph.
 */
#include <string.h>

#include "base/numbers.h"
#include "cuda/cards.h"
#include "cuda/internal.h"

#define EVERY_CARD (~0u)

void zi_cards_exchange_begin(zi_cards *c)
{
    memset(c->sent, 0, sizeof(c->sent));
    memset(c->received, 0, sizeof(c->received));
    if (!c->ops.rehearsing)
        zi_nccl_begin(&c->nccl);
}

static void send(zi_cards *c, int from, int to, const void *data, void *target, size_t bytes)
{
    c->sent[from] += bytes;
    c->received[to] += bytes;
    if (c->ops.rehearsing)
        return;
    zi_nccl_send(&c->nccl, from, to, data, bytes, c->set.cards[from]->stream);
    zi_nccl_receive(&c->nccl, to, from, target, bytes, c->set.cards[to]->stream);
}

/* Rows of the block, from one card to another. */
static void send_rows(zi_cards *c, const zi_block *b, int from, int to, zi_range rows)
{
    size_t row = (size_t)b->columns * zi_dtype_size(b->type), at = (size_t)rows.first * row;
    if (from != to && rows.count > 0)
        send(c, from, to, (const uint8_t *)b->data[from] + at, (uint8_t *)b->data[to] + at, (size_t)rows.count * row);
}

/* The rows of a cut that a card has, without edges. */
static zi_range own_rows(const zi_cut *cut, int card)
{
    return (zi_range){cut->bound[card], cut->bound[card + 1] - cut->bound[card]};
}

void zi_cards_exchange(zi_cards *c, const zi_tensor *tensor, zi_range rows, unsigned needing)
{
    const zi_block *b = zi_cards_block(c, tensor);
    zi_range place;
    if (!zi_cards_place(c, tensor, &place) || rows.count == 0)
        return;
    int64_t each = place.count / tensor->shape[0], first = place.first + rows.first * each;
    const zi_division d = zi_division_of(&b->division, first, rows.count * each, c->set.count);
    for (int i = 0; i < d.count; i++)
        for (int from = 0; from < c->set.count; from++) {
            zi_range own = own_rows(&d.cut[i], from);
            own.first += first;
            for (int to = 0; to < c->set.count; to++)
                if (needing >> to & 1)
                    send_rows(c, b, from, to, own);
        }
}

/* The slowest card decides how long it takes. */
static void count_traffic(zi_cards *c)
{
    size_t most = 0;
    for (int k = 0; k < c->set.count; k++)
        most = zi_max_size(most, zi_max_size(c->sent[k], c->received[k]));
    c->traffic.exchanges += most > 0;
    c->traffic.bytes += most;
}

zimage_status zi_cards_exchange_end(zi_cards *c, const zi_run *run)
{
    count_traffic(c);
    return c->ops.rehearsing ? ZIMAGE_OK : zi_nccl_end(&c->nccl, run->error);
}

static zi_tensor all_rows(const zi_block *b)
{
    return (zi_tensor){b->type, 2, {b->rows, b->columns}, b->columns, 0, b->data[0]};
}

zimage_status zi_cards_gather(zi_cards *c, const zi_run *run, const zi_tensor *tensor)
{
    zi_block *b = zi_cards_block(c, tensor);
    const zi_tensor all = all_rows(b);
    zi_range place = {0, b->rows}; /* of another view: all of the block */
    if (b->division.count == 0)
        return ZIMAGE_OK;
    if (b->type == ZI_OPERAND) /* its scales lie elsewhere; networks read it as they wrote it */
        return zi_fail(run->error, ZIMAGE_ERROR_INTERNAL,
                       "an operand is read with other rows than it was written with");
    (void)zi_cards_place(c, tensor, &place);
    if (zi_division_of(&b->division, place.first, place.count, c->set.count).count == 0)
        return ZIMAGE_OK;
    zi_cards_exchange_begin(c);
    zi_cards_exchange(c, &all, place, EVERY_CARD);
    ZI_TRY(zi_cards_exchange_end(c, run));
    if (!zi_division_clear(&b->division, place.first, place.count, c->set.count))
        return zi_cards_gather(c, run, &all);
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

zimage_status zi_cards_send_edges(zi_cards *c, const zi_run *run, const zi_tensor *tensor, int64_t edge)
{
    zi_block *b = zi_cards_block(c, tensor);
    zi_range place = {0, 0};
    (void)zi_cards_place(c, tensor, &place);
    zi_division d = zi_division_of(&b->division, place.first, place.count, c->set.count);
    zi_cut *cut = &d.cut[0];
    int64_t rows = edge * (place.count / tensor->shape[0]);
    zi_cards_exchange_begin(c);
    for (int from = 0; from < c->set.count; from++)
        for (int to = 0; to < c->set.count; to++) {
            const zi_range own = own_rows(cut, from), target = own_rows(cut, to);
            zi_range before = zi_range_common(own, (zi_range){target.first - rows, rows});
            zi_range behind = zi_range_common(own, (zi_range){target.first + target.count, rows});
            before.first += place.first;
            behind.first += place.first;
            if (target.count == 0)
                continue;
            send_rows(c, b, from, to, before);
            send_rows(c, b, from, to, behind);
        }
    cut->edge = rows;
    (void)zi_division_set(&b->division, place.first, place.count, &d, c->set.count); /* the same cuts */
    return zi_cards_exchange_end(c, run);
}

zimage_status zi_cards_collect(zi_cards *c, const zi_run *run, const zi_tensor *tensor, void *const *parts)
{
    size_t bytes = (size_t)zi_tensor_count(tensor) * zi_dtype_size(tensor->dtype);
    size_t at = (size_t)tensor->offset * zi_dtype_size(tensor->dtype);
    const zi_block *b = zi_cards_block(c, tensor);
    zi_cards_exchange_begin(c);
    for (int from = 0; from < c->set.count; from++)
        for (int to = 0; to < c->set.count; to++)
            if (to != from)
                send(c, from, to, (const uint8_t *)b->data[from] + at, (uint8_t *)parts[to] + bytes * (size_t)from,
                     bytes);
    ZI_TRY(zi_cards_exchange_end(c, run));
    for (int k = 0; k < c->set.count; k++) {
        const zi_run own = zi_cards_run(c, k, run);
        zi_cuda *cuda = zi_cuda_enter(&own);
        ZI_CUDA_TRY(cuda,
                    cudaMemcpyAsync((uint8_t *)parts[k] + bytes * (size_t)k, (const uint8_t *)b->data[k] + at, bytes,
                                    cudaMemcpyDeviceToDevice, cuda->stream),
                    "collecting sums");
    }
    return ZIMAGE_OK;
}
