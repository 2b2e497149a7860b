#include <string.h>

#include "cli.h"

static const struct {
    const char *name, *summary;
    int (*run)(int argc, char **argv);
} commands[] = {
    {"generate", "make a picture from a prompt", cmd_generate},
    {"inspect", "print a model's configuration and tensors", cmd_inspect},
    {"bench", "time a model's stages on this machine", cmd_bench},
    {"devices", "list what this machine can compute with", cmd_devices},
    {"selftest", "check that this machine computes rightly", cmd_selftest},
    {"tokenize", "print the token ids of a text", cmd_tokenize},
};

static void print_help(FILE *file)
{
    fprintf(file, "usage: zimage COMMAND [OPTIONS]\n\nText-to-image with Z-Image models.\n\ncommands:\n");
    for (size_t i = 0; i < sizeof commands / sizeof *commands; i++)
        fprintf(file, "  %-10s %s\n", commands[i].name, commands[i].summary);
    fprintf(file, "\n  zimage COMMAND --help   options of a command\n  zimage --version        version\n\n"
                  "first picture: zimage generate \"a red apple\"\n");
}

int main(int argc, char **argv)
{
    if (argc < 2) {
        print_help(stderr);
        return CLI_USAGE;
    }
    if (!strcmp(argv[1], "--help") || !strcmp(argv[1], "-h") || !strcmp(argv[1], "help")) {
        print_help(stdout);
        return 0;
    }
    if (!strcmp(argv[1], "--version")) {
        printf("zimage %s\n", zimage_version());
        return 0;
    }
    for (size_t i = 0; i < sizeof commands / sizeof *commands; i++)
        if (!strcmp(argv[1], commands[i].name))
            return commands[i].run(argc - 1, argv + 1);
    fprintf(stderr, "zimage: there is no command \"%s\"; zimage --help lists them\n", argv[1]);
    return CLI_USAGE;
}
