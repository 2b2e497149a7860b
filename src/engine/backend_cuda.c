/* CUDA GPUs, through libzimage-cuda, which is looked for when a GPU is asked for. */
#include <dlfcn.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/file.h"
#include "base/library.h"
#include "cuda/cuda.h"
#include "engine/backends.h"

#define LIBRARY "libzimage-cuda.so"

/* ---- the library ------------------------------------------------------------------------------------------------- */

typedef struct cuda_library {
    zi_cuda_devices_fn *devices;
    zi_ops_cuda_new_fn *ops_new;
} cuda_library;

#if defined(__APPLE__)

static zimage_status open_library(cuda_library *cuda, zimage_error *error)
{
    *cuda = (cuda_library){NULL, NULL};
    return zi_fail(error, ZIMAGE_ERROR_UNSUPPORTED, "no CUDA device: there is no CUDA for macOS");
}

#else

static zimage_status open_library(cuda_library *cuda, zimage_error *error)
{
    char why[400];
    *cuda = (cuda_library){NULL, NULL};
    void *library = zi_library_open(LIBRARY, why, sizeof why);
    if (!library)
        return zi_fail(error, ZIMAGE_ERROR_UNSUPPORTED,
                       "no CUDA device: %s can't be loaded (%s); expected it beside the program, in its ../lib or in "
                       "the system's folder of libraries",
                       LIBRARY, why);
    zi_cuda_abi_fn *abi = (zi_cuda_abi_fn *)dlsym(library, "zi_cuda_abi");
    cuda->devices = (zi_cuda_devices_fn *)dlsym(library, "zi_cuda_devices");
    cuda->ops_new = (zi_ops_cuda_new_fn *)dlsym(library, "zi_ops_cuda_new");
    size_t layout = 0;
    int same = abi && cuda->devices && cuda->ops_new && abi(&layout) == ZI_CUDA_ABI && layout == ZI_CUDA_LAYOUT;
    dlclose(library); /* RTLD_NODELETE: its code stays */
    if (!same)
        return zi_fail(error, ZIMAGE_ERROR_UNSUPPORTED,
                       "no CUDA device: " LIBRARY " belongs to another version; expected one built with zimage %s",
                       zimage_version());
    return ZIMAGE_OK;
}

#endif

/* ---- the backend ------------------------------------------------------------------------------------------------- */

static void describe(const zi_cuda_device *device, zimage_device_info *info)
{
    *info = (zimage_device_info){.usable = !*device->fault, .memory_bytes = device->memory};
    snprintf(info->device, sizeof info->device, "cuda:%d", device->index);
    snprintf(info->name, sizeof info->name, "%s", device->name);
    snprintf(info->fault, sizeof info->fault, "%s", device->fault);
    snprintf(info->capability, sizeof info->capability, "%d.%d", device->major, device->minor);
}

static zimage_status find_gpus(zi_cuda_device devices[ZI_DEVICES_MAX], int *count, zimage_error *error)
{
    cuda_library cuda;
    *count = 0;
    ZI_TRY(open_library(&cuda, error));
    if (!cuda.devices)
        return ZIMAGE_ERROR_UNSUPPORTED;
    ZI_TRY(cuda.devices(devices, ZI_DEVICES_MAX, count, error));
    if (*count > ZI_DEVICES_MAX)
        *count = ZI_DEVICES_MAX;
    return ZIMAGE_OK;
}

static zimage_status find(const char *cpu_mask, zimage_device_info *infos, size_t capacity, size_t *count,
                          zimage_error *error)
{
    zi_cuda_device devices[ZI_DEVICES_MAX];
    zimage_error why = ZIMAGE_ERROR_INIT;
    int found = 0;
    if (find_gpus(devices, &found, &why) != ZIMAGE_OK) {
        infos[0] = (zimage_device_info){.device = "cuda"};
        snprintf(infos[0].fault, sizeof infos[0].fault, "%.511s", why.message);
        *count = 1;
        return ZIMAGE_OK;
    }
    *count = (size_t)found < capacity ? (size_t)found : capacity;
    for (size_t i = 0; i < *count; i++)
        describe(&devices[i], &infos[i]);
    return ZIMAGE_OK;
}

static int suits(const zi_backend_choice *choice)
{
    return choice->compute != ZIMAGE_COMPUTE_INT8 && !choice->cpu_mask;
}

/* K of "cuda:K", 0 of "cuda" */
static int index_of(const char *device)
{
    if (strncmp(device, "cuda", 4) != 0)
        return -1;
    if (!device[4])
        return 0;
    char *end;
    long index = strtol(device + 5, &end, 10);
    int whole = device[4] == ':' && device[5] >= '0' && device[5] <= '9' && !*end;
    return whole && index < ZI_DEVICES_MAX ? (int)index : -1;
}

static zimage_compute automatic(const zi_ops *ops)
{
    return ZIMAGE_COMPUTE_BF16;
}

static zimage_status open_cuda(const zi_backend_choice *choice, int index, zi_pool *pool, zi_ops **ops,
                               zimage_error *error)
{
    cuda_library cuda;
    if (choice->compute == ZIMAGE_COMPUTE_INT8)
        return zi_fail(error, ZIMAGE_ERROR_ARGUMENT,
                       "compute: int8, expected auto, f32, bf16 or fp8 with device \"%s\"", choice->device);
    if (choice->cpu_mask)
        return zi_fail(error, ZIMAGE_ERROR_ARGUMENT, "cpu_mask: \"%s\", expected none with device \"%s\"",
                       choice->cpu_mask, choice->device);
    ZI_TRY(open_library(&cuda, error));
    if (!cuda.ops_new)
        return ZIMAGE_ERROR_UNSUPPORTED;
    if (choice->cache_folder)
        zi_folder_create(choice->cache_folder); /* the library keeps its choices there; without it they are lost */
    const zi_cuda_options options = {
        .device = index,
        .compute = choice->compute == ZIMAGE_COMPUTE_AUTO ? automatic(NULL) : choice->compute,
        .memory = choice->memory,
        .upload_threads = zi_pool_threads(pool),
        .cache = choice->cache_folder,
    };
    return cuda.ops_new(&options, ops, error);
}

const zi_backend zi_backend_cuda = {
    .name = "cuda",
    .is_gpu = 1,
    .find = find,
    .suits = suits,
    .index_of = index_of,
    .automatic = automatic,
    .open = open_cuda,
};
