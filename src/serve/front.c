/*
 * A front's thread: it tells the ledger what it has to know and asks what others want to know, in order. Then it looks
 * at open jobs and at all that wait. While the ledger is lost, it tries to reach it again.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "front_internal.h"

#define LOOK_SECONDS  0.25 /* between two looks at open jobs that nothing was heard of */
#define STORE_SECONDS 15   /* in which a job is in the ledger, or refused */
#define LAST_SECONDS  5    /* in which the ledger is told the rest when the server ends */
#define PAUSE_MAX     2.0  /* before a lost ledger is tried again */

typedef enum task_kind { TASK_ADD, TASK_CANCEL, TASK_ASK } task_kind;

/* What the ledger has to be told or asked, in order. */
typedef struct task {
    struct task *next;
    task_kind kind;
    job *job; /* TASK_ADD: held */
    char id[JOB_ID_LENGTH + 1];
    front_asking *asking;
    double since;
} task;

/* ---- tasks; with the lock ---- */

static int push(server *s, task new)
{
    struct front *f = s->front;
    task *t = malloc(sizeof *t);
    if (!t)
        return 0;
    *t = new;
    t->since = serve_now();
    if (f->last)
        f->last->next = t;
    else
        f->first = t;
    f->last = t;
    f->ledger->wake(f->ledger->user);
    return 1;
}

static void drop_first(struct front *f)
{
    task *t = f->first;
    f->first = t->next;
    f->last = t->next ? f->last : NULL;
    if (t->job)
        job_release(&f->server->jobs, t->job);
    if (t->asking)
        front_answered(t->asking);
    free(t);
}

int front_add(server *s, job *j)
{
    if (!push(s, (task){.kind = TASK_ADD, .job = job_hold(j)})) {
        j->references--;
        return 0;
    }
    job_number_events(j);
    s->front->added += (size_t)j->count;
    return 1;
}

void front_cancel(server *s, const job *j)
{
    task t = {.kind = TASK_CANCEL};
    memcpy(t.id, j->id, sizeof t.id);
    if (!push(s, t))
        serve_log(s, "job %s: there is no memory to cancel it", j->id);
}

void front_wake(server *s)
{
    s->front->ledger->wake(s->front->ledger->user);
}

int front_ask(server *s, front_asking *asking)
{
    return push(s, (task){.kind = TASK_ASK, .asking = asking});
}

int front_busy(const server *s)
{
    if (s->front->first)
        return 1;
    for (const job *j = s->jobs.newest; j; j = j->older)
        if (!job_is_over(j) && !j->is_detached)
            return 1;
    return 0;
}

int front_is_lost(const server *s)
{
    return s->front->is_lost;
}

/* ---- the thread; without the lock ---- */

static service_answer perform(struct front *f, const task *t, zimage_error *error)
{
    switch (t->kind) {
    case TASK_ADD:
        return front_keep(f, t->job, error);
    case TASK_CANCEL:
        return f->ledger->cancel(f->ledger->user, t->id, error);
    case TASK_ASK:
        break;
    }
    return front_find(f, t->asking, error);
}

/* All tasks, in order, until the ledger is lost. */
static service_answer perform_all(struct front *f, zimage_error *error)
{
    server *s = f->server;
    service_answer answer = SERVICE_OK;
    pthread_mutex_lock(&s->lock);
    while (f->first && answer != SERVICE_LOST) {
        const task *t = f->first; /* others only append */
        pthread_mutex_unlock(&s->lock);
        answer = perform(f, t, error);
        if (answer == SERVICE_FAILED)
            serve_log(s, "%s", error->message);
        pthread_mutex_lock(&s->lock);
        if (answer != SERVICE_LOST)
            drop_first(f);
    }
    pthread_mutex_unlock(&s->lock);
    return answer == SERVICE_LOST ? answer : SERVICE_OK;
}

/* Nobody waits for ever for a ledger that is lost. Cancellations are kept. */
static void refuse_waiting(struct front *f)
{
    server *s = f->server;
    double now = serve_now();
    fault lost;
    fault_set(&lost, FAULT_LEDGER_LOST, NULL, "the ledger of jobs can't be reached at present");
    lost.retry_after = 5;
    pthread_mutex_lock(&s->lock);
    for (task *t = f->first; t; t = t->next) {
        if (t->kind == TASK_CANCEL || now - t->since < STORE_SECONDS)
            continue;
        if (t->job) {
            memcpy(t->id, t->job->id, sizeof t->id);
            fail_job(s, t->job, &lost);
            job_release(&s->jobs, t->job);
        }
        if (t->asking)
            front_answered(t->asking);
        t->kind = TASK_CANCEL; /* a job may be there nevertheless; of a question it is that of no job */
        t->job = NULL;
        t->asking = NULL;
    }
    pthread_mutex_unlock(&s->lock);
}

static void set_lost(struct front *f, int is_lost)
{
    pthread_mutex_lock(&f->server->lock);
    f->is_lost = is_lost;
    pthread_mutex_unlock(&f->server->lock);
}

static int ends(struct front *f)
{
    server *s = f->server;
    pthread_mutex_lock(&s->lock);
    if (f->is_stopping && !(f->ends > 0))
        f->ends = serve_now() + LAST_SECONDS;
    int over = f->is_stopping && (!f->first || serve_now() > f->ends);
    pthread_mutex_unlock(&s->lock);
    return over;
}

static void find_again(struct front *f, const zimage_error *reason)
{
    zimage_error error = ZIMAGE_ERROR_INIT;
    serve_log(f->server, "%s; tries again until it answers", reason->message);
    set_lost(f, 1);
    f->pause = 0.1;
    while (!ends(f) && f->ledger->reopen(f->ledger->user, &error) != SERVICE_OK) {
        refuse_waiting(f);
        f->ledger->wait(f->ledger->user, f->pause);
        f->pause = 2 * f->pause < PAUSE_MAX ? 2 * f->pause : PAUSE_MAX;
    }
    if (!ends(f))
        serve_log(f->server, "the ledger is there again");
    front_forget_watched(f->server);
    set_lost(f, 0);
}

static service_answer go_round(struct front *f, zimage_error *error)
{
    double now = serve_now();
    service_answer answer = perform_all(f, error);
    if (answer == SERVICE_OK)
        answer = front_tell_watched(f->server, f->ledger, error);
    if (answer == SERVICE_OK)
        answer = front_look(f, error);
    if (answer == SERVICE_OK && now - f->loaded >= LOAD_SECONDS)
        answer = front_count(f, error);
    return answer == SERVICE_OK ? f->ledger->tidy(f->ledger->user, error) : answer;
}

/* The default model decides whether the server begins. */
static void open_models(struct front *f)
{
    server *s = f->server;
    zimage_error error = ZIMAGE_ERROR_INIT;
    zimage_status worst = ZIMAGE_OK;
    zimage_session_params params = s->params->session;
    params.device = "cpu";
    params.threads = 1;
    for (int i = 0; i < s->models.count; i++) {
        model_entry *entry = &s->models.entries[i];
        zimage_status status = models_open(&s->models, entry, &params, &s->lock, &f->sessions[i], &error);
        if (status == ZIMAGE_OK)
            continue;
        serve_log(s, "model %s: %s", entry->id, error.message);
        worst = i == s->models.standard ? status : worst;
    }
    pthread_mutex_lock(&s->lock);
    if (worst != ZIMAGE_OK) {
        s->failure.status = ZIMAGE_ERROR_MODEL;
        snprintf(s->failure.message, sizeof s->failure.message, "model: \"%s\" can't be opened; the log says why",
                 s->models.entries[s->models.standard].id);
    }
    pthread_mutex_unlock(&s->lock);
}

static void *run(void *user)
{
    struct front *f = user;
    server *s = f->server;
    zimage_error error = ZIMAGE_ERROR_INIT;
    open_models(f);
    if (front_count(f, &error) == SERVICE_LOST)
        find_again(f, &error);
    pthread_mutex_lock(&s->lock);
    if (s->state == SERVER_LOADING)
        s->state = s->failure.status == ZIMAGE_OK ? SERVER_READY : SERVER_FAILED;
    pthread_mutex_unlock(&s->lock);
    while (!ends(f)) {
        service_answer answer = go_round(f, &error);
        if (answer == SERVICE_LOST)
            find_again(f, &error);
        else if (answer == SERVICE_FAILED)
            serve_log(s, "%s", error.message);
        if (!ends(f))
            f->ledger->wait(f->ledger->user, answer == SERVICE_OK ? LOOK_SECONDS : LOAD_SECONDS);
    }
    for (int i = 0; i < s->models.count; i++)
        if (f->sessions[i])
            models_close(&s->models, &s->models.entries[i], &s->lock, f->sessions[i]);
    return NULL;
}

int front_start(server *s, zimage_error *error)
{
    struct front *f = calloc(1, sizeof *f);
    if (f) {
        *f = (struct front){.server = s, .ledger = s->params->ledger};
        s->front = f;
        if (pthread_create(&f->thread, NULL, run, f) == 0)
            return 1;
    }
    s->front = NULL;
    free(f);
    snprintf(error->message, sizeof error->message, "the server's threads can't be started");
    error->status = ZIMAGE_ERROR_INTERNAL;
    return 0;
}

void front_stop(server *s)
{
    struct front *f = s->front;
    if (!f)
        return;
    pthread_mutex_lock(&s->lock);
    f->is_stopping = 1;
    f->ledger->wake(f->ledger->user);
    pthread_mutex_unlock(&s->lock);
    pthread_join(f->thread, NULL);
    pthread_mutex_lock(&s->lock);
    while (f->first)
        drop_first(f);
    pthread_mutex_unlock(&s->lock);
    free(f->load.lines);
    free(f);
    s->front = NULL;
}
