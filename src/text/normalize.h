/* Unicode normalisation form C, by utf8proc, with the reference's version of Unicode. */
#ifndef ZI_TEXT_NORMALIZE_H
#define ZI_TEXT_NORMALIZE_H

#include "base/error.h"

/* Buffers of one call, reused from one stretch of text to the next. Start with zeros. */
typedef struct zi_normalizer {
    char *text; /* the result */
    size_t length;
    size_t text_capacity;
    int32_t *codes; /* the run being composed */
    size_t count;
    size_t code_capacity;
    int32_t *sorted; /* a long run of combining marks while it is put in order */
    size_t sorted_capacity;
} zi_normalizer;

/* *result is valid UTF-8 that points into `text` (nothing to change) or into the normalizer (until the next call). */
zimage_status zi_normalize_nfc(zi_normalizer *normalizer, const char *text, size_t length, const char **result,
                               size_t *result_length, zimage_error *error);
void zi_normalizer_free(zi_normalizer *normalizer);

#endif
