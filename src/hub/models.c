/* What is in the caches: finding a model, listing, verifying and removing models. */
#include <errno.h>
#include <fcntl.h>
#include <ftw.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/file.h"
#include "base/listing.h"
#include "hub/cache.h"
#include "hub/hub.h"

#define PREFIX       "models--"
#define OPEN_FOLDERS 32 /* while a folder is removed */

static const char *const sources[] = {[HUB_HUGGING_FACE] = "hf", [HUB_MODELSCOPE] = "modelscope"};

#define SOURCES 2

/* ---- one snapshot ---- */

/* Counts the bytes of a snapshot, following its links. */
static uint64_t total_bytes;

static int add_bytes(const char *path, const struct stat *st, int kind, struct FTW *at)
{
    if (kind == FTW_F)
        total_bytes += (uint64_t)st->st_size;
    return 0;
}

/* Whether each file that its note names is there, in its size. */
static int is_as_noted(const char *snapshot, const json_t *note)
{
    const json_t *files = json_object_get(note, "files");
    for (size_t i = 0; i < json_array_size(files); i++) {
        const json_t *file = json_array_get(files, i);
        const char *name = json_string_value(json_object_get(file, "path"));
        char path[PATH_MAX];
        struct stat st;
        if (!name || !hub_is_file(name) || snprintf(path, sizeof path, "%s/%s", snapshot, name) >= PATH_MAX ||
            stat(path, &st) != 0 || (json_int_t)st.st_size != json_integer_value(json_object_get(file, "size")))
            return 0;
    }
    return json_array_size(files) > 0;
}

static hub_state state_of(const hub_model *model)
{
    json_t *note = hub_cache_note(model->folder, model->commit);
    hub_state state = hub_cache_is_partial(model->folder) ? HUB_PARTIAL : HUB_FOREIGN;
    if (note)
        state = is_as_noted(model->path, note) ? HUB_WHOLE : HUB_PARTIAL;
    json_decref(note);
    return state;
}

static int fill(hub_model *model)
{
    if (snprintf(model->path, sizeof model->path, "%s/snapshots/%s", model->folder, model->commit) >= PATH_MAX ||
        !zi_folder_exists(model->path))
        return 0;
    total_bytes = 0;
    nftw(model->path, add_bytes, OPEN_FOLDERS, 0);
    model->bytes = total_bytes;
    model->state = state_of(model);
    return 1;
}

/* ---- finding ---- */

static int find_in(hub_protocol protocol, hub_model *model, int *is_partial)
{
    char folder[PATH_MAX];
    const char *revision = *model->revision ? model->revision : hub_default_revision(protocol);
    if (!hub_cache_folder(protocol, folder) || !hub_cache_model(folder, model->id, model->folder))
        return 0;
    *is_partial |= hub_cache_is_partial(model->folder);
    if (!hub_cache_commit(model->folder, revision, model->commit))
        return 0;
    snprintf(model->revision, sizeof model->revision, "%s", revision);
    model->source = sources[protocol];
    return fill(model);
}

hub_result hub_find(const char *text, hub_model *model, zimage_error *error)
{
    int is_partial = 0;
    *model = (hub_model){0};
    if (!hub_split_id(text, model->id, model->revision))
        return hub_fail(error, HUB_USAGE, "\"%s\", expected ORGANISATION/NAME or ORGANISATION/NAME@REVISION", text);
    for (int i = 0; i < SOURCES; i++)
        if (find_in((hub_protocol)i, model, &is_partial))
            return HUB_OK;
    return hub_fail(error, HUB_NOT_FOUND, "%s: the model is not %s; zimage pull %s%s%s %s it", text,
                    is_partial ? "complete in the cache" : "in the cache", model->id,
                    *model->revision ? " --revision " : "", model->revision, is_partial ? "completes" : "downloads");
}

/* ---- listing ---- */

typedef struct model_list {
    hub_model *models;
    size_t count;
} model_list;

/* "models--ORGANISATION--NAME" -> "ORGANISATION/NAME" */
static int id_of(const char *name, char id[HUB_ID_MAX])
{
    const char *organisation = name + strlen(PREFIX), *mark = strstr(organisation, "--");
    if (strncmp(name, PREFIX, strlen(PREFIX)) != 0 || !mark)
        return 0;
    snprintf(id, HUB_ID_MAX, "%.*s/%s", (int)(mark - organisation), organisation, mark + 2);
    return hub_is_id(id);
}

/* The first revision that means a commit; the commit itself without one. */
static void name_revision(hub_model *model)
{
    char path[PATH_MAX], commit[HUB_COMMIT_MAX];
    snprintf(model->revision, sizeof model->revision, "%s", model->commit);
    if (snprintf(path, sizeof path, "%s/refs", model->folder) >= PATH_MAX)
        return;
    zi_listing names = zi_listing_of(path);
    for (size_t i = 0; i < names.count; i++)
        if (hub_is_revision(names.names[i]) && !hub_is_commit(names.names[i]) &&
            hub_cache_commit(model->folder, names.names[i], commit) && !strcmp(commit, model->commit)) {
            snprintf(model->revision, sizeof model->revision, "%s", names.names[i]);
            break;
        }
    zi_listing_free(&names);
}

/* The caches of Python's tools hold models of all kinds: those of images have one of these. */
static int is_of_images(const hub_model *model)
{
    char path[PATH_MAX];
    return (snprintf(path, sizeof path, "%s/model_index.json", model->path) < PATH_MAX && zi_file_exists(path)) ||
           (snprintf(path, sizeof path, "%s/transformer", model->path) < PATH_MAX && zi_folder_exists(path));
}

static int add_snapshots(model_list *list, hub_model *model)
{
    char path[PATH_MAX];
    int ok = 1;
    if (snprintf(path, sizeof path, "%s/snapshots", model->folder) >= PATH_MAX)
        return 1;
    zi_listing names = zi_listing_of(path);
    for (size_t i = 0; i < names.count && ok; i++) {
        snprintf(model->commit, sizeof model->commit, "%.40s", names.names[i]);
        if (!hub_is_commit(names.names[i]) || !fill(model) || (!is_of_images(model) && model->state == HUB_FOREIGN))
            continue;
        name_revision(model);
        hub_model *longer = realloc(list->models, (list->count + 1) * sizeof *longer);
        ok = longer != NULL;
        if (ok) {
            list->models = longer;
            longer[list->count++] = *model;
        }
    }
    zi_listing_free(&names);
    return ok;
}

static int add_cache(model_list *list, hub_protocol protocol)
{
    char folder[PATH_MAX];
    int ok = 1;
    if (!hub_cache_folder(protocol, folder))
        return 1;
    zi_listing names = zi_listing_of(folder);
    for (size_t i = 0; i < names.count && ok; i++) {
        hub_model model = {.source = sources[protocol]};
        if (id_of(names.names[i], model.id) && hub_cache_model(folder, model.id, model.folder))
            ok = add_snapshots(list, &model);
    }
    zi_listing_free(&names);
    return ok;
}

hub_result hub_list(hub_model **models, size_t *count, zimage_error *error)
{
    model_list list = {0};
    for (int i = 0; i < SOURCES; i++)
        if (!add_cache(&list, (hub_protocol)i)) {
            free(list.models);
            return hub_fail(error, HUB_FAILED, "out of memory: no room for a list of %zu models", list.count);
        }
    *models = list.models;
    *count = list.count;
    return HUB_OK;
}

/* ---- removing ---- */

/* Whether another program has one of the model's locks. */
static int is_in_use(const char *locks)
{
    zi_listing names = zi_listing_of(locks);
    int used = 0;
    for (size_t i = 0; i < names.count && !used; i++) {
        char *path = zi_path_join(locks, names.names[i]);
        int file = path ? open(path, O_RDWR | O_NOFOLLOW | O_CLOEXEC) : -1;
        used = file >= 0 && flock(file, LOCK_EX | LOCK_NB) != 0 && errno == EWOULDBLOCK;
        if (file >= 0)
            close(file);
        free(path);
    }
    zi_listing_free(&names);
    return used;
}

static int remove_one(const char *path, const struct stat *st, int kind, struct FTW *at)
{
    return remove(path);
}

static int remove_folder(const char *path)
{
    return nftw(path, remove_one, OPEN_FOLDERS, FTW_DEPTH | FTW_PHYS) == 0 || errno == ENOENT;
}

hub_result hub_remove(const hub_model *model, zimage_error *error)
{
    char locks[PATH_MAX];
    const char *name = strrchr(model->folder, '/');
    if (!name ||
        snprintf(locks, sizeof locks, "%.*s/.locks%s", (int)(name - model->folder), model->folder, name) >= PATH_MAX)
        return hub_fail(error, HUB_FAILED, "%s: the path is too long", model->folder);
    if (is_in_use(locks))
        return hub_fail(error, HUB_FAILED, "%s: another program is downloading it", model->id);
    if (!remove_folder(model->folder) || !remove_folder(locks))
        return hub_fail_errno(error, HUB_DISK, "%s: it can't be removed", model->folder);
    return HUB_OK;
}
