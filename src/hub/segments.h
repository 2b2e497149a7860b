/*
 * A file while it is downloaded: its content so far, and which segments of it are complete. Both are files beside the
 * blob, so that a later run goes on where this one ended, however it ended.
 */
#ifndef ZI_HUB_SEGMENTS_H
#define ZI_HUB_SEGMENTS_H

#include "hub/cache.h"

typedef enum hub_segment { HUB_MISSING, HUB_UNDER_WAY, HUB_COMPLETE } hub_segment;

typedef struct hub_segments {
    int folder, content, list; /* descriptors; list is -1 where there is only one segment */
    char etag[HUB_ETAG_MAX];
    uint64_t size, segment_bytes;
    size_t count;
    unsigned char *states; /* [count] of hub_segment */
    size_t prefix;         /* segments that are complete from the beginning on */
    uint64_t found;        /* bytes that were there when it was opened */
} hub_segments;

/* Opens what an earlier run left, or begins anew. After a failure there is nothing to close. */
hub_result hub_segments_open(int blobs, const hub_file *file, uint64_t segment_bytes, hub_segments *segments,
                             zimage_error *error);
void hub_segments_close(hub_segments *segments);

/* The first segment that is missing, which is under way from then on; count: none is. */
size_t hub_segments_take(hub_segments *segments);
void hub_segments_give_back(hub_segments *segments, size_t index);
hub_result hub_segments_complete(hub_segments *segments, size_t index, zimage_error *error);
/* The bytes [offset, end) of a segment. */
void hub_segments_bounds(const hub_segments *segments, size_t index, uint64_t *offset, uint64_t *end);
/* Bytes that are complete from the beginning on. */
uint64_t hub_segments_prefix(const hub_segments *segments);

hub_result hub_segments_write(const hub_segments *segments, uint64_t offset, const void *data, size_t size,
                              zimage_error *error);
/* Gives the content, which is synced, the name of the blob. Closes. */
hub_result hub_segments_finish(hub_segments *segments, zimage_error *error);
/* Removes both files: the content is wrong. Closes. */
void hub_segments_remove(hub_segments *segments);

/* Bytes of complete segments that an earlier run left for a file. */
uint64_t hub_segments_found(int blobs, const hub_file *file);

#endif
