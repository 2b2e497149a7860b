/* Byte-pair encoding of one piece of text (docs/spec/text-encoder.md 7). */
#ifndef ZI_TEXT_BPE_H
#define ZI_TEXT_BPE_H

#include "base/error.h"
#include "text/grow.h"

typedef struct zi_merge {
    uint64_t pair; /* left id << 32 | right id; all bits set: the slot is empty */
    uint32_t rank;
    int32_t result;
} zi_merge;

typedef struct zi_bpe {
    int32_t byte_ids[256];
    zi_merge *slots; /* open addressing, at most 3/4 full */
    size_t mask;     /* number of slots - 1; that number is a power of two */
    uint64_t seed;   /* of the hash, random: a file can't be made so that its merges collide */
} zi_bpe;

/* Makes room for `merges` merges. */
zimage_status zi_bpe_init(zi_bpe *bpe, size_t merges, zimage_error *error);
/* Adds a merge, at most as many as zi_bpe_init made room for. A second merge of a pair replaces the first. */
void zi_bpe_add(zi_bpe *bpe, int32_t left, int32_t right, uint32_t rank, int32_t result);
void zi_bpe_free(zi_bpe *bpe);

typedef struct zi_bpe_symbol {
    int32_t id;   /* -1: the symbol was merged into its left neighbour */
    int32_t prev; /* -1: none */
    int32_t next;
} zi_bpe_symbol;

typedef struct zi_bpe_candidate {
    uint64_t order; /* rank << 32 | position; the lowest is merged first */
    int32_t result;
} zi_bpe_candidate;

/* Buffers of one caller, which keeps them from piece to piece. Initialise with {0}. */
typedef struct zi_bpe_scratch {
    zi_bpe_symbol *symbols;
    size_t symbol_capacity;
    zi_bpe_candidate *heap;
    size_t heap_capacity;
    size_t heap_count;
} zi_bpe_scratch;

/* Appends the ids of a piece of at most INT32_MAX bytes to ids. */
zimage_status zi_bpe_encode(const zi_bpe *bpe, zi_bpe_scratch *scratch, const uint8_t *piece, size_t length,
                            zi_ids *ids, zimage_error *error);
void zi_bpe_scratch_free(zi_bpe_scratch *scratch);

#endif
