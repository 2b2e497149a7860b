/*
 * Vectors of LANES floats for the kernels of one tier, and everything in those kernels that depends on the instruction
 * set. The tier's file defines LANES first:
 *   16   AVX-512 F, BW, DQ, VL
 *    8   AVX2 and FMA
 *    4   SSE2 on x86-64, NEON on arm64, elsewhere whatever the compiler makes of GCC's vector types
 * Only LANES decides which branch is compiled, so a build for a newer CPU (-march=native) does not change a tier.
 */
#ifndef ZI_CPU_VECTORS_H
#define ZI_CPU_VECTORS_H

#include <math.h>
#include <stdint.h>
#include <string.h>
#if LANES > 4
#include <immintrin.h>
#endif

#include "cpu/kernels.h"

#define LOG2_E 1.44269504088896341f

typedef float vf __attribute__((vector_size(4 * LANES)));
typedef int32_t vi __attribute__((vector_size(4 * LANES)));
typedef uint32_t vu __attribute__((vector_size(4 * LANES)));
typedef uint16_t vh __attribute__((vector_size(2 * LANES)));
typedef int8_t vc __attribute__((vector_size(LANES)));
typedef double vd __attribute__((vector_size(8 * LANES)));
typedef float vf_memory __attribute__((vector_size(4 * LANES), aligned(4), may_alias));
typedef uint16_t vw __attribute__((vector_size(4 * LANES))); /* 2 * LANES numbers of 16 bits */
typedef int16_t vs __attribute__((vector_size(4 * LANES)));
typedef uint32_t u4 __attribute__((vector_size(16)));
typedef float v4 __attribute__((vector_size(16)));
typedef float v4_memory __attribute__((vector_size(16), aligned(4), may_alias));

/* ---- loading and storing ----------------------------------------------------------------------------------------- */

static inline vf load(const float *p)
{
    return *(const vf_memory *)p;
}

static inline void store(float *p, vf v)
{
    *(vf_memory *)p = v;
}

/* All lanes x. GCC and clang turn x - 0 into a single broadcast whatever surrounds it, and x - 0 is x. */
static inline vf splat(float x)
{
    return x - (vf){0};
}

/* The next LANES of n floats, or all n of them with zeros behind. */
static inline vf load_part(const float *p, int64_t n)
{
    if (n >= LANES)
        return load(p);
    vf v = {0};
    memcpy(&v, p, (size_t)n * sizeof(float));
    return v;
}

/* The first n lanes, at most LANES. */
static inline void store_part(float *p, vf v, int64_t n)
{
    if (n >= LANES)
        store(p, v);
    else
        memcpy(p, &v, (size_t)n * sizeof(float));
}

/* The same, non-temporal if `mode` says so and the vector is a whole cache line. */
static inline void store_part_as(zi_cpu_store mode, float *p, vf v, int64_t n)
{
#if LANES == 16
    if (mode == ZI_STORE_NON_TEMPORAL && n >= LANES && (uintptr_t)p % 64 == 0) {
        _mm512_stream_ps(p, (__m512)v);
        return;
    }
#endif
    store_part(p, v, n);
}

/* After this call other threads may read what non-temporal stores have written. */
static inline void fence_stores(void)
{
#if LANES == 16
    _mm_sfence();
#endif
}

/* ---- comparing and adding lanes ---------------------------------------------------------------------------------- */

static inline vf choose(vi mask, vf yes, vf no)
{
    return (vf)((mask & (vi)yes) | (~mask & (vi)no));
}

/* The larger; b if either is NaN. */
static inline vf larger(vf a, vf b)
{
#if LANES == 16
    return (vf)_mm512_max_ps((__m512)a, (__m512)b);
#elif LANES == 8
    return (vf)_mm256_max_ps((__m256)a, (__m256)b);
#else
    return choose(a > b, a, b);
#endif
}

static inline vi larger_integer(vi a, vi b)
{
#if LANES == 16
    return (vi)_mm512_max_epi32((__m512i)a, (__m512i)b);
#else
    vi above = a > b;
    return (above & a) | (~above & b);
#endif
}

/* The larger of each pair of 16-bit numbers below 2^15. */
static inline vw larger_halves(vw a, vw b)
{
#if LANES == 16
    return (vw)_mm512_max_epu16((__m512i)a, (__m512i)b);
#else
    vs above = (vs)a > (vs)b;
    return (vw)((above & (vs)a) | (~above & (vs)b));
#endif
}

/* The sum of the lanes: adds the two halves, then the halves of the result, and so on, in every tier. */
static inline float sum_lanes(vf v)
{
#if LANES == 16
    return _mm512_reduce_add_ps((__m512)v);
#else
    float pairs[LANES / 2];
    FOR_UNROLLED(i, LANES / 2)
        pairs[i] = v[i] + v[i + LANES / 2];
    UNROLL
    for (int half = LANES / 4; half > 0; half /= 2)
        FOR_UNROLLED(i, half)
            pairs[i] += pairs[i + half];
    return pairs[0];
#endif
}

static inline float max_lanes(vf v)
{
#if LANES == 16
    return _mm512_reduce_max_ps((__m512)v);
#else
    float top = v[0];
    for (int lane = 1; lane < LANES; lane++)
        top = v[lane] > top ? v[lane] : top;
    return top;
#endif
}

/* A set of lanes. */
#if LANES == 16
typedef __mmask16 lane_set;

static inline lane_set not_finite(vf v)
{
    const __m512i exponent = _mm512_set1_epi32(0x7f800000);
    return _mm512_cmpeq_epi32_mask(_mm512_and_si512((__m512i)v, exponent), exponent);
}

static inline int any_lane(lane_set set)
{
    return set != 0;
}
#else
typedef vi lane_set;

static inline lane_set not_finite(vf v)
{
    return ((vi)v & 0x7f800000) == 0x7f800000;
}

static inline int any_lane(lane_set set)
{
    for (int lane = 0; lane < LANES; lane++)
        if (set[lane])
            return 1;
    return 0;
}
#endif

/* ---- float32 and narrower numbers -------------------------------------------------------------------------------- */

static inline vf from_bf16(vh bits)
{
    return (vf)(__builtin_convertvector(bits, vu) << 16);
}

/* A multiplication moves the exponent: it is exact, and right for subnormal numbers too. Then infinities and NaN. */
static inline vf from_f16(vh bits)
{
    vu wide = __builtin_convertvector(bits, vu);
    vu magnitude = (wide & 0x7fff) << 13;
    vu result = (vu)((vf)magnitude * splat(0x1p112f));
    result |= (vu)((vi)magnitude >= 0x7c00 << 13) & 0x7f800000;
    return (vf)(result | (wide & 0x8000) << 16);
}

/* The low 16 bits, and the low 8 bits, of each lane. low_bytes needs numbers within +-127, because AVX2 saturates.
 * Without intrinsics a compiler would move lane by lane. */
#if LANES == 16
static inline vh low_halves(vi v)
{
    return (vh)_mm512_cvtepi32_epi16((__m512i)v);
}

static inline vc low_bytes(vi v)
{
    return (vc)_mm512_cvtepi32_epi8((__m512i)v);
}
#elif LANES == 8
static inline vh low_halves(vi v)
{
    const __m256i order = _mm256_setr_epi8(0, 1, 4, 5, 8, 9, 12, 13, 0, 1, 4, 5, 8, 9, 12, 13, 0, 1, 4, 5, 8, 9, 12, 13,
                                           0, 1, 4, 5, 8, 9, 12, 13);
    return (vh)_mm256_castsi256_si128(_mm256_permute4x64_epi64(_mm256_shuffle_epi8((__m256i)v, order), 0x08));
}

static inline vc low_bytes(vi v)
{
    __m128i halves = (__m128i)low_halves(v);
    return (vc)_mm_cvtsi128_si64(_mm_packs_epi16(halves, halves));
}
#else
static inline vh low_halves(vi v)
{
    return __builtin_convertvector((vu)v, vh);
}

static inline vc low_bytes(vi v)
{
    return __builtin_convertvector(v, vc);
}
#endif

/* The lanes of a, but of `quiet` where x is NaN. */
static inline vu quiet_nan(vf x, vu a, vu quiet)
{
#if LANES == 16
    return (vu)_mm512_mask_mov_epi32((__m512i)a, _mm512_cmp_ps_mask((__m512)x, (__m512)x, _CMP_UNORD_Q),
                                     (__m512i)quiet);
#else
    vi nan = x != x;
    return (vu)((nan & (vi)quiet) | (~nan & (vi)a));
#endif
}

/* The upper half of each lane becomes x rounded to bf16, to nearest, ties to even. x is not NaN. The lower half is left
 * over. */
static inline vu round_upper(vf x)
{
    vu bits = (vu)x;
    return bits + 0x7fff + (bits >> 16 & 1);
}

/* To nearest, ties to even; a NaN stays one. */
static inline vh to_bf16(vf x)
{
    return low_halves((vi)quiet_nan(x, round_upper(x) >> 16, (vu)x >> 16 | 0x40));
}

/* To nearest, ties to even, for |x| < 2^22. */
static inline vi to_integer(vf x)
{
#if LANES == 16
    return (vi)_mm512_cvtps_epi32((__m512)x);
#else
    const vf magic = splat(0x1.8p23f);
    return (vi)(x + magic) - (vi)magic;
#endif
}

/* Stores LANES numbers of a chunk. Integers must lie within +-127. */
ALWAYS_INLINE void put_packed(zi_cpu_number number, vf v, uint8_t *out)
{
    if (number == ZI_NUMBER_BF16) {
        vh bits = to_bf16(v);
        memcpy(out, &bits, sizeof(bits));
    } else if (number == ZI_NUMBER_I16) {
        vh bits = low_halves(to_integer(v));
        memcpy(out, &bits, sizeof(bits));
    } else {
        vc bits = low_bytes(to_integer(v));
        if (number == ZI_NUMBER_U8)
            bits ^= (int8_t)-128;
        memcpy(out, &bits, sizeof(bits));
    }
}

/* LANES unsigned numbers of 4 bits. Without AVX-512 each lane takes the word that holds its number, and shifts it
 * down. */
static inline vf from_4_bits(const uint8_t *src)
{
#if LANES == 16
    __m128i pairs = _mm_loadl_epi64((const __m128i *)(const void *)src), mask = _mm_set1_epi8(15);
    __m128i odd = _mm_and_si128(_mm_srli_epi16(pairs, 4), mask);
    vi numbers = (vi)_mm512_cvtepu8_epi32(_mm_unpacklo_epi8(_mm_and_si128(pairs, mask), odd));
#else
    u4 words = {0};
    memcpy(&words, src, LANES / 2);
#if LANES == 8
    const vu shifts = {0, 4, 8, 12, 16, 20, 24, 28};
    vi numbers = (vi)(__builtin_shufflevector(words, words, 0, 0, 0, 0, 0, 0, 0, 0) >> shifts & 15);
#else
    const vu shifts = {0, 4, 8, 12};
    vi numbers = (vi)(__builtin_shufflevector(words, words, 0, 0, 0, 0) >> shifts & 15);
#endif
#endif
    return __builtin_convertvector(numbers, vf);
}

/* LANES unsigned numbers of 8 bits. */
static inline vf from_8_bits(const uint8_t *src)
{
#if LANES == 16
    vi numbers = (vi)_mm512_cvtepu8_epi32(_mm_loadu_si128((const __m128i *)(const void *)src));
#elif LANES == 8
    vi numbers = (vi)_mm256_cvtepu8_epi32(_mm_loadl_epi64((const __m128i *)(const void *)src));
#else
    const vu shifts = {0, 8, 16, 24};
    u4 words = {0};
    memcpy(&words, src, LANES);
    vi numbers = (vi)(__builtin_shufflevector(words, words, 0, 0, 0, 0) >> shifts & 255);
#endif
    return __builtin_convertvector(numbers, vf);
}

/* Narrows lanes to 16 bits, negative ones to 0: four of a, four of b, the next four of a, and so on. */
static inline vu interleave_fours(vi a, vi b)
{
#if LANES == 16
    return (vu)_mm512_packus_epi32((__m512i)a, (__m512i)b);
#elif LANES == 8
    return (vu)_mm256_packus_epi32((__m256i)a, (__m256i)b);
#else
    vh halves[2] = {__builtin_convertvector((vu)(a & (a > 0)), vh), __builtin_convertvector((vu)(b & (b > 0)), vh)};
    vu both;
    memcpy(&both, halves, sizeof(both));
    return both;
#endif
}

/* ---- exponentials ------------------------------------------------------------------------------------------------ */

/*
 * e^x = 2^n e^r with n = round(x / ln 2), |r| <= ln 2 / 2; the polynomial is Cephes' expf (S. Moshier): below 2 ulp.
 * Below -87.3 the result is 0, above 88.3 it stays at e^88.3; NaN passes.
 */
static inline vf exp_vector(vf x)
{
    const vf low = splat(-87.3f), high = splat(88.3f);
#if LANES == 16
    __mmask16 normal = _mm512_cmp_ps_mask((__m512)x, (__m512)low, _CMP_NLT_UQ);
    x = (vf)_mm512_min_ps((__m512)high, (__m512)x);
    vf n = (vf)_mm512_roundscale_ps((__m512)(x * splat(LOG2_E)), _MM_FROUND_TO_NEAREST_INT);
#else
    const vf magic = splat(0x1.8p23f);
    vi tiny = x < low;
    x = choose(tiny, low, x);
    x = choose(x > high, high, x);
    vf z = x * splat(LOG2_E) + magic; /* n in the low bits */
    vf n = z - magic;
#endif
    vf r = x - n * splat(0.693359375f);
    r = r - n * splat(-2.12194440e-4f);
    vf p = splat(1.9875691500e-4f);
    p = p * r + splat(1.3981999507e-3f);
    p = p * r + splat(8.3334519073e-3f);
    p = p * r + splat(4.1665795894e-2f);
    p = p * r + splat(1.6666665459e-1f);
    p = p * r + splat(5.0000001201e-1f);
    p = p * (r * r) + r + splat(1.0f);
#if LANES == 16
    return (vf)_mm512_maskz_scalef_ps(normal, (__m512)p, (__m512)n);
#else
    vf power = (vf)(((vu)z - (vu)magic + 127) << 23);
    return (vf)((vi)(p * power) & ~tiny);
#endif
}

/* 2^x for x <= 0, at least 2^-126; NaN passes. The polynomial for |r| <= 1/2 is Cephes' exp2f: below 2 ulp. */
static inline vf exp2_vector(vf x)
{
    x = larger(splat(-126.0f), x);
#if LANES == 16
    vf n = (vf)_mm512_roundscale_ps((__m512)x, _MM_FROUND_TO_NEAREST_INT);
#else
    vf z = x + splat(0x1.8p23f), n = z - splat(0x1.8p23f); /* n in the low bits of z */
#endif
    vf r = x - n, p = splat(1.535336188319500e-4f);
    p = p * r + splat(1.339887440266574e-3f);
    p = p * r + splat(9.618437357674640e-3f);
    p = p * r + splat(5.550332471162809e-2f);
    p = p * r + splat(2.402264791363012e-1f);
    p = p * r + splat(6.931472028550421e-1f);
    p = p * r + splat(1.0f);
#if LANES == 16
    return (vf)_mm512_scalef_ps((__m512)p, (__m512)n);
#else
    return p * (vf)(((vu)z - (vu)splat(0x1.8p23f) + 127) << 23);
#endif
}

static inline vf silu_vector(vf x)
{
    return x / (splat(1.0f) + exp_vector(-x));
}

/* ---- transposing ------------------------------------------------------------------------------------------------- */

#if LANES == 16
/* Transposes 16 rows of 16 lanes: the columns become rows of the panel, `width` floats apart. */
ALWAYS_INLINE void store_transposed(__m512 a[16], float *panel, int64_t width)
{
    __m512 b[16];
    FOR_UNROLLED_BY(i, 16, 2) {
        b[i] = _mm512_unpacklo_ps(a[i], a[i + 1]);
        b[i + 1] = _mm512_unpackhi_ps(a[i], a[i + 1]);
    }
    FOR_UNROLLED_BY(i, 16, 4)
        FOR_UNROLLED(j, 2) { /* a[i + c]: column c of every four, of rows i .. i + 3 */
            __m512d low = _mm512_castps_pd(b[i + j]), high = _mm512_castps_pd(b[i + 2 + j]);
            a[i + 2 * j] = _mm512_castpd_ps(_mm512_unpacklo_pd(low, high));
            a[i + 2 * j + 1] = _mm512_castpd_ps(_mm512_unpackhi_pd(low, high));
        }
    FOR_UNROLLED(c, 4) {
        __m512 low = _mm512_shuffle_f32x4(a[c], a[4 + c], 0x88), low2 = _mm512_shuffle_f32x4(a[c], a[4 + c], 0xdd);
        __m512 high = _mm512_shuffle_f32x4(a[8 + c], a[12 + c], 0x88);
        __m512 high2 = _mm512_shuffle_f32x4(a[8 + c], a[12 + c], 0xdd);
        _mm512_storeu_ps(panel + c * width, _mm512_shuffle_f32x4(low, high, 0x88));
        _mm512_storeu_ps(panel + (4 + c) * width, _mm512_shuffle_f32x4(low2, high2, 0x88));
        _mm512_storeu_ps(panel + (8 + c) * width, _mm512_shuffle_f32x4(low, high, 0xdd));
        _mm512_storeu_ps(panel + (12 + c) * width, _mm512_shuffle_f32x4(low2, high2, 0xdd));
    }
}
#endif

/* Transposes the inputs that whole squares in registers cover, if all `width` rows are there. Returns how many of the k
 * inputs that are. */
ALWAYS_INLINE int64_t transpose_squares(const float *rows, int64_t ld, int64_t count, int64_t k, float *panel,
                                        const int64_t width)
{
    int64_t done = 0;
#if LANES == 16
    if (width % 16 == 0 && count == width)
        for (; done + 16 <= k; done += 16)
            for (int64_t n = 0; n < width; n += 16) {
                __m512 a[16];
                FOR_UNROLLED(i, 16)
                    a[i] = _mm512_loadu_ps(rows + (n + i) * ld + done);
                store_transposed(a, panel + done * width + n, width);
            }
#endif
    return done;
}

/* Transposes four rows of four inputs. */
static inline void transpose_four(const float *p, int64_t ld, float *q, int64_t width)
{
    v4 a = *(const v4_memory *)p, b = *(const v4_memory *)(p + ld);
    v4 c = *(const v4_memory *)(p + 2 * ld), d = *(const v4_memory *)(p + 3 * ld);
    v4 ab = __builtin_shufflevector(a, b, 0, 4, 1, 5), ab2 = __builtin_shufflevector(a, b, 2, 6, 3, 7);
    v4 cd = __builtin_shufflevector(c, d, 0, 4, 1, 5), cd2 = __builtin_shufflevector(c, d, 2, 6, 3, 7);
    *(v4_memory *)q = __builtin_shufflevector(ab, cd, 0, 1, 4, 5);
    *(v4_memory *)(q + width) = __builtin_shufflevector(ab, cd, 2, 3, 6, 7);
    *(v4_memory *)(q + 2 * width) = __builtin_shufflevector(ab2, cd2, 0, 1, 4, 5);
    *(v4_memory *)(q + 3 * width) = __builtin_shufflevector(ab2, cd2, 2, 3, 6, 7);
}

#endif
