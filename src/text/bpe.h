/* Byte-pair encoding of one piece of text. */
#ifndef ZI_TEXT_BPE_H
#define ZI_TEXT_BPE_H

#include "base/error.h"
#include "text/grow.h"

typedef struct zi_merge {
    uint64_t pair; /* left id << 32 | right id; all ones: an empty slot */
    uint32_t rank;
    int32_t result;
} zi_merge;

typedef struct zi_bpe {
    int32_t byte_ids[256];
    zi_merge *slots; /* open addressing, at most 3/4 full */
    size_t mask;     /* slots - 1, a power of two less one */
} zi_bpe;

/* Makes room for `merges` merges. */
zimage_status zi_bpe_init(zi_bpe *bpe, size_t merges, zimage_error *error);
/* At most as many as announced. A pair that was added before gets the new rank, as in the reference. */
void zi_bpe_add(zi_bpe *bpe, int32_t left, int32_t right, uint32_t rank, int32_t result);
void zi_bpe_free(zi_bpe *bpe);

typedef struct zi_bpe_symbol {
    int32_t id;   /* -1: merged into its left neighbour */
    int32_t prev; /* -1: none */
    int32_t next;
} zi_bpe_symbol;

typedef struct zi_bpe_candidate {
    uint64_t order; /* rank << 32 | position: lowest first */
    int32_t result;
} zi_bpe_candidate;

/* Buffers of one call, reused from piece to piece. Start with zeros. */
typedef struct zi_bpe_scratch {
    zi_bpe_symbol *symbols;
    size_t symbol_capacity;
    zi_bpe_candidate *heap;
    size_t heap_capacity;
    size_t heap_count;
} zi_bpe_scratch;

/* Appends the ids of a piece of 1 .. INT32_MAX bytes. */
zimage_status zi_bpe_encode(const zi_bpe *bpe, zi_bpe_scratch *scratch, const uint8_t *piece, size_t length,
                            zi_ids *ids, zimage_error *error);
void zi_bpe_scratch_free(zi_bpe_scratch *scratch);

#endif
