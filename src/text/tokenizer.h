/*
 * The byte-level BPE tokenizer of Qwen2/Qwen3 from a tokenizer.json: NFC (utf8proc), the file's own split pattern
 * (PCRE2), byte table, merges in both spellings, added tokens. Immutable after loading, so shareable between threads.
 */
#ifndef ZI_TEXT_TOKENIZER_H
#define ZI_TEXT_TOKENIZER_H

#include "base/error.h"

typedef struct zi_tokenizer zi_tokenizer;

/* path: the tokenizer.json itself. */
zimage_status zi_tokenizer_load(const char *path, zi_tokenizer **tokenizer, zimage_error *error);
void zi_tokenizer_free(zi_tokenizer *tokenizer);
int64_t zi_tokenizer_vocab_size(const zi_tokenizer *tokenizer); /* largest id + 1, added tokens included */

/* Wraps UTF-8 text of `length` bytes in the template's exact string (text-encoder spec 5; none: as it is) and encodes the
 * whole. Invalid UTF-8 is an error that gives the byte offset. *ids: free(). */
zimage_status zi_tokenizer_encode_prompt(const zi_tokenizer *tokenizer, zimage_template template_kind, const char *text,
                                         size_t length, int32_t **ids, size_t *count, zimage_error *error);

#endif
