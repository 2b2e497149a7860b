/*
 * Who works and who waits, as the ledger counts them. From that follow how long a job waits, and whether there is room
 * for a new one.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "front_internal.h"

static size_t number_of(const server *s, const model_entry *model)
{
    return (size_t)(model - s->models.entries);
}

/* ---- with the lock ---- */

size_t front_waiting(const server *s, queue_class class)
{
    size_t count = 0;
    const front_load *load = &s->front->load;
    for (const line *l = load->lines; l < load->lines + load->line_count; l++)
        count += l->class == class ? l->waiting : 0;
    return count;
}

int front_workers(const server *s, const model_entry *model)
{
    return s->front->load.crews[number_of(s, model)].workers;
}

/* The images before those that have `own` others of their caller before them: as the ledger's claim serves callers in
 * turn. */
static queue_wait wait_behind(const server *s, const model_entry *model, const char *caller, queue_class class,
                              size_t own, double seconds)
{
    const front_load *load = &s->front->load;
    const crew *c = &load->crews[number_of(s, model)];
    queue_wait wait = {.units = own};
    for (const line *l = load->lines; l < load->lines + load->line_count; l++) {
        if (l->model != model || l->class > class || (l->class == class && !strcmp(l->caller, caller)))
            continue;
        wait.units += l->class < class || l->waiting < own + 1 ? l->waiting : own + 1;
    }
    if (wait.units > 0 || c->running >= c->workers)
        wait.seconds = ((double)wait.units + 0.5 * c->running) * seconds / (c->workers > 0 ? c->workers : 1);
    return wait;
}

queue_wait front_wait_of(const server *s, const job *j)
{
    return wait_behind(s, j->model, j->ledger_caller, j->item.class, j->before, j->item.seconds);
}

queue_wait front_wait_of_new(const server *s, const model_entry *model, const char *caller, queue_class class)
{
    const front_load *load = &s->front->load;
    size_t own = 0;
    double seconds = 0;
    for (const line *l = load->lines; l < load->lines + load->line_count; l++)
        if (l->model == model && l->class == class && !strcmp(l->caller, caller))
            own += l->waiting;
    for (const job *j = s->jobs.newest; j && !(seconds > 0); j = j->older)
        seconds = j->model == model ? j->item.seconds : 0;
    return wait_behind(s, model, caller, class, own, seconds);
}

int front_has_room(const server *s, const model_entry *model, fault *f)
{
    const struct front *front = s->front;
    if (!front->is_lost && !front->is_loaded) {
        fault_set(f, FAULT_MODEL_LOADING, NULL, "the server begins");
        f->retry_after = 1;
        return 0;
    }
    if (front->is_lost) {
        fault_set(f, FAULT_LEDGER_LOST, NULL, "the ledger of jobs can't be reached at present");
        f->retry_after = 5;
        return 0;
    }
    if (front->load.crews[number_of(s, model)].announced == 0) {
        fault_set(f, FAULT_NO_WORKER, "model", "model: no worker has \"%s\" at present", model->id);
        f->retry_after = 10;
        return 0;
    }
    if (front->load.waiting + front->added >= (size_t)s->params->max_queue) {
        fault_set(f, FAULT_QUEUE_FULL, NULL, "the queue is full");
        f->retry_after = 1;
        return 0;
    }
    return 1;
}

/* ---- counting; without the lock ---- */

typedef struct new_load {
    const server *server;
    front_load load;
} new_load;

static const model_entry *model_of(const server *s, const char *fingerprint)
{
    for (int i = 0; i < s->models.count; i++)
        if (s->models.entries[i].is_known && !strcmp(s->models.entries[i].info.fingerprint, fingerprint))
            return &s->models.entries[i];
    return NULL;
}

static void take_crew(void *taker, const service_crew *row)
{
    new_load *new = taker;
    const model_table *models = &new->server->models;
    for (int i = 0; i < models->count; i++) /* two ids may be one model */
        if (!strcmp(models->entries[i].info.fingerprint, row->model))
            new->load.crews[i] = (crew){row->workers, row->announced, row->running};
}

static void take_line(void *taker, const service_line *row)
{
    new_load *new = taker;
    front_load *load = &new->load;
    const model_entry *model = model_of(new->server, row->model);
    load->waiting += row->waiting;
    line *lines = model ? realloc(load->lines, (load->line_count + 1) * sizeof *lines) : NULL;
    if (!lines)
        return;
    load->lines = lines;
    line *last = &lines[load->line_count++];
    *last = (line){.model = model, .class = row->is_batch ? QUEUE_BATCH : QUEUE_INTERACTIVE, .waiting = row->waiting};
    snprintf(last->caller, sizeof last->caller, "%s", row->caller);
}

service_answer front_count(struct front *f, zimage_error *error)
{
    server *s = f->server;
    new_load new = {.server = s};
    pthread_mutex_lock(&s->lock);
    size_t added = f->added;
    pthread_mutex_unlock(&s->lock);
    service_answer answer = f->ledger->load(f->ledger->user, take_crew, take_line, &new, error);
    f->loaded = serve_now();
    if (answer != SERVICE_OK) {
        free(new.load.lines);
        return answer;
    }
    pthread_mutex_lock(&s->lock);
    free(f->load.lines);
    f->load = new.load;
    f->added -= added;
    f->is_loaded = 1;
    pthread_mutex_unlock(&s->lock);
    return answer;
}
