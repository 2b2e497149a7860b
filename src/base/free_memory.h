/* How much memory this process may still take. */
#ifndef ZI_BASE_FREE_MEMORY_H
#define ZI_BASE_FREE_MEMORY_H

#include <stdint.h>

#include "base/cgroup.h"

/*
 * Bytes of memory that the process can take: what the machine has free or frees by dropping copies of files
 * (on Linux MemAvailable), and no more than that in its control groups. Swap does not count: work in swap does not end.
 * ZI_NO_LIMIT: unknown.
 */
uint64_t zi_free_memory(void);

/* The same with other files than /proc/meminfo, /proc/self/cgroup and other control groups than /sys/fs/cgroup. */
uint64_t zi_free_memory_of(const char *meminfo, const char *membership, const char *mount);

#endif
