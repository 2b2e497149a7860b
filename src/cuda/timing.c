/* The clock that chooses the fastest of several algorithms. */
#include "cuda/timing.h"
#include "cuda/internal.h"

#ifndef TIMED_RUNS
#define TIMED_RUNS 3 /* after one that warms up; on the emulated GPU fewer */
#endif

static zimage_status time_between(zi_cuda *cuda, const cudaEvent_t events[2], zi_cuda_work *work, const void *user,
                                  float *milliseconds)
{
    for (int i = 0; i <= TIMED_RUNS; i++) {
        if (i == 1)
            ZI_TRY(zi_cuda_result(cuda, cudaEventRecord(events[0], cuda->stream), "timing"));
        ZI_TRY(work(user));
    }
    ZI_TRY(zi_cuda_result(cuda, cudaEventRecord(events[1], cuda->stream), "timing"));
    ZI_TRY(zi_cuda_result(cuda, cudaEventSynchronize(events[1]), "timing"));
    return zi_cuda_result(cuda, cudaEventElapsedTime(milliseconds, events[0], events[1]), "timing");
}

zimage_status zi_cuda_time(zi_cuda *cuda, zi_cuda_work *work, const void *user, float *milliseconds)
{
    cudaEvent_t events[2] = {NULL, NULL};
    *milliseconds = 0;
    zimage_status status = zi_cuda_result(cuda, cudaEventCreate(&events[0]), "making an event");
    if (status == ZIMAGE_OK)
        status = zi_cuda_result(cuda, cudaEventCreate(&events[1]), "making an event");
    if (status == ZIMAGE_OK)
        status = time_between(cuda, events, work, user, milliseconds);
    for (int i = 0; i < 2; i++)
        if (events[i] != NULL)
            (void)cudaEventDestroy(events[i]);
    *milliseconds /= TIMED_RUNS;
    return status;
}
