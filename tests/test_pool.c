/* The thread pool. */
#include <pthread.h>
#include <stdatomic.h>

#include "base/cpu_count.h"
#include "base/pool.h"
#include "files.h"

#define MAX_TASKS   1000
#define MAX_THREADS 9

typedef struct counting {
    int threads;
    int times[MAX_TASKS];         /* not atomic: each task has its own element, and the caller reads after the run */
    atomic_int busy[MAX_THREADS]; /* a worker takes one task at a time */
    atomic_int mistakes;
} counting;

static void count_task(void *arg, int64_t task, int worker)
{
    counting *c = arg;
    if (worker < 0 || worker >= c->threads || atomic_fetch_add(&c->busy[worker], 1) != 0) {
        atomic_fetch_add(&c->mistakes, 1);
        return;
    }
    c->times[task]++;
    atomic_fetch_sub(&c->busy[worker], 1);
}

static void check_run(zi_pool *pool, int64_t tasks)
{
    counting *c = calloc(1, sizeof *c);
    c->threads = zi_pool_threads(pool);
    zi_pool_run(pool, count_task, c, tasks);
    assert_int_equal(c->mistakes, 0);
    for (int64_t i = 0; i < MAX_TASKS; i++)
        assert_int_equal(c->times[i], i < tasks);
    free(c);
}

static void pool_runs_each_task_once(void **state)
{
    const int threads[] = {1, 2, 3, MAX_THREADS};
    const int64_t tasks[] = {0, 1, 2, 3, 7, 64, MAX_TASKS};
    for (size_t t = 0; t < sizeof threads / sizeof *threads; t++) {
        zi_pool *pool;
        assert_int_equal(zi_pool_new(threads[t], &pool, NULL), ZIMAGE_OK);
        assert_int_equal(zi_pool_threads(pool), threads[t]);
        for (size_t i = 0; i < sizeof tasks / sizeof *tasks; i++)
            check_run(pool, tasks[i]);
        zi_pool_free(pool);
    }
}

/* Very short runs, with pauses so that the workers fall asleep. */
static void *stress_pool(void *arg)
{
    zi_pool *pool = NULL;
    int *sums = arg;
    if (zi_pool_new(3, &pool, NULL) != ZIMAGE_OK)
        return NULL;
    for (int round = 0; round < 3000; round++) {
        counting c = {.threads = 3};
        zi_pool_run(pool, count_task, &c, round % 6);
        for (int i = 0; i < 6; i++)
            *sums += c.times[i];
        if (round % 300 == 0)
            usleep(1000);
    }
    zi_pool_free(pool);
    return NULL;
}

static void pools_work_side_by_side(void **state)
{
    pthread_t threads[3];
    int sums[3] = {0};
    for (int i = 0; i < 3; i++)
        assert_int_equal(pthread_create(&threads[i], NULL, stress_pool, &sums[i]), 0);
    for (int i = 0; i < 3; i++)
        pthread_join(threads[i], NULL);
    for (int i = 0; i < 3; i++)
        assert_int_equal(sums[i], 500 * (0 + 1 + 2 + 3 + 4 + 5));
}

static void pool_checks_its_threads(void **state)
{
    zimage_error error = ZIMAGE_ERROR_INIT;
    zi_pool *pool;
    assert_error(&error, zi_pool_new(-1, &pool, &error), ZIMAGE_ERROR_ARGUMENT, "threads: -1, expected 0", NULL, NULL);
    assert_null(pool);
    assert_error(&error, zi_pool_new(100000, &pool, &error), ZIMAGE_ERROR_ARGUMENT, "threads: 100000", NULL, NULL);
    assert_int_equal(zi_pool_new(0, &pool, &error), ZIMAGE_OK);
    assert_int_equal(zi_pool_threads(pool), zi_cpu_count());
    zi_pool_free(pool);
    zi_pool_free(NULL);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(pool_runs_each_task_once),
        cmocka_unit_test(pools_work_side_by_side),
        cmocka_unit_test(pool_checks_its_threads),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
