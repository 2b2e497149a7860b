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

static const zi_cpu_packed *best_packed(const zi_cpu_packed *const *families, uint32_t features)
{
    const zi_cpu_packed *best = NULL;
    for (; *families != NULL; families++)
        if (usable(features, (*families)->feature))
            best = *families;
    return best;
}

/* ---- choosing by measurement ------------------------------------------------------------------------------------- */

#define RATE_BLOCKS    4 /* of mr tokens */
#define RATE_REPEATS   7
#define RATE_SECONDS   1e-4 /* of a repeat */
#define CLEARLY_FASTER 1.2  /* so that noise does not decide */

typedef struct rate_job {
    const zi_cpu_kernels *kernels;
    const zi_cpu_packed *family; /* or NULL: float32 */
    uint8_t *a, *b, *c;
} rate_job;

/* One product of operands that stay in L1; returns its multiplications. */
static double rate_product(const rate_job *job)
{
    if (job->family == NULL) {
        const zi_cpu_kernels *kernels = job->kernels;
        const float *rows[ZI_MR_MAX];
        for (int r = 0; r < kernels->mr; r++)
            rows[r] = (const float *)(const void *)job->a + r * ZI_KC;
        kernels->gemm(1, ZI_KC, rows, 0, 0, (const float *)(const void *)job->b, (float *)(void *)job->c, kernels->nr,
                      0);
        return (double)kernels->mr * kernels->nr * ZI_KC;
    }
    const zi_cpu_packed *f = job->family;
    int64_t chunks[] = {0, 1 * f->mr * ZI_CHUNK, 2 * f->mr * ZI_CHUNK, 3 * f->mr * ZI_CHUNK};
    zi_cpu_tiles tiles = {
        .a = job->a,
        .a_block = 4 * f->mr * ZI_CHUNK,
        .a_row = ZI_CHUNK,
        .a_chunks = chunks,
        .b = job->b,
        .c = job->c,
        .c_row = f->nr * 4,
        .rows = RATE_BLOCKS * f->mr,
        .panels = 1,
        .chunks = 4,
    };
    f->product(&tiles);
    return 4.0 * zi_cpu_numbers_a_chunk(f->b) * RATE_BLOCKS * f->mr * f->nr;
}

/* Seconds of this thread's processor time. */
static double now(void)
{
    struct timespec time;
    clock_gettime(CLOCK_THREAD_CPUTIME_ID, &time);
    return (double)time.tv_sec + 1e-9 * (double)time.tv_nsec;
}

/* Multiplications a second of one thread, the best of several tries; about a millisecond. */
static double measure_rate(const zi_cpu_kernels *kernels, const zi_cpu_packed *family)
{
    _Alignas(64) static const uint8_t operands[RATE_BLOCKS * 4 * ZI_PACKED_MR_MAX * ZI_CHUNK]; /* zeros */
    _Alignas(64) uint8_t sums[RATE_BLOCKS * ZI_PACKED_MR_MAX * ZI_PACKED_NR_MAX * 4];
    rate_job job = {kernels, family, (uint8_t *)operands, (uint8_t *)operands, sums};
    double best = 0;
    for (int i = 0; i < RATE_REPEATS; i++) {
        double start = now(), seconds, products = 0;
        do {
            products += rate_product(&job);
            seconds = now() - start;
        } while (seconds < RATE_SECONDS);
        best = products / seconds > best ? products / seconds : best;
    }
    return best;
}

/* The best bf16 family; one for an instruction that some chips run slowly only where it beats the one before. */
static const zi_cpu_packed *choose_bf16(const zi_cpu_kernels *kernels, uint32_t features)
{
    const zi_cpu_packed *best = best_packed(zi_cpu_packed_bf16, features);
    if (best->feature != ZI_CPU_AVX512_BF16)
        return best;
    const zi_cpu_packed *other = best_packed(zi_cpu_packed_bf16, features & ~(1u << ZI_CPU_AVX512_BF16));
    return measure_rate(kernels, best) > CLEARLY_FASTER * measure_rate(kernels, other) ? best : other;
}

static void choose_families(zi_cpu *cpu, zi_compute compute, uint32_t features)
{
    if (compute == ZI_COMPUTE_F32)
        return;
    const zi_cpu_packed *bf16 = choose_bf16(cpu->kernels, features);
    int faster = compute == ZI_COMPUTE_BF16 ||
                 measure_rate(cpu->kernels, bf16) > CLEARLY_FASTER * measure_rate(cpu->kernels, NULL);
    cpu->bf16 = faster ? bf16 : NULL;
    cpu->linear = compute == ZI_COMPUTE_INT8 ? best_packed(zi_cpu_packed_int8, features) : cpu->bf16;
}

/* ------------------------------------------------------------------------------------------------------------------ */

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
    choose_families(cpu, options->compute, features);
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

#define SCALES 64 /* groups unpacked at a time */

/* Numbers [first, first + count) of a packed matrix. Whole groups of 4 or 8 bits take the kernel. */
static void unpack_grouped(const zi_cpu_kernels *kernels, const zi_weight *w, int64_t first, int64_t count, float *out)
{
    if ((w->bits == 4 || w->bits == 8) && w->scale_dtype != ZI_F32) {
        int64_t before = zi_min(count, zi_round_up(first, w->group) - first);
        zi_weight_unpack(w, first, before, out);
        first += before;
        count -= before;
        out += before;
        size_t size = zi_dtype_size(w->scale_dtype);
        for (int64_t groups; (groups = zi_min(SCALES, count / w->group)) > 0;) {
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
            unpack_grouped(kernels, weight, (row + r) * length + first, count, buffer + r * count);
        else
            kernels->unpack(weight->dtype, data + (size_t)(r * length) * size, count, buffer + r * count);
    }
    *ld = count;
    return buffer;
}
