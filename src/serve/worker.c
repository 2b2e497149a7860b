#include "worker.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#define PROGRESS_SECONDS 0.1 /* between two events of progress */
#define PREVIEW_QUALITY  80

typedef struct open_session {
    model_entry *model; /* NULL: a free place */
    zimage_session *session;
    double used;
} open_session;

struct worker {
    server *server;
    int index;
    pthread_t thread;
    int is_started;
    const char *device;
    job *job; /* at hand; NULL: idle */
    open_session sessions[SERVE_MODELS_MAX];
};

const job *worker_job(const struct worker *workers, int index)
{
    return workers[index].job;
}

int worker_has(const server *s, const job *j)
{
    for (int i = 0; i < s->params->device_count; i++)
        if (s->workers[i].job == j)
            return 1;
    return 0;
}

int workers_busy(const server *s)
{
    int busy = encoder_busy(s);
    for (int i = 0; i < s->params->device_count; i++)
        busy |= s->workers[i].job != NULL;
    return busy;
}

/* ---- sessions ---- */

/* A warning about a job is for its client: the prompt was cut, the size is unusual. */
static void log_library(zimage_log_level level, const char *message, void *user)
{
    const struct worker *w = user;
    if (level != ZIMAGE_LOG_WARNING)
        return;
    if (!w->job) {
        serve_log(w->server, "%s: warning: %s", w->device, message);
        return;
    }
    pthread_mutex_lock(&w->server->lock);
    serve_request_warn(&w->job->request, "%s", message);
    pthread_mutex_unlock(&w->server->lock);
}

static void close_session(struct worker *w, open_session *open)
{
    models_close(&w->server->models, open->model, &w->server->lock, open->session);
    *open = (open_session){0};
}

/* A free place; the session that was used longest ago makes room where too many models are open. */
static open_session *free_place(struct worker *w)
{
    open_session *oldest = NULL, *place = NULL;
    int count = 0;
    for (open_session *open = w->sessions; open < w->sessions + SERVE_MODELS_MAX; open++) {
        count += open->model != NULL;
        if (!open->model)
            place = place ? place : open;
        else if (!oldest || open->used < oldest->used)
            oldest = open;
    }
    if (count < w->server->params->keep_models && place)
        return place;
    close_session(w, oldest);
    return oldest;
}

static int open_for(struct worker *w, model_entry *model, open_session **found, fault *f)
{
    zimage_error error = ZIMAGE_ERROR_INIT;
    zimage_session_params params = w->server->params->session;
    params.device = w->device;
    params.log = log_library;
    params.log_user = w;
    for (open_session *open = w->sessions; open < w->sessions + SERVE_MODELS_MAX; open++)
        if (open->model == model) {
            open->used = serve_now();
            *found = open;
            return 1;
        }
    open_session *place = free_place(w);
    if (models_open(&w->server->models, model, &params, &w->server->lock, &place->session, &error) != ZIMAGE_OK) {
        serve_log(w->server, "model %s: %s", model->id, error.message);
        *found = NULL;
        return error.status == ZIMAGE_ERROR_MEMORY
                   ? fault_of_error(f, &error)
                   : fault_set(f, FAULT_MODEL_FAILED, "model",
                               "model: \"%s\" can't be opened; the server's log says why", model->id);
    }
    *place = (open_session){model, place->session, serve_now()};
    *found = place;
    return 1;
}

/* ---- making an image ---- */

typedef struct attempt {
    struct worker *worker;
    job *job;
    int index; /* of the image */
} attempt;

/* The number of the partial image that a stream gets after a step; -1: none. They are spread over the steps. */
static int partial_after(const job *j, int step, int steps)
{
    int64_t count = j->request.partial_images;
    for (int64_t i = 0; i < count; i++)
        if ((i + 1) * steps / (count + 1) == step || ((i + 1) * steps / (count + 1) == 0 && step == 1))
            return (int)i;
    return -1;
}

static void encode_preview(const zimage_progress *p, job_event *event)
{
    zimage_image *image = NULL;
    const zimage_save_params params = {.struct_size = sizeof params, .quality = PREVIEW_QUALITY};
    if (zimage_image_from_pixels(p->preview, p->preview_width, p->preview_height, (size_t)p->preview_width * 3, 3,
                                 &image, NULL) == ZIMAGE_OK)
        zimage_image_encode_with(image, ZIMAGE_FORMAT_JPEG, &params, &event->data, &event->size, NULL);
    zimage_image_free(image);
}

static void report(attempt *a, const zimage_progress *p)
{
    server *s = a->worker->server;
    job *j = a->job;
    job_event event = {.kind = EVENT_PROGRESS,
                       .state = JOB_RUNNING,
                       .index = a->index,
                       .step = p->step,
                       .steps = p->steps,
                       .partial = -1,
                       .stage = p->stage,
                       .fraction = p->fraction};
    job_event preview = event;
    preview.kind = EVENT_PREVIEW;
    if (p->preview) {
        preview.partial = partial_after(j, p->step, p->steps);
        if (preview.partial >= 0 || j->wants_previews == 2)
            encode_preview(p, &preview);
    }
    pthread_mutex_lock(&s->lock);
    j->stage = p->stage;
    j->step = p->step;
    j->steps = p->steps;
    j->fraction = p->fraction;
    job_happened(j, &event);
    if (preview.data)
        job_happened(j, &preview);
    pthread_mutex_unlock(&s->lock);
}

static int on_progress(const zimage_progress *p, void *user)
{
    attempt *a = user;
    server *s = a->worker->server;
    double now = serve_now();
    if (s->params->job_seconds > 0 && now - a->job->started > s->params->job_seconds) {
        pthread_mutex_lock(&s->lock);
        cancel_job(s, a->job, CANCEL_TIMEOUT);
        pthread_mutex_unlock(&s->lock);
    }
    if (p->preview || p->stage != a->job->stage || now - a->job->progress_at >= PROGRESS_SECONDS) {
        a->job->progress_at = now; /* no other thread reads it */
        report(a, p);
    }
    return atomic_load(&a->job->cancel) != CANCEL_NONE;
}

/* The model may have been closed when the request was admitted. */
static int resolve_late(server *s, job *j, fault *f)
{
    prediction p;
    resolved_request resolved;
    if (j->is_resolved)
        return 1;
    pthread_mutex_lock(&s->lock);
    zimage_model_info info = j->model->info;
    int ok = resolve_request(&j->request, &info, s->params, &resolved, f);
    j->resolved = resolved;
    j->is_resolved = ok;
    pthread_mutex_unlock(&s->lock);
    if (!ok || (!models_predict(j->model, &j->request, &j->resolved, &p, f) && !p.is_short))
        return 0;
    pthread_mutex_lock(&s->lock);
    j->item.seconds = p.seconds;
    j->planned = p.planned;
    pthread_mutex_unlock(&s->lock);
    return 1;
}

static zimage_image *make_image(struct worker *w, job *j, int index, fault *f)
{
    zimage_error error = ZIMAGE_ERROR_INIT;
    zimage_image *image = NULL;
    zimage_request request;
    open_session *open;
    attempt a = {.worker = w, .job = j, .index = index};
    if (!open_for(w, j->model, &open, f) || !resolve_late(w->server, j, f))
        return NULL;
    resolve_fill(&j->request, &j->resolved, index, &request);
    request.progress = on_progress;
    request.progress_user = &a;
    zimage_status status = zimage_generate(open->session, &request, &image, &error);
    if (status != ZIMAGE_OK) {
        if (status != ZIMAGE_ERROR_CANCELLED)
            serve_log(w->server, "job %s: %s", j->id, error.message);
        fault_of_error(f, &error);
        return NULL;
    }
    zimage_image_info info = {.struct_size = sizeof info};
    if (zimage_image_get_info(image, &info, NULL) == ZIMAGE_OK)
        models_measured(j->model, &j->resolved, j->planned, info.seconds, &w->server->jobs, &w->server->lock);
    return image;
}

static void count_image(server *s, const job *j, const zimage_image *image)
{
    zimage_image_info info = {.struct_size = sizeof info};
    zimage_image_get_info(image, &info, NULL);
    s->metrics.steps += (uint64_t)j->resolved.steps;
    s->metrics.pixels += (uint64_t)j->resolved.width * (uint64_t)j->resolved.height;
    metrics_observe(&s->metrics.job_seconds, info.seconds);
    for (int stage = 0; stage < ZIMAGE_STAGE_COUNT; stage++)
        if (zimage_image_seconds(image, (zimage_stage)stage) > 0)
            metrics_observe(&s->metrics.stage_seconds[stage], zimage_image_seconds(image, (zimage_stage)stage));
}

static void begin_image(server *s, job *j)
{
    double now = serve_now();
    j->fraction = 0;
    if (j->state == JOB_RUNNING)
        return;
    j->state = JOB_RUNNING;
    j->started = now;
    metrics_observe(&s->metrics.wait_seconds, now - j->created);
    job_happened(j, &(job_event){.kind = EVENT_STATE, .state = JOB_RUNNING});
}

/* Makes one image of a job, and puts the job back if it has more. With the lock, which is released meanwhile. */
static void serve_item(struct worker *w, job *j)
{
    server *s = w->server;
    fault f = {0};
    int index = j->begun++;
    w->job = j;
    begin_image(s, j);
    pthread_mutex_unlock(&s->lock);
    zimage_image *image = make_image(w, j, index, &f);
    pthread_mutex_lock(&s->lock);
    if (image) {
        count_image(s, j, image);
        encode_later(s, j, index, image);
        while (j->request.partial_images > 0 && j->made <= index && !job_is_over(j))
            pthread_cond_wait(&s->encoding, &s->lock); /* previews of the next image come behind this one */
    }
    w->job = NULL;
    j->item.units--;
    if (!image)
        fail_job(s, j, &f);
    else if (atomic_load(&j->cancel))
        fail_job(s, j, &(fault){.code = FAULT_CANCELLED, .message = "the job was cancelled"});
    if (image && !job_is_over(j) && j->item.units > 0 && queue_push_again(&s->queue, &j->item))
        return;
    job_release(&s->jobs, j);
}

/* ---- the thread ---- */

static void close_idle(struct worker *w)
{
    for (open_session *open = w->sessions; open < w->sessions + SERVE_MODELS_MAX; open++)
        if (open->model)
            close_session(w, open);
}

/* Waits for a job; NULL: the server stops, or the worker has been idle for as long as models stay open. */
static job *wait_for_job(struct worker *w)
{
    server *s = w->server;
    struct timespec end;
    double idle = s->params->idle_seconds;
    clock_gettime(CLOCK_REALTIME, &end);
    end.tv_sec += (time_t)idle;
    while (s->state < SERVER_DRAINING || queue_length(&s->queue) > 0) {
        queue_item *item = queue_take(&s->queue);
        if (item)
            return (job *)(void *)item;
        if (idle > 0 && pthread_cond_timedwait(&s->work, &s->lock, &end) == ETIMEDOUT)
            return NULL;
        if (!(idle > 0))
            pthread_cond_wait(&s->work, &s->lock);
    }
    return NULL;
}

/* The first worker opens the default model before anybody asks for it; the server is not ready until then. */
static void open_standard(struct worker *w)
{
    server *s = w->server;
    fault f = {0};
    open_session *open;
    pthread_mutex_lock(&s->lock);
    model_entry *standard = &s->models.entries[s->models.standard];
    pthread_mutex_unlock(&s->lock);
    int ok = open_for(w, standard, &open, &f);
    pthread_mutex_lock(&s->lock);
    if (s->state == SERVER_LOADING)
        s->state = ok ? SERVER_READY : SERVER_FAILED;
    if (!ok) {
        s->failure.status = ZIMAGE_ERROR_MODEL;
        snprintf(s->failure.message, sizeof s->failure.message, "%s", f.message);
    }
    pthread_cond_broadcast(&s->work);
    pthread_mutex_unlock(&s->lock);
}

static void *work(void *user)
{
    struct worker *w = user;
    server *s = w->server;
    if (w->index == 0)
        open_standard(w);
    pthread_mutex_lock(&s->lock);
    while (s->state < SERVER_DRAINING || queue_length(&s->queue) > 0) {
        job *j = wait_for_job(w);
        if (j) {
            serve_item(w, j);
        } else if (s->state < SERVER_DRAINING) {
            pthread_mutex_unlock(&s->lock);
            close_idle(w);
            pthread_mutex_lock(&s->lock);
        }
    }
    pthread_mutex_unlock(&s->lock);
    close_idle(w);
    return NULL;
}

int workers_start(server *s, zimage_error *error)
{
    s->workers = calloc((size_t)s->params->device_count, sizeof *s->workers);
    int ok = s->workers && encoder_start(s);
    for (int i = 0; ok && i < s->params->device_count; i++) {
        struct worker *w = &s->workers[i];
        *w = (struct worker){.server = s, .index = i, .device = s->params->devices[i]};
        ok = w->is_started = pthread_create(&w->thread, NULL, work, w) == 0;
    }
    if (ok)
        return 1;
    snprintf(error->message, sizeof error->message, "the server's threads can't be started");
    error->status = ZIMAGE_ERROR_INTERNAL;
    return 0;
}

void workers_stop(server *s)
{
    for (int i = 0; s->workers && i < s->params->device_count; i++)
        if (s->workers[i].is_started)
            pthread_join(s->workers[i].thread, NULL);
    encoder_stop(s);
    free(s->workers);
    s->workers = NULL;
}
