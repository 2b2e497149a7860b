#include "reading.h"

#include <stdlib.h>
#include <string.h>

#define PARSED_AT_ONCE ((size_t)256 << 10) /* bytes of a body that the daemon's thread parses itself */

typedef struct reading {
    struct reading *next;
    exchange *exchange; /* NULL: it is over. With the server's lock */
    body *body;
    uint64_t reserved; /* bytes of bodies that count as this one's */
    serve_dialect dialect;
    const form *form; /* NULL: the body is not parsed yet */
    serve_request request;
    fault fault;
    int is_queued, is_running, is_done; /* with the server's lock */
} reading;

struct reader {
    server *server;
    pthread_t thread;
    pthread_cond_t work;
    reading *first, *last;
    int is_stopping;
};

serve_request *exchange_request(exchange *x)
{
    return &x->reading->request;
}

/* With the lock. */
static void release(server *s, reading *r)
{
    s->metrics.upload_bytes -= r->reserved;
    s->jobs.input_bytes -= r->request.image_bytes;
    serve_request_free(&r->request);
    body_free(r->body);
    free(r);
}

/* With the lock. */
static void unqueue(struct reader *reader, const reading *r)
{
    reading *before = NULL, *at = reader->first;
    for (; at && at != r; at = at->next)
        before = at;
    if (!at)
        return;
    if (before)
        before->next = r->next;
    else
        reader->first = r->next;
    if (reader->last == r)
        reader->last = before;
}

void reading_leave(exchange *x)
{
    reading *r = x->reading;
    if (!r)
        return;
    x->reading = NULL;
    x->form = NULL;
    r->exchange = NULL;
    if (r->is_running)
        return; /* the thread releases it */
    if (r->is_queued)
        unqueue(x->http->reader, r);
    release(x->server, r);
}

/* ---- reading ---- */

/* Without the lock. */
static void read_body(const server *s, reading *r)
{
    if (!r->form && !body_finish(r->body, &r->form, &r->fault)) {
        r->form = NULL;
        return;
    }
    if (serve_request_read(r->form, r->dialect, &s->images, &r->request, &r->fault) && s->front)
        serve_request_encode(&r->request, &r->fault);
}

/* Decoded images of all requests and jobs together have a limit, as bodies have. With the lock. */
static void count_images(server *s, reading *r)
{
    if (s->jobs.input_bytes + r->request.image_bytes <= s->params->max_uploads || r->request.image_bytes == 0) {
        s->jobs.input_bytes += r->request.image_bytes;
        return;
    }
    r->request.image_bytes = 0;
    if (r->fault.code)
        return;
    fault_set(&r->fault, FAULT_INSUFFICIENT_MEMORY, NULL,
              "there are too many input images in the jobs that wait; try again later");
    r->fault.retry_after = 1;
}

static enum MHD_Result finish(exchange *x)
{
    const reading *r = x->reading;
    x->form = r->form;
    x->resume = NULL;
    if (!r->fault.code)
        return x->match.endpoint->handle(x);
    x->fault = r->fault;
    return answer_fault(x);
}

/* Goes on when the thread has read the request. */
static enum MHD_Result wait_for_reader(exchange *x)
{
    pthread_mutex_lock(&x->server->lock);
    int is_done = x->reading->is_done;
    if (!is_done && !x->http->is_closing && !x->is_gone) {
        x->resume = wait_for_reader;
        x->is_suspended = 1;
        MHD_suspend_connection(x->connection);
    }
    int goes_on = x->is_suspended;
    pthread_mutex_unlock(&x->server->lock);
    return is_done ? finish(x) : goes_on ? MHD_YES : MHD_NO;
}

static void enqueue(struct reader *reader, reading *r)
{
    pthread_mutex_lock(&reader->server->lock);
    r->is_queued = 1;
    if (reader->last)
        reader->last->next = r;
    else
        reader->first = r;
    reader->last = r;
    pthread_cond_signal(&reader->work);
    pthread_mutex_unlock(&reader->server->lock);
}

enum MHD_Result reading_begin(exchange *x)
{
    reading *r = x->reading = calloc(1, sizeof *r);
    if (!r) {
        fault_set(&x->fault, FAULT_INSUFFICIENT_MEMORY, NULL, "there is no memory for the request");
        return answer_fault(x);
    }
    *r = (reading){
        .exchange = x, .body = x->body, .reserved = x->reserved, .dialect = (serve_dialect)x->match.endpoint->dialect};
    x->body_hash = body_hash(x->body);
    x->body = NULL;
    x->reserved = 0;
    if (body_size(r->body) > PARSED_AT_ONCE) {
        enqueue(x->http->reader, r);
        return wait_for_reader(x);
    }
    if (!body_finish(r->body, &r->form, &r->fault))
        return finish(x);
    if (serve_request_shows_images(r->form, r->dialect)) {
        enqueue(x->http->reader, r);
        return wait_for_reader(x);
    }
    read_body(x->server, r);
    return finish(x);
}

/* ---- the thread ---- */

static void *run(void *user)
{
    struct reader *reader = user;
    server *s = reader->server;
    pthread_mutex_lock(&s->lock);
    while (!reader->is_stopping) {
        reading *r = reader->first;
        if (!r) {
            pthread_cond_wait(&reader->work, &s->lock);
            continue;
        }
        reader->first = r->next;
        reader->last = r->next ? reader->last : NULL;
        r->is_queued = 0;
        r->is_running = 1;
        pthread_mutex_unlock(&s->lock);
        read_body(s, r);
        pthread_mutex_lock(&s->lock);
        count_images(s, r);
        r->is_running = 0;
        r->is_done = 1;
        if (r->exchange)
            exchange_wake(r->exchange);
        else
            release(s, r);
    }
    pthread_mutex_unlock(&s->lock);
    return NULL;
}

struct reader *reader_start(server *s)
{
    struct reader *reader = calloc(1, sizeof *reader);
    if (!reader)
        return NULL;
    reader->server = s;
    pthread_cond_init(&reader->work, NULL);
    if (pthread_create(&reader->thread, NULL, run, reader) == 0)
        return reader;
    pthread_cond_destroy(&reader->work);
    free(reader);
    return NULL;
}

void reader_stop(struct reader *reader)
{
    pthread_mutex_lock(&reader->server->lock);
    reader->is_stopping = 1;
    pthread_cond_signal(&reader->work);
    pthread_mutex_unlock(&reader->server->lock);
    pthread_join(reader->thread, NULL);
    pthread_cond_destroy(&reader->work);
    free(reader);
}
