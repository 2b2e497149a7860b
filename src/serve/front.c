#include "front.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "ask.h"
#include "shared/recipe.h"
#include "thumb.h"
#include "worker.h"

#define LOOK_SECONDS  0.25 /* between two looks at open jobs that nothing was heard of */
#define LOAD_SECONDS  1    /* between two looks at all that wait */
#define STORE_SECONDS 15   /* in which a job is in the ledger, or refused */
#define FILE_SECONDS  10   /* in which the file of a finished image can be read */
#define LAST_SECONDS  5    /* in which the ledger is told the rest when the server ends */
#define PAUSE_MAX     2.0  /* before a lost ledger is tried again */
#define THUMB_PIXELS  ((uint64_t)1 << 26)

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

/* What is known of a model's workers. */
typedef struct crew {
    int workers, announced, running;
} crew;

typedef struct line {
    const model_entry *model;
    char caller[FRONT_CALLER_TEXT];
    queue_class class;
    size_t waiting;
} line;

struct front {
    server *server;
    const service_ledger *ledger;
    pthread_t thread;
    zimage_session *sessions[SERVE_MODELS_MAX]; /* that keep the models open */
    /* with the server's lock */
    task *first, *last;
    int is_stopping, is_lost, is_loaded;
    crew crews[SERVE_MODELS_MAX];
    line *lines;
    size_t line_count;
    size_t waiting, added; /* images that waited when it was counted, and those that came since */
    const struct policy *policy;
    /* the thread's own */
    double placed, loaded, pause, ends;
};

static size_t number_of(const server *s, const model_entry *model)
{
    return (size_t)(model - s->models.entries);
}

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

/* ---- waiting and room; with the lock ---- */

int front_busy(const server *s)
{
    if (s->front->first)
        return 1;
    for (const job *j = s->jobs.newest; j; j = j->older)
        if (!job_is_over(j) && !j->is_detached)
            return 1;
    return 0;
}

void front_use_policy(server *s, const struct policy *keys)
{
    s->front->policy = keys;
}

int front_is_lost(const server *s)
{
    return s->front->is_lost;
}

size_t front_waiting(const server *s, queue_class class)
{
    size_t count = 0;
    for (const line *l = s->front->lines; l < s->front->lines + s->front->line_count; l++)
        count += l->class == class ? l->waiting : 0;
    return count;
}

int front_workers(const server *s, const model_entry *model)
{
    return s->front->crews[number_of(s, model)].workers;
}

/* The images before those that have `own` others of their caller before them: as the ledger's claim serves callers in
 * turn. */
static queue_wait wait_behind(const server *s, const model_entry *model, const char *caller, queue_class class,
                              size_t own, double seconds)
{
    const struct front *f = s->front;
    const crew *c = &f->crews[number_of(s, model)];
    queue_wait wait = {.units = own};
    for (const line *l = f->lines; l < f->lines + f->line_count; l++) {
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
    const struct front *f = s->front;
    size_t own = 0;
    double seconds = 0;
    for (const line *l = f->lines; l < f->lines + f->line_count; l++)
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
    if (front->crews[number_of(s, model)].announced == 0) {
        fault_set(f, FAULT_NO_WORKER, "model", "model: no worker has \"%s\" at present", model->id);
        f->retry_after = 10;
        return 0;
    }
    if (front->waiting + front->added >= (size_t)s->params->max_queue) {
        fault_set(f, FAULT_QUEUE_FULL, NULL, "the queue is full");
        f->retry_after = 1;
        return 0;
    }
    return 1;
}

/* ---- adding; without the lock ---- */

static void copy(char *out, size_t size, const char *text)
{
    snprintf(out, size, "%s", text);
}

void front_name_caller(const char *owner_hash, const char *user, char caller[FRONT_CALLER_TEXT])
{
    snprintf(caller, FRONT_CALLER_TEXT, "%s/%016llx", owner_hash, (unsigned long long)policy_hash(0, user ? user : ""));
}

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
        copy(j->id, sizeof j->id, row->id);
        copy(j->owner_hash, sizeof j->owner_hash, row->owner);
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

static service_answer look_at(struct front *f, const char *const *ids, size_t count, int places, zimage_error *error);

/* The client has sent the request before, to this front or another: it gets the job of that time. */
static service_answer join_twin(struct front *f, job *j, const char *id, zimage_error *error)
{
    server *s = f->server;
    found_job found = {.front = f, .owner = j->owner};
    const service_question question = {.id = id, .owner = j->owner_hash, .seconds = FRONT_FOREVER, .limit = 1};
    service_answer answer = f->ledger->find(f->ledger->user, &question, adopt, &found, error);
    if (answer == SERVICE_OK && found.job)
        answer = look_at(f, &id, 1, 0, error);
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

static service_answer add(struct front *f, job *j, zimage_error *error)
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

/* ---- looking; without the lock ---- */

/* A part as it was read, with copies of its texts. */
typedef struct known_part {
    char id[JOB_ID_LENGTH + 1];
    int index;
    service_state state;
    size_t before;
    char *result, *error;
} known_part;

typedef struct known_parts {
    known_part *items;
    size_t count, allocated;
} known_parts;

static void take_part(void *taker, const service_part *part)
{
    known_parts *all = taker;
    if (all->count == all->allocated) {
        size_t allocated = all->allocated ? 2 * all->allocated : 64;
        known_part *items = realloc(all->items, allocated * sizeof *items);
        if (!items)
            return; /* it is looked at again */
        all->items = items;
        all->allocated = allocated;
    }
    known_part *new = &all->items[all->count++];
    *new = (known_part){.index = part->index, .state = part->state, .before = part->before};
    copy(new->id, sizeof new->id, part->id);
    new->result = strdup(part->result);
    new->error = strdup(part->error);
}

/* With the lock. */
static void begin_job(server *s, job *j)
{
    if (j->state != JOB_QUEUED)
        return;
    j->state = JOB_RUNNING;
    j->started = serve_now();
    metrics_observe(&s->metrics.wait_seconds, j->started - j->created);
    job_happened(j, &(job_event){.kind = EVENT_STATE, .state = JOB_RUNNING});
}

/* The page shows thumbnails; other clients never ask for them. */
static void make_thumb(const job *j, job_picture *picture)
{
    zimage_image *image = NULL;
    if (j->request.dialect != DIALECT_JOB)
        return;
    if (zimage_image_decode(picture->data, picture->size, THUMB_PIXELS, &image, NULL) == ZIMAGE_OK)
        thumb_make(image, &picture->thumb, &picture->thumb_size);
    zimage_image_free(image);
}

/* A network's file system may show a new file a moment later than the ledger. Only the front's thread calls it. */
static int is_awaited(job *j, double now)
{
    if (!(j->missing > 0))
        j->missing = now;
    return now - j->missing < FILE_SECONDS;
}

static int read_picture(struct front *f, job *j, const known_part *part, job_picture *picture)
{
    json_t *facts = part->result ? json_loads(part->result, 0, NULL) : NULL;
    service_file file = {.name = json_string_value(json_object_get(facts, "file")),
                         .sha256 = json_string_value(json_object_get(facts, "sha256"))};
    int is_known = file.name && file.sha256;
    if (json_object_get(facts, "entry")) { /* the worker packs */
        file.offset = (uint64_t)json_integer_value(json_object_get(facts, "offset"));
        file.bytes = (uint64_t)json_integer_value(json_object_get(facts, "bytes"));
    }
    zimage_error error = ZIMAGE_ERROR_INIT;
    *picture = (job_picture){
        .seed = j->resolved.seed + (uint64_t)part->index,
        .width = (int32_t)json_integer_value(json_object_get(facts, "width")),
        .height = (int32_t)json_integer_value(json_object_get(facts, "height")),
        .prompt_tokens = (int32_t)json_integer_value(json_object_get(facts, "prompt_tokens")),
        .seconds = json_number_value(json_object_get(facts, "seconds")),
    };
    int ok = is_known && f->ledger->read(f->ledger->user, &file, &picture->data, &picture->size, &error) == ZIMAGE_OK;
    if (ok) {
        j->missing = 0;
        snprintf(picture->tag, sizeof picture->tag, "\"%.64s\"", file.sha256);
        make_thumb(j, picture);
        models_measured(j->model, &j->resolved, j->planned, picture->seconds, &f->server->jobs, &f->server->lock);
    } else if (!is_awaited(j, serve_now())) {
        serve_log(f->server, "job %s: %s", j->id, is_known ? error.message : "the ledger knows no file of it");
    }
    json_decref(facts);
    return ok;
}

/* With the lock. */
static void warn_of_part(job *j, const known_part *part)
{
    json_t *facts = part->result ? json_loads(part->result, 0, NULL) : NULL;
    const json_t *warnings = json_object_get(facts, "warnings");
    for (size_t i = 0; i < json_array_size(warnings); i++) {
        const char *text = json_string_value(json_array_get(warnings, i));
        if (text)
            serve_request_warn(&j->request, "%s", text);
    }
    json_decref(facts);
}

static void take_picture(struct front *f, job *j, const known_part *part)
{
    server *s = f->server;
    job_picture picture;
    fault gone = {0};
    int ok = read_picture(f, j, part, &picture);
    if (!ok && is_awaited(j, serve_now()))
        return;
    if (!ok)
        fault_set(&gone, FAULT_INTERNAL, NULL, "the finished image is not there any more; the server's log says why");
    pthread_mutex_lock(&s->lock);
    front_part_ends(j, part->index);
    warn_of_part(j, part);
    if (ok) {
        s->metrics.steps += (uint64_t)j->resolved.steps;
        s->metrics.pixels += (uint64_t)picture.width * (uint64_t)picture.height;
        metrics_observe(&s->metrics.job_seconds, picture.seconds);
    }
    picture_keep(s, j, part->index, &picture, ok ? NULL : &gone);
    pthread_mutex_unlock(&s->lock);
}

/* What a worker said of an image that it could not make. Sentences about its machine are for the log. */
static void fault_of_part(const server *s, const job *j, const known_part *part, fault *f)
{
    json_t *facts = part->result ? json_loads(part->result, 0, NULL) : NULL;
    const char *name = json_string_value(json_object_get(facts, "status"));
    zimage_error error = ZIMAGE_ERROR_INIT;
    error.status = ZIMAGE_ERROR_INTERNAL;
    for (int status = ZIMAGE_OK + 1; name && status <= ZIMAGE_ERROR_INTERNAL; status++)
        if (!strcmp(zimage_status_name((zimage_status)status), name))
            error.status = (zimage_status)status;
    copy(error.message, sizeof error.message, part->error ? part->error : "");
    serve_log(s, "job %s: %s", j->id, error.message);
    if (name && error.status != ZIMAGE_ERROR_INTERNAL)
        fault_of_error(f, &error);
    else
        fault_set(f, FAULT_INTERNAL, NULL, "the workers could not make the image; the server's log says why");
    json_decref(facts);
}

/* With the lock. */
static void end_part(server *s, job *j, const known_part *part)
{
    fault f = {0};
    if (part->state == SERVICE_CANCELLED)
        fault_set(&f, FAULT_CANCELLED, NULL, "the job was cancelled");
    else
        fault_of_part(s, j, part, &f);
    fail_job(s, j, &f);
    if (j->count > 1)
        front_cancel(s, j); /* nobody needs the others */
}

/* The open job of a part whose image is not there yet; NULL: there is none. With the lock. */
static job *job_of_part(const server *s, const known_part *part)
{
    job *j = job_find_any(&s->jobs, part->id);
    int is_open = j && !job_is_over(j) && part->index >= 0 && part->index < j->count && !j->pictures[part->index].data;
    return is_open ? j : NULL;
}

/* Whether a worker has it. News of it are read behind that: else they would be of a job that still waits here. */
static void take_state(server *s, const known_part *part)
{
    pthread_mutex_lock(&s->lock);
    job *j = job_of_part(s, part);
    if (j && part->state == SERVICE_QUEUED) {
        if (part->index == j->made)
            j->before = part->before;
        front_part_waits(j, part->index);
    } else if (j && (part->state == SERVICE_RUNNING || part->state == SERVICE_DONE)) {
        begin_job(s, j);
        front_part_runs(j, part->index);
    }
    pthread_mutex_unlock(&s->lock);
}

/* What became of it. */
static void take_end(struct front *f, const known_part *part)
{
    server *s = f->server;
    if (part->state < SERVICE_DONE)
        return;
    pthread_mutex_lock(&s->lock);
    job *j = job_of_part(s, part);
    if (j && part->state >= SERVICE_BROKEN)
        end_part(s, j, part);
    j = j && part->state == SERVICE_DONE ? job_hold(j) : NULL;
    pthread_mutex_unlock(&s->lock);
    if (!j)
        return;
    take_picture(f, j, part);
    pthread_mutex_lock(&s->lock);
    job_release(&s->jobs, j);
    pthread_mutex_unlock(&s->lock);
}

static service_answer look_at(struct front *f, const char *const *ids, size_t count, int places, zimage_error *error)
{
    known_parts all = {0};
    service_answer answer = f->ledger->look(f->ledger->user, ids, count, places, take_part, &all, error);
    for (size_t i = 0; i < all.count && answer == SERVICE_OK; i++)
        take_state(f->server, &all.items[i]);
    if (answer == SERVICE_OK) /* the last partial images of an image come before it */
        answer = front_read_news(f->server, f->ledger, error);
    for (size_t i = 0; i < all.count; i++) {
        if (answer == SERVICE_OK)
            take_end(f, &all.items[i]);
        free(all.items[i].result);
        free(all.items[i].error);
    }
    free(all.items);
    return answer;
}

/* The open jobs' ids; both are released with free. With the lock. */
static size_t list_open(const server *s, char (**texts)[JOB_ID_LENGTH + 1], const char ***ids)
{
    size_t count = 0;
    *texts = calloc(s->jobs.count + 1, sizeof **texts);
    *ids = calloc(s->jobs.count + 1, sizeof **ids);
    for (const job *j = s->jobs.oldest; j && *texts && *ids; j = j->newer) {
        if (job_is_over(j) || !j->is_stored)
            continue;
        memcpy((*texts)[count], j->id, sizeof j->id);
        (*ids)[count] = (*texts)[count];
        count++;
    }
    return count;
}

/* A job has its time from its first image's beginning. With the lock. */
static void end_late(server *s)
{
    double now = serve_now();
    for (job *older, *j = s->jobs.newest; j && s->params->job_seconds > 0; j = older) {
        older = j->older;
        if (j->state == JOB_RUNNING && now - j->started > s->params->job_seconds)
            cancel_job(s, j, CANCEL_TIMEOUT);
    }
}

static service_answer look(struct front *f, zimage_error *error)
{
    server *s = f->server;
    char(*texts)[JOB_ID_LENGTH + 1];
    const char **ids;
    double now = serve_now();
    int places = now - f->placed > LOAD_SECONDS;
    pthread_mutex_lock(&s->lock);
    end_late(s);
    size_t count = list_open(s, &texts, &ids);
    pthread_mutex_unlock(&s->lock);
    service_answer answer = count > 0 ? look_at(f, ids, count, places, error) : SERVICE_OK;
    free(texts);
    free(ids);
    f->placed = places ? now : f->placed;
    return answer;
}

/* ---- load; without the lock ---- */

typedef struct new_load {
    server *server;
    crew crews[SERVE_MODELS_MAX];
    line *lines;
    size_t line_count, waiting;
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
    new_load *load = taker;
    for (int i = 0; i < load->server->models.count; i++) /* two ids may be one model */
        if (!strcmp(load->server->models.entries[i].info.fingerprint, row->model))
            load->crews[i] = (crew){row->workers, row->announced, row->running};
}

static void take_line(void *taker, const service_line *row)
{
    new_load *load = taker;
    const model_entry *model = model_of(load->server, row->model);
    load->waiting += row->waiting;
    line *lines = model ? realloc(load->lines, (load->line_count + 1) * sizeof *lines) : NULL;
    if (!lines)
        return;
    load->lines = lines;
    lines[load->line_count] =
        (line){.model = model, .class = row->is_batch ? QUEUE_BATCH : QUEUE_INTERACTIVE, .waiting = row->waiting};
    copy(lines[load->line_count++].caller, sizeof lines->caller, row->caller);
}

static service_answer load(struct front *f, zimage_error *error)
{
    server *s = f->server;
    new_load new = {.server = s};
    pthread_mutex_lock(&s->lock);
    size_t added = f->added;
    pthread_mutex_unlock(&s->lock);
    service_answer answer = f->ledger->load(f->ledger->user, take_crew, take_line, &new, error);
    f->loaded = serve_now();
    if (answer != SERVICE_OK) {
        free(new.lines);
        return answer;
    }
    pthread_mutex_lock(&s->lock);
    free(f->lines);
    f->lines = new.lines;
    f->line_count = new.line_count;
    memcpy(f->crews, new.crews, sizeof f->crews);
    f->waiting = new.waiting;
    f->added -= added;
    f->is_loaded = 1;
    pthread_mutex_unlock(&s->lock);
    return answer;
}

/* ---- the thread ---- */

/* Jobs of this id, or of this owner, become jobs here, and are looked at. */
static service_answer answer_question(struct front *f, front_asking *asking, zimage_error *error)
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
        answer = look(f, error);
    pthread_mutex_lock(&s->lock);
    asking->is_answered = answer == SERVICE_OK;
    if (found.job)
        job_release(&s->jobs, found.job);
    pthread_mutex_unlock(&s->lock);
    return answer;
}

static service_answer perform(struct front *f, const task *t, zimage_error *error)
{
    switch (t->kind) {
    case TASK_ADD:
        return add(f, t->job, error);
    case TASK_CANCEL:
        return f->ledger->cancel(f->ledger->user, t->id, error);
    case TASK_ASK:
        break;
    }
    return answer_question(f, t->asking, error);
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
        answer = look(f, error);
    if (answer == SERVICE_OK && now - f->loaded >= LOAD_SECONDS)
        answer = load(f, error);
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
    if (load(f, &error) == SERVICE_LOST)
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
    free(f->lines);
    free(f);
    s->front = NULL;
}
