/*
 * Reads a tokenizer.json. A setting that this tokenizer does not handle exactly as the reference does is an error,
 * never ignored: another normaliser or pre-tokenizer would silently give other ids.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/json.h"
#include "text/normalize.h"
#include "text/tokenizer_internal.h"

/* The largest id. No text encoder has nearly as many tokens. */
#define ID_LIMIT 0x7FFFFFFE
/* Bytes. The time of matching grows with the longest added token. */
#define ADDED_TOKEN_LIMIT 512

typedef struct named_id {
    int32_t id;
    const char *name; /* points into the JSON */
} named_id;

typedef struct reader {
    const char *path;
    zimage_error *error;
    zi_tokenizer *tokenizer;
    const json_t *vocab;
    named_id *ids; /* of the vocabulary, and of the added tokens that are not in it */
    size_t id_count;
} reader;

static zimage_status fail(const reader *r, zimage_status status, const char *format, ...) ZI_PRINTF(3, 4);
static zimage_status fail(const reader *r, zimage_status status, const char *format, ...)
{
    char text[1024];
    va_list arguments;
    va_start(arguments, format);
    vsnprintf(text, sizeof text, format, arguments);
    va_end(arguments);
    zi_fail(r->error, status, "%s: %s", r->path, text);
    return status;
}

static zimage_status no_memory(const reader *r, const char *what, size_t bytes)
{
    zi_fail_memory(r->error, what, bytes);
    return ZIMAGE_ERROR_MEMORY;
}

/* "PATH: FIELD: VALUE, expected WHAT" */
static zimage_status wrong(const reader *r, const char *field, const char *what, const json_t *value)
{
    char buffer[96];
    fail(r, ZIMAGE_ERROR_MODEL, "%s: %s, expected %s", field, zi_json_describe(value, buffer, sizeof buffer), what);
    return ZIMAGE_ERROR_MODEL;
}

static zimage_status unsupported(const reader *r, const char *field, const char *what, const json_t *value)
{
    char buffer[96];
    fail(r, ZIMAGE_ERROR_UNSUPPORTED, "%s: %s, only %s is supported", field,
         zi_json_describe(value, buffer, sizeof buffer), what);
    return ZIMAGE_ERROR_UNSUPPORTED;
}

static int is_absent(const json_t *value)
{
    return !value || json_is_null(value);
}

/* field is the whole path, for messages; its last part is the key in the object. */
static const char *key_of(const char *field)
{
    const char *dot = strrchr(field, '.');
    return dot ? dot + 1 : field;
}

/* A flag that must be false. It may be absent if absent_is_false. */
static zimage_status need_false(const reader *r, const json_t *object, const char *field, int absent_is_false)
{
    const json_t *value = json_object_get(object, key_of(field));
    if (json_is_false(value) || (absent_is_false && is_absent(value)))
        return ZIMAGE_OK;
    if (!json_is_true(value) && !is_absent(value))
        return wrong(r, field, "true or false", value);
    return unsupported(r, field, "false", value);
}

static zimage_status need_text(const reader *r, const json_t *object, const char *field, const char *wanted)
{
    const json_t *value = json_object_get(object, key_of(field));
    if (!json_is_string(value))
        return wrong(r, field, "a string", value);
    if (strcmp(json_string_value(value), wanted) == 0)
        return ZIMAGE_OK;
    char quoted[48];
    snprintf(quoted, sizeof quoted, "\"%s\"", wanted);
    return unsupported(r, field, quoted, value);
}

/* A string that must be null, missing or "". */
static zimage_status need_no_text(const reader *r, const json_t *object, const char *field)
{
    const json_t *value = json_object_get(object, key_of(field));
    if (is_absent(value) || (json_is_string(value) && json_string_length(value) == 0))
        return ZIMAGE_OK;
    return unsupported(r, field, "null", value);
}

static zimage_status read_normalizer(const reader *r, const json_t *root)
{
    const json_t *normalizer = json_object_get(root, "normalizer");
    if (is_absent(normalizer))
        return ZIMAGE_OK;
    if (!json_is_object(normalizer))
        return wrong(r, "normalizer", "an object or null", normalizer);
    r->tokenizer->nfc = 1;
    return need_text(r, normalizer, "normalizer.type", "NFC");
}

static zimage_status read_split(const reader *r, const json_t *split)
{
    if (!json_is_object(split))
        return wrong(r, "pre_tokenizer.pretokenizers[0]", "an object", split);
    ZI_TRY(need_text(r, split, "pre_tokenizer.pretokenizers[0].type", "Split"));
    ZI_TRY(need_text(r, split, "pre_tokenizer.pretokenizers[0].behavior", "Isolated"));
    ZI_TRY(need_false(r, split, "pre_tokenizer.pretokenizers[0].invert", 1));
    const json_t *regex = json_object_get(json_object_get(split, "pattern"), "Regex");
    if (!json_is_string(regex))
        return wrong(r, "pre_tokenizer.pretokenizers[0].pattern.Regex", "a string", regex);
    char where[1100];
    snprintf(where, sizeof where, "%s: pre_tokenizer.pretokenizers[0].pattern.Regex", r->path);
    return zi_split_new(json_string_value(regex), where, &r->tokenizer->split, r->error);
}

static zimage_status read_pre_tokenizer(const reader *r, const json_t *root)
{
    const json_t *pre = json_object_get(root, "pre_tokenizer");
    if (!json_is_object(pre))
        return wrong(r, "pre_tokenizer", "an object", pre);
    ZI_TRY(need_text(r, pre, "pre_tokenizer.type", "Sequence"));
    const json_t *sequence = json_object_get(pre, "pretokenizers");
    if (!json_is_array(sequence))
        return wrong(r, "pre_tokenizer.pretokenizers", "an array", sequence);
    if (json_array_size(sequence) != 2)
        return fail(r, ZIMAGE_ERROR_UNSUPPORTED,
                    "pre_tokenizer.pretokenizers: %zu entries, only a Split followed by a ByteLevel is supported",
                    json_array_size(sequence));
    ZI_TRY(read_split(r, json_array_get(sequence, 0)));
    const json_t *bytes = json_array_get(sequence, 1);
    if (!json_is_object(bytes))
        return wrong(r, "pre_tokenizer.pretokenizers[1]", "an object", bytes);
    ZI_TRY(need_text(r, bytes, "pre_tokenizer.pretokenizers[1].type", "ByteLevel"));
    ZI_TRY(need_false(r, bytes, "pre_tokenizer.pretokenizers[1].add_prefix_space", 0));
    return need_false(r, bytes, "pre_tokenizer.pretokenizers[1].use_regex", 0); /* true where it is missing */
}

/* A ByteLevel post-processor only moves offsets. Another kind may add ids. */
static zimage_status check_post_processor(const reader *r, const json_t *root)
{
    const json_t *post = json_object_get(root, "post_processor");
    if (is_absent(post))
        return ZIMAGE_OK;
    if (!json_is_object(post))
        return wrong(r, "post_processor", "an object or null", post);
    return need_text(r, post, "post_processor.type", "ByteLevel");
}

static zimage_status check_model_options(const reader *r, const json_t *model)
{
    ZI_TRY(need_text(r, model, "model.type", "BPE"));
    const json_t *dropout = json_object_get(model, "dropout");
    if (!is_absent(dropout) && !(json_is_number(dropout) && json_number_value(dropout) == 0))
        return unsupported(r, "model.dropout", "null", dropout);
    ZI_TRY(need_no_text(r, model, "model.unk_token"));
    ZI_TRY(need_no_text(r, model, "model.continuing_subword_prefix"));
    ZI_TRY(need_no_text(r, model, "model.end_of_word_suffix"));
    ZI_TRY(need_false(r, model, "model.fuse_unk", 1));
    ZI_TRY(need_false(r, model, "model.byte_fallback", 1));
    return need_false(r, model, "model.ignore_merges", 1);
}

/* value is the id of `name` in `field`. */
static zimage_status read_id(const reader *r, const char *field, const char *name, const json_t *value, int32_t *id)
{
    char buffer[96];
    if (json_is_integer(value) && json_integer_value(value) >= 0 && json_integer_value(value) <= ID_LIMIT) {
        *id = (int32_t)json_integer_value(value);
        return ZIMAGE_OK;
    }
    return fail(r, ZIMAGE_ERROR_MODEL, "%s: the id of \"%.80s\": %s, expected an integer from 0 to %d", field, name,
                zi_json_describe(value, buffer, sizeof buffer), ID_LIMIT);
}

/* The id of `name` in the vocabulary, whose ids have been checked; -1: it is not there. */
static int32_t vocab_id(const reader *r, const char *name)
{
    const json_t *value = json_object_get(r->vocab, name);
    return value ? (int32_t)json_integer_value(value) : -1;
}

static zimage_status read_vocab(reader *r, const json_t *model, size_t added_tokens)
{
    json_t *vocab = json_object_get(model, "vocab");
    if (!json_is_object(vocab))
        return wrong(r, "model.vocab", "an object", vocab);
    r->vocab = vocab;
    size_t room = json_object_size(vocab) + added_tokens + 1;
    r->ids = malloc(room * sizeof *r->ids);
    if (!r->ids)
        return no_memory(r, "the vocabulary", room * sizeof *r->ids);
    const char *name;
    json_t *value;
    json_object_foreach(vocab, name, value)
    {
        named_id *entry = &r->ids[r->id_count++];
        entry->name = name;
        ZI_TRY(read_id(r, "model.vocab", name, value, &entry->id));
    }
    return ZIMAGE_OK;
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
static zimage_status read_byte_ids(const reader *r)
{
    int hidden = 0;
    for (int byte = 0; byte < 256; byte++) {
        char text[3];
        byte_character(byte, &hidden, text);
        r->tokenizer->bpe.byte_ids[byte] = vocab_id(r, text);
        if (r->tokenizer->bpe.byte_ids[byte] < 0)
            return fail(r, ZIMAGE_ERROR_MODEL, "model.vocab has no token \"%s\", which stands for byte 0x%02X", text,
                        (unsigned)byte);
    }
    return ZIMAGE_OK;
}

/* The two tokens of a merge: left is one block that holds both, each ended by a zero; right points into it. */
typedef struct merge_names {
    char *left, *right;
    size_t left_length, right_length;
    size_t capacity;
} merge_names;

static zimage_status read_merge_names(const reader *r, const json_t *merge, size_t index, merge_names *names)
{
    const char *left = NULL, *right = NULL;
    size_t left_length = 0, right_length = 0;
    if (json_is_string(merge)) {
        left = json_string_value(merge);
        const char *space = strchr(left, ' ');
        if (space && !strchr(space + 1, ' ')) {
            left_length = (size_t)(space - left);
            right = space + 1;
            right_length = json_string_length(merge) - left_length - 1;
        }
    } else if (json_is_array(merge) && json_array_size(merge) == 2) {
        const json_t *first = json_array_get(merge, 0), *second = json_array_get(merge, 1);
        if (json_is_string(first) && json_is_string(second)) {
            left = json_string_value(first);
            left_length = json_string_length(first);
            right = json_string_value(second);
            right_length = json_string_length(second);
        }
    }
    if (!right) {
        char field[64];
        snprintf(field, sizeof field, "model.merges[%zu]", index);
        return wrong(r, field, "\"A B\" or [\"A\", \"B\"]", merge);
    }
    char *text = zi_grow(names->left, &names->capacity, left_length + right_length + 2, 1);
    if (!text)
        return no_memory(r, "a merge", left_length + right_length + 2);
    names->left = text;
    names->right = text + left_length + 1;
    names->left_length = left_length;
    names->right_length = right_length;
    memcpy(names->left, left, left_length);
    names->left[left_length] = '\0';
    memcpy(names->right, right, right_length);
    names->right[right_length] = '\0';
    return ZIMAGE_OK;
}

static zimage_status add_merge(const reader *r, const json_t *merge, size_t index, merge_names *names)
{
    ZI_TRY(read_merge_names(r, merge, index, names));
    int32_t left = vocab_id(r, names->left), right = vocab_id(r, names->right);
    if (left < 0 || right < 0)
        return fail(r, ZIMAGE_ERROR_MODEL, "model.merges[%zu] names the token \"%.80s\", which is not in model.vocab",
                    index, left < 0 ? names->left : names->right);
    /* "A\0B\0" becomes "AB\0". */
    memmove(names->left + names->left_length, names->right, names->right_length + 1);
    int32_t result = vocab_id(r, names->left);
    if (result < 0)
        return fail(r, ZIMAGE_ERROR_MODEL, "model.merges[%zu] makes the token \"%.80s\", which is not in model.vocab",
                    index, names->left);
    zi_bpe_add(&r->tokenizer->bpe, left, right, (uint32_t)index, result);
    return ZIMAGE_OK;
}

static zimage_status read_merges(const reader *r, const json_t *model)
{
    const json_t *merges = json_object_get(model, "merges");
    if (!json_is_array(merges))
        return wrong(r, "model.merges", "an array", merges);
    size_t count = json_array_size(merges);
    if (count > INT32_MAX)
        return fail(r, ZIMAGE_ERROR_MODEL, "model.merges: %zu entries, expected at most %d", count, INT32_MAX);
    ZI_TRY(zi_bpe_init(&r->tokenizer->bpe, count, r->error));
    merge_names names = {0};
    zimage_status status = ZIMAGE_OK;
    for (size_t i = 0; i < count && status == ZIMAGE_OK; i++)
        status = add_merge(r, json_array_get(merges, i), i, &names);
    free(names.left);
    return status;
}

/* Reads the required flag `name` of added_tokens[index]. */
static zimage_status read_flag(const reader *r, const json_t *token, size_t index, const char *name, int *flag)
{
    const json_t *value = json_object_get(token, name);
    *flag = json_is_true(value);
    if (json_is_boolean(value))
        return ZIMAGE_OK;
    char field[64];
    snprintf(field, sizeof field, "added_tokens[%zu].%s", index, name);
    return wrong(r, field, "true or false", value);
}

static zimage_status refuse_flag(const reader *r, const json_t *token, size_t index, const char *name)
{
    int flag = 0;
    ZI_TRY(read_flag(r, token, index, name, &flag));
    if (!flag)
        return ZIMAGE_OK;
    return fail(r, ZIMAGE_ERROR_UNSUPPORTED, "added_tokens[%zu].%s: true, only false is supported", index, name);
}

/* A token that is searched in normalised text is normalised itself. */
static zimage_status add_normalized(const reader *r, const char *content, size_t length, int32_t id)
{
    zi_normalizer normalizer = {0};
    zimage_status status = ZIMAGE_OK;
    if (r->tokenizer->nfc)
        status = zi_normalize_nfc(&normalizer, content, length, &content, &length, r->error);
    if (status == ZIMAGE_OK)
        status = zi_added_push(&r->tokenizer->normalized, content, length, id, r->error);
    zi_normalizer_free(&normalizer);
    return status;
}

static zimage_status read_added_token(reader *r, const json_t *token, size_t index)
{
    char field[64];
    snprintf(field, sizeof field, "added_tokens[%zu]", index);
    if (!json_is_object(token))
        return wrong(r, field, "an object", token);
    const json_t *content = json_object_get(token, "content");
    size_t length = json_string_length(content); /* 0 for anything but a string */
    if (length == 0 || length > ADDED_TOKEN_LIMIT) {
        char buffer[96];
        return fail(r, ZIMAGE_ERROR_MODEL, "%s.content: %s, expected a string of 1 to %d bytes", field,
                    zi_json_describe(content, buffer, sizeof buffer), ADDED_TOKEN_LIMIT);
    }
    const char *name = json_string_value(content);
    int32_t id = 0, known = vocab_id(r, name);
    int normalized = 0;
    ZI_TRY(read_id(r, field, name, json_object_get(token, "id"), &id));
    ZI_TRY(refuse_flag(r, token, index, "single_word"));
    ZI_TRY(refuse_flag(r, token, index, "lstrip"));
    ZI_TRY(refuse_flag(r, token, index, "rstrip"));
    ZI_TRY(read_flag(r, token, index, "normalized", &normalized));
    if (known >= 0 && known != id)
        return fail(r, ZIMAGE_ERROR_MODEL, "%s gives \"%.80s\" the id %d, but model.vocab gives it %d", field, name,
                    (int)id, (int)known);
    if (known < 0)
        r->ids[r->id_count++] = (named_id){id, name};
    if (normalized)
        return add_normalized(r, name, length, id);
    return zi_added_push(&r->tokenizer->raw, name, length, id, r->error);
}

static zimage_status read_added_tokens(reader *r, const json_t *tokens)
{
    for (size_t i = 0; i < json_array_size(tokens); i++)
        ZI_TRY(read_added_token(r, json_array_get(tokens, i), i));
    const char *twice = zi_added_seal(&r->tokenizer->raw);
    if (!twice)
        twice = zi_added_seal(&r->tokenizer->normalized);
    if (twice)
        return fail(r, ZIMAGE_ERROR_MODEL, "added_tokens holds \"%.80s\" twice", twice);
    return ZIMAGE_OK;
}

static int compare_ids(const void *a, const void *b)
{
    const named_id *x = a, *y = b;
    return (x->id > y->id) - (x->id < y->id);
}

static zimage_status check_ids(reader *r)
{
    qsort(r->ids, r->id_count, sizeof *r->ids, compare_ids);
    for (size_t i = 1; i < r->id_count; i++)
        if (r->ids[i].id == r->ids[i - 1].id)
            return fail(r, ZIMAGE_ERROR_MODEL, "model.vocab and added_tokens give the id %d to \"%.80s\" and \"%.80s\"",
                        (int)r->ids[i].id, r->ids[i - 1].name, r->ids[i].name);
    r->tokenizer->vocab_size = (int64_t)r->ids[r->id_count - 1].id + 1;
    return ZIMAGE_OK;
}

/*
 * "truncation" and "padding" are not read: they belong to the program that saved the file, and the reference sets both.
 */
static zimage_status read_all(reader *r, const json_t *root)
{
    const json_t *model = json_object_get(root, "model"), *added = json_object_get(root, "added_tokens");
    if (!json_is_object(model))
        return wrong(r, "model", "an object", model);
    if (!is_absent(added) && !json_is_array(added))
        return wrong(r, "added_tokens", "an array", added);
    ZI_TRY(read_normalizer(r, root));
    ZI_TRY(read_pre_tokenizer(r, root));
    ZI_TRY(check_post_processor(r, root));
    ZI_TRY(check_model_options(r, model));
    ZI_TRY(read_vocab(r, model, json_array_size(added)));
    ZI_TRY(read_byte_ids(r));
    ZI_TRY(read_merges(r, model));
    ZI_TRY(read_added_tokens(r, added));
    return check_ids(r);
}

zimage_status zi_tokenizer_load(const char *path, zi_tokenizer **tokenizer, zimage_error *error)
{
    json_t *root = NULL;
    *tokenizer = NULL;
    ZI_TRY(zi_json_load_within(path, &zi_tokenizer_limits, &root, error));
    reader r = {.path = path, .error = error, .tokenizer = calloc(1, sizeof *r.tokenizer)};
    zimage_status status = r.tokenizer ? read_all(&r, root) : zi_fail_memory(error, "a tokenizer", sizeof *r.tokenizer);
    free(r.ids);
    json_decref(root);
    if (status == ZIMAGE_OK)
        *tokenizer = r.tokenizer;
    else
        zi_tokenizer_free(r.tokenizer);
    return status;
}
