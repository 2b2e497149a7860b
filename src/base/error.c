#include "base/error.h"

#include <stdio.h>
#include <string.h>

#undef zi_fail /* error.h has macros of these names for clang-tidy */
#undef zi_fail_memory

/* Drops an incomplete UTF-8 character at the end of a text that was cut there. */
static void drop_incomplete(char *text)
{
    size_t length = strlen(text), continuation = 0;
    while (continuation < 3 && continuation < length && (text[length - 1 - continuation] & 0xC0) == 0x80)
        continuation++;
    if (continuation == length)
        return;
    unsigned char lead = (unsigned char)text[length - 1 - continuation];
    size_t whole = lead >= 0xF0 ? 4 : lead >= 0xE0 ? 3 : lead >= 0xC2 ? 2 : 1;
    if (continuation + 1 < whole)
        text[length - 1 - continuation] = 0;
}

/* Formats one printable line. Paths and tensor names come from outside, and must not send control sequences to a
 * terminal: also not where another program prints the message. */
static void format_line(char *line, size_t capacity, const char *format, va_list arguments)
{
    char raw[sizeof((zimage_error *)0)->message];
    int length =
        vsnprintf(raw, sizeof raw, format, arguments); /* NOLINT(clang-analyzer-valist.Uninitialized): clang 14 */
    if (length < 0)
        snprintf(raw, sizeof raw, "the message could not be formatted");
    else if ((size_t)length >= sizeof raw)
        drop_incomplete(raw);
    zimage_printable(raw, line, capacity);
}

/* Writes no byte beyond error->struct_size, which differs where the program was built against another version 0.2.x. */
static zimage_status fail_with(zimage_error *error, zimage_status status, const char *format, va_list arguments)
{
    char line[sizeof error->message]; /* an argument may be error->message itself */
    const size_t begin = offsetof(zimage_error, message);
    if (!error || error->struct_size <= begin)
        return status;
    size_t room = error->struct_size - begin;
    format_line(line, room < sizeof line ? room : sizeof line, format, arguments);
    error->status = status;
    memcpy(error->message, line, strlen(line) + 1);
    return status;
}

zimage_status zi_fail(zimage_error *error, zimage_status status, const char *format, ...)
{
    va_list arguments;
    va_start(arguments, format);
    fail_with(error, status, format, arguments);
    va_end(arguments);
    return status;
}

zimage_status zi_fail_memory(zimage_error *error, const char *what, size_t bytes)
{
    if (bytes == 0)
        return zi_fail(error, ZIMAGE_ERROR_MEMORY, "out of memory: no room for %s", what);
    return zi_fail(error, ZIMAGE_ERROR_MEMORY, "out of memory: %s needs %zu bytes", what, bytes);
}

/* Not strerror: its buffer may belong to all threads together. */
static const char *errno_text(int code, char *buffer, size_t size)
{
#if defined(__GLIBC__) && defined(_GNU_SOURCE)
    return strerror_r(code, buffer, size);
#else
    if (strerror_r(code, buffer, size) != 0)
        snprintf(buffer, size, "error %d", code);
    return buffer;
#endif
}

zimage_status zi_fail_errno(zimage_error *error, zimage_status status, int code, const char *format, ...)
{
    char what[1024], buffer[128];
    va_list arguments;
    va_start(arguments, format);
    format_line(what, sizeof what, format, arguments);
    va_end(arguments);
    return zi_fail(error, status, "%s: %s", what, errno_text(code, buffer, sizeof buffer));
}

static void log_line(const zi_log *log, zimage_log_level level, const char *format, va_list arguments)
{
    char line[sizeof((zimage_error *)0)->message];
    format_line(line, sizeof line, format, arguments);
    log->fn(level, line, log->user);
}

void zi_warn(const zi_log *log, const char *format, ...)
{
    if (!log || !log->fn)
        return;
    va_list arguments;
    va_start(arguments, format);
    log_line(log, ZIMAGE_LOG_WARNING, format, arguments);
    va_end(arguments);
}

void zi_inform(const zi_log *log, const char *format, ...)
{
    if (!log || !log->fn)
        return;
    va_list arguments;
    va_start(arguments, format);
    log_line(log, ZIMAGE_LOG_INFO, format, arguments);
    va_end(arguments);
}
