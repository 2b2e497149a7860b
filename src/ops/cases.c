#include "ops/cases.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "ops/trial.h"

/* ---- the list ---------------------------------------------------------------------------------------------------- */

static const zi_case *const lists[] = {zi_cases_products, zi_cases_rows, zi_cases_images};

/* Calls visit for each case of the lists, one for each bit of `stored`, until it answers other than ZIMAGE_OK. */
static zimage_status each_case(zimage_status (*visit)(void *user, const zi_case *c, int index), void *user)
{
    int index = 0;
    for (size_t i = 0; i < sizeof(lists) / sizeof(lists[0]); i++)
        for (const zi_case *row = lists[i]; row->kind != NULL; row++) {
            zi_case c = *row;
            int left = row->stored;
            do {
                c.stored = left & -left; /* the lowest bit */
                left &= left - 1;
                ZI_TRY(visit(user, &c, index++));
            } while (left != 0);
        }
    return ZIMAGE_OK;
}

static zimage_status count_case(void *user, const zi_case *c, int index)
{
    *(int *)user = index + 1;
    return ZIMAGE_OK;
}

int zi_cases_count(void)
{
    int count = 0;
    (void)each_case(count_case, &count);
    return count;
}

static void append(char *text, size_t size, const char *more)
{
    size_t length = strlen(text);
    snprintf(text + length, size - length, ", %s", more);
}

/* What a case's name says of the bits of zi_stored, in their order, and of flags; the other flags add nothing. */
static const char *const format_names[] = {"F32", "F16", "BF16", "Q4", "Q4 of 64", "Q8", "Q6 of 128", "Q3 of 64"};
static const struct {
    int flag;
    const char *name;
} flag_names[] = {{UNALIGNED, "unaligned"},
                  {SHORT, "short"},
                  {VIEWS, "column views"},
                  {ODD_VIEWS, "odd column views"},
                  {BIAS, "bias"},
                  {ADD, "added"},
                  {IN_PLACE, "in place"},
                  {SEQUENCES, "two sequences"},
                  {WIDE, "wide"},
                  {WEIGHT, "weight"},
                  {SCALE, "scale"},
                  {SHIFT, "shift"},
                  {LAYER, "layer"},
                  {GATE, "gate"},
                  {PLAIN, "plain"},
                  {LAST, "last"},
                  {OTHER, "other form"},
                  {LARGE, "large"},
                  {CAUSAL, "causal"},
                  {DOUBLED, "doubled"},
                  {AFFINE, "affine"},
                  {STRIDE, "stride 2"},
                  {LOPSIDED, "one-sided padding"},
                  {BANDS, "bands"},
                  {POST_SCALE, "post scale"}};

/* "33 x 130 -> 70, BF16, bias" */
static void name_case(const zi_case *c, char *name, size_t size)
{
    snprintf(name, size, c->kind->format, c->size[0], c->size[1], c->size[2], c->size[3], c->size[4], c->size[5]);
    for (size_t i = 0; i < sizeof(format_names) / sizeof(format_names[0]); i++)
        if (c->stored >> i & 1)
            append(name, size, format_names[i]);
    for (size_t i = 0; i < sizeof(flag_names) / sizeof(flag_names[0]); i++)
        if (c->flags & flag_names[i].flag)
            append(name, size, flag_names[i].name);
}

/* ---- comparing --------------------------------------------------------------------------------------------------- */

/* The largest error, or the root mean square, as a share. */
static double error_of(const zi_trial_result *found, const zi_trial_result *expected)
{
    double worst = 0, largest = expected->scale, errors = 0, squares = 0;
    for (int64_t i = 0; i < expected->count; i++) {
        double right = (double)expected->values[i], difference = fabs((double)found->values[i] - right);
        if (!(difference <= worst))
            worst = isnan(difference) ? INFINITY : difference;
        if (expected->scale == 0)
            largest = fmax(largest, fabs(right));
        errors += difference * difference;
        squares += right * right;
    }
    if (expected->average)
        return isfinite(worst) ? sqrt(errors / squares) : INFINITY;
    return worst > 0 ? worst / largest : 0;
}

/* Sets error and bound of the result that comes closest to its bound, or goes furthest beyond it. */
static void compare(const zi_trial *found, const zi_trial *expected, zi_case_finding *finding)
{
    double closest = -1;
    for (int i = 0; i < expected->result_count && i < found->result_count; i++) {
        const zi_trial_result *result = &expected->results[i];
        double allowed = result->bound->allowed[found->precision], error = error_of(&found->results[i], result);
        if (error / allowed > closest) {
            closest = error / allowed;
            finding->error = error;
            finding->bound = allowed;
        }
    }
}

static int same_results(const zi_trial *a, const zi_trial *b)
{
    if (a->result_count != b->result_count)
        return 0;
    for (int i = 0; i < a->result_count; i++)
        if (memcmp(a->results[i].values, b->results[i].values, (size_t)a->results[i].count * sizeof(float)) != 0)
            return 0;
    return 1;
}

/* ---- running ----------------------------------------------------------------------------------------------------- */

typedef struct runner {
    const zi_cases_options *options;
    zi_trial *backend, *reference, *twin; /* twin: runs each of options->twins */
    zi_case_report *report;
    void *user;
    zimage_error *error;
} runner;

/* Runs a case on one backend up to its results. *fault: what is wrong, or NULL. */
static zimage_status run_operations(zi_trial *t, const zi_case *c, const char **fault)
{
    zi_trial_begin(t);
    t->error.status = ZIMAGE_OK;
    *fault = NULL;
    zimage_status status = c->kind->run(t, c);
    if (status == ZIMAGE_OK)
        status = zi_trial_end(t, fault);
    if (status == ZIMAGE_OK || status == ZIMAGE_ERROR_MEMORY)
        return status;
    *fault = t->error.message;
    (void)zi_table(&t->run)->finish(&t->run); /* an error of the queue is of this case, too */
    return ZIMAGE_OK;
}

/* The stack is as before afterwards; host memory with the results stays in use. */
static zimage_status run_trial(zi_trial *t, const zi_case *c, const char **fault)
{
    zi_arena_mark mark = zi_table(&t->run)->mark(&t->run);
    zimage_status status = run_operations(t, c, fault);
    zi_table(&t->run)->release(&t->run, mark);
    if (status == ZIMAGE_OK)
        status = zi_table(&t->run)->forget_weights(&t->run);
    return status;
}

static zimage_status rehearse(runner *r, const zi_case *c, zi_case_finding *finding, const char **fault)
{
    zi_run *run = &r->backend->run;
    ZI_TRY(zi_table(run)->rehearse_begin(run));
    zimage_status status = run_operations(r->backend, c, fault);
    if (status == ZIMAGE_OK)
        status = zi_table(run)->rehearse_stage(run, 0, &finding->peak);
    zi_table(run)->rehearse_end(run);
    return status;
}

/* On the backend, on the reference, on the twins. *fault: see run_operations. */
static zimage_status run_everywhere(runner *r, const zi_case *c, zi_case_finding *finding, const char **fault)
{
    if (r->options->rehearse)
        return rehearse(r, c, finding, fault);
    ZI_TRY(run_trial(r->backend, c, fault));
    if (*fault != NULL)
        return ZIMAGE_OK;
    ZI_TRY(run_trial(r->reference, c, fault));
    if (*fault != NULL)
        return ZIMAGE_OK;
    compare(r->backend, r->reference, finding);
    for (int i = 0; i < r->options->twin_count && *fault == NULL; i++) {
        r->twin->run.ops = r->options->twins[i];
        zi_arena_mark mark = zi_arena_get_mark(r->twin->host);
        zimage_status status = run_trial(r->twin, c, fault);
        if (status == ZIMAGE_OK && *fault == NULL && !same_results(r->backend, r->twin))
            *fault = "other bits with another number of threads";
        zi_arena_release(r->twin->host, mark);
        ZI_TRY(status);
    }
    return ZIMAGE_OK;
}

static int is_left_out(const runner *r, const zi_case *c, int index)
{
    const zi_cases_options *o = r->options;
    return c->kind->bound->allowed[r->backend->precision] == 0 || (o->quick && c->flags & SLOW) ||
           (o->group != NULL && strcmp(o->group, c->kind->group) != 0) || index < o->first ||
           (o->count > 0 && index >= o->first + o->count) ||
           (r->backend->precision == ZI_PRECISION_INT8 && c->stored > DENSE); /* int8 would round groups near ties */
}

static const zimage_error *failed_of(const runner *r)
{
    const zimage_error *backend = &r->backend->error, *reference = &r->reference->error;
    return backend->status != ZIMAGE_OK ? backend : reference->status != ZIMAGE_OK ? reference : &r->twin->error;
}

static zimage_status visit(void *user, const zi_case *c, int index)
{
    runner *r = user;
    char name[200], text[500];
    const char *fault = NULL;
    if (is_left_out(r, c, index))
        return ZIMAGE_OK;
    name_case(c, name, sizeof(name));
    zi_case_finding finding = {
        .index = index, .group = c->kind->group, .operations = c->kind->operations, .name = name};
    zi_arena_mark backend = zi_arena_get_mark(r->backend->host), reference = zi_arena_get_mark(r->reference->host);
    zimage_status status = run_everywhere(r, c, &finding, &fault);
    zi_arena_release(r->backend->host, backend);
    zi_arena_release(r->reference->host, reference);
    if (status != ZIMAGE_OK)
        return zi_fail(r->error, status, "%s: %s", name, failed_of(r)->message);
    if (fault != NULL)
        snprintf(text, sizeof(text), "%s: %s", name, fault);
    else if (!(finding.error <= finding.bound))
        snprintf(text, sizeof(text), "%s: error %.2g, allowed %.2g", name, finding.error, finding.bound);
    else
        text[0] = 0;
    finding.fault = text[0] != 0 ? text : NULL;
    r->report(r->user, &finding);
    return ZIMAGE_OK;
}

/* ---- opening ----------------------------------------------------------------------------------------------------- */

static zimage_status new_trial(zi_trial **t, const zi_cases_options *options, zi_ops *ops, zimage_error *error)
{
    *t = calloc(1, sizeof(**t));
    if (*t != NULL)
        (*t)->host = zi_arena_new();
    /* kept in use, so that the arena keeps its memory between cases */
    if (*t == NULL || (*t)->host == NULL || zi_arena_alloc((*t)->host, 1) == NULL)
        return zi_fail_memory(error, "the cases", sizeof(**t));
    (*t)->options = options;
    (*t)->run = (zi_run){.ops = ops, .error = &(*t)->error};
    (*t)->error = (zimage_error)ZIMAGE_ERROR_INIT;
    return ZIMAGE_OK;
}

static void free_trial(zi_trial *t)
{
    if (t != NULL)
        zi_arena_free(t->host);
    free(t);
}

/* From what the caller says of products and what type the backend's activations have. */
static zimage_status find_precision(zi_trial *t, zimage_error *error)
{
    zi_tensor probe;
    zi_arena_mark mark = zi_table(&t->run)->mark(&t->run);
    zimage_status status = zi_table(&t->run)->alloc(&t->run, &probe, ZI_SHAPE(1));
    zi_table(&t->run)->release(&t->run, mark);
    if (status != ZIMAGE_OK)
        return zi_fail(error, status, "%s", t->error.message);
    int stored = probe.dtype == ZI_BF16;
    switch (t->options->compute) {
    case ZIMAGE_COMPUTE_F32:
        t->precision = ZI_PRECISION_F32;
        return ZIMAGE_OK;
    case ZIMAGE_COMPUTE_BF16:
        t->precision = stored ? ZI_PRECISION_STORED : ZI_PRECISION_BF16;
        return ZIMAGE_OK;
    case ZIMAGE_COMPUTE_INT8:
        t->precision = ZI_PRECISION_INT8;
        return ZIMAGE_OK;
    case ZIMAGE_COMPUTE_FP8:
        t->precision = ZI_PRECISION_FP8;
        return ZIMAGE_OK;
    default:
        return zi_fail(error, ZIMAGE_ERROR_ARGUMENT, "compute: %d, expected a type that products are computed in",
                       (int)t->options->compute);
    }
}

static zimage_status open_trials(runner *r, zi_ops *ops, zi_ops *reference)
{
    ZI_TRY(new_trial(&r->backend, r->options, ops, r->error));
    ZI_TRY(new_trial(&r->reference, r->options, reference, r->error));
    ZI_TRY(new_trial(&r->twin, r->options, NULL, r->error));
    ZI_TRY(find_precision(r->backend, r->error));
    r->reference->reference = 1;
    r->reference->precision = r->twin->precision = r->backend->precision;
    return ZIMAGE_OK;
}

/* Keeps a block of the stack in use, as a job does, so that its memory is not mapped anew for each case. */
static zimage_status keep_stack(zi_run *run)
{
    zi_tensor kept;
    return zi_table(run)->alloc(run, &kept, ZI_SHAPE(1));
}

static zimage_status run_cases(runner *r)
{
    zi_run *run = &r->backend->run;
    zi_arena_mark mark = zi_table(run)->mark(run);
    zimage_status status = r->options->count == 1 ? ZIMAGE_OK : keep_stack(run);
    if (status == ZIMAGE_OK)
        status = keep_stack(&r->reference->run);
    if (status == ZIMAGE_OK)
        status = each_case(visit, r);
    zi_table(run)->release(run, mark);
    return status;
}

static zimage_status find_group(void *user, const zi_case *c, int index)
{
    const char **group = user;
    if (*group != NULL && strcmp(*group, c->kind->group) == 0)
        *group = NULL;
    return ZIMAGE_OK;
}

zimage_status zi_cases_run(zi_ops *ops, const zi_cases_options *options, zi_case_report *report, void *user,
                           zimage_error *error)
{
    zi_ops *reference = NULL;
    const char *group = options->group;
    (void)each_case(find_group, &group);
    if (group != NULL)
        return zi_fail(error, ZIMAGE_ERROR_ARGUMENT, "group: \"%s\" has no cases", group);
    runner r = {.options = options, .report = report, .user = user, .error = error};
    zimage_status status = zi_ops_reference_new(&reference, error);
    if (status == ZIMAGE_OK)
        status = open_trials(&r, ops, reference);
    if (status == ZIMAGE_OK)
        status = run_cases(&r);
    free_trial(r.backend);
    free_trial(r.reference);
    free_trial(r.twin);
    if (reference != NULL)
        reference->table->free(reference);
    return status;
}
