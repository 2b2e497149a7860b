/*
 * A pool of threads. One thread at a time may call zi_pool_run.
 * Why not OpenMP: libgomp ends the process when it can't allocate memory or start a thread, and it keeps global state.
 */
#ifndef ZI_BASE_POOL_H
#define ZI_BASE_POOL_H

#include "base/error.h"

typedef struct zi_pool zi_pool;

/* threads: 1 to 1024, the calling thread included; 0: as many as there are CPUs for this process (zi_cpu_count). */
zimage_status zi_pool_new(int threads, zi_pool **pool, zimage_error *error);
void zi_pool_free(zi_pool *pool);
int zi_pool_threads(const zi_pool *pool);
/*
 * Calls fn(arg, task, worker) once for each task 0 .. tasks - 1 and returns when all calls have returned. The workers
 * share the tasks; worker 0 is the calling thread. Which worker takes which task changes from run to run, so results
 * must not depend on it.
 */
void zi_pool_run(zi_pool *pool, void (*fn)(void *arg, int64_t task, int worker), void *arg, int64_t tasks);

#endif
