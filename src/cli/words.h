/* Warnings of words that a model does not know. */
#ifndef ZI_CLI_WORDS_H
#define ZI_CLI_WORDS_H

#include "shared/vocabulary.h"

/* Warns of each part of the prompt (NULL: none) that the list (NULL: none) does not know. model: how it is called. */
void cli_words_warn(const vocabulary *list, const char *model, const char *prompt);

#endif
