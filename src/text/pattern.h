/* The regular expression syntax that means the same here (PCRE2) and in the reference (Oniguruma, as in Ruby). */
#ifndef ZI_TEXT_PATTERN_H
#define ZI_TEXT_PATTERN_H

#include "base/error.h"

/* ZIMAGE_ERROR_UNSUPPORTED names the first construct outside that part. where: file and field, for the message. */
zimage_status zi_pattern_check(const char *pattern, const char *where, zimage_error *error);

#endif
