#include "signals.h"

#include <errno.h>
#include <limits.h>
#include <signal.h>
#include <stdatomic.h>
#include <stddef.h>
#include <string.h>
#include <unistd.h>

#include "zimage.h"

static const int stopping[] = {SIGINT, SIGTERM, SIGHUP, SIGXCPU};
/* Others that end a process: sent from elsewhere, or faults of the program itself. */
static const int ending[] = {SIGQUIT, SIGUSR1, SIGUSR2, SIGALRM, SIGVTALRM, SIGPROF,
                             SIGABRT, SIGSEGV, SIGFPE,  SIGILL,  SIGSYS,    SIGTRAP,
#if defined(SIGEMT) /* macOS */
                             SIGEMT
#endif
};

#define COUNT(list) (sizeof(list) / sizeof *(list))

static volatile sig_atomic_t caught, reload, pipe_was_ignored;
static char lost_path[PATH_MAX];
static atomic_int lost; /* 1: lost_path is being written, 2: it is complete */
static struct sigaction bus_before;

/* Sets a handler, unless the signal is ignored or belongs to a sanitizer, whose handlers have SA_SIGINFO. */
static void handle(int signal_number, void (*handler)(int), int flags)
{
    struct sigaction before, action = {.sa_handler = handler, .sa_flags = flags};
    sigemptyset(&action.sa_mask);
    if (sigaction(signal_number, NULL, &before) == 0 && !(before.sa_flags & SA_SIGINFO) && before.sa_handler != SIG_IGN)
        sigaction(signal_number, &action, NULL);
}

/* With SA_RESETHAND and SA_NODEFER: the signal has its default action again, and raise ends the process. */
static void on_end(int signal_number)
{
    zimage_remove_temporary_files();
    signal(signal_number, SIG_DFL);
    raise(signal_number);
}

static void on_stop(int signal_number)
{
    if (caught)
        on_end(signal_number);
    caught = signal_number;
}

static void keep_lost_path(const char *path)
{
    int expected = 0;
    if (!atomic_compare_exchange_strong(&lost, &expected, 1))
        return;
    strncpy(lost_path, path, sizeof lost_path - 1);
    atomic_store(&lost, 2);
}

/* Whether a process sent the signal. On macOS nothing says so: each SIGBUS has the code of a fault, and the address of
 * the thread's last one (xnu: sendsig). */
static int may_be_sent(const siginfo_t *info)
{
#if defined(__APPLE__)
    return 1;
#else
    return info->si_code <= 0;
#endif
}

/* A lost page becomes zeros, and the work goes on until the library reports the file. Another SIGBUS is a fault of the
 * program: the handler before (a sanitizer's) or the default action gets the repeated access. */
static void on_bus_error(int signal_number, siginfo_t *info, void *context)
{
    int code = errno;
    const char *path = info->si_code > 0 ? zimage_replace_lost_pages(info->si_addr) : NULL;
    (void)context;
    if (path) {
        keep_lost_path(path);
    } else {
        zimage_remove_temporary_files();
        sigaction(signal_number, &bus_before, NULL);
        if (may_be_sent(info)) /* then nothing repeats it */
            raise(signal_number);
    }
    errno = code;
}

static void catch_bus_errors(void)
{
    struct sigaction action = {.sa_sigaction = on_bus_error, .sa_flags = SA_SIGINFO};
    sigemptyset(&action.sa_mask);
    sigaction(SIGBUS, &action, &bus_before);
}

void cli_signals_begin(void)
{
    struct sigaction before;
    pipe_was_ignored = sigaction(SIGPIPE, NULL, &before) == 0 && before.sa_handler == SIG_IGN;
    signal(SIGPIPE, SIG_IGN);
    signal(SIGXFSZ, SIG_IGN);
    for (size_t i = 0; i < COUNT(stopping); i++)
        handle(stopping[i], on_end, (int)(SA_RESETHAND | SA_NODEFER));
    for (size_t i = 0; i < COUNT(ending); i++)
        handle(ending[i], on_end, (int)(SA_RESETHAND | SA_NODEFER));
    catch_bus_errors();
}

void cli_signals_catch(void)
{
    for (size_t i = 0; i < COUNT(stopping); i++)
        handle(stopping[i], on_stop, SA_NODEFER);
}

static void on_reload(int signal_number)
{
    reload = signal_number;
}

void cli_signals_catch_reload(void)
{
    struct sigaction action = {.sa_handler = on_reload};
    sigemptyset(&action.sa_mask);
    sigaction(SIGHUP, &action, NULL); /* also where it was ignored: a service's SIGHUP is meant */
}

int cli_reload_caught(void)
{
    int was = reload != 0;
    if (was)
        reload = 0;
    return was;
}

int cli_signal_caught(void)
{
    return caught;
}

int cli_signal_code(int code)
{
    return caught ? 128 + caught : code;
}

const char *cli_lost_file(void)
{
    return atomic_load(&lost) == 2 ? lost_path : NULL;
}

void cli_end_by_pipe(void)
{
    if (pipe_was_ignored)
        return;
    zimage_remove_temporary_files();
    signal(SIGPIPE, SIG_DFL);
    raise(SIGPIPE);
}
