/*
 * Dividing device memory for a job. Rehearsals have found the peak of the stack and the weights of each stage in the
 * order of their use (rehearsal.c). From that this file decides which weights stay in device memory. If all fit, all
 * stay. Else the weights with the most uses in the job stay. Where only a part of the weights with equally many uses
 * fits, the part is spread evenly over the order, so that copies of the others overlap with computing.
 *
 * A weight that another session offers (slabs.h) stays where it is and takes no memory of this session's. Slabs of this
 * session that others hold would stay in memory if it let them go, so it keeps them, unless the job needs their bytes.
 */
#include <assert.h>
#include <stdlib.h>
#include <string.h>

#include "base/numbers.h"
#include "cuda/entries.h"
#include "cuda/record.h"
#include "cuda/residency.h"

/* Of a ring that only weights pass through which are resident in another form: enough for a few of them to wait. */
#define FORM_BYTES (64 * ZI_MIB)

/* ---- what a job needs -------------------------------------------------------------------------------------------- */

typedef struct needs {
    zi_cuda_weight **weights; /* each once, in the order of their first use */
    int count;
    zi_cuda_slabs found; /* of weights that are offered */
    uint64_t kept;       /* bytes of those among them that this session owns */
    /* Bytes in device memory of weights that are not offered: of all; of vectors, which always stay. */
    uint64_t all, vectors;
    /* Bytes of slots of the ring. widest: the most for the weights of one operation. formed, widest_formed: of weights
     * that are stored in another form than kernels read: all that are not offered, each once; the most for one
     * operation. */
    uint64_t widest, formed, widest_formed;
} needs;

static uint64_t slot_of(const zi_cuda_weight *weight)
{
    return zi_cuda_round_up(weight->stored);
}

/* Raises widest and widest_formed to what the operations of the stage need. */
static void measure_operations(const zi_cuda_stage *stage, needs *n)
{
    uint64_t through = 0, formed = 0;
    for (int i = 0; i < stage->count; i++) {
        const zi_cuda_weight *w = stage->uses[i].weight;
        if (i == 0 || stage->uses[i].operation != stage->uses[i - 1].operation)
            through = formed = 0;
        if (!w->direct)
            formed += slot_of(w);
        if (!w->direct || w->key.form != ZI_FORM_VECTOR)
            through += slot_of(w);
        n->widest = zi_max_size(n->widest, through);
        n->widest_formed = zi_max_size(n->widest_formed, formed);
    }
}

static void count_weight(zi_cuda_weight *w, const zi_stage_runs *runs, needs *n)
{
    if (w->uses == 0) {
        n->weights[n->count++] = w;
        w->first_stage = runs->stage;
    }
    w->uses += runs->times;
}

/* Looks for weights that are offered; own 0: only by other sessions. Adds up the rest. */
static zimage_status find_offered(zi_cuda *cuda, int own, needs *n)
{
    zi_cuda_slabs_drop(cuda, &n->found, 0);
    ZI_TRY(zi_cuda_slabs_find(cuda, n->weights, n->count, own, &n->found));
    n->kept = zi_cuda_slabs_owned(cuda, &n->found);
    n->all = n->vectors = n->formed = 0;
    for (int i = 0; i < n->count; i++) {
        const zi_cuda_weight *w = n->weights[i];
        if (w->offered != NULL)
            continue;
        n->all += zi_cuda_round_up(w->bytes);
        n->vectors += w->key.form == ZI_FORM_VECTOR ? zi_cuda_round_up(w->bytes) : 0;
        n->formed += w->direct ? 0 : slot_of(w);
    }
    return ZIMAGE_OK;
}

static zimage_status count_needs(zi_cuda *cuda, const zi_stage_runs *runs, int count, needs *n)
{
    zi_cuda_residency *r = cuda->residency;
    *n = (needs){0};
    for (size_t i = 0; i < cuda->weights.capacity; i++)
        if (cuda->weights.places[i] != NULL)
            cuda->weights.places[i]->uses = 0;
    n->weights = malloc((cuda->weights.count + 1) * sizeof(void *));
    if (n->weights == NULL)
        return zi_fail_memory(cuda->error, "a plan", (cuda->weights.count + 1) * sizeof(void *));
    for (int i = 0; i < count; i++) {
        const zi_cuda_stage *stage = &r->stages[runs[i].stage];
        for (int u = 0; u < stage->count; u++)
            count_weight(stage->uses[u].weight, &runs[i], n);
        measure_operations(stage, n);
    }
    return find_offered(cuda, 1, n);
}

/* A ring in which the weights of any operation find room, wherever the weights of the operation before lie. */
static uint64_t smallest_ring(const needs *n)
{
    return 2 * n->widest;
}

/* A ring for a job whose weights all stay: only stored forms pass through. */
static uint64_t forming_ring(const needs *n)
{
    return n->formed > 0 ? zi_max_size(2 * n->widest_formed, zi_min_size(n->formed, FORM_BYTES)) : 0;
}

/* ---- which weights stay ------------------------------------------------------------------------------------------ */

/* Whether it stays in any case: vectors do, and what is offered. */
static int stays_anyway(const zi_cuda_weight *w)
{
    return w->key.form == ZI_FORM_VECTOR || w->offered != NULL;
}

/* The largest number of uses of a weight that is below `uses`; 0: none. */
static int64_t next_class(const needs *n, int64_t uses)
{
    int64_t next = 0;
    for (int i = 0; i < n->count; i++) {
        const zi_cuda_weight *w = n->weights[i];
        if (!stays_anyway(w) && w->uses < uses && w->uses > next)
            next = w->uses;
    }
    return next;
}

/* Keeps the weights with so many uses, or an evenly spread part of them that fits; returns the bytes that are left. */
static uint64_t keep_class(const needs *n, int64_t uses, uint64_t room)
{
    uint64_t all = 0, seen = 0, kept = 0;
    for (int i = 0; i < n->count; i++)
        if (!stays_anyway(n->weights[i]) && n->weights[i]->uses == uses)
            all += zi_cuda_round_up(n->weights[i]->bytes);
    for (int i = 0; i < n->count; i++) {
        zi_cuda_weight *w = n->weights[i];
        uint64_t bytes = zi_cuda_round_up(w->bytes);
        if (stays_anyway(w) || w->uses != uses)
            continue;
        seen += bytes;
        w->stays = all <= room || (double)(kept + bytes) <= (double)seen * ((double)room / (double)all);
        kept += w->stays ? bytes : 0;
    }
    return room - kept;
}

/* Decides which weights stay; fills ring and least of the plan. A job with least above the limit does not fit. */
static void choose(const needs *n, zi_memory_plan *plan)
{
    uint64_t base = plan->workspace + plan->activations + n->kept, whole = base + n->all + forming_ring(n);
    uint64_t least = base + n->vectors + smallest_ring(n);
    plan->least = zi_min_size(whole, least);
    for (int i = 0; i < n->count; i++)
        n->weights[i]->stays = stays_anyway(n->weights[i]);
    if (whole <= plan->limit) {
        plan->ring = forming_ring(n);
        for (int i = 0; i < n->count; i++)
            n->weights[i]->stays = 1;
        return;
    }
    if (least > plan->limit)
        return;
    uint64_t room = plan->limit - least, wider = zi_min_size(room, n->widest);
    plan->ring = smallest_ring(n) + wider;
    room -= wider;
    for (int64_t uses = next_class(n, INT64_MAX); uses > 0; uses = next_class(n, uses))
        room = keep_class(n, uses, room);
}

/* ---- the plan ---------------------------------------------------------------------------------------------------- */

static void add_up(const zi_cuda_residency *r, const needs *n, zi_memory_plan *plan)
{
    plan->resident = n->kept;
    plan->shared = 0;
    for (int i = 0; i < n->count; i++) {
        const zi_cuda_weight *w = n->weights[i];
        plan->resident += w->stays && w->offered == NULL ? zi_cuda_round_up(w->bytes) : 0;
        plan->shared += w->offered != NULL && !w->offered_here ? zi_cuda_round_up(w->bytes) : 0;
    }
    for (int s = 0; s < ZI_STAGES_MAX; s++) {
        plan->weights[s] = plan->streamed[s] = 0;
        for (int i = 0; i < r->stages[s].count; i++) {
            const zi_cuda_weight *w = r->stages[s].uses[i].weight;
            plan->weights[s] += w->stored;
            plan->streamed[s] += w->uses > 0 && !w->stays ? w->stored : 0;
        }
    }
    plan->total = plan->workspace + plan->activations + plan->ring + plan->resident;
}

static uint64_t streamed_by_job(const zi_memory_plan *plan, const zi_stage_runs *runs, int count)
{
    uint64_t bytes = 0;
    for (int i = 0; i < count; i++)
        bytes += (uint64_t)runs[i].times * plan->streamed[runs[i].stage];
    return bytes;
}

static zimage_status refuse(zi_cuda *cuda, const needs *n, const zi_memory_plan *plan)
{
    uint64_t weights = plan->least - plan->activations - plan->workspace;
    return zi_fail(
        cuda->error, ZIMAGE_ERROR_MEMORY,
        "cuda:%d: out of device memory: this request needs at least %llu MiB (activations %llu, workspace %llu, "
        "weights %llu of %llu at a time), but %llu MiB may be taken: %s",
        cuda->device, zi_mib(plan->least), zi_mib(plan->activations), zi_mib(plan->workspace), zi_mib(weights),
        zi_mib(n->all), (unsigned long long)(plan->limit / ZI_MIB),
        plan->limit == cuda->asked ? "device_memory" : "what is free");
}

/* Fills the plan for the present arrangement; 0: the job can't run with it. */
static int describe_present(const zi_cuda *cuda, const needs *n, zi_memory_plan *plan)
{
    const zi_cuda_residency *r = cuda->residency;
    size_t stack = zi_cuda_stack_bytes(cuda), activations = zi_max_size(plan->activations, stack);
    int streams = 0;
    for (int i = 0; i < n->count; i++) {
        zi_cuda_weight *w = n->weights[i];
        if (!w->arranged || (w->offered != NULL && w->offered != w->data))
            return 0;
        w->stays = w->data != NULL;
        streams |= !w->stays;
    }
    plan->ring = r->ring_bytes;
    plan->activations = activations;
    add_up(r, n, plan);
    return r->arranged && cuda->used - stack + activations <= plan->limit &&
           r->ring_bytes >= (streams ? smallest_ring(n) : forming_ring(n));
}

/* Fills the plan. *present: the present arrangement copies no more, and is kept. */
static zimage_status make_plan(zi_cuda *cuda, needs *n, const zi_stage_runs *runs, int count, zi_memory_plan *plan,
                               int *present)
{
    choose(n, plan);
    if (plan->least > plan->limit && n->kept > 0) {
        plan->limit = zi_cuda_limit(cuda, (size_t)n->kept); /* their other holders go on holding them */
        ZI_TRY(find_offered(cuda, 0, n));
        choose(n, plan);
    }
    if (plan->least > plan->limit)
        return refuse(cuda, n, plan);
    add_up(cuda->residency, n, plan);
    zi_memory_plan current = *plan;
    *present = describe_present(cuda, n, &current) &&
               streamed_by_job(&current, runs, count) <= streamed_by_job(plan, runs, count);
    if (*present)
        *plan = current;
    else
        choose(n, plan); /* describe_present has overwritten what stays */
    return ZIMAGE_OK;
}

/* ---- the arrangement --------------------------------------------------------------------------------------------- */

/* Slabs for what stays and is not offered, one for each stage. members: room for all weights. */
static zimage_status make_slabs(zi_cuda *cuda, const needs *n, zi_cuda_weight **members)
{
    for (int stage = 0; stage < ZI_STAGES_MAX; stage++) {
        int count = 0;
        for (int i = 0; i < n->count; i++)
            if (n->weights[i]->stays && n->weights[i]->offered == NULL && n->weights[i]->first_stage == stage)
                members[count++] = n->weights[i];
        if (count > 0)
            ZI_TRY(zi_cuda_slab_new(cuda, members, count, &cuda->residency->slabs));
    }
    return ZIMAGE_OK;
}

/* Of the slabs that were found, those that this session has just let go become its own again. */
static zimage_status take_memory(zi_cuda *cuda, const needs *n, const zi_memory_plan *plan)
{
    zi_cuda_residency *r = cuda->residency;
    size_t bytes = (size_t)(n->count + 1) * sizeof(zi_cuda_weight *);
    ZI_TRY(zi_cuda_slabs_hold(cuda, &n->found, &r->slabs));
    if (n->kept > 0)
        zi_cuda_slabs_adopt(cuda, &r->slabs);
    ZI_TRY(zi_cuda_stack_reserve(cuda, (size_t)plan->activations));
    ZI_TRY(zi_cuda_memory(cuda, (size_t)plan->ring, "the ring of weights", (void **)&r->ring));
    r->ring_bytes = (size_t)plan->ring;
    zi_cuda_weight **members = malloc(bytes);
    if (members == NULL)
        return zi_fail_memory(cuda->error, "a list of weights", bytes);
    zimage_status status = make_slabs(cuda, n, members);
    free(members);
    return status;
}

static zimage_status divide(zi_cuda *cuda, const needs *n, const zi_memory_plan *plan)
{
    zi_cuda_recordings_free(cuda);
    zi_cuda_arrangement_drop(cuda);
    zi_cuda_stack_free(cuda);
    zimage_status status = take_memory(cuda, n, plan);
    if (status != ZIMAGE_OK) {
        zi_cuda_arrangement_drop(cuda);
        zi_cuda_stack_free(cuda);
        return status;
    }
    for (int i = 0; i < n->count; i++) {
        zi_cuda_weight *w = n->weights[i];
        w->arranged = 1;
        w->ready = w->offered != NULL;
        if (w->offered != NULL)
            w->data = w->offered;
    }
    cuda->residency->arranged = 1;
    return ZIMAGE_OK;
}

/* From here on the backend expects the job, and begins to copy weights. */
static zimage_status begin_job(zi_cuda *cuda, const zi_stage_runs *runs, int count)
{
    zi_cuda_residency *r = cuda->residency;
    zi_stage_runs *copy = malloc((size_t)count * sizeof(*copy));
    if (copy == NULL)
        return zi_fail_memory(cuda->error, "a job's stages", (size_t)count * sizeof(*copy));
    memcpy(copy, runs, (size_t)count * sizeof(*copy));
    free(r->runs);
    r->runs = copy;
    r->run_count = count;
    r->now = r->ahead = (zi_cuda_cursor){0, 0, 0};
    return zi_cuda_read_ahead(cuda);
}

static zimage_status commit_plan(zi_cuda *cuda, const needs *n, const zi_memory_plan *plan, int present)
{
    cuda->limit = (size_t)plan->limit;
    zi_cuda_residency_next(cuda);
    zi_cuda_loads_cancel(cuda);
    if (!present)
        return divide(cuda, n, plan);
    return zi_cuda_stack_bytes(cuda) < plan->activations ? zi_cuda_stack_reserve(cuda, (size_t)plan->activations)
                                                         : ZIMAGE_OK;
}

zimage_status zi_cuda_op_arrange(zi_run *run, const zi_stage_runs *runs, int count, size_t activations, uint64_t host,
                                 int commit, zi_memory_plan *plan)
{
    zi_cuda *cuda = zi_cuda_enter(run);
    needs n;
    int present = 0;
    assert(count > 0 && !cuda->ops.rehearsing && cuda->stack.in_use == 0);
    zi_cuda_slabs_adopt(cuda, &cuda->residency->slabs);
    *plan = (zi_memory_plan){.limit = zi_cuda_limit(cuda, 0), .activations = activations, .workspace = cuda->fixed};
    zimage_status status = count_needs(cuda, runs, count, &n);
    if (status == ZIMAGE_OK)
        status = make_plan(cuda, &n, runs, count, plan, &present);
    if (status == ZIMAGE_OK && commit)
        status = commit_plan(cuda, &n, plan, present);
    if (status == ZIMAGE_OK && commit)
        status = begin_job(cuda, runs, count);
    zi_cuda_slabs_drop(cuda, &n.found, 0);
    free(n.weights);
    return status;
}
