#include "own_cache.h"

#include <stdio.h>
#include <stdlib.h>

#if defined(__APPLE__)
#define HOME_CACHE "Library/Caches"
#else
#define HOME_CACHE ".cache"
#endif

/* The variable's value, if that is an absolute path. */
static const char *folder_variable(const char *name)
{
    const char *value = getenv(name);
    return value && *value == '/' ? value : NULL;
}

int own_cache_folder(char folder[PATH_MAX])
{
    const char *base = folder_variable("XDG_CACHE_HOME"), *home = folder_variable("HOME");
    int length = 0;
    if (base)
        length = snprintf(folder, PATH_MAX, "%s/zimage", base);
    else if (home)
        length = snprintf(folder, PATH_MAX, "%s/" HOME_CACHE "/zimage", home);
    return length > 0 && length < PATH_MAX;
}
