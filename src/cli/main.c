#include <ctype.h>
#include <errno.h>
#ifdef __GLIBC__
#include <malloc.h>
#endif
#include <poll.h>
#include <string.h>
#include <unistd.h>

#include "cli.h"
#include "models.h"
#include "names.h"
#include "signals.h"

static int (*const run[CLI_COMMANDS])(const cli_options *options) = {
    [CLI_GENERATE] = cmd_generate,
    [CLI_INSPECT] = cmd_inspect,
    [CLI_BENCH] = cmd_bench,
    [CLI_DEVICES] = cmd_devices,
    [CLI_SELFTEST] = cmd_selftest,
    [CLI_TOKENIZE] = cmd_tokenize,
    [CLI_COMPLETION] = cmd_completion,
    [CLI_SERVE] = cmd_serve,
    [CLI_EXPLAIN] = cmd_explain,
    [CLI_RERUN] = cmd_rerun,
    [CLI_PULL] = cmd_pull,
    [CLI_MODELS] = cmd_models,
    [CLI_QUEUE] = cmd_queue,
    [CLI_WORK] = cmd_work,
    [CLI_WORDS] = cmd_words,
    [CLI_HELP] = cmd_help,
};

/* CLI_COMMANDS: there is no such command. */
static cli_command_id find_command(const char *name)
{
    int i = 0;
    while (i < CLI_COMMANDS && strcmp(name, cli_commands[i].name) != 0)
        i++;
    return (cli_command_id)i;
}

/* Whether the first argument begins a command line of generate: it is an option, or a text that is no single word.
 * (A single word may be a mistyped command.) */
static int begins_generate(const char *argument)
{
    int several = 0;
    for (const char *c = argument; *c; c++)
        several |= *c == ' ' || !isascii((unsigned char)*c);
    return several || (argument[0] == '-' && argument[1]);
}

static int unknown_command(const char *name)
{
    const char *similar = cli_similar_command(name);
    if (similar)
        cli_line(stderr, "zimage: there is no command \"%s\", did you mean %s? zimage --help lists them", name,
                 similar);
    else
        cli_line(stderr,
                 "zimage: there is no command \"%s\"; zimage --help lists them. If it is a prompt, write zimage "
                 "generate \"%s\"",
                 name, name);
    return CLI_USAGE;
}

int cmd_completion(const cli_options *options)
{
    cli_print_completion(cli_shell_name(options->shell));
    return 0;
}

int cmd_help(const cli_options *options)
{
    if (options->man)
        cli_print_man();
    else if (CLI_IS_GIVEN(options, command))
        cli_print_help((cli_command_id)options->command);
    else
        cli_print_overview(stdout);
    return 0;
}

/* "-" as in other programs. */
static void name_stream(const char **path, const char *device)
{
    if (*path && !strcmp(*path, "-"))
        *path = device;
}

static int run_command(cli_command_id command, int argc, char **argv)
{
    cli_options options = {0};
    int code = cli_parse(command, argc, argv, &options);
    if (code)
        return code;
    if (options.help) {
        cli_print_help(command);
        return 0;
    }
    name_stream(&options.output, "/dev/stdout");
    name_stream(&options.save_latents, "/dev/stdout");
    name_stream(&options.batch, "/dev/stdin");
    code = cli_check(command, &options);
    if (!code && command == CLI_GENERATE)
        code = cli_check_stdout(&options);
    if (!code)
        code = cli_find_models(command, &options);
    return code ? code : run[command](&options);
}

/* Whether nobody reads standard output any more. An earlier write that failed leaves no errno value. */
static int stdout_is_broken_pipe(int reason)
{
    struct pollfd out = {.fd = STDOUT_FILENO, .events = POLLOUT};
    return reason == EPIPE || (poll(&out, 1, 0) == 1 && (out.revents & POLLERR));
}

/* What was printed has to have arrived, or the work has failed. */
static int finish_output(int code)
{
    cli_flush_output();
    int failed = ferror(stdout) || cli_output_error(), reason = cli_output_error();
    if (failed && stdout_is_broken_pipe(reason))
        cli_end_by_pipe();
    if (!failed) {
        failed = close(STDOUT_FILENO) != 0; /* a network's file system may report here that the disk is full */
        reason = errno;
    }
    if (!failed)
        return code;
    fprintf(stderr, "zimage: can't write to standard output: %s\n",
            reason ? strerror(reason) : "an earlier write failed");
    return code ? code : CLI_FAILURE;
}

/* Most functions of the library fail if a part of a file was lost. This is for the others. */
static int finish(int code)
{
    const char *path = cli_lost_file();
    if (!code && path) {
        (void)cli_usage_error("files", "%s: a part of the file was lost while it was in use", path);
        code = CLI_FAILURE;
    }
    return finish_output(code);
}

/*
 * Large blocks go back to the system when they are freed, also after larger ones were freed: glibc would raise this
 * limit then, and keep up to 64 MiB. A plan counts what is in use, and input images are decoded before the plan.
 */
static void return_freed_memory(void)
{
#ifdef __GLIBC__
    mallopt(M_MMAP_THRESHOLD, 128 << 10);
#endif
}

int main(int argc, char **argv)
{
    return_freed_memory();
    cli_open_standard_files();
    if (!cli_stack_begin())
        return CLI_FAILURE;
    cli_signals_begin();
    if (argc < 2) {
        cli_print_overview(stderr);
        return CLI_USAGE;
    }
    if (!strcmp(argv[1], "--help") || !strcmp(argv[1], "-h")) {
        cli_print_overview(stdout);
        return finish_output(0);
    }
    if (!strcmp(argv[1], "--version") || !strcmp(argv[1], "-V")) {
        printf("zimage %s\n", zimage_version());
        return finish_output(0);
    }
    cli_command_id command = find_command(argv[1]);
    if (command == CLI_COMMANDS && begins_generate(argv[1]))
        return finish(run_command(CLI_GENERATE, argc - 1, argv + 1));
    return command == CLI_COMMANDS ? unknown_command(argv[1]) : finish(run_command(command, argc - 2, argv + 2));
}
