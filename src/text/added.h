/*
 * Added tokens: strings that become one id wherever they are in a text. Of overlapping ones the leftmost is taken, of
 * those that begin at the same place the longest.
 */
#ifndef ZI_TEXT_ADDED_H
#define ZI_TEXT_ADDED_H

#include "base/error.h"

typedef struct zi_added_token {
    char *content;
    size_t length;
    int32_t id;
    int special;   /* 1: control of the model, which "split_special_tokens" takes for ordinary text */
    size_t prefix; /* once sealed: 1 + the index of the longest other token that this one begins with; 0: none */
} zi_added_token;

typedef struct zi_added {
    zi_added_token *tokens; /* sorted by content once sealed */
    size_t count;
    size_t capacity;
    uint8_t starts[256]; /* 1: there is a token that begins with this byte */
} zi_added;

/* Adds a token with the length, id and flag of `like`. Copies content. */
zimage_status zi_added_push(zi_added *added, const char *content, const zi_added_token *like, zimage_error *error);
/* Sorts the tokens, after the last push. Returns a content that was pushed twice, or NULL. */
const char *zi_added_seal(zi_added *added);
void zi_added_free(zi_added *added);

const zi_added_token *zi_added_find(const zi_added *added, const char *content);

/* The first token at or after `from`; *at is where it begins. NULL: there is none. */
const zi_added_token *zi_added_next(const zi_added *added, const char *text, size_t length, size_t from, size_t *at);

#endif
