/*
 * From text to ids, in the order of the reference: added tokens are cut out of the raw text. Each stretch between them
 * is brought to NFC and cut into pieces by the pattern. The bytes of each piece are merged to tokens.
 */
#include "text/tokenizer.h"

#include <stdlib.h>
#include <string.h>

#include "text/normalize.h"
#include "text/template.h"
#include "text/tokenizer_internal.h"
#include "text/unicode.h"

typedef struct encoder {
    const zi_tokenizer *tokenizer;
    size_t enough; /* no more ids are needed */
    zi_splitter splitter;
    zi_normalizer normalizer;
    zi_bpe_scratch scratch;
    zi_ids ids;
} encoder;

typedef zimage_status (*stretch_fn)(encoder *e, const char *text, size_t length, zimage_error *error);

/*
 * The next added token at or after `from` that cuts the text. With split_special_tokens the reference goes on after a
 * special token, so that no other token is found within it.
 */
static const zi_added_token *next_token(const zi_tokenizer *tokenizer, const zi_added *added, const char *text,
                                        size_t length, size_t from, size_t *at)
{
    for (;;) {
        const zi_added_token *token = zi_added_next(added, text, length, from, at);
        if (!token || !token->special || !tokenizer->split_special)
            return token;
        from = *at + token->length;
    }
}

/* Cuts text at the added tokens: pushes their ids, and calls `stretch` for the text between them. */
static zimage_status cut(encoder *e, const zi_added *added, const char *text, size_t length, stretch_fn stretch,
                         zimage_error *error)
{
    size_t from = 0;
    while (from < length && e->ids.count < e->enough) {
        size_t at = length;
        const zi_added_token *token = next_token(e->tokenizer, added, text, length, from, &at);
        if (!token)
            at = length;
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
    while (e->ids.count < e->enough) {
        size_t begin = 0, end = 0;
        ZI_TRY(zi_splitter_next(&e->splitter, &begin, &end, error));
        if (begin == end)
            return ZIMAGE_OK;
        ZI_TRY(
            zi_bpe_encode(&e->tokenizer->bpe, &e->scratch, (const uint8_t *)text + begin, end - begin, &e->ids, error));
    }
    return ZIMAGE_OK;
}

static zimage_status encode_stretch(encoder *e, const char *text, size_t length, zimage_error *error)
{
    if (e->tokenizer->nfc)
        ZI_TRY(zi_normalize_nfc(&e->normalizer, text, length, &text, &length, error));
    return cut(e, &e->tokenizer->normalized, text, length, encode_normalized, error);
}

static zimage_status check_text(const char *text, size_t length, zimage_error *error)
{
    if (length > ZI_TEXT_LIMIT)
        return zi_fail(error, ZIMAGE_ERROR_ARGUMENT,
                       "the text has %zu bytes, expected at most %zu: a model reads at most 512 tokens", length,
                       ZI_TEXT_LIMIT);
    size_t valid = zi_utf8_valid_prefix(text, length);
    if (valid == length)
        return ZIMAGE_OK;
    return zi_fail(error, ZIMAGE_ERROR_ARGUMENT, "the text is not valid UTF-8: byte 0x%02X at offset %zu",
                   (uint8_t)text[valid], valid);
}

/* The first ids of the text, at least `enough` of them if it has so many. */
static zimage_status encode(const zi_tokenizer *tokenizer, const char *text, size_t length, size_t enough, zi_ids *ids,
                            zimage_error *error)
{
    encoder e = {.tokenizer = tokenizer, .enough = enough};
    ZI_TRY(zi_splitter_open(&e.splitter, tokenizer->split, error));
    zimage_status status = cut(&e, &tokenizer->raw, text, length, encode_stretch, error);
    /* Not NULL for an empty text, too, so that NULL always means failure. */
    if (status == ZIMAGE_OK && !e.ids.data && !(e.ids.data = malloc(sizeof *e.ids.data)))
        status = zi_fail_memory(error, "token ids", sizeof *e.ids.data);
    zi_splitter_close(&e.splitter);
    zi_normalizer_free(&e.normalizer);
    zi_bpe_scratch_free(&e.scratch);
    if (status == ZIMAGE_OK)
        *ids = e.ids;
    else
        free(e.ids.data);
    return status;
}

static zimage_status encode_templated(const zi_tokenizer *tokenizer, zimage_template template_kind, const char *text,
                                      size_t length, size_t enough, zi_ids *ids, zimage_error *error)
{
    char *whole = NULL;
    size_t total = 0;
    ZI_TRY(check_text(text, length, error));
    ZI_TRY(zi_template_apply(tokenizer, template_kind, text, length, &whole, &total, error));
    zimage_status status = encode(tokenizer, whole, total, enough, ids, error);
    free(whole);
    return status;
}

zimage_status zi_tokenizer_encode_prompt(const zi_tokenizer *tokenizer, zimage_template template_kind, const char *text,
                                         size_t length, int32_t **ids, size_t *count, zimage_error *error)
{
    zi_ids all = {0};
    *ids = NULL;
    *count = 0;
    ZI_TRY(encode_templated(tokenizer, template_kind, text, length, SIZE_MAX, &all, error));
    *ids = all.data;
    *count = all.count;
    return ZIMAGE_OK;
}

/* Truncation as the reference has it: of a text that is cut at its end, no more is encoded than its first ids need. */
zimage_status zi_tokenizer_encode_cut(const zi_tokenizer *tokenizer, zimage_template template_kind, const char *prompt,
                                      size_t limit, zi_prompt_ids *result, zimage_error *error)
{
    zi_ids ids = {0};
    size_t enough = tokenizer->keep_end ? SIZE_MAX : limit + 1;
    *result = (zi_prompt_ids){NULL, 0, 0};
    ZI_TRY(encode_templated(tokenizer, template_kind, prompt, strlen(prompt), enough, &ids, error));
    *result = (zi_prompt_ids){ids.data, ids.count, ids.count > limit};
    if (!result->cut)
        return ZIMAGE_OK;
    if (tokenizer->keep_end)
        memmove(ids.data, ids.data + (ids.count - limit), limit * sizeof *ids.data);
    result->count = limit;
    return ZIMAGE_OK;
}

zimage_status zi_tokenizer_pad(const zi_tokenizer *tokenizer, int32_t *id, zimage_error *error)
{
    const char *content = NULL;
    for (size_t i = 0; i < ZI_SPECIAL_NAMES; i++)
        if (tokenizer->special[i].name && strcmp(tokenizer->special[i].name, "pad_token") == 0)
            content = tokenizer->special[i].content;
    const zi_added_token *found = content ? zi_added_find(&tokenizer->raw, content) : NULL;
    if (content && !found)
        found = zi_added_find(&tokenizer->normalized, content);
    if (!found)
        return zi_fail(error, ZIMAGE_ERROR_MODEL,
                       "pad_token: %s%s%s, expected an added token, with which this model fills up its prompts",
                       content ? "\"" : "", content ? content : "none", content ? "\"" : "");
    if (tokenizer->pad_left)
        return zi_fail(error, ZIMAGE_ERROR_UNSUPPORTED, "padding_side: \"left\", only \"right\" is supported");
    *id = found->id;
    return ZIMAGE_OK;
}

zimage_status zi_tokenizer_check_template(const zi_tokenizer *tokenizer, zimage_template template_kind,
                                          zimage_error *error)
{
    char *whole = NULL;
    size_t total = 0;
    zimage_status status = zi_template_apply(tokenizer, template_kind, "a", 1, &whole, &total, error);
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
    free(tokenizer->chat);
    free(tokenizer->chat_name);
    for (size_t i = 0; i < ZI_SPECIAL_NAMES; i++)
        free(tokenizer->special[i].content);
    free(tokenizer);
}
