/*
 * The MLX backend against the reference: the contract's cases (ops/cases.h) in float32 and in bf16, then what is MLX's
 * own. Skipped without MLX.
 */
#include <dlfcn.h>

#include "mlx/library.h"
#include "ops/cases.h"
#include "support.h"

#define SKIPPED 77

static zi_ops_mlx_new_fn *mlx_new;
static zimage_error error = ZIMAGE_ERROR_INIT;
static zi_run run = {.error = &error};

static void ok(zimage_status status)
{
    if (status != ZIMAGE_OK)
        fail_msg("%s", error.message);
}

static const zi_ops_table *open_mlx(const zi_mlx_options *options)
{
    ok(mlx_new(options, &run.ops, &error));
    return zi_table(&run);
}

static void close_mlx(void)
{
    zi_table(&run)->free(run.ops);
    run.ops = NULL;
}

/* From alloc on all members of zi_ops_table are functions. */
static void no_entry_is_null(void **state)
{
    const zi_ops_table *t = open_mlx(&(zi_mlx_options){.compute = ZIMAGE_COMPUTE_F32});
    void (*entry)(void);
    for (size_t at = offsetof(zi_ops_table, alloc); at < sizeof *t; at += sizeof entry) {
        memcpy(&entry, (const char *)t + at, sizeof entry);
        if (!entry)
            fail_msg("entry %d of zi_ops_table is NULL", (int)((at - offsetof(zi_ops_table, alloc)) / sizeof entry));
    }
    close_mlx();
}

/* ---- the contract's cases ---------------------------------------------------------------------------------------- */

typedef struct tally {
    int run, failed;
} tally;

static void on_case(void *user, const zi_case_finding *finding)
{
    tally *t = user;
    t->run++;
    if (!finding->fault)
        return;
    printf("%s, case %d: %s\n", finding->group, finding->index, finding->fault);
    t->failed++;
}

static void run_cases(zimage_compute compute)
{
    tally t = {0};
    const zi_cases_options options = {.compute = compute, .quick = is_brief()};
    (void)open_mlx(&(zi_mlx_options){.compute = compute});
    ok(zi_cases_run(run.ops, &options, on_case, &t, &error));
    close_mlx();
    printf("%d cases, %d failed\n", t.run, t.failed);
    assert_int_equal(t.failed, 0);
}

static void float32_cases(void **state)
{
    run_cases(ZIMAGE_COMPUTE_F32);
}

static void bf16_cases(void **state)
{
    run_cases(ZIMAGE_COMPUTE_BF16);
}

/* Why nothing can be checked here, or NULL. */
static const char *why_not(void)
{
    size_t layout = 0;
    zi_mlx_device device;
    void *library = dlopen(ZIMAGE_MLX_LIBRARY, RTLD_NOW | RTLD_LOCAL);
    if (!library)
        return dlerror();
    zi_mlx_abi_fn *abi = (zi_mlx_abi_fn *)dlsym(library, "zi_mlx_abi");
    zi_mlx_find_fn *find = (zi_mlx_find_fn *)dlsym(library, "zi_mlx_find");
    mlx_new = (zi_ops_mlx_new_fn *)dlsym(library, "zi_ops_mlx_new");
    if (!abi || !find || !mlx_new || abi(&layout) != ZI_MLX_ABI || layout != ZI_MLX_LAYOUT)
        return "the library is not this build's";
    if (find(&device, &error) != ZIMAGE_OK)
        return error.message;
    printf("MLX %s, %s\n", device.version, device.name);
    return NULL;
}

/* test_mlx_table [PATTERN]: only the tests that it matches. */
int main(int argc, char **argv)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(no_entry_is_null),
        cmocka_unit_test(float32_cases),
        cmocka_unit_test(bf16_cases),
    };
    const char *why = why_not();
    if (why) {
        printf("skipped: no MLX: %s\n", why);
        return SKIPPED;
    }
    if (argc > 1)
        cmocka_set_test_filter(argv[1]);
    return cmocka_run_group_tests(tests, NULL, NULL);
}
