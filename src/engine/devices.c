/* The public list of devices and CPU kernels. */
#include <stdlib.h>
#include <string.h>

#include "base/sized.h"
#include "base/stack.h"
#include "cpu/cpu.h"
#include "cpu/features.h"
#include "engine/backends.h"

#define KERNELS_MAX 32

struct zimage_device_list {
    zimage_device_info *devices;
    size_t count;
    zimage_kernel_info kernels[KERNELS_MAX];
    size_t kernel_count;
};

static zimage_status add_backend(zimage_device_list *list, const zi_backend *backend, const char *cpu_mask,
                                 zimage_error *error)
{
    size_t found = 0, bytes = (list->count + ZI_DEVICES_MAX) * sizeof *list->devices;
    zimage_device_info *devices = realloc(list->devices, bytes);
    if (!devices)
        return zi_fail_memory(error, "the list of devices", bytes);
    list->devices = devices;
    ZI_TRY(backend->find(cpu_mask, devices + list->count, ZI_DEVICES_MAX, &found, error));
    list->count += found;
    return ZIMAGE_OK;
}

static zimage_status add_kernels(zimage_device_list *list, const char *cpu_mask, zimage_error *error)
{
    uint32_t mask;
    zi_cpu_set set;
    ZI_TRY(zi_cpu_mask_parse(cpu_mask, &mask, error));
    for (int i = 0; i < KERNELS_MAX && zi_cpu_set_at(i, mask & zi_cpu_features(), &set); i++) {
        zimage_kernel_info *info = &list->kernels[list->kernel_count++];
        *info = (zimage_kernel_info){.usable = set.usable, .gops = set.usable ? zi_cpu_set_rate(&set) * 1e-9 : 0};
        strncpy(info->name, set.name, sizeof info->name - 1);
    }
    return ZIMAGE_OK;
}

static zimage_status fill(zimage_device_list *list, const char *cpu_mask, zimage_error *error)
{
    for (const zi_backend *const *backend = zi_backends; *backend; backend++)
        ZI_TRY(add_backend(list, *backend, cpu_mask, error));
    return add_kernels(list, cpu_mask, error);
}

zimage_status zimage_devices(const char *cpu_mask, zimage_device_list **list, zimage_error *error)
{
    if (!list)
        return zi_fail(error, ZIMAGE_ERROR_ARGUMENT, "list: NULL, expected where to put the list");
    *list = NULL;
    ZI_TRY(zi_stack_check(error));
    zimage_device_list *made = calloc(1, sizeof *made);
    if (!made)
        return zi_fail_memory(error, "the list of devices", sizeof *made);
    zimage_status status = fill(made, cpu_mask, error);
    if (status == ZIMAGE_OK)
        *list = made;
    else
        zimage_device_list_free(made);
    return status;
}

size_t zimage_device_count(const zimage_device_list *list)
{
    return list ? list->count : 0;
}

size_t zimage_kernel_count(const zimage_device_list *list)
{
    return list ? list->kernel_count : 0;
}

/* list: what is looked into; NULL is a fault of its own. */
static zimage_status no_such(const zimage_device_list *list, size_t index, size_t count, zimage_error *error)
{
    if (!list)
        return zi_fail(error, ZIMAGE_ERROR_ARGUMENT, "list: NULL, expected a list of devices");
    return zi_fail(error, ZIMAGE_ERROR_ARGUMENT, "index: %zu, expected less than %zu", index, count);
}

zimage_status zimage_device_get(const zimage_device_list *list, size_t index, zimage_device_info *info,
                                zimage_error *error)
{
    if (index >= zimage_device_count(list))
        return no_such(list, index, zimage_device_count(list), error);
    return ZI_GIVE(info, &list->devices[index], zimage_device_info, memory_bytes, error);
}

zimage_status zimage_kernel_get(const zimage_device_list *list, size_t index, zimage_kernel_info *info,
                                zimage_error *error)
{
    if (index >= zimage_kernel_count(list))
        return no_such(list, index, zimage_kernel_count(list), error);
    return ZI_GIVE(info, &list->kernels[index], zimage_kernel_info, gops, error);
}

void zimage_device_list_free(zimage_device_list *list)
{
    if (list)
        free(list->devices);
    free(list);
}
