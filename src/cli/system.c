/* What the program asks the operating system for; Linux and macOS have a branch each. */
#include <limits.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
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
