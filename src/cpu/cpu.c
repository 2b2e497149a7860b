/* The table of the CPU backend, and weights as float32. */
#include "cpu/cpu.h"

#include "cpu/packed.h"

/* A product of more rows unpacks the weights for each split of its rows: a batch would gain nothing, and its
 * activations take twice the memory (docs/experiments.md). */
#define MOST_BATCHED 1024

/* Dot products add up in an order of their own. In bf16 skinny products do, too: they pass over the inputs in other
 * blocks. Sums of int8 are exact. All else adds up in one order, whatever the number of rows. */
static zi_batch suits_batch(const zi_ops *ops, int64_t fewest, int64_t most)
{
    const zi_cpu *cpu = (const zi_cpu *)ops;
    int same = fewest > (cpu->bf16 != NULL ? ZI_SKINNY_TOKENS : ZI_DOT_TOKENS);
    return same && most <= MOST_BATCHED ? ZI_BATCH_ALWAYS : ZI_BATCH_NEVER;
}

static const zi_ops_table cpu_table = {
    ZI_HOST_OPERATIONS,
    .name = "cpu",
    .alloc_operand = zi_cpu_alloc_operand,
    .alloc_operand_parts = zi_cpu_alloc_operand_parts,
    .linear = zi_cpu_linear,
    .linears = zi_cpu_linears,
    .linear_glu = zi_cpu_linear_glu,
    .silu = zi_cpu_silu,
    .norm = zi_cpu_norm,
    .residual = zi_cpu_residual,
    .qk_norm_rope = zi_cpu_qk_norm_rope,
    .attention = zi_cpu_attention,
    .conv2d = zi_cpu_conv2d,
    .group_norm_sums = zi_cpu_group_norm_sums,
    .channel_affine = zi_cpu_channel_affine,
    .check_finite = zi_cpu_check_finite,
    .describe = zi_ops_cpu_describe,
    .suits_batch = suits_batch,
    .peak_rate = zi_ops_cpu_peak,
    .free = zi_host_ops_free,
};

zimage_status zi_ops_cpu_new(zi_pool *pool, const zi_cpu_options *options, zi_ops **ops, zimage_error *error)
{
    uint32_t features;
    *ops = NULL;
    ZI_TRY(zi_cpu_mask_parse(options->mask, &features, error));
    ZI_TRY(zi_host_ops_new(&cpu_table, sizeof(zi_cpu), ops, error));
    zi_cpu *cpu = (zi_cpu *)*ops;
    cpu->pool = pool;
    zi_cpu_choose(cpu, options->compute, features & zi_cpu_features());
    return ZIMAGE_OK;
}

zimage_status zi_cpu_new_with_set(zi_pool *pool, const zi_cpu_set *set, zi_ops **ops, zimage_error *error)
{
    ZI_TRY(zi_host_ops_new(&cpu_table, sizeof(zi_cpu), ops, error));
    zi_cpu *cpu = (zi_cpu *)*ops;
    cpu->pool = pool;
    cpu->kernels = set->kernels;
    cpu->linear = set->gemm;
    cpu->bf16 = set->gemm != NULL && set->gemm->b == ZI_NUMBER_BF16 ? set->gemm : NULL;
    return ZIMAGE_OK;
}

zimage_status zi_cpu_worker_buffers(zi_run *run, int64_t count, const char *what, zi_worker_buffers *buffers)
{
    buffers->each = zi_round_up(count, 16);
    return zi_host_floats(run, buffers->each * zi_pool_threads(zi_cpu_of(run)->pool), what, &buffers->data);
}

#define SCALES 64 /* groups that are unpacked at a time */

/* Elements [first, first + count) of a weight in groups. Whole groups of 4 or 8 bits take the kernel. */
static void unpack_grouped(const zi_cpu_kernels *kernels, const zi_weight *w, int64_t first, int64_t count, float *out)
{
    if ((w->bits == 4 || w->bits == 8) && (w->scale_dtype == ZI_F16 || w->scale_dtype == ZI_BF16)) {
        int64_t before = zi_min_int64(count, zi_round_up(first, w->group) - first);
        zi_weight_unpack(w, first, before, out);
        first += before;
        count -= before;
        out += before;
        size_t size = zi_dtype_size(w->scale_dtype);
        for (int64_t groups; (groups = zi_min_int64(SCALES, count / w->group)) > 0;) {
            float scales[SCALES], biases[SCALES];
            size_t place = (size_t)(first / w->group) * size;
            kernels->unpack(w->scale_dtype, w->scales + place, groups, scales);
            kernels->unpack(w->scale_dtype, w->biases + place, groups, biases);
            kernels->unpack_groups(w->bits, w->group, w->data + first * w->bits / 8, scales, biases, groups, out);
            first += groups * w->group;
            count -= groups * w->group;
            out += groups * w->group;
        }
    }
    zi_weight_unpack(w, first, count, out);
}

void zi_cpu_unpack(const zi_cpu_kernels *kernels, const zi_weight *weight, int64_t first, int64_t count, float *out)
{
    if (zi_is_plain(weight->dtype))
        kernels->unpack(weight->dtype, weight->data + (size_t)first * zi_dtype_size(weight->dtype), count, out);
    else if (weight->dtype == ZI_GROUPED)
        unpack_grouped(kernels, weight, first, count, out);
    else
        zi_weight_unpack(weight, first, count, out);
}

const float *zi_cpu_weight_rows(const zi_cpu_kernels *kernels, const zi_weight_part *part, float *buffer, int64_t *ld)
{
    const zi_weight *weight = part->weight;
    int64_t start = part->row * part->length + part->first;
    const uint8_t *data = weight->data + (size_t)start * zi_dtype_size(weight->dtype);
    if (weight->dtype == ZI_F32 && (uintptr_t)data % sizeof(float) == 0) {
        *ld = part->length;
        return (const float *)(const void *)data;
    }
    for (int64_t r = 0; r < part->rows; r++)
        zi_cpu_unpack(kernels, weight, start + r * part->length, part->count, buffer + r * part->count);
    *ld = part->count;
    return buffer;
}
