/* zimage selftest: whether this program computes correctly on this machine. */
#include <jansson.h>
#include <math.h>
#include <string.h>

#include "cli.h"
#include "shared/json_text.h"

#define COMMAND "selftest"

/* What was found, as --json prints it:
 * {"passed", "kernels": [{"name", "usable", "passed", "max_error", "checks": [{"name", "passed", "max_error"}],
 *                         "image": {"passed", "mean_difference", "largest_difference"}, "faults": [text]}], "seconds"}
 * The first of the kernels is "reference", plain C itself. What was not checked is null. */
typedef struct findings {
    const cli_options *options;
    json_t *kernels;
} findings;

static json_t *real_or_null(double value)
{
    return isfinite(value) ? json_real(value) : json_null();
}

/* The entry of that name in a list of objects; NULL: there is none. */
static json_t *find_entry(const json_t *list, const char *name)
{
    for (size_t i = 0; i < json_array_size(list); i++) {
        json_t *entry = json_array_get(list, i);
        if (!strcmp(json_string_value(json_object_get(entry, "name")), name))
            return entry;
    }
    return NULL;
}

/* The largest error so far: null is what is not finite, and stays. */
static void raise_error(json_t *entry, double error)
{
    const json_t *before = json_object_get(entry, "max_error");
    if (!json_is_null(before) && !(error <= json_number_value(before)))
        json_object_set_new(entry, "max_error", real_or_null(error));
}

static void add_operation(json_t *set, const zimage_check *check)
{
    json_t *checks = json_object_get(set, "checks"), *entry = find_entry(checks, check->name);
    if (!entry) {
        json_array_append_new(checks, json_pack("{s:s, s:b, s:f}", "name", check->name, "passed", 1, "max_error", 0.0));
        entry = find_entry(checks, check->name);
        if (json_array_size(checks) == 1) /* the first */
            json_object_set_new(set, "max_error", json_real(0));
    }
    if (!entry)
        return; /* no memory: cli_print_json says so */
    if (!check->passed)
        json_object_set_new(entry, "passed", json_false());
    raise_error(set, check->error);
    raise_error(entry, check->error);
}

static void on_check(const zimage_check *check, void *user)
{
    findings *f = user;
    json_t *set = find_entry(f->kernels, check->kernels);
    if (!set) {
        json_array_append_new(f->kernels,
                              json_pack("{s:s, s:b, s:o, s:n, s:[], s:n, s:[]}", "name", check->kernels, "usable",
                                        check->usable, "passed", check->usable ? json_true() : json_null(), "max_error",
                                        "checks", "image", "faults"));
        set = find_entry(f->kernels, check->kernels);
    }
    if (!strcmp(check->name, "begin")) {
        if (f->options->verbose && check->usable)
            cli_line(stderr, "zimage: checking %s", check->kernels);
        return;
    }
    if (!check->passed)
        json_object_set_new(set, "passed", json_false());
    if (check->fault)
        json_array_append_new(json_object_get(set, "faults"), json_of_text(check->fault));
    if (!strcmp(check->name, "image"))
        json_object_set_new(set, "image",
                            json_pack("{s:b, s:o, s:o}", "passed", check->passed, "mean_difference",
                                      real_or_null(check->error), "largest_difference",
                                      isfinite(check->error) ? json_integer((json_int_t)check->largest) : json_null()));
    else
        add_operation(set, check);
}

/* ---- text ---- */

static const char *verdict(const json_t *result)
{
    return json_is_true(json_object_get(result, "passed")) ? "ok" : "WRONG";
}

static void print_set(const json_t *set)
{
    const json_t *checks = json_object_get(set, "checks"), *max_error = json_object_get(set, "max_error");
    printf("%s:", json_string_value(json_object_get(set, "name")));
    if (!json_is_true(json_object_get(set, "usable"))) {
        printf(" not usable with these features\n");
        return;
    }
    for (size_t i = 0; i < json_array_size(checks); i++) {
        const json_t *check = json_array_get(checks, i);
        printf(" %s %s,", json_string_value(json_object_get(check, "name")), verdict(check));
    }
    if (!json_is_null(json_object_get(set, "image")))
        printf(" image %s", verdict(json_object_get(set, "image")));
    if (json_is_number(max_error))
        printf(" (max error %.2g)", json_number_value(max_error));
    printf("\n");
}

static void print_readable(const json_t *sets, int passed, double seconds)
{
    for (size_t i = 0; i < json_array_size(sets); i++)
        print_set(json_array_get(sets, i));
    for (size_t i = 0; i < json_array_size(sets); i++) {
        const json_t *set = json_array_get(sets, i), *faults = json_object_get(set, "faults");
        for (size_t k = 0; k < json_array_size(faults); k++)
            cli_line(stdout, "FAILED %s: %s", json_string_value(json_object_get(set, "name")),
                     json_string_value(json_array_get(faults, k)));
    }
    printf("%s in %.1f s\n", passed ? "everything is correct" : "NOT CORRECT", seconds);
}

int cmd_selftest(const cli_options *o)
{
    zimage_error error = ZIMAGE_ERROR_INIT;
    findings f = {o, json_array()};
    int32_t passed = 0;
    const zimage_selftest_params params = {sizeof params, o->device, o->cpu_mask, on_check, &f};
    double start = cli_seconds_now();
    if (zimage_selftest(&params, &passed, &error) != ZIMAGE_OK) {
        json_decref(f.kernels);
        return cli_option_failure(CLI_SELFTEST, o, &error);
    }
    double seconds = cli_seconds_now() - start;
    int code = 0;
    if (o->json) {
        json_t *all = json_pack("{s:b, s:o, s:f}", "passed", passed, "kernels", f.kernels, "seconds", seconds);
        code = cli_print_json(COMMAND, all, CLI_MEASURED);
    } else {
        print_readable(f.kernels, passed, seconds);
        json_decref(f.kernels);
    }
    return passed ? code : CLI_FAILURE;
}
