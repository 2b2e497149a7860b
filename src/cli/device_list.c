/* The devices of --device: a list of names, or all GPUs. */
#include "device_list.h"

#include <ctype.h>
#include <stdlib.h>
#include <string.h>

#include "cli.h"
#include "zimage.h"

/* Cuts a device off a list. A comma before a number is a part of its name. */
static char *next_device(char **rest)
{
    char *device = *rest, *comma = device;
    while ((comma = strchr(comma, ',')) && isdigit((unsigned char)comma[1]))
        comma++;
    if (comma)
        *comma++ = '\0';
    *rest = comma;
    return device;
}

static int split(cli_command_id command, const cli_options *o, cli_device_list *list)
{
    const char *name = cli_commands[command].name;
    for (char *rest = list->text; rest;) {
        char *device = next_device(&rest);
        if (!*device || list->count == CLI_DEVICES_MAX)
            return cli_usage_error(name, "--device: \"%s\", expected 1 to %d devices, separated by commas", o->device,
                                   CLI_DEVICES_MAX);
        for (int i = 0; i < list->count; i++)
            if (!strcmp(list->names[i], device))
                return cli_usage_error(name, "--device: \"%s\" names %s twice", o->device, device);
        list->names[list->count++] = device;
    }
    return 0;
}

/* Whether an option asks for what only the CPU has. Rules that are broken for a GPU are, since none is without it. */
static int needs_cpu(cli_command_id command, const cli_options *o)
{
    cli_options on_gpu = *o;
    on_gpu.device = "cuda";
    if (o->compute == ZIMAGE_COMPUTE_INT8)
        return 1;
    for (const cli_option *option = NULL; (option = cli_next(command, option));)
        if (cli_has(&o->given, option) && cli_broken_rule(command, option, &on_gpu))
            return 1;
    return 0;
}

/*
 * "cuda:0,cuda:2": the usable GPUs, in text [size]. Returns how many. The mask is the CPU's: so the speed of few
 * kernels is measured, since none is needed here.
 */
static int list_gpus(char *text, size_t size)
{
    zimage_device_list *found = NULL;
    zimage_device_info info = {.struct_size = sizeof info};
    size_t length = 0;
    int count = 0;
    if (zimage_devices("generic", &found, NULL) != ZIMAGE_OK)
        return 0; /* the session says why there is none */
    for (size_t i = 0; i < zimage_device_count(found) && count < CLI_DEVICES_MAX; i++) {
        if (zimage_device_get(found, i, &info, NULL) != ZIMAGE_OK || !info.usable ||
            strncmp(info.device, "cuda:", strlen("cuda:")) != 0 || length + sizeof info.device + 1 > size)
            continue;
        length += (size_t)snprintf(text + length, size - length, "%s%s", count ? "," : "", info.device);
        count++;
    }
    zimage_device_list_free(found);
    return count;
}

int cli_device_list_read(cli_command_id command, const cli_options *options, cli_device_list *list)
{
    char gpus[CLI_DEVICES_MAX * 32];
    const char *text = options->device;
    int is_open = !strcmp(text, "cuda") || (!strcmp(text, "auto") && !needs_cpu(command, options));
    if (is_open && list_gpus(gpus, sizeof gpus) > 1)
        text = gpus;
    *list = (cli_device_list){.text = strdup(text)};
    return list->text ? split(command, options, list)
                      : cli_usage_error(cli_commands[command].name, "no memory for --device");
}

void cli_device_list_free(cli_device_list *list)
{
    free(list->text);
    *list = (cli_device_list){0};
}
