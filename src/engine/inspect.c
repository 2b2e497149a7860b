/* Describing a model folder or a safetensors file as JSON, from headers only. */
#include <stdlib.h>
#include <string.h>

#include "base/file.h"
#include "base/json.h"
#include "engine/context.h"

/*
 * Binding tells which tensors are packed matrices. A component that doesn't fit its configuration is described as it is
 * stored: that is no error here.
 */
static void bind_transformer(const char *config_path, zi_store *store)
{
    zi_dit_config config;
    zi_dit model = {0};
    if (zi_dit_config_load(config_path, &config, NULL) == ZIMAGE_OK)
        zi_dit_bind(&model, &config, store, NULL, NULL);
    zi_dit_free(&model);
}

static void bind_text_encoder(const char *config_path, zi_store *store)
{
    zi_qwen3_config config;
    zi_qwen3 model = {0};
    if (zi_qwen3_config_load(config_path, &config, NULL) == ZIMAGE_OK)
        zi_qwen3_bind(&model, &config, store, NULL, NULL);
    zi_qwen3_free(&model);
}

static void bind_vae(const char *config_path, zi_store *store)
{
    zi_vae_config config;
    zi_vae model = {0};
    if (zi_vae_config_load(config_path, &config, NULL) == ZIMAGE_OK)
        zi_vae_bind(&model, &config, store, NULL, NULL);
    zi_vae_free(&model);
}

/* A component that has weights: its folder name and the library's base name of the file. */
typedef struct part {
    const char *folder, *base;
    void (*bind)(const char *config_path, zi_store *store);
} part;

static const part components[] = {
    {"transformer", "diffusion_pytorch_model", bind_transformer},
    {"text_encoder", "model", bind_text_encoder},
    {"vae", "diffusion_pytorch_model", bind_vae},
};

static int has_packed(const zi_store *store)
{
    for (size_t i = 0; i < zi_store_count(store); i++)
        if (!strcmp(zi_store_dtype_of(store, i), "U32"))
            return 1;
    return 0;
}

static json_t *describe_tensor(const zi_store *store, size_t index)
{
    const zi_weight *weight = zi_store_at(store, index);
    char dtype[32];
    snprintf(dtype, sizeof dtype, "U%d group %d", weight->bits, weight->group);
    json_t *shape = json_array();
    for (int d = 0; d < weight->dims; d++)
        json_array_append_new(shape, json_integer(weight->shape[d]));
    return json_pack("{s:s, s:s, s:o, s:I, s:s}", "name", weight->name, "dtype",
                     weight->dtype == ZI_GROUPED ? dtype : zi_store_dtype_of(store, index), "shape", shape, "bytes",
                     (json_int_t)weight->bytes, "file", zi_store_file_of(store, index));
}

/* Steals config (may be NULL). NULL: out of memory. */
static json_t *describe_store(const zi_store *store, const char *name, json_t *config)
{
    int64_t parameters = 0;
    json_t *tensors = json_array();
    for (size_t i = 0; i < zi_store_count(store); i++) {
        const zi_weight *weight = zi_store_at(store, i);
        int64_t count = zi_weight_count(weight);
        parameters += weight->dtype == ZI_GROUPED ? count - 2 * (count / weight->group) : count; /* less its scales */
        json_array_append_new(tensors, describe_tensor(store, i));
    }
    int complete = tensors && json_array_size(tensors) == zi_store_count(store);
    json_t *class_name = config ? json_object_get(config, "_class_name") : NULL;
    if (config && !class_name)
        class_name = json_array_get(json_object_get(config, "architectures"), 0);
    const char *class_text = json_is_string(class_name) ? json_string_value(class_name) : "";
    json_t *component = json_pack("{s:s, s:s, s:I, s:I, s:o*, s:o}", "name", name, "class", class_text, "parameters",
                                  (json_int_t)parameters, "bytes", (json_int_t)zi_store_bytes(store), "config", config,
                                  "tensors", tensors);
    if (component && complete)
        return component;
    json_decref(component);
    return NULL;
}

static zimage_status append_store(json_t *list, const zi_store *store, const char *name, json_t *config,
                                  zimage_error *error)
{
    json_t *component = describe_store(store, name, config);
    if (component && json_array_append_new(list, component) == 0)
        return ZIMAGE_OK;
    return zi_fail_memory(error, "the description", 0);
}

static zimage_status describe_folder(json_t *list, const char *folder, const part *p, zimage_error *error)
{
    char *path = zi_path_join(folder, "config.json");
    if (!path)
        return zi_fail_memory(error, "a path", 0);
    json_t *config = NULL;
    zi_store *store = NULL;
    const zi_log silent = {NULL, NULL};
    zimage_status status = zi_file_exists(path) ? zi_json_load(path, &config, error) : ZIMAGE_OK; /* mflux has none */
    if (status == ZIMAGE_OK)
        status = zi_store_open(folder, p->base, &store, &silent, error);
    if (status == ZIMAGE_OK) {
        zi_store_describe_only(store);
        if (has_packed(store)) {
            p->bind(path, store);
            zi_store_group_others(store);
        }
        status = append_store(list, store, p->folder, config, error);
    } else
        json_decref(config);
    zi_store_free(store);
    free(path);
    return status;
}

static zimage_status describe_model(json_t *list, const char *path, zimage_error *error)
{
    for (size_t i = 0; i < sizeof components / sizeof *components; i++) {
        char *folder = zi_path_join(path, components[i].folder);
        if (!folder)
            return zi_fail_memory(error, "a path", 0);
        zimage_status status = ZIMAGE_OK;
        if (zi_folder_exists(folder))
            status = describe_folder(list, folder, &components[i], error);
        free(folder);
        ZI_TRY(status);
    }
    return ZIMAGE_OK;
}

static zimage_status describe_file(json_t *list, const char *path, zimage_error *error)
{
    zi_store *store = NULL;
    ZI_TRY(zi_store_open_file(path, &store, error));
    zimage_status status = append_store(list, store, path, NULL, error);
    zi_store_free(store);
    return status;
}

static zimage_status describe(json_t *root, const char *path, zimage_error *error)
{
    json_t *list = json_object_get(root, "components");
    if (zi_file_exists(path))
        return describe_file(list, path, error);
    if (zi_is_conversion(path))
        return describe_model(list, path, error);
    char *index_path = zi_path_join(path, "model_index.json");
    if (!index_path)
        return zi_fail_memory(error, "a path", 0);
    json_t *index = NULL;
    zimage_status status = zi_folder_exists(path)
                               ? zi_json_load(index_path, &index, error)
                               : zi_fail(error, ZIMAGE_ERROR_FILE, "%s: there is no such file or folder", path);
    free(index_path);
    json_t *class_name = json_object_get(index, "_class_name");
    if (class_name)
        json_object_set(root, "class", class_name);
    json_decref(index);
    return status == ZIMAGE_OK ? describe_model(list, path, error) : status;
}

zimage_status zimage_inspect(const char *path, char **json, zimage_error *error)
{
    if (!path || !json)
        return zi_fail(error, ZIMAGE_ERROR_ARGUMENT, "path and json: NULL, expected both");
    *json = NULL;
    json_t *root = json_pack("{s:s, s:s, s:[]}", "path", path, "class", "", "components");
    if (!root)
        return zi_fail_memory(error, "the description", 0);
    zimage_status status = describe(root, path, error);
    if (status == ZIMAGE_OK && !(*json = json_dumps(root, JSON_COMPACT)))
        status = zi_fail_memory(error, "the description", 0);
    json_decref(root);
    return status;
}
