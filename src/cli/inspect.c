/* zimage inspect: configuration, tensors, dtypes and sizes of a model. */
#include <jansson.h>
#include <stdlib.h>

#include "cli.h"
#include "shared/json_text.h"

#define COMMAND "inspect"

static void get_component(const zimage_inspection *in, size_t component, zimage_component_info *info)
{
    *info = (zimage_component_info){.struct_size = sizeof *info};
    zimage_inspection_get_component(in, component, info, NULL); /* can't fail: the index is below the count */
}

static void get_tensor(const zimage_inspection *in, size_t component, size_t tensor, zimage_tensor_info *info)
{
    *info = (zimage_tensor_info){.struct_size = sizeof *info};
    zimage_inspection_get_tensor(in, component, tensor, info, NULL);
}

/* NULL: there is none. */
static json_t *config_of(const zimage_component_info *info)
{
    return info->config_json ? json_loads(info->config_json, 0, NULL) : NULL;
}

/* ---- JSON ----
 *
 * {"path", "class", "components": [{"name", "class", "parameters", "bytes", "config": {...},
 *                                   "tensors": [{"name", "dtype", "shape", "bytes", "file"}]}]} */

static json_t *tensor_json(const zimage_tensor_info *info)
{
    json_t *shape = json_array();
    for (int i = 0; i < info->dimensions; i++)
        json_array_append_new(shape, json_integer(info->shape[i]));
    return json_pack("{s:o, s:o, s:o, s:I, s:o}", "name", json_of_text(info->name), "dtype", json_of_text(info->dtype),
                     "shape", shape, "bytes", (json_int_t)info->bytes, "file", json_of_text(info->file));
}

static json_t *component_json(const zimage_inspection *in, size_t component)
{
    json_t *tensors = json_array();
    zimage_component_info info;
    get_component(in, component, &info);
    for (size_t i = 0; i < info.tensors; i++) {
        zimage_tensor_info tensor;
        get_tensor(in, component, i, &tensor);
        json_array_append_new(tensors, tensor_json(&tensor));
    }
    return json_pack("{s:o, s:o, s:I, s:I, s:o*, s:o}", "name", json_of_text(info.name), "class",
                     json_of_text(info.class_name), "parameters", (json_int_t)info.parameters, "bytes",
                     (json_int_t)info.bytes, "config", config_of(&info), "tensors", tensors);
}

static int print_json(const char *path, const zimage_inspection *in)
{
    json_t *components = json_array();
    for (size_t i = 0; i < zimage_inspection_components(in); i++)
        json_array_append_new(components, component_json(in, i));
    json_t *all = json_pack("{s:o, s:o, s:o}", "path", json_of_text(path), "class",
                            json_of_text(zimage_inspection_class(in)), "components", components);
    return cli_print_json(COMMAND, all, CLI_EXACT);
}

/* ---- text ---- */

#define SIZE_TEXT  32  /* bytes for "1023.9 GiB" */
#define SHAPE_TEXT 128 /* bytes for four numbers of 64 bits */

static void write_size(double bytes, char text[SIZE_TEXT])
{
    static const char *const units[] = {"B", "KiB", "MiB", "GiB", "TiB"};
    int unit = 0;
    for (; bytes >= 1024 && unit < 4; unit++)
        bytes /= 1024;
    snprintf(text, SIZE_TEXT, unit ? "%.1f %s" : "%.0f %s", bytes, units[unit]);
}

static void print_config(json_t *config)
{
    for (void *i = json_object_iter(config); i; i = json_object_iter_next(config, i)) {
        char *text = json_dumps(json_object_iter_value(i), JSON_ENCODE_ANY | JSON_COMPACT | JSON_REAL_PRECISION(9));
        cli_line(stdout, "    %-32s %s", json_object_iter_key(i), text ? text : "?");
        free(text);
    }
}

static void print_tensor(const zimage_tensor_info *info)
{
    char shape[SHAPE_TEXT] = "";
    for (int i = 0; i < info->dimensions; i++)
        cli_append(shape, sizeof shape, "%s%lld", i ? ", " : "", (long long)info->shape[i]);
    cli_line(stdout, "    %-56s %-12s [%s]", info->name, info->dtype, shape);
}

static void print_component(const zimage_inspection *in, size_t component)
{
    zimage_component_info info;
    char size[SIZE_TEXT];
    get_component(in, component, &info);
    write_size((double)info.bytes, size);
    printf("\n");
    cli_line(stdout, "%s  %s  %llu parameters in %zu tensors, %s", info.name, info.class_name,
             (unsigned long long)info.parameters, info.tensors, size);
    json_t *config = config_of(&info);
    print_config(config);
    json_decref(config);
    for (size_t i = 0; i < info.tensors; i++) {
        zimage_tensor_info tensor;
        get_tensor(in, component, i, &tensor);
        print_tensor(&tensor);
    }
}

static int print_readable(const char *path, const zimage_inspection *in)
{
    cli_line(stdout, "%s  %s", path, zimage_inspection_class(in));
    for (size_t i = 0; i < zimage_inspection_components(in); i++)
        print_component(in, i);
    return 0;
}

int cmd_inspect(const cli_options *o)
{
    zimage_error error = ZIMAGE_ERROR_INIT;
    zimage_inspection *in = NULL;
    if (zimage_inspect(o->model, &in, &error) != ZIMAGE_OK)
        return cli_failure(COMMAND, &error);
    int code = o->json ? print_json(o->model, in) : print_readable(o->model, in);
    zimage_inspection_free(in);
    return code;
}
