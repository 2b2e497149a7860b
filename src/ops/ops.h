/*
 * The contract of a backend: a table of operations, each with one signature that is declared here and nowhere else.
 * Model code (src/model) is written once against the table and never names a backend, an instruction set or a weight
 * format.
 *
 * Activations are row-major: a sequence is [tokens, features]; an image inside the VAE is channels-last [rows, columns,
 * channels]. Unless said otherwise outputs must not overlap inputs, the caller allocates outputs with the right shape,
 * tensors are dense, and a shape that does not fit is a programming error (assert). Operations return ZIMAGE_OK or fill
 * run->error. Every entry of a table is set: an operation that a backend need not do has a function that does nothing.
 *
 * "Column views" below: the operation also takes zi_tensor_columns views (ld larger than the last dimension) as the
 * arguments that are named.
 */
#ifndef ZI_OPS_OPS_H
#define ZI_OPS_OPS_H

#include "base/arena.h"
#include "ops/tensor.h"

typedef struct zi_ops zi_ops;

/* ---- a run ------------------------------------------------------------------------------------------------------- */

/* One job on one backend, passed to every operation: where errors go, and who receives progress. */
typedef struct zi_run {
    zi_ops *ops;
    zimage_error *error; /* where a failing operation writes its message; may be NULL */
    /* Called after each block of a network; non-zero stops the job with ZIMAGE_ERROR_CANCELLED. May be NULL. */
    int (*block_done)(void *user);
    void *user;
    int64_t blocks; /* that have ended in this run */
} zi_run;

/* ---- arguments of operations ------------------------------------------------------------------------------------- */

typedef enum zi_rope_layout {
    ZI_ROPE_ADJACENT,   /* pairs (2j, 2j+1): the diffusion transformers */
    ZI_ROPE_HALF_SPLIT, /* pairs (j, j + d/2): Qwen3 */
} zi_rope_layout;

typedef enum zi_norm_kind {
    ZI_NORM_RMS,   /* x / sqrt(mean(x^2) + eps) */
    ZI_NORM_LAYER, /* (x - mean) / sqrt(variance + eps) */
} zi_norm_kind;

/* normalised(x) * weight * scale + shift over the last dimension of n features; each factor may be NULL. */
typedef struct zi_norm {
    zi_norm_kind kind;
    float eps;
    const zi_weight *weight; /* [n] */
    const zi_tensor *scale;  /* [n], from alloc_f32 */
    const zi_tensor *shift;  /* [n], from alloc_f32 */
} zi_norm;

/* x += gate * post(y), then h = next(x): one operation, so that a backend can do both in one pass. */
typedef struct zi_residual {
    const zi_norm *post;   /* ZI_NORM_RMS without shift; NULL: y is added as it is */
    const zi_tensor *gate; /* [n], from alloc_f32; NULL: 1 */
    const zi_norm *next;   /* NULL: no h */
    int *finite;           /* as check_finite of x; NULL: not checked */
} zi_residual;

/* RMS norm of each head (weight [head_dim]), then rotation by cos and sin [tokens, head_dim / 2]; of queries and, where
 * k is given, of keys: one operation, so that a backend can do both in one pass. */
typedef struct zi_qk_norm_rope {
    const zi_weight *weight;
    const zi_tensor *cos, *sin;
    int64_t heads;
    zi_rope_layout layout;
    float eps;
    zi_tensor *k; /* [tokens, any number of heads * head_dim], changed in place; may be NULL */
    const zi_weight *k_weight;
} zi_qk_norm_rope;

#define ZI_SEQUENCES_MAX 2

typedef struct zi_attention {
    int64_t heads;    /* query heads; q is [queries, heads * head_dim] */
    int64_t kv_heads; /* divides heads; key head g serves query heads g * (heads / kv_heads) ... */
    int64_t head_dim;
    int causal;         /* query i sees keys 0 .. i; needs queries == keys */
    int64_t key_length; /* keys from here on are padding that no query sees; 0: every key is real */
    /* Up to ZI_SEQUENCES_MAX: the rows are so many sequences, one below the other, of queries[i] rows in q and o and of
     * keys[i] rows in k and v. A query sees the keys of its own sequence. Not with causal or key_length. 0: one. */
    int sequences;
    int64_t queries[ZI_SEQUENCES_MAX], keys[ZI_SEQUENCES_MAX];
} zi_attention;

/* The function that one part x of a modulation vector goes through. */
typedef enum zi_modulation {
    ZI_MODULATION_COPY,     /* x */
    ZI_MODULATION_ONE_PLUS, /* 1 + x: a scale */
    ZI_MODULATION_TANH,     /* tanh(x): a gate */
} zi_modulation;

#define ZI_MODULATION_PARTS_MAX 6

/* In which order a patch [p, p, C] of latents becomes the features of a token. */
typedef enum zi_patch_order {
    ZI_PATCH_CHANNELS_LAST,  /* row, column, channel (fastest): Z-Image */
    ZI_PATCH_CHANNELS_FIRST, /* channel, row, column (fastest): FLUX.2 */
} zi_patch_order;

/* GroupNorm folded into the reader of its input: y = x * scale[c] + shift[c], then SiLU. Made by group_norm_fold. */
typedef struct zi_channel_affine {
    zi_tensor scale; /* [channels] */
    zi_tensor shift; /* [channels] */
} zi_channel_affine;

typedef struct zi_conv {
    const zi_weight *weight;         /* [out, in, k, k], k = 1 or 3 */
    const zi_weight *bias;           /* [out] */
    const zi_channel_affine *affine; /* optional: the input is SiLU(x * scale + shift); padding is zero AFTER it */
    int upsample;                    /* 1: the input is read as its nearest-neighbour doubling; stride must be 1 */
    int accumulate;                  /* 1: y += result */
    int stride;                      /* 1 or 2, each way */
    int pad_top, pad_left;           /* zero rows above and columns to the left: 0 or 1, at most k / 2 */
    int pad_bottom, pad_right;       /* 0 or 1 */
    /* Bands: x holds input rows [x_row, x_row + x.rows) of an image of image_rows rows (before doubling), y output
     * rows [y_row, y_row + y.rows). Every input row that y needs and that lies inside the image must be in x. */
    int64_t x_row, y_row, image_rows;
} zi_conv;

/* A zi_conv of stride 1 whose output has its input's size (after doubling); the caller sets the other fields. */
zi_conv zi_conv_same(const zi_weight *weight, const zi_weight *bias);
/* Output rows (or columns) of `size` input ones, after doubling. */
int64_t zi_conv_rows(const zi_conv *conv, int64_t size);
int64_t zi_conv_columns(const zi_conv *conv, int64_t size);

#define ZI_LINEARS_MAX  3
#define ZI_OPERAND_STEP 32

/* ---- operations: memory ------------------------------------------------------------------------------------------ */

/* Memory is a stack. Contents are undefined after alloc. An activation has the backend's own type; what alloc_f32 gives
 * is float32 everywhere: positions, factors of features or channels, latents, what is downloaded at the end. */
typedef zimage_status zi_op_alloc(zi_run *run, zi_tensor *tensor, int dims, const int64_t *shape);
typedef zi_op_alloc zi_op_alloc_f32;
/* A matrix operand [rows, columns]: only linear, linears and linear_glu read it, as x, with w or with weights of the
 * same precision; norm (y), residual (h), attention (o) and linear_glu (y) write all of it. The backend may keep it in
 * the form that its products read. No views. */
typedef zimage_status zi_op_alloc_operand(zi_run *run, zi_tensor *x, int64_t rows, int64_t columns, const zi_weight *w);
/* The same, but attention (o) and linear_glu (y) write it in parts: views of columns that begin at multiples of
 * ZI_OPERAND_STEP. Together they write all of it. */
typedef zi_op_alloc_operand zi_op_alloc_operand_parts;
typedef zi_arena_mark zi_op_mark(zi_run *run);
typedef void zi_op_release(zi_run *run, zi_arena_mark mark);
/* Between float32 in host memory and the backend's tensor of as many elements. */
typedef zimage_status zi_op_upload(zi_run *run, zi_tensor *dst, const float *src);
typedef zimage_status zi_op_download(zi_run *run, float *dst, const zi_tensor *src);
/* Pixels from alloc_f32 as bytes: clamp(x / 2 + 0.5, 0, 1) * 255, rounded half to even; NaN is 0. */
typedef zimage_status zi_op_download_rgb8(zi_run *run, uint8_t *dst, const zi_tensor *src);
/* Column views: dst, src. */
typedef zimage_status zi_op_copy(zi_run *run, zi_tensor *dst, const zi_tensor *src);

/* ---- operations: sequences --------------------------------------------------------------------------------------- */

/* y[i] = table[ids[i]]; ids in host memory, already checked against the table's rows. table [rows, features] */
typedef zimage_status zi_op_embed_rows(zi_run *run, zi_tensor *y, const zi_weight *table, const int32_t *ids);
/* y[t, o] = sum_i x[t, i] W[o, i] + bias[o]; bias may be NULL; accumulate: y += ... Column views: y, x. */
typedef zimage_status zi_op_linear(zi_run *run, zi_tensor *y, const zi_tensor *x, const zi_weight *weight,
                                   const zi_weight *bias, int accumulate);
/* y[i] = x W_i^T for i < count, at most ZI_LINEARS_MAX: products of the same activations. Column views: y, x. */
typedef zimage_status zi_op_linears(zi_run *run, int count, zi_tensor *y, const zi_tensor *x,
                                    const zi_weight *const *weights);
/* y = SiLU(x W1^T) * (x W3^T). Column views: y, x. */
typedef zimage_status zi_op_linear_glu(zi_run *run, zi_tensor *y, const zi_tensor *x, const zi_weight *w1,
                                       const zi_weight *w3);
/* y = x * sigmoid(x); y may be x */
typedef zimage_status zi_op_silu(zi_run *run, zi_tensor *y, const zi_tensor *x);
/* y = norm(x); y may be x */
typedef zimage_status zi_op_norm(zi_run *run, zi_tensor *y, const zi_tensor *x, const zi_norm *norm);
/* x += gate * post(y), h = next(x); h may be y, and is NULL without next */
typedef zimage_status zi_op_residual(zi_run *run, zi_tensor *x, const zi_tensor *y, zi_tensor *h,
                                     const zi_residual *residual);
/* cos and sin of the angles, which lie in host memory: as many as cos and sin, both from alloc_f32, have elements. */
typedef zimage_status zi_op_rope_table(zi_run *run, zi_tensor *cos, zi_tensor *sin, const float *angles);
/* In place on x [tokens, heads * head_dim] and args->k. Column views: x, k. */
typedef zimage_status zi_op_qk_norm_rope(zi_run *run, zi_tensor *x, const zi_qk_norm_rope *args);
/* o = softmax(q k^T / sqrt(head_dim)) v, of each sequence; never holds a [queries, keys] buffer. k, v [keys, kv_heads *
 * head_dim]; o, q [queries, heads * head_dim]; o may be q. Column views: o, q, k, v. */
typedef zimage_status zi_op_attention(zi_run *run, zi_tensor *o, const zi_tensor *q, const zi_tensor *k,
                                      const zi_tensor *v, const zi_attention *attention);
/* In place on m [parts * features], from alloc_f32: part i becomes kinds[i] of itself; parts <=
 * ZI_MODULATION_PARTS_MAX. */
typedef zimage_status zi_op_modulation(zi_run *run, zi_tensor *m, int parts, const zi_modulation *kinds);
/* Latents [C, H, W] to tokens [(H/p)(W/p), p*p*C] and back. */
typedef zimage_status zi_op_patchify(zi_run *run, zi_tensor *tokens, const zi_tensor *latents, int64_t patch,
                                     zi_patch_order order);
typedef zimage_status zi_op_unpatchify(zi_run *run, zi_tensor *latents, const zi_tensor *tokens, int64_t patch,
                                       zi_patch_order order);

/* ---- operations: channels-last images [rows, columns, channels] -------------------------------------------------- */

typedef zimage_status zi_op_conv2d(zi_run *run, zi_tensor *y, const zi_tensor *x, const zi_conv *conv);
/* Sum and sum of squares (about 0) of each group of channels, in float64. sums [groups, 4] comes from alloc_f32, and
 * only this operation and group_norm_fold use it. accumulate: adds to the sums of other bands. */
typedef zimage_status zi_op_group_norm_sums(zi_run *run, zi_tensor *sums, const zi_tensor *x, int accumulate);
/* From the sums over `count` elements a group: scale[c] = w[c] / sqrt(var + eps), shift[c] = b[c] - mean scale[c]. */
typedef zimage_status zi_op_group_norm_fold(zi_run *run, zi_channel_affine *affine, const zi_tensor *sums,
                                            int64_t count, const zi_weight *w, const zi_weight *b, float eps);
/* y = x * scale[c] + shift[c] (no SiLU: the VAE's attention); y may be x */
typedef zimage_status zi_op_channel_affine(zi_run *run, zi_tensor *y, const zi_tensor *x,
                                           const zi_channel_affine *affine);

/* ---- operations: checks, waiting, recording ---------------------------------------------------------------------- */

/* *finite = 0 if any element is NaN or Inf. A backend that computes asynchronously may answer 1 and fail later, in
 * download or finish, with the name that name_check gives next. */
typedef zimage_status zi_op_check_finite(zi_run *run, const zi_tensor *x, int *finite);
/* Names what the last check_finite (or residual with finite) looked at. */
typedef zimage_status zi_op_name_check(zi_run *run, const char *name);
/* Waits until everything that was queued has been computed. */
typedef zimage_status zi_op_finish(zi_run *run);
/* Queues operations; the host neither reads nor writes a tensor meanwhile. */
typedef zimage_status zi_work_fn(zi_run *run, const void *user);
/* Calls work(run, user). Its tensors lie at the same places whenever the key has the same bytes and the stack has the
 * same height: a backend may record what it queued, and queue the recording the next time instead of calling work. key
 * NULL: nothing is recorded, and the host may read and write tensors. Either way several GPUs may divide the work. */
typedef zimage_status zi_op_repeat(zi_run *run, const void *key, size_t size, zi_work_fn *work, const void *user);

/* ---- operations: planning memory --------------------------------------------------------------------------------- */

/* `times` runs of a stage, one after the other. */
typedef struct zi_stage_runs {
    int stage, times;
} zi_stage_runs;

#define ZI_STAGES_MAX 8

/* What several GPUs that make an image together send each other; bytes: of the GPU that sends or receives most, summed
 * over the exchanges. */
typedef struct zi_traffic {
    uint64_t exchanges, bytes;
} zi_traffic;

/* How a device's own memory is divided, in bytes. */
typedef struct zi_memory_plan {
    uint64_t limit;       /* that must not be exceeded */
    uint64_t activations; /* of the networks, at most at once */
    uint64_t resident;    /* weights that stay */
    uint64_t ring;        /* buffer that all other weights pass through */
    uint64_t workspace;   /* of libraries */
    uint64_t total;       /* the sum of the four */
    uint64_t least;       /* the smallest limit with which a job with these activations can run */
    /* Weights that one run of a stage copies to the device: if none were resident; as divided. */
    uint64_t weights[ZI_STAGES_MAX], streamed[ZI_STAGES_MAX];
    uint64_t shared; /* weights that other sessions hold, too */
    int devices;     /* several GPUs: how many; their traffic in one run of a stage. A stage without is not divided */
    zi_traffic traffic[ZI_STAGES_MAX];
} zi_memory_plan;

/*
 * A rehearsal runs a job's operations without computing. A backend learns from it how much memory each stage takes, and
 * which weights each stage reads in which order; both come from the operations themselves, so that a plan can't differ
 * from the job.
 *
 * Between rehearse_begin and rehearse_end the stack is an imaginary one, empty at first. Operations only take memory
 * from it and record the weights that they would read. They never read or write data of tensors. check_finite answers
 * 1.
 */
typedef zimage_status zi_op_rehearse_begin(zi_run *run);
/* A stage ends: what was recorded since the end of the last stage is one run of `stage`. *peak: the most bytes of
 * memory that the stack took since then. */
typedef zimage_status zi_op_rehearse_stage(zi_run *run, int stage, size_t *peak);
/* Operations compute again. Also called after a rehearsal that failed. */
typedef void zi_op_rehearse_end(zi_run *run);
/*
 * Divides a device's own memory for a job of these runs of stages, whose stack takes `activations` bytes; commit 0:
 * only says how. The operations that follow a commit should read weights in the rehearsed order, so that weights can be
 * sent ahead of their use; another order costs time and nothing else. The stack must be empty. ZIMAGE_ERROR_MEMORY with
 * the numbers where the limit is too small. A backend that reads weights in host memory has nothing to divide: all
 * bytes of the plan but `activations` are 0. `host`: most bytes of host memory that the backend may take; 0: no limit.
 * It concerns memory that a GPU shares with the host.
 */
typedef zimage_status zi_op_arrange(zi_run *run, const zi_stage_runs *runs, int count, size_t activations,
                                    uint64_t host, int commit, zi_memory_plan *plan);
/* Weights that were read may be freed after this call, and others may come to lie where they were. */
typedef zimage_status zi_op_forget_weights(zi_run *run);

/* ---- a backend --------------------------------------------------------------------------------------------------- */

/* Where a backend keeps activations and reads weights. */
typedef enum zi_memory_kind {
    ZI_MEMORY_HOST,    /* host memory; weights are read where they are mapped */
    ZI_MEMORY_UNIFIED, /* a GPU that shares the host's memory */
    ZI_MEMORY_DEVICE,  /* memory of its own, which weights are copied to */
} zi_memory_kind;

/* What a backend queued that builds a graph of operations: since the last question. */
typedef struct zi_graph_info {
    int64_t nodes;       /* operations of the graphs; counted after a question that found none, as that takes time */
    int64_t evaluations; /* how often a graph was handed over to be computed */
    double building;     /* seconds that the host took to build them */
    size_t peak_bytes;   /* most bytes that the backend's arrays took at once, weights included */
} zi_graph_info;

/* Answers of suits_batch. A batch is allowed only where each row has the same bytes as in its own pass. (A GPU does not
 * promise that: its library may choose the order of a sum by the number of rows.) */
typedef enum zi_batch {
    ZI_BATCH_NEVER,
    ZI_BATCH_STREAMED, /* where it copies fewer weights to a device; it is slower otherwise */
    ZI_BATCH_ALWAYS    /* it is not slower */
} zi_batch;

typedef struct zi_ops_table {
    const char *name; /* "reference", "cpu", "cuda", ... */
    zi_memory_kind memory;

    zi_op_alloc *alloc;
    zi_op_alloc_f32 *alloc_f32;
    zi_op_alloc_operand *alloc_operand;
    zi_op_alloc_operand_parts *alloc_operand_parts;
    zi_op_mark *mark;
    zi_op_release *release;
    zi_op_upload *upload;
    zi_op_download *download;
    zi_op_download_rgb8 *download_rgb8;
    zi_op_copy *copy;

    zi_op_embed_rows *embed_rows;
    zi_op_linear *linear;
    zi_op_linears *linears;
    zi_op_linear_glu *linear_glu;
    zi_op_silu *silu;
    zi_op_norm *norm;
    zi_op_residual *residual;
    zi_op_rope_table *rope_table;
    zi_op_qk_norm_rope *qk_norm_rope;
    zi_op_attention *attention;
    zi_op_modulation *modulation;
    zi_op_patchify *patchify;
    zi_op_unpatchify *unpatchify;

    zi_op_conv2d *conv2d;
    zi_op_group_norm_sums *group_norm_sums;
    zi_op_group_norm_fold *group_norm_fold;
    zi_op_channel_affine *channel_affine;

    zi_op_check_finite *check_finite;
    zi_op_name_check *name_check;
    zi_op_finish *finish;
    zi_op_repeat *repeat;

    zi_op_rehearse_begin *rehearse_begin;
    zi_op_rehearse_stage *rehearse_stage;
    zi_op_rehearse_end *rehearse_end;
    zi_op_arrange *arrange;
    zi_op_forget_weights *forget_weights;

    /* What computes, in a few words: "avx512, bf16 amx". */
    void (*describe)(const zi_ops *ops, char *text, size_t size);
    /* Floating-point operations a second that the linear layers could reach at most, measured now; 0: unknown. */
    double (*peak_rate)(zi_run *run);
    /* Seconds that an exchange of so many bytes takes between the GPUs of the backend, measured now; 0: it has one. The
     * stack is empty, and is so afterwards. */
    zimage_status (*exchange_seconds)(zi_run *run, size_t bytes, double *seconds);
    /* Most bytes of the stack that were in use at once since the backend was opened. */
    size_t (*peak_bytes)(const zi_ops *ops);
    /* Bytes of the device's own memory in use now, by whichever process; 0: it has none. */
    size_t (*device_bytes)(zi_ops *ops);
    /* An image of at most that many bytes (in float32) need not be computed in bands of rows; 0: the caller decides. */
    size_t (*whole_image_bytes)(const zi_ops *ops);
    /* Whether forward passes should be one batch whose products have from `fewest` rows in a single pass to `most` rows
     * in the batch. */
    zi_batch (*suits_batch)(const zi_ops *ops, int64_t fewest, int64_t most);
    /* All 0: the backend computes each operation by itself. */
    zi_graph_info (*graph_info)(zi_ops *ops);
    void (*free)(zi_ops *ops);
} zi_ops_table;

/* A backend's instance: its state follows this head. One thread at a time uses it. */
struct zi_ops {
    const zi_ops_table *table;
    int rehearsing; /* operations compute nothing: data that is made for them may be NULL */
    uint64_t room; /* for a rehearsal and its job: most bytes of host memory that the backend may take, where a limit is
                       set; 1: as few as possible; 0: no limit. It concerns memory that a GPU shares with the host. */
};

static inline const zi_ops_table *zi_table(const zi_run *run)
{
    return run->ops->table;
}

/* The reference backend: plain C, float32 with float64 sums, one thread. */
zimage_status zi_ops_reference_new(zi_ops **ops, zimage_error *error);

/* ---- between blocks ---------------------------------------------------------------------------------------------- */

/*
 * What model code calls after each block: checks x for NaN or infinity (ZIMAGE_ERROR_NOT_FINITE with the block's name,
 * printf-style), reports progress, and stops with ZIMAGE_ERROR_CANCELLED if the caller wants that.
 */
zimage_status zi_end_block(zi_run *run, const zi_tensor *x, const char *format, ...) ZI_PRINTF(3, 4);
/* The same where the last residual has said whether x is finite. */
zimage_status zi_end_block_known(zi_run *run, int finite, const char *format, ...) ZI_PRINTF(3, 4);
/* Checks a part of a block, without progress. */
zimage_status zi_check_block(zi_run *run, const zi_tensor *x, const char *format, ...) ZI_PRINTF(3, 4);
/* Counts a block and reports progress. */
zimage_status zi_block_done(zi_run *run);
zimage_status zi_fail_not_finite(zimage_error *error, const char *block);

#endif
