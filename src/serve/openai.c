/* OpenAI's images API, and its list of models. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "handlers.h"

json_t *seed_json(uint64_t seed)
{
    return seed > INT64_MAX ? json_sprintf("%llu", (unsigned long long)seed) : json_integer((json_int_t)seed);
}

json_t *notes_json(char *const notes[], size_t count)
{
    json_t *list = json_array();
    for (size_t i = 0; i < count; i++)
        json_array_append_new(list, json_string(notes[i]));
    return list;
}

const char *format_type(zimage_format format)
{
    static const char *const types[] = {"image/png", "image/jpeg", "image/webp"};
    return types[format];
}

/* ---- models ---- */

enum MHD_Result handle_models(exchange *x)
{
    json_t *data = json_array();
    for (int i = 0; i < x->server->models.count; i++)
        json_array_append_new(data, model_json(x->server, &x->server->models.entries[i]));
    return answer_json(x, MHD_HTTP_OK, json_pack("{s:s, s:o?}", "object", "list", "data", data));
}

enum MHD_Result handle_model(exchange *x)
{
    const char *id = x->match.parameters[0];
    const model_entry *entry = *id ? models_find(&x->server->models, id) : NULL;
    if (entry)
        return answer_json(x, MHD_HTTP_OK, model_json(x->server, entry));
    fault_set(&x->fault, FAULT_MODEL_NOT_FOUND, "model",
              "model: there is no model \"%.200s\"; /v1/models lists those that are there", id);
    return answer_fault(x);
}

/* ---- what every answer about images says ---- */

/* The words of the SDK's types: what was made, in terms of the model's own steps. */
static const char *quality_made(const serve_request *r)
{
    const char *asked = serve_quality_words[r->quality];
    return !strcmp(asked, "low") ? "low" : !strcmp(asked, "high") || !strcmp(asked, "hd") ? "high" : "medium";
}

static json_t *size_json(const job *j)
{
    return json_sprintf("%dx%d", j->resolved.width, j->resolved.height);
}

/* images: how many of the job's images the figures are about. */
static json_t *usage_json(const job *j, int images)
{
    int side = j->model->info.size_multiple;
    json_int_t text = j->pictures[0].prompt_tokens;
    json_int_t patches = (json_int_t)images * (j->resolved.width / side) * (j->resolved.height / side);
    return json_pack("{s:I, s:I, s:I, s:{s:I, s:i}, s:{s:I, s:i}}", "input_tokens", text, "output_tokens", patches,
                     "total_tokens", text + patches, "input_tokens_details", "text_tokens", text, "image_tokens", 0,
                     "output_tokens_details", "image_tokens", patches, "text_tokens", 0);
}

static json_t *facts_json(const job *j, int images)
{
    return json_pack("{s:o?, s:s, s:s, s:s, s:o?}", "size", size_json(j), "quality", quality_made(&j->request),
                     "background", "opaque", "output_format", zimage_format_name(j->resolved.format), "usage",
                     usage_json(j, images));
}

/* ---- an answer ---- */

/* The server's address, as the client knows it, and the file's. */
static json_t *url_json(const exchange *x, int index)
{
    const policy *p = &x->http->policy;
    const char *scheme = p->params->tls_cert ? "https://" : "http://", *host = exchange_header(x, "Host");
    int is_set = p->public_url[0] != 0;
    return json_sprintf("%s%s/v1/files/%s-%d.%s", is_set ? p->public_url : scheme, is_set ? "" : host, x->job->id,
                        index, zimage_format_name(x->job->resolved.format));
}

static void add_data(const exchange *x, pieces *p)
{
    const job *j = x->job;
    for (int i = 0; i < j->count; i++) {
        json_t *item = json_pack("{s:o?}", "seed", seed_json(j->pictures[i].seed));
        pieces_add_text(p, i ? "," : "");
        if (j->request.response_format == 0) {
            pieces_add_json_with(p, item, "b64_json", j->pictures[i].data, j->pictures[i].size);
            continue;
        }
        json_object_set_new(item, "url", url_json(x, i));
        pieces_add_json(p, item);
    }
}

static json_t *whole_json(const job *j)
{
    const serve_request *r = &j->request;
    json_t *whole = facts_json(j, j->count);
    json_object_update_new(whole, json_pack("{s:I, s:s, s:s, s:f, s:f, s:o?, s:o?}", "created",
                                            (json_int_t)j->created_at, "model", j->model->id, "id", j->id, "seconds",
                                            j->finished - j->started, "queue_seconds", j->started - j->created,
                                            "warnings", notes_json(r->warnings, r->warning_count), "ignored",
                                            notes_json(r->ignored, r->ignored_count)));
    if (r->user)
        json_object_set_new(whole, "safety_identifier", json_string(r->user));
    return whole;
}

static enum MHD_Result answer_images(exchange *x)
{
    pieces p = {0};
    char *rest = NULL;
    json_t *whole = whole_json(x->job);
    if (whole)
        rest = json_dumps(whole, JSON_COMPACT);
    json_decref(whole);
    if (rest)
        rest[0] = ','; /* in place of its opening brace */
    pieces_add_text(&p, "{\"data\":[");
    add_data(x, &p);
    pieces_add_text(&p, "]");
    pieces_add_owned(&p, rest);
    return answer_pieces(x, MHD_HTTP_OK, "application/json", &p);
}

/* ---- a stream ---- */

static void add_event(pieces *p, const char *type, json_t *object, const uint8_t *image, size_t size)
{
    json_object_set_new(object, "type", json_string(type));
    pieces_add_text(p, "event: ");
    pieces_add_text(p, type);
    pieces_add_text(p, "\ndata: ");
    if (image)
        pieces_add_json_with(p, object, "b64_json", image, size);
    else
        pieces_add_json(p, object);
    pieces_add_text(p, "\n\n");
}

static const char *type_of(const job *j, int is_partial)
{
    if (j->request.dialect == DIALECT_EDIT)
        return is_partial ? "image_edit.partial_image" : "image_edit.completed";
    return is_partial ? "image_generation.partial_image" : "image_generation.completed";
}

static void add_partial(pieces *p, const job *j, const job_event *event)
{
    json_t *object =
        json_pack("{s:i, s:I, s:o?, s:s, s:s, s:s, s:i, s:i, s:i}", "partial_image_index", event->partial, "created_at",
                  (json_int_t)j->created_at, "size", size_json(j), "quality", quality_made(&j->request), "background",
                  "opaque", "output_format", "jpeg", "index", event->index, "step", event->step, "steps", event->steps);
    add_event(p, type_of(j, 1), object, event->data, event->size);
}

static void add_completed(pieces *p, const job *j, int index)
{
    json_t *object = facts_json(j, 1);
    json_object_update_new(object, json_pack("{s:I, s:i, s:o?, s:s}", "created_at", (json_int_t)j->created_at, "index",
                                             index, "seed", seed_json(j->pictures[index].seed), "id", j->id));
    add_event(p, type_of(j, 0), object, j->pictures[index].data, j->pictures[index].size);
}

static void add_progress(pieces *p, const exchange *x, const job_event *event)
{
    const job *j = x->job;
    add_event(p, "zimage.progress",
              json_pack("{s:s, s:i, s:s, s:i, s:i, s:f, s:f}", "id", j->id, "index", event->index, "stage",
                        zimage_stage_name(event->stage), "step", event->step, "steps", event->steps, "fraction",
                        event->fraction, "eta_seconds", (1 - event->fraction) * j->item.seconds),
              NULL, 0);
}

static int render(exchange *x, const job_event *event, pieces *p)
{
    const job *j = x->job;
    if (event->kind == EVENT_PREVIEW && event->partial >= 0)
        add_partial(p, j, event);
    else if (event->kind == EVENT_PICTURE)
        add_completed(p, j, event->index);
    else if (event->kind == EVENT_PROGRESS && j->request.progress)
        add_progress(p, x, event);
    else if (event->kind == EVENT_END && event->state == JOB_COMPLETED)
        pieces_add_text(p, "data: [DONE]\n\n");
    else if (event->kind == EVENT_END) {
        fault cancelled = {0};
        fault_set(&cancelled, FAULT_CANCELLED, NULL, "the job was cancelled");
        add_event(p, "error",
                  json_pack("{s:o?}", "error", fault_json(event->state == JOB_FAILED ? &j->fault : &cancelled)), NULL,
                  0);
    }
    return event->kind == EVENT_END;
}

/* ---- requests ---- */

static enum MHD_Result send_stream(exchange *x)
{
    const serve_request *r = &x->job->request;
    return answer_stream(x, render, 0, r->progress || r->partial_images > 0);
}

static enum MHD_Result send_images(exchange *x)
{
    return exchange_wait_for_images(x, answer_images);
}

enum MHD_Result handle_make_images(exchange *x)
{
    return exchange_submit(x, 0, exchange_request(x)->stream ? send_stream : send_images);
}

/* "ID-INDEX.png": an image by an address that an answer named. */
enum MHD_Result handle_file(exchange *x)
{
    char id[JOB_ID_LENGTH + 1] = "";
    int index = -1;
    if (sscanf(x->match.parameters[0], "%26[a-z2-7]-%9d", id, &index) != 2)
        index = -1;
    pthread_mutex_lock(&x->server->lock);
    job *j = job_find_any(&x->server->jobs, id);
    int is_there = j && index >= 0 && index < j->count && j->pictures[index].data;
    x->job = is_there ? job_hold(j) : NULL;
    pthread_mutex_unlock(&x->server->lock);
    if (!is_there) {
        fault_set(&x->fault, FAULT_FILE_NOT_FOUND, NULL, "there is no such file, or it is forgotten already");
        return answer_fault(x);
    }
    return answer_picture(x, index);
}
