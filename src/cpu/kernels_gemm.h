/* Kernels of products: the tile of gemm, dot products, panels of weights, epilogues. Only kernels_tier.h includes
 * it. */

static void gemm(int64_t segments, int64_t k, const float *const *a, int64_t step, int64_t offset, const float *b,
                 float *c, int64_t ldc, int accumulate)
{
    vf sums[MR][NV];
    FOR_UNROLLED(r, MR)
        FOR_UNROLLED(j, NV)
            sums[r][j] = (vf){0};
    for (int64_t s = 0; s < segments; s++, a += step) {
        const float *rows[MR];
        FOR_UNROLLED(r, MR)
            rows[r] = a[r] + offset;
        for (int64_t i = 0; i < k; i++, b += NR) {
            vf panel[NV];
            FOR_UNROLLED(j, NV)
                panel[j] = load(b + j * LANES);
            FOR_UNROLLED(r, MR) {
                vf x = splat(rows[r][i]);
                FOR_UNROLLED(j, NV)
                    sums[r][j] += x * panel[j];
            }
        }
    }
    FOR_UNROLLED(r, MR)
        FOR_UNROLLED(j, NV) {
            float *p = c + r * ldc + j * LANES;
            store(p, accumulate ? load(p) + sums[r][j] : sums[r][j]);
        }
}

/* So many independent sums hide the latency of a multiply-add. */
#define DOT_CHAINS 4

ALWAYS_INLINE void dot_tokens(const int tokens, int64_t k, const float *x, int64_t ldx, const float *w, float *out)
{
    const int chains = tokens == 1 ? DOT_CHAINS : DOT_CHAINS / 2;
    vf sums[ZI_DOT_TOKENS][DOT_CHAINS] = {{{0}}};
    int64_t i = 0;
    for (; i + chains * LANES <= k; i += chains * LANES)
        FOR_UNROLLED(t, tokens)
            FOR_UNROLLED(j, chains)
                sums[t][j] += load(x + t * ldx + i + j * LANES) * load(w + i + j * LANES);
    for (; i < k; i += LANES)
        for (int t = 0; t < tokens; t++)
            sums[t][0] += load_part(x + t * ldx + i, k - i) * load_part(w + i, k - i);
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

/* ---- panels ------------------------------------------------------------------------------------------------------ */

ALWAYS_INLINE void transpose_to(const void *source, int64_t ld, int64_t count, int64_t k, void *target,
                                const int64_t width)
{
    const float *rows = source;
    float *panel = target;
    int64_t done = transpose_squares(rows, ld, count, k, panel, width);
    for (int64_t n = 0; n < width; n += 4) {
        int64_t i = done;
        if (n + 4 <= count)
            for (; i + 4 <= k; i += 4)
                transpose_four(rows + n * ld + i, ld, panel + i * width + n, width);
        for (; i < k; i++)
            for (int64_t r = n; r < n + 4; r++) {
                if (r < count)
                    memcpy(panel + i * width + r, rows + r * ld + i, sizeof(float));
                else
                    panel[i * width + r] = 0;
            }
    }
}

/* The compiler knows the usual widths. */
static void transpose(const void *source, int64_t ld, int64_t count, int64_t k, void *target, int64_t width)
{
    if (width == 16)
        transpose_to(source, ld, count, k, target, 16);
    else if (width == 32)
        transpose_to(source, ld, count, k, target, 32);
    else
        transpose_to(source, ld, count, k, target, width);
}

/* ---- epilogues --------------------------------------------------------------------------------------------------- */

static void stores_done(void)
{
    fence_stores();
}

static void store_tile(float *y, int64_t ldy, const float *c, int64_t ldc, int64_t rows, int64_t columns,
                       const float *bias, zi_cpu_store mode)
{
    for (int64_t r = 0; r < rows; r++, y += ldy, c += ldc)
        for (int64_t i = 0; i < columns; i += LANES) {
            vf v = load(c + i);
            if (bias != NULL)
                v += load_part(bias + i, columns - i);
            if (mode == ZI_STORE_ADD)
                v += load_part(y + i, columns - i);
            store_part_as(mode, y + i, v, columns - i);
        }
}

static void store_glu(float *y, int64_t ldy, const float *gate, const float *up, int64_t ldc, int64_t rows,
                      int64_t columns, zi_cpu_store mode)
{
    for (int64_t r = 0; r < rows; r++, y += ldy, gate += ldc, up += ldc)
        for (int64_t i = 0; i < columns; i += LANES)
            store_part_as(mode, y + i, silu_vector(load(gate + i)) * load(up + i), columns - i);
}

/* ---- the registers' peak ----------------------------------------------------------------------------------------- */

/* So many independent sums hide the latency of two multiply-adds a cycle, and with two factors they fit 16
 * registers. */
#define PEAK_SUMS 12

/* s = s * a + b, because a compiler would compute the product of s += a * b only once. */
UNSANITIZED static double peak(int64_t rounds, float *sink)
{
    vf sums[PEAK_SUMS], a = splat(*sink * 0 + 0.75f), b = splat(*sink * 0 + 0.125f);
    FOR_UNROLLED(j, PEAK_SUMS)
        sums[j] = splat((float)j);
    for (int64_t i = 0; i < rounds; i++)
        FOR_UNROLLED(j, PEAK_SUMS)
            sums[j] = sums[j] * a + b;
    for (int j = 1; j < PEAK_SUMS; j++)
        sums[0] += sums[j];
    *sink = sum_lanes(sums[0]);
    return 2.0 * LANES * PEAK_SUMS * (double)rounds;
}
