/* What --help and zimage help print, from the tables. */
#include <ctype.h>
#include <stdio.h>
#include <string.h>

#include "cli.h"

#define WIDTH          80 /* of a line */
#define HELP_COLUMN    28 /* where the description of an option begins */
#define SUMMARY_COLUMN 15 /* and that of a command */

/* A larger bound is one of the type, and not worth a word. */
#define WORTH_NAMING 1000000

/* ---- description ---- */

void cli_describe(cli_command_id command, const cli_option *option, char *text, size_t size)
{
    char part[CLI_TEXT_MAX];
    snprintf(text, size, "%s", option->help);
    if (option->kind == CLI_ENUM) {
        cli_value_names(option, " or ", part);
        cli_append(text, size, " One of %s.", part);
    } else if ((option->kind == CLI_INT || option->kind == CLI_FLOAT) && option->high < WORTH_NAMING) {
        cli_append(text, size, option->above_low ? " %s: above %g, at most %g." : " %s: %g to %g.", option->argument,
                   option->low, option->high);
    }
    for (const cli_rule *rule = option->rules; rule->kind != CLI_NO_RULE; rule++)
        if (rule->kind == CLI_NEEDS && cli_find(command, rule->other)) {
            cli_rule_sentence(rule, 0, part);
            part[strcspn(part, ";")] = 0;
            cli_append(text, size, " %c%s.", toupper((unsigned char)*part), part + 1);
        }
    if (option->fallback)
        cli_append(text, size, " Default: %s.", option->fallback);
}

/* Prints words, the first of them at `column`; further lines begin at `indent`. */
static void print_wrapped(FILE *file, const char *text, int column, int indent)
{
    int first = 1;
    while (*text) {
        int length = (int)strcspn(text, " ");
        if (!first && column + 1 + length > WIDTH) {
            fprintf(file, "\n%*s", indent, "");
            column = indent;
        } else if (!first) {
            fputc(' ', file);
            column++;
        }
        fprintf(file, "%.*s", length, text);
        column += length;
        first = 0;
        text += length;
        text += strspn(text, " ");
    }
    fputc('\n', file);
}

static void print_option(cli_command_id command, const cli_option *option)
{
    char left[128], text[2 * CLI_TEXT_MAX], letter[8] = "    ";
    if (option->letter)
        snprintf(letter, sizeof letter, "-%c, ", option->letter);
    const char *before = option->bare ? "[=" : option->argument ? " " : "", *behind = option->bare ? "]" : "";
    int length = snprintf(left, sizeof left, "  %s--%s%s%s%s", letter, option->name, before,
                          option->argument ? option->argument : "", behind);
    cli_describe(command, option, text, sizeof text);
    if (length + 2 <= HELP_COLUMN)
        printf("%-*s", HELP_COLUMN, left);
    else
        printf("%s\n%*s", left, HELP_COLUMN, "");
    print_wrapped(stdout, text, HELP_COLUMN, HELP_COLUMN);
}

static void print_group(cli_command_id command, cli_group group)
{
    int begun = 0;
    for (const cli_option *option = NULL; (option = cli_next(command, option));)
        if (option->group == group) {
            if (!begun++)
                printf("\n%s:\n", cli_group_names[group]);
            print_option(command, option);
        }
}

static void print_keys(void)
{
    char needed[CLI_TEXT_MAX] = "", other[CLI_TEXT_MAX] = "", text[3 * CLI_TEXT_MAX];
    for (const cli_option *option = NULL; (option = cli_next(CLI_GENERATE, option));)
        if (option->key) {
            char *list = option->key_needed ? needed : other;
            cli_append(list, CLI_TEXT_MAX, "%s%s", !*list ? "" : option->key_needed ? " or " : ", ", option->key);
        }
    snprintf(
        text, sizeof text,
        "has %s, and optionally %s. Each means what the option of that name does. image may be an array. output and "
        "save_latents are file names without folders.",
        needed, other);
    printf("\nA line of a batch:\n  %s\n  ", CLI_BATCH_EXAMPLE);
    print_wrapped(stdout, text, 2, 2);
}

void cli_print_help(cli_command_id command)
{
    const cli_command *c = &cli_commands[command];
    for (int i = 0; i < CLI_USAGES && c->usage[i]; i++)
        printf("%s zimage %s %s\n", i ? "      " : "usage:", c->name, c->usage[i]);
    printf("\n");
    print_wrapped(stdout, c->about, 0, 0);
    for (int group = 0; group < CLI_GROUPS; group++)
        print_group(command, (cli_group)group);
    if (command == CLI_GENERATE)
        print_keys();
    if (c->environment) {
        printf("\nEnvironment:\n  ");
        print_wrapped(stdout, CLI_VARIABLES, 2, 2);
    }
    printf("\nExamples:\n");
    for (int i = 0; i < CLI_EXAMPLES && c->examples[i]; i++)
        printf("  %s\n", c->examples[i]);
}

void cli_print_overview(FILE *file)
{
    fprintf(file, "usage: zimage COMMAND [OPTIONS]\n"
                  "       zimage \"PROMPT OF SEVERAL WORDS\" [OPTIONS]   the same as zimage generate\n\n"
                  "Makes images from text and from images, with Z-Image and FLUX.2-klein models.\n\n"
                  "commands:\n");
    for (int i = 0; i < CLI_COMMANDS; i++) {
        fprintf(file, "  %-*s", SUMMARY_COLUMN - 2, cli_commands[i].name);
        print_wrapped(file, cli_commands[i].summary, SUMMARY_COLUMN, SUMMARY_COLUMN);
    }
    fprintf(file, "\n  zimage COMMAND --help   options of a command\n  zimage --version        version\n\n"
                  "first image: zimage \"a red apple\"\nwhat the bundled model can draw: zimage words\n");
}
