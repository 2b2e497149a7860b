#include "base/cgroup.h"

#include <limits.h>
#include <stdio.h>
#include <string.h>

#include "base/numbers.h"

int zi_cgroup_numbers(const char *folder, const char *name, long long numbers[2])
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

/*
 * The lowest limit of the group and of its ancestors. In a container the path may be a path of the host, which does not
 * exist below the mount. So a folder that is not there is skipped, and the search goes on up to the mount itself.
 */
static uint64_t least_limit(const char *hierarchy, const char *group, int version, zi_cgroup_reader *read)
{
    char folder[2 * PATH_MAX];
    size_t root = strlen(hierarchy);
    if (snprintf(folder, sizeof folder, "%s%s", hierarchy, group) >= (int)sizeof folder)
        return ZI_NO_LIMIT;
    for (uint64_t limit = ZI_NO_LIMIT;;) {
        limit = zi_min_uint64(limit, read(folder, version));
        char *slash = strrchr(folder + root, '/');
        if (!slash)
            return limit;
        *slash = 0;
    }
}

static int lists(const char *controllers, const char *controller)
{
    size_t length = strlen(controller);
    for (const char *at = controllers; at; at = strchr(at, ','), at = at ? at + 1 : NULL)
        if (strncmp(at, controller, length) == 0 && (at[length] == ',' || at[length] == 0))
            return 1;
    return 0;
}

/* line: "0::/path" (version 2) or "4:cpu,cpuacct:/path" */
static uint64_t line_limit(char *line, const char *mount, const char *controller, zi_cgroup_reader *read)
{
    char hierarchy[PATH_MAX];
    line[strcspn(line, "\n")] = 0;
    char *controllers = strchr(line, ':');
    char *path = controllers ? strchr(controllers + 1, ':') : NULL;
    if (!path)
        return ZI_NO_LIMIT;
    *path++ = 0;
    controllers++;
    if (*controllers == 0)
        return least_limit(mount, path, 2, read);
    if (!lists(controllers, controller) ||
        snprintf(hierarchy, sizeof hierarchy, "%s/%s", mount, controller) >= (int)sizeof hierarchy)
        return ZI_NO_LIMIT;
    return least_limit(hierarchy, path, 1, read);
}

uint64_t zi_cgroup_least(const char *membership, const char *mount, const char *controller, zi_cgroup_reader *read)
{
    char line[PATH_MAX + 256];
    uint64_t limit = ZI_NO_LIMIT;
    FILE *file = fopen(membership, "re");
    if (!file)
        return ZI_NO_LIMIT;
    while (fgets(line, sizeof line, file))
        limit = zi_min_uint64(limit, line_limit(line, mount, controller, read));
    fclose(file);
    return limit;
}
