/* Choosing a tier and making the table. */
#include "cpu/cpu.h"

#include <time.h>

#include "cpu/table.h"

static const zi_cpu_kernels *const tiers[] = {
    &zi_cpu_kernels_generic,
#if defined(__x86_64__)
    &zi_cpu_kernels_avx2,
    &zi_cpu_kernels_avx512,
#endif
    NULL,
};

#define TIERS ((int)(sizeof(tiers) / sizeof(tiers[0])) - 1)

static int usable(uint32_t features, int feature)
{
    return feature == ZI_CPU_ALWAYS || features >> feature & 1;
}

const char *zi_cpu_tier_name(int index)
{
    return index >= 0 && index < TIERS ? tiers[index]->name : NULL;
}

int zi_cpu_tier_available(int index)
{
    return index >= 0 && index < TIERS && usable(zi_cpu_features(), tiers[index]->feature);
}

/* The last one that can run. */
static const zi_cpu_kernels *best_tier(uint32_t features)
{
    const zi_cpu_kernels *best = tiers[0];
    for (int i = 0; i < TIERS; i++)
        if (usable(features, tiers[i]->feature))
            best = tiers[i];
    return best;
}

const zi_cpu_packed *zi_cpu_best_packed(const zi_cpu_packed *const *families, uint32_t features)
{
    const zi_cpu_packed *best = NULL;
    for (; *families != NULL; families++)
        if (usable(features, (*families)->feature))
            best = *families;
    return best;
}

static const zi_ops_table cpu_table = {
    .name = "cpu",
    .alloc = zi_host_alloc,
    .mark = zi_host_mark,
    .release = zi_host_release,
    .upload = zi_host_upload,
    .download = zi_host_download,
    .copy = zi_host_copy,
    .embed_rows = zi_host_embed_rows,
    .linear = zi_cpu_linear,
    .linear_glu = zi_cpu_linear_glu,
    .silu = zi_cpu_silu,
    .rms_norm = zi_cpu_rms_norm,
    .layer_norm = zi_cpu_layer_norm,
    .residual_gate_norm = zi_cpu_residual_gate_norm,
    .qk_norm_rope = zi_cpu_qk_norm_rope,
    .attention = zi_cpu_attention,
    .modulation = zi_host_modulation,
    .add_one = zi_host_add_one,
    .patchify = zi_host_patchify,
    .unpatchify = zi_host_unpatchify,
    .conv2d = zi_cpu_conv2d,
    .group_norm_sums = zi_cpu_group_norm_sums,
    .group_norm_fold = zi_host_group_norm_fold,
    .channel_affine = zi_cpu_channel_affine,
    .check_finite = zi_cpu_check_finite,
    .free = zi_host_ops_free,
};

zimage_status zi_ops_cpu_new_with(zi_pool *pool, const zi_cpu_options *options, zi_ops **ops, zimage_error *error)
{
    uint32_t features;
    *ops = NULL;
    ZI_TRY(zi_cpu_mask_parse(options->mask, &features, error));
    features &= zi_cpu_features();
    ZI_TRY(zi_host_ops_new(&cpu_table, sizeof(zi_cpu), ops, error));
    zi_cpu *cpu = zi_cpu_of(*ops);
    cpu->pool = pool;
    cpu->kernels = best_tier(features);
    if (options->compute != ZI_COMPUTE_F32)
        cpu->bf16 = zi_cpu_best_packed(zi_cpu_packed_bf16, features);
    cpu->linear = options->compute == ZI_COMPUTE_INT8 ? zi_cpu_best_packed(zi_cpu_packed_int8, features) : cpu->bf16;
    return ZIMAGE_OK;
}

zimage_status zi_ops_cpu_new(zi_pool *pool, zi_ops **ops, zimage_error *error)
{
    return zi_ops_cpu_new_with(pool, &(zi_cpu_options){0}, ops, error);
}

const char *zi_ops_cpu_tier(const zi_ops *ops)
{
    return ((const zi_cpu *)ops)->kernels->name;
}

typedef struct peak_run {
    const zi_cpu_kernels *kernels;
    int64_t rounds;
} peak_run;

static void peak_task(void *arg, int64_t task, int worker)
{
    const peak_run *run = arg;
    float sink = (float)task;
    run->kernels->peak(run->rounds, &sink);
}

static double now(void)
{
    struct timespec time;
    clock_gettime(CLOCK_MONOTONIC, &time);
    return (double)time.tv_sec + 1e-9 * (double)time.tv_nsec;
}

double zi_ops_cpu_peak(zi_ops *ops)
{
    const zi_cpu *cpu = zi_cpu_of(ops);
    peak_run run = {cpu->kernels, 1 << 18};
    float sink = 0;
    double seconds = 0, operations = cpu->kernels->peak(1, &sink) * zi_pool_threads(cpu->pool);
    for (; seconds < 0.01 && run.rounds < (int64_t)1 << 40;
         run.rounds *= 2) { /* the shorter runs warm the threads; rounds ends one doubling too far */
        double start = now();
        zi_pool_run(cpu->pool, peak_task, &run, zi_pool_threads(cpu->pool));
        seconds = now() - start;
    }
    return operations * 0.5 * (double)run.rounds / seconds;
}

zimage_status zi_cpu_worker_buffers(zi_ops *ops, int64_t count, const char *what, zi_worker_buffers *buffers)
{
    buffers->each = zi_round_up(count, 16);
    return zi_host_floats(ops, buffers->each * zi_pool_threads(zi_cpu_of(ops)->pool), what, &buffers->data);
}

const float *zi_cpu_weight_rows(const zi_cpu_kernels *kernels, const zi_weight *weight, int64_t length, int64_t row,
                                int64_t rows, int64_t first, int64_t count, float *buffer, int64_t *ld)
{
    size_t size = zi_dtype_size(weight->dtype);
    const uint8_t *data = weight->data + (size_t)(row * length + first) * size;
    if (weight->dtype == ZI_F32 && (uintptr_t)data % sizeof(float) == 0) {
        *ld = length;
        return (const float *)(const void *)data;
    }
    for (int64_t r = 0; r < rows; r++) {
        if (weight->dtype == ZI_GROUPED)
            zi_weight_unpack(weight, (row + r) * length + first, count, buffer + r * count);
        else
            kernels->unpack(weight->dtype, data + (size_t)(r * length) * size, count, buffer + r * count);
    }
    *ld = count;
    return buffer;
}
