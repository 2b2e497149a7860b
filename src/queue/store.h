/* Where results lie: a folder, or a bucket of an S3-compatible store. What lies there is called an object; its name is
 * relative, "ab/cd/KEY.png". An object appears once and whole, and is never replaced. */
#ifndef ZI_QUEUE_STORE_H
#define ZI_QUEUE_STORE_H

#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include "zimage.h"

#define STORE_OBJECT_MAX ((size_t)1 << 30) /* bytes that are read at once */
#define STORE_BUCKET     "s3://"           /* begins the name of a place that is no folder */

static inline int ledger_store_is_bucket(const char *place)
{
    return strncmp(place, STORE_BUCKET, strlen(STORE_BUCKET)) == 0;
}

/* Whether a place has a mistake in its name that would make a folder of it: "s3:/b/c", "gs://b/c". */
static inline int ledger_store_is_mistyped(const char *place)
{
    return !ledger_store_is_bucket(place) && (strstr(place, "://") || strncmp(place, "s3:", strlen("s3:")) == 0);
}
#define STORE_EXPECTED "expected a folder or " STORE_BUCKET "BUCKET/PREFIX"

#define STORE_INPUTS "inputs/" /* begins the names of input images (inputs.c) */

/* One thread uses a store at a time. */
typedef struct ledger_store ledger_store;

/* place: a folder, or "s3://BUCKET" or "s3://BUCKET/PREFIX". A bucket is asked whether it can be written to, and
 * whether it keeps objects that are there; its credentials are in the environment, see docs/scale.md. *store is
 * released with ledger_store_close; NULL after a failure. */
zimage_status ledger_store_open(const char *place, ledger_store **store, zimage_error *error);
void ledger_store_close(ledger_store *store);
/* The place, for messages. */
const char *ledger_store_place(const ledger_store *store);

/* Stores an object, and waits until it is safe on the disk. *was_there 1: there is one of this name, which stays.
 * by_key 1: the name begins with two folders of two hexadecimal digits each, perhaps behind STORE_INPUTS, which are
 * made; 0: no folder is made. */
zimage_status ledger_store_put(ledger_store *store, const char *name, int by_key, const void *data, size_t size,
                               int *was_there, zimage_error *error);

/* Reads `bytes` from `offset` on, or with bytes 0 all of the object. The name may come from a stranger. *data is
 * released with free; NULL after a failure. */
zimage_status ledger_store_get(ledger_store *store, const char *name, uint64_t offset, uint64_t bytes, char **data,
                               size_t *size, zimage_error *error);

/* Whether it is certain that there is no object of that name, or none that could be read; 0 also if nobody knows. */
int ledger_store_lacks(ledger_store *store, const char *name);

/* Removes an object, if it is there. The name may come from a stranger. */
void ledger_store_remove(ledger_store *store, const char *name);

#endif
