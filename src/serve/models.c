#include "models.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#define NEWEST_WEIGHT 0.3 /* of a measurement among those before */

static int out_of_memory(zimage_error *error)
{
    snprintf(error->message, sizeof error->message, "there is no memory for the list of models");
    error->status = ZIMAGE_ERROR_MEMORY;
    return 0;
}

/* A folder's own name. */
static char *name_of(const char *folder)
{
    size_t length = strlen(folder);
    while (length > 1 && folder[length - 1] == '/')
        length--;
    size_t start = length;
    while (start > 0 && folder[start - 1] != '/')
        start--;
    return strndup(folder + start, length - start);
}

static int refuse(zimage_error *error, const char *option, const char *text, const char *expected)
{
    snprintf(error->message, sizeof error->message, "%s: \"%.200s\", expected %s", option, text, expected);
    error->status = ZIMAGE_ERROR_ARGUMENT;
    return 0;
}

/* "NAME" or "NAME=ID", which is changed. */
static int add_alias(model_table *table, char *text, zimage_error *error)
{
    char *id = strchr(text, '=');
    if (id)
        *id++ = 0;
    model_entry *entry = id && *id ? models_find(table, id) : NULL;
    if (id && !entry)
        return refuse(error, "alias", id, "the id of a model");
    if (!*text || models_find(table, text) || table->alias_count == SERVE_ALIASES_MAX)
        return refuse(error, "alias", text, "a name that no model has, of at most 64 names");
    model_alias *alias = &table->aliases[table->alias_count];
    *alias = (model_alias){strdup(text), entry};
    table->alias_count += alias->name != NULL;
    return alias->name ? 1 : out_of_memory(error);
}

static int take_names(model_table *table, const serve_params *params, zimage_error *error)
{
    const model_entry *standard = models_find(table, params->default_model);
    if (!standard)
        return refuse(error, "default_model", params->default_model, "the id of one of the models");
    table->standard = (int)(standard - table->entries);
    char *names = strdup(params->aliases ? params->aliases : ""), *rest = names;
    int ok = names || out_of_memory(error);
    for (char *name; ok && params->aliases && (name = strsep(&rest, ","));)
        ok = add_alias(table, name, error);
    free(names);
    return ok;
}

static int add_models(model_table *table, const serve_params *params, zimage_error *error)
{
    for (int i = 0; i < params->model_count; i++) {
        const serve_model *given = &params->models[i];
        model_entry *entry = &table->entries[i];
        struct stat status;
        *entry = (model_entry){.folder = given->folder,
                               .info = {.struct_size = sizeof entry->info},
                               .is_elsewhere = params->ledger != NULL};
        entry->id = given->id ? strdup(given->id) : name_of(given->folder);
        if (!entry->id)
            return out_of_memory(error);
        if (models_find(table, entry->id)) {
            snprintf(error->message, sizeof error->message,
                     "model: two models have the id \"%s\"; give one another: ID=DIR", entry->id);
            free(entry->id);
            return error->status = ZIMAGE_ERROR_ARGUMENT, 0;
        }
        entry->created = stat(given->folder, &status) == 0 ? (int64_t)status.st_mtime : 0;
        pthread_mutex_init(&entry->planning, NULL);
        table->count = i + 1;
    }
    return 1;
}

int models_init(model_table *table, const serve_params *params, zimage_error *error)
{
    pthread_mutex_init(&table->loading, NULL);
    return add_models(table, params, error) && take_names(table, params, error);
}

void models_free(model_table *table)
{
    for (int i = 0; i < table->count; i++) {
        pthread_mutex_destroy(&table->entries[i].planning);
        free(table->entries[i].id);
    }
    for (int i = 0; i < table->alias_count; i++)
        free(table->aliases[i].name);
    pthread_mutex_destroy(&table->loading);
}

model_entry *models_find(model_table *table, const char *id)
{
    if (!id || !*id)
        return &table->entries[table->standard];
    for (int i = 0; i < table->count; i++)
        if (!strcmp(table->entries[i].id, id))
            return &table->entries[i];
    for (int i = 0; i < table->alias_count; i++)
        if (!strcmp(table->aliases[i].name, id))
            return table->aliases[i].entry ? table->aliases[i].entry : &table->entries[table->standard];
    return NULL;
}

/* ---- predictions ---- */

static int size_class(const resolved_request *resolved)
{
    uint64_t pixels = (uint64_t)resolved->width * (uint64_t)resolved->height;
    int class = 0;
    while (pixels >>= 1)
        class ++;
    return class < SIZE_CLASSES ? class : SIZE_CLASSES - 1;
}

/* With `planning`. */
static double scaled(const model_entry *entry, const resolved_request *resolved, double planned)
{
    double ratio = entry->ratio[size_class(resolved)];
    return planned * (ratio > 0 ? ratio : entry->is_elsewhere ? 0 : 1);
}

static int plan(model_entry *entry, const zimage_request *request, prediction *out, fault *f)
{
    zimage_error error = ZIMAGE_ERROR_INIT;
    zimage_plan_info info = {.struct_size = sizeof info};
    zimage_plan *made = NULL;
    zimage_status status = zimage_plan_make(entry->planner, request, &made, &error);
    if (status == ZIMAGE_OK)
        status = zimage_plan_get_info(made, &info, &error);
    zimage_plan_free(made);
    out->planned = info.seconds;
    out->peak_bytes = info.peak_bytes;
    out->least_bytes = info.least_bytes;
    out->is_short = status == ZIMAGE_ERROR_MEMORY;
    return status == ZIMAGE_OK || fault_of_error(f, &error);
}

int models_predict(model_entry *entry, const serve_request *request, const resolved_request *resolved, prediction *out,
                   fault *f)
{
    zimage_request library;
    int ok = 1;
    *out = (prediction){0};
    resolve_fill(request, resolved, 0, &library);
    pthread_mutex_lock(&entry->planning);
    if (entry->planner) {
        ok = plan(entry, &library, out, f);
        out->seconds = scaled(entry, resolved, out->planned);
    }
    pthread_mutex_unlock(&entry->planning);
    return ok;
}

int64_t models_count_tokens(model_entry *entry, const char *prompt, int32_t *most)
{
    int32_t *ids = NULL;
    size_t count = 0;
    pthread_mutex_lock(&entry->planning);
    *most = entry->tokens_max;
    int ok = entry->tokenizer && zimage_tokenizer_encode(entry->tokenizer, entry->template, prompt, strlen(prompt),
                                                         &ids, &count, NULL) == ZIMAGE_OK;
    pthread_mutex_unlock(&entry->planning);
    zimage_free(ids);
    return ok ? (int64_t)count : -1;
}

int models_warn_of_words(model_entry *entry, const char *prompt, char text[VOCABULARY_WARNING])
{
    pthread_mutex_lock(&entry->planning);
    int found = vocabulary_warning(entry->words, "the model", prompt, text);
    pthread_mutex_unlock(&entry->planning);
    return found;
}

void models_measured(model_entry *entry, const resolved_request *resolved, double planned, double seconds,
                     job_table *jobs, pthread_mutex_t *lock)
{
    if (!(planned > 0 && seconds > 0))
        return;
    pthread_mutex_lock(&entry->planning);
    double *ratio = &entry->ratio[size_class(resolved)], ratios[SIZE_CLASSES];
    *ratio = *ratio > 0 ? (1 - NEWEST_WEIGHT) * *ratio + NEWEST_WEIGHT * seconds / planned : seconds / planned;
    memcpy(ratios, entry->ratio, sizeof ratios);
    pthread_mutex_unlock(&entry->planning);
    pthread_mutex_lock(lock);
    for (job *j = jobs->newest; j; j = j->older) {
        double known = j->model == entry && j->is_resolved ? ratios[size_class(&j->resolved)] : 0;
        if (known > 0 && !job_is_over(j))
            j->item.seconds = j->planned * known;
    }
    pthread_mutex_unlock(lock);
}

/* ---- opening ---- */

/* What a model's list says is only advice: one that can't be read is a line of the log. */
static vocabulary *read_words(const model_entry *entry, const zimage_session_params *params)
{
    vocabulary *words = NULL;
    zimage_error error = ZIMAGE_ERROR_INIT;
    if (vocabulary_read(entry->folder, &words, &error) != ZIMAGE_OK && params->log)
        params->log(ZIMAGE_LOG_WARNING, error.message, params->log_user);
    return words;
}

/* The planner measures the machine's speed with its first plan, before anybody waits for it. */
static zimage_status open_planner(model_entry *entry, const zimage_model_info *info,
                                  const zimage_session_params *params, zimage_error *error)
{
    zimage_plan *warm = NULL;
    zimage_session *planner = NULL;
    zimage_session_params silent = *params; /* what a plan warns of, the image's session says again */
    silent.log = NULL;
    const zimage_request request = {.struct_size = sizeof request, .prompt = "a"};
    zimage_status status = zimage_session_open(entry->model, &silent, &planner, error);
    if (status == ZIMAGE_OK) {
        zimage_plan_make(planner, &request, &warm, NULL);
        zimage_plan_free(warm);
    }
    zimage_tokenizer *tokenizer = NULL;
    zimage_tokenizer_open(entry->folder, &tokenizer, NULL); /* without it nobody counts tokens */
    vocabulary *words = read_words(entry, params);
    pthread_mutex_lock(&entry->planning);
    entry->words = words;
    entry->planner = planner;
    entry->tokenizer = tokenizer;
    entry->template = strcmp(info->family, "flux2-klein") ? ZIMAGE_TEMPLATE_Z_IMAGE : ZIMAGE_TEMPLATE_KLEIN;
    entry->tokens_max = info->max_prompt_tokens;
    pthread_mutex_unlock(&entry->planning);
    return status;
}

static void close_model(model_entry *entry)
{
    pthread_mutex_lock(&entry->planning);
    zimage_session_close(entry->planner);
    entry->planner = NULL;
    zimage_tokenizer_close(entry->tokenizer);
    entry->tokenizer = NULL;
    vocabulary_free(entry->words);
    entry->words = NULL;
    pthread_mutex_unlock(&entry->planning);
    zimage_model_close(entry->model);
    entry->model = NULL;
}

static zimage_status open_model(model_entry *entry, const zimage_session_params *params, pthread_mutex_t *lock,
                                zimage_error *error)
{
    const zimage_model_params model = {.struct_size = sizeof model, .log = params->log, .log_user = params->log_user};
    zimage_model_info info = {.struct_size = sizeof info};
    zimage_status status = zimage_model_open(entry->folder, &model, &entry->model, error);
    if (status == ZIMAGE_OK)
        status = zimage_model_get_info(entry->model, &info, error);
    if (status == ZIMAGE_OK)
        status = open_planner(entry, &info, params, error);
    if (status != ZIMAGE_OK) {
        close_model(entry);
        return status;
    }
    pthread_mutex_lock(lock);
    entry->info = info;
    entry->is_known = 1;
    pthread_mutex_unlock(lock);
    return status;
}

/* With the lock `loading`, which guards entry->model. */
zimage_status models_open(model_table *table, model_entry *entry, const zimage_session_params *params,
                          pthread_mutex_t *lock, zimage_session **session, zimage_error *error)
{
    *session = NULL;
    pthread_mutex_lock(&table->loading);
    zimage_status status = entry->model ? ZIMAGE_OK : open_model(entry, params, lock, error);
    if (status == ZIMAGE_OK)
        status = zimage_session_open(entry->model, params, session, error);
    pthread_mutex_lock(lock);
    entry->users += status == ZIMAGE_OK;
    int users = entry->users;
    pthread_mutex_unlock(lock);
    if (status != ZIMAGE_OK && entry->model && users == 0)
        close_model(entry);
    pthread_mutex_unlock(&table->loading);
    return status;
}

void models_close(model_table *table, model_entry *entry, pthread_mutex_t *lock, zimage_session *session)
{
    pthread_mutex_lock(&table->loading);
    zimage_session_close(session);
    pthread_mutex_lock(lock);
    int users = --entry->users;
    pthread_mutex_unlock(lock);
    if (users == 0)
        close_model(entry);
    pthread_mutex_unlock(&table->loading);
}
