/* Lists of words in a text. */
#ifndef ZI_SHARED_WORDS_H
#define ZI_SHARED_WORDS_H

#include <stddef.h>

/* The first word of a list, or of what follows a word of it; NULL: there is none. The words are separated by one of two
 * characters: a space, or that one. The list may be NULL. */
const char *words_next(const char *text, char separator, size_t *length);
/* Whether a list holds a word. compare: strncmp or strncasecmp. */
int words_have(const char *list, char separator, const char *word, int (*compare)(const char *, const char *, size_t));

#endif
