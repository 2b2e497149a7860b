#include "pipeline/folder.h"

#include <errno.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/file.h"
#include "base/json.h"
#include "base/listing.h"
#include "base/stand_in.h"

#define INDEX          "model_index.json"
#define EXPECTED       "expected a folder with " INDEX ", as diffusers saves a model"
#define PATH_BYTES     2048 /* of a parent's path in messages; a longer one is cut */
#define REVISION_BYTES 256  /* of refs/main: 40 hexadecimal digits */

/* ---- paths ------------------------------------------------------------------------------------------------------- */

/* Whether FOLDER/NAME is a file (or, is_folder, a folder). It allocates nothing, so that the answer is never wrong. */
static int holds(const char *folder, const char *name, int is_folder)
{
    char path[PATH_MAX];
    int length = snprintf(path, sizeof path, "%s/%s", folder, name);
    if (length < 0 || (size_t)length >= sizeof path)
        return 0;
    return is_folder ? zi_folder_exists(path) : zi_file_exists(path);
}

int zi_is_conversion(const char *folder)
{
    return !holds(folder, INDEX, 0) && holds(folder, "transformer", 1);
}

static int is_model(const char *folder)
{
    return holds(folder, INDEX, 0);
}

/* The folder above, as a person would name it. */
static void name_parent(const char *path, char *parent, size_t size)
{
    size_t length = strlen(path);
    while (length > 1 && path[length - 1] == '/')
        length--;
    while (length > 0 && path[length - 1] != '/')
        length--;
    if (length == 0)
        snprintf(parent, size, ".");
    else
        snprintf(parent, size, "%.*s", (int)(length > 1 ? length - 1 : 1), path);
}

/* ---- a path that is no folder ------------------------------------------------------------------------------------ */

static const struct {
    const char *ending, *meaning;
} files[] = {
    {".safetensors",
     "this is one file of weights; a transformer, a VAE or a text encoder in a folder of its own can replace "
     "that of a model"},
    {".gguf", "GGUF files are not read; only safetensors files in a model's folder are"},
    {".ckpt", "pickled weights are not read, since they can hold programs"},
    {".bin", "pickled weights are not read, since they can hold programs"},
    {".pt", "pickled weights are not read, since they can hold programs"},
    {".pth", "pickled weights are not read, since they can hold programs"},
    {".onnx", "ONNX models are not read"},
    {".zip", "this is an archive: unpack it"},
    {".tar", "this is an archive: unpack it"},
    {".gz", "this is an archive: unpack it"},
    {".7z", "this is an archive: unpack it"},
    {".json", "this is a file: name the folder that holds it"},
};

static const char *meaning_of_file(const char *name)
{
    size_t length = strlen(name);
    for (size_t i = 0; i < sizeof files / sizeof *files; i++) {
        size_t last = strlen(files[i].ending);
        if (length > last && strcmp(name + length - last, files[i].ending) == 0)
            return files[i].meaning;
    }
    return NULL;
}

/* "ORGANISATION/NAME", where no such folder exists. */
static int is_hub_name(const char *path)
{
    const char *slash = strchr(path, '/');
    char parent[PATH_BYTES];
    if (path[0] == '.' || !slash || slash == path || !slash[1] || strchr(slash + 1, '/'))
        return 0;
    name_parent(path, parent, sizeof parent);
    return !zi_folder_exists(parent);
}

static zimage_status fail_without_folder(const char *path, zimage_error *error)
{
    if (zi_file_exists(path)) {
        ZI_TRY(zi_refuse_stand_in(path, error));
        const char *meaning = meaning_of_file(path);
        return zi_fail(error, ZIMAGE_ERROR_FILE, "%s: %s; " EXPECTED, path, meaning ? meaning : "this is a file");
    }
    return zi_fail(error, ZIMAGE_ERROR_FILE, "%s: there is no such model folder%s", path,
                   is_hub_name(path)
                       ? "; if this is a name on a hub, download the model and name its folder: nothing is "
                         "downloaded here"
                       : "");
}

/* ---- a folder that is no model folder ---------------------------------------------------------------------------- */

/* The first folder inside with a model_index.json; free() it. NULL: there is none. */
static char *model_inside(const char *path)
{
    char *found = NULL;
    zi_listing names = zi_listing_of(path);
    for (size_t i = 0; i < names.count && !found; i++) {
        found = zi_path_join(path, names.names[i]);
        if (found && !is_model(found)) {
            free(found);
            found = NULL;
        }
    }
    zi_listing_free(&names);
    return found;
}

/*
 * The snapshot of a model's folder in a download cache, models--A--B/snapshots/REVISION, that the branch "main" means,
 * or the first; free() it. NULL: there is none.
 */
static char *snapshot_of(const char *path)
{
    char *main = zi_path_join(path, "refs/main"), *snapshots = zi_path_join(path, "snapshots");
    char *revision = NULL, *found = NULL;
    size_t length = 0;
    if (main && snapshots && zi_read_file(main, REVISION_BYTES, &revision, &length, NULL) == ZIMAGE_OK) {
        revision[strcspn(revision, "/\r\n")] = 0;
        found = zi_path_join(snapshots, revision);
    }
    if (snapshots && (!found || !is_model(found))) {
        free(found);
        found = model_inside(snapshots);
    }
    free(revision);
    free(snapshots);
    free(main);
    return found;
}

static zimage_status fail_cache(const char *path, zimage_error *error)
{
    char *found = snapshot_of(path);
    if (found)
        zi_fail(error, ZIMAGE_ERROR_FILE, "%s: this is a model's folder in a download cache; the model is %s", path,
                found);
    else
        zi_fail(error, ZIMAGE_ERROR_FILE,
                "%s: this is a model's folder in a download cache, and no folder in its snapshots/ has " INDEX
                ": the download is not complete",
                path);
    free(found);
    return ZIMAGE_ERROR_FILE;
}

static zimage_status fail_caches(const char *path, const zi_listing *names, zimage_error *error)
{
    char *found = NULL;
    for (size_t i = 0; i < names->count && !found; i++) {
        char *folder = strncmp(names->names[i], "models--", 8) == 0 ? zi_path_join(path, names->names[i]) : NULL;
        found = folder ? snapshot_of(folder) : NULL;
        free(folder);
    }
    if (found)
        zi_fail(error, ZIMAGE_ERROR_FILE, "%s: this is a download cache; name the folder of one model, for example %s",
                path, found);
    else
        zi_fail(error, ZIMAGE_ERROR_FILE, "%s: this is a download cache without a complete model", path);
    free(found);
    return ZIMAGE_ERROR_FILE;
}

/* A part of a model: it has config.json, or weights. */
static zimage_status fail_part(const char *path, zimage_error *error)
{
    char parent[PATH_BYTES], above[PATH_BYTES + 64] = "", class_name[128] = "";
    char *config_path = zi_path_join(path, "config.json");
    json_t *config = NULL;
    if (config_path && zi_json_load(config_path, &config, NULL) == ZIMAGE_OK) {
        const char *name = json_string_value(json_object_get(config, "_class_name"));
        name = name ? name : json_string_value(json_array_get(json_object_get(config, "architectures"), 0));
        snprintf(class_name, sizeof class_name, "%s%.100s", name ? ", " : "", name ? name : "");
        json_decref(config);
    }
    free(config_path);
    name_parent(path, parent, sizeof parent);
    if (is_model(parent))
        snprintf(above, sizeof above, "; the model is the folder above, %s", parent);
    return zi_fail(error, ZIMAGE_ERROR_FILE, "%s: this is one part of a model%s%s; " EXPECTED, path, class_name, above);
}

static zimage_status fail_folder(const char *path, const zi_listing *names, zimage_error *error)
{
    if (names->count == 0)
        return zi_fail(error, ZIMAGE_ERROR_FILE, "%s: the folder is empty; " EXPECTED, path);
    if (holds(path, "snapshots", 1))
        return fail_cache(path, error);
    if (zi_listing_find(names, "models--", ""))
        return fail_caches(path, names, error);
    char *inside = model_inside(path);
    if (inside) {
        zi_fail(error, ZIMAGE_ERROR_FILE, "%s: there is no " INDEX " here; the model is the folder %s", path, inside);
        free(inside);
        return ZIMAGE_ERROR_FILE;
    }
    if (holds(path, "config.json", 0) || zi_listing_find(names, "diffusion_pytorch_model", ""))
        return fail_part(path, error);
    for (size_t i = 0; i < names->count; i++) {
        const char *meaning = meaning_of_file(names->names[i]);
        if (meaning)
            return zi_fail(error, ZIMAGE_ERROR_FILE, "%s: there is no " INDEX "; there is %s, but %s; " EXPECTED, path,
                           names->names[i], meaning);
    }
    return zi_fail(error, ZIMAGE_ERROR_FILE, "%s: there is no " INDEX "; " EXPECTED, path);
}

zimage_status zi_folder_check(const char *path, zimage_error *error)
{
    ZI_TRY(zi_refuse_dangling_link(path, error));
    if (!zi_folder_exists(path))
        return fail_without_folder(path, error);
    char *index = zi_path_join(path, INDEX);
    if (!index)
        return zi_fail_memory(error, "a path", strlen(path));
    zimage_status status = zi_refuse_stand_in(index, error);
    free(index);
    if (status != ZIMAGE_OK || is_model(path) || zi_is_conversion(path))
        return status;
    if (access(path, R_OK | X_OK) != 0)
        return zi_fail_errno(error, ZIMAGE_ERROR_FILE, errno, "%s", path);
    zi_listing names = zi_listing_of(path);
    status = fail_folder(path, &names, error);
    zi_listing_free(&names);
    return status;
}
