/* The parts of the tokenizer: pieces, classes of characters, normalisation, merges. */
#include "tokenizer.h"

#include "text/bpe.h"
#include "text/normalize.h"
#include "text/split.h"
#include "text/unicode.h"

#define PATTERN                                                                                                        \
    "(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\\r\\n\\p{L}\\p{N}]?\\p{L}+|\\p{N}| ?[^\\s\\p{L}\\p{N}]+[\\r\\n]*|\\s*[\\r\\n]+|"  \
    "\\s+(?!\\S)|\\s+"

static zi_split *compile(const char *pattern)
{
    zimage_error error = ZIMAGE_ERROR_INIT;
    zi_split *split = NULL;
    if (zi_split_new(pattern, "a pattern", &split, &error) != ZIMAGE_OK)
        fail_msg("%s", error.message);
    return split;
}

/* The examples of docs/spec/text-encoder.md 7: normalised, then split. Here '|' stands between pieces. */
static void pieces_are_those_of_the_spec(void **state)
{
    static const char *const CASES[][2] = {
        {"Don't STOP,it'S  two   spaces", "Don|'t| STOP|,it|'S| | two|  | spaces"},
        {"x=1024px; 3.14!", "x|=|1|0|2|4|px|;| |3|.|1|4|!"},
        {"a \n b\n\n  c  ", "a| \n| b|\n\n| | c|  "},
        {"你好，世界！123", "你好|，世界|！|1|2|3"},
        {"naïve café — “quoted”…", "naïve| café| —| “|quoted|”…"},
        {"tab\tsep  \t end ", "tab|\tsep|  \t| end| "},
        {"emoji 🐱🚀 ok", "emoji| 🐱🚀| ok"},
        {"line1\r\nline2", "line|1|\r\n|line|2"},
        {"  lead", " | lead"},
        {"e\u0301A\u030A", "éÅ"},
        {"we'LL'\u017F\u00A0x \u180E\u200By", "we|'LL|'\u017F|\u00A0x| \u180E\u200B|y"},
        {"\U00031350\U0002EBF0 \U0001E5F1\u0558", "\U00031350\U0002EBF0| |\U0001E5F1|\u0558"}, /* Unicode 15, 16, 18 */
        {"", ""},
    };
    zimage_error error = ZIMAGE_ERROR_INIT;
    zi_split *split = compile(PATTERN);
    zi_splitter splitter;
    zi_normalizer normalizer = {0};
    assert_int_equal(zi_splitter_open(&splitter, split, &error), ZIMAGE_OK);
    for (size_t i = 0; i < sizeof CASES / sizeof CASES[0]; i++) {
        const char *text;
        char joined[256] = "";
        size_t length, begin, end, used = 0;
        assert_int_equal(zi_normalize_nfc(&normalizer, CASES[i][0], strlen(CASES[i][0]), &text, &length, &error),
                         ZIMAGE_OK);
        assert_int_equal(zi_splitter_start(&splitter, text, length, &error), ZIMAGE_OK);
        for (;;) {
            assert_int_equal(zi_splitter_next(&splitter, &begin, &end, &error), ZIMAGE_OK);
            if (begin == end)
                break;
            used += (size_t)snprintf(joined + used, sizeof joined - used, "%s%.*s", used ? "|" : "", (int)(end - begin),
                                     text + begin);
        }
        assert_string_equal(joined, CASES[i][1]);
    }
    zi_normalizer_free(&normalizer);
    zi_splitter_close(&splitter);
    zi_split_free(split);
}

static size_t put_utf8(uint32_t code, char *text)
{
    if (code < 0x80) {
        text[0] = (char)code;
        return 1;
    }
    size_t length = code < 0x800 ? 2 : code < 0x10000 ? 3 : 4;
    for (size_t i = length - 1; i > 0; i--, code >>= 6)
        text[i] = (char)(0x80 | (code & 0x3F));
    text[0] = (char)((length == 2 ? 0xC0 : length == 3 ? 0xE0 : 0xF0) | code);
    return length;
}

/* Whether the pattern matches the character: in a text of two such a match is the first, otherwise both are one gap. */
static int matches(zi_splitter *splitter, uint32_t code)
{
    zimage_error error = ZIMAGE_ERROR_INIT;
    char text[8];
    size_t length = put_utf8(code, text), begin, end;
    memcpy(text + length, text, length);
    assert_int_equal(zi_splitter_start(splitter, text, 2 * length, &error), ZIMAGE_OK);
    assert_int_equal(zi_splitter_next(splitter, &begin, &end, &error), ZIMAGE_OK);
    return end == length;
}

/* Every code point has the class that it has in the regular expressions of the reference, with any version of PCRE2. */
static void classes_are_those_of_the_reference(void **state)
{
    static const char *const CLASSES[][2] = {
        {"\\p{L}", "unicode.letters"}, {"\\p{N}", "unicode.numbers"}, {"\\s", "unicode.spaces"}};
    zi_store *store = fixture_open("tokenizer-qwen3.safetensors");
    size_t wrong = 0;
    for (size_t i = 0; i < 3; i++) {
        zimage_error error = ZIMAGE_ERROR_INIT;
        zi_split *split = compile(CLASSES[i][0]);
        zi_splitter splitter;
        size_t bytes;
        const int32_t(*range)[2] = tensor(store, CLASSES[i][1], &bytes);
        const int32_t(*end)[2] = range + bytes / sizeof *range;
        assert_int_equal(zi_splitter_open(&splitter, split, &error), ZIMAGE_OK);
        for (int32_t code = 0; code < 0x110000; code++) {
            if (code == 0xD800)
                code = 0xE000;
            while (range < end && (*range)[1] < code)
                range++;
            int wanted = range < end && (*range)[0] <= code;
            if (matches(&splitter, (uint32_t)code) != wanted && wrong++ < 10)
                printf("U+%04X %s %s\n", (unsigned)code, wanted ? "must match" : "must not match", CLASSES[i][0]);
        }
        zi_splitter_close(&splitter);
        zi_split_free(split);
    }
    zi_store_free(store);
    assert_int_equal(wrong, 0);
}

static void nfc_is_that_of_the_reference(void **state)
{
    static const char *const CASES[][2] = {
        {"e\u0301", "\u00E9"},
        {"\u212B\u2126\uF900", "\u00C5\u03A9\u8C48"},       /* singletons */
        {"q\u0307\u0323", "q\u0323\u0307"},                 /* order */
        {"\u0958", "\u0915\u093C"},                         /* excluded from composition */
        {"\u1100\u1161\u11A8\uAC00\u11A8", "\uAC01\uAC01"}, /* Hangul */
        {"\uAC00\u11A7", "\uAC00\u11A7"},                   /* not a third letter */
        {"\U00011935\U00011930", "\U00011935\U00011930"},   /* composes since Unicode 13, not in the reference */
        {"a\u0300\u1DFA\u0316", "\u00E0\u1DFA\u0316"},      /* a combining class given after Unicode 9 */
        {"a\u0316\u0300\u1ACF", "\u00E0\u0316\u1ACF"},
    };
    zimage_error error = ZIMAGE_ERROR_INIT;
    zi_normalizer normalizer = {0};
    const char *result;
    size_t length;
    for (size_t i = 0; i < sizeof CASES / sizeof CASES[0]; i++) {
        assert_int_equal(zi_normalize_nfc(&normalizer, CASES[i][0], strlen(CASES[i][0]), &result, &length, &error),
                         ZIMAGE_OK);
        assert_int_equal(length, strlen(CASES[i][1]));
        assert_memory_equal(result, CASES[i][1], length);
    }
    /* A long run of marks is sorted by another method: below (class 220) before above (230), each in its order. */
    char marks[1 + 4 * 200] = "q", sorted[sizeof marks] = "q";
    for (size_t i = 0; i < 200; i++) {
        put_utf8(0x0300, marks + 1 + 4 * i);
        put_utf8(0x0316, marks + 3 + 4 * i);
        put_utf8(0x0316, sorted + 1 + 2 * i);
        put_utf8(0x0300, sorted + 401 + 2 * i);
    }
    assert_int_equal(zi_normalize_nfc(&normalizer, marks, sizeof marks, &result, &length, &error), ZIMAGE_OK);
    assert_int_equal(length, sizeof sorted);
    assert_memory_equal(result, sorted, length);
    zi_normalizer_free(&normalizer);
}

/* The lowest rank is merged first, then from the left: "aaaa" pairs from its left end; "bc" is merged before "ab". */
static void merges_follow_rank_then_position(void **state)
{
    zimage_error error = ZIMAGE_ERROR_INIT;
    zi_bpe bpe = {0};
    zi_bpe_scratch scratch = {0};
    zi_ids ids = {0};
    for (int i = 0; i < 256; i++)
        bpe.byte_ids[i] = i;
    assert_int_equal(zi_bpe_init(&bpe, 3, &error), ZIMAGE_OK);
    zi_bpe_add(&bpe, 'b', 'c', 0, 300);
    zi_bpe_add(&bpe, 'a', 'a', 1, 301);
    zi_bpe_add(&bpe, 'a', 'b', 2, 302);
    assert_int_equal(zi_bpe_encode(&bpe, &scratch, (const uint8_t *)"aaaabcaaa", 9, &ids, &error), ZIMAGE_OK);
    static const int32_t WANTED[] = {301, 301, 300, 301, 'a'};
    assert_int_equal(ids.count, 5);
    assert_memory_equal(ids.data, WANTED, sizeof WANTED);
    free(ids.data);
    zi_bpe_scratch_free(&scratch);
    zi_bpe_free(&bpe);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(pieces_are_those_of_the_spec),
        cmocka_unit_test(classes_are_those_of_the_reference),
        cmocka_unit_test(nfc_is_that_of_the_reference),
        cmocka_unit_test(merges_follow_rank_then_position),
    };
    return cmocka_run_group_tests(tests, folder_make, folder_remove);
}
