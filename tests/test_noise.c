/* Noise against torch, MLX and NumPy (tests/golden/noise.safetensors) and the numbers of docs/spec/rng.md. */
#include "fixture.h"
#include "sampler/noise.h"

static zi_store *golden;

static int open_golden(void **state)
{
    golden = fixture_open("noise.safetensors");
    return 0;
}

static int close_golden(void **state)
{
    zi_store_free(golden);
    return 0;
}

/* Compares and prints the largest |ours - want| and how many differ. tolerance: absolute up to 1, relative above. */
static void compare(const char *name, const float *ours, const float *want, size_t count, double tolerance)
{
    double worst = 0;
    size_t different = 0;
    for (size_t i = 0; i < count; i++) {
        double error = fabs((double)ours[i] - want[i]) / fmax(1, fabs(want[i]));
        if (!(error <= worst))
            worst = isnan(error) ? INFINITY : error;
        different += ours[i] != want[i];
    }
    char line[128], note[64];
    const char *dot = strchr(name, '.');
    assert_non_null(dot);
    snprintf(line, sizeof line, "host: noise of %.*s: %s", (int)(dot - name), name, dot + 1);
    snprintf(note, sizeof note, " (%zu of %zu equal)", count - different, count);
    parity_line(line, worst, tolerance, note);
}

static void compare_named(const char *name, const float *ours, double tolerance)
{
    size_t count;
    float *want = fixture_floats(golden, name, &count);
    compare(name, ours, want, count, tolerance);
    free(want);
}

static double golden_double(const char *name, size_t index)
{
    double value;
    memcpy(&value, fixture_find(golden, name)->data + index * sizeof value, sizeof value);
    return value;
}

/* Compares a long draw: its first and last numbers, every 1021st, and its sums. */
static void compare_big(const char *name, const float *ours, size_t count, double tolerance)
{
    char full[128];
    float samples[257];
    double sum = 0, sum_abs = 0;
    snprintf(full, sizeof full, "%s.first", name);
    compare_named(full, ours, tolerance);
    snprintf(full, sizeof full, "%s.last", name);
    compare_named(full, ours + count - 16, tolerance);
    for (size_t i = 0; i < 257; i++)
        samples[i] = ours[i * 1021];
    snprintf(full, sizeof full, "%s.every1021", name);
    compare_named(full, samples, tolerance);
    for (size_t i = 0; i < count; i++) {
        sum += ours[i];
        sum_abs += fabs(ours[i]);
    }
    snprintf(full, sizeof full, "%s.sum_abs", name);
    double want_abs = golden_double(full, 0);
    assert_true(fabs(sum_abs - want_abs) <= 1e-6 * want_abs);
    snprintf(full, sizeof full, "%s.sum", name);
    assert_true(fabs(sum - golden_double(full, 0)) <= 1e-6 * want_abs);
}

/* The first numbers of a seed. */
static void draw(zimage_rng kind, uint64_t seed, float *out, int64_t count)
{
    zi_noise noise;
    zi_noise_seed(&noise, kind, seed);
    zi_noise_next(&noise, ZI_NOISE_LATENTS, 0, out, count);
}

/* Expected to equal torch in every bit on CPUs with AVX2; the tolerance is 2e-7. */
#define TORCH_TOLERANCE 2e-7

static void test_torch_cpu(void **state)
{
    static const uint64_t seeds[] = {0, 42, 1234567890123u, 4294967338u, 9223372036854775813u, 18446744073709551615u};
    static const int counts[] = {7, 16, 33, 1, 2, 15, 17, 20, 31, 32, 1000};
    float out[1000];
    for (size_t s = 0; s < sizeof seeds / sizeof *seeds; s++)
        for (size_t n = 0; n < (seeds[s] == 42 ? 11 : 3); n++) {
            char name[128];
            snprintf(name, sizeof name, "torch_cpu.seed%llu.n%d", (unsigned long long)seeds[s], counts[n]);
            draw(ZIMAGE_RNG_TORCH_CPU, seeds[s], out, counts[n]);
            compare_named(name, out, TORCH_TOLERANCE);
        }
}

static void draw_in_turn(const char *prefix, uint64_t seed, const int *counts, int draws)
{
    zi_noise noise;
    float out[64];
    zi_noise_seed(&noise, ZIMAGE_RNG_TORCH_CPU, seed);
    for (int i = 0; i < draws; i++) {
        char name[128];
        snprintf(name, sizeof name, "%s.%d.n%d", prefix, i, counts[i]);
        zi_noise_next(&noise, i % 2 ? ZI_NOISE_LATENTS : ZI_NOISE_POSTERIOR, 0, out, counts[i]);
        compare_named(name, out, TORCH_TOLERANCE);
    }
}

static void test_torch_cpu_in_turn(void **state)
{
    static const int mixed[] = {8, 16, 20, 3, 5, 16}, mixed0[] = {1, 40, 1, 2};
    draw_in_turn("torch_cpu.mixed", 42, mixed, 6);
    draw_in_turn("torch_cpu.mixed0", 0, mixed0, 4);
}

static void test_torch_cpu_long(void **state)
{
    static float out[262148];
    draw(ZIMAGE_RNG_TORCH_CPU, 42, out, 262144);
    compare_big("torch_cpu.seed42.n262144", out, 262144, TORCH_TOLERANCE);
    draw(ZIMAGE_RNG_TORCH_CPU, 42, out, 262148);
    compare_big("torch_cpu.seed42.n262148", out, 262148, TORCH_TOLERANCE);
}

static void test_torch_cpu_bf16(void **state)
{
    static const int counts[] = {8, 16, 32, 40, 4096};
    static float out[4096];
    for (int i = 0; i < 5; i++) {
        zi_noise noise;
        char name[128];
        zi_noise_seed(&noise, ZIMAGE_RNG_TORCH_CPU, 42);
        zi_noise_next(&noise, ZI_NOISE_LATENTS, 1, out, counts[i]);
        snprintf(name, sizeof name, "torch_cpu_bf16.seed42.n%d", counts[i]);
        compare_named(name, out, 0);
    }
}

static void test_torch_cuda(void **state)
{
    static float out[262144];
    uint64_t offset = 0;
    zi_torch_cuda_randn(42, &offset, 0, out, 8);
    compare_named("torch_cuda.seed42.n8.first", out, 3e-6);
    assert_int_equal(offset, 4);
    zi_torch_cuda_randn(42, &offset, 132 * 2048, out, 262144);
    compare_named("torch_cuda.seed42.then.n262144.first", out, 3e-6);
    assert_int_equal(offset, 8);
}

/* A generator's second draw begins where its first ended. */
static void test_torch_cuda_in_turn(void **state)
{
    static float out[262144];
    zi_noise noise;
    zi_noise_seed(&noise, ZIMAGE_RNG_TORCH_CUDA, 42);
    zi_noise_next(&noise, ZI_NOISE_POSTERIOR, 0, out, 8);
    compare_named("torch_cuda.seed42.n8.first", out, 3e-6);
    zi_noise_next(&noise, ZI_NOISE_LATENTS, 0, out, 262144);
    compare_named("torch_cuda.seed42.then.n262144.first", out, 3e-6);
}

/* Drawn in bf16 by the kinds whose numbers are only rounded. */
static void test_rounded(void **state)
{
    static const zimage_rng kinds[] = {ZIMAGE_RNG_TORCH_CUDA, ZIMAGE_RNG_MLX, ZIMAGE_RNG_NUMPY};
    for (int k = 0; k < 3; k++) {
        zi_noise exact, rounded;
        float a[33], b[33];
        zi_noise_seed(&exact, kinds[k], 7);
        zi_noise_seed(&rounded, kinds[k], 7);
        for (int draw = 0; draw < 2; draw++) {
            zi_noise_next(&exact, ZI_NOISE_LATENTS, 0, a, 33);
            zi_noise_next(&rounded, ZI_NOISE_LATENTS, 1, b, 33);
            for (int i = 0; i < 33; i++) {
                uint32_t bits;
                memcpy(&bits, &b[i], sizeof bits);
                assert_int_equal(bits & 0xffff, 0);
                assert_true(fabsf(a[i] - b[i]) <= fabsf(a[i]) / 256);
            }
        }
    }
}

/* With T threads and more elements, element i + T k is the k-th number of thread i; the offset counts the rounds. */
static void test_torch_cuda_few_threads(void **state)
{
    float several[3000], one[256];
    uint64_t offset = 0, first = 0, second = 4;
    zi_torch_cuda_randn(7, &offset, 512, several, 3000);
    assert_int_equal(offset, 8);
    zi_torch_cuda_randn(7, &first, 0, one, 256);
    assert_memory_equal(several, one, sizeof one);
    zi_torch_cuda_randn(7, &second, 0, one, 256);
    assert_memory_equal(several + 2048, one, sizeof one);
}

static void mlx_seed(uint64_t seed)
{
    static const int counts[] = {1, 8, 9, 1000}, in_turn[] = {8, 9, 33};
    unsigned long long printed = seed;
    uint32_t key[2], split[4], next[2], sub[2];
    float out[1000];
    char name[128];

    zi_mlx_key(seed, key);
    snprintf(name, sizeof name, "mlx.key%llu.split", printed);
    memcpy(split, fixture_find(golden, name)->data, sizeof split);
    zi_mlx_split(key, next, sub);
    assert_memory_equal(next, split, sizeof next);
    assert_memory_equal(sub, split + 2, sizeof sub);
    snprintf(name, sizeof name, "mlx.key%llu.uniform.n9", printed);
    zi_mlx_uniform(key, out, 9);
    compare_named(name, out, 0);
    for (int i = 0; i < 4; i++) {
        snprintf(name, sizeof name, "mlx.key%llu.n%d", printed, counts[i]);
        draw(ZIMAGE_RNG_MLX, seed, out, counts[i]);
        compare_named(name, out, 5e-7);
    }
    zi_noise noise; /* the first call without a key takes the sub-key of the seed's */
    zi_noise_seed(&noise, ZIMAGE_RNG_MLX, seed);
    zi_noise_next(&noise, ZI_NOISE_POSTERIOR, 0, out, 8);
    snprintf(name, sizeof name, "mlx.seed%llu.0.n8", printed);
    compare_named(name, out, 5e-7);
    zi_noise_next(&noise, ZI_NOISE_LATENTS, 0, out, 9);
    snprintf(name, sizeof name, "mlx.key%llu.n9", printed);
    compare_named(name, out, 5e-7);
    for (int i = 0; i < 3; i++) { /* without a key every call splits the global key */
        zi_mlx_split(key, next, sub);
        memcpy(key, next, sizeof key);
        snprintf(name, sizeof name, "mlx.seed%llu.%d.n%d", printed, i, in_turn[i]);
        zi_mlx_normal(sub, out, in_turn[i]);
        compare_named(name, out, 5e-7);
    }
}

static void test_mlx(void **state)
{
    static float out[262144];
    mlx_seed(0);
    mlx_seed(42);
    mlx_seed(1099511627783u);
    draw(ZIMAGE_RNG_MLX, 42, out, 262144);
    compare_big("mlx.key42.n262144", out, 262144, 5e-7);
}

static void test_numpy(void **state)
{
    static const uint64_t seeds[] = {0, 42, 4294967295u};
    static float out[262144];
    for (int s = 0; s < 3; s++) {
        char name[128];
        float want[37];
        for (size_t i = 0; i < 37; i++) {
            snprintf(name, sizeof name, "numpy.seed%llu.%s", (unsigned long long)seeds[s], i < 33 ? "n33" : "then.n4");
            want[i] = (float)golden_double(name, i < 33 ? i : i - 33);
        }
        zi_noise noise;
        zi_noise_seed(&noise, ZIMAGE_RNG_NUMPY, seeds[s]);
        zi_noise_next(&noise, ZI_NOISE_POSTERIOR, 0, out, 33);
        zi_noise_next(&noise, ZI_NOISE_LATENTS, 0, out + 33, 4);
        snprintf(name, sizeof name, "numpy.seed%llu", (unsigned long long)seeds[s]);
        compare(name, out, want, 37, 0);
    }
    draw(ZIMAGE_RNG_NUMPY, 42, out, 262144);
    compare_big("numpy.seed42.n262144", out, 262144, 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_torch_cpu),
        cmocka_unit_test(test_torch_cpu_in_turn),
        cmocka_unit_test(test_torch_cpu_long),
        cmocka_unit_test(test_torch_cpu_bf16),
        cmocka_unit_test(test_torch_cuda),
        cmocka_unit_test(test_torch_cuda_in_turn),
        cmocka_unit_test(test_torch_cuda_few_threads),
        cmocka_unit_test(test_rounded),
        cmocka_unit_test(test_mlx),
        cmocka_unit_test(test_numpy),
    };
    return cmocka_run_group_tests(tests, open_golden, close_golden);
}
