/* Warnings of words that a model does not know. */
#ifndef ZI_CLI_WORDS_H
#define ZI_CLI_WORDS_H

#include "options.h"
#include "shared/vocabulary.h"

/* What the model of the options knows; vocabulary_free it. NULL: it does not say, or another text encoder is given. The
 * list is only advice: one that can't be read is a warning, too. */
vocabulary *cli_words_read(const cli_options *options, zimage_log_fn log, void *user);
/* Warns of what the list (NULL: none) does not know in the prompt (NULL: none). model: how it is called. */
void cli_words_warn(const vocabulary *list, const char *model, const char *prompt, zimage_log_fn log, void *user);

#endif
