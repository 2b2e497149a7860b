#include "base/error.h"

#include <stdio.h>
#include <string.h>

#undef zi_fail /* error.h has macros of these names for clang-tidy */
#undef zi_fail_memory

/* Bytes of the well-formed UTF-8 sequence at text (zero-terminated), or 0. Unicode 15, table 3-7. */
static size_t sequence_length(const unsigned char *text)
{
    unsigned char low = 0x80, high = 0xBF;
    size_t length = 0;
    if (text[0] < 0x80)
        return 1;
    if (text[0] >= 0xC2 && text[0] <= 0xDF)
        length = 2;
    else if (text[0] >= 0xE0 && text[0] <= 0xEF)
        length = 3;
    else if (text[0] >= 0xF0 && text[0] <= 0xF4)
        length = 4;
    if (text[0] == 0xE0)
        low = 0xA0; /* overlong */
    else if (text[0] == 0xED)
        high = 0x9F; /* surrogates */
    else if (text[0] == 0xF0)
        low = 0x90;
    else if (text[0] == 0xF4)
        high = 0x8F;
    for (size_t i = 1; i < length; i++) {
        if (text[i] < low || text[i] > high)
            return 0;
        low = 0x80;
        high = 0xBF;
    }
    return length;
}

static int is_control(const unsigned char *text)
{
    return text[0] < 0x20 || text[0] == 0x7F || (text[0] == 0xC2 && text[1] < 0xA0);
}

/*
 * Makes text one line of valid UTF-8. Paths and tensor names come from outside, and must not send control sequences to
 * a terminal. cut: the text was cut at its end, so an incomplete character there is dropped.
 */
static void make_printable(char *text, int cut)
{
    size_t length = strlen(text), kept = 0;
    for (size_t at = 0; at < length;) {
        const unsigned char *sequence = (const unsigned char *)text + at;
        size_t bytes = sequence_length(sequence);
        if (bytes == 0 && cut && length - at < 4 && sequence[0] >= 0xC2)
            break;
        if (bytes == 0 || is_control(sequence)) {
            text[kept++] = bytes == 0 ? '?' : ' ';
            at += bytes == 0 ? 1 : bytes;
            continue;
        }
        memmove(text + kept, sequence, bytes);
        kept += bytes;
        at += bytes;
    }
    text[kept] = 0;
}

static void format_line(char *line, size_t capacity, const char *format, va_list arguments)
{
    int length =
        vsnprintf(line, capacity, format, arguments); /* NOLINT(clang-analyzer-valist.Uninitialized): clang 14 */
    if (length < 0)
        snprintf(line, capacity, "the message could not be formatted");
    make_printable(line, length >= 0 && (size_t)length >= capacity);
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
