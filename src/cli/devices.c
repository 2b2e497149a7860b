/* zimage devices: what this machine can compute with. */
#include <jansson.h>

#include "cli.h"

#define COMMAND "devices"

static void print_gpus(const json_t *cuda)
{
    const json_t *gpus = json_object_get(cuda, "devices");
    const char *fault = json_string_value(json_object_get(cuda, "fault"));
    for (size_t i = 0; i < json_array_size(gpus); i++) {
        const json_t *gpu = json_array_get(gpus, i);
        const char *why = json_string_value(json_object_get(gpu, "fault"));
        printf("%s: %s, compute capability %s, %llu MiB%s%s\n", json_string_value(json_object_get(gpu, "device")),
               json_string_value(json_object_get(gpu, "name")), json_string_value(json_object_get(gpu, "capability")),
               cli_mib((uint64_t)json_integer_value(json_object_get(gpu, "bytes"))), why ? ": " : "", why ? why : "");
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
    print_gpus(json_object_get(root, "cuda"));
    json_decref(root);
    return 0;
}

int cmd_devices(const cli_options *o)
{
    zimage_error error = ZIMAGE_ERROR_INIT;
    char *json = NULL;
    if (zimage_devices(o->cpu_mask, &json, &error) != ZIMAGE_OK)
        return cli_failure(COMMAND, &error);
    int code = o->json ? (puts(json) < 0 ? CLI_FAILURE : 0) : print_readable(json);
    zimage_free(json);
    return code;
}
