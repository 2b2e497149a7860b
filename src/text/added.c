#include "text/added.h"

#include <string.h>

#include "base/numbers.h"
#include "text/grow.h"

zimage_status zi_added_push(zi_added *added, const char *content, const zi_added_token *like, zimage_error *error)
{
    zi_added_token *tokens = zi_grow(added->tokens, &added->capacity, added->count + 1, sizeof *tokens);
    if (!tokens)
        return zi_fail_memory(error, "added tokens", (added->count + 1) * sizeof *tokens);
    added->tokens = tokens;
    zi_added_token *token = &tokens[added->count];
    *token = *like;
    token->content = malloc(like->length + 1);
    if (!token->content)
        return zi_fail_memory(error, "an added token", like->length + 1);
    memcpy(token->content, content, like->length);
    token->content[like->length] = '\0';
    added->starts[(uint8_t)content[0]] = 1;
    added->count++;
    return ZIMAGE_OK;
}

/* The order of strings of unsigned bytes; a prefix comes before the longer string. */
static int compare(const void *a, const void *b)
{
    const zi_added_token *x = a, *y = b;
    int order = memcmp(x->content, y->content, zi_min_size(x->length, y->length));
    if (order)
        return order;
    return (x->length > y->length) - (x->length < y->length);
}

const char *zi_added_seal(zi_added *added)
{
    if (added->count < 2)
        return NULL;
    qsort(added->tokens, added->count, sizeof *added->tokens, compare);
    for (size_t i = 1; i < added->count; i++)
        if (!compare(&added->tokens[i - 1], &added->tokens[i]))
            return added->tokens[i].content;
    return NULL;
}

void zi_added_free(zi_added *added)
{
    for (size_t i = 0; i < added->count; i++)
        free(added->tokens[i].content);
    free(added->tokens);
    *added = (zi_added){0};
}

/* The first token in [low, high), all of them longer than depth, whose byte at `depth` is at least `byte`. */
static size_t lower_bound(const zi_added *added, size_t low, size_t high, size_t depth, unsigned byte)
{
    while (low < high) {
        size_t middle = (low + high) / 2;
        if ((uint8_t)added->tokens[middle].content[depth] < byte)
            low = middle + 1;
        else
            high = middle;
    }
    return low;
}

/*
 * The longest token that is a prefix of text. The tokens [low, high) have the first `depth` bytes of text in common. In
 * the sorted table they are neighbours, and the token of exactly depth bytes is the first of them.
 */
static const zi_added_token *longest_at(const zi_added *added, const char *text, size_t length)
{
    const zi_added_token *longest = NULL;
    size_t low = 0, high = added->count;
    for (size_t depth = 0;; depth++) {
        if (low < high && added->tokens[low].length == depth)
            longest = &added->tokens[low++];
        if (low >= high || depth >= length)
            return longest;
        unsigned byte = (uint8_t)text[depth];
        low = lower_bound(added, low, high, depth, byte);
        high = lower_bound(added, low, high, depth, byte + 1);
    }
}

const zi_added_token *zi_added_find(const zi_added *added, const char *content)
{
    size_t length = strlen(content);
    const zi_added_token *token = length ? longest_at(added, content, length) : NULL;
    return token && token->length == length ? token : NULL;
}

const zi_added_token *zi_added_next(const zi_added *added, const char *text, size_t length, size_t from, size_t *at)
{
    if (!added->count)
        return NULL;
    for (size_t i = from; i < length; i++) {
        if (!added->starts[(uint8_t)text[i]])
            continue;
        const zi_added_token *token = longest_at(added, text + i, length - i);
        if (token) {
            *at = i;
            return token;
        }
    }
    return NULL;
}
