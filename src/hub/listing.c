#include "hub/listing.h"

#include <fnmatch.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/json.h"

#define VALUES 400000 /* of a page: 1000 files of up to 15 values have 20,000; a revision lists its files as well */
#define DEPTH  16

static const zi_json_limits limits = {HUB_ANSWER_MAX, VALUES, DEPTH, 0, 0};

/* A page of HTML comes from a proxy or a login page in between. */
static hub_result parse(const char *from, const char *text, size_t length, json_t **value, zimage_error *error)
{
    zimage_error detail = ZIMAGE_ERROR_INIT;
    size_t begin = strspn(text, " \t\r\n");
    if (text[begin] == '<')
        return hub_fail(error, HUB_NETWORK,
                        "%s: the answer is a page of HTML, expected JSON; perhaps the network asks for a login", from);
    if (zi_json_parse(from, "the answer", &limits, text, length, value, &detail) != ZIMAGE_OK)
        return hub_fail(error, HUB_NETWORK, "%s", detail.message);
    return HUB_OK;
}

static hub_result bad_field(const char *from, const char *field, const json_t *value, const char *expected,
                            zimage_error *error)
{
    char text[128];
    return hub_fail(error, HUB_NETWORK, "%s: %s: %s, expected %s", from, field,
                    zi_json_describe(value, text, sizeof text), expected);
}

/* ---- revisions ---- */

static void take_text(const json_t *value, char *text, size_t size)
{
    snprintf(text, size, "%s", json_is_string(value) ? json_string_value(value) : "");
}

hub_result hub_parse_revision(const char *from, const char *text, size_t length, hub_revision *revision,
                              zimage_error *error)
{
    json_t *answer = NULL;
    HUB_TRY(parse(from, text, length, &answer, error));
    const json_t *commit = json_object_get(answer, "sha");
    hub_result result = HUB_OK;
    memset(revision, 0, sizeof *revision);
    if (json_is_string(commit) && hub_is_commit(json_string_value(commit)))
        snprintf(revision->commit, sizeof revision->commit, "%s", json_string_value(commit));
    else
        result = bad_field(from, "sha", commit, "40 hexadecimal digits", error);
    take_text(json_object_get(answer, "gated"), revision->gated, sizeof revision->gated);
    take_text(json_object_get(json_object_get(answer, "cardData"), "license"), revision->licence,
              sizeof revision->licence);
    json_decref(answer);
    return result;
}

/* ---- files ---- */

static hub_result add_file(hub_listing *listing, const char *path, const char *etag, uint64_t size, zimage_error *error)
{
    if (listing->count == HUB_ENTRIES_MAX)
        return hub_fail(error, HUB_NETWORK, "the listing holds more than %d files", HUB_ENTRIES_MAX);
    if (listing->count == listing->capacity) {
        size_t capacity = listing->capacity ? 2 * listing->capacity : 64;
        hub_file *files = realloc(listing->files, capacity * sizeof *files);
        if (!files)
            return hub_fail(error, HUB_FAILED, "out of memory: no room for a listing of %zu files", capacity);
        listing->files = files;
        listing->capacity = capacity;
    }
    hub_file *file = &listing->files[listing->count];
    *file = (hub_file){.path = strdup(path), .size = size};
    if (!file->path)
        return hub_fail(error, HUB_FAILED, "out of memory: no room for a file's name");
    snprintf(file->etag, sizeof file->etag, "%s", etag);
    listing->count++;
    return HUB_OK;
}

/* What a file's entry holds; each member is checked before it is added. */
typedef struct entry {
    const json_t *path, *size, *etag;
    const char *etag_field;
} entry;

static hub_result add_entry(const char *from, const entry *e, hub_listing *listing, zimage_error *error)
{
    const char *path = json_string_value(e->path), *etag = json_string_value(e->etag);
    char where[HUB_FILE_MAX + 64];
    if (!path || !hub_is_file(path))
        return bad_field(from, "path", e->path, "a relative path of at most 512 bytes without \"..\"", error);
    snprintf(where, sizeof where, "%s: %s", path, "size");
    if (!json_is_integer(e->size) || json_integer_value(e->size) < 0 ||
        (uint64_t)json_integer_value(e->size) > HUB_SIZE_MAX)
        return bad_field(from, where, e->size, "a size of at most 2^40 bytes", error);
    snprintf(where, sizeof where, "%s: %s", path, e->etag_field);
    if (!etag || !hub_is_etag(etag))
        return bad_field(from, where, e->etag, "40 or 64 hexadecimal digits", error);
    return add_file(listing, path, etag, (uint64_t)json_integer_value(e->size), error);
}

/* A large file ("lfs") has its SHA-256 and its size in an object of its own. */
static hub_result add_hugging_face(const char *from, const json_t *item, hub_listing *listing, zimage_error *error)
{
    const char *type = json_string_value(json_object_get(item, "type"));
    const json_t *lfs = json_object_get(item, "lfs");
    entry e = {json_object_get(item, "path"), json_object_get(item, "size"), json_object_get(item, "oid"), "oid"};
    if (!type)
        return bad_field(from, "type", json_object_get(item, "type"), "\"file\" or \"directory\"", error);
    if (strcmp(type, "file") != 0)
        return HUB_OK;
    if (json_is_object(lfs)) {
        e.etag = json_object_get(lfs, "oid");
        e.etag_field = "lfs.oid";
        e.size = json_object_get(lfs, "size");
    }
    return add_entry(from, &e, listing, error);
}

hub_result hub_parse_tree(const char *from, const char *text, size_t length, hub_listing *listing, zimage_error *error)
{
    json_t *answer = NULL;
    HUB_TRY(parse(from, text, length, &answer, error));
    hub_result result = json_is_array(answer) ? HUB_OK : bad_field(from, "the answer", answer, "an array", error);
    for (size_t i = 0; i < json_array_size(answer) && result == HUB_OK; i++)
        result = add_hugging_face(from, json_array_get(answer, i), listing, error);
    json_decref(answer);
    return result;
}

static hub_result add_modelscope(const char *from, const json_t *item, hub_listing *listing, hub_listing *folders,
                                 zimage_error *error)
{
    const char *type = json_string_value(json_object_get(item, "Type"));
    const json_t *path = json_object_get(item, "Path");
    entry e = {json_is_string(path) ? path : json_object_get(item, "Name"), json_object_get(item, "Size"),
               json_object_get(item, "Sha256"), "Sha256"};
    if (!type)
        return bad_field(from, "Type", json_object_get(item, "Type"), "\"blob\" or \"tree\"", error);
    if (strcmp(type, "tree") != 0)
        return add_entry(from, &e, listing, error);
    if (!json_is_string(e.path) || !hub_is_file(json_string_value(e.path)))
        return bad_field(from, "Path", e.path, "a relative path of at most 512 bytes without \"..\"", error);
    return folders ? add_file(folders, json_string_value(e.path), "", 0, error) : HUB_OK;
}

hub_result hub_parse_modelscope(const char *from, const char *text, size_t length, hub_listing *listing,
                                hub_listing *folders, zimage_error *error)
{
    json_t *answer = NULL;
    HUB_TRY(parse(from, text, length, &answer, error));
    const json_t *files = json_object_get(json_object_get(answer, "Data"), "Files");
    hub_result result = json_is_array(files) ? HUB_OK : bad_field(from, "Data.Files", files, "an array", error);
    for (size_t i = 0; i < json_array_size(files) && result == HUB_OK; i++)
        result = add_modelscope(from, json_array_get(files, i), listing, folders, error);
    json_decref(answer);
    return result;
}

/* ---- choosing ---- */

static int matches(const char *path, const char *const *patterns, int count)
{
    for (int i = 0; i < count; i++)
        if (fnmatch(patterns[i], path, 0) == 0)
            return 1;
    return 0;
}

static int by_path(const void *a, const void *b)
{
    return strcmp(((const hub_file *)a)->path, ((const hub_file *)b)->path);
}

static hub_result check_chosen(const hub_listing *listing, const char *id, int pattern_count, int has_component,
                               zimage_error *error)
{
    if (listing->count == 0 && pattern_count > 0)
        return hub_fail(error, HUB_NOT_FOUND, "include: %s has no file of a model with such a name", id);
    if (!has_component && pattern_count == 0)
        return hub_fail(error, HUB_NOT_FOUND,
                        "%s: this is no model in a layout that zimage reads: it has no folder transformer/, "
                        "text_encoder/ or vae/ with weights as safetensors",
                        id);
    if (listing->count > HUB_CHOSEN_MAX)
        return hub_fail(error, HUB_NETWORK, "%s: it has %zu files of a model, expected at most %d", id, listing->count,
                        HUB_CHOSEN_MAX);
    for (size_t i = 1; i < listing->count; i++)
        if (!strcmp(listing->files[i - 1].path, listing->files[i].path))
            return hub_fail(error, HUB_NETWORK, "%s: the listing names %s twice", id, listing->files[i].path);
    return HUB_OK;
}

hub_result hub_choose(hub_listing *listing, const char *id, const char *const *patterns, int pattern_count,
                      zimage_error *error)
{
    size_t kept = 0;
    int has_component = 0;
    for (size_t i = 0; i < listing->count; i++) {
        hub_file *file = &listing->files[i];
        int is_wanted = pattern_count ? matches(file->path, patterns, pattern_count) : hub_is_in_layout(file->path);
        if (is_wanted && hub_is_allowed(file->path)) {
            has_component |= hub_is_component(file->path);
            listing->files[kept++] = *file;
        } else {
            free(file->path);
        }
    }
    listing->count = kept;
    if (kept > 0) /* where no file is left there may be no array */
        qsort(listing->files, kept, sizeof *listing->files, by_path);
    return check_chosen(listing, id, pattern_count, has_component, error);
}

uint64_t hub_listing_bytes(const hub_listing *listing)
{
    uint64_t bytes = 0;
    for (size_t i = 0; i < listing->count; i++)
        bytes += listing->files[i].size;
    return bytes;
}

void hub_listing_free(hub_listing *listing)
{
    for (size_t i = 0; i < listing->count; i++)
        free(listing->files[i].path);
    free(listing->files);
    *listing = (hub_listing){0};
}
