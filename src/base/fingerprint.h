/* Numbers that tell two contents apart which nobody has made to look alike: FNV-1a of 128 bits. */
#ifndef ZI_BASE_FINGERPRINT_H
#define ZI_BASE_FINGERPRINT_H

#include <stddef.h>

typedef struct zi_fingerprint {
    unsigned __int128 state;
} zi_fingerprint;

#define ZI_FINGERPRINT_SIZE 33 /* of its text: 32 hexadecimal digits */

void zi_fingerprint_begin(zi_fingerprint *f);
void zi_fingerprint_add(zi_fingerprint *f, const void *data, size_t size);
/* Adds a text and its end. */
void zi_fingerprint_add_text(zi_fingerprint *f, const char *text);
void zi_fingerprint_print(const zi_fingerprint *f, char text[ZI_FINGERPRINT_SIZE]);

#endif
