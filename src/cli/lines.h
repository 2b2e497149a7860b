/* Lines of JSON: objects with the keys of generate's options. A batch file has them, and so has a ledger. */
#ifndef ZI_CLI_LINES_H
#define ZI_CLI_LINES_H

#include <jansson.h>
#include <stdarg.h>
#include <stddef.h>

#include "options.h"

/* The longest line. A prompt's first 512 tokens count. */
#define CLI_LINE_BYTES_MAX ((size_t)4 << 20)

typedef struct cli_lines {
    const char *command, *label, *path; /* "generate", "--batch" and the file, for messages */
    const cli_options *options;         /* of the command line: they hold for lines that don't say otherwise */
    int64_t number;                     /* of the line, from 1 */
    row_set used;                       /* options of the command line that change the image of some line */
    char *sentence;                     /* [CLI_SENTENCE_MAX] for a message; NULL: it is printed, with file and line */
} cli_lines;

/* Options of a line, completed by those of the command line. Their texts belong to *json, which the caller releases,
 * also after a failure. 0, or an exit code after a message. text ends with a zero. */
int cli_line_read(cli_lines *lines, const char *text, size_t length, cli_options *options, json_t **json);

/* Calls take for each line of the file that is not empty, without a newline, until it returns an exit code. */
typedef int cli_take_line(void *user, const char *text, size_t length);
int cli_lines_each(cli_lines *lines, size_t most_bytes, cli_take_line *take, void *user);

/* The message "FILE: line N: ..."; returns CLI_USAGE. */
int cli_line_error(const cli_lines *lines, const char *format, ...) __attribute__((format(printf, 2, 3)));

#endif
