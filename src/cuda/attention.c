/* Attention: by our own kernel for compute capability 9.0 where it fits, else by cuDNN where it has an engine for the
 * sizes, else by our own kernel for any GPU, else by matrix products of a part of the queries at a time. */
#include <assert.h>
#include <math.h>

#include "cuda/entries.h"
#include "cuda/graphs.h"
#include "cuda/operand.h"
#include "cuda/products.h"
#include "cuda/residency.h"
#include "ops/shapes.h"

#define LOGITS_BYTES ((int64_t)256 << 20) /* of logits at a time */

/* One group of query heads that share keys and values. */
typedef struct group {
    const zi_cuda_attention *args;
    int64_t members, first_head, chunk; /* members: heads of the group; chunk: queries at a time */
    float *logits;
    void *weights; /* the softmax in the compute type; in place if that is float32 */
} group;

static zimage_status attend_chunk(zi_cuda *cuda, const group *g, int64_t first)
{
    const zi_cuda_attention *a = g->args;
    int64_t rows = a->queries - first < g->chunk ? a->queries - first : g->chunk, dim = a->head_dim;
    int64_t head = g->first_head * dim, kv = g->first_head / g->members * dim;
    const zi_cuda_product logits = {.rows = rows,
                                    .out = a->keys,
                                    .in = dim,
                                    .type = cuda->type,
                                    .y_type = ZI_F32,
                                    .ldx = a->ldq,
                                    .ldw = a->ldk,
                                    .batch = (int)g->members,
                                    .step_x = dim,
                                    .step_y = rows * a->keys};
    const zi_cuda_product outputs = {.rows = rows,
                                     .out = dim,
                                     .in = a->keys,
                                     .type = cuda->type,
                                     .y_type = cuda->type,
                                     .ldw = a->ldv,
                                     .ldy = a->ldo,
                                     .inputs_first = 1,
                                     .batch = (int)g->members,
                                     .step_x = rows * a->keys,
                                     .step_y = dim};
    ZI_TRY(zi_cuda_multiply(cuda, &logits, g->logits, zi_cuda_at((void *)a->q, cuda->type, first * a->ldq + head),
                            zi_cuda_at((void *)a->k, cuda->type, kv)));
    ZI_CUDA_TRY(cuda,
                zi_cuda_softmax(cuda->type, g->weights, g->logits, g->members, rows, a->keys, 1.0f / sqrtf((float)dim),
                                a->causal, first, cuda->stream),
                "a softmax");
    return zi_cuda_multiply(cuda, &outputs, zi_cuda_at(a->o, cuda->type, first * a->ldo + head), g->weights,
                            zi_cuda_at((void *)a->v, cuda->type, kv));
}

/* o may be q: the queries of a chunk have been read when its results are written. */
static zimage_status by_products(zi_cuda *cuda, const zi_cuda_attention *a)
{
    group g = {.args = a, .members = a->heads / a->kv_heads};
    g.chunk = LOGITS_BYTES / (g.members * a->keys * (int64_t)sizeof(float));
    g.chunk = g.chunk < 1 ? 1 : g.chunk < a->queries ? g.chunk : a->queries;
    size_t count = (size_t)(g.members * g.chunk * a->keys);
    ZI_TRY(zi_cuda_stack_alloc(cuda, count * sizeof(float), "attention", (void **)&g.logits));
    g.weights = g.logits;
    if (cuda->type != ZI_F32)
        ZI_TRY(zi_cuda_stack_alloc(cuda, count * zi_dtype_size(cuda->type), "attention", &g.weights));
    for (int64_t kv = 0; kv < a->kv_heads; kv++) {
        g.first_head = kv * g.members;
        for (int64_t first = 0; first < a->queries; first += g.chunk)
            ZI_TRY(attend_chunk(cuda, &g, first));
    }
    return ZIMAGE_OK;
}

/* Keys from key_length on are padding. No query sees them, so k and v are read as if they had key_length rows. */
static zi_cuda_attention arguments(const zi_tensor *o, const zi_tensor *q, const zi_tensor *k, const zi_tensor *v,
                                   const zi_attention *attention, int sequence)
{
    const zi_sequence rows = zi_sequence_of(attention, q, k, sequence);
    return (zi_cuda_attention){.o = zi_cuda_at(zi_cuda_data(o), o->dtype, rows.query * o->ld),
                               .q = zi_cuda_at(zi_cuda_data(q), q->dtype, rows.query * q->ld),
                               .k = zi_cuda_at(zi_cuda_data(k), k->dtype, rows.key * k->ld),
                               .v = zi_cuda_at(zi_cuda_data(v), v->dtype, rows.key * v->ld),
                               .ldo = o->ld,
                               .ldq = q->ld,
                               .ldk = k->ld,
                               .ldv = v->ld,
                               .queries = rows.queries,
                               .keys = rows.keys,
                               .heads = attention->heads,
                               .kv_heads = attention->kv_heads,
                               .head_dim = attention->head_dim,
                               .causal = attention->causal};
}

/* Whether flash_hopper.cu computes it. It does not where tests want the kernels that stand in for cuDNN, and not in a
 * rehearsal, which takes the memory of the other ways. */
static int by_hopper(const zi_cuda *cuda, const zi_cuda_attention *a)
{
    return cuda->type == ZI_BF16 && cuda->dnn != NULL && !cuda->ops.rehearsing && zi_cuda_flash_hopper_fits(a);
}

/* One sequence. */
static zimage_status attend(zi_cuda *cuda, const zi_cuda_attention *a)
{
    int done = 0;
    if (by_hopper(cuda, a)) {
        ZI_CUDA_TRY(cuda, zi_cuda_flash_hopper(a, cuda->workspace, ZI_WORKSPACE_BYTES, cuda->stream), "attention");
        return ZIMAGE_OK;
    }
    ZI_TRY(zi_cuda_graph_attention(cuda, a, &done));
    if (done)
        return ZIMAGE_OK;
    if (cuda->type == ZI_BF16 && zi_cuda_flash_fits(a))
        return ZI_CUDA_RUN(cuda, zi_cuda_flash(a, cuda->stream), "attention");
    zi_arena_mark mark = zi_cuda_mark(cuda);
    zimage_status status = by_products(cuda, a);
    zi_cuda_release(cuda, mark);
    return status;
}

zimage_status zi_cuda_op_attention(zi_run *run, zi_tensor *o, const zi_tensor *q, const zi_tensor *k,
                                   const zi_tensor *v, const zi_attention *attention)
{
    zi_cuda *cuda = zi_cuda_begin(run);
    zi_tensor plain = *o;
    assert(attention->heads % attention->kv_heads == 0 && (!attention->causal || zi_row_count(q) == zi_row_count(k)));
    assert(zi_features(q) == attention->heads * attention->head_dim);
    assert(zi_features(k) == attention->kv_heads * attention->head_dim);
    assert(zi_tensor_count(v) == zi_tensor_count(k) && zi_tensor_count(o) == zi_tensor_count(q));
    assert(o->dtype == ZI_OPERAND || o->dtype == cuda->type);
    assert(q->dtype == cuda->type && k->dtype == cuda->type && v->dtype == cuda->type);
    assert(attention->key_length >= 0 && attention->key_length <= zi_row_count(k));
    zi_arena_mark mark = zi_cuda_mark(cuda);
    zimage_status status = o->dtype == ZI_OPERAND ? zi_cuda_stand_in(cuda, o, &plain) : ZIMAGE_OK;
    for (int i = 0; status == ZIMAGE_OK && i < zi_sequence_count(attention); i++) {
        const zi_cuda_attention a = arguments(&plain, q, k, v, attention, i);
        status = attend(cuda, &a);
    }
    if (status == ZIMAGE_OK && o->dtype == ZI_OPERAND)
        status = zi_cuda_quantise(cuda, &plain, zi_cuda_rows8_of(o));
    zi_cuda_release(cuda, mark);
    return status;
}
