#include "engine/backends.h"

#include <stdio.h>
#include <string.h>

const zi_backend *const zi_backends[] = {&zi_backend_cpu, &zi_backend_cuda, &zi_backend_mlx, NULL};

/* The first device that can be used; -1: none. */
static int usable_device(const zi_backend *backend)
{
    zimage_device_info infos[ZI_DEVICES_MAX];
    size_t count = 0;
    if (backend->find(NULL, infos, ZI_DEVICES_MAX, &count, NULL) != ZIMAGE_OK)
        return -1;
    for (size_t i = 0; i < count; i++)
        if (infos[i].usable)
            return backend->index_of(infos[i].device);
    return -1;
}

/* A GPU where one can be used and can do what is asked, else the CPU. */
static zimage_status open_automatically(const zi_backend_choice *choice, zi_pool *pool, zi_ops **ops,
                                        zimage_error *error)
{
    for (const zi_backend *const *backend = zi_backends; *backend; backend++) {
        int index = (*backend)->is_gpu && (*backend)->suits(choice) ? usable_device(*backend) : -1;
        if (index >= 0)
            return (*backend)->open(choice, index, pool, ops, error);
    }
    return zi_backend_cpu.open(choice, 0, pool, ops, error);
}

/* "auto, cpu, cuda, cuda:K, mlx or mlx:K": the last backend is a GPU's. */
static void list_names(char *text, size_t size)
{
    size_t length = (size_t)snprintf(text, size, "auto");
    for (const zi_backend *const *backend = zi_backends; *backend && length < size; backend++) {
        const char *name = (*backend)->name;
        length += (size_t)snprintf(text + length, size - length, ", %s", name);
        if ((*backend)->is_gpu && length < size)
            length += (size_t)snprintf(text + length, size - length, backend[1] ? ", %s:K" : " or %s:K", name);
    }
}

zimage_status zi_backend_open(const zi_backend_choice *choice, zi_pool *pool, zi_ops **ops, zimage_error *error)
{
    const char *device = choice->device ? choice->device : "cpu";
    char names[128];
    if (!strcmp(device, "auto"))
        return open_automatically(choice, pool, ops, error);
    for (const zi_backend *const *backend = zi_backends; *backend; backend++) {
        int index = (*backend)->index_of(device);
        if (index >= 0)
            return (*backend)->open(choice, index, pool, ops, error);
    }
    list_names(names, sizeof names);
    return zi_fail(error, ZIMAGE_ERROR_ARGUMENT, "device: \"%s\", expected %s", device, names);
}

zimage_compute zi_backend_compute(const zi_ops *ops, zimage_compute compute)
{
    for (const zi_backend *const *backend = zi_backends; *backend && compute == ZIMAGE_COMPUTE_AUTO; backend++)
        if (!strcmp((*backend)->name, ops->table->name))
            compute = (*backend)->automatic(ops);
    return compute == ZIMAGE_COMPUTE_AUTO ? ZIMAGE_COMPUTE_F32 : compute; /* the reference is in none of the lists */
}
