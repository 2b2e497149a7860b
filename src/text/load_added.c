/*
 * Added tokens. The reference does not take their ids from the files: it numbers them, in the order of the file, after
 * the vocabulary (add_tokens of the `tokenizers` package). Files with other ids are refused, since different readers
 * would number their tokens differently.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "text/load.h"
#include "text/normalize.h"

static zimage_status read_flag(const zi_loader *l, const char *field, const json_t *token, const char *name,
                               int fallback, int *flag)
{
    const json_t *value = json_object_get(token, name);
    *flag = value ? json_is_true(value) : fallback;
    if (json_is_boolean(value) || (!value && fallback >= 0))
        return ZIMAGE_OK;
    char whole[2 * ZI_FIELD_SIZE];
    snprintf(whole, sizeof whole, "%s.%s", field, name);
    return zi_load_wrong(l, whole, "true or false", value);
}

static zimage_status refuse_flag(const zi_loader *l, const char *field, const json_t *token, const char *name,
                                 int fallback)
{
    int flag = 0;
    ZI_TRY(read_flag(l, field, token, name, fallback, &flag));
    if (!flag)
        return ZIMAGE_OK;
    return zi_load_fail(l, ZIMAGE_ERROR_UNSUPPORTED, "%s.%s: true, only false is supported", field, name);
}

zimage_status zi_read_declared(const zi_loader *l, const char *field, const json_t *token, int strict,
                               zi_declared *declared)
{
    const int fallback = strict ? -1 : 0; /* -1: an error */
    char buffer[96];
    if (!json_is_object(token))
        return zi_load_wrong(l, field, "an object", token);
    const json_t *content = json_object_get(token, "content");
    size_t length = json_string_length(content); /* 0 for anything but a string */
    if (length == 0 || length > ZI_ADDED_TOKEN_LIMIT)
        return zi_load_fail(l, ZIMAGE_ERROR_MODEL, "%s.content: %s, expected a string of 1 to %d bytes", field,
                            zi_json_describe(content, buffer, sizeof buffer), ZI_ADDED_TOKEN_LIMIT);
    *declared = (zi_declared){.content = json_string_value(content), .length = length, .id = -1};
    ZI_TRY(refuse_flag(l, field, token, "single_word", fallback));
    ZI_TRY(refuse_flag(l, field, token, "lstrip", fallback));
    ZI_TRY(refuse_flag(l, field, token, "rstrip", fallback));
    ZI_TRY(read_flag(l, field, token, "special", 0, &declared->special));
    return read_flag(l, field, token, "normalized", strict ? -1 : !declared->special, &declared->normalized);
}

zimage_status zi_declare(zi_loader *l, const zi_declared *declared)
{
    if (l->declared_count >= ZI_ADDED_TOKENS_LIMIT)
        return zi_load_fail(l, ZIMAGE_ERROR_MODEL, "more than %d added tokens", ZI_ADDED_TOKENS_LIMIT);
    zi_declared *grown = zi_grow(l->declared, &l->declared_capacity, l->declared_count + 1, sizeof *grown);
    if (!grown)
        return zi_fail_memory(l->error, "added tokens", (l->declared_count + 1) * sizeof *grown);
    l->declared = grown;
    grown[l->declared_count++] = *declared;
    return ZIMAGE_OK;
}

zi_declared *zi_find_declared(const zi_loader *l, const char *content)
{
    for (size_t i = l->declared_count; i > 0; i--)
        if (strcmp(l->declared[i - 1].content, content) == 0)
            return &l->declared[i - 1];
    return NULL;
}

zimage_status zi_declare_tokens(zi_loader *l, const json_t *tokens)
{
    if (zi_is_absent(tokens))
        return ZIMAGE_OK;
    if (!json_is_array(tokens))
        return zi_load_wrong(l, "added_tokens", "an array", tokens);
    for (size_t i = 0; i < json_array_size(tokens); i++) {
        char field[ZI_FIELD_SIZE];
        zi_declared declared = {0};
        const json_t *token = json_array_get(tokens, i);
        snprintf(field, sizeof field, "added_tokens[%zu]", i);
        ZI_TRY(zi_read_declared(l, field, token, 1, &declared));
        ZI_TRY(zi_read_id(l, field, declared.content, json_object_get(token, "id"), &declared.id));
        int32_t known = zi_vocabulary_id(l, declared.content);
        if (known >= 0 && known != declared.id)
            return zi_load_fail(l, ZIMAGE_ERROR_MODEL, "%s gives \"%.80s\" the id %d, but %s gives it %d", field,
                                declared.content, (int)declared.id, l->vocab_name, (int)known);
        ZI_TRY(zi_declare(l, &declared));
    }
    return ZIMAGE_OK;
}

static int compare_declared(const void *a, const void *b)
{
    const zi_declared *x = a, *y = b;
    return (x->id > y->id) - (x->id < y->id);
}

void zi_sort_declared(zi_loader *l)
{
    if (l->declared_count)
        qsort(l->declared, l->declared_count, sizeof *l->declared, compare_declared);
}

/* ---- into the tokenizer ------------------------------------------------------------------------------------------ */

/* A token that is searched in normalised text is normalised itself. */
static zimage_status push_normalized(const zi_loader *l, const zi_declared *declared)
{
    zi_normalizer normalizer = {0};
    zi_added_token token = {.length = declared->length, .id = declared->id, .special = declared->special};
    const char *content = declared->content;
    zimage_status status = ZIMAGE_OK;
    if (l->tokenizer->nfc)
        status = zi_normalize_nfc(&normalizer, content, token.length, &content, &token.length, l->error);
    if (status == ZIMAGE_OK)
        status = zi_added_push(&l->tokenizer->normalized, content, &token, l->error);
    zi_normalizer_free(&normalizer);
    return status;
}

static zimage_status push(const zi_loader *l, const zi_declared *declared)
{
    if (declared->normalized)
        return push_normalized(l, declared);
    const zi_added_token token = {.length = declared->length, .id = declared->id, .special = declared->special};
    return zi_added_push(&l->tokenizer->raw, declared->content, &token, l->error);
}

static int compare_ids(const void *a, const void *b)
{
    const zi_named_id *x = a, *y = b;
    return (x->id > y->id) - (x->id < y->id);
}

static zimage_status check_ids(zi_loader *l)
{
    qsort(l->ids, l->id_count, sizeof *l->ids, compare_ids);
    for (size_t i = 1; i < l->id_count; i++)
        if (l->ids[i].id == l->ids[i - 1].id)
            return zi_load_fail(l, ZIMAGE_ERROR_MODEL,
                                "%s and the added tokens give the id %d to \"%.80s\" and \"%.80s\"", l->vocab_name,
                                (int)l->ids[i].id, l->ids[i - 1].name, l->ids[i].name);
    l->tokenizer->vocab_size = (int64_t)l->ids[l->id_count - 1].id + 1;
    return ZIMAGE_OK;
}

/* The id that the reference gives to the next token that is not in the vocabulary; highest: of the ids given so far. */
static int32_t next_id(int32_t highest, size_t vocabulary)
{
    return highest >= 0 && (size_t)highest >= vocabulary ? highest + 1 : (int32_t)vocabulary;
}

zimage_status zi_number_declared(zi_loader *l, int check)
{
    size_t vocabulary = json_object_size(l->vocab);
    int32_t highest = -1;
    for (size_t i = 0; i < l->declared_count; i++) {
        zi_declared *token = &l->declared[i];
        int32_t id = zi_vocabulary_id(l, token->content);
        if (id < 0)
            id = next_id(highest, vocabulary);
        if (token->id < 0)
            token->id = id;
        if (check && token->id != id)
            return zi_load_fail(l, ZIMAGE_ERROR_MODEL,
                                "the added token \"%.80s\" has the id %d, expected %d: the reference numbers added "
                                "tokens after the vocabulary, in their order",
                                token->content, (int)token->id, (int)id);
        highest = id > highest ? id : highest;
    }
    return ZIMAGE_OK;
}

static zimage_status add_ids(zi_loader *l)
{
    size_t room = l->id_count + l->declared_count + 1;
    zi_named_id *ids = realloc(l->ids, room * sizeof *ids);
    if (!ids)
        return zi_fail_memory(l->error, "the vocabulary", room * sizeof *ids);
    l->ids = ids;
    for (size_t i = 0; i < l->declared_count; i++)
        if (zi_vocabulary_id(l, l->declared[i].content) < 0)
            ids[l->id_count++] = (zi_named_id){l->declared[i].id, l->declared[i].content};
    return ZIMAGE_OK;
}

zimage_status zi_finish_added(zi_loader *l)
{
    ZI_TRY(zi_number_declared(l, 0));
    for (size_t i = 0; i < l->declared_count; i++)
        ZI_TRY(push(l, &l->declared[i]));
    const char *twice = zi_added_seal(&l->tokenizer->raw);
    if (!twice)
        twice = zi_added_seal(&l->tokenizer->normalized);
    if (twice)
        return zi_load_fail(l, ZIMAGE_ERROR_MODEL, "the added tokens hold \"%.80s\" twice", twice);
    ZI_TRY(add_ids(l));
    ZI_TRY(check_ids(l));
    return zi_number_declared(l, 1);
}
