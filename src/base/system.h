/*
 * What differs between operating systems: Linux and macOS have a branch each; on other systems a function returns the
 * "unknown" of its comment. (For the number of CPUs see base/cpu_count.h, for files base/file.h.)
 */
#ifndef ZI_BASE_SYSTEM_H
#define ZI_BASE_SYSTEM_H

#include <stddef.h>

/* Bytes of physical memory that this process occupies now; 0: unknown. */
size_t zi_resident_bytes(void);
/* The largest value that zi_resident_bytes had since the process started; 0: unknown. */
size_t zi_peak_resident_bytes(void);
/* Bytes of memory that the machine has; 0: unknown. */
size_t zi_physical_bytes(void);
/* The maker's name of the CPU, cut to size: "Intel(R) Xeon(R) ..."; "unknown CPU" where the system has none. */
void zi_cpu_model(char *model, size_t size);

/*
 * The user's folder for files that the library can make again: $XDG_CACHE_HOME/zimage, else ~/.cache/zimage (on macOS
 * ~/Library/Caches/zimage). It is created if `create`. The caller releases it with free(). NULL: neither variable is an
 * absolute path, or out of memory.
 */
char *zi_cache_folder(int create);

#endif
