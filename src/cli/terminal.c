#include "terminal.h"

#include <fcntl.h>
#include <poll.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <termios.h>
#include <unistd.h>

#include "cli.h"

#define COLUMNS        80 /* of a terminal that does not say its size */
#define ROWS           24
#define ANSWER_SECONDS 0.25
#define ANSWER_MAX     512

terminal_size terminal_get_size(int fd)
{
    struct winsize size;
    if (ioctl(fd, TIOCGWINSZ, &size) != 0)
        return (terminal_size){COLUMNS, ROWS, 0, 0};
    return (terminal_size){size.ws_col ? size.ws_col : COLUMNS, size.ws_row ? size.ws_row : ROWS, size.ws_xpixel,
                           size.ws_ypixel};
}

int terminal_is_one(int fd)
{
    const char *kind = getenv("TERM");
    return isatty(fd) && !(kind && !strcmp(kind, "dumb"));
}

/* ---- variables --------------------------------------------------------------------------------------------------- */

static int begins(const char *variable, const char *begin)
{
    const char *value = getenv(variable);
    return value && !strncmp(value, begin, strlen(begin));
}

/* TERMINAL_AUTO: they don't say. tmux and screen inherit variables of a terminal that does not get what they draw. */
static terminal_protocol by_variables(void)
{
    if (begins("TERM", "tmux") || begins("TERM", "screen"))
        return TERMINAL_AUTO;
    if (getenv("KITTY_WINDOW_ID") || begins("TERM", "xterm-kitty") || begins("TERM", "xterm-ghostty") ||
        begins("TERM_PROGRAM", "ghostty"))
        return TERMINAL_KITTY;
    if (begins("TERM_PROGRAM", "iTerm") || begins("LC_TERMINAL", "iTerm2") || begins("TERM_PROGRAM", "mintty") ||
        begins("TERM_PROGRAM", "vscode"))
        return TERMINAL_ITERM2;
    return TERMINAL_AUTO;
}

/* ---- questions --------------------------------------------------------------------------------------------------- */

/*
 * Kitty's protocol has a question whether a picture of one pixel could be shown. Every terminal answers the second
 * question, for its attributes, of which 4 means sixels: when that answer is there, no other one will follow.
 */
static const char questions[] = "\033_Gi=31,s=1,v=1,a=q,t=d,f=24;AAAA\033\\\033[c";

terminal_protocol terminal_read_answer(const char *answer)
{
    const char *attributes = strstr(answer, "\033[?"), *end = attributes ? strchr(attributes, 'c') : NULL;
    if (!end)
        return TERMINAL_AUTO;
    if (strstr(answer, "\033_Gi=31;OK"))
        return TERMINAL_KITTY;
    for (const char *c = attributes; c < end; c++) /* "62;4;22c" */
        if (*c == ';' && c[1] == '4' && (c[2] == ';' || c[2] == 'c'))
            return TERMINAL_SIXEL;
    return TERMINAL_NONE;
}

/* Reads until an answer is complete. TERMINAL_AUTO: the time was over before. */
static terminal_protocol read_answer(int fd)
{
    char answer[ANSWER_MAX] = "";
    size_t length = 0;
    terminal_protocol found = TERMINAL_AUTO;
    double end = cli_seconds_now() + ANSWER_SECONDS;
    for (double left; found == TERMINAL_AUTO && length + 1 < sizeof answer && (left = end - cli_seconds_now()) > 0;) {
        struct pollfd in = {.fd = fd, .events = POLLIN};
        if (poll(&in, 1, (int)(left * 1000) + 1) <= 0)
            break;
        ssize_t more = read(fd, answer + length, sizeof answer - 1 - length);
        if (more <= 0)
            break;
        length += (size_t)more;
        answer[length] = 0;
        found = terminal_read_answer(answer);
    }
    return found;
}

/* A program in the background would be stopped when it changes the terminal. */
static int is_in_foreground(int fd)
{
    return tcgetpgrp(fd) == getpgrp();
}

static terminal_protocol ask(int fd)
{
    struct termios before, quiet;
    terminal_protocol found = TERMINAL_AUTO;
    if (!is_in_foreground(fd) || tcgetattr(fd, &before) != 0)
        return TERMINAL_NONE;
    quiet = before;
    quiet.c_lflag &= ~(tcflag_t)(ICANON | ECHO); /* the answer comes without a newline, and is not shown */
    quiet.c_cc[VMIN] = 0;
    quiet.c_cc[VTIME] = 0;
    if (tcsetattr(fd, TCSANOW, &quiet) != 0)
        return TERMINAL_NONE;
    if (write(fd, questions, sizeof questions - 1) == (ssize_t)(sizeof questions - 1))
        found = read_answer(fd);
    /* A late answer is dropped, and with it what the user has typed; without one nothing is. */
    tcsetattr(fd, found == TERMINAL_AUTO ? TCSAFLUSH : TCSANOW, &before);
    return found == TERMINAL_AUTO ? TERMINAL_NONE : found;
}

terminal_protocol terminal_find(int fd)
{
    if (!terminal_is_one(fd))
        return TERMINAL_NONE;
    terminal_protocol found = by_variables();
    if (found != TERMINAL_AUTO)
        return found;
    const char *name = ttyname(fd); /* standard output may be open for writing only */
    int own = name ? open(name, O_RDWR | O_NOCTTY | O_CLOEXEC) : -1;
    found = own >= 0 ? ask(own) : TERMINAL_NONE;
    if (own >= 0)
        close(own);
    return found;
}
