#include "base/free_memory.h"

#include <limits.h>
#include <stdio.h>
#include <string.h>

#if defined(__APPLE__)
#include <mach/mach.h>
#endif

#include "base/numbers.h"

/* Adds up the numbers behind some of the names in a file of lines "NAME NUMBER"; returns how many lines counted. */
static int sum_lines(const char *path, const char *const *names, uint64_t *sum)
{
    char line[256], name[64];
    unsigned long long number;
    int count = 0;
    *sum = 0;
    FILE *file = fopen(path, "re");
    if (!file)
        return 0;
    while (fgets(line, sizeof line, file)) {
        if (sscanf(line, "%63s %llu", name, &number) != 2)
            continue;
        for (const char *const *wanted = names; *wanted; wanted++) {
            if (strcmp(name, *wanted) == 0) {
                *sum += number;
                count++;
            }
        }
    }
    fclose(file);
    return count;
}

/* What a group may still take. Its usage holds copies of files, which the system drops for it. */
static uint64_t group_bytes(const char *folder, int version)
{
    static const char *const files[2][3] = {{"total_inactive_file", "total_active_file", NULL},
                                            {"inactive_file", "active_file", NULL}};
    long long limit[2] = {0, 0}, usage[2] = {0, 0};
    char path[2 * PATH_MAX + 64];
    uint64_t cached = 0;
    int two = version == 2;
    if (zi_cgroup_numbers(folder, two ? "memory.max" : "memory.limit_in_bytes", limit) < 1 || limit[0] < 0 ||
        zi_cgroup_numbers(folder, two ? "memory.current" : "memory.usage_in_bytes", usage) < 1)
        return ZI_NO_LIMIT;
    snprintf(path, sizeof path, "%s/memory.stat", folder);
    (void)sum_lines(path, files[two], &cached);
    uint64_t free = limit[0] > usage[0] ? (uint64_t)(limit[0] - usage[0]) : 0;
    return zi_min_uint64(free + cached, (uint64_t)limit[0]);
}

uint64_t zi_free_memory_of(const char *meminfo, const char *membership, const char *mount)
{
    static const char *const names[] = {"MemAvailable:", NULL};
    uint64_t kib = 0, machine = ZI_NO_LIMIT;
    if (sum_lines(meminfo, names, &kib) > 0)
        machine = kib << 10;
    return zi_min_uint64(machine, zi_cgroup_least(membership, mount, "memory", group_bytes));
}

#if defined(__APPLE__)

/*
 * Free pages, and what Activity Monitor calls "Cached Files": copies of files, and what programs have marked as
 * purgeable. Pages that were read ahead are in both numbers (mach/vm_statistics.h). Inactive pages of programs don't
 * count: the system can only compress them or write them to swap.
 */
uint64_t zi_free_memory(void)
{
    vm_statistics64_data_t pages;
    vm_size_t page = 0;
    mach_msg_type_number_t count = HOST_VM_INFO64_COUNT;
    mach_port_t host = mach_host_self();
    int known = host_page_size(host, &page) == KERN_SUCCESS &&
                host_statistics64(host, HOST_VM_INFO64, (host_info64_t)&pages, &count) == KERN_SUCCESS;
    mach_port_deallocate(mach_task_self(), host);
    if (!known)
        return ZI_NO_LIMIT;
    uint64_t cached = (uint64_t)pages.external_page_count + pages.purgeable_count;
    return ((uint64_t)pages.free_count - pages.speculative_count + cached) * page;
}

#else

uint64_t zi_free_memory(void)
{
    return zi_free_memory_of("/proc/meminfo", "/proc/self/cgroup", "/sys/fs/cgroup");
}

#endif
