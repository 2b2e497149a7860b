#include "base/pool.h"

#include <errno.h>
#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdlib.h>

#include "base/cpu_count.h"
#include "base/signals.h"
#include "base/stack.h"

/*
 * state = generation << 32 | OPEN | number of workers inside the job.
 * A run stores a new generation with OPEN set. A worker enters the job by adding 1 while OPEN is set. When no task is
 * left the caller clears OPEN and waits until no worker is inside. So a run never waits for a worker that is still
 * asleep, and the fields of the job change only while no worker reads them.
 */
#define OPEN   ((uint64_t)1 << 31)
#define INSIDE (OPEN - 1)

#define MAX_THREADS 1024
/* Attempts before a waiting thread sleeps: some tens of microseconds, about as long as it takes to wake a thread. */
#define SPINS 1000

typedef struct worker {
    zi_pool *pool;
    int index;
    pthread_t thread;
} worker;

struct zi_pool {
    int threads;
    int spins; /* 0 where there are more threads than CPUs: a spinning thread would take the time of a working one */
    pthread_mutex_t lock;
    pthread_cond_t started, finished;
    int sleepers; /* workers waiting for `started`; under lock */
    atomic_int stop;
    _Atomic uint64_t state;
    void (*fn)(void *arg, int64_t task, int worker);
    void *arg;
    int64_t tasks;
    _Atomic int64_t next; /* the first task that no worker has taken */
    worker workers[];     /* threads - 1: worker 0 is the caller */
};

static uint32_t generation(uint64_t state)
{
    return (uint32_t)(state >> 32);
}

static void spin_hint(void)
{
#if defined(__x86_64__) || defined(__i386__)
    __builtin_ia32_pause();
#elif defined(__aarch64__)
    __asm__ volatile("yield");
#endif
}

static void take_tasks(zi_pool *pool, int index)
{
    int64_t task;
    while ((task = atomic_fetch_add_explicit(&pool->next, 1, memory_order_relaxed)) < pool->tasks)
        pool->fn(pool->arg, task, index);
}

/* Waits for a generation other than `seen`; returns the state. */
static uint64_t await_generation(zi_pool *pool, uint32_t seen)
{
    uint64_t state;
    for (int i = 0; i < pool->spins; i++) {
        state = atomic_load_explicit(&pool->state, memory_order_acquire);
        if (generation(state) != seen)
            return state;
        spin_hint();
    }
    pthread_mutex_lock(&pool->lock);
    pool->sleepers++;
    while (generation(state = atomic_load_explicit(&pool->state, memory_order_acquire)) == seen)
        pthread_cond_wait(&pool->started, &pool->lock);
    pool->sleepers--;
    pthread_mutex_unlock(&pool->lock);
    return state;
}

/* Waits for a job and enters it: 1. The pool ends: 0. */
static int enter_job(zi_pool *pool, uint32_t *seen)
{
    for (;;) {
        uint64_t state = await_generation(pool, *seen);
        if (atomic_load_explicit(&pool->stop, memory_order_relaxed))
            return 0;
        *seen = generation(state);
        while (state & OPEN) {
            if (atomic_compare_exchange_weak_explicit(&pool->state, &state, state + 1, memory_order_acquire,
                                                      memory_order_relaxed)) {
                *seen = generation(state); /* the exchange may have met a later generation */
                return 1;
            }
        }
    }
}

static void leave_job(zi_pool *pool)
{
    uint64_t before = atomic_fetch_sub_explicit(&pool->state, 1, memory_order_release);
    if ((before & (OPEN | INSIDE)) != 1)
        return;
    pthread_mutex_lock(&pool->lock);
    pthread_cond_signal(&pool->finished);
    pthread_mutex_unlock(&pool->lock);
}

static void *worker_main(void *arg)
{
    worker *self = arg;
    uint32_t seen = 0;
    while (enter_job(self->pool, &seen)) {
        take_tasks(self->pool, self->index);
        leave_job(self->pool);
    }
    return NULL;
}

/* Publishes a new generation and wakes `wanted` sleeping workers, or all where there are fewer. */
static void start_generation(zi_pool *pool, uint64_t flags, int64_t wanted)
{
    pthread_mutex_lock(&pool->lock);
    uint64_t next = (uint64_t)(generation(atomic_load_explicit(&pool->state, memory_order_relaxed)) + 1) << 32;
    atomic_store_explicit(&pool->state, next | flags, memory_order_release);
    int sleepers = pool->sleepers;
    pthread_mutex_unlock(&pool->lock);
    if (sleepers <= wanted) {
        if (sleepers > 0)
            pthread_cond_broadcast(&pool->started);
        return;
    }
    for (int64_t i = 0; i < wanted; i++)
        pthread_cond_signal(&pool->started);
}

static int any_worker_inside(zi_pool *pool)
{
    return (atomic_load_explicit(&pool->state, memory_order_acquire) & INSIDE) != 0;
}

static void finish_job(zi_pool *pool)
{
    atomic_fetch_and_explicit(&pool->state, ~OPEN, memory_order_acq_rel);
    for (int i = 0; i < pool->spins && any_worker_inside(pool); i++)
        spin_hint();
    if (!any_worker_inside(pool))
        return;
    pthread_mutex_lock(&pool->lock);
    while (any_worker_inside(pool))
        pthread_cond_wait(&pool->finished, &pool->lock);
    pthread_mutex_unlock(&pool->lock);
}

void zi_pool_run(zi_pool *pool, void (*fn)(void *arg, int64_t task, int worker), void *arg, int64_t tasks)
{
    if (pool->threads == 1 || tasks <= 1) {
        for (int64_t task = 0; task < tasks; task++)
            fn(arg, task, 0);
        return;
    }
    pool->fn = fn;
    pool->arg = arg;
    pool->tasks = tasks;
    atomic_store_explicit(&pool->next, 0, memory_order_relaxed);
    start_generation(pool, OPEN, tasks - 1);
    take_tasks(pool, 0);
    finish_job(pool);
}

static void end_workers(zi_pool *pool, int count)
{
    atomic_store_explicit(&pool->stop, 1, memory_order_relaxed);
    start_generation(pool, 0, INT64_MAX);
    for (int i = 0; i < count; i++)
        pthread_join(pool->workers[i].thread, NULL);
}

/*
 * Returns how many workers were started; *code is 0 or an errno value. Workers block the signals of the process, which
 * are handled by the threads of the application.
 */
static int start_workers(zi_pool *pool, int *code)
{
    sigset_t all, before;
    int count = 0;
    zi_signals_from_elsewhere(&all);
    *code = pthread_sigmask(SIG_SETMASK, &all, &before);
    if (*code != 0)
        return 0;
    for (; count < pool->threads - 1; count++) {
        worker *w = &pool->workers[count];
        w->pool = pool;
        w->index = count + 1;
        *code = zi_thread_start(&w->thread, worker_main, w);
        if (*code != 0)
            break;
    }
    pthread_sigmask(SIG_SETMASK, &before, NULL);
    return count;
}

/* Returns an errno value. */
static int init_sync(zi_pool *pool)
{
    int code = pthread_mutex_init(&pool->lock, NULL);
    if (code != 0)
        return code;
    code = pthread_cond_init(&pool->started, NULL);
    if (code == 0) {
        code = pthread_cond_init(&pool->finished, NULL);
        if (code == 0)
            return 0;
        pthread_cond_destroy(&pool->started);
    }
    pthread_mutex_destroy(&pool->lock);
    return code;
}

static void destroy_pool(zi_pool *pool)
{
    pthread_cond_destroy(&pool->finished);
    pthread_cond_destroy(&pool->started);
    pthread_mutex_destroy(&pool->lock);
    free(pool);
}

zimage_status zi_pool_new(int threads, zi_pool **pool, zimage_error *error)
{
    int cpus = zi_cpu_count(), code = 0;
    *pool = NULL;
    if (threads < 0 || threads > MAX_THREADS)
        return zi_fail(error, ZIMAGE_ERROR_ARGUMENT, "threads: %d, expected 0 (as many as there are CPUs) to %d",
                       threads, MAX_THREADS);
    if (threads == 0)
        threads = cpus < MAX_THREADS ? cpus : MAX_THREADS;
    size_t bytes = sizeof(zi_pool) + (size_t)(threads - 1) * sizeof(worker);
    zi_pool *made = calloc(1, bytes);
    if (!made)
        return zi_fail_memory(error, "the thread pool", bytes);
    made->threads = threads;
    made->spins = threads <= cpus ? SPINS : 0;
    code = init_sync(made);
    if (code != 0) {
        free(made);
        return zi_fail_errno(error, ZIMAGE_ERROR_INTERNAL, code, "the thread pool can't be made");
    }
    int count = start_workers(made, &code);
    if (code != 0) {
        end_workers(made, count);
        destroy_pool(made);
        return zi_fail_errno(error, ZIMAGE_ERROR_INTERNAL, code, "thread %d of %d can't be started", count + 2,
                             threads);
    }
    *pool = made;
    return ZIMAGE_OK;
}

void zi_pool_free(zi_pool *pool)
{
    if (!pool)
        return;
    end_workers(pool, pool->threads - 1);
    destroy_pool(pool);
}

int zi_pool_threads(const zi_pool *pool)
{
    return pool->threads;
}
