/* What a chat template makes of one message of the user. */
#ifndef ZI_TEXT_TEMPLATE_H
#define ZI_TEXT_TEMPLATE_H

#include "text/tokenizer_internal.h"

/*
 * *whole: the text that the template makes of the prompt, *total bytes; released with free(). The folder's template
 * comes first, then the one of docs/spec/text-encoder.md 5.
 */
zimage_status zi_template_apply(const zi_tokenizer *tokenizer, zimage_template kind, const char *prompt, size_t length,
                                char **whole, size_t *total, zimage_error *error);

#endif
