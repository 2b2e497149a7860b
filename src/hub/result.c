#include "hub/result.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>

static zimage_status status_of(hub_result result)
{
    switch (result) {
    case HUB_OK:
        return ZIMAGE_OK;
    case HUB_USAGE:
        return ZIMAGE_ERROR_ARGUMENT;
    case HUB_CANCELLED:
        return ZIMAGE_ERROR_CANCELLED;
    case HUB_NETWORK:
    case HUB_CHECKSUM:
        return ZIMAGE_ERROR_FORMAT;
    default:
        return ZIMAGE_ERROR_FILE;
    }
}

hub_result hub_fail(zimage_error *error, hub_result result, const char *format, ...)
{
    char text[sizeof((zimage_error *)NULL)->message];
    va_list arguments;
    va_start(arguments, format);
    vsnprintf(text, sizeof text, format, arguments);
    va_end(arguments);
    zi_fail(error, status_of(result), "%s", text);
    return result;
}

hub_result hub_fail_errno(zimage_error *error, hub_result result, const char *format, ...)
{
    char text[sizeof((zimage_error *)NULL)->message];
    int code = errno;
    va_list arguments;
    va_start(arguments, format);
    vsnprintf(text, sizeof text, format, arguments);
    va_end(arguments);
    zi_fail(error, status_of(result), "%s: %s", text, strerror(code));
    return result;
}
