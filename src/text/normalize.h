/* Unicode normalisation form C (NFC) with utf8proc, in the Unicode version of the `tokenizers` package. */
#ifndef ZI_TEXT_NORMALIZE_H
#define ZI_TEXT_NORMALIZE_H

#include "base/error.h"

/* Buffers of one caller, which keeps them from text to text. Initialise with {0}. */
typedef struct zi_normalizer {
    char *text; /* the result */
    size_t length;
    size_t text_capacity;
    int32_t *codes; /* the current run */
    size_t count;
    size_t code_capacity;
    int32_t *sorted; /* for sorting a long run of combining marks */
    size_t sorted_capacity;
} zi_normalizer;

/* *result is `text` itself where nothing changes; otherwise it belongs to the normalizer, until the next call. */
zimage_status zi_normalize_nfc(zi_normalizer *normalizer, const char *text, size_t length, const char **result,
                               size_t *result_length, zimage_error *error);
void zi_normalizer_free(zi_normalizer *normalizer);

#endif
