/* A tokenizer.json: what is refused, and how; its added tokens. */
#include "tokenizer.h"

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

#define SEQUENCE_A       "{\"Sequence\": {\"id\": \"A\", \"type_id\": 0}}"
#define TEMPLATE(single) "{\"type\": \"TemplateProcessing\", \"single\": [" single "]}"

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
    {"post_processor", "{\"type\": \"TemplateProcessing\"}", "post_processor.single: missing, expected an array",
     MODEL},
    {"post_processor", "{\"type\": \"RobertaProcessing\"}", "post_processor.type: \"RobertaProcessing\"", UNABLE},
    {"post_processor", TEMPLATE("{\"SpecialToken\": {\"id\": \"<s>\"}}, " SEQUENCE_A), "adds the token \"<s>\"",
     UNABLE},
    {"post_processor", TEMPLATE(SEQUENCE_A ", " SEQUENCE_A), "post_processor.single is not the text alone", UNABLE},
    {"post_processor", TEMPLATE(""), "post_processor.single is not the text alone", UNABLE},
    {"post_processor", "{\"type\": \"Sequence\", \"processors\": [{\"type\": \"BertProcessing\"}]}",
     "post_processor.processors[0].type: \"BertProcessing\"", UNABLE},
    {"normalizer", "{\"type\": \"Sequence\", \"normalizers\": [{\"type\": \"NFC\"}, {\"type\": \"NFC\"}]}",
     "normalizer.normalizers: 2 entries", UNABLE},
    {"normalizer", "{\"type\": \"Sequence\", \"normalizers\": [{\"type\": \"NFD\"}]}",
     "normalizer.normalizers[0].type: \"NFD\"", UNABLE},
    {"added_tokens.4.id", "900", "the added token \"</think>\" has the id 900, expected 767", MODEL},
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

/* Stages that transformers writes, and that add nothing. */
static void stages_that_change_nothing_are_accepted(void **state)
{
    static const char *const STAGES[][2] = {
        {"post_processor", TEMPLATE(SEQUENCE_A)},
        {"post_processor",
         "{\"type\": \"Sequence\", \"processors\": [{\"type\": \"ByteLevel\"}, " TEMPLATE(SEQUENCE_A) "]}"},
        {"post_processor", "null"},
        {"normalizer", "{\"type\": \"Sequence\", \"normalizers\": [{\"type\": \"NFC\"}]}"},
    };
    for (size_t i = 0; i < sizeof STAGES / sizeof STAGES[0]; i++) {
        json_t *root = tiny_json();
        set_at(root, STAGES[i][0], STAGES[i][1]);
        compare_golden("tokenizer-tiny.safetensors", save_json(root));
    }
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

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(bad_files_are_refused),
        cmocka_unit_test(malformed_files_are_refused),
        cmocka_unit_test(both_spellings_of_merges_agree),
        cmocka_unit_test(stages_that_change_nothing_are_accepted),
        cmocka_unit_test(added_tokens_match_leftmost_and_longest),
        cmocka_unit_test(without_normalizer_text_stays),
    };
    return cmocka_run_group_tests(tests, folder_make, folder_remove);
}
