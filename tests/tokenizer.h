/* Shared by the tests of the tokenizer: loading, encoding, strings of goldens, changed copies of a tokenizer.json. */
#ifndef ZI_TESTS_TOKENIZER_H
#define ZI_TESTS_TOKENIZER_H

#include <time.h>

#include "fixture.h"
#include "program.h"
#include "qwen3_tokenizer.h"
#include "text/tokenizer.h"

#define TINY_FILE     ZIMAGE_TEST_DATA "/tiny/tokenizer/tokenizer.json"
#define LITERAL(text) (text), sizeof(text) - 1

static inline zi_tokenizer *load(const char *path)
{
    zimage_error error = ZIMAGE_ERROR_INIT;
    zi_tokenizer *tokenizer = NULL;
    if (zi_tokenizer_load(path, &tokenizer, &error) != ZIMAGE_OK)
        fail_msg("%s", error.message);
    return tokenizer;
}

static inline int32_t *encode(const zi_tokenizer *tokenizer, zimage_template kind, const char *text, size_t length,
                              size_t *count)
{
    zimage_error error = ZIMAGE_ERROR_INIT;
    int32_t *ids = NULL;
    if (zi_tokenizer_encode_prompt(tokenizer, kind, text, length, &ids, count, &error) != ZIMAGE_OK)
        fail_msg("%s", error.message);
    assert_non_null(ids);
    return ids;
}

static inline void expect_ids(const zi_tokenizer *tokenizer, zimage_template kind, const char *text, size_t length,
                              const int32_t *wanted, size_t wanted_count)
{
    size_t count;
    int32_t *ids = encode(tokenizer, kind, text, length, &count);
    assert_int_equal(count, wanted_count);
    if (count)
        assert_memory_equal(ids, wanted, count * sizeof *ids);
    free(ids);
}

static inline double seconds(void)
{
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (double)now.tv_sec + (double)now.tv_nsec * 1e-9;
}

/* ---- goldens --------------------------------------------------------------------------------------------------- */

typedef struct strings {
    const char *text;
    const int64_t *offsets;
    const int32_t *ids;
    const int64_t *ids_offsets;
    size_t count;
} strings;

static inline strings read_strings(const zi_store *store, const char *text, const char *ids)
{
    char name[96];
    size_t bytes;
    strings s;
    s.text = tensor(store, text, NULL);
    snprintf(name, sizeof name, "%s_offsets", text);
    s.offsets = tensor(store, name, &bytes);
    s.count = bytes / sizeof *s.offsets - 1;
    s.ids = tensor(store, ids, NULL);
    snprintf(name, sizeof name, "%s_offsets", ids);
    s.ids_offsets = tensor(store, name, &bytes);
    assert_int_equal(bytes / sizeof *s.ids_offsets - 1, s.count);
    return s;
}

/* Returns the number of strings with other ids. Only the first `limit` ids are compared: the golden was truncated. */
static inline size_t compare_strings(const zi_tokenizer *tokenizer, zimage_template kind, strings s, size_t limit)
{
    size_t mismatches = 0;
    for (size_t i = 0; i < s.count; i++) {
        const int32_t *wanted = s.ids + s.ids_offsets[i];
        size_t wanted_count = (size_t)(s.ids_offsets[i + 1] - s.ids_offsets[i]), count;
        size_t length = (size_t)(s.offsets[i + 1] - s.offsets[i]);
        int32_t *ids = encode(tokenizer, kind, s.text + s.offsets[i], length, &count);
        if (count > limit)
            count = limit;
        if (count != wanted_count || (count && memcmp(ids, wanted, count * sizeof *ids) != 0)) {
            if (mismatches++ < 5)
                printf("string %zu has other ids: \"%.*s\"\n", i, (int)length, s.text + s.offsets[i]);
        }
        free(ids);
    }
    return mismatches;
}

static inline void compare_golden(const char *golden, const char *file)
{
    zi_store *store = fixture_open(golden);
    double start = seconds();
    zi_tokenizer *tokenizer = load(file);
    double loaded = seconds();
    strings plain = read_strings(store, "text", "ids");
    size_t mismatches = compare_strings(tokenizer, ZIMAGE_TEMPLATE_NONE, plain, SIZE_MAX);
    printf("%s: %zu strings, %zu mismatches (loaded in %.2f s, encoded in %.2f s)\n", golden, plain.count, mismatches,
           loaded - start, seconds() - loaded);
    strings z = read_strings(store, "prompt.text", "template.z-image.ids");
    strings klein = read_strings(store, "prompt.text", "template.klein.ids");
    size_t templated = compare_strings(tokenizer, ZIMAGE_TEMPLATE_Z_IMAGE, z, 512) +
                       compare_strings(tokenizer, ZIMAGE_TEMPLATE_KLEIN, klein, 512);
    printf("%s: %zu templated prompts, %zu mismatches\n", golden, z.count + klein.count, templated);
    zi_tokenizer_free(tokenizer);
    zi_store_free(store);
    assert_int_equal(mismatches, 0);
    assert_int_equal(templated, 0);
}

/* The path of the published tokenizer.json, which the first call writes. */
static inline const char *qwen3_file(void)
{
    static char path[PATH_MAX];
    if (!path[0]) {
        snprintf(path, sizeof path, "%s", in_folder("qwen3-tokenizer.json"));
        write_qwen3(path);
    }
    return path;
}

/* ---- changed copies -------------------------------------------------------------------------------------------- */

static inline json_t *tiny_json(void)
{
    json_t *root = json_load_file(TINY_FILE, 0, NULL);
    assert_non_null(root);
    return root;
}

static inline const char *save_json(json_t *root)
{
    const char *path = in_folder("tokenizer.json");
    assert_int_equal(json_dump_file(root, path, JSON_INDENT(1)), 0);
    json_decref(root);
    return path;
}

/* Sets the value at "a.b.0.c" to the one of a JSON text (NULL removes it); the index after the last appends. */
static inline void set_at(json_t *root, const char *where, const char *value)
{
    char path[256];
    snprintf(path, sizeof path, "%s", where);
    json_t *at = root;
    char *key = path;
    for (char *dot; (dot = strchr(key, '.')); key = dot + 1) {
        *dot = 0;
        at = json_is_array(at) ? json_array_get(at, (size_t)atoi(key)) : json_object_get(at, key);
        assert_non_null(at);
    }
    json_t *made = value ? json_loads(value, JSON_DECODE_ANY, NULL) : NULL;
    assert_true(made || !value);
    size_t index = (size_t)atoi(key);
    if (json_is_object(at))
        assert_int_equal(made ? json_object_set_new(at, key, made) : json_object_del(at, key), 0);
    else if (!made)
        assert_int_equal(json_array_remove(at, index), 0);
    else if (index == json_array_size(at))
        assert_int_equal(json_array_append_new(at, made), 0);
    else
        assert_int_equal(json_array_set_new(at, index, made), 0);
}

#endif
