/*
 * Hashes of files, computed on a thread of their own: what is complete from the beginning on is read back and hashed
 * while the rest arrives. So the hash is that of the file, not that of what was received. At the end the thread also
 * syncs the file.
 */
#ifndef ZI_HUB_HASH_H
#define ZI_HUB_HASH_H

#include <gnutls/crypto.h>
#include <gnutls/gnutls.h>
#include <pthread.h>

#include "hub/listing.h"

/* One file that is hashed. The fields are the thread's own but for those of the other group. */
typedef struct hub_hash {
    struct hub_hash *next;
    int file; /* descriptor, of the caller */
    uint64_t size, hashed;
    gnutls_hash_hd_t state;
    char etag[HUB_ETAG_MAX];   /* what is expected */
    char digest[HUB_ETAG_MAX]; /* hexadecimal */
    int code;                  /* errno value of a failure */
    /* behind the hasher's lock */
    uint64_t available; /* bytes that may be read */
    int is_done;
} hub_hash;

typedef struct hub_hasher {
    pthread_t thread;
    pthread_mutex_t lock;
    pthread_cond_t change;
    hub_hash *hashes, *under_way;
    int ends;
    void (*wake)(void *user); /* called by the thread when a file is done */
    void *user;
} hub_hasher;

hub_result hub_hasher_begin(hub_hasher *hasher, void (*wake)(void *user), void *user, zimage_error *error);
void hub_hasher_end(hub_hasher *hasher);

/* The kind of the hash follows from the etag: SHA-256, or git's SHA-1, which begins with "blob SIZE" and a zero. NULL:
 * no memory. Released with hub_hash_free, which waits until the thread leaves it. */
hub_hash *hub_hash_new(hub_hasher *hasher, int file, const hub_file *of);
/* Says how many bytes may be read from the beginning on. */
void hub_hash_advance(hub_hasher *hasher, hub_hash *hash, uint64_t available);
int hub_hash_is_done(hub_hasher *hasher, hub_hash *hash);
void hub_hash_free(hub_hasher *hasher, hub_hash *hash);

/* The same on the caller's thread: whether the file has the hash. digest: what it has. progress may be NULL; anything
 * but 0 from it stops. */
hub_result hub_hash_file(int file, const hub_file *of, char digest[HUB_ETAG_MAX],
                         int (*progress)(uint64_t bytes, void *user), void *user, zimage_error *error);

#endif
