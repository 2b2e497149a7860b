/* A model's list of what it knows, from a stranger, and a prompt that is compared with it: a zero is between them. */
#include <stdlib.h>
#include <string.h>

#include "fuzz.h"
#include "shared/vocabulary.h"

#define CALLS      4
#define NEAR_BYTES 12 /* at least three characters: shorter words are near to nothing */

static void unknown(const char *part, const char *nearest, void *user)
{
    if (!*part || (nearest && !*nearest))
        zi_fuzz_fail("an empty word");
    ++*(size_t *)user;
}

/* Every name is found by its own spelling, and a known one is nothing to warn of. */
static void check(const vocabulary *list)
{
    for (size_t i = 0; i < vocabulary_count(list) && i < CALLS; i++) {
        const vocabulary_name *name = vocabulary_at(list, i);
        char *key = vocabulary_key(name->text);
        if (!key || strcmp(key, name->key) != 0)
            zi_fuzz_fail("another key");
        free(key);
        if (name->thing && name->is_known && *name->key && strlen(name->key) < 32 && strlen(name->key) >= NEAR_BYTES &&
            !vocabulary_nearest(list, name->key))
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
        check(list);
        if (vocabulary_check(list, prompt, CALLS, unknown, &calls) != calls || calls > CALLS)
            zi_fuzz_fail("%zu calls", calls);
    }
    vocabulary_free(list);
    free(prompt);
    return ZI_FUZZ_KEEP;
}

const zi_fuzz_target zi_fuzz_words = {.name = "words", .run = run};
