/* Blocks are checked for NaN and infinity on the GPU: each check has a flag there, and the host reads all flags when it
 * waits anyway. */
#ifndef ZI_CUDA_CHECKS_H
#define ZI_CUDA_CHECKS_H

#include "ops/ops.h"

typedef struct zi_cuda zi_cuda; /* internal.h */

/* The flag for the next check, in device memory and 0. A kernel sets it to 1 where it finds a NaN or an infinity. Waits
 * for the GPU if ZI_CHECKS flags have not been read yet. */
zimage_status zi_cuda_next_check(zi_cuda *cuda, int **flag);
/* Waits until everything that was queued has been computed. ZIMAGE_ERROR_NOT_FINITE if a check has found something
 * since the last call. */
zimage_status zi_cuda_wait(zi_cuda *cuda);

#endif
