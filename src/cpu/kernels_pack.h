/*
 * The part of kernels_body.h that packs numbers for the products of kernels.h: bf16 and integers from stored weights,
 * groups of 4 bits, activations and softmax. Included by kernels_body.h alone, once a tier.
 */

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
    switch (dtype) {
    case ZI_F32:
        return v;
    case ZI_BF16:
        return from_bf16(bits);
    case ZI_F16:
        return from_f16(bits);
    default:
        return splat(NAN);
    }
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

static void store_glu_bf16(uint8_t *y, int64_t stride, const float *gate, const float *up, int64_t ldc, int64_t rows,
                           int64_t columns)
{
    for (int64_t r = 0; r < rows; r++, y += stride, gate += ldc, up += ldc)
        for (int64_t i = 0; i < columns; i += LANES) {
            vh bits = to_bf16(silu_vector(load(gate + i)) * load(up + i));
            if (columns - i >= LANES)
                memcpy(y + 2 * i, &bits, sizeof(bits));
            else
                memcpy(y + 2 * i, &bits, (size_t)(columns - i) * 2);
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
    switch (dtype) {
    case ZI_F32:
        pack_from(ZI_F32, number, src, n, factor, out, stride);
        break;
    case ZI_BF16:
        pack_from(ZI_BF16, number, src, n, factor, out, stride);
        break;
    case ZI_F16:
        pack_from(ZI_F16, number, src, n, factor, out, stride);
        break;
    default: /* in bf16 all bits set are a NaN; integers get theirs from `largest`, which is their scale */
        for (int64_t i = 0; i < n; i += zi_cpu_numbers_a_chunk(number), out += stride)
            memset(out, 0xff, ZI_CHUNK);
    }
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
    return dtype == ZI_BF16 ? from_bf16(bits) : dtype == ZI_F16 ? from_f16(bits) : splat(NAN);
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

/*
 * The weights of softmax in bf16, 2^n p with p = 2^(1/2) 2^r, |r| <= 1/2, composed as integers. Rounding to bf16 is what
 * is left of an addition: 65536 + p is stored as 0x47800000 + m, m = 128 p to nearest. bf16's bits are
 * ((n + 126) << 7) + m. WHOLE + n, shifted by 7, is the first part of that less 0x47800000, mod 2^32. HALF stands for
 * 2^(1/2): a multiple of 1/128, of which no bit is lost; all weights and so their sums have that factor. The polynomial
 * errs by at most 2.8e-6 of the value (linear programming), bf16 by 2e-3 to 4e-3.
 */
#define WHOLE    15794302.0f
#define HALF     1.4140625f
#define SMALLEST -1000.0f /* 2^-1000 is no number: negative bits, which become 0 */

/* Of scores of at most `top`, in which 1/2 is: the largest weight is 1 and not rounded. */
static inline vi weight_bits(vf s, vf scale, vf top)
{
    vf x = larger(splat(SMALLEST), s * scale - top), t = x + splat(WHOLE), r = x - (t - splat(WHOLE));
    vf p = splat(1.3550362549722195e-2f);
    p = p * r + splat(7.905574887990952e-2f);
    p = p * r + splat(3.397158980369568e-1f);
    p = p * r + splat(9.80120837688446e-1f);
    p = p * r + splat(65536 + HALF);
    return (vi)(((vu)t << 7) + (vu)p);
}

/* Lanes in 16 bits, negative ones as 0: four of a, four of b, the next four of a, and so on. */
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

/* 32 weights; their sum is added to total. */
static inline void put_weights(const float *s, vf scale, vf top, vf total[2], uint8_t *out)
{
    UNROLL
    for (int j = 0; j < 16; j += LANES) {
        vu pairs = interleave_fours(weight_bits(load(s + j), scale, top), weight_bits(load(s + j + 16), scale, top));
        total[0] += (vf)(pairs << 16);
        total[1] += (vf)(pairs & 0xffff0000);
        memcpy(out + j * 4, &pairs, sizeof(pairs));
    }
}

/* The largest of n > 0 numbers; *zero: 0, or NaN where one is not finite. */
static inline float largest_score(const float *s, int64_t n, float *zero)
{
    vf tops[2] = {splat(-INFINITY), splat(-INFINITY)}, zeros[2] = {{0}, {0}};
    int64_t i = 0;
    for (; i + 2 * LANES <= n; i += 2 * LANES)
        UNROLL
    for (int k = 0; k < 2; k++) {
        vf v = load(s + i + k * LANES);
        tops[k] = larger(v, tops[k]);
        zeros[k] += v * splat(0);
    }
    float top = max_lanes(larger(tops[0], tops[1]));
    *zero = sum_lanes(zeros[0] + zeros[1]);
    for (; i < n; i++) {
        top = s[i] > top ? s[i] : top;
        *zero += s[i] * 0;
    }
    return top;
}

/* One row's; returns their sum. */
static inline float row_weights(const float *s, int64_t n, int64_t padded, float scale, float top, uint8_t *out,
                                int64_t stride)
{
    vf total[2] = {{0}, {0}};
    int64_t i = 0;
    for (; i + 32 <= n; i += 32, out += stride)
        put_weights(s + i, splat(scale), splat(top), total, out);
    if (i < n) {
        float rest[32];
        for (int64_t k = 0; k < 32; k++)
            rest[k] = k < n - i ? s[i + k] : -INFINITY;
        put_weights(rest, splat(scale), splat(top), total, out);
        i += 32;
        out += stride;
    }
    for (; i < padded; i += 32, out += stride)
        memset(out, 0, ZI_CHUNK);
    return sum_lanes(total[0] + total[1]);
}

#define SOFTMAX_ROWS 8 /* between whose maxima and weights a processor need not wait, and which L1 still has */
#define RISE         8 /* a maximum that rises by less stays: weights are then up to 2^8, and sums are not multiplied */

static void softmax_bf16(const zi_cpu_softmax *t)
{
    const float scale = t->scale * LOG2_E;
    for (int64_t first = 0; first < t->rows; first += SOFTMAX_ROWS) {
        float tops[SOFTMAX_ROWS], zeros[SOFTMAX_ROWS];
        int64_t rows = t->rows - first < SOFTMAX_ROWS ? t->rows - first : SOFTMAX_ROWS;
        for (int64_t k = 0; k < rows; k++) {
            int64_t row = first + k, n = zi_softmax_seen(t, row);
            float top = n > 0 ? largest_score(t->s + row * t->ld, n, &zeros[k]) * scale : -INFINITY;
            tops[k] = top > t->max[row] + RISE ? top : t->max[row];
        }
        for (int64_t k = 0; k < rows; k++) {
            int64_t row = first + k, n = zi_softmax_seen(t, row);
            uint8_t *out = t->out + zi_packed_row(row, t->mr, t->chunks);
            float sum = row_weights(t->s + row * t->ld, n, t->padded, scale, tops[k] + 0.5f, out, t->mr * ZI_CHUNK);
            float factor = tops[k] > t->max[row] ? exp2_vector(splat(t->max[row] - tops[k]))[0] : 1;
            t->sum[row] = t->sum[row] * factor + (n > 0 ? sum + zeros[k] : 0);
            t->max[row] = tops[k];
            t->factors[row] = factor;
        }
    }
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
    switch (dtype) {
    case ZI_F32:
        return largest_of(ZI_F32, src, n);
    case ZI_BF16:
        return largest_bf16(src, n);
    case ZI_F16:
        return largest_of(ZI_F16, src, n);
    default:
        return NAN;
    }
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
