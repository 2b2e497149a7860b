/* Recipes in the texts of image files: our own, and what other programs write. */
#include <ctype.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "recipe.h"

#define TEXT_BYTES_MAX ((size_t)4 << 20) /* of a recipe: it holds a prompt of at most 1 MiB */
#define LINKS_MAX      16                /* that are followed in ComfyUI's graph */

const char *recipe_source_name(recipe_source source)
{
    switch (source) {
    case RECIPE_ZIMAGE:
        return "zimage";
    case RECIPE_A1111:
        return "AUTOMATIC1111";
    case RECIPE_COMFYUI:
        return "ComfyUI";
    case RECIPE_NONE:
    case RECIPE_MALFORMED:
        break;
    }
    return NULL;
}

/* The first text with a key; NULL: there is none, or it is too long. */
static const char *find_text(const zimage_texts *texts, const char *key)
{
    for (size_t i = 0; i < zimage_texts_count(texts); i++) {
        const zimage_text *text = zimage_texts_get(texts, i);
        if (!strcmp(text->key, key))
            return strlen(text->value) <= TEXT_BYTES_MAX ? text->value : NULL;
    }
    return NULL;
}

static json_t *parse_object(const char *text)
{
    json_t *object = text ? json_loads(text, JSON_REJECT_DUPLICATES, NULL) : NULL;
    if (json_is_object(object))
        return object;
    json_decref(object);
    return NULL;
}

/* ---- AUTOMATIC1111 ----------------------------------------------------------------------------------------------- */

#define NEGATIVE "\nNegative prompt:"

/* What begins a line of settings: "Steps: 20, ...". */
static int is_settings(const char *line)
{
    static const char begin[] = "Steps: ";
    return !strncmp(line, begin, strlen(begin)) && isdigit((unsigned char)line[strlen(begin)]);
}

/* The value of a setting, up to the next comma. NULL: there is none. */
static json_t *setting(const char *settings, const char *name)
{
    size_t length = strlen(name);
    for (const char *at = settings; at; at = strchr(at, ',')) {
        at += *at == ',';
        at += strspn(at, " ");
        if (strncmp(at, name, length) != 0 || strncmp(at + length, ": ", 2) != 0)
            continue;
        at += length + 2;
        return json_stringn(at, strcspn(at, ",\n"));
    }
    return NULL;
}

/* The same as a number, if it is one. A seed of our own may be too large, and stays a text. */
static json_t *number_setting(const char *settings, const char *name)
{
    json_t *text = setting(settings, name);
    json_t *number = text ? json_loads(json_string_value(text), JSON_DECODE_ANY, NULL) : NULL;
    if (!json_is_number(number)) {
        json_decref(number);
        return text;
    }
    json_decref(text);
    return number;
}

/* A text without the spaces around it; left out where it is empty. */
static void set_trimmed(json_t *object, const char *key, const char *begin, const char *end)
{
    while (begin < end && isspace((unsigned char)*begin))
        begin++;
    while (begin < end && isspace((unsigned char)end[-1]))
        end--;
    if (begin < end)
        json_object_set_new(object, key, json_stringn(begin, (size_t)(end - begin)));
}

static void set_known(json_t *object, const char *key, json_t *value)
{
    if (value)
        json_object_set_new(object, key, value);
}

static json_t *read_parameters(const char *text)
{
    const char *last = strrchr(text, '\n');
    const char *settings = last && is_settings(last + 1) ? last + 1 : is_settings(text) ? text : NULL;
    json_t *object = json_object();
    if (!settings || !object) { /* a text of this name that somebody else has written */
        json_decref(object);
        return NULL;
    }
    const char *negative = strstr(text, NEGATIVE);
    if (negative > settings)
        negative = NULL;
    set_trimmed(object, "prompt", text, negative ? negative : settings);
    if (negative)
        set_trimmed(object, "negative_prompt", negative + strlen(NEGATIVE), settings);
    set_known(object, "size", setting(settings, "Size"));
    set_known(object, "seed", number_setting(settings, "Seed"));
    set_known(object, "steps", number_setting(settings, "Steps"));
    set_known(object, "cfg_scale", number_setting(settings, "CFG scale"));
    set_known(object, "strength", number_setting(settings, "Denoising strength"));
    set_known(object, "model", setting(settings, "Model"));
    set_known(object, "version", setting(settings, "Version"));
    return object;
}

/* ---- ComfyUI ----------------------------------------------------------------------------------------------------- */

/* The inputs of the node that a link ["ID", output] leads to; NULL: there is none. */
static const json_t *follow(const json_t *graph, const json_t *link)
{
    const char *id = json_string_value(json_array_get(link, 0));
    return id ? json_object_get(json_object_get(graph, id), "inputs") : NULL;
}

/* Follows links from an input to a node with the value `wanted`; other nodes are left by their input `through`. NULL:
 * there is no such node. */
static const json_t *find_value(const json_t *graph, const json_t *link, const char *through, const char *wanted)
{
    const json_t *inputs = follow(graph, link);
    for (int i = 0; i < LINKS_MAX && inputs; i++) {
        const json_t *value = json_object_get(inputs, wanted);
        if (value && !json_is_array(value))
            return value;
        inputs = follow(graph, json_is_array(value) ? value : json_object_get(inputs, through));
    }
    return NULL;
}

/* The inputs of the node that samples: those with a prompt. */
static const json_t *find_sampler(const json_t *graph)
{
    const char *id;
    json_t *node;
    json_object_foreach((json_t *)graph, id, node)
    {
        const json_t *inputs = json_object_get(node, "inputs");
        if (json_object_get(inputs, "positive") && json_object_get(inputs, "steps"))
            return inputs;
    }
    return NULL;
}

static void copy_value(json_t *object, const char *key, const json_t *value)
{
    if (value && !json_is_array(value))
        json_object_set(object, key, (json_t *)value);
}

static json_t *read_graph(const char *text)
{
    json_t *graph = parse_object(text), *object = json_object();
    const json_t *sampler = graph ? find_sampler(graph) : NULL;
    if (sampler && object) {
        const json_t *latent = json_object_get(sampler, "latent_image"), *model = json_object_get(sampler, "model");
        const json_t *width = find_value(graph, latent, "pixels", "width");
        const json_t *height = find_value(graph, latent, "pixels", "height");
        const json_t *seed = json_object_get(sampler, "seed"), *name = find_value(graph, model, "model", "unet_name");
        copy_value(object, "prompt", find_value(graph, json_object_get(sampler, "positive"), "conditioning", "text"));
        copy_value(object, "negative_prompt",
                   find_value(graph, json_object_get(sampler, "negative"), "conditioning", "text"));
        if (json_is_integer(width) && json_is_integer(height))
            json_object_set_new(
                object, "size",
                json_sprintf("%lldx%lld", (long long)json_integer_value(width), (long long)json_integer_value(height)));
        copy_value(object, "seed", seed ? seed : json_object_get(sampler, "noise_seed"));
        copy_value(object, "steps", json_object_get(sampler, "steps"));
        copy_value(object, "cfg_scale", json_object_get(sampler, "cfg"));
        copy_value(object, "strength", json_object_get(sampler, "denoise"));
        copy_value(object, "model", name ? name : find_value(graph, model, "model", "ckpt_name"));
    }
    json_decref(graph);
    if (object && json_object_size(object) > 0)
        return object;
    json_decref(object);
    return NULL;
}

/* ---- all --------------------------------------------------------------------------------------------------------- */

json_t *recipe_read(const zimage_texts *texts, recipe_source *source)
{
    const char *own = find_text(texts, "zimage"), *parameters = find_text(texts, "parameters");
    const char *graph = find_text(texts, "prompt");
    json_t *object = parse_object(own);
    *source = RECIPE_ZIMAGE;
    if (object && json_integer_value(json_object_get(object, "recipe")) >= 1)
        return object;
    json_decref(object);
    *source = RECIPE_MALFORMED;
    if (own)
        return NULL;
    *source = RECIPE_A1111;
    if (parameters && (object = read_parameters(parameters)))
        return object;
    *source = RECIPE_COMFYUI;
    if (graph && (object = read_graph(graph)))
        return object;
    *source = RECIPE_NONE;
    return NULL;
}
