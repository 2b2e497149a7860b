/* Base64 of RFC 4648. */
#ifndef ZI_SHARED_BASE64_H
#define ZI_SHARED_BASE64_H

#include <stddef.h>
#include <stdint.h>

/* Bytes of the text of `size` bytes, with its padding and without a zero. */
size_t base64_length(size_t size);
/* Writes `count` characters of that text, the first of them the one at `at`. */
void base64_write(const uint8_t *data, size_t size, size_t at, char *text, size_t count);
/* Decodes a text, in which line breaks may stand. *data [*size] is released with free. 0: it is no base64, or there is
 * no memory. */
int base64_read(const char *text, size_t length, uint8_t **data, size_t *size);

#endif
