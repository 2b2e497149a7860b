/* The daemon: from connections to exchanges, and their checks before a body is read. */
#include "http.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>
#ifdef __APPLE__
#include <sys/random.h>
#endif

#include "ask.h"
#include "front.h"
#include "listen.h"
#include "reading.h"
#include "shared/hash.h"
#include "tls.h"
#include "watch.h"

#define CONNECTION_MEMORY  ((size_t)8 << 10) /* of each connection: its request line and headers must fit */
#define CONNECTION_STEP    ((size_t)1 << 10)
#define PAUSE_SECONDS      60  /* between two parts of a body */
#define GONE_SECONDS       1   /* until the daemon has closed a connection by itself whose client is gone */
#define REPEAT_SECONDS     600 /* for which an Idempotency-Key holds */
#define TLS_OPTIONS        2   /* of the daemon */
#define SWALLOWED_MAX      ((size_t)1 << 20) /* bytes read behind a fault, so that the client gets its answer */
#define LAST_ANSWER_MICROS 5000000           /* that answers may still take when the server stops */

/* ---- helpers of handlers ---- */

const char *exchange_header(const exchange *x, const char *name)
{
    return MHD_lookup_connection_value(x->connection, MHD_HEADER_KIND, name);
}

const char *exchange_argument(const exchange *x, const char *name)
{
    return MHD_lookup_connection_value(x->connection, MHD_GET_ARGUMENT_KIND, name);
}

void exchange_wake(exchange *x)
{
    if (!x->is_suspended)
        return;
    x->is_suspended = 0;
    MHD_resume_connection(x->connection);
}

static void wake_listener(void *user)
{
    exchange_wake(user);
}

/* With the lock. */
static void join(exchange *x, job *j)
{
    x->job = j;
    x->listener = (job_listener){.wake = wake_listener, .user = x};
    x->is_listening = 1;
    job_listen(j, &x->listener);
}

int exchange_find_job(exchange *x, const char *id)
{
    pthread_mutex_lock(&x->server->lock);
    job *j = job_find(&x->server->jobs, id, x->owner);
    if (j)
        join(x, job_hold(j));
    pthread_mutex_unlock(&x->server->lock);
    return j || fault_set(&x->fault, FAULT_JOB_NOT_FOUND, NULL, "there is no such job, or it is forgotten already");
}

/* A client that repeats a request under one Idempotency-Key gets the job that it has already. 1: it has; 0: it has
 * none, or the fault says that its request is another one. */
static int join_repeated(exchange *x, uint64_t key)
{
    pthread_mutex_lock(&x->server->lock);
    job *j = job_find_repeated(&x->server->jobs, x->owner, key, serve_now() - REPEAT_SECONDS);
    if (j && j->body_hash != x->body_hash)
        fault_set(&x->fault, FAULT_IDEMPOTENCY_MISMATCH, NULL,
                  "Idempotency-Key: it was sent with another request already");
    else if (j)
        join(x, job_hold(j));
    pthread_mutex_unlock(&x->server->lock);
    return x->job != NULL;
}

/* How a ledger knows callers and requests: by hashes, because it is no place for keys. */
typedef struct ledger_names {
    char caller[FRONT_CALLER_TEXT], repeat[FRONT_REPEAT_TEXT];
} ledger_names;

static void name_for_ledger(const policy_key *owner, const char *user, const char *key, ledger_names *names)
{
    const char *hash = owner ? owner->hash : "";
    front_name_caller(hash, user, names->caller);
    const hash_piece parts[] = {{hash, strlen(hash)}, {" ", 1}, {key ? key : "", key ? strlen(key) : 0}};
    if (!key || !hash_sha256(parts, 3, names->repeat))
        names->repeat[0] = 0;
}

/* 0: a fault. *out: a new job; NULL: the exchange has joined one. */
static int submit(exchange *x, int is_detached, job **out)
{
    ledger_names names;
    serve_request *request = exchange_request(x);
    const char *patience = exchange_header(x, "X-Stainless-Read-Timeout");
    const char *key = exchange_header(x, "Idempotency-Key");
    const policy_key *owner = policy_key_of(&x->http->policy, x->owner);
    const job_origin origin = {
        .owner = x->owner,
        .owner_name = owner ? owner->name : "",
        .caller = policy_hash(x->owner, request->user ? request->user : ""),
        .patience = patience ? strtod(patience, NULL) : 0,
        .is_detached = is_detached || (x->server->front && key), /* its client may come back to another front */
        .idempotency = key ? policy_hash(x->owner, key) : 0,
        .body_hash = x->body_hash,
        .owner_hash = owner ? owner->hash : "",
        .ledger_caller = names.caller,
        .repeat = names.repeat,
    };
    name_for_ledger(owner, request->user, key, &names);
    if (key && join_repeated(x, origin.idempotency))
        return 1;
    return !x->fault.code && admit(x->server, request, &origin, out, &x->fault);
}

/* A client that repeats a request gets the job that another front has. With the lock. */
static void follow_twin(exchange *x)
{
    job *first = x->job, *twin = first->twin;
    job_unlisten(first, &x->listener);
    join(x, job_hold(twin));
    if (twin->body_hash != first->body_hash)
        fault_set(&x->fault, FAULT_IDEMPOTENCY_MISMATCH, NULL,
                  "Idempotency-Key: it was sent with another request already");
    job_release(&x->server->jobs, first);
}

/* Goes on when the job is kept, in a ledger if there is one. */
static enum MHD_Result when_stored(exchange *x)
{
    pthread_mutex_lock(&x->server->lock);
    if (x->job->twin)
        follow_twin(x);
    int is_waiting = x->server->front && !x->job->is_stored && !job_is_over(x->job);
    if (!x->job->is_stored && x->job->state == JOB_FAILED)
        x->fault = x->job->fault;
    pthread_mutex_unlock(&x->server->lock);
    if (is_waiting)
        return exchange_wait(x, 0, when_stored);
    x->resume = NULL;
    return x->fault.code ? answer_fault(x) : x->stored(x);
}

enum MHD_Result exchange_submit(exchange *x, int is_detached, enum MHD_Result (*stored)(exchange *x))
{
    job *j = NULL;
    x->stored = stored;
    int ok = submit(x, is_detached, &j);
    pthread_mutex_lock(&x->server->lock);
    reading_leave(x);
    if (j)
        join(x, j);
    pthread_mutex_unlock(&x->server->lock);
    return ok ? when_stored(x) : answer_fault(x);
}

void exchange_leave_job(exchange *x)
{
    if (x->is_listening && job_unlisten(x->job, &x->listener) && !x->job->is_detached)
        cancel_job(x->server, x->job, CANCEL_CLIENT_GONE);
    x->is_listening = 0;
}

enum MHD_Result exchange_wait(exchange *x, double wake_at, enum MHD_Result (*resume)(exchange *x))
{
    pthread_mutex_lock(&x->server->lock);
    int is_over = job_is_over(x->job);
    if (!is_over && !x->http->is_closing && !x->is_gone) {
        x->resume = resume;
        x->wake_at = wake_at;
        x->is_suspended = 1;
        MHD_suspend_connection(x->connection);
        watch_at(x->http->watch, wake_at);
    }
    int goes_on = x->is_suspended;
    pthread_mutex_unlock(&x->server->lock);
    return is_over ? resume(x) : goes_on ? MHD_YES : MHD_NO;
}

static enum MHD_Result finish_images(exchange *x)
{
    pthread_mutex_lock(&x->server->lock);
    job_state state = x->job->state;
    if (state == JOB_CANCELLED)
        fault_set(&x->fault, FAULT_CANCELLED, NULL, "the job was cancelled");
    else if (state == JOB_FAILED)
        x->fault = x->job->fault;
    if (state == JOB_CANCELLED && x->server->state >= SERVER_DRAINING)
        fault_set(&x->fault, FAULT_SHUTTING_DOWN, NULL, "the server is shutting down");
    pthread_mutex_unlock(&x->server->lock);
    if (state < JOB_COMPLETED)
        return exchange_wait(x, 0, finish_images);
    return state == JOB_COMPLETED ? x->answer(x) : answer_fault(x);
}

enum MHD_Result exchange_wait_for_images(exchange *x, enum MHD_Result (*answer)(exchange *x))
{
    x->answer = answer;
    return exchange_wait(x, 0, finish_images);
}

/* ---- the life of an exchange ---- */

static void make_request_id(exchange *x)
{
    uint64_t number = 0;
    if (getentropy(&number, sizeof number) != 0)
        number = (uint64_t)(uintptr_t)x;
    snprintf(x->id, sizeof x->id, "%016llx", (unsigned long long)number);
}

/* When the body has to be whole, or further bytes of it have to be there. */
static double deadline_of(const exchange *x, double now)
{
    double end = x->started + x->server->params->body_seconds;
    return now + PAUSE_SECONDS < end ? now + PAUSE_SECONDS : end;
}

static exchange *exchange_new(http *h, struct MHD_Connection *connection, const char *method, const char *url)
{
    exchange *x = calloc(1, sizeof *x);
    const union MHD_ConnectionInfo *info = MHD_get_connection_info(connection, MHD_CONNECTION_INFO_SOCKET_CONTEXT);
    if (!x)
        return NULL;
    *x = (exchange){.http = h,
                    .server = h->server,
                    .connection = connection,
                    .method = strdup(method),
                    .url = strdup(url),
                    .peer = info ? info->socket_context : NULL,
                    .started = serve_now()};
    if (!x->method || !x->url || !x->peer) {
        free(x->method);
        free(x->url);
        free(x);
        return NULL;
    }
    make_request_id(x);
    pthread_mutex_lock(&h->server->lock);
    x->peer->exchange = x;
    x->is_gone = x->peer->is_gone;
    x->peer->deadline = deadline_of(x, x->started);
    watch_at(h->watch, x->peer->deadline);
    x->next = h->exchanges;
    if (x->next)
        x->next->before = x;
    h->exchanges = x;
    pthread_mutex_unlock(&h->server->lock);
    return x;
}

static void log_exchange(const exchange *x)
{
    const serve_params *p = x->server->params;
    double seconds = serve_now() - x->started;
    char url[1024];
    if (p->quiet)
        return;
    zimage_printable(x->url, url, sizeof url);
    if (p->is_json_log)
        serve_log_json(x->server,
                       json_pack("{s:s, s:s, s:i, s:f, s:s, s:i}", "method", x->method, "path", url, "status",
                                 x->status, "seconds", seconds, "id", x->id, "key", (int)x->owner));
    else
        serve_log(x->server, "%s %.200s %d %.3f s%s", x->method, url, x->status, seconds,
                  x->status ? "" : " (the client is gone)");
}

static void exchange_free(exchange *x)
{
    server *s = x->server;
    pthread_mutex_lock(&s->lock);
    x->status = x->is_late ? fault_kind_of(FAULT_BODY_TIMEOUT)->status : x->status;
    pthread_mutex_unlock(&s->lock);
    log_exchange(x);
    pthread_mutex_lock(&s->lock);
    size_t route = x->match.endpoint ? (size_t)(x->match.endpoint - route_table) : route_table_size;
    metrics_count_request(&s->metrics, (int)route, x->status);
    s->metrics.upload_bytes -= x->reserved;
    stream_detach(x);
    reading_leave(x);
    ask_forget(x);
    exchange_leave_job(x);
    if (x->job)
        job_release(&s->jobs, x->job);
    x->peer->exchange = NULL;
    x->peer->deadline =
        serve_now() + (x->peer->is_gone ? GONE_SECONDS : s->params->connection_seconds + s->params->header_seconds);
    watch_at(x->http->watch, x->peer->deadline);
    if (x->next)
        x->next->before = x->before;
    if (x->before)
        x->before->next = x->next;
    else
        x->http->exchanges = x->next;
    pthread_mutex_unlock(&s->lock);
    body_free(x->body);
    json_decref(x->echo);
    free(x->method);
    free(x->url);
    free(x);
}

/* ---- callbacks of the daemon ---- */

static enum MHD_Result take_body(exchange *x, const char *data, size_t *size)
{
    int is_chunked = exchange_header(x, "Content-Length") == NULL;
    int is_read = !x->fault.code && x->body; /* that of OPTIONS is not */
    x->swallowed += is_read ? 0 : *size;
    pthread_mutex_lock(&x->server->lock);
    x->peer->deadline = deadline_of(x, serve_now());
    pthread_mutex_unlock(&x->server->lock);
    if (is_read && (!is_chunked || exchange_reserve(x, *size)))
        body_feed(x->body, data, *size, &x->fault);
    *size = 0;
    return x->swallowed <= SWALLOWED_MAX ? MHD_YES : MHD_NO;
}

/* The request is complete: it is handled, or goes on after it waited. */
static enum MHD_Result go_on(exchange *x)
{
    if (x->status)
        return MHD_YES;
    pthread_mutex_lock(&x->server->lock);
    int is_lost = x->is_suspended || (x->resume && x->is_gone) || x->is_late;
    x->peer->deadline = 0;
    x->is_whole = 1;
    x->wake_at = 0;
    pthread_mutex_unlock(&x->server->lock);
    if (is_lost)
        return MHD_NO;
    if (x->resume)
        return x->resume(x);
    if (!x->fault.code && !strcmp(x->method, "OPTIONS"))
        return answer_empty(x, MHD_HTTP_NO_CONTENT);
    if (!x->fault.code && x->match.endpoint->dialect >= 0)
        return reading_begin(x);
    if (x->fault.code || !body_finish(x->body, &x->form, &x->fault))
        return answer_fault(x);
    return ask_and_handle(x);
}

/* A request that is refused is read nevertheless, if that is little: a connection that is closed before the client has
 * sent everything is reset, and many clients do not see the answer then. */
static int is_small(const exchange *x)
{
    const char *length = exchange_header(x, MHD_HTTP_HEADER_CONTENT_LENGTH);
    return !exchange_header(x, MHD_HTTP_HEADER_TRANSFER_ENCODING) &&
           (!length || strtoull(length, NULL, 10) <= SWALLOWED_MAX);
}

static enum MHD_Result on_request(void *user, struct MHD_Connection *connection, const char *url, const char *method,
                                  const char *version, const char *data, size_t *size, void **context)
{
    exchange *x = *context;
    (void)version;
    if (x)
        return *size ? take_body(x, data, size) : go_on(x);
    x = *context = exchange_new(user, connection, method, url);
    if (!x)
        return MHD_NO;
    if (!exchange_check(x) && !is_small(x))
        return answer_fault(x);
    pthread_mutex_lock(&x->server->lock);
    x->is_reading = 1;
    pthread_mutex_unlock(&x->server->lock);
    return MHD_YES;
}

static void on_completed(void *user, struct MHD_Connection *connection, void **context,
                         enum MHD_RequestTerminationCode code)
{
    (void)user, (void)connection, (void)code;
    if (*context)
        exchange_free(*context);
    *context = NULL;
}

static void on_connection(void *user, struct MHD_Connection *connection, void **context,
                          enum MHD_ConnectionNotificationCode code)
{
    http *h = user;
    const union MHD_ConnectionInfo *info = MHD_get_connection_info(connection, MHD_CONNECTION_INFO_CONNECTION_FD);
    pthread_mutex_lock(&h->server->lock);
    if (code == MHD_CONNECTION_NOTIFY_STARTED && info) {
        *context = watch_add(h->watch, info->connect_fd, serve_now() + h->server->params->header_seconds);
        h->server->metrics.connections += *context != NULL;
    } else if (code == MHD_CONNECTION_NOTIFY_CLOSED && *context) {
        watch_remove(h->watch, *context);
        h->server->metrics.connections--;
        *context = NULL;
    }
    pthread_mutex_unlock(&h->server->lock);
}

/* Paths are decoded after they are split; arguments need no decoding here. */
static size_t keep_escapes(void *user, struct MHD_Connection *connection, char *text)
{
    (void)user, (void)connection;
    return strlen(text);
}

static void on_log(void *user, const char *format, va_list arguments)
{
    (void)user, (void)format, (void)arguments; /* connections that clients break off are no news */
}

/* ---- starting and stopping ---- */

static void remove_socket(const http *h)
{
    if (h->server->params->unix_path)
        unlink(h->server->params->unix_path);
}

int http_start(http *h, server *s, zimage_error *error)
{
    const int has_tls = s->params->tls_cert != NULL;
    const struct MHD_OptionItem tls[] = {{MHD_OPTION_HTTPS_PRIORITIES, 0, TLS_PRIORITIES},
                                         {MHD_OPTION_HTTPS_CERT_CALLBACK2, 0, (void *)(intptr_t)tls_choose},
                                         {MHD_OPTION_END, 0, NULL}};
    unsigned flags = MHD_USE_AUTO_INTERNAL_THREAD | MHD_ALLOW_SUSPEND_RESUME | MHD_USE_ERROR_LOG;
    flags |= has_tls ? MHD_USE_TLS : 0;
    h->server = s;
    h->socket = -1;
    if (getentropy(&h->requests.secret, sizeof h->requests.secret) != 0)
        h->requests.secret = (uint64_t)(uintptr_t)h ^ (uint64_t)time(NULL);
    h->failures.secret = h->requests.secret;
    if (has_tls && !tls_read(s->params, error))
        return 0;
    if (!policy_init(&h->policy, s->params, error) || (h->socket = listen_on(s->params, &h->policy.port, error)) < 0)
        return 0;
    if (s->front) {
        pthread_mutex_lock(&s->lock);
        front_use_policy(s, &h->policy);
        pthread_mutex_unlock(&s->lock);
    }
    h->watch = watch_start(h);
    h->reader = reader_start(s);
    if (h->watch && h->reader)
        h->daemon = MHD_start_daemon(
            flags, 0, NULL, NULL, on_request, h, MHD_OPTION_EXTERNAL_LOGGER, on_log, NULL, MHD_OPTION_LISTEN_SOCKET,
            h->socket, MHD_OPTION_CONNECTION_LIMIT, listen_connections_max(s->params->max_connections),
            MHD_OPTION_PER_IP_CONNECTION_LIMIT, (unsigned)s->params->per_address, MHD_OPTION_CONNECTION_TIMEOUT,
            (unsigned)ceil(s->params->connection_seconds), MHD_OPTION_CONNECTION_MEMORY_LIMIT, CONNECTION_MEMORY,
            MHD_OPTION_CONNECTION_MEMORY_INCREMENT, CONNECTION_STEP, MHD_OPTION_STRICT_FOR_CLIENT, 1,
            MHD_OPTION_UNESCAPE_CALLBACK, keep_escapes, NULL, MHD_OPTION_NOTIFY_COMPLETED, on_completed, NULL,
            MHD_OPTION_NOTIFY_CONNECTION, on_connection, h, MHD_OPTION_ARRAY, has_tls ? tls : tls + TLS_OPTIONS,
            MHD_OPTION_END);
    if (h->daemon)
        return 1;
    if (h->watch)
        watch_stop(h->watch);
    if (h->reader)
        reader_stop(h->reader);
    close(h->socket);
    remove_socket(h);
    snprintf(error->message, sizeof error->message, "the HTTP daemon can't be started");
    error->status = ZIMAGE_ERROR_INTERNAL;
    return 0;
}

void http_url(const http *h, char *url, size_t size)
{
    const serve_params *p = h->server->params;
    if (p->unix_path)
        snprintf(url, size, "unix:%s", p->unix_path);
    else
        snprintf(url, size, strchr(p->host, ':') ? "%s://[%s]:%d" : "%s://%s:%d", p->tls_cert ? "https" : "http",
                 p->host, h->policy.port);
}

/* Whoever is suspended goes on, and fails: the daemon may not stop while connections are suspended. */
static void wake_all(http *h)
{
    pthread_mutex_lock(&h->server->lock);
    h->is_closing = 1;
    for (exchange *x = h->exchanges; x; x = x->next)
        exchange_wake(x);
    pthread_mutex_unlock(&h->server->lock);
}

static int has_exchanges(http *h)
{
    pthread_mutex_lock(&h->server->lock);
    int has = h->exchanges != NULL;
    pthread_mutex_unlock(&h->server->lock);
    return has;
}

void http_stop(http *h)
{
    const unsigned pause = 10000;
    for (unsigned waited = 0; waited < LAST_ANSWER_MICROS && has_exchanges(h); waited += pause)
        usleep(pause);
    wake_all(h);
    for (unsigned waited = 0; waited < LAST_ANSWER_MICROS && has_exchanges(h); waited += pause)
        usleep(pause);
    MHD_stop_daemon(h->daemon);
    free(h->description);
    remove_socket(h);
    reader_stop(h->reader);
    watch_stop(h->watch);
}
