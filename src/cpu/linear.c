/* Products with stored weights. */
#include <assert.h>
#include <string.h>

#include "cpu/packed.h"

/* Activations of one task should stay in the last-level cache while its panels pass: floats. */
#define CACHED_ACTIVATIONS ((int64_t)2 << 20)
/* Fewer tasks than this and tokens are split too, but not below SPLIT_TOKENS: each part unpacks its weights again. */
#define ENOUGH_TASKS 32
#define SPLIT_TOKENS 96
/* Weights of one task of the path for few tokens. */
#define DOT_WEIGHTS ((int64_t)64 << 10)

typedef struct product {
    const zi_cpu_kernels *kernels;
    const zi_weight *weights[2]; /* [out, in]; the second one for the gated product */
    const float *x, *bias;
    float *y;
    int accumulate;
    int64_t tokens, in, out;
    int64_t panels, chunk; /* output panels; tokens of a task */
    int64_t block;         /* inputs of a packed panel */
    zi_worker_buffers buffers;
} product;

/* The layout of a worker's buffer, sized by buffer_floats. */
typedef struct workspace {
    float *rows;  /* [nr][block] unpacked */
    float *panel; /* [block][nr] */
    float *c[2];  /* [chunk rounded up to mr][nr] */
} workspace;

static int64_t sums_floats(const product *p)
{
    return zi_round_up(p->chunk, p->kernels->mr) * p->kernels->nr;
}

static int64_t buffer_floats(const product *p)
{
    return 2 * p->block * p->kernels->nr + 2 * sums_floats(p);
}

static workspace workspace_of(const product *p, int worker)
{
    float *buffer = zi_worker_buffer(&p->buffers, worker);
    int64_t panel = p->block * p->kernels->nr;
    return (workspace){buffer, buffer + panel, {buffer + 2 * panel, buffer + 2 * panel + sums_floats(p)}};
}

/* c [tokens][nr] = x [tokens][in] times weight rows [row, row + rows) */
static void panel_product(const product *p, const zi_weight *weight, int64_t row, int64_t rows, const float *x,
                          int64_t tokens, const workspace *space, float *c)
{
    int64_t mr = p->kernels->mr, nr = p->kernels->nr, ld;
    for (int64_t first = 0; first < p->in; first += p->block) {
        int64_t count = zi_min(p->block, p->in - first);
        const float *source = zi_cpu_weight_rows(p->kernels, weight, p->in, row, rows, first, count, space->rows, &ld);
        p->kernels->transpose(source, ld, rows, count, space->panel, nr);
        for (int64_t t = 0; t < tokens; t += mr) {
            const float *a[ZI_MR_MAX];
            for (int64_t r = 0; r < mr; r++) /* behind the last token: the last one again, never stored */
                a[r] = x + zi_min(t + r, tokens - 1) * p->in + first;
            p->kernels->gemm(1, count, a, 0, 0, space->panel, c + t * nr, nr, first > 0);
        }
    }
}

static void product_task(void *arg, int64_t task, int worker)
{
    const product *p = arg;
    workspace space = workspace_of(p, worker);
    int64_t nr = p->kernels->nr;
    int64_t row = task % p->panels * nr, rows = zi_min(nr, p->out - row);
    int64_t token = task / p->panels * p->chunk, tokens = zi_min(p->chunk, p->tokens - token);
    const float *x = p->x + token * p->in;
    float *y = p->y + token * p->out + row;
    panel_product(p, p->weights[0], row, rows, x, tokens, &space, space.c[0]);
    if (p->weights[1] != NULL) {
        panel_product(p, p->weights[1], row, rows, x, tokens, &space, space.c[1]);
        p->kernels->store_glu(y, p->out, space.c[0], space.c[1], nr, tokens, rows);
    } else {
        p->kernels->store(y, p->out, space.c[0], nr, tokens, rows, p->bias != NULL ? p->bias + row : NULL,
                          p->accumulate);
    }
}

static zimage_status run_panels(zi_ops *ops, product *p)
{
    int64_t mr = p->kernels->mr;
    p->panels = zi_ceil_div(p->out, p->kernels->nr);
    p->block = zi_even_block(p->in, ZI_KC);
    int64_t chunks = zi_ceil_div(p->tokens, zi_max(SPLIT_TOKENS, CACHED_ACTIVATIONS / p->in));
    chunks = zi_max(chunks, zi_min(zi_ceil_div(ENOUGH_TASKS, p->panels), p->tokens / SPLIT_TOKENS));
    p->chunk = zi_min(p->tokens, zi_round_up(zi_ceil_div(p->tokens, chunks), mr));
    ZI_TRY(zi_cpu_worker_buffers(ops, buffer_floats(p), "a product", &p->buffers));
    zi_pool_run(zi_cpu_of(ops)->pool, product_task, p, p->panels * zi_ceil_div(p->tokens, p->chunk));
    return ZIMAGE_OK;
}

/* ---- few tokens -------------------------------------------------------------------------------------------------- */

static void dot_task(void *arg, int64_t task, int worker)
{
    const product *p = arg;
    int64_t first = task * p->chunk, last = zi_min(first + p->chunk, p->out), ld;
    for (int64_t o = first; o < last; o++) {
        float sums[ZI_DOT_TOKENS];
        const float *row = zi_cpu_weight_rows(p->kernels, p->weights[0], p->in, o, 1, 0, p->in,
                                              zi_worker_buffer(&p->buffers, worker), &ld);
        p->kernels->dot((int)p->tokens, p->in, p->x, p->in, row, sums);
        for (int64_t t = 0; t < p->tokens; t++) {
            float *y = p->y + t * p->out + o;
            *y = sums[t] + (p->bias != NULL ? p->bias[o] : 0) + (p->accumulate ? *y : 0);
        }
    }
}

static zimage_status run_dots(zi_ops *ops, product *p)
{
    p->chunk = zi_max(1, DOT_WEIGHTS / p->in); /* outputs of a task */
    ZI_TRY(zi_cpu_worker_buffers(ops, p->in, "a weight row", &p->buffers));
    zi_pool_run(zi_cpu_of(ops)->pool, dot_task, p, zi_ceil_div(p->out, p->chunk));
    return ZIMAGE_OK;
}

/* ---- entries ----------------------------------------------------------------------------------------------------- */

static product describe(zi_ops *ops, zi_tensor *y, const zi_tensor *x, const zi_weight *w1, const zi_weight *w3)
{
    assert(w1->dims == 2 && w1->shape[0] == zi_features(y) && w1->shape[1] == zi_features(x));
    assert(zi_row_count(y) == zi_row_count(x));
    return (product){
        .kernels = zi_cpu_of(ops)->kernels,
        .weights = {w1, w3},
        .x = zi_f32(x),
        .y = zi_f32(y),
        .tokens = zi_row_count(x),
        .in = zi_features(x),
        .out = zi_features(y),
    };
}

static zimage_status run_products(zi_ops *ops, product *p)
{
    const zi_cpu *cpu = zi_cpu_of(ops);
    int precise = p->weights[0]->precise || (p->weights[1] != NULL && p->weights[1]->precise);
    const zi_cpu_packed *family = precise ? cpu->bf16 : cpu->linear; /* they differ in int8 computation only */
    if (family == NULL)
        return run_panels(ops, p);
    zi_packed_product packed = {
        {p->weights[0], p->weights[1]}, p->x, p->bias, p->y, p->tokens, p->in, p->out, p->accumulate};
    return zi_cpu_packed_product(ops, family, &packed);
}

static zimage_status linear(zi_ops *ops, product *p, const zi_weight *bias)
{
    if (bias != NULL) {
        assert(zi_weight_count(bias) == p->out);
        float *data;
        ZI_TRY(zi_host_vector(ops, bias, &data));
        p->bias = data;
    }
    if (p->tokens <= ZI_DOT_TOKENS)
        return run_dots(ops, p);
    return run_products(ops, p);
}

zimage_status zi_cpu_linear(zi_ops *ops, zi_tensor *y, const zi_tensor *x, const zi_weight *weight,
                            const zi_weight *bias, int accumulate)
{
    product p = describe(ops, y, x, weight, NULL);
    p.accumulate = accumulate;
    zi_arena_mark mark = zi_host_mark(ops);
    zimage_status status = linear(ops, &p, bias);
    zi_host_release(ops, mark);
    return status;
}

zimage_status zi_cpu_linear_glu(zi_ops *ops, zi_tensor *y, const zi_tensor *x, const zi_weight *w1, const zi_weight *w3)
{
    assert(w3->dims == 2 && w3->shape[0] == w1->shape[0] && w3->shape[1] == w1->shape[1]);
    product p = describe(ops, y, x, w1, w3);
    zi_arena_mark mark = zi_host_mark(ops);
    zimage_status status = run_products(ops, &p);
    zi_host_release(ops, mark);
    return status;
}
