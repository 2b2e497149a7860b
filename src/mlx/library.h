/*
 * The interface of libzimage-mlx. (The file is not called mlx.h, because "mlx/mlx.h" is a header of MLX.) libzimage
 * opens that library at run time (engine/backend_mlx.c) and never links it: a program must also start where MLX is not
 * installed. Both must be built from the same sources, which zi_mlx_abi checks.
 */
#ifndef ZI_MLX_LIBRARY_H
#define ZI_MLX_LIBRARY_H

#include "ops/ops.h"

#define ZI_MLX_ABI    3                                       /* raised with every change of this header or ops.h */
#define ZI_MLX_LAYOUT (sizeof(zi_ops_table) + sizeof(zi_ops)) /* also differs where the table does */

typedef struct zi_mlx_options {
    zimage_compute compute; /* f32 or bf16; ZIMAGE_COMPUTE_AUTO is bf16 */
    const char *cache;      /* a folder where the faster of two ways is kept; NULL: nothing is kept */
} zi_mlx_options;

typedef struct zi_mlx_device {
    char name[128];
    int is_gpu;       /* 0: this build of MLX has a CPU only */
    uint64_t memory;  /* bytes, which a GPU shares with the host on Apple; 0: MLX does not say */
    char version[32]; /* of MLX */
} zi_mlx_device;

typedef int zi_mlx_abi_fn(size_t *layout);
typedef zimage_status zi_mlx_find_fn(zi_mlx_device *device, zimage_error *error);
typedef zimage_status zi_ops_mlx_new_fn(const zi_mlx_options *options, zi_ops **ops, zimage_error *error);

#define ZI_MLX_EXPORT __attribute__((visibility("default")))

/* ZI_MLX_ABI and ZI_MLX_LAYOUT of the library's own build. */
ZI_MLX_EXPORT zi_mlx_abi_fn zi_mlx_abi;
/* The device that MLX computes on. ZIMAGE_ERROR_UNSUPPORTED: the MLX that was loaded is not the one of the build. */
ZI_MLX_EXPORT zi_mlx_find_fn zi_mlx_find;
/* Opens that device. *ops is released with its table's free. */
ZI_MLX_EXPORT zi_ops_mlx_new_fn zi_ops_mlx_new;

#endif
