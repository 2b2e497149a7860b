/* zimage's own API of jobs: what the page and programs use that come back later for the result. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "front.h"
#include "handlers.h"

#define JOBS_LIMIT 100 /* of a list, and its default */

/* ---- a job as JSON; with the lock ---- */

static json_t *pictures_json(const job *j)
{
    json_t *list = json_array();
    for (int i = 0; i < j->count; i++)
        if (j->pictures[i].data)
            json_array_append_new(
                list, json_pack("{s:i, s:o?, s:o?, s:I, s:s}", "index", i, "seed", seed_json(j->pictures[i].seed),
                                "url", json_sprintf("/zimage/v1/jobs/%s/pictures/%d", j->id, i), "bytes",
                                (json_int_t)j->pictures[i].size, "format", zimage_format_name(j->resolved.format)));
    return list;
}

json_t *job_request_json(const job *j, int index)
{
    const serve_request *r = &j->request;
    json_t *request = json_pack("{s:s, s:s, s:i}", "prompt", r->prompt, "model", j->model->id, "n", j->count);
    if (request && j->is_resolved)
        json_object_update_new(request,
                               json_pack("{s:o?, s:i, s:f, s:o?, s:s, s:s}", "size",
                                         json_sprintf("%dx%d", j->resolved.width, j->resolved.height), "steps",
                                         j->resolved.steps, "guidance", j->resolved.guidance, "seed",
                                         seed_json(j->resolved.seed + (uint64_t)index), "rng", serve_rng_words[r->rng],
                                         "output_format", zimage_format_name(j->resolved.format)));
    if (request && r->negative_prompt)
        json_object_set_new(request, "negative_prompt", json_string(r->negative_prompt));
    return request;
}

/* Seconds until the whole job is done. */
static double remaining_seconds(const server *s, const job *j)
{
    int left = j->count - j->made;
    return wait_of(s, j).seconds + j->item.seconds * (left > 0 ? left - j->fraction : 0);
}

static json_t *progress_json(const server *s, const job *j)
{
    return json_pack("{s:s, s:i, s:i, s:f, s:f}", "stage", zimage_stage_name(j->stage), "step", j->step, "steps",
                     j->steps, "fraction", (j->made + (job_is_over(j) ? 0 : j->fraction)) / j->count, "eta_seconds",
                     job_is_over(j) ? 0 : remaining_seconds(s, j));
}

static json_t *job_json(const server *s, const job *j)
{
    const serve_request *r = &j->request;
    double base = (double)j->created_at - j->created;
    json_t *value = json_pack("{s:s, s:s, s:s, s:o?, s:I, s:o?, s:o?, s:o?, s:o?}", "id", j->id, "kind",
                              r->image_count ? "edit" : "generation", "state", job_state_name(j->state), "progress",
                              progress_json(s, j), "created", (json_int_t)j->created_at, "pictures", pictures_json(j),
                              "request", job_request_json(j, 0), "warnings", notes_json(r->warnings, r->warning_count),
                              "ignored", notes_json(r->ignored, r->ignored_count));
    if (!value)
        return NULL;
    if (j->item.line || (s->front && j->state == JOB_QUEUED))
        json_object_set_new(value, "position", json_integer((json_int_t)wait_of(s, j).units));
    if (j->started > 0)
        json_object_set_new(value, "started", json_integer((json_int_t)(base + j->started)));
    if (job_is_over(j))
        json_object_set_new(value, "finished", json_integer((json_int_t)(base + j->finished)));
    if (j->state == JOB_FAILED)
        json_object_set_new(value, "error", fault_json(&j->fault));
    return value;
}

static enum MHD_Result answer_job(exchange *x, int status)
{
    pthread_mutex_lock(&x->server->lock);
    front_viewed(x->server, x->job, 0);
    json_t *value = job_json(x->server, x->job);
    pthread_mutex_unlock(&x->server->lock);
    return answer_json(x, status, value);
}

/* ---- making and finding ---- */

static enum MHD_Result answer_created(exchange *x)
{
    pthread_mutex_lock(&x->server->lock);
    const job *j = x->job;
    size_t position = wait_of(x->server, j).units;
    json_t *value = json_pack("{s:s, s:s, s:I, s:f, s:o?, s:o?}", "id", j->id, "state", job_state_name(j->state),
                              "position", (json_int_t)position, "eta_seconds", remaining_seconds(x->server, j),
                              "events_url", json_sprintf("/zimage/v1/jobs/%s/events", j->id), "cancel_url",
                              json_sprintf("/zimage/v1/jobs/%s", j->id));
    pthread_mutex_unlock(&x->server->lock);
    return answer_json(x, MHD_HTTP_ACCEPTED, value);
}

enum MHD_Result handle_job_create(exchange *x)
{
    return exchange_submit(x, 1, answer_created);
}

enum MHD_Result handle_jobs(exchange *x)
{
    const char *limit = exchange_argument(x, "limit"), *before = exchange_argument(x, "before");
    long left = limit ? strtol(limit, NULL, 10) : JOBS_LIMIT;
    json_t *list = json_array();
    pthread_mutex_lock(&x->server->lock);
    job *j = before ? job_find(&x->server->jobs, before, x->owner) : NULL;
    for (j = j ? j->older : before ? NULL : x->server->jobs.newest; j && left > 0; j = j->older)
        if (j->owner == x->owner) {
            front_viewed(x->server, j, 0);
            json_array_append_new(list, job_json(x->server, j));
            left--;
        }
    pthread_mutex_unlock(&x->server->lock);
    return answer_json(x, MHD_HTTP_OK, json_pack("{s:o?}", "jobs", list));
}

static enum MHD_Result wait_for_end(exchange *x)
{
    const char *wait = exchange_argument(x, "wait");
    double end = x->started + (wait ? strtod(wait, NULL) : 0);
    pthread_mutex_lock(&x->server->lock);
    int is_over = job_is_over(x->job);
    pthread_mutex_unlock(&x->server->lock);
    return is_over || !(serve_now() < end) ? answer_job(x, MHD_HTTP_OK) : exchange_wait(x, end, wait_for_end);
}

enum MHD_Result handle_job(exchange *x)
{
    return exchange_find_job(x, x->match.parameters[0]) ? wait_for_end(x) : answer_fault(x);
}

enum MHD_Result handle_job_cancel(exchange *x)
{
    if (!exchange_find_job(x, x->match.parameters[0]))
        return answer_fault(x);
    pthread_mutex_lock(&x->server->lock);
    int is_finished = x->job->state == JOB_COMPLETED || x->job->state == JOB_FAILED;
    if (!is_finished)
        cancel_job(x->server, x->job, CANCEL_API);
    pthread_mutex_unlock(&x->server->lock);
    if (!is_finished)
        return answer_job(x, MHD_HTTP_OK);
    fault_set(&x->fault, FAULT_JOB_FINISHED, NULL, "the job is over already");
    return answer_fault(x);
}

enum MHD_Result handle_job_picture(exchange *x)
{
    char *end, *text = x->match.parameters[1];
    unsigned long index = strtoul(text, &end, 10);
    if (!exchange_find_job(x, x->match.parameters[0]))
        return answer_fault(x);
    pthread_mutex_lock(&x->server->lock);
    int is_there = *text && !*end && index < (unsigned long)x->job->count && x->job->pictures[index].data;
    pthread_mutex_unlock(&x->server->lock);
    if (!is_there) {
        fault_set(&x->fault, FAULT_JOB_NOT_FOUND, NULL, "the job has no such image, or has not made it yet");
        return answer_fault(x);
    }
    return answer_picture(x, (int)index);
}

/* ---- events ---- */

static const char *name_of(const job_event *event)
{
    static const char *const names[] = {"state", "progress", "preview", "picture", "end"};
    return names[event->kind];
}

static json_t *event_json(const exchange *x, const job_event *event)
{
    const job *j = x->job;
    json_t *value = json_pack("{s:s, s:i}", "state", job_state_name(event->state), "index", event->index);
    if (event->kind == EVENT_PROGRESS || event->kind == EVENT_PREVIEW)
        json_object_update_new(value, json_pack("{s:s, s:i, s:i, s:f, s:f}", "stage", zimage_stage_name(event->stage),
                                                "step", event->step, "steps", event->steps, "fraction", event->fraction,
                                                "eta_seconds", job_is_over(j) ? 0 : remaining_seconds(x->server, j)));
    if (event->kind == EVENT_PICTURE)
        json_object_update_new(value,
                               json_pack("{s:o?, s:o?, s:s}", "seed", seed_json(j->pictures[event->index].seed), "url",
                                         json_sprintf("/zimage/v1/jobs/%s/pictures/%d", j->id, event->index),
                                         "gallery_id", j->pictures[event->index].kept_as));
    if (event->kind == EVENT_END)
        json_object_set_new(value, "warnings", notes_json(j->request.warnings, j->request.warning_count));
    if (event->kind == EVENT_END && event->state == JOB_FAILED)
        json_object_set_new(value, "error", fault_json(&j->fault));
    return value;
}

static int render(exchange *x, const job_event *event, pieces *p)
{
    char begin[96];
    snprintf(begin, sizeof begin, "id: %llu\nevent: %s\ndata: ", (unsigned long long)event->number, name_of(event));
    pieces_add_text(p, begin);
    if (event->data)
        pieces_add_json_with(p, event_json(x, event), "jpeg", event->data, event->size);
    else
        pieces_add_json(p, event_json(x, event));
    pieces_add_text(p, "\n\n");
    return event->kind == EVENT_END;
}

enum MHD_Result handle_job_events(exchange *x)
{
    const char *last = exchange_header(x, "Last-Event-ID");
    if (!exchange_find_job(x, x->match.parameters[0]))
        return answer_fault(x);
    pthread_mutex_lock(&x->server->lock);
    uint64_t after = last ? job_resume_at(x->job, strtoull(last, NULL, 10)) : 0;
    pthread_mutex_unlock(&x->server->lock);
    return answer_stream(x, render, after, 1);
}

/* ---- plans ---- */

enum MHD_Result handle_plan(exchange *x)
{
    serve_request *request = exchange_request(x);
    prediction p = {0};
    double wait = 0;
    const job_origin origin = {.owner = x->owner, .caller = policy_hash(x->owner, ""), .ledger_caller = ""};
    int ok = forecast(x->server, request, &origin, &p, &wait, &x->fault);
    int64_t count = request->n;
    model_entry *model = models_find(&x->server->models, request->model);
    int32_t most = 0;
    int64_t tokens = model ? models_count_tokens(model, request->prompt, &most) : -1;
    if (!ok && fault_kind_of(x->fault.code)->status == MHD_HTTP_BAD_REQUEST)
        return answer_fault(x);
    json_t *value = json_pack("{s:f, s:f, s:f, s:I, s:I, s:b}", "seconds", (double)count * p.seconds, "image_seconds",
                              p.seconds, "wait_seconds", wait, "peak_bytes", (json_int_t)p.peak_bytes, "least_bytes",
                              (json_int_t)p.least_bytes, "accepted", ok);
    if (value && tokens >= 0)
        json_object_update_new(value,
                               json_pack("{s:I, s:i}", "prompt_tokens", (json_int_t)tokens, "max_prompt_tokens", most));
    if (value && !ok)
        json_object_set_new(value, "error", fault_json(&x->fault));
    return answer_json(x, MHD_HTTP_OK, value);
}
