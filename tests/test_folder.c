/* Model folders: what is no model folder, whose parts are of other classes, and what is warned of. */
#include "program.h"

#define TINY ZIMAGE_TEST_DATA "/tiny"

static outcome o;
static char warnings[4096];

static void keep_warning(zimage_log_level level, const char *message, void *user)
{
    size_t length = strlen(warnings);
    snprintf(warnings + length, sizeof warnings - length, "%s\n", message);
}

static zimage_status open_folder(const char *path, const zimage_model_params *chosen, zimage_error *error)
{
    zimage_model *model = NULL;
    zimage_model_params params = {.struct_size = sizeof params};
    if (chosen)
        params = *chosen;
    params.log = keep_warning;
    warnings[0] = 0;
    zimage_status status = zimage_model_open(path, &params, &model, error);
    zimage_model_close(model);
    return status;
}

/* Opening in_folder(NAME) fails with a message that begins with that path and holds the words. */
static void expect_folder_refused(const char *name, const char *word1, const char *word2)
{
    zimage_error error = ZIMAGE_ERROR_INIT;
    const char *path = in_folder(name);
    if (open_folder(path, NULL, &error) == ZIMAGE_OK)
        fail_msg("%s was opened", name);
    if (strncmp(error.message, path, strlen(path)) != 0 || !strstr(error.message, word1) ||
        (word2 && !strstr(error.message, word2)))
        fail_msg("%s: expected \"%s\" and \"%s\" in: %s", name, word1, word2 ? word2 : "", error.message);
}

/* Every path has a sentence that says what it is, and where there is a model, which folder to name. */
static void paths_that_are_no_model(void **state)
{
    static const struct {
        const char *path, *says, *also;
    } cases[] = {
        {"nothing", "there is no such model folder", NULL},
        {"x.safetensors", "one file of weights", "model_index.json"},
        {"x.gguf", "GGUF", "model_index.json"},
        {"x.ckpt", "pickled", NULL},
        {"x.zip", "unpack", NULL},
        {"pointer", "git lfs pull", NULL},
        {"file", "this is a file", NULL},
        {"m/model_index.json", "name the folder that holds it", NULL},
        {"empty", "the folder is empty", NULL},
        {"zone", "the folder is empty", NULL},
        {"around", "the model is the folder", "around/m"},
        {"link", "the link leads to gone, which does not exist", NULL},
        {"dangling", "model_index.json: the link leads to ../blobs/1, which does not exist", NULL},
        {"m/vae", "one part of a model, AutoencoderKL", "/m;"},
        {"m/transformer/", "one part of a model, ZImageTransformer2DModel", "/m;"},
        {"alone", "one part of a model, ZImageTransformer2DModel", NULL},
        {"hub", "a download cache; name the folder of one model", "hub/models--A--B/snapshots/02"},
        {"hub/models--A--B", "in a download cache; the model is", "snapshots/02"},
        {"hub/models--A--B/snapshots", "the model is the folder", "snapshots/01"},
        {"hub/models--C", "not complete", NULL},
        {"gguf", "there is x.gguf, but GGUF", NULL},
        {"text", "there is no model_index.json", NULL},
    };
    run_shell(
        "cd '%s' && echo x >x.safetensors && echo x >x.gguf && echo x >x.ckpt && echo x >x.zip && echo x >file && "
        "printf 'version https://git-lfs.github.com/spec/v1\\n' >pointer && mkdir empty zone around dangling gguf text "
        "&& touch zone/model_index.json:Zone.Identifier gguf/x.gguf text/README.md && cp -r '%s' m && "
        "cp -r m around/m && ln -s gone link && ln -s ../blobs/1 dangling/model_index.json && mkdir "
        "dangling/transformer "
        "&& cp -r m/transformer alone",
        test_folder, TINY);
    run_shell("cd '%s' && mkdir -p hub/models--A--B/snapshots hub/models--A--B/refs hub/models--C/snapshots/1 && "
              "cp -r m hub/models--A--B/snapshots/01 && cp -r m hub/models--A--B/snapshots/02 && "
              "printf 02 >hub/models--A--B/refs/main",
              test_folder);
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++)
        expect_folder_refused(cases[i].path, cases[i].says, cases[i].also);
    zimage_error error = ZIMAGE_ERROR_INIT;
    assert_int_equal(open_folder("Organisation/Name", NULL, &error), ZIMAGE_ERROR_FILE);
    assert_non_null(strstr(error.message, "nothing is downloaded here"));
    run_shell("rm -rf '%s'/*", test_folder);
}

/* What lies in place of the small files. */
static void stand_ins_in_a_model(void **state)
{
    static const char *const files[] = {"model_index.json",
                                        "transformer/config.json",
                                        "vae/config.json",
                                        "text_encoder/config.json",
                                        "scheduler/scheduler_config.json",
                                        "tokenizer/tokenizer.json",
                                        "tokenizer/tokenizer_config.json"};
    for (size_t i = 0; i < sizeof files / sizeof *files; i++) {
        const char *model = copy_model("m");
        run_shell("printf 'version https://git-lfs.github.com/spec/v1\\noid 1' >'%s/%s'", model, files[i]);
        expect_folder_refused("m", files[i], "git lfs pull");
        run_shell("cd '%s' && rm '%s' && ln -s ../blobs/1 '%s'", model, files[i], files[i]);
        expect_folder_refused("m", files[i], "../blobs/1, which does not exist");
    }
    run_shell("rm -rf '%s'/*", test_folder);
}

/* A model whose index has one field changed (NULL: removed); its parts are those of TINY. */
static const char *model_with_index(const char *field, const char *value)
{
    run_shell("rm -rf '%s/m' && mkdir '%s/m' && cd '%s/m' && cp '%s/model_index.json' . && for part in transformer "
              "text_encoder vae tokenizer scheduler; do ln -s '%s'/$part $part; done",
              test_folder, test_folder, test_folder, TINY, TINY);
    spoil_json(in_folder("m"), "model_index.json", field, value);
    return in_folder("m");
}

static void classes_of_pipelines(void **state)
{
    static const char *const same[] = {"\"ZImagePipeline\"", "\"ZImageImg2ImgPipeline\"", "\"ZImageInpaintPipeline\""};
    static const char *const others[] = {"\"ZImageOmniPipeline\"",
                                         "\"ZImageControlNetPipeline\"",
                                         "\"ZImageMadeUp\"",
                                         "\"ZImage\"",
                                         "\"ZImagePipeline2\"",
                                         "\"zimagepipeline\"",
                                         "[\"pipeline\", \"ZImagePipeline\"]",
                                         "null",
                                         "7"};
    zimage_error error = ZIMAGE_ERROR_INIT;
    for (size_t i = 0; i < sizeof same / sizeof *same; i++)
        if (open_folder(model_with_index("_class_name", same[i]), NULL, &error) != ZIMAGE_OK)
            fail_msg("%s", error.message);
    for (size_t i = 0; i < sizeof others / sizeof *others; i++) {
        model_with_index("_class_name", others[i]);
        expect_folder_refused("m", "_class_name", i < 6 ? "which this version can't run" : "expected a string");
    }
    run_shell("rm -rf '%s'/*", test_folder);
}

static void classes_of_parts(void **state)
{
    static const struct {
        const char *part, *same[4], *others[8];
    } cases[] = {
        {"text_encoder",
         {"[\"transformers\", \"Qwen3Model\"]", "[\"transformers\", \"Qwen3ForCausalLM\"]"},
         {"[\"transformers\", \"Qwen2Model\"]", "[\"transformers\", \"AutoModel\"]", "[\"diffusers\", \"Qwen3Model\"]",
          "[\"transformers\", null]", "\"Qwen3Model\"", "[]", "{}", "[\"transformers\", \"Qwen3Model\", 1]"}},
        {"transformer",
         {"[\"diffusers\", \"ZImageTransformer2DModel\"]"},
         {"[\"diffusers\", \"FluxTransformer2DModel\"]", "[\"optimum\", \"ZImageTransformer2DModel\"]",
          "[null, null]"}},
        {"vae", {"[\"diffusers\", \"AutoencoderKL\"]"}, {"[\"diffusers\", \"AutoencoderTiny\"]", "[null, null]", "7"}},
        {"scheduler",
         {"[\"diffusers\", \"FlowMatchEulerDiscreteScheduler\"]"},
         {"[\"diffusers\", \"FlowMatchHeunDiscreteScheduler\"]", "[\"diffusers\", \"UniPCMultistepScheduler\"]"}},
        {"tokenizer",
         {"[\"transformers\", \"Qwen2Tokenizer\"]", "[\"transformers\", \"Qwen2TokenizerFast\"]",
          "[\"transformers\", \"PreTrainedTokenizerFast\"]"},
         {"[\"transformers\", \"T5Tokenizer\"]", "[\"made_up\", \"Qwen2Tokenizer\"]"}},
    };
    zimage_error error = ZIMAGE_ERROR_INIT;
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        for (int k = 0; k < 4 && cases[i].same[k]; k++) {
            if (open_folder(model_with_index(cases[i].part, cases[i].same[k]), NULL, &error) != ZIMAGE_OK)
                fail_msg("%s", error.message);
            assert_string_equal(warnings, "");
        }
        for (int k = 0; k < 8 && cases[i].others[k]; k++) {
            model_with_index(cases[i].part, cases[i].others[k]);
            expect_folder_refused("m", "model_index.json", cases[i].part);
        }
    }
    /* A part from elsewhere is not the one that the index names. */
    const zimage_model_params chosen = {.struct_size = sizeof chosen, .vae = TINY "/vae"};
    const char *model = model_with_index("vae", "[\"diffusers\", \"AutoencoderTiny\"]");
    assert_int_equal(open_folder(model, &chosen, &error), ZIMAGE_OK);
    /* A pipeline without a text encoder is one, even where the folder has one. */
    assert_int_equal(open_folder(model_with_index("text_encoder", "[null, null]"), NULL, &error), ZIMAGE_OK);
    run_program(ARGUMENTS("generate", "a", "-m", in_folder("m"), "-o", in_folder("a.png"), "-W", "32", "-H", "32"), &o);
    assert_int_not_equal(o.code, 0);
    assert_non_null(strstr(o.err, "text_encoder"));
    run_shell("rm -rf '%s'/*", test_folder);
}

static void unknown_fields_are_warned_of(void **state)
{
    static const struct {
        const char *file;
        int warned;
    } cases[] = {{"model_index.json", 1},
                 {"transformer/config.json", 1},
                 {"vae/config.json", 1},
                 {"scheduler/scheduler_config.json", 1},
                 {"text_encoder/config.json", 0}}; /* transformers keeps any field, and says nothing */
    zimage_error error = ZIMAGE_ERROR_INIT;
    assert_int_equal(open_folder(TINY, NULL, &error), ZIMAGE_OK);
    assert_string_equal(warnings, "");
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        const char *model = copy_model("m");
        spoil_json(model, cases[i].file, "made_up", "[1, 2]");
        spoil_json(model, cases[i].file, "_private", "1");
        assert_int_equal(open_folder(model, NULL, &error), ZIMAGE_OK);
        assert_int_equal(strstr(warnings, "1 unknown field, not used: made_up") != NULL, cases[i].warned);
        assert_int_equal(strstr(warnings, cases[i].file) != NULL, cases[i].warned);
    }
    run_shell("rm -rf '%s'/*", test_folder);
}

static void folders_of_parts(void **state)
{
    static const struct {
        zimage_model_params params;
        const char *says;
    } cases[] = {
        {{.vae = TINY}, "this is a whole model, expected its folder " TINY "/vae"},
        {{.transformer = TINY}, "this is a whole model"},
        {{.scheduler = TINY}, "this is a whole model"},
        {{.tokenizer = TINY}, "this is a whole model"},
        {{.vae = TINY "/vae/config.json"}, "this is a file"},
        {{.scheduler = TINY "/scheduler/scheduler_config.json"}, "this is a file"},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        zimage_error error = ZIMAGE_ERROR_INIT;
        zimage_model_params params = cases[i].params;
        params.struct_size = sizeof params;
        assert_int_equal(open_folder(TINY, &params, &error), ZIMAGE_ERROR_FILE);
        if (!strstr(error.message, cases[i].says))
            fail_msg("%s", error.message);
    }
    /* transformers applies an adapter that lies beside the text encoder. */
    run_shell("echo '{}' >'%s/text_encoder/adapter_config.json'", copy_model("m"));
    expect_folder_refused("m", "text_encoder/adapter_config.json", "adapters are not supported");
    run_shell("rm -rf '%s'/*", test_folder);
}

/* Numbers of the schedule, each in its range, whose shift is not finite: the scheduler is named, not the network. */
static void schedule_that_is_not_finite(void **state)
{
    const char *model = copy_model("m");
    run_shell(
        "echo '{\"use_dynamic_shifting\": true, \"base_shift\": -50, \"max_shift\": 50, \"base_image_seq_len\": 1, "
        "\"max_image_seq_len\": 2}' >'%s/scheduler/scheduler_config.json'",
        model);
    run_program(
        ARGUMENTS("generate", "a", "-m", model, "-o", in_folder("a.png"), "-W", "64", "-H", "64", "--steps", "2"), &o);
    assert_int_equal(o.code, 1);
    if (!strstr(o.err, "scheduler_config.json") || !strstr(o.err, "base_shift") || strstr(o.err, "transformer"))
        fail_msg("%s", o.err);
    run_shell("rm -rf '%s'/*", test_folder);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(paths_that_are_no_model),      cmocka_unit_test(stand_ins_in_a_model),
        cmocka_unit_test(classes_of_pipelines),         cmocka_unit_test(classes_of_parts),
        cmocka_unit_test(unknown_fields_are_warned_of), cmocka_unit_test(folders_of_parts),
        cmocka_unit_test(schedule_that_is_not_finite),
    };
    return cmocka_run_group_tests(tests, folder_make, folder_remove);
}
