/* Groups of 4-bit numbers without an instruction that looks up bytes: each number is computed. kernels_tier.h
 * includes it where LANES is 4. */

typedef struct nibble_table {
    float scale, bias, factor;
} nibble_table;

static inline nibble_table make_table(zi_cpu_number number, float scale, float bias, float factor)
{
    return (nibble_table){scale, bias, factor};
}

/* 32 packed numbers from 16 bytes of nibbles. */
ALWAYS_INLINE void look_up(zi_cpu_number number, const nibble_table *table, const uint8_t *src, uint8_t *out)
{
    const int64_t size = ZI_CHUNK / zi_numbers_per_chunk(number);
    float numbers[32]; /* two loops, because the constants of both do not fit the registers */
    for (int i = 0; i < 32; i += LANES)
        store(numbers + i, from_4_bits(src + i / 2) * splat(table->scale) + splat(table->bias));
    for (int i = 0; i < 32; i += LANES)
        put_packed(number, load(numbers + i) * splat(table->factor), out + size * i);
}

#define PACK_NIBBLE_PANEL NULL

/* Returns 0: this tier has no faster way to bf16 than look_up. */
static inline int nibbles_to_bf16(int64_t group, const uint8_t *src, const float *scales, const float *biases,
                                  int64_t groups, uint8_t *out, int64_t stride)
{
    return 0;
}
