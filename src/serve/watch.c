/* The watcher: a thread that notices what the daemon's thread can't see of suspended connections. */
#include "watch.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#ifndef MSG_NOSIGNAL
#define MSG_NOSIGNAL 0 /* the program ignores SIGPIPE */
#endif
#ifndef POLLRDHUP
#define POLLRDHUP 0 /* without it, POLLHUP alone tells that the client is gone */
#endif

#define FOREVER 3600.0 /* seconds; longer than any time that is waited for */

struct watch {
    http *http;
    pthread_t thread;
    int wake[2]; /* a pipe */
    int is_stopping;
    struct peer *peers;
    size_t count;
    uint64_t serial;
    double next; /* when the thread looks again by itself */
};

static void wake(struct watch *w)
{
    char byte = 0;
    while (write(w->wake[1], &byte, 1) < 0 && errno == EINTR) {
    }
}

/* ---- peers; with the server's lock ---- */

peer *watch_add(struct watch *w, int fd, double deadline)
{
    peer *p = calloc(1, sizeof *p);
    if (!p)
        return NULL;
    *p = (peer){.next = w->peers, .fd = fd, .serial = ++w->serial, .deadline = deadline};
    if (w->peers)
        w->peers->before = p;
    w->peers = p;
    w->count++;
    wake(w);
    return p;
}

void watch_remove(struct watch *w, peer *p)
{
    if (p->next)
        p->next->before = p->before;
    if (p->before)
        p->before->next = p->next;
    else
        w->peers = p->next;
    w->count--;
    free(p);
}

void watch_at(struct watch *w, double time)
{
    if (time > 0 && time < w->next)
        wake(w);
}

/* ---- the thread ---- */

typedef struct set {
    struct pollfd *fds;
    uint64_t *serials;
    size_t allocated, count;
} set;

static int grow(set *s, size_t allocated)
{
    void *fds = realloc(s->fds, allocated * sizeof *s->fds);
    if (!fds)
        return 0;
    s->fds = fds;
    void *serials = realloc(s->serials, allocated * sizeof *s->serials);
    if (!serials)
        return 0;
    s->serials = serials;
    s->allocated = allocated;
    return 1;
}

/* 0: no memory. The first is the pipe. */
static int fill(struct watch *w, set *s)
{
    if ((!s->fds || !s->serials || w->count + 1 > s->allocated) && !grow(s, 2 * (w->count + 1)))
        return 0;
    s->fds[0] = (struct pollfd){.fd = w->wake[0], .events = POLLIN};
    s->count = 1;
    for (const peer *p = w->peers; p; p = p->next)
        if (!p->is_gone) {
            s->fds[s->count] = (struct pollfd){.fd = p->fd, .events = POLLRDHUP};
            s->serials[s->count++] = p->serial;
        }
    return 1;
}

/* Tells exchanges that wait, and ends connections that have no whole request. New peers come first, so the serials of
 * both lists fall. */
static void mark_gone(const struct watch *w, const set *s)
{
    peer *p = w->peers;
    for (size_t i = 1; i < s->count; i++) {
        while (p && p->serial > s->serials[i])
            p = p->next;
        if (!p || p->serial != s->serials[i] || !s->fds[i].revents)
            continue;
        p->is_gone = 1;
        if (p->exchange && p->exchange->is_whole) {
            p->exchange->is_gone = 1;
            exchange_wake(p->exchange);
        } else {
            shutdown(p->fd,
                     SHUT_RDWR); /* the rest of the request will never come; libmicrohttpd may have missed that */
        }
    }
}

/* The daemon closes the connection. A client whose body is late is told so before; within TLS that can't be done. */
static void end_connection(peer *p)
{
    exchange *x = p->exchange;
    if (x && x->is_reading && !x->is_whole && !x->server->params->tls_cert) {
        char *answer = answer_late(x);
        x->is_late = answer && send(p->fd, answer, strlen(answer), MSG_NOSIGNAL | MSG_DONTWAIT) > 0;
        free(answer);
    }
    shutdown(p->fd, SHUT_RDWR);
}

/* Does what is due, and returns when the next thing is. */
static double keep_times(struct watch *w)
{
    double now = serve_now(), next = now + FOREVER;
    for (peer *p = w->peers; p; p = p->next) {
        exchange *x = p->exchange;
        if (p->deadline > 0 && p->deadline <= now) {
            p->deadline = 0;
            end_connection(p);
        }
        if (x && x->wake_at > 0 && x->wake_at <= now) {
            x->wake_at = 0;
            if (x->stream)
                stream_ping(x, now);
            exchange_wake(x);
        }
        if (p->deadline > 0 && p->deadline < next)
            next = p->deadline;
        if (x && x->wake_at > 0 && x->wake_at < next)
            next = x->wake_at;
    }
    return next;
}

static void *run(void *user)
{
    struct watch *w = user;
    server *s = w->http->server;
    set polled = {0};
    char bytes[256];
    pthread_mutex_lock(&s->lock);
    while (!w->is_stopping) {
        double next = w->next = keep_times(w), now = serve_now();
        int has_set = fill(w, &polled);
        pthread_mutex_unlock(&s->lock);
        int timeout = next > now ? (int)((next - now) * 1000) + 1 : 0;
        int count = has_set ? poll(polled.fds, polled.count, timeout) : (usleep(100000), 0);
        pthread_mutex_lock(&s->lock);
        while (read(w->wake[0], bytes, sizeof bytes) == (ssize_t)sizeof bytes) {
        }
        if (count > 0)
            mark_gone(w, &polled);
    }
    pthread_mutex_unlock(&s->lock);
    free(polled.fds);
    free(polled.serials);
    return NULL;
}

struct watch *watch_start(http *h)
{
    struct watch *w = calloc(1, sizeof *w);
    if (!w)
        return NULL;
    w->http = h;
    if (pipe(w->wake) != 0) {
        free(w);
        return NULL;
    }
    for (int i = 0; i < 2; i++) {
        fcntl(w->wake[i], F_SETFL, O_NONBLOCK);
        fcntl(w->wake[i], F_SETFD, FD_CLOEXEC);
    }
    if (pthread_create(&w->thread, NULL, run, w) != 0) {
        close(w->wake[0]);
        close(w->wake[1]);
        free(w);
        return NULL;
    }
    return w;
}

void watch_stop(struct watch *w)
{
    pthread_mutex_lock(&w->http->server->lock);
    w->is_stopping = 1;
    wake(w);
    pthread_mutex_unlock(&w->http->server->lock);
    pthread_join(w->thread, NULL);
    close(w->wake[0]);
    close(w->wake[1]);
    free(w);
}
