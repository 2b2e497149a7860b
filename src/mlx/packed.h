/* Products with 4-bit weights by a kernel of our own (cuda/packed.cuh) on NVIDIA GPUs of compute capability 9.0. */
#ifndef ZI_MLX_PACKED_H
#define ZI_MLX_PACKED_H

#include <stddef.h>

#include "mlx/internal.h"

/* The kernel's machine code for a number of tokens: packed_kernels.cmake. */
struct zi_packed_code {
    int tokens, gated;
    const char *name;
    const unsigned char *code;
    size_t bytes;
};
extern const zi_packed_code zi_packed_codes[];
extern const int zi_packed_code_count;

/* A matrix of 4-bit numbers as MLX keeps it: [out, in / 8] of uint32, and bf16 [out, in / group]. */
struct zi_packed_matrix {
    mx::array numbers, scales, biases;
};

/* Whether this library has the kernel, and the default device runs it faster for such sizes than it unpacks w first. */
bool zi_packed_is_best(int64_t rows, int64_t out, int64_t in, const zi_packed_kind &kind, bool gated);
/* x w^T, or silu(x w^T) * (x w3^T) with w3. x: [rows, in], read as bf16. The result: bf16 [rows, out]. */
mx::array zi_packed_product(const mx::array &x, const zi_packed_matrix &w, const zi_packed_matrix *w3, int group);

#endif
