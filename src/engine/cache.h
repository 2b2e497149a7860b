/* Where what was measured is kept from one process to the next. */
#ifndef ZI_ENGINE_CACHE_H
#define ZI_ENGINE_CACHE_H

/* $XDG_CACHE_HOME/zimage, or ~/.cache/zimage, made if `create`; free() it. NULL: there is no place for it. */
char *zi_cache_folder(int create);

#endif
