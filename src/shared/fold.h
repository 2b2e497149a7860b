/*
 * Texts as they are compared with names: Unicode's NFKC with full case folding (utf8proc), cut into tokens. A token is
 * a run of letters, their marks, and digits; a Chinese character or a kana is a token of its own, because these are
 * written without spaces between words. All else (spaces, punctuation, emoji, bytes that are no UTF-8) separates
 * tokens.
 */
#ifndef ZI_SHARED_FOLD_H
#define ZI_SHARED_FOLD_H

#include <stddef.h>
#include <stdint.h>

typedef enum fold_script { FOLD_LETTERS, FOLD_NUMBER, FOLD_HAN, FOLD_HIRAGANA, FOLD_KATAKANA } fold_script;

typedef struct fold_token {
    size_t from, to;    /* the bytes of the text that it was made of */
    size_t at;          /* where it begins in the key */
    fold_script script; /* of its first character; FOLD_NUMBER: it begins with a digit */
} fold_token;

typedef struct folded {
    char *key; /* the tokens, separated by spaces; the same key folds to itself */
    fold_token *tokens;
    size_t count;
} folded;

/* Takes time in proportion to the text's length. 0: no memory. fold_free it. */
int fold_text(const char *text, folded *out);
void fold_free(folded *f);

/* What a character (a code point) is for a word. Invisible ones are joiners and marks of the writing direction. */
typedef enum fold_kind { FOLD_LETTER, FOLD_MARK, FOLD_INVISIBLE, FOLD_SEPARATOR } fold_kind;
fold_kind fold_kind_of(int32_t code);
/* Whether the script is written without spaces. */
int fold_is_alone(fold_script script);
/* The characters of a key, spaces left out, `most` at most; returns how many there are, or most + 1. */
size_t fold_characters(const char *key, int32_t *out, size_t most);
/* NULL, or why a text is none that a person should see: it is not valid UTF-8, or holds a control character. */
const char *fold_fault(const char *text);

#endif
