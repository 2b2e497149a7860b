/*
 * Operations on the VAE's images on several GPUs (cards.c). Within `repeat` each card computes some rows of an image.
 *
 * A convolution reads rows of its neighbours. A card gets EDGE rows of each side at once, and computes as many rows
 * beyond its own as those allow: they are the edge that the next convolution reads. So one exchange serves two
 * convolutions, and bands of rows, which would wait for a neighbour's last band, need none of their own.
 *
 * The sums of a group norm are each card's own until they are folded. Then every card gets the sums of all, and adds
 * them in the order of the cards.
 */
#include "cuda/entries.h"
#include "cuda/internal.h"
#include "cuda/spread.h"
#include "ops/shapes.h"

#define FEWEST_ROWS 8 /* of the output, for each card, or an image is not divided */
#define EDGE        2 /* rows: a convolution of stride 2 reads so many */

/* ---- which rows a convolution reads ------------------------------------------------------------------------------ */

typedef struct convolution {
    zi_tensor *y;
    const zi_tensor *x;
    const zi_conv *conv;
    int cards;
    zi_division from, to; /* of x's rows, of y's rows */
} convolution;

/* Rows of x that rows of y read. */
static zi_range rows_read(const convolution *c, zi_range rows)
{
    const zi_conv *conv = c->conv;
    int64_t first = (conv->y_row + rows.first) * conv->stride - conv->pad_top;
    int64_t count = (rows.count - 1) * conv->stride + conv->weight->shape[2];
    const zi_range inside =
        zi_range_common((zi_range){first, count}, (zi_range){0, conv->image_rows << conv->upsample});
    int64_t begin = inside.first >> conv->upsample, end = (inside.first + inside.count - 1) >> conv->upsample;
    return (zi_range){begin - conv->x_row, end + 1 - begin};
}

/* The first row of the output's image that belongs to input rows from `row` on. */
static int64_t output_row(const zi_conv *conv, int64_t row)
{
    return ((row << conv->upsample) + conv->stride - 1) / conv->stride;
}

/* What y's rows are of a cut of all rows of the output's image. */
static void clip_to_y(convolution *c, zi_cut *cut)
{
    int64_t rows = c->y->shape[0];
    for (int k = 0; k <= c->cards; k++) {
        int64_t row = cut->bound[k] - c->conv->y_row;
        cut->bound[k] = k == 0 || row < 0 ? 0 : k == c->cards || row > rows ? rows : row;
    }
}

/* y's rows belong to the card that has the same part of x; where x is whole, parts of the image are equal. */
static void divide_output(convolution *c)
{
    const zi_conv *conv = c->conv;
    const zi_division none = {0};
    zi_cut *cut = &c->to.cut[0];
    if (c->from.count == 0) {
        int64_t rows = zi_conv_rows(conv, conv->image_rows);
        if (rows < FEWEST_ROWS * c->cards)
            return;
        c->to = zi_division_even(rows, c->cards, &none);
    } else {
        c->to = c->from;
        for (int k = 0; k <= c->cards; k++)
            cut->bound[k] = output_row(conv, conv->x_row + c->from.cut[0].bound[k]);
    }
    clip_to_y(c, cut);
}

/* Whether each card has what its rows of y read, `edge` further ones included. */
static int has_rows_read(const convolution *c, int64_t edge)
{
    zi_cut to = c->to.cut[0];
    to.edge = edge;
    for (int k = 0; k < c->cards && c->from.count > 0; k++) {
        const zi_range rows = zi_cut_range(&to, k, c->cards);
        if (rows.count > 0 && !zi_range_holds(zi_cut_range(&c->from.cut[0], k, c->cards), rows_read(c, rows)))
            return 0;
    }
    return 1;
}

/* Gives each card what it reads. */
static zimage_status fit_input(zi_cards *cards, const zi_run *run, convolution *c)
{
    if (has_rows_read(c, 0))
        return ZIMAGE_OK;
    ZI_TRY(zi_cards_send_edges(cards, run, c->x, EDGE));
    c->from.cut[0].edge = EDGE;
    if (has_rows_read(c, 0))
        return ZIMAGE_OK;
    c->from.count = 0;
    return zi_cards_gather(cards, run, c->x);
}

/* c->to <- how y is divided; none: each card computes all of it. */
static zimage_status divide(zi_cards *cards, const zi_run *run, convolution *c)
{
    int known = zi_cards_division(cards, c->x, &c->from);
    if (!known || (c->from.count > 0 && !zi_division_is_whole(&c->from, c->x->shape[0], c->cards))) {
        c->from.count = 0;
        ZI_TRY(zi_cards_gather(cards, run, c->x));
    }
    divide_output(c);
    if (c->to.count == 0)
        return ZIMAGE_OK;
    ZI_TRY(fit_input(cards, run, c));
    int64_t edge = c->conv->accumulate ? 0 : EDGE; /* what is added to is there in a card's own rows only */
    while (edge > 0 && !has_rows_read(c, edge))
        edge--;
    c->to.cut[0].edge = edge;
    return ZIMAGE_OK;
}

/* ---- convolutions ------------------------------------------------------------------------------------------------ */

/* On the present card; operands: y, x, and the affine's scale and shift. */
static zimage_status convolve(zi_spread *s, const zi_conv *conv)
{
    zi_conv own = *conv;
    zi_channel_affine affine;
    if (conv->affine != NULL) {
        affine = (zi_channel_affine){*s->t[2], *s->t[3]};
        own.affine = &affine;
    }
    own.y_row += s->whole ? 0 : s->at->rows.first;
    return s->table->conv2d(&s->own, s->t[0], s->t[1], &own);
}

/* `divided` looks after x itself: each card reads the rows that it needs where they lie in the image. */
static zimage_status convolve_rows(zi_run *run, const convolution *c, const zi_tensor *scale, const zi_tensor *shift)
{
    const zi_operand operands[] = {ADDS(c->y, c->conv->accumulate), ALIKE(c->x), ALIKE(scale), ALIKE(shift)};
    zi_spread s;
    ZI_TRY(zi_spread_as(&s, run, operands, 4, c->y->shape[0], &c->to));
    while (zi_spread_next(&s))
        ZI_TRY(convolve(&s, c->conv));
    return zi_spread_end(&s);
}

zimage_status zi_cards_conv2d(zi_run *run, zi_tensor *y, const zi_tensor *x, const zi_conv *conv)
{
    zi_cards *cards = zi_cards_state(run->ops);
    convolution c = {.y = y, .x = x, .conv = conv, .cards = cards->set.count};
    const zi_tensor *scale = conv->affine != NULL ? &conv->affine->scale : NULL;
    const zi_tensor *shift = conv->affine != NULL ? &conv->affine->shift : NULL;
    if (cards->divides)
        ZI_TRY(divide(cards, run, &c));
    if (c.to.count > 0)
        return convolve_rows(run, &c, scale, shift);
    ON_ALL(run, convolve(&s, conv), ADDS(y, conv->accumulate), READS(x), ALIKE(scale), ALIKE(shift));
}

zimage_status zi_cards_channel_affine(zi_run *run, zi_tensor *y, const zi_tensor *x, const zi_channel_affine *affine)
{
    ON_ROWS(run, s.table->channel_affine(&s.own, s.t[1], s.t[0], &(zi_channel_affine){*s.t[2], *s.t[3]}), READS(x),
            WRITES(y), ALIKE(&affine->scale), ALIKE(&affine->shift));
}

/* ---- group norms ------------------------------------------------------------------------------------------------- */

/* Sums of the rows that count for a card. Without any its sums become 0. */
static zimage_status sum_rows(const zi_cards *c, const zi_run *run, int card, const zi_tensor *sums, const zi_tensor *x,
                              const zi_division *d, int accumulate)
{
    zi_range ranges[ZI_RANGES_MAX] = {{0, 0}};
    zi_run own = zi_cards_run(c, card, run);
    zi_tensor to = zi_cards_on(c, card, sums);
    int count = zi_division_counted(d, x->shape[0], card, c->set.count, ranges);
    for (int i = 0; i < count || i == 0; i++) {
        const zi_tensor part = zi_cards_rows(c, card, x, ranges[i]);
        ZI_TRY(zi_table(&own)->group_norm_sums(&own, &to, &part, accumulate || i > 0));
    }
    return ZIMAGE_OK;
}

zimage_status zi_cards_group_norm_sums(zi_run *run, zi_tensor *sums, const zi_tensor *x, int accumulate)
{
    zi_cards *c = zi_cards_state(run->ops);
    zi_block *b = zi_cards_block(c, sums);
    zi_division d;
    if (!zi_cards_division(c, x, &d))
        ZI_TRY(zi_cards_gather(c, run, x));
    if (!accumulate)
        b->partial = d.count > 0;
    if (!b->partial)
        ON_ALL(run, s.table->group_norm_sums(&s.own, s.t[1], s.t[0], accumulate), READS(x), ADDS(sums, accumulate));
    for (int k = 0; k < c->set.count; k++)
        ZI_TRY(sum_rows(c, run, k, sums, x, &d, accumulate));
    return ZIMAGE_OK;
}

/* The arguments of a fold. */
typedef struct fold {
    zi_channel_affine *affine;
    const zi_tensor *sums;
    int64_t count;
    const zi_weight *w, *b;
    float eps;
} fold;

static zimage_status fold_parts(zi_run *run, const fold *f)
{
    zi_cards *c = zi_cards_state(run->ops);
    size_t bytes = (size_t)zi_tensor_count(f->sums) * zi_dtype_size(f->sums->dtype) * (size_t)c->set.count;
    void *parts[ZI_CARDS_MAX];
    for (int k = 0; k < c->set.count; k++) {
        const zi_run own = zi_cards_run(c, k, run);
        ZI_TRY(zi_cuda_stack_alloc(zi_cuda_enter(&own), bytes, "a group norm", &parts[k]));
    }
    ZI_TRY(zi_cards_collect(c, run, f->sums, parts));
    ON_ALL(run,
           zi_cuda_fold_parts(&s.own, &(zi_channel_affine){*s.t[0], *s.t[1]}, parts[s.at->card], s.c->set.count,
                              f->sums->shape[0], f->count, f->w, f->b, f->eps),
           WRITES(&f->affine->scale), WRITES(&f->affine->shift));
}

zimage_status zi_cards_group_norm_fold(zi_run *run, zi_channel_affine *affine, const zi_tensor *sums, int64_t count,
                                       const zi_weight *w, const zi_weight *b, float eps)
{
    zi_cards *c = zi_cards_state(run->ops);
    const fold f = {.affine = affine, .sums = sums, .count = count, .w = w, .b = b, .eps = eps};
    if (!zi_cards_block(c, sums)->partial)
        ON_ALL(run, s.table->group_norm_fold(&s.own, &(zi_channel_affine){*s.t[0], *s.t[1]}, s.t[2], count, w, b, eps),
               WRITES(&affine->scale), WRITES(&affine->shift), READS(sums));
    zi_arena_mark marks[ZI_CARDS_MAX] = {{0}};
    for (int k = 0; k < c->set.count; k++)
        marks[k] = zi_cuda_mark(c->set.cards[k]);
    zimage_status status = fold_parts(run, &f);
    for (int k = 0; k < c->set.count; k++)
        zi_cuda_release(c->set.cards[k], marks[k]);
    return status;
}
