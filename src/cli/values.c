/* Values of options: from the text of a command line or of a batch's line to the fields of cli_options. */
#include <ctype.h>
#include <errno.h>
#include <limits.h>
#include <math.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "cli.h"

/* strto... skip spaces and take signs; a number here begins with a digit, or with '-' where that is allowed. */
static int begins_a_number(const char *text, int negative)
{
    return isdigit((unsigned char)text[negative && *text == '-']);
}

static int read_int(const cli_option *option, const char *text, int64_t *value)
{
    char *end;
    errno = 0;
    long long parsed = strtoll(text, &end, 10);
    if (!begins_a_number(text, 1) || *end || errno || (double)parsed < option->low || (double)parsed > option->high)
        return 0;
    *value = parsed;
    return 1;
}

static int read_uint64(const char *text, uint64_t *value)
{
    char *end;
    errno = 0;
    unsigned long long parsed = strtoull(text, &end, 10);
    if (!begins_a_number(text, 0) || *end || errno)
        return 0;
    *value = parsed;
    return 1;
}

static int read_float(const cli_option *option, const char *text, double *value)
{
    char *end;
    double parsed = strtod(text, &end);
    if (!begins_a_number(text, 1) || *end || !(parsed >= option->low && parsed <= option->high) ||
        (option->above_low && parsed == option->low))
        return 0;
    *value = parsed;
    return 1;
}

/* Bytes from "6G", "512M", "1.5g", "4096K" or a plain number. */
static int read_size(const char *text, uint64_t *bytes)
{
    static const char units[] = "KMGT";
    char *end;
    double size = strtod(text, &end);
    const char *unit = isalpha((unsigned char)*end) ? strchr(units, toupper((unsigned char)*end)) : NULL;
    if (unit) {
        size = ldexp(size, 10 * (int)(unit - units + 1));
        end++;
    }
    if (!begins_a_number(text, 0) || *end || !(size >= 1 && size < 0x1p62))
        return 0;
    *bytes = (uint64_t)size;
    return 1;
}

/* Two numbers with an x, or a multiplication sign, between them. */
static int read_pixels(const cli_option *option, const char *text, int64_t sides[2])
{
    static const char *const signs[] = {"x", "X", "*", "\xc3\x97"};
    char *behind;
    errno = 0;
    long long width = strtoll(text, &behind, 10);
    if (!begins_a_number(text, 0) || errno || (double)width < option->low || (double)width > option->high)
        return 0;
    for (size_t i = 0; i < sizeof signs / sizeof *signs; i++)
        if (!strncmp(behind, signs[i], strlen(signs[i])) && begins_a_number(behind + strlen(signs[i]), 0) &&
            read_int(option, behind + strlen(signs[i]), &sides[1])) {
            sides[0] = width;
            return 1;
        }
    return 0;
}

/* Words for the colours that backgrounds mostly have. */
static const struct {
    const char *name;
    uint8_t rgb[3];
} colours[] = {{"white", {255, 255, 255}}, {"black", {0, 0, 0}}, {"grey", {128, 128, 128}}};

/* A word, or six hexadecimal digits with or without # before them. */
static int read_colour(const char *text, uint8_t rgb[3])
{
    for (size_t i = 0; i < sizeof colours / sizeof *colours; i++)
        if (!strcmp(text, colours[i].name)) {
            memcpy(rgb, colours[i].rgb, sizeof colours[i].rgb);
            return 1;
        }
    text += *text == '#';
    if (strspn(text, "0123456789abcdefABCDEF") != 6 || text[6])
        return 0;
    unsigned long number = strtoul(text, NULL, 16);
    for (int i = 0; i < 3; i++)
        rgb[i] = (uint8_t)(number >> (16 - 8 * i));
    return 1;
}

static int add_file(const char *text, cli_files *files)
{
    if (!*text || files->count == CLI_FILES_MAX)
        return 0;
    files->paths[files->count++] = text;
    return 1;
}

static int read_enum(const cli_option *option, const char *text, int *value)
{
    const char *name;
    for (int i = 0; (name = option->value_name(i)); i++)
        if (!strcmp(text, name)) {
            *value = i;
            return 1;
        }
    return 0;
}

/* Whether the name of a file that will be written commands a terminal: whoever lists the folder would run it. A name in
 * another encoding than UTF-8 is left to the user. */
static int has_control(const char *name)
{
    json_t *text = json_string(name); /* NULL: it is not UTF-8 */
    int control = text && zimage_printable(name, NULL, 0) != strlen(name);
    json_decref(text);
    for (const char *c = name; *c; c++)
        control |= isascii((unsigned char)*c) && iscntrl((unsigned char)*c);
    return control;
}

static int read_value(const cli_option *option, const char *text, void *field)
{
    switch (option->kind) {
    case CLI_FLAG:
        *(int *)field = 1;
        return 1;
    case CLI_INT:
        return read_int(option, text, field);
    case CLI_UINT64:
        return read_uint64(text, field);
    case CLI_FLOAT:
        return read_float(option, text, field);
    case CLI_SIZE:
        return read_size(text, field);
    case CLI_PIXELS:
        return read_pixels(option, text, field);
    case CLI_ENUM:
        return read_enum(option, text, field);
    case CLI_TEXT:
        *(const char **)field = text;
        return 1;
    case CLI_FILE:
    case CLI_FOLDER:
        *(const char **)field = text;
        return *text && !(option->written && has_control(text));
    case CLI_FILES:
        return add_file(text, field);
    case CLI_COLOUR:
        return read_colour(text, field);
    }
    return 0;
}

int cli_set(cli_options *options, const cli_option *option, const char *text)
{
    if (!read_value(option, text, (char *)options + option->offset))
        return 0;
    options->given = row_set_union(options->given, cli_all_of(option));
    return 1;
}

void cli_set_flag(cli_options *options, const cli_option *option, int value)
{
    *(int *)(void *)((char *)options + option->offset) = value;
    options->given = row_set_union(options->given, cli_set_of(option));
}

void cli_append(char *text, size_t size, const char *format, ...)
{
    size_t used = strlen(text);
    va_list arguments;
    va_start(arguments, format);
    vsnprintf(text + used, size - used, format, arguments);
    va_end(arguments);
}

void cli_value_names(const cli_option *option, const char *last, char text[CLI_TEXT_MAX])
{
    const char *name;
    *text = 0;
    for (int i = 0; (name = option->value_name(i)); i++)
        cli_append(text, CLI_TEXT_MAX, "%s%s", i == 0 ? "" : option->value_name(i + 1) ? ", " : last, name);
}

void cli_expected(const cli_option *option, char text[CLI_TEXT_MAX])
{
    char names[CLI_TEXT_MAX];
    const char *words = "a text";
    switch (option->kind) {
    case CLI_INT:
        snprintf(text, CLI_TEXT_MAX, "a whole number from %.0f to %.0f", option->low, option->high);
        return;
    case CLI_UINT64:
        snprintf(text, CLI_TEXT_MAX, "a whole number from 0 to %llu", ULLONG_MAX);
        return;
    case CLI_FLOAT:
        snprintf(text, CLI_TEXT_MAX, option->above_low ? "a number above %g, at most %g" : "a number from %g to %g",
                 option->low, option->high);
        return;
    case CLI_FILES:
        snprintf(text, CLI_TEXT_MAX, "a file name, of at most %d files", CLI_FILES_MAX);
        return;
    case CLI_COLOUR:
        words = "a colour such as white, black, grey or #ffcc00";
        break;
    case CLI_ENUM:
        cli_value_names(option, " or ", names);
        words = names;
        break;
    case CLI_SIZE:
        words = "a size such as 6G, 512M or a number of bytes";
        break;
    case CLI_PIXELS:
        words = "a width and a height such as 1024x768";
        break;
    case CLI_FILE:
        words = option->written ? "a file name without control characters" : "a file name";
        break;
    case CLI_FOLDER:
        words = option->written ? "the name of a folder, without control characters" : "the name of a folder";
        break;
    case CLI_FLAG:
        words = "true or false";
        break;
    case CLI_TEXT:
        break;
    }
    snprintf(text, CLI_TEXT_MAX, "%s", words);
}

double cli_number(const cli_options *options, const cli_option *option)
{
    const void *field = (const char *)options + option->offset;
    switch (option->kind) {
    case CLI_INT:
        return (double)*(const int64_t *)field;
    case CLI_UINT64:
    case CLI_SIZE:
        return (double)*(const uint64_t *)field;
    case CLI_FLOAT:
        return *(const double *)field;
    default:
        return *(const int *)field;
    }
}

const char *cli_text(const cli_options *options, const cli_option *option)
{
    return *(const char *const *)(const void *)((const char *)options + option->offset);
}
