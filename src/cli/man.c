/* The manual page zimage(1) in man(7)'s macros, from the tables. */
#include <stdio.h>

#include "cli.h"

/* Text, with a backslash before what troff would read as a command. hyphens: a dash is one to copy, as in names of
 * options. */
static void print_text(const char *text, int hyphens)
{
    if (*text == '.' || *text == '\'')
        fputs("\\&", stdout);
    for (; *text; text++) {
        if (*text == '\\')
            fputs("\\e", stdout);
        else if (*text == '-' && hyphens)
            fputs("\\-", stdout);
        else
            putchar(*text);
    }
}

static void print_line(const char *text)
{
    print_text(text, 1);
    putchar('\n');
}

static void print_code(const char *text)
{
    printf(".EX\n");
    print_line(text);
    printf(".EE\n");
}

static void print_option(cli_command_id command, const cli_option *option)
{
    char text[2 * CLI_TEXT_MAX];
    printf(".TP\n");
    if (option->letter)
        printf("\\fB\\-%c\\fR, ", option->letter);
    printf("\\fB\\-\\-");
    print_text(option->name, 1);
    printf("\\fR");
    if (option->argument) {
        printf(" \\fI");
        print_text(option->argument, 1);
        printf("\\fR");
    }
    putchar('\n');
    cli_describe(command, option, text, sizeof text);
    print_line(text);
    for (const cli_rule *rule = option->rules; rule->kind != CLI_NO_RULE; rule++)
        if (rule->kind == CLI_EXCLUDES && cli_find(command, rule->other)) {
            cli_rule_sentence(rule, 0, text);
            putchar(text[0] - 'a' + 'A');
            print_text(text + 1, 1);
            printf(".\n");
        }
}

static void print_command(cli_command_id command)
{
    const cli_command *c = &cli_commands[command];
    printf(".SS zimage %s\n", c->name);
    for (int i = 0; i < CLI_USAGES && c->usage[i]; i++) {
        printf("%s\\fBzimage %s\\fR ", i ? ".br\n" : "", c->name);
        print_line(c->usage[i]);
    }
    printf(".PP\n");
    print_line(c->about);
    if (c->environment) {
        printf(".PP\n");
        print_line(CLI_VARIABLES);
    }
    for (int group = 0; group < CLI_GROUPS; group++)
        for (const cli_option *option = NULL; (option = cli_next(command, option));)
            if (option->group == (cli_group)group)
                print_option(command, option);
}

static void print_keys(void)
{
    const char *separator = "";
    printf(
        ".SH BATCH FILES\n"
        "A batch file has one JSON object a line. Empty lines are skipped. All lines are checked before the first "
        "image\n"
        "is made: an unknown key, a value of another type and a combination in which a key would have no effect are\n"
        "refused with the number of the line, and so is a line that writes the file of another one. Every line has\n"
        "exactly one of the keys ");
    for (const cli_option *option = NULL; (option = cli_next(CLI_GENERATE, option));)
        if (option->key_needed) {
            printf("%s\\fB%s\\fR", separator, option->key);
            separator = " and ";
        }
    printf(".\nA line may have these keys:\n");
    for (const cli_option *option = NULL; (option = cli_next(CLI_GENERATE, option));)
        if (option->key) {
            char expected[CLI_TEXT_MAX];
            cli_expected(option, expected);
            printf(".TP\n\\fB%s\\fR\n", option->key);
            print_text(expected, 1);
            printf(", as \\fB\\-\\-");
            print_text(option->name, 1);
            printf("\\fR has it.\n");
        }
    printf(".PP\n");
    print_code(CLI_BATCH_EXAMPLE);
}

static void print_rest(void)
{
    printf(
        ".SH ENVIRONMENT\n"
        ".TP\n\\fBZIMAGE_MODEL\\fR\nThe model folder where \\fB\\-\\-model\\fR is not given, instead of the bundled "
        "model.\n"
        ".TP\n\\fBXDG_CACHE_HOME\\fR\nMeasurements of the machine are kept in its folder zimage (default: ~/.cache).\n"
        ".SH EXIT STATUS\n"
        ".TP\n\\fB0\\fR\nEverything was done.\n"
        ".TP\n\\fB%d\\fR\nThe work failed. A sentence on standard error says why.\n"
        ".TP\n\\fB%d\\fR\nThe command line or a line of a batch is wrong. Nothing was done.\n"
        ".TP\n\\fB129\\fR, \\fB130\\fR, \\fB143\\fR\nSIGHUP, SIGINT or SIGTERM ended the work: 128 and the number of "
        "the "
        "signal. The first\nCtrl\\-C "
        "stops within one block of the network and leaves no file behind; a second one ends the program at once.\n"
        ".SH EXAMPLES\n",
        CLI_FAILURE, CLI_USAGE);
    for (int i = 0; i < CLI_COMMANDS; i++)
        for (int k = 0; k < CLI_EXAMPLES && cli_commands[i].examples[k]; k++)
            print_code(cli_commands[i].examples[k]);
}

void cli_print_man(void)
{
    printf(".TH ZIMAGE 1 \"\" \"zimage %s\" \"User Commands\"\n"
           ".SH NAME\nzimage \\- make images from text with Z\\-Image models\n"
           ".SH SYNOPSIS\n\\fBzimage\\fR \\fICOMMAND\\fR [\\fIOPTIONS\\fR]\n.br\n\\fBzimage\\fR "
           "\\fIPROMPT\\fR [\\fIOPTIONS\\fR]\n.br\n\\fBzimage \\-\\-version\\fR\n"
           ".SH DESCRIPTION\n"
           "zimage runs Z\\-Image models: it makes images from prompts, on CPUs and on NVIDIA GPUs.\n"
           "A prompt of several words needs no command: \\fBzimage \"a red apple\"\\fR is \\fBzimage generate \"a red "
           "apple\"\\fR.\n"
           ".SH COMMANDS\n",
           zimage_version());
    for (int i = 0; i < CLI_COMMANDS; i++)
        print_command((cli_command_id)i);
    print_keys();
    print_rest();
}
