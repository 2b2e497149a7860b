#include "queue/heart.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdlib.h>
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

/* Takes what others have to say. 0: the connection is lost. */
static int hear(ledger_heart *heart)
{
    char bytes[64];
    while (read(heart->wake[0], bytes, sizeof bytes) == (ssize_t)sizeof bytes) {
    }
    int is_there = PQconsumeInput(heart->l->connection);
    for (PGnotify *notify; (notify = PQnotifies(heart->l->connection));) {
        long long job = strtoll(notify->extra, NULL, 10);
        if (job > 0)
            ledger_news_ask(&heart->news, job);
        PQfreemem(notify);
    }
    return is_there;
}

/* Sleeps until the next beat, and tells news meanwhile; 0: the worker ends. A beat finds a lost connection again. poll
 * counts time as the system's clock that is never set. */
static int wait_for_beat(ledger_heart *heart)
{
    double end = zi_now() + heart->claiming->lease_seconds / BEATS;
    while (!has_ended(heart)) {
        double left = end - zi_now(), due = ledger_news_due(&heart->news), pause = left < due ? left : due;
        if (left <= 0)
            return 1;
        if (due <= 0 && ledger_news_send(&heart->news, heart->l) == LEDGER_LOST)
            return 1;
        if (due <= 0)
            continue;
        struct pollfd fds[] = {{.fd = heart->wake[0], .events = POLLIN},
                               {.fd = PQsocket(heart->l->connection), .events = POLLIN}};
        if (poll(fds, 2, (int)(1000 * pause) + 1) > 0 && !hear(heart))
            return 1;
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
        if (answer == LEDGER_LOST)
            ledger_news_listen(heart->l, heart->claiming->worker, NULL); /* each beat asks as well */
    }
    ledger_news_ask(&heart->news, 0);
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

static int open_pipe(ledger_heart *heart)
{
    if (pipe(heart->wake) != 0)
        return errno;
    for (int i = 0; i < 2; i++)
        if (fcntl(heart->wake[i], F_SETFL, O_NONBLOCK) != 0 || fcntl(heart->wake[i], F_SETFD, FD_CLOEXEC) != 0)
            return errno;
    return 0;
}

static void close_all(ledger_heart *heart)
{
    for (int i = 0; i < 2; i++)
        if (heart->wake[i] >= 0)
            close(heart->wake[i]);
    ledger_news_free(&heart->news);
    pthread_mutex_destroy(&heart->lock);
    ledger_close(heart->l);
    heart->l = NULL;
}

ledger_result ledger_heart_begin(ledger_heart *heart, const char *target, const ledger_claiming *claiming,
                                 zimage_error *error)
{
    *heart = (ledger_heart){.claiming = claiming, .wake = {-1, -1}};
    ledger_result answer = ledger_open(target, "zimage heartbeat", 1, &heart->l, error);
    if (answer != LEDGER_OK)
        return answer;
    int code = open_pipe(heart);
    pthread_mutex_init(&heart->lock, NULL);
    ledger_news_init(&heart->news, heart->wake[1]);
    if (code == 0)
        answer = ledger_news_listen(heart->l, claiming->worker, error);
    if (code == 0 && answer == LEDGER_OK)
        code = start(heart);
    if (code == 0 && answer == LEDGER_OK)
        return answer;
    if (code != 0)
        zi_fail_errno(error, ZIMAGE_ERROR_INTERNAL, code, "no thread for heartbeats can be started");
    close_all(heart);
    return code ? LEDGER_FAILED : answer;
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
    close_all(heart);
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
