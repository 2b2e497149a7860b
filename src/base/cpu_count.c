#include "base/cpu_count.h"

#include <errno.h>
#include <limits.h>
#include <sched.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

static int affinity_count(void)
{
#if defined(__linux__)
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
#endif
    long online = sysconf(_SC_NPROCESSORS_ONLN);
    return online > 0 && online < INT_MAX ? (int)online : 1;
}

/* Reads up to two integers of folder/name; returns how many there were. */
static int read_numbers(const char *folder, const char *name, long long numbers[2])
{
    char path[2 * PATH_MAX + 64];
    if (snprintf(path, sizeof path, "%s/%s", folder, name) >= (int)sizeof path)
        return 0;
    FILE *file = fopen(path, "re");
    if (!file)
        return 0;
    int count = fscanf(file, "%lld %lld", &numbers[0], &numbers[1]);
    fclose(file);
    return count > 0 ? count : 0;
}

/* The CPUs that the files of one group allow; 0: no limit ("max" in version 2, -1 in version 1). */
static int group_cpus(const char *folder, int version)
{
    long long numbers[2] = {0, 0}, period[2] = {0, 0};
    if (version == 2) {
        if (read_numbers(folder, "cpu.max", numbers) != 2)
            return 0;
    } else {
        if (read_numbers(folder, "cpu.cfs_quota_us", numbers) < 1 ||
            read_numbers(folder, "cpu.cfs_period_us", period) < 1)
            return 0;
        numbers[1] = period[0];
    }
    if (numbers[0] <= 0 || numbers[1] <= 0)
        return 0;
    long long cpus = (numbers[0] - 1) / numbers[1] + 1;
    return cpus < INT_MAX ? (int)cpus : 0;
}

static int smaller_limit(int a, int b)
{
    return a == 0 || (b != 0 && b < a) ? b : a;
}

/*
 * The lowest limit of the group and of its ancestors. In a container the path may be a path of the host, which does not
 * exist below the mount. So a folder that is not there is skipped, and the search goes on up to the mount itself.
 */
static int least_limit(const char *hierarchy, const char *group, int version)
{
    char folder[2 * PATH_MAX];
    size_t root = strlen(hierarchy);
    if (snprintf(folder, sizeof folder, "%s%s", hierarchy, group) >= (int)sizeof folder)
        return 0;
    for (int limit = 0;;) {
        limit = smaller_limit(limit, group_cpus(folder, version));
        char *slash = strrchr(folder + root, '/');
        if (!slash)
            return limit;
        *slash = 0;
    }
}

static int lists_cpu(const char *controllers)
{
    for (const char *at = controllers; at; at = strchr(at, ','), at = at ? at + 1 : NULL)
        if (strncmp(at, "cpu", 3) == 0 && (at[3] == ',' || at[3] == 0))
            return 1;
    return 0;
}

/* line: "0::/path" (version 2) or "4:cpu,cpuacct:/path" */
static int line_limit(char *line, const char *mount)
{
    char hierarchy[PATH_MAX];
    line[strcspn(line, "\n")] = 0;
    char *controllers = strchr(line, ':');
    char *path = controllers ? strchr(controllers + 1, ':') : NULL;
    if (!path)
        return 0;
    *path++ = 0;
    controllers++;
    if (*controllers == 0)
        return least_limit(mount, path, 2);
    if (!lists_cpu(controllers) || snprintf(hierarchy, sizeof hierarchy, "%s/cpu", mount) >= (int)sizeof hierarchy)
        return 0;
    return least_limit(hierarchy, path, 1);
}

int zi_cgroup_cpus(const char *membership, const char *mount)
{
    char line[PATH_MAX + 256];
    int limit = 0;
    FILE *file = fopen(membership, "re");
    if (!file)
        return 0;
    while (fgets(line, sizeof line, file))
        limit = smaller_limit(limit, line_limit(line, mount));
    fclose(file);
    return limit;
}

int zi_cpu_count(void)
{
    return smaller_limit(affinity_count(), zi_cgroup_cpus("/proc/self/cgroup", "/sys/fs/cgroup"));
}
