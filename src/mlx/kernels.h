/*
 * Kernels of our own for a GPU, compiled by MLX when they are first used. Norms, residuals and rotations read and write
 * each row once by them, which MLX's own operations in float32 do five times. Packed weights are unpacked at the rate
 * of the memory.
 *
 * They are written once for Metal and for CUDA. Nobody has run them on Metal yet. So a backend that opens a GPU first
 * compares them with MLX's own operations (zi_mlx_kernels_agree), and leaves them unused where they differ or fail.
 */
#ifndef ZI_MLX_KERNELS_H
#define ZI_MLX_KERNELS_H

#include <optional>

#include "mlx/cells.h"

/* A norm as the kernels take it: factors and shift in float32, [features]. */
struct zi_row_norm {
    bool layer; /* else RMS */
    float eps;
    std::optional<mx::array> gain, shift;
};

struct zi_row_sum {
    mx::array sum;              /* x + post(y) */
    std::optional<mx::array> h; /* next(sum) */
    mx::array finite;           /* float32 [rows]: 0 where a row of the sum is not finite */
};

/* All arrays are bf16 [rows, features]. */
mx::array zi_kernel_norm(const mx::array &x, const zi_row_norm &norm);
/* post: an RMS norm without shift; without it y is multiplied by `gain` only. */
zi_row_sum zi_kernel_residual(const mx::array &x, const mx::array &y, const std::optional<zi_row_norm> &post,
                              const std::optional<mx::array> &gain, const std::optional<zi_row_norm> &next);
/* x [tokens, heads * head_dim]; weight [head_dim], cosines and sines [tokens, head_dim / 2] in float32. */
mx::array zi_kernel_rotate(const mx::array &x, const mx::array &weight, const mx::array &cosines,
                           const mx::array &sines, float eps, bool adjacent);

bool zi_kernel_can_unpack(int bits, int group);
/* Packed numbers [out, words] of uint32, scales and biases [out, groups] of any float type, to bf16 [out, in]. */
mx::array zi_kernel_unpack(const mx::array &numbers, const mx::array &scales, const mx::array &biases, int bits,
                           int group);

#endif
