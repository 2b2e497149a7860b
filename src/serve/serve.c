/* The server from its start to its end. */
#include "serve.h"

#include <limits.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "front.h"
#include "http.h"
#include "tls.h"
#include "worker.h"

#define IMAGE_PIXELS ((uint64_t)1 << 26)
#define PAUSE_MICROS 20000 /* between two looks at what has to be done */

double serve_now(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec + 1e-9 * (double)t.tv_nsec;
}

void serve_log(const server *s, const char *format, ...)
{
    char text[2048], line[4096];
    va_list arguments;
    va_start(arguments, format);
    vsnprintf(text, sizeof text, format, arguments);
    va_end(arguments);
    zimage_printable(text, line, sizeof line);
    if (s->params->is_json_log)
        serve_log_json(s, json_pack("{s:s}", "message", line));
    else
        s->params->log(line);
}

void serve_log_json(const server *s, json_t *line)
{
    char time_text[32];
    struct timespec now;
    struct tm parts;
    clock_gettime(CLOCK_REALTIME, &now);
    gmtime_r(&now.tv_sec, &parts);
    strftime(time_text, sizeof time_text, "%Y-%m-%dT%H:%M:%S", &parts);
    json_t *whole = json_pack("{s:o?}", "time", json_sprintf("%s.%03dZ", time_text, (int)(now.tv_nsec / 1000000)));
    char *text = NULL;
    if (whole && line && json_object_update(whole, line) == 0)
        text = json_dumps(whole, JSON_COMPACT | JSON_ENSURE_ASCII);
    if (text)
        s->params->log(text);
    free(text);
    json_decref(whole);
    json_decref(line);
}

static server_state state_of(server *s)
{
    pthread_mutex_lock(&s->lock);
    server_state state = s->state;
    pthread_mutex_unlock(&s->lock);
    return state;
}

static void read_certificate(const server *s)
{
    zimage_error error = ZIMAGE_ERROR_INIT;
    if (tls_read(s->params, &error))
        serve_log(s, "the certificate was read again");
    else
        serve_log(s, "the certificate was not read again: %s", error.message);
}

/* Until it is asked to stop, or the default model can't be opened. */
static void run_until_stopped(server *s)
{
    while (!s->params->stopping() && state_of(s) != SERVER_FAILED) {
        usleep(PAUSE_MICROS);
        if (s->params->tls_cert && s->params->reloading())
            read_certificate(s);
        pthread_mutex_lock(&s->lock);
        job_table_trim(&s->jobs, serve_now(), s->params->store_seconds, s->params->store_bytes);
        pthread_mutex_unlock(&s->lock);
    }
}

static int has_work(server *s)
{
    pthread_mutex_lock(&s->lock);
    int has = s->front ? front_busy(s) : workers_busy(s) || queue_length(&s->queue) > 0;
    pthread_mutex_unlock(&s->lock);
    return has;
}

static void cancel_all(server *s)
{
    pthread_mutex_lock(&s->lock);
    for (job *j = s->jobs.newest; j; j = j->older)
        if (!s->front || !j->is_detached) /* another front answers for it */
            cancel_job(s, j, CANCEL_SHUTDOWN);
    pthread_cond_broadcast(&s->work);
    pthread_mutex_unlock(&s->lock);
}

/* New requests are refused from now on. Jobs may still end by themselves for a while, and are cancelled then. */
static void drain(server *s)
{
    double end = serve_now() + s->params->drain;
    pthread_mutex_lock(&s->lock);
    s->state = s->state == SERVER_FAILED ? SERVER_FAILED : SERVER_DRAINING;
    pthread_cond_broadcast(&s->work);
    pthread_mutex_unlock(&s->lock);
    while (has_work(s) && serve_now() < end)
        usleep(PAUSE_MICROS);
    cancel_all(s);
}

static int begin(server *s, http *h, zimage_error *error)
{
    char url[256];
    if (!http_start(h, s, error))
        return 0;
    http_url(h, url, sizeof url);
    s->params->ready(url);
    return 1;
}

/* Else each request for the page would find no file. */
static int has_page(const serve_params *params, zimage_error *error)
{
    char path[PATH_MAX];
    if (!params->page_folder ||
        ((size_t)snprintf(path, sizeof path, "%s/index.html", params->page_folder) < sizeof path &&
         access(path, R_OK) == 0))
        return 1;
    snprintf(error->message, sizeof error->message,
             "web_dir: %.500s: there is no index.html, expected the page's files", params->page_folder);
    error->status = ZIMAGE_ERROR_FILE;
    return 0;
}

static int open_gallery(server *s, zimage_error *error)
{
    if (s->params->gallery)
        s->gallery = gallery_open(s->params->gallery, error);
    return s->gallery || !s->params->gallery;
}

zimage_status serve_run(const serve_params *params, zimage_error *error)
{
    zimage_error failure = ZIMAGE_ERROR_INIT;
    http *h = calloc(1, sizeof *h);
    server *s = calloc(1, sizeof *s);
    if (!s || !h) {
        free(s);
        free(h);
        snprintf(error->message, sizeof error->message, "there is no memory for the server");
        return error->status = ZIMAGE_ERROR_MEMORY;
    }
    s->params = params;
    s->images = (image_limits){params->max_image, IMAGE_PIXELS, params->max_uploads};
    s->metrics.started_at = (double)time(NULL);
    s->failure = failure;
    pthread_mutex_init(&s->lock, NULL);
    pthread_cond_init(&s->work, NULL);
    pthread_cond_init(&s->encoding, NULL);
    if (has_page(params, &failure) && open_gallery(s, &failure) && models_init(&s->models, params, &failure) &&
        (params->ledger ? front_start(s, &failure) : workers_start(s, &failure))) {
        int has_begun = begin(s, h, &failure);
        if (has_begun)
            run_until_stopped(s);
        drain(s);
        if (has_begun)
            http_stop(h);
        if (has_begun && s->failure.status != ZIMAGE_OK)
            failure = s->failure;
    }
    tls_forget();
    front_stop(s);
    workers_stop(s);
    job_table_free(&s->jobs);
    models_free(&s->models);
    gallery_close(s->gallery);
    pthread_cond_destroy(&s->encoding);
    pthread_cond_destroy(&s->work);
    pthread_mutex_destroy(&s->lock);
    free(s);
    free(h);
    if (failure.status != ZIMAGE_OK && error)
        *error = failure;
    return failure.status;
}
