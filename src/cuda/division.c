#include "cuda/division.h"

#include <string.h>

#include "base/numbers.h"

#define SNAP_SHARE 16 /* of a part */

static int64_t clamp(int64_t value, int64_t low, int64_t high)
{
    return value < low ? low : value > high ? high : value;
}

/* The end of a cut of `before` that is nearest to `row`. */
static int64_t nearest_end(const zi_division *before, int64_t row, int cards)
{
    int64_t best = INT64_MAX / 2;
    for (int i = 0; i < before->count; i++)
        for (int end = 0; end <= cards; end += cards) {
            int64_t at = before->cut[i].bound[end];
            if ((at > row ? at - row : row - at) < (best > row ? best - row : row - best))
                best = at;
        }
    return best;
}

zi_division zi_division_even(int64_t rows, int cards, const zi_division *before)
{
    zi_division d = {.count = 1};
    int64_t near = rows / cards / SNAP_SHARE;
    for (int k = 0; k <= cards; k++) {
        int64_t row = rows * k / cards, end = nearest_end(before, row, cards);
        d.cut[0].bound[k] = k > 0 && k < cards && end >= row - near && end <= row + near ? end : row;
    }
    return d;
}

/* Whether `next` begins where `cut` ends, and both are one cut: rows of a card lie behind those of the cards before. */
static int continues(const zi_cut *cut, const zi_cut *next, int cards)
{
    int last = cards - 1, first = 0;
    while (last > 0 && cut->bound[last] == cut->bound[cards])
        last--;
    while (first < cards - 1 && next->bound[first + 1] == next->bound[0])
        first++;
    return cut->bound[cards] == next->bound[0] && last <= first;
}

/* Adds rows [low, high) of a cut, `shift` rows further. A cut that loses rows, or is joined with another, may have
 * other neighbours at its edges. */
static int add_cut(zi_division *d, const zi_cut *cut, int64_t low, int64_t high, int64_t shift, int cards)
{
    zi_cut clipped = *cut, *last = d->count > 0 ? &d->cut[d->count - 1] : NULL;
    for (int k = 0; k <= cards; k++)
        clipped.bound[k] = clamp(cut->bound[k], low, high) + shift;
    if (clipped.bound[0] == clipped.bound[cards])
        return 1;
    if (cut->bound[0] < low || cut->bound[cards] > high)
        clipped.edge = 0;
    if (last != NULL && continues(last, &clipped, cards)) {
        int64_t begin = clipped.bound[0];
        for (int k = 0; k <= cards; k++)
            last->bound[k] += clipped.bound[k] - begin;
        last->edge = 0;
        return 1;
    }
    if (d->count == ZI_CUTS_MAX)
        return 0;
    d->cut[d->count++] = clipped;
    return 1;
}

zi_division zi_division_of(const zi_division *d, int64_t first, int64_t count, int cards)
{
    zi_division part = {0};
    for (int i = 0; i < d->count; i++)
        (void)add_cut(&part, &d->cut[i], first, first + count, -first, cards);
    return part;
}

int zi_division_set(zi_division *d, int64_t first, int64_t count, const zi_division *rows, int cards)
{
    zi_division made = {0};
    int fits = 1;
    for (int i = 0; i < d->count; i++)
        fits &= add_cut(&made, &d->cut[i], INT64_MIN, first, 0, cards);
    for (int i = 0; i < rows->count; i++)
        fits &= add_cut(&made, &rows->cut[i], 0, count, first, cards);
    for (int i = 0; i < d->count; i++)
        fits &= add_cut(&made, &d->cut[i], first + count, INT64_MAX, 0, cards);
    if (fits)
        *d = made;
    return fits;
}

int zi_division_clear(zi_division *d, int64_t first, int64_t count, int cards)
{
    const zi_division none = {0};
    return zi_division_set(d, first, count, &none, cards);
}

int zi_division_same(const zi_division *a, const zi_division *b, int cards)
{
    size_t bytes = (size_t)(cards + 1) * sizeof(int64_t);
    for (int i = 0; a->count == b->count && i < a->count; i++)
        if (memcmp(a->cut[i].bound, b->cut[i].bound, bytes) != 0)
            return 0;
    return a->count == b->count;
}

zi_division zi_division_finer(const zi_division *d, int64_t each, int cards)
{
    zi_division finer = {.count = d->count};
    for (int i = 0; i < d->count; i++) {
        for (int k = 0; k <= cards; k++)
            finer.cut[i].bound[k] = d->cut[i].bound[k] * each;
        finer.cut[i].edge = d->cut[i].edge * each;
    }
    return finer;
}

int zi_division_coarser(const zi_division *d, int64_t each, int cards, zi_division *coarser)
{
    *coarser = (zi_division){.count = d->count};
    for (int i = 0; i < d->count; i++) {
        for (int k = 0; k <= cards; k++) {
            if (d->cut[i].bound[k] % each != 0)
                return 0;
            coarser->cut[i].bound[k] = d->cut[i].bound[k] / each;
        }
        coarser->cut[i].edge = d->cut[i].edge / each;
    }
    return 1;
}

int zi_division_is_whole(const zi_division *d, int64_t rows, int cards)
{
    return d->count == 1 && d->cut[0].bound[0] == 0 && d->cut[0].bound[cards] == rows;
}

zi_range zi_range_common(zi_range a, zi_range b)
{
    int64_t first = zi_max_int64(a.first, b.first), end = zi_min_int64(a.first + a.count, b.first + b.count);
    return (zi_range){first, zi_max_int64(end - first, 0)};
}

int zi_range_holds(zi_range outer, zi_range inner)
{
    return zi_range_common(outer, inner).count == inner.count;
}

zi_range zi_cut_range(const zi_cut *cut, int card, int cards)
{
    int64_t first = cut->bound[card], end = cut->bound[card + 1];
    if (first == end)
        return (zi_range){first, 0};
    first = zi_max_int64(first - cut->edge, cut->bound[0]);
    return (zi_range){first, zi_min_int64(end + cut->edge, cut->bound[cards]) - first};
}

static int add_range(zi_range *ranges, int count, int64_t first, int64_t end)
{
    if (first >= end)
        return count;
    if (count > 0 && ranges[count - 1].first + ranges[count - 1].count == first) {
        ranges[count - 1].count += end - first;
        return count;
    }
    ranges[count] = (zi_range){first, end - first};
    return count + 1;
}

int zi_division_ranges(const zi_division *d, int64_t rows, int card, int cards, zi_range ranges[ZI_RANGES_MAX])
{
    int count = 0;
    int64_t row = 0;
    for (int i = 0; i < d->count; i++) {
        const zi_range own = zi_cut_range(&d->cut[i], card, cards);
        count = add_range(ranges, count, row, d->cut[i].bound[0]);
        count = add_range(ranges, count, own.first, own.first + own.count);
        row = d->cut[i].bound[cards];
    }
    return add_range(ranges, count, row, rows);
}

int zi_division_counted(const zi_division *d, int64_t rows, int card, int cards, zi_range ranges[ZI_RANGES_MAX])
{
    int count = 0;
    int64_t row = 0;
    for (int i = 0; i < d->count; i++) {
        const int64_t *bound = d->cut[i].bound;
        if (card == 0)
            count = add_range(ranges, count, row, bound[0]);
        count = add_range(ranges, count, bound[card], bound[card + 1]);
        row = bound[cards];
    }
    return card == 0 ? add_range(ranges, count, row, rows) : count;
}
