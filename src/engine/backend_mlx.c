/* Apple's GPUs, by MLX, through libzimage-mlx, which is looked for when a GPU is asked for. */
#include <stdio.h>
#include <string.h>

#include "base/file.h"
#include "engine/backends.h"
#include "engine/plugin.h"
#include "mlx/library.h"

static const zi_plugin plugin = {.name = "mlx",
                                 .devices = "MLX",
                                 .abi_symbol = "zi_mlx_abi",
                                 .abi = ZI_MLX_ABI,
                                 .layout = ZI_MLX_LAYOUT,
                                 .symbols = {"zi_mlx_find", "zi_ops_mlx_new"}};

static zimage_status find_device(zi_mlx_device *device, zimage_error *error)
{
    zi_plugin_fn *functions[ZI_PLUGIN_SYMBOLS];
    ZI_TRY(zi_plugin_open(&plugin, functions, error));
    return ((zi_mlx_find_fn *)functions[0])(device, error);
}

static zimage_status find(const char *cpu_mask, zimage_device_info *infos, size_t capacity, size_t *count,
                          zimage_error *error)
{
    zi_mlx_device device;
    zimage_error why = ZIMAGE_ERROR_INIT;
    *count = 1;
    infos[0] = (zimage_device_info){.device = "mlx"};
    if (find_device(&device, &why) != ZIMAGE_OK) {
        snprintf(infos[0].fault, sizeof infos[0].fault, "%.511s", why.message);
        return ZIMAGE_OK;
    }
    infos[0].usable = 1;
    infos[0].memory_bytes = device.memory;
    snprintf(infos[0].name, sizeof infos[0].name, "%.80s, MLX %.20s%s", device.name, device.version,
             device.is_gpu ? "" : ", which finds no GPU and is slow; the device cpu is faster");
    return ZIMAGE_OK;
}

/* MLX without a GPU is for tests: it computes far more slowly than the CPU backend. */
static int suits(const zi_backend_choice *choice)
{
    zi_mlx_device device;
    return choice->compute <= ZIMAGE_COMPUTE_BF16 && !choice->cpu_mask && choice->memory == 0 &&
           find_device(&device, NULL) == ZIMAGE_OK && device.is_gpu;
}

static int index_of(const char *device)
{
    return strcmp(device, "mlx") == 0 || strcmp(device, "mlx:0") == 0 ? 0 : -1;
}

static zimage_compute automatic(const zi_ops *ops)
{
    return ZIMAGE_COMPUTE_BF16;
}

static zimage_status open_mlx(const zi_backend_choice *choice, int index, zi_pool *pool, zi_ops **ops,
                              zimage_error *error)
{
    zi_plugin_fn *functions[ZI_PLUGIN_SYMBOLS];
    if (choice->compute > ZIMAGE_COMPUTE_BF16)
        return zi_fail(error, ZIMAGE_ERROR_UNSUPPORTED, "compute: %s, expected auto, f32 or bf16 with device \"%s\"",
                       zimage_compute_name(choice->compute), choice->device);
    if (choice->cpu_mask)
        return zi_fail(error, ZIMAGE_ERROR_ARGUMENT, "cpu_mask: \"%s\", expected none with device \"%s\"",
                       choice->cpu_mask, choice->device);
    if (choice->memory > 0)
        return zi_fail(error, ZIMAGE_ERROR_ARGUMENT,
                       "device_memory: %llu bytes, expected 0 with device \"%s\", which shares the host's memory: a "
                       "memory_limit limits both",
                       (unsigned long long)choice->memory, choice->device);
    ZI_TRY(zi_plugin_open(&plugin, functions, error));
    if (choice->cache_folder)
        zi_folder_create(choice->cache_folder); /* without it the library's measurements are lost */
    const zi_mlx_options options = {
        .compute = choice->compute == ZIMAGE_COMPUTE_AUTO ? automatic(NULL) : choice->compute,
        .cache = choice->cache_folder,
    };
    return ((zi_ops_mlx_new_fn *)functions[1])(&options, ops, error);
}

const zi_backend zi_backend_mlx = {
    .name = "mlx",
    .is_gpu = 1,
    .find = find,
    .suits = suits,
    .index_of = index_of,
    .automatic = automatic,
    .open = open_mlx,
};
