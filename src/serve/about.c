/* A job as text: what the ledger keeps of it for fronts that have never seen it. */
#include <stdlib.h>
#include <string.h>

#include "front.h"
#include "handlers.h"
#include "shared/preview.h"

static json_t *hex_json(uint64_t number)
{
    return json_sprintf("%llx", (unsigned long long)number);
}

static json_t *asked_json(const serve_request *r)
{
    return json_pack("{s:i, s:i, s:s, s:s*, s:s*, s:i, s:i, s:i, s:i, s:i, s:b, s:b, s:b, s:i, s:o?, s:o?}", "dialect",
                     (int)r->dialect, "images", (int)r->image_count, "prompt", r->prompt, "negative_prompt",
                     r->negative_prompt, "user", r->user, "quality", r->quality, "response_format", r->response_format,
                     "format", r->format, "rng", r->rng, "priority", r->priority, "progress", r->progress,
                     "embed_recipe", r->embed_recipe, "send_images", r->send_images, "partial_images",
                     (int)r->partial_images, "ignored", notes_json(r->ignored, r->ignored_count), "warnings",
                     notes_json(r->warnings, r->warning_count));
}

static json_t *made_json(const resolved_request *r)
{
    return json_pack("{s:i, s:i, s:i, s:f, s:o?, s:i, s:i, s:s}", "width", r->width, "height", r->height, "steps",
                     r->steps, "guidance", r->guidance, "seed", seed_json(r->seed), "format", (int)r->format, "quality",
                     r->quality, "fingerprint", r->fingerprint);
}

char *job_about(const job *j)
{
    json_t *about = json_pack("{s:i, s:s, s:I, s:o?, s:o?, s:o?}", "count", j->count, "model", j->model->id, "created",
                              (json_int_t)j->created_at, "body", hex_json(j->body_hash), "asked",
                              asked_json(&j->request), "made", made_json(&j->resolved));
    char *text = about ? json_dumps(about, JSON_COMPACT) : NULL;
    json_decref(about);
    return text;
}

/* ---- reading: the text is a server's own, but the ledger is not ---- */

static char *text_of(const json_t *object, const char *name)
{
    const char *text = json_string_value(json_object_get(object, name));
    return text ? strdup(text) : NULL;
}

/* A whole number from 0 to most; what is none makes *is_good 0. */
static int int_of(const json_t *object, const char *name, int most, int *is_good)
{
    const json_t *value = json_object_get(object, name);
    json_int_t number = json_integer_value(value);
    *is_good &= json_is_integer(value) && number >= 0 && number <= most;
    return *is_good ? (int)number : 0;
}

static int count_words(const char *const *words)
{
    int count = 0;
    while (words[count])
        count++;
    return count;
}

static void read_notes(const json_t *list, char *notes[REQUEST_NOTES_MAX], size_t *count)
{
    for (size_t i = 0; i < json_array_size(list) && *count < REQUEST_NOTES_MAX; i++) {
        const char *text = json_string_value(json_array_get(list, i));
        notes[*count] = text ? strdup(text) : NULL;
        *count += notes[*count] != NULL;
    }
}

/* A row of an older front does not say it. */
static int partials_of(const json_t *asked, int *is_good)
{
    const char *name = "partial_images";
    return json_object_get(asked, name) ? int_of(asked, name, PREVIEW_PARTIALS_MAX, is_good) : 0;
}

static int read_asked(const json_t *asked, int count, serve_request *r)
{
    int is_good = 1;
    *r = (serve_request){.n = count,
                         .batch_size = 1,
                         .n_iter = 1,
                         .dialect = (serve_dialect)int_of(asked, "dialect", DIALECT_IMG2IMG, &is_good),
                         .image_count = json_integer_value(json_object_get(asked, "images")) > 0, /* and none is here */
                         .prompt = text_of(asked, "prompt"),
                         .negative_prompt = text_of(asked, "negative_prompt"),
                         .user = text_of(asked, "user"),
                         .quality = int_of(asked, "quality", count_words(serve_quality_words) - 1, &is_good),
                         .response_format = int_of(asked, "response_format", 1, &is_good),
                         .format = int_of(asked, "format", count_words(serve_format_words) - 1, &is_good),
                         .rng = int_of(asked, "rng", count_words(serve_rng_words) - 1, &is_good),
                         .priority = int_of(asked, "priority", QUEUE_CLASSES - 1, &is_good),
                         .partial_images = partials_of(asked, &is_good),
                         .progress = json_is_true(json_object_get(asked, "progress")),
                         .embed_recipe = json_is_true(json_object_get(asked, "embed_recipe")),
                         .send_images = json_is_true(json_object_get(asked, "send_images"))};
    read_notes(json_object_get(asked, "ignored"), r->ignored, &r->ignored_count);
    read_notes(json_object_get(asked, "warnings"), r->warnings, &r->warning_count);
    return is_good && r->prompt;
}

static uint64_t seed_of(const json_t *value)
{
    return json_is_string(value) ? strtoull(json_string_value(value), NULL, 10) : (uint64_t)json_integer_value(value);
}

static int read_made(const json_t *made, resolved_request *r)
{
    int is_good = 1;
    const char *fingerprint = json_string_value(json_object_get(made, "fingerprint"));
    *r = (resolved_request){.width = int_of(made, "width", INT32_MAX, &is_good),
                            .height = int_of(made, "height", INT32_MAX, &is_good),
                            .steps = int_of(made, "steps", INT32_MAX, &is_good),
                            .guidance = json_number_value(json_object_get(made, "guidance")),
                            .seed = seed_of(json_object_get(made, "seed")),
                            .format =
                                (zimage_format)int_of(made, "format", count_words(serve_format_words) - 1, &is_good),
                            .quality = int_of(made, "quality", 100, &is_good)};
    snprintf(r->fingerprint, sizeof r->fingerprint, "%s", fingerprint ? fingerprint : "");
    return is_good;
}

/* Its model's id may be another's here: then the fingerprint tells. */
static model_entry *model_of(server *s, const char *id, const char *fingerprint)
{
    model_entry *entry = id && *id ? models_find(&s->models, id) : NULL;
    if (entry && !strcmp(entry->info.fingerprint, fingerprint))
        return entry;
    for (int i = 0; i < s->models.count; i++)
        if (s->models.entries[i].is_known && !strcmp(s->models.entries[i].info.fingerprint, fingerprint))
            return &s->models.entries[i];
    return NULL;
}

job *job_of_about(server *s, const char *text)
{
    json_t *about = json_loads(text, 0, NULL);
    serve_request request = {0};
    resolved_request resolved;
    int is_good = 1,
        count = int_of(about, "count", s->params->max_images > 1000 ? s->params->max_images : 1000, &is_good);
    is_good &= count > 0 && read_asked(json_object_get(about, "asked"), count, &request) &&
               read_made(json_object_get(about, "made"), &resolved);
    model_entry *model =
        is_good ? model_of(s, json_string_value(json_object_get(about, "model")), resolved.fingerprint) : NULL;
    job *j = model ? job_new(&request) : NULL;
    if (j) {
        const char *hash = json_string_value(json_object_get(about, "body"));
        j->model = model;
        j->resolved = resolved;
        j->is_resolved = 1;
        j->wants_previews = request_previews(&j->request);
        j->created_at = json_integer_value(json_object_get(about, "created"));
        j->body_hash = hash ? strtoull(hash, NULL, 16) : 0;
        j->item.class = (queue_class)j->request.priority;
    }
    serve_request_free(&request);
    json_decref(about);
    return j;
}
