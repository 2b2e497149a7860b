/*
 * Byte-pair merging with a heap of candidate pairs over a linked list of symbols. It takes O(n log n) steps, so that a
 * megabyte without a space is no attack. Merges happen in the order of the `tokenizers` package (models/bpe/word.rs):
 * the lowest rank first, and of equal ranks the leftmost. A candidate whose symbols have changed since is skipped.
 */
#include "text/bpe.h"

#include <string.h>
#include <sys/random.h>
#include <unistd.h>

#define EMPTY UINT64_MAX

static uint64_t pair_of(int32_t left, int32_t right)
{
    return (uint64_t)(uint32_t)left << 32 | (uint32_t)right;
}

/* Mixes all bits of the pair into the low bits (the finalizer of MurmurHash3). */
static size_t hash(uint64_t pair)
{
    pair ^= pair >> 33;
    pair *= 0xFF51AFD7ED558CCDu;
    pair ^= pair >> 33;
    pair *= 0xC4CEB9FE1A85EC53u;
    pair ^= pair >> 33;
    return (size_t)pair;
}

/* The slot of the pair; if the pair is not in the table, the empty slot where it would go. */
static zi_merge *slot_of(const zi_bpe *bpe, uint64_t pair)
{
    size_t at = hash(pair ^ bpe->seed) & bpe->mask;
    while (bpe->slots[at].pair != pair && bpe->slots[at].pair != EMPTY)
        at = (at + 1) & bpe->mask;
    return &bpe->slots[at];
}

zimage_status zi_bpe_init(zi_bpe *bpe, size_t merges, zimage_error *error)
{
    size_t slots = 16;
    while (slots / 4 * 3 < merges)
        slots *= 2;
    bpe->slots = malloc(slots * sizeof *bpe->slots);
    if (!bpe->slots)
        return zi_fail_memory(error, "the merge table", slots * sizeof *bpe->slots);
    bpe->mask = slots - 1;
    if (getentropy(&bpe->seed, sizeof bpe->seed) != 0)
        bpe->seed = (uint64_t)(uintptr_t)bpe->slots;
    for (size_t i = 0; i < slots; i++)
        bpe->slots[i] = (zi_merge){EMPTY, 0, 0};
    return ZIMAGE_OK;
}

void zi_bpe_add(zi_bpe *bpe, int32_t left, int32_t right, uint32_t rank, int32_t result)
{
    uint64_t pair = pair_of(left, right);
    *slot_of(bpe, pair) = (zi_merge){pair, rank, result};
}

void zi_bpe_free(zi_bpe *bpe)
{
    free(bpe->slots);
    bpe->slots = NULL;
}

static void heap_push(zi_bpe_scratch *s, zi_bpe_candidate candidate)
{
    size_t at = s->heap_count++;
    while (at > 0 && s->heap[(at - 1) / 2].order > candidate.order) {
        s->heap[at] = s->heap[(at - 1) / 2];
        at = (at - 1) / 2;
    }
    s->heap[at] = candidate;
}

static zi_bpe_candidate heap_pop(zi_bpe_scratch *s)
{
    zi_bpe_candidate top = s->heap[0], last = s->heap[--s->heap_count];
    size_t at = 0;
    for (;;) {
        size_t child = 2 * at + 1;
        if (child >= s->heap_count)
            break;
        if (child + 1 < s->heap_count && s->heap[child + 1].order < s->heap[child].order)
            child++;
        if (s->heap[child].order >= last.order)
            break;
        s->heap[at] = s->heap[child];
        at = child;
    }
    s->heap[at] = last;
    return top;
}

/* Pushes the merge of the symbols at left and right, if there is one. Either may be -1: no symbol. */
static void consider(const zi_bpe *bpe, zi_bpe_scratch *s, int32_t left, int32_t right)
{
    if (left < 0 || right < 0)
        return;
    uint64_t pair = pair_of(s->symbols[left].id, s->symbols[right].id);
    const zi_merge *merge = slot_of(bpe, pair);
    if (merge->pair == pair)
        heap_push(s, (zi_bpe_candidate){(uint64_t)merge->rank << 32 | (uint32_t)left, merge->result});
}

static int still_holds(const zi_bpe *bpe, const zi_bpe_scratch *s, int32_t at, int32_t result)
{
    const zi_bpe_symbol *symbol = &s->symbols[at];
    if (symbol->id < 0 || symbol->next < 0)
        return 0;
    uint64_t pair = pair_of(symbol->id, s->symbols[symbol->next].id);
    const zi_merge *merge = slot_of(bpe, pair);
    return merge->pair == pair && merge->result == result;
}

static void merge_all(const zi_bpe *bpe, zi_bpe_scratch *s)
{
    while (s->heap_count) {
        zi_bpe_candidate top = heap_pop(s);
        int32_t at = (int32_t)(top.order & 0xFFFFFFFFu);
        if (!still_holds(bpe, s, at, top.result))
            continue;
        zi_bpe_symbol *symbol = &s->symbols[at], *gone = &s->symbols[symbol->next];
        symbol->id = top.result;
        symbol->next = gone->next;
        gone->id = -1;
        if (symbol->next >= 0)
            s->symbols[symbol->next].prev = at;
        consider(bpe, s, symbol->prev, at);
        consider(bpe, s, at, symbol->next);
    }
}

/* One symbol for each byte. The heap holds at most 2 n: it begins below n, and each of at most n merges adds one. */
static zimage_status make_room(zi_bpe_scratch *s, size_t length, zimage_error *error)
{
    zi_bpe_symbol *symbols = zi_grow(s->symbols, &s->symbol_capacity, length, sizeof *symbols);
    if (!symbols)
        return zi_fail_memory(error, "tokenising a piece of text", length * sizeof *symbols);
    s->symbols = symbols;
    zi_bpe_candidate *heap = zi_grow(s->heap, &s->heap_capacity, 2 * length, sizeof *heap);
    if (!heap)
        return zi_fail_memory(error, "tokenising a piece of text", 2 * length * sizeof *heap);
    s->heap = heap;
    return ZIMAGE_OK;
}

zimage_status zi_bpe_encode(const zi_bpe *bpe, zi_bpe_scratch *s, const uint8_t *piece, size_t length, zi_ids *ids,
                            zimage_error *error)
{
    int32_t count = (int32_t)length;
    if (count < 1)
        return ZIMAGE_OK;
    ZI_TRY(make_room(s, length, error));
    s->heap_count = 0;
    for (int32_t i = 0; i < count; i++)
        s->symbols[i] = (zi_bpe_symbol){bpe->byte_ids[piece[i]], i - 1, i + 1 < count ? i + 1 : -1};
    for (int32_t i = 0; i + 1 < count; i++)
        consider(bpe, s, i, i + 1);
    merge_all(bpe, s);
    for (int32_t i = 0; i >= 0; i = s->symbols[i].next)
        if (!zi_ids_push(ids, s->symbols[i].id))
            return zi_fail_memory(error, "token ids", (ids->count + 1) * sizeof *ids->data);
    return ZIMAGE_OK;
}

void zi_bpe_scratch_free(zi_bpe_scratch *s)
{
    free(s->symbols);
    free(s->heap);
    *s = (zi_bpe_scratch){0};
}
