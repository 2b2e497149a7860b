/* The command line. Names of options are not abbreviated: --prompt never means --prompt-embeds. */
#include <ctype.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "cli.h"
#include "shared/words.h"

/* ---- the table ---- */

const cli_option *cli_next(cli_command_id command, const cli_option *option)
{
    for (option = option ? option + 1 : cli_table; option < cli_table + cli_table_size; option++)
        if (option->commands & 1u << command)
            return option;
    return NULL;
}

const cli_option *cli_find(cli_command_id command, const char *name)
{
    const cli_option *option = NULL;
    while ((option = cli_next(command, option)) && strcmp(option->name, name) != 0) {
    }
    return option;
}

int cli_has(const row_set *set, const cli_option *option)
{
    return row_set_has(set, (size_t)(option - cli_table));
}

row_set cli_set_of(const cli_option *option)
{
    row_set set = {{0}};
    row_set_add(&set, (size_t)(option - cli_table));
    return set;
}

_Static_assert(offsetof(cli_options, height) == offsetof(cli_options, width) + sizeof(int64_t),
               "CLI_PIXELS fills both");

row_set cli_all_of(const cli_option *option)
{
    row_set set = cli_set_of(option);
    for (const cli_option *other = cli_table; option->kind == CLI_PIXELS && other < cli_table + cli_table_size; other++)
        if ((other->commands & option->commands) &&
            (other->offset == offsetof(cli_options, width) || other->offset == offsetof(cli_options, height)))
            row_set_add(&set, (size_t)(other - cli_table));
    return set;
}

int cli_given(const cli_options *options, size_t offset)
{
    for (size_t i = 0; i < cli_table_size; i++)
        if (cli_table[i].offset == offset && row_set_has(&options->given, i))
            return 1;
    return 0;
}

/* ---- mistyped names ---- */

#define NAME_MAX_LENGTH 40
#define NO_NAME         NAME_MAX_LENGTH /* a distance that no two names have */
#define LETTERS_A_SLIP  3 /* a name of so many letters is still known after one mistake, of twice as many after two */
#define MOST_SLIPS      2

static int least_of(int a, int b)
{
    return a < b ? a : b;
}

/* The fewest letters to add, leave out, change, or exchange with their neighbour until a is b (the optimal string
 * alignment distance); NO_NAME for long names. */
static int distance(const char *a, const char *b)
{
    int rows[3][NAME_MAX_LENGTH + 1], *before = rows[0], *last = rows[1], *row = rows[2];
    size_t n = strlen(b);
    if (strlen(a) >= NAME_MAX_LENGTH || n >= NAME_MAX_LENGTH)
        return NO_NAME;
    for (size_t k = 0; k <= n; k++)
        row[k] = (int)k;
    for (size_t i = 0; a[i]; i++) {
        int *oldest = before;
        before = last;
        last = row;
        row = oldest;
        row[0] = (int)i + 1;
        for (size_t k = 0; k < n; k++) {
            row[k + 1] = least_of(last[k] + (a[i] != b[k]), least_of(row[k], last[k + 1]) + 1);
            if (i && k && a[i] == b[k - 1] && a[i - 1] == b[k])
                row[k + 1] = least_of(row[k + 1], before[k - 1] + 1);
        }
    }
    return row[n];
}

/* How many mistakes lead from the name to what was typed; NO_NAME: more than anybody makes. A beginning of the name is
 * one mistake. */
static int mistakes(const char *typed, const char *name)
{
    size_t length = strlen(typed);
    if (!strcmp(typed, name))
        return 0;
    if (length && !strncmp(typed, name, length))
        return 1;
    int slips = distance(typed, name), most = least_of((int)strlen(name) / LETTERS_A_SLIP, MOST_SLIPS);
    return slips <= most ? slips : NO_NAME;
}

/* Small letters, and dashes for underscores. */
static void spell(const char *name, char spelled[NAME_MAX_LENGTH + 1])
{
    size_t length = 0;
    for (; length < NAME_MAX_LENGTH && name[length]; length++)
        spelled[length] = name[length] == '_' ? '-' : (char)tolower((unsigned char)name[length]);
    spelled[length] = 0;
}

const char *cli_similar(cli_command_id command, const char *name, int keys)
{
    char typed[NAME_MAX_LENGTH + 1], known[NAME_MAX_LENGTH + 1];
    const char *best = NULL;
    int least = NO_NAME;
    spell(name, typed);
    for (const cli_option *option = NULL; (option = cli_next(command, option));) {
        const char *candidate = keys ? option->key : option->name;
        if (!candidate)
            continue;
        spell(candidate, known);
        int slips = words_have(option->elsewhere, ' ', typed, strncmp) ? 0 : mistakes(typed, known);
        if (slips < least) {
            least = slips;
            best = candidate;
        }
    }
    return best;
}

const char *cli_similar_command(const char *name)
{
    char typed[NAME_MAX_LENGTH + 1];
    const char *best = NULL;
    int least = NO_NAME;
    spell(name, typed);
    for (int i = 0; i < CLI_COMMANDS; i++) {
        int slips = mistakes(typed, cli_commands[i].name);
        if (slips < least) {
            least = slips;
            best = cli_commands[i].name;
        }
    }
    return best;
}

/* ---- parsing ---- */

typedef struct parser {
    cli_command_id command;
    int argc, at;      /* at: the argument that is read next */
    int only_operands; /* "--" was read */
    char **argv;
    cli_options *options;
} parser;

static const char *command_name(const parser *p)
{
    return cli_commands[p->command].name;
}

/* typed: the option as it stands on the command line, for messages. */
static int take(parser *p, const cli_option *option, const char *typed, const char *text)
{
    if (option->kind != CLI_FLAG && option->kind != CLI_FILES &&
        row_set_intersects(p->options->given, cli_all_of(option)))
        return cli_usage_error(command_name(p), "%s: \"%s\", but it is given already", typed, text);
    if (cli_set(p->options, option, text))
        return 0;
    char expected[CLI_TEXT_MAX];
    cli_expected(option, expected);
    return cli_usage_error(command_name(p), "%s: \"%s\", expected %s", typed, text, expected);
}

/* Whether an argument is an option of the command, as it is written without a value. */
static int is_option(cli_command_id command, const char *argument)
{
    if (!strncmp(argument, "--", 2))
        return cli_find(command, argument + 2) != NULL;
    const cli_option *option = NULL;
    while ((option = cli_next(command, option)) &&
           !(argument[0] == '-' && option->letter && argument[1] == option->letter && !argument[2])) {
    }
    return option != NULL;
}

/* attached: the value that stands in the same argument; NULL: none. */
static int take_named(parser *p, const cli_option *option, const char *attached)
{
    char typed[64], expected[CLI_TEXT_MAX];
    snprintf(typed, sizeof typed, "--%s", option->name);
    if (option->kind == CLI_FLAG)
        return attached ? cli_usage_error(command_name(p), "%s: \"%s\", but it takes no value", typed, attached)
                        : take(p, option, typed, "");
    if (attached || option->bare)
        return take(p, option, typed, attached ? attached : option->bare);
    const char *next = p->at < p->argc ? p->argv[p->at++] : NULL;
    cli_expected(option, expected);
    if (!next)
        return cli_usage_error(command_name(p), "%s: the value is missing, expected %s", typed, expected);
    if (is_option(p->command, next))
        return cli_usage_error(command_name(p),
                               "%s: the value is missing, expected %s, and %s is an option; if it is the value, write "
                               "%s=%s",
                               typed, expected, next, typed, next);
    return take(p, option, typed, next);
}

/* The option whose text may stand alone; NULL: the command has none. */
static const cli_option *operand_text(cli_command_id command)
{
    const cli_option *option = NULL;
    while ((option = cli_next(command, option)) && !(option->operand && option->kind == CLI_TEXT)) {
    }
    return option;
}

/* Another command that has the option; NULL: none has. */
static const cli_command *owner_of(const char *name)
{
    for (int i = 0; i < CLI_COMMANDS; i++)
        if (cli_find((cli_command_id)i, name))
            return &cli_commands[i];
    return NULL;
}

/* similar: the option that may be meant, or NULL. owner: another command that has the option, or NULL. */
static int unknown_option(const parser *p, const char *typed, const char *similar, const cli_command *owner)
{
    const char *command = command_name(p);
    const cli_option *option = operand_text(p->command);
    int is_name = !strncmp(typed, "--", 2) && isalpha((unsigned char)typed[2]) && !strchr(typed, ' ');
    if (owner)
        return cli_usage_error(command, "%s: unknown option, it is one of zimage %s; zimage %s --help lists all", typed,
                               owner->name, command);
    if (similar)
        return cli_usage_error(command, "%s: unknown option, did you mean --%s? zimage %s --help lists all", typed,
                               similar, command);
    if (option && !is_name)
        return cli_usage_error(command,
                               "%s: unknown option; zimage %s --help lists all. If it is the %s, write -- before it: "
                               "zimage %s -- \"%s\"",
                               typed, command, option->argument, command, typed);
    return cli_usage_error(command, "%s: unknown option; zimage %s --help lists all", typed, command);
}

/* --name, --name VALUE, --name=VALUE */
static int take_long(parser *p, const char *argument)
{
    char name[64];
    size_t length = strcspn(argument + 2, "=");
    const char *attached = argument[2 + length] ? argument + 2 + length + 1 : NULL;
    snprintf(name, sizeof name, "%.*s", (int)(length < sizeof name ? length : sizeof name - 1), argument + 2);
    const cli_option *option = length < sizeof name ? cli_find(p->command, name) : NULL;
    if (option)
        return take_named(p, option, attached);
    return unknown_option(p, argument, strchr(name, ' ') ? NULL : cli_similar(p->command, name, 0), owner_of(name));
}

/* "-steps", "-steps=4": the name of an option behind one dash. NULL: it is none. */
static const cli_option *find_behind_one_dash(cli_command_id command, const char *argument)
{
    char name[NAME_MAX_LENGTH + 1];
    size_t length = strcspn(argument + 1, "=");
    snprintf(name, sizeof name, "%.*s", (int)(length < NAME_MAX_LENGTH ? length : 0), argument + 1);
    return length > 1 ? cli_find(command, name) : NULL;
}

/* -q, -qh, -W VALUE, -WVALUE. An argument with a space is a text that begins with a dash: "-portrait of a man" is not
 * the prompt "ortrait of a man", and "-hazy morning" asks for no help. */
static int take_letters(parser *p, const char *argument)
{
    if (strchr(argument, ' '))
        return unknown_option(p, argument, NULL, NULL);
    const cli_option *meant = find_behind_one_dash(p->command, argument);
    if (meant)
        return unknown_option(p, argument, meant->name, NULL);
    for (const char *letter = argument + 1; *letter; letter++) {
        const cli_option *option = NULL;
        while ((option = cli_next(p->command, option)) && option->letter != *letter) {
        }
        if (!option)
            return unknown_option(p, argument, NULL, NULL);
        if (option->kind != CLI_FLAG)
            return take_named(p, option, letter[1] ? letter + 1 : NULL);
        cli_set(p->options, option, "");
    }
    return 0;
}

/* Whether a text is an option with one of the other dashes (U+2010 to U+2015, U+2212) that editors and web pages make
 * of a minus. */
static int has_other_dash(const char *text)
{
    const unsigned char *c = (const unsigned char *)text;
    int dash = c[0] == 0xE2 && ((c[1] == 0x80 && c[2] >= 0x90 && c[2] <= 0x95) || (c[1] == 0x88 && c[2] == 0x92));
    return dash && !strchr(text, ' ') && isascii(c[3]) && isalpha(c[3]);
}

/* A value that stands alone. */
static int take_operand(parser *p, const char *text)
{
    const cli_command *command = &cli_commands[p->command];
    const cli_option *option = NULL;
    for (const cli_option *next = NULL; (next = cli_next(p->command, next));)
        if (next->operand && (!option || cli_has(&p->options->given, option)))
            option = next; /* the first that is not given yet */
    if (!p->only_operands && has_other_dash(text))
        return cli_usage_error(command->name,
                               "%s: the dash is another character than -; an option begins with -- or -. If it is a "
                               "text, write -- before it",
                               text);
    if (!option)
        return cli_usage_error(command->name, "\"%s\": unexpected; %s", text,
                               command->operand_hint ? command->operand_hint : "it takes options only");
    if (cli_has(&p->options->given, option))
        return cli_usage_error(command->name,
                               "\"%s\": unexpected, the %s is given already; put a text of several words in quotes",
                               text, option->argument);
    return take(p, option, option->argument, text);
}

/* ---- the environment ---- */

#define VARIABLE_PREFIX "ZIMAGE_"

extern char **environ;

void cli_variable(const cli_option *option, char name[CLI_VARIABLE_MAX])
{
    int length = snprintf(name, CLI_VARIABLE_MAX, VARIABLE_PREFIX "%s", option->name);
    for (int i = 0; i < length && i < CLI_VARIABLE_MAX - 1; i++)
        name[i] = name[i] == '-' ? '_' : (char)toupper((unsigned char)name[i]);
}

/* A flag's variable is 1 or true, 0 or false. */
static int take_flag(parser *p, const cli_option *option, const char *variable, const char *value)
{
    int is_on = !strcmp(value, "1") || !strcmp(value, "true");
    if (!is_on && strcmp(value, "0") != 0 && strcmp(value, "false") != 0)
        return cli_usage_error(command_name(p), "%s: \"%s\", expected 1, true, 0 or false", variable, value);
    return is_on ? take(p, option, variable, "") : 0;
}

/* An empty variable is none. */
static int take_variable(parser *p, const cli_option *option)
{
    char name[CLI_VARIABLE_MAX];
    cli_variable(option, name);
    const char *value = getenv(name);
    if (!value || !*value || row_set_intersects(p->options->given, cli_all_of(option)))
        return 0;
    int code = option->kind == CLI_FLAG ? take_flag(p, option, name, value) : take(p, option, name, value);
    if (cli_has(&p->options->given, option))
        p->options->variables = row_set_union(p->options->variables, cli_set_of(option));
    return code;
}

/* Warns of a variable ("ZIMAGE_NAME=value") that is no option's, but looks like one. Others may be meant for something
 * else. */
static void check_variable(const parser *p, const char *variable)
{
    char name[NAME_MAX_LENGTH + 1], text[CLI_TEXT_MAX], meant[CLI_VARIABLE_MAX];
    size_t length = strcspn(variable, "=");
    if (strncmp(variable, VARIABLE_PREFIX, strlen(VARIABLE_PREFIX)) != 0 || length >= sizeof text / 2)
        return;
    snprintf(text, sizeof text, "%.*s", (int)length, variable);
    spell(text + strlen(VARIABLE_PREFIX), name);
    const char *similar = owner_of(name) ? NULL : cli_similar(p->command, name, 0);
    const cli_option *option = similar ? cli_find(p->command, similar) : NULL;
    if (!option || !strcmp(option->name, name))
        return;
    cli_variable(option, meant);
    snprintf(text + length, sizeof text - length, ": no option has this variable, did you mean %s?", meant);
    cli_log_warnings(ZIMAGE_LOG_WARNING, text, NULL);
}

static int take_environment(parser *p)
{
    int code = 0;
    for (char **variable = environ; variable && *variable; variable++)
        check_variable(p, *variable);
    for (const cli_option *option = NULL; !code && (option = cli_next(p->command, option));)
        if (option->offset != offsetof(cli_options, help))
            code = take_variable(p, option);
    return code;
}

void cli_set_defaults(cli_command_id command, cli_command_id but, cli_options *options)
{
    row_set given = options->given;
    for (const cli_option *option = NULL; (option = cli_next(command, option));)
        if (option->fallback && !(option->commands & 1u << but))
            cli_set(options, option, option->fallback);
    options->given = given;
}

int cli_parse(cli_command_id command, int argc, char **argv, cli_options *options)
{
    parser p = {.command = command, .argc = argc, .argv = argv, .options = options};
    int code = 0;
    *options = (cli_options){0};
    cli_set_defaults(command, CLI_COMMANDS, options);
    while (!code && p.at < argc && !options->help) {
        const char *argument = argv[p.at++];
        if (!p.only_operands && !strcmp(argument, "--"))
            p.only_operands = 1;
        else if (!p.only_operands && !strncmp(argument, "--", 2))
            code = take_long(&p, argument);
        else if (!p.only_operands && argument[0] == '-' && argument[1])
            code = take_letters(&p, argument);
        else
            code = take_operand(&p, argument);
    }
    return code || options->help || !cli_commands[command].environment ? code : take_environment(&p);
}
