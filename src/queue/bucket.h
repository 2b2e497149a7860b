/* A bucket of an S3-compatible store, by libcurl: what store.h says of a bucket. */
#ifndef ZI_QUEUE_BUCKET_H
#define ZI_QUEUE_BUCKET_H

#include "queue/store.h"

typedef struct ledger_bucket ledger_bucket;

/* place: "s3://BUCKET/PREFIX". */
zimage_status ledger_bucket_open(const char *place, ledger_bucket **bucket, zimage_error *error);
void ledger_bucket_close(ledger_bucket *bucket);
zimage_status ledger_bucket_put(ledger_bucket *bucket, const char *name, const void *data, size_t size, int *was_there,
                                zimage_error *error);
zimage_status ledger_bucket_get(ledger_bucket *bucket, const char *name, uint64_t offset, uint64_t bytes, char **data,
                                size_t *size, zimage_error *error);
int ledger_bucket_lacks(ledger_bucket *bucket, const char *name);
void ledger_bucket_remove(ledger_bucket *bucket, const char *name);

#endif
