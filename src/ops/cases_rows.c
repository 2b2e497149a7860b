/* Cases of moving data, of norms and of what works on rows or elements; and of checks. */
#include <math.h>
#include <string.h>

#include "ops/trial.h"

/* ---- moving data ------------------------------------------------------------------------------------------------- */

static const zi_bound same_bound = {{1e-12, 0, 0, 1e-12, 0}} /* not rounded, or rounded as the inputs are */;

/* Sizes: rows, columns. VIEWS: the source is a column view; OTHER: the destination, too. */
static zimage_status moving(zi_trial *t, const zi_case *c)
{
    const zi_ops_table *table = zi_table(&t->run);
    zi_input from = {.magnitude = 1}, to = {.magnitude = 1, .written = 1};
    const zi_input exact = {.magnitude = 1, .exact = 1}, copy = {.magnitude = 1, .exact = 1, .written = 1};
    zi_tensor x, y, plain, f, g;
    const int64_t shape[] = {c->size[0], c->size[1]};
    zi_trial_view(&from, c->flags);
    if (c->flags & OTHER)
        zi_trial_view(&to, c->flags);
    ZI_TRY(zi_trial_input(t, &x, &from, 2, shape));
    ZI_TRY(zi_trial_input(t, &y, &to, 2, shape));
    ZI_TRY(zi_trial_input(t, &f, &exact, 2, shape));
    ZI_TRY(zi_trial_input(t, &g, &copy, 2, shape));
    ZI_TRY(table->alloc(&t->run, &plain, 2, shape));
    ZI_TRY(table->copy(&t->run, &y, &x));
    ZI_TRY(table->copy(&t->run, &plain, &y));
    ZI_TRY(table->copy(&t->run, &g, &f));
    ZI_TRY(zi_trial_result_of(t, &plain, &same_bound, 0));
    return zi_trial_result_of(t, &g, &same_bound, 0);
}

/* Sizes: rows, columns. Dense copies between shapes of equal count, and row views. */
static zimage_status reshaped(zi_trial *t, const zi_case *c)
{
    const zi_input from = {.magnitude = 1}, to = {.magnitude = 1, .written = 1};
    zi_tensor x, y;
    ZI_TRY(zi_trial_input(t, &x, &from, SHAPE(c->size[0], c->size[1], 2)));
    ZI_TRY(zi_trial_input(t, &y, &to, SHAPE(c->size[0] * 2, c->size[1])));
    zi_tensor source = zi_tensor_rows(&x, 1, c->size[0] - 1), target = zi_tensor_rows(&y, 0, 2 * (c->size[0] - 1));
    ZI_TRY(zi_table(&t->run)->copy(&t->run, &target, &source));
    return zi_trial_result_of(t, &y, &same_bound, 0);
}

/* Sizes: pixels. What lies half way between two bytes, what is outside, and NaN, too. */
static zimage_status pixels(zi_trial *t, const zi_case *c)
{
    const zi_input input = {.magnitude = 1.5f, .exact = 1};
    float *values;
    void *bytes, *numbers;
    int64_t count = c->size[0];
    zi_tensor x;
    ZI_TRY(zi_trial_floats(t, &input, count, count, &values));
    for (int64_t i = 0; i < count; i++) {
        if (i % 4 == 0)
            values[i] = ((float)(i % 256) + 0.5f) / 127.5f - 1;
        else if (i % 101 == 1)
            values[i] = NAN;
    }
    ZI_TRY(zi_trial_input_of(t, &x, &input, values, 1, &count));
    ZI_TRY(zi_trial_memory(t, count, &bytes));
    ZI_TRY(zi_table(&t->run)->download_rgb8(&t->run, bytes, &x));
    ZI_TRY(zi_trial_memory(t, count * (int64_t)sizeof(float), &numbers));
    for (int64_t i = 0; i < count; i++)
        ((float *)numbers)[i] = ((const uint8_t *)bytes)[i];
    zi_trial_values(t, numbers, count, &same_bound, 0);
    return ZIMAGE_OK;
}

static const zi_bound embed_bound = {{1e-12, 0, 0, 0x1p-8, 0}};

/* Sizes: rows of the table, features, rows that are read. */
static zimage_status embedding(zi_trial *t, const zi_case *c)
{
    const zi_input output = {.magnitude = 1, .written = 1};
    zi_tensor y;
    zi_weight table;
    void *ids;
    ZI_TRY(zi_trial_input(t, &y, &output, SHAPE(c->size[2], c->size[1])));
    ZI_TRY(zi_trial_weight(t, &table, c->stored, 0, SHAPE(c->size[0], c->size[1])));
    ZI_TRY(zi_trial_memory(t, c->size[2] * (int64_t)sizeof(int32_t), &ids));
    for (int i = 0; i < c->size[2]; i++)
        ((int32_t *)ids)[i] = i == 0 ? c->size[0] - 1 : (int32_t)((zi_trial_random(t) + 1) / 2 * (float)c->size[0]);
    ZI_TRY(zi_table(&t->run)->embed_rows(&t->run, &y, &table, ids));
    return zi_trial_result_of(t, &y, &embed_bound, 0);
}

/* ---- norms ------------------------------------------------------------------------------------------------------- */

static const zi_bound row_bound = {{3e-6, 0, 0, 0x1p-8, 0}};
/* A mean far above the deviation, which has few bits left; in bf16 it has none. */
static const zi_bound offset_bound = {{2e-4, 0, 0, 0, 0}};

/* A norm with random factors. */
typedef struct factors {
    zi_weight weight;
    zi_tensor scale, shift;
    zi_norm norm;
} factors;

static zimage_status make_norm(zi_trial *t, const zi_case *c, zi_norm_kind kind, int64_t n, factors *f)
{
    const zi_input exact = {.magnitude = 1, .exact = 1};
    ZI_TRY(zi_trial_weight(t, &f->weight, c->stored, 0, SHAPE(n)));
    ZI_TRY(zi_trial_input(t, &f->scale, &exact, SHAPE(n)));
    ZI_TRY(zi_trial_input(t, &f->shift, &exact, SHAPE(n)));
    f->norm = (zi_norm){.kind = kind,
                        .eps = EPS,
                        .weight = c->flags & WEIGHT ? &f->weight : NULL,
                        .scale = c->flags & SCALE ? &f->scale : NULL,
                        .shift = c->flags & SHIFT ? &f->shift : NULL};
    return ZIMAGE_OK;
}

/* Sizes: rows, features. LARGE: whole numbers around 4096, which float32 holds (bf16 does not), so that only the norm
 * rounds. */
static zimage_status norm(zi_trial *t, const zi_case *c)
{
    factors f;
    zi_tensor x, y;
    float *values;
    int64_t rows = c->size[0], n = c->size[1];
    const zi_input input = {.magnitude = c->flags & LARGE ? 8 : 3, .written = c->flags & IN_PLACE};
    const zi_input output = {.magnitude = 1, .written = 1};
    ZI_TRY(make_norm(t, c, c->flags & LAYER ? ZI_NORM_LAYER : ZI_NORM_RMS, n, &f));
    ZI_TRY(zi_trial_floats(t, &input, rows * n, n, &values));
    for (int64_t i = 0; i < rows * n && c->flags & LARGE; i++)
        values[i] = 4096 + floorf(values[i]);
    ZI_TRY(zi_trial_input_of(t, &x, &input, values, SHAPE(rows, n)));
    ZI_TRY(zi_trial_input(t, &y, &output, SHAPE(rows, n)));
    ZI_TRY(zi_table(&t->run)->norm(&t->run, c->flags & IN_PLACE ? &x : &y, &x, &f.norm));
    return zi_trial_result_of(t, c->flags & IN_PLACE ? &x : &y, c->flags & LARGE ? &offset_bound : &row_bound, 0);
}

/* h is the norm of what is stored. */
static const zi_bound next_bound = {{3e-6, 0, 0, 0x1p-7, 0}};

/* Sizes: rows, features. PLAIN: without post norm; LAST: without next norm; LAYER: of the next norm, as are SCALE and
 * SHIFT; OTHER: the next norm has another eps; IN_PLACE: h is y. */
static zimage_status residual(zi_trial *t, const zi_case *c)
{
    const zi_input exact = {.magnitude = 1, .exact = 1}, output = {.magnitude = 1, .written = 1};
    const zi_input stream = {.magnitude = 3, .written = 1}, branch = {.magnitude = 3, .written = c->flags & IN_PLACE};
    int64_t rows = c->size[0], n = c->size[1];
    factors post, next;
    zi_tensor x, y, h, gate;
    int finite = 0;
    ZI_TRY(make_norm(t, c, ZI_NORM_RMS, n, &post));
    ZI_TRY(make_norm(t, c, c->flags & LAYER ? ZI_NORM_LAYER : ZI_NORM_RMS, n, &next));
    ZI_TRY(zi_trial_input(t, &gate, &exact, SHAPE(n)));
    ZI_TRY(zi_trial_input(t, &x, &stream, SHAPE(rows, n)));
    ZI_TRY(zi_trial_input(t, &y, &branch, SHAPE(rows, n)));
    ZI_TRY(zi_trial_input(t, &h, &output, SHAPE(rows, n)));
    post.norm.scale = c->flags & POST_SCALE ? &post.scale : NULL;
    post.norm.shift = NULL;
    if (c->flags & OTHER)
        next.norm.eps = 0.25f;
    if (c->flags & IN_PLACE)
        h = y;
    const zi_residual args = {.post = c->flags & PLAIN ? NULL : &post.norm,
                              .gate = c->flags & GATE ? &gate : NULL,
                              .next = c->flags & LAST ? NULL : &next.norm,
                              .finite = &finite};
    ZI_TRY(zi_table(&t->run)->residual(&t->run, &x, &y, c->flags & LAST ? NULL : &h, &args));
    ZI_TRY(zi_table(&t->run)->name_check(&t->run, "a residual"));
    zi_trial_answer(t, finite); /* every element is */
    ZI_TRY(zi_trial_result_of(t, &x, &row_bound, 0));
    return c->flags & LAST ? ZIMAGE_OK : zi_trial_result_of(t, &h, &next_bound, 0);
}

/* Sizes: tokens, heads, head dimension. OTHER: ZI_ROPE_HALF_SPLIT. PLAIN: without keys, which have half as many
 * heads. */
static zimage_status rope(zi_trial *t, const zi_case *c)
{
    const zi_input exact = {.magnitude = 1, .exact = 1};
    zi_input input = {.magnitude = 2, .written = 1};
    int64_t tokens = c->size[0], heads = c->size[1], dim = c->size[2];
    zi_weight w, k_weight;
    zi_tensor x, k, cosines, sines;
    zi_trial_view(&input, c->flags);
    ZI_TRY(zi_trial_weight(t, &w, c->stored, 0, SHAPE(dim)));
    ZI_TRY(zi_trial_weight(t, &k_weight, c->stored, 0, SHAPE(dim)));
    ZI_TRY(zi_trial_input(t, &cosines, &exact, SHAPE(tokens, dim / 2)));
    ZI_TRY(zi_trial_input(t, &sines, &exact, SHAPE(tokens, dim / 2)));
    ZI_TRY(zi_trial_input(t, &x, &input, SHAPE(tokens, heads * dim)));
    ZI_TRY(zi_trial_input(t, &k, &input, SHAPE(tokens, (heads + 1) / 2 * dim)));
    const zi_qk_norm_rope args = {.weight = &w,
                                  .cos = &cosines,
                                  .sin = &sines,
                                  .heads = heads,
                                  .layout = c->flags & OTHER ? ZI_ROPE_HALF_SPLIT : ZI_ROPE_ADJACENT,
                                  .eps = EPS,
                                  .k = c->flags & PLAIN ? NULL : &k,
                                  .k_weight = c->flags & PLAIN ? NULL : &k_weight};
    ZI_TRY(zi_table(&t->run)->qk_norm_rope(&t->run, &x, &args));
    if (args.k != NULL)
        ZI_TRY(zi_trial_result_of(t, &k, &row_bound, 0));
    return zi_trial_result_of(t, &x, &row_bound, 0);
}

/* ---- elements ---------------------------------------------------------------------------------------------------- */

/* Sizes: rows, features. */
static zimage_status silu(zi_trial *t, const zi_case *c)
{
    const zi_input input = {.magnitude = 20, .written = c->flags & IN_PLACE}, output = {.magnitude = 1, .written = 1};
    zi_tensor x, y;
    ZI_TRY(zi_trial_input(t, &x, &input, SHAPE(c->size[0], c->size[1])));
    ZI_TRY(zi_trial_input(t, &y, &output, SHAPE(c->size[0], c->size[1])));
    ZI_TRY(zi_table(&t->run)->silu(&t->run, c->flags & IN_PLACE ? &x : &y, &x));
    return zi_trial_result_of(t, c->flags & IN_PLACE ? &x : &y, &row_bound, 0);
}

static const zi_bound exact_bound = {{3e-6, 0, 0, 3e-6, 0}};

/* Sizes: features, parts, their kinds as digits: 1 ONE_PLUS, 2 TANH, all others COPY. */
static zimage_status modulation(zi_trial *t, const zi_case *c)
{
    const zi_input input = {.magnitude = 2, .exact = 1, .written = 1};
    zi_modulation kinds[ZI_MODULATION_PARTS_MAX];
    int digits = c->size[2];
    zi_tensor m;
    for (int part = c->size[1] - 1; part >= 0; part--, digits /= 10)
        kinds[part] = digits % 10 == 1   ? ZI_MODULATION_ONE_PLUS
                      : digits % 10 == 2 ? ZI_MODULATION_TANH
                                         : ZI_MODULATION_COPY;
    ZI_TRY(zi_trial_input(t, &m, &input, SHAPE(c->size[0] * c->size[1])));
    ZI_TRY(zi_table(&t->run)->modulation(&t->run, &m, c->size[1], kinds));
    return zi_trial_result_of(t, &m, &exact_bound, 0);
}

static const zi_bound angles_bound = {{3e-7, 0, 0, 3e-7, 0}};

/* Sizes: tokens, pairs. */
static zimage_status angles(zi_trial *t, const zi_case *c)
{
    const zi_input input = {.magnitude = 1000}, output = {.magnitude = 1, .exact = 1, .written = 1};
    const int64_t count = (int64_t)c->size[0] * c->size[1], shape[] = {c->size[0], c->size[1]};
    float *values;
    zi_tensor cosines, sines;
    ZI_TRY(zi_trial_floats(t, &input, count, count, &values));
    ZI_TRY(zi_trial_input(t, &cosines, &output, 2, shape));
    ZI_TRY(zi_trial_input(t, &sines, &output, 2, shape));
    ZI_TRY(zi_table(&t->run)->rope_table(&t->run, &cosines, &sines, values));
    ZI_TRY(zi_trial_result_of(t, &cosines, &angles_bound, 0));
    return zi_trial_result_of(t, &sines, &angles_bound, 0);
}

/* Sizes: channels, rows, columns, patch. OTHER: ZI_PATCH_CHANNELS_FIRST. */
static zimage_status patches(zi_trial *t, const zi_case *c)
{
    const zi_input exact = {.magnitude = 1, .exact = 1}, output = {.magnitude = 1, .written = 1};
    const zi_input exact_output = {.magnitude = 1, .exact = 1, .written = 1};
    const int64_t p = c->size[3], tokens = c->size[1] / p * (c->size[2] / p), features = p * p * c->size[0];
    const int64_t shape[] = {c->size[0], c->size[1], c->size[2]};
    const zi_patch_order order = c->flags & OTHER ? ZI_PATCH_CHANNELS_FIRST : ZI_PATCH_CHANNELS_LAST;
    zi_tensor latents, patched, back;
    ZI_TRY(zi_trial_input(t, &latents, &exact, 3, shape));
    ZI_TRY(zi_trial_input(t, &patched, &output, SHAPE(tokens, features)));
    ZI_TRY(zi_trial_input(t, &back, &exact_output, 3, shape));
    ZI_TRY(zi_table(&t->run)->patchify(&t->run, &patched, &latents, p, order));
    ZI_TRY(zi_table(&t->run)->unpatchify(&t->run, &back, &patched, p, order));
    ZI_TRY(zi_trial_result_of(t, &patched, &embed_bound, 0));
    return zi_trial_result_of(t, &back, &embed_bound, 0);
}

/* ---- checks ------------------------------------------------------------------------------------------------------ */

static const zi_bound answer_bound = {{1e-9, 0, 0, 1e-9, 0}};
static const float not_finite[] = {INFINITY, NAN, -INFINITY};

/* Sizes: rows, columns, elements at each end that are tried. */
static zimage_status finite_elements(zi_trial *t, const zi_case *c)
{
    const zi_input input = {.magnitude = 3e38f, .written = 1};
    const int64_t count = (int64_t)c->size[0] * c->size[1], ends = c->size[2];
    float *values;
    zi_tensor x;
    int finite;
    ZI_TRY(zi_trial_floats(t, &input, count, count, &values));
    ZI_TRY(zi_trial_input_of(t, &x, &input, values, SHAPE(c->size[0], c->size[1])));
    ZI_TRY(zi_trial_finite(t, &x, &finite));
    zi_trial_answer(t, finite);
    for (int64_t i = 0; i < count; i = i + 1 == ends && count - ends > i ? count - ends : i + 1) {
        float kept = values[i];
        values[i] = not_finite[i % 3];
        ZI_TRY(zi_trial_restore(t, &x));
        values[i] = kept;
        ZI_TRY(zi_trial_finite(t, &x, &finite));
        zi_trial_answer(t, finite);
    }
    return zi_trial_restore(t, &x);
}

/* Uploads the block's x again and ends the block, unless *status is a failure already. */
static void end_block(zi_trial *t, const zi_tensor *x, const char *name, zimage_status *status)
{
    if (*status == ZIMAGE_OK)
        *status = zi_table(&t->run)->upload(&t->run, (zi_tensor[]){*x}, t->tensors[0].uploaded);
    if (*status == ZIMAGE_OK)
        *status = zi_end_block(&t->run, x, "%s", name);
}

/* The failure must be reported once, with the name of its block. */
static zimage_status expect_name(zi_trial *t, const char *name, zimage_status status)
{
    if (status == ZIMAGE_OK)
        status = zi_table(&t->run)->finish(&t->run);
    zi_trial_answer(t, status == ZIMAGE_ERROR_NOT_FINITE && strstr(t->error.message, name) != NULL);
    return zi_table(&t->run)->finish(&t->run);
}

/* Sizes: elements, the place of the one that is not finite. The second of three blocks is the one that is named. */
static zimage_status named_block(zi_trial *t, const zi_case *c)
{
    const zi_input input = {.magnitude = 1, .written = 1};
    const int64_t count = c->size[0];
    zimage_status status = ZIMAGE_OK;
    zi_tensor x;
    ZI_TRY(zi_trial_input(t, &x, &input, 1, &count));
    if (zi_trial_rehearses(t))
        return zi_end_block(&t->run, &x, "a block");
    float *place = &t->tensors[0].uploaded[c->size[1]], kept = *place;
    end_block(t, &x, "the first block", &status);
    *place = not_finite[c->size[1] % 3];
    end_block(t, &x, "block 7", &status);
    *place = kept;
    end_block(t, &x, "the last block", &status);
    return expect_name(t, "block 7 holds", status);
}

/* Sizes: rows, features, the place of the element. Of the residual's own check; squares of x may overflow. */
static zimage_status finite_residual(zi_trial *t, const zi_case *c)
{
    const zi_input input = {.magnitude = 1, .written = 1}, branch = {.magnitude = 1};
    const zi_norm post = {.kind = ZI_NORM_RMS, .eps = EPS};
    zi_tensor x, y;
    ZI_TRY(zi_trial_input(t, &x, &input, SHAPE(c->size[0], c->size[1])));
    ZI_TRY(zi_trial_input(t, &y, &branch, SHAPE(c->size[0], c->size[1])));
    for (int i = -1; i < 3; i++) {
        int finite = 0;
        const zi_residual args = {.post = &post, .finite = &finite};
        t->tensors[0].uploaded[c->size[2]] = i < 0 ? 1e30f : not_finite[i];
        ZI_TRY(zi_trial_restore(t, &x));
        ZI_TRY(zi_table(&t->run)->residual(&t->run, &x, &y, NULL, &args));
        zimage_status status = zi_end_block_known(&t->run, finite, "the residual");
        if (zi_trial_rehearses(t))
            continue;
        if (i >= 0) {
            ZI_TRY(expect_name(t, "the residual", status));
        } else {
            ZI_TRY(status);
            ZI_TRY(zi_table(&t->run)->finish(&t->run));
        }
    }
    return ZIMAGE_OK;
}

/* ---- the backend itself ------------------------------------------------------------------------------------------ */

/* Sizes that can't be had are an error; what is released can be had again; memory in use is counted. */
static zimage_status memory(zi_trial *t, const zi_case *c)
{
    const zi_ops_table *table = zi_table(&t->run);
    zi_tensor x, y;
    zi_arena_mark mark = table->mark(&t->run);
    zi_trial_answer(t, table->alloc(&t->run, &x, SHAPE(INT64_MAX / 8, 100)) == ZIMAGE_ERROR_MEMORY);
    zi_trial_answer(t, table->alloc_f32(&t->run, &x, SHAPE(INT64_MAX / 8, 100)) == ZIMAGE_ERROR_MEMORY);
    ZI_TRY(table->alloc_f32(&t->run, &x, SHAPE(c->size[0], c->size[1])));
    zi_arena_mark above = table->mark(&t->run);
    ZI_TRY(table->alloc(&t->run, &y, SHAPE(c->size[0])));
    table->release(&t->run, above);
    table->release(&t->run, mark);
    zi_arena_mark again = table->mark(&t->run);
    zi_trial_answer(t, again.chunk == mark.chunk && again.used == mark.used && again.in_use == mark.in_use);
    size_t bytes = (size_t)c->size[0] * (size_t)c->size[1] * sizeof(float);
    zi_trial_answer(t, zi_trial_rehearses(t) || table->peak_bytes(t->run.ops) >= bytes);
    return ZIMAGE_OK;
}

/* What can be asked of any backend. */
static zimage_status questions(zi_trial *t, const zi_case *c)
{
    const zi_ops_table *table = zi_table(&t->run);
    char text[200] = "";
    table->describe(t->run.ops, text, sizeof(text));
    zi_trial_answer(t, text[0] != 0 && table->name[0] != 0);
    (void)table->whole_image_bytes(t->run.ops);
    zi_trial_answer(t, table->suits_batch(t->run.ops, 100, 200) == ZI_BATCH_ALWAYS);
    zi_trial_answer(t, table->graph_info(t->run.ops).nodes >= 0);
    double seconds = -1;
    zi_trial_answer(t, table->exchange_seconds(&t->run, 4096, &seconds) == ZIMAGE_OK && seconds >= 0);
    zi_trial_answer(t, table->memory != ZI_MEMORY_DEVICE || table->device_bytes(t->run.ops) > 0);
    return ZIMAGE_OK;
}

/* ---- the cases --------------------------------------------------------------------------------------------------- */

static const zi_case_kind moving_kind = {"moving", "alloc alloc_f32 upload copy download", "%d x %d", moving,
                                         &same_bound};
static const zi_case_kind reshaped_kind = {"moving", "copy", "%d x %d x 2, reshaped", reshaped, &same_bound};
static const zi_case_kind pixels_kind = {"moving", "download_rgb8", "%d pixels", pixels, &same_bound};
static const zi_case_kind embedding_kind = {"moving", "embed_rows", "table %d x %d, %d rows", embedding, &embed_bound};
static const zi_case_kind norm_kind = {"norms", "norm", "%d x %d", norm, &row_bound};
static const zi_case_kind offset_kind = {"norms", "norm", "%d x %d", norm, &offset_bound};
static const zi_case_kind residual_kind = {"norms", "residual", "residual %d x %d", residual, &row_bound};
static const zi_case_kind rope_kind = {"rope", "qk_norm_rope", "%d tokens, %d heads x %d", rope, &row_bound};
static const zi_case_kind angles_kind = {"rope", "rope_table", "%d tokens, %d angles", angles, &angles_bound};
static const zi_case_kind silu_kind = {"silu", "silu", "%d x %d", silu, &row_bound};
static const zi_case_kind modulation_kind = {"modulation", "modulation", "%d features, %d parts, kinds %d", modulation,
                                             &exact_bound};
static const zi_case_kind patches_kind = {"patches", "patchify unpatchify", "%d channels, %d x %d, patch %d", patches,
                                          &embed_bound};
static const zi_case_kind finite_kind = {"finite", "check_finite", "%d x %d elements, %d at each end", finite_elements,
                                         &answer_bound};
static const zi_case_kind named_kind = {"finite", "check_finite name_check finish", "%d elements, %d is not",
                                        named_block, &answer_bound};
static const zi_case_kind finite_residual_kind = {
    "finite", "residual name_check finish", "residual %d x %d, element %d is not", finite_residual, &answer_bound};
static const zi_case_kind memory_kind = {"memory", "alloc alloc_f32 mark release peak_bytes", "%d x %d", memory,
                                         &answer_bound};
static const zi_case_kind questions_kind = {"memory",
                                            "describe whole_image_bytes suits_batch graph_info device_bytes "
                                            "exchange_seconds",
                                            "questions", questions, &answer_bound};

const zi_case zi_cases_rows[] = {
    {&memory_kind, {1050, 7}, 0, 0},
    {&questions_kind, {0}, 0, 0},
    {&moving_kind, {17, 33}, 0, 0},
    {&moving_kind, {5, 64}, 0, VIEWS},
    {&moving_kind, {5, 64}, 0, VIEWS | OTHER},
    {&moving_kind, {9, 31}, 0, ODD_VIEWS},
    {&moving_kind, {9, 31}, 0, ODD_VIEWS | OTHER},
    {&reshaped_kind, {7, 13}, 0, 0},
    {&pixels_kind, {1023}, 0, 0},
    {&pixels_kind, {4096}, 0, 0},
    {&embedding_kind, {11, 128, 5}, ALL, 0},
    {&embedding_kind, {7, 33, 4}, DENSE, 0},
    {&norm_kind, {5, 31}, F32, 0},
    {&norm_kind, {33, 100}, BF16, WEIGHT | SCALE},
    {&norm_kind, {33, 100}, F16, WEIGHT | IN_PLACE},
    {&norm_kind, {5, 31}, F32, LAYER},
    {&norm_kind, {33, 100}, BF16, LAYER | SCALE},
    {&norm_kind, {33, 100}, BF16, LAYER | SCALE | SHIFT},
    {&norm_kind, {17, 64}, F32, LAYER | SHIFT | IN_PLACE},
    {&norm_kind, {9, 96}, F32, WEIGHT | SCALE | SHIFT},
    {&norm_kind, {1, 1}, F32, SLOW | IN_PLACE},
    {&norm_kind, {1, 1}, BF16, SLOW | WEIGHT | SCALE | IN_PLACE},
    {&norm_kind, {1, 1}, F32, SLOW | LAYER},
    {&norm_kind, {1, 1}, BF16, SLOW | LAYER | SCALE},
    {&norm_kind, {3, 2}, F32, SLOW | IN_PLACE},
    {&norm_kind, {3, 2}, BF16, SLOW | WEIGHT | SCALE | IN_PLACE},
    {&norm_kind, {3, 2}, F32, SLOW | LAYER},
    {&norm_kind, {3, 2}, BF16, SLOW | LAYER | SCALE},
    {&norm_kind, {17, 17}, F32, SLOW | IN_PLACE},
    {&norm_kind, {17, 17}, BF16, SLOW | WEIGHT | SCALE | IN_PLACE},
    {&norm_kind, {17, 17}, F32, SLOW | LAYER},
    {&norm_kind, {17, 17}, BF16, SLOW | LAYER | SCALE},
    {&norm_kind, {3, 384}, F16, SLOW | WEIGHT | SCALE},
    {&norm_kind, {3, 384}, F16, SLOW | LAYER | SCALE | SHIFT},
    {&norm_kind, {300, 384}, BF16, SLOW | WEIGHT | SCALE | IN_PLACE},
    {&norm_kind, {300, 384}, BF16, SLOW | LAYER | SCALE},
    {&norm_kind, {2, 3840}, F32, SLOW | IN_PLACE},
    {&norm_kind, {2, 3840}, F16, SLOW | WEIGHT | SCALE},
    {&norm_kind, {2, 3840}, F16, SLOW | LAYER},
    {&norm_kind, {2, 3840}, F16, SLOW | LAYER | SCALE | SHIFT},
    {&norm_kind, {2, 4608}, F16, SLOW | WEIGHT | SCALE},
    {&norm_kind, {2, 4608}, F16, SLOW | LAYER | SCALE},
    {&norm_kind, {3, 2056}, F32, SLOW},
    {&norm_kind, {3, 2056}, F32, SLOW | LAYER},
    {&norm_kind, {2, 9000}, F16, SLOW | WEIGHT | SCALE | SHIFT},
    {&norm_kind, {2, 9000}, F16, SLOW | LAYER | SCALE | SHIFT},
    {&offset_kind, {4, 100}, F32, SLOW | LAYER | LARGE},
    {&residual_kind, {5, 31}, F32, 0},
    {&residual_kind, {33, 100}, BF16, WEIGHT | GATE | SCALE},
    {&residual_kind, {3, 384}, F16, WEIGHT | GATE | SCALE | IN_PLACE},
    {&residual_kind, {33, 100}, BF16, WEIGHT | GATE | LAST},
    {&residual_kind, {9, 96}, F32, PLAIN | LAST},
    {&residual_kind, {33, 100}, BF16, PLAIN | GATE | LAYER | SCALE | SHIFT},
    {&residual_kind, {17, 64}, F32, PLAIN | GATE | LAYER | SCALE | SHIFT | IN_PLACE},
    {&residual_kind, {9, 96}, F32, PLAIN | WEIGHT | SCALE},
    {&residual_kind, {5, 31}, F16, WEIGHT | GATE | LAYER | OTHER},
    {&residual_kind, {33, 100}, BF16, WEIGHT | GATE | SCALE | POST_SCALE},
    {&residual_kind, {9, 96}, F32, LAST | POST_SCALE},
    {&residual_kind, {7, 384}, F16, WEIGHT | SCALE | SHIFT | OTHER},
    {&residual_kind, {1, 1}, BF16, SLOW | LAST},
    {&residual_kind, {1, 1}, BF16, SLOW | WEIGHT | GATE | SCALE},
    {&residual_kind, {3, 2}, BF16, SLOW | LAST},
    {&residual_kind, {3, 2}, BF16, SLOW | WEIGHT | GATE | SCALE | IN_PLACE},
    {&residual_kind, {17, 17}, BF16, SLOW | LAST},
    {&residual_kind, {17, 17}, F32, SLOW | WEIGHT | GATE | SCALE},
    {&residual_kind, {5, 31}, F32, SLOW | IN_PLACE},
    {&residual_kind, {3, 384}, F16, SLOW | WEIGHT | GATE | SCALE},
    {&residual_kind, {300, 384}, BF16, SLOW | LAST},
    {&residual_kind, {300, 384}, BF16, SLOW | WEIGHT | GATE | SCALE | IN_PLACE},
    {&residual_kind, {7, 3840}, F16, SLOW | WEIGHT | GATE | SCALE},
    {&residual_kind, {2, 3840}, F32, SLOW | WEIGHT | GATE | SCALE | IN_PLACE},
    {&residual_kind, {2, 3840}, F32, SLOW | PLAIN | GATE | LAYER | SCALE | SHIFT},
    {&residual_kind, {2, 4608}, F16, SLOW | WEIGHT | GATE | SCALE},
    {&residual_kind, {2, 4608}, F16, SLOW | WEIGHT | GATE | SCALE | IN_PLACE},
    {&residual_kind, {3, 2056}, F32, SLOW},
    {&residual_kind, {3, 2056}, F32, SLOW | IN_PLACE},
    {&residual_kind, {2, 9000}, F16, SLOW | WEIGHT | GATE | SCALE},
    {&residual_kind, {2, 9000}, F16, SLOW | WEIGHT | GATE | SCALE | IN_PLACE},
    {&residual_kind, {2, 9000}, F16, SLOW | PLAIN | GATE | LAYER | SCALE | SHIFT},
    {&rope_kind, {17, 3, 34}, F16, 0},
    {&rope_kind, {17, 3, 34}, F16, OTHER},
    {&rope_kind, {5, 2, 128}, BF16, 0},
    {&rope_kind, {5, 2, 64}, F32, OTHER},
    {&rope_kind, {6, 3, 64}, BF16, PLAIN},
    {&rope_kind, {19, 3, 64}, BF16, VIEWS},
    {&rope_kind, {7, 2, 128}, BF16, VIEWS | OTHER},
    {&rope_kind, {9, 3, 34}, F16, ODD_VIEWS},
    {&rope_kind, {1, 1, 2}, F16, SLOW},
    {&rope_kind, {1, 1, 2}, F16, SLOW | OTHER},
    {&rope_kind, {3, 2, 6}, F16, SLOW},
    {&rope_kind, {3, 2, 6}, F16, SLOW | OTHER},
    {&rope_kind, {33, 5, 64}, F16, SLOW},
    {&rope_kind, {33, 5, 64}, F16, SLOW | OTHER},
    {&rope_kind, {100, 6, 128}, F16, SLOW},
    {&rope_kind, {100, 6, 128}, F16, SLOW | OTHER},
    {&rope_kind, {5, 2, 300}, BF16, SLOW | OTHER},
    {&rope_kind, {7, 5, 64}, BF16, SLOW},
    {&rope_kind, {3, 71, 128}, BF16, SLOW}, /* more than a block's threads hold at a time */
    {&rope_kind, {9, 3, 16}, BF16, SLOW},
    {&angles_kind, {5, 33}, 0, 0},
    {&silu_kind, {17, 33}, 0, IN_PLACE},
    {&silu_kind, {17, 33}, 0, 0},
    {&silu_kind, {1, 1}, 0, SLOW | IN_PLACE},
    {&silu_kind, {6, 2}, 0, SLOW | IN_PLACE},
    {&silu_kind, {34, 17}, 0, SLOW | IN_PLACE},
    {&silu_kind, {10, 31}, 0, SLOW | IN_PLACE},
    {&silu_kind, {66, 100}, 0, SLOW | IN_PLACE},
    {&silu_kind, {4, 3840}, 0, SLOW | IN_PLACE},
    {&silu_kind, {600, 384}, 0, SLOW | IN_PLACE},
    {&modulation_kind, {37, 4, 1212}, 0, 0}, /* Z-Image's: a scale and a gate of attention, the same of the MLP */
    {&modulation_kind, {37, 1, 1}, 0, 0},
    {&modulation_kind, {64, 2, 31}, 0, 0},     /* FLUX.2's last norm: a shift and a scale */
    {&modulation_kind, {40, 3, 313}, 0, 0},    /* FLUX.2's: a shift, a scale and a gate */
    {&modulation_kind, {40, 6, 313313}, 0, 0}, /* ... of attention, then of the MLP */
    {&modulation_kind, {33, 6, 123213}, 0, 0},
    {&patches_kind, {5, 6, 10, 2}, 0, 0},
    {&patches_kind, {5, 6, 10, 2}, 0, OTHER},
    {&patches_kind, {16, 4, 6, 1}, 0, OTHER},
    {&patches_kind, {3, 9, 6, 3}, 0, OTHER},
    {&finite_kind, {5, 15, 75}, 0, 0},
    {&finite_kind, {70, 1001, 30}, 0, SLOW},
    {&named_kind, {75, 0}, 0, 0},
    {&named_kind, {75, 37}, 0, 0},
    {&named_kind, {75, 74}, 0, 0},
    {&finite_residual_kind, {3, 40, 77}, 0, 0},
    {&finite_residual_kind, {9, 301, 7}, 0, SLOW},
    {&finite_residual_kind, {9, 301, 1269}, 0, SLOW},
    {&finite_residual_kind, {9, 301, 2700}, 0, SLOW},
    {NULL, {0}, 0, 0},
};
