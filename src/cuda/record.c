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

/* A GPU's part of a recording. */
typedef struct recorded_part {
    stack_place place;
    cudaGraphExec_t graph; /* NULL: not yet recorded */
    int checks;            /* for NaN and infinity in it, and their blocks' names */
    char (*names)[ZI_BLOCK_NAME];
} recorded_part;

struct zi_cuda_recording {
    void *key; /* owned; NULL: a free place */
    size_t size;
    uint64_t last_use; /* a count: zi_cuda.recordings_used */
    int settled;       /* it ran without sending a weight */
    int refused;       /* something in it can't be recorded */
    int64_t blocks;    /* of the network that end in it */
    recorded_part parts[ZI_CARDS_MAX];
};

static void free_graphs(zi_cuda_recording *r)
{
    for (int i = 0; i < ZI_CARDS_MAX; i++) {
        if (r->parts[i].graph != NULL)
            (void)cudaGraphExecDestroy(r->parts[i].graph);
        free(r->parts[i].names);
        r->parts[i] = (recorded_part){.place = r->parts[i].place};
    }
}

static void free_recording(zi_cuda_recording *r)
{
    free_graphs(r);
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

static int has_place(const zi_cuda_recording *r, const zi_cuda_set *set)
{
    for (int i = 0; i < set->count; i++) {
        const stack_place a = r->parts[i].place, b = place_of(set->cards[i]);
        if (a.chunk != b.chunk || a.used != b.used || a.changes != b.changes)
            return 0;
    }
    return 1;
}

/* The recordings of a set are kept by its first GPU. */
static zi_cuda_recording *find(const zi_cuda_set *set, const zi_cuda_work_item *w)
{
    for (int i = 0; i < RECORDINGS_MAX; i++) {
        zi_cuda_recording *r = &set->cards[0]->recordings[i];
        if (r->key != NULL && r->size == w->size && memcmp(r->key, w->key, w->size) == 0 && has_place(r, set))
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
static zimage_status run_first(const zi_cuda_set *set, const zi_cuda_work_item *w)
{
    stack_place places[ZI_CARDS_MAX];
    for (int i = 0; i < set->count; i++)
        places[i] = place_of(set->cards[i]);
    ZI_TRY(w->work(w->run, w->user));
    zi_cuda_recording *r = oldest(set->cards[0]);
    r->key = malloc(w->size);
    if (r->key == NULL)
        return zi_fail_memory(w->run->error, "a recording", w->size);
    memcpy(r->key, w->key, w->size);
    r->size = w->size;
    r->last_use = ++set->cards[0]->recordings_used;
    for (int i = 0; i < set->count; i++) {
        r->parts[i].place = places[i];
        r->parts[i].place.changes = set->cards[i]->stack.changes;
    }
    return ZIMAGE_OK;
}

static int64_t sent_weights(const zi_cuda_set *set)
{
    int64_t sent = 0;
    for (int i = 0; i < set->count; i++)
        sent += zi_cuda_residency_sent(set->cards[i]);
    return sent;
}

/* A weight that is on its way can't be recorded. */
static zimage_status run_settling(const zi_cuda_set *set, zi_cuda_recording *r, const zi_cuda_work_item *w)
{
    int64_t before = sent_weights(set);
    ZI_TRY(w->work(w->run, w->user));
    r->settled = sent_weights(set) == before;
    return ZIMAGE_OK;
}

static zimage_status keep_names(const zi_cuda *cuda, recorded_part *part, const zi_run *run)
{
    size_t bytes = (size_t)cuda->checks * sizeof(*part->names);
    part->checks = cuda->checks;
    part->names = malloc(bytes > 0 ? bytes : 1);
    if (part->names == NULL)
        return zi_fail_memory(run->error, "names of blocks", bytes);
    memcpy(part->names, cuda->names, bytes);
    return ZIMAGE_OK;
}

static void free_captured(cudaGraph_t *graphs, int count)
{
    (void)cudaGetLastError();
    for (int i = 0; i < count; i++) {
        if (graphs[i] != NULL)
            (void)cudaGraphDestroy(graphs[i]);
        graphs[i] = NULL;
    }
}

/* Nothing is computed yet. graphs NULL: it can't be recorded. */
static zimage_status capture(const zi_cuda_set *set, const zi_cuda_work_item *w, cudaGraph_t graphs[ZI_CARDS_MAX])
{
    zimage_status status = ZIMAGE_OK;
    int begun = 0, complete = 1;
    for (; begun < set->count && status == ZIMAGE_OK; begun += status == ZIMAGE_OK) {
        zi_cuda *cuda = set->cards[begun];
        graphs[begun] = NULL;
        zi_cuda_make_current(cuda);
        status =
            zi_cuda_result(cuda, cudaStreamBeginCapture(cuda->stream, cudaStreamCaptureModeThreadLocal), "recording");
    }
    int all = status == ZIMAGE_OK;
    if (all)
        status = w->work(w->run, w->user);
    for (int i = 0; i < begun; i++) {
        zi_cuda_make_current(set->cards[i]);
        complete &= cudaStreamEndCapture(set->cards[i]->stream, &graphs[i]) == cudaSuccess;
    }
    if (status == ZIMAGE_OK && complete)
        return ZIMAGE_OK;
    free_captured(graphs, begun);
    return all && status != ZIMAGE_ERROR_CANCELLED ? ZIMAGE_OK : status;
}

static zimage_status instantiate(const zi_cuda_set *set, zi_cuda_recording *r, const zi_run *run,
                                 cudaGraph_t graphs[ZI_CARDS_MAX])
{
    zimage_status status = ZIMAGE_OK;
    for (int i = 0; i < set->count && status == ZIMAGE_OK; i++) {
        zi_cuda_make_current(set->cards[i]);
        status = keep_names(set->cards[i], &r->parts[i], run);
        if (status == ZIMAGE_OK && cudaGraphInstantiate(&r->parts[i].graph, graphs[i], 0) != cudaSuccess) {
            (void)cudaGetLastError();
            r->parts[i].graph = NULL;
            r->refused = 1;
        }
    }
    return status;
}

static zimage_status record(const zi_cuda_set *set, zi_cuda_recording *r, const zi_cuda_work_item *w)
{
    int64_t before = w->run->blocks;
    cudaGraph_t graphs[ZI_CARDS_MAX] = {NULL};
    zimage_status status = capture(set, w, graphs);
    r->blocks = w->run->blocks - before;
    r->refused = status == ZIMAGE_OK && graphs[0] == NULL;
    if (status == ZIMAGE_OK && !r->refused)
        status = instantiate(set, r, w->run, graphs);
    free_captured(graphs, set->count);
    for (int i = 0; i < set->count; i++)
        set->cards[i]->checks = set->cards[i]->named = 0;
    if (status != ZIMAGE_OK || r->refused)
        free_graphs(r);
    return status;
}

/* After an attempt to record: progress was reported and counted then. */
static zimage_status run_silently(const zi_cuda_work_item *w)
{
    zi_run silent = {.ops = w->run->ops, .error = w->run->error};
    return w->work(&silent, w->user);
}

static zimage_status launch(const zi_cuda_set *set, const zi_cuda_recording *r)
{
    for (int i = 0; i < set->count; i++) {
        zi_cuda *cuda = set->cards[i];
        const recorded_part *part = &r->parts[i];
        zi_cuda_make_current(cuda);
        cuda->checks = cuda->named = part->checks;
        memcpy(cuda->names, part->names, (size_t)part->checks * sizeof(*part->names));
        ZI_TRY(zi_cuda_result(cuda, cudaGraphLaunch(part->graph, cuda->stream), "queueing what was recorded"));
    }
    return ZIMAGE_OK;
}

/* Flags that wait to be read are not part of the work. */
static zimage_status begin(const zi_cuda_set *set, const zi_run *run)
{
    zi_cuda *first = set->cards[0];
    for (int i = 0; i < set->count; i++) {
        const zi_run own = {.ops = &set->cards[i]->ops, .error = run->error};
        zi_cuda *cuda = zi_cuda_begin(&own); /* also so that no event of a weight is recorded into a graph */
        if (cuda->checks > 0 && !cuda->ops.rehearsing)
            ZI_TRY(zi_cuda_wait(cuda));
    }
    if (first->ops.rehearsing)
        return ZIMAGE_OK;
    if (first->recordings == NULL)
        first->recordings = calloc(RECORDINGS_MAX, sizeof(*first->recordings));
    return first->recordings != NULL
               ? ZIMAGE_OK
               : zi_fail_memory(run->error, "recordings", RECORDINGS_MAX * sizeof(*first->recordings));
}

zimage_status zi_cuda_repeat(const zi_cuda_set *set, const zi_cuda_work_item *w)
{
    if (w->key == NULL)
        return w->work(w->run, w->user);
    ZI_TRY(begin(set, w->run));
    if (set->cards[0]->ops.rehearsing)
        return w->work(w->run, w->user);
    zi_cuda_recording *r = find(set, w);
    if (r == NULL)
        return run_first(set, w);
    r->last_use = ++set->cards[0]->recordings_used;
    if (r->refused)
        return w->work(w->run, w->user);
    if (!r->settled)
        return run_settling(set, r, w);
    if (r->parts[0].graph == NULL) {
        ZI_TRY(record(set, r, w));
        return r->refused ? run_silently(w) : launch(set, r);
    }
    ZI_TRY(launch(set, r));
    for (int64_t i = 0; i < r->blocks; i++)
        ZI_TRY(zi_block_done(w->run));
    return ZIMAGE_OK;
}

zimage_status zi_cuda_op_repeat(zi_run *run, const void *key, size_t size, zi_work_fn *work, const void *user)
{
    const zi_cuda_set alone = {.cards = {zi_cuda_state(run->ops)}, .count = 1};
    return zi_cuda_repeat(&alone, &(zi_cuda_work_item){run, key, size, work, user});
}
