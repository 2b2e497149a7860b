/* The manual page zimage(1) in man(7)'s macros, from the tables. */
#include <stdio.h>
#include <string.h>

#include "cli.h"

#define DATE  "2026-11-29" /* of this text */
#define WIDTH 80           /* of a line of the page's source, as mandoc -Tlint wants it */

/* A part of a text, with a backslash before what troff would read as a command. A dash is one to copy, as in names of
 * options. Returns the characters that were written. */
static int print_part(const char *text, size_t length)
{
    int written = 0;
    if (*text == '.' || *text == '\'')
        written += printf("\\&");
    for (size_t i = 0; i < length; i++)
        written += printf(text[i] == '\\' ? "\\e" : text[i] == '-' ? "\\-" : "%c", text[i]);
    return written;
}

static void print_text(const char *text)
{
    print_part(text, strlen(text));
}

/* A paragraph, in lines of at most WIDTH characters. */
static void print_paragraph(const char *text)
{
    int column = 0;
    for (size_t length; *text; text += length + strspn(text + length, " ")) {
        int extra = 2; /* for "\&", and */
        length = strcspn(text, " ");
        for (size_t i = 0; i < length; i++)
            extra += text[i] == '-' || text[i] == '\\'; /* for backslashes */
        if (column > 0 && column + 1 + (int)length + extra > WIDTH) {
            putchar('\n');
            column = 0;
        } else if (column > 0) {
            putchar(' ');
            column++;
        }
        column += print_part(text, length);
    }
    putchar('\n');
}

static void print_code(const char *text)
{
    printf(".EX\n");
    print_text(text);
    printf("\n.EE\n");
}

static void print_option(cli_command_id command, const cli_option *option)
{
    char text[2 * CLI_TEXT_MAX];
    printf(".TP\n");
    if (option->letter)
        printf("\\fB\\-%c\\fR, ", option->letter);
    printf("\\fB\\-\\-");
    print_text(option->name);
    printf("\\fR");
    if (option->argument) {
        printf("%s\\fI", option->bare ? "[=" : " ");
        print_text(option->argument);
        printf("\\fR%s", option->bare ? "]" : "");
    }
    putchar('\n');
    cli_describe(command, option, text, sizeof text);
    print_paragraph(text);
    for (const cli_rule *rule = option->rules; rule->kind != CLI_NO_RULE; rule++)
        if (rule->kind == CLI_EXCLUDES && cli_find(command, rule->other)) {
            cli_rule_sentence(rule, 0, text);
            text[0] = (char)(text[0] - 'a' + 'A');
            cli_append(text, sizeof text, ".");
            print_paragraph(text);
        }
}

static void print_command(cli_command_id command)
{
    const cli_command *c = &cli_commands[command];
    printf(".SS zimage %s\n", c->name);
    for (int i = 0; i < CLI_USAGES && c->usage[i]; i++) {
        printf("%s\\fBzimage %s\\fR ", i ? ".br\n" : "", c->name);
        print_paragraph(c->usage[i]);
    }
    printf(".PP\n");
    print_paragraph(c->about);
    if (c->environment) {
        printf(".PP\n");
        print_paragraph(CLI_VARIABLES);
    }
    for (int group = 0; group < CLI_GROUPS; group++)
        for (const cli_option *option = NULL; (option = cli_next(command, option));)
            if (option->group == (cli_group)group)
                print_option(command, option);
}

static void print_keys(void)
{
    const char *separator = "";
    printf(".SH BATCH FILES\n");
    print_paragraph("A batch file has one JSON object a line. Empty lines are skipped. All lines are checked before "
                    "the first image is made: an unknown key, a value of another type and a combination in which a key "
                    "would have no effect are refused with the number of the line, and so is a line that writes the "
                    "file of another one.");
    printf("Every line has exactly one of the keys ");
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
            cli_append(expected, sizeof expected, ",");
            print_paragraph(expected);
            printf("as \\fB\\-\\-");
            print_text(option->name);
            printf("\\fR has it.\n");
        }
    printf(".PP\n");
    print_code(CLI_BATCH_EXAMPLE);
}

static void print_rest(void)
{
    printf(".SH ENVIRONMENT\n"
           ".TP\n\\fBZIMAGE_MODEL\\fR\nThe model folder where \\fB\\-\\-model\\fR is not given,\n"
           "instead of the bundled model.\n"
           ".TP\n\\fBXDG_CACHE_HOME\\fR\nMeasurements of the machine are kept in its folder zimage\n"
           "(default: ~/.cache).\n"
           ".SH EXIT STATUS\n"
           ".TP\n\\fB0\\fR\nEverything was done.\n"
           ".TP\n\\fB%d\\fR\nThe work failed. A sentence on standard error says why.\n"
           ".TP\n\\fB%d\\fR\nThe command line or a line of a batch is wrong. Nothing was done.\n"
           ".TP\n\\fB%d\\fR\nThe image that \\fBzimage rerun\\fR made differs from the one of the file.\n"
           ".TP\n\\fB129\\fR, \\fB130\\fR, \\fB143\\fR\n",
           CLI_FAILURE, CLI_USAGE, CLI_DIFFERS);
    print_paragraph("SIGHUP, SIGINT or SIGTERM ended the work: 128 and the number of the signal. The first Ctrl-C "
                    "stops within one block of the network and leaves no file behind; a second one ends the program at "
                    "once.");
    printf(".SH EXAMPLES\n");
    for (int i = 0; i < CLI_COMMANDS; i++)
        for (int k = 0; k < CLI_EXAMPLES && cli_commands[i].examples[k]; k++)
            print_code(cli_commands[i].examples[k]);
}

void cli_print_man(void)
{
    printf(".TH ZIMAGE 1 " DATE " \"zimage %s\" \"User Commands\"\n"
           ".SH NAME\nzimage \\- make images with Z\\-Image and FLUX.2\\-klein models\n"
           ".SH SYNOPSIS\n\\fBzimage\\fR \\fICOMMAND\\fR [\\fIOPTIONS\\fR]\n.br\n\\fBzimage\\fR "
           "\\fIPROMPT\\fR [\\fIOPTIONS\\fR]\n.br\n\\fBzimage \\-\\-version\\fR\n"
           ".SH DESCRIPTION\n"
           "zimage makes images from text and from images, with Z\\-Image and\nFLUX.2\\-klein models, "
           "on CPUs, NVIDIA GPUs and the GPU of Apple's chips.\n"
           "A prompt of several words needs no command: \\fBzimage \"a red apple\"\\fR is\n"
           "\\fBzimage generate \"a red apple\"\\fR.\n"
           ".SH COMMANDS\n",
           zimage_version());
    for (int i = 0; i < CLI_COMMANDS; i++)
        print_command((cli_command_id)i);
    print_keys();
    print_rest();
}
