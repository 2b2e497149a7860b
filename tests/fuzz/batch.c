/*
 * A batch file from a stranger. Lines before it that begin with "--" are options of the command line; only those that
 * name no files. Nothing is made: the jobs are checked and named.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "cli/cli.h"
#include "cli/jobs.h"
#include "fuzz.h"

#define BATCH         "batch.jsonl"
#define ARGUMENTS_MAX 12
#define ARGUMENT_MAX  64

typedef struct command_line {
    char *words[ARGUMENTS_MAX];
    char memory[ARGUMENTS_MAX][ARGUMENT_MAX];
    int count;
} command_line;

static int names_no_file(const char *word)
{
    static const char *const allowed[] = {
        "--width=", "--height=", "--steps=", "--seed=", "--count=", "--guidance=", "--cfg-", "--negative="};
    for (size_t i = 0; i < sizeof allowed / sizeof *allowed; i++)
        if (!strncmp(word, allowed[i], strlen(allowed[i])))
            return 1;
    return 0;
}

/* Takes the options from the start of the text; returns their bytes. */
static size_t take_options(command_line *line, const uint8_t *data, size_t size)
{
    size_t at = 0;
    while (size - at > 2 && data[at] == '-' && data[at + 1] == '-' && line->count < ARGUMENTS_MAX) {
        const uint8_t *end = memchr(data + at, '\n', size - at);
        size_t length = end ? (size_t)(end - data) - at : size - at;
        char *word = line->memory[line->count];
        snprintf(word, ARGUMENT_MAX, "%.*s", (int)length, (const char *)data + at);
        if (names_no_file(word))
            line->words[line->count++] = word;
        at += length + (end != NULL);
    }
    return at;
}

/* Whether a terminal may show the text: no control characters but line feeds. */
static void check_messages(const char *text, size_t size)
{
    for (size_t i = 0; i < size; i++)
        if (((unsigned char)text[i] < ' ' && text[i] != '\n') || text[i] == 0x7f)
            zi_fuzz_fail("a message holds the control character %d", text[i]);
}

static void check_jobs(const cli_jobs *jobs)
{
    size_t length = strlen(zi_fuzz_folder_path());
    for (size_t i = 0; i < jobs->count; i++) {
        const char *path = jobs->items[i].path;
        if (strncmp(path, zi_fuzz_folder_path(), length) != 0 || strchr(path + length + 1, '/'))
            zi_fuzz_fail("an image would be written to %s", path);
        for (size_t k = i > 32 ? i - 32 : 0; k < i; k++)
            if (!strcmp(jobs->items[k].path, path))
                zi_fuzz_fail("two images would be written to %s", path);
    }
}

/* The options and the jobs, with messages going to stderr. */
static void make_jobs(command_line *line)
{
    char *words[ARGUMENTS_MAX + 4] = {"--batch", NULL, "--out-dir", NULL};
    cli_options options;
    cli_jobs jobs = {0};
    words[1] = (char *)zi_fuzz_path(BATCH);
    words[3] = (char *)zi_fuzz_folder_path();
    memcpy(words + 4, line->words, sizeof line->words);
    if (cli_parse(CLI_GENERATE, 4 + line->count, words, &options) != 0 || cli_check(CLI_GENERATE, &options) != 0)
        return;
    if (cli_jobs_make(&options, NULL, &jobs) == 0)
        check_jobs(&jobs);
    cli_jobs_free(&jobs);
}

static int run(const uint8_t *data, size_t size)
{
    command_line line = {0};
    char *text = NULL;
    size_t length = 0, at = take_options(&line, data, size);
    FILE *terminal = stderr, *stream = open_memstream(&text, &length);
    if (!stream)
        zi_fuzz_fail("out of memory");
    zi_fuzz_clear();
    zi_fuzz_write(BATCH, data + at, size - at);
    stderr = stream; /* of glibc; sanitizers write to the descriptor */
    make_jobs(&line);
    stderr = terminal;
    fclose(stream);
    zi_fuzz_note(text);
    check_messages(text, length);
    free(text);
    return ZI_FUZZ_KEEP;
}

const zi_fuzz_target zi_fuzz_batch = {.name = "batch", .run = run, .mutate = ZI_FUZZ_MUTATOR(zi_fuzz_mutate_lines)};
