/* zimage words: what the model can draw, by the list in its folder. */
#include <stdlib.h>
#include <string.h>

#include "cli.h"
#include "shared/fold.h"
#include "shared/vocabulary.h"
#include "words.h"

#define COMMAND "words"

vocabulary *cli_words_read(const cli_options *options, zimage_log_fn log, void *user)
{
    zimage_error error = ZIMAGE_ERROR_INIT;
    vocabulary *list = NULL;
    if (!options->text_encoder && vocabulary_read(cli_model(options), &list, &error) != ZIMAGE_OK)
        log(ZIMAGE_LOG_WARNING, error.message, user);
    return list;
}

void cli_words_warn(const vocabulary *list, const char *model, const char *prompt, zimage_log_fn log, void *user)
{
    char text[VOCABULARY_WARNING];
    if (vocabulary_warning(list, model, prompt, text))
        log(ZIMAGE_LOG_WARNING, text, user);
}

/* The words that were asked for. */
typedef struct question {
    const char *key;
    int is_beginning; /* the last one may go on */
} question;

/* Whether a name holds them. */
static int has(const vocabulary_name *name, const question *q)
{
    size_t length = strlen(q->key);
    for (const char *at = name->key; (at = strstr(at, q->key)); at++)
        if ((at == name->key || at[-1] == ' ') && (q->is_beginning || at[length] == ' ' || !at[length]))
            return 1;
    return 0;
}

/* The names of a thing, from the list's entry `first` on, that hold the words; NULL: no memory. */
static json_t *matching(const vocabulary *list, size_t first, const question *q, size_t *next)
{
    json_t *names = json_array();
    const char *thing = vocabulary_at(list, first)->thing;
    size_t i = first;
    for (; i < vocabulary_count(list) && vocabulary_at(list, i)->thing == thing; i++) {
        const vocabulary_name *name = vocabulary_at(list, i);
        if (has(name, q))
            json_array_append_new(names, json_pack("{s:s, s:b}", "name", name->text, "known", name->is_known));
    }
    *next = i;
    return names;
}

static void print_thing(const char *thing, const json_t *names)
{
    char line[4096] = "";
    size_t i;
    const json_t *name;
    json_array_foreach(names, i, name)
    {
        const char *text = json_string_value(json_object_get(name, "name"));
        if (text && strcmp(text, thing) != 0)
            cli_append(line, sizeof line, "%s%s%s", *line ? ", " : ": ", text,
                       json_is_true(json_object_get(name, "known")) ? "" : " (not known)");
    }
    cli_line(stdout, "%s%s", thing, line);
}

/* Whether one of the names from `first` up to `next` is the key. */
static int is_exact(const vocabulary *list, size_t first, size_t next, const char *key)
{
    while (first < next && strcmp(vocabulary_at(list, first)->key, key) != 0)
        first++;
    return first < next;
}

/* Prints the things of which a name is what was asked for (exact), or holds it and more; returns how many there are. */
static int print_things(const cli_options *o, const vocabulary *list, const question *q, int exact, json_t *array)
{
    int count = 0;
    for (size_t i = 0, next; i < vocabulary_count(list); i = next) {
        const char *thing = vocabulary_at(list, i)->thing;
        json_t *names = matching(list, i, q, &next);
        if (thing && json_array_size(names) > 0 && is_exact(list, i, next, q->key) == exact) {
            count++;
            if (!o->json)
                print_thing(thing, o->text ? names : NULL);
            else
                json_array_append_new(array, json_pack("{s:s, s:O}", "thing", thing, "names", names));
        }
        json_decref(names);
    }
    return count;
}

static int print_list(const cli_options *o, const vocabulary *list)
{
    const char *text = o->text ? o->text : "";
    folded asked = {0};
    json_t *array = o->json ? json_array() : NULL;
    int code = 0;
    if (!fold_text(text, &asked) || (o->json && !array)) {
        (void)cli_usage_error(COMMAND, "out of memory");
        code = CLI_FAILURE;
    } else if (o->text && asked.count == 0) {
        code = cli_usage_error(COMMAND, "TEXT: \"%.100s\", expected a word", text);
    }
    if (code) {
        fold_free(&asked);
        json_decref(array);
        return code;
    }
    question q = {asked.key, !o->text};
    int count = print_things(o, list, &q, 1, array);
    count += print_things(o, list, &q, 0, array);
    q.is_beginning = 1;
    if (count == 0)
        count = print_things(o, list, &q, 0, array);
    fold_free(&asked);
    const char *nearest = count ? NULL : vocabulary_nearest(list, text);
    if (o->json) {
        code = cli_print_json(COMMAND, json_pack("{s:o, s:s?}", "things", array, "nearest", nearest), CLI_EXACT);
        return code ? code : count ? 0 : CLI_FAILURE;
    }
    if (count)
        return 0;
    (void)cli_usage_error(COMMAND, "the model does not know \"%.100s\"%s%s", text, nearest ? "; nearest: " : "",
                          nearest ? nearest : "");
    return CLI_FAILURE;
}

int cmd_words(const cli_options *o)
{
    zimage_error error = ZIMAGE_ERROR_INIT;
    vocabulary *list = NULL;
    if (!cli_has_model(COMMAND, o))
        return CLI_USAGE;
    if (vocabulary_read(cli_model(o), &list, &error) != ZIMAGE_OK)
        return cli_failure(COMMAND, &error);
    if (!list)
        return cli_usage_error(COMMAND,
                               "%s: there is no " VOCABULARY_FILE ", expected a list of the words that the model knows",
                               cli_model(o));
    int code = print_list(o, list);
    vocabulary_free(list);
    return code;
}
