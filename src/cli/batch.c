/* A batch file: one JSON object a line. Every line is read and checked before the first image is made. */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "cli.h"
#include "jobs.h"
#include "naming.h"
#include "selection.h"

#define COMMAND "generate"

#define SHOWN_MAX  60 /* bytes of a wrong value in a message */
#define NUMBER_MAX 64 /* bytes of a number that can be one */

/* Limits of a file, so that one that is no batch does not fill the memory. A prompt's first 512 tokens count. */
#define LINE_BYTES_MAX ((size_t)4 << 20)
#define FILE_BYTES_MAX ((size_t)256 << 20)
#define IMAGES_MAX     100000

typedef struct batch {
    const cli_options *options; /* of the command line */
    cli_jobs *jobs;
    int64_t line; /* that is read now, from 1 */
    row_set used; /* those of the command line's options that change the image of some line */
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

/* An option that a line can't hold, by the key that it would have; NULL: there is none. */
static const cli_option *find_other_option(const char *key)
{
    char name[SHOWN_MAX];
    snprintf(name, sizeof name, "%s", key);
    for (char *c = name; *c; c++)
        *c = *c == '_' ? '-' : *c;
    return cli_find(CLI_GENERATE, name);
}

static int unknown_key(const batch *b, const char *key)
{
    const cli_option *other = find_other_option(key);
    if (other && !other->key)
        return line_error(b, "\"%.*s\": unknown key; --%s stands on the command line, for all lines", SHOWN_MAX, key,
                          other->name);
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

/* Of an option that may be given several times: a text, or an array of them. 0: the value is neither. */
static int take_files(cli_options *options, const cli_option *option, const json_t *value)
{
    size_t count = json_is_array(value) ? json_array_size(value) : 1;
    *(cli_files *)(void *)((char *)options + option->offset) = (cli_files){.count = 0}; /* not those of all lines */
    for (size_t i = 0; i < count; i++) {
        const char *text = json_string_value(json_is_array(value) ? json_array_get(value, i) : value);
        if (!text || !cli_set(options, option, text))
            return 0;
    }
    return count > 0;
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
    if (option->kind == CLI_FLAG && json_is_boolean(value)) {
        cli_set_flag(options, option, json_is_true(value));
        return 0;
    }
    if (option->kind == CLI_FLAG) {
        text = NULL;
    } else if (!is_number(option)) {
        text = json_string_value(value);
    } else if (json_is_real(value) && length < sizeof number) {
        memcpy(number, raw, length);
        number[length] = 0;
        text = number;
    }
    if (row_set_intersects(options->given, cli_all_of(option)))
        return line_error(b, "%s: %.*s, but the line gives it already: size is width and height in one", key,
                          length < SHOWN_MAX ? (int)length : SHOWN_MAX, raw);
    if (option->kind == CLI_FILES ? take_files(options, option, value) : text && cli_set(options, option, text))
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

/* A line says in one way what the image shows. own: the options that the line itself says. */
static int check_needed(const batch *b, const row_set *own)
{
    const cli_option *found = NULL;
    char needed[CLI_TEXT_MAX] = "";
    for (const cli_option *option = NULL; (option = cli_next(CLI_GENERATE, option));) {
        if (!option->key_needed)
            continue;
        cli_append(needed, sizeof needed, "%s%s", *needed ? " or " : "", option->key);
        if (found && cli_has(own, option))
            return line_error(b, "%s and %s: expected one of them", found->key, option->key);
        if (cli_has(own, option))
            found = option;
    }
    return found ? 0 : line_error(b, "%s: missing, expected a text or the name of a file", needed);
}

static int check_rules(batch *b, const cli_options *options, const row_set *own)
{
    for (const cli_option *option = NULL; (option = cli_next(CLI_GENERATE, option));) {
        if (!cli_has(&options->given, option))
            continue;
        const cli_rule *rule = cli_broken_rule(CLI_GENERATE, option, options);
        if (rule && cli_has(own, option)) {
            char sentence[CLI_TEXT_MAX];
            cli_rule_sentence(rule, 1, sentence);
            return line_error(b, "%s: %s", option->key, sentence);
        }
        row_set all = cli_all_of(option), parts = row_set_minus(all, cli_set_of(option));
        if (row_set_is_empty(parts)) /* else a size, whose parts a line may give one by one */
            parts = all;
        if (!rule && !row_set_is_empty(row_set_minus(parts, *own)))
            b->used = row_set_union(b->used, all);
    }
    return 0;
}

/* The files that a line writes lie in the folder of the batch. */
static int check_files(const batch *b, const cli_options *options)
{
    const char *output = options->output, *latents = options->save_latents;
    if (output && (!cli_image_suffix(output) || strchr(output, '/')))
        return line_error(b, "output: \"%.*s\", expected a file name ending in " CLI_IMAGE_SUFFIXES ", without folders",
                          SHOWN_MAX, output);
    if (latents && strchr(latents, '/'))
        return line_error(b, "save_latents: \"%.*s\", expected a file name without folders", SHOWN_MAX, latents);
    return 0;
}

/* Options that say what to do with the lines. */
static row_set of_the_command_line(void)
{
    static const char *const names[] = {"batch", "out-dir", "resume", "shard"};
    row_set set = {{0}};
    for (size_t i = 0; i < sizeof names / sizeof *names; i++)
        set = row_set_union(set, cli_set_of(cli_find(CLI_GENERATE, names[i])));
    return set;
}

static int take_object(batch *b, cli_batch_line *line, const char *text)
{
    cli_options *options = &line->options;
    *options = *b->options;
    options->given = (row_set){{0}};
    options->batch = options->out_dir = options->shard = NULL;
    options->resume = 0;
    int code = take_keys(b, options, line->json, text);
    options->own = options->given;
    options->given = row_set_union(options->own, row_set_minus(b->options->given, of_the_command_line()));
    if (!code)
        code = check_needed(b, &options->own);
    if (!code)
        code = check_rules(b, options, &options->own);
    if (!code)
        code = check_files(b, options);
    if (!code && b->jobs->count + (uint64_t)options->count > IMAGES_MAX)
        code = line_error(b, "more than %d images, expected fewer", IMAGES_MAX);
    return code ? code : cli_jobs_add(b->jobs, options, b->line);
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

static int take_line(batch *b, const char *text, size_t length)
{
    json_error_t reason;
    cli_batch_line *line = calloc(1, sizeof *line);
    if (!line)
        return line_error(b, "no memory for it");
    line->next = b->jobs->lines;
    b->jobs->lines = line;
    if (b->jobs->selection && !(line->text = line_of(text, length)))
        return line_error(b, "no memory for it");
    line->json = json_loadb(text, length, JSON_REJECT_DUPLICATES | JSON_DECODE_INT_AS_REAL, &reason);
    if (!line->json)
        return line_error(b, "expected a JSON object on one line: %s", reason.text);
    if (!json_is_object(line->json))
        return line_error(b, "expected a JSON object, found another value");
    size_t before = b->jobs->count;
    int code = take_object(b, line, text);
    if (!code && b->jobs->selection && b->jobs->count == before) { /* none of its images is the shard's */
        b->jobs->lines = line->next;
        cli_batch_line_free(line);
    }
    return code;
}

/* ---- the file ---- */

/* Reads a line of at most LINE_BYTES_MAX bytes, without its newline, into text [LINE_BYTES_MAX + 1]. *length: a longer
 * line has LINE_BYTES_MAX + 1. Returns 0 at the end of the file. */
static int next_line(FILE *file, char *text, size_t *length)
{
    int c;
    *length = 0;
    while ((c = getc(file)) != EOF && c != '\n' && *length <= LINE_BYTES_MAX)
        text[(*length)++] = (char)c;
    text[*length <= LINE_BYTES_MAX ? *length : LINE_BYTES_MAX] = 0;
    return c != EOF || *length > 0;
}

static int read_lines(batch *b, FILE *file, char *text)
{
    static const char byte_order_mark[] = "\xef\xbb\xbf";
    size_t length, bytes = 0;
    int code = 0;
    for (b->line = 1; !code && next_line(file, text, &length); b->line++) {
        const char *begin = text;
        bytes += length;
        if (b->line == 1 && !strncmp(text, byte_order_mark, strlen(byte_order_mark)))
            begin += strlen(byte_order_mark);
        if (length > LINE_BYTES_MAX)
            code = line_error(b, "more than %zu bytes, expected a JSON object a line", LINE_BYTES_MAX);
        else if (bytes > FILE_BYTES_MAX && !b->jobs->selection)
            code = line_error(b, "the file has more than %zu bytes, expected fewer", FILE_BYTES_MAX);
        else if (*skip_space(begin) || strlen(text) != length)
            code = take_line(b, begin, (size_t)(text + length - begin));
    }
    if (!code && ferror(file))
        code = cli_usage_error(COMMAND, "--batch: can't read %s: %s", b->options->batch, strerror(errno));
    return code;
}

/* Options of the command line that a line may hold, and that no line uses. */
static int check_used(const batch *b)
{
    for (const cli_option *option = NULL; (option = cli_next(CLI_GENERATE, option));)
        if (option->key && cli_has(&b->options->given, option) && !cli_has(&b->used, option))
            return cli_usage_error(COMMAND, "--%s: no line of %s uses it", option->name, b->options->batch);
    return 0;
}

int cli_batch_read(cli_jobs *jobs)
{
    batch b = {.options = jobs->options, .jobs = jobs};
    const char *path = b.options->batch;
    FILE *file = fopen(path, "r");
    if (!file)
        return cli_usage_error(COMMAND, "--batch: can't read %s: %s", path, strerror(errno));
    char *text = malloc(LINE_BYTES_MAX + 1);
    int code = text ? read_lines(&b, file, text) : cli_usage_error(COMMAND, "--batch: no memory to read %s", path);
    if (!code && (jobs->selection ? jobs->selection->seen : jobs->count) == 0)
        code = cli_usage_error(COMMAND, "--batch: %s has no line, expected a JSON object a line", path);
    if (!code)
        code = check_used(&b);
    free(text);
    fclose(file);
    return code;
}
