/*
 * The tokenizer: ids against those of the `tokenizers` package, its parts, bad files, threads, hostile texts, the
 * command.
 */
#include "fixture.h"
#include "program.h"
#include "qwen3_tokenizer.h"

#include <pthread.h>
#include <time.h>

#include "text/bpe.h"
#include "text/normalize.h"
#include "text/split.h"
#include "text/tokenizer.h"
#include "text/unicode.h"

#define TINY_FILE ZIMAGE_TEST_DATA "/tiny/tokenizer/tokenizer.json"
#define PATTERN                                                                                                        \
    "(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\\r\\n\\p{L}\\p{N}]?\\p{L}+|\\p{N}| ?[^\\s\\p{L}\\p{N}]+[\\r\\n]*|\\s*[\\r\\n]+|"  \
    "\\s+(?!\\S)|\\s+"
#define LITERAL(text) (text), sizeof(text) - 1

static zi_tokenizer *load(const char *path)
{
    zimage_error error = ZIMAGE_ERROR_INIT;
    zi_tokenizer *tokenizer = NULL;
    if (zi_tokenizer_load(path, &tokenizer, &error) != ZIMAGE_OK)
        fail_msg("%s", error.message);
    return tokenizer;
}

static int32_t *encode(const zi_tokenizer *tokenizer, zimage_template kind, const char *text, size_t length,
                       size_t *count)
{
    zimage_error error = ZIMAGE_ERROR_INIT;
    int32_t *ids = NULL;
    if (zi_tokenizer_encode_prompt(tokenizer, kind, text, length, &ids, count, &error) != ZIMAGE_OK)
        fail_msg("%s", error.message);
    assert_non_null(ids);
    return ids;
}

static void expect_ids(const zi_tokenizer *tokenizer, zimage_template kind, const char *text, size_t length,
                       const int32_t *wanted, size_t wanted_count)
{
    size_t count;
    int32_t *ids = encode(tokenizer, kind, text, length, &count);
    assert_int_equal(count, wanted_count);
    if (count)
        assert_memory_equal(ids, wanted, count * sizeof *ids);
    free(ids);
}

static double seconds(void)
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

static strings read_strings(const zi_store *store, const char *text, const char *ids)
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
static size_t compare_strings(const zi_tokenizer *tokenizer, zimage_template kind, strings s, size_t limit)
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

static void compare_golden(const char *golden, const char *file)
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
static const char *qwen3_file(void)
{
    static char path[PATH_MAX];
    if (!path[0]) {
        snprintf(path, sizeof path, "%s", in_folder("qwen3-tokenizer.json"));
        write_qwen3(path);
    }
    return path;
}

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

/* ---- the parts ------------------------------------------------------------------------------------------------- */

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

/* ---- files ----------------------------------------------------------------------------------------------------- */

static json_t *tiny_json(void)
{
    json_t *root = json_load_file(TINY_FILE, 0, NULL);
    assert_non_null(root);
    return root;
}

static const char *save_json(json_t *root)
{
    const char *path = in_folder("tokenizer.json");
    assert_int_equal(json_dump_file(root, path, JSON_INDENT(1)), 0);
    json_decref(root);
    return path;
}

/* Sets the value at "a.b.0.c" to the one of a JSON text (NULL removes it); the index after the last appends. */
static void set_at(json_t *root, const char *where, const char *value)
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

typedef struct bad_file {
    const char *where, *value; /* the change */
    const char *message;       /* must be in the error, with the path of the file */
    zimage_status status;
} bad_file;

#define SPLIT  "pre_tokenizer.pretokenizers.0"
#define REGEX  SPLIT ".pattern.Regex"
#define BYTES  "pre_tokenizer.pretokenizers.1"
#define MODEL  ZIMAGE_ERROR_MODEL
#define UNABLE ZIMAGE_ERROR_UNSUPPORTED

static const bad_file BAD_FILES[] = {
    {"model", NULL, "model: missing, expected an object", MODEL},
    {"model.type", "\"WordPiece\"", "model.type: \"WordPiece\"", UNABLE},
    {"model.type", NULL, "model.type: missing, expected a string", MODEL},
    {"model.vocab", NULL, "model.vocab: missing, expected an object", MODEL},
    {"model.vocab", "[]", "model.vocab: an array, expected an object", MODEL},
    {"model.vocab", "{}", "model.vocab has no token \"Ā\", which stands for byte 0x00", MODEL},
    {"model.vocab.a", NULL, "model.vocab has no token \"a\", which stands for byte 0x61", MODEL},
    {"model.vocab.a", "-1", "the id of \"a\": -1, expected an integer from 0", MODEL},
    {"model.vocab.a", "1.5", "the id of \"a\": 1.50000, expected an integer from 0", MODEL},
    {"model.vocab.a", "\"7\"", "the id of \"a\": \"7\", expected an integer from 0", MODEL},
    {"model.vocab.a", "4294967296", "the id of \"a\": 4294967296, expected an integer from 0", MODEL},
    {"model.vocab.a", "65", "give the id 65 to", MODEL},
    {"model.merges", NULL, "model.merges: missing, expected an array", MODEL},
    {"model.merges", "{}", "model.merges: an object, expected an array", MODEL},
    {"model.merges.3", "[\"a\", \"nowhere\"]", "model.merges[3] names the token \"nowhere\"", MODEL},
    {"model.merges.3", "\"nowhere a\"", "model.merges[3] names the token \"nowhere\"", MODEL},
    {"model.merges.3", "[\"Z\", \"Z\"]", "model.merges[3] makes the token \"ZZ\"", MODEL},
    {"model.merges.3", "\"a\"", "model.merges[3]: \"a\", expected", MODEL},
    {"model.merges.3", "\"a b c\"", "model.merges[3]: \"a b c\", expected", MODEL},
    {"model.merges.3", "[\"a\"]", "model.merges[3]: an array, expected", MODEL},
    {"model.merges.3", "[\"a\", 5]", "model.merges[3]: an array, expected", MODEL},
    {"model.merges.3", "5", "model.merges[3]: 5, expected", MODEL},
    {"model.byte_fallback", "true", "model.byte_fallback: true", UNABLE},
    {"model.ignore_merges", "true", "model.ignore_merges: true", UNABLE},
    {"model.ignore_merges", "3", "model.ignore_merges: 3, expected true or false", MODEL},
    {"model.fuse_unk", "true", "model.fuse_unk: true", UNABLE},
    {"model.dropout", "0.1", "model.dropout: 0.100000, only null", UNABLE},
    {"model.unk_token", "\"<unk>\"", "model.unk_token: \"<unk>\"", UNABLE},
    {"model.continuing_subword_prefix", "\"##\"", "model.continuing_subword_prefix: \"##\"", UNABLE},
    {"model.end_of_word_suffix", "\"</w>\"", "model.end_of_word_suffix: \"</w>\"", UNABLE},
    {"normalizer", "{\"type\": \"NFKC\"}", "normalizer.type: \"NFKC\", only \"NFC\" is supported", UNABLE},
    {"normalizer", "7", "normalizer: 7, expected an object or null", MODEL},
    {"pre_tokenizer", NULL, "pre_tokenizer: missing, expected an object", MODEL},
    {"pre_tokenizer", "{\"type\": \"ByteLevel\"}", "pre_tokenizer.type: \"ByteLevel\"", UNABLE},
    {"pre_tokenizer.pretokenizers", NULL, "pre_tokenizer.pretokenizers: missing, expected an array", MODEL},
    {BYTES, NULL, "pre_tokenizer.pretokenizers: 1 entries", UNABLE},
    {SPLIT, "5", "pre_tokenizer.pretokenizers[0]: 5, expected an object", MODEL},
    {SPLIT ".type", "\"Digits\"", "pre_tokenizer.pretokenizers[0].type: \"Digits\"", UNABLE},
    {SPLIT ".behavior", "\"Removed\"", "pre_tokenizer.pretokenizers[0].behavior: \"Removed\"", UNABLE},
    {SPLIT ".invert", "true", "pre_tokenizer.pretokenizers[0].invert: true", UNABLE},
    {SPLIT ".pattern", "{\"String\": \" \"}",
     "pre_tokenizer.pretokenizers[0].pattern.Regex: missing, expected a string", MODEL},
    {REGEX, "\"(\"", "pattern.Regex is not a valid pattern", ZIMAGE_ERROR_FORMAT},
    {REGEX, "\"\\\\s*\"", "pattern.Regex can match the empty string", UNABLE},
    {REGEX, "\"^a\"", "one of ^ $ . at byte 0", UNABLE},
    {REGEX, "\"a|\\\\w+\"", "an escape other than", UNABLE},
    {REGEX, "\"\\\\p{Han}\"", "a property other than", UNABLE},
    {REGEX, "\"[a-z&&b]\"", "an intersection", UNABLE},
    {REGEX, "\"[a[b]]\"", "a class within", UNABLE},
    {REGEX, "\"[a\"", "a character class without end", UNABLE},
    {REGEX, "\"[]a]\"", "a ']' at the start", UNABLE},
    {REGEX, "\"(?m:a)\"", "a group other than", UNABLE},
    {REGEX, "\"(*ACCEPT)\"", "a verb", UNABLE},
    {REGEX, "\"a{2}+\"", "an interval followed by", UNABLE},
    {REGEX, "\"a{,2}\"", "a '{' that does not begin", UNABLE},
    {REGEX, "\"é\"", "a character beyond ASCII", UNABLE},
    {REGEX, "\"a\\\\\"", "a backslash at the end", UNABLE},
    {BYTES ".type", "\"Metaspace\"", "pre_tokenizer.pretokenizers[1].type: \"Metaspace\"", UNABLE},
    {BYTES ".add_prefix_space", "true", "pre_tokenizer.pretokenizers[1].add_prefix_space: true", UNABLE},
    {BYTES ".use_regex", "true", "pre_tokenizer.pretokenizers[1].use_regex: true", UNABLE},
    {BYTES ".use_regex", NULL, "pre_tokenizer.pretokenizers[1].use_regex: missing", UNABLE},
    {"post_processor", "{\"type\": \"TemplateProcessing\"}", "post_processor.type: \"TemplateProcessing\"", UNABLE},
    {"added_tokens", "{}", "added_tokens: an object, expected an array", MODEL},
    {"added_tokens.1", "5", "added_tokens[1]: 5, expected an object", MODEL},
    {"added_tokens.1.content", NULL, "added_tokens[1].content: missing, expected a string", MODEL},
    {"added_tokens.1.content", "\"\"", "added_tokens[1].content: \"\", expected a string of 1 to", MODEL},
    {"added_tokens.1.content", "\"<|im_end|>\"", "twice", MODEL},
    {"added_tokens.1.content", "\"a\"", "added_tokens[1] gives \"a\" the id 764, but model.vocab gives it 64", MODEL},
    {"added_tokens.1.id", NULL, "added_tokens[1]: the id of \"<|im_start|>\": missing, expected an integer", MODEL},
    {"added_tokens.1.id", "-3", "added_tokens[1]: the id of \"<|im_start|>\": -3, expected an integer", MODEL},
    {"added_tokens.1.id", "765", "give the id 765 to", MODEL},
    {"added_tokens.1.lstrip", "true", "added_tokens[1].lstrip: true", UNABLE},
    {"added_tokens.1.rstrip", "true", "added_tokens[1].rstrip: true", UNABLE},
    {"added_tokens.1.single_word", "true", "added_tokens[1].single_word: true", UNABLE},
    {"added_tokens.1.normalized", NULL, "added_tokens[1].normalized: missing, expected true or false", MODEL},
};

static void bad_files_are_refused(void **state)
{
    for (size_t i = 0; i < sizeof BAD_FILES / sizeof BAD_FILES[0]; i++) {
        const bad_file *bad = &BAD_FILES[i];
        zimage_error error = ZIMAGE_ERROR_INIT;
        zi_tokenizer *tokenizer = (zi_tokenizer *)&error;
        json_t *root = tiny_json();
        set_at(root, bad->where, bad->value);
        const char *path = save_json(root);
        zimage_status status = zi_tokenizer_load(path, &tokenizer, &error);
        if (status != bad->status || error.status != status || tokenizer || !strstr(error.message, bad->message) ||
            !strstr(error.message, path))
            fail_msg("%s = %s gave status %d: %s", bad->where, bad->value, status, error.message);
    }
}

static void malformed_files_are_refused(void **state)
{
    static const char *const TEXTS[] = {"", "[]", "{", "{\"model\": {\"vocab\": {\"a\": 1, \"a\": 2}}}", "\xFF\xFE"};
    for (size_t i = 0; i < sizeof TEXTS / sizeof TEXTS[0]; i++) {
        zimage_error error = ZIMAGE_ERROR_INIT;
        zi_tokenizer *tokenizer = NULL;
        const char *path = in_folder("tokenizer.json");
        FILE *file = fopen(path, "wb");
        assert_non_null(file);
        fputs(TEXTS[i], file);
        fclose(file);
        assert_int_equal(zi_tokenizer_load(path, &tokenizer, &error), ZIMAGE_ERROR_FORMAT);
        assert_non_null(strstr(error.message, path));
    }
}

/* Older files have merges as "A B". */
static void both_spellings_of_merges_agree(void **state)
{
    json_t *root = tiny_json();
    json_t *merges = json_object_get(json_object_get(root, "model"), "merges");
    for (size_t i = 0; i < json_array_size(merges); i++) {
        const json_t *pair = json_array_get(merges, i);
        assert_true(json_is_array(pair));
        json_array_set_new(merges, i,
                           json_sprintf("%s %s", json_string_value(json_array_get(pair, 0)),
                                        json_string_value(json_array_get(pair, 1))));
    }
    compare_golden("tokenizer-tiny.safetensors", save_json(root));
}

#define TOKEN(id, content, normalized)                                                                                 \
    "{\"id\": " #id ", \"content\": \"" content "\", \"single_word\": false, \"lstrip\": false, \"rstrip\": false, "   \
    "\"normalized\": " #normalized ", \"special\": false}"

static void added_tokens_match_leftmost_and_longest(void **state)
{
    json_t *root = tiny_json();
    set_at(root, "added_tokens",
           "[" TOKEN(763, "<x", false) ", " TOKEN(764, "<x>y", false) ", " TOKEN(765, "x>z", false) ", " TOKEN(
               766, "e\u0301~", true) ", " TOKEN(767, "e\u0301!", false) "]");
    zi_tokenizer *tokenizer = load(save_json(root));
    assert_int_equal(zi_tokenizer_vocab_size(tokenizer), 768);
    /* "<x" wins over "x>z", which begins later; '>' = 29, '~' = 93, '!' = 0, 'é' is two bytes. */
    expect_ids(tokenizer, ZIMAGE_TEMPLATE_NONE, LITERAL("<x>y<x><x<x>z"), (int32_t[]){764, 763, 29, 763, 763, 29, 89},
               7);
    /* A normalised token is found in both spellings, the other only in its own. */
    expect_ids(tokenizer, ZIMAGE_TEMPLATE_NONE, LITERAL("\u00E9~e\u0301~"), (int32_t[]){766, 766}, 2);
    expect_ids(tokenizer, ZIMAGE_TEMPLATE_NONE, LITERAL("e\u0301!"), (int32_t[]){767}, 1);
    size_t count;
    free(encode(tokenizer, ZIMAGE_TEMPLATE_NONE, LITERAL("\u00E9!"), &count));
    assert_true(count > 1);
    /* Without these special tokens a template would be ordinary text. */
    zimage_error error = ZIMAGE_ERROR_INIT;
    int32_t *ids = NULL;
    assert_int_equal(zi_tokenizer_encode_prompt(tokenizer, ZIMAGE_TEMPLATE_Z_IMAGE, "a", 1, &ids, &count, &error),
                     ZIMAGE_ERROR_MODEL);
    assert_non_null(strstr(error.message, "<|im_start|>"));
    assert_null(ids);
    zi_tokenizer_free(tokenizer);
}

static void without_normalizer_text_stays(void **state)
{
    json_t *root = tiny_json();
    set_at(root, "normalizer", "null");
    zi_tokenizer *plain = load(save_json(root)), *nfc = load(TINY_FILE);
    size_t apart, together, composed;
    free(encode(plain, ZIMAGE_TEMPLATE_NONE, LITERAL("e\u0301"), &apart));
    free(encode(nfc, ZIMAGE_TEMPLATE_NONE, LITERAL("e\u0301"), &together));
    free(encode(plain, ZIMAGE_TEMPLATE_NONE, LITERAL("\u00E9"), &composed));
    assert_int_equal(together, composed);
    assert_true(apart > composed);
    zi_tokenizer_free(plain);
    zi_tokenizer_free(nfc);
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
        cmocka_unit_test(pieces_are_those_of_the_spec),
        cmocka_unit_test(classes_are_those_of_the_reference),
        cmocka_unit_test(nfc_is_that_of_the_reference),
        cmocka_unit_test(merges_follow_rank_then_position),
        cmocka_unit_test(bad_files_are_refused),
        cmocka_unit_test(malformed_files_are_refused),
        cmocka_unit_test(both_spellings_of_merges_agree),
        cmocka_unit_test(added_tokens_match_leftmost_and_longest),
        cmocka_unit_test(without_normalizer_text_stays),
        cmocka_unit_test(invalid_utf8_is_refused_with_its_offset),
        cmocka_unit_test(threads_share_a_tokenizer),
        cmocka_unit_test(a_megabyte_takes_seconds),
        cmocka_unit_test(api_finds_the_file_and_checks_arguments),
        cmocka_unit_test(command_prints_ids),
        cmocka_unit_test(command_explains_mistakes),
    };
    return cmocka_run_group_tests(tests, folder_make, folder_remove);
}
