/*
 * The folders in which Hugging Face's clients keep models: this program and Python's tools read and write the same
 * ones.
 *
 *     CACHE/CACHEDIR.TAG
 *     CACHE/.locks/models--ORGANISATION--NAME/ETAG.lock          flock(2)
 *     CACHE/models--ORGANISATION--NAME/refs/REVISION             the commit
 *     CACHE/models--ORGANISATION--NAME/blobs/ETAG                the content of a file
 *     CACHE/models--ORGANISATION--NAME/snapshots/COMMIT/PATH     a link to ../../blobs/ETAG
 *
 * Only this program has, while and after it downloads:
 *
 *     .../blobs/ETAG.zimage.incomplete, ETAG.zimage.segments     a part of the content, and which part (segments.h)
 *     .../zimage/COMMIT.json                                     what the download consisted of: it is complete
 */
#ifndef ZI_HUB_CACHE_H
#define ZI_HUB_CACHE_H

#include <jansson.h>
#include <limits.h>

#include "hub/listing.h"
#include "hub/settings.h"

/* The folder of one model, open for a download. */
typedef struct hub_cache {
    char model[PATH_MAX];           /* CACHE/models--ORGANISATION--NAME */
    char snapshot[PATH_MAX];        /* .../snapshots/COMMIT, once it is known */
    int model_folder, blobs, locks; /* descriptors; -1: not open */
    char commit[HUB_COMMIT_MAX];
} hub_cache;

/* Creates what is missing. After a failure there is nothing to close. */
hub_result hub_cache_open(const char *folder, const char *id, const char *commit, hub_cache *cache,
                          zimage_error *error);
/* The same without making anything: what is missing stays closed, and holds nothing. */
hub_result hub_cache_look(const char *folder, const char *id, const char *commit, hub_cache *cache,
                          zimage_error *error);
void hub_cache_close(hub_cache *cache);

/* Whether the content of a file is there; one of another size is not. */
int hub_cache_has(const hub_cache *cache, const hub_file *file);
/* Bytes that may be written to the cache: what is free, less a twentieth. */
hub_result hub_cache_free_bytes(const hub_cache *cache, uint64_t *bytes, zimage_error *error);

/* Locks a blob against other programs. *descriptor, which is released with close, is -1 where another one has it. */
hub_result hub_cache_lock(const hub_cache *cache, const char *etag, int *descriptor, zimage_error *error);
/* Gives a file of the snapshot its content. */
hub_result hub_cache_link(const hub_cache *cache, const hub_file *file, zimage_error *error);
/* The last step: the note of what is there, and the revision. source is the hub's address. */
hub_result hub_cache_finish(const hub_cache *cache, const hub_listing *listing, const char *source,
                            const char *revision, zimage_error *error);

/* ---- reading ---- */

/* The commit of a revision in the folder of a model; 0: there is none. */
int hub_cache_commit(const char *model, const char *revision, char commit[HUB_COMMIT_MAX]);
/* CACHE/models--ORGANISATION--NAME; 0: too long. */
int hub_cache_model(const char *folder, const char *id, char model[PATH_MAX]);
/* The note of a download; NULL: there is none. Released with json_decref. */
json_t *hub_cache_note(const char *model, const char *commit);
/* Whether a download was begun there, and not ended. */
int hub_cache_is_partial(const char *model);

#define HUB_INCOMPLETE ".zimage.incomplete"
#define HUB_SEGMENTS   ".zimage.segments"

#endif
