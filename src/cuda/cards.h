/* Several GPUs as one backend: cards.c. */
#ifndef ZI_CUDA_CARDS_H
#define ZI_CUDA_CARDS_H

#include "cuda/cuda.h"
#include "cuda/nccl.h"
#include "cuda/record.h"

/* One allocation of the stack, on every card. Its name is its address on the first card (zi_tensor.data). */
typedef struct zi_block {
    void *data[ZI_CARDS_MAX];
    zi_arena_mark before[ZI_CARDS_MAX]; /* the stacks before it */
    zi_dtype type;
    int64_t rows, columns; /* columns 0: no matrix; its rows are never divided */
    zi_division division;
} zi_block;

typedef struct zi_cards {
    zi_ops ops; /* first */
    zi_cuda_set set;
    zi_nccl nccl;
    zi_block *blocks;
    int block_count, capacity;
    int divides; /* norms divide rows now: within repeat */
    char name[48];
} zi_cards;

static inline zi_cards *zi_cards_state(const zi_ops *ops)
{
    return (zi_cards *)ops;
}

/* ---- blocks.c ---------------------------------------------------------------------------------------------------- */

zi_block *zi_cards_block(const zi_cards *c, const zi_tensor *tensor);
/* The tensor on a card; of these rows. */
zi_tensor zi_cards_on(const zi_cards *c, int card, const zi_tensor *tensor);
zi_tensor zi_cards_rows(const zi_cards *c, int card, const zi_tensor *tensor, zi_range rows);
/* Whether the tensor is rows of its block, which a division speaks of; *first: the first of them. */
int zi_cards_has_rows(const zi_cards *c, const zi_tensor *tensor, int64_t *first);
/* The division of the tensor's rows. */
zi_division zi_cards_division(const zi_cards *c, const zi_tensor *tensor);
zi_run zi_cards_run(const zi_cards *c, int card, const zi_run *run);

zi_op_alloc zi_cards_alloc, zi_cards_alloc_f32;
zi_op_alloc_operand zi_cards_alloc_operand, zi_cards_alloc_operand_parts;
zi_op_mark zi_cards_mark;
zi_op_release zi_cards_release;

/* ---- exchange.c -------------------------------------------------------------------------------------------------- */

/* Sends rows of the tensor to the cards of `needing` (bit k: card k) that lack them, together with those of other
 * calls between begin and end. Divisions stay as they are. */
void zi_cards_exchange_begin(zi_cards *c);
void zi_cards_exchange(zi_cards *c, const zi_tensor *tensor, zi_range rows, unsigned needing);
zimage_status zi_cards_exchange_end(zi_cards *c, const zi_run *run);
/* Makes the tensor's rows the same on every card. */
zimage_status zi_cards_gather(zi_cards *c, const zi_run *run, const zi_tensor *tensor);
/* The same for the first `count` blocks. */
zimage_status zi_cards_gather_all(zi_cards *c, const zi_run *run, int count);

/* ---- cards.c ----------------------------------------------------------------------------------------------------- */

/* Opens the GPUs of options->devices ("0,1"). */
zi_ops_cuda_new_fn zi_cards_new;

#endif
