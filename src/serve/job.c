#include "job.h"

#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>
#ifdef __APPLE__
#include <sys/random.h>
#endif

/* ---- one job ---- */

job *job_new(serve_request *request)
{
    job *j = calloc(1, sizeof *j);
    int count = (int)(request->n * request->batch_size * request->n_iter);
    job_picture *pictures = calloc((size_t)count, sizeof *pictures);
    job_part *parts = calloc((size_t)count, sizeof *parts);
    if (!j || !pictures || !parts || !id_make(j->id)) {
        free(pictures);
        free(parts);
        free(j);
        return NULL;
    }
    j->references = 1;
    j->request = *request;
    *request = (serve_request){0};
    j->count = count;
    j->pictures = pictures;
    j->parts = parts;
    j->created_at = (int64_t)time(NULL);
    j->item.units = count;
    return j;
}

job *job_hold(job *j)
{
    j->references++;
    return j;
}

static void free_job(job *j)
{
    for (job_event *next, *event = j->first; event; event = next) {
        next = event->next;
        job_event_release(event);
    }
    for (int i = 0; i < j->count; i++) {
        zimage_free(j->pictures[i].data);
        zimage_free(j->pictures[i].thumb);
    }
    free(j->pictures);
    free(j->parts);
    serve_request_free(&j->request);
    free(j);
}

static uint64_t bytes_of(const job *j)
{
    uint64_t bytes = 0;
    for (int i = 0; i < j->count; i++)
        bytes += j->pictures[i].size + j->pictures[i].thumb_size;
    return bytes;
}

void job_release(job_table *table, job *j)
{
    if (--j->references == 0) {
        if (j->twin)
            job_release(table, j->twin);
        table->bytes -= bytes_of(j);
        table->input_bytes -= j->request.image_bytes;
        free_job(j);
    }
}

int job_is_over(const job *j)
{
    return j->state >= JOB_COMPLETED;
}

const char *job_state_name(job_state state)
{
    static const char *const names[] = {"queued", "running", "completed", "failed", "cancelled"};
    return names[state];
}

const char *cancel_reason_name(cancel_reason reason)
{
    static const char *const names[CANCEL_REASONS] = {"none", "client_gone", "api", "timeout", "shutdown"};
    return names[reason];
}

/* ---- the table ---- */

void job_table_add(job_table *table, job *j)
{
    job_hold(j);
    j->older = table->newest;
    if (table->newest)
        table->newest->newer = j;
    else
        table->oldest = j;
    table->newest = j;
    table->count++;
}

job *job_find_any(const job_table *table, const char *id)
{
    job *j = table->newest;
    while (j && strcmp(j->id, id) != 0)
        j = j->older;
    return j;
}

job *job_find(const job_table *table, const char *id, uint64_t owner)
{
    job *j = job_find_any(table, id);
    return j && j->owner == owner ? j : NULL;
}

job *job_find_repeated(const job_table *table, uint64_t owner, uint64_t idempotency, double since)
{
    for (job *j = table->newest; j; j = j->older)
        if (j->owner == owner && j->idempotency == idempotency && j->created >= since && j->state <= JOB_COMPLETED)
            return j;
    return NULL;
}

static void forget(job_table *table, job *j)
{
    if (j->newer)
        j->newer->older = j->older;
    else
        table->newest = j->older;
    if (j->older)
        j->older->newer = j->newer;
    else
        table->oldest = j->newer;
    table->count--;
    job_release(table, j);
}

void job_drop_inputs(job_table *table, job *j)
{
    table->input_bytes -= j->request.image_bytes;
    serve_request_drop_images(&j->request);
}

void job_table_trim(job_table *table, double now, double seconds, uint64_t bytes)
{
    for (job *newer, *j = table->oldest; j; j = newer) {
        newer = j->newer;
        int is_old = (j->finished > j->touched ? j->finished : j->touched) + seconds < now;
        if (!job_is_over(j) || j->references > 1)
            continue;
        job_drop_inputs(table, j); /* nobody looks at them any more */
        if (is_old || table->bytes > bytes)
            forget(table, j);
    }
}

void job_table_free(job_table *table)
{
    for (job *older, *j = table->newest; j; j = older) {
        older = j->older;
        forget(table, j);
    }
}

/* ---- listeners and events ---- */

void job_listen(job *j, job_listener *listener)
{
    listener->next = j->listeners;
    j->listeners = listener;
}

int job_unlisten(job *j, job_listener *listener)
{
    job_listener **place = &j->listeners;
    while (*place && *place != listener)
        place = &(*place)->next;
    if (*place)
        *place = listener->next;
    return j->listeners == NULL;
}

void job_event_release(job_event *event)
{
    if (--event->references > 0)
        return;
    zimage_free(event->data);
    free(event);
}

/* Only the newest of these matters, and none once the job waits again: new is NULL then. */
static int is_replaced_by(const job_event *old, const job_event *new)
{
    int is_passing = old->kind == EVENT_PROGRESS || (old->kind == EVENT_PREVIEW && old->partial < 0);
    return is_passing && (!new || old->kind == new->kind);
}

static void drop_replaced(job *j, const job_event *new)
{
    job_event *before = NULL;
    for (job_event *next, *old = j->first; old; old = next) {
        next = old->next;
        if (!is_replaced_by(old, new)) {
            before = old;
            continue;
        }
        if (before)
            before->next = next;
        else
            j->first = next;
        if (j->last == old)
            j->last = before;
        job_event_release(old);
    }
}

void job_happened(job *j, const job_event *event)
{
    job_event *new = malloc(sizeof *new);
    if (!new) {
        zimage_free(event->data);
        return;
    }
    *new = *event;
    new->next = NULL;
    new->references = 1;
    new->number = ++j->last_number;
    drop_replaced(j, new);
    if (j->last)
        j->last->next = new;
    else
        j->first = new;
    j->last = new;
    for (job_listener *next, *listener = j->listeners; listener; listener = next) {
        next = listener->next;
        listener->wake(listener->user);
    }
}

job_event job_progress(int index, zimage_stage stage, int step, int steps, double fraction)
{
    return (job_event){.kind = EVENT_PROGRESS,
                       .state = JOB_RUNNING,
                       .index = index,
                       .step = step,
                       .steps = steps,
                       .partial = -1,
                       .stage = stage,
                       .fraction = fraction};
}

void job_progressed(job *j, const job_event *event, double fraction)
{
    j->stage = event->stage;
    j->step = event->step;
    j->steps = event->steps;
    j->fraction = fraction;
    job_happened(j, event);
}

void job_requeued(job *j)
{
    j->state = JOB_QUEUED;
    j->started = j->fraction = 0;
    j->step = j->steps = 0;
    drop_replaced(j, NULL);
    job_happened(j, &(job_event){.kind = EVENT_STATE, .state = JOB_QUEUED});
}

void job_number_events(job *j)
{
    uint32_t chance = 0;
    if (getentropy(&chance, sizeof chance) != 0)
        chance = (uint32_t)(uintptr_t)j;
    j->first_number = j->last_number = (uint64_t)chance << 20;
}

uint64_t job_resume_at(const job *j, uint64_t seen)
{
    return seen >= j->first_number && seen <= j->last_number ? seen : 0;
}

job_event *job_next_event(job *j, uint64_t number)
{
    for (job_event *event = j->first; event; event = event->next)
        if (event->number > number) {
            event->references++;
            return event;
        }
    return NULL;
}

void job_end(job *j, job_state state, double now)
{
    j->state = state;
    j->finished = now;
    if (state == JOB_COMPLETED)
        j->fraction = 1;
    job_happened(j, &(job_event){.kind = EVENT_END, .state = state});
}
