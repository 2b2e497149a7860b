/*
 * What a hub answers. The first byte says which answer: R a revision, T a page of a listing, M one of ModelScope, I the
 * name of a model that the user gives; any other a header. What is accepted has to be harmless as a path.
 */
#include <stdlib.h>
#include <string.h>

#include "fuzz.h"
#include "hub/headers.h"
#include "hub/listing.h"

static void check_path(const char *path)
{
    if (*path == '/' || !strcmp(path, "..") || !strncmp(path, "../", 3) || strstr(path, "/../") || strstr(path, "//") ||
        strchr(path, '\\') || strlen(path) > 512 || (strlen(path) > 2 && !strcmp(path + strlen(path) - 3, "/..")))
        zi_fuzz_fail("the path %s is accepted", path);
    for (const char *c = path; *c; c++)
        if ((unsigned char)*c < 0x20 || *c == 0x7f)
            zi_fuzz_fail("a path with a control character is accepted");
}

static void check_files(const hub_listing *listing)
{
    for (size_t i = 0; i < listing->count; i++) {
        const hub_file *file = &listing->files[i];
        check_path(file->path);
        if (strspn(file->etag, "0123456789abcdef") != strlen(file->etag) ||
            (strlen(file->etag) != 40 && strlen(file->etag) != 64) || file->size > HUB_SIZE_MAX)
            zi_fuzz_fail("%s: the hash or the size is accepted", file->path);
    }
}

static int parse_listing(const char *text, size_t size, int is_modelscope)
{
    hub_listing listing = {0}, folders = {0};
    zimage_error error = ZIMAGE_ERROR_INIT;
    hub_result result = is_modelscope ? hub_parse_modelscope("hub", text, size, &listing, &folders, &error)
                                      : hub_parse_tree("hub", text, size, &listing, &error);
    check_files(&listing);
    for (size_t i = 0; i < folders.count; i++)
        check_path(folders.files[i].path);
    if (result == HUB_OK)
        result = hub_choose(&listing, "a/b", NULL, 0, &error);
    for (size_t i = 0; i < listing.count && result == HUB_OK; i++)
        if (strstr(listing.files[i].path, ".py") && !hub_is_allowed(listing.files[i].path))
            zi_fuzz_fail("%s is chosen", listing.files[i].path);
    if (result != HUB_OK && !*error.message)
        zi_fuzz_fail("a failure without a sentence");
    zi_fuzz_note(error.message);
    hub_listing_free(&listing);
    hub_listing_free(&folders);
    return ZI_FUZZ_KEEP;
}

static void parse_revision(const char *text, size_t size)
{
    hub_revision revision;
    zimage_error error = ZIMAGE_ERROR_INIT;
    if (hub_parse_revision("hub", text, size, &revision, &error) == HUB_OK && !hub_is_commit(revision.commit))
        zi_fuzz_fail("the commit %s is accepted", revision.commit);
    zi_fuzz_note(error.message);
}

static void split_id(const char *text)
{
    char id[HUB_ID_MAX], revision[HUB_REVISION_MAX];
    if (!hub_split_id(text, id, revision))
        return;
    check_path(id);
    check_path(revision);
    if (strstr(id, "--") || !strchr(id, '/'))
        zi_fuzz_fail("the model %s is accepted", id);
}

static void parse_header(const char *text)
{
    char etag[HUB_ETAG_MAX], address[64];
    uint64_t number, first = 0, last = 0, total = 0;
    if (hub_header_etag(text, etag) && !hub_is_etag(etag))
        zi_fuzz_fail("the etag %s is accepted", etag);
    if (hub_header_range(text, &first, &last, &total) && (first > last || last >= total))
        zi_fuzz_fail("the range %s is accepted", text);
    (void)hub_header_number(text, &number);
    if (hub_header_next(text, address, sizeof address) && (!*address || strchr(address, '>')))
        zi_fuzz_fail("the address %s is accepted", address);
    double wait = hub_header_wait(text);
    if (!(wait >= 0 && wait < 1e6))
        zi_fuzz_fail("a wait of %g s", wait);
}

static int run(const uint8_t *data, size_t size)
{
    char *text = malloc(size + 1);
    if (!text)
        zi_fuzz_fail("out of memory");
    memcpy(text, data, size);
    text[size] = 0;
    switch (*text) {
    case 'R':
        parse_revision(text + 1, size - 1);
        break;
    case 'T':
    case 'M':
        parse_listing(text + 1, size - 1, *text == 'M');
        break;
    case 'I':
        split_id(text + 1);
        break;
    default:
        parse_header(text);
    }
    free(text);
    return ZI_FUZZ_KEEP;
}

const zi_fuzz_target zi_fuzz_hub = {.name = "hub", .run = run};
