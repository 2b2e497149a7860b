/*
 * Several GPUs as one backend. Its operations run the ordinary CUDA table of each card (a GPU of the set):
 *
 *   Outside of `repeat` every card does the same work, so that all cards hold the same numbers. Text features and
 *   contexts cost less than sending them would.
 *   Within `repeat`, in the forward passes of a transformer and in the VAE, a norm or a convolution divides its rows
 *   between the cards, and what follows works on the rows that a card has. Attention needs rows of others: keys and
 *   values of the sequences that its queries see. So does a convolution: some rows before and behind its own. They are
 *   sent before it (exchange.c).
 *
 * A tensor has memory for all its rows on every card. Which card has written which rows is known of each block of
 * memory (its zi_division). An operation takes the division of what it reads, and gives it to what it writes. Where
 * operands are divided in different ways, or an operation knows no rows, the rows are gathered first. So the result
 * does not depend on the order in which a network calls operations, only the time does. The code of networks does not
 * know how many cards there are.
 *
 * Operations are queued by one thread, to one card after the other. That takes longer than for one GPU, but only until
 * the forward pass is a graph for each card.
 */
#include "cuda/cards.h"

#include <assert.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/clock.h"
#include "base/numbers.h"
#include "cuda/checks.h"
#include "cuda/internal.h"
#include "cuda/turns.h"

/* `call` on each card k, with `own` as its run. */
#define ON_EACH(c, run, call)                                                                                          \
    do {                                                                                                               \
        for (int k = 0; k < (c)->set.count; k++) {                                                                     \
            zi_run own = zi_cards_run(c, k, run);                                                                      \
            ZI_TRY(call);                                                                                              \
        }                                                                                                              \
    } while (0)

/* ---- results ----------------------------------------------------------------------------------------------------- */

/* Waits for all cards, so that each has read the flags of its checks. */
static zimage_status cards_finish(zi_run *run)
{
    ON_EACH(zi_cards_state(run->ops), run, zi_table(&own)->finish(&own));
    return ZIMAGE_OK;
}

static zimage_status cards_download(zi_run *run, float *dst, const zi_tensor *src)
{
    zi_cards *c = zi_cards_state(run->ops);
    zi_run own = zi_cards_run(c, 0, run);
    ZI_TRY(zi_cards_gather(c, run, src));
    ZI_TRY(zi_table(&own)->download(&own, dst, src));
    return cards_finish(run);
}

static zimage_status cards_download_rgb8(zi_run *run, uint8_t *dst, const zi_tensor *src)
{
    zi_cards *c = zi_cards_state(run->ops);
    zi_run own = zi_cards_run(c, 0, run);
    ZI_TRY(zi_cards_gather(c, run, src));
    ZI_TRY(zi_table(&own)->download_rgb8(&own, dst, src));
    return cards_finish(run);
}

static zimage_status cards_name_check(zi_run *run, const char *name)
{
    ON_EACH(zi_cards_state(run->ops), run, zi_table(&own)->name_check(&own, name));
    return ZIMAGE_OK;
}

/* ---- divided work ------------------------------------------------------------------------------------------------ */

typedef struct divided_work {
    zi_work_fn *work;
    const void *user;
} divided_work;

/* Afterwards every card has what outlives the work. */
static zimage_status run_divided(zi_run *run, const void *user)
{
    zi_cards *c = zi_cards_state(run->ops);
    const divided_work *w = user;
    int before = c->block_count;
    c->divides = 1;
    zimage_status status = w->work(run, w->user);
    c->divides = 0;
    if (status == ZIMAGE_OK)
        status = zi_cards_gather_all(c, run, before);
    for (int i = 0; i < c->block_count; i++)
        c->blocks[i].division.count = 0;
    return status;
}

static zimage_status repeat_alone(zi_cards *c, const zi_cuda_work_item *item)
{
    zimage_status status = zi_cuda_repeat(&c->set, item);
    for (int k = 0; k < c->set.count && !c->ops.rehearsing; k++) {
        zi_cuda *cuda = c->set.cards[k];
        zi_cuda_make_current(cuda);
        cudaError_t code = cudaStreamSynchronize(cuda->stream); /* also after a failure */
        if (status == ZIMAGE_OK)
            status = zi_cuda_result(cuda, code, "the work on the GPU");
    }
    return status;
}

static zimage_status cards_repeat(zi_run *run, const void *key, size_t size, zi_work_fn *work, const void *user)
{
    zi_cards *c = zi_cards_state(run->ops);
    const divided_work divided = {work, user};
    const zi_cuda_work_item item = {run, key, size, run_divided, &divided};
    zi_turn turn;
    if (c->ops.rehearsing)
        return repeat_alone(c, &item);
    zi_turn_take(&turn, c->devices, c->set.count);
    zimage_status status = repeat_alone(c, &item);
    zi_turn_give(&turn);
    return status;
}

/* ---- planning memory --------------------------------------------------------------------------------------------- */

static zimage_status cards_rehearse_begin(zi_run *run)
{
    zi_cards *c = zi_cards_state(run->ops);
    assert(c->block_count == 0);
    ON_EACH(c, run, zi_table(&own)->rehearse_begin(&own));
    c->ops.rehearsing = 1;
    c->traffic = (zi_traffic){0};
    return ZIMAGE_OK;
}

/* All cards have stacks of one size. */
static zimage_status cards_rehearse_stage(zi_run *run, int stage, size_t *peak)
{
    zi_cards *c = zi_cards_state(run->ops);
    size_t on_card[ZI_CARDS_MAX];
    *peak = 0;
    ON_EACH(c, run, zi_table(&own)->rehearse_stage(&own, stage, &on_card[k]));
    for (int k = 0; k < c->set.count; k++)
        *peak = zi_max_size(*peak, on_card[k]);
    c->traffic_of[stage] = c->traffic;
    c->traffic = (zi_traffic){0};
    return ZIMAGE_OK;
}

static void cards_rehearse_end(zi_run *run)
{
    zi_cards *c = zi_cards_state(run->ops);
    for (int k = 0; k < c->set.count; k++) {
        zi_run own = zi_cards_run(c, k, run);
        zi_table(&own)->rehearse_end(&own);
    }
    c->ops.rehearsing = c->divides = c->block_count = 0;
}

/* *plan: of the card with the least room. */
static zimage_status cards_arrange(zi_run *run, const zi_stage_runs *runs, int count, size_t activations, uint64_t host,
                                   int commit, zi_memory_plan *plan)
{
    zi_cards *c = zi_cards_state(run->ops);
    for (int k = 0; k < c->set.count; k++) {
        zi_run own = zi_cards_run(c, k, run);
        zi_memory_plan on_card;
        zimage_status status = zi_table(&own)->arrange(&own, runs, count, activations, host, commit, &on_card);
        if (k == 0 || status != ZIMAGE_OK || on_card.limit - on_card.total < plan->limit - plan->total)
            *plan = on_card;
        ZI_TRY(status);
    }
    plan->devices = c->set.count;
    memcpy(plan->traffic, c->traffic_of, sizeof(plan->traffic));
    return ZIMAGE_OK;
}

static zimage_status cards_forget_weights(zi_run *run)
{
    ON_EACH(zi_cards_state(run->ops), run, zi_table(&own)->forget_weights(&own));
    return ZIMAGE_OK;
}

/* ---- the table --------------------------------------------------------------------------------------------------- */

/* "cuda x2 bf16 NVIDIA H200" */
static void cards_describe(const zi_ops *ops, char *text, size_t size)
{
    const zi_cards *c = zi_cards_state(ops);
    const zi_ops *first = &c->set.cards[0]->ops;
    char one[128];
    first->table->describe(first, one, sizeof(one));
    const char *rest = strchr(one, ' ');
    snprintf(text, size, "cuda x%d%s", c->set.count, rest != NULL ? rest : "");
}

static double cards_peak_rate(zi_run *run)
{
    const zi_cards *c = zi_cards_state(run->ops);
    zi_run own = zi_cards_run(c, 0, run);
    return c->set.count * zi_table(&own)->peak_rate(&own);
}

/* Each card sends an equal part of the bytes to each other one, from buffers[card] to the same place on the other. */
static zimage_status exchange_parts(zi_cards *c, const zi_run *run, void *const *buffers, size_t part)
{
    zi_nccl_begin(&c->nccl);
    for (int from = 0; from < c->set.count; from++)
        for (int to = 0; to < c->set.count; to++) {
            const zi_cuda *a = c->set.cards[from], *b = c->set.cards[to];
            size_t at = part * (size_t)from; /* of what `from` sends */
            if (from == to)
                continue;
            zi_nccl_send(&c->nccl, from, to, (const uint8_t *)buffers[from] + at, part, a->stream);
            zi_nccl_receive(&c->nccl, to, from, (uint8_t *)buffers[to] + at, part, b->stream);
        }
    return zi_nccl_end(&c->nccl, run->error);
}

#define EXCHANGES 4 /* that follow one another in a measurement, so that queueing them is hidden as in a forward pass */
#define REPEATS   3

static zimage_status time_exchanges(zi_cards *c, zi_run *run, size_t part, double *seconds)
{
    void *buffers[ZI_CARDS_MAX] = {NULL};
    ON_EACH(c, run, zi_cuda_stack_alloc(zi_cuda_enter(&own), part * (size_t)c->set.count, "an exchange", &buffers[k]));
    for (int i = 0; i <= REPEATS; i++) { /* the first warms up */
        ZI_TRY(cards_finish(run));
        double start = zi_now();
        for (int n = 0; n < EXCHANGES; n++)
            ZI_TRY(exchange_parts(c, run, buffers, part));
        ZI_TRY(cards_finish(run));
        double taken = (zi_now() - start) / EXCHANGES;
        if (i == 1 || (i > 1 && taken < *seconds))
            *seconds = taken;
    }
    return ZIMAGE_OK;
}

static zimage_status cards_exchange_seconds(zi_run *run, size_t bytes, double *seconds)
{
    zi_cards *c = zi_cards_state(run->ops);
    zi_arena_mark marks[ZI_CARDS_MAX] = {{0}};
    zi_turn turn;
    *seconds = 0;
    if (c->set.count == 1 || c->ops.rehearsing)
        return ZIMAGE_OK;
    zi_turn_take(&turn, c->devices, c->set.count);
    for (int k = 0; k < c->set.count; k++)
        marks[k] = zi_cuda_mark(c->set.cards[k]);
    zimage_status status = time_exchanges(c, run, bytes / (size_t)(c->set.count - 1), seconds);
    for (int k = 0; k < c->set.count; k++)
        zi_cuda_release(c->set.cards[k], marks[k]);
    if (status != ZIMAGE_OK)
        (void)cards_finish(&(zi_run){.ops = run->ops});
    zi_turn_give(&turn);
    return status;
}

static size_t cards_peak_bytes(const zi_ops *ops)
{
    const zi_cards *c = zi_cards_state(ops);
    size_t most = 0;
    for (int k = 0; k < c->set.count; k++)
        most = zi_max_size(most, c->set.cards[k]->stack.peak);
    return most;
}

/* Of the card that uses most. */
static size_t cards_device_bytes(zi_ops *ops)
{
    const zi_cards *c = zi_cards_state(ops);
    size_t most = 0;
    for (int k = 0; k < c->set.count; k++) {
        zi_ops *card = &c->set.cards[k]->ops;
        most = zi_max_size(most, card->table->device_bytes(card));
    }
    return most;
}

static size_t cards_whole_image_bytes(const zi_ops *ops)
{
    const zi_cards *c = zi_cards_state(ops);
    size_t least = SIZE_MAX;
    for (int k = 0; k < c->set.count; k++)
        least = zi_min_size(least, c->set.cards[k]->whole_image);
    return least;
}

/* Two cards then compute a pass each, and need nothing of each other. */
static zi_batch cards_suits_batch(const zi_ops *ops, int64_t fewest, int64_t most)
{
    return ZI_BATCH_ALWAYS;
}

static zi_graph_info cards_graph_info(zi_ops *ops)
{
    return (zi_graph_info){0};
}

static void cards_free(zi_ops *ops)
{
    if (ops == NULL)
        return;
    zi_cards *c = zi_cards_state(ops);
    for (int k = c->set.count; k-- > 0;) {
        zi_run own = {.ops = &c->set.cards[k]->ops};
        (void)zi_table(&own)->finish(&own);
    }
    for (int k = c->set.count; k-- > 0;)
        zi_cuda_recordings_free(c->set.cards[k]);
    zi_nccl_close(&c->nccl);
    for (int k = c->set.count; k-- > 0;)
        c->set.cards[k]->ops.table->free(&c->set.cards[k]->ops);
    free(c->blocks);
    free(c);
}

static const zi_ops_table cards_table = {
    .name = "cuda",
    .memory = ZI_MEMORY_DEVICE,
    .alloc = zi_cards_alloc,
    .alloc_f32 = zi_cards_alloc_f32,
    .alloc_operand = zi_cards_alloc_operand,
    .alloc_operand_parts = zi_cards_alloc_operand_parts,
    .mark = zi_cards_mark,
    .release = zi_cards_release,
    .upload = zi_cards_upload,
    .download = cards_download,
    .download_rgb8 = cards_download_rgb8,
    .copy = zi_cards_copy,
    .embed_rows = zi_cards_embed_rows,
    .linear = zi_cards_linear,
    .linears = zi_cards_linears,
    .linear_glu = zi_cards_linear_glu,
    .silu = zi_cards_silu,
    .norm = zi_cards_norm,
    .residual = zi_cards_residual,
    .rope_table = zi_cards_rope_table,
    .qk_norm_rope = zi_cards_qk_norm_rope,
    .attention = zi_cards_attention,
    .modulation = zi_cards_modulation,
    .patchify = zi_cards_patchify,
    .unpatchify = zi_cards_unpatchify,
    .conv2d = zi_cards_conv2d,
    .group_norm_sums = zi_cards_group_norm_sums,
    .group_norm_fold = zi_cards_group_norm_fold,
    .channel_affine = zi_cards_channel_affine,
    .check_finite = zi_cards_check_finite,
    .name_check = cards_name_check,
    .finish = cards_finish,
    .repeat = cards_repeat,
    .rehearse_begin = cards_rehearse_begin,
    .rehearse_stage = cards_rehearse_stage,
    .rehearse_end = cards_rehearse_end,
    .arrange = cards_arrange,
    .forget_weights = cards_forget_weights,
    .describe = cards_describe,
    .peak_rate = cards_peak_rate,
    .exchange_seconds = cards_exchange_seconds,
    .peak_bytes = cards_peak_bytes,
    .device_bytes = cards_device_bytes,
    .whole_image_bytes = cards_whole_image_bytes,
    .suits_batch = cards_suits_batch,
    .graph_info = cards_graph_info,
    .free = cards_free,
};

/* ---- opening ----------------------------------------------------------------------------------------------------- */

/* "0,2,3": numbers in a row, none of them twice. */
static zimage_status read_devices(const char *text, int devices[ZI_CARDS_MAX], int *count, zimage_error *error)
{
    const char *rest = text;
    for (*count = 0; *count < ZI_CARDS_MAX; rest++) {
        char *end;
        long device = strtol(rest, &end, 10);
        if (*rest < '0' || *rest > '9' || device > INT16_MAX)
            break;
        for (int i = 0; i < *count; i++)
            if (devices[i] == device)
                return zi_fail(error, ZIMAGE_ERROR_ARGUMENT, "device: \"cuda:%s\", expected each GPU once", text);
        devices[(*count)++] = (int)device;
        rest = end;
        if (!*rest)
            return ZIMAGE_OK;
        if (*rest != ',')
            break;
    }
    return zi_fail(error, ZIMAGE_ERROR_ARGUMENT,
                   "device: \"cuda:%s\", expected 1 to %d numbers of GPUs, as in cuda:0,1", text, ZI_CARDS_MAX);
}

static zimage_status open_card(zi_cards *c, const zi_cuda_options *options, int device, zimage_error *error)
{
    zi_cuda_options own = *options;
    zi_ops *ops;
    own.devices = NULL;
    own.device = device;
    ZI_TRY(zi_ops_cuda_new(&own, &ops, error));
    zi_cuda *cuda = zi_cuda_state(ops), *first = c->set.cards[0];
    c->set.cards[c->set.count++] = cuda;
    if (c->set.count > 1 && strcmp(cuda->name, first->name) != 0)
        return zi_fail(error, ZIMAGE_ERROR_UNSUPPORTED,
                       "device: cuda:%d is an %s, cuda:%d an %s, expected GPUs of one model: the slowest would hold up "
                       "the others",
                       first->device, first->name, device, cuda->name);
    return ZIMAGE_OK;
}

/* Sends a few bytes from each card to each other: NCCL takes the memory for its connections now, before plans are
 * made of what is free. */
static zimage_status connect_cards(zi_cards *c, zimage_error *error)
{
    zi_run run = {.ops = &c->ops, .error = error};
    void *buffers[ZI_CARDS_MAX] = {NULL};
    for (int k = 0; k < c->set.count; k++)
        buffers[k] = c->set.cards[k]->workspace;
    ZI_TRY(exchange_parts(c, &run, buffers, 256));
    return cards_finish(&run);
}

static zimage_status open_cards(zi_cards *c, const zi_cuda_options *options, zimage_error *error)
{
    int count;
    zi_turn turn;
    ZI_TRY(read_devices(options->devices, c->devices, &count, error));
    snprintf(c->name, sizeof(c->name), "cuda:%s", options->devices);
    for (int i = 0; i < count; i++)
        ZI_TRY(open_card(c, options, c->devices[i], error));
    zi_turn_take(&turn, c->devices, count);
    zimage_status status = zi_nccl_open(&c->nccl, c->devices, count, error);
    if (status == ZIMAGE_OK)
        status = connect_cards(c, error);
    zi_turn_give(&turn);
    return status;
}

zimage_status zi_cards_new(const zi_cuda_options *options, zi_ops **ops, zimage_error *error)
{
    *ops = NULL;
    zi_cards *c = calloc(1, sizeof(*c));
    if (c == NULL)
        return zi_fail_memory(error, "the operations table", sizeof(*c));
    c->ops.table = &cards_table;
    zimage_status status = open_cards(c, options, error);
    if (status != ZIMAGE_OK) {
        cards_free(&c->ops);
        return status;
    }
    *ops = &c->ops;
    return ZIMAGE_OK;
}
