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

static __attribute__((noinline, cold)) void fill_nan(float *dst, int64_t count)
{
    for (int64_t i = 0; i < count; i++)
        dst[i] = NAN;
}

static void unpack(zi_dtype dtype, const uint8_t *src, int64_t count, float *dst)
{
    if (dtype == ZI_F32)
        memcpy(dst, src, (size_t)count * sizeof(float));
    else if (dtype == ZI_BF16)
        unpack_halves(from_bf16, src, count, dst);
    else if (dtype == ZI_F16)
        unpack_halves(from_f16, src, count, dst);
    else
        fill_nan(dst, count);
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
    vf tops[2] = {splat(-INFINITY), splat(-INFINITY)}; /* two chains: each has to wait for itself */
    int64_t i = 0;
    for (; i + 2 * LANES <= n; i += 2 * LANES) {
        tops[0] = larger(load(s + i), tops[0]);
        tops[1] = larger(load(s + i + LANES), tops[1]);
    }
    float top = max_lanes(larger(tops[0], tops[1]));
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

#include "cpu/kernels_pack.h"

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
    .store_glu_bf16 = store_glu_bf16,
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
