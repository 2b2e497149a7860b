/*
 * Work that is queued again and again, as one CUDA graph. It is recorded after it ran once without sending a weight: so
 * not the first time, and never where weights pass through the ring (residency.h).
 */
#include <stdlib.h>
#include <string.h>

#include "cuda/checks.h"
#include "cuda/entries.h"
#include "cuda/internal.h"
#include "cuda/record.h"
#include "cuda/residency.h"

#define RECORDINGS_MAX 4

/* The state of the stack decides where the tensors lie that the work allocates. */
typedef struct stack_place {
    const uint8_t *chunk;
    size_t used;
    uint64_t changes;
} stack_place;

struct zi_cuda_recording {
    void *key; /* owned; NULL: a free place */
    size_t size;
    stack_place place;
    uint64_t last_use;     /* a count: zi_cuda.recordings_used */
    int settled;           /* it ran without sending a weight */
    int refused;           /* something in it can't be recorded */
    cudaGraphExec_t graph; /* NULL: not yet recorded */
    int64_t blocks;        /* of the network that end in it */
    int checks;            /* for NaN and infinity in it, and their blocks' names */
    char (*names)[ZI_BLOCK_NAME];
};

/* The arguments of zi_op_repeat. */
typedef struct work_item {
    zi_run *run;
    const void *key;
    size_t size;
    zi_work_fn *work;
    const void *user;
} work_item;

static void free_recording(zi_cuda_recording *r)
{
    if (r->graph != NULL)
        (void)cudaGraphExecDestroy(r->graph);
    free(r->names);
    free(r->key);
    *r = (zi_cuda_recording){0};
}

void zi_cuda_recordings_free(zi_cuda *cuda)
{
    for (int i = 0; cuda->recordings != NULL && i < RECORDINGS_MAX; i++)
        free_recording(&cuda->recordings[i]);
    free(cuda->recordings);
    cuda->recordings = NULL;
}

static stack_place place_of(const zi_cuda *cuda)
{
    const zi_cuda_stack *s = &cuda->stack;
    if (s->count == 0)
        return (stack_place){.changes = s->changes};
    return (stack_place){s->chunks[s->top].data, s->chunks[s->top].used, s->changes};
}

static int same_place(stack_place a, stack_place b)
{
    return a.chunk == b.chunk && a.used == b.used && a.changes == b.changes;
}

static zi_cuda_recording *find(const zi_cuda *cuda, const void *key, size_t size, stack_place place)
{
    for (int i = 0; i < RECORDINGS_MAX; i++) {
        zi_cuda_recording *r = &cuda->recordings[i];
        if (r->key != NULL && r->size == size && memcmp(r->key, key, size) == 0 && same_place(r->place, place))
            return r;
    }
    return NULL;
}

/* A free place, or the one that was not used for longest, emptied. */
static zi_cuda_recording *oldest(zi_cuda *cuda)
{
    zi_cuda_recording *found = &cuda->recordings[0];
    for (int i = 1; i < RECORDINGS_MAX; i++)
        if (cuda->recordings[i].last_use < found->last_use)
            found = &cuda->recordings[i];
    free_recording(found);
    return found;
}

/* The first time: sends weights, chooses algorithms and allocates, none of which can be recorded. */
static zimage_status run_first(zi_cuda *cuda, const work_item *w)
{
    stack_place place = place_of(cuda);
    ZI_TRY(w->work(w->run, w->user));
    zi_cuda_recording *r = oldest(cuda);
    r->key = malloc(w->size);
    if (r->key == NULL)
        return zi_fail_memory(w->run->error, "a recording", w->size);
    memcpy(r->key, w->key, w->size);
    r->size = w->size;
    r->place = place;
    r->place.changes = cuda->stack.changes;
    r->last_use = ++cuda->recordings_used;
    return ZIMAGE_OK;
}

/* A weight that is on its way can't be recorded. */
static zimage_status run_settling(zi_cuda *cuda, zi_cuda_recording *r, const work_item *w)
{
    int64_t before = zi_cuda_residency_sent(cuda);
    ZI_TRY(w->work(w->run, w->user));
    r->settled = zi_cuda_residency_sent(cuda) == before;
    return ZIMAGE_OK;
}

static zimage_status keep_names(zi_cuda *cuda, zi_cuda_recording *r, const zi_run *run)
{
    size_t bytes = (size_t)cuda->checks * sizeof(*r->names);
    r->checks = cuda->checks;
    r->names = malloc(bytes > 0 ? bytes : 1);
    if (r->names == NULL)
        return zi_fail_memory(run->error, "names of blocks", bytes);
    memcpy(r->names, cuda->names, bytes);
    return ZIMAGE_OK;
}

/* Nothing is computed yet. *graph NULL: it can't be recorded. */
static zimage_status capture(zi_cuda *cuda, const work_item *w, cudaGraph_t *graph)
{
    *graph = NULL;
    ZI_TRY(zi_cuda_result(cuda, cudaStreamBeginCapture(cuda->stream, cudaStreamCaptureModeThreadLocal), "recording"));
    zimage_status status = w->work(w->run, w->user);
    cudaError_t code = cudaStreamEndCapture(cuda->stream, graph);
    if (status == ZIMAGE_OK && code == cudaSuccess)
        return ZIMAGE_OK;
    (void)cudaGetLastError();
    if (*graph != NULL)
        (void)cudaGraphDestroy(*graph);
    *graph = NULL;
    return status == ZIMAGE_ERROR_CANCELLED ? status : ZIMAGE_OK;
}

static zimage_status record(zi_cuda *cuda, zi_cuda_recording *r, const work_item *w)
{
    int64_t before = w->run->blocks;
    cudaGraph_t graph;
    zimage_status status = capture(cuda, w, &graph);
    r->blocks = w->run->blocks - before;
    if (status == ZIMAGE_OK && graph != NULL)
        status = keep_names(cuda, r, w->run);
    if (graph != NULL) {
        if (status == ZIMAGE_OK && cudaGraphInstantiate(&r->graph, graph, 0) != cudaSuccess) {
            (void)cudaGetLastError();
            r->graph = NULL;
        }
        (void)cudaGraphDestroy(graph);
    }
    cuda->checks = cuda->named = 0;
    r->refused = status == ZIMAGE_OK && r->graph == NULL;
    return status;
}

/* After an attempt to record: progress was reported and counted then. */
static zimage_status run_silently(const work_item *w)
{
    zi_run silent = {.ops = w->run->ops, .error = w->run->error};
    return w->work(&silent, w->user);
}

static zimage_status launch(zi_cuda *cuda, const zi_cuda_recording *r)
{
    cuda->checks = cuda->named = r->checks;
    memcpy(cuda->names, r->names, (size_t)r->checks * sizeof(*r->names));
    return zi_cuda_result(cuda, cudaGraphLaunch(r->graph, cuda->stream), "queueing what was recorded");
}

zimage_status zi_cuda_op_repeat(zi_run *run, const void *key, size_t size, zi_work_fn *work, const void *user)
{
    const work_item w = {run, key, size, work, user};
    zi_cuda *cuda = zi_cuda_begin(run); /* also so that no event of a weight is recorded into a graph */
    if (cuda->ops.rehearsing)
        return work(run, user);
    if (cuda->checks > 0) /* flags that wait to be read are not part of the work */
        ZI_TRY(zi_cuda_wait(cuda));
    if (cuda->recordings == NULL)
        cuda->recordings = calloc(RECORDINGS_MAX, sizeof(*cuda->recordings));
    if (cuda->recordings == NULL)
        return zi_fail_memory(run->error, "recordings", RECORDINGS_MAX * sizeof(*cuda->recordings));
    zi_cuda_recording *r = find(cuda, key, size, place_of(cuda));
    if (r == NULL)
        return run_first(cuda, &w);
    r->last_use = ++cuda->recordings_used;
    if (r->refused)
        return work(run, user);
    if (!r->settled)
        return run_settling(cuda, r, &w);
    if (r->graph == NULL) {
        ZI_TRY(record(cuda, r, &w));
        return r->refused ? run_silently(&w) : launch(cuda, r);
    }
    ZI_TRY(launch(cuda, r));
    for (int64_t i = 0; i < r->blocks; i++)
        ZI_TRY(zi_block_done(run));
    return ZIMAGE_OK;
}
