/* Formulas: docs/spec/rng.md; each heading below names its section. */
#include "sampler/noise.h"

#include <math.h>
#include <string.h>

#include "ops/tensor.h"

#define PI 3.14159265358979323846

static float from_bits(uint32_t bits)
{
    float value;
    memcpy(&value, &bits, sizeof value);
    return value;
}

static uint32_t to_bits(float value)
{
    uint32_t bits;
    memcpy(&bits, &value, sizeof bits);
    return bits;
}

/* ---- mt19937 (docs/spec/rng.md 1.1) ------------------------------------------------------------------------------ */

void zi_torch_cpu_seed(zi_torch_cpu_rng *rng, uint64_t seed)
{
    rng->state[0] = (uint32_t)seed;
    for (uint32_t j = 1; j < 624; j++)
        rng->state[j] = 1812433253u * (rng->state[j - 1] ^ (rng->state[j - 1] >> 30)) + j;
    rng->next = 624;
    rng->has_cached = 0;
    rng->cached = 0;
}

static uint32_t mix(uint32_t high, uint32_t low, uint32_t other)
{
    uint32_t mixed = (high & 0x80000000u) | (low & 0x7fffffffu);
    return other ^ (mixed >> 1) ^ (mixed & 1 ? 0x9908b0dfu : 0);
}

static void twist(uint32_t state[624])
{
    for (int i = 0; i < 227; i++)
        state[i] = mix(state[i], state[i + 1], state[i + 397]);
    for (int i = 227; i < 623; i++)
        state[i] = mix(state[i], state[i + 1], state[i - 227]);
    state[623] = mix(state[623], state[0], state[396]);
}

static uint32_t next_u32(zi_torch_cpu_rng *rng)
{
    if (rng->next == 624) {
        twist(rng->state);
        rng->next = 0;
    }
    uint32_t y = rng->state[rng->next++];
    y ^= y >> 11;
    y ^= (y << 7) & 0x9d2c5680u;
    y ^= (y << 15) & 0xefc60000u;
    return y ^ (y >> 18);
}

static uint64_t next_u64(zi_torch_cpu_rng *rng)
{
    uint64_t high = next_u32(rng);
    return high << 32 | next_u32(rng);
}

/* ---- torch on a CPU ---------------------------------------------------------------------------------------------- */

/*
 * The natural logarithm of x in (0, 1]. Logarithm, sine and cosine are those of torch's AVX2 build: the polynomials of
 * Cephes for single precision, with fused multiply-adds where torch's compiler made them (docs/spec/rng.md 1.2,
 * tools/golden/README.md). So they equal torch's in every bit; the functions of libm do not.
 */
static inline __attribute__((always_inline)) float cephes_log(float x)
{
    static const float coefficients[] = {7.0376836292E-2f,  -1.1514610310E-1f, 1.1676998740E-1f,
                                         -1.2420140846E-1f, 1.4249322787E-1f,  -1.6668057665E-1f,
                                         2.0000714765E-1f,  -2.4999993993E-1f, 3.3333331174E-1f};
    uint32_t bits = to_bits(x);
    float exponent = (float)((int)(bits >> 23) - 126);
    x = from_bits((bits & 0x007fffffu) | 0x3f000000u); /* [0.5, 1) */
    if (x < 0.707106781186547524f) {
        exponent -= 1.0f;
        x = (x - 1.0f) + x;
    } else {
        x -= 1.0f;
    }
    float z = x * x, y = coefficients[0];
    for (int i = 1; i < 9; i++)
        y = fmaf(y, x, coefficients[i]);
    y = fmaf(y * x, z, exponent * -2.12194440e-4f);
    y = fmaf(-z, 0.5f, y);
    return fmaf(exponent, 0.693359375f, x + y);
}

/* x in [0, 2 pi] */
static inline __attribute__((always_inline)) void cephes_sincos(float x, float *sine, float *cosine)
{
    int octant = ((int)(x * 1.27323954473516f) + 1) & ~1;
    float y = (float)octant;
    x = fmaf(y, -0.78515625f, x);
    x = fmaf(y, -2.4187564849853515625e-4f, x);
    x = fmaf(y, -3.77489497744594108e-8f, x);
    float z = x * x;
    float c = fmaf(fmaf(2.443315711809948E-5f, z, -1.388731625493765E-3f), z, 4.166664568298827E-2f) * z;
    c = fmaf(c, z, -(z * 0.5f)) + 1.0f;
    float s = fmaf(fmaf(-1.9515295891E-4f, z, 8.3321608736E-3f), z, -1.6666654611E-1f) * z;
    s = fmaf(s, x, x);
    int swapped = octant & 2;
    *sine = swapped ? c : s;
    *cosine = swapped ? s : c;
    if (octant & 4)
        *sine = -*sine;
    if ((octant + 2) & 4)
        *cosine = -*cosine;
}

/* Turns 16 uniform numbers into 16 normal ones: Box-Muller on the pairs (block[j], block[j + 8]). */
static inline __attribute__((always_inline)) void box_muller(float *block)
{
    for (int j = 0; j < 8; j++) {
        float radius = sqrtf(-2.0f * cephes_log(1.0f - block[j])), sine, cosine;
        cephes_sincos((float)(2 * PI) * block[j + 8], &sine, &cosine);
        block[j] = radius * cosine + 0.0f; /* torch adds the mean 0, which makes -0 to +0 */
        block[j + 8] = radius * sine + 0.0f;
    }
}

static void normal_block(float *block)
{
    box_muller(block);
}

/* The same bits, but faster: without the target attribute fmaf is a function call. */
#ifdef __x86_64__
__attribute__((target("avx2,fma"))) static void normal_block_fma(float *block)
{
    box_muller(block);
}

static int has_fma(void)
{
    return __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma");
}
#else
#define normal_block_fma normal_block

static int has_fma(void)
{
    return 0;
}
#endif

/* Box-Muller with every intermediate result rounded to bf16 (docs/spec/rng.md 1.4). */
static void normal_block_bf16(float *block)
{
    for (int j = 0; j < 8; j++) {
        float logarithm = zi_round_bf16(logf(zi_round_bf16(1.0f - block[j])));
        float radius = zi_round_bf16(sqrtf(zi_round_bf16(-2.0f * logarithm)));
        float theta = zi_round_bf16((float)(2 * PI) * block[j + 8]);
        block[j] = zi_round_bf16(radius * zi_round_bf16(cosf(theta)));
        block[j + 8] = zi_round_bf16(radius * zi_round_bf16(sinf(theta)));
    }
}

/*
 * For fewer than 16 numbers torch makes one at a time, in double precision, and keeps the second of a pair for the next
 * call (docs/spec/rng.md 1.3).
 */
static double next_normal(zi_torch_cpu_rng *rng)
{
    if (rng->has_cached) {
        rng->has_cached = 0;
        return rng->cached;
    }
    const double scale = 1.0 / 9007199254740992.0; /* 2^-53 */
    double u1 = (double)(next_u64(rng) & 0x1fffffffffffffu) * scale;
    double u2 = (double)(next_u64(rng) & 0x1fffffffffffffu) * scale;
    double radius = sqrt(-2.0 * log1p(-u2)), theta = 2.0 * PI * u1;
    rng->cached = radius * sin(theta);
    rng->has_cached = 1;
    return radius * cos(theta);
}

/*
 * Uniform numbers of `bits` random bits, turned into normal ones in blocks of 16. If count is not a multiple of 16,
 * torch draws the last 16 numbers a second time (docs/spec/rng.md 1.2).
 */
static void fill_blocks(zi_torch_cpu_rng *rng, float *out, int64_t count, int bits, void (*normal)(float *block))
{
    const uint32_t mask = (1u << bits) - 1;
    const float scale = 1.0f / (float)(1u << bits);
    for (int64_t i = 0; i < count; i++)
        out[i] = (float)(next_u32(rng) & mask) * scale;
    for (int64_t i = 0; i + 16 <= count; i += 16)
        normal(out + i);
    if (count % 16 == 0)
        return;
    float *tail = out + count - 16;
    for (int i = 0; i < 16; i++)
        tail[i] = (float)(next_u32(rng) & mask) * scale;
    normal(tail);
}

void zi_torch_cpu_randn(zi_torch_cpu_rng *rng, float *out, int64_t count)
{
    if (count >= 16)
        fill_blocks(rng, out, count, 24, has_fma() ? normal_block_fma : normal_block);
    else
        for (int64_t i = 0; i < count; i++)
            out[i] = (float)next_normal(rng);
}

void zi_torch_cpu_randn_bf16(zi_torch_cpu_rng *rng, float *out, int64_t count)
{
    if (count >= 16)
        fill_blocks(rng, out, count, 8, normal_block_bf16);
    else
        for (int64_t i = 0; i < count; i++)
            out[i] = zi_round_bf16((float)next_normal(rng));
}

/* ---- torch on CUDA: philox 4x32-10 (docs/spec/rng.md 2) ---------------------------------------------------------- */

static void philox(uint64_t seed, uint64_t counter, uint64_t thread, uint32_t out[4])
{
    uint32_t key[2] = {(uint32_t)seed, (uint32_t)(seed >> 32)};
    uint32_t c[4] = {(uint32_t)counter, (uint32_t)(counter >> 32), (uint32_t)thread, (uint32_t)(thread >> 32)};
    for (int round = 0; round < 10; round++) {
        uint64_t p0 = (uint64_t)c[0] * 0xD2511F53u, p1 = (uint64_t)c[2] * 0xCD9E8D57u;
        uint32_t next[4] = {(uint32_t)(p1 >> 32) ^ c[1] ^ key[0], (uint32_t)p1, (uint32_t)(p0 >> 32) ^ c[3] ^ key[1],
                            (uint32_t)p0};
        memcpy(c, next, sizeof c);
        key[0] += 0x9E3779B9u;
        key[1] += 0xBB67AE85u;
    }
    memcpy(out, c, sizeof c);
}

/* As _curand_box_muller of cuRAND: the sine comes first. */
static void cuda_box_muller(uint32_t g0, uint32_t g1, float out[2])
{
    const float unit = 2.3283064365386963e-10f; /* 2^-32 */
    const float angle = (float)(2 * PI) * unit;
    float u = fmaf((float)g0, unit, unit / 2), v = fmaf((float)g1, angle, angle / 2);
    float radius = sqrtf(-2.0f * logf(u));
    out[0] = radius * sinf(v);
    out[1] = radius * cosf(v);
}

void zi_torch_cuda_randn(uint64_t seed, uint64_t *offset, int64_t threads, float *out, int64_t count)
{
    if (count <= 0)
        return;
    int64_t blocks = (count + 255) / 256;
    if (threads >= 256 && threads / 256 < blocks)
        blocks = threads / 256;
    int64_t stride = blocks * 256, rounds = (count - 1) / (4 * stride) + 1;
    for (int64_t round = 0; round < rounds; round++)
        for (int64_t thread = 0; thread < stride; thread++) {
            int64_t first = thread + round * 4 * stride;
            if (first >= count)
                break;
            uint32_t g[4];
            float normals[4];
            philox(seed, *offset / 4 + (uint64_t)round, (uint64_t)thread, g);
            cuda_box_muller(g[0], g[1], normals);
            cuda_box_muller(g[2], g[3], normals + 2);
            for (int64_t k = 0; k < 4 && first + k * stride < count; k++)
                out[first + k * stride] = normals[k];
        }
    *offset += 4 * (uint64_t)rounds;
}

/* ---- MLX: threefry 2x32 (docs/spec/rng.md 3) --------------------------------------------------------------------- */

static uint32_t rotate_left(uint32_t x, int by)
{
    return x << by | x >> (32 - by);
}

static void threefry(const uint32_t key[2], uint32_t a, uint32_t b, uint32_t out[2])
{
    static const int rotations[2][4] = {{13, 15, 26, 6}, {17, 29, 16, 24}};
    const uint32_t ks[3] = {key[0], key[1], key[0] ^ key[1] ^ 0x1BD11BDAu};
    a += ks[0];
    b += ks[1];
    for (uint32_t group = 0; group < 5; group++) {
        for (int round = 0; round < 4; round++) {
            a += b;
            b = rotate_left(b, rotations[group % 2][round]) ^ a;
        }
        a += ks[(group + 1) % 3];
        b += ks[(group + 2) % 3] + group + 1;
    }
    out[0] = a;
    out[1] = b;
}

void zi_mlx_key(uint64_t seed, uint32_t key[2])
{
    key[0] = (uint32_t)(seed >> 32);
    key[1] = (uint32_t)seed;
}

void zi_mlx_split(const uint32_t key[2], uint32_t next[2], uint32_t sub[2])
{
    uint32_t first[2], second[2]; /* bits(key, 4): counters (0, 2) and (1, 3) */
    threefry(key, 0, 2, first);
    threefry(key, 1, 3, second);
    next[0] = first[0];
    next[1] = second[0];
    sub[0] = first[1];
    sub[1] = second[1];
}

static float mlx_unit(uint32_t bits)
{
    const float largest = 0.99999994f; /* 1 - 2^-24 */
    float u = (float)bits * 2.3283064365386963e-10f;
    return u < largest ? u : largest;
}

void zi_mlx_uniform(const uint32_t key[2], float *out, int64_t count)
{
    int64_t half = (count + 1) / 2;
    for (int64_t i = 0; i < count / 2; i++) {
        uint32_t pair[2];
        threefry(key, (uint32_t)i, (uint32_t)(i + half), pair);
        out[i] = mlx_unit(pair[0]);
        out[i + half] = mlx_unit(pair[1]);
    }
    if (count % 2 != 0) {
        uint32_t pair[2];
        threefry(key, (uint32_t)(count / 2), 0, pair);
        out[count / 2] = mlx_unit(pair[0]);
    }
}

/* The inverse of erf, as in mlx/backend/metal/kernels/erf.h. */
static float mlx_erfinv(float v)
{
    static const float far[] = {3.03697567e-10f, 2.93243101e-8f, 1.22150334e-6f,  2.84108955e-5f, 3.93552968e-4f,
                                3.02698812e-3f,  4.83185798e-3f, -2.64646143e-1f, 8.40016484e-1f};
    static const float near[] = {5.43877832e-9f,  1.43285448e-7f, 1.22774793e-6f, 1.12963626e-7f,  -5.61530760e-5f,
                                 -1.47697632e-4f, 2.31468678e-3f, 1.15392581e-2f, -2.32015476e-1f, 8.86226892e-1f};
    float t = logf(fmaf(v, -v, 1.0f));
    int is_far = fabsf(t) > 6.125f;
    const float *coefficients = is_far ? far : near;
    int degree = is_far ? 8 : 9;
    float p = coefficients[0];
    for (int i = 1; i <= degree; i++)
        p = fmaf(p, t, coefficients[i]);
    return v * p;
}

void zi_mlx_normal(const uint32_t key[2], float *out, int64_t count)
{
    const float low = -0.99999994f; /* the float32 above -1 */
    zi_mlx_uniform(key, out, count);
    for (int64_t i = 0; i < count; i++)
        out[i] = 1.41421356237309504880f * mlx_erfinv(2.0f * out[i] + low);
}

/* ---- NumPy's legacy generator (docs/spec/rng.md 4) --------------------------------------------------------------- */

static double numpy_double(zi_torch_cpu_rng *rng)
{
    uint32_t high = next_u32(rng) >> 5, low = next_u32(rng) >> 6;
    return (high * 67108864.0 + low) / 9007199254740992.0;
}

/* Marsaglia's polar method; NumPy returns the second number of each pair first. */
static double numpy_normal(zi_torch_cpu_rng *rng)
{
    double x1, x2, r2;
    if (rng->has_cached) {
        rng->has_cached = 0;
        return rng->cached;
    }
    do {
        x1 = 2.0 * numpy_double(rng) - 1.0;
        x2 = 2.0 * numpy_double(rng) - 1.0;
        r2 = x1 * x1 + x2 * x2;
    } while (r2 >= 1.0 || r2 == 0.0);
    double factor = sqrt(-2.0 * log(r2) / r2);
    rng->cached = factor * x1;
    rng->has_cached = 1;
    return factor * x2;
}

void zi_numpy_randn(zi_torch_cpu_rng *rng, float *out, int64_t count)
{
    for (int64_t i = 0; i < count; i++)
        out[i] = (float)numpy_normal(rng);
}

/* ---- the choice -------------------------------------------------------------------------------------------------- */

void zi_noise_seed(zi_noise *noise, zimage_rng kind, uint64_t seed)
{
    *noise = (zi_noise){.kind = kind, .seed = seed};
    zi_torch_cpu_seed(&noise->rng, seed);
}

static void mlx_next(uint64_t seed, zi_noise_use use, float *out, int64_t count)
{
    uint32_t key[2], next[2], sub[2];
    zi_mlx_key(seed, key);
    zi_mlx_split(key, next, sub);
    zi_mlx_normal(use == ZI_NOISE_LATENTS ? key : sub, out, count);
}

void zi_noise_next(zi_noise *noise, zi_noise_use use, int in_bf16, float *out, int64_t count)
{
    switch (noise->kind) {
    case ZIMAGE_RNG_TORCH_CUDA:
        zi_torch_cuda_randn(noise->seed, &noise->offset, 0, out, count);
        break;
    case ZIMAGE_RNG_MLX:
        mlx_next(noise->seed, use, out, count);
        break;
    case ZIMAGE_RNG_NUMPY:
        zi_numpy_randn(&noise->rng, out, count);
        break;
    case ZIMAGE_RNG_TORCH_CPU:
        (in_bf16 ? zi_torch_cpu_randn_bf16 : zi_torch_cpu_randn)(&noise->rng, out, count);
        return;
    }
    for (int64_t i = 0; in_bf16 && i < count; i++)
        out[i] = zi_round_bf16(out[i]);
}
