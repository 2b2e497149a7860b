/*
 * Groups of 4-bit numbers with AVX2. A group can hold only 16 different numbers: they are packed once, into tables of
 * bytes, and each 4-bit number is an index into them. kernels_tier.h includes it where LANES is 8.
 */

/* The tables of a group: the low bytes of its numbers, and their high bytes if they have two. */
typedef struct nibble_table {
    __m128i low, high;
} nibble_table;

ALWAYS_INLINE nibble_table make_table(zi_cpu_number number, float scale, float bias, float factor)
{
    _Alignas(16) uint8_t bytes[16];
    _Alignas(16) uint16_t halves[16];
    FOR_UNROLLED_BY(i, 16, LANES) {
        vf q;
        FOR_UNROLLED(lane, LANES)
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

/* 32 packed numbers from 16 bytes of nibbles. */
ALWAYS_INLINE void look_up(zi_cpu_number number, const nibble_table *table, const uint8_t *src, uint8_t *out)
{
    __m128i pairs = _mm_loadu_si128((const __m128i *)(const void *)src), mask = _mm_set1_epi8(15), *to = (__m128i *)out;
    __m128i even = _mm_and_si128(pairs, mask), odd = _mm_and_si128(_mm_srli_epi16(pairs, 4), mask);
    __m128i q[2] = {_mm_unpacklo_epi8(even, odd), _mm_unpackhi_epi8(even, odd)};
    FOR_UNROLLED(i, 2) {
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

#define PACK_NIBBLE_PANEL NULL

/* Returns 0: this tier has no faster way to bf16 than look_up. */
static inline int nibbles_to_bf16(int64_t group, const uint8_t *src, const float *scales, const float *biases,
                                  int64_t groups, uint8_t *out, int64_t stride)
{
    return 0;
}
