/*
 * The CUDA backend against the reference: the contract's cases (ops/cases.h) in float32, in bf16 with cuDNN and with
 * the kernels that stand in for it, and in fp8; then what is CUDA's own. Skipped without a usable GPU.
 */
#include <dirent.h>
#include <limits.h>
#include <unistd.h>

#include "base/numbers.h"
#include "gpu.h"
#include "ops/cases.h"

#define EPS 1e-6f
#define SHAPE(...)                                                                                                     \
    (int)(sizeof((int64_t[]){__VA_ARGS__}) / sizeof(int64_t)), (const int64_t[])                                       \
    {                                                                                                                  \
        __VA_ARGS__                                                                                                    \
    }

/* ---- the table --------------------------------------------------------------------------------------------------- */

/* From alloc on all members of zi_ops_table are functions; test_cases.c checks that, and the other backends. */
static void no_entry_is_null(void **state)
{
    const zi_ops_table *t = open_gpu(&(zi_cuda_options){.compute = ZIMAGE_COMPUTE_F32});
    void (*entry)(void);
    for (size_t at = offsetof(zi_ops_table, alloc); at < sizeof *t; at += sizeof entry) {
        memcpy(&entry, (const char *)t + at, sizeof entry);
        if (!entry)
            fail_msg("entry %d of zi_ops_table is NULL", (int)((at - offsetof(zi_ops_table, alloc)) / sizeof entry));
    }
    close_gpu();
}

/* ---- the contract's cases ---------------------------------------------------------------------------------------- */

static void on_case(void *user, const zi_case_finding *finding)
{
    if (!finding->fault)
        return;
    printf("%s, case %d: %s\n", finding->group, finding->index, finding->fault);
    *(int *)user = 1;
}

static void run_these(const zi_cuda_options *options, const zi_cases_options *cases)
{
    int failed = 0;
    (void)open_gpu(options);
    ok(zi_cases_run(gpu->ops, cases, on_case, &failed, &gpu_error));
    close_gpu();
    assert_false(failed);
}

static void run_cases(const zi_cuda_options *options, const char *group)
{
    run_these(options, &(zi_cases_options){.compute = options->compute, .group = group, .quick = is_brief()});
}

static void float32_cases(void **state)
{
    run_cases(&(zi_cuda_options){.compute = ZIMAGE_COMPUTE_F32}, NULL);
}

static void bf16_cases(void **state)
{
    run_cases(&(zi_cuda_options){.compute = ZIMAGE_COMPUTE_BF16}, NULL);
}

/* The groups with attention or convolutions, which is all that cuDNN computes. */
static void bf16_cases_without_cudnn(void **state)
{
    static const char *const groups[] = {"attention", "operands", "repeat", "conv"};
    for (size_t i = 0; i < sizeof groups / sizeof *groups; i++)
        run_cases(&(zi_cuda_options){.compute = ZIMAGE_COMPUTE_BF16, .own_kernels = 1}, groups[i]);
}

static int has_fp8(void)
{
    return first_gpu.major == 9 && first_gpu.minor == 0;
}

static void fp8_cases(void **state)
{
    if (!has_fp8())
        skip();
    run_cases(&(zi_cuda_options){.compute = ZIMAGE_COMPUTE_FP8}, NULL);
}

static const zimage_compute computes[] = {ZIMAGE_COMPUTE_F32, ZIMAGE_COMPUTE_BF16, ZIMAGE_COMPUTE_FP8};

/* How many of `computes` the GPU has. */
static int compute_count(void)
{
    return has_fp8() ? 3 : 2;
}

/* Its products are so large that tools which look into kernels leave it out. */
static void peak_rates(void **state)
{
    for (int i = 0; i < compute_count(); i++) {
        const zi_ops_table *t = open_gpu(&(zi_cuda_options){.compute = computes[i]});
        assert_true(t->peak_rate(gpu) > 0);
        close_gpu();
    }
}

/* ---- weights ----------------------------------------------------------------------------------------------------- */

#define SIDE 64

/* Zeros, enough for all weights here, groups too. */
static const uint8_t zeros[SIDE * SIDE * 4 * 9];

static zi_weight weight_of(const char *name, zi_dtype dtype, int dims, const int64_t *shape)
{
    zi_weight w = {.name = name, .dtype = dtype, .dims = dims, .data = zeros, .bits = 4, .group = 32};
    memcpy(w.shape, shape, (size_t)dims * sizeof *shape);
    w.scale_dtype = ZI_BF16;
    w.scales = w.biases = zeros;
    return w;
}

static zi_tensor tensor_of(int dims, const int64_t *shape)
{
    zi_tensor x;
    ok(zi_table(gpu)->alloc(gpu, &x, dims, shape));
    return x;
}

/* Numbers that no kernel reads are refused by the weight's name and never taken for others. */
static void refuses(zimage_status status, const zi_weight *w)
{
    assert_int_equal(status, ZIMAGE_ERROR_UNSUPPORTED);
    assert_non_null(strstr(gpu_error.message, w->name));
    assert_non_null(strstr(gpu_error.message, zi_dtype_name(w->dtype)));
}

static void refuse_all(const zi_ops_table *t)
{
    static const int32_t ids[5] = {0, 1, 2, 3, 4};
    const zi_weight good = weight_of("good", ZI_BF16, SHAPE(SIDE, SIDE));
    const zi_weight other = weight_of("other", ZI_DTYPE_OTHER, SHAPE(SIDE, SIDE));
    const zi_weight vector = weight_of("vector", ZI_DTYPE_OTHER, SHAPE(SIDE));
    const zi_weight packed_vector = weight_of("packed vector", ZI_GROUPED, SHAPE(SIDE));
    const zi_weight filter = weight_of("filter", ZI_DTYPE_OTHER, SHAPE(SIDE, SIDE, 3, 3));
    zi_weight scales = weight_of("scales", ZI_GROUPED, SHAPE(SIDE, SIDE));
    scales.scale_dtype = ZI_DTYPE_OTHER;
    zi_tensor x = tensor_of(SHAPE(5, SIDE)), y = tensor_of(SHAPE(5, SIDE)), image = tensor_of(SHAPE(3, 3, SIDE));
    zi_conv conv = zi_conv_same(&filter, NULL);
    conv.image_rows = 3;
    refuses(t->linear(gpu, &y, &x, &other, NULL, 0), &other);
    refuses(t->linear(gpu, &y, &x, &scales, NULL, 0), &scales);
    refuses(t->linear(gpu, &y, &x, &good, &vector, 0), &vector);
    refuses(t->linears(gpu, 2, (zi_tensor[]){y, y}, &x, (const zi_weight *[]){&good, &other}), &other);
    refuses(t->linear_glu(gpu, &y, &x, &good, &other), &other);
    refuses(t->norm(gpu, &y, &x, &(zi_norm){.eps = EPS, .weight = &vector}), &vector);
    refuses(t->norm(gpu, &y, &x, &(zi_norm){.eps = EPS, .weight = &packed_vector}), &packed_vector);
    refuses(t->embed_rows(gpu, &y, &other, ids), &other);
    refuses(t->conv2d(gpu, &image, &image, &conv), &filter);
}

static void unknown_storage_is_refused(void **state)
{
    for (int i = 0; i < compute_count(); i++) {
        refuse_all(open_gpu(&(zi_cuda_options){.compute = computes[i]}));
        close_gpu();
    }
}

/* ---- products with 4-bit weights --------------------------------------------------------------------------------- */

/* Sizes at which the kernel that unpacks weights itself takes each of its tiles, and a block takes two of them. The GPU
 * has 132 multiprocessors (cuda/packed.h). */
typedef struct packed_sizes {
    int64_t rows, in, out;
    int group, gated;
} packed_sizes;

static const packed_sizes packed_products[] = {
    {896, 256, 4224, 32, 0}, {1023, 256, 4224, 64, 0}, {1087, 256, 4224, 32, 0}, {1087, 256, 4224, 64, 1},
    {5, 768, 17152, 32, 0},  {5, 256, 17152, 64, 0},   {5, 768, 8576, 64, 1},    {3, 1024, 8576, 32, 1},
};

static uint16_t *random_bf16(size_t count, uint64_t *random, float magnitude)
{
    uint16_t *values = malloc(count * sizeof *values);
    assert_non_null(values);
    for (size_t i = 0; i < count; i++)
        values[i] = zi_f32_to_bf16(magnitude * zi_random_float(random));
    return values;
}

static zi_weight random_packed(const packed_sizes *s, uint64_t *random)
{
    zi_weight w = weight_of("packed", ZI_GROUPED, SHAPE(s->out, s->in));
    size_t count = (size_t)(s->out * s->in), groups = count / (size_t)s->group;
    uint8_t *numbers = malloc(count / 2);
    assert_non_null(numbers);
    for (size_t i = 0; i < count / 2; i++)
        numbers[i] = (uint8_t)zi_random_bits(random);
    w.group = s->group;
    w.data = numbers;
    w.bytes = count / 2;
    w.scales = (const uint8_t *)random_bf16(groups, random, 0.01f);
    w.biases = (const uint8_t *)random_bf16(groups, random, 0.1f);
    return w;
}

static zi_weight unpacked(const zi_weight *packed)
{
    zi_weight w = weight_of("dense", ZI_BF16, packed->dims, packed->shape);
    size_t count = (size_t)zi_weight_count(packed);
    float *values = malloc(count * sizeof *values);
    uint16_t *rounded = malloc(count * sizeof *rounded);
    assert_true(values != NULL && rounded != NULL);
    zi_weight_unpack(packed, 0, (int64_t)count, values);
    for (size_t i = 0; i < count; i++)
        rounded[i] = zi_f32_to_bf16(values[i]);
    free(values);
    w.data = (const uint8_t *)rounded;
    w.bytes = count * sizeof *rounded;
    return w;
}

static float *product_of(const zi_ops_table *t, const packed_sizes *s, const zi_weight w[2])
{
    size_t inputs = (size_t)(s->rows * s->in);
    uint64_t random = ZI_RANDOM_SEED; /* the same activations for both kinds of weights */
    float *values = malloc(inputs * sizeof *values), *result = malloc((size_t)(s->rows * s->out) * sizeof *result);
    zi_arena_mark mark = t->mark(gpu);
    zi_tensor x = tensor_of(SHAPE(s->rows, s->in)), y = tensor_of(SHAPE(s->rows, s->out));
    assert_true(values != NULL && result != NULL);
    for (size_t i = 0; i < inputs; i++)
        values[i] = zi_random_float(&random);
    ok(t->upload(gpu, &x, values));
    ok(s->gated ? t->linear_glu(gpu, &y, &x, &w[0], &w[1]) : t->linear(gpu, &y, &x, &w[0], NULL, 0));
    ok(t->download(gpu, result, &y));
    t->release(gpu, mark);
    free(values);
    return result;
}

static void free_weight(const zi_weight *w)
{
    free((void *)(uintptr_t)w->data);
    if (w->dtype == ZI_GROUPED) {
        free((void *)(uintptr_t)w->scales);
        free((void *)(uintptr_t)w->biases);
    }
}

/* Products with packed weights are those with the same weights unpacked, but for a rounding, or two if gated. */
static void packed_products_agree(void **state)
{
    uint64_t random = ZI_RANDOM_SEED;
    for (size_t i = 0; i < sizeof packed_products / sizeof *packed_products; i++) {
        const packed_sizes *s = &packed_products[i];
        const zi_weight packed[2] = {random_packed(s, &random), random_packed(s, &random)};
        const zi_weight dense[2] = {unpacked(&packed[0]), unpacked(&packed[1])};
        const zi_ops_table *t = open_gpu(&(zi_cuda_options){.compute = ZIMAGE_COMPUTE_BF16});
        float *y = product_of(t, s, packed), *expected = product_of(t, s, dense);
        close_gpu();
        double error = relative_error(y, expected, (size_t)(s->rows * s->out)), allowed = s->gated ? 0x1p-6 : 0x1p-7;
        if (!(error <= allowed))
            fail_msg("%d x %d -> %d, groups of %d%s: error %g, allowed %g", (int)s->rows, (int)s->in, (int)s->out,
                     s->group, s->gated ? ", gated" : "", error, allowed);
        free(y);
        free(expected);
        for (int j = 0; j < 2; j++) {
            free_weight(&packed[j]);
            free_weight(&dense[j]);
        }
    }
}

/* ---- the beginning of an operation ------------------------------------------------------------------------------- */

/* The call makes so many operations begin: weights may give way only between two of them (cuda/residency.h). */
#define BEGINS(count, call)                                                                                            \
    do {                                                                                                               \
        int64_t before = operations(gpu->ops);                                                                         \
        ok(call);                                                                                                      \
        if (operations(gpu->ops) != before + (count))                                                                  \
            fail_msg("%s: %d operations begin, expected %d", #call, (int)(operations(gpu->ops) - before), count);      \
    } while (0)

static void moving_begins(const zi_ops_table *t)
{
    static const int32_t ids[5] = {3, 0, 10, 3, 7};
    zi_weight w = weight_of("w", ZI_BF16, SHAPE(SIDE, SIDE)), table = weight_of("table", ZI_GROUPED, SHAPE(11, SIDE));
    zi_tensor x = tensor_of(SHAPE(5, SIDE)), y = tensor_of(SHAPE(5, SIDE)), operand, cosines, sines;
    float values[5 * SIDE] = {0};
    BEGINS(0, t->alloc(gpu, &y, SHAPE(5, SIDE)));
    BEGINS(0, t->alloc_f32(gpu, &cosines, SHAPE(5, SIDE / 2)));
    BEGINS(0, t->alloc_f32(gpu, &sines, SHAPE(5, SIDE / 2)));
    BEGINS(0, t->alloc_operand(gpu, &operand, 5, SIDE, &w));
    BEGINS(1, t->upload(gpu, &x, values));
    BEGINS(1, t->download(gpu, values, &x));
    BEGINS(1, t->copy(gpu, &y, &x));
    BEGINS(1, t->embed_rows(gpu, &y, &table, ids));
    BEGINS(1, t->rope_table(gpu, &cosines, &sines, values));
    BEGINS(0, t->finish(gpu));
}

static void computing_begins(const zi_ops_table *t)
{
    zi_weight w[2] = {weight_of("w", ZI_F16, SHAPE(SIDE, SIDE)), weight_of("packed", ZI_GROUPED, SHAPE(SIDE, SIDE))};
    zi_weight b = weight_of("b", ZI_BF16, SHAPE(SIDE)), v = weight_of("v", ZI_F16, SHAPE(SIDE));
    int finite;
    const zi_norm norm = {.kind = ZI_NORM_RMS, .eps = EPS, .weight = &v};
    const zi_residual residual = {.post = &norm, .next = &norm, .finite = &finite};
    zi_tensor x = tensor_of(SHAPE(5, SIDE)), y = tensor_of(SHAPE(5, SIDE)), z = tensor_of(SHAPE(5, SIDE)), operand;
    float values[5 * SIDE] = {0};
    ok(t->alloc_operand(gpu, &operand, 5, SIDE, &w[0]));
    ok(t->upload(gpu, &x, values));
    BEGINS(1, t->norm(gpu, &operand, &x, &norm));
    BEGINS(1, t->linear(gpu, &y, &operand, &w[1], &b, 0));
    BEGINS(1, t->linears(gpu, 2, (zi_tensor[]){y, z}, &operand, (const zi_weight *[]){&w[0], &w[1]}));
    BEGINS(1, t->linear_glu(gpu, &y, &operand, &w[0], &w[1]));
    for (int i = 0; i < 300; i++) /* more checks than have flags: it waits for some of them */
        BEGINS(1, t->residual(gpu, &x, &y, &operand, &residual));
    BEGINS(1, t->check_finite(gpu, &x, &finite));
    ok(t->finish(gpu));
}

/* Entries that only answer begin no operation. */
static void answering_begins_nothing(const zi_ops_table *t)
{
    char text[200];
    int64_t before = operations(gpu->ops);
    t->describe(gpu->ops, text, sizeof text);
    (void)t->peak_bytes(gpu->ops);
    (void)t->device_bytes(gpu->ops);
    (void)t->whole_image_bytes(gpu->ops);
    (void)t->suits_batch(gpu->ops, 100, 200);
    (void)t->graph_info(gpu->ops);
    ok(t->name_check(gpu, "a block"));
    t->release(gpu, t->mark(gpu));
    assert_int_equal(operations(gpu->ops), before);
}

static void an_operation_begins_once(void **state)
{
    if (!operations)
        skip();
    for (int i = 0; i < compute_count(); i++) {
        const zi_ops_table *t = open_gpu(&(zi_cuda_options){.compute = computes[i]});
        moving_begins(t);
        computing_begins(t);
        answering_begins_nothing(t);
        close_gpu();
    }
}

/* ---- what is remembered ------------------------------------------------------------------------------------------ */

/* The path of the folder's only file; 0: there is none. */
static int plans_path(const char *folder, char path[PATH_MAX])
{
    struct dirent *entry;
    DIR *open = opendir(folder);
    int found = 0;
    assert_non_null(open);
    while ((entry = readdir(open)) != NULL)
        if (entry->d_name[0] != '.') {
            assert_false(found++);
            snprintf(path, PATH_MAX, "%s/%s", folder, entry->d_name);
        }
    closedir(open);
    return found;
}

static void read_plans(const char *folder, char text[1 << 16])
{
    char path[PATH_MAX];
    text[0] = 0;
    if (!plans_path(folder, path))
        return;
    FILE *file = fopen(path, "r");
    assert_non_null(file);
    text[fread(text, 1, (1 << 16) - 1, file)] = 0;
    fclose(file);
}

static void write_plans(const char *folder, const char *text)
{
    char path[PATH_MAX];
    assert_true(plans_path(folder, path));
    FILE *file = fopen(path, "w");
    assert_non_null(file);
    assert_true(fputs(text, file) >= 0);
    assert_int_equal(fclose(file), 0);
}

static void remove_plans(const char *folder)
{
    char path[PATH_MAX];
    assert_true(plans_path(folder, path));
    assert_int_equal(unlink(path), 0);
}

static void find_timed(void *user, const zi_case_finding *finding)
{
    int *index = user;
    if (*index < 0 && strncmp(finding->name, "200 x 1024 -> 512", 17) == 0)
        *index = finding->index;
}

/* A case whose product is so large that the backend times algorithms. */
static int timed_case(void)
{
    int index = -1;
    (void)open_gpu(&(zi_cuda_options){.compute = ZIMAGE_COMPUTE_BF16});
    const zi_cases_options cases = {.compute = ZIMAGE_COMPUTE_BF16, .group = "linear", .rehearse = 1};
    ok(zi_cases_run(gpu->ops, &cases, find_timed, &index, &gpu_error));
    close_gpu();
    assert_true(index >= 0);
    return index;
}

static void remembering_run(const char *folder, int changes)
{
    char before[1 << 16] = "", after[1 << 16] = "";
    const zi_cases_options cases = {.compute = ZIMAGE_COMPUTE_BF16, .first = timed_case(), .count = 1};
    read_plans(folder, before);
    run_these(&(zi_cuda_options){.compute = ZIMAGE_COMPUTE_BF16, .cache = folder}, &cases);
    read_plans(folder, after);
    assert_int_equal(strcmp(before, after) != 0, changes);
    assert_non_null(strstr(after, "\nproduct "));
}

/* Algorithms are measured once; a damaged file is repaired, not believed. */
static void remembers(void **state)
{
    char folder[] = "/tmp/zimage-plans-XXXXXX", text[1 << 16];
    assert_non_null(mkdtemp(folder));
    remembering_run(folder, 1);
    remembering_run(folder, 0);
    read_plans(folder, text);
    for (char *c = strchr(text, '\n'); *c; c++) /* every algorithm */
        if (*c == ' ' && strspn(c + 1, "0123456789abcdef") == 2 * sizeof(uint64_t[8]))
            memset(c + 1, 'f', 2 * sizeof(uint64_t[8]));
    write_plans(folder, text);
    remembering_run(folder, 1);
    remembering_run(folder, 0);
    read_plans(folder, text);
    text[strlen(text) - 9] = 0; /* cut off */
    write_plans(folder, text);
    remembering_run(folder, 1);
    write_plans(folder, "another GPU\nproduct 00 00\n");
    remembering_run(folder, 1);
    remembering_run(folder, 0);
    remove_plans(folder);
    assert_int_equal(rmdir(folder), 0);
}

/* test_cuda [PATTERN]: only the tests that it matches. */
int main(int argc, char **argv)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(no_entry_is_null),
        cmocka_unit_test(float32_cases),
        cmocka_unit_test(bf16_cases),
        cmocka_unit_test(bf16_cases_without_cudnn),
        cmocka_unit_test(fp8_cases),
        cmocka_unit_test(unknown_storage_is_refused),
        cmocka_unit_test(an_operation_begins_once),
        cmocka_unit_test(packed_products_agree),
        cmocka_unit_test(remembers),
        cmocka_unit_test(peak_rates),
    };
    const char *why = why_not();
    if (why) {
        printf("skipped: no device: %s\n", why);
        return SKIPPED;
    }
    if (argc > 1)
        cmocka_set_test_filter(argv[1]);
    return cmocka_run_group_tests(tests, NULL, NULL);
}
