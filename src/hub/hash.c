#include "hub/hash.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "shared/hash.h"

#define PIECE ((size_t)1 << 20)

/* ---- one file ---- */

/* The hash that an etag is: SHA-256, or git's SHA-1 of "blob SIZE", a zero and the content. 0: no memory. */
static int begin_state(const hub_file *of, gnutls_hash_hd_t *state)
{
    char head[64];
    int is_git = strlen(of->etag) == 40;
    int length = snprintf(head, sizeof head, "blob %llu", (unsigned long long)of->size);
    if (gnutls_hash_init(state, is_git ? GNUTLS_DIG_SHA1 : GNUTLS_DIG_SHA256) != 0)
        return 0;
    if (!is_git || gnutls_hash(*state, head, (size_t)length + 1) == 0)
        return 1;
    gnutls_hash_deinit(*state, NULL);
    return 0;
}

static void end_state(gnutls_hash_hd_t state, const char *etag, char digest[HUB_ETAG_MAX])
{
    unsigned char bytes[HUB_ETAG_MAX];
    gnutls_hash_output(state, bytes);
    hash_write(bytes, strlen(etag), digest);
}

/* Hashes the next piece, of at most `bytes`. 0, or an errno value. */
static int hash_next(int file, gnutls_hash_hd_t state, uint64_t *hashed, uint64_t bytes, void *buffer)
{
    ssize_t size = pread(file, buffer, bytes < PIECE ? (size_t)bytes : PIECE, (off_t)*hashed);
    if (size < 0)
        return errno == EINTR ? 0 : errno;
    if (size == 0)
        return ENODATA;
    *hashed += (uint64_t)size;
    return gnutls_hash(state, buffer, (size_t)size) == 0 ? 0 : ENOMEM;
}

hub_result hub_hash_file(int file, const hub_file *of, char digest[HUB_ETAG_MAX],
                         int (*progress)(uint64_t bytes, void *user), void *user, zimage_error *error)
{
    void *buffer = malloc(PIECE);
    gnutls_hash_hd_t state;
    uint64_t hashed = 0;
    int has_state = begin_state(of, &state), code = buffer && has_state ? 0 : ENOMEM, is_stopped = 0;
    while (!code && hashed < of->size && !is_stopped) {
        code = hash_next(file, state, &hashed, of->size - hashed, buffer);
        is_stopped = progress && progress(hashed, user);
    }
    if (!code)
        end_state(state, of->etag, digest);
    if (has_state)
        gnutls_hash_deinit(state, NULL);
    free(buffer);
    errno = code;
    if (is_stopped)
        return hub_fail(error, HUB_CANCELLED, "interrupted");
    return code ? hub_fail_errno(error, HUB_DISK, "%s: can't be read", of->path) : HUB_OK;
}

/* ---- the thread ---- */

static hub_hash *find_work(hub_hasher *hasher)
{
    for (hub_hash *hash = hasher->hashes; hash; hash = hash->next)
        if (!hash->is_done && (hash->available > hash->hashed || hash->hashed == hash->size))
            return hash;
    return NULL;
}

/* Without the lock. */
static void work_on(hub_hash *hash, uint64_t available, void *buffer)
{
    if (hash->hashed < available)
        hash->code = hash_next(hash->file, hash->state, &hash->hashed, available - hash->hashed, buffer);
    if (hash->code || hash->hashed < hash->size)
        return;
    if (fsync(hash->file) != 0) /* may take seconds: not on the thread that receives */
        hash->code = errno;
    else
        end_state(hash->state, hash->etag, hash->digest);
}

static void *run(void *argument)
{
    hub_hasher *hasher = argument;
    void *buffer = malloc(PIECE);
    pthread_mutex_lock(&hasher->lock);
    while (!hasher->ends) {
        hub_hash *hash = find_work(hasher);
        if (!hash) {
            pthread_cond_wait(&hasher->change, &hasher->lock);
            continue;
        }
        uint64_t available = hash->available;
        hasher->under_way = hash;
        pthread_mutex_unlock(&hasher->lock);
        if (buffer)
            work_on(hash, available, buffer);
        else
            hash->code = ENOMEM;
        pthread_mutex_lock(&hasher->lock);
        hasher->under_way = NULL;
        hash->is_done = hash->code || *hash->digest;
        pthread_cond_broadcast(&hasher->change);
        if (hash->is_done)
            hasher->wake(hasher->user);
    }
    pthread_mutex_unlock(&hasher->lock);
    free(buffer);
    return NULL;
}

hub_result hub_hasher_begin(hub_hasher *hasher, void (*wake)(void *user), void *user, zimage_error *error)
{
    *hasher = (hub_hasher){.wake = wake, .user = user};
    pthread_mutex_init(&hasher->lock, NULL);
    pthread_cond_init(&hasher->change, NULL);
    errno = pthread_create(&hasher->thread, NULL, run, hasher);
    if (errno == 0)
        return HUB_OK;
    hub_fail_errno(error, HUB_FAILED, "no thread for hashing can be started");
    pthread_cond_destroy(&hasher->change);
    pthread_mutex_destroy(&hasher->lock);
    return HUB_FAILED;
}

void hub_hasher_end(hub_hasher *hasher)
{
    pthread_mutex_lock(&hasher->lock);
    hasher->ends = 1;
    pthread_cond_broadcast(&hasher->change);
    pthread_mutex_unlock(&hasher->lock);
    pthread_join(hasher->thread, NULL);
    pthread_cond_destroy(&hasher->change);
    pthread_mutex_destroy(&hasher->lock);
}

hub_hash *hub_hash_new(hub_hasher *hasher, int file, const hub_file *of)
{
    hub_hash *hash = calloc(1, sizeof *hash);
    if (!hash)
        return NULL;
    hash->file = file;
    hash->size = of->size;
    snprintf(hash->etag, sizeof hash->etag, "%s", of->etag);
    if (!begin_state(of, &hash->state)) {
        free(hash);
        return NULL;
    }
    pthread_mutex_lock(&hasher->lock);
    hash->next = hasher->hashes;
    hasher->hashes = hash;
    pthread_cond_broadcast(&hasher->change);
    pthread_mutex_unlock(&hasher->lock);
    return hash;
}

void hub_hash_advance(hub_hasher *hasher, hub_hash *hash, uint64_t available)
{
    pthread_mutex_lock(&hasher->lock);
    hash->available = available;
    pthread_cond_broadcast(&hasher->change);
    pthread_mutex_unlock(&hasher->lock);
}

int hub_hash_is_done(hub_hasher *hasher, hub_hash *hash)
{
    pthread_mutex_lock(&hasher->lock);
    int is_done = hash->is_done;
    pthread_mutex_unlock(&hasher->lock);
    return is_done;
}

void hub_hash_free(hub_hasher *hasher, hub_hash *hash)
{
    if (!hash)
        return;
    pthread_mutex_lock(&hasher->lock);
    while (hasher->under_way == hash)
        pthread_cond_wait(&hasher->change, &hasher->lock);
    hub_hash **link = &hasher->hashes;
    while (*link != hash)
        link = &(*link)->next;
    *link = hash->next;
    pthread_mutex_unlock(&hasher->lock);
    gnutls_hash_deinit(hash->state, NULL);
    free(hash);
}
