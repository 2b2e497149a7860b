/* The stacks of several GPUs, in step: each allocation is made on every card. */
#include <assert.h>
#include <stdlib.h>

#include "cuda/cards.h"
#include "cuda/internal.h"

zi_run zi_cards_run(const zi_cards *c, int card, const zi_run *run)
{
    return (zi_run){.ops = &c->set.cards[card]->ops, .error = run->error};
}

zi_block *zi_cards_block(const zi_cards *c, const zi_tensor *tensor)
{
    for (int i = c->block_count; i-- > 0;)
        if (c->blocks[i].data[0] == tensor->data)
            return &c->blocks[i];
    assert(!"a tensor that was released");
    return NULL;
}

zi_tensor zi_cards_on(const zi_cards *c, int card, const zi_tensor *tensor)
{
    zi_tensor own = *tensor;
    own.data = zi_cards_block(c, tensor)->data[card];
    return own;
}

/* An operand has no other views than that of all its rows. */
zi_tensor zi_cards_rows(const zi_cards *c, int card, const zi_tensor *tensor, zi_range rows)
{
    zi_tensor own = zi_cards_on(c, card, tensor);
    if (rows.first == 0 && rows.count == own.shape[0])
        return own;
    if (own.dtype != ZI_OPERAND)
        return zi_tensor_rows(&own, rows.first, rows.count);
    assert(own.dims == 2);
    own.shape[0] = rows.count;
    own.offset += rows.first * own.ld;
    return own;
}

int zi_cards_is_narrow(const zi_cards *c, const zi_tensor *tensor)
{
    return tensor->shape[tensor->dims - 1] < zi_cards_block(c, tensor)->columns;
}

int zi_cards_place(const zi_cards *c, const zi_tensor *tensor, zi_range *rows)
{
    const zi_block *b = zi_cards_block(c, tensor);
    if (b->columns == 1 ? !zi_tensor_is_dense(tensor) : tensor->dims != 2 || tensor->ld != b->columns)
        return 0;
    *rows = (zi_range){tensor->offset / b->columns, b->columns == 1 ? zi_tensor_count(tensor) : tensor->shape[0]};
    return 1;
}

/* Rows of the block for each row of the tensor. */
static int64_t fineness(const zi_tensor *tensor, zi_range place)
{
    return tensor->shape[0] > 0 ? place.count / tensor->shape[0] : 1;
}

int zi_cards_division(const zi_cards *c, const zi_tensor *tensor, zi_division *d)
{
    zi_range place;
    *d = (zi_division){0};
    if (!zi_cards_place(c, tensor, &place))
        return 0;
    const zi_division of = zi_division_of(&zi_cards_block(c, tensor)->division, place.first, place.count, c->set.count);
    if (zi_division_coarser(&of, fineness(tensor, place), c->set.count, d))
        return 1;
    *d = (zi_division){0};
    return 0;
}

/* All rows of a block but those. */
static zimage_status gather_others(zi_cards *c, const zi_run *run, zi_block *b, zi_range but)
{
    const zi_tensor all = {b->type, 2, {b->rows, b->columns}, b->columns, 0, b->data[0]};
    int64_t end = but.first + but.count;
    zi_cards_exchange_begin(c);
    zi_cards_exchange(c, &all, (zi_range){0, but.first}, ~0u);
    zi_cards_exchange(c, &all, (zi_range){end, b->rows - end}, ~0u);
    b->division.count = 0;
    return zi_cards_exchange_end(c, run);
}

zimage_status zi_cards_written(zi_cards *c, const zi_run *run, const zi_tensor *tensor, const zi_division *d)
{
    zi_block *b = zi_cards_block(c, tensor);
    zi_range place = {0, b->rows};
    int has_place = zi_cards_place(c, tensor, &place);
    const zi_division finer = zi_division_finer(d, has_place ? fineness(tensor, place) : 1, c->set.count);
    assert(has_place || d->count == 0);
    if (zi_division_set(&b->division, place.first, place.count, &finer, c->set.count))
        return ZIMAGE_OK;
    ZI_TRY(gather_others(c, run, b, place)); /* too many cuts */
    (void)zi_division_set(&b->division, place.first, place.count, &finer, c->set.count);
    return ZIMAGE_OK;
}

/* ---- the stacks -------------------------------------------------------------------------------------------------- */

zi_arena_mark zi_cards_mark(zi_run *run)
{
    return (zi_arena_mark){.used = (size_t)zi_cards_state(run->ops)->block_count};
}

void zi_cards_release(zi_run *run, zi_arena_mark mark)
{
    zi_cards *c = zi_cards_state(run->ops);
    if ((size_t)c->block_count <= mark.used)
        return;
    c->block_count = (int)mark.used;
    for (int k = 0; k < c->set.count; k++)
        zi_cuda_release(c->set.cards[k], c->blocks[c->block_count].before[k]);
}

static zimage_status make_room(zi_cards *c, const zi_run *run)
{
    int capacity = c->capacity ? 2 * c->capacity : 64;
    if (c->block_count < c->capacity)
        return ZIMAGE_OK;
    zi_block *blocks = realloc(c->blocks, (size_t)capacity * sizeof(*blocks));
    if (blocks == NULL)
        return zi_fail_memory(run->error, "the list of tensors", (size_t)capacity * sizeof(*blocks));
    c->blocks = blocks;
    c->capacity = capacity;
    return ZIMAGE_OK;
}

/* On one card. */
typedef zimage_status alloc_fn(zi_run *run, zi_tensor *tensor, int dims, const int64_t *shape, const zi_weight *w);

static zimage_status alloc(zi_run *run, zi_tensor *tensor, int dims, const int64_t *shape, const zi_weight *w,
                           alloc_fn *on_card)
{
    zi_cards *c = zi_cards_state(run->ops);
    zimage_status status = ZIMAGE_OK;
    int made = 0;
    ZI_TRY(make_room(c, run));
    zi_block *b = &c->blocks[c->block_count];
    *b = (zi_block){.rows = dims == 2 ? shape[0] : zi_shape_count(dims, shape), .columns = dims == 2 ? shape[1] : 1};
    for (; made < c->set.count && status == ZIMAGE_OK; made++) {
        zi_run own = zi_cards_run(c, made, run);
        zi_tensor each = {.dtype = ZI_F32};
        b->before[made] = zi_cuda_mark(c->set.cards[made]);
        status = on_card(&own, &each, dims, shape, w);
        b->data[made] = each.data;
        b->type = each.dtype;
        if (made == 0)
            *tensor = each;
    }
    for (int k = 0; k < made && status != ZIMAGE_OK; k++)
        zi_cuda_release(c->set.cards[k], b->before[k]);
    c->block_count += status == ZIMAGE_OK;
    return status;
}

static zimage_status alloc_activation(zi_run *run, zi_tensor *tensor, int dims, const int64_t *shape,
                                      const zi_weight *w)
{
    return zi_table(run)->alloc(run, tensor, dims, shape);
}

static zimage_status alloc_wide(zi_run *run, zi_tensor *tensor, int dims, const int64_t *shape, const zi_weight *w)
{
    return zi_table(run)->alloc_f32(run, tensor, dims, shape);
}

static zimage_status alloc_operand(zi_run *run, zi_tensor *tensor, int dims, const int64_t *shape, const zi_weight *w)
{
    return zi_table(run)->alloc_operand(run, tensor, shape[0], shape[1], w);
}

static zimage_status alloc_parts(zi_run *run, zi_tensor *tensor, int dims, const int64_t *shape, const zi_weight *w)
{
    return zi_table(run)->alloc_operand_parts(run, tensor, shape[0], shape[1], w);
}

zimage_status zi_cards_alloc(zi_run *run, zi_tensor *tensor, int dims, const int64_t *shape)
{
    return alloc(run, tensor, dims, shape, NULL, alloc_activation);
}

zimage_status zi_cards_alloc_f32(zi_run *run, zi_tensor *tensor, int dims, const int64_t *shape)
{
    return alloc(run, tensor, dims, shape, NULL, alloc_wide);
}

zimage_status zi_cards_alloc_operand(zi_run *run, zi_tensor *x, int64_t rows, int64_t columns, const zi_weight *w)
{
    return alloc(run, x, ZI_SHAPE(rows, columns), w, alloc_operand);
}

zimage_status zi_cards_alloc_operand_parts(zi_run *run, zi_tensor *x, int64_t rows, int64_t columns, const zi_weight *w)
{
    return alloc(run, x, ZI_SHAPE(rows, columns), w, alloc_parts);
}
