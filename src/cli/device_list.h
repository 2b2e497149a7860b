/* The devices of --device, each of which makes images by itself. */
#ifndef ZI_CLI_DEVICE_LIST_H
#define ZI_CLI_DEVICE_LIST_H

#include "options.h"

#define CLI_DEVICES_MAX 16

typedef struct cli_device_list {
    int count;
    const char *names[CLI_DEVICES_MAX]; /* for zimage_session_params; they point into text */
    char *text;
} cli_device_list;

/* "cuda:0,cuda:1" are two devices. "cuda:0,1" is one: two GPUs that make an image together. "cuda" is every usable
 * NVIDIA GPU if there are several, and so is "auto" where no option asks for the CPU. 0, or an exit code after a
 * message. The list is released with cli_device_list_free, also after a failure. */
int cli_device_list_read(cli_command_id command, const cli_options *options, cli_device_list *list);
void cli_device_list_free(cli_device_list *list);

#endif
