/*
 * The byte-level BPE tokenizer of Qwen2 and Qwen3 (docs/spec/text-encoder.md 7), from a tokenizer.json, or from a
 * folder that transformers saved. It gives the ids of the `tokenizers` package, and for a folder those of transformers,
 * which the comments of this module call the reference. A loaded tokenizer never changes, so any number of threads may
 * use it.
 */
#ifndef ZI_TEXT_TOKENIZER_H
#define ZI_TEXT_TOKENIZER_H

#include "base/error.h"

typedef struct zi_tokenizer zi_tokenizer;

/*
 * The longest text in bytes. A model reads at most 512 tokens, and the longest token of Qwen3 has 128 bytes: this is 16
 * times as much.
 */
#define ZI_TEXT_LIMIT ((size_t)1 << 20)

/* path: a tokenizer.json, which alone is read, as the `tokenizers` package reads it. The caller frees *tokenizer. */
zimage_status zi_tokenizer_load(const char *path, zi_tokenizer **tokenizer, zimage_error *error);
/*
 * A folder as transformers saves it: tokenizer.json, or vocab.json and merges.txt; with tokenizer_config.json,
 * special_tokens_map.json, added_tokens.json and a chat template where it has them. What the versions 4.57 and 5.17 of
 * transformers read differently is refused. own_pattern: 1: a folder whose tokenizer_class takes everything from the
 * tokenizer.json may have another pattern and normaliser than Qwen2.
 */
zimage_status zi_tokenizer_load_folder(const char *folder, int own_pattern, zi_tokenizer **tokenizer,
                                       zimage_error *error);
/* *found: 1 if the folder has a tokenizer.json or a vocab.json. */
zimage_status zi_find_tokenizer(const char *folder, int *found, zimage_error *error);
void zi_tokenizer_free(zi_tokenizer *tokenizer);
int64_t zi_tokenizer_vocab_size(const zi_tokenizer *tokenizer); /* the largest id, of added tokens too, + 1 */

/*
 * Puts the text (`length` bytes of UTF-8, which may hold zero bytes) into the template and encodes the whole. The
 * template is the folder's where the folder has one, else the one of docs/spec/text-encoder.md 5. Invalid UTF-8 is an
 * error that names the byte's offset. The caller releases *ids with free().
 */
zimage_status zi_tokenizer_encode_prompt(const zi_tokenizer *tokenizer, zimage_template template_kind, const char *text,
                                         size_t length, int32_t **ids, size_t *count, zimage_error *error);

typedef struct zi_prompt_ids {
    int32_t *ids; /* the caller releases them with free() */
    size_t count;
    int cut; /* 1: the whole text has more ids */
} zi_prompt_ids;

/*
 * The ids that a model of at most `limit` tokens reads: those of the template with the prompt, cut on the side that the
 * folder says, the end if it says none.
 */
zimage_status zi_tokenizer_encode_cut(const zi_tokenizer *tokenizer, zimage_template template_kind, const char *prompt,
                                      size_t limit, zi_prompt_ids *result, zimage_error *error);

/* *id: the token that fills a prompt up to a length. An error if the folder names none, or fills the left side. */
zimage_status zi_tokenizer_pad(const zi_tokenizer *tokenizer, int32_t *id, zimage_error *error);

/* Fails if the template can't be used with this tokenizer: one sentence, which names the file. */
zimage_status zi_tokenizer_check_template(const zi_tokenizer *tokenizer, zimage_template template_kind,
                                          zimage_error *error);

#endif
