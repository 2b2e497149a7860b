/*
 * From admitted jobs to rows of the ledger, and from rows to jobs: of a row that this front does not know it makes a
 * job, and a client that repeats its request gets the job of the first time.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "front_internal.h"

/* ---- with the lock ---- */

void front_name_caller(const char *owner_hash, const char *user, char caller[FRONT_CALLER_TEXT])
{
    snprintf(caller, FRONT_CALLER_TEXT, "%s/%016llx", owner_hash, (unsigned long long)policy_hash(0, user ? user : ""));
}

void front_use_policy(server *s, const struct policy *keys)
{
    s->front->policy = keys;
}

/* ---- without the lock ---- */

typedef struct found_job {
    struct front *front;
    uint64_t owner;
    job *job; /* held */
    int count;
} found_job;

/* service_take_found: makes the job of a row, unless it is here already. */
static void adopt(void *taker, const service_found *row)
{
    found_job *found = taker;
    server *s = found->front->server;
    double now = serve_now();
    pthread_mutex_lock(&s->lock);
    job *j = job_find_any(&s->jobs, row->id);
    if (!j && (j = job_of_about(s, row->about))) {
        snprintf(j->id, sizeof j->id, "%s", row->id);
        snprintf(j->owner_hash, sizeof j->owner_hash, "%s", row->owner);
        j->owner = found->owner != FRONT_OWNER_UNKNOWN ? found->owner : ask_owner_of(found->front->policy, row->owner);
        j->owner_name = "";
        front_name_caller(j->owner_hash, j->request.user, j->ledger_caller);
        j->created = now - row->age;
        j->touched = now;
        j->is_stored = j->is_detached = 1; /* its client is another front's */
        job_number_events(j);
        job_table_add(&s->jobs, j);
        job_release(&s->jobs, j);
        job_happened(j, &(job_event){.kind = EVENT_STATE, .state = JOB_QUEUED});
    }
    if (j) {
        j->touched = now;
        found->count++;
        if (!found->job)
            found->job = job_hold(j);
    }
    pthread_mutex_unlock(&s->lock);
}

/* The client has sent the request before, to this front or another: it gets the job of that time. */
static service_answer join_twin(struct front *f, job *j, const char *id, zimage_error *error)
{
    server *s = f->server;
    found_job found = {.front = f, .owner = j->owner};
    const service_question question = {.id = id, .owner = j->owner_hash, .seconds = FRONT_FOREVER, .limit = 1};
    service_answer answer = f->ledger->find(f->ledger->user, &question, adopt, &found, error);
    if (answer == SERVICE_OK && found.job)
        answer = front_look_at(f, &id, 1, 0, error);
    pthread_mutex_lock(&s->lock);
    if (answer == SERVICE_OK && found.job) {
        j->twin = found.job;
        job_end(j, JOB_CANCELLED, serve_now()); /* it is none: whoever waits goes over to the other */
    } else if (found.job) {
        job_release(&s->jobs, found.job);
    }
    pthread_mutex_unlock(&s->lock);
    return answer == SERVICE_OK && !found.job ? SERVICE_FAILED : answer;
}

/* The faults of the library have been looked for at admission; the ledger's own are for the log. */
static void refuse_job(struct front *f, job *j, const zimage_error *error)
{
    fault unknown;
    server *s = f->server;
    serve_log(s, "job %s: %s", j->id, error->message);
    fault_set(&unknown, FAULT_INTERNAL, NULL, "the ledger of jobs refused it; the server's log says why");
    pthread_mutex_lock(&s->lock);
    fail_job(s, j, &unknown);
    pthread_mutex_unlock(&s->lock);
}

service_answer front_keep(struct front *f, job *j, zimage_error *error)
{
    server *s = f->server;
    zimage_request request;
    char known[SERVICE_ID_TEXT], *about;
    pthread_mutex_lock(&s->lock);
    int is_over = job_is_over(j), is_watched = front_will_be_watched(j);
    j->watch_told = is_watched ? serve_now() : 0;
    j->shows_told = is_watched && j->request.partial_images > 0;
    about = job_about(j);
    pthread_mutex_unlock(&s->lock);
    resolve_fill(&j->request, &j->resolved, 0, &request);
    const service_job kept = {.id = j->id,
                              .owner = j->owner_hash,
                              .repeat = *j->repeat ? j->repeat : NULL,
                              .caller = j->ledger_caller,
                              .about = about,
                              .is_batch = j->item.class == QUEUE_BATCH,
                              .count = j->count,
                              .model = j->model->model,
                              .request = &request,
                              .format = j->resolved.format,
                              .quality = j->resolved.quality,
                              .has_recipe = j->request.embed_recipe,
                              .is_watched = is_watched,
                              .partials = (int)j->request.partial_images,
                              .inputs = j->request.inputs,
                              .input_count = j->request.input_count};
    service_answer answer = SERVICE_OK;
    *known = 0;
    if (!is_over && !about)
        snprintf(error->message, sizeof error->message, "there is no memory for the job");
    if (!is_over)
        answer = about ? f->ledger->add(f->ledger->user, &kept, known, error) : SERVICE_FAILED;
    free(about);
    if (answer == SERVICE_OK && *known)
        answer = join_twin(f, j, known, error);
    if (answer == SERVICE_FAILED)
        refuse_job(f, j, error);
    pthread_mutex_lock(&s->lock);
    if (answer != SERVICE_LOST)
        job_drop_inputs(&s->jobs, j); /* the ledger has them */
    if (answer == SERVICE_OK && !job_is_over(j)) {
        j->is_stored = 1;
        job_happened(j, &(job_event){.kind = EVENT_STATE, .state = JOB_QUEUED});
    }
    pthread_mutex_unlock(&s->lock);
    return answer == SERVICE_FAILED ? SERVICE_OK : answer;
}

service_answer front_find(struct front *f, front_asking *asking, zimage_error *error)
{
    server *s = f->server;
    found_job found = {.front = f, .owner = asking->owner};
    const service_question question = {.id = *asking->id ? asking->id : NULL,
                                       .owner = asking->has_owner ? asking->owner_hash : NULL,
                                       .is_open = asking->is_open,
                                       .seconds = *asking->id ? FRONT_FOREVER : s->params->store_seconds,
                                       .limit = asking->limit};
    service_answer answer = f->ledger->find(f->ledger->user, &question, adopt, &found, error);
    if (answer == SERVICE_OK && found.count > 0)
        answer = front_look(f, error);
    pthread_mutex_lock(&s->lock);
    asking->is_answered = answer == SERVICE_OK;
    if (found.job)
        job_release(&s->jobs, found.job);
    pthread_mutex_unlock(&s->lock);
    return answer;
}
