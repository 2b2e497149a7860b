/* Small arithmetic, and random numbers. */
#include "base/numbers.h"
#include "support.h"

static void numbers_are_small_arithmetic(void **state)
{
    assert_int_equal(zi_min_size(3, 4), 3);
    assert_int_equal(zi_max_size(3, SIZE_MAX), SIZE_MAX);
    assert_int_equal(zi_min_int64(-3, 4), -3);
    assert_int_equal(zi_max_int64(-3, 4), 4);
    assert_int_equal(zi_mib(0), 0);
    assert_int_equal(zi_mib(1), 1);
    assert_int_equal(zi_mib(ZI_MIB), 1);
    assert_int_equal(zi_mib(ZI_MIB + 1), 2);
}

/* The sequence of the paper's generator; floats lie in [-1, 1), and their mean is near 0. */
static void random_numbers_follow_the_paper(void **state)
{
    uint64_t sequence = ZI_RANDOM_SEED;
    double sum = 0;
    assert_true(zi_random_next(&sequence) == UINT64_C(8748534153485358512));
    assert_true(zi_random_next(&sequence) == UINT64_C(3040900993826735515));
    for (int i = 0; i < 10000; i++) {
        float value = zi_random_float(&sequence);
        assert_true(value >= -1 && value < 1);
        sum += value;
    }
    assert_true(fabs(sum) < 300); /* five standard deviations: sqrt(10000 / 3) = 58 */
    assert_int_not_equal(zi_random_bits(&sequence), zi_random_bits(&sequence));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(numbers_are_small_arithmetic),
        cmocka_unit_test(random_numbers_follow_the_paper),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
