/* Which GPU has which rows (src/cuda/division.h), against a list of the owners of each row. */
#include "base/numbers.h"
#include "cuda/division.h"
#include "support.h"

#define ROWS   40
#define ROUNDS 20000
#define ALL    (-1) /* the owner of a row that every card has */

typedef struct model {
    int cards;
    int owner[ROWS];
    zi_division division;
} model;

static int below(uint64_t *state, int n)
{
    return (int)(zi_random_bits(state) % (uint32_t)n);
}

/* A division of `rows` rows into one cut, with the owners that it means; empty parts, too. */
static zi_division random_cut(uint64_t *state, int cards, int rows, int *owner)
{
    zi_division d = {.count = 1};
    int64_t *bound = d.cut[0].bound;
    bound[cards] = rows;
    for (int k = 1; k < cards; k++)
        bound[k] = bound[k - 1] + below(state, rows - (int)bound[k - 1] + 1);
    d.cut[0].edge = below(state, 3);
    for (int k = 0; k < cards; k++)
        for (int64_t i = bound[k]; i < bound[k + 1]; i++)
            owner[i] = k;
    return d;
}

static void expect_owners(const model *m)
{
    for (int card = 0; card < m->cards; card++) {
        zi_range ranges[ZI_RANGES_MAX];
        int has[ROWS] = {0}, counts[ROWS] = {0};
        int count = zi_division_ranges(&m->division, ROWS, card, m->cards, ranges);
        for (int i = 0; i < count; i++)
            for (int64_t row = ranges[i].first; row < ranges[i].first + ranges[i].count; row++)
                has[row]++;
        count = zi_division_counted(&m->division, ROWS, card, m->cards, ranges);
        for (int i = 0; i < count; i++)
            for (int64_t row = ranges[i].first; row < ranges[i].first + ranges[i].count; row++)
                counts[row]++;
        for (int row = 0; row < ROWS; row++) {
            int owner = m->owner[row];
            assert_true(has[row] == 1 || (has[row] == 0 && owner != card && owner != ALL));
            assert_int_equal(counts[row], owner == card || (owner == ALL && card == 0));
        }
    }
}

/* What a card has beyond its own rows is at most the edge that was written, in a cut that is as it was written. */
static void expect_edges(const model *m, int first, int count, const zi_division *written)
{
    const zi_division part = zi_division_of(&m->division, first, count, m->cards);
    if (written->count == 0) {
        assert_int_equal(part.count, 0);
        return;
    }
    for (int i = 0; i < part.count; i++)
        assert_true(part.cut[i].edge == 0 ||
                    (zi_division_same(&part, written, m->cards) && part.cut[i].edge == written->cut[0].edge));
    const zi_division less = zi_division_of(&m->division, first + 1, count - 1, m->cards);
    for (int i = 0; count > 1 && i < less.count; i++) /* the first row is missing */
        assert_true(less.cut[i].edge == 0 || i > 0);
}

static void owners_are_remembered(void **state)
{
    uint64_t random = ZI_RANDOM_SEED;
    model m = {.cards = 2};
    int refused = 0;
    for (int i = 0; i < ROUNDS; i++) {
        if (i % 50 == 0) {
            m = (model){.cards = 2 + below(&random, 3)};
            for (int row = 0; row < ROWS; row++)
                m.owner[row] = ALL;
        }
        int first = below(&random, ROWS - 1), count = 1 + below(&random, ROWS - first), owner[ROWS];
        zi_division d = random_cut(&random, m.cards, count, owner), before = m.division;
        if (below(&random, 4) == 0)
            d.count = 0;
        if (!zi_division_set(&m.division, first, count, &d, m.cards)) {
            assert_memory_equal(&before, &m.division, sizeof before);
            refused++;
            i += 50 - i % 50 - 1; /* begins anew */
            continue;
        }
        for (int k = 0; k < count; k++)
            m.owner[first + k] = d.count > 0 ? owner[k] : ALL;
        expect_owners(&m);
        expect_edges(&m, first, count, &d);
    }
    assert_true(refused > 0 && refused < ROUNDS / 50);
}

static void finer_and_coarser_rows(void **state)
{
    uint64_t random = ZI_RANDOM_SEED;
    for (int i = 0; i < 500; i++) {
        int cards = 2 + below(&random, 3), owner[ROWS];
        int64_t each = 1 + below(&random, 7);
        const zi_division d = random_cut(&random, cards, ROWS, owner);
        zi_division finer = zi_division_finer(&d, each, cards), back;
        assert_int_equal(finer.cut[0].bound[cards], ROWS * each);
        assert_true(zi_division_coarser(&finer, each, cards, &back));
        assert_true(zi_division_same(&back, &d, cards));
        assert_int_equal(back.cut[0].edge, d.cut[0].edge);
        finer.cut[0].bound[1]++;
        assert_int_equal(zi_division_coarser(&finer, each, cards, &back), each == 1);
    }
}

static void edges_are_clipped_to_the_cut(void **state)
{
    const zi_cut cut = {.bound = {10, 13, 13, 20}, .edge = 4};
    const zi_range expected[] = {{10, 7}, {13, 0}, {10, 10}};
    for (int card = 0; card < 3; card++) {
        const zi_range range = zi_cut_range(&cut, card, 3);
        assert_int_equal(range.first, expected[card].first);
        assert_int_equal(range.count, expected[card].count);
    }
    assert_true(zi_range_holds(expected[0], (zi_range){12, 5}));
    assert_false(zi_range_holds(expected[0], (zi_range){12, 6}));
    assert_true(zi_range_holds(expected[1], (zi_range){50, 0}));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(owners_are_remembered),
        cmocka_unit_test(finer_and_coarser_rows),
        cmocka_unit_test(edges_are_clipped_to_the_cut),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
