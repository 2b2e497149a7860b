/* The part of AUTOMATIC1111's API that its clients use: Open WebUI and SillyTavern. */
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "front.h"
#include "handlers.h"
#include "shared/base64.h"
#include "shared/recipe.h"

#define HASH_DIGITS 10 /* of a model's "hash", which clients only compare */

/* ---- images ---- */

/* The request as it came, without its pictures. */
static json_t *parameters_json(const exchange *x)
{
    json_t *copy = json_copy(x->form->object);
    json_object_del(copy, "init_images");
    json_object_del(copy, "mask");
    return copy;
}

/* What was made, as a text of JSON inside the answer. */
static json_t *info_json(const job *j)
{
    const serve_request *r = &j->request;
    json_t *seeds = json_array();
    for (int i = 0; i < j->count; i++)
        json_array_append_new(seeds, seed_json(j->pictures[i].seed));
    json_t *info =
        json_pack("{s:s, s:o?, s:o?, s:i, s:i, s:i, s:s, s:o?, s:o?}", "prompt", r->prompt, "seed",
                  seed_json(j->resolved.seed), "all_seeds", seeds, "width", j->resolved.width, "height",
                  j->resolved.height, "steps", j->resolved.steps, "sd_model_name", j->model->id, "ignored",
                  notes_json(r->ignored, r->ignored_count), "warnings", notes_json(r->warnings, r->warning_count));
    char *text = info ? json_dumps(info, JSON_COMPACT) : NULL;
    json_t *value = text ? json_string(text) : NULL;
    json_decref(info);
    free(text);
    return value;
}

static enum MHD_Result answer_images(exchange *x)
{
    const job *j = x->job;
    pieces p = {0};
    pieces_add_text(&p, "{\"images\":[");
    for (int i = 0; i < j->count && j->request.send_images; i++) {
        pieces_add_text(&p, i ? ",\"" : "\"");
        pieces_add_base64(&p, j->pictures[i].data, j->pictures[i].size);
        pieces_add_text(&p, "\"");
    }
    pieces_add_text(&p, "],\"parameters\":");
    pieces_add_json(&p, json_incref(x->echo));
    pieces_add_text(&p, ",\"info\":");
    pieces_add_json(&p, info_json(j));
    pieces_add_text(&p, "}");
    return answer_pieces(x, MHD_HTTP_OK, "application/json", &p);
}

static enum MHD_Result send_images(exchange *x)
{
    return exchange_wait_for_images(x, answer_images);
}

enum MHD_Result handle_sdapi_images(exchange *x)
{
    x->echo = parameters_json(x);
    return exchange_submit(x, 0, send_images);
}

/* ---- the job at hand ---- */

/* The caller's oldest job of this API that is not over; NULL: there is none. With the lock. */
static job *current_job(exchange *x)
{
    for (job *j = x->server->jobs.oldest; j; j = j->newer)
        if (j->owner == x->owner && !job_is_over(j) && is_sdapi_dialect(j->request.dialect))
            return j;
    return NULL;
}

static json_t *state_json(const job *j, int jobs)
{
    return json_pack("{s:b, s:b, s:b, s:s, s:i, s:s, s:i, s:i, s:i}", "skipped", 0, "interrupted", 0,
                     "stopping_generation", 0, "job", j ? j->id : "", "job_count", jobs, "job_timestamp", "", "job_no",
                     j ? j->made : 0, "sampling_step", j ? j->step : 0, "sampling_steps", j ? j->steps : 0);
}

static const job_event *last_preview(const job *j)
{
    const job_event *found = NULL;
    for (const job_event *event = j ? j->first : NULL; event; event = event->next)
        if (event->kind == EVENT_PREVIEW)
            found = event;
    return found;
}

enum MHD_Result handle_progress(exchange *x)
{
    const char *skip = exchange_argument(x, "skip_current_image");
    int is_skipped = skip && strcmp(skip, "false") != 0 && strcmp(skip, "0") != 0;
    pieces p = {0};
    pthread_mutex_lock(&x->server->lock);
    job *j = current_job(x);
    const job_event *preview = is_skipped ? NULL : last_preview(j);
    if (j)
        front_viewed(x->server, j, !is_skipped);
    x->job = j ? job_hold(j) : NULL; /* until the preview is sent */
    double fraction = j ? (j->made + j->fraction) / j->count : 0;
    json_t *value = json_pack("{s:f, s:f, s:o?, s:n}", "progress", fraction, "eta_relative",
                              j ? wait_of(x->server, j).seconds + (1 - fraction) * j->count * j->item.seconds : 0.0,
                              "state", state_json(j, j ? j->count - j->made : 0), "textinfo");
    if (preview)
        pieces_add_json_copied(&p, value, "current_image", preview->data, preview->size);
    else if (value && json_object_set_new(value, "current_image", json_null()) == 0)
        pieces_add_json(&p, value);
    pthread_mutex_unlock(&x->server->lock);
    return answer_pieces(x, MHD_HTTP_OK, "application/json", &p);
}

enum MHD_Result handle_interrupt(exchange *x)
{
    pthread_mutex_lock(&x->server->lock);
    job *j = current_job(x);
    if (j)
        cancel_job(x->server, j, CANCEL_API);
    pthread_mutex_unlock(&x->server->lock);
    return answer_json(x, MHD_HTTP_OK, json_object());
}

/* ---- settings ---- */

enum MHD_Result handle_options(exchange *x)
{
    const model_table *models = &x->server->models;
    return answer_json(x, MHD_HTTP_OK,
                       json_pack("{s:s, s:s, s:i}", "sd_model_checkpoint", models->entries[models->standard].id,
                                 "samples_format", "png", "CLIP_stop_at_last_layers", 1));
}

/* Clients send back all settings with the model changed. */
enum MHD_Result handle_set_options(exchange *x)
{
    const serve_request *request = exchange_request(x);
    const model_entry *entry = models_find(&x->server->models, request->model);
    if (!entry) {
        fault_set(&x->fault, FAULT_MODEL_NOT_FOUND, "sd_model_checkpoint",
                  "sd_model_checkpoint: there is no model \"%.200s\"; /v1/models lists those that are there",
                  request->model);
        return answer_fault(x);
    }
    int number = (int)(entry - x->server->models.entries);
    if (x->server->params->has_no_switch && number != x->server->models.standard) {
        fault_set(&x->fault, FAULT_SWITCH_NOT_ALLOWED, "sd_model_checkpoint",
                  "sd_model_checkpoint: the default model can't be changed here (--no-model-switch)");
        return answer_fault(x);
    }
    pthread_mutex_lock(&x->server->lock);
    x->server->models.standard = number;
    pthread_mutex_unlock(&x->server->lock);
    return answer_json(x, MHD_HTTP_OK, json_null());
}

enum MHD_Result handle_sd_models(exchange *x)
{
    json_t *list = json_array();
    for (int i = 0; i < x->server->models.count; i++) {
        const char *id = x->server->models.entries[i].id;
        json_t *hash = json_sprintf("%0*llx", HASH_DIGITS, (unsigned long long)(policy_hash(0, id) & 0xffffffffff));
        json_array_append_new(list, json_pack("{s:s, s:s, s:o?, s:n, s:s, s:n}", "title", id, "model_name", id, "hash",
                                              hash, "sha256", "filename", id, "config"));
    }
    return answer_json(x, MHD_HTTP_OK, list);
}

enum MHD_Result handle_samplers(exchange *x)
{
    return answer_json(x, MHD_HTTP_OK,
                       json_pack("[{s:s, s:[s], s:{}}]", "name", "Euler", "aliases", "k_euler", "options"));
}

enum MHD_Result handle_schedulers(exchange *x)
{
    return answer_json(x, MHD_HTTP_OK,
                       json_pack("[{s:s, s:s, s:n, s:n, s:b}]", "name", "simple", "label", "Simple", "aliases",
                                 "default_rho", "need_inner_model", 0));
}

enum MHD_Result handle_upscalers(exchange *x)
{
    return answer_json(
        x, MHD_HTTP_OK,
        json_pack("[{s:s, s:n, s:n, s:n, s:i}]", "name", "None", "model_name", "model_path", "model_url", "scale", 1));
}

/* ---- facts ---- */

static json_t *texts_json(const zimage_texts *texts, const char **parameters)
{
    json_t *all = json_object();
    *parameters = "";
    for (size_t i = 0; i < zimage_texts_count(texts); i++) {
        const zimage_text *text = zimage_texts_get(texts, i);
        json_object_set_new(all, text->key, json_string(text->value));
        if (!strcmp(text->key, "parameters"))
            *parameters = text->value;
    }
    return all;
}

/* "parameters": what is understood of the texts. */
static json_t *png_info(const zimage_texts *texts)
{
    const char *parameters;
    recipe_source source;
    json_t *items = texts_json(texts, &parameters), *read = recipe_read(texts, &source);
    return json_pack("{s:s, s:o?, s:o?}", "info", parameters, "items", items, "parameters",
                     read ? read : json_object());
}

/* The texts of an image's file, which is base64. */
enum MHD_Result handle_png_info(exchange *x)
{
    const char *text = json_string_value(json_object_get(x->form->object, "image")), *comma = NULL;
    zimage_error error = ZIMAGE_ERROR_INIT;
    zimage_texts *texts = NULL;
    uint8_t *data = NULL;
    size_t size = 0;
    if (text && !strncmp(text, "data:", strlen("data:")) && (comma = strchr(text, ',')))
        text = comma + 1;
    if (!text || !base64_read(text, strlen(text), &data, &size)) {
        fault_set(&x->fault, FAULT_INVALID_VALUE, "image", "image: expected an image in base64");
        return answer_fault(x);
    }
    zimage_status status = zimage_texts_decode(data, size, &texts, &error);
    free(data);
    if (status != ZIMAGE_OK) {
        fault_set(&x->fault, status == ZIMAGE_ERROR_MEMORY ? FAULT_INSUFFICIENT_MEMORY : FAULT_INVALID_IMAGE, "image",
                  "image: %s", error.message);
        return answer_fault(x);
    }
    json_t *info = png_info(texts);
    zimage_texts_free(texts);
    return answer_json(x, MHD_HTTP_OK, info);
}

/* As AUTOMATIC1111's: "used" is this process's. What a GPU has is not told. */
enum MHD_Result handle_memory(exchange *x)
{
    json_int_t total = (json_int_t)sysconf(_SC_PHYS_PAGES) * sysconf(_SC_PAGESIZE);
    json_int_t used = (json_int_t)metrics_resident_bytes();
    return answer_json(x, MHD_HTTP_OK,
                       json_pack("{s:{s:I, s:I, s:I}, s:{s:s}}", "ram", "free", total - used, "used", used, "total",
                                 total, "cuda", "error", "unavailable"));
}

/* What the server has none of: VAEs, LoRAs, styles, ... */
enum MHD_Result handle_empty_list(exchange *x)
{
    return answer_json(x, MHD_HTTP_OK, json_array());
}

enum MHD_Result handle_empty_object(exchange *x)
{
    return answer_json(x, MHD_HTTP_OK, json_object());
}

enum MHD_Result handle_embeddings(exchange *x)
{
    return answer_json(x, MHD_HTTP_OK, json_pack("{s:{}, s:{}}", "loaded", "skipped"));
}
