/* SHA-256 of data in memory, as text. */
#ifndef ZI_SHARED_HASH_H
#define ZI_SHARED_HASH_H

#include <stddef.h>

#define HASH_TEXT 65 /* 64 hexadecimal digits and a zero */

typedef struct hash_piece {
    const void *data;
    size_t size;
} hash_piece;

/* The hash of pieces, one behind the other. 0: no memory. */
int hash_sha256(const hash_piece *pieces, size_t count, char text[HASH_TEXT]);

/* The first `digits` hexadecimal digits of a hash, and a zero. */
void hash_write(const unsigned char *bytes, size_t digits, char *text);

#endif
