/* A batch file: one JSON object a line. Every line is read and checked before the first image is made. */
#include <stdlib.h>
#include <string.h>

#include "cli.h"
#include "jobs.h"
#include "lines.h"
#include "selection.h"

#define COMMAND "generate"

/* Limits of a file, so that one that is no batch does not fill the memory. */
#define FILE_BYTES_MAX ((size_t)256 << 20)
#define IMAGES_MAX     100000

typedef struct batch {
    cli_lines lines;
    cli_jobs *jobs;
} batch;

static int add_images(batch *b, const cli_options *options)
{
    if (b->jobs->count + (uint64_t)options->count > IMAGES_MAX)
        return cli_line_error(&b->lines, "more than %d images, expected fewer", IMAGES_MAX);
    return cli_jobs_add(b->jobs, options, b->lines.number);
}

/* A copy of a line without what stands around its object. */
static char *line_of(const char *text, size_t length)
{
    size_t begin = strspn(text, " \t\r\n");
    begin = begin < length ? begin : length;
    while (length > begin && strchr(" \t\r\n", text[length - 1]))
        length--;
    return strndup(text + begin, length - begin);
}

/* cli_take_line of batch. */
static int take_line(void *user, const char *text, size_t length)
{
    batch *b = user;
    cli_batch_line *line = calloc(1, sizeof *line);
    if (!line)
        return cli_line_error(&b->lines, "no memory for it");
    line->next = b->jobs->lines;
    b->jobs->lines = line;
    if (b->jobs->selection && !(line->text = line_of(text, length)))
        return cli_line_error(&b->lines, "no memory for it");
    size_t before = b->jobs->count;
    int code = cli_line_read(&b->lines, text, length, &line->options, &line->json);
    if (!code)
        code = add_images(b, &line->options);
    if (!code && b->jobs->selection && b->jobs->count == before) { /* none of its images is the shard's */
        b->jobs->lines = line->next;
        cli_batch_line_free(line);
    }
    return code;
}

/* Options of the command line that a line may hold, and that no line uses. */
static int check_used(const cli_lines *lines)
{
    for (const cli_option *option = NULL; (option = cli_next(CLI_GENERATE, option));)
        if (option->key && cli_has(&lines->options->given, option) && !cli_has(&lines->used, option))
            return cli_usage_error(COMMAND, "--%s: no line of %s uses it", option->name, lines->path);
    return 0;
}

int cli_batch_read(cli_jobs *jobs)
{
    const char *path = jobs->options->batch;
    batch b = {.jobs = jobs};
    b.lines = (cli_lines){.command = COMMAND, .label = "--batch", .path = path, .options = jobs->options};
    int code = cli_lines_each(&b.lines, jobs->selection ? SIZE_MAX : FILE_BYTES_MAX, take_line, &b);
    if (!code && (jobs->selection ? jobs->selection->seen : jobs->count) == 0)
        code = cli_usage_error(COMMAND, "--batch: %s has no line, expected a JSON object a line", path);
    return code ? code : check_used(&b.lines);
}
