#include "shared/row_set.h"
#include "support.h"

static row_set set_of(size_t a, size_t b)
{
    row_set set = {{0}};
    row_set_add(&set, a);
    row_set_add(&set, b);
    return set;
}

/* Rows in each word, and at the ends of words. */
static void each_row_is_one_bit(void **state)
{
    (void)state;
    for (size_t row = 0; row < ROW_SET_ROWS; row++) {
        row_set set = set_of(row, row);
        for (size_t other = 0; other < ROW_SET_ROWS; other++)
            assert_int_equal(row_set_has(&set, other), other == row);
        assert_false(row_set_is_empty(set));
        assert_true(row_set_is_empty(row_set_minus(set, set)));
    }
    assert_true(row_set_is_empty((row_set){{0}}));
}

static void unions_and_differences(void **state)
{
    (void)state;
    row_set a = set_of(3, 200), b = set_of(200, 255), both = row_set_union(a, b), rest = row_set_minus(a, b);
    for (size_t row = 0; row < ROW_SET_ROWS; row++) {
        assert_int_equal(row_set_has(&both, row), row == 3 || row == 200 || row == 255);
        assert_int_equal(row_set_has(&rest, row), row == 3);
    }
    assert_true(row_set_intersects(a, b));
    assert_false(row_set_intersects(rest, b));
    assert_false(row_set_intersects(a, (row_set){{0}}));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(each_row_is_one_bit),
        cmocka_unit_test(unions_and_differences),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
