/* Which requests become jobs, how jobs end, and what is predicted about them. */
#include <stdio.h>

#include "front.h"
#include "worker.h"

#define RETRY_MAX 120 /* seconds; clients of OpenAI do not repeat a request that has to wait longer */

/* Seconds until what the workers have at hand is done; 0: a device is idle. */
static double busy_seconds(const server *s)
{
    int devices = s->params->device_count;
    double sum = 0;
    for (int i = 0; i < devices; i++) {
        const job *jobs[] = {worker_job(s, i), worker_job(s, devices + i)};
        if (!jobs[0] && !jobs[1])
            return 0;
        for (int k = 0; k < 2; k++)
            sum += jobs[k] ? jobs[k]->item.seconds * (1 - jobs[k]->fraction) : 0;
    }
    return sum / devices;
}

/* The other images of the caller's jobs that workers have at hand: they are made before those of its jobs that wait. */
static queue_wait behind_running(const server *s, uint64_t caller, queue_wait wait)
{
    for (int i = 0; i < s->worker_count; i++) {
        const job *j = worker_job(s, i);
        if (!j || j->item.caller != caller)
            continue;
        wait.units += (size_t)j->item.units - 1;
        wait.seconds += (j->item.units - 1) * j->item.seconds;
    }
    return wait;
}

queue_wait wait_of(const server *s, const job *j)
{
    if (s->front && j->state == JOB_QUEUED)
        return front_wait_of(s, j);
    if (!j->item.line)
        return (queue_wait){0};
    queue_wait wait = behind_running(s, j->item.caller, queue_before(&s->queue, &j->item));
    wait.seconds = busy_seconds(s) + wait.seconds / s->params->device_count;
    return wait;
}

static double wait_of_new(const server *s, const model_entry *model, const job_origin *origin, queue_class class)
{
    const uint64_t caller = origin->caller;
    if (s->front)
        return front_wait_of_new(s, model, origin->ledger_caller, class).seconds;
    queue_wait wait = behind_running(s, caller, queue_before_new(&s->queue, caller, class));
    return busy_seconds(s) + wait.seconds / s->params->device_count;
}

static double retry_after(double wait)
{
    return wait < 1 ? 1 : wait > RETRY_MAX ? RETRY_MAX : wait;
}

static int refuse_busy(fault *f, fault_code code, double wait, const char *reason)
{
    fault_set(f, code, NULL, "%s; a job would begin in about %.0f seconds", reason, wait);
    f->retry_after = retry_after(wait);
    return 0;
}

/* Whether there is room for a job, which the queue does not have yet. With the lock. */
static int has_room(const server *s, const job *j, const job_origin *origin, fault *f)
{
    double wait = wait_of_new(s, j->model, origin, j->item.class);
    double all = wait + j->count * j->item.seconds;
    if (s->state == SERVER_DRAINING || s->state == SERVER_FAILED) {
        fault_set(f, FAULT_SHUTTING_DOWN, NULL, "the server is shutting down");
        f->retry_after = s->params->drain > 1 ? s->params->drain : 1;
        return 0;
    }
    if (s->state == SERVER_LOADING && !(s->params->max_wait > 0)) {
        fault_set(f, FAULT_MODEL_LOADING, NULL, "the model is being opened, and jobs do not wait here");
        f->retry_after = 1;
        return 0;
    }
    if (s->front && !front_has_room(s, j->model, f))
        return 0;
    if (queue_length(&s->queue) >= (size_t)s->params->max_queue)
        return refuse_busy(f, FAULT_QUEUE_FULL, wait, "the queue is full");
    if (wait > s->params->max_wait)
        return refuse_busy(f, FAULT_QUEUE_FULL, wait, "the jobs that wait take too long");
    if (origin->patience > 0 && !j->request.stream && all > origin->patience) {
        fault_set(f, FAULT_WAIT_EXCEEDS_TIMEOUT, NULL,
                  "the images would take about %.0f seconds, and the client waits %.0f; ask for stream: true", all,
                  origin->patience);
        f->retry_after = retry_after(wait);
        return 0;
    }
    return 1;
}

/* Whether a job would end before it is cancelled. */
static int is_soon_enough(const server *s, const serve_request *request, const prediction *p, fault *f)
{
    double seconds = (double)(request->n * request->batch_size * request->n_iter) * p->seconds;
    if (!(s->params->job_seconds > 0) || seconds <= s->params->job_seconds)
        return 1;
    return fault_set(f, FAULT_INVALID_VALUE, NULL,
                     "the images would take about %.0f seconds, and the server gives a job %.0f", seconds,
                     s->params->job_seconds);
}

/* What the model says of a request: its time and memory, or a fault. *is_known 0: the model is closed and says nothing
 * yet; the worker asks again. While a job runs it holds memory, so a shortage then is no reason to refuse. */
static int ask_model(server *s, model_entry *model, serve_request *request, resolved_request *resolved, prediction *p,
                     int *is_known, fault *f)
{
    *p = (prediction){0};
    pthread_mutex_lock(&s->lock);
    int is_busy = s->front || busy_seconds(s) > 0; /* the memory of a front's machine does not matter */
    zimage_model_info info = model->info;
    *is_known = model->is_known;
    pthread_mutex_unlock(&s->lock);
    if (!*is_known)
        return 1;
    return resolve_request(request, &info, s->params, resolved, f) &&
           (models_predict(model, request, resolved, p, f) || (p->is_short && is_busy)) &&
           is_soon_enough(s, request, p, f);
}

static int enqueue(server *s, job *j, const job_origin *origin, fault *f)
{
    if (!has_room(s, j, origin, f))
        return 0;
    j->created = serve_now();
    if (s->front ? !front_add(s, j) : !queue_push(&s->queue, &j->item))
        return fault_set(f, FAULT_INSUFFICIENT_MEMORY, NULL, "there is no memory for the job");
    if (!s->front)
        job_hold(j); /* the queue's, and then the worker's */
    job_table_trim(&s->jobs, j->created, s->params->store_seconds, s->params->store_bytes);
    job_table_add(&s->jobs, j);
    if (!s->front) /* else when the ledger has it */
        job_happened(j, &(job_event){.kind = EVENT_STATE, .state = JOB_QUEUED});
    pthread_cond_broadcast(&s->work);
    return 1;
}

static model_entry *find_model(server *s, const serve_request *request, fault *f)
{
    model_entry *model = models_find(&s->models, request->model);
    if (!model)
        fault_set(f, FAULT_MODEL_NOT_FOUND, "model",
                  "model: there is no model \"%.200s\"; /v1/models lists those that are there", request->model);
    return model;
}

int forecast(server *s, serve_request *request, const job_origin *origin, prediction *p, double *wait, fault *f)
{
    resolved_request resolved;
    int is_known;
    model_entry *model = find_model(s, request, f);
    if (!model || !resolve_early(request, s->params, f) || !ask_model(s, model, request, &resolved, p, &is_known, f))
        return 0;
    pthread_mutex_lock(&s->lock);
    *wait = wait_of_new(s, model, origin, (queue_class)request->priority);
    pthread_mutex_unlock(&s->lock);
    return 1;
}

/* A front opens all models at its start. */
static int refuse_closed(server *s, const model_entry *model, fault *f)
{
    pthread_mutex_lock(&s->lock);
    int is_loading = s->state == SERVER_LOADING;
    pthread_mutex_unlock(&s->lock);
    if (!is_loading)
        return fault_set(f, FAULT_MODEL_FAILED, "model", "model: \"%s\" can't be opened; the server's log says why",
                         model->id);
    fault_set(f, FAULT_MODEL_LOADING, NULL, "the model is being opened");
    f->retry_after = 1;
    return 0;
}

int admit(server *s, serve_request *request, const job_origin *origin, job **out, fault *f)
{
    prediction p = {0};
    *out = NULL;
    model_entry *model = find_model(s, request, f);
    if (!model || !resolve_early(request, s->params, f))
        return 0;
    job *j = job_new(request);
    if (!j)
        return fault_set(f, FAULT_INSUFFICIENT_MEMORY, NULL, "there is no memory for the job");
    j->model = model;
    j->owner = origin->owner;
    j->owner_name = origin->owner_name;
    j->idempotency = origin->idempotency;
    j->body_hash = origin->body_hash;
    j->is_detached = origin->is_detached;
    j->wants_previews = request_previews(&j->request);
    snprintf(j->owner_hash, sizeof j->owner_hash, "%s", origin->owner_hash);
    snprintf(j->ledger_caller, sizeof j->ledger_caller, "%s", origin->ledger_caller);
    snprintf(j->repeat, sizeof j->repeat, "%s", origin->repeat);
    j->item.caller = origin->caller;
    j->item.class = (queue_class)j->request.priority;
    int ok = ask_model(s, model, &j->request, &j->resolved, &p, &j->is_resolved, f);
    if (ok && s->front && !j->is_resolved)
        ok = refuse_closed(s, model, f);
    j->item.seconds = p.seconds;
    j->planned = p.planned;
    pthread_mutex_lock(&s->lock);
    ok = ok && enqueue(s, j, origin, f);
    if (!ok) {
        s->metrics.refused++;
        job_release(&s->jobs, j);
    }
    pthread_mutex_unlock(&s->lock);
    *out = ok ? j : NULL;
    return ok;
}

/* ---- the end of a job ---- */

static void end_job(server *s, job *j, job_state state)
{
    s->metrics.jobs[state]++;
    job_end(j, state, serve_now());
}

void cancel_job(server *s, job *j, cancel_reason reason)
{
    if (job_is_over(j) || atomic_load(&j->cancel))
        return;
    atomic_store(&j->cancel, reason);
    s->metrics.cancelled[reason]++;
    if (s->front) {
        end_job(s, j, JOB_CANCELLED);
        front_cancel(s, j);
    } else if (j->item.line) { /* it waits */
        queue_remove(&s->queue, &j->item);
        end_job(s, j, JOB_CANCELLED);
        job_release(&s->jobs, j);
    } else if (worker_has(s, j)) {
        pthread_cond_broadcast(&s->work); /* the worker ends it; it may wait for its turn */
    } else {
        end_job(s, j, JOB_CANCELLED); /* its images are being encoded */
    }
}

void fail_job(server *s, job *j, const fault *f)
{
    if (job_is_over(j))
        return;
    j->fault = *f;
    end_job(s, j, f->code == FAULT_CANCELLED ? JOB_CANCELLED : JOB_FAILED);
}
