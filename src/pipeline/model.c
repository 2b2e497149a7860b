/* Opening a model folder: diffusers' layout, or one converted for MLX. */
#include "pipeline/model.h"

#include <stdlib.h>
#include <string.h>

#include "base/fields.h"
#include "base/file.h"
#include "base/stand_in.h"
#include "pipeline/folder.h"

#define INDEX_FILE       "model_index.json"
#define SCHEDULER_FILE   "scheduler_config.json"
#define KNOWN_FIELDS_MAX 16 /* of model_index.json */

/* What opening a model passes on. */
typedef struct opening {
    const char *path; /* of the model folder */
    const zi_model_choice *choice;
    const zi_log *log;
    zi_model *model;
    zimage_error *error;
    int lacking[ZI_COMPONENTS]; /* 1: model_index.json says that the pipeline has none */
} opening;

/* ---- the family -------------------------------------------------------------------------------------------------- */

/* Appends "A, B, C". */
static void append_names(char *text, size_t size, const char *const *names)
{
    for (; *names; names++) {
        size_t length = strlen(text);
        snprintf(text + length, size - length, "%s%s", length ? ", " : "", *names);
    }
}

/* The class of the pipeline decides; the classes of its components are checked when the family is known. */
static zimage_status family_of_class(const zi_json_reader *index, const zi_family **family)
{
    const char *class_name;
    char known[256] = "";
    ZI_TRY(zi_json_string(index, "_class_name", NULL, &class_name));
    *family = zi_family_of_pipeline(class_name);
    if (*family)
        return ZIMAGE_OK;
    for (const zi_family *const *f = zi_families; *f; f++)
        append_names(known, sizeof known, (*f)->pipeline_classes);
    return zi_fail(index->error, ZIMAGE_ERROR_UNSUPPORTED,
                   "%s: _class_name is \"%s\", which this version can't run (it runs %s)", index->path, class_name,
                   known);
}

static int is_class(const json_t *entry, const zi_classes *classes)
{
    const char *library = json_string_value(json_array_get(entry, 0)),
               *name = json_string_value(json_array_get(entry, 1));
    if (json_array_size(entry) != 2 || !library || !name || strcmp(library, classes->library) != 0)
        return 0;
    for (const char *const *known = classes->names; *known; known++)
        if (strcmp(*known, name) == 0)
            return 1;
    return 0;
}

/*
 * The entry of a part: ["library", "class"]. Another class reads the same files in another way, or none at all. [null,
 * null] is a part that the pipeline lacks; *lacking NULL: the part is needed. An index may name fewer parts.
 */
static zimage_status check_part(const zi_json_reader *index, const char *part, const zi_classes *classes, int *lacking)
{
    char known[256] = "", text[64];
    const json_t *entry = json_object_get(index->object, part);
    if (!entry || is_class(entry, classes))
        return ZIMAGE_OK;
    if (!json_is_array(entry) || json_array_size(entry) != 2)
        return zi_fail(index->error, ZIMAGE_ERROR_MODEL, "%s: \"%s\": %s, expected an array of a library and a class",
                       index->path, part, zi_json_describe(entry, text, sizeof text));
    const json_t *library = json_array_get(entry, 0), *name = json_array_get(entry, 1);
    if (json_is_null(library) && json_is_null(name) && lacking) {
        *lacking = 1;
        return ZIMAGE_OK;
    }
    append_names(known, sizeof known, classes->names);
    char library_text[64];
    return zi_fail(index->error, ZIMAGE_ERROR_UNSUPPORTED,
                   "%s: %s is [%s, %s], which this version can't run (it runs \"%s\": %s)", index->path, part,
                   zi_json_describe(library, library_text, sizeof library_text),
                   zi_json_describe(name, text, sizeof text), classes->library, known);
}

/* Parts that the caller chose from elsewhere are not those of the index. */
static zimage_status check_parts(opening *o, const zi_json_reader *index, const zi_family *family)
{
    for (int i = 0; i < ZI_COMPONENTS; i++) {
        const zi_component *component = &family->components[i];
        if (!o->choice->components[i])
            ZI_TRY(
                check_part(index, component->folder, &component->classes, component->optional ? &o->lacking[i] : NULL));
    }
    if (!o->choice->scheduler)
        ZI_TRY(check_part(index, "scheduler", &family->scheduler, NULL));
    if (!o->choice->tokenizer && !o->lacking[ZI_TEXT_ENCODER])
        ZI_TRY(check_part(index, "tokenizer", &family->tokenizer, NULL));
    return ZIMAGE_OK;
}

static void warn_of_other_parts(const opening *o, json_t *index, const char *path, const zi_family *family)
{
    const char *known[KNOWN_FIELDS_MAX + 1] = {"scheduler", "tokenizer"};
    size_t count = 2;
    for (int i = 0; i < ZI_COMPONENTS; i++)
        known[count++] = family->components[i].folder;
    for (const char *const *field = family->index_fields; field && *field && count < KNOWN_FIELDS_MAX; field++)
        known[count++] = *field;
    zi_warn_of_unknown_fields(index, path, known, o->log);
}

static zimage_status family_of_index(opening *o, const char *path, const zi_family **family)
{
    json_t *index = NULL;
    ZI_TRY(zi_json_load(path, &index, o->error));
    const zi_json_reader reader = {index, path, o->error};
    zimage_status status = family_of_class(&reader, family);
    if (status == ZIMAGE_OK)
        status = check_parts(o, &reader, *family);
    if (status == ZIMAGE_OK)
        warn_of_other_parts(o, index, path, *family);
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

static zimage_status find_family(opening *o, const zi_family **family)
{
    ZI_TRY(zi_folder_check(o->path, o->error));
    int conversion = zi_is_conversion(o->path);
    char *path = zi_path_join(o->path, conversion ? "transformer/config.json" : INDEX_FILE);
    if (!path)
        return zi_fail_memory(o->error, "a path", strlen(o->path));
    zimage_status status = conversion ? family_of_conversion(path, family, o->error) : family_of_index(o, path, family);
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

/* A folder that was chosen for one part, and lacks its file: a file, a link that leads nowhere, or a whole model. */
static zimage_status refuse_other_folder(const opening *o, const char *part, const char *file, const char *folder)
{
    char *inner = zi_path_join(folder, part), *path = inner ? zi_path_join(inner, file) : NULL;
    zimage_status status = path ? zi_refuse_dangling_link(folder, o->error) : zi_fail_memory(o->error, "a path", 0);
    if (status == ZIMAGE_OK && zi_file_exists(folder))
        status = zi_fail(o->error, ZIMAGE_ERROR_FILE, "%s: this is a file, expected a folder like %s/ of a model",
                         folder, part);
    else if (status == ZIMAGE_OK && zi_file_exists(path))
        status =
            zi_fail(o->error, ZIMAGE_ERROR_FILE, "%s: this is a whole model, expected its folder %s", folder, inner);
    free(path);
    free(inner);
    return status;
}

/* transformers loads an adapter (LoRA) that lies beside a model's files, if the package peft is installed. */
static zimage_status refuse_adapter(const opening *o, const zi_component *component, const char *folder)
{
    char *adapter = zi_path_join(folder, "adapter_config.json");
    int found = adapter && strcmp(component->classes.library, "transformers") == 0 && zi_file_exists(adapter);
    zimage_status status = ZIMAGE_OK;
    if (!adapter)
        status = zi_fail_memory(o->error, "a path", strlen(folder));
    else if (found)
        status = zi_fail(o->error, ZIMAGE_ERROR_UNSUPPORTED, "%s: adapters are not supported: merge it into the model",
                         adapter);
    free(adapter);
    return status;
}

/* The reference ignores unknown fields of its own classes, with a warning. */
static void warn_of_unknown(const opening *o, const char *path, const char *const *fields)
{
    json_t *config = NULL;
    if (fields && zi_json_load(path, &config, NULL) == ZIMAGE_OK)
        zi_warn_of_unknown_fields(config, path, fields, o->log);
    json_decref(config);
}

/* The configuration, in one order and without what the programs that saved it say of themselves and of their folders. A
 * conversion may have none. */
static zimage_status add_configuration(const opening *o, const char *path)
{
    static const char *const others[] = {"_diffusers_version", "_name_or_path", "transformers_version"};
    json_t *config = NULL;
    if (!zi_file_exists(path))
        return ZIMAGE_OK;
    ZI_TRY(zi_json_load(path, &config, o->error));
    for (size_t i = 0; i < sizeof others / sizeof *others; i++)
        json_object_del(config, others[i]);
    char *text = json_dumps(config, JSON_COMPACT | JSON_SORT_KEYS);
    json_decref(config);
    if (!text)
        return zi_fail_memory(o->error, "a configuration", 0);
    zi_fingerprint_add_text(&o->model->fingerprint, text);
    free(text);
    return ZIMAGE_OK;
}

static zimage_status configure(const opening *o, const zi_component *component, const char *folder, const char *config)
{
    if (!zi_file_exists(config))
        ZI_TRY(refuse_other_folder(o, component->folder, "config.json", folder));
    ZI_TRY(zi_refuse_stand_in(config, o->error));
    ZI_TRY(refuse_adapter(o, component, folder));
    if (zi_is_conversion(o->path) && !zi_file_exists(config))
        return zi_fail(
            o->error, ZIMAGE_ERROR_FILE,
            "%s: there is no such file. %s has no model_index.json, so that it is read as a conversion for MLX: "
            "expected the configuration of the model that was converted (mflux saves none: copy the original "
            "model's)",
            config, o->path);
    ZI_TRY(component->configure(o->model->networks, config, NULL, o->error));
    warn_of_unknown(o, config, component->fields);
    zi_fingerprint_add_text(&o->model->fingerprint, component->folder);
    return add_configuration(o, config);
}

static zimage_status open_weights(const opening *o, zi_component_kind kind, const char *folder)
{
    zi_store *store = NULL;
    ZI_TRY(zi_store_open(folder, o->model->family->components[kind].base_name, &store, o->log, o->error));
    zi_store_fingerprint(store, &o->model->fingerprint);
    zi_store_dequantize(store, o->choice->dequantize);
    zimage_status status = zi_store_share(store, o->error);
    if (status != ZIMAGE_OK) {
        zi_store_free(store);
        return status;
    }
    return zi_model_add(o->model, kind, store, o->log, o->error);
}

static zimage_status open_component(const opening *o, zi_component_kind kind)
{
    const zi_component *component = &o->model->family->components[kind];
    const char *chosen = o->choice->components[kind];
    char *folder = path_of(chosen, o->path, component->folder, NULL);
    char *config = path_of(chosen, o->path, component->folder, "config.json");
    zimage_status status = folder && config ? ZIMAGE_OK : zi_fail_memory(o->error, "a path", strlen(o->path));
    int absent =
        status == ZIMAGE_OK && component->optional && !chosen && (o->lacking[kind] || !zi_folder_exists(folder));
    if (status == ZIMAGE_OK && !absent)
        status = configure(o, component, folder, config);
    if (status == ZIMAGE_OK && !absent)
        status = open_weights(o, kind, folder);
    free(config);
    free(folder);
    return status;
}

static zimage_status read_tokenizer(const opening *o, const char *folder)
{
    zimage_error inner = ZIMAGE_ERROR_INIT;
    const zi_family *family = o->model->family;
    if (!family->read_tokenizer)
        return ZIMAGE_OK;
    zimage_status status = family->read_tokenizer(o->model->networks, o->model->tokenizer, &inner);
    return status == ZIMAGE_OK ? status : zi_fail(o->error, status, "%s: %s", folder, inner.message);
}

/* The tokenizer's folder, with the file that a stand-in may have replaced. */
static zimage_status load_tokenizer(const opening *o, const char *folder, const char *path)
{
    int found = 0;
    ZI_TRY(zi_refuse_stand_in(path, o->error));
    ZI_TRY(zi_find_tokenizer(folder, &found, o->error));
    if (o->choice->tokenizer && !found)
        ZI_TRY(refuse_other_folder(o, "tokenizer", "tokenizer_config.json", folder));
    /* The class that model_index.json names has the last word on the pattern, so only the common one is taken. */
    ZI_TRY(zi_tokenizer_load_folder(folder, 0, &o->model->tokenizer, o->error));
    ZI_TRY(zi_tokenizer_check_template(o->model->tokenizer, o->model->family->chat_template, o->error));
    return read_tokenizer(o, folder);
}

static zimage_status open_tokenizer(const opening *o)
{
    if (!zi_model_has(o->model, ZI_TEXT_ENCODER))
        return ZIMAGE_OK;
    char *folder = path_of(o->choice->tokenizer, o->path, "tokenizer", NULL);
    char *path = folder ? zi_path_join(folder, "tokenizer.json") : NULL;
    zimage_status status = path ? load_tokenizer(o, folder, path) : zi_fail_memory(o->error, "a path", strlen(o->path));
    free(path);
    free(folder);
    return status;
}

static zimage_status load_scheduler(const opening *o, const char *path)
{
    if (o->choice->scheduler && !zi_file_exists(path))
        ZI_TRY(refuse_other_folder(o, "scheduler", SCHEDULER_FILE, o->choice->scheduler));
    ZI_TRY(zi_refuse_stand_in(path, o->error));
    zi_scheduler_config *scheduler = &o->model->scheduler;
    *scheduler = o->model->family->default_scheduler();
    if (zi_is_conversion(o->path) && !zi_file_exists(path)) {
        char shift[32] = "a dynamic shift";
        if (!scheduler->use_dynamic_shifting)
            snprintf(shift, sizeof shift, "a shift of %g", scheduler->shift);
        zi_warn(o->log, "%s: there is no such file: the default schedule of %s is used, %s", path,
                o->model->family->name, shift);
        return ZIMAGE_OK;
    }
    ZI_TRY(zi_scheduler_load(path, &o->model->scheduler, o->error));
    warn_of_unknown(o, path, o->model->family->scheduler_fields);
    return ZIMAGE_OK;
}

static zimage_status open_scheduler(const opening *o)
{
    char *path = path_of(o->choice->scheduler, o->path, "scheduler", SCHEDULER_FILE);
    if (!path)
        return zi_fail_memory(o->error, "a path", strlen(o->path));
    zimage_status status = load_scheduler(o, path);
    if (status == ZIMAGE_OK)
        status = add_configuration(o, path);
    free(path);
    return status;
}

static zimage_status read_index(const opening *o)
{
    const zi_family *family = o->model->family;
    json_t *index = NULL;
    if (!family->read_index)
        return ZIMAGE_OK;
    char *path = zi_path_join(o->path, INDEX_FILE);
    if (!path)
        return zi_fail_memory(o->error, "a path", strlen(o->path));
    zimage_status status = zi_is_conversion(o->path) ? ZIMAGE_OK : zi_json_load(path, &index, o->error);
    if (status == ZIMAGE_OK)
        status = family->read_index(o->model->networks, &(zi_json_reader){index, path, o->error}, o->log);
    json_decref(index);
    free(path);
    return status;
}

static zimage_status open_parts(const opening *o)
{
    static const zi_component_kind order[ZI_COMPONENTS] = {ZI_TRANSFORMER, ZI_VAE, ZI_TEXT_ENCODER};
    int present[ZI_COMPONENTS];
    zi_fingerprint_begin(&o->model->fingerprint);
    zi_fingerprint_add_text(&o->model->fingerprint, o->model->family->name);
    ZI_TRY(read_index(o));
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
    opening o = {path, choice, log, NULL, error, {0}};
    *model = NULL;
    ZI_TRY(find_family(&o, &family));
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

size_t zi_model_owned_bytes(const zi_model *model)
{
    size_t bytes = 0;
    for (int i = 0; i < ZI_COMPONENTS; i++)
        bytes += model->stores[i] ? zi_store_owned_bytes(model->stores[i]) : 0;
    return bytes;
}

void zi_model_count_session(const zi_model *model, int change)
{
    for (int i = 0; i < ZI_COMPONENTS; i++)
        if (model->stores[i])
            zi_store_count_session(model->stores[i], change);
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
