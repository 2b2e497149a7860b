/* The kernel for 4-bit weights as MLX starts it: arrays, then numbers. A file of machine code has one kernel, NAME, of
 * the template arguments TOKENS and GATED: MLX copies that file whenever it queues the kernel. */
#include "cuda/packed.cuh"

/* pattern: a map of any matrix with boxes of TOKENS rows and 64 columns. maps: room for a map of x for each block. */
extern "C" __global__ void __launch_bounds__(PACKED_THREADS, 1)
    NAME(const bf16 *x, const uint8_t *numbers, const bf16 *scales, const bf16 *biases, const uint8_t *numbers3,
         const bf16 *scales3, const bf16 *biases3, const CUtensorMap *pattern, bf16 *y, CUtensorMap *maps, int rows,
         int out, int in, int group)
{
    __shared__ __align__(128) CUtensorMap copy;
    const packed_args args = {y, {{numbers, scales, biases}, {numbers3, scales3, biases3}}, rows, out, in, group, out};
    CUtensorMap *map = &maps[blockIdx.x];
    if (threadIdx.x < 32)
        tile_map_make(map, &copy, pattern, x, (uint32_t)rows, (uint32_t)in);
    __syncthreads();
    if (threadIdx.x % PACKED_GROUP == 0)
        tile_map_acquire(map);
    packed_product<TOKENS, GATED>(args, map);
}
