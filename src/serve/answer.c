/* Answers: JSON, faults, images; with the headers that all of them have. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "handlers.h"
#include "thumb.h"

#define BLOCK ((size_t)32 << 10) /* bytes that are made at a time */

static void add_headers(const exchange *x, struct MHD_Response *response)
{
    MHD_add_response_header(response, "X-Content-Type-Options", "nosniff");
    MHD_add_response_header(response, "X-Request-Id", x->id);
    if (!x->origin)
        return;
    MHD_add_response_header(response, "Access-Control-Allow-Origin", x->origin);
    MHD_add_response_header(response, "Vary", "Origin");
    if (strcmp(x->method, "OPTIONS") != 0)
        return;
    MHD_add_response_header(response, "Access-Control-Allow-Methods", "GET, POST, DELETE");
    MHD_add_response_header(response, "Access-Control-Allow-Headers", "Authorization, Content-Type, Last-Event-ID");
}

enum MHD_Result exchange_send(exchange *x, int status, struct MHD_Response *response)
{
    if (!response)
        return MHD_NO;
    add_headers(x, response);
    enum MHD_Result result = MHD_queue_response(x->connection, (unsigned)status, response);
    MHD_destroy_response(response);
    x->status = result == MHD_YES ? status : 0;
    return result;
}

static struct MHD_Response *text_response(const char *type, char *text)
{
    struct MHD_Response *response =
        text ? MHD_create_response_from_buffer(strlen(text), text, MHD_RESPMEM_MUST_FREE) : NULL;
    if (!response)
        free(text);
    else
        MHD_add_response_header(response, MHD_HTTP_HEADER_CONTENT_TYPE, type);
    return response;
}

enum MHD_Result answer_text(exchange *x, int status, const char *type, char *text)
{
    return exchange_send(x, status, text_response(type, text));
}

enum MHD_Result answer_json(exchange *x, int status, json_t *value)
{
    char *text = value ? json_dumps(value, JSON_COMPACT | JSON_ENCODE_ANY) : NULL;
    json_decref(value);
    return answer_text(x, status, "application/json", text);
}

enum MHD_Result answer_empty(exchange *x, int status)
{
    struct MHD_Response *response = MHD_create_response_from_buffer(0, NULL, MHD_RESPMEM_PERSISTENT);
    if (response && x->match.allow[0])
        MHD_add_response_header(response, MHD_HTTP_HEADER_ALLOW, x->match.allow);
    return exchange_send(x, status, response);
}

/* As AUTOMATIC1111 sends errors. */
static json_t *sdapi_fault_json(const fault *f)
{
    return json_pack("{s:s, s:s, s:s, s:s}", "error", fault_kind_of(f->code)->code, "detail", f->message, "body", "",
                     "errors", f->message);
}

/* NULL: no memory. Released with free. */
static char *fault_text(const exchange *x, const fault *f)
{
    int is_sdapi = x->match.endpoint && (x->match.endpoint->flags & ROUTE_SDAPI);
    json_t *value = is_sdapi ? sdapi_fault_json(f) : json_pack("{s:o?}", "error", fault_json(f));
    char *text = value ? json_dumps(value, JSON_COMPACT) : NULL;
    json_decref(value);
    return text;
}

char *answer_late(const exchange *x)
{
    fault f;
    fault_set(&f, FAULT_BODY_TIMEOUT, NULL, "the body took too long, expected it within %.0f seconds",
              x->server->params->body_seconds);
    char *text = fault_text(x, &f), *answer = NULL;
    if (text && asprintf(&answer,
                         "HTTP/1.1 %d Request Timeout\r\nContent-Type: application/json\r\nContent-Length: %zu\r\n"
                         "Connection: close\r\nX-Content-Type-Options: nosniff\r\nX-Request-Id: %s\r\n\r\n%s",
                         fault_kind_of(f.code)->status, strlen(text), x->id, text) < 0)
        answer = NULL;
    free(text);
    return answer;
}

enum MHD_Result answer_fault(exchange *x)
{
    const fault_kind *kind = fault_kind_of(x->fault.code);
    char *text = fault_text(x, &x->fault), seconds[32];
    struct MHD_Response *response = text_response("application/json", text);
    if (!response)
        return MHD_NO;
    if (x->fault.retry_after > 0) {
        snprintf(seconds, sizeof seconds, "%.0f", x->fault.retry_after < 1 ? 1 : x->fault.retry_after);
        MHD_add_response_header(response, MHD_HTTP_HEADER_RETRY_AFTER, seconds);
    }
    if (kind->no_retry && !(x->fault.retry_after > 0))
        MHD_add_response_header(response, "X-Should-Retry", "false");
    if (kind->status == MHD_HTTP_UNAUTHORIZED)
        MHD_add_response_header(response, MHD_HTTP_HEADER_WWW_AUTHENTICATE, "Bearer, Basic realm=\"zimage\"");
    if (kind->status == MHD_HTTP_METHOD_NOT_ALLOWED)
        MHD_add_response_header(response, MHD_HTTP_HEADER_ALLOW, x->match.allow);
    return exchange_send(x, kind->status, response);
}

/* ---- pieces ---- */

typedef struct sending {
    server *server;
    job *job;
    pieces pieces;
} sending;

static ssize_t read_sending(void *user, uint64_t at, char *buffer, size_t most)
{
    const sending *s = user;
    size_t count = pieces_read(&s->pieces, (size_t)at, buffer, most);
    return count ? (ssize_t)count : MHD_CONTENT_READER_END_OF_STREAM;
}

static void free_sending(void *user)
{
    sending *s = user;
    if (s->job) {
        pthread_mutex_lock(&s->server->lock);
        job_release(&s->server->jobs, s->job);
        pthread_mutex_unlock(&s->server->lock);
    }
    pieces_clear(&s->pieces);
    free(s);
}

/* tag: NULL: the answer is no picture. */
static enum MHD_Result send_pieces(exchange *x, int status, const char *type, const char *tag, pieces *p)
{
    sending *s = p->is_broken ? NULL : calloc(1, sizeof *s);
    if (!s) {
        pieces_clear(p);
        fault_set(&x->fault, FAULT_INSUFFICIENT_MEMORY, NULL, "there is no memory for the answer");
        return answer_fault(x);
    }
    pthread_mutex_lock(&x->server->lock);
    *s = (sending){x->server, x->job ? job_hold(x->job) : NULL, *p};
    pthread_mutex_unlock(&x->server->lock);
    struct MHD_Response *response =
        MHD_create_response_from_callback(s->pieces.total, BLOCK, read_sending, s, free_sending);
    if (!response)
        free_sending(s);
    if (response && type)
        MHD_add_response_header(response, MHD_HTTP_HEADER_CONTENT_TYPE, type);
    if (response && tag) {
        MHD_add_response_header(response, MHD_HTTP_HEADER_ETAG, tag);
        MHD_add_response_header(response, MHD_HTTP_HEADER_CACHE_CONTROL, "private, no-store");
    }
    return exchange_send(x, status, response);
}

int exchange_wants_thumb(exchange *x, int *is_thumb)
{
    const char *thumb = exchange_argument(x, "thumb");
    *is_thumb = thumb != NULL;
    return !thumb || !strcmp(thumb, THUMB_NAME) ||
           fault_set(&x->fault, FAULT_INVALID_VALUE, "thumb", "thumb: expected " THUMB_NAME);
}

/* Nobody but the client keeps it: who knows the address of a file may see it, and a job is forgotten some day. */
enum MHD_Result answer_picture(exchange *x, int index)
{
    const job_picture *picture = &x->job->pictures[index];
    const char *known = exchange_header(x, "If-None-Match");
    int is_thumb;
    pieces p = {0};
    if (!exchange_wants_thumb(x, &is_thumb))
        return answer_fault(x);
    if (is_thumb && picture->thumb) {
        pieces_add_bytes(&p, picture->thumb, picture->thumb_size);
        return send_pieces(x, MHD_HTTP_OK, "image/jpeg", NULL, &p);
    }
    if (known && picture->tag[0] && strstr(known, picture->tag))
        return send_pieces(x, MHD_HTTP_NOT_MODIFIED, NULL, picture->tag, &p);
    pieces_add_bytes(&p, picture->data, picture->size);
    return send_pieces(x, MHD_HTTP_OK, format_type(x->job->resolved.format), picture->tag, &p);
}

enum MHD_Result answer_pieces(exchange *x, int status, const char *type, pieces *p)
{
    return send_pieces(x, status, type, NULL, p);
}
