/* How the program ends: output that can't be written, signals, and files that change meanwhile. */
#include <sys/resource.h>

#include "program.h"

#define TINY ZIMAGE_TEST_DATA "/tiny"

#define ARGUMENTS(...) ((const char *const[]){__VA_ARGS__, NULL})
/* An image of 16 x 16 in a step. */
#define SMALL(...)                                                                                                     \
    ARGUMENTS("generate", "-p", "x", "-m", TINY, "-W", "16", "-H", "16", "--steps", "1", "-s", "1", __VA_ARGS__)
/* 1000 steps take long enough to be interrupted on any machine. */
#define LONG(...) ARGUMENTS("generate", "-p", "x", "-W", "256", "-H", "256", "--steps", "1000", __VA_ARGS__)

static outcome o;

static void empty_folder(void)
{
    run_shell("rm -rf '%s' && mkdir '%s'", test_folder, test_folder);
}

/* ---- standard output --------------------------------------------------------------------------------------------- */

/* Every command, with little and with much output, says that it can't be written, and fails. */
static void full_outputs_are_failures(void **state)
{
    if (access("/dev/full", W_OK) != 0)
        skip();
    run_shell(
        "cd '%s' && Z='%s' && M='%s' && for words in --version --help 'help generate' 'help --man' 'generate --help' "
        "'completion bash' 'completion zsh' 'completion fish' devices 'devices --json' \"inspect $M\" "
        "\"inspect --json $M\" \"tokenize hello -m $M\" \"tokenize hello -m $M --json\" \"generate a -m $M --plan\" "
        "\"generate a -m $M --plan --json\" \"generate a -m $M -W 16 -H 16 --steps 1 -q -o a.png\" "
        "\"generate a -m $M -W 16 -H 16 --steps 1 -q --json -o a.png\"; do for out in /dev/full closed; do "
        "if [ $out = closed ]; then $Z $words >&- 2>err; else $Z $words >$out 2>err; fi; "
        "[ $? = 1 ] && [ $(wc -l <err) = 1 ] && grep -q 'standard output: [NB]' err || "
        "{ echo \"$words >$out\"; cat err; exit 1; }; done; done >&2",
        test_folder, ZIMAGE_PROGRAM, TINY);
    empty_folder();
}

/* bench and selftest, as above: they take seconds. */
static void full_outputs_of_measurements(void **state)
{
    if (access("/dev/full", W_OK) != 0)
        skip();
    run_shell("'%s' bench --synthetic small -W 32 -H 32 --steps 1 >/dev/full 2>'%s'; [ $? = 1 ]", ZIMAGE_PROGRAM,
              in_folder("err"));
    run_shell("grep -q 'standard output: No space' '%s'", in_folder("err"));
    empty_folder();
}

/* Descriptor 1 is closed: the image must not get its number, and then the line that is printed. */
static void closed_outputs_get_no_files(void **state)
{
    run_program(SMALL("-o", "good.png", "-q"), &o);
    assert_int_equal(o.code, 0);
    run_shell("cd '%s' && ! '%s' generate -p x -m '%s' -W 16 -H 16 --steps 1 -s 1 -q -o a.png <&- >&- 2>&- && "
              "cmp a.png good.png",
              test_folder, ZIMAGE_PROGRAM, TINY);
    empty_folder();
}

/* An image that goes to standard output is alone there. */
static void standard_output_holds_the_image(void **state)
{
    run_program(SMALL("-o", "good.png", "-q"), &o);
    assert_int_equal(o.code, 0);
    run_shell("cd '%s' && make() { '%s' generate -p x -m '%s' -W 16 -H 16 --steps 1 -s 1 \"$@\"; } && "
              "for name in - /dev/stdout /dev/fd/1 $(ls /proc/self/fd/1 2>/dev/null); do make -o $name >a.png 2>err && "
              "cmp a.png good.png && "
              "grep -q 'seed 1' err && make -q -o $name 2>err | cmp - good.png && ! [ -s err ] || exit 1; done && "
              "printf before >a.png && make -q -o - >>a.png && tail -c +7 a.png | cmp - good.png && "
              "make -q -o b.png --save-latents l.safetensors >line && make -q -o b.png --save-latents - >l && "
              "cmp l l.safetensors && mkfifo pipe && { cat pipe >c.png & } && make -q -o pipe >line && wait && "
              "cmp c.png good.png && grep -q 'seed 1' line",
              test_folder, ZIMAGE_PROGRAM, TINY);
    static const char *const also[][2] = {
        {"--json", "--json"}, {"--count=2", "one image"}, {"--save-latents=-", "--save-latents"}};
    for (size_t i = 0; i < sizeof also / sizeof *also; i++) {
        run_program(SMALL("-o", "-", also[i][0]), &o);
        assert_int_equal(o.code, 2);
        assert_non_null(strstr(o.err, also[i][1]));
        assert_string_equal(o.out, "");
    }
    empty_folder();
}

/* A reader that has enough ends the program as others are ended, without a word; but images are made before. */
static void pipes_without_readers(void **state)
{
    run_shell("cd '%s' && { sleep 0.2; '%s' inspect '%s' 2>err; echo $? >code; } | true; [ $(cat code) = 141 ] && ! "
              "[ -s err ]",
              test_folder, ZIMAGE_PROGRAM, TINY);
    run_shell("cd '%s' && { sleep 0.2; '%s' generate -p x -m '%s' -W 16 -H 16 --steps 1 -n 3 -o a.png -q 2>err; echo "
              "$? >code; } | "
              "true; [ $(cat code) = 141 ] && [ -s a-3.png ]",
              test_folder, ZIMAGE_PROGRAM, TINY);
    run_shell("cd '%s' && trap '' PIPE && { sleep 0.2; '%s' inspect '%s' 2>err; echo $? >code; } | true; [ $(cat code) "
              "= 1 ] && "
              "grep -q 'standard output: Broken pipe' err",
              test_folder, ZIMAGE_PROGRAM, TINY);
    empty_folder();
}

/* ---- signals ----------------------------------------------------------------------------------------------------- */

/* Waits until stderr of a started program holds the text. */
static void wait_for(const char *text)
{
    char path[PATH_MAX], err[4096] = "";
    snprintf(path, sizeof path, "%s.err", test_folder);
    for (int tries = 0; tries < 3000 && !strstr(err, text); tries++) {
        usleep(10000);
        if (access(path, R_OK) == 0)
            read_text(path, err, sizeof err);
    }
}

static void signals_stop_the_work(void **state)
{
    static const int numbers[] = {SIGINT, SIGTERM, SIGHUP, SIGXCPU};
    for (size_t i = 0; i < sizeof numbers / sizeof *numbers; i++) {
        pid_t child = start_program(LONG("-m", TINY, "-o", "a.png"));
        wait_for("step 1 of 1000");
        kill(child, numbers[i]);
        finish_program(child, &o);
        assert_int_equal(o.code, 128 + numbers[i]);
        assert_non_null(strstr(o.err, "cancelled"));
        assert_int_equal(count_files(test_folder), 0);
    }
}

/* What was ignored when the program was started stays ignored. */
static void ignored_signals_stay_ignored(void **state)
{
    static const int numbers[] = {SIGINT, SIGTERM, SIGHUP, SIGQUIT, SIGXCPU};
    for (size_t i = 0; i < sizeof numbers / sizeof *numbers; i++)
        signal(numbers[i], SIG_IGN);
    pid_t child = start_program(
        ARGUMENTS("generate", "-p", "x", "-m", TINY, "-o", "a.png", "-W", "64", "-H", "64", "--steps", "50"));
    for (size_t i = 0; i < sizeof numbers / sizeof *numbers; i++)
        signal(numbers[i], SIG_DFL);
    wait_for("step 1 of 50");
    for (size_t i = 0; i < sizeof numbers / sizeof *numbers; i++)
        kill(child, numbers[i]);
    finish_program(child, &o);
    assert_int_equal(o.code, 0);
    assert_int_equal(count_files(test_folder), 1);
    empty_folder();
}

static void a_limit_of_file_sizes_is_an_error(void **state)
{
    run_shell("cd '%s' && (ulimit -f 1; '%s' generate -p x -m '%s' -W 256 -H 256 --steps 1 -q -o a.png 2>/dev/null; "
              "[ $? = 1 ]) && [ -z \"$(ls -A)\" ]",
              test_folder, ZIMAGE_PROGRAM, TINY);
    run_shell(
        "cd '%s' && (ulimit -f 1; '%s' generate -p x -m '%s' -W 256 -H 256 --steps 1 -q -o a.png 2>&1 >/dev/null) | "
        "grep -q 'a.png: can.t be written: File too large'",
        test_folder, ZIMAGE_PROGRAM, TINY);
    empty_folder();
}

/* ---- files that change ------------------------------------------------------------------------------------------- */

/* Each of these weight files is needed at every step, or at the end. */
static void lost_weights_are_an_error(void **state)
{
    static const char *const weights[] = {"transformer/diffusion_pytorch_model.safetensors",
                                          "vae/diffusion_pytorch_model.safetensors"};
    for (size_t i = 0; i < 2; i++) {
        const char *model = copy_model("shrinking");
        const char *steps = i == 0 ? "1000" : "60";
        pid_t child = start_program(
            ARGUMENTS("generate", "-p", "x", "-m", model, "-W", "128", "-H", "128", "--steps", steps, "-o", "a.png"));
        wait_for("step 1 of");
        cut_file(model, weights[i], 4096);
        finish_program(child, &o);
        if (o.code != 1)
            fail_msg("exit code %d: %s", o.code, o.err);
        assert_non_null(strstr(o.err, weights[i]));
        assert_non_null(strstr(o.err, "shorter while it was in use"));
        assert_int_equal(access(in_folder("a.png"), F_OK), -1);
    }
    empty_folder();
}

/* Images that were made before are reported. */
static void lost_weights_in_a_batch(void **state)
{
    const char *model = copy_model("shrinking");
    FILE *file = fopen(in_folder("b.jsonl"), "w");
    for (int i = 1; i <= 2; i++)
        fprintf(file,
                "{\"prompt\": \"a\", \"seed\": 1, \"output\": \"%d.png\", \"width\": 128, \"height\": 128, \"steps\": "
                "%d}\n",
                i, i == 1 ? 1 : 1000);
    fclose(file);
    pid_t child = start_program(ARGUMENTS("generate", "--batch", "b.jsonl", "--out-dir", ".", "-m", model, "--json"));
    wait_for("step 1 of 1000");
    cut_file(model, "transformer/diffusion_pytorch_model.safetensors", 4096);
    finish_program(child, &o);
    assert_int_equal(o.code, 1);
    json_t *result = json_loads(o.out, 0, NULL);
    assert_int_equal(json_array_size(json_object_get(result, "images")), 1);
    json_decref(result);
    empty_folder();
}

#define WRITER_SECONDS 100

/* A writer that makes the file shorter and longer: inspect and generate answer, and no signal ends them. */
static void files_beside_a_writer(void **state)
{
    const char *model = copy_model("written");
    char command[3 * PATH_MAX];
    snprintf(command, sizeof command,
             "cd '%s/transformer' && cp *.safetensors whole && while :; do cat whole "
             ">diffusion_pytorch_model.safetensors; done",
             model);
    pid_t writer = fork();
    if (writer == 0) {
        alarm(WRITER_SECONDS); /* it ends also if this test fails or is killed */
        execl("/bin/sh", "sh", "-c", command, (char *)NULL);
        _exit(127);
    }
    for (int i = 0; i < 100; i++) {
        if (i % 4)
            run_program(ARGUMENTS("inspect", model), &o);
        else
            run_program(ARGUMENTS("generate", "-p", "x", "-m", model, "-W", "32", "-H", "32", "--steps", "2", "-q",
                                  "-o", "a.png"),
                        &o);
        if (o.code != 0 && o.code != 1)
            fail_msg("exit code %d: %s", o.code, o.err);
        if (o.code == 1 && !strstr(o.err, "diffusion_pytorch_model.safetensors") && !strstr(o.err, "NaN"))
            fail_msg("%s", o.err);
    }
    kill(writer, SIGKILL);
    waitpid(writer, NULL, 0);
    usleep(100000); /* its last cat */
    empty_folder();
}

/* Outputs of a batch stay in the folder, whatever lies there. */
static void batches_stay_in_their_folder(void **state)
{
    run_shell("cd '%s' && mkdir in out && echo secret >out/file.png && ln -s ../out/file.png in/1.png && "
              "ln -s ../out/new.png in/2.png && ln -s \"$PWD/out\" in/3.png",
              test_folder);
    for (int i = 1; i <= 3; i++) {
        run_shell("echo '{\"prompt\": \"a\", \"output\": \"%d.png\"}' >'%s/b.jsonl'", i, test_folder);
        run_program(ARGUMENTS("generate", "--batch", "b.jsonl", "--out-dir", "in", "-m", TINY, "-q"), &o);
        assert_int_equal(o.code, 2);
        assert_non_null(strstr(o.err, "line 1"));
        run_shell("cd '%s' && [ \"$(cat out/file.png)\" = secret ] && [ $(ls out | wc -l) = 1 ]", test_folder);
    }
    empty_folder();
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(full_outputs_are_failures),    cmocka_unit_test(full_outputs_of_measurements),
        cmocka_unit_test(closed_outputs_get_no_files),  cmocka_unit_test(standard_output_holds_the_image),
        cmocka_unit_test(pipes_without_readers),        cmocka_unit_test(signals_stop_the_work),
        cmocka_unit_test(ignored_signals_stay_ignored), cmocka_unit_test(a_limit_of_file_sizes_is_an_error),
        cmocka_unit_test(lost_weights_are_an_error),    cmocka_unit_test(lost_weights_in_a_batch),
        cmocka_unit_test(files_beside_a_writer),        cmocka_unit_test(batches_stay_in_their_folder),
    };
    return cmocka_run_group_tests(tests, folder_make, folder_remove);
}
