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

static int begins_with(const zi_added_token *token, const zi_added_token *prefix)
{
    return prefix->length <= token->length && memcmp(token->content, prefix->content, prefix->length) == 0;
}

const char *zi_added_seal(zi_added *added)
{
    zi_added_token *tokens = added->tokens;
    if (added->count > 1)
        qsort(tokens, added->count, sizeof *tokens, compare);
    for (size_t i = 0; i < added->count; i++) {
        if (i > 0 && !compare(&tokens[i - 1], &tokens[i]))
            return tokens[i].content;
        size_t prefix = i;
        while (prefix > 0 && !begins_with(&tokens[i], &tokens[prefix - 1]))
            prefix = tokens[prefix - 1].prefix;
        tokens[i].prefix = prefix;
    }
    return NULL;
}

void zi_added_free(zi_added *added)
{
    for (size_t i = 0; i < added->count; i++)
        free(added->tokens[i].content);
    free(added->tokens);
    *added = (zi_added){0};
}

/* The number of tokens that are not behind the text in the order of compare(). */
static size_t count_up_to(const zi_added *added, const char *text, size_t length)
{
    size_t low = 0, high = added->count;
    while (low < high) {
        size_t middle = (low + high) / 2;
        const zi_added_token *token = &added->tokens[middle];
        int order = memcmp(token->content, text, zi_min_size(token->length, length));
        if (order < 0 || (order == 0 && token->length <= length))
            low = middle + 1;
        else
            high = middle;
    }
    return low;
}

/*
 * The longest token that the text begins with. Such tokens are not behind the text in the order. Everything between one
 * of them and the text begins with it, too. So all of them are prefixes of the last token that is not behind the text.
 */
static const zi_added_token *longest_at(const zi_added *added, const char *text, size_t length)
{
    size_t at = count_up_to(added, text, length), common = 0;
    if (at == 0)
        return NULL;
    const zi_added_token *last = &added->tokens[at - 1];
    size_t most = zi_min_size(last->length, length);
    while (common < most && last->content[common] == text[common])
        common++;
    while (at > 0 && added->tokens[at - 1].length > common)
        at = added->tokens[at - 1].prefix;
    return at > 0 ? &added->tokens[at - 1] : NULL;
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
