#include "lanes.h"

static int64_t pixels_of(const job *j)
{
    return (int64_t)j->resolved.width * j->resolved.height;
}

job *lanes_joinable(const struct worker *second)
{
    const lanes *l = second->lanes;
    job *j = (job *)(void *)queue_next(&second->server->queue);
    const job *beside = l->first->job;
    int is_alike = j && beside && j->model == l->ready && beside->model == l->ready;
    int fits = is_alike && j->is_resolved && (l->most_pixels == 0 || pixels_of(j) < l->most_pixels);
    return fits && !l->is_dismissed ? j : NULL;
}

int lanes_dismiss(struct worker *first, const job *j)
{
    server *s = first->server;
    lanes *l = first->lanes;
    pthread_mutex_lock(&s->lock);
    l->ready = NULL;
    l->most_pixels = 0;
    l->is_dismissed = l->is_joined;
    pthread_cond_broadcast(&s->work);
    while (l->is_joined && !(j && atomic_load(&j->cancel)))
        pthread_cond_wait(&s->work, &s->lock);
    int is_over = !l->is_joined;
    l->is_dismissed = 0;
    pthread_mutex_unlock(&s->lock);
    return is_over;
}

int lanes_settle(struct worker *first, const job *j)
{
    lanes *l = first->lanes;
    pthread_mutex_lock(&first->server->lock);
    int goes_on = l->ready == j->model || !l->is_joined;
    l->ready = l->ready == j->model ? l->ready : NULL;
    pthread_mutex_unlock(&first->server->lock);
    return goes_on || lanes_dismiss(first, j);
}

int lanes_limit(const struct worker *second, uint64_t *limit)
{
    pthread_mutex_lock(&second->server->lock);
    uint64_t all = second->server->params->session.device_memory, taken = second->lanes->taken[0];
    pthread_mutex_unlock(&second->server->lock);
    *limit = all > taken ? all - taken : 0;
    return all == 0 || all > taken;
}

void lanes_refuse(const attempt *a)
{
    pthread_mutex_lock(&a->worker->server->lock);
    a->worker->lanes->most_pixels = pixels_of(a->job);
    pthread_mutex_unlock(&a->worker->server->lock);
}

/* ---- before an image ---- */

static int is_joined(const struct worker *w)
{
    pthread_mutex_lock(&w->server->lock);
    int joined = w->lanes->is_joined;
    pthread_mutex_unlock(&w->server->lock);
    return joined;
}

/* Whether an image fits the GPU's memory with all its weights, beside what the other worker's last image took. */
static int fits(const attempt *a, zimage_session *session, const zimage_request *request)
{
    const struct worker *w = a->worker;
    uint64_t limit = w->server->params->session.device_memory;
    zimage_memory_info memory = {.struct_size = sizeof memory};
    if (zimage_request_memory(session, request, &memory, NULL) != ZIMAGE_OK || memory.step_bytes > 0)
        return 0;
    pthread_mutex_lock(&w->server->lock);
    uint64_t *taken = w->lanes->taken;
    int ok = limit == 0 || memory.total_bytes + taken[!w->is_second] <= limit;
    if (ok || !w->is_second) /* the first one makes the image in any case, and the second one then closes its session */
        taken[w->is_second] = memory.total_bytes;
    pthread_mutex_unlock(&w->server->lock);
    return ok;
}

static void end_planning(attempt *a)
{
    if (a->is_planning)
        pthread_mutex_unlock(&a->worker->lanes->planning);
    a->is_planning = 0;
}

int lanes_begin(attempt *a, zimage_session *session, const zimage_request *request)
{
    struct worker *w = a->worker;
    lanes *l = w->lanes;
    pthread_mutex_lock(&l->planning);
    a->is_planning = 1;
    if (w->is_second) {
        if (fits(a, session, request))
            return 1;
        end_planning(a);
        lanes_refuse(a);
        return 0;
    }
    int is_certain = w->server->params->session.device_memory == 0 && !is_joined(w);
    if (is_certain || fits(a, session, request))
        return 1;
    end_planning(a);
    if (!lanes_dismiss(w, a->job))
        return 0;
    pthread_mutex_lock(&l->planning);
    a->is_planning = 1;
    return 1;
}

/* ---- while an image is made ---- */

static void wait_for_turn(attempt *a)
{
    server *s = a->worker->server;
    lanes *l = a->worker->lanes;
    double begin = serve_now();
    pthread_mutex_lock(&s->lock);
    while (l->turn && !atomic_load(&a->job->cancel))
        pthread_cond_wait(&s->work, &s->lock);
    a->has_turn = l->turn == NULL;
    if (a->has_turn)
        l->turn = a->worker;
    pthread_mutex_unlock(&s->lock);
    a->waited += serve_now() - begin;
}

static void end_turn(attempt *a)
{
    server *s = a->worker->server;
    if (!a->has_turn)
        return;
    a->has_turn = 0;
    pthread_mutex_lock(&s->lock);
    a->worker->lanes->turn = NULL;
    pthread_cond_broadcast(&s->work);
    pthread_mutex_unlock(&s->lock);
}

void lanes_advance(attempt *a, zimage_stage stage)
{
    end_planning(a);
    if (stage == ZIMAGE_STAGE_DECODE)
        end_turn(a);
    else if (!a->has_turn && (stage == ZIMAGE_STAGE_CONTEXT || stage == ZIMAGE_STAGE_DENOISE))
        wait_for_turn(a);
}

void lanes_end(attempt *a, const zimage_image *image)
{
    struct worker *w = a->worker;
    lanes *l = w->lanes;
    zimage_memory_info memory = {.struct_size = sizeof memory};
    end_planning(a);
    end_turn(a);
    if (!image || zimage_image_get_memory(image, &memory, NULL) != ZIMAGE_OK)
        return;
    pthread_mutex_lock(&w->server->lock);
    int has_all = memory.limit_bytes > 0 && memory.step_bytes == 0; /* limit_bytes is 0 on a CPU */
    if (!w->is_second)
        l->ready = has_all && !w->server->params->no_overlap ? a->job->model : NULL;
    pthread_mutex_unlock(&w->server->lock);
}
