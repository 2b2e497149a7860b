/*
 * An operation spread over several GPUs: which rows each card computes, and what its operands are there. An entry of
 * cards_*.c names its operands and the call; the macros do the rest:
 *
 *     ON_ROWS(run, s.table->silu(&s.own, s.t[1], s.t[0]), READS(x), WRITES(y));
 *
 * s.t[i] is operand i as the present card has it (NULL where it is NULL), s.own the card's run, s.table its table. They
 * are statements that return.
 */
#ifndef ZI_CUDA_SPREAD_H
#define ZI_CUDA_SPREAD_H

#include "cuda/cards.h"

#define ZI_OPERANDS_MAX 8

typedef struct zi_operand {
    const zi_tensor *tensor; /* NULL: none */
    int reads, writes; /* neither: a vector that is the same on every card, or what the entry itself looks after */
} zi_operand;

#define READS(x)                                                                                                       \
    {                                                                                                                  \
        (x), 1, 0                                                                                                      \
    }
#define WRITES(x)                                                                                                      \
    {                                                                                                                  \
        (x), 0, 1                                                                                                      \
    }
#define CHANGES(x)                                                                                                     \
    {                                                                                                                  \
        (x), 1, 1                                                                                                      \
    }
#define ADDS(x, also)                                                                                                  \
    {                                                                                                                  \
        (x), (also), 1                                                                                                 \
    } /* also: reads what it writes */
#define ALIKE(x)                                                                                                       \
    {                                                                                                                  \
        (x), 0, 0                                                                                                      \
    }

/* Rows of a card. */
typedef struct zi_share {
    int card;
    zi_range rows;
} zi_share;

typedef struct zi_spread {
    zi_cards *c;
    const zi_run *run;
    const zi_operand *operands;
    int operand_count, whole; /* whole: each card computes all rows */
    int64_t rows;             /* of each operand that is read or written */
    zi_division division;     /* of these */
    int share_count, next;
    zi_share shares[ZI_CARDS_MAX * ZI_RANGES_MAX];
    /* of the present share */
    const zi_share *at;
    zi_run own;
    const zi_ops_table *table;
    zi_tensor tensors[ZI_OPERANDS_MAX], *t[ZI_OPERANDS_MAX];
} zi_spread;

/* The operands' rows are divided as those of the first that is read are. What is divided in another way is gathered. */
zimage_status zi_spread_rows(zi_spread *s, zi_run *run, const zi_operand *operands, int count);
/* The same in a division that the caller knows, of so many rows. */
zimage_status zi_spread_as(zi_spread *s, zi_run *run, const zi_operand *operands, int count, int64_t rows,
                           const zi_division *division);
/* Each card computes all. */
zimage_status zi_spread_whole(zi_spread *s, zi_run *run, const zi_operand *operands, int count);
/* The next share; 0: there is none. */
int zi_spread_next(zi_spread *s);
/* Remembers how what was written is divided. */
zimage_status zi_spread_end(zi_spread *s);

#define ON_SPREAD(begin, run, call, ...)                                                                               \
    do {                                                                                                               \
        const zi_operand operands_[] = {__VA_ARGS__};                                                                  \
        zi_spread s;                                                                                                   \
        ZI_TRY(begin(&s, run, operands_, (int)(sizeof(operands_) / sizeof(*operands_))));                              \
        while (zi_spread_next(&s))                                                                                     \
            ZI_TRY(call);                                                                                              \
        return zi_spread_end(&s);                                                                                      \
    } while (0)

/* Each card computes the rows that it has. */
#define ON_ROWS(run, call, ...) ON_SPREAD(zi_spread_rows, run, call, __VA_ARGS__)
/* Each card computes all. */
#define ON_ALL(run, call, ...) ON_SPREAD(zi_spread_whole, run, call, __VA_ARGS__)

#endif
