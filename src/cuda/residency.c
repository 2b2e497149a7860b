/*
 * Copying weights to the GPU (residency.h explains the words). Weights are sent in the order in which the job reads
 * them, as far ahead as there is room. Resident weights go to their places in slabs. Other weights, and weights
 * whose form is made on the GPU, go to slots of the ring. A slot is written again when the GPU has finished the
 * operation that read it.
 */
#include "cuda/residency.h"

#include <assert.h>
#include <stdlib.h>

zimage_status zi_cuda_residency_open(zi_cuda *cuda)
{
    zi_cuda_residency *r = cuda->residency = calloc(1, sizeof(*cuda->residency));
    if (r != NULL)
        r->loads = calloc(ZI_LOADS, sizeof(*r->loads));
    if (r == NULL || r->loads == NULL)
        return zi_fail_memory(cuda->error, "a list of weights", ZI_LOADS * sizeof(zi_cuda_load));
    return zi_cuda_result(cuda, cudaEventCreateWithFlags(&r->stack_free, cudaEventDisableTiming), "making an event");
}

static void evict(zi_cuda *cuda, zi_cuda_weight *weight)
{
    if (weight->owned)
        zi_cuda_memory_free(cuda, weight->data, weight->bytes);
    weight->data = NULL;
    weight->slab = NULL;
    weight->load = NULL;
    weight->owned = weight->ready = weight->arranged = 0;
}

int64_t zi_cuda_residency_sent(const zi_cuda *cuda)
{
    return cuda->residency->sent;
}

void zi_cuda_arrangement_drop(zi_cuda *cuda)
{
    zi_cuda_residency *r = cuda->residency;
    cuda->stack.changes++; /* recordings hold the weights' addresses */
    zi_cuda_loads_cancel(cuda);
    (void)cudaStreamSynchronize(cuda->uploader.stream);
    (void)cudaStreamSynchronize(cuda->stream);
    for (size_t i = 0; i < cuda->weights.capacity; i++)
        if (cuda->weights.places[i] != NULL)
            evict(cuda, cuda->weights.places[i]);
    zi_cuda_slabs_drop(cuda, &r->slabs, 1);
    zi_cuda_memory_free(cuda, r->ring, r->ring_bytes);
    r->ring = NULL;
    r->ring_bytes = r->head = 0;
    r->first = r->last = r->first_unused = 0;
    r->in_use = r->arranged = r->run_count = 0;
}

void zi_cuda_residency_clear(zi_cuda *cuda)
{
    zi_cuda_arrangement_drop(cuda);
    for (int i = 0; i < ZI_STAGES_MAX; i++)
        cuda->residency->stages[i].count = 0;
}

static void close_load(zi_cuda_load *load)
{
    if (load->upload.arrived != NULL)
        (void)cudaEventDestroy(load->upload.arrived);
    if (load->released != NULL)
        (void)cudaEventDestroy(load->released);
}

void zi_cuda_residency_close(zi_cuda *cuda)
{
    zi_cuda_residency *r = cuda->residency;
    if (r == NULL)
        return;
    if (cuda->uploader.ready)
        zi_cuda_residency_clear(cuda);
    for (int i = 0; i < ZI_LOADS && r->loads != NULL; i++)
        close_load(&r->loads[i]);
    if (r->stack_free != NULL)
        (void)cudaEventDestroy(r->stack_free);
    for (int i = 0; i < ZI_STAGES_MAX; i++)
        free(r->stages[i].uses);
    free(r->rehearsed.uses);
    free(r->runs);
    free(r->loads);
    free(r);
    cuda->residency = NULL;
}

/* ---- the order of the job ---------------------------------------------------------------------------------------- */

/* The weight that is read at the cursor, or NULL: the job has ended. Skips stages that read no weights. */
static zi_cuda_weight *use_at(const zi_cuda_residency *r, zi_cuda_cursor *c)
{
    while (c->run < r->run_count) {
        const zi_stage_runs *run = &r->runs[c->run];
        const zi_cuda_stage *stage = &r->stages[run->stage];
        if (c->use < stage->count && c->time < run->times)
            return stage->uses[c->use].weight;
        c->use = 0;
        if (stage->count == 0 || ++c->time >= run->times) {
            c->time = 0;
            c->run++;
        }
    }
    return NULL;
}

static int is_before(const zi_cuda_cursor *a, const zi_cuda_cursor *b)
{
    if (a->run != b->run)
        return a->run < b->run;
    return a->time != b->time ? a->time < b->time : a->use < b->use;
}

/* Moves c to the next use of the weight; 0: there is none. */
static int find_use(const zi_cuda_residency *r, const zi_cuda_weight *weight, zi_cuda_cursor *c)
{
    const zi_cuda_weight *w;
    for (; (w = use_at(r, c)) != NULL; c->use++)
        if (w == weight)
            return 1;
    return 0;
}

/* The job reads this weight now. If another one was expected, the loads that wait are dropped. */
static void advance_to(zi_cuda *cuda, const zi_cuda_weight *weight)
{
    zi_cuda_residency *r = cuda->residency;
    if (use_at(r, &r->now) != weight) {
        zi_cuda_cursor place = r->now;
        zi_cuda_loads_cancel(cuda);
        if (!find_use(r, weight, &place)) {
            place = (zi_cuda_cursor){0, 0, 0};
            (void)find_use(r, weight, &place);
        }
        r->now = r->ahead = place;
    }
    r->now.use++;
}

/* ---- the ring ---------------------------------------------------------------------------------------------------- */

static zi_cuda_load *load_at(const zi_cuda_residency *r, int64_t number)
{
    return &r->loads[number % ZI_LOADS];
}

/* The oldest load with a slot, or NULL. */
static const zi_cuda_load *oldest_slot(const zi_cuda_residency *r)
{
    for (int64_t i = r->first; i < r->last; i++)
        if (load_at(r, i)->slot > 0)
            return load_at(r, i);
    return NULL;
}

/* *at: where so many contiguous bytes of the ring are free; 0: nowhere now. */
static int find_slot(const zi_cuda_residency *r, size_t bytes, size_t *at)
{
    const zi_cuda_load *oldest = oldest_slot(r);
    size_t tail = oldest != NULL ? (size_t)(oldest->stored - r->ring) : 0;
    *at = oldest != NULL ? r->head : 0;
    if (oldest == NULL)
        return bytes <= r->ring_bytes;
    if (r->head <= tail) /* the used part wraps around the end */
        return bytes <= tail - r->head;
    if (bytes <= r->ring_bytes - r->head)
        return 1;
    *at = 0;
    return bytes <= tail;
}

/* Takes the oldest load off the list, if it is done. The uploader's stream waits until the GPU has read its slot. */
static int reclaim(zi_cuda *cuda)
{
    zi_cuda_residency *r = cuda->residency;
    zi_cuda_load *load = load_at(r, r->first);
    if (r->first == r->last || load->state != ZI_LOAD_DONE)
        return 0;
    if (load->slot > 0)
        (void)cudaStreamWaitEvent(cuda->uploader.stream, load->released, 0);
    r->first++;
    return 1;
}

static zimage_status make_events(zi_cuda *cuda, zi_cuda_load *load)
{
    cudaEvent_t *events[2] = {&load->upload.arrived, &load->released};
    for (int i = 0; i < 2; i++)
        if (*events[i] == NULL)
            ZI_TRY(
                zi_cuda_result(cuda, cudaEventCreateWithFlags(events[i], cudaEventDisableTiming), "making an event"));
    return ZIMAGE_OK;
}

/* Begins to send a weight's stored bytes to `stored`. */
static zimage_status begin_load(zi_cuda *cuda, zi_cuda_weight *weight, uint8_t *stored, size_t slot)
{
    zi_cuda_residency *r = cuda->residency;
    zi_cuda_load *load = load_at(r, r->last);
    ZI_TRY(make_events(cuda, load));
    zi_cuda_weight_parts(weight, stored, load->upload.parts);
    load->weight = weight;
    load->stored = stored;
    load->slot = slot;
    load->state = ZI_LOAD_WAITS;
    if (weight->load == NULL)
        weight->load = load;
    r->last++;
    zi_uploader_queue(&cuda->uploader, &load->upload);
    return ZIMAGE_OK;
}

/* *room 0: the ring has no room for it now. */
static zimage_status try_load(zi_cuda *cuda, zi_cuda_weight *weight, int *room)
{
    zi_cuda_residency *r = cuda->residency;
    int straight = weight->data != NULL && weight->direct;
    size_t at = 0, slot = straight ? 0 : zi_cuda_round_up(weight->stored);
    while (r->last - r->first == ZI_LOADS || (slot > 0 && !find_slot(r, slot, &at)))
        if (!reclaim(cuda)) {
            *room = 0;
            return ZIMAGE_OK;
        }
    *room = 1;
    ZI_TRY(begin_load(cuda, weight, straight ? weight->data : r->ring + at, slot));
    if (slot > 0)
        r->head = at + slot;
    return ZIMAGE_OK;
}

zimage_status zi_cuda_read_ahead(zi_cuda *cuda)
{
    zi_cuda_residency *r = cuda->residency;
    zi_cuda_weight *weight;
    int room = 1;
    if (is_before(&r->ahead, &r->now))
        r->ahead = r->now;
    for (; (weight = use_at(r, &r->ahead)) != NULL; r->ahead.use++) {
        if (weight->ready || (weight->data != NULL && weight->load != NULL))
            continue;
        if (weight->load != NULL) /* its load before is still under way: the whole stage is */
            return ZIMAGE_OK;
        ZI_TRY(try_load(cuda, weight, &room));
        if (!room)
            return ZIMAGE_OK;
    }
    return ZIMAGE_OK;
}

void zi_cuda_loads_cancel(zi_cuda *cuda)
{
    zi_cuda_residency *r = cuda->residency;
    if (r->first_unused == r->last)
        return;
    zi_uploader_cancel(&cuda->uploader);
    for (int64_t i = r->last; i-- > r->first_unused;) {
        zi_cuda_load *load = load_at(r, i);
        load->weight->load = NULL;
        if (load->slot > 0)
            r->head = (size_t)(load->stored - r->ring);
    }
    r->last = r->first_unused;
}

/* ---- reading weights --------------------------------------------------------------------------------------------- */

void zi_cuda_residency_next(zi_cuda *cuda)
{
    zi_cuda_residency *r = cuda->residency;
    if (r == NULL)
        return;
    r->operation++;
    for (int64_t i = r->first_unused; r->in_use > 0 && i-- > r->first;) {
        zi_cuda_load *load = load_at(r, i);
        if (load->state != ZI_LOAD_IN_USE)
            continue;
        if (load->slot > 0)
            (void)cudaEventRecord(load->released, cuda->stream); /* a failure shows in the operation's own calls */
        load->state = ZI_LOAD_DONE;
        r->in_use--;
    }
}

zi_cuda *zi_cuda_begin(const zi_run *run)
{
    zi_cuda *cuda = zi_cuda_enter(run);
    zi_cuda_residency_next(cuda);
    return cuda;
}

/* Makes the stream wait for the oldest load of the weight. */
static zimage_status await(zi_cuda *cuda, zi_cuda_weight *weight, const uint8_t **stored)
{
    zi_cuda_residency *r = cuda->residency;
    zi_cuda_load *load = weight->load;
    assert(load == load_at(r, r->first_unused));
    cudaError_t code = zi_uploader_await(&cuda->uploader, &load->upload);
    if (code == cudaSuccess)
        code = cudaStreamWaitEvent(cuda->stream, load->upload.arrived, 0);
    weight->load = NULL;
    load->state = ZI_LOAD_IN_USE;
    r->first_unused++;
    r->in_use++;
    r->sent++;
    *stored = load->stored;
    return zi_cuda_result(cuda, code, "sending a weight");
}

/* Makes sure that a load of the weight is under way, and the first that will be read. */
static zimage_status require_load(zi_cuda *cuda, zi_cuda_weight *weight)
{
    int room;
    if (weight->load != NULL && weight->load != load_at(cuda->residency, cuda->residency->first_unused))
        zi_cuda_loads_cancel(cuda);
    if (weight->load != NULL)
        return ZIMAGE_OK;
    ZI_TRY(try_load(cuda, weight, &room));
    if (!room) { /* weights that were sent ahead fill the ring */
        zi_cuda_loads_cancel(cuda);
        cuda->residency->ahead = cuda->residency->now;
        ZI_TRY(try_load(cuda, weight, &room));
    }
    if (room)
        return ZIMAGE_OK;
    return zi_fail(cuda->error, ZIMAGE_ERROR_INTERNAL, "cuda:%d: %s: no room in a ring of %zu bytes", cuda->device,
                   weight->a->name, cuda->residency->ring_bytes);
}

/* A weight of the arrangement. */
static zimage_status get_arranged(zi_cuda *cuda, zi_cuda_weight *weight, void **data)
{
    const uint8_t *stored;
    advance_to(cuda, weight);
    *data = weight->data;
    if (!weight->ready)
        ZI_TRY(require_load(cuda, weight));
    ZI_TRY(zi_cuda_read_ahead(cuda));
    if (weight->ready)
        return ZIMAGE_OK;
    ZI_TRY(await(cuda, weight, &stored));
    if (weight->data == NULL && weight->direct) {
        *data = (void *)stored;
        return ZIMAGE_OK;
    }
    if (weight->data == NULL)
        ZI_TRY(zi_cuda_stack_alloc(cuda, weight->bytes, weight->a->name, data));
    if (!weight->direct)
        ZI_TRY(zi_cuda_weight_form(cuda, weight, stored, *data));
    weight->ready = weight->data != NULL;
    cuda->residency->has_unoffered |= weight->ready;
    return ZIMAGE_OK;
}

/* Sends the weight to `stored`: where it stays, or stack memory if its form is made on the GPU. */
static zimage_status send_now(zi_cuda *cuda, zi_cuda_weight *weight, uint8_t *stored)
{
    const uint8_t *there;
    zi_cuda_loads_cancel(cuda);
    cuda->residency->ahead = cuda->residency->now;
    if (cuda->residency->last - cuda->residency->first == ZI_LOADS && !reclaim(cuda))
        return zi_fail(cuda->error, ZIMAGE_ERROR_INTERNAL, "cuda:%d: %s: one operation reads too many weights",
                       cuda->device, weight->a->name);
    if (!weight->direct) {
        cudaEvent_t event = cuda->residency->stack_free;
        ZI_TRY(zi_cuda_result(cuda, cudaEventRecord(event, cuda->stream), "recording an event"));
        ZI_TRY(zi_cuda_result(cuda, cudaStreamWaitEvent(cuda->uploader.stream, event, 0), "waiting for an event"));
    }
    ZI_TRY(begin_load(cuda, weight, stored, 0));
    return await(cuda, weight, &there);
}

static zimage_status fill(zi_cuda *cuda, zi_cuda_weight *weight)
{
    void *stored = weight->data;
    if (!weight->direct)
        ZI_TRY(zi_cuda_stack_alloc(cuda, weight->stored, weight->a->name, &stored));
    ZI_TRY(send_now(cuda, weight, stored));
    if (!weight->direct)
        ZI_TRY(zi_cuda_weight_form(cuda, weight, stored, weight->data));
    return ZIMAGE_OK;
}

/* A weight that no arrangement knows gets memory of its own, and is sent when it is first read. */
static zimage_status get_unarranged(zi_cuda *cuda, zi_cuda_weight *weight, void **data)
{
    if (!weight->ready) {
        ZI_TRY(zi_cuda_memory(cuda, weight->bytes, weight->a->name, (void **)&weight->data));
        zi_arena_mark mark = zi_cuda_mark(cuda);
        zimage_status status = fill(cuda, weight);
        zi_cuda_release(cuda, mark);
        weight->owned = weight->ready = status == ZIMAGE_OK;
        if (status != ZIMAGE_OK) {
            (void)cudaStreamSynchronize(cuda->uploader.stream); /* copies into it may still run */
            (void)cudaStreamSynchronize(cuda->stream);
            zi_cuda_memory_free(cuda, weight->data, weight->bytes);
            weight->data = NULL;
            return status;
        }
    }
    *data = weight->data;
    return ZIMAGE_OK;
}

zimage_status zi_cuda_residency_get(zi_cuda *cuda, zi_cuda_weight *weight, void **data)
{
    if (cuda->ops.rehearsing)
        return zi_cuda_rehearse_use(cuda, weight, data);
    if (weight->arranged)
        return get_arranged(cuda, weight, data);
    return get_unarranged(cuda, weight, data);
}
