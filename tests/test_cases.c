/*
 * The cases of the contract (src/ops/cases.h): they pass on every set of kernels of the CPU backend, they cover every
 * entry of the table, they find a broken operation, and a case takes as much memory in a rehearsal as in a real run.
 */
#include "ops/cases.h"

#include "cpu/cpu.h"
#include "cpu/features.h"
#include "cpu/kernels.h"
#include "cpu/selftest.h"
#include "ops/host.h"
#include "ops/ops_count.h"
#include "support.h"

#define THREADS_MAX 3

static zi_pool *pools[THREADS_MAX]; /* of 1, 2 and 3 threads */
static zimage_error last_error = ZIMAGE_ERROR_INIT;

static void expect_ok(zimage_status status)
{
    if (status != ZIMAGE_OK)
        fail_msg("%s", last_error.message);
}

static int set_up(void **state)
{
    for (int i = 0; i < THREADS_MAX; i++)
        expect_ok(zi_pool_new(i + 1, &pools[i], &last_error));
    return 0;
}

static int tear_down(void **state)
{
    for (int i = 0; i < THREADS_MAX; i++)
        zi_pool_free(pools[i]);
    return 0;
}

/* ---- what a run of the cases found ------------------------------------------------------------------------------- */

typedef struct result {
    int cases;
    char operations[20000], faults[40000];
} result;

static void append(char *text, size_t size, const char *a, const char *b)
{
    size_t length = strlen(text);
    snprintf(text + length, size - length, "%s %s\n", a, b);
}

static void on_case(void *user, const zi_case_finding *finding)
{
    result *r = user;
    r->cases++;
    append(r->operations, sizeof r->operations, "", finding->operations);
    if (finding->fault)
        append(r->faults, sizeof r->faults, finding->group, finding->fault);
}

static result run_cases(zi_ops *ops, const zi_cases_options *options)
{
    result r = {0};
    expect_ok(zi_cases_run(ops, options, on_case, &r, &last_error));
    return r;
}

static void expect_no_faults(const result *r, const char *backend)
{
    if (r->faults[0])
        fail_msg("%s: %s", backend, r->faults);
}

/* ---- every backend in host memory -------------------------------------------------------------------------------- */

static void the_reference_agrees_with_itself(void **state)
{
    zi_ops *ops;
    expect_ok(zi_ops_reference_new(&ops, &last_error));
    const zi_cases_options options = {.compute = ZIMAGE_COMPUTE_F32, .same_bits = 1, .quick = is_brief()};
    result r = run_cases(ops, &options);
    expect_no_faults(&r, "reference");
    if (is_brief())
        assert_true(r.cases > 100);
    else
        assert_int_equal(r.cases, zi_cases_count());
    ops->table->free(ops);
}

/* All cases on tiers of float32 kernels; the quick ones on packed products, whose kernels test_packed.c tests. Results
 * have the same bits with 1, 2 and 3 threads (brief tests: with 1 and 3), and convolutions in bands of any height. */
static void every_set_of_kernels_is_right(void **state)
{
    zi_cpu_set set;
    for (int i = 0; zi_cpu_set_at(i, zi_cpu_features(), &set); i++) {
        if (!set.usable)
            continue;
        zi_ops *ops[THREADS_MAX];
        for (int j = 0; j < THREADS_MAX; j++)
            expect_ok(zi_cpu_new_with_set(pools[j], &set, &ops[j], &last_error));
        zi_cases_options options = zi_cpu_cases_options(&set);
        options.quick = set.gemm != NULL || is_brief();
        options.twins = ops + (is_brief() ? THREADS_MAX - 1 : 1);
        options.twin_count = is_brief() ? 1 : THREADS_MAX - 1;
        result r = run_cases(ops[0], &options);
        expect_no_faults(&r, set.name);
        assert_true(r.cases > (set.gemm ? 20 : is_brief() ? 100 : 400));
        for (int j = 0; j < THREADS_MAX; j++)
            ops[j]->table->free(ops[j]);
    }
}

/* ---- the table --------------------------------------------------------------------------------------------------- */

#define ENTRY(name)                                                                                                    \
    {                                                                                                                  \
#name, offsetof(zi_ops_table, name)                                                                            \
    }

static const struct {
    const char *name;
    size_t place;
} entries[] = {
    ENTRY(alloc),
    ENTRY(alloc_f32),
    ENTRY(alloc_operand),
    ENTRY(alloc_operand_parts),
    ENTRY(mark),
    ENTRY(release),
    ENTRY(upload),
    ENTRY(download),
    ENTRY(download_rgb8),
    ENTRY(copy),
    ENTRY(embed_rows),
    ENTRY(linear),
    ENTRY(linears),
    ENTRY(linear_glu),
    ENTRY(silu),
    ENTRY(norm),
    ENTRY(residual),
    ENTRY(rope_table),
    ENTRY(qk_norm_rope),
    ENTRY(attention),
    ENTRY(modulation),
    ENTRY(patchify),
    ENTRY(unpatchify),
    ENTRY(conv2d),
    ENTRY(group_norm_sums),
    ENTRY(group_norm_fold),
    ENTRY(channel_affine),
    ENTRY(check_finite),
    ENTRY(name_check),
    ENTRY(finish),
    ENTRY(repeat),
    ENTRY(rehearse_begin),
    ENTRY(rehearse_stage),
    ENTRY(rehearse_end),
    ENTRY(arrange),
    ENTRY(forget_weights),
    ENTRY(describe),
    ENTRY(peak_rate),
    ENTRY(exchange_seconds),
    ENTRY(peak_bytes),
    ENTRY(device_bytes),
    ENTRY(whole_image_bytes),
    ENTRY(suits_batch),
    ENTRY(graph_info),
    ENTRY(free),
};

#define ENTRIES (sizeof entries / sizeof *entries)

_Static_assert(offsetof(zi_ops_table, alloc) + ENTRIES * sizeof(void (*)(void)) == sizeof(zi_ops_table),
               "every entry of zi_ops_table is listed");

static void expect_full_table(const zi_ops *ops)
{
    for (size_t i = 0; i < ENTRIES; i++) {
        void (*function)(void);
        memcpy(&function, (const char *)ops->table + entries[i].place, sizeof function);
        if (!function)
            fail_msg("%s: %s is NULL", ops->table->name, entries[i].name);
    }
}

static void no_entry_is_null(void **state)
{
    zi_ops *ops[3];
    expect_ok(zi_ops_reference_new(&ops[0], &last_error));
    expect_ok(zi_ops_cpu_new(pools[0], &(zi_cpu_options){.compute = ZIMAGE_COMPUTE_F32}, &ops[1], &last_error));
    expect_ok(zi_ops_count_new(&ops[2], &last_error));
    for (int i = 0; i < 3; i++) {
        expect_full_table(ops[i]);
        ops[i]->table->free(ops[i]);
    }
}

/* Tested where a case can't: rehearsals and arrange below, peak_rate in test_selftest.c; and each test calls free. */
static const char *const elsewhere = " rehearse_begin rehearse_stage rehearse_end arrange peak_rate free ";

static void every_entry_has_a_case(void **state)
{
    zi_ops *ops;
    expect_ok(zi_ops_reference_new(&ops, &last_error));
    result r = run_cases(ops, &(zi_cases_options){.compute = ZIMAGE_COMPUTE_F32, .quick = 1});
    for (char *c = r.operations; *c; c++)
        if (*c == '\n')
            *c = ' ';
    for (size_t i = 0; i < ENTRIES; i++) {
        char word[64];
        snprintf(word, sizeof word, " %s ", entries[i].name);
        if (!strstr(r.operations, word) && !strstr(elsewhere, word))
            fail_msg("no case tests %s", entries[i].name);
    }
    ops->table->free(ops);
}

/* ---- broken operations ------------------------------------------------------------------------------------------- */

static const zi_ops_table *whole; /* the CPU backend's */

#define BREAK(operation, parameters, arguments, damage)                                                                \
    static zimage_status broken_##operation parameters                                                                 \
    {                                                                                                                  \
        ZI_TRY(whole->operation arguments);                                                                            \
        damage;                                                                                                        \
        return ZIMAGE_OK;                                                                                              \
    }

static void damage(const zi_tensor *x)
{
    zi_f32(x)[0] = zi_f32(x)[0] * 1.01f + 0.01f;
}

BREAK(upload, (zi_run * run, zi_tensor *dst, const float *src), (run, dst, src),
      zi_f32(dst)[zi_tensor_count(dst) / 2] += 1)
BREAK(download, (zi_run * run, float *dst, const zi_tensor *src), (run, dst, src), dst[zi_tensor_count(src) / 2] += 1)
BREAK(download_rgb8, (zi_run * run, uint8_t *dst, const zi_tensor *src), (run, dst, src), dst[0] ^= 1)
BREAK(copy, (zi_run * run, zi_tensor *dst, const zi_tensor *src), (run, dst, src), damage(dst))
BREAK(embed_rows, (zi_run * run, zi_tensor *y, const zi_weight *table, const int32_t *ids), (run, y, table, ids),
      damage(y))
BREAK(linear, (zi_run * run, zi_tensor *y, const zi_tensor *x, const zi_weight *w, const zi_weight *bias, int add),
      (run, y, x, w, bias, add), damage(y))
BREAK(linears, (zi_run * run, int count, zi_tensor *y, const zi_tensor *x, const zi_weight *const *weights),
      (run, count, y, x, weights), damage(&y[count - 1]))
BREAK(linear_glu, (zi_run * run, zi_tensor *y, const zi_tensor *x, const zi_weight *w1, const zi_weight *w3),
      (run, y, x, w3, w1), ) /* the two weights the wrong way round */
BREAK(silu, (zi_run * run, zi_tensor *y, const zi_tensor *x), (run, y, x), damage(y))
BREAK(norm, (zi_run * run, zi_tensor *y, const zi_tensor *x, const zi_norm *norm),
      (run, y, x, &(zi_norm){norm->kind, norm->eps, norm->weight, norm->scale, NULL}), ) /* no shift */
BREAK(residual, (zi_run * run, zi_tensor *x, const zi_tensor *y, zi_tensor *h, const zi_residual *residual),
      (run, x, y, h, &(zi_residual){residual->post, NULL, residual->next, residual->finite}), ) /* no gate */
BREAK(rope_table, (zi_run * run, zi_tensor *cosines, zi_tensor *sines, const float *angles),
      (run, sines, cosines, angles), )
BREAK(qk_norm_rope, (zi_run * run, zi_tensor *x, const zi_qk_norm_rope *args), (run, x, args), damage(x))
BREAK(attention,
      (zi_run * run, zi_tensor *o, const zi_tensor *q, const zi_tensor *k, const zi_tensor *v,
       const zi_attention *args),
      (run, o, q, k, v,
       &(zi_attention){.heads = args->heads,
                       .kv_heads = args->kv_heads,
                       .head_dim = args->head_dim,
                       .causal = args->causal,
                       .sequences = args->sequences,
                       .queries = {args->queries[0], args->queries[1]},
                       .keys = {args->keys[0], args->keys[1]}}), ) /* no key length */
BREAK(modulation, (zi_run * run, zi_tensor *m, int parts, const zi_modulation *kinds), (run, m, parts, kinds),
      damage(m))
BREAK(patchify, (zi_run * run, zi_tensor *tokens, const zi_tensor *latents, int64_t patch, zi_patch_order order),
      (run, tokens, latents, patch, ZI_PATCH_CHANNELS_LAST), )
BREAK(unpatchify, (zi_run * run, zi_tensor *latents, const zi_tensor *tokens, int64_t patch, zi_patch_order order),
      (run, latents, tokens, patch, ZI_PATCH_CHANNELS_LAST), )
BREAK(conv2d, (zi_run * run, zi_tensor *y, const zi_tensor *x, const zi_conv *conv), (run, y, x, conv), damage(y))
BREAK(group_norm_sums, (zi_run * run, zi_tensor *sums, const zi_tensor *x, int accumulate), (run, sums, x, 0), )
BREAK(group_norm_fold,
      (zi_run * run, zi_channel_affine *affine, const zi_tensor *sums, int64_t count, const zi_weight *w,
       const zi_weight *b, float eps),
      (run, affine, sums, count + 1, w, b, eps), )
BREAK(channel_affine, (zi_run * run, zi_tensor *y, const zi_tensor *x, const zi_channel_affine *affine),
      (run, y, x, affine), damage(y))
BREAK(check_finite, (zi_run * run, const zi_tensor *x, int *finite), (run, x, finite), *finite = 1)

static zimage_status broken_repeat(zi_run *run, const void *key, size_t size, zi_work_fn *work, const void *user)
{
    return ZIMAGE_OK; /* as a recording of nothing would */
}

static size_t broken_peak_bytes(const zi_ops *ops)
{
    return 0;
}

static void broken_describe(const zi_ops *ops, char *text, size_t size)
{
    text[0] = 0;
}

static void broken_release(zi_run *run, zi_arena_mark mark)
{
}

#define BROKEN(operation, group)                                                                                       \
    {                                                                                                                  \
#operation, offsetof(zi_ops_table, operation), (void (*)(void))broken_##operation, group                       \
    }

static const struct {
    const char *name;
    size_t place;
    void (*function)(void);
    const char *group; /* whose cases find it */
} breaks[] = {
    BROKEN(upload, "moving"),
    BROKEN(download, "moving"),
    BROKEN(download_rgb8, "moving"),
    BROKEN(copy, "moving"),
    BROKEN(embed_rows, "moving"),
    BROKEN(linear, "linear"),
    BROKEN(linears, "linear"),
    BROKEN(linear_glu, "gated"),
    BROKEN(silu, "silu"),
    BROKEN(norm, "norms"),
    BROKEN(residual, "norms"),
    BROKEN(rope_table, "rope"),
    BROKEN(qk_norm_rope, "rope"),
    BROKEN(attention, "attention"),
    BROKEN(modulation, "modulation"),
    BROKEN(patchify, "patches"),
    BROKEN(unpatchify, "patches"),
    BROKEN(conv2d, "conv"),
    BROKEN(group_norm_sums, "groups"),
    BROKEN(group_norm_fold, "groups"),
    BROKEN(channel_affine, "groups"),
    BROKEN(check_finite, "finite"),
    BROKEN(repeat, "repeat"),
    BROKEN(peak_bytes, "memory"),
    BROKEN(describe, "memory"),
    BROKEN(release, "memory"),
};

static void every_broken_operation_is_found(void **state)
{
    zi_ops *ops;
    expect_ok(zi_ops_cpu_new(pools[0], &(zi_cpu_options){.compute = ZIMAGE_COMPUTE_F32}, &ops, &last_error));
    whole = ops->table;
    for (size_t i = 0; i < sizeof breaks / sizeof *breaks; i++) {
        zi_ops_table broken = *whole;
        memcpy((char *)&broken + breaks[i].place, &breaks[i].function, sizeof breaks[i].function);
        ops->table = &broken;
        result r =
            run_cases(ops, &(zi_cases_options){.compute = ZIMAGE_COMPUTE_F32, .quick = 1, .group = breaks[i].group});
        if (!r.faults[0])
            fail_msg("no case of %s finds a broken %s", breaks[i].group, breaks[i].name);
    }
    ops->table = whole;
    ops->table->free(ops);
}

/* ---- what a fault says ------------------------------------------------------------------------------------------- */

static int spoil_outside, spoil_input, spoil_status, spoil_bits;

static zimage_status spoiled_linear(zi_run *run, zi_tensor *y, const zi_tensor *x, const zi_weight *w,
                                    const zi_weight *bias, int accumulate)
{
    ZI_TRY(whole->linear(run, y, x, w, bias, accumulate));
    int64_t last = (y->shape[0] - 1) * y->ld + y->shape[1] - 1;
    if (spoil_outside)
        zi_f32(y)[last + 1] = 0;
    if (spoil_input)
        zi_f32(x)[0] = 0;
    if (spoil_bits) /* a unit in the last place */
        zi_f32(y)[0] = nextafterf(zi_f32(y)[0], INFINITY);
    return spoil_status ? zi_fail(run->error, ZIMAGE_ERROR_FILE, "it is broken") : ZIMAGE_OK;
}

static result spoiled(zi_ops *ops, zi_ops *twin)
{
    zi_ops_table table = *whole;
    table.linear = spoiled_linear;
    ops->table = &table;
    zi_cases_options options = {.compute = ZIMAGE_COMPUTE_F32, .quick = 1, .group = "linear", .exact_tokens = 4};
    options.twins = &twin;
    options.twin_count = twin != NULL;
    result r = run_cases(ops, &options);
    ops->table = whole;
    return r;
}

static void faults_say_what_is_wrong(void **state)
{
    zi_ops *ops, *twin;
    const zi_cpu_options options = {.compute = ZIMAGE_COMPUTE_F32};
    expect_ok(zi_ops_cpu_new(pools[0], &options, &ops, &last_error));
    expect_ok(zi_ops_cpu_new(pools[1], &options, &twin, &last_error));
    whole = ops->table;
    result r = spoiled(ops, twin);
    assert_string_equal(r.faults, "");
    spoil_outside = 1;
    r = spoiled(ops, NULL);
    assert_non_null(strstr(r.faults, "linear 37 x 96 -> 64, BF16, column views: wrote outside its output\n"));
    assert_non_null(strstr(r.faults, "linear 40 x 96 -> 64, BF16: wrote outside its output\n"));
    spoil_outside = 0, spoil_input = 1;
    r = spoiled(ops, NULL);
    assert_non_null(strstr(r.faults, "linear 40 x 96 -> 64, BF16: changed an input\n"));
    spoil_input = 0, spoil_status = 1;
    r = spoiled(ops, NULL);
    assert_non_null(strstr(r.faults, "linear 40 x 96 -> 64, BF16: it is broken\n"));
    spoil_status = 0, spoil_bits = 1;
    r = spoiled(ops, twin);
    assert_non_null(strstr(r.faults, "linear 40 x 96 -> 64, BF16: other bits with another number of threads\n"));
    assert_null(strstr(r.faults, "error"));
    spoil_bits = 0;
    ops->table->free(ops);
    twin->table->free(twin);
}

static void wrong_options_are_refused(void **state)
{
    zi_ops *ops;
    zimage_error error = ZIMAGE_ERROR_INIT;
    expect_ok(zi_ops_reference_new(&ops, &last_error));
    assert_int_equal(zi_cases_run(ops, &(zi_cases_options){0}, on_case, NULL, &error), ZIMAGE_ERROR_ARGUMENT);
    assert_non_null(strstr(error.message, "compute"));
    const zi_cases_options unknown = {.compute = ZIMAGE_COMPUTE_F32, .group = "abacus"};
    assert_int_equal(zi_cases_run(ops, &unknown, on_case, NULL, &error), ZIMAGE_ERROR_ARGUMENT);
    assert_non_null(strstr(error.message, "abacus"));
    ops->table->free(ops);
}

/* ---- rehearsals -------------------------------------------------------------------------------------------------- */

/* Small tensors of a rehearsal have memory: it is filled, and must be the same when it is released. Larger ones have
 * addresses that end the process when they are used. */
enum { WATCHED_MAX = 64, CASES_MAX = 1000, PATTERN = 0x5b };

static struct {
    const uint8_t *data;
    size_t bytes, height; /* height of the stack below */
} watched[WATCHED_MAX];
static int watched_count, touched;

static void watch(zi_run *run, const zi_tensor *x, size_t height)
{
    size_t bytes = (size_t)zi_tensor_count(x) * sizeof(float);
    if (!zi_host_rehearses(run) || x->dtype != ZI_F32 || bytes > ZI_ARENA_REAL_BYTES)
        return;
    assert_true(watched_count < WATCHED_MAX);
    memset(x->data, PATTERN, bytes);
    watched[watched_count].data = x->data;
    watched[watched_count].bytes = bytes;
    watched[watched_count++].height = height;
}

static zimage_status watched_alloc(zi_run *run, zi_tensor *x, int dims, const int64_t *shape)
{
    size_t height = whole->mark(run).in_use;
    ZI_TRY(whole->alloc(run, x, dims, shape));
    watch(run, x, height);
    return ZIMAGE_OK;
}

static zimage_status watched_operand(zi_run *run, zi_tensor *x, int64_t rows, int64_t columns, const zi_weight *w)
{
    size_t height = whole->mark(run).in_use;
    ZI_TRY(whole->alloc_operand(run, x, rows, columns, w));
    watch(run, x, height);
    return ZIMAGE_OK;
}

static zimage_status watched_parts(zi_run *run, zi_tensor *x, int64_t rows, int64_t columns, const zi_weight *w)
{
    size_t height = whole->mark(run).in_use;
    ZI_TRY(whole->alloc_operand_parts(run, x, rows, columns, w));
    watch(run, x, height);
    return ZIMAGE_OK;
}

static void check_watched(size_t height)
{
    while (watched_count > 0 && watched[watched_count - 1].height >= height) {
        watched_count--;
        for (size_t i = 0; i < watched[watched_count].bytes; i++)
            touched |= watched[watched_count].data[i] != PATTERN;
    }
}

static void watched_release(zi_run *run, zi_arena_mark mark)
{
    check_watched(mark.in_use);
    whole->release(run, mark);
}

static zimage_status watched_stage(zi_run *run, int stage, size_t *peak)
{
    check_watched(0);
    return whole->rehearse_stage(run, stage, peak);
}

/* Bytes of the stack that each case takes, by index; 0: the case was left out, or needs none. */
typedef struct peaks {
    zi_ops *ops;
    size_t real[CASES_MAX], rehearsed[CASES_MAX];
} peaks;

static void on_real_case(void *user, const zi_case_finding *finding)
{
    peaks *p = user;
    zi_run run = {.ops = p->ops};
    zi_arena *arena = ((zi_host_ops *)p->ops)->arena;
    assert_true(finding->index < CASES_MAX);
    p->real[finding->index] = zi_arena_peak(arena) - zi_host_mark(&run).in_use;
    zi_arena_reset_peak(arena);
    if (finding->fault)
        fail_msg("%s %s", finding->group, finding->fault);
}

static void on_rehearsal(void *user, const zi_case_finding *finding)
{
    peaks *p = user;
    p->rehearsed[finding->index] = finding->peak;
    if (finding->fault)
        fail_msg("in a rehearsal: %s %s", finding->group, finding->fault);
    if (touched)
        fail_msg("a rehearsal touches data: %s %s", finding->group, finding->name);
}

/* Each case for real and in a rehearsal: both take the same memory. */
static void check_rehearsals(const char *name, zi_ops *ops, zi_cases_options options)
{
    static peaks p;
    zi_ops_table table = *ops->table;
    p = (peaks){.ops = ops};
    whole = ops->table;
    options.quick = 1;
    expect_ok(zi_cases_run(ops, &options, on_real_case, &p, &last_error));
    table.alloc = table.alloc_f32 = watched_alloc;
    table.alloc_operand = watched_operand;
    table.alloc_operand_parts = watched_parts;
    table.release = watched_release;
    table.rehearse_stage = watched_stage;
    ops->table = &table;
    options.rehearse = 1;
    expect_ok(zi_cases_run(ops, &options, on_rehearsal, &p, &last_error));
    ops->table = whole;
    for (int i = 0; i < CASES_MAX; i++)
        if (p.real[i] != p.rehearsed[i])
            fail_msg("%s, case %d: the stack takes %zu bytes, in a rehearsal %zu", name, i, p.real[i], p.rehearsed[i]);
    ops->table->free(ops);
}

/* Of the reference, and of every set of kernels. */
static void a_rehearsal_takes_the_memory_of_the_real_run(void **state)
{
    zi_cpu_set set;
    zi_ops *ops;
    assert_true(zi_cases_count() <= CASES_MAX);
    expect_ok(zi_ops_reference_new(&ops, &last_error));
    check_rehearsals("reference", ops, (zi_cases_options){.compute = ZIMAGE_COMPUTE_F32});
    for (int i = 0; zi_cpu_set_at(i, zi_cpu_features(), &set); i++) {
        if (!set.usable)
            continue;
        expect_ok(zi_cpu_new_with_set(pools[1], &set, &ops, &last_error));
        check_rehearsals(set.name, ops, zi_cpu_cases_options(&set));
    }
}

/* A backend in host memory has nothing to divide. */
static void host_memory_needs_no_arrangement(void **state)
{
    zi_run run = {.error = &last_error};
    zi_memory_plan plan;
    const zi_stage_runs stages = {0, 3};
    expect_ok(zi_ops_cpu_new(pools[0], &(zi_cpu_options){.compute = ZIMAGE_COMPUTE_F32}, &run.ops, &last_error));
    memset(&plan, 0xff, sizeof plan);
    expect_ok(zi_table(&run)->arrange(&run, &stages, 1, 12345, 0, 1, &plan));
    assert_true(plan.activations == 12345 && plan.resident == 0 && plan.ring == 0 && plan.workspace == 0);
    assert_true(plan.weights[0] == 0 && plan.streamed[0] == 0);
    zi_table(&run)->free(run.ops);
}

/* Argument: the tests to run, as a pattern of names. */
int main(int argc, char **argv)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(no_entry_is_null),
        cmocka_unit_test(every_entry_has_a_case),
        cmocka_unit_test(the_reference_agrees_with_itself),
        cmocka_unit_test(every_set_of_kernels_is_right),
        cmocka_unit_test(every_broken_operation_is_found),
        cmocka_unit_test(faults_say_what_is_wrong),
        cmocka_unit_test(wrong_options_are_refused),
        cmocka_unit_test(a_rehearsal_takes_the_memory_of_the_real_run),
        cmocka_unit_test(host_memory_needs_no_arrangement),
    };
    if (argc > 1)
        cmocka_set_test_filter(argv[1]);
    return cmocka_run_group_tests(tests, set_up, tear_down);
}
