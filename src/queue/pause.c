#include "queue/pause.h"

#include <stdint.h>
#include <sys/random.h>
#include <time.h>

#include "base/clock.h"

void ledger_sleep(double seconds)
{
    struct timespec time = {.tv_sec = (time_t)seconds, .tv_nsec = (long)(1e9 * (seconds - (double)(time_t)seconds))};
    nanosleep(&time, NULL);
}

double ledger_random(void)
{
    uint32_t number = 0;
    if (getentropy(&number, sizeof number) != 0)
        number = (uint32_t)(1e9 * zi_now());
    return (double)number / UINT32_MAX;
}
