/* What src/cuda/choices.c calls to measure algorithms. Nothing is measured here. */
#include "cuda/internal.h"

zimage_status zi_cuda_result(zi_cuda *cuda, cudaError_t code, const char *what)
{
    return ZIMAGE_ERROR_UNSUPPORTED;
}

cudaError_t cudaEventCreate(cudaEvent_t *event)
{
    return cudaErrorMemoryAllocation;
}

cudaError_t cudaEventDestroy(cudaEvent_t event)
{
    return cudaSuccess;
}

cudaError_t cudaEventRecord(cudaEvent_t event, cudaStream_t stream)
{
    return cudaErrorMemoryAllocation;
}

cudaError_t cudaEventSynchronize(cudaEvent_t event)
{
    return cudaErrorMemoryAllocation;
}

cudaError_t cudaEventElapsedTime(float *milliseconds, cudaEvent_t start, cudaEvent_t end)
{
    return cudaErrorMemoryAllocation;
}
