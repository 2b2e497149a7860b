/* Kernels of passes over rows: activation functions, softmax, norms, rotary positions, statistics. Only kernels_tier.h
 * includes it. */

static void silu(float *y, const float *x, int64_t n)
{
    for (int64_t i = 0; i < n; i += LANES)
        store_part(y + i, silu_vector(load_part(x + i, n - i)), n - i);
}

static void affine(float *y, const float *x, const float *scale, const float *shift, int64_t pixels, int64_t channels,
                   int with_silu)
{
    for (int64_t p = 0; p < pixels; p++, x += channels, y += channels)
        for (int64_t i = 0; i < channels; i += LANES) {
            int64_t n = channels - i;
            vf v = load_part(x + i, n) * load_part(scale + i, n) + load_part(shift + i, n);
            store_part(y + i, with_silu ? silu_vector(v) : v, n);
        }
}

static void multiply(float *y, const float *x, float factor, int64_t n)
{
    for (int64_t i = 0; i < n; i += LANES)
        store_part(y + i, load_part(x + i, n - i) * splat(factor), n - i);
}

static void add(float *y, const float *x, int64_t n)
{
    for (int64_t i = 0; i < n; i += LANES)
        store_part(y + i, load_part(y + i, n - i) + load_part(x + i, n - i), n - i);
}

/* ---- softmax ----------------------------------------------------------------------------------------------------- */

/* max, or the largest of scale * s[i]. softmax computes powers of 2, so its scale includes log2(e). */
static inline float row_max(const float *s, int64_t n, float scale, float max)
{
    vf tops[2] = {splat(-INFINITY), splat(-INFINITY)}; /* two chains hide the latency */
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
        vf e = exp2_vector(load_part(s + i, n - i) * splat(scale) - splat(top));
        store_part(s + i, e, n - i);
        if (n - i < LANES) /* zeros in the lanes behind the row */
            e = load_part(s + i, n - i);
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
        vf v = load_part(x + i, n - i);
        a += v * v;
    }
    return rms_factor(a, b, n, eps);
}

static void rms_norm(float *y, const float *x, const float *gain, int64_t n, float eps)
{
    vf factor = splat(row_rms_factor(x, n, eps));
    for (int64_t i = 0; i < n; i += LANES)
        store_part(y + i, load_part(x + i, n - i) * factor * load_part(gain + i, n - i), n - i);
}

/* The rounded mean is a little off. So the second pass, over the deviations d from it, also finds the mean of d, and
 * corrects the mean and the variance by it. */
static void layer_norm(float *y, const float *x, const float *gain, int64_t n, float eps)
{
    vf total = {0}, deviations = {0}, squares = {0};
    for (int64_t i = 0; i < n; i += LANES)
        total += load_part(x + i, n - i);
    vf mean = splat(sum_lanes(total) / (float)n);
    for (int64_t i = 0; i < n; i += LANES) {
        vf d = load_part(x + i, n - i) - mean;
        if (n - i < LANES)
            d = load_part((const float *)&d, n - i); /* zeros in the lanes behind the row */
        deviations += d;
        squares += d * d;
    }
    float rest = sum_lanes(deviations) / (float)n;
    vf factor = splat(1.0f / sqrtf(sum_lanes(squares) / (float)n - rest * rest + eps));
    for (int64_t i = 0; i < n; i += LANES)
        store_part(y + i, (load_part(x + i, n - i) - mean - splat(rest)) * factor * load_part(gain + i, n - i), n - i);
}

static int all_finite(const float *x, int64_t n)
{
    lane_set bad = {0};
    int64_t i = 0;
    for (; i + 2 * LANES <= n; i += 2 * LANES)
        bad |= not_finite(load(x + i)) | not_finite(load(x + i + LANES));
    for (; i < n; i += LANES)
        bad |= not_finite(load_part(x + i, n - i));
    return !any_lane(bad);
}

static int add_scaled(float *x, const float *y, const float *gain, int64_t n)
{
    lane_set bad = {0};
    for (int64_t i = 0; i < n; i += LANES) {
        vf v = load_part(x + i, n - i) + load_part(y + i, n - i) * load_part(gain + i, n - i);
        store_part(x + i, v, n - i);
        bad |= not_finite(v);
    }
    return !any_lane(bad);
}

static int residual(float *x, const float *y, const float *gain, float *h, const float *gain_next, int64_t n, float eps)
{
    vf factor = splat(row_rms_factor(y, n, eps)), squares = {0};
    for (int64_t i = 0; i < n; i += LANES) {
        vf v = load_part(x + i, n - i) + load_part(y + i, n - i) * factor * load_part(gain + i, n - i);
        store_part(x + i, v, n - i);
        squares += v * v;
    }
    int finite = isfinite(sum_lanes(squares)) || all_finite(x, n); /* squares of finite elements may overflow */
    if (h == NULL)
        return finite;
    factor = splat(rms_factor(squares, (vf){0}, n, eps));
    for (int64_t i = 0; i < n; i += LANES)
        store_part(h + i, load_part(x + i, n - i) * factor * load_part(gain_next + i, n - i), n - i);
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
        store_part(x + i, load_part(x + i, n) * load_part(cos + i, n) + load_part(t + i, n) * load_part(sin + i, n), n);
    }
}

/* ---- statistics -------------------------------------------------------------------------------------------------- */

static void channel_sums(double *sums, const float *x, int64_t pixels, int64_t channels)
{
    for (int64_t c = 0; c < channels; c += LANES) {
        vd sum = {0}, squares = {0};
        for (int64_t p = 0; p < pixels; p++) {
            vd v = __builtin_convertvector(load_part(x + p * channels + c, channels - c), vd);
            sum += v;
            squares += v * v;
        }
        for (int i = 0; i < LANES && c + i < channels; i++) {
            sums[c + i] += sum[i];
            sums[channels + c + i] += squares[i];
        }
    }
}
