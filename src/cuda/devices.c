/* Finds the GPUs. */
#include <stdio.h>

#include <cuda_runtime_api.h>

#include "cuda/cuda.h"

#define CAPABILITY_MIN 8 /* major compute capability: bf16 products */

int zi_cuda_abi(size_t *layout)
{
    *layout = ZI_CUDA_LAYOUT;
    return ZI_CUDA_ABI;
}

static zimage_status no_gpu(cudaError_t code, zimage_error *error)
{
    int driver = 0, runtime = 0;
    (void)cudaGetLastError();
    (void)cudaRuntimeGetVersion(&runtime);
    if (cudaDriverGetVersion(&driver) != cudaSuccess || driver == 0)
        return zi_fail(error, ZIMAGE_ERROR_UNSUPPORTED,
                       "no CUDA device: NVIDIA's driver is not installed or not running");
    if (code == cudaErrorInsufficientDriver)
        return zi_fail(error, ZIMAGE_ERROR_UNSUPPORTED,
                       "no CUDA device: NVIDIA's driver supports CUDA %d.%d, expected at least %d.%d", driver / 1000,
                       driver % 1000 / 10, runtime / 1000, runtime % 1000 / 10);
    if (code == cudaSuccess || code == cudaErrorNoDevice)
        return zi_fail(error, ZIMAGE_ERROR_UNSUPPORTED, "no CUDA device: NVIDIA's driver finds no GPU");
    return zi_fail(error, ZIMAGE_ERROR_UNSUPPORTED, "no CUDA device: %s", cudaGetErrorString(code));
}

static void describe(int index, zi_cuda_device *device)
{
    struct cudaDeviceProp properties;
    *device = (zi_cuda_device){.index = index};
    cudaError_t code = cudaGetDeviceProperties(&properties, index);
    if (code != cudaSuccess) {
        (void)cudaGetLastError();
        snprintf(device->name, sizeof(device->name), "unknown");
        snprintf(device->fault, sizeof(device->fault), "the driver does not describe it: %s", cudaGetErrorString(code));
        return;
    }
    snprintf(device->name, sizeof(device->name), "%.*s", (int)sizeof(device->name) - 1, properties.name);
    device->major = properties.major;
    device->minor = properties.minor;
    device->memory = properties.totalGlobalMem;
    if (properties.major < CAPABILITY_MIN)
        snprintf(device->fault, sizeof(device->fault), "its compute capability is %d.%d, expected at least %d.0",
                 properties.major, properties.minor, CAPABILITY_MIN);
}

zimage_status zi_cuda_devices(zi_cuda_device *devices, int capacity, int *count, zimage_error *error)
{
    *count = 0;
    cudaError_t code = cudaGetDeviceCount(count);
    if (code != cudaSuccess || *count == 0) {
        *count = 0;
        return no_gpu(code, error);
    }
    for (int i = 0; i < *count && i < capacity; i++)
        describe(i, &devices[i]);
    return ZIMAGE_OK;
}
