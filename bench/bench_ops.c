/*
 * Times the CPU backend's products, attention and convolutions beside the multiply-add peak of the same threads,
 * measured in the same run:
 *   cmake --build build/release --target bench_ops && build/release/bench_ops [threads [mask or - [part of a name
 *   [f32, auto, bf16 or int8]]]]
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "cpu/cpu.h"
#include "cpu/table.h"

#define REPEATS 7

static zi_pool *pool;
static zimage_error error = ZIMAGE_ERROR_INIT;
static zi_run run = {.error = &error};
static double peak;
static const char *filter = "";

/* With one thread the CPU time, which other programs disturb less. */
static double now(void)
{
    struct timespec time;
    clock_gettime(zi_pool_threads(pool) == 1 ? CLOCK_PROCESS_CPUTIME_ID : CLOCK_MONOTONIC, &time);
    return (double)time.tv_sec + 1e-9 * (double)time.tv_nsec;
}

static void check(zimage_status status)
{
    if (status != ZIMAGE_OK) {
        fprintf(stderr, "%s\n", error.message);
        exit(1);
    }
}

/* The tier's own gemm on a block that stays in L1. */
static void gemm_task(void *arg, int64_t task, int worker)
{
    const zi_cpu_kernels *kernels = zi_cpu_of(&run)->kernels;
    float c[ZI_MR_MAX * ZI_NR_MAX], a[ZI_MR_MAX * 64] = {0}, b[ZI_NR_MAX * 64] = {0};
    const float *rows[ZI_MR_MAX * 64];
    for (int i = 0; i < ZI_MR_MAX * 64; i++)
        rows[i] = a + i % ZI_MR_MAX;
    for (int i = 0; i < 20000; i++)
        kernels->gemm(1, 64, rows, 0, 0, b, c, kernels->nr, 0);
}

static double best_rate(void (*task)(void *arg, int64_t index, int worker), double operations)
{
    double best = 0;
    for (int i = 0; i < REPEATS; i++) {
        double start = now();
        zi_pool_run(pool, task, NULL, zi_pool_threads(pool));
        double rate = zi_pool_threads(pool) * operations / (now() - start);
        best = rate > best ? rate : best;
    }
    return best;
}

static void measure_peak(void)
{
    const zi_cpu_kernels *kernels = zi_cpu_of(&run)->kernels;
    double loop = best_rate(gemm_task, 20000.0 * 64 * 2 * kernels->mr * kernels->nr);
    for (int i = 0; i < REPEATS; i++) {
        double rate = zi_ops_cpu_peak(&run);
        peak = rate > peak ? rate : peak;
    }
    printf("tier %s, %d threads: peak %.1f GFLOP/s (gemm in L1: %.1f)\n", kernels->name, zi_pool_threads(pool),
           peak * 1e-9, loop * 1e-9);
}

/* The packed gemm alone, with operands in L1, then with one or both of them in L2: shows what limits it. */
static void bench_levels(const zi_packed_gemm *f)
{
    static const struct {
        const char *what;
        int64_t blocks, panels, chunks;
    } levels[] = {{"all in L1", 1, 1, 4},        {"all in L1, whole blocks", 1, 1, 8},
                  {"weights from L2", 2, 16, 8}, {"activations from L2", 24, 1, 8},
                  {"both from L2", 8, 4, 8},     {"both from L2, deep", 8, 4, 60}};
    for (size_t i = 0; i < sizeof(levels) / sizeof(levels[0]); i++) {
        int64_t rows = levels[i].blocks * f->mr, panels = levels[i].panels, chunks = levels[i].chunks, places[64];
        size_t a = (size_t)(rows * chunks * ZI_CHUNK), b = (size_t)(panels * chunks * f->nr * ZI_CHUNK);
        size_t c = (size_t)(panels * rows * f->nr * 4);
        uint8_t *data = aligned_alloc(64, zi_round_up((int64_t)(a + b + c), 64));
        if (data == NULL)
            exit(1);
        for (size_t k = 0; k < a + b + c; k++)
            data[k] = k % 2 ? 0x3c : (uint8_t)(k * 13); /* small numbers, as bf16 and as int8 */
        for (int64_t k = 0; k < chunks; k++)
            places[k] = k * f->mr * ZI_CHUNK;
        zi_cpu_tiles tiles = {.a = data,
                              .a_block = f->mr * chunks * ZI_CHUNK,
                              .a_row = ZI_CHUNK,
                              .a_chunks = places,
                              .b = data + a,
                              .b_panel = chunks * f->nr * ZI_CHUNK,
                              .c = data + a + b,
                              .c_panel = rows * f->nr * 4,
                              .c_row = f->nr * 4,
                              .rows = rows,
                              .panels = panels,
                              .chunks = chunks};
        double numbers = f->b == ZI_NUMBER_BF16 || f->b == ZI_NUMBER_I16 ? 32 : 64;
        double operations = 2.0 * (double)(rows * panels * f->nr * chunks) * numbers, best = 0;
        int64_t calls = 1 + (int64_t)(2e9 / operations);
        for (int k = 0; k < REPEATS; k++) {
            double start = now();
            for (int64_t j = 0; j < calls; j++)
                f->product(&tiles);
            double rate = (double)calls * operations / (now() - start);
            best = rate > best ? rate : best;
        }
        printf("%s, %-33s %20.1f Gop/s %5.1f %%\n", f->name, levels[i].what, best * 1e-9,
               100 * best * zi_pool_threads(pool) / peak);
        free(data);
    }
}

static zi_tensor tensor(int dims, const int64_t *shape)
{
    zi_tensor t;
    check(zi_table(&run)->alloc(&run, &t, dims, shape));
    for (int64_t i = 0; i < zi_tensor_count(&t); i++)
        zi_f32(&t)[i] = (float)(i * 7919 % 1009) / 1009 - 0.5f;
    return t;
}

static zi_weight weight(zi_dtype dtype, int dims, const int64_t *shape)
{
    zi_weight w = {.name = "bench", .dtype = dtype, .dims = dims};
    memcpy(w.shape, shape, (size_t)dims * sizeof(*shape));
    size_t scales = 0;
    if (dtype == ZI_GROUPED) { /* MLX's 4 bits, groups of 32, bf16 scales */
        w.bits = 4;
        w.group = 32;
        w.scale_dtype = ZI_BF16;
        w.bytes = (size_t)zi_weight_count(&w) / 2;
        scales = (size_t)zi_weight_count(&w) / 32 * 2;
    } else {
        w.bytes = (size_t)zi_weight_count(&w) * zi_dtype_size(dtype);
    }
    uint8_t *data = malloc(w.bytes + 2 * scales);
    if (data == NULL)
        exit(1);
    w.scales = data + w.bytes;
    w.biases = w.scales + scales;
    for (size_t i = 0; i < w.bytes + 2 * scales; i++)
        data[i] = i % 2 ? 0x3c : (uint8_t)(i * 13);
    w.data = data;
    return w;
}

typedef struct timed {
    zi_tensor y, x, k, v;
    zi_weight w, w3;
    zi_attention shape;
    zi_conv conv;
    zimage_status (*call)(const struct timed *timed);
} timed;

static void report(const char *what, const timed *r, double operations)
{
    double best = 1e9;
    if (strstr(what, filter) == NULL)
        return;
    for (int i = 0; i < REPEATS; i++) {
        double start = now();
        check(r->call(r));
        double seconds = now() - start;
        best = seconds < best ? seconds : best;
    }
    printf("%-44s %9.3f ms %8.1f GFLOP/s %5.1f %%\n", what, best * 1e3, operations / best * 1e-9,
           100 * operations / best / peak);
    fflush(stdout);
}

static zimage_status call_linear(const timed *r)
{
    zi_tensor y = r->y;
    return zi_table(&run)->linear(&run, &y, &r->x, &r->w, NULL, 0);
}

static zimage_status call_glu(const timed *r)
{
    zi_tensor y = r->y;
    return zi_table(&run)->linear_glu(&run, &y, &r->x, &r->w, &r->w3);
}

static zimage_status call_attention(const timed *r)
{
    zi_tensor y = r->y;
    return zi_table(&run)->attention(&run, &y, &r->x, &r->k, &r->v, &r->shape);
}

static zimage_status call_conv(const timed *r)
{
    zi_tensor y = r->y;
    return zi_table(&run)->conv2d(&run, &y, &r->x, &r->conv);
}

static void bench_linear(int64_t tokens, int64_t out, int64_t in, zi_dtype dtype, int glu)
{
    char what[80];
    zi_arena_mark mark = zi_table(&run)->mark(&run);
    timed r = {.call = glu ? call_glu : call_linear};
    r.x = tensor(ZI_SHAPE(tokens, in));
    r.y = tensor(ZI_SHAPE(tokens, out));
    r.w = weight(dtype, ZI_SHAPE(out, in));
    r.w3 = r.w;
    snprintf(what, sizeof(what), "%s %d x %dx%d %s", glu ? "glu" : "linear", (int)tokens, (int)out, (int)in,
             zi_dtype_name(dtype));
    report(what, &r, (glu ? 4.0 : 2.0) * (double)tokens * (double)out * (double)in);
    free((void *)r.w.data);
    zi_table(&run)->release(&run, mark);
}

static void bench_attention(int64_t tokens, int64_t heads, int64_t dim)
{
    char what[80];
    zi_arena_mark mark = zi_table(&run)->mark(&run);
    int64_t shape[] = {tokens, heads * dim};
    timed r = {.call = call_attention, .shape = {.heads = heads, .kv_heads = heads, .head_dim = dim}};
    r.x = tensor(2, shape);
    r.k = tensor(2, shape);
    r.v = tensor(2, shape);
    r.y = tensor(2, shape);
    snprintf(what, sizeof(what), "attention %d tokens, %d heads of %d", (int)tokens, (int)heads, (int)dim);
    report(what, &r, 4.0 * (double)(tokens * tokens * heads * dim));
    zi_table(&run)->release(&run, mark);
}

static void bench_conv(int64_t side, int64_t in, int64_t out, int64_t size, int affine, int upsample)
{
    char what[80];
    zi_arena_mark mark = zi_table(&run)->mark(&run);
    zi_channel_affine fold = {tensor(1, &in), tensor(1, &in)};
    timed r = {.call = call_conv};
    r.w = weight(ZI_F32, ZI_SHAPE(out, in, size, size));
    r.x = tensor(ZI_SHAPE(side, side, in));
    r.y = tensor(ZI_SHAPE(side << upsample, side << upsample, out));
    r.conv = zi_conv_same(&r.w, NULL);
    r.conv.affine = affine ? &fold : NULL;
    r.conv.upsample = upsample;
    r.conv.image_rows = side;
    snprintf(what, sizeof(what), "conv %dx%d %dx%d, %d -> %d%s%s", (int)size, (int)size, (int)side, (int)side, (int)in,
             (int)out, affine ? ", SiLU" : "", upsample ? ", doubled" : "");
    report(what, &r, 2.0 * (double)(zi_row_count(&r.y) * size * size * in * out));
    free((void *)r.w.data);
    zi_table(&run)->release(&run, mark);
}

static zimage_compute compute_named(const char *name)
{
    zimage_compute compute;
    if (zimage_compute_parse(name, &compute) && compute != ZIMAGE_COMPUTE_FP8)
        return compute;
    fprintf(stderr, "compute type: \"%s\", expected f32, auto, bf16 or int8\n", name);
    exit(2);
}

int main(int argc, char **argv)
{
    check(zi_pool_new(argc > 1 ? atoi(argv[1]) : 0, &pool, &error));
    zi_cpu_options options = {
        .mask = argc > 2 && strcmp(argv[2], "-") != 0 ? argv[2] : NULL,
        .compute = argc > 4 ? compute_named(argv[4]) : ZIMAGE_COMPUTE_F32,
    };
    check(zi_ops_cpu_new(pool, &options, &run.ops, &error));
    filter = argc > 3 ? argv[3] : "";
    tensor(ZI_SHAPE(16)); /* keeps the arena from being empty, as in a job */
    measure_peak();
    const zi_packed_gemm *gemm = zi_cpu_of(&run)->linear;
    if (gemm != NULL && strstr("levels", filter) != NULL)
        bench_levels(gemm);
    bench_linear(288, 384, 384, ZI_F32, 0);
    bench_linear(288, 1024, 384, ZI_F32, 0);
    bench_linear(288, 384, 1024, ZI_F32, 0);
    bench_linear(288, 1024, 384, ZI_F32, 1);
    bench_linear(288, 3840, 3840, ZI_BF16, 0);
    bench_linear(288, 3840, 3840, ZI_F16, 0);
    bench_linear(288, 3840, 3840, ZI_F32, 0);
    bench_linear(288, 10240, 3840, ZI_BF16, 1);
    bench_linear(288, 3840, 10240, ZI_BF16, 0);
    bench_linear(1056, 3840, 3840, ZI_F32, 0);
    bench_linear(1056, 3840, 3840, ZI_BF16, 0);
    bench_linear(1056, 10240, 3840, ZI_BF16, 1);
    bench_linear(1056, 3840, 10240, ZI_BF16, 0);
    bench_linear(288, 3840, 3840, ZI_GROUPED, 0);
    bench_linear(1056, 3840, 3840, ZI_GROUPED, 0);
    bench_linear(1, 15360, 256, ZI_F32, 0);
    bench_linear(1, 15360, 256, ZI_BF16, 0);
    bench_linear(1, 3840, 3840, ZI_BF16, 0);
    bench_linear(1, 3840, 3840, ZI_GROUPED, 0);
    bench_linear(64, 3840, 2560, ZI_BF16, 0);
    bench_linear(64, 3840, 2560, ZI_GROUPED, 0);
    bench_attention(288, 6, 64);
    bench_attention(288, 30, 128);
    bench_attention(1056, 30, 128);
    bench_attention(4160, 30, 128);
    bench_attention(1024, 1, 512);
    bench_conv(32, 16, 512, 3, 0, 0);
    bench_conv(32, 512, 512, 3, 1, 0);
    bench_conv(32, 512, 512, 3, 0, 1);
    bench_conv(64, 512, 256, 3, 1, 0);
    bench_conv(64, 512, 256, 1, 0, 0);
    bench_conv(128, 256, 256, 3, 1, 0);
    bench_conv(128, 64, 64, 3, 1, 0);
    bench_conv(256, 128, 128, 3, 1, 0);
    bench_conv(256, 128, 3, 3, 1, 0);
    printf("peak memory %.1f MiB\n", (double)zi_table(&run)->peak_bytes(run.ops) / 1048576);
    zi_table(&run)->free(run.ops);
    zi_pool_free(pool);
    return 0;
}
