/*
 * Looks at open jobs: which of their images a worker has begun, the files of those that are finished, and what is said
 * of those that could not be made. Functions take the lock themselves, unless they say that they are called with it.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "front_internal.h"
#include "shared/recipe.h"
#include "thumb.h"
#include "worker.h"

#define FILE_SECONDS 10 /* in which the file of a finished image can be read */
#define THUMB_PIXELS ((uint64_t)1 << 26)

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
    snprintf(new->id, sizeof new->id, "%s", part->id);
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
    snprintf(error.message, sizeof error.message, "%s", part->error ? part->error : "");
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

service_answer front_look_at(struct front *f, const char *const *ids, size_t count, int places, zimage_error *error)
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

service_answer front_look(struct front *f, zimage_error *error)
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
    service_answer answer = count > 0 ? front_look_at(f, ids, count, places, error) : SERVICE_OK;
    free(texts);
    free(ids);
    f->placed = places ? now : f->placed;
    return answer;
}
