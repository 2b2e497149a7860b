/*
 * From text to ids, in the order of the reference: added tokens are cut out of the raw text. Each stretch between them
 * is brought to NFC and cut into pieces by the pattern. The bytes of each piece are merged to tokens.
 */
#include "text/tokenizer.h"

#include <stdlib.h>
#include <string.h>

#include "text/normalize.h"
#include "text/tokenizer_internal.h"
#include "text/unicode.h"

/* Positions have 32 bits, and NFC can make a text up to 3 times as long. */
#define TEXT_LIMIT ((size_t)256 << 20)

typedef struct encoder {
    const zi_tokenizer *tokenizer;
    zi_splitter splitter;
    zi_normalizer normalizer;
    zi_bpe_scratch scratch;
    zi_ids ids;
} encoder;

typedef zimage_status (*stretch_fn)(encoder *e, const char *text, size_t length, zimage_error *error);

/* Cuts text at the added tokens: pushes their ids, and calls `stretch` for the text between them. */
static zimage_status cut(encoder *e, const zi_added *added, const char *text, size_t length, stretch_fn stretch,
                         zimage_error *error)
{
    size_t from = 0;
    while (from < length) {
        size_t at = length;
        const zi_added_token *token = zi_added_next(added, text, length, from, &at);
        if (at > from)
            ZI_TRY(stretch(e, text + from, at - from, error));
        if (!token)
            break;
        if (!zi_ids_push(&e->ids, token->id))
            return zi_fail_memory(error, "token ids", (e->ids.count + 1) * sizeof *e->ids.data);
        from = at + token->length;
    }
    return ZIMAGE_OK;
}

static zimage_status encode_normalized(encoder *e, const char *text, size_t length, zimage_error *error)
{
    ZI_TRY(zi_splitter_start(&e->splitter, text, length, error));
    for (;;) {
        size_t begin = 0, end = 0;
        ZI_TRY(zi_splitter_next(&e->splitter, &begin, &end, error));
        if (begin == end)
            return ZIMAGE_OK;
        ZI_TRY(
            zi_bpe_encode(&e->tokenizer->bpe, &e->scratch, (const uint8_t *)text + begin, end - begin, &e->ids, error));
    }
}

static zimage_status encode_stretch(encoder *e, const char *text, size_t length, zimage_error *error)
{
    if (e->tokenizer->nfc)
        ZI_TRY(zi_normalize_nfc(&e->normalizer, text, length, &text, &length, error));
    return cut(e, &e->tokenizer->normalized, text, length, encode_normalized, error);
}

static zimage_status check_text(const char *text, size_t length, zimage_error *error)
{
    if (length > TEXT_LIMIT)
        return zi_fail(error, ZIMAGE_ERROR_ARGUMENT, "the text: %zu bytes, expected at most %zu", length, TEXT_LIMIT);
    size_t valid = zi_utf8_valid_prefix(text, length);
    if (valid == length)
        return ZIMAGE_OK;
    return zi_fail(error, ZIMAGE_ERROR_ARGUMENT, "the text is not valid UTF-8: byte 0x%02X at offset %zu",
                   (uint8_t)text[valid], valid);
}

/* The text has passed check_text. */
static zimage_status encode(const zi_tokenizer *tokenizer, const char *text, size_t length, int32_t **ids,
                            size_t *count, zimage_error *error)
{
    encoder e = {.tokenizer = tokenizer};
    ZI_TRY(zi_splitter_open(&e.splitter, tokenizer->split, error));
    zimage_status status = cut(&e, &tokenizer->raw, text, length, encode_stretch, error);
    /* Not NULL for an empty text, too, so that NULL always means failure. */
    if (status == ZIMAGE_OK && !e.ids.data && !(e.ids.data = malloc(sizeof *e.ids.data)))
        status = zi_fail_memory(error, "token ids", sizeof *e.ids.data);
    zi_splitter_close(&e.splitter);
    zi_normalizer_free(&e.normalizer);
    zi_bpe_scratch_free(&e.scratch);
    if (status != ZIMAGE_OK) {
        free(e.ids.data);
        return status;
    }
    *ids = e.ids.data;
    *count = e.ids.count;
    return ZIMAGE_OK;
}

/* What the chat template of a model makes of one message of the user. */
typedef struct prompt_template {
    const char *name;
    const char *before, *after;
    const char *needed[5]; /* the added tokens in before and after, ended by NULL */
} prompt_template;

static const prompt_template TEMPLATES[] = {
    [ZIMAGE_TEMPLATE_NONE] = {"none", "", "", {NULL}},
    [ZIMAGE_TEMPLATE_Z_IMAGE] = {"z-image",
                                 "<|im_start|>user\n",
                                 "<|im_end|>\n<|im_start|>assistant\n",
                                 {"<|im_start|>", "<|im_end|>", NULL}},
    [ZIMAGE_TEMPLATE_KLEIN] = {"klein",
                               "<|im_start|>user\n",
                               "<|im_end|>\n<|im_start|>assistant\n<think>\n\n</think>\n\n",
                               {"<|im_start|>", "<|im_end|>", "<think>", "</think>", NULL}},
};

/* A tokenizer without these tokens would take them for ordinary text: it belongs to another model. */
static zimage_status check_template(const zi_tokenizer *tokenizer, const prompt_template *wrap, zimage_error *error)
{
    for (const char *const *needed = wrap->needed; *needed; needed++)
        if (!zi_added_find(&tokenizer->raw, *needed) && !zi_added_find(&tokenizer->normalized, *needed))
            return zi_fail(error, ZIMAGE_ERROR_MODEL,
                           "the tokenizer has no added token \"%s\", which the %s template needs", *needed, wrap->name);
    return ZIMAGE_OK;
}

zimage_status zi_tokenizer_encode_prompt(const zi_tokenizer *tokenizer, zimage_template template_kind, const char *text,
                                         size_t length, int32_t **ids, size_t *count, zimage_error *error)
{
    *ids = NULL;
    *count = 0;
    if ((size_t)template_kind >= sizeof TEMPLATES / sizeof TEMPLATES[0])
        return zi_fail(error, ZIMAGE_ERROR_ARGUMENT, "template: %d, expected a zimage_template", (int)template_kind);
    const prompt_template *wrap = &TEMPLATES[template_kind];
    ZI_TRY(check_text(text, length, error));
    ZI_TRY(check_template(tokenizer, wrap, error));
    size_t before = strlen(wrap->before), after = strlen(wrap->after), total = before + length + after;
    char *whole = malloc(total + 1);
    if (!whole)
        return zi_fail_memory(error, "the prompt", total + 1);
    memcpy(whole, wrap->before, before);
    if (length)
        memcpy(whole + before, text, length);
    memcpy(whole + before + length, wrap->after, after);
    zimage_status status = encode(tokenizer, whole, total, ids, count, error);
    free(whole);
    return status;
}

int64_t zi_tokenizer_vocab_size(const zi_tokenizer *tokenizer)
{
    return tokenizer->vocab_size;
}

void zi_tokenizer_free(zi_tokenizer *tokenizer)
{
    if (!tokenizer)
        return;
    zi_added_free(&tokenizer->raw);
    zi_added_free(&tokenizer->normalized);
    zi_split_free(tokenizer->split);
    zi_bpe_free(&tokenizer->bpe);
    free(tokenizer);
}
