/*
 * Rehearsals: the networks' own code runs on the table without computing. Operations take memory from an imaginary
 * stack, whose peak is what the job needs, and the weights that they read are recorded in the order of their use.
 */
#include <assert.h>
#include <stdlib.h>

#include "cuda/entries.h"
#include "cuda/residency.h"

static zimage_status record_use(zi_cuda *cuda, zi_cuda_weight *weight)
{
    zi_cuda_stage *stage = &cuda->residency->rehearsed;
    if (stage->count == stage->capacity) {
        int capacity = stage->capacity ? 2 * stage->capacity : 512;
        zi_cuda_use *uses = realloc(stage->uses, (size_t)capacity * sizeof(*uses));
        if (uses == NULL)
            return zi_fail_memory(cuda->error, "the order of weights", (size_t)capacity * sizeof(*uses));
        stage->uses = uses;
        stage->capacity = capacity;
    }
    stage->uses[stage->count++] = (zi_cuda_use){weight, cuda->residency->operation};
    return ZIMAGE_OK;
}

/* What stays is decided later. So this takes the memory of a weight that passes through the ring, which is the most;
 * vectors are small and always stay. */
zimage_status zi_cuda_rehearse_use(zi_cuda *cuda, zi_cuda_weight *weight, void **data)
{
    const uint8_t *nowhere = cuda->stack.chunks[0].data;
    ZI_TRY(record_use(cuda, weight));
    *data = (void *)nowhere;
    if (weight->direct || weight->key.form == ZI_FORM_VECTOR)
        return ZIMAGE_OK;
    ZI_TRY(zi_cuda_stack_alloc(cuda, weight->bytes, weight->a->name, data));
    return zi_cuda_weight_form(cuda, weight, nowhere, *data);
}

zimage_status zi_cuda_op_rehearse_begin(zi_run *run)
{
    zi_cuda *cuda = zi_cuda_enter(run);
    zi_cuda_residency *r = cuda->residency;
    zi_cuda_stack imaginary;
    assert(!cuda->ops.rehearsing);
    ZI_TRY(zi_cuda_stack_imaginary(cuda, &imaginary));
    r->set_aside = cuda->stack;
    cuda->stack = imaginary;
    r->rehearsed.count = 0;
    cuda->ops.rehearsing = 1;
    return ZIMAGE_OK;
}

zimage_status zi_cuda_op_rehearse_stage(zi_run *run, int stage, size_t *peak)
{
    zi_cuda *cuda = zi_cuda_enter(run);
    zi_cuda_residency *r = cuda->residency;
    assert(cuda->ops.rehearsing && stage >= 0 && stage < ZI_STAGES_MAX);
    *peak = cuda->stack.peak;
    cuda->stack.peak = cuda->stack.in_use;
    zi_cuda_stage before = r->stages[stage];
    r->stages[stage] = r->rehearsed;
    r->rehearsed = before;
    r->rehearsed.count = 0;
    return ZIMAGE_OK;
}

void zi_cuda_op_rehearse_end(zi_run *run)
{
    zi_cuda *cuda = zi_cuda_state(run->ops);
    if (!cuda->ops.rehearsing)
        return;
    free(cuda->stack.chunks);
    cuda->stack = cuda->residency->set_aside;
    cuda->ops.rehearsing = 0;
    cuda->checks = cuda->named = 0;
}
