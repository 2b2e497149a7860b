/* Describing a model folder or a safetensors file, from headers only. */
#include <stdlib.h>
#include <string.h>

#define ZIMAGE_EXPERIMENTAL
#include "base/file.h"
#include "base/json.h"
#include "base/sized.h"
#include "base/stack.h"
#include "pipeline/folder.h"
#include "pipeline/model.h"

typedef struct component {
    char *name, *class_name, *config; /* config NULL: it has none */
    zi_store *store;
    uint64_t parameters;
    char (*dtypes)[24]; /* [tensors]: of matrices that are packed; else empty */
} component;

struct zimage_inspection {
    char *class_name;
    component *components;
    size_t count;
};

static zimage_status no_memory(zimage_error *error)
{
    return zi_fail_memory(error, "the description", sizeof(component));
}

static int has_packed(const zi_store *store)
{
    for (size_t i = 0; i < zi_store_count(store); i++)
        if (!strcmp(zi_store_dtype_of(store, i), "U32"))
            return 1;
    return 0;
}

/* Binding finds out which tensors are packed matrices. A component that does not fit its configuration is described as
 * it is stored: that is no error here. */
static void bind_for_shapes(const zi_family *family, zi_component_kind kind, const char *config, zi_store *store)
{
    const zi_component *c = &family->components[kind];
    zi_networks *networks = calloc(1, family->networks_size);
    zi_store_describe_only(store);
    if (networks && zi_file_exists(config) && c->configure(networks, config, NULL, NULL) == ZIMAGE_OK)
        (void)c->bind(networks, store, NULL, NULL);
    if (networks)
        c->unbind(networks);
    free(networks);
    zi_store_group_others(store);
}

static void free_component(const component *c)
{
    free(c->name);
    free(c->class_name);
    free(c->config);
    free(c->dtypes);
    zi_store_free(c->store);
}

/* Takes over the store and config in every case; copies name and class_name. */
static zimage_status add_component(zimage_inspection *in, const char *name, const char *class_name, char *config,
                                   zi_store *store, zimage_error *error)
{
    component *list = realloc(in->components, (in->count + 1) * sizeof *list);
    if (list)
        in->components = list;
    component c = {.name = strdup(name), .class_name = strdup(class_name), .config = config, .store = store};
    c.dtypes = calloc(zi_store_count(store) + 1, sizeof *c.dtypes);
    if (!list || !c.name || !c.class_name || !c.dtypes) {
        free_component(&c);
        return no_memory(error);
    }
    for (size_t i = 0; i < zi_store_count(store); i++) {
        const zi_weight *weight = zi_store_at(store, i);
        int64_t count = zi_weight_count(weight);
        int packed = weight->dtype == ZI_GROUPED;
        c.parameters += (uint64_t)(packed ? count - 2 * (count / weight->group) : count); /* less its scales */
        if (packed)
            snprintf(c.dtypes[i], sizeof c.dtypes[i], "U%d group %d", weight->bits, weight->group);
    }
    in->components[in->count++] = c;
    return ZIMAGE_OK;
}

/* _class_name, or the first of architectures; "" without. */
static const char *class_of(const json_t *config)
{
    const json_t *name = json_object_get(config, "_class_name");
    if (!name)
        name = json_array_get(json_object_get(config, "architectures"), 0);
    return json_is_string(name) ? json_string_value(name) : "";
}

static zimage_status describe_component(zimage_inspection *in, const zi_family *family, zi_component_kind kind,
                                        const char *folder, const char *config_path, zimage_error *error)
{
    json_t *config = NULL;
    zi_store *store = NULL;
    const zi_log silent = {NULL, NULL};
    if (zi_file_exists(config_path)) /* mflux saves none */
        ZI_TRY(zi_json_load(config_path, &config, error));
    zimage_status status = zi_store_open(folder, family->components[kind].base_name, &store, &silent, error);
    if (status == ZIMAGE_OK) {
        char *text = config ? json_dumps(config, JSON_COMPACT) : NULL;
        if (has_packed(store))
            bind_for_shapes(family, kind, config_path, store);
        status = add_component(in, family->components[kind].folder, class_of(config), text, store, error);
    }
    json_decref(config);
    return status;
}

static zimage_status describe_model(zimage_inspection *in, const char *path, zimage_error *error)
{
    static const zi_component_kind order[ZI_COMPONENTS] = {ZI_TRANSFORMER, ZI_TEXT_ENCODER, ZI_VAE};
    const zi_family *family = zi_family_of_pipeline(in->class_name);
    family = family ? family : zi_families[0];
    for (size_t i = 0; i < ZI_COMPONENTS; i++) {
        char *folder = zi_path_join(path, family->components[order[i]].folder);
        char *config = folder ? zi_path_join(folder, "config.json") : NULL;
        zimage_status status = config ? ZIMAGE_OK : no_memory(error);
        if (status == ZIMAGE_OK && zi_folder_exists(folder))
            status = describe_component(in, family, order[i], folder, config, error);
        free(config);
        free(folder);
        ZI_TRY(status);
    }
    return ZIMAGE_OK;
}

static zimage_status describe_file(zimage_inspection *in, const char *path, zimage_error *error)
{
    zi_store *store = NULL;
    ZI_TRY(zi_store_open_file(path, &store, error));
    return add_component(in, path, "", NULL, store, error);
}

static zimage_status read_class(zimage_inspection *in, const char *path, zimage_error *error)
{
    char *index_path = zi_path_join(path, "model_index.json");
    json_t *index = NULL;
    if (!index_path)
        return no_memory(error);
    zimage_status status = zi_json_load(index_path, &index, error);
    free(index_path);
    if (status == ZIMAGE_OK) {
        free(in->class_name);
        in->class_name = strdup(class_of(index));
        status = in->class_name ? ZIMAGE_OK : no_memory(error);
    }
    json_decref(index);
    return status;
}

static zimage_status describe(zimage_inspection *in, const char *path, zimage_error *error)
{
    in->class_name = strdup("");
    if (!in->class_name)
        return no_memory(error);
    if (zi_file_exists(path))
        return describe_file(in, path, error);
    ZI_TRY(zi_folder_check(path, error));
    if (!zi_is_conversion(path))
        ZI_TRY(read_class(in, path, error));
    return describe_model(in, path, error);
}

zimage_status zimage_inspect(const char *path, zimage_inspection **inspection, zimage_error *error)
{
    if (inspection)
        *inspection = NULL;
    if (!path || !inspection)
        return zi_fail(error, ZIMAGE_ERROR_ARGUMENT, "path and inspection: NULL, expected both");
    ZI_TRY(zi_stack_check(error));
    zimage_inspection *in = calloc(1, sizeof *in);
    if (!in)
        return no_memory(error);
    zimage_status status = describe(in, path, error);
    if (status == ZIMAGE_OK)
        *inspection = in;
    else
        zimage_inspection_free(in);
    return status;
}

const char *zimage_inspection_class(const zimage_inspection *inspection)
{
    return inspection ? inspection->class_name : "";
}

size_t zimage_inspection_components(const zimage_inspection *inspection)
{
    return inspection ? inspection->count : 0;
}

static zimage_status no_such(const char *field, size_t index, size_t count, zimage_error *error)
{
    return zi_fail(error, ZIMAGE_ERROR_ARGUMENT, "%s: %zu, expected less than %zu", field, index, count);
}

zimage_status zimage_inspection_get_component(const zimage_inspection *inspection, size_t index,
                                              zimage_component_info *info, zimage_error *error)
{
    if (!inspection)
        return zi_fail(error, ZIMAGE_ERROR_ARGUMENT, "inspection: NULL, expected an inspection");
    if (index >= inspection->count)
        return no_such("component", index, zimage_inspection_components(inspection), error);
    const component *c = &inspection->components[index];
    zimage_component_info own = {.parameters = c->parameters,
                                 .bytes = zi_store_bytes(c->store),
                                 .tensors = zi_store_count(c->store),
                                 .name = c->name,
                                 .class_name = c->class_name,
                                 .config_json = c->config};
    return ZI_GIVE(info, &own, zimage_component_info, config_json, error);
}

zimage_status zimage_inspection_get_tensor(const zimage_inspection *inspection, size_t index, size_t tensor,
                                           zimage_tensor_info *info, zimage_error *error)
{
    if (!inspection)
        return zi_fail(error, ZIMAGE_ERROR_ARGUMENT, "inspection: NULL, expected an inspection");
    if (index >= inspection->count)
        return no_such("component", index, zimage_inspection_components(inspection), error);
    const component *c = &inspection->components[index];
    if (tensor >= zi_store_count(c->store))
        return no_such("tensor", tensor, zi_store_count(c->store), error);
    const zi_weight *weight = zi_store_at(c->store, tensor);
    zimage_tensor_info own = {.dimensions = weight->dims,
                              .bytes = weight->bytes,
                              .name = weight->name,
                              .dtype = c->dtypes[tensor][0] ? c->dtypes[tensor] : zi_store_dtype_of(c->store, tensor),
                              .file = zi_store_file_of(c->store, tensor)};
    memcpy(own.shape, weight->shape, sizeof own.shape);
    return ZI_GIVE(info, &own, zimage_tensor_info, file, error);
}

void zimage_inspection_free(zimage_inspection *inspection)
{
    if (!inspection)
        return;
    for (size_t i = 0; i < inspection->count; i++)
        free_component(&inspection->components[i]);
    free(inspection->components);
    free(inspection->class_name);
    free(inspection);
}
