/* zimage devices: what this machine can compute with. */
#include <jansson.h>
#include <string.h>

#include "cli.h"
#include "shared/json_text.h"

#define COMMAND "devices"

static void get_device(const zimage_device_list *list, size_t index, zimage_device_info *info)
{
    *info = (zimage_device_info){.struct_size = sizeof *info};
    zimage_device_get(list, index, info, NULL); /* can't fail: the index is below the count */
}

static void get_kernel(const zimage_device_list *list, size_t index, zimage_kernel_info *info)
{
    *info = (zimage_kernel_info){.struct_size = sizeof *info};
    zimage_kernel_get(list, index, info, NULL);
}

static int is_cpu(const zimage_device_info *info)
{
    return !strcmp(info->device, "cpu");
}

/* ---- JSON ----
 *
 * {"cpu": {"model", "threads", "features": [name], "kernels": [{"name", "usable", "gops"}]},
 *  "cuda" and "mlx": {"devices": [{"device", "name", "capability", "bytes", "usable", "fault"}], "fault"}} */

static json_t *cpu_json(const zimage_device_list *list, const zimage_device_info *info)
{
    json_t *kernels = json_array();
    for (size_t i = 0; i < zimage_kernel_count(list); i++) {
        zimage_kernel_info kernel;
        get_kernel(list, i, &kernel);
        json_array_append_new(kernels, json_pack("{s:s, s:b, s:o}", "name", kernel.name, "usable", kernel.usable,
                                                 "gops", kernel.usable ? json_real(kernel.gops) : json_null()));
    }
    return json_pack("{s:o, s:i, s:o, s:o}", "model", json_of_text(info->name), "threads", info->threads, "features",
                     cli_names_json(info->cpu_features), "kernels", kernels);
}

/* Adds a device to those of its backend, whose name is the device's up to a colon. */
static void add_device_json(json_t *all, const zimage_device_info *info)
{
    char backend[sizeof info->device];
    snprintf(backend, sizeof backend, "%.*s", (int)strcspn(info->device, ":"), info->device);
    if (!json_object_get(all, backend))
        json_object_set_new(all, backend, json_pack("{s:[], s:n}", "devices", "fault"));
    json_t *entry = json_object_get(all, backend), *fault = *info->fault ? json_of_text(info->fault) : json_null();
    if (!*info->name)
        json_object_set_new(entry, "fault", fault);
    else
        json_array_append_new(json_object_get(entry, "devices"),
                              json_pack("{s:s, s:o, s:s, s:I, s:b, s:o}", "device", info->device, "name",
                                        json_of_text(info->name), "capability", info->capability, "bytes",
                                        (json_int_t)info->memory_bytes, "usable", info->usable, "fault", fault));
}

static int print_json(const zimage_device_list *list)
{
    json_t *all = json_object();
    for (size_t i = 0; i < zimage_device_count(list); i++) {
        zimage_device_info info;
        get_device(list, i, &info);
        if (is_cpu(&info))
            json_object_set_new(all, "cpu", cpu_json(list, &info));
        else
            add_device_json(all, &info);
    }
    return cli_print_json(COMMAND, all, CLI_MEASURED);
}

/* ---- text ---- */

static void print_cpu(const zimage_device_list *list, const zimage_device_info *info)
{
    cli_line(stdout, "cpu: %s, %d threads", info->name, info->threads);
    printf("features:");
    for (const char *c = *info->cpu_features ? info->cpu_features : "none", *end; *c; c = end + (*end == ',')) {
        end = c + strcspn(c, ",");
        printf(" %.*s", (int)(end - c), c);
    }
    printf("\nkernels:\n");
    for (size_t i = 0; i < zimage_kernel_count(list); i++) {
        zimage_kernel_info kernel;
        get_kernel(list, i, &kernel);
        if (kernel.usable)
            printf("  %-18s %8.1f Gop/s a thread\n", kernel.name, kernel.gops);
        else
            printf("  %-18s not usable with these features\n", kernel.name);
    }
}

static void print_gpu(const zimage_device_info *info)
{
    char memory[32] = "";
    if (info->memory_bytes)
        snprintf(memory, sizeof memory, ", %llu MiB", cli_mib(info->memory_bytes));
    if (*info->name)
        cli_line(stdout, "%s: %s%s%s%s%s%s", info->device, info->name, *info->capability ? ", compute capability " : "",
                 info->capability, memory, *info->fault ? ": " : "", info->fault);
    else
        cli_line(stdout, "%s: %s", info->device, info->fault);
}

static int print_readable(const zimage_device_list *list)
{
    for (size_t i = 0; i < zimage_device_count(list); i++) {
        zimage_device_info info;
        get_device(list, i, &info);
        if (is_cpu(&info))
            print_cpu(list, &info);
        else
            print_gpu(&info);
    }
    return 0;
}

int cmd_devices(const cli_options *o)
{
    zimage_error error = ZIMAGE_ERROR_INIT;
    zimage_device_list *list = NULL;
    if (zimage_devices(o->cpu_mask, &list, &error) != ZIMAGE_OK)
        return cli_option_failure(CLI_DEVICES, o, &error);
    int code = o->json ? print_json(list) : print_readable(list);
    zimage_device_list_free(list);
    return code;
}
