/* How the rows of a matrix or of an image are divided between several GPUs ("cards"). Pure arithmetic. */
#ifndef ZI_CUDA_DIVISION_H
#define ZI_CUDA_DIVISION_H

#include <stdint.h>

#define ZI_CARDS_MAX 8
#define ZI_CUTS_MAX  8

/* Rows [bound[0], bound[cards]), of which card k has [bound[k], bound[k + 1]). Where that is not empty the card also
 * has the `edge` rows of the cut before and behind it. */
typedef struct zi_cut {
    int64_t bound[ZI_CARDS_MAX + 1];
    int64_t edge;
} zi_cut;

/* The cuts of a tensor, in the order of rows. Rows that lie in no cut are the same on every card. */
typedef struct zi_division {
    int count;
    zi_cut cut[ZI_CUTS_MAX];
} zi_division;

typedef struct zi_range {
    int64_t first, count;
} zi_range;

#define ZI_RANGES_MAX (2 * ZI_CUTS_MAX + 1)

/* One cut in even parts. A bound that lies within 1 / 16 of a part from an end of a cut of `before` moves there: what
 * was written apart is often a sequence of its own, which a card should have alone. */
zi_division zi_division_even(int64_t rows, int cards, const zi_division *before);
/* That of rows [first, first + count), counted from `first`. */
zi_division zi_division_of(const zi_division *d, int64_t first, int64_t count, int cards);
/* Rows [first, first + count) lie in no cut any more. 0: more cuts would be needed than fit; *d is as it was. */
int zi_division_clear(zi_division *d, int64_t first, int64_t count, int cards);
/* Rows [first, first + count) are divided as `rows` says, which counts from `first`. 0: as above. */
int zi_division_set(zi_division *d, int64_t first, int64_t count, const zi_division *rows, int cards);
/* Whether each card has the same rows of its own. */
int zi_division_same(const zi_division *a, const zi_division *b, int cards);
/* The same division, where each row is `each` smaller ones; and back. 0: a bound lies within one of the rows. */
zi_division zi_division_finer(const zi_division *d, int64_t each, int cards);
int zi_division_coarser(const zi_division *d, int64_t each, int cards, zi_division *coarser);
/* Whether the division is one cut of all these rows. */
int zi_division_is_whole(const zi_division *d, int64_t rows, int cards);
/* The rows that a card has, of `rows` in all; returns how many ranges. */
int zi_division_ranges(const zi_division *d, int64_t rows, int card, int cards, zi_range ranges[ZI_RANGES_MAX]);
/* The same without edges, and with rows that every card has on the first card only: each row is counted once. */
int zi_division_counted(const zi_division *d, int64_t rows, int card, int cards, zi_range ranges[ZI_RANGES_MAX]);
/* What card k has of a cut, edges included. */
zi_range zi_cut_range(const zi_cut *cut, int card, int cards);
zi_range zi_range_common(zi_range a, zi_range b);
int zi_range_holds(zi_range outer, zi_range inner); /* also where the inner one is empty */

#endif
