/* The schema of a dialect's body, from the table of fields. */
#include <string.h>

#include "request.h"

static json_t *words_json(const char *const words[])
{
    json_t *list = json_array();
    for (int i = 0; words[i]; i++)
        json_array_append_new(list, json_string(words[i]));
    return list;
}

static json_t *images_schema(serve_dialect dialect, int is_list)
{
    int is_form = dialect == DIALECT_EDIT || dialect == DIALECT_JOB;
    json_t *image = is_form ? json_pack("{s:s, s:s}", "type", "string", "format", "binary")
                            : json_pack("{s:s, s:s}", "type", "string", "contentEncoding", "base64");
    return is_list ? json_pack("{s:s, s:o?, s:i}", "type", "array", "items", image, "maxItems", REQUEST_IMAGES_MAX)
                   : image;
}

static json_t *kind_schema(const request_field *f, serve_dialect dialect)
{
    switch (f->kind) {
    case FIELD_TEXT:
        return json_pack("{s:s, s:I, s:I}", "type", "string", "minLength", (json_int_t)f->low, "maxLength",
                         (json_int_t)f->high);
    case FIELD_INT:
        return json_pack("{s:s, s:I, s:I}", "type", "integer", "minimum", (json_int_t)f->low, "maximum",
                         (json_int_t)f->high);
    case FIELD_SEED:
        return json_pack("{s:[s,s], s:i}", "type", "integer", "string", "minimum", -1);
    case FIELD_NUMBER:
        return json_pack("{s:s, s:f, s:f}", "type", "number", "minimum", f->low, "maximum", f->high);
    case FIELD_BOOL:
        return json_pack("{s:s, s:b}", "type", "boolean", "default", (int)f->fallback);
    case FIELD_WORD:
        return json_pack("{s:s, s:o?, s:s}", "type", "string", "enum", words_json(f->words), "default",
                         f->words[f->fallback]);
    case FIELD_IMAGES:
    case FIELD_MASK:
        return images_schema(dialect, f->kind == FIELD_IMAGES);
    case FIELD_OBJECT:
        return json_pack("{s:s}", "type", "object");
    default:
        return json_object();
    }
}

static void add_aliases(json_t *properties, const request_field *f, const json_t *schema)
{
    for (const char *c = f->aliases; c && *c; c += strspn(c, " ")) {
        size_t length = strcspn(c, " ");
        json_t *copy = json_deep_copy(schema), *name = json_stringn(c, length);
        if (copy && name) {
            json_object_set_new(copy, "description", json_sprintf("Another name of %s.", f->name));
            json_object_set(properties, json_string_value(name), copy);
        }
        json_decref(copy);
        json_decref(name);
        c += length;
    }
}

json_t *serve_request_schema(serve_dialect dialect)
{
    json_t *properties = json_object(), *required = json_array();
    for (const request_field *f = field_table; f < field_table + field_table_size; f++) {
        json_t *schema = f->kind != FIELD_REFUSED && (f->dialects & 1u << dialect) ? kind_schema(f, dialect) : NULL;
        if (!schema)
            continue;
        json_object_set_new(schema, "description", json_string(f->doc));
        json_object_set(properties, f->name, schema);
        add_aliases(properties, f, schema);
        json_decref(schema);
        if (f->is_required)
            json_array_append_new(required, json_string(f->name));
    }
    return json_pack("{s:s, s:o?, s:o?, s:b}", "type", "object", "properties", properties, "required", required,
                     "additionalProperties", is_sdapi_dialect(dialect));
}
