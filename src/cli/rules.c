/* Combinations of options in which one would have no effect: they are refused, not ignored. */
#include <stdio.h>
#include <string.h>

#include "cli.h"
#include "zimage.h"

static int counts(const cli_rule *rule, const cli_option *other, const cli_options *options)
{
    switch (rule->condition) {
    case CLI_ABOVE:
        if (!other->fallback && !cli_has(&options->given, other))
            return rule->kind == CLI_NEEDS;
        return cli_number(options, other) > rule->above;
    case CLI_IS: {
        const char *text = cli_text(options, other);
        return strcspn(text, ":") == strlen(rule->text) && !strncmp(text, rule->text, strlen(rule->text));
    }
    case CLI_IS_LOSSY: {
        const char *name = cli_text(options, other);
        zimage_format format;
        return name && zimage_format_of_path(name, &format) && format != ZIMAGE_FORMAT_PNG;
    }
    case CLI_GIVEN:
        break;
    }
    return cli_has(&options->given, other);
}

const cli_rule *cli_broken_rule(cli_command_id command, const cli_option *option, const cli_options *options)
{
    for (const cli_rule *rule = option->rules; rule->kind != CLI_NO_RULE; rule++) {
        const cli_option *other = cli_find(command, rule->other);
        if (other && counts(rule, other, options) == (rule->kind == CLI_EXCLUDES))
            return rule;
    }
    return NULL;
}

void cli_rule_sentence(const cli_rule *rule, int keys, char text[CLI_TEXT_MAX])
{
    char value[64] = "", other[64];
    size_t length = 0;
    for (const char *c = rule->other; *c && length < sizeof other - 1; c++)
        other[length++] = keys && *c == '-' ? '_' : *c; /* the keys of a line are the options' names, so written */
    other[length] = 0;
    if (rule->condition == CLI_ABOVE)
        snprintf(value, sizeof value, " above %g", rule->above);
    else if (rule->condition == CLI_IS)
        snprintf(value, sizeof value, " %s", rule->text);
    else if (rule->condition == CLI_IS_LOSSY)
        snprintf(value, sizeof value, " of a JPEG or WebP file");
    snprintf(text, CLI_TEXT_MAX, "%s %s%s%s; %s", rule->kind == CLI_NEEDS ? "only with" : "not together with",
             keys ? "" : "--", other, value, rule->why);
}

/* With a batch what a line needs may come from the line itself: batch.c checks it. */
static int is_for_lines(cli_command_id command, const cli_rule *rule, const cli_option *option,
                        const cli_options *options)
{
    const cli_option *other = cli_find(command, rule->other);
    return options->batch && rule->kind == CLI_NEEDS && option->key && other && other->key;
}

static void name_in_help(const cli_option *option, char text[64])
{
    if (option->operand)
        snprintf(text, 64, "%s", option->argument);
    else
        snprintf(text, 64, "--%s", option->name);
}

/* Of the options of which exactly one has to be given. */
static int check_one_of(cli_command_id command, const cli_options *options)
{
    const cli_command *c = &cli_commands[command];
    const cli_option *first = NULL;
    for (int i = 0; i < CLI_CHOICES && c->one_of[i]; i++) {
        const cli_option *option = cli_find(command, c->one_of[i]);
        if (!cli_has(&options->given, option))
            continue;
        if (first) {
            char one[64], two[64];
            name_in_help(first, one);
            name_in_help(option, two);
            return cli_usage_error(c->name, "%s and %s: expected one of them", one, two);
        }
        first = option;
    }
    return c->one_of[0] && !first ? cli_usage_error(c->name, "%s", c->missing) : 0;
}

int cli_check(cli_command_id command, const cli_options *options)
{
    for (const cli_option *option = NULL; (option = cli_next(command, option));) {
        const cli_rule *rule = cli_has(&options->given, option) ? cli_broken_rule(command, option, options) : NULL;
        if (rule && !is_for_lines(command, rule, option, options)) {
            char sentence[CLI_TEXT_MAX];
            cli_rule_sentence(rule, 0, sentence);
            return cli_usage_error(cli_commands[command].name, "--%s: %s", option->name, sentence);
        }
    }
    return check_one_of(command, options);
}
