/*
 * Groups of 4-bit numbers with AVX-512. A group can hold only 16 different numbers: they are packed once, into a table
 * in a register, and each 4-bit number is an index into it. kernels_tier.h includes it where LANES is 16.
 */

/* The table of a group, with two bytes a number, or with one. */
typedef struct nibble_table {
    __m512i two;
    __m128i one;
} nibble_table;

ALWAYS_INLINE nibble_table make_table(zi_cpu_number number, float scale, float bias, float factor)
{
    const vf q = {0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15};
    vf v = (q * splat(scale) + splat(bias)) * splat(factor);
    nibble_table table = {_mm512_setzero_si512(), _mm_setzero_si128()};
    if (number == ZI_NUMBER_I8 || number == ZI_NUMBER_U8) {
        vc bytes = low_bytes(to_integer(v));
        table.one = (__m128i)(number == ZI_NUMBER_U8 ? bytes ^ (int8_t)-128 : bytes);
    } else {
        table.two = /* twice: bit 4 of an index does not count */
            _mm512_broadcast_i64x4((__m256i)(number == ZI_NUMBER_BF16 ? to_bf16(v) : low_halves(to_integer(v))));
    }
    return table;
}

/* 32 numbers of two bytes from 16 bytes of nibbles. A byte gives two indices; only the low five bits of an index
 * count. */
static inline __m512i look_up_two(__m512i table, __m128i pairs)
{
    __m512i bytes = _mm512_cvtepu8_epi32(pairs);
    return _mm512_permutexvar_epi16(_mm512_or_si512(bytes, _mm512_slli_epi32(bytes, 12)), table);
}

/* 32 packed numbers from 16 bytes of nibbles. */
ALWAYS_INLINE void look_up(zi_cpu_number number, const nibble_table *table, const uint8_t *src, uint8_t *out)
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

/* ---- bf16 without narrowing -------------------------------------------------------------------------------------- */

#define NIBBLE_GROUPS 16  /* groups whose scales are unpacked together */
#define NIBBLE_AHEAD  256 /* bytes from a row's reads to its prefetches */

/* The 16 numbers of a group as bf16, in the upper halves of lanes. safe 0: none of them is NaN. */
ALWAYS_INLINE __m512i upper_table(float scale, float bias, const int safe)
{
    const vf q = {0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15};
    vf v = q * splat(scale) + splat(bias);
    vu rounded = round_upper(v);
    return (__m512i)(safe ? quiet_nan(v, rounded, (vu)v | 0x400000) : rounded);
}

/* 32 numbers from 16 bytes of nibbles: a byte holds two of them. Only the low four bits of an index count. */
static inline __m512i look_up_pairs(__m512i table, const uint8_t *src)
{
    __m512i bytes = _mm512_cvtepu8_epi32(_mm_loadu_si128((const __m128i *)(const void *)src));
    __m512i a = _mm512_permutexvar_epi32(bytes, table),
            b = _mm512_permutexvar_epi32(_mm512_srli_epi32(bytes, 4), table);
    return _mm512_ternarylogic_epi32(_mm512_srli_epi32(a, 16), b, _mm512_set1_epi32((int)0xffff0000), 0xf8);
}

/* Packs groups of a row as bf16. Returns 1: this tier can. */
static int nibbles_to_bf16(int64_t group, const uint8_t *src, const float *scales, const float *biases, int64_t groups,
                           uint8_t *out, int64_t stride)
{
    for (int64_t g = 0; g < groups; g++) {
        __m512i table = upper_table(scales[g], biases[g], 1);
        _mm_prefetch((const char *)(src + NIBBLE_AHEAD), _MM_HINT_T0);
        for (int64_t i = 0; i < group; i += 32, src += 16, out += stride)
            _mm512_storeu_si512(out, look_up_pairs(table, src));
    }
    return 1;
}

/* ---- panels of bf16 ---------------------------------------------------------------------------------------------- */

/* Packs groups [first, first + count) of 16 rows. scales, biases: [row][group] of these groups. safe: as above. Eight
 * parameters: it is inlined, `safe` is a constant, and the pointers stay in registers. */
ALWAYS_INLINE void nibble_groups(const zi_nibble_rows *rows, int64_t first, int64_t count, vf *scales, vf *biases,
                                 uint8_t *panel, int64_t width, const int safe)
{
    const uint8_t *src = rows->nibbles + first * rows->group / 2;
    for (int64_t g = 0; g < count; g++) {
        __m512i tables[16];
        FOR_UNROLLED(r, 16)
            tables[r] = upper_table(((const float *)&scales[r])[g], ((const float *)&biases[r])[g], safe);
        for (int64_t i = 0; i < rows->group; i += 32, src += 16, panel += 16 * width * 4) {
            __m512 pairs[16];
            FOR_UNROLLED(r, 16) {
                pairs[r] = _mm512_castsi512_ps(look_up_pairs(tables[r], src + r * rows->ld));
                _mm_prefetch((const char *)(src + r * rows->ld + NIBBLE_AHEAD), _MM_HINT_T0);
            }
            store_transposed(pairs, (float *)(void *)panel, width);
        }
    }
}

/* 16 scales, or `count` of them with zeros behind. */
ALWAYS_INLINE vf load_scales(zi_dtype dtype, const uint8_t *scales, int64_t count)
{
    __mmask16 mask = count < 16 ? (__mmask16)((1u << count) - 1) : (__mmask16)0xffff;
    vh bits = (vh)_mm256_maskz_loadu_epi16(mask, scales);
    return dtype == ZI_BF16 ? from_bf16(bits) : dtype == ZI_F16 ? from_f16(bits) : splat(NAN);
}

#define PACK_NIBBLE_PANEL pack_nibble_panel

static void pack_nibble_panel(const zi_nibble_rows *rows, uint8_t *panel, int64_t width)
{
    for (int64_t g = 0; g < rows->groups; g += NIBBLE_GROUPS) {
        int64_t count = rows->groups - g < NIBBLE_GROUPS ? rows->groups - g : NIBBLE_GROUPS;
        vf scales[16], biases[16], checked = {0};
        for (int r = 0; r < 16; r++) {
            scales[r] = load_scales(rows->scale_dtype, rows->scales + r * rows->scale_ld + 2 * g, count);
            biases[r] = load_scales(rows->scale_dtype, rows->biases + r * rows->scale_ld + 2 * g, count);
            checked += scales[r] * 0 + biases[r] * 0;
        }
        if (_mm512_cmp_ps_mask((__m512)checked, (__m512)checked, _CMP_UNORD_Q))
            nibble_groups(rows, g, count, scales, biases, panel, width, 1);
        else
            nibble_groups(rows, g, count, scales, biases, panel, width, 0);
        panel += count * rows->group / 2 * width * 4;
    }
}
