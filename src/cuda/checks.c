/* Checks for NaN and infinity, and waiting. */
#include "cuda/checks.h"

#include <assert.h>
#include <stdio.h>

#include "cuda/entries.h"
#include "cuda/internal.h"
#include "cuda/residency.h"

zimage_status zi_cuda_wait(zi_cuda *cuda)
{
    int checks = cuda->checks;
    if (cuda->ops.rehearsing) {
        cuda->checks = 0;
        return ZIMAGE_OK;
    }
    if (checks > 0)
        ZI_CUDA_TRY(cuda,
                    cudaMemcpyAsync(cuda->host_flags, cuda->flags, (size_t)checks * sizeof(int), cudaMemcpyDeviceToHost,
                                    cuda->stream),
                    "reading the flags of checks");
    ZI_CUDA_TRY(cuda, cudaStreamSynchronize(cuda->stream), "the work on the GPU");
    zi_cuda_slabs_offer(cuda);
    cuda->checks = 0;
    for (int i = 0; i < checks; i++)
        if (cuda->host_flags[i])
            return zi_fail_not_finite(cuda->error, i < cuda->named ? cuda->names[i] : "an unnamed operation");
    return ZIMAGE_OK;
}

zimage_status zi_cuda_op_finish(zi_run *run)
{
    return zi_cuda_wait(zi_cuda_enter(run));
}

zimage_status zi_cuda_next_check(zi_cuda *cuda, int **flag)
{
    if (cuda->checks == ZI_CHECKS)
        ZI_TRY(zi_cuda_wait(cuda));
    if (cuda->checks == 0) {
        cuda->named = 0;
        ZI_CUDA_TRY(cuda, cudaMemsetAsync(cuda->flags, 0, ZI_CHECKS * sizeof(int), cuda->stream), "clearing flags");
    }
    *flag = cuda->flags + cuda->checks++;
    return ZIMAGE_OK;
}

/* Names every check that has no name yet. */
zimage_status zi_cuda_op_name_check(zi_run *run, const char *name)
{
    zi_cuda *cuda = zi_cuda_state(run->ops);
    for (; cuda->named < cuda->checks; cuda->named++)
        snprintf(cuda->names[cuda->named], ZI_BLOCK_NAME, "%s", name);
    return ZIMAGE_OK;
}

zimage_status zi_cuda_op_check_finite(zi_run *run, const zi_tensor *x, int *finite)
{
    zi_cuda *cuda = zi_cuda_begin(run);
    int *flag;
    assert(zi_tensor_is_dense(x));
    *finite = 1;
    ZI_TRY(zi_cuda_next_check(cuda, &flag));
    return ZI_CUDA_RUN(cuda, zi_cuda_not_finite(x->dtype, zi_cuda_data(x), zi_tensor_count(x), flag, cuda->stream),
                       "a check");
}
