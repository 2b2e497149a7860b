/* The limits of Linux's control groups (cgroups(7)), which containers and services are held by. */
#ifndef ZI_BASE_CGROUP_H
#define ZI_BASE_CGROUP_H

#include <stdint.h>

#define ZI_NO_LIMIT UINT64_MAX

/* The limit that the files of one group's folder say; ZI_NO_LIMIT: none. version: 1 or 2. */
typedef uint64_t zi_cgroup_reader(const char *folder, int version);

/*
 * The lowest limit of the process's groups and of their ancestors, whose limits hold for them as well. Reads both
 * versions of control groups. membership: a file like /proc/self/cgroup. mount: the folder where control groups are
 * mounted. controller: "cpu", "memory".
 */
uint64_t zi_cgroup_least(const char *membership, const char *mount, const char *controller, zi_cgroup_reader *read);

/* Reads up to two integers of folder/name ("max" is none); returns how many there were. */
int zi_cgroup_numbers(const char *folder, const char *name, long long numbers[2]);

#endif
