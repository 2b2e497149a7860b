/* What is wrong with a request: one table of codes (fault.c), from which statuses, headers and /openapi.json come. */
#ifndef ZI_SERVE_FAULT_H
#define ZI_SERVE_FAULT_H

#include <jansson.h>

#include "zimage.h"

typedef enum fault_code {
    FAULT_NONE,
    FAULT_INVALID_JSON,
    FAULT_INVALID_VALUE,
    FAULT_UNKNOWN_PARAMETER,
    FAULT_UNSUPPORTED_VALUE,
    FAULT_UNSUPPORTED_PARAMETER,
    FAULT_MISSING_PARAMETER,
    FAULT_STRING_TOO_LONG,
    FAULT_INVALID_IMAGE,
    FAULT_UNSUPPORTED_MODEL,
    FAULT_INVALID_API_KEY,
    FAULT_HOST_NOT_ALLOWED,
    FAULT_ORIGIN_NOT_ALLOWED,
    FAULT_SWITCH_NOT_ALLOWED,
    FAULT_MODEL_NOT_FOUND,
    FAULT_JOB_NOT_FOUND,
    FAULT_RECIPE_NOT_FOUND,
    FAULT_FILE_NOT_FOUND,
    FAULT_UNSUPPORTED_ENDPOINT,
    FAULT_METHOD_NOT_ALLOWED,
    FAULT_BODY_TIMEOUT,
    FAULT_JOB_FINISHED,
    FAULT_IDEMPOTENCY_MISMATCH,
    FAULT_REQUEST_TOO_LARGE,
    FAULT_UNSUPPORTED_MEDIA_TYPE,
    FAULT_QUEUE_FULL,
    FAULT_RATE_LIMIT,
    FAULT_WAIT_EXCEEDS_TIMEOUT,
    FAULT_INTERNAL,
    FAULT_NOT_FINITE,
    FAULT_CANCELLED,
    FAULT_MODEL_LOADING,
    FAULT_MODEL_FAILED,
    FAULT_SHUTTING_DOWN,
    FAULT_NO_WORKER,
    FAULT_LEDGER_LOST,
    FAULT_INSUFFICIENT_MEMORY,
    FAULT_CODES,
} fault_code;

typedef struct fault {
    fault_code code;
    char param[64];     /* the field; empty: none */
    char message[1024]; /* one sentence */
    double retry_after; /* seconds; 0: the header is not sent */
} fault;

typedef struct fault_kind {
    const char *code, *type;
    int status;   /* HTTP */
    int no_retry; /* 1: "x-should-retry: false", because clients repeat such a status otherwise */
} fault_kind;

const fault_kind *fault_kind_of(fault_code code);

/* Sets a fault and returns 0, for functions that return 1 if all is well. param may be NULL. */
int fault_set(fault *f, fault_code code, const char *param, const char *format, ...)
    __attribute__((format(printf, 4, 5)));

/* The fault of a library's error. A message about files is replaced, because it names folders of this machine. */
int fault_of_error(fault *f, const zimage_error *error);

/* {"message", "type", "param", "code"}, the object that OpenAI's clients read. NULL: no memory. */
json_t *fault_json(const fault *f);

#endif
