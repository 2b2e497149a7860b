/* CUDA GPUs, through libzimage-cuda, which is looked for when a GPU is asked for. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/file.h"
#include "cuda/cuda.h"
#include "engine/backends.h"
#include "engine/plugin.h"

#if defined(__APPLE__)

static zimage_status open_library(zi_plugin_fn *functions[ZI_PLUGIN_SYMBOLS], zimage_error *error)
{
    return zi_fail(error, ZIMAGE_ERROR_UNSUPPORTED, "no CUDA device: there is no CUDA for macOS");
}

#else

static zimage_status open_library(zi_plugin_fn *functions[ZI_PLUGIN_SYMBOLS], zimage_error *error)
{
    static const zi_plugin plugin = {.name = "cuda",
                                     .devices = "CUDA",
                                     .abi_symbol = "zi_cuda_abi",
                                     .abi = ZI_CUDA_ABI,
                                     .layout = ZI_CUDA_LAYOUT,
                                     .symbols = {"zi_cuda_devices", "zi_ops_cuda_new"}};
    return zi_plugin_open(&plugin, functions, error);
}

#endif

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
    zi_plugin_fn *functions[ZI_PLUGIN_SYMBOLS];
    *count = 0;
    ZI_TRY(open_library(functions, error));
    ZI_TRY(((zi_cuda_devices_fn *)functions[0])(devices, ZI_DEVICES_MAX, count, error));
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

/* K of "cuda:K" and of "cuda:K,L", 0 of "cuda" */
static int index_of(const char *device)
{
    if (strncmp(device, "cuda", 4) != 0)
        return -1;
    if (!device[4])
        return 0;
    char *end;
    long index = strtol(device + 5, &end, 10);
    int whole = device[4] == ':' && device[5] >= '0' && device[5] <= '9' && (!*end || *end == ',');
    return whole && index < ZI_DEVICES_MAX ? (int)index : -1;
}

static zimage_compute automatic(const zi_ops *ops)
{
    return ZIMAGE_COMPUTE_BF16;
}

static zimage_status open_cuda(const zi_backend_choice *choice, int index, zi_pool *pool, zi_ops **ops,
                               zimage_error *error)
{
    zi_plugin_fn *functions[ZI_PLUGIN_SYMBOLS];
    if (choice->compute == ZIMAGE_COMPUTE_INT8)
        return zi_fail(error, ZIMAGE_ERROR_ARGUMENT,
                       "compute: int8, expected auto, f32, bf16 or fp8 with device \"%s\"", choice->device);
    if (choice->cpu_mask)
        return zi_fail(error, ZIMAGE_ERROR_ARGUMENT, "cpu_mask: \"%s\", expected none with device \"%s\"",
                       choice->cpu_mask, choice->device);
    ZI_TRY(open_library(functions, error));
    if (choice->cache_folder)
        zi_folder_create(choice->cache_folder); /* the library keeps its choices there; without it they are lost */
    const zi_cuda_options options = {
        .device = index,
        .devices = choice->device && strchr(choice->device, ',') ? choice->device + strlen("cuda:") : NULL,
        .compute = choice->compute == ZIMAGE_COMPUTE_AUTO ? automatic(NULL) : choice->compute,
        .memory = choice->memory,
        .upload_threads = zi_pool_threads(pool),
        .cache = choice->cache_folder,
    };
    return ((zi_ops_cuda_new_fn *)functions[1])(&options, ops, error);
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
