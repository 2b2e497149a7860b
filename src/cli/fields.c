/* The library's sentences in the user's words: it says "height: 17, expected ...", and the user typed --size. */
#include <ctype.h>
#include <stdlib.h>
#include <string.h>

#include "cli.h"

static int is_letter(char c)
{
    return isalnum((unsigned char)c) || c == '_';
}

/* The library's name of an option's value: the option's, with underscores, unless the table says another. */
static int is_field(const cli_option *option, const char *word, size_t length)
{
    const char *name = option->field ? option->field : option->name;
    if (option->kind == CLI_PIXELS || strlen(name) != length)
        return 0;
    for (size_t i = 0; i < length; i++)
        if (word[i] != (name[i] == '-' ? '_' : name[i]))
            return 0;
    return 1;
}

/* The option of a field that begins here; NULL: none does. */
static const cli_option *option_of(cli_command_id command, const char *word, size_t *length)
{
    const cli_option *option = NULL;
    *length = 0;
    while (is_letter(word[*length]))
        (*length)++;
    while ((option = cli_next(command, option)) && !is_field(option, word, *length)) {
    }
    return option;
}

/* The option that gave the value of another: --size gives those of --width and --height. */
static const cli_option *giver_of(cli_command_id command, const cli_options *options, const cli_option *option)
{
    row_set own = cli_has(&options->own, option) ? options->own : row_set_minus(options->given, options->own);
    for (const cli_option *other = NULL; (other = cli_next(command, other));)
        if (other->kind == CLI_PIXELS && cli_has(&own, other) &&
            row_set_intersects(cli_all_of(other), cli_set_of(option)))
            return other;
    return option;
}

static void write_name(const cli_options *options, const cli_option *option, char *text, size_t size)
{
    int is_key = option->key && cli_has(&options->own, option);
    cli_append(text, size, "%s%s", is_key ? "" : "--", is_key ? option->key : option->name);
}

/* "[1]" behind the name of an option that may be given several times: the file that it counts to, from 0. Returns what
 * is behind it. */
static const char *write_file(const cli_options *options, const cli_option *option, const char *word, char *text,
                              size_t size)
{
    const cli_files *files = (const void *)((const char *)options + option->offset);
    char *end;
    if (*word != '[')
        return word;
    unsigned long index = strtoul(word + 1, &end, 10);
    if (index < (unsigned long)files->count)
        cli_append(text, size, ": %s", files->paths[index]);
    return end + (*end == ']');
}

/* The fields before the colon, "width and height: ..."; returns what is behind them, or NULL: the sentence begins with
 * something else, or the user gave none of them. */
static const char *write_beginning(cli_command_id command, const cli_options *options, const char *sentence, char *text,
                                   size_t size)
{
    static const char *const separators[] = {" and ", " or ", ", "};
    const cli_option *last = NULL;
    int given = 0;
    for (const char *word = sentence;;) {
        size_t length, between = 0;
        const cli_option *option = option_of(command, word, &length);
        if (!option)
            return NULL;
        given |= cli_has(&options->given, option);
        option = giver_of(command, options, option);
        if (last && option != last)
            cli_append(text, size, " and ");
        if (!last || option != last)
            write_name(options, option, text, size);
        last = option;
        word += length;
        if (option->kind == CLI_FILES)
            word = write_file(options, option, word, text, size);
        if (*word == ':')
            return given ? word : NULL;
        for (size_t i = 0; i < sizeof separators / sizeof *separators && !between; i++)
            if (!strncmp(word, separators[i], strlen(separators[i])))
                between = strlen(separators[i]);
        if (!between)
            return NULL;
        word += between;
    }
}

/* The rest of the sentence: fields that have another name than their option, and are no words of the language. What
 * begins with a quotation mark is a name in a file. */
static void write_rest(cli_command_id command, const cli_options *options, const char *rest, char *text, size_t size)
{
    for (char last = 0; *rest;) {
        size_t length;
        const cli_option *option = option_of(command, rest, &length);
        if (option && option->field && strchr(option->field, '_') && last != '"')
            write_name(options, option, text, size);
        else
            cli_append(text, size, "%.*s", (int)(length ? length : 1), rest);
        rest += length ? length : 1;
        last = rest[-1];
    }
}

void cli_translate(cli_command_id command, const cli_options *options, const char *sentence,
                   char text[CLI_SENTENCE_MAX])
{
    *text = 0;
    const char *rest = write_beginning(command, options, sentence, text, CLI_SENTENCE_MAX);
    if (rest)
        write_rest(command, options, rest, text, CLI_SENTENCE_MAX);
    else
        snprintf(text, CLI_SENTENCE_MAX, "%s", sentence);
}

int cli_option_failure(cli_command_id command, const cli_options *options, const zimage_error *error)
{
    char text[CLI_SENTENCE_MAX];
    cli_translate(command, options, error->message, text);
    (void)cli_usage_error(cli_commands[command].name, "%s", text);
    return CLI_FAILURE;
}
