#include "worker.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "lanes.h"
#include "shared/preview.h"

#define PROGRESS_SECONDS 0.1 /* between two events of progress */

static const fault cancelled = {.code = FAULT_CANCELLED, .message = "the job was cancelled"};
static const fault no_memory = {.code = FAULT_INSUFFICIENT_MEMORY, .message = "there is no memory for the job"};

const job *worker_job(const server *s, int index)
{
    return s->workers[index].job;
}

int worker_is_shown(const server *s, int index)
{
    return !s->workers[index].is_second || s->workers[index].lanes->is_joined;
}

int worker_has(const server *s, const job *j)
{
    for (int i = 0; i < s->worker_count; i++)
        if (s->workers[i].job == j)
            return 1;
    return 0;
}

int workers_busy(const server *s)
{
    int busy = encoder_busy(s);
    for (int i = 0; i < s->worker_count; i++)
        busy |= s->workers[i].job != NULL;
    return busy;
}

/* ---- sessions ---- */

/* A warning about a job is for its client: the prompt was cut, the size is unusual, words are not known. */
static void log_library(zimage_log_level level, const char *message, void *user)
{
    const struct worker *w = user;
    if (level != ZIMAGE_LOG_WARNING)
        return;
    if (!w->job) {
        serve_log(w->server, "%s: warning: %s", w->lanes->device, message);
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

static void close_idle(struct worker *w)
{
    for (open_session *open = w->sessions; open < w->sessions + SERVE_MODELS_MAX; open++)
        if (open->model)
            close_session(w, open);
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

/* device_memory: of the session; 0: what is free. */
static zimage_status open_at(struct worker *w, open_session *place, model_entry *model, uint64_t device_memory,
                             zimage_error *error)
{
    zimage_session_params params = w->server->params->session;
    params.device = w->lanes->device;
    params.device_memory = device_memory;
    params.log = log_library;
    params.log_user = w;
    zimage_status status = models_open(&w->server->models, model, &params, &w->server->lock, &place->session, error);
    if (status == ZIMAGE_OK)
        *place = (open_session){model, place->session, serve_now()};
    else
        serve_log(w->server, "model %s: %s", model->id, error->message);
    return status;
}

static int open_for(struct worker *w, model_entry *model, zimage_session **session, fault *f)
{
    zimage_error error = ZIMAGE_ERROR_INIT;
    for (open_session *open = w->sessions; open < w->sessions + SERVE_MODELS_MAX; open++)
        if (open->model == model) {
            open->used = serve_now();
            *session = open->session;
            return 1;
        }
    open_session *place = free_place(w);
    if (open_at(w, place, model, w->server->params->session.device_memory, &error) != ZIMAGE_OK) {
        return error.status == ZIMAGE_ERROR_MEMORY
                   ? fault_of_error(f, &error)
                   : fault_set(f, FAULT_MODEL_FAILED, "model",
                               "model: \"%s\" can't be opened; the server's log says why", model->id);
    }
    *session = place->session;
    return 1;
}

/* ---- making an image ---- */

static void report(attempt *a, const zimage_progress *p)
{
    server *s = a->worker->server;
    job *j = a->job;
    const job_event event = job_progress(a->index, p->stage, p->step, p->steps, p->fraction);
    job_event preview = event;
    preview.kind = EVENT_PREVIEW;
    if (p->preview) {
        preview.partial = preview_partial_after((int)j->request.partial_images, p->step, p->steps);
        if (preview.partial >= 0 || j->wants_previews == 2)
            preview_encode(p, &preview.data, &preview.size);
    }
    pthread_mutex_lock(&s->lock);
    job_progressed(j, &event, p->fraction);
    if (preview.data)
        job_happened(j, &preview);
    pthread_mutex_unlock(&s->lock);
}

static int on_progress(const zimage_progress *p, void *user)
{
    attempt *a = user;
    server *s = a->worker->server;
    double now = serve_now();
    if (s->params->job_seconds > 0 && now - a->job->started - a->waited > s->params->job_seconds) {
        pthread_mutex_lock(&s->lock);
        cancel_job(s, a->job, CANCEL_TIMEOUT);
        pthread_mutex_unlock(&s->lock);
    }
    lanes_advance(a, p->stage);
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

static void fill_request(attempt *a, zimage_request *request)
{
    resolve_fill(&a->job->request, &a->job->resolved, a->index, request);
    request->progress = on_progress;
    request->progress_user = a;
}

/* Opens what the first worker of a device needs for the image. 0: a fault. */
static int prepare(attempt *a, zimage_session **session, fault *f)
{
    struct worker *w = a->worker;
    job *j = a->job;
    zimage_request request;
    if (lanes_settle(w, j) && open_for(w, j->model, session, f) && resolve_late(w->server, j, f)) {
        fill_request(a, &request);
        if (lanes_begin(a, *session, &request))
            return 1;
    }
    if (!f->code)
        *f = cancelled;
    return 0;
}

/* The same for the second one. 0: the first one has to make the image. */
static int prepare_beside(attempt *a, zimage_session **session)
{
    struct worker *w = a->worker;
    open_session *place = &w->sessions[0];
    zimage_error error = ZIMAGE_ERROR_INIT;
    zimage_request request;
    uint64_t limit;
    fill_request(a, &request);
    if (!lanes_limit(w, &limit) || (!place->model && open_at(w, place, a->job->model, limit, &error) != ZIMAGE_OK)) {
        lanes_refuse(a);
        return 0;
    }
    *session = place->session;
    return lanes_begin(a, *session, &request);
}

/* Once for a job: its images have one prompt. */
static void warn_of_words(attempt *a)
{
    char text[VOCABULARY_WARNING];
    if (a->index == 0 && models_warn_of_words(a->job->model, a->job->request.prompt, text))
        log_library(ZIMAGE_LOG_WARNING, text, a->worker);
}

static zimage_image *make_image(attempt *a, zimage_session *session, fault *f)
{
    server *s = a->worker->server;
    job *j = a->job;
    zimage_error error = ZIMAGE_ERROR_INIT;
    zimage_image *image = NULL;
    zimage_request request;
    warn_of_words(a);
    fill_request(a, &request);
    zimage_status status = zimage_generate(session, &request, &image, &error);
    lanes_end(a, image);
    if (status != ZIMAGE_OK) {
        if (status != ZIMAGE_ERROR_CANCELLED)
            serve_log(s, "job %s: %s", j->id, error.message);
        fault_of_error(f, &error);
        return NULL;
    }
    zimage_image_info info = {.struct_size = sizeof info};
    if (zimage_image_get_info(image, &info, NULL) == ZIMAGE_OK)
        models_measured(j->model, &j->resolved, j->planned, info.seconds - a->waited, &s->jobs, &s->lock);
    return image;
}

static void count_image(server *s, const attempt *a, const zimage_image *image)
{
    zimage_image_info info = {.struct_size = sizeof info};
    zimage_image_get_info(image, &info, NULL);
    s->metrics.steps += (uint64_t)a->job->resolved.steps;
    s->metrics.pixels += (uint64_t)a->job->resolved.width * (uint64_t)a->job->resolved.height;
    metrics_observe(&s->metrics.job_seconds, info.seconds - a->waited);
    for (int i = 0; i < ZIMAGE_STAGE_COUNT; i++) {
        zimage_stage stage = (zimage_stage)i;
        double seconds = zimage_image_seconds(image, stage);
        if (seconds > 0) /* an image waits for its turn when the context begins */
            metrics_observe(&s->metrics.stage_seconds[stage],
                            seconds - (stage == ZIMAGE_STAGE_CONTEXT ? a->waited : 0));
    }
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

/* The second worker closes its session. With the lock, which is released meanwhile. */
static void leave(struct worker *w)
{
    server *s = w->server;
    pthread_mutex_unlock(&s->lock);
    close_idle(w);
    pthread_mutex_lock(&s->lock);
    w->lanes->is_joined = 0;
    w->lanes->taken[1] = 0;
    pthread_cond_broadcast(&s->work);
}

/* The second worker can't make the image beside the first one's. With the lock. */
static void give_back(struct worker *w, job *j)
{
    server *s = w->server;
    w->job = NULL;
    if (!atomic_load(&j->cancel) && queue_return(&s->queue, &j->item)) {
        pthread_cond_broadcast(&s->work);
        return;
    }
    fail_job(s, j, atomic_load(&j->cancel) ? &cancelled : &no_memory);
    job_release(&s->jobs, j);
}

/* What becomes of a job once its image was made, or was not. With the lock. */
static void end_item(attempt *a, zimage_image *image, const fault *f)
{
    struct worker *w = a->worker;
    server *s = w->server;
    job *j = a->job;
    if (image) {
        count_image(s, a, image);
        encode_later(s, j, a->index, image, a->waited);
        while (j->request.partial_images > 0 && j->made <= a->index && !job_is_over(j))
            pthread_cond_wait(&s->encoding, &s->lock); /* previews of the next image come behind this one */
    }
    w->job = NULL;
    j->item.units--;
    if (!image)
        fail_job(s, j, f);
    else if (atomic_load(&j->cancel))
        fail_job(s, j, &cancelled);
    if (image && !job_is_over(j) && j->item.units > 0 && queue_push_again(&s->queue, &j->item)) {
        pthread_cond_broadcast(&s->work);
        return;
    }
    job_release(&s->jobs, j);
}

/* Makes one image of a job, and puts the job back if it has more. With the lock, which is released meanwhile. */
static void serve_item(struct worker *w, job *j)
{
    server *s = w->server;
    fault f = {0};
    zimage_image *image = NULL;
    zimage_session *session = NULL;
    attempt a = {.worker = w, .job = j, .index = j->begun};
    w->job = j;
    pthread_cond_broadcast(&s->work); /* the other worker may join */
    if (w->is_second) {
        pthread_mutex_unlock(&s->lock);
        int can_begin = prepare_beside(&a, &session);
        pthread_mutex_lock(&s->lock);
        if (!can_begin) {
            give_back(w, j);
            leave(w);
            return;
        }
    }
    j->begun++;
    begin_image(s, j);
    pthread_mutex_unlock(&s->lock);
    if (w->is_second || prepare(&a, &session, &f))
        image = make_image(&a, session, &f);
    pthread_mutex_lock(&s->lock);
    end_item(&a, image, &f);
}

/* ---- the thread ---- */

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
    zimage_session *session;
    pthread_mutex_lock(&s->lock);
    model_entry *standard = &s->models.entries[s->models.standard];
    pthread_mutex_unlock(&s->lock);
    int ok = open_for(w, standard, &session, &f);
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
            lanes_dismiss(w, NULL);
            close_idle(w);
            pthread_mutex_lock(&s->lock);
        }
    }
    pthread_mutex_unlock(&s->lock);
    close_idle(w);
    return NULL;
}

static void *work_beside(void *user)
{
    struct worker *w = user;
    server *s = w->server;
    pthread_mutex_lock(&s->lock);
    while (s->state < SERVER_DRAINING || queue_length(&s->queue) > 0) {
        job *j = lanes_joinable(w);
        if (w->lanes->is_dismissed) {
            leave(w);
        } else if (j) {
            w->lanes->is_joined = 1;
            serve_item(w, (job *)(void *)queue_take(&s->queue));
        } else {
            pthread_cond_wait(&s->work, &s->lock);
        }
    }
    leave(w);
    pthread_mutex_unlock(&s->lock);
    return NULL;
}

static int start(server *s, int index)
{
    int devices = s->params->device_count;
    struct worker *w = &s->workers[index];
    lanes *l = &s->lanes[index % devices];
    *w = (struct worker){.server = s, .lanes = l, .index = index, .is_second = index >= devices};
    *(w->is_second ? &l->second : &l->first) = w;
    w->is_started = pthread_create(&w->thread, NULL, w->is_second ? work_beside : work, w) == 0;
    return w->is_started;
}

int workers_start(server *s, zimage_error *error)
{
    int devices = s->params->device_count, ok;
    s->worker_count = 2 * devices;
    s->workers = calloc((size_t)s->worker_count, sizeof *s->workers);
    s->lanes = calloc((size_t)devices, sizeof *s->lanes);
    ok = s->workers && s->lanes;
    for (int i = 0; ok && i < devices; i++) {
        s->lanes[i].device = s->params->devices[i];
        pthread_mutex_init(&s->lanes[i].planning, NULL);
    }
    ok = ok && encoder_start(s);
    for (int i = 0; ok && i < s->worker_count; i++)
        ok = start(s, i);
    if (ok)
        return 1;
    pthread_mutex_lock(&s->lock);
    s->state = SERVER_FAILED;
    pthread_cond_broadcast(&s->work);
    pthread_mutex_unlock(&s->lock);
    snprintf(error->message, sizeof error->message, "the server's threads can't be started");
    error->status = ZIMAGE_ERROR_INTERNAL;
    return 0;
}

void workers_stop(server *s)
{
    for (int i = 0; s->workers && i < s->worker_count; i++)
        if (s->workers[i].is_started)
            pthread_join(s->workers[i].thread, NULL);
    encoder_stop(s);
    for (int i = 0; s->workers && s->lanes && i < s->params->device_count; i++)
        pthread_mutex_destroy(&s->lanes[i].planning);
    free(s->lanes);
    free(s->workers);
    s->lanes = NULL;
    s->workers = NULL;
}
