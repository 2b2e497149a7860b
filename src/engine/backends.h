/*
 * The backends of this build. Each is one entry of a list: which devices it has, and how it is opened. A new backend
 * is a file with a zi_backend and a line in backends.c.
 */
#ifndef ZI_ENGINE_BACKENDS_H
#define ZI_ENGINE_BACKENDS_H

#include "base/pool.h"
#include "ops/ops.h"

/* What a session asks for. */
typedef struct zi_backend_choice {
    const char *device; /* as zimage_session_params.device; NULL: "cpu" */
    zimage_compute compute;
    const char *cpu_mask;     /* CPU only; else NULL */
    uint64_t memory;          /* most bytes of a device's own memory; 0: what is free. Devices with such memory only. */
    const char *cache_folder; /* NULL: nothing is kept */
} zi_backend_choice;

typedef struct zi_backend {
    const char *name; /* "cpu", "cuda": also the name of its first device */
    int is_gpu;       /* "auto" prefers it to the CPU */
    /* The backend's devices, at most `capacity` of them, usable or not. Where there is none, one entry says why. */
    zimage_status (*find)(const char *cpu_mask, zimage_device_info *infos, size_t capacity, size_t *count,
                          zimage_error *error);
    /* Whether it could do what is asked, on any of its devices: "auto" looks elsewhere if it could not. */
    int (*suits)(const zi_backend_choice *choice);
    /* The index of the device that `device` names; -1: it names none of this backend's. */
    int (*index_of)(const char *device);
    /* What compute type AUTO became in an open backend. */
    zimage_compute (*automatic)(const zi_ops *ops);
    /* Opens a device; the pool stays the caller's and must outlive the backend. */
    zimage_status (*open)(const zi_backend_choice *choice, int index, zi_pool *pool, zi_ops **ops, zimage_error *error);
} zi_backend;

extern const zi_backend zi_backend_cpu, zi_backend_cuda, zi_backend_mlx;

/* All of this build, NULL-ended, the CPU first. "auto" takes the first of the others that can be used. */
extern const zi_backend *const zi_backends[];

#define ZI_DEVICES_MAX 64 /* of one backend that are looked at */

/* Opens what a choice names. */
zimage_status zi_backend_open(const zi_backend_choice *choice, zi_pool *pool, zi_ops **ops, zimage_error *error);

/* The compute type of a backend that was opened with a choice of `compute`; never AUTO. */
zimage_compute zi_backend_compute(const zi_ops *ops, zimage_compute compute);

/* Whether the device has memory of its own, which a limit and a plan are for. */
static inline int zi_has_own_memory(const zi_ops *ops)
{
    return ops->table->memory == ZI_MEMORY_DEVICE;
}

#endif
