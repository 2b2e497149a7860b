#include "base/system.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/file.h"

#if defined(__APPLE__)
#include <mach/mach.h>
#include <sys/sysctl.h>
#endif

#define UNKNOWN_CPU "unknown CPU"

/* ---- memory ---- */

#if defined(__APPLE__)

size_t zi_resident_bytes(void)
{
    struct mach_task_basic_info info;
    mach_msg_type_number_t count = MACH_TASK_BASIC_INFO_COUNT;
    if (task_info(mach_task_self(), MACH_TASK_BASIC_INFO, (task_info_t)&info, &count) != KERN_SUCCESS)
        return 0;
    return (size_t)info.resident_size;
}

#elif defined(__linux__)

/* proc(5): the second number of statm is the resident size in pages. */
size_t zi_resident_bytes(void)
{
    unsigned long total, resident;
    FILE *file = fopen("/proc/self/statm", "re");
    if (!file)
        return 0;
    int fields = fscanf(file, "%lu %lu", &total, &resident);
    fclose(file);
    return fields == 2 ? (size_t)resident * (size_t)sysconf(_SC_PAGESIZE) : 0;
}

#else

size_t zi_resident_bytes(void)
{
    return 0;
}

#endif

/* proc(5): the line "VmHWM: 1234 kB" of status; 0: it can't be read. */
static size_t high_water(void)
{
    char line[128];
    unsigned long kib = 0;
    FILE *file = fopen("/proc/self/status", "re");
    while (file && fgets(line, sizeof line, file))
        if (sscanf(line, "VmHWM: %lu", &kib) == 1)
            break;
    if (file)
        fclose(file);
    return (size_t)kib * 1024;
}

/* On Linux getrusage also counts the program that started this one, before it became this one. */
size_t zi_peak_resident_bytes(void)
{
    struct rusage usage;
    size_t peak = high_water();
    if (peak > 0)
        return peak;
    if (getrusage(RUSAGE_SELF, &usage) != 0)
        return 0;
#if defined(__APPLE__)
    return (size_t)usage.ru_maxrss; /* bytes on macOS, KiB elsewhere */
#else
    return (size_t)usage.ru_maxrss * 1024;
#endif
}

size_t zi_physical_bytes(void)
{
#if defined(_SC_PHYS_PAGES)
    long pages = sysconf(_SC_PHYS_PAGES), page = sysconf(_SC_PAGESIZE);
    return pages > 0 && page > 0 ? (size_t)pages * (size_t)page : 0;
#else
    return 0;
#endif
}

/* ---- CPU ---- */

#if defined(__APPLE__)

static int read_cpu_model(char *model, size_t size)
{
    return sysctlbyname("machdep.cpu.brand_string", model, &size, NULL, 0) == 0;
}

#elif defined(__linux__)

/* x86 has lines "model name : TEXT"; arm64 has the number of the design instead, "CPU part : 0xd40". */
static int read_cpu_model(char *model, size_t size)
{
    char line[256];
    int found = 0;
    FILE *file = fopen("/proc/cpuinfo", "re");
    if (!file)
        return 0;
    while (!found && fgets(line, sizeof line, file)) {
        char *colon = strchr(line, ':');
        found = colon && (strncmp(line, "model name", 10) == 0 || strncmp(line, "CPU part", 8) == 0);
        if (!found)
            continue;
        colon[strcspn(colon, "\n")] = 0;
        snprintf(model, size, "%s", colon + 1 + strspn(colon + 1, " \t"));
    }
    fclose(file);
    return found;
}

#else

static int read_cpu_model(char *model, size_t size)
{
    return 0;
}

#endif

void zi_cpu_model(char *model, size_t size)
{
    if (!read_cpu_model(model, size) || !*model)
        snprintf(model, size, "%s", UNKNOWN_CPU);
}

/* ---- the cache folder ---- */

#if defined(__APPLE__)
#define CACHES "Library/Caches"
#else
#define CACHES ".cache"
#endif

char *zi_cache_folder(int create)
{
    const char *base = getenv("XDG_CACHE_HOME"), *home = getenv("HOME");
    char *parent = NULL;
    if (base && *base == '/')
        parent = strdup(base);
    else if (home && *home == '/')
        parent = zi_path_join(home, CACHES);
    char *folder = parent ? zi_path_join(parent, "zimage") : NULL;
    if (create && folder) {
        mkdir(parent, 0755);
        mkdir(folder, 0755);
    }
    free(parent);
    return folder;
}
