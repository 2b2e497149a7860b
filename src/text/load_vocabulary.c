/* The vocabulary and the merges, from a tokenizer.json or from vocab.json and merges.txt. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "text/load.h"

zimage_status zi_read_id(const zi_loader *l, const char *field, const char *name, const json_t *value, int32_t *id)
{
    char buffer[96];
    if (json_is_integer(value) && json_integer_value(value) >= 0 && json_integer_value(value) <= ZI_ID_LIMIT) {
        *id = (int32_t)json_integer_value(value);
        return ZIMAGE_OK;
    }
    return zi_load_fail(l, ZIMAGE_ERROR_MODEL, "%s: the id of \"%.80s\": %s, expected an integer from 0 to %d", field,
                        name, zi_json_describe(value, buffer, sizeof buffer), ZI_ID_LIMIT);
}

int32_t zi_vocabulary_id(const zi_loader *l, const char *name)
{
    const json_t *value = json_object_get(l->vocab, name);
    return value ? (int32_t)json_integer_value(value) : -1;
}

/* The character for a byte in a byte-level vocabulary: itself if it is visible, otherwise U+0100 + hidden_so_far. */
static void byte_character(int byte, int *hidden_so_far, char text[3])
{
    int shown = (byte >= 33 && byte <= 126) || (byte >= 161 && byte <= 172) || byte >= 174;
    int code = shown ? byte : 256 + (*hidden_so_far)++;
    int length = 0;
    if (code >= 0x80)
        text[length++] = (char)(0xC0 | code >> 6);
    text[length++] = (char)(code < 0x80 ? code : 0x80 | (code & 0x3F));
    text[length] = '\0';
}

/* All 256 are required: without one the reference would silently drop these bytes of the text. */
static zimage_status read_byte_ids(const zi_loader *l, const char *field)
{
    int hidden = 0;
    for (int byte = 0; byte < 256; byte++) {
        char text[3];
        byte_character(byte, &hidden, text);
        l->tokenizer->bpe.byte_ids[byte] = zi_vocabulary_id(l, text);
        if (l->tokenizer->bpe.byte_ids[byte] < 0)
            return zi_load_fail(l, ZIMAGE_ERROR_MODEL, "%s has no token \"%s\", which stands for byte 0x%02X", field,
                                text, (unsigned)byte);
    }
    return ZIMAGE_OK;
}

zimage_status zi_load_vocabulary(zi_loader *l, const char *field, const json_t *vocab)
{
    if (!json_is_object(vocab))
        return zi_load_wrong(l, field, "an object", vocab);
    l->vocab = vocab;
    l->vocab_name = field;
    size_t room = json_object_size(vocab) + 1;
    l->ids = malloc(room * sizeof *l->ids);
    if (!l->ids)
        return zi_fail_memory(l->error, "the vocabulary", room * sizeof *l->ids);
    for (void *i = json_object_iter((json_t *)vocab); i; i = json_object_iter_next((json_t *)vocab, i)) {
        zi_named_id *entry = &l->ids[l->id_count++];
        entry->name = json_object_iter_key(i);
        ZI_TRY(zi_read_id(l, field, entry->name, json_object_iter_value(i), &entry->id));
    }
    return read_byte_ids(l, field);
}

/* The two tokens of a merge: left is one block that holds both, each ended by a zero; right points into it. */
typedef struct merge_names {
    char *left, *right;
    size_t left_length, right_length;
    size_t capacity;
} merge_names;

static zimage_status set_names(const zi_loader *l, const char *const names[2], const size_t lengths[2],
                               merge_names *merge)
{
    char *text = zi_grow(merge->left, &merge->capacity, lengths[0] + lengths[1] + 2, 1);
    if (!text) {
        zi_fail_memory(l->error, "a merge", lengths[0] + lengths[1] + 2);
        return ZIMAGE_ERROR_MEMORY; /* never OK, as an analyser can see */
    }
    merge->left = text;
    merge->right = text + lengths[0] + 1;
    merge->left_length = lengths[0];
    merge->right_length = lengths[1];
    memcpy(merge->left, names[0], lengths[0]);
    merge->left[lengths[0]] = '\0';
    memcpy(merge->right, names[1], lengths[1]);
    merge->right[lengths[1]] = '\0';
    return ZIMAGE_OK;
}

/* Divides "A B" at its only space. 0: there is none, or there are more. */
static int divide(const char *text, size_t length, const char *names[2], size_t lengths[2])
{
    const char *space = memchr(text, ' ', length);
    size_t left = space ? (size_t)(space - text) : 0;
    if (!space || memchr(space + 1, ' ', length - left - 1))
        return 0;
    names[0] = text;
    names[1] = space + 1;
    lengths[0] = left;
    lengths[1] = length - left - 1;
    return 1;
}

/* What messages call a merge: its index in a tokenizer.json, or its line in a merges.txt. */
typedef struct merge_place {
    int is_line;
    size_t number;
} merge_place;

static const char *name_place(merge_place place, char field[ZI_FIELD_SIZE])
{
    snprintf(field, ZI_FIELD_SIZE, place.is_line ? "line %zu" : "model.merges[%zu]", place.number);
    return field;
}

static zimage_status read_merge_names(const zi_loader *l, merge_place place, const json_t *merge, merge_names *found)
{
    char field[ZI_FIELD_SIZE];
    const char *names[2] = {NULL, NULL};
    size_t lengths[2] = {0, 0};
    int valid = 0;
    if (json_is_string(merge))
        valid = divide(json_string_value(merge), json_string_length(merge), names, lengths);
    else if (json_is_array(merge) && json_array_size(merge) == 2) {
        valid = 1;
        for (size_t i = 0; i < 2; i++) {
            const json_t *name = json_array_get(merge, i);
            valid = valid && json_is_string(name);
            names[i] = json_string_value(name);
            lengths[i] = json_string_length(name);
        }
    }
    if (!valid || !names[0] || !names[1]) {
        zi_load_wrong(l, name_place(place, field), "\"A B\" or [\"A\", \"B\"]", merge);
        return ZIMAGE_ERROR_MODEL; /* never OK, as an analyser can see */
    }
    return set_names(l, names, lengths, found);
}

static zimage_status add_merge(const zi_loader *l, merge_place place, uint32_t rank, merge_names *names)
{
    char field[ZI_FIELD_SIZE];
    int32_t left = zi_vocabulary_id(l, names->left), right = zi_vocabulary_id(l, names->right);
    if (left < 0 || right < 0)
        return zi_load_fail(l, ZIMAGE_ERROR_MODEL, "%s names the token \"%.80s\", which is not in %s",
                            name_place(place, field), left < 0 ? names->left : names->right, l->vocab_name);
    /* "A\0B\0" becomes "AB\0". */
    memmove(names->left + names->left_length, names->right, names->right_length + 1);
    int32_t result = zi_vocabulary_id(l, names->left);
    if (result < 0)
        return zi_load_fail(l, ZIMAGE_ERROR_MODEL, "%s makes the token \"%.80s\", which is not in %s",
                            name_place(place, field), names->left, l->vocab_name);
    zi_bpe_add(&l->tokenizer->bpe, left, right, rank, result);
    return ZIMAGE_OK;
}

static zimage_status init_merges(const zi_loader *l, size_t count)
{
    if (count > INT32_MAX)
        return zi_load_fail(l, ZIMAGE_ERROR_MODEL, "%zu merges, expected at most %d", count, INT32_MAX);
    return zi_bpe_init(&l->tokenizer->bpe, count, l->error);
}

zimage_status zi_load_merges(const zi_loader *l, const json_t *merges)
{
    if (!json_is_array(merges))
        return zi_load_wrong(l, "model.merges", "an array", merges);
    size_t count = json_array_size(merges);
    ZI_TRY(init_merges(l, count));
    merge_names names = {0};
    zimage_status status = ZIMAGE_OK;
    for (size_t i = 0; i < count && status == ZIMAGE_OK; i++) {
        const merge_place place = {0, i};
        status = read_merge_names(l, place, json_array_get(merges, i), &names);
        if (status == ZIMAGE_OK)
            status = add_merge(l, place, (uint32_t)i, &names);
    }
    free(names.left);
    return status;
}

/* One line of merges.txt without its end. */
static zimage_status add_line(const zi_loader *l, const char *line, size_t length, size_t number, uint32_t rank,
                              merge_names *merge)
{
    const char *names[2];
    size_t lengths[2];
    if (memchr(line, '\0', length) || !divide(line, length, names, lengths) || !lengths[0] || !lengths[1])
        return zi_load_fail(l, ZIMAGE_ERROR_MODEL, "line %zu: \"%.*s\", expected two tokens with a space between them",
                            number, (int)(length < 80 ? length : 80), line);
    ZI_TRY(set_names(l, names, lengths, merge));
    return add_merge(l, (merge_place){1, number}, rank, merge);
}

zimage_status zi_load_merges_text(const zi_loader *l, const char *text, size_t length)
{
    static const char VERSION[] = "#version";
    size_t lines = 1, number = 0;
    for (size_t i = 0; i < length; i++)
        lines += text[i] == '\n';
    ZI_TRY(init_merges(l, lines));
    merge_names names = {0};
    zimage_status status = ZIMAGE_OK;
    uint32_t rank = 0;
    for (size_t at = 0; at < length && status == ZIMAGE_OK;) {
        const char *line = text + at, *end = memchr(line, '\n', length - at);
        size_t count = end ? (size_t)(end - line) : length - at;
        at += count + 1;
        number++;
        if (count && line[count - 1] == '\r')
            count--;
        if (number == 1 && count >= sizeof VERSION - 1 && memcmp(line, VERSION, sizeof VERSION - 1) == 0)
            continue;
        status = add_line(l, line, count, number, rank++, &names);
    }
    free(names.left);
    return status;
}
