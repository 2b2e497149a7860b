/* The published tokenizer.json of Qwen3, from its golden (tests/golden/README.md). */
#ifndef ZI_TESTS_QWEN3_TOKENIZER_H
#define ZI_TESTS_QWEN3_TOKENIZER_H

#include <jansson.h>

#include "fixture.h"

static inline const void *tensor(const zi_store *store, const char *name, size_t *bytes)
{
    const zi_weight *weight = fixture_find(store, name);
    if (bytes)
        *bytes = weight->bytes;
    return weight->data;
}

/*
 * The character that stands for a byte in a byte-level vocabulary, as UTF-8: itself if it is visible in Latin-1,
 * otherwise U+0100 + n for the n-th byte that is not.
 */
static inline void byte_to_character(int byte, char text[3])
{
    int code = byte, hidden = 0;
    for (int b = 0; b <= byte; b++) {
        int visible = (b >= '!' && b <= '~') || (b >= 0xA1 && b <= 0xAC) || b >= 0xAE;
        code = visible ? b : 0x100 + hidden++;
    }
    if (code < 0x80)
        snprintf(text, 3, "%c", code);
    else
        snprintf(text, 3, "%c%c", 0xC0 | code >> 6, 0x80 | (code & 0x3F));
}

/* The name of a token of `length` bytes. */
static inline void token_name(const uint8_t *bytes, size_t length, char *name)
{
    static char characters[256][3];
    *name = 0;
    for (int b = 0; b < 256 && !characters[255][0]; b++)
        byte_to_character(b, characters[b]);
    for (size_t i = 0; i < length; i++)
        name = stpcpy(name, characters[bytes[i]]);
}

/* Writes the file. */
static inline void write_qwen3(const char *path)
{
    zi_store *store = fixture_open("tokenizer-qwen3-vocabulary.safetensors");
    size_t size, tokens, merges;
    const char *rest = tensor(store, "tokenizer", &size);
    const uint8_t *bytes = tensor(store, "vocabulary.tokens", NULL);
    const uint8_t *lengths = tensor(store, "vocabulary.lengths", &tokens);
    const uint8_t *lefts = tensor(store, "merges.left", &merges);
    json_t *root = json_loadb(rest, size, 0, NULL);
    json_t *vocab = json_object_get(json_object_get(root, "model"), "vocab");
    json_t *pairs = json_object_get(json_object_get(root, "model"), "merges");
    assert_int_equal(tokens, merges + 256);
    for (size_t i = 0; i < tokens; bytes += lengths[i++]) {
        char name[2 * 255 + 1], left[2 * 255 + 1], right[2 * 255 + 1];
        token_name(bytes, lengths[i], name);
        assert_int_equal(json_object_set_new(vocab, name, json_integer((json_int_t)i)), 0);
        if (i < 256)
            continue;
        token_name(bytes, lefts[i - 256], left);
        token_name(bytes + lefts[i - 256], lengths[i] - lefts[i - 256], right);
        assert_int_equal(json_array_append_new(pairs, json_pack("[s, s]", left, right)), 0);
    }
    assert_int_equal(json_object_size(vocab), tokens);
    assert_int_equal(json_dump_file(root, path, JSON_COMPACT), 0);
    json_decref(root);
    zi_store_free(store);
}

#endif
