/* The request that made an image, from the texts in its file. */
#include <string.h>

#include "handlers.h"
#include "shared/recipe.h"

/* Whether a value of the recipe is one that the field of that name takes. A seed above 2^63 - 1 is a text. */
static int is_field(const char *key, const json_t *value)
{
    static const char *const numbers[] = {"seed", "steps", "guidance", "strength"};
    static const char *const texts[] = {"prompt", "negative_prompt", "size", "rng", "model", "seed"};
    for (size_t i = 0; json_is_number(value) && i < sizeof numbers / sizeof *numbers; i++)
        if (!strcmp(key, numbers[i]))
            return 1;
    for (size_t i = 0; json_is_string(value) && i < sizeof texts / sizeof *texts; i++)
        if (!strcmp(key, texts[i]))
            return 1;
    return json_is_boolean(value) && !strcmp(key, "composite");
}

/* {"request": what the recipe says of the fields of a request, "recipe": all of it, "source": who wrote it,
 *  "texts": all texts of the file} */
static json_t *recipe_json(const zimage_texts *texts, json_t *object, recipe_source source)
{
    json_t *request = json_object(), *all = json_object(), *value;
    const char *key;
    json_object_foreach(object, key, value)
    {
        if (is_field(key, value))
            json_object_set(request, key, value);
    }
    for (size_t i = 0; i < zimage_texts_count(texts); i++) {
        const zimage_text *text = zimage_texts_get(texts, i);
        json_object_set_new(all, text->key, json_string(text->value));
    }
    return json_pack("{s:o?, s:O, s:s, s:o?}", "request", request, "recipe", object, "source",
                     recipe_source_name(source), "texts", all);
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
    recipe_source source;
    json_t *object = recipe_read(texts, &source), *answer = object ? recipe_json(texts, object, source) : NULL;
    int is_found = object != NULL;
    json_decref(object);
    zimage_texts_free(texts);
    if (is_found)
        return answer_json(x, MHD_HTTP_OK, answer);
    fault_set(&x->fault, FAULT_RECIPE_NOT_FOUND, NULL, "%s",
              source == RECIPE_MALFORMED ? "the recipe in the image's file is none that this version can read"
                                         : "the image's file does not say how the image was made");
    return answer_fault(x);
}
