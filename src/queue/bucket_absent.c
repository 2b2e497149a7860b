/* In place of bucket.c, where the program was built without libcurl. */
#include "base/error.h"
#include "queue/bucket.h"

static zimage_status refuse(zimage_error *error)
{
    return zi_fail(error, ZIMAGE_ERROR_UNSUPPORTED,
                   "this build has no " STORE_BUCKET " places: it was made without libcurl");
}

zimage_status ledger_bucket_open(const char *place, ledger_bucket **bucket, zimage_error *error)
{
    *bucket = NULL;
    return refuse(error);
}

void ledger_bucket_close(ledger_bucket *bucket)
{
}

zimage_status ledger_bucket_put(ledger_bucket *bucket, const char *name, const void *data, size_t size, int *was_there,
                                zimage_error *error)
{
    *was_there = 0;
    return refuse(error);
}

zimage_status ledger_bucket_get(ledger_bucket *bucket, const char *name, uint64_t offset, uint64_t bytes, char **data,
                                size_t *size, zimage_error *error)
{
    *data = NULL;
    *size = 0;
    return refuse(error);
}

int ledger_bucket_lacks(ledger_bucket *bucket, const char *name)
{
    return 0;
}

void ledger_bucket_remove(ledger_bucket *bucket, const char *name)
{
}
