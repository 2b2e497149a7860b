/* What a hub says a model holds: its answers are parsed and checked here. Nothing here speaks to a network. */
#ifndef ZI_HUB_LISTING_H
#define ZI_HUB_LISTING_H

#include <stdint.h>

#include "hub/names.h"
#include "hub/result.h"

#define HUB_ANSWER_MAX  ((size_t)16 << 20) /* bytes of an answer in JSON: a page of 1000 files has 400 KiB */
#define HUB_ENTRIES_MAX 100000             /* of a listing, */
#define HUB_CHOSEN_MAX  1000               /* and those of them that are fetched */
#define HUB_SIZE_MAX    ((uint64_t)1 << 40)

typedef struct hub_file {
    char *path;
    char etag[HUB_ETAG_MAX]; /* its SHA-256, or git's SHA-1 of a small file */
    uint64_t size;
} hub_file;

typedef struct hub_listing {
    hub_file *files;
    size_t count, capacity;
} hub_listing;

/* What the hub says of a revision. */
typedef struct hub_revision {
    char commit[HUB_COMMIT_MAX];
    char gated[32];   /* "auto", "manual"; "": everybody may download it */
    char licence[64]; /* "": it does not say */
} hub_revision;

/* from: the address, for messages. */
hub_result hub_parse_revision(const char *from, const char *text, size_t length, hub_revision *revision,
                              zimage_error *error);
/* Adds the files of a page. A name, a size or a hash that no honest hub would send is an error. */
hub_result hub_parse_tree(const char *from, const char *text, size_t length, hub_listing *listing, zimage_error *error);
/* The same of ModelScope's answer; adds the names of folders to *folders, too, if that is not NULL. */
hub_result hub_parse_modelscope(const char *from, const char *text, size_t length, hub_listing *listing,
                                hub_listing *folders, zimage_error *error);

/* Leaves only the files that zimage reads or, with patterns, those allowed ones that match a pattern; sorts them. id is
 * for messages. */
hub_result hub_choose(hub_listing *listing, const char *id, const char *const *patterns, int pattern_count,
                      zimage_error *error);
uint64_t hub_listing_bytes(const hub_listing *listing);
void hub_listing_free(hub_listing *listing);

#endif
