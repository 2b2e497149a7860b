/*
 * The text of the kernels of kernels.h. They are written once for Metal and CUDA; what differs has names of its own.
 * MLX adds the head of the function: a parameter for each input and output, and constants for the arguments of the
 * template. tests/mlx_kernels compiles the text of CUDA for the emulated GPU.
 */
#ifndef ZI_MLX_KERNEL_SOURCES_H
#define ZI_MLX_KERNEL_SOURCES_H

#include <string>
#include <vector>

#define ZI_KERNEL_THREADS 256 /* of a block; a warp has 32 */

struct zi_kernel_source {
    std::string name;
    std::vector<std::string> inputs, outputs;
    std::string body, more; /* of the function, in two parts */
    bool sums;              /* threads of a block add up */
};

/* Throws std::logic_error if there is no such kernel. */
const zi_kernel_source &zi_kernel_find(const std::string &name);
/* What comes before the function. */
std::string zi_kernel_header(bool metal);
/* The function's body. */
std::string zi_kernel_body(const zi_kernel_source &source, bool metal);

#endif
