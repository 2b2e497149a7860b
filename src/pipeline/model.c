/* Opening a model folder: diffusers' layout, or one converted for MLX. */
#include "pipeline/model.h"

#include <stdlib.h>
#include <string.h>

#include "base/file.h"
#include "base/json.h"

/* What opening a model passes on. */
typedef struct opening {
    const char *path; /* of the model folder */
    const zi_model_choice *choice;
    const zi_log *log;
    zi_model *model;
    zimage_error *error;
} opening;

int zi_is_conversion(const char *folder)
{
    char *index = zi_path_join(folder, "model_index.json"), *transformer = zi_path_join(folder, "transformer");
    int converted = index && transformer && !zi_file_exists(index) && zi_folder_exists(transformer);
    free(index);
    free(transformer);
    return converted;
}

/* ---- the family -------------------------------------------------------------------------------------------------- */

/* "A, B, C": the pipeline classes of all families. */
static void list_pipelines(char *text, size_t size)
{
    size_t length = 0;
    text[0] = 0;
    for (const zi_family *const *family = zi_families; *family; family++)
        for (const char *const *name = (*family)->pipeline_classes; *name && length < size; name++)
            length += (size_t)snprintf(text + length, size - length, "%s%s", length ? ", " : "", *name);
}

static zimage_status family_of_index(const char *path, const zi_family **family, zimage_error *error)
{
    json_t *index = NULL;
    const char *class_name;
    char known[256];
    ZI_TRY(zi_json_load(path, &index, error));
    const zi_json_reader reader = {index, path, error};
    zimage_status status = zi_json_string(&reader, "_class_name", NULL, &class_name);
    *family = status == ZIMAGE_OK ? zi_family_of_pipeline(class_name) : NULL;
    if (status == ZIMAGE_OK && !*family) {
        list_pipelines(known, sizeof known);
        status =
            zi_fail(error, ZIMAGE_ERROR_UNSUPPORTED,
                    "%s: _class_name is \"%s\", which this version can't run (it runs %s)", path, class_name, known);
    }
    json_decref(index);
    return status;
}

/* A conversion has no model_index.json: the class in transformer/config.json says what it is. A missing file is
 * reported when the component is opened, and an unknown class by the transformer's own reader, which says what it
 * supports. */
static zimage_status family_of_conversion(const char *path, const zi_family **family, zimage_error *error)
{
    json_t *config = NULL;
    *family = zi_families[0];
    if (!zi_file_exists(path))
        return ZIMAGE_OK;
    ZI_TRY(zi_json_load(path, &config, error));
    const char *class_name = json_string_value(json_object_get(config, "_class_name"));
    const zi_family *found = class_name ? zi_family_of_transformer(class_name) : NULL;
    *family = found ? found : zi_families[0];
    json_decref(config);
    return ZIMAGE_OK;
}

static zimage_status find_family(const char *folder, const zi_family **family, zimage_error *error)
{
    if (!zi_folder_exists(folder))
        return zi_fail(error, ZIMAGE_ERROR_FILE, "%s: there is no such model folder", folder);
    int conversion = zi_is_conversion(folder);
    char *path = zi_path_join(folder, conversion ? "transformer/config.json" : "model_index.json");
    if (!path)
        return zi_fail_memory(error, "a path", strlen(folder));
    zimage_status status =
        conversion ? family_of_conversion(path, family, error) : family_of_index(path, family, error);
    free(path);
    return status;
}

/* ---- components -------------------------------------------------------------------------------------------------- */

/* CHOSEN/FILE, or FOLDER/SUB/FILE where nothing was chosen; FILE may be NULL. free() it; NULL: out of memory. */
static char *path_of(const char *chosen, const char *folder, const char *sub, const char *file)
{
    char *inner = chosen ? strdup(chosen) : zi_path_join(folder, sub);
    if (!inner || !file)
        return inner;
    char *path = zi_path_join(inner, file);
    free(inner);
    return path;
}

static zimage_status configure(const opening *o, const zi_component *component, const char *config)
{
    if (zi_is_conversion(o->path) && !zi_file_exists(config))
        return zi_fail(o->error, ZIMAGE_ERROR_FILE,
                       "%s: there is no such file; expected the configuration of the model that was converted (mflux "
                       "saves none: copy the original model's)",
                       config);
    return component->configure(o->model->networks, config, NULL, o->error);
}

static zimage_status open_weights(const opening *o, zi_component_kind kind, const char *folder)
{
    zi_store *store = NULL;
    ZI_TRY(zi_store_open(folder, o->model->family->components[kind].base_name, &store, o->log, o->error));
    zi_store_dequantize(store, o->choice->dequantize);
    return zi_model_add(o->model, kind, store, o->log, o->error);
}

static zimage_status open_component(const opening *o, zi_component_kind kind)
{
    const zi_component *component = &o->model->family->components[kind];
    const char *chosen = o->choice->components[kind];
    char *folder = path_of(chosen, o->path, component->folder, NULL);
    char *config = path_of(chosen, o->path, component->folder, "config.json");
    zimage_status status = folder && config ? ZIMAGE_OK : zi_fail_memory(o->error, "a path", strlen(o->path));
    int absent = status == ZIMAGE_OK && component->optional && !chosen && !zi_folder_exists(folder);
    if (status == ZIMAGE_OK && !absent)
        status = configure(o, component, config);
    if (status == ZIMAGE_OK && !absent)
        status = open_weights(o, kind, folder);
    free(config);
    free(folder);
    return status;
}

static zimage_status open_tokenizer(const opening *o)
{
    if (!zi_model_has(o->model, ZI_TEXT_ENCODER))
        return ZIMAGE_OK;
    char *path = path_of(o->choice->tokenizer, o->path, "tokenizer", "tokenizer.json");
    if (!path)
        return zi_fail_memory(o->error, "a path", strlen(o->path));
    zimage_status status = zi_tokenizer_load(path, &o->model->tokenizer, o->error);
    free(path);
    return status;
}

static zimage_status open_scheduler(const opening *o)
{
    char *path = path_of(o->choice->scheduler, o->path, "scheduler", "scheduler_config.json");
    if (!path)
        return zi_fail_memory(o->error, "a path", strlen(o->path));
    zimage_status status = ZIMAGE_OK;
    o->model->scheduler = o->model->family->default_scheduler();
    if (zi_is_conversion(o->path) && !zi_file_exists(path))
        zi_warn(o->log, "%s: there is no such file: the default schedule of %s is used, a shift of %g", path,
                o->model->family->name, o->model->scheduler.shift);
    else
        status = zi_scheduler_load(path, &o->model->scheduler, o->error);
    free(path);
    return status;
}

static zimage_status open_parts(const opening *o)
{
    static const zi_component_kind order[ZI_COMPONENTS] = {ZI_TRANSFORMER, ZI_VAE, ZI_TEXT_ENCODER};
    int present[ZI_COMPONENTS];
    ZI_TRY(open_scheduler(o));
    for (int i = 0; i < ZI_COMPONENTS; i++)
        ZI_TRY(open_component(o, order[i]));
    ZI_TRY(open_tokenizer(o));
    for (int i = 0; i < ZI_COMPONENTS; i++)
        present[i] = zi_model_has(o->model, (zi_component_kind)i);
    int64_t vocabulary = o->model->tokenizer ? zi_tokenizer_vocab_size(o->model->tokenizer) : 0;
    ZI_TRY(o->model->family->check(o->model->networks, present, vocabulary, o->path, o->error));
    zi_model_finish(o->model);
    return ZIMAGE_OK;
}

/* ---- the model --------------------------------------------------------------------------------------------------- */

zimage_status zi_model_new(const zi_family *family, zi_model **model, zimage_error *error)
{
    zi_model *m = calloc(1, sizeof *m);
    *model = NULL;
    if (!m)
        return zi_fail_memory(error, "a model", sizeof *m);
    m->family = family;
    m->networks = calloc(1, family->networks_size);
    if (!m->networks) {
        free(m);
        return zi_fail_memory(error, "a model", family->networks_size);
    }
    *model = m;
    return ZIMAGE_OK;
}

zimage_status zi_model_add(zi_model *model, zi_component_kind kind, zi_store *store, const zi_log *log,
                           zimage_error *error)
{
    model->stores[kind] = store;
    return model->family->components[kind].bind(model->networks, store, log, error);
}

void zi_model_finish(zi_model *model)
{
    model->family->describe(model->networks, &model->scheduler, &model->facts);
}

zimage_status zi_model_open(const char *path, const zi_model_choice *choice, const zi_log *log, zi_model **model,
                            zimage_error *error)
{
    const zi_family *family = NULL;
    opening o = {path, choice, log, NULL, error};
    *model = NULL;
    ZI_TRY(find_family(path, &family, error));
    ZI_TRY(zi_model_new(family, &o.model, error));
    zimage_status status = open_parts(&o);
    if (status == ZIMAGE_OK)
        status = zi_model_check(o.model, log, error);
    if (status == ZIMAGE_OK)
        *model = o.model;
    else
        zi_model_close(o.model);
    return status;
}

zimage_status zi_model_check(const zi_model *model, const zi_log *log, zimage_error *error)
{
    for (int i = 0; i < ZI_COMPONENTS; i++)
        if (model->stores[i])
            ZI_TRY(zi_store_check(model->stores[i], log, error));
    return ZIMAGE_OK;
}

void zi_model_close(zi_model *model)
{
    if (!model)
        return;
    for (int i = 0; i < ZI_COMPONENTS; i++) {
        model->family->components[i].unbind(model->networks);
        zi_store_free(model->stores[i]);
    }
    zi_tokenizer_free(model->tokenizer);
    free(model->networks);
    free(model);
}
