/* What the functions of the hub client return: one value for each kind of failure, which is the exit code. */
#ifndef ZI_HUB_RESULT_H
#define ZI_HUB_RESULT_H

#include "base/error.h"

typedef enum hub_result {
    HUB_OK = 0,
    HUB_FAILED = 1,    /* memory, a file of the cache that is not what it should be */
    HUB_USAGE = 2,     /* a parameter is wrong */
    HUB_NOT_FOUND = 3, /* there is no such model, revision or file */
    HUB_REFUSED = 4,   /* the hub asks for a licence or a token */
    HUB_NETWORK = 5,   /* no answer, or an answer that makes no sense */
    HUB_DISK = 6,      /* the cache can't be written, or is full */
    HUB_CHECKSUM = 7,  /* a file is not the one that the hub announced */
    HUB_CANCELLED = 8, /* the caller asked to stop; no exit code */
} hub_result;

/* Writes the sentence and returns the result. */
hub_result hub_fail(zimage_error *error, hub_result result, const char *format, ...) ZI_PRINTF(3, 4);
/* The same, with ": " and what errno means behind it. */
hub_result hub_fail_errno(zimage_error *error, hub_result result, const char *format, ...) ZI_PRINTF(3, 4);

#define HUB_TRY(call)                                                                                                  \
    do {                                                                                                               \
        hub_result hub_try_ = (call);                                                                                  \
        if (hub_try_ != HUB_OK)                                                                                        \
            return hub_try_;                                                                                           \
    } while (0)

#endif
