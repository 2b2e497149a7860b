/* The folder of the program's caches. */
#ifndef ZI_SHARED_OWN_CACHE_H
#define ZI_SHARED_OWN_CACHE_H

#include <limits.h>

/* $XDG_CACHE_HOME/zimage, else ~/.cache/zimage, on macOS ~/Library/Caches/zimage. Variables that are no absolute paths
 * do not count (XDG Base Directory Specification). 0: there is none, or its path is too long. */
int own_cache_folder(char folder[PATH_MAX]);

#endif
