/* A product with 4-bit weights as one kernel (packed.cuh): its sizes, for those who launch it. */
#ifndef ZI_CUDA_PACKED_H
#define ZI_CUDA_PACKED_H

#include <stdint.h>

#ifdef __CUDACC__
#define ZI_PACKED_FUNCTION static __host__ __device__ __forceinline__
#else
#define ZI_PACKED_FUNCTION static inline
#endif

#define PACKED_STEP        64  /* numbers of each row, of a stage */
#define PACKED_ROWS        128 /* of weights, of a tile */
#define PACKED_STAGES      4
#define PACKED_GROUP       128 /* threads of a warp group */
#define PACKED_FILLERS     2   /* warp groups that fill stages */
#define PACKED_MULTIPLIERS 2
#define PACKED_THREADS     ((PACKED_FILLERS + PACKED_MULTIPLIERS) * PACKED_GROUP)
#define PACKED_ROW_BYTES   (PACKED_STEP * 2) /* of a row in shared memory; swizzled as tile_descriptor's */
#define PACKED_HALF_BYTES  (PACKED_ROWS / 2 * PACKED_ROW_BYTES)
#define PACKED_PIECE       4  /* steps whose scales are one copy of a row: 16 bytes for groups of 32, else 8 */
#define PACKED_SCALE_ROW   48 /* bytes between rows of scales in shared memory; 8 such rows use different banks */
#define PACKED_SCALE_BYTES (PACKED_ROWS * PACKED_SCALE_ROW) /* of a period, which is two pieces; biases as many */

/* Calls `use(tokens)` for each number of tokens that a warp group may have of a tile. packed_kernels.cmake reads it. */
#define PACKED_EACH_TOKENS(use) use(136) use(128) use(112) use(96)

/* Columns of y that a tile has. gated: y = silu(x w1^T) * (x w3^T). */
ZI_PACKED_FUNCTION int zi_packed_columns(int gated)
{
    return gated ? PACKED_ROWS / 2 : PACKED_ROWS;
}

/* Whether the kernel can multiply by w [out, in], or by w1 and w3 of that shape. */
ZI_PACKED_FUNCTION int zi_packed_fits(int64_t rows, int64_t out, int64_t in, int bits, int group, int gated)
{
    const int64_t most = 1 << 20; /* tiles fit an int */
    return bits == 4 && (group == 32 || group == 64) && rows > 0 && rows <= most && out > 0 && out <= most && in > 0 &&
           in <= most && out % zi_packed_columns(gated) == 0 && in % (PACKED_STEP * PACKED_PIECE) == 0;
}

/* Tiles beside one another that cover all rows of x: each has the tokens of two warp groups. */
ZI_PACKED_FUNCTION int zi_packed_token_tiles(int rows, int tokens)
{
    return (rows + PACKED_MULTIPLIERS * tokens - 1) / (PACKED_MULTIPLIERS * tokens);
}

ZI_PACKED_FUNCTION int zi_packed_tiles(int rows, int out, int tokens, int gated)
{
    return out / zi_packed_columns(gated) * zi_packed_token_tiles(rows, tokens);
}

/* How often a multiprocessor computes a tile, at most. */
ZI_PACKED_FUNCTION int zi_packed_rounds(int rows, int out, int tokens, int gated, int processors)
{
    return (zi_packed_tiles(rows, out, tokens, gated) + processors - 1) / processors;
}

/* Bytes of a stage in shared memory. */
ZI_PACKED_FUNCTION int zi_packed_stage_bytes(int tokens)
{
    return 2 * PACKED_HALF_BYTES + PACKED_MULTIPLIERS * tokens * PACKED_ROW_BYTES;
}

/* Bytes of shared memory: stages, which begin at a multiple of 1024, scales and biases of two periods, and barriers. */
ZI_PACKED_FUNCTION int zi_packed_shared_bytes(int tokens)
{
    return 1024 + PACKED_STAGES * (zi_packed_stage_bytes(tokens) + 16) + 2 * (2 * PACKED_SCALE_BYTES + 8);
}

/* The number of tokens with which all tiles take the shortest time on so many multiprocessors. A stage takes as long as
 * its tokens and 150 more. */
ZI_PACKED_FUNCTION int zi_packed_tokens(int rows, int out, int gated, int processors)
{
    int best = 0;
    int64_t shortest = INT64_MAX;
#define CONSIDER(tokens)                                                                                               \
    {                                                                                                                  \
        const int64_t time = (int64_t)zi_packed_rounds(rows, out, tokens, gated, processors) * ((tokens) + 150);       \
        if (time < shortest) {                                                                                         \
            shortest = time;                                                                                           \
            best = tokens;                                                                                             \
        }                                                                                                              \
    }
    PACKED_EACH_TOKENS(CONSIDER)
#undef CONSIDER
    return best;
}

/* Whether the kernel takes less time than unpacking w first. out: rows of w, or of w1 and as many of w3. It is a rule,
 * because what is measured of one product alone says little of a step, in which the GPU is at its limit of power.
 * Measured there on an H200 (docs/experiments.md): unpacking takes as long as 320 more rows of x, and tiles of 136
 * tokens have 0.87 to 0.98 of cuBLASLt's rate; the rule takes 0.93. Small products take the kernel: their time does not
 * matter. */
ZI_PACKED_FUNCTION int zi_packed_pays(int rows, int out, int in, int gated, int processors)
{
    const double small = 1e8, weights = (double)out * (gated ? 2 : 1);
    const int tokens = zi_packed_tokens(rows, out, gated, processors);
    const int rounds = zi_packed_rounds(rows, out, tokens, gated, processors);
    const double tile = PACKED_ROWS * PACKED_MULTIPLIERS * 136 / 0.93; /* its time, in rows of x times rows of w */
    const double time = (double)rounds * processors * tile * (tokens + 150) / (136 + 150);
    return rows * weights * in < small || time < (rows + 320) * weights;
}

#endif
