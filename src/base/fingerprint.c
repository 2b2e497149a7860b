#include "base/fingerprint.h"

#include <stdint.h>
#include <stdio.h>
#include <string.h>

/* draft-eastlake-fnv-17, 5: the offset basis 0x6c62272e07bb014262b821756295c58d and the prime 2^88 + 0x13b */
#define START (((unsigned __int128)UINT64_C(0x6c62272e07bb0142) << 64) + UINT64_C(0x62b821756295c58d))
#define PRIME (((unsigned __int128)1 << 88) + 0x13b)

void zi_fingerprint_begin(zi_fingerprint *f)
{
    f->state = START;
}

void zi_fingerprint_add(zi_fingerprint *f, const void *data, size_t size)
{
    const uint8_t *bytes = data;
    for (size_t i = 0; i < size; i++)
        f->state = (f->state ^ bytes[i]) * PRIME;
}

void zi_fingerprint_add_text(zi_fingerprint *f, const char *text)
{
    zi_fingerprint_add(f, text, strlen(text) + 1);
}

void zi_fingerprint_print(const zi_fingerprint *f, char text[ZI_FINGERPRINT_SIZE])
{
    snprintf(text, ZI_FINGERPRINT_SIZE, "%016llx%016llx", (unsigned long long)(f->state >> 64),
             (unsigned long long)f->state);
}
