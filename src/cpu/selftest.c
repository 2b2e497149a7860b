#include "cpu/selftest.h"

#include "cpu/kernels.h"
#include "cpu/table.h"

zi_cases_options zi_cpu_cases_options(const zi_cpu_set *set)
{
    zi_cases_options options = {
        .compute = ZIMAGE_COMPUTE_F32,
        .exact_tokens = ZI_DOT_TOKENS,
        .same_bits = 1,
    };
    if (set->gemm != NULL)
        options.compute = set->gemm->b == ZI_NUMBER_BF16 ? ZIMAGE_COMPUTE_BF16 : ZIMAGE_COMPUTE_INT8;
    return options;
}

/* "Percent of peak" needs a measurement that comes to an end with a number. */
static void try_peak(const zi_cpu_set *set, zi_case_report *report, void *user)
{
    enum { ROUNDS = 8 };
    float sink = 0;
    double (*measure)(int64_t, float *) = set->gemm != NULL ? set->gemm->peak : set->kernels->peak;
    int right = measure(ROUNDS, &sink) > 0;
    const zi_case_finding finding = {.index = zi_cases_count(),
                                     .group = "peak",
                                     .operations = "peak_rate",
                                     .name = "8 rounds",
                                     .fault = right ? NULL : "8 rounds: no rate was measured"};
    report(user, &finding);
}

zimage_status zi_cpu_selftest(zi_pool *pool, const zi_cpu_set *set, zi_case_report *report, void *user,
                              zimage_error *error)
{
    zi_ops *ops;
    zi_cases_options options = zi_cpu_cases_options(set);
    options.quick = 1;
    ZI_TRY(zi_cpu_new_with_set(pool, set, &ops, error));
    zimage_status status = zi_cases_run(ops, &options, report, user, error);
    if (status == ZIMAGE_OK)
        try_peak(set, report, user);
    ops->table->free(ops);
    return status;
}
