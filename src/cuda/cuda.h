/*
 * The interface of libzimage-cuda. libzimage opens that library at run time (engine/backend_cuda.c) and never links it.
 * Both must be built from the same sources, which zi_cuda_abi checks.
 */
#ifndef ZI_CUDA_CUDA_H
#define ZI_CUDA_CUDA_H

#include "ops/ops.h"

#define ZI_CUDA_ABI    13                                      /* raised with every change of this header or ops.h */
#define ZI_CUDA_LAYOUT (sizeof(zi_ops_table) + sizeof(zi_ops)) /* also differs where the table does */

typedef struct zi_cuda_options {
    int device;
    const char *devices;    /* several GPUs for one image, as "0,1"; NULL: `device` alone */
    zimage_compute compute; /* ZIMAGE_COMPUTE_AUTO is bf16 */
    int own_kernels;        /* 1: attention and convolutions without cuDNN, to test our own kernels */
    uint64_t memory;        /* most bytes of device memory to take; 0: what is free */
    int upload_threads;     /* that copy weights; 0: one */
    size_t upload_piece;    /* bytes that they copy at a time; 0: a good default */
    const char *cache;      /* a folder where the fastest algorithms are kept; NULL: nothing is kept */
} zi_cuda_options;

typedef struct zi_cuda_device {
    int index;
    char name[128];
    int major, minor; /* compute capability */
    uint64_t memory;  /* bytes */
    char fault[160];  /* why it can't be used; empty: it can */
} zi_cuda_device;

typedef int zi_cuda_abi_fn(size_t *layout);
typedef zimage_status zi_cuda_devices_fn(zi_cuda_device *devices, int capacity, int *count, zimage_error *error);
typedef zimage_status zi_ops_cuda_new_fn(const zi_cuda_options *options, zi_ops **ops, zimage_error *error);

#define ZI_CUDA_EXPORT __attribute__((visibility("default")))

/* ZI_CUDA_ABI and ZI_CUDA_LAYOUT of the library's own build. */
ZI_CUDA_EXPORT zi_cuda_abi_fn zi_cuda_abi;
/* Fills the GPUs of this machine; *count may exceed capacity. ZIMAGE_ERROR_UNSUPPORTED: no driver or no GPU. */
ZI_CUDA_EXPORT zi_cuda_devices_fn zi_cuda_devices;
/* Opens a GPU. *ops is released with its table's free. */
ZI_CUDA_EXPORT zi_ops_cuda_new_fn zi_ops_cuda_new;

#endif
