/* Health, metrics, what the workers do, what the server can do. */
#include <stdlib.h>
#include <string.h>

#include "front.h"
#include "handlers.h"
#include "worker.h"

enum MHD_Result handle_health(exchange *x)
{
    pthread_mutex_lock(&x->server->lock);
    server_state state = x->server->state;
    int is_lost = x->server->front && front_is_lost(x->server);
    pthread_mutex_unlock(&x->server->lock);
    if (state == SERVER_READY && !is_lost)
        return answer_json(x, MHD_HTTP_OK, json_pack("{s:s}", "status", "ok"));
    const char *message = state == SERVER_LOADING ? "Loading model"
                          : state == SERVER_READY ? "The ledger can't be reached"
                                                  : "Shutting down";
    return answer_json(x, MHD_HTTP_SERVICE_UNAVAILABLE,
                       json_pack("{s:{s:i, s:s, s:s}}", "error", "code", MHD_HTTP_SERVICE_UNAVAILABLE, "message",
                                 message, "type", "unavailable_error"));
}

static const char *route_name(int route)
{
    return (size_t)route < route_table_size ? route_table[route].path : "other";
}

enum MHD_Result handle_metrics(exchange *x)
{
    pthread_mutex_lock(&x->server->lock);
    char *text = metrics_text(x->server, route_name);
    pthread_mutex_unlock(&x->server->lock);
    return answer_text(x, MHD_HTTP_OK, "text/plain; version=0.0.4; charset=utf-8", text);
}

static json_t *slot_json(const server *s, int index)
{
    const job *j = worker_job(s, index);
    j = j && j->state != JOB_QUEUED ? j : NULL; /* queued: it is not yet certain that this worker makes it */
    json_t *slot = json_pack("{s:i, s:s, s:s}", "id", index, "device",
                             s->params->devices[index % s->params->device_count], "state", j ? "running" : "idle");
    if (slot && j)
        json_object_update_new(slot, json_pack("{s:s, s:s, s:s, s:i, s:i, s:f}", "model", j->model->id, "job", j->id,
                                               "stage", zimage_stage_name(j->stage), "step", j->step, "steps", j->steps,
                                               "fraction", j->fraction));
    return slot;
}

enum MHD_Result handle_slots(exchange *x)
{
    if (x->server->params->has_no_slots) {
        fault_set(&x->fault, FAULT_UNSUPPORTED_ENDPOINT, NULL, "the server does not tell what its workers do");
        return answer_fault(x);
    }
    json_t *slots = json_array();
    pthread_mutex_lock(&x->server->lock);
    for (int i = 0; i < x->server->worker_count; i++)
        if (worker_is_shown(x->server, i))
            json_array_append_new(slots, slot_json(x->server, i));
    pthread_mutex_unlock(&x->server->lock);
    return answer_json(x, MHD_HTTP_OK, slots);
}

json_t *model_json(server *s, const model_entry *entry)
{
    const zimage_model_info *info = &entry->info;
    pthread_mutex_lock(&s->lock);
    json_t *meta = json_pack("{s:b}", "loaded", entry->users > 0);
    if (meta && entry->is_known)
        json_object_update_new(meta, json_pack("{s:s, s:i, s:i, s:i, s:i, s:b, s:b, s:i}", "family", info->family,
                                               "default_steps", info->default_steps, "max_width", info->max_width,
                                               "max_height", info->max_height, "size_multiple", info->size_multiple,
                                               "distilled", info->distilled, "can_edit", info->has_image_encoder,
                                               "max_references", info->max_references));
    if (meta && s->front)
        json_object_set_new(meta, "workers", json_integer(front_workers(s, entry)));
    if (meta && entry->is_known)
        json_object_set_new(meta, "fingerprint", json_string(info->fingerprint));
    if (meta && entry->is_known)
        json_object_set_new(meta, "default_guidance", json_real(info->default_guidance));
    if (meta && entry->is_known)
        json_object_set_new(meta, "default_size", json_sprintf("%dx%d", info->default_width, info->default_height));
    pthread_mutex_unlock(&s->lock);
    return json_pack("{s:s, s:s, s:I, s:s, s:o?}", "id", entry->id, "object", "model", "created",
                     (json_int_t)entry->created, "owned_by", "zimage", "meta", meta);
}

static json_t *words(const char *const list[])
{
    json_t *all = json_array();
    for (int i = 0; list[i]; i++)
        json_array_append_new(all, json_string(list[i]));
    return all;
}

enum MHD_Result handle_props(exchange *x)
{
    const serve_params *p = x->server->params;
    json_t *models = json_array();
    for (int i = 0; i < x->server->models.count; i++)
        json_array_append_new(models, model_json(x->server, &x->server->models.entries[i]));
    json_t *limits =
        json_pack("{s:i, s:f, s:i, s:I, s:I, s:i}", "max_queue", p->max_queue, "max_wait_seconds", p->max_wait, "max_n",
                  p->max_images, "max_image_bytes", (json_int_t)x->server->images.bytes, "max_image_pixels",
                  (json_int_t)x->server->images.pixels, "max_images", REQUEST_IMAGES_MAX);
    return answer_json(x, MHD_HTTP_OK,
                       json_pack("{s:b, s:s, s:s, s:o?, s:o?, s:o?, s:o?}", "gallery", x->server->gallery != NULL,
                                 "version", zimage_version(), "default_model",
                                 x->server->models.entries[x->server->models.standard].id, "models", models, "limits",
                                 limits, "formats", words(serve_format_words), "rngs", words(serve_rng_words)));
}
