/* zimage inspect: configuration, tensors, dtypes and sizes of a model. */
#include <getopt.h>
#include <jansson.h>
#include <string.h>

#include "cli.h"

static const char help[] =
    "usage: zimage inspect MODEL [--json]\n"
    "\n"
    "MODEL is a model folder in diffusers' layout or one safetensors file. Prints configuration,\n"
    "tensors, dtypes, shapes and sizes; reads headers only.\n"
    "\n"
    "      --json   print one JSON object\n"
    "  -h, --help\n";

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
    const char *key;
    json_t *value;
    json_object_foreach((json_t *)config, key, value)
    {
        char *text = json_dumps(value, JSON_ENCODE_ANY | JSON_COMPACT);
        printf("    %-32s %s\n", key, text ? text : "?");
        zimage_free(text);
    }
}

static void print_tensor(const json_t *tensor)
{
    char shape[128] = "[";
    size_t index;
    json_t *size;
    json_array_foreach(json_object_get(tensor, "shape"), index, size)
    {
        size_t used = strlen(shape);
        snprintf(shape + used, sizeof shape - used, "%s%lld", index ? ", " : "", (long long)json_integer_value(size));
    }
    printf("    %-56s %-5s %s]\n", json_string_value(json_object_get(tensor, "name")),
           json_string_value(json_object_get(tensor, "dtype")), shape);
}

static void print_component(const json_t *component)
{
    size_t index;
    json_t *tensor;
    const json_t *tensors = json_object_get(component, "tensors");
    printf("\n%s  %s  %lld parameters in %zu tensors, ", json_string_value(json_object_get(component, "name")),
           json_string_value(json_object_get(component, "class")),
           (long long)json_integer_value(json_object_get(component, "parameters")), json_array_size(tensors));
    print_size((double)json_integer_value(json_object_get(component, "bytes")));
    printf("\n");
    print_config(json_object_get(component, "config"));
    json_array_foreach(tensors, index, tensor) print_tensor(tensor);
}

static int print_readable(const char *json)
{
    json_t *root = json_loads(json, 0, NULL);
    if (!root) {
        fprintf(stderr, "zimage inspect: out of memory\n");
        return CLI_FAILURE;
    }
    size_t index;
    json_t *component;
    printf("%s  %s\n", json_string_value(json_object_get(root, "path")),
           json_string_value(json_object_get(root, "class")));
    json_array_foreach(json_object_get(root, "components"), index, component) print_component(component);
    json_decref(root);
    return 0;
}

int cmd_inspect(int argc, char **argv)
{
    static const struct option long_options[] = {
        {"json", no_argument, NULL, 'j'}, {"help", no_argument, NULL, 'h'}, {NULL, 0, NULL, 0}};
    int option, as_json = 0;
    while ((option = getopt_long(argc, argv, "h", long_options, NULL)) != -1) {
        if (option == 'h') {
            fputs(help, stdout);
            return 0;
        }
        if (option != 'j')
            return CLI_USAGE;
        as_json = 1;
    }
    if (optind + 1 != argc)
        return cli_usage_error("inspect", "MODEL: expected one model folder or safetensors file");
    zimage_error error = ZIMAGE_ERROR_INIT;
    char *json = NULL;
    if (zimage_inspect(argv[optind], &json, &error) != ZIMAGE_OK)
        return cli_failure("inspect", &error);
    int code = as_json ? (puts(json) < 0 ? CLI_FAILURE : 0) : print_readable(json);
    zimage_free(json);
    return code;
}
