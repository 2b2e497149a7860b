/* What the files of the CPU backend share. */
#ifndef ZI_CPU_TABLE_H
#define ZI_CPU_TABLE_H

#include "base/numbers.h"
#include "base/pool.h"
#include "cpu/kernels.h"
#include "ops/host.h"

typedef struct zi_cpu {
    zi_host_ops host;
    zi_pool *pool;
    const zi_cpu_kernels *kernels;
    const zi_packed_gemm *linear; /* computes linear layers; NULL: the float32 kernels do */
    const zi_packed_gemm *bf16;   /* computes attention and convolutions; NULL: the float32 kernels do */
} zi_cpu;

static inline zi_cpu *zi_cpu_of(zi_run *run)
{
    return (zi_cpu *)run->ops;
}

/* Runs the tasks on the threads of the pool. A rehearsal skips them. */
static inline void zi_cpu_run_tasks(zi_run *run, void (*task)(void *arg, int64_t task, int worker), void *arg,
                                    int64_t tasks)
{
    if (!zi_host_rehearses(run))
        zi_pool_run(zi_cpu_of(run)->pool, task, arg, tasks);
}

/* The packed gemm that multiplies with a weight; NULL: the float32 kernels do. With int8 computation a weight may
 * ask for more precision. */
static inline const zi_packed_gemm *zi_packed_gemm_for(const zi_cpu *cpu, const zi_weight *w)
{
    return w->precise & ZI_PRECISE_INT8 ? cpu->bf16 : cpu->linear;
}

static inline int64_t zi_ceil_div(int64_t a, int64_t b)
{
    return (a + b - 1) / b;
}

static inline int64_t zi_round_up(int64_t a, int64_t b)
{
    return zi_ceil_div(a, b) * b;
}

/* The size of equal blocks of at most `limit` that cover `count`, rounded up to a multiple of 4. */
static inline int64_t zi_even_block(int64_t count, int64_t limit)
{
    return zi_min_int64(count, zi_round_up(zi_ceil_div(count, zi_ceil_div(count, limit)), 4));
}

/* How an epilogue writes an output of `count` floats in all. */
static inline zi_cpu_store zi_cpu_store_mode(int accumulate, int64_t count)
{
    return accumulate ? ZI_STORE_ADD : count > ZI_CACHED_OUTPUT ? ZI_STORE_NON_TEMPORAL : ZI_STORE_SET;
}

/* Sets the backend's kernels and packed gemms to the best that these features can run. */
void zi_cpu_choose(zi_cpu *cpu, zimage_compute compute, uint32_t features);

/* A buffer for each worker of the pool: `each` floats, whole cache lines. */
typedef struct zi_worker_buffers {
    float *data;
    int64_t each;
} zi_worker_buffers;

zimage_status zi_cpu_worker_buffers(zi_run *run, int64_t count, const char *what, zi_worker_buffers *buffers);

static inline float *zi_worker_buffer(const zi_worker_buffers *buffers, int worker)
{
    return buffers->data + worker * buffers->each;
}

/* Whether the kernels read weights of this dtype as they are stored. All others become float32 first. */
static inline int zi_is_plain(zi_dtype dtype)
{
    return dtype == ZI_F32 || dtype == ZI_F16 || dtype == ZI_BF16;
}

/* Elements [first, first + count) of a weight of any format as float32. Formats without a kernel take
 * zi_weight_unpack. */
void zi_cpu_unpack(const zi_cpu_kernels *kernels, const zi_weight *weight, int64_t first, int64_t count, float *out);

/* Inputs [first, first + count) of rows [row, row + rows) of a weight whose rows have `length` inputs. */
typedef struct zi_weight_part {
    const zi_weight *weight;
    int64_t length, row, rows, first, count;
} zi_weight_part;

/* The part as float32 with *ld floats between rows: the weight's own data if that is aligned float32, else `buffer`
 * [rows][count]. */
const float *zi_cpu_weight_rows(const zi_cpu_kernels *kernels, const zi_weight_part *part, float *buffer, int64_t *ld);

/*
 * The data of a ZI_OPERAND: a matrix operand of more than ZI_SKINNY_TOKENS rows that a packed gemm reads. It is packed
 * as that gemm reads it, with zeros behind the last row and the last column. All other matrix operands are float32
 * tensors.
 */
typedef struct zi_cpu_operand {
    const zi_packed_gemm *gemm;
    int64_t chunks; /* of a row */
    uint8_t *rows;  /* [block of mr rows][chunk][mr][ZI_CHUNK] */
    float *scales;  /* one for each row; NULL: bf16 */
} zi_cpu_operand;

static inline const zi_cpu_operand *zi_cpu_operand_of(const zi_tensor *x)
{
    return x->data;
}

/* Whether rows of x can be written in parts. Not so in int8: the scale needs the whole row. */
int zi_cpu_takes_parts(const zi_tensor *x);
/* Writes columns [first, first + count) of a row of a ZI_OPERAND, or of a view of its columns. int8: the whole row.
 * bf16: `first` is a multiple of 32, and so is count, unless the part ends the row. */
void zi_cpu_pack_numbers(const zi_cpu *cpu, const zi_tensor *x, int64_t row, int64_t first, const float *numbers,
                         int64_t count);
/* Sums of a gated product: [rows][ldc] each. */
typedef struct zi_glu_sums {
    const float *gate, *up;
    int64_t ldc;
} zi_glu_sums;

/* Writes SiLU(gate) * up to rows [row, row + rows) and columns [first, first + columns) of a ZI_OPERAND in bf16 or of a
 * view of its columns. The columns lie in one chunk. */
void zi_cpu_pack_glu(const zi_cpu *cpu, const zi_tensor *x, int64_t row, int64_t rows, int64_t first, int64_t columns,
                     zi_glu_sums sums);
/* Writes all of a ZI_OPERAND, or of a view of its columns, from float32. */
void zi_cpu_pack_all(zi_run *run, const zi_tensor *x, const float *numbers);

/* Output rows [first, first + count) of an image read its input rows [*low, *low + result). */
int64_t zi_cpu_conv_input(const zi_conv *conv, int64_t first, int64_t count, int64_t *low);

/* The most that zi_cpu_conv_input returns for `count` rows. */
static inline int64_t zi_cpu_conv_input_most(const zi_conv *conv, int64_t count)
{
    return (((count - 1) * conv->stride + conv->weight->shape[2] - 1) >> conv->upsample) + 2;
}

zi_op_alloc_operand zi_cpu_alloc_operand;
zi_op_alloc_operand_parts zi_cpu_alloc_operand_parts;
zi_op_linear zi_cpu_linear;
zi_op_linears zi_cpu_linears;
zi_op_linear_glu zi_cpu_linear_glu;
zi_op_attention zi_cpu_attention;
zi_op_conv2d zi_cpu_conv2d;
zi_op_group_norm_sums zi_cpu_group_norm_sums;
zi_op_channel_affine zi_cpu_channel_affine;
zi_op_silu zi_cpu_silu;
zi_op_norm zi_cpu_norm;
zi_op_residual zi_cpu_residual;
zi_op_qk_norm_rope zi_cpu_qk_norm_rope;
zi_op_check_finite zi_cpu_check_finite;

#endif
