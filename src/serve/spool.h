/* Bytes that arrive one after the other: in memory while they are few, then in a temporary file that has no name. */
#ifndef ZI_SERVE_SPOOL_H
#define ZI_SERVE_SPOOL_H

#include <stddef.h>

#define SPOOL_MEMORY_MAX ((size_t)1 << 20)

/* All zeros: empty. */
typedef struct spool {
    char *data; /* NULL: none, or they are in the file */
    size_t size, allocated;
    int has_file, file;
    void *mapped;
} spool;

/* 0: there is no memory, or no room for the file. */
int spool_append(spool *s, const char *data, size_t size);
/* All bytes, until the next call. NULL: the file can't be mapped. */
const char *spool_view(spool *s);
void spool_free(spool *s);

#endif
