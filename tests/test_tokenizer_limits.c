/* Time and memory of the tokenizer: hostile texts and files. */
#include "tokenizer.h"

#include "text/split.h"

/* A megabyte of each. 120 s are enough even under valgrind, and too short for a step of quadratic time. */
static void a_megabyte_takes_seconds(void **state)
{
    static const char *const UNITS[] = {"a",
                                        " ",
                                        "\n",
                                        "<",
                                        "<|im_",
                                        "\u0316\u0300",
                                        "\u0301",
                                        "中文",
                                        "1",
                                        "'",
                                        "<|im_end|>",
                                        " \u00A0",
                                        "\U00031350",
                                        "x \n",
                                        "the quick brown fox. ",
                                        "\u1100\u1161\u11A8"};
    const size_t size = 1 << 20;
    zi_tokenizer *tokenizer = load(qwen3_file());
    char *text = malloc(size);
    assert_non_null(text);
    double slowest = 0;
    for (size_t i = 0; i < sizeof UNITS / sizeof UNITS[0]; i++) {
        size_t unit = strlen(UNITS[i]), length = size / unit * unit, count;
        for (size_t at = 0; at < length; at += unit)
            memcpy(text + at, UNITS[i], unit);
        double start = seconds();
        free(encode(tokenizer, ZIMAGE_TEMPLATE_Z_IMAGE, text, length, &count));
        double taken = seconds() - start;
        slowest = taken > slowest ? taken : slowest;
        assert_true(count > 8);
    }
    printf("a megabyte: %.2f s at most\n", slowest);
    free(text);
    zi_tokenizer_free(tokenizer);
    assert_true(slowest < 120);
}

/* ---- hostile files --------------------------------------------------------------------------------------------- */

/* Patterns that backtrack: each is refused with a sentence, or done, in a short time. */
static void patterns_that_backtrack_take_seconds(void **state)
{
    static const char *const PATTERNS[] = {"(a+)+[bc]",        "(a|aa)+[bc]|z",    "(?:(?:a+)+)+[bc]|a",
                                           "a*a*a*a*[bc]",     "(?<=a)a*a*[bc]|a", "[^b]*[^c]*[xy]",
                                           "(?:a*){2,}[bc]|a", "\\S*\\S*\\S*[bc]"};
    char text[2000], quoted[64];
    memset(text, 'a', sizeof text);
    size_t refused = 0;
    for (size_t i = 0; i < sizeof PATTERNS / sizeof PATTERNS[0]; i++) {
        json_t *root = tiny_json(), *pattern = json_string(PATTERNS[i]);
        char *written = json_dumps(pattern, JSON_ENCODE_ANY);
        snprintf(quoted, sizeof quoted, "%s", written);
        set_at(root, "pre_tokenizer.pretokenizers.0.pattern.Regex", quoted);
        free(written);
        json_decref(pattern);
        zi_tokenizer *tokenizer = load(save_json(root));
        zimage_error error = ZIMAGE_ERROR_INIT;
        int32_t *ids = NULL;
        size_t count;
        double start = seconds();
        if (zi_tokenizer_encode_prompt(tokenizer, ZIMAGE_TEMPLATE_NONE, text, sizeof text, &ids, &count, &error)) {
            refused++;
            assert_non_null(strstr(error.message, "takes too much work on this text"));
        }
        assert_true(seconds() - start < 60);
        free(ids);
        zi_tokenizer_free(tokenizer);
    }
    assert_true(refused > 4);
}

/* The budget is for a whole text: many added tokens, each with a little text after it, don't multiply it. */
static void one_budget_serves_a_whole_text(void **state)
{
    json_t *root = tiny_json();
    set_at(root, "pre_tokenizer.pretokenizers.0.pattern.Regex", "\"(?:(?:a+)+)+[bc]|d\"");
    zi_tokenizer *tokenizer = load(save_json(root));
    char text[8000] = "";
    for (char *at = text; at + 64 < text + sizeof text;)
        at += sprintf(at, "<|im_end|>aaaaaaaaaaaaaaaaaaaaaaaa");
    zimage_error error = ZIMAGE_ERROR_INIT;
    int32_t *ids = NULL;
    size_t count;
    assert_int_equal(
        zi_tokenizer_encode_prompt(tokenizer, ZIMAGE_TEMPLATE_NONE, text, strlen(text), &ids, &count, &error),
        ZIMAGE_ERROR_UNSUPPORTED);
    zi_tokenizer_free(tokenizer);
}

static void other_patterns_read_short_texts(void **state)
{
    json_t *root = tiny_json();
    set_at(root, "pre_tokenizer.pretokenizers.0.pattern.Regex", "\"\\\\p{N}| ?\\\\p{L}+|\\\\s+\"");
    zi_tokenizer *tokenizer = load(save_json(root));
    char *text = malloc(ZI_SLOW_PATTERN_LIMIT + 1);
    memset(text, '1', ZI_SLOW_PATTERN_LIMIT + 1);
    size_t count;
    free(encode(tokenizer, ZIMAGE_TEMPLATE_NONE, text, ZI_SLOW_PATTERN_LIMIT, &count));
    assert_int_equal(count, ZI_SLOW_PATTERN_LIMIT);
    zimage_error error = ZIMAGE_ERROR_INIT;
    int32_t *ids = NULL;
    assert_int_equal(zi_tokenizer_encode_prompt(tokenizer, ZIMAGE_TEMPLATE_NONE, text, ZI_SLOW_PATTERN_LIMIT + 1, &ids,
                                                &count, &error),
                     ZIMAGE_ERROR_ARGUMENT);
    assert_non_null(strstr(error.message, "expected at most 8192"));
    free(text);
    zi_tokenizer_free(tokenizer);
}

/* Added tokens that are nearly in the text at every place of it. */
static void added_tokens_take_seconds(void **state)
{
    enum { LENGTH = 256, TOKENS = 200 };
    json_t *root = tiny_json();
    json_t *tokens = json_object_get(root, "added_tokens");
    for (int i = 0; i < TOKENS; i++) {
        char content[LENGTH + 1] = "";
        memset(content, 'a', (size_t)(LENGTH - 1 - i));
        content[LENGTH - 1 - i] = 'b';
        json_t *token = json_deep_copy(json_array_get(tokens, 0));
        json_object_set_new(token, "content", json_string(content));
        json_object_set_new(token, "id", json_integer(768 + i));
        json_array_append_new(tokens, token);
    }
    zi_tokenizer *tokenizer = load(save_json(root));
    char *text = malloc(ZI_TEXT_LIMIT);
    memset(text, 'a', ZI_TEXT_LIMIT);
    size_t count;
    double start = seconds();
    free(encode(tokenizer, ZIMAGE_TEMPLATE_NONE, text, ZI_TEXT_LIMIT, &count));
    printf("added tokens: %.2f s\n", seconds() - start);
    assert_true(seconds() - start < 120);
    free(text);
    zi_tokenizer_free(tokenizer);
}

/* ---- long texts ------------------------------------------------------------------------------------------------ */

static void a_longer_text_is_refused(void **state)
{
    zi_tokenizer *tokenizer = load(TINY_FILE);
    zimage_error error = ZIMAGE_ERROR_INIT;
    char *text = malloc(ZI_TEXT_LIMIT + 2);
    memset(text, 'a', ZI_TEXT_LIMIT + 1);
    text[ZI_TEXT_LIMIT + 1] = 0;
    zi_prompt_ids found;
    assert_int_equal(zi_tokenizer_encode_cut(tokenizer, ZIMAGE_TEMPLATE_Z_IMAGE, text, 512, &found, &error),
                     ZIMAGE_ERROR_ARGUMENT);
    assert_non_null(strstr(error.message, "the text has 1048577 bytes, expected at most 1048576"));
    assert_null(found.ids);
    free(text);
    zi_tokenizer_free(tokenizer);
}

/* A prompt is cut where its whole encoding is cut, and the rest of it is not encoded. */
static void a_cut_prompt_has_the_first_ids(void **state)
{
    static const size_t LIMITS[] = {1, 3, 8, 9, 100, 512, 100000};
    zi_tokenizer *tokenizer = load(TINY_FILE);
    char prompt[4096] = "";
    for (char *at = prompt; at + 64 < prompt + sizeof prompt;)
        at += sprintf(at, "a red apple, <think> 12 \u4F60 e\u0301  \n");
    size_t count;
    int32_t *ids = encode(tokenizer, ZIMAGE_TEMPLATE_Z_IMAGE, prompt, strlen(prompt), &count);
    for (size_t i = 0; i < sizeof LIMITS / sizeof LIMITS[0]; i++) {
        zimage_error error = ZIMAGE_ERROR_INIT;
        zi_prompt_ids found;
        assert_int_equal(zi_tokenizer_encode_cut(tokenizer, ZIMAGE_TEMPLATE_Z_IMAGE, prompt, LIMITS[i], &found, &error),
                         ZIMAGE_OK);
        assert_int_equal(found.cut, count > LIMITS[i]);
        assert_int_equal(found.count, count > LIMITS[i] ? LIMITS[i] : count);
        assert_memory_equal(found.ids, ids, found.count * sizeof *ids);
        free(found.ids);
    }
    free(ids);
    zi_tokenizer_free(tokenizer);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_megabyte_takes_seconds),       cmocka_unit_test(patterns_that_backtrack_take_seconds),
        cmocka_unit_test(one_budget_serves_a_whole_text), cmocka_unit_test(other_patterns_read_short_texts),
        cmocka_unit_test(added_tokens_take_seconds),      cmocka_unit_test(a_longer_text_is_refused),
        cmocka_unit_test(a_cut_prompt_has_the_first_ids),
    };
    return cmocka_run_group_tests(tests, folder_make, folder_remove);
}
