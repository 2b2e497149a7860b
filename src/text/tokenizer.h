/*
 * The byte-level BPE tokenizer of Qwen2 and Qwen3, from a tokenizer.json (docs/spec/text-encoder.md 7). It gives the
 * ids of the `tokenizers` package, which the comments of this module call the reference. A loaded tokenizer never
 * changes, so any number of threads may use it.
 */
#ifndef ZI_TEXT_TOKENIZER_H
#define ZI_TEXT_TOKENIZER_H

#include "base/error.h"

typedef struct zi_tokenizer zi_tokenizer;

/* path: the tokenizer.json itself. The caller frees *tokenizer. */
zimage_status zi_tokenizer_load(const char *path, zi_tokenizer **tokenizer, zimage_error *error);
void zi_tokenizer_free(zi_tokenizer *tokenizer);
int64_t zi_tokenizer_vocab_size(const zi_tokenizer *tokenizer); /* the largest id, of added tokens too, + 1 */

/*
 * Puts the text (`length` bytes of UTF-8, which may hold zero bytes) into the template (docs/spec/text-encoder.md 5)
 * and encodes the whole. Invalid UTF-8 is an error that names the byte's offset. The caller releases *ids with free().
 */
zimage_status zi_tokenizer_encode_prompt(const zi_tokenizer *tokenizer, zimage_template template_kind, const char *text,
                                         size_t length, int32_t **ids, size_t *count, zimage_error *error);

#endif
