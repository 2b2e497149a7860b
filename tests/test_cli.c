/* The program as a user meets it: what it makes, what it says, and every kind of bad input. */
#include <png.h>

#include "program.h"

#define TINY ZIMAGE_TEST_DATA "/tiny"

static outcome o;

static void expect_refused(const char *const *arguments, const char *word1, const char *word2)
{
    expect_refusal(arguments, &o, word1, word2);
}

static void makes_an_image(void **state)
{
    run_program(ARGUMENTS("generate", "a red apple", "-m", TINY, "-o", "p.png", "-W", "48", "-H", "32", "--seed", "7"),
                &o);
    if (o.code)
        fail_msg("%s", o.err);
    assert_non_null(strstr(o.out, "p.png"));
    assert_non_null(strstr(o.out, "seed 7"));
    assert_non_null(strstr(o.err, "step 8 of 8")); /* plain lines: stderr is not a terminal */
    assert_null(strchr(o.err, '\r'));

    FILE *file = fopen(in_folder("p.png"), "rb");
    assert_non_null(file);
    png_structp png = png_create_read_struct(PNG_LIBPNG_VER_STRING, NULL, NULL, NULL);
    png_infop info = png_create_info_struct(png);
    png_init_io(png, file);
    png_read_info(png, info);
    assert_int_equal(png_get_image_width(png, info), 48);
    assert_int_equal(png_get_image_height(png, info), 32);
    assert_int_equal(png_get_color_type(png, info), PNG_COLOR_TYPE_RGB);
    png_textp texts;
    int count = 0, seen = 0;
    png_get_text(png, info, &texts, &count);
    static const char *const expected[][2] = {
        {"zimage", "{\"recipe\":1,\"prompt\":\"a red apple\",\"seed\":7,"},
        {"parameters", "a red apple\nSteps: 8, Sampler: Euler, CFG scale: 1, Seed: 7, Size: 48x32, Model: tiny"}};
    for (int i = 0; i < count; i++)
        for (size_t k = 0; k < 2; k++)
            seen += !strcmp(texts[i].key, expected[k][0]) && strstr(texts[i].text, expected[k][1]) == texts[i].text;
    assert_int_equal(seen, 2);
    png_destroy_read_struct(&png, &info, NULL);
    fclose(file);
    unlink(in_folder("p.png"));
}

static void same_seed_same_bytes(void **state)
{
    run_program(ARGUMENTS("generate", "x", "-m", TINY, "-o", "a.png", "-W", "32", "-H", "32", "--seed", "5", "-q"), &o);
    run_program(ARGUMENTS("generate", "x", "-m", TINY, "-o", "b.png", "-W", "32", "-H", "32", "--seed", "5", "-q",
                          "--threads", "1"),
                &o);
    assert_string_equal(o.err, "");
    run_shell("cmp -s '%s' '%s'", in_folder("a.png"), in_folder("b.png"));
    unlink(in_folder("a.png"));
    unlink(in_folder("b.png"));
}

static void json_names_and_counts(void **state)
{
    run_program(ARGUMENTS("generate", "A red, red apple!", "-m", TINY, "-W", "32", "-H", "16", "-n", "2", "--steps",
                          "2", "--json", "--quiet", "--seed", "41"),
                &o);
    assert_int_equal(o.code, 0);
    json_t *result = json_loads(o.out, 0, NULL);
    json_t *images = json_object_get(result, "images");
    assert_int_equal(json_array_size(images), 2);
    assert_string_equal(json_string_value(json_object_get(json_array_get(images, 1), "path")),
                        "a-red-red-apple-42.png");
    assert_int_equal(json_integer_value(json_object_get(json_array_get(images, 1), "seed")), 42);
    assert_true(json_real_value(json_object_get(json_array_get(images, 1), "seconds")) > 0);
    json_t *seconds = json_object_get(result, "seconds");
    static const char *const stages[] = {"load", "text_encoder", "context", "denoise", "vae_decode"};
    for (size_t i = 0; i < 5; i++)
        assert_true(json_real_value(json_object_get(seconds, stages[i])) > 0);
    assert_true(json_integer_value(json_object_get(result, "peak_rss_bytes")) > 1000000);
    assert_true(has_file("a-red-red-apple-41.png") && has_file("a-red-red-apple-42.png"));
    json_decref(result);
    run_shell("rm -f '%s'/*.png", test_folder);
}

static void latents_out_and_in(void **state)
{
    run_program(ARGUMENTS("generate", "x", "-m", TINY, "-o", "a.png", "-W", "32", "-H", "48", "--steps", "1", "--seed",
                          "3", "--save-latents", "l.safetensors", "-q"),
                &o);
    if (o.code)
        fail_msg("%s", o.err);
    run_program(ARGUMENTS("generate", "x", "-m", TINY, "-o", "b.png", "--latents", "l.safetensors", "-q"), &o);
    if (o.code)
        fail_msg("%s", o.err);
    assert_non_null(strstr(o.out, "32x48"));
    expect_refused(
        ARGUMENTS("generate", "x", "-m", TINY, "-o", "c.png", "-W", "64", "-H", "64", "--latents", "l.safetensors"),
        "l.safetensors", "expected [1, 4, 8, 8]");
    expect_refused(ARGUMENTS("generate", "-m", TINY, "-o", "c.png", "--prompt-embeds", "l.safetensors"),
                   "l.safetensors", "prompt_embeds");
    run_shell("rm -f '%s'/*.png '%s'/*.safetensors", test_folder, test_folder);
}

/* A folder quantised by MLX. test_mlx checks that quantised and dequantised weights make the same image. */
static void quantised_weights(void **state)
{
    const char *model = packed_model("uqer1244");
#define SMALL(...) ARGUMENTS("generate", "x", "-m", model, "-W", "32", "-H", "32", "-q", "--seed", "5", __VA_ARGS__)
    run_program(SMALL("-o", "a.png"), &o);
    assert_non_null(strstr(o.err, "scheduler_config.json"));
    run_program(SMALL("-o", "b.png", "--dequantize", "f32"), &o);
    run_program(SMALL("-o", "c.png", "--dequantize=bf16"), &o);
    assert_true(has_file("a.png") && has_file("b.png") && has_file("c.png"));
    run_program(ARGUMENTS("inspect", model), &o);
    assert_non_null(strstr(o.out, "U4 group 32"));
    expect_refused(SMALL("-o", "d.png", "--dequantize", "int8"), "--dequantize",
                   "\"int8\", expected none, bf16 or f32");
    run_program(ARGUMENTS("generate", "--help"), &o);
    assert_non_null(strstr(o.out, "--dequantize KIND"));
    run_shell("rm -rf '%s'/*", test_folder);
}

static void no_text_encoder_is_fine_with_embeds(void **state)
{
    const char *model = copy_model("notext");
    const float embeds[3 * 32] = {0.5f, -1.0f, 0.25f};
    const int64_t shape[2] = {3, 32};
    run_shell("rm -r '%s/text_encoder' '%s/tokenizer'", model, model);
    assert_int_equal(zimage_tensor_write(in_folder("e.safetensors"), "prompt_embeds", embeds, shape, 2, NULL),
                     ZIMAGE_OK);
    run_program(ARGUMENTS("generate", "-m", model, "-o", "a.png", "-W", "32", "-H", "32", "--prompt-embeds",
                          "e.safetensors", "--seed", "1", "-q"),
                &o);
    if (o.code)
        fail_msg("%s", o.err);
    expect_refused(ARGUMENTS("generate", "a prompt", "-m", model, "-o", "b.png"), "text_encoder", "--prompt-embeds");
    run_shell("rm -rf '%s'/*", test_folder);
}

/* Each part of a model may lie in a folder of its own. A part that is missing there is an error that names it. */
static void parts_of_models(void **state)
{
    static const char *const options[][2] = {{"--transformer", "transformer"},
                                             {"--text-encoder", "text_encoder"},
                                             {"--vae", "vae"},
                                             {"--tokenizer", "tokenizer"},
                                             {"--scheduler", "scheduler"}};
    run_program(ARGUMENTS("generate", "x", "-m", TINY, "-o", "a.png", "-W", "32", "-H", "32", "--seed", "1", "-q",
                          "--save-latents", "whole.safetensors"),
                &o);
    assert_int_equal(o.code, 0);
    unlink(in_folder("a.png"));
    for (size_t i = 0; i < sizeof options / sizeof *options; i++) {
        const char *model = copy_model("parted");
        run_shell("mkdir '%s' && mv '%s/%s' '%s/part'", in_folder("elsewhere"), model, options[i][1],
                  in_folder("elsewhere"));
        run_program(ARGUMENTS("generate", "x", "-m", model, "-o", "a.png", "-W", "32", "-H", "32", "--seed", "1", "-q",
                              "--save-latents", "parts.safetensors", options[i][0], "elsewhere/part"),
                    &o);
        if (o.code)
            fail_msg("%s: %s", options[i][0], o.err);
        run_shell("cd '%s' && cmp whole.safetensors parts.safetensors && grep -q part a.png && ! grep -q elsewhere "
                  "a.png && rm a.png",
                  test_folder);
        expect_refused(ARGUMENTS("generate", "x", "-m", model, "-o", "a.png", "-W", "32", "-H", "32", options[i][0],
                                 "elsewhere/nothing"),
                       "elsewhere/nothing", "");
        run_shell("rm -r '%s'", in_folder("elsewhere"));
    }
    run_shell("rm -rf '%s'/*", test_folder);
}

/* Measurements are kept where the user says, or nowhere; by default in the user's cache folder. */
static void places_of_the_cache(void **state)
{
    setenv("XDG_CACHE_HOME", in_folder("cache"), 1);
    run_program(ARGUMENTS("generate", "x", "-m", TINY, "--plan", "--no-cache"), &o);
    assert_int_equal(o.code, 0);
    assert_int_equal(count_files(test_folder), 0);
    run_program(ARGUMENTS("generate", "x", "-m", TINY, "--plan", "--cache-dir", "mine"), &o);
    assert_int_equal(o.code, 0);
    assert_true(has_file("mine") && !has_file("cache"));
    run_program(ARGUMENTS("generate", "x", "-m", TINY, "--plan"), &o);
    assert_int_equal(o.code, 0);
    assert_true(has_file("cache/zimage"));
    unsetenv("XDG_CACHE_HOME");
    run_shell("rm -rf '%s'/*", test_folder);
}

static void interrupt_leaves_nothing(void **state)
{
    /* 1000 steps take long enough to be interrupted on any machine; not before the first has begun. */
    pid_t child = start_program(
        ARGUMENTS("generate", "x", "-m", TINY, "-o", "a.png", "-W", "256", "-H", "256", "--steps", "1000"));
    char path[PATH_MAX], text[4096] = "";
    snprintf(path, sizeof path, "%s.err", test_folder);
    for (int tries = 0; tries < 3000 && !strstr(text, "step 1 of 1000"); tries++) {
        usleep(20000);
        if (access(path, R_OK) == 0)
            read_text(path, text, sizeof text);
    }
    kill(child, SIGINT);
    finish_program(child, &o);
    assert_int_equal(o.code, 130);
    assert_non_null(strstr(o.err, "cancelled"));
    assert_int_equal(count_files(test_folder), 0);
}

/* Starts the program with a pipe that nobody reads as its standard error. The pipe is full, so that the program can't
 * go on once it prints progress. */
static pid_t start_stuck(int ends[2])
{
    assert_int_equal(pipe(ends), 0);
    pid_t child = fork();
    if (child != 0)
        return child;
    const char *const arguments[] = {ZIMAGE_PROGRAM, "generate", "x",  "-m", TINY,      "-o",   "a.png",
                                     "-W",           "16",       "-H", "16", "--steps", "1000", NULL};
    const int flags = fcntl(ends[1], F_GETFL);
    char filling[4096] = {0};
    if (chdir(test_folder) != 0 || fcntl(ends[1], F_SETFL, flags | O_NONBLOCK) != 0)
        _exit(126);
    while (write(ends[1], filling, sizeof filling) > 0) {
    }
    if (fcntl(ends[1], F_SETFL, flags) != 0 || dup2(ends[1], STDERR_FILENO) < 0)
        _exit(126);
    execv(arguments[0], (char *const *)arguments);
    _exit(127);
}

static void a_second_interrupt_ends_at_once(void **state)
{
    int ends[2], status;
    pid_t child;
    for (useconds_t pause = 300000;; pause *= 2) {
        child = start_stuck(ends);
        usleep(pause); /* until it is stuck */
        kill(child, SIGINT);
        usleep(100000);
        if (waitpid(child, &status, WNOHANG) == 0)
            break;
        assert_true(pause < 10000000); /* on a busy machine it had not begun yet */
        close(ends[0]);
        close(ends[1]);
    }
    for (int tries = 0; tries < 600; tries++) { /* two that come before it was awake are one */
        kill(child, SIGINT);
        usleep(100000);
        if (waitpid(child, &status, WNOHANG) == child)
            break;
        assert_true(tries < 599);
    }
    assert_true(WIFSIGNALED(status) && WTERMSIG(status) == SIGINT);
    close(ends[0]);
    close(ends[1]);
    assert_int_equal(count_files(test_folder), 0);
}

/* A program started with SIGINT ignored (nohup, a shell's background) is not ended by one. */
static void an_ignored_interrupt_stays_ignored(void **state)
{
    signal(SIGINT, SIG_IGN);
    pid_t child = start_program(
        ARGUMENTS("generate", "x", "-m", TINY, "-o", "a.png", "-W", "64", "-H", "64", "--steps", "50", "-q"));
    signal(SIGINT, SIG_DFL);
    usleep(20000);
    kill(child, SIGINT);
    finish_program(child, &o);
    assert_int_equal(o.code, 0);
    run_shell("rm '%s'", in_folder("a.png"));
}

static void wrong_command_lines(void **state)
{
    run_program(ARGUMENTS("generate", "--help"), &o);
    assert_int_equal(o.code, 0);
    run_program(ARGUMENTS("--version"), &o);
    assert_non_null(strstr(o.out, zimage_version()));
    expect_refused(ARGUMENTS("paint"), "paint", "--help");
    expect_refused(ARGUMENTS("generate", "-m", TINY), "PROMPT", "expected");
    expect_refused(ARGUMENTS("generate", "a", "b", "-m", TINY), "\"b\"", "quotes");
    expect_refused(ARGUMENTS("generate", "a", "-m", TINY, "-o", "a.png", "--frobnicate"), "frobnicate", "--help");
    expect_refused(ARGUMENTS("generate", "a", "-m", TINY, "-o", "a.png", "--steps", "0"), "--steps", "1 to 1000");
    expect_refused(ARGUMENTS("generate", "a", "-m", TINY, "-o", "a.png", "--steps", "-1"), "--steps", "1 to 1000");
    expect_refused(ARGUMENTS("generate", "a", "-m", TINY, "-o", "a.png", "--steps", "x"), "--steps", "\"x\"");
    expect_refused(ARGUMENTS("generate", "a", "-m", TINY, "-o", "a.png", "-W", "0"), "--width", "\"0\"");
    expect_refused(ARGUMENTS("generate", "a", "-m", TINY, "-o", "a.png", "-W", "100"), "width", "multiple of 16");
    expect_refused(ARGUMENTS("generate", "a", "-m", TINY, "-o", "a.png", "-W", "100000"), "width", "1024");
    expect_refused(ARGUMENTS("generate", "a", "-m", TINY, "-o", "a.png", "--seed", "-4"), "--seed", "-4");
    expect_refused(ARGUMENTS("generate", "a", "-m", TINY, "-o", "a.png", "--rng", "dice"), "--rng", "torch-cpu");
    expect_refused(ARGUMENTS("generate", "a", "-m", TINY, "-o", "a.png", "--negative", "b"), "--negative",
                   "--guidance");
    expect_refused(ARGUMENTS("generate", "a", "-m", TINY, "-o", "a.png", "--compute", "f64"), "--compute", "int8");
    expect_refused(ARGUMENTS("generate", "a", "-m", TINY, "-o", "a.png", "--cpu-mask", "avx2,mmx"), "mmx", "avx512");
    expect_refused(ARGUMENTS("generate", "a", "-m", TINY, "-o", "a.png", "--reference", "--compute", "int8"), "compute",
                   "reference");
    expect_refused(ARGUMENTS("generate", "a", "-m", TINY, "-o", "a.png", "--device", "gpu"), "\"gpu\"", "cuda:K");
    expect_refused(ARGUMENTS("generate", "a", "-m", TINY, "-o", "a.png", "--device", "cuda:x"), "cuda:x", "cuda:K");
    expect_refused(ARGUMENTS("generate", "a", "-m", TINY, "-o", "a.png", "--device", "cuda", "--compute", "int8"),
                   "compute", "fp8");
    expect_refused(ARGUMENTS("generate", "a", "-m", TINY, "-o", "a.png", "--device", "cuda", "--cpu-mask", "avx2"),
                   "--cpu-mask", "--device cuda");
    expect_refused(ARGUMENTS("generate", "a", "-m", TINY, "-o", "a.png", "--device", "cuda", "--reference"),
                   "--reference", "--device cuda");
    expect_refused(ARGUMENTS("generate", "a", "-m", TINY, "-o", "a.png", "--device", "cpu", "--compute", "fp8"),
                   "compute", "CPU");
    expect_refused(ARGUMENTS("generate", "a", "-m", TINY, "-o", "a.png", "--vram", "much"), "--vram", "6G");
    expect_refused(ARGUMENTS("generate", "a", "-m", TINY, "-o", "a.png", "--vram", "0"), "--vram", "\"0\"");
    expect_refused(ARGUMENTS("generate", "a", "-m", TINY, "-o", "a.png", "--vram", "4G", "--device", "cpu"), "--vram",
                   "--mem");
    expect_refused(ARGUMENTS("generate", "a", "-m", TINY, "-o", "a.png", "--vram", "4G", "--reference"), "--vram",
                   "--reference");
    expect_refused(ARGUMENTS("generate", "a", "-m", TINY, "-o", "a.png", "--vram", "4G", "--cpu-mask", "avx2"),
                   "--vram", "--cpu-mask");
    expect_refused(ARGUMENTS("bench", "--synthetic", "small", "--vram", "4X"), "--vram", "\"4X\"");
    expect_refused(ARGUMENTS("bench", "--synthetic", "small", "--vram", "4G", "--device", "cpu"), "--vram",
                   "--device cpu");
    expect_refused(ARGUMENTS("devices", "--cpu-mask", "mmx"), "mmx", "generic");
    expect_refused(ARGUMENTS("generate", "a", "-m", TINY, "-o", "a.gif"), "a.gif", ".png");
    expect_refused(ARGUMENTS("generate", "a", "-m", TINY, "-o", "no/such/a.png"), "no/such", "write");
    expect_refused(ARGUMENTS("generate", "a", "-m", "no-such-model", "-o", "a.png"), "no-such-model", "folder");
    expect_refused(ARGUMENTS("generate", "a", "-m", TINY "/vae", "-o", "a.png"), "model_index.json", "");
    expect_refused(ARGUMENTS("inspect"), "MODEL", "expected");
    expect_refused(ARGUMENTS("inspect", "nothing-here"), "nothing-here", "no such");
}

static void unwritable_places(void **state)
{
    /* A full disk: the device accepts the open and refuses the bytes. */
    expect_refused(ARGUMENTS("generate", "a", "-m", TINY, "-o", "/dev/full", "-W", "16", "-H", "16", "--steps", "1"),
                   "/dev/full", "o space");
    expect_refused(ARGUMENTS("generate", "a", "-m", TINY, "-o", "a.png", "--save-latents", "no/such/l.safetensors"),
                   "--save-latents", "no/such");
    run_shell(
        "cd '%s' && for words in --version --help devices 'help --man' 'inspect %s' 'generate a -m %s --plan'; do "
        "'%s' $words >/dev/full 2>/dev/null; [ $? = 1 ] || exit 1; done",
        test_folder, TINY, TINY, ZIMAGE_PROGRAM);
    if (geteuid() == 0)
        return; /* root writes everywhere */
    run_shell("mkdir '%s/locked' && chmod 555 '%s/locked'", test_folder, test_folder);
    expect_refused(ARGUMENTS("generate", "a", "-m", TINY, "-o", "locked/a.png"), "locked", "ermission");
    run_shell("chmod 755 '%s/locked' && rmdir '%s/locked'", test_folder, test_folder);
}

static void bad_prompts(void **state)
{
    expect_refused(ARGUMENTS("generate",
                             "a\xff"
                             "b",
                             "-m", TINY, "-o", "a.png"),
                   "prompt", "UTF-8");
    /* A prompt longer than a command line may hold, 1 MB in a batch: cut as the reference cuts it, with a warning. */
    FILE *file = fopen(in_folder("b.jsonl"), "w");
    fputs("{\"prompt\": \"", file);
    for (int i = 0; i < 1000000 / 8; i++)
        fputs("a giant ", file);
    fputs("\", \"seed\": 1, \"output\": \"1.png\", \"width\": 16, \"height\": 16}\n", file);
    fclose(file);
    run_program(ARGUMENTS("generate", "--batch", "b.jsonl", "--out-dir", ".", "-m", TINY, "--steps", "1", "-q"), &o);
    if (o.code)
        fail_msg("%s", o.err);
    assert_non_null(strstr(o.err, "warning"));
    assert_non_null(strstr(o.err, "512"));
    run_shell("rm -f '%s'/*", test_folder);
}

/* zimage generate must refuse the spoiled copy of a model, with both words. */
static void expect_model_refused(const char *model, const char *word1, const char *word2)
{
    expect_refused(ARGUMENTS("generate", "a", "-m", model, "-o", "a.png", "-W", "32", "-H", "32", "--steps", "1"),
                   word1, word2);
}

static void bad_configurations(void **state)
{
    static const struct {
        const char *file, *field, *value, *word;
    } cases[] = {
        {"transformer/config.json", "dim", NULL, "dim"},
        {"transformer/config.json", "dim", "-64", "dim"},
        {"transformer/config.json", "dim", "1099511627776", "dim"},
        {"transformer/config.json", "dim", "64.5", "dim"},
        {"transformer/config.json", "dim", "\"64\"", "dim"},
        {"transformer/config.json", "n_heads", "3", "n_heads"},
        {"transformer/config.json", "n_layers", "0", "n_layers"},
        {"transformer/config.json", "n_layers", "3", "missing"},
        {"transformer/config.json", "n_layers", "1", ""},
        {"transformer/config.json", "axes_dims", "[8, 12]", "axes_dims"},
        {"transformer/config.json", "axes_dims", "[8, 12, 14]", "axes_dims"},
        {"transformer/config.json", "axes_lens", "[640, 64, -1]", "axes_lens"},
        {"transformer/config.json", "in_channels", "8", "all_x_embedder"},
        {"transformer/config.json", "_training_sizes", "[]", "pairs"},
        {"transformer/config.json", "_training_sizes", "256", "pairs"},
        {"transformer/config.json", "_training_sizes", "[[256]]", "_training_sizes[0]"},
        {"transformer/config.json", "_training_sizes", "[[32, 32], [32, -1]]", "_training_sizes[1]"},
        {"transformer/config.json", "cap_feat_dim", "48", ""},
        {"text_encoder/config.json", "hidden_size", NULL, "4096"},
        {"text_encoder/config.json", "num_key_value_heads", "3", "num_key_value_heads"},
        {"text_encoder/config.json", "vocab_size", "100", ""},
        {"text_encoder/config.json", "hidden_act", "\"gelu\"", "hidden_act"},
        {"vae/config.json", "block_out_channels", "[]", "block_out_channels"},
        {"vae/config.json", "norm_num_groups", "5", "norm_num_groups"},
        {"vae/config.json", "latent_channels", "3", "decoder.conv_in.weight"},
        {"vae/config.json", "scaling_factor", "0", "scaling_factor"},
        {"scheduler/scheduler_config.json", "shift", "\"big\"", "shift"},
        {"scheduler/scheduler_config.json", "shift", "0", "shift"},
        {"scheduler/scheduler_config.json", "use_karras_sigmas", "true", "use_karras_sigmas"},
        {"model_index.json", "_class_name", "\"StableDiffusionPipeline\"", "_class_name"},
        {"model_index.json", "_class_name", NULL, "_class_name"},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        const char *model = copy_model("spoiled");
        spoil_json(model, cases[i].file, cases[i].field, cases[i].value);
        if (!strcmp(cases[i].field, "n_layers") && cases[i].value && !strcmp(cases[i].value, "1")) {
            /* A smaller network than the file holds: a warning names unexpected tensors, and the image is made. */
            run_program(ARGUMENTS("generate", "a", "-m", model, "-o", "a.png", "-W", "32", "-H", "32", "--steps", "1"),
                        &o);
            assert_int_equal(o.code, 0);
            assert_non_null(strstr(o.err, "unexpected"));
            assert_non_null(strstr(o.err, "layers.1."));
            unlink(in_folder("a.png"));
            continue;
        }
        expect_model_refused(model, "spoiled", cases[i].word);
    }
    run_shell("rm -rf '%s'/*", test_folder);
}

static void bad_files(void **state)
{
    static const char weights[] = "transformer/diffusion_pytorch_model.safetensors";
    const char *model = copy_model("spoiled");
    cut_file(model, weights, 100000);
    expect_model_refused(model, weights, "");
    cut_file(model, weights, 0);
    expect_model_refused(model, weights, "");
    run_shell("echo 'hello, this is not a model at all' >'%s/%s'", model, weights);
    expect_model_refused(model, weights, "");
    run_shell("rm '%s/%s'", model, weights);
    expect_model_refused(model, "diffusion_pytorch_model", "");
    model = copy_model("spoiled");
    run_shell("echo '{' >'%s/vae/config.json'", model);
    expect_model_refused(model, "vae/config.json", "");
    model = copy_model("spoiled");
    run_shell("rm '%s/tokenizer/tokenizer.json'", model);
    expect_model_refused(model, "tokenizer.json", "");
    /* Shards: one missing, then one outside the folder. */
    model = copy_model("spoiled");
    run_shell("rm '%s/%s' && cp '%s'/tiny-bf16-sharded/transformer/* '%s/transformer/' && cp "
              "'%s/tiny/transformer/config.json' "
              "'%s/transformer/'",
              model, weights, ZIMAGE_TEST_DATA, model, ZIMAGE_TEST_DATA, model);
    run_program(ARGUMENTS("generate", "a", "-m", model, "-o", "a.png", "-W", "32", "-H", "32", "--steps", "1", "-q"),
                &o);
    if (o.code)
        fail_msg("%s", o.err);
    unlink(in_folder("a.png"));
    run_shell("rm '%s'/transformer/*-00002-of-*", model);
    expect_model_refused(model, "00002-of", "");
    replace_text(in_folder("spoiled/transformer/diffusion_pytorch_model.safetensors.index.json"),
                 "diffusion_pytorch_model-00002", "../x-00002");
    expect_model_refused(model, "index.json", "..");
    run_shell("rm -rf '%s'/*", test_folder);
}

static void not_finite_names_the_block(void **state)
{
    for (size_t i = 0; i < SPOILED; i++) {
        const char *model = copy_model("spoiled");
        spoil_weight(model, spoiled[i].file, spoiled[i].tensor, spoiled[i].value);
        expect_model_refused(model, spoiled[i].block, "NaN");
    }
    run_shell("rm -rf '%s'/*", test_folder);
}

static void inspect_prints_everything(void **state)
{
    run_program(ARGUMENTS("inspect", TINY), &o);
    assert_int_equal(o.code, 0);
    assert_non_null(strstr(o.out, "ZImagePipeline"));
    assert_non_null(strstr(o.out, "layers.1.feed_forward.w2.weight"));
    assert_non_null(strstr(o.out, "cap_feat_dim"));
    assert_non_null(strstr(o.out, "F32"));
    run_program(ARGUMENTS("inspect", "--json", ZIMAGE_TEST_DATA "/noise.safetensors"), &o);
    assert_int_equal(o.code, 0);
}

static void the_example_works(void **state)
{
    run_shell("'%s' '%s' 'a red apple' '%s' 2>'%s'", ZIMAGE_EXAMPLE, TINY, in_folder("e.png"), in_folder("log"));
    assert_true(has_file("e.png"));
    run_shell("rm -f '%s'/*", test_folder);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(makes_an_image),
        cmocka_unit_test(same_seed_same_bytes),
        cmocka_unit_test(json_names_and_counts),
        cmocka_unit_test(latents_out_and_in),
        cmocka_unit_test(parts_of_models),
        cmocka_unit_test(places_of_the_cache),
        cmocka_unit_test(quantised_weights),
        cmocka_unit_test(no_text_encoder_is_fine_with_embeds),
        cmocka_unit_test(interrupt_leaves_nothing),
        cmocka_unit_test(a_second_interrupt_ends_at_once),
        cmocka_unit_test(an_ignored_interrupt_stays_ignored),
        cmocka_unit_test(wrong_command_lines),
        cmocka_unit_test(unwritable_places),
        cmocka_unit_test(bad_prompts),
        cmocka_unit_test(bad_configurations),
        cmocka_unit_test(bad_files),
        cmocka_unit_test(not_finite_names_the_block),
        cmocka_unit_test(inspect_prints_everything),
        cmocka_unit_test(the_example_works),
    };
    return cmocka_run_group_tests(tests, folder_make, folder_remove);
}
