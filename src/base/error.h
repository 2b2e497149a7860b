/*
 * Errors: a function returns a zimage_status and writes one sentence into the zimage_error of its caller, which may be
 * NULL. A sentence about a value reads "FIELD: VALUE, expected WHAT", after the path of the file if there is one.
 */
#ifndef ZI_BASE_ERROR_H
#define ZI_BASE_ERROR_H

#include <stdarg.h>

#include "zimage.h"

#if defined(__GNUC__)
#define ZI_PRINTF(format_index, first) __attribute__((format(printf, format_index, first)))
#else
#define ZI_PRINTF(format_index, first)
#endif

/*
 * Sets the status and the message of `error` (may be NULL) and returns the status. The message becomes one line of
 * valid UTF-8: control characters and invalid bytes, which paths and names may hold, are written as zimage_printable
 * writes them, and a message that is longer than the buffer is cut between two characters.
 */
zimage_status zi_fail(zimage_error *error, zimage_status status, const char *format, ...) ZI_PRINTF(3, 4);

/* "out of memory: WHAT needs N bytes". Callers that do not know the size pass 0: "out of memory: no room for WHAT". */
zimage_status zi_fail_memory(zimage_error *error, const char *what, size_t bytes);

/* The formatted text, then ": " and what the errno value `code` means. */
zimage_status zi_fail_errno(zimage_error *error, zimage_status status, int code, const char *format, ...)
    ZI_PRINTF(4, 5);

/* clang-tidy reads one file at a time. This tells it that neither function returns ZIMAGE_OK after an error. */
#ifdef __clang_analyzer__
#define zi_fail(error, status, ...) ((void)zi_fail(error, status, __VA_ARGS__), (status))
#define zi_fail_memory(error, ...)  ((void)zi_fail_memory(error, __VA_ARGS__), ZIMAGE_ERROR_MEMORY)
#endif

/* Returns from the calling function with the status of `call` unless it is ZIMAGE_OK. */
#define ZI_TRY(call)                                                                                                   \
    do {                                                                                                               \
        zimage_status zi_try_ = (call);                                                                                \
        if (zi_try_ != ZIMAGE_OK)                                                                                      \
            return zi_try_;                                                                                            \
    } while (0)

/* Where warnings and other messages go; fn may be NULL, then they are dropped. */
typedef struct zi_log {
    void (*fn)(zimage_log_level level, const char *message, void *user);
    void *user;
} zi_log;

void zi_warn(const zi_log *log, const char *format, ...) ZI_PRINTF(2, 3);
void zi_inform(const zi_log *log, const char *format, ...) ZI_PRINTF(2, 3);

#endif
