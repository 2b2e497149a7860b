/* Files: reading regular files, paths, folders. (For mapped files see base/mapping.h, for writing base/output.h.) */
#ifndef ZI_BASE_FILE_H
#define ZI_BASE_FILE_H

#include "base/error.h"

/* "PATH: WHAT: REASON" for an errno value; memory that is short is ZIMAGE_ERROR_MEMORY, all else ZIMAGE_ERROR_FILE. */
zimage_status zi_fail_file(zimage_error *error, int code, const char *path, const char *what);

/* A regular file that is open for reading. */
typedef struct zi_file {
    const char *path; /* of the caller */
    int descriptor;
    uint64_t size; /* when it was opened */
} zi_file;

/* Opens a regular file. The caller releases it with zi_file_close; after a failure there is nothing to close. */
zimage_status zi_file_open(const char *path, zi_file *file, zimage_error *error);
/* Reads bytes [offset, offset + size). A file that ends before is an error: it became shorter since it was opened. */
zimage_status zi_file_read(const zi_file *file, uint64_t offset, void *buffer, size_t size, zimage_error *error);
void zi_file_close(zi_file *file);

/* Reads a regular file of at most `limit` bytes. *text ends with a zero; the caller releases it with free(). */
zimage_status zi_read_file(const char *path, size_t limit, char **text, size_t *length, zimage_error *error);

/* "folder/name", which the caller releases with free(); NULL: out of memory. */
char *zi_path_join(const char *folder, const char *name);
int zi_file_exists(const char *path); /* 1 for a regular file only */
int zi_folder_exists(const char *path);
/*
 * Tells the system that whole pages in [data, data + bytes), which must be pages of a mapped file, are not needed now.
 * Reading them again reads the file.
 */
void zi_release_pages(const void *data, size_t bytes);
/* Creates a folder and its missing parents. 1: the folder exists now. */
int zi_folder_create(const char *path);

#endif
