/* Every signal that may end the program, and files that shrink or can't grow. */
#ifndef ZI_CLI_SIGNALS_H
#define ZI_CLI_SIGNALS_H

/*
 * Called first by main. From then on a signal that ends the program removes temporary files before. A write beyond the
 * limit of file sizes and a write to a pipe that nobody reads are errors, not signals. A lost page of a mapped file
 * is an error, too. A signal that was ignored when the program was started (nohup, a shell's background) stays ignored.
 */
void cli_signals_begin(void);

/* The first SIGINT, SIGTERM, SIGHUP or SIGXCPU (a limit of CPU time) now asks the work to stop; a second one ends the
 * program at once. */
void cli_signals_catch(void);
/* SIGHUP does not ask to stop, but to read files again. */
void cli_signals_catch_reload(void);
/* Whether it came since the last call. */
int cli_reload_caught(void);
/* The number of the signal that asked to stop; 0: none. */
int cli_signal_caught(void);
/* The exit code: `code`, or after such a signal 128 and its number, as shells have it. */
int cli_signal_code(int code);

/* The mapped file of which a part was lost; NULL: none. */
const char *cli_lost_file(void);

/* Ends the program as a pipe without a reader ends other programs, unless SIGPIPE was ignored at the start. */
void cli_end_by_pipe(void);

#endif
