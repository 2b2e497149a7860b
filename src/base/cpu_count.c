#include "base/cpu_count.h"

#include <errno.h>
#include <limits.h>
#include <sched.h>
#include <unistd.h>

#if defined(__APPLE__)
#include <sys/sysctl.h>
#endif

#include "base/cgroup.h"

#if defined(__APPLE__)

/*
 * Level 0 holds the CPU's fastest cores (sys/sysctl.h); Intel's CPUs have no levels. The others are left out: all
 * threads wait for the last task of an operation, which a slow core would take late and long.
 */
static int affinity_count(void)
{
    static const char *const names[] = {"hw.perflevel0.logicalcpu", "hw.logicalcpu"};
    for (size_t i = 0; i < sizeof names / sizeof *names; i++) {
        int32_t count = 0;
        size_t size = sizeof count;
        if (sysctlbyname(names[i], &count, &size, NULL, 0) == 0 && count > 0)
            return count;
    }
    return 1;
}

#else

static int affinity_count(void)
{
    for (int capacity = 1024; capacity <= 1 << 18; capacity *= 2) {
        cpu_set_t *set = CPU_ALLOC(capacity);
        if (!set)
            break;
        size_t bytes = CPU_ALLOC_SIZE(capacity);
        int failed = sched_getaffinity(0, bytes, set) != 0;
        int too_small = failed && errno == EINVAL;
        int count = failed ? 0 : CPU_COUNT_S(bytes, set);
        CPU_FREE(set);
        if (count > 0)
            return count;
        if (!too_small)
            break;
    }
    long online = sysconf(_SC_NPROCESSORS_ONLN);
    return online > 0 && online < INT_MAX ? (int)online : 1;
}

#endif

/* The CPUs that the files of one group allow ("max" in version 2, -1 in version 1: no limit). */
static uint64_t group_cpus(const char *folder, int version)
{
    long long numbers[2] = {0, 0}, period[2] = {0, 0};
    if (version == 2) {
        if (zi_cgroup_numbers(folder, "cpu.max", numbers) != 2)
            return ZI_NO_LIMIT;
    } else {
        if (zi_cgroup_numbers(folder, "cpu.cfs_quota_us", numbers) < 1 ||
            zi_cgroup_numbers(folder, "cpu.cfs_period_us", period) < 1)
            return ZI_NO_LIMIT;
        numbers[1] = period[0];
    }
    if (numbers[0] <= 0 || numbers[1] <= 0)
        return ZI_NO_LIMIT;
    long long cpus = (numbers[0] - 1) / numbers[1] + 1;
    return cpus < INT_MAX ? (uint64_t)cpus : ZI_NO_LIMIT;
}

int zi_cgroup_cpus(const char *membership, const char *mount)
{
    uint64_t cpus = zi_cgroup_least(membership, mount, "cpu", group_cpus);
    return cpus == ZI_NO_LIMIT ? 0 : (int)cpus;
}

int zi_cpu_count(void)
{
    int cpus = affinity_count(), quota = zi_cgroup_cpus("/proc/self/cgroup", "/sys/fs/cgroup");
    return quota > 0 && quota < cpus ? quota : cpus;
}
