/*
 * Attention and convolutions by cuDNN's backend API, as graphs of one operation each. A graph is made once for its
 * sizes. Engines that are compiled ahead of time are timed, and the fastest is kept. Where there is none, the first
 * proposal that works is taken, which cuDNN compiles then: half a second. If cuDNN has no engine at all, the graph
 * stays without a plan, and our own kernels do the work.
 */
#include "cuda/graphs.h"

#include <math.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>

#define PROPOSALS   24 /* engines that cuDNN is asked for, in the order of its heuristic */
#define CANDIDATES  4  /* engines that are timed, at most */
#define DESCRIPTORS (32 + 2 * PROPOSALS)
#define TENSORS     5
#define ALIGNMENT   16
#define RUNS        3
#define CHANNELS    8   /* fast convolutions need channels that are multiples of this */
#define HEAD_MAX    256 /* fused attention is slow with larger heads */

typedef enum graph_kind { GRAPH_ATTENTION, GRAPH_CONV } graph_kind;

/* Compared as bytes. */
typedef struct graph_key {
    int64_t kind;
    union {
        int64_t sizes[9];
        struct {
            int64_t queries, keys, heads, kv_heads, dim, ldq, ldk, ldv, ldo;
        } attention;
        struct {
            int64_t rows, columns, in, out, side, x_columns, stride, left;
            int64_t unused; /* fills the key, so that each of its bytes has one meaning */
        } conv;
    };
} graph_key;

/* Tensors of a graph: places in its array of pointers. The unique id of a tensor is its place plus 1. */
enum { X, Y, FILTER };
enum { Q, O, K, V, SCALE };

struct zi_cuda_graph {
    graph_key key;
    cudnnBackendDescriptor_t made[DESCRIPTORS]; /* all that were created */
    int made_count;
    cudnnStatus_t failed;          /* the first failure while the graph was made */
    cudnnBackendDescriptor_t plan; /* one of `made`; NULL: cuDNN has none */
    int32_t choice;                /* the plan's engine: its place among the proposals */
    int tensors[TENSORS];          /* whether a place is used */
};

/* ---- descriptors ------------------------------------------------------------------------------------------------- */

static void keep_failure(zi_cuda_graph *g, cudnnStatus_t status)
{
    if (g->failed == CUDNN_STATUS_SUCCESS)
        g->failed = status;
}

static cudnnBackendDescriptor_t make(zi_cuda_graph *g, cudnnBackendDescriptorType_t type)
{
    cudnnBackendDescriptor_t descriptor = NULL;
    if (g->failed != CUDNN_STATUS_SUCCESS)
        return NULL;
    if (g->made_count == DESCRIPTORS) {
        keep_failure(g, CUDNN_STATUS_INTERNAL_ERROR);
        return NULL;
    }
    keep_failure(g, cudnnBackendCreateDescriptor(type, &descriptor));
    if (descriptor != NULL)
        g->made[g->made_count++] = descriptor;
    return descriptor;
}

static void set(zi_cuda_graph *g, cudnnBackendDescriptor_t descriptor, cudnnBackendAttributeName_t name,
                cudnnBackendAttributeType_t type, int64_t count, const void *values)
{
    if (g->failed == CUDNN_STATUS_SUCCESS)
        keep_failure(g, cudnnBackendSetAttribute(descriptor, name, type, count, values));
}

static void set_descriptor(zi_cuda_graph *g, cudnnBackendDescriptor_t descriptor, cudnnBackendAttributeName_t name,
                           cudnnBackendDescriptor_t value)
{
    set(g, descriptor, name, CUDNN_TYPE_BACKEND_DESCRIPTOR, 1, &value);
}

static void finish(zi_cuda_graph *g, cudnnBackendDescriptor_t descriptor)
{
    if (g->failed == CUDNN_STATUS_SUCCESS)
        keep_failure(g, cudnnBackendFinalize(descriptor));
}

typedef struct tensor_form {
    cudnnDataType_t type;
    int64_t shape[4], strides[4];
} tensor_form;

static cudnnBackendDescriptor_t tensor(zi_cuda_graph *g, int64_t name, const tensor_form *form, int by_value)
{
    const int64_t alignment = ALIGNMENT;
    const bool yes = true;
    cudnnBackendDescriptor_t t = make(g, CUDNN_BACKEND_TENSOR_DESCRIPTOR);
    set(g, t, CUDNN_ATTR_TENSOR_UNIQUE_ID, CUDNN_TYPE_INT64, 1, &name);
    set(g, t, CUDNN_ATTR_TENSOR_DATA_TYPE, CUDNN_TYPE_DATA_TYPE, 1, &form->type);
    set(g, t, CUDNN_ATTR_TENSOR_DIMENSIONS, CUDNN_TYPE_INT64, 4, form->shape);
    set(g, t, CUDNN_ATTR_TENSOR_STRIDES, CUDNN_TYPE_INT64, 4, form->strides);
    set(g, t, CUDNN_ATTR_TENSOR_BYTE_ALIGNMENT, CUDNN_TYPE_INT64, 1, &alignment);
    if (by_value)
        set(g, t, CUDNN_ATTR_TENSOR_IS_BY_VALUE, CUDNN_TYPE_BOOLEAN, 1, &yes);
    finish(g, t);
    return t;
}

/* A tensor that the graph reads or writes. */
static cudnnBackendDescriptor_t operand(zi_cuda_graph *g, int place, const tensor_form *form)
{
    g->tensors[place] = 1;
    return tensor(g, place + 1, form, 0);
}

/* ---- plans ------------------------------------------------------------------------------------------------------- */

static cudnnStatus_t run(zi_cuda *cuda, cudnnBackendDescriptor_t plan, const int used[TENSORS],
                         void *const data[TENSORS], void *workspace)
{
    int64_t names[TENSORS], count = 0;
    void *pointers[TENSORS];
    cudnnBackendDescriptor_t pack = NULL;
    for (int i = 0; i < TENSORS; i++)
        if (used[i]) {
            names[count] = i + 1;
            pointers[count++] = data[i];
        }
    cudnnStatus_t status = cudnnBackendCreateDescriptor(CUDNN_BACKEND_VARIANT_PACK_DESCRIPTOR, &pack);
    if (status == CUDNN_STATUS_SUCCESS)
        status = cudnnBackendSetAttribute(pack, CUDNN_ATTR_VARIANT_PACK_UNIQUE_IDS, CUDNN_TYPE_INT64, count, names);
    if (status == CUDNN_STATUS_SUCCESS)
        status =
            cudnnBackendSetAttribute(pack, CUDNN_ATTR_VARIANT_PACK_DATA_POINTERS, CUDNN_TYPE_VOID_PTR, count, pointers);
    if (status == CUDNN_STATUS_SUCCESS)
        status = cudnnBackendSetAttribute(pack, CUDNN_ATTR_VARIANT_PACK_WORKSPACE, CUDNN_TYPE_VOID_PTR, 1, &workspace);
    if (status == CUDNN_STATUS_SUCCESS)
        status = cudnnBackendFinalize(pack);
    if (status == CUDNN_STATUS_SUCCESS)
        status = cudnnBackendExecute(cuda->dnn, plan, pack);
    if (pack != NULL)
        (void)cudnnBackendDestroyDescriptor(pack);
    return status;
}

/* Milliseconds of one run of a plan; negative: it failed. */
static float time_plan(zi_cuda *cuda, const zi_cuda_graph *g, cudnnBackendDescriptor_t plan, void *const data[TENSORS],
                       void *workspace, cudaEvent_t events[2])
{
    float milliseconds = -1;
    for (int i = 0; i <= RUNS; i++) {
        if (i == 1 && cudaEventRecord(events[0], cuda->stream) != cudaSuccess)
            return -1;
        if (run(cuda, plan, g->tensors, data, workspace) != CUDNN_STATUS_SUCCESS)
            return -1;
    }
    if (cudaEventRecord(events[1], cuda->stream) != cudaSuccess || cudaEventSynchronize(events[1]) != cudaSuccess ||
        cudaEventElapsedTime(&milliseconds, events[0], events[1]) != cudaSuccess)
        return -1;
    return milliseconds;
}

/* A plan with that engine, or NULL. g->failed stays success. */
static cudnnBackendDescriptor_t make_plan(zi_cuda *cuda, zi_cuda_graph *g, cudnnBackendDescriptor_t engine)
{
    int64_t count = 0, workspace = 0;
    cudnnBackendDescriptor_t plan = make(g, CUDNN_BACKEND_EXECUTION_PLAN_DESCRIPTOR);
    set(g, plan, CUDNN_ATTR_EXECUTION_PLAN_HANDLE, CUDNN_TYPE_HANDLE, 1, &cuda->dnn);
    set_descriptor(g, plan, CUDNN_ATTR_EXECUTION_PLAN_ENGINE_CONFIG, engine);
    finish(g, plan);
    if (g->failed == CUDNN_STATUS_SUCCESS)
        keep_failure(g, cudnnBackendGetAttribute(plan, CUDNN_ATTR_EXECUTION_PLAN_WORKSPACE_SIZE, CUDNN_TYPE_INT64, 1,
                                                 &count, &workspace));
    int usable = g->failed == CUDNN_STATUS_SUCCESS && workspace <= (int64_t)ZI_WORKSPACE_BYTES;
    g->failed = CUDNN_STATUS_SUCCESS;
    return usable ? plan : NULL;
}

/* Fills the engines that cuDNN proposes for the operation; returns how many. */
static int propose(zi_cuda *cuda, zi_cuda_graph *g, cudnnBackendDescriptor_t operation,
                   cudnnBackendDescriptor_t engines[PROPOSALS])
{
    const cudnnBackendHeurMode_t mode = CUDNN_HEUR_MODE_A;
    int64_t count = 0;
    cudnnBackendDescriptor_t graph = make(g, CUDNN_BACKEND_OPERATIONGRAPH_DESCRIPTOR);
    set(g, graph, CUDNN_ATTR_OPERATIONGRAPH_HANDLE, CUDNN_TYPE_HANDLE, 1, &cuda->dnn);
    set_descriptor(g, graph, CUDNN_ATTR_OPERATIONGRAPH_OPS, operation);
    finish(g, graph);
    cudnnBackendDescriptor_t heuristic = make(g, CUDNN_BACKEND_ENGINEHEUR_DESCRIPTOR);
    set_descriptor(g, heuristic, CUDNN_ATTR_ENGINEHEUR_OPERATION_GRAPH, graph);
    set(g, heuristic, CUDNN_ATTR_ENGINEHEUR_MODE, CUDNN_TYPE_HEUR_MODE, 1, &mode);
    finish(g, heuristic);
    for (int i = 0; i < PROPOSALS; i++)
        engines[i] = make(g, CUDNN_BACKEND_ENGINECFG_DESCRIPTOR);
    if (g->failed == CUDNN_STATUS_SUCCESS)
        keep_failure(g, cudnnBackendGetAttribute(heuristic, CUDNN_ATTR_ENGINEHEUR_RESULTS,
                                                 CUDNN_TYPE_BACKEND_DESCRIPTOR, PROPOSALS, &count, engines));
    int failed = g->failed != CUDNN_STATUS_SUCCESS;
    g->failed = CUDNN_STATUS_SUCCESS;
    return failed ? 0 : (int)(count < PROPOSALS ? count : PROPOSALS);
}

/* Whether the engine is compiled when a plan with it is made. */
static int is_compiled_late(cudnnBackendDescriptor_t configuration)
{
    cudnnBackendDescriptor_t engine = NULL;
    cudnnBackendBehaviorNote_t notes[CUDNN_BEHAVIOR_NOTE_TYPE_COUNT];
    int64_t count = 0;
    int late = 0;
    if (cudnnBackendCreateDescriptor(CUDNN_BACKEND_ENGINE_DESCRIPTOR, &engine) != CUDNN_STATUS_SUCCESS)
        return 1;
    if (cudnnBackendGetAttribute(configuration, CUDNN_ATTR_ENGINECFG_ENGINE, CUDNN_TYPE_BACKEND_DESCRIPTOR, 1, &count,
                                 &engine) != CUDNN_STATUS_SUCCESS ||
        cudnnBackendGetAttribute(engine, CUDNN_ATTR_ENGINE_BEHAVIOR_NOTE, CUDNN_TYPE_BEHAVIOR_NOTE,
                                 CUDNN_BEHAVIOR_NOTE_TYPE_COUNT, &count, notes) != CUDNN_STATUS_SUCCESS)
        late = 1;
    for (int64_t i = 0; i < count && !late; i++)
        late = notes[i] == CUDNN_BEHAVIOR_NOTE_RUNTIME_COMPILATION;
    (void)cudnnBackendDestroyDescriptor(engine);
    return late;
}

#define NO_ENGINE (-1) /* a choice: no proposal works */

/* Times the first engines of that kind (late: compiled late) that work, on `data`, and keeps the fastest plan. */
static zimage_status search(zi_cuda *cuda, zi_cuda_graph *g, const cudnnBackendDescriptor_t *engines, int proposed,
                            int late, void *const data[TENSORS])
{
    cudaEvent_t events[2] = {NULL, NULL};
    float least = 0;
    int found = 0;
    zimage_status status = ZI_CUDA_RUN(cuda, cudaEventCreate(&events[0]), "making an event");
    if (status == ZIMAGE_OK)
        status = ZI_CUDA_RUN(cuda, cudaEventCreate(&events[1]), "making an event");
    for (int i = 0; i < proposed && status == ZIMAGE_OK && found < (late ? 1 : CANDIDATES); i++) {
        if (is_compiled_late(engines[i]) != late)
            continue;
        cudnnBackendDescriptor_t plan = make_plan(cuda, g, engines[i]);
        float taken = plan != NULL ? time_plan(cuda, g, plan, data, cuda->workspace, events) : -1;
        if (taken >= 0 && (found++ == 0 || taken < least)) {
            least = taken;
            g->choice = i;
            g->plan = plan;
        }
    }
    for (int i = 0; i < 2; i++)
        if (events[i] != NULL)
            (void)cudaEventDestroy(events[i]);
    return status;
}

/* Takes the engine that an earlier process found fastest, or searches. `data`: operands of the first run; its output
 * may be overwritten. With the lock of the choices. */
static zimage_status choose_plan(zi_cuda *cuda, zi_cuda_graph *g, cudnnBackendDescriptor_t operation,
                                 void *const data[TENSORS])
{
    cudnnBackendDescriptor_t engines[PROPOSALS];
    int32_t known = NO_ENGINE;
    int proposed = propose(cuda, g, operation, engines);
    int remembered = zi_choices_recall(&cuda->choices, "graph", &g->key, sizeof(g->key), &known, sizeof(known));
    if (remembered && known >= 0 && known < proposed) {
        g->plan = make_plan(cuda, g, engines[known]);
        g->choice = known;
    }
    if (g->plan == NULL && (!remembered || known != NO_ENGINE)) {
        ZI_TRY(search(cuda, g, engines, proposed, 0, data));
        if (g->plan == NULL)
            ZI_TRY(search(cuda, g, engines, proposed, 1, data));
    }
    int32_t choice = g->plan != NULL ? g->choice : NO_ENGINE;
    if (!remembered || known != choice)
        zi_choices_remember(&cuda->choices, "graph", &g->key, sizeof(g->key), &choice, sizeof(choice));
    return ZIMAGE_OK;
}

static zimage_status choose(zi_cuda *cuda, zi_cuda_graph *g, cudnnBackendDescriptor_t operation,
                            void *const data[TENSORS])
{
    zi_choices_lock(&cuda->choices);
    zimage_status status = choose_plan(cuda, g, operation, data);
    zi_choices_unlock(&cuda->choices);
    return status;
}

static void free_graph(zi_cuda_graph *g)
{
    while (g->made_count > 0)
        (void)cudnnBackendDestroyDescriptor(g->made[--g->made_count]);
}

void zi_cuda_graphs_free(zi_cuda *cuda)
{
    for (int i = 0; i < cuda->graph_count; i++)
        free_graph(&cuda->graphs[i]);
    free(cuda->graphs);
}

static zi_cuda_graph *find(zi_cuda *cuda, const graph_key *key)
{
    for (int i = 0; i < cuda->graph_count; i++)
        if (memcmp(&cuda->graphs[i].key, key, sizeof(*key)) == 0)
            return &cuda->graphs[i];
    return NULL;
}

/* A new graph with that key, without a plan yet. NULL: out of memory, reported. */
static zi_cuda_graph *new_graph(zi_cuda *cuda, const graph_key *key)
{
    if (cuda->graph_count == cuda->graph_capacity) {
        int capacity = cuda->graph_capacity ? 2 * cuda->graph_capacity : 16;
        zi_cuda_graph *graphs = realloc(cuda->graphs, (size_t)capacity * sizeof(*graphs));
        if (graphs == NULL) {
            (void)zi_fail_memory(cuda->error, "the list of graphs", (size_t)capacity * sizeof(*graphs));
            return NULL;
        }
        cuda->graphs = graphs;
        cuda->graph_capacity = capacity;
    }
    zi_cuda_graph *graph = &cuda->graphs[cuda->graph_count++];
    memset(graph, 0, sizeof(*graph));
    graph->key = *key;
    return graph;
}

static zimage_status execute(zi_cuda *cuda, const zi_cuda_graph *g, void *const data[TENSORS], const char *what)
{
    cudnnStatus_t status = run(cuda, g->plan, g->tensors, data, cuda->workspace);
    if (status == CUDNN_STATUS_SUCCESS)
        return ZIMAGE_OK;
    return zi_fail(cuda->error, ZIMAGE_ERROR_INTERNAL, "cuda:%d: %s failed: cuDNN says %s", cuda->device, what,
                   cudnnGetErrorString(status));
}

static int aligned(void *const data[TENSORS])
{
    uintptr_t all = 0;
    for (int i = 0; i < TENSORS; i++)
        all |= (uintptr_t)data[i];
    return all % ALIGNMENT == 0;
}

/* ---- attention --------------------------------------------------------------------------------------------------- */

/* Sizes and strides of [tokens][heads][dim], with tokens ld elements apart, in cuDNN's order. */
static tensor_form heads_form(int64_t tokens, int64_t heads, int64_t dim, int64_t ld)
{
    return (tensor_form){CUDNN_DATA_BFLOAT16, {1, heads, tokens, dim}, {tokens * ld, dim, ld, 1}};
}

static zimage_status make_attention(zi_cuda *cuda, zi_cuda_graph *g, void *const data[TENSORS])
{
    int64_t queries = g->key.attention.queries, keys = g->key.attention.keys, heads = g->key.attention.heads;
    int64_t kv_heads = g->key.attention.kv_heads, dim = g->key.attention.dim;
    const tensor_form q_form = heads_form(queries, heads, dim, g->key.attention.ldq);
    const tensor_form k_form = heads_form(keys, kv_heads, dim, g->key.attention.ldk);
    const tensor_form v_form = heads_form(keys, kv_heads, dim, g->key.attention.ldv);
    const tensor_form o_form = heads_form(queries, heads, dim, g->key.attention.ldo);
    const tensor_form one = {CUDNN_DATA_FLOAT, {1, 1, 1, 1}, {1, 1, 1, 1}};
    cudnnBackendDescriptor_t q = operand(g, Q, &q_form), k = operand(g, K, &k_form), v = operand(g, V, &v_form);
    cudnnBackendDescriptor_t o = operand(g, O, &o_form), scale = tensor(g, SCALE + 1, &one, 1);
    g->tensors[SCALE] = 1;
    cudnnBackendDescriptor_t operation = make(g, CUDNN_BACKEND_OPERATION_SDPA_FWD_DESCRIPTOR);
    set_descriptor(g, operation, CUDNN_ATTR_OPERATION_SDPA_FWD_QDESC, q);
    set_descriptor(g, operation, CUDNN_ATTR_OPERATION_SDPA_FWD_KDESC, k);
    set_descriptor(g, operation, CUDNN_ATTR_OPERATION_SDPA_FWD_VDESC, v);
    set_descriptor(g, operation, CUDNN_ATTR_OPERATION_SDPA_FWD_ODESC, o);
    set_descriptor(g, operation, CUDNN_ATTR_OPERATION_SDPA_FWD_SCALEDESC, scale);
    finish(g, operation);
    return choose(cuda, g, operation, data);
}

/* The result of attention whose o is q goes to a buffer of its own first: cuDNN does not say in which order it reads
 * and writes. */
static zimage_status attend(zi_cuda *cuda, const graph_key *key, void *o, void *data[TENSORS], int *done)
{
    int64_t queries = key->attention.queries, features = key->attention.heads * key->attention.dim;
    size_t bytes = (size_t)(queries * key->attention.ldo) * sizeof(uint16_t);
    if (cuda->ops.rehearsing) /* takes the most that attention needs */
        return zi_cuda_stack_alloc(cuda, bytes, "attention", &data[O]);
    zi_cuda_graph *graph = find(cuda, key);
    if (graph != NULL && graph->plan == NULL)
        return ZIMAGE_OK;
    if (o == data[Q])
        ZI_TRY(zi_cuda_stack_alloc(cuda, bytes, "attention", &data[O]));
    if (graph == NULL) {
        graph = new_graph(cuda, key);
        if (graph == NULL)
            return ZIMAGE_ERROR_MEMORY;
        ZI_TRY(make_attention(cuda, graph, data));
        if (graph->plan == NULL)
            return ZIMAGE_OK;
    }
    ZI_TRY(execute(cuda, graph, data, "attention"));
    *done = 1;
    if (data[O] == o)
        return ZIMAGE_OK;
    if (key->attention.ldo == features)
        return ZI_CUDA_RUN(cuda, cudaMemcpyAsync(o, data[O], bytes, cudaMemcpyDeviceToDevice, cuda->stream),
                           "attention");
    return ZI_CUDA_RUN(cuda,
                       zi_cuda_copy_rows(ZI_BF16, o, key->attention.ldo, ZI_BF16, data[O], key->attention.ldo, queries,
                                         features, cuda->stream),
                       "attention");
}

zimage_status zi_cuda_graph_attention(zi_cuda *cuda, const zi_cuda_attention *a, int *done)
{
    float scale = 1.0f / sqrtf((float)a->head_dim);
    void *data[TENSORS] = {[Q] = (void *)a->q, [K] = (void *)a->k, [V] = (void *)a->v, [O] = a->o};
    const graph_key key = {
        .kind = GRAPH_ATTENTION,
        .sizes = {a->queries, a->keys, a->heads, a->kv_heads, a->head_dim, a->ldq, a->ldk, a->ldv, a->ldo}};
    *done = 0;
    if (cuda->dnn == NULL || cuda->type != ZI_BF16 || a->causal || a->head_dim % 8 != 0 || a->head_dim > HEAD_MAX ||
        ((a->ldq | a->ldk | a->ldv | a->ldo) * (int64_t)sizeof(uint16_t)) % ALIGNMENT != 0 || !aligned(data))
        return ZIMAGE_OK;
    data[SCALE] = &scale; /* passed by value from host memory */
    zi_arena_mark mark = zi_cuda_mark(cuda);
    zimage_status status = attend(cuda, &key, a->o, data, done);
    zi_cuda_release(cuda, mark);
    return status;
}

/* ---- convolutions ------------------------------------------------------------------------------------------------ */

/* The input has all its rows, so only columns are padded. */
static cudnnBackendDescriptor_t convolution(zi_cuda_graph *g, cudnnBackendDescriptor_t x,
                                            cudnnBackendDescriptor_t filter, cudnnBackendDescriptor_t y)
{
    int64_t stride = g->key.conv.stride, left = g->key.conv.left;
    int64_t right = (g->key.conv.columns - 1) * stride + g->key.conv.side - left - g->key.conv.x_columns;
    const int64_t two = 2, ones[2] = {1, 1}, strides[2] = {stride, stride}, before[2] = {0, left};
    const int64_t behind[2] = {0, right > 0 ? right : 0};
    const cudnnDataType_t precision = CUDNN_DATA_FLOAT;
    const cudnnConvolutionMode_t mode = CUDNN_CROSS_CORRELATION;
    const float one = 1, zero = 0;
    cudnnBackendDescriptor_t how = make(g, CUDNN_BACKEND_CONVOLUTION_DESCRIPTOR);
    set(g, how, CUDNN_ATTR_CONVOLUTION_SPATIAL_DIMS, CUDNN_TYPE_INT64, 1, &two);
    set(g, how, CUDNN_ATTR_CONVOLUTION_COMP_TYPE, CUDNN_TYPE_DATA_TYPE, 1, &precision);
    set(g, how, CUDNN_ATTR_CONVOLUTION_CONV_MODE, CUDNN_TYPE_CONVOLUTION_MODE, 1, &mode);
    set(g, how, CUDNN_ATTR_CONVOLUTION_PRE_PADDINGS, CUDNN_TYPE_INT64, 2, before);
    set(g, how, CUDNN_ATTR_CONVOLUTION_POST_PADDINGS, CUDNN_TYPE_INT64, 2, behind);
    set(g, how, CUDNN_ATTR_CONVOLUTION_DILATIONS, CUDNN_TYPE_INT64, 2, ones);
    set(g, how, CUDNN_ATTR_CONVOLUTION_FILTER_STRIDES, CUDNN_TYPE_INT64, 2, strides);
    finish(g, how);
    cudnnBackendDescriptor_t operation = make(g, CUDNN_BACKEND_OPERATION_CONVOLUTION_FORWARD_DESCRIPTOR);
    set_descriptor(g, operation, CUDNN_ATTR_OPERATION_CONVOLUTION_FORWARD_CONV_DESC, how);
    set_descriptor(g, operation, CUDNN_ATTR_OPERATION_CONVOLUTION_FORWARD_X, x);
    set_descriptor(g, operation, CUDNN_ATTR_OPERATION_CONVOLUTION_FORWARD_W, filter);
    set_descriptor(g, operation, CUDNN_ATTR_OPERATION_CONVOLUTION_FORWARD_Y, y);
    set(g, operation, CUDNN_ATTR_OPERATION_CONVOLUTION_FORWARD_ALPHA, CUDNN_TYPE_FLOAT, 1, &one);
    set(g, operation, CUDNN_ATTR_OPERATION_CONVOLUTION_FORWARD_BETA, CUDNN_TYPE_FLOAT, 1, &zero);
    finish(g, operation);
    return operation;
}

/* Sizes and strides of a channels-last image, in cuDNN's order. */
static tensor_form image_form(int64_t channels, int64_t rows, int64_t columns)
{
    return (tensor_form){CUDNN_DATA_BFLOAT16,
                         {1, channels, rows, columns},
                         {channels * rows * columns, 1, columns * channels, channels}};
}

static zimage_status make_conv(zi_cuda *cuda, zi_cuda_graph *g, void *const data[TENSORS])
{
    int64_t rows = g->key.conv.rows, in = g->key.conv.in, out = g->key.conv.out, side = g->key.conv.side;
    const tensor_form x = image_form(in, (rows - 1) * g->key.conv.stride + side, g->key.conv.x_columns);
    const tensor_form y = image_form(out, rows, g->key.conv.columns);
    const tensor_form filter = {CUDNN_DATA_BFLOAT16, {out, in, side, side}, {in * side * side, 1, in * side, in}};
    cudnnBackendDescriptor_t input = operand(g, X, &x), weights = operand(g, FILTER, &filter);
    return choose(cuda, g, convolution(g, input, weights, operand(g, Y, &y)), data);
}

/* cuDNN's result is rounded to bf16 before bias and sum are added. */
static zimage_status convolve(zi_cuda *cuda, zi_tensor *y, const zi_cuda_conv *c, void *data[TENSORS], int *done)
{
    const graph_key key = {.kind = GRAPH_CONV,
                           .sizes = {c->rows, c->columns, c->in, c->out, c->side, c->x_columns, c->stride, c->left}};
    size_t pixels = (size_t)(c->rows * c->columns);
    data[Y] = zi_cuda_data(y);
    if (c->accumulate)
        ZI_TRY(zi_cuda_stack_alloc(cuda, pixels * (size_t)c->out * sizeof(uint16_t), "a convolution", &data[Y]));
    if (cuda->ops.rehearsing || !aligned(data))
        return ZIMAGE_OK;
    zi_cuda_graph *graph = find(cuda, &key);
    if (graph == NULL) {
        graph = new_graph(cuda, &key);
        if (graph == NULL)
            return ZIMAGE_ERROR_MEMORY;
        ZI_TRY(make_conv(cuda, graph, data));
    }
    if (graph->plan == NULL)
        return ZIMAGE_OK;
    ZI_TRY(execute(cuda, graph, data, "a convolution"));
    *done = 1;
    if (c->bias == NULL && !c->accumulate)
        return ZIMAGE_OK;
    return ZI_CUDA_RUN(cuda,
                       zi_cuda_add_bias(ZI_BF16, zi_cuda_data(y), c->accumulate ? data[Y] : NULL, c->bias, 1,
                                        (int64_t)pixels, c->out, cuda->stream),
                       "a convolution");
}

zimage_status zi_cuda_graph_conv(zi_cuda *cuda, zi_tensor *y, const void *x, const void *filter,
                                 const zi_cuda_conv *sizes, int *done)
{
    void *data[TENSORS] = {[X] = (void *)x, [FILTER] = (void *)filter};
    *done = 0;
    if (cuda->dnn == NULL || cuda->type != ZI_BF16 || y->dtype != ZI_BF16 || sizes->in % CHANNELS != 0 ||
        sizes->out % CHANNELS != 0)
        return ZIMAGE_OK;
    zi_arena_mark mark = zi_cuda_mark(cuda);
    zimage_status status = convolve(cuda, y, sizes, data, done);
    zi_cuda_release(cuda, mark);
    return status;
}
