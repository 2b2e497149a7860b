#include "engine/device.h"

#include <dlfcn.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/system.h"
#include "cpu/cpu.h"

#define LIBRARY   "libzimage-cuda.so"
#define MOST_CARD 64 /* that are looked at */

/* ---- the library ------------------------------------------------------------------------------------------------- */

typedef struct cuda_library {
    zi_cuda_devices_fn *devices;
    zi_ops_cuda_new_fn *ops_new;
} cuda_library;

/* The folder of the file that this code was loaded from: the program, or libzimage. */
static int own_folder(char *folder, size_t size)
{
    Dl_info info;
    char path[PATH_MAX];
    if (!dladdr((const void *)zi_device_ops, &info) || !info.dli_fname || !realpath(info.dli_fname, path))
        return 0;
    char *slash = strrchr(path, '/');
    if (!slash)
        return 0;
    *slash = 0;
    return snprintf(folder, size, "%s", path) < (int)size;
}

/* Stays loaded: the driver's own threads and memory belong to it. */
static void *load(const char *path)
{
    return dlopen(path, RTLD_NOW | RTLD_LOCAL | RTLD_NODELETE);
}

/* Beside this code, in ../lib of it, then wherever the system looks. why: the last file's fault. */
static void *find_library(char *why, size_t size)
{
    static const char *const places[] = {"/" LIBRARY, "/../lib/" LIBRARY};
    char folder[PATH_MAX], path[PATH_MAX + sizeof LIBRARY + 16];
    void *library = NULL;
    int found = 0;
    *why = 0;
    for (size_t i = 0; i < 2 && !found && own_folder(folder, sizeof folder); i++) {
        snprintf(path, sizeof path, "%s%s", folder, places[i]);
        FILE *file = fopen(path, "rb");
        found = file != NULL;
        if (file)
            fclose(file);
    }
    library = load(found ? path : LIBRARY);
    if (!library) {
        const char *text = dlerror();
        snprintf(why, size, "%s", text ? text : "no reason was given");
    }
    return library;
}

static zimage_status open_library(cuda_library *cuda, zimage_error *error)
{
    char why[512];
    void *library = find_library(why, sizeof why);
    if (!library)
        return zi_fail(error, ZIMAGE_ERROR_UNSUPPORTED,
                       "no CUDA device: " LIBRARY
                       " can't be loaded (%s); expected it beside the program, in its ../lib "
                       "or on the system's library path",
                       why);
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

zimage_status zi_device_cards(zi_cuda_device *devices, int capacity, int *count, zimage_error *error)
{
    cuda_library cuda = {NULL, NULL};
    *count = 0;
    ZI_TRY(open_library(&cuda, error));
    if (cuda.devices == NULL)
        return ZIMAGE_ERROR_UNSUPPORTED;
    ZI_TRY(cuda.devices(devices, capacity, count, error));
    if (*count > capacity)
        *count = capacity;
    return ZIMAGE_OK;
}

/* ---- choosing ---------------------------------------------------------------------------------------------------- */

static zimage_status cpu_ops(const zi_device_choice *choice, zi_pool *pool, zi_ops **ops, zimage_error *error)
{
    static const zi_compute computes[] = {
        [ZIMAGE_COMPUTE_AUTO] = ZI_COMPUTE_AUTO,
        [ZIMAGE_COMPUTE_F32] = ZI_COMPUTE_F32,
        [ZIMAGE_COMPUTE_BF16] = ZI_COMPUTE_BF16,
        [ZIMAGE_COMPUTE_INT8] = ZI_COMPUTE_INT8,
    };
    if ((unsigned)choice->compute > ZIMAGE_COMPUTE_INT8)
        return zi_fail(error, ZIMAGE_ERROR_ARGUMENT,
                       "compute: %d, expected 0 (automatic), 1 (f32), 2 (bf16) or 3 (int8) on the processor",
                       (int)choice->compute);
    if (choice->memory > 0)
        return zi_fail(error, ZIMAGE_ERROR_ARGUMENT,
                       "device_memory: %llu bytes, expected 0 on the processor: it limits the memory of a card%s",
                       (unsigned long long)choice->memory,
                       choice->device && !strcmp(choice->device, "auto") ? ", and none can be used" : "");
    return zi_ops_cpu_new_with(pool, &(zi_cpu_options){choice->cpu_mask, computes[choice->compute]}, ops, error);
}

static zimage_status cuda_ops(const zi_device_choice *choice, int index, zi_pool *pool, zi_ops **ops,
                              zimage_error *error)
{
    cuda_library cuda = {NULL, NULL};
    static const zi_compute computes[] = {
        [ZIMAGE_COMPUTE_AUTO] = ZI_COMPUTE_BF16, [ZIMAGE_COMPUTE_F32] = ZI_COMPUTE_F32,
        [ZIMAGE_COMPUTE_BF16] = ZI_COMPUTE_BF16, [ZIMAGE_COMPUTE_INT8] = ZI_COMPUTE_INT8,
        [ZIMAGE_COMPUTE_FP8] = ZI_COMPUTE_FP8,
    };
    if ((unsigned)choice->compute > ZIMAGE_COMPUTE_FP8 || choice->compute == ZIMAGE_COMPUTE_INT8)
        return zi_fail(error, ZIMAGE_ERROR_ARGUMENT,
                       "compute: %d, expected 0 (automatic), 1 (f32), 2 (bf16) or 4 (fp8) with device \"%s\"",
                       (int)choice->compute, choice->device);
    if (choice->cpu_mask)
        return zi_fail(error, ZIMAGE_ERROR_ARGUMENT, "cpu_mask: \"%s\", expected none with device \"%s\"",
                       choice->cpu_mask, choice->device);
    ZI_TRY(open_library(&cuda, error));
    if (cuda.ops_new == NULL)
        return ZIMAGE_ERROR_UNSUPPORTED;
    char *cache = zi_cache_folder(1);
    const zi_cuda_options options = {.device = index,
                                     .compute = computes[choice->compute],
                                     .memory = choice->memory,
                                     .upload_threads = zi_pool_threads(pool),
                                     .cache = cache};
    zimage_status status = cuda.ops_new(&options, ops, error);
    free(cache);
    return status;
}

/* The first card that can be used, or -1. */
static int usable_card(void)
{
    zi_cuda_device devices[MOST_CARD];
    int count;
    if (zi_device_cards(devices, MOST_CARD, &count, NULL) != ZIMAGE_OK)
        return -1;
    for (int i = 0; i < count; i++)
        if (!*devices[i].fault)
            return devices[i].index;
    return -1;
}

/* What only the processor does is asked of the processor. */
static zimage_status automatic_ops(const zi_device_choice *choice, zi_pool *pool, zi_ops **ops, zimage_error *error)
{
    int possible = choice->compute != ZIMAGE_COMPUTE_INT8 && !choice->cpu_mask;
    int card = possible ? usable_card() : -1;
    return card < 0 ? cpu_ops(choice, pool, ops, error) : cuda_ops(choice, card, pool, ops, error);
}

/* K of "cuda:K", 0 of "cuda"; -1: it is something else. */
static int card_index(const char *device)
{
    if (strncmp(device, "cuda", 4) != 0)
        return -1;
    if (!device[4])
        return 0;
    char *end;
    long index = strtol(device + 5, &end, 10);
    return device[4] == ':' && device[5] >= '0' && device[5] <= '9' && !*end && index < MOST_CARD ? (int)index : -1;
}

zimage_status zi_device_ops(const zi_device_choice *choice, zi_pool *pool, zi_ops **ops, zimage_error *error)
{
    const char *device = choice->device ? choice->device : "cpu";
    if (!strcmp(device, "cpu"))
        return cpu_ops(choice, pool, ops, error);
    if (!strcmp(device, "auto"))
        return automatic_ops(choice, pool, ops, error);
    int index = card_index(device);
    if (index < 0)
        return zi_fail(error, ZIMAGE_ERROR_ARGUMENT, "device: \"%s\", expected auto, cpu, cuda or cuda:K", device);
    return cuda_ops(choice, index, pool, ops, error);
}

int zi_device_is_card(const zi_ops *ops)
{
    return !strcmp(ops->table->name, "cuda");
}
