/* Backends in libraries of their own, which are opened at run time: most machines lack what they need. */
#ifndef ZI_ENGINE_PLUGIN_H
#define ZI_ENGINE_PLUGIN_H

#include "base/error.h"

#define ZI_PLUGIN_SYMBOLS 2

typedef struct zi_plugin {
    const char *name;    /* "cuda": the library is libzimage-cuda.so, or .dylib */
    const char *devices; /* "CUDA", for messages */
    /* int ABI(size_t *layout), a function of the library, must return `abi` and set *layout to `layout`. */
    const char *abi_symbol;
    int abi;
    size_t layout;
    const char *symbols[ZI_PLUGIN_SYMBOLS];
} zi_plugin;

/* Any function; the caller converts it to its own type. */
typedef void zi_plugin_fn(void);

/* Opens the library and finds its functions. ZIMAGE_ERROR_UNSUPPORTED: it is not there, can't be loaded, or belongs to
 * another version of zimage. */
zimage_status zi_plugin_open(const zi_plugin *plugin, zi_plugin_fn *functions[ZI_PLUGIN_SYMBOLS], zimage_error *error);

#endif
