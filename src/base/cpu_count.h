/* How many CPUs this process may keep busy. */
#ifndef ZI_BASE_CPU_COUNT_H
#define ZI_BASE_CPU_COUNT_H

/*
 * The CPUs of the process's affinity mask, but no more than the quota of its control groups allows. On macOS: the
 * fastest cores, those of performance level 0. At least 1.
 */
int zi_cpu_count(void);

/*
 * The quota alone, rounded up to whole CPUs; 0: there is no quota. Reads both versions of control groups, and the
 * quotas of a group's ancestors, which hold for the group as well. membership: a file like /proc/self/cgroup. mount:
 * the folder where control groups are mounted.
 */
int zi_cgroup_cpus(const char *membership, const char *mount);

#endif
