/* Batches: what is checked before the first image, what lines may hold, and what is reported when a line fails. The
 * keys, values and rules of lines are in test_options.c. */
#include <sys/resource.h>

#include "program.h"

#define TINY ZIMAGE_TEST_DATA "/tiny"

static outcome o;

#define BATCH(...)                                                                                                     \
    ARGUMENTS("generate", "--batch", "b.jsonl", "--out-dir", "out", "-m", TINY, "-q", "--steps", "1", "-W", "16",      \
              "-H", "16", __VA_ARGS__)

static void clear(void)
{
    run_shell("rm -rf '%s'/*", test_folder);
}

static void expect_done(const char *lines, const char *const *arguments)
{
    put_file("b.jsonl", lines);
    run_program(arguments, &o);
    if (o.code)
        fail_msg("exit code %d: %s", o.code, o.err);
}

/* Nothing is made, not even the folder. */
static void expect_batch_refused(const char *lines, const char *word1, const char *word2)
{
    put_file("b.jsonl", lines);
    expect_refusal(BATCH(NULL), &o, word1, word2);
    assert_int_equal(o.code, 2);
    assert_false(has_file("out"));
}

/* ---- before the first image ---- */

static void the_folder_is_created(void **state)
{
    put_file("b.jsonl", "{\"prompt\": \"a\", \"output\": \"1.png\"}\n\n{\"prompt\": \"b\", \"output\": \"2.png\"}\n");
    run_program(ARGUMENTS("generate", "--batch", "b.jsonl", "--out-dir", "new//deep/", "-m", TINY, "-q", "--steps", "1",
                          "-W", "16", "-H", "16"),
                &o);
    if (o.code)
        fail_msg("%s", o.err);
    assert_true(has_file("new/deep/1.png") && has_file("new/deep/2.png"));
    clear();
    put_file("b.jsonl", "{\"prompt\": \"a\", \"output\": \"1.png\"}\n");
    put_file("file", "");
    static const char *const folders[] = {"file", "file/x", "/proc/x"};
    for (int i = 0; i < 3; i++)
        expect_refusal(ARGUMENTS("generate", "--batch", "b.jsonl", "--out-dir", folders[i], "-m", "."), &o, "--out-dir",
                       folders[i]);
    /* A model that can't be opened leaves no folders behind, and those that were there. */
    run_shell("mkdir '%s'", in_folder("old"));
    expect_refusal(ARGUMENTS("generate", "--batch", "b.jsonl", "--out-dir", "old/a/b/c", "-m", "."), &o,
                   "model_index.json", "");
    assert_true(has_file("old") && !has_file("old/a"));
    clear();
}

/* What is wrong with the last line is said before the first image is made, with its number. */
static void the_whole_batch_is_checked(void **state)
{
#define GOOD "{\"prompt\": \"a\", \"output\": \"1.png\"}\n"
    char name[400], text[1024];
    memset(name, 'a', 300);
    strcpy(name + 300, ".png");
    snprintf(text, sizeof text, GOOD "{\"prompt\": \"b\", \"output\": \"%s\"}\n", name);
    expect_batch_refused(text, "b.jsonl: line 2: output", "name too long");
    expect_batch_refused(GOOD "{\"prompt\": \"b\", \"width\": 100}", "b.jsonl: line 2: width: 100", "multiple of 16");
    expect_batch_refused(GOOD "{\"prompt\": \"b\", \"width\": 100000}", "b.jsonl: line 2: width: 100000", "1024");
    expect_batch_refused(GOOD "{\"prompt\": \"b\", \"latents\": \"no.safetensors\"}", "line 2: latents: no.safetensors",
                         "");
    expect_batch_refused(GOOD "{\"prompt_embeds\": \"no.safetensors\"}", "line 2: prompt_embeds: no.safetensors", "");
    expect_batch_refused(GOOD "\n{\"prompt\": \"b\", \"count\": 2, \"save_latents\": \"l\"}", "line 3: save_latents",
                         "count");
    expect_batch_refused(GOOD "{\"prompt\": \"b\", \"count\": 100000}", "line 2", "images");
    expect_batch_refused(GOOD "{\"prompt\": \"b\xff\"}", "line 2", "decode byte 0xff");
    expect_batch_refused("\xff\xfe{\"", "line 1", "");
    clear();
}

/* Two lines that write one file are refused. */
static void one_file_has_one_line(void **state)
{
    expect_batch_refused(GOOD GOOD, "line 2: output", "line 1 has the same");
    expect_batch_refused("{\"prompt\": \"a\", \"output\": \"1.png\", \"count\": 2}\n"
                         "{\"prompt\": \"a\", \"output\": \"1-2.png\"}",
                         "line 2: output", "line 1 has the same");
    expect_batch_refused("{\"prompt\": \"a\", \"output\": \"1.png\", \"save_latents\": \"1.png\"}",
                         "line 1: save_latents", "line 1 has the same");
    expect_batch_refused("{\"prompt\": \"a\", \"save_latents\": \"l\"}\n{\"prompt\": \"a\", \"save_latents\": \"l\"}",
                         "line 2: save_latents", "line 1 has the same");
    /* Default names give way to names, and to each other. */
    expect_done("{\"prompt\": \"a\"}\n{\"prompt\": \"b\", \"output\": \"a-1.png\"}\n{\"prompt\": \"a\"}\n",
                BATCH("--seed", "1"));
    run_shell("cd '%s/out' && [ $(ls | wc -l) = 3 ] && cmp -s a-1-2.png a-1-3.png && ! cmp -s a-1.png a-1-2.png && "
              "rm a-1.png && ln -s elsewhere a-1.png",
              test_folder);
    /* And to links. */
    expect_done("{\"prompt\": \"a\"}\n", BATCH("--seed", "1"));
    run_shell("cd '%s/out' && cmp -s a-1-2.png a-1-4.png && [ ! -e elsewhere ]", test_folder);
    clear();
}

/* With --resume a file that appears while its image is made stays: somebody else was first. */
static void the_first_file_stays(void **state)
{
    put_file("b.jsonl", "{\"prompt\": \"a\", \"output\": \"1.png\"}\n"
                        "{\"prompt\": \"b\", \"output\": \"2.png\", \"steps\": 1000, \"size\": \"192x192\"}\n");
    run_shell(
        "cd '%s' && '%s' generate --batch b.jsonl --out-dir out -m '%s' -W 16 -H 16 --steps 1 --resume >said 2>&1 & "
        "work=$! && cd '%s' && until grep -qs 'image 2 of 2, denoise, step' said; do sleep 0.01; done && "
        "kill -0 $work && echo theirs >x && ln x out/2.png && wait $work && [ \"$(cat out/2.png)\" = theirs ] && "
        "grep -q 'out/2.png exists by now: it stays as it is' said",
        test_folder, ZIMAGE_PROGRAM, TINY, test_folder);
    /* Without it the user replaces it. */
    run_shell("cd '%s' && '%s' generate --batch b.jsonl --out-dir out -m '%s' -W 16 -H 16 --steps 1 -q >said && "
              "zimage=$(head -c 4 out/2.png | tail -c 3) && [ \"$zimage\" = PNG ]",
              test_folder, ZIMAGE_PROGRAM, TINY);
    clear();
}

/* Files that are no batch. */
static void other_files(void **state)
{
    static const char *const paths[] = {".", "nothing", "/dev/zero", "/dev/null"};
    static const char *const words[] = {"Is a directory", "No such file", "line 1: more than", "no line"};
    for (int i = 0; i < 4; i++) {
        expect_refusal(ARGUMENTS("generate", "--batch", paths[i], "--out-dir", "out", "-m", TINY), &o, paths[i],
                       words[i]);
        assert_int_equal(o.code, 2);
    }
    run_shell("cd '%s' && for name in - /dev/stdin; do rm -rf out; printf "
              "'\\357\\273\\277{\"prompt\": \"a\", \"output\": \"1.png\"}\\r\\n' | '%s' generate --batch $name "
              "--out-dir out -m '%s' -W 16 -H 16 --steps 1 -q >/dev/null && [ -s out/1.png ] || exit 1; done; "
              "echo '{}' | '%s' generate --batch - --out-dir new -m '%s' 2>err; [ $? = 2 ] && "
              "grep -q '/dev/stdin: line 1: prompt' err && [ ! -e new ]",
              test_folder, ZIMAGE_PROGRAM, TINY, ZIMAGE_PROGRAM, TINY);
    run_shell("cd '%s' && yes '{\"prompt\": \"a\"}' | '%s' generate --batch /dev/stdin --out-dir new -m '%s' 2>err; "
              "[ $? = 2 ] && grep -q 'more than 100000 images' err && [ ! -e new ]",
              test_folder, ZIMAGE_PROGRAM, TINY);
    clear();
}

/* ---- what a line holds ---- */

static void lines_hold_what_a_command_line_does(void **state)
{
    const float embeds[3 * 32] = {0.5f, -1.0f, 0.25f};
    const int64_t shape[2] = {3, 32};
    assert_int_equal(zimage_tensor_write(in_folder("e.safetensors"), "prompt_embeds", embeds, shape, 2, NULL),
                     ZIMAGE_OK);
    run_program(ARGUMENTS("generate", "x", "-m", TINY, "-W", "16", "-H", "16", "--steps", "1", "-q", "--seed", "5",
                          "-o", "a.png", "--save-latents", "l.safetensors", "--no-metadata"),
                &o);
    assert_int_equal(o.code, 0);
    run_program(ARGUMENTS("generate", "x", "-m", TINY, "--steps", "1", "-q", "--latents", "l.safetensors", "-o",
                          "b.png", "--no-metadata"),
                &o);
    run_program(ARGUMENTS("generate", "-m", TINY, "-W", "16", "-H", "16", "--steps", "1", "-q", "--seed", "5",
                          "--prompt-embeds", "e.safetensors", "-o", "c.png", "--no-metadata"),
                &o);
    assert_int_equal(o.code, 0);
    expect_done("{\"prompt\": \"x\", \"count\": 2, \"output\": \"a.png\"}\n"
                "{\"prompt\": \"x\", \"output\": \"s.png\", \"save_latents\": \"s.safetensors\"}\n"
                "{\"prompt_embeds\": \"e.safetensors\", \"output\": \"c.png\", \"seed\": 5}\n"
                "{\"prompt\": \"x\", \"output\": \"t.png\", \"no_metadata\": false, \"seed\": 18446744073709551615}\n",
                BATCH("--seed", "5", "--no-metadata", "--json"));
    run_shell("cd '%s' && cmp a.png out/a-1.png && cmp a.png out/s.png && cmp l.safetensors out/s.safetensors && "
              "cmp c.png out/c.png && ! cmp -s a.png out/a-2.png && grep -aq 18446744073709551615 out/t.png && "
              "! grep -aq zimage out/s.png",
              test_folder);
    assert_non_null(strstr(o.out, "\"out/a-2.png\",\"seed\":6"));
    assert_non_null(strstr(o.out, "\"out/t.png\",\"seed\":18446744073709551615"));
    expect_done("{\"prompt\": \"x\", \"output\": \"b.png\", \"latents\": \"l.safetensors\"}\n",
                ARGUMENTS("generate", "--batch", "b.jsonl", "--out-dir", "out", "-m", TINY, "-q", "--steps", "1",
                          "--no-metadata", "--json"));
    assert_null(strstr(o.out, "\"seed\"")); /* the file replaced its noise */
    run_shell("cd '%s' && cmp b.png out/b.png", test_folder);
    clear();
}

/* ---- what is reported ---- */

/* A warning about a prompt names its line, and is given once, before the first image. */
static void warnings_name_their_line(void **state)
{
    char text[8192] = GOOD "{\"count\": 2, \"prompt\": \"";
    for (int i = 0; i < 700; i++)
        strcat(text, "a giant ");
    strcat(text, "\"}\n");
    expect_done(text, BATCH("--seed", "1"));
    const char *warning = strstr(o.err, "zimage: warning: b.jsonl: line 2: prompt: ");
    if (!warning || strstr(strchr(warning, '\n'), "warning"))
        fail_msg("%s", o.err);
    clear();
}

static void expect_images(int count)
{
    json_t *result = json_loads(o.out, 0, NULL), *images = json_object_get(result, "images");
    if (!json_is_array(images) || (int)json_array_size(images) != count)
        fail_msg("expected %d images in: %s", count, o.out);
    json_decref(result);
}

/* -1: there is no such file. */
static off_t size_now(const char *name)
{
    struct stat st;
    return stat(in_folder(name), &st) == 0 ? st.st_size : -1;
}

static off_t size_of(const char *name)
{
    off_t size = size_now(name);
    assert_true(size >= 0);
    return size;
}

/* Of nine seeds, the first whose file is smaller than that of the next. A file size limit then stops the second. */
static void fails_at_the_second_of_many(void)
{
    struct rlimit before, limit;
    char names[2][32] = {"x-1.png", "x-2.png"}, seed[] = "1";
#define MANY(count, seed)                                                                                              \
    ARGUMENTS("generate", "x", "-m", TINY, "--size", "32x32", "--steps", "1", "-q", "-o", "x.png", "--json", "-n",     \
              count, "-s", seed)
    run_program(MANY("9", seed), &o);
    expect_images(9);
    while (size_of(names[0]) >= size_of(names[1])) {
        assert_true(*seed < '8');
        snprintf(names[0], sizeof names[0], "x-%c.png", ++*seed);
        snprintf(names[1], sizeof names[1], "x-%c.png", *seed + 1);
    }
    assert_int_equal(getrlimit(RLIMIT_FSIZE, &before), 0);
    limit = before;
    limit.rlim_cur = (rlim_t)size_of(names[0]);
    clear();
    assert_int_equal(setrlimit(RLIMIT_FSIZE, &limit), 0);
    run_program(MANY("3", seed), &o);
    assert_int_equal(setrlimit(RLIMIT_FSIZE, &before), 0);
    assert_int_equal(o.code, 1);
    expect_images(1);
    assert_true(has_file("x-1.png") && !has_file("x-2.png") && !has_file("x-3.png"));
    clear();
}

/* Where an image of several fails, --json still reports those that were made, and the message names the line. */
static void reports_after_a_failure(void **state)
{
    struct rlimit before, limit;
    assert_int_equal(getrlimit(RLIMIT_FSIZE, &before), 0);
    limit = before;
    limit.rlim_cur = 4096; /* bytes of a file: more than the first image has, and fewer than the second */
    put_file("b.jsonl",
             GOOD "{\"prompt\": \"a\", \"output\": \"2.png\", \"size\": \"256x256\"}\n{\"prompt\": \"a\"}\n");
    assert_int_equal(setrlimit(RLIMIT_FSIZE, &limit), 0);
    run_program(BATCH("--json"), &o);
    assert_int_equal(setrlimit(RLIMIT_FSIZE, &before), 0);
    assert_int_equal(o.code, 1);
    expect_images(1);
    assert_non_null(strstr(o.out, "out/1.png"));
    assert_non_null(strstr(o.err, "b.jsonl: line 2: "));
    assert_non_null(strstr(o.out, ",\"line\":1}],"));
    assert_non_null(strstr(o.out, "\"error\":\"b.jsonl: line 2: "));
    assert_int_equal(count_files(in_folder("out")), 1);
    clear();
    fails_at_the_second_of_many();
    /* Before the first image, too. */
    put_file("b.jsonl", GOOD);
    run_program(ARGUMENTS("generate", "x", "-m", ".", "-o", "a.png", "--json"), &o);
    assert_int_equal(o.code, 1);
    expect_images(0);
    const char *error = strstr(o.out, "\"error\":\"");
    assert_true(error && strstr(error, "model_index.json"));
    clear();
}

static void reports_after_a_signal(void **state)
{
    static const int signals[] = {SIGTERM, SIGINT};
    for (int i = 0; i < 2; i++) {
        put_file("b.jsonl",
                 GOOD "{\"prompt\": \"a\", \"output\": \"2.png\", \"steps\": 1000, \"size\": \"256x256\"}\n");
        pid_t child = start_program(BATCH("--json"));
        /* An empty file may be there before: the program tries whether it can be written. */
        for (int tries = 0; tries < 3000 && size_now("out/1.png") <= 0; tries++)
            usleep(10000);
        usleep(50000);
        kill(child, signals[i]);
        finish_program(child, &o);
        assert_int_equal(o.code, 128 + signals[i]);
        expect_images(1);
        assert_non_null(strstr(o.err, "b.jsonl: line 2: "));
        assert_int_equal(count_files(in_folder("out")), 1);
        clear();
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(the_folder_is_created),
        cmocka_unit_test(the_whole_batch_is_checked),
        cmocka_unit_test(one_file_has_one_line),
        cmocka_unit_test(the_first_file_stays),
        cmocka_unit_test(other_files),
        cmocka_unit_test(lines_hold_what_a_command_line_does),
        cmocka_unit_test(warnings_name_their_line),
        cmocka_unit_test(reports_after_a_failure),
        cmocka_unit_test(reports_after_a_signal),
    };
    return cmocka_run_group_tests(tests, folder_make, folder_remove);
}
