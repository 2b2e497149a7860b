/* Writing of files. */
#ifndef ZI_SERVE_FILES_H
#define ZI_SERVE_FILES_H

#include <stddef.h>

/* Writes all bytes. 0: it failed; errno says why. */
int file_write(int fd, const void *data, size_t size);

#endif
