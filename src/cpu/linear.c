/* Linear layers: dot products for a few tokens, float32 products, or a packed gemm (packed.h). */
#include <assert.h>
#include <string.h>

#include "cpu/packed.h"

/* Floats of activations of a task: they should stay in the last-level cache while its panels pass. */
#define CACHED_ACTIVATIONS ((int64_t)2 << 20)
/* If there would be fewer tasks, the tokens are split too. A split has at least SPLIT_TOKENS tokens, because each split
 * unpacks the weights again. */
#define ENOUGH_TASKS 32
#define SPLIT_TOKENS 96
/* A part of the tokens is multiplied with all panels of a group before the next part. A multiple of every mr. */
#define PART_TOKENS 96
/* Outputs of a group of panels. */
#define GROUP_OUTPUTS 128
/* Weights of a task of dot products. */
#define DOT_WEIGHTS ((int64_t)64 << 10)

typedef struct product {
    const zi_cpu_kernels *kernels;
    const zi_weight *weights[2]; /* [out, in]; the second one only for a gated product */
    const zi_tensor *source;     /* x; may be a ZI_OPERAND for a packed gemm */
    zi_tensor *target;           /* y; may be one too, for a gated product */
    const float *x, *bias;
    float *y;
    int accumulate;
    int64_t tokens, in, out;
    int64_t ldx, ldy;             /* floats between tokens of x and of y */
    int64_t panels, group, chunk; /* output panels; panels and tokens of a task */
    int64_t block;                /* inputs of a packed panel */
    zi_worker_buffers buffers;
} product;

/* A worker's buffer, of buffer_floats. */
typedef struct workspace {
    float *rows;   /* [nr][block] unpacked weights */
    float *panels; /* [weights][panel of the group][block][nr] */
    float *c;      /* [weights][panel of the group][chunk rounded up to mr][nr] */
} workspace;

static int64_t weight_count(const product *p)
{
    return p->weights[1] != NULL ? 2 : 1;
}

static int64_t panel_floats(const product *p)
{
    return p->block * p->kernels->nr;
}

/* Sums of a panel. */
static int64_t sums_floats(const product *p)
{
    return zi_round_up(p->chunk, p->kernels->mr) * p->kernels->nr;
}

static int64_t buffer_floats(const product *p)
{
    return panel_floats(p) + weight_count(p) * p->group * (panel_floats(p) + sums_floats(p));
}

static workspace workspace_of(const product *p, int worker)
{
    float *rows = zi_worker_buffer(&p->buffers, worker), *panels = rows + panel_floats(p);
    return (workspace){rows, panels, panels + weight_count(p) * p->group * panel_floats(p)};
}

/* c [panel][token][nr] (+)= inputs [first, first + count) of x times the packed panels. A part of the tokens at a
 * time: its inputs stay in L2 while the panels pass. */
static void multiply(const product *p, int64_t first, int64_t count, const float *x, int64_t tokens, int64_t panels,
                     const workspace *space)
{
    int64_t mr = p->kernels->mr, nr = p->kernels->nr;
    for (int64_t part = 0; part < tokens; part += PART_TOKENS)
        for (int64_t i = 0; i < panels; i++)
            for (int64_t t = part; t < zi_min_int64(part + PART_TOKENS, tokens); t += mr) {
                const float *a[ZI_MR_MAX];
                for (int64_t r = 0; r < mr; r++) /* behind the last token: the last one again */
                    a[r] = x + zi_min_int64(t + r, tokens - 1) * p->ldx + first;
                p->kernels->gemm(1, count, a, 0, 0, space->panels + i * panel_floats(p),
                                 space->c + i * sums_floats(p) + t * nr, nr, first > 0);
            }
}

static void product_task(void *arg, int64_t task, int worker)
{
    const product *p = arg;
    workspace space = workspace_of(p, worker);
    int64_t nr = p->kernels->nr, groups = zi_ceil_div(p->panels, p->group), ld;
    int64_t first = task % groups * p->group, panels = zi_min_int64(p->group, p->panels - first);
    int64_t token = task / groups * p->chunk, tokens = zi_min_int64(p->chunk, p->tokens - token);
    for (int64_t input = 0; input < p->in; input += p->block) {
        int64_t count = zi_min_int64(p->block, p->in - input);
        for (int64_t i = 0; i < weight_count(p) * panels; i++) {
            int64_t row = (first + i % panels) * nr, rows = zi_min_int64(nr, p->out - row);
            const zi_weight_part part = {p->weights[i / panels], p->in, row, rows, input, count};
            const float *source = zi_cpu_weight_rows(p->kernels, &part, space.rows, &ld);
            p->kernels->transpose(source, ld, rows, count, space.panels + i * panel_floats(p), nr);
        }
        multiply(p, input, count, p->x + token * p->ldx, tokens, weight_count(p) * panels, &space);
    }
    zi_cpu_store mode = zi_cpu_store_mode(p->accumulate, p->tokens * p->out);
    for (int64_t i = 0; i < panels; i++) {
        int64_t row = (first + i) * nr, rows = zi_min_int64(nr, p->out - row);
        float *y = p->y + token * p->ldy + row;
        const float *c = space.c + i * sums_floats(p);
        if (p->weights[1] != NULL)
            p->kernels->store_glu(y, p->ldy, c, c + panels * sums_floats(p), nr, tokens, rows, mode);
        else
            p->kernels->store(y, p->ldy, c, nr, tokens, rows, p->bias != NULL ? p->bias + row : NULL, mode);
    }
    p->kernels->stores_done();
}

static zimage_status run_panels(zi_run *run, product *p)
{
    int64_t mr = p->kernels->mr;
    p->panels = zi_ceil_div(p->out, p->kernels->nr);
    p->block = zi_even_block(p->in, ZI_KC);
    int64_t chunks = zi_ceil_div(p->tokens, zi_max_int64(SPLIT_TOKENS, CACHED_ACTIVATIONS / p->in));
    chunks = zi_max_int64(chunks, zi_min_int64(zi_ceil_div(ENOUGH_TASKS, p->panels), p->tokens / SPLIT_TOKENS));
    p->chunk = zi_min_int64(p->tokens, zi_round_up(zi_ceil_div(p->tokens, chunks), mr));
    int64_t splits = zi_ceil_div(p->tokens, p->chunk), most = GROUP_OUTPUTS / p->kernels->nr / weight_count(p);
    p->group = zi_max_int64(1, zi_min_int64(most, p->panels * splits / ENOUGH_TASKS));
    ZI_TRY(zi_cpu_worker_buffers(run, buffer_floats(p), "a product", &p->buffers));
    zi_cpu_run_tasks(run, product_task, p, zi_ceil_div(p->panels, p->group) * splits);
    return ZIMAGE_OK;
}

/* ---- few tokens -------------------------------------------------------------------------------------------------- */

static void dot_task(void *arg, int64_t task, int worker)
{
    const product *p = arg;
    int64_t first = task * p->chunk, last = zi_min_int64(first + p->chunk, p->out), ld;
    for (int64_t o = first; o < last; o++) {
        float sums[ZI_DOT_TOKENS];
        const zi_weight_part part = {p->weights[0], p->in, o, 1, 0, p->in};
        const float *row = zi_cpu_weight_rows(p->kernels, &part, zi_worker_buffer(&p->buffers, worker), &ld);
        p->kernels->dot((int)p->tokens, p->in, p->x, p->ldx, row, sums);
        for (int64_t t = 0; t < p->tokens; t++) {
            float *y = p->y + t * p->ldy + o;
            *y = sums[t] + (p->bias != NULL ? p->bias[o] : 0) + (p->accumulate ? *y : 0);
        }
    }
}

static zimage_status run_dots(zi_run *run, product *p)
{
    p->chunk = zi_max_int64(1, DOT_WEIGHTS / p->in); /* here: outputs of a task */
    ZI_TRY(zi_cpu_worker_buffers(run, p->in, "a weight row", &p->buffers));
    zi_cpu_run_tasks(run, dot_task, p, zi_ceil_div(p->out, p->chunk));
    return ZIMAGE_OK;
}

/* ---- entries ----------------------------------------------------------------------------------------------------- */

static product describe(zi_run *run, zi_tensor *y, const zi_tensor *x, const zi_weight *w1, const zi_weight *w3)
{
    assert(w1->dims == 2 && w1->shape[0] == zi_features(y) && w1->shape[1] == zi_features(x));
    assert(zi_row_count(y) == zi_row_count(x));
    return (product){
        .kernels = zi_cpu_of(run)->kernels,
        .weights = {w1, w3},
        .source = x,
        .target = y,
        .x = zi_f32(x),
        .y = zi_f32(y),
        .tokens = zi_row_count(x),
        .in = zi_features(x),
        .out = zi_features(y),
        .ldx = x->ld,
        .ldy = y->ld,
    };
}

static zimage_status run_products(zi_run *run, product *p)
{
    const zi_cpu *cpu = zi_cpu_of(run);
    const zi_packed_gemm *gemm = zi_packed_gemm_for(cpu, p->weights[0]);
    if (p->weights[1] != NULL && gemm == cpu->linear)
        gemm = zi_packed_gemm_for(cpu, p->weights[1]);
    assert(gemm != NULL || (p->source->dtype == ZI_F32 && p->target->dtype == ZI_F32));
    if (gemm == NULL)
        return run_panels(run, p);
    zi_packed_product packed = {
        .count = p->weights[1] != NULL ? 2 : 1,
        .gated = p->weights[1] != NULL,
        .weights = {p->weights[0], p->weights[1]},
        .y = {p->target},
        .x = p->source,
        .bias = p->bias,
        .tokens = p->tokens,
        .in = p->in,
        .accumulate = p->accumulate,
    };
    return zi_cpu_packed_product(run, gemm, &packed);
}

static zimage_status linear(zi_run *run, product *p, const zi_weight *bias)
{
    if (bias != NULL) {
        assert(zi_weight_count(bias) == p->out);
        float *data;
        ZI_TRY(zi_host_vector(run, bias, &data));
        p->bias = data;
    }
    if (p->tokens <= ZI_DOT_TOKENS)
        return run_dots(run, p);
    return run_products(run, p);
}

zimage_status zi_cpu_linear(zi_run *run, zi_tensor *y, const zi_tensor *x, const zi_weight *weight,
                            const zi_weight *bias, int accumulate)
{
    product p = describe(run, y, x, weight, NULL);
    p.accumulate = accumulate;
    zi_arena_mark mark = zi_host_mark(run);
    zimage_status status = linear(run, &p, bias);
    zi_host_release(run, mark);
    return status;
}

/* Packs the activations once if all products take the same packed gemm; else one product after the other. */
zimage_status zi_cpu_linears(zi_run *run, int count, zi_tensor *y, const zi_tensor *x, const zi_weight *const *weights)
{
    const zi_cpu *cpu = zi_cpu_of(run);
    zi_packed_product all = {.count = count, .x = x, .tokens = zi_row_count(x), .in = zi_features(x)};
    int alike = all.tokens > ZI_DOT_TOKENS;
    assert(count >= 1 && count <= ZI_LINEARS_MAX);
    for (int i = 0; i < count; i++) {
        product p = describe(run, &y[i], x, weights[i], NULL); /* checks the shapes */
        all.weights[i] = p.weights[0];
        all.y[i] = p.target;
        alike &= zi_packed_gemm_for(cpu, weights[i]) == zi_packed_gemm_for(cpu, weights[0]);
    }
    const zi_packed_gemm *gemm = zi_packed_gemm_for(cpu, weights[0]);
    if (alike && gemm != NULL) {
        zi_arena_mark mark = zi_host_mark(run);
        zimage_status status = zi_cpu_packed_product(run, gemm, &all);
        zi_host_release(run, mark);
        return status;
    }
    for (int i = 0; i < count; i++)
        ZI_TRY(zi_cpu_linear(run, &y[i], x, weights[i], NULL, 0));
    return ZIMAGE_OK;
}

/* The gated product to a ZI_OPERAND that only takes whole rows. */
static zimage_status gated_rows(zi_run *run, const product *p)
{
    zi_tensor plain;
    ZI_TRY(zi_host_alloc(run, &plain, 2, p->target->shape));
    product whole = *p;
    whole.target = &plain;
    whole.y = zi_f32(&plain);
    whole.ldy = plain.ld;
    ZI_TRY(run_products(run, &whole));
    zi_cpu_pack_all(run, p->target, whole.y);
    return ZIMAGE_OK;
}

zimage_status zi_cpu_linear_glu(zi_run *run, zi_tensor *y, const zi_tensor *x, const zi_weight *w1, const zi_weight *w3)
{
    assert(w3->dims == 2 && w3->shape[0] == w1->shape[0] && w3->shape[1] == w1->shape[1]);
    product p = describe(run, y, x, w1, w3);
    zi_arena_mark mark = zi_host_mark(run);
    zimage_status status = zi_cpu_takes_parts(y) ? run_products(run, &p) : gated_rows(run, &p);
    zi_host_release(run, mark);
    return status;
}
