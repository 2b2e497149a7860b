#include <stdio.h>
#include <string.h>

#include "text/load.h"

zimage_status zi_load_fail(const zi_loader *l, zimage_status status, const char *format, ...)
{
    char text[1024];
    va_list arguments;
    va_start(arguments, format);
    vsnprintf(text, sizeof text, format, arguments);
    va_end(arguments);
    zi_fail(l->error, status, "%s: %s", l->path, text);
    return status;
}

zimage_status zi_load_wrong(const zi_loader *l, const char *field, const char *what, const json_t *value)
{
    char buffer[96];
    return zi_load_fail(l, ZIMAGE_ERROR_MODEL, "%s: %s, expected %s", field,
                        zi_json_describe(value, buffer, sizeof buffer), what);
}

zimage_status zi_load_unsupported(const zi_loader *l, const char *field, const char *what, const json_t *value)
{
    char buffer[96];
    return zi_load_fail(l, ZIMAGE_ERROR_UNSUPPORTED, "%s: %s, only %s is supported", field,
                        zi_json_describe(value, buffer, sizeof buffer), what);
}

int zi_is_absent(const json_t *value)
{
    return !value || json_is_null(value);
}

int zi_is_text(const json_t *value, const char *text)
{
    return json_is_string(value) && strcmp(json_string_value(value), text) == 0;
}

static const char *key_of(const char *field)
{
    const char *dot = strrchr(field, '.');
    return dot ? dot + 1 : field;
}

zimage_status zi_need_false(const zi_loader *l, const json_t *object, const char *field, int absent_is_false)
{
    const json_t *value = json_object_get(object, key_of(field));
    if (json_is_false(value) || (absent_is_false && zi_is_absent(value)))
        return ZIMAGE_OK;
    if (!json_is_true(value) && !zi_is_absent(value))
        return zi_load_wrong(l, field, "true or false", value);
    return zi_load_unsupported(l, field, "false", value);
}

zimage_status zi_need_text(const zi_loader *l, const json_t *object, const char *field, const char *wanted)
{
    const json_t *value = json_object_get(object, key_of(field));
    if (!json_is_string(value))
        return zi_load_wrong(l, field, "a string", value);
    if (zi_is_text(value, wanted))
        return ZIMAGE_OK;
    char quoted[48];
    snprintf(quoted, sizeof quoted, "\"%s\"", wanted);
    return zi_load_unsupported(l, field, quoted, value);
}

zimage_status zi_need_no_text(const zi_loader *l, const json_t *object, const char *field)
{
    const json_t *value = json_object_get(object, key_of(field));
    if (zi_is_absent(value) || (json_is_string(value) && json_string_length(value) == 0))
        return ZIMAGE_OK;
    return zi_load_unsupported(l, field, "null", value);
}
