/* zimage tokenize: the token ids of a text. */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "cli.h"
#include "names.h"

#define COMMAND     "tokenize"
#define INPUT_LIMIT ((size_t)2 << 20) /* more than the library takes: its error says so */

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

static int print_ids(const cli_options *o, const int32_t *ids, size_t count)
{
    const char *between = o->json ? ", " : " ";
    if (o->json)
        printf("{\"template\": \"%s\", \"count\": %zu, \"ids\": [", cli_template_name(o->template_kind), count);
    for (size_t i = 0; i < count; i++)
        printf("%s%d", i ? between : "", (int)ids[i]);
    puts(o->json ? "]}" : "");
    return 0;
}

static int tokenize(const cli_options *o, const char *text, size_t length)
{
    zimage_error error = ZIMAGE_ERROR_INIT;
    zimage_tokenizer *tokenizer = NULL;
    if (zimage_tokenizer_open(cli_model(o), &tokenizer, &error) != ZIMAGE_OK)
        return cli_failure(COMMAND, &error);
    int32_t *ids = NULL;
    size_t count = 0;
    int code;
    if (zimage_tokenizer_encode(tokenizer, (zimage_template)o->template_kind, text, length, &ids, &count, &error) ==
        ZIMAGE_OK)
        code = print_ids(o, ids, count);
    else
        code = cli_failure(COMMAND, &error);
    zimage_free(ids);
    zimage_tokenizer_close(tokenizer);
    return code;
}

int cmd_tokenize(const cli_options *o)
{
    if (strcmp(o->text, "-") != 0)
        return tokenize(o, o->text, strlen(o->text));
    size_t length;
    char *text = read_input(&length);
    if (!text)
        return CLI_FAILURE;
    int code = tokenize(o, text, length);
    free(text);
    return code;
}
