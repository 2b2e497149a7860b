/* Reading the files of a snapshot again: the names of their blobs are their hashes. */
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/listing.h"
#include "hub/hash.h"
#include "hub/hub.h"

#define DEPTH_MAX 8 /* of folders in a snapshot */

typedef struct verification {
    size_t above; /* bytes of a path before that in the snapshot */
    hub_verify_fn report;
    void *user;
    hub_verify_report file; /* under way */
    size_t *checked;
    zimage_error *error;
} verification;

static int on_bytes(uint64_t bytes, void *user)
{
    verification *v = user;
    v->file.bytes = bytes;
    return v->report ? v->report(&v->file, v->user) : 0;
}

static hub_result check_open(verification *v, int descriptor, const hub_file *file)
{
    char digest[HUB_ETAG_MAX];
    v->file = (hub_verify_report){.path = file->path, .total = file->size};
    HUB_TRY(hub_hash_file(descriptor, file, digest, on_bytes, v, v->error));
    v->file.is_done = 1;
    v->file.is_right = !strcmp(digest, file->etag);
    ++*v->checked;
    if (v->report)
        v->report(&v->file, v->user);
    return v->file.is_right
               ? HUB_OK
               : hub_fail(v->error, HUB_CHECKSUM, "%s: its hash is %s, expected %s", file->path, digest, file->etag);
}

/* The blob's name is that of the link's target. A file that is no link has no hash to compare with. */
static hub_result check_file(verification *v, const char *path)
{
    char target[PATH_MAX];
    struct stat st;
    ssize_t length = readlink(path, target, sizeof target - 1);
    if (length < 0)
        return HUB_OK;
    target[length] = 0;
    const char *name = strrchr(target, '/');
    hub_file file = {.path = (char *)(uintptr_t)path + v->above};
    if (!hub_is_etag(name ? name + 1 : target))
        return HUB_OK;
    snprintf(file.etag, sizeof file.etag, "%.64s", name ? name + 1 : target);
    int descriptor = open(path, O_RDONLY | O_CLOEXEC);
    if (descriptor < 0 || fstat(descriptor, &st) != 0) {
        if (descriptor >= 0)
            close(descriptor);
        return hub_fail_errno(v->error, HUB_CHECKSUM, "%s: its content is missing", file.path);
    }
    file.size = (uint64_t)st.st_size;
    hub_result result = check_open(v, descriptor, &file);
    close(descriptor);
    return result;
}

/* Goes on after a wrong file, so that each is reported; the first failure is returned. */
static hub_result check_folder(verification *v, const char *folder, int depth)
{
    hub_result first = HUB_OK;
    zimage_error *error = v->error, later = ZIMAGE_ERROR_INIT;
    zi_listing names = zi_listing_of(folder);
    for (size_t i = 0; i < names.count && first != HUB_CANCELLED; i++) {
        char path[PATH_MAX];
        struct stat st;
        if (snprintf(path, sizeof path, "%s/%s", folder, names.names[i]) >= PATH_MAX || lstat(path, &st) != 0)
            continue;
        v->error = first == HUB_OK ? error : &later;
        hub_result result = HUB_OK;
        if (S_ISDIR(st.st_mode) && depth < DEPTH_MAX)
            result = check_folder(v, path, depth + 1);
        else if (S_ISLNK(st.st_mode))
            result = check_file(v, path);
        first = first == HUB_OK || result == HUB_CANCELLED ? result : first;
    }
    v->error = error;
    zi_listing_free(&names);
    return first;
}

hub_result hub_verify(const hub_model *model, hub_verify_fn report, void *user, size_t *checked, zimage_error *error)
{
    zimage_error own = ZIMAGE_ERROR_INIT;
    verification v = {.report = report, .user = user, .checked = checked, .error = error ? error : &own};
    v.above = strlen(model->path) + 1;
    *checked = 0;
    HUB_TRY(check_folder(&v, model->path, 0));
    if (model->state == HUB_PARTIAL)
        return hub_fail(error, HUB_CHECKSUM, "%s: files of the download are missing; zimage pull %s completes it",
                        model->id, model->id);
    return HUB_OK;
}
