/* Attention: cuDNN's where it has one for the sizes, else the own fused kernel, else products of a few queries. */
#include <assert.h>
#include <math.h>

#include "cuda/entries.h"
#include "cuda/graphs.h"
#include "cuda/operand.h"
#include "cuda/products.h"
#include "cuda/residency.h"
#include "ops/ops_common.h"

#define LOGITS_BYTES ((int64_t)256 << 20) /* of the logits that are held at a time */

/* One group of query heads that share keys and values. */
typedef struct group {
    const zi_attention_shape *shape;
    int64_t queries, keys, members, first_head, chunk; /* chunk: queries at a time */
    void *o;
    const void *q, *k, *v;
    float *logits;
    void *weights; /* where the softmax goes: the logits' own place if that is float32 */
} group;

static zimage_status attend_chunk(zi_cuda *cuda, const group *g, int64_t first)
{
    const zi_attention_shape *s = g->shape;
    int64_t rows = g->queries - first < g->chunk ? g->queries - first : g->chunk, dim = s->head_dim;
    int64_t place = first * s->heads * dim + g->first_head * dim, kv = g->first_head / g->members * dim;
    const zi_cuda_product logits = {.rows = rows,
                                    .out = g->keys,
                                    .in = dim,
                                    .type = cuda->type,
                                    .y_type = ZI_F32,
                                    .ldx = s->heads * dim,
                                    .ldw = s->kv_heads * dim,
                                    .batch = (int)g->members,
                                    .step_x = dim,
                                    .step_y = rows * g->keys};
    const zi_cuda_product values = {.rows = rows,
                                    .out = dim,
                                    .in = g->keys,
                                    .type = cuda->type,
                                    .y_type = cuda->type,
                                    .ldw = s->kv_heads * dim,
                                    .ldy = s->heads * dim,
                                    .inputs_first = 1,
                                    .batch = (int)g->members,
                                    .step_x = rows * g->keys,
                                    .step_y = dim};
    ZI_TRY(zi_cuda_multiply(cuda, &logits, g->logits, zi_cuda_at((void *)g->q, cuda->type, place),
                            zi_cuda_at((void *)g->k, cuda->type, kv)));
    ZI_CUDA_TRY(cuda,
                zi_cuda_softmax(cuda->type, g->weights, g->logits, g->members, rows, g->keys, 1.0f / sqrtf((float)dim),
                                s->causal, first, cuda->stream),
                "a softmax");
    return zi_cuda_multiply(cuda, &values, zi_cuda_at(g->o, cuda->type, place), g->weights,
                            zi_cuda_at((void *)g->v, cuda->type, kv));
}

/* o may be q: a chunk's queries have been read when its values are written. */
static zimage_status by_products(zi_cuda *cuda, group *g)
{
    const zi_attention_shape *s = g->shape;
    g->members = s->heads / s->kv_heads;
    g->chunk = LOGITS_BYTES / (g->members * g->keys * (int64_t)sizeof(float));
    g->chunk = g->chunk < 1 ? 1 : g->chunk < g->queries ? g->chunk : g->queries;
    size_t count = (size_t)(g->members * g->chunk * g->keys);
    ZI_TRY(zi_cuda_stack_alloc(cuda, count * sizeof(float), "attention", (void **)&g->logits));
    g->weights = g->logits;
    if (cuda->type != ZI_F32)
        ZI_TRY(zi_cuda_stack_alloc(cuda, count * zi_dtype_size(cuda->type), "attention", &g->weights));
    for (int64_t kv = 0; kv < s->kv_heads; kv++) {
        g->first_head = kv * g->members;
        for (int64_t first = 0; first < g->queries; first += g->chunk)
            ZI_TRY(attend_chunk(cuda, g, first));
    }
    return ZIMAGE_OK;
}

static zimage_status attend(zi_cuda *cuda, zi_tensor *o, const zi_tensor *q, const zi_tensor *k, const zi_tensor *v,
                            const zi_attention_shape *shape)
{
    group g = {.shape = shape, .queries = zi_row_count(q), .keys = zi_row_count(k)};
    assert(shape->heads % shape->kv_heads == 0 && (!shape->causal || g.queries == g.keys));
    assert(zi_features(q) == shape->heads * shape->head_dim && zi_features(k) == shape->kv_heads * shape->head_dim);
    assert(zi_tensor_count(v) == zi_tensor_count(k) && zi_tensor_count(o) == zi_tensor_count(q));
    assert(q->dtype == cuda->type && k->dtype == cuda->type && v->dtype == cuda->type && o->dtype == cuda->type);
    int done = 0;
    ZI_TRY(zi_cuda_graph_attention(cuda, o->data, q->data, k->data, v->data, g.queries, g.keys, shape, &done));
    if (done)
        return ZIMAGE_OK;
    int aligned = (((uintptr_t)o->data | (uintptr_t)q->data | (uintptr_t)k->data | (uintptr_t)v->data) & 15) == 0;
    if (cuda->type == ZI_BF16 && aligned && zi_cuda_flash_fits(shape->head_dim))
        return ZI_CUDA_RUN(cuda,
                           zi_cuda_flash(o->data, q->data, k->data, v->data, g.queries, g.keys, shape->heads,
                                         shape->kv_heads, shape->head_dim, shape->causal, cuda->stream),
                           "attention");
    g.o = o->data;
    g.q = q->data;
    g.k = k->data;
    g.v = v->data;
    return by_products(cuda, &g);
}

zimage_status zi_cuda_attention(zi_ops *ops, zi_tensor *o, const zi_tensor *q, const zi_tensor *k, const zi_tensor *v,
                                const zi_attention_shape *shape)
{
    zi_cuda *cuda = zi_cuda_begin(ops);
    zi_tensor plain = *o;
    zi_arena_mark mark = zi_cuda_mark(ops);
    zimage_status status = o->dtype == ZI_OPERAND ? zi_cuda_stand_in(cuda, o, &plain) : ZIMAGE_OK;
    if (status == ZIMAGE_OK)
        status = attend(cuda, &plain, q, k, v, shape);
    if (status == ZIMAGE_OK && o->dtype == ZI_OPERAND)
        status = zi_cuda_quantise(cuda, &plain, zi_cuda_rows8_of(o));
    zi_cuda_release(ops, mark);
    return status;
}
