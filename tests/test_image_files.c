/* The files that zimage generate writes: their names, whether they can be written, and the text inside them. */
#include <utf8proc.h>

#include "base/file.h"
#include "base/numbers.h"
#include "cli/naming.h"
#include "program.h"
#include "shared/recipe.h"

#define TINY ZIMAGE_TEST_DATA "/tiny"

static outcome o;

#define SMALL "-W", "16", "-H", "16", "--steps", "1", "-q"

static void clear(void)
{
    run_shell("chmod -R u+w '%s' && rm -rf '%s'/*", test_folder, test_folder);
}

static void expect_made(const char *const *arguments, const char *name)
{
    run_program(arguments, &o);
    if (o.code || strncmp(o.out, name, strlen(name)) != 0)
        fail_msg("exit code %d, expected %s in: %s%s", o.code, name, o.out, o.err);
    if (!has_file(name))
        fail_msg("%s was not made", name);
}

/* ---- default names ---- */

static void names_of_prompts(void **state)
{
    static const char *const cases[][2] = {
        {"A red, red apple!", "a-red-red-apple-7.png"},
        {"", "zimage-7.png"},
        {"...", "zimage-7.png"},
        {"--help", "help-7.png"},
        {"../../etc/passwd", "etc-passwd-7.png"},
        {".hidden", "hidden-7.png"},
        {"a\n\tb\x1b[31mc", "a-b-31mc-7.png"},
        {"a\xff\xfe b", "a-b-7.png"},
        {"\xe7\x8c\xab", "\xe7\x8c\xab-7.png"}, /* a cat in Chinese; cats and dogs have names of their own */
        {"\xe7\x8a\xac\xe3\x80\x82\xe9\x9b\xaa", "\xe7\x8a\xac-\xe9\x9b\xaa-7.png"},
        {"\xd0\x9a\xd0\xbe\xd1\x82", "\xd0\xba\xd0\xbe\xd1\x82-7.png"}, /* Cyrillic, in lower case */
        {"Caf\xc3\x89", "caf\xc3\xa9-7.png"},                           /* accents */
        {"e\xcc\x81t\xc3\xa9", "e\xcc\x81t\xc3\xa9-7.png"},             /* a combining accent */
        {"\xcc\x81 x", "x-7.png"},                                      /* and one without a letter */
        {"a\xe2\x80\xae"
         "gnp\xe2\x80\x8b",
         "agnp-7.png"},                                    /* right-to-left, no width */
        {"\xf0\x9f\x8d\x8e", "zimage-7.png"},              /* a symbol */
        {"\xe2\x80\xa8line\xc2\xa0two", "line-two-7.png"}, /* Unicode's separators */
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        const cli_options options = {.prompt = cases[i][0], .count = 1};
        char path[PATH_MAX];
        cli_name_image(&options, 7, 1, path);
        assert_string_equal(path, cases[i][1]);
    }
}

/* Whatever a prompt holds, its name is safe. */
static void names_of_any_bytes(void **state)
{
    static const char *const parts[] = {
        "\xe7\x8c\xab", "/", "..",       "-",        "\xff", "\x01",         "A", "\xc3\x9f", "\xf0\x90\x90\x80",
        "\xe2\x80\xae", " ", "\xcc\x81", "\xc2\x85", "\\",   "\xed\xa0\x80", "z"};
    uint64_t bits = ZI_RANDOM_SEED;
    for (int i = 0; i < 2000; i++) {
        char prompt[2048] = "", path[PATH_MAX];
        for (uint32_t n = zi_random_bits(&bits) % 200; n > 0; n--)
            strcat(prompt, parts[zi_random_bits(&bits) % (sizeof parts / sizeof *parts)]);
        const cli_options options = {.prompt = prompt, .count = 1};
        cli_name_image(&options, UINT64_MAX, 1, path);
        assert_true(strlen(path) <= 143 - sizeof "-100000.png.tmp");
        assert_true(path[0] != '.' && path[0] != '-' && !strchr(path, '/') && !strchr(path, '\\'));
        utf8proc_int32_t character;
        for (const utf8proc_uint8_t *c = (const utf8proc_uint8_t *)path; *c;) {
            utf8proc_ssize_t bytes = utf8proc_iterate(c, -1, &character);
            assert_true(bytes > 0 && character > ' ' && (character < 0x7f || character > 0x9f));
            c += bytes;
        }
    }
}

static void default_names_replace_nothing(void **state)
{
#define RED(...) ARGUMENTS("generate", "red", "-m", TINY, "--seed", "1", "-q", __VA_ARGS__)
    expect_made(RED("-W", "16", "-H", "16"), "red-1.png");
    expect_made(RED("-W", "32", "-H", "16"), "red-1-2.png");
    expect_made(RED("-W", "16", "-H", "16", "--steps", "2"), "red-1-3.png");
    run_shell("cd '%s' && ln -s nothing red-1-4.png && mkdir red-1-5.png && touch red-2.png && chmod 400 red-2.png",
              test_folder);
    expect_made(RED("-W", "16", "-H", "16"), "red-1-6.png");
    run_program(RED("-W", "16", "-H", "16", "-n", "3", "--json"), &o);
    assert_int_equal(o.code, 0);
    assert_non_null(strstr(o.out, "\"red-1-7.png\""));
    assert_non_null(strstr(o.out, "\"red-2-2.png\""));
    assert_non_null(strstr(o.out, "\"red-3.png\""));
    run_shell("cd '%s' && [ -L red-1-4.png ] && [ ! -s red-2.png ] && [ ! -e nothing ] && cmp red-1-6.png red-1-7.png",
              test_folder);
    /* What the user named is replaced. */
    expect_made(RED("-W", "48", "-H", "16", "-o", "red-1.png"), "red-1.png");
    run_shell("cd '%s' && ! cmp -s red-1.png red-1-6.png", test_folder);
    clear();
}

/* The names that -n makes of -o are not the user's own either. */
static void numbered_names_replace_nothing(void **state)
{
    put_file("a-2.png", "mine");
    run_program(RED("--size", "16x16", "-n", "3", "-o", "a.png", "--json"), &o);
    assert_int_equal(o.code, 0);
    assert_non_null(strstr(o.out, "\"a-1.png\""));
    assert_non_null(strstr(o.out, "\"a-2-2.png\""));
    assert_non_null(strstr(o.out, "\"a-3.png\""));
    run_program(RED("--size", "32x16", "-n", "2", "-o", "a.png", "--json"), &o);
    assert_int_equal(o.code, 0);
    assert_non_null(strstr(o.out, "\"a-1-2.png\""));
    assert_non_null(strstr(o.out, "\"a-2-3.png\""));
    run_shell("cd '%s' && [ $(ls *.png | wc -l) = 6 ] && [ \"$(cat a-2.png)\" = mine ] && ! cmp -s a-1.png a-1-2.png",
              test_folder);
    clear();
    /* In a batch, too; the other lines' names count. */
    put_file("b.jsonl", "{\"prompt\": \"red\", \"output\": \"a.png\", \"count\": 2}\n"
                        "{\"prompt\": \"red\", \"output\": \"a-1-2.png\"}\n");
    run_shell("cd '%s' && mkdir out && echo mine >out/a-1.png && ln -s ../elsewhere out/a-2.png", test_folder);
    run_program(ARGUMENTS("generate", "--batch", "b.jsonl", "--out-dir", "out", "-m", TINY, "-q", "--size", "16x16",
                          "--steps", "1", "--seed", "1"),
                &o);
    if (o.code)
        fail_msg("%s", o.err);
    run_shell(
        "cd '%s/out' && [ \"$(cat a-1.png)\" = mine ] && [ -L a-2.png ] && [ ! -e ../elsewhere ] && [ -s a-2-2.png ] "
        "&& cmp a-1-2.png a-1-3.png",
        test_folder);
    clear();
}

/* Processes that begin at the same time each get a name of their own. */
static void default_names_of_many_processes(void **state)
{
    enum { PROCESSES = 6 };
    run_shell("cd '%s' && for i in 1 2 3 4 5 %d; do '%s' generate x -m '%s' -W 16 -H 16 --steps 1 --seed 1 -q & done; "
              "wait; ! ls -A | grep -v '^x-1\\(-[2-6]\\)\\?.png$' && for f in *.png; do cmp x-1.png $f || exit 1; done",
              test_folder, PROCESSES, ZIMAGE_PROGRAM, TINY);
    assert_int_equal(count_files(test_folder), PROCESSES);
    clear();
}

/* ---- places ---- */

/* The model can't be opened, so the sentence about the file shows that the file was tried first. */
static void expect_tried(const char *option, const char *path, const char *word)
{
    expect_refusal(ARGUMENTS("generate", "x", "-m", "no-model", option, path), &o, option, word);
    if (strstr(o.err, "no-model"))
        fail_msg("%s", o.err);
}

static void places_are_tried_before_the_model(void **state)
{
    char long_name[300] = "", long_path[PATH_MAX + 100] = "./";
    memset(long_name, 'a', 260);
    strcat(long_name, ".png");
    while (strlen(long_path) < PATH_MAX)
        strcat(long_path, "aaaaaaaaa/");
    strcat(long_path, ".png");
    run_shell("cd '%s' && mkdir no-model folder.png && touch file", test_folder);
    static const char *const options[] = {"--output", "--save-latents"};
    for (int i = 0; i < 2; i++) {
        expect_tried(options[i], "no/such/a.png", "the folder no/such: No such file");
        expect_tried(options[i], "file/a.png", "Not a directory");
        expect_tried(options[i], "folder.png", "is a folder");
        expect_tried(options[i], long_name, "name too long");
        expect_tried(options[i], long_path, "the path is too long");
        expect_tried(options[i], "/proc/a.png", "can't write");
    }
    expect_tried("--output", "a.bmp", "ending in .png, .jpg, .jpeg or .webp");
    expect_tried("--output", "a", "ending in .png, .jpg, .jpeg or .webp");
    expect_tried("--cache-dir", "file/cache", "Not a directory");
    expect_tried("--cache-dir", "/proc/cache", "can't make");
    expect_refusal(ARGUMENTS("bench", "--synthetic", "small", "--cache-dir", "file"), &o, "--cache-dir", "no folder");
    expect_refusal(ARGUMENTS("generate", "x", "-m", "no-model", "-o", "a.png", "--save-latents", "./a.png"), &o,
                   "model_index.json", "");
    expect_refusal(ARGUMENTS("generate", "x", "-m", "no-model", "-o", "a.png", "--save-latents", "a.png"), &o,
                   "--save-latents: \"a.png\"", "--output has the same");
    run_shell("cd '%s' && touch b.png && ln -s b.png c.png", test_folder);
    expect_refusal(ARGUMENTS("generate", "x", "-m", "no-model", "-o", "b.png", "--save-latents", "c.png"), &o,
                   "--save-latents: \"c.png\"", "--output has the same");
    if (geteuid() != 0) { /* root writes everywhere */
        run_shell("cd '%s' && mkdir locked && touch locked/a.png read.png && chmod 400 read.png && chmod 555 locked",
                  test_folder);
        expect_tried("--output", "locked/a.png", "Permission denied");
        expect_tried("--output", "locked/b.png", "Permission denied");
        expect_tried("--output", "read.png", "Permission denied");
        run_shell("chmod 755 '%s'", in_folder("locked"));
    }
    clear();
}

static void default_names_are_tried_before_the_model(void **state)
{
    if (geteuid() == 0)
        skip();
    run_shell("cd '%s' && mkdir no-model && chmod 555 .", test_folder);
    expect_refusal(ARGUMENTS("generate", "x", "-m", "no-model"), &o, "--output: can't write to the folder .", "denied");
    run_shell("chmod 755 '%s'", test_folder);
    clear();
}

/* Latents that can't be written do not take the image with them. */
static void the_image_stays_without_its_latents(void **state)
{
    run_program(ARGUMENTS("generate", "x", "-m", TINY, "-o", "a.png", "--save-latents", "/dev/full", SMALL), &o);
    assert_int_equal(o.code, 1);
    assert_non_null(strstr(o.err, "/dev/full"));
    assert_non_null(strstr(o.out, "a.png"));
    assert_true(has_file("a.png"));
    clear();
}

/* ---- formats ---- */

/* The bytes that a file begins with. */
static void expect_begin(const char *name, const char *begin)
{
    char bytes[16] = {0};
    FILE *file = fopen(in_folder(name), "rb");
    assert_non_null(file);
    assert_int_equal(fread(bytes, 1, 12, file), 12);
    fclose(file);
    if (strncmp(bytes, begin, strlen(begin)) != 0)
        fail_msg("%s is of another format", name);
}

#define TALL "-W", "16", "-H", "32", "--steps", "1", "-q", "--seed", "1"

static void the_extension_chooses_the_format(void **state)
{
    static const char *const cases[][2] = {
        {"a.PNG", "\x89PNG"}, {"a.webp", "RIFF"}, {"a.jpg", "\xff\xd8\xff"}, {"b.JPEG", "\xff\xd8\xff"}};
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        expect_made(ARGUMENTS("generate", "red", "-m", TINY, TALL, "-o", cases[i][0]), cases[i][0]);
        expect_begin(cases[i][0], cases[i][1]);
    }
    zimage_image *png = read_image("a.PNG"), *webp = read_image("a.webp"), *jpeg = read_image("a.jpg");
    assert_memory_equal(zimage_image_pixels(png), zimage_image_pixels(webp), 16 * 32 * 3);
    assert_int_equal(zimage_image_width(jpeg), 16);
    assert_int_equal(zimage_image_height(jpeg), 32);
    zimage_image_free(png);
    zimage_image_free(webp);
    zimage_image_free(jpeg);
    /* Numbers stand before the extension. */
    expect_made(ARGUMENTS("generate", "red", "-m", TINY, SMALL, "-n", "2", "-o", "n.jpg"), "n-1.jpg");
    expect_begin("n-2.jpg", "\xff\xd8\xff");
    /* Standard output is PNG. */
    run_shell("cd '%s' && '%s' generate x -m '%s' -W 16 -H 16 --steps 1 -q -o - >out", test_folder, ZIMAGE_PROGRAM,
              TINY);
    expect_begin("out", "\x89PNG");
    clear();
}

static long size_of_file(const char *name)
{
    struct stat st;
    assert_int_equal(stat(in_folder(name), &st), 0);
    return (long)st.st_size;
}

static void qualities(void **state)
{
    expect_made(ARGUMENTS("generate", "red", "-m", TINY, TALL, "-o", "usual.jpg"), "usual.jpg");
    expect_made(ARGUMENTS("generate", "red", "-m", TINY, TALL, "-o", "95.jpg", "--quality", "95"), "95.jpg");
    expect_made(ARGUMENTS("generate", "red", "-m", TINY, TALL, "-o", "20.jpg", "--quality", "20"), "20.jpg");
    expect_made(ARGUMENTS("generate", "red", "-m", TINY, TALL, "-o", "usual.webp"), "usual.webp");
    expect_made(ARGUMENTS("generate", "red", "-m", TINY, TALL, "-o", "90.webp", "--quality", "90"), "90.webp");
    assert_true(size_of_file("20.jpg") < size_of_file("usual.jpg"));
    assert_true(size_of_file("90.webp") < size_of_file("usual.webp"));
    zimage_image *usual = read_image("usual.jpg"), *same = read_image("95.jpg");
    assert_memory_equal(zimage_image_pixels(usual), zimage_image_pixels(same), 16 * 32 * 3);
    zimage_image_free(usual);
    zimage_image_free(same);
    clear();
    static const char why[] = "only with --output of a JPEG or WebP file; PNG files lose nothing";
    expect_refusal(ARGUMENTS("generate", "x", "-m", TINY, SMALL, "--quality", "9"), &o, "--quality: ", why);
    expect_refusal(ARGUMENTS("generate", "x", "-m", TINY, SMALL, "--quality", "9", "-o", "a.png"), &o,
                   "--quality: ", why);
    expect_refusal(ARGUMENTS("generate", "x", "-m", TINY, SMALL, "--quality", "9", "-o", "-"), &o, "--quality: ", why);
    expect_refusal(ARGUMENTS("generate", "x", "-m", TINY, SMALL, "--quality", "101", "-o", "a.jpg"), &o,
                   "--quality: ", "from 1 to 100");
    assert_int_equal(count_files(test_folder), 0);
}

/* What a format can't hold is said before the image is made. */
static void what_a_format_cannot_hold(void **state)
{
    char *prompt = malloc(70001);
    assert_non_null(prompt);
    memset(prompt, 'a', 70000);
    prompt[70000] = 0;
    expect_refusal(ARGUMENTS("generate", prompt, "-m", TINY, "-q", "-o", "a.jpg"), &o, "a.jpg: the texts",
                   "at most 65504 in a JPEG file");
    expect_made(ARGUMENTS("generate", prompt, "-m", TINY, SMALL, "-o", "a.jpg", "--no-metadata"), "a.jpg");
    expect_made(ARGUMENTS("generate", prompt, "-m", TINY, SMALL, "-o", "a.webp"), "a.webp");
    free(prompt);
    expect_refusal(ARGUMENTS("generate", "x", "-m", TINY, "-W", "16384", "-H", "16", "-q", "-o", "b.webp"), &o,
                   "b.webp: the image has 16384x16 pixels", "at most 16383 a side in a WebP file");
    assert_false(has_file("b.webp"));
    clear();
}

static void batches_of_all_formats(void **state)
{
#define LINES(...) ARGUMENTS("generate", "--batch", "b.jsonl", "--out-dir", "out", "-m", TINY, SMALL, __VA_ARGS__)
    put_file("b.jsonl", "{\"prompt\": \"a\", \"output\": \"1.jpg\"}\n"
                        "{\"prompt\": \"b\", \"output\": \"2.png\"}\n"
                        "{\"prompt\": \"c\", \"output\": \"3.webp\", \"quality\": 80}\n");
    run_program(LINES("--quality", "50"), &o); /* for the lines that can use it */
    if (o.code)
        fail_msg("%s", o.err);
    expect_begin("out/1.jpg", "\xff\xd8\xff");
    expect_begin("out/2.png", "\x89PNG");
    expect_begin("out/3.webp", "RIFF");
    run_shell("rm -r '%s'", in_folder("out"));
    put_file("b.jsonl", "{\"prompt\": \"a\", \"output\": \"1.png\"}\n");
    expect_refusal(LINES("--quality", "50"), &o, "--quality: no line of b.jsonl uses it", "");
    put_file("b.jsonl", "{\"prompt\": \"a\", \"output\": \"1.png\", \"quality\": 50}\n");
    expect_refusal(LINES(NULL), &o, "line 1: quality: only with output of a JPEG or WebP file", "");
    put_file("b.jsonl", "{\"prompt\": \"a\", \"output\": \"1.gif\"}\n");
    expect_refusal(LINES(NULL), &o, "line 1: output: \"1.gif\"", ".png, .jpg, .jpeg or .webp");
    assert_false(has_file("out"));
    clear();
}

/* ---- text in images ---- */

/* The texts of a file. */
static zimage_texts *texts_of(const char *name)
{
    zimage_error error = ZIMAGE_ERROR_INIT;
    zimage_texts *texts = NULL;
    char *data;
    size_t size;
    assert_int_equal(zi_read_file(in_folder(name), 1 << 20, &data, &size, &error), ZIMAGE_OK);
    assert_int_equal(zimage_texts_decode((const uint8_t *)data, size, &texts, &error), ZIMAGE_OK);
    free(data);
    return texts;
}

/* A value of the recipe in a file, as JSON without quotation marks; NULL: there is none. */
static const char *value_of(const char *name, const char *key)
{
    static char value[1024];
    recipe_source source;
    zimage_texts *texts = texts_of(name);
    json_t *object = recipe_read(texts, &source);
    const json_t *found = json_object_get(object, key);
    char *text = found ? json_dumps(found, JSON_ENCODE_ANY | JSON_COMPACT | JSON_REAL_PRECISION(15)) : NULL;
    int quoted = json_is_string(found);
    if (text)
        snprintf(value, sizeof value, "%.*s", (int)strlen(text) - 2 * quoted, text + quoted);
    free(text);
    json_decref(object);
    zimage_texts_free(texts);
    return found ? value : NULL;
}

static void expect_text(const char *key, const char *expected)
{
    const char *value = value_of("a.png", key);
    if (strcmp(value ? value : "none", expected ? expected : "none") != 0)
        fail_msg("%s: %s, expected %s", key, value ? value : "none", expected ? expected : "none");
}

static void all_that_decides_the_bytes(void **state)
{
    run_program(ARGUMENTS("generate", "x", "-m", TINY "/", "-o", "a.png", "--guidance", "2.7182817", "--negative", "b",
                          "--cfg-truncation", "0.3", "--cfg-normalization", "1.1", "--compute", "f32", "--seed",
                          "18446744073709551615", "--rng", "numpy", SMALL),
                &o);
    if (o.code)
        fail_msg("%s", o.err);
    static const char *const expected[][2] = {
        {"prompt", "x"},
        {"negative_prompt", "b"},
        {"guidance", "2.7182817"},
        {"cfg_truncation", "0.3"},
        {"cfg_normalization", "1.1"},
        {"compute", "f32"},
        {"seed", "18446744073709551615"},
        {"rng", "numpy"},
        {"size", "16x16"},
        {"steps", "1"},
        {"model", "tiny"},
        {"latents", NULL},
        {"dequantize", NULL},
    };
    for (size_t i = 0; i < sizeof expected / sizeof *expected; i++)
        expect_text(expected[i][0], expected[i][1]);
    run_shell("cp '%s' '%s'", in_folder("a.png"), in_folder("b.png"));
    assert_true(*value_of("a.png", "kernels") != 0);
    expect_text("version", zimage_version());

    run_program(
        ARGUMENTS("generate", "x", "-m", TINY, "-o", "a.png", "--reference", "--save-latents", "l.safetensors", SMALL),
        &o);
    expect_text("compute", "f32");
    expect_text("kernels", "reference");
    expect_text("cfg_truncation", NULL); /* without guidance it decides nothing */
    run_program(ARGUMENTS("generate", "x", "-m", TINY, "-o", "a.png", "--latents", "./l.safetensors", "-q", "--compute",
                          "int8", "--cpu-mask", "generic"),
                &o);
    assert_non_null(strstr(value_of("a.png", "latents"), "{\"name\":\"l.safetensors\",\"crc32\":\""));
    expect_text("seed", NULL);
    expect_text("compute", "int8");
    run_program(ARGUMENTS("generate", "x", "-m", TINY, "-o", "a.png", "--compute", "bf16", SMALL), &o);
    expect_text("compute", "bf16");
    run_program(ARGUMENTS("generate", "x", "-m", TINY, "-o", "a.png", SMALL), &o);
    assert_true(!strcmp(value_of("a.png", "compute"), "f32") || !strcmp(value_of("a.png", "compute"), "bf16"));
    clear();
}

/* The folders of the machine stay out of the image: those of a model, of its parts, of files. */
static void no_folders_of_the_machine(void **state)
{
    const char *model = copy_model("models--A--B");
    run_shell("cd '%s' && mkdir -p hub/models--A--B/snapshots && mv models--A--B hub/models--A--B/snapshots/0123abc && "
              "cp -r hub/models--A--B/snapshots/0123abc/vae secret-vae",
              test_folder);
    char path[PATH_MAX], vae[PATH_MAX];
    snprintf(path, sizeof path, "%s/hub/models--A--B/snapshots/0123abc/", test_folder);
    snprintf(vae, sizeof vae, "%s/secret-vae", test_folder);
    (void)model;
    run_program(ARGUMENTS("generate", "x", "-m", path, "--vae", vae, "-o", "a.png", SMALL), &o);
    if (o.code)
        fail_msg("%s", o.err);
    expect_text("model", "models--A--B/snapshots/0123abc");
    expect_text("vae", "secret-vae");
    run_shell("! grep -q '%s' '%s'", test_folder, in_folder("a.png"));
    char name[PATH_MAX];
    cli_name_folder("/", name);
    assert_string_equal(name, "/");
    cli_name_folder("nowhere/x", name);
    assert_string_equal(name, "x");
    clear();
}

#define PROMPT "a \"red\" <apple> \xe8\x8b\xb9"

/* What other programs make of our files: three texts, in every format the same. ComfyUI and those that read its files
 * expect JSON in a text "prompt", so there is none. */
static void texts_in_every_format(void **state)
{
    static const char *const names[] = {"a.png", "a.jpg", "a.webp"};
    for (size_t i = 0; i < sizeof names / sizeof *names; i++) {
        expect_made(ARGUMENTS("generate", PROMPT, "-m", TINY, TALL, "-o", names[i]), names[i]);
        zimage_texts *texts = texts_of(names[i]);
        static const char *const keys[] = {"zimage", "parameters", "Software"};
        assert_int_equal(zimage_texts_count(texts), 3);
        for (size_t k = 0; k < 3; k++)
            assert_string_equal(zimage_texts_get(texts, k)->key, keys[k]);
        json_t *object = json_loads(zimage_texts_get(texts, 0)->value, 0, NULL);
        assert_string_equal(json_string_value(json_object_get(object, "prompt")), PROMPT);
        assert_int_equal(json_integer_value(json_object_get(object, "recipe")), 1);
        json_decref(object);
        assert_string_equal(zimage_texts_get(texts, 1)->value,
                            PROMPT "\nSteps: 1, Sampler: Euler, CFG scale: 1, Seed: 1, Size: 16x32, Model: tiny, "
                                   "Version: zimage 0.2.0");
        assert_string_equal(zimage_texts_get(texts, 2)->value, "zimage 0.2.0");
        zimage_texts_free(texts);
    }
    clear();
}

static void no_metadata(void **state)
{
    run_program(ARGUMENTS("generate", "a secret", "-m", TINY, "-o", "a.png", "--seed", "1", SMALL), &o);
    run_program(ARGUMENTS("generate", "a secret", "-m", TINY, "-o", "b.png", "--seed", "1", "--no-metadata", SMALL),
                &o);
    assert_int_equal(o.code, 0);
    static const char *const keys[] = {"prompt", "seed", "version", "model", "compute"};
    for (size_t i = 0; i < sizeof keys / sizeof *keys; i++) {
        assert_non_null(value_of("a.png", keys[i]));
        assert_null(value_of("b.png", keys[i]));
    }
    run_program(ARGUMENTS("generate", "a secret", "-m", TINY, "-o", "b.jpg", "--no-metadata", SMALL), &o);
    run_program(ARGUMENTS("generate", "a secret", "-m", TINY, "-o", "b.webp", "--no-metadata", SMALL), &o);
    run_shell("cd '%s' && ! grep -aq 'secret\\|tEXt\\|iTXt\\|zimage\\|XMP\\|Exif\\|EXIF' b.png b.jpg b.webp",
              test_folder);
    clear();
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(names_of_prompts),
        cmocka_unit_test(names_of_any_bytes),
        cmocka_unit_test(default_names_replace_nothing),
        cmocka_unit_test(numbered_names_replace_nothing),
        cmocka_unit_test(default_names_of_many_processes),
        cmocka_unit_test(places_are_tried_before_the_model),
        cmocka_unit_test(default_names_are_tried_before_the_model),
        cmocka_unit_test(the_image_stays_without_its_latents),
        cmocka_unit_test(the_extension_chooses_the_format),
        cmocka_unit_test(qualities),
        cmocka_unit_test(what_a_format_cannot_hold),
        cmocka_unit_test(batches_of_all_formats),
        cmocka_unit_test(all_that_decides_the_bytes),
        cmocka_unit_test(texts_in_every_format),
        cmocka_unit_test(no_folders_of_the_machine),
        cmocka_unit_test(no_metadata),
    };
    return cmocka_run_group_tests(tests, folder_make, folder_remove);
}
