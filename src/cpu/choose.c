/* Chooses the kernels of a backend: by the features of the CPU and, for AVX-512 BF16, by measurement. Measures
 * rates. */
#include <stdio.h>
#include <time.h>

#include "base/clock.h"
#include "cpu/cpu.h"
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

/* The best tier is the last one that can run. */
static const zi_cpu_kernels *best_tier(uint32_t features)
{
    const zi_cpu_kernels *best = tiers[0];
    for (int i = 0; i < TIERS; i++)
        if (usable(features, tiers[i]->feature))
            best = tiers[i];
    return best;
}

static const zi_packed_gemm *best_gemm(const zi_packed_gemm *const *gemms, uint32_t features)
{
    const zi_packed_gemm *best = NULL;
    for (; *gemms != NULL; gemms++)
        if (usable(features, (*gemms)->feature))
            best = *gemms;
    return best;
}

/* ---- choosing by measurement ------------------------------------------------------------------------------------- */

#define RATE_BLOCKS    4 /* of mr tokens */
#define RATE_REPEATS   7
#define PEAK_REPEATS   12
#define RATE_CALLS     64   /* between readings of the clock, each of which takes as long as a product */
#define RATE_SECONDS   1e-4 /* of a repeat, at least */
#define CLEARLY_FASTER 1.2  /* times as fast: more than noise */

typedef struct rate_job {
    const zi_cpu_kernels *kernels;
    const zi_packed_gemm *gemm; /* or NULL: float32 */
    uint8_t *a, *b, *c;
} rate_job;

/* One product of operands in L1. Returns its number of multiplications. */
static double rate_product(const rate_job *job)
{
    if (job->gemm == NULL) {
        const zi_cpu_kernels *kernels = job->kernels;
        const float *rows[ZI_MR_MAX];
        for (int r = 0; r < kernels->mr; r++)
            rows[r] = (const float *)(const void *)job->a + r * ZI_KC;
        kernels->gemm(1, ZI_KC, rows, 0, 0, (const float *)(const void *)job->b, (float *)(void *)job->c, kernels->nr,
                      0);
        return (double)kernels->mr * kernels->nr * ZI_KC;
    }
    const zi_packed_gemm *f = job->gemm;
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
    return 4.0 * zi_numbers_per_chunk(f->b) * RATE_BLOCKS * f->mr * f->nr;
}

/* CPU time of this thread, in seconds. */
static double thread_seconds(void)
{
    struct timespec time;
    clock_gettime(CLOCK_THREAD_CPUTIME_ID, &time);
    return (double)time.tv_sec + 1e-9 * (double)time.tv_nsec;
}

/* Multiplications a second of one thread, the best of several tries. Takes about a millisecond. */
static double measure_rate(const zi_cpu_kernels *kernels, const zi_packed_gemm *gemm)
{
    _Alignas(64) static const uint8_t operands[RATE_BLOCKS * 4 * ZI_PACKED_MR_MAX * ZI_CHUNK]; /* zeros */
    _Alignas(64) uint8_t sums[RATE_BLOCKS * ZI_PACKED_MR_MAX * ZI_PACKED_NR_MAX * 4];
    rate_job job = {kernels, gemm, (uint8_t *)operands, (uint8_t *)operands, sums};
    double best = 0;
    for (int i = 0; i < RATE_REPEATS; i++) {
        double start = thread_seconds(), seconds, products = 0;
        do {
            for (int call = 0; call < RATE_CALLS; call++)
                products += rate_product(&job);
            seconds = thread_seconds() - start;
        } while (seconds < RATE_SECONDS);
        best = products / seconds > best ? products / seconds : best;
    }
    return best;
}

typedef double peak_function(int64_t rounds, float *sink);

/* Operations a second of multiply-adds in registers, in one try of some 20 us. */
static double peak_rate(peak_function *peak)
{
    float sink = 0;
    double start = zi_now(), operations = peak(1 << 13, &sink);
    double seconds = zi_now() - start;
    return seconds > 0 ? operations / seconds : 0;
}

/*
 * Compares the best of several tries. The tries of a and b alternate: where two threads share a core, other work halves
 * the rates of some tries, and must not meet all tries of a and none of b.
 */
static int is_clearly_faster(peak_function *a, peak_function *b)
{
    double best_a = 0, best_b = 0;
    for (int i = 0; i < PEAK_REPEATS; i++) {
        double rate_a = peak_rate(a), rate_b = peak_rate(b);
        best_a = rate_a > best_a ? rate_a : best_a;
        best_b = rate_b > best_b ? rate_b : best_b;
    }
    return best_a > CLEARLY_FASTER * best_b;
}

/*
 * Whether ZIMAGE_COMPUTE_AUTO means bf16. Matrix instructions are many times as fast as float32 on every chip that has
 * them. AVX-512 BF16 has either twice or half the rate of float32, so the measurement always gives the same answer on
 * the same chip, and the same seed the same image.
 */
static int bf16_is_fast(const zi_cpu_kernels *kernels, const zi_packed_gemm *gemm)
{
    if (gemm->feature == ZI_CPU_AVX512_BF16)
        return is_clearly_faster(gemm->peak, kernels->peak);
    return gemm->feature == ZI_CPU_AMX_BF16 || gemm->feature == ZI_CPU_NEON_BF16;
}

void zi_cpu_choose(zi_cpu *cpu, zimage_compute compute, uint32_t features)
{
    cpu->kernels = best_tier(features);
    cpu->linear = cpu->bf16 = NULL;
    if (compute == ZIMAGE_COMPUTE_F32)
        return;
    const zi_packed_gemm *bf16 = best_gemm(zi_packed_gemms_bf16, features);
    cpu->bf16 = compute == ZIMAGE_COMPUTE_BF16 || bf16_is_fast(cpu->kernels, bf16) ? bf16 : NULL;
    cpu->linear = compute == ZIMAGE_COMPUTE_INT8 ? best_gemm(zi_packed_gemms_int8, features) : cpu->bf16;
}

/* ---- naming ------------------------------------------------------------------------------------------------------ */

const char *zi_ops_cpu_tier(const zi_ops *ops)
{
    return ((const zi_cpu *)ops)->kernels->name;
}

zimage_compute zi_ops_cpu_compute(const zi_ops *ops)
{
    const zi_cpu *cpu = (const zi_cpu *)ops;
    if (cpu->linear == NULL)
        return ZIMAGE_COMPUTE_F32;
    return cpu->linear == cpu->bf16 ? ZIMAGE_COMPUTE_BF16 : ZIMAGE_COMPUTE_INT8;
}

void zi_ops_cpu_describe(const zi_ops *ops, char *text, size_t size)
{
    const zi_cpu *cpu = (const zi_cpu *)ops;
    int other = cpu->linear != NULL && cpu->linear != cpu->bf16;
    snprintf(text, size, "%s%s%s%s%s", cpu->kernels->name, other ? ", " : "", other ? cpu->linear->name : "",
             cpu->bf16 != NULL ? ", " : "", cpu->bf16 != NULL ? cpu->bf16->name : "");
}

int zi_cpu_set_at(int index, uint32_t features, zi_cpu_set *set)
{
    const zi_packed_gemm *const *lists[] = {zi_packed_gemms_bf16, zi_packed_gemms_int8};
    if (index < TIERS) {
        *set = (zi_cpu_set){tiers[index]->name, usable(features, tiers[index]->feature), tiers[index], NULL};
        return 1;
    }
    index -= TIERS;
    for (int i = 0; i < 2; i++)
        for (const zi_packed_gemm *const *f = lists[i]; *f != NULL; f++)
            if (index-- == 0) {
                *set = (zi_cpu_set){(*f)->name, usable(features, (*f)->feature), best_tier(features), *f};
                return 1;
            }
    return 0;
}

double zi_cpu_set_rate(const zi_cpu_set *set)
{
    return 2 * measure_rate(set->kernels, set->gemm);
}

/* ---- the registers' peak ----------------------------------------------------------------------------------------- */

typedef struct peak_run {
    peak_function *peak;
    int64_t rounds;
    float *rates; /* of the tasks, one a thread: operations a second */
} peak_run;

static void peak_task(void *arg, int64_t task, int worker)
{
    const peak_run *run = arg;
    float sink = (float)task;
    double start = zi_now(), operations = run->peak(run->rounds, &sink);
    run->rates[task] = (float)(operations / (zi_now() - start));
}

/* Adds the rates of the threads: a slower core only counts for itself, because faster threads take more tasks. */
double zi_ops_cpu_peak(zi_run *run)
{
    const zi_cpu *cpu = zi_cpu_of(run);
    int threads = zi_pool_threads(cpu->pool);
    peak_run peak = {cpu->linear != NULL ? cpu->linear->peak : cpu->kernels->peak, 1 << 12, NULL};
    zi_arena_mark mark = zi_host_mark(run);
    double seconds = 0, rate = 0;
    if (zi_host_floats(run, threads, "the peak", &peak.rates) != ZIMAGE_OK)
        return 0;
    for (; seconds < 0.01 && peak.rounds < (int64_t)1 << 40; peak.rounds *= 2) { /* the shorter runs warm the threads */
        double start = zi_now();
        zi_pool_run(cpu->pool, peak_task, &peak, threads);
        seconds = zi_now() - start;
    }
    for (int i = 0; i < threads; i++)
        rate += peak.rates[i];
    zi_host_release(run, mark);
    return rate;
}
