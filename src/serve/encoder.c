/* A thread that encodes finished images, while the workers make the next ones. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "handlers.h"
#include "shared/hash.h"
#include "shared/recipe.h"
#include "thumb.h"
#include "worker.h"

#define WAITING_MAX 4 /* images that wait to be encoded; then the workers wait, too */

typedef struct task {
    struct task *next;
    job *job;
    int index;
    zimage_image *image;
    double waited;
} task;

struct encoder {
    pthread_t thread;
    task *first, *last;
    int count; /* with the one at hand */
    int is_stopping;
};

int encoder_busy(const server *s)
{
    return s->encoder && s->encoder->count > 0;
}

void encode_later(server *s, job *j, int index, zimage_image *image, double waited)
{
    struct encoder *e = s->encoder;
    task *t = malloc(sizeof *t);
    if (!t) {
        fail_job(s, j, &(fault){.code = FAULT_INSUFFICIENT_MEMORY, .message = "there is no memory for the image"});
        zimage_image_free(image);
        return;
    }
    while (e->count >= WAITING_MAX)
        pthread_cond_wait(&s->encoding, &s->lock);
    *t = (task){NULL, job_hold(j), index, image, waited};
    if (e->last)
        e->last->next = t;
    else
        e->first = t;
    e->last = t;
    e->count++;
    pthread_cond_broadcast(&s->encoding);
}

/* The texts that say how to make the image again. */
static void fill_recipe(recipe *r, const job *j, const zimage_request *request, const zimage_image_info *info)
{
    recipe_prompts(r, request, NULL, NULL);
    recipe_images(r, request, NULL, NULL);
    recipe_noise(r, request, NULL, NULL);
    recipe_size(r, request);
    recipe_guidance(r, j->resolved.guidance, 1, 0); /* no limits */
    recipe_add(r, "model", j->model->id);
    recipe_add(r, "model_fingerprint", j->resolved.fingerprint[0] ? j->resolved.fingerprint : NULL);
    recipe_result(r, info, j->resolved.quality);
}

static void finish_picture(job_picture *picture)
{
    char hash[HASH_TEXT];
    if (hash_sha256(&(hash_piece){picture->data, picture->size}, 1, hash))
        snprintf(picture->tag, sizeof picture->tag, "\"%s\"", hash);
}

/* Without the lock: what is read here never changes. */
static zimage_status encode(const task *t, job_picture *picture, zimage_error *error)
{
    const job *j = t->job;
    zimage_request request;
    zimage_image_info info = {.struct_size = sizeof info};
    zimage_save_params params = {.struct_size = sizeof params, .quality = j->resolved.quality};
    zimage_status status = ZIMAGE_ERROR_MEMORY;
    recipe *r = recipe_new();
    resolve_fill(&j->request, &j->resolved, t->index, &request);
    zimage_image_get_info(t->image, &info, NULL); /* this can't fail */
    request.strength = info.strength;             /* the model's default where there was none */
    if (r && j->request.embed_recipe)
        fill_recipe(r, j, &request, &info);
    params.texts = r ? recipe_texts(r, &params.text_count) : NULL;
    if (params.texts)
        status = zimage_image_encode_with(t->image, j->resolved.format, &params, &picture->data, &picture->size, error);
    else
        snprintf(error->message, sizeof error->message, "there is no memory for the texts of an image");
    error->status = status;
    recipe_free(r);
    picture->seed = request.seed;
    picture->width = zimage_image_width(t->image);
    picture->height = zimage_image_height(t->image);
    picture->prompt_tokens = info.prompt_tokens;
    picture->seconds = info.seconds - t->waited;
    if (status == ZIMAGE_OK) {
        finish_picture(picture);
        thumb_make(t->image, &picture->thumb, &picture->thumb_size);
    }
    return status;
}

/* Writes a picture into the gallery. A failure is no fault of the job. Without the lock. */
static void keep_in_gallery(server *s, const task *t, job_picture *picture)
{
    zimage_error error = ZIMAGE_ERROR_INIT;
    json_t *request = job_request_json(t->job, t->index);
    json_object_del(request, "n");
    char *about = request ? json_dumps(request, JSON_COMPACT) : NULL;
    const gallery_item item = {.format = t->job->resolved.format,
                               .data = picture->data,
                               .size = picture->size,
                               .thumb = picture->thumb,
                               .thumb_size = picture->thumb_size,
                               .about = about};
    if (!gallery_keep(s->gallery, t->job->owner_name, &item, picture->kept_as, &error))
        serve_log(s, "job %s: %s", t->job->id, error.message);
    free(about);
    json_decref(request);
}

void picture_keep(server *s, job *j, int index, job_picture *picture, const fault *f)
{
    if (f)
        fail_job(s, j, f);
    if (job_is_over(j)) {
        zimage_free(picture->data);
        zimage_free(picture->thumb);
        return;
    }
    j->pictures[index] = *picture;
    s->jobs.bytes += picture->size + picture->thumb_size;
    j->made++;
    job_happened(j, &(job_event){.kind = EVENT_PICTURE, .state = JOB_RUNNING, .index = index});
    if (j->made == j->count) {
        s->metrics.jobs[JOB_COMPLETED]++;
        job_end(j, JOB_COMPLETED, serve_now());
    }
}

static void *run(void *user)
{
    server *s = user;
    struct encoder *e = s->encoder;
    pthread_mutex_lock(&s->lock);
    while (e->first || !e->is_stopping) {
        task *t = e->first;
        job_picture picture = {0};
        zimage_error error = ZIMAGE_ERROR_INIT;
        fault f = {0};
        if (!t) {
            pthread_cond_wait(&s->encoding, &s->lock);
            continue;
        }
        e->first = t->next;
        e->last = t->next ? e->last : NULL;
        if (!job_is_over(t->job)) {
            pthread_mutex_unlock(&s->lock);
            if (encode(t, &picture, &error) == ZIMAGE_OK && s->gallery && !atomic_load(&t->job->cancel))
                keep_in_gallery(s, t, &picture);
            pthread_mutex_lock(&s->lock);
        }
        if (error.status != ZIMAGE_OK)
            fault_of_error(&f, &error);
        picture_keep(s, t->job, t->index, &picture, f.code ? &f : NULL);
        e->count--;
        pthread_cond_broadcast(&s->encoding);
        zimage_image_free(t->image);
        job_release(&s->jobs, t->job);
        free(t);
    }
    pthread_mutex_unlock(&s->lock);
    return NULL;
}

int encoder_start(server *s)
{
    struct encoder *e = calloc(1, sizeof *e);
    if (!e)
        return 0;
    s->encoder = e;
    if (pthread_create(&e->thread, NULL, run, s) == 0)
        return 1;
    free(e);
    s->encoder = NULL;
    return 0;
}

void encoder_stop(server *s)
{
    if (!s->encoder)
        return;
    pthread_mutex_lock(&s->lock);
    s->encoder->is_stopping = 1;
    pthread_cond_broadcast(&s->encoding);
    pthread_mutex_unlock(&s->lock);
    pthread_join(s->encoder->thread, NULL);
    free(s->encoder);
    s->encoder = NULL;
}
