/* Which signals the library's own threads block. */
#ifndef ZI_BASE_SIGNALS_H
#define ZI_BASE_SIGNALS_H

#include <signal.h>

/*
 * All signals that the process may receive from elsewhere: those are handled by the threads of the application. Signals
 * that a thread raises by what it does (a lost page of a mapped file: SIGBUS) reach no other thread. They stay open,
 * because blocking one ends the process without calling the program's handler.
 */
static inline void zi_signals_from_elsewhere(sigset_t *set)
{
    static const int own[] = {SIGBUS, SIGSEGV, SIGFPE, SIGILL};
    sigfillset(set);
    for (size_t i = 0; i < sizeof own / sizeof *own; i++)
        sigdelset(set, own[i]);
}

#endif
