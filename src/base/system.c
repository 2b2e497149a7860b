#include "base/system.h"

#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <sys/resource.h>
#include <unistd.h>

#if defined(__APPLE__)
#include <mach/mach.h>
#include <sys/sysctl.h>
#endif

#define UNKNOWN_CPU "unknown CPU"

#if defined(__APPLE__)

/* ---- macOS: Mach's task_info, sysctl(3) -------------------------------------------------------------------------- */

size_t zi_resident_bytes(void)
{
    struct mach_task_basic_info info;
    mach_msg_type_number_t count = MACH_TASK_BASIC_INFO_COUNT;
    if (task_info(mach_task_self(), MACH_TASK_BASIC_INFO, (task_info_t)&info, &count) != KERN_SUCCESS)
        return 0;
    return (size_t)info.resident_size;
}

/* getrusage(2) gives bytes here, and KiB on Linux. */
size_t zi_peak_resident_bytes(void)
{
    struct rusage usage;
    return getrusage(RUSAGE_SELF, &usage) == 0 ? (size_t)usage.ru_maxrss : 0;
}

size_t zi_physical_bytes(void)
{
    uint64_t bytes = 0;
    size_t size = sizeof bytes;
    return sysctlbyname("hw.memsize", &bytes, &size, NULL, 0) == 0 ? (size_t)bytes : 0;
}

static int read_cpu_model(char *model, size_t size)
{
    char name[256] = "";
    size_t length = sizeof name - 1;
    if (sysctlbyname("machdep.cpu.brand_string", name, &length, NULL, 0) != 0)
        return 0;
    snprintf(model, size, "%s", name);
    return 1;
}

#else

/* ---- Linux: proc(5) ---------------------------------------------------------------------------------------------- */

/* The second number of statm is the resident size in pages. */
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

/* The line "VmHWM: 1234 kB" of status; 0: it can't be read. */
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

/* getrusage also counts the program that started this one, before it became this one. */
size_t zi_peak_resident_bytes(void)
{
    struct rusage usage;
    size_t peak = high_water();
    if (peak > 0)
        return peak;
    return getrusage(RUSAGE_SELF, &usage) == 0 ? (size_t)usage.ru_maxrss * 1024 : 0;
}

size_t zi_physical_bytes(void)
{
    long pages = sysconf(_SC_PHYS_PAGES), page = sysconf(_SC_PAGESIZE);
    return pages > 0 && page > 0 ? (size_t)pages * (size_t)page : 0;
}

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

#endif

void zi_cpu_model(char *model, size_t size)
{
    if (!read_cpu_model(model, size) || !*model)
        snprintf(model, size, "%s", UNKNOWN_CPU);
}
