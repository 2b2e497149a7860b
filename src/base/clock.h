/* The clock for measuring durations; it never goes back. */
#ifndef ZI_BASE_CLOCK_H
#define ZI_BASE_CLOCK_H

#include <time.h>

static inline double zi_now(void) /* seconds */
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec + 1e-9 * (double)t.tv_nsec;
}

#endif
