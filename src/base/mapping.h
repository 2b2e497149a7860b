/*
 * Read-only mappings of files. A page of a mapped file can get lost: another program makes the file shorter, or a disk
 * fails. Reading such a page raises SIGBUS. The library installs no handler of signals, but it keeps a list of its
 * mapped files, so that a handler of the program can ask for the file at an address (zi_mapping_repair).
 */
#ifndef ZI_BASE_MAPPING_H
#define ZI_BASE_MAPPING_H

#include "base/file.h"

struct zi_mapped; /* an entry of the list of mapped files */

typedef struct zi_mapping {
    const uint8_t *data; /* NULL for an empty file */
    size_t size;
    struct zi_mapped *entry; /* NULL: memory without a file, or the list was full */
    int descriptor;          /* of the file; only if data is not NULL and it is no memory without a file */
    int64_t changed[2];      /* when the file was last written, in seconds and nanoseconds, as the mapping was made */
    uint64_t device, inode;  /* of the file */
} zi_mapping;

/* Maps all of an open file, which may be closed afterwards. The caller releases the mapping with zi_unmap. file->path
 * must stay valid as long. */
zimage_status zi_map_file(const zi_file *file, zi_mapping *mapping, zimage_error *error);
/* Memory without a file, filled with zeros. On Linux it uses huge pages, where the system has them. */
zimage_status zi_map_memory(const char *label, size_t size, zi_mapping *mapping, zimage_error *error);
void zi_unmap(zi_mapping *mapping);
/* Gives the memory of the pages of a mapped file back to the system, which reads them again at their next use. */
void zi_drop_pages(const zi_mapping *mapping);

/* Fails if a page was lost, or if the file has become shorter. *written: the file was written since it was mapped. */
zimage_status zi_mapping_check(const zi_mapping *mapping, const char *path, int *written, zimage_error *error);
/* Whether both map one file (perhaps by two names), as it was at one time. */
int zi_mapping_is_same(const zi_mapping *a, const zi_mapping *b);
/*
 * Whether `size` bytes from a_at of one file and from b_at of the other are equal. They are read into buffer, which
 * has twice `room` bytes, and not through the mapping: the process's memory does not grow. 0 also for what can't be
 * read.
 */
int zi_mapping_equal(const zi_mapping *a, size_t a_at, const zi_mapping *b, size_t b_at, size_t size, uint8_t *buffer,
                     size_t room);
/* The system may forget these bytes of the file, of which it keeps a copy in memory. A hint. */
void zi_mapping_forget(const zi_mapping *mapping, size_t at, size_t size);

/*
 * zimage_replace_lost_pages of zimage.h: puts zeros in place of the page at the address and of all later ones of the
 * same file, and returns the file's path. NULL: no mapped file has that address. Async-signal-safe.
 */
const char *zi_mapping_repair(const void *address);
/* How many times that has happened in this process. */
unsigned zi_mapping_repairs(void);

#endif
