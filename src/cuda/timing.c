/* The clock that chooses the fastest of several algorithms. */
#include "cuda/timing.h"
#include "cuda/internal.h"

#ifndef TIMED_RUNS
#define TIMED_RUNS 6 /* after one that warms up; on the emulated GPU fewer */
#endif
#ifndef TIMED_ROUNDS
#define TIMED_ROUNDS 4 /* after one that leaves only the ways that are nearly the fastest; on the emulated GPU fewer */
#endif
#define NEAR 1.1f /* times the fastest one's time */

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

/* Milliseconds of ways: their sum over some rounds; negative: it failed, or others are faster. */
typedef struct contest {
    const zi_cuda_way *ways;
    int count;
    float taken[ZI_CUDA_WAYS_MAX];
} contest;

static int leader(const contest *c)
{
    int best = -1;
    for (int i = 0; i < c->count; i++)
        if (c->taken[i] >= 0 && (best < 0 || c->taken[i] < c->taken[best]))
            best = i;
    return best;
}

static void play_round(zi_cuda *cuda, contest *c)
{
    for (int i = 0; i < c->count; i++) {
        float taken = 0;
        if (c->taken[i] >= 0)
            c->taken[i] = zi_cuda_time(cuda, c->ways[i].work, c->ways[i].user, &taken) ? -1 : c->taken[i] + taken;
    }
}

void zi_cuda_fastest(zi_cuda *cuda, const zi_cuda_way *ways, int count, int *best)
{
    contest c = {.ways = ways, .count = count};
    play_round(cuda, &c);
    int first = leader(&c), near = 0;
    for (int i = 0; i < count && first >= 0; i++) {
        int stays = c.taken[i] >= 0 && c.taken[i] <= NEAR * c.taken[first];
        near += stays;
        c.taken[i] = stays ? 0 : -1;
    }
    for (int round = 0; round < TIMED_ROUNDS && near > 1; round++)
        play_round(cuda, &c);
    first = leader(&c);
    *best = first < 0 ? 0 : first;
}
