/* The files of the web page, which the build puts into the program (cmake/page.cmake). */
#ifndef ZI_SERVE_PAGE_H
#define ZI_SERVE_PAGE_H

#include <stddef.h>

typedef struct page_file {
    const char *name;          /* "app.js" */
    const char *tag;           /* for ETag: another one for another content */
    const unsigned char *data; /* compressed by gzip */
    size_t size;               /* of data */
    size_t whole;              /* bytes of the file itself */
} page_file;

extern const page_file page_files[];
extern const size_t page_file_count;

#endif
