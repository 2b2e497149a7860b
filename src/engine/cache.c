#include "engine/cache.h"

#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "base/file.h"

char *zi_cache_folder(int create)
{
    const char *base = getenv("XDG_CACHE_HOME"), *home = getenv("HOME");
    char *parent = base && *base == '/' ? strdup(base) : home && *home == '/' ? zi_path_join(home, ".cache") : NULL;
    char *folder = parent ? zi_path_join(parent, "zimage") : NULL;
    if (create && folder) {
        mkdir(parent, 0755);
        mkdir(folder, 0755);
    }
    free(parent);
    return folder;
}
