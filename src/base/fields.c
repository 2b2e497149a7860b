#include "base/fields.h"

#include <string.h>

#include "base/names.h"

int zi_field_is_default(const zi_json_reader *json, const char *field)
{
    const json_t *defaults = json_object_get(json->object, "_use_default_values");
    for (size_t i = 0; i < json_array_size(defaults); i++) {
        const char *name = json_string_value(json_array_get(defaults, i));
        if (name && strcmp(name, field) == 0)
            return 1;
    }
    return !json_object_get(json->object, field);
}

zimage_status zi_field_int(const zi_json_reader *json, const char *field, int64_t low, int64_t high,
                           int64_t default_value, int64_t *value)
{
    *value = default_value;
    return zi_field_is_default(json, field) ? ZIMAGE_OK : zi_json_int(json, field, low, high, NULL, value);
}

zimage_status zi_field_number(const zi_json_reader *json, const char *field, double low, double high,
                              double default_value, double *value)
{
    *value = default_value;
    return zi_field_is_default(json, field) ? ZIMAGE_OK : zi_json_number(json, field, low, high, NULL, value);
}

zimage_status zi_field_bool(const zi_json_reader *json, const char *field, int default_value, int *value)
{
    const int no = 0;
    *value = default_value;
    return zi_field_is_default(json, field) ? ZIMAGE_OK : zi_json_bool(json, field, &no, value);
}

zimage_status zi_field_int_array(const zi_json_reader *json, const char *field, int64_t low, int64_t high,
                                 const int64_t *default_values, int64_t *values, size_t count)
{
    size_t found;
    memcpy(values, default_values, count * sizeof *values);
    if (zi_field_is_default(json, field))
        return ZIMAGE_OK;
    ZI_TRY(zi_json_int_array(json, field, low, high, values, count, &found));
    if (found == count)
        return ZIMAGE_OK;
    return zi_fail(json->error, ZIMAGE_ERROR_MODEL, "%s: %s has %zu entries, expected %zu", json->path, field, found,
                   count);
}

zimage_status zi_refuse_quantization(const zi_json_reader *json)
{
    const json_t *config = json_object_get(json->object, "quantization_config");
    const json_t *method = json_object_get(config, "quant_method");
    char text[64];
    int of_mlx =
        json_is_integer(json_object_get(config, "group_size")) && json_is_integer(json_object_get(config, "bits"));
    if (!config || json_is_null(config) || (!method && of_mlx))
        return ZIMAGE_OK;
    return zi_fail(
        json->error, ZIMAGE_ERROR_UNSUPPORTED,
        "%s: \"quantization_config\": the weights are quantised, quant_method is %s; only weights that are not "
        "quantised, and MLX's, are supported",
        json->path, zi_json_describe(method, text, sizeof text));
}

static int is_known(const char *name, const char *const *known)
{
    if (name[0] == '_' || strcmp(name, "quantization_config") == 0)
        return 1;
    for (; *known; known++)
        if (strcmp(*known, name) == 0)
            return 1;
    return 0;
}

void zi_warn_of_unknown_fields(json_t *object, const char *path, const char *const *known, const zi_log *log)
{
    zi_names unknown = {0};
    const char *name;
    json_t *value;
    json_object_foreach(object, name, value) if (!is_known(name, known)) zi_names_add(&unknown, "%s", name);
    if (unknown.count > 0)
        zi_warn(log, "%s: %zu unknown field%s, not used: %s", path, unknown.count, unknown.count == 1 ? "" : "s",
                zi_names_text(&unknown));
}
