#include "engine/plugin.h"

#include <dlfcn.h>
#include <stdio.h>

#include "base/library.h"

#if defined(__APPLE__)
#define SUFFIX "dylib"
#else
#define SUFFIX "so"
#endif

typedef int abi_fn(size_t *layout);

zimage_status zi_plugin_open(const zi_plugin *plugin, zi_plugin_fn *functions[ZI_PLUGIN_SYMBOLS], zimage_error *error)
{
    char file[64], why[400];
    size_t layout = 0;
    snprintf(file, sizeof file, "libzimage-%s." SUFFIX, plugin->name);
    void *library = zi_library_open(file, why, sizeof why);
    if (!library)
        return zi_fail(error, ZIMAGE_ERROR_UNSUPPORTED,
                       "no %s device: %s can't be loaded (%s); expected it beside the program, in its ../lib or in "
                       "the system's folder of libraries",
                       plugin->devices, file, why);
    abi_fn *abi = (abi_fn *)dlsym(library, plugin->abi_symbol);
    int same = abi && abi(&layout) == plugin->abi && layout == plugin->layout;
    for (int i = 0; i < ZI_PLUGIN_SYMBOLS; i++) {
        functions[i] = (zi_plugin_fn *)dlsym(library, plugin->symbols[i]);
        same = same && functions[i];
    }
    dlclose(library); /* RTLD_NODELETE: its code stays */
    if (!same)
        return zi_fail(error, ZIMAGE_ERROR_UNSUPPORTED,
                       "no %s device: %s belongs to another version; expected one built with zimage %s",
                       plugin->devices, file, zimage_version());
    return ZIMAGE_OK;
}
