/* Files: read-only mappings, reading of small files, paths, and writing under a temporary name. */
#ifndef ZI_BASE_FILE_H
#define ZI_BASE_FILE_H

#include <stdio.h>

#include "base/error.h"

typedef struct zi_mapping {
    const uint8_t *data; /* NULL for an empty file */
    size_t size;
} zi_mapping;

/* Maps a regular file into memory. The caller releases the mapping with zi_unmap. */
zimage_status zi_map_file(const char *path, zi_mapping *mapping, zimage_error *error);
void zi_unmap(zi_mapping *mapping);
/* Gives the memory of the pages of a mapped file back to the system, which reads them again at their next use. */
void zi_drop_pages(const zi_mapping *mapping);

/* Reads a regular file of at most `limit` bytes. *text ends with a zero; the caller releases it with free(). */
zimage_status zi_read_file(const char *path, size_t limit, char **text, size_t *length, zimage_error *error);

/* "folder/name", which the caller releases with free(); NULL: out of memory. */
char *zi_path_join(const char *folder, const char *name);
int zi_file_exists(const char *path); /* 1 for a regular file only */
int zi_folder_exists(const char *path);
/* Creates a folder and its missing parents. 1: the folder exists now. */
int zi_folder_create(const char *path);

/*
 * A file that appears complete or not at all. zi_output_open creates "path.<pid>-<n>.tmp" in the same folder, and the
 * caller writes to `file`. zi_output_commit flushes, syncs and renames it to path; zi_output_abandon removes it. Both
 * free the memory of the struct. After a failed open or commit there is nothing to abandon, and to abandon does no
 * harm. A device, a pipe or /dev/stdout can't be replaced, so it is written directly; then temporary is NULL.
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
