#include "names.h"

#include <stddef.h>

#include "options.h"
#include "zimage.h"

/* The library's names; its _parse ends the list: it knows no value behind the last. */
#define LIBRARY_NAMES(kind)                                                                                            \
    const char *cli_##kind##_name(int value)                                                                           \
    {                                                                                                                  \
        zimage_##kind known;                                                                                           \
        const char *name = zimage_##kind##_name((zimage_##kind)value);                                                 \
        return zimage_##kind##_parse(name, &known) && (int)known == value ? name : NULL;                               \
    }

LIBRARY_NAMES(rng)
LIBRARY_NAMES(compute)
LIBRARY_NAMES(dequantize)
LIBRARY_NAMES(template)

const char *cli_shell_name(int value)
{
    static const char *const words[] = {"bash", "zsh", "fish"};
    return (unsigned)value < sizeof words / sizeof *words ? words[value] : NULL;
}

const char *cli_queue_action_name(int value)
{
    static const char *const words[] = {"init", "add", "status", "retry", "cancel", "export"};
    return (unsigned)value < sizeof words / sizeof *words ? words[value] : NULL;
}

const char *cli_log_format_name(int value)
{
    static const char *const words[] = {"text", "json"};
    return (unsigned)value < sizeof words / sizeof *words ? words[value] : NULL;
}

const char *cli_show_name(int value)
{
    static const char *const words[] = {"auto", "kitty", "iterm2", "sixel"};
    return (unsigned)value < sizeof words / sizeof *words ? words[value] : NULL;
}

const char *cli_bench_stage_name(int value)
{
    if (value == 0)
        return "all";
    return (unsigned)value <= ZIMAGE_BENCH_LOAD ? zimage_bench_stage_name((zimage_bench_stage)(value - 1)) : NULL;
}

const char *cli_command_name(int value)
{
    return (unsigned)value < CLI_COMMANDS ? cli_commands[value].name : NULL;
}
