#include "lines.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "cli.h"
#include "naming.h"

#define SHOWN_MAX  60 /* bytes of a wrong value in a message */
#define NUMBER_MAX 64 /* bytes of a number that can be one */

int cli_line_error(const cli_lines *lines, const char *format, ...)
{
    char begin[PATH_MAX + 64];
    va_list arguments;
    va_start(arguments, format);
    if (lines->sentence) {
        vsnprintf(lines->sentence, CLI_SENTENCE_MAX, format, arguments);
    } else {
        snprintf(begin, sizeof begin, "%s: %s: line %lld", lines->command, lines->path, (long long)lines->number);
        cli_message(begin, format, arguments);
    }
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

static int unknown_key(const cli_lines *lines, const char *key)
{
    const cli_option *other = find_other_option(key);
    if (other && !other->key)
        return cli_line_error(lines, "\"%.*s\": unknown key; --%s stands on the command line, for all lines", SHOWN_MAX,
                              key, other->name);
    const char *similar = cli_similar(CLI_GENERATE, key, 1);
    char keys[CLI_TEXT_MAX] = "";
    for (const cli_option *option = NULL; (option = cli_next(CLI_GENERATE, option));)
        if (option->key)
            cli_append(keys, sizeof keys, "%s%s", *keys ? ", " : "", option->key);
    if (similar)
        return cli_line_error(lines, "\"%.*s\": unknown key, did you mean \"%s\"? Keys are %s", SHOWN_MAX, key, similar,
                              keys);
    return cli_line_error(lines, "\"%.*s\": unknown key, expected one of %s", SHOWN_MAX, key, keys);
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
static int take_value(cli_lines *lines, cli_options *options, const char *key, const json_t *value, const char *raw,
                      size_t length)
{
    const cli_option *option = find_key(key);
    char number[NUMBER_MAX], expected[CLI_TEXT_MAX];
    const char *text = NULL;
    if (!option)
        return unknown_key(lines, key);
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
        return cli_line_error(lines, "%s: %.*s, but the line gives it already: size is width and height in one", key,
                              length < SHOWN_MAX ? (int)length : SHOWN_MAX, raw);
    if (option->kind == CLI_FILES ? take_files(options, option, value) : text && cli_set(options, option, text))
        return 0;
    cli_expected(option, expected);
    return cli_line_error(lines, "%s: %.*s, expected %s", key, length < SHOWN_MAX ? (int)length : SHOWN_MAX, raw,
                          expected);
}

/* ---- one line ---- */

/* Sets what the line says. options->given are then the line's own. */
static int take_keys(cli_lines *lines, cli_options *options, const json_t *object, const char *text)
{
    int code = 0;
    for (const char *c = skip_space(skip_space(text) + 1); !code && *c == '"';) {
        const char *key_end = skip_string(c), *raw = skip_space(skip_space(key_end) + 1), *end = skip_value(raw);
        json_t *key = json_loadb(c, (size_t)(key_end - c), JSON_DECODE_ANY, NULL);
        const char *name = json_string_value(key);
        code = name ? take_value(lines, options, name, json_object_get(object, name), raw, (size_t)(end - raw))
                    : cli_line_error(lines, "a key can't be read");
        json_decref(key);
        c = skip_space(end);
        c = *c == ',' ? skip_space(c + 1) : c;
    }
    return code;
}

/* A line says in one way what the image shows. own: the options that the line itself says. */
static int check_needed(const cli_lines *lines, const row_set *own)
{
    const cli_option *found = NULL;
    char needed[CLI_TEXT_MAX] = "";
    for (const cli_option *option = NULL; (option = cli_next(CLI_GENERATE, option));) {
        if (!option->key_needed)
            continue;
        cli_append(needed, sizeof needed, "%s%s", *needed ? " or " : "", option->key);
        if (found && cli_has(own, option))
            return cli_line_error(lines, "%s and %s: expected one of them", found->key, option->key);
        if (cli_has(own, option))
            found = option;
    }
    return found ? 0 : cli_line_error(lines, "%s: missing, expected a text or the name of a file", needed);
}

static int check_rules(cli_lines *lines, const cli_options *options, const row_set *own)
{
    for (const cli_option *option = NULL; (option = cli_next(CLI_GENERATE, option));) {
        if (!cli_has(&options->given, option))
            continue;
        const cli_rule *rule = cli_broken_rule(CLI_GENERATE, option, options);
        if (rule && cli_has(own, option)) {
            char sentence[CLI_TEXT_MAX];
            cli_rule_sentence(rule, 1, sentence);
            return cli_line_error(lines, "%s: %s", option->key, sentence);
        }
        row_set all = cli_all_of(option), parts = row_set_minus(all, cli_set_of(option));
        if (row_set_is_empty(parts)) /* else a size, whose parts a line may give one by one */
            parts = all;
        if (!rule && !row_set_is_empty(row_set_minus(parts, *own)))
            lines->used = row_set_union(lines->used, all);
    }
    return 0;
}

/* The files that a line writes lie in the folder of the batch. */
static int check_files(const cli_lines *lines, const cli_options *options)
{
    const char *output = options->output, *latents = options->save_latents;
    if (output && (!cli_image_suffix(output) || strchr(output, '/')))
        return cli_line_error(
            lines, "output: \"%.*s\", expected a file name ending in " CLI_IMAGE_SUFFIXES ", without folders",
            SHOWN_MAX, output);
    if (latents && strchr(latents, '/'))
        return cli_line_error(lines, "save_latents: \"%.*s\", expected a file name without folders", SHOWN_MAX,
                              latents);
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

static int take_object(cli_lines *lines, cli_options *options, const json_t *object, const char *text)
{
    *options = *lines->options;
    options->given = (row_set){{0}};
    options->batch = options->out_dir = options->shard = NULL;
    options->resume = 0;
    int code = take_keys(lines, options, object, text);
    options->own = options->given;
    options->given = row_set_union(options->own, row_set_minus(lines->options->given, of_the_command_line()));
    if (!code)
        code = check_needed(lines, &options->own);
    if (!code)
        code = check_rules(lines, options, &options->own);
    return code ? code : check_files(lines, options);
}

int cli_line_read(cli_lines *lines, const char *text, size_t length, cli_options *options, json_t **json)
{
    json_error_t reason;
    *json = json_loadb(text, length, JSON_REJECT_DUPLICATES | JSON_DECODE_INT_AS_REAL, &reason);
    if (!*json)
        return cli_line_error(lines, "expected a JSON object on one line: %s",
                              json_error_code(&reason) == json_error_null_character ? "a text holds \\u0000"
                                                                                    : reason.text);
    return json_is_object(*json) ? take_object(lines, options, *json, text)
                                 : cli_line_error(lines, "expected a JSON object, found another value");
}

/* ---- files ---- */

/* Reads a line of at most CLI_LINE_BYTES_MAX bytes, without its newline, into text [CLI_LINE_BYTES_MAX + 1]. *length: a
 * longer line has CLI_LINE_BYTES_MAX + 1. Returns 0 at the end of the file. */
static int next_line(FILE *file, char *text, size_t *length)
{
    int c;
    *length = 0;
    while ((c = getc_unlocked(file)) != EOF && c != '\n' && *length <= CLI_LINE_BYTES_MAX)
        text[(*length)++] = (char)c;
    text[*length <= CLI_LINE_BYTES_MAX ? *length : CLI_LINE_BYTES_MAX] = 0;
    return c != EOF || *length > 0;
}

static int each_line(cli_lines *lines, FILE *file, char *text, size_t most_bytes, cli_take_line *take, void *user)
{
    static const char byte_order_mark[] = "\xef\xbb\xbf";
    size_t length, bytes = 0;
    int code = 0;
    for (lines->number = 1; !code && next_line(file, text, &length); lines->number++) {
        const char *begin = text;
        bytes += length;
        if (lines->number == 1 && !strncmp(text, byte_order_mark, strlen(byte_order_mark)))
            begin += strlen(byte_order_mark);
        if (length > CLI_LINE_BYTES_MAX)
            code = cli_line_error(lines, "more than %zu bytes, expected a JSON object a line", CLI_LINE_BYTES_MAX);
        else if (bytes > most_bytes)
            code = cli_line_error(lines, "the file has more than %zu bytes, expected fewer", most_bytes);
        else if (*skip_space(begin) || strlen(text) != length)
            code = take(user, begin, (size_t)(text + length - begin));
    }
    if (!code && ferror(file))
        code = cli_usage_error(lines->command, "%s: can't read %s: %s", lines->label, lines->path, strerror(errno));
    return code;
}

int cli_lines_each(cli_lines *lines, size_t most_bytes, cli_take_line *take, void *user)
{
    FILE *file = fopen(lines->path, "r");
    if (!file)
        return cli_usage_error(lines->command, "%s: can't read %s: %s", lines->label, lines->path, strerror(errno));
    char *text = malloc(CLI_LINE_BYTES_MAX + 1);
    int code = text ? each_line(lines, file, text, most_bytes, take, user)
                    : cli_usage_error(lines->command, "%s: no memory to read %s", lines->label, lines->path);
    free(text);
    fclose(file);
    return code;
}
