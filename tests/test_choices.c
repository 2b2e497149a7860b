/* What was measured to be fastest: sessions of one process share it, and one of them measures at a time. */
#include "base/choices.h"

#include <limits.h>
#include <pthread.h>
#include <stdatomic.h>
#include <sys/stat.h>

#include "files.h"
#include "support.h"

static int recall(const zi_choices *choices, int key)
{
    int value = -1;
    return zi_choices_recall(choices, "kind", &key, sizeof key, &value, sizeof value) ? value : -1;
}

static void remember(const zi_choices *choices, int key, int value)
{
    zi_choices_remember(choices, "kind", &key, sizeof key, &value, sizeof value);
}

/* Also without a file. Other devices and other folders have choices of their own. */
static void sessions_share_choices(void **state)
{
    char folder[PATH_MAX];
    const char *const folders[] = {NULL, folder};
    snprintf(folder, sizeof folder, "%s", temporary("cache"));
    assert_int_equal(mkdir(folder, 0700), 0);
    for (int i = 0; i < 2; i++) {
        zi_choices one, two, other, elsewhere;
        zi_choices_open(&one, folders[i], "cuda", "a device");
        zi_choices_open(&two, folders[i], "cuda", "a device");
        zi_choices_open(&other, folders[i], "cuda", "another device");
        zi_choices_open(&elsewhere, folders[1 - i], "cuda", "a device");
        remember(&one, 1, 10 + i);
        assert_int_equal(recall(&two, 1), 10 + i);
        assert_int_equal(recall(&other, 1), -1);
        assert_int_equal(recall(&elsewhere, 1), -1);
        zi_choices_close(&one);
        remember(&two, 1, 20 + i); /* the last value counts */
        assert_int_equal(recall(&two, 1), 20 + i);
        zi_choices_close(&two);
        zi_choices_close(&other);
        zi_choices_close(&elsewhere);
        zi_choices_open(&one, folders[i], "cuda", "a device");
        assert_int_equal(recall(&one, 1), i == 0 ? -1 : 21); /* only a file outlives the sessions */
        zi_choices_close(&one);
    }
}

#define THREADS 8

static atomic_int measured;

static void *measure(void *user)
{
    int *value = user;
    zi_choices choices;
    zi_choices_open(&choices, NULL, "cuda", "a device");
    zi_choices_lock(&choices);
    zi_choices_lock(&choices); /* a choice inside of a choice */
    if (recall(&choices, 7) < 0)
        remember(&choices, 7, 100 + atomic_fetch_add(&measured, 1));
    zi_choices_unlock(&choices);
    *value = recall(&choices, 7);
    zi_choices_unlock(&choices);
    zi_choices_close(&choices);
    return NULL;
}

static void one_measures_at_a_time(void **state)
{
    pthread_t threads[THREADS];
    int values[THREADS];
    zi_choices kept; /* so that no list ends before the others begin */
    zi_choices_open(&kept, NULL, "cuda", "a device");
    for (int i = 0; i < THREADS; i++)
        assert_int_equal(pthread_create(&threads[i], NULL, measure, &values[i]), 0);
    for (int i = 0; i < THREADS; i++)
        assert_int_equal(pthread_join(threads[i], NULL), 0);
    for (int i = 0; i < THREADS; i++)
        assert_int_equal(values[i], 100);
    assert_int_equal(atomic_load(&measured), 1);
    zi_choices_close(&kept);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(sessions_share_choices),
        cmocka_unit_test(one_measures_at_a_time),
    };
    return cmocka_run_group_tests(tests, make_temporary_folder, remove_temporary_folder);
}
