/* What the program asks the operating system for; Linux and macOS have a branch each. */
#include <limits.h>
#include <stdlib.h>
#include <sys/resource.h>
#include <time.h>
#include <unistd.h>

#if defined(__APPLE__)
#include <mach-o/dyld.h>
#endif

#include "cli.h"

int cli_program_path(char *path, size_t size)
{
    char resolved[PATH_MAX];
#if defined(__APPLE__)
    char named[PATH_MAX];
    uint32_t capacity = sizeof named;
    if (_NSGetExecutablePath(named, &capacity) != 0 || !realpath(named, resolved))
        return 0;
#else
    ssize_t length = readlink("/proc/self/exe", resolved, sizeof resolved - 1);
    if (length <= 0)
        return 0;
    resolved[length] = 0;
#endif
    return snprintf(path, size, "%s", resolved) < (int)size;
}

uint64_t cli_peak_resident_bytes(void)
{
    struct rusage usage;
    if (getrusage(RUSAGE_SELF, &usage) != 0)
        return 0;
#if defined(__APPLE__)
    return (uint64_t)usage.ru_maxrss; /* bytes on macOS, KiB elsewhere */
#else
    return (uint64_t)usage.ru_maxrss * 1024;
#endif
}

double cli_seconds_now(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec + 1e-9 * (double)t.tv_nsec;
}

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

const char *cli_cache_folder(const cli_options *options)
{
    static char folder[PATH_MAX];
    const char *base = folder_variable("XDG_CACHE_HOME"), *home = folder_variable("HOME");
    int length = 0;
    if (options->no_cache)
        return NULL;
    if (options->cache_dir)
        return options->cache_dir;
    if (base)
        length = snprintf(folder, sizeof folder, "%s/zimage", base);
    else if (home)
        length = snprintf(folder, sizeof folder, "%s/" HOME_CACHE "/zimage", home);
    return length > 0 && length < (int)sizeof folder ? folder : NULL;
}
