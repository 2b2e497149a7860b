/* The CPU as a device. */
#include <stdio.h>
#include <string.h>

#include "base/cpu_count.h"
#include "base/system.h"
#include "cpu/cpu.h"
#include "cpu/features.h"
#include "engine/backends.h"

static void list_features(uint32_t features, char *text, size_t size)
{
    size_t length = 0;
    text[0] = 0;
    for (int i = 0; i < ZI_CPU_FEATURES && length < size; i++)
        if (features >> i & 1)
            length += (size_t)snprintf(text + length, size - length, "%s%s", length ? "," : "",
                                       zi_cpu_feature_name((zi_cpu_feature)i));
}

static zimage_status find(const char *cpu_mask, zimage_device_info *infos, size_t capacity, size_t *count,
                          zimage_error *error)
{
    uint32_t mask;
    *count = 1;
    ZI_TRY(zi_cpu_mask_parse(cpu_mask, &mask, error));
    infos[0] = (zimage_device_info){.usable = 1, .device = "cpu", .threads = zi_cpu_count()};
    zi_cpu_model(infos[0].name, sizeof infos[0].name);
    list_features(mask & zi_cpu_features(), infos[0].cpu_features, sizeof infos[0].cpu_features);
    return ZIMAGE_OK;
}

static int suits(const zi_backend_choice *choice)
{
    return choice->compute <= ZIMAGE_COMPUTE_INT8 && choice->memory == 0;
}

static int index_of(const char *device)
{
    return strcmp(device, "cpu") == 0 ? 0 : -1;
}

static zimage_status open_cpu(const zi_backend_choice *choice, int index, zi_pool *pool, zi_ops **ops,
                              zimage_error *error)
{
    if (choice->compute > ZIMAGE_COMPUTE_INT8)
        return zi_fail(error, ZIMAGE_ERROR_ARGUMENT, "compute: %s, expected auto, f32, bf16 or int8 on the CPU",
                       zimage_compute_name(choice->compute));
    if (choice->memory > 0)
        return zi_fail(error, ZIMAGE_ERROR_ARGUMENT,
                       "device_memory: %llu bytes, expected 0 on the CPU: it limits the memory of a GPU%s",
                       (unsigned long long)choice->memory,
                       choice->device && !strcmp(choice->device, "auto") ? ", and none can be used" : "");
    return zi_ops_cpu_new(pool, &(zi_cpu_options){choice->cpu_mask, choice->compute}, ops, error);
}

const zi_backend zi_backend_cpu = {
    .name = "cpu",
    .is_gpu = 0,
    .find = find,
    .suits = suits,
    .index_of = index_of,
    .automatic = zi_ops_cpu_compute,
    .open = open_cpu,
};
