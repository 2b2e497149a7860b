/* The CUDA library ZIMAGE_CUDA_LIBRARY, of a GPU or of the emulated one, and a run on its first device. */
#ifndef ZI_TESTS_GPU_H
#define ZI_TESTS_GPU_H

#include <dlfcn.h>

#include "cuda/cuda.h"
#include "support.h"

#define SKIPPED 77

static zi_ops_cuda_new_fn *cuda_new;
static int64_t (*operations)(const zi_ops *ops); /* that have begun; NULL: a real GPU */
static zi_cuda_device first_gpu;
static zimage_error gpu_error = ZIMAGE_ERROR_INIT;
static zi_run gpu_run = {.error = &gpu_error}, *const gpu = &gpu_run;

static inline void ok(zimage_status status)
{
    if (status != ZIMAGE_OK)
        fail_msg("%s", gpu_error.message);
}

static inline const zi_ops_table *open_gpu(const zi_cuda_options *options)
{
    ok(cuda_new(options, &gpu->ops, &gpu_error));
    return zi_table(gpu);
}

static inline void close_gpu(void)
{
    zi_table(gpu)->free(gpu->ops);
    gpu->ops = NULL;
}

/* Why nothing can be checked here, or NULL. */
static inline const char *why_not(void)
{
    int count = 0;
    size_t layout = 0;
    void *library = dlopen(ZIMAGE_CUDA_LIBRARY, RTLD_NOW | RTLD_LOCAL);
    if (!library)
        return dlerror();
    zi_cuda_abi_fn *abi = (zi_cuda_abi_fn *)dlsym(library, "zi_cuda_abi");
    zi_cuda_devices_fn *devices = (zi_cuda_devices_fn *)dlsym(library, "zi_cuda_devices");
    cuda_new = (zi_ops_cuda_new_fn *)dlsym(library, "zi_ops_cuda_new");
    operations = (int64_t(*)(const zi_ops *))dlsym(library, "zi_emulated_operations");
    if (!abi || !devices || !cuda_new || abi(&layout) != ZI_CUDA_ABI || layout != ZI_CUDA_LAYOUT)
        return "the library is not this build's";
    if (devices(&first_gpu, 1, &count, &gpu_error) != ZIMAGE_OK)
        return gpu_error.message;
    return *first_gpu.fault ? first_gpu.fault : NULL;
}

#endif
