/*
 * The contract of ops.h as cases: one list for every backend. A case runs operations of a backend and the same
 * operations of the reference backend on the same inputs, and compares what comes out. Inputs are random, but the same
 * in each run. Each tensor lies between guards, and data moves by upload and download only.
 *
 * The reference backend itself is tested by hand-computed values (tests/test_ops.c).
 */
#ifndef ZI_OPS_CASES_H
#define ZI_OPS_CASES_H

#include "ops/ops.h"

typedef struct zi_cases_options {
    /* How the backend computes products: the reference gets operands that are rounded in the same way. Not AUTO. */
    zimage_compute compute;
    int exact_tokens;     /* linear and linears of at most so many tokens read unrounded operands */
    int quick;            /* leaves out the cases that take long */
    int rehearse;         /* runs the cases in a rehearsal each and compares nothing: see zi_case_finding.peak */
    const char *group;    /* only the cases of this group; NULL: of all groups */
    int first, count;     /* only `count` cases from case `first` on; count 0: to the end */
    int same_bits;        /* results must have the same bits for an image in any bands of rows ... */
    zi_ops *const *twins; /* ... and on these backends, which only differ in their number of threads */
    int twin_count;
} zi_cases_options;

/* What came out of one case. Texts are valid during the call. */
typedef struct zi_case_finding {
    int index;              /* of the case, from 0 */
    const char *group;      /* what is tested, in a word: "linear", "conv", ... A group's cases follow one another. */
    const char *operations; /* the entries of zi_ops_table that are tested, separated by spaces */
    const char *name;       /* "33 x 130 -> 70, BF16, bias" */
    double error;           /* the largest, as a share of the largest value */
    double bound;           /* of the error, for the result that comes closest to its bound */
    const char *fault;      /* what is wrong: "33 x 130 -> 70, BF16: error 0.02, allowed 2e-06"; NULL: nothing */
    size_t peak;            /* bytes of the stack, in a rehearsal only */
} zi_case_finding;

typedef void zi_case_report(void *user, const zi_case_finding *finding);

/* How many cases there are; some of them are left out for some backends. */
int zi_cases_count(void);
/*
 * Runs the cases on a backend and reports each case that was run. Its stack is as before afterwards, and its weights
 * are forgotten. A wrong result, and an operation that fails, is a fault in a report; the status only says whether the
 * cases could be run (ZIMAGE_ERROR_MEMORY).
 */
zimage_status zi_cases_run(zi_ops *ops, const zi_cases_options *options, zi_case_report *report, void *user,
                           zimage_error *error);

/* Rows [rows][n] as products of that compute type see them: in bf16, or in int8 with one scale a row. */
void zi_cases_round_rows(zimage_compute compute, float *x, int64_t rows, int64_t n);

#endif
