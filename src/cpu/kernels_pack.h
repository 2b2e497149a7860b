/*
 * Kernels that convert and pack: stored weights to float32, and stored weights, activations and the weights of softmax
 * to packed bf16 or integers (kernels.h). Only kernels_tier.h includes it.
 */

/* ---- to float32 -------------------------------------------------------------------------------------------------- */

ALWAYS_INLINE void unpack_halves(vf (*convert)(vh bits), const uint8_t *src, int64_t count, float *dst)
{
    vh bits = {0};
    int64_t i = 0;
    for (; i + LANES <= count; i += LANES) {
        memcpy(&bits, src + 2 * i, sizeof(bits));
        store(dst + i, convert(bits));
    }
    if (i < count) {
        memcpy(&bits, src + 2 * i, (size_t)(count - i) * 2);
        store_part(dst + i, convert(bits), count - i);
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

static void unpack_groups(int bits, int64_t group, const uint8_t *src, const float *scales, const float *biases,
                          int64_t groups, float *dst)
{
    for (int64_t g = 0; g < groups; g++) {
        vf scale = splat(scales[g]), bias = splat(biases[g]);
        if (bits == 4)
            for (int64_t i = 0; i < group; i += LANES, src += LANES / 2, dst += LANES)
                store(dst, from_4_bits(src) * scale + bias);
        else
            for (int64_t i = 0; i < group; i += LANES, src += LANES, dst += LANES)
                store(dst, from_8_bits(src) * scale + bias);
    }
}

/* ---- packing ----------------------------------------------------------------------------------------------------- */

/* LANES stored numbers from number i of n on, at any address; zeros behind the last. */
static inline vf load_stored(zi_dtype dtype, const uint8_t *src, int64_t i, int64_t n)
{
    vf v = {0};
    vh bits = {0};
    void *target = dtype == ZI_F32 ? (void *)&v : (void *)&bits;
    const int64_t size = dtype == ZI_F32 ? 4 : 2;
    if (n - i >= LANES) /* memcpy of a constant length is one load */
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

/* One chunk from n numbers; zeros behind the last. */
ALWAYS_INLINE void pack_chunk(zi_cpu_number number, zi_dtype dtype, const uint8_t *src, int64_t n, vf factor,
                              uint8_t *out)
{
    const int64_t numbers = number == ZI_NUMBER_BF16 || number == ZI_NUMBER_I16 ? 32 : 64;
    for (int64_t i = 0; i < numbers; i += LANES) {
        vf v = i < n ? load_stored(dtype, src, i, n) * factor : (vf){0};
        put_packed(number, v, out + (numbers == 32 ? 2 * i : i));
    }
}

ALWAYS_INLINE void pack_as(const zi_cpu_number number, const zi_dtype dtype, const uint8_t *src, int64_t n,
                           float factor, uint8_t *out, int64_t stride)
{
    const int64_t step = number == ZI_NUMBER_BF16 || number == ZI_NUMBER_I16 ? 32 : 64;
    for (; n >= step; n -= step, src += step * (dtype == ZI_F32 ? 4 : 2), out += stride)
        pack_chunk(number, dtype, src, step, splat(factor), out);
    if (n > 0)
        pack_chunk(number, dtype, src, n, splat(factor), out);
}

ALWAYS_INLINE void pack_from(const zi_dtype dtype, zi_cpu_number number, const uint8_t *src, int64_t n, float factor,
                             uint8_t *out, int64_t stride)
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
    default: /* all bits set are a NaN in bf16; `largest` is NaN, too, and becomes the scale of integers */
        for (int64_t i = 0; i < n; i += zi_numbers_per_chunk(number), out += stride)
            memset(out, 0xff, ZI_CHUNK);
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

static void pack_pairs(const float *a, const float *b, int64_t n, uint32_t *out)
{
    for (int64_t i = 0; i < n; i += LANES) {
        vu low = __builtin_convertvector(to_bf16(load_part(a + i, n - i)), vu);
        vu high = __builtin_convertvector(to_bf16(load_part(b + i, n - i)), vu);
        store_part((float *)(void *)(out + i), (vf)(low | high << 16), n - i);
    }
}

/* ---- groups of 4 bits -------------------------------------------------------------------------------------------- */

/* Nine parameters, those of the kernel pack_nibbles, in which it is inlined with a constant `number`. */
ALWAYS_INLINE void nibbles_as(const zi_cpu_number number, int64_t group, const uint8_t *src, const float *scales,
                              const float *biases, int64_t groups, float factor, uint8_t *out, int64_t stride)
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

static void pack_nibbles(zi_cpu_number number, int64_t group, const uint8_t *src, const float *scales,
                         const float *biases, int64_t groups, float factor, uint8_t *out, int64_t stride)
{
    if (number == ZI_NUMBER_BF16 && factor == 1 && nibbles_to_bf16(group, src, scales, biases, groups, out, stride))
        return;
    if (number == ZI_NUMBER_BF16)
        nibbles_as(ZI_NUMBER_BF16, group, src, scales, biases, groups, factor, out, stride);
    else if (number == ZI_NUMBER_I16)
        nibbles_as(ZI_NUMBER_I16, group, src, scales, biases, groups, factor, out, stride);
    else if (number == ZI_NUMBER_I8)
        nibbles_as(ZI_NUMBER_I8, group, src, scales, biases, groups, factor, out, stride);
    else
        nibbles_as(ZI_NUMBER_U8, group, src, scales, biases, groups, factor, out, stride);
}

/* ---- softmax ----------------------------------------------------------------------------------------------------- */

/*
 * The weights of softmax in bf16, composed as integers: 2^n p with p = 2^(1/2) 2^r, |r| <= 1/2.
 *
 * Adding p to 65536 rounds it to bf16: the sum has the bits 0x47800000 + m, where m is 128 p rounded to nearest. The
 * bits of the weight in bf16 are ((n + 126) << 7) + m. The bits of the float WHOLE + n, shifted left by 7, are (n +
 * 126) << 7 less 0x47800000, modulo 2^32. So the weight is the sum of both words.
 *
 * HALF stands for 2^(1/2). It is a multiple of 1/128, so adding it loses no bit. All weights have this factor, and so
 * do their sums. The polynomial errs by at most 2.8e-6 of the value (found by linear programming), bf16 by 2e-3 to
 * 4e-3.
 */
#define WHOLE    15794302.0f
#define HALF     1.4140625f
#define SMALLEST -1000.0f /* the least exponent: the sum of the words is negative, and becomes 0 */

/* LANES weights as integers. top: the maximum plus 1/2, so that the largest weight is 1 without rounding. */
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

/* Writes 32 weights and adds them to total. */
static inline void store_weights(const float *s, vf scale, vf top, vf total[2], uint8_t *out)
{
    FOR_UNROLLED_BY(j, 16, LANES) {
        vu pairs = interleave_fours(weight_bits(load(s + j), scale, top), weight_bits(load(s + j + 16), scale, top));
        total[0] += (vf)(pairs << 16);
        total[1] += (vf)(pairs & 0xffff0000);
        memcpy(out + j * 4, &pairs, sizeof(pairs));
    }
}

/* The largest of n > 0 scores. *zero: 0, or NaN if a score is not finite. */
static inline float largest_score(const float *s, int64_t n, float *zero)
{
    vf tops[2] = {splat(-INFINITY), splat(-INFINITY)}, zeros[2] = {{0}, {0}};
    int64_t i = 0;
    for (; i + 2 * LANES <= n; i += 2 * LANES)
        FOR_UNROLLED(k, 2) {
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

/* Writes the weights of one row. Returns their sum. */
static inline float row_weights(const float *s, int64_t n, int64_t padded, float scale, float top, uint8_t *out,
                                int64_t stride)
{
    vf total[2] = {{0}, {0}};
    int64_t i = 0;
    for (; i + 32 <= n; i += 32, out += stride)
        store_weights(s + i, splat(scale), splat(top), total, out);
    if (i < n) {
        float rest[32];
        for (int64_t k = 0; k < 32; k++)
            rest[k] = k < n - i ? s[i + k] : -INFINITY;
        store_weights(rest, splat(scale), splat(top), total, out);
        i += 32;
        out += stride;
    }
    for (; i < padded; i += 32, out += stride)
        memset(out, 0, ZI_CHUNK);
    return sum_lanes(total[0] + total[1]);
}

/* First the maxima of so many rows, then their weights: no row waits for its maximum, and L1 still has the scores. */
#define SOFTMAX_ROWS 8
/* A maximum that would rise by less stays as it is. Weights reach 2^RISE then, and sums need not be multiplied. */
#define RISE 8

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

/* ---- magnitudes and scales --------------------------------------------------------------------------------------- */

/* The bits of magnitudes, as integers, have the order of the magnitudes; infinities and NaN are above all numbers. */
ALWAYS_INLINE float largest_of(const zi_dtype dtype, const uint8_t *src, int64_t n)
{
    vi tops = {0};
    for (int64_t i = 0; i < n; i += LANES)
        tops = larger_integer((vi)load_stored(dtype, src, i, n) & 0x7fffffff, tops);
    int32_t top = 0;
    for (int lane = 0; lane < LANES; lane++)
        top = tops[lane] > top ? tops[lane] : top;
    float result;
    memcpy(&result, &top, sizeof(result));
    return result;
}

/* The same for bf16, in 16 bits. */
static float largest_bf16(const uint8_t *src, int64_t n)
{
    vw tops = {0}, v;
    int64_t i = 0;
    for (; i + 2 * LANES <= n; i += 2 * LANES) {
        memcpy(&v, src + 2 * i, sizeof(v));
        tops = larger_halves(tops, v & 0x7fff);
    }
    uint16_t top = 0;
    for (int lane = 0; lane < 2 * LANES; lane++)
        top = tops[lane] > top ? tops[lane] : top;
    for (; i < n; i++) {
        uint16_t bits;
        memcpy(&bits, src + 2 * i, sizeof(bits));
        top = (bits & 0x7fff) > top ? bits & 0x7fff : top;
    }
    return zi_bf16_to_f32(top);
}

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
