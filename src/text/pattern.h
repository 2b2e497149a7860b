/* The regular expressions that mean the same in PCRE2 and in Oniguruma, which the `tokenizers` package uses. */
#ifndef ZI_TEXT_PATTERN_H
#define ZI_TEXT_PATTERN_H

#include "base/error.h"

/* ZIMAGE_ERROR_UNSUPPORTED for any other regular expression. where: the file and the field, for the message. */
zimage_status zi_pattern_check(const char *pattern, const char *where, zimage_error *error);

#endif
