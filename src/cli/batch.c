/* A batch file: one JSON object a line. Every line is read and checked before the first image is made. */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "cli.h"
#include "jobs.h"
#include "naming.h"

#define COMMAND "generate"

#define SHOWN_MAX  60 /* bytes of a wrong value in a message */
#define NUMBER_MAX 64 /* bytes of a number that can be one */

typedef struct batch {
    const cli_options *options; /* of the command line */
    cli_jobs *jobs;
    int64_t line;    /* that is read now, from 1 */
    uint64_t used;   /* bits of the command line's options that change the image of some line */
    json_t *outputs; /* file name -> line */
} batch;

static int line_error(const batch *b, const char *format, ...) __attribute__((format(printf, 2, 3)));
static int line_error(const batch *b, const char *format, ...)
{
    char begin[PATH_MAX + 64];
    va_list arguments;
    va_start(arguments, format);
    snprintf(begin, sizeof begin, COMMAND ": %s: line %lld", b->options->batch, (long long)b->line);
    cli_message(begin, format, arguments);
    va_end(arguments);
    return CLI_USAGE;
}

/* ---- the text of values ----
 *
 * jansson keeps whole numbers as int64_t, and seeds go up to 2^64 - 1. So jansson checks the line (with whole numbers
 * as reals) and decodes its texts. Numbers are read from the line itself, as those of the command line are. The
 * functions below need a line that jansson has accepted as an object. */

static const char *skip_space(const char *c)
{
    return c + strspn(c, " \t\r\n");
}

/* c: the opening quotation mark; returns what is behind the closing one. */
static const char *skip_string(const char *c)
{
    for (c++; *c != '"'; c++)
        c += *c == '\\';
    return c + 1;
}

static const char *skip_value(const char *c)
{
    int depth = 0;
    do {
        if (*c == '"') {
            c = skip_string(c);
        } else if (strchr("{[", *c)) {
            depth++;
            c++;
        } else if (strchr("]}", *c)) {
            depth--;
            c++;
        } else {
            c += depth ? 1 : strcspn(c, ",]} \t\r\n");
        }
    } while (depth);
    return c;
}

/* ---- one key ---- */

static const cli_option *find_key(const char *key)
{
    const cli_option *option = NULL;
    while ((option = cli_next(CLI_GENERATE, option)) && !(option->key && !strcmp(option->key, key))) {
    }
    return option;
}

static int unknown_key(const batch *b, const char *key)
{
    const char *similar = cli_similar(CLI_GENERATE, key, 1);
    char keys[CLI_TEXT_MAX] = "";
    for (const cli_option *option = NULL; (option = cli_next(CLI_GENERATE, option));)
        if (option->key)
            cli_append(keys, sizeof keys, "%s%s", *keys ? ", " : "", option->key);
    if (similar)
        return line_error(b, "\"%.*s\": unknown key, did you mean \"%s\"? Keys are %s", SHOWN_MAX, key, similar, keys);
    return line_error(b, "\"%.*s\": unknown key, expected one of %s", SHOWN_MAX, key, keys);
}

static int is_number(const cli_option *option)
{
    return option->kind == CLI_INT || option->kind == CLI_UINT64 || option->kind == CLI_FLOAT;
}

/* raw: the value as it stands in the line, [length]. */
static int take_value(batch *b, cli_options *options, const char *key, const json_t *value, const char *raw,
                      size_t length)
{
    const cli_option *option = find_key(key);
    char number[NUMBER_MAX], expected[CLI_TEXT_MAX];
    const char *text = NULL;
    if (!option)
        return unknown_key(b, key);
    if (!is_number(option)) {
        text = json_string_value(value);
    } else if (json_is_real(value) && length < sizeof number) {
        memcpy(number, raw, length);
        number[length] = 0;
        text = number;
    }
    if (options->given & cli_bits(option))
        return line_error(b, "%s: %.*s, but the line gives it already: size is width and height in one", key,
                          length < SHOWN_MAX ? (int)length : SHOWN_MAX, raw);
    if (text && cli_set(options, option, text))
        return 0;
    cli_expected(option, expected);
    return line_error(b, "%s: %.*s, expected %s", key, length < SHOWN_MAX ? (int)length : SHOWN_MAX, raw, expected);
}

/* ---- one line ---- */

/* Sets what the line says. options->given are then the line's own. */
static int take_keys(batch *b, cli_options *options, const json_t *object, const char *text)
{
    int code = 0;
    for (const char *c = skip_space(skip_space(text) + 1); !code && *c == '"';) {
        const char *key_end = skip_string(c), *raw = skip_space(skip_space(key_end) + 1), *end = skip_value(raw);
        json_t *key = json_loadb(c, (size_t)(key_end - c), JSON_DECODE_ANY, NULL);
        const char *name = json_string_value(key);
        code = name ? take_value(b, options, name, json_object_get(object, name), raw, (size_t)(end - raw))
                    : line_error(b, "a key can't be read");
        json_decref(key);
        c = skip_space(end);
        c = *c == ',' ? skip_space(c + 1) : c;
    }
    return code;
}

/* own: bits of the options that the line itself says. */
static int check_line(batch *b, const cli_options *options, uint64_t own)
{
    for (const cli_option *option = NULL; (option = cli_next(CLI_GENERATE, option));) {
        if (option->key_needed && !(own & cli_bit(option))) {
            char expected[CLI_TEXT_MAX];
            cli_expected(option, expected);
            return line_error(b, "%s: missing, expected %s", option->key, expected);
        }
        if (!(options->given & cli_bit(option)))
            continue;
        const cli_rule *rule = cli_broken_rule(CLI_GENERATE, option, options);
        if (rule && (own & cli_bit(option))) {
            char sentence[CLI_TEXT_MAX];
            cli_rule_sentence(rule, 1, sentence);
            return line_error(b, "%s: %s", option->key, sentence);
        }
        if (!rule && !(own & cli_bit(option)))
            b->used |= cli_bit(option);
    }
    return 0;
}

/* Checks the line's file name. Returns its path in the folder, to be released with free; NULL: a printed sentence. */
static char *output_path(batch *b, const char *output)
{
    char label[PATH_MAX + 64], path[PATH_MAX];
    const json_t *before = json_object_get(b->outputs, output);
    if (!cli_has_png_suffix(output) || strchr(output, '/')) {
        line_error(b, "output: \"%.*s\", expected a file name ending in .png, without folders", SHOWN_MAX, output);
        return NULL;
    }
    if (before) {
        line_error(b, "output: \"%.*s\", but line %lld has the same", SHOWN_MAX, output,
                   (long long)json_integer_value(before));
        return NULL;
    }
    if (snprintf(path, sizeof path, "%s/%s", b->options->out_dir, output) >= CLI_PATH_MAX) {
        line_error(b, "output: the path is too long");
        return NULL;
    }
    snprintf(label, sizeof label, "%s: line %lld: output", b->options->batch, (long long)b->line);
    if (!cli_can_write_image(COMMAND, label, path))
        return NULL;
    json_object_set_new(b->outputs, output, json_integer(b->line));
    return strdup(path);
}

/* The job's options, text and path. What it holds is released by the caller in every case. */
static int fill_job(batch *b, cli_job *job, const char *text)
{
    cli_options *options = job->own = malloc(sizeof *options);
    if (!options)
        return line_error(b, "no memory for it");
    *options = *b->options;
    options->given = 0;
    options->batch = options->out_dir = NULL;
    int code = take_keys(b, options, job->json, text);
    if (code)
        return code;
    uint64_t own = options->given;
    options->given |=
        b->options->given & ~cli_bit(cli_find(CLI_GENERATE, "batch")) & ~cli_bit(cli_find(CLI_GENERATE, "out-dir"));
    if ((code = check_line(b, options, own)))
        return code;
    job->options = options;
    job->line = b->line;
    job->seed = CLI_IS_GIVEN(options, seed) ? options->seed : cli_random_seed();
    job->path = output_path(b, options->output);
    return job->path ? 0 : CLI_USAGE;
}

static int take_line(batch *b, const char *text, size_t length)
{
    json_error_t reason;
    cli_job job = {.json = json_loadb(text, length, JSON_REJECT_DUPLICATES | JSON_DECODE_INT_AS_REAL, &reason)};
    int code = json_is_object(job.json)
                   ? fill_job(b, &job, text)
                   : line_error(b, "expected a JSON object, found %s", job.json ? "another value" : reason.text);
    if (!code && !cli_jobs_add(b->jobs, &job))
        code = line_error(b, "no memory for it");
    if (code) {
        free(job.path);
        free(job.own);
        json_decref(job.json);
    }
    return code;
}

/* ---- the file ---- */

static int read_lines(batch *b, FILE *file)
{
    static const char byte_order_mark[] = "\xef\xbb\xbf";
    char *text = NULL;
    size_t capacity = 0;
    ssize_t length;
    int code = 0;
    for (b->line = 1; !code && (length = getline(&text, &capacity, file)) != -1; b->line++) {
        const char *begin = text;
        if (b->line == 1 && !strncmp(text, byte_order_mark, strlen(byte_order_mark)))
            begin += strlen(byte_order_mark);
        if (length > 0 && text[length - 1] == '\n')
            text[--length] = 0;
        if (*skip_space(begin) || strlen(text) != (size_t)length)
            code = take_line(b, begin, (size_t)(text + length - begin));
    }
    if (!code && ferror(file))
        code = cli_usage_error(COMMAND, "--batch: can't read %s: %s", b->options->batch, strerror(errno));
    free(text);
    return code;
}

/* Options of the command line that a line may hold, and that no line uses. */
static int check_used(const batch *b)
{
    for (const cli_option *option = NULL; (option = cli_next(CLI_GENERATE, option));)
        if (option->key && (b->options->given & cli_bit(option) & ~b->used))
            return cli_usage_error(COMMAND, "--%s: no line of %s uses it", option->name, b->options->batch);
    return 0;
}

int cli_batch_read(const cli_options *options, cli_jobs *jobs)
{
    batch b = {.options = options, .jobs = jobs, .outputs = json_object()};
    FILE *file = fopen(options->batch, "r");
    if (!file) {
        json_decref(b.outputs);
        return cli_usage_error(COMMAND, "--batch: can't read %s: %s", options->batch, strerror(errno));
    }
    int code = read_lines(&b, file);
    if (!code && jobs->count == 0)
        code = cli_usage_error(COMMAND, "--batch: %s has no line, expected a JSON object a line", options->batch);
    if (!code)
        code = check_used(&b);
    fclose(file);
    json_decref(b.outputs);
    return code;
}
