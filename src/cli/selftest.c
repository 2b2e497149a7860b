/* zimage selftest: whether this program computes rightly on this machine. */
#include <jansson.h>

#include "cli.h"

#define COMMAND "selftest"

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
    printf(" image %s", verdict(json_object_get(set, "picture")));
    if (json_is_number(max_error))
        printf(" (max error %.2g)", json_number_value(max_error));
    printf("\n");
}

static int print_readable(const json_t *all)
{
    const json_t *sets = json_object_get(all, "kernels");
    for (size_t i = 0; i < json_array_size(sets); i++)
        print_set(json_array_get(sets, i));
    for (size_t i = 0; i < json_array_size(sets); i++) {
        const json_t *set = json_array_get(sets, i), *faults = json_object_get(set, "faults");
        for (size_t k = 0; k < json_array_size(faults); k++)
            printf("FAILED %s: %s\n", json_string_value(json_object_get(set, "name")),
                   json_string_value(json_array_get(faults, k)));
    }
    return printf("%s in %.1f s\n",
                  json_is_true(json_object_get(all, "passed")) ? "everything is correct" : "NOT CORRECT",
                  json_number_value(json_object_get(all, "seconds")));
}

static int report(const char *json, int as_json)
{
    json_t *all = json_loads(json, 0, NULL);
    int printed = as_json ? puts(json) : all ? print_readable(all) : -1;
    int correct = json_is_true(json_object_get(all, "passed"));
    json_decref(all);
    return printed >= 0 && correct ? 0 : CLI_FAILURE;
}

int cmd_selftest(const cli_options *o)
{
    zimage_error error = ZIMAGE_ERROR_INIT;
    char *json = NULL;
    if (zimage_selftest(o->cpu_mask, o->verbose ? cli_log : NULL, NULL, &json, &error) != ZIMAGE_OK)
        return cli_failure(COMMAND, &error);
    int code = report(json, o->json);
    zimage_free(json);
    return code;
}
