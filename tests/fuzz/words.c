/* A model's list of what it knows, from a stranger, and a prompt that is compared with it: a zero is between them. */
#include <stdlib.h>
#include <string.h>

#include "fuzz.h"
#include "shared/fold.h"
#include "shared/vocabulary.h"

#define NAMES 4

static void unknown(const char *part, const char *nearest, void *user)
{
    if (!*part || (nearest && !*nearest))
        zi_fuzz_fail("an empty word");
    if (fold_fault(part))
        zi_fuzz_fail("a part that nobody should see: %s", fold_fault(part));
    ++*(size_t *)user;
}

/* A text folds to a key that folds to itself, with tokens in the order of the text. */
static void check_folding(const char *text)
{
    folded one, two;
    size_t length = strlen(text), end = 0;
    if (!fold_text(text, &one) || !fold_text(one.key, &two))
        zi_fuzz_fail("out of memory");
    if (strcmp(one.key, two.key) != 0 || one.count != two.count)
        zi_fuzz_fail("another key");
    for (size_t i = 0; i < one.count; i++) {
        const fold_token *token = &one.tokens[i];
        if (token->from >= token->to || token->to > length || token->from + 4 < end)
            zi_fuzz_fail("token %zu from %zu to %zu", i, token->from, token->to);
        end = token->to;
    }
    fold_free(&one);
    fold_free(&two);
}

/* Every name is found by its own spelling. */
static void check(const vocabulary *list)
{
    for (size_t i = 0; i < vocabulary_count(list) && i < NAMES; i++) {
        const vocabulary_name *name = vocabulary_at(list, i);
        check_folding(name->text);
        if (name->thing && name->is_known && *name->key && !vocabulary_nearest(list, name->text))
            zi_fuzz_fail("a name that is far from itself");
    }
}

static int run(const uint8_t *data, size_t size)
{
    const uint8_t *zero = memchr(data, 0, size);
    size_t length = zero ? (size_t)(zero - data) : size, calls = 0;
    char *text = malloc(length + 2), *prompt = calloc(size - length + 1, 1);
    zimage_error error = ZIMAGE_ERROR_INIT;
    vocabulary *list = NULL;
    if (!text || !prompt)
        zi_fuzz_fail("out of memory");
    memcpy(text, data, length);
    if (zero)
        memcpy(prompt, zero + 1, size - length - 1);
    zimage_status status = vocabulary_parse(text, length, "words.txt", &list, &error);
    if ((status == ZIMAGE_OK) != !!list || (status != ZIMAGE_OK && !*error.message))
        zi_fuzz_fail("a status without a reason");
    if (list) {
        char said[VOCABULARY_WARNING];
        check(list);
        check_folding(prompt);
        if (vocabulary_check(list, prompt, unknown, &calls) != calls || calls > VOCABULARY_PARTS)
            zi_fuzz_fail("%zu calls", calls);
        if (vocabulary_warning(list, "the model", prompt, said) != (calls > 0) || (calls && fold_fault(said)))
            zi_fuzz_fail("%s", said);
    }
    vocabulary_free(list);
    free(prompt);
    return ZI_FUZZ_KEEP;
}

const zi_fuzz_target zi_fuzz_words = {.name = "words", .run = run};
