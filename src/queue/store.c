#include "queue/store.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/error.h"
#include "base/file.h"
#include "base/output.h"
#include "queue/bucket.h"
#include "queue/pause.h"

#define FOLDER_MODE 0777 /* less the umask */

struct ledger_store {
    char *place;
    ledger_bucket *bucket; /* NULL: the place is a folder */
    /* Which of the 65,536 folders of keys are known to be on the disk, with those above them: of results, of inputs. */
    uint8_t synced[2][65536 / 8];
};

/* ---- folders ---- */

/* What was linked or made in a folder is there after a loss of power only if the folder is synced, too. Some file
 * systems can't (EINVAL). Returns 0 or an errno value. */
static int sync_folder(const char *path)
{
    int folder = open(path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (folder < 0)
        return errno;
    int code = fsync(folder) == 0 || errno == EINVAL ? 0 : errno;
    close(folder);
    return code;
}

/* The path of a folder's name without its last part. */
static void parent_of(const char *path, char parent[PATH_MAX])
{
    snprintf(parent, PATH_MAX, "%s", path);
    char *slash = strrchr(parent, '/');
    if (slash && slash > parent)
        *slash = 0;
    else
        snprintf(parent, PATH_MAX, "%s", slash ? "/" : ".");
}

static int make_folder(const char *path)
{
    return mkdir(path, FOLDER_MODE) == 0 || errno == EEXIST ? 0 : errno;
}

/* The folders of a name ab/cd/... or inputs/ab/cd/...: 65,536 of them, none of which gets too large. */
static int make_folders(const char *folder, const char *name)
{
    char path[PATH_MAX];
    int code = 0;
    for (const char *slash = strchr(name, '/'); slash && !code; slash = strchr(slash + 1, '/')) {
        snprintf(path, sizeof path, "%s/%.*s", folder, (int)(slash - name), name);
        code = make_folder(path);
    }
    return code;
}

/* Syncs the folders above the one of such a name, once in a process. They may have been made just now, by a process
 * that was killed before it could do so. path: of that folder. */
static int sync_above(ledger_store *store, const char *name, const char *path)
{
    char above[PATH_MAX], next[PATH_MAX];
    int is_input = strncmp(name, STORE_INPUTS, strlen(STORE_INPUTS)) == 0, code = 0;
    const char *key = is_input ? name + strlen(STORE_INPUTS) : name;
    unsigned number = (unsigned)strtoul((const char[]){key[0], key[1], key[3], key[4], 0}, NULL, 16);
    uint8_t *bits = &store->synced[is_input][number / 8];
    if (*bits & 1u << number % 8)
        return 0;
    snprintf(above, sizeof above, "%s", path);
    for (int i = 0; i < 2 + is_input && !code; i++) {
        parent_of(above, next);
        memcpy(above, next, sizeof above);
        code = sync_folder(above);
    }
    if (!code)
        *bits |= (uint8_t)(1u << number % 8);
    return code;
}

/* ---- files ---- */

static zimage_status write_new(const char *folder, const char *name, const void *data, size_t size, zimage_error *error)
{
    zi_output output;
    ZI_TRY(zi_output_open_at(&output, &(zi_place){.path = name, .folder = folder, .is_new = 1}, error));
    (void)zi_output_write(&output, data, size); /* the commit reports a failure */
    return zi_output_commit(&output, error);
}

/* On a file system without hard links an empty file has the name for a moment. If it stays empty, a process that was
 * killed has left it. */
static int is_left_empty(const char *path)
{
    struct stat st;
    if (lstat(path, &st) != 0 || !S_ISREG(st.st_mode) || st.st_size > 0)
        return 0;
    ledger_sleep(1);
    return lstat(path, &st) == 0 && S_ISREG(st.st_mode) && st.st_size == 0;
}

static zimage_status put_file(ledger_store *store, const char *name, int by_key, const void *data, size_t size,
                              int *was_there, zimage_error *error)
{
    char path[PATH_MAX], parent[PATH_MAX];
    struct stat st;
    if (snprintf(path, sizeof path, "%s/%s", store->place, name) >= (int)sizeof path)
        return zi_fail(error, ZIMAGE_ERROR_FILE, "%s: the path of a result is too long", store->place);
    parent_of(path, parent);
    int code = by_key ? make_folders(store->place, name) : 0;
    int is_new = code == 0 && write_new(store->place, name, data, size, error) == ZIMAGE_OK;
    if (code == 0 && !is_new && is_left_empty(path) && unlink(path) == 0)
        is_new = write_new(store->place, name, data, size, error) == ZIMAGE_OK;
    if (code == 0 && !is_new && (lstat(path, &st) != 0 || !S_ISREG(st.st_mode)))
        return error ? error->status : ZIMAGE_ERROR_FILE; /* as write_new says */
    code = code ? code : sync_folder(parent);
    code = code || !by_key ? code : sync_above(store, name, parent);
    if (code)
        return zi_fail_file(error, code, path, "can't be written");
    *was_there = !is_new;
    return ZIMAGE_OK;
}

static zimage_status read_part(const char *path, uint64_t offset, uint64_t bytes, char **data, zimage_error *error)
{
    zi_file whole;
    if (bytes > STORE_OBJECT_MAX)
        return zi_fail(error, ZIMAGE_ERROR_FILE, "%s: a picture of more than 1 GiB", path);
    ZI_TRY(zi_file_open(path, &whole, error));
    zimage_status status = ZIMAGE_OK;
    if (whole.size < bytes || whole.size - bytes < offset)
        status = zi_fail(error, ZIMAGE_ERROR_FILE, "%s: it ends before the picture that the ledger knows", path);
    else if (!(*data = malloc((size_t)bytes)))
        status = zi_fail_memory(error, "a picture", (size_t)bytes);
    else
        status = zi_file_read(&whole, offset, *data, (size_t)bytes, error);
    zi_file_close(&whole);
    return status;
}

/* ---- any place ---- */

/* Names come from a database, and must not lead out of the place. */
static int is_beneath(const char *name)
{
    return *name && *name != '/' && strncmp(name, "../", 3) != 0 && !strstr(name, "/../");
}

zimage_status ledger_store_open(const char *place, ledger_store **store, zimage_error *error)
{
    ledger_store *s = calloc(1, sizeof *s);
    zimage_status status = ZIMAGE_OK;
    if (ledger_store_is_mistyped(place))
        status = zi_fail(error, ZIMAGE_ERROR_ARGUMENT, "results: %s, " STORE_EXPECTED, place);
    else if (!s || !(s->place = strdup(place)))
        status = zi_fail_memory(error, "a place of results", 0);
    else if (ledger_store_is_bucket(place))
        status = ledger_bucket_open(place, &s->bucket, error);
    if (status != ZIMAGE_OK) {
        ledger_store_close(s);
        s = NULL;
    }
    *store = s;
    return status;
}

void ledger_store_close(ledger_store *store)
{
    if (!store)
        return;
    ledger_bucket_close(store->bucket);
    free(store->place);
    free(store);
}

const char *ledger_store_place(const ledger_store *store)
{
    return store->place;
}

zimage_status ledger_store_put(ledger_store *store, const char *name, int by_key, const void *data, size_t size,
                               int *was_there, zimage_error *error)
{
    *was_there = 0;
    if (store->bucket)
        return ledger_bucket_put(store->bucket, name, data, size, was_there, error);
    return put_file(store, name, by_key, data, size, was_there, error);
}

zimage_status ledger_store_get(ledger_store *store, const char *name, uint64_t offset, uint64_t bytes, char **data,
                               size_t *size, zimage_error *error)
{
    char path[PATH_MAX];
    *data = NULL;
    *size = (size_t)bytes;
    if (!is_beneath(name) || snprintf(path, sizeof path, "%s/%s", store->place, name) >= (int)sizeof path)
        return zi_fail(error, ZIMAGE_ERROR_FILE, "%s: no name of a result", name);
    zimage_status status = ZIMAGE_OK;
    if (store->bucket)
        return ledger_bucket_get(store->bucket, name, offset, bytes, data, size, error);
    if (bytes)
        status = read_part(path, offset, bytes, data, error);
    else
        status = zi_read_file(path, STORE_OBJECT_MAX, data, size, error);
    if (status != ZIMAGE_OK) {
        free(*data);
        *data = NULL;
    }
    return status;
}

int ledger_store_lacks(ledger_store *store, const char *name)
{
    char path[PATH_MAX];
    struct stat st;
    if (!is_beneath(name) || snprintf(path, sizeof path, "%s/%s", store->place, name) >= (int)sizeof path)
        return 1;
    if (store->bucket)
        return ledger_bucket_lacks(store->bucket, name);
    if (lstat(path, &st) != 0)
        return errno == ENOENT || errno == ENOTDIR;
    return !S_ISREG(st.st_mode) || st.st_size > (off_t)STORE_OBJECT_MAX;
}

void ledger_store_remove(ledger_store *store, const char *name)
{
    char path[PATH_MAX];
    if (!is_beneath(name))
        return;
    if (store->bucket)
        ledger_bucket_remove(store->bucket, name);
    else if (snprintf(path, sizeof path, "%s/%s", store->place, name) < (int)sizeof path)
        unlink(path);
}
