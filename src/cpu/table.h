/* What the CPU table's files share. */
#ifndef ZI_CPU_TABLE_H
#define ZI_CPU_TABLE_H

#include "cpu/kernels.h"
#include "ops/ops_common.h"

typedef struct zi_cpu {
    zi_host_ops host;
    zi_pool *pool;
    const zi_cpu_kernels *kernels;
    const zi_packed_gemm *linear; /* how linear layers are computed; NULL: float32 */
    const zi_packed_gemm *bf16;   /* how attention and convolutions are; NULL: float32 */
} zi_cpu;

static inline zi_cpu *zi_cpu_of(zi_ops *ops)
{
    return (zi_cpu *)ops;
}

/* What computes products with a weight; NULL: float32. */
static inline const zi_packed_gemm *zi_packed_gemm_for(const zi_cpu *cpu, const zi_weight *w)
{
    return w->precise & ZI_PRECISE_INT8 ? cpu->bf16 : cpu->linear; /* they differ in int8 computation only */
}

static inline int64_t zi_min(int64_t a, int64_t b)
{
    return a < b ? a : b;
}

static inline int64_t zi_max(int64_t a, int64_t b)
{
    return a > b ? a : b;
}

static inline int64_t zi_ceil_div(int64_t a, int64_t b)
{
    return (a + b - 1) / b;
}

static inline int64_t zi_round_up(int64_t a, int64_t b)
{
    return zi_ceil_div(a, b) * b;
}

/* The largest block of at most `limit` that cuts `count` into equal blocks, a multiple of 4. */
static inline int64_t zi_even_block(int64_t count, int64_t limit)
{
    return zi_min(count, zi_round_up(zi_ceil_div(count, zi_ceil_div(count, limit)), 4));
}

/* How to store an output of `count` floats. */
static inline zi_cpu_store zi_cpu_store_mode(int accumulate, int64_t count)
{
    return accumulate ? ZI_STORE_ADD : count > ZI_CACHED_OUTPUT ? ZI_STORE_NON_TEMPORAL : ZI_STORE_SET;
}

/* Sets the table's kernels and families: the best that these features can run. */
void zi_cpu_choose(zi_cpu *cpu, zi_compute compute, uint32_t features);

/* A buffer for each worker of the pool, `each` floats apart, on separate cache lines. */
typedef struct zi_worker_buffers {
    float *data;
    int64_t each;
} zi_worker_buffers;

zimage_status zi_cpu_worker_buffers(zi_ops *ops, int64_t count, const char *what, zi_worker_buffers *buffers);

static inline float *zi_worker_buffer(const zi_worker_buffers *buffers, int worker)
{
    return buffers->data + worker * buffers->each;
}

/* Whether the kernels read numbers that are stored so; all others become float32 first. */
static inline int zi_is_plain(zi_dtype dtype)
{
    return dtype == ZI_F32 || dtype == ZI_F16 || dtype == ZI_BF16;
}

/* Numbers [first, first + count) of a weight of any format as float32: by a kernel where there is one for the format, else
 * by zi_weight_unpack. */
void zi_cpu_unpack(const zi_cpu_kernels *kernels, const zi_weight *weight, int64_t first, int64_t count, float *out);

/*
 * Numbers [first, first + count) of weight rows [row, row + rows), each of `length` numbers, as float32 with *ld floats
 * between rows: in place where the file already has them so, else in buffer [rows][count].
 */
const float *zi_cpu_weight_rows(const zi_cpu_kernels *kernels, const zi_weight *weight, int64_t length, int64_t row,
                                int64_t rows, int64_t first, int64_t count, float *buffer, int64_t *ld);

/*
 * An operand of many tokens for packed products is stored as these read it: activations as the family of its weight packs
 * them, zeros behind the last row and the last column. All others are float32.
 */
typedef struct zi_cpu_operand {
    const zi_packed_gemm *gemm;
    int64_t chunks; /* of a row */
    uint8_t *rows;  /* zi_packed_row */
    float *scales;  /* of the rows; NULL: bf16 */
} zi_cpu_operand;

static inline const zi_cpu_operand *zi_cpu_operand_of(const zi_tensor *x) /* a ZI_OPERAND */
{
    return x->data;
}

zimage_status zi_cpu_alloc_operand(zi_ops *ops, zi_tensor *x, int64_t rows, int64_t columns, const zi_weight *w);
/* Whether rows can be written in parts: not where a scale of the whole row comes first. */
int zi_cpu_takes_parts(const zi_tensor *x);
/* Numbers [first, first + count) of a ZI_OPERAND's row: all of it, or in bf16 parts that are whole chunks but for the last. */
void zi_cpu_pack_numbers(const zi_cpu *cpu, const zi_tensor *x, int64_t row, int64_t first, const float *numbers,
                         int64_t count);
/* SiLU(gate) * up of sums [rows][ldc] to rows and columns of a ZI_OPERAND in bf16; the columns are all in one chunk. */
void zi_cpu_pack_glu(const zi_cpu *cpu, const zi_tensor *x, int64_t row, int64_t rows, int64_t first, int64_t columns,
                     const float *gate, const float *up, int64_t ldc);
/* All of a ZI_OPERAND from float32. */
void zi_cpu_pack_all(zi_ops *ops, const zi_tensor *x, const float *numbers);

zimage_status zi_cpu_linear(zi_ops *ops, zi_tensor *y, const zi_tensor *x, const zi_weight *weight,
                            const zi_weight *bias, int accumulate);
zimage_status zi_cpu_linears(zi_ops *ops, int count, zi_tensor *y, const zi_tensor *x, const zi_weight *const *weights);
zimage_status zi_cpu_linear_glu(zi_ops *ops, zi_tensor *y, const zi_tensor *x, const zi_weight *w1,
                                const zi_weight *w3);
zimage_status zi_cpu_attention(zi_ops *ops, zi_tensor *o, const zi_tensor *q, const zi_tensor *k, const zi_tensor *v,
                               const zi_attention_shape *shape);
zimage_status zi_cpu_conv2d(zi_ops *ops, zi_tensor *y, const zi_tensor *x, const zi_conv *conv);
zimage_status zi_cpu_group_norm_sums(zi_ops *ops, zi_tensor *tensor, const zi_tensor *x, int accumulate);
zimage_status zi_cpu_channel_affine(zi_ops *ops, zi_tensor *y, const zi_tensor *x, const zi_channel_affine *affine);
zimage_status zi_cpu_silu(zi_ops *ops, zi_tensor *y, const zi_tensor *x);
zimage_status zi_cpu_rms_norm(zi_ops *ops, zi_tensor *y, const zi_tensor *x, const zi_weight *w, const zi_tensor *scale,
                              float eps);
zimage_status zi_cpu_layer_norm(zi_ops *ops, zi_tensor *y, const zi_tensor *x, const zi_tensor *scale, float eps);
zimage_status zi_cpu_residual_gate_norm(zi_ops *ops, zi_tensor *x, const zi_tensor *y, const zi_weight *w,
                                        const zi_tensor *gate, zi_tensor *h, const zi_weight *w_next,
                                        const zi_tensor *scale_next, float eps, int *finite);
zimage_status zi_cpu_qk_norm_rope(zi_ops *ops, zi_tensor *x, const zi_weight *w, const zi_tensor *cos,
                                  const zi_tensor *sin, int64_t heads, zi_rope_layout layout, float eps);
zimage_status zi_cpu_check_finite(zi_ops *ops, const zi_tensor *x, int *finite);

#endif
