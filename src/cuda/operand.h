/* Matrix operands (ops.h: alloc_operand) of linear layers that multiply in fp8: e4m3 rows, then their float32
 * scales. */
#ifndef ZI_CUDA_OPERAND_H
#define ZI_CUDA_OPERAND_H

#include "cuda/kernels.h"
#include "ops/ops.h"

typedef struct zi_cuda zi_cuda; /* internal.h */

/* Whether products with that weight are computed in fp8. */
int zi_cuda_is_fp8(const zi_cuda *cuda, const zi_weight *w);
zi_cuda_rows8 zi_cuda_rows8_of(const zi_tensor *operand);
/* An ordinary activation of the operand's shape on the stack, for kernels that write no fp8. */
zimage_status zi_cuda_stand_in(zi_cuda *cuda, const zi_tensor *operand, zi_tensor *plain);
zimage_status zi_cuda_quantise(zi_cuda *cuda, const zi_tensor *plain, zi_cuda_rows8 rows);
/* The operand's numbers as an ordinary activation on the stack, for kernels that read no fp8. */
zimage_status zi_cuda_plain(zi_cuda *cuda, const zi_tensor *operand, zi_tensor *plain);

#endif
