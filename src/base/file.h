/* Files: read-only mappings, whole small files, paths, and writing under a temporary name. */
#ifndef ZI_BASE_FILE_H
#define ZI_BASE_FILE_H

#include <stdio.h>

#include "base/error.h"

typedef struct zi_mapping {
    const uint8_t *data; /* NULL for an empty file */
    size_t size;
} zi_mapping;

zimage_status zi_map_file(const char *path, zi_mapping *mapping, zimage_error *error); /* regular files only */
void zi_unmap(zi_mapping *mapping);
void zi_drop_pages(const zi_mapping *mapping); /* of a file: gives their memory back until they are next read */

/* Reads a whole file of at most `limit` bytes; *text is zero-terminated and released with free(). */
zimage_status zi_read_file(const char *path, size_t limit, char **text, size_t *length, zimage_error *error);

/* "folder/name", released with free(); NULL: out of memory. */
char *zi_path_join(const char *folder, const char *name);
int zi_file_exists(const char *path); /* a regular file */
int zi_folder_exists(const char *path);
/* Makes a folder, and the folders above it that are missing. 0: it is not there afterwards. */
int zi_folder_create(const char *path);

/*
 * Atomic output: open writes to "path.<pid>-<n>.tmp" in the same folder, commit flushes, fsyncs and renames; abandon
 * removes it. Both free the struct's memory. A failed open or commit has abandoned; to abandon again does nothing.
 * What can't be replaced (/dev/stdout, a device, a pipe) is written directly: then temporary is NULL.
 */
typedef struct zi_output {
    FILE *file;
    char *path;
    char *temporary;
} zi_output;

zimage_status zi_output_open(zi_output *output, const char *path, zimage_error *error);
zimage_status zi_output_commit(zi_output *output, zimage_error *error);
void zi_output_abandon(zi_output *output);

#endif
