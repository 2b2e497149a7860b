#include "base/sized.h"

#include <string.h>

static uint32_t size_of(const void *caller)
{
    uint32_t size;
    memcpy(&size, caller, sizeof size);
    return size;
}

static zimage_status check_size(const void *caller, size_t first_size, const char *name, zimage_error *error)
{
    if (size_of(caller) >= first_size)
        return ZIMAGE_OK;
    return zi_fail(error, ZIMAGE_ERROR_ARGUMENT, "%s.struct_size: %u, expected sizeof(%s), at least %zu", name,
                   size_of(caller), name, first_size);
}

zimage_status zi_take_struct(void *own, size_t own_size, size_t first_size, const void *caller, const char *name,
                             zimage_error *error)
{
    memset(own, 0, own_size);
    if (!caller)
        return ZIMAGE_OK;
    ZI_TRY(check_size(caller, first_size, name, error));
    size_t size = size_of(caller);
    memcpy(own, caller, size < own_size ? size : own_size);
    for (size_t i = own_size; i < size; i++)
        if (((const uint8_t *)caller)[i] != 0)
            return zi_fail(error, ZIMAGE_ERROR_UNSUPPORTED,
                           "%s: a field after byte %zu is set, which zimage %d.%d.%d does not know; expected 0, or a "
                           "newer library",
                           name, own_size, ZIMAGE_VERSION_MAJOR, ZIMAGE_VERSION_MINOR, ZIMAGE_VERSION_PATCH);
    return ZIMAGE_OK;
}

zimage_status zi_give_struct(void *caller, const void *own, size_t own_size, size_t first_size, const char *name,
                             zimage_error *error)
{
    if (!caller)
        return zi_fail(error, ZIMAGE_ERROR_ARGUMENT, "%s: NULL, expected where to put the result", name);
    ZI_TRY(check_size(caller, first_size, name, error));
    uint32_t size = size_of(caller);
    memset(caller, 0, size);
    memcpy(caller, own, size < own_size ? size : own_size);
    memcpy(caller, &size, sizeof size);
    return ZIMAGE_OK;
}
