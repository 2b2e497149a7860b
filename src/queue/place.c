#include "queue/place.h"

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
#include "queue/connection.h"
#include "queue/service.h"

#define FOLDER_MODE 0777 /* less the umask */
#define FILE_MAX    ((size_t)1 << 30)

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

/* FOLDER/ab and FOLDER/ab/cd of a key that begins with abcd: 65,536 folders, none of which gets too large. */
static int make_folders(const char *folder, const char *key)
{
    char path[PATH_MAX];
    snprintf(path, sizeof path, "%s/%.2s", folder, key);
    int code = make_folder(path);
    snprintf(path, sizeof path, "%s/%.2s/%.2s", folder, key, key + 2);
    return code ? code : make_folder(path);
}

/* Syncs the folders above the one of a key, once in a process. They may have been made just now, by a process that was
 * killed before it could do so. */
static int sync_above(const char *folder, const char *key, ledger_synced *synced)
{
    char path[PATH_MAX];
    unsigned number = (unsigned)strtoul((const char[]){key[0], key[1], key[2], key[3], 0}, NULL, 16);
    if (synced->bits[number / 8] & 1u << number % 8)
        return 0;
    snprintf(path, sizeof path, "%s/%.2s", folder, key);
    int code = sync_folder(path);
    code = code ? code : sync_folder(folder);
    if (!code)
        synced->bits[number / 8] |= (uint8_t)(1u << number % 8);
    return code;
}

/* ---- files ---- */

static zimage_status write_new(const char *folder, const char *name, const ledger_picture *picture, zimage_error *error)
{
    zi_output output;
    ZI_TRY(zi_output_open_at(&output, &(zi_place){.path = name, .folder = folder, .is_new = 1}, error));
    (void)zi_output_write(&output, picture->data, picture->size); /* the commit reports a failure */
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

static int hash_of(const void *data, size_t size, char hash[HASH_TEXT])
{
    return hash_sha256(&(hash_piece){data, size}, 1, hash);
}

static ledger_verdict no_hash(zimage_error *error)
{
    zi_fail_memory(error, "the hash of a picture", 0);
    return LEDGER_BAD_MACHINE;
}

static void add_facts(const ledger_picture *picture, const char *name, size_t bytes, const char *hash, int is_found)
{
    json_object_set_new(picture->facts, "file", json_string(name));
    json_object_set_new(picture->facts, "bytes", json_integer((json_int_t)bytes));
    json_object_set_new(picture->facts, "sha256", json_string(hash));
    if (is_found)
        json_object_set_new(picture->facts, "found", json_true());
}

/* A file is there: of another attempt, or of a machine whose kernels give other bytes. Its name is the key's, or it
 * shows that it is this job's. */
static ledger_verdict take_found(const char *path, const char *name, const ledger_picture *picture, zimage_error *error)
{
    char *data, ours[HASH_TEXT], theirs[HASH_TEXT];
    size_t size;
    if (zi_read_file(path, FILE_MAX, &data, &size, error) != ZIMAGE_OK)
        return LEDGER_BAD_MACHINE;
    int has_hashes = hash_of(data, size, theirs) && hash_of(picture->data, picture->size, ours);
    free(data);
    if (!has_hashes)
        return no_hash(error);
    int is_same = !strcmp(ours, theirs);
    if (!is_same && picture->output && !(picture->is_same && picture->is_same(path, picture))) {
        zi_fail(error, ZIMAGE_ERROR_FILE, "output: %s: another picture has this name in the folder of results", name);
        return LEDGER_BAD_JOB;
    }
    add_facts(picture, name, size, theirs, !is_same);
    return LEDGER_MADE;
}

ledger_verdict ledger_place_picture(const char *folder, const ledger_job *job, const ledger_picture *picture,
                                    ledger_synced *synced, zimage_error *error)
{
    char hash[HASH_TEXT], name[PATH_MAX], path[PATH_MAX], parent[PATH_MAX];
    struct stat st;
    if (picture->output)
        snprintf(name, sizeof name, "%s", picture->output);
    else
        snprintf(name, sizeof name, "%.2s/%.2s/%s%s", job->key, job->key + 2, job->key, picture->suffix);
    if (snprintf(path, sizeof path, "%s/%s", folder, name) >= (int)sizeof path) {
        zi_fail(error, ZIMAGE_ERROR_FILE, "%s: the path of a result is too long", folder);
        return LEDGER_BAD_MACHINE;
    }
    parent_of(path, parent);
    int code = picture->output ? 0 : make_folders(folder, job->key);
    int is_new = code == 0 && write_new(folder, name, picture, error) == ZIMAGE_OK;
    if (code == 0 && !is_new && is_left_empty(path) && unlink(path) == 0)
        is_new = write_new(folder, name, picture, error) == ZIMAGE_OK;
    if (code == 0 && !is_new && (lstat(path, &st) != 0 || !S_ISREG(st.st_mode)))
        return LEDGER_BAD_MACHINE;
    code = code ? code : sync_folder(parent);
    code = code || picture->output ? code : sync_above(folder, job->key, synced);
    if (code) {
        zi_fail_file(error, code, path, "can't be written");
        return LEDGER_BAD_MACHINE;
    }
    if (!is_new)
        return take_found(path, name, picture, error);
    if (!hash_of(picture->data, picture->size, hash))
        return no_hash(error);
    add_facts(picture, name, picture->size, hash, 0);
    return LEDGER_MADE;
}

/* ---- reading and removing ---- */

/* Names come from a database, and must not lead out of the folder. */
static int is_beneath(const char *name)
{
    return *name && *name != '/' && strncmp(name, "../", 3) != 0 && !strstr(name, "/../");
}

/* A part of a file. */
static zimage_status read_part(const char *path, const service_file *file, char **data, zimage_error *error)
{
    zi_file whole;
    if (file->bytes > FILE_MAX)
        return zi_fail(error, ZIMAGE_ERROR_FILE, "%s: a picture of more than 1 GiB", path);
    ZI_TRY(zi_file_open(path, &whole, error));
    zimage_status status = ZIMAGE_OK;
    if (whole.size < file->bytes || whole.size - file->bytes < file->offset)
        status = zi_fail(error, ZIMAGE_ERROR_FILE, "%s: it ends before the picture that the ledger knows", path);
    else if (!(*data = malloc((size_t)file->bytes)))
        status = zi_fail_memory(error, "a picture", (size_t)file->bytes);
    else
        status = zi_file_read(&whole, file->offset, *data, (size_t)file->bytes, error);
    zi_file_close(&whole);
    return status;
}

zimage_status ledger_place_read(const char *folder, const service_file *file, uint8_t **data, size_t *size,
                                zimage_error *error)
{
    char path[PATH_MAX], found[HASH_TEXT], *text = NULL;
    *data = NULL;
    *size = (size_t)file->bytes;
    if (!is_beneath(file->name) || snprintf(path, sizeof path, "%s/%s", folder, file->name) >= (int)sizeof path)
        return zi_fail(error, ZIMAGE_ERROR_FILE, "%s: no name of a result", file->name);
    zimage_status status =
        file->bytes ? read_part(path, file, &text, error) : zi_read_file(path, FILE_MAX, &text, size, error);
    if (status == ZIMAGE_OK && (!hash_of(text, *size, found) || strcmp(found, file->sha256) != 0))
        status = zi_fail(error, ZIMAGE_ERROR_FILE, "%s: it is not the file whose hash the ledger has", path);
    if (status == ZIMAGE_OK)
        *data = (uint8_t *)text;
    else
        free(text);
    return status;
}

void ledger_place_remove(const char *folder, const char *name, const char *key)
{
    static const char *const suffixes[] = {"png", "jpeg", "webp"};
    char path[PATH_MAX];
    for (size_t i = 0; !name && i < sizeof suffixes / sizeof *suffixes; i++)
        if (snprintf(path, sizeof path, "%s/%.2s/%.2s/%s.%s", folder, key, key + 2, key, suffixes[i]) <
            (int)sizeof path)
            unlink(path);
    if (name && is_beneath(name) && snprintf(path, sizeof path, "%s/%s", folder, name) < (int)sizeof path)
        unlink(path);
}
