/* Tokenizer folders as transformers 4 and 5 save them, against their ids; and settings that are refused. */
#include "tokenizer.h"

#define FOLDERS ZIMAGE_TEST_DATA "/tokenizers"

/* ---- ids ------------------------------------------------------------------------------------------------------- */

/* A folder of FOLDERS, its own files laid over a copy of its base (tools/golden/make_tokenizer_folders.py). */
typedef struct variant {
    const char *name, *base, *removed;
} variant;

static const variant VARIANTS[] = {
    {"old", "old", NULL},
    {"new", "new", NULL},
    {"fast", "fast", NULL},
    {"config-tokens", "new", NULL},
    {"additional", "old", NULL},
    {"legacy", "old", NULL},
    {"split-special", "new", NULL},
    {"left", "new", NULL},
    {"ignored", "fast", NULL},
    {"template", "new", NULL},
    {"no-config", "new", "tokenizer_config.json"},
};

#define VARIANT_COUNT (sizeof VARIANTS / sizeof VARIANTS[0])

static const char *assemble(const variant *v)
{
    const char *folder = in_folder(v->name);
    run_shell("rm -rf '%s' && cp -r '%s/%s' '%s'", folder, FOLDERS, v->base, folder);
    if (strcmp(v->name, v->base) != 0)
        run_shell("if [ -d '%s/%s' ]; then cp '%s/%s'/* '%s'; fi", FOLDERS, v->name, FOLDERS, v->name, folder);
    if (v->removed)
        run_shell("rm '%s/%s'", folder, v->removed);
    return folder;
}

static zi_tokenizer *load_folder(const char *folder)
{
    zimage_error error = ZIMAGE_ERROR_INIT;
    zi_tokenizer *tokenizer = NULL;
    if (zi_tokenizer_load_folder(folder, 1, &tokenizer, &error) != ZIMAGE_OK)
        fail_msg("%s", error.message);
    return tokenizer;
}

#define END          0xFFFF /* stands after the ids of each text; a zero byte ends each text */
#define MODEL_TOKENS 512

/* Returns the number of texts with other ids. */
static size_t compare_ids(const zi_tokenizer *tokenizer, const zi_store *store, const char *texts, const char *name)
{
    size_t bytes, ids_bytes, wrong = 0;
    const char *text = tensor(store, texts, &bytes), *end = text + bytes;
    const uint16_t *wanted = tensor(store, name, &ids_bytes), *last = wanted + ids_bytes / sizeof *wanted;
    int is_chat = strcmp(texts, "prompt") == 0;
    if (wanted == last) /* without a template of its own the folder has no ids of prompts */
        return 0;
    for (; text < end; text += strlen(text) + 1) {
        zimage_error error = ZIMAGE_ERROR_INIT;
        zi_prompt_ids found;
        if (zi_tokenizer_encode_cut(tokenizer, is_chat ? ZIMAGE_TEMPLATE_Z_IMAGE : ZIMAGE_TEMPLATE_NONE, text,
                                    is_chat ? MODEL_TOKENS : 1 << 20, &found, &error) != ZIMAGE_OK)
            fail_msg("%s", error.message);
        size_t count = 0;
        while (wanted + count < last && wanted[count] != END)
            count++;
        int same = count == found.count;
        for (size_t i = 0; same && i < count; i++)
            same = found.ids[i] == wanted[i];
        if (!same && wrong++ < 3)
            printf("%s: other ids of \"%.60s\": %zu, expected %zu\n", name, text, found.count, count);
        free(found.ids);
        wanted += count + 1;
    }
    assert_true(wanted == last);
    return wrong;
}

static void ids_equal_those_of_transformers(void **state)
{
    zi_store *store = fixture_open("tokenizers/ids.safetensors");
    for (size_t i = 0; i < VARIANT_COUNT; i++) {
        char ids[64], chat_ids[64];
        zi_tokenizer *tokenizer = load_folder(assemble(&VARIANTS[i]));
        snprintf(ids, sizeof ids, "%s.ids", VARIANTS[i].name);
        snprintf(chat_ids, sizeof chat_ids, "%s.chat.ids", VARIANTS[i].name);
        assert_int_equal(compare_ids(tokenizer, store, "text", ids), 0);
        assert_int_equal(compare_ids(tokenizer, store, "prompt", chat_ids), 0);
        zi_tokenizer_free(tokenizer);
    }
    zi_store_free(store);
}

/* ---- refusals -------------------------------------------------------------------------------------------------- */

typedef struct bad_folder {
    const char *base, *file;
    const char *where, *value; /* the change; where NULL: the file becomes this text; value NULL, too: it is removed */
    const char *message;       /* must be in the error */
} bad_folder;

#define CONFIG                 "tokenizer_config.json"
#define DECODED(content, more) "{\"content\": \"" content "\"" more "}"

static const bad_folder BAD_FOLDERS[] = {
    {"new", CONFIG, "tokenizer_class", "\"LlamaTokenizer\"", "tokenizer_class: \"LlamaTokenizer\", only"},
    {"new", CONFIG, "add_prefix_space", "true", "add_prefix_space: true, only false"},
    {"new", CONFIG, "fix_mistral_regex", "true", "fix_mistral_regex: true"},
    {"new", CONFIG, "from_slow", "true", "from_slow: true"},
    {"new", CONFIG, "truncation_side", "\"middle\"", "truncation_side: \"middle\", expected \"right\" or \"left\""},
    {"new", CONFIG, "padding_side", "3", "padding_side: 3"},
    {"new", CONFIG, "split_special_tokens", "\"yes\"", "split_special_tokens: \"yes\", expected true or false"},
    {"new", CONFIG, "tokenizer_file", "\"/etc/passwd\"", "tokenizer_file: \"/etc/passwd\", only null"},
    {"new", CONFIG, "vocab_file", "\"other.json\"", "vocab_file: \"other.json\""},
    {"new", CONFIG, "init_inputs", "[1]", "init_inputs: an array"},
    {"new", CONFIG, "fast_tokenizer_files", "[\"tokenizer.json\", \"tokenizer.4.0.0.json\"]", "fast_tokenizer_files"},
    {"new", CONFIG, "image_token", "\"<img>\"", "image_token: \"<img>\" is not among the added tokens"},
    {"new", CONFIG, "eos_token", "7", "eos_token: 7"},
    {"new", CONFIG, "extra_special_tokens", "7", "extra_special_tokens: 7"},
    {"new", CONFIG, "extra_special_tokens", "[7]", "extra_special_tokens[0]: 7"},
    {"new", CONFIG, "eos_token", DECODED("<e>", ", \"lstrip\": true"), "eos_token.lstrip: true"},
    {"new", CONFIG, "chat_template", NULL, NULL}, /* the template is in a file of its own */
    {"new", CONFIG, "added_tokens_decoder", "{}", "added_tokens gives \"<|endoftext|>\" the id 376"},
    {"new", CONFIG, NULL, "{\"model_max_length\": 7", "not valid JSON"},
    {"new", "tokenizer.json", "pre_tokenizer.pretokenizers.0.pattern.Regex", "\"a|b\"",
     "another pattern than that of Qwen2"},
    {"new", "tokenizer.json", "normalizer", "null", "normalizer: none"},
    {"new", "tokenizer.json", "added_tokens.1.id", "378", "the id 378"},
    {"new", "tokenizer.json", NULL, NULL, "looked for tokenizer.json, and for vocab.json with merges.txt"},
    {"new", "chat_template.jinja", NULL, "{{ messages | tojson }}", NULL},
    {"old", CONFIG, "added_tokens_decoder.381", DECODED("<x>", ", \"normalized\": 5"),
     "added_tokens_decoder.381.normalized: 5"},
    {"old", CONFIG, "added_tokens_decoder.381", DECODED("<x>", ", \"single_word\": true"), "381.single_word: true"},
    {"old", CONFIG, "added_tokens_decoder.381", DECODED("a", ""), "gives \"a\" the id 381"},
    {"old", CONFIG, "added_tokens_decoder.400", DECODED("<x>", ""), "\"<x>\" has the id 400, expected 381"},
    {"old", CONFIG, "added_tokens_decoder.-1", DECODED("<x>", ""), "added_tokens_decoder.-1: expected an id"},
    {"old", CONFIG, "added_tokens_decoder.3e2", DECODED("<x>", ""), "added_tokens_decoder.3e2: expected an id"},
    {"old", CONFIG, "added_tokens_decoder", "[]", "added_tokens_decoder: an array, expected an object"},
    {"old", CONFIG, "added_tokens_decoder.378.normalized", "true", "eos_token: \"<|im_end|>\" is \"normalized\""},
    {"old", CONFIG, "additional_special_tokens", "[\"<y>\"]", "additional_special_tokens has \"<y>\""},
    {"old", "merges.txt", NULL, NULL, "merges.txt"},
    {"old", "merges.txt", NULL, "#version: 0.2\nh e\n\nx y\n", "line 3: \"\", expected two tokens"},
    {"old", "merges.txt", NULL, "h e l", "line 1: \"h e l\", expected two tokens"},
    {"old", "merges.txt", NULL, "h nowhere\n", "line 1 names the token \"nowhere\""},
    {"old", "merges.txt", NULL, "Z Z\r\n", "line 1 makes the token \"ZZ\""},
    {"old", "vocab.json", "a", "\"x\"", "the id of \"a\": \"x\""},
    {"old", "vocab.json", "a", NULL, "has no token \"a\", which stands for byte 0x61"},
    {"legacy", "added_tokens.json", "<think>", "400", "\"</think>\" has the id 380, expected 379"},
    {"legacy", "added_tokens.json", "a", "400", "gives \"a\" the id 400"},
    {"legacy", "special_tokens_map.json", "eos_token", "{\"content\": 3}", "eos_token.content: 3"},
};

static const variant *find_variant(const char *name)
{
    for (size_t i = 0; i < VARIANT_COUNT; i++)
        if (strcmp(VARIANTS[i].name, name) == 0)
            return &VARIANTS[i];
    fail_msg("no variant %s", name);
    return NULL;
}

static void change_file(const char *folder, const char *name, const char *where, const char *value)
{
    char path[2 * PATH_MAX];
    snprintf(path, sizeof path, "%s/%s", folder, name);
    if (where) {
        json_t *root = json_load_file(path, JSON_DECODE_INT_AS_REAL * (strcmp(name, CONFIG) == 0), NULL);
        assert_non_null(root);
        set_at(root, where, value);
        assert_int_equal(json_dump_file(root, path, 0), 0);
        json_decref(root);
    } else if (value) {
        FILE *file = fopen(path, "wb");
        assert_non_null(file);
        fputs(value, file);
        fclose(file);
    } else {
        assert_int_equal(unlink(path), 0);
    }
}

static void other_settings_are_refused(void **state)
{
    for (size_t i = 0; i < sizeof BAD_FOLDERS / sizeof BAD_FOLDERS[0]; i++) {
        const bad_folder *bad = &BAD_FOLDERS[i];
        zimage_error error = ZIMAGE_ERROR_INIT;
        zi_tokenizer *tokenizer = NULL;
        const char *folder = assemble(find_variant(bad->base));
        if (bad->message || bad->value)
            change_file(folder, bad->file, bad->where, bad->value);
        zimage_status status = zi_tokenizer_load_folder(folder, 1, &tokenizer, &error);
        if (!bad->message) { /* read */
            assert_int_equal(status, ZIMAGE_OK);
            zi_tokenizer_free(tokenizer);
            continue;
        }
        if (status == ZIMAGE_OK || tokenizer || !strstr(error.message, bad->message) || !strstr(error.message, folder))
            fail_msg("%s: %s: %s gave status %d: %s, expected %s", bad->base, bad->file, bad->value, status,
                     error.message, bad->message);
    }
}

/* Values that change nothing, and that transformers writes. */
static void settings_that_change_nothing_are_accepted(void **state)
{
    static const char *const SETTINGS[][2] = {
        {"model_max_length", "131072"},
        {"clean_up_tokenization_spaces", "true"},
        {"padding_side", "\"left\""},
        {"tokenizer_class", "\"Qwen2TokenizerFast\""},
        {"tokenizer_class", "\"PreTrainedTokenizerFast\""},
        {"tokenizer_class", "null"},
        {"add_bos_token", "true"},
        {"image_token", "\"<think>\""},
        {"extra_special_tokens", "{\"a\": \"<think>\"}"},
        {"pad_token", "null"},
        {"name_or_path", "\"x\""},
        {"tokenizer_file", "null"},
    };
    zi_store *store = fixture_open("tokenizers/ids.safetensors");
    for (size_t i = 0; i < sizeof SETTINGS / sizeof SETTINGS[0]; i++) {
        const char *folder = assemble(find_variant("new"));
        change_file(folder, CONFIG, SETTINGS[i][0], SETTINGS[i][1]);
        zi_tokenizer *tokenizer = load_folder(folder);
        assert_int_equal(compare_ids(tokenizer, store, "text", "new.ids"), 0);
        zi_tokenizer_free(tokenizer);
    }
    zi_store_free(store);
}

/* A folder may keep a pattern of its own where no version of transformers replaces it. */
static void generic_classes_keep_their_pattern(void **state)
{
    const char *folder = assemble(find_variant("new"));
    change_file(folder, CONFIG, "tokenizer_class", "\"TokenizersBackend\"");
    change_file(folder, "tokenizer.json", "pre_tokenizer.pretokenizers.0.pattern.Regex", "\"th|e\"");
    zi_tokenizer *tokenizer = load_folder(folder);
    size_t count;
    free(encode(tokenizer, ZIMAGE_TEMPLATE_NONE, LITERAL("the"), &count));
    assert_true(count > 1); /* "the" is one token of this vocabulary */
    zi_tokenizer_free(tokenizer);
    /* In a model the class of model_index.json decides: there the pattern must be that of Qwen2. */
    zimage_error error = ZIMAGE_ERROR_INIT;
    assert_int_equal(zi_tokenizer_load_folder(folder, 0, &tokenizer, &error), ZIMAGE_ERROR_UNSUPPORTED);
    assert_non_null(strstr(error.message, "another pattern than that of Qwen2"));
}

/* ---- padding --------------------------------------------------------------------------------------------------- */

#define PADDING                                                                                                        \
    "{\"strategy\": {\"Fixed\": 3}, \"direction\": \"Left\", \"pad_to_multiple_of\": null, \"pad_id\": 0,"             \
    " \"pad_type_id\": 0, \"pad_token\": \"<|endoftext|>\"}"

/* What fills up the prompts of a model that reads their padding; NULL message: the id of <|endoftext|>. */
static void padding_is_that_of_the_folder(void **state)
{
    static const struct {
        const char *variant, *file, *where, *value, *message;
    } CASES[] = {
        {"old", NULL, NULL, NULL, NULL},
        {"new", NULL, NULL, NULL, NULL},
        {"legacy", NULL, NULL, NULL, NULL},
        {"no-config", NULL, NULL, NULL, NULL},
        {"left", NULL, NULL, NULL, "padding_side: \"left\""},
        {"new", "tokenizer.json", "padding", PADDING, "padding_side: \"left\""},
        {"new", CONFIG, "pad_token", "null", "pad_token: none"},
    };
    for (size_t i = 0; i < sizeof CASES / sizeof CASES[0]; i++) {
        const char *folder = assemble(find_variant(CASES[i].variant));
        if (CASES[i].file)
            change_file(folder, CASES[i].file, CASES[i].where, CASES[i].value);
        zimage_error error = ZIMAGE_ERROR_INIT;
        zi_tokenizer *tokenizer = load_folder(folder);
        int32_t id = -1;
        zimage_status status = zi_tokenizer_pad(tokenizer, &id, &error);
        if (CASES[i].message) {
            assert_int_not_equal(status, ZIMAGE_OK);
            assert_non_null(strstr(error.message, CASES[i].message));
        } else {
            assert_int_equal(status, ZIMAGE_OK);
            size_t count;
            int32_t *ids = encode(tokenizer, ZIMAGE_TEMPLATE_NONE, LITERAL("<|endoftext|>"), &count);
            assert_int_equal(count, 1);
            assert_int_equal(id, ids[0]);
            free(ids);
        }
        zi_tokenizer_free(tokenizer);
    }
}

/* ---- the truncation side --------------------------------------------------------------------------------------- */

/* transformers takes the side from the tokenizer.json where the configuration does not say it. */
static void the_side_of_tokenizer_json_counts(void **state)
{
    static const char LEFT[] =
        "{\"direction\": \"Left\", \"max_length\": 3, \"strategy\": \"LongestFirst\", \"stride\": 0}";
    for (int said = 0; said < 2; said++) {
        const char *folder = assemble(find_variant("new"));
        change_file(folder, "tokenizer.json", "truncation", LEFT);
        if (said)
            change_file(folder, CONFIG, "truncation_side", "\"right\"");
        zi_tokenizer *tokenizer = load_folder(folder);
        zimage_error error = ZIMAGE_ERROR_INIT;
        zi_prompt_ids found;
        assert_int_equal(zi_tokenizer_encode_cut(tokenizer, ZIMAGE_TEMPLATE_NONE, "1234", 2, &found, &error),
                         ZIMAGE_OK);
        assert_int_equal(found.count, 2);
        assert_true(found.cut);
        assert_int_equal(found.ids[0], said ? 16 : 18); /* "1" is 16 */
        free(found.ids);
        zi_tokenizer_free(tokenizer);
    }
}

/* ---- the program ----------------------------------------------------------------------------------------------- */

/* Each folder as the tokenizer of a model; the prompt's ids reach the model. */
static void the_program_opens_each_folder(void **state)
{
    static outcome o;
    for (size_t i = 0; i < VARIANT_COUNT; i++) {
        const char *folder = assemble(&VARIANTS[i]);
        run_program((const char *const[]){"tokenize", "-m", folder, "--template", "z-image", "a", NULL}, &o);
        assert_int_equal(o.code, 0);
        run_program((const char *const[]){"generate", "-m", ZIMAGE_TEST_DATA "/tiny", "--tokenizer", folder, "-p", "a",
                                          "--plan", NULL},
                    &o);
        if (o.code != 0)
            fail_msg("%s: %s", folder, o.err);
    }
    /* A template that can't be rendered is a reason not to open the model; without a template the ids are there. */
    const char *folder = assemble(find_variant("new"));
    change_file(folder, "chat_template.jinja", NULL, "{{ messages | tojson }}");
    run_program((const char *const[]){"generate", "-m", ZIMAGE_TEST_DATA "/tiny", "--tokenizer", folder, "-p", "a",
                                      "--plan", NULL},
                &o);
    assert_int_equal(o.code, 1);
    assert_non_null(strstr(o.err, "chat_template.jinja: line 1 of the chat template has the filter \"tojson\""));
    run_program((const char *const[]){"tokenize", "-m", folder, "a", NULL}, &o);
    assert_int_equal(o.code, 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(ids_equal_those_of_transformers),
        cmocka_unit_test(other_settings_are_refused),
        cmocka_unit_test(settings_that_change_nothing_are_accepted),
        cmocka_unit_test(padding_is_that_of_the_folder),
        cmocka_unit_test(generic_classes_keep_their_pattern),
        cmocka_unit_test(the_side_of_tokenizer_json_counts),
        cmocka_unit_test(the_program_opens_each_folder),
    };
    return cmocka_run_group_tests(tests, folder_make, folder_remove);
}
