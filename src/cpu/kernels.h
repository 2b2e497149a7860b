/*
 * The innermost loops of the CPU table: one struct of function pointers a tier. kernels_tier.h defines them for vectors of the
 * length that the tier's file (kernels_TIER.c) chooses. Partitioning, packing and threads are in the portable files.
 */
#ifndef ZI_CPU_KERNELS_H
#define ZI_CPU_KERNELS_H

#include "cpu/features.h"
#include "ops/ops.h"

/* Functions with constant arguments: each call is compiled for its own. */
#define ALWAYS_INLINE static inline __attribute__((always_inline))

/* Loops of constant length that are unrolled entirely, so that the arrays which they index stay in registers. */
#if defined(__clang__)
#define UNROLL _Pragma("unroll")
#else
#define UNROLL _Pragma("GCC unroll 32")
#endif
#define FOR_UNROLLED(i, count)          UNROLL for (int i = 0; i < (count); i++)
#define FOR_UNROLLED_BY(i, count, step) UNROLL for (int i = 0; i < (count); i += (step))

/*
 * Block sizes and what they assume.
 *
 *   for panels of nr outputs                  one task
 *     for blocks of ZI_KC inputs              the packed panel [ZI_KC][nr] stays in L1 (16 KiB with nr = 16; 32 KiB with
 *                                             nr = 32, where it comes from L2 at 2 loads in 12 cycles)
 *       for tiles of mr tokens                mr rows stream from L2 or L3: 4 bytes a cycle
 *         gemm                                mr x nr sums in registers over ZI_KC inputs
 *
 * Sums of ZI_KC products meet in a [tokens][nr] buffer: shorter sums round less, and no tile has a ragged edge.
 */
#define ZI_KC         256
#define ZI_MR_MAX     12
#define ZI_NR_MAX     32
#define ZI_DOT_TOKENS 4 /* up to here a product is bound by reading the weights: no packing */
#define ZI_TAPS_MAX   9
/* Floats of an output that the next reader may still find in a cache that is a core's own. */
#define ZI_CACHED_OUTPUT ((int64_t)1 << 20)

/* Kinds of packed numbers: how many there are in four bytes. */
typedef enum zi_cpu_number {
    ZI_NUMBER_BF16, /* 2 */
    ZI_NUMBER_I16,  /* 2, of the range of int8: two products meet in 32 bits */
    ZI_NUMBER_I8,   /* 4 */
    ZI_NUMBER_U8,   /* 4, 128 more than the number */
} zi_cpu_number;

static inline int zi_numbers_per_chunk(zi_cpu_number number)
{
    return number == ZI_NUMBER_BF16 || number == ZI_NUMBER_I16 ? 32 : 64;
}

/* How an epilogue stores. Past the caches: for outputs much larger than them, which would evict what is being used and be
 * gone themselves when they are read. */
typedef enum zi_cpu_store { ZI_STORE_SET, ZI_STORE_ADD, ZI_STORE_NON_TEMPORAL } zi_cpu_store;

/* Rows of whole groups of 4-bit numbers; scales and biases as stored, in bfloat16 or float16. */
typedef struct zi_nibble_rows {
    int64_t group, groups; /* numbers of a group: 32, 64 or 128; groups of a row */
    const uint8_t *nibbles;
    int64_t ld; /* bytes between rows */
    zi_dtype scale_dtype;
    const uint8_t *scales, *biases;
    int64_t scale_ld; /* bytes between rows */
} zi_nibble_rows;

/*
 * Streamed softmax of a block of scores into packed bf16 (below): chunks of 32 keys, position 8 k + i holding key 4 k + i
 * and position 8 k + 4 + i key 16 + 4 k + i, i < 4 (zi_softmax_key). A row's weights are 2^(scale s / ln 2 - *max), where
 * *max need not be the largest.
 */
typedef struct zi_cpu_softmax {
    const float *s; /* [rows][ld], unscaled */
    int64_t ld, rows;
    int64_t keys, seen, step; /* row r sees its first seen + r * step keys, at least 0, at most `keys` */
    int64_t padded;           /* a multiple of 32: weights of keys that are not seen are 0 */
    float scale;
    float *max, *sum; /* [rows]: go on from the blocks before */
    float *factors;   /* [rows]: what to multiply sums so far by */
    uint8_t *out;     /* [block of mr rows][chunk of `chunks`][mr][64 bytes] */
    int64_t mr, chunks;
} zi_cpu_softmax;

static inline int64_t zi_softmax_seen(const zi_cpu_softmax *t, int64_t row)
{
    int64_t seen = t->seen + row * t->step;
    return seen < 0 ? 0 : seen < t->keys ? seen : t->keys;
}

/* Which key of a chunk. */
static inline int64_t zi_softmax_key(int64_t position)
{
    return position / 8 * 4 + position % 4 + position % 8 / 4 * 16;
}

typedef struct zi_cpu_kernels {
    const char *name;
    int feature; /* zi_cpu_feature that it needs, or ZI_CPU_ALWAYS */
    int mr, nr;  /* the tile of gemm */
    /* After the last ZI_STORE_NON_TEMPORAL of a task: before another thread may read what was stored. */
    void (*stores_done)(void);

    /*
     * c[r][n] (+)= sum over s, i of a[s * step + r][offset + i] * b[(s * k + i) * nr + n]; r < mr, n < nr, s < segments,
     * i < k. c has rows of ldc floats.
     */
    void (*gemm)(int64_t segments, int64_t k, const float *const *a, int64_t step, int64_t offset, const float *b,
                 float *c, int64_t ldc, int accumulate);
    /* out[t] = sum x[t * ldx + i] w[i] for 1 .. ZI_DOT_TOKENS tokens */
    void (*dot)(int tokens, int64_t k, const float *x, int64_t ldx, const float *w, float *out);
    /* Stored numbers (at any address) to float32. dtype: ZI_F32, ZI_F16 or ZI_BF16, here and below; any other gives NaN.
     * Weights of other formats go through zi_cpu_unpack. */
    void (*unpack)(zi_dtype dtype, const uint8_t *src, int64_t count, float *dst);
    /* Whole groups of 4- or 8-bit numbers to float32: number * scales[g] + biases[g], the product exact or rounded. */
    void (*unpack_groups)(int bits, int64_t group, const uint8_t *src, const float *scales, const float *biases,
                          int64_t groups, float *dst);
    /* panel[i][n] = rows[n * ld + i] for i < k, n < width; 0 for n from `count` on. width: a multiple of 4. Moves any
     * four bytes. */
    void (*transpose)(const void *rows, int64_t ld, int64_t count, int64_t k, void *panel, int64_t width);

    /* Epilogues on c [rows][ldc], of which the first `columns` count; ldc is nr or a multiple of 16. */
    void (*store)(float *y, int64_t ldy, const float *c, int64_t ldc, int64_t rows, int64_t columns, const float *bias,
                  zi_cpu_store mode);
    void (*store_glu)(float *y, int64_t ldy, const float *gate, const float *up, int64_t ldc, int64_t rows,
                      int64_t columns, zi_cpu_store mode);

    /* The same in bf16, rows of y `stride` bytes apart. */
    void (*store_glu_bf16)(uint8_t *y, int64_t stride, const float *gate, const float *up, int64_t ldc, int64_t rows,
                           int64_t columns);

    /*
     * One row of streamed softmax: s[0 .. n) become exp(scale * s - max), s[n .. padded) zero; *max (in a unit of its own)
     * and *sum go on from the blocks before. Returns what the sums so far must be multiplied by.
     */
    float (*softmax)(float *s, int64_t n, int64_t padded, float scale, float *max, float *sum);
    void (*softmax_bf16)(const zi_cpu_softmax *block);
    void (*multiply)(float *y, const float *x, float factor, int64_t n);
    void (*add)(float *y, const float *x, int64_t n); /* y += x */
    /* x += y * gain; returns whether all of x is finite */
    int (*add_scaled)(float *x, const float *y, const float *gain, int64_t n);

    void (*silu)(float *y, const float *x, int64_t n);
    void (*affine)(float *y, const float *x, const float *scale, const float *shift, int64_t pixels, int64_t channels,
                   int silu);
    void (*rms_norm)(float *y, const float *x, const float *gain, int64_t n, float eps);
    void (*layer_norm)(float *y, const float *x, const float *gain, int64_t n, float eps);
    /* x += rms(y) * gain; h (may be NULL, may be y) = rms(x) * gain_next. Returns whether all of x is finite. */
    int (*residual)(float *x, const float *y, const float *gain, float *h, const float *gain_next, int64_t n,
                    float eps);
    /* One head: RMS norm, then x[i] cos[i] + partner(x)[i] sin[i], signs and doubling already in cos and sin [dim];
     * t [dim] is scratch. */
    void (*qk_norm_rope)(float *x, float *t, const float *w, const float *cos, const float *sin, int64_t dim,
                         zi_rope_layout layout, float eps);
    /* sums[c] += sum of x, sums[channels + c] += sum of squares, in float64 */
    void (*channel_sums)(double *sums, const float *x, int64_t pixels, int64_t channels);
    int (*finite)(const float *x, int64_t n);
    /* Multiply-adds of independent sums that stay in registers: the most this tier could do. Returns the floating-point
     * operations done; *sink keeps the compiler from leaving them out. */
    double (*peak)(int64_t rounds, float *sink);

    /* For products of packed numbers (below). */
    /* The same of whole groups of 4-bit numbers q: (scales[g] * q + biases[g]) * factor; group: 32, 64 or 128. */
    void (*pack_nibbles)(zi_cpu_number number, int64_t group, const uint8_t *src, const float *scales,
                         const float *biases, int64_t groups, float factor, uint8_t *out, int64_t stride);
    /* 16 rows of such groups to a panel of bf16: lane i of row r at panel + (i * width + r) * 4. NULL: this tier has no
     * such kernel. */
    void (*pack_nibble_panel)(const zi_nibble_rows *rows, uint8_t *panel, int64_t width);
    /* out[i]: bf16 of a[i] and of b[i], in four bytes */
    void (*pack_pairs)(const float *a, const float *b, int64_t n, uint32_t *out);
    /* src[i] * factor for i < n as numbers of that kind, in chunks of ZI_CHUNK bytes that begin `stride` bytes apart;
     * zeros behind the last. Integers are rounded to nearest, ties to even, and must lie within +-127. src: float32,
     * bfloat16 or float16 at any address. */
    void (*pack)(zi_cpu_number number, zi_dtype dtype, const void *src, int64_t n, float factor, uint8_t *out,
                 int64_t stride);
    /* The largest magnitude; not finite if an element isn't. */
    float (*largest)(zi_dtype dtype, const void *src, int64_t n);
    /* In place: int32 sums [rows][columns] to float32: (sum - offsets[n]) * row_scales[r] * scales[n] */
    void (*scale_sums)(void *c, int64_t rows, int64_t columns, const float *row_scales, const float *scales,
                       const int32_t *offsets);
} zi_cpu_kernels;

/*
 * Products of packed numbers.
 *
 * Both operands are cut along the inputs into chunks of 64 bytes, 16 lanes of four bytes; what a lane holds is the
 * number's kind. Weights: a panel of nr outputs is [chunk][lane][nr] lanes. Activations: [rows][64 bytes] per chunk, the
 * place of each chunk given by an offset, so that rows of an image (a convolution's taps) serve without a copy.
 *
 * One call multiplies blocks of mr tokens by panels and leaves float32 or int32 sums:
 *   c[panel][block * mr + r][n] (+)= sum over chunks, lanes of a * b
 */
#define ZI_CHUNK 64

/* Where a row of packed activations begins, in bytes: [block of mr][chunk][mr][ZI_CHUNK]. Its chunks are mr * ZI_CHUNK
 * apart. */
static inline int64_t zi_packed_row(int64_t row, int64_t mr, int64_t chunks)
{
    return (row / mr * chunks * mr + row % mr) * ZI_CHUNK;
}

typedef struct zi_cpu_tiles {
    const uint8_t *a;             /* row r of block i, chunk c: a + i * a_block + r * a_row + a_chunks[c] */
    int64_t a_block, a_row;       /* bytes */
    const int64_t *a_chunks;      /* bytes */
    const uint8_t *b;             /* panel p, chunk c: b + p * b_panel + c * nr * ZI_CHUNK */
    int64_t b_panel;              /* bytes */
    uint8_t *c;                   /* row r of panel p: c + p * c_panel + r * c_row, nr float32 or int32 */
    int64_t c_panel, c_row;       /* bytes */
    int64_t rows, panels, chunks; /* rows may end within a block: all mr rows of a and c must still be there */
    int accumulate;
    const uint8_t *fetch; /* what the caller will read next: a family may fetch it into a cache meanwhile */
    int64_t fetch_bytes;  /* 0: nothing */
} zi_cpu_tiles;

typedef struct zi_packed_gemm {
    const char *name;   /* "bf16 amx", ... */
    int feature;        /* zi_cpu_feature that it needs, or ZI_CPU_ALWAYS */
    zi_cpu_number a, b; /* what is packed; sums are float32 for ZI_NUMBER_BF16, else int32 */
    int mr, nr;
    int64_t block; /* chunks of a pass: the sums leave the registers after it */
    int64_t rows;  /* of a call, a multiple of mr: so far its sums reach */
    int64_t group; /* panels that share a pass over the activations */
    void (*product)(const zi_cpu_tiles *tiles);
    /*
     * Few tokens, bf16: rows of weights in groups of 32 or 64 numbers of 4 bits with scales in bf16, unpacked here, times
     * up to ZI_NIBBLE_PANELS panels of tokens. `tiles` has no a and does not accumulate; rows: a multiple of
     * ZI_NIBBLE_ROWS; chunks: of whole rows, which are units of ZI_NIBBLE_UNIT inputs. In the panels number 16 w + i of
     * chunk 2 h + v of a unit is its input 64 h + 4 i + 2 v + w. NULL: no such kernel.
     */
    void (*nibbles)(const zi_nibble_rows *rows, const zi_cpu_tiles *tiles);
    double (*peak)(int64_t rounds, float *sink); /* as zi_cpu_kernels.peak */
} zi_packed_gemm;

#define ZI_NIBBLE_PANELS 6
#define ZI_NIBBLE_ROWS   16
#define ZI_NIBBLE_UNIT   128
#define ZI_PACKED_MR_MAX 48
#define ZI_PACKED_NR_MAX 32

/* All that this build knows, by computation, best last; NULL behind the last. */
extern const zi_packed_gemm *const zi_packed_gemms_bf16[];
extern const zi_packed_gemm *const zi_packed_gemms_int8[];

extern const zi_cpu_kernels zi_cpu_kernels_generic;
#if defined(__x86_64__)
extern const zi_cpu_kernels zi_cpu_kernels_avx2;
extern const zi_cpu_kernels zi_cpu_kernels_avx512;
#endif

#endif
