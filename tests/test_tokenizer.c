/* The tokenizer: ids against those of the `tokenizers` package, texts, threads, the public functions, the command. */
#include "tokenizer.h"

#include <pthread.h>

static void qwen3_ids_equal_the_reference(void **state)
{
    compare_golden("tokenizer-qwen3.safetensors", qwen3_file());
}

static void tiny_ids_equal_the_reference(void **state)
{
    compare_golden("tokenizer-tiny.safetensors", TINY_FILE);
}

/* The ids of the fixed parts of the templates (docs/spec/text-encoder.md 5). */
static void qwen3_templates_have_the_published_ids(void **state)
{
    static const int32_t EMPTY[] = {151644, 872, 198, 151645, 198, 151644, 77091, 198};
    static const int32_t KLEIN[] = {151644, 872, 198, 151645, 198, 151644, 77091, 198, 151667, 271, 151668, 271};
    zi_tokenizer *tokenizer = load(qwen3_file());
    assert_int_equal(zi_tokenizer_vocab_size(tokenizer), 151669);
    expect_ids(tokenizer, ZIMAGE_TEMPLATE_Z_IMAGE, "", 0, EMPTY, 8);
    expect_ids(tokenizer, ZIMAGE_TEMPLATE_KLEIN, "", 0, KLEIN, 12);
    expect_ids(tokenizer, ZIMAGE_TEMPLATE_NONE, LITERAL("<|im_start|>user\n<|im_end|>\n<|im_start|>assistant\n"), EMPTY,
               8);
    zi_tokenizer_free(tokenizer);
}

/* ---- texts ----------------------------------------------------------------------------------------------------- */

static void invalid_utf8_is_refused_with_its_offset(void **state)
{
    static const struct {
        const char *text;
        size_t length, offset;
    } CASES[] = {
        {LITERAL("\xFF"), 0},
        {LITERAL("ab\x80"), 2},
        {LITERAL("\u00E9\xC3"), 2}, /* ends within a character */
        {LITERAL("\u00E9\xC3z"), 2},
        {LITERAL("\xC0\xAF"), 0}, /* overlong */
        {LITERAL("\xE0\x80\x80"), 0},
        {LITERAL("\xF0\x8F\xBF\xBF"), 0},
        {LITERAL("a\xED\xA0\x80"), 1},    /* surrogate */
        {LITERAL("\xF4\x90\x80\x80"), 0}, /* beyond U+10FFFF */
        {LITERAL("\U0001F600\xF0\x9F\x98"), 4},
        {LITERAL("\xE4\xBD\xA0\xE5\xA5"), 3},
    };
    zi_tokenizer *tokenizer = load(TINY_FILE);
    for (size_t i = 0; i < sizeof CASES / sizeof CASES[0]; i++)
        for (int kind = ZIMAGE_TEMPLATE_NONE; kind <= ZIMAGE_TEMPLATE_KLEIN; kind++) {
            zimage_error error = ZIMAGE_ERROR_INIT;
            char offset[32];
            int32_t *ids = (int32_t *)&error;
            size_t count = 7;
            snprintf(offset, sizeof offset, "at offset %zu", CASES[i].offset);
            assert_int_equal(zi_tokenizer_encode_prompt(tokenizer, (zimage_template)kind, CASES[i].text,
                                                        CASES[i].length, &ids, &count, &error),
                             ZIMAGE_ERROR_ARGUMENT);
            assert_non_null(strstr(error.message, offset));
            assert_null(ids);
            assert_int_equal(count, 0);
        }
    /* The first and last of each length, and a zero byte (Ā = 189 in the tiny vocabulary's byte table). */
    size_t count;
    free(encode(tokenizer, ZIMAGE_TEMPLATE_NONE,
                LITERAL("\x01\x7F\xC2\x80\u07FF\u0800\uD7FF\uE000\uFFFF\U00010000\U0010FFFF"), &count));
    int32_t *ids = encode(tokenizer, ZIMAGE_TEMPLATE_NONE, LITERAL("a\0b"), &count);
    assert_int_equal(count, 3);
    free(ids);
    zi_tokenizer_free(tokenizer);
}

typedef struct job {
    const zi_tokenizer *tokenizer;
    strings strings;
    size_t mismatches;
} job;

static void *run_job(void *argument)
{
    job *j = argument;
    j->mismatches = compare_strings(j->tokenizer, ZIMAGE_TEMPLATE_NONE, j->strings, SIZE_MAX);
    return NULL;
}

static void threads_share_a_tokenizer(void **state)
{
    zi_store *store = fixture_open("tokenizer-tiny.safetensors");
    zi_tokenizer *tokenizer = load(TINY_FILE);
    job jobs[3];
    pthread_t threads[3];
    for (int i = 0; i < 3; i++) {
        jobs[i] = (job){tokenizer, read_strings(store, "text", "ids"), 1};
        assert_int_equal(pthread_create(&threads[i], NULL, run_job, &jobs[i]), 0);
    }
    for (int i = 0; i < 3; i++) {
        pthread_join(threads[i], NULL);
        assert_int_equal(jobs[i].mismatches, 0);
    }
    zi_tokenizer_free(tokenizer);
    zi_store_free(store);
}

/* ---- the public functions and the command ---------------------------------------------------------------------- */

static void api_finds_the_file_and_checks_arguments(void **state)
{
    static const char *const PATHS[] = {ZIMAGE_TEST_DATA "/tiny", ZIMAGE_TEST_DATA "/tiny/tokenizer", TINY_FILE};
    zimage_error error = ZIMAGE_ERROR_INIT;
    zimage_tokenizer *tokenizer = NULL;
    int32_t *ids = NULL;
    size_t count = 0;
    for (int i = 0; i < 3; i++) {
        assert_int_equal(zimage_tokenizer_open(PATHS[i], &tokenizer, &error), ZIMAGE_OK);
        assert_int_equal(zimage_tokenizer_encode(tokenizer, ZIMAGE_TEMPLATE_NONE, "x", 1, &ids, &count, &error),
                         ZIMAGE_OK);
        assert_int_equal(count, 1);
        assert_int_equal(ids[0], 87);
        zimage_free(ids);
        assert_int_equal(zimage_tokenizer_encode(tokenizer, ZIMAGE_TEMPLATE_NONE, NULL, 0, &ids, &count, &error),
                         ZIMAGE_OK);
        assert_int_equal(count, 0);
        zimage_free(ids);
        assert_int_equal(zimage_tokenizer_encode(tokenizer, ZIMAGE_TEMPLATE_NONE, NULL, 1, &ids, &count, &error),
                         ZIMAGE_ERROR_ARGUMENT);
        assert_int_equal(zimage_tokenizer_encode(tokenizer, (zimage_template)3, "x", 1, &ids, &count, &error),
                         ZIMAGE_ERROR_ARGUMENT);
        assert_int_equal(zimage_tokenizer_encode(tokenizer, ZIMAGE_TEMPLATE_NONE, "x", 1, NULL, &count, NULL),
                         ZIMAGE_ERROR_ARGUMENT);
        zimage_tokenizer_close(tokenizer);
    }
    assert_int_equal(zimage_tokenizer_encode(NULL, ZIMAGE_TEMPLATE_NONE, "x", 1, &ids, &count, &error),
                     ZIMAGE_ERROR_ARGUMENT);
    const char *empty = in_folder("empty");
    assert_int_equal(mkdir(empty, 0700), 0);
    assert_int_equal(zimage_tokenizer_open(empty, &tokenizer, &error), ZIMAGE_ERROR_FILE);
    assert_null(tokenizer);
    assert_non_null(strstr(error.message, "tokenizer/tokenizer.json"));
    assert_int_equal(zimage_tokenizer_open("/nowhere/at-all", &tokenizer, &error), ZIMAGE_ERROR_FILE);
    assert_non_null(strstr(error.message, "/nowhere/at-all"));
    assert_int_equal(zimage_tokenizer_open(NULL, &tokenizer, NULL), ZIMAGE_ERROR_ARGUMENT);
    assert_int_equal(zimage_tokenizer_open("", &tokenizer, NULL), ZIMAGE_ERROR_ARGUMENT);
    assert_int_equal(zimage_tokenizer_open("x", NULL, NULL), ZIMAGE_ERROR_ARGUMENT);
    zimage_tokenizer_close(NULL);
}

#define RUN(o, ...) run_program((const char *const[]){"tokenize", __VA_ARGS__, NULL}, (o))

static void command_prints_ids(void **state)
{
    static const char MODEL_FOLDER[] = ZIMAGE_TEST_DATA "/tiny";
    static outcome o;
    RUN(&o, "-m", MODEL_FOLDER, "x-1");
    assert_int_equal(o.code, 0);
    assert_string_equal(o.out, "87 12 16\n");
    RUN(&o, "-m", MODEL_FOLDER, "");
    assert_int_equal(o.code, 0);
    assert_string_equal(o.out, "\n");
    RUN(&o, "-m", MODEL_FOLDER, "--json", "--template", "none", "--", "-x");
    assert_int_equal(o.code, 0);
    assert_string_equal(o.out, "{\"template\": \"none\", \"count\": 2, \"ids\": [12, 87]}\n");
    RUN(&o, "--help");
    assert_int_equal(o.code, 0);
    assert_non_null(strstr(o.out, "--template"));
}

static void command_explains_mistakes(void **state)
{
    static const char MODEL_FOLDER[] = ZIMAGE_TEST_DATA "/tiny";
    static outcome o;
    RUN(&o, "-m", MODEL_FOLDER);
    assert_int_equal(o.code, 2);
    RUN(&o, "-m", MODEL_FOLDER, "a", "b");
    assert_int_equal(o.code, 2);
    RUN(&o, "-m", MODEL_FOLDER, "--template", "chat", "a");
    assert_int_equal(o.code, 2);
    assert_non_null(strstr(o.err, "chat"));
    RUN(&o, "-m", MODEL_FOLDER, "--nonsense", "a");
    assert_int_equal(o.code, 2);
    RUN(&o, "-m", "/nowhere/at-all", "a");
    assert_int_equal(o.code, 1);
    assert_non_null(strstr(o.err, "/nowhere/at-all"));
    RUN(&o, "-m", MODEL_FOLDER, "ab\xFF");
    assert_int_equal(o.code, 1);
    assert_non_null(strstr(o.err, "offset 2"));
    assert_string_equal(o.out, "");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(qwen3_ids_equal_the_reference),
        cmocka_unit_test(tiny_ids_equal_the_reference),
        cmocka_unit_test(qwen3_templates_have_the_published_ids),
        cmocka_unit_test(invalid_utf8_is_refused_with_its_offset),
        cmocka_unit_test(threads_share_a_tokenizer),
        cmocka_unit_test(api_finds_the_file_and_checks_arguments),
        cmocka_unit_test(command_prints_ids),
        cmocka_unit_test(command_explains_mistakes),
    };
    return cmocka_run_group_tests(tests, folder_make, folder_remove);
}
