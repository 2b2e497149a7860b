/* What the program asks the operating system for; Linux and macOS have a branch each. */
#include <fcntl.h>
#include <limits.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#if defined(__APPLE__)
#include <mach-o/dyld.h>
#endif

#include "cli.h"
#include "shared/own_cache.h"

int cli_program_path(char *path, size_t size)
{
    char resolved[PATH_MAX];
#if defined(__APPLE__)
    char named[PATH_MAX];
    uint32_t capacity = sizeof named;
    if (_NSGetExecutablePath(named, &capacity) != 0 || !realpath(named, resolved))
        return 0;
#else
    ssize_t length = readlink("/proc/self/exe", resolved, sizeof resolved - 1);
    if (length <= 0)
        return 0;
    resolved[length] = 0;
#endif
    return snprintf(path, size, "%s", resolved) < (int)size;
}

#define STACK_NEEDED ((rlim_t)1 << 20)
#define STACK_WANTED ((rlim_t)8 << 20)

int cli_stack_begin(void)
{
    struct rlimit limit;
    if (getrlimit(RLIMIT_STACK, &limit) != 0 || limit.rlim_cur >= STACK_WANTED) /* RLIM_INFINITY is the largest */
        return 1;
    limit.rlim_cur = limit.rlim_max < STACK_WANTED ? limit.rlim_max : STACK_WANTED;
    if (limit.rlim_cur >= STACK_NEEDED && setrlimit(RLIMIT_STACK, &limit) == 0)
        return 1;
    fprintf(stderr, "zimage: ulimit -s: the stack may have %llu KiB, expected at least %llu KiB\n",
            (unsigned long long)(limit.rlim_max >> 10), (unsigned long long)(STACK_NEEDED >> 10));
    return 0;
}

void cli_open_standard_files(void)
{
    static const int modes[] = {O_WRONLY, O_RDONLY, O_WRONLY}; /* so that reading 0 and writing 1 fail */
    for (int fd = 0; fd < 3; fd++)
        if (fcntl(fd, F_GETFD) < 0 && open("/dev/null", modes[fd]) != fd)
            return; /* there is no /dev/null */
}

int cli_is_stdout(const char *path)
{
    static const char *const names[] = {"/dev/stdout", "/dev/fd/1", "/proc/self/fd/1"};
    struct stat named, standard;
    for (size_t i = 0; i < sizeof names / sizeof *names; i++)
        if (!strcmp(path, names[i]))
            return 1;
    if (stat(path, &named) != 0 || fstat(STDOUT_FILENO, &standard) != 0)
        return 0;
    return (S_ISFIFO(named.st_mode) || isatty(STDOUT_FILENO)) && named.st_dev == standard.st_dev &&
           named.st_ino == standard.st_ino;
}

int cli_check_stdout(const cli_options *o)
{
    int image = o->output && !o->batch && cli_is_stdout(o->output);
    int latents = o->save_latents && cli_is_stdout(o->save_latents);
    if (image && latents)
        return cli_usage_error("generate", "--output and --save-latents: both name standard output");
    if (!image && !latents)
        return 0;
    const char *option = image ? "--output" : "--save-latents";
    if (o->json)
        return cli_usage_error("generate", "%s: standard output can't hold it beside the object of --json", option);
    if (CLI_IS_GIVEN(o, show))
        return cli_usage_error("generate", "%s: standard output can't hold it beside what --show draws", option);
    if (image && o->count > 1)
        return cli_usage_error("generate", "--output: standard output can hold one image only, not the %lld of --count",
                               (long long)o->count);
    if (isatty(STDOUT_FILENO))
        return cli_usage_error("generate", "%s: standard output is a terminal, expected a pipe or a file", option);
    return 0;
}

double cli_seconds_now(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec + 1e-9 * (double)t.tv_nsec;
}

const char *cli_cache_folder(const cli_options *options)
{
    static char folder[PATH_MAX];
    if (options->no_cache)
        return NULL;
    if (options->cache_dir)
        return options->cache_dir;
    return own_cache_folder(folder) ? folder : NULL;
}
