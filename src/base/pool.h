/*
 * A pool of threads owned by one context. zi_pool_run calls fn(arg, task, worker) once for each task 0 .. tasks-1,
 * spread over the workers (worker 0 is the calling thread), and returns when all are done. Which worker takes which
 * task is not fixed: results must not depend on it.
 * Not OpenMP: libgomp ends the process when it can't allocate or start a thread, and keeps global state.
 */
#ifndef ZI_BASE_POOL_H
#define ZI_BASE_POOL_H

#include "base/error.h"

typedef struct zi_pool zi_pool;

/* threads: 0 = as many as the process may run on (affinity and cgroup aware). */
zimage_status zi_pool_new(int threads, zi_pool **pool, zimage_error *error);
void zi_pool_free(zi_pool *pool);
int zi_pool_threads(const zi_pool *pool);
void zi_pool_run(zi_pool *pool, void (*fn)(void *arg, int64_t task, int worker), void *arg, int64_t tasks);

#endif
