#include "reread.h"

#include <stdio.h>
#include <string.h>

#include "cli.h"

#define COMMAND "rerun"

#define NUMBER_MAX 64 /* bytes of a number */
#define SHOWN_MAX  60 /* bytes of a wrong value in a message */

json_t *cli_read_recipe(const char *command, const char *path, recipe_source *source, zimage_format *format)
{
    zimage_error error = ZIMAGE_ERROR_INIT;
    zimage_texts *texts = NULL;
    if (zimage_texts_read(path, &texts, &error) != ZIMAGE_OK) {
        cli_failure(command, &error);
        return NULL;
    }
    json_t *object = recipe_read(texts, source);
    *format = zimage_texts_format(texts);
    zimage_texts_free(texts);
    if (!object)
        (void)cli_usage_error(command, "%s: %s", path,
                              *source == RECIPE_MALFORMED ? "its recipe is none that this version can read"
                                                          : "the file does not say how the image was made");
    return object;
}

/* ---- values ------------------------------------------------------------------------------------------------------ */

/* Keys of recipes, and the options of generate that they become. */
static const struct {
    const char *key, *option;
} values[] = {
    {"prompt", "prompt"},
    {"negative_prompt", "negative"},
    {"seed", "seed"},
    {"rng", "rng"},
    {"size", "size"},
    {"steps", "steps"},
    {"guidance", "guidance"},
    {"cfg_truncation", "cfg-truncation"},
    {"cfg_normalization", "cfg-normalization"},
    {"composite", "composite"},
    {"strength", "strength"},
    {"background", "background"},
    {"compute", "compute"},
    {"dequantize", "dequantize"},
    {"quality", "quality"},
};

/* A value as the command line has it; NULL: it is neither a text nor a number. */
static const char *text_of(const json_t *value, char number[NUMBER_MAX])
{
    if (json_is_string(value))
        return json_string_value(value);
    if (json_is_integer(value))
        snprintf(number, NUMBER_MAX, "%lld", (long long)json_integer_value(value));
    else
        snprintf(number, NUMBER_MAX, "%.*g", CLI_EXACT, json_number_value(value));
    return json_is_number(value) ? number : NULL;
}

static int set_value(const char *path, const char *key, const cli_option *option, const json_t *value,
                     cli_options *made)
{
    char number[NUMBER_MAX], expected[CLI_TEXT_MAX];
    const char *text = text_of(value, number);
    if (option->kind == CLI_FLAG && json_is_boolean(value)) {
        cli_set_flag(made, option, json_is_true(value));
        return 0;
    }
    if (option->kind != CLI_FLAG && text && cli_set(made, option, text))
        return 0;
    cli_expected(option, expected);
    (void)cli_usage_error(COMMAND, "%s: %s in its recipe: \"%.*s\", expected %s", path, key, SHOWN_MAX,
                          text ? text : "", expected);
    return CLI_FAILURE;
}

static int set_values(const json_t *object, const cli_options *given, cli_options *made)
{
    for (size_t i = 0; i < sizeof values / sizeof *values; i++) {
        const cli_option *option = cli_find(CLI_GENERATE, values[i].option);
        const json_t *value = json_object_get(object, values[i].key);
        if (!value || cli_has(&given->given, option)) /* the command line says otherwise */
            continue;
        int code = set_value(given->file, values[i].key, option, value, made);
        if (code)
            return code;
    }
    return 0;
}

/* ---- inputs ------------------------------------------------------------------------------------------------------ */

/* An input's own name in a message; it may be missing. */
static const char *name_of(const json_t *input)
{
    const char *name = json_string_value(json_object_get(input, "name"));
    return name ? name : "it has no name";
}

static int count_input(const char *path, const char *option, const char *what, const json_t *input, int recorded,
                       int given)
{
    if (recorded == given)
        return 0;
    if (recorded == 0)
        return cli_usage_error(COMMAND, "--%s: %s was made without %s", option, path, what);
    return cli_usage_error(COMMAND, "--%s: given %d times, expected %d: %s was made with %s (%s)", option, given,
                           recorded, path, what, name_of(input));
}

static int count_inputs(const json_t *object, const cli_options *o)
{
    const json_t *images = json_object_get(object, "images"), *mask = json_object_get(object, "mask");
    const json_t *latents = json_object_get(object, "latents"), *embeds = json_object_get(object, "prompt_embeds");
    size_t count = json_array_size(images);
    int code = count_input(o->file, "image", "input images", json_array_get(images, 0),
                           count < CLI_FILES_MAX ? (int)count : CLI_FILES_MAX + 1, o->images.count);
    if (!code)
        code = count_input(o->file, "mask", "a mask", mask, mask != NULL, o->mask != NULL);
    if (!code)
        code = count_input(o->file, "latents", "a file of initial noise", latents, latents != NULL, o->latents != NULL);
    if (!code)
        code = count_input(o->file, "prompt-embeds", "a file of text features", embeds, embeds != NULL,
                           o->prompt_embeds != NULL);
    return code ? CLI_FAILURE : 0;
}

int cli_options_of_recipe(const json_t *object, const cli_options *given, cli_options *made)
{
    *made = *given;
    cli_set_defaults(CLI_GENERATE, CLI_RERUN, made);
    int code = count_inputs(object, given);
    if (!code)
        code = set_values(object, given, made);
    int is_whole = (made->prompt || made->prompt_embeds) && (CLI_IS_GIVEN(made, seed) || made->latents);
    if (code || (is_whole && made->width && made->steps))
        return code;
    (void)cli_usage_error(COMMAND, "%s: its recipe has no prompt, seed, size or number of steps, expected all of them",
                          given->file);
    return CLI_FAILURE;
}

static int is_input(const char *option, const char *path, const json_t *input, const char sum[RECIPE_CHECKSUM])
{
    const char *expected = json_string_value(json_object_get(input, "crc32"));
    if (expected && !strcmp(expected, sum))
        return 1;
    (void)cli_usage_error(COMMAND, "--%s: %s is not what the image was made with: its checksum is %s, expected %s (%s)",
                          option, path, sum, expected ? expected : "none", name_of(input));
    return 0;
}

int cli_are_inputs_of_recipe(const json_t *object, const cli_options *made, const zimage_request *request)
{
    char sum[RECIPE_CHECKSUM];
    for (size_t i = 0; i < request->image_count; i++) {
        recipe_image_checksum(request->images[i], sum);
        if (!is_input("image", made->images.paths[i], json_array_get(json_object_get(object, "images"), i), sum))
            return 0;
    }
    if (request->mask) {
        recipe_image_checksum(request->mask, sum);
        if (!is_input("mask", made->mask, json_object_get(object, "mask"), sum))
            return 0;
    }
    if (request->latents) {
        recipe_numbers_checksum(request->latents, request->latents_count, sum);
        if (!is_input("latents", made->latents, json_object_get(object, "latents"), sum))
            return 0;
    }
    if (request->prompt_embeds) {
        size_t count = (size_t)request->prompt_tokens * (size_t)request->prompt_embeds_dim;
        recipe_numbers_checksum(request->prompt_embeds, count, sum);
        return is_input("prompt-embeds", made->prompt_embeds, json_object_get(object, "prompt_embeds"), sum);
    }
    return 1;
}
