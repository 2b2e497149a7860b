/* zimage tokenize: the token ids of a text. */
#include <errno.h>
#include <getopt.h>
#include <stdlib.h>
#include <string.h>

#include "cli.h"

#define COMMAND     "tokenize"
#define INPUT_LIMIT ((size_t)512 << 20) /* more than the library takes: its error says so */

static const char help[] =
    "usage: zimage tokenize [OPTIONS] TEXT\n"
    "\n"
    "Prints the token ids of TEXT on one line, without truncation. TEXT \"-\" reads standard input,\n"
    "byte for byte: a newline at its end counts. \"--\" before TEXT lets it begin with a dash.\n"
    "\n"
    "  -m, --model DIR      a model folder, a tokenizer folder or a tokenizer.json\n"
    "                       (default: the bundled emoji model)\n"
    "      --template NAME  none (default), z-image or klein: wrap TEXT as the model's prompts are\n"
    "      --json           print one JSON object: template, count, ids\n"
    "  -h, --help\n";

typedef struct options {
    const char *model;
    const char *text;
    const char *template_name;
    zimage_template template_kind;
    int json;
} options;

static int parse_template(const char *name, zimage_template *kind)
{
    static const char *const NAMES[] = {
        [ZIMAGE_TEMPLATE_NONE] = "none", [ZIMAGE_TEMPLATE_Z_IMAGE] = "z-image", [ZIMAGE_TEMPLATE_KLEIN] = "klein"};
    for (size_t i = 0; i < sizeof NAMES / sizeof NAMES[0]; i++)
        if (!strcmp(name, NAMES[i])) {
            *kind = (zimage_template)i;
            return 1;
        }
    return 0;
}

/* 1: go on; 0: done, with the exit code. */
static int parse_options(int argc, char **argv, options *o, int *code)
{
    static const struct option LONG[] = {{"model", required_argument, NULL, 'm'},
                                         {"template", required_argument, NULL, 't'},
                                         {"json", no_argument, NULL, 'j'},
                                         {"help", no_argument, NULL, 'h'},
                                         {NULL, 0, NULL, 0}};
    int option;
    while ((option = getopt_long(argc, argv, "m:h", LONG, NULL)) != -1) {
        switch (option) {
        case 'm':
            o->model = optarg;
            break;
        case 't':
            o->template_name = optarg;
            break;
        case 'j':
            o->json = 1;
            break;
        case 'h':
            fputs(help, stdout);
            *code = 0;
            return 0;
        default:
            *code = CLI_USAGE; /* getopt has said why */
            return 0;
        }
    }
    if (!parse_template(o->template_name, &o->template_kind))
        *code =
            cli_usage_error(COMMAND, "--template: expected none, z-image or klein but got \"%s\"", o->template_name);
    else if (optind + 1 != argc)
        *code = cli_usage_error(COMMAND, "expected one TEXT (quote it) but got %d; see zimage tokenize --help",
                                argc - optind);
    else
        o->text = argv[optind];
    return o->text != NULL;
}

/* All of standard input (or a little more than INPUT_LIMIT); free() it. NULL: a printed sentence. */
static char *read_input(size_t *length)
{
    char *text = NULL;
    size_t capacity = 0;
    *length = 0;
    do {
        if (*length == capacity) {
            char *more = capacity <= SIZE_MAX / 2 ? realloc(text, capacity ? 2 * capacity : 65536) : NULL;
            if (!more) {
                fprintf(stderr, "zimage " COMMAND ": out of memory while reading standard input\n");
                free(text);
                return NULL;
            }
            text = more;
            capacity = capacity ? 2 * capacity : 65536;
        }
        *length += fread(text + *length, 1, capacity - *length, stdin);
    } while (*length <= INPUT_LIMIT && !feof(stdin) && !ferror(stdin));
    if (ferror(stdin)) {
        fprintf(stderr, "zimage " COMMAND ": can't read standard input: %s\n", strerror(errno));
        free(text);
        return NULL;
    }
    return text;
}

static int print_ids(const options *o, const int32_t *ids, size_t count)
{
    const char *between = o->json ? ", " : " ";
    if (o->json)
        printf("{\"template\": \"%s\", \"count\": %zu, \"ids\": [", o->template_name, count);
    for (size_t i = 0; i < count; i++)
        printf("%s%d", i ? between : "", (int)ids[i]);
    puts(o->json ? "]}" : "");
    if (fflush(stdout) == 0 && !ferror(stdout))
        return 0;
    fprintf(stderr, "zimage " COMMAND ": can't write to standard output: %s\n", strerror(errno));
    return CLI_FAILURE;
}

static int tokenize(const options *o, const char *text, size_t length)
{
    zimage_error error = ZIMAGE_ERROR_INIT;
    zimage_tokenizer *tokenizer = NULL;
    if (zimage_tokenizer_open(o->model ? o->model : cli_default_model(), &tokenizer, &error) != ZIMAGE_OK)
        return cli_failure(COMMAND, &error);
    int32_t *ids = NULL;
    size_t count = 0;
    int code;
    if (zimage_tokenizer_encode(tokenizer, o->template_kind, text, length, &ids, &count, &error) == ZIMAGE_OK)
        code = print_ids(o, ids, count);
    else
        code = cli_failure(COMMAND, &error);
    zimage_free(ids);
    zimage_tokenizer_close(tokenizer);
    return code;
}

int cmd_tokenize(int argc, char **argv)
{
    options o = {.template_name = "none"};
    int code = CLI_USAGE;
    if (!parse_options(argc, argv, &o, &code))
        return code;
    if (strcmp(o.text, "-") != 0)
        return tokenize(&o, o.text, strlen(o.text));
    size_t length;
    char *text = read_input(&length);
    if (!text)
        return CLI_FAILURE;
    code = tokenize(&o, text, length);
    free(text);
    return code;
}
