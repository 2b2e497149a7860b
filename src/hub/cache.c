#include "hub/cache.h"

#include <errno.h>
#include <fcntl.h>
#include <jansson.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <unistd.h>

#include "base/file.h"
#include "base/json.h"
#include "base/listing.h"
#include "base/output.h"

#define FOLDER_MODE 0777
#define LOCK_MODE   0664 /* as Python's client makes them */
#define NAME_SIZE   (HUB_ETAG_MAX + 32)
#define ETAG_TEXT   100 /* bytes of a part that a link goes up, and of a blob's name */

/* ---- names ---- */

/* "ORGANISATION/NAME" -> "models--ORGANISATION--NAME" */
static void name_model(const char *id, char name[HUB_ID_MAX + 16])
{
    int organisation = (int)strcspn(id, "/");
    snprintf(name, HUB_ID_MAX + 16, "models--%.*s--%s", organisation, id, id + organisation + 1);
}

int hub_cache_model(const char *folder, const char *id, char model[PATH_MAX])
{
    char name[HUB_ID_MAX + 16];
    name_model(id, name);
    return snprintf(model, PATH_MAX, "%s/%s", folder, name) < PATH_MAX;
}

/* ---- opening ---- */

/* Opens a folder, which is made if it is missing. A link there is not followed: it could lead out of the cache. */
static int open_folder(int parent, const char *name, int follow)
{
    if (mkdirat(parent, name, FOLDER_MODE) != 0 && errno != EEXIST)
        return -1;
    return openat(parent, name, O_RDONLY | O_DIRECTORY | O_CLOEXEC | (follow ? 0 : O_NOFOLLOW));
}

/* Marks the folder as a cache, so that backup programs leave it out (bford.info/cachedir). */
static void write_tag(int folder)
{
    static const char tag[] = "Signature: 8a477f597d28d172789f06886806bc55\n"
                              "# This file marks a folder of downloaded models. See https://bford.info/cachedir/\n";
    int file = openat(folder, "CACHEDIR.TAG", O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0644);
    if (file < 0)
        return;
    if (write(file, tag, sizeof tag - 1) != (ssize_t)sizeof tag - 1)
        unlinkat(folder, "CACHEDIR.TAG", 0);
    close(file);
}

static int open_below(int root, const char *name, hub_cache *cache)
{
    int locks = open_folder(root, ".locks", 0);
    if (locks < 0)
        return 0;
    cache->locks = open_folder(locks, name, 0);
    close(locks);
    cache->model_folder = cache->locks < 0 ? -1 : open_folder(root, name, 1); /* a user may have moved a model */
    cache->blobs = cache->model_folder < 0 ? -1 : open_folder(cache->model_folder, "blobs", 0);
    return cache->blobs >= 0;
}

static hub_result name_parts(const char *folder, const char *id, const char *commit, hub_cache *cache,
                             zimage_error *error)
{
    *cache = (hub_cache){.model_folder = -1, .blobs = -1, .locks = -1};
    snprintf(cache->commit, sizeof cache->commit, "%s", commit);
    if (!hub_cache_model(folder, id, cache->model) ||
        snprintf(cache->snapshot, sizeof cache->snapshot, "%s/snapshots/%s", cache->model, commit) >= PATH_MAX)
        return hub_fail(error, HUB_DISK, "%s: the path of the cache is too long", folder);
    return HUB_OK;
}

hub_result hub_cache_open(const char *folder, const char *id, const char *commit, hub_cache *cache, zimage_error *error)
{
    char name[HUB_ID_MAX + 16];
    name_model(id, name);
    HUB_TRY(name_parts(folder, id, commit, cache, error));
    int root = zi_folder_create(folder) ? open(folder, O_RDONLY | O_DIRECTORY | O_CLOEXEC) : -1;
    if (root < 0)
        return hub_fail_errno(error, HUB_DISK, "%s: the cache's folder can't be made or opened", folder);
    int is_open = open_below(root, name, cache);
    if (is_open)
        write_tag(root);
    else
        hub_fail_errno(error, HUB_DISK, "%s: the folder can't be made or opened", cache->model);
    close(root);
    if (is_open)
        return HUB_OK;
    hub_cache_close(cache);
    return HUB_DISK;
}

hub_result hub_cache_look(const char *folder, const char *id, const char *commit, hub_cache *cache, zimage_error *error)
{
    HUB_TRY(name_parts(folder, id, commit, cache, error));
    cache->model_folder = open(cache->model, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (cache->model_folder >= 0)
        cache->blobs = openat(cache->model_folder, "blobs", O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
    return HUB_OK;
}

static void close_one(int *descriptor)
{
    if (*descriptor >= 0)
        close(*descriptor);
    *descriptor = -1;
}

void hub_cache_close(hub_cache *cache)
{
    close_one(&cache->blobs);
    close_one(&cache->model_folder);
    close_one(&cache->locks);
}

/* ---- blobs ---- */

/* Newer versions of Python's client keep the content elsewhere and put a link here, which is followed. */
int hub_cache_has(const hub_cache *cache, const hub_file *file)
{
    struct stat st;
    return fstatat(cache->blobs, file->etag, &st, 0) == 0 && S_ISREG(st.st_mode) && (uint64_t)st.st_size == file->size;
}

hub_result hub_cache_free_bytes(const hub_cache *cache, uint64_t *bytes, zimage_error *error)
{
    struct statvfs fs;
    char path[PATH_MAX];
    snprintf(path, sizeof path, "%s", cache->model);
    while (statvfs(path, &fs) != 0 && strrchr(path, '/') > path) /* the first folder above that exists */
        *strrchr(path, '/') = 0;
    if (statvfs(path, &fs) != 0)
        return hub_fail_errno(error, HUB_DISK, "%s: the free space is not known", cache->model);
    *bytes = (uint64_t)fs.f_bavail * fs.f_frsize;
    *bytes -= *bytes / 20;
    return HUB_OK;
}

/* Whether the descriptor is that of the file's present name: another program may have removed it since. */
static int is_named(int folder, const char *name, int descriptor)
{
    struct stat named, opened;
    return fstatat(folder, name, &named, AT_SYMLINK_NOFOLLOW) == 0 && fstat(descriptor, &opened) == 0 &&
           named.st_dev == opened.st_dev && named.st_ino == opened.st_ino;
}

hub_result hub_cache_lock(const hub_cache *cache, const char *etag, int *descriptor, zimage_error *error)
{
    char name[NAME_SIZE];
    snprintf(name, sizeof name, "%s.lock", etag);
    *descriptor = -1;
    int file = openat(cache->locks, name, O_RDWR | O_CREAT | O_NOFOLLOW | O_CLOEXEC, LOCK_MODE);
    if (file < 0)
        return hub_fail_errno(error, HUB_DISK, "%s: the lock %s can't be made", cache->model, name);
    if (flock(file, LOCK_EX | LOCK_NB) == 0 && is_named(cache->locks, name, file)) {
        *descriptor = file;
        return HUB_OK;
    }
    int code = errno;
    close(file);
    if (code == EWOULDBLOCK || code == EINTR || code == ENOENT || code == 0)
        return HUB_OK;
    errno = code;
    return hub_fail_errno(error, HUB_DISK, "%s: the lock %s can't be taken", cache->model, name);
}

/* ---- snapshots ---- */

/* The folder of a file, which is made part by part, none of them a link. Sets *name to the file's own name. */
static int open_folder_of(const hub_cache *cache, const char *path, const char **name)
{
    char part[HUB_FILE_MAX];
    int snapshots = open_folder(cache->model_folder, "snapshots", 0);
    int folder = snapshots < 0 ? -1 : open_folder(snapshots, cache->commit, 0);
    close_one(&snapshots);
    for (*name = path; folder >= 0 && strchr(*name, '/'); *name = strchr(*name, '/') + 1) {
        snprintf(part, sizeof part, "%.*s", (int)strcspn(*name, "/"), *name);
        int below = open_folder(folder, part, 0);
        close(folder);
        folder = below;
    }
    return folder;
}

/* "../../blobs/ETAG", with one "../" more for each folder. 0: too long. */
static int write_target(const char *path, const char *etag, char target[PATH_MAX])
{
    size_t length = (size_t)snprintf(target, PATH_MAX, "../../");
    for (const char *c = path; *c; c++)
        if (*c == '/' && length + ETAG_TEXT < PATH_MAX)
            length += (size_t)snprintf(target + length, PATH_MAX - length, "../");
    return snprintf(target + length, PATH_MAX - length, "blobs/%s", etag) < (int)(PATH_MAX - length);
}

static int is_link_to(int folder, const char *name, const char *target)
{
    char present[PATH_MAX];
    ssize_t length = readlinkat(folder, name, present, sizeof present - 1);
    if (length < 0)
        return 0;
    present[length] = 0;
    return !strcmp(present, target);
}

/* A link gets its name in one step, so that a file of the snapshot is never missing. */
static int make_link(int folder, const char *name, const char *target)
{
    char temporary[64];
    if (symlinkat(target, folder, name) == 0)
        return 1;
    if (errno != EEXIST) /* else it is a link to something else, or a file */
        return 0;
    snprintf(temporary, sizeof temporary, ".zimage-%ld.tmp", (long)getpid());
    unlinkat(folder, temporary, 0); /* of a process that was killed and had the same number */
    if (symlinkat(target, folder, temporary) != 0)
        return 0;
    if (renameat(folder, temporary, folder, name) == 0)
        return 1;
    int code = errno;
    unlinkat(folder, temporary, 0);
    errno = code;
    return 0;
}

hub_result hub_cache_link(const hub_cache *cache, const hub_file *file, zimage_error *error)
{
    char target[PATH_MAX];
    const char *name;
    int folder = open_folder_of(cache, file->path, &name);
    if (folder < 0)
        return hub_fail_errno(error, HUB_DISK, "%s/%s: its folder can't be made", cache->snapshot, file->path);
    errno = ENAMETOOLONG;
    int done = write_target(file->path, file->etag, target) &&
               (is_link_to(folder, name, target) || make_link(folder, name, target));
    if (!done)
        hub_fail_errno(error, HUB_DISK, "%s/%s: the link can't be made", cache->snapshot, file->path);
    close(folder);
    return done ? HUB_OK : HUB_DISK;
}

/* ---- the end ---- */

/* Makes the folders of "refs/a/b" below the model's folder. */
static int make_folders_of(int folder, const char *path)
{
    char part[HUB_REVISION_MAX + 16];
    for (const char *slash = strchr(path, '/'); slash; slash = strchr(slash + 1, '/')) {
        snprintf(part, sizeof part, "%.*s", (int)(slash - path), path);
        if (mkdirat(folder, part, FOLDER_MODE) != 0 && errno != EEXIST)
            return 0;
    }
    return 1;
}

static hub_result write_file(const hub_cache *cache, const char *path, const char *text, zimage_error *error)
{
    const zi_place place = {.path = path, .folder = cache->model};
    zi_output output;
    if (!make_folders_of(cache->model_folder, path))
        return hub_fail_errno(error, HUB_DISK, "%s/%s: its folder can't be made", cache->model, path);
    if (zi_output_open_at(&output, &place, error) != ZIMAGE_OK)
        return HUB_DISK;
    zi_output_write(&output, text, strlen(text));
    return zi_output_commit(&output, error) == ZIMAGE_OK ? HUB_OK : HUB_DISK;
}

static json_t *make_note(const hub_listing *listing, const char *source, const char *revision)
{
    json_t *files = json_array();
    for (size_t i = 0; i < listing->count; i++)
        json_array_append_new(files, json_pack("{s:s, s:I, s:s}", "path", listing->files[i].path, "size",
                                               (json_int_t)listing->files[i].size, "etag", listing->files[i].etag));
    return json_pack("{s:s, s:s, s:o}", "source", source, "revision", revision, "files", files);
}

hub_result hub_cache_finish(const hub_cache *cache, const hub_listing *listing, const char *source,
                            const char *revision, zimage_error *error)
{
    char path[HUB_REVISION_MAX + 16];
    json_t *note = make_note(listing, source, revision);
    char *text = note ? json_dumps(note, JSON_INDENT(1)) : NULL;
    json_decref(note);
    if (!text)
        return hub_fail(error, HUB_FAILED, "out of memory: no room for a note of %zu files", listing->count);
    snprintf(path, sizeof path, "zimage/%s.json", cache->commit);
    hub_result result = write_file(cache, path, text, error);
    free(text);
    if (result != HUB_OK || !strcmp(revision, cache->commit)) /* a commit needs no name */
        return result;
    snprintf(path, sizeof path, "refs/%s", revision);
    return write_file(cache, path, cache->commit, error);
}

/* ---- reading ---- */

int hub_cache_commit(const char *model, const char *revision, char commit[HUB_COMMIT_MAX])
{
    char path[PATH_MAX], *text = NULL;
    size_t length = 0;
    snprintf(commit, HUB_COMMIT_MAX, "%.*s", HUB_COMMIT_MAX - 1, revision);
    if (hub_is_commit(revision))
        return snprintf(path, sizeof path, "%s/snapshots/%s", model, revision) < PATH_MAX && zi_folder_exists(path);
    if (snprintf(path, sizeof path, "%s/refs/%s", model, revision) >= PATH_MAX ||
        zi_read_file(path, HUB_COMMIT_MAX + 1, &text, &length, NULL) != ZIMAGE_OK)
        return 0;
    text[strcspn(text, "\r\n")] = 0;
    snprintf(commit, HUB_COMMIT_MAX, "%s", text);
    free(text);
    return hub_is_commit(commit) && snprintf(path, sizeof path, "%s/snapshots/%s", model, commit) < PATH_MAX &&
           zi_folder_exists(path);
}

json_t *hub_cache_note(const char *model, const char *commit)
{
    char path[PATH_MAX];
    json_t *note = NULL;
    if (snprintf(path, sizeof path, "%s/zimage/%s.json", model, commit) >= PATH_MAX ||
        zi_json_load_within(path, &zi_index_limits, &note, NULL) != ZIMAGE_OK)
        return NULL;
    return note;
}

int hub_cache_is_partial(const char *model)
{
    char path[PATH_MAX];
    if (snprintf(path, sizeof path, "%s/blobs", model) >= PATH_MAX)
        return 0;
    zi_listing names = zi_listing_of(path);
    int found = zi_listing_find(&names, "", ".incomplete") != NULL;
    zi_listing_free(&names);
    return found;
}
