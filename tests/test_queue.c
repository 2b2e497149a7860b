/* The server's queue: callers take turns, classes go first, and what it predicts is what it does. */
#include "serve/queue.h"

#include "support.h"

#define MOST 64

static queue_item item_of(uint64_t caller, queue_class class, int units, double seconds)
{
    return (queue_item){.caller = caller, .class = class, .units = units, .seconds = seconds};
}

/* Serves one unit as a worker does: takes an item, and puts it back if it has more. */
static queue_item *serve_unit(queue *q)
{
    queue_item *item = queue_take(q);
    if (item && --item->units > 0)
        assert_true(queue_push_again(q, item));
    return item;
}

static void an_empty_queue_has_nothing(void **state)
{
    queue q = {0};
    assert_null(queue_take(&q));
    assert_int_equal(queue_length(&q), 0);
    assert_int_equal(queue_before_new(&q, 1, QUEUE_BATCH).units, 0);
}

static void one_caller_is_served_in_order(void **state)
{
    queue q = {0};
    queue_item items[5];
    for (int i = 0; i < 5; i++) {
        items[i] = item_of(7, QUEUE_INTERACTIVE, 1, 1);
        assert_true(queue_push(&q, &items[i]));
        assert_int_equal(queue_before(&q, &items[i]).units, i);
    }
    for (int i = 0; i < 5; i++)
        assert_ptr_equal(queue_take(&q), &items[i]);
    assert_null(q.turn[QUEUE_INTERACTIVE]);
}

/* A queues 50, B one: one unit of A is made before B's. */
static void a_caller_with_many_delays_another_by_one(void **state)
{
    queue q = {0};
    queue_item many[50], one = item_of(2, QUEUE_INTERACTIVE, 1, 3);
    for (int i = 0; i < 50; i++) {
        many[i] = item_of(1, QUEUE_INTERACTIVE, 1, 2);
        assert_true(queue_push(&q, &many[i]));
    }
    queue_wait expected = queue_before_new(&q, 2, QUEUE_INTERACTIVE);
    assert_int_equal(expected.units, 1);
    assert_true(expected.seconds == 2);
    assert_true(queue_push(&q, &one));
    assert_int_equal(queue_before(&q, &one).units, 1);
    assert_ptr_equal(queue_take(&q), &many[0]);
    assert_ptr_equal(queue_take(&q), &one);
    for (int i = 1; i < 50; i++)
        assert_ptr_equal(queue_take(&q), &many[i]);
}

/* An item of ten images does not hold up others, and its images stay in order before the caller's next item. */
static void units_take_turns_too(void **state)
{
    queue q = {0};
    queue_item ten = item_of(1, QUEUE_INTERACTIVE, 10, 1), later = item_of(1, QUEUE_INTERACTIVE, 1, 1);
    queue_item other = item_of(2, QUEUE_INTERACTIVE, 2, 1);
    assert_true(queue_push(&q, &ten) && queue_push(&q, &later) && queue_push(&q, &other));
    queue_item *const order[] = {&ten, &other, &ten, &other, &ten, &ten};
    for (size_t i = 0; i < sizeof order / sizeof *order; i++)
        assert_ptr_equal(serve_unit(&q), order[i]);
    assert_int_equal(ten.units, 6);
    queue_remove(&q, &ten);
    assert_ptr_equal(serve_unit(&q), &later);
    assert_null(serve_unit(&q));
}

static void a_lower_class_never_delays_the_higher(void **state)
{
    queue q = {0};
    queue_item slow = item_of(1, QUEUE_BATCH, 5, 1), fast = item_of(1, QUEUE_INTERACTIVE, 1, 1);
    assert_true(queue_push(&q, &slow) && queue_push(&q, &fast));
    assert_int_equal(queue_before(&q, &fast).units, 0);
    assert_int_equal(queue_before(&q, &slow).units, 1);
    assert_ptr_equal(serve_unit(&q), &fast);
    assert_ptr_equal(serve_unit(&q), &slow);
    queue_remove(&q, &slow);
    assert_int_equal(queue_length(&q), 0);
}

static uint32_t random_below(uint64_t *state, uint32_t bound)
{
    *state = *state * UINT64_C(6364136223846793005) + UINT64_C(1442695040888963407);
    return (uint32_t)((*state >> 33) % bound);
}

/* Serves the whole queue and compares when each item begins with what was predicted. */
static void check_predictions(queue *q, queue_item *items, const int *is_waiting, int count)
{
    queue_wait expected[MOST];
    int begun[MOST] = {0};
    size_t units = 0;
    double seconds = 0;
    for (int i = 0; i < count; i++)
        if (is_waiting[i])
            expected[i] = queue_before(q, &items[i]);
    for (queue_item *item; (item = queue_take(q)); units++) {
        int i = (int)(item - items);
        assert_true(queue_return(q, item)); /* as if it had not been taken */
        assert_ptr_equal(queue_next(q), item);
        assert_ptr_equal(queue_take(q), item);
        if (!begun[i]) {
            assert_int_equal(expected[i].units, units);
            assert_true(fabs(expected[i].seconds - seconds) < 1e-9);
            begun[i] = 1;
        }
        seconds += item->seconds;
        if (--item->units > 0)
            assert_true(queue_push_again(q, item));
    }
}

static void predictions_are_what_happens(void **state)
{
    uint64_t random = 1;
    for (int round = 0; round < 2000; round++) {
        queue q = {0};
        queue_item items[MOST];
        int is_waiting[MOST] = {0}, count = 1 + (int)random_below(&random, MOST - 1);
        for (int i = 0; i < count; i++) {
            items[i] = item_of(random_below(&random, 5), (queue_class)random_below(&random, QUEUE_CLASSES),
                               1 + (int)random_below(&random, 4), 0.25 * random_below(&random, 9));
            queue_wait expected = queue_before_new(&q, items[i].caller, items[i].class);
            assert_true(queue_push(&q, &items[i]));
            is_waiting[i] = 1;
            assert_int_equal(queue_before(&q, &items[i]).units, expected.units);
            if (random_below(&random, 4) == 0) {
                int gone = (int)random_below(&random, (uint32_t)i + 1);
                if (is_waiting[gone])
                    queue_remove(&q, &items[gone]);
                is_waiting[gone] = 0;
            }
        }
        check_predictions(&q, items, is_waiting, count);
        assert_int_equal(queue_length(&q), 0);
        for (int class = 0; class < QUEUE_CLASSES; class ++)
            assert_null(q.turn[class]);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(an_empty_queue_has_nothing),
        cmocka_unit_test(one_caller_is_served_in_order),
        cmocka_unit_test(a_caller_with_many_delays_another_by_one),
        cmocka_unit_test(units_take_turns_too),
        cmocka_unit_test(a_lower_class_never_delays_the_higher),
        cmocka_unit_test(predictions_are_what_happens),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
