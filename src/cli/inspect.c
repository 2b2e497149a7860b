/* zimage inspect: configuration, tensors, dtypes and sizes of a model. */
#include <jansson.h>
#include <stdlib.h>
#include <string.h>

#include "cli.h"

#define COMMAND "inspect"

static void print_size(double bytes)
{
    static const char *const units[] = {"B", "KiB", "MiB", "GiB", "TiB"};
    int unit = 0;
    for (; bytes >= 1024 && unit < 4; unit++)
        bytes /= 1024;
    printf(unit ? "%.1f %s" : "%.0f %s", bytes, units[unit]);
}

static void print_config(const json_t *config)
{
    json_t *object = (json_t *)config; /* iterating does not change it */
    for (void *i = json_object_iter(object); i; i = json_object_iter_next(object, i)) {
        char *text = json_dumps(json_object_iter_value(i), JSON_ENCODE_ANY | JSON_COMPACT | JSON_REAL_PRECISION(9));
        printf("    %-32s %s\n", json_object_iter_key(i), text ? text : "?");
        free(text);
    }
}

static void print_tensor(const json_t *tensor)
{
    char shape[128] = "[";
    const json_t *sizes = json_object_get(tensor, "shape");
    for (size_t i = 0; i < json_array_size(sizes); i++) {
        size_t used = strlen(shape);
        snprintf(shape + used, sizeof shape - used, "%s%lld", i ? ", " : "",
                 (long long)json_integer_value(json_array_get(sizes, i)));
    }
    printf("    %-56s %-12s %s]\n", json_string_value(json_object_get(tensor, "name")),
           json_string_value(json_object_get(tensor, "dtype")), shape);
}

static void print_component(const json_t *component)
{
    const json_t *tensors = json_object_get(component, "tensors");
    printf("\n%s  %s  %lld parameters in %zu tensors, ", json_string_value(json_object_get(component, "name")),
           json_string_value(json_object_get(component, "class")),
           (long long)json_integer_value(json_object_get(component, "parameters")), json_array_size(tensors));
    print_size((double)json_integer_value(json_object_get(component, "bytes")));
    printf("\n");
    print_config(json_object_get(component, "config"));
    for (size_t i = 0; i < json_array_size(tensors); i++)
        print_tensor(json_array_get(tensors, i));
}

static int print_readable(const char *json)
{
    json_t *root = json_loads(json, 0, NULL);
    if (!root) {
        fprintf(stderr, "zimage inspect: out of memory\n");
        return CLI_FAILURE;
    }
    printf("%s  %s\n", json_string_value(json_object_get(root, "path")),
           json_string_value(json_object_get(root, "class")));
    const json_t *components = json_object_get(root, "components");
    for (size_t i = 0; i < json_array_size(components); i++)
        print_component(json_array_get(components, i));
    json_decref(root);
    return 0;
}

int cmd_inspect(const cli_options *o)
{
    zimage_error error = ZIMAGE_ERROR_INIT;
    char *json = NULL;
    if (zimage_inspect(o->model, &json, &error) != ZIMAGE_OK)
        return cli_failure(COMMAND, &error);
    int code = o->json ? (puts(json) < 0 ? CLI_FAILURE : 0) : print_readable(json);
    zimage_free(json);
    return code;
}
