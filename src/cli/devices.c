/* zimage devices: what this machine can compute with. */
#include <getopt.h>
#include <jansson.h>
#include <stdlib.h>
#include <string.h>

#include "cli.h"

#define COMMAND "devices"

static const char help[] =
    "usage: zimage devices [--cpu-mask LIST] [--json]\n"
    "\n"
    "Lists the processor's features that matter here and the kernels this build knows, with the speed of one thread\n"
    "on operands in its first cache, measured now; then the CUDA cards, or why none can be used.\n"
    "\n"
    "      --cpu-mask LIST  as if the processor had these features only, e.g. avx2,avx512 (generic: none)\n"
    "      --json           print one JSON object\n"
    "  -h, --help\n";

static void print_cards(const json_t *cuda)
{
    const json_t *cards = json_object_get(cuda, "devices");
    const char *fault = json_string_value(json_object_get(cuda, "fault"));
    for (size_t i = 0; i < json_array_size(cards); i++) {
        const json_t *card = json_array_get(cards, i);
        const char *why = json_string_value(json_object_get(card, "fault"));
        printf("%s: %s, compute capability %s, %llu MiB%s%s\n", json_string_value(json_object_get(card, "device")),
               json_string_value(json_object_get(card, "name")), json_string_value(json_object_get(card, "capability")),
               cli_mib((uint64_t)json_integer_value(json_object_get(card, "bytes"))), why ? ": " : "", why ? why : "");
    }
    if (fault)
        printf("cuda: %s\n", fault);
}

static int print_readable(const char *json)
{
    json_t *root = json_loads(json, 0, NULL);
    if (!root) {
        fprintf(stderr, "zimage devices: out of memory\n");
        return CLI_FAILURE;
    }
    const json_t *cpu = json_object_get(root, "cpu"), *features = json_object_get(cpu, "features");
    const json_t *kernels = json_object_get(cpu, "kernels");
    printf("cpu: %s, %lld threads\nfeatures:", json_string_value(json_object_get(cpu, "model")),
           (long long)json_integer_value(json_object_get(cpu, "threads")));
    for (size_t i = 0; i < json_array_size(features); i++)
        printf(" %s", json_string_value(json_array_get(features, i)));
    printf("%s\nkernels:\n", json_array_size(features) ? "" : " none");
    for (size_t i = 0; i < json_array_size(kernels); i++) {
        const json_t *k = json_array_get(kernels, i);
        printf("  %-18s", json_string_value(json_object_get(k, "name")));
        if (json_is_true(json_object_get(k, "usable")))
            printf(" %8.1f Gop/s a thread\n", json_number_value(json_object_get(k, "gops")));
        else
            printf(" not with these features\n");
    }
    print_cards(json_object_get(root, "cuda"));
    json_decref(root);
    return 0;
}

int cmd_devices(int argc, char **argv)
{
    static const struct option long_options[] = {{"cpu-mask", required_argument, NULL, 'm'},
                                                 {"json", no_argument, NULL, 'j'},
                                                 {"help", no_argument, NULL, 'h'},
                                                 {NULL, 0, NULL, 0}};
    const char *mask = NULL;
    int option, as_json = 0;
    while ((option = getopt_long(argc, argv, "h", long_options, NULL)) != -1) {
        if (option == 'h') {
            fputs(help, stdout);
            return 0;
        }
        if (option == 'm')
            mask = optarg;
        else if (option == 'j')
            as_json = 1;
        else
            return CLI_USAGE;
    }
    if (optind < argc)
        return cli_usage_error(COMMAND, "\"%s\": unexpected", argv[optind]);
    zimage_error error = ZIMAGE_ERROR_INIT;
    char *json = NULL;
    if (zimage_devices(mask, &json, &error) != ZIMAGE_OK)
        return cli_failure(COMMAND, &error);
    int code = as_json ? (puts(json) < 0 ? CLI_FAILURE : 0) : print_readable(json);
    zimage_free(json);
    return code;
}
