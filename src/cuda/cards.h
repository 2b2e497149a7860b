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
    int64_t rows, columns; /* of a matrix; else columns is 1, and each number is a row */
    zi_division division;
    int partial; /* sums of a group norm: what each card has added, not yet the sum */
} zi_block;

typedef struct zi_cards {
    zi_ops ops; /* first */
    zi_cuda_set set;
    zi_nccl nccl;
    zi_block *blocks;
    int block_count, capacity;
    int devices[ZI_CARDS_MAX];                         /* their numbers */
    int divides;                                       /* norms and convolutions divide rows now: within repeat */
    size_t sent[ZI_CARDS_MAX], received[ZI_CARDS_MAX]; /* bytes of the exchange under way */
    zi_traffic traffic, traffic_of[ZI_STAGES_MAX];     /* of the rehearsed stage so far; of the others */
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
/* The rows of its block that the tensor is. 0: it is another view, as of some columns. */
int zi_cards_place(const zi_cards *c, const zi_tensor *tensor, zi_range *rows);
/* How the tensor's rows (shape[0]) are divided. 0: it is another view, or was written in other rows; *d is none. */
int zi_cards_division(const zi_cards *c, const zi_tensor *tensor, zi_division *d);
/* Rows of the tensor were written so. */
zimage_status zi_cards_written(zi_cards *c, const zi_run *run, const zi_tensor *tensor, const zi_division *d);
/* A part of the columns: what is written to it leaves the others as they were. */
int zi_cards_is_narrow(const zi_cards *c, const zi_tensor *tensor);
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
/* Gives each card `edge` rows before and behind its own. The tensor's rows are one cut. */
zimage_status zi_cards_send_edges(zi_cards *c, const zi_run *run, const zi_tensor *tensor, int64_t edge);
/* parts[k], in card k's memory: the bytes of the tensor on card 0, on card 1, ... */
zimage_status zi_cards_collect(zi_cards *c, const zi_run *run, const zi_tensor *tensor, void *const *parts);

/* ---- entries of the table ---------------------------------------------------------------------------------------- */

zi_op_upload zi_cards_upload; /* cards_rows.c */
zi_op_copy zi_cards_copy;
zi_op_embed_rows zi_cards_embed_rows;
zi_op_linear zi_cards_linear;
zi_op_linears zi_cards_linears;
zi_op_linear_glu zi_cards_linear_glu;
zi_op_silu zi_cards_silu;
zi_op_norm zi_cards_norm;
zi_op_residual zi_cards_residual;
zi_op_rope_table zi_cards_rope_table;
zi_op_qk_norm_rope zi_cards_qk_norm_rope;
zi_op_attention zi_cards_attention;
zi_op_modulation zi_cards_modulation;
zi_op_patchify zi_cards_patchify;
zi_op_unpatchify zi_cards_unpatchify;
zi_op_check_finite zi_cards_check_finite;
zi_op_conv2d zi_cards_conv2d; /* cards_images.c */
zi_op_group_norm_sums zi_cards_group_norm_sums;
zi_op_group_norm_fold zi_cards_group_norm_fold;
zi_op_channel_affine zi_cards_channel_affine;

/* ---- cards.c ----------------------------------------------------------------------------------------------------- */

/* Opens the GPUs of options->devices ("0,1"). */
zi_ops_cuda_new_fn zi_cards_new;

#endif
