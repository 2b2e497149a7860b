/* Sets of rows of a table: which options, or which fields of a request, were given. */
#ifndef ZI_SHARED_ROW_SET_H
#define ZI_SHARED_ROW_SET_H

#include <stddef.h>
#include <stdint.h>

#define ROW_SET_ROWS 256 /* a table has at most so many */

typedef struct row_set {
    uint64_t words[ROW_SET_ROWS / 64]; /* bit i of all: row i */
} row_set;

static inline void row_set_add(row_set *set, size_t row)
{
    set->words[row / 64] |= UINT64_C(1) << row % 64;
}

static inline int row_set_has(const row_set *set, size_t row)
{
    return (set->words[row / 64] >> row % 64 & 1) != 0;
}

static inline row_set row_set_union(row_set a, row_set b)
{
    for (size_t i = 0; i < ROW_SET_ROWS / 64; i++)
        a.words[i] |= b.words[i];
    return a;
}

/* The rows of a that are not in b. */
static inline row_set row_set_minus(row_set a, row_set b)
{
    for (size_t i = 0; i < ROW_SET_ROWS / 64; i++)
        a.words[i] &= ~b.words[i];
    return a;
}

static inline int row_set_is_empty(row_set set)
{
    uint64_t any = 0;
    for (size_t i = 0; i < ROW_SET_ROWS / 64; i++)
        any |= set.words[i];
    return any == 0;
}

/* Whether a row is in both. */
static inline int row_set_intersects(row_set a, row_set b)
{
    return !row_set_is_empty(row_set_minus(a, row_set_minus(a, b)));
}

#endif
