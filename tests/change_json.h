/* Changing a field of a JSON file. */
#ifndef ZI_TESTS_CHANGE_JSON_H
#define ZI_TESTS_CHANGE_JSON_H

#include <jansson.h>

#include "support.h"

/* Writes to `target` what `source` holds, with one field replaced by a JSON value, or removed (NULL). */
static inline void change_json(const char *source, const char *target, const char *field, const char *value)
{
    json_t *object = json_load_file(source, 0, NULL);
    assert_non_null(object);
    if (value)
        assert_int_equal(json_object_set_new(object, field, json_loads(value, JSON_DECODE_ANY, NULL)), 0);
    else
        json_object_del(object, field);
    assert_int_equal(json_dump_file(object, target, JSON_INDENT(2)), 0);
    json_decref(object);
}

#endif
