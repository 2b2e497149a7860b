/* zimage explain: the recipe in an image's file. */
#include <stdlib.h>
#include <string.h>

#include "cli.h"
#include "reread.h"
#include "shared/json_text.h"
#include "shared/recipe.h"

#define COMMAND "explain"

/* A text without quotation marks, the members of an input one after the other, or JSON. */
static void print_value(const char *key, const json_t *value)
{
    char line[2 * CLI_TEXT_MAX] = "";
    const char *member;
    const json_t *part;
    if (json_is_string(value)) {
        cli_line(stdout, "    %-20s %s", key, json_string_value(value));
        return;
    }
    json_object_foreach((json_t *)value, member, part)
    {
        const char *text = json_string_value(part);
        cli_append(line, sizeof line, "%s%s %s", *line ? ", " : "", member, text ? text : "?");
    }
    if (!json_is_object(value)) {
        char *text = json_dumps(value, JSON_ENCODE_ANY | JSON_REAL_PRECISION(CLI_MEASURED));
        cli_append(line, sizeof line, "%s", text ? text : "?");
        free(text);
    }
    cli_line(stdout, "    %-20s %s", key, line);
}

/* Several images: a line for each. */
static void print_values(const char *key, const json_t *values)
{
    size_t i;
    const json_t *value;
    json_array_foreach(values, i, value)
    {
        print_value(key, value);
    }
    if (!json_is_array(values))
        print_value(key, values);
}

static int print_readable(const char *path, const json_t *object, const char *format, recipe_source source)
{
    const char *version = json_string_value(json_object_get(object, "version")), *key;
    json_t *value;
    cli_line(stdout, "%s  %s, made by %s%s%s", path, format, recipe_source_name(source),
             version && source == RECIPE_ZIMAGE ? " " : "", version && source == RECIPE_ZIMAGE ? version : "");
    json_object_foreach((json_t *)object, key, value)
    {
        if (strcmp(key, "recipe") != 0 && strcmp(key, "version") != 0)
            print_values(key, value);
    }
    return 0;
}

int cmd_explain(const cli_options *o)
{
    recipe_source source;
    zimage_format format;
    json_t *object = cli_read_recipe(COMMAND, o->file, &source, &format);
    if (!object)
        return CLI_FAILURE;
    if (!o->json) {
        int code = print_readable(o->file, object, zimage_format_name(format), source);
        json_decref(object);
        return code;
    }
    return cli_print_json(COMMAND,
                          json_pack("{s:o, s:s, s:s, s:o}", "path", json_of_text(o->file), "format",
                                    zimage_format_name(format), "source", recipe_source_name(source), "recipe", object),
                          CLI_EXACT);
}
