/* Lists of words in a text. */
#ifndef ZI_SHARED_WORDS_H
#define ZI_SHARED_WORDS_H

#include <stddef.h>

/* Whether a list holds a word. The words are separated by one of two characters: a space, or that one. compare: strncmp
 * or strncasecmp. The list may be NULL. */
int words_have(const char *list, char separator, const char *word, int (*compare)(const char *, const char *, size_t));

#endif
