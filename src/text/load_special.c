/*
 * The added tokens of a folder, in the order in which transformers gives them their ids (_from_pretrained of
 * tokenization_utils_base.py, then __init__ of the tokenizer):
 *
 * 1. added_tokens_decoder of tokenizer_config.json, by id. Only where it is missing, added_tokens of tokenizer.json and
 *    added_tokens.json instead, and special_tokens_map.json beside the configuration.
 * 2. bos_token, eos_token and the like, which become added tokens where they are not.
 * 3. extra_special_tokens, which transformers 4 calls additional_special_tokens.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "text/load.h"

/* SPECIAL_TOKENS_ATTRIBUTES of transformers, in its order; and the defaults of Qwen2Tokenizer. */
static const struct special_name {
    const char *field, *fallback;
} SPECIAL_NAMES[ZI_SPECIAL_NAMES] = {
    {"bos_token", NULL},  {"eos_token", "<|endoftext|>"}, {"unk_token", "<|endoftext|>"},
    {"sep_token", NULL},  {"pad_token", "<|endoftext|>"}, {"cls_token", NULL},
    {"mask_token", NULL},
};

static int has_decoder(const zi_settings *s)
{
    return json_object_get(s->config, "added_tokens_decoder") != NULL;
}

/* The field of the file that transformers takes it from; sets l->path to that file. */
static const json_t *special_field(zi_loader *l, const zi_settings *s, const char *field)
{
    const json_t *mapped = has_decoder(s) ? NULL : json_object_get(s->map, field);
    l->path = mapped ? s->map_path : s->config_path;
    return mapped ? mapped : json_object_get(s->config, field);
}

/* The array or object of further special tokens. */
static const json_t *extra_tokens(zi_loader *l, const zi_settings *s, const char **field)
{
    *field = "extra_special_tokens";
    const json_t *extra = special_field(l, s, *field);
    if (!zi_is_absent(extra))
        return extra;
    *field = "additional_special_tokens";
    return special_field(l, s, *field);
}

/* ---- added_tokens_decoder ---------------------------------------------------------------------------------------- */

/* An id written as a key: decimal digits, without a sign or spaces. */
static int parse_id(const char *text, int32_t *id)
{
    size_t digits = strspn(text, "0123456789");
    long long value = digits > 0 && digits <= 10 && !text[digits] ? strtoll(text, NULL, 10) : -1;
    *id = (int32_t)value;
    return value >= 0 && value <= ZI_ID_LIMIT;
}

static zimage_status check_known(const zi_loader *l, const char *field, const zi_declared *token)
{
    int32_t known = zi_vocabulary_id(l, token->content);
    if (known < 0 || known == token->id)
        return ZIMAGE_OK;
    return zi_load_fail(l, ZIMAGE_ERROR_MODEL, "%s gives \"%.80s\" the id %d, but %s gives it %d", field,
                        token->content, (int)token->id, l->vocab_name, (int)known);
}

static zimage_status declare_decoder(zi_loader *l, const zi_settings *s)
{
    json_t *decoder = json_object_get(s->config, "added_tokens_decoder");
    l->path = s->config_path;
    if (!json_is_object(decoder))
        return zi_load_wrong(l, "added_tokens_decoder", "an object", decoder);
    for (void *i = json_object_iter(decoder); i; i = json_object_iter_next(decoder, i)) {
        char field[ZI_FIELD_SIZE];
        zi_declared token = {0};
        int32_t id = 0;
        snprintf(field, sizeof field, "added_tokens_decoder.%.40s", json_object_iter_key(i));
        if (!parse_id(json_object_iter_key(i), &id))
            return zi_load_fail(l, ZIMAGE_ERROR_MODEL, "%s: expected an id from 0 to %d as the key", field,
                                ZI_ID_LIMIT);
        ZI_TRY(zi_read_declared(l, field, json_object_iter_value(i), 0, &token));
        token.id = id;
        ZI_TRY(check_known(l, field, &token));
        ZI_TRY(zi_declare(l, &token));
    }
    zi_sort_declared(l);
    return ZIMAGE_OK;
}

/*
 * What transformers 4 takes from the tokenizer.json itself: those tokens must have the same ids and flags, since
 * transformers 5 does not look at them where there is an added_tokens_decoder.
 */
static zimage_status compare_tokens(const zi_loader *l, const zi_loader *file)
{
    for (size_t i = 0; i < file->declared_count; i++) {
        const zi_declared *token = &file->declared[i], *same = zi_find_declared(l, token->content);
        if (!same || same->id != token->id)
            return zi_load_fail(file, ZIMAGE_ERROR_UNSUPPORTED,
                                "added_tokens gives \"%.80s\" the id %d, but added_tokens_decoder of "
                                "tokenizer_config.json does not: versions of transformers read such a folder "
                                "differently",
                                token->content, (int)token->id);
        int other_special = same->special != token->special && l->tokenizer->split_special;
        if (same->normalized != token->normalized || other_special)
            return zi_load_fail(file, ZIMAGE_ERROR_UNSUPPORTED,
                                "\"%s\" of the added token \"%.80s\" is not that of tokenizer_config.json: versions "
                                "of transformers read such a folder differently",
                                other_special ? "special" : "normalized", token->content);
    }
    return ZIMAGE_OK;
}

/* Checks the ids in the tokenizer.json on their own, and against added_tokens_decoder where there is one. */
static zimage_status check_tokenizer_tokens(const zi_loader *l, const zi_settings *s)
{
    zi_loader file = {.path = s->tokenizer_path, .error = l->error, .vocab = l->vocab, .vocab_name = l->vocab_name};
    zimage_status status = zi_declare_tokens(&file, json_object_get(s->tokenizer, "added_tokens"));
    if (status == ZIMAGE_OK)
        status = zi_number_declared(&file, 1);
    if (status == ZIMAGE_OK && has_decoder(s))
        status = compare_tokens(l, &file);
    free(file.declared);
    return status;
}

/* ---- folders without it ------------------------------------------------------------------------------------------ */

/* The content of a special token: a string, or an object with one. NULL: neither. */
static const char *content_of(const json_t *value)
{
    return json_string_value(json_is_object(value) ? json_object_get(value, "content") : value);
}

static int is_named_special(zi_loader *l, const zi_settings *s, const char *content)
{
    const char *field;
    for (size_t i = 0; i < ZI_SPECIAL_NAMES; i++) {
        const char *named = content_of(special_field(l, s, SPECIAL_NAMES[i].field));
        if (named && strcmp(named, content) == 0)
            return 1;
    }
    const json_t *extra = extra_tokens(l, s, &field);
    for (size_t i = 0; i < json_array_size(extra); i++) {
        const char *named = content_of(json_array_get(extra, i));
        if (named && strcmp(named, content) == 0)
            return 1;
    }
    return 0;
}

/* added_tokens.json: {"content": id, ...}. */
static zimage_status declare_added_file(zi_loader *l, const zi_settings *s)
{
    for (void *i = json_object_iter((json_t *)s->added); i; i = json_object_iter_next((json_t *)s->added, i)) {
        const char *content = json_object_iter_key(i);
        int special = is_named_special(l, s, content);
        zi_declared token = {content, strlen(content), -1, !special, special};
        l->path = s->added_path;
        if (token.length == 0 || token.length > ZI_ADDED_TOKEN_LIMIT)
            return zi_load_fail(l, ZIMAGE_ERROR_MODEL, "a token of %zu bytes, expected 1 to %d", token.length,
                                ZI_ADDED_TOKEN_LIMIT);
        ZI_TRY(zi_read_id(l, "the file", content, json_object_iter_value(i), &token.id));
        ZI_TRY(check_known(l, "the file", &token));
        const zi_declared *same = zi_find_declared(l, content);
        if (same && same->id != token.id)
            return zi_load_fail(l, ZIMAGE_ERROR_MODEL, "\"%.80s\" has the id %d, but in tokenizer.json %d", content,
                                (int)token.id, (int)same->id);
        if (!same)
            ZI_TRY(zi_declare(l, &token));
    }
    return ZIMAGE_OK;
}

/* ---- special tokens ---------------------------------------------------------------------------------------------- */

/* A token that no list holds becomes one. */
static zimage_status declare_special(zi_loader *l, const char *field, const json_t *value, const char *fallback)
{
    zi_declared token = {.content = fallback, .length = fallback ? strlen(fallback) : 0, .id = -1, .special = 1};
    if (json_is_object(value)) {
        ZI_TRY(zi_read_declared(l, field, value, 0, &token));
        token.normalized = json_is_true(json_object_get(value, "normalized"));
        token.special = 1;
    } else if (json_is_string(value)) {
        token.content = json_string_value(value);
        token.length = json_string_length(value);
    } else if (value && !json_is_null(value)) {
        return zi_load_wrong(l, field, "a string, an object or null", value);
    } else if (value) {
        return ZIMAGE_OK;
    }
    if (!token.length)
        return ZIMAGE_OK;
    if (token.length > ZI_ADDED_TOKEN_LIMIT)
        return zi_load_fail(l, ZIMAGE_ERROR_MODEL, "%s: a token of %zu bytes, expected at most %d", field, token.length,
                            ZI_ADDED_TOKEN_LIMIT);
    zi_declared *same = zi_find_declared(l, token.content);
    if (token.normalized || (same && same->normalized))
        return zi_load_fail(l, ZIMAGE_ERROR_UNSUPPORTED,
                            "%s: \"%.80s\" is \"normalized\", which is not supported for special tokens: versions of "
                            "transformers read it differently",
                            field, token.content);
    if (same)
        same->special = 1;
    return same ? ZIMAGE_OK : zi_declare(l, &token);
}

/* Names of tokens that only transformers 5 makes added tokens, such as "image_token". */
static zimage_status check_other_names(const zi_loader *l, const zi_settings *s)
{
    static const char ENDING[] = "_token";
    for (void *i = json_object_iter((json_t *)s->config); i; i = json_object_iter_next((json_t *)s->config, i)) {
        const char *field = json_object_iter_key(i), *content = json_string_value(json_object_iter_value(i));
        size_t length = strlen(field);
        if (!content || !*content || length < sizeof ENDING ||
            strcmp(field + length - (sizeof ENDING - 1), ENDING) != 0)
            continue;
        if (!zi_find_declared(l, content))
            return zi_load_fail(l, ZIMAGE_ERROR_UNSUPPORTED,
                                "%.80s: \"%.80s\" is not among the added tokens: versions of transformers read such a "
                                "folder differently",
                                field, content);
    }
    return ZIMAGE_OK;
}

/*
 * Where a folder has both lists, transformers 5 does not look at additional_special_tokens. Transformers 4 does, so all
 * of them must be added tokens without it.
 */
static zimage_status check_both(zi_loader *l, const zi_settings *s)
{
    const json_t *extra = special_field(l, s, "extra_special_tokens");
    const json_t *additional = special_field(l, s, "additional_special_tokens");
    for (size_t i = 0; !zi_is_absent(extra) && i < json_array_size(additional); i++) {
        const char *content = content_of(json_array_get(additional, i));
        if (content && !zi_find_declared(l, content))
            return zi_load_fail(l, ZIMAGE_ERROR_UNSUPPORTED,
                                "additional_special_tokens has \"%.80s\", which is not among the added tokens, beside "
                                "extra_special_tokens: versions of transformers read such a folder differently",
                                content);
    }
    return ZIMAGE_OK;
}

static zimage_status declare_extra(zi_loader *l, const zi_settings *s)
{
    const char *name;
    const json_t *extra = extra_tokens(l, s, &name);
    if (zi_is_absent(extra))
        return ZIMAGE_OK;
    if (!json_is_array(extra) && !json_is_object(extra))
        return zi_load_wrong(l, name, "an array or an object", extra);
    size_t index = 0;
    char field[ZI_FIELD_SIZE];
    for (; index < json_array_size(extra); index++) {
        snprintf(field, sizeof field, "%s[%zu]", name, index);
        ZI_TRY(declare_special(l, field, json_array_get(extra, index), NULL));
    }
    for (void *i = json_object_iter((json_t *)extra); i; i = json_object_iter_next((json_t *)extra, i)) {
        snprintf(field, sizeof field, "%s.%.80s", name, json_object_iter_key(i));
        ZI_TRY(declare_special(l, field, json_object_iter_value(i), NULL));
    }
    return ZIMAGE_OK;
}

static zimage_status declare_named(zi_loader *l, const zi_settings *s)
{
    for (size_t i = 0; i < ZI_SPECIAL_NAMES; i++) {
        zi_chat_token *named = &l->tokenizer->special[i];
        const char *fallback = zi_settings_any_pattern(s) ? NULL : SPECIAL_NAMES[i].fallback;
        const json_t *value = special_field(l, s, SPECIAL_NAMES[i].field);
        ZI_TRY(declare_special(l, SPECIAL_NAMES[i].field, value, fallback));
        const char *content = value ? content_of(value) : fallback;
        named->name = SPECIAL_NAMES[i].field;
        if (content && !(named->content = strdup(content)))
            return zi_fail_memory(l->error, "a special token", strlen(content));
    }
    return ZIMAGE_OK;
}

zimage_status zi_declare_folder(zi_loader *l, const zi_settings *s)
{
    if (has_decoder(s)) {
        ZI_TRY(declare_decoder(l, s));
    } else {
        l->path = s->tokenizer_path;
        ZI_TRY(zi_declare_tokens(l, json_object_get(s->tokenizer, "added_tokens")));
        ZI_TRY(declare_added_file(l, s));
        zi_sort_declared(l);
    }
    if (s->tokenizer)
        ZI_TRY(check_tokenizer_tokens(l, s));
    ZI_TRY(declare_named(l, s));
    ZI_TRY(declare_extra(l, s));
    ZI_TRY(check_both(l, s));
    l->path = s->config_path;
    return check_other_names(l, s);
}
