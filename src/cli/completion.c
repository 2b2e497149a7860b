/* Scripts with which bash, zsh and fish complete the program's command lines, from the tables. */
#include <stdio.h>
#include <string.h>

#include "cli.h"

/* How a text is written between single quotation marks. */
typedef struct quoting {
    const char *special;    /* characters that need a backslash before them */
    const char *apostrophe; /* what stands for an apostrophe */
} quoting;

static const quoting zsh_quoting = {"[]:\\", "'\\''"}, fish_quoting = {"\\", "\\'"};

static void print_quoted(const quoting *q, const char *text, size_t length)
{
    for (size_t i = 0; i < length; i++) {
        if (strchr(q->special, text[i]))
            putchar('\\');
        if (text[i] == '\'')
            fputs(q->apostrophe, stdout);
        else
            putchar(text[i]);
    }
}

/* The first part of the help. */
static void print_description(const quoting *q, const cli_option *option)
{
    static const char *const ends[] = {". ", ": ", "; ", " ("};
    size_t length = strlen(option->help) - 1; /* without the full stop */
    for (size_t i = 0; i < sizeof ends / sizeof *ends; i++) {
        const char *end = strstr(option->help, ends[i]);
        if (end && (size_t)(end - option->help) < length)
            length = (size_t)(end - option->help);
    }
    print_quoted(q, option->help, length);
}

static void print_summary(const quoting *q, const cli_command *command)
{
    print_quoted(q, command->summary, strlen(command->summary));
}

/* The values that can be completed, separated by `between`; 0: none. */
static int print_values(const cli_option *option, char between)
{
    int count = 0;
    const char *name;
    if (option->kind == CLI_ENUM)
        while ((name = option->value_name(count))) {
            if (count++)
                putchar(between);
            fputs(name, stdout);
        }
    for (const char *c = option->words; c && *c; c++) {
        putchar(*c == ' ' ? between : *c);
        count++;
    }
    return count;
}

static int has_values(const cli_option *option)
{
    return option->kind == CLI_ENUM || option->words;
}

/* ---- bash ---- */

static const char bash_begin[] =
    "# Completion of zimage for bash: source <(zimage completion bash)\n"
    "_zimage() {\n"
    "    local current=${COMP_WORDS[COMP_CWORD]} previous=${COMP_WORDS[COMP_CWORD - 1]} words=\"\"\n"
    "    COMPREPLY=()\n"
    "    if [ \"$current\" = = ]; then\n" /* --name=VALUE is three words */
    "        current=\"\" previous=$previous=\n"
    "    elif [ \"$previous\" = = ]; then\n"
    "        previous=${COMP_WORDS[COMP_CWORD - 2]}=\n"
    "    fi\n"
    "    if [ \"$COMP_CWORD\" = 1 ]; then\n"
    "        COMPREPLY=($(compgen -W \"$_zimage_commands --help --version\" -- \"$current\"))\n"
    "        return\n"
    "    fi\n"
    "    case ${COMP_WORDS[1]}:$previous in\n";

static const char bash_middle[] = "    esac\n"
                                  "    case ${COMP_WORDS[1]} in\n";

static const char bash_end[] = "    esac\n"
                               "    COMPREPLY=($(compgen -W \"$words\" -- \"$current\"))\n"
                               "    case $current in -*) ;; *) compopt -o default 2>/dev/null ;; esac\n"
                               "}\n"
                               "complete -F _zimage zimage\n";

/* The case of an option with a value: what may follow it. */
static void print_bash_value(const cli_command *command, const cli_option *option)
{
    if (option->kind == CLI_FLAG)
        return;
    printf("    %s:--%s=", command->name, option->name);
    if (!option->bare)
        printf(" | %s:--%s", command->name, option->name);
    if (option->letter)
        printf(" | %s:-%c", command->name, option->letter);
    printf(") ");
    if (has_values(option)) {
        printf("COMPREPLY=($(compgen -W \"");
        print_values(option, ' ');
        printf("\" -- \"$current\"))");
    } else if (option->kind == CLI_FILE || option->kind == CLI_FILES) {
        printf("compopt -o default 2>/dev/null");
    } else if (option->kind == CLI_FOLDER) {
        printf("COMPREPLY=($(compgen -d -- \"$current\"))");
    } else {
        printf(":"); /* nothing to offer */
    }
    printf("; return ;;\n");
}

static void print_bash(void)
{
    printf("_zimage_commands=\"");
    for (int i = 0; i < CLI_COMMANDS; i++)
        printf("%s%s", i ? " " : "", cli_commands[i].name);
    printf("\"\n%s", bash_begin);
    for (int i = 0; i < CLI_COMMANDS; i++)
        for (const cli_option *option = NULL; (option = cli_next((cli_command_id)i, option));)
            print_bash_value(&cli_commands[i], option);
    fputs(bash_middle, stdout);
    for (int i = 0; i < CLI_COMMANDS; i++) {
        printf("    %s) words=\"", cli_commands[i].name);
        for (const cli_option *option = NULL; (option = cli_next((cli_command_id)i, option));) {
            printf("--%s ", option->name);
            if (option->operand && has_values(option)) {
                print_values(option, ' ');
                putchar(' ');
            }
        }
        printf("\" ;;\n");
    }
    fputs(bash_end, stdout);
}

/* ---- zsh ---- */

static void print_zsh_value(const cli_option *option)
{
    printf(":%s:", option->argument);
    if (has_values(option)) {
        putchar('(');
        print_values(option, ' ');
        putchar(')');
    } else if (option->kind == CLI_FILE || option->kind == CLI_FILES) {
        printf("_files");
    } else if (option->kind == CLI_FOLDER) {
        printf("_files -/");
    } else {
        putchar(' ');
    }
}

/* '(-W --width)'{-W,--width}'[description]:N: ' */
static void print_zsh_option(const cli_option *option)
{
    printf(" \\\n            ");
    if (option->letter && option->kind == CLI_FILES)
        printf("'*'{-%c,--%s}'[", option->letter, option->name);
    else if (option->letter)
        printf("'(-%c --%s)'{-%c,--%s}'[", option->letter, option->name, option->letter, option->name);
    else
        printf("'--%s%s[", option->name, option->bare ? "=-" : "");
    print_description(&zsh_quoting, option);
    printf("]%s", option->bare ? ":" : "");
    if (option->kind != CLI_FLAG)
        print_zsh_value(option);
    putchar('\'');
}

static void print_zsh(void)
{
    printf("#compdef zimage\n# Completion of zimage for zsh: a file _zimage in a folder of $fpath\n"
           "_zimage() {\n    if (( CURRENT == 2 )); then\n        local -a commands=(\n");
    for (int i = 0; i < CLI_COMMANDS; i++) {
        printf("            '%s:", cli_commands[i].name);
        print_summary(&zsh_quoting, &cli_commands[i]);
        printf("'\n");
    }
    printf("        )\n        _describe command commands\n        return\n    fi\n"
           "    local command=$words[2]\n    shift words\n    (( CURRENT-- ))\n    case $command in\n");
    for (int i = 0; i < CLI_COMMANDS; i++) {
        printf("    %s)\n        _arguments", cli_commands[i].name);
        for (const cli_option *option = NULL; (option = cli_next((cli_command_id)i, option));) {
            print_zsh_option(option);
            if (option->operand) {
                printf(" \\\n            '1");
                print_zsh_value(option);
                putchar('\'');
            }
        }
        printf("\n        ;;\n");
    }
    printf("    esac\n}\n_zimage \"$@\"\n");
}

/* ---- fish ---- */

static void print_fish_option(const cli_command *command, const cli_option *option)
{
    printf("complete -c zimage -n '__fish_seen_subcommand_from %s' -l %s", command->name, option->name);
    if (option->letter)
        printf(" -s %c", option->letter);
    if (has_values(option)) {
        printf(" %s-a '", option->bare ? "" : "-x ");
        print_values(option, ' ');
        putchar('\'');
    } else if (option->kind == CLI_FILE || option->kind == CLI_FILES) {
        printf(" -r -F");
    } else if (option->kind == CLI_FOLDER) {
        printf(" -x -a '(__fish_complete_directories)'");
    } else if (option->kind != CLI_FLAG) {
        printf(" -x");
    }
    printf(" -d '");
    print_description(&fish_quoting, option);
    printf("'\n");
    if (option->operand && has_values(option)) {
        printf("complete -c zimage -f -n '__fish_seen_subcommand_from %s' -a '", command->name);
        print_values(option, ' ');
        printf("'\n");
    }
}

static void print_fish(void)
{
    printf("# Completion of zimage for fish: a file zimage.fish in ~/.config/fish/completions\n");
    for (int i = 0; i < CLI_COMMANDS; i++) {
        printf("complete -c zimage -f -n '__fish_use_subcommand' -a %s -d '", cli_commands[i].name);
        print_summary(&fish_quoting, &cli_commands[i]);
        printf("'\n");
    }
    for (int i = 0; i < CLI_COMMANDS; i++)
        for (const cli_option *option = NULL; (option = cli_next((cli_command_id)i, option));)
            print_fish_option(&cli_commands[i], option);
}

void cli_print_completion(const char *shell)
{
    if (!strcmp(shell, "bash"))
        print_bash();
    else if (!strcmp(shell, "zsh"))
        print_zsh();
    else
        print_fish();
}
