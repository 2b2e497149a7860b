/* How many processors this process may keep busy. */
#ifndef ZI_BASE_CPU_COUNT_H
#define ZI_BASE_CPU_COUNT_H

/* The affinity mask's count, limited by the processor quota of the control groups it is in. At least 1. */
int zi_cpu_count(void);

/*
 * The quota alone, rounded up to whole processors; 0: none. membership: a file like /proc/self/cgroup; mount: where
 * control groups are mounted. Both versions of control groups; a group is bound by its ancestors' quotas as well.
 */
int zi_cgroup_cpus(const char *membership, const char *mount);

#endif
