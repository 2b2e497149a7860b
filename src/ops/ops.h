/*
 * The table of operations that every backend fills. Model code (src/model) is written once against it and never names a
 * backend, an instruction set or a weight format.
 *
 * Activations are row-major: a sequence is [tokens, features]; an image inside the VAE is channels-last [rows, columns,
 * channels]. Unless said otherwise outputs must not overlap inputs, outputs are allocated by the caller with the right
 * shape, and a shape that does not fit is a programming error (assert). Operations return ZIMAGE_OK or fill ops->error.
 */
#ifndef ZI_OPS_OPS_H
#define ZI_OPS_OPS_H

#include "base/arena.h"
#include "base/pool.h"
#include "ops/tensor.h"

typedef struct zi_ops zi_ops;

typedef enum zi_rope_layout {
    ZI_ROPE_ADJACENT,   /* pairs (2j, 2j+1): the diffusion transformers */
    ZI_ROPE_HALF_SPLIT, /* pairs (j, j + d/2): Qwen3 */
} zi_rope_layout;

typedef struct zi_attention_shape {
    int64_t heads;    /* query heads; q is [tokens, heads * head_dim] */
    int64_t kv_heads; /* divides heads; key head g serves query heads g * (heads / kv_heads) ... */
    int64_t head_dim;
    int causal; /* query i sees keys 0 .. i */
} zi_attention_shape;

/* GroupNorm folded into the reader of its input: y = x * scale[c] + shift[c], then SiLU. Made by group_norm_fold. */
typedef struct zi_channel_affine {
    zi_tensor scale; /* [channels] */
    zi_tensor shift; /* [channels] */
} zi_channel_affine;

typedef struct zi_conv {
    const zi_weight *weight;         /* [out, in, k, k], k = 1 or 3; stride 1, zero padding k / 2 */
    const zi_weight *bias;           /* [out] */
    const zi_channel_affine *affine; /* optional: the input is SiLU(x * scale + shift); padding is zero AFTER it */
    int upsample;                    /* 1: the input is read as its nearest-neighbour doubling */
    int accumulate;                  /* 1: y += result */
    /* Bands: x holds input rows [x_row, x_row + x.rows) of an image of image_rows rows (before doubling), y output
     * rows [y_row, y_row + y.rows). Every input row that y needs and that lies inside the image must be in x. */
    int64_t x_row, y_row, image_rows;
} zi_conv;

#define ZI_LINEARS_MAX 3

typedef struct zi_ops_table {
    const char *name; /* "reference", "cpu", ... */

    /* Memory: a stack. Contents are undefined after alloc. An activation has the backend's own type; what alloc_f32 gives
     * is float32 everywhere: positions, factors a feature or a channel, latents, what is downloaded at the end. */
    zimage_status (*alloc)(zi_ops *ops, zi_tensor *tensor, int dims, const int64_t *shape);
    zimage_status (*alloc_f32)(zi_ops *ops, zi_tensor *tensor, int dims, const int64_t *shape);
    /* [rows, columns] that linear, linears and linear_glu read as x, with w or weights as precise as it is, and nothing else
     * does. rms_norm (y), residual_gate_norm (h), attention (o) and linear_glu (y) write all of it. */
    zimage_status (*alloc_operand)(zi_ops *ops, zi_tensor *x, int64_t rows, int64_t columns, const zi_weight *w);
    zi_arena_mark (*mark)(zi_ops *ops);
    void (*release)(zi_ops *ops, zi_arena_mark mark);
    /* Between host float32 and the backend's tensor (same element count). */
    zimage_status (*upload)(zi_ops *ops, zi_tensor *dst, const float *src);
    zimage_status (*download)(zi_ops *ops, float *dst, const zi_tensor *src);
    /* The same of pixels, from alloc_f32, as bytes: clamp(x / 2 + 0.5, 0, 1) * 255, rounded half to even; NaN is 0. */
    zimage_status (*download_rgb8)(zi_ops *ops, uint8_t *dst, const zi_tensor *src);
    zimage_status (*copy)(zi_ops *ops, zi_tensor *dst, const zi_tensor *src);

    /* y[i] = table[ids[i]]; ids on the host, already checked against the table's rows. table [rows, features] */
    zimage_status (*embed_rows)(zi_ops *ops, zi_tensor *y, const zi_weight *table, const int32_t *ids);
    /* y[t, o] = sum_i x[t, i] W[o, i] + bias[o]; bias may be NULL; accumulate: y += ... */
    zimage_status (*linear)(zi_ops *ops, zi_tensor *y, const zi_tensor *x, const zi_weight *weight,
                            const zi_weight *bias, int accumulate);
    /* y[i] = x W_i^T for i < count, at most ZI_LINEARS_MAX: products of the same activations */
    zimage_status (*linears)(zi_ops *ops, int count, zi_tensor *y, const zi_tensor *x, const zi_weight *const *weights);
    /* y = SiLU(x W1^T) * (x W3^T) */
    zimage_status (*linear_glu)(zi_ops *ops, zi_tensor *y, const zi_tensor *x, const zi_weight *w1,
                                const zi_weight *w3);
    /* y = x * sigmoid(x); y may be x */
    zimage_status (*silu)(zi_ops *ops, zi_tensor *y, const zi_tensor *x);
    /* y = x / sqrt(mean(x^2) + eps) * w * scale over the last dimension; w and scale [features] each may be NULL; y may be x */
    zimage_status (*rms_norm)(zi_ops *ops, zi_tensor *y, const zi_tensor *x, const zi_weight *w, const zi_tensor *scale,
                              float eps);
    /* y = (x - mean) / sqrt(var + eps) * scale; scale may be NULL */
    zimage_status (*layer_norm)(zi_ops *ops, zi_tensor *y, const zi_tensor *x, const zi_tensor *scale, float eps);
    /* x += gate * rms_norm(y, w, eps); then, if h is not NULL, h = rms_norm(x, w_next, eps) * scale_next.
     * gate, scale_next [features] may be NULL (= 1). h may be y. finite may be NULL; else as check_finite of x. */
    zimage_status (*residual_gate_norm)(zi_ops *ops, zi_tensor *x, const zi_tensor *y, const zi_weight *w,
                                        const zi_tensor *gate, zi_tensor *h, const zi_weight *w_next,
                                        const zi_tensor *scale_next, float eps, int *finite);
    /* cos and sin of the angles, which lie on the host: as many as cos and sin, both from alloc_f32, have numbers. */
    zimage_status (*rope_table)(zi_ops *ops, zi_tensor *cos, zi_tensor *sin, const float *angles);
    /* In place on x [tokens, heads * head_dim]: RMS norm of each head (w [head_dim]), then rotation by cos, sin
     * [tokens, head_dim / 2]. */
    zimage_status (*qk_norm_rope)(zi_ops *ops, zi_tensor *x, const zi_weight *w, const zi_tensor *cos,
                                  const zi_tensor *sin, int64_t heads, zi_rope_layout layout, float eps);
    /* o = softmax(q k^T / sqrt(head_dim)) v; never holds a tokens x tokens buffer. k, v [keys, kv_heads * head_dim];
     * o, q [queries, heads * head_dim]; o may be q. causal needs queries == keys. */
    zimage_status (*attention)(zi_ops *ops, zi_tensor *o, const zi_tensor *q, const zi_tensor *k, const zi_tensor *v,
                               const zi_attention_shape *shape);
    /* Z-Image's adaLN: m [4 * features] = scale_msa, gate_msa, scale_mlp, gate_mlp -> 1 + scale, tanh(gate), in place. */
    zimage_status (*modulation)(zi_ops *ops, zi_tensor *m);
    /* y = 1 + x (the final layer's scale); y may be x */
    zimage_status (*add_one)(zi_ops *ops, zi_tensor *y, const zi_tensor *x);
    /* Latents [C, H, W] to tokens [(H/p)(W/p), p*p*C], channel fastest, then column, then row in the patch; and back. */
    zimage_status (*patchify)(zi_ops *ops, zi_tensor *tokens, const zi_tensor *latents, int64_t patch);
    zimage_status (*unpatchify)(zi_ops *ops, zi_tensor *latents, const zi_tensor *tokens, int64_t patch);

    /* Channels-last images [rows, columns, channels]. */
    zimage_status (*conv2d)(zi_ops *ops, zi_tensor *y, const zi_tensor *x, const zi_conv *conv);
    /* Sum and sum of squares (about 0) of each group of channels, in float64: sums is alloc_f32's [groups, 4], a place for
     * these two and nothing else. accumulate: added to those of other bands. */
    zimage_status (*group_norm_sums)(zi_ops *ops, zi_tensor *sums, const zi_tensor *x, int accumulate);
    /* From the sums over `count` elements a group: scale[c] = w[c] / sqrt(var + eps), shift[c] = b[c] - mean scale[c]. */
    zimage_status (*group_norm_fold)(zi_ops *ops, zi_channel_affine *affine, const zi_tensor *sums, int64_t count,
                                     const zi_weight *w, const zi_weight *b, float eps);
    /* y = x * scale[c] + shift[c] (no SiLU: the VAE's attention); y may be x */
    zimage_status (*channel_affine)(zi_ops *ops, zi_tensor *y, const zi_tensor *x, const zi_channel_affine *affine);

    /* *finite = 0 if any element is NaN or Inf. A backend that computes behind the caller's back may answer 1 and fail
     * later, in download or finish, by the name that zi_ops.block_named was told next. */
    zimage_status (*check_finite)(zi_ops *ops, const zi_tensor *x, int *finite);
    void (*free)(zi_ops *ops);
} zi_ops_table;

/* Queues operations; the host neither reads nor writes a tensor. */
typedef zimage_status zi_work_fn(const void *user);
/* So many runs of a stage, one behind the other. */
typedef struct zi_memory_turn {
    int stage, times;
} zi_memory_turn;

#define ZI_MEMORY_STAGES 8

/* How a device's memory is divided. */
typedef struct zi_memory_plan {
    uint64_t limit;        /* that it must keep to */
    uint64_t values;       /* of the networks, at most at once */
    uint64_t resident;     /* weights that stay */
    uint64_t ring;         /* where other weights pass through */
    uint64_t workspace;    /* of libraries */
    uint64_t total, least; /* least: the smallest limit that would do for these values */
    uint64_t weights[ZI_MEMORY_STAGES],
        streamed[ZI_MEMORY_STAGES]; /* sent at one run of a stage: with none resident; now */
} zi_memory_plan;

/*
 * What a table with a memory of its own, which may be too small for all weights, can be told beforehand. The networks are
 * run once without computing anything, then the memory is divided; the operations that follow read their weights in the
 * order that was seen, so that weights are sent ahead of their use. Another order costs time and nothing else.
 */
typedef struct zi_ops_memory {
    /* From here on operations only note what memory they take and which weights they read. */
    zimage_status (*rehearse)(zi_ops *ops);
    /* Ends that; what was noted is one run of the stage from now on. *values: the most that lay on the stack. In every
     * case operations compute again. */
    zimage_status (*rehearsed)(zi_ops *ops, int stage, size_t *values);
    /* Divides the memory for a job of these turns whose stack takes `values` bytes; commit 0: only tells how. The stack must
     * be empty. ZIMAGE_ERROR_MEMORY with the numbers where the limit is too small. */
    zimage_status (*arrange)(zi_ops *ops, const zi_memory_turn *turns, int count, size_t values, int commit,
                             zi_memory_plan *plan);
} zi_ops_memory;

struct zi_ops {
    const zi_ops_table *table;
    zimage_error *error; /* where a failing operation writes; set by whoever runs a job; may be NULL */
    /* Called by model code after each block; non-zero stops with ZIMAGE_ERROR_CANCELLED. May be NULL. */
    int (*block_done)(void *user);
    void *block_user;
    int64_t blocks; /* that have ended */
    size_t (*peak_bytes)(const zi_ops *ops);
    size_t
        whole_bytes; /* an image of that size (in float32) need not be worked on in bands; 0: as the network chooses */
    /* Each may be NULL. What computes, in a few words; operations a second that its linear layers could reach at most,
     * measured now; waits for all operations so far; the name of what the last check_finite (or residual_gate_norm) saw. */
    void (*describe)(const zi_ops *ops, char *text, size_t size);
    double (*peak_rate)(zi_ops *ops);
    zimage_status (*finish)(zi_ops *ops);
    zimage_status (*block_named)(zi_ops *ops, const char *name);
    /* work(user), whose tensors lie at the same places whenever the key is the same bytes and the stack stands where it stood:
     * what it queued may be kept and queued again instead. */
    zimage_status (*repeat)(zi_ops *ops, const void *key, size_t size, zi_work_fn *work, const void *user);
    /* Bytes of the card's memory that are in use now, whoever uses them. NULL: the table computes in host memory. */
    size_t (*device_bytes)(zi_ops *ops);
    /* Weights that were used may be freed now, and others come to lie where they were. May be NULL. */
    zimage_status (*forget_weights)(zi_ops *ops);
    const zi_ops_memory *memory; /* NULL: weights are read where they lie */
};

/* The numbers that products are computed in; sums are float32 (int8: int32). */
typedef enum zi_compute {
    ZI_COMPUTE_F32,
    ZI_COMPUTE_AUTO, /* bf16 where the processor multiplies it faster than float32, else float32 */
    ZI_COMPUTE_BF16, /* both operands rounded to bf16: linear layers, attention, convolutions */
    ZI_COMPUTE_FP8,  /* cards only: linear layers in e4m3, one scale a token and one an output; the rest as bf16 */
    ZI_COMPUTE_INT8, /* linear layers in int8, one scale a token and one an output; the rest as bf16 where that is fast */
} zi_compute;

/* The oracle: plain C, float32 with float64 sums, one thread. */
zimage_status zi_ops_reference_new(zi_ops **ops, zimage_error *error);
/* The fast CPU table (src/cpu): blocked, threaded, float32; kernels chosen at run time by what the processor has. The
 * pool stays the caller's and must outlive the table. */
zimage_status zi_ops_cpu_new(zi_pool *pool, zi_ops **ops, zimage_error *error);

/*
 * What model code calls after each block: checks x for NaN/Inf (ZIMAGE_ERROR_NOT_FINITE naming the block, printf-style)
 * and gives the caller a chance to cancel.
 */
zimage_status zi_ops_end_block(zi_ops *ops, const zi_tensor *x, const char *format, ...) ZI_PRINTF(3, 4);
/* The same where the last operation told whether x is finite. */
zimage_status zi_ops_end_block_known(zi_ops *ops, int finite, const char *format, ...) ZI_PRINTF(3, 4);
/* Counts a block and tells block_done. */
zimage_status zi_ops_block_done(zi_ops *ops);
/* zi_ops.repeat, or work(user) where a table has none. */
zimage_status zi_ops_repeat(zi_ops *ops, const void *key, size_t size, zi_work_fn *work, const void *user);
/* Checks a part of a block: nobody is told that a block is done. */
zimage_status zi_ops_check_block(zi_ops *ops, const zi_tensor *x, const char *format, ...) ZI_PRINTF(3, 4);
zimage_status zi_fail_not_finite(zimage_error *error, const char *block);
/* Waits until what was asked for has been computed. */
zimage_status zi_ops_finish(zi_ops *ops);
/* zi_ops.peak_rate; 0 where a table does not tell. */
double zi_ops_peak_rate(zi_ops *ops);
/* zi_ops.device_bytes; 0 where there is no card. */
size_t zi_ops_device_bytes(zi_ops *ops);

#endif
