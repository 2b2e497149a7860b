/* What tests ask the library for an emulated GPU beside what it offers to libzimage. */
#include "cuda/residency.h"

ZI_CUDA_EXPORT int64_t zi_emulated_operations(const zi_ops *ops);

/* How many operations have begun (zi_cuda_begin). */
int64_t zi_emulated_operations(const zi_ops *ops)
{
    return zi_cuda_state(ops)->residency->operation;
}
