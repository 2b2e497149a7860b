/* What the commands share. Every command uses zimage.h only. */
#ifndef ZI_CLI_CLI_H
#define ZI_CLI_CLI_H

#include <jansson.h>
#include <stdarg.h>
#include <stdio.h>

#include "options.h"
#include "zimage.h"

#define CLI_FAILURE 1 /* exit code: the work failed */
#define CLI_USAGE   2 /* exit code: the command line is wrong */
#define CLI_DIFFERS 3 /* exit code of rerun: the new image differs */

#define CLI_MEASURED 6  /* digits of what was measured */
#define CLI_EXACT    17 /* digits that give every double back */

/* The commands: options in, exit code out. */
int cmd_bench(const cli_options *options);
int cmd_completion(const cli_options *options);
int cmd_devices(const cli_options *options);
int cmd_explain(const cli_options *options);
int cmd_generate(const cli_options *options);
int cmd_help(const cli_options *options);
int cmd_inspect(const cli_options *options);
int cmd_models(const cli_options *options);
int cmd_pull(const cli_options *options);
int cmd_queue(const cli_options *options);
int cmd_rerun(const cli_options *options);
int cmd_selftest(const cli_options *options);
int cmd_serve(const cli_options *options);
int cmd_tokenize(const cli_options *options);
int cmd_words(const cli_options *options);
int cmd_work(const cli_options *options);

/* The model folder of options: --model, else $ZIMAGE_MODEL, else the bundled model beside the installed program, or in
 * the source tree it was built from. */
const char *cli_model(const cli_options *options);
/* Whether nothing named another folder. */
int cli_is_bundled(const cli_options *options);
/* What named that folder: "--model", "ZIMAGE_MODEL" or "the bundled model". */
const char *cli_model_origin(const cli_options *options);

/* Whether the model's folder is there; prints why not. */
int cli_has_model(const char *command, const cli_options *options);

/* The session that the options ask for. */
void cli_session_params(const cli_options *options, zimage_session_params *params);
/* Opens the model, unless *model is open already, and the session that the options ask for. The caller closes both,
 * also after a failure. log: gets the warnings of both. */
zimage_status cli_open(const cli_options *options, zimage_log_fn log, void *user, zimage_model **model,
                       zimage_session **session, zimage_error *error);

/* The folder of measurements: --cache-dir, else $XDG_CACHE_HOME/zimage or ~/.cache/zimage (on macOS
 * ~/Library/Caches/zimage). NULL: --no-cache, or the variables name no absolute path. */
const char *cli_cache_folder(const cli_options *options);
/* A clock that only runs forward, in seconds. */
double cli_seconds_now(void);
/* The path of the program's own file; 0: the system does not say, or it is longer than size. */
int cli_program_path(char *path, size_t size);

/* Lets the stack of the main thread grow to a usual size where `ulimit -s` is small. 0: it may not; prints why. */
int cli_stack_begin(void);
/* Opens the descriptors 0, 1 and 2 where the program was started without them. Otherwise a file that is opened later
 * would get the number 1, and what is printed would go into it. Using them fails as before. */
void cli_open_standard_files(void);
/* Whether what is written to the path arrives at standard output: "/dev/stdout", or the name of the same pipe. */
int cli_is_stdout(const char *path);
/* Whether every output that goes to standard output is the only one there. 0, or an exit code after a message. */
int cli_check_stdout(const cli_options *options);
/* Flushes standard output, and keeps the errno value of the first failure for main, which says it. */
void cli_flush_output(void);
/* 0: nothing has failed that is known. */
int cli_output_error(void);

/* Prints one line, with a newline behind it. What a terminal would take for commands is written out (zimage_printable):
 * names and texts from files and from the user are printed by this function only. */
void cli_line(FILE *file, const char *format, ...) __attribute__((format(printf, 2, 3)));
void cli_vline(FILE *file, const char *format, va_list arguments) __attribute__((format(printf, 2, 0)));
/* Prints "zimage BEGIN: sentence" to stderr, by cli_line. */
void cli_message(const char *begin, const char *format, va_list arguments) __attribute__((format(printf, 2, 0)));
/* Prints "zimage COMMAND: sentence" and returns CLI_USAGE or CLI_FAILURE. */
int cli_usage_error(const char *command, const char *format, ...) __attribute__((format(printf, 2, 3)));
int cli_failure(const char *command, const zimage_error *error);
/* The same for an error in what the options say: it names them as the user does (cli_translate). */
int cli_option_failure(cli_command_id command, const cli_options *options, const zimage_error *error);

/* Prints a JSON value on one line of standard output, and releases it. NULL (no memory) is reported; a failed write is
 * reported by main. Characters beyond ASCII are escaped. digits: of numbers that are not whole. Returns the exit code.
 */
int cli_print_json(const char *command, json_t *value, int digits);
/* An array of the names in a list such as "avx2,avx512"; a space may follow a comma. */
json_t *cli_names_json(const char *names);
/* How a GPU's memory is divided; NULL without one. */
json_t *cli_memory_json(const zimage_memory_info *memory);
/* Whole MiB, rounded up: as --mem takes them. */
unsigned long long cli_mib(uint64_t bytes);

/* Functions for the `log` of zimage.h: print "zimage: warning: ..." to stderr; all lines, or only warnings. */
void cli_log(zimage_log_level level, const char *message, void *user);
void cli_log_warnings(zimage_log_level level, const char *message, void *user);

#endif
