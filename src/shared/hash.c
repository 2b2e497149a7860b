#include "hash.h"

#include <gnutls/crypto.h>
#include <gnutls/gnutls.h>
#include <stdio.h>

#define SHA256_BYTES 32

void hash_write(const unsigned char *bytes, size_t digits, char *text)
{
    for (size_t i = 0; i < digits / 2; i++)
        snprintf(text + 2 * i, 3, "%02x", bytes[i]);
}

int hash_sha256(const hash_piece *pieces, size_t count, char text[HASH_TEXT])
{
    unsigned char bytes[SHA256_BYTES] = {0};
    gnutls_hash_hd_t state;
    int ok = gnutls_hash_init(&state, GNUTLS_DIG_SHA256) == 0;
    if (!ok)
        return 0;
    for (size_t i = 0; i < count && ok; i++)
        ok = pieces[i].size == 0 || gnutls_hash(state, pieces[i].data, pieces[i].size) == 0;
    gnutls_hash_deinit(state, bytes);
    hash_write(bytes, HASH_TEXT - 1, text);
    return ok;
}
