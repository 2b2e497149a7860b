#include "queue/place.h"

#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/error.h"
#include "queue/service.h"

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

/* A picture is there: of another attempt, or of a machine whose kernels give other bytes. Its name is the key's, or it
 * shows that it is this job's. */
static ledger_verdict take_found(ledger_store *store, const char *name, const ledger_picture *picture,
                                 zimage_error *error)
{
    char *data, ours[HASH_TEXT], theirs[HASH_TEXT];
    size_t size;
    if (ledger_store_get(store, name, 0, 0, &data, &size, error) != ZIMAGE_OK)
        return LEDGER_BAD_MACHINE;
    int has_hashes = hash_of(data, size, theirs) && hash_of(picture->data, picture->size, ours);
    int is_same = has_hashes && !strcmp(ours, theirs);
    int is_ours = is_same || !picture->output || (picture->is_same && picture->is_same(data, size, picture));
    free(data);
    if (!has_hashes)
        return no_hash(error);
    if (!is_ours) {
        zi_fail(error, ZIMAGE_ERROR_FILE, "output: %s: another picture has this name among the results", name);
        return LEDGER_BAD_JOB;
    }
    add_facts(picture, name, size, theirs, !is_same);
    return LEDGER_MADE;
}

ledger_verdict ledger_place_picture(ledger_store *store, const ledger_job *job, const ledger_picture *picture,
                                    zimage_error *error)
{
    char hash[HASH_TEXT], name[PATH_MAX];
    int was_there;
    if (picture->output)
        snprintf(name, sizeof name, "%s", picture->output);
    else
        snprintf(name, sizeof name, "%.2s/%.2s/%s%s", job->key, job->key + 2, job->key, picture->suffix);
    if (ledger_store_put(store, name, !picture->output, picture->data, picture->size, &was_there, error) != ZIMAGE_OK)
        return LEDGER_BAD_MACHINE;
    if (was_there)
        return take_found(store, name, picture, error);
    if (!hash_of(picture->data, picture->size, hash))
        return no_hash(error);
    add_facts(picture, name, picture->size, hash, 0);
    return LEDGER_MADE;
}

/* ---- reading and removing ---- */

zimage_status ledger_place_read(ledger_store *store, const service_file *file, uint8_t **data, size_t *size,
                                zimage_error *error)
{
    char found[HASH_TEXT], *text;
    *data = NULL;
    ZI_TRY(ledger_store_get(store, file->name, file->offset, file->bytes, &text, size, error));
    if (!hash_of(text, *size, found) || strcmp(found, file->sha256) != 0) {
        free(text);
        return zi_fail(error, ZIMAGE_ERROR_FILE, "%s/%s: it is not the file whose hash the ledger has",
                       ledger_store_place(store), file->name);
    }
    *data = (uint8_t *)text;
    return ZIMAGE_OK;
}

void ledger_place_remove(ledger_store *store, const char *name, const char *key)
{
    static const char *const suffixes[] = {"png", "jpeg", "webp"};
    char guess[JOB_KEY + 16];
    for (size_t i = 0; !name && i < sizeof suffixes / sizeof *suffixes; i++) {
        snprintf(guess, sizeof guess, "%.2s/%.2s/%s.%s", key, key + 2, key, suffixes[i]);
        ledger_store_remove(store, guess);
    }
    if (name)
        ledger_store_remove(store, name);
}
