/* Turns on sets of GPUs: nobody shares a GPU, who asked first is first, and sets without a common GPU do not wait. */
#include <pthread.h>
#include <stdatomic.h>
#include <time.h>

#include "cuda/turns.h"
#include "support.h"

#define DEVICES 5

static void sleep_ms(long ms)
{
    nanosleep(&(struct timespec){.tv_nsec = ms * 1000000}, NULL);
}

/* ---- exclusion --------------------------------------------------------------------------------------------------- */

#define THREADS 6
#define TURNS   300

static atomic_int users[DEVICES]; /* of a device now */
static atomic_int faults;
static long uses[DEVICES]; /* guarded by turns alone: ThreadSanitizer sees whether they are */

typedef struct player {
    uint32_t state;
    long uses[DEVICES];
} player;

static uint32_t next_number(uint32_t *state)
{
    *state = *state * 1664525u + 1013904223u;
    return *state >> 16;
}

static void *play(void *argument)
{
    player *p = argument;
    for (int i = 0; i < TURNS; i++) {
        int first = (int)(next_number(&p->state) % DEVICES), devices[2] = {first, (first + 1) % DEVICES};
        int count = 1 + (int)(next_number(&p->state) % 2);
        zi_turn turn;
        zi_turn_take(&turn, devices, count);
        for (int k = 0; k < count; k++) {
            faults += atomic_fetch_add(&users[devices[k]], 1) != 0;
            uses[devices[k]]++;
            p->uses[devices[k]]++;
        }
        for (int k = 0; k < count; k++)
            users[devices[k]]--;
        zi_turn_give(&turn);
    }
    return NULL;
}

static void a_device_has_one_user(void **state)
{
    pthread_t threads[THREADS];
    player players[THREADS] = {{0}};
    for (int i = 0; i < THREADS; i++) {
        players[i].state = (uint32_t)i + 1;
        assert_int_equal(pthread_create(&threads[i], NULL, play, &players[i]), 0);
    }
    for (int i = 0; i < THREADS; i++)
        pthread_join(threads[i], NULL);
    assert_int_equal(faults, 0);
    for (int d = 0; d < DEVICES; d++) {
        long expected = 0;
        for (int i = 0; i < THREADS; i++)
            expected += players[i].uses[d];
        assert_int_equal(uses[d], expected);
    }
}

/* ---- other sets -------------------------------------------------------------------------------------------------- */

typedef struct asker {
    int devices[2], count;
    atomic_int asks, has;
} asker;

static void *ask_once(void *argument)
{
    asker *a = argument;
    zi_turn turn;
    a->asks = 1;
    zi_turn_take(&turn, a->devices, a->count);
    a->has = 1;
    zi_turn_give(&turn);
    return NULL;
}

/* While one has GPUs 0 and 1, another gets 2 and 3 at once, and one that asks for 1 and 4 waits. */
static void other_sets_do_not_wait(void **state)
{
    const int held[] = {0, 1};
    asker same = {.devices = {4, 1}, .count = 2}, other = {.devices = {2, 3}, .count = 2};
    pthread_t waits, goes;
    zi_turn turn;
    zi_turn_take(&turn, held, 2);
    assert_int_equal(pthread_create(&waits, NULL, ask_once, &same), 0);
    while (!same.asks)
        sleep_ms(1);
    assert_int_equal(pthread_create(&goes, NULL, ask_once, &other), 0);
    pthread_join(goes, NULL); /* would not end if it waited */
    assert_int_equal(other.has, 1);
    assert_int_equal(same.has, 0);
    zi_turn_give(&turn);
    pthread_join(waits, NULL);
    assert_int_equal(same.has, 1);
}

/* ---- order ------------------------------------------------------------------------------------------------------- */

#define ROUNDS 40

typedef struct rival {
    int me;
    struct rival *other;
    atomic_int asked; /* how often */
} rival;

static int order[2 * ROUNDS], ordered; /* guarded by turns */

/* Keeps a turn until the other one has asked (or has finished), and a little longer, so that it stands in the line. */
static void *compete(void *argument)
{
    static const int devices[] = {0, 1};
    rival *r = argument;
    for (int i = 0; i < ROUNDS; i++) {
        zi_turn turn;
        r->asked++;
        zi_turn_take(&turn, devices, 2);
        order[ordered++] = r->me;
        while (r->other->asked <= i && r->other->asked < ROUNDS)
            sleep_ms(1);
        sleep_ms(1);
        zi_turn_give(&turn);
    }
    return NULL;
}

/* Who gives a turn back and asks again is behind the one that waits. A mutex lets one thread in again and again. */
static void turns_alternate(void **state)
{
    rival a = {.me = 0}, b = {.me = 1, .other = &a};
    pthread_t threads[2];
    int changes = 0;
    a.other = &b;
    assert_int_equal(pthread_create(&threads[0], NULL, compete, &a), 0);
    assert_int_equal(pthread_create(&threads[1], NULL, compete, &b), 0);
    pthread_join(threads[0], NULL);
    pthread_join(threads[1], NULL);
    assert_int_equal(ordered, 2 * ROUNDS);
    for (int i = 1; i < ordered; i++)
        changes += order[i] != order[i - 1];
    if (changes < ROUNDS) /* 2 ROUNDS - 1, but for a thread that loses its CPU before it stands in the line */
        fail_msg("%d changes in %d turns", changes, ordered);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_device_has_one_user),
        cmocka_unit_test(other_sets_do_not_wait),
        cmocka_unit_test(turns_alternate),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
