/*
 * The innermost loops of the CPU backend: function pointers to float32 kernels (zi_cpu_kernels, one struct a tier) and
 * to packed gemms (zi_packed_gemm, one struct for each instruction that multiplies bf16 or int8). Partitioning, packing
 * and threads are in the portable files and call these.
 *
 * A tier is a set of float32 kernels for one instruction set. kernels_tier.h defines all of them for vectors of the
 * length that the tier's file (kernels_TIER.c) chooses.
 */
#ifndef ZI_CPU_KERNELS_H
#define ZI_CPU_KERNELS_H

#include "cpu/features.h"
#include "ops/ops.h"

/* For functions whose constant arguments select code: the compiler makes one copy for each call. */
#define ALWAYS_INLINE static inline __attribute__((always_inline))

/* For functions that measure a rate, which the checks of the sanitizers would change. */
#define UNSANITIZED __attribute__((no_sanitize("address", "undefined")))

/* Before a loop of constant length: unrolls it entirely, so that the arrays which it indexes stay in registers. */
#if defined(__clang__)
#define UNROLL _Pragma("unroll")
#else
#define UNROLL _Pragma("GCC unroll 32")
#endif
#define FOR_UNROLLED(i, count)          UNROLL for (int i = 0; i < (count); i++)
#define FOR_UNROLLED_BY(i, count, step) UNROLL for (int i = 0; i < (count); i += (step))

/* ---- float32 kernels --------------------------------------------------------------------------------------------- */

/*
 * Block sizes of float32 products and what they assume.
 *
 *   for panels of nr outputs                  one task
 *     for blocks of ZI_KC inputs              the packed panel [ZI_KC][nr] stays in L1 (16 KiB with nr = 16). With
 *                                             nr = 32 it has 32 KiB and comes from L2, at 2 loads in 12 cycles.
 *       for tiles of mr tokens                mr rows stream from L2 or L3, 4 bytes a cycle
 *         gemm                                mr x nr sums stay in registers over ZI_KC inputs
 *
 * After each block the sums are added to a [tokens][nr] buffer. So each sum in registers is short, which rounds less,
 * and every tile has its full mr x nr elements.
 */
#define ZI_KC     256
#define ZI_MR_MAX 12
#define ZI_NR_MAX 32

/* With at most so many tokens a product takes as long as reading its weights. It computes dot products, without
 * packing. */
#define ZI_DOT_TOKENS 4
/* Taps of a 3 x 3 filter. */
#define ZI_TAPS_MAX 9
/* Floats of an output that still lies in the private caches of a core when the next operation reads it. */
#define ZI_CACHED_OUTPUT ((int64_t)1 << 20)

/* How an epilogue writes its output. */
typedef enum zi_cpu_store {
    ZI_STORE_SET,
    ZI_STORE_ADD,          /* adds to what is there */
    ZI_STORE_NON_TEMPORAL, /* sets, and bypasses the caches: for outputs that are larger than the caches */
} zi_cpu_store;

/* What an element of packed data is. A lane is four bytes and holds two or four elements. */
typedef enum zi_cpu_number {
    ZI_NUMBER_BF16, /* two a lane */
    ZI_NUMBER_I16,  /* two a lane; in the range of int8, so that the sum of two products fits 32 bits */
    ZI_NUMBER_I8,   /* four a lane */
    ZI_NUMBER_U8,   /* four a lane; the int8 number plus 128 */
} zi_cpu_number;

/* Packed data is cut into chunks of so many bytes: 16 lanes. */
#define ZI_CHUNK 64

static inline int zi_numbers_per_chunk(zi_cpu_number number)
{
    return number == ZI_NUMBER_BF16 || number == ZI_NUMBER_I16 ? 32 : 64;
}

/* Where row `row` of packed activations [block of mr rows][chunk][mr][ZI_CHUNK] begins, in bytes. The chunks of a
 * row are mr * ZI_CHUNK bytes apart. */
static inline int64_t zi_packed_row(int64_t row, int64_t mr, int64_t chunks)
{
    return (row / mr * chunks * mr + row % mr) * ZI_CHUNK;
}

/* Rows of 4-bit numbers in groups. Scales and biases are as stored: dtype ZI_BF16 or ZI_F16. */
typedef struct zi_nibble_rows {
    int64_t group;  /* numbers of a group: 32, 64 or 128 */
    int64_t groups; /* groups of a row */
    const uint8_t *nibbles;
    int64_t ld; /* bytes between rows of nibbles */
    zi_dtype scale_dtype;
    const uint8_t *scales, *biases;
    int64_t scale_ld; /* bytes between rows of scales, and of biases */
} zi_nibble_rows;

/*
 * Streaming softmax of a block of scores. It writes the weights as packed bf16 activations, in chunks of 32 keys.
 * Within a chunk, position 8 k + i holds key 4 k + i and position 8 k + 4 + i holds key 16 + 4 k + i, for i < 4
 * (zi_softmax_key): that is the order in which vectors narrow.
 *
 * The weight of score s in row r is 2^(scale * s / ln 2 - max[r]). max[r] need not be the largest exponent: weights may
 * exceed 1.
 */
typedef struct zi_cpu_softmax {
    const float *s; /* [rows][ld], before scaling */
    int64_t ld, rows;
    int64_t keys, seen, step; /* row r sees its first seen + r * step keys, at least 0 and at most `keys` */
    int64_t padded;           /* keys to write, a multiple of 32: the weight of a key that a row does not see is 0 */
    float scale;
    float *max, *sum; /* [rows], in and out: of all blocks so far */
    float *factors;   /* [rows], out: what the sums and outputs of the blocks before must be multiplied by */
    uint8_t *out;     /* [block of mr rows][chunk][mr][ZI_CHUNK] */
    int64_t mr, chunks;
} zi_cpu_softmax;

static inline int64_t zi_softmax_seen(const zi_cpu_softmax *t, int64_t row)
{
    int64_t seen = t->seen + row * t->step;
    return seen < 0 ? 0 : seen < t->keys ? seen : t->keys;
}

/* The key at a position of a chunk. */
static inline int64_t zi_softmax_key(int64_t position)
{
    return position / 8 * 4 + position % 4 + position % 8 / 4 * 16;
}

/* The kernels of a tier. A stored dtype is ZI_F32, ZI_F16 or ZI_BF16, its data may lie at any address; for any other
 * dtype the result is NaN, because those go through zi_cpu_unpack. Every n, columns and count may be any number
 * above 0. */
typedef struct zi_cpu_kernels {
    /* Some kernels have eight or nine parameters: they are called for each tile, and a struct would go through
     * memory. */
    const char *name;
    int feature; /* the zi_cpu_feature that it needs, or ZI_CPU_ALWAYS */
    int mr, nr;  /* tokens and outputs of a tile of gemm */

    /* A task calls this once behind its last ZI_STORE_NON_TEMPORAL. Then other threads may read what it stored. */
    void (*stores_done)(void);

    /*
     * One tile, r < mr, n < nr; accumulate: adds to c, whose rows are ldc floats apart.
     *   c[r][n] = sum over s < segments, i < k of a[s * step + r][offset + i] * b[(s * k + i) * nr + n]
     * a: pointers to rows. A linear layer has one segment, a convolution a segment for each tap.
     */
    void (*gemm)(int64_t segments, int64_t k, const float *const *a, int64_t step, int64_t offset, const float *b,
                 float *c, int64_t ldc, int accumulate);
    /* out[t] = sum of x[t * ldx + i] * w[i] over i < k, for t < tokens <= ZI_DOT_TOKENS */
    void (*dot)(int tokens, int64_t k, const float *x, int64_t ldx, const float *w, float *out);
    /* Stored numbers to float32. */
    void (*unpack)(zi_dtype dtype, const uint8_t *src, int64_t count, float *dst);
    /* Whole groups of 4- or 8-bit numbers q to float32: q * scales[g] + biases[g], rounded once or twice. */
    void (*unpack_groups)(int bits, int64_t group, const uint8_t *src, const float *scales, const float *biases,
                          int64_t groups, float *dst);
    /* panel[i][n] = rows[n * ld + i] for i < k and n < count; 0 for count <= n < width. Elements are any four bytes.
     * width: a multiple of 4. */
    void (*transpose)(const void *rows, int64_t ld, int64_t count, int64_t k, void *panel, int64_t width);

    /* Epilogues: the first `columns` of each row of c [rows][ldc] to y. ldc is nr or a multiple of 16, and all of c
     * can be read. bias [columns] may be NULL. */
    void (*store)(float *y, int64_t ldy, const float *c, int64_t ldc, int64_t rows, int64_t columns, const float *bias,
                  zi_cpu_store mode);
    /* SiLU(gate) * up */
    void (*store_glu)(float *y, int64_t ldy, const float *gate, const float *up, int64_t ldc, int64_t rows,
                      int64_t columns, zi_cpu_store mode);
    /* SiLU(gate) * up in bf16, with `stride` bytes between rows of y. */
    void (*store_glu_bf16)(uint8_t *y, int64_t stride, const float *gate, const float *up, int64_t ldc, int64_t rows,
                           int64_t columns);

    /*
     * A block of scores of one row of streaming softmax: s[0 .. n) become exp(scale * s - maximum), s[n .. padded)
     * become 0. *max (the maximum in units of the kernel's own) and *sum cover all blocks so far. Returns what the sums
     * and outputs of the blocks before must be multiplied by.
     */
    float (*softmax)(float *s, int64_t n, int64_t padded, float scale, float *max, float *sum);
    void (*softmax_bf16)(const zi_cpu_softmax *block);
    void (*multiply)(float *y, const float *x, float factor, int64_t n); /* y = x * factor */
    void (*add)(float *y, const float *x, int64_t n);                    /* y += x */
    /* x += y * gain; returns whether all of x is finite. */
    int (*add_scaled)(float *x, const float *y, const float *gain, int64_t n);

    void (*silu)(float *y, const float *x, int64_t n); /* y may be x */
    /* y = x * scale[c] + shift[c] on [pixels][channels], then SiLU if `silu`; y may be x */
    void (*affine)(float *y, const float *x, const float *scale, const float *shift, int64_t pixels, int64_t channels,
                   int silu);
    /* One row, normalised and multiplied by gain [n]; y may be x. */
    void (*rms_norm)(float *y, const float *x, const float *gain, int64_t n, float eps);
    void (*layer_norm)(float *y, const float *x, const float *gain, int64_t n, float eps);
    /* One row: x += rms(y) * gain, then h = rms(x) * gain_next. h may be NULL, and may be y. Returns whether all of
     * x is finite. */
    int (*residual)(float *x, const float *y, const float *gain, float *h, const float *gain_next, int64_t n,
                    float eps);
    /* One head: RMS norm with weight w, then x[i] = x[i] * cos[i] + partner(x)[i] * sin[i]. cos and sin [dim] hold each
     * angle twice and the signs. t [dim] is scratch. */
    void (*qk_norm_rope)(float *x, float *t, const float *w, const float *cos, const float *sin, int64_t dim,
                         zi_rope_layout layout, float eps);
    /* sums[c] += sum of x, sums[channels + c] += sum of x^2 over [pixels][channels], in float64 */
    void (*channel_sums)(double *sums, const float *x, int64_t pixels, int64_t channels);
    int (*finite)(const float *x, int64_t n);
    /* Multiply-adds of independent sums in registers: the most that this tier can reach. Returns the floating-point
     * operations done. *sink keeps the compiler from removing them. */
    double (*peak)(int64_t rounds, float *sink);

    /* Packing. Chunks of a row begin `stride` bytes apart in `out`; zeros fill the last one. Integers are rounded to
     * nearest, ties to even, and must lie within +-127. */

    /* Whole groups of 4-bit numbers q: (q * scales[g] + biases[g]) * factor. group: 32, 64 or 128. */
    void (*pack_nibbles)(zi_cpu_number number, int64_t group, const uint8_t *src, const float *scales,
                         const float *biases, int64_t groups, float factor, uint8_t *out, int64_t stride);
    /* 16 rows of 4-bit groups to a panel of bf16: lane i of row r goes to panel + (i * width + r) * 4. NULL: the
     * tier has no such kernel. */
    void (*pack_nibble_panel)(const zi_nibble_rows *rows, uint8_t *panel, int64_t width);
    /* out[i]: a[i] in bf16 in the low half, b[i] in the high half */
    void (*pack_pairs)(const float *a, const float *b, int64_t n, uint32_t *out);
    /* src[i] * factor for i < n */
    void (*pack)(zi_cpu_number number, zi_dtype dtype, const void *src, int64_t n, float factor, uint8_t *out,
                 int64_t stride);
    /* The largest magnitude of n stored numbers; not finite if one of them is not. */
    float (*largest)(zi_dtype dtype, const void *src, int64_t n);
    /* In place, int32 sums [rows][columns] to float32: (sum - offsets[n]) * row_scales[r] * scales[n] */
    void (*scale_sums)(void *c, int64_t rows, int64_t columns, const float *row_scales, const float *scales,
                       const int32_t *offsets);
} zi_cpu_kernels;

extern const zi_cpu_kernels zi_cpu_kernels_generic;
#if defined(__x86_64__)
extern const zi_cpu_kernels zi_cpu_kernels_avx2;
extern const zi_cpu_kernels zi_cpu_kernels_avx512;
#endif

/* ---- packed gemms ------------------------------------------------------------------------------------------------ */

/*
 * A packed gemm multiplies bf16 or int8 operands with one instruction (a dot product of lanes, or an outer product of
 * tiles). Both operands are cut along the inputs into chunks of 16 lanes.
 *
 *   weights       a panel of nr outputs is [chunk][lane][nr]
 *   activations   chunk c of mr rows is [mr][ZI_CHUNK] at an offset of its own. So all taps of a convolution read the
 *                 same packed image, at other offsets.
 *
 * One call multiplies blocks of mr tokens by panels of nr outputs. Sums are float32 for bf16, int32 for integers:
 *   c[panel][block * mr + r][n] (+)= sum over chunks and lanes of a * b
 */
typedef struct zi_cpu_tiles {
    const uint8_t *a;             /* row r of block i, chunk c: a + i * a_block + r * a_row + a_chunks[c] */
    int64_t a_block, a_row;       /* bytes */
    const int64_t *a_chunks;      /* bytes */
    const uint8_t *b;             /* panel p, chunk c: b + p * b_panel + c * nr * ZI_CHUNK */
    int64_t b_panel;              /* bytes */
    uint8_t *c;                   /* row r of panel p: c + p * c_panel + r * c_row, nr sums */
    int64_t c_panel, c_row;       /* bytes */
    int64_t rows, panels, chunks; /* rows may end within a block: a and c have room for all mr rows of it */
    int accumulate;
    const uint8_t *fetch; /* what the caller reads next: the gemm may prefetch it */
    int64_t fetch_bytes;  /* 0: nothing */
} zi_cpu_tiles;

typedef struct zi_packed_gemm {
    const char *name;   /* "bf16 amx", ... */
    int feature;        /* the zi_cpu_feature that it needs, or ZI_CPU_ALWAYS */
    zi_cpu_number a, b; /* what activations and weights are packed as */
    int mr, nr;
    int64_t block; /* chunks of a pass: then the sums leave the registers */
    int64_t rows;  /* rows of a call, a multiple of mr, whose sums stay in L1 */
    int64_t group; /* panels that share a pass over the activations */
    void (*product)(const zi_cpu_tiles *tiles);
    /*
     * Products of few tokens with rows of 4-bit weights, which the gemm unpacks itself; NULL: it can't. Rows are in
     * groups of 32 or 64 numbers with scales in bf16. The roles change: weights are the rows, the tokens up to
     * ZI_NIBBLE_PANELS panels. `tiles` has no a and does not accumulate; its rows are a multiple of ZI_NIBBLE_ROWS, and
     * its chunks are all chunks of a row, whole units of ZI_NIBBLE_UNIT inputs. In the panels, number 16 w + i of chunk
     * 2 h + v of a unit is input 64 h + 4 i + 2 v + w of that unit.
     */
    void (*nibbles)(const zi_nibble_rows *rows, const zi_cpu_tiles *tiles);
    double (*peak)(int64_t rounds, float *sink); /* as zi_cpu_kernels.peak */
} zi_packed_gemm;

#define ZI_NIBBLE_PANELS 6
#define ZI_NIBBLE_ROWS   16
#define ZI_NIBBLE_UNIT   128
#define ZI_PACKED_MR_MAX 48
#define ZI_PACKED_NR_MAX 32

/* Every packed gemm of this build, the best one last, then NULL. */
extern const zi_packed_gemm *const zi_packed_gemms_bf16[];
extern const zi_packed_gemm *const zi_packed_gemms_int8[];

#endif
