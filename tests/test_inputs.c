/* The program's input images: what it makes of them, and what it refuses with one sentence and without a file. */
#include "program.h"

#define TINY ZIMAGE_TEST_DATA "/tiny"
#define BASE ZIMAGE_TEST_DATA "/tiny-base/scheduler"

static outcome o;

#define MAKE(...)                                                                                                      \
    ARGUMENTS("generate", "a", "-m", TINY, "-q", "--steps", "4", "--seed", "7", "-o", "out.png", __VA_ARGS__)

static void clear(void)
{
    run_shell("rm -rf '%s'/*", test_folder);
}

static void make(const char *const *arguments)
{
    run_program(arguments, &o);
    if (o.code)
        fail_msg("exit code %d: %s", o.code, o.err);
}

/* ---- what is made ------------------------------------------------------------------------------------------------ */

/* Each format, whatever the name says. */
static void formats_are_recognised(void **state)
{
    static const char *const names[] = {"a.png", "a.jpg", "a.webp"};
    for (int i = 0; i < 3; i++) {
        put_picture(names[i], 32, 48, 0);
        make(MAKE("-i", names[i], "--no-metadata"));
        assert_non_null(strstr(o.out, "32x48"));
        run_shell("mv '%s' '%s'", in_folder("out.png"), in_folder("first.png"));
        run_shell("mv '%s' '%s'", in_folder(names[i]), in_folder("other.txt"));
        make(MAKE("-i", "other.txt", "--no-metadata"));
        run_shell("cmp '%s' '%s'", in_folder("out.png"), in_folder("first.png"));
    }
    clear();
}

static void sizes_come_from_the_first_image(void **state)
{
    put_picture("a.png", 70, 51, 0);
    put_picture("m.png", 70, 51, 1);
    make(MAKE("-i", "a.png"));
    assert_non_null(strstr(o.out, "out.png  64x48  seed 7"));
    make(MAKE("--image", "a.png", "--mask", "m.png", "--strength", "1"));
    assert_non_null(strstr(o.out, "64x48"));
    make(MAKE("-i", "a.png", "--size", "32x16"));
    assert_non_null(strstr(o.out, "32x16"));
    make(MAKE("-i", "a.png", "-W", "32"));
    assert_non_null(strstr(o.out, "32x48"));
    clear();
}

/* What --plan, --json and the image's own text say. */
static void plans_and_recipes_know_the_images(void **state)
{
    put_picture("a.png", 64, 48, 0);
    put_picture("m.png", 64, 48, 1);
    run_shell("mkdir '%s'", in_folder("deep"));
    run_shell("mv '%s' '%s'", in_folder("a.png"), in_folder("deep"));
    make(ARGUMENTS("generate", "a", "-m", TINY, "--plan", "--json", "-i", "deep/a.png", "--steps", "4"));
    json_t *plan = json_loads(o.out, 0, NULL), *first = json_array_get(json_object_get(plan, "stages"), 0);
    assert_string_equal(json_string_value(json_object_get(first, "name")), "vae_encode");
    assert_true(json_number_value(json_object_get(first, "flops")) > 0);
    assert_int_equal(json_array_size(json_object_get(plan, "stages")), 5);
    json_decref(plan);
    make(MAKE("-i", "deep/a.png", "--mask", "m.png", "--json"));
    json_t *made = json_loads(o.out, 0, NULL);
    assert_true(json_number_value(json_object_get(json_object_get(made, "seconds"), "vae_encode")) > 0);
    json_decref(made);
    char text[65536];
    read_text(in_folder("out.png"), text, sizeof text);
    static const char *const values[] = {"\"images\":[{\"name\":\"a.png\",\"size\":\"64x48\",",
                                         "\"mask\":{\"name\":\"m.png\",\"size\":\"64x48\",", "\"strength\":1,"};
    for (int i = 0; i < 3; i++)
        if (!memmem(text, sizeof text, values[i], strlen(values[i])))
            fail_msg("no %s", values[i]);
    assert_null(memmem(text, sizeof text, "deep", 4));
    clear();
}

/* The strength of the reference is the default: 0.6, and 1 with a mask. */
static void strengths_have_defaults(void **state)
{
    put_picture("a.png", 32, 32, 0);
    put_picture("m.png", 32, 32, 1);
    make(MAKE("-i", "a.png"));
    run_shell("mv '%s' '%s'", in_folder("out.png"), in_folder("1.png"));
    make(MAKE("-i", "a.png", "--strength", "0.6"));
    run_shell("cmp '%s' '%s'", in_folder("out.png"), in_folder("1.png"));
    make(MAKE("-i", "a.png", "--mask", "m.png"));
    run_shell("mv '%s' '%s'", in_folder("out.png"), in_folder("1.png"));
    make(MAKE("-i", "a.png", "--mask", "m.png", "--strength", "1"));
    run_shell("cmp '%s' '%s'", in_folder("out.png"), in_folder("1.png"));
    clear();
}

/* A model that is not distilled is guided as its reference guides it. */
static void guidance_has_the_default_of_the_model(void **state)
{
#define SMALL "--size", "16x16", "--steps", "2", "--seed", "7", "-q"
    make(ARGUMENTS("generate", "a", "-m", TINY, "--scheduler", BASE, SMALL, "-o", "1.png", "--negative", "b"));
    make(ARGUMENTS("generate", "a", "-m", TINY, "--scheduler", BASE, SMALL, "-o", "2.png", "--negative", "b",
                   "--guidance", "5"));
    run_shell("cmp '%s' '%s'", in_folder("1.png"), in_folder("2.png"));
    make(ARGUMENTS("generate", "a", "-m", TINY, "--scheduler", BASE, SMALL, "-o", "3.png", "--guidance", "0"));
    run_shell("! cmp -s '%s' '%s'", in_folder("1.png"), in_folder("3.png"));
    make(ARGUMENTS("generate", "a", "-m", TINY, SMALL, "-o", "4.png"));
    make(ARGUMENTS("generate", "a", "-m", TINY, SMALL, "-o", "5.png", "--guidance", "0"));
    run_shell("cmp '%s' '%s'", in_folder("4.png"), in_folder("5.png"));
    expect_refusal(ARGUMENTS("generate", "a", "-m", TINY, SMALL, "-o", "6.png", "--negative", "b"), &o,
                   "--negative: only with --guidance above 0", "changes nothing");
    put_file("b.jsonl", "{\"prompt\": \"a\", \"output\": \"7.png\"}\n");
    expect_refusal(ARGUMENTS("generate", "--batch", "b.jsonl", "--out-dir", ".", "-m", TINY, SMALL, "--negative", "b"),
                   &o, "--negative: no line of b.jsonl uses it", "");
    clear();
}

/* ---- batches ----------------------------------------------------------------------------------------------------- */

#define BATCH(...)                                                                                                     \
    ARGUMENTS("generate", "--batch", "b.jsonl", "--out-dir", "out", "-m", TINY, "-q", "--steps", "4", __VA_ARGS__)

/* A line holds what the command line holds, and replaces its images. */
static void lines_have_images(void **state)
{
    put_picture("a.png", 32, 48, 0);
    put_picture("b.png", 48, 32, 0);
    put_picture("m.png", 32, 48, 1);
    put_file("b.jsonl", "{\"prompt\": \"a\", \"output\": \"1.png\", \"seed\": 7, \"image\": \"a.png\"}\n"
                        "{\"prompt\": \"a\", \"output\": \"2.png\", \"seed\": 7, \"image\": [\"a.png\"], "
                        "\"mask\": \"m.png\", \"strength\": 0.5}\n"
                        "{\"prompt\": \"a\", \"output\": \"3.png\", \"seed\": 7}\n");
    make(BATCH("-i", "b.png"));
    assert_non_null(strstr(o.out, "1.png  32x48"));
    assert_non_null(strstr(o.out, "2.png  32x48"));
    assert_non_null(strstr(o.out, "3.png  48x32"));
    make(MAKE("-i", "a.png", "--mask", "m.png", "--strength", "0.5"));
    run_shell("cmp '%s' '%s'", in_folder("out.png"), in_folder("out/2.png"));
    make(MAKE("-i", "b.png"));
    run_shell("cmp '%s' '%s'", in_folder("out.png"), in_folder("out/3.png"));
    clear();
}

static void expect_line_refused(const char *line, const char *word1, const char *word2)
{
    char text[4096];
    snprintf(text, sizeof text, "{\"prompt\": \"a\", \"output\": \"1.png\", \"size\": \"16x16\"}\n%s\n", line);
    put_file("b.jsonl", text);
    expect_refusal(BATCH(NULL), &o, word1, word2);
    assert_int_equal(o.code, 2);
    assert_non_null(strstr(o.err, "b.jsonl: line 2: "));
    assert_false(has_file("out"));
}

/* All lines before the first image. */
static void wrong_images_of_lines(void **state)
{
#define LINE(rest) "{\"prompt\": \"b\", \"output\": \"2.png\"" rest "}"
    put_picture("a.png", 32, 48, 0);
    put_picture("m.png", 16, 16, 1);
    expect_line_refused(LINE(", \"image\": \"none.png\""), "image: none.png: ", "No such file");
    expect_line_refused(LINE(", \"image\": []"), "image: [], expected a file name", "");
    expect_line_refused(LINE(", \"image\": [\"a.png\", 5]"), "image: [\"a.png\", 5], expected", "");
    expect_line_refused(LINE(", \"image\": [\"a.png\", \"a.png\"]"), "image: 2, expected at most 1", "references");
    expect_line_refused(LINE(", \"image\": \"a.png\", \"mask\": \"m.png\""), "mask: 16 x 16 pixels", "32 x 48");
    expect_line_refused(LINE(", \"image\": \"a.png\", \"strength\": 0"), "strength: 0, expected a number above 0", "");
    expect_line_refused(LINE(", \"mask\": \"m.png\""), "mask: only with image", "");
    expect_line_refused(LINE(", \"image\": \"a.png\", \"composite\": true"), "composite: only with mask", "");
    clear();
}

/* An interrupted batch goes on: what is there stays as it is, the rest is made. */
static void batches_are_resumed(void **state)
{
    put_file("b.jsonl", "{\"prompt\": \"a\", \"output\": \"1.png\"}\n"
                        "{\"prompt\": \"a\", \"seed\": 5}\n"
                        "{\"prompt\": \"a\", \"seed\": 5, \"steps\": 2}\n"
                        "{\"prompt\": \"a\", \"seed\": 5, \"count\": 2}\n"
                        "{\"prompt\": \"a\", \"output\": \"4.png\", \"save_latents\": \"4.safetensors\"}\n");
#define RESUME(...) BATCH("--size", "16x16", "--resume", __VA_ARGS__)
    make(RESUME("--json"));
    json_t *made = json_loads(o.out, 0, NULL);
    assert_int_equal(json_array_size(json_object_get(made, "images")), 6);
    assert_int_equal(json_integer_value(json_object_get(made, "skipped")), 0);
    json_decref(made);
    static const char *const names[] = {"out/1.png",   "out/a-5.png", "out/a-5-2.png",    "out/a-5-3.png",
                                        "out/a-6.png", "out/4.png",   "out/4.safetensors"};
    for (int i = 0; i < 7; i++)
        assert_true(has_file(names[i]));
    assert_int_equal(count_files(in_folder("out")), 7);
    run_shell("cd '%s' && touch -t 200101010000 out/* && rm out/a-5-2.png out/4.safetensors", test_folder);
    make(RESUME("--json"));
    made = json_loads(o.out, 0, NULL);
    json_t *images = json_object_get(made, "images");
    assert_int_equal(json_integer_value(json_object_get(made, "skipped")), 4);
    assert_int_equal(json_array_size(images), 2);
    assert_string_equal(json_string_value(json_object_get(json_array_get(images, 0), "path")), "out/a-5-2.png");
    assert_int_equal(json_integer_value(json_object_get(json_array_get(images, 0), "line")), 3);
    assert_string_equal(json_string_value(json_object_get(json_array_get(images, 1), "path")), "out/4.png");
    json_decref(made);
    run_shell("cd '%s' && test \"$(find out -newermt 2020-01-01 -type f | wc -l)\" = 2", test_folder);
    run_program(
        ARGUMENTS("generate", "--batch", "b.jsonl", "--out-dir", "out", "-m", TINY, "--size", "16x16", "--resume"), &o);
    assert_int_equal(o.code, 0);
    assert_string_equal(o.out, "");
    assert_non_null(strstr(o.err, "6 of 6 images exist already"));
    /* An empty file is not finished. */
    run_shell(": >'%s'", in_folder("out/1.png"));
    make(RESUME(NULL));
    assert_non_null(strstr(o.out, "out/1.png"));
    put_file("b.jsonl", "{\"prompt\": \"a\"}\n");
    expect_refusal(RESUME(NULL), &o, "--resume: line 1 of b.jsonl has neither output nor seed", "differs each time");
    expect_refusal(MAKE("--resume"), &o, "--resume: only with --batch", "");
    clear();
}

/* ---- what is refused --------------------------------------------------------------------------------------------- */

static uint32_t crc_of(const uint8_t *bytes, size_t count)
{
    uint32_t crc = 0xffffffffu;
    for (size_t i = 0; i < count; i++) {
        crc ^= bytes[i];
        for (int k = 0; k < 8; k++)
            crc = crc >> 1 ^ (crc & 1 ? 0xedb88320u : 0);
    }
    return ~crc;
}

static void put_big_endian(uint8_t *bytes, uint32_t value)
{
    for (int i = 0; i < 4; i++)
        bytes[i] = (uint8_t)(value >> (24 - 8 * i));
}

/* A few bytes that claim to be a PNG of any size. */
static void put_claim(const char *name, uint32_t width, uint32_t height)
{
    uint8_t png[53] = "\x89PNG\r\n\x1a\n\0\0\0\rIHDR";
    put_big_endian(png + 16, width);
    put_big_endian(png + 20, height);
    png[24] = 8;
    png[25] = 2;
    put_big_endian(png + 29, crc_of(png + 12, 17));
    memcpy(png + 33, "\0\0\1\0IDATx\x9c", 10);
    FILE *file = fopen(in_folder(name), "wb");
    assert_non_null(file);
    assert_int_equal(fwrite(png, 1, sizeof png, file), sizeof png);
    fclose(file);
}

/* The head of an animated WebP: VP8X with the flag of animation, ANIM, and a frame without an image. */
static void put_animation(const char *name)
{
    static const char bytes[] = "RIFF\x38\0\0\0WEBP"
                                "VP8X\x0a\0\0\0\x02\0\0\0\x3f\0\0\x2f\0\0"
                                "ANIM\x06\0\0\0\0\0\0\0\0\0"
                                "ANMF\x10\0\0\0\0\0\0\0\0\0\x3f\0\0\x2f\0\0\x64\0\0\0";
    FILE *file = fopen(in_folder(name), "wb");
    assert_non_null(file);
    assert_int_equal(fwrite(bytes, 1, sizeof bytes - 1, file), sizeof bytes - 1);
    fclose(file);
}

/* One sentence; no file is written, and none is left in the folder. */
static void expect_refused(const char *const *arguments, const char *word1, const char *word2)
{
    int before = count_files(test_folder);
    expect_refusal(arguments, &o, word1, word2);
    if (o.code != 1 && o.code != 2)
        fail_msg("exit code %d: %s", o.code, o.err);
    const char *line = o.err, *warning = "zimage: warning: ", *end = strchr(line, '\n');
    while (end && strncmp(line, warning, strlen(warning)) == 0) {
        line = end + 1;
        end = strchr(line, '\n');
    }
    if (!end || end[1])
        fail_msg("expected one line beside warnings: %s", o.err);
    assert_false(has_file("out.png"));
    assert_int_equal(count_files(test_folder), before);
}

#define KLEIN(...)                                                                                                     \
    ARGUMENTS("generate", "a", "-m", ZIMAGE_TEST_DATA "/tiny-klein", "-q", "--steps", "1", "--seed", "7", "-o",        \
              "out.png", __VA_ARGS__)

/* The file as an input image, as a mask, as the second reference, and in a line of a batch. */
static void expect_unreadable(const char *name, const char *word)
{
    char image[64], mask[64], line[256];
    snprintf(image, sizeof image, "--image: %s", name);
    snprintf(mask, sizeof mask, "--mask: %s", name);
    expect_refused(MAKE("-i", name), image, word);
    expect_refused(MAKE("-i", "a.png", "--mask", name), mask, word);
    expect_refused(KLEIN("-i", "a.png", "-i", name), image, word);
    snprintf(line, sizeof line, "{\"prompt\": \"a\", \"output\": \"1.png\", \"image\": \"%s\"}\n", name);
    put_file("b.jsonl", line);
    expect_refused(BATCH(NULL), image + strlen("--"), word);
    assert_false(has_file("out"));
}

static void unreadable_images_are_refused(void **state)
{
    static const struct {
        const char *name, *word;
    } cases[] = {
        {"none.png", "No such file"}, {"folder", "folder"},   {"cut.png", "cut"},
        {"cut.jpg", "cut"},           {"cut.webp", "cut"},    {"moving.webp", "animated"},
        {"text.png", "expected"},     {"empty.png", "empty"}, {"huge.png", "20000x20000"},
        {"bomb.png", "Invalid IHDR"}, {"wide.png", "900000"}, {"short.png", "ends early"},
    };
    put_picture("a.png", 64, 64, 0);
    put_picture("a.jpg", 64, 48, 0);
    put_picture("a.webp", 64, 48, 0);
    put_file("b.jsonl", "");
    run_shell("cd '%s' && for type in png jpg webp; do head -c 200 a.$type >cut.$type; done && mkdir folder && "
              "echo text >text.png && : >empty.png",
              test_folder);
    put_animation("moving.webp");
    put_claim("huge.png", 20000, 20000);
    put_claim("wide.png", 900000, 900000);
    put_claim("bomb.png", 0x7fffffff, 0x7fffffff);
    put_claim("short.png", 8192, 8192); /* as many pixels as are allowed, in two bytes */
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++)
        expect_unreadable(cases[i].name, cases[i].word);
    clear();
}

static void small_images_are_refused(void **state)
{
    put_picture("a.png", 64, 64, 0);
    put_picture("dot.png", 1, 1, 0);
    expect_refused(MAKE("-i", "dot.png"), "--image: dot.png: 1 x 1 pixels", "at least 16 x 16");
    expect_refused(MAKE("-i", "dot.png", "--size", "32x32"), "--image: dot.png: 1 x 1 pixels", "at least 16 x 16");
    expect_refused(MAKE("-i", "a.png", "--mask", "dot.png"), "--mask: 1 x 1 pixels", "64 x 64");
    expect_refused(KLEIN("-i", "a.png", "-i", "dot.png"), "--image: dot.png: 1 x 1 pixels", "at least 64");
    expect_refused(KLEIN("-i", "a.png", "--mask", "dot.png"), "--mask: 1 x 1 pixels", "64 x 64");
    clear();
}

static void wrong_combinations_are_refused(void **state)
{
    put_picture("a.png", 64, 48, 0);
    put_picture("m.png", 48, 64, 1);
    put_picture("wide.png", 2000, 16, 0);
    expect_refused(MAKE("-i", "a.png", "--mask", "m.png"), "--mask: 48 x 64 pixels", "64 x 48");
    expect_refused(MAKE("--mask", "m.png"), "--mask: only with --image", "");
    expect_refused(MAKE("-i", "a.png", "--composite"), "--composite: only with --mask", "");
    expect_refused(MAKE("--strength", "0.5"), "--strength: only with --image", "");
    expect_refused(MAKE("-i", "a.png", "-i", "m.png"), "--image: 2, expected at most 1", "reads no references");
    expect_refused(MAKE("-i", "a.png", "-i", "a.png", "-i", "a.png", "-i", "a.png", "-i", "a.png", "-i", "a.png", "-i",
                        "a.png", "-i", "a.png", "-i", "a.png"),
                   "--image: 9, expected at most 1", "");
    expect_refused(MAKE("-i", "wide.png"), "--image: wide.png: 2000 x 16 pixels", "gives no size");
    static const char *const strengths[] = {"0", "2", "nan", "-0.1", "1.0001", ""};
    for (int i = 0; i < 6; i++)
        for (int klein = 0; klein < 2; klein++)
            expect_refused(klein ? KLEIN("-i", "a.png", "--mask", "a.png", "--strength", strengths[i])
                                 : MAKE("-i", "a.png", "--strength", strengths[i]),
                           "--strength: ", "expected a number above 0, at most 1");
    expect_refused(MAKE("-i", "a.png", "--background", "sky"), "--background: \"sky\"", "expected a colour");
    clear();
}

/* A model that reads references starts from an image only where a mask says what stays. */
static void references_are_counted(void **state)
{
    put_picture("a.png", 64, 80, 0);
    put_picture("thin.png", 64, 520, 0);
    put_picture("small.png", 48, 48, 0);
    put_picture("m.png", 64, 80, 1);
#define EIGHT                                                                                                          \
    "-i", "a.png", "-i", "a.png", "-i", "a.png", "-i", "a.png", "-i", "a.png", "-i", "a.png", "-i", "a.png", "-i",     \
        "a.png"
    expect_refused(KLEIN(EIGHT, "-i", "a.png"), "--image: 9, expected at most 8", "");
    expect_refused(KLEIN("-i", "a.png", "--strength", "0.5"), "--strength: 0.5, expected only with a mask",
                   "reads images as references");
    expect_refused(KLEIN("-i", "a.png", "-i", "thin.png"), "--image: thin.png: 64 x 520 pixels", "8 times");
    expect_refused(KLEIN("-i", "small.png"), "--image: small.png: 48 x 48 pixels", "at least 64");
    make(KLEIN(EIGHT, "--size", "32x16"));
    make(KLEIN("-i", "a.png", "-i", "a.png", "--mask", "m.png", "--strength", "0.5"));
    assert_non_null(strstr(o.out, "64x80"));
    clear();
}

static void a_vae_without_an_encoder_is_refused(void **state)
{
    put_picture("a.png", 64, 48, 0);
    const char *model = copy_model("decoder");
    replace_text(in_folder("decoder/vae/diffusion_pytorch_model.safetensors"), "\"encoder.", "\"xncoder.");
    expect_refused(ARGUMENTS("generate", "a", "-m", model, "-q", "-o", "out.png", "-i", "a.png"),
                   "--image: 1, expected none: the VAE of this model has no encoder", "");
    make(ARGUMENTS("generate", "a", "-m", model, "-q", "-o", "out.png", "--size", "16x16", "--steps", "1"));
    clear();
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(formats_are_recognised),
        cmocka_unit_test(sizes_come_from_the_first_image),
        cmocka_unit_test(plans_and_recipes_know_the_images),
        cmocka_unit_test(strengths_have_defaults),
        cmocka_unit_test(guidance_has_the_default_of_the_model),
        cmocka_unit_test(lines_have_images),
        cmocka_unit_test(wrong_images_of_lines),
        cmocka_unit_test(batches_are_resumed),
        cmocka_unit_test(unreadable_images_are_refused),
        cmocka_unit_test(small_images_are_refused),
        cmocka_unit_test(wrong_combinations_are_refused),
        cmocka_unit_test(references_are_counted),
        cmocka_unit_test(a_vae_without_an_encoder_is_refused),
    };
    return cmocka_run_group_tests(tests, folder_make, folder_remove);
}
