/* Recipes: what zimage explain reads in files of ours and of others, and whether zimage rerun makes the same again. */
#include "program.h"
#include "shared/recipe.h"

#define TINY ZIMAGE_TEST_DATA "/tiny"

static outcome o;

static void clear(void)
{
    run_shell("rm -rf '%s'/*", test_folder);
}

#define MAKE(prompt, name, ...)                                                                                        \
    make_file(ARGUMENTS("generate", prompt, "-m", TINY, "-q", "-s", "7", "-o", name, __VA_ARGS__))

static void make_file(const char *const *arguments)
{
    run_program(arguments, &o);
    if (o.code)
        fail_msg("%s", o.err);
}

/* Runs a command that ends with the code and prints the words. */
static void expect_end(const char *const *arguments, int code, const char *word1, const char *word2)
{
    run_program(arguments, &o);
    if (o.code != code || !(strstr(o.out, word1) || strstr(o.err, word1)) ||
        !(strstr(o.out, word2) || strstr(o.err, word2)))
        fail_msg("exit code %d, expected %d, \"%s\" and \"%s\" in: %s%s", o.code, code, word1, word2, o.out, o.err);
}

/* Writes an image with texts of our choice. */
static void put_texts(const char *name, const zimage_text *texts, size_t count)
{
    static const uint8_t pixels[16 * 16 * 3] = {1};
    zimage_error error = ZIMAGE_ERROR_INIT;
    zimage_image *image = NULL;
    if (zimage_image_from_pixels(pixels, 16, 16, 48, 3, &image, &error) != ZIMAGE_OK ||
        zimage_image_write(image, in_folder(name), texts, count, &error) != ZIMAGE_OK)
        fail_msg("%s", error.message);
    zimage_image_free(image);
}

static void put_text(const char *name, const char *key, const char *value)
{
    put_texts(name, &(zimage_text){key, value}, 1);
}

/* ---- making it again --------------------------------------------------------------------------------------------- */

static const char *const names[] = {"a.png", "a.jpg", "a.webp", "b.jpg", "b.webp"};
#define NAMES (sizeof names / sizeof *names)

static void every_format_is_made_again(void **state)
{
    for (size_t i = 0; i < NAMES; i++) {
        /* int8: float32 of some kernels gives the reference's pixels. */
        if (*names[i] == 'b')
            MAKE("a red apple", names[i], "--size", "32x48", "--steps", "2", "--compute", "int8", "--quality", "60");
        else
            MAKE("a red apple", names[i], "--size", "32x48", "--steps", "2", "--compute", "int8");
        expect_end(ARGUMENTS("rerun", names[i], "-m", TINY), 0, names[i], "equal: all 1536 pixels");
        /* Other kernels: how far, and why. */
        expect_end(ARGUMENTS("rerun", names[i], "-m", TINY, "-q", "--compute", "f32", "--reference"), 3,
                   "different: ", "it was made with kernels ");
        assert_non_null(strstr(o.out, ", now reference"));
        expect_end(ARGUMENTS("rerun", names[i], "-m", TINY, "-q", "--reference", "--compute", "f32", "--json"), 3,
                   "\"equal\":false", "\"reasons\":[\"kernels ");
    }
    /* The new file is the old one. */
    expect_end(ARGUMENTS("rerun", "a.png", "-m", TINY, "-o", "again.png"), 0, "equal", "");
    run_shell("cd '%s' && cmp a.png again.png", test_folder);
    /* The comparison is with the file as it was. */
    run_shell("cd '%s' && cp a.png own.png", test_folder);
    expect_end(ARGUMENTS("rerun", "own.png", "-m", TINY, "-q", "--compute", "f32", "--reference", "-o", "own.png"), 3,
               "different", "");
    run_shell("cd '%s' && ! cmp -s a.png own.png", test_folder);
    /* A file that somebody has changed. */
    run_shell("cd '%s' && cp b.jpg c.jpg && printf '\\377\\333' | dd of=c.jpg bs=1 seek=2 conv=notrunc 2>/dev/null",
              test_folder);
    run_program(ARGUMENTS("rerun", "c.jpg", "-m", TINY, "-q"), &o);
    assert_true(o.code == 1 || o.code == 3);
    clear();
}

/* Every option that decides the image is in the recipe. */
static void all_settings_are_made_again(void **state)
{
    MAKE("a fox", "a.png", "--size", "48x32", "--steps", "3", "--guidance", "2.7182817", "--negative", "b",
         "--cfg-truncation", "0.7", "--cfg-normalization", "1.1", "--rng", "numpy", "--compute", "f32");
    expect_end(ARGUMENTS("rerun", "a.png", "-m", TINY, "-q"), 0, "equal", "");
    MAKE("a fox", "b.png", "--size", "48x32", "--steps", "3", "--compute", "int8");
    expect_end(ARGUMENTS("rerun", "b.png", "-m", TINY, "-q"), 0, "equal", "");
    run_program(ARGUMENTS("generate", "a fox", "-m", TINY, "-q", "-s", "18446744073709551615", "-o", "c.png", "--size",
                          "16x16", "--save-latents", "l.safetensors", "--steps", "1"),
                &o);
    expect_end(ARGUMENTS("rerun", "c.png", "-m", TINY, "-q"), 0, "equal", "");
    expect_end(ARGUMENTS("explain", "c.png"), 0, "18446744073709551615", "a fox");
    clear();
}

/* Files that the image was made with come from the command line, and have to be the same ones. */
static void inputs_are_named_again(void **state)
{
    put_picture("in.png", 32, 32, 0);
    put_picture("mask.png", 32, 32, 1);
    put_picture("other.png", 32, 32, 1);
    MAKE("a cat", "a.png", "-i", "in.png", "--mask", "mask.png", "--strength", "0.9", "--steps", "2");
    expect_end(ARGUMENTS("explain", "a.png"), 0, "name in.png, size 32x32, crc32 ", "strength             0.9");
    expect_end(ARGUMENTS("rerun", "a.png", "-m", TINY, "-q", "-i", "in.png", "--mask", "mask.png"), 0, "equal", "");
    MAKE("a cat", "k.png", "-i", "in.png", "--mask", "mask.png", "--composite", "--steps", "2");
    expect_end(ARGUMENTS("explain", "k.png"), 0, "composite            true", "");
    expect_end(ARGUMENTS("rerun", "k.png", "-m", TINY, "-q", "-i", "in.png", "--mask", "mask.png"), 0, "equal", "");
    run_shell("cd '%s' && ! cmp -s a.png k.png", test_folder);
    expect_end(ARGUMENTS("rerun", "a.png", "-m", TINY, "-q"), 1,
               "--image: given 0 times, expected 1: a.png was made with input images (in.png)", "");
    expect_end(ARGUMENTS("rerun", "a.png", "-m", TINY, "-q", "-i", "in.png"), 1,
               "--mask: given 0 times, expected 1: a.png was made with a mask (mask.png)", "");
    expect_end(ARGUMENTS("rerun", "a.png", "-m", TINY, "-q", "-i", "other.png", "--mask", "mask.png"), 1,
               "--image: other.png is not what the image was made with", "(in.png)");
    MAKE("a cat", "b.png", "--size", "16x16", "--steps", "1", "--save-latents", "l.safetensors");
    expect_end(ARGUMENTS("rerun", "b.png", "-m", TINY, "-q", "-i", "in.png"), 1, "--image: b.png was made without",
               "input images");
    make_file(ARGUMENTS("generate", "a cat", "-m", TINY, "-q", "--latents", "l.safetensors", "-o", "c.png"));
    expect_end(ARGUMENTS("rerun", "c.png", "-m", TINY, "-q"), 1, "a file of initial noise (l.safetensors)",
               "--latents");
    expect_end(ARGUMENTS("rerun", "c.png", "-m", TINY, "-q", "--latents", "l.safetensors"), 0, "equal", "");
    clear();
}

/* The same shapes with another configuration are another model. */
static void other_models(void **state)
{
    MAKE("a cat", "a.png", "--size", "16x16", "--steps", "3");
    expect_end(ARGUMENTS("rerun", "a.png", "-q"), 1, "a.png: it was made with the model \"tiny\" (",
               "the bundled model is another");
    const char *model = copy_model("model");
    expect_end(ARGUMENTS("rerun", "a.png", "-m", "model", "-q"), 0, "equal: all 256 pixels", "");
    spoil_json(model, "scheduler/scheduler_config.json", "shift", "2.5");
    expect_end(ARGUMENTS("rerun", "a.png", "-m", "model"), 3, "warning: -m: model is another model",
               "it was made with model ");
    setenv("ZIMAGE_MODEL", model, 1);
    expect_end(ARGUMENTS("rerun", "a.png"), 1, "ZIMAGE_MODEL is another", "name it with -m DIR");
    unsetenv("ZIMAGE_MODEL");
    expect_end(ARGUMENTS("rerun", "a.png", "-m", "nowhere"), 2, "there is no model folder nowhere", "");
    expect_end(ARGUMENTS("rerun", "a.png", "-m", "a.png"), 1, "a.png", "folder");
    clear();
}

/* ---- files of others --------------------------------------------------------------------------------------------- */

#define A1111 "a cat, big\nNegative prompt: a dog\nSteps: 20, Sampler: Euler, CFG scale: 7, Seed: 5, Size: 64x96"
#define COMFYUI                                                                                                        \
    "{\"3\": {\"class_type\": \"KSampler\", \"inputs\": {\"seed\": 5, \"steps\": 20, \"cfg\": 7, \"denoise\": 1.0, "   \
    "\"model\": [\"9\", 0], \"positive\": [\"6\", 0], \"negative\": [\"7\", 0], \"latent_image\": [\"5\", 0]}}, "      \
    "\"5\": {\"class_type\": \"EmptyLatentImage\", \"inputs\": {\"width\": 64, \"height\": 96, \"batch_size\": 1}}, "  \
    "\"6\": {\"class_type\": \"CLIPTextEncode\", \"inputs\": {\"text\": \"a cat, big\", \"clip\": [\"4\", 1]}}, "      \
    "\"7\": {\"class_type\": \"CLIPTextEncode\", \"inputs\": {\"text\": \"a dog\", \"clip\": [\"4\", 1]}}, "           \
    "\"9\": {\"class_type\": \"ModelSamplingAuraFlow\", \"inputs\": {\"model\": [\"4\", 0], \"shift\": 3}}, "          \
    "\"4\": {\"class_type\": \"UNETLoader\", \"inputs\": {\"unet_name\": \"z.safetensors\"}}}"

static void files_of_other_programs(void **state)
{
    static const struct {
        const char *name, *key, *text, *source;
    } cases[] = {{"f.png", "parameters", A1111, "AUTOMATIC1111"},
                 {"f.jpg", "parameters", A1111, "AUTOMATIC1111"},
                 {"f.webp", "parameters", A1111, "AUTOMATIC1111"},
                 {"g.png", "prompt", COMFYUI, "ComfyUI"}};
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        put_text(cases[i].name, cases[i].key, cases[i].text);
        expect_end(ARGUMENTS("explain", cases[i].name, "--json"), 0, cases[i].source, "");
        json_t *answer = json_loads(o.out, 0, NULL), *object = json_object_get(answer, "recipe");
        assert_string_equal(json_string_value(json_object_get(object, "prompt")), "a cat, big");
        assert_string_equal(json_string_value(json_object_get(object, "negative_prompt")), "a dog");
        assert_string_equal(json_string_value(json_object_get(object, "size")), "64x96");
        assert_int_equal(json_integer_value(json_object_get(object, "seed")), 5);
        assert_int_equal(json_integer_value(json_object_get(object, "steps")), 20);
        assert_int_equal(json_integer_value(json_object_get(object, "cfg_scale")), 7);
        json_decref(answer);
        expect_end(ARGUMENTS("rerun", cases[i].name, "-m", TINY), 1, cases[i].source, "expected an image of zimage");
    }
    clear();
}

static void files_without_a_recipe(void **state)
{
    static const char *const texts[][2] = {
        {"Comment", "a photo"},  {"prompt", "a photo"},         {"prompt", "{\"3\": {\"inputs\": {}}}"},
        {"prompt", "[[[[[[[[["}, {"parameters", "Steps: many"}, {"parameters", ""},
    };
    put_picture("photo.jpg", 16, 16, 0);
    for (int i = 0; i < 2; i++)
        expect_end(ARGUMENTS(i ? "rerun" : "explain", "photo.jpg"), 1,
                   "photo.jpg: ", "the file does not say how the image was made");
    for (size_t i = 0; i < sizeof texts / sizeof *texts; i++) {
        put_text("x.png", texts[i][0], texts[i][1]);
        expect_end(ARGUMENTS("rerun", "x.png"), 1, "x.png: the file does not say how the image was made", "");
    }
    put_file("text.png", "no image");
    expect_end(ARGUMENTS("explain", "text.png"), 1, "text.png: ", "PNG, JPEG or WebP");
    expect_end(ARGUMENTS("explain", "none.png"), 1, "none.png", "No such file");
    expect_end(ARGUMENTS("explain"), 2, "FILE: missing", "");
    expect_end(ARGUMENTS("rerun", "photo.jpg", "-m", "nowhere"), 1, "photo.jpg: the file does not say", "");
    clear();
}

/* A circle of links ends. */
static void graphs_in_circles(void **state)
{
    put_text(
        "x.png", "prompt",
        "{\"1\": {\"inputs\": {\"steps\": 1, \"positive\": [\"2\", 0], \"model\": [\"3\", 0]}}, \"2\": {\"inputs\": "
        "{\"conditioning\": [\"2\", 0]}}, \"3\": {\"inputs\": {\"unet_name\": [\"3\", 0], \"model\": [\"3\", 0]}}}");
    expect_end(ARGUMENTS("explain", "x.png"), 0, "made by ComfyUI", "steps");
    clear();
}

/* ---- recipes of strangers ---------------------------------------------------------------------------------------- */

#define GOOD "\"recipe\": 1, \"prompt\": \"a\", \"seed\": 1, \"size\": \"16x16\", \"steps\": 1, \"guidance\": 0"

static void recipes_of_strangers(void **state)
{
    static const struct {
        const char *recipe, *word1, *word2;
        int code;
    } cases[] = {
        {"{" GOOD "}", "x.png  different", "of 256 pixels", 3},
        {"no JSON", "its recipe is none that this version can read", "x.png", 1},
        {"{}", "its recipe is none that this version can read", "", 1},
        {"{\"recipe\": \"1\"}", "its recipe is none that this version can read", "", 1},
        {"{\"recipe\": 1}", "no prompt, seed, size or number of steps", "", 1},
        {"{" GOOD ", \"steps\": 2}", "its recipe is none that this version can read", "", 1}, /* twice */
        {"{\"recipe\": 1, \"prompt\": \"a\", \"seed\": 1, \"size\": \"16x16\", \"steps\": 1000001}",
         "steps in its recipe: \"1000001\"", "from 1 to 1000", 1},
        {"{\"recipe\": 1, \"prompt\": \"a\", \"seed\": 1, \"size\": \"99999999x16\", \"steps\": 1}", "width",
         "99999999", 1},
        {"{\"recipe\": 1, \"prompt\": \"a\", \"seed\": -1, \"size\": \"16x16\", \"steps\": 1}", "seed in its recipe",
         "-1", 1},
        {"{\"recipe\": 1, \"prompt\": [\"a\"], \"seed\": 1, \"size\": \"16x16\", \"steps\": 1}", "prompt in its recipe",
         "expected", 1},
        {"{" GOOD ", \"rng\": \"dice\"}", "rng in its recipe: \"dice\"", "torch-cpu", 1},
        {"{" GOOD ", \"strength\": 7}", "strength in its recipe: \"7\"", "", 1},
        {"{" GOOD ", \"images\": [{\"name\": \"/etc/passwd\"}]}",
         "expected 1: x.png was made with input images (/etc/passwd)", "--image: given 0 times", 1},
        {"{" GOOD ", \"images\": [[[[{}]]], {\"size\": 5}]}",
         "expected 2: x.png was made with input images (it has no name)", "", 1},
        {"{" GOOD ", \"images\": \"/etc/passwd\", \"mask\": 5}", "made with a mask (it has no name)", "--mask", 1},
        {"{" GOOD ", \"model\": \"/no/such/model\", \"output\": \"/etc/x.png\", \"vae\": \"/etc\"}", "x.png  different",
         "", 3},
        {"{" GOOD ", \"kernels\": \"\\u001b[31m\"}", "kernels \\x1b[31m, now", "", 3},
        {"{" GOOD ", \"kernels\": 7, \"version\": {}, \"model_fingerprint\": []}", "x.png  different", "", 3},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        put_text("x.png", "zimage", cases[i].recipe);
        expect_end(ARGUMENTS("rerun", "x.png", "-m", TINY, "-q"), cases[i].code, cases[i].word1, cases[i].word2);
        assert_null(strchr(o.out, '\x1b'));
        run_program(ARGUMENTS("explain", "x.png"), &o);
        assert_true(o.code <= 1);
        assert_null(strchr(o.out, '\x1b'));
        assert_int_equal(count_files(test_folder), 1);
    }
    clear();
}

static void other_sizes(void **state)
{
    put_text("x.png", "zimage", "{\"recipe\": 1, \"prompt\": \"a\", \"seed\": 1, \"size\": \"32x16\", \"steps\": 1}");
    expect_end(ARGUMENTS("rerun", "x.png", "-m", TINY, "-q"), 1, "it has 16x16 pixels, and its recipe says 32x16", "");
    clear();
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(every_format_is_made_again),
        cmocka_unit_test(all_settings_are_made_again),
        cmocka_unit_test(inputs_are_named_again),
        cmocka_unit_test(other_models),
        cmocka_unit_test(files_of_other_programs),
        cmocka_unit_test(files_without_a_recipe),
        cmocka_unit_test(graphs_in_circles),
        cmocka_unit_test(recipes_of_strangers),
        cmocka_unit_test(other_sizes),
    };
    return cmocka_run_group_tests(tests, folder_make, folder_remove);
}
