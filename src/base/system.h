/*
 * What the operating system says about the process and the machine. Linux and macOS have a branch each in system.c.
 * More that differs between them: base/cpu_count.h, base/free_memory.h, base/library.h, base/mapping.h, base/output.h,
 * base/stack.h, and cpu/features.h.
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

#endif
