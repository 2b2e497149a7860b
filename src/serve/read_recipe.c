/* The request that made an image, from the texts in its file. */
#include <string.h>

#include "handlers.h"

/* Fields whose texts are numbers in a request. A seed above 2^63 - 1 stays a text, as requests have it. */
static int is_number(const char *key)
{
    static const char *const names[] = {"seed", "steps", "guidance", "strength"};
    for (size_t i = 0; i < sizeof names / sizeof *names; i++)
        if (!strcmp(key, names[i]))
            return 1;
    return 0;
}

static int is_text(const char *key)
{
    static const char *const names[] = {"prompt", "negative_prompt", "size", "rng", "model"};
    for (size_t i = 0; i < sizeof names / sizeof *names; i++)
        if (!strcmp(key, names[i]))
            return 1;
    return 0;
}

/* NULL: the field has no such value. */
static json_t *value_of(const zimage_text *text)
{
    json_t *number = is_number(text->key) ? json_loads(text->value, JSON_DECODE_ANY, NULL) : NULL;
    if (json_is_number(number))
        return number;
    json_decref(number);
    return is_text(text->key) || !strcmp(text->key, "seed") ? json_string(text->value) : NULL;
}

/* {"request": what it says of the fields of a request, "texts": all of it} */
static json_t *recipe_json(const zimage_texts *texts)
{
    json_t *request = json_object(), *all = json_object();
    for (size_t i = 0; i < zimage_texts_count(texts); i++) {
        const zimage_text *text = zimage_texts_get(texts, i);
        json_t *value = value_of(text);
        if (value)
            json_object_set_new(request, text->key, value);
        json_object_set_new(all, text->key, json_string(text->value));
    }
    return json_pack("{s:o?, s:o?}", "request", request, "texts", all);
}

enum MHD_Result handle_recipe(exchange *x)
{
    size_t size;
    const uint8_t *data = body_bytes(x->body, &size);
    zimage_texts *texts = NULL;
    zimage_error error = ZIMAGE_ERROR_INIT;
    error.status = ZIMAGE_ERROR_MEMORY;
    if (!data || zimage_texts_decode(data, size, &texts, &error) != ZIMAGE_OK) {
        fault_set(&x->fault, error.status == ZIMAGE_ERROR_MEMORY ? FAULT_INSUFFICIENT_MEMORY : FAULT_INVALID_IMAGE,
                  NULL, "%s", error.message);
        return answer_fault(x);
    }
    json_t *value = zimage_texts_count(texts) > 0 ? recipe_json(texts) : NULL;
    int is_empty = zimage_texts_count(texts) == 0;
    zimage_texts_free(texts);
    if (!is_empty)
        return answer_json(x, MHD_HTTP_OK, value);
    fault_set(&x->fault, FAULT_RECIPE_NOT_FOUND, NULL, "the image's file does not say how the image was made");
    return answer_fault(x);
}
