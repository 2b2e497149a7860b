/*
 * The kernels of one tier, in GCC's vectors. Before including it a tier's file defines
 *   LANES   floats a vector      MR   rows of a tile      NV   vectors a tile is wide
 * so that MR x NV sums, NV panel vectors and one factor fit its registers, and KERNELS, NAME and FEATURE.
 * Compiled with -ffp-contract=fast: a * b + c is one rounding where the tier has FMA.
 */
#include <math.h>
#include <string.h>
#if defined(__AVX2__)
#include <immintrin.h>
#endif

#include "cpu/kernels.h"

#define NR     (NV * LANES)
#define LOG2_E 1.44269504088896341f

_Static_assert(MR <= ZI_MR_MAX && NR <= ZI_NR_MAX && NR % 4 == 0, "buffers elsewhere are sized for these");

typedef float vf __attribute__((vector_size(4 * LANES)));
typedef int32_t vi __attribute__((vector_size(4 * LANES)));
typedef uint32_t vu __attribute__((vector_size(4 * LANES)));
typedef uint16_t vh __attribute__((vector_size(2 * LANES)));
typedef int8_t vc __attribute__((vector_size(LANES)));
typedef uint32_t u4 __attribute__((vector_size(16)));
typedef double vd __attribute__((vector_size(8 * LANES)));
typedef float vf_memory __attribute__((vector_size(4 * LANES), aligned(4), may_alias));
typedef float v4 __attribute__((vector_size(16)));
typedef float v4_memory __attribute__((vector_size(16), aligned(4), may_alias));

#if defined(__clang__)
#define UNROLL _Pragma("unroll")
#else
#define UNROLL _Pragma("GCC unroll 16")
#endif

static inline vf load(const float *p)
{
    return *(const vf_memory *)p;
}

static inline void store(float *p, vf v)
{
    *(vf_memory *)p = v;
}

/* x - 0 is x, and the form that GCC and clang turn into a single broadcast whatever surrounds it. */
static inline vf splat(float x)
{
    return x - (vf){0};
}

/* The next up to LANES of n floats; zeros behind them. */
static inline vf take(const float *p, int64_t n)
{
    if (n >= LANES)
        return load(p);
    vf v = {0};
    memcpy(&v, p, (size_t)n * sizeof(float));
    return v;
}

static inline void put(float *p, vf v, int64_t n)
{
    if (n >= LANES)
        store(p, v);
    else
        memcpy(p, &v, (size_t)n * sizeof(float));
}

#if LANES == 16
/* The same order as below, in vectors. */
static inline float sum_lanes(vf v)
{
    return _mm512_reduce_add_ps((__m512)v);
}

static inline float max_lanes(vf v)
{
    return _mm512_reduce_max_ps((__m512)v);
}
#else
static inline float sum_lanes(vf v)
{
    float pairs[LANES / 2];
    UNROLL
    for (int i = 0; i < LANES / 2; i++)
        pairs[i] = v[i] + v[i + LANES / 2];
    UNROLL
    for (int half = LANES / 4; half > 0; half /= 2)
        UNROLL
    for (int i = 0; i < half; i++)
        pairs[i] += pairs[i + half];
    return pairs[0];
}

static inline float max_lanes(vf v)
{
    float top = v[0];
    for (int lane = 1; lane < LANES; lane++)
        top = v[lane] > top ? v[lane] : top;
    return top;
}
#endif

/* The larger; b if either is NaN. */
static inline vf larger(vf a, vf b)
{
#if LANES == 16
    return (vf)_mm512_max_ps((__m512)a, (__m512)b);
#elif LANES == 8
    return (vf)_mm256_max_ps((__m256)a, (__m256)b);
#else
    return (vf)(((a > b) & (vi)a) | (~(a > b) & (vi)b));
#endif
}

static inline vf choose(vi mask, vf yes, vf no)
{
    return (vf)((mask & (vi)yes) | (~mask & (vi)no));
}

/* ---- products ---------------------------------------------------------------------------------------------------- */

static void gemm(int64_t segments, int64_t k, const float *const *a, int64_t step, int64_t offset, const float *b,
                 float *c, int64_t ldc, int accumulate)
{
    vf sums[MR][NV];
    UNROLL
    for (int r = 0; r < MR; r++)
        UNROLL
    for (int j = 0; j < NV; j++)
        sums[r][j] = (vf){0};
    for (int64_t s = 0; s < segments; s++, a += step) {
        const float *rows[MR];
        UNROLL
        for (int r = 0; r < MR; r++)
            rows[r] = a[r] + offset;
        for (int64_t i = 0; i < k; i++, b += NR) {
            vf panel[NV];
            UNROLL
            for (int j = 0; j < NV; j++)
                panel[j] = load(b + j * LANES);
            UNROLL
            for (int r = 0; r < MR; r++) {
                vf x = splat(rows[r][i]);
                UNROLL
                for (int j = 0; j < NV; j++)
                    sums[r][j] += x * panel[j];
            }
        }
    }
    UNROLL
    for (int r = 0; r < MR; r++)
        UNROLL
    for (int j = 0; j < NV; j++) {
        float *p = c + r * ldc + j * LANES;
        store(p, accumulate ? load(p) + sums[r][j] : sums[r][j]);
    }
}

/* Enough independent sums to hide the latency of a multiply-add. */
#define DOT_CHAINS 4

static inline __attribute__((always_inline)) void dot_tokens(const int tokens, int64_t k, const float *x, int64_t ldx,
                                                             const float *w, float *out)
{
    const int chains = tokens == 1 ? DOT_CHAINS : DOT_CHAINS / 2;
    vf sums[ZI_DOT_TOKENS][DOT_CHAINS] = {{{0}}};
    int64_t i = 0;
    for (; i + chains * LANES <= k; i += chains * LANES)
        UNROLL
    for (int t = 0; t < tokens; t++)
        UNROLL
    for (int j = 0; j < chains; j++)
        sums[t][j] += load(x + t * ldx + i + j * LANES) * load(w + i + j * LANES);
    for (; i < k; i += LANES)
        for (int t = 0; t < tokens; t++)
            sums[t][0] += take(x + t * ldx + i, k - i) * take(w + i, k - i);
    for (int t = 0; t < tokens; t++)
        out[t] = sum_lanes((sums[t][0] + sums[t][1]) + (sums[t][2] + sums[t][3]));
}

static void dot(int tokens, int64_t k, const float *x, int64_t ldx, const float *w, float *out)
{
    switch (tokens) {
    case 1:
        dot_tokens(1, k, x, ldx, w, out);
        break;
    case 2:
        dot_tokens(2, k, x, ldx, w, out);
        break;
    case 3:
        dot_tokens(3, k, x, ldx, w, out);
        break;
    default:
        dot_tokens(4, k, x, ldx, w, out);
        break;
    }
}

static inline vf from_bf16(vh bits)
{
    return (vf)(__builtin_convertvector(bits, vu) << 16);
}

/* The exponent is moved by a multiplication, which is exact and makes subnormals right; then Inf and NaN. */
static inline vf from_f16(vh bits)
{
    vu wide = __builtin_convertvector(bits, vu);
    vu magnitude = (wide & 0x7fff) << 13;
    vu result = (vu)((vf)magnitude * splat(0x1p112f));
    result |= (vu)((vi)magnitude >= 0x7c00 << 13) & 0x7f800000;
    return (vf)(result | (wide & 0x8000) << 16);
}

static inline __attribute__((always_inline)) void unpack_halves(vf (*convert)(vh bits), const uint8_t *src,
                                                                int64_t count, float *dst)
{
    vh bits = {0};
    int64_t i = 0;
    for (; i + LANES <= count; i += LANES) {
        memcpy(&bits, src + 2 * i, sizeof(bits));
        store(dst + i, convert(bits));
    }
    if (i < count) {
        memcpy(&bits, src + 2 * i, (size_t)(count - i) * 2);
        put(dst + i, convert(bits), count - i);
    }
}

static void unpack(zi_dtype dtype, const uint8_t *src, int64_t count, float *dst)
{
    if (dtype == ZI_F32)
        memcpy(dst, src, (size_t)count * sizeof(float));
    else if (dtype == ZI_BF16)
        unpack_halves(from_bf16, src, count, dst);
    else
        unpack_halves(from_f16, src, count, dst);
}

/* LANES numbers of 4 or 8 bits. Without an instruction for it each lane gets the word that holds its number and shifts it
 * down. */
#if LANES == 4
#define LANES_OF_8(w) __builtin_shufflevector(w, w, 0, 0, 0, 0)
#define LANES_OF_4(w) LANES_OF_8(w)
#define SHIFTS_4                                                                                                       \
    {                                                                                                                  \
        0, 4, 8, 12                                                                                                    \
    }
#define SHIFTS_8                                                                                                       \
    {                                                                                                                  \
        0, 8, 16, 24                                                                                                   \
    }
#elif LANES == 8
#define LANES_OF_4(w) __builtin_shufflevector(w, w, 0, 0, 0, 0, 0, 0, 0, 0)
#define SHIFTS_4                                                                                                       \
    {                                                                                                                  \
        0, 4, 8, 12, 16, 20, 24, 28                                                                                    \
    }
#endif

static inline vf unpack_4(const uint8_t *src)
{
#if LANES == 16
    __m128i pairs = _mm_loadl_epi64((const __m128i *)(const void *)src), mask = _mm_set1_epi8(15);
    __m128i odd = _mm_and_si128(_mm_srli_epi16(pairs, 4), mask);
    vi numbers = (vi)_mm512_cvtepu8_epi32(_mm_unpacklo_epi8(_mm_and_si128(pairs, mask), odd));
#else
    u4 words = {0};
    memcpy(&words, src, LANES / 2);
    vi numbers = (vi)(LANES_OF_4(words) >> (vu)SHIFTS_4 & 15);
#endif
    return __builtin_convertvector(numbers, vf);
}

static inline vf unpack_8(const uint8_t *src)
{
#if LANES == 16
    vi bytes = (vi)_mm512_cvtepu8_epi32(_mm_loadu_si128((const __m128i *)(const void *)src));
#elif LANES == 8
    vi bytes = (vi)_mm256_cvtepu8_epi32(_mm_loadl_epi64((const __m128i *)(const void *)src));
#else
    u4 words = {0};
    memcpy(&words, src, LANES);
    vi bytes = (vi)(LANES_OF_8(words) >> (vu)SHIFTS_8 & 255);
#endif
    return __builtin_convertvector(bytes, vf);
}

static void unpack_groups(int bits, int64_t group, const uint8_t *src, const float *scales, const float *biases,
                          int64_t groups, float *dst)
{
    for (int64_t g = 0; g < groups; g++) {
        vf scale = splat(scales[g]), bias = splat(biases[g]);
        if (bits == 4)
            for (int64_t i = 0; i < group; i += LANES, src += LANES / 2, dst += LANES)
                store(dst, unpack_4(src) * scale + bias);
        else
            for (int64_t i = 0; i < group; i += LANES, src += LANES, dst += LANES)
                store(dst, unpack_8(src) * scale + bias);
    }
}

#if LANES == 16
/* 16 rows of 16 lanes, transposed to rows of the panel. */
static inline __attribute__((always_inline)) void store_transposed(__m512 a[16], float *panel, int64_t width)
{
    __m512 b[16];
    UNROLL
    for (int i = 0; i < 16; i += 2) {
        b[i] = _mm512_unpacklo_ps(a[i], a[i + 1]);
        b[i + 1] = _mm512_unpackhi_ps(a[i], a[i + 1]);
    }
    UNROLL
    for (int i = 0; i < 16; i += 4)
        UNROLL
    for (int j = 0; j < 2; j++) { /* a[i + c]: column c of every four, of rows i .. i + 3 */
        __m512d low = _mm512_castps_pd(b[i + j]), high = _mm512_castps_pd(b[i + 2 + j]);
        a[i + 2 * j] = _mm512_castpd_ps(_mm512_unpacklo_pd(low, high));
        a[i + 2 * j + 1] = _mm512_castpd_ps(_mm512_unpackhi_pd(low, high));
    }
    UNROLL
    for (int c = 0; c < 4; c++) {
        __m512 low = _mm512_shuffle_f32x4(a[c], a[4 + c], 0x88), low2 = _mm512_shuffle_f32x4(a[c], a[4 + c], 0xdd);
        __m512 high = _mm512_shuffle_f32x4(a[8 + c], a[12 + c], 0x88);
        __m512 high2 = _mm512_shuffle_f32x4(a[8 + c], a[12 + c], 0xdd);
        _mm512_storeu_ps(panel + c * width, _mm512_shuffle_f32x4(low, high, 0x88));
        _mm512_storeu_ps(panel + (4 + c) * width, _mm512_shuffle_f32x4(low2, high2, 0x88));
        _mm512_storeu_ps(panel + (8 + c) * width, _mm512_shuffle_f32x4(low, high, 0xdd));
        _mm512_storeu_ps(panel + (12 + c) * width, _mm512_shuffle_f32x4(low2, high2, 0xdd));
    }
}

/* 16 rows x 16 inputs at a time. */
static inline __attribute__((always_inline)) void transpose_16(const float *rows, int64_t ld, float *panel,
                                                               int64_t width)
{
    __m512 a[16];
    UNROLL
    for (int i = 0; i < 16; i++)
        a[i] = _mm512_loadu_ps(rows + i * ld);
    store_transposed(a, panel, width);
}
#endif

/* Four rows x four inputs at a time, the same for every vector length. */
static inline __attribute__((always_inline)) void transpose_to(const void *source, int64_t ld, int64_t count, int64_t k,
                                                               void *target, const int64_t width)
{
    const float *rows = source;
    float *panel = target;
    int64_t done = 0; /* inputs that whole squares cover */
#if LANES == 16
    if (width % 16 == 0 && count == width)
        for (; done + 16 <= k; done += 16)
            for (int64_t n = 0; n < width; n += 16)
                transpose_16(rows + n * ld + done, ld, panel + done * width + n, width);
#endif
    for (int64_t n = 0; n < width; n += 4) {
        int64_t i = done;
        if (n + 4 <= count)
            for (; i + 4 <= k; i += 4) {
                const float *p = rows + n * ld + i;
                v4 a = *(const v4_memory *)p, b = *(const v4_memory *)(p + ld);
                v4 c = *(const v4_memory *)(p + 2 * ld), d = *(const v4_memory *)(p + 3 * ld);
                v4 ab = __builtin_shufflevector(a, b, 0, 4, 1, 5), ab2 = __builtin_shufflevector(a, b, 2, 6, 3, 7);
                v4 cd = __builtin_shufflevector(c, d, 0, 4, 1, 5), cd2 = __builtin_shufflevector(c, d, 2, 6, 3, 7);
                float *q = panel + i * width + n;
                *(v4_memory *)q = __builtin_shufflevector(ab, cd, 0, 1, 4, 5);
                *(v4_memory *)(q + width) = __builtin_shufflevector(ab, cd, 2, 3, 6, 7);
                *(v4_memory *)(q + 2 * width) = __builtin_shufflevector(ab2, cd2, 0, 1, 4, 5);
                *(v4_memory *)(q + 3 * width) = __builtin_shufflevector(ab2, cd2, 2, 3, 6, 7);
            }
        for (; i < k; i++)
            for (int64_t r = n; r < n + 4; r++) {
                if (r < count)
                    memcpy(panel + i * width + r, rows + r * ld + i, sizeof(float));
                else
                    panel[i * width + r] = 0;
            }
    }
}

/* The usual widths are known when compiling. */
static void transpose(const void *source, int64_t ld, int64_t count, int64_t k, void *target, int64_t width)
{
    if (width == 16)
        transpose_to(source, ld, count, k, target, 16);
    else if (width == 32)
        transpose_to(source, ld, count, k, target, 32);
    else
        transpose_to(source, ld, count, k, target, width);
}

/* As put; past the caches where a vector is a whole cache line. */
static inline void put_as(zi_cpu_store mode, float *p, vf v, int64_t n)
{
#if LANES == 16
    if (mode == ZI_STORE_PAST_CACHES && n >= LANES && (uintptr_t)p % 64 == 0) {
        _mm512_stream_ps(p, (__m512)v);
        return;
    }
#endif
    put(p, v, n);
}

static void stores_done(void)
{
#if LANES == 16
    _mm_sfence();
#endif
}

static void store_tile(float *y, int64_t ldy, const float *c, int64_t ldc, int64_t rows, int64_t columns,
                       const float *bias, zi_cpu_store mode)
{
    for (int64_t r = 0; r < rows; r++, y += ldy, c += ldc)
        for (int64_t i = 0; i < columns; i += LANES) {
            vf v = load(c + i);
            if (bias != NULL)
                v += take(bias + i, columns - i);
            if (mode == ZI_STORE_ADD)
                v += take(y + i, columns - i);
            put_as(mode, y + i, v, columns - i);
        }
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
    vf n = (vf)_mm512_roundscale_ps((__m512)(x * splat(1.44269504088896341f)), _MM_FROUND_TO_NEAREST_INT);
#else
    const vf magic = splat(0x1.8p23f);
    vi tiny = x < low;
    x = choose(tiny, low, x);
    x = choose(x > high, high, x);
    vf z = x * splat(1.44269504088896341f) + magic; /* n in the low bits */
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

/*
 * 2^x for x <= 0, at least 2^-126; NaN passes. The polynomial for |r| <= 1/2 is Cephes' exp2f: below 2 ulp.
 */
static inline vf exp2_vector(vf x)
{
    x = larger(splat(-126.0f), x);
#if LANES == 16
    vf n = (vf)_mm512_roundscale_ps((__m512)x, _MM_FROUND_TO_NEAREST_INT);
#else
    const vf magic = splat(0x1.8p23f);
    vf z = x + magic, n = z - magic; /* n in z's low bits */
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
    return p * (vf)(((vu)z - (vu)magic + 127) << 23);
#endif
}

static inline vf silu_vector(vf x)
{
    return x / (splat(1.0f) + exp_vector(-x));
}

static void silu(float *y, const float *x, int64_t n)
{
    for (int64_t i = 0; i < n; i += LANES)
        put(y + i, silu_vector(take(x + i, n - i)), n - i);
}

static void store_glu(float *y, int64_t ldy, const float *gate, const float *up, int64_t ldc, int64_t rows,
                      int64_t columns, zi_cpu_store mode)
{
    for (int64_t r = 0; r < rows; r++, y += ldy, gate += ldc, up += ldc)
        for (int64_t i = 0; i < columns; i += LANES)
            put_as(mode, y + i, silu_vector(load(gate + i)) * load(up + i), columns - i);
}

static void affine(float *y, const float *x, const float *scale, const float *shift, int64_t pixels, int64_t channels,
                   int with_silu)
{
    for (int64_t p = 0; p < pixels; p++, x += channels, y += channels)
        for (int64_t i = 0; i < channels; i += LANES) {
            int64_t n = channels - i;
            vf v = take(x + i, n) * take(scale + i, n) + take(shift + i, n);
            put(y + i, with_silu ? silu_vector(v) : v, n);
        }
}

static void multiply(float *y, const float *x, float factor, int64_t n)
{
    for (int64_t i = 0; i < n; i += LANES)
        put(y + i, take(x + i, n - i) * splat(factor), n - i);
}

/* Powers of 2 in place of e: *max is log2(e) times the largest scaled element. */
static inline float row_max(const float *s, int64_t n, float scale, float max)
{
    vf tops = splat(-INFINITY);
    int64_t i = 0;
    for (; i + LANES <= n; i += LANES)
        tops = larger(load(s + i), tops);
    float top = max_lanes(tops);
    for (; i < n; i++)
        top = s[i] > top ? s[i] : top;
    return top * scale > max ? top * scale : max;
}

static inline float softmax_factor(float top, float *max, float *sum, vf total)
{
    float factor = top > *max ? exp2_vector(splat(*max - top))[0] : 1;
    *max = top;
    *sum = *sum * factor + sum_lanes(total);
    return factor;
}

static float softmax(float *s, int64_t n, int64_t padded, float scale, float *max, float *sum)
{
    for (int64_t i = n; i < padded; i++)
        s[i] = 0;
    if (n == 0)
        return 1;
    scale *= LOG2_E;
    float top = row_max(s, n, scale, *max);
    vf total = {0};
    for (int64_t i = 0; i < n; i += LANES) {
        vf e = exp2_vector(take(s + i, n - i) * splat(scale) - splat(top));
        put(s + i, e, n - i);
        if (n - i < LANES) /* lanes behind the row don't count */
            e = take(s + i, n - i);
        total += e;
    }
    return softmax_factor(top, max, sum, total);
}

/* ---- norms ------------------------------------------------------------------------------------------------------- */

static inline float rms_factor(vf sum_a, vf sum_b, int64_t n, float eps)
{
    return 1.0f / sqrtf(sum_lanes(sum_a + sum_b) / (float)n + eps);
}

static inline float row_rms_factor(const float *x, int64_t n, float eps)
{
    vf a = {0}, b = {0};
    int64_t i = 0;
    for (; i + 2 * LANES <= n; i += 2 * LANES) {
        a += load(x + i) * load(x + i);
        b += load(x + i + LANES) * load(x + i + LANES);
    }
    for (; i < n; i += LANES) {
        vf v = take(x + i, n - i);
        a += v * v;
    }
    return rms_factor(a, b, n, eps);
}

static void rms_norm(float *y, const float *x, const float *gain, int64_t n, float eps)
{
    vf factor = splat(row_rms_factor(x, n, eps));
    for (int64_t i = 0; i < n; i += LANES)
        put(y + i, take(x + i, n - i) * factor * take(gain + i, n - i), n - i);
}

/* Deviations d from a rounded mean; the second pass also finds their own mean, which the rounding left. */
static void layer_norm(float *y, const float *x, const float *gain, int64_t n, float eps)
{
    vf total = {0}, deviations = {0}, squares = {0};
    for (int64_t i = 0; i < n; i += LANES)
        total += take(x + i, n - i);
    vf mean = splat(sum_lanes(total) / (float)n);
    for (int64_t i = 0; i < n; i += LANES) {
        vf d = take(x + i, n - i) - mean;
        if (n - i < LANES)
            d = take((const float *)&d, n - i); /* lanes behind the row don't count */
        deviations += d;
        squares += d * d;
    }
    float rest = sum_lanes(deviations) / (float)n;
    vf factor = splat(1.0f / sqrtf(sum_lanes(squares) / (float)n - rest * rest + eps));
    for (int64_t i = 0; i < n; i += LANES)
        put(y + i, (take(x + i, n - i) - mean - splat(rest)) * factor * take(gain + i, n - i), n - i);
}

static int all_finite(const float *x, int64_t n)
{
    vi bad = {0};
    int64_t i = 0;
#if LANES == 16
    const __m512i exponent = _mm512_set1_epi32(0x7f800000);
    __mmask16 found = 0;
    for (; i + LANES <= n; i += LANES)
        found |= _mm512_cmpeq_epi32_mask(_mm512_and_si512((__m512i)load(x + i), exponent), exponent);
    if (found)
        return 0;
#endif
    for (; i < n; i += LANES)
        bad |= ((vi)take(x + i, n - i) & 0x7f800000) == 0x7f800000;
    for (int lane = 0; lane < LANES; lane++)
        if (bad[lane])
            return 0;
    return 1;
}

static int residual(float *x, const float *y, const float *gain, float *h, const float *gain_next, int64_t n, float eps)
{
    vf factor = splat(row_rms_factor(y, n, eps)), squares = {0};
    for (int64_t i = 0; i < n; i += LANES) {
        vf v = take(x + i, n - i) + take(y + i, n - i) * factor * take(gain + i, n - i);
        put(x + i, v, n - i);
        squares += v * v;
    }
    int finite = isfinite(sum_lanes(squares)) || all_finite(x, n); /* squares of finite numbers may overflow */
    if (h == NULL)
        return finite;
    factor = splat(rms_factor(squares, (vf){0}, n, eps));
    for (int64_t i = 0; i < n; i += LANES)
        put(h + i, take(x + i, n - i) * factor * take(gain_next + i, n - i), n - i);
    return finite;
}

static void qk_norm_rope(float *x, float *t, const float *w, const float *cos, const float *sin, int64_t dim,
                         zi_rope_layout layout, float eps)
{
    rms_norm(x, x, w, dim, eps);
    int64_t half = dim / 2;
    if (layout == ZI_ROPE_ADJACENT) {
        for (int64_t i = 0; i < dim; i += 2) {
            t[i] = x[i + 1];
            t[i + 1] = x[i];
        }
    } else {
        memcpy(t, x + half, (size_t)half * sizeof(float));
        memcpy(t + half, x, (size_t)half * sizeof(float));
    }
    for (int64_t i = 0; i < dim; i += LANES) {
        int64_t n = dim - i;
        put(x + i, take(x + i, n) * take(cos + i, n) + take(t + i, n) * take(sin + i, n), n);
    }
}

/* ---- statistics -------------------------------------------------------------------------------------------------- */

static void channel_sums(double *sums, const float *x, int64_t pixels, int64_t channels)
{
    for (int64_t c = 0; c < channels; c += LANES) {
        vd sum = {0}, squares = {0};
        for (int64_t p = 0; p < pixels; p++) {
            vd v = __builtin_convertvector(take(x + p * channels + c, channels - c), vd);
            sum += v;
            squares += v * v;
        }
        for (int i = 0; i < LANES && c + i < channels; i++) {
            sums[c + i] += sum[i];
            sums[channels + c + i] += squares[i];
        }
    }
}

/* ---- the registers' peak ----------------------------------------------------------------------------------------- */

#define PEAK_SUMS 12 /* hides the latency of a multiply-add at two a cycle; with two factors they fit 16 registers */

/* s = s * a + b and not s += a * b, whose product a compiler would compute once. */
static double peak(int64_t rounds, float *sink)
{
    vf sums[PEAK_SUMS], a = splat(*sink * 0 + 0.75f), b = splat(*sink * 0 + 0.125f);
    UNROLL
    for (int j = 0; j < PEAK_SUMS; j++)
        sums[j] = splat((float)j);
    for (int64_t i = 0; i < rounds; i++)
        UNROLL
    for (int j = 0; j < PEAK_SUMS; j++)
        sums[j] = sums[j] * a + b;
    for (int j = 1; j < PEAK_SUMS; j++)
        sums[0] += sums[j];
    *sink = sum_lanes(sums[0]);
    return 2.0 * LANES * PEAK_SUMS * (double)rounds;
}

/* ---- packing ----------------------------------------------------------------------------------------------------- */

/* The low halves and the low bytes of 32-bit lanes; compilers turn the plain form into one move a lane. */
#if defined(__AVX512BW__)
static inline vh low_halves(vi v)
{
    return (vh)_mm512_cvtepi32_epi16((__m512i)v);
}

static inline vc low_bytes(vi v)
{
    return (vc)_mm512_cvtepi32_epi8((__m512i)v);
}
#elif defined(__AVX2__)
static inline vh low_halves(vi v)
{
    const __m256i order = _mm256_setr_epi8(0, 1, 4, 5, 8, 9, 12, 13, 0, 1, 4, 5, 8, 9, 12, 13, 0, 1, 4, 5, 8, 9, 12, 13,
                                           0, 1, 4, 5, 8, 9, 12, 13);
    return (vh)_mm256_castsi256_si128(_mm256_permute4x64_epi64(_mm256_shuffle_epi8((__m256i)v, order), 0x08));
}

static inline vc low_bytes(vi v)
{
    __m128i halves = (__m128i)low_halves(v);
    return (vc)_mm_cvtsi128_si64(_mm_packs_epi16(halves, halves)); /* within +-127: nothing saturates */
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

/* To nearest, ties to even; a NaN stays one. */
static inline vh to_bf16(vf x)
{
    vu bits = (vu)x;
    vu rounded = (bits + 0x7fff + (bits >> 16 & 1)) >> 16;
    vu quiet = bits >> 16 | 0x40;
#if LANES == 16
    __mmask16 nan = _mm512_cmp_ps_mask((__m512)x, (__m512)x, _CMP_UNORD_Q);
    return low_halves((vi)_mm512_mask_mov_epi32((__m512i)rounded, nan, (__m512i)quiet));
#else
    vi nan = x != x;
    return low_halves((nan & (vi)quiet) | (~nan & (vi)rounded));
#endif
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

/* The next up to LANES of n stored numbers, at any address; zeros behind them. */
static inline vf take_stored(zi_dtype dtype, const uint8_t *src, int64_t i, int64_t n)
{
    vf v = {0};
    vh bits = {0};
    void *target = dtype == ZI_F32 ? (void *)&v : (void *)&bits;
    const int64_t size = dtype == ZI_F32 ? 4 : 2;
    if (n - i >= LANES) /* a length known when compiling is one load */
        memcpy(target, src + size * i, (size_t)(size * LANES));
    else
        memcpy(target, src + size * i, (size_t)(size * (n - i)));
    return dtype == ZI_F32 ? v : dtype == ZI_BF16 ? from_bf16(bits) : from_f16(bits);
}

/* Up to a chunk of numbers, zeros behind the last. */
static inline __attribute__((always_inline)) void pack_chunk(zi_cpu_number number, zi_dtype dtype, const uint8_t *src,
                                                             int64_t n, vf factor, uint8_t *out)
{
    const int64_t size = number == ZI_NUMBER_BF16 || number == ZI_NUMBER_I16 ? 32 : 64;
    for (int64_t i = 0; i < size; i += LANES) {
        vf v = i < n ? take_stored(dtype, src, i, n) * factor : (vf){0};
        if (number == ZI_NUMBER_BF16) {
            vh bits = to_bf16(v);
            memcpy(out + 2 * i, &bits, sizeof(bits));
        } else if (number == ZI_NUMBER_I16) {
            vh bits = low_halves(to_integer(v));
            memcpy(out + 2 * i, &bits, sizeof(bits));
        } else {
            vc bits = low_bytes(to_integer(v));
            if (number == ZI_NUMBER_U8)
                bits ^= (int8_t)-128;
            memcpy(out + i, &bits, sizeof(bits));
        }
    }
}

static inline __attribute__((always_inline)) void pack_as(const zi_cpu_number number, const zi_dtype dtype,
                                                          const uint8_t *src, int64_t n, float factor, uint8_t *out,
                                                          int64_t stride)
{
    const int64_t step = number == ZI_NUMBER_BF16 || number == ZI_NUMBER_I16 ? 32 : 64;
    for (; n >= step; n -= step, src += step * (dtype == ZI_F32 ? 4 : 2), out += stride)
        pack_chunk(number, dtype, src, step, splat(factor), out);
    if (n > 0)
        pack_chunk(number, dtype, src, n, splat(factor), out);
}

static inline __attribute__((always_inline)) void pack_from(const zi_dtype dtype, zi_cpu_number number,
                                                            const uint8_t *src, int64_t n, float factor, uint8_t *out,
                                                            int64_t stride)
{
    if (number == ZI_NUMBER_BF16)
        pack_as(ZI_NUMBER_BF16, dtype, src, n, factor, out, stride);
    else if (number == ZI_NUMBER_I16)
        pack_as(ZI_NUMBER_I16, dtype, src, n, factor, out, stride);
    else if (number == ZI_NUMBER_I8)
        pack_as(ZI_NUMBER_I8, dtype, src, n, factor, out, stride);
    else
        pack_as(ZI_NUMBER_U8, dtype, src, n, factor, out, stride);
}

static void pack(zi_cpu_number number, zi_dtype dtype, const void *src, int64_t n, float factor, uint8_t *out,
                 int64_t stride)
{
    if (dtype == ZI_F32)
        pack_from(ZI_F32, number, src, n, factor, out, stride);
    else if (dtype == ZI_BF16)
        pack_from(ZI_BF16, number, src, n, factor, out, stride);
    else
        pack_from(ZI_F16, number, src, n, factor, out, stride);
}

#if defined(__AVX512BW__)
/* The 16 numbers of a group, packed, in two bytes or in one. */
typedef struct nibble_table {
    __m512i two;
    __m128i one;
} nibble_table;

static inline __attribute__((always_inline)) nibble_table make_table(zi_cpu_number number, float scale, float bias,
                                                                     float factor)
{
    const vf q = {0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15};
    vf v = (q * splat(scale) + splat(bias)) * splat(factor);
    nibble_table table = {_mm512_setzero_si512(), _mm_setzero_si128()};
    if (number == ZI_NUMBER_I8 || number == ZI_NUMBER_U8) {
        vc bytes = low_bytes(to_integer(v));
        table.one = (__m128i)(number == ZI_NUMBER_U8 ? bytes ^ (int8_t)-128 : bytes);
    } else {
        table.two = /* twice: bit 4 of an index says nothing */
            _mm512_broadcast_i64x4((__m256i)(number == ZI_NUMBER_BF16 ? to_bf16(v) : low_halves(to_integer(v))));
    }
    return table;
}

/* 32 numbers of two bytes from 16 bytes of nibbles: two indices from each byte, of which only the low five bits count. */
static inline __m512i look_up_two(__m512i table, __m128i pairs)
{
    __m512i bytes = _mm512_cvtepu8_epi32(pairs);
    return _mm512_permutexvar_epi16(_mm512_or_si512(bytes, _mm512_slli_epi32(bytes, 12)), table);
}

/* 32 numbers from 16 bytes of nibbles. */
static inline __attribute__((always_inline)) void look_up(zi_cpu_number number, const nibble_table *table,
                                                          const uint8_t *src, uint8_t *out)
{
    __m128i pairs = _mm_loadu_si128((const __m128i *)(const void *)src);
    if (number == ZI_NUMBER_I8 || number == ZI_NUMBER_U8) {
        __m128i mask = _mm_set1_epi8(15), even = _mm_and_si128(pairs, mask);
        __m128i odd = _mm_and_si128(_mm_srli_epi16(pairs, 4), mask);
        __m256i q = _mm256_set_m128i(_mm_unpackhi_epi8(even, odd), _mm_unpacklo_epi8(even, odd));
        _mm256_storeu_si256((__m256i *)(void *)out, _mm256_shuffle_epi8(_mm256_broadcastsi128_si256(table->one), q));
    } else {
        _mm512_storeu_si512(out, look_up_two(table->two, pairs));
    }
}

#define NIBBLE_GROUPS 16  /* whose scales are unpacked together */
#define NIBBLE_AHEAD  256 /* bytes that are fetched ahead in each row */

/* The 16 numbers of a group as bf16 in the upper halves of lanes. `safe`: some may be NaN. */
static inline __attribute__((always_inline)) __m512i upper_table(float scale, float bias, const int safe)
{
    const vf q = {0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15};
    vf v = q * splat(scale) + splat(bias);
    vu bits = (vu)v, rounded = bits + 0x7fff + (bits >> 16 & 1);
    if (!safe)
        return (__m512i)rounded;
    __mmask16 nan = _mm512_cmp_ps_mask((__m512)v, (__m512)v, _CMP_UNORD_Q);
    return _mm512_mask_mov_epi32((__m512i)rounded, nan, (__m512i)(bits | 0x400000));
}

/* 32 numbers from 16 bytes of nibbles: a byte is two of them; only the low four bits of an index count. */
static inline __m512i look_up_pairs(__m512i table, const uint8_t *src)
{
    __m512i bytes = _mm512_cvtepu8_epi32(_mm_loadu_si128((const __m128i *)(const void *)src));
    __m512i a = _mm512_permutexvar_epi32(bytes, table),
            b = _mm512_permutexvar_epi32(_mm512_srli_epi32(bytes, 4), table);
    return _mm512_ternarylogic_epi32(_mm512_srli_epi32(a, 16), b, _mm512_set1_epi32((int)0xffff0000), 0xf8);
}

static inline __attribute__((always_inline)) void nibble_groups(const zi_nibble_rows *rows, int64_t first,
                                                                int64_t count, vf *scales, vf *biases, uint8_t *panel,
                                                                int64_t width, const int safe)
{
    const uint8_t *src = rows->nibbles + first * rows->group / 2;
    for (int64_t g = 0; g < count; g++) {
        __m512i tables[16];
        UNROLL
        for (int r = 0; r < 16; r++)
            tables[r] = upper_table(((const float *)&scales[r])[g], ((const float *)&biases[r])[g], safe);
        for (int64_t i = 0; i < rows->group; i += 32, src += 16, panel += 16 * width * 4) {
            __m512 pairs[16];
            UNROLL
            for (int r = 0; r < 16; r++) {
                pairs[r] = _mm512_castsi512_ps(look_up_pairs(tables[r], src + r * rows->ld));
                _mm_prefetch((const char *)(src + r * rows->ld + NIBBLE_AHEAD), _MM_HINT_T0);
            }
            store_transposed(pairs, (float *)(void *)panel, width);
        }
    }
}

/* The next 16 of `count` scales; zeros behind them. */
static inline __attribute__((always_inline)) vf take_scales(zi_dtype dtype, const uint8_t *scales, int64_t count)
{
    __mmask16 mask = count < 16 ? (__mmask16)((1u << count) - 1) : (__mmask16)0xffff;
    vh bits = (vh)_mm256_maskz_loadu_epi16(mask, scales);
    return dtype == ZI_BF16 ? from_bf16(bits) : from_f16(bits);
}

static void pack_nibble_panel(const zi_nibble_rows *rows, uint8_t *panel, int64_t width)
{
    for (int64_t g = 0; g < rows->groups; g += NIBBLE_GROUPS) {
        int64_t count = rows->groups - g < NIBBLE_GROUPS ? rows->groups - g : NIBBLE_GROUPS;
        vf scales[16], biases[16], checked = {0};
        for (int r = 0; r < 16; r++) {
            scales[r] = take_scales(rows->scale_dtype, rows->scales + r * rows->scale_ld + 2 * g, count);
            biases[r] = take_scales(rows->scale_dtype, rows->biases + r * rows->scale_ld + 2 * g, count);
            checked += scales[r] * 0 + biases[r] * 0;
        }
        if (_mm512_cmp_ps_mask((__m512)checked, (__m512)checked, _CMP_UNORD_Q))
            nibble_groups(rows, g, count, scales, biases, panel, width, 1);
        else
            nibble_groups(rows, g, count, scales, biases, panel, width, 0);
        panel += count * rows->group / 2 * width * 4;
    }
}
#elif defined(__AVX2__)
/* The 16 numbers of a group, packed: their low bytes, and their high bytes if they have two. */
typedef struct nibble_table {
    __m128i low, high;
} nibble_table;

static inline __attribute__((always_inline)) nibble_table make_table(zi_cpu_number number, float scale, float bias,
                                                                     float factor)
{
    _Alignas(16) uint8_t bytes[16];
    _Alignas(16) uint16_t halves[16];
    UNROLL
    for (int i = 0; i < 16; i += LANES) {
        vf q;
        UNROLL
        for (int lane = 0; lane < LANES; lane++)
            q[lane] = (float)(i + lane);
        vf v = (q * splat(scale) + splat(bias)) * splat(factor);
        vh two = number == ZI_NUMBER_BF16 ? to_bf16(v) : low_halves(to_integer(v));
        vc one = low_bytes(to_integer(v));
        if (number == ZI_NUMBER_U8)
            one ^= (int8_t)-128;
        memcpy(halves + i, &two, sizeof(two));
        memcpy(bytes + i, &one, sizeof(one));
    }
    if (number == ZI_NUMBER_I8 || number == ZI_NUMBER_U8)
        return (nibble_table){_mm_load_si128((const __m128i *)(const void *)bytes), _mm_setzero_si128()};
    __m128i first = _mm_load_si128((const __m128i *)(const void *)halves);
    __m128i second = _mm_load_si128((const __m128i *)(const void *)(halves + 8)), mask = _mm_set1_epi16(255);
    return (nibble_table){_mm_packus_epi16(_mm_and_si128(first, mask), _mm_and_si128(second, mask)),
                          _mm_packus_epi16(_mm_srli_epi16(first, 8), _mm_srli_epi16(second, 8))};
}

/* 32 numbers from 16 bytes of nibbles. */
static inline __attribute__((always_inline)) void look_up(zi_cpu_number number, const nibble_table *table,
                                                          const uint8_t *src, uint8_t *out)
{
    __m128i pairs = _mm_loadu_si128((const __m128i *)(const void *)src), mask = _mm_set1_epi8(15), *to = (__m128i *)out;
    __m128i even = _mm_and_si128(pairs, mask), odd = _mm_and_si128(_mm_srli_epi16(pairs, 4), mask);
    __m128i q[2] = {_mm_unpacklo_epi8(even, odd), _mm_unpackhi_epi8(even, odd)};
    UNROLL
    for (int i = 0; i < 2; i++) {
        __m128i low = _mm_shuffle_epi8(table->low, q[i]);
        if (number == ZI_NUMBER_I8 || number == ZI_NUMBER_U8) {
            _mm_storeu_si128(to + i, low);
            continue;
        }
        __m128i high = _mm_shuffle_epi8(table->high, q[i]);
        _mm_storeu_si128(to + 2 * i, _mm_unpacklo_epi8(low, high));
        _mm_storeu_si128(to + 2 * i + 1, _mm_unpackhi_epi8(low, high));
    }
}
#endif

#if LANES == 16
/* The same for numbers of two bytes: nothing is narrowed. */
static void nibbles_as_bf16(int64_t group, const uint8_t *src, const float *scales, const float *biases, int64_t groups,
                            uint8_t *out, int64_t stride)
{
    for (int64_t g = 0; g < groups; g++) {
        __m512i table = upper_table(scales[g], biases[g], 1);
        _mm_prefetch((const char *)(src + NIBBLE_AHEAD), _MM_HINT_T0);
        for (int64_t i = 0; i < group; i += 32, src += 16, out += stride)
            _mm512_storeu_si512(out, look_up_pairs(table, src));
    }
}
#endif

#if defined(__AVX2__)
static inline __attribute__((always_inline)) void nibbles_as(const zi_cpu_number number, int64_t group,
                                                             const uint8_t *src, const float *scales,
                                                             const float *biases, int64_t groups, float factor,
                                                             uint8_t *out, int64_t stride)
{
    const int64_t step = number == ZI_NUMBER_BF16 || number == ZI_NUMBER_I16 ? 64 : 32; /* bytes of 32 numbers */
    int64_t at = 0;                                                                     /* in the chunk */
    for (int64_t g = 0; g < groups; g++) {
        nibble_table table = make_table(number, scales[g], biases[g], factor);
        for (int64_t i = 0; i < group; i += 32, src += 16) {
            look_up(number, &table, src, out + at);
            at += step;
            if (at == ZI_CHUNK) {
                at = 0;
                out += stride;
            }
        }
    }
    if (at > 0)
        memset(out + at, number == ZI_NUMBER_U8 ? 128 : 0, (size_t)(ZI_CHUNK - at));
}
#else
static inline __attribute__((always_inline)) void nibbles_as(const zi_cpu_number number, int64_t group,
                                                             const uint8_t *src, const float *scales,
                                                             const float *biases, int64_t groups, float factor,
                                                             uint8_t *out, int64_t stride)
{
    const int64_t step = number == ZI_NUMBER_BF16 || number == ZI_NUMBER_I16 ? 32 : 64;
    float numbers[64];
    int64_t at = 0;
    for (int64_t g = 0; g < groups; g++)
        for (int64_t i = 0; i < group; i += 32, src += 16) {
            unpack_groups(4, 32, src, scales + g, biases + g, 1, numbers + at);
            at += 32;
            if (at < step && (g + 1 < groups || i + 32 < group))
                continue;
            pack_as(number, ZI_F32, (const uint8_t *)numbers, at, factor, out, stride);
            at = 0;
            out += stride;
        }
}
#endif

static void pack_nibbles(zi_cpu_number number, int64_t group, const uint8_t *src, const float *scales,
                         const float *biases, int64_t groups, float factor, uint8_t *out, int64_t stride)
{
#if LANES == 16
    if (number == ZI_NUMBER_BF16 && factor == 1) {
        nibbles_as_bf16(group, src, scales, biases, groups, out, stride);
        return;
    }
#endif
    if (number == ZI_NUMBER_BF16)
        nibbles_as(ZI_NUMBER_BF16, group, src, scales, biases, groups, factor, out, stride);
    else if (number == ZI_NUMBER_I16)
        nibbles_as(ZI_NUMBER_I16, group, src, scales, biases, groups, factor, out, stride);
    else if (number == ZI_NUMBER_I8)
        nibbles_as(ZI_NUMBER_I8, group, src, scales, biases, groups, factor, out, stride);
    else
        nibbles_as(ZI_NUMBER_U8, group, src, scales, biases, groups, factor, out, stride);
}

/* bf16 of a and of b in the halves of lanes, to nearest, ties to even; not for NaN. */
static inline vu round_pairs(vf a, vf b)
{
    vu low = (vu)a, high = (vu)b;
    low = (low + 0x7fff + (low >> 16 & 1)) >> 16;
    high = (high + 0x7fff + (high >> 16 & 1)) & 0xffff0000;
    return low | high;
}

/* 2^(s * scale - top) of the next up to LANES of n scores; zeros behind them. */
static inline vf soften(const float *s, int64_t n, float scale, float top)
{
    if (n >= LANES)
        return exp2_vector(load(s) * splat(scale) - splat(top));
    vf v = {0};
    if (n > 0) {
        vf e = exp2_vector(take(s, n) * splat(scale) - splat(top));
        memcpy(&v, &e, (size_t)n * sizeof(float));
    }
    return v;
}

/* Where a score is NaN the sum is, and so the output, whatever its weight becomes. */
static float softmax_bf16(const float *s, int64_t n, int64_t padded, float scale, float *max, float *sum, uint8_t *out,
                          int64_t stride)
{
    float factor = 1;
    vf total = {0};
    if (n > 0) {
        scale *= LOG2_E;
        float top = row_max(s, n, scale, *max);
        for (int64_t i = 0; i < n; i += 32)
            UNROLL
        for (int j = 0; j < 16; j += LANES) {
            vf a = soften(s + i + j, n - i - j, scale, top), b = soften(s + i + j + 16, n - i - j - 16, scale, top);
            total += a + b;
            vu pairs = round_pairs(a, b);
            memcpy(out + i / 32 * stride + j * 4, &pairs, sizeof(pairs));
        }
        factor = softmax_factor(top, max, sum, total);
    }
    for (int64_t i = (n + 31) / 32 * 32; i < padded; i += 32)
        memset(out + i / 32 * stride, 0, ZI_CHUNK);
    return factor;
}

static void pack_pairs(const float *a, const float *b, int64_t n, uint32_t *out)
{
    for (int64_t i = 0; i < n; i += LANES) {
        vu low = __builtin_convertvector(to_bf16(take(a + i, n - i)), vu);
        vu high = __builtin_convertvector(to_bf16(take(b + i, n - i)), vu);
        put((float *)(void *)(out + i), (vf)(low | high << 16), n - i);
    }
}

/* As integers, magnitudes have the order of their bits, infinities and NaN above all. */
static inline __attribute__((always_inline)) float largest_of(const zi_dtype dtype, const uint8_t *src, int64_t n)
{
    vi tops = {0};
    for (int64_t i = 0; i < n; i += LANES) {
        vi v = (vi)take_stored(dtype, src, i, n) & 0x7fffffff;
#if LANES == 16
        tops = (vi)_mm512_max_epi32((__m512i)v, (__m512i)tops);
#else
        vi above = v > tops;
        tops = (above & v) | (~above & tops);
#endif
    }
    int32_t top = 0;
    for (int lane = 0; lane < LANES; lane++)
        top = tops[lane] > top ? tops[lane] : top;
    float result;
    memcpy(&result, &top, sizeof(result));
    return result;
}

#if LANES == 16
/* Magnitudes of bfloat16 as integers, 32 at a time. */
static float largest_bf16(const uint8_t *src, int64_t n)
{
    __m512i tops = _mm512_setzero_si512();
    int64_t i = 0;
    for (; i + 32 <= n; i += 32)
        tops = _mm512_max_epu16(tops, _mm512_and_si512(_mm512_loadu_si512(src + 2 * i), _mm512_set1_epi16(0x7fff)));
    uint16_t lanes[32], top = 0;
    _mm512_storeu_si512(lanes, tops);
    for (int lane = 0; lane < 32; lane++)
        top = lanes[lane] > top ? lanes[lane] : top;
    for (; i < n; i++) {
        uint16_t bits;
        memcpy(&bits, src + 2 * i, sizeof(bits));
        top = (bits & 0x7fff) > top ? bits & 0x7fff : top;
    }
    uint32_t wide = (uint32_t)top << 16;
    float result;
    memcpy(&result, &wide, sizeof(result));
    return result;
}
#else
static float largest_bf16(const uint8_t *src, int64_t n)
{
    return largest_of(ZI_BF16, src, n);
}
#endif

static float largest(zi_dtype dtype, const void *src, int64_t n)
{
    return dtype == ZI_F32    ? largest_of(ZI_F32, src, n)
           : dtype == ZI_BF16 ? largest_bf16(src, n)
                              : largest_of(ZI_F16, src, n);
}

static void scale_sums(void *c, int64_t rows, int64_t columns, const float *row_scales, const float *scales,
                       const int32_t *offsets)
{
    float *sums = c;
    for (int64_t r = 0; r < rows; r++, sums += columns)
        for (int64_t n = 0; n < columns; n += LANES) {
            vi whole = (vi)load(sums + n) - (vi)load((const float *)(const void *)offsets + n);
            store(sums + n, __builtin_convertvector(whole, vf) * (splat(row_scales[r]) * load(scales + n)));
        }
}

const zi_cpu_kernels KERNELS = {
    .name = NAME,
    .feature = FEATURE,
    .mr = MR,
    .nr = NR,
    .gemm = gemm,
    .dot = dot,
    .unpack = unpack,
    .unpack_groups = unpack_groups,
    .transpose = transpose,
    .store = store_tile,
    .store_glu = store_glu,
    .stores_done = stores_done,
    .softmax = softmax,
    .softmax_bf16 = softmax_bf16,
    .multiply = multiply,
    .silu = silu,
    .affine = affine,
    .rms_norm = rms_norm,
    .layer_norm = layer_norm,
    .residual = residual,
    .qk_norm_rope = qk_norm_rope,
    .channel_sums = channel_sums,
    .finite = all_finite,
    .peak = peak,
    .pack = pack,
    .pack_nibbles = pack_nibbles,
#if LANES == 16
    .pack_nibble_panel = pack_nibble_panel,
#endif
    .pack_pairs = pack_pairs,
    .largest = largest,
    .scale_sums = scale_sums,
};
