#include "queue/heart.h"

#include <errno.h>
#include <poll.h>
#include <signal.h>
#include <string.h>
#include <unistd.h>

#include "base/error.h"
#include "base/stack.h"

#define BEATS 3 /* in a lease */

static int has_ended(void *user)
{
    ledger_heart *heart = user;
    pthread_mutex_lock(&heart->lock);
    int ends = heart->ends;
    pthread_mutex_unlock(&heart->lock);
    return ends;
}

/* Sleeps until the next beat; 0: the worker ends. poll counts time as the system's clock that is never set. */
static int wait_for_beat(ledger_heart *heart)
{
    double end = zi_now() + heart->claiming->lease_seconds / BEATS;
    struct pollfd wake = {.fd = heart->wake[0], .events = POLLIN};
    while (!has_ended(heart)) {
        double left = end - zi_now();
        if (left <= 0)
            return 1;
        poll(&wake, 1, (int)(1000 * left) + 1);
    }
    return 0;
}

static void note_lost(ledger_heart *heart, const ledger_hold *asked, const int *is_mine, size_t count)
{
    pthread_mutex_lock(&heart->lock);
    for (size_t i = 0; i < count; i++)
        for (size_t k = 0; k < heart->count; k++)
            if (!is_mine[i] && heart->held[k].id == asked[i].id && !strcmp(heart->held[k].lease, asked[i].lease))
                heart->is_lost[k] = 1;
    pthread_mutex_unlock(&heart->lock);
}

/* Without the lock while the database answers. A database that is gone is asked again until it is there. */
static void beat(ledger_heart *heart)
{
    ledger_hold asked[HEART_HOLDS];
    int is_mine[HEART_HOLDS];
    const ledger_patience patience = {.stopping = has_ended, .user = heart};
    ledger_result answer = LEDGER_LOST;
    while (answer == LEDGER_LOST) {
        pthread_mutex_lock(&heart->lock);
        size_t count = heart->count;
        memcpy(asked, heart->held, count * sizeof *asked);
        pthread_mutex_unlock(&heart->lock);
        answer = LEDGER_OK;
        if (count > 0)
            answer = ledger_renew(heart->l, asked, count, heart->claiming->lease_seconds, is_mine, NULL);
        if (answer == LEDGER_OK && count > 0)
            note_lost(heart, asked, is_mine, count);
        if (answer == LEDGER_OK)
            answer = ledger_announce(heart->l, heart->claiming->worker, heart->claiming->model,
                                     heart->claiming->lease_seconds, NULL);
        if (answer == LEDGER_LOST && ledger_persist(heart->l, &patience, NULL) != LEDGER_OK)
            return;
    }
}

static void *run(void *argument)
{
    ledger_heart *heart = argument;
    while (wait_for_beat(heart))
        beat(heart);
    return NULL;
}

/* Signals are the main thread's: they interrupt its waiting. */
static int start(ledger_heart *heart)
{
    sigset_t all, before;
    sigfillset(&all);
    pthread_sigmask(SIG_SETMASK, &all, &before);
    int code = zi_thread_start(&heart->thread, run, heart);
    pthread_sigmask(SIG_SETMASK, &before, NULL);
    return code;
}

static void close_pipe(ledger_heart *heart)
{
    close(heart->wake[0]);
    close(heart->wake[1]);
}

ledger_result ledger_heart_begin(ledger_heart *heart, const char *target, const ledger_claiming *claiming,
                                 zimage_error *error)
{
    *heart = (ledger_heart){.claiming = claiming};
    ledger_result answer = ledger_open(target, "zimage heartbeat", 1, &heart->l, error);
    if (answer != LEDGER_OK)
        return answer;
    pthread_mutex_init(&heart->lock, NULL);
    int code = pipe(heart->wake) == 0 ? start(heart) : errno;
    if (code == 0)
        return LEDGER_OK;
    zi_fail_errno(error, ZIMAGE_ERROR_INTERNAL, code, "no thread for heartbeats can be started");
    if (heart->wake[1] > 0)
        close_pipe(heart);
    pthread_mutex_destroy(&heart->lock);
    ledger_close(heart->l);
    heart->l = NULL;
    return LEDGER_FAILED;
}

void ledger_heart_end(ledger_heart *heart)
{
    if (!heart->l)
        return;
    pthread_mutex_lock(&heart->lock);
    heart->ends = 1;
    pthread_mutex_unlock(&heart->lock);
    while (write(heart->wake[1], "", 1) < 0 && errno == EINTR) {
    }
    pthread_join(heart->thread, NULL);
    close_pipe(heart);
    pthread_mutex_destroy(&heart->lock);
    ledger_close(heart->l);
    heart->l = NULL;
}

void ledger_heart_take(ledger_heart *heart, const ledger_job *job)
{
    pthread_mutex_lock(&heart->lock);
    if (heart->count < HEART_HOLDS) { /* a worker's limits are below */
        ledger_hold *hold = &heart->held[heart->count];
        hold->id = job->id;
        memcpy(hold->lease, job->lease, sizeof hold->lease);
        heart->is_lost[heart->count++] = 0;
    }
    pthread_mutex_unlock(&heart->lock);
}

void ledger_heart_drop(ledger_heart *heart, int64_t id)
{
    pthread_mutex_lock(&heart->lock);
    for (size_t i = 0; i < heart->count; i++)
        if (heart->held[i].id == id) {
            heart->held[i] = heart->held[--heart->count];
            heart->is_lost[i] = heart->is_lost[heart->count];
            break;
        }
    pthread_mutex_unlock(&heart->lock);
}

int ledger_heart_has_lost(ledger_heart *heart, int64_t id)
{
    int is_lost = 0;
    pthread_mutex_lock(&heart->lock);
    for (size_t i = 0; i < heart->count; i++)
        if (heart->held[i].id == id)
            is_lost = heart->is_lost[i];
    pthread_mutex_unlock(&heart->lock);
    return is_lost;
}
