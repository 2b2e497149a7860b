/* Streams of events (text/event-stream): those of a job, from where the client is, and comments that keep it alive. */
#include <stdlib.h>
#include <string.h>

#include "front.h"
#include "http.h"
#include "watch.h"

#define BLOCK        ((size_t)1 << 10) /* of a buffer that each stream has, and that chunks do not use */
#define PING_SECONDS 15

typedef struct stream {
    server *server;
    exchange *exchange; /* NULL: it has ended */
    job *job;           /* held */
    job_event *event;   /* held: the pieces point into it */
    stream_render *render;
    uint64_t cursor; /* the last event that was turned into pieces */
    pieces pieces;
    size_t sent; /* of the pieces */
    int is_last, wants_ping, shows;
} stream;

/* With the server's lock. */
static void drop_event(stream *s)
{
    pieces_clear(&s->pieces);
    s->sent = 0;
    if (s->event)
        job_event_release(s->event);
    s->event = NULL;
}

/* Fills the pieces with the next event that the client shall see; 0: there is none yet. With the lock. */
static int next_event(stream *s)
{
    drop_event(s);
    if (s->wants_ping) {
        s->wants_ping = 0;
        pieces_add_text(&s->pieces, ": ping\n\n");
        return 1;
    }
    while (!s->is_last && s->pieces.total == 0 && (s->event = job_next_event(s->job, s->cursor))) {
        s->cursor = s->event->number;
        s->is_last = s->render(s->exchange, s->event, &s->pieces);
        if (s->pieces.total == 0)
            drop_event(s);
    }
    return s->pieces.total > 0;
}

static ssize_t wait_or_end(stream *s)
{
    exchange *x = s->exchange;
    if (s->is_last)
        return MHD_CONTENT_READER_END_OF_STREAM;
    if (x->is_gone || x->http->is_closing)
        return MHD_CONTENT_READER_END_WITH_ERROR;
    x->wake_at = serve_now() + PING_SECONDS;
    x->is_suspended = 1;
    MHD_suspend_connection(x->connection);
    watch_at(x->http->watch, x->wake_at);
    return 0;
}

static ssize_t read_stream(void *user, uint64_t at, char *buffer, size_t most)
{
    stream *s = user;
    ssize_t count;
    (void)at;
    pthread_mutex_lock(&s->server->lock);
    if (!s->exchange || s->pieces.is_broken)
        count = MHD_CONTENT_READER_END_WITH_ERROR;
    else if (s->sent < s->pieces.total || next_event(s))
        s->sent += (size_t)(count = (ssize_t)pieces_read(&s->pieces, s->sent, buffer, most));
    else
        count = wait_or_end(s);
    pthread_mutex_unlock(&s->server->lock);
    return count;
}

static void free_stream(void *user)
{
    stream *s = user;
    server *owner = s->server;
    pthread_mutex_lock(&owner->lock);
    drop_event(s);
    owner->metrics.streams--;
    front_streams(owner, s->job, -s->shows);
    if (s->exchange)
        s->exchange->stream = NULL;
    job_release(&owner->jobs, s->job);
    pthread_mutex_unlock(&owner->lock);
    free(s);
}

void stream_detach(exchange *x)
{
    if (x->stream)
        x->stream->exchange = NULL;
    x->stream = NULL;
}

void stream_ping(exchange *x, double now)
{
    x->stream->wants_ping = 1;
    x->wake_at = now + PING_SECONDS;
}

enum MHD_Result answer_stream(exchange *x, stream_render *render, uint64_t after, int shows)
{
    stream *s = calloc(1, sizeof *s);
    if (!s)
        return MHD_NO;
    pthread_mutex_lock(&x->server->lock);
    *s = (stream){.server = x->server,
                  .exchange = x,
                  .job = job_hold(x->job),
                  .render = render,
                  .cursor = after,
                  .wants_ping = 1,
                  .shows = shows};
    x->stream = s;
    x->server->metrics.streams++;
    front_streams(x->server, x->job, shows);
    pthread_mutex_unlock(&x->server->lock);
    struct MHD_Response *response =
        MHD_create_response_from_callback(MHD_SIZE_UNKNOWN, BLOCK, read_stream, s, free_stream);
    if (!response) {
        free_stream(s);
        return MHD_NO;
    }
    MHD_add_response_header(response, MHD_HTTP_HEADER_CONTENT_TYPE, "text/event-stream");
    MHD_add_response_header(response, MHD_HTTP_HEADER_CACHE_CONTROL, "no-store");
    MHD_add_response_header(response, "X-Accel-Buffering", "no");
    return exchange_send(x, MHD_HTTP_OK, response);
}
