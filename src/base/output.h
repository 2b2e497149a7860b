/* Writing files that appear complete or not at all. */
#ifndef ZI_BASE_OUTPUT_H
#define ZI_BASE_OUTPUT_H

#include <stdio.h>

#include "base/error.h"

struct zi_temporary; /* an entry of the list of temporary names */

/*
 * The caller writes with zi_output_write, or to `file`. zi_output_commit flushes and syncs the file and gives it its
 * name, which replaces an existing file in one step; zi_output_abandon discards it. Both free the memory of the struct.
 * After a failed open or commit there is nothing to abandon, and to abandon does no harm.
 *
 * Where the system can (Linux, most file systems), the file has no name until the commit, so that nothing remains
 * however the process ends. Elsewhere it has the name "NAME.<pid>-<n>.tmp" in the same folder until then. A handler of
 * a signal that ends the process removes such files with zi_output_remove_temporaries.
 *
 * A device, a pipe or /dev/stdout can't be replaced, so it is written directly.
 */
typedef struct zi_output {
    FILE *file;
    char *path;                     /* as messages show it */
    char *name;                     /* in the folder; NULL: written directly */
    int folder;                     /* descriptor; -1: written directly */
    int is_new;                     /* as in zi_place */
    struct zi_temporary *temporary; /* NULL: the file has no temporary name */
    int code;                       /* errno value of the first zi_output_write that failed; else 0 */
} zi_output;

/* Where a file is written. */
typedef struct zi_place {
    const char *path; /* with folder NULL; a symbolic link there is followed */
    /*
     * Not NULL: path is a name in this folder that a stranger chose. The file lies in the folder or in a folder below
     * it, also if there are symbolic links. A name with "..", and a name that leads out of the folder or is itself a
     * symbolic link, is refused.
     */
    const char *folder;
    int is_new; /* 1: a file that exists, also one that appears before the commit, is an error and stays as it is */
} zi_place;

zimage_status zi_output_open_at(zi_output *output, const zi_place *place, zimage_error *error);
/* The same for a path that the user chose: it is followed and replaced. */
zimage_status zi_output_open(zi_output *output, const char *path, zimage_error *error);
/* 0: the write failed. zi_output_commit reports why. */
int zi_output_write(zi_output *output, const void *data, size_t size);
zimage_status zi_output_commit(zi_output *output, zimage_error *error);
void zi_output_abandon(zi_output *output);

/* zimage_remove_temporary_files of zimage.h: removes the temporary names of this process. Async-signal-safe. */
void zi_output_remove_temporaries(void);

#endif
